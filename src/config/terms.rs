//! What `[[listener]]` and `[[credential]]` bind their clients to.

use std::collections::BTreeSet;
use std::time::Duration;

use super::reader::{Item, Kind, TableReader};
use super::{esps, kinds, units};
use crate::address::{Address, Grammar};
use crate::mail::Terms;
use crate::mail::terms::{Lifts, Names, Rewrites};

/// Those of a `[[listener]]`.
pub(super) fn of_listener(t: &mut TableReader<'_, '_>) -> Terms {
    Terms { lifts: Lifts::default(), ..terms(t, Names::default()) }
}

/// Those of a `[[credential]]`: these, and whom its clients are and how much they may send.
pub(super) fn of_credential(t: &mut TableReader<'_, '_>) -> Terms {
    let senders = t.read("senders", names(), Names::default());
    let rate = t.optional("rate", kinds::parsed(units::rate));
    Terms { rate, ..terms(t, senders) }
}

fn terms(t: &mut TableReader<'_, '_>, senders: Names) -> Terms {
    let mut keys = BTreeSet::new();
    let rule = |named: &str, item: &Item<'_>| {
        let rule = rewrite(named, item, &senders)?;
        match keys.insert(rule.0.clone()) {
            true => Ok(rule),
            false => Err("another rule here is for the same".to_owned()),
        }
    };
    let from_rewrite =
        Rewrites::of(t.entries("from_rewrite", "{ \"@web1.local\" = \"app@example.com\" }", rule));
    let only_to = t.read("only_to", names(), Names::default());
    let redirect_to = t.optional("redirect_to", kinds::parsed(ascii_address));
    let dedupe = t.optional("dedupe", kinds::parsed(time_to_dedupe));
    let lifts = Lifts {
        from_rewrite: t.is_written("from_rewrite") && from_rewrite.is_empty(),
        only_to: t.is_written("only_to") && only_to.is_empty(),
        redirect_to: t.is_written("redirect_to") && redirect_to.is_none(),
        dedupe: t.is_written("dedupe") && dedupe.is_none(),
    };
    Terms { senders, from_rewrite, only_to, redirect_to, dedupe, lifts, ..Terms::default() }
}

/// A list of addresses and of domains such as `@example.com`.
fn names() -> impl Kind<Names> {
    let list = kinds::list_of(kinds::parsed(esps::recipient));
    move |item: &Item<'_>| list.read(item).map(Names::of)
}

/// One rule of `from_rewrite`: whom it is for, and who stands there instead.
fn rewrite(named: &str, item: &Item<'_>, senders: &Names) -> Result<(String, Address), String> {
    let key = match named.contains('@') {
        true => esps::recipient(named),
        false => Address::bare(named, Grammar::Lenient).map(|name| name.key()).map_err(|_| String::new()),
    };
    let key = key.map_err(|_| {
        "what stands on the left is neither a domain such as @web1.local, nor an address, nor a name such as root".to_owned()
    })?;
    let address = kinds::parsed(ascii_address).read(item)?;
    match senders.is_empty() || senders.name(&address) {
        true => Ok((key, address)),
        false => Err(format!("{address} is none of senders, and would be refused; name it there too")),
    }
}

/// Longer than any app goes on trying; what comes again after that is meant.
const DEDUPE_MAX: Duration = Duration::from_secs(24 * 3_600);

fn time_to_dedupe(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        Duration::ZERO => Err("is zero; leave the key out for none".into()),
        time if time > DEDUPE_MAX => {
            Err("is more than 24h: mail that is sent again a day later is meant".into())
        }
        time => Ok(time),
    }
}

/// An address that every next hop can be given.
fn ascii_address(text: &str) -> Result<Address, String> {
    let address = Address::parse(text, Grammar::Strict).map_err(|error| format!("is no address: {error}"))?;
    let ascii = address.ascii_wire().and_then(|ascii| Address::parse(&ascii, Grammar::Strict).ok());
    ascii.ok_or_else(|| "has letters beyond ASCII before the @, which not every ESP takes".to_owned())
}
