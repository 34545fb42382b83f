//! How much an ESP may be given, whom it carries, and what it says when it wants no more.

use std::time::Duration;

use postroad::clock::{Clock, System, monotonic};

use super::failover::subjects;
use super::partial_recipients::FAST;
use crate::support::mailgen::plain;
use crate::support::upstream::Received;
use crate::support::wait::holds_within;
use crate::support::{Client, Fault, Point, Relay, Upstream, wait_until};

const SECOND: Duration = Duration::from_secs(1);
/// A machine with other things to do may let messages leave late by so much.
const LATE: Duration = Duration::from_millis(300);

fn submit_all(relay: &Relay, prefix: &str, range: std::ops::Range<usize>) -> Vec<String> {
    let mut client = relay.client();
    range
        .map(|n| client.submit("a@example.org", &["ok@example.com"], &plain(&format!("{prefix} {n}"))))
        .collect()
}

fn mails(upstream: &Upstream) -> usize {
    upstream.commands().iter().filter(|(_, c)| c.starts_with("MAIL")).count()
}

fn life(relay: &Relay, id: &str) -> serde_json::Value {
    relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default()
}

/// ESPs of a message's attempts, in order.
fn tried_at(relay: &Relay, id: &str) -> Vec<String> {
    let life = life(relay, id);
    let attempts = life["attempts"].as_array().cloned().unwrap_or_default();
    attempts.iter().filter_map(|a| a["esp"].as_str().map(str::to_owned)).collect()
}

fn alerts(relay: &Relay, kind: &str) -> usize {
    let word = format!("\"{kind}\"");
    relay.log().lines().filter(|l| l.contains("\"alert\"") && l.contains(&word)).count()
}

/// All of them once, wherever they went.
fn arrived(upstreams: &[&Upstream]) -> Vec<String> {
    let mut all: Vec<String> = upstreams.iter().flat_map(|u| subjects(u)).collect();
    all.sort();
    all.dedup();
    all
}

/// Fails where these came faster than so many a second, or in bursts, but for what was late.
fn assert_even(received: &[Received], rate: u32) {
    let mut times: Vec<_> = received.iter().map(|r| r.began).collect();
    times.sort();
    let spacing = SECOND / rate;
    for (n, first) in times.iter().enumerate() {
        for (more, at) in times[n..].iter().enumerate() {
            let (took, least) = (at.duration_since(*first), spacing * more as u32);
            assert!(took + LATE >= least, "{} within {took:?}, at {rate} a second", more + 1);
        }
    }
    let gaps: Vec<Duration> = times.windows(2).map(|t| t[1].duration_since(t[0])).collect();
    let close = gaps.iter().filter(|gap| **gap < spacing / 2).count();
    assert!(close * 2 <= gaps.len(), "{close} of {} came close after another: {gaps:?}", gaps.len());
    let in_a_second =
        |first: &_| times.iter().filter(|t| *t >= first && t.duration_since(*first) < SECOND).count();
    let most = times.iter().map(in_a_second).max();
    println!("at most {most:?} in a second; {close} of {} gaps below half the spacing", gaps.len());
}

#[test]
fn a_rate_spaces_mail_evenly_also_over_a_restart() {
    let upstream = Upstream::start();
    let mut relay = Relay::setup().upstream(&upstream, "rate = \"20/s\"").tables(FAST).start();
    submit_all(&relay, "rate", 0..60);
    upstream.wait_for(25);
    relay.stop();
    relay.restart();
    let received = upstream.wait_for(60);
    assert_eq!(arrived(&[&upstream]).len(), 60);
    assert_eq!(received.len(), 60, "none twice");
    assert_even(&received, 20);
}

#[test]
fn nothing_is_saved_up_while_nothing_is_sent() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "rate = \"20/s\"").start();
    submit_all(&relay, "first", 0..1);
    upstream.wait_for(1);
    assert!(!holds_within(SECOND, || upstream.count() > 1));
    submit_all(&relay, "then", 0..30);
    assert_even(&upstream.wait_for(31)[1..], 20);
}

