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

/// So many rows of a table are under way at a time: each waits most of its time.
const ABREAST: usize = 4;

/// Runs each of the items, some at a time; fails where one does, after those beside it.
pub fn side_by_side<T: Send>(items: impl IntoIterator<Item = T>, run: impl Fn(T) + Sync) {
    let items = std::sync::Mutex::new(items.into_iter().collect::<std::collections::VecDeque<T>>());
    let next = || items.lock().unwrap().pop_front();
    std::thread::scope(|scope| {
        for _ in 0..ABREAST {
            scope.spawn(|| {
                while let Some(item) = next() {
                    run(item);
                }
            });
        }
    });
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
