//! What the relay says about itself: start, stop, trouble.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::MessageId;

/// A door is open.
pub fn listening(listener: &str, address: SocketAddr) {
    tracing::info!(target: "postroad", listener = %listener, address = %address, "listening for SMTP");
}

/// The side port is open.
pub fn serving(address: SocketAddr, https: bool) {
    let what = if https { "serving HTTPS" } else { "serving HTTP" };
    tracing::info!(target: "postroad", address = %address, "{what}");
}

/// The port for webhooks alone is open.
pub fn serving_webhooks(address: SocketAddr, https: bool) {
    let what = if https { "serving webhooks by HTTPS" } else { "serving webhooks by HTTP" };
    tracing::info!(target: "postroad", address = %address, "{what}");
}

/// No ESP is configured.
pub fn only_sandbox() {
    tracing::warn!(
        target: "postroad",
        "no [[esp]] is configured: mail is kept in the sandbox and nothing leaves this machine"
    );
}

/// Something of the configuration is lawful but odd.
pub fn odd(what: &str) {
    tracing::warn!(target: "postroad", what, "configuration");
}

/// What an earlier start left without an answer is held.
pub fn recovered(deliveries: u64) {
    tracing::warn!(
        target: "postroad",
        deliveries,
        "an earlier start ended while these were out: held until their outcome is known or the hold is over"
    );
}

/// Content of finished mail went before its time.
pub fn let_go(bodies: u64, octets: u64) {
    tracing::warn!(
        target: "postroad",
        bodies,
        octets,
        "the disk is nearly full: content of messages that were done went before the time of [retention] bodies, \
         so that new mail finds room"
    );
}

/// A signal came: no new mail.
pub fn stopping(signal: &str) {
    tracing::info!(target: "postroad", signal = %signal, "stopping");
}

/// All parts have ended.
pub fn stopped() {
    tracing::info!(target: "postroad", "stopped");
}

/// Something did not work and is tried again.
pub fn trouble(doing: &str, error: &str) {
    tracing::warn!(target: "postroad", doing = %doing, error, "trouble");
}

/// Header fields that were taken out of a message, by name.
pub fn removed(id: MessageId, fields: &[String]) {
    tracing::info!(target: "postroad", id = %id, fields = %fields.join(","), "header fields removed");
}

/// Header fields that look as if they asked the relay for something, and do not.
pub fn asked_for_nothing(id: MessageId, fields: &[&str]) {
    tracing::warn!(
        target: "postroad",
        id = %id,
        fields = %fields.join(","),
        "this version has no such fields: taken out, and nothing is done for them"
    );
}

/// A From that should have been rewritten or completed stays as its app wrote it.
pub fn from_left(id: MessageId, why: &str) {
    tracing::warn!(target: "postroad", id = %id, why = %why, "From is left as it is");
}

/// Recipients whom the staging guard holds back: another gets their mail.
pub fn turned(id: MessageId, to: &Address, others: &[Address]) {
    const NAMED_MAX: usize = 20;
    let named = others.iter().take(NAMED_MAX).map(Address::wire).collect::<Vec<_>>().join(",");
    tracing::info!(target: "postroad", id = %id, to = %to, nrcpt = others.len(), instead_of = named, "turned");
}

/// An operator suspended an ESP.
pub fn esp_suspended(esp: &str, reason: &str, until: Option<Timestamp>) {
    tracing::warn!(
        target: "postroad",
        esp = %esp, reason, until = until.map(tracing::field::display),
        "suspended: it gets no mail"
    );
}

/// An ESP takes no more connections than these.
pub fn esp_full(esp: &str, allowed: usize, configured: usize, said: &str) {
    tracing::warn!(
        target: "postroad",
        esp = %esp, allowed, max_connections = configured, said,
        "it takes no more connections: no more are used; one more is tried each minute"
    );
}

/// A message with a key came again; the client got the first one's id.
pub fn repeated(first: MessageId, listener: &str) {
    tracing::info!(target: "postroad", id = %first, listener = %listener, "handed in again: taken once");
}

/// The database was copied.
pub fn backed_up(file: &Path, octets: u64, took: Duration) {
    let seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
    tracing::info!(target: "postroad", file = %file.display(), octets, seconds, "backup made");
}

/// After a restore an operator let all sending go on.
pub fn may_have_been_sent(deliveries: u64) {
    tracing::warn!(
        target: "postroad",
        deliveries,
        "a backup was restored: each of these has an event now, it may have been sent after that backup"
    );
}

/// The listeners take fewer clients at a time than they are set to.
pub fn fewer_seats(seats: usize, wanted: usize, limit: usize, needed: usize) {
    tracing::warn!(
        target: "postroad",
        seats,
        max_connections = wanted,
        open_files = limit,
        advice = %format!("raise the limit on open files to {needed} (ulimit -Hn, LimitNOFILE), or lower max_connections"),
        "the limit on open files leaves the listeners fewer connections than max_connections"
    );
}

/// An operator paused all sending.
pub fn sending_paused(reason: &str) {
    tracing::warn!(target: "postroad", reason = %reason, "all sending is paused: mail is taken and waits");
}

/// An operator let it go on.
pub fn sending_unpaused() {
    tracing::info!(target: "postroad", "sending goes on");
}

/// Another configuration is in force.
pub fn reloaded(changed: &[&str]) {
    let keys = changed.join(",");
    tracing::info!(target: "postroad", changed = changed.len(), keys = %keys, "configuration reloaded");
}

/// The file says what only a restart brings into force.
pub fn wants_restart(key: &str, what: &str) {
    tracing::warn!(target: "postroad", key = %key, what = %what, "stays as it was until a restart");
}

/// The configuration was read again and is not put in place: one line for each reason.
pub fn not_reloaded(why: &str) {
    tracing::error!(target: "postroad", why, "not reloaded: the configuration before stays in force");
}

/// An ESP is not configured any more.
pub fn esp_gone(esp: &str) {
    tracing::info!(target: "postroad", esp = %esp, "not configured any more: it gets no more mail");
}

/// An operator resumed an ESP.
pub fn esp_resumed(esp: &str) {
    tracing::info!(target: "postroad", esp = %esp, "resumed: it gets mail again");
}