#[test]
fn a_limit_holds_over_crashes_and_the_rest_goes_elsewhere() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let mut relay = Relay::setup().upstream(&a, "hourly_limit = 30").upstream(&b, "").tables(FAST).start();
    for round in 0..4 {
        submit_all(&relay, &format!("round {round}"), 0..15);
        wait_until("some of them", Duration::from_secs(20), || a.count() + b.count() > round * 15 + 5);
        if round < 3 {
            relay.kill();
            relay.restart();
        }
    }
    wait_until("all of them", Duration::from_secs(40), || arrived(&[&a, &b]).len() == 60);
    assert!(a.count() <= 30, "{} passed a limit of 30", a.count());
    // A block of one in hand, and what was being taken, are lost with each crash.
    assert!(a.count() >= 20, "{} of 30", a.count());
    println!("{} through the first, {} through the second", a.count(), b.count());
}

#[test]
fn where_the_only_one_is_spent_mail_waits_and_is_not_refused() {
    let a = Upstream::start();
    let mut relay = Relay::setup().upstream(&a, "hourly_limit = 5").tables(FAST).start();
    let ids = submit_all(&relay, "few", 0..12);
    a.wait_for(5);
    assert!(!holds_within(SECOND * 2, || a.count() > 5));
    let of =
        |state: &str| ids.iter().filter(|id| life(&relay, id)["deliveries"][0]["state"] == state).count();
    assert_eq!((of("done"), of("waiting")), (5, 7));
    let waiting = ids.iter().find(|id| life(&relay, id)["deliveries"][0]["state"] == "waiting").unwrap();
    assert_eq!(tried_at(&relay, waiting), [] as [&str; 0], "nobody was asked");
    relay.cli(&["explain", waiting]).must(0);
    relay.kill();
    relay.restart();
    submit_all(&relay, "more", 0..2);
    assert!(!holds_within(SECOND * 2, || a.count() > 5), "a crash gives nothing back");
}

#[test]
fn what_an_orderly_stop_leaves_in_hand_comes_back() {
    let a = Upstream::start();
    let mut relay = Relay::setup().upstream(&a, "daily_limit = 200").tables(FAST).start();
    for round in 1..=4 {
        submit_all(&relay, "some", 0..1);
        a.wait_for(round);
        relay.stop();
        relay.restart();
    }
    submit_all(&relay, "rest", 0..200);
    a.wait_for(200);
    assert!(!holds_within(SECOND * 2, || a.count() > 200));
}

/// Addresses `PREFIX0@example.com`, ….
fn many(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}@example.com")).collect()
}

fn submit_to(client: &mut Client, to: &[String], subject: &str) -> String {
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    client.submit("a@example.org", &to, &plain(subject))
}

/// How many recipients each call of that subject had, in order.
fn sizes(upstream: &Upstream, subject: &str) -> Vec<usize> {
    let of_it = |r: &Received| r.header("Subject").as_deref() == Some(subject);
    upstream.received().iter().filter(|r| of_it(r)).map(|r| r.to.len()).collect()
}

/// Everybody who was mailed there, sorted.
fn mailed(upstreams: &[&Upstream]) -> Vec<String> {
    let mut all: Vec<String> = upstreams.iter().flat_map(|u| u.received()).flat_map(|r| r.to).collect();
    all.sort();
    all
}

#[test]
fn a_message_for_more_than_a_limit_allows_leaves_in_parts() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let relay = Relay::setup().upstream(&a, "daily_limit = 10").upstream(&b, "daily_limit = 15").start();
    let to = many("r", 20);
    let id = submit_to(&mut relay.client(), &to, "split");
    wait_until("all of them", SECOND * 10, || mailed(&[&a, &b]).len() == 20);
    let mut each: Vec<String> = to.iter().map(|to| format!("<{to}>")).collect();
    each.sort();
    assert_eq!(mailed(&[&a, &b]), each, "each once");
    // Where the first is being asked what is left of its limit, the second has more of it.
    let (at_a, at_b) = (mailed(&[&a]).len(), mailed(&[&b]).len());
    assert!(at_a <= 10 && at_b <= 15, "{at_a} and {at_b}");

    // Five are left for ten.
    let id2 = submit_to(&mut relay.client(), &many("s", 10), "rest");
    wait_until("some of it", SECOND * 10, || (mailed(&[&a]).len(), mailed(&[&b]).len()) == (10, 15));
    let states = |id: &str, state: &str| {
        let life = life(&relay, id);
        let all = life["deliveries"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|d| d["state"] == state).count()
    };
    wait_until("it is settled", SECOND * 5, || states(&id2, "done") == 5);
    assert_eq!((states(&id, "done"), states(&id2, "waiting")), (20, 5));
    let told = relay.cli(&["explain", &id2]).must(0).out;
    assert!(told.contains("its daily_limit of 10 is spent") && !told.contains("less than"), "{told}");
    assert!(!holds_within(SECOND, || mailed(&[&a, &b]).len() > 25), "no limit is passed");
}

