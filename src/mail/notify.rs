//! What a client asks about reports of its mail's fate (RFC 3461): for whom, when, and how much is returned.

use std::fmt;

use crate::address::Address;

/// When a report about a recipient is wanted: `NOTIFY=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Notify {
    /// It was delivered, or handed to somebody who will not tell.
    pub success: bool,
    /// It came back.
    pub failure: bool,
    /// It is late.
    pub delay: bool,
}

impl Notify {
    /// No report, whatever happens.
    pub const NEVER: Notify = Notify { success: false, failure: false, delay: false };

    /// The value of `NOTIFY=`: `NEVER` alone, or any of the others (RFC 3461 section 4.1).
    pub fn parse(value: &str) -> Option<Notify> {
        if value.eq_ignore_ascii_case("NEVER") {
            return Some(Notify::NEVER);
        }
        let mut notify = Notify::NEVER;
        for word in value.split(',') {
            let wanted = match word.to_ascii_uppercase().as_str() {
                "SUCCESS" => &mut notify.success,
                "FAILURE" => &mut notify.failure,
                "DELAY" => &mut notify.delay,
                _ => return None,
            };
            *wanted = true;
        }
        Some(notify)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let words: Vec<&str> = all.iter().filter(|(wanted, _)| *wanted).map(|(_, word)| *word).collect();
        f.write_str(if words.is_empty() { "NEVER" } else { "" })?;
        f.write_str(&words.join(","))
    }
}

/// How much of the message comes back with a report of failure: `RET=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Return {
    /// All of it.
    Full,
    /// Its header block.
    Headers,
}

impl Return {
    /// The value of `RET=` (RFC 3461 section 4.3).
    pub fn parse(value: &str) -> Option<Return> {
        let all = [Return::Full, Return::Headers];
        all.into_iter().find(|ret| value.eq_ignore_ascii_case(ret.word()))
    }

    /// As `RET=` has it.
    pub fn word(self) -> &'static str {
        match self {
            Return::Full => "FULL",
            Return::Headers => "HDRS",
        }
    }
}

/// What is asked for one recipient.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ask {
    /// `NOTIFY=`; `None`: a report of failure, as without this extension.
    pub notify: Option<Notify>,
    /// `ORCPT=`: whom the sender named, as it was written: a type, `;` and xtext.
    pub original: Option<String>,
}

/// To whom reports go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ReportTo {
    /// To the message's sender.
    #[default]
    Sender,
    /// To this one: the client may not mail its sender, and this is where such mail goes.
    Instead(Address),
    /// To nobody: the client may not mail its sender.
    Nobody,
}

/// What is asked for a message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Asks {
    /// `RET=`
    pub ret: Option<Return>,
    /// `ENVID=`, in xtext.
    pub envelope_id: Option<String>,
    /// For each recipient, by its place in the envelope; those at the end that ask for nothing may be left out.
    pub each: Vec<Ask>,
    /// Not asked, but as the client's terms have it.
    pub to: ReportTo,
}

impl Asks {
    /// RFC 3461 section 4.4.
    pub const ENVELOPE_ID_OCTETS_MAX: usize = 100;
    /// RFC 3461 section 4.2.
    pub const ORIGINAL_OCTETS_MAX: usize = 500;

    /// What is asked for the recipient at that place.
    pub fn of(&self, recipient: usize) -> Option<&Ask> {
        self.each.get(recipient)
    }

    /// `NOTIFY=` of the recipient at that place.
    pub fn notify(&self, recipient: usize) -> Option<Notify> {
        self.of(recipient).and_then(|ask| ask.notify)
    }

    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.ret.is_none()
            && self.envelope_id.is_none()
            && self.each.iter().all(|ask| *ask == Ask::default())
            && self.to == ReportTo::Sender
    }
}

/// Whether it is xtext (RFC 3461 section 4): graphic ASCII without `=`, `+` only before two hexadecimal digits.
pub fn is_xtext(text: &str) -> bool {
    decode_xtext(text).is_some()
}

/// The octets behind xtext; `None` where it is not.
pub fn decode_xtext(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        decoded.push(match octet {
            b'+' => {
                let mut digit = || octets.next().and_then(|d| char::from(d).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'=' => return None,
            graphic if graphic.is_ascii_graphic() => graphic,
            _ => return None,
        });
    }
    Some(decoded)
}

/// Whether it is the value of `ORCPT=`: an address type, `;`, and an address in xtext (RFC 3461 section 4.2), or in
/// the forms of RFC 6533 section 3.
pub fn is_original(text: &str) -> bool {
    let Some((kind, address)) = text.split_once(';') else { return false };
    let atom = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let utf8 = kind.eq_ignore_ascii_case("utf-8") && !address.contains(char::is_control);
    !kind.is_empty() && kind.chars().all(atom) && !address.is_empty() && (is_xtext(address) || utf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn notify_is_never_alone_or_a_list() {
        let both = Notify { success: true, delay: true, ..Notify::NEVER };
        assert_eq!(Notify::parse("delay,Success"), Some(both));
        assert_eq!(both.to_string(), "SUCCESS,DELAY");
        assert_eq!(Notify::parse("never"), Some(Notify::NEVER));
        assert_eq!(Notify::NEVER.to_string(), "NEVER");
        for wrong in ["", "NEVER,FAILURE", "FAILURE,", "FAIL", "FAILURE DELAY"] {
            assert_eq!(Notify::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn xtext_is_read_by_its_grammar() {
        assert_eq!(decode_xtext("a+2Bb+3Dc").as_deref(), Some(&b"a+b=c"[..]));
        for wrong in ["a=b", "a b", "a+2", "a+zz", "a+", "gr\u{fc}n"] {
            assert!(!is_xtext(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn an_original_recipient_has_a_type() {
        for right in
            ["rfc822;a@b.example", "RFC822;a+2Bb@c", "utf-8;gr\\x{FC}n@b", "utf-8;gr\u{fc}n@b", "x-y;1"]
        {
            assert!(is_original(right), "{right:?}");
        }
        for wrong in ["a@b.example", ";a@b", "rfc822;", "rf c;a", "rfc822;a=b", "rfc822;gr\u{fc}n@b"] {
            assert!(!is_original(wrong), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_read_back(success: bool, failure: bool, delay: bool) {
            let notify = Notify { success, failure, delay };
            prop_assert_eq!(Notify::parse(&notify.to_string()), Some(notify));
        }
    }
}
