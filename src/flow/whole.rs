//! The whole content of a message, for an ESP whose API is not given it in pieces.
//!
//! Composing takes memory: the content, its parts decoded, and the JSON with its base64, four times the size in all.
//! What lies on disk is read only under a share of `[limits] memory`, at most a half of it for one message: so much that
//! what a listener takes by default fits the default.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::call::Call;
use super::courier::Courier;
use crate::clock::monotonic;
use crate::esp::Content;
use crate::mail::{Body, Budget, Permit};

/// How many times its size a message takes while it is composed.
const TIMES: u64 = 4;
/// One message takes at most this part of the memory for all.
const PART: u64 = 2;
/// How long a call waits for memory before its mail waits in the queue instead.
const MEMORY_WAIT: Duration = Duration::from_secs(10);
const MEMORY_LOOK: Duration = Duration::from_millis(50);

/// What there is of it.
#[derive(Debug)]
pub(super) enum Whole {
    /// Nobody asked for it, or it is too large ever to be composed in memory.
    None,
    /// All of it.
    All {
        /// From the first octet to the last.
        octets: Bytes,
        /// Held while it is composed from and on its way.
        _share: Option<Permit>,
    },
    /// There is no memory now, or it cannot be read now.
    NotNow,
}

impl Whole {
    pub(super) fn octets(&self) -> Option<&Bytes> {
        match self {
            Whole::All { octets, .. } => Some(octets),
            Whole::None | Whole::NotNow => None,
        }
    }
}

/// Larger messages are never given to an API that wants them whole, where `[limits] memory` has so many octets.
pub fn largest_octets(memory_octets: u64) -> u64 {
    memory_octets / PART / TIMES
}

fn needed(body: &Body) -> u64 {
    body.size_octets().saturating_mul(TIMES)
}

/// Whether it never gets the memory to be composed from; what is whole in memory does.
fn is_too_large(body: &Body, budget: &Budget) -> bool {
    body.rest.is_some() && body.size_octets() > largest_octets(budget.limit_octets())
}

/// What there is of a message to judge by, before it is accepted.
pub(super) fn at_hand<'a>(body: &'a Body, budget: &Budget) -> Content<'a> {
    match body.rest {
        None => Content::Whole(&body.head),
        Some(_) if is_too_large(body, budget) => Content::TooLarge,
        Some(_) => Content::Beginning,
    }
}

impl Courier {
    /// The content of the call's message where its ESP composes from all of it.
    pub(super) async fn whole(&self, call: &Call) -> Whole {
        let body = &call.message.body;
        if !call.line.esp.wants_whole(&call.message) {
            return Whole::None;
        }
        let Some(rest) = body.rest else {
            // As many as there are connections, each within SPILL_OCTETS: without a share if there is none.
            let octets = body.head.len() * usize::try_from(TIMES).unwrap_or(1);
            return Whole::All { octets: body.head.clone(), _share: self.budget.take(octets) };
        };
        if is_too_large(body, &self.budget) {
            return Whole::None;
        }
        let Ok(octets) = usize::try_from(needed(body)) else { return Whole::None };
        let Some(permit) = self.memory(octets).await else { return Whole::NotNow };
        let mut whole = Vec::with_capacity(octets / usize::try_from(TIMES).unwrap_or(1));
        whole.extend_from_slice(&body.head);
        for n in 0..rest.chunks {
            match self.store.chunk(rest.message, n).await {
                Ok(chunk) => whole.extend_from_slice(&chunk),
                Err(_) => return Whole::NotNow,
            }
        }
        Whole::All { octets: whole.into(), _share: Some(permit) }
    }

    async fn memory(&self, octets: usize) -> Option<Permit> {
        let began = monotonic();
        loop {
            if let Some(permit) = self.budget.take(octets) {
                return Some(permit);
            }
            if monotonic().duration_since(began) > MEMORY_WAIT || self.abort.asked() {
                return None;
            }
            sleep(MEMORY_LOOK).await;
        }
    }
}
