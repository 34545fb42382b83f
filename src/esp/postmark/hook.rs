//! Postmark's webhooks: one event a POST, and what each means.
//!
//! Postmark signs nothing. What proves a POST is what it was told to send with each: a user and password (basic
//! authentication), fields of our own, or both; all that are configured must be there.
//!
//! Facts: <https://postmarkapp.com/developer/webhooks/webhooks-overview> and
//! <https://postmarkapp.com/developer/api/bounce-api#bounce-types>, seen in 2026-11.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use subtle::{Choice, ConstantTimeEq as _};

use super::compose::ATTEMPT;
use crate::clock::Timestamp;
use crate::esp::class::class_of;
use crate::esp::hook::{self, Fields, Heard, Post, Refused, Unproven};
use crate::mail::{Bounce, Event, Listed, Planted, StreamKind, What};
use crate::secret::Secret;

/// What Postmark was told to send with each POST.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Proof {
    /// `webhook_user` and `webhook_password`.
    pub login: Option<(String, Secret)>,
    /// `webhook_headers`: names in lower case, and what they hold.
    pub fields: Vec<(String, Secret)>,
}

/// What its message streams are to us: whose mail goes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streams {
    /// Of `message_stream`.
    pub transactional: String,
    /// Of `message_stream`.
    pub broadcast: String,
}

impl Default for Streams {
    fn default() -> Self {
        Streams { transactional: "outbound".into(), broadcast: "broadcast".into() }
    }
}

impl Streams {
    /// Whose mail goes by that stream; `None`: none of ours.
    fn kind(&self, stream: &str) -> Option<StreamKind> {
        // Where one stream carries both, who wants no more of it wants no more of either; broadcast is what is left off.
        if stream == self.broadcast {
            Some(StreamKind::Broadcast)
        } else if stream == self.transactional {
            Some(StreamKind::Transactional)
        } else {
            None
        }
    }
}

impl Proof {
    /// The fields that come with each call.
    pub(super) fn sent(&self) -> Vec<(String, Secret)> {
        let login = self.login.iter().map(|(user, password)| {
            let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
            ("authorization".to_owned(), Secret::new(format!("Basic {pair}")))
        });
        login.chain(self.fields.iter().cloned()).collect()
    }
}

/// Whether Postmark sent it: everything is compared, in constant time.
pub(in crate::esp) fn prove(post: Post<'_>, proof: &Proof) -> Result<(), Unproven> {
    let wanted = proof.sent();
    if wanted.is_empty() {
        return Err(Unproven::NoKey);
    }
    if wanted.iter().any(|(name, _)| post.field(name).is_none()) {
        return Err(Unproven::Missing);
    }
    let right = wanted.iter().fold(Choice::from(1), |right, (name, value)| {
        right & given(post, name).ct_eq(value.expose().as_bytes())
    });
    if bool::from(right) { Ok(()) } else { Err(Unproven::Wrong) }
}

/// What the field holds; a login's scheme is written in any case (RFC 9110, 11.1).
fn given(post: Post<'_>, name: &str) -> Vec<u8> {
    const BASIC: &[u8] = b"Basic ";
    let mut value = post.field(name).unwrap_or_default().to_vec();
    let scheme = value.get_mut(..BASIC.len()).filter(|_| name == "authorization");
    if let Some(scheme) = scheme.filter(|scheme| scheme.eq_ignore_ascii_case(BASIC)) {
        scheme.copy_from_slice(BASIC);
    }
    value
}

/// The event of a body.
pub(in crate::esp) fn read(post: Post<'_>, streams: &Streams) -> Result<Heard, Refused> {
    let item: &RawValue = hook::json(post.body, "an event")?;
    let fields =
        Fields::read(item.get()).ok_or_else(|| Refused::Malformed("the body is no JSON object".into()))?;
    Ok(Heard::Events(vec![event(fields, item, streams, post.at)]))
}

