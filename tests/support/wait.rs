//! Waiting for a condition with a bound, and saying loudly what was not tested.

use std::time::Duration;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; fails with `what` when it does not within `bound`.
#[track_caller]
pub fn wait_until(what: &str, bound: Duration, mut condition: impl FnMut() -> bool) {
    if !holds_within(bound, &mut condition) {
        panic!("waited {bound:?} in vain for: {what}");
    }
}

/// Whether `condition` came to hold within `bound`.
pub fn holds_within(bound: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = postroad::clock::monotonic() + bound;
    loop {
        if condition() {
            return true;
        }
        if postroad::clock::monotonic() >= end {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Says loudly that something was not tested here, and why. With `POSTROAD_REQUIRE_CLIENTS=1` a missing program fails.
#[track_caller]
pub fn skip(what: &str, why: &str) {
    let required = std::env::var_os("POSTROAD_REQUIRE_CLIENTS").is_some_and(|v| v == "1");
    assert!(!required || !why.contains("not installed"), "{what} is required here but {why}");
    // Past the test harness, which would swallow it: what is not tested must be seen.
    let line = format!("\n*** SKIPPED: {what}: {why}\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), line.as_bytes());
}
