//! What the store's verbs take and give: domain types, no SQL notion. What is read is in [`super::views`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::delivery::UnsureThen;
use crate::mail::{
    AttemptId, DeliveryId, Event, Lane, Message, MessageId, Outcome, Phase, QueueState, Rule, Step,
};

/// Where the database lies and how far it may grow.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The folder with `postroad.db`.
    pub data_dir: PathBuf,
    /// Undelivered mail, logically; past it 452 (broadcast at 80 %).
    pub queue_octets_max: u64,
    /// Free disk below which nothing is accepted: the database's free pages count as free, what the mail that is
    /// here will still write does not.
    pub min_free_octets: u64,
    /// How long finished bodies stay.
    pub keep_bodies: Duration,
    /// How much of them stays.
    pub keep_bodies_octets: u64,
    /// How long finished messages stay.
    pub keep_messages: Duration,
    /// How long attempts stay.
    pub keep_attempts: Duration,
    /// How long events stay.
    pub keep_events: Duration,
    /// How much finished mail of each sandbox keeps its body.
    pub sandboxes: Vec<Sandboxed>,
    /// Whose mail an event without ids of ours may be about.
    pub kin: Kin,
    /// Whether the log takes its full length at the start, on a disk with plenty of room.
    pub spread_log: bool,
}

/// The mail that a sandbox was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandboxed {
    /// The ESP's name.
    pub esp: String,
    /// So many of it keep their bodies; the oldest lose theirs first.
    pub messages_max: usize,
}

/// The ESPs as far as an account may have several of them, and tells of one's mail by another's webhook.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kin {
    /// Those whose mail no such event is about: they are another provider's.
    pub apart: Vec<String>,
    /// The others by name, each with the key of what its mail has as envelope sender in place of its own. Who is in neither
    /// list was taken out, or has another name now: it may be anyone's.
    pub senders: Vec<(String, Option<String>)>,
}

impl Settings {
    /// For looking into a database that nothing is accepted into or let go from.
    pub fn to_read(data_dir: PathBuf) -> Self {
        let always = Duration::from_secs(u32::MAX as u64);
        Settings {
            data_dir,
            queue_octets_max: u64::MAX,
            min_free_octets: 0,
            keep_bodies: always,
            keep_bodies_octets: u64::MAX,
            keep_messages: always,
            keep_attempts: always,
            keep_events: always,
            sandboxes: Vec::new(),
            kin: Kin::default(),
            spread_log: false,
        }
    }
}

/// Why the store did not do what was asked. Nothing of that item was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk, `min_free` or `queue_bytes` is reached. Passing.
    #[error("no room: {0}")]
    Full(String),
    /// The database did not take it. Passing.
    #[error("the database did not take it: {0}")]
    Failed(String),
    /// The relay is stopping.
    #[error("the relay is stopping")]
    Stopping,
}

/// Why a message was not accepted; nothing of it was kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// None of its recipients may be mailed on its stream.
    #[error("all its recipients are suppressed")]
    Suppressed {
        /// What stands against the first of them.
        first: Suppression,
    },
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A message to accept, with what happens to each recipient.
#[derive(Debug, Clone)]
pub struct Accept {
    /// The prepared message.
    pub message: Arc<Message>,
    /// How it enters the queue, one for each recipient of the envelope, in its order.
    pub entries: Vec<Entry>,
    /// The domain rules that bear on each recipient; empty: none on any.
    pub rules: Vec<Rule>,
}

/// What became of a message with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Once {
    /// It is the first.
    Entered(Vec<Entered>),
    /// This one was.
    Known(MessageId),
}

/// How one delivery enters the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// For a later claim.
    Waiting {
        /// Not before.
        due: Timestamp,
    },
    /// Already begun: the first attempt is in the accept's own transaction.
    Begun(Beginning),
    /// Not at all: no ESP could ever carry it to this recipient, in words. It is done, refused, and its sender is told.
    Never(String),
}

/// One begun attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The call.
    pub attempt: AttemptId,
    /// The ESP's name.
    pub esp: String,
}

