//! What became of events out to the app, where it is more than a row of their own log.

/// An event is told no more, unless an operator has it told again.
pub fn not_notified(receiver: &str, id: &str, event: &str, tries: u32, answer: &str) {
    tracing::warn!(target: "postroad", receiver = %receiver, id = %id, kind = %event, tries, reply = answer, "event not taken");
}

/// Events that waited for a receiver are told no more.
pub fn notifications_ended(receiver: &str, events: u64, why: &str) {
    tracing::warn!(target: "postroad", receiver = %receiver, events, why, "events end untold");
}

/// An operator had events told once more.
pub fn replayed(events: u64) {
    tracing::info!(target: "postroad", events, "events are told once more");
}
