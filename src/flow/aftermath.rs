//! What follows from a call: the gate learns of it, the next step of each recipient is judged, and both are written down.

use std::sync::Arc;
use std::time::Duration;

use super::call::{Call, Times};
use super::choice::Wish;
use super::courier::Courier;
use super::gatehouse::Met;
use super::outlet::Outlet;
use super::pending::{Passenger, Pending};
use super::unfit;
use super::waiters::Waiter;
use crate::address::Address;
use crate::clock::Timestamp;
use crate::journal;
use crate::mail::from::{Whose, from_domain};
use crate::mail::notify::{Asks, ReportTo};
use crate::mail::{AttemptId, DeliveryId, Fault, Named, Outcome, Phase, Protocol, QueueState, Reply};
use crate::mail::{Step, StreamKind, Watch};
use crate::router::{Situation, Ties, next_step, would_leave};
use crate::store::{NewEvent, PutOff, Settle, Settled};

/// What follows from a call, before it is written down.
pub(super) struct Judgement {
    pub(super) settles: Vec<Settle>,
    /// Those that wait only since no other ESP was left.
    waits_for_another: Vec<DeliveryId>,
}

impl Courier {
    /// Tells the ESP's gate, meter and guard what a call met; which refusals are the ESP's own fault. `took`: how long it
    /// was; `None` where the answer was late, and the call was counted when it was held.
    pub(super) fn learn(
        self: &Arc<Self>,
        outlet: &Arc<Outlet>,
        call: &Call,
        outcomes: &[Outcome],
        blames_request: bool,
        watch: &Watch,
        took: Option<Duration>,
    ) -> Vec<bool> {
        if let Some(took) = took {
            outlet.meter.attempt(outcomes, took);
        }
        let of = |wanted: Fault| {
            outcomes.iter().any(|o| matches!(o, Outcome::Refused { fault, .. } if *fault == wanted))
        };
        let keys: Vec<String> = match of(Fault::Recipient) || of(Fault::Message) {
            true => call.recipients().iter().map(Address::key).collect(),
            false => Vec::new(),
        };
        let from_domain = of(Fault::Sender(Named::From)).then(|| from_domain(&call.message)).flatten();
        let whose = Whose {
            from_domain: from_domain.as_deref(),
            sender: Some(call.line.esp.sender(&call.message.envelope.sender)),
        };
        let given_up = watch.given_up() && watch.handed_over_for().is_none();
        let report = call.message.source.protocol == Protocol::Report;
        let met =
            Met { outcomes, keys: &keys, whose, blames_request, given_up, report, late: took.is_none() };
        let took = took.unwrap_or_default();
        let judged =
            outlet.gate.returns(&met, took, self.clock.now(), self.is_spoken_to_by(outlet, &call.line));
        self.record_alerts(outlet, judged.alerts);
        judged.systemic
    }