/// What an accept did, per recipient in the envelope's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entered {
    /// It waits.
    Waiting,
    /// It is out; the courier may hand it over.
    Begun,
    /// It was suppressed since the verdict at RCPT; it is Done.
    Suppressed,
    /// No ESP could ever carry it; it is Done.
    Never,
}

/// A delivery that is due, and the state that a begin of it must name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The state it was seen in: `Waiting`, or `Unsure` whose hold is over.
    pub from: QueueState,
    /// Attempts so far.
    pub tries: u32,
    /// Rounds so far that ended with a wait: its place in the retry schedule.
    pub rounds: u32,
    /// Attempts whose answer is open.
    pub open_attempts: u32,
    /// How many of those are open only because the relay went down (DELIVERY rule 12).
    pub open_by_crash: u32,
    /// The ESP of the open attempt: it is bound to it.
    pub bound_to: Option<String>,
    /// Since when that ESP has not taken it, after a hold.
    pub unable_since: Option<Timestamp>,
    /// The message's size.
    pub size_octets: u64,
    /// When it is given up.
    pub expires_at: Timestamp,
    /// Its lane, by the rules that bore on it when it was accepted.
    pub lane: Lane,
}

/// A begin: which delivery, seen in which state, at which ESP, under which attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeginRequest {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The state that it was chosen from.
    pub from: QueueState,
    /// The call.
    pub beginning: Beginning,
}

/// The answer to one attempt for one recipient, and what follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Settle {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The attempt that is answered.
    pub attempt: AttemptId,
    /// Its ESP.
    pub esp: String,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// When the answer came.
    pub answered_at: Timestamp,
    /// The answer.
    pub outcome: Outcome,
    /// The phase reached, where there was a line.
    pub phase: Option<Phase>,
    /// What follows.
    pub step: Step,
    /// Its stream's hold: see [`crate::mail::delivery::Delivery::settle`].
    pub hold: Duration,
    /// From which moment's buckets of the ledger its ESP's allowance was taken; a definite no gives it back.
    pub spent: Option<Timestamp>,
    /// Which ESPs came before and after this one, and why.
    pub choice: Option<Arc<str>>,
    /// It was taken by one who was not told what the sender asked about reports.
    pub relayed: bool,
    /// Its ESP tells events, so its own id of the message is looked for.
    pub heard: bool,
}

/// What a settle did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The queue moved to this state.
    Moved(QueueState),
    /// It is done, taken as sent: a second answer was lost (DELIVERY rule 11).
    Assumed,
    /// The queue stood elsewhere; the attempt's row took the answer.
    RowOnly,
}

/// What keeps mail from an address, as far as a verdict needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// `hard_bounce`, `complaint`, `unsubscribe`, `manual`, …
    pub reason: String,
    /// The stream kind or name that it blocks; empty: every stream.
    pub scope: String,
    /// Since when.
    pub since: Timestamp,
    /// Its proof, in words.
    pub evidence: Option<String>,
}

/// A delivery whose hold is over and whose ESP cannot take it (DELIVERY rule 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnableAt {
    /// The delivery.
    pub delivery: DeliveryId,
    /// How long another hold is.
    pub hold: Duration,
    /// What follows it.
    pub then: UnsureThen,
}

/// A delivery that no ESP can take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutOff {
    /// The delivery.
    pub delivery: DeliveryId,
    /// The state that it was chosen from.
    pub from: QueueState,
    /// When it is looked at again.
    pub until: Timestamp,
    /// Its round has tried some ESP, and none is left: it counts as a dispatch.
    pub round_ends: bool,
}

/// What a block of an ESP's allowance gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Recipients that may be sent to.
    pub granted: u64,
    /// When it was taken: that moment's buckets count it.
    pub at: Timestamp,
    /// What is left after it, in the order of `mail::quota::Window::ALL`; `None`: without limit.
    pub left: [Option<u64>; 3],
    /// When the next of what was taken before counts no more, in the same order.
    pub more_at: [Option<Timestamp>; 3],
    /// A window only counts as spent, since a backup was restored.
    pub presumed: bool,
}

