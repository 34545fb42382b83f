//! Transparency (RFC 5321 section 4.5.2): a line that starts with a dot gets another, and the content ends in
//! CRLF dot CRLF. Works on content in pieces of any cut.

use memchr::memmem;

/// Where in its lines the content stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stuffer {
    /// The last two octets that went by; content starts like after a CRLF.
    last: [u8; 2],
}

impl Default for Stuffer {
    fn default() -> Self {
        Stuffer { last: *b"\r\n" }
    }
}

impl Stuffer {
    /// Whether `piece` passes as it is. If so it counts as gone by.
    ///
    /// A dot after a bare LF is stuffed too: none should be here, and a receiver that takes it for a line end must not
    /// see an end of data.
    pub fn passes(&mut self, piece: &[u8]) -> bool {
        let clean = !self.starts_dotted(piece) && memmem::find(piece, b"\n.").is_none();
        if clean {
            self.saw(piece);
        }
        clean
    }

    /// Appends `piece`, stuffed.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.starts_dotted(piece) {
            out.push(b'.');
        }
        let mut from = 0;
        for lf in memmem::find_iter(piece, b"\n.") {
            out.extend_from_slice(&piece[from..=lf]);
            out.push(b'.');
            from = lf + 1;
        }
        out.extend_from_slice(&piece[from..]);
        self.saw(piece);
    }

    /// Appends the end of data, and the CRLF before it where the content has none.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.last != *b"\r\n" {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }

    fn starts_dotted(&self, piece: &[u8]) -> bool {
        self.last[1] == b'\n' && piece.first() == Some(&b'.')
    }

    fn saw(&mut self, piece: &[u8]) {
        match piece {
            [] => {}
            [one] => self.last = [self.last[1], *one],
            [.., a, b] => self.last = [*a, *b],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuffed(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut stuffer, mut out) = (Stuffer::default(), Vec::new());
        for piece in pieces {
            if stuffer.passes(piece) {
                out.extend_from_slice(piece);
            } else {
                stuffer.push(piece, &mut out);
            }
        }
        stuffer.finish(&mut out);
        out
    }

    /// What a strict receiver makes of it: the content, and what comes behind the end of data.
    fn received(wire: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let (mut content, mut rest) = (Vec::new(), wire);
        loop {
            let end = memmem::find(rest, b"\r\n")? + 2;
            let line = &rest[..end];
            rest = &rest[end..];
            if line == b".\r\n" {
                return Some((content, rest.to_vec()));
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
    }

    #[test]
    fn dots_are_doubled_at_line_starts_only() {
        for (content, wire) in [
            (&b""[..], &b".\r\n"[..]),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a.b\r\n..c\r\n", b"a.b\r\n...c\r\n.\r\n"),
            (b"no end", b"no end\r\n.\r\n"),
            (b"cr only\r", b"cr only\r\r\n.\r\n"),
            (b"stray\n.\r\n", b"stray\n..\r\n.\r\n"),
        ] {
            assert_eq!(stuffed(&[content]), wire, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn what_arrives_is_what_was_sent_however_it_is_cut(
            lines in proptest::collection::vec("[.a\u{fc}]{0,5}", 0..20),
            ended: bool,
            cuts in proptest::collection::vec(0usize..200, 0..6),
        ) {
            let mut content = lines.join("\r\n").into_bytes();
            if ended { content.extend_from_slice(b"\r\n"); }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(content.len())).collect();
            cuts.extend([0, content.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &content[w[0]..w[1]]).collect();
            let wire = stuffed(&pieces);
            prop_assert_eq!(&wire, &stuffed(&[&content]));
            let (mut arrived, behind) = received(&wire).unwrap();
            prop_assert!(behind.is_empty(), "the data ended early");
            if !content.is_empty() && !content.ends_with(b"\r\n") {
                prop_assert!(arrived.ends_with(b"\r\n"));
                arrived.truncate(arrived.len() - 2);
            }
            prop_assert_eq!(arrived, content);
        }
    }
}
