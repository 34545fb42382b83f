//! The courier: takes what is due, chooses an ESP, commits the begin, and hands over to a free connection.
//!
//! Fresh mail whose first ESP has room comes already begun ([`Courier::plan`], [`Courier::hand_over`]); what waits is
//! begun in rounds (`rounds`), a batch a commit: first what is held in memory, then what the database has due.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::call::Call;
use super::choice::{Chosen, Wish};
use super::outlet::{Outlet, Room};
use super::pending::{Passenger, Pending, PendingQueue};
use super::setup::{self, Carrier, Setup};
use super::waiters::Waiters;
use crate::clock::{Clock, Timestamp};
use crate::journal::{self, Alert};
use crate::mail::{
    Abort, AttemptId, Budget, DeliveryId, IdMint, Lane, Message, Rule, StreamKind, StreamName,
};
use crate::policy::streams::StreamSettings;
use crate::router::Ties;
use crate::store::{Beginning, Entered, Store};

/// See [`Courier::turns_to_give`].
const TURNS_WHERE_MAIL_WAITS: u32 = 2;

/// See the module.
#[derive(Debug)]
pub struct Courier {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    /// What the configuration says now.
    pub(super) setup: ArcSwap<Setup>,
    /// Every outlet that is configured, or at work still.
    pub(super) known: Mutex<Vec<Weak<Outlet>>>,
    /// Taken by whoever changes who gets mail, so that one is done before the next begins.
    pub(super) order: tokio::sync::Mutex<()>,
    pub(super) abort: Abort,
    pub(super) tasks: TaskTracker,
    /// Calls that were begun and came too late for a connection.
    returns: TaskTracker,
    pub(super) mint: Arc<IdMint>,
    pub(super) budget: Arc<Budget>,
    pending: Mutex<PendingQueue>,
    waiters: Mutex<Waiters>,
    /// Rung when there is something to do: room was freed, mail waits, a time has come.
    pub(super) wake: Arc<Notify>,
    pub(super) next_look_millis: AtomicI64,
    /// Mail waits for an ESP that is not there; it is told once, until the ESPs change.
    pub(super) stranded: Alert,
    /// Mail waits that no ESP can carry.
    pub(super) unfit: Alert,
    pub(super) stop: CancellationToken,
}

/// Where fresh mail goes at once.
#[derive(Debug)]
pub struct Planned {
    chosen: Chosen,
    attempt: AttemptId,
    verdicts: u64,
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
    /// What the configuration says.
    pub setup: setup::Parts,
    /// Rung by the outlets.
    pub wake: Arc<Notify>,
}

