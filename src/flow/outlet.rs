//! One ESP at work: its gate and its allowance, how much may be begun ahead, and the calls that wait for a free
//! connection. It keeps all that over reloads; how the ESP is spoken to is its [`Line`]'s matter.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore, TryAcquireError};

use super::allowance::{Allowance, NoShare, Share, Want};
use super::call::Call;
use super::gatehouse::Gatehouse;
use super::late::Ears;
use super::meter::Meter;
use super::seats::Seats;
use super::setup::Line;
use crate::clock::{Clock, Timestamp};
use crate::journal::Alert;
use crate::mail::StreamKind;
use crate::mail::from::Whose;
use crate::mail::quota::Limits;
use crate::router::{Admits, PassedOver};

/// However fast an ESP is, no more is begun ahead: after a crash this many calls are `Unsure`.
pub const BEGUN_AHEAD_MAX: usize = 256;
/// This part of what may be begun ahead is kept for transactional mail, and no less than one call.
const RESERVE_PART: usize = 10;

/// One `[[esp]]` that carries mail.
#[derive(Debug)]
pub struct Outlet {
    /// Its name: identity in history, logs and metrics.
    pub name: Arc<str>,
    /// What it is measured by.
    pub meter: Meter,
    /// What keeps mail from it.
    pub gate: Gatehouse,
    /// How much it may be given.
    pub allowance: Allowance,
    /// How many connections it allows.
    pub seats: Seats,
    /// It is to tell how much, and did not.
    pub untold: Alert,
    clock: Arc<dyn Clock>,
    /// Calls at a time; none: it is not configured any more.
    connections: AtomicUsize,
    /// Which connections have somebody at work.
    at_work: Mutex<Vec<bool>>,
    /// Rung when `connections` has changed.
    resized: Notify,
    begun: AtomicUsize,
    begun_max: AtomicUsize,
    /// Mail was there that found no room.
    crowded: AtomicBool,
    /// Room has grown since it was last eased.
    grown: AtomicBool,
    queue: Mutex<Queue>,
    /// What is listened to beyond its time.
    pub(super) ears: Ears,
    ready: Semaphore,
    /// Rung when room is given back.
    freed: Arc<Notify>,
}

/// Calls that wait for a connection; transactional mail overtakes a campaign.
#[derive(Debug, Default)]
struct Queue {
    transactional: VecDeque<Call>,
    broadcast: VecDeque<Call>,
}

/// What asks for room: recipients of a message of that kind, and whom it comes from where that matters.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// Transactional or broadcast.
    pub kind: StreamKind,
    /// Recipients that wait; its room may be for fewer.
    pub recipients: u32,
    /// Room for all of them is wanted, or none.
    pub whole: bool,
    /// The message's own. The From domain only where it matters, see `Gatehouse::minds_senders`.
    pub whose: Whose<'a>,
}

/// Why there is no room at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Enough is begun.
    Busy,
    /// Its allowance is being asked for.
    Soon,
    /// Its rate leaves room then.
    At(Timestamp),
    /// It has room for some of the recipients, or they do not fit into one call.
    Part,
    /// Its gate or its allowance has closed since it was ranked.
    Closed,
}

/// What an outlet is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its name.
    pub name: String,
    /// Lower first.
    pub priority: u32,
    /// Share among equal priorities.
    pub weight: u32,
    /// How it is spoken to.
    pub line: Arc<Line>,
    /// Calls at a time.
    pub connections: usize,
    /// How much it may be given.
    pub limits: Limits,
}

/// Room for one begun call; given back when dropped.
#[derive(Debug)]
pub struct Room {
    outlet: Arc<Outlet>,
    /// It is the one message of a gate that probes.
    probe: bool,
    /// It was given back.
    left: bool,
    /// What it has of the ESP's allowance.
    pub share: Share,
}

