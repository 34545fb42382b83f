//! `/v1/messages` and `/v1/queue`: what is in the queue, a message's life, and what an operator does to it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::{Pairs, object, octets, pairs_once};
use super::error::{FieldProblem, Problem};
use super::shape::{ActOn, Acted, ActedOn, Flush, Life, Moment, Page, STATES, read_cursor};
use super::{App, Queue};
use crate::mail::delivery::PausedFrom;
use crate::mail::{MessageId, QueueState};
use crate::store::{Act, Filter, Requeued};

/// Deliveries on one page, where the client does not say.
const PAGE_DEFAULT: usize = 100;
/// And at most.
pub const PAGE_MAX: usize = 1000;
/// Messages that one act names.
pub const IDS_MAX: usize = 500;
/// Contents that are read at a time: each lies whole in memory until the client has it.
const RAW_AT_ONCE: usize = 2;

const CONTENT_GONE: &str =
    "the content is no longer kept: retention.bodies let it go, or the disk was nearly full";

type Content = Result<Bytes, BytesRejection>;

/// Bounds the memory of `…/raw`.
pub(super) struct RawLimit(Arc<Semaphore>);

impl Default for RawLimit {
    fn default() -> Self {
        RawLimit(Arc::new(Semaphore::new(RAW_AT_ONCE)))
    }
}

/// the queue, newest first: ?state= &stream= &recipient= &limit= &cursor=
#[utoipa::path(
    get,
    path = "/v1/messages",
    security(("bearer" = ["read"])),
    params(
        ("state" = Option<String>, Query, description = "Only these, with a comma between: waiting, out, unsure, paused, done. Absent: all but done"),
        ("stream" = Option<String>, Query, description = "Only of this stream"),
        ("recipient" = Option<String>, Query, description = "Only to this address"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "At most so many; 100 where absent"),
        ("cursor" = Option<String>, Query, description = "The next of the page before"),
    ),
    responses((status = 200, description = "One page", body = Page))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let filter = read_filter(pairs_once(query, &["state"])?)?;
    Ok(Json(page(&*app.relay.queue, filter).await?))
}

/// One page of the queue.
pub async fn page(queue: &dyn Queue, filter: Filter) -> Result<Page, crate::store::StoreError> {
    let limit = filter.limit;
    let deliveries: Vec<super::shape::Delivery> =
        queue.list(filter).await?.into_iter().map(Into::into).collect();
    let next = deliveries.last().filter(|_| deliveries.len() >= limit).map(super::shape::Delivery::cursor);
    let paused = queue.paused().await?.map(Into::into);
    Ok(Page { deliveries, next, paused })
}

fn read_filter(pairs: Pairs) -> Result<Filter, Problem> {
    let mut filter = Filter { limit: PAGE_DEFAULT, ..Filter::default() };
    let mut wrong = Vec::new();
    for (key, value) in pairs {
        match key.as_str() {
            "state" => {
                for state in value.split(',') {
                    if !STATES.contains(&state) {
                        let message = format!("{state:?} is no state; there are {}", STATES.join(", "));
                        wrong.push(FieldProblem::new("state", message));
                    }
                    filter.states.push(state.to_owned());
                }
            }
            "stream" => filter.stream = Some(value),
            "recipient" => filter.recipient = Some(value),
            "cursor" => {
                filter.before = read_cursor(&value);
                if filter.before.is_none() {
                    wrong.push(FieldProblem::new("cursor", "not a cursor: take the next of the page before"));
                }
            }
            "limit" => match value.parse() {
                Ok(limit) if (1..=PAGE_MAX).contains(&limit) => filter.limit = limit,
                Ok(_) | Err(_) => {
                    wrong.push(FieldProblem::new("limit", format!("not a number from 1 to {PAGE_MAX}")));
                }
            },
            _ => wrong.push(FieldProblem::new(
                key,
                "no such parameter; there are state, stream, recipient, limit and cursor",
            )),
        }
    }
    if wrong.is_empty() { Ok(filter) } else { Err(Problem::fields(wrong)) }
}

fn read_id(path: Result<Path<String>, PathRejection>) -> Result<MessageId, Problem> {
    let Path(text) = path.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "bad_path", e.body_text()))?;
    text.parse()
        .map_err(|e: crate::mail::id::BadId| Problem::fields(vec![FieldProblem::new("id", e.to_string())]))
}

/// a message's whole life
#[utoipa::path(
    get,
    path = "/v1/messages/{id}",
    security(("bearer" = ["read"])),
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "Its life", body = Life))
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Life>, Problem> {
    let view = app.relay.queue.show(read_id(id)?).await?.ok_or_else(Problem::no_such_message)?;
    let now = app.relay.desk.outlook(&view).await?;
    let life = Life { now: now.into_iter().map(Into::into).collect(), ..view.into() };
    Ok(Json(life))
}

