//! An address parsed once: the wire form as it was given, and the key under which it is known.
//!
//! The wire form keeps quotes, case and spelling, because only the mailbox's own host may interpret a local part
//! (RFC 5321 section 2.4). The key is what suppressions and subscribers are looked up by: one key for all spellings
//! of one mailbox.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use unicode_normalization::UnicodeNormalization;

/// RFC 5321 section 4.5.3.1.3: a path is at most 256 octets with its angle brackets.
pub const PATH_OCTETS_MAX: usize = 254;
/// RFC 5321 section 4.5.3.1.2.
pub const DOMAIN_OCTETS_MAX: usize = 255;

/// A mailbox, `local@domain`, or a bare local part (`postmaster`, `root`) where the grammar allowed one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    wire: Box<str>,
    /// Where the domain starts in `wire`, after the `@`; `None` for a bare name.
    domain_at: Option<u16>,
}

/// What was wrong with an address, in words for the app's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("the address is empty")]
    Empty,
    /// Over the path limit.
    #[error("the address is longer than 254 octets")]
    TooLong,
    /// No `@`, or nothing on one side of it.
    #[error("the address has no domain; write name@domain")]
    NoDomain,
    /// The local part breaks even the lenient grammar.
    #[error("the part before the @ has a character that must be quoted")]
    BadLocalPart,
    /// The domain is neither a host name nor an address literal.
    #[error("the domain is not a valid host name or address literal")]
    BadDomain,
    /// A domain that only the lenient grammar takes.
    #[error(
        "RFC 5321 allows no underscore in a domain and no dot at its end; strict_envelope = false takes both"
    )]
    LooseDomain,
}

/// How much of RFC 5321's grammar is insisted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// RFC 5321 section 4.1.2 and RFC 6531 as written.
    Strict,
    /// Also dots doubled or at an end of a local part: such mailboxes exist (old mobile-carrier addresses).
    Lenient,
}

impl Address {
    /// Parses `local@domain` as it stands between the angle brackets.
    pub fn parse(text: &str, grammar: Grammar) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > PATH_OCTETS_MAX {
            return Err(AddressError::TooLong);
        }
        let at = split_at(text).ok_or(AddressError::NoDomain)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::NoDomain);
        }
        if !local_ok(local, grammar) {
            return Err(AddressError::BadLocalPart);
        }
        if !domain_ok(domain) {
            return Err(AddressError::BadDomain);
        }
        if grammar == Grammar::Strict && (domain.contains('_') || domain.ends_with('.')) {
            return Err(AddressError::LooseDomain);
        }
        // The root's dot says the same as none, and not every next hop takes it.
        let text = text.strip_suffix('.').unwrap_or(text);
        let domain_at = u16::try_from(at + 1).map_err(|_| AddressError::TooLong)?;
        Ok(Address { wire: text.into(), domain_at: Some(domain_at) })
    }

    /// A bare local part, such as `postmaster` in `RCPT TO:<postmaster>`.
    pub fn bare(local: &str, grammar: Grammar) -> Result<Self, AddressError> {
        if local.is_empty() {
            return Err(AddressError::Empty);
        }
        if local.len() > PATH_OCTETS_MAX {
            return Err(AddressError::TooLong);
        }
        if !local_ok(local, grammar) {
            return Err(AddressError::BadLocalPart);
        }
        Ok(Address { wire: local.into(), domain_at: None })
    }

    /// As given by the client, without angle brackets.
    pub fn wire(&self) -> &str {
        &self.wire
    }

    /// The part before the `@`, with its quotes where it had them.
    pub fn local(&self) -> &str {
        match self.domain_at {
            Some(at) => &self.wire[..usize::from(at) - 1],
            None => &self.wire,
        }
    }

    /// The part after the `@`; `None` for a bare name.
    pub fn domain(&self) -> Option<&str> {
        self.domain_at.map(|at| &self.wire[usize::from(at)..])
    }

    /// The wire form with its domain as A-labels (RFC 5890), for a next hop without SMTPUTF8. `None` when the local
    /// part is not ASCII: then no such form exists.
    pub fn ascii_wire(&self) -> Option<String> {
        if self.wire.is_ascii() {
            return Some(self.wire.to_string());
        }
        if !self.local().is_ascii() {
            return None;
        }
        let ascii = idna::domain_to_ascii(self.domain()?).ok()?;
        Some(format!("{}@{ascii}", self.local()))
    }

    /// Whether it can only be named with SMTPUTF8 (RFC 6531): its local part is not ASCII.
    pub fn needs_smtputf8(&self) -> bool {
        !self.local().is_ascii()
    }

    /// The one key of this mailbox: local part unquoted, NFC and lower case; domain as A-labels in lower case.
    pub fn key(&self) -> String {
        let local = unquoted(self.local());
        let local = if local.is_ascii() {
            local.to_ascii_lowercase()
        } else {
            local.nfc().collect::<String>().to_lowercase()
        };
        self.with_domain_key(local)
    }

    /// What is the same for all spellings that RFC 5321 has for one mailbox: quotes and backslashes that are not needed
    /// change nothing (section 4.1.2), nor does the case of a domain; before the @ case counts (section 2.4).
    pub fn mailbox(&self) -> String {
        self.with_domain_key(unquoted(self.local()).into_owned())
    }

    fn with_domain_key(&self, local: String) -> String {
        match self.domain() {
            None => local,
            Some(d) if d.starts_with('[') => format!("{local}@{}", d.to_ascii_lowercase()),
            Some(d) if d.is_ascii() => format!("{local}@{}", d.trim_end_matches('.').to_ascii_lowercase()),
            Some(d) => {
                format!(
                    "{local}@{}",
                    idna::domain_to_ascii(d.trim_end_matches('.')).unwrap_or_else(|_| d.to_lowercase())
                )
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wire)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.wire)
    }
}

