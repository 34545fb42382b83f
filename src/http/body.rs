//! What a request carries: a JSON object.

use std::collections::{BTreeSet, HashSet};

use axum::body::Bytes;
use axum::extract::Query;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::error::{FieldProblem, Problem};
use super::json;

const TWICE: &str = "is given twice; which one is meant?";

/// The parameters of a request, in order.
pub(super) type Pairs = Vec<(String, String)>;

/// The parameters behind the `?`.
pub(super) fn pairs(query: Result<Query<Pairs>, QueryRejection>) -> Result<Pairs, Problem> {
    let bad = |e: QueryRejection| Problem::new(StatusCode::BAD_REQUEST, "bad_query", e.body_text());
    query.map(|Query(pairs)| pairs).map_err(bad)
}

/// The same where only `lists` may stand there more than once.
pub(super) fn pairs_once(
    query: Result<Query<Pairs>, QueryRejection>,
    lists: &[&str],
) -> Result<Pairs, Problem> {
    let pairs = pairs(query)?;
    let (mut seen, mut twice) = (HashSet::new(), BTreeSet::new());
    for (key, _) in pairs.iter().filter(|(key, _)| !lists.contains(&key.as_str())) {
        if !seen.insert(key.as_str()) {
            twice.insert(key.as_str());
        }
    }
    match twice.is_empty() {
        true => Ok(pairs),
        false => Err(Problem::fields(twice.into_iter().map(|key| FieldProblem::new(key, TWICE)).collect())),
    }
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
    match json::read(body) {
        Ok((Value::Object(members), twice)) if twice.is_empty() => Ok(members),
        Ok((Value::Object(_), twice)) => {
            let fields = twice.into_iter().map(|key| FieldProblem::new(key, TWICE));
            Err(Problem::fields(fields.collect()))
        }
        Ok(_) => Err(bad(format!("the body is not a JSON object such as {example}"))),
        Err(e) => Err(bad(format!("the body is not JSON: {e}; send an object such as {example}"))),
    }
}
