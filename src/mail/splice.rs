//! A message changed in a few places: spans replaced, every other octet copied.

use std::borrow::Cow;
use std::ops::Range;

use super::transfer;

/// One span and what stands in its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Splice {
    /// What is replaced; empty where something is put in.
    pub span: Range<usize>,
    /// By what.
    pub with: Replacement,
}

/// What stands in the place of a span.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replacement {
    /// These octets.
    Octets(Cow<'static, [u8]>),
    /// The span as quoted-printable.
    QuotedPrintable,
    /// The span, which is quoted-printable already, with its long lines broken.
    QuotedPrintableBroken,
    /// The span, which is base64 already, with its long lines broken.
    Base64Broken,
}

impl Replacement {
    /// The span goes.
    pub const NOTHING: Replacement = Replacement::text("");
    /// An empty line.
    pub const EMPTY_LINE: Replacement = Replacement::text("\r\n");

    /// A text of ours.
    pub const fn text(text: &'static str) -> Self {
        Replacement::Octets(Cow::Borrowed(text.as_bytes()))
    }

    fn write(&self, span: &[u8], sink: &mut impl Sink) {
        match self {
            Replacement::Octets(octets) => sink.put(octets),
            Replacement::QuotedPrintable => transfer::quoted_printable(span, sink),
            Replacement::QuotedPrintableBroken => transfer::break_quoted_printable(span, sink),
            Replacement::Base64Broken => transfer::break_base64(span, sink),
        }
    }
}

impl From<String> for Replacement {
    fn from(text: String) -> Self {
        Replacement::Octets(Cow::Owned(text.into_bytes()))
    }
}

/// Where octets are written: a buffer, or a count of how large it will have to be.
pub trait Sink {
    /// The next octets.
    fn put(&mut self, octets: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, octets: &[u8]) {
        self.extend_from_slice(octets);
    }
}

/// Counts octets.
struct Count(usize);

impl Sink for Count {
    fn put(&mut self, octets: &[u8]) {
        self.0 += octets.len();
    }
}

/// In the order of their spans. At one place what is put in goes before what replaces, and of two that are put in the
/// one named first stays first.
pub fn in_order(mut splices: Vec<Splice>) -> Vec<Splice> {
    splices.sort_by_key(|s| (s.span.start, !s.span.is_empty()));
    splices
}

/// The size of what [`apply`] gives, in octets.
pub fn octets_after(original: &[u8], splices: &[Splice]) -> usize {
    let mut count = Count(0);
    write(original, splices, &mut count);
    count.0
}

/// The original with every splice, which are in order and do not overlap.
pub fn apply(original: &[u8], splices: &[Splice]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets_after(original, splices));
    write(original, splices, &mut out);
    out
}

fn write(original: &[u8], splices: &[Splice], sink: &mut impl Sink) {
    let mut at = 0;
    for splice in splices {
        debug_assert!(at <= splice.span.start, "splices overlap or are out of order");
        sink.put(original.get(at..splice.span.start).unwrap_or_default());
        splice.with.write(&original[splice.span.clone()], sink);
        at = splice.span.end;
    }
    sink.put(original.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_replaced_and_the_rest_is_copied() {
        let put = |at: usize, text: &'static str| Splice { span: at..at, with: Replacement::text(text) };
        let cut = Splice { span: 2..4, with: Replacement::NOTHING };
        let splices = in_order(vec![put(6, "!"), put(0, "<"), cut, put(6, "?"), put(2, "+")]);
        assert_eq!(apply(b"abcdef", &splices), b"<ab+ef!?");
        assert_eq!(octets_after(b"abcdef", &splices), 8);
    }
}
