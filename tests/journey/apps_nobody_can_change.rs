//! What listeners and credentials do for apps that nobody can change: as whom they send, and how much.

use std::time::Duration;

use crate::support::upstream::Manner;
use crate::support::{Client, Fault, Point, Relay, Upstream, wait_until};

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

#[test]
fn the_same_mail_again_uses_up_no_rate_and_is_taken_where_it_is_used_up() {
    let up = Upstream::start();
    let by_itself =
        |n| [format!("Message-ID: <{n}@example.org>\r\n").as_bytes(), &mail("app@example.org")].concat();
    let by_key =
        |n| [format!("X-Postroad-Idempotency-Key: k{n}\r\n").as_bytes(), &mail("app@example.org")].concat();
    let to = ["a@example.com", "b@example.com"];
    let relay = shop(&up, "rate = \"3/h\"\ndedupe = \"10m\"");
    let mut client = logged_in(&relay);
    let first = client.submit("app@example.org", &to, &by_itself(1));
    for _ in 0..2 {
        assert_eq!(client.submit("app@example.org", &to, &by_itself(1)), first);
    }
    let life = relay.get(&format!("/v1/messages/{first}")).unwrap().json();
    let told = life["events"].as_array().unwrap().iter().filter(|e| e["kind"] == "repeated").count();
    assert!(matches!(told, 1 | 2), "one a minute: {life}");
    // What is refused for its content was not taken either.
    client.begin("app@example.org", &to);
    client.raw(format!("{}\r\nx\r\n.\r\n", "Received: by x\r\n".repeat(51)).as_bytes());
    client.expect("554");
    client.submit("app@example.org", &to, &by_itself(2));
    assert_eq!(client.submit("app@example.org", &to, &by_itself(1)), first, "the rate is used up");
    client.begin("app@example.org", &to[..1]);
    client.raw(&[&by_itself(3)[..], b".\r\n"].concat());
    assert!(client.expect("450").text().contains("try again in"));

    let relay = shop(&up, "rate = \"3/h\"");
    let mut client = logged_in(&relay);
    let first = client.submit("app@example.org", &to, &by_key(1));
    assert_eq!(client.submit("app@example.org", &to, &by_key(1)), first);
    client.submit("app@example.org", &to, &by_key(2));
    client.say("MAIL FROM:<app@example.org>").expect("450");
}

#[test]
fn senders_are_rewritten_in_envelope_and_from_before_the_origin_completes_them() {
    let up = Upstream::start();
    let rules = "from_rewrite = { \"@web1.local\" = \"app@example.org\", \"root\" = \"ops@example.org\" }";
    let own = "from_rewrite = { \"@web1.local\" = \"shop@example.org\" }\nsenders = [\"shop@example.org\"]";
    let relay = Relay::setup()
        .server("origin = \"example.net\"")
        .listener(&format!("auth = \"optional\"\n{rules}"))
        .upstream(&up, "")
        .tables(&format!("{SHOP}{own}"))
        .start();
    let mut count = 0;
    let mut takes = |mut client: Client, sender: &str, from: &str| {
        client.submit(sender, &["ok@example.com"], &mail(from));
        count += 1;
        let got = up.wait_for(count).pop().unwrap();
        let path = got.mail.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        (path, got.header("From").unwrap_or_default())
    };
    for (sender, from, wanted) in [
        ("root", "Cron Daemon <root>", ("ops@example.org", "Cron Daemon <ops@example.org>")),
        ("www-data", "www-data", ("www-data@example.net", "www-data@example.net")),
        ("a@web1.local", "Shop <a@Web1.local> (web)", ("app@example.org", "Shop <app@example.org> (web)")),
        ("a@other.example", "a@other.example", ("a@other.example", "a@other.example")),
    ] {
        let got = takes(relay.client(), sender, from);
        assert_eq!((got.0.as_str(), got.1.as_str()), wanted);
    }
    let got = takes(logged_in(&relay), "a@web1.local", "a@web1.local");
    assert_eq!(
        (got.0.as_str(), got.1.as_str()),
        ("shop@example.org", "shop@example.org"),
        "its own rules, and its senders"
    );
    // What is signed would be broken by it: it stays, and the log says so.
    let signed = "a@web1.local\r\nDKIM-Signature: v=1; a=rsa-sha256; d=web1.local; s=x; h=from; bh=; b=";
    let got = takes(relay.client(), "a@web1.local", signed);
    assert_eq!((got.0.as_str(), got.1.as_str()), ("app@example.org", "a@web1.local"));
    wait_until("the log tells it", std::time::Duration::from_secs(10), || {
        relay.log().contains("From is left as it is")
    });
}

