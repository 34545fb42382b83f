//! One refused recipient never costs the others their mail, at the door or at the next hop.

use std::time::Duration;

use crate::support::mailgen::plain;
use crate::support::upstream::Manner;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

/// Streams whose waits are short enough for a test.
pub const FAST: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"1s\"\n";

#[test]
fn the_next_hop_refuses_one_of_three() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::RcptOf("two@"), Fault::Reply("550 5.1.1 no such user"));
    let relay = Relay::to(&upstream);
    let id = relay.submit(
        "a@example.org",
        &["one@example.com", "two@example.com", "three@example.com"],
        &plain("partial"),
    );
    let mut to: Vec<String> = upstream.wait_for(1).into_iter().flat_map(|r| r.to).collect();
    to.sort();
    assert_eq!(to, ["<one@example.com>", "<three@example.com>"]);
    wait_until("the refused one is done", Duration::from_secs(10), || {
        relay.get(&format!("/v1/messages/{id}")).is_some_and(|a| {
            let life = a.json();
            let state = |n: usize| life["deliveries"][n]["state"].as_str().map(str::to_owned);
            (0..3).all(|n| state(n).as_deref() == Some("done"))
        })
    });
    let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
    assert_eq!(life["deliveries"][0]["known"], "handed");
    assert_eq!(life["deliveries"][1]["reason"], "refused");
    assert_eq!(life["deliveries"][2]["known"], "handed");
    assert!(life["deliveries"][1]["said"].as_str().is_some_and(|s| s.contains("no such user")), "{life}");
    let phase = |n: u64| {
        let attempts = life["attempts"].as_array().unwrap();
        attempts.iter().find(|a| a["n"] == n).map(|a| a["phase"].as_str().unwrap().to_owned()).unwrap()
    };
    assert_eq!([phase(0), phase(1), phase(2)], ["dot", "rcpt", "dot"], "{life}");
}

#[test]
fn one_that_needs_smtputf8_does_not_hold_up_the_others() {
    let upstream = Upstream::with(Manner {
        extensions: vec!["PIPELINING".into(), "8BITMIME".into()],
        ..Manner::default()
    });
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
    let mut client = relay.client();
    client.say("MAIL FROM:<a@example.org> SMTPUTF8").expect("250");
    for to in ["jö@example.com", "ok@example.com", "also@example.com"] {
        client.say(&format!("RCPT TO:<{to}>")).expect("250");
    }
    client.say("DATA").expect("354");
    client.raw(&plain("mixed"));
    client.raw(b".\r\n");
    let reply = client.expect("250");
    let id = reply.raw.split_whitespace().last().unwrap().to_owned();
    let received = upstream.wait_for(1);
    assert_eq!(received[0].to, ["<ok@example.com>", "<also@example.com>"]);
    wait_until("the other one is told why it waits", Duration::from_secs(10), || {
        let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
        life["deliveries"][0]["said"].as_str().is_some_and(|said| said.contains("SMTPUTF8"))
    });
    let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
    assert_eq!([&life["deliveries"][1]["known"], &life["deliveries"][2]["known"]], ["handed", "handed"]);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn the_next_hop_defers_one_of_three_and_takes_it_later() {
    let upstream = Upstream::start();
    upstream.fail(Point::RcptOf("two@"), Fault::Reply("451 4.7.1 greylisted, come back"), 1);
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
    relay.submit(
        "a@example.org",
        &["one@example.com", "two@example.com", "three@example.com"],
        &plain("later"),
    );
    let received = upstream.wait_for(2);
    assert_eq!(received[0].to, ["<one@example.com>", "<three@example.com>"]);
    assert_eq!(received[1].to, ["<two@example.com>"]);
}

#[test]
fn every_recipient_refused_is_no_data() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::RcptOf("@example.com"), Fault::Reply("550 5.1.1 nobody here"));
    let relay = Relay::to(&upstream);
    let id = relay.submit("a@example.org", &["one@example.com", "two@example.com"], &plain("none"));
    wait_until("both are done", Duration::from_secs(10), || {
        let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
        life["deliveries"][0]["reason"] == "refused" && life["deliveries"][1]["reason"] == "refused"
    });
    assert_eq!(upstream.count(), 0);
    // The line stays usable for the next message.
    upstream.heal();
    relay.submit("a@example.org", &["good@example.com"], &plain("good"));
    assert_eq!(upstream.wait_for(1)[0].to, ["<good@example.com>"]);
}

#[test]
fn a_refused_sender_is_not_the_recipient_s_fault() {
    let upstream = Upstream::start();
    upstream.fail(Point::Mail, Fault::Reply("451 4.3.0 not now"), 1);
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
    relay.submit("a@example.org", &["one@example.com"], &plain("sender"));
    assert_eq!(upstream.wait_for(1)[0].to, ["<one@example.com>"]);
}

#[test]
fn many_recipients_go_in_one_transaction() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let to: Vec<String> = (0..100).map(|n| format!("r{n}@example.com")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    relay.submit("a@example.org", &to, &plain("hundred"));
    wait_until("all hundred", Duration::from_secs(20), || {
        upstream.received().iter().map(|r| r.to.len()).sum::<usize>() == 100
    });
    let mut all: Vec<String> = upstream.received().into_iter().flat_map(|r| r.to).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 100, "nobody twice");
    assert!(upstream.count() <= 2, "{} transactions for one message", upstream.count());
}

/// The first upstream takes one of three and never says what became of the content.
fn one_of_three_is_unsure(fault: Fault, times: usize) {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::RcptOf("gone@example.com"), Fault::Reply("550 5.1.1 no such user"));
    a.fail_always(Point::RcptOf("busy@example.com"), Fault::Reply("451 4.2.1 busy"));
    a.fail(Point::Dot, fault, times);
    let stream = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"2s\"\n";
    let relay = Relay::setup()
        .server("dsn = \"off\"\n")
        .upstream(&a, "priority = 1\n")
        .upstream(&b, "priority = 2\n")
        .tables(stream)
        .start();
    let to = ["taken@example.com", "gone@example.com", "busy@example.com"];
    let id = relay.submit("app@example.org", &to, &plain("three"));
    let life = || relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
    wait_until("the busy one goes by the other", Duration::from_secs(15), || {
        b.received().iter().any(|r| r.to == ["<busy@example.com>"])
    });
    wait_until("the one that is gone bounces", Duration::from_secs(15), || {
        life()["events"].to_string().contains("bounced")
    });
    wait_until("all three are done", Duration::from_secs(30), || {
        let states: Vec<String> = life()["deliveries"]
            .as_array()
            .map(|all| all.iter().map(|d| d["state"].to_string()).collect())
            .unwrap_or_default();
        states.len() == 3 && states.iter().all(|state| state.contains("done"))
    });
    let at_b: Vec<String> = b.received().into_iter().flat_map(|r| r.to).collect();
    assert_eq!(at_b.iter().filter(|to| *to == "<busy@example.com>").count(), 1, "{at_b:?}");
    assert!(!at_b.contains(&"<gone@example.com>".to_owned()), "it was refused for good: {at_b:?}");
    let events = life()["events"].to_string();
    assert!(!events.contains("assumed"), "nobody who was refused is taken as sent: {events}");
}

#[test]
fn who_was_refused_is_not_unsure_where_the_answer_to_the_dot_is_lost() {
    one_of_three_is_unsure(Fault::Close, 1);
}

#[test]
fn nor_where_it_does_not_come() {
    one_of_three_is_unsure(Fault::Hang, 1);
}
