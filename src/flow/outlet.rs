//! One ESP at work: what composes and reads, what carries, how much may be begun ahead, and the calls that wait for a
//! free connection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore, TryAcquireError};

use super::call::Call;
use super::meter::Meter;
use crate::esp::Esp;
use crate::wire::Wire;

/// However fast an ESP is, no more is begun ahead: after a crash this many calls are `Unsure`.
pub const BEGUN_AHEAD_MAX: usize = 256;

/// One `[[esp]]` that carries mail.
#[derive(Debug)]
pub struct Outlet {
    /// Its name: identity in history, logs and metrics.
    pub name: Arc<str>,
    /// Lower first.
    pub priority: u32,
    /// Share among equal priorities.
    pub weight: u32,
    /// What it needs and what its answers mean.
    pub esp: Box<dyn Esp>,
    /// How bytes get there.
    pub wire: Arc<dyn Wire>,
    /// Calls at a time.
    pub connections: usize,
    /// What it is measured by.
    pub meter: Meter,
    begun: AtomicUsize,
    begun_max: AtomicUsize,
    /// Mail was there that found no room.
    crowded: AtomicBool,
    /// Room has grown since it was last eased.
    grown: AtomicBool,
    queue: Mutex<VecDeque<Call>>,
    ready: Semaphore,
    /// Rung when room is given back.
    freed: Arc<Notify>,
}

/// Room for one begun call; given back when dropped.
#[derive(Debug)]
pub struct Room(Arc<Outlet>);

impl Outlet {
    /// An outlet with `connections` calls at a time; `freed` is rung whenever a call ends.
    pub fn new(
        name: &str,
        (priority, weight): (u32, u32),
        esp: Box<dyn Esp>,
        wire: Arc<dyn Wire>,
        connections: usize,
        freed: Arc<Notify>,
    ) -> Arc<Self> {
        Arc::new(Outlet {
            name: name.into(),
            priority,
            weight,
            esp,
            wire,
            connections,
            meter: Meter::new(name),
            begun: AtomicUsize::new(0),
            begun_max: AtomicUsize::new(begun_ahead_min(connections)),
            crowded: AtomicBool::new(false),
            grown: AtomicBool::new(false),
            queue: Mutex::default(),
            ready: Semaphore::new(0),
            freed,
        })
    }

    /// Room for one more begun call, if there is any.
    pub fn room(self: &Arc<Self>) -> Option<Room> {
        let max = self.begun_max.load(Ordering::Relaxed);
        let fits = |begun: usize| (begun < max).then_some(begun + 1);
        match self.begun.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits) {
            Ok(_) => Some(Room(Arc::clone(self))),
            Err(_) => {
                self.crowded.store(true, Ordering::Relaxed);
                None
            }
        }
    }

    /// How many more calls may be begun now.
    pub fn free(&self) -> usize {
        self.begun_max.load(Ordering::Relaxed).saturating_sub(self.begun.load(Ordering::Relaxed))
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
        let min = begun_ahead_min(self.connections);
        let less = |max: usize| Some(max - max.saturating_sub(min).div_ceil(8));
        let _ = self.begun_max.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Hands a begun call over to the next free connection; a closed outlet gives it back.
    #[must_use]
    pub fn push(&self, call: Call) -> Option<Call> {
        let mut calls = self.calls();
        if self.ready.is_closed() {
            return Some(call);
        }
        calls.push_back(call);
        self.ready.add_permits(1);
        None
    }

    /// The next call; `None` when the outlet is closed.
    pub async fn next(&self) -> Option<Call> {
        match self.ready.try_acquire() {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return None,
            Err(TryAcquireError::NoPermits) => {
                self.ran_dry();
                self.ready.acquire().await.ok()?.forget();
            }
        }
        self.calls().pop_front()
    }

    /// No further call is started; those that were not started are returned.
    pub fn close(&self) -> Vec<Call> {
        self.ready.close();
        self.calls().drain(..).collect()
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, VecDeque<Call>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One in the call, one ready, for each connection.
fn begun_ahead_min(connections: usize) -> usize {
    (connections * 2).max(1)
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.begun.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, Grammar};
    use crate::clock::Timestamp;
    use crate::esp::sandbox::Sandbox;
    use crate::flow::pending::Passenger;
    use crate::mail::{
        AttemptId, Body, BodyKind, Envelope, Message, MessageId, Protocol, ReversePath, Source, StreamKind,
        StreamName,
    };
    use crate::wire::SandboxWire;

    fn outlet() -> Arc<Outlet> {
        Outlet::new("s", (1, 100), Box::new(Sandbox), Arc::new(SandboxWire), 1, Arc::default())
    }

    fn call(room: Room) -> Call {
        let at = Timestamp::from_millis(0);
        let to = Address::parse("b@example.com", Grammar::Strict).unwrap();
        let message = Message {
            id: MessageId::from_number(1),
            envelope: Envelope {
                sender: ReversePath::Null,
                recipients: vec![to],
                body: BodyKind::SevenBit,
                smtputf8: false,
            },
            stream: StreamName::new(StreamName::TRANSACTIONAL),
            kind: StreamKind::Transactional,
            body: Body::whole("\r\n"),
            accepted_at: at,
            expires_at: at,
            tags: Vec::new(),
            metadata: Vec::new(),
            pin: None,
            source: Source {
                listener: "l".into(),
                peer: std::net::Ipv4Addr::LOCALHOST.into(),
                helo: "h".into(),
                credential: None,
                protocol: Protocol::Smtp,
            },
        };
        Call {
            message: Arc::new(message),
            passengers: vec![Passenger { recipient: 0, tries: 0, open_attempts: 0, seen_unsure: 0 }],
            attempt: AttemptId::from_number(2),
            begun_at: at,
            tried: vec![0],
            moved_for_recipient: false,
            room,
        }
    }

    #[test]
    fn a_begin_that_commits_after_the_close_is_given_back_and_none_is_forgotten() {
        let outlet = outlet();
        assert!(outlet.push(call(outlet.room().unwrap())).is_none());
        assert_eq!(outlet.close().len(), 1, "what was not started comes back at the close");
        assert!(outlet.push(call(outlet.room().unwrap())).is_some(), "and later ones at once");
        assert_eq!(outlet.free(), 2, "their room is free again");
    }

    #[test]
    fn no_more_is_begun_ahead_than_there_is_room() {
        let outlet = outlet();
        let taken = [outlet.room(), outlet.room()];
        assert!(taken.iter().all(Option::is_some) && outlet.room().is_none());
        for _ in 0..20 {
            assert!(outlet.room().is_none() || outlet.free() > 0);
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
        let _taken = [outlet.room(), outlet.room()];
        assert!(outlet.room().is_none());
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
