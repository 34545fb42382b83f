//! The side port: health, metrics, and the routes of the queue and of the ESPs for operators and their tools.
//!
//! Everything under `/v1`, and `/esp-status`, wants the admin token. Errors are JSON of one shape, also for what the framework refuses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::address::Address;
use crate::clock::Clock;
use crate::flow::desk::{DeskError, EspStatus, Outlook, Resolved};
use crate::mail::{Budget, MessageId};
use crate::metrics;
use crate::secret::Secret;
use crate::store::{Act, DeliveryView, Filter, MessageView, QueueCount, StoreError};

mod body;
pub mod error;
pub mod esp_shape;
pub mod esps;
mod fresh;
mod guard;
mod health;
pub mod live;
pub mod messages;
mod probe;
mod serve;
pub mod settings;
pub mod shape;
mod visitors;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

pub use error::{ErrorBody, FieldProblem, Problem};
pub use live::{Live, LiveDesk};
pub use probe::PROBE_NAME;
pub use serve::serve;
pub use settings::HttpSettings;

/// The body of a request.
pub const BODY_OCTETS_MAX: usize = 1024 * 1024;

/// What the routes and the commands ask of the queue.
pub trait Queue: Send + Sync {
    /// Deliveries, newest first.
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<DeliveryView>, StoreError>>;

    /// A message's whole life.
    fn show(&self, id: MessageId) -> BoxFuture<'_, Result<Option<MessageView>, StoreError>>;

    /// A message's content, whole, while it is kept.
    fn body(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;

    /// Does something to the deliveries of these messages, tells the log, and says how many of each it changed.
    fn act(&self, act: Act, ids: Vec<MessageId>) -> BoxFuture<'_, Result<Vec<(MessageId, u64)>, StoreError>>;

    /// Makes all that waits due now, tells the log, and says how many deliveries were not due before.
    fn flush_all(&self) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// How much waits.
    fn counts(&self) -> BoxFuture<'_, Result<Vec<QueueCount>, StoreError>>;

    /// Writes and commits, as an accept would.
    fn probe_write(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// What the routes ask of the ESPs, and do to them. Only a relay that runs has one.
pub trait Desk: Send + Sync {
    /// How every ESP stands, in the configuration's order.
    fn statuses(&self) -> Vec<EspStatus>;

    /// Gives an ESP no more mail, for so long or until it is resumed.
    fn suspend<'a>(
        &'a self,
        esp: &'a str,
        reason: &'a str,
        for_how_long: Option<Duration>,
    ) -> BoxFuture<'a, Result<EspStatus, DeskError>>;

    /// Lets an ESP have mail again, and reopens its gate where faults had shut it.
    fn resume<'a>(&'a self, esp: &'a str) -> BoxFuture<'a, Result<EspStatus, DeskError>>;

    /// Who would carry mail From that domain to that recipient now.
    fn resolve(
        &self,
        from_domain: Option<&str>,
        to: &Address,
        stream: Option<&str>,
    ) -> Result<Resolved, DeskError>;

    /// Who is next for those recipients of a message that wait.
    fn outlook<'a>(&'a self, view: &'a MessageView) -> BoxFuture<'a, Result<Vec<Outlook>, StoreError>>;
}

/// An SMTP listener as `/readyz` tries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    /// Where it really listens.
    pub address: SocketAddr,
    /// TLS from the first octet.
    pub implicit_tls: bool,
}

/// What the routes work with.
#[derive(Clone)]
pub struct Relay {
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// The ESPs.
    pub desk: Arc<dyn Desk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What `/metrics` renders.
    pub metrics: metrics::Handle,
    /// The memory for messages in flight.
    pub budget: Arc<Budget>,
    /// Every SMTP listener.
    pub doors: Vec<Door>,
    /// What opens `/v1` and `/esp-status`.
    pub admin_token: Secret,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("doors", &self.doors).finish_non_exhaustive()
    }
}

