//! The JSON of the queue: what `/v1` answers and what the commands read. Floor 1 has no serde; here its words become
//! text: times in RFC 3339, ids as they are shown everywhere, states as words with what belongs to them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::esp_shape::{Outlook, Suspension};
use crate::clock::Timestamp;
use crate::mail::delivery::{Mark, PausedFrom};
use crate::mail::event::known_of;
use crate::mail::{DeliveryId, Known, QueueState, Reason};
use crate::store::{self, AttemptView, DeliveryView, EventView, MessageView};

/// A time in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Moment(pub Timestamp);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Moment(Timestamp::from_millis(time.as_millisecond())))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One page of `GET /v1/messages`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page {
    /// Newest first.
    pub deliveries: Vec<Delivery>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Why nothing of it moves: all sending is paused. Absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Suspension>,
}

/// One message to one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Delivery {
    /// The message.
    pub id: String,
    /// Which recipient of its envelope, from 0.
    pub n: u32,
    /// The recipient as the envelope has it.
    pub recipient: String,
    /// MAIL FROM; empty for `<>`.
    pub sender: String,
    /// The stream.
    pub stream: String,
    /// `waiting`, `out`, `unsure`, `paused` or `done`.
    pub state: String,
    /// Waiting: not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Moment>,
    /// Unsure, or paused from it: the end of its hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Out, unsure, or paused from it: the attempt that it stands at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// Paused: what a release returns it to, `waiting` or `unsure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_from: Option<String>,
    /// `none`, `handed`, `deferred`, `delivered`, `bounced` or `complained`.
    pub known: String,
    /// Why it is done, where `known` does not say it: `suppressed`, `expired`, `removed`, `assumed`, `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What an operator asked while it was out: `pause` or `remove`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// The ESP of its latest attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub esp: Option<String>,
    /// Attempts so far.
    pub tries: u32,
    /// The last answer's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// The message's size in octets.
    pub size: u64,
    /// When it was accepted.
    pub accepted_at: Moment,
    /// When it is given up.
    pub expires_at: Moment,
}

/// A message's whole life: `GET /v1/messages/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Life {
    /// Its id.
    pub id: String,
    /// MAIL FROM; empty for `<>`.
    pub sender: String,
    /// Its stream.
    pub stream: String,
    /// `transactional` or `broadcast`.
    pub kind: String,
    /// Octets.
    pub size: u64,
    /// When it was accepted.
    pub accepted_at: Moment,
    /// When it is given up.
    pub expires_at: Moment,
    /// The app's labels.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The app's pairs.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The one ESP that may carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// Who handed it in.
    pub source: Source,
    /// Whether its body is still kept.
    pub body_kept: bool,
    /// In the envelope's order.
    pub deliveries: Vec<Delivery>,
    /// Oldest first.
    pub attempts: Vec<Attempt>,
    /// Oldest first; what is told of a call never before it began, whatever the ESP's clock says.
    pub events: Vec<Event>,
    /// Which ESPs those that wait would go to now, and why not to others; only a relay that runs knows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub now: Vec<Outlook>,
}

/// Who handed a message in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// The listener.
    pub listener: String,
    /// The client's address.
    pub client: String,
    /// What it called itself.
    pub helo: String,
    /// Its user name, where it authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// RFC 3848's word.
    pub protocol: String,
}

/// One attempt for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attempt {
    /// Which recipient.
    pub n: u32,
    /// The call's id.
    pub attempt: String,
    /// The ESP.
    pub esp: String,
    /// When it was begun.
    pub begun_at: Moment,
    /// When it was answered; absent: still out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Moment>,
    /// `begun`, `accepted`, `refused`, `unfit` or `unsure`.
    pub outcome: String,
    /// Whose fault, where refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The phase reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The ESP's own id for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<String>,
    /// The ESP's words.
    pub said: String,
    /// Why this ESP, where there are several: its name, then what each other one's place was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<String>,
}

/// Something that happened to a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When.
    pub at: Moment,
    /// Its word.
    pub kind: String,
    /// Which recipient, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// In words.
    pub detail: String,
    /// The call that it tells of, where of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// The ESP that told it; absent: the relay saw it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub esp: Option<String>,
    /// Its kind, as the ESP names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_as: Option<String>,
    /// What a bounce says of the address: `hard`, `soft`, `policy`, `listed`, `refused`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// By what the ESP's event was joined to this message: `attempt_id`, `provider_id` or `recipient_and_time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined_by: Option<String>,
    /// How sure that is, 0 to 1; absent: it named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Its address is on the suppression list for the reason that such an event gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<Suppressing>,
}

