//! Bare names in From, completed: `root` becomes `root@example.com`, as `[server] origin` says. Programs that cannot be
//! told their domain (cron, scripts) write such names, and no ESP takes them.

use std::ops::Range;

use super::headers::{Fields, LINE_OCTETS_MAX};
use super::splice::{Replacement, Splice};

/// What is to be put into the From fields of a block that begins at `fields_at`. Nothing where somebody has signed them
/// (RFC 6376 section 5.4: From is always signed).
pub fn completions(octets: &[u8], fields_at: usize, origin: &str) -> Vec<Splice> {
    let fields = || Fields::new(octets, fields_at);
    if fields().any(|field| field.is("DKIM-Signature")) {
        return Vec::new();
    }
    let mut splices = Vec::new();
    for field in fields().filter(|field| field.is("From")) {
        let start = field.span().end - field.value().len();
        let ends = bare_names(field.value());
        // A field so long that it might not fit a line any more is left as it is.
        if field.raw.len() + ends.len() * (origin.len() + 1) <= LINE_OCTETS_MAX {
            splices.extend(ends.into_iter().map(|end| {
                let at = start + end;
                Splice { span: at..at, with: Replacement::from(format!("@{origin}")) }
            }));
        }
    }
    splices
}

/// Where the bare names among these mailboxes end (RFC 5322 section 3.4: quoted texts, comments, names before `<`).
fn bare_names(value: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut mailbox = Mailbox::default();
    let mut at = 0;
    while at < value.len() {
        match value[at] {
            b'"' => {
                let end = after_quoted(value, at);
                mailbox.word(at..end, false);
                at = end;
                continue;
            }
            b'(' => {
                at = after_comment(value, at);
                continue;
            }
            b'<' => mailbox.angle = Some(Angle::default()),
            b'>' => mailbox.closed = true,
            b',' | b';' => found.extend(std::mem::take(&mut mailbox).bare()),
            // What stood before it was the name of a group.
            b':' => mailbox = Mailbox::default(),
            b if is_atom(b) => {
                let end = value[at..].iter().position(|b| !is_atom(*b)).map_or(value.len(), |n| at + n);
                mailbox.word(at..end, true);
                at = end;
                continue;
            }
            b if b.is_ascii_whitespace() => {}
            _ => mailbox.odd = true,
        }
        at += 1;
    }
    found.extend(mailbox.bare());
    found
}

#[derive(Default)]
struct Angle {
    words: usize,
    last: Range<usize>,
}

/// One mailbox, as far as it was read.
#[derive(Default)]
struct Mailbox {
    words: usize,
    last: Range<usize>,
    angle: Option<Angle>,
    closed: bool,
    /// Something stands in it that makes it no bare name: `@`, a quoted text, an unknown character.
    odd: bool,
}

impl Mailbox {
    fn word(&mut self, span: Range<usize>, is_atom: bool) {
        match &mut self.angle {
            Some(_) if self.closed => self.odd = true,
            Some(angle) => {
                self.odd |= !is_atom;
                (angle.words, angle.last) = (angle.words + 1, span);
            }
            None => {
                // Before `<` it is a name; a quoted name is one as well.
                self.words += if is_atom { 1 } else { 2 };
                self.last = span;
            }
        }
    }

    fn bare(self) -> Option<usize> {
        let (words, last) = match self.angle {
            Some(angle) => (angle.words, angle.last),
            None => (self.words, self.last),
        };
        (words == 1 && !self.odd).then_some(last.end)
    }
}

/// RFC 5322 section 3.2.3, dots included, and octets above 127.
fn is_atom(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b > 127 || b"!#$%&'*+-/=?^_`{|}~.".contains(&b)
}

fn after_quoted(value: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < value.len() && value[at] != b'"' {
        at += if value[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(value.len())
}

fn after_comment(value: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < value.len() {
        match value[at] {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at.min(value.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::splice::apply;
    use proptest::prelude::*;

    fn completed(block: &str) -> String {
        let splices = completions(block.as_bytes(), 0, "example.com");
        String::from_utf8(apply(block.as_bytes(), &splices)).unwrap()
    }

    #[test]
    fn bare_names_are_completed_and_addresses_are_left() {
        for (from, wanted) in [
            ("root", "root@example.com"),
            ("root (Cron Daemon)", "root@example.com (Cron Daemon)"),
            ("Cron Daemon <root>", "Cron Daemon <root@example.com>"),
            ("\"Cron, Daemon\"\r\n <root>", "\"Cron, Daemon\"\r\n <root@example.com>"),
            ("< root >", "< root@example.com >"),
            ("www-data, a@x.example, <b>", "www-data@example.com, a@x.example, <b@example.com>"),
            ("Team: root, b@x.example;", "Team: root@example.com, b@x.example;"),
            ("a@x.example", "a@x.example"),
            ("A <a@x.example>", "A <a@x.example>"),
            ("\"q u\"@x.example", "\"q u\"@x.example"),
            ("two words", "two words"),
            ("\"quoted\"", "\"quoted\""),
            ("(only a comment)", "(only a comment)"),
            ("<>", "<>"),
            ("", ""),
        ] {
            let block = format!("Subject: root\r\nFrom: {from}\r\nTo: root\r\n\r\nFrom: root\r\n");
            assert_eq!(
                completed(&block),
                block.replacen(&format!("From: {from}"), &format!("From: {wanted}"), 1)
            );
        }
    }

    #[test]
    fn what_is_signed_stays_as_it_is() {
        let block = "DKIM-Signature: v=1; d=x.example\r\nFrom: root\r\n\r\n";
        assert_eq!(completed(block), block);
    }

    proptest! {
        #[test]
        fn whatever_stands_there_only_the_origin_is_put_in(value in "[ a-z@<>(),:;\"\\\\.\u{e4}]{0,40}") {
            let block = format!("From:{value}\r\n\r\n");
            prop_assert_eq!(completed(&block).replace("@example.com", ""), block);
        }
    }
}
