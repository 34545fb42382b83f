//! The body of a webhook's POST, which anybody may send, proven or not. Its memory is taken as its octets come; all such
//! bodies together have a part of the relay's memory and an address a part of that, so that they keep no mail out and
//! nobody keeps out the others. Where there is none left, the body that has been behind a bearable pace for longest gives
//! its own up: who sends most of a body and then next to nothing keeps nobody waiting.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::error::Problem;
use super::hooks::{HOOK_OCTETS_MAX, too_large};
use super::pace::OCTETS_PER_SECOND_MIN;
use super::rate::Whose;
use super::send::Peer;
use super::visitors::{Awaits, Visitor};
use crate::clock::monotonic;
use crate::mail::{Budget, Permit};

/// The body, its JSON and its events lie in memory together.
const TIMES_IN_MEMORY: usize = 4;
/// What the largest body needs.
const LARGEST_OCTETS: u64 = (HOOK_OCTETS_MAX * TIMES_IN_MEMORY) as u64;
/// Of the relay's memory webhooks have this part; or what two of the largest bodies need, if that is more…
const PART: u64 = 8;
/// …but never more than this part, however little memory there is.
const PART_MOST: u64 = 2;
/// Of that an address has this part, or what the largest body needs.
const PART_EACH: u64 = 2;
/// However much of a body came at once, it is no further before the pace than this: what counts is what comes now.
const AHEAD_MAX: Duration = Duration::from_millis(500);
/// For so long a body may be behind the pace before others have its memory.
const SETTLE: Duration = Duration::from_millis(100);
/// For so long a body waits for memory: several that have just stopped may have to go first.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Mail gives its memory back without a word: so often it is looked whether there is some.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a body may take, however it comes: the largest at a megabit a second. No ESP waits for so long.
const BODY_MAX: Duration = Duration::from_secs(60);

/// What all webhooks' bodies hold, on every port.
#[derive(Debug)]
pub struct HookRoom {
    budget: Arc<Budget>,
    bodies: Mutex<Bodies>,
    /// Told whenever a body is gone.
    freed: Notify,
}

/// Those that are here, by number.
#[derive(Debug, Default)]
struct Bodies {
    next: u64,
    here: HashMap<u64, Coming>,
}

/// One body.
#[derive(Debug)]
struct Coming {
    whose: Whose,
    /// What it holds.
    octets: u64,
    /// By when more of it should have come; `None`: all of it is here, or it waits for memory.
    due: Option<Instant>,
    /// It has to go.
    leave: CancellationToken,
}

/// Of what there is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Short {
    /// The part of its address.
    Own,
    /// What all have.
    All,
    /// It is more than an address may ever have.
    ForGood,
}

impl Bodies {
    fn held(&self) -> u64 {
        self.here.values().map(|body| body.octets).sum()
    }

    fn held_by(&self, whose: Whose) -> u64 {
        self.here.values().filter(|body| body.whose == whose).map(|body| body.octets).sum()
    }
}

impl HookRoom {
    /// With nothing in it.
    pub fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(HookRoom { budget, bodies: Mutex::default(), freed: Notify::new() })
    }

    /// What all may hold, and what an address may.
    fn limits(&self) -> (u64, u64) {
        let memory = self.budget.limit_octets();
        let all = (memory / PART).max(2 * LARGEST_OCTETS).min(memory / PART_MOST);
        (all, (all / PART_EACH).max(LARGEST_OCTETS).min(all))
    }

    fn bodies(&self) -> MutexGuard<'_, Bodies> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends away the body that has been behind for longest, of those whose memory would help. One at a time: who was sent
    /// away is gone in a moment, and what it held may be enough. Gives when to look again.
    fn make_room(&self, whose: Whose, short: Short, now: Instant) -> Instant {
        let bodies = self.bodies();
        let helps = |body: &&Coming| body.octets > 0 && (short == Short::All || body.whose == whose);
        let may: Vec<&Coming> = bodies.here.values().filter(helps).collect();
        let again = now + LOOK_EVERY;
        if may.iter().any(|body| body.leave.is_cancelled()) {
            return again;
        }
        let settled = may.iter().filter_map(|body| Some((body.due? + SETTLE, body)));
        match settled.min_by_key(|(settled, _)| *settled) {
            Some((settled, body)) if settled <= now => {
                body.leave.cancel();
                again
            }
            Some((settled, _)) => settled.min(again),
            None => again,
        }
    }
}

