//! `/v1/suppressions`: who is mailed no more, why, and by whose word.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::body::{Pairs, object, octets, pairs_once};
use super::error::{FieldProblem, Problem};
use super::paging::Paging;
use super::shape::Moment;
use crate::address::{Address, Grammar};
use crate::journal;
use crate::mail::effect::{MANUAL, REASONS};
use crate::store::{Listed, NewSuppression};

/// Who is named as the source of what comes this way.
const OPERATOR: &str = "operator";
/// Words beside an address.
const EVIDENCE_OCTETS_MAX: usize = 500;
/// Scopes that an operator may name: every stream, or a kind of stream.
const SCOPES: [&str; 3] = ["", "broadcast", "transactional"];

/// Why somebody is mailed no more, as the contract has it.
#[derive(ToSchema)]
#[schema(as = SuppressedFor, rename_all = "snake_case")]
#[allow(dead_code, reason = "it is read by the macro alone")]
enum Why {
    HardBounce,
    Complaint,
    Unsubscribe,
    SoftBounces,
    Manual,
    Deactivated,
}

/// One suppression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Suppressed {
    /// The address.
    pub address: String,
    /// Why.
    #[schema(value_type = Why)]
    pub reason: String,
    /// The kind of stream that it blocks; empty: every stream.
    pub scope: String,
    /// Who said so: an ESP's name, `operator`.
    pub source: String,
    /// Its proof, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Since when.
    pub since: Moment,
    /// Until when; absent: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
}

/// `GET /v1/suppressions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SuppressedPage {
    /// By address.
    pub suppressions: Vec<Suppressed>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `POST /v1/suppressions`: whom to mail no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewlySuppressed {
    /// The address.
    pub address: String,
    /// `manual` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Why>)]
    pub reason: Option<String>,
    /// `broadcast` or `transactional`; absent or empty: every stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// What an add or a removal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// Suppressions that are new, or gone.
    pub changed: u64,
}

impl From<Listed> for Suppressed {
    fn from(listed: Listed) -> Self {
        Suppressed {
            address: listed.address,
            reason: listed.reason,
            scope: listed.scope,
            source: listed.source,
            evidence: listed.evidence.filter(|words| !words.is_empty()),
            since: Moment(listed.since),
            until: listed.until.map(Moment),
        }
    }
}

/// who is mailed no more: ?address= &limit= &cursor=
#[utoipa::path(
    get,
    path = "/v1/suppressions",
    security(("bearer" = ["lists"])),
    params(
        ("address" = Option<String>, Query, description = "Of this address alone"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "At most so many; 100 where absent"),
        ("cursor" = Option<String>, Query, description = "The next of the page before"),
    ),
    responses((status = 200, description = "One page", body = SuppressedPage))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<SuppressedPage>, Problem> {
    let (key, Paging { limit, cursor: after, .. }) = read_page(pairs_once(query, &[])?)?;
    let listed = app.relay.queue.suppressions(key, after, limit).await?;
    let next = listed.last().filter(|_| listed.len() >= limit).map(cursor);
    Ok(Json(SuppressedPage { suppressions: listed.into_iter().map(Into::into).collect(), next }))
}

/// somebody to be mailed no more: {"address":"a@example.com","reason":"manual"}
#[utoipa::path(
    post,
    path = "/v1/suppressions",
    security(("bearer" = ["lists"])),
    request_body = NewlySuppressed,
    responses((status = 200, description = "It is on the list; 0 changed: it was before", body = Changed))
)]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Changed>, Problem> {
    let new = read_new(&octets(body)?, &app)?;
    let address = new.address.clone();
    let changed = app.relay.queue.suppress(new).await?;
    journal::list_changed("suppressed", &address, u64::from(changed));
    Ok(Json(Changed { changed: u64::from(changed) }))
}

