//! What a request got instead of its answer: `{"error":{"code","message","fields":[…]}}` and a fitting status.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::hooks::UNPROVEN;
use crate::store::StoreError;

/// Seconds after which a request that found no room is worth repeating.
const RETRY_AFTER_SECS: u32 = 5;

/// A request that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// What programs read and show.
    pub error: ErrorDetail,
    /// In how many seconds it is worth repeating, where that is known.
    pub retry_after_secs: Option<u32>,
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The only key.
    pub error: ErrorDetail,
}

/// What was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// One word for programs.
    pub code: String,
    /// A sentence for people: what was wrong and what to do.
    pub message: String,
    /// Each field that was wrong, all at once.
    #[serde(default)]
    pub fields: Vec<FieldProblem>,
}

/// One field that was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    /// Its place: `ids[2]`, `limit`.
    pub field: String,
    /// What was wrong with it.
    pub message: String,
    /// The file of the configuration that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line there, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The environment variable that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// The name that was probably meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ErrorDetail {
    /// The message with each field on a line of its own.
    pub fn whole(&self) -> String {
        let mut text = self.message.clone();
        for field in &self.fields {
            text.push_str(&format!("\n  {}: {}", field.field, field.message));
        }
        text
    }
}

impl FieldProblem {
    /// One problem.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        FieldProblem {
            field: field.into(),
            message: message.into(),
            file: None,
            line: None,
            variable: None,
            hint: None,
        }
    }
}

impl Problem {
    /// A problem without fields.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Problem {
            status,
            error: ErrorDetail { code: code.into(), message: message.into(), fields: Vec::new() },
            retry_after_secs: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_SECS),
        }
    }

    /// 400 for fields that were wrong.
    pub fn fields(fields: Vec<FieldProblem>) -> Self {
        let mut problem =
            Problem::new(StatusCode::BAD_REQUEST, "invalid", "the request has fields that are wrong");
        problem.error.fields = fields;
        problem
    }

    /// 429, and when to come again.
    pub fn too_often(wait: Duration) -> Self {
        let message = "asked too often; come again after the seconds that Retry-After names";
        let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_often", message);
        problem.retry_after_secs =
            Some(u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1));
        problem
    }

    /// 404 for an id that nothing has.
    pub fn no_such_message() -> Self {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "no such message: it never was, or retention let it go",
        )
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::Full(_) => "full",
            StoreError::Failed(_) => "store_failed",
            StoreError::Stopping => "stopping",
        };
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // What proves a webhook is its ESP's own, and a challenge would tell which type of ESP has it.
        let wants_token = self.status == StatusCode::UNAUTHORIZED && self.error.code != UNPROVEN;
        let mut response = (self.status, Json(ErrorBody { error: self.error })).into_response();
        let headers = response.headers_mut();
        if wants_token {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"postroad\""));
        }
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, secs.into());
        }
        response
    }
}
