//! Any SMTP server that takes mail for others: what its replies mean, by phase, code and words.
//!
//! Codes: RFC 5321 section 4.2, RFC 3463, RFC 4954 section 6. Vendors' words are quoted beside the row that knows them.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;

use super::answers::{retry_after, without_words};
use super::full_house;
use super::stopped;
use super::words::Words;
use super::{Esp, Parcel, Unfit};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::Request;
use crate::mail::notify::{Ask, Asks, Notify, ReportTo};
use crate::mail::{
    Answer, Body, BodyFacts, Envelope, Fault, Message, Named, Outcome, Phase, Protocol, Reply,
};
use crate::mail::{ReversePath, SmtpReply, SmtpRequest, Throttle};

/// When a spent quota is asked about again: no server tells when its window ends.
const QUOTA_WAIT: Duration = Duration::from_secs(3600);

/// The ESP of `type = "smtp"`.
#[derive(Debug, Clone, Default)]
pub struct Smtp {
    /// MAIL FROM instead of every sender's own, `<>` too: what comes back to it is not ours to answer.
    pub envelope_from: Option<ReversePath>,
    /// It takes reports to senders: it keeps `<>`, or they come from an address of the operator's own.
    pub reports: bool,
}

impl Esp for Smtp {
    fn compose(&self, parcel: Parcel<'_>, _now: Timestamp) -> Result<Request, Unfit> {
        if parcel.message.source.protocol == Protocol::Report && !self.reports {
            return Err(Unfit("reports to senders need [server] dsn_from where envelope_from is set".into()));
        }
        Ok(Request::Smtp(self.transaction(parcel, parcel.message.body.clone())))
    }

    fn sender<'a>(&'a self, own: &'a ReversePath) -> &'a ReversePath {
        self.envelope_from.as_ref().unwrap_or(own)
    }

    fn read(&self, parcel: Parcel<'_>, reply: &Reply, now: Timestamp) -> Vec<Outcome> {
        read(parcel, reply, now, |_, _| None)
    }
}

/// One outcome a recipient, in order. `own` has the rows of one ESP alone, looked at before those for all.
pub(super) fn read(
    parcel: Parcel<'_>,
    reply: &Reply,
    now: Timestamp,
    own: impl Fn(Phase, &Answer) -> Option<Meant>,
) -> Vec<Outcome> {
    let table = Table { own: &own, now, recipients: parcel.recipients };
    (0..parcel.recipients.len()).map(|n| table.outcome(reply, n)).collect()
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    /// It is somebody's fault.
    Fault(Fault),
    /// It is nobody's: the message does not fit.
    Unfit,
}

impl Smtp {
    /// The transaction for a parcel, with this content.
    fn transaction(&self, parcel: Parcel<'_>, body: Body) -> SmtpRequest {
        let message = parcel.message;
        let sender = self.sender(&message.envelope.sender).clone();
        SmtpRequest {
            smtputf8: needs_smtputf8(message, &sender, parcel.recipients),
            sender,
            recipients: parcel.recipients.to_vec(),
            body,
            reports: self.asks(parcel),
        }
    }

    /// The transaction for a parcel with these fields, whole lines, on top of its content: what an ESP reads out of the
    /// header and takes away.
    pub(super) fn with_fields(&self, parcel: Parcel<'_>, fields: &str) -> SmtpRequest {
        self.with_fields_instead(parcel, fields, 0..0)
    }

    /// The same, in the place of a field that lies there in the header block.
    pub(super) fn with_fields_instead(
        &self,
        parcel: Parcel<'_>,
        fields: &str,
        there: Range<usize>,
    ) -> SmtpRequest {
        let own = &parcel.message.body;
        let (before, after) = (&own.head[..there.start], &own.head[there.end..]);
        let head: Bytes = [fields.as_bytes(), before, after].concat().into();
        let longest = fields.lines().map(|line| line.len() as u64).max().unwrap_or(0);
        let facts = BodyFacts {
            size_octets: own.facts.size_octets + fields.len() as u64 - there.len() as u64,
            longest_line_octets: own.facts.longest_line_octets.max(longest),
            eight_bit: own.facts.eight_bit || !fields.is_ascii(),
        };
        self.transaction(parcel, Body { head, facts, ..own.clone() })
    }

    /// What was asked about reports for these recipients. Where MAIL FROM is replaced they would not reach who asked:
    /// then the relay itself answers for them. Where its client may not mail the sender, the next hop is not to do so.
    fn asks(&self, parcel: Parcel<'_>) -> Option<Box<Asks>> {
        let envelope = &parcel.message.envelope;
        let asks = envelope.reports.as_ref().filter(|_| self.envelope_from.is_none())?;
        if asks.to != ReportTo::Sender {
            let never = Ask { notify: Some(Notify::NEVER), original: None };
            return Some(Box::new(Asks { each: vec![never; parcel.recipients.len()], ..Asks::default() }));
        }
        let place = |to: &Address| envelope.recipients.iter().position(|r| r == to);
        let of = |to| place(to).and_then(|n| asks.of(n)).cloned().unwrap_or_default();
        let each = parcel.recipients.iter().map(of).collect();
        let envelope_id = asks.envelope_id.clone();
        Some(Box::new(Asks { each, ret: asks.ret, envelope_id, to: ReportTo::Sender }))
    }
}

