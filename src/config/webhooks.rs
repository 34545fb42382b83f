//! What proves an ESP's webhook: the keys of `[[esp]]` that begin with `webhook_`, and those of Amazon SNS.

use super::kinds;
use super::reader::{Item, Kind as _, TableReader};
use super::vendors::endpoint;
use crate::esp::settings::EspKind;
use crate::esp::webhook::{PostmarkProof, PostmarkStreams, ProvenBy, SendgridKey, WebhookSettings};
use crate::secret::Secret;

/// Each type's own, for errors at the others.
pub(super) const ALL_KEYS: [&str; 1] = ["webhook_auth"];
pub(super) const SES_KEYS: [&str; 3] = ["webhook_topics", "require_sns_v2", "sns_endpoint"];
pub(super) const SENDGRID_KEYS: [&str; 1] = ["webhook_public_key"];
pub(super) const POSTMARK_KEYS: [&str; 3] = ["webhook_user", "webhook_password", "webhook_headers"];

const AUTH: &[(&str, bool)] = &[("required", true), ("none", false)];
/// Fields of HTTP that mean something else.
const NO_PROOF: [&str; 4] = ["host", "content-type", "content-length", "authorization"];

/// The webhook of an ESP that has one.
pub(super) fn read(t: &mut TableReader<'_, '_>, kind: &EspKind) -> Option<WebhookSettings> {
    let by = match kind {
        EspKind::Ses(_) => sns(t),
        EspKind::Sendgrid(_) => {
            ProvenBy::Sendgrid(t.optional("webhook_public_key", kinds::parsed(SendgridKey::parse)))
        }
        EspKind::Postmark(kind) => {
            let streams = PostmarkStreams {
                transactional: kind.transactional.clone(),
                broadcast: kind.broadcast.clone(),
            };
            ProvenBy::Postmark { proof: postmark(t), streams }
        }
        EspKind::Smtp(_) | EspKind::Sandbox { .. } => return None,
    };
    let proven = t.read("webhook_auth", kinds::one_of(AUTH), true);
    let settings = WebhookSettings { proven, by };
    let needs = match &settings.by {
        ProvenBy::Sns { .. } => "webhook_topics = [\"arn:aws:sns:…\"]",
        ProvenBy::Sendgrid(_) => "webhook_public_key (Settings, Mail Settings, Event Webhook, Security)",
        ProvenBy::Postmark { .. } => "webhook_user and webhook_password, or webhook_headers",
    };
    if !proven {
        t.warning("webhook_auth", "is \"none\": whoever reaches the port can have any address suppressed");
    } else if settings.is_keyless() {
        t.warning(
            "webhook_auth",
            format!("has nothing to prove a webhook by, so each is answered 401 and nothing is learnt of bounces and complaints; set {needs}"),
        );
    }
    Some(settings)
}

fn sns(t: &mut TableReader<'_, '_>) -> ProvenBy {
    let topics = t.read("webhook_topics", kinds::list_of(kinds::parsed(topic)), Vec::new());
    let require_v2 = t.read("require_sns_v2", kinds::boolean, false);
    let endpoint = t.optional("sns_endpoint", kinds::parsed(endpoint));
    ProvenBy::Sns { topics, require_v2, endpoint }
}

/// `arn:aws:sns:REGION:ACCOUNT:NAME`
fn topic(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        ["arn", _, "sns", region, account, name]
            if ![region, account, name].iter().any(|part| part.is_empty()) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("is not a topic's ARN such as arn:aws:sns:eu-central-1:123456789012:ses-events".into()),
    }
}

fn postmark(t: &mut TableReader<'_, '_>) -> PostmarkProof {
    let user = t.optional("webhook_user", kinds::parsed(user));
    let password = t.optional("webhook_password", kinds::secret);
    match (t.is_set("webhook_user"), t.is_set("webhook_password")) {
        (true, false) => t.problem("webhook_user", "has no webhook_password beside it"),
        (false, true) => t.problem("webhook_password", "has no webhook_user beside it"),
        _ => {}
    }
    let fields = t.entries("webhook_headers", "{ X-Postroad-Proof = \"env:POSTMARK_PROOF\" }", field);
    PostmarkProof { login: user.zip(password), fields }
}

/// The user of basic authentication (RFC 7617 section 2): the first colon ends it.
fn user(text: &str) -> Result<String, String> {
    match text.contains(':') {
        true => Err("has a colon, which would end it".into()),
        false => Ok(text.to_owned()),
    }
}

fn field(name: &str, item: &Item<'_>) -> Result<(String, Secret), String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let lower = name.to_ascii_lowercase();
    if lower.is_empty() || !lower.bytes().all(token) {
        return Err("is no name of a header field".into());
    }
    if NO_PROOF.contains(&lower.as_str()) {
        return Err("means something else in HTTP; choose another name, such as X-Postroad-Proof".into());
    }
    Ok((lower, kinds::header_secret.read(item)?))
}
