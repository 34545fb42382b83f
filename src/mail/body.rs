//! A message's content and the memory it may take.
//!
//! Up to [`SPILL_OCTETS`] of a message stay in memory; the rest lies in the store's chunks, written as it arrived.
//! Every octet held in memory for a message is covered by a [`Permit`] from the one [`Budget`] of the relay, for both
//! sides: what comes in and what goes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::id::MessageId;

/// Content past this size goes to disk as it arrives. The header block is always within it
/// ([`HEADER_OCTETS_MAX`]), so headers can be edited without reading the rest back.
pub const SPILL_OCTETS: usize = 256 * 1024;
/// One chunk in the store.
pub const CHUNK_OCTETS: usize = 256 * 1024;
/// The header block of a message (STANDARDS §1.6).
pub const HEADER_OCTETS_MAX: usize = 256 * 1024;

/// What the DATA decoder saw of the content while it went by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BodyFacts {
    /// Octets, line ends included.
    pub size_octets: u64,
    /// The longest line, without its CRLF.
    pub longest_line_octets: u64,
    /// Octets above 127 occur.
    pub eight_bit: bool,
}

impl BodyFacts {
    /// The facts of content that is whole in memory.
    pub fn of(octets: &[u8]) -> Self {
        BodyFacts {
            size_octets: octets.len() as u64,
            longest_line_octets: longest_line(octets) as u64,
            eight_bit: !octets.is_ascii(),
        }
    }
}

/// The longest line in octets, without its CRLF.
fn longest_line(octets: &[u8]) -> usize {
    let (mut longest, mut at) = (0, 0);
    while let Some(i) = memchr::memchr(b'\n', &octets[at..]) {
        let line = &octets[at..at + i];
        longest = longest.max(line.strip_suffix(b"\r").unwrap_or(line).len());
        at += i + 1;
    }
    longest.max(octets.len() - at)
}

/// A message's content.
#[derive(Clone, Debug)]
pub struct Body {
    /// All of it, or its first part with the whole header block.
    pub head: Bytes,
    /// What follows `head`, when it was too large for memory.
    pub rest: Option<Spilled>,
    /// What is known of the whole.
    pub facts: BodyFacts,
    /// Covers `head`; gone with its last clone.
    pub permit: Option<Arc<Permit>>,
}

/// The part of a body that lies in the store's chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spilled {
    /// The message that the chunks belong to.
    pub message: MessageId,
    /// How many chunks, numbered from 0.
    pub chunks: u32,
    /// Their octets together.
    pub octets: u64,
}

impl Body {
    /// Content that is whole in memory and outside any budget: composed by the relay itself, or a test's.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let head: Bytes = bytes.into();
        let facts = BodyFacts::of(&head);
        Body { head, rest: None, facts, permit: None }
    }

    /// Octets in memory and on disk.
    pub fn size_octets(&self) -> u64 {
        self.head.len() as u64 + self.rest.map_or(0, |r| r.octets)
    }
}

/// The relay's memory for messages in flight, shared by both sides.
#[derive(Debug)]
pub struct Budget {
    limit_octets: AtomicU64,
    taken_octets: AtomicU64,
}

impl Budget {
    /// A budget of so many octets.
    pub fn new(limit_octets: u64) -> Arc<Self> {
        Arc::new(Budget { limit_octets: AtomicU64::new(limit_octets), taken_octets: AtomicU64::new(0) })
    }

    /// Takes so much, or `None` when it is not there: then the client is told 452.
    pub fn take(self: &Arc<Self>, octets: usize) -> Option<Permit> {
        let mut permit = Permit { budget: Arc::clone(self), octets: 0 };
        permit.grow(octets).then_some(permit)
    }

    /// What is taken now.
    pub fn taken_octets(&self) -> u64 {
        self.taken_octets.load(Ordering::Relaxed)
    }

    /// The limit.
    pub fn limit_octets(&self) -> u64 {
        self.limit_octets.load(Ordering::Relaxed)
    }

    /// So many octets from now on. What is taken stays so, also where it is more.
    pub fn change(&self, limit_octets: u64) {
        self.limit_octets.store(limit_octets, Ordering::Relaxed);
    }

    fn try_add(&self, octets: u64) -> bool {
        let limit = self.limit_octets();
        let fits = |taken: u64| taken.checked_add(octets).filter(|t| *t <= limit);
        self.taken_octets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// A share of the [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    octets: u64,
}

impl Permit {
    /// Takes more; `false` and nothing changed when it is not there.
    #[must_use]
    pub fn grow(&mut self, octets: usize) -> bool {
        let more = octets as u64;
        let taken = self.budget.try_add(more);
        if taken {
            self.octets += more;
        }
        taken
    }

    /// What it covers.
    pub fn octets(&self) -> u64 {
        self.octets
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.taken_octets.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_measured_without_its_end() {
        let facts = BodyFacts::of(b"ab\r\nabc\r\n\xe9");
        assert_eq!(facts, BodyFacts { size_octets: 10, longest_line_octets: 3, eight_bit: true });
    }

    #[test]
    fn a_budget_is_never_exceeded_and_comes_back() {
        let budget = Budget::new(100);
        let mut a = budget.take(60).unwrap();
        assert!(budget.take(41).is_none());
        assert!(a.grow(40));
        assert!(!a.grow(1));
        assert_eq!(budget.taken_octets(), 100);
        drop(a);
        assert_eq!(budget.taken_octets(), 0);
    }
}
