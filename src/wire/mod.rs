//! How bytes leave. Knows no ESP's meaning: it gets a request and brings back what was said.

pub mod certificates;
pub mod http;
pub mod knock;
pub mod notify;
pub mod sandbox;
pub mod ses;
pub mod smtp;
pub mod trust;
pub mod ways;

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::mail::{Errand, HttpReply, MessageId, Reply, Request, Watch};

pub use certificates::{Certificates, NoKey};
pub use http::HttpWire;
pub use sandbox::SandboxWire;
pub use ses::SesWire;
pub use smtp::SmtpWire;
pub use ways::Ways;

/// One way out. An exchange always ends with a [`Reply`]: a lost line is an answer. It is never ended by dropping its
/// future, only by asking its [`Watch`], which it tells of all that moves.
pub trait Wire: Send + Sync + Debug {
    /// Sends and listens.
    fn exchange<'a>(&'a self, request: Request, watch: &'a Watch) -> BoxFuture<'a, Reply>;

    /// An answer to that request which has not come for so long after the hand-over is late: its message is held from then
    /// on. The exchange goes on for as long as its [`Watch`] listens, or for this long where that is longer. One whose
    /// answer has begun to come just then has a moment more.
    fn answers_within(&self, request: &Request) -> Duration;

    /// Goes as far as one can without mail: connects, is greeted, logs in, takes leave. Bounded in time.
    fn check(&self) -> BoxFuture<'_, Checked>;

    /// As [`Wire::check`], over every way that leads there, and as patient as a call: for people who ask. The gate asks for
    /// the first alone.
    fn check_all(&self) -> BoxFuture<'_, Checked> {
        self.check()
    }

    /// What the ESP says of the account, where it says anything. Bounded in time.
    fn account(&self) -> BoxFuture<'_, Result<HttpReply, String>> {
        Box::pin(std::future::ready(Err("this way out tells nothing of an account".to_owned())))
    }

    /// Runs an errand that carries no mail, and brings back the answer, whatever its status. Bounded in time.
    fn errand(&self, _errand: Errand) -> BoxFuture<'_, Result<HttpReply, String>> {
        Box::pin(std::future::ready(Err("this way out carries mail alone".to_owned())))
    }

    /// Connections that stand there as the other side counts them, those that are being opened too. Nought where one that
    /// stands says nothing of the next.
    fn standing(&self) -> usize {
        0
    }

    /// The other side has said that one connection is too many: one that is idle goes, bounded in time.
    fn let_one_go(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// Says goodbye on idle connections, bounded in time; what is in use ends by itself.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// The gate's check that takes longer has failed: a healthy ESP is long done.
const CHECK: Duration = Duration::from_secs(10);
/// Somebody who asks waits no longer, whatever the ESP's `timeout` is.
const CHECK_FOR_PEOPLE: Duration = Duration::from_secs(25);

/// How far a [`Wire::check`] came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What it did, in order; the last one failed where `met` is an error. None: there is nowhere to go.
    pub steps: Vec<Step>,
    /// What it met where it did not come to the end.
    pub met: Result<(), String>,
    /// One of two ways came to its end all the same.
    pub in_part: bool,
}

/// One step of a [`Wire::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// By SMTP `resolve`, `connect`, `tls`, `banner`, `ehlo`, `starttls`, `token` or `auth`, by HTTP `connect`, `answer` or
    /// `key`.
    pub name: &'static str,
    /// It was done.
    pub ok: bool,
    /// What came of it, without secrets.
    pub told: String,
    /// How long it took.
    pub took: Duration,
}

/// Where the part of a body lies that was too large for memory: the store, seen from here.
pub trait Chunks: Send + Sync + Debug {
    /// Chunk `n` of the message, counted from 0, at most [`crate::mail::body::CHUNK_OCTETS`]; or why it cannot be had.
    fn chunk(&self, message: MessageId, n: u32) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// For messages that are whole in memory, and where none is sent.
#[derive(Debug, Clone, Copy)]
pub struct NoChunks;

impl Chunks for NoChunks {
    fn chunk(&self, _: MessageId, _: u32) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(std::future::ready(Err("no part of it lies on disk".to_owned())))
    }
}
