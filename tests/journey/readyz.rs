//! What a supervisor and a monitor see: alive, ready, counted.

use std::time::Duration;

use crate::support::mailgen::plain;
use crate::support::{Relay, Upstream, http, wait_until};

#[test]
fn healthz_readyz_and_metrics_answer_without_a_token() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let at = relay.http().unwrap();
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        let answer = http::get(at, path, None).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    assert_eq!(http::get(at, "/no-such-page", None).unwrap().status, 404);
}

#[test]
fn metrics_count_what_happened() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let mut client = relay.client();
    for n in 0..3 {
        client.submit("a@example.org", &["one@example.com", "two@example.com"], &plain(&format!("m{n}")));
    }
    upstream.wait_for(3);
    let mut seen = String::new();
    wait_until("the metrics of three messages", Duration::from_secs(15), || {
        seen = relay.get("/metrics").map(|a| a.body).unwrap_or_default();
        relay.metric("postroad_messages_accepted_total") == 3.0
            && relay.metric("postroad_attempts_total") == 6.0
            && relay.metric("postroad_queue_deliveries") == 0.0
            && relay.metric("postroad_smtp_connections") >= 1.0
    });
    for name in ["postroad_attempt_seconds", "postroad_commit_seconds", "postroad_commit_batch_size"] {
        assert!(seen.contains(&format!("# HELP {name}")), "{name} is missing:\n{seen}");
    }
    assert!(!seen.contains("example.com"), "an address in a label");
    // An accept and a settle each, and now and then a sweep; not what bulk work weighs.
    let operations = relay.metric("postroad_commit_batch_size_sum");
    assert!((6.0..=60.0).contains(&operations), "{operations} operations of mail");
}
