//! What every request passes: a name, a time limit, a net under a panic, the headers of a port that serves no web
//! page; and the token before `/v1`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use super::App;
use super::error::Problem;
use crate::metrics::HTTP_REQUESTS;

/// From the request's head to the answer's.
const REQUEST_MAX: Duration = Duration::from_secs(30);

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
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let mut response = match tokio::time::timeout(REQUEST_MAX, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!(target: "postroad", request = %name, "a request ended in a panic");
            let message = format!("a fault in Postroad; the log has a line for request {name}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", message).into_response()
        }
        Err(_) => {
            let message = "no answer within 30 s; the relay is busy or its disk is";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message).into_response()
        }
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

/// Before everything under `/v1`, also what is no route there.
pub(super) async fn admin(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    match bearer(&headers) {
        Some(token) if app.relay.admin_token.matches(token) => next.run(request).await,
        given => {
            let message = match given {
                Some(_) => {
                    "the token is not the one in admin.token in the data directory (or http.admin_token)"
                }
                None => {
                    "send Authorization: Bearer TOKEN with the token in admin.token in the data directory"
                }
            };
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message).into_response()
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}
