//! An upstream that refuses whom a message comes from is not given mail of exactly that sender: the envelope's address
//! where it said so at MAIL, the From domain where it said so after DATA.

use std::time::Duration;

use super::failover::subjects;
use crate::support::mailgen::plain;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

const ONCE: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1h\"\n";
const SOON: Duration = Duration::from_secs(10);

/// A message From that address.
fn mail_from(from: &str, subject: &str) -> Vec<u8> {
    let text = String::from_utf8(plain(subject)).unwrap();
    let own = text.lines().find(|l| l.starts_with("From:")).unwrap();
    text.replacen(own, &format!("From: {from}"), 1).into_bytes()
}

/// The alerts about senders, in the log's words.
fn alerts(relay: &Relay) -> Vec<String> {
    let told = |l: &&str| l.contains("sender_refused") && l.contains("\"error\"");
    relay.log().lines().filter(told).map(str::to_owned).collect()
}

fn commands_with(upstream: &Upstream, word: &str) -> usize {
    upstream.commands().iter().filter(|(_, line)| line.contains(word)).count()
}

#[test]
fn an_address_refused_at_mail_closes_neither_a_domain_nor_whose_header_it_bore() {
    let a = Upstream::start();
    a.fail_always(Point::MailOf("b@evil.test"), Fault::Reply("550 5.7.1 evil.test not allowed"));
    a.fail_always(Point::MailOf("bad@example.com"), Fault::Reply("550 5.1.8 bad sender address"));
    let relay = Relay::setup().upstream(&a, "").tables(ONCE).start();
    let to = ["u@example.net"];
    let first = relay.submit("b@evil.test", &to, &mail_from("shop@example.com", "forged"));
    relay.submit("bad@example.com", &to, &mail_from("shop@example.com", "misspelt"));
    wait_until("both are told", SOON, || alerts(&relay).len() == 2);

    relay.submit("ok@example.com", &to, &mail_from("shop@example.com", "the shop's"));
    relay.submit("c@evil.test", &to, &mail_from("c@evil.test", "another's there"));
    a.wait_for_within(2, SOON);
    assert_eq!(subjects(&a), ["the shop's", "another's there"]);

    let told = alerts(&relay).concat();
    for word in ["up1: refuses MAIL FROM:<b@evil.test>", "up1: refuses MAIL FROM:<bad@example.com>"] {
        assert!(told.contains(word), "{word} is not in {told}");
    }
    assert!(!told.contains("mail From"), "{told}");
    assert_eq!(relay.metric("postroad_alerts_total"), 2.0);

    let again = relay.submit("b@evil.test", &to, &mail_from("shop@example.com", "forged again"));
    let why = "refused MAIL FROM:<b@evil.test>; asked again from";
    for id in [&first, &again] {
        let said = relay.cli(&["explain", id]).must(0).out;
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(commands_with(&a, "b@evil.test"), 1, "it is not asked again");
}

#[test]
fn what_one_refuses_at_mail_the_other_carries() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::MailOf("b@evil.test"), Fault::Reply("550 5.7.1 not allowed"));
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(ONCE).start();
    relay.submit("b@evil.test", &["u@example.net"], &plain("one"));
    b.wait_for_within(1, SOON);
    wait_until("it is told", SOON, || !alerts(&relay).is_empty());
    relay.submit("b@evil.test", &["u@example.net"], &plain("two"));
    relay.submit("a@example.org", &["u@example.net"], &plain("three"));
    b.wait_for_within(2, SOON);
    a.wait_for_within(1, SOON);
    assert_eq!((subjects(&b), subjects(&a)), (vec!["one".into(), "two".into()], vec!["three".into()]));
    assert_eq!((alerts(&relay).len(), commands_with(&a, "b@evil.test")), (1, 1), "{:?}", alerts(&relay));
}

#[test]
fn what_one_refuses_while_the_other_is_shut_goes_out_once_that_is_back() {
    let (a, mut b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::MailOf("b@evil.test"), Fault::Reply("550 5.7.1 not allowed"));
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(ONCE).start();
    b.shut();
    relay.cli(&["esp", "suspend", "up1", "--reason", "the other alone"]).must(0);
    for n in 0..3 {
        relay.submit("a@example.org", &["u@example.net"], &plain(&format!("no way {n}")));
    }
    let gate = || relay.cli(&["esp", "list", "--json"]).must(0).out;
    wait_until("its gate is shut", SOON, || relay.log().contains("\"esp_shut\""));
    relay.cli(&["esp", "resume", "up1"]).must(0);
    let id = relay.submit("b@evil.test", &["u@example.net"], &plain("refused by one"));
    let life = || relay.get(&format!("/v1/messages/{id}")).unwrap().json();
    wait_until("it is refused", SOON, || life()["attempts"][0]["fault"] == "sender");
    assert_eq!(life()["attempts"][0]["esp"], "up1", "{} {}", life(), gate());
    b.reopen();
    wait_until("the other has it", SOON, || subjects(&b).contains(&"refused by one".to_owned()));
}

#[test]
fn what_is_said_of_the_command_is_the_paths_fault_and_closes_no_sender() {
    for said in
        ["503 5.5.1 nested MAIL command", "501 5.5.4 syntax", "555 5.5.4 unsupported option", "500 what"]
    {
        let (a, b) = (Upstream::start(), Upstream::start());
        a.fail(Point::Mail, Fault::Reply(said), 1);
        let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(ONCE).start();
        let id = relay.submit("a@example.org", &["u@example.net"], &plain("odd"));
        b.wait_for_within(1, SOON);
        let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
        assert_eq!(life["attempts"][0]["fault"], "path", "{said}: {life}");
        relay.submit("a@example.org", &["u@example.net"], &plain("next"));
        a.wait_for_within(1, SOON);
        assert_eq!(alerts(&relay), [] as [String; 0], "{said}");
    }
}

#[test]
fn a_from_domain_refused_at_the_dot_is_closed_whatever_the_envelope_says() {
    let a = Upstream::start();
    a.fail(Point::Dot, Fault::Reply("554 Message rejected: Email address is not verified."), 1);
    let relay = Relay::setup().upstream(&a, "").tables(ONCE).start();
    let to = ["u@example.net"];
    relay.submit("a@example.org", &to, &mail_from("shop@shop.example", "unverified"));
    wait_until("it is told", SOON, || alerts(&relay).len() == 1);
    assert!(alerts(&relay)[0].contains("up1: refuses mail From shop.example"), "{:?}", alerts(&relay));
    let kept = relay.submit("c@example.org", &to, &mail_from("news@shop.example", "unverified too"));
    relay.submit("a@example.org", &to, &mail_from("a@example.org", "another's"));
    a.wait_for_within(1, SOON);
    assert_eq!(subjects(&a), ["another's"]);
    let said = relay.cli(&["explain", &kept]).must(0).out;
    assert!(said.contains("refused mail From shop.example; asked again from"), "{said}");
}
