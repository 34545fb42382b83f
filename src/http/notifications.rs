//! `/v1/notifications`: the log of events out to the app, and telling them once more.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::body::{Pairs, object, octets, pairs_once};
use super::error::{FieldProblem, Problem};
use super::paging::Paging;
use super::shape::Moment;
use crate::journal;
use crate::store::{self, NotificationFilter, NotificationState, Replay};

/// In one request.
const IDS_MAX: usize = 1000;
const STATES: &str = "waiting, taken and failed";

/// One event for one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Notification {
    /// Its number: they rise.
    pub number: i64,
    /// The `webhook-id`: the event's, the same over every repeat.
    pub id: String,
    /// The receiver's name.
    pub receiver: String,
    /// The event: `bounced`, `complained`, …
    pub event: String,
    /// Its message, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whom it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `waiting`, `taken` or `failed`.
    pub state: String,
    /// When it was entered.
    pub at: Moment,
    /// Waiting: it is not told before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Moment>,
    /// How often it was told.
    pub attempts: u32,
    /// When it was told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted_at: Option<Moment>,
    /// What was answered last, or why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// What is told.
    pub body: Value,
}

/// `GET /v1/notifications`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotificationPage {
    /// Newest first.
    pub notifications: Vec<Notification>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `POST /v1/notifications/replay`: either `ids`, or any of the others.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct WantedReplay {
    /// These, at every receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// All that have failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// All that were entered since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Moment>,
    /// This receiver's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiver: Option<String>,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replayed {
    /// So many are told once more.
    pub replayed: u64,
    /// So many stay as they are: their receiver is configured no more.
    pub without_receiver: u64,
    /// So many stay as they are: their receiver answered 410, and is told nothing until the configuration is reloaded.
    #[serde(default)]
    pub receiver_gone: u64,
    /// Ids that nothing has: they never were, or retention let them go.
    pub unknown: Vec<String>,
}

impl From<store::Notification> for Notification {
    fn from(of: store::Notification) -> Self {
        Notification {
            number: of.n,
            id: of.id,
            receiver: of.receiver,
            event: of.event,
            message: of.message.map(|id| id.to_string()),
            address: of.address,
            state: of.state.word().to_owned(),
            at: Moment(of.told_at),
            due: of.due.map(Moment),
            attempts: of.tries,
            attempted_at: of.tried_at.map(Moment),
            answer: of.answer,
            body: serde_json::from_str(&of.body).unwrap_or_default(),
        }
    }
}

impl From<store::Replayed> for Replayed {
    fn from(done: store::Replayed) -> Self {
        let store::Replayed { replayed, without_receiver, receiver_gone, unknown } = done;
        Replayed { replayed, without_receiver, receiver_gone, unknown }
    }
}

