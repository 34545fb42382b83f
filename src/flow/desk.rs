//! What an operator asks of the ESPs and does to them: how each stands, suspend and resume, who would carry a mail, and
//! who is next for one that waits.

use std::sync::Arc;
use std::time::Duration;

use super::choice::{Standing, minded_from, standings};
use super::courier::Courier;
use super::outlet::Load;
use super::setup::{Carrier, Setup};
use crate::address::Address;
use crate::clock::{Timestamp, monotonic};
use crate::journal;
use crate::mail::from::Whose;
use crate::mail::{Lane, Message, QueueState, ReversePath, Rule, StreamKind, StreamName};
use crate::policy::{Verdict, judge};
use crate::router::{PassedOver, Ties};
use crate::store::{EVERY_ESP, MessageView, StoreError, Suspension};
use crate::wire::{Checked, Step};

/// How one ESP stands.
#[derive(Debug, Clone, PartialEq)]
pub struct EspStatus {
    /// Its name.
    pub name: String,
    /// Lower first.
    pub priority: u32,
    /// Share among equal priorities.
    pub weight: u32,
    /// `open`, `shut`, `probing`, `recovering`, `suspended`, or `paused` with all others.
    pub gate: &'static str,
    /// Why mail does not go there now.
    pub why: Option<String>,
    /// What an operator said.
    pub suspension: Option<Suspension>,
    /// Calls begun, on their way or waiting for a connection.
    pub begun: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections that it has shown to allow, where that is fewer.
    pub learnt_connections: Option<usize>,
    /// Recipients that it may still be given, by the tightest limit; `None`: without limit.
    pub allowance_remaining: Option<u64>,
    /// Seconds that an answer takes of late.
    pub usual_seconds: f64,
    /// When its rate leaves room again for transactional mail, where it leaves none now.
    pub rate_opens_at: Option<Timestamp>,
    /// Whose mail it refused, in words, and when it is asked again.
    pub closed_senders: Vec<(String, Timestamp)>,
    /// What is wrong with it and keeps no mail from it: kind and words.
    pub alerts: Vec<(&'static str, String)>,
    /// Its words when it last failed, and when.
    pub last_error: Option<(Timestamp, String)>,
}

/// Who would carry a mail, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The stream that it would have.
    pub stream: String,
    /// And its kind.
    pub kind: StreamKind,
    /// The recipient is suppressed: what a client hears at RCPT.
    pub suppressed: Option<String>,
    /// Every ESP: those that may carry it in rank, then those that are passed over.
    pub standings: Vec<Standing>,
}

/// How the ESPs stand now towards those recipients of a message that wait, as far as the same rules bear on them.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// Which, by their places in the envelope.
    pub recipients: Vec<u32>,
    /// As in [`Resolved`].
    pub standings: Vec<Standing>,
}