/// What one body holds, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<HookRoom>,
    number: u64,
    whose: Whose,
    /// See [`Coming::due`].
    due: Instant,
    /// Comes when it has to go.
    leave: CancellationToken,
    permit: Option<Permit>,
}

impl Held {
    fn new(room: &Arc<HookRoom>, address: IpAddr) -> Self {
        let (whose, due, leave) = (Whose::stranger(address), monotonic(), CancellationToken::new());
        let mut bodies = room.bodies();
        let number = bodies.next;
        bodies.next += 1;
        bodies.here.insert(number, Coming { whose, octets: 0, due: Some(due), leave: leave.clone() });
        drop(bodies);
        Held { room: Arc::clone(room), number, whose, due, leave, permit: None }
    }

    /// Takes more; nothing is changed when it is not there.
    fn grow(&mut self, octets: usize) -> Result<(), Short> {
        let (more, (most, each)) = (octets as u64, self.room.limits());
        let mut bodies = self.room.bodies();
        let held = self.permit.as_ref().map_or(0, Permit::octets);
        if held + more > each {
            return Err(Short::ForGood);
        }
        if bodies.held_by(self.whose) + more > each {
            return Err(Short::Own);
        }
        if bodies.held() + more > most {
            return Err(Short::All);
        }
        let grown = match &mut self.permit {
            Some(permit) => permit.grow(octets),
            None => {
                self.permit = self.room.budget.take(octets);
                self.permit.is_some()
            }
        };
        if let Some(body) = bodies.here.get_mut(&self.number).filter(|_| grown) {
            body.octets += more;
        }
        if grown { Ok(()) } else { Err(Short::All) }
    }

    /// Takes the memory of octets that came, which others may have to give up; `false`: there is none in time.
    async fn came(&mut self, octets: usize) -> bool {
        let (room, began) = (Arc::clone(&self.room), monotonic());
        let until = began + WAIT_MAX;
        self.is_due(None);
        loop {
            let freed = room.freed.notified();
            let now = monotonic();
            match self.grow(octets * TIMES_IN_MEMORY) {
                Ok(()) => {
                    let pace = Duration::from_micros(octets as u64 * 1_000_000 / OCTETS_PER_SECOND_MIN);
                    // While it waited here nothing could come.
                    self.due = (self.due + (now - began) + pace).min(now + AHEAD_MAX);
                    self.is_due(Some(self.due));
                    return true;
                }
                Err(Short::ForGood) => return false,
                Err(_) if now >= until => return false,
                Err(short) => {
                    let again = room.make_room(self.whose, short, now).min(until);
                    let _ = timeout_at(again, freed).await;
                }
            }
        }
    }

    fn is_due(&self, due: Option<Instant>) {
        if let Some(body) = self.room.bodies().here.get_mut(&self.number) {
            body.due = due;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.bodies().here.remove(&self.number);
        self.permit = None;
        self.room.freed.notify_waiters();
    }
}

/// The whole body, and the memory for it and what is made of it. Who is slow with it may have to go.
pub(super) async fn read(
    room: &Arc<HookRoom>,
    parts: &Parts,
    mut body: Body,
) -> Result<(Bytes, Held), Problem> {
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|text| text.parse::<u64>().ok()).is_some_and(|told| told > HOOK_OCTETS_MAX as u64) {
        return Err(too_large());
    }
    let peer = parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0);
    let mut held = Held::new(room, peer);
    let end = held.due + BODY_MAX;
    let awaits = parts.extensions.get::<Arc<Visitor>>().map(Awaits::new);
    let mut octets = BytesMut::new();
    loop {
        let frame = tokio::select! {
            biased;
            () = held.leave.cancelled() => return Err(sent_away()),
            frame = body.frame() => frame,
            () = sleep_until(end) => return Err(too_slow()),
        };
        let Some(frame) = frame else { break };
        let bad = |error: axum::Error| Problem::new(StatusCode::BAD_REQUEST, "bad_body", error.to_string());
        let Ok(more) = frame.map_err(bad)?.into_data() else { continue };
        if octets.len() + more.len() > HOOK_OCTETS_MAX {
            return Err(too_large());
        }
        if !held.came(more.len()).await {
            return Err(no_memory());
        }
        octets.extend_from_slice(&more);
        if let Some(awaits) = &awaits {
            awaits.came(octets.len() as u64);
        }
    }
    held.is_due(None);
    Ok((octets.freeze(), held))
}

