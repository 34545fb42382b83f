//! Reports to senders (DSN): what is owed is written, and queued as mail of the relay's own, straight to the store.
//!
//! A report has no sender (`<>`), so that none is ever answered by another (RFC 3464 section 2); it goes to nobody who
//! may not be mailed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::courier::Courier;
use super::no_esp;
use super::setup::Setup;
use crate::address::Address;
use crate::clock::{Clock, Timestamp};
use crate::esp::{Content, Parcel};
use crate::journal;
use crate::mail::report::{Cause, Fate, Report};
use crate::mail::{
    Body, BodyKind, DeliveryId, Envelope, IdMint, Message, Protocol, ReversePath, Source, Status, StreamKind,
    StreamName,
};
use crate::policy::{Verdict, judge, reports};
use crate::store::{Accept, Entry, Owed, Store, StoreError};

/// What the recipients of one message meet comes in several commits: so long a report waits for more to tell.
const GATHER: Duration = Duration::from_millis(500);
/// Where the store did not take a report it is tried again after so long.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// What is late is looked for so often.
const DELAYS_EVERY: Duration = Duration::from_secs(5);
/// Recipients that are read at a time, and at most told in one report.
const OWED_MAX: usize = 1_000;
/// The name of this door in logs.
const LISTENER: &str = "report";

/// How senders hear of what became of their mail.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `[server] dsn` is not off.
    pub on: bool,
    /// `[server] dsn_from`; `None`: `MAILER-DAEMON` at the relay's own name.
    pub from: Option<Address>,
    /// The relay's name.
    pub hostname: String,
    /// The host of each ESP that has one, as `Remote-MTA` has it, by the ESP's name.
    pub hosts: HashMap<String, String>,
}

/// What a reporter is made of.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The ids.
    pub mint: Arc<IdMint>,
    /// Who sends the reports.
    pub courier: Arc<Courier>,
    /// How they are written; a reload puts others in their place.
    pub settings: Arc<ArcSwap<Settings>>,
}

/// Writes reports until it is told to stop; what is owed by then is written after the next start.
pub async fn report(parts: Parts, stop: CancellationToken) {
    let mut delays = tokio::time::interval(DELAYS_EVERY);
    delays.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // At the start there may be what the relay before owed.
    let mut due = true;
    loop {
        if due {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(GATHER) => {}
            }
            due = match parts.write_all().await {
                Ok(()) => false,
                Err(StoreError::Stopping) => return,
                Err(error) => {
                    journal::trouble("writing reports to senders", &error.to_string());
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(RETRY_AFTER) => {}
                    }
                    true
                }
            };
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = parts.store.report_is_owed() => due = true,
            _ = delays.tick() => parts.look_for_late().await,
        }
    }
}

impl Parts {
    /// What is late becomes owed.
    async fn look_for_late(&self) {
        let now = self.clock.now();
        let swept = async {
            while self.store.next_delay().await?.is_some_and(|at| at <= now) {
                self.store.sweep_delays(now, OWED_MAX).await?;
            }
            Ok::<(), StoreError>(())
        };
        if let Err(error) = swept.await {
            journal::trouble("looking for mail that is late", &error.to_string());
        }
    }

    /// Each message's report on its own, until all was looked at. One that cannot be written does not hold up the
    /// others; the last such error is told.
    async fn write_all(&self) -> Result<(), StoreError> {
        let (mut after, mut written) = (None, Ok(()));
        loop {
            let owed = self.store.owed(after, OWED_MAX).await?;
            let Some(last) = owed.last() else { return written };
            after = Some((last.delivery, last.cause));
            for of_message in owed.chunk_by(|a, b| a.delivery.message == b.delivery.message) {
                match self.write_one(of_message).await {
                    Err(StoreError::Stopping) => return Err(StoreError::Stopping),
                    Err(error) => written = Err(error),
                    Ok(()) => {}
                }
            }
        }
    }

    async fn write_one(&self, owed: &[Owed]) -> Result<(), StoreError> {
        let Some(first) = owed.first() else { return Ok(()) };
        let told = || owed.iter().map(|o| (o.delivery, o.cause)).collect::<Vec<_>>();
        let Some(message) = self.store.reported(first.delivery.message).await? else {
            return self.store.not_reported(told(), String::new()).await;
        };
        let to = match reports::addressee(&message.envelope) {
            Ok(to) => to,
            Err(why) => return self.give_up(told(), &message, &why).await,
        };
        if let Some(why) = self.why_not(to)? {
            return self.give_up(told(), &message, &why).await;
        }
        let report = self.message(owed, &message, to);
        let setup = self.courier.setup();
        let rules = setup.rules_of(&report);
        if let Some(why) = setup
            .never(&report, Content::Whole(&report.body.head), &rules)
            .pop()
            .map(|(_, reasons)| no_esp::in_a_line(&reasons))
            .or_else(|| self.unfit(&setup, &report))
        {
            return self.give_up(told(), &message, &format!("no ESP could ever carry it ({why})")).await;
        }
        let detail = format!("queued as {} to {}", report.id, to.wire());
        let report = Arc::new(report);
        let entries = vec![Entry::Waiting { due: report.accepted_at }];
        let accept = Accept { message: Arc::clone(&report), entries, rules };
        if self.store.report(accept, told(), detail.clone()).await? {
            journal::accepted(&report);
            journal::event(message.id, None, "reported", &detail);
            self.courier.look_now();
        }
        Ok(())
    }