impl Outlet {
    /// An outlet; `freed` is rung whenever a call ends.
    pub fn new(parts: &Parts, clock: Arc<dyn Clock>, freed: Arc<Notify>) -> Arc<Self> {
        let (name, now) = (parts.name.as_str(), clock.now());
        Arc::new(Outlet {
            name: name.into(),
            meter: Meter::new(name),
            gate: Gatehouse::new(name, parts.connections, now),
            allowance: Allowance::new(name, parts.limits, now),
            seats: Seats::new(parts.connections),
            untold: Alert::new("limits_untold"),
            clock,
            connections: AtomicUsize::new(parts.connections),
            at_work: Mutex::default(),
            resized: Notify::new(),
            begun: AtomicUsize::new(0),
            begun_max: AtomicUsize::new(begun_ahead_min(parts.connections)),
            crowded: AtomicBool::new(false),
            grown: AtomicBool::new(false),
            queue: Mutex::default(),
            ears: Ears::default(),
            ready: Semaphore::new(0),
            freed,
        })
    }

    /// Calls at a time.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// So many calls at a time from now on, none where it is not configured any more. Gives the connections that
    /// somebody is to be put to work at; those that are too many end after their call.
    #[must_use]
    pub fn staff(&self, connections: usize) -> Vec<usize> {
        let mut at_work = self.at_work();
        self.connections.store(connections, Ordering::Release);
        self.begun_max.fetch_max(begun_ahead_min(connections), Ordering::Relaxed);
        self.gate.has_connections(connections);
        self.seats.configure(connections);
        if at_work.len() < connections {
            at_work.resize(connections, false);
        }
        let places = at_work.iter_mut().take(connections).enumerate();
        let vacant = places.filter_map(|(n, busy)| (!std::mem::replace(busy, true)).then_some(n)).collect();
        self.resized.notify_waiters();
        vacant
    }

    /// Whether that connection is one too many; then nobody is at work there any more.
    fn leaves(&self, connection: usize) -> bool {
        if connection < self.connections() {
            return false;
        }
        let mut at_work = self.at_work();
        let goes = connection >= self.connections();
        if goes && let Some(busy) = at_work.get_mut(connection) {
            *busy = false;
            self.seats.leaves(connection);
        }
        goes
    }

    fn at_work(&self) -> std::sync::MutexGuard<'_, Vec<bool>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps such a load from it, for longer than a moment.
    pub fn hindrance(&self, load: Load<'_>, now: Timestamp) -> Option<PassedOver> {
        self.gate.hindrance(load.whose, now).or_else(|| self.allowance.why_spent(load.kind, now))
    }

    /// Room for one more begun call.
    pub fn room(self: &Arc<Self>, load: Load<'_>, now: Timestamp) -> Result<Room, Full> {
        let probe = match self.gate.admits(now) {
            Admits::All => self.begin_one(self.max_for(load.kind))?,
            Admits::Share(share) => self.begin_one(self.share_of_connections(share))?,
            Admits::One => self.probe()?,
            Admits::Nothing => return Err(Full::Closed),
        };
        let want = Want { kind: load.kind, recipients: load.recipients, whole: load.whole };
        match self.allowance.take(want, now) {
            Ok(share) => Ok(Room { outlet: Arc::clone(self), probe, left: false, share }),
            Err(none) => {
                // Nobody is rung: there is no more room than before, and who was rung would only ask again.
                self.give_back(probe);
                Err(match none {
                    NoShare::Soon => Full::Soon,
                    NoShare::At(at) => Full::At(at),
                    NoShare::Part => Full::Part,
                    NoShare::Spent(_) => Full::Closed,
                })
            }
        }
    }

