//! What the next hop offers is honoured: nothing is sent that it cannot take, nothing is asked that it did not offer.

use std::time::Duration;

use crate::support::mailgen::{assert_unchanged, head, plain, sized};
use crate::support::smtp::stuffed;
use crate::support::upstream::{Manner, Tls};
use crate::support::wait::holds_within;
use crate::support::{Relay, Upstream, wait_until};

fn offering(words: &[&str]) -> Upstream {
    Upstream::with(Manner {
        extensions: words.iter().map(|w| (*w).to_owned()).collect(),
        ..Manner::default()
    })
}

fn said(relay: &Relay, id: &str) -> String {
    relay.get(&format!("/v1/messages/{id}")).map(|a| a.body).unwrap_or_default()
}

fn submit_with(relay: &Relay, parameters: &str, to: &str, raw: &[u8]) -> String {
    let mut client = relay.client();
    client.say(&format!("MAIL FROM:<a@example.org>{parameters}")).expect("250");
    client.say(&format!("RCPT TO:<{to}>")).expect("250");
    client.say("DATA").expect("354");
    client.raw(&stuffed(raw));
    let reply = client.expect("250");
    crate::support::smtp::queued_as(&reply).unwrap()
}

fn eight_bit() -> Vec<u8> {
    format!("{}Content-Type: text/plain; charset=utf-8\r\n\r\ngr\u{fc}\u{df}e\r\n", head("eight"))
        .into_bytes()
}

#[test]
fn a_bare_server_gets_bare_commands() {
    let upstream = offering(&[]);
    let relay = Relay::to(&upstream);
    relay.submit("a@example.org", &["ok@example.com"], &plain("bare"));
    let received = upstream.wait_for(1);
    assert_eq!(received[0].mail, "<a@example.org>");
    assert_unchanged(&plain("bare"), &received[0].data);
}

#[test]
fn extensions_count_in_lower_case_too() {
    let upstream = offering(&["size 10000000", "pipelining", "8bitmime"]);
    let relay = Relay::to(&upstream);
    submit_with(&relay, " BODY=8BITMIME", "ok@example.com", &eight_bit());
    let received = upstream.wait_for(1);
    assert!(received[0].mail.to_ascii_uppercase().contains("BODY=8BITMIME"), "{}", received[0].mail);
    assert!(received[0].mail.to_ascii_uppercase().contains("SIZE="), "{}", received[0].mail);
    assert_unchanged(&eight_bit(), &received[0].data);
}

#[test]
fn eight_bits_never_lose_one() {
    let upstream = offering(&["PIPELINING", "SIZE 10000000"]);
    let relay = Relay::to(&upstream);
    let id = submit_with(&relay, " BODY=8BITMIME", "ok@example.com", &eight_bit());
    wait_until("it is told why", Duration::from_secs(15), || said(&relay, &id).contains("8BITMIME"));
    assert_eq!(upstream.count(), 0, "sent to a server that takes seven bits");
    assert!(
        !said(&relay, &id).contains("\"refused\""),
        "it waits for a server that can: {}",
        said(&relay, &id)
    );
}

#[test]
fn a_unicode_domain_goes_as_its_a_label() {
    let upstream = offering(&["PIPELINING", "8BITMIME"]);
    let relay = Relay::to(&upstream);
    submit_with(&relay, " SMTPUTF8", "ok@b\u{fc}cher.example.com", &plain("idn"));
    let received = upstream.wait_for(1);
    assert_eq!(received[0].to, ["<ok@xn--bcher-kva.example.com>"]);
    assert!(!received[0].mail.contains("SMTPUTF8"), "{}", received[0].mail);
}

