//! Parts that are signed or encrypted as MIME (RFC 1847, RFC 8551, RFC 3156): they break where a message's MIME is
//! written anew.

use std::ops::Range;

use mail_parser::parsers::MessageStream;

use super::headers::{Fields, fields};
use super::mime::{DEPTH_MAX, PARTS_MAX, parts};

/// What would break, for people; of the first such part in `content`, a message or as much of its beginning as is there.
/// A message that is attached (`message/rfc822`) is a file of its own and stays as it is.
pub fn sealed(content: &[u8]) -> Option<&'static str> {
    let mut walk = vec![(0..content.len(), 0)];
    let mut seen = 0;
    while let Some((span, depth)) = walk.pop() {
        let (kind, body) = read(content, &span);
        let boundary = match kind {
            Kind::Sealed(what) => return Some(what),
            Kind::Multipart(boundary) if depth < DEPTH_MAX => boundary,
            Kind::Multipart(_) | Kind::Other => continue,
        };
        let found = parts(content, &body, &boundary);
        seen += found.len();
        // Past the bound the last one found is no part, see `parts`.
        if seen > PARTS_MAX {
            return None;
        }
        walk.extend(found.into_iter().rev().map(|part| (part, depth + 1)));
    }
    None
}

enum Kind {
    Sealed(&'static str),
    Multipart(Vec<u8>),
    Other,
}

/// What a header block says of its body, and where that is.
fn read(content: &[u8], span: &Range<usize>) -> (Kind, Range<usize>) {
    let mut fields = match span.start {
        0 => fields(content),
        at => Fields::new(&content[..span.end], at),
    };
    let mut said = None;
    for field in fields.by_ref() {
        if field.is("Content-Type") {
            said.get_or_insert_with(|| kind(field.value()));
        }
    }
    (said.unwrap_or(Kind::Other), fields.end().body_at..span.end)
}

fn kind(value: &[u8]) -> Kind {
    let parsed = MessageStream::new(value).parse_content_type();
    let Some(parsed) = parsed.as_content_type() else { return Kind::Other };
    match (parsed.ctype(), parsed.subtype().unwrap_or_default()) {
        ("multipart", "signed") => Kind::Sealed("its signature (multipart/signed)"),
        ("multipart", "encrypted") => Kind::Sealed("its encryption (multipart/encrypted)"),
        ("application", "pkcs7-mime" | "x-pkcs7-mime") => Kind::Sealed("its S/MIME structure"),
        ("multipart", _) => match parsed.attribute("boundary") {
            Some(boundary) if !boundary.is_empty() => Kind::Multipart(boundary.as_bytes().to_vec()),
            _ => Kind::Other,
        },
        _ => Kind::Other,
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
