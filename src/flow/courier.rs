//! The courier: takes what is due, chooses an ESP, commits the begin, and hands over to a free connection.
//!
//! Fresh mail whose first ESP has room comes already begun ([`Courier::plan`], [`Courier::hand_over`]); what waits is
//! begun here, a batch a commit: first what is held in memory, then what the database has due.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::call::Call;
use super::outlet::{Outlet, Room};
use super::pending::{Passenger, Pending, PendingQueue};
use crate::clock::{Clock, Timestamp};
use crate::journal::{self, Alert};
use crate::mail::delivery::Begin;
use crate::mail::{
    Abort, AttemptId, Budget, DeliveryId, IdMint, Message, MessageId, QueueState, StreamKind, StreamName,
};
use crate::policy::streams::StreamSettings;
use crate::router::{Candidate, choose};
use crate::store::{BeginRequest, Beginning, Claim, Entered, Store};

/// Deliveries begun in one commit.
const BEGIN_BATCH: usize = 512;
/// The courier looks at the queue at least so often, whatever woke it or did not (DELIVERY rule 21).
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// See [`Courier::turns_to_give`].
const TURNS_WHERE_MAIL_WAITS: u32 = 2;
/// What no ESP here can carry is looked at so often: only another configuration changes that.
const STRANDED_PAUSE: Duration = Duration::from_secs(60);
/// After the store refused, the next try.
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub struct Courier {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) outlets: Vec<Arc<Outlet>>,
    pub(super) abort: Abort,
    pub(super) tasks: TaskTracker,
    /// Calls that were begun and came too late for a connection.
    returns: TaskTracker,
    mint: Arc<IdMint>,
    budget: Arc<Budget>,
    streams: HashMap<StreamName, StreamSettings>,
    pending: Mutex<PendingQueue>,
    /// Rung when there is something to do: room was freed, mail waits, a time has come.
    wake: Arc<Notify>,
    next_look_millis: AtomicI64,
    /// Mail waits for an ESP that is not there; it is told once a start.
    stranded: Alert,
    stop: CancellationToken,
}

/// What [`Courier::take_batch`] found.
#[derive(Debug)]
struct Taken {
    batch: Vec<(Pending, usize, Room)>,
    /// Some were over.
    expired: bool,
    /// Bound or pinned to an ESP that is not there.
    stranded: Vec<Pending>,
}

/// What a courier is made of.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The ids.
    pub mint: Arc<IdMint>,
    /// Memory for messages.
    pub budget: Arc<Budget>,
    /// The ESPs.
    pub outlets: Vec<Arc<Outlet>>,
    /// The streams' rules.
    pub streams: Vec<StreamSettings>,
    /// Rung by the outlets.
    pub wake: Arc<Notify>,
}

