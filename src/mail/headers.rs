//! The header block: its fields where they lie, and what the relay takes out and puts on top.
//!
//! Nothing is parsed that need not be: a field is a name and a span of octets. The octets of every field that stays,
//! and of the body, are never written again by us; [`super::splice`] copies them.
//!
//! The block ends at the first empty line, at the end of the message, or at the first line that is neither a field nor
//! a continuation. In the last case the body begins there, and an empty line is put before it (as Postfix does), so
//! that every later reader parts header and body where we did. A name followed by blanks and a colon is a field
//! (RFC 5322 section 4.5), and so is a name with octets above 127: refusing to see it would turn the fields after it
//! into text.

use std::ops::Range;

use memchr::{memchr, memmem};

use super::signed::covers;
use super::splice::{Replacement, Splice, in_order};

/// RFC 5322 section 2.1.1: a line without its CRLF.
pub const LINE_OCTETS_MAX: usize = 998;

/// One field, with its continuation lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<'a> {
    /// As it is spelled, without blanks before the colon.
    pub name: &'a [u8],
    /// From the name to the last line end.
    pub raw: &'a [u8],
    /// Where `raw` begins in the block.
    pub at: usize,
    /// Where the value begins in `raw`: after the colon.
    value_at: usize,
}

impl<'a> Field<'a> {
    /// Whether it has that name; case does not matter.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Where it lies in the block.
    pub fn span(&self) -> Range<usize> {
        self.at..self.at + self.raw.len()
    }

    /// After the colon, with folds and the last line end.
    pub fn value(&self) -> &'a [u8] {
        &self.raw[self.value_at..]
    }
}

/// How a header block ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Separator {
    /// At an empty line.
    EmptyLine,
    /// At a line that is no field: the body begins without an empty line.
    Missing,
    /// With the last octet: there is no body.
    End,
}

/// Where fields end and the body begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockEnd {
    /// After the last field.
    pub fields_end: usize,
    /// After the separator.
    pub body_at: usize,
    /// What lies between the two.
    pub separator: Separator,
}

/// The fields of a block, one after the other.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of `block`, beginning at `at`.
    pub fn new(block: &'a [u8], at: usize) -> Self {
        Fields { block, at: at.min(block.len()) }
    }

    /// The end of the block; meant for after the last field.
    pub fn end(&self) -> BlockEnd {
        let rest = &self.block[self.at..];
        let (separator, octets) = match rest {
            [] => (Separator::End, 0),
            [b'\r', b'\n', ..] => (Separator::EmptyLine, 2),
            _ => (Separator::Missing, 0),
        };
        BlockEnd { fields_end: self.at, body_at: self.at + octets, separator }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let (at, rest) = (self.at, &self.block[self.at..]);
        let name_octets = rest.iter().position(|b| !is_name_octet(*b)).filter(|n| *n > 0)?;
        let blanks = rest[name_octets..].iter().position(|b| !is_blank(*b))?;
        let colon = name_octets + blanks;
        if rest[colon] != b':' {
            return None;
        }
        let mut end = after_line(rest, colon);
        while end < rest.len() && is_blank(rest[end]) {
            end = after_line(rest, end);
        }
        self.at += end;
        Some(Field { name: &rest[..name_octets], raw: &rest[..end], at, value_at: colon + 1 })
    }
}

/// RFC 5322 section 3.6.8, and octets above 127.
fn is_name_octet(b: u8) -> bool {
    b > b' ' && b != b':' && b != 0x7f
}

fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// After the line end that follows `from`, or the end.
fn after_line(octets: &[u8], from: usize) -> usize {
    memchr(b'\n', &octets[from..]).map_or(octets.len(), |i| from + i + 1)
}

/// What one pass over a message's header block found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Where fields end and the body begins.
    pub end: BlockEnd,
    /// The mailbox line (`From x date`) on top, without its CRLF: no field (RFC 5322 section 3.6).
    pub mailbox_line: Option<Range<usize>>,
    /// How many `Received` fields.
    pub received: usize,
    /// One of them bears this relay's own token.
    pub passed_here: bool,
    /// `Date` is there, or a signature covers that there is none: adding it would break that one.
    pub date_settled: bool,
    /// The same of `Message-ID`.
    pub message_id_settled: bool,
    /// What has to go: `Bcc`, `Resent-Bcc`, `Return-Path`, `X-Postroad-*`.
    pub removals: Vec<Removal>,
    /// The block ended at a line that is no field, and a `Bcc` line stands between it and the next empty line: it was
    /// meant as a header, and would be shown to everybody.
    pub bcc_in_body: bool,
}

