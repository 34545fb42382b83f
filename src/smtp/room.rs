//! The room of a listener: who is in, and who leaves to make room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics::Gauge;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ListenerSettings;
use super::reply::{self, Reply};
use crate::clock::monotonic;

/// Who gave a command within this time goes after all who are silent for longer: a client that is at work between two
/// commands is not sent away for one that said MAIL and then nothing.
const AT_WORK: Duration = Duration::from_secs(5);

/// Clients that were sent away and have not gone yet, at a time: more are not let in before some have. No more than
/// there are seats.
pub const LEAVING_MAX: usize = 64;
/// So many of them have a moment to read why; the others are closed at once.
const LINGERING_MAX: usize = LEAVING_MAX / 2;

/// What a client would lose if it had to leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stake {
    /// Nothing.
    Nothing = 0,
    /// MAIL and no accepted recipient: no more than the command.
    Mail = 1,
    /// A message with a recipient: it is not asked to leave.
    Message = 2,
}

/// Everybody who is connected to a listener.
#[derive(Debug)]
pub struct Room {
    seats_max: AtomicUsize,
    seats_per_address_max: AtomicUsize,
    /// On loopback too.
    loopback_too: AtomicBool,
    opened: Instant,
    /// Since when everybody is being sent away.
    stopped: OnceLock<Instant>,
    /// See [`LINGERING_MAX`].
    lingering: AtomicUsize,
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
    /// When it gave its last whole command, or came in, in microseconds after the room was opened. Every command counts,
    /// NOOP too (too many of them end the connection); octets of a command that does not end do not.
    idle_since: AtomicU64,
    /// A [`Stake`].
    stake: AtomicU8,
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
    /// An empty one, as its listener wants it.
    pub fn of(settings: &ListenerSettings) -> Arc<Self> {
        let per_address = settings.max_connections_per_address;
        Room::new(settings.max_connections, per_address, settings.loopback_per_address)
    }

    /// From now on as its listener wants it. Who is in stays, also where they are too many.
    pub fn change(&self, settings: &ListenerSettings) {
        self.seats_max.store(settings.max_connections.max(1), Ordering::Relaxed);
        self.seats_per_address_max.store(settings.max_connections_per_address.max(1), Ordering::Relaxed);
        self.loopback_too.store(settings.loopback_per_address, Ordering::Relaxed);
    }

    fn new(seats_max: usize, seats_per_address_max: usize, loopback_too: bool) -> Arc<Self> {
        Arc::new(Room {
            seats_max: AtomicUsize::new(seats_max.max(1)),
            seats_per_address_max: AtomicUsize::new(seats_per_address_max.max(1)),
            loopback_too: AtomicBool::new(loopback_too),
            opened: monotonic(),
            stopped: OnceLock::new(),
            lingering: AtomicUsize::new(0),
            taken: Mutex::default(),
        })
    }

    /// Lets a client in. In a full room the longest-idle one leaves for it, of those silent for a while one without MAIL
    /// first. None leaves that has a recipient accepted: where all have, the reply tells the newcomer why it cannot
    /// stay.
    pub fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Guest, Reply> {
        let mut taken = self.lock();
        let here = taken.per_address.get(&peer).copied().unwrap_or(0);
        let loopback_too = self.loopback_too.load(Ordering::Relaxed);
        if here >= self.seats_per_address_max.load(Ordering::Relaxed) && (loopback_too || !peer.is_loopback())
        {
            return Err(reply::FULL_FOR_ADDRESS);
        }
        let now = self.now();
        if taken.seats.len() >= self.seats_max.load(Ordering::Relaxed) && !taken.make_room(now) {
            return Err(reply::FULL);
        }
        let number = taken.next;
        taken.next += 1;
        let seat = Arc::new(Seat {
            number,
            peer,
            idle_since: AtomicU64::new(now),
            stake: AtomicU8::new(Stake::Nothing as u8),
            leaving: AtomicU8::new(STAYS),
            signal: Notify::new(),
        });
        taken.seats.insert(number, Arc::clone(&seat));
        *taken.per_address.entry(peer).or_default() += 1;
        Ok(Guest { room: Arc::clone(self), seat, gauge: None })
    }

    /// Sends the longest-idle one away, as when the process has no more files.
    pub fn make_room(&self) -> bool {
        let now = self.now();
        self.lock().make_room(now)
    }

    /// Sends everybody away as soon as no message is half-way.
    pub fn stop(&self) {
        self.stopped.get_or_init(monotonic);
        for seat in self.lock().seats.values() {
            seat.dismiss(STOPS);
        }
    }

    /// Whether another may come in while there are so many connections, those that are leaving included.
    pub fn has_space(&self, connections: usize) -> bool {
        let seats_max = self.seats_max.load(Ordering::Relaxed);
        connections < seats_max.saturating_add(seats_max.min(LEAVING_MAX))
    }

    /// How many are in.
    pub fn count(&self) -> usize {
        self.lock().seats.len()
    }

