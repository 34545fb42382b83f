//! Every reply the server gives: code, enhanced code (RFC 3463) and a text that tells the app's owner what to do.

use std::borrow::Cow;
use std::fmt::Write as _;

/// RFC 5321 section 4.5.3.1.5: a reply line is at most 512 octets with its CRLF.
const LINE_OCTETS_MAX: usize = 510;

/// One reply. Its texts are ours, or cleaned of control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// RFC 3463; its class digit equals the code's (RFC 2034 section 4).
    pub enhanced: Option<(u8, u16, u16)>,
    /// Without codes; one or more lines.
    pub text: Cow<'static, str>,
    /// The connection ends after it.
    pub close: bool,
}

impl Reply {
    /// A reply with an enhanced code.
    pub const fn new(code: u16, enhanced: (u8, u16, u16), text: &'static str) -> Self {
        Reply { code, enhanced: Some(enhanced), text: Cow::Borrowed(text), close: false }
    }

    /// A reply whose text names something of the client's; control characters in it become `?`.
    pub fn told(code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        if text.chars().any(|c| c.is_control() && c != '\n') {
            text = text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
        }
        Reply { code, enhanced: Some(enhanced), text: Cow::Owned(text), close: false }
    }

    /// The same, and the connection ends after it.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// 2xx or 3xx.
    pub fn positive(&self) -> bool {
        self.code < 400
    }

    /// As it goes over the wire.
    pub fn wire(&self) -> String {
        let mut out = String::with_capacity(self.text.len() + 16);
        let mut lines = self.text.lines().peekable();
        if lines.peek().is_none() {
            self.line(&mut out, "", true);
        }
        while let Some(line) = lines.next() {
            self.line(&mut out, line, lines.peek().is_none());
        }
        out
    }

    fn line(&self, out: &mut String, text: &str, last: bool) {
        let start = out.len();
        let _ = write!(out, "{}{}", self.code, if last { ' ' } else { '-' });
        if let Some((a, b, c)) = self.enhanced {
            let _ = write!(out, "{a}.{b}.{c} ");
        }
        let mut end = text.len().min((start + LINE_OCTETS_MAX).saturating_sub(out.len()));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        out.push_str(&text[..end]);
        out.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_bounded() {
        let r = Reply::told(550, (5, 1, 1), format!("one\ntwo {}", "é".repeat(400)));
        let wire = r.wire();
        let lines: Vec<_> = wire.split_inclusive("\r\n").collect();
        assert_eq!(lines[0], "550-5.1.1 one\r\n");
        assert!(lines[1].starts_with("550 5.1.1 two é"));
        assert!(lines.iter().all(|l| l.len() <= 512));
    }

    #[test]
    fn nothing_of_the_client_s_ends_a_line() {
        assert_eq!(Reply::told(501, (5, 5, 4), "a\r250 ok\0").wire(), "501 5.5.4 a?250 ok?\r\n");
    }
}