impl Courier {
    /// A courier that does not run yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Courier {
            store: parts.store,
            clock: parts.clock,
            outlets: parts.outlets,
            abort: Abort::default(),
            tasks: TaskTracker::new(),
            returns: TaskTracker::new(),
            mint: parts.mint,
            budget: parts.budget,
            streams: parts.streams.into_iter().map(|s| (s.name.clone(), s)).collect(),
            pending: Mutex::default(),
            wake: parts.wake,
            next_look_millis: AtomicI64::new(0),
            stranded: Alert::new("esp_missing"),
            stop: CancellationToken::new(),
        })
    }

    /// Starts the connections of every outlet and the courier's own round.
    pub fn start(self: &Arc<Self>) {
        for outlet in &self.outlets {
            for _ in 0..outlet.connections {
                let (courier, outlet) = (Arc::clone(self), Arc::clone(outlet));
                self.tasks.spawn(async move {
                    while let Some(call) = outlet.next().await {
                        courier.carry(&outlet, call).await;
                    }
                });
            }
        }
        let courier = Arc::clone(self);
        self.tasks.spawn(async move { courier.rounds().await });
    }

    /// Where fresh mail would go at once: the first ESP in rank, when nothing waits before it and there is room.
    pub fn plan(&self, message: &Message) -> Option<(usize, Room)> {
        if !self.queue().is_empty() || self.queue().more_on_disk() || self.stop.is_cancelled() {
            return None;
        }
        let first =
            self.ranked(&[], None, message.pin.as_deref(), message.id.number() as u64).first().copied()?;
        self.outlets[first].room().map(|room| (first, room))
    }

    /// How many turns a session gives to all others before it answers: more where mail waits. Sessions outnumber the
    /// connections to ESPs by far, and with a turn each the queue would grow although the ESPs could take more.
    pub fn turns_to_give(&self) -> u32 {
        if self.queue().is_empty() { 1 } else { TURNS_WHERE_MAIL_WAITS }
    }

    /// The begin of fresh mail at that outlet.
    pub fn beginning(&self, outlet: usize) -> Beginning {
        Beginning { attempt: self.mint.attempt(&*self.clock), esp: self.outlets[outlet].name.to_string() }
    }

    /// Takes fresh mail after its commit: what was begun with it goes to a connection, the rest waits.
    pub fn hand_over(
        self: &Arc<Self>,
        message: Arc<Message>,
        begun: Option<(usize, Room, AttemptId)>,
        entered: &[Entered],
    ) {
        let of = |which: Entered| {
            let fits = entered.iter().enumerate().filter(move |(_, e)| **e == which);
            fits.map(|(i, _)| Passenger::fresh(i)).collect::<Vec<_>>()
        };
        let waiting = of(Entered::Waiting);
        if let Some((outlet, room, attempt)) = begun {
            let passengers = of(Entered::Begun);
            if !passengers.is_empty() {
                let (begun_at, message) = (message.accepted_at, Arc::clone(&message));
                let (tried, moved_for_recipient) = (vec![outlet], false);
                let call = Call { message, passengers, attempt, begun_at, tried, moved_for_recipient, room };
                self.push(outlet, call);
            }
        }
        if !waiting.is_empty() {
            let from = QueueState::Waiting { due: message.accepted_at };
            let (tried, bound_to) = (Vec::new(), None);
            self.submit(Pending {
                message,
                passengers: waiting,
                from,
                bound_to,
                tried,
                moved_for_recipient: false,
            });
        }
    }

    /// To the next free connection; a stop that came between begin and here takes it back.
    fn push(self: &Arc<Self>, outlet: usize, call: Call) {
        if let Some(call) = self.outlets[outlet].push(call) {
            let courier = Arc::clone(self);
            self.returns.spawn(async move { courier.take_back(&[call]).await });
        }
    }

    /// Queues committed waiting mail for its turn.
    pub(super) fn submit(&self, pending: Pending) {
        self.queue().push(pending);
        self.wake.notify_one();
    }

    /// Looks at the queue at that time, if not before.
    pub fn look_at(&self, at: Timestamp) {
        if self.next_look_millis.fetch_min(at.millis(), Ordering::AcqRel) > at.millis() {
            self.wake.notify_one();
        }
    }

    /// Looks at the queue now: an operator or an event changed it.
    pub fn look_now(&self) {
        self.look_at(Timestamp::from_millis(0));
        self.wake.notify_one();
    }

    /// The rules of a stream; mail of a stream that is gone follows the default of its kind.
    pub(super) fn rules(&self, stream: &StreamName, kind: StreamKind) -> StreamSettings {
        let default = match kind {
            StreamKind::Transactional => StreamName::TRANSACTIONAL,
            StreamKind::Broadcast => StreamName::BROADCAST,
        };
        let found = self.streams.get(stream).or_else(|| self.streams.get(&StreamName::new(default)));
        found.cloned().unwrap_or_else(|| StreamSettings::built_in(kind))
    }

    fn queue(&self) -> MutexGuard<'_, PendingQueue> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ranked(&self, tried: &[usize], bound_to: Option<&str>, pin: Option<&str>, chance: u64) -> Vec<usize> {
        let candidate = |(i, o): (usize, &'_ Arc<Outlet>)| (i, o.priority, o.weight);
        let facts: Vec<_> = self.outlets.iter().enumerate().map(candidate).collect();
        let candidates: Vec<Candidate<'_>> = facts
            .iter()
            .map(|(i, priority, weight)| Candidate {
                name: &self.outlets[*i].name,
                priority: *priority,
                weight: *weight,
                tried: tried.contains(i),
            })
            .collect();
        choose(&candidates, bound_to, pin, chance).ranked
    }

    async fn rounds(self: Arc<Self>) {
        loop {
            let next = Timestamp::from_millis(self.next_look_millis.load(Ordering::Acquire));
            let nap = next.since(self.clock.now()).min(LOOK_EVERY);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(nap) => {}
            }
            self.round().await;
        }
    }

    /// Begins all that has room: memory first, then the database.
    async fn round(self: &Arc<Self>) {
        while !self.stop.is_cancelled() {
            let Taken { batch, expired, stranded } = self.take_batch();
            let swept = !expired || self.sweep().await;
            let put_off = stranded.is_empty() || self.put_off(&stranded).await;
            if !swept || !put_off {
                // It would be read, and be the same, again at once.
                tokio::time::sleep(STORE_PAUSE).await;
            }
            if batch.is_empty() {
                if self.outlets.iter().all(|o| o.free() == 0) || !self.read_due().await {
                    return;
                }
                continue;
            }
            self.begin(batch).await;
        }
    }

    /// The next in turn that have room, each with the outlet that it goes to. One without room anywhere stays at the
    /// front; one that no outlet can ever take (a pin whose ESP is gone) is put off. Whatever has passed its `max_age` is
    /// not begun any more: it leaves memory here, and the sweep ends it.
    fn take_batch(&self) -> Taken {
        let (mut batch, mut expired, mut stranded) = (Vec::new(), false, Vec::new());
        let mut deliveries = 0;
        let now = self.clock.now();
        let mut queue = self.queue();
        while deliveries < BEGIN_BATCH {
            let Some(next) = queue.pop() else { break };
            if next.message.expires_at <= now {
                expired = true;
                continue;
            }
            let ranked = self.ranked(
                &next.tried,
                next.bound_to.as_deref(),
                next.message.pin.as_deref(),
                next.message.id.number() as u64,
            );
            match ranked.iter().find_map(|i| self.outlets[*i].room().map(|room| (*i, room))) {
                Some((outlet, room)) => {
                    deliveries += next.passengers.len();
                    batch.push((next, outlet, room));
                }
                None if next.waits_for().is_some_and(|esp| !self.has(esp)) => stranded.push(next),
                // All were tried: a new round begins from the database.
                None if ranked.is_empty() => {}
                None => {
                    queue.put_back(next);
                    break;
                }
            }
        }
        Taken { batch, expired, stranded }
    }

    fn has(&self, esp: &str) -> bool {
        self.outlets.iter().any(|outlet| &*outlet.name == esp)
    }

    /// Lets those wait whose ESP is not there, so that they are not read again and again before all others. `false`: the
    /// store did not.
    async fn put_off(&self, stranded: &[Pending]) -> bool {
        if let Some(esp) = stranded.iter().find_map(Pending::waits_for) {
            self.stranded.raise(format_args!(
                "mail waits for the ESP {esp}, which is not configured: write its [[esp]] again and restart, or take \
                 the mail out with `postroad queue rm`; else it ends at its max_age"
            ));
        }
        let deliveries = stranded.iter().flat_map(Pending::deliveries).collect();
        let put_off = self.store.put_off(deliveries, self.clock.now().plus(STRANDED_PAUSE)).await;
        if let Err(error) = &put_off {
            journal::trouble("putting off mail whose ESP is not there", &error.to_string());
        }
        put_off.is_ok()
    }

    async fn begin(self: &Arc<Self>, batch: Vec<(Pending, usize, Room)>) {
        let begun_at = self.clock.now();
        let attempts: Vec<AttemptId> = batch.iter().map(|_| self.mint.attempt(&*self.clock)).collect();
        let mut requests = Vec::new();
        for ((pending, outlet, _), attempt) in batch.iter().zip(&attempts) {
            for passenger in &pending.passengers {
                requests.push(BeginRequest {
                    delivery: DeliveryId { message: pending.message.id, recipient: passenger.recipient },
                    from: pending.from,
                    beginning: Beginning { attempt: *attempt, esp: self.outlets[*outlet].name.to_string() },
                });
            }
        }
        let mut results = self.store.begin(requests).await.into_iter();
        let mut refused = false;
        for ((pending, outlet, room), attempt) in batch.into_iter().zip(attempts) {
            let of_this = results.by_ref().take(pending.passengers.len());
            let mut passengers = Vec::with_capacity(pending.passengers.len());
            for (passenger, result) in pending.passengers.iter().zip(of_this) {
                match result {
                    Ok(Begin::Begun { .. }) => passengers.push(*passenger),
                    Ok(Begin::Not(_)) => {}
                    Err(_) => refused = true,
                }
            }
            if passengers.is_empty() {
                continue;
            }
            let mut tried = pending.tried;
            tried.push(outlet);
            let (message, moved_for_recipient) = (pending.message, pending.moved_for_recipient);
            let call = Call { message, passengers, attempt, begun_at, tried, moved_for_recipient, room };
            self.push(outlet, call);
        }
        if refused {
            self.queue().note_more_on_disk();
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }

    /// Reads what is due into memory; `false` when there is nothing.
    async fn read_due(self: &Arc<Self>) -> bool {
        let now = self.clock.now();
        let more = self.queue().take_more_on_disk();
        if !more && self.next_look_millis.load(Ordering::Acquire) > now.millis() {
            return false;
        }
        let room: usize = self.outlets.iter().map(|o| o.free()).sum();
        self.next_look_millis.store(now.plus(LOOK_EVERY).millis(), Ordering::Release);
        let claims = match self.store.claim_due(now, (room * 2).clamp(1, BEGIN_BATCH)).await {
            Ok(claims) => claims,
            Err(error) => {
                journal::trouble("reading what is due", &error.to_string());
                return false;
            }
        };
        let full_page = claims.len() >= (room * 2).clamp(1, BEGIN_BATCH);
        if full_page {
            self.queue().note_more_on_disk();
        } else if let Ok(Some(next)) = self.store.next_due().await {
            self.look_at(next.max(now.plus(Duration::from_millis(1))));
        }
        self.take_in(claims).await
    }

    /// Loads the messages of these claims and queues them, grouped by message and state.
    async fn take_in(&self, claims: Vec<Claim>) -> bool {
        let mut groups: Vec<Vec<Claim>> = Vec::new();
        for claim in claims {
            if self.queue().holds(claim.delivery.message) {
                continue;
            }
            match groups.last_mut() {
                Some(group) if group[0].goes_with(&claim) => group.push(claim),
                Some(_) | None => groups.push(vec![claim]),
            }
        }
        let ids: Vec<MessageId> = groups.iter().map(|g| g[0].delivery.message).collect();
        let mut taken = false;
        for (group, loaded) in groups.into_iter().zip(self.store.load(ids).await) {
            match loaded {
                Ok(Some(message)) => {
                    taken = true;
                    self.queue().push_claimed(Pending::claimed(self.covered(message), group));
                }
                Ok(None) => {}
                Err(error) => journal::trouble("reading a message", &error.to_string()),
            }
        }
        taken
    }

    /// Covers a message that was read back with a share of the memory budget, where there is one: what is due goes
    /// out also under pressure, a window of it at a time.
    fn covered(&self, mut message: Message) -> Arc<Message> {
        message.body.permit = self.budget.take(message.body.head.len()).map(Arc::new);
        Arc::new(message)
    }

    /// Starts no further call and un-begins those of which nothing was handed over: those that wait for a connection,
    /// and those on the wire, which are asked to end. What was handed over has `grace` to be answered.
    pub async fn stop(&self, grace: Duration) {
        self.stop.cancel();
        self.tasks.close();
        let unstarted: Vec<Call> = self.outlets.iter().flat_map(|o| o.close()).collect();
        self.take_back(&unstarted).await;
        self.abort.ask();
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await;
        for outlet in &self.outlets {
            outlet.wire.close().await;
        }
    }

    /// Waits until what a session had begun when [`Courier::stop`] came is un-begun. After the last session.
    pub async fn all_taken_back(&self) {
        self.returns.close();
        self.returns.wait().await;
    }

    /// Un-begins calls of which nothing was handed over.
    pub(super) async fn take_back(&self, calls: &[Call]) {
        let deliveries: Vec<_> =
            calls.iter().flat_map(|c| c.passengers.iter().map(|p| (c.delivery(p), c.attempt))).collect();
        if deliveries.is_empty() {
            return;
        }
        let taken_back = self.store.unbegin(deliveries, self.clock.now()).await;
        if let Some(Err(error)) = taken_back.into_iter().find(Result::is_err) {
            journal::trouble("taking back what was not sent", &error.to_string());
        }
    }
}

impl Passenger {
    fn fresh(recipient: usize) -> Self {
        let recipient = u32::try_from(recipient).unwrap_or(u32::MAX);
        Passenger { recipient, tries: 0, open_attempts: 0, seen_unsure: 0 }
    }
}

impl Call {
    pub(super) fn delivery(&self, passenger: &Passenger) -> DeliveryId {
        DeliveryId { message: self.message.id, recipient: passenger.recipient }
    }
}

impl Claim {
    fn goes_with(&self, other: &Claim) -> bool {
        self.delivery.message == other.delivery.message
            && self.from == other.from
            && self.bound_to == other.bound_to
    }
}

impl Pending {
    fn claimed(message: Arc<Message>, claims: Vec<Claim>) -> Self {
        let from = claims[0].from;
        let bound_to = claims[0].bound_to.as_deref().map(Arc::from);
        let passengers = claims
            .iter()
            .map(|c| Passenger {
                recipient: c.delivery.recipient,
                tries: c.tries,
                open_attempts: c.open_attempts,
                seen_unsure: c.open_attempts.saturating_sub(c.open_by_crash),
            })
            .collect();
        Pending { message, passengers, from, bound_to, tried: Vec::new(), moved_for_recipient: false }
    }
}
