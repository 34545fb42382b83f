//! The body of one request, and the one moment that counts: when its last octets are given to the connection.
//!
//! It is either handed over or withdrawn, never both: whoever comes first decides. What was withdrawn is never whole
//! on the line, so the other side cannot have taken it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::mail::Watch;

/// What the connection is given at a time.
const PIECE_OCTETS: usize = 64 * 1024;

const OPEN: u8 = 0;
const HANDED_OVER: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Which of the two it was.
#[derive(Clone, Debug, Default)]
pub struct HandOver(Arc<State>);

#[derive(Debug, Default)]
struct State {
    decided: AtomicU8,
    begun: AtomicBool,
}

impl HandOver {
    /// Whether the last octets will never be written; `false`: they may have been.
    pub fn withdraw(&self) -> bool {
        self.decide(WITHDRAWN)
    }

    /// Whether the last octets may have been written.
    pub fn done(&self) -> bool {
        self.0.decided.load(Ordering::Acquire) == HANDED_OVER
    }

    /// Whether a connection has asked for octets.
    pub fn begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed)
    }

    fn decide(&self, what: u8) -> bool {
        match self.0.decided.compare_exchange(OPEN, what, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(decided) => decided == what,
        }
    }
}

/// A body that tells its [`Watch`] and its [`HandOver`] how far it is.
#[derive(Debug)]
pub struct Watched {
    rest: Bytes,
    watch: Watch,
    hand_over: HandOver,
}

impl Watched {
    /// These octets.
    pub fn new(octets: Bytes, watch: Watch, hand_over: HandOver) -> Self {
        Watched { rest: octets, watch, hand_over }
    }
}

/// It was withdrawn.
#[derive(Debug, thiserror::Error)]
#[error("given up by the relay")]
pub struct GivenUp;

impl Body for Watched {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        self.hand_over.0.begun.store(true, Ordering::Relaxed);
        let last = self.rest.len() <= PIECE_OCTETS;
        if last {
            if !self.hand_over.decide(HANDED_OVER) {
                return Poll::Ready(Some(Err(GivenUp)));
            }
            self.watch.hand_over();
        } else {
            if self.hand_over.0.decided.load(Ordering::Acquire) == WITHDRAWN {
                return Poll::Ready(Some(Err(GivenUp)));
            }
            self.watch.moved();
        }
        let octets = self.rest.len().min(PIECE_OCTETS);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(octets)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Abort;

    fn pieces(
        octets: usize,
        withdrawn_after: Option<usize>,
    ) -> (Vec<Result<usize, String>>, HandOver, Watch) {
        let (watch, hand_over) = (Watch::new(Abort::default()), HandOver::default());
        let mut body = Watched::new(vec![b'x'; octets].into(), watch.clone(), hand_over.clone());
        let mut found = Vec::new();
        let waker = std::task::Waker::noop();
        loop {
            if withdrawn_after == Some(found.len()) {
                assert!(hand_over.withdraw());
            }
            match Pin::new(&mut body).poll_frame(&mut Context::from_waker(waker)) {
                Poll::Ready(Some(Ok(frame))) => found.push(Ok(frame.into_data().unwrap().len())),
                Poll::Ready(Some(Err(error))) => {
                    found.push(Err(error.to_string()));
                    break;
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        (found, hand_over, watch)
    }

    #[test]
    fn it_is_handed_over_with_its_last_piece() {
        for octets in [1, PIECE_OCTETS, PIECE_OCTETS + 1, 3 * PIECE_OCTETS] {
            let (found, hand_over, watch) = pieces(octets, None);
            assert_eq!(found.into_iter().map(Result::unwrap).sum::<usize>(), octets);
            assert!(hand_over.done() && !hand_over.withdraw() && watch.handed_over_for().is_some());
        }
    }

    #[test]
    fn what_is_withdrawn_before_is_never_whole() {
        for after in 0..3 {
            let (found, hand_over, watch) = pieces(3 * PIECE_OCTETS, Some(after));
            let written: usize = found.iter().flatten().sum();
            assert_eq!((written, found.len()), (after * PIECE_OCTETS, after + 1));
            assert!(!hand_over.done() && hand_over.withdraw() && watch.handed_over_for().is_none());
        }
    }
}
