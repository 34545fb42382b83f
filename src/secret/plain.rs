//! A text as it reads once all escapes in it are undone: those of JSON, URLs, HTML and quoted-printable, in one another
//! too, without blanks, line ends and plus signs. What two people write in different ways reads alike in this form, so
//! that one is found in the other; each octet knows which part of the text it stands for.

use std::ops::Range;

/// Escapes within escapes deeper than this stay.
const ROUNDS_MAX: usize = 4;
/// An entity has no more octets: `&NewLine;`, `&#x10FFFF;`, and some noughts.
const ENTITY_OCTETS_MAX: usize = 16;

/// HTML's names of what may stand in a key.
const ENTITIES: [(&[u8], u8); 27] = [
    (b"amp", b'&'),
    (b"lt", b'<'),
    (b"gt", b'>'),
    (b"quot", b'"'),
    (b"apos", b'\''),
    (b"sol", b'/'),
    (b"bsol", b'\\'),
    (b"plus", b'+'),
    (b"equals", b'='),
    (b"percnt", b'%'),
    (b"period", b'.'),
    (b"lowbar", b'_'),
    (b"hyphen", b'-'),
    (b"dash", b'-'),
    (b"colon", b':'),
    (b"semi", b';'),
    (b"comma", b','),
    (b"num", b'#'),
    (b"dollar", b'$'),
    (b"excl", b'!'),
    (b"ast", b'*'),
    (b"commat", b'@'),
    (b"lpar", b'('),
    (b"rpar", b')'),
    (b"nbsp", b' '),
    (b"Tab", b'\t'),
    (b"NewLine", b'\n'),
];

/// See the module.
pub(super) struct Plain {
    /// What it reads as.
    pub octets: Vec<u8>,
    /// For each of them the part of the text that it stands for.
    spans: Vec<(usize, usize)>,
}

/// What may be read as an escape and is none nearly everywhere else: `key=4f` tells no octet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EqualsSign {
    /// It begins an escape, as in quoted-printable.
    Escapes,
    /// It is one.
    Stands,
}

impl Plain {
    /// The text in that form.
    pub fn of(text: &[u8], equals: EqualsSign) -> Plain {
        let mut plain =
            Plain { octets: text.to_vec(), spans: (0..text.len()).map(|at| (at, at + 1)).collect() };
        for _ in 0..ROUNDS_MAX {
            let octets_before = plain.octets.len();
            plain = plain.once(equals);
            // Every escape is longer than what it says.
            if plain.octets.len() == octets_before {
                break;
            }
        }
        plain
    }

    /// The part of the text that these octets stand for.
    pub fn part(&self, octets: Range<usize>) -> Option<Range<usize>> {
        let (start, _) = self.spans.get(octets.start)?;
        let (_, end) = self.spans.get(octets.end.checked_sub(1)?)?;
        Some(*start..*end)
    }

    fn once(self, equals: EqualsSign) -> Plain {
        let mut out = Plain {
            octets: Vec::with_capacity(self.octets.len()),
            spans: Vec::with_capacity(self.octets.len()),
        };
        let mut at = 0;
        while at < self.octets.len() {
            let (said, taken) = one(&self.octets[at..], equals);
            let span = (self.spans[at].0, self.spans[at + taken - 1].1);
            let mut buffer = [0; 4];
            for octet in said.octets(&mut buffer).iter().filter(|octet| !is_left_out(**octet)) {
                out.octets.push(*octet);
                out.spans.push(span);
            }
            at += taken;
        }
        out
    }
}

fn is_left_out(octet: u8) -> bool {
    octet.is_ascii_whitespace() || octet == b'+'
}

/// What an escape says.
enum Said {
    Nothing,
    Octet(u8),
    Letter(char),
}

impl Said {
    fn octets<'b>(&self, buffer: &'b mut [u8; 4]) -> &'b [u8] {
        match self {
            Said::Nothing => &[],
            Said::Octet(octet) => {
                buffer[0] = *octet;
                &buffer[..1]
            }
            Said::Letter(letter) => letter.encode_utf8(buffer).as_bytes(),
        }
    }
}

/// What the beginning of `text`, which is not empty, says, and how many octets that takes.
fn one(text: &[u8], equals: EqualsSign) -> (Said, usize) {
    let found = match text[0] {
        b'%' => pair(text, 1).map(|octet| (Said::Octet(octet), 3)),
        b'=' if equals == EqualsSign::Escapes => quoted_printable(text),
        b'&' => entity(text),
        b'\\' => Some(backslash(text)),
        _ => None,
    };
    found.unwrap_or((Said::Octet(text[0]), 1))
}

/// The octet that two hexadecimal digits say, from there on.
fn pair(text: &[u8], at: usize) -> Option<u8> {
    let digits = text.get(at..at + 2)?;
    let value = super::hex(digits)?;
    u8::try_from(value).ok()
}

