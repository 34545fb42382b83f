//! What a host's refusal says of an address, as ESPs' events tell it: by its enhanced code (RFC 3463) where that says
//! something, else by its words.
//!
//! Hosts write 5.0.z, 5.3.z and 5.5.z for whatever they refuse: Outlook's "550 5.5.0 Requested action not taken: mailbox
//! unavailable" is no error of the protocol but a dead address. There plain words decide; without them an undefined code
//! leaves it to what the ESP calls it.

use super::phrases::{About, says};
use super::words::{own_words, speaks_of_a_blocklist, speaks_of_a_full_mailbox};
use crate::mail::{Bounce, Status};

/// The enhanced code (RFC 3463) of a host's refusal, else the code within its words.
pub(super) fn status_of(status: &str, words: &str) -> Option<[u16; 3]> {
    Status::within(status).or_else(|| Status::within(words)).map(Status::parts)
}

/// What a host's refusal says of the address, by its code and its words; `None`: nothing. Words about a blocklist are about
/// who sends, whatever the code.
pub(super) fn class_of(status: &str, words: &str) -> Option<Bounce> {
    let text = own_words(words).to_ascii_lowercase();
    if speaks_of_a_blocklist(&text) || blocks_by_name(words) {
        return Some(Bounce::Policy);
    }
    match status_of(status, words) {
        // Words that say so plainly are right where the code says that the mailbox is not there.
        Some([5, 1, _] | [5, 2, 1]) if OF_THE_MAIL.iter().any(|about| text.contains(about)) => {
            Some(Bounce::Policy)
        }
        Some([5, 1, _] | [5, 2, 1]) if OF_A_RATE.iter().any(|about| text.contains(about)) => {
            Some(Bounce::Soft)
        }
        // The sender's address, not the recipient's.
        Some([5, 1, 7 | 8] | [5, 7, _]) => Some(Bounce::Policy),
        Some([5, 1, _] | [5, 2, 1]) => Some(Bounce::Hard),
        // For a time; a mailbox that is full, and a message that is too large for it; a way that was not found.
        Some([4, ..] | [5, 2, 2 | 3] | [5, 4, _]) => Some(Bounce::Soft),
        // The message: its size, its content.
        Some([5, 3, 4] | [5, 6, _]) => Some(Bounce::Policy),
        vague => by_words(&text, vague),
    }
}

/// By its words, where they are plain.
fn by_words(text: &str, vague: Option<[u16; 3]>) -> Option<Bounce> {
    match vague {
        _ if is_passing(text) || speaks_of_a_full_mailbox(text) => Some(Bounce::Soft),
        _ if OF_WHO_SENDS.iter().any(|about| says(text, *about)) => Some(Bounce::Policy),
        _ if says(text, About::NoMailbox) && !names_a_sender(text) => Some(Bounce::Hard),
        _ if OF_WHAT_IS_SENT.iter().any(|about| says(text, *about)) => Some(Bounce::Policy),
        // Too many recipients, and the language of the line: syntax, version, the length of a login.
        Some([5, 5, 2 | 3 | 5 | 6]) => Some(Bounce::Policy),
        // The state of a system, or a command, of which one mail says nothing and many do: so an address that is dead
        // after all comes to an end.
        Some([5, 3 | 5, detail]) if detail > 0 => Some(Bounce::Soft),
        _ => None,
    }
}

/// What is refused is the sender (Postfix, Exim), or this one message (AOL), though the code is one of the recipient's.
const OF_THE_MAIL: [&str; 5] = [
    "sender address rejected",
    "sender verify failed",
    "sender rejected",
    "verification failed for",
    "will not accept delivery of this message",
];
/// What a living mailbox is refused with for a while: Gmail's 5.2.1.
const OF_A_RATE: [&str; 3] = ["receiving mail at a rate", "receiving mail too quickly", "too much mail"];

/// Whether it names a recipient as blocked, as Barracuda's `(a@b:blocked)`: that the sender is, and not the mailbox.
fn blocks_by_name(words: &str) -> bool {
    words.to_ascii_lowercase().contains(":blocked)")
}

/// Of whom a host takes nothing.
const OF_WHO_SENDS: [About; 4] = [About::Sender, About::Host, About::Unverified, About::Limit];
/// What of a message, or of a command, it does not take.
const OF_WHAT_IS_SENT: [About; 2] = [About::Message, About::Command];

/// Whether it is the sender's address that is unknown, as "550 Verification failed for <a@b>: no such user" (Exim).
fn names_a_sender(text: &str) -> bool {
    const SENDERS: [&str; 5] =
        ["sender", "mail from", "return path", "return-path", "verification failed for"];
    SENDERS.iter().any(|sender| text.contains(sender))
}

/// Whether it begins with a code that is for a time (RFC 5321 section 4.2.1): "450 user unknown", "smtp; 451 no".
fn is_passing(text: &str) -> bool {
    let reply = text.strip_prefix("smtp;").unwrap_or(text).trim_start();
    let digits = reply.bytes().take_while(u8::is_ascii_digit).count();
    digits == REPLY_CODE_DIGITS && reply.starts_with('4')
}

