//! Postmark, from SMTP in to its doors and back to `explain`.

use std::time::Duration;

use serde_json::Value;

use crate::support::esps::{Door, Fault, Postmark, Vendor, postmark};
use crate::support::relay::Setup;
use crate::support::smtp::stuffed;
use crate::support::wait::side_by_side;
use crate::support::{Point, Relay, Upstream, upstream, wait_until};

const BOUND: Duration = Duration::from_secs(20);
/// Once a second, a hold of two, and no wait for an answer that does not come.
const FAST: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"2s\"\n";

fn esp(mark: &Postmark, lines: &str) -> String {
    let (url, key) = (mark.url(), mark.key());
    format!(
        "[[esp]]\nname = \"mark\"\ntype = \"postmark\"\npriority = 0\nserver_token = \"{key}\"\nendpoint = \"{url}\"\n{lines}\n"
    )
}

fn by_api(mark: &Postmark) -> Setup {
    Relay::setup().tables(&esp(mark, "transport = \"api\"\ntimeout = \"2s\"")).tables(FAST)
}

fn mail(subject: &str, head: &str) -> Vec<u8> {
    format!("From: shop@example.org\r\nTo: ok@example.com\r\nSubject: {subject}\r\n{head}\r\nhello\r\n")
        .into_bytes()
}

fn life(relay: &Relay, id: &str) -> Value {
    relay.get(&format!("/v1/messages/{id}")).unwrap().json()
}

/// Waits for the end of each delivery.
fn done(relay: &Relay, id: &str) -> Value {
    wait_until("it has an end", BOUND, || {
        let life = life(relay, id);
        life["deliveries"].as_array().is_some_and(|all| all.iter().all(|d| d["state"] == "done"))
    });
    life(relay, id)
}

/// What comes back with the events of its first attempt.
fn planted(id: &str, life: &Value) -> String {
    format!("{id}-{}", life["attempts"][0]["attempt"].as_str().unwrap())
}

#[test]
fn a_message_arrives_with_its_fields_and_the_attempt_in_its_metadata() {
    let mark = Postmark::start();
    let relay = by_api(&mark).start();
    let asks = "X-Postroad-Tag: spring\r\nX-Postroad-Metadata-Order: 7\r\n";
    let id =
        relay.submit("shop@example.org", &["ok@example.com", "hidden@example.net"], &mail("hello", asks));
    let taken = mark.wait_for(1).remove(0);
    assert_eq!((taken.door, taken.from.as_str()), (Door::Http, "shop@example.org"));
    assert_eq!(mark.copies(), ["hidden@example.net", "ok@example.com"]);
    let json = taken.json.clone().unwrap();
    assert_eq!(
        (&json["To"], &json["Bcc"]),
        (&Value::from("ok@example.com"), &Value::from("hidden@example.net"))
    );
    assert_eq!(taken.tags, ["spring"]);
    assert!(taken.metadata.contains(&("order".into(), "7".into())), "{:?}", taken.metadata);
    let life = done(&relay, &id);
    assert_eq!(life["attempts"][0]["outcome"], "accepted", "{life}");
    assert_eq!(taken.attempt, Some(planted(&id, &life)), "{life}");
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(told.contains("mark") && told.contains("OK"), "{told}");
}

/// A mail that shows the first of them alone.
fn to_many(people: &[String]) -> Vec<u8> {
    format!("From: shop@example.org\r\nTo: {}\r\nSubject: to many\r\n\r\nhello\r\n", people[0]).into_bytes()
}

#[test]
fn a_mail_to_more_than_a_call_takes_arrives_at_each_once_or_is_refused_with_the_reason() {
    let people: Vec<String> = (0..120).map(|n| format!("p{n:03}@example.com")).collect();
    let to: Vec<&str> = people.iter().map(String::as_str).collect();
    let mark = Postmark::start();
    let relay = by_api(&mark).start();
    let mut client = relay.client();
    client.begin("shop@example.org", &to);
    client.raw(&stuffed(&to_many(&people)));
    let said = client.expect("554").text();
    assert!(said.contains("for all 120 recipients, and a call takes 50"), "{said}");
    assert_eq!(mark.count(), 0);
    let lines = format!("smtp_endpoint = \"smtp://{}\"", mark.smtp().address());
    let relay = Relay::setup().tables(&esp(&mark, &lines)).tables(FAST).start();
    relay.submit("shop@example.org", &to, &to_many(&people));
    wait_until("all have theirs", BOUND, || mark.copies().len() >= people.len());
    assert_eq!(mark.copies(), people, "each once");
}

