//! An upstream's replies, read with a bound: whole or not yet, well-formed or garbage.

use crate::mail::{Answer, Status};

/// More octets than this are no reply, in however many lines.
pub(super) const REPLY_OCTETS_MAX: usize = 64 * 1024;
/// So much of what is no reply is shown.
const EXCERPT_CHARS_MAX: usize = 100;

/// A whole reply at the start of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    /// The code of each of its lines.
    pub code: u16,
    /// Its octets, all lines.
    pub octets: usize,
}

/// What stands there is no SMTP reply; an excerpt for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Garbage(pub String);

/// Looks for a whole reply at the start of `input`; `None` when more has to come. Lines of one reply have the same code
/// (RFC 5321 section 4.2.1): where they have not, nobody can say which one is meant, or whether the later line answers
/// another command.
pub(super) fn whole(input: &[u8]) -> Result<Option<Whole>, Garbage> {
    let bounded = &input[..input.len().min(REPLY_OCTETS_MAX)];
    let mut at = 0;
    let mut of_first = None;
    while let Some(end) = memchr::memchr(b'\n', &bounded[at..]) {
        let line = trim(&input[at..at + end]);
        let code = code(line).ok_or_else(|| garbage(&input[at..]))?;
        if *of_first.get_or_insert(code) != code {
            return Err(garbage(input));
        }
        at += end + 1;
        if line.get(3) != Some(&b'-') {
            return Ok(Some(Whole { code, octets: at }));
        }
    }
    if input.len() <= REPLY_OCTETS_MAX {
        return Ok(None);
    }
    Err(Garbage(format!("no end within {} KiB of {}", REPLY_OCTETS_MAX / 1024, excerpt(input))))
}

/// `250`, `250 text` or `250-text`; no other class exists (RFC 5321 section 4.2).
fn code(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    let well = (b'2'..=b'5').contains(&digits[0]) && digits[1..].iter().all(u8::is_ascii_digit);
    let ends = matches!(line.get(3), None | Some(b' ' | b'-'));
    (well && ends).then(|| digits.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0')))
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The texts of a whole reply's lines, without codes.
pub(super) fn texts(reply: &[u8]) -> impl Iterator<Item = &[u8]> {
    reply.split(|b| *b == b'\n').filter_map(|line| trim(line).get(3..)).map(|t| t.get(1..).unwrap_or(t))
}

/// A whole reply as the courier gets it.
pub(super) fn answer(code: u16, reply: &[u8]) -> Answer {
    let mut enhanced = None;
    let mut text = String::new();
    for (n, line) in texts(reply).enumerate() {
        let line = String::from_utf8_lossy(line);
        let told = Status::of_reply(code, &line);
        let rest = told.map_or(&*line, |(_, rest)| rest);
        if n == 0 {
            enhanced = told.map(|(status, _)| status);
        }
        if !text.is_empty() && !rest.is_empty() {
            text.push(' ');
        }
        text.extend(rest.chars().map(|c| if c.is_control() { ' ' } else { c }));
        if text.len() > Answer::TEXT_OCTETS_MAX {
            break;
        }
    }
    text.truncate(text.floor_char_boundary(Answer::TEXT_OCTETS_MAX));
    text.truncate(text.trim_end().len());
    Answer { code, enhanced, text }
}

fn garbage(input: &[u8]) -> Garbage {
    Garbage(excerpt(input))
}

/// The start of foreign bytes, safe to log.
pub(super) fn excerpt(input: &[u8]) -> String {
    let shown = &input[..input.len().min(4 * EXCERPT_CHARS_MAX)];
    String::from_utf8_lossy(shown).chars().take(EXCERPT_CHARS_MAX).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(input: &[u8]) -> Answer {
        let found = whole(input).unwrap().unwrap();
        answer(found.code, &input[..found.octets])
    }

    #[test]
    fn replies_are_read_with_their_enhanced_codes() {
        for (input, code, enhanced, text) in [
            (&b"250 2.1.0 ok\r\n"[..], 250, Some([2, 1, 0]), "ok"),
            (b"250\r\n", 250, None, ""),
            (b"250 \r\n", 250, None, ""),
            (b"354 go\n", 354, None, "go"),
            (b"550-5.1.1 no such\r\n550 5.1.1 user\r\n", 550, Some([5, 1, 1]), "no such user"),
            (b"550 4.1.1 wrong class\r\n", 550, None, "4.1.1 wrong class"),
            (b"550 5.1 half\r\n", 550, None, "5.1 half"),
            (b"550 5.1.1.1 more\r\n", 550, None, "5.1.1.1 more"),
            (b"250 10.0.0.1 hi\r\n", 250, None, "10.0.0.1 hi"),
            (b"550 5.7.999 big\r\n", 550, Some([5, 7, 999]), "big"),
            (b"550 5.7.1000 bigger\r\n", 550, None, "5.7.1000 bigger"),
            (b"550 5.7.1\r\n", 550, Some([5, 7, 1]), ""),
            (b"550 a\x1bb\xffc\r\n", 550, None, "a b\u{fffd}c"),
        ] {
            let got = read(input);
            assert_eq!(
                (got.code, got.enhanced.map(Status::parts), got.text.as_str()),
                (code, enhanced, text),
                "{input:?}"
            );
        }
    }

    #[test]
    fn what_is_no_reply_is_garbage_and_what_is_unfinished_waits() {
        for bad in [
            "HTTP/1.1 400 Bad\r\n",
            "25 x\r\n",
            "999 x\r\n",
            "2500 x\r\n",
            "\r\n",
            "250-a\r\nxyz\r\n",
            "250-fine\r\n550 5.1.1 no\r\n",
            "550-no\r\n250 ok\r\n",
            "250-a\r\n550-b\r\n250 c\r\n",
            "250-a\r\n251-b\r\n",
            "250-never\r\n354 the next reply\r\n",
        ] {
            assert!(whole(bad.as_bytes()).is_err(), "{bad:?} was taken");
        }
        for open in ["", "2", "250 ok", "250-a\r\n", "250-a\r\n250"] {
            assert_eq!(whole(open.as_bytes()), Ok(None), "{open:?}");
        }
    }

    #[test]
    fn a_reply_has_bounds() {
        assert!(whole(&vec![b'2'; REPLY_OCTETS_MAX + 1]).is_err());
        let lines = |octets: usize| "250-x\r\n".repeat(octets / 7);
        assert!(whole(lines(REPLY_OCTETS_MAX + 7).as_bytes()).is_err());
        let many = lines(REPLY_OCTETS_MAX - 20) + "250 done\r\n";
        let next = "250 the next\r\n".repeat(10);
        for behind in ["", &next] {
            let found = whole((many.clone() + behind).as_bytes());
            assert_eq!(
                found,
                Ok(Some(Whole { code: 250, octets: many.len() })),
                "what is behind it does not count"
            );
        }
        let long = format!("250 {}\r\n", "ü".repeat(2000));
        assert_eq!(read(long.as_bytes()).text.len(), Answer::TEXT_OCTETS_MAX);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_a_whole_reply_is_found_in_any_split(input in proptest::collection::vec(any::<u8>(), 0..200), line in "[ -~]{0,40}") {
            let _ = whole(&input);
            let reply = format!("250-{line}\r\n250 {line}\r\n");
            for cut in 0..reply.len() {
                prop_assert_eq!(whole(&reply.as_bytes()[..cut]), Ok(None));
            }
            prop_assert_eq!(whole(reply.as_bytes()), Ok(Some(Whole { code: 250, octets: reply.len() })));
        }
    }
}