/// A field that is taken out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removal {
    /// Its name as it was spelled, for the log.
    pub name: String,
    /// Where it lies.
    pub span: Range<usize>,
}

impl Head {
    /// Reads the block at the beginning of `octets`. `token` is what this relay writes into its own `Received`.
    pub fn read(octets: &[u8], token: &str) -> Head {
        Head::read_less(octets, token, |_| false)
    }

    /// The same, where more has to go than ever has to.
    pub fn read_less(octets: &[u8], token: &str, goes: fn(&Field<'_>) -> bool) -> Head {
        let mailbox_line = mailbox_line(octets);
        let nothing = Fields::new(octets, 0).end();
        let mut head = Head {
            end: nothing,
            mailbox_line,
            received: 0,
            passed_here: false,
            date_settled: false,
            message_id_settled: false,
            removals: Vec::new(),
            bcc_in_body: false,
        };
        let mut fields = Fields::new(octets, head.fields_at());
        for field in fields.by_ref() {
            head.note(&field, token, goes);
        }
        head.end = fields.end();
        head.bcc_in_body =
            head.end.separator == Separator::Missing && has_bcc_line(&octets[head.end.body_at..]);
        head
    }

    fn note(&mut self, field: &Field<'_>, token: &str, goes: fn(&Field<'_>) -> bool) {
        if field.is("Received") {
            self.received += 1;
            self.passed_here |= !token.is_empty() && memmem::find(field.value(), token.as_bytes()).is_some();
        } else if field.is("Date") {
            self.date_settled = true;
        } else if field.is("Message-ID") {
            self.message_id_settled = true;
        } else if must_go(field) || goes(field) {
            let name = String::from_utf8_lossy(field.name).into_owned();
            self.removals.push(Removal { name, span: field.span() });
        } else {
            self.date_settled |= covers(field, "Date");
            self.message_id_settled |= covers(field, "Message-ID");
        }
    }

    /// Where the first field begins: after the mailbox line.
    pub fn fields_at(&self) -> usize {
        self.mailbox_line.as_ref().map_or(0, |l| l.end + 2)
    }

    /// All splices in order: `on_top` before everything, the mailbox line as a field, removals, what else is
    /// `mended`, and the empty line where none was.
    pub fn splices(&self, octets: &[u8], on_top: String, mended: Vec<Splice>) -> Vec<Splice> {
        let mut splices = Vec::with_capacity(self.removals.len() + mended.len() + 3);
        splices.push(Splice { span: 0..0, with: Replacement::from(on_top) });
        splices.extend(self.mailbox_splice(octets));
        splices.extend(
            self.removals.iter().map(|r| Splice { span: r.span.clone(), with: Replacement::NOTHING }),
        );
        splices.extend(mended);
        if self.end.separator == Separator::Missing {
            splices.push(Splice { span: self.end.body_at..self.end.body_at, with: Replacement::EMPTY_LINE });
        }
        in_order(splices)
    }

    /// `From x date` becomes `X-Mailbox-Line: From x date`; where that would be too long it is dropped.
    fn mailbox_splice(&self, octets: &[u8]) -> Option<Splice> {
        const NAME: &str = "X-Mailbox-Line: ";
        let line = self.mailbox_line.clone()?;
        Some(if line.len() + NAME.len() <= LINE_OCTETS_MAX {
            Splice { span: 0..0, with: Replacement::text(NAME) }
        } else {
            Splice { span: 0..(line.end + 2).min(octets.len()), with: Replacement::NOTHING }
        })
    }

    /// What of the block does not reach the next hop: there a line may be as long as it likes.
    pub fn dropped_spans(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.mailbox_line.iter().cloned().chain(self.removals.iter().map(|r| r.span.clone()))
    }
}

/// What the names of the fields begin with that speak to the relay.
pub const OURS: &[u8] = b"X-Postroad-";