/// The index of the `@` that parts local part and domain: the first one outside quotes.
fn split_at(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'@' if !quoted => return Some(i),
            _ => {}
        }
    }
    None
}

fn local_ok(local: &str, grammar: Grammar) -> bool {
    if local.starts_with('"') {
        return quoted_ok(local);
    }
    let atoms_ok = local.bytes().all(|b| b == b'.' || is_atext(b));
    let dots_ok = !local.starts_with('.') && !local.ends_with('.') && !local.contains("..");
    atoms_ok && (dots_ok || (grammar == Grammar::Lenient && local.bytes().any(|b| b != b'.')))
}

fn quoted_ok(local: &str) -> bool {
    let Some(inner) = local.strip_prefix('"').and_then(|l| l.strip_suffix('"')) else { return false };
    let mut escaped = false;
    for b in inner.bytes() {
        match b {
            _ if escaped => {
                if !(32..=126).contains(&b) {
                    return false;
                }
                escaped = false;
            }
            b'\\' => escaped = true,
            b'"' => return false,
            32..=126 | 128.. => {}
            _ => return false,
        }
    }
    !escaped && local.len() >= 2
}

/// RFC 5322 section 3.2.3, and any octet above ASCII (RFC 6531 section 3.3).
fn is_atext(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&b)
}

/// A host name (underscores tolerated: they occur in internal names), an IDN, or an address literal.
pub fn domain_ok(domain: &str) -> bool {
    if domain.len() > DOMAIN_OCTETS_MAX {
        return false;
    }
    if let Some(literal) = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']')) {
        return literal_ok(literal);
    }
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if !domain.is_ascii() {
        return idna::domain_to_ascii_strict(domain).is_ok();
    }
    domain.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}

fn literal_ok(literal: &str) -> bool {
    let v6 = literal.get(..5).filter(|tag| tag.eq_ignore_ascii_case("ipv6:")).map(|_| &literal[5..]);
    match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => literal.parse::<Ipv4Addr>().is_ok(),
    }
}

