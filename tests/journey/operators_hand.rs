//! flush, pause, release, rm: by command and by HTTP, each doing what it says and no more.

use std::time::Duration;

use crate::support::mailgen::plain;
use crate::support::relay::all_of;
use crate::support::wait::holds_within;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

/// A relay whose first attempt fails and whose next would be an hour away.
fn waiting(upstream: &Upstream) -> Relay {
    upstream.fail_always(Point::Mail, Fault::Reply("451 4.3.0 later"));
    let hour = "[[stream]]\nname = \"transactional\"\nretry = \"1h\"\nunsure_hold = \"1h\"\n";
    Relay::setup().upstream(upstream, "").tables(hour).start()
}

fn state(relay: &Relay, id: &str) -> String {
    let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
    life["deliveries"][0]["state"].as_str().unwrap_or("?").to_owned()
}

#[track_caller]
fn wait_state(relay: &Relay, id: &str, wanted: &str) {
    let mut last = String::new();
    let reached = holds_within(Duration::from_secs(15), || {
        last = state(relay, id);
        last == wanted
    });
    assert!(reached, "{id} is {last}, not {wanted}");
}

fn tried(upstream: &Upstream) -> usize {
    upstream.commands().iter().filter(|(_, c)| c.starts_with("MAIL")).count()
}

/// Submits and waits until its first attempt has failed.
fn submit_and_fail(relay: &Relay, upstream: &Upstream, subject: &str) -> String {
    let before = tried(upstream);
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain(subject));
    wait_until("the first attempt", Duration::from_secs(15), || tried(upstream) > before);
    wait_state(relay, &id, "waiting");
    id
}

#[test]
fn flush_sends_now() {
    let upstream = Upstream::start();
    let relay = waiting(&upstream);
    let id = submit_and_fail(&relay, &upstream, "flush");
    upstream.heal();
    assert!(!holds_within(Duration::from_millis(700), || upstream.count() > 0), "it should wait for an hour");
    relay.cli(&["queue", "flush", &id]).must(0);
    upstream.wait_for_within(1, Duration::from_secs(10));
}

#[test]
fn flush_without_an_id_sends_everything() {
    let upstream = Upstream::start();
    let relay = waiting(&upstream);
    for n in 0..5 {
        submit_and_fail(&relay, &upstream, &format!("f{n}"));
    }
    upstream.heal();
    let told = relay.cli(&["queue", "flush"]).must(0).out;
    assert_eq!(told, "5 deliveries due now\n");
    upstream.wait_for_within(5, Duration::from_secs(10));
    assert_eq!(relay.log().matches("\"operator\"").count(), 1, "said once");
}

#[test]
fn pause_holds_and_release_lets_go() {
    let upstream = Upstream::start();
    let mut relay = waiting(&upstream);
    let id = submit_and_fail(&relay, &upstream, "pause");
    relay.cli(&["queue", "pause", &id]).must(0);
    wait_state(&relay, &id, "paused");
    upstream.heal();
    relay.cli(&["queue", "flush"]).must(0);
    assert!(!holds_within(Duration::from_millis(700), || upstream.count() > 0), "paused mail was sent");
    // It stays so over a restart.
    relay.stop();
    relay.restart();
    assert_eq!(state(&relay, &id), "paused");
    relay.cli(&["queue", "release", &id]).must(0);
    upstream.wait_for_within(1, Duration::from_secs(10));
}

#[test]
fn rm_takes_it_out_for_good() {
    let upstream = Upstream::start();
    let relay = waiting(&upstream);
    let id = submit_and_fail(&relay, &upstream, "rm");
    relay.cli(&["queue", "rm", &id]).must(0);
    wait_state(&relay, &id, "done");
    upstream.heal();
    relay.cli(&["queue", "flush"]).must(0);
    assert!(!holds_within(Duration::from_millis(700), || upstream.count() > 0), "removed mail was sent");
    let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
    assert_eq!(life["deliveries"][0]["reason"], "removed");
}

#[test]
fn the_same_by_http() {
    let upstream = Upstream::start();
    let relay = waiting(&upstream);
    let id = submit_and_fail(&relay, &upstream, "http");
    let act = |verb: &str| {
        let answer = relay.post(&format!("/v1/queue/{verb}"), &format!("{{\"ids\":[\"{id}\"]}}")).unwrap();
        assert_eq!(answer.status, 200, "{verb}: {}", answer.body);
        answer.json()
    };
    act("pause");
    wait_state(&relay, &id, "paused");
    act("release");
    wait_state(&relay, &id, "waiting");
    act("remove");
    wait_state(&relay, &id, "done");
    let nobody = crate::support::http::get(relay.http().unwrap(), "/v1/messages", None).unwrap();
    assert_eq!(nobody.status, 401);
    let wrong = crate::support::http::get(relay.http().unwrap(), "/v1/messages", Some("wrong")).unwrap();
    assert_eq!(wrong.status, 401);
}