/// its content, while it is kept
#[utoipa::path(
    get,
    path = "/v1/messages/{id}/raw",
    security(("bearer" = ["read"])),
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "As it is sent", body = Vec<u8>, content_type = "message/rfc822"))
)]
pub(super) async fn raw(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = read_id(id)?;
    let permit = Arc::clone(&app.raw.0).acquire_owned().await;
    let permit = permit
        .map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the relay is stopping"))?;
    let queue = &app.relay.queue;
    let Some(content) = queue.body(id).await? else {
        return Err(match queue.show(id).await? {
            Some(_) => Problem::new(StatusCode::GONE, "gone", CONTENT_GONE),
            None => Problem::no_such_message(),
        });
    };
    let headers = [
        (header::CONTENT_TYPE, "message/rfc822".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.eml\"")),
    ];
    let content = Bytes::from_owner(Sending { content, _permit: permit });
    Ok((headers, Body::from(content)).into_response())
}

/// Holds its place among [`RAW_AT_ONCE`] until the last octet is written.
struct Sending {
    content: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Sending {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

/// due now: {"ids":[…]} or {"all":true}
#[utoipa::path(
    post,
    path = "/v1/queue/flush",
    security(("bearer" = ["queue"])),
    request_body = Flush,
    responses((status = 200, description = "What it changed", body = Acted))
)]
pub(super) async fn flush(State(app): State<Arc<App>>, body: Content) -> Result<Json<Acted>, Problem> {
    act(&app, Act::Flush, body).await
}

/// stop: {"ids":[…]}
#[utoipa::path(
    post,
    path = "/v1/queue/pause",
    security(("bearer" = ["queue"])),
    request_body = ActOn,
    responses((status = 200, description = "What it changed", body = Acted))
)]
pub(super) async fn pause(State(app): State<Arc<App>>, body: Content) -> Result<Json<Acted>, Problem> {
    act(&app, Act::Pause, body).await
}

/// go on: {"ids":[…]}
#[utoipa::path(
    post,
    path = "/v1/queue/release",
    security(("bearer" = ["queue"])),
    request_body = ActOn,
    responses((status = 200, description = "What it changed", body = Acted))
)]
pub(super) async fn release(State(app): State<Arc<App>>, body: Content) -> Result<Json<Acted>, Problem> {
    act(&app, Act::Release, body).await
}

/// take out: {"ids":[…]}
#[utoipa::path(
    post,
    path = "/v1/queue/remove",
    security(("bearer" = ["queue"])),
    request_body = ActOn,
    responses((status = 200, description = "What it changed", body = Acted))
)]
pub(super) async fn remove(State(app): State<Arc<App>>, body: Content) -> Result<Json<Acted>, Problem> {
    act(&app, Act::Remove, body).await
}

/// who was not served starts a new round: {"ids":[…]}
#[utoipa::path(
    post,
    path = "/v1/queue/requeue",
    security(("bearer" = ["queue"])),
    request_body = ActOn,
    responses(
        (status = 200, description = "What it changed", body = Acted),
        (status = 410, description = "The content is no longer kept", body = super::ErrorBody),
    )
)]
pub(super) async fn requeue(State(app): State<Arc<App>>, body: Content) -> Result<Json<Acted>, Problem> {
    let Whom::Ids(ids) = read_whom(&octets(body)?, false)? else { return Err(Problem::no_such_message()) };
    let requeued = app.relay.queue.requeue(ids.clone()).await?;
    let each = || ids.iter().zip(&requeued);
    let gone: Vec<String> =
        each().filter(|(_, r)| **r == Requeued::BodyGone).map(|(id, _)| id.to_string()).collect();
    let results: Vec<ActedOn> = each().map(|(id, requeued)| requeued_one(*id, *requeued)).collect();
    let deliveries = results.iter().map(|result| result.deliveries).sum();
    if deliveries == 0 && !gone.is_empty() {
        let message = format!("{}: {CONTENT_GONE}, so that it cannot be sent again", gone.join(", "));
        return Err(Problem::new(StatusCode::GONE, "gone", message));
    }
    if results.iter().all(|result| !result.found) {
        return Err(Problem::no_such_message());
    }
    let mut warnings: Vec<String> = each().filter_map(|(id, r)| requeue_warning(*id, *r)).collect();
    warnings.extend(gone.iter().map(|id| format!("{id}: {CONTENT_GONE}, so that it cannot be sent again")));
    Ok(Json(Acted { deliveries, results, warnings }))
}

fn requeued_one(id: MessageId, requeued: Requeued) -> ActedOn {
    let (deliveries, due, why) = match requeued {
        Requeued::Again { deliveries, due, .. } => (u64::from(deliveries), due, None),
        Requeued::NoSuchMessage => (0, None, None),
        Requeued::BodyGone => (0, None, Some(CONTENT_GONE)),
        Requeued::Nothing => (0, None, Some("each recipient was served, or is in the queue")),
    };
    let found = requeued != Requeued::NoSuchMessage;
    ActedOn {
        id: id.to_string(),
        deliveries,
        out: 0,
        found,
        due: due.map(Moment),
        why: why.map(str::to_owned),
    }
}

