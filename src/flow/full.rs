//! An ESP that takes no further connection beside those that stand: it says so, or turns a new one away without a word of
//! why while others carry mail. That is no fault of its: fewer are used from then on (see [`super::seats`]), and the call
//! goes by one of them. Where none of ours stands, or none carries anything, it is a refusal like others.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use super::courier::Courier;
use super::outlet::Outlet;
use crate::clock::monotonic;
use crate::mail::{Fault, Outcome, Phase, Reply, Status};
use crate::wire::Wire;

/// Where an ESP is full and no fewer connections are to be used, it may not know yet that one has gone: it is asked again
/// after this.
const SEAT_PAUSE: Duration = Duration::from_millis(250);
/// Who is turned away is so at once: what takes longer hangs, or is slow.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(2);
/// Another connection's mail, answered so long before or after, shows that the ESP is well.
const SERVED_WITHIN: Duration = Duration::from_secs(2);
/// That is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// That there is no place for one more.
pub(super) struct NoPlace {
    /// Other connections that stand.
    others: usize,
    /// The ESP's words, or what happened instead.
    said: String,
}

impl Courier {
    /// Whether a call that began then came to no more than the want of a place.
    pub(super) async fn lacks_place(
        &self,
        outlet: &Outlet,
        call: &Call,
        (reply, outcomes): (&Reply, &[Outcome]),
        began: Instant,
    ) -> Option<NoPlace> {
        let wire = &*call.line.wire;
        if let Some(said) = call.line.esp.full_house(reply) {
            if still_stands(reply) {
                wire.let_one_go().await;
            }
            return Some(NoPlace { others: wire.standing(), said }).filter(|no| no.others > 0);
        }
        let at_once = began.elapsed() < TURNED_AWAY_WITHIN;
        if at_once && turned_away(reply, outcomes) && self.others_are_served(outlet, wire, began).await {
            let said = outcomes.first().map_or("", Outcome::said);
            let said = format!("turned away while others carry mail: {said}");
            return Some(NoPlace { others: wire.standing(), said });
        }
        None
    }

    /// Whether other connections to it carry mail, as far as that shows in a moment.
    async fn others_are_served(&self, outlet: &Outlet, wire: &dyn Wire, began: Instant) -> bool {
        let until = monotonic() + SERVED_WITHIN;
        while wire.standing() > 0 && monotonic() < until {
            if outlet.gate.answered_at().is_some_and(|at| at + SERVED_WITHIN >= began) {
                return true;
            }
            tokio::select! {
                () = self.abort.wait() => return false,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        false
    }

    /// No attempt, and no word about the ESP. From now on no more are used, and the call goes by one of them.
    pub(super) async fn wait_for_seat(self: &Arc<Self>, outlet: &Outlet, call: Call, no: NoPlace) {
        if !outlet.seats.full(no.others, &no.said, self.clock.now()) {
            tokio::select! {
                () = self.abort.wait() => {}
                () = tokio::time::sleep(SEAT_PAUSE) => {}
            }
        }
        if let Some(call) = outlet.push_again(call) {
            self.take_back(&[call]).await;
            self.look_now();
        }
    }
}

/// It was told of a mail, and the connection may be used again.
fn still_stands(reply: &Reply) -> bool {
    matches!(reply, Reply::Smtp(smtp) if smtp.phase >= Phase::Mail && smtp.last.code != 421)
}

/// Whether a new connection came no further than the greeting and its answer, for no reason that is told. Who says that it
/// shuts down is not full.
fn turned_away(reply: &Reply, outcomes: &[Outcome]) -> bool {
    let early = |phase: Phase| matches!(phase, Phase::Banner | Phase::Ehlo);
    let unreasoned = |outcome: &Outcome| matches!(outcome, Outcome::Refused { fault: Fault::Path, said, .. } if !said.contains("shutting down"));
    let early = match reply {
        Reply::Smtp(smtp) => early(smtp.phase) && smtp.last.enhanced.map(Status::parts) != Some([4, 3, 2]),
        Reply::Lost { phase, handed_over: false, .. } => early(*phase),
        Reply::Lost { .. } | Reply::Http(_) | Reply::Unfit { .. } | Reply::Kept => false,
    };
    early && outcomes.iter().all(unreasoned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Answer, SmtpReply};

    #[test]
    fn who_is_turned_away_is_told_from_whoever_hears_why_and_from_whoever_came_further() {
        let smtp = |phase, code, enhanced| {
            let enhanced = Option::and_then(enhanced, |[a, b, c]: [u16; 3]| Status::new(a, b, c));
            let last = Answer { code, enhanced, text: "no".into() };
            Reply::Smtp(SmtpReply { phase, last, recipients: Vec::new(), reports: false })
        };
        let lost = |phase, handed_over| Reply::Lost {
            phase,
            handed_over,
            recipients: Vec::new(),
            said: "closed".into(),
        };
        let path = |said: &str| Outcome::Refused {
            fault: Fault::Path,
            lasting: false,
            wait: None,
            said: said.into(),
        };
        let account =
            Outcome::Refused { fault: Fault::Account, lasting: true, wait: None, said: "no".into() };
        for (reply, outcome, expected) in [
            (smtp(Phase::Banner, 421, None), path("421"), true),
            (smtp(Phase::Ehlo, 554, None), path("554 no"), true),
            (lost(Phase::Banner, false), path("closed"), true),
            (smtp(Phase::Banner, 421, Some([4, 3, 2])), path("421 4.3.2 no"), false),
            (smtp(Phase::Banner, 421, None), path("421 shutting down"), false),
            (smtp(Phase::Banner, 554, None), account, false),
            (lost(Phase::Connect, false), path("connection refused"), false),
            (smtp(Phase::Mail, 451, None), path("451"), false),
            (lost(Phase::Dot, true), path("closed"), false),
        ] {
            assert_eq!(turned_away(&reply, &[outcome]), expected, "{reply:?}");
        }
    }
}
