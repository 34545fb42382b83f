//! A server that has as many connections as it takes says so before it takes a message. No fault of the way there: what
//! waits is carried by the connections that stand.

use super::phrases::About;
use super::words::Words;
use crate::mail::{Phase, Reply};

/// Where these stand beside it is said of a time's connections, and fewer at once would not help.
const OF_A_TIME: [&str; 5] = ["rate", "minute", "hour", "second", "frequent"];

/// And these of a recipient's connections, or of those to its host.
const OF_A_RECIPIENT: [&str; 4] = ["recipient", "mailbox", "destination", "for domain"];

/// Its words, where it ended an exchange for want of a place. A recipient that is refused for itself beside is told so
/// again by the next connection.
pub(super) fn ends(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Smtp(smtp) if says(smtp.phase, &Words::of(&smtp.last)) => Some(smtp.last.to_string()),
        Reply::Smtp(_) | Reply::Http(_) | Reply::Lost { .. } | Reply::Unfit { .. } | Reply::Kept => None,
    }
}

/// Whether it says so. Behind the greeting a connection has its place: there only who ends it, or says 4yz to a mail, can
/// mean that.
pub(super) fn says(phase: Phase, words: &Words<'_>) -> bool {
    let may = match phase {
        Phase::Connect | Phase::Banner => words.code() >= 400,
        Phase::Ehlo | Phase::Tls | Phase::Auth => words.code() == 421,
        Phase::Mail | Phase::Rcpt | Phase::Data => matches!(words.code(), 421 | 450..=452),
        Phase::Token | Phase::Body | Phase::Dot | Phase::Answer => false,
    };
    let of_recipient = phase == Phase::Rcpt && matches!(words.enhanced(), Some([_, 1 | 2, _]));
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| words.has(phrase));
    may && words.says(About::Place) && !of_recipient && !has(&OF_A_TIME) && !has(&OF_A_RECIPIENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Answer;

    #[test]
    fn a_full_house_is_told_from_what_goes_too_fast_and_from_other_ends() {
        for (phase, code, text, full) in [
            (Phase::Banner, 421, "Too many concurrent SMTP connections", true),
            (Phase::Banner, 421, "Too many connections from your IP", true),
            (Phase::Banner, 554, "Maximum number of connections exceeded", true),
            (Phase::Banner, 452, "too many simultaneous sessions", true),
            (Phase::Banner, 421, "Connection rate limit exceeded", false),
            (Phase::Banner, 421, "Too many connections in the last minute", false),
            (Phase::Banner, 421, "shutting down", false),
            (Phase::Ehlo, 421, "max connections reached", true),
            (Phase::Ehlo, 550, "too many connections", false),
            (
                Phase::Mail,
                421,
                "The maximum number of concurrent server connections has exceeded a limit",
                true,
            ),
            (Phase::Mail, 451, "too many connections", true),
            (Phase::Mail, 550, "too many connections", false),
            (Phase::Mail, 451, "connection rate limit exceeded", false),
            (Phase::Rcpt, 421, "too many connections", true),
            (Phase::Rcpt, 451, "too many concurrent SMTP connections; please try again later", true),
            (Phase::Rcpt, 450, "too many simultaneous connections to this mailbox", false),
            (Phase::Data, 421, "too many concurrent sessions", true),
            (Phase::Data, 451, "too many connections, slow down", true),
            (Phase::Dot, 421, "too many connections", false),
        ] {
            let answer = Answer { code, enhanced: None, text: text.into() };
            assert_eq!(says(phase, &Words::of(&answer)), full, "{} {code} {text}", phase.word());
        }
    }
}
