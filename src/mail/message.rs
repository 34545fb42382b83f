//! What comes in (a submission) and what goes out (a message): the same mail before and after intake.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::body::Body;
use super::envelope::Envelope;
use super::id::MessageId;
use super::stream::{StreamKind, StreamName};
use super::terms::Terms;
use crate::clock::Timestamp;

/// How a client spoke, in the words of RFC 3848 for `Received: … with`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO, and what was added to it.
    Esmtp {
        /// Under TLS: S.
        tls: bool,
        /// After AUTH: A.
        auth: bool,
        /// With SMTPUTF8 (RFC 6531 section 4.3).
        utf8: bool,
    },
    /// The HTTP API.
    Http,
    /// Made by the relay itself: a report to a sender (RFC 3464).
    Report,
}

impl Protocol {
    /// The registered word.
    pub fn with(self) -> &'static str {
        match self {
            Protocol::Smtp => "SMTP",
            Protocol::Esmtp { tls: false, auth: false, utf8: false } => "ESMTP",
            Protocol::Esmtp { tls: true, auth: false, utf8: false } => "ESMTPS",
            Protocol::Esmtp { tls: false, auth: true, utf8: false } => "ESMTPA",
            Protocol::Esmtp { tls: true, auth: true, utf8: false } => "ESMTPSA",
            Protocol::Esmtp { tls: false, auth: false, utf8: true } => "UTF8SMTP",
            Protocol::Esmtp { tls: true, auth: false, utf8: true } => "UTF8SMTPS",
            Protocol::Esmtp { tls: false, auth: true, utf8: true } => "UTF8SMTPA",
            Protocol::Esmtp { tls: true, auth: true, utf8: true } => "UTF8SMTPSA",
            Protocol::Http => "HTTP",
            Protocol::Report => "REPORT",
        }
    }
}

/// Who handed the mail in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// The listener's name in logs and metrics.
    pub listener: String,
    /// The client's address.
    pub peer: IpAddr,
    /// What it called itself, cleaned of control characters.
    pub helo: String,
    /// Its user name, where it authenticated.
    pub credential: Option<String>,
    /// How it spoke.
    pub protocol: Protocol,
}

/// How long a key that an app chose is remembered.
pub const KEYS_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// A key for a message that an app may hand in more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceKey {
    /// Whose: the same key of somebody else is another.
    pub scope: String,
    /// As the app chose it, or as it follows from the message.
    pub key: String,
    /// How long it is remembered.
    pub kept: Duration,
    /// Whether it is remembered where an operator took the message out before anybody got it.
    pub outlives_removal: bool,
}

impl OnceKey {
    /// A key that an app chose.
    pub fn chosen(scope: String, key: String) -> Self {
        OnceKey { scope, key, kept: KEYS_KEPT, outlives_removal: true }
    }

    /// A key that follows from the message. What an operator took out is sent again by who meant it: nobody would get it
    /// otherwise.
    pub fn of_the_same(scope: String, key: String, kept: Duration) -> Self {
        OnceKey { scope, key, kept, outlives_removal: false }
    }
}

/// Mail at the door: whatever the edge read and removed is a field by now, so that SMTP, HTTP and campaigns enter alike.
#[derive(Debug)]
pub struct Submission {
    /// Who gets it.
    pub envelope: Envelope,
    /// The content as it arrived: every line ends in CRLF, nothing stray in it.
    pub raw: Body,
    /// The stream that was asked for, or bound by the credential or listener.
    pub stream: Option<StreamName>,
    /// Labels of the app's own, for statistics.
    pub tags: Vec<String>,
    /// Pairs of the app's own, carried to the ESP.
    pub metadata: Vec<(String, String)>,
    /// The key under which it is taken once.
    pub key: Option<OnceKey>,
    /// Not before this moment.
    pub send_at: Option<Timestamp>,
    /// The one ESP that may carry it.
    pub pin: Option<String>,
    /// Who handed it in.
    pub source: Source,
    /// What its client is bound to.
    pub terms: Arc<Terms>,
    /// Fields of the relay's that go on top, whole lines.
    pub on_top: String,
}

/// Mail that is ours: prepared, committed, never changed again.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its name everywhere.
    pub id: MessageId,
    /// Who gets it.
    pub envelope: Envelope,
    /// What kind of mail it is.
    pub stream: StreamName,
    /// The kind of that stream, as it was at intake.
    pub kind: StreamKind,
    /// The prepared content.
    pub body: Body,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it is given up.
    pub expires_at: Timestamp,
    /// Labels of the app's own.
    pub tags: Vec<String>,
    /// Pairs of the app's own.
    pub metadata: Vec<(String, String)>,
    /// The one ESP that may carry it.
    pub pin: Option<String>,
    /// Who handed it in.
    pub source: Source,
}