/// The fields of the header block at the beginning of `octets`.
pub fn fields(octets: &[u8]) -> Fields<'_> {
    Fields::new(octets, mailbox_line(octets).map_or(0, |line| line.end + 2))
}

/// The Message-ID among fields, without folds, blanks and angle brackets; `None`: there is none.
pub fn message_id<'a>(fields: impl Iterator<Item = Field<'a>>) -> Option<String> {
    let values = fields.filter(|field| field.is("Message-ID")).map(|field| field.value());
    let id = values.flat_map(|value| value.iter().copied()).collect::<Vec<u8>>();
    bare_id(&String::from_utf8_lossy(&id))
}

/// The same of the field's value.
pub fn bare_id(value: &str) -> Option<String> {
    let bare = value.replace(|c: char| c.is_whitespace() || c == '<' || c == '>', "");
    Some(bare).filter(|id| !id.is_empty())
}

fn must_go(field: &Field<'_>) -> bool {
    ["Bcc", "Resent-Bcc", "Return-Path"].iter().any(|n| field.is(n)) || begins(field, OURS)
}

/// Whether it speaks to an ESP past the relay: names other recipients, another stream, another configuration set.
pub fn is_vendors(field: &Field<'_>) -> bool {
    // Mandrill mails a copy of everything to the one that the second of these names.
    ["X-SMTPAPI", "X-MC-BccAddress"].iter().any(|n| field.is(n))
        || begins(field, b"X-SES-")
        || begins(field, b"X-PM-")
}

fn begins(field: &Field<'_>, with: &[u8]) -> bool {
    field.name.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
}

/// The first line where it is a mailbox line, also one that was quoted (`>From `); `From : a@b` is a field.
fn mailbox_line(octets: &[u8]) -> Option<Range<usize>> {
    let quotes = octets.iter().position(|b| *b != b'>')?;
    let after = octets[quotes..].strip_prefix(b"From ")?;
    if after.iter().find(|b| !is_blank(**b)) == Some(&b':') {
        return None;
    }
    let end = memmem::find(octets, b"\r\n").unwrap_or(octets.len());
    Some(0..end)
}

