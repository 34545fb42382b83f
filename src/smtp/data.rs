//! The content of a message: where it ends, its dots unstuffed, what is stray in it, and facts of its headers.
//!
//! Only `CRLF . CRLF` ends it, wherever segments are cut and whatever else is wrong with it (STANDARDS §1.4). The
//! reference in the tests is one line: cut `CRLF + input` at the first `CRLF . CRLF`.
//!
//! Where bare line ends are taken as CRLF, a dot behind one was stuffed like any other. A line that is one dot and not
//! the end keeps it: nobody stuffed that.

use super::BareNewline;
use crate::mail::BodyFacts;

/// RFC 5321 section 6.3 wants at least 100 to be told a loop from a long way; Postfix uses 50.
pub const RECEIVED_FIELDS_MAX: usize = 50;

/// Where the decoder stands. What it holds back (`Cr`, `CrCr`, `Dot`, `DotCr`, `BareDot`) is not yet in the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Behind a CRLF, or at the very start.
    LineStart,
    /// Within a line.
    Text,
    /// A CR is held.
    Cr,
    /// CR CR are held.
    CrCr,
    /// A dot at the start of a line is held.
    Dot,
    /// Dot and CR at the start of a line are held.
    DotCr,
    /// Behind a bare line end that was made whole.
    BareStart,
    /// A dot there is held: whatever comes, it does not begin an end.
    BareDot,
}

/// What was found in the content that may not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stray {
    /// LF without CR before it.
    pub lf: bool,
    /// CR without LF after it.
    pub cr: bool,
    /// NUL.
    pub nul: bool,
}

/// Reads content piece by piece.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    normalize: bool,
    line_octets: u64,
    facts: BodyFacts,
    stray: Stray,
}

/// Where content goes.
pub trait Sink {
    /// Takes some of it.
    fn put(&mut self, octets: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, octets: &[u8]) {
        self.extend_from_slice(octets);
    }
}

/// Content that is given up goes here; its end is still looked for.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Sink for Nowhere {
    fn put(&mut self, _: &[u8]) {}
}

/// What [`Decoder::feed`] did with its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// So much of the input belongs to the content and its end.
    pub taken: usize,
    /// The end was among it.
    pub ended: bool,
}

impl Decoder {
    /// One for a message.
    pub fn new(bare_newline: BareNewline) -> Self {
        Decoder {
            state: State::LineStart,
            normalize: bare_newline == BareNewline::Normalize,
            line_octets: 0,
            facts: BodyFacts::default(),
            stray: Stray::default(),
        }
    }