/// A route as `/` names it.
#[derive(Debug, Clone, Copy)]
struct Route {
    method: &'static str,
    path: &'static str,
    what: &'static str,
}

/// Every route there is.
const ROUTES: &[Route] = &[
    Route { method: "GET", path: "/healthz", what: "the process is alive" },
    Route {
        method: "GET",
        path: "/readyz",
        what: "it takes mail: an EHLO to each listener and a committed write",
    },
    Route { method: "GET", path: "/metrics", what: "for Prometheus" },
    Route {
        method: "GET",
        path: "/v1/messages",
        what: "the queue, newest first: ?state= &stream= &recipient= &limit= &cursor=",
    },
    Route { method: "GET", path: "/v1/messages/{id}", what: "a message's whole life" },
    Route { method: "GET", path: "/v1/messages/{id}/raw", what: "its content, while it is kept" },
    Route { method: "POST", path: "/v1/queue/flush", what: "due now: {\"ids\":[…]} or {\"all\":true}" },
    Route { method: "POST", path: "/v1/queue/pause", what: "stop: {\"ids\":[…]}" },
    Route { method: "POST", path: "/v1/queue/release", what: "go on: {\"ids\":[…]}" },
    Route { method: "POST", path: "/v1/queue/remove", what: "take out: {\"ids\":[…]}" },
    Route { method: "GET", path: "/esp-status", what: "each ESP: its gate, why, what is left of its limits" },
    Route {
        method: "POST",
        path: "/v1/esps/{name}/suspend",
        what: "no mail goes there: {\"reason\":\"…\",\"for\":\"2h\"}; without for: until it is resumed",
    },
    Route {
        method: "POST",
        path: "/v1/esps/{name}/resume",
        what: "mail goes there again, a shut gate opens",
    },
    Route {
        method: "GET",
        path: "/v1/resolve",
        what: "who would carry a mail, and why: ?from= &to= &stream=; nothing is sent",
    },
];

/// What handlers share.
struct App {
    relay: Relay,
    health: health::Health,
    raw: messages::RawLimit,
}

fn router(relay: Relay) -> Router {
    let app = Arc::new(App { relay, health: health::Health::default(), raw: messages::RawLimit::default() });
    let act = |act| post(move |app, body| messages::act(app, act, body));
    let v1 = Router::new()
        .route("/messages", get(messages::list))
        .route("/messages/{id}", get(messages::show))
        .route("/messages/{id}/raw", get(messages::raw))
        .route("/queue/flush", act(Act::Flush))
        .route("/queue/pause", act(Act::Pause))
        .route("/queue/release", act(Act::Release))
        .route("/queue/remove", act(Act::Remove))
        .route("/esps/{name}/suspend", post(esps::suspend))
        .route("/esps/{name}/resume", post(esps::resume))
        .route("/resolve", get(esps::resolve))
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_such_route)
        .layer(from_fn_with_state(Arc::clone(&app), guard::admin));
    let for_admins = from_fn_with_state(Arc::clone(&app), guard::admin);
    Router::new()
        .route("/", get(front_page))
        .route("/esp-status", get(esps::list).layer(for_admins))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .nest("/v1", v1)
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_such_route)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_OCTETS_MAX))
        .layer(from_fn(guard::every_request))
        .with_state(app)
}

async fn front_page() -> String {
    let mut page = String::from("Postroad: one local SMTP door to every email service provider.\n\n");
    for route in ROUTES {
        page.push_str(&format!("{:4} {:24} {}\n", route.method, route.path, route.what));
    }
    page.push_str(
        "\n/v1 and /esp-status want Authorization: Bearer TOKEN; the token is in admin.token in the data directory.\n",
    );
    page
}

async fn no_such_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_such_route", "no such route; GET / names them all")
}

async fn wrong_method() -> Problem {
    let message = "this route has another method; the Allow header names it";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
}

/// Where a listener can be reached from this machine: an unspecified address is not one to connect to.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
