//! Mail that waits in memory beside its committed row, so that its turn needs no read.
//!
//! What does not fit is read from the database when its turn comes: nothing here is the only copy.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::mail::{Lane, Message, MessageId, QueueState, Rule, StreamKind};

/// Messages held for their turn…
const MESSAGES_MAX: usize = 12_000;
/// …and of one lane.
const LANE_MESSAGES_MAX: usize = 8_000;
/// Octets of their content; they are within the relay's memory budget besides…
const OCTETS_MAX: usize = 48 * 1024 * 1024;
/// …and of one lane.
const LANE_OCTETS_MAX: usize = 32 * 1024 * 1024;

/// One recipient of a call: which, and its history as far as the next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passenger {
    /// Its place in the envelope.
    pub recipient: u32,
    /// Attempts before this one.
    pub tries: u32,
    /// Rounds before this one.
    pub rounds: u32,
    /// Attempts whose answer is open.
    pub open_attempts: u32,
    /// Of these, whose loss was seen; a crash leaves the others.
    pub seen_unsure: u32,
    /// Since when the ESP that it is bound to has not taken it, after a hold.
    pub unable_since: Option<Timestamp>,
}

/// Some recipients of one message, all in the same state, that may go together.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The message with its content.
    pub message: Arc<Message>,
    /// The domain rules that bear on all of them.
    pub rule: Rule,
    /// Who.
    pub passengers: Vec<Passenger>,
    /// The state that their begin must name.
    pub from: QueueState,
    /// The ESP of an open attempt.
    pub bound_to: Option<Arc<str>>,
    /// ESPs tried in this round.
    pub tried: Vec<Arc<str>>,
    /// One of them was refused in passing and moved on already.
    pub moved_for_recipient: bool,
    /// The [`Setup`](super::Setup) that `rule` is of, by number.
    pub setup: u64,
}

impl Pending {
    /// Fresh mail that waits.
    pub fn fresh(message: Arc<Message>, rule: Rule, passengers: Vec<Passenger>, setup: u64) -> Self {
        let from = QueueState::Waiting { due: message.accepted_at };
        let (bound_to, tried, moved_for_recipient) = (None, Vec::new(), false);
        Pending { message, rule, passengers, from, bound_to, tried, moved_for_recipient, setup }
    }
}

impl Pending {
    /// The first so many of them, and those that are left.
    pub fn parted(mut self, first: u32) -> (Self, Option<Self>) {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        if first >= self.passengers.len() {
            return (self, None);
        }
        let left = self.passengers.split_off(first);
        let left = Pending { passengers: left, ..self.clone() };
        (self, Some(left))
    }
}

/// The mail held in memory, lane by lane: first come, first served in each, the transactional ones first.
#[derive(Debug, Default)]
pub struct PendingQueue {
    lanes: Vec<LaneQueue>,
    messages: usize,
    octets: usize,
    /// How often each message is held: its recipients may go in several groups.
    held: HashMap<MessageId, u32>,
}

/// What one lane holds.
#[derive(Debug)]
struct LaneQueue {
    lane: Lane,
    items: VecDeque<Pending>,
    octets: usize,
    /// Some of its waiting mail is in the database alone.
    more_on_disk: bool,
}

impl PendingQueue {
    /// Takes it in, or leaves it to the database when memory is full.
    pub fn push(&mut self, pending: Pending) {
        let at = self.place_of(&pending);
        let octets = pending.message.body.head.len();
        let full = self.messages >= MESSAGES_MAX || self.octets + octets > OCTETS_MAX;
        let lane = &mut self.lanes[at];
        // Once some lies in the database alone, what is younger waits there as well, in order. And a lane that cannot
        // move leaves room to the others.
        let lane_full = lane.items.len() >= LANE_MESSAGES_MAX || lane.octets + octets > LANE_OCTETS_MAX;
        if lane.more_on_disk || full || lane_full {
            lane.more_on_disk = true;
            return;
        }
        lane.items.push_back(pending);
        self.count_in(at);
    }

    /// Takes it in whatever the limits: it was read for its turn, which is now.
    pub fn push_claimed(&mut self, pending: Pending) {
        let at = self.place_of(&pending);
        self.lanes[at].items.push_back(pending);
        self.count_in(at);
    }

    /// The lanes by their places, transactional ones first.
    pub fn places(&self) -> Vec<usize> {
        let mut places: Vec<usize> =
            (0..self.lanes.len()).filter(|at| !self.lanes[*at].items.is_empty()).collect();
        places.sort_by_key(|at| self.lanes[*at].lane.kind == StreamKind::Broadcast);
        places
    }

    /// The lane at that place.
    pub fn lane(&self, place: usize) -> &Lane {
        &self.lanes[place].lane
    }

    /// The next one in turn of the lane at that place.
    pub fn pop(&mut self, place: usize) -> Option<Pending> {
        let pending = self.lanes[place].items.pop_front()?;
        let octets = pending.message.body.head.len();
        self.messages -= 1;
        self.octets -= octets;
        self.lanes[place].octets -= octets;
        if self.messages == 0 {
            self.held.clear();
        } else if let Some(n) = self.held.get_mut(&pending.message.id) {
            *n -= 1;
            if *n == 0 {
                self.held.remove(&pending.message.id);
            }
        }
        Some(pending)
    }

    /// Back to the front of its lane: there was no room for it.
    pub fn put_back(&mut self, pending: Pending) {
        let at = self.place_of(&pending);
        self.lanes[at].items.push_front(pending);
        let held = self.lanes[at].items.front().map(|p| (p.message.id, p.message.body.head.len()));
        self.count(at, held);
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        self.messages
    }

