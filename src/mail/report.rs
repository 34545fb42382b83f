//! Reports to senders (RFC 3464 in the container of RFC 6522): what became of a message, for people and for programs.
//!
//! Every line has at most 998 octets and, but for a message that is returned whole, only ASCII: a report must arrive
//! where its subject did not.

use std::fmt::Write as _;
use std::ops::Range;

use super::envelope::ReversePath;
use super::headers::{LINE_OCTETS_MAX, fields};
use super::message::Message;
use super::notify::{Ask, Asks, Notify, Return, decode_xtext, utf8_xtext};
use super::status::Status;
use super::transfer::quoted_printable;
use crate::address::Address;
use crate::clock::Timestamp;

/// Of a header block that is returned; what is longer is cut at a field's end.
const RETURNED_HEADERS_OCTETS_MAX: usize = 64 * 1024;
/// Lines of fields are folded at this length where they have blanks.
const FOLD_AT: usize = 76;
/// Of the words that a report repeats for people.
const WORDS_CHARS_MAX: usize = 500;

/// What is told beside the cause where an attempt has no answer.
const MAY_HAVE_ARRIVED: &str =
    "The answer to another attempt was lost: it may have arrived all the same.\r\n";

/// Why a sender hears of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// An ESP refused it for good.
    Refused,
    /// Its time passed.
    Expired,
    /// Its recipient was suppressed after it had been accepted.
    Suppressed,
    /// It is late; it is tried further.
    Late,
    /// It was taken by one who does not tell whether it was delivered.
    Relayed,
}

impl Cause {
    /// Whether a sender who asked for that hears of it (RFC 3461 section 4.1). Who asked for nothing hears of failures
    /// that a server reported, or time; that somebody may not be mailed is told to those alone who asked for failures.
    pub fn wanted(self, notify: Option<Notify>) -> bool {
        match self {
            Cause::Refused | Cause::Expired => notify.is_none_or(|notify| notify.failure),
            Cause::Suppressed => notify.is_some_and(|notify| notify.failure),
            Cause::Late => notify.is_some_and(|notify| notify.delay),
            Cause::Relayed => notify.is_some_and(|notify| notify.success),
        }
    }

    /// `Action:` (RFC 3464 section 2.3.3).
    pub fn action(self) -> &'static str {
        match self {
            Cause::Refused | Cause::Expired | Cause::Suppressed => "failed",
            Cause::Late => "delayed",
            Cause::Relayed => "relayed",
        }
    }

    fn class(self) -> u16 {
        match self {
            Cause::Refused | Cause::Suppressed => 5,
            Cause::Expired | Cause::Late => 4,
            Cause::Relayed => 2,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Cause::Refused => "could not be delivered: the server that it was handed to refused it",
            Cause::Expired => "could not be delivered in the time that it may take",
            Cause::Suppressed => "was not sent: this address may not be mailed",
            Cause::Late => "has not been delivered yet; it is tried further, you need not send it again",
            Cause::Relayed => "was handed on, to a server that does not tell whether it is delivered",
        }
    }
}

/// What became of one recipient.
#[derive(Debug, Clone)]
pub struct Fate<'a> {
    /// The recipient.
    pub to: &'a Address,
    /// What was asked for it.
    pub ask: Option<&'a Ask>,
    /// Why the sender hears of it.
    pub cause: Cause,
    /// The enhanced code (RFC 3463) where the words have none.
    pub status: Option<Status>,
    /// The server's words, or ours; may be empty.
    pub said: &'a str,
    /// The host that said them.
    pub remote: Option<&'a str>,
    /// When the last attempt was answered; `None`: none was made.
    pub last_attempt_at: Option<Timestamp>,
    /// The answer to one of its attempts was lost: it may have arrived all the same.
    pub open: bool,
}

/// One report.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// What it is about; its `body.head` may be empty: then nothing of it is returned.
    pub message: &'a Message,
    /// Each recipient that it tells of.
    pub fates: Vec<Fate<'a>>,
    /// To whom.
    pub to: &'a Address,
    /// From which address.
    pub from: &'a str,
    /// The relay's name.
    pub hostname: &'a str,
    /// Its own id, in its Message-ID and its boundaries.
    pub id: &'a str,
    /// Now.
    pub at: Timestamp,
}