impl Courier {
    /// A courier that does not run yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        let mut outlets = Vec::new();
        let setup = Setup::new(0, parts.setup, |esp| {
            outlets.push(Outlet::new(esp, Arc::clone(&parts.clock), Arc::clone(&parts.wake)));
            outlets[outlets.len() - 1].clone()
        });
        for outlet in &outlets {
            if let Some(next) = parts.store.paced(&outlet.name) {
                outlet.allowance.go_on(next);
            }
        }
        Arc::new(Courier {
            store: parts.store,
            clock: parts.clock,
            setup: ArcSwap::new(setup),
            known: Mutex::new(outlets.iter().map(Arc::downgrade).collect()),
            order: tokio::sync::Mutex::default(),
            abort: Abort::default(),
            tasks: TaskTracker::new(),
            returns: TaskTracker::new(),
            mint: parts.mint,
            budget: parts.budget,
            pending: Mutex::default(),
            waiters: Mutex::default(),
            wake: parts.wake,
            next_look_millis: AtomicI64::new(0),
            stranded: Alert::new("esp_missing"),
            unfit: Alert::new("unfit_everywhere"),
            stop: CancellationToken::new(),
        })
    }

    /// Asks the ledger for every ESP that has limits: mail that comes first would pass such an ESP over else.
    pub async fn ask_allowances(&self) {
        for Carrier { outlet, .. } in &self.setup().carriers {
            if let Some(ask) = outlet.allowance.wants(self.clock.now()) {
                outlet.allowance.ask(ask, &self.store, self.clock.now()).await;
            }
        }
    }

    /// Starts the connections of every outlet and the courier's own round.
    pub fn start(self: &Arc<Self>) {
        for Carrier { outlet, .. } in &self.setup().carriers {
            self.put_to_work(outlet, outlet.connections());
        }
        let courier = Arc::clone(self);
        self.tasks.spawn(async move {
            courier.note_missing_pins().await;
            courier.rounds().await;
        });
    }

    /// What is pinned to an ESP that is not there is not even read.
    pub(super) async fn note_missing_pins(&self) {
        let setup = self.setup();
        let missing = |lane: &Lane| lane.pin.as_ref().is_some_and(|pin| setup.carrier(pin).is_none());
        match self.store.waiting_lanes(missing).await {
            Ok(lanes) => lanes.iter().for_each(|lane| self.note_missing(lane.pin.as_deref())),
            Err(error) => journal::trouble("looking for mail of ESPs that are gone", &error.to_string()),
        }
    }

    /// Where fresh mail would go at once, when nothing waits before it: the first ESP in rank that has room
    /// for all of it. `rules` has one for each recipient, or none at all; they are of that setup.
    pub fn plan(&self, setup: &Setup, message: &Message, rules: &[Rule]) -> Option<Planned> {
        let none = Rule::default();
        let rule = rules.first().unwrap_or(&none);
        let alike = rules.iter().all(|other| other == rule);
        if !alike || self.stop.is_cancelled() || !self.queue().lets_pass(message, rule) {
            return None;
        }
        let wish = Wish {
            message,
            rule,
            recipients: u32::try_from(message.envelope.recipients.len()).unwrap_or(u32::MAX),
            // What has to be split is begun in rounds.
            whole: true,
            ties: Ties { pin: message.pin.as_deref(), ..Ties::default() },
        };
        let chosen = self.choose(setup, &wish, message.accepted_at).ok()?;
        let attempt = self.mint.attempt(&*self.clock);
        Some(Planned { chosen, attempt, verdicts: self.store.verdicts() })
    }

    /// The begin of fresh mail as it was planned.
    pub fn beginning(&self, planned: &Planned) -> Beginning {
        Beginning { attempt: planned.attempt, esp: planned.chosen.room.outlet().name.to_string() }
    }

    /// How many turns a session gives to all others before it answers: more where mail waits. Sessions outnumber the
    /// connections to ESPs by far, and with a turn each the queue would grow although the ESPs could take more.
    pub fn turns_to_give(&self) -> u32 {
        if self.queue().is_empty() { 1 } else { TURNS_WHERE_MAIL_WAITS }
    }

    /// Takes fresh mail after its commit: what was begun with it goes to a connection, the rest waits, those of one
    /// rule together. The plan and the rules are of that setup.
    pub fn hand_over(
        self: &Arc<Self>,
        message: Arc<Message>,
        planned: Option<Planned>,
        (setup, rules): (&Setup, Vec<Rule>),
        entered: &[Entered],
    ) {
        let of = |which: Entered| {
            let fits = entered.iter().enumerate().filter(move |(_, e)| **e == which);
            fits.map(|(i, _)| Passenger::fresh(i)).collect::<Vec<_>>()
        };
        let waiting = of(Entered::Waiting);
        if let Some(Planned { chosen: Chosen { line, room, told }, attempt, verdicts }) = planned {
            let passengers = of(Entered::Begun);
            let call = Call {
                begun_at: message.accepted_at,
                message: Arc::clone(&message),
                rule: rules.first().cloned().unwrap_or_default(),
                passengers,
                attempt,
                tried: vec![Arc::clone(&room.outlet().name)],
                moved_for_recipient: false,
                bound: false,
                verdicts,
                room,
                line,
                setup: setup.number,
                told,
            };
            self.push(call);
        }
        for (rule, passengers) in by_rule(waiting, &rules) {
            self.submit(Pending::fresh(Arc::clone(&message), rule, passengers, setup.number));
        }
    }

    /// The store did not take it: what was planned is not used.
    pub fn give_up(self: &Arc<Self>, planned: Planned) {
        let courier = Arc::clone(self);
        self.tasks.spawn(async move {
            let room = planned.chosen.room;
            courier.unused(&room, room.share.recipients).await;
        });
    }

    /// To the next free connection; a stop that came between begin and here takes it back, and so does a reload that
    /// took the ESP away.
    pub(super) fn push(self: &Arc<Self>, call: Call) {
        let fewer =
            call.room.share.recipients.saturating_sub(u32::try_from(call.passengers.len()).unwrap_or(0));
        if fewer > 0 && call.room.share.spent.is_some() {
            let (courier, share, outlet) =
                (Arc::clone(self), call.room.share, Arc::clone(call.room.outlet()));
            self.tasks.spawn(async move {
                let now = courier.clock.now();
                outlet.allowance.unused(&share, fewer, &courier.store, now).await;
            });
        }
        if call.passengers.is_empty() {
            return;
        }
        let outlet = Arc::clone(call.room.outlet());
        if let Some(call) = outlet.push(call) {
            let courier = Arc::clone(self);
            self.returns.spawn(async move {
                courier.take_back(&[call]).await;
                courier.look_now();
            });
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
    pub(super) fn rules(&self, stream: &StreamName, kind: StreamKind) -> Arc<StreamSettings> {
        self.setup.load().stream(stream, kind)
    }

    /// How long mail of a lane is tried.
    pub fn max_age(&self, lane: &Lane) -> Duration {
        self.rules(&lane.stream, lane.kind).max_age
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, PendingQueue> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Covers a message that was read back with a share of the memory budget, where there is one: what is due goes
    /// out also under pressure, a window of it at a time.
    pub(super) fn covered(&self, mut message: Message) -> Arc<Message> {
        message.body.permit = self.budget.take(message.body.head.len()).map(Arc::new);
        Arc::new(message)
    }

    /// Starts no further call and un-begins those of which nothing was handed over: those that wait for a connection,
    /// and those on the wire, which are asked to end. What was handed over has `grace` to be answered; so long a full
    /// disk may keep what is taken back.
    pub async fn stop(&self, grace: Duration) {
        {
            // A reload that is at it puts its ESPs in place first; a later one finds that all stops.
            let _known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            self.stop.cancel();
        }
        self.tasks.close();
        let setup = self.setup();
        let carriers = &setup.carriers;
        let unstarted: Vec<Call> = carriers.iter().flat_map(|c| c.outlet.close()).collect();
        self.abort.ask();
        let ended = async { tokio::join!(self.take_back(&unstarted), self.tasks.wait()) };
        let _ = tokio::time::timeout(grace, ended).await;
        for Carrier { outlet, line, .. } in carriers {
            line.wire.close().await;
            outlet.allowance.close(&self.store).await;
        }
    }

    /// Waits until what a session had begun when [`Courier::stop`] came is un-begun. After the last session.
    pub async fn all_taken_back(&self) {
        self.returns.close();
        self.returns.wait().await;
    }

    /// The gate was shut after this was begun: what was not started is chosen for anew.
    pub(super) async fn send_back(&self, outlet: &Outlet, call: Call) {
        self.take_back(&[call]).await;
        self.send_back_all(outlet).await;
    }

    /// What waits for a connection there is chosen for anew.
    pub(super) async fn send_back_all(&self, outlet: &Outlet) {
        self.take_back(&outlet.unstarted()).await;
        self.look_now();
    }

    /// Mail waits for that ESP: where it is not there, that is told, once until the ESPs change.
    pub(super) fn note_missing(&self, esp: Option<&str>) {
        if let Some(esp) = esp.filter(|esp| self.setup.load().carrier(esp).is_none()) {
            self.stranded.raise(format_args!(
                "mail waits for the ESP {esp}, which is not configured: write its [[esp]] again and reload, or take \
                 the mail out with `postroad queue rm`; else it ends at its max_age"
            ));
        }
    }

    /// What of an ESP's allowance was not used.
    pub(super) async fn unused(&self, room: &Room, recipients: u32) {
        let now = self.clock.now();
        room.outlet().allowance.unused(&room.share, recipients, &self.store, now).await;
    }

    /// Asks the ledger where an ESP's allowance in hand is low.
    pub(super) fn refill(self: &Arc<Self>, outlet: &Arc<Outlet>) {
        let Some(ask) = outlet.allowance.wants(self.clock.now()) else { return };
        let (courier, outlet) = (Arc::clone(self), Arc::clone(outlet));
        self.tasks.spawn(async move {
            outlet.allowance.ask(ask, &courier.store, courier.clock.now()).await;
            courier.wake.notify_one();
        });
    }

    /// Un-begins calls of which nothing was handed over.
    pub(super) async fn take_back(&self, calls: &[Call]) {
        self.take_back_until(calls, self.clock.now()).await;
    }

    /// As [`Courier::take_back`]; they are not begun again before `due`.
    pub(super) async fn take_back_until(&self, calls: &[Call], due: Timestamp) {
        for call in calls {
            let recipients = u32::try_from(call.passengers.len()).unwrap_or(0);
            self.unused(&call.room, recipients).await;
        }
        let deliveries: Vec<_> =
            calls.iter().flat_map(|c| c.passengers.iter().map(|p| (c.delivery(p), c.attempt))).collect();
        if deliveries.is_empty() {
            return;
        }
        let taken_back = self.store.unbegin(deliveries, due).await;
        if let Some(Err(error)) = taken_back.into_iter().find(Result::is_err) {
            journal::trouble("taking back what was not sent", &error.to_string());
        }
    }
}

/// Those of one rule together, in their order.
fn by_rule(waiting: Vec<Passenger>, rules: &[Rule]) -> Vec<(Rule, Vec<Passenger>)> {
    let mut groups: Vec<(Rule, Vec<Passenger>)> = Vec::new();
    for passenger in waiting {
        let rule = rules.get(passenger.recipient as usize).cloned().unwrap_or_default();
        match groups.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, group)) => group.push(passenger),
            None => groups.push((rule, vec![passenger])),
        }
    }
    groups
}

impl Passenger {
    fn fresh(recipient: usize) -> Self {
        let recipient = u32::try_from(recipient).unwrap_or(u32::MAX);
        Passenger { recipient, tries: 0, rounds: 0, open_attempts: 0, seen_unsure: 0, unable_since: None }
    }
}

impl Call {
    pub(super) fn delivery(&self, passenger: &Passenger) -> DeliveryId {
        DeliveryId { message: self.message.id, recipient: passenger.recipient }
    }
}
