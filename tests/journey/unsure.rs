//! An attempt whose outcome nobody knows is held, never taken for a failure: it goes again after its hold, once.

use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::esps::{Fault as EspFault, Postmark};
use crate::support::mailgen::plain;
use crate::support::wait::{holds_within, side_by_side};
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

fn life(relay: &Relay, id: &str) -> serde_json::Value {
    relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default()
}

#[test]
fn a_line_that_dies_after_the_dot_is_held_not_failed() {
    side_by_side([Fault::Close, Fault::Reset, Fault::Half], |fault| {
        let upstream = Upstream::start();
        upstream.fail_always(Point::Dot, fault);
        let long = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"1h\"\n";
        let relay = Relay::setup().upstream(&upstream, "").tables(long).start();
        let id = relay.submit("a@example.org", &["ok@example.com"], &plain("held"));
        wait_until("it is held", Duration::from_secs(15), || {
            life(&relay, &id)["deliveries"][0]["state"] == "unsure"
        });
        let again = holds_within(Duration::from_millis(2500), || upstream.unanswered().len() > 1);
        assert!(!again, "{fault:?}: sent again inside its hold");
        let text = relay.cli(&["explain", &id]).must(0).out;
        assert!(text.contains("unsure") || text.contains("held"), "{text}");
    });
}

#[test]
fn after_its_hold_it_goes_once_more() {
    let upstream = Upstream::start();
    upstream.fail(Point::Dot, Fault::Close, 1);
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("again"));
    upstream.wait_for_within(1, Duration::from_secs(20));
    wait_until("it is done", Duration::from_secs(10), || {
        life(&relay, &id)["deliveries"][0]["known"] == "handed"
    });
    let life = life(&relay, &id);
    let outcomes: Vec<_> =
        life["attempts"].as_array().unwrap().iter().filter_map(|a| a["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["unsure", "accepted"], "{life}");
}

#[test]
fn a_second_open_end_is_taken_as_sent() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Dot, Fault::Close);
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("twice"));
    wait_until("it is taken as sent", Duration::from_secs(30), || {
        let life = life(&relay, &id);
        life["deliveries"][0]["state"] == "done" && life["deliveries"][0]["reason"] == "assumed"
    });
    assert_eq!(upstream.unanswered().len(), 2, "two attempts, no third");
    let events = life(&relay, &id)["events"].to_string();
    assert_eq!(events.matches("\"assumed\"").count(), 1, "its end is an event: {events}");
}

#[test]
fn what_is_taken_as_sent_is_told_also_where_another_esp_is_well() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::Dot, Fault::Close);
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(FAST).start();
    // In one call: a third that is lost would shut the gate.
    let to = ["ok@example.com", "also@example.com"];
    let id = relay.submit("a@example.org", &to, &plain("to two"));
    wait_until("both are taken as sent", Duration::from_secs(30), || {
        (0..2).all(|n| life(&relay, &id)["deliveries"][n]["reason"] == "assumed")
    });
    let told = |word: &str| {
        let log = relay.log();
        let of = |l: &&str| l.contains("\"assumed\"") && l.contains(word);
        log.lines().filter(of).map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("each is told", Duration::from_secs(5), || {
        to.iter().all(|to| told("\"event\"").iter().any(|line| line.contains(&format!("\"to\":\"{to}\""))))
    });
    let alerts: Vec<String> = told("\"error\"").into_iter().collect();
    assert_eq!(alerts.len(), 1, "one trouble is told once: {alerts:?}");
    assert!(alerts[0].contains("up1") && alerts[0].contains("queue requeue"), "{alerts:?}");
    assert_eq!(relay.metric("postroad_alerts_total{kind=\"assumed\"}"), 1.0);
    let shown = relay.cli(&["esp", "list", "--json"]).must(0).out;
    assert!(shown.contains("\"assumed\""), "{shown}");
    assert_eq!(b.count(), 0);
}