    /// Decodes `input` into `out`: at most its length and four octets more, where bare line ends are made whole at most
    /// twice that. Behind the end nothing is taken.
    pub fn feed(&mut self, input: &[u8], out: &mut impl Sink) -> Fed {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::LineStart if input[at] == b'.' => {
                    self.state = State::Dot;
                    at += 1;
                }
                State::BareStart if input[at] == b'.' => {
                    self.state = State::BareDot;
                    at += 1;
                }
                State::LineStart | State::BareStart | State::Text => at += self.text(&input[at..], out),
                State::Cr | State::CrCr => at += self.after_cr(input[at], out),
                State::Dot if input[at] == b'\r' => {
                    self.state = State::DotCr;
                    at += 1;
                }
                State::Dot | State::BareDot => {
                    // With more of a line behind it the dot was stuffed and goes (RFC 5321 section 4.5.2).
                    self.lone_dot(matches!(input[at], b'\r' | b'\n'), out);
                    self.state = State::Text;
                }
                State::DotCr if input[at] == b'\n' => return Fed { taken: at + 1, ended: true },
                State::DotCr => {
                    self.lone_dot(true, out);
                    self.state = State::Cr;
                }
            }
        }
        Fed { taken: at, ended: false }
    }

    /// Copies up to the next CR, LF or NUL and deals with that; gives how much it took.
    fn text(&mut self, input: &[u8], out: &mut impl Sink) -> usize {
        let run = memchr::memchr3(b'\r', b'\n', 0, input).unwrap_or(input.len());
        if run > 0 {
            out.put(&input[..run]);
            self.facts.size_octets += run as u64;
            self.facts.eight_bit |= !input[..run].is_ascii();
            self.line_octets += run as u64;
            self.state = State::Text;
        }
        match input.get(run) {
            None => return run,
            Some(b'\r') => self.state = State::Cr,
            Some(b'\n') => {
                self.stray.lf = true;
                self.bare(out);
            }
            Some(_) => {
                self.stray.nul = true;
                self.state = State::Text;
            }
        }
        run + 1
    }

    /// A CR or two are held and `octet` follows; gives whether it was taken.
    fn after_cr(&mut self, octet: u8, out: &mut impl Sink) -> usize {
        match (octet, self.state) {
            (b'\n', _) => {
                self.line_end(out);
                self.state = State::LineStart;
                1
            }
            // CR CR LF is what a text-mode stream makes of CRLF: one line end, not two.
            (b'\r', State::CrCr) => {
                self.bare(out);
                self.state = State::CrCr;
                1
            }
            (b'\r', _) => {
                self.stray.cr = true;
                self.state = State::CrCr;
                1
            }
            (_, held) => {
                self.stray.cr = true;
                if held == State::CrCr {
                    self.bare(out);
                }
                self.bare(out);
                0
            }
        }
    }

    /// The dot that was held is the whole line where that `ends` here.
    fn lone_dot(&mut self, ends: bool, out: &mut impl Sink) {
        if ends && self.normalize {
            out.put(b".");
            self.facts.size_octets += 1;
            self.line_octets += 1;
        }
    }

    /// A bare CR or LF: a line end where it is made whole, but none that an end of the message can begin with.
    fn bare(&mut self, out: &mut impl Sink) {
        self.state = State::Text;
        if self.normalize {
            self.line_end(out);
            self.state = State::BareStart;
        }
    }

    fn line_end(&mut self, out: &mut impl Sink) {
        out.put(b"\r\n");
        self.facts.size_octets += 2;
        self.facts.longest_line_octets = self.facts.longest_line_octets.max(self.line_octets);
        self.line_octets = 0;
    }

    /// What was seen so far. At the end every line has its CRLF.
    pub fn facts(&self) -> BodyFacts {
        let longest_line_octets = self.facts.longest_line_octets.max(self.line_octets);
        BodyFacts { longest_line_octets, ..self.facts }
    }

    /// What should not be there.
    pub fn stray(&self) -> Stray {
        self.stray
    }

    /// Whether the content can no longer be accepted, so that it need not be kept.
    pub fn spoilt(&self) -> bool {
        self.stray.nul || (!self.normalize && (self.stray.lf || self.stray.cr))
    }
}

/// What the header block of a message shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderFacts {
    /// `Received:` fields.
    pub received: usize,
    /// The blank line behind the headers is there.
    pub complete: bool,
}

/// Looks at the header block on top of `content`.
pub fn header_facts(content: &[u8]) -> HeaderFacts {
    let mut facts = HeaderFacts::default();
    let mut rest = content;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line == b"\r" {
            facts.complete = true;
            break;
        }
        facts.received += usize::from(is_received(line));
    }
    facts
}