#[test]
fn a_campaign_leaves_its_reserve_and_is_told_when_there_is_more() {
    let a = Upstream::start();
    let relay = Relay::setup().upstream(&a, "hourly_limit = 100").listener("stream = \"broadcast\"").start();
    let id = submit_to(&mut relay.client(), &many("r", 97), "news");
    wait_until("what it may have", SECOND * 10, || mailed(&[&a]).len() == 95);
    let waits = || relay.cli(&["explain", &id]).must(0).out;
    wait_until("the reason is told", SECOND * 10, || {
        waits().contains("kept for transactional mail; more at")
    });
    let told = waits();
    let at =
        told.split("; more at ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    let soon = System.now().plus(50 * 60 * SECOND).to_string();
    assert!(*at > *soon, "the first of it counts for an hour, not until {at}");
    assert!(!holds_within(SECOND * 2, || mailed(&[&a]).len() > 95));
}

#[test]
fn a_rate_spaces_the_recipients_of_one_message_and_lets_a_receipt_pass() {
    let a = Upstream::start();
    let relay =
        Relay::setup().upstream(&a, "rate = \"5/s\"").listener("stream = \"broadcast\"").listener("").start();
    submit_to(&mut Client::hello(relay.listener(0)), &many("r", 40), "news");
    a.wait_for(1);
    let began = monotonic();
    submit_to(&mut Client::hello(relay.listener(1)), &many("ok", 1), "receipt");
    wait_until("the receipt", SECOND * 10, || sizes(&a, "receipt") == [1]);
    let took = began.elapsed();
    assert!(took < SECOND * 2, "the receipt waited {took:?}");
    wait_until("all of it", SECOND * 20, || mailed(&[&a]).len() == 41);
    assert!(sizes(&a, "news").iter().all(|n| *n <= 5), "{:?}", sizes(&a, "news"));
    let received = a.received();
    for (n, first) in received.iter().enumerate() {
        let mut before = 0;
        for next in &received[n..] {
            let allowed = 5.0 * (next.began.duration_since(first.began) + LATE).as_secs_f64();
            assert!(before as f64 <= allowed, "{before} before {:?}", next.began.duration_since(first.began));
            before += next.to.len();
        }
    }
}

#[test]
fn a_message_too_large_for_one_rate_goes_on_to_the_next_esp() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let relay = Relay::setup().upstream(&a, "rate = \"1/s\"").upstream(&b, "").start();
    submit_to(&mut relay.client(), &many("r", 50), "bulk");
    wait_until("all of it", SECOND * 3, || mailed(&[&a, &b]).len() == 50);
    assert!(sizes(&a, "bulk").iter().all(|n| *n == 1), "{:?}", sizes(&a, "bulk"));
}

#[test]
fn a_restart_amid_a_split_message_loses_and_doubles_nobody() {
    let a = Upstream::start();
    let mut relay = Relay::setup().upstream(&a, "rate = \"20/s\"").tables(FAST).start();
    let to = many("r", 60);
    submit_to(&mut relay.client(), &to, "split");
    for part in 1..3 {
        a.wait_for(part);
        relay.stop();
        relay.restart();
    }
    wait_until("all of them", SECOND * 20, || mailed(&[&a]).len() >= 60);
    let mut each: Vec<String> = to.iter().map(|to| format!("<{to}>")).collect();
    each.sort();
    assert_eq!(mailed(&[&a]), each);
}

const FROM_SHOP: &[u8] = b"From: a@shop.example\r\nTo: ok@example.com\r\nSubject: shop\r\n\r\nhello\r\n";

fn from_domain(domain: &str, subject: &str) -> Vec<u8> {
    format!("From: a@{domain}\r\nTo: ok@example.com\r\nSubject: {subject}\r\n\r\nhello\r\n").into_bytes()
}

