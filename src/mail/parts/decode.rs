//! What octets stand for: transfer encodings and charsets, read strictly. Where readers would have to guess, there is
//! nothing to hand on: `None`.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use encoding_rs::{Encoding, UTF_16BE, UTF_16LE, X_USER_DEFINED};

/// Bits that are left over in the last character say nothing (RFC 4648 section 3.5).
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);
/// Within an encoded word, where mailers forget the padding and none can be mistaken.
const BASE64_WORD: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// RFC 2045 section 6.8; blanks and line ends are no content, any other octet outside the alphabet is a fault.
pub(super) fn base64(content: &[u8]) -> Option<Vec<u8>> {
    let letters: Vec<u8> =
        content.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | b' ' | b'\t')).collect();
    BASE64.decode(letters).ok()
}

/// The B encoding (RFC 2047 section 4.1).
pub(super) fn base64_word(text: &str) -> Option<Vec<u8>> {
    BASE64_WORD.decode(text).ok()
}

/// RFC 2045 section 6.7: blanks at the end of a line are no content; an octet that had to be encoded, and an `=` that
/// begins nothing, are faults.
pub(super) fn quoted_printable(content: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|b| *b == b'\n') {
        let (line, end) = match line.strip_suffix(b"\r\n") {
            Some(line) => (line, &b"\r\n"[..]),
            None => (line, &b""[..]),
        };
        let kept = line.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |last| last + 1);
        let line = &line[..kept];
        match line.strip_suffix(b"=") {
            Some(line) => quoted(line, &mut out)?,
            None => {
                quoted(line, &mut out)?;
                out.extend_from_slice(end);
            }
        }
    }
    Some(out)
}

fn quoted(line: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = line;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'=' => {
                let (pair, after) = after.split_at_checked(2)?;
                out.push(hex(pair)?);
                rest = after;
            }
            b' '..=b'~' | b'\t' => out.push(*first),
            _ => return None,
        }
    }
    Some(())
}

/// Two hexadecimal digits.
pub(super) fn hex(pair: &[u8]) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let [high, low] = pair else { return None };
    Some(digit(high)? << 4 | digit(low)?)
}

/// `content` as text; `None`: the charset is not known, or its rules are broken.
pub(super) fn text<'a>(content: Cow<'a, [u8]>, charset: &str) -> Option<Cow<'a, str>> {
    let charset = charset.trim();
    match Charset::named(charset)? {
        Charset::Ascii if !content.is_ascii() => None,
        Charset::Ascii | Charset::Utf8 => utf8(content),
        Charset::Other(encoding) => other(content, encoding),
        Charset::MarkedUtf16 => {
            let encoding = match content.get(..2)? {
                [0xff, 0xfe] => UTF_16LE,
                [0xfe, 0xff] => UTF_16BE,
                _ => return None,
            };
            let text = encoding.decode_without_bom_handling_and_without_replacement(&content[2..])?;
            Some(Cow::Owned(text.into_owned()))
        }
    }
}

enum Charset {
    Ascii,
    Utf8,
    /// UTF-16 that must say at its beginning which of the two it is (RFC 2781 section 3.3).
    MarkedUtf16,
    Other(&'static Encoding),
}

impl Charset {
    /// The names of the WHATWG Encoding Standard, as browsers and mail readers take them; but ASCII means ASCII.
    fn named(name: &str) -> Option<Charset> {
        const ASCII: [&str; 5] = ["us-ascii", "ascii", "ansi_x3.4-1968", "iso646-us", "iso-ir-6"];
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if ASCII.into_iter().any(is) {
            return Some(Charset::Ascii);
        }
        if is("utf-8") || is("utf8") {
            return Some(Charset::Utf8);
        }
        if is("utf-16") {
            return Some(Charset::MarkedUtf16);
        }
        let encoding = Encoding::for_label_no_replacement(name.as_bytes())?;
        (encoding != X_USER_DEFINED).then_some(Charset::Other(encoding))
    }
}

fn utf8(content: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    match content {
        Cow::Borrowed(octets) => std::str::from_utf8(octets).ok().map(Cow::Borrowed),
        Cow::Owned(octets) => String::from_utf8(octets).ok().map(Cow::Owned),
    }
}

fn other<'a>(content: Cow<'a, [u8]>, encoding: &'static Encoding) -> Option<Cow<'a, str>> {
    match content {
        Cow::Borrowed(octets) => encoding.decode_without_bom_handling_and_without_replacement(octets),
        Cow::Owned(octets) => encoding
            .decode_without_bom_handling_and_without_replacement(&octets)
            .map(|text| Cow::Owned(text.into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::transfer;
    use proptest::prelude::*;

    fn read(octets: &[u8], charset: &str) -> Option<String> {
        text(Cow::Borrowed(octets), charset).map(Cow::into_owned)
    }

    #[test]
    fn charsets_are_read_by_their_rules_or_not_at_all() {
        for (octets, charset, wanted) in [
            (&b"gr\xc3\xbcn"[..], "UTF-8", Some("grün")),
            (b"gr\xfcn", "utf-8", None),
            (b"plain", "US-ASCII", Some("plain")),
            (b"gr\xfcn", "us-ascii", None),
            (b"gr\xfcn", "iso-8859-1", Some("grün")),
            (b"\x93x\x94 \x80", "windows-1252", Some("“x” €")),
            (b"\xf0\xd2\xc9\xd7\xc5\xd4", "koi8-r", Some("Привет")),
            (b"\x1b$B$3$s\x1b(B", "ISO-2022-JP", Some("こん")),
            (b"\x1b$B$3\xff", "iso-2022-jp", None),
            (b"\xc4\xe3\xba\xc3", "gb18030", Some("你好")),
            (b"\x82\xb1\x82\xf1", "shift_jis", Some("こん")),
            (b"\xff\xfea\0", "utf-16", Some("a")),
            (b"\xfe\xff\0a", "utf-16", Some("a")),
            (b"a\0", "utf-16", None),
            (b"+AOQ-", "utf-7", None),
            (b"x", "iso-2022-kr", None),
            (b"x", "x-user-defined", None),
            (b"x", "no-such", None),
            (b"x", "", None),
        ] {
            assert_eq!(read(octets, charset).as_deref(), wanted, "{charset} {octets:?}");
        }
    }

    #[test]
    fn what_readers_would_have_to_guess_is_no_encoding() {
        assert_eq!(base64(b" QU\r\nJD\r\n").as_deref(), Some(&b"ABC"[..]));
        assert_eq!(base64(b"QUI=\r\n").as_deref(), Some(&b"AB"[..]));
        assert_eq!(base64(b"").as_deref(), Some(&b""[..]));
        for broken in [&b"QUI"[..], b"QUI=QUI=", b"QU-_", b"QUJD!", b"Q"] {
            assert_eq!(base64(broken), None, "{broken:?}");
        }
        for (content, wanted) in [
            (&b"a=3Db=\r\nc \t\r\nd=\r\n"[..], Some(&b"a=bc\r\nd"[..])),
            (b"a=3db= \r\nc=", Some(b"a=bc")),
            (b"=20\r\n", Some(b" \r\n")),
            (b"a=zz", None),
            (b"a=3", None),
            (b"a = b", None),
            (b"gr\xfcn", None),
        ] {
            assert_eq!(quoted_printable(content).as_deref(), wanted, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn what_we_encode_is_read_as_it_was(content in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut written = Vec::new();
            transfer::quoted_printable(&content, &mut written);
            prop_assert_eq!(quoted_printable(&written), Some(content));
        }
    }
}
