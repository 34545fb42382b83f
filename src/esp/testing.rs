//! A message for the tests of ESPs.

use crate::clock::Timestamp;
use crate::mail::{
    Body, Envelope, Message, MessageId, Protocol, ReversePath, Source, StreamKind, StreamName,
};

/// A transactional message of that content, without a sender.
pub(super) fn message(content: &str) -> Message {
    let now = Timestamp::from_millis(1_000);
    Message {
        id: MessageId::from_number(1),
        envelope: Envelope {
            sender: ReversePath::Null,
            recipients: Vec::new(),
            body: Default::default(),
            smtputf8: false,
            reports: None,
        },
        stream: StreamName::new(StreamName::TRANSACTIONAL),
        kind: StreamKind::Transactional,
        body: Body::whole(content.to_owned()),
        accepted_at: now,
        expires_at: now,
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

/// A header, and what follows it: more fields, or the empty line.
pub(super) fn content(head: &str, rest: &str) -> String {
    format!("{head}{rest}")
}
