//! What a host's refusal says of an address, as ESPs' events tell it: by its enhanced code (RFC 3463) where that says
//! something, else by its words.

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
    if speaks_of_a_blocklist(&text) {
        return Some(Bounce::Policy);
    }
    match status_of(status, words) {
        // The sender's address, not the recipient's.
        Some([5, 1, 7 | 8] | [5, 7, _]) => Some(Bounce::Policy),
        Some([5, 1, _] | [5, 2, 1]) => Some(Bounce::Hard),
        // For a time; a mailbox that is full, and a message that is too large for it; a way that was not found.
        Some([4, ..] | [5, 2, 2 | 3] | [5, 4, _]) => Some(Bounce::Soft),
        // The host, the protocol, the content.
        Some([5, 3 | 5 | 6, _]) => Some(Bounce::Policy),
        _ if speaks_of_a_full_mailbox(&text) => Some(Bounce::Soft),
        _ => None,
    }
}

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
            ("", "550 no", None),
            ("", "", None),
        ] {
            assert_eq!(class_of(status, words), class, "{status} {words}");
        }
    }
}
