//! The process may open few files: a crowd of clients does not take the last one.

use std::net::TcpStream;
use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::mailgen::plain;
use crate::support::{Relay, Upstream};

const BOUND: Duration = Duration::from_secs(20);
/// Below what the relay needs for itself, a crowd and all that it keeps back.
const FEW: [&str; 4] = ["sh", "-c", "ulimit -Hn 120; exec \"$@\"", "sh"];

#[test]
fn a_crowd_that_says_nothing_locks_nobody_out() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).under(&FEW).start();
    assert!(relay.log().contains("LimitNOFILE"), "the start says what to raise: {}", relay.log());
    let crowd: Vec<_> = (0..200).filter_map(|_| TcpStream::connect(relay.smtp()).ok()).collect();
    for n in 1..=3 {
        let sent = relay.client().try_submit(
            "a@example.org",
            &["ok@example.com"],
            &plain("among many"),
            Duration::from_secs(5),
        );
        assert!(sent.is_ok(), "{sent:?}");
        upstream.wait_for_within(n, BOUND);
    }
    assert!(relay.get("/healthz").is_some_and(|answer| answer.status == 200), "HTTP is open");
    assert!(!relay.log().contains("Too many open files"), "the limit is never met");
    drop(crowd);
}
