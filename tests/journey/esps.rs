//! An operator's hand on the ESPs: suspend and resume, why mail goes where it goes, how a shut gate is seen and opened.

use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::mailgen::plain;
use crate::support::upstream::{Manner, Tls};
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

const BOUND: Duration = Duration::from_secs(15);

/// A relay that prefers the first.
fn two(a: &Upstream, b: &Upstream) -> Relay {
    Relay::setup().upstream(a, "").upstream(b, "").tables(FAST).start()
}

fn submit(relay: &Relay, subject: &str) -> String {
    relay.submit("a@example.org", &["ok@example.com"], &plain(subject))
}

/// One ESP, as `esp list` has it.
fn esp(relay: &Relay, name: &str) -> serde_json::Value {
    let lines = relay.cli(&["esp", "list", "--json"]).must(0).json();
    lines.into_iter().find(|line| line["name"] == name).unwrap()
}

#[track_caller]
fn wait_explained(relay: &Relay, id: &str, words: &str) -> String {
    let mut told = String::new();
    wait_until(&format!("explain says {words:?}"), BOUND, || {
        told = relay.cli(&["explain", id]).must(0).out;
        told.contains(words)
    });
    told
}

#[test]
fn a_suspended_one_gets_no_mail_until_it_is_resumed_also_over_a_restart() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let mut relay = two(&a, &b);
    submit(&relay, "before");
    a.wait_for_within(1, BOUND);
    let told = relay.cli(&["esp", "suspend", "up1", "--reason", "invoice dispute"]).must(0).out;
    assert_eq!(told, "up1: suspended until it is resumed: invoice dispute\n");
    let id = submit(&relay, "while it is suspended");
    b.wait_for_within(1, BOUND);
    wait_explained(&relay, &id, "chosen: up2; up1: suspended: invoice dispute");
    let life = relay.cli(&["queue", "show", &id, "--json"]).must(0).json();
    assert_eq!(life[0]["attempts"][0]["choice"], "up2; up1: suspended: invoice dispute");
    let list = relay.cli(&["esp", "list"]).must(0).out;
    let row = list.lines().find(|l| l.starts_with("up1 ")).unwrap_or_else(|| panic!("{list}"));
    assert!(row.contains("suspended") && row.contains("invoice dispute"), "{list}");
    assert_eq!(relay.metric("postroad_esp_gate{esp=\"up1\"}"), 0.0);
    assert_eq!(relay.metric("postroad_esp_gate{esp=\"up2\"}"), 1.0);

    relay.stop();
    relay.restart();
    assert_eq!(esp(&relay, "up1")["suspension"]["reason"], "invoice dispute");
    submit(&relay, "after a restart");
    b.wait_for_within(2, BOUND);
    assert_eq!(a.count(), 1, "nothing went there since");

    assert_eq!(relay.cli(&["esp", "resume", "up1"]).must(0).out, "up1: resumed\n");
    submit(&relay, "after");
    a.wait_for_within(2, BOUND);
    assert_eq!(esp(&relay, "up1")["gate"], "open");
}

#[test]
fn a_suspension_for_a_time_ends_by_itself_and_what_waited_goes() {
    let a = Upstream::start();
    let relay = Relay::setup().upstream(&a, "").tables(FAST).start();
    let suspend = ["esp", "suspend", "up1", "--reason", "a pause", "--for", "2s", "--json"];
    let up1 = relay.cli(&suspend).must(0).json().remove(0);
    assert!(up1["suspension"]["until"].is_string(), "{up1}");
    let id = submit(&relay, "waits for two seconds");
    let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
    if esp(&relay, "up1")["gate"] == "suspended" {
        let why = life["now"][0]["esps"][0]["why"].as_str().unwrap_or_default();
        assert!(a.count() == 0 && why.starts_with("suspended until 2"), "{life}");
    }
    a.wait_for_within(1, BOUND);
    assert_eq!(esp(&relay, "up1")["gate"], "open");
}

