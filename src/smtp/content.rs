//! The content of one message while it arrives: what of it is in memory, under the budget, and what is ready for disk.

use std::sync::Arc;

use bytes::Bytes;

use super::data::{Decoder, Fed, HeaderFacts, Nowhere, RECEIVED_FIELDS_MAX, header_facts};
use super::reply::{self, Reply};
use super::{BareNewline, ListenerSettings};
use crate::mail::body::{CHUNK_OCTETS, SPILL_OCTETS, Spilled};
use crate::mail::{Body, Budget, MessageId, Permit};

/// What is decoded at a time.
const SLICE_OCTETS: usize = 16 * 1024;
/// The first memory that a message takes.
const FIRST_OCTETS: usize = 4 * 1024;
/// The most that one slice becomes, decoded.
const DECODED_OCTETS: usize = 2 * SLICE_OCTETS + 4;
/// The most memory that one message takes while it arrives: a full head and a full piece, each with a slice behind it.
pub const MESSAGE_OCTETS_MAX: u64 = (SPILL_OCTETS + CHUNK_OCTETS + 2 * DECODED_OCTETS) as u64;

/// A message's content, growing.
#[derive(Debug)]
pub struct Content {
    decoder: Decoder,
    budget: Arc<Budget>,
    size_octets_max: u64,
    normalize: bool,
    head: Buffer,
    /// What comes after a full head.
    piece: Buffer,
    spilled: Option<Spilled>,
    /// Why it will be refused whatever comes: then nothing more is kept.
    fate: Option<Reply>,
    kept: bool,
}

/// Memory that the budget covers.
#[derive(Debug, Default)]
struct Buffer {
    octets: Vec<u8>,
    permit: Option<Permit>,
}

/// A message that is refused at its end.
#[derive(Debug)]
pub struct Refusal {
    /// What the client is told.
    pub reply: Reply,
    /// What was written of it.
    pub spilled: Option<MessageId>,
}

impl Content {
    /// For a message on this listener.
    pub fn new(settings: &ListenerSettings, budget: Arc<Budget>) -> Self {
        Content {
            decoder: Decoder::new(settings.bare_newline),
            budget,
            size_octets_max: settings.max_message_size_octets,
            normalize: settings.bare_newline == BareNewline::Normalize,
            head: Buffer::default(),
            piece: Buffer::default(),
            spilled: None,
            fate: None,
            kept: true,
        }
    }

    /// Decodes from the front of `input`. After each call [`Content::piece`] has to be asked.
    pub fn feed(&mut self, input: &[u8]) -> Fed {
        let input = &input[..input.len().min(SLICE_OCTETS)];
        if !self.kept {
            return self.decoder.feed(input, &mut Nowhere);
        }
        let head_full = self.head_full();
        let buffer = if head_full { &mut self.piece } else { &mut self.head };
        let full = if head_full { CHUNK_OCTETS } else { SPILL_OCTETS };
        let room = if self.normalize { 2 * input.len() + 4 } else { input.len() + 4 };
        if !buffer.make_room(&self.budget, room, full) {
            self.give_up(Some(reply::NO_MEMORY));
            return self.decoder.feed(input, &mut Nowhere);
        }
        let fed = self.decoder.feed(input, &mut buffer.octets);
        if self.decoder.spoilt() || self.decoder.facts().size_octets > self.size_octets_max {
            self.give_up(None);
        } else if !head_full && self.head_full() {
            self.overflow();
        }
        fed
    }

    /// A piece that is ready to be written, and its number.
    pub fn piece(&mut self) -> Option<(Option<MessageId>, u32, Bytes)> {
        let ready = self.piece.octets.len() >= CHUNK_OCTETS;
        ready.then(|| self.take_piece(CHUNK_OCTETS))
    }

    /// At the end: the piece that is left over.
    pub fn last_piece(&mut self) -> Option<(Option<MessageId>, u32, Bytes)> {
        let left = self.piece.octets.len();
        (self.kept && left > 0).then(|| self.take_piece(left))
    }

    /// What became of the piece that was taken last.
    pub fn written(&mut self, octets: usize, result: Result<MessageId, Reply>) {
        match result {
            Err(reply) => self.give_up(Some(reply)),
            Ok(message) => {
                let before = self.spilled.unwrap_or(Spilled { message, chunks: 0, octets: 0 });
                self.spilled = Some(Spilled {
                    message,
                    chunks: before.chunks + 1,
                    octets: before.octets + octets as u64,
                });
            }
        }
    }