impl Report<'_> {
    /// The whole report: header block, words, status, and what is returned.
    pub fn write(&self) -> Vec<u8> {
        let boundary = format!("=_report-{}", self.id);
        let mut out = self.header(&boundary).into_bytes();
        let part = |out: &mut Vec<u8>| out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        part(&mut out);
        self.words(&mut out);
        part(&mut out);
        out.extend_from_slice(self.status().as_bytes());
        if !self.message.body.head.is_empty() {
            part(&mut out);
            self.returned(&mut out);
        }
        out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        out
    }

    fn header(&self, boundary: &str) -> String {
        let to = ascii_or_own(self.to);
        let mut out = String::with_capacity(1024);
        let subject = match self.worst() {
            Cause::Refused | Cause::Expired | Cause::Suppressed => "Your message could not be delivered",
            Cause::Late => "Your message is late",
            Cause::Relayed => "Your message was handed on",
        };
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "From: Mail Delivery System <{}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: {}\r\n\
             Message-ID: <{}@{}>\r\n",
            self.from,
            self.at.rfc5322(),
            self.id,
            self.hostname
        );
        if let Some(id) = self.message_id() {
            let _ = write!(out, "References: {id}\r\n");
        }
        if let ReversePath::Mailbox(sender) = &self.message.envelope.sender
            && sender != self.to
        {
            let sender = sender.ascii_wire().unwrap_or_else(|| "(an address beyond ASCII)".into());
            let _ = write!(out, "X-Postroad-Original-To: {sender}\r\n");
        }
        let _ = write!(
            out,
            "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; \
             report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n",
        );
        out
    }

    /// What the subject speaks of.
    fn worst(&self) -> Cause {
        self.fates.iter().map(|fate| fate.cause).min().unwrap_or(Cause::Refused)
    }

    /// That of the message, where it is what one should be.
    fn message_id(&self) -> Option<String> {
        let head = &self.message.body.head;
        let field = fields(head).find(|field| field.is("Message-ID"))?;
        let id = std::str::from_utf8(field.value()).ok()?.trim();
        let plain = id.starts_with('<') && id.ends_with('>') && id.bytes().all(|b| b.is_ascii_graphic());
        (plain && id.len() <= LINE_OCTETS_MAX - "References: ".len()).then(|| id.to_owned())
    }

    fn words(&self, out: &mut Vec<u8>) {
        let mut text = format!("This is the mail relay {}.\r\n", self.hostname);
        for fate in &self.fates {
            let _ = write!(text, "\r\nYour message to <{}>\r\n{}.\r\n", fate.to, fate.cause.in_words());
            if fate.open {
                text.push_str(MAY_HAVE_ARRIVED);
            }
            let said: String = fate.said.chars().map(printable).take(WORDS_CHARS_MAX).collect();
            match (said.as_str(), fate.remote.filter(|_| reply_code(fate.said).is_some())) {
                ("", _) => {}
                (said, Some(remote)) => {
                    let _ = write!(text, "{remote} said: {said}\r\n");
                }
                (said, None) => {
                    let _ = write!(text, "The reason: {said}\r\n");
                }
            }
        }
        if self.fates.iter().any(|fate| fate.cause == Cause::Late) {
            let until = self.message.expires_at.rfc5322();
            let _ = write!(text, "\r\nIt is given up at {until}.\r\n");
        }
        out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
        encoded(text.as_bytes(), out);
    }

    /// message/delivery-status (RFC 3464 section 2.1): of the message, then of each recipient.
    fn status(&self) -> String {
        let mut out = String::from("Content-Type: message/delivery-status\r\n\r\n");
        field(&mut out, "Reporting-MTA", &format!("dns; {}", self.hostname));
        if let Some(id) = self.asks().and_then(|asks| asks.envelope_id.as_deref()) {
            field(&mut out, "Original-Envelope-Id", &decoded(id));
        }
        field(&mut out, "Arrival-Date", &self.message.accepted_at.rfc5322());
        for fate in &self.fates {
            out.push_str("\r\n");
            self.status_of(fate, &mut out);
        }
        out
    }

    fn status_of(&self, fate: &Fate<'_>, out: &mut String) {
        if let Some(original) = fate.ask.and_then(|ask| ask.original.as_deref()) {
            let (kind, address) = original.split_once(';').unwrap_or(("rfc822", original));
            field(out, "Original-Recipient", &format!("{kind}; {}", decoded(address)));
        }
        field(out, "Final-Recipient", &final_recipient(fate.to));
        field(out, "Action", fate.cause.action());
        field(out, "Status", &status(fate));
        if let Some(remote) = fate.remote.filter(|_| reply_code(fate.said).is_some()) {
            field(out, "Remote-MTA", &format!("dns; {remote}"));
        }
        if !fate.said.is_empty() {
            let kind = if reply_code(fate.said).is_some() { "smtp" } else { "x-postroad" };
            field(out, "Diagnostic-Code", &format!("{kind}; {}", in_ascii(fate.said)));
        }
        if let Some(at) = fate.last_attempt_at {
            field(out, "Last-Attempt-Date", &at.rfc5322());
        }
        if fate.cause == Cause::Late {
            field(out, "Will-Retry-Until", &self.message.expires_at.rfc5322());
        }
    }

    fn asks(&self) -> Option<&Asks> {
        self.message.envelope.reports.as_deref()
    }

    /// The message itself where that was asked for, it failed, and it lies in memory; else its header block.
    fn returned(&self, out: &mut Vec<u8>) {
        let body = &self.message.body;
        let block = self.header_block();
        let failed = self.worst().action() == "failed";
        let wanted = failed && self.asks().is_some_and(|asks| asks.ret == Some(Return::Full));
        if wanted && body.rest.is_none() && body.head[block.clone()].is_ascii() {
            let eight_bit = if body.facts.eight_bit { "8bit" } else { "7bit" };
            let type_ =
                format!("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: {eight_bit}\r\n\r\n");
            out.extend_from_slice(type_.as_bytes());
            return out.extend_from_slice(&body.head);
        }
        out.extend_from_slice(b"Content-Type: text/rfc822-headers\r\n");
        encoded(&body.head[block], out);
    }

    /// Where the message's fields lie, as far as they are returned.
    fn header_block(&self) -> Range<usize> {
        let head = &self.message.body.head;
        let mut all = fields(head);
        let mut block: Option<Range<usize>> = None;
        for field in all.by_ref() {
            let span = field.span();
            let start = block.as_ref().map_or(span.start, |block| block.start);
            if span.end - start > RETURNED_HEADERS_OCTETS_MAX {
                break;
            }
            block = Some(start..span.end);
        }
        block.unwrap_or(0..0)
    }
}