fn no_memory() -> Problem {
    let message = "too much in flight for the relay's memory; send it again in a minute";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_memory", message)
}

/// Not a 4xx, which Amazon SNS takes for an answer for good.
fn sent_away() -> Problem {
    let message = "the body came too slowly while others needed its memory, nothing was done; send it again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_memory", message)
}

fn too_slow() -> Problem {
    let message = format!("the body took over {} s, nothing was done", BODY_MAX.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "slow_body", message)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use futures_util::stream::unfold;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use tokio::task::JoinHandle;
    use tokio::time::{sleep, timeout};

    use super::*;

    const LARGEST: usize = LARGEST_OCTETS as usize;
    const MB: usize = 1_000_000;
    const SECOND: Duration = Duration::from_secs(1);

    fn address(n: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
    }

    fn held(room: &Arc<HookRoom>, n: u8) -> Held {
        Held::new(room, address(n))
    }

    /// A body that is being read.
    struct Sent {
        octets: UnboundedSender<usize>,
        read: JoinHandle<Result<usize, StatusCode>>,
    }

    impl Sent {
        /// By that address, with its first octets.
        async fn by(room: &Arc<HookRoom>, n: u8, first: usize) -> Self {
            let (octets, coming) = unbounded_channel();
            let next = |mut coming: UnboundedReceiver<usize>| async move {
                let octets = coming.recv().await?;
                Some((Ok::<_, std::io::Error>(Bytes::from(vec![b' '; octets])), coming))
            };
            let body = Body::from_stream(unfold(coming, next));
            let (mut parts, ()) = Request::new(()).into_parts();
            parts.extensions.insert(Peer(address(n)));
            let room = Arc::clone(room);
            let read = tokio::spawn(async move {
                let read = read(&room, &parts, body).await;
                read.map(|(body, _)| body.len()).map_err(|problem| problem.status)
            });
            let sent = Sent { octets, read };
            sent.more(first).await;
            sent
        }

        async fn more(&self, octets: usize) {
            // Who is gone hears nothing of it.
            let _ = self.octets.send(octets);
            sleep(Duration::from_millis(1)).await;
        }

        /// The rest, and what became of all.
        async fn end(self, octets: usize) -> Result<usize, StatusCode> {
            self.more(octets).await;
            drop(self.octets);
            self.read.await.unwrap()
        }

        fn is_gone(&self) -> bool {
            self.read.is_finished()
        }
    }

    /// Those that go on with one octet a second for so long.
    async fn trickle(bodies: &[&Sent], seconds: usize) {
        for _ in 0..seconds {
            sleep(SECOND).await;
            for body in bodies {
                body.more(1).await;
            }
        }
    }

    #[test]
    fn an_address_leaves_room_for_others_and_all_of_them_for_mail() {
        let budget = Budget::new(256_000_000);
        let room = HookRoom::new(Arc::clone(&budget));
        let (mut a, mut again, mut b, mut c) =
            (held(&room, 1), held(&room, 1), held(&room, 2), held(&room, 3));
        assert_eq!((a.grow(LARGEST - 4), again.grow(4)), (Ok(()), Ok(())));
        assert_eq!((again.grow(1), a.grow(1)), (Err(Short::Own), Err(Short::Own)));
        assert_eq!((b.grow(LARGEST), c.grow(1)), (Ok(()), Err(Short::All)));
        assert_eq!(b.grow(1), Err(Short::ForGood));
        assert_eq!(budget.taken_octets(), 64_000_000);
        drop(a);
        assert_eq!((c.grow(LARGEST - 4), c.grow(1)), (Ok(()), Err(Short::All)));
        drop((again, b, c));
        assert_eq!((budget.taken_octets(), room.bodies().here.len()), (0, 0));
    }

    #[test]
    fn each_memory_has_its_limits() {
        for (memory, limits) in [
            (1_000_000, (500_000, 500_000)),
            (64_000_000, (32_000_000, 32_000_000)),
            (256_000_000, (64_000_000, 32_000_000)),
            (1_024_000_000, (128_000_000, 64_000_000)),
        ] {
            assert_eq!(HookRoom::new(Budget::new(memory)).limits(), limits, "{memory}");
        }
    }

    #[test]
    fn what_mail_has_taken_is_not_there() {
        let budget = Budget::new(1_000_000);
        let room = HookRoom::new(Arc::clone(&budget));
        let _mail = budget.take(900_000).unwrap();
        let mut body = held(&room, 1);
        assert_eq!(body.grow(100_001), Err(Short::All));
        assert_eq!((body.grow(100_000), body.grow(1)), (Ok(()), Err(Short::All)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_much_and_then_next_to_nothing_makes_room_within_a_second() {
        let room = HookRoom::new(Budget::new(256_000_000));
        let (first, second, third) = (
            Sent::by(&room, 1, 5 * MB).await,
            Sent::by(&room, 2, 5 * MB).await,
            Sent::by(&room, 3, 5 * MB).await,
        );
        // By the pace of all of it none of them is behind before a minute has gone.
        trickle(&[&first, &second, &third], 5).await;
        let began = monotonic();
        assert_eq!(Sent::by(&room, 4, MB).await.end(3 * MB).await, Ok(4 * MB));
        assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
        assert_eq!([&first, &second, &third].map(Sent::is_gone), [true, false, false]);
        assert_eq!(first.end(0).await, Err(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(second.end(1).await, Ok(5 * MB + 6), "nobody needed its memory");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_stopped_makes_room_within_a_second_too() {
        let room = HookRoom::new(Budget::new(256_000_000));
        let full = [Sent::by(&room, 1, 8 * MB).await, Sent::by(&room, 2, 8 * MB).await];
        let began = monotonic();
        assert_eq!(Sent::by(&room, 3, 8 * MB).await.end(0).await, Ok(8 * MB));
        assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
        assert_eq!(full.each_ref().map(Sent::is_gone), [true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_pace_keeps_its_memory_whatever_its_size() {
        let room = HookRoom::new(Budget::new(256_000_000));
        let steady = [Sent::by(&room, 1, 5 * MB).await, Sent::by(&room, 2, 5 * MB).await];
        let slow = Sent::by(&room, 3, 5 * MB).await;
        let began = monotonic();
        for n in 0..40 {
            for body in &steady {
                body.more(OCTETS_PER_SECOND_MIN as usize / 4).await;
            }
            sleep(Duration::from_millis(240)).await;
            if n == 20 {
                let more = Sent::by(&room, 4, 3 * MB).await;
                assert_eq!(timeout(SECOND, more.end(0)).await.unwrap(), Ok(3 * MB));
                assert!(slow.is_gone(), "it was the only one behind");
            }
        }
        assert!(began.elapsed() > 9 * SECOND && !steady.iter().any(Sent::is_gone));
        for body in steady {
            assert_eq!(body.end(MB).await.map_err(|status| status.as_u16()), Ok(6 * MB + 640_000));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_is_behind_a_body_waits_for_a_while_and_is_told_to_come_again() {
        let room = HookRoom::new(Budget::new(256_000_000));
        let mut working = [held(&room, 1), held(&room, 2)];
        for body in &mut working {
            assert!(body.came(8 * MB).await);
            body.is_due(None);
        }
        let began = monotonic();
        let late = Sent::by(&room, 3, 1).await;
        assert_eq!(late.end(0).await, Err(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(began.elapsed().as_secs(), WAIT_MAX.as_secs());
        let waits = Sent::by(&room, 3, 1).await;
        sleep(SECOND).await;
        drop(working);
        assert_eq!(timeout(LOOK_EVERY, waits.end(0)).await.unwrap(), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_has_its_part_makes_room_for_itself() {
        let room = HookRoom::new(Budget::new(256_000_000));
        let (other, own) = (Sent::by(&room, 1, MB).await, Sent::by(&room, 2, 7 * MB).await);
        sleep(SECOND).await;
        assert_eq!(Sent::by(&room, 2, 2 * MB).await.end(0).await, Ok(2 * MB));
        assert!(own.is_gone() && !other.is_gone());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_a_minute() {
        let room = HookRoom::new(Budget::new(256_000_000));
        let slow = Sent::by(&room, 1, 7 * MB).await;
        trickle(&[&slow], BODY_MAX.as_secs() as usize - 1).await;
        assert!(!slow.is_gone(), "nobody needs its memory");
        sleep(SECOND).await;
        assert_eq!(slow.end(0).await, Err(StatusCode::REQUEST_TIMEOUT));
        assert_eq!(room.budget.taken_octets(), 0);
    }
}
