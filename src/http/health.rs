//! `/healthz`, `/readyz` and `/metrics`. None asks for a token, so none does its work more than once a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use futures_util::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;

use super::esp_shape::Suspension;
use super::fresh::Fresh;
use super::{App, Door, Relay, probe};
use crate::clock::Timestamp;
use crate::flow::desk::EspStatus;
use crate::metrics::{
    ESP_ALLOWANCE_REMAINING, ESP_GATE, MEMORY_OCTETS, QUEUE_DELIVERIES, QUEUE_OLDEST_SECONDS, SENDING_PAUSED,
};
use crate::store::{QueueCount, StoreError};

/// How long a listener or the database may take.
const CHECK_MAX: Duration = Duration::from_secs(5);

/// What is kept between requests.
#[derive(Default)]
pub(super) struct Health {
    ready: Fresh<Readiness>,
    gauges: Fresh<()>,
    /// Series that were shown before: they go to zero, not away.
    shown: Mutex<BTreeSet<(&'static str, String)>>,
    /// The same of ESPs: one that a reload took away gets no mail.
    esps: Mutex<BTreeSet<String>>,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// Every check was well.
    ready: bool,
    /// Each listener, and the database.
    checks: Vec<Check>,
    /// All sending is paused: mail is taken, and waits. Absent: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<Suspension>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Check {
    /// What was tried.
    name: String,
    /// It was well.
    ok: bool,
    /// What was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Check {
    fn new(name: String, result: Result<(), String>) -> Self {
        Check { name, ok: result.is_ok(), why: result.err() }
    }
}

/// the process is alive
#[utoipa::path(
    get,
    path = "/healthz",
    responses((status = 200, description = "It is", body = String, content_type = "text/plain; charset=utf-8"))
)]
pub(super) async fn healthz() -> &'static str {
    "alive\n"
}

/// it takes mail: an EHLO to each listener and a committed write
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, description = "It does; where all sending is paused, paused says why", body = Readiness),
        (status = 503, description = "It does not, and why", body = Readiness),
    )
)]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> impl IntoResponse {
    let readiness = app.health.ready.get(|| check(&app.relay)).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

async fn check(relay: &Relay) -> Readiness {
    let told = relay.told.load_full();
    let doors = join_all(told.doors.iter().map(check_door));
    let (mut checks, database) = tokio::join!(doors, check_database(relay));
    checks.push(database);
    Readiness { ready: checks.iter().all(|c| c.ok), checks, paused: paused(relay).await.flatten() }
}

/// `None`: the database does not say, which its check tells.
async fn paused(relay: &Relay) -> Option<Option<Suspension>> {
    let paused = tokio::time::timeout(CHECK_MAX, relay.queue.paused()).await.ok()?.ok()?;
    Some(paused.map(Into::into))
}

async fn check_door(door: &Door) -> Check {
    let answer = tokio::time::timeout(CHECK_MAX, probe::ehlo(door)).await;
    let result = match answer {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(no_answer()),
    };
    Check::new(format!("smtp {}", door.address), result)
}

async fn check_database(relay: &Relay) -> Check {
    let answer = tokio::time::timeout(CHECK_MAX, relay.queue.probe_write()).await;
    let result = match answer {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(no_answer()),
    };
    Check::new("database".into(), result)
}

fn no_answer() -> String {
    format!("no answer within {} s", CHECK_MAX.as_secs())
}

/// for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "Every metric", body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"))
)]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.health.gauges.get(|| refresh(&app)).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.relay.metrics.render())
}

/// Gauges that are read from the ESPs and the queue rather than kept up to date beside it. A database that does not answer leaves
/// them as they were: the scrape is what tells that something else is wrong.
async fn refresh(app: &App) {
    ::metrics::gauge!(MEMORY_OCTETS).set(float(app.relay.budget.taken_octets()));
    show_esps(&app.health, &app.relay.desk.statuses());
    if let Some(paused) = paused(&app.relay).await {
        ::metrics::gauge!(SENDING_PAUSED).set(if paused.is_some() { 1.0 } else { 0.0 });
    }
    let counts = tokio::time::timeout(CHECK_MAX, app.relay.queue.counts()).await;
    match counts.unwrap_or_else(|_| Err(StoreError::Failed(no_answer()))) {
        Ok(counts) => show(&app.health, &counts, app.relay.clock.now()),
        Err(error) => tracing::debug!(target: "postroad", %error, "the queue was not counted for /metrics"),
    }
}

fn show_esps(health: &Health, esps: &[EspStatus]) {
    esps.iter().for_each(show_esp);
    let mut shown = health.esps.lock().unwrap_or_else(PoisonError::into_inner);
    for gone in shown.iter().filter(|name| !esps.iter().any(|esp| esp.name == **name)) {
        ::metrics::gauge!(ESP_GATE, "esp" => gone.clone()).set(0.0);
        ::metrics::gauge!(ESP_ALLOWANCE_REMAINING, "esp" => gone.clone()).set(0.0);
    }
    shown.extend(esps.iter().map(|esp| esp.name.clone()));
}

fn show_esp(esp: &EspStatus) {
    let gate = match esp.gate {
        "open" => 1.0,
        "probing" | "recovering" => 0.5,
        _ => 0.0,
    };
    ::metrics::gauge!(ESP_GATE, "esp" => esp.name.clone()).set(gate);
    if let Some(left) = esp.allowance_remaining {
        ::metrics::gauge!(ESP_ALLOWANCE_REMAINING, "esp" => esp.name.clone()).set(float(left));
    }
}

fn show(health: &Health, counts: &[QueueCount], now: Timestamp) {
    let mut shown = health.shown.lock().unwrap_or_else(PoisonError::into_inner);
    let mut deliveries: BTreeMap<_, u64> = shown.iter().map(|series| (series.clone(), 0)).collect();
    let mut oldest: BTreeMap<String, Option<Timestamp>> =
        shown.iter().map(|(_, stream)| (stream.clone(), None)).collect();
    for count in counts {
        *deliveries.entry((count.state, count.stream.clone())).or_default() += count.deliveries;
        let of_stream = oldest.entry(count.stream.clone()).or_default();
        *of_stream = (*of_stream).into_iter().chain(count.oldest).min();
    }
    for ((state, stream), n) in &deliveries {
        ::metrics::gauge!(QUEUE_DELIVERIES, "state" => *state, "stream" => stream.clone()).set(float(*n));
    }
    for (stream, at) in oldest {
        let age = at.map_or(0.0, |at| now.since(at).as_secs_f64());
        ::metrics::gauge!(QUEUE_OLDEST_SECONDS, "stream" => stream).set(age);
    }
    shown.extend(deliveries.into_keys());
}

#[allow(clippy::cast_precision_loss, reason = "a gauge is a float; past 2^53 nobody counts")]
fn float(n: u64) -> f64 {
    n as f64
}