/// How it went to log in to an ESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// What it met where it did not come that far.
    pub met: Result<(), String>,
    /// One of its two doors can be used all the same.
    pub in_part: bool,
    /// Whom a mail of the relay's own may come from there: the ESP's `envelope_from`.
    pub from: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// There is no such ESP.
    #[error("there is no ESP named {name:?}; there are: {known}")]
    NoSuchEsp {
        /// The name that was given.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// There is no such stream.
    #[error("there is no stream named {name:?}; there are: {known}")]
    NoSuchStream {
        /// The name that was given.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// It is not known where the ESPs reach the relay.
    #[error(
        "[http] public_url is not set: write the URL at which the ESPs reach this relay, such as \
         \"https://mail.example.com\", and reload"
    )]
    NoPublicUrl,
    /// The database did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Courier {
    /// How every ESP stands, in the configuration's order.
    pub fn esp_statuses(&self) -> Vec<EspStatus> {
        let now = self.clock.now();
        self.setup().carriers.iter().map(|carrier| carrier.status(now)).collect()
    }

    /// Suspends an ESP: it gets no mail until then, or until it is resumed. What is on its way goes on.
    pub async fn suspend(
        self: &Arc<Self>,
        esp: &str,
        reason: &str,
        for_how_long: Option<Duration>,
    ) -> Result<EspStatus, DeskError> {
        let _order = self.order.lock().await;
        let carrier = self.named(esp)?;
        let now = self.clock.now();
        let until = for_how_long.map(|time| now.plus(time));
        let suspension = Suspension { reason: reason.to_owned(), since: now, until };
        self.store.suspend(esp, Some(suspension.clone())).await?;
        carrier.outlet.gate.suspend(Some(suspension));
        journal::esp_suspended(esp, reason, until);
        // What waits for a connection there is chosen for anew.
        self.send_back_all(&carrier.outlet).await;
        if let Some(until) = until {
            self.look_at(until);
        }
        Ok(carrier.status(now))
    }

    /// Resumes an ESP, and reopens its gate where faults had shut it.
    pub async fn resume(self: &Arc<Self>, esp: &str) -> Result<EspStatus, DeskError> {
        let _order = self.order.lock().await;
        let carrier = self.named(esp)?;
        self.store.suspend(esp, None).await?;
        let now = self.clock.now();
        carrier.outlet.gate.reopen(now);
        carrier.outlet.seats.forget();
        carrier.outlet.allowance.stirred();
        journal::esp_resumed(esp);
        self.look_now();
        Ok(carrier.status(now))
    }

    /// Connects and logs in to an ESP, without a mail; what each step met. Bounded by its wire.
    pub async fn try_esp(&self, esp: &str) -> Result<Tried, DeskError> {
        let carrier = self.named(esp)?;
        let began = monotonic();
        let Checked { steps, met, in_part } = carrier.line.wire.check_all().await;
        let from = match carrier.line.esp.sender(&ReversePath::Null) {
            ReversePath::Mailbox(own) => Some(own.wire().to_owned()),
            ReversePath::Null => None,
        };
        Ok(Tried { steps, met, in_part, from, took: began.elapsed() })
    }

    /// Pauses all sending: mail is taken and waits, whatever is on its way goes on. Survives a restart.
    pub async fn pause_all(self: &Arc<Self>, reason: &str) -> Result<Vec<EspStatus>, DeskError> {
        let _order = self.order.lock().await;
        let pause = Suspension { reason: reason.to_owned(), since: self.clock.now(), until: None };
        self.store.suspend(EVERY_ESP, Some(pause.clone())).await?;
        let setup = self.setup();
        setup.carriers.iter().for_each(|c| c.outlet.gate.pause_with_all(Some(pause.clone())));
        journal::sending_paused(reason);
        for Carrier { outlet, .. } in &setup.carriers {
            self.send_back_all(outlet).await;
        }
        Ok(self.esp_statuses())
    }

    /// Lets all go on that is not suspended by its name; after a restore each delivery that it left unfinished has an
    /// event first.
    pub async fn unpause_all(self: &Arc<Self>) -> Result<Vec<EspStatus>, DeskError> {
        let _order = self.order.lock().await;
        let told = self.store.unpause().await?;
        if told > 0 {
            journal::may_have_been_sent(told);
        }
        // Where ESPs are missing another pause may come to light.
        let still = self.store.suspensions().await?.remove(EVERY_ESP);
        self.setup().carriers.iter().for_each(|c| c.outlet.gate.pause_with_all(still.clone()));
        match still {
            Some(pause) => journal::alert("no_esp", format!("all sending is paused: {}", pause.reason)),
            None => journal::sending_unpaused(),
        }
        self.look_now();
        Ok(self.esp_statuses())
    }

    /// Who would carry mail of that sender to that recipient now.
    pub fn resolve(
        &self,
        whose: Whose<'_>,
        to: &Address,
        stream: Option<&str>,
    ) -> Result<Resolved, DeskError> {
        let (name, setup) = (stream.unwrap_or(StreamName::TRANSACTIONAL), self.setup());
        let rules = setup.stream_named(&StreamName::new(name)).ok_or_else(|| DeskError::NoSuchStream {
            name: name.to_owned(),
            known: setup.stream_names().join(", "),
        })?;
        let rule = setup.bearing_on(to, whose.from_domain);
        let lane = Lane { stream: rules.name.clone(), kind: rules.kind, pin: None, rule };
        let load = Load { kind: lane.kind, recipients: 1, whole: false, whose };
        let mut standings = standings(&setup, &lane, load, Ties::default(), self.clock.now());
        pass_over_who_takes_not(&setup, to, &mut standings);
        let blocked = self.store.blocked(&[to.key()], &lane.stream, lane.kind)?;
        let suppressed = match judge(blocked.first().and_then(Option::as_ref)) {
            Verdict::Send => None,
            Verdict::Suppressed { code, enhanced: (class, subject, detail), why } => {
                Some(format!("{code} {class}.{subject}.{detail} suppressed ({why})"))
            }
        };
        Ok(Resolved { stream: name.to_owned(), kind: lane.kind, suppressed, standings })
    }

    /// Who is next for each recipient of a message that waits, and why the others are not. Nothing for those that do
    /// not wait.
    pub async fn outlook(&self, view: &MessageView) -> Result<Vec<Outlook>, StoreError> {
        let waits = |state: &QueueState| matches!(state, QueueState::Waiting { .. });
        let waiting: Vec<u32> =
            view.deliveries.iter().filter(|d| waits(&d.state)).map(|d| d.id.recipient).collect();
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        // A view has no content; whose mail it is stands in the content.
        let setup = self.setup();
        let loaded = match setup.any_domains() || setup.minds_senders() {
            true => self.store.load(vec![view.message.id]).await.pop().transpose()?.flatten(),
            false => None,
        };
        let message = loaded.as_ref().unwrap_or(&view.message);
        Ok(self.outlook_of(&setup, message, &waiting))
    }

    fn outlook_of(&self, setup: &Setup, message: &Message, waiting: &[u32]) -> Vec<Outlook> {
        let (from, rules) = (minded_from(setup, message), setup.rules_of(message));
        let mut groups: Vec<(Rule, Vec<u32>)> = Vec::new();
        for n in waiting {
            let rule = rules.get(*n as usize).cloned().unwrap_or_default();
            match groups.iter_mut().find(|(of, _)| *of == rule) {
                Some((_, recipients)) => recipients.push(*n),
                None => groups.push((rule, vec![*n])),
            }
        }
        let outlook = |(rule, recipients): (Rule, Vec<u32>)| {
            let load = Load {
                kind: message.kind,
                recipients: 1,
                whole: false,
                whose: Whose { from_domain: from.as_deref(), sender: Some(&message.envelope.sender) },
            };
            let ties = Ties { pin: message.pin.as_deref(), ..Ties::default() };
            let lane = Lane::of(message, rule);
            Outlook { recipients, standings: standings(setup, &lane, load, ties, self.clock.now()) }
        };
        groups.into_iter().map(outlook).collect()
    }

    pub(super) fn named(&self, esp: &str) -> Result<Carrier, DeskError> {
        let setup = self.setup();
        setup
            .carrier(esp)
            .cloned()
            .ok_or_else(|| DeskError::NoSuchEsp { name: esp.to_owned(), known: setup.names().join(", ") })
    }
}