#[test]
fn what_waits_is_told_with_who_is_next_and_goes_when_all_are_resumed() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let relay = two(&a, &b);
    for name in ["up1", "up2"] {
        relay.cli(&["esp", "suspend", name, "--reason", &format!("{name} is moved")]).must(0);
    }
    let id = submit(&relay, "nobody takes it");
    let told = relay.cli(&["explain", &id]).must(0).out;
    let nobody = "  now: no ESP takes it; up1: suspended: up1 is moved; up2: suspended: up2 is moved\n";
    assert!(told.contains(nobody), "{told}");
    relay.cli(&["esp", "resume", "up2"]).must(0);
    b.wait_for_within(1, BOUND);
    wait_explained(&relay, &id, "chosen: up2; up1: suspended: up1 is moved");
    assert_eq!(a.count(), 0);
}

#[test]
fn resolve_names_every_esp_with_its_reason() {
    let (a, b, c) = (Upstream::start(), Upstream::start(), Upstream::start());
    let relay = Relay::setup()
        .upstream(&a, "")
        .upstream(&b, "recipients = [\"@corp.example.com\"]")
        .upstream(&c, "domains = [\"shop.example\"]")
        .tables(FAST)
        .start();
    let resolve = |from: &str, to: &str| {
        let lines = relay.cli(&["resolve", from, to, "--json"]).must(0).json();
        assert_eq!(lines.len(), 3, "every ESP is named: {lines:?}");
        let said = |line: &serde_json::Value| {
            let (name, why) = (line["name"].as_str().unwrap(), line["why"].as_str().unwrap_or("takes it"));
            format!("{name}: {why}")
        };
        lines.iter().map(said).collect::<Vec<_>>()
    };
    assert_eq!(
        resolve("app@shop.example", "you@example.net"),
        ["up1: takes it", "up3: takes it", "up2: carries only @corp.example.com"]
    );
    assert_eq!(
        resolve("<>", "you@corp.example.com"),
        [
            "up2: takes it",
            "up1: @corp.example.com goes only to the ESP that names it in recipients",
            "up3: @corp.example.com goes only to the ESP that names it in recipients",
        ]
    );
    relay.cli(&["esp", "suspend", "up1", "--reason", "invoice dispute"]).must(0);
    assert_eq!(
        resolve("other.example", "you@example.net"),
        [
            "up1: suspended: invoice dispute",
            "up2: carries only @corp.example.com",
            "up3: carries only mail From shop.example"
        ]
    );
    let people = relay.cli(&["resolve", "app@shop.example", "you@example.net"]).must(0).out;
    assert!(people.ends_with("up3 would carry it; stream transactional\n"), "{people}");
    assert_eq!(a.count() + b.count() + c.count(), 0, "nothing is sent");
}

#[test]
fn names_that_are_not_there_exit_3_and_without_a_relay_4() {
    let a = Upstream::start();
    let mut relay = Relay::to(&a);
    for line in [
        &["esp", "resume", "up9"][..],
        &["esp", "suspend", "up9", "--reason", "x"],
        &["resolve", "<>", "a@b.example", "--stream", "none"],
    ] {
        let ran = relay.cli(line).must(3);
        assert!(ran.err.contains("there is no") && ran.err.contains("there are:"), "{ran:?}");
    }
    for line in [&["resolve", "a@b@c", "a@b.example"][..], &["esp", "suspend", "up1"]] {
        relay.cli(line).must(2);
    }
    relay.stop();
    for line in [
        &["esp", "list"][..],
        &["esp", "resume", "up1"],
        &["esp", "suspend", "up1", "--reason", "x"],
        &["resolve", "<>", "a@b.example"],
    ] {
        relay.cli(line).must(4);
    }
}

