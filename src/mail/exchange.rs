//! What is asked of a wire and what it answers: requests and replies that know no ESP.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use super::body::Body;
use super::envelope::ReversePath;
use super::notify::Asks;
use super::status::Status;
use crate::address::Address;

/// One call, composed and ready to leave.
#[derive(Clone, Debug)]
pub enum Request {
    /// An SMTP transaction.
    Smtp(SmtpRequest),
    /// A POST to an ESP's API.
    Http(HttpRequest),
    /// Amazon's `SendEmail`.
    Ses(SesRequest),
    /// Nothing leaves: the sandbox keeps it.
    Keep,
}

/// One SMTP transaction.
#[derive(Clone, Debug)]
pub struct SmtpRequest {
    /// MAIL FROM.
    pub sender: ReversePath,
    /// RCPT TO, one each.
    pub recipients: Vec<Address>,
    /// The content as it was prepared.
    pub body: Body,
    /// The header block has octets above 127: only a next hop with SMTPUTF8 can take it as UTF-8 (RFC 6532); where
    /// the client did not ask for SMTPUTF8 the bytes pass as they are.
    pub smtputf8: bool,
    /// What was asked about reports, for these recipients in this order: passed on where the next hop offers DSN.
    pub reports: Option<Box<Asks>>,
}

/// One POST. The base of its URL and the key belong to the wire: a request holds no secret.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// After the base, from its `/` on.
    pub path: &'static str,
    /// Fields beside those of the wire.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON.
    pub body: Bytes,
    /// An answer of this status says all in its head: whatever body it has is not waited for.
    pub told_by_head: Option<u16>,
}

/// One `SendEmail` of the SES API v2, with raw MIME.
#[derive(Clone, Debug)]
pub struct SesRequest {
    /// The envelope's recipients, one each.
    pub recipients: Vec<Address>,
    /// The whole message.
    pub data: Bytes,
    /// `EmailTags`: name and value.
    pub tags: Vec<(String, String)>,
    /// `ConfigurationSetName`.
    pub configuration_set: Option<String>,
}

/// How far an exchange had come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Phase {
    /// Name look-up and TCP.
    Connect,
    /// Waiting for 220.
    Banner,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS, and the handshake (implicit TLS as well).
    Tls,
    /// An access token for AUTH, from elsewhere: an answer's code is an HTTP status.
    Token,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA, up to its 354.
    Data,
    /// Content is being written; its last octets have not been.
    Body,
    /// The last octets may have been handed over.
    Dot,
    /// The same where there is no dot: an HTTP request is there, its answer is due.
    Answer,
}

impl Phase {
    /// The word in logs, `explain` and the database.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Banner => "banner",
            Phase::Ehlo => "ehlo",
            Phase::Tls => "tls",
            Phase::Token => "token",
            Phase::Auth => "auth",
            Phase::Mail => "mail",
            Phase::Rcpt => "rcpt",
            Phase::Data => "data",
            Phase::Body => "body",
            Phase::Dot => "dot",
            Phase::Answer => "answer",
        }
    }
}

/// One SMTP reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Three digits; 0 where the words are the relay's own: the next hop was not asked.
    pub code: u16,
    /// RFC 3463, where it was told.
    pub enhanced: Option<Status>,
    /// Its text, lines joined by a blank, at most [`Answer::TEXT_OCTETS_MAX`].
    pub text: String,
}

impl Answer {
    /// More of an upstream's words than this is cut off.
    pub const TEXT_OCTETS_MAX: usize = 1024;
    /// A date has 29.
    const RETRY_AFTER_OCTETS_MAX: usize = 40;

    /// No reply: what the relay has to say of a recipient that it did not name.
    pub fn own(text: String) -> Answer {
        Answer { code: 0, enhanced: None, text }
    }

    /// The same with a `Retry-After` that came with it by HTTP, from a token endpoint: SMTP has no other place for it.
    #[must_use]
    pub fn with_retry_after(mut self, value: &str) -> Answer {
        let value = value.trim();
        if value.len() <= Answer::RETRY_AFTER_OCTETS_MAX && value.bytes().all(|b| matches!(b, b' '..=b'~')) {
            let said = format!(" (Retry-After: {value})");
            self.text.truncate(self.text.floor_char_boundary(Answer::TEXT_OCTETS_MAX - said.len()));
            self.text.push_str(&said);
        }
        self
    }

    /// See [`Answer::with_retry_after`].
    pub fn retry_after(&self) -> Option<&str> {
        self.text.strip_suffix(')')?.rsplit_once(" (Retry-After: ").map(|(_, value)| value)
    }

    /// Whether the next hop said it: its limit alone kept a recipient from being named else.
    pub fn was_asked_for(&self) -> bool {
        self.code != 0
    }

