//! How bytes leave. Knows no ESP's meaning: it gets a request and brings back what was said.

use std::fmt::Debug;

use futures_util::future::BoxFuture;

use crate::mail::{Abort, Reply, Request};

/// One way out. An exchange always ends with a [`Reply`]: a lost line is an answer. It is never ended by dropping its
/// future, only by asking its [`Abort`].
pub trait Wire: Send + Sync + Debug {
    /// Sends and listens.
    fn exchange<'a>(&'a self, request: Request, abort: &'a Abort) -> BoxFuture<'a, Reply>;
}
