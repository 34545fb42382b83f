//! What the verbs of notifications take and give.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::clock::Timestamp;
use crate::mail::MessageId;
use crate::mail::notification::Next;

/// Who is told, and of what.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// The events, in their words.
    pub events: Vec<&'static str>,
    /// Set once it wants nothing more.
    pub gone: Arc<AtomicBool>,
}

/// Where a notification stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationState {
    /// It is told, or will be.
    Waiting,
    /// The receiver has it.
    Taken,
    /// It is told no more.
    Failed,
}

impl NotificationState {
    /// All of them.
    pub const ALL: [NotificationState; 3] =
        [NotificationState::Waiting, NotificationState::Taken, NotificationState::Failed];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            NotificationState::Waiting => "waiting",
            NotificationState::Taken => "taken",
            NotificationState::Failed => "failed",
        }
    }

    pub(super) fn code(self) -> i64 {
        match self {
            NotificationState::Waiting => 0,
            NotificationState::Taken => 1,
            NotificationState::Failed => 2,
        }
    }

    pub(super) fn of_code(code: i64) -> Self {
        Self::ALL.into_iter().find(|state| state.code() == code).unwrap_or(NotificationState::Failed)
    }
}

/// One that is to be told now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueNotification {
    /// Its number.
    pub n: i64,
    /// Its id, the same over every repeat.
    pub id: String,
    /// The event's word.
    pub event: String,
    /// Attempts so far.
    pub tries: u32,
    /// How often it was refused since it is told.
    pub refusals: u32,
    /// When it is told no more.
    pub ends_at: Timestamp,
    /// What is told: JSON.
    pub body: String,
}

/// What there is for a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForReceiver {
    /// Due now, in order; none of it has an earlier one of its message that waits.
    pub due: Vec<DueNotification>,
    /// When the next is due that is not yet.
    pub next: Option<Timestamp>,
    /// All that wait.
    pub waiting: u64,
}

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// Which notification.
    pub n: i64,
    /// What follows.
    pub next: Next,
    /// When it was told.
    pub at: Timestamp,
    /// What was answered, in words.
    pub answer: String,
}

/// One of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Its number: they rise.
    pub n: i64,
    /// Its id.
    pub id: String,
    /// The receiver's name.
    pub receiver: String,
    /// The event's word.
    pub event: String,
    /// Its message, where known.
    pub message: Option<MessageId>,
    /// Whom it is about.
    pub address: Option<String>,
    /// Where it stands.
    pub state: NotificationState,
    /// When it was entered.
    pub told_at: Timestamp,
    /// Waiting: not before.
    pub due: Option<Timestamp>,
    /// Attempts so far.
    pub tries: u32,
    /// When it was last told.
    pub tried_at: Option<Timestamp>,
    /// What was answered last, or why it ended.
    pub answer: Option<String>,
    /// What is told: JSON.
    pub body: String,
}

/// Which of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotificationFilter {
    /// Only in this state.
    pub state: Option<NotificationState>,
    /// Only this receiver's.
    pub receiver: Option<String>,
    /// Only of this message.
    pub message: Option<MessageId>,
    /// Only before this number.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// What is to be told once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// By their ids, at every receiver.
    Ids(Vec<String>),
    /// All that fit.
    Those {
        /// Only what has failed.
        failed: bool,
        /// Only what was entered since.
        since: Option<Timestamp>,
        /// Only this receiver's.
        receiver: Option<String>,
    },
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replayed {
    /// So many are told again.
    pub replayed: u64,
    /// So many are of receivers that are not configured: they stay as they are.
    pub without_receiver: u64,
    /// So many are of receivers that want nothing more: they stay as they are.
    pub receiver_gone: u64,
    /// Ids that nothing has.
    pub unknown: Vec<String>,
}