fn requeue_warning(id: MessageId, requeued: Requeued) -> Option<String> {
    let Requeued::Again { twice: twice @ 1.., .. } = requeued else { return None };
    Some(format!(
        "{id}: for {twice} of its recipients the outcome of an attempt is open, or it was taken as sent; it may arrive twice"
    ))
}

async fn act(app: &App, act: Act, body: Content) -> Result<Json<Acted>, Problem> {
    let body = octets(body)?;
    let queue = &*app.relay.queue;
    match read_whom(&body, act == Act::Flush)? {
        Whom::All => {
            let deliveries = queue.flush_all().await?;
            Ok(Json(Acted { deliveries, results: Vec::new(), warnings: Vec::new() }))
        }
        Whom::Ids(ids) => Ok(Json(act_on(queue, act, ids).await?)),
    }
}

async fn act_on(queue: &dyn Queue, act: Act, ids: Vec<MessageId>) -> Result<Acted, Problem> {
    let mut warnings = Vec::new();
    if act == Act::Release {
        for id in &ids {
            warnings.extend(twice_warning(queue, *id).await?);
        }
    }
    let done = queue.act(act, ids.clone()).await?;
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        let of = || done.iter().filter(|(of, _)| *of == id);
        let deliveries = of().map(|(_, acted)| u64::from(acted.changed)).sum();
        let out = of().map(|(_, acted)| u64::from(acted.out)).sum();
        let found = deliveries > 0 || queue.show(id).await?.is_some();
        let due = of().filter_map(|(_, acted)| acted.due).min().map(Moment);
        results.push(ActedOn { id: id.to_string(), deliveries, out, found, due, why: None });
    }
    if results.iter().all(|r| !r.found) {
        return Err(Problem::no_such_message());
    }
    Ok(Acted { deliveries: results.iter().map(|r| r.deliveries).sum(), results, warnings })
}

async fn twice_warning(queue: &dyn Queue, id: MessageId) -> Result<Option<String>, Problem> {
    let Some(view) = queue.show(id).await? else { return Ok(None) };
    let open = |state: &QueueState| {
        matches!(state, QueueState::Unsure { .. } | QueueState::Paused { from: PausedFrom::Unsure { .. } })
    };
    let unsure = view.deliveries.iter().filter(|d| open(&d.state)).count();
    let warning = format!(
        "{id}: the answer to an attempt for {unsure} of its recipients was lost; it may arrive twice"
    );
    Ok((unsure > 0).then_some(warning))
}

/// Whose deliveries an act is for.
enum Whom {
    All,
    Ids(Vec<MessageId>),
}

fn read_whom(body: &[u8], all_allowed: bool) -> Result<Whom, Problem> {
    let members = object(body, "{\"ids\":[\"01jd3k5v9m2xq\"]}")?;
    let (mut ids, mut all, mut wrong) = (None, false, Vec::new());
    for (key, value) in &members {
        match (key.as_str(), value) {
            ("ids", Value::Array(list)) if list.len() <= IDS_MAX => ids = Some(read_ids(list, &mut wrong)),
            ("ids", Value::Array(_)) => {
                wrong.push(FieldProblem::new("ids", format!("more than {IDS_MAX} at a time")))
            }
            ("ids", _) => wrong.push(FieldProblem::new("ids", "not a list of ids")),
            ("all", Value::Bool(value)) if all_allowed => all = *value,
            ("all", _) if all_allowed => wrong.push(FieldProblem::new("all", "neither true nor false")),
            (_, _) => wrong.push(FieldProblem::new(key.as_str(), "no such field")),
        }
    }
    if !wrong.is_empty() {
        return Err(Problem::fields(wrong));
    }
    match (ids, all) {
        (None, true) => Ok(Whom::All),
        (Some(ids), false) if !ids.is_empty() => Ok(Whom::Ids(ids)),
        (Some(ids), true) if !ids.is_empty() => {
            Err(Problem::fields(vec![FieldProblem::new("all", "name ids or all, not both")]))
        }
        (_, _) => Err(Problem::fields(vec![FieldProblem::new("ids", "name at least one message")])),
    }
}

/// Each id once.
fn read_ids(list: &[Value], wrong: &mut Vec<FieldProblem>) -> Vec<MessageId> {
    let mut ids = Vec::with_capacity(list.len());
    for (n, value) in list.iter().enumerate() {
        match value.as_str().map(str::parse::<MessageId>) {
            Some(Ok(id)) if ids.contains(&id) => {}
            Some(Ok(id)) => ids.push(id),
            Some(Err(e)) => wrong.push(FieldProblem::new(format!("ids[{n}]"), e.to_string())),
            None => wrong.push(FieldProblem::new(format!("ids[{n}]"), "not a text")),
        }
    }
    ids
}
