//! What an app says to SES itself, in fields that reach here under `allow_vendor_headers`: SES reads them out of the
//! message and takes them away. What the API has parameters for goes by these, and is not in the message any more.

use bytes::Bytes;

use super::Unfit;
use crate::mail::Message;
use crate::mail::headers::{Field, fields};

/// Which configuration set the message is sent with.
pub(super) const SET_FIELD: &str = "X-SES-CONFIGURATION-SET";
/// See [`super::tags`].
pub(super) const TAGS_FIELD: &str = "X-SES-MESSAGE-TAGS";
/// "The name can contain up to 64 alphanumeric characters, including letters, numbers, hyphens (-) and underscores (_)".
const SET_OCTETS_MAX: usize = 64;

/// The set that the app names, where it names one.
pub(super) fn set(message: &Message) -> Result<Option<String>, Unfit> {
    let Some(field) = fields(&message.body.head).find(|field| field.is(SET_FIELD)) else { return Ok(None) };
    let name = String::from_utf8_lossy(field.value()).trim().to_owned();
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match (1..=SET_OCTETS_MAX).contains(&name.len()) && name.bytes().all(known) {
        true => Ok(Some(name)),
        false => Err(Unfit(format!("the app's {SET_FIELD} names no configuration set that SES could have"))),
    }
}

/// The content without the fields that the API has parameters for.
pub(super) fn without(message: &Message, whole: &Bytes) -> Bytes {
    let goes = |field: &Field<'_>| field.is(SET_FIELD) || field.is(TAGS_FIELD);
    let spans: Vec<_> =
        fields(&message.body.head).filter(|field| goes(field)).map(|field| field.span()).collect();
    if spans.is_empty() {
        return whole.clone();
    }
    let (mut left, mut at) = (Vec::with_capacity(whole.len()), 0);
    for span in spans {
        left.extend_from_slice(&whole[at..span.start]);
        at = span.end;
    }
    left.extend_from_slice(&whole[at..]);
    left.into()
}
