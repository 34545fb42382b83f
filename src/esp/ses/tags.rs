//! `EmailTags`: names and values that come back with SES's events. They have letters, digits, `_` and `-` alone.
//!
//! The attempt's id goes as [`ATTEMPT`], so that events find their attempt; the app's labels as `postroad-tag`,
//! `postroad-tag-2` and so on, its pairs under their own keys, and what it wrote into `X-SES-MESSAGE-TAGS` as it stands
//! there. A message with a label or a pair that SES cannot say is not for SES.

use crate::esp::{Parcel, Unfit};
use crate::mail::Message;
use crate::mail::headers::fields;

/// The name of the attempt's id.
pub(super) const ATTEMPT: &str = "postroad-attempt";
/// Names that begin so are the relay's own.
const OWN: &str = "postroad-";
const LABEL: &str = "postroad-tag";
/// Of one message. Those of an app's own field are left out beyond it.
const TAGS_MAX: usize = 50;
/// A name or a value.
const OCTETS_MAX: usize = 256;
/// A line of a field, with room for its name.
const LINE_OCTETS: usize = 900;

/// Whether SES can say all of a message's labels and pairs.
pub(super) fn all_fit(message: &Message) -> Result<(), Unfit> {
    let no = |what: String| {
        Err(Unfit(format!("SES takes tags of 1 to {OCTETS_MAX} letters, digits, _ and -, and {what}")))
    };
    if let Some(label) = message.tags.iter().find(|label| !fits(label)) {
        return no(format!("its tag \"{}\" is none", label.escape_default()));
    }
    for (key, value) in &message.metadata {
        if key.to_ascii_lowercase().starts_with(OWN) {
            return Err(Unfit(format!("its metadata {key} has a name that is the relay's own at SES")));
        }
        if !fits(key) || !fits(value) {
            return no(format!("its metadata {key} is none"));
        }
    }
    match 1 + message.tags.len() + message.metadata.len() <= TAGS_MAX {
        true => Ok(()),
        false => Err(Unfit(format!("SES takes {TAGS_MAX} tags, and its tags and metadata are more"))),
    }
}

/// The tags of one call.
pub(super) fn of(parcel: Parcel<'_>) -> Vec<(String, String)> {
    let message = parcel.message;
    let mut tags = vec![(ATTEMPT.to_owned(), parcel.planted().to_string())];
    let labels = message.tags.iter().enumerate();
    let label = |(n, value): (usize, &String)| match n {
        0 => (LABEL.to_owned(), value.clone()),
        n => (format!("{LABEL}-{}", n + 1), value.clone()),
    };
    tags.extend(labels.map(label));
    for (name, value) in message.metadata.iter().cloned().chain(in_header(message)) {
        if tags.len() >= TAGS_MAX {
            break;
        }
        let taken =
            name.to_ascii_lowercase().starts_with(OWN) || tags.iter().any(|(known, _)| *known == name);
        if !taken && fits(&name) && fits(&value) {
            tags.push((name, value));
        }
    }
    tags
}

/// What the app wrote for SES itself: `campaign=summer, kind=receipt`. The API would pass it over for ours.
fn in_header(message: &Message) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for field in fields(&message.body.head).filter(|field| field.is(super::control::TAGS_FIELD)) {
        let value = String::from_utf8_lossy(field.value()).into_owned();
        let pairs = value.split([',', ';']).filter_map(|pair| pair.split_once('='));
        found.extend(pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())));
    }
    found
}

fn fits(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    (1..=OCTETS_MAX).contains(&text.len()) && text.bytes().all(known)
}

/// The same as a header field, folded where it is long.
pub(super) fn field(name: &str, tags: &[(String, String)]) -> String {
    let mut field = format!("{name}: ");
    let mut line_octets = field.len();
    for (n, (key, value)) in tags.iter().enumerate() {
        let pair = format!("{key}={value}");
        if n > 0 {
            field.push(',');
            match line_octets + pair.len() > LINE_OCTETS {
                true => {
                    field.push_str("\r\n ");
                    line_octets = 0;
                }
                false => field.push(' '),
            }
        }
        line_octets += pair.len() + 2;
        field.push_str(&pair);
    }
    field.push_str("\r\n");
    field
}
