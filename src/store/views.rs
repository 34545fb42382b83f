//! What is read of the store: the queue, a message and its story, the suppression list, events.

use crate::clock::Timestamp;
use crate::mail::delivery::Mark;
use crate::mail::{AttemptId, DeliveryId, Known, Message, MessageId, QueueState, Reason};

/// One delivery as `queue list`, `queue show` and `explain` see it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryView {
    /// The delivery.
    pub id: DeliveryId,
    /// The recipient's wire form.
    pub recipient: String,
    /// Where it stands.
    pub state: QueueState,
    /// What is known.
    pub known: Known,
    /// Why it is Done.
    pub reason: Option<Reason>,
    /// What an operator asked.
    pub mark: Mark,
    /// The ESP of its latest attempt.
    pub esp: Option<String>,
    /// Attempts so far.
    pub tries: u32,
    /// The last answer's words.
    pub said: Option<String>,
    /// Its stream.
    pub stream: String,
    /// The sender's wire form, empty for `<>`.
    pub sender: String,
    /// The message's size.
    pub size_octets: u64,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it is given up.
    pub expires_at: Timestamp,
}

/// One attempt for one recipient, as `explain` tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptView {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The call.
    pub attempt: AttemptId,
    /// The ESP.
    pub esp: String,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// When it was answered; `None`: still out.
    pub answered_at: Option<Timestamp>,
    /// `begun`, `accepted`, `refused`, `unfit` or `unsure`.
    pub outcome: String,
    /// Whose fault, where refused.
    pub fault: Option<String>,
    /// The phase reached.
    pub phase: Option<String>,
    /// The ESP's id.
    pub remote_id: Option<String>,
    /// The ESP's words.
    pub said: String,
    /// Which ESPs came before and after this one, and why.
    pub choice: Option<String>,
}

/// One event of a delivery or message, as `explain` tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct EventView {
    /// When.
    pub at: Timestamp,
    /// `accepted`, `may_arrive_twice`, `crashed`, `expired`, `removed`, …
    pub kind: String,
    /// Which delivery, where one.
    pub recipient: Option<u32>,
    /// In words.
    pub detail: String,
    /// The call that it tells of, where of one.
    pub attempt: Option<AttemptId>,
    /// What an ESP told with it; `None`: the relay saw it itself.
    pub told: Option<ToldBy>,
}

/// What an ESP told with an event, and what that did.
#[derive(Debug, Clone, PartialEq)]
pub struct ToldBy {
    /// The ESP.
    pub esp: String,
    /// The kind, as it names it.
    pub told_as: Option<String>,
    /// What a bounce says of the address.
    pub class: Option<String>,
    /// By what it was joined to its delivery.
    pub joined: JoinedBy,
    /// Its address is on the list for the reason that such an event gives.
    pub suppressed: Option<Suppressing>,
}

/// A suppression, beside an event that gives its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppressing {
    /// `hard_bounce`, `complaint`, …
    pub reason: String,
    /// The stream kind or name that it blocks; empty: every stream.
    pub scope: String,
    /// Who said so.
    pub source: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: for good.
    pub until: Option<Timestamp>,
    /// It is this very event's doing.
    pub by_it: bool,
}

/// By what an event was joined to its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinedBy {
    /// The ids that went with the call came back.
    Planted,
    /// The ESP's own id of the message.
    RemoteId,
    /// Recipient, ESP and time, which one delivery alone fitted.
    Recipient,
}

impl JoinedBy {
    /// How sure that is, 0 to 1; `None`: it named it.
    pub fn confidence(self) -> Option<f64> {
        match self {
            JoinedBy::Planted => None,
            JoinedBy::RemoteId => Some(0.9),
            JoinedBy::Recipient => Some(0.5),
        }
    }

    /// What so sure a join went by.
    pub fn of(confidence: Option<f64>) -> Self {
        match confidence {
            None => JoinedBy::Planted,
            Some(sure) if sure > 0.7 => JoinedBy::RemoteId,
            Some(_) => JoinedBy::Recipient,
        }
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            JoinedBy::Planted => "attempt_id",
            JoinedBy::RemoteId => "provider_id",
            JoinedBy::Recipient => "recipient_and_time",
        }
    }
}

/// A message's whole life.
#[derive(Debug, Clone)]
pub struct MessageView {
    /// The message without its body: `body.head` is empty.
    pub message: Message,
    /// Whether its body is still kept.
    pub body_kept: bool,
    /// Its deliveries.
    pub deliveries: Vec<DeliveryView>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptView>,
    /// Its events, oldest first.
    pub events: Vec<EventView>,
}

/// Which deliveries `list` shows, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these states: `waiting`, `out`, `unsure`, `paused`, `done`; empty: all but `done`.
    pub states: Vec<String>,
    /// Only this stream.
    pub stream: Option<String>,
    /// Only to this recipient (any spelling).
    pub recipient: Option<String>,
    /// Only older than this (the cursor of the page before).
    pub before: Option<DeliveryId>,
    /// At most so many.
    pub limit: usize,
}

/// How much waits, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueCount {
    /// `waiting`, `out`, `unsure`, `paused`.
    pub state: &'static str,
    /// The stream.
    pub stream: String,
    /// Deliveries.
    pub deliveries: u64,
    /// When the oldest was accepted.
    pub oldest: Option<Timestamp>,
}

/// An event as operators see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Its number: they rise.
    pub number: i64,
    /// When it happened, by the clock of who told it.
    pub at: Timestamp,
    /// Its word.
    pub kind: String,
    /// The ESP that told it, or that it is about.
    pub esp: Option<String>,
    /// Its message, where known.
    pub message: Option<MessageId>,
    /// Which recipient of it.
    pub recipient: Option<u32>,
    /// The call that it tells of.
    pub attempt: Option<AttemptId>,
    /// The key of the address that an ESP named.
    pub address: Option<String>,
    /// What a bounce says of the address.
    pub class: Option<String>,
    /// In words.
    pub detail: String,
    /// By what it was joined to its message; `None`: it was not, or no ESP told it.
    pub joined: Option<JoinedBy>,
    /// Its kind as the ESP names it.
    pub told_as: Option<String>,
    /// The ESP's own id of the message.
    pub remote_id: Option<String>,
}

/// A suppression as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The address's key.
    pub key: String,
    /// The address as it was given.
    pub address: String,
    /// `hard_bounce`, `complaint`, `unsubscribe`, `soft_bounces`, `manual`, `deactivated`, …
    pub reason: String,
    /// The stream kind or name that it blocks; empty: every stream.
    pub scope: String,
    /// Who said so.
    pub source: String,
    /// Its proof, in words.
    pub evidence: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: for good.
    pub until: Option<Timestamp>,
}

/// A bearer token that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its number; never used again.
    pub id: i64,
    /// What people call it; may be empty.
    pub name: String,
    /// The words of its scopes, with a blank between.
    pub scopes: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// About when it was last used.
    pub used_at: Option<Timestamp>,
}