    /// One more is begun; it is no probe.
    fn begin_one(&self, max: usize) -> Result<bool, Full> {
        let fits = |begun: usize| (begun < max).then_some(begun + 1);
        match self.begun.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits) {
            Ok(_) => Ok(false),
            Err(_) => {
                self.crowded.store(true, Ordering::Relaxed);
                Err(Full::Busy)
            }
        }
    }

    /// The one message of a gate that probes is begun.
    fn probe(&self) -> Result<bool, Full> {
        if !self.gate.take_probe() {
            return Err(Full::Closed);
        }
        self.begun.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }

    fn give_back(&self, probe: bool) {
        self.begun.fetch_sub(1, Ordering::AcqRel);
        if probe {
            // Where it was answered the gate has moved on, and this does nothing.
            self.gate.give_probe_back();
        }
    }

    /// How many more calls may be begun now, by the gate and by what is begun; none where the rate leaves no room.
    pub fn free(&self) -> usize {
        let now = self.clock.now();
        let begun = self.begun.load(Ordering::Relaxed);
        match self.gate.admits(now) {
            _ if !self.allowance.is_open(now) => 0,
            Admits::All => self.max_for(StreamKind::Transactional).saturating_sub(begun),
            Admits::Share(share) => self.share_of_connections(share).saturating_sub(begun),
            Admits::One => 1,
            Admits::Nothing => 0,
        }
    }

    /// While it recovers nothing is begun ahead: a share of its connections is in use.
    fn share_of_connections(&self, share: f64) -> usize {
        ((self.seats.most() as f64 * share) as usize).max(1)
    }

    /// How much may be begun ahead.
    fn max_for(&self, kind: StreamKind) -> usize {
        let max = self.begun_max.load(Ordering::Relaxed);
        match kind {
            StreamKind::Transactional => max,
            StreamKind::Broadcast => (max - (max / RESERVE_PART).max(1)).max(1),
        }
    }

    /// A connection stands idle. Where mail found no room a moment ago, what is begun ahead does not last for one
    /// commit: twice as much is from now on. What was carried per commit would be no measure of what could be: where
    /// too little is begun, little is carried.
    fn ran_dry(&self) {
        if !self.crowded.swap(false, Ordering::Relaxed) {
            return;
        }
        let doubled = |max: usize| Some((max * 2).min(BEGUN_AHEAD_MAX).max(max));
        let _ = self.begun_max.fetch_update(Ordering::Relaxed, Ordering::Relaxed, doubled);
        self.grown.store(true, Ordering::Relaxed);
        self.freed.notify_one();
    }

    /// Takes back an eighth of what is begun ahead beyond the least, where it did not have to grow since this was last
    /// called: after a crash all of it is `Unsure`.
    pub fn ease(&self) {
        if self.grown.swap(false, Ordering::Relaxed) {
            return;
        }
        let min = begun_ahead_min(self.connections());
        let less = |max: usize| Some(max - max.saturating_sub(min).div_ceil(8));
        let _ = self.begun_max.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Hands a begun call over to the next free connection; one that is closed, or has none any more, gives it back.
    #[must_use]
    pub fn push(&self, call: Call) -> Option<Call> {
        let mut calls = self.calls();
        if self.ready.is_closed() || self.connections() == 0 {
            return Some(call);
        }
        match call.message.kind {
            StreamKind::Transactional => calls.transactional.push_back(call),
            StreamKind::Broadcast => calls.broadcast.push_back(call),
        }
        self.ready.add_permits(1);
        None
    }

    /// A call that found no place there waits again, before those that came after it; one that is closed, or has no
    /// connection any more, gives it back.
    #[must_use]
    pub fn push_again(&self, call: Call) -> Option<Call> {
        let mut calls = self.calls();
        if self.ready.is_closed() || self.connections() == 0 {
            return Some(call);
        }
        calls.put_back(call);
        self.ready.add_permits(1);
        None
    }

    /// The next call for that connection; `None` when the outlet is closed, or the connection is one too many.
    pub async fn next(&self, connection: usize) -> Option<Call> {
        loop {
            if self.leaves(connection) || self.ready.is_closed() {
                return None;
            }
            if !self.sits(connection).await {
                continue;
            }
            match self.ready.try_acquire() {
                Ok(permit) => permit.forget(),
                Err(TryAcquireError::Closed) => return None,
                Err(TryAcquireError::NoPermits) => {
                    self.ran_dry();
                    let mut resized = pin!(self.resized.notified());
                    resized.as_mut().enable();
                    if self.leaves(connection) {
                        return None;
                    }
                    tokio::select! {
                        biased;
                        permit = self.ready.acquire() => permit.ok()?.forget(),
                        () = resized => continue,
                    }
                }
            }
            // None: it was taken out in between.
            let Some(call) = self.calls().pop() else { continue };
            // It may have lost its seat while there was nothing to do.
            if self.seats.sits(connection) {
                return Some(call);
            }
            if let Some(call) = self.push_again(call) {
                return Some(call);
            }
        }
    }

    /// Waits for a seat; `false`: it is to be looked at anew whether that connection is one too many.
    async fn sits(&self, connection: usize) -> bool {
        if self.seats.sits(connection) {
            return true;
        }
        let (mut free, mut resized) = (pin!(self.seats.free.notified()), pin!(self.resized.notified()));
        free.as_mut().enable();
        resized.as_mut().enable();
        if self.seats.sits(connection) {
            return true;
        }
        if !self.ready.is_closed() && connection < self.connections() {
            tokio::select! {
                () = free => {}
                () = resized => {}
            }
        }
        false
    }

    /// Whether a call must not start, though it was begun: the gate was shut since, or it was suspended.
    pub fn turns_away(&self, call: &Call) -> bool {
        self.gate.turns_away(call.room.probe, self.clock.now())
    }

    /// Takes out those of them that wait for a connection. None may come free: after a hand-over each waits for its
    /// answer, however long that takes.
    pub fn turned_away(&self) -> Vec<Call> {
        self.unstarted_if(|call| self.turns_away(call))
    }

    /// Calls begun, on their way or waiting for a connection.
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// Takes out those that wait for a connection.
    pub fn unstarted(&self) -> Vec<Call> {
        self.unstarted_if(|_| true)
    }

    /// Takes out those of them for which it holds.
    pub fn unstarted_if(&self, goes: impl Fn(&Call) -> bool) -> Vec<Call> {
        let mut calls = self.calls();
        let gone = calls.take_if(goes);
        self.ready.forget_permits(gone.len());
        gone
    }

    /// No further call is started; those that were not started are returned.
    pub fn close(&self) -> Vec<Call> {
        self.ready.close();
        // Those without a seat.
        self.resized.notify_waiters();
        self.calls().drain()
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Call> {
        self.transactional.pop_front().or_else(|| self.broadcast.pop_front())
    }

    fn put_back(&mut self, call: Call) {
        match call.message.kind {
            StreamKind::Transactional => self.transactional.push_front(call),
            StreamKind::Broadcast => self.broadcast.push_front(call),
        }
    }

    fn take_if(&mut self, goes: impl Fn(&Call) -> bool) -> Vec<Call> {
        let mut gone = Vec::new();
        for calls in [&mut self.transactional, &mut self.broadcast] {
            let (go, stay): (VecDeque<_>, VecDeque<_>) = calls.drain(..).partition(&goes);
            gone.extend(go);
            *calls = stay;
        }
        gone
    }

    fn drain(&mut self) -> Vec<Call> {
        self.transactional.drain(..).chain(self.broadcast.drain(..)).collect()
    }
}

/// One in the call, one ready, for each connection.
fn begun_ahead_min(connections: usize) -> usize {
    (connections * 2).max(1)
}

impl Room {
    /// Where it is.
    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// Gives it back before its call is over: others may be begun.
    pub fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            self.outlet.give_back(self.probe);
            self.outlet.freed.notify_one();
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    use crate::esp::sandbox::Sandbox;
    use crate::flow::gatehouse::Met;
    use crate::flow::pending::Passenger;
    use crate::flow::tests::message;
    use crate::mail::quota::Rate;
    use crate::mail::{AttemptId, Outcome, Rule};
    use crate::wire::SandboxWire;

    const NOW: Timestamp = Timestamp::from_millis(0);
    const RECEIPT: Load<'static> = Load {
        kind: StreamKind::Transactional,
        recipients: 1,
        whole: false,
        whose: Whose { from_domain: None, sender: None },
    };

    fn outlet() -> Arc<Outlet> {
        outlet_with(Limits::default())
    }

    fn outlet_with(limits: Limits) -> Arc<Outlet> {
        let parts =
            Parts { name: "s".into(), priority: 1, weight: 100, line: line(), connections: 1, limits };
        Outlet::new(&parts, Arc::new(crate::clock::Manual::at(NOW)), Arc::default())
    }

    fn line() -> Arc<Line> {
        Arc::new(Line { esp: Box::new(Sandbox), wire: Arc::new(SandboxWire) })
    }

    fn room(outlet: &Arc<Outlet>) -> Option<Room> {
        outlet.room(RECEIPT, NOW).ok()
    }

    fn call(outlet: &Arc<Outlet>, kind: StreamKind) -> Call {
        Call {
            message: message(kind, 1),
            rule: Rule::default(),
            passengers: vec![Passenger {
                recipient: 0,
                tries: 0,
                rounds: 0,
                open_attempts: 0,
                seen_unsure: 0,
                unable_since: None,
            }],
            attempt: AttemptId::from_number(2),
            begun_at: NOW,
            tried: vec!["s".into()],
            moved_for_recipient: false,
            bound: false,
            verdicts: 0,
            room: room(outlet).unwrap(),
            line: line(),
            setup: 0,
            told: None,
        }
    }

    #[tokio::test]
    async fn transactional_mail_overtakes_a_campaign_before_its_connection() {
        let outlet = outlet();
        for kind in [StreamKind::Broadcast, StreamKind::Transactional] {
            assert!(outlet.push(call(&outlet, kind)).is_none());
        }
        assert_eq!(outlet.next(0).await.unwrap().message.kind, StreamKind::Transactional);
        assert_eq!(outlet.next(0).await.unwrap().message.kind, StreamKind::Broadcast);
    }

    #[test]
    fn a_campaign_leaves_room_to_transactional_mail() {
        let outlet = outlet();
        let news = Load { kind: StreamKind::Broadcast, ..RECEIPT };
        let _one = outlet.room(news, NOW).unwrap();
        assert_eq!(outlet.room(news, NOW).err(), Some(Full::Busy));
        assert!(room(&outlet).is_some());
    }

    #[test]
    fn who_finds_its_rate_used_up_rings_nobody() {
        let rate = Rate { recipients: 1, per: std::time::Duration::from_secs(1) };
        let outlet = outlet_with(Limits { rate: Some(rate), ..Limits::default() });
        let (given, full) = (room(&outlet), room(&outlet));
        assert!(given.is_none() && full.is_none(), "a rate starts empty");
        assert_eq!(outlet.begun.load(Ordering::Relaxed), 0);
        assert!(
            outlet.freed.notified().now_or_never().is_none(),
            "its own ring would have it ask again at once"
        );
    }

    #[test]
    fn a_begin_that_commits_after_the_close_is_given_back_and_none_is_forgotten() {
        let outlet = outlet();
        assert!(outlet.push(call(&outlet, StreamKind::Transactional)).is_none());
        assert_eq!(outlet.close().len(), 1, "what was not started comes back at the close");
        assert!(outlet.push(call(&outlet, StreamKind::Transactional)).is_some(), "and later ones at once");
        assert_eq!(outlet.free(), 2, "their room is free again");
    }

    #[test]
    fn what_waits_behind_calls_that_hang_is_taken_out_once_the_gate_is_shut() {
        let outlet = outlet();
        assert!(outlet.push(call(&outlet, StreamKind::Transactional)).is_none());
        assert!(outlet.turned_away().is_empty());
        let shut = || Outcome::Unsure { said: "closed".into() };
        for _ in 0..3 {
            let met = Met {
                outcomes: &[shut()],
                keys: &[],
                whose: Whose::default(),
                blames_request: false,
                given_up: false,
                report: false,
                late: false,
            };
            outlet.gate.returns(&met, std::time::Duration::ZERO, NOW, true);
        }
        assert_eq!((outlet.turned_away().len(), outlet.turned_away().len()), (1, 0));
        assert_eq!(outlet.ready.available_permits(), 0, "no connection is woken for it");
    }

    #[test]
    fn no_more_is_begun_ahead_than_there_is_room() {
        let outlet = outlet();
        let taken = [room(&outlet), room(&outlet)];
        assert!(taken.iter().all(Option::is_some) && room(&outlet).is_none());
        for _ in 0..20 {
            assert!(room(&outlet).is_none() || outlet.free() > 0);
            outlet.crowded.store(true, Ordering::Relaxed);
            outlet.ran_dry();
        }
        assert_eq!(outlet.free(), BEGUN_AHEAD_MAX - 2);
    }

    #[test]
    fn room_grows_only_where_mail_waits_beside_an_idle_connection_and_shrinks_again() {
        let outlet = outlet();
        outlet.ran_dry();
        assert_eq!(outlet.free(), 2, "idle, but nothing waits");
        let _taken = [room(&outlet), room(&outlet)];
        assert!(room(&outlet).is_none());
        outlet.ease();
        assert_eq!(outlet.free(), 0, "mail waits, but nothing is idle");
        outlet.ran_dry();
        assert_eq!(outlet.free(), 2);
        outlet.ran_dry();
        outlet.ease();
        assert_eq!(outlet.free(), 2, "once for what found no room; and what has just grown stays a while");
        for _ in 0..20 {
            outlet.ease();
        }
        assert_eq!(outlet.free(), 0, "back to the least");
    }
}
