//! Which header fields a signature on a message covers, by their names alone: nothing is verified here.
//!
//! A signer may name a field that the message does not have, so that nobody can add one later (RFC 6376 section 5.4).
//! The relay then does not add it either: the signature would break.

use super::headers::Field;

/// The signatures of RFC 6376 and RFC 8617 over header fields; both name these in `h=`.
const SIGNATURES: [&str; 2] = ["DKIM-Signature", "ARC-Message-Signature"];

/// Whether `field` is a signature that covers the fields of that name, there or not.
pub fn covers(field: &Field<'_>, name: &str) -> bool {
    SIGNATURES.iter().any(|signature| field.is(signature))
        && covered(field.value()).any(|covered| covered.eq_ignore_ascii_case(name.as_bytes()))
}

/// The names in `h=` of a tag list (RFC 6376 section 3.2).
fn covered(tags: &[u8]) -> impl Iterator<Item = &[u8]> {
    tags.split(|b| *b == b';')
        .filter_map(of_h)
        .flat_map(|names| names.split(|b| *b == b':'))
        .map(<[u8]>::trim_ascii)
}

/// The value of a tag that is `h`; tag names are case-sensitive.
fn of_h(tag: &[u8]) -> Option<&[u8]> {
    let equals = tag.iter().position(|b| *b == b'=')?;
    (tag[..equals].trim_ascii() == b"h").then_some(&tag[equals + 1..])
}

#[cfg(test)]
mod tests {
    use super::super::headers::Fields;
    use super::*;

    fn date_is_covered(field: &str) -> bool {
        Fields::new(field.as_bytes(), 0).any(|field| covers(&field, "Date"))
    }

    #[test]
    fn a_name_in_h_is_covered_however_it_is_folded_and_spelled() {
        for field in [
            "DKIM-Signature: v=1; h=from:date; b=x\r\n",
            "dkim-signature : v=1;\r\n h = From\r\n : DATE\r\n\t:To;\r\n b=x\r\n",
            "DKIM-Signature: h=date\r\n",
            "ARC-Message-Signature: i=1; h=from:date:date; b=x\r\n",
        ] {
            assert!(date_is_covered(field), "{field}");
        }
    }

    #[test]
    fn what_only_looks_like_it_covers_nothing() {
        for field in [
            "DKIM-Signature: v=1; h=from:to; b=date\r\n",
            "DKIM-Signature: v=1; bh=date; z=date:x; H=date\r\n",
            "DKIM-Signature: v=1; h=resent-date:dates:\r\n",
            "DKIM-Signature: date\r\n",
            "DKIM-Signature:\r\n",
            "X-DKIM-Signature: h=date\r\n",
            "Subject: h=date\r\n",
        ] {
            assert!(!date_is_covered(field), "{field}");
        }
    }
}
