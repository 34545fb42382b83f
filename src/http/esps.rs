//! `/esp-status`, `/v1/esps` and `/v1/resolve`: how the ESPs stand, what an operator does to one, who would carry a mail.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde_json::Value;

use super::App;
use super::body::{Pairs, object, octets, pairs_once};
use super::error::{FieldProblem, Problem};
use super::esp_shape::{Esp, Esps, Pause, Resolved, Suspend, Tried};
use crate::address::{Address, Grammar};
use crate::flow::desk::DeskError;
use crate::mail::ReversePath;
use crate::mail::from::Whose;
use crate::units;

/// The reason of a suspension: a sentence, not a report.
pub const REASON_CHARACTERS_MAX: usize = 300;
/// The longest `for`; who wants more leaves it out.
const SUSPENDED_DAYS_MAX: u64 = 365;

pub(super) type Name = Result<Path<String>, PathRejection>;

/// each ESP: its gate, why, what is left of its limits
#[utoipa::path(
    get,
    path = "/esp-status",
    security(("bearer" = ["read"])),
    responses((status = 200, description = "In the configuration's order", body = Esps))
)]
pub(super) async fn list(State(app): State<Arc<App>>) -> Json<Esps> {
    Json(Esps { esps: app.relay.desk.statuses().into_iter().map(Into::into).collect() })
}

/// no mail goes there: {"reason":"…","for":"2h"}; without for: until it is resumed
#[utoipa::path(
    post,
    path = "/v1/esps/{name}/suspend",
    security(("bearer" = ["admin"])),
    params(("name" = String, Path, description = "As [[esp]] names it")),
    request_body = Suspend,
    responses((status = 200, description = "How it stands now", body = Esp))
)]
pub(super) async fn suspend(
    State(app): State<Arc<App>>,
    name: Name,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Esp>, Problem> {
    let name = read_name(name)?;
    let (reason, for_how_long) = read_suspension(&octets(body)?)?;
    let status = app.relay.desk.suspend(&name, &reason, for_how_long).await?;
    Ok(Json(status.into()))
}

/// mail goes there again, a shut gate opens
#[utoipa::path(
    post,
    path = "/v1/esps/{name}/resume",
    security(("bearer" = ["admin"])),
    params(("name" = String, Path, description = "As [[esp]] names it")),
    responses((status = 200, description = "How it stands now", body = Esp))
)]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    name: Name,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Esp>, Problem> {
    let name = read_name(name)?;
    empty(&octets(body)?)?;
    Ok(Json(app.relay.desk.resume(&name).await?.into()))
}

/// connect and log in, without a mail
#[utoipa::path(
    post,
    path = "/v1/esps/{name}/test",
    security(("bearer" = ["admin"])),
    params(("name" = String, Path, description = "As [[esp]] names it")),
    responses((status = 200, description = "How it went", body = Tried))
)]
pub(super) async fn test(
    State(app): State<Arc<App>>,
    name: Name,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Tried>, Problem> {
    let esp = read_name(name)?;
    empty(&octets(body)?)?;
    let tried = app.relay.desk.try_esp(&esp).await?;
    let (ok, said, took_seconds) = (tried.met.is_ok(), tried.met.err(), tried.took.as_secs_f64());
    let steps = tried.steps.into_iter().map(Into::into).collect();
    Ok(Json(Tried { esp, ok, said, in_part: tried.in_part, from: tried.from, took_seconds, steps }))
}

/// all sending stops, mail is taken and waits: {"reason":"…"}
#[utoipa::path(
    post,
    path = "/v1/pause",
    security(("bearer" = ["queue"])),
    request_body = Pause,
    responses((status = 200, description = "How every ESP stands now", body = Esps))
)]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Esps>, Problem> {
    let (reason, for_how_long) = read_suspension(&octets(body)?)?;
    if for_how_long.is_some() {
        let message = "no such field: it lasts until POST /v1/unpause";
        return Err(Problem::fields(vec![FieldProblem::new("for", message)]));
    }
    let statuses = app.relay.desk.pause_all(&reason).await?;
    Ok(Json(Esps { esps: statuses.into_iter().map(Into::into).collect() }))
}

/// sending goes on, but for ESPs that are suspended by name
#[utoipa::path(
    post,
    path = "/v1/unpause",
    security(("bearer" = ["queue"])),
    responses((status = 200, description = "How every ESP stands now", body = Esps))
)]
pub(super) async fn unpause(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Esps>, Problem> {
    empty(&octets(body)?)?;
    let statuses = app.relay.desk.unpause_all().await?;
    Ok(Json(Esps { esps: statuses.into_iter().map(Into::into).collect() }))
}

/// Nothing, or an object without members.
pub(super) fn empty(body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() {
        return Ok(());
    }
    let no_field = |key: &String| FieldProblem::new(key.as_str(), "no such field; there is none");
    let wrong: Vec<FieldProblem> = object(body, "{}")?.keys().map(no_field).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Problem::fields(wrong)) }
}

