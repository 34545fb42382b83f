//! `Idempotency-Key` of every POST but that of a mail: who repeats it within a day gets the first one's answer, and nothing is
//! done again.
//!
//! What was answered is kept in memory, so a start of the relay forgets it. A mail's key is kept in the database, with the
//! mail (see [`super::send`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;

use super::App;
use super::body::octets;
use super::error::Problem;
use super::guard::Caller;
use super::send::{SEND_PATH, idempotency_key};
use crate::clock::monotonic;

/// How long an answer is told again.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// Answers that are kept: the oldest makes room.
const KEPT_MAX: usize = 1_000;
/// A longer answer is not kept, and its request is done again when it is repeated: no route answers a POST with as much.
const ANSWER_OCTETS_MAX: usize = 64 * 1024;
/// An answer that is looked at as a whole.
const ANSWER_OCTETS_LOOKED_AT: usize = 16 * 1024 * 1024;
/// Says that an answer is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The requests with a key, and what they were answered.
#[derive(Default)]
pub(super) struct Replays(Mutex<HashMap<Key, Kept>>);

/// Whose key, and the key.
type Key = (Option<i64>, String);

struct Kept {
    /// Path, query and body.
    asked: Vec<u8>,
    at: Instant,
    /// `None`: it is being done.
    answer: Option<Answer>,
}

#[derive(Clone)]
struct Answer {
    status: StatusCode,
    kind: Option<HeaderValue>,
    body: Bytes,
}

/// What a key says of a request.
enum Claim {
    /// Nobody has asked this yet.
    First,
    /// This was answered.
    Answered(Answer),
    /// The same is being done now.
    UnderWay,
    /// The key was another request's.
    Anothers,
}

impl Replays {
    fn claim(&self, key: &Key, asked: Vec<u8>, now: Instant) -> Claim {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, one| now.saturating_duration_since(one.at) < KEPT_FOR);
        match kept.get(key) {
            Some(first) if first.asked != asked => return Claim::Anothers,
            Some(Kept { answer: Some(answer), .. }) => return Claim::Answered(answer.clone()),
            Some(Kept { answer: None, .. }) => return Claim::UnderWay,
            None => {}
        }
        if kept.len() >= KEPT_MAX {
            let oldest = kept.iter().min_by_key(|(_, one)| one.at).map(|(key, _)| key.clone());
            oldest.and_then(|key| kept.remove(&key));
        }
        kept.insert(key.clone(), Kept { asked, at: now, answer: None });
        Claim::First
    }

    /// Keeps the answer, or forgets the request where it may be done again.
    fn finish(&self, key: &Key, answer: Option<Answer>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (answer, kept.get_mut(key)) {
            (Some(answer), Some(one)) => one.answer = Some(answer),
            _ => {
                kept.remove(key);
            }
        }
    }
}

/// Before every route, once it is known who asks.
pub(super) async fn once(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mails = request.uri().path() == SEND_PATH;
    let caller = request.extensions().get::<Caller>().map(|caller| caller.token);
    let key = match idempotency_key(request.headers()) {
        Ok(Some(key)) => key,
        Ok(None) => return next.run(request).await,
        Err(_) if mails || request.method() != Method::POST => return next.run(request).await,
        Err(problem) => return problem.into_response(),
    };
    match caller {
        Some(caller) if request.method() == Method::POST && !mails => {
            by_key(app, (caller, key), request, next).await.unwrap_or_else(|problem| problem.into_response())
        }
        _ => next.run(request).await,
    }
}

async fn by_key(app: Arc<App>, key: Key, request: Request, next: Next) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await;
    let body = octets(body)?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let asked = digest(&SHA256, &[target.as_bytes(), b"\n", &body].concat()).as_ref().to_vec();
    match app.replays.claim(&key, asked, monotonic()) {
        Claim::First => {}
        Claim::Answered(answer) => return Ok(replayed(answer)),
        Claim::UnderWay => {
            let message = "the first request with this Idempotency-Key is being done; ask again in a moment";
            return Err(Problem::new(StatusCode::CONFLICT, "under_way", message));
        }
        Claim::Anothers => {
            let message = "this Idempotency-Key was another request's; each request has a key of its own";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message));
        }
    }
    let request = Request::from_parts(parts, Body::from(body));
    // On a task of its own: a caller that hangs up finds the answer when it comes again.
    let done = tokio::spawn(async move {
        let unfinished = Unfinished { app: Arc::clone(&app), key: Some(key) };
        let (response, answer) = collected(next.run(request).await).await;
        unfinished.finish(answer);
        response
    });
    done.await.map_err(|_| {
        let message = "a fault in Postroad; its log says more";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    })
}

/// A request that is forgotten where it ends without an answer.
struct Unfinished {
    app: Arc<App>,
    key: Option<Key>,
}

impl Unfinished {
    fn finish(mut self, answer: Option<Answer>) {
        if let Some(key) = self.key.take() {
            self.app.replays.finish(&key, answer);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.app.replays.finish(&key, None);
        }
    }
}

/// The response, and what is told again of it: nothing where it is worth repeating.
async fn collected(response: Response) -> (Response, Option<Answer>) {
    let status = response.status();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    let Ok(body) = axum::body::to_bytes(body, ANSWER_OCTETS_LOOKED_AT).await else {
        let message = "the answer could not be made";
        return (Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).into_response(), None);
    };
    let kind = parts.headers.get(CONTENT_TYPE).cloned();
    let answer = Answer { status, kind, body: body.clone() };
    let kept = (body.len() <= ANSWER_OCTETS_MAX).then_some(answer);
    (Response::from_parts(parts, Body::from(body)), kept)
}

fn replayed(answer: Answer) -> Response {
    let mut response = (answer.status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    match answer.kind {
        Some(kind) => headers.insert(CONTENT_TYPE, kind),
        None => headers.remove(CONTENT_TYPE),
    };
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_request_s_for_a_day_and_there_are_so_many() {
        let (replays, now) = (Replays::default(), monotonic());
        let key = |n: usize| (None, n.to_string());
        let first =
            |n: usize, asked: &[u8], at| matches!(replays.claim(&key(n), asked.to_vec(), at), Claim::First);
        assert!(first(0, b"a", now));
        assert!(matches!(replays.claim(&key(0), b"a".to_vec(), now), Claim::UnderWay));
        assert!(matches!(replays.claim(&key(0), b"b".to_vec(), now), Claim::Anothers));
        replays.finish(&key(0), None);
        assert!(first(0, b"a", now), "what failed is done again");
        let answer = Answer { status: StatusCode::OK, kind: None, body: Bytes::from_static(b"{}") };
        replays.finish(&key(0), Some(answer));
        assert!(matches!(replays.claim(&key(0), b"a".to_vec(), now), Claim::Answered(_)));
        assert!(
            matches!(replays.claim(&(Some(1), "0".into()), b"a".to_vec(), now), Claim::First),
            "another's"
        );
        assert!(first(0, b"a", now + KEPT_FOR));
        for n in 1..=KEPT_MAX {
            assert!(first(n, b"a", now + KEPT_FOR + Duration::from_secs(1)));
        }
        assert!(first(0, b"a", now + KEPT_FOR + Duration::from_secs(2)), "the oldest made room");
        assert_eq!(replays.0.lock().unwrap().len(), KEPT_MAX);
    }
}