#[test]
fn a_shut_gate_is_listed_with_its_words_and_resume_opens_it() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::Banner, Fault::Reply("421 4.3.2 shutting down for repairs"));
    let relay = two(&a, &b);
    let shut = || {
        submit(&relay, "goes through the other");
        esp(&relay, "up1")["gate"] == "shut"
    };
    wait_until("its gate shuts", BOUND, shut);
    let up1 = esp(&relay, "up1");
    assert!(up1["why"].as_str().unwrap().contains("shutting down for repairs"), "{up1}");
    assert!(up1["last_error"]["said"].as_str().unwrap().contains("shutting down for repairs"), "{up1}");
    let list = relay.cli(&["esp", "list"]).must(0).out;
    assert!(list.contains("takes no mail now: "), "{list}");
    let id = submit(&relay, "meanwhile");
    wait_explained(&relay, &id, "chosen: up2; up1: takes no mail now: ");
    assert_eq!(relay.metric("postroad_alerts_total{kind=\"esp_shut\"}"), 1.0);

    a.heal();
    relay.cli(&["esp", "resume", "up1"]).must(0);
    submit(&relay, "after");
    a.wait_for_within(1, BOUND);
    assert_eq!(esp(&relay, "up1")["gate"], "open", "at once, not ever more of it");
}

#[test]
fn who_is_next_is_judged_by_the_from_of_the_header() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let mut relay = Relay::setup()
        .upstream(&a, "domains = [\"shop.example\"]")
        .upstream(&b, "domains = [\"other.example\"]")
        .tables(FAST)
        .start();
    relay.cli(&["esp", "suspend", "up1", "--reason", "invoice dispute"]).must(0);
    let raw = b"From: Shop <app@shop.example>\r\nTo: ok@example.com\r\nSubject: whose\r\n\r\nhello\r\n";
    let id = relay.submit("bounces@other.example", &["ok@example.com"], raw);
    let told = relay.cli(&["explain", &id]).must(0).out;
    let nobody =
        "now: no ESP takes it; up1: suspended: invoice dispute; up2: carries only mail From other.example";
    assert!(told.contains(nobody), "{told}");
    // Without a relay nobody knows how they stand.
    relay.stop();
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(told.contains("waiting") && !told.contains("now: "), "{told}");
}

#[test]
fn a_spent_limit_is_listed_with_when_there_is_more() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let relay = Relay::setup().upstream(&a, "hourly_limit = 1").upstream(&b, "").tables(FAST).start();
    // Until the ledger has told what is left, the other carries it.
    let spent = || {
        submit(&relay, "one of these is allowed");
        esp(&relay, "up1")["why"]
            .as_str()
            .is_some_and(|why| why.starts_with("its hourly_limit of 1 is spent; more at 2"))
    };
    wait_until("its limit is spent", BOUND, spent);
    a.wait_for_within(1, BOUND);
    let up1 = esp(&relay, "up1");
    assert_eq!((&up1["gate"], &up1["allowance_remaining"]), (&"open".into(), &0.into()), "{up1}");
    let sent = b.count();
    submit(&relay, "goes through the other");
    b.wait_for_within(sent + 1, BOUND);
    assert_eq!(a.count(), 1);
    assert_eq!(esp(&relay, "up2").get("allowance_remaining"), None);
    let metrics = relay.get("/metrics").unwrap().body;
    assert!(metrics.contains("postroad_esp_allowance_remaining{esp=\"up1\"} 0\n"), "{metrics}");
    assert!(!metrics.contains("postroad_esp_allowance_remaining{esp=\"up2\"}"), "{metrics}");
}

#[test]
fn a_pause_of_all_keeps_mail_here_over_a_restart_until_it_is_lifted() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let mut relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(FAST).start();
    let told = relay.cli(&["pause", "--reason", "moving the database"]).must(0).out;
    assert!(told.contains("all sending is paused: moving the database"), "{told}");
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("paused"));
    relay.cli(&["esp", "resume", "up1"]).must(0);
    relay.kill();
    relay.restart();
    relay.submit("a@example.org", &["ok@example.com"], &plain("paused too"));
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(
        told.contains("waiting") && told.contains("all sending is paused: moving the database"),
        "{told}"
    );
    let listed = relay.cli(&["esp", "list", "--json"]).must(0).json();
    assert!(listed.iter().all(|esp| esp["gate"] == "paused"), "{listed:?}");
    relay.cli(&["queue", "flush"]).must(0);
    assert_eq!((a.count(), b.count()), (0, 0));
    assert_eq!(relay.cli(&["unpause"]).must(0).out, "sending goes on\n");
    wait_until("both arrive", Duration::from_secs(10), || a.count() + b.count() == 2);
}

