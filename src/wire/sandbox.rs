//! The way that leads nowhere: the sandbox keeps the mail, and keeping is all that happens.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Checked, Wire};
use crate::mail::{Phase, Reply, Request, Watch};

/// Answers [`Request::Keep`] with [`Reply::Kept`].
#[derive(Debug, Clone, Copy, Default)]
pub struct SandboxWire;

impl Wire for SandboxWire {
    fn exchange<'a>(&'a self, request: Request, _watch: &'a Watch) -> BoxFuture<'a, Reply> {
        let reply = match request {
            Request::Keep => Reply::Kept,
            Request::Smtp(_) | Request::Http(_) | Request::Ses(_) => Reply::Lost {
                phase: Phase::Connect,
                handed_over: false,
                recipients: Vec::new(),
                said: "the sandbox has no line".into(),
            },
        };
        Box::pin(std::future::ready(reply))
    }

    fn answers_within(&self, _: &Request) -> Duration {
        Duration::ZERO
    }

    fn check(&self) -> BoxFuture<'_, Checked> {
        Box::pin(std::future::ready(Checked { steps: Vec::new(), met: Ok(()), in_part: false }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Abort;

    #[tokio::test]
    async fn what_is_to_be_kept_is_kept() {
        assert_eq!(SandboxWire.exchange(Request::Keep, &Watch::new(Abort::default())).await, Reply::Kept);
    }
}
