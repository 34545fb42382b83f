//! `GET /v1/events` with `Accept: text/event-stream`: each event once it is committed, as server-sent events. The `id` of
//! each is its [`Place`]; who comes back with `Last-Event-ID` misses none that is still kept. A stream begins with the place
//! where it begins, so that also one that breaks before its first event can be gone on with. Where what a listener has heard of
//! is not here, since a backup was restored, a `notice` says so first.
//!
//! A listener looks into the database when a commit has written events, a moment later so that one look takes what comes
//! together, and at once where more was there than one look takes. So many listen at a time; who reads too slowly is let go when its connection's time is over, and may come back where it was.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::body::Pairs;
use super::error::{FieldProblem, Problem};
use super::events::{Happened, read_page};
use super::{App, Queue};
use crate::store::{Lost, Place, Resumed, Timeline, Told};

/// Who listens at a time.
const FOLLOWERS_MAX: usize = 32;
/// After the first event: what comes so soon after it is told with it.
const TOGETHER: Duration = Duration::from_millis(100);
/// How often a listener looks though nothing wakes it.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Events of one look.
const LOOK_EVENTS_MAX: usize = 200;
/// A comment goes over a line on which nothing happens, so that both sides see that it stands.
const HEARTBEAT: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: &str = "last-event-id";
/// What is no event of the log, but is about the stream itself.
pub const NOTICE: &str = "notice";

/// The data of a `notice`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// In words.
    pub notice: String,
}

/// The places for listeners.
pub(super) struct Followers(Arc<Semaphore>);

impl Default for Followers {
    fn default() -> Self {
        Followers(Arc::new(Semaphore::new(FOLLOWERS_MAX)))
    }
}

/// Where one listener is.
struct Following {
    queue: Arc<dyn Queue>,
    unmatched: bool,
    timeline: Timeline,
    /// The number of the last that was told.
    after: i64,
    /// Found and not told yet, the next one last.
    found: Vec<Told>,
    /// All that there was has been found.
    caught_up: bool,
    /// Changes where there may be more.
    news: watch::Receiver<()>,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// Whether the events are wanted as they happen.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds = accepts.flat_map(|value| value.split(','));
    let mut kinds = kinds.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    kinds.any(|kind| kind.eq_ignore_ascii_case("text/event-stream"))
}

/// The events behind the one that the listener had last, or from now on.
pub(super) async fn follow(app: &Arc<App>, headers: &HeaderMap, pairs: Pairs) -> Result<Response, Problem> {
    let unmatched = read(pairs)?;
    let after = last(headers)?;
    let place = Arc::clone(&app.followers.0).try_acquire_owned().map_err(|_| {
        let message = format!("{FOLLOWERS_MAX} listen already; read pages, or come again");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_followers", message)
    })?;
    let queue = Arc::clone(&app.relay.queue);
    // Before the first look: what is committed from now on wakes it.
    let news = queue.event_news();
    let timeline = queue.timeline().await?;
    let begins = match after {
        Some(was) => timeline.resume(was),
        None => Resumed { at: timeline.now(), lost: None },
    };
    let following = Following {
        queue,
        unmatched,
        timeline,
        after: begins.at.number,
        found: Vec::new(),
        caught_up: false,
        news,
        stop: app.stop.clone(),
        _place: place,
    };
    let all = stream::iter([Ok(beginning(begins))]).chain(told(following));
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

/// Where the stream begins; an id without data is no event to a listener, which keeps it for when it comes back.
fn beginning(Resumed { at, lost }: Resumed) -> Event {
    let notice = match lost {
        None => return Event::default().id(at.to_string()),
        Some(Lost::Restored) => {
            format!("a backup was restored: what follows has happened since, behind event {} of the backup", at.number)
        }
        Some(Lost::Unknown) => {
            "Last-Event-ID is of another database, or what it names is kept no more: all events that are kept follow"
                .to_owned()
        }
    };
    let data = serde_json::to_string(&Notice { notice }).unwrap_or_default();
    Event::default().id(at.to_string()).event(NOTICE).data(data)
}

/// Ends when the relay stops, and where the database fails.
fn told(following: Following) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(following, |mut following| async move {
        loop {
            if let Some(told) = following.found.pop() {
                following.after = told.number;
                let place = following.timeline.place(told.number);
                return Some((Ok(event(place, told)), following));
            }
            if following.caught_up {
                tokio::select! {
                    () = following.stop.cancelled() => return None,
                    () = gathered(&mut following.news) => {}
                    () = sleep(LOOK_EVERY) => {}
                }
            }
            let (unmatched, after) = (following.unmatched, following.after);
            following.found = following.queue.events_after(unmatched, after, LOOK_EVENTS_MAX).await.ok()?;
            following.found.reverse();
            following.caught_up = following.found.len() < LOOK_EVENTS_MAX;
        }
    })
}

/// Once something came, and what came soon after it.
async fn gathered(news: &mut watch::Receiver<()>) {
    match news.changed().await {
        Ok(()) => sleep(TOGETHER).await,
        Err(_) => std::future::pending().await,
    }
    news.mark_unchanged();
}

fn event(place: Place, told: Told) -> Event {
    let kind = told.kind.clone();
    let data = serde_json::to_string(&Happened::from(told)).unwrap_or_default();
    Event::default().id(place.to_string()).event(kind).data(data)
}

/// Whether only what is of no delivery is wanted.
fn read(pairs: Pairs) -> Result<bool, Problem> {
    let of_pages = pairs.iter().filter(|(key, _)| matches!(key.as_str(), "limit" | "cursor"));
    let advice = "is for pages; live events begin behind Last-Event-ID";
    let wrong: Vec<FieldProblem> = of_pages.map(|(key, _)| FieldProblem::new(key.as_str(), advice)).collect();
    if wrong.is_empty() { Ok(read_page(pairs)?.0) } else { Err(Problem::fields(wrong)) }
}

/// The place in `Last-Event-ID`; an empty one is none.
fn last(headers: &HeaderMap) -> Result<Option<Place>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let place = value.to_str().ok().and_then(|text| text.parse().ok());
    let wrong = || FieldProblem::new("Last-Event-ID", "not the id of an event");
    place.map(Some).ok_or_else(|| Problem::fields(vec![wrong()]))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::clock::monotonic;
    use crate::http::fake::Fake;

    #[tokio::test(start_paused = true)]
    async fn a_commit_wakes_a_listener_and_without_one_it_looks_now_and_then() {
        let queue = Arc::new(Fake::default());
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let following = Following {
            queue: Arc::clone(&queue) as Arc<dyn Queue>,
            unmatched: false,
            timeline: Timeline::default(),
            after: 5,
            found: Vec::new(),
            caught_up: false,
            news: queue.event_news(),
            stop: CancellationToken::new(),
            _place: place,
        };
        let mut told = std::pin::pin!(told(following));
        for (woken, least, most) in [
            (true, Duration::ZERO, TOGETHER),
            (true, TOGETHER, TOGETHER),
            (false, LOOK_EVERY, LOOK_EVERY),
            (true, TOGETHER, TOGETHER),
        ] {
            let began = monotonic();
            let more = async {
                // It has looked by then, and waits.
                tokio::task::yield_now().await;
                queue.more_events.fetch_add(1, Ordering::SeqCst);
                if woken {
                    queue.event_news.send_replace(());
                }
            };
            let (next, ()) = tokio::join!(told.next(), more);
            assert!(next.is_some());
            let took = began.elapsed();
            assert!(least <= took && took <= most, "woken: {woken}, {took:?}");
        }
    }
}
