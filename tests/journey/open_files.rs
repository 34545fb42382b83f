//! The process may open few files: a crowd of clients does not take the last one, and where one is wanting after all it
//! is no ESP's fault.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::partial_recipients::FAST;
use crate::support::mailgen::plain;
use crate::support::smtp::Client;
use crate::support::{Relay, Upstream, wait_until};

const BOUND: Duration = Duration::from_secs(20);
/// Below what the relay needs for itself, a crowd and all that it keeps back.
const FEW: [&str; 4] = ["sh", "-c", "ulimit -n 120; exec \"$@\"", "sh"];

fn life(relay: &Relay, id: &str) -> serde_json::Value {
    relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default()
}

#[test]
fn a_crowd_that_says_nothing_locks_nobody_out() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).under(&FEW).start();
    assert!(relay.log().contains("LimitNOFILE"), "the start says what to raise: {}", relay.log());
    let crowd: Vec<_> = (0..400).filter_map(|_| TcpStream::connect(relay.smtp()).ok()).collect();
    for n in 1..=3 {
        let sent =
            relay.client().try_submit("a@example.org", &["ok@example.com"], &plain("among many"), BOUND);
        assert!(sent.is_ok(), "{sent:?}");
        upstream.wait_for_within(n, BOUND);
    }
    assert!(relay.get("/healthz").is_some_and(|answer| answer.status == 200), "HTTP is open");
    assert!(!relay.log().contains("cannot accept a connection"), "no file was wanting: {}", relay.log());
    drop(crowd);
}

/// The soft limit of the relay; what is open stays open.
fn may_open(relay: &Relay, files: Option<u64>) -> Option<u64> {
    let pid = Pid::from_raw(i32::try_from(relay.pid().unwrap()).unwrap());
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let limit = Rlimit { current: files, maximum: limit.maximum };
    prlimit(pid, Resource::Nofile, limit).unwrap().current
}

#[test]
fn an_esp_is_not_to_blame_for_files_that_are_wanting_here() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "messages_per_connection = 1").tables(FAST).start();
    let mut client = Client::hello(relay.smtp());
    client.submit("a@example.org", &["ok@example.com"], &plain("before"));
    upstream.wait_for_within(1, BOUND);
    wait_until("its connection is closed", BOUND, || upstream.open_connections() == 0);

    let before = may_open(&relay, Some(3));
    let ids: Vec<String> =
        (0..8).map(|_| client.submit("a@example.org", &["ok@example.com"], &plain("wants a file"))).collect();
    wait_until("the log says what is wanting", BOUND, || {
        relay.log().matches("Too many open files").count() >= 8 && relay.log().contains("LimitNOFILE")
    });
    may_open(&relay, before);

    upstream.wait_for_within(9, BOUND);
    wait_until("all is settled", BOUND, || {
        ids.iter().all(|id| life(&relay, id)["deliveries"][0]["state"] == "done")
    });
    for id in &ids {
        let life = life(&relay, id);
        assert_eq!(life["attempts"].as_array().map(Vec::len), Some(1), "it counts no attempt: {life}");
    }
    assert!(!relay.log().contains("gate"), "no gate shut: {}", relay.log());
}