#[test]
fn whom_a_rule_sends_elsewhere_is_not_counted_among_those_of_a_call() {
    let (mark, corp) = (Postmark::start(), Upstream::start());
    let relay = by_api(&mark).upstream(&corp, "recipients = [\"@corp.example.com\"]").start();
    let of = |count, domain: &str| (0..count).map(|n| format!("p{n:03}@{domain}")).collect::<Vec<_>>();
    let (outside, inside) = (of(40, "example.com"), of(80, "corp.example.com"));
    let all = [outside.clone(), inside.clone()].concat();
    let to: Vec<&str> = all.iter().map(String::as_str).collect();
    relay.submit("shop@example.org", &to, &to_many(&outside));
    wait_until("all outside have theirs", BOUND, || mark.copies().len() >= outside.len());
    assert_eq!(mark.copies(), outside);
    wait_until("and all inside", BOUND, || {
        corp.received().iter().map(|one| one.to.len()).sum::<usize>() >= inside.len()
    });
}

#[test]
fn each_refusal_of_its_api_goes_where_it_should() {
    // The name of the stand-in's answer, and what becomes of the mail: to the other ESP, back to the sender, or held.
    let rows: &[(&str, &str)] = &[
        ("unauthorized", "elsewhere"),
        ("maintenance", "elsewhere"),
        ("invalid-request", "bounced"),
        ("invalid-from", "elsewhere"),
        ("too-many-recipients", "elsewhere"),
        ("sender-not-found", "elsewhere"),
        ("sender-not-confirmed", "elsewhere"),
        ("invalid-json", "elsewhere"),
        ("invalid-field", "elsewhere"),
        ("credits-spent", "elsewhere"),
        ("json-required", "elsewhere"),
        ("forbidden-attachment", "elsewhere"),
        ("account-pending", "elsewhere"),
        ("account-may-not-send", "elsewhere"),
        ("stream-not-found", "elsewhere"),
        ("stream-may-not-send", "elsewhere"),
        ("not-found", "elsewhere"),
        ("too-large", "elsewhere"),
        ("wrong-type", "elsewhere"),
        ("throttled", "elsewhere"),
        ("internal-error", "held"),
        ("bad-gateway", "held"),
        ("gateway-timeout", "held"),
        ("unavailable", "elsewhere"),
    ];
    let errors = <postmark::Rules as Vendor>::errors();
    side_by_side(rows, |(name, wanted)| {
        let mark = Postmark::start();
        let other = Upstream::start();
        let relay = by_api(&mark).upstream(&other, "").start();
        let (_, answer) = errors.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}"));
        mark.fail(Fault::Answer(answer.clone()), 1);
        let id = relay.submit("shop@example.org", &["ok@example.com"], &mail(name, ""));
        let life = done(&relay, &id);
        let first = &life["attempts"][0];
        let met = match (other.count(), first["outcome"].as_str().unwrap_or_default()) {
            (1, "refused" | "unfit") => "elsewhere",
            (0, "unsure") => "held",
            (0, "refused") => "bounced",
            other => panic!("{name}: {other:?} {life}"),
        };
        assert_eq!(met, *wanted, "{name}: {life}");
        // What was held goes once more, to the same ESP; what was not taken is there once.
        assert_eq!(mark.count(), usize::from(*wanted == "held"), "{name}: {life}");
        assert!(!relay.log().contains(mark.key()), "the token is in the log");
    });
}

