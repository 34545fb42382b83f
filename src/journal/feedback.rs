//! What ESPs told, in the log.

use crate::mail::MessageId;

/// An event that an operator would look for: a bounce, a complaint, a wish.
pub fn told(esp: &str, kind: &'static str, to: &str, id: Option<MessageId>, said: &str) {
    let id = id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    tracing::info!(target: "postroad", id = %id, to = %to, esp = %esp, kind = %kind, reply = said, "told");
}

/// A POST to a webhook was not taken.
pub fn webhook_rejected(esp: &str, reason: &'static str, why: &str) {
    tracing::warn!(target: "postroad", esp = %esp, reason = %reason, why, "webhook not taken");
}

/// An operator changed the suppression list.
pub fn list_changed(act: &'static str, address: &str, changed: u64) {
    tracing::info!(target: "postroad", act = %act, to = %address, changed, "suppression list");
}

/// A topic may send its events here.
pub fn webhook_confirmed(esp: &str, topic: &str) {
    tracing::info!(target: "postroad", esp = %esp, topic = %topic, "webhook confirmed");
}