/// The header's end and the content: as it is where that is plain and its lines are short, else quoted-printable.
fn encoded(content: &[u8], out: &mut Vec<u8>) {
    let long = content.split(|b| *b == b'\n').any(|line| line.len() > LINE_OCTETS_MAX);
    if content.is_ascii() && !long {
        out.extend_from_slice(b"Content-Transfer-Encoding: 7bit\r\n\r\n");
        return out.extend_from_slice(content);
    }
    out.extend_from_slice(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n");
    quoted_printable(content, out);
}

/// As `To` has it: with A-labels where that will do.
fn ascii_or_own(address: &Address) -> String {
    address.ascii_wire().unwrap_or_else(|| address.wire().to_owned())
}

/// `rfc822; …`; an address with a local part beyond ASCII in the form that passes everywhere (RFC 6533 section 3).
fn final_recipient(address: &Address) -> String {
    if let Some(ascii) = address.ascii_wire() {
        return format!("rfc822; {ascii}");
    }
    format!("utf-8; {}", utf8_xtext(address.wire()))
}

/// xtext in the clear, where that is printable ASCII.
fn decoded(xtext: &str) -> String {
    let plain = decode_xtext(xtext).filter(|octets| octets.iter().all(|b| matches!(b, b' '..=b'~')));
    plain.and_then(|octets| String::from_utf8(octets).ok()).unwrap_or_else(|| in_ascii(xtext))
}

fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// message/delivery-status is ASCII (RFC 3464 section 2.1): other letters are told as RFC 6533 section 3 has them in
/// addresses, `gr\x{FC}n`. message/global-delivery-status would have them as they are, and not arrive everywhere.
fn in_ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => out.push(c),
            c if c.is_control() => out.push(' '),
            c => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
            }
        }
    }
    out
}

/// The reply code at the beginning of a server's words.
fn reply_code(said: &str) -> Option<u16> {
    let code = said.get(..3)?;
    let ends = said[3..].is_empty() || said[3..].starts_with([' ', '-']);
    code.parse().ok().filter(|code| ends && (200..600).contains(code))
}

/// RFC 3463: the server's own code where it is of the right class, else what is known besides.
fn status(fate: &Fate<'_>) -> String {
    if fate.cause == Cause::Expired {
        // Delivery time expired.
        return "4.4.7".to_owned();
    }
    let class = fate.cause.class();
    let told = reply_code(fate.said).and_then(|_| fate.said[3..].split_ascii_whitespace().next());
    let told = told.and_then(Status::parse).filter(|told| told.class() == class);
    told.or(fate.status).map_or_else(|| format!("{class}.0.0"), |status| status.to_string())
}

/// One field, folded; a word that is too long for a line is broken.
fn field(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push(':');
    let mut column = name.len() + 1;
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        if column + 1 + word.len() > FOLD_AT && column > 1 {
            out.push_str("\r\n");
            column = 0;
        }
        out.push(' ');
        column += 1;
        let mut rest = word;
        while column + rest.len() > LINE_OCTETS_MAX {
            // Fields of a report are ASCII.
            let (piece, more) = rest.split_at(LINE_OCTETS_MAX - column);
            out.push_str(piece);
            out.push_str("\r\n ");
            (rest, column) = (more, 1);
        }
        out.push_str(rest);
        column += rest.len();
    }
    out.push_str("\r\n");
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
