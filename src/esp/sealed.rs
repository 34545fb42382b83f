//! Mail that breaks where its MIME is written anew: signed or encrypted structures (RFC 1847, RFC 8551, RFC 3156).

use crate::mail::headers::fields;

/// What would break, for people; read from the top of the message alone, where such structures stand.
pub(super) fn why(head: &[u8]) -> Option<&'static str> {
    let field = fields(head).find(|field| field.is("Content-Type"))?;
    let value = String::from_utf8_lossy(field.value()).to_ascii_lowercase();
    let kind = value.split(';').next().unwrap_or_default().trim();
    match kind {
        "multipart/signed" => Some("its signature (multipart/signed)"),
        "multipart/encrypted" => Some("its encryption (multipart/encrypted)"),
        "application/pkcs7-mime" | "application/x-pkcs7-mime" => Some("its S/MIME structure"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_and_encrypted_mail_is_known_by_its_type() {
        for (value, found) in [
            ("multipart/signed; protocol=\"application/pgp-signature\"", true),
            ("Multipart/Encrypted", true),
            ("application/pkcs7-mime;\r\n smime-type=enveloped-data", true),
            ("multipart/mixed; boundary=\"multipart/signed\"", false),
            ("text/plain", false),
        ] {
            let head = format!("Subject: s\r\nContent-Type: {value}\r\n\r\nx");
            assert_eq!(why(head.as_bytes()).is_some(), found, "{value}");
        }
        assert_eq!(why(b"Subject: s\r\n\r\nContent-Type: multipart/signed\r\n"), None);
    }
}