    fn now(&self) -> u64 {
        u64::try_from((monotonic() - self.opened).as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn make_room(&mut self, now: u64) -> bool {
        let idle = self.seats.values().filter(|s| s.stake() < Stake::Message as u8);
        let longest = idle.min_by_key(|s| s.rank(now)).cloned();
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
    fn stake(&self) -> u8 {
        self.stake.load(Ordering::Relaxed)
    }

    /// The lowest leaves first.
    fn rank(&self, now: u64) -> (bool, u8, u64, u64) {
        let since = self.idle_since.load(Ordering::Relaxed);
        let at_work = Duration::from_micros(now.saturating_sub(since)) < AT_WORK;
        (at_work, self.stake(), since, self.number)
    }

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

    /// When everybody was sent away, if that was.
    pub fn stopped(&self) -> Option<Instant> {
        self.room.stopped.get().copied()
    }

    /// Its place.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Whether there is time for it to read its last reply: where many leave to make room, there is not.
    pub fn may_linger(&self) -> Option<Lingering<'_>> {
        let lingering = Lingering(&self.room);
        let before = self.room.lingering.fetch_add(1, Ordering::Relaxed);
        (before < LINGERING_MAX.min(self.room.seats_max.load(Ordering::Relaxed).div_ceil(2))
            || self.stopped().is_some())
        .then_some(lingering)
    }

    /// Notes what it would lose.
    pub fn stakes(&self, stake: Stake) {
        self.seat.stake.store(stake as u8, Ordering::Relaxed);
    }

    /// Notes that a command was given, and answered, just now.
    pub fn commanded(&self) {
        self.seat.idle_since.store(self.room.now(), Ordering::Relaxed);
    }
}

/// One that reads its last reply.
#[derive(Debug)]
pub struct Lingering<'a>(&'a Room);

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        self.0.lingering.fetch_sub(1, Ordering::Relaxed);
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

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_without_a_transaction_leaves() {
        let room = Room::new(3, 50, false);
        let peer = ip("127.0.0.1");
        let (a, b, c) = (room.enter(peer).unwrap(), room.enter(peer).unwrap(), room.enter(peer).unwrap());
        tokio::time::advance(Duration::from_secs(1)).await;
        a.stakes(Stake::Message);
        c.commanded();
        let d = room.enter(peer).unwrap();
        assert_eq!(b.seat().dismissed(), Some(reply::MADE_ROOM));
        b.seat().called().await;
        assert!(a.seat().dismissed().is_none() && c.seat().dismissed().is_none());
        drop(b);
        assert_eq!(room.count(), 3);
        c.stakes(Stake::Message);
        d.stakes(Stake::Message);
        assert_eq!(room.enter(peer).unwrap_err(), reply::FULL);
        drop((a, c, d));
        assert_eq!(room.count(), 0);
        assert!(room.lock().per_address.is_empty());
    }

    /// Who leaves for one more: each is silent for so many seconds and has so much at stake.
    async fn leaves(clients: &[(u64, Stake)]) -> Option<usize> {
        let room = Room::new(clients.len(), 50, false);
        let peer = ip("127.0.0.1");
        let guests: Vec<_> = clients.iter().map(|_| room.enter(peer).unwrap()).collect();
        for second in (0..=60).rev() {
            for (guest, (silent, stake)) in guests.iter().zip(clients) {
                if *silent == second {
                    guest.stakes(*stake);
                    guest.commanded();
                }
            }
            tokio::time::advance(Duration::from_secs(u64::from(second > 0))).await;
        }
        let entered = room.enter(peer).is_ok();
        let gone = guests.iter().position(|g| g.seat().dismissed().is_some());
        assert_eq!(entered, gone.is_some());
        gone
    }

    #[tokio::test(start_paused = true)]
    async fn mail_alone_keeps_no_place() {
        use Stake::{Mail, Message, Nothing};
        assert_eq!(leaves(&[(10, Mail), (20, Mail), (9, Mail)]).await, Some(1));
        // Of the silent, those without MAIL first; the silent before those at work.
        assert_eq!(leaves(&[(30, Mail), (10, Nothing), (20, Nothing), (40, Message)]).await, Some(2));
        assert_eq!(leaves(&[(1, Nothing), (10, Mail), (20, Mail)]).await, Some(2));
        // Of those at work, the same; MAIL is no help against a RCPT.
        assert_eq!(leaves(&[(2, Mail), (1, Nothing), (60, Message)]).await, Some(1));
        assert_eq!(leaves(&[(60, Message), (0, Mail)]).await, Some(1));
        assert_eq!(leaves(&[(60, Message), (50, Message)]).await, None);
    }

    #[tokio::test]
    async fn loopback_has_the_limit_of_one_address_where_it_is_asked_for() {
        let room = Room::new(100, 2, true);
        let _in: Vec<_> = (0..2).map(|_| room.enter(ip("127.0.0.1")).unwrap()).collect();
        assert_eq!(room.enter(ip("127.0.0.1")).unwrap_err(), reply::FULL_FOR_ADDRESS);
        let _other = room.enter(ip("127.0.0.2")).unwrap();
    }

    #[tokio::test]
    async fn one_address_has_its_limit_and_loopback_none() {
        let room = Room::new(100, 2, false);
        let _in: Vec<_> = (0..2).map(|_| room.enter(ip("192.0.2.1")).unwrap()).collect();
        assert_eq!(room.enter(ip("192.0.2.1")).unwrap_err(), reply::FULL_FOR_ADDRESS);
        let _other = room.enter(ip("192.0.2.2")).unwrap();
        let _local: Vec<_> = (0..10).map(|_| room.enter(ip("::1")).unwrap()).collect();
        room.stop();
        assert!(room.lock().seats.values().all(|s| s.dismissed() == Some(reply::STOPPING)));
    }
}
