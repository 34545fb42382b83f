//! Ids: 63-bit integers made of time, relay and sequence, shown as short text.
//!
//! They come from time and chance, never from a counter in the database: a restored backup would mint them again
//! (DELIVERY rule 19).

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clock, Timestamp};

/// Milliseconds from the Unix epoch to 2025-01-01T00:00:00Z, where our ids begin to count.
const EPOCH_MILLIS: i64 = 1_735_689_600_000;
/// 41 bits of milliseconds, 10 of relay, 12 of sequence.
const SEQUENCE_BITS: u32 = 12;
const RELAY_BITS: u32 = 10;
/// Crockford's base 32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 63 bits in groups of five.
const TEXT_LEN: usize = 13;

/// One message, as every log line, reply and command names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(i64);

/// One call to an ESP, shared by the deliveries that it carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(i64);

/// One start of one relay: whoever holds an `Out` delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(i64);

/// One message to one recipient: the message and the recipient's place in its envelope, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeliveryId {
    /// The message.
    pub message: MessageId,
    /// Which recipient of its envelope.
    pub recipient: u32,
}

/// What goes with a call into the ESP's own metadata and comes back with its events: message and attempt, so that an
/// event finds its delivery though the attempt was lost with a restore (DELIVERY rule 16).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Planted {
    /// The message.
    pub message: MessageId,
    /// The call.
    pub attempt: AttemptId,
}

/// `MESSAGE-ATTEMPT`: letters, digits and one `-`, which every ESP's metadata takes.
impl fmt::Display for Planted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.message, self.attempt)
    }
}

impl FromStr for Planted {
    type Err = BadId;

    fn from_str(s: &str) -> Result<Self, BadId> {
        let (message, attempt) = s.split_once('-').ok_or(BadId)?;
        Ok(Planted { message: message.parse()?, attempt: attempt.parse()? })
    }
}

/// A text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an id: an id has 13 digits and letters (none of i, l, o and u), the first of them 0 to 7, such as 01jd3k5v9m2xq"
)]
pub struct BadId;

macro_rules! id {
    ($name:ident) => {
        impl $name {
            /// From the number as it is stored.
            pub const fn from_number(number: i64) -> Self {
                $name(number & i64::MAX)
            }

            /// The number as it is stored.
            pub const fn number(self) -> i64 {
                self.0
            }

            /// When it was minted.
            pub const fn minted_at(self) -> Timestamp {
                Timestamp::from_millis((self.0 >> (SEQUENCE_BITS + RELAY_BITS)) + EPOCH_MILLIS)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(std::str::from_utf8(&text(self.0)).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(s: &str) -> Result<Self, BadId> {
                number(s).map($name)
            }
        }
    };
}

id!(MessageId);
id!(AttemptId);
id!(Owner);

/// A text of that many letters of our alphabet, five bits of chance in each.
pub fn letters(chance: &[u8]) -> impl Iterator<Item = char> {
    chance.iter().map(|octet| char::from(ALPHABET[usize::from(octet & 31)]))
}

fn text(number: i64) -> [u8; TEXT_LEN] {
    let mut out = [b'0'; TEXT_LEN];
    let mut rest = number;
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[usize::try_from(rest & 31).unwrap_or(0)];
        rest >>= 5;
    }
    out
}

fn number(s: &str) -> Result<i64, BadId> {
    if s.len() != TEXT_LEN {
        return Err(BadId);
    }
    let mut out: u64 = 0;
    for b in s.bytes() {
        let digit = ALPHABET.iter().position(|a| *a == b.to_ascii_lowercase()).ok_or(BadId)?;
        out = (out << 5) | digit as u64;
    }
    i64::try_from(out).map_err(|_| BadId)
}

/// Mints ids that rise and never repeat within one start of the relay.
#[derive(Debug)]
pub struct IdMint {
    relay: u64,
    last: AtomicU64,
}

impl IdMint {
    /// A mint whose relay part comes from `chance`, so that two relays or two starts do not meet.
    pub fn new(chance: u64) -> Self {
        IdMint { relay: chance & ((1 << RELAY_BITS) - 1), last: AtomicU64::new(0) }
    }

    /// The next message id.
    pub fn message(&self, clock: &dyn Clock) -> MessageId {
        MessageId(self.next(clock))
    }

    /// The next attempt id.
    pub fn attempt(&self, clock: &dyn Clock) -> AttemptId {
        AttemptId(self.next(clock))
    }

    /// The boot id of this start.
    pub fn owner(&self, clock: &dyn Clock) -> Owner {
        Owner(self.next(clock))
    }

    /// `last` holds time and sequence; it only rises, also when the wall clock steps back or 4,096 ids fall into one
    /// millisecond (then the sequence runs into the next).
    fn next(&self, clock: &dyn Clock) -> i64 {
        let millis = u64::try_from(clock.now().millis() - EPOCH_MILLIS).unwrap_or(0);
        let floor = millis << SEQUENCE_BITS;
        let step = |last: u64| Some(floor.max(last + 1));
        let before = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or(floor);
        let at = floor.max(before + 1);
        let (millis, sequence) = (at >> SEQUENCE_BITS, at & ((1 << SEQUENCE_BITS) - 1));
        let id = (millis << (RELAY_BITS + SEQUENCE_BITS)) | (self.relay << SEQUENCE_BITS) | sequence;
        i64::try_from(id & (i64::MAX as u64)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Manual;
    use proptest::prelude::*;

    #[test]
    fn ids_rise_even_when_the_clock_stands_or_steps_back() {
        let clock = Manual::at(Timestamp::from_millis(EPOCH_MILLIS + 5));
        let mint = IdMint::new(7);
        let mut last = mint.message(&clock);
        for _ in 0..10_000 {
            let next = mint.message(&clock);
            assert!(next > last);
            last = next;
        }
        let back = Manual::at(Timestamp::from_millis(EPOCH_MILLIS));
        assert!(mint.message(&back) > last);
        assert!(last.minted_at() >= Timestamp::from_millis(EPOCH_MILLIS + 5));
    }

    proptest! {
        #[test]
        fn text_and_number_are_one(n in 0..=i64::MAX) {
            let id = MessageId::from_number(n);
            prop_assert_eq!(id.to_string().parse::<MessageId>(), Ok(id));
            prop_assert_eq!(id.to_string().len(), TEXT_LEN);
        }

        #[test]
        fn what_is_planted_comes_back(message in 0..=i64::MAX, attempt in 0..=i64::MAX) {
            let planted =
                Planted { message: MessageId::from_number(message), attempt: AttemptId::from_number(attempt) };
            prop_assert_eq!(planted.to_string().parse::<Planted>(), Ok(planted));
        }

        #[test]
        fn nothing_else_parses(s in "\\PC{0,20}") {
            if let Ok(id) = s.parse::<MessageId>() {
                prop_assert_eq!(id.to_string(), s.to_ascii_lowercase());
            }
        }
    }
}
