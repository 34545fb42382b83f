//! Refusals as the operator sees them: one line and one count each, the lines bounded. Of a flood the first ones are
//! written; the others are counted, and told in the next line that is.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Client;
use super::reply::{self, Reply};
use super::sasl::Attempt;
use crate::address::Grammar;
use crate::clock::monotonic;
use crate::mail::{ReversePath, StreamName};
use crate::metrics as names;

/// Lines of one kind in a [`WINDOW`], for each listener.
const LINES_MAX: u32 = 100;
/// The time after which lines are written again.
const WINDOW: Duration = Duration::from_secs(10);
/// Of a name or a mechanism that a client gave.
const SHOWN_CHARS: usize = 64;

/// What a listener tells of those whom it refuses.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// A flood of one kind hides none of the other.
    logins: Lines,
    mail: Lines,
}

/// How many lines were written lately.
#[derive(Debug, Default)]
struct Lines(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    left_out: u64,
}

impl Lines {
    /// Whether one more may be written now, and then how many were left out before it.
    fn one_more(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = window.get_or_insert(Window { began: now, written: 0, left_out: 0 });
        if now >= window.began + WINDOW {
            (window.began, window.written) = (now, 0);
        }
        if window.written >= LINES_MAX {
            window.left_out += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

impl Refusals {
    /// A login that was refused. Never a password; and of the name, which may be one in the wrong field, no more than
    /// names have.
    pub(super) fn login(&self, client: &Client, attempt: &Attempt, reason: &'static str) {
        metrics::counter!(names::LOGINS_REFUSED, "listener" => client.listener.clone(), "reason" => reason)
            .increment(1);
        let Some(left_out) = self.logins.one_more(monotonic()) else { return };
        let short = |text: &str| text.chars().take(SHOWN_CHARS).collect::<String>();
        tracing::warn!(
            target: "postroad",
            listener = %client.listener,
            client = %client.peer,
            helo = client.helo,
            mechanism = short(&attempt.mechanism),
            username = attempt.username.as_deref().map(short),
            reason = %reason,
            left_out = some(left_out),
            "login refused"
        );
    }

    /// Mail that was refused, or a connection that was cut, of a client that was heard: `line` is what it said, where it
    /// was one line.
    pub(super) fn mail(&self, client: &Client, sender: Option<&ReversePath>, line: &[u8], reply: &Reply) {
        let Some(reason) = reason(reply) else { return };
        count(&client.listener, reason);
        if *reply == reply::RELAY_DENIED {
            let stream = client.listener_stream.clone();
            let stream = stream.unwrap_or_else(|| StreamName::new(StreamName::TRANSACTIONAL)).to_string();
            metrics::counter!(names::RECIPIENTS_REFUSED, "stream" => stream, "reason" => reason).increment(1);
        }
        let Some(left_out) = self.mail.one_more(monotonic()) else { return };
        tracing::info!(
            target: "postroad",
            listener = %client.listener,
            client = %client.peer,
            helo = client.helo,
            from = sender.map(ReversePath::wire).or(path_of(line, b"MAIL FROM:").as_deref()),
            to = path_of(line, b"RCPT TO:"),
            reason = %reason,
            reply = reply.wire().trim_end(),
            left_out = some(left_out),
            "refused"
        );
    }

    /// A client that was not let in.
    pub(super) fn newcomer(&self, listener: &str, peer: IpAddr, reply: &Reply) {
        let Some(reason) = reason(reply) else { return };
        count(listener, reason);
        let Some(left_out) = self.mail.one_more(monotonic()) else { return };
        tracing::info!(
            target: "postroad",
            listener = %listener,
            client = %peer,
            reason = %reason,
            reply = reply.wire().trim_end(),
            left_out = some(left_out),
            "refused"
        );
    }
}

fn count(listener: &str, reason: &'static str) {
    metrics::counter!(names::SMTP_REFUSALS, "listener" => listener.to_owned(), "reason" => reason)
        .increment(1);
}

fn some(left_out: u64) -> Option<u64> {
    (left_out > 0).then_some(left_out)
}

/// The word of a refusal that an app's owner will ask about. `None`: what went well, slips of grammar and of order,
/// silence, a stop.
fn reason(reply: &Reply) -> Option<&'static str> {
    Some(match (reply.code, reply.enhanced) {
        _ if *reply == reply::STOPPING || *reply == reply::IDLE => return None,
        _ if *reply == reply::MADE_ROOM => "made_room",
        _ if *reply == reply::FULL_FOR_ADDRESS => "full_for_address",
        _ if *reply == reply::TOO_MANY_ERRORS => "too_many_errors",
        _ if *reply == reply::TOO_MUCH_JUNK => "too_many_commands",
        _ if *reply == reply::TOO_MANY_MESSAGES => "too_many_messages",
        _ if *reply == reply::RELAY_DENIED => "relay_denied",
        (421, Some((_, 3, _))) => "full",
        (421, Some((_, 4, _))) => "slow",
        (452, Some((_, 5, 3))) => "too_many_recipients",
        (421 | 450..=454, _) => "not_now",
        (530, _) => "auth_required",
        (552, _) => "too_large",
        (_, Some((5, 5, 0))) => "protocol",
        (550..=554, Some((_, 1, _))) => "bad_address",
        (550..=554, Some((_, 4, 6))) => "loop",
        (550..=554, Some((_, 6, _))) => "content",
        (550..=554, _) => "policy",
        _ => return None,
    })
}

/// The path in a MAIL or RCPT as it was given: never anything else of a line, which may be a secret.
fn path_of(line: &[u8], verb: &[u8]) -> Option<String> {
    let (front, rest) = line.split_at_checked(verb.len())?;
    let text = std::str::from_utf8(rest).ok().filter(|_| front.eq_ignore_ascii_case(verb))?;
    Some(match super::path::take_path(text, Grammar::Lenient) {
        Ok((super::path::Path::Mailbox(address) | super::path::Path::Bare(address), _)) => {
            address.to_string()
        }
        Ok((super::path::Path::Null, _)) => String::new(),
        Err(_) => text.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_the_first_are_written_and_the_others_counted() {
        let (lines, now) = (Lines::default(), monotonic());
        for _ in 0..LINES_MAX {
            assert_eq!(lines.one_more(now), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(lines.one_more(now + WINDOW / 2), None);
        }
        assert_eq!(lines.one_more(now + WINDOW), Some(7));
        assert_eq!(lines.one_more(now + WINDOW), Some(0));
    }

    #[test]
    fn each_refusal_has_its_word_and_what_is_no_refusal_has_none() {
        for (reply, word) in [
            (reply::RELAY_DENIED, Some("relay_denied")),
            (reply::TOO_LARGE, Some("too_large")),
            (reply::FULL, Some("full")),
            (reply::FULL_FOR_ADDRESS, Some("full_for_address")),
            (reply::MADE_ROOM, Some("made_room")),
            (reply::TOO_MANY_ERRORS, Some("too_many_errors")),
            (reply::TOO_MUCH_JUNK, Some("too_many_commands")),
            (reply::SLOW, Some("slow")),
            (reply::NO_MEMORY, Some("not_now")),
            (reply::LOOP, Some("loop")),
            (reply::CONTENT_BARE_LF, Some("content")),
            (reply::BARE_RECIPIENT, Some("bad_address")),
            (reply::AUTH_REQUIRED, Some("auth_required")),
            (reply::TLS_ON_PLAIN, Some("protocol")),
            (reply::IDLE, None),
            (reply::STOPPING, None),
            (reply::BYE, None),
            (reply::FINE, None),
            (reply::MAIL_TWICE, None),
            (reply::UNKNOWN_VERB, None),
        ] {
            assert_eq!(reason(&reply), word, "{}", reply.wire());
        }
    }

    #[test]
    fn a_line_gives_its_path_and_nothing_else() {
        let to = |line: &str| path_of(line.as_bytes(), b"RCPT TO:");
        assert_eq!(to("rcpt to: <b@example.com> X=y").as_deref(), Some("b@example.com"));
        assert_eq!(to("RCPT TO:<b@>").as_deref(), Some("<b@>"));
        assert_eq!(to("AUTH PLAIN AHVzZXIAc2VjcmV0"), None);
        assert_eq!(to("c2VjcmV0"), None);
    }
}