/// events out to the app, newest first: ?state= &receiver= &message= &limit= &cursor=
#[utoipa::path(
    get,
    path = "/v1/notifications",
    security(("bearer" = ["read"])),
    params(
        ("state" = Option<String>, Query, description = "Only these: waiting, taken or failed"),
        ("receiver" = Option<String>, Query, description = "Only those of this [[notify]], by its name"),
        ("message" = Option<String>, Query, description = "Only those of this message"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "At most so many; 100 where absent"),
        ("cursor" = Option<String>, Query, description = "The next of the page before"),
    ),
    responses((status = 200, description = "One page", body = NotificationPage))
)]
pub(super) async fn notifications(
    State(app): State<Arc<App>>,
    query: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<NotificationPage>, Problem> {
    let filter = read_page(pairs_once(query, &[])?)?;
    let limit = filter.limit;
    let found = app.relay.queue.notifications(filter).await?;
    let next = found.last().filter(|_| found.len() >= limit).map(|last| last.n.to_string());
    Ok(Json(NotificationPage { notifications: found.into_iter().map(Into::into).collect(), next }))
}

fn read_page(pairs: Pairs) -> Result<NotificationFilter, Problem> {
    let mut paging = Paging::new(None, |text| text.parse().ok().map(Some), "state, receiver, message, ");
    let (mut filter, mut wrong) = (NotificationFilter::default(), Vec::new());
    for (key, value) in pairs {
        let read = match key.as_str() {
            "state" => read_state(&value).map(|state| filter.state = Some(state)),
            "receiver" => {
                filter.receiver = Some(value);
                Ok(())
            }
            "message" => value.parse().map(|id| filter.message = Some(id)).map_err(|bad| format!("{bad}")),
            key => {
                wrong.extend(paging.take(key, &value));
                Ok(())
            }
        };
        if let Err(what) = read {
            wrong.push(FieldProblem::new(key, what));
        }
    }
    let Paging { limit, cursor: before, .. } = paging;
    if wrong.is_empty() {
        Ok(NotificationFilter { before, limit, ..filter })
    } else {
        Err(Problem::fields(wrong))
    }
}

/// A state, for the route and the command alike.
pub fn read_state(text: &str) -> Result<NotificationState, String> {
    let found = NotificationState::ALL.into_iter().find(|state| state.word() == text);
    found.ok_or_else(|| format!("no such state; there are {STATES}"))
}

/// events told once more, under their ids: {"ids":["evt_…"]} or {"failed":true,"since":"…","receiver":"…"}
#[utoipa::path(
    post,
    path = "/v1/notifications/replay",
    security(("bearer" = ["queue"])),
    request_body = WantedReplay,
    responses((status = 200, description = "How many are told once more", body = Replayed))
)]
pub(super) async fn replay(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Replayed>, Problem> {
    let wanted = read_replay(&octets(body)?)?;
    let done = app.relay.queue.replay_notifications(wanted).await?;
    journal::replayed(done.replayed);
    Ok(Json(done.into()))
}

fn read_replay(body: &[u8]) -> Result<Replay, Problem> {
    let members = object(body, "{\"failed\":true}")?;
    let mut wanted = WantedReplay::default();
    let mut wrong = Vec::new();
    for (key, value) in &members {
        let read = match (key.as_str(), value) {
            (_, Value::Null) => Ok(()),
            ("ids", Value::Array(ids)) if ids.len() <= IDS_MAX => match texts(ids) {
                Some(ids) => {
                    wanted.ids = Some(ids);
                    Ok(())
                }
                None => Err("not a list of texts".to_owned()),
            },
            ("ids", Value::Array(_)) => Err(format!("more than {IDS_MAX}; send less at a time")),
            ("ids", _) => Err("not a list of texts".to_owned()),
            ("failed", Value::Bool(failed)) => {
                wanted.failed = *failed;
                Ok(())
            }
            ("failed", _) => Err("neither true nor false".to_owned()),
            ("since", value) => match serde_json::from_value(value.clone()) {
                Ok(since) => {
                    wanted.since = Some(since);
                    Ok(())
                }
                Err(_) => Err("not a time such as 2026-12-01T08:00:00Z".to_owned()),
            },
            ("receiver", Value::String(receiver)) => {
                wanted.receiver = Some(receiver.clone());
                Ok(())
            }
            ("receiver", _) => Err("not a text".to_owned()),
            _ => Err("no such field; there are ids, failed, since and receiver".to_owned()),
        };
        if let Err(what) = read {
            wrong.push(FieldProblem::new(key.as_str(), what));
        }
    }
    if !wrong.is_empty() {
        return Err(Problem::fields(wrong));
    }
    let WantedReplay { ids, failed, since, receiver } = wanted;
    match ids {
        Some(_) if failed || since.is_some() || receiver.is_some() => {
            let what = "stand alone, without failed, since and receiver";
            Err(Problem::fields(vec![FieldProblem::new("ids", what)]))
        }
        Some(ids) => Ok(Replay::Ids(ids)),
        None if !failed && since.is_none() => {
            let what = "is missing: name ids, or failed, or since when";
            Err(Problem::fields(vec![FieldProblem::new("ids", what)]))
        }
        None => Ok(Replay::Those { failed, since: since.map(|at| at.0), receiver }),
    }
}

fn texts(values: &[Value]) -> Option<Vec<String>> {
    values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}