/// A quoted local part without its quotes and escapes; any other as it is.
fn unquoted(local: &str) -> std::borrow::Cow<'_, str> {
    let Some(inner) = local.strip_prefix('"').and_then(|l| l.strip_suffix('"')) else {
        return local.into();
    };
    let mut out = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lenient(s: &str) -> Result<Address, AddressError> {
        Address::parse(s, Grammar::Lenient)
    }

    #[test]
    fn one_mailbox_has_one_key() {
        for (spelling, key) in [
            ("User@Example.COM", "user@example.com"),
            ("\"user..name\"@example.com", "user..name@example.com"),
            ("user..name@example.com", "user..name@example.com"),
            ("\"a\\b\"@x.org", "ab@x.org"),
            ("\"a@b\"@x.org", "a@b@x.org"),
            ("ok@bücher.example.com", "ok@xn--bcher-kva.example.com"),
            ("ok@xn--bcher-kva.example.com", "ok@xn--bcher-kva.example.com"),
            ("GRÜßE@example.com", "grüße@example.com"),
            ("a@[IPv6:::1]", "a@[ipv6:::1]"),
            ("plus+tag@example.com.", "plus+tag@example.com"),
        ] {
            assert_eq!(lenient(spelling).unwrap().key(), key, "{spelling}");
        }
    }

    #[test]
    fn one_mailbox_has_many_spellings_and_case_tells_two_apart() {
        for (spelling, mailbox) in [
            ("a@b.example", "a@b.example"),
            ("\"a\"@B.Example", "a@b.example"),
            ("\"\\a\"@b.example", "a@b.example"),
            ("A@b.example", "A@b.example"),
            ("\"a b\"@b.example", "a b@b.example"),
            ("\"a\\\\b\"@b.example", "a\\b@b.example"),
            ("a@b\u{fc}cher.example", "a@xn--bcher-kva.example"),
        ] {
            assert_eq!(lenient(spelling).unwrap().mailbox(), mailbox, "{spelling}");
        }
    }

    #[test]
    fn the_grammar_refuses_what_no_mailbox_can_be() {
        for bad in [
            "",
            "a",
            "@x",
            "a@",
            "a b@x",
            "a@x y",
            "a@-x",
            "a@x..y",
            "a@b@c",
            "a@[1.2.3]",
            "\"a@x",
            "\"\"\"@x",
            "...@x",
            "a\r\n@x",
            "a@x\0",
            "a<b@x",
            "a@x>",
        ] {
            assert!(lenient(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn odd_domains_are_a_matter_of_grammar() {
        for (odd, wire) in [("a@b_c.example", "a@b_c.example"), ("a@b.example.", "a@b.example")] {
            assert_eq!(lenient(odd).unwrap().wire(), wire);
            assert_eq!(Address::parse(odd, Grammar::Strict), Err(AddressError::LooseDomain));
        }
        for bad in ["a@.", "a@b..", "a@[127.0.0.1]."] {
            assert_eq!(lenient(bad), Err(AddressError::BadDomain), "{bad}");
            assert_eq!(Address::parse(bad, Grammar::Strict), Err(AddressError::BadDomain), "{bad}");
        }
    }

    #[test]
    fn doubled_dots_are_a_matter_of_grammar() {
        for odd in ["user..name@x.jp", "user.@x.jp", ".user@x.jp"] {
            assert!(lenient(odd).is_ok());
            assert_eq!(Address::parse(odd, Grammar::Strict), Err(AddressError::BadLocalPart));
        }
    }

    #[test]
    fn a_unicode_domain_has_an_ascii_form_and_a_unicode_local_part_has_none() {
        assert_eq!(
            lenient("ok@bücher.example").unwrap().ascii_wire().as_deref(),
            Some("ok@xn--bcher-kva.example")
        );
        assert_eq!(lenient("grüße@example.com").unwrap().ascii_wire(), None);
        assert!(lenient("grüße@example.com").unwrap().needs_smtputf8());
    }

    proptest! {
        #[test]
        fn no_accepted_address_can_inject_a_command(s in "\\PC{0,40}|[ -~\\r\\n\\x00]{0,40}@[ -~\\r\\n]{0,20}") {
            if let Ok(a) = lenient(&s) {
                prop_assert!(!a.wire().bytes().any(|b| b < 32 || b == 127));
                prop_assert!(!a.domain().unwrap().contains(['<', '>', ' ']));
            }
        }

        #[test]
        fn keys_are_stable(local in "[a-zA-Z0-9.+_-]{1,20}", domain in "[a-zA-Z0-9]{1,10}\\.[a-z]{2,5}") {
            if let Ok(a) = lenient(&format!("{local}@{domain}")) {
                let again = lenient(&a.key()).map(|k| k.key());
                prop_assert_eq!(again, Ok(a.key()));
            }
        }
    }
}
