//! A secret that does not print: passwords, keys and tokens from configuration to the wire.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    /// In base64: so much of its beginning is no chance either.
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

    /// Blots out these keys.
    pub fn of_keys<'s>(keys: impl IntoIterator<Item = &'s Secret>) -> Self {
        let long_enough = |secret: &&Secret| secret.expose().len() >= Self::OCTETS_MIN;
        let plain: Vec<Secret> = keys.into_iter().filter(long_enough).cloned().collect();
        let encoded = plain.iter().map(|key| Secret::new(STANDARD.encode(key.expose()))).collect();
        Blot { plain, encoded }
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
            let secret = secret.expose();
            let mut cuts = (Self::CUT_OCTETS_MIN..secret.len()).rev();
            if let Some(cut) = cuts.find(|at| clean.ends_with(&secret[..*at])) {
                let kept = clean.len() - cut;
                clean = Cow::Owned(format!("{}***", &clean[..kept]));
            }
        }
        clean
    }
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
    fn debug_shows_stars() {
        let s = Secret::new("hunter2");
        assert_eq!(format!("{s:?}"), "***");
        assert!(s.matches(b"hunter2"));
        assert!(!s.matches(b"hunter"));
    }
}