fn is_received(line: &[u8]) -> bool {
    const NAME: &[u8] = b"received";
    line.split_at_checked(NAME.len()).is_some_and(|(name, rest)| {
        name.eq_ignore_ascii_case(NAME) && rest.trim_ascii_start().first() == Some(&b':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::testing::pieces;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Decoded {
        content: Vec<u8>,
        taken: usize,
        ended: bool,
        stray: Stray,
        facts: BodyFacts,
    }

    fn decode<'a>(mode: BareNewline, pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
        let (mut decoder, mut content, mut taken, mut ended) = (Decoder::new(mode), Vec::new(), 0, false);
        for piece in pieces {
            let before = content.len();
            let fed = decoder.feed(piece, &mut content);
            assert!(content.len() - before <= 2 * piece.len() + 4);
            taken += fed.taken;
            if fed.ended {
                ended = true;
                break;
            }
            assert_eq!(fed.taken, piece.len());
        }
        Decoded { content, taken, ended, stray: decoder.stray(), facts: decoder.facts() }
    }

    /// The standard in its own words, over the whole input at once.
    fn reference(input: &[u8]) -> Option<(Vec<u8>, usize)> {
        let whole = [b"\r\n", input].concat();
        let end = memchr::memmem::find(&whole, b"\r\n.\r\n")?;
        let mut content = Vec::new();
        let mut rest = &whole[2..(end + 2).max(2)];
        while !rest.is_empty() {
            let next = memchr::memmem::find(rest, b"\r\n").map_or(rest.len(), |i| i + 2);
            let line = &rest[..next];
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            rest = &rest[next..];
        }
        Some((content, end + 3))
    }

    #[test]
    fn an_ordinary_message_is_unstuffed() {
        let d = decode(BareNewline::Reject, [&b"A: b\r\n\r\n..x\r\n.y\r\n...\r\n.\r\nQUIT\r\n"[..]]);
        assert_eq!(d.content, b"A: b\r\n\r\n.x\r\ny\r\n..\r\n");
        assert!(d.ended);
        assert_eq!(d.taken, 25);
        assert_eq!(d.facts, BodyFacts { size_octets: 19, longest_line_octets: 4, eight_bit: false });
        assert_eq!(d.stray, Stray::default());
    }

    #[test]
    fn an_empty_message_ends_at_once() {
        let d = decode(BareNewline::Reject, [&b".\r\nNOOP\r\n"[..]]);
        assert_eq!((d.content.len(), d.taken, d.ended), (0, 3, true));
    }

    /// STANDARDS §1.4, each as written there.
    const SMUGGLING: [&[u8]; 13] = [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r.\n",
        b"\n.\r",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n.\r\r\n",
        b"\n\n.\r\n",
        b"\r\0\n.\r\n",
    ];

    #[test]
    fn no_smuggling_sequence_ends_a_message_or_goes_unnoticed() {
        let after = b"MAIL FROM:<evil@x.org>\r\n";
        for sequence in SMUGGLING {
            for before in [&b""[..], b"Subject: x", b"Subject: x\r\n\r\nbody", b"a\r\n"] {
                let input = [before, sequence, after, b".\r\n"].concat();
                for mode in [BareNewline::Reject, BareNewline::Normalize] {
                    let whole = decode(mode, [&input[..]]);
                    let bytes = decode(mode, input.chunks(1));
                    assert_eq!(whole, bytes, "{sequence:?}");
                    assert!(whole.ended && whole.taken == input.len(), "{sequence:?} after {before:?}");
                    let s = whole.stray;
                    assert!(s.lf || s.cr || s.nul, "{sequence:?} unnoticed");
                }
            }
        }
    }

    #[test]
    fn as_first_octets_they_do_not_end_it_either() {
        for first in [&b".\n"[..], b".\r", b".\0\r\n", b".\r\r\n", b"\n.\r\n", b"\r.\r\n"] {
            let input = [first, b"x\r\n.\r\n"].concat();
            let d = decode(BareNewline::Reject, [&input[..]]);
            assert!(d.ended && d.taken == input.len(), "{first:?}");
        }
    }

    #[test]
    fn normalized_content_has_nothing_bare_and_its_dots_are_unstuffed() {
        for (input, content) in [
            (&b"a\nb\r\n.\r\n"[..], &b"a\r\nb\r\n"[..]),
            (b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
            (b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
            (b"a\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
            (b"a\n.b\n..\n...\r\n.\r\n", b"a\r\nb\r\n.\r\n..\r\n"),
            (b"a\r..b\r\n.\r\n", b"a\r\n.b\r\n"),
            (b"a\n\n..b\r\n.\r\n", b"a\r\n\r\n.b\r\n"),
            (b"..a\n..b\r\n.\r\n", b".a\r\n.b\r\n"),
            (b"a\n.\r\n.\r\n", b"a\r\n.\r\n"),
            (b"a\r\n.\r\r\n.\r\n", b"a\r\n.\r\n"),
            (b"a\r\r.\r\nb\r\n.\r\n", b"a\r\n\r\n.\r\nb\r\n"),
            (b"a\rb\r\n.\r\n", b"a\r\nb\r\n"),
            (b"a\r\rb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
            (b"a\r\r\nb\r\n.\r\n", b"a\r\nb\r\n"),
            (b"a\r\r\r\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
            (b"a\r\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
            (b"a\r\n.\rb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
            (b"a\r\n.\r..b\r\n.\r\n", b"a\r\n.\r\n.b\r\n"),
            (b"\n\r\n.\r\n", b"\r\n\r\n"),
        ] {
            let d = decode(BareNewline::Normalize, [input]);
            assert_eq!(d.content, content, "{:?}", String::from_utf8_lossy(input));
            assert!(d.ended);
            assert_eq!(d.facts.size_octets, content.len() as u64);
        }
    }

    #[test]
    fn received_fields_are_counted_in_the_header_block_only() {
        let h = header_facts(
            b"Received: a\r\n\tReceived: no\r\nRECEIVED : b\r\nReceivedX: c\r\n\r\nReceived: body\r\n",
        );
        assert_eq!(h, HeaderFacts { received: 2, complete: true });
        assert!(!header_facts(b"Received: a\r\n").complete);
        assert!(header_facts(b"\r\nReceived: a\r\n").complete);
    }

    fn is_stray(input: &[u8]) -> bool {
        input.iter().enumerate().any(|(i, b)| match b {
            b'\n' => i == 0 || input[i - 1] != b'\r',
            b'\r' => input.get(i + 1) != Some(&b'\n'),
            b => *b == 0,
        })
    }

    fn stuff() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![
            4 => Just(b'\r'), 4 => Just(b'\n'), 4 => Just(b'.'), 1 => Just(0u8), 2 => Just(b'a'), 1 => any::<u8>()
        ];
        let crlf = prop_oneof![Just(b"\r\n".to_vec()), Just(b"\r\n.".to_vec()), Just(b"\r\n.\r\n".to_vec())];
        let piece = prop_oneof![3 => proptest::collection::vec(octet, 0..6), 1 => crlf];
        proptest::collection::vec(piece, 0..12).prop_map(|v| v.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_end_is_where_the_standard_has_it(input in stuff()) {
            for mode in [BareNewline::Reject, BareNewline::Normalize] {
                let d = decode(mode, [&input[..]]);
                match reference(&input) {
                    None => prop_assert!(!d.ended),
                    Some((content, taken)) => {
                        prop_assert!(d.ended);
                        prop_assert_eq!(d.taken, taken);
                        if d.stray == Stray::default() {
                            prop_assert!(!is_stray(&input[..taken]));
                            prop_assert_eq!(&d.content, &content);
                        } else {
                            prop_assert!(is_stray(&input[..taken]));
                        }
                    }
                }
            }
        }

        /// Every line is unstuffed by itself; what is one dot stays.
        #[test]
        fn normalized_content_is_unstuffed_line_by_line(input in stuff()) {
            let Some((_, taken)) = reference(&input) else { return Ok(()) };
            // Line ends, the longest first, become one mark.
            let latin = |octets: &[u8]| octets.iter().map(|b| char::from(*b)).collect::<String>();
            let text = latin(&input[..taken - 3]);
            let lines = ["\r\r\n", "\r\n", "\r", "\n"].iter().fold(text, |t, end| t.replace(end, "\u{e000}"));
            let unstuffed = |line: &str| if line == "." { ".".into() } else { line.strip_prefix('.').unwrap_or(line).to_owned() };
            let wanted: Vec<String> = lines.split('\u{e000}').map(unstuffed).collect();
            let d = decode(BareNewline::Normalize, [&input[..]]);
            prop_assert_eq!(latin(&d.content), wanted.join("\r\n").replace('\0', ""));
        }

        #[test]
        fn normalized_content_is_clean(input in stuff()) {
            let d = decode(BareNewline::Normalize, [&input[..]]);
            let content = String::from_utf8_lossy(&d.content).replace("\r\n", "");
            prop_assert!(!content.contains(['\r', '\n', '\0']));
            prop_assert_eq!(d.facts.size_octets, d.content.len() as u64);
        }

        #[test]
        fn splitting_changes_nothing(input in stuff(), cuts in proptest::collection::vec(1usize..5, 1..20)) {
            let pieces = pieces(&input, &cuts);
            for mode in [BareNewline::Reject, BareNewline::Normalize] {
                prop_assert_eq!(decode(mode, [&input[..]]), decode(mode, pieces.iter().copied()));
            }
        }
    }
}
