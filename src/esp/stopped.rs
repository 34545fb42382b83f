//! What an SMTP server says of us where it seems to refuse a mail: of the account that mails there, of its right to
//! relay, of the name that it sends in, of a command or of our host. No word about the message, nor about whom it is for.
//!
//! Beside "account suspended" stands whose account. At RCPT it may be the recipient's: RFC 3463's x.1.y and x.2.y, a
//! mailbox, an address, "this account" say so; "your account" says that it is ours. Where nothing says it there, it is
//! nobody's in particular: such mail goes elsewhere or waits, which harms least.

use super::phrases::About;
use super::words::Words;
use crate::mail::{Fault, Named, Phase};

/// What becomes of an account.
const STATES: [&str; 14] = [
    "suspended",
    "paused",
    "disabled",
    "deactivated",
    "blocked",
    "locked",
    "terminated",
    "closed",
    "cancelled",
    "canceled",
    "inactive",
    "frozen",
    "banned",
    "expired",
];
/// And what does, with the word before it.
const STATES_OF_TWO: [(&str, &str); 6] = [
    ("not", "active"),
    ("not", "activated"),
    ("yet", "activated"),
    ("not", "enabled"),
    ("under", "review"),
    ("on", "hold"),
];
/// States that are also told of before the account: "a disabled account".
const STATES_BEFORE: [&str; 4] = ["suspended", "disabled", "deactivated", "terminated"];
/// Words that may stand between an account and its state, in either order.
const BETWEEN: [&str; 26] = [
    "yet",
    "has",
    "have",
    "been",
    "is",
    "was",
    "currently",
    "temporarily",
    "permanently",
    "now",
    "status",
    "under",
    "on",
    "not",
    "or",
    "for",
    "this",
    "the",
    "your",
    "user",
    "smtp",
    "email",
    "sending",
    "sender",
    "sender's",
    "a",
];
/// So many of those at most, and one word more: the account's name.
const BETWEEN_MAX: usize = 5;

/// Whose fault a refusal is that is not the mail's own, by the rows of the table in its order. `taken_beside`: at RCPT,
/// others in the same transaction were taken.
pub(super) fn whose(phase: Phase, words: &Words<'_>, taken_beside: bool) -> Option<Fault> {
    let told = |codes: &[[u16; 3]]| words.enhanced().is_some_and(|enhanced| codes.contains(&enhanced));
    match phase {
        Phase::Auth | Phase::Mail | Phase::Rcpt | Phase::Data | Phase::Body | Phase::Dot => {}
        Phase::Connect | Phase::Banner | Phase::Ehlo | Phase::Tls | Phase::Token | Phase::Answer => {
            return None;
        }
    }
    let says = |about| words.says(about);
    // A mailbox has a quota too.
    let of_recipient = phase == Phase::Rcpt && (words.of_mailbox() || is_about_recipient(&words.text));
    match () {
        () if says(About::SendAs) || told(&[[5, 7, 60], [5, 2, 252]]) => Some(Fault::Sender(named(phase))),
        () if words.sender_by_code() => Some(Fault::Sender(named(phase))),
        () if says(About::Sender) && words.lasting() && !is_about_recipient(&words.text) => {
            Some(Fault::Sender(Named::Envelope))
        }
        // A recipient's address may be "not verified" as well.
        () if phase == Phase::Rcpt && words.sender_unknown() && !of_recipient => {
            Some(Fault::Sender(Named::Envelope))
        }
        () if says(About::Login) => Some(Fault::Account),
        () if (says(About::Credits) || says(About::Activation)) && !of_recipient => Some(Fault::Account),
        () if says(About::Relay) || told(&[[5, 7, 54]]) => Some(Fault::Path),
        () if says(About::Command) || says(About::Host) || words.host_by_code() => Some(Fault::Path),
        () if words.lists_an_address() && !of_recipient && (phase <= Phase::Rcpt || !words.in_content()) => {
            Some(Fault::Path)
        }
        // "550 5.7.705 Access denied, tenant has exceeded threshold" (Microsoft 365).
        () if words.has("tenant has exceeded") => Some(Fault::Account),
        () if says(About::Sending) => Some(Fault::Account),
        // At RCPT it would be the recipient's.
        () if phase > Phase::Rcpt && says_over_quota(&words.text) => Some(Fault::Account),
        () if says(About::Suspension) && !of_recipient => Some(Fault::Path),
        () => account(phase, words, taken_beside),
    }
}

fn says_over_quota(text: &str) -> bool {
    ["account over quota", "account is over quota"].iter().any(|phrase| text.contains(phrase))
}

/// What the server has seen of a message by then: at MAIL and RCPT the envelope alone.
fn named(phase: Phase) -> Named {
    if phase < Phase::Data { Named::Envelope } else { Named::From }
}

fn account(phase: Phase, words: &Words<'_>, taken_beside: bool) -> Option<Fault> {
    let text = &words.text[..];
    let owner = stopped_account(text)?;
    let of_an_address = matches!(words.enhanced(), Some([_, 1 | 2, _]));
    let names_address = text.contains('@');
    let of_recipient = of_an_address || is_about_recipient(text);
    match (phase, owner) {
        (_, Owner::Ours) => Some(Fault::Account),
        // Another's may be well.
        (_, Owner::Senders) => Some(Fault::Sender(named(phase))),
        (Phase::Mail, _) if of_an_address || names_address => None,
        (Phase::Mail | Phase::Auth, _) => Some(Fault::Account),
        (Phase::Rcpt, Owner::Shown) => None,
        (Phase::Rcpt, _) if of_recipient || names_address => None,
        // Ours would not have had the others taken; but a user may be the recipient.
        (Phase::Rcpt, _) if taken_beside && words.word(|word| word == "user") => None,
        (Phase::Rcpt, _) => Some(Fault::Path),
        // Yahoo, after the dot: "554 delivery error: dd Sorry, your message to a@b cannot be delivered. This account has
        // been disabled or discontinued".
        (_, _) if of_recipient => None,
        // Somebody's, who is named: one mail does not shut the gate for all.
        (_, _) if names_address => Some(Fault::Path),
        (_, _) => Some(Fault::Account),
    }
}

