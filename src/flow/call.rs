//! One call to an ESP: composed for exactly the recipients that were begun, exchanged, read, and judged.

use std::sync::Arc;

use super::courier::Courier;
use super::outlet::{Outlet, Room};
use super::pending::{Passenger, Pending};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::esp::Parcel;
use crate::journal;
use crate::mail::{AttemptId, DeliveryId, Message, Outcome, Phase, QueueState, Reply, Step};
use crate::router::{Situation, next_step};
use crate::store::{Settle, Settled};

/// A begun attempt on its way to a free connection.
#[derive(Debug)]
pub struct Call {
    /// The message.
    pub message: Arc<Message>,
    /// The recipients that its begin returned.
    pub passengers: Vec<Passenger>,
    /// Its id.
    pub attempt: AttemptId,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// Outlets tried in this round, this one included.
    pub tried: Vec<usize>,
    /// See [`Pending::moved_for_recipient`].
    pub moved_for_recipient: bool,
    /// Its share of what is begun ahead.
    pub room: Room,
}

/// The times of one call, for the log's `delays`.
#[derive(Debug, Clone, Copy)]
struct Times {
    started: Timestamp,
    answered: Timestamp,
}

impl Times {
    fn delays(self, call: &Call) -> journal::Delays {
        journal::Delays {
            queued: call.begun_at.since(call.message.accepted_at),
            waited: self.started.since(call.begun_at),
            called: self.answered.since(self.started),
        }
    }
}

impl Courier {
    /// Carries one call through and settles it. The connection is free when this returns; the settle's commit is not
    /// waited for.
    pub(super) async fn carry(self: &Arc<Self>, outlet: &Arc<Outlet>, call: Call) {
        let recipients = call.recipients();
        let parcel = Parcel { message: &call.message, recipients: &recipients, attempt: call.attempt };
        let started = self.clock.now();
        let (outcomes, phase) = match outlet.esp.compose(parcel, started) {
            Err(unfit) => (vec![Outcome::Unfit { why: unfit.0 }; recipients.len()], None),
            Ok(request) => {
                let reply = outlet.wire.exchange(request, &self.abort).await;
                if self.abort.asked() && matches!(reply, Reply::Lost { handed_over: false, .. }) {
                    // The stop ended it: nobody's fault, and nothing that the next start should wait for.
                    return self.take_back(&[call]).await;
                }
                (outlet.esp.read(parcel, &reply, self.clock.now()), phase_of(&reply))
            }
        };
        let times = Times { started, answered: self.clock.now() };
        self.finish(outlet, call, &recipients, outcomes, phase, times);
    }

    fn finish(
        self: &Arc<Self>,
        outlet: &Arc<Outlet>,
        call: Call,
        recipients: &[Address],
        outcomes: Vec<Outcome>,
        phase: Option<Phase>,
        times: Times,
    ) {
        outlet.meter.attempt(&outcomes, times.answered.since(times.started));
        let mut settles = Vec::with_capacity(outcomes.len());
        for ((passenger, outcome), to) in call.passengers.iter().zip(outcomes).zip(recipients) {
            let step = next_step(&outcome, &self.situation(&call, passenger, times.answered));
            journal::attempted(&journal::Attempted {
                id: call.message.id,
                to: to.wire(),
                stream: call.message.stream.as_str(),
                esp: &outlet.name,
                attempt: passenger.tries + 1,
                delays: times.delays(&call),
                outcome: &outcome,
                step,
            });
            settles.push(Settle {
                delivery: DeliveryId { message: call.message.id, recipient: passenger.recipient },
                attempt: call.attempt,
                esp: outlet.name.to_string(),
                begun_at: call.begun_at,
                answered_at: times.answered,
                outcome,
                phase,
                step,
            });
        }
        self.settle(call, settles);
    }

    fn settle(self: &Arc<Self>, call: Call, settles: Vec<Settle>) {
        let next_look = settles.iter().filter_map(|s| looked_at(s.step)).min();
        let elsewhere: Vec<bool> = settles.iter().map(|s| s.step == Step::Elsewhere).collect();
        let settling = self.store.settle(settles);
        if next_look.is_none() && !elsewhere.contains(&true) {
            return;
        }
        let courier = Arc::clone(self);
        self.tasks.spawn(async move {
            // Stopping: the next start judges it.
            let Ok(settled) = settling.await else { return };
            if let Some(at) = next_look {
                courier.look_at(at);
            }
            courier.go_elsewhere(&call, &elsewhere, &settled);
        });
    }

    /// Queues again, at once, those whose next step is another ESP and whose settle is committed (DELIVERY rule 1).
    fn go_elsewhere(&self, call: &Call, elsewhere: &[bool], settled: &[Settled]) {
        let moved =
            call.passengers.iter().zip(elsewhere).zip(settled).filter_map(|((p, elsewhere), settled)| {
                match settled {
                    Settled::Moved(from @ QueueState::Waiting { .. }) if *elsewhere => Some((*p, *from)),
                    Settled::Moved(_) | Settled::RowOnly => None,
                }
            });
        let (passengers, states): (Vec<_>, Vec<_>) = moved.unzip();
        let Some(from) = states.first().copied() else { return };
        self.submit(Pending {
            message: Arc::clone(&call.message),
            passengers,
            from,
            bound_to: None,
            tried: call.tried.clone(),
            moved_for_recipient: true,
        });
    }

    fn situation(&self, call: &Call, passenger: &Passenger, now: Timestamp) -> Situation {
        let rules = self.rules(&call.message.stream, call.message.kind);
        Situation {
            kind: call.message.kind,
            now,
            another_left: (0..self.outlets.len()).any(|i| !call.tried.contains(&i))
                && call.message.pin.is_none(),
            moved_for_recipient: call.moved_for_recipient,
            retry_in: jittered(rules.retry.nth(passenger.tries + 1), call.attempt),
            hold: rules.unsure_hold,
            bound: passenger.open_attempts > 0,
            seen_unsure: passenger.seen_unsure,
            expires_at: call.message.expires_at,
        }
    }
}

impl Call {
    /// The addresses of its passengers, in their order.
    fn recipients(&self) -> Vec<Address> {
        let all = &self.message.envelope.recipients;
        self.passengers.iter().filter_map(|p| all.get(p.recipient as usize).cloned()).collect()
    }
}

fn phase_of(reply: &Reply) -> Option<Phase> {
    match reply {
        Reply::Smtp(r) => Some(r.phase),
        Reply::Lost { phase, .. } => Some(*phase),
        Reply::Unfit { .. } | Reply::Kept => None,
    }
}

/// When the courier has to look at the queue again because of this step.
fn looked_at(step: Step) -> Option<Timestamp> {
    match step {
        Step::Later(at) | Step::Hold(at) => Some(at),
        Step::Done | Step::Bounce | Step::Elsewhere | Step::Assume => None,
    }
}

/// The wait and up to a quarter more, so that what failed together does not return together. The same for all
/// recipients of a call: they stay together.
fn jittered(wait: std::time::Duration, attempt: AttemptId) -> std::time::Duration {
    let chance = (attempt.number() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
    wait + wait.mul_f64(0.25 * chance as f64 / 65_536.0)
}
