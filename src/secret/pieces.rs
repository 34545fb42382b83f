//! Pieces of long secrets, in a text that shows no whole one: an upstream may echo a key without its beginning or its
//! end, or in capitals. Chance makes no such piece of a key; of a password, which may be words, it takes more than a word.

use std::ops::Range;

use super::Secret;
use super::plain::{EqualsSign, Plain};

/// Fewer octets of a secret than these are no piece that is known for it.
pub(super) const PIECE_OCTETS_MIN: usize = 12;
/// So many are one however long the secret is; otherwise half of it.
const PIECE_OCTETS: usize = 20;
/// The octets of a mark.
const MARK: usize = 8;
/// From one mark to the next: wherever a piece lies, it has a whole mark in it.
const STRIDE: usize = PIECE_OCTETS_MIN - MARK + 1;
/// So many places with one mark are tried: a secret of one letter has it everywhere.
const PLACES_MAX: usize = 4;

/// Where a mark stands.
struct Place {
    sum: u64,
    form: usize,
    at: usize,
}

/// What is known of some secrets. Made once, so that a text is gone through in a time that its own length decides.
pub(super) struct Pieces {
    /// In the form of [`Plain`], in small letters.
    forms: Vec<Secret>,
    /// In the order of their sums.
    marks: Vec<Place>,
}

impl Pieces {
    /// Of all secrets that are long enough.
    pub fn of(secrets: &[Secret]) -> Pieces {
        let mut pieces = Pieces { forms: Vec::new(), marks: Vec::new() };
        for secret in secrets {
            let mut octets = Plain::of(secret.expose().as_bytes(), EqualsSign::Stands).octets;
            octets.make_ascii_lowercase();
            let Ok(form) = String::from_utf8(octets) else { continue };
            if form.len() >= PIECE_OCTETS_MIN {
                let marks = form.as_bytes().windows(MARK).enumerate().step_by(STRIDE);
                let form = pieces.forms.len();
                pieces.marks.extend(marks.map(|(at, mark)| Place { sum: sum(mark), form, at }));
            } else {
                continue;
            }
            pieces.forms.push(Secret::new(form));
        }
        pieces.marks.sort_by_key(|place| place.sum);
        pieces
    }

    /// Adds where pieces stand in the text, which is in small letters.
    pub fn find(&self, plain: &Plain, parts: &mut Vec<Range<usize>>) {
        let (text, mut covered) = (&plain.octets, 0);
        for (at, mark) in text.windows(MARK).enumerate() {
            if at + MARK <= covered {
                continue;
            }
            let sum = sum(mark);
            let first = self.marks.partition_point(|place| place.sum < sum);
            let places = self.marks[first..].iter().take_while(|place| place.sum == sum);
            for place in places.take(PLACES_MAX) {
                if let Some(run) = self.run(text, at, place) {
                    covered = covered.max(run.end);
                    parts.extend(plain.part(run));
                }
            }
        }
    }

    /// All that is alike around the mark, if that is a piece.
    fn run(&self, text: &[u8], at: usize, place: &Place) -> Option<Range<usize>> {
        let form = self.forms.get(place.form)?.expose().as_bytes();
        let alike = |(a, b): &(&u8, &u8)| a == b;
        let behind = text[at..].iter().zip(&form[place.at..]).take_while(alike).count();
        let before = text[..at].iter().rev().zip(form[..place.at].iter().rev()).take_while(alike).count();
        let least = form.len().div_ceil(2).clamp(PIECE_OCTETS_MIN, PIECE_OCTETS);
        (behind >= MARK && before + behind >= least).then(|| at - before..at + behind)
    }
}

/// FNV-1a: places with the same sum are compared.
fn sum(mark: &[u8]) -> u64 {
    let step = |sum: u64, octet: &u8| (sum ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3);
    mark.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::super::Blot;
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    const KEY: &str = "SG.k3yAbCdEfGhIjKlMnOpQrS.tUvWxYz0123456789-abcdefghijkl-012345678";

    #[test]
    fn a_key_that_was_cut_is_blotted_out() {
        let blots = [Blot::of_all([&Secret::new(KEY)]), Blot::of_login("apikey", &Secret::new(KEY))];
        for blot in blots {
            for cut in [1, 3, 6, 20, 40] {
                for piece in [&KEY[..KEY.len() - cut], &KEY[cut..], &KEY[cut / 2..KEY.len() - cut / 2]] {
                    for piece in [piece.to_owned(), piece.to_lowercase(), piece.to_uppercase()] {
                        assert_eq!(blot.out(&format!("bad: {piece}: no")), "bad: ***: no", "{piece}");
                    }
                }
            }
            assert_eq!(blot.out(&format!("{KEY} or {}", &KEY[9..40])), "*** or ***");
            let encoded = STANDARD.encode(format!("\0apikey\0{KEY}"));
            let shown = blot.out(&format!("AUTH PLAIN <{}>", &encoded[30..90])).into_owned();
            assert_eq!(shown, "AUTH PLAIN <***>");
            let hex: String = KEY.bytes().map(|octet| format!("{octet:02X}")).collect();
            assert_eq!(blot.out(&format!("hex {}.", &hex[3..60])), "hex ***.");
            assert_eq!(blot.out("%53G.k3yAbCdEfGhI%6aKlMnOp and so on"), "*** and so on");
        }
    }

    #[test]
    fn a_part_of_a_password_that_may_be_a_word_stays() {
        let blot = Blot::of_login("shop", &Secret::new("correct-horse-battery-staple-1987"));
        for said in ["battery-staple is no word", "horse-battery", "a correct-horse", KEY] {
            assert_eq!(blot.out(said), said);
        }
        assert_eq!(blot.out("bad: correct-horse-battery"), "bad: ***");
        let blot = Blot::of_login("shop", &Secret::new("upstream-secret"));
        assert_eq!(blot.out("the upstream-s"), "the upstream-s");
        assert_eq!(blot.out("no upstream-secre"), "no ***");
        let short = Blot::of_login("shop", &Secret::new("hunter-2-or"));
        assert_eq!(short.out("hunter-2-o"), "hunter-2-o", "too short to have pieces");
    }

    #[test]
    fn texts_full_of_pieces_take_no_long_time() {
        let same = "a".repeat(40);
        let blot = Blot::of_all([&Secret::new(KEY), &Secret::new(same.clone())]);
        for piece in [&KEY[..19], &KEY[..30], &same[..11], "a", KEY] {
            let text = format!("{piece} ").repeat(32 * 1024 / piece.len());
            assert!(!blot.out(&text).is_empty());
        }
    }

    proptest! {
        #[test]
        fn every_run_that_is_long_enough_is_blotted_out(
            start in 0..48usize, octets in 20..40usize, before in "[#]{0,9}", after in "[#]{0,9}",
        ) {
            let piece = &KEY[start..(start + octets).min(KEY.len())];
            prop_assume!(piece.len() >= 20);
            let shown = Blot::of_all([&Secret::new(KEY)]).out(&format!("{before}{piece}{after}")).into_owned();
            prop_assert_eq!(shown, format!("{before}***{after}"));
        }
    }
}
