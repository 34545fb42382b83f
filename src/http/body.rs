//! What a request carries: a JSON object.

use axum::body::Bytes;
use axum::extract::Query;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::error::Problem;

/// The parameters of a request, in order.
pub(super) type Pairs = Vec<(String, String)>;

/// The parameters behind the `?`.
pub(super) fn pairs(query: Result<Query<Pairs>, QueryRejection>) -> Result<Pairs, Problem> {
    let bad = |e: QueryRejection| Problem::new(StatusCode::BAD_REQUEST, "bad_query", e.body_text());
    query.map(|Query(pairs)| pairs).map_err(bad)
}

/// The octets of the body.
pub(super) fn octets(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|e| match e.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(status, "too_large", "a request may have 1 MiB; send less at a time")
        }
        status => Problem::new(status, "bad_body", e.body_text()),
    })
}

/// The members of a body that is an object, such as `example`.
pub(super) fn object(body: &[u8], example: &str) -> Result<Map<String, Value>, Problem> {
    let bad = |message: String| Problem::new(StatusCode::BAD_REQUEST, "bad_json", message);
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(bad(format!("the body is not a JSON object such as {example}"))),
        Err(e) => Err(bad(format!("the body is not JSON: {e}; send an object such as {example}"))),
    }
}
