//! What is alike in the answers of all ESPs: a lost line, waits, and what a status of HTTP means where the ESP's own
//! table has no row for it.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::{Fault, HttpReply, Outcome, Reply, Throttle};

/// An ESP that asks for a longer wait is asked again after this one: nobody looks into the queue for longer.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What it means that there is no answer. SMTP replies and HTTP answers have tables of their own; one that came where
/// the other was awaited is no answer either.
pub(super) fn without_words(reply: &Reply) -> Outcome {
    let path = |said: String| Outcome::Refused { fault: Fault::Path, lasting: false, wait: None, said };
    match reply {
        Reply::Lost { handed_over: true, phase, said, .. } => {
            Outcome::Unsure { said: format!("no answer at {}: {said}", phase.word()) }
        }
        Reply::Lost { handed_over: false, phase, said, .. } => {
            path(format!("lost at {}: {said}", phase.word()))
        }
        Reply::Unfit { why } => Outcome::Unfit { why: why.clone() },
        Reply::Smtp(smtp) => path(format!("no answer by HTTP, but {}", smtp.last)),
        Reply::Http(http) => path(format!("no answer by SMTP, but {http}")),
        Reply::Kept => path("kept, not sent".into()),
    }
}

/// A refusal in the ESP's words.
pub(super) fn refused(fault: Fault, lasting: bool, reply: &HttpReply, now: Timestamp) -> Outcome {
    let wait = wait(reply, now);
    Outcome::Refused { fault, lasting, wait, said: reply.to_string() }
}

/// What a status means by itself (RFC 9110 section 15): 503 and 429 say that the mail was not taken. Every other 5xx, known
/// or made up by what stands in between (520 to 529, 599), may come after it was: its text seldom tells which of the two
/// servers gave up. What is no status at all counts as a 5xx. The 4xx that are left are the relay's own mistake: nothing
/// the message's sender could mend.
pub(super) fn by_status(reply: &HttpReply, now: Timestamp) -> Outcome {
    match reply.status {
        503 | 300..=399 => refused(Fault::Path, false, reply, now),
        401 | 403 | 404 | 405 => refused(Fault::Account, true, reply, now),
        413 => Outcome::Unfit { why: reply.to_string() },
        408 | 425 => refused(Fault::Path, false, reply, now),
        429 => refused(Fault::Throttled(Throttle::Rate), false, reply, now),
        400..=499 => Outcome::Unfit { why: reply.to_string() },
        _ => Outcome::Unsure { said: reply.to_string() },
    }
}

/// 415 (RFC 9110 section 15.5.16): what was asked is not written as the ESP reads it.
pub(super) fn blames_request(reply: &HttpReply) -> bool {
    reply.status == 415
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.
pub(super) fn wait(reply: &HttpReply, now: Timestamp) -> Option<Duration> {
    retry_after(reply.header("retry-after")?, now)
}

/// The value of that field.
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        // More than a number holds.
        Err(_) if is_number(text) => WAIT_MAX,
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Timestamp::from_millis(at.as_millisecond()).since(now)
        }
    };
    Some(wait.min(WAIT_MAX))
}

/// Digits alone, however many.
pub(super) fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_602_034_000);

    fn reply(status: u16, retry_after: &str) -> HttpReply {
        let headers = vec![("retry-after".to_owned(), retry_after.to_owned())];
        HttpReply { status, headers, body: "{}".into(), cut: false }
    }

    #[test]
    fn waits_are_read_in_both_forms_and_bounded() {
        for (text, seconds) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Wed, 25 Nov 2026 10:21:34 GMT", Some(60)),
            ("Wed, 25 Nov 2026 10:00:00 GMT", Some(0)),
            ("99999999999", Some(86_400)),
            ("99999999999999999999999999", Some(86_400)),
            ("", None),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(wait(&reply(429, text), NOW), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn only_what_may_have_been_taken_is_unsure() {
        for (status, word) in [
            (101, "unsure"),
            (204, "unsure"),
            (503, "refused"),
            (429, "refused"),
            (401, "refused"),
            (302, "refused"),
            (413, "unfit"),
            (415, "unfit"),
        ] {
            assert_eq!(by_status(&reply(status, ""), NOW).word(), word, "{status}");
        }
        for status in (500..=999).filter(|status| *status != 503) {
            assert_eq!(by_status(&reply(status, ""), NOW).word(), "unsure", "{status}");
        }
    }
}