/// Only where the client asked for SMTPUTF8 and something is there that needs it.
fn needs_smtputf8(message: &Message, sender: &ReversePath, recipients: &[Address]) -> bool {
    let Envelope { smtputf8, .. } = message.envelope;
    let named = |a: &Address| a.needs_smtputf8();
    let sender_named = matches!(sender, ReversePath::Mailbox(a) if named(a));
    smtputf8 && (sender_named || recipients.iter().any(named) || eight_bit_headers(message))
}

fn eight_bit_headers(message: &Message) -> bool {
    let head = &message.body.head;
    let end = memmem::find(head, b"\r\n\r\n").unwrap_or(head.len());
    message.body.facts.eight_bit && !head[..end].is_ascii()
}

/// What replies mean: one ESP's own rows, then those for all.
struct Table<'a, Own> {
    own: &'a Own,
    now: Timestamp,
    recipients: &'a [Address],
}

impl<Own: Fn(Phase, &Answer) -> Option<Meant>> Table<'_, Own> {
    /// What a reply means for the recipient at `n`.
    fn outcome(&self, reply: &Reply, n: usize) -> Outcome {
        if let Reply::Lost { recipients, .. } = reply
            && let Some(own) = recipients.get(n).filter(|own| !own.positive())
        {
            return self.not_taken(own, recipients);
        }
        match reply {
            Reply::Smtp(smtp) => self.answered(smtp, n),
            other => without_words(other),
        }
    }

    /// A recipient's own refusal counts for it, whatever became of the rest.
    fn answered(&self, smtp: &SmtpReply, n: usize) -> Outcome {
        match smtp.recipients.get(n) {
            Some(own) if !own.positive() => self.not_taken(own, &smtp.recipients),
            _ if smtp.phase == Phase::Dot && smtp.last.positive() => {
                Outcome::Accepted { remote_id: remote_id(&smtp.last.text), said: smtp.last.to_string() }
            }
            // Taken, but the transaction ended at another one's RCPT: no word about this recipient.
            Some(_) if smtp.phase == Phase::Rcpt => self.refused(Phase::Ehlo, &smtp.last, false),
            _ if smtp.phase >= Phase::Data && names_recipient(&smtp.last) => self.named(&smtp.last, n),
            _ => self.refused(smtp.phase, &smtp.last, false),
        }
    }

    /// A refusal of one recipient after all were taken: it is that one's alone, and the others may be taken elsewhere
    /// (DELIVERY rule 6).
    fn named(&self, answer: &Answer, n: usize) -> Outcome {
        let text = answer.text.to_ascii_lowercase();
        let named =
            |to: &Address| stands_in(&to.key(), &text) || stands_in(&to.wire().to_ascii_lowercase(), &text);
        let its_own = match self.recipients {
            [_] => true,
            all => all.get(n).is_some_and(named),
        };
        match its_own {
            true => self.refused(Phase::Rcpt, answer, false),
            false if self.recipients.iter().any(named) => {
                Outcome::Refused { fault: Fault::Path, lasting: false, wait: None, said: answer.to_string() }
            }
            // Nobody knows of whom it speaks.
            false => self.refused(Phase::Dot, answer, false),
        }
    }

    /// A refusal at RCPT. Beside one that was taken, "too many" speaks of this transaction alone.
    fn not_taken(&self, own: &Answer, all: &[Answer]) -> Outcome {
        let taken_beside = all.iter().any(Answer::positive);
        if too_many_recipients(own) && taken_beside {
            let fault = Fault::Throttled(Throttle::Transaction);
            return Outcome::Refused { fault, lasting: false, wait: None, said: own.to_string() };
        }
        self.refused(Phase::Rcpt, own, taken_beside)
    }

    fn refused(&self, phase: Phase, answer: &Answer, taken_beside: bool) -> Outcome {
        let said = answer.to_string();
        let own = (self.own)(phase, answer);
        let meant = own.or_else(|| fault(phase, answer, taken_beside, self.now).map(Meant::Fault));
        let Some(Meant::Fault(fault)) = meant else { return Outcome::Unfit { why: said } };
        let wait = match fault {
            Fault::Throttled(Throttle::Window(_)) => Some(QUOTA_WAIT),
            _ if phase == Phase::Token => answer.retry_after().and_then(|text| retry_after(text, self.now)),
            _ => None,
        };
        let lasting = match phase {
            Phase::Token => fault == Fault::Account,
            _ => answer.lasting() && !matches!(fault, Fault::Throttled(_)) && !too_many_recipients(answer),
        };
        Outcome::Refused { fault, lasting, wait, said }
    }
}

/// More recipients than a transaction may have. What is 452 by today's rules was 552 by older ones (RFC 5321 section
/// 4.5.3.1.10); SendGrid's "452 Too many recipients received this hour" speaks of a time's sending.
fn too_many_recipients(answer: &Answer) -> bool {
    let told = matches!(answer.enhanced, Some([4 | 5, 5, 3]));
    let text = answer.text.to_ascii_lowercase();
    let of_a_time = ["hour", "day", "minute", "second"].iter().any(|time| text.contains(time));
    match answer.code {
        _ if !answer.was_asked_for() => true,
        452 | 552 => (told || text.contains("too many recipients")) && !of_a_time,
        _ => false,
    }
}

