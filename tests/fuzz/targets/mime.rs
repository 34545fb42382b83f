//! Any octets as a message with long lines: shortened or refused, and never half done.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postroad::mail::body::BodyFacts;
use postroad::mail::headers::LINE_OCTETS_MAX;
use postroad::mail::mime::{LongLines, shorten};
use postroad::mail::splice::{apply, in_order, octets_after};

fuzz_target!(|data: &[u8]| {
    let message = postroad_fuzz::with_long_lines(data);
    let Ok(splices) = shorten(&message, 0, &[], LongLines::Reencode) else { return };
    let splices = in_order(splices);
    assert!(splices.windows(2).all(|pair| pair[0].span.end <= pair[1].span.start));
    let out = apply(&message, &splices);
    assert_eq!(out.len(), octets_after(&message, &splices));
    assert!(BodyFacts::of(&out).longest_line_octets <= LINE_OCTETS_MAX as u64);
    assert_eq!(shorten(&out, 0, &[], LongLines::Refuse), Ok(Vec::new()));

    assert!(!postroad_fuzz::PLANTED || splices.len() < 4, "planted");
});
