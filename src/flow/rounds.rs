//! The courier's rounds: what waits is begun where there is room, memory first, then what the database has due.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::call::Call;
use super::choice::{Chosen, NotChosen, Wish, may_open};
use super::courier::Courier;
use super::outlet::Load;
use super::pending::{Passenger, Pending, PendingQueue};
use super::setup::{Carrier, Setup};
use super::waiters::Waiter;
use crate::clock::Timestamp;
use crate::journal;
use crate::mail::delivery::{Begin, Unable};
use crate::mail::from::Whose;
use crate::mail::{AttemptId, DeliveryId, Lane, Message, MessageId, QueueState};
use crate::router::{Choice, PassedOver, Ties};
use crate::store::{BeginRequest, Beginning, Claim, PutOff, UnableAt};

/// Deliveries begun in one commit.
const BEGIN_BATCH: usize = 512;
/// The courier looks at the queue at least so often, whatever woke it or did not (DELIVERY rule 21).
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many of a lane without room are passed by for what stands behind them.
const ASIDE_MAX: usize = 64;
/// After the store refused, the next try.
const STORE_PAUSE: Duration = Duration::from_millis(250);
/// A delivery that its ESP cannot repeat is looked at so often while its second hold lasts.
const UNABLE_EVERY: Duration = Duration::from_secs(5);
/// What no ESP can take now, though others of its lane move, is looked at again after so long at most, and as soon as one
/// that it waits for takes mail again.
const PUT_OFF_MAX: Duration = Duration::from_secs(60);

/// What a look at the mail in memory found.
#[derive(Debug, Default)]
struct Taken {
    batch: Vec<(Pending, Chosen)>,
    /// Some were over.
    expired: bool,
    /// Bound to an ESP that cannot take them.
    unable: Vec<(UnableAt, String)>,
    /// No ESP can take them now.
    put_off: Vec<PutAside>,
    /// An ESP's rate leaves room then.
    again_at: Option<Timestamp>,
}

/// A group that no ESP can take now.
#[derive(Debug)]
struct PutAside {
    waiter: Waiter,
    /// ESPs that may take it before its time.
    waits_for: Vec<Arc<str>>,
}