    /// 2xx.
    pub fn positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 5xx.
    pub fn lasting(&self) -> bool {
        self.code / 100 == 5
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.code == 0 {
            return f.write_str(&self.text);
        }
        write!(f, "{}", self.code)?;
        if let Some(status) = self.enhanced {
            write!(f, " {status}")?;
        }
        write!(f, " {}", self.text)
    }
}

/// What a wire brings back. A lost line is an answer too, not an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The SMTP dialogue came to an end.
    Smtp(SmtpReply),
    /// An HTTP answer, whatever its status.
    Http(HttpReply),
    /// The line died, hung or spoke nonsense.
    Lost {
        /// Where.
        phase: Phase,
        /// Whether the last octets of the body may have reached the other side.
        handed_over: bool,
        /// The reply to each RCPT, in the request's order, where all had come by then: who was refused stays refused.
        recipients: Vec<Answer>,
        /// What was seen, for people.
        said: String,
    },
    /// The next hop lacks what the message needs; nothing was handed over.
    Unfit {
        /// What it lacks.
        why: String,
    },
    /// The sandbox kept it.
    Kept,
}

impl Reply {
    /// The same reply, with `change` made to each of the other side's texts.
    #[must_use]
    pub fn with_words(mut self, change: impl Fn(&str) -> Cow<'_, str>) -> Self {
        let apply = |text: &mut String| {
            if let Cow::Owned(changed) = change(text) {
                *text = changed;
            }
        };
        match &mut self {
            Reply::Smtp(reply) => {
                apply(&mut reply.last.text);
                reply.recipients.iter_mut().for_each(|answer| apply(&mut answer.text));
            }
            Reply::Http(reply) => reply.change_words(&change),
            Reply::Lost { said, recipients, .. } => {
                apply(said);
                recipients.iter_mut().for_each(|answer| apply(&mut answer.text));
            }
            Reply::Unfit { .. } | Reply::Kept => {}
        }
        self
    }
}

/// An SMTP dialogue that came to an end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmtpReply {
    /// The phase of `last`.
    pub phase: Phase,
    /// The reply that ended it: the refusal at `phase`, or the reply to the final dot.
    pub last: Answer,
    /// The reply to each RCPT, in the request's order; empty when the dialogue ended before.
    pub recipients: Vec<Answer>,
    /// The next hop was told what was asked about reports: it answers for them from here on (RFC 3461 section 5.2.1).
    pub reports: bool,
}

/// An answer by HTTP.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpReply {
    /// Three digits.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// At most [`HttpReply::BODY_OCTETS_MAX`] of it.
    pub body: Bytes,
    /// The line broke, or the time passed, before its end.
    pub cut: bool,
}

impl HttpReply {
    /// More of an ESP's answer than this is left unread.
    pub const BODY_OCTETS_MAX: usize = 64 * 1024;

    /// The same answer, with `change` made to each of its texts.
    #[must_use]
    pub fn with_words(mut self, change: impl Fn(&str) -> Cow<'_, str>) -> Self {
        self.change_words(&change);
        self
    }

    fn change_words(&mut self, change: &impl Fn(&str) -> Cow<'_, str>) {
        // Octets that are no text are shown as people may read them: what is changed is that.
        let changed = match change(&String::from_utf8_lossy(&self.body)) {
            Cow::Owned(changed) => Some(changed),
            Cow::Borrowed(_) => None,
        };
        if let Some(changed) = changed {
            self.body = changed.into();
        }
        for (_, value) in &mut self.headers {
            if let Cow::Owned(changed) = change(value) {
                *value = changed;
            }
        }
    }

    /// The first field of that name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as people may read it, cut to [`Answer::TEXT_OCTETS_MAX`].
    pub fn text(&self) -> Cow<'_, str> {
        let octets = &self.body[..self.body.len().min(Answer::TEXT_OCTETS_MAX)];
        String::from_utf8_lossy(octets)
    }
}

impl std::fmt::Display for HttpReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = self.text();
        let words = words.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        write!(f, "HTTP {}{}{words}", self.status, if words.is_empty() { "" } else { " " })
    }
}

/// Asks an exchange to end at its next safe point. What was handed over is not un-said by it.
#[derive(Clone, Debug, Default)]
pub struct Abort(Arc<AbortState>);

#[derive(Debug, Default)]
struct AbortState {
    asked: AtomicBool,
    notify: Notify,
}

impl Abort {
    /// Ask.
    pub fn ask(&self) {
        self.0.asked.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Whether it was asked.
    pub fn asked(&self) -> bool {
        self.0.asked.load(Ordering::Acquire)
    }

    /// Waits until it is asked.
    pub async fn wait(&self) {
        let notified = self.0.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.asked() {
            notified.await;
        }
    }
}
