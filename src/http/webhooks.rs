//! `/v1/esps/{name}/setup` and `/webhook-test`: the webhook that an ESP is to have, and a trial of it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::{Extension, Json};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::App;
use super::body::{object, octets};
use super::error::{ErrorBody, FieldProblem, Problem};
use super::esp_shape::Step;
use super::esps::{Name, read_name};
use super::pace::Pace;
use crate::address::{Address, Grammar};
use crate::esp::setup::{self, State as Stands};
use crate::flow::desk::DeskError;
use crate::flow::webhooks::{self, Followed, SetUp, Tested};
use crate::units;

/// How long an event is waited for.
const WITHIN: Duration = Duration::from_secs(60);
/// And at most.
const WITHIN_MAX: Duration = Duration::from_secs(600);

/// What the routes ask of the relay.
pub trait Webhooks: Send + Sync {
    /// Looks how an ESP's webhook stands, and where `apply` says so makes it so.
    fn set_up<'a>(&'a self, esp: &'a str, apply: bool) -> BoxFuture<'a, Result<SetUp, DeskError>>;

    /// Has an ESP send an event, and follows it for so long.
    fn test<'a>(
        &'a self,
        esp: &'a str,
        from: Option<Address>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Tested, DeskError>>;
}

impl Webhooks for webhooks::Webhooks {
    fn set_up<'a>(&'a self, esp: &'a str, apply: bool) -> BoxFuture<'a, Result<SetUp, DeskError>> {
        webhooks::Webhooks::set_up(self, esp, apply).boxed()
    }

    fn test<'a>(
        &'a self,
        esp: &'a str,
        from: Option<Address>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Tested, DeskError>> {
        webhooks::Webhooks::test(self, esp, from, within).boxed()
    }
}

/// `POST /v1/esps/{name}/setup`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EspSetUp {
    /// Do what the ESP's API allows; else it is only looked.
    #[serde(default)]
    pub apply: bool,
}

/// How the webhook of an ESP stands: the answer of `POST /v1/esps/{name}/setup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Arranged {
    /// The ESP.
    pub esp: String,
    /// What was to be done was done, not only looked at.
    pub applied: bool,
    /// Nothing went wrong; where it was applied, nothing is missing either.
    pub ok: bool,
    /// Where its events are to come; absent: an ESP of this type has no webhook, and there is nothing to set up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What its API tells and changes.
    pub things: Vec<Thing>,
    /// What belongs into the configuration at this `[[esp]]`.
    pub keys: Vec<Key>,
    /// What the relay has no way to do.
    pub by_hand: Vec<ByHand>,
}

/// One thing that an ESP needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SetUpThing)]
pub struct Thing {
    /// In words.
    pub what: String,
    /// How it stands.
    pub state: ThingState,
    /// What is there, what is missing, or what went wrong.
    pub said: String,
}

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SetUpState)]
pub enum ThingState {
    /// As it should be; nothing was done.
    There,
    /// It is not there.
    Missing,
    /// It is there, and not as it should be.
    Differs,
    /// It was not there, and is now.
    Made,
    /// It was not as it should be, and is now.
    Changed,
    /// It could not be seen, or not be done.
    Failed,
}

/// A line for the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SetUpKey)]
pub struct Key {
    /// The key.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
}

/// What somebody has to do elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SetUpByHand)]
pub struct ByHand {
    /// What, and why.
    pub what: String,
    /// For a shell.
    pub commands: Vec<String>,
}

/// `POST /v1/esps/{name}/webhook-test`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookTest {
    /// Whom a mail of the trial comes from, where it needs one (SES): an address that the ESP lets send; absent: `[server]
    /// dsn_from`, else the ESP's `envelope_from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How long the event is waited for, at most `10m`; absent: `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// How a webhook's trial went: the answer of `POST /v1/esps/{name}/webhook-test`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WebhookTested {
    /// The ESP.
    pub esp: String,
    /// An event of the trial is in the store.
    pub ok: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// How long it took, in seconds.
    pub took_seconds: f64,
    /// What was done, in order.
    pub steps: Vec<Step>,
}

