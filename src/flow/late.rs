//! Answers that are late: the attempt is written down as unsure, its connection is free for other mail, and the line is
//! listened to for as long as the hold lasts. What is said there after all settles it.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::aftermath::looked_at;
use super::call::{Call, Times, Unanswered, phase_of};
use super::courier::Courier;
use super::outlet::Outlet;
use crate::clock::Timestamp;
use crate::mail::{DeliveryId, Outcome, Phase, Reply, Request, Step, Watch};

/// In so long after the hand-over a hang is seen, see [`super::gatehouse`].
const HANG_SEEN_AFTER: Duration = Duration::from_secs(4);

/// An exchange that goes on by itself.
pub(super) type Exchange = BoxFuture<'static, Reply>;

/// What is listened to beyond its time at one ESP, the longest first: at most as many as it has connections.
#[derive(Debug, Default)]
pub(super) struct Ears(Mutex<VecDeque<Watch>>);

impl Ears {
    /// One more. Where there are `max` already, whoever has listened longest does so no more.
    fn lend(&self, watch: &Watch, max: usize) {
        let mut ears = self.ears();
        ears.push_back(watch.clone());
        while ears.len() > max.max(1) {
            ears.pop_front().iter().for_each(Watch::stop_listening);
        }
    }

    fn give_back(&self, watch: &Watch) {
        self.ears().retain(|other| !other.is(watch));
    }

    fn ears(&self) -> MutexGuard<'_, VecDeque<Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hold may be shorter than it takes to see that an ESP hangs: until then what has no answer stays in flight.
async fn until_a_hang_is_seen(mut exchange: Exchange, watch: &Watch) -> Exchange {
    let left = HANG_SEEN_AFTER.saturating_sub(watch.handed_over_for().unwrap_or_default());
    tokio::select! {
        biased;
        reply = &mut exchange => Box::pin(ready(reply)),
        () = watch.stopping() => exchange,
        () = sleep(left) => exchange,
    }
}

/// What stands for the answer until it comes.
fn silence(phase: Phase, watch: &Watch) -> Reply {
    let since = watch.handed_over_for().unwrap_or_default();
    Reply::Lost {
        phase,
        handed_over: true,
        recipients: watch.answers().to_vec(),
        said: format!("no answer for {} s; the line is still listened to", since.as_secs()),
    }
}

/// The phase in which that request's answer is waited for.
pub(super) fn last_phase(request: &Request) -> Phase {
    match request {
        Request::Smtp(_) => Phase::Dot,
        Request::Http(_) | Request::Ses(_) | Request::Keep => Phase::Answer,
    }
}

impl Courier {
    /// Holds what has no answer in time, and listens on without its connection.
    pub(super) async fn go_on(
        self: &Arc<Self>,
        outlet: &Arc<Outlet>,
        connection: usize,
        call: Call,
        Unanswered { exchange, watch, phase }: Unanswered,
        started: Timestamp,
    ) {
        let open = self.hold(outlet, &call, &watch, (phase, started)).await;
        let exchange = until_a_hang_is_seen(exchange, &watch).await;
        outlet.gate.lands(connection);
        self.listen_on(outlet, call, exchange, watch, open);
    }

    /// Writes down what is handed over and has no answer in time, with its hold. Gives who of its recipients is without
    /// one: the others were refused before.
    async fn hold(
        self: &Arc<Self>,
        outlet: &Arc<Outlet>,
        call: &Call,
        watch: &Watch,
        (phase, started): (Phase, Timestamp),
    ) -> Vec<bool> {
        let answered = self.clock.now();
        let times = Times { started, answered, handed_over: watch.handed_over_for() };
        let silence = silence(phase, watch);
        let recipients = call.recipients();
        let outcomes = call.line.esp.read(call.parcel(&recipients, None), &silence, answered);
        let open = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Unsure { .. })).collect();
        let phases: Vec<_> = (0..recipients.len()).map(|n| phase_of(&silence, n)).collect();
        let took = Some(answered.since(started));
        let systemic = self.learn(outlet, call, &outcomes, false, watch, took);
        let settles = self.judge(outlet, call, outcomes.into_iter().zip(phases), &systemic, times).settles;
        let order: Vec<DeliveryId> = settles.iter().map(|s| s.delivery).collect();
        let next_look = settles.iter().filter_map(|s| looked_at(s.step)).min();
        let goes_on = settles.iter().any(|s| s.step == Step::Elsewhere);
        // Stopping: the next start judges it.
        let Ok(settled) = self.store.settle(settles).await else { return open };
        self.tell_assumed(outlet, call, order.into_iter().zip(settled));
        if let Some(at) = next_look {
            self.look_at(at);
        }
        if goes_on {
            self.look_now();
        }
        open
    }

    /// Listens on to a call that was settled as unsure, but for those of its recipients who were refused before.
    fn listen_on(
        self: &Arc<Self>,
        outlet: &Arc<Outlet>,
        mut call: Call,
        exchange: Exchange,
        watch: Watch,
        open: Vec<bool>,
    ) {
        call.room.leave();
        outlet.ears.lend(&watch, outlet.connections());
        let (courier, outlet) = (Arc::clone(self), Arc::clone(outlet));
        self.tasks.spawn(async move {
            let mut exchange = exchange;
            let reply = tokio::select! {
                biased;
                reply = &mut exchange => reply,
                () = courier.abort.wait() => {
                    watch.stop_listening();
                    exchange.await
                }
            };
            outlet.ears.give_back(&watch);
            courier.settle_late(&outlet, call, &reply, &watch, &open);
        });
    }

    /// Settles what is known after all. Who is still without an answer stays held.
    fn settle_late(
        self: &Arc<Self>,
        outlet: &Arc<Outlet>,
        mut call: Call,
        reply: &Reply,
        watch: &Watch,
        open: &[bool],
    ) {
        let recipients = call.recipients();
        let answered = self.clock.now();
        let outcomes = call.line.esp.read(call.parcel(&recipients, None), reply, answered);
        let told = outcomes.into_iter().enumerate().filter(|(n, outcome)| {
            open.get(*n).is_some_and(|open| *open) && !matches!(outcome, Outcome::Unsure { .. })
        });
        let (places, outcomes): (Vec<usize>, Vec<Outcome>) = told.unzip();
        if outcomes.is_empty() {
            return;
        }
        call.passengers = places.iter().filter_map(|n| call.passengers.get(*n)).copied().collect();
        let phases: Vec<_> = places.iter().map(|n| phase_of(reply, *n)).collect();
        let blamed = call.line.esp.blames_request(reply);
        let systemic = self.learn(outlet, &call, &outcomes, blamed, watch, None);
        let times = Times { started: call.begun_at, answered, handed_over: watch.handed_over_for() };
        let mut judgement = self.judge(outlet, &call, outcomes.into_iter().zip(phases), &systemic, times);
        call.note_relayed(&mut judgement.settles, Some(reply));
        self.settle(outlet, call, judgement);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Abort;

    #[tokio::test]
    async fn whoever_has_listened_longest_makes_room() {
        let ears = Ears::default();
        let watches: Vec<Watch> = (0..4).map(|_| Watch::new(Abort::default())).collect();
        watches[..3].iter().for_each(|watch| ears.lend(watch, 3));
        ears.give_back(&watches[1]);
        ears.lend(&watches[3], 2);
        watches[0].unheard().await;
        let still: Vec<bool> =
            ears.ears().iter().map(|ear| ear.is(&watches[2]) || ear.is(&watches[3])).collect();
        assert_eq!(still, [true, true]);
    }
}
