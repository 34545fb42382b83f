//! One call to an ESP: composed for exactly the recipients that were begun, exchanged, read, and judged.

use std::sync::Arc;
use std::time::Duration;

use super::courier::Courier;
use super::outlet::{Outlet, Room};
use super::pending::{Passenger, Pending};
use super::unfit;
use crate::address::Address;
use crate::clock::Timestamp;
use crate::esp::Parcel;
use crate::journal;
use crate::mail::{AttemptId, DeliveryId, Message, Outcome, Phase, QueueState, Reply, Step, Watch};
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
    /// How long before the answer the message was handed over.
    handed_over: Option<Duration>,
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
        let watch = Watch::new(self.abort.clone());
        let (outcomes, phases) = match outlet.esp.compose(parcel, started) {
            Err(unfit) => {
                let count = recipients.len();
                (vec![Outcome::Unfit { why: unfit.0 }; count], vec![None; count])
            }
            Ok(request) => {
                let reply = outlet.wire.exchange(request, &watch).await;
                if self.abort.asked() && matches!(reply, Reply::Lost { handed_over: false, .. }) {
                    // The stop ended it: nobody's fault, and nothing that the next start should wait for.
                    return self.take_back(&[call]).await;
                }
                let phases = (0..recipients.len()).map(|n| phase_of(&reply, n)).collect();
                (outlet.esp.read(parcel, &reply, self.clock.now()), phases)
            }
        };
        if outcomes.iter().all(|o| matches!(o, Outcome::Unfit { .. })) && call.can_part() {
            return self.part(call).await;
        }
        let handed_over = watch.handed_over_for();
        let times = Times { started, answered: self.clock.now(), handed_over };
        outlet.meter.attempt(&outcomes, times.answered.since(times.started));
        let settles = self.judge(outlet, &call, outcomes.into_iter().zip(phases), times);
        self.settle(call, settles);
    }

    /// The next step of each, told to the log.
    fn judge(
        &self,
        outlet: &Outlet,
        call: &Call,
        answers: impl ExactSizeIterator<Item = (Outcome, Option<Phase>)>,
        times: Times,
    ) -> Vec<Settle> {
        let mut settles = Vec::with_capacity(answers.len());
        for (passenger, (outcome, phase)) in call.passengers.iter().zip(answers) {
            let step = next_step(&outcome, &self.situation(call, passenger, times));
            journal::attempted(&journal::Attempted {
                id: call.message.id,
                to: call.address(passenger).map_or("", Address::wire),
                stream: call.message.stream.as_str(),
                esp: &outlet.name,
                attempt: passenger.tries + 1,
                delays: times.delays(call),
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
        settles
    }

    /// A next hop that cannot take a message for those who need SMTPUTF8 may take it for the others: nothing was sent,
    /// so both go again, apart. Their times differ as well, lest they be read as one from the database.
    async fn part(&self, call: Call) {
        let now = self.clock.now();
        let needs = |p: &Passenger| call.address(p).is_some_and(Address::needs_smtputf8);
        let (with, without): (Vec<_>, Vec<_>) = call.passengers.iter().copied().partition(needs);
        let tried = &call.tried[..call.tried.len().saturating_sub(1)];
        for (group, due) in [(without, now), (with, now.plus(Duration::from_millis(1)))] {
            let deliveries = group.iter().map(|p| (call.delivery(p), call.attempt)).collect();
            let taken_back = self.store.unbegin(deliveries, due).await;
            let free = group.into_iter().zip(taken_back).filter(|(_, taken)| matches!(taken, Ok(true)));
            let passengers: Vec<_> = free.map(|(passenger, _)| passenger).collect();
            if passengers.is_empty() {
                continue;
            }
            self.submit(Pending {
                message: Arc::clone(&call.message),
                passengers,
                from: QueueState::Waiting { due },
                bound_to: None,
                tried: tried.to_vec(),
                moved_for_recipient: call.moved_for_recipient,
            });
        }
    }

    fn settle(self: &Arc<Self>, call: Call, settles: Vec<Settle>) {
        let next_look = settles.iter().filter_map(|s| looked_at(s.step)).min();
        let stranded = unfit::stranded(&settles);
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
            if let Some(recipient) = stranded {
                courier.tell_stranded(&call, recipient).await;
            }
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

    fn situation(&self, call: &Call, passenger: &Passenger, times: Times) -> Situation {
        let rules = self.rules(&call.message.stream, call.message.kind);
        Situation {
            kind: call.message.kind,
            now: times.answered,
            another_left: (0..self.outlets.len()).any(|i| !call.tried.contains(&i))
                && call.message.pin.is_none(),
            moved_for_recipient: call.moved_for_recipient,
            retry_in: jittered(rules.retry.nth(passenger.tries + 1), call.attempt),
            hold: rules.unsure_hold.saturating_sub(times.handed_over.unwrap_or_default()),
            bound: passenger.open_attempts > 0,
            seen_unsure: passenger.seen_unsure,
            expires_at: call.message.expires_at,
        }
    }
}

impl Call {
    /// The addresses of its passengers, in their order.
    fn recipients(&self) -> Vec<Address> {
        self.passengers.iter().filter_map(|p| self.address(p).cloned()).collect()
    }

    /// Whether some of its addresses need SMTPUTF8 and others do not, and none is bound to stay here.
    fn can_part(&self) -> bool {
        let mut needs = self.passengers.iter().filter_map(|p| self.address(p)).map(Address::needs_smtputf8);
        let first = needs.next();
        needs.any(|other| Some(other) != first) && self.passengers.iter().all(|p| p.open_attempts == 0)
    }

    pub(super) fn address(&self, passenger: &Passenger) -> Option<&Address> {
        self.message.envelope.recipients.get(passenger.recipient as usize)
    }
}

/// How far the recipient at `n` came: one that was refused at RCPT came no further, whatever became of the others.
fn phase_of(reply: &Reply, n: usize) -> Option<Phase> {
    match reply {
        Reply::Smtp(r) if r.recipients.get(n).is_some_and(|own| !own.positive()) => Some(Phase::Rcpt),
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
fn jittered(wait: Duration, attempt: AttemptId) -> Duration {
    let chance = (attempt.number() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
    wait + wait.mul_f64(0.25 * chance as f64 / 65_536.0)
}
