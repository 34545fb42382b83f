//! What the targets share: fuzzed octets made into what the DATA decoder lets through.

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
