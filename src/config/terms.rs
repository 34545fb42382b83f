//! What `[[listener]]` and `[[credential]]` bind their clients to.

use super::reader::{Item, Kind, TableReader};
use super::{esps, kinds, units};
use crate::mail::Terms;
use crate::mail::terms::Names;

/// Those of a `[[credential]]`.
pub(super) fn of_credential(t: &mut TableReader<'_, '_>) -> Terms {
    Terms {
        senders: t.read("senders", names(), Names::default()),
        rate: t.optional("rate", kinds::parsed(units::rate)),
    }
}

/// A list of addresses and of domains such as `@example.com`.
fn names() -> impl Kind<Names> {
    let list = kinds::list_of(kinds::parsed(esps::recipient));
    move |item: &Item<'_>| list.read(item).map(Names::of)
}