/// `=2F`, or a line that goes on in the next one.
fn quoted_printable(text: &[u8]) -> Option<(Said, usize)> {
    match text {
        [_, b'\r', b'\n', ..] => Some((Said::Nothing, 3)),
        [_, b'\n', ..] => Some((Said::Nothing, 2)),
        _ => pair(text, 1).map(|octet| (Said::Octet(octet), 3)),
    }
}

/// `&amp;`, `&#47;` or `&#x2f;`; the semicolon of a number may be missing.
fn entity(text: &[u8]) -> Option<(Said, usize)> {
    let body = &text[1..text.len().min(ENTITY_OCTETS_MAX)];
    if let Some(number) = body.strip_prefix(b"#") {
        let (digits, radix, before) = match number.first() {
            Some(b'x' | b'X') => (&number[1..], 16, 3),
            _ => (number, 10, 2),
        };
        let length = digits.iter().take_while(|b| char::from(**b).is_digit(radix)).count();
        let number = u32::from_str_radix(std::str::from_utf8(&digits[..length]).ok()?, radix).ok()?;
        let ends = usize::from(digits.get(length) == Some(&b';'));
        return Some((Said::Letter(char::from_u32(number)?), before + length + ends));
    }
    let length = body.iter().position(|b| *b == b';')?;
    let (_, octet) = ENTITIES.iter().find(|(name, _)| *name == &body[..length])?;
    Some((Said::Octet(*octet), 1 + length + 1))
}

/// `\u002f`, `\x2f`, `\n`, `\/`, or one at the end.
fn backslash(text: &[u8]) -> (Said, usize) {
    let unit = |at: usize| match text.get(at..at + 6) {
        Some([b'\\', b'u', digits @ ..]) => super::hex(digits),
        _ => None,
    };
    match text.get(1) {
        None => (Said::Nothing, 1),
        Some(b'u') => match (unit(0), unit(6)) {
            (Some(high @ 0xD800..=0xDBFF), Some(low @ 0xDC00..=0xDFFF)) => {
                let letter = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                (char::from_u32(letter).map_or(Said::Nothing, Said::Letter), 12)
            }
            (Some(unit), _) => (char::from_u32(unit).map_or(Said::Nothing, Said::Letter), 6),
            (None, _) => (Said::Octet(b'u'), 2),
        },
        Some(b'x') => match pair(text, 2) {
            Some(octet) => (Said::Octet(octet), 4),
            None => (Said::Octet(b'x'), 2),
        },
        Some(b'n' | b'r' | b't') => (Said::Nothing, 2),
        Some(other) => (Said::Octet(*other), 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, equals: EqualsSign) -> String {
        String::from_utf8_lossy(&Plain::of(text.as_bytes(), equals).octets).into_owned()
    }

    #[test]
    fn every_escape_reads_as_what_it_says() {
        for text in [
            "a/b&c",
            "a%2Fb%26c",
            "a%252Fb%25252526c",
            r"a\/b\u0026c",
            r"a\\/b\\u0026c",
            r"\x61/b&c",
            "a&#47;b&amp;c",
            "&#x61;&#X2f;b&amp;amp;c",
            "a&sol;b&#38c",
            "a/\r\n b &\tc",
            "a/+b&c",
            r"a\n/\r\nb&c",
        ] {
            assert_eq!(read(text, EqualsSign::Stands), "a/b&c", "{text}");
        }
        assert_eq!(read("=61/=\r\nb=26=\nc", EqualsSign::Escapes), "a/b&c");
        assert_eq!(read("k=61", EqualsSign::Stands), "k=61");
        assert_eq!(read(r"\ud83d\ude00 &#x1f600; %F0%9F%98%80", EqualsSign::Stands), "\u{1f600}".repeat(3));
    }

    #[test]
    fn what_is_no_escape_stays() {
        for text in ["%", "%2", "%zz", "&", "&;", "&no;", "&#;", "&#x;", "&#xD800;", "&#99999999;", "=", "=x"]
        {
            assert_eq!(read(text, EqualsSign::Escapes), text);
        }
    }

    proptest! {
        #[test]
        fn every_octet_knows_where_it_stands(text in "(\\PC|%25|%2[0-9]|&#x?[0-9]{1,3};|&amp;|\\\\.|=[0-9]{2}){0,20}") {
            for equals in [EqualsSign::Escapes, EqualsSign::Stands] {
                let plain = Plain::of(text.as_bytes(), equals);
                let mut last = 0;
                for at in 0..plain.octets.len() {
                    let part = plain.part(at..at + 1).unwrap();
                    prop_assert!(part.start >= last && part.end > part.start && part.end <= text.len());
                    last = part.start;
                }
            }
        }
    }
}
