//! The same mail again, told by what an app that times out and tries again does not change: envelope, Message-ID and
//! body. Other fields may differ: many apps write a new Date.

use aws_lc_rs::digest::{Context, SHA256};

use crate::address::Address;
use crate::mail::headers::{fields, message_id};
use crate::mail::{Body, Envelope};
use crate::store::{Store, StoreError};

/// A name for this mail, the same for the same again: from the sender as the app `named` him, whoever stands in his place
/// today. `None` for one without a Message-ID: of two such nobody can say
/// whether they are one.
///
/// Errors: those of [`Store::chunk`], from which the part that was spilled is read back, piece by piece.
pub(super) async fn name(
    store: &Store,
    named: Option<&Address>,
    envelope: &Envelope,
    body: &Body,
) -> Result<Option<String>, StoreError> {
    let Some((message_id, body_at)) = read(&body.head) else { return Ok(None) };
    let mut recipients: Vec<String> = envelope.recipients.iter().map(|to| to.mailbox()).collect();
    recipients.sort_unstable();
    let mut digest = Context::new(&SHA256);
    let mut part = |octets: &[u8]| {
        digest.update(&(octets.len() as u64).to_be_bytes());
        digest.update(octets);
    };
    part(named.map_or(envelope.sender.wire(), Address::wire).as_bytes());
    recipients.iter().for_each(|to| part(to.as_bytes()));
    // No recipient is empty: what follows is none.
    part(b"");
    part(message_id.as_bytes());
    digest.update(&body.head[body_at..]);
    if let Some(rest) = body.rest {
        for n in 0..rest.chunks {
            digest.update(&store.chunk(rest.message, n).await?);
        }
    }
    let hash = digest.finish();
    Ok(Some(hash.as_ref().iter().map(|octet| format!("{octet:02x}")).collect()))
}

/// The Message-ID, and where the body begins.
fn read(head: &[u8]) -> Option<(String, usize)> {
    let mut fields = fields(head);
    let id = message_id(fields.by_ref())?;
    Some((id, fields.end().body_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_id_is_read_whatever_its_folds_and_only_from_the_header() {
        let block = b"Subject: x\r\nmessage-id:\r\n <1@x.example>\r\n\r\nhello\r\n";
        let (id, body_at) = read(block).unwrap();
        assert_eq!((id.as_str(), &block[body_at..]), ("1@x.example", &b"hello\r\n"[..]));
        assert_eq!(read(b"Message-ID: \r\n\r\nx"), None);
        assert_eq!(read(b"Subject: x\r\n\r\nMessage-ID: <1@x.example>\r\n"), None);
    }
}