#[test]
fn streams_recipients_domains_and_pins_lead_mail() {
    let (all, corp, shop) = (Upstream::start(), Upstream::start(), Upstream::start());
    let streams = "[[stream]]\nname = \"news\"\nkind = \"broadcast\"\nesps = [\"up3\"]\n";
    let pinned = "[[credential]]\nusername = \"pinned\"\npassword = \"secret\"\nesp = \"up3\"\n\
        [[credential]]\nusername = \"news\"\npassword = \"secret\"\nstream = \"news\"\n";
    let relay = Relay::setup()
        .upstream(&all, "domains = [\"example.org\", \"shop.example\"]")
        .upstream(&corp, "recipients = [\"@corp.example\", \"boss@other.example\"]")
        .upstream(&shop, "domains = [\"shop.example\"]")
        .listener("auth = \"optional\"")
        .tables(streams)
        .tables(pinned)
        .start();
    let mut plain_client = relay.client();
    plain_client.submit("a@example.org", &["ok@example.com"], &from_domain("example.org", "to all"));
    assert_eq!(all.wait_for(1)[0].to, ["<ok@example.com>"]);

    let both = ["ok@example.com", "x@corp.example", "boss@other.example", "clerk@other.example"];
    plain_client.submit("a@example.org", &both, &from_domain("example.org", "parted"));
    // One call for each entry.
    let mut to: Vec<String> = corp.wait_for(2).into_iter().flat_map(|r| r.to).collect();
    to.sort();
    assert_eq!(to, ["<boss@other.example>", "<x@corp.example>"]);
    let mut to = all.wait_for(2)[1].to.clone();
    to.sort();
    assert_eq!(to, ["<clerk@other.example>", "<ok@example.com>"]);

    let mut client = relay.client();
    assert_eq!(client.auth_plain("pinned", "secret").code, 235);
    client.submit("a@shop.example", &["ok@example.com"], FROM_SHOP);
    shop.wait_for(1);
    let mut client = relay.client();
    assert_eq!(client.auth_plain("news", "secret").code, 235);
    client.submit("a@shop.example", &["ok@example.com"], FROM_SHOP);
    shop.wait_for(2);
    assert_eq!((all.count(), corp.count()), (2, 2));

    // The stream's only ESP carries no such From.
    client.begin("a@example.org", &["ok@example.com"]);
    client.raw(&crate::support::smtp::stuffed(&from_domain("example.org", "nowhere")));
    let told = client.expect("554");
    for word in ["5.6.0", "up1", "up2", "up3", "goes through up3 only", "carries only mail From shop.example"]
    {
        assert!(told.raw.contains(word), "{word} is not in {}", told.raw);
    }
    let of_its_own = |esp: &str| told.lines().any(|line| line.contains(&format!("5.6.0 {esp}: ")));
    assert!(["up1", "up2", "up3"].iter().all(|esp| of_its_own(esp)), "{}", told.raw);
    // What is known before the content is said before it.
    client.say("MAIL FROM:<a@shop.example>").expect("250");
    let told = client.say("RCPT TO:<x@corp.example>").expect("550");
    assert!(told.raw.contains("up2") && told.raw.contains("5.7.1"), "{}", told.raw);
}

#[test]
fn what_is_pinned_waits_for_its_esp() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::Banner, Fault::Close);
    let pinned = "[[credential]]\nusername = \"pinned\"\npassword = \"secret\"\nesp = \"up1\"\n";
    let relay = Relay::setup()
        .upstream(&a, "")
        .upstream(&b, "")
        .listener("auth = \"optional\"")
        .tables(pinned)
        .tables(FAST)
        .start();
    let mut client = relay.client();
    assert_eq!(client.auth_plain("pinned", "secret").code, 235);
    let id = client.submit("a@example.org", &["ok@example.com"], &plain("pinned"));
    submit_all(&relay, "free", 0..8);
    b.wait_for(8);
    assert!(!holds_within(SECOND * 3, || subjects(&b).contains(&"pinned".to_owned())));
    a.heal();
    wait_until("it arrives where it belongs", Duration::from_secs(20), || subjects(&a) == ["pinned"]);
    let tried = tried_at(&relay, &id);
    assert!(tried.iter().all(|esp| esp == "up1"), "{tried:?}");
}