/// What an operator said of an ESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; `None`: until it is resumed.
    pub until: Option<Timestamp>,
}

/// What an operator does to a message's deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Due now.
    Flush,
    /// Stop.
    Pause,
    /// Go on.
    Release,
    /// Take out.
    Remove,
}

/// What a start found that the relay before it had left (DELIVERY rule 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Deliveries that were out: unsure now.
    pub crashed: u64,
    /// Holds that are longer now: webhooks could not arrive while the relay was down.
    pub holds_extended: u64,
}

/// What an operator's act did to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acted {
    /// Whether there is such a message.
    pub found: bool,
    /// Deliveries that changed, or were marked while out.
    pub changed: u32,
    /// Those of them that were marked: what is out is not called back.
    pub out: u32,
    /// When the first of those goes that its app wants sent later; of a release.
    pub due: Option<Timestamp>,
}

/// An event to record.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Its message, where known.
    pub message: Option<MessageId>,
    /// Which of its recipients.
    pub recipient: Option<u32>,
    /// The attempt that it tells of.
    pub attempt: Option<AttemptId>,
    /// The ESP that told it.
    pub esp: Option<String>,
    /// What happened: `suppressed`, `expired`, `delivered`, …
    pub kind: String,
    /// When it happened.
    pub at: Timestamp,
    /// One event with this key is taken once; `None`: always.
    pub event_key: Option<String>,
    /// The ESP's id of the message.
    pub remote_id: Option<String>,
    /// As it arrived.
    pub raw: Option<Vec<u8>>,
    /// In words.
    pub detail: String,
    /// How sure its match to the delivery is, 0 to 1; `None`: it named it.
    pub confidence: Option<f64>,
}

impl NewEvent {
    /// An event of that kind at that moment, and nothing else.
    pub fn new(kind: &str, at: Timestamp) -> Self {
        NewEvent {
            message: None,
            recipient: None,
            attempt: None,
            esp: None,
            kind: kind.to_owned(),
            at,
            event_key: None,
            remote_id: None,
            raw: None,
            detail: String::new(),
            confidence: None,
        }
    }
}

/// A suppression to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSuppression {
    /// The address's key.
    pub key: String,
    /// The address as it was given.
    pub address: String,
    /// `hard_bounce`, `complaint`, `unsubscribe`, `manual`, …
    pub reason: String,
    /// The stream kind or name that it blocks; empty: every stream.
    pub scope: String,
    /// Who said so: an ESP's name, `operator`, `import`.
    pub source: String,
    /// Its proof, in words.
    pub evidence: Option<String>,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when; `None`: for good.
    pub expires_at: Option<Timestamp>,
}

/// An event, and the ESP that told it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToldEvent {
    /// The ESP's name.
    pub esp: String,
    /// What it told.
    pub event: Event,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was there already: nothing followed.
    Repeat,
    /// It is kept, and bears on its address; no delivery was found.
    Unmatched,
    /// It is kept, with its delivery.
    Joined(Joined),
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The message.
    pub message: MessageId,
    /// Whose delivery; `None`: that of one of the call's recipients, and the ESP does not say whose.
    pub delivery: Option<DeliveryId>,
    /// It waited, or was held, and is done now.
    pub settled: bool,
}

/// What went before its time where room was short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LetGo {
    /// Bodies of finished messages.
    pub bodies: u64,
    /// Their octets.
    pub octets: u64,
}

/// What a round of retention let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retained {
    /// Bodies of finished messages.
    pub bodies: u64,
    /// Finished messages with all that belongs to them.
    pub messages: u64,
    /// Attempts of finished messages.
    pub attempts: u64,
    /// Events.
    pub events: u64,
    /// Keys of apps.
    pub keys: u64,
    /// Pages given back to the disk.
    pub pages: u64,
}

/// A bearer token to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// What people call it; may be empty.
    pub name: String,
    /// The words of its scopes, with a blank between.
    pub scopes: String,
}
