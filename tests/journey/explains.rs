//! Every message can be explained, and the log tells each attempt in one line: never a body, a subject or a secret.

use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::upstream::Manner;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

#[test]
fn explain_and_log_tell_a_life_and_no_secret() {
    let upstream = Upstream::with(Manner {
        auth: Some(("PLAIN LOGIN", "relay", "upstream-secret")),
        ..Manner::default()
    });
    upstream.fail(Point::Rcpt(1), Fault::Reply("450 4.2.1 mailbox is being moved"), 1);
    let mut relay = Relay::setup()
        .upstream(&upstream, "username = \"relay\"\npassword = \"upstream-secret\"")
        .listener("auth = \"required\"")
        .credential("shop", "app-secret")
        .tables(FAST)
        .start();
    let mut client = relay.client();
    assert_eq!(client.auth_plain("shop", "app-secret").code, 235);
    let raw = b"From: a@example.org\r\nTo: ok@example.com\r\nSubject: hush-subject\r\n\r\nhush-body\r\n";
    let id = client.submit("a@example.org", &["ok@example.com"], raw);
    upstream.wait_for(1);
    wait_until("it is settled", Duration::from_secs(10), || {
        relay
            .get(&format!("/v1/messages/{id}"))
            .is_some_and(|a| a.json()["deliveries"][0]["known"] == "handed")
    });
    let told = relay.cli(&["explain", &id]).must(0).out;
    for word in [id.as_str(), "shop", "ok@example.com", "up1", "mailbox is being moved", "queued at upstream"]
    {
        assert!(told.contains(word), "explain does not say {word:?}:\n{told}");
    }
    let log = relay.log();
    let line = log.lines().find(|l| l.contains(&id) && l.contains("sent")).unwrap_or_else(|| panic!("{log}"));
    for word in ["ok@example.com", "up1", "transactional", "attempt", "delay", "sent"] {
        assert!(line.contains(word), "the line of the attempt lacks {word}: {line}");
    }
    assert!(log.lines().any(|l| l.contains(&id) && l.contains("deferred")), "{log}");
    relay.stop();
    let log = relay.log();
    for secret in ["hush-subject", "hush-body", "app-secret", "upstream-secret"] {
        assert!(!log.contains(secret), "the log has {secret}");
        assert!(!told.contains(secret) || secret == "hush-subject", "explain has {secret}");
    }
}

#[test]
fn what_a_client_says_cannot_forge_a_line_of_the_log() {
    let upstream = Upstream::start();
    let mut relay = Relay::to(&upstream);
    let mut client = crate::support::Client::connect(relay.smtp());
    client.expect("220");
    client.raw(b"EHLO a\x1b[2J\x07b\r\n");
    let _ = client.reply();
    client.raw("MAIL FROM:<x\u{85}\u{2028}y@example.org> SMTPUTF8\r\n".as_bytes());
    let _ = client.reply();
    client.say("QUIT");
    relay.stop();
    let log = relay.log();
    assert!(!log.bytes().any(|b| b < b' ' && b != b'\n' && b != b'\t'), "a control character in the log");
    assert!(!log.contains('\u{2028}') && !log.contains('\u{85}'), "a line end of Unicode in the log");
}