impl Courier {
    pub(super) async fn rounds(self: Arc<Self>) {
        let mut again_at = None;
        loop {
            let next = Timestamp::from_millis(self.next_look_millis.load(Ordering::Acquire));
            let next = again_at.map_or(next, |at: Timestamp| at.min(next));
            let nap = next.since(self.clock.now()).min(LOOK_EVERY);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(nap) => {}
            }
            again_at = self.round().await;
        }
    }

    /// Begins all that has room; gives the moment at which a rate leaves more.
    async fn round(self: &Arc<Self>) -> Option<Timestamp> {
        let mut again_at = None;
        self.call_waiters().await;
        while !self.stop.is_cancelled() {
            let taken = self.take_batch();
            self.setup().carriers.iter().for_each(|c| self.refill(&c.outlet));
            if taken.expired && !self.sweep().await {
                // It would be read, and be over, again at once.
                tokio::time::sleep(STORE_PAUSE).await;
            }
            again_at = taken.again_at;
            self.put_aside(taken.unable, taken.put_off).await;
            if !taken.batch.is_empty() {
                self.begin(taken.batch).await;
            } else if !self.read_due().await {
                break;
            }
        }
        again_at
    }

    /// The next in turn that have room, each with where it goes: a lane after the other, transactional ones first. Where
    /// the room is for some of a message's recipients, the others are next in turn. One without room stays in front, and
    /// lets some pass that have room elsewhere. Whatever has passed its `max_age` is not begun any more: it leaves memory
    /// here, and the sweep ends it.
    fn take_batch(&self) -> Taken {
        let mut taken = Taken::default();
        let (now, setup) = (self.clock.now(), self.setup());
        let mut queue = self.queue();
        let mut deliveries = 0;
        for place in queue.places() {
            if deliveries >= BEGIN_BATCH {
                break;
            }
            self.take_lane(&mut queue, place, (&setup, now), &mut taken, &mut deliveries);
        }
        taken
    }

    fn take_lane(
        &self,
        queue: &mut PendingQueue,
        place: usize,
        (setup, now): (&Arc<Setup>, Timestamp),
        taken: &mut Taken,
        deliveries: &mut usize,
    ) {
        let mut aside = Vec::new();
        while *deliveries < BEGIN_BATCH && aside.len() < ASIDE_MAX {
            let Some(next) = queue.pop(place) else { break };
            if next.message.expires_at <= now {
                taken.expired = true;
                continue;
            }
            if next.setup != setup.number {
                // The configuration has changed: it is read again, under today's rules.
                let lane = queue.lane(place).clone();
                queue.note_more_on_disk(lane);
                continue;
            }
            if self.had_another_hold(&next, now) {
                taken.unable.extend(self.unable(&next));
                continue;
            }
            match self.choose(setup, &next.wish(), now) {
                Ok(chosen) => {
                    let (goes, stays) = next.parted(chosen.room.share.recipients);
                    *deliveries += goes.passengers.len();
                    taken.batch.push((goes, chosen));
                    if let Some(stays) = stays {
                        queue.put_back(stays);
                    }
                }
                Err(NotChosen::NoRoom { again_at }) => {
                    taken.again_at = taken.again_at.into_iter().chain(again_at).min();
                    aside.push(next);
                    if !setup.moves(queue.lane(place), now) {
                        break;
                    }
                }
                Err(NotChosen::Nowhere(_)) if matches!(next.from, QueueState::Unsure { .. }) => {
                    self.note_missing(next.waits_for());
                    taken.unable.extend(self.unable(&next));
                }
                // The whole lane stands still: it stays in order.
                Err(NotChosen::Nowhere(_))
                    if next.tried.is_empty() && !setup.moves(queue.lane(place), now) =>
                {
                    aside.push(next);
                    break;
                }
                Err(NotChosen::Nowhere(choice)) => taken.put_off.push(later(&next, &choice, setup, now)),
            }
        }
        aside.into_iter().rev().for_each(|pending| queue.put_back(pending));
    }

    /// Whether its ESP could not take it for another hold (rule 10): also one that takes mail, and answered each repeat
    /// that this is unfit or not now. Else it would be asked again, and say so again, until `max_age`.
    fn had_another_hold(&self, pending: &Pending, now: Timestamp) -> bool {
        let hold = || self.rules(&pending.message.stream, pending.message.kind).unsure_hold;
        matches!(pending.from, QueueState::Unsure { .. })
            && pending.passengers.iter().filter_map(|p| p.unable_since).any(|at| at.plus(hold()) <= now)
    }

    fn unable(&self, pending: &Pending) -> Vec<(UnableAt, String)> {
        let rules = self.rules(&pending.message.stream, pending.message.kind);
        let of = |p: &Passenger| {
            let to = pending.message.envelope.recipients.get(p.recipient as usize);
            let unable = UnableAt {
                delivery: DeliveryId { message: pending.message.id, recipient: p.recipient },
                hold: rules.unsure_hold,
                then: rules.unsure_then,
            };
            (unable, to.map(|a| a.wire().to_owned()).unwrap_or_default())
        };
        pending.passengers.iter().map(of).collect()
    }

    /// Writes what becomes of those that no ESP can take now.
    async fn put_aside(&self, unable: Vec<(UnableAt, String)>, put_off: Vec<PutAside>) {
        if !unable.is_empty() {
            let (items, whom): (Vec<UnableAt>, Vec<String>) = unable.into_iter().unzip();
            match self.store.unable(items.clone(), UNABLE_EVERY).await {
                Ok(results) => {
                    for ((item, to), unable) in items.iter().zip(whom).zip(results) {
                        self.after_unable(item.delivery.message, &to, unable);
                    }
                }
                Err(error) => journal::trouble("judging what its ESP cannot repeat", &error.to_string()),
            }
        }
        let items: Vec<PutOff> = put_off.iter().flat_map(|aside| &aside.waiter.items).copied().collect();
        let Some(first) = items.iter().map(|p| p.until).min() else { return };
        match self.store.put_off(items).await {
            Ok(_) => {
                self.look_at(first);
                let mut waiters = self.waiters();
                put_off.into_iter().for_each(|aside| waiters.wait(aside.waiter, &aside.waits_for));
            }
            Err(error) => journal::trouble("putting off what no ESP can take now", &error.to_string()),
        }
    }

    /// What waits for an ESP that takes mail again is due now: as much at a time as has room there, so that one that
    /// recovers is given no more than its share.
    async fn call_waiters(&self) {
        let (now, setup) = (self.clock.now(), self.setup());
        let mut called = Vec::new();
        {
            let mut waiters = self.waiters();
            if waiters.is_empty() {
                return;
            }
            waiters.forget_but(|esp| setup.carrier(esp).is_some());
            for esp in waiters.esps() {
                let Some(Carrier { outlet, .. }) = setup.carrier(&esp) else { continue };
                let load = |kind| Load { kind, recipients: 1, whole: false, whose: Whose::default() };
                let takes = |kind| outlet.hindrance(load(kind), now).is_none();
                let room = outlet.free().min(BEGIN_BATCH);
                if room > 0 {
                    called.extend(waiters.leave(&esp, room, now, takes));
                }
            }
        }
        if called.is_empty() {
            return;
        }
        match self.store.put_off(called.iter().flat_map(|waiter| waiter.called(now)).collect()).await {
            Ok(_) => self.look_at(now),
            // Each has its time.
            Err(error) => journal::trouble("calling what waits for an ESP", &error.to_string()),
        }
    }

    fn after_unable(&self, id: MessageId, to: &str, unable: Unable) {
        const STILL: &str =
            "the answer to an attempt is still open, and its ESP could not repeat it within another hold";
        match unable {
            Unable::Waits(until) => self.look_at(until),
            Unable::RetriesAny => {
                journal::event(id, Some(to), "retry_any", STILL);
                self.look_now();
            }
            Unable::Assumed => journal::event(id, Some(to), "assumed", STILL),
            Unable::Moved | Unable::Known => {}
        }
    }

    async fn begin(self: &Arc<Self>, batch: Vec<(Pending, Chosen)>) {
        let begun_at = self.clock.now();
        let attempts: Vec<AttemptId> = batch.iter().map(|_| self.mint.attempt(&*self.clock)).collect();
        let mut requests = Vec::new();
        for ((pending, chosen), attempt) in batch.iter().zip(&attempts) {
            for passenger in &pending.passengers {
                requests.push(BeginRequest {
                    delivery: DeliveryId { message: pending.message.id, recipient: passenger.recipient },
                    from: pending.from,
                    beginning: Beginning { attempt: *attempt, esp: chosen.room.outlet().name.to_string() },
                });
            }
        }
        let verdicts = self.store.verdicts();
        let mut results = self.store.begin(requests).await.into_iter();
        let mut refused = false;
        for ((pending, chosen), attempt) in batch.into_iter().zip(attempts) {
            let of_this = results.by_ref().take(pending.passengers.len());
            let mut passengers = Vec::with_capacity(pending.passengers.len());
            for (passenger, result) in pending.passengers.iter().zip(of_this) {
                match result {
                    Ok(Begin::Begun { .. }) => passengers.push(*passenger),
                    Ok(Begin::Not(_)) => {}
                    Err(_) => refused = true,
                }
            }
            if refused {
                self.queue().note_more_on_disk(Lane::of(&pending.message, pending.rule.clone()));
            }
            let Chosen { line, room, told } = chosen;
            let mut tried = pending.tried;
            tried.push(Arc::clone(&room.outlet().name));
            let call = Call {
                message: pending.message,
                rule: pending.rule,
                passengers,
                attempt,
                begun_at,
                tried,
                moved_for_recipient: pending.moved_for_recipient,
                bound: pending.bound_to.is_some(),
                verdicts,
                room,
                line,
                setup: pending.setup,
                told,
            };
            self.push(call);
        }
        if refused {
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    /// Reads what is due, and may move, into memory; `false` when there is nothing.
    async fn read_due(self: &Arc<Self>) -> bool {
        let (now, setup) = (self.clock.now(), self.setup());
        let lacks = |lane: &Lane| self.queue().len_of(lane) < BEGIN_BATCH;
        let moves = |lane: &Lane| setup.moves(lane, now) && lacks(lane);
        let more = self.queue().take_more_on_disk(|lane| setup.moves(lane, now));
        if !more && self.next_look_millis.load(Ordering::Acquire) > now.millis() {
            return false;
        }
        let room: usize = setup.carriers.iter().map(|c| c.outlet.free()).sum();
        let limit = (room * 2).clamp(1, BEGIN_BATCH);
        self.next_look_millis.store(now.plus(LOOK_EVERY).millis(), Ordering::Release);
        let claims = match self.store.claim_due(now, limit, moves).await {
            Ok(claims) => claims,
            Err(error) => {
                journal::trouble("reading what is due", &error.to_string());
                return false;
            }
        };
        if claims.len() >= limit {
            let mut queue = self.queue();
            for claim in &claims {
                queue.note_more_on_disk(claim.lane.clone());
            }
        } else if let Ok(Some(next)) = self.store.next_due(|lane| setup.moves(lane, now)).await {
            self.look_at(next.max(now.plus(Duration::from_millis(1))));
        }
        self.take_in(&setup, claims).await
    }

    /// Loads the messages of these claims and queues them, grouped by message, state and rule.
    async fn take_in(&self, setup: &Setup, claims: Vec<Claim>) -> bool {
        let mut groups: Vec<Vec<Claim>> = Vec::new();
        for claim in claims {
            if self.queue().holds(claim.delivery.message) {
                continue;
            }
            match groups.iter_mut().rev().find(|group| group[0].goes_with(&claim)) {
                Some(group) => group.push(claim),
                None => groups.push(vec![claim]),
            }
        }
        let ids: Vec<MessageId> = groups.iter().map(|g| g[0].delivery.message).collect();
        let mut taken = false;
        for (group, loaded) in groups.into_iter().zip(self.store.load(ids).await) {
            match loaded {
                Ok(Some(message)) => {
                    taken = true;
                    let pending = claimed(setup, self.covered(message), group);
                    self.queue().push_claimed(pending);
                }
                Ok(None) => {}
                Err(error) => journal::trouble("reading a message", &error.to_string()),
            }
        }
        taken
    }
}

/// The rules are those of today's configuration, whatever bore on it when it was accepted.
fn claimed(setup: &Setup, message: Arc<Message>, claims: Vec<Claim>) -> Pending {
    let rules = setup.rules_of(&message);
    let rule = rules.get(claims[0].delivery.recipient as usize).cloned().unwrap_or_default();
    let from = claims[0].from;
    let bound_to = claims[0].bound_to.as_deref().map(Arc::from);
    let passengers = claims
        .iter()
        .map(|c| Passenger {
            recipient: c.delivery.recipient,
            tries: c.tries,
            rounds: c.rounds,
            open_attempts: c.open_attempts,
            seen_unsure: c.open_attempts.saturating_sub(c.open_by_crash),
            unable_since: c.unable_since,
        })
        .collect();
    let (tried, moved_for_recipient, setup) = (Vec::new(), false, setup.number);
    Pending { message, rule, passengers, from, bound_to, tried, moved_for_recipient, setup }
}

impl Pending {
    /// The one ESP that may carry it, where there is but one.
    fn waits_for(&self) -> Option<&str> {
        self.bound_to.as_deref().or(self.message.pin.as_deref())
    }

    fn wish(&self) -> Wish<'_> {
        Wish {
            message: &self.message,
            rule: &self.rule,
            recipients: u32::try_from(self.passengers.len()).unwrap_or(u32::MAX),
            whole: false,
            ties: Ties {
                bound_to: self.bound_to.as_deref(),
                pin: self.message.pin.as_deref(),
                tried: &self.tried,
            },
        }
    }
}

