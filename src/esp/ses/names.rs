//! Names beyond ASCII in the fields with addresses, as old programs write them: SES takes these fields in ASCII alone, so
//! the names become encoded words (RFC 2047), which read the same. Where that cannot be done the message is not for SES:
//! an address is not ASCII itself, the field cannot be read without guessing, or a DKIM signature would break.

use std::borrow::Cow;

use bytes::Bytes;

use crate::esp::Parcel;
use crate::mail::headers::{Field, fields};
use crate::mail::named::mailbox;
use crate::mail::parts::people_in;
use crate::mail::splice::{Replacement, Splice, apply};
use crate::mail::{Body, BodyFacts, Message};

/// Fields with addresses. What is not an address, a name or a subject, is the reader's matter.
const OF_ADDRESSES: [&str; 6] = ["From", "Sender", "Reply-To", "To", "Cc", "Return-Path"];

/// What is to be changed in a header block, or the field that cannot be.
pub(super) fn changes(head: &[u8]) -> Result<Vec<Splice>, &'static str> {
    let mut changes = Vec::new();
    for field in fields(head).filter(|field| !field.raw.is_ascii()) {
        let Some(name) = OF_ADDRESSES.into_iter().find(|name| field.is(name)) else { continue };
        if fields(head).any(|field| field.is("DKIM-Signature")) {
            return Err(name);
        }
        changes.push(in_ascii(&field).ok_or(name)?);
    }
    Ok(changes)
}

fn in_ascii(field: &Field<'_>) -> Option<Splice> {
    let people = people_in(field.value())?;
    let written: Vec<String> =
        people.iter().map(|one| mailbox(one.address.wire(), one.name.as_deref())).collect();
    let end = field.span().end;
    let with = Replacement::from(format!(" {}\r\n", written.join(",\r\n ")));
    Some(Splice { span: end - field.value().len()..end, with })
}

/// The parcel's message and its whole content, with what [`changes`] found.
pub(super) fn changed<'p>(parcel: Parcel<'p>) -> (Cow<'p, Message>, Option<Cow<'p, Bytes>>) {
    let own = &parcel.message.body;
    let changes = changes(&own.head).unwrap_or_default();
    if changes.is_empty() {
        return (Cow::Borrowed(parcel.message), parcel.whole.map(Cow::Borrowed));
    }
    let head = apply(&own.head, &changes);
    let size_octets = own.facts.size_octets - own.head.len() as u64 + head.len() as u64;
    let facts = BodyFacts { size_octets, ..own.facts };
    // What is there of the content begins with the header block.
    let whole = parcel.whole.map(|whole| Cow::Owned(apply(whole, &changes).into()));
    let body = Body { head: head.into(), facts, ..own.clone() };
    (Cow::Owned(Message { body, ..parcel.message.clone() }), whole)
}