/// A suppression, beside an event that gives its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Suppressing {
    /// `hard_bounce`, `complaint`, `unsubscribe`, `soft_bounces` or `deactivated`.
    pub reason: String,
    /// The stream kind that it blocks; absent: every stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Who said so: an ESP, `operator`, `import`.
    pub source: String,
    /// Since when.
    pub since: Moment,
    /// Until when; absent: for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// It is this very event's doing.
    pub by_this_event: bool,
}

/// What `POST /v1/queue/…` is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActOn {
    /// These messages, up to 500.
    #[schema(min_items = 1, max_items = 500)]
    pub ids: Vec<String>,
}

/// What `POST /v1/queue/flush` is for: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flush {
    /// These messages, up to 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 500)]
    pub ids: Option<Vec<String>>,
    /// All that wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// What `POST /v1/queue/…` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acted {
    /// Deliveries that it changed.
    pub deliveries: u64,
    /// For each id that was named; absent for all.
    #[serde(default)]
    pub results: Vec<ActedOn>,
    /// What the operator should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What an act did to one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActedOn {
    /// The message.
    pub id: String,
    /// Deliveries that it changed.
    pub deliveries: u64,
    /// So many of them are out with an ESP now: what was asked is done when their call ends, unless the ESP has taken
    /// the mail, which nobody can call back.
    #[serde(default)]
    pub out: u64,
    /// Whether there is such a message.
    pub found: bool,
    /// When it goes, where its app asked for a later moment than now; of `release` and `requeue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Moment>,
    /// Why it changed none; of `requeue` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl From<DeliveryView> for Delivery {
    fn from(view: DeliveryView) -> Self {
        let mut delivery = Delivery {
            id: view.id.message.to_string(),
            n: view.id.recipient,
            recipient: view.recipient,
            sender: view.sender,
            stream: view.stream,
            state: state(&view.state).into(),
            due: None,
            until: None,
            attempt: None,
            paused_from: None,
            known: known(view.known).into(),
            reason: view.reason.map(|r| reason(r).into()),
            mark: mark(view.mark).map(Into::into),
            esp: view.esp,
            tries: view.tries,
            said: view.said,
            size: view.size_octets,
            accepted_at: Moment(view.accepted_at),
            expires_at: Moment(view.expires_at),
        };
        delivery.set(view.state);
        delivery
    }
}

impl Delivery {
    /// The `cursor` of what is older than this one.
    pub fn cursor(&self) -> String {
        format!("{}.{}", self.id, self.n)
    }

    fn set(&mut self, state: QueueState) {
        let from = match state {
            QueueState::Waiting { due } => {
                self.due = Some(Moment(due));
                return;
            }
            QueueState::Out { attempt, .. } => {
                self.attempt = Some(attempt.to_string());
                return;
            }
            QueueState::Unsure { attempt, until } => PausedFrom::Unsure { attempt, until },
            QueueState::Paused { from } => {
                self.paused_from =
                    Some(if from == PausedFrom::Waiting { "waiting" } else { "unsure" }.into());
                from
            }
            QueueState::Done => return,
        };
        if let PausedFrom::Unsure { attempt, until } = from {
            self.attempt = Some(attempt.to_string());
            self.until = Some(Moment(until));
        }
    }
}

/// Reads a `cursor`.
pub fn read_cursor(text: &str) -> Option<DeliveryId> {
    let (message, recipient) = text.split_once('.')?;
    Some(DeliveryId { message: message.parse().ok()?, recipient: recipient.parse().ok()? })
}

impl From<MessageView> for Life {
    fn from(view: MessageView) -> Self {
        let message = view.message;
        let source = message.source;
        let attempts: Vec<Attempt> = view.attempts.into_iter().map(Into::into).collect();
        let mut events: Vec<Event> = view.events.into_iter().map(Into::into).collect();
        events.sort_by_key(|event| event.place(&attempts));
        Life {
            id: message.id.to_string(),
            sender: message.envelope.sender.wire().into(),
            stream: message.stream.to_string(),
            kind: message.kind.word().into(),
            size: message.body.facts.size_octets,
            accepted_at: Moment(message.accepted_at),
            expires_at: Moment(message.expires_at),
            tags: message.tags,
            metadata: message.metadata.into_iter().collect(),
            pin: message.pin,
            source: Source {
                listener: source.listener,
                client: source.peer.to_string(),
                helo: source.helo,
                credential: source.credential,
                protocol: source.protocol.with().into(),
            },
            body_kept: view.body_kept,
            deliveries: view.deliveries.into_iter().map(Into::into).collect(),
            attempts,
            events,
            now: Vec::new(),
        }
    }
}

