//! An upstream that takes fewer connections than it is to have is no faulty one: its mail goes by those that it takes.

use std::time::Duration;

use postroad::clock::monotonic;
use serde_json::Value;

use super::failover::subjects;
use crate::support::mailgen::plain;
use crate::support::upstream::Manner;
use crate::support::wait::side_by_side;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

const ONCE: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1h\"\n";
const MAILS: usize = 200;

fn with_places(places: usize, said: &'static str) -> Upstream {
    Upstream::with(Manner { full: Some((places, said)), ..Manner::default() })
}

fn esp(relay: &Relay) -> Value {
    let status = relay.get("/esp-status").map(|a| a.json()).unwrap_or_default();
    status["esps"][0].clone()
}

fn submit_all(relay: &Relay) -> Vec<String> {
    let mut client = relay.client();
    (0..MAILS).map(|n| client.submit("a@example.org", &["ok@example.com"], &plain(&format!("{n}")))).collect()
}

#[test]
fn two_places_carry_what_ten_connections_were_to_carry() {
    let ways = [
        ("421 4.7.0 Too many concurrent connections", false),
        ("554 Maximum number of connections exceeded", false),
        // Without a word of why.
        ("421", false),
        ("", false),
        ("554 no SMTP service here", false),
        // At MAIL.
        ("421 4.7.0 Too many concurrent connections", true),
        ("451 4.3.0 Too many connections, try again later", true),
    ];
    side_by_side(ways, |(said, full_at_mail)| {
        let a = Upstream::with(Manner { full: Some((2, said)), full_at_mail, ..Manner::default() });
        a.fail_always(Point::Dot, Fault::Slow(Duration::from_millis(20)));
        let relay = Relay::setup().upstream(&a, "max_connections = 10").tables(ONCE).start();
        let began = monotonic();
        let ids = submit_all(&relay);
        a.wait_for_within(MAILS, Duration::from_secs(15));
        println!("{MAILS} mails by two places took {:?}", began.elapsed());
        assert_eq!(a.count(), MAILS, "each once");
        wait_until("it is told", Duration::from_secs(5), || {
            relay.log().contains("it takes no more connections")
        });
        let now = esp(&relay);
        assert_eq!((&now["learnt_connections"], &now["max_connections"]), (&2.into(), &10.into()), "{now}");
        assert_eq!((&now["gate"], now.get("last_error")), (&"open".into(), None), "{now}");
        let listed = relay.cli(&["esp", "list"]).must(0).out;
        assert!(listed.contains("2 of 10"), "{listed}");
        for id in ids {
            let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
            assert_eq!(life["attempts"].as_array().map(Vec::len), Some(1), "{life}");
        }
        assert!(!relay.log().contains("esp_shut"), "{}", relay.log());
        relay.cli(&["esp", "resume", "up1"]).must(0);
        assert_eq!(esp(&relay).get("learnt_connections"), None, "an operator says that it has grown");
    });
}

#[test]
fn one_whose_places_others_have_is_left_for_another() {
    let (a, b) = (with_places(0, "554 too many connections"), Upstream::start());
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(ONCE).start();
    for n in 0..5 {
        relay.submit("a@example.org", &["ok@example.com"], &plain(&format!("{n}")));
    }
    b.wait_for_within(5, Duration::from_secs(10));
    assert_eq!(subjects(&b).len(), 5);
    assert!(!relay.log().contains("bounced"), "{}", relay.log());
}

#[test]
fn a_stop_while_mail_waits_for_a_place_loses_none() {
    let a = with_places(1, "421 too many connections");
    a.fail_always(Point::Dot, Fault::Slow(Duration::from_millis(100)));
    let mut relay = Relay::setup().upstream(&a, "").tables(ONCE).start();
    let mut client = relay.client();
    for n in 0..20 {
        client.submit("a@example.org", &["ok@example.com"], &plain(&format!("{n}")));
    }
    a.wait_for_within(3, Duration::from_secs(10));
    relay.stop();
    relay.restart();
    wait_until("all are there", Duration::from_secs(20), || a.count() >= 20);
    let mut all = subjects(&a);
    all.sort();
    all.dedup();
    assert_eq!((all.len(), a.count()), (20, 20));
}
