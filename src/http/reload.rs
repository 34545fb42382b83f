//! `/v1/reload`: the configuration is read again and put in place, whole or not at all.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::body::octets;
use super::error::{ErrorBody, FieldProblem, Problem};
use super::esps::empty;

/// What the route asks of the relay.
pub trait Reload: Send + Sync {
    /// Reads the configuration again and puts it in place; tells the log as well. On `Err` the one before holds.
    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, NotReloaded>>;
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// What is in force now and was not before.
    pub changed: Vec<Change>,
    /// What the file says and only a restart brings into force.
    pub restart: Vec<Change>,
    /// What is lawful but odd, each with its place.
    pub warnings: Vec<FieldProblem>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// `esp.ses-main.rate`, `listener.127.0.0.1:2525.tls`; a table that came or went has no key behind its name.
    pub key: String,
    /// `changed`, `added`, `removed`, or `read again`: a file with other content.
    pub what: String,
}

impl Change {
    /// One.
    pub fn new(key: impl Into<String>, what: &str) -> Self {
        Change { key: key.into(), what: what.into() }
    }
}

/// Why the configuration before stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReloaded {
    /// The new one is wrong: each key, and where and what.
    Wrong(Vec<FieldProblem>),
    /// It could not be put in place now.
    Failed(String),
}

/// What stands before every list of what is wrong.
pub const STAYS: &str = "the configuration is wrong; the one before stays in force";

impl From<NotReloaded> for Problem {
    fn from(not: NotReloaded) -> Self {
        match not {
            NotReloaded::Wrong(fields) => {
                let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "configuration", STAYS);
                problem.error.fields = fields;
                problem
            }
            NotReloaded::Failed(why) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not_reloaded",
                format!("{why}; nothing has changed"),
            ),
        }
    }
}

/// the configuration is read again, whole or not at all; says what changed
#[utoipa::path(
    post,
    path = "/v1/reload",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "In force now", body = Reloaded),
        (status = 422, description = "It is wrong, each key with file and line; the one before stays", body = ErrorBody),
    )
)]
pub(super) async fn reload(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Reloaded>, Problem> {
    empty(&octets(body)?)?;
    Ok(Json(app.relay.reload.reload().await?))
}
