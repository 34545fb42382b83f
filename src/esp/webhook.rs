//! The webhook of one `[[esp]]`: who may post to it, and what a POST says.

use std::time::Duration;

use super::hook::{Heard, Post, Refused, Unproven};
use super::{postmark, sendgrid, ses};
use crate::clock::Timestamp;

pub use super::postmark::hook::{Proof as PostmarkProof, Streams as PostmarkStreams};
pub use super::sendgrid::hook::PublicKey as SendgridKey;

/// No event is told so long after it happened.
const PAST_MAX: Duration = Duration::from_secs(3650 * 86_400);
/// How far an ESP's clock may be before ours. What counts is the latest word on an address: one from the time to come would
/// be the latest until then.
const AHEAD_MAX: Duration = Duration::from_secs(300);

/// When it happened; a time that cannot be is the one when it was told.
fn possible(at: Timestamp, told: Timestamp) -> Timestamp {
    if at < told.earlier(PAST_MAX) || at > told.plus(AHEAD_MAX) { told } else { at }
}

/// `webhook_auth` and what proves a POST.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookSettings {
    /// Whether a POST has to be proven at all: `webhook_auth = "none"` takes anybody's.
    pub proven: bool,
    /// By what.
    pub by: ProvenBy,
}

/// What proves a POST, by the type of the ESP.
#[derive(Debug, Clone, PartialEq)]
pub enum ProvenBy {
    /// A signature of Amazon SNS, for one of these topics.
    Sns {
        /// `webhook_topics`: ARNs.
        topics: Vec<String>,
        /// `require_sns_v2`: signatures by SHA-1 are not taken.
        require_v2: bool,
        /// `sns_endpoint`: where certificates and confirmations are fetched instead of at Amazon.
        endpoint: Option<String>,
    },
    /// A signature of SendGrid's; its key, where it is configured.
    Sendgrid(Option<SendgridKey>),
    /// What Postmark was told to send along.
    Postmark {
        /// That.
        proof: PostmarkProof,
        /// What its message streams are to us.
        streams: PostmarkStreams,
    },
}

/// Whether a certificate that signs the calls of an ESP may bear that name.
pub fn is_certificate_name(name: &str) -> bool {
    ses::sns::is_certificate_name(name)
}

impl WebhookSettings {
    /// Whether nothing is configured by which a POST could be proven.
    pub fn is_keyless(&self) -> bool {
        match &self.by {
            ProvenBy::Sns { topics, .. } => topics.is_empty(),
            ProvenBy::Sendgrid(key) => key.is_none(),
            ProvenBy::Postmark { proof, .. } => proof.login.is_none() && proof.fields.is_empty(),
        }
    }

    /// Where the certificate is by which this POST is to be proven; `None`: it needs none.
    ///
    /// Errors: it is not where the ESP keeps those, or the body cannot be read.
    pub fn certificate_url(&self, post: Post<'_>) -> Result<Option<String>, Refused> {
        match &self.by {
            ProvenBy::Sns { topics, .. } if self.proven => ses::hook::certificate_url(post, topics).map(Some),
            ProvenBy::Sns { .. } | ProvenBy::Sendgrid(_) | ProvenBy::Postmark { .. } => Ok(None),
        }
    }

    /// What the POST says, once it is proven. `key`: the public key of that certificate, an SPKI in DER.
    ///
    /// Errors: nobody has shown that the ESP sent it, or it cannot be read.
    pub fn hear(&self, post: Post<'_>, key: Option<&[u8]>) -> Result<Heard, Refused> {
        if self.proven {
            match &self.by {
                ProvenBy::Sns { topics, require_v2, .. } => {
                    let key = key.ok_or(Refused::Unproven(Unproven::Certificate))?;
                    ses::hook::prove(post, key, topics, *require_v2)?;
                }
                ProvenBy::Sendgrid(key) => {
                    sendgrid::hook::prove(post, key.as_ref()).map_err(Refused::Unproven)?;
                }
                ProvenBy::Postmark { proof, .. } => {
                    postmark::hook::prove(post, proof).map_err(Refused::Unproven)?;
                }
            }
        }
        let heard = match &self.by {
            ProvenBy::Sns { topics, .. } => ses::hook::read(post, topics),
            ProvenBy::Sendgrid(_) => sendgrid::hook::read(post),
            ProvenBy::Postmark { streams, .. } => postmark::hook::read(post, streams),
        };
        heard.map(|heard| match heard {
            Heard::Events(mut events) => {
                events.iter_mut().for_each(|event| event.at = possible(event.at, post.at));
                Heard::Events(events)
            }
            heard => heard,
        })
    }
}

#[cfg(test)]
mod tests;