/// Whether a `Bcc` field stands before the next empty line.
fn has_bcc_line(octets: &[u8]) -> bool {
    let mut at = 0;
    while at < octets.len() && !octets[at..].starts_with(b"\r\n") {
        match Fields::new(octets, at).next() {
            Some(field) if field.is("Bcc") || field.is("Resent-Bcc") => return true,
            Some(field) => at += field.raw.len(),
            None => at = after_line(octets, at),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::splice::apply;
    use proptest::prelude::*;

    const TOKEN: &str = "postroad-00c0ffee";
    const ON_TOP: &str = "Received: by test\r\n";

    fn edited(octets: &[u8]) -> Vec<u8> {
        let head = Head::read(octets, TOKEN);
        apply(octets, &head.splices(octets, ON_TOP.to_owned(), Vec::new()))
    }

    fn names(octets: &[u8]) -> Vec<&[u8]> {
        Fields::new(octets, 0).map(|f| f.name).collect()
    }

    #[track_caller]
    fn becomes(before: &str, after: &str) {
        let edited = edited(before.as_bytes());
        assert_eq!(String::from_utf8_lossy(&edited), format!("{ON_TOP}{after}"));
    }

    #[test]
    fn fields_lie_where_they_lie() {
        let block = b"A: 1\r\nb-C \t: 2\r\n\t3\r\n \r\nD:\r\n\r\nE: body\r\n";
        let fields: Vec<_> = Fields::new(block, 0).collect();
        assert_eq!(names(block), [&b"A"[..], b"b-C", b"D"]);
        assert_eq!(fields[1].raw, b"b-C \t: 2\r\n\t3\r\n \r\n");
        assert_eq!(fields[1].value(), b" 2\r\n\t3\r\n \r\n");
        assert!(fields[1].is("B-c"));
        assert_eq!(&block[fields[2].span()], b"D:\r\n");
    }

    #[test]
    fn the_block_ends_at_an_empty_line_at_the_end_or_at_what_is_no_field() {
        let end = |octets: &[u8]| {
            let end = Head::read(octets, TOKEN).end;
            (end.fields_end, end.body_at, end.separator)
        };
        assert_eq!(end(b"A: 1\r\n\r\nx\r\n"), (6, 8, Separator::EmptyLine));
        assert_eq!(end(b"\r\nx\r\n"), (0, 2, Separator::EmptyLine));
        assert_eq!(end(b"A: 1\r\n"), (6, 6, Separator::End));
        assert_eq!(end(b""), (0, 0, Separator::End));
        for no_field in ["x\r\n", "a b: c\r\n", ": c\r\n", "--b\r\n", " folded: x\r\n", "a\x7f: c\r\n"] {
            assert_eq!(end(no_field.as_bytes()), (0, 0, Separator::Missing), "{no_field:?}");
        }
        assert_eq!(end("A: 1\r\nGrüße: x\r\n\r\n".as_bytes()).2, Separator::EmptyLine);
    }

    #[test]
    fn only_what_has_to_go_is_taken_out() {
        becomes(
            "Subject: s\r\nBcc: a@x\r\n,\r\n\tb@x\r\nTo: c@x\r\n\r\n",
            "Subject: s\r\n\r\n,\r\n\tb@x\r\nTo: c@x\r\n\r\n",
        );
        becomes(
            "Subject: s\r\nBcc: a@x,\r\n\tb@x,\r\n \r\n c@x\r\nTo: d@x\r\n\r\nhi\r\n",
            "Subject: s\r\nTo: d@x\r\n\r\nhi\r\n",
        );
        becomes("bCC : a@x\r\nRESENT-BCC:b\r\nreturn-path: <c>\r\nx-postroad-Tag: t\r\n\r\n", "\r\n");
        becomes(
            "X-Bcc: a\r\nBccx: b\r\nX-Postroad: c\r\n\r\nBcc: body\r\n",
            "X-Bcc: a\r\nBccx: b\r\nX-Postroad: c\r\n\r\nBcc: body\r\n",
        );
        becomes(
            "Subject: K\u{fffd}va\r\nContent-Length: 3\r\n\r\nhi\r\n",
            "Subject: K\u{fffd}va\r\nContent-Length: 3\r\n\r\nhi\r\n",
        );
        let nested = "Content-Type: message/rfc822\r\n\r\nBcc: x\r\n\r\nhi\r\n";
        becomes(nested, nested);
    }

    #[test]
    fn what_speaks_to_an_esp_goes_where_it_has_to() {
        let block = b"X-SMTPAPI: {}\r\nTo: a\r\nx-ses-tags: b\r\nX-PM-Tag:\r\n c\r\nX-PMX: d\r\nX-Mailgun-Tag: e\r\n\r\n";
        let head = Head::read_less(block, TOKEN, is_vendors);
        let left = apply(block, &head.splices(block, String::new(), Vec::new()));
        assert_eq!(String::from_utf8_lossy(&left), "To: a\r\nX-PMX: d\r\nX-Mailgun-Tag: e\r\n\r\n");
        assert!(Head::read(block, TOKEN).removals.is_empty());
    }

    #[test]
    fn names_of_what_was_taken_out_are_known() {
        let head = Head::read(b"BCC: a\r\nX-Postroad-Stream: s\r\n\r\n", TOKEN);
        assert_eq!(
            head.removals.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(),
            ["BCC", "X-Postroad-Stream"]
        );
    }

    #[test]
    fn raw_octets_pass_untouched() {
        let latin1 = b"Subject: K\xe1va t\xfdden?\r\n\r\nDobr\xfd den\r\n";
        assert_eq!(edited(latin1), [ON_TOP.as_bytes(), latin1].concat());
    }

    #[test]
    fn header_and_body_stay_apart_whatever_is_missing_between_them() {
        becomes("hello\r\n", "\r\nhello\r\n");
        becomes(" indented\r\n", "\r\n indented\r\n");
        becomes("Subject: s\r\nhello\r\n", "Subject: s\r\n\r\nhello\r\n");
        becomes("\r\nhello\r\n", "\r\nhello\r\n");
        becomes("Subject: s\r\n", "Subject: s\r\n");
        becomes("", "");
    }

    #[test]
    fn a_mailbox_line_becomes_a_field_and_the_fields_after_it_stay_fields() {
        becomes(
            "From root Mon Nov 23 06:25 UTC 2026\r\nFrom: root@x\r\nTo: a@x\r\n\r\nhi\r\n",
            "X-Mailbox-Line: From root Mon Nov 23 06:25 UTC 2026\r\nFrom: root@x\r\nTo: a@x\r\n\r\nhi\r\n",
        );
        becomes(">From x y\r\nTo: a\r\n\r\n", "X-Mailbox-Line: >From x y\r\nTo: a\r\n\r\n");
        becomes("From : a@x\r\n\r\n", "From : a@x\r\n\r\n");
        becomes("To: a\r\nFrom x y\r\n", "To: a\r\n\r\nFrom x y\r\n");
        becomes(&format!("From {}\r\nTo: a\r\n\r\n", "x".repeat(990)), "To: a\r\n\r\n");
        becomes("From x y\r\nBcc: a\r\nhi\r\n", "X-Mailbox-Line: From x y\r\n\r\nhi\r\n");
    }

    #[test]
    fn loops_are_seen_in_received_alone() {
        let mine = format!("Received: from a\r\n\tby b (Postroad/{TOKEN});\r\n\tdate\r\nReceived: x\r\n\r\n");
        let head = Head::read(mine.as_bytes(), TOKEN);
        assert!(head.passed_here);
        assert_eq!(head.received, 2);
        for other in [format!("Subject: {TOKEN}\r\n\r\n"), format!("\r\nReceived: {TOKEN}\r\n")] {
            assert!(!Head::read(other.as_bytes(), TOKEN).passed_here);
        }
        assert!(!Head::read(b"Received: x\r\n\r\n", "").passed_here);
    }

    #[test]
    fn a_bcc_behind_a_broken_line_is_seen() {
        let bcc_in_body = |text: &str| Head::read(text.as_bytes(), TOKEN).bcc_in_body;
        assert!(bcc_in_body("Subject: a\r\nb c\r\nTo: x\r\nbcc : y\r\n\r\nhi\r\n"));
        assert!(!bcc_in_body("Subject: a\r\nb c\r\n\r\nBcc: y\r\n"));
        assert!(!bcc_in_body("Subject: a\r\n\r\nBcc: y\r\n\r\n"));
    }

    fn field() -> impl Strategy<Value = (String, bool)> {
        let value = "[ -~é]{0,30}(\r\n[ \t][ -~]{0,20}){0,3}";
        prop_oneof![
            3 => ("[A-Za-z-]{1,12}", "[ \t]{0,2}", value).prop_map(|(n, b, v)| (format!("Q{n}{b}:{v}\r\n"), true)),
            1 => ("[Bb][Cc]{2}|[rR]esent-[bB]CC|[Rr]eturn-[pP]ath|[xX]-POST[rR]oad-[a-z]{0,9}", "[ \t]{0,2}", value)
                .prop_map(|(n, b, v)| (format!("{n}{b}:{v}\r\n"), false)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_input_without_what_had_to_go(
            fields in prop::collection::vec(field(), 0..12),
            body in "(\r\n([ -~]{0,40}\r\n){0,5})?",
        ) {
            let all: String = fields.iter().map(|(f, _)| f.as_str()).collect();
            let kept: String = fields.iter().filter(|(_, stays)| *stays).map(|(f, _)| f.as_str()).collect();
            let out = edited(format!("{all}{body}").as_bytes());
            prop_assert_eq!(String::from_utf8_lossy(&out), format!("{ON_TOP}{kept}{body}"));
        }

        #[test]
        fn any_octets_are_kept_and_never_read_as_other_fields(lines in prop::collection::vec("[ -~\té]{0,12}|([Bb]cc|To|From)[ :]{1,2}x", 0..10)) {
            let text = lines.iter().map(|l| format!("{l}\r\n")).collect::<String>();
            let before = Head::read(text.as_bytes(), TOKEN);
            let out = edited(text.as_bytes());
            prop_assert!(out.starts_with(ON_TOP.as_bytes()));
            prop_assert!(out.ends_with(&text.as_bytes()[before.end.body_at..]));
            // A second pass has nothing left to do but to add its own line.
            let again = Head::read(&out, TOKEN);
            prop_assert!(again.removals.is_empty() && again.mailbox_line.is_none());
            prop_assert!(again.end.separator != Separator::Missing);
            prop_assert_eq!(&out[again.end.body_at..], &text.as_bytes()[before.end.body_at..]);
        }
    }
}