#[test]
fn a_request_that_it_does_not_like_is_told_once_and_its_mail_goes_elsewhere() {
    let (mark, other) = (Postmark::start(), Upstream::start());
    let relay = by_api(&mark).upstream(&other, "").start();
    mark.fail(Fault::Answer(postmark::error(403, "Incompatible JSON: a field is not known.")), 2);
    for n in 1..=3 {
        let id = relay.submit("shop@example.org", &["ok@example.com"], &mail(&format!("odd {n}"), ""));
        done(&relay, &id);
    }
    assert_eq!((mark.count(), other.count()), (1, 2), "and what it likes it still gets");
    assert_eq!(relay.metric("postroad_alerts_total{kind=\"request_refused\"}"), 1.0, "{}", relay.log());
}

#[test]
fn what_was_taken_without_an_answer_is_held_and_not_sent_elsewhere() {
    side_by_side(
        [Fault::TakeThenCut, Fault::TakeThenReset, Fault::TakeThenHang, Fault::CutInAnswer(20)],
        |fault| {
            let (mark, other) = (Postmark::start(), Upstream::start());
            let relay = by_api(&mark).upstream(&other, "").start();
            mark.fail(fault.clone(), 1);
            let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("held", ""));
            wait_until("it is seen", BOUND, || life(&relay, &id)["attempts"][0]["outcome"] == "unsure");
            let life = done(&relay, &id);
            assert_eq!(
                (mark.count(), other.count()),
                (2, 0),
                "{fault:?}: once more to the same, as announced: {life}"
            );
            let told = relay.cli(&["explain", &id]).must(0).out;
            assert!(told.contains("may arrive twice"), "{fault:?}: {told}");
        },
    );
}

#[test]
fn what_never_reached_it_goes_elsewhere_at_once() {
    let (mut mark, other) = (Postmark::start(), Upstream::start());
    let relay = by_api(&mark).upstream(&other, "").start();
    mark.shut();
    let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("down", ""));
    other.wait_for(1);
    let life = done(&relay, &id);
    assert_eq!((life["attempts"][0]["fault"].as_str(), mark.count()), (Some("path"), 0), "{life}");
}

#[test]
fn inactive_recipients_are_refused_and_the_others_are_not() {
    let mark = Postmark::start();
    mark.suppress("gone@example.com");
    let relay = by_api(&mark).start();
    let raw = b"From: shop@example.org\r\nTo: ok@example.com, Gone@example.com\r\nSubject: partial\r\n\r\nhello\r\n";
    let id = relay.submit("shop@example.org", &["ok@example.com", "Gone@example.com"], raw);
    let life_of_two = done(&relay, &id);
    let reason = |n: usize| life_of_two["deliveries"][n]["reason"].as_str().map(str::to_owned);
    assert_eq!(mark.copies(), ["ok@example.com"], "{life_of_two}");
    assert_ne!(reason(0), reason(1), "{life_of_two}");
    let alone = relay.submit(
        "shop@example.org",
        &["gone@example.com"],
        b"From: shop@example.org\r\nTo: gone@example.com\r\nSubject: s\r\n\r\nx\r\n",
    );
    let life_of_one = done(&relay, &alone);
    assert_eq!(life_of_one["attempts"][0]["fault"], "recipient", "{life_of_one}");
    assert_eq!(mark.count(), 1);
}

#[test]
fn more_recipients_than_it_takes_at_a_time_go_in_several_calls() {
    let mark = Postmark::start();
    let smtp = mark.smtp().address();
    let relay = Relay::setup()
        .tables(&esp(&mark, &format!("smtp_endpoint = \"smtp://{smtp}\"")))
        .tables(FAST)
        .start();
    let people: Vec<String> = (0..60).map(|n| format!("p{n:02}@example.com")).collect();
    let to: Vec<&str> = people.iter().map(String::as_str).collect();
    let id = relay.submit("shop@example.org", &to, &mail("crowd", ""));
    done(&relay, &id);
    assert_eq!(mark.copies(), people, "each once");
    assert_eq!(mark.count(), 2);
}