    /// What was written so far, when the message is given up.
    pub fn written_id(&self) -> Option<MessageId> {
        self.spilled.map(|s| s.message)
    }

    /// The content at its end, or why it is refused.
    pub fn finish(mut self) -> Result<Body, Refusal> {
        match self.verdict() {
            Some(reply) => Err(Refusal { reply, spilled: self.written_id() }),
            None => Ok(Body {
                head: std::mem::take(&mut self.head.octets).into(),
                rest: self.spilled,
                facts: self.decoder.facts(),
                permit: self.head.permit.take().map(Arc::new),
            }),
        }
    }

    /// What will be so whenever it is sent again comes before what will pass.
    fn verdict(&mut self) -> Option<Reply> {
        let stray = self.decoder.stray();
        if self.decoder.facts().size_octets > self.size_octets_max {
            Some(reply::TOO_LARGE)
        } else if stray.nul {
            Some(reply::CONTENT_NUL)
        } else if stray.lf && !self.normalize {
            Some(reply::CONTENT_BARE_LF)
        } else if stray.cr && !self.normalize {
            Some(reply::CONTENT_BARE_CR)
        } else if let Some(fate) = self.fate.take() {
            Some(fate)
        } else {
            let looping = header_facts(&self.head.octets).received > RECEIVED_FIELDS_MAX;
            looping.then_some(reply::LOOP)
        }
    }

    fn head_full(&self) -> bool {
        self.head.octets.len() >= SPILL_OCTETS
    }

    /// The head is full: it must have the whole header block; what is over begins the first piece.
    fn overflow(&mut self) {
        let HeaderFacts { complete, .. } = header_facts(&self.head.octets[..SPILL_OCTETS]);
        if !complete {
            return self.give_up(Some(reply::HEADERS_TOO_LARGE));
        }
        let over = self.head.octets.len() - SPILL_OCTETS;
        if over > 0 && !self.piece.make_room(&self.budget, over, CHUNK_OCTETS) {
            return self.give_up(Some(reply::NO_MEMORY));
        }
        self.piece.octets.extend_from_slice(&self.head.octets[SPILL_OCTETS..]);
        self.head.octets.truncate(SPILL_OCTETS);
    }

    fn take_piece(&mut self, octets: usize) -> (Option<MessageId>, u32, Bytes) {
        let rest = self.piece.octets.split_off(octets);
        let piece = std::mem::replace(&mut self.piece.octets, rest);
        (self.written_id(), self.spilled.map_or(0, |s| s.chunks), piece.into())
    }

    fn give_up(&mut self, fate: Option<Reply>) {
        self.kept = false;
        self.fate = fate;
        self.head = Buffer::default();
        self.piece = Buffer::default();
    }
}

