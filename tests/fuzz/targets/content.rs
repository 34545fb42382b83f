//! Any octets behind a 354: the content ends where the standard has it, clean, however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postroad::mail::body::BodyFacts;
use postroad::smtp::replay::content;
use postroad::smtp::{BareNewline, ListenerSettings};
use postroad_fuzz::{PLANTED, cut, grown, lines, marks, reference, settings};

/// Above what stays in memory and under what [`grown`] makes.
const SIZE_OCTETS_MAX: u64 = 600_000;
/// Input of so many octets is cut into single ones too.
const CUT_SMALL_MAX: usize = 8192;

fuzz_target!(|data: &[u8]| {
    let input = grown(data);
    for bare_newline in [BareNewline::Reject, BareNewline::Normalize] {
        let settings =
            ListenerSettings { max_message_size_octets: SIZE_OCTETS_MAX, ..settings(bare_newline) };
        judge(&input, data, &settings);
    }
});

fn judge(input: &[u8], data: &[u8], settings: &ListenerSettings) {
    let whole = content(settings, [input]);
    assert_eq!(whole, content(settings, cut(input, data)));
    if input.len() <= CUT_SMALL_MAX {
        assert_eq!(whole, content(settings, input.chunks(1)));
    }

    let read = reference::read(input, settings);
    let (Some(whole), Some(read)) = (&whole, &read) else {
        assert!(whole.is_none() && read.is_none(), "both see an end, or none");
        return;
    };
    assert_eq!(whole.taken, read.taken);
    assert_eq!(whole.result.as_ref().map(|(content, _)| content), read.result.as_ref());
    // What is behind the end changes nothing, and without its last octet there is no end.
    assert_eq!(content(settings, [&input[..whole.taken]]).as_ref(), Some(whole));
    assert_eq!(content(settings, [&input[..whole.taken - 1]]), None);

    let Ok((octets, facts)) = &whole.result else { return };
    assert_clean(octets);
    assert_eq!(*facts, BodyFacts::of(octets));
    // Handed on as the next server would hear it, it is the same message still.
    let sent = stuffed(octets);
    let again = content(settings, [&sent[..]]);
    assert_eq!(again.map(|r| (r.taken, r.result)), Some((sent.len(), whole.result.clone())));

    assert!(!PLANTED || read.unstuffed < 4, "planted");
}

/// NUL is nowhere, and CR and LF are only together; the last line ends.
fn assert_clean(content: &[u8]) {
    let mut clean = 0;
    for (line, end) in lines(content) {
        assert_eq!(marks(line).next(), None);
        clean = end;
    }
    assert_eq!(clean, content.len());
}

fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 16);
    for (line, _) in lines(content) {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