/// To whom the upstream got it, and the field that names the others.
fn arrived(up: &Upstream, count: usize) -> (Vec<String>, Option<String>) {
    let got = up.wait_for(count).pop().unwrap();
    (got.to.clone(), got.header("X-Postroad-Original-To"))
}

#[test]
fn a_test_system_mails_whom_it_may_and_nobody_else() {
    let up = Upstream::start();
    let guard = "auth = \"optional\"\nonly_to = [\"@corp.example.com\"]";
    let turns = "redirect_to = \"qa@staging.example.com\"";
    let relay = Relay::setup().listener(guard).upstream(&up, "").tables(&format!("{SHOP}{turns}")).start();
    let mut client = relay.client();
    client.say("MAIL FROM:<app@example.org>").expect("250");
    let told = client.say("RCPT TO:<ok@example.com>").expect("550").text();
    assert!(told.starts_with("5.7.1") && told.contains("@corp.example.com only"), "{told}");
    client.say("RSET").expect("250");
    client.submit("app@example.org", &["Dev@Corp.example.com"], &mail("app@example.org"));
    assert_eq!(arrived(&up, 1), (vec!["<Dev@Corp.example.com>".into()], None));

    let forged = [b"X-Postroad-Original-To: nobody@example.com\r\n", &mail("app@example.org")[..]].concat();
    let mut shop = logged_in(&relay);
    shop.submit("app@example.org", &["ok@example.com", "hidden@example.com"], &forged);
    let all = Some("ok@example.com, hidden@example.com".to_owned());
    assert_eq!(arrived(&up, 2), (vec!["<qa@staging.example.com>".into()], all));
    shop.submit(
        "app@example.org",
        &["hidden@example.com", "dev@corp.example.com", "ok@example.com"],
        &forged,
    );
    let (mut to, named) = arrived(&up, 3);
    to.sort();
    assert_eq!(to, ["<dev@corp.example.com>", "<qa@staging.example.com>"]);
    assert_eq!(named.as_deref(), Some("ok@example.com"), "a Bcc is not told to who shares the message");
    wait_until("the log names all", std::time::Duration::from_secs(10), || {
        relay.log().contains("hidden@example.com,ok@example.com")
    });
}

#[test]
fn reports_about_mail_of_a_test_system_go_to_whom_it_may_mail_and_nobody_else() {
    let manner = Manner::default();
    let extensions = [manner.extensions.clone(), vec!["DSN".into()]].concat();
    let up = Upstream::with(Manner { extensions, ..manner });
    up.fail_always(Point::RcptOf("gone@corp.example.com"), Fault::Reply("550 5.1.1 no such user here"));
    let guard = "auth = \"optional\"\nonly_to = [\"@corp.example.com\"]";
    let turns = "redirect_to = \"qa@staging.example.com\"";
    let relay = Relay::setup().listener(guard).upstream(&up, "").tables(&format!("{SHOP}{turns}")).start();
    let gone = ["gone@corp.example.com"];
    let id = relay.submit("app@outside.example.org", &gone, &mail("app@example.org"));
    let events = || {
        relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()["events"].to_string()).unwrap_or_default()
    };
    wait_until("it is told to nobody", Duration::from_secs(20), || events().contains("not_reported"));
    assert!(events().contains("app@outside.example.org is not among those"), "{}", events());

    relay.submit("dev@corp.example.com", &gone, &mail("app@example.org"));
    assert_eq!(arrived(&up, 1), (vec!["<dev@corp.example.com>".into()], None), "inside it is told");

    let mut shop = logged_in(&relay);
    shop.submit("app@outside.example.org", &gone, &mail("app@example.org"));
    let named = Some("app@outside.example.org".into());
    assert_eq!(arrived(&up, 2), (vec!["<qa@staging.example.com>".into()], named.clone()));

    // A next hop that takes such wishes is to report to nobody; what was asked is answered here.
    shop.say("MAIL FROM:<app@outside.example.org> RET=FULL ENVID=x1").expect("250");
    shop.say("RCPT TO:<ok@corp.example.com> NOTIFY=SUCCESS ORCPT=rfc822;a@example.com").expect("250");
    shop.say("DATA").expect("354");
    shop.raw(&[&mail("app@example.org")[..], b".\r\n"].concat());
    shop.expect("250");
    assert_eq!(arrived(&up, 4), (vec!["<qa@staging.example.com>".into()], named));
    let asked: Vec<String> = up.commands().into_iter().map(|(_, command)| command).collect();
    let rcpt = "RCPT TO:<ok@corp.example.com> NOTIFY=NEVER";
    assert!(asked.iter().any(|command| command == rcpt), "{asked:?}");
    assert!(!asked.iter().any(|command| command.contains("ENVID") || command.contains("ORCPT")), "{asked:?}");
    assert!(up.received().iter().all(|mail| !mail.to.concat().contains("outside")), "nobody outside");
}