#[test]
fn a_line_that_dies_in_the_body_was_not_handed_over() {
    let upstream = Upstream::start();
    upstream.fail(Point::Body(200_000), Fault::Reset, 1);
    let long = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"1h\"\n";
    let relay = Relay::setup().upstream(&upstream, "").tables(long).start();
    let raw = crate::support::mailgen::sized("body", 8_000_000);
    relay.submit("a@example.org", &["ok@example.com"], &raw);
    let received = upstream.wait_for_within(1, Duration::from_secs(30));
    crate::support::mailgen::assert_unchanged(&raw, &received[0].data);
}

#[test]
fn a_slow_answer_to_the_dot_is_waited_for_as_long_as_the_hold() {
    let upstream = Upstream::start();
    upstream.fail(Point::Dot, Fault::Slow(Duration::from_secs(4)), 1);
    let hold = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"1m\"\n";
    let settings = "timeout = \"1s\"\ndata_timeout = \"60s\"";
    let relay = Relay::setup().upstream(&upstream, settings).tables(hold).start();
    relay.submit("a@example.org", &["ok@example.com"], &plain("slow"));
    upstream.wait_for_within(1, Duration::from_secs(20));
    let twice = holds_within(Duration::from_secs(3), || upstream.count() > 1);
    assert!(!twice, "sent twice though the answer came");
}

#[test]
fn after_the_hold_it_is_repeated_while_the_line_is_still_listened_to() {
    let upstream = Upstream::start();
    upstream.fail(Point::Dot, Fault::Slow(Duration::from_secs(5)), 1);
    let relay = Relay::setup().upstream(&upstream, "data_timeout = \"60s\"").tables(FAST).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("slower than its hold"));
    wait_until("the repeat is taken", Duration::from_secs(4), || {
        life(&relay, &id)["attempts"][1]["outcome"] == "accepted"
    });
    assert!(life(&relay, &id)["events"].to_string().contains("may_arrive_twice"), "it is announced");
    assert_eq!(life(&relay, &id)["attempts"][0]["outcome"], "unsure");
    wait_until("the first answer is taken as well", Duration::from_secs(10), || {
        life(&relay, &id)["attempts"][0]["outcome"] == "accepted"
    });
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_dot_that_is_never_answered_is_unsure_after_its_time_out() {
    let upstream = Upstream::start();
    upstream.fail(Point::Dot, Fault::Hang, 1);
    let relay = Relay::setup().upstream(&upstream, "data_timeout = \"1s\"").tables(FAST).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("never"));
    upstream.wait_for_within(1, Duration::from_secs(20));
    wait_until("it is done", Duration::from_secs(10), || {
        life(&relay, &id)["deliveries"][0]["known"] == "handed"
    });
    let life = life(&relay, &id);
    assert_eq!(life["attempts"][0]["outcome"], "unsure", "{life}");
}

#[test]
fn the_hold_runs_from_hand_over_not_from_the_end_of_listening() {
    let upstream = Upstream::start();
    upstream.fail(Point::Dot, Fault::Hang, 1);
    let long = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"1h\"\n";
    let relay = Relay::setup().upstream(&upstream, "data_timeout = \"2s\"").tables(long).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("since"));
    wait_until("it is held", Duration::from_secs(15), || {
        life(&relay, &id)["deliveries"][0]["state"] == "unsure"
    });
    let life = life(&relay, &id);
    let at = |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let held = at(&life["deliveries"][0]["until"]).duration_since(at(&life["attempts"][0]["answered_at"]));
    let spent_listening = Duration::from_secs(3600) - Duration::try_from(held).unwrap();
    assert!(spent_listening >= Duration::from_millis(1900), "{life}");
}

#[test]
fn a_next_hop_that_stops_reading_in_the_body_was_not_handed_it() {
    let upstream = Upstream::start();
    upstream.fail(Point::Body(100_000), Fault::Stall, 1);
    let long = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"1h\"\n";
    let relay = Relay::setup().upstream(&upstream, "timeout = \"1s\"").tables(long).start();
    let raw = crate::support::mailgen::sized("stalled", 20_000_000);
    let id = relay.submit("a@example.org", &["ok@example.com"], &raw);
    upstream.wait_for_within(1, Duration::from_secs(40));
    assert_ne!(life(&relay, &id)["attempts"][0]["outcome"], "unsure");
}