    /// An alert is an event as well as a line and a count.
    pub(super) fn record_alerts(self: &Arc<Self>, outlet: &Outlet, alerts: Vec<(&'static str, String)>) {
        for (kind, words) in alerts {
            self.record_alert(Some(outlet.name.to_string()), kind, &words);
        }
    }

    pub(super) fn record_alert(self: &Arc<Self>, esp: Option<String>, kind: &str, words: &str) {
        let event =
            NewEvent { esp, detail: format!("{kind}: {words}"), ..NewEvent::new("alert", self.clock.now()) };
        let courier = Arc::clone(self);
        self.tasks.spawn(async move { courier.store.record_events(vec![event]).await });
    }

    /// The next step of each, told to the log.
    pub(super) fn judge(
        &self,
        outlet: &Outlet,
        call: &Call,
        answers: impl ExactSizeIterator<Item = (Outcome, Option<Phase>)>,
        systemic: &[bool],
        times: Times,
    ) -> Judgement {
        let (mut settles, mut waits_for_another) = (Vec::with_capacity(answers.len()), Vec::new());
        let mut situation = None;
        let hold = self.rules(&call.message.stream, call.message.kind).unsure_hold;
        for ((passenger, (outcome, phase)), systemic) in call.passengers.iter().zip(answers).zip(systemic) {
            let step = match outcome {
                Outcome::Accepted { .. } => Step::Done,
                _ => {
                    let shut = || outlet.gate.why_shut().is_some();
                    let common = *situation.get_or_insert_with(|| self.situation(call, times, shut()));
                    let at = self.of(passenger, call, *systemic, common);
                    if would_leave(&outcome, &at) {
                        waits_for_another.push(call.delivery(passenger));
                    }
                    next_step(&outcome, &at)
                }
            };
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
                delivery: call.delivery(passenger),
                attempt: call.attempt,
                esp: outlet.name.to_string(),
                begun_at: call.begun_at,
                answered_at: times.answered,
                outcome,
                phase,
                step,
                hold,
                spent: call.room.share.spent,
                choice: call.told.clone(),
                relayed: false,
                heard: call.line.esp.tells_events(),
            });
        }
        Judgement { settles, waits_for_another }
    }

    pub(super) fn settle(self: &Arc<Self>, outlet: &Arc<Outlet>, call: Call, judgement: Judgement) {
        let Judgement { settles, waits_for_another } = judgement;
        if settles.is_empty() {
            return;
        }
        let gives_back = call.room.share.spent.is_some() && settles.iter().any(|s| s.step != Step::Done);
        let next_look = settles.iter().filter_map(|s| looked_at(s.step)).min();
        let stranded = unfit::stranded(&settles);
        let elsewhere: Vec<DeliveryId> =
            settles.iter().filter(|s| s.step == Step::Elsewhere).map(|s| s.delivery).collect();
        let for_recipient = settles.iter().any(|s| {
            // One that refuses everybody is left for its own sake.
            matches!(s.outcome, Outcome::Refused { fault: Fault::Recipient, lasting: false, .. })
                && s.step == Step::Elsewhere
        });
        let order: Vec<(DeliveryId, Step)> = settles.iter().map(|s| (s.delivery, s.step)).collect();
        let settling = self.store.settle(settles);
        if gives_back {
            // Once it is on its way to the ledger: who asks from now on is answered after it.
            outlet.allowance.stirred();
        }
        if next_look.is_none() && elsewhere.is_empty() {
            return;
        }
        let (courier, outlet) = (Arc::clone(self), Arc::clone(outlet));
        self.tasks.spawn(async move {
            // Stopping: the next start judges it.
            let Ok(settled) = settling.await else { return };
            let settled_of = || order.iter().map(|(id, _)| *id).zip(settled.iter().copied());
            courier.tell_assumed(&outlet, &call, settled_of());
            let waits = settled_of().filter(|(id, _)| waits_for_another.contains(id));
            courier.wait_for_another(&call, waits);
            // What is bound may be due before its step says so.
            let ends = order.iter().zip(&settled).filter_map(|((_, step), settled)| ends_at(*step, *settled));
            if let Some(at) = ends.chain(next_look).min() {
                courier.look_at(at);
            }
            let moved = order.into_iter().map(|(id, _)| id).zip(settled);
            let moved = moved.filter(|(id, _)| elsewhere.contains(id));
            courier.go_elsewhere(&call, moved, for_recipient);
            if let Some(recipient) = stranded {
                courier.tell_stranded(&call, recipient).await;
            }
        });
    }

    /// What waits only since no other ESP was left is due once one is.
    fn wait_for_another(&self, call: &Call, waits: impl Iterator<Item = (DeliveryId, Settled)>) {
        let item = |(delivery, settled)| match settled {
            Settled::Moved(from @ QueueState::Waiting { due: until }) => {
                Some(PutOff { delivery, from, until, round_ends: false })
            }
            _ => None,
        };
        let items: Vec<PutOff> = waits.filter_map(item).collect();
        let Some(until) = items.iter().map(|item| item.until).min() else { return };
        let esps = self.waits_for(&call.to_another(), self.clock.now());
        self.waiters().wait(Waiter { items, until, kind: call.message.kind }, &esps);
    }

    /// Says of those that ended as sent since a second answer was lost (DELIVERY rule 11) that nobody knows it; of
    /// transactional mail it is an alert.
    pub(super) fn tell_assumed(
        self: &Arc<Self>,
        outlet: &Outlet,
        call: &Call,
        settled: impl Iterator<Item = (DeliveryId, Settled)>,
    ) {
        for (id, settled) in settled {
            if settled != Settled::Assumed {
                continue;
            }
            let to = call.message.envelope.recipients.get(id.recipient as usize).map_or("", Address::wire);
            let (esp, message) = (&outlet.name, call.message.id);
            journal::event(
                message,
                Some(to),
                "assumed",
                &format!("{esp} lost a second answer: taken as sent"),
            );
            if call.message.kind == StreamKind::Transactional {
                let words = format!(
                    "{esp}: gave no answer for {message} to <{to}>, twice: it is taken as sent, and nobody knows whether \
                     it arrived. Ask the ESP; postroad queue requeue {message} sends it again"
                );
                self.record_alerts(outlet, outlet.gate.note_assumed(&words, self.clock.now()));
            }
        }
    }

    /// Queues again, at once, those whose next step is another ESP and whose settle is committed (DELIVERY rule 1).
    fn go_elsewhere(
        &self,
        call: &Call,
        moved: impl Iterator<Item = (DeliveryId, Settled)>,
        for_recipient: bool,
    ) {
        let (mut passengers, mut from) = (Vec::new(), None);
        for (id, settled) in moved {
            let Settled::Moved(state @ QueueState::Waiting { .. }) = settled else { continue };
            let passenger = call.passengers.iter().find(|p| call.delivery(p) == id);
            passengers.extend(passenger.map(|p| Passenger { tries: p.tries + 1, ..*p }));
            from = Some(state);
        }
        let Some(from) = from else { return };
        self.submit(Pending {
            message: Arc::clone(&call.message),
            rule: call.rule.clone(),
            passengers,
            from,
            bound_to: None,
            tried: call.tried.clone(),
            moved_for_recipient: call.moved_for_recipient || for_recipient,
            setup: call.setup,
        });
    }

    /// What the next step depends on, alike for all of a call.
    fn situation(&self, call: &Call, times: Times, shut: bool) -> Situation {
        let rules = self.rules(&call.message.stream, call.message.kind);
        Situation {
            kind: call.message.kind,
            now: times.answered,
            another_left: self.another_left(&call.to_another(), times.answered),
            systemic: false,
            shut,
            moved_for_recipient: call.moved_for_recipient,
            retry_in: Duration::ZERO,
            longest_wait: rules.retry.longest(),
            hold: rules.unsure_hold.saturating_sub(times.handed_over.unwrap_or_default()),
            bound: call.bound,
            seen_unsure: 0,
            expires_at: call.message.expires_at,
        }
    }

    /// And what is a recipient's own.
    fn of(&self, passenger: &Passenger, call: &Call, systemic: bool, common: Situation) -> Situation {
        let rules = self.rules(&call.message.stream, call.message.kind);
        let retry_in = jittered(rules.retry.nth(passenger.rounds + 1), call.attempt);
        Situation { systemic, retry_in, seen_unsure: passenger.seen_unsure, ..common }
    }
}