/// how an ESP's webhook stands; {"apply":true} sets it up where its API allows
#[utoipa::path(
    post,
    path = "/v1/esps/{name}/setup",
    security(("bearer" = ["admin"])),
    params(("name" = String, Path, description = "As [[esp]] names it")),
    request_body = Option<EspSetUp>,
    responses(
        (status = 200, description = "How it stands, and what is left to do", body = Arranged),
        (status = 422, description = "`[http] public_url` is not set", body = ErrorBody),
    )
)]
pub(super) async fn set_up(
    State(app): State<Arc<App>>,
    Extension(pace): Extension<Arc<Pace>>,
    name: Name,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Arranged>, Problem> {
    let esp = read_name(name)?;
    let apply = read_apply(&octets(body)?)?;
    // Each call to the ESP has a limit of its own.
    pace.given();
    let webhooks = Arc::clone(&app.relay.told.load().webhooks);
    let SetUp { url, ok, arranged } = webhooks.set_up(&esp, apply).await?;
    let setup::Arranged { things, keys, by_hand } = arranged;
    let key = |(key, value): (&'static str, String)| Key { key: key.to_owned(), value };
    Ok(Json(Arranged {
        esp,
        applied: apply,
        ok,
        url,
        things: things.into_iter().map(Into::into).collect(),
        keys: keys.into_iter().map(key).collect(),
        by_hand: by_hand.into_iter().map(|by| ByHand { what: by.what, commands: by.commands }).collect(),
    }))
}

/// an ESP sends an event, which is followed to the store: {"timeout":"60s"}
#[utoipa::path(
    post,
    path = "/v1/esps/{name}/webhook-test",
    security(("bearer" = ["admin"])),
    params(("name" = String, Path, description = "As [[esp]] names it")),
    request_body = Option<WebhookTest>,
    responses(
        (status = 200, description = "How far it came", body = WebhookTested),
        (status = 422, description = "`[http] public_url` is not set", body = ErrorBody),
    )
)]
pub(super) async fn test(
    State(app): State<Arc<App>>,
    Extension(pace): Extension<Arc<Pace>>,
    name: Name,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<WebhookTested>, Problem> {
    let esp = read_name(name)?;
    let (from, within) = read_trial(&octets(body)?)?;
    // It ends by itself.
    pace.given();
    let webhooks = Arc::clone(&app.relay.told.load().webhooks);
    let Tested { steps, met, took } = webhooks.test(&esp, from, within).await?;
    Ok(Json(WebhookTested {
        esp,
        ok: met.is_ok(),
        said: met.err(),
        took_seconds: took.as_secs_f64(),
        steps: steps.into_iter().map(Into::into).collect(),
    }))
}

fn read_apply(body: &[u8]) -> Result<bool, Problem> {
    if body.is_empty() {
        return Ok(false);
    }
    let (mut apply, mut wrong) = (false, Vec::new());
    for (key, value) in &object(body, "{\"apply\":true}")? {
        match (key.as_str(), value) {
            ("apply", Value::Bool(said)) => apply = *said,
            ("apply", _) => wrong.push(FieldProblem::new("apply", "neither true nor false")),
            (_, _) => wrong.push(FieldProblem::new(key.as_str(), "no such field; there is apply")),
        }
    }
    if wrong.is_empty() { Ok(apply) } else { Err(Problem::fields(wrong)) }
}

fn read_trial(body: &[u8]) -> Result<(Option<Address>, Duration), Problem> {
    let (mut from, mut within, mut wrong) = (None, WITHIN, Vec::new());
    if body.is_empty() {
        return Ok((from, within));
    }
    for (key, value) in &object(body, "{\"from\":\"app@example.com\",\"timeout\":\"60s\"}")? {
        let read = match (key.as_str(), value) {
            ("from" | "timeout", Value::Null) => Ok(()),
            ("from", Value::String(text)) => {
                Address::parse(text, Grammar::Strict).map(|read| from = Some(read)).map_err(|e| e.to_string())
            }
            ("timeout", Value::String(text)) => read_timeout(text).map(|read| within = read),
            ("from", _) => Err("not a text".to_owned()),
            ("timeout", _) => Err("not a text such as \"60s\"".to_owned()),
            (_, _) => Err("no such field; there are from and timeout".to_owned()),
        };
        if let Err(what) = read {
            wrong.push(FieldProblem::new(key.as_str(), what));
        }
    }
    if wrong.is_empty() { Ok((from, within)) } else { Err(Problem::fields(wrong)) }
}

/// How long an event is waited for, for the route and the command alike.
pub fn read_timeout(text: &str) -> Result<Duration, String> {
    let time = units::duration(text)?;
    match time.is_zero() || time > WITHIN_MAX {
        true => Err(format!("is not a time up to {} s", WITHIN_MAX.as_secs())),
        false => Ok(time),
    }
}

impl From<setup::Thing> for Thing {
    fn from(thing: setup::Thing) -> Self {
        let state = match thing.state {
            Stands::There => ThingState::There,
            Stands::Missing => ThingState::Missing,
            Stands::Differs => ThingState::Differs,
            Stands::Made => ThingState::Made,
            Stands::Changed => ThingState::Changed,
            Stands::Failed => ThingState::Failed,
        };
        Thing { what: thing.what, state, said: thing.said }
    }
}

impl From<Followed> for Step {
    fn from(step: Followed) -> Self {
        let Followed { name, ok, told, took } = step;
        Step { step: name.to_owned(), ok, said: told, took_seconds: took.as_secs_f64() }
    }
}
