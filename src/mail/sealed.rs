//! Parts that are signed or encrypted as MIME (RFC 1847, RFC 8551, RFC 3156): they break where a message's MIME is
//! written anew.

use mail_parser::parsers::MessageStream;

use super::nested::{PartHead, find_part, named};

/// What would break, for people; of the first such part in `content`, a message or as much of its beginning as is there.
/// A message that is attached (`message/rfc822`) is a file of its own and stays as it is.
pub fn sealed(content: &[u8]) -> Option<&'static str> {
    find_part(content, |head| head.content_type.and_then(|value| kind(value, head)))
}

/// Whether a file without a type of its own is S/MIME by its name, as readers take it (RFC 8551 section 3.8): only by the
/// name that is made up for the body of a message, since papers that are signed one by one end in `.p7m` as well.
pub(super) fn is_smime(name: &str) -> bool {
    ["smime.p7m", "smime.p7z"].iter().any(|known| name.trim().eq_ignore_ascii_case(known))
}

fn kind(value: &[u8], head: &PartHead<'_>) -> Option<&'static str> {
    const SMIME: Option<&str> = Some("its S/MIME structure");
    let name =
        || head.disposition.and_then(|value| named(value, "filename")).or_else(|| named(value, "name"));
    let parsed = MessageStream::new(value).parse_content_type();
    let parsed = parsed.as_content_type()?;
    match (parsed.ctype(), parsed.subtype().unwrap_or_default()) {
        ("multipart", "signed") => Some("its signature (multipart/signed)"),
        ("multipart", "encrypted") => Some("its encryption (multipart/encrypted)"),
        ("application", "pkcs7-mime" | "x-pkcs7-mime") => SMIME,
        ("application", "octet-stream") if name().is_some_and(|name| is_smime(&name)) => SMIME,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_type(value: &str) -> String {
        format!("Subject: s\r\nContent-Type: {value}\r\n\r\n")
    }

    #[test]
    fn signed_and_encrypted_mail_is_known_by_its_type() {
        for (value, found) in [
            ("multipart/signed; protocol=\"application/pgp-signature\"", true),
            ("Multipart/Encrypted", true),
            ("application/pkcs7-mime;\r\n smime-type=enveloped-data", true),
            ("multipart/mixed; boundary=\"multipart/signed\"", false),
            ("text/plain", false),
            ("application/octet-stream; name=smime.p7m", true),
            ("Application/Octet-Stream;\r\n name=\"SMIME.P7M\"", true),
            ("application/octet-stream\r\nContent-Disposition: attachment; filename=smime.p7m", true),
            ("application/octet-stream; name=invoice.xml.p7m", false),
            ("application/pdf; name=smime.p7m", false),
        ] {
            assert_eq!(sealed(of_type(value).as_bytes()).is_some(), found, "{value}");
        }
        assert_eq!(sealed(b"Subject: s\r\n\r\nContent-Type: multipart/signed\r\n"), None);
    }

    #[test]
    fn such_a_part_is_found_wherever_it_lies() {
        let mixed = of_type("multipart/mixed; boundary=o");
        let text = "--o\r\n\r\nhello\r\n";
        for part in [
            "Content-Type: multipart/signed; boundary=i\r\n\r\n--i\r\n\r\nx\r\n--i--\r\n",
            "Content-Type: multipart/encrypted; boundary=i\r\n\r\n--i\r\n",
            "content-type: application/pkcs7-mime; name=smime.p7m\r\n\r\nMIIB",
            "Content-Type: multipart/related; boundary=i\r\n\r\n--i\r\nContent-Type: multipart/signed\r\n\r\n--i--",
        ] {
            for before in ["", text] {
                let content = format!("{mixed}{before}--o\r\n{part}\r\n--o--\r\n");
                assert!(sealed(content.as_bytes()).is_some(), "{content}");
            }
        }
        let attached =
            "Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/signed; boundary=i\r\n\r\nx";
        let words = "\r\nContent-Type: multipart/signed\r\n";
        for part in [attached, words] {
            assert_eq!(sealed(format!("{mixed}--o\r\n{part}\r\n--o--\r\n").as_bytes()), None, "{part}");
        }
    }

    #[test]
    fn parts_without_end_are_bounded() {
        let mixed = of_type("multipart/mixed; boundary=o");
        let content = format!("{mixed}{}", "--o\r\n\r\nx\r\n".repeat(5_000));
        assert_eq!(sealed(content.as_bytes()), None);
        let nested = "--o\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n".repeat(500);
        assert_eq!(sealed(format!("{mixed}{nested}").as_bytes()), None);
    }
}