#[test]
fn one_that_asks_to_go_slower_is_paused_and_the_other_gets_the_mail() {
    for words in [
        "451 4.7.1 You are rate-limited, slow down",
        "421 4.7.0 try again later",
        "454 Throttling failure: Maximum sending rate exceeded.",
    ] {
        let (a, b) = (Upstream::start(), Upstream::start());
        a.fail_always(Point::Mail, Fault::Reply(words));
        let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(FAST).start();
        submit_all(&relay, "first", 0..1);
        b.wait_for_within(1, Duration::from_secs(5));
        let asked = mails(&a);
        let began = postroad::clock::monotonic();
        submit_all(&relay, "then", 0..40);
        b.wait_for_within(41, Duration::from_secs(10));
        // A pause lasts for a second; its end lets in as many as may be begun at a time.
        let pauses = began.elapsed().as_secs() as usize + 1;
        assert!(mails(&a) - asked <= pauses * 20, "{} asked within {pauses} s: {words}", mails(&a) - asked);
        assert_eq!(alerts(&relay, "esp_shut"), 0, "to be asked to go slower is no fault");
        a.heal();
        let mut n = 0;
        wait_until("it gets mail again", Duration::from_secs(10), || {
            n += 1;
            submit_all(&relay, "again", n..n + 1);
            a.count() > 0
        });
    }
}

#[test]
fn a_refused_sender_is_closed_at_that_esp_alone() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail(Point::Mail, Fault::Reply("553 5.7.1 shop.example is not verified here"), 1);
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(FAST).start();
    let submit = |domain: &str, subject: &str| {
        relay.submit(&format!("a@{domain}"), &["ok@example.com"], &from_domain(domain, subject))
    };
    submit("shop.example", "shop 0");
    b.wait_for(1);
    for n in 1..5 {
        submit("shop.example", &format!("shop {n}"));
    }
    b.wait_for(5);
    submit("other.example", "other");
    a.wait_for(1);
    assert_eq!(subjects(&a), ["other"], "another sender's goes there as before");
    assert_eq!(mails(&a), 2, "the closed one was not asked about again");
    wait_until("it is told", SECOND * 5, || alerts(&relay, "sender_refused") > 0);
    assert_eq!(alerts(&relay, "sender_refused"), 1);
    assert!(relay.log().contains("up1: refuses MAIL FROM:<a@shop.example>"), "{}", relay.log());
    let asked = |from: &str| {
        let answer = relay.get(&format!("/v1/resolve?from={from}&to=ok@example.com")).unwrap().json();
        let names = answer["esps"].as_array().unwrap().iter();
        names.map(|esp| (esp["name"].clone(), esp["why"].to_string())).collect::<Vec<_>>()
    };
    let standings = asked("a@shop.example");
    assert_eq!(standings[0].0, "up2");
    assert!(standings[1].1.contains("refused MAIL FROM:<a@shop.example>"), "{standings:?}");
    assert_eq!(asked("b@shop.example")[0].0, "up1", "another address of that domain may go there");
    let esps = relay.get("/esp-status").unwrap().json();
    assert_eq!(esps["esps"][0]["closed_senders"][0]["what"], "MAIL FROM:<a@shop.example>");
    assert!(esps["esps"][1].get("closed_senders").is_none());
}

#[test]
fn mail_that_waits_for_the_rate_is_told() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "rate = \"1/h\"").tables(FAST).start();
    relay.submit("a@example.org", &["ok@example.com"], &plain("the first of this hour"));
    upstream.wait_for(1);
    let esps = relay.get("/esp-status").unwrap().json();
    assert!(esps["esps"][0]["rate_opens_at"].is_string(), "{esps}");
    let resolved = relay.get("/v1/resolve?from=a@example.org&to=ok@example.com").unwrap().json();
    assert_eq!(resolved["esps"][0]["rate_opens_at"], esps["esps"][0]["rate_opens_at"]);
}