fn is_about_recipient(text: &str) -> bool {
    ["mailbox", "recipient", "receiv", "tried to reach", "message to", "delivery error"]
        .iter()
        .any(|phrase| text.contains(phrase))
}

/// Whose account it is, by the word before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// "your account".
    Ours,
    /// "the sender's account".
    Senders,
    /// "this account", "the account".
    Shown,
    /// None stands there.
    Nobody,
}

/// Whose account the words say does not work, where they say so of one.
fn stopped_account(text: &str) -> Option<Owner> {
    sentences(text).find_map(|sentence| {
        let accounts =
            sentence.iter().enumerate().filter(|(_, word)| matches!(**word, "account" | "accounts"));
        let mut stopped =
            accounts.filter(|(at, _)| stops_after(&sentence, *at) || stops_before(&sentence, *at));
        stopped.next().map(|(at, _)| owner(&sentence[..at]))
    })
}

/// Words without the marks around them; a sentence ends with its mark.
fn sentences(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let parts: Vec<Vec<&str>> = words
        .split_inclusive(|word| word.ends_with(['.', ';', '!']))
        .map(|part| part.iter().map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric())).collect())
        .collect();
    parts.into_iter()
}

fn stops_after(words: &[&str], account: usize) -> bool {
    let (mut before, mut names) = ("", 0);
    for word in words[account + 1..].iter().take(BETWEEN_MAX + 1).filter(|word| !word.is_empty()) {
        if STATES.contains(word) {
            return before != "not";
        }
        if STATES_OF_TWO.contains(&(before, *word)) {
            return true;
        }
        names += usize::from(!BETWEEN.contains(word));
        if names > 1 {
            return false;
        }
        before = word;
    }
    false
}

fn stops_before(words: &[&str], account: usize) -> bool {
    let before = words[..account].iter().rev().take(BETWEEN_MAX).find(|word| !BETWEEN.contains(word));
    before.is_some_and(|word| STATES_BEFORE.contains(word))
}

fn owner(before: &[&str]) -> Owner {
    let near = &before[before.len().saturating_sub(3)..];
    let is = |words: &[&str]| near.iter().any(|word| words.contains(word));
    match () {
        () if is(&["your", "sending", "customer"]) => Owner::Ours,
        () if is(&["sender", "sender's"]) => Owner::Senders,
        () if is(&["this", "that", "the"]) => Owner::Shown,
        () => Owner::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Answer;

    fn answer(code: u16, text: &str) -> Answer {
        Answer { code, enhanced: None, text: text.into() }
    }

    #[test]
    fn an_account_that_does_not_work_is_told_from_words_that_stand_near() {
        for (text, owner) in [
            ("account suspended", Some(Owner::Nobody)),
            ("your account has been temporarily suspended", Some(Owner::Ours)),
            ("your smtp account is disabled", Some(Owner::Ours)),
            ("account acme-corp is blocked", Some(Owner::Nobody)),
            ("account 'acme' (eu) is blocked", None),
            ("account: suspended.", Some(Owner::Nobody)),
            ("the account is on hold", Some(Owner::Shown)),
            ("sender's account under review", Some(Owner::Senders)),
            ("have your account manager review this", None),
            ("account is not active", Some(Owner::Nobody)),
            ("account is active", None),
            ("account is not suspended", None),
            ("mail from a suspended account", Some(Owner::Nobody)),
            ("disabled for this account", Some(Owner::Shown)),
            ("message blocked as spam, contact your account manager", None),
            ("contact your account manager. blocked", None),
            ("attachment disabled; see your account", None),
            ("user account suspended", Some(Owner::Nobody)),
            ("no such account", None),
            ("", None),
        ] {
            assert_eq!(stopped_account(text), owner, "{text}");
        }
    }

    #[test]
    fn beside_one_that_is_taken_a_suspended_user_is_the_recipient() {
        for (text, alone, beside) in [
            ("user account suspended", Some(Fault::Path), None),
            ("account suspended", Some(Fault::Path), Some(Fault::Path)),
            ("your account is suspended", Some(Fault::Account), Some(Fault::Account)),
            ("this account is suspended", None, None),
            ("recipient's account suspended", None, None),
            ("transaction failed : suspended", Some(Fault::Path), Some(Fault::Path)),
            ("please activate your account", Some(Fault::Account), Some(Fault::Account)),
            ("[192.0.2.1] blacklisted", Some(Fault::Path), Some(Fault::Path)),
            ("the recipient has your address 192.0.2.1 on a blocklist", None, None),
        ] {
            let answer = answer(550, text);
            let words = Words::of(&answer);
            assert_eq!(whose(Phase::Rcpt, &words, false), alone, "{text}");
            assert_eq!(whose(Phase::Rcpt, &words, true), beside, "{text}");
        }
    }

    #[test]
    fn before_a_mail_is_begun_nothing_is_read_into_words() {
        for phase in [Phase::Banner, Phase::Ehlo, Phase::Token] {
            let answer = answer(554, "account suspended");
            assert_eq!(whose(phase, &Words::of(&answer), false), None);
        }
    }
}
