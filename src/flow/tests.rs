//! What the tests of several parts of the flow have in common, and those of the whole.

mod crowds;
mod hours;
mod ledger;
pub(super) mod reload;
mod stale;

use std::sync::Arc;
use std::time::Duration;

use crate::address::{Address, Grammar};
use crate::clock::Timestamp;
use crate::mail::{
    Body, BodyKind, Envelope, Message, MessageId, Protocol, ReversePath, Source, StreamKind, StreamName,
};

/// A small message of that kind.
pub(super) fn message(kind: StreamKind, id: i64) -> Arc<Message> {
    let at = Timestamp::from_millis(0);
    let name = match kind {
        StreamKind::Transactional => StreamName::TRANSACTIONAL,
        StreamKind::Broadcast => StreamName::BROADCAST,
    };
    Arc::new(Message {
        id: MessageId::from_number(id),
        envelope: Envelope {
            sender: ReversePath::Null,
            recipients: vec![Address::parse("b@example.com", Grammar::Strict).unwrap()],
            body: BodyKind::SevenBit,
            smtputf8: false,
            reports: None,
        },
        stream: StreamName::new(name),
        kind,
        body: Body::whole("\r\n"),
        accepted_at: at,
        expires_at: at.plus(Duration::from_secs(3_600)),
        tags: Vec::new(),
        metadata: Vec::new(),
        pin: None,
        source: Source {
            listener: "l".into(),
            peer: std::net::Ipv4Addr::LOCALHOST.into(),
            helo: "h".into(),
            credential: None,
            protocol: Protocol::Smtp,
        },
    })
}
