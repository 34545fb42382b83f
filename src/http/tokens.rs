//! `/v1/tokens`: bearer tokens with scopes, made, named and taken back.
//!
//! A token is 32 octets of chance, so its SHA-256 is as good at rest as a slow hash: there is nothing to guess from.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::body::{Pairs, object, octets, pairs_once};
use super::error::{FieldProblem, Problem};
use super::paging::Paging;
use super::scope::{Scope, Scopes};
use super::shape::Moment;
use crate::clock::Timestamp;
use crate::journal;
use crate::store::{self, NewToken, StoreError};

/// Octets of chance in a token.
const CHANCE_OCTETS: usize = 32;
/// Tells a token of ours from every other, for people and for scanners of secrets.
const PREFIX: &str = "postroad_";
/// A name is a label, not a report.
pub const NAME_CHARACTERS_MAX: usize = 100;

/// What the routes ask of the tokens that are kept.
pub trait Tokens: Send + Sync {
    /// The token of that hash, at once.
    fn find(&self, hash: &[u8; 32]) -> Result<Option<store::Token>, StoreError>;

    /// Notes when it was last used.
    fn note_use(&self, id: i64, at: Timestamp) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Those above that id, in the order in which they were made.
    fn list(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<store::Token>, StoreError>>;

    /// Keeps one.
    fn add(&self, token: NewToken) -> BoxFuture<'_, Result<store::Token, StoreError>>;

    /// Takes one back; whether there was one.
    fn revoke(&self, id: i64) -> BoxFuture<'_, Result<bool, StoreError>>;
}

/// A token, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its number, which `DELETE /v1/tokens/{id}` takes.
    pub id: i64,
    /// What people call it; may be empty.
    pub name: String,
    /// `read`, `send`, `queue`, `lists`, `admin`.
    #[schema(value_type = Vec<Scope>)]
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: Moment,
    /// When it was last used, give or take ten minutes; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Moment>,
}

/// `GET /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenPage {
    /// In the order in which they were made.
    pub tokens: Vec<Token>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `POST /v1/tokens`: what is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WantedToken {
    /// At least one of `read`, `send`, `queue`, `lists`, `admin`.
    #[schema(value_type = Vec<Scope>)]
    pub scopes: Vec<String>,
    /// What people call it, up to 100 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `POST /v1/tokens`: what was made. The text is not kept and never shown again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MadeToken {
    /// The text that `Authorization: Bearer` takes.
    pub token: String,
    /// Its number.
    pub id: i64,
    /// What people call it; may be empty.
    pub name: String,
    /// What it may do.
    #[schema(value_type = Vec<Scope>)]
    pub scopes: Vec<String>,
}

impl std::fmt::Debug for MadeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl From<store::Token> for Token {
    fn from(token: store::Token) -> Self {
        Token {
            id: token.id,
            name: token.name,
            scopes: words(&Scopes::read(&token.scopes)),
            created_at: Moment(token.created_at),
            used_at: token.used_at.map(Moment),
        }
    }
}

fn words(scopes: &Scopes) -> Vec<String> {
    scopes.words().into_iter().map(str::to_owned).collect()
}

/// What is kept of a token's text.
pub(super) fn hash(text: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, text).as_ref());
    hash
}

/// the tokens, without their text: ?limit= &cursor=
#[utoipa::path(
    get,
    path = "/v1/tokens",
    security(("bearer" = ["admin"])),
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "At most so many; 100 where absent"),
        ("cursor" = Option<String>, Query, description = "The next of the page before"),
    ),
    responses((status = 200, description = "One page", body = TokenPage))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<TokenPage>, Problem> {
    let Paging { limit, cursor: after, .. } = read_page(pairs_once(query, &[])?)?;
    let tokens: Vec<Token> = app.relay.tokens.list(after, limit).await?.into_iter().map(Into::into).collect();
    let next = tokens.last().filter(|_| tokens.len() >= limit).map(|last| last.id.to_string());
    Ok(Json(TokenPage { tokens, next }))
}

fn read_page(pairs: Pairs) -> Result<Paging<i64>, Problem> {
    let mut paging = Paging::new(0, |text| text.parse().ok(), "");
    let wrong: Vec<FieldProblem> = pairs.iter().filter_map(|(key, value)| paging.take(key, value)).collect();
    if wrong.is_empty() { Ok(paging) } else { Err(Problem::fields(wrong)) }
}

