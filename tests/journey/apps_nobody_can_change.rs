//! What listeners and credentials do for apps that nobody can change: as whom they send, and how much.

use crate::support::{Client, Relay, Upstream};

const SHOP: &str = "[[credential]]\nusername = \"shop\"\npassword = \"p4ss-word_1\"\n";

fn mail(from: &str) -> Vec<u8> {
    format!("From: {from}\r\nTo: ok@example.com\r\nSubject: terms\r\n\r\nhello\r\n").into_bytes()
}

/// A relay with the credential `shop` and these lines of it, and one without terms.
fn shop(upstream: &Upstream, lines: &str) -> Relay {
    let other = "[[credential]]\nusername = \"other\"\npassword = \"p4ss-word_2\"\n";
    Relay::setup()
        .listener("auth = \"optional\"")
        .upstream(upstream, "")
        .tables(&format!("{SHOP}{lines}\n{other}"))
        .start()
}

fn logged_in(relay: &Relay) -> Client {
    let mut client = relay.client();
    client.auth_plain("shop", "p4ss-word_1");
    client
}

#[test]
fn a_credential_sends_as_whom_it_may_and_as_nobody_else() {
    let up = Upstream::start();
    let relay = shop(&up, "senders = [\"@shop.example.org\", \"boss@example.org\"]");
    let mut client = logged_in(&relay);
    let told = client.say("MAIL FROM:<app@example.org>").expect("550").text();
    assert!(told.starts_with("5.7.1") && told.contains("@shop.example.org, boss@example.org only"), "{told}");
    assert_eq!(relay.metric("postroad_smtp_refusals_total"), 1.0);

    client.begin("Boss@Example.org", &["ok@example.com"]);
    client.raw(&[&mail("Shop <a@shop.example.org>, <app@example.org>")[..], b".\r\n"].concat());
    let told = client.expect("550").text();
    assert!(told.starts_with("5.7.1") && told.contains("From <app@example.org>"), "{told}");

    client.submit("boss@example.org", &["ok@example.com"], &mail("Shop <a@shop.example.org>"));
    client.submit("", &["ok@example.com"], &mail("a@SHOP.example.org"));
    relay.submit("app@example.org", &["ok@example.com"], &mail("app@example.org"));
    up.wait_for(3);
}

#[test]
fn a_credential_over_its_rate_is_told_when_to_come_again_and_nobody_else_is() {
    let up = Upstream::start();
    let relay = shop(&up, "rate = \"3/h\"");
    let mut client = logged_in(&relay);
    client.submit("app@example.org", &["ok@example.com"], &mail("app@example.org"));
    client.submit("app@example.org", &["a@example.com", "b@example.com"], &mail("app@example.org"));
    for mut client in [client, logged_in(&relay)] {
        let told = client.say("MAIL FROM:<app@example.org>").expect("450").text();
        assert!(told.starts_with("4.7.1"), "{told}");
        let wait =
            told.split("try again in ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
        assert!(wait.is_some_and(|seconds| (1_100..=1_200).contains(&seconds)), "{told}");
    }
    let mut other = relay.client();
    other.auth_plain("other", "p4ss-word_2");
    other.submit("app@example.org", &["ok@example.com"], &mail("app@example.org"));
    relay.submit("app@example.org", &["ok@example.com"], &mail("app@example.org"));
    up.wait_for(4);
}
