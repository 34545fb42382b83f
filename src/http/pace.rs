//! How long a request may take: its body as long as octets come at a bearable pace; then the work on it; and what was
//! given to the store as long as the store takes, since only its outcome tells what became of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::error::Problem;
use crate::clock::monotonic;

/// From the last octet of the request to the answer's head.
const WORK_MAX: Duration = Duration::from_secs(30);
/// Without an octet of the body.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// What a body may take whatever its size.
const BODY_MIN: Duration = Duration::from_secs(30);
/// Beyond that it comes at this pace at least: half a megabit a second, 25 MB in seven minutes.
pub(super) const OCTETS_PER_SECOND_MIN: u64 = 64_000;

/// Where a request stands.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// More of its body has to come.
    Body { began: Instant, last: Instant, octets: u64 },
    /// It is being worked on.
    Work { since: Instant },
    /// What it asks for is in the store's hands.
    Given,
}

impl Stage {
    fn ends(self) -> Option<(Instant, Late)> {
        match self {
            Stage::Body { began, last, octets } => {
                let paced = BODY_MIN + Duration::from_secs(octets / OCTETS_PER_SECOND_MIN);
                Some(((began + paced).min(last + SILENCE_MAX), Late::Body))
            }
            Stage::Work { since } => Some((since + WORK_MAX, Late::Work)),
            Stage::Given => None,
        }
    }
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The client, with the body.
    Body,
    /// The relay.
    Work,
}

impl Late {
    /// How it is told. `certain`: the route does nothing before it has called [`Pace::given`].
    pub(super) fn problem(self, certain: bool) -> Problem {
        match self {
            Late::Body => {
                let message = "the body of the request came too slowly, nothing was done: it may pause for 30 s, and after \
                     the first 30 s it has to come at 64 KB a second";
                Problem::new(StatusCode::REQUEST_TIMEOUT, "slow_body", message)
            }
            Late::Work => {
                let done = match certain {
                    true => "nothing was taken, try again",
                    false => "what was asked for may yet be done, so look before asking again",
                };
                let message = format!("no answer within 30 s, the relay is busy or its disk is; {done}");
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message)
            }
        }
    }
}

/// The time of one request.
#[derive(Debug)]
pub(super) struct Pace(watch::Sender<Stage>);

impl Pace {
    /// Of one whose head has just come.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Pace(watch::Sender::new(Stage::Work { since: monotonic() })))
    }

    /// From here on the outcome is waited for: it is called before the store can have anything of it.
    pub(super) fn given(&self) {
        self.0.send_replace(Stage::Given);
    }

    /// Comes when it has taken too long.
    pub(super) async fn over(&self) -> Late {
        let mut moves = self.0.subscribe();
        loop {
            let stage = *moves.borrow_and_update();
            let Some((end, late)) = stage.ends() else { return std::future::pending().await };
            tokio::select! {
                biased;
                _ = moves.changed() => {}
                () = sleep_until(end) => return late,
            }
        }
    }

    fn waits(&self) {
        self.0.send_if_modified(|stage| match *stage {
            Stage::Work { .. } => {
                let now = monotonic();
                *stage = Stage::Body { began: now, last: now, octets: 0 };
                true
            }
            Stage::Body { .. } | Stage::Given => false,
        });
    }

    fn came(&self, more: u64) {
        self.0.send_if_modified(|stage| match stage {
            Stage::Body { last, octets, .. } => {
                (*last, *octets) = (monotonic(), *octets + more);
                true
            }
            Stage::Work { .. } | Stage::Given => false,
        });
    }

    fn ended(&self) {
        self.0.send_if_modified(|stage| match stage {
            Stage::Body { .. } => {
                *stage = Stage::Work { since: monotonic() };
                true
            }
            Stage::Work { .. } | Stage::Given => false,
        });
    }
}

/// A request's body that tells how it comes.
pub(super) struct Paced {
    inner: Body,
    pace: Arc<Pace>,
}

impl Paced {
    /// That body, at that pace.
    pub(super) fn body(inner: Body, pace: Arc<Pace>) -> Body {
        Body::new(Paced { inner, pace })
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Pending => self.pace.waits(),
            Poll::Ready(Some(Ok(frame))) => {
                self.pace.came(frame.data_ref().map_or(0, |octets| octets.len() as u64));
            }
            Poll::Ready(Some(Err(_)) | None) => self.pace.ended(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{sleep, timeout};

    async fn late(pace: &Pace, within_secs: u64) -> Option<(Late, u64)> {
        let began = monotonic();
        let late = timeout(Duration::from_secs(within_secs), pace.over()).await.ok()?;
        Some((late, began.elapsed().as_secs()))
    }

    #[tokio::test(start_paused = true)]
    async fn work_has_its_time_and_what_was_given_has_all() {
        assert_eq!(late(&Pace::new(), 100).await, Some((Late::Work, 30)));
        let pace = Pace::new();
        pace.given();
        assert_eq!(late(&pace, 100_000).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_time_by_its_size_and_none_for_silence() {
        let feed = |octets: u64, every: u64| {
            let pace = Pace::new();
            pace.waits();
            let fed = Arc::clone(&pace);
            tokio::spawn(async move {
                for _ in 0..200 {
                    sleep(Duration::from_secs(every)).await;
                    fed.came(octets);
                }
                fed.ended();
            });
            pace
        };
        // 25 MB at a megabit a second, and then the work.
        assert_eq!(late(&feed(125_000, 1), 1000).await, Some((Late::Work, 230)));
        assert_eq!(late(&feed(1, 1), 1000).await, Some((Late::Body, 30)));
        assert_eq!(late(&feed(32_000, 1), 1000).await.map(|(late, _)| late), Some(Late::Body));
        assert_eq!(late(&feed(100_000_000, 31), 1000).await, Some((Late::Body, 30)));
    }
}
