//! A webhook's body, whatever it is: what holds for all of them.

use postroad::clock::Timestamp;
use postroad::esp::hook::{Heard, Post, Refused};
use postroad::esp::webhook::{ProvenBy, WebhookSettings};
use postroad::mail::What;

use crate::PLANTED;

/// What is kept of an event as it came, and of its words.
const RAW_OCTETS_MAX: usize = 16 * 1024;
const SAID_OCTETS_MAX: usize = 1_000;

/// Hears it twice, and looks at what came of it.
pub fn hear(by: ProvenBy, body: &[u8]) {
    let settings = WebhookSettings { proven: false, by };
    let post = Post { fields: &[], body, at: Timestamp::from_millis(1_800_000_000_000) };
    let heard = settings.hear(post, None);
    assert_eq!(heard, settings.hear(post, None));
    let events = match heard {
        Ok(Heard::Events(events)) => events,
        Ok(Heard::Confirm { url, .. }) => {
            assert!(url.starts_with("https://sns.") && url.contains(".amazonaws.com"), "{url}");
            return;
        }
        Ok(Heard::Ended { .. }) | Err(Refused::Unproven(_)) => return,
        Err(Refused::Malformed(why)) => {
            assert!(!why.is_empty());
            return;
        }
    };
    for event in &events {
        assert!(!event.key.is_empty() && event.key.len() <= body.len().max(64));
        assert!(event.raw.len() <= RAW_OCTETS_MAX && event.said.len() <= SAID_OCTETS_MAX);
        assert!(!PLANTED || event.what != What::Complained || event.recipient.is_none(), "planted");
    }
    // One proof, and the same of all that is not asked for one.
    let strict = WebhookSettings { proven: true, ..settings };
    assert!(strict.hear(post, None).is_err(), "taken without a proof");
}