#[test]
fn a_sender_that_every_esp_refuses_waits_and_is_told() {
    let (a, b) = (Upstream::start(), Upstream::start());
    for upstream in [&a, &b] {
        upstream.fail_always(Point::Mail, Fault::Reply("550 5.1.8 sender unknown"));
    }
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(FAST).start();
    let ids: Vec<String> = (0..5)
        .map(|n| {
            relay.submit("a@shop.example", &["ok@example.com"], &from_domain("shop.example", &format!("{n}")))
        })
        .collect();
    wait_until("both have told", SECOND * 10, || alerts(&relay, "sender_refused") == 2);
    let mut asked = (0, 0);
    wait_until("what was under way has been answered", SECOND * 20, || {
        asked = (mails(&a), mails(&b));
        !holds_within(SECOND, || (mails(&a), mails(&b)) != asked)
    });
    assert!(!holds_within(SECOND * 4, || (mails(&a), mails(&b)) != asked), "they are asked again and again");
    for id in &ids {
        assert_eq!(life(&relay, id)["deliveries"][0]["state"], "waiting");
    }
    assert_eq!(alerts(&relay, "sender_refused"), 2);
    assert_eq!(alerts(&relay, "esp_shut"), 0, "a sender is no fault of the path");
}

#[test]
fn an_esp_that_refuses_everybody_is_itself_at_fault() {
    let a = Upstream::start();
    a.fail_always(Point::Rcpt(1), Fault::Reply("550 5.1.1 no such user"));
    let relay = Relay::setup().upstream(&a, "max_connections = 1").tables(FAST).start();
    let mut client = relay.client();
    let ids: Vec<String> = (0..10)
        .map(|n| {
            let id = client.submit("a@example.org", &[&format!("r{n}@example.com")], &plain(&format!("{n}")));
            wait_until("it is tried", SECOND * 10, || n > 6 || !tried_at(&relay, &id).is_empty());
            id
        })
        .collect();
    let reason = |id: &str| life(&relay, id)["deliveries"][0]["reason"].as_str().map(str::to_owned);
    for id in &ids[..4] {
        assert_eq!(reason(id).as_deref(), Some("refused"));
    }
    for id in &ids[4..] {
        assert_eq!(life(&relay, id)["deliveries"][0]["state"], "waiting", "{}", life(&relay, id));
    }
    wait_until("it is told", SECOND * 5, || alerts(&relay, "esp_refuses_everybody") == 1);

    a.heal();
    relay.cli(&["queue", "flush"]).must(0);
    // Beside the reports of those that were refused.
    let apps = || a.received().iter().filter(|r| r.mail.starts_with("<a@example.org>")).count();
    wait_until("they arrive after all", Duration::from_secs(60), || apps() == 6);
    wait_until("it is over", SECOND * 5, || {
        relay.log().lines().any(|l| l.contains("alert over") && l.contains("esp_refuses_everybody"))
    });
    a.fail_always(Point::Rcpt(1), Fault::Reply("550 5.1.1 no such user"));
    let id = client.submit("a@example.org", &["late@example.com"], &plain("late"));
    wait_until("a refusal bounces again", SECOND * 10, || reason(&id).as_deref() == Some("refused"));
    assert_eq!(alerts(&relay, "esp_refuses_everybody"), 1);
}

#[test]
fn good_mail_does_not_wait_behind_each_bad_address_in_turn() {
    let a = Upstream::start();
    a.fail_always(Point::RcptOf("bad"), Fault::Reply("550 5.1.1 no such user"));
    let relay = Relay::setup().server("dsn = \"off\"").upstream(&a, "").tables(FAST).start();
    let mut client = relay.client();
    for n in 0..60 {
        client.submit("a@example.org", &[&format!("bad{n}@example.com")], &plain(&format!("bad{n}")));
    }
    wait_until("it is told", SECOND * 10, || alerts(&relay, "esp_refuses_everybody") == 1);
    client.submit("a@example.org", &["good@example.com"], &plain("good"));
    let came = || a.received().iter().any(|r| r.to.iter().any(|to| to.contains("good@")));
    // One probe each five seconds would take four minutes to get behind them.
    wait_until("it comes", SECOND * 30, came);
}

#[test]
fn mail_that_waits_for_its_rate_or_its_quota_costs_no_cpu() {
    for limit in ["rate = \"2/s\"", "hourly_limit = 5"] {
        let upstream = Upstream::start();
        let relay = Relay::setup().upstream(&upstream, limit).tables(FAST).start();
        submit_all(&relay, "waits", 0..100);
        upstream.wait_for(3);
        let (began, before) = (monotonic(), relay.cpu());
        std::thread::sleep(2 * SECOND);
        let (took, cpu) = (began.elapsed(), relay.cpu() - before);
        assert!(cpu < took / 10, "{limit}: {cpu:?} of CPU in {took:?}");
    }
}