/// an address that may be mailed again: ?address= &reason=
#[utoipa::path(
    delete,
    path = "/v1/suppressions",
    security(("bearer" = ["lists"])),
    params(
        ("address" = String, Query, description = "The address"),
        ("reason" = Option<Why>, Query, description = "That one alone; absent: all"),
    ),
    responses(
        (status = 200, description = "How many are gone", body = Changed),
        (status = 404, description = "The address is not on the list", body = super::error::ErrorBody),
    )
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    query: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<Changed>, Problem> {
    let (mut address, mut reason, mut wrong) = (None, None, Vec::new());
    for (key, value) in pairs_once(query, &[])? {
        match key.as_str() {
            "address" => match read_address(&value) {
                Ok(read) => address = Some(read),
                Err(what) => wrong.push(FieldProblem::new(key, what)),
            },
            "reason" => match read_reason(&value) {
                Ok(read) => reason = Some(read),
                Err(what) => wrong.push(FieldProblem::new(key, what)),
            },
            _ => wrong.push(FieldProblem::new(key, "no such parameter; there are address and reason")),
        }
    }
    let Some(address) = address.filter(|_| wrong.is_empty()) else {
        if wrong.is_empty() {
            wrong.push(FieldProblem::new("address", "is missing"));
        }
        return Err(Problem::fields(wrong));
    };
    let changed = app.relay.queue.unsuppress(address.key(), reason).await?;
    if changed == 0 {
        let message = format!("{} is not on the list", address.wire());
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", message));
    }
    journal::list_changed("unsuppressed", address.wire(), changed);
    Ok(Json(Changed { changed }))
}

/// One key's alone, and which page.
type Asked = (Option<String>, Paging<[String; 3]>);

fn read_page(pairs: Pairs) -> Result<Asked, Problem> {
    let mut paging = Paging::new(Default::default(), read_cursor, "address, ");
    let (mut of, mut wrong) = (None, Vec::new());
    for (key, value) in pairs {
        match key.as_str() {
            "address" => match read_address(&value) {
                Ok(address) => of = Some(address.key()),
                Err(what) => wrong.push(FieldProblem::new(key, what)),
            },
            key => wrong.extend(paging.take(key, &value)),
        }
    }
    if wrong.is_empty() { Ok((of, paging)) } else { Err(Problem::fields(wrong)) }
}

/// Reason, scope and key: the key may have blanks, the others have none.
fn cursor(listed: &Listed) -> String {
    format!("{} {} {}", listed.reason, listed.scope, listed.key)
}

fn read_cursor(text: &str) -> Option<[String; 3]> {
    let mut parts = text.splitn(3, ' ');
    let (reason, scope, key) = (parts.next()?, parts.next()?, parts.next()?);
    Some([key.to_owned(), scope.to_owned(), reason.to_owned()])
}

/// An address, for the route and the command alike.
pub fn read_address(text: &str) -> Result<Address, String> {
    Address::parse(text, Grammar::Lenient).map_err(|error| error.to_string())
}

/// One of the reasons, for the route and the command alike.
pub fn read_reason(text: &str) -> Result<String, String> {
    match REASONS.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("no such reason; there are {}", REASONS.join(", "))),
    }
}

fn read_new(body: &[u8], app: &App) -> Result<NewSuppression, Problem> {
    let members = object(body, "{\"address\":\"a@example.com\",\"reason\":\"manual\"}")?;
    let (mut address, mut wrong) = (None, Vec::new());
    let (mut reason, mut scope, mut evidence) = (MANUAL.to_owned(), String::new(), None);
    for (key, value) in &members {
        let text = match value {
            Value::String(text) => text.as_str(),
            Value::Null if key != "address" => continue,
            _ => {
                wrong.push(FieldProblem::new(key.as_str(), "not a text"));
                continue;
            }
        };
        let read = match key.as_str() {
            "address" => read_address(text).map(|read| address = Some(read)),
            "reason" => read_reason(text).map(|read| reason = read),
            "scope" if SCOPES.contains(&text) => {
                scope = text.to_owned();
                Ok(())
            }
            "scope" => {
                Err("no such scope; there are broadcast and transactional, or none for every stream".into())
            }
            "evidence" if text.len() <= EVIDENCE_OCTETS_MAX => {
                evidence = Some(text.to_owned());
                Ok(())
            }
            "evidence" => Err(format!("longer than {EVIDENCE_OCTETS_MAX} octets")),
            _ => Err("no such field; there are address, reason, scope and evidence".into()),
        };
        if let Err(what) = read {
            wrong.push(FieldProblem::new(key.as_str(), what));
        }
    }
    let Some(address) = address.filter(|_| wrong.is_empty()) else {
        if !wrong.iter().any(|w| w.field == "address") && !members.iter().any(|(key, _)| key == "address") {
            wrong.push(FieldProblem::new("address", "is missing"));
        }
        return Err(Problem::fields(wrong));
    };
    Ok(NewSuppression {
        key: address.key(),
        address: address.wire().to_owned(),
        reason,
        scope,
        source: OPERATOR.to_owned(),
        evidence,
        created_at: app.relay.clock.now(),
        expires_at: None,
    })
}
