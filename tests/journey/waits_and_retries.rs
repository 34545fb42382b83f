//! What the next hop does not take now waits and goes later; nothing waits longer than it must.

use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::mailgen::{assert_unchanged, plain};
use crate::support::upstream::Manner;
use crate::support::wait::side_by_side;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

#[test]
fn a_passing_failure_at_any_point_is_tried_again() {
    let faults = [
        ("banner-421", Point::Banner, Fault::Reply("421 4.3.2 too busy")),
        ("banner-554", Point::Banner, Fault::Reply("554 5.3.2 not for you")),
        ("banner-close", Point::Banner, Fault::Close),
        ("banner-reset", Point::Banner, Fault::Reset),
        ("banner-garbage", Point::Banner, Fault::Garbage),
        ("banner-half", Point::Banner, Fault::Half),
        ("ehlo-421", Point::Ehlo, Fault::Reply("421 4.3.2 going down")),
        ("ehlo-close", Point::Ehlo, Fault::Close),
        ("mail-451", Point::Mail, Fault::Reply("451 4.3.0 later")),
        ("mail-421", Point::Mail, Fault::Reply("421 4.3.2 bye")),
        ("mail-reset", Point::Mail, Fault::Reset),
        ("rcpt-450", Point::Rcpt(1), Fault::Reply("450 4.2.0 busy")),
        ("rcpt-close", Point::Rcpt(1), Fault::Close),
        ("data-451", Point::Data, Fault::Reply("451 4.3.0 later")),
        ("data-half", Point::Data, Fault::Half),
        ("data-garbage", Point::Data, Fault::Garbage),
        ("dot-451", Point::Dot, Fault::Reply("451 4.3.0 later")),
        ("dot-452", Point::Dot, Fault::Reply("452 4.3.1 disk full")),
    ];
    std::thread::scope(|scope| {
        for (name, point, fault) in faults {
            scope.spawn(move || {
                let upstream = Upstream::start();
                upstream.fail(point, fault, 1);
                let relay = Relay::setup().upstream(&upstream, "timeout = \"5s\"").tables(FAST).start();
                relay.submit("a@example.org", &["ok@example.com"], &plain(name));
                let received = upstream.wait_for_within(1, Duration::from_secs(60));
                assert_unchanged(&plain(name), &received[0].data);
                assert_eq!(upstream.unanswered().len(), 0, "{name}");
            });
        }
    });
}

#[test]
fn a_lasting_refusal_is_not_tried_again() {
    for (name, point, said) in [
        ("rcpt-550", Point::Rcpt(1), "550 5.1.1 no such user"),
        ("dot-554", Point::Dot, "554 5.7.1 looks like spam"),
    ] {
        let upstream = Upstream::start();
        upstream.fail_always(point, Fault::Reply(said));
        let relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
        let id = relay.submit("a@example.org", &["ok@example.com"], &plain(name));
        wait_until(&format!("{name} is done"), Duration::from_secs(15), || {
            let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
            life["deliveries"][0]["state"] == "done" && life["deliveries"][0]["reason"] == "refused"
        });
        let tries = upstream.commands().iter().filter(|(_, c)| c.starts_with("MAIL")).count();
        assert_eq!(tries, 1, "{name}");
    }
}

#[test]
fn nobody_at_the_next_hop_then_somebody() {
    let mut upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
    upstream.shut();
    for n in 0..20 {
        relay.submit("a@example.org", &["ok@example.com"], &plain(&format!("w{n}")));
    }
    assert_eq!(upstream.count(), 0);
    upstream.reopen();
    let mut subjects: Vec<_> = upstream
        .wait_for_within(20, Duration::from_secs(60))
        .iter()
        .filter_map(|r| r.header("Subject"))
        .collect();
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects.len(), 20, "each once");
}

#[test]
fn what_waits_survives_a_restart() {
    let mut upstream = Upstream::start();
    let mut relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
    upstream.shut();
    for n in 0..10 {
        relay.submit("a@example.org", &["ok@example.com"], &plain(&format!("r{n}")));
    }
    relay.stop();
    upstream.reopen();
    relay.restart();
    let received = upstream.wait_for_within(10, Duration::from_secs(60));
    let one = received.iter().find(|r| r.header("Subject").as_deref() == Some("r7")).unwrap();
    assert_unchanged(&plain("r7"), &one.data);
    assert_eq!(upstream.count(), 10);
}

#[test]
fn max_age_ends_it() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Mail, Fault::Reply("451 4.3.0 never"));
    let short = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nmax_age = \"3s\"\n";
    let relay = Relay::setup().upstream(&upstream, "").tables(short).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("old"));
    wait_until("it has expired", Duration::from_secs(30), || {
        let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
        life["deliveries"][0]["state"] == "done" && life["deliveries"][0]["reason"] == "expired"
    });
}