/// When it is looked at again: when an ESP can first take it, as far as one says; where its round has tried some, by the
/// stream's schedule, since nothing is tried any more then (DELIVERY rule 8); in a minute at most.
fn later(pending: &Pending, choice: &Choice, setup: &Setup, now: Timestamp) -> PutAside {
    let told = choice.passed_over.iter().filter_map(|(_, why)| match why {
        PassedOver::Paused { until, .. } | PassedOver::Sender { until, .. } => Some(*until),
        PassedOver::Spent { until, .. } | PassedOver::Suspended { until, .. } => *until,
        _ => None,
    });
    let message = &pending.message;
    let round_ends = !pending.tried.is_empty();
    let rounds = pending.passengers.iter().map(|p| p.rounds).min().unwrap_or(0);
    let retry_in = setup.stream(&message.stream, message.kind).retry.nth(rounds + 1);
    let latest = now.plus(if round_ends { PUT_OFF_MAX.min(retry_in) } else { PUT_OFF_MAX });
    let soonest = now.plus(Duration::from_millis(1)).min(latest);
    let until = told.min().unwrap_or(latest).clamp(soonest, latest);
    let of = |p: &Passenger| PutOff {
        delivery: DeliveryId { message: message.id, recipient: p.recipient },
        from: pending.from,
        until,
        round_ends,
    };
    PutAside {
        waiter: Waiter { items: pending.passengers.iter().map(of).collect(), until, kind: message.kind },
        waits_for: may_open(choice, setup),
    }
}

