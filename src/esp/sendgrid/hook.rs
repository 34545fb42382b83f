//! SendGrid's event webhook: its signature, and what each event means.
//!
//! A POST is a list of events, signed as a whole: ECDSA over P-256 with SHA-256, of the timestamp's field and the body's
//! octets, its last CR LF included. The same account's other mail sends its events here too: they bear no id of ours.
//!
//! Facts: <https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event> and
//! <https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features>,
//! seen in 2026-11. `sg_machine_open`: UNVERIFIED.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use super::labels::ATTEMPT;
use crate::clock::Timestamp;
use crate::esp::class::class_of;
use crate::esp::hook::{self, Fields, Heard, Post, Refused, Unproven};
use crate::mail::{Bounce, Event, Listed, Planted, What};

const SIGNATURE: &str = "x-twilio-email-event-webhook-signature";
const SIGNED_AT: &str = "x-twilio-email-event-webhook-timestamp";
/// SendGrid repeats a call for 24 hours; whether each is signed anew is not told.
const AGE_MAX: Duration = Duration::from_secs(25 * 3600);
/// How far its clock may be before ours.
const AHEAD_MAX: Duration = Duration::from_secs(600);
/// Whom its canned events are about, which its test call sends: a bounce and a complaint among them. Somebody may have that
/// address; what is said of it without an id of ours is taken for a test.
const CANNED: &str = "example@test.com";
/// What a P-256 key in SPKI (RFC 5480) begins with; the point follows.
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point on P-256.
const POINT_OCTETS: usize = 65;

/// `webhook_public_key`: what SendGrid shows beside the webhook, base64 of an SPKI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey([u8; POINT_OCTETS]);

impl PublicKey {
    /// Reads it, with or without the lines of PEM around it.
    ///
    /// Errors: what is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let inner: String = inner.chars().filter(|c| !c.is_whitespace()).collect();
        let der = STANDARD.decode(inner).map_err(|_| "is not base64".to_owned())?;
        let point = der.strip_prefix(&SPKI_P256).and_then(|point| point.try_into().ok());
        let point: [u8; POINT_OCTETS] =
            point.ok_or("is no public key of P-256 (124 characters that begin with MFkw)")?;
        Ok(PublicKey(point))
    }

    fn verifies(&self, timestamp: &[u8], body: &[u8], signature: &[u8]) -> bool {
        let signed = [timestamp, body].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.0).verify(&signed, signature).is_ok()
    }
}

/// Whether SendGrid sent it, and lately.
pub(in crate::esp) fn prove(post: Post<'_>, key: Option<&PublicKey>) -> Result<(), Unproven> {
    let key = key.ok_or(Unproven::NoKey)?;
    let signature = post.field(SIGNATURE).ok_or(Unproven::Missing)?;
    let stamp = post.field(SIGNED_AT).ok_or(Unproven::Missing)?;
    let signature = STANDARD.decode(signature).map_err(|_| Unproven::Wrong)?;
    if !key.verifies(stamp, post.body, &signature) {
        return Err(Unproven::Wrong);
    }
    let seconds: i64 = std::str::from_utf8(stamp).ok().and_then(|s| s.parse().ok()).ok_or(Unproven::Wrong)?;
    let signed_at = Timestamp::from_millis(seconds.saturating_mul(1000));
    let fresh = post.at.earlier(AGE_MAX) <= signed_at && signed_at <= post.at.plus(AHEAD_MAX);
    if fresh { Ok(()) } else { Err(Unproven::Stale) }
}

/// The events of a body. What is no object, or says no event, is kept as it came.
pub(in crate::esp) fn read(post: Post<'_>) -> Result<Heard, Refused> {
    let items: Vec<&RawValue> = hook::json(post.body, "a list of events")?;
    Ok(Heard::Events(items.into_iter().map(|item| event(item, post.at)).collect()))
}

fn event(item: &RawValue, now: Timestamp) -> Event {
    let raw = hook::raw(item);
    let fields = Fields::read(item.get());
    let text = |name| fields.as_ref().and_then(|f| f.text(name)).unwrap_or_default();
    let number = |name| fields.as_ref().and_then(|f| f.number(name));
    let key = match text("sg_event_id") {
        "" if fields.is_some() => {
            let at = number("timestamp").unwrap_or_default().to_string();
            hook::key_of(&[text("event"), text("sg_message_id"), text("email"), &at, text("url")])
        }
        "" => hook::key_of(&[item.get()]),
        id => id.to_owned(),
    };
    let planted = text(ATTEMPT).parse::<Planted>().ok();
    let canned = planted.is_none() && text("email").eq_ignore_ascii_case(CANNED);
    let told = words(text("status"), text("response"), text("reason"));
    Event {
        key,
        what: fields.as_ref().filter(|_| !canned).map_or(What::Other, what),
        told_as: hook::told_as(text("event")),
        at: number("timestamp").map_or(now, |seconds| Timestamp::from_millis(seconds.saturating_mul(1000))),
        recipient: hook::recipient(text("email")),
        planted,
        // Up to the first dot it is what the API and the SMTP endpoint answered.
        remote_id: text("sg_message_id").split('.').next().filter(|id| !id.is_empty()).map(str::to_owned),
        scope: None,
        unlabelled: None,
        said: match canned {
            true => hook::said(&format!("{}{} {told}", hook::TEST_EVENT, text("event"))),
            false => hook::said(&told),
        },
        raw,
    }
}

/// What the host or SendGrid said; the code is put before it where it is not there.
fn words(status: &str, response: &str, reason: &str) -> String {
    let said = if response.is_empty() { reason } else { response };
    if status.is_empty() || said.contains(status) { said.to_owned() } else { format!("{status} {said}") }
}

fn what(event: &Fields) -> What {
    let machine = event.is("sg_machine_open") || event.text("useragent") == Some("Mozilla/5.0");
    match event.text("event").unwrap_or_default() {
        "processed" => What::Sent,
        "deferred" => What::Deferred,
        "delivered" => What::Delivered,
        "bounce" => What::Bounced(bounce(event)),
        "dropped" => What::Bounced(dropped(event.text("reason").unwrap_or_default())),
        "open" => What::Opened { machine },
        "click" => What::Clicked { machine: false },
        "spamreport" => What::Complained,
        "unsubscribe" | "group_unsubscribe" => What::Unsubscribed,
        // A `group_resubscribe` is for its group alone: it takes no other's, and no global wish, away.
        _ => What::Other,
    }
}

/// `type = "blocked"` is for a time and about the sender; the classes say more than the type.
fn bounce(event: &Fields) -> Bounce {
    let status = event.text("status").unwrap_or_default();
    match event.text("bounce_classification").unwrap_or_default() {
        "Content" | "Reputation" | "Frequency or Volume Too High" => return Bounce::Policy,
        "Invalid Address" => return Bounce::Hard,
        _ => {}
    }
    match class_of(status, event.text("reason").unwrap_or_default()) {
        Some(Bounce::Hard) | None if event.text("type") == Some("blocked") => Bounce::Policy,
        class => class.unwrap_or(Bounce::Hard),
    }
}

/// Why SendGrid did not try.
fn dropped(reason: &str) -> Bounce {
    match reason {
        "Bounced Address" | "Invalid" => Bounce::Listed(Listed::Bounced),
        "Spam Reporting Address" => Bounce::Listed(Listed::Complained),
        "Unsubscribed Address" => Bounce::Listed(Listed::Unsubscribed),
        // Out of a call that it answered with 202: the others of it go on.
        _ => Bounce::LetBe,
    }
}
