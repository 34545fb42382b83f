//! Two next hops, one of them dead or hanging: mail goes on through the other, and comes back when it does.

use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::mailgen::plain;
use crate::support::wait::side_by_side;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

pub fn subjects(upstream: &Upstream) -> Vec<String> {
    upstream.received().iter().filter_map(|r| r.header("Subject")).collect()
}

/// A relay that prefers the first.
fn two(a: &Upstream, b: &Upstream) -> Relay {
    Relay::setup().upstream(a, "").upstream(b, "").tables(FAST).start()
}

#[test]
fn what_hangs_loses_its_mail_to_the_other_within_five_seconds() {
    side_by_side([Point::Banner, Point::Ehlo, Point::Mail, Point::Data], |point| {
        let (a, b) = (Upstream::start(), Upstream::start());
        a.fail_always(point, Fault::Hang);
        let relay = two(&a, &b);
        for n in 0..20 {
            relay.submit("a@example.org", &["ok@example.com"], &plain(&format!("hang {n}")));
        }
        b.wait_for_within(20, Duration::from_secs(5));
        let mut arrived = subjects(&b);
        arrived.sort();
        arrived.dedup();
        assert_eq!((arrived.len(), a.count()), (20, 0), "{point:?}: all of them, through the other");
    });
}

#[test]
fn a_call_that_hangs_while_others_flow_goes_elsewhere_and_the_others_stay() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::RcptOf("tar"), Fault::Hang);
    let relay = two(&a, &b);
    let to = |n: usize| format!("tar{n}@example.com");
    let ids: Vec<String> =
        (0..4).map(|n| relay.submit("a@example.org", &[&to(n)], &plain(&format!("slow {n}")))).collect();
    let (mut client, mut flowing) = (relay.client(), 0);
    wait_until("what hangs has arrived through the other", Duration::from_secs(10), || {
        flowing += 1;
        client.submit("a@example.org", &["ok@example.com"], &plain(&format!("flows {flowing}")));
        ids.iter().enumerate().all(|(n, _)| subjects(&b).contains(&format!("slow {n}")))
    });
    a.wait_for_within(flowing, Duration::from_secs(5));
    assert_eq!((a.count(), b.count()), (flowing, 4), "each once, and the others where they belong");
    let life = relay.get(&format!("/v1/messages/{}", ids[0])).unwrap().json();
    assert_eq!(life["attempts"][0]["fault"], "path", "{life}");
    assert!(!relay.log().contains("esp_shut"), "others flow: {}", relay.log());
}

#[test]
fn one_that_hangs_after_the_dot_keeps_what_it_has_and_gets_no_more() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::Dot, Fault::Hang);
    let relay = two(&a, &b);
    relay.submit("a@example.org", &["ok@example.com"], &plain("the first"));
    wait_until("the hang is seen", Duration::from_secs(5), || relay.log().contains("esp_shut"));
    for n in 0..5 {
        relay.submit("a@example.org", &["ok@example.com"], &plain(&format!("later {n}")));
    }
    b.wait_for_within(5, Duration::from_secs(5));
    assert!(!subjects(&b).contains(&"the first".to_owned()), "nobody knows yet what became of it");
}

#[test]
fn what_may_go_nowhere_else_is_waited_for_longer() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::Banner, Fault::Slow(Duration::from_secs(5)));
    let once = "[[stream]]\nname = \"transactional\"\nretry = \"1h\"\n";
    let only = "recipients = [\"@corp.example.com\"]";
    let relay = Relay::setup().upstream(&a, only).upstream(&b, "").tables(once).start();
    relay.submit("a@example.org", &["boss@corp.example.com"], &plain("slow"));
    a.wait_for_within(1, Duration::from_secs(10));
    assert!(!relay.log().contains("esp_shut"), "it was slow, and the other carries none of its mail");
}

#[test]
fn one_that_was_down_takes_mail_again_without_a_restart() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::Banner, Fault::Close);
    let relay = two(&a, &b);
    for n in 0..5 {
        relay.submit("a@example.org", &["ok@example.com"], &plain(&format!("down {n}")));
    }
    b.wait_for_within(5, Duration::from_secs(10));
    wait_until("it is told", Duration::from_secs(5), || relay.log().contains("esp_shut"));
    a.heal();
    let mut sent = 0;
    wait_until("it takes mail again", Duration::from_secs(20), || {
        sent += 1;
        relay.submit("a@example.org", &["ok@example.com"], &plain(&format!("up {sent}")));
        a.count() > 0
    });
    assert_eq!(relay.log().matches("\"alert over\"").count(), 1, "told once");
}

#[test]
fn where_all_are_down_mail_waits_and_nothing_is_refused() {
    let a = Upstream::start();
    a.fail_always(Point::Banner, Fault::Close);
    let relay = Relay::setup().upstream(&a, "").tables(FAST).start();
    let ids: Vec<String> = (0..30)
        .map(|n| relay.submit("a@example.org", &["ok@example.com"], &plain(&format!("all down {n}"))))
        .collect();
    wait_until("it is told", Duration::from_secs(5), || relay.log().contains("esp_shut"));
    a.heal();
    a.wait_for_within(ids.len(), Duration::from_secs(20));
    assert_eq!(a.count(), ids.len(), "each of them once");
}

#[test]
fn what_no_other_may_carry_goes_out_as_soon_as_its_esp_is_back() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::MailOf("shop@"), Fault::Reply("553 5.7.1 not owned by user app"));
    b.fail_always(Point::Banner, Fault::Close);
    let once = "[[stream]]\nname = \"transactional\"\nretry = \"1h\"\n";
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(once).start();
    let submit = |n| relay.submit("shop@example.org", &["ok@example.com"], &plain(&format!("shop {n}")));
    let mut sent = 0;
    wait_until("the other one is shut", Duration::from_secs(10), || {
        sent += 1;
        submit(sent);
        relay.log().contains("esp_shut")
    });
    let late: Vec<String> = (100..110).map(submit).collect();
    wait_until("they are put off", Duration::from_secs(10), || {
        let waits = |id: &String| {
            let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
            let due = life["deliveries"][0]["due"].as_str().map(str::to_owned);
            due > life["accepted_at"].as_str().map(str::to_owned)
        };
        late.iter().all(waits)
    });
    b.heal();
    // Those that came before may be among the first.
    wait_until("they go out", Duration::from_secs(20), || {
        let arrived = subjects(&b);
        (100..110).all(|n| arrived.contains(&format!("shop {n}")))
    });
}

#[test]
fn equals_share_the_mail_by_weight() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let relay = Relay::setup()
        .upstream(&a, "priority = 1\nweight = 70")
        .upstream(&b, "priority = 1\nweight = 30")
        .tables(FAST)
        .start();
    let mut client = relay.client();
    for n in 0..400 {
        client.submit("a@example.org", &["ok@example.com"], &plain(&format!("shared {n}")));
    }
    wait_until("all arrive", Duration::from_secs(20), || a.count() + b.count() == 400);
    // Each falls by chance: five standard deviations (9.2 messages) about 280.
    assert!((234..=326).contains(&a.count()), "{} of 400 went to the one that has 70 in 100", a.count());
}
