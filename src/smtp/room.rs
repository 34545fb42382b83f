//! The room of a listener: who is in, and who leaves to make room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Gauge;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::reply::{self, Reply};
use crate::clock::monotonic;

/// Everybody who is connected to a listener.
#[derive(Debug)]
pub struct Room {
    seats_max: usize,
    seats_per_address_max: usize,
    opened: Instant,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    seats: HashMap<u64, Arc<Seat>>,
    per_address: HashMap<IpAddr, usize>,
    next: u64,
}

/// One connection's place.
#[derive(Debug)]
pub struct Seat {
    number: u64,
    peer: IpAddr,
    /// Milliseconds after the room was opened.
    idle_since: AtomicU64,
    busy: AtomicBool,
    leaving: AtomicU8,
    signal: Notify,
}

/// Gives the place back when dropped.
#[derive(Debug)]
pub struct Guest {
    room: Arc<Room>,
    seat: Arc<Seat>,
    gauge: Option<Gauge>,
}

const STAYS: u8 = 0;
const MAKES_ROOM: u8 = 1;
const STOPS: u8 = 2;

impl Room {
    /// An empty one.
    pub fn new(seats_max: usize, seats_per_address_max: usize) -> Arc<Self> {
        Arc::new(Room {
            seats_max: seats_max.max(1),
            seats_per_address_max: seats_per_address_max.max(1),
            opened: monotonic(),
            taken: Mutex::default(),
        })
    }

    /// Lets a client in. In a full room the longest-idle one without a transaction leaves for it; where there is none,
    /// the reply tells the newcomer why it cannot stay.
    pub fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Guest, Reply> {
        let mut taken = self.lock();
        let here = taken.per_address.get(&peer).copied().unwrap_or(0);
        if here >= self.seats_per_address_max && !peer.is_loopback() {
            return Err(reply::FULL_FOR_ADDRESS);
        }
        if taken.seats.len() >= self.seats_max && !taken.make_room() {
            return Err(reply::FULL);
        }
        let number = taken.next;
        taken.next += 1;
        let seat = Arc::new(Seat {
            number,
            peer,
            idle_since: AtomicU64::new(self.now()),
            busy: AtomicBool::new(false),
            leaving: AtomicU8::new(STAYS),
            signal: Notify::new(),
        });
        taken.seats.insert(number, Arc::clone(&seat));
        *taken.per_address.entry(peer).or_default() += 1;
        Ok(Guest { room: Arc::clone(self), seat, gauge: None })
    }

    /// Sends the longest-idle one away, as when the process has no more files.
    pub fn make_room(&self) -> bool {
        self.lock().make_room()
    }

    /// Sends everybody away as soon as no message is half-way.
    pub fn stop(&self) {
        for seat in self.lock().seats.values() {
            seat.dismiss(STOPS);
        }
    }

    /// How many are in.
    pub fn count(&self) -> usize {
        self.lock().seats.len()
    }

    fn now(&self) -> u64 {
        u64::try_from((monotonic() - self.opened).as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn make_room(&mut self) -> bool {
        let idle = self.seats.values().filter(|s| !s.busy.load(Ordering::Relaxed));
        let longest = idle.min_by_key(|s| (s.idle_since.load(Ordering::Relaxed), s.number)).cloned();
        let Some(seat) = longest else { return false };
        seat.dismiss(MAKES_ROOM);
        self.leave(&seat);
        true
    }

    fn leave(&mut self, seat: &Seat) {
        if self.seats.remove(&seat.number).is_none() {
            return;
        }
        if let Some(count) = self.per_address.get_mut(&seat.peer) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&seat.peer);
            }
        }
    }
}

impl Seat {
    fn dismiss(&self, why: u8) {
        self.leaving.store(why, Ordering::Release);
        self.signal.notify_one();
    }

    /// What this client is told when it has to leave now.
    pub fn dismissed(&self) -> Option<Reply> {
        match self.leaving.load(Ordering::Acquire) {
            STAYS => None,
            MAKES_ROOM => Some(reply::MADE_ROOM),
            _ => Some(reply::STOPPING),
        }
    }

    /// Waits until it may have to leave.
    pub async fn called(&self) {
        self.signal.notified().await;
    }
}

impl Guest {
    /// The same, counted in `gauge` while it is there.
    pub fn counted(mut self, gauge: Gauge) -> Self {
        gauge.increment(1);
        self.gauge = Some(gauge);
        self
    }

    /// Where it comes from.
    pub fn peer(&self) -> IpAddr {
        self.seat.peer
    }

    /// Its place.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Notes whether a message is begun.
    pub fn busy(&self, busy: bool) {
        self.seat.busy.store(busy, Ordering::Relaxed);
    }

    /// Notes that a command is waited for from now on.
    pub fn idle(&self) {
        self.seat.idle_since.store(self.room.now(), Ordering::Relaxed);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.room.lock().leave(&self.seat);
        if let Some(gauge) = &self.gauge {
            gauge.decrement(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_without_a_transaction_leaves() {
        let room = Room::new(3, 50);
        let peer = ip("127.0.0.1");
        let (a, b, c) = (room.enter(peer).unwrap(), room.enter(peer).unwrap(), room.enter(peer).unwrap());
        tokio::time::advance(Duration::from_secs(1)).await;
        a.busy(true);
        c.idle();
        let d = room.enter(peer).unwrap();
        assert_eq!(b.seat().dismissed(), Some(reply::MADE_ROOM));
        b.seat().called().await;
        assert!(a.seat().dismissed().is_none() && c.seat().dismissed().is_none());
        drop(b);
        assert_eq!(room.count(), 3);
        c.busy(true);
        d.busy(true);
        assert_eq!(room.enter(peer).unwrap_err(), reply::FULL);
        drop((a, c, d));
        assert_eq!(room.count(), 0);
        assert!(room.lock().per_address.is_empty());
    }

    #[tokio::test]
    async fn one_address_has_its_limit_and_loopback_none() {
        let room = Room::new(100, 2);
        let _in: Vec<_> = (0..2).map(|_| room.enter(ip("192.0.2.1")).unwrap()).collect();
        assert_eq!(room.enter(ip("192.0.2.1")).unwrap_err(), reply::FULL_FOR_ADDRESS);
        let _other = room.enter(ip("192.0.2.2")).unwrap();
        let _local: Vec<_> = (0..10).map(|_| room.enter(ip("::1")).unwrap()).collect();
        room.stop();
        assert!(room.lock().seats.values().all(|s| s.dismissed() == Some(reply::STOPPING)));
    }
}
