//! Fields of the app's own that an ESP reads: those that ours say again go, so that each is there once.

use std::borrow::Cow;

use crate::mail::headers::{Field, fields};
use crate::mail::{Body, BodyFacts, Message};

/// The message without these fields.
pub(super) fn without<'m>(message: &'m Message, goes: impl Fn(&Field<'_>) -> bool) -> Cow<'m, Message> {
    let own = &message.body;
    let spans: Vec<_> = fields(&own.head).filter(|field| goes(field)).map(|field| field.span()).collect();
    if spans.is_empty() {
        return Cow::Borrowed(message);
    }
    let mut head = Vec::with_capacity(own.head.len());
    let mut at = 0;
    for span in &spans {
        head.extend_from_slice(&own.head[at..span.start]);
        at = span.end;
    }
    head.extend_from_slice(&own.head[at..]);
    let size_octets = own.facts.size_octets - (own.head.len() - head.len()) as u64;
    let facts = BodyFacts { size_octets, ..own.facts };
    Cow::Owned(Message { body: Body { head: head.into(), facts, ..own.clone() }, ..message.clone() })
}

/// Whether `lines`, whole fields of ours, say that field too.
pub(super) fn said_in(lines: &str, field: &Field<'_>) -> bool {
    lines.lines().filter_map(|line| line.split_once(':')).any(|(name, _)| field.is(name))
}
