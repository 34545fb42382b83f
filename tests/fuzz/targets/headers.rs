//! Any octets as a header block: what has to go goes, and nothing else changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postroad::mail::headers::{Fields, Head, Separator};
use postroad::mail::splice::apply;

const ON_TOP: &str = "Received: by test\r\n";

fuzz_target!(|data: &[u8]| {
    let message = postroad_fuzz::with_crlf(data);
    let head = Head::read(&message, "postroad-token");
    let out = apply(&message, &head.splices(&message, ON_TOP.to_owned(), Vec::new()));
    assert!(out.starts_with(ON_TOP.as_bytes()));
    assert!(out.ends_with(&message[head.end.body_at..]));

    let again = Head::read(&out, "");
    assert!(again.removals.is_empty() && again.mailbox_line.is_none());
    assert!(again.end.separator != Separator::Missing);
    assert_eq!(&out[again.end.body_at..], &message[head.end.body_at..]);

    let kept: Vec<&[u8]> = Fields::new(&message, head.fields_at())
        .filter(|f| !head.removals.iter().any(|r| r.span == f.span()))
        .map(|f| f.raw)
        .collect();
    let left: Vec<&[u8]> = Fields::new(&out, ON_TOP.len()).map(|f| f.raw).collect();
    assert!(left.ends_with(&kept));
    assert!(left.len() <= kept.len() + 1, "at most the mailbox line is new");

    assert!(
        !postroad_fuzz::PLANTED || !head.removals.iter().any(|r| r.span.len() > 12 && r.name == "Bcc"),
        "planted"
    );
});
