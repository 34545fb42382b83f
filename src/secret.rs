//! A secret that does not print: passwords, keys and tokens from configuration to the wire.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// Text that must not be seen: `Debug` prints stars, there is no `Display`, memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes the text in.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(SecretString::from(text.into()))
    }

    /// The text itself, for the one line that puts it on the wire.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether `other` is the same text, in a time that depends on the lengths alone.
    pub fn matches(&self, other: &[u8]) -> bool {
        bool::from(self.expose().as_bytes().ct_eq(other))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Two secrets are equal when their texts are; compared in constant time. For finding what a reload changed.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.expose().as_bytes())
    }
}

/// Blots secrets out of what a stranger says: an upstream may echo what it was sent, and its words are kept and shown.
#[derive(Clone, Default)]
pub struct Blot {
    /// As they are.
    plain: Vec<Secret>,
    /// Encoded, or long and random: so much of its beginning is no chance either.
    encoded: Vec<Secret>,
}

impl Blot {
    /// Fewer octets of a secret than these are not known for it: they are in any text.
    const OCTETS_MIN: usize = 4;
    /// Of one in base64 whose end was cut off with the text's.
    const CUT_OCTETS_MIN: usize = 8;

    /// Blots out the password and every form in which AUTH PLAIN and LOGIN send it.
    pub fn of_login(username: &str, password: &Secret) -> Self {
        let plain = format!("\0{username}\0{}", password.expose());
        let encoded = [STANDARD.encode(&plain), STANDARD.encode(password.expose())];
        let long_enough = |secret: &Secret| secret.expose().len() >= Self::OCTETS_MIN;
        Blot {
            plain: std::iter::once(password.clone()).filter(long_enough).collect(),
            encoded: encoded.into_iter().map(Secret::new).filter(long_enough).collect(),
        }
    }

    /// Blots out secrets that are sent as they are, in a form of the web, and inside of anything in base64.
    pub fn of_all<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let mut blot = Blot::default();
        for secret in secrets {
            let text = secret.expose();
            for form in [text.to_owned(), form_encoded(text)] {
                if form.len() >= Self::CUT_OCTETS_MIN {
                    blot.encoded.push(Secret::new(form));
                } else if form.len() >= Self::OCTETS_MIN {
                    blot.plain.push(Secret::new(form));
                }
            }
            let inside = inside_base64(text).filter(|form| form.len() >= Self::CUT_OCTETS_MIN);
            blot.encoded.extend(inside.map(Secret::new));
        }
        // What is a part of another goes after it.
        blot.encoded.sort_by_key(|form| std::cmp::Reverse(form.expose().len()));
        blot
    }

    /// The text with stars for each secret.
    pub fn out<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut clean = Cow::Borrowed(text);
        for secret in self.plain.iter().chain(&self.encoded) {
            if clean.contains(secret.expose()) {
                clean = Cow::Owned(clean.replace(secret.expose(), "***"));
            }
        }
        for secret in &self.encoded {
            let secret = secret.expose().as_bytes();
            let mut cuts = (Self::CUT_OCTETS_MIN..secret.len().min(clean.len() + 1)).rev();
            if let Some(cut) = cuts.find(|at| clean.as_bytes().ends_with(&secret[..*at])) {
                let kept = clean.len() - cut;
                clean = Cow::Owned(format!("{}***", &clean[..kept]));
            }
        }
        clean
    }
}

/// As `application/x-www-form-urlencoded` writes it.
pub fn form_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                out.push(char::from(octet))
            }
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{octet:02X}")),
        }
    }
    out
}

/// What stands for `text` in the base64 of anything that it is a part of: it begins at one of three places in a group of
/// octets. Characters that tell of its neighbours too are left out.
fn inside_base64(text: &str) -> impl Iterator<Item = String> + '_ {
    let at = |place: usize| {
        let octets = [&[0; 2][..place], text.as_bytes()].concat();
        let whole = octets.len() * 4 / 3;
        let inner = move |encoded: String| encoded[(place * 4).div_ceil(3).min(whole)..whole].to_owned();
        [inner(STANDARD_NO_PAD.encode(&octets)), inner(URL_SAFE_NO_PAD.encode(&octets))]
    };
    let mut forms: Vec<String> = (0..3).flat_map(at).collect();
    forms.dedup();
    forms.into_iter()
}

impl std::fmt::Debug for Blot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blot")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_upstream_echoes_is_blotted_out_in_every_form() {
        let blot = Blot::of_login("shop", &Secret::new("hunter2!"));
        for (said, shown) in [
            ("bad login: hunter2!", "bad login: ***"),
            ("AUTH PLAIN AHNob3AAaHVudGVyMiE= refused", "AUTH PLAIN *** refused"),
            ("got aHVudGVyMiE=", "got ***"),
            ("AUTH PLAIN AHNob3AAaHVu", "AUTH PLAIN ***"),
            ("bad login for shop", "bad login for shop"),
            ("send me to the hunter", "send me to the hunter"),
        ] {
            assert_eq!(blot.out(said), shown);
        }
        assert_eq!(Blot::of_login("a", &Secret::new("b")).out("a b"), "a b", "too short to be known");
        assert!(!format!("{blot:?}").contains("hunter"));
    }

    #[test]
    fn a_token_is_blotted_out_of_whatever_it_was_part_of() {
        let token = "ya29.a0Af/H6SMBx-long_and~random+0123456789";
        let blot = Blot::of_all([&Secret::new(token), &Secret::new("s h/h")]);
        for user in ["a@example.org", "ab@example.org", "abc@example.org"] {
            let response = STANDARD.encode(format!("user={user}\x01auth=Bearer {token}\x01\x01"));
            let shown = blot.out(&response).into_owned();
            assert!(shown.contains("***") && shown.len() < 60, "{shown}");
            for cut in 60..response.len() {
                let shown = blot.out(&response[..cut]).into_owned();
                assert!(shown.len() < 60, "{shown}");
            }
        }
        for (said, shown) in [
            (token.to_owned(), "***"),
            (format!("bad token {}", &token[..20]), "bad token ***"),
            ("client_secret=s+h%2Fh&x=1".into(), "client_secret=***&x=1"),
            ("the s h/h".into(), "the ***"),
            (form_encoded(token), "***"),
            ("ya29".into(), "ya29"),
        ] {
            assert_eq!(blot.out(&said), shown);
        }
    }

    #[test]
    fn a_form_of_the_web_keeps_what_is_plain() {
        assert_eq!(
            form_encoded("https://a.example/.default offline"),
            "https%3A%2F%2Fa.example%2F.default+offline"
        );
        assert_eq!(form_encoded("~\u{fc}*-._"), "%7E%C3%BC*-._");
    }

    #[test]
    fn debug_shows_stars() {
        let s = Secret::new("hunter2");
        assert_eq!(format!("{s:?}"), "***");
        assert!(s.matches(b"hunter2"));
        assert!(!s.matches(b"hunter"));
    }
}
