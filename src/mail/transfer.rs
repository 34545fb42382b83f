//! Transfer encodings as written: quoted-printable made, and quoted-printable and base64 broken into short lines.
//!
//! All three keep what a reader decodes. None begins a line with a hyphen that began no line before: it could pass for
//! a delimiter of the multipart around it.

use memchr::memmem;

use super::headers::LINE_OCTETS_MAX;
use super::splice::Sink;

/// RFC 2045 sections 6.7 and 6.8: an encoded line, without its CRLF.
pub const ENCODED_LINE_OCTETS_MAX: usize = 76;
/// Of these the last is kept for the `=` of a soft line break.
const SOFT_COLUMN_MAX: usize = ENCODED_LINE_OCTETS_MAX - 1;

/// `content` as quoted-printable. CRLF stays a line end; any other control octet, a bare CR or LF among them, is
/// encoded.
pub fn quoted_printable(content: &[u8], sink: &mut impl Sink) {
    each_line(content, |line, end| {
        let mut out = SoftLines::new(&mut *sink);
        for (i, b) in line.iter().enumerate() {
            let last = i + 1 == line.len();
            match b {
                b' ' | b'\t' if !last => out.token(&[*b]),
                b'!'..=b'~' if *b != b'=' => out.token(&[*b]),
                _ => out.token(&escaped(*b)),
            }
        }
        sink.put(end);
    });
}

/// `content`, which is quoted-printable, with soft line breaks in every line over 998 octets.
pub fn break_quoted_printable(content: &[u8], sink: &mut impl Sink) {
    each_line(content, |line, end| {
        if line.len() <= LINE_OCTETS_MAX {
            sink.put(line);
        } else {
            break_soft(line, sink);
        }
        sink.put(end);
    });
}

/// `=XX` is never parted. Blanks at the end of a line are no content (RFC 2045 section 6.7 rule 3) and go.
fn break_soft(line: &[u8], sink: &mut impl Sink) {
    let content_octets = line.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |last| last + 1);
    let mut rest = &line[..content_octets];
    let mut out = SoftLines::new(sink);
    while let Some(first) = rest.first() {
        let octets = if *first == b'=' { rest.len().min(3) } else { 1 };
        out.token(&rest[..octets]);
        rest = &rest[octets..];
    }
}

/// `content`, which is base64, with every line over 998 octets cut into lines of 76.
pub fn break_base64(content: &[u8], sink: &mut impl Sink) {
    each_line(content, |line, end| {
        if line.len() <= LINE_OCTETS_MAX {
            sink.put(line);
        } else {
            for (i, piece) in line.chunks(ENCODED_LINE_OCTETS_MAX).enumerate() {
                sink.put(if i == 0 { b"" } else { b"\r\n" });
                sink.put(piece);
            }
        }
        sink.put(end);
    });
}

/// Whether a line has nothing but what base64 is written with.
pub fn is_base64_line(line: &[u8]) -> bool {
    line.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b' ' | b'\t'))
}

/// Each line and its CRLF; what follows the last CRLF comes with an empty end.
fn each_line(content: &[u8], mut line: impl FnMut(&[u8], &'static [u8])) {
    let mut at = 0;
    for end in memmem::find_iter(content, b"\r\n") {
        line(&content[at..end], b"\r\n");
        at = end + 2;
    }
    line(&content[at..], b"");
}

fn escaped(b: u8) -> [u8; 3] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    [b'=', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]
}

/// Tokens of one line, with a soft line break before each that would reach past the limit.
struct SoftLines<'a, S> {
    sink: &'a mut S,
    column: usize,
}

impl<'a, S: Sink> SoftLines<'a, S> {
    fn new(sink: &'a mut S) -> Self {
        SoftLines { sink, column: 0 }
    }

    fn token(&mut self, token: &[u8]) {
        if self.column + token.len() > SOFT_COLUMN_MAX {
            self.sink.put(b"=\r\n");
            self.column = 0;
            if token == b"-" {
                return self.put(&escaped(b'-'));
            }
        }
        self.put(token);
    }