#[test]
fn release_of_an_unsure_one_warns_that_it_may_arrive_twice() {
    let upstream = Upstream::start();
    upstream.fail(Point::Dot, Fault::Close, 1);
    let hour = "[[stream]]\nname = \"transactional\"\nunsure_hold = \"1h\"\n";
    let relay = Relay::setup().upstream(&upstream, "").tables(hour).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("unsure"));
    wait_state(&relay, &id, "unsure");
    relay.cli(&["queue", "flush"]).must(0);
    assert!(
        !holds_within(Duration::from_millis(500), || upstream.count() > 0),
        "flush touches no unsure one"
    );
    let ran = relay.cli(&["queue", "release", &id]).must(0);
    assert!(format!("{}{}", ran.out, ran.err).contains("twice"), "{ran:?}");
    upstream.wait_for_within(1, Duration::from_secs(10));
}

#[test]
fn release_of_one_that_was_paused_while_unsure_warns_as_well() {
    let upstream = Upstream::start();
    upstream.fail(Point::Dot, Fault::Close, 1);
    let hold = "[[stream]]\nname = \"transactional\"\nunsure_hold = \"3s\"\n";
    let relay = Relay::setup().upstream(&upstream, "").tables(hold).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("unsure"));
    wait_state(&relay, &id, "unsure");
    relay.cli(&["queue", "pause", &id]).must(0);
    let body = format!("{{\"ids\":[\"{id}\"]}}");
    let by_http = relay.post("/v1/queue/release", &body).unwrap().json();
    assert!(by_http["warnings"].to_string().contains("may arrive twice"), "{by_http}");
    relay.cli(&["queue", "pause", &id]).must(0);
    assert!(!holds_within(Duration::from_secs(4), || upstream.count() > 0), "paused beyond its hold");
    let ran = relay.cli(&["queue", "release", &id]).must(0);
    assert!(ran.err.contains("may arrive twice"), "{ran:?}");
    upstream.wait_for_within(1, Duration::from_secs(10));
    let events = relay.get(&format!("/v1/messages/{id}")).unwrap().json()["events"].clone();
    let released = |e: &serde_json::Value| {
        e["kind"] == "released" && e.to_string().contains("while the outcome of an attempt is open")
    };
    assert_eq!(events.as_array().unwrap().iter().filter(|e| released(e)).count(), 2, "{events}");
    assert!(events.to_string().contains("may_arrive_twice"), "{events}");
}

#[test]
fn unknown_and_malformed_ids_are_told_apart() {
    let upstream = Upstream::start();
    let relay = waiting(&upstream);
    for verb in ["flush", "pause", "release", "rm", "show"] {
        relay.cli(&["queue", verb, "0000000000001"]).must(3);
        let bad = relay.cli(&["queue", verb, "nonsense!"]);
        assert!(matches!(bad.code, 2 | 3), "{verb}: {bad:?}");
    }
}

#[test]
fn acts_need_a_relay_and_say_so() {
    let upstream = Upstream::start();
    let mut relay = waiting(&upstream);
    let id = submit_and_fail(&relay, &upstream, "down");
    relay.stop();
    for verb in ["flush", "pause", "release", "rm"] {
        let ran = relay.cli(&["queue", verb, &id]).must(4);
        assert!(!ran.err.is_empty());
    }
    // Looking works on the database itself.
    let list = relay.cli(&["queue", "list", "--json"]).must(0).json();
    let mut ids = Vec::new();
    list.iter().for_each(|l| all_of(l, "id", &mut ids));
    assert!(ids.iter().any(|i| *i == &serde_json::json!(id)), "{list:?}");
    relay.cli(&["queue", "show", &id]).must(0);
    relay.cli(&["explain", &id]).must(0);
    for command in ["queue show", "explain"] {
        let words: Vec<&str> = command.split(' ').chain(["0000000000001"]).collect();
        assert!(relay.cli(&words).must(3).err.contains("it never was, or retention let it go"), "{command}");
    }
}

#[test]
fn each_id_is_told_of_also_where_one_is_not_there() {
    let upstream = Upstream::start();
    let relay = waiting(&upstream);
    let id = submit_and_fail(&relay, &upstream, "one of two");
    let missing = "0000000000009";
    for (command, word) in [("pause", "paused"), ("release", "released"), ("rm", "removed")] {
        let told = relay.cli(&["queue", command, &id, missing]).must(3);
        assert_eq!(told.out, format!("{id}: 1 delivery {word}\n{missing}: not found\n"));
        assert_eq!(told.err, format!("postroad: no message {missing}\n"));
        if command == "release" {
            // It is tried at once; what is on its way would be told of in other words.
            wait_until("the attempt after its release", Duration::from_secs(15), || tried(&upstream) > 1);
            wait_state(&relay, &id, "waiting");
        }
    }
    let told = relay.cli(&["queue", "flush", &id, missing, "--json"]).must(3).json();
    let found: Vec<_> = told.iter().map(|line| line["found"].as_bool()).collect();
    assert_eq!(found, [Some(true), Some(false)], "{told:?}");
}
