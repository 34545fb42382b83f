//! `GET /v1/events`: what happened, newest first, or as it happens; and what ESPs told of no delivery that is known.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Pairs, pairs_once};
use super::error::{FieldProblem, Problem};
use super::paging::Paging;
use super::shape::Moment;
use super::{App, follow};
use crate::store::{JoinedBy, Told};

/// One event, as `GET /v1/events` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Happened {
    /// Its number: they rise.
    pub number: i64,
    /// When it happened, by the clock of who told it.
    pub at: Moment,
    /// Its word: `delivered`, `bounced`, `complained`, `suppressed`, `expired`, `alert`, …
    pub kind: String,
    /// The ESP that told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub esp: Option<String>,
    /// Its message, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Which recipient of it, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// The call that it tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// The address that an ESP named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What a bounce says of the address: `hard`, `soft`, `policy`, `listed`, `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// In words.
    pub detail: String,
    /// Its kind, as the ESP names it: what is `other` here has a name there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_as: Option<String>,
    /// By what an ESP's event was joined to its message: `attempt_id`, `provider_id` or `recipient_and_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined_by: Option<String>,
    /// How sure that is, 0 to 1; absent: it named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// The ESP's own id of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<String>,
}

/// `GET /v1/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HappenedPage {
    /// Newest first.
    pub events: Vec<Happened>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl From<Told> for Happened {
    fn from(told: Told) -> Self {
        Happened {
            number: told.number,
            at: Moment(told.at),
            kind: told.kind,
            esp: told.esp,
            message: told.message.map(|id| id.to_string()),
            n: told.recipient,
            attempt: told.attempt.map(|id| id.to_string()),
            address: told.address,
            class: told.class,
            detail: told.detail,
            told_as: told.told_as,
            joined_by: told.joined.map(|joined| joined.word().into()),
            confidence: told.joined.and_then(JoinedBy::confidence),
            remote_id: told.remote_id,
        }
    }
}

/// what happened, newest first: ?unmatched &limit= &cursor=; or live, with Accept: text/event-stream
#[utoipa::path(
    get,
    path = "/v1/events",
    security(("bearer" = ["read"])),
    params(
        ("unmatched" = Option<bool>, Query, description = "Only what ESPs told of no delivery that is known"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "At most so many; 100 where absent"),
        ("cursor" = Option<String>, Query, description = "The next of the page before"),
        ("Last-Event-ID" = Option<String>, Header, description = "Live: from behind the event of that id on, as it came; absent: what happens from now on"),
    ),
    responses(
        (status = 200, description = "One page; or each event as it happens, with an id to come back with, and a `notice` first where that id is of a database before a restore", content(
            (HappenedPage = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = 503, description = "As many listen already as may", body = super::ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    query: Result<Query<Pairs>, QueryRejection>,
) -> Result<Response, Problem> {
    let pairs = pairs_once(query, &[])?;
    match follow::is_asked(&headers) {
        true => follow::follow(&app, &headers, pairs).await,
        false => page(&app, pairs).await.map(IntoResponse::into_response),
    }
}

async fn page(app: &App, pairs: Pairs) -> Result<Json<HappenedPage>, Problem> {
    let (unmatched, Paging { limit, cursor: before, .. }) = read_page(pairs)?;
    let told = app.relay.queue.events(unmatched, before, limit).await?;
    let next = told.last().filter(|_| told.len() >= limit).map(|last| last.number.to_string());
    Ok(Json(HappenedPage { events: told.into_iter().map(Into::into).collect(), next }))
}

pub(super) fn read_page(pairs: Pairs) -> Result<(bool, Paging<i64>), Problem> {
    let mut paging = Paging::new(i64::MAX, |text| text.parse().ok(), "unmatched, ");
    let (mut unmatched, mut wrong) = (false, Vec::new());
    for (key, value) in pairs {
        match (key.as_str(), value.as_str()) {
            ("unmatched", "" | "true") => unmatched = true,
            ("unmatched", "false") => {}
            ("unmatched", _) => wrong.push(FieldProblem::new(key, "neither true nor false")),
            (key, value) => wrong.extend(paging.take(key, value)),
        }
    }
    if wrong.is_empty() { Ok((unmatched, paging)) } else { Err(Problem::fields(wrong)) }
}
