//! Mail that no ESP can carry: what can be told by its content is refused at the dot, with what each of them lacks. What
//! turns out later waits for one that can, and ends with the same; that there is such mail is an alert, once, until none
//! of it is left.

use std::time::Duration;

use crate::support::esps::{Postmark, Sendgrid, Ses, ses};
use crate::support::mailgen::{plain, sized};
use crate::support::smtp::stuffed;
use crate::support::upstream::Manner;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

const RETRY: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\n";

fn offering(words: &[&str]) -> Upstream {
    Upstream::with(Manner {
        extensions: words.iter().map(|w| (*w).to_owned()).collect(),
        ..Manner::default()
    })
}

fn attempts(relay: &Relay, id: &str) -> usize {
    let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
    life["attempts"].as_array().map_or(0, Vec::len)
}

/// The log's lines of that kind about this message.
fn lines(relay: &Relay, kind: &str, id: &str) -> Vec<String> {
    let about = |l: &&str| l.contains("unfit_everywhere") && l.contains(kind) && l.contains(id);
    relay.log().lines().filter(about).map(str::to_owned).collect()
}

fn alerts(relay: &Relay, id: &str) -> Vec<String> {
    lines(relay, "\"alert\"", id)
}

/// What is told of each such message by itself.
fn noted(relay: &Relay, id: &str) -> usize {
    lines(relay, "\"event\"", id).len()
}

#[test]
fn it_is_told_once_and_ends_with_every_reason() {
    let (small, smaller) = (offering(&["SIZE 9000"]), offering(&["SIZE 8000"]));
    let short = format!("{RETRY}max_age = \"6s\"\n");
    let relay = Relay::setup().upstream(&small, "").upstream(&smaller, "").tables(&short).start();
    let id = relay.submit("a@example.org", &["b@example.com", "c@example.com"], &sized("large", 50_000));
    wait_until("it is told", Duration::from_secs(15), || !alerts(&relay, &id).is_empty());
    let second = relay.submit("a@example.org", &["d@example.com"], &sized("large too", 50_000));
    wait_until("the second is noted", Duration::from_secs(15), || noted(&relay, &second) == 1);
    let told = alerts(&relay, &id);
    for word in ["\"error\"", "b@example.com", "up1 cannot carry it", "9000", "up2 cannot carry it", "8000"] {
        assert!(told[0].contains(word), "{word} is not in {}", told[0]);
    }
    wait_until("it has expired", Duration::from_secs(30), || {
        let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
        life["deliveries"][1]["reason"] == "expired"
    });
    assert!(attempts(&relay, &id) > 4, "it was tried once more: {}", attempts(&relay, &id));
    assert_eq!((alerts(&relay, &id).len(), noted(&relay, &id)), (1, 1), "{}", relay.log());
    assert_eq!(alerts(&relay, &second), [] as [String; 0], "one state, one alert");
    assert_eq!(relay.metric("postroad_alerts_total"), 1.0);
    let told = relay.cli(&["explain", &id]).must(0).out;
    let end = told.lines().find(|l| l.starts_with("To <c@example.com>")).unwrap_or_else(|| panic!("{told}"));
    for word in ["given up", "up1 cannot carry it", "takes 9000", "up2 cannot carry it", "takes 8000"] {
        assert!(end.contains(word), "{word} is not in {end}");
    }

    wait_until("the alert is over", Duration::from_secs(30), || relay.log().contains("\"alert over\""));
    let third = relay.submit("a@example.org", &["b@example.com"], &sized("large again", 50_000));
    wait_until("it is told anew", Duration::from_secs(15), || alerts(&relay, &third).len() == 1);
    assert_eq!(relay.metric("postroad_alerts_total"), 2.0);
}

#[test]
fn one_that_may_yet_carry_it_is_no_alert_and_a_restart_tells_nothing_twice() {
    let (small, away) = (offering(&["SIZE 9000"]), Upstream::start());
    away.fail_always(Point::Banner, Fault::Close);
    let mut relay = Relay::setup().upstream(&small, "").upstream(&away, "").tables(RETRY).start();
    let id = relay.submit("a@example.org", &["b@example.com"], &sized("large", 50_000));
    let small_one = relay.submit("a@example.org", &["b@example.com"], &plain("small"));
    small.wait_for(1);
    wait_until("both were tried twice", Duration::from_secs(20), || attempts(&relay, &id) >= 4);
    assert_eq!((alerts(&relay, &id), noted(&relay, &id)), (vec![], 0));
    relay.stop();

    let mut relay = Relay::setup().upstream(&small, "").tables(RETRY).start();
    let id = relay.submit("a@example.org", &["b@example.com"], &sized("large", 50_000));
    wait_until("it is told", Duration::from_secs(15), || !alerts(&relay, &id).is_empty());
    relay.stop();
    let before = {
        relay.restart();
        attempts(&relay, &id)
    };
    wait_until("it is tried again", Duration::from_secs(15), || attempts(&relay, &id) > before);
    relay.stop();
    assert_eq!(alerts(&relay, &id).len(), 1, "{}", relay.log());
    assert_eq!(alerts(&relay, &small_one), [] as [String; 0]);
}