    fn put(&mut self, token: &[u8]) {
        self.sink.put(token);
        self.column += token.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::decoders::quoted_printable::quoted_printable_decode;
    use proptest::prelude::*;

    fn written(write: impl Fn(&[u8], &mut Vec<u8>), content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(content, &mut out);
        out
    }

    fn lines(octets: &[u8]) -> impl Iterator<Item = &[u8]> {
        octets.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l))
    }

    #[test]
    fn what_cannot_travel_is_escaped_and_nothing_else() {
        for (content, encoded) in [
            (&b"plain text\r\n"[..], &b"plain text\r\n"[..]),
            (b"a=b\r\n", b"a=3Db\r\n"),
            (b"end \r\n\t\r\nend\t", b"end=20\r\n=09\r\nend=09"),
            (b"gr\xc3\xbcn\x00\x7f\r\n", b"gr=C3=BCn=00=7F\r\n"),
            (b"a\rb\nc\r\n", b"a=0Db=0Ac\r\n"),
            (b"\r\n\r\n", b"\r\n\r\n"),
        ] {
            assert_eq!(written(quoted_printable, content), encoded);
        }
    }

    #[test]
    fn a_soft_break_never_makes_a_delimiter() {
        let out = written(quoted_printable, &[&b"x".repeat(75)[..], b"--boundary--"].concat());
        assert_eq!(out, [&b"x".repeat(75)[..], b"=\r\n=2D-boundary--"].concat());
        assert_eq!(written(quoted_printable, b"--x"), b"--x");
    }

    #[test]
    fn base64_on_one_line_becomes_lines_of_76() {
        let line = b"QUJD".repeat(300);
        let out = written(break_base64, &[&line[..], b"\r\nQUI=\r\n"].concat());
        assert!(lines(&out).all(|l| l.len() <= 76));
        assert_eq!(lines(&out).collect::<Vec<_>>().concat(), [&line[..], b"QUI="].concat());
        assert!(is_base64_line(&line) && !is_base64_line(b"QUJD-"));
    }

    #[test]
    fn quoted_printable_without_soft_breaks_gets_them_between_its_tokens() {
        let line = [&b"=C3=BC- ".repeat(200)[..], b"  =\r\nnext \r\n"].concat();
        let out = written(break_quoted_printable, &line);
        assert!(lines(&out).all(|l| l.len() <= 76 && !l.starts_with(b"-")));
        assert_eq!(quoted_printable_decode(&out), quoted_printable_decode(&line));
        assert_eq!(written(break_quoted_printable, b"short =\r\n"), b"short =\r\n");
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_itself(
            content in prop::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(b'='), Just(b'-'), Just(b'a')], 0..400),
            crlf_at in prop::collection::vec(0_usize..400, 0..6),
        ) {
            let mut content: Vec<u8> = content.into_iter().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
            for at in crlf_at {
                let at = at.min(content.len());
                content.splice(at..at, *b"\r\n");
            }
            // A CRLF may have been put within another; then a bare one is left, which the decoder cannot tell.
            prop_assume!(!String::from_utf8_lossy(&content).replace("\r\n", "").contains(['\r', '\n']));
            let out = written(quoted_printable, &content);
            prop_assert!(lines(&out).all(|l| l.len() <= ENCODED_LINE_OCTETS_MAX));
            prop_assert!(lines(&out).all(|l| !l.ends_with(b" ") && !l.ends_with(b"\t")));
            prop_assert!(out.iter().all(|b| matches!(b, b'\t' | b'\r' | b'\n' | b' '..=b'~')));
            prop_assert_eq!(quoted_printable_decode(&out), Some(content));
        }

        #[test]
        fn broken_lines_decode_alike(tokens in prop::collection::vec("[a-zA-Z .\\t-]{1,4}|=[0-9A-F]{2}", 30..40)) {
            let line = format!("{}\r\n", tokens.concat().repeat(20));
            let out = written(break_quoted_printable, line.as_bytes());
            prop_assert!(line.len() <= LINE_OCTETS_MAX + 2 || lines(&out).all(|l| l.len() <= ENCODED_LINE_OCTETS_MAX));
            prop_assert_eq!(quoted_printable_decode(&out), quoted_printable_decode(line.as_bytes()));
        }
    }
}
