//! Mail that waits in memory beside its committed row, so that its turn needs no read.
//!
//! What does not fit is read from the database when its turn comes: nothing here is the only copy.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::mail::{DeliveryId, Message, MessageId, QueueState};

/// Messages held for their turn.
const MESSAGES_MAX: usize = 8_000;
/// Octets of their content; they are within the relay's memory budget besides.
const OCTETS_MAX: usize = 32 * 1024 * 1024;

/// One recipient of a call: which, and its history as far as the next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passenger {
    /// Its place in the envelope.
    pub recipient: u32,
    /// Dispatches before this one.
    pub tries: u32,
    /// Attempts whose answer is open.
    pub open_attempts: u32,
    /// Of these, whose loss was seen; a crash leaves the others.
    pub seen_unsure: u32,
}

/// Some recipients of one message, all in the same state, that may go together.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The message with its content.
    pub message: Arc<Message>,
    /// Who.
    pub passengers: Vec<Passenger>,
    /// The state that their begin must name.
    pub from: QueueState,
    /// The ESP of an open attempt.
    pub bound_to: Option<Arc<str>>,
    /// Outlets tried in this round, by index.
    pub tried: Vec<usize>,
    /// One of them was refused in passing and moved on already.
    pub moved_for_recipient: bool,
}

impl Pending {
    /// The one ESP that may carry it, where there is but one.
    pub fn waits_for(&self) -> Option<&str> {
        self.bound_to.as_deref().or(self.message.pin.as_deref())
    }

    /// Its deliveries, with the state that they were chosen in.
    pub fn deliveries(&self) -> impl Iterator<Item = (DeliveryId, QueueState)> {
        let id = |p: &Passenger| DeliveryId { message: self.message.id, recipient: p.recipient };
        self.passengers.iter().map(move |p| (id(p), self.from))
    }
}

/// The mail held in memory, first come first served.
#[derive(Debug, Default)]
pub struct PendingQueue {
    items: VecDeque<Pending>,
    octets: usize,
    held: HashSet<MessageId>,
    /// Some waiting mail is in the database alone.
    more_on_disk: bool,
}

impl PendingQueue {
    /// Takes it in, or leaves it to the database when memory is full.
    pub fn push(&mut self, pending: Pending) {
        let octets = pending.message.body.head.len();
        // Once some lies in the database alone, what is younger waits there as well, in order.
        if self.more_on_disk || self.items.len() >= MESSAGES_MAX || self.octets + octets > OCTETS_MAX {
            self.more_on_disk = true;
            return;
        }
        self.octets += octets;
        self.held.insert(pending.message.id);
        self.items.push_back(pending);
    }

    /// Takes it in whatever the limits: it was read for its turn, which is now.
    pub fn push_claimed(&mut self, pending: Pending) {
        self.octets += pending.message.body.head.len();
        self.held.insert(pending.message.id);
        self.items.push_back(pending);
    }

    /// The next one in turn.
    pub fn pop(&mut self) -> Option<Pending> {
        let pending = self.items.pop_front()?;
        self.octets -= pending.message.body.head.len();
        if self.items.is_empty() {
            self.held.clear();
        } else {
            self.held.remove(&pending.message.id);
        }
        Some(pending)
    }

    /// Back to the front: there was no room for it.
    pub fn put_back(&mut self, pending: Pending) {
        self.octets += pending.message.body.head.len();
        self.held.insert(pending.message.id);
        self.items.push_front(pending);
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether this message is held here, so that a claim of its row is not for now.
    pub fn holds(&self, message: MessageId) -> bool {
        self.held.contains(&message)
    }

    /// Whether waiting mail lies in the database alone; asking also forgets it, since the asker reads it now.
    pub fn take_more_on_disk(&mut self) -> bool {
        std::mem::take(&mut self.more_on_disk)
    }

    /// Notes that waiting mail lies in the database alone.
    pub fn note_more_on_disk(&mut self) {
        self.more_on_disk = true;
    }

    /// Whether waiting mail lies in the database alone.
    pub fn more_on_disk(&self) -> bool {
        self.more_on_disk
    }
}