impl Carrier {
    fn status(&self, now: Timestamp) -> EspStatus {
        let Carrier { outlet, .. } = self;
        let suspension = outlet.gate.suspension(now);
        let receipt =
            Load { kind: StreamKind::Transactional, recipients: 1, whole: false, whose: Whose::default() };
        let hindrance = outlet.hindrance(receipt, now).as_ref().map(PassedOver::to_string);
        let on_trial = || Some(format!("one message tries it after: {}", outlet.gate.why_shut()?));
        let why = hindrance.or_else(on_trial);
        EspStatus {
            name: self.name().to_owned(),
            priority: self.priority,
            weight: self.weight,
            gate: match &suspension {
                _ if outlet.gate.is_paused() => "paused",
                Some(_) => "suspended",
                None => outlet.gate.word(),
            },
            why,
            suspension,
            begun: outlet.begun(),
            max_connections: outlet.connections(),
            learnt_connections: outlet.seats.learnt(),
            allowance_remaining: outlet.allowance.remaining(now),
            usual_seconds: outlet.gate.usual_seconds(),
            rate_opens_at: outlet.allowance.waits_until(StreamKind::Transactional, now),
            closed_senders: outlet.gate.closed_senders(now),
            alerts: outlet.gate.alerts(),
            last_error: outlet.gate.last_error(),
        }
    }
}

/// An ESP that takes no such address carries nothing there, as RCPT has it.
fn pass_over_who_takes_not(setup: &Setup, to: &Address, standings: &mut [Standing]) {
    let mut next = 0..;
    for standing in &mut *standings {
        let carrier = setup.carrier(&standing.name);
        match carrier.and_then(|carrier| carrier.line.esp.takes(to).err()) {
            Some(unfit) => {
                (standing.rank, standing.why) = (None, Some(PassedOver::Rule(unfit.0)));
            }
            None => standing.rank = standing.rank.and_then(|_| next.next()),
        }
    }
    standings.sort_by_key(|standing| (standing.rank.is_none(), standing.rank));
}