impl Buffer {
    /// Makes room for so many more octets, doubling up to what a `full` buffer needs. `false`: the budget is spent.
    fn make_room(&mut self, budget: &Arc<Budget>, more: usize, full: usize) -> bool {
        let needed = self.octets.len() + more;
        let capacity = self.octets.capacity();
        if needed <= capacity {
            return true;
        }
        let wanted = needed.max((2 * capacity).min(full + more)).max(FIRST_OCTETS);
        let covered = self.permit.as_ref().map_or(0, |p| usize::try_from(p.octets()).unwrap_or(usize::MAX));
        let uncovered = wanted.saturating_sub(covered);
        let granted = match &mut self.permit {
            Some(permit) => permit.grow(uncovered),
            None => {
                self.permit = budget.take(uncovered);
                self.permit.is_some()
            }
        };
        if granted {
            self.octets.reserve_exact(wanted - self.octets.len());
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::testing::settings;

    const ID: MessageId = MessageId::from_number(7);

    /// Feeds `input` and writes every piece; gives the content, joined again, with its pieces' sizes.
    fn receive(
        settings: &ListenerSettings,
        budget: &Arc<Budget>,
        input: &[u8],
    ) -> Result<(Vec<u8>, Vec<usize>), Refusal> {
        let mut content = Content::new(settings, Arc::clone(budget));
        let (mut rest, mut pieces) = (input, Vec::new());
        loop {
            let fed = content.feed(rest);
            rest = &rest[fed.taken..];
            while let Some((_, n, piece)) = content.piece() {
                assert_eq!(n as usize, pieces.len());
                content.written(piece.len(), Ok(ID));
                pieces.push(piece);
            }
            if fed.ended {
                break;
            }
            assert!(!rest.is_empty(), "no end");
        }
        if let Some((_, _, piece)) = content.last_piece() {
            content.written(piece.len(), Ok(ID));
            pieces.push(piece);
        }
        let body = content.finish()?;
        assert_eq!(body.size_octets(), body.facts.size_octets);
        assert!(body.permit.as_ref().unwrap().octets() >= body.head.len() as u64);
        let joined = [&body.head[..], &pieces.concat()].concat();
        Ok((joined, pieces.iter().map(Bytes::len).collect()))
    }

    fn message(octets: usize) -> Vec<u8> {
        let mut m = b"Subject: x\r\n\r\n".to_vec();
        while m.len() < octets {
            m.extend_from_slice(b"0123456789012345678901234567890123456789012345678901234567890123456\r\n");
        }
        m
    }

    #[test]
    fn small_content_stays_in_memory_and_large_content_goes_in_pieces() {
        let budget = Budget::new(10_000_000);
        for octets in [20, 5000, SPILL_OCTETS - 100, SPILL_OCTETS, SPILL_OCTETS + CHUNK_OCTETS, 3_000_000] {
            let m = message(octets);
            let (joined, pieces) = receive(&settings(), &budget, &[&m[..], b".\r\n"].concat()).unwrap();
            assert_eq!(joined, m);
            assert_eq!(pieces.is_empty(), m.len() <= SPILL_OCTETS);
            assert!(pieces.iter().rev().skip(1).all(|p| *p == CHUNK_OCTETS), "{pieces:?}");
            assert!(pieces.last().is_none_or(|p| *p <= CHUNK_OCTETS));
            assert_eq!(budget.taken_octets(), 0);
        }
    }

    #[test]
    fn the_memory_of_one_message_is_enough_for_any() {
        let normalize = ListenerSettings { bare_newline: BareNewline::Normalize, ..settings() };
        let bare = [b"Subject: x\r\n\r\n", &b"\n".repeat(1_500_000)[..], b"\r\n.\r\n"].concat();
        let plain = [message(3_000_000), b".\r\n".to_vec()].concat();
        for (settings, input) in [(&settings(), &plain), (&normalize, &plain), (&normalize, &bare)] {
            receive(settings, &Budget::new(MESSAGE_OCTETS_MAX), input).unwrap();
        }
    }

    #[test]
    fn a_spent_budget_is_452_and_nothing_stays_taken() {
        for limit in [3000, 100_000, 300_000, 500_000] {
            let budget = Budget::new(limit);
            let m = [message(1_000_000), b".\r\n".to_vec()].concat();
            let refusal = receive(&settings(), &budget, &m).unwrap_err();
            assert_eq!(refusal.reply, reply::NO_MEMORY);
            assert_eq!(budget.taken_octets(), 0);
        }
    }

    #[test]
    fn each_thing_wrong_has_its_code() {
        let mut s = settings();
        s.max_message_size_octets = 100_000;
        let budget = Budget::new(10_000_000);
        let code = |input: &[u8]| receive(&s, &budget, input).map_or_else(|r| r.reply, |_| reply::FINE);
        assert_eq!(code(&[&message(100_001)[..], b".\r\n"].concat()), reply::TOO_LARGE);
        assert_eq!(code(b"a: b\r\n\r\nx\ny\r\n.\r\n"), reply::CONTENT_BARE_LF);
        assert_eq!(code(b"a: b\r\n\r\nx\ry\r\n.\r\n"), reply::CONTENT_BARE_CR);
        assert_eq!(code(b"a: b\r\n\r\nx\0y\n\r\n.\r\n"), reply::CONTENT_NUL);
        assert_eq!(code(&["Received: x\r\n".repeat(50).as_bytes(), b"\r\n.\r\n"].concat()), reply::FINE);
        assert_eq!(code(&["Received: x\r\n".repeat(51).as_bytes(), b"\r\n.\r\n"].concat()), reply::LOOP);
        assert_eq!(code(b".\r\n"), reply::FINE);
    }

    #[test]
    fn a_header_block_without_end_is_refused() {
        let budget = Budget::new(10_000_000);
        let m = ["X-Long: 0123456789\r\n".repeat(20_000).as_bytes(), b"\r\nbody\r\n.\r\n"].concat();
        assert_eq!(receive(&settings(), &budget, &m).unwrap_err().reply, reply::HEADERS_TOO_LARGE);
    }
}