/// What the dot is answered.
fn at_the_dot(relay: &Relay, raw: &[u8]) -> String {
    let mut client = relay.client();
    client.begin("app@example.org", &["ok@example.com"]);
    client.raw(&stuffed(raw));
    client.expect("554").text()
}

#[test]
fn what_no_esp_could_carry_for_its_content_is_refused_at_the_dot() {
    let (amazon, grid, mark, both) = (Ses::start(), Sendgrid::start(), Postmark::start(), Sendgrid::start());
    let (region, id, secret) = (ses::REGION, ses::ACCESS_KEY_ID, ses::SECRET);
    let relay = Relay::setup()
        .tables(&format!(
            "[[esp]]\nname = \"amazon\"\ntype = \"ses\"\nregion = \"{region}\"\naccess_key_id = \"{id}\"\n\
             secret_access_key = \"{secret}\"\nendpoint = \"{}\"\ntransport = \"api\"\n\
             [[esp]]\nname = \"grid\"\ntype = \"sendgrid\"\napi_key = \"{}\"\nendpoint = \"{}\"\n\
             transport = \"api\"\n\
             [[esp]]\nname = \"mark\"\ntype = \"postmark\"\nserver_token = \"{}\"\nendpoint = \"{}\"\n\
             transport = \"auto\"\nsmtp_endpoint = \"smtp://{}\"\n\
             [[esp]]\nname = \"both\"\ntype = \"sendgrid\"\napi_key = \"{}\"\nendpoint = \"{}\"\n\
             transport = \"auto\"\nsmtp_endpoint = \"smtp://{}\"\n\
             [[stream]]\nname = \"builders\"\nkind = \"transactional\"\nesps = [\"grid\", \"mark\"]\n",
            amazon.url(),
            grid.key(),
            grid.url(),
            mark.key(),
            mark.url(),
            mark.smtp().address(),
            both.key(),
            both.url(),
            both.smtp().address(),
        ))
        .start();
    let head = "From: app@example.org\r\nTo: ok@example.com\r\n";
    let subject = "Subject: s\r\n";
    let signed = "Content-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x--\r\n";
    let dkim = "DKIM-Signature: v=1; d=example.org; h=from; b=AA\r\n";
    let large = "x".repeat(998) + "\r\n";
    for (to, mail, reasons) in [
        (
            "Esp: amazon",
            format!("{dkim}{dkim}{subject}\r\nhello\r\n"),
            &["amazon: SES takes a message with one DKIM-Signature"][..],
        ),
        ("Esp: grid", format!("{subject}{signed}"), &["grid: SendGrid wraps"]),
        (
            "Esp: grid",
            format!("{dkim}{subject}\r\nhello\r\n"),
            &["grid: SendGrid's API: it would lose its DKIM-Signature"],
        ),
        ("Esp: grid", "\r\nhello\r\n".to_owned(), &["grid: SendGrid's API: it insists on a Subject"]),
        (
            "Esp: grid",
            format!("Cc: other@example.com\r\n{subject}\r\nhello\r\n"),
            &["other@example.com in To or Cc"],
        ),
        (
            "Esp: grid",
            format!("\r\n{}", large.repeat(300)),
            &["grid: SendGrid's API: it insists on a Subject"],
        ),
        (
            "Esp: mark",
            format!("{subject}{signed}"),
            &["mark: by its API: its API would lose its signature", "by SMTP: Postmark re-assembles"],
        ),
        (
            "Esp: mark",
            format!("{subject}\r\n{}", large.repeat(11_500)),
            &["mark: it has 11500", "Postmark takes 10485760"],
        ),
        ("Stream: builders", format!("{subject}{signed}"), &["grid: SendGrid wraps", "mark: by its API"]),
    ] {
        let raw = format!("X-Postroad-{to}\r\n{head}{mail}");
        let said = at_the_dot(&relay, raw.as_bytes());
        assert!(said.starts_with("5.6.0 no ESP"), "{to}: {said}");
        for reason in reasons {
            assert!(said.contains(reason), "{reason} is not in {said}");
        }
    }
    let json = serde_json::json!({
        "from": "app@example.org", "to": ["ok@example.com"], "subject": "s", "text": "t", "esp": "grid",
        "headers": {"DKIM-Signature": "v=1; d=example.org; h=from; b=AA"},
    });
    let answer = relay.post("/v1/send", &json.to_string()).unwrap();
    assert!(
        answer.status == 422 && answer.body.contains("grid: SendGrid's API: it would lose"),
        "{answer:?}"
    );
    // What the other door of an ESP carries, and what one of several carries, is taken.
    let id = relay.submit(
        "app@example.org",
        &["ok@example.com"],
        format!("X-Postroad-Esp: both\r\n{head}\r\nhello\r\n").as_bytes(),
    );
    assert_eq!(both.wait_for(1).len(), 1, "{id}");
    let twice = format!("X-Postroad-Esp: both\r\n{dkim}{dkim}{head}{subject}\r\nhello\r\n");
    relay.submit("app@example.org", &["ok@example.com"], twice.as_bytes());
    both.wait_for(2);
    relay.submit("app@example.org", &["ok@example.com"], format!("{head}{subject}{signed}").as_bytes());
    amazon.wait_for(1);
    assert_eq!((amazon.count(), grid.count()), (1, 0));
}

