//! A server that has as many connections as it takes says so before it takes a message. No fault of the way there: what
//! waits is carried by the connections that stand.

use crate::mail::{Answer, Phase, Reply};

/// "421 4.7.0 Too many concurrent connections", "421 Too many concurrent SMTP connections" (SES), "421 4.3.2 The maximum
/// number of concurrent server connections has exceeded a limit" (Exchange), "421 Too many connections from your IP".
const FULL: [&str; 12] = [
    "too many connections",
    "too many concurrent",
    "too many simultaneous",
    "too many open connections",
    "too many sessions",
    "concurrent connections",
    "concurrent server connections",
    "simultaneous connections",
    "number of connections",
    "connection limit",
    "connections limit",
    "max connections",
];
/// Where these stand beside it is said of a time's connections, and fewer at once would not help.
const OF_A_TIME: [&str; 5] = ["rate", "minute", "hour", "second", "frequent"];

/// Its words, where it ended an exchange for want of a place.
pub(super) fn ends(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Smtp(smtp) if says(smtp.phase, &smtp.last) => Some(smtp.last.to_string()),
        Reply::Smtp(_) | Reply::Http(_) | Reply::Lost { .. } | Reply::Unfit { .. } | Reply::Kept => None,
    }
}

/// Whether it says so. Behind the greeting a connection has its place: only who ends it there can mean that.
pub(super) fn says(phase: Phase, answer: &Answer) -> bool {
    let may = match phase {
        Phase::Connect | Phase::Banner => answer.code >= 400,
        Phase::Ehlo | Phase::Tls | Phase::Auth | Phase::Mail => answer.code == 421,
        Phase::Token | Phase::Rcpt | Phase::Data | Phase::Body | Phase::Dot | Phase::Answer => false,
    };
    let text = answer.text.to_ascii_lowercase();
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    may && has(&FULL) && !has(&OF_A_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (Phase::Mail, 451, "too many connections", false),
            (Phase::Rcpt, 421, "too many connections", false),
            (Phase::Dot, 421, "too many connections", false),
        ] {
            let answer = Answer { code, enhanced: None, text: text.into() };
            assert_eq!(says(phase, &answer), full, "{} {code} {text}", phase.word());
        }
    }
}