    /// Why he gets no report; `None`: he does.
    fn why_not(&self, to: &Address) -> Result<Option<String>, StoreError> {
        if !self.settings.load().on {
            return Ok(Some("[server] dsn is off".into()));
        }
        if to.domain().is_none() {
            return Ok(Some(format!("{to} has no domain; [server] origin would give it one")));
        }
        let stream = StreamName::new(StreamName::TRANSACTIONAL);
        let found = self.store.blocked(&[to.key()], &stream, StreamKind::Transactional)?;
        Ok(match judge(found.first().and_then(Option::as_ref)) {
            Verdict::Send => None,
            Verdict::Suppressed { why, .. } => Some(format!("{to} is suppressed ({why})")),
        })
    }

    /// Why no ESP would take a report of this kind; `None`: one would.
    fn unfit(&self, setup: &Setup, report: &Message) -> Option<String> {
        let recipients = &report.envelope.recipients;
        let attempt = self.mint.attempt(&*self.clock);
        let mut reasons = Vec::new();
        for carrier in &setup.carriers {
            let parcel = Parcel { message: report, whole: Some(&report.body.head), recipients, attempt };
            match carrier.line.esp.compose(parcel, report.accepted_at) {
                Ok(_) => return None,
                Err(unfit) => reasons.push(format!("{}: {}", carrier.name(), unfit.0)),
            }
        }
        Some(reasons.join("; "))
    }

    async fn give_up(
        &self,
        told: Vec<(DeliveryId, Cause)>,
        message: &Message,
        why: &str,
    ) -> Result<(), StoreError> {
        self.store.not_reported(told, why.to_owned()).await?;
        journal::event(message.id, None, "not_reported", why);
        Ok(())
    }

    /// The report as a message of its own.
    fn message(&self, owed: &[Owed], message: &Message, to: &Address) -> Message {
        let id = self.mint.message(&*self.clock);
        let (now, settings) = (self.clock.now(), self.settings.load_full());
        let from = match &settings.from {
            Some(from) => from.wire().to_owned(),
            None => format!("MAILER-DAEMON@{}", settings.hostname),
        };
        let report = Report {
            message,
            fates: owed.iter().filter_map(|owed| fate(owed, message, &settings)).collect(),
            to,
            from: &from,
            hostname: &settings.hostname,
            id: &id.to_string(),
            at: now,
        };
        let body = Body::whole(report.write());
        let stream = StreamName::new(StreamName::TRANSACTIONAL);
        let max_age = self.courier.rules(&stream, StreamKind::Transactional).max_age;
        Message {
            id,
            envelope: Envelope {
                sender: ReversePath::Null,
                recipients: vec![to.clone()],
                body: if body.facts.eight_bit { BodyKind::EightBit } else { BodyKind::SevenBit },
                smtputf8: to.needs_smtputf8(),
                reports: None,
            },
            stream,
            kind: StreamKind::Transactional,
            body,
            accepted_at: now,
            expires_at: now.plus(max_age),
            tags: Vec::new(),
            metadata: Vec::new(),
            pin: None,
            source: source(&settings),
        }
    }
}

fn source(settings: &Settings) -> Source {
    Source {
        listener: LISTENER.into(),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        helo: settings.hostname.clone(),
        credential: None,
        protocol: Protocol::Report,
    }
}

fn fate<'a>(owed: &'a Owed, message: &'a Message, settings: &'a Settings) -> Option<Fate<'a>> {
    let place = owed.delivery.recipient as usize;
    Some(Fate {
        to: message.envelope.recipients.get(place)?,
        ask: message.envelope.reports.as_deref().and_then(|asks| asks.of(place)),
        cause: owed.cause,
        status: (owed.cause == Cause::Suppressed).then(|| suppressed_status(&owed.said)).flatten(),
        said: &owed.said,
        remote: owed.esp.as_ref().and_then(|esp| settings.hosts.get(esp)).map(String::as_str),
        last_attempt_at: owed.last_attempt_at,
        open: owed.open,
    })
}

/// STANDARDS §1.7, as at RCPT; it is over for this mail, though the address may be mailed again some day.
fn suppressed_status(reason: &str) -> Option<Status> {
    let suppression = crate::store::Suppression {
        reason: reason.to_owned(),
        scope: String::new(),
        since: Timestamp::from_millis(0),
        evidence: None,
    };
    match judge(Some(&suppression)) {
        Verdict::Suppressed { enhanced: (_, subject, detail), .. } => Status::new(5, subject, detail),
        Verdict::Send => Status::new(5, 7, 1),
    }
}
