//! Enhanced status codes (RFC 3463), wherever they are read: `5.1.1` in a reply, in the words of a report, in an event.

use std::fmt;

/// `class.subject.detail`: the class is 2, 4 or 5, the others have at most three digits (section 2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Status([u16; 3]);

/// Digits of a subject or a detail.
const DIGITS_MAX: usize = 3;
/// A refusal has its code at its start, behind a reply code and perhaps the address.
const WORDS_MAX: usize = 8;

impl Status {
    /// That code, where it is one.
    pub fn new(class: u16, subject: u16, detail: u16) -> Option<Self> {
        let fits = matches!(class, 2 | 4 | 5) && subject < 1000 && detail < 1000;
        fits.then_some(Status([class, subject, detail]))
    }

    /// The code that a word is.
    pub fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.split('.').map(number);
        let status = Status::new(numbers.next()??, numbers.next()??, numbers.next()??)?;
        numbers.next().is_none().then_some(status)
    }

    /// The code that a text begins with, and what follows it.
    pub fn leading(text: &str) -> Option<(Self, &str)> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        Some((Status::parse(word)?, rest))
    }

    /// The code at the start of a reply's text (RFC 2034), and the words behind it: it is of the reply code's class, and
    /// a blank or nothing follows it.
    pub fn of_reply(code: u16, text: &str) -> Option<(Self, &str)> {
        let (status, rest) = Status::leading(text)?;
        let ends = rest.is_empty() || rest.starts_with(' ');
        (ends && status.class() == code / 100).then(|| (status, rest.trim_ascii_start()))
    }

    /// The first code among the first words of a host's refusal.
    pub fn within(words: &str) -> Option<Self> {
        let code = |word: &str| Status::parse(word.trim_matches(|c: char| !c.is_ascii_digit()));
        words.split([' ', '\t', '\r', '\n', '-', '(', ')']).take(WORDS_MAX).find_map(code)
    }

    /// 2 success, 4 for now, 5 for good.
    pub fn class(self) -> u16 {
        self.0[0]
    }

    /// Class, subject and detail, to be matched.
    pub fn parts(self) -> [u16; 3] {
        self.0
    }
}

/// A number without leading zeros.
fn number(digits: &str) -> Option<u16> {
    let leads = digits.len() > 1 && digits.starts_with('0');
    let fits = (1..=DIGITS_MAX).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if fits && !leads { digits.parse().ok() } else { None }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [class, subject, detail] = self.0;
        write!(f, "{class}.{subject}.{detail}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn status(class: u16, subject: u16, detail: u16) -> Option<Status> {
        Some(Status::new(class, subject, detail).unwrap())
    }

    #[test]
    fn what_is_a_code_and_what_only_looks_like_one() {
        assert_eq!(Status::parse("5.7.509"), status(5, 7, 509));
        assert_eq!(Status::parse("2.0.0"), status(2, 0, 0));
        for no in [
            "", "5", "5.1", "5.1.1.1", "3.1.1", "6.0.0", "5.1.1000", "5.01.1", "+5.1.1", "5..1", "5.1.1 ",
            "٥.1.1",
        ] {
            assert_eq!(Status::parse(no), None, "{no:?}");
        }
        assert_eq!(
            (Status::new(1, 0, 0), Status::new(5, 1000, 0), Status::new(5, 0, 1000)),
            (None, None, None)
        );
    }

    #[test]
    fn a_reply_has_it_at_its_start_and_of_its_class() {
        let read = |code, text| Status::of_reply(code, text).map(|(status, rest)| (status.parts(), rest));
        assert_eq!(read(550, "5.1.1 no such"), Some(([5, 1, 1], "no such")));
        assert_eq!(read(550, "5.1.1"), Some(([5, 1, 1], "")));
        for (code, text) in [(550, "4.1.1 no"), (250, "10.0.0.1 hi"), (550, "5.1.1: no"), (550, "no 5.1.1")] {
            assert_eq!(read(code, text), None, "{code} {text}");
        }
        assert_eq!(
            Status::leading("5.7.515: denied").map(|(s, rest)| (s.parts(), rest)),
            Some(([5, 7, 515], ": denied"))
        );
    }

    #[test]
    fn in_a_refusal_it_is_among_the_first_words() {
        for (words, found) in [
            ("550 5.1.1 no such user", status(5, 1, 1)),
            ("smtp; 550-5.1.10 null MX", status(5, 1, 10)),
            ("550 <a@b.example>: (5.2.1) off", status(5, 2, 1)),
            ("421 from 192.0.2.1, since 5.12.2026", None),
            ("one two three four five six seven eight 5.1.1", None),
            ("", None),
        ] {
            assert_eq!(Status::within(words), found, "{words}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_wherever_it_stands(
            class in prop::sample::select(vec![2_u16, 4, 5]), subject in 0_u16..1000, detail in 0_u16..1000, rest in "[a-z ]{0,20}",
        ) {
            let status = Status::new(class, subject, detail).unwrap();
            let written = status.to_string();
            prop_assert_eq!(Status::parse(&written), Some(status));
            let text = format!("{written} {rest}");
            prop_assert_eq!(Status::of_reply(class * 100 + 50, &text), Some((status, rest.trim_ascii_start())));
            let words = format!("smtp; {class}50 {text}");
            prop_assert_eq!(Status::within(&words), Some(status));
        }

        #[test]
        fn what_is_read_is_written_as_it_stood(text in "[0-9.]{0,12}|[2-5]\\.[0-9]{1,4}\\.[0-9]{1,4}[ -~]{0,3}|\\PC{0,12}") {
            if let Some(status) = Status::parse(&text) {
                prop_assert_eq!(status.to_string(), &text[..]);
            }
            if let Some((status, rest)) = Status::leading(&text) {
                prop_assert_eq!(format!("{status}{rest}"), &text[..]);
            }
            let _ = Status::within(&text);
        }
    }
}