#[test]
fn what_its_api_cannot_carry_goes_to_its_smtp_endpoint() {
    let mark = Postmark::start();
    let smtp = mark.smtp().address();
    let table = esp(&mark, &format!("smtp_endpoint = \"smtp://{smtp}\""));
    let relay = Relay::setup().tables(&table).tables(FAST).start();
    let hidden =
        b"From: shop@example.org\r\nSubject: nobody named\r\nX-Postroad-Tag: spring\r\n\r\nhello\r\n";
    let id = relay.submit("shop@example.org", &["ok@example.com"], hidden);
    let taken = mark.wait_for(1).remove(0);
    assert_eq!((taken.door, taken.to.as_slice()), (Door::Smtp, &["ok@example.com".to_owned()][..]));
    assert_eq!(taken.tags, ["spring"]);
    let life = done(&relay, &id);
    assert_eq!(taken.attempt, Some(planted(&id, &life)), "{life}");
    relay.submit("shop@example.org", &["ok@example.com"], &mail("plain", ""));
    assert_eq!(mark.wait_for(2)[1].door, Door::Http);
}

#[test]
fn by_smtp_alone_it_takes_mail_and_each_refusal_goes_where_it_should() {
    side_by_side(
        [
            ("unauthorized", "elsewhere"),
            ("closing", "elsewhere"),
            ("temporary", "elsewhere"),
            ("too-large", "elsewhere"),
            ("rejected", "bounced"),
        ],
        |(name, wanted)| {
            let (mark, other) = (Postmark::start(), Upstream::start());
            let smtp = mark.smtp().address();
            let table = esp(&mark, &format!("transport = \"smtp\"\nsmtp_endpoint = \"smtp://{smtp}\""));
            let relay = Relay::setup().tables(&table).tables(FAST).upstream(&other, "").start();
            relay.submit("shop@example.org", &["ok@example.com"], &mail("by smtp", ""));
            assert_eq!(mark.wait_for(1)[0].door, Door::Smtp);
            // A connection that is open already is past its banner and its login.
            mark.smtp().drop_connections();
            mark.fail_smtp(name, 1);
            let id = relay.submit("shop@example.org", &["ok@example.com"], &mail(name, ""));
            let life = done(&relay, &id);
            let met = if other.count() == 1 { "elsewhere" } else { "bounced" };
            assert_eq!((met, mark.count()), (wanted, 1), "{name}: {life}");
            assert!(!relay.log().contains(mark.key()), "the token is in the log");
        },
    );
}

#[test]
fn by_smtp_a_sender_that_it_does_not_know_goes_elsewhere_and_what_it_took_in_silence_is_held() {
    let (mark, other) = (Postmark::start(), Upstream::start());
    let smtp = mark.smtp().address();
    let table = esp(&mark, &format!("transport = \"smtp\"\nsmtp_endpoint = \"smtp://{smtp}\""));
    let relay = Relay::setup().tables(&table).tables(FAST).upstream(&other, "").start();
    mark.smtp().fail(Point::Dot, upstream::Fault::Close, 1);
    let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("held", ""));
    wait_until("it is seen", BOUND, || life(&relay, &id)["attempts"][0]["outcome"] == "unsure");
    assert_eq!(other.count(), 0);
    done(&relay, &id);
    mark.only_senders(&["other.example"]);
    let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("unknown", ""));
    other.wait_for(1);
    let life = done(&relay, &id);
    assert_eq!(life["attempts"][0]["fault"], "sender", "{life}");
}

#[test]
fn the_check_says_what_works() {
    let mark = Postmark::start();
    let relay = by_api(&mark).start();
    let told = relay.cli(&["esp", "test", "mark"]).must(0).out;
    assert!(told.contains("token"), "{told}");
    let bad = Relay::setup()
        .tables(
            &esp(&mark, "transport = \"api\"").replace(mark.key(), "11111111-2222-3333-4444-555555555555"),
        )
        .start();
    let ran = bad.cli(&["esp", "test", "mark"]).must(1);
    let told = format!("{}{}", ran.out, ran.err);
    assert!(told.contains("server_token") && !told.contains("11111111-2222"), "{told}");
    bad.cli(&["check", "--connect"]).must(1);
}