#[test]
fn a_test_logs_in_and_sends_one_mail_where_it_is_asked_to() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let relay = two(&a, &b);
    b.fail_always(Point::Banner, Fault::Reply("554 5.3.2 closed for the night"));
    let told = relay.cli(&["esp", "test", "up1"]).must(0).out;
    let steps: Vec<&str> = told.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(steps, ["resolve", "connect", "banner", "ehlo", "auth", "up1:"], "{told}");
    assert!(told.contains("no login configured") && told.contains("PIPELINING"), "{told}");
    assert!(told.contains("STARTTLS is not offered, this line is without TLS"), "{told}");
    let secure = Upstream::with(Manner { tls: Tls::Starting, ..Manner::default() });
    let plainly = Relay::to(&secure);
    let told = plainly.cli(&["esp", "test", "up1"]).must(0).out;
    assert!(told.contains("STARTTLS is offered and not used, this line is without TLS"), "{told}");
    let ran = relay.cli(&["esp", "test", "up2"]);
    assert!(
        ran.code == 1 && ran.out.contains("failed: 554 5.3.2 closed for the night"),
        "{} {}",
        ran.out,
        ran.err
    );
    assert_eq!(relay.cli(&["esp", "test", "nobody"]).code, 3);
    assert_eq!((a.count(), b.count()), (0, 0), "nothing was sent");
    let send = ["esp", "test", "up1", "--send", "you@example.com", "--from", "app@example.org"];
    let told = relay.cli(&send).must(0).out;
    assert!(told.contains("queued as ") && !told.contains("ready for mail"), "{told}");
    let received = a.wait_for(1);
    assert_eq!(received[0].to, ["<you@example.com>"]);
}

#[test]
fn a_test_tells_each_step_up_to_the_certificate_and_the_login() {
    let manner =
        Manner { tls: Tls::Starting, auth: Some(("PLAIN LOGIN", "u", "right-1")), ..Manner::default() };
    let upstream = Upstream::with(manner);
    let esp = |password| {
        let login = format!("username = \"u\"\npassword = \"{password}\"\nca_file = \"@DIR@/ca.pem\"");
        format!("{login}\ntls = \"starttls\"\n")
    };
    let setup = Relay::setup().upstream(&upstream, &esp("right-1")).upstream(&upstream, &esp("wr0ng-pass"));
    let relay = setup.start();
    let told = relay.cli(&["esp", "test", "up1", "--json"]).must(0).json();
    let steps = told[0]["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(
        names,
        ["resolve", "connect", "banner", "ehlo", "starttls", "tls", "ehlo", "auth"],
        "{told:?}"
    );
    assert!(steps.iter().all(|step| step["ok"] == true && step["took_seconds"].is_number()), "{told:?}");
    let tls = steps[5]["said"].as_str().unwrap();
    assert!(tls.starts_with("TLS 1.3") && tls.contains("for localhost, 127.0.0.1, until "), "{tls}");
    assert!(steps[7]["said"].as_str().is_some_and(|said| said.starts_with("PLAIN as u: 235")), "{told:?}");

    let ran = relay.cli(&["esp", "test", "up2", "--json"]).must(1);
    let steps = &ran.json()[0]["steps"];
    let last = steps.as_array().and_then(|steps| steps.last()).unwrap();
    assert_eq!((&last["step"], &last["ok"]), (&"auth".into(), &false.into()), "{ran:?}");
    assert!(last["said"].as_str().is_some_and(|said| said.starts_with("535")), "{ran:?}");
    assert!(!format!("{ran:?}").contains("wr0ng"), "{ran:?}");
}