    /// How many of that lane it holds.
    pub fn len_of(&self, lane: &Lane) -> usize {
        self.lanes.iter().find(|l| l.lane == *lane).map_or(0, |l| l.items.len())
    }

    /// Whether fresh mail of that message may go before all that waits: nothing of its lane waits, and no
    /// transactional mail where it is a campaign.
    pub fn lets_pass(&self, message: &Message, rule: &Rule) -> bool {
        self.lanes.iter().all(|l| {
            let waits = !l.items.is_empty() || l.more_on_disk;
            let before = l.lane.holds(message, rule)
                || (message.kind == StreamKind::Broadcast && l.lane.kind == StreamKind::Transactional);
            !(waits && before)
        })
    }

    /// Whether this message is held here, so that a claim of its row is not for now.
    pub fn holds(&self, message: MessageId) -> bool {
        self.held.contains_key(&message)
    }

    /// Whether a lane that `moves` has mail in the database alone; asking also forgets it, since the asker reads it
    /// now.
    pub fn take_more_on_disk(&mut self, moves: impl Fn(&Lane) -> bool) -> bool {
        let mut more = false;
        for lane in &mut self.lanes {
            if lane.more_on_disk && moves(&lane.lane) {
                lane.more_on_disk = false;
                more = true;
            }
        }
        more
    }

    /// Notes that this lane has mail in the database alone.
    pub fn note_more_on_disk(&mut self, lane: Lane) {
        let at = self.place(|l| *l == lane, || lane.clone());
        self.lanes[at].more_on_disk = true;
    }

    fn place_of(&mut self, pending: &Pending) -> usize {
        let (message, rule) = (&pending.message, &pending.rule);
        self.place(|l| l.holds(message, rule), || Lane::of(message, rule.clone()))
    }

    fn place(&mut self, is: impl Fn(&Lane) -> bool, lane: impl FnOnce() -> Lane) -> usize {
        match self.lanes.iter().position(|l| is(&l.lane)) {
            Some(at) => at,
            None => {
                let lane = LaneQueue { lane: lane(), items: VecDeque::new(), octets: 0, more_on_disk: false };
                self.lanes.push(lane);
                self.lanes.len() - 1
            }
        }
    }

    fn count_in(&mut self, at: usize) {
        let held = self.lanes[at].items.back().map(|p| (p.message.id, p.message.body.head.len()));
        self.count(at, held);
    }

    fn count(&mut self, at: usize, held: Option<(MessageId, usize)>) {
        let Some((message, octets)) = held else { return };
        self.messages += 1;
        self.octets += octets;
        self.lanes[at].octets += octets;
        *self.held.entry(message).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tests::message;

    fn pending(kind: StreamKind, n: i64) -> Pending {
        let message = message(kind, n);
        let from = QueueState::Waiting { due: message.accepted_at };
        Pending { from, ..Pending::fresh(message, Rule::default(), Vec::new(), 0) }
    }

    #[test]
    fn transactional_lanes_come_first_and_each_in_order() {
        let mut queue = PendingQueue::default();
        for (kind, n) in
            [(StreamKind::Broadcast, 1), (StreamKind::Transactional, 2), (StreamKind::Transactional, 3)]
        {
            queue.push(pending(kind, n));
        }
        let places = queue.places();
        let first = queue.pop(places[0]).unwrap();
        assert_eq!(first.message.id.number(), 2);
        queue.put_back(first);
        assert_eq!(queue.pop(places[0]).unwrap().message.id.number(), 2);
        assert_eq!(queue.pop(places[0]).unwrap().message.id.number(), 3);
        assert!(queue.pop(places[0]).is_none());
        assert!(queue.holds(MessageId::from_number(1)) && !queue.holds(MessageId::from_number(2)));
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn who_finds_no_room_in_a_call_stays_in_front_in_order() {
        let who = |n| Passenger {
            recipient: n,
            tries: 0,
            rounds: 0,
            open_attempts: 0,
            seen_unsure: 0,
            unable_since: None,
        };
        let all: Vec<Passenger> = (0..5).map(who).collect();
        let whole =
            Pending { passengers: all.clone(), tried: vec!["a".into()], ..pending(StreamKind::Broadcast, 1) };
        let (some, left) = whole.clone().parted(2);
        let left = left.unwrap();
        assert_eq!((&some.passengers[..], &left.passengers[..], left.tried.len()), (&all[..2], &all[2..], 1));
        assert!(whole.parted(5).1.is_none());
        let mut queue = PendingQueue::default();
        queue.push(pending(StreamKind::Broadcast, 2));
        queue.put_back(left);
        let next = queue.pop(0).unwrap();
        assert_eq!((next.message.id.number(), next.passengers.len()), (1, 3));
    }

    #[test]
    fn a_lane_that_stands_still_leaves_room_to_the_others() {
        let mut queue = PendingQueue::default();
        for n in 0..=LANE_MESSAGES_MAX as i64 {
            queue.push(pending(StreamKind::Broadcast, n));
        }
        let receipt = message(StreamKind::Transactional, 999_999);
        assert!(queue.lets_pass(&receipt, &Rule::default()), "a receipt does not wait for the campaign");
        queue.push(pending(StreamKind::Transactional, 999_999));
        assert!(queue.holds(receipt.id));
        let news = message(StreamKind::Broadcast, 5);
        assert!(!queue.lets_pass(&news, &Rule::default()));
        assert!(!queue.take_more_on_disk(|lane| lane.kind == StreamKind::Transactional));
        assert!(queue.take_more_on_disk(|_| true) && !queue.take_more_on_disk(|_| true));
    }
}
