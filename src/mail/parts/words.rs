//! Header values as people read them: unfolded, encoded words (RFC 2047) decoded.
//!
//! What only looks like an encoded word is text and stays as it is, so that it arrives as it was sent.

use std::borrow::Cow;

use super::decode;

/// A value without its folds and its outer blanks. `None`: it is not UTF-8, or has control characters.
pub(super) fn unfolded(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.trim_matches(BLANKS);
    let text = if text.contains("\r\n") {
        Cow::Owned(text.replace("\r\n\t", " ").replace("\r\n ", " "))
    } else {
        Cow::Borrowed(text)
    };
    is_clean(&text).then_some(text)
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// Whether it may stand in a header field of a message that is built anew: a line end would begin another field.
pub(super) fn is_clean(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\t')
}

/// Text with its encoded words decoded. `None`: one of them cannot be, or it hides control characters.
pub(super) fn decoded(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if !text.contains("=?") {
        return Some(text);
    }
    let mut out = String::with_capacity(text.len());
    // Blanks since the last word, and the encoded words that only blanks parted.
    let (mut blanks, mut run): (&str, Vec<Word<'_>>) = ("", Vec::new());
    for piece in pieces(&text) {
        if piece.trim_matches(BLANKS).is_empty() {
            blanks = piece;
        } else if let Some(word) = Word::read(piece) {
            if run.is_empty() {
                out.push_str(blanks);
            }
            blanks = "";
            run.push(word);
        } else {
            put(&mut run, &mut out)?;
            out.push_str(blanks);
            blanks = "";
            out.push_str(piece);
        }
    }
    put(&mut run, &mut out)?;
    out.push_str(blanks);
    is_clean(&out).then_some(Cow::Owned(out))
}

/// Words and the blanks between them, in turn.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let blank = BLANKS.contains(&rest.chars().next()?);
        let end = rest.find(|c| BLANKS.contains(&c) != blank).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

/// An encoded word: its charset, and its octets.
struct Word<'a> {
    charset: &'a str,
    octets: Option<Vec<u8>>,
}

impl<'a> Word<'a> {
    /// `=?charset?encoding?text?=`, with a language after the charset at most (RFC 2231 section 5).
    fn read(piece: &'a str) -> Option<Word<'a>> {
        let mut fields = piece.strip_prefix("=?")?.strip_suffix("?=")?.split('?');
        let (charset, encoding, text) = (fields.next()?, fields.next()?, fields.next()?);
        if fields.next().is_some() || charset.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let octets = match encoding {
            "b" | "B" => decode::base64_word(text),
            "q" | "Q" => q_decoded(text),
            _ => return None,
        };
        let charset = charset.split('*').next().unwrap_or(charset);
        Some(Word { charset, octets })
    }

    fn text(&self) -> Option<String> {
        decode::text(Cow::Borrowed(self.octets.as_deref()?), self.charset).map(Cow::into_owned)
    }
}

/// RFC 2047 section 4.2.
fn q_decoded(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'_' => out.push(b' '),
            b'=' => {
                let (pair, after) = after.split_at_checked(2)?;
                out.push(decode::hex(pair)?);
                rest = after;
            }
            b => out.push(*b),
        }
    }
    Some(out)
}

/// The words of a run, each by itself; where that fails, those of one charset as one: mailers part a character.
fn put(run: &mut Vec<Word<'_>>, out: &mut String) -> Option<()> {
    for words in std::mem::take(run).chunk_by(|a, b| a.charset.eq_ignore_ascii_case(b.charset)) {
        let each: Option<String> = words.iter().map(Word::text).collect();
        let text = match each {
            Some(text) => text,
            None => {
                let octets: Option<Vec<&[u8]>> = words.iter().map(|w| w.octets.as_deref()).collect();
                decode::text(Cow::Owned(octets?.concat()), words[0].charset)?.into_owned()
            }
        };
        out.push_str(&text);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<String> {
        decoded(Cow::Borrowed(text)).map(Cow::into_owned)
    }

    #[test]
    fn encoded_words_are_decoded_and_what_only_looks_like_one_stays() {
        for (text, wanted) in [
            ("plain", Some("plain")),
            ("=?utf-8?Q?gr=C3=BCn_und?= blau", Some("grün und blau")),
            ("a =?utf-8?B?w7w=?=  =?ISO-8859-1*de?q?=E4?= b", Some("a üä b")),
            ("=?utf-8?B?w7w?=", Some("ü")),
            ("=?utf-8?Q?=C3?= =?UTF-8?Q?=BC?=", Some("ü")),
            ("=?iso-2022-jp?B?GyRCJDMkcxsoQg==?=", Some("こん")),
            ("x=?utf-8?Q?a?=", Some("x=?utf-8?Q?a?=")),
            ("=?utf-8?Q?a b?=", Some("=?utf-8?Q?a b?=")),
            ("=?utf-8?X?a?=", Some("=?utf-8?X?a?=")),
            ("=?utf-8?Q?=C3?=", None),
            ("=?utf-8?Q?=zz?=", None),
            ("=?utf-7?Q?a?=", None),
            ("=?utf-8?Q?a=0D=0ABcc:_b?=", None),
        ] {
            assert_eq!(read(text).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn folds_go_and_nothing_else() {
        for (value, wanted) in [
            (&b" a\r\n b\r\n\tc \r\n"[..], Some("a b c")),
            (b"a  b\tc", Some("a  b\tc")),
            (b"", Some("")),
            (b"a\rb", None),
            (b"a\nb", None),
            (b"a\0b", None),
            (b"gr\xfcn", None),
        ] {
            assert_eq!(unfolded(value).as_deref(), wanted, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd_and_no_line_end_comes_out(text in "(=\\?|utf-8|\\?[QqBb]\\?|\\?=| |=0[AD]|[a-zA-Z=]{1,4}|\\PC){0,20}") {
            if let Some(text) = read(&text) {
                prop_assert!(!text.contains(['\r', '\n']));
            }
        }
    }
}
