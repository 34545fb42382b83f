//! The webhooks: `POST /webhooks/{esp}`, and three routes for callers that send each kind of event to its own URL. The
//! body is read untouched, since that is what is signed; the answer comes after the commit.
//!
//! Who cannot prove to be the ESP hears 401 and nothing else, whatever the reason and whatever the body is: what is wrong with
//! a body is told once it is proven. Never 403: Postmark would stop for ever. The one exception is 503, where a call could be
//! Amazon's and what proves it cannot be had now (docs/decisions/0023-webhooks.md).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::App;
use super::error::{ErrorBody, Problem};
use super::rate::Whose;
use super::room;
use super::send::Peer;
use crate::clock::monotonic;
use crate::flow::feedback::{Counted, Feedback, NotHeard};

/// A body: SendGrid's batches end at 768 KB, Postmark's bounces may have the whole message in them.
pub const HOOK_OCTETS_MAX: usize = 8_000_000;
/// Header fields that are looked at.
const FIELDS_MAX: usize = 64;

/// The code of a POST that nobody has shown to come from the ESP.
pub(super) const UNPROVEN: &str = "unproven";

/// A POST as it came.
#[derive(Debug)]
pub struct HookPost {
    /// Names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Untouched.
    pub body: Bytes,
}

/// What the routes ask of the relay.
pub trait Hooks: Send + Sync {
    /// The ESP that a POST without a name is for, where only one can be meant.
    fn whose(&self, post: &HookPost) -> Option<String>;

    /// Takes it; `Ok`: it is committed.
    fn hear(self: Arc<Self>, esp: String, post: HookPost) -> BoxFuture<'static, Result<Counted, NotHeard>>;
}

impl Hooks for Feedback {
    fn whose(&self, post: &HookPost) -> Option<String> {
        Feedback::whose(self, &post.fields, &post.body).map(str::to_owned)
    }

    fn hear(self: Arc<Self>, esp: String, post: HookPost) -> BoxFuture<'static, Result<Counted, NotHeard>> {
        // On a task of its own: a caller that hangs up does not stop half-way what is being committed.
        let task = tokio::spawn(async move { Feedback::hear(&self, &esp, &post.fields, &post.body).await });
        let ended = || NotHeard::Later("a fault in Postroad; its log says more".to_owned());
        async move { task.await.unwrap_or_else(|_| Err(ended())) }.boxed()
    }
}

/// What became of a POST's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HookTaken {
    /// Events that are new.
    pub taken: usize,
    /// Events that were there already.
    pub repeated: usize,
    /// Of the new ones, those whose delivery was not found: they bear on their address all the same.
    pub unmatched: usize,
}

/// Of the routes without a name.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Named {
    /// As [[esp]] name has it; absent: told from the request
    esp: Option<String>,
}

/// What a webhook answers, in the contract.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it is read by the macro alone")]
enum Answers {
    #[response(status = 200, description = "Committed")]
    Taken(HookTaken),
    #[response(status = 400, description = "It comes from the ESP, and cannot be read")]
    Unread(ErrorBody),
    #[response(status = 401, description = "Not shown to come from the ESP")]
    Unproven(ErrorBody),
    #[response(status = 413, description = "Over 8 MB, or over 20,000 events")]
    TooLarge(ErrorBody),
    #[response(status = 429, description = "Too many that could not be proven, from that address")]
    TooOften(ErrorBody),
    #[response(status = 503, description = "Nothing was taken; send it again")]
    Later(ErrorBody),
}

/// an ESP's events, as its webhook sends them
#[utoipa::path(
    post,
    path = "/webhooks/{esp}",
    params(("esp" = String, Path, description = "As [[esp]] name has it")),
    request_body(content = String, content_type = "application/json", description = "As the ESP sends it, with its proof"),
    responses(Answers)
)]
pub(super) async fn by_name(
    State(app): State<Arc<App>>,
    Path(esp): Path<String>,
    request: Request,
) -> Result<Json<HookTaken>, Problem> {
    hear(&app, Some(esp), request).await
}

/// bounces, for callers that send each kind to its own URL
#[utoipa::path(
    post,
    path = "/bounce-webhook",
    params(Named),
    request_body(content = String, content_type = "application/json"),
    responses(Answers)
)]
pub(super) async fn bounces(
    State(app): State<Arc<App>>,
    query: Query<Named>,
    request: Request,
) -> Result<Json<HookTaken>, Problem> {
    hear(&app, query.0.esp, request).await
}

/// complaints, for callers that send each kind to its own URL
#[utoipa::path(
    post,
    path = "/complaint-webhook",
    params(Named),
    request_body(content = String, content_type = "application/json"),
    responses(Answers)
)]
pub(super) async fn complaints(
    State(app): State<Arc<App>>,
    query: Query<Named>,
    request: Request,
) -> Result<Json<HookTaken>, Problem> {
    hear(&app, query.0.esp, request).await
}

/// deliveries, opens and clicks, for callers that send each kind to its own URL
#[utoipa::path(
    post,
    path = "/engagement-webhook",
    params(Named),
    request_body(content = String, content_type = "application/json"),
    responses(Answers)
)]
pub(super) async fn engagement(
    State(app): State<Arc<App>>,
    query: Query<Named>,
    request: Request,
) -> Result<Json<HookTaken>, Problem> {
    hear(&app, query.0.esp, request).await
}

async fn hear(app: &App, esp: Option<String>, request: Request) -> Result<Json<HookTaken>, Problem> {
    let (parts, body) = request.into_parts();
    let (body, _memory) = room::read(&app.relay.room, &parts, body).await?;
    let post = HookPost { fields: fields(&parts.headers), body };
    let hooks = Arc::clone(&app.relay.told.load().hooks);
    let stranger = parts.extensions.get::<Peer>().map(|peer| Whose::stranger(peer.0));
    let heard = match esp.or_else(|| hooks.whose(&post)) {
        Some(esp) => hooks.hear(esp, post).await,
        None => Err(NotHeard::Unproven),
    };
    heard.map(|counted| Json(taken(counted))).map_err(|not| match not {
        NotHeard::Unproven | NotHeard::Later(_) => {
            match stranger.map(|whose| app.rates.take(whose, monotonic())) {
                Some(Err(wait)) => Problem::too_often(wait),
                _ => problem(not),
            }
        }
        not => problem(not),
    })
}

fn taken(counted: Counted) -> HookTaken {
    let Counted { taken, repeated, unmatched } = counted;
    HookTaken { taken, repeated, unmatched }
}

fn fields(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let field = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        (name.as_str().to_owned(), value.as_bytes().to_vec())
    };
    headers.iter().take(FIELDS_MAX).map(field).collect()
}

/// One text for every reason.
fn unproven() -> Problem {
    let message = "not shown to come from the ESP; the relay's log says why";
    Problem::new(StatusCode::UNAUTHORIZED, UNPROVEN, message)
}

pub(super) fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        "a webhook's body may have 8 MB and 20,000 events",
    )
}

fn problem(not: NotHeard) -> Problem {
    match not {
        NotHeard::Unproven => unproven(),
        NotHeard::Malformed(why) => Problem::new(StatusCode::BAD_REQUEST, "malformed", why),
        NotHeard::TooMany => too_large(),
        NotHeard::Store(error) => error.into(),
        NotHeard::Later(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "later", why),
    }
}