/// Postmark for everybody but those of `inner.example`, who have a server of their own.
fn two_houses(inner: &Upstream, mark: &Postmark) -> Relay {
    Relay::setup()
        .upstream(inner, "recipients = [\"@inner.example\"]")
        .tables(&format!(
            "[[esp]]\nname = \"mark\"\ntype = \"postmark\"\nserver_token = \"{}\"\nendpoint = \"{}\"\n\
             transport = \"api\"\n",
            mark.key(),
            mark.url(),
        ))
        .start()
}

#[test]
fn where_some_recipients_can_be_mailed_the_others_alone_are_refused_and_their_sender_is_told() {
    let (inner, mark) = (Upstream::start(), Postmark::start());
    let relay = two_houses(&inner, &mark);
    let signed = "From: app@inner.example\r\nTo: ann@inner.example, bob@example.com\r\nSubject: signed\r\n\
                  Content-Type: multipart/signed; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x--\r\n";
    let to = ["ann@inner.example", "bob@example.com"];
    let id = relay.submit("app@inner.example", &to, signed.as_bytes());
    let got = inner.wait_for_within(2, Duration::from_secs(15));
    let whom = |n: usize| got[n].to.clone();
    let (mail, report) = if whom(0) == ["<ann@inner.example>"] { (0, 1) } else { (1, 0) };
    assert_eq!(
        (whom(mail), whom(report)),
        (vec!["<ann@inner.example>".into()], vec!["<app@inner.example>".into()])
    );
    for words in ["bob@example.com", "mark", "signature"] {
        assert!(got[report].text().contains(words), "{words} is not in {}", got[report].text());
    }
    let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
    let ends: Vec<_> = (0..2).map(|n| life["deliveries"][n]["reason"].clone()).collect();
    assert_eq!(ends, [serde_json::Value::Null, "refused".into()], "{life}");
    let bounced =
        |e: &&serde_json::Value| e["kind"] == "bounced" && e.to_string().contains("no ESP of the relay");
    assert_eq!(life["events"].as_array().unwrap().iter().filter(bounced).count(), 1, "{life}");
    assert_eq!(mark.count(), 0);
    // Where it is for nobody else, its app hears it at the dot.
    let mut client = relay.client();
    client.begin("app@inner.example", &["bob@example.com"]);
    client.raw(&stuffed(signed.as_bytes()));
    let said = client.expect("554").text();
    assert!(said.contains("up1: ") && said.contains("mark: "), "{said}");
}

#[test]
fn an_address_that_no_esp_takes_is_refused_at_once() {
    let (inner, mark) = (Upstream::start(), Postmark::start());
    let relay = two_houses(&inner, &mark);
    let mut client = relay.client();
    client.say("MAIL FROM:<app@inner.example>").expect("250");
    let said = client.say("RCPT TO:<\"b c\"@example.com>").expect("550").text();
    assert!(said.contains("mark: Postmark does not take such an address"), "{said}");
    client.say("RCPT TO:<\"b c\"@inner.example>").expect("250");
    let by_http = |to: &str| {
        let mail = serde_json::json!({"from": "app@inner.example", "to": [to], "text": "x"});
        relay.post("/v1/send", &mail.to_string()).unwrap()
    };
    for to in ["\"b c\"@example.com", "b@[192.0.2.1]"] {
        let answer = by_http(to);
        let told = answer.json()["error"]["fields"][0]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, 422, "{}", answer.body);
        assert!(told.contains("mark: Postmark does not take such an address"), "{told}");
        let by_smtp = client.say(&format!("RCPT TO:<{to}>")).expect("550").text().to_owned();
        assert!(by_smtp.ends_with(&told), "{by_smtp} / {told}");
    }
    assert_eq!(by_http("\"b c\"@inner.example").status, 202);
    let told = relay.cli(&["resolve", "app@inner.example", "\"b c\"@example.com"]).out;
    assert!(
        told.contains("Postmark does not take such an address") && !told.contains("would carry"),
        "{told}"
    );
}