/// a new token, shown this once: {"scopes":["send"],"name":"shop"}
#[utoipa::path(
    post,
    path = "/v1/tokens",
    security(("bearer" = ["admin"])),
    request_body = WantedToken,
    responses((status = 201, description = "It was made", body = MadeToken))
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<MadeToken>), Problem> {
    let (scopes, name) = read_wanted(&octets(body)?)?;
    let text =
        text().map_err(|message| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_chance", message))?;
    let new = NewToken { hash: hash(text.as_bytes()), name, scopes: scopes.words().join(" ") };
    let kept = app.relay.tokens.add(new).await?;
    journal::token_made(kept.id, &kept.name, &kept.scopes);
    let made = MadeToken { token: text, id: kept.id, name: kept.name, scopes: words(&scopes) };
    Ok((StatusCode::CREATED, Json(made)))
}

fn text() -> Result<String, &'static str> {
    let mut octets = [0; CHANCE_OCTETS];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| "the system gives no random numbers; try again")?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(octets)))
}

fn read_wanted(body: &[u8]) -> Result<(Scopes, String), Problem> {
    let members = object(body, "{\"scopes\":[\"send\"],\"name\":\"shop\"}")?;
    let (mut scopes, mut name, mut wrong) = (Vec::new(), String::new(), Vec::new());
    for (key, value) in &members {
        match (key.as_str(), value) {
            ("scopes", Value::Array(list)) => scopes = read_scopes(list, &mut wrong),
            ("scopes", _) => wrong.push(FieldProblem::new("scopes", "not a list of scopes")),
            ("name", Value::String(text)) => match read_name(text) {
                Ok(text) => name = text,
                Err(what) => wrong.push(FieldProblem::new("name", what)),
            },
            ("name", Value::Null) => {}
            ("name", _) => wrong.push(FieldProblem::new("name", "not a text")),
            (_, _) => wrong.push(FieldProblem::new(key.as_str(), "no such field; there are scopes and name")),
        }
    }
    if scopes.is_empty() && !wrong.iter().any(|w| w.field.starts_with("scopes")) {
        wrong.push(FieldProblem::new("scopes", "name at least one of read, send, queue, lists, admin"));
    }
    if wrong.is_empty() { Ok((Scopes::of(&scopes), name)) } else { Err(Problem::fields(wrong)) }
}

fn read_scopes(list: &[Value], wrong: &mut Vec<FieldProblem>) -> Vec<Scope> {
    let mut scopes = Vec::new();
    for (n, value) in list.iter().enumerate() {
        match value.as_str().map(str::parse) {
            Some(Ok(scope)) => scopes.push(scope),
            Some(Err(what)) => wrong.push(FieldProblem::new(format!("scopes[{n}]"), what)),
            None => wrong.push(FieldProblem::new(format!("scopes[{n}]"), "not a text")),
        }
    }
    scopes
}

/// A token's name: one line, not too long.
///
/// Errors: what is wrong with it.
pub fn read_name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.chars().count() > NAME_CHARACTERS_MAX {
        return Err(format!("longer than {NAME_CHARACTERS_MAX} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("has control characters in it; write one line".into());
    }
    Ok(text.to_owned())
}

/// takes a token back, at once
#[utoipa::path(
    delete,
    path = "/v1/tokens/{id}",
    security(("bearer" = ["admin"])),
    params(("id" = i64, Path, description = "Its number")),
    responses(
        (status = 204, description = "It opens nothing any more"),
        (status = 404, description = "There is no such token", body = super::error::ErrorBody),
    )
)]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(text) = id.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "bad_path", e.body_text()))?;
    let bad = |_| Problem::fields(vec![FieldProblem::new("id", "not a number; GET /v1/tokens names them")]);
    let id: i64 = text.parse().map_err(bad)?;
    if !app.relay.tokens.revoke(id).await? {
        let message = "no such token; GET /v1/tokens names them";
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", message));
    }
    journal::token_revoked(id);
    Ok(StatusCode::NO_CONTENT)
}