#[test]
fn a_stale_line_is_replaced_at_once_and_blamed_on_nobody() {
    let upstream = Upstream::start();
    // Without the replacement the message would wait for an hour.
    let slow = "[[stream]]\nname = \"transactional\"\nretry = \"1h\"\n";
    let relay = Relay::setup()
        .upstream(&upstream, "max_connections = 1\nidle_timeout = \"60s\"")
        .tables(slow)
        .start();
    relay.submit("a@example.org", &["ok@example.com"], &plain("first"));
    upstream.wait_for(1);
    upstream.drop_connections();
    relay.submit("a@example.org", &["ok@example.com"], &plain("second"));
    upstream.wait_for_within(2, Duration::from_secs(10));
    // And where it says 421 on the line that it grew tired of.
    upstream.fail(Point::Mail, Fault::Reply("421 4.4.2 idle for too long"), 1);
    relay.submit("a@example.org", &["ok@example.com"], &plain("third"));
    upstream.wait_for_within(3, Duration::from_secs(10));
}

#[test]
fn a_slow_next_hop_does_not_slow_the_door() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Dot, Fault::Slow(Duration::from_secs(1)));
    let relay = Relay::setup().upstream(&upstream, "max_connections = 2").start();
    let began = postroad::clock::monotonic();
    let mut client = relay.client();
    for n in 0..20 {
        client.submit("a@example.org", &["ok@example.com"], &plain(&format!("s{n}")));
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?} for 20 messages", began.elapsed());
    upstream.heal();
    upstream.wait_for_within(20, Duration::from_secs(40));
}

#[test]
fn a_next_hop_that_hangs_before_the_body_is_left_in_time() {
    let upstream = Upstream::with(Manner::default());
    side_by_side([Point::Banner, Point::Ehlo, Point::Mail, Point::Data], |point| {
        upstream.fail(point, Fault::Hang, 1);
    });
    let relay =
        Relay::setup().upstream(&upstream, "timeout = \"1s\"\nmax_connections = 1").tables(FAST).start();
    relay.submit("a@example.org", &["ok@example.com"], &plain("hang"));
    let received = upstream.wait_for_within(1, Duration::from_secs(60));
    assert_unchanged(&plain("hang"), &received[0].data);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn what_still_fails_at_its_end_expires_and_is_not_tried_without_a_pause() {
    // A next hop that is quick to refuse, one that hangs up, and one that lacks what the message needs.
    let refuses = Upstream::start();
    refuses.fail_always(Point::Rcpt(1), Fault::Reply("450 4.2.1 busy"));
    let hangs_up = Upstream::start();
    hangs_up.fail_always(Point::Banner, Fault::Close);
    let small = Upstream::with(Manner { extensions: vec!["SIZE 10".into()], ..Manner::default() });
    for upstream in [refuses, hangs_up, small] {
        for retry in ["retry = \"1s\"\n", ""] {
            let stream = format!("[[stream]]\nname = \"transactional\"\nmax_age = \"3s\"\n{retry}");
            let relay = Relay::setup().upstream(&upstream, "").tables(&stream).start();
            let ids: Vec<String> = (0..3)
                .map(|n| relay.submit("a@example.org", &["b@example.com"], &plain(&format!("old {n}"))))
                .collect();
            for id in &ids {
                let life = || relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
                wait_until("it has expired", Duration::from_secs(15), || {
                    life()["deliveries"][0]["reason"] == "expired"
                });
                let tries = life()["attempts"].as_array().map_or(0, Vec::len);
                assert!((1..=5).contains(&tries), "{tries} attempts within three seconds");
            }
        }
    }
}

#[test]
fn a_round_with_two_next_hops_is_one_step_of_the_schedule() {
    let (a, b) = (Upstream::start(), Upstream::start());
    for upstream in [&a, &b] {
        upstream.fail_always(Point::Rcpt(1), Fault::Reply("450 4.2.0 greylisted"));
    }
    let schedule = "[[stream]]\nname = \"transactional\"\nretry = \"1s*2, 1h\"\n";
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(schedule).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("greylisted"));
    let asked =
        |upstream: &Upstream| upstream.commands().iter().filter(|(_, c)| c.starts_with("RCPT")).count();
    wait_until("three rounds were made", Duration::from_secs(15), || asked(&a) == 3 && asked(&b) == 3);
    let list = || relay.get("/v1/messages?state=waiting").map(|a| a.json()).unwrap_or_default();
    wait_until("it waits", Duration::from_secs(5), || list()["deliveries"][0]["id"] == id.as_str());
    let delivery = list()["deliveries"][0].clone();
    assert_eq!(delivery["tries"], 6, "attempts are counted each: {delivery}");
    let due: jiff::Timestamp =
        delivery["due"].as_str().and_then(|t| t.parse().ok()).expect("it is due some time");
    let accepted: jiff::Timestamp =
        delivery["accepted_at"].as_str().and_then(|t| t.parse().ok()).expect("it was accepted some time");
    let waits = due.duration_since(accepted).as_secs();
    assert!((1_800..5_400).contains(&waits), "the third wait is an hour, give or take chance: {waits} s");
    wait_until("each attempt has its line", Duration::from_secs(5), || {
        let log = relay.log();
        (1..=6).all(|attempt| log.contains(&format!("\"attempt\":{attempt},")))
    });
}