fn event(mut fields: Fields, item: &RawValue, streams: &Streams, now: Timestamp) -> Event {
    let metadata = fields.object("Metadata");
    let planted = metadata.as_ref().and_then(|m| m.text(ATTEMPT)).and_then(|id| id.parse::<Planted>().ok());
    let text = |name| fields.text(name).unwrap_or_default();
    let kind = text("RecordType");
    let when = match kind {
        "Delivery" => "DeliveredAt",
        "Bounce" | "SpamComplaint" => "BouncedAt",
        "SubscriptionChange" => "ChangedAt",
        _ => "ReceivedAt",
    };
    let whom = if text("Recipient").is_empty() { text("Email") } else { text("Recipient") };
    let key = match fields.word("ID") {
        Some(id) if matches!(kind, "Bounce" | "SpamComplaint") => format!("{kind}:{id}"),
        _ => hook::key_of(&[kind, text("MessageID"), whom, text(when), text("OriginalLink")]),
    };
    let details = [text("Details"), text("Description"), text("SuppressionReason")];
    let stream = streams.kind(text("MessageStream"));
    Event {
        key,
        what: what(&fields, stream),
        told_as: hook::told_as([kind, text("Type")].join(" ").trim()),
        at: fields.moment(when).unwrap_or(now),
        recipient: hook::recipient(whom),
        planted,
        remote_id: fields.text("MessageID").map(str::to_owned),
        scope: stream,
        unlabelled: None,
        said: hook::said(details.into_iter().find(|words| !words.is_empty()).unwrap_or_default()),
        raw: hook::raw(item),
    }
}

fn what(event: &Fields, stream: Option<StreamKind>) -> What {
    let machine = event.text("UserAgent") == Some("Mozilla/5.0");
    match event.text("RecordType").unwrap_or_default() {
        "Delivery" => What::Delivered,
        "Bounce" => bounce(event),
        "SpamComplaint" => What::Complained,
        "Open" => What::Opened { machine },
        "Click" => What::Clicked { machine: false },
        "SubscriptionChange" if event.is("SuppressSending") => match event.text("SuppressionReason") {
            Some("HardBounce") => What::Bounced(Bounce::Listed(Listed::Bounced)),
            Some("SpamComplaint") => What::Complained,
            _ => What::Unsubscribed,
        },
        // A stream that none of ours goes by takes nothing away here.
        "SubscriptionChange" if stream.is_some() && event.says("SuppressSending", false) => {
            What::Resubscribed
        }
        _ => What::Other,
    }
}

/// The bounce types of its API; `Inactive`: Postmark sends nothing to that address any more, whatever the type. What is no
/// bounce for good, or was refused for who sends, says nothing of the mailbox even then: an app hears that the address is
/// blocked, and not that it is none.
fn bounce(event: &Fields) -> What {
    let listed = What::Bounced(Bounce::Listed(Listed::Deactivated));
    let class = class_of("", event.text("Details").unwrap_or_default());
    match event.text("Type").unwrap_or_default() {
        "BadEmailAddress" => What::Bounced(Bounce::Hard),
        "HardBounce" if class != Some(Bounce::Policy) => What::Bounced(Bounce::Hard),
        "SpamComplaint" => What::Complained,
        "Unsubscribe" => What::Unsubscribed,
        "ManuallyDeactivated" => listed,
        _ if event.is("Inactive") => listed,
        // It tries again, and tells a bounce of another type where that does not help.
        "Transient" | "DnsError" => What::Deferred,
        "AutoResponder" | "ChallengeVerification" | "AddressChange" => What::AutoReplied,
        "Subscribe" => What::Other,
        "HardBounce" | "Blocked" | "SpamNotification" | "VirusNotification" | "DMARCPolicy"
        | "OpenRelayTest" => What::Bounced(Bounce::Policy),
        "SMTPApiError" | "InboundError" | "TemplateRenderingFailed" | "Unconfirmed" => {
            What::Bounced(Bounce::Refused)
        }
        "SoftBounce" if class == Some(Bounce::Policy) => What::Bounced(Bounce::Policy),
        // `Unknown`, and types that are new, too: no proof that the address is dead.
        _ => What::Bounced(Bounce::Soft),
    }
}