/// Whether that address stands in the text, and not as the end or the beginning of another.
fn stands_in(address: &str, text: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '+' | '=' | '@');
    text.match_indices(address).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + address.len()..]);
        let mut after = after.chars();
        // A dot after it may end a sentence.
        let ends = match after.next() {
            Some('.') => !after.next().is_some_and(char::is_alphanumeric),
            next => !next.is_some_and(goes_on),
        };
        ends && !before.chars().next_back().is_some_and(|c| goes_on(c) || c == '.')
    })
}

/// A lasting word on a recipient by RFC 3463's classes of it: its address (x.1.y, but a sender's 5.1.7 and 5.1.8), or its
/// mailbox (x.2.y, but a limit of ours).
fn names_recipient(answer: &Answer) -> bool {
    let words = Words::of(answer);
    match answer.enhanced {
        Some([5, 1, 7 | 8]) => false,
        Some([5, 1, _]) => true,
        Some([5, 2, detail]) => !matches!(detail, 3 | 252) && !words.quota() && !words.limit_of_ours(),
        _ => false,
    }
}

/// Whose fault a refusal is; `None`: nobody's, the message does not fit. The first row that applies counts.
fn fault(phase: Phase, answer: &Answer, taken_beside: bool, now: Timestamp) -> Option<Fault> {
    let words = Words::of(answer);
    let code = answer.code;
    let throttled = Fault::Throttled(Throttle::Rate);
    // Whose sending has its limit, or goes too fast, is told so also where the words speak of its account.
    let is_limit = words.quota() || words.limit_of_ours() || (!answer.lasting() && words.throttle());
    let stopped = if is_limit { None } else { stopped::whose(phase, answer, taken_beside) };
    Some(match phase {
        Phase::Token => token_fault(&words),
        // 530 authentication required, 535 credentials invalid, at whatever command they come (RFC 4954 section 6).
        _ if matches!(code, 530 | 535) => Fault::Account,
        Phase::Auth if answer.lasting() => Fault::Account,
        Phase::Rcpt if words.does_not_fit_at_rcpt() => return None,
        _ if let Some(fault) = stopped => fault,
        Phase::Rcpt => recipient_fault(answer, &words, now),
        // Not one of ours stands: others have its places.
        _ if full_house::says(phase, answer) => throttled,
        // Google: "550 5.4.5 Daily user sending limit exceeded"; SES: "454 Throttling failure: Daily message quota
        // exceeded".
        _ if words.quota() => spent(now),
        _ if words.limit_of_ours() => throttled,
        _ if !answer.lasting() && (words.throttle() || words.is(421, [4, 7, 0])) => throttled,
        // Phase::Answer is of HTTP.
        Phase::Connect | Phase::Banner | Phase::Ehlo | Phase::Tls | Phase::Auth | Phase::Answer => {
            Fault::Path
        }
        _ if words.does_not_fit() => return None,
        Phase::Mail if words.protocol_at_mail() => Fault::Path,
        // At MAIL a server has seen nothing but the envelope's sender, so a lasting no is about it: 550 5.1.8, 553 5.7.1
        // and whatever text. Another ESP may know it.
        Phase::Mail if answer.lasting() => Fault::Sender(Named::Envelope),
        Phase::Mail => Fault::Path,
        // SES and SendGrid look at the From field.
        Phase::Data | Phase::Body | Phase::Dot if words.sender_unknown() => Fault::Sender(Named::From),
        // "503 5.5.1 need RCPT command": not a word about the content, which it has not seen.
        Phase::Data if words.protocol() => Fault::Path,
        // 500 is for a line that is too long, too.
        Phase::Data | Phase::Body | Phase::Dot if words.protocol() && !words.has("line") => Fault::Path,
        Phase::Data | Phase::Body | Phase::Dot if words.system() => Fault::Path,
        Phase::Data | Phase::Body | Phase::Dot if answer.lasting() || words.content() => Fault::Message,
        Phase::Data | Phase::Body | Phase::Dot => Fault::Path,
    })
}

/// A token endpoint's HTTP status (RFC 6749 section 5.2: 400 and 401). Whoever refuses the grant or the program refuses our
/// account there; who is busy, or times out, says nothing about it.
fn token_fault(words: &Words) -> Fault {
    let busy = ["temporarily_unavailable", "server_error"].iter().any(|error| words.has(error));
    match words.code {
        429 => Fault::Throttled(Throttle::Rate),
        408 | 500.. => Fault::Path,
        _ if busy => Fault::Path,
        _ => Fault::Account,
    }
}

/// A quota that is spent: nobody tells when its window ends.
pub(super) fn spent(now: Timestamp) -> Fault {
    Fault::Throttled(Throttle::Window(now.plus(QUOTA_WAIT)))
}

/// A full mailbox is "over quota" too, and a busy one has a limit: at RCPT only words about a time's sending count.
fn recipient_fault(answer: &Answer, words: &Words, now: Timestamp) -> Fault {
    match answer.code {
        _ if words.quota() && !words.of_mailbox() => spent(now),
        421 if words.throttle() || words.is(421, [4, 7, 0]) => Fault::Throttled(Throttle::Rate),
        // The connection's end, not the recipient's.
        421 => Fault::Path,
        _ if words.limit_of_ours() => Fault::Throttled(Throttle::Rate),
        _ if (words.protocol() || words.system()) && !words.of_mailbox() => Fault::Path,
        _ => Fault::Recipient,
    }
}

