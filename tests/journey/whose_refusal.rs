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
        (Point::Dot, "554 Sending paused for this account. Please check your inbox.", "account"),
        (Point::Dot, "550 5.7.1 Maximum credits exceeded", "account"),
        (Point::Dot, "550 5.7.1 Sender domain not verified", "sender"),
        (Point::Dot, "503 5.5.1 bad sequence", "path"),
        (Point::Dot, "554 5.7.1 rate limit exceeded", "throttled"),
        (Point::Mail, "521 5.3.2 host does not accept mail", "path"),
        (Point::Rcpt(1), "550 Sender verify failed", "sender"),
        (Point::Rcpt(1), "550 5.7.26 not accepted: DMARC", "sender"),
        (Point::Dot, "554 5.7.1 [192.0.2.1] blacklisted", "path"),
        (Point::Dot, "550 5.7.509 Access denied, sending domain does not pass DMARC verification", "sender"),
        (Point::Rcpt(1), "550 5.7.1 Client was not authenticated", "account"),
        (Point::Rcpt(1), "550 5.7.1 too many connections from your host", "throttled"),
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
            let told = |l: &str| l.contains("esp_shut") && l.contains(said) && l.contains("\"error\"");
            assert!(relay.log().lines().any(told), "{said}: {}", relay.log());
        }
    }
}

#[test]
fn whom_the_answer_to_the_dot_names_is_refused_alone() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::Dot, Fault::Reply("550 5.1.1 <gone@example.com>: no such user"));
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(ONCE).start();
    let to = ["one@example.com", "gone@example.com", "two@example.com"];
    let id = relay.submit("a@example.org", &to, &plain("for three"));
    let mut there: Vec<String> = b.wait_for_within(1, SOON).into_iter().flat_map(|r| r.to).collect();
    there.sort();
    assert_eq!(there, ["<one@example.com>", "<two@example.com>"]);
    let life = || relay.get(&format!("/v1/messages/{id}")).unwrap().json();
    wait_until("each has its end", SOON, || {
        life()["deliveries"].as_array().is_some_and(|all| all.iter().all(|d| d["state"] == "done"))
    });
    let reasons: Vec<_> = (0..3).map(|n| life()["deliveries"][n]["reason"].clone()).collect();
    assert_eq!(reasons, [serde_json::Value::Null, "refused".into(), serde_json::Value::Null], "{}", life());
    assert!(!relay.log().contains("esp_shut"), "nobody is to blame: {}", relay.log());
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