#[test]
fn the_same_mail_again_is_the_first_also_over_a_crash_and_other_mail_is_not() {
    let up = Upstream::start();
    let mut relay = Relay::setup()
        .listener("auth = \"optional\"\ndedupe = \"10m\"")
        .upstream(&up, "")
        .tables(&format!("{SHOP}dedupe = \"1s\""))
        .start();
    let mail = |date: u32, id: &str, body: &str| {
        format!("From: app@example.org\r\nDate: Tue, {date} Dec 2026 10:00:00 +0000\r\n{id}\r\n{body}\r\n")
            .into_bytes()
    };
    let (to, id) = (["a@example.com", "b@example.com"], "Message-ID: <1@example.org>\r\n");
    let large = "x".repeat(70) + "\r\n";
    let large = large.repeat(6_000);
    let first = relay.submit("app@example.org", &to, &mail(1, id, "hello"));
    let first_large = relay.submit("app@example.org", &to, &mail(1, id, &large));
    // What was under way at a crash would be held.
    up.wait_for(2);
    relay.kill();
    relay.restart();
    assert_eq!(
        relay.submit("app@example.org", &["b@EXAMPLE.com", "a@example.com"], &mail(2, id, "hello")),
        first
    );
    assert_eq!(relay.submit("app@example.org", &to, &mail(2, id, &large)), first_large);
    let mut all = vec![first.clone(), first_large];
    for (sender, to, mail) in [
        ("app@example.org", &to[..1], mail(1, id, "hello")),
        ("other@example.org", &to, mail(1, id, "hello")),
        ("app@example.org", &to, mail(1, "Message-ID: <2@example.org>\r\n", "hello")),
        ("app@example.org", &to, mail(1, id, "hallo")),
        ("app@example.org", &to, mail(1, id, &large.replacen("x\r\n", "y\r\n", 5_900))),
        ("app@example.org", &to, mail(1, "", "hello")),
        ("app@example.org", &to, mail(1, "", "hello")),
    ] {
        all.push(relay.submit(sender, to, &mail));
    }
    // Another login's are its own, and its time is over sooner.
    let own = logged_in(&relay).submit("app@example.org", &to, &mail(1, id, "hello"));
    wait_until("its second is over", std::time::Duration::from_secs(20), || {
        logged_in(&relay).submit("app@example.org", &to, &mail(1, id, "hello")) != own
    });
    all.push(own);
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "each is a mail of its own: {all:?}");
    up.wait_for(count + 1);
}

#[test]
fn the_same_mail_is_told_by_the_sender_that_the_app_named() {
    let up = Upstream::start();
    let rules = |other: &str| {
        format!("from_rewrite = {{ \"@web1.local\" = \"{other}\", \"@web2.local\" = \"{other}\" }}")
    };
    let relay = Relay::setup()
        .listener("")
        .listener(&format!("dedupe = \"10m\"\n{}", rules("app@example.org")))
        .upstream(&up, "")
        .start();
    let mail = [&b"Message-ID: <1@example.org>\r\n"[..], &mail("app@example.org")].concat();
    let hand_in = |relay: &Relay, sender: &str| {
        Client::hello(relay.listener(1)).submit(sender, &["ok@example.com"], &mail)
    };
    let first = hand_in(&relay, "a@web1.local");
    assert_ne!(hand_in(&relay, "a@web2.local"), first, "the app says that it is another's");
    let file = relay.folder().join("postroad.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(file, text.replace("= \"app@example.org\"", "= \"shop@example.org\"")).unwrap();
    relay.cli(&["reload"]).must(0);
    assert_eq!(hand_in(&relay, "a@web1.local"), first, "whatever stands in the sender's place by now");
    up.wait_for(2);
}
