//! What a client asks about reports of its mail's fate (RFC 3461): for whom, when, and how much is returned.

use std::fmt::{self, Write as _};

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
    /// `ORCPT=`: whom the sender named, in the form of [`original`].
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
    /// `ENVID=`, in the form of [`envelope_id`].
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

/// `ENVID=` as it is passed on: printable ASCII in xtext (RFC 3461 section 4.4), whatever cases its digits had. `None`: it
/// is none.
pub fn envelope_id(xtext: &str) -> Option<String> {
    let octets = decode_xtext(xtext)?;
    let id = octets.iter().all(|b| is_printable(*b)).then(|| encode_xtext(&octets))?;
    (1..=Asks::ENVELOPE_ID_OCTETS_MAX).contains(&id.len()).then_some(id)
}

/// `ORCPT=` as it is passed on: an address type, `;`, and an address in xtext (RFC 3461 section 4.2), or where it is not
/// ASCII, in the form of RFC 6533 section 3 that every server may see. `None`: it is none.
pub fn original(value: &str) -> Option<String> {
    let (kind, address) = value.split_once(';')?;
    let atom = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if kind.is_empty() || !kind.chars().all(atom) {
        return None;
    }
    let text = String::from_utf8(decoded(address, true)?).ok()?;
    let utf8 = kind.eq_ignore_ascii_case("utf-8");
    let text = if utf8 { unescaped(&text)? } else { text };
    if text.is_empty() || text.contains(char::is_control) {
        return None;
    }
    let original = match text.is_ascii() {
        _ if utf8 => format!("{kind};{}", utf8_xtext(&text)),
        true => format!("{kind};{}", encode_xtext(text.as_bytes())),
        // Written before its sender knew of the type for it.
        false if kind.eq_ignore_ascii_case("rfc822") => format!("utf-8;{}", utf8_xtext(&text)),
        false => return None,
    };
    (original.len() <= Asks::ORIGINAL_OCTETS_MAX).then_some(original)
}

/// The octets behind xtext (RFC 3461 section 4), also where its digits are lower case; `None` where it is not.
pub fn decode_xtext(text: &str) -> Option<Vec<u8>> {
    decoded(text, false)
}

/// `wide`: octets above ASCII stand for themselves.
fn decoded(text: &str, wide: bool) -> Option<Vec<u8>> {
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
            plain if plain.is_ascii_graphic() || (wide && !plain.is_ascii()) => plain,
            _ => return None,
        });
    }
    Some(decoded)
}

fn encode_xtext(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len());
    for octet in octets {
        if octet.is_ascii_graphic() && !matches!(octet, b'+' | b'=') {
            text.push(char::from(*octet));
        } else {
            // Writing to a String does not fail.
            let _ = write!(text, "+{octet:02X}");
        }
    }
    text
}

/// `utf-8-addr-xtext` of RFC 6533 section 3: ASCII, whatever the address.
pub fn utf8_xtext(address: &str) -> String {
    let mut text = String::with_capacity(address.len());
    for c in address.chars() {
        if c.is_ascii_graphic() && !matches!(c, '\\' | '+' | '=') {
            text.push(c);
        } else {
            let _ = write!(text, "\\x{{{:X}}}", u32::from(c));
        }
    }
    text
}

/// `\x{FC}` as the letter that it stands for; `None`: a backslash begins nothing else.
fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('\\');
    let mut out = pieces.next()?.to_owned();
    for piece in pieces {
        let (digits, rest) = piece.strip_prefix("x{")?.split_once('}')?;
        let hexadecimal = (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        out.push(
            hexadecimal.then(|| u32::from_str_radix(digits, 16).ok()).flatten().and_then(char::from_u32)?,
        );
        out.push_str(rest);
    }
    Some(out)
}

/// Graphic ASCII, and the blank.
fn is_printable(octet: u8) -> bool {
    matches!(octet, b' '..=b'~')
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
            assert_eq!(decode_xtext(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_envelope_id_is_printable_and_leaves_in_lawful_xtext() {
        for (given, leaves) in [
            ("QQ314159", Some("QQ314159")),
            ("a+2bb+3dc+20d", Some("a+2Bb+3Dc+20d")),
            ("+41b", Some("Ab")),
            ("a+0D+0Ab", None),
            ("a+0ab", None),
            ("+C3+B6", None),
            ("j\u{f6}rg", None),
            ("", None),
        ] {
            assert_eq!(envelope_id(given).as_deref(), leaves, "{given:?}");
        }
        assert!(envelope_id(&"x".repeat(100)).is_some() && envelope_id(&"x".repeat(101)).is_none());
    }

    #[test]
    fn an_original_recipient_has_a_type_and_leaves_in_ascii() {
        for (given, leaves) in [
            ("rfc822;a@b.example", "rfc822;a@b.example"),
            ("RFC822;a+2bb@c", "RFC822;a+2Bb@c"),
            ("rfc822;+22a+20b+22@c", "rfc822;\"a+20b\"@c"),
            ("rfc822;gr\u{fc}n@b", "utf-8;gr\\x{FC}n@b"),
            ("rfc822;gr+c3+BCn@b", "utf-8;gr\\x{FC}n@b"),
            ("utf-8;gr\\x{fc}n@b", "utf-8;gr\\x{FC}n@b"),
            ("UTF-8;gr\u{fc}n@b", "UTF-8;gr\\x{FC}n@b"),
            ("utf-8;gr+C3+BCn@b", "utf-8;gr\\x{FC}n@b"),
            ("utf-8;a\\x{2B}b+3D\\x{1F600}@c", "utf-8;a\\x{2B}b\\x{3D}\\x{1F600}@c"),
            ("x-y;1", "x-y;1"),
        ] {
            assert_eq!(original(given).as_deref(), Some(leaves), "{given:?}");
        }
        for wrong in [
            "a@b.example",
            ";a@b",
            "rfc822;",
            "rf c;a",
            "rfc822;a=b",
            "rfc822;a+0D+0Ab",
            "rfc822;a+7Fb",
            "rfc822;gr+FCn@b",
            "x-y;gr\u{fc}n@b",
            "utf-8;a\\x{0A}b@c",
            "utf-8;a\\b@c",
            "utf-8;a\\x{}b@c",
            "utf-8;a\\x{D800}b@c",
            "utf-8;a\\x{+41}b@c",
            "utf-8;a+b@c",
            "utf-8;a\u{85}b@c",
        ] {
            assert_eq!(original(wrong), None, "{wrong:?}");
        }
        let long = format!("utf-8;{}@b", "\u{fc}".repeat(100));
        assert_eq!(original(&long), None, "it would be over the limit as it leaves");
    }

    proptest! {
        #[test]
        fn what_is_kept_is_read_back(success: bool, failure: bool, delay: bool) {
            let notify = Notify { success, failure, delay };
            prop_assert_eq!(Notify::parse(&notify.to_string()), Some(notify));
        }

        #[test]
        fn what_leaves_is_printable_and_leaves_so_again(
            value in "(rfc822|utf-8|x);(\\PC|[+\\\\x{}]|\\+[0-9a-fA-F]{2}|\\\\x\\{[0-9A-F]{1,5}\\}){0,12}",
        ) {
            for read in [original, envelope_id] {
                let Some(leaves) = read(&value) else { continue };
                prop_assert!(leaves.bytes().all(|b| b.is_ascii_graphic()), "{leaves}");
                let octets = decode_xtext(&leaves).unwrap();
                prop_assert!(octets.iter().all(|b| is_printable(*b)), "{leaves}");
                prop_assert_eq!(read(&leaves), Some(leaves));
            }
        }
    }
}
