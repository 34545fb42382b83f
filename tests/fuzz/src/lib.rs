//! What the targets share: fuzzed octets made longer, cut, or into what the DATA decoder lets through.

use std::net::{Ipv4Addr, SocketAddr};

use postroad::smtp::{BareNewline, ListenerSettings};

pub mod commands;
pub mod hooks;
pub mod reference;

/// Built by `.ci/fuzz planted`: each target has a fault to find.
pub const PLANTED: bool = option_env!("POSTROAD_FUZZ_PLANTED").is_some();

/// Every LF becomes CRLF, and no CR stands alone; the last line ends.
pub fn with_crlf(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 16);
    for b in data {
        match b {
            b'\r' => {}
            b'\n' => out.extend_from_slice(b"\r\n"),
            b => out.push(*b),
        }
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The same, and each octet 1 becomes 999 letters: a fuzzer does not find long lines by itself.
pub fn with_long_lines(data: &[u8]) -> Vec<u8> {
    let grown: Vec<u8> = data.split(|b| *b == 1).collect::<Vec<_>>().join(&b"A".repeat(999)[..]);
    with_crlf(&grown)
}

/// Under what a session skips of one line (1 MiB): whether that is too long to skip depends on the cuts.
const GROWN_OCTETS_MAX: usize = 700_000;

/// Each octet 1 becomes 999 letters and each octet 2 becomes 60 000, and nothing else changes: long lines, and content
/// that outgrows memory.
pub fn grown(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    for octet in data {
        let letters = match octet {
            1 => 999,
            2 => 60_000,
            _ => 0,
        };
        if letters == 0 || out.len() + letters > GROWN_OCTETS_MAX {
            out.push(*octet);
        } else {
            out.resize(out.len() + letters, b'A');
        }
    }
    out
}

/// `input` cut into pieces of 1 to 128 octets, as the octets of `data` have it; in larger ones where `input` is large.
pub fn cut<'a>(input: &'a [u8], data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let scale = 1 + input.len() / 4096;
    let mut sizes = data.iter().rev().map(move |b| (1 + usize::from(*b).pow(2) / 512) * scale).cycle();
    let mut rest = input;
    std::iter::from_fn(move || {
        let size = sizes.next()?.min(rest.len());
        let (piece, tail) = rest.split_at(size);
        rest = tail;
        (size > 0).then_some(piece)
    })
}

/// Where CR, LF and NUL are. Not found octet by octet: each compare is a call to the fuzzer, and grown letters are many.
pub fn marks(octets: &[u8]) -> impl Iterator<Item = usize> {
    memchr::memchr3_iter(b'\r', b'\n', 0, octets)
}

/// Lines without their CRLF, and where the octets behind each begin.
pub fn lines(octets: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut begin = 0;
    marks(octets).filter_map(move |at| {
        let ends = octets[at] == b'\n' && at > begin && octets[at - 1] == b'\r';
        ends.then(|| (&octets[std::mem::replace(&mut begin, at + 1)..at - 1], at + 1))
    })
}

/// A listener's defaults.
pub fn settings(bare_newline: BareNewline) -> ListenerSettings {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 25));
    ListenerSettings { bare_newline, ..ListenerSettings::at(address) }
}