impl Call {
    /// Notes what was taken by one who will not tell what becomes of it.
    pub(super) fn note_relayed(&self, settles: &mut [Settle], reply: Option<&Reply>) {
        let asks = self.message.envelope.reports.as_deref();
        if asks.zip(reply).is_some_and(|(asks, reply)| owes(asks, reply)) {
            for settle in settles {
                settle.relayed = matches!(settle.outcome, Outcome::Accepted { .. });
            }
        }
    }

    /// One of its recipients, for an ESP that its round has not tried.
    fn to_another(&self) -> Wish<'_> {
        Wish {
            message: &self.message,
            rule: &self.rule,
            recipients: 1,
            whole: false,
            ties: Ties { bound_to: None, pin: self.message.pin.as_deref(), tried: &self.tried },
        }
    }
}

/// Whether it was taken by one who will not tell what becomes of it (RFC 3461 section 5.2.2). Where reports do not go to
/// the sender, the next hop was told to make none.
fn owes(asks: &Asks, reply: &Reply) -> bool {
    match reply {
        Reply::Smtp(reply) => !reply.reports || asks.to != ReportTo::Sender,
        // No API takes NOTIFY, RET or ENVID.
        Reply::Http(_) => true,
        Reply::Lost { .. } | Reply::Unfit { .. } | Reply::Kept => false,
    }
}

/// When the courier has to look at the queue again because of this step.
pub(super) fn looked_at(step: Step) -> Option<Timestamp> {
    match step {
        Step::Later(at) | Step::Hold(at) | Step::Assume(at) => Some(at),
        Step::Done | Step::Bounce | Step::Elsewhere => None,
    }
}

/// The end of the hold that it came to.
fn ends_at(step: Step, settled: Settled) -> Option<Timestamp> {
    match (looked_at(step), settled) {
        (Some(_), Settled::Moved(QueueState::Unsure { until, .. })) => Some(until),
        _ => None,
    }
}

/// The wait and up to a quarter more, so that what failed together does not return together. The same for all
/// recipients of a call: they stay together.
fn jittered(wait: Duration, attempt: AttemptId) -> Duration {
    let chance = (attempt.number() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
    wait + wait.mul_f64(0.25 * chance as f64 / 65_536.0)
}
