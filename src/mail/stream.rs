//! Streams: a kind of mail with its own rules (Postmark's term).

use std::fmt;
use std::sync::Arc;

/// The name of a stream, as configuration and logs have it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// The default stream of its kind.
    pub const TRANSACTIONAL: &'static str = "transactional";
    /// The default stream of its kind.
    pub const BROADCAST: &'static str = "broadcast";

    /// The stream of that name.
    pub fn new(name: &str) -> Self {
        StreamName(name.into())
    }

    /// The default stream of that kind.
    pub fn default_of(kind: StreamKind) -> Self {
        StreamName::new(kind.word())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the stream is for; it decides about unsubscribes, holds and who goes first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StreamKind {
    /// One person asked for it: receipts, password resets.
    Transactional,
    /// Many get it: newsletters, campaigns.
    Broadcast,
}

impl StreamKind {
    /// Its word in configuration and JSON.
    pub fn word(self) -> &'static str {
        match self {
            StreamKind::Transactional => StreamName::TRANSACTIONAL,
            StreamKind::Broadcast => StreamName::BROADCAST,
        }
    }
}
