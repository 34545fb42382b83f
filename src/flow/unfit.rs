//! Mail that no ESP can carry (DELIVERY rule 8): noted once a message, while it waits for its end or for another ESP; the
//! alert is raised with the first and over with the last of it.

use std::sync::Arc;

use super::call::Call;
use super::courier::Courier;
use crate::address::Address;
use crate::journal;
use crate::mail::{Outcome, Step};
use crate::store::Settle;

/// The word in alerts and in a message's life.
const KIND: &str = "unfit_everywhere";

/// The first of these that its last ESP could not carry, and that no other was left for.
pub(super) fn stranded(settles: &[Settle]) -> Option<u32> {
    let stranded =
        |s: &&Settle| matches!(s.outcome, Outcome::Unfit { .. }) && matches!(s.step, Step::Later(_));
    settles.iter().find(stranded).map(|s| s.delivery.recipient)
}

impl Courier {
    /// Says that nobody can carry it, where that holds for all that may, and was not said before. After the settle's
    /// commit: the answers are read from there, those of a start before this one as well.
    pub(super) async fn tell_stranded(self: &Arc<Self>, call: &Call, recipient: u32) {
        let pin = call.message.pin.as_deref();
        let setup = self.setup();
        let may_carry = setup.names().into_iter().filter(|name| pin.is_none_or(|pin| pin == *name));
        let Some(passenger) = call.passengers.iter().find(|p| p.recipient == recipient) else { return };
        match self.store.note_unfit(call.delivery(passenger), may_carry.map(str::to_owned).collect()).await {
            Ok(Some(reasons)) => {
                let (id, to) = (call.message.id, call.address(passenger).map_or("", Address::wire));
                journal::event(id, Some(to), KIND, &reasons);
                let words = format!(
                    "no ESP can carry {id} to <{to}>: {reasons}. Such mail is tried again until its max_age; add an ESP \
                     that can, or remove it"
                );
                if self.unfit.raise(&words) {
                    self.record_alert(None, KIND, &words);
                }
            }
            Ok(None) => {}
            Err(error) => journal::trouble("noting that no ESP can carry a message", &error.to_string()),
        }
    }

    /// Whether none of it is left.
    pub(super) async fn look_at_unfit(&self) {
        if !self.unfit.raised() {
            return;
        }
        match self.store.unfit_waits().await {
            Ok(true) => {}
            Ok(false) => {
                self.unfit.clear("no mail waits any more that no ESP can carry");
            }
            Err(error) => journal::trouble("looking for mail that no ESP can carry", &error.to_string()),
        }
    }
}
