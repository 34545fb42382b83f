//! The side port: health, metrics, and the routes of the queue and of the ESPs for operators and their tools.
//!
//! What acts or tells of mail wants a bearer token with a scope. Errors are JSON of one shape, also for what the framework
//! refuses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::address::Address;
use crate::clock::Clock;
use crate::flow::desk::{DeskError, EspStatus, Outlook, Resolved, Tried};
use crate::mail::from::Whose;
use crate::mail::{Budget, MessageId};
use crate::metrics;
use crate::secret::Secret;
use crate::store;
use crate::store::{
    Act, BackedUp, BackupError, DeliveryView, Filter, Listed, MessageView, NewSuppression, Progress,
    QueueCount, Requeued, StoreError, Suspension,
};

pub mod backup;
mod body;
mod contract;
pub mod error;
pub mod esp_shape;
pub mod esps;
pub mod events;
pub mod follow;
mod forwarded;
mod fresh;
mod guard;
mod health;
pub mod hooks;
mod json;
pub mod letters;
pub mod live;
pub mod messages;
pub mod notifications;
mod pace;
mod paging;
mod probe;
mod rate;
pub mod reload;
mod replays;
mod room;
pub mod scope;
mod secure;
pub mod send;
mod serve;
pub mod settings;
pub mod shape;
pub mod suppressions;
pub mod tokens;
mod unread;
pub mod verifier;
mod visitors;
pub mod webhooks;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use contract::Contract;
pub use error::{ErrorBody, FieldProblem, Problem};
pub use hooks::{HookPost, Hooks};
pub use live::{Live, LiveDesk, LivePost};
pub use probe::PROBE_NAME;
pub use reload::Reload;
pub use room::HookRoom;
pub use secure::Secure;
pub use send::Post;
pub use serve::{SidePort, What, serve};
pub use settings::HttpSettings;
pub use tokens::Tokens;
pub use webhooks::Webhooks;

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
    fn act(
        &self,
        act: Act,
        ids: Vec<MessageId>,
    ) -> BoxFuture<'_, Result<Vec<(MessageId, crate::store::Acted)>, StoreError>>;

    /// Puts who was not served into the queue again, tells the log, and says what became of each message.
    fn requeue(&self, ids: Vec<MessageId>) -> BoxFuture<'_, Result<Vec<Requeued>, StoreError>>;

    /// Makes all that waits due now, tells the log, and says how many deliveries were not due before.
    fn flush_all(&self) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// How much waits.
    fn counts(&self) -> BoxFuture<'_, Result<Vec<QueueCount>, StoreError>>;

    /// Why all sending is paused, where it is.
    fn paused(&self) -> BoxFuture<'_, Result<Option<Suspension>, StoreError>>;

    /// Makes a copy of the database while mail goes on, and tells the log.
    fn back_up<'a>(
        &'a self,
        file: &'a Path,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<BackedUp, BackupError>>;

    /// Events before that number, newest first; `unmatched`: what ESPs told of no delivery that is known.
    fn events(
        &self,
        unmatched: bool,
        before: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<store::Told>, StoreError>>;

    /// The log of events out to the app, newest first.
    fn notifications(
        &self,
        filter: store::NotificationFilter,
    ) -> BoxFuture<'_, Result<Vec<store::Notification>, StoreError>>;

    /// Has events told once more.
    fn replay_notifications(
        &self,
        replay: store::Replay,
    ) -> BoxFuture<'_, Result<store::Replayed, StoreError>>;

    /// Changes with each commit that wrote an event.
    fn event_news(&self) -> tokio::sync::watch::Receiver<()>;

    /// What the numbers of the events mean.
    fn timeline(&self) -> BoxFuture<'_, Result<store::Timeline, StoreError>>;

    /// Events after that number, oldest first.
    fn events_after(
        &self,
        unmatched: bool,
        after: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<store::Told>, StoreError>>;

    /// Suppressions behind that one (key, scope, reason); of one key alone where it is named.
    fn suppressions(
        &self,
        key: Option<String>,
        after: [String; 3],
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Listed>, StoreError>>;

    /// Writes one; `false`: it was there before.
    fn suppress(&self, new: NewSuppression) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Takes an address's away, those of one reason or all; how many.
    fn unsuppress(&self, key: String, reason: Option<String>) -> BoxFuture<'_, Result<u64, StoreError>>;

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

    /// Connects and logs in to an ESP, without a mail.
    fn try_esp<'a>(&'a self, esp: &'a str) -> BoxFuture<'a, Result<Tried, DeskError>>;

    /// Pauses all sending, until it is let go on; how every ESP stands then.
    fn pause_all<'a>(&'a self, reason: &'a str) -> BoxFuture<'a, Result<Vec<EspStatus>, DeskError>>;

    /// Lets all sending go on; how every ESP stands then.
    fn unpause_all(&self) -> BoxFuture<'_, Result<Vec<EspStatus>, DeskError>>;

    /// Who would carry mail of that sender to that recipient now.
    fn resolve(&self, whose: Whose<'_>, to: &Address, stream: Option<&str>) -> Result<Resolved, DeskError>;

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
    /// What of it webhooks have.
    pub room: Arc<HookRoom>,
    /// What a reload changes.
    pub told: Arc<ArcSwap<Told>>,
    /// Who reloads.
    pub reload: Arc<dyn Reload>,
    /// The tokens that were made.
    pub tokens: Arc<dyn Tokens>,
}

/// What the configuration says to the port. A request keeps to the one that it began with.
pub struct Told {
    /// Every SMTP listener.
    pub doors: Vec<Door>,
    /// Who takes mail in.
    pub post: Arc<dyn Post>,
    /// Whose `X-Forwarded-For` counts.
    pub proxies: Vec<IpNet>,
    /// What opens every route.
    pub admin_token: Secret,
    /// Who hears what ESPs tell.
    pub hooks: Arc<dyn Hooks>,
    /// Who sets that up.
    pub webhooks: Arc<dyn Webhooks>,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Told").field("doors", &self.doors).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("told", &self.told).finish_non_exhaustive()
    }
}

/// What handlers share.
struct App {
    relay: Relay,
    contract: Contract,
    health: health::Health,
    rates: rate::Rates,
    raw: messages::RawLimit,
    backups: backup::Backups,
    replays: replays::Replays,
    followers: follow::Followers,
    stop: CancellationToken,
}

/// Every route there is. Each says beside its handler what it is for, what it takes and answers, and the scope that it
/// wants: the router, the document and the guard are made from that.
fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(contract::Blank::openapi())
        .routes(routes!(front_page))
        .routes(routes!(contract::document))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(messages::list))
        .routes(routes!(messages::show))
        .routes(routes!(messages::raw))
        .routes(routes!(messages::flush))
        .routes(routes!(messages::pause))
        .routes(routes!(messages::release))
        .routes(routes!(messages::remove))
        .routes(routes!(messages::requeue))
        .routes(routes!(esps::list))
        .routes(routes!(esps::suspend))
        .routes(routes!(esps::resume))
        .routes(routes!(esps::resolve))
        .routes(routes!(esps::test))
        .routes(routes!(webhooks::set_up))
        .routes(routes!(webhooks::test))
        .routes(routes!(esps::pause))
        .routes(routes!(esps::unpause))
        .routes(routes!(send::send))
        .routes(routes!(events::list))
        .routes(routes!(notifications::notifications))
        .routes(routes!(notifications::replay))
        .routes(routes!(suppressions::list, suppressions::add, suppressions::remove))
        .routes(routes!(hooks::by_name))
        .routes(routes!(hooks::bounces))
        .routes(routes!(hooks::complaints))
        .routes(routes!(hooks::engagement))
        .routes(routes!(reload::reload))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(backup::back_up))
}

