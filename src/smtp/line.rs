//! The framing of commands: only CRLF ends a line, and nothing stray passes.
//!
//! A line with a bare LF or CR or a NUL in it is refused whole, up to its CRLF: what stands behind the LF is not a
//! line of its own, so that nothing can be hidden from a filter in front of us, or from us.

/// A command with its CRLF. RFC 5321 section 4.5.3.1.4 asks for 512, the extensions for up to 1.5 times that again.
pub const COMMAND_OCTETS_MAX: usize = 4096;
/// RFC 4954 section 4: a line of AUTH.
pub const AUTH_OCTETS_MAX: usize = 12_288;
/// How much of a line that is too long is skipped before the connection is given up.
pub const SKIPPED_OCTETS_MAX: usize = 1024 * 1024;

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFault {
    /// LF without CR before it.
    BareLf,
    /// CR without LF after it, or NUL.
    Stray,
    /// Over the limit.
    TooLong,
    /// So long that it is not skipped to its end.
    Endless,
}

/// What the front of the buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A good line of so many octets, its CRLF behind it not counted.
    Line(usize),
    /// A line to refuse; `taken` octets go with it.
    Refused {
        /// Octets to drop from the buffer.
        taken: usize,
        /// Why.
        fault: LineFault,
    },
    /// No whole line yet. `taken` octets may be dropped: they belong to a line that is too long.
    More {
        /// Octets to drop from the buffer.
        taken: usize,
    },
}

/// Finds lines in a buffer, and remembers what it skips.
#[derive(Debug, Default)]
pub struct Framer {
    /// Octets of the present line that are skipped already: it is too long.
    skipped: usize,
    /// The last of them was a CR.
    skipped_cr: bool,
    /// So far into the buffer there is no LF with CR before it.
    searched: usize,
}

impl Framer {
    /// Looks at the front of `buffer`. `limit` is [`COMMAND_OCTETS_MAX`] or [`AUTH_OCTETS_MAX`].
    pub fn next(&mut self, buffer: &[u8], limit: usize) -> Frame {
        let Some(end) = self.line_end(buffer) else { return self.unended(buffer, limit) };
        let skipped = std::mem::take(&mut self.skipped);
        self.skipped_cr = false;
        self.searched = 0;
        let (line, taken) = (&buffer[..end.saturating_sub(1)], end + 1);
        if skipped > 0 || taken > limit {
            return Frame::Refused { taken, fault: LineFault::TooLong };
        }
        match fault(line) {
            Some(fault) => Frame::Refused { taken, fault },
            None => Frame::Line(line.len()),
        }
    }

    /// Whether the line at the front of `buffer`, not yet ended, has a bare LF in it: then its client may be waiting.
    pub fn waits_after_lf(&self, buffer: &[u8]) -> bool {
        buffer.last() == Some(&b'\n')
    }

    /// Gives up the line at the front, `buffer` being all that there is of it.
    pub fn give_up(&mut self) {
        *self = Framer::default();
    }

    /// The index of the LF that ends the line.
    fn line_end(&mut self, buffer: &[u8]) -> Option<usize> {
        if self.skipped_cr && self.searched == 0 && buffer.first() == Some(&b'\n') {
            return Some(0);
        }
        let from = self.searched.min(buffer.len());
        let end = memchr::memchr_iter(b'\n', &buffer[from..])
            .map(|i| from + i)
            .find(|i| *i > 0 && buffer[*i - 1] == b'\r');
        self.searched = buffer.len();
        end
    }

    fn unended(&mut self, buffer: &[u8], limit: usize) -> Frame {
        if self.skipped == 0 && buffer.len() < limit {
            return Frame::More { taken: 0 };
        }
        if let Some(last) = buffer.last() {
            self.skipped_cr = *last == b'\r';
        }
        self.skipped += buffer.len();
        self.searched = 0;
        if self.skipped > SKIPPED_OCTETS_MAX {
            return Frame::Refused { taken: buffer.len(), fault: LineFault::Endless };
        }
        Frame::More { taken: buffer.len() }
    }
}

fn fault(line: &[u8]) -> Option<LineFault> {
    let at = memchr::memchr3(b'\r', b'\n', 0, line)?;
    if line[at..].contains(&b'\n') { Some(LineFault::BareLf) } else { Some(LineFault::Stray) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::testing::pieces;
    use proptest::prelude::*;

    /// Lines and faults of `input`, arriving in pieces.
    fn frames<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        limit: usize,
    ) -> Vec<Result<Vec<u8>, LineFault>> {
        let (mut framer, mut buffer, mut out) = (Framer::default(), Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match framer.next(&buffer, limit) {
                    Frame::Line(n) => {
                        out.push(Ok(buffer[..n].to_vec()));
                        buffer.drain(..n + 2);
                    }
                    Frame::Refused { taken, fault } => {
                        out.push(Err(fault));
                        buffer.drain(..taken);
                        if fault == LineFault::Endless {
                            return out;
                        }
                    }
                    Frame::More { taken } => {
                        buffer.drain(..taken);
                        assert!(buffer.len() < limit);
                        break;
                    }
                }
            }
        }
        out
    }

    #[test]
    fn a_line_ends_at_crlf_alone() {
        use LineFault::{BareLf, Stray, TooLong};
        let long = [&vec![b'a'; 200][..], b"\r\n"].concat();
        for (input, expected) in [
            (&b"NOOP\r\nQUIT\r\n"[..], vec![Ok(b"NOOP".to_vec()), Ok(b"QUIT".to_vec())]),
            (b"NOOP\nQUIT\r\nX\r\n", vec![Err(BareLf), Ok(b"X".to_vec())]),
            (b"NO\rOP\r\nX\r\n", vec![Err(Stray), Ok(b"X".to_vec())]),
            (b"NOOP\r\r\nX\r\n", vec![Err(Stray), Ok(b"X".to_vec())]),
            (b"\nNOOP\r\n", vec![Err(BareLf)]),
            (b"NO\0OP\r\n", vec![Err(Stray)]),
            (b"\r\n", vec![Ok(vec![])]),
            (&long, vec![Err(TooLong)]),
            (b"NOOP\n", vec![]),
        ] {
            assert_eq!(frames([input], 100), expected);
            assert_eq!(frames(input.chunks(1), 100), expected);
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut framer = Framer::default();
        let piece = [b'a'; 4096];
        for _ in 0..SKIPPED_OCTETS_MAX / piece.len() {
            assert_eq!(framer.next(&piece, 4096), Frame::More { taken: 4096 });
        }
        let last = Frame::Refused { taken: 4096, fault: LineFault::Endless };
        assert_eq!(framer.next(&piece, 4096), last);
    }

    proptest! {
        #[test]
        fn splitting_changes_nothing(
            input in "[a\\r\\n\\x00]{0,60}(\\r\\n)?[a\\r\\n]{0,30}",
            cuts in proptest::collection::vec(1usize..9, 1..20),
        ) {
            let pieces = pieces(input.as_bytes(), &cuts);
            prop_assert_eq!(frames([input.as_bytes()], 16), frames(pieces, 16));
        }
    }
}