impl Claim {
    fn goes_with(&self, other: &Claim) -> bool {
        self.delivery.message == other.delivery.message
            && self.from == other.from
            && self.bound_to == other.bound_to
            && self.lane.rule == other.lane.rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::sandbox::Sandbox;
    use crate::flow::outlet::Outlet;
    use crate::flow::setup::Line;
    use crate::flow::tests::{message, reload};
    use crate::mail::{Rule, StreamKind};
    use crate::policy::streams::{RetrySchedule, RetryStep};
    use crate::wire::SandboxWire;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn after(seconds: u64) -> Timestamp {
        NOW.plus(Duration::from_secs(seconds))
    }

    /// Two ESPs, and retries after 3 s.
    fn setup() -> Arc<Setup> {
        let line = Arc::new(Line { esp: Box::new(Sandbox), wire: Arc::new(SandboxWire) });
        let mut parts = reload::parts(&[("a", &line, 1), ("b", &line, 1)]);
        let step = RetryStep { wait: Duration::from_secs(3), times: 1 };
        parts.streams[0].retry = RetrySchedule::new(vec![step]).unwrap();
        let clock = Arc::new(crate::clock::Manual::at(NOW));
        Setup::new(1, parts, |esp| Outlet::new(esp, clock.clone(), Arc::default()))
    }

    #[test]
    fn what_is_put_off_waits_no_longer_than_its_schedule_nor_than_an_esp_says() {
        let setup = setup();
        let passenger = Passenger {
            recipient: 0,
            tries: 1,
            rounds: 0,
            open_attempts: 0,
            seen_unsure: 0,
            unable_since: None,
        };
        let fresh =
            Pending::fresh(message(StreamKind::Transactional, 1), Rule::default(), vec![passenger], 1);
        let tried = Pending { tried: vec!["a".into()], ..fresh.clone() };
        let shut = PassedOver::Shut("connection refused".into());
        let sender = |until| PassedOver::Sender { what: "mail From example.org".into(), until };
        let spent = |until| PassedOver::Spent { what: "its daily_limit".into(), until: Some(until) };
        for (pending, a, b, until, waits_for) in [
            (&tried, PassedOver::Tried, shut.clone(), after(3), &["b"][..]),
            (&tried, PassedOver::Tried, spent(after(2)), after(2), &["b"]),
            (&tried, PassedOver::Tried, spent(after(900)), after(3), &["b"]),
            (&fresh, sender(after(600)), shut.clone(), after(60), &["b"]),
            (&fresh, sender(after(10)), shut, after(10), &["b"]),
            (&fresh, sender(after(10)), spent(after(5)), after(5), &["b"]),
            (&fresh, sender(NOW), PassedOver::Rule("r".into()), NOW.plus(Duration::from_millis(1)), &[]),
        ] {
            let told = format!("{a:?} {b:?}");
            let choice = Choice { ranked: Vec::new(), passed_over: vec![(0, a), (1, b)] };
            let aside = later(pending, &choice, &setup, NOW);
            let item = aside.waiter.items[0];
            assert_eq!((item.until, item.round_ends), (until, !pending.tried.is_empty()), "{told}");
            let names: Vec<&str> = aside.waits_for.iter().map(|esp| &**esp).collect();
            assert_eq!(names, waits_for, "{told}");
        }
    }
}
