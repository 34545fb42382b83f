//! The body of a webhook's POST, which anybody may send, proven or not. Its memory is taken as its octets come; all such
//! bodies together have a part of the relay's memory and an address a part of that, so that they keep no mail out and
//! nobody keeps out the others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::error::Problem;
use super::hooks::{HOOK_OCTETS_MAX, too_large};
use super::rate::Whose;
use super::send::Peer;
use super::visitors::{Awaits, Visitor};
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

/// What all webhooks' bodies hold, on every port.
#[derive(Debug)]
pub struct HookRoom {
    budget: Arc<Budget>,
    held: Mutex<HashMap<Whose, u64>>,
}

impl HookRoom {
    /// With nothing in it.
    pub fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(HookRoom { budget, held: Mutex::default() })
    }

    /// What all may hold, and what an address may.
    fn limits(&self) -> (u64, u64) {
        let memory = self.budget.limit_octets();
        let all = (memory / PART).max(2 * LARGEST_OCTETS).min(memory / PART_MOST);
        (all, (all / PART_EACH).max(LARGEST_OCTETS).min(all))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Whose, u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one body holds, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<HookRoom>,
    whose: Whose,
    permit: Option<Permit>,
}

impl Held {
    fn new(room: &Arc<HookRoom>, address: IpAddr) -> Self {
        Held { room: Arc::clone(room), whose: Whose::stranger(address), permit: None }
    }

    /// Takes more; `false` and nothing changed when it is not there.
    fn grow(&mut self, octets: usize) -> bool {
        let (more, (most, each)) = (octets as u64, self.room.limits());
        let mut held = self.room.held();
        let own = held.get(&self.whose).copied().unwrap_or(0);
        if own + more > each || held.values().sum::<u64>() + more > most {
            return false;
        }
        let grown = match &mut self.permit {
            Some(permit) => permit.grow(octets),
            None => {
                self.permit = self.room.budget.take(octets);
                self.permit.is_some()
            }
        };
        if grown {
            held.insert(self.whose, own + more);
        }
        grown
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut held = self.room.held();
        match held.get(&self.whose).map_or(0, |own| own.saturating_sub(permit.octets())) {
            0 => held.remove(&self.whose),
            left => held.insert(self.whose, left),
        };
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
    let awaits = parts.extensions.get::<Arc<Visitor>>().map(Awaits::new);
    let mut octets = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let bad = |error: axum::Error| Problem::new(StatusCode::BAD_REQUEST, "bad_body", error.to_string());
        let Ok(more) = frame.map_err(bad)?.into_data() else { continue };
        if octets.len() + more.len() > HOOK_OCTETS_MAX {
            return Err(too_large());
        }
        if !held.grow(more.len() * TIMES_IN_MEMORY) {
            return Err(no_memory());
        }
        octets.extend_from_slice(&more);
        if let Some(awaits) = &awaits {
            awaits.came(octets.len() as u64);
        }
    }
    Ok((octets.freeze(), held))
}

fn no_memory() -> Problem {
    let message = "too much in flight for the relay's memory; send it again in a minute";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_memory", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: usize = LARGEST_OCTETS as usize;

    fn held(room: &Arc<HookRoom>, n: u8) -> Held {
        Held::new(room, IpAddr::V4(Ipv4Addr::new(192, 0, 2, n)))
    }

    #[test]
    fn an_address_leaves_room_for_others_and_all_of_them_for_mail() {
        let budget = Budget::new(256_000_000);
        let room = HookRoom::new(Arc::clone(&budget));
        let (mut a, mut again, mut b, mut c) =
            (held(&room, 1), held(&room, 1), held(&room, 2), held(&room, 3));
        assert!(a.grow(LARGEST - 4) && again.grow(4) && !again.grow(1) && !a.grow(1));
        assert!(b.grow(LARGEST) && !c.grow(1));
        assert_eq!(budget.taken_octets(), 64_000_000);
        drop(a);
        assert!(c.grow(LARGEST - 4) && !c.grow(1));
        drop((again, b, c));
        assert_eq!((budget.taken_octets(), room.held().len()), (0, 0));
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
        assert!(!body.grow(100_001) && body.grow(100_000) && !body.grow(1));
    }
}
