//! Whether a client may send as whom it names: in the envelope and in From. Errors are words for the app's owner.

use crate::address::{Address, Grammar};
use crate::mail::ReversePath;
use crate::mail::headers::{Field, fields};
use crate::mail::mailboxes::{Mailbox, mailboxes};
use crate::mail::terms::Names;

/// Of a From that nobody can read, in an error.
const SHOWN_CHARS: usize = 60;

/// Judges MAIL FROM. `<>` is everybody's: it names nobody, and what must not bounce needs it.
pub fn envelope_sender(senders: &Names, sender: &ReversePath) -> Result<(), String> {
    match sender {
        ReversePath::Mailbox(address) if !senders.is_empty() && !senders.name(address) => {
            Err(format!("MAIL FROM:<{address}> {}", advice(senders)))
        }
        ReversePath::Mailbox(_) | ReversePath::Null => Ok(()),
    }
}

/// Judges every From of the header block at the beginning of `octets`. One that cannot be read is not theirs: who reads
/// it otherwise would see somebody else. Without any From nobody is named.
pub fn header_from(senders: &Names, octets: &[u8]) -> Result<(), String> {
    if senders.is_empty() {
        return Ok(());
    }
    fields(octets).filter(|field| field.is("From")).try_for_each(|field| from_field(senders, &field))
}

fn from_field(senders: &Names, field: &Field<'_>) -> Result<(), String> {
    let odd = || {
        let text = String::from_utf8_lossy(field.value());
        let text: String = text.trim().chars().take(SHOWN_CHARS).collect();
        format!("the From {text:?} is no list of addresses; {}", only(senders))
    };
    let found = mailboxes(field.value());
    if found.is_empty() {
        return Err(odd());
    }
    for mailbox in found {
        let (Mailbox::Address(span) | Mailbox::Bare(span)) = mailbox else { return Err(odd()) };
        let text = std::str::from_utf8(&field.value()[span]).map_err(|_| odd())?;
        match Address::parse(text, Grammar::Lenient) {
            Ok(address) if senders.name(&address) => {}
            Ok(_) | Err(_) => return Err(format!("From <{text}> {}", advice(senders))),
        }
    }
    Ok(())
}

fn advice(senders: &Names) -> String {
    format!("is not this user's; {}", only(senders))
}

fn only(senders: &Names) -> String {
    format!(
        "it sends as {} only: use one of these, or have senders of its [[credential]] changed",
        senders.told()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Names {
        Names::of(vec!["@shop.example".into()])
    }

    #[test]
    fn the_envelope_is_theirs_or_nobody_s() {
        let path = |text: &str| ReversePath::Mailbox(Address::parse(text, Grammar::Lenient).unwrap());
        assert_eq!(envelope_sender(&shop(), &path("a@Shop.example")), Ok(()));
        assert_eq!(envelope_sender(&shop(), &ReversePath::Null), Ok(()));
        let told = envelope_sender(&shop(), &path("a@other.example")).unwrap_err();
        assert!(told.contains("<a@other.example>") && told.contains("@shop.example only"), "{told}");
        assert_eq!(envelope_sender(&Names::default(), &path("a@other.example")), Ok(()));
    }

    #[test]
    fn every_from_has_to_be_theirs() {
        for (block, good) in [
            ("From: A <a@shop.example>\r\n", true),
            ("Subject: x\r\n", true),
            ("From: a@shop.example, B <b@SHOP.example>\r\n", true),
            ("From: a@shop.example, b@other.example\r\n", false),
            ("From: a@shop.example\r\nfrom : b@other.example\r\n", false),
            ("From: root\r\n", false),
            ("From:\r\n", false),
            ("From: a@shop.example b@other.example\r\n", false),
            ("From: b@other.example <a@shop.example>\r\n", false),
            ("From: \"b@other.example\" <a@shop.example>\r\n", true),
            ("Subject: x\r\n\r\nFrom: b@other.example\r\n", true),
        ] {
            assert_eq!(header_from(&shop(), block.as_bytes()).is_ok(), good, "{block}");
        }
        assert_eq!(header_from(&Names::default(), b"From: root\r\n"), Ok(()));
    }
}
