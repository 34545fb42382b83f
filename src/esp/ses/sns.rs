//! The envelope in which Amazon SNS brings SES's events: what is signed, by whom, and for which topic.
//!
//! A good signature shows only that some account at Amazon sent it; which topics are ours is configured. The certificate
//! is fetched by the URL in the envelope, which anybody can write: only one at SNS's own hosts is taken. Reading it,
//! and whether it is good today, is the caller's part.
//!
//! Facts: <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>, seen in 2026-11.

use std::time::Duration;

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clock::Timestamp;
use crate::esp::hook::{self, Fields, Refused, Unproven};

/// SNS repeats a call for an hour at most; a day more for who keeps them in between.
const AGE_MAX: Duration = Duration::from_secs(25 * 3600);
/// How far its clock may be before ours.
const AHEAD_MAX: Duration = Duration::from_secs(600);

/// What kind of call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `Message` has an event.
    Notification,
    /// The topic wants to send here.
    SubscriptionConfirmation,
    /// It has ceased to.
    UnsubscribeConfirmation,
}

/// One call.
#[derive(Debug)]
pub(super) struct Envelope {
    pub kind: Kind,
    fields: Fields,
}

impl Envelope {
    /// Reads it.
    pub fn read(body: &[u8]) -> Result<Self, Refused> {
        let malformed = |what: &str| Refused::Malformed(what.to_owned());
        let value = hook::json(body, "an SNS message")?;
        let fields = Fields::of(value).ok_or_else(|| malformed("the body is no JSON object"))?;
        let kind = match fields.text("Type") {
            Some("Notification") => Kind::Notification,
            Some("SubscriptionConfirmation") => Kind::SubscriptionConfirmation,
            Some("UnsubscribeConfirmation") => Kind::UnsubscribeConfirmation,
            _ => {
                return Err(malformed(
                    "its Type is none of SNS's; is raw message delivery on? It has no signature, so leave it off",
                ));
            }
        };
        Ok(Envelope { kind, fields })
    }

    /// A field, or nothing.
    pub fn text(&self, name: &str) -> &str {
        self.fields.text(name).unwrap_or_default()
    }

    /// Where its certificate is; only SNS's own hosts have any.
    pub fn certificate_url(&self) -> Result<&str, Unproven> {
        let url = self.text("SigningCertURL");
        match url {
            "" => Err(Unproven::Missing),
            url if is_certificate_url(url) => Ok(url),
            _ => Err(Unproven::Certificate),
        }
    }

    /// Whether the holder of that key (an SPKI in DER) signed it, lately, for a topic of ours.
    pub fn prove(
        &self,
        spki: &[u8],
        topics: &[String],
        require_v2: bool,
        now: Timestamp,
    ) -> Result<(), Unproven> {
        let algorithm = match self.fields.word("SignatureVersion").as_deref() {
            Some("1") if !require_v2 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Some("2") => &RSA_PKCS1_2048_8192_SHA256,
            Some(_) => return Err(Unproven::Wrong),
            None => return Err(Unproven::Missing),
        };
        let signature = self.fields.text("Signature").ok_or(Unproven::Missing)?;
        let signature = STANDARD.decode(signature).map_err(|_| Unproven::Wrong)?;
        let signed = self.signed();
        UnparsedPublicKey::new(algorithm, spki).verify(&signed, &signature).map_err(|_| Unproven::Wrong)?;
        let at = self.fields.moment("Timestamp").ok_or(Unproven::Stale)?;
        if at < now.earlier(AGE_MAX) || at > now.plus(AHEAD_MAX) {
            return Err(Unproven::Stale);
        }
        if self.is_of(topics) { Ok(()) } else { Err(Unproven::Topic) }
    }

    /// Whether its topic is one of these.
    pub fn is_of(&self, topics: &[String]) -> bool {
        topics.iter().any(|topic| topic == self.text("TopicArn"))
    }

    /// What is signed: name and value of these fields, each with a line's end. `Subject` where there is one.
    fn signed(&self) -> Vec<u8> {
        let names: &[&str] = match self.kind {
            Kind::Notification => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
            Kind::SubscriptionConfirmation | Kind::UnsubscribeConfirmation => {
                &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
            }
        };
        let mut signed = Vec::new();
        for name in names {
            if let Some(value) = self.fields.string(name) {
                for part in [name, "\n", value, "\n"] {
                    signed.extend_from_slice(part.as_bytes());
                }
            }
        }
        signed
    }
}

/// `https://sns.REGION.amazonaws.com/SimpleNotificationService-ID.pem`, to the letter: a suffix would match anybody's
/// bucket at Amazon.
pub(in crate::esp) fn is_certificate_url(url: &str) -> bool {
    let Some((rest, path)) = host_and_path(url) else { return false };
    let id = path.strip_prefix("SimpleNotificationService-").and_then(|p| p.strip_suffix(".pem"));
    is_host(rest) && id.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// `https://sns.REGION.amazonaws.com/?Action=ConfirmSubscription&…`
pub(super) fn is_subscribe_url(url: &str) -> bool {
    let Some((host, query)) = host_and_path(url) else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"?&=-._~:%".contains(&b);
    is_host(host)
        && query
            .strip_prefix('?')
            .is_some_and(|q| q.split('&').any(|pair| pair == "Action=ConfirmSubscription"))
        && query.bytes().all(plain)
}

fn host_and_path(url: &str) -> Option<(&str, &str)> {
    url.strip_prefix("https://")?.split_once('/')
}

fn is_host(host: &str) -> bool {
    host.strip_prefix("sns.").and_then(of_amazon).is_some_and(is_region)
}

/// What stands before Amazon's own domain, in China or elsewhere.
fn of_amazon(name: &str) -> Option<&str> {
    name.strip_suffix(".amazonaws.com").or_else(|| name.strip_suffix(".amazonaws.com.cn"))
}

/// `s3-us-west-2` is none: `sns.s3-us-west-2.amazonaws.com` is somebody's bucket.
fn is_region(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    text.len() >= 3 && text.bytes().all(plain) && !text.to_ascii_lowercase().starts_with("s3-")
}

/// Whether SNS's own certificates bear that name. Each of them is known of some region: `sns.amazonaws.com` of most,
/// `sns-REGION` in China and GovCloud, `sns-signing.REGION` and `sns.REGION` where a region has to be switched on first
/// (as the AWS SDK for Java has it, and a certificate of `af-south-1`, 2026-07).
pub(in crate::esp) fn is_certificate_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let Some(before) = of_amazon(&name) else { return false };
    let region = ["sns-signing.", "sns.", "sns-"].iter().find_map(|prefix| before.strip_prefix(prefix));
    before == "sns" || region.is_some_and(is_region)
}