impl From<AttemptView> for Attempt {
    fn from(view: AttemptView) -> Self {
        Attempt {
            n: view.delivery.recipient,
            attempt: view.attempt.to_string(),
            esp: view.esp,
            begun_at: Moment(view.begun_at),
            answered_at: view.answered_at.map(Moment),
            outcome: view.outcome,
            fault: view.fault,
            phase: view.phase,
            remote_id: view.remote_id,
            said: view.said,
            choice: view.choice,
        }
    }
}

impl From<EventView> for Event {
    fn from(view: EventView) -> Self {
        let (at, kind, n, detail) = (Moment(view.at), view.kind, view.recipient, view.detail);
        let attempt = view.attempt.map(|attempt| attempt.to_string());
        let mut event = Event {
            at,
            kind,
            n,
            detail,
            attempt,
            esp: None,
            told_as: None,
            class: None,
            joined_by: None,
            confidence: None,
            suppressed: None,
        };
        if let Some(told) = view.told {
            event.esp = Some(told.esp);
            event.told_as = told.told_as;
            event.class = told.class;
            event.joined_by = Some(told.joined.word().into());
            event.confidence = told.joined.confidence();
            event.suppressed = told.suppressed.map(Into::into);
        }
        event
    }
}

impl Event {
    /// Its place among what happened to a message: ESPs tell times in whole seconds, or by clocks of their own, and yet
    /// nothing is told of a call before it begins. Of one moment, what is known rises.
    pub fn place(&self, attempts: &[Attempt]) -> (Moment, Option<Known>) {
        let of_it = attempts.iter().filter(|a| Some(&a.attempt) == self.attempt.as_ref());
        let begun = of_it.filter(|a| self.n.is_none_or(|n| n == a.n)).map(|a| a.begun_at).min();
        (begun.map_or(self.at, |begun| begun.max(self.at)), known_of(&self.kind))
    }
}

impl From<store::Suppressing> for Suppressing {
    fn from(of: store::Suppressing) -> Self {
        Suppressing {
            reason: of.reason,
            scope: Some(of.scope).filter(|scope| !scope.is_empty()),
            source: of.source,
            since: Moment(of.since),
            until: of.until.map(Moment),
            by_this_event: of.by_it,
        }
    }
}

/// The words of a queue state, as `Filter` has them too.
pub const STATES: [&str; 5] = ["waiting", "out", "unsure", "paused", "done"];

fn state(state: &QueueState) -> &'static str {
    match state {
        QueueState::Waiting { .. } => "waiting",
        QueueState::Out { .. } => "out",
        QueueState::Unsure { .. } => "unsure",
        QueueState::Paused { .. } => "paused",
        QueueState::Done => "done",
    }
}

fn known(known: Known) -> &'static str {
    match known {
        Known::Nothing => "none",
        Known::Handed => "handed",
        Known::Deferred => "deferred",
        Known::Delivered => "delivered",
        Known::Bounced => "bounced",
        Known::Complained => "complained",
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Suppressed => "suppressed",
        Reason::Expired => "expired",
        Reason::Removed => "removed",
        Reason::Assumed => "assumed",
        Reason::Refused => "refused",
    }
}

fn mark(mark: Mark) -> Option<&'static str> {
    match mark {
        Mark::None => None,
        Mark::Pause => Some("pause"),
        Mark::Remove => Some("remove"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_call_comes_after_its_beginning_and_rises() {
        use crate::http::fake::{ACCEPTED, attempt, message};
        let whole_second = ACCEPTED.earlier(std::time::Duration::from_millis(5));
        let told = |kind: &str, attempt| EventView {
            at: whole_second,
            kind: kind.to_owned(),
            recipient: Some(0),
            detail: String::new(),
            attempt,
            told: None,
        };
        let mut view = message(2, QueueState::Done, "ok");
        let call = Some(attempt(21));
        view.events.extend([told("delivered", call), told("sent", call), told("alert", None)]);
        let life = Life::from(view);
        let kinds: Vec<&str> = life.events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["alert", "accepted", "sent", "delivered"]);
        assert!(life.events[2].at < life.attempts[0].begun_at, "the ESP's own time stays");
    }

    #[test]
    fn a_moment_and_a_cursor_read_back() {
        let moment = Moment(Timestamp::from_millis(1_795_602_034_005));
        let json = serde_json::to_string(&moment).unwrap();
        assert_eq!(json, "\"2026-11-25T10:20:34.005Z\"");
        assert_eq!(serde_json::from_str::<Moment>(&json).unwrap(), moment);
        let id = read_cursor("01jd3k5v9m2xq.12").unwrap();
        assert_eq!((id.message.to_string().as_str(), id.recipient), ("01jd3k5v9m2xq", 12));
        for bad in ["", "x", "01jd3k5v9m2xq", "01jd3k5v9m2xq.", ".1", "01jd3k5v9m2xq.-1"] {
            assert_eq!(read_cursor(bad), None, "{bad}");
        }
    }
}