#[test]
fn a_unicode_mailbox_waits_for_a_server_that_can() {
    let upstream = offering(&["PIPELINING", "8BITMIME"]);
    let relay = Relay::to(&upstream);
    let id = submit_with(&relay, " SMTPUTF8", "j\u{f6}rg@example.com", &plain("utf8"));
    wait_until("it is told why", Duration::from_secs(15), || said(&relay, &id).contains("SMTPUTF8"));
    assert_eq!(upstream.count(), 0);
    let capable = Upstream::start();
    let relay = Relay::to(&capable);
    submit_with(&relay, " SMTPUTF8", "j\u{f6}rg@example.com", &plain("utf8"));
    let received = capable.wait_for(1);
    assert_eq!(received[0].to, ["<j\u{f6}rg@example.com>"]);
    assert!(received[0].mail.contains("SMTPUTF8"), "{}", received[0].mail);
}

#[test]
fn what_is_too_large_for_it_is_not_sent() {
    let upstream = offering(&["PIPELINING", "SIZE 5000"]);
    let relay = Relay::to(&upstream);
    let id = relay.submit("a@example.org", &["ok@example.com"], &sized("large", 50_000));
    wait_until("it is told why", Duration::from_secs(15), || {
        let said = said(&relay, &id).to_ascii_lowercase();
        said.contains("size") && said.contains("5000")
    });
    assert!(!upstream.commands().iter().any(|(_, c)| c.starts_with("DATA")));
    relay.submit("a@example.org", &["ok@example.com"], &plain("small"));
    upstream.wait_for(1);
}

#[test]
fn starttls_is_required_unless_it_is_off() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "tls = \"starttls\"\nca_file = \"@DIR@/ca.pem\"").start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("secret"));
    wait_until("it is told why", Duration::from_secs(15), || said(&relay, &id).contains("STARTTLS"));
    let commands = upstream.commands();
    assert!(!commands.iter().any(|(_, c)| c.starts_with("MAIL") || c.starts_with("AUTH")), "{commands:?}");
}

#[test]
fn a_certificate_that_nobody_vouches_for_gets_no_password() {
    let manner = Manner { tls: Tls::Starting, auth: Some(("PLAIN", "relay", "pw")), ..Manner::default() };
    let upstream = Upstream::with(manner);
    let lines = "tls = \"starttls\"\nusername = \"relay\"\npassword = \"pw\"";
    let relay = Relay::setup().upstream(&upstream, lines).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("forged"));
    wait_until("it is told why", Duration::from_secs(15), || {
        said(&relay, &id).to_ascii_lowercase().contains("certificate")
    });
    assert!(!upstream.commands().iter().any(|(_, c)| c.starts_with("AUTH")));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn quotes_and_the_null_sender_survive() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    relay.submit("", &["\"a b\"@example.com", "plain@example.com"], &plain("quotes"));
    let mut to: Vec<String> = Vec::new();
    wait_until("both", Duration::from_secs(15), || {
        to = upstream.received().into_iter().flat_map(|r| r.to).collect();
        to.len() == 2
    });
    assert!(to.contains(&"<\"a b\"@example.com>".to_owned()), "{to:?}");
    assert!(upstream.received()[0].mail.starts_with("<>"));
    let more = holds_within(Duration::from_millis(300), || {
        upstream.received().iter().map(|r| r.to.len()).sum::<usize>() > 2
    });
    assert!(!more);
}

#[test]
fn the_relay_is_named_as_smtp_has_it() {
    for (hostname, named) in
        [("mx.example.com.", "mx.example.com"), ("127.0.0.1", "[127.0.0.1]"), ("::1", "[IPv6:::1]")]
    {
        let upstream = Upstream::start();
        let relay =
            Relay::setup().env("POSTROAD__SERVER__HOSTNAME", hostname).upstream(&upstream, "").start();
        relay.submit("a@example.org", &["b@example.com"], &plain("named"));
        let received = upstream.wait_for(1);
        assert_eq!(upstream.commands()[0].1, format!("EHLO {named}"));
        let trace = received[0].header("Received").unwrap_or_default();
        assert!(trace.contains(&format!("by {named} ")), "{trace}");
    }
}