#[test]
fn restarts_do_not_begin_a_hold_anew() {
    let upstream = Upstream::start();
    upstream.fail(Point::Dot, Fault::Close, 1);
    let hold = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"5s\"\n";
    let mut relay = Relay::setup().upstream(&upstream, "").tables(hold).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("restarts"));
    wait_until("it is held", Duration::from_secs(15), || {
        life(&relay, &id)["deliveries"][0]["state"] == "unsure"
    });
    // Each is up for less than the hold.
    let again = (0..12).any(|_| {
        relay.stop();
        relay.restart();
        holds_within(Duration::from_millis(1500), || upstream.count() > 0)
    });
    assert!(again, "held for ever: {}", life(&relay, &id));
}

#[test]
fn mail_bound_to_an_esp_that_is_gone_goes_to_another_after_one_more_hold_and_holds_up_no_other() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Dot, Fault::Close);
    let hold = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"3s\"\n";
    let mut relay = Relay::setup().upstream(&upstream, "max_connections = 4").tables(hold).start();
    let bound: Vec<String> = (0..3)
        .map(|n| relay.submit("a@example.org", &["ok@example.com"], &plain(&format!("bound{n}"))))
        .collect();
    wait_until("an attempt of each is open", Duration::from_secs(30), || {
        bound.iter().all(|id| life(&relay, id)["attempts"][0]["outcome"] == "unsure")
    });
    relay.stop();
    let config = relay.folder().join("postroad.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("name = \"up1\"", "name = \"another\"")).unwrap();
    upstream.heal();
    relay.restart();
    let other = relay.submit("a@example.org", &["ok@example.com"], &plain("other"));
    wait_until("other mail goes at once", Duration::from_secs(2), || {
        life(&relay, &other)["deliveries"][0]["state"] == "done"
    });
    wait_until("it is told", Duration::from_secs(20), || {
        relay.log().contains("up1, which is not configured")
    });
    upstream.wait_for_within(4, Duration::from_secs(20));
    for id in &bound {
        let events = life(&relay, id)["events"].to_string();
        assert!(events.contains("retry_any") && events.contains("may_arrive_twice"), "{events}");
    }
    assert_eq!(upstream.count(), 4, "each once, by what is known");
}

#[test]
fn what_its_esp_will_not_repeat_goes_to_another_after_one_more_hold() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail(Point::Dot, Fault::Close, 1);
    let hold = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"3s\"\n";
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(hold).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("not again"));
    wait_until("its attempt is open", Duration::from_secs(10), || {
        life(&relay, &id)["attempts"][0]["outcome"] == "unsure"
    });
    a.fail_always(Point::RcptOf("ok@"), Fault::Reply("451 4.7.1 come back"));
    b.wait_for_within(1, Duration::from_secs(20));
    let events = life(&relay, &id)["events"].to_string();
    assert!(events.contains("retry_any") && events.contains("may_arrive_twice"), "{events}");
}

/// Held for a minute, far longer than its ESP's time-out.
const HELD: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"1m\"\n";

fn postmark(mark: &Postmark) -> String {
    let (url, key) = (mark.url(), mark.key());
    format!(
        "[[esp]]\nname = \"mark\"\ntype = \"postmark\"\nserver_token = \"{key}\"\nendpoint = \"{url}\"\n\
         transport = \"api\"\ntimeout = \"1s\"\nmax_connections = 1\n"
    )
}

