//! What an operator asks of the ESPs and does to them: how each stands, suspend and resume, and who would carry a mail.

use std::sync::Arc;
use std::time::Duration;

use super::choice::Standing;
use super::courier::Courier;
use super::outlet::{Load, Outlet};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::journal;
use crate::mail::{Lane, StreamName};
use crate::router::{PassedOver, Ties};
use crate::store::{StoreError, Suspension};

/// How one ESP stands.
#[derive(Debug, Clone, PartialEq)]
pub struct EspStatus {
    /// Its name.
    pub name: String,
    /// Lower first.
    pub priority: u32,
    /// Share among equal priorities.
    pub weight: u32,
    /// `open`, `shut`, `probing`, `recovering`, or `suspended`.
    pub gate: &'static str,
    /// Why mail does not go there now.
    pub why: Option<String>,
    /// What an operator said.
    pub suspension: Option<Suspension>,
    /// Calls begun, on their way or waiting for a connection.
    pub begun: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// Recipients that it may still be given, by the tightest limit; `None`: without limit.
    pub allowance_remaining: Option<u64>,
    /// Seconds that an answer takes of late.
    pub usual_seconds: f64,
    /// Its words when it last failed, and when.
    pub last_error: Option<(Timestamp, String)>,
}

/// Who would carry a mail, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The stream that it would have.
    pub stream: String,
    /// Every ESP: those that may carry it in rank, then those that are passed over.
    pub standings: Vec<Standing>,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// There is no such ESP.
    #[error("there is no ESP named {0}")]
    NoSuchEsp(String),
    /// There is no such stream.
    #[error("there is no stream named {0}")]
    NoSuchStream(String),
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Courier {
    /// How every ESP stands, in the configuration's order.
    pub fn esp_statuses(&self) -> Vec<EspStatus> {
        let now = self.clock.now();
        self.outlets.iter().map(|outlet| outlet.status(now)).collect()
    }

    /// Suspends an ESP: it gets no mail until then, or until it is resumed. What is on its way goes on.
    pub async fn suspend(
        self: &Arc<Self>,
        esp: &str,
        reason: &str,
        for_how_long: Option<Duration>,
    ) -> Result<EspStatus, DeskError> {
        let outlet = self.named(esp)?;
        let now = self.clock.now();
        let until = for_how_long.map(|time| now.plus(time));
        let suspension = Suspension { reason: reason.to_owned(), since: now, until };
        self.store.suspend(esp, Some(suspension.clone())).await?;
        outlet.gate.suspend(Some(suspension));
        journal::esp_suspended(esp, reason, until);
        // What waits for a connection there is chosen for anew.
        self.send_back_all(outlet).await;
        if let Some(until) = until {
            self.look_at(until);
        }
        Ok(outlet.status(now))
    }

    /// Resumes an ESP, and reopens its gate where faults had shut it.
    pub async fn resume(self: &Arc<Self>, esp: &str) -> Result<EspStatus, DeskError> {
        let outlet = self.named(esp)?;
        self.store.suspend(esp, None).await?;
        let now = self.clock.now();
        outlet.gate.reopen(now);
        journal::esp_resumed(esp);
        self.look_now();
        Ok(outlet.status(now))
    }

    /// Who would carry mail From that domain to that recipient now.
    pub fn resolve(
        &self,
        from_domain: Option<&str>,
        to: &Address,
        stream: Option<&str>,
    ) -> Result<Resolved, DeskError> {
        let name = stream.unwrap_or(StreamName::TRANSACTIONAL);
        let rules = self.stream_named(name).ok_or_else(|| DeskError::NoSuchStream(name.to_owned()))?;
        let rule = self.routes.bearing_on(to, from_domain);
        let lane = Lane { stream: rules.name.clone(), kind: rules.kind, pin: None, rule };
        let load = Load { kind: lane.kind, recipients: 1, from_domain };
        let standings = self.standings(&lane, load, Ties::default());
        Ok(Resolved { stream: name.to_owned(), standings })
    }

    fn named(&self, esp: &str) -> Result<&Arc<Outlet>, DeskError> {
        let found = self.outlets.iter().find(|outlet| &*outlet.name == esp);
        found.ok_or_else(|| DeskError::NoSuchEsp(esp.to_owned()))
    }
}

impl Outlet {
    fn status(&self, now: Timestamp) -> EspStatus {
        let suspension = self.gate.suspension(now);
        let why = self.gate.hindrance(None, now).as_ref().map(PassedOver::to_string);
        EspStatus {
            name: self.name.to_string(),
            priority: self.priority,
            weight: self.weight,
            gate: if suspension.is_some() { "suspended" } else { self.gate.word() },
            why,
            suspension,
            begun: self.begun(),
            max_connections: self.connections,
            allowance_remaining: self.allowance.remaining(now),
            usual_seconds: self.gate.usual_seconds(),
            last_error: self.gate.last_error(),
        }
    }
}