/// RFC 5321 section 4.2.
const REPLY_CODE_DIGITS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_speaks_of_the_address_or_of_something_else() {
        for (status, words, class) in [
            ("5.1.1", "", Some(Bounce::Hard)),
            ("5.1.10", "", Some(Bounce::Hard)),
            ("5.2.1", "", Some(Bounce::Hard)),
            ("5.2.2", "", Some(Bounce::Soft)),
            ("4.2.2", "", Some(Bounce::Soft)),
            ("5.7.26", "", Some(Bounce::Policy)),
            ("5.4.4", "", Some(Bounce::Soft)),
            ("5.1.8", "", Some(Bounce::Policy)),
            ("5.0.0", "", None),
            ("", "smtp; 550 5.1.1 <a@b>: no such user", Some(Bounce::Hard)),
            ("", "550-5.7.515 Access denied", Some(Bounce::Policy)),
            (
                "5.1.1",
                "smtp; 550 5.1.1 Service unavailable; client [192.0.2.1] BLOCKED USING Spamhaus",
                Some(Bounce::Policy),
            ),
            ("4.2.2", "452 4.2.2 sender is on our block list", Some(Bounce::Policy)),
            (
                "5.1.1",
                "550 5.1.1 <policy@spamhaus.example>: Recipient address rejected: User unknown",
                Some(Bounce::Hard),
            ),
            ("", "550 5.1.1 dnsbl@x.example no such user", Some(Bounce::Hard)),
            (
                "5.1.1",
                "550 5.1.1 <a@spamhaus.example>: client blocked using bl.example",
                Some(Bounce::Policy),
            ),
            ("5.1.1", "550 5.1.1 not listed in the directory", Some(Bounce::Hard)),
            ("5.0.0", "552 Mailbox full", Some(Bounce::Soft)),
            ("5.1.1", "550 5.1.1 no such user, nor would it be over quota", Some(Bounce::Hard)),
            ("5.5.0", "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302)", None),
            ("", "550 Requested action not taken: mailbox unavailable", None),
            ("5.5.0", "550 5.5.0 User unknown", Some(Bounce::Hard)),
            ("5.3.0", "550 5.3.0 No such user here", Some(Bounce::Hard)),
            ("5.5.1", "550 5.5.1 Recipient does not exist", Some(Bounce::Hard)),
            ("5.0.0", "550 sorry, no mailbox here by that name", Some(Bounce::Hard)),
            ("", "550 user unknown; our policy is at https://x.example", Some(Bounce::Hard)),
            ("5.7.1", "550 5.7.1 User unknown", Some(Bounce::Policy)),
            ("5.4.1", "550 5.4.1 user unknown", Some(Bounce::Soft)),
            ("", "smtp; 450 User unknown in local recipient table", Some(Bounce::Soft)),
            ("", "450-try again", Some(Bounce::Soft)),
            ("", "4500 of them", None),
            ("5.5.0", "550 5.5.0 mailbox is full", Some(Bounce::Soft)),
            ("", "550 Verification failed for <a@b>; no such user here", None),
            ("", "550 Sender verify failed: no such user", Some(Bounce::Policy)),
            ("5.3.0", "550 5.3.0 Message rejected as spam", Some(Bounce::Policy)),
            ("5.5.0", "550 5.5.0 your IP has a poor name here", Some(Bounce::Policy)),
            ("5.0.0", "552 Message size exceeds fixed limit", Some(Bounce::Policy)),
            ("5.3.4", "552 5.3.4 Message too big for system", Some(Bounce::Policy)),
            ("5.6.0", "554 5.6.0 bad structure", Some(Bounce::Policy)),
            ("5.5.2", "501 5.5.2 odd line", Some(Bounce::Policy)),
            ("5.5.0", "500 5.5.0 Syntax error", Some(Bounce::Policy)),
            ("5.5.1", "503 5.5.1 bad sequence of commands", Some(Bounce::Policy)),
            ("5.5.1", "554 5.5.1 Error", Some(Bounce::Soft)),
            ("5.3.2", "521 5.3.2 takes no mail", Some(Bounce::Soft)),
            ("5.3.0", "554 5.3.0 no", None),
            ("5.5.0", "550 5.5.0 mailbox not used for too long", None),
            ("5.5.0", "500 5.5.0 line too long", Some(Bounce::Policy)),
            (
                "5.2.1",
                "550-5.2.1 The user you are trying to contact is receiving mail at a rate that prevents more",
                Some(Bounce::Soft),
            ),
            ("5.2.1", "550 5.2.1 The email account that you tried to reach is disabled", Some(Bounce::Hard)),
            (
                "5.1.0",
                "550 5.1.0 <app@shop.example>: Sender address rejected: User unknown in virtual mailbox table",
                Some(Bounce::Policy),
            ),
            (
                "5.1.1",
                "550 5.1.1 <app@shop.example>: Sender address rejected: undeliverable",
                Some(Bounce::Policy),
            ),
            ("5.2.1", "521 5.2.1 : AOL will not accept delivery of this message.", Some(Bounce::Policy)),
            (
                "",
                "550 permanent failure for one or more recipients (u@x.example:blocked)",
                Some(Bounce::Policy),
            ),
            ("", "550 no", None),
            ("", "", None),
        ] {
            assert_eq!(class_of(status, words), class, "{status} {words}");
        }
    }
}
