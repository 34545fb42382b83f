//! What every request passes: a name, a time limit, a net under a panic, the headers of a port that serves no web
//! page; and the token that a route wants.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use super::error::Problem;
use super::pace::{Pace, Paced};
use super::rate::Whose;
use super::scope::{Scope, Scopes};
use super::send::{Peer, SEND_PATH};
use super::{App, tokens};
use crate::clock::monotonic;
use crate::journal;
use crate::metrics::HTTP_REQUESTS;
use crate::store::Token;

/// A token's last use is noted so often.
const USE_NOTED_EVERY: Duration = Duration::from_secs(600);

static NEXT_REQUEST: AtomicU64 = AtomicU64::new(1);

const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Around everything.
pub(super) async fn every_request(request: Request, next: Next) -> Response {
    let name = NEXT_REQUEST.fetch_add(1, Ordering::Relaxed).to_string();
    let pace = Pace::new();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(Arc::clone(&pace));
    let certain = parts.uri.path() == SEND_PATH;
    let request = Request::from_parts(parts, Paced::body(body, Arc::clone(&pace)));
    let wrong = wrong_fields(&request);
    let answer = async move {
        match wrong {
            Some((code, message)) => Problem::new(StatusCode::BAD_REQUEST, code, message).into_response(),
            None => next.run(request).await,
        }
    };
    let answer = AssertUnwindSafe(answer).catch_unwind();
    let mut response = tokio::select! {
        biased;
        answer = answer => match answer {
            Ok(response) => response,
            Err(_) => {
                tracing::error!(target: "postroad", request = %name, "a request ended in a panic");
                let message = format!("a fault in Postroad; the log has a line for request {name}");
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", message).into_response()
            }
        },
        late = pace.over() => late.problem(certain).into_response(),
    };
    let class = match response.status().as_u16() {
        ..400 => "2xx",
        400..500 => "4xx",
        500.. => "5xx",
    };
    ::metrics::counter!(HTTP_REQUESTS, "class" => class).increment(1);
    let headers = response.headers_mut();
    headers.extend(HEADERS);
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert("x-request-id", name);
    }
    response
}

/// Who asks, known to the handlers of routes that want a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The token's number; `None`: the admin token.
    pub(super) token: Option<i64>,
    /// What people call it.
    pub(super) name: String,
    scopes: Scopes,
}

/// What a request may not do without.
enum Wanted {
    /// No token.
    Nothing,
    /// Any token: there is no such route or method, which is not for everybody to find out.
    Token,
    /// A token with this scope.
    Scope(Scope),
}

/// Before every route: the token that the contract says it wants.
pub(super) async fn token(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let wanted = wanted(&app, &request);
    if matches!(wanted, Wanted::Nothing) {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().map(|peer| Whose::stranger(peer.0));
    match known(&app, request.headers(), peer).await.and_then(|caller| allowed(&wanted, caller)) {
        Ok(_) if is_encoded(&request) => {
            let message = "the body has a Content-Encoding; send it as it is";
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoded", message).into_response()
        }
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Nothing is unpacked here: a small body could become a large one.
fn is_encoded(request: &Request) -> bool {
    let codings = request.headers().get_all(header::CONTENT_ENCODING).iter();
    codings.into_iter().any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// Of what there may be one only: RFC 9112 section 3.2, and RFC 9110 sections 5.3 and 11.6.2. A proxy before this port
/// may have judged the other token.
fn wrong_fields(request: &Request) -> Option<(&'static str, &'static str)> {
    let count = |name| request.headers().get_all(name).iter().count();
    let hosts = count(header::HOST);
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Some(("bad_host", "a request has one Host field"));
    }
    let several = count(header::AUTHORIZATION) > 1;
    several.then_some(("bad_authorization", "a request has one Authorization field"))
}

fn wanted(app: &App, request: &Request) -> Wanted {
    let Some(path) = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) else {
        let path = request.uri().path();
        let ours = path == "/v1" || path.starts_with("/v1/");
        return if ours { Wanted::Token } else { Wanted::Nothing };
    };
    match app.contract.scope(request.method().as_str(), path) {
        Some(Some(scope)) => Wanted::Scope(scope),
        None if app.contract.is_guarded(path) => Wanted::Token,
        Some(None) | None => Wanted::Nothing,
    }
}

fn allowed(wanted: &Wanted, caller: Caller) -> Result<Caller, Problem> {
    match wanted {
        Wanted::Scope(scope) if !caller.scopes.allow(*scope) => {
            let has = caller.scopes.words().join(", ");
            let message = format!(
                "this route wants a token with the scope {scope}, this one has {has}; make one with: postroad token \
                 create --scope {scope}"
            );
            Err(Problem::new(StatusCode::FORBIDDEN, "scope_missing", message))
        }
        Wanted::Scope(_) | Wanted::Token | Wanted::Nothing => Ok(caller),
    }
}

/// A token that is known has a bucket of its own; who shows none or a wrong one, his address has. So nobody is shut out
/// by who else asks from there.
async fn known(app: &App, headers: &HeaderMap, peer: Option<Whose>) -> Result<Caller, Problem> {
    let found = caller(app, headers).await;
    let whose = match &found {
        Ok(caller) => Some(Whose::Token(caller.token)),
        Err(problem) if problem.status == StatusCode::UNAUTHORIZED => peer,
        Err(_) => None,
    };
    match whose.map_or(Ok(()), |whose| app.rates.take(whose, monotonic())) {
        Ok(()) => found,
        Err(wait) => Err(Problem::too_often(wait)),
    }
}

async fn caller(app: &App, headers: &HeaderMap) -> Result<Caller, Problem> {
    let unknown = |message| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
    let Some(given) = bearer(headers) else {
        return Err(unknown(
            "send Authorization: Bearer TOKEN with the token in admin.token in the data directory, or one made with \
             postroad token create",
        ));
    };
    if app.relay.told.load().admin_token.matches(given) {
        return Ok(Caller { token: None, name: "admin".into(), scopes: Scopes::of(&[Scope::Admin]) });
    }
    let Some(token) = app.relay.tokens.find(&tokens::hash(given))? else {
        return Err(unknown(
            "the token is neither the one in admin.token in the data directory (or http.admin_token) nor one that \
             postroad token list names; it may have been revoked",
        ));
    };
    note_use(app, &token).await;
    Ok(Caller { token: Some(token.id), scopes: Scopes::read(&token.scopes), name: token.name })
}

/// Kept to some minutes: a write for each request would cost a commit each.
async fn note_use(app: &App, token: &Token) {
    let now = app.relay.clock.now();
    if token.used_at.is_some_and(|at| now.since(at) < USE_NOTED_EVERY) {
        return;
    }
    if let Err(error) = app.relay.tokens.note_use(token.id, now).await {
        journal::trouble("noting when a token was used", &error.to_string());
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}