/// who would carry a mail, and why: ?from= &to= &stream=; nothing is sent
#[utoipa::path(
    get,
    path = "/v1/resolve",
    security(("bearer" = ["read"])),
    params(
        ("from" = String, Query, description = "An address, its domain, or <>"),
        ("to" = String, Query, description = "An address"),
        ("stream" = Option<String>, Query, description = "As [[stream]] names it; absent: transactional"),
    ),
    responses((status = 200, description = "Who may, in rank, then who is passed over", body = Resolved))
)]
pub(super) async fn resolve(
    State(app): State<Arc<App>>,
    query: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<Resolved>, Problem> {
    let asked = read_question(pairs_once(query, &[])?)?;
    let resolved = app.relay.desk.resolve(asked.from.whose(), &asked.to, asked.stream.as_deref())?;
    Ok(Json(resolved.into()))
}

pub(super) fn read_name(name: Name) -> Result<String, Problem> {
    let bad = |e: PathRejection| Problem::new(StatusCode::BAD_REQUEST, "bad_path", e.body_text());
    name.map(|Path(name)| name).map_err(bad)
}

/// The reason, and for how long.
fn read_suspension(body: &[u8]) -> Result<(String, Option<Duration>), Problem> {
    let members = object(body, "{\"reason\":\"invoice dispute\",\"for\":\"2h\"}")?;
    let (mut reason, mut for_how_long, mut wrong) = (None, None, Vec::new());
    for (key, value) in &members {
        match (key.as_str(), value) {
            ("reason", Value::String(text)) => match read_reason(text) {
                Ok(text) => reason = Some(text),
                Err(what) => wrong.push(FieldProblem::new("reason", what)),
            },
            ("for", Value::String(text)) => match read_for(text) {
                Ok(time) => for_how_long = Some(time),
                Err(what) => wrong.push(FieldProblem::new("for", what)),
            },
            ("for", Value::Null) => {}
            ("reason", _) => wrong.push(FieldProblem::new("reason", "not a text")),
            ("for", _) => wrong.push(FieldProblem::new("for", "not a text such as \"2h\"")),
            (_, _) => wrong.push(FieldProblem::new(key.as_str(), "no such field; there are reason and for")),
        }
    }
    if !members.contains_key("reason") {
        wrong.push(FieldProblem::new("reason", "is missing: say why, for those who look later"));
    }
    match reason {
        Some(reason) if wrong.is_empty() => Ok((reason, for_how_long)),
        Some(_) | None => Err(Problem::fields(wrong)),
    }
}

/// Why an ESP is suspended, as an operator says it.
pub fn read_reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("is empty: say why, for those who look later".into());
    }
    if text.chars().count() > REASON_CHARACTERS_MAX {
        return Err(format!("is longer than {REASON_CHARACTERS_MAX} characters"));
    }
    Ok(text.to_owned())
}

/// For how long: `2h`.
pub fn read_for(text: &str) -> Result<Duration, String> {
    let time = units::duration(text)?;
    if time.is_zero() {
        return Err("is no time at all: write how long, such as 2h".into());
    }
    if time > Duration::from_secs(SUSPENDED_DAYS_MAX * 86_400) {
        return Err(format!(
            "is longer than {SUSPENDED_DAYS_MAX}d; leave it out to suspend it until it is resumed"
        ));
    }
    Ok(time)
}

/// What `/v1/resolve` is asked.
struct Question {
    from: FromWhom,
    to: Address,
    stream: Option<String>,
}

fn read_question(pairs: Pairs) -> Result<Question, Problem> {
    let (mut from, mut to, mut stream, mut wrong) = (None, None, None, Vec::new());
    for (key, value) in pairs {
        match key.as_str() {
            "from" => from = Some(value),
            "to" => to = Some(value),
            "stream" => stream = Some(value),
            _ => wrong.push(FieldProblem::new(key, "no such parameter; there are from, to and stream")),
        }
    }
    let from = from.ok_or_else(|| "is missing: an address, a domain such as example.com, or <>".into());
    let from = from.and_then(|text| read_from(&text)).map_err(|what| FieldProblem::new("from", what));
    let to = to.ok_or_else(|| "is missing: an address".into());
    let to = to.and_then(|text| read_to(&text)).map_err(|what| FieldProblem::new("to", what));
    match (from, to) {
        (Ok(from), Ok(to)) if wrong.is_empty() => Ok(Question { from, to, stream }),
        (from, to) => {
            wrong.extend(from.err());
            wrong.extend(to.err());
            Err(Problem::fields(wrong))
        }
    }
}

/// Whose mail is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromWhom {
    /// In the form of [`Address::key`]; `<>` has none.
    domain: Option<String>,
    /// The envelope's sender, taken to be the From's own; of a domain alone none is known.
    sender: Option<ReversePath>,
}

impl FromWhom {
    pub(super) fn whose(&self) -> Whose<'_> {
        Whose { from_domain: self.domain.as_deref(), sender: self.sender.as_ref() }
    }
}

/// Whose mail: an address, a domain, or `<>`.
pub fn read_from(text: &str) -> Result<FromWhom, String> {
    let text = text.trim();
    if text == "<>" {
        return Ok(FromWhom { domain: None, sender: Some(ReversePath::Null) });
    }
    let bare = without_brackets(text);
    let whole = bare.contains('@');
    let address = if whole { bare.to_owned() } else { format!("x@{bare}") };
    let address = Address::parse(&address, Grammar::Lenient);
    let address = address
        .map_err(|_| format!("{text:?} is neither an address, a domain such as example.com, nor <>"))?;
    let domain = address.key().rsplit_once('@').map(|(_, domain)| domain.to_owned());
    Ok(FromWhom { domain, sender: whole.then_some(ReversePath::Mailbox(address)) })
}

/// To whom.
pub fn read_to(text: &str) -> Result<Address, String> {
    let bare = without_brackets(text.trim());
    Address::parse(bare, Grammar::Lenient).map_err(|error| format!("{text:?}: {error}"))
}

fn without_brackets(text: &str) -> &str {
    text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text)
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        match error {
            DeskError::NoSuchEsp { .. } | DeskError::NoSuchStream { .. } => {
                Problem::new(StatusCode::NOT_FOUND, "not_found", error.to_string())
            }
            DeskError::NoPublicUrl => {
                let mut problem =
                    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "configuration", error.to_string());
                problem.error.fields = vec![FieldProblem::new("http.public_url", "is not set")];
                problem
            }
            DeskError::Store(error) => error.into(),
        }
    }
}