fn router(relay: Relay, stop: CancellationToken) -> Router {
    let (router, api) = routes().split_for_parts();
    let app = app(relay, &api, stop);
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(no_such_route)
        .layer(from_fn_with_state(Arc::clone(&app), replays::once))
        .layer(from_fn_with_state(Arc::clone(&app), guard::token))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_OCTETS_MAX))
        .layer(from_fn(guard::every_request))
        .with_state(app)
}

/// What whoever may reach it is let to: the webhooks, which prove themselves. Nothing else is there.
fn public_router(relay: Relay, stop: CancellationToken) -> Router {
    let (router, api) = OpenApiRouter::with_openapi(contract::Blank::openapi())
        .routes(routes!(hooks::by_name))
        .routes(routes!(hooks::bounces))
        .routes(routes!(hooks::complaints))
        .routes(routes!(hooks::engagement))
        .split_for_parts();
    router
        .method_not_allowed_fallback(wrong_method)
        .fallback(nothing_here)
        .layer(from_fn(guard::every_request))
        .with_state(app(relay, &api, stop))
}

fn app(relay: Relay, api: &utoipa::openapi::OpenApi, stop: CancellationToken) -> Arc<App> {
    Arc::new(App {
        relay,
        contract: Contract::of(api),
        health: health::Health::default(),
        rates: rate::Rates::default(),
        raw: messages::RawLimit::default(),
        backups: backup::Backups::default(),
        replays: replays::Replays::default(),
        followers: follow::Followers::default(),
        stop,
    })
}

async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no_such_route", "no such route")
}

/// this page
#[utoipa::path(
    get,
    path = "/",
    responses((status = 200, description = "Every route, in words", body = String, content_type = "text/plain; charset=utf-8"))
)]
async fn front_page(State(app): State<Arc<App>>) -> String {
    let mut page = String::from("Postroad: one local SMTP door to every email service provider.\n\n");
    for line in app.contract.lines() {
        let scope = line.scope.map_or("", scope::Scope::word);
        page.push_str(&format!("{:6} {:26} {scope:6} {}\n", line.method, line.path, line.what));
    }
    page.push_str(
        "\nWhere a scope is named: Authorization: Bearer TOKEN. The token in admin.token in the data directory has every \
         scope; postroad token create makes others.\n",
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
