//! `queue requeue`: who bounced gets it after all, who was served does not, and without its content nobody does.

use std::time::Duration;

use crate::support::mailgen::plain;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

const BOUND: Duration = Duration::from_secs(20);

fn life(relay: &Relay, id: &str) -> serde_json::Value {
    relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default()
}

fn wait_done(relay: &Relay, id: &str) {
    wait_until("all are done", BOUND, || {
        let life = life(relay, id);
        let deliveries = life["deliveries"].as_array().cloned().unwrap_or_default();
        !deliveries.is_empty() && deliveries.iter().all(|d| d["state"] == "done")
    });
}

/// A message of which the upstream refused every recipient for good.
fn bounced(relay: &Relay, upstream: &Upstream, to: &[&str]) -> String {
    upstream.fail_always(Point::Rcpt(1), Fault::Reply("550 5.1.1 nobody of that name"));
    let id = relay.submit("a@example.org", to, &plain("once more"));
    wait_done(relay, &id);
    assert_eq!(life(relay, &id)["deliveries"][0]["reason"], "refused");
    upstream.heal();
    id
}

#[test]
fn who_bounced_gets_it_after_all_and_who_was_served_not_twice() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let id = bounced(&relay, &upstream, &["ok@example.com"]);
    let told = relay.cli(&["queue", "requeue", &id]).must(0).out;
    assert_eq!(told, format!("{id}: 1 delivery in the queue again\n"));
    // The report of the bounce comes there as well.
    let came = || upstream.received().iter().filter(|mail| mail.to == ["<ok@example.com>"]).count();
    wait_until("it came", BOUND, || came() > 0);
    wait_done(&relay, &id);
    let after = life(&relay, &id);
    assert_eq!(after["deliveries"][0]["known"], "handed");
    let outcomes: Vec<_> =
        after["attempts"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert_eq!(outcomes, ["refused", "accepted"]);
    let explained = relay.cli(&["explain", &id]).must(0).out;
    assert!(explained.contains("requeued") && explained.contains("a new round"), "{explained}");

    let served = relay.cli(&["queue", "requeue", &id]).must(0).out;
    assert!(served.contains("nothing to change; each recipient was served"), "{served}");
    let answer = relay.post("/v1/queue/requeue", &format!("{{\"ids\":[\"{id}\"]}}")).unwrap();
    assert_eq!((answer.status, answer.json()["deliveries"].as_u64()), (200, Some(0)));
    assert_eq!(came(), 1);
    relay.cli(&["queue", "requeue", "0000000000001"]).must(3);
}

#[test]
fn what_was_taken_out_may_be_put_back() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Mail, Fault::Reply("451 4.3.0 later"));
    let relay = Relay::to(&upstream);
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("back"));
    wait_until("it was tried", BOUND, || life(&relay, &id)["deliveries"][0]["tries"].as_u64() > Some(0));
    relay.cli(&["queue", "rm", &id]).must(0);
    wait_done(&relay, &id);
    upstream.heal();
    relay.cli(&["queue", "requeue", &id]).must(0);
    upstream.wait_for_within(1, BOUND);
}

#[test]
fn without_its_content_it_is_refused_with_the_reason() {
    let upstream = Upstream::start();
    let mut relay = Relay::setup().upstream(&upstream, "").tables("[retention]\nbodies = \"0s\"\n").start();
    let id = bounced(&relay, &upstream, &["ok@example.com"]);
    // Retention runs at each start.
    relay.stop();
    relay.restart();
    wait_until("its content goes", BOUND, || life(&relay, &id)["body_kept"] == false);
    let told = relay.cli(&["queue", "requeue", &id]).must(3);
    assert!(told.err.contains("no longer kept") && told.err.contains("retention.bodies"), "{told:?}");
    let answer = relay.post("/v1/queue/requeue", &format!("{{\"ids\":[\"{id}\"]}}")).unwrap();
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (410, Some("gone")));
    relay.stop();
    relay.cli(&["queue", "requeue", &id]).must(4);
}

#[test]
fn what_was_removed_while_its_outcome_was_open_is_warned_of() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Dot, Fault::Close);
    let relay = Relay::to(&upstream);
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("open"));
    wait_until("it is held", BOUND, || life(&relay, &id)["deliveries"][0]["state"] == "unsure");
    relay.cli(&["queue", "rm", &id]).must(0);
    let told = relay.cli(&["queue", "requeue", &id]).must(0);
    assert!(told.err.contains("may arrive twice"), "{told:?}");
    let explained = relay.cli(&["explain", &id]).must(0).out;
    assert!(explained.contains("may_arrive_twice") || explained.contains("may arrive twice"), "{explained}");

    wait_until("it is open again", BOUND, || {
        relay.cli(&["queue", "rm", &id]).must(0);
        life(&relay, &id)["deliveries"][0]["state"] == "done"
    });
    upstream.heal();
    let answer = relay.post("/v1/queue/requeue", &format!("{{\"ids\":[\"{id}\"]}}")).unwrap().json();
    assert!(answer["warnings"][0].as_str().is_some_and(|w| w.contains("may arrive twice")), "{answer}");
}

#[test]
fn what_was_taken_as_sent_is_warned_of() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Dot, Fault::Close);
    let soon = "[[stream]]\nname = \"transactional\"\nunsure_hold = \"1s\"\n";
    let relay = Relay::setup().upstream(&upstream, "").tables(soon).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("assumed"));
    wait_done(&relay, &id);
    assert_eq!(life(&relay, &id)["deliveries"][0]["reason"], "assumed");
    upstream.heal();
    let told = relay.cli(&["queue", "requeue", &id]).must(0);
    assert!(told.err.contains("may arrive twice"), "{told:?}");
    wait_until("it goes", BOUND, || life(&relay, &id)["deliveries"][0]["known"] == "handed");
}
