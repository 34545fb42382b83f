//! A no at RCPT or DATA that is about the upstream, and not about a recipient or a message, bounces nothing while
//! another is well.

use std::time::Duration;

use super::failover::subjects;
use crate::support::mailgen::plain;
use crate::support::upstream::Received;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

const ONCE: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1h\"\n";
const SOON_AGAIN: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\n";
const SOON: Duration = Duration::from_secs(15);

#[test]
fn an_upstreams_own_no_sends_the_mail_elsewhere() {
    for (point, said, fault) in [
        (Point::Rcpt(1), "550 5.4.5 Daily sending quota exceeded", "throttled"),
        (Point::Data, "550 5.4.5 Daily sending quota exceeded", "throttled"),
        (Point::Rcpt(1), "503 5.5.1 need MAIL command", "path"),
        (Point::Rcpt(1), "500 5.5.2 command unrecognized", "path"),
        (Point::Data, "503 5.5.1 need RCPT command", "path"),
        (Point::Data, "502 5.5.1 not implemented", "path"),
        (Point::Mail, "550 your account is disabled", "account"),
        (Point::Rcpt(1), "550 5.7.1 your account has been suspended", "account"),
        (Point::Rcpt(1), "550 account suspended", "path"),
        (Point::Data, "550 account suspended", "account"),
        (Point::Data, "550 5.7.1 unable to relay", "path"),
        (Point::Dot, "550 account suspended", "account"),
        (Point::Dot, "554 5.7.1 relay access denied", "path"),
        (Point::Dot, "502 5.5.2 unrecognized command", "path"),
        (Point::Dot, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", "sender"),
    ] {
        let (a, b) = (Upstream::start(), Upstream::start());
        a.fail_always(point, Fault::Reply(said));
        let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(ONCE).start();
        let ids: Vec<String> = (0..6)
            .map(|n| {
                let to = format!("u{n}@example.com");
                relay.submit("a@example.org", &[&to], &plain(&format!("mail {n}")))
            })
            .collect();
        b.wait_for_within(6, SOON);
        let life = relay.get(&format!("/v1/messages/{}", ids[0])).unwrap().json();
        let first = &life["attempts"][0];
        assert_eq!(
            (first["esp"].as_str(), first["fault"].as_str()),
            (Some("up1"), Some(fault)),
            "{said}: {life}"
        );
        assert!(!relay.log().contains("bounced"), "{said}: {}", relay.log());
        assert_eq!(a.count(), 0, "{said}");
        if fault == "account" {
            let told = |l: &str| l.contains("esp_shut") && l.contains("account") && l.contains("\"error\"");
            assert!(relay.log().lines().any(told), "{said}: {}", relay.log());
        }
    }
}

#[test]
fn an_account_that_is_suspended_and_has_no_other_beside_it_keeps_its_mail_waiting() {
    let a = Upstream::start();
    a.fail_always(Point::Dot, Fault::Reply("550 account suspended"));
    let relay = Relay::setup().upstream(&a, "").tables(SOON_AGAIN).start();
    for n in 0..3 {
        relay.submit("a@example.org", &["u@example.com"], &plain(&format!("mail {n}")));
    }
    wait_until("it is told", SOON, || relay.log().contains("esp_shut"));
    a.heal();
    relay.cli(&["esp", "resume", "up1"]).must(0);
    a.wait_for_within(3, SOON);
    assert!(!relay.log().contains("bounced"), "{}", relay.log());
}

#[test]
fn an_account_that_is_the_recipients_own_is_bounced_alone() {
    for said in ["550 5.2.1 recipient's account disabled", "550 this account has been suspended"] {
        let (a, b) = (Upstream::start(), Upstream::start());
        a.fail_always(Point::RcptOf("gone@"), Fault::Reply(said));
        let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(ONCE).start();
        relay.submit("a@example.org", &["gone@example.com"], &plain("to one"));
        wait_until("it is bounced", SOON, || relay.log().contains("bounced"));
        relay.submit("a@example.org", &["ok@example.com"], &plain("next"));
        wait_until("the next has its mail", SOON, || subjects(&a).contains(&"next".to_owned()));
        let asked = b.commands().iter().filter(|(_, line)| line.contains("gone@")).count();
        assert_eq!(asked, 0, "{said}: nobody else is asked");
    }
}

#[test]
fn a_mailbox_over_its_quota_stays_the_recipients_own() {
    for said in ["550 mailbox over quota", "552 5.2.2 mailbox full, daily limit", "503 5.1.1 no such user"] {
        let (a, b) = (Upstream::start(), Upstream::start());
        a.fail_always(Point::RcptOf("full@"), Fault::Reply(said));
        let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(ONCE).start();
        relay.submit("a@example.org", &["full@example.com", "ok@example.com"], &plain("to two"));
        a.wait_for_within(1, SOON);
        wait_until("the full one is bounced", SOON, || relay.log().contains("bounced"));
        // Besides, the sender gets a report.
        let is_it = |r: &Received| r.header("Subject").as_deref() == Some("to two");
        let copies = |upstream: &Upstream| upstream.received().iter().filter(|r| is_it(r)).count();
        assert_eq!(
            (copies(&a), copies(&b)),
            (1, 0),
            "{said}: the other has its mail, and nobody else was asked"
        );
    }
}