/// The ESP's own id out of its words after the final dot, as well as can be told.
fn remote_id(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let after = |mark: &str| lower.find(mark).map(|at| &text[at + mark.len()..]);
    let candidate = match after("queued as ").or_else(|| after("id=")) {
        Some(rest) => rest.split_ascii_whitespace().next(),
        // Amazon SES: "Ok 0100018c…-000000"; Google: "OK  1699999999 af79cd13-…123 - gsmtp".
        None => lower.starts_with("ok").then(|| longest_id(&text[2..])).flatten(),
    };
    let id = candidate?.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    (!id.is_empty()).then(|| id.to_owned())
}

/// Of several words that look like an id the longest one: others are times and counts.
fn longest_id(words: &str) -> Option<&str> {
    let id_like = |w: &&str| w.len() >= 6 && w.bytes().any(|b| b.is_ascii_digit());
    words.split_ascii_whitespace().filter(id_like).max_by_key(|w| w.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Grammar;
    use crate::mail::{AttemptId, Body, MessageId, Protocol, Source, StreamKind, StreamName};

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn address(text: &str) -> Address {
        Address::parse(text, Grammar::Strict).unwrap()
    }

    fn message(smtputf8: bool, sender: ReversePath, content: &str) -> Message {
        Message {
            id: MessageId::from_number(1),
            envelope: Envelope {
                sender,
                recipients: Vec::new(),
                body: Default::default(),
                smtputf8,
                reports: None,
            },
            stream: StreamName::new(StreamName::TRANSACTIONAL),
            kind: StreamKind::Transactional,
            body: Body::whole(content.to_owned()),
            accepted_at: NOW,
            expires_at: NOW,
            tags: Vec::new(),
            metadata: Vec::new(),
            pin: None,
            source: Source {
                listener: "l".into(),
                peer: std::net::Ipv4Addr::LOCALHOST.into(),
                helo: "c".into(),
                credential: None,
                protocol: Protocol::Smtp,
            },
        }
    }

    fn answer(line: &str) -> Answer {
        let (code, rest) = line.split_at(3);
        let rest = rest.trim_start();
        let parts = rest.split(' ').next().unwrap_or("");
        let numbers: Option<Vec<u8>> = parts.split('.').map(|p| p.parse().ok()).collect();
        let enhanced = numbers.and_then(|n| <[u8; 3]>::try_from(n).ok());
        let text = if enhanced.is_some() { rest[parts.len()..].trim_start() } else { rest };
        Answer { code: code.parse().unwrap(), enhanced, text: text.into() }
    }

    fn read(reply: &Reply, recipients: usize) -> Vec<Outcome> {
        let message = message(false, ReversePath::Null, "x: y\r\n\r\n");
        let named = |n: usize| address(&format!("r{n}@example.com"));
        let recipients: Vec<Address> = (0..recipients).map(named).collect();
        let parcel = Parcel {
            message: &message,
            whole: None,
            recipients: &recipients,
            attempt: AttemptId::from_number(1),
        };
        Smtp::default().read(parcel, reply, NOW)
    }

    fn ended(phase: Phase, last: &str, recipients: &[&str]) -> Reply {
        let recipients: Vec<Answer> = recipients.iter().map(|r| answer(r)).collect();
        Reply::Smtp(SmtpReply { phase, last: answer(last), recipients, reports: false })
    }

    /// Word of the fault and whether it lasts; "accepted", "unfit" and "unsure" for the others.
    fn word(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Refused { fault: Fault::Throttled(Throttle::Window(_)), .. } => "window".into(),
            Outcome::Refused { fault, lasting: true, .. } => format!("{} lasting", fault.word()),
            Outcome::Refused { fault, .. } => fault.word().into(),
            other => other.word().into(),
        }
    }

    #[test]
    fn a_token_endpoint_tells_how_long_to_wait() {
        for (said, seconds) in [
            ("429 from the token endpoint: too many (Retry-After: 120)", Some(120)),
            ("503 from the token endpoint: busy (Retry-After: Thu, 01 Jan 1970 00:01:01 GMT)", Some(60)),
            ("429 from the token endpoint: too many (Retry-After: soon)", None),
            ("429 from the token endpoint: too many", None),
        ] {
            let outcome = read(&ended(Phase::Token, said, &[]), 1).remove(0);
            let Outcome::Refused { wait, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!(wait, seconds.map(Duration::from_secs), "{said}");
        }
        let said = "550 5.1.1 no such user (Retry-After: 120)";
        let outcome = read(&ended(Phase::Mail, said, &[]), 1).remove(0);
        assert!(matches!(outcome, Outcome::Refused { wait: None, .. }), "{outcome:?}");
    }

    #[test]
    fn every_refusal_has_its_fault() {
        use Phase::{Auth, Banner, Body, Data, Dot, Ehlo, Mail, Rcpt, Tls, Token};
        for (phase, last, expected) in [
            (Banner, "554 no SMTP service here", "path lasting"),
            (Banner, "421 4.3.2 shutting down", "path"),
            (Banner, "421 4.7.0 Too many concurrent connections", "throttled"),
            (Banner, "554 maximum number of connections exceeded", "throttled"),
            (Ehlo, "550 go away", "path lasting"),
            (Tls, "454 4.7.0 TLS not available", "path"),
            (Token, "400 from the token endpoint: invalid_grant: daily limit", "account lasting"),
            (Token, "401 from the token endpoint: invalid_client", "account lasting"),
            (Token, "403 from the token endpoint, which names no error", "account lasting"),
            (Token, "400 from the token endpoint: temporarily_unavailable", "path"),
            (Token, "408 from the token endpoint, which names no error", "path"),
            (Token, "429 from the token endpoint: too many", "throttled"),
            (Token, "500 from the token endpoint: server_error", "path"),
            (Token, "530 from the token endpoint, which names no error", "path"),
            (Auth, "535 5.7.8 bad credentials", "account lasting"),
            (Auth, "534 5.7.9 use an application password", "account lasting"),
            (Auth, "454 4.7.0 temporary authentication failure", "path"),
            (Mail, "530 5.7.0 Authentication required", "account lasting"),
            (Mail, "550 5.1.8 sender domain unknown", "sender lasting"),
            (Mail, "553 5.7.1 not owned by user", "sender lasting"),
            (Mail, "501 5.1.7 bad sender", "sender lasting"),
            (Mail, "550 5.7.1 evil.test not allowed", "sender lasting"),
            (Mail, "501 <a>: sender address must contain a domain", "sender lasting"),
            (Mail, "555 5.1.7 bad address syntax", "sender lasting"),
            (Mail, "500 5.5.2 command unrecognized", "path lasting"),
            (Mail, "501 5.5.4 syntax: MAIL FROM:<...>", "path lasting"),
            (Mail, "502 5.5.1 not implemented", "path lasting"),
            (Mail, "503 5.5.1 nested MAIL command", "path lasting"),
            (Mail, "504 5.5.4 parameter not implemented", "path lasting"),
            (Mail, "555 5.5.4 unsupported option: SIZE", "path lasting"),
            (Mail, "552 5.3.4 message too big", "unfit"),
            (Mail, "552 size limit exceeded", "unfit"),
            (Mail, "553 5.6.7 SMTPUTF8 needed", "unfit"),
            (Mail, "451 4.3.0 try later", "path"),
            (Mail, "451 4.3.0 internal operation failed, error generated", "path"),
            (Mail, "452 4.3.1 insufficient storage", "path"),
            (Mail, "421 4.7.0 try again later", "throttled"),
            (Mail, "450 4.7.1 sending rate exceeded", "throttled"),
            (Mail, "454 Throttling failure: Maximum sending rate exceeded.", "throttled"),
            (Mail, "454 Throttling failure: Daily message quota exceeded.", "window"),
            (Mail, "451 4.7.1 You are rate-limited, slow down", "throttled"),
            (Rcpt, "550 5.1.1 unknown", "recipient lasting"),
            (Rcpt, "554 5.7.1 policy", "recipient lasting"),
            (Rcpt, "450 4.2.1 greylisted", "recipient"),
            (Rcpt, "452 4.5.3 too many recipients", "recipient"),
            (Rcpt, "452 4.2.2 over quota", "recipient"),
            (Rcpt, "552 5.2.2 mailbox full", "recipient lasting"),
            (Rcpt, "552 too many recipients", "recipient"),
            (Rcpt, "552 5.3.4 message too big for system", "unfit"),
            (Rcpt, "550 5.3.4 message size exceeds fixed limit", "unfit"),
            (Rcpt, "553 5.6.7 SMTPUTF8 needed", "unfit"),
            (Rcpt, "554 5.6.3 conversion required", "unfit"),
            (Rcpt, "552 message size exceeds the maximum", "unfit"),
            (Rcpt, "552 5.2.3 message too large for this mailbox", "recipient lasting"),
            (Rcpt, "552 message too large for the recipient's mailbox", "recipient lasting"),
            (Rcpt, "552 over quota", "recipient lasting"),
            (Rcpt, "421 4.3.2 going down", "path"),
            (Rcpt, "421 4.7.0 too many", "throttled"),
            (Rcpt, "554 5.7.1 <a@example.com>: Relay access denied", "path lasting"),
            (Rcpt, "553 5.7.1 <b@x.test>: Sender address rejected: not owned by user", "sender lasting"),
            (Rcpt, "530 5.7.0 log in first", "account lasting"),
            (Rcpt, "550 5.4.5 Daily sending quota exceeded", "window"),
            (Rcpt, "550 5.4.5 Daily user sending limit exceeded", "window"),
            (Rcpt, "451 4.4.5 hourly sending limit exceeded", "window"),
            (Rcpt, "454 Throttling failure: Daily message quota exceeded.", "window"),
            (Rcpt, "550 mailbox over quota", "recipient lasting"),
            (Rcpt, "550 5.2.2 over the daily quota of this mailbox", "recipient lasting"),
            (Rcpt, "452 4.2.1 the user receives mail at a limit, hourly", "recipient"),
            (Rcpt, "450 this mailbox has reached its daily limit", "recipient"),
            (Rcpt, "550 this user is receiving too much mail, daily limit", "recipient lasting"),
            (Rcpt, "500 5.5.2 command unrecognized", "path lasting"),
            (Rcpt, "502 5.5.1 not implemented", "path lasting"),
            (Rcpt, "503 5.5.1 need MAIL command", "path lasting"),
            (Rcpt, "504 5.5.2 <c>: Helo command rejected: need fully-qualified hostname", "path lasting"),
            (
                Rcpt,
                "504 5.5.2 <u>: Recipient address rejected: need fully-qualified address",
                "recipient lasting",
            ),
            (Rcpt, "501 5.1.3 bad recipient address syntax", "recipient lasting"),
            (Rcpt, "501 5.5.4 syntax", "recipient lasting"),
            (Rcpt, "503 5.1.1 no such user", "recipient lasting"),
            (Data, "550 5.4.5 Daily sending quota exceeded", "window"),
            (Data, "500 5.5.2 command unrecognized", "path lasting"),
            (Data, "502 5.5.1 not implemented", "path lasting"),
            (Data, "503 5.5.1 need RCPT command", "path lasting"),
            (Data, "504 5.5.4 not implemented", "path lasting"),
            (Data, "554 5.5.1 no", "path lasting"),
            (Dot, "500 line too long", "message lasting"),
            (Dot, "550 5.4.5 Daily sending quota exceeded", "window"),
            (Data, "451 4.3.0 later", "path"),
            (Body, "552 5.3.4 too big", "unfit"),
            (Dot, "554 5.7.1 spam", "message lasting"),
            (Dot, "552 5.7.0 content blocked", "message lasting"),
            (Dot, "552 5.3.4 too big", "unfit"),
            (Dot, "550 5.4.5 Daily user sending limit exceeded", "window"),
            (Dot, "554 Message rejected: Email address is not verified.", "sender lasting"),
            (Dot, "451 4.6.0 content scanner busy", "message"),
            (Dot, "451 4.3.0 queue file write error", "path"),
            (Dot, "452 4.3.1 too many messages", "throttled"),
            (Dot, "421 4.4.2 timeout", "path"),
            (Mail, "550 5.7.1 Your account has been suspended", "account lasting"),
            (Mail, "550 account suspended", "account lasting"),
            (Mail, "550 5.7.0 Account is not active", "account lasting"),
            (Mail, "450 4.7.1 account disabled", "account"),
            (Mail, "450 4.7.1 account disabled until its sending rate falls", "throttled"),
            (Mail, "550 5.7.1 <a@x.test>: account disabled", "sender lasting"),
            (Mail, "550 5.1.8 account disabled", "sender lasting"),
            (Mail, "550 5.7.1 the sender's account is locked", "sender lasting"),
            (Mail, "550 5.7.1 Unable to relay", "path lasting"),
            (Mail, "550 relaying denied", "path lasting"),
            (Mail, "550 unrecognized command", "path lasting"),
            (
                Mail,
                "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
                "sender lasting",
            ),
            (Rcpt, "550 5.7.1 Your account is suspended", "account lasting"),
            (Rcpt, "550 5.2.1 sending is suspended for your account", "account lasting"),
            (Rcpt, "451 4.7.1 your account is temporarily blocked", "account"),
            (Rcpt, "550 account suspended", "path lasting"),
            (Rcpt, "554 user account suspended", "path lasting"),
            (Rcpt, "550 5.2.1 user account suspended", "recipient lasting"),
            (Rcpt, "550 5.2.1 recipient's account disabled", "recipient lasting"),
            (Rcpt, "550 5.2.1 The email account that you tried to reach is disabled", "recipient lasting"),
            (Rcpt, "550 5.1.1 account disabled", "recipient lasting"),
            (Rcpt, "550 this account has been disabled", "recipient lasting"),
            (Rcpt, "554 <a@example.com>: account disabled", "recipient lasting"),
            (Rcpt, "550 account closed, mailbox unavailable", "recipient lasting"),
            (Rcpt, "550 5.7.1 the sender's account is locked", "sender lasting"),
            (Rcpt, "550 5.7.1 Unable to relay", "path lasting"),
            (Rcpt, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "path lasting"),
            (Rcpt, "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", "path lasting"),
            (Rcpt, "454 4.7.1 <a@example.com>: Relay access denied", "path"),
            (Rcpt, "550 relay not permitted", "path lasting"),
            (Rcpt, "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access denied", "path lasting"),
            (Rcpt, "550 5.5.1 Unknown command", "path lasting"),
            (
                Rcpt,
                "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
                "sender lasting",
            ),
            (Data, "550 account suspended", "account lasting"),
            (Data, "550 5.7.1 unable to relay", "path lasting"),
            (Data, "554 5.5.1 command unrecognized", "path lasting"),
            (
                Data,
                "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
                "sender lasting",
            ),
            (Dot, "550 account suspended", "account lasting"),
            (Dot, "554 5.7.1 Message rejected: the account is disabled.", "account lasting"),
            (Dot, "451 4.7.1 account temporarily suspended", "account"),
            (Dot, "550 5.4.5 account suspended: daily sending limit exceeded", "window"),
            (Dot, "550 5.7.1 account shop@x.test suspended", "path lasting"),
            (Dot, "550 5.2.1 account disabled", "recipient lasting"),
            (
                Dot,
                "554 delivery error: dd Sorry, your message to a@x.test cannot be delivered. This account has \
                 been disabled or discontinued",
                "message lasting",
            ),
            (Dot, "554 5.7.1 Message blocked as spam; ask your account manager", "message lasting"),
            (Dot, "550 5.7.1 relay access denied", "path lasting"),
            (Dot, "502 5.5.2 Error: command not recognized", "path lasting"),
            (Dot, "500 unknown command", "path lasting"),
            (
                Dot,
                "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
                "sender lasting",
            ),
            (Dot, "554 5.2.252 SendAsDenied; a@x.test not allowed to send as b@x.test", "sender lasting"),
            (Auth, "454 4.7.0 account temporarily locked", "account"),
            // What is no word about a mail, wherever it is said.
            (
                Dot,
                "554 Sending paused for this account. For more information, please check",
                "account lasting",
            ),
            (Dot, "550 5.7.1 Maximum credits exceeded", "account lasting"),
            (Dot, "550 5.7.1 Sender domain not verified", "sender lasting"),
            (Dot, "550 5.7.1 sender not allowed", "sender lasting"),
            (Dot, "550 5.1.8 sender bad", "sender lasting"),
            (Dot, "550 5.7.26 Unauthenticated email from a.test is not accepted: DMARC", "sender lasting"),
            (Dot, "503 5.5.1 bad sequence", "path lasting"),
            (Dot, "502 5.5.2 no", "path lasting"),
            (Dot, "521 5.3.2 host does not accept mail", "path lasting"),
            (Dot, "554 5.3.0 system", "path lasting"),
            (Dot, "502 5.7.0 Your SMTP account is not yet activated", "account lasting"),
            (Dot, "525 5.7.1 Unauthorized IP address", "path lasting"),
            (Dot, "554 Throttling failure: Maximum sending rate exceeded", "throttled"),
            (Dot, "554 5.7.1 rate limit exceeded", "throttled"),
            (Dot, "550 Too many messages", "throttled"),
            (Dot, "552 5.2.2 sending quota exceeded", "throttled"),
            (Dot, "554 5.2.0 SubmissionQuotaExceededException; submission quota exceeded", "throttled"),
            (Dot, "550 Unauthenticated senders not allowed", "account lasting"),
            (Dot, "554 Access denied: User is not authorized to perform ses:SendRawEmail", "account lasting"),
            (Dot, "554 5.4.6 too many hops", "message lasting"),
            (Dot, "554 5.7.1 message contains a blacklisted URL", "message lasting"),
            (Dot, "552 5.3.4 message too big", "unfit"),
            (Rcpt, "550 5.7.1 Client was not authenticated", "account lasting"),
            (Rcpt, "550 Please turn on SMTP Authentication in your mail client", "account lasting"),
            (Rcpt, "550 5.7.1 Mail from your IP is blocked", "path lasting"),
            (Rcpt, "554 5.7.1 sending limit exceeded for your account", "throttled"),
            (Rcpt, "550 5.7.1 too many connections from your host", "throttled"),
            (Rcpt, "550 5.3.5 system incorrectly configured", "path lasting"),
            (Rcpt, "552 5.3.1 system full", "path lasting"),
            (Rcpt, "501 5.5.2 syntax error", "recipient lasting"),
            (Rcpt, "550 5.5.1 no", "path lasting"),
            (Rcpt, "552 5.2.2 over quota", "recipient lasting"),
            (
                Rcpt,
                "550 5.2.1 The user you are trying to contact is receiving mail at a rate",
                "recipient lasting",
            ),
        ] {
            let recipients: &[&str] = match phase {
                Rcpt => &[last],
                Data | Body | Dot => &["250 ok"],
                _ => &[],
            };
            assert_eq!(
                word(&read(&ended(phase, last, recipients), 1)[0]),
                expected,
                "{} {last}",
                phase.word()
            );
        }
    }

    #[test]
    fn what_is_refused_is_the_sender_that_the_esp_has_looked_at() {
        let unknown = "550 The from address does not match a verified Sender Identity";
        for (phase, last, named) in [
            (Phase::Mail, "550 5.7.1 evil.test not allowed", Named::Envelope),
            (Phase::Mail, "554 5.7.1 a@example.com is not verified", Named::Envelope),
            (Phase::Rcpt, "550 5.1.8 <a@x.test>: Sender address rejected: Domain not found", Named::Envelope),
            (Phase::Data, unknown, Named::From),
            (Phase::Dot, unknown, Named::From),
            (Phase::Dot, "554 Message rejected: Email address is not verified.", Named::From),
        ] {
            let recipients = match phase {
                Phase::Rcpt => &[last][..],
                Phase::Mail => &[],
                _ => &["250 ok"],
            };
            let outcome = &read(&ended(phase, last, recipients), 1)[0];
            assert!(
                matches!(outcome, Outcome::Refused { fault: Fault::Sender(which), .. } if *which == named),
                "{last}: {outcome:?}"
            );
        }
    }

    #[test]
    fn a_recipient_that_the_last_answer_names_is_refused_alone() {
        let taken = ["250 ok"; 3];
        let words = |last: &str, n: usize| {
            read(&ended(Phase::Dot, last, &taken[..n]), n).iter().map(word).collect::<Vec<_>>()
        };
        let last = "550 5.1.1 <r1@example.com>: no such user";
        assert_eq!(words(last, 3), ["path", "recipient lasting", "path"]);
        assert_eq!(words(last, 1), ["recipient lasting"], "there is but one");
        assert_eq!(words("550 5.1.1 no such user", 1), ["recipient lasting"]);
        assert_eq!(words("550 5.1.1 no such user", 2), ["message lasting"; 2], "nobody knows which");
        assert_eq!(words("550 5.7.1 <r1@example.com>: spam", 3), ["message lasting"; 3]);
        for (text, stands) in [
            ("<a@x.test>: no", true),
            ("no a@x.test.", true),
            ("ba@x.test", false),
            ("b.a@x.test", false),
            ("a@x.test.example", false),
            ("a@x.tests", false),
        ] {
            assert_eq!(stands_in("a@x.test", text), stands, "{text}");
        }
    }

    #[test]
    fn each_recipient_has_its_own_answer() {
        let words = |reply| read(&reply, 3).iter().map(word).collect::<Vec<_>>();
        let recipients = ["250 ok", "550 5.1.1 no", "450 4.2.0 later"];
        assert_eq!(
            words(ended(Phase::Dot, "250 ok", &recipients)),
            ["accepted", "recipient lasting", "recipient"]
        );
        assert_eq!(
            words(ended(Phase::Dot, "554 5.7.1 spam", &recipients)),
            ["message lasting", "recipient lasting", "recipient"]
        );
        let cut = ["250 ok", "550 5.1.1 no", "421 4.3.2 going"];
        assert_eq!(words(ended(Phase::Rcpt, "421 4.3.2 going", &cut)), ["path", "recipient lasting", "path"]);
        assert_eq!(words(ended(Phase::Mail, "550 no", &[])), ["sender lasting"; 3]);
    }

    #[test]
    fn a_lost_line_is_refused_before_the_hand_over_and_unsure_after() {
        let lost = |handed_over| Reply::Lost {
            phase: Phase::Dot,
            handed_over,
            recipients: Vec::new(),
            said: "closed".into(),
        };
        assert_eq!(word(&read(&lost(false), 1)[0]), "path");
        assert_eq!(word(&read(&lost(true), 1)[0]), "unsure");
        assert_eq!(word(&read(&Reply::Unfit { why: "SIZE".into() }, 1)[0]), "unfit");
    }

    #[test]
    fn a_spent_quota_is_asked_about_again_later_and_does_not_last() {
        let reply = ended(Phase::Dot, "550 5.4.5 Daily user sending limit exceeded", &["250 ok"]);
        let until = NOW.plus(QUOTA_WAIT);
        assert!(matches!(
            &read(&reply, 1)[0],
            Outcome::Refused { fault: Fault::Throttled(Throttle::Window(at)), lasting: false, wait: Some(QUOTA_WAIT), .. } if *at == until
        ));
    }

    #[test]
    fn the_remote_id_is_found_in_many_words() {
        for (text, id) in [
            ("Ok: queued as 4Rs9Xy1zABz", Some("4Rs9Xy1zABz")),
            ("ok queued as <abc@x>.", Some("abc@x")),
            ("Ok 0100018c2b5d-1f2e-000000", Some("0100018c2b5d-1f2e-000000")),
            ("OK  1699999999 af79cd13be357-7789abc123si.4 - gsmtp", Some("af79cd13be357-7789abc123si.4")),
            ("OK id=1rABcd-0001Xy-2k", Some("1rABcd-0001Xy-2k")),
            ("Great success", None),
            ("ok", None),
            ("", None),
        ] {
            assert_eq!(remote_id(text).as_deref(), id, "{text}");
        }
    }

    fn composed(esp: &Smtp, message: &Message, recipient: &str) -> SmtpRequest {
        let recipients = [address(recipient)];
        let parcel =
            Parcel { message, whole: None, recipients: &recipients, attempt: AttemptId::from_number(1) };
        match esp.compose(parcel, NOW) {
            Ok(Request::Smtp(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn smtputf8_is_asked_for_where_the_client_did_and_something_needs_it() {
        let (plain, utf8) = ("x: y\r\n\r\n\u{fc}\r\n", "x: \u{fc}\r\n\r\nbody\r\n");
        for (asked, content, recipient, needed) in [
            (true, plain, "a@example.com", false),
            (true, plain, "gr\u{fc}n@example.com", true),
            (true, utf8, "a@example.com", true),
            (false, utf8, "a@example.com", false),
            (true, plain, "a@b\u{fc}cher.example", false),
        ] {
            let message = message(asked, ReversePath::Null, content);
            assert_eq!(
                composed(&Smtp::default(), &message, recipient).smtputf8,
                needed,
                "{content:?} {recipient}"
            );
        }
    }

    #[test]
    fn a_fixed_envelope_sender_replaces_every_other() {
        let esp =
            Smtp { envelope_from: Some(ReversePath::Mailbox(address("relay@example.net"))), reports: true };
        let own = ReversePath::Mailbox(address("a@example.org"));
        let sender = |own| composed(&esp, &message(false, own, "x: y\r\n\r\n"), "b@example.com").sender;
        assert_eq!(sender(own.clone()).wire(), "relay@example.net");
        assert_eq!(sender(ReversePath::Null).wire(), "relay@example.net");
        assert_eq!(composed(&Smtp::default(), &message(false, own.clone(), ""), "b@example.com").sender, own);
    }
}