#[test]
fn an_answer_that_comes_late_settles_what_is_held() {
    let mark = Postmark::start();
    mark.suppress("gone@example.com");
    let relay = Relay::setup().tables(&postmark(&mark)).tables(HELD).start();
    for (to, last, reason) in
        [("ok@example.com", "accepted", "null"), ("gone@example.com", "refused", "\"refused\"")]
    {
        mark.fail(EspFault::Slow(Duration::from_secs(6)), 1);
        let raw = format!("From: shop@example.org\r\nTo: {to}\r\nSubject: late\r\n\r\nhello\r\n");
        let id = relay.submit("shop@example.org", &[to], raw.as_bytes());
        wait_until("it is held", Duration::from_secs(10), || {
            life(&relay, &id)["deliveries"][0]["state"] == "unsure"
        });
        wait_until("its answer is taken", Duration::from_secs(15), || {
            life(&relay, &id)["deliveries"][0]["state"] == "done"
        });
        let life = life(&relay, &id);
        assert_eq!(life["attempts"].as_array().map(Vec::len), Some(1), "{life}");
        assert_eq!(life["attempts"][0]["outcome"], last, "{life}");
        assert_eq!(life["deliveries"][0]["reason"].to_string(), reason, "{life}");
    }
    assert_eq!(mark.copies(), ["ok@example.com"]);
}

#[test]
fn a_late_answer_of_an_smtp_server_settles_what_is_held() {
    let upstream = Upstream::start();
    upstream.fail(Point::Dot, Fault::Slow(Duration::from_secs(5)), 1);
    let relay = Relay::setup().upstream(&upstream, "data_timeout = \"1s\"").tables(HELD).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("late"));
    wait_until("it is held", Duration::from_secs(10), || {
        life(&relay, &id)["deliveries"][0]["state"] == "unsure"
    });
    wait_until("its answer is taken", Duration::from_secs(15), || {
        life(&relay, &id)["deliveries"][0]["known"] == "handed"
    });
    let life = life(&relay, &id);
    assert_eq!(life["attempts"].as_array().map(Vec::len), Some(1), "{life}");
    assert_eq!((upstream.count(), life["attempts"][0]["outcome"].as_str()), (1, Some("accepted")), "{life}");
}

#[test]
fn what_is_listened_to_keeps_no_connection_from_other_mail_and_no_relay_from_its_stop() {
    let mark = Postmark::start();
    mark.fail(EspFault::TakeThenHang, 1);
    let mut relay = Relay::setup().tables(&postmark(&mark)).tables(HELD).start();
    let raw = b"From: shop@example.org\r\nTo: ok@example.com\r\nSubject: lost\r\n\r\nhello\r\n";
    let lost = relay.submit("shop@example.org", &["ok@example.com"], raw);
    wait_until("it is held", Duration::from_secs(10), || {
        life(&relay, &lost)["deliveries"][0]["state"] == "unsure"
    });
    let next = relay.submit("shop@example.org", &["ok@example.com"], raw);
    wait_until("the next went through its only connection", Duration::from_secs(20), || {
        life(&relay, &next)["deliveries"][0]["state"] == "done"
    });
    assert_eq!(life(&relay, &lost)["deliveries"][0]["state"], "unsure", "and it is still held");
    relay.terminate();
    assert!(relay.ended_within(Duration::from_secs(5)).is_some(), "its stop waited for the answer");
}

#[test]
fn what_waits_for_its_answer_at_an_orderly_stop_is_held_and_no_crash() {
    let upstream = Upstream::start();
    upstream.fail(Point::Dot, Fault::Hang, 1);
    let mut relay = Relay::setup().upstream(&upstream, "data_timeout = \"10m\"").tables(HELD).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("at a stop"));
    wait_until("it is handed over", Duration::from_secs(10), || upstream.unanswered().len() == 1);
    relay.stop();
    relay.restart();
    let told = life(&relay, &id);
    assert_eq!(told["deliveries"][0]["state"], "unsure", "{told}");
    assert_eq!(told["attempts"][0]["outcome"], "unsure", "{told}");
    let text = relay.cli(&["explain", &id]).must(0).out;
    assert!(!text.contains("crashed"), "nobody saw no hand-over: {text}");
}
