//! SendGrid, from SMTP in to its two doors and back to `explain`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::esps::{Door, Fault, Response, Sendgrid, Vendor, sendgrid};
use crate::support::relay::Setup;
use crate::support::wait::side_by_side;
use crate::support::{Point, Relay, Upstream, upstream, wait_until};

const BOUND: Duration = Duration::from_secs(20);
/// Once a second, and a hold of two.
const FAST: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"2s\"\n";
const TO: &str = "To: ok@example.com\r\n";

fn esp(grid: &Sendgrid, lines: &str) -> String {
    format!(
        "[[esp]]\nname = \"grid\"\ntype = \"sendgrid\"\npriority = 0\napi_key = \"{}\"\nendpoint = \"{}\"\n\
         timeout = \"2s\"\n{lines}\n",
        grid.key(),
        grid.url()
    )
}

fn by_api(grid: &Sendgrid) -> Setup {
    Relay::setup().tables(&esp(grid, "transport = \"api\"")).tables(FAST)
}

fn by_both(grid: &Sendgrid, transport: &str) -> Setup {
    let smtp = grid.smtp().address();
    let lines = format!("transport = \"{transport}\"\nsmtp_endpoint = \"smtp://{smtp}\"");
    Relay::setup().tables(&esp(grid, &lines)).tables(FAST)
}

fn mail(subject: &str, head: &str) -> Vec<u8> {
    format!("From: Shop <shop@example.org>\r\nSubject: {subject}\r\n{head}\r\nhello\r\n").into_bytes()
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

/// How often the recipient was mailed there; a report to the sender may come as well.
fn mailed(other: &Upstream) -> usize {
    other.received().iter().filter(|received| received.to == ["<ok@example.com>"]).count()
}

#[test]
fn a_message_arrives_with_its_fields_and_the_attempt_in_its_arguments() {
    let grid = Sendgrid::start();
    let relay = by_api(&grid).start();
    let head = format!("{TO}X-Postroad-Tag: spring\r\nX-Postroad-Metadata-Order: 7\r\nX-Order: 7\r\n");
    let id =
        relay.submit("shop@example.org", &["ok@example.com", "hidden@example.net"], &mail("hello", &head));
    let taken = grid.wait_for(1).remove(0);
    assert_eq!((taken.door, taken.from.as_str()), (Door::Http, "shop@example.org"));
    assert_eq!(grid.copies(), ["hidden@example.net", "ok@example.com"]);
    let json = taken.json.clone().unwrap();
    let one = &json["personalizations"][0];
    assert_eq!(one["to"], json!([{"email": "ok@example.com"}]));
    assert_eq!(one["bcc"], json!([{"email": "hidden@example.net"}]));
    assert_eq!((&json["headers"]["X-Order"], &json["categories"]), (&json!("7"), &json!(["spring"])));
    assert!(json["headers"]["Message-ID"].is_string() && !json.to_string().contains("X-Postroad"), "{json}");
    assert!(taken.metadata.contains(&("order".into(), "7".into())), "{:?}", taken.metadata);
    let life = done(&relay, &id);
    let attempt = &life["attempts"][0];
    assert_eq!(attempt["outcome"], "accepted", "{life}");
    let planted = format!("{id}-{}", attempt["attempt"].as_str().unwrap());
    assert_eq!(taken.attempt.as_deref(), Some(planted.as_str()), "{life}");
    assert!(life.to_string().contains(&taken.id), "its id {} is kept: {life}", taken.id);
}

#[test]
fn each_refusal_of_its_api_goes_where_it_should() {
    let rows: &[(&str, &str)] = &[
        ("bad-request", "bounced"),
        ("too-many-recipients", "elsewhere"),
        ("bad-address", "bounced"),
        ("unauthorized", "elsewhere"),
        ("revoked", "elsewhere"),
        ("credits-spent", "elsewhere"),
        ("sender-not-verified", "elsewhere"),
        ("forbidden", "elsewhere"),
        ("not-found", "elsewhere"),
        ("method-not-allowed", "elsewhere"),
        ("too-large", "elsewhere"),
        ("wrong-type", "elsewhere"),
        ("throttled", "elsewhere"),
        ("internal-error", "held"),
        ("bad-gateway", "held"),
        ("unavailable", "elsewhere"),
        ("gateway-timeout", "held"),
    ];
    let errors = <sendgrid::Rules as Vendor>::errors();
    assert_eq!(errors.len(), rows.len(), "each answer of the stand-in has a row");
    side_by_side(rows, |(name, wanted)| {
        let (grid, other) = (Sendgrid::start(), Upstream::start());
        let relay = by_api(&grid).upstream(&other, "").start();
        let (_, answer) = errors.iter().find(|(known, _)| known == name).unwrap();
        grid.fail(Fault::Answer(answer.clone()), 1);
        let id = relay.submit("shop@example.org", &["ok@example.com"], &mail(name, TO));
        let life = done(&relay, &id);
        let met = match (mailed(&other), life["attempts"][0]["outcome"].as_str().unwrap_or_default()) {
            (1, "refused" | "unfit") => "elsewhere",
            (0, "unsure") => "held",
            (0, "refused") => "bounced",
            other => panic!("{name}: {other:?} {life}"),
        };
        assert_eq!(met, *wanted, "{name}: {life}");
        assert_eq!(grid.count(), usize::from(*wanted == "held"), "{name}: {life}");
        assert!(!relay.log().contains(grid.key()), "the key is in the log");
    });
}

#[test]
fn the_first_refusal_of_the_account_is_told_and_sends_its_mail_elsewhere() {
    for (transport, name) in [("api", "forbidden"), ("api", "not-found"), ("smtp", "unauthorized")] {
        let (grid, other) = (Sendgrid::start(), Upstream::start());
        let relay = by_both(&grid, transport).upstream(&other, "").start();
        match transport {
            "api" => {
                let errors = <sendgrid::Rules as Vendor>::errors();
                let (_, answer) = errors.iter().find(|(known, _)| *known == name).unwrap();
                grid.fail(Fault::Answer(answer.clone()), 1);
            }
            _ => grid.fail_smtp(name, 1),
        }
        for n in 1..=2 {
            let id = relay.submit("shop@example.org", &["ok@example.com"], &mail(&format!("{name} {n}"), TO));
            assert_eq!(done(&relay, &id)["attempts"].as_array().map(Vec::len), Some(3 - n), "{name} {n}");
        }
        assert_eq!(relay.metric("postroad_alerts_total{kind=\"esp_shut\"}"), 1.0, "{name}");
        assert_eq!((grid.count(), other.count()), (0, 2), "{name}");
    }
}

#[test]
fn what_was_taken_without_an_answer_is_held_and_not_sent_elsewhere() {
    side_by_side([Fault::TakeThenCut, Fault::TakeThenReset, Fault::TakeThenHang], |fault| {
        let (grid, other) = (Sendgrid::start(), Upstream::start());
        let relay = by_api(&grid).upstream(&other, "").start();
        grid.fail(fault.clone(), 1);
        let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("held", TO));
        wait_until("it is seen", BOUND, || life(&relay, &id)["attempts"][0]["outcome"] == "unsure");
        let life = done(&relay, &id);
        assert_eq!((grid.count(), other.count()), (2, 0), "{fault:?}: once more to the same: {life}");
    });
}

#[test]
fn what_never_reached_it_goes_elsewhere_at_once() {
    let (mut grid, other) = (Sendgrid::start(), Upstream::start());
    let relay = by_api(&grid).upstream(&other, "").start();
    grid.shut();
    let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("down", TO));
    other.wait_for(1);
    let life = done(&relay, &id);
    assert_eq!((life["attempts"][0]["fault"].as_str(), grid.count()), (Some("path"), 0), "{life}");
}

#[test]
fn a_throttle_is_waited_for_where_nobody_else_is_left() {
    let grid = Sendgrid::start();
    let relay = by_api(&grid).start();
    grid.fail(Fault::Answer(sendgrid::throttled_until(0)), 1);
    let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("soon", TO));
    grid.wait_for(1);
    let life = done(&relay, &id);
    assert_eq!(life["attempts"][0]["fault"], "throttled", "{life}");
}

#[test]
fn one_bad_recipient_does_not_stop_the_others() {
    let grid = Sendgrid::start();
    let relay = by_both(&grid, "auto").start();
    let bad =
        sendgrid::error(400, "Does not contain a valid address.", Some("personalizations.0.to.1.email"));
    grid.fail(Fault::Answer(bad), 1);
    let recipients = ["ann@example.com", "bad@example.com", "cy@example.com"];
    let head = format!("To: {}\r\n", recipients.join(", "));
    let id = relay.submit("shop@example.org", &recipients, &mail("three", &head));
    let life = done(&relay, &id);
    assert_eq!(grid.copies(), ["ann@example.com", "cy@example.com"], "{life}");
    // Without the third the header names somebody whom the call does not mail: the API cannot say that.
    assert_eq!(grid.accepted()[0].door, Door::Smtp);
}

#[test]
fn what_the_api_cannot_say_goes_by_smtp_with_the_same_labels() {
    let grid = Sendgrid::start();
    let relay = by_both(&grid, "auto").start();
    let labels = "X-Postroad-Tag: spring\r\nX-Postroad-Metadata-Order: gr\u{fc}n\r\n";
    relay.submit("shop@example.org", &["ok@example.com"], &mail("api", &format!("{TO}{labels}")));
    let first = grid.wait_for(1).remove(0);
    relay.submit("shop@example.org", &["a@example.com", "b@example.com"], &mail("smtp", labels));
    let second = grid.wait_for(2).remove(1);
    assert_eq!((first.door, second.door), (Door::Http, Door::Smtp));
    assert_eq!(second.to, ["a@example.com", "b@example.com"]);
    for taken in [&first, &second] {
        assert_eq!(taken.tags, ["spring"]);
        assert!(taken.metadata.contains(&("order".into(), "gr\u{fc}n".into())), "{:?}", taken.metadata);
        assert!(taken.attempt.is_some());
    }
}

#[test]
fn smtp_alone_has_rows_of_its_own() {
    side_by_side(
        [
            ("unauthorized", "elsewhere"),
            ("credits-spent", "elsewhere"),
            ("unauthenticated", "elsewhere"),
            ("sender-not-allowed", "elsewhere"),
            ("sender-not-verified", "elsewhere"),
            ("too-large", "elsewhere"),
            ("busy", "elsewhere"),
            ("rejected", "bounced"),
        ],
        |(name, wanted)| {
            let (grid, other) = (Sendgrid::start(), Upstream::start());
            let relay = by_both(&grid, "smtp").upstream(&other, "").start();
            grid.fail_smtp(name, 1);
            let id = relay.submit("shop@example.org", &["ok@example.com"], &mail(name, TO));
            let life = done(&relay, &id);
            let met = if mailed(&other) == 1 { "elsewhere" } else { "bounced" };
            assert_eq!((met, grid.count()), (wanted, 0), "{name}: {life}");
            assert!(!relay.log().contains(grid.key()), "the key is in the log");
        },
    );
}

#[test]
fn an_apps_control_fields_are_taken_out_unless_they_are_allowed() {
    let own = "X-SMTPAPI: {\"unique_args\":{\"theirs\":\"1\"},\"category\":\"app\"}\r\nX-SES-A: 1\r\nX-PM-Tag: t\r\n";
    side_by_side(
        [
            ("", "api"),
            ("", "smtp"),
            ("allow_vendor_headers = true", "api"),
            ("allow_vendor_headers = true", "smtp"),
        ],
        |(server, transport)| {
            let grid = Sendgrid::start();
            let relay = by_both(&grid, transport).server(server).start();
            relay.submit("shop@example.org", &["ok@example.com"], &mail("own", &format!("{TO}{own}")));
            let taken = grid.wait_for(1).remove(0);
            let allowed = !server.is_empty();
            assert_eq!(taken.tags.contains(&"app".to_owned()), allowed, "{transport} {server}");
            assert_eq!(
                taken.metadata.contains(&("theirs".into(), "1".into())),
                allowed,
                "{transport} {server}"
            );
            assert!(taken.attempt.is_some(), "{transport} {server}");
            let sent = taken.json.as_ref().map_or_else(|| taken.text(), Value::to_string);
            assert_eq!((sent.contains("X-SES-A"), sent.contains("X-PM-Tag")), (allowed, allowed), "{sent}");
            if !allowed {
                wait_until("it is told", BOUND, || relay.log().contains("X-SMTPAPI"));
            }
        },
    );
    let grid = Sendgrid::start();
    let relay = by_both(&grid, "auto").start();
    let json = json!({
        "from": "shop@example.org", "to": ["ok@example.com"], "subject": "s", "text": "t",
        "headers": {"X-SMTPAPI": "{\"category\":\"app\"}", "X-Mine": "1"},
    });
    assert_eq!(relay.post("/v1/send", &json.to_string()).unwrap().status, 202);
    let sent = grid.wait_for(1).remove(0).json.unwrap();
    assert_eq!((sent["headers"].get("X-SMTPAPI"), &sent["headers"]["X-Mine"]), (None, &json!("1")), "{sent}");
    assert!(sent.get("categories").is_none(), "{sent}");
}

#[test]
fn a_test_says_which_door_works() {
    let mut grid = Sendgrid::start();
    let relay = by_both(&grid, "auto").start();
    grid.smtp_mut().shut();
    let ran = relay.cli(&["esp", "test", "grid"]).must(1);
    assert!(ran.out.contains("grid: its API works, its SMTP endpoint"), "{ran:?}");
    assert!(ran.err.contains("grid can be used in part alone now"), "{ran:?}");
    let told = relay.cli(&["esp", "test", "grid", "--json"]).must(1).json();
    assert_eq!((&told[0]["ok"], &told[0]["in_part"]), (&json!(false), &json!(true)), "{told:?}");
    grid.smtp_mut().reopen_if_down();
    grid.fail_reads(Fault::Answer(sendgrid::revoked()), 1);
    let ran = relay.cli(&["esp", "test", "grid"]).must(1);
    assert!(ran.out.contains("grid: its SMTP endpoint works, its API does not"), "{ran:?}");
    relay.cli(&["esp", "test", "grid"]).must(0);
}

#[test]
fn a_test_mail_comes_from_an_address_of_the_relays_own() {
    let grid = Sendgrid::start();
    let lines = "transport = \"api\"\nenvelope_from = \"bounces@example.org\"";
    for (server, lines, from) in [
        ("dsn_from = \"reports@example.org\"", lines, "reports@example.org"),
        ("", lines, "bounces@example.org"),
    ] {
        let relay = Relay::setup().server(server).tables(&esp(&grid, lines)).tables(FAST).start();
        let sent = grid.count();
        let ran = relay.cli(&["esp", "test", "grid", "--send", "ok@example.com"]).must(0);
        assert!(ran.out.contains("queued as "), "{ran:?}");
        assert_eq!(grid.wait_for(sent + 1)[sent].from, from);
    }
    let relay = by_api(&grid).start();
    let ran = relay.cli(&["esp", "test", "grid", "--send", "ok@example.com"]).must(2);
    assert!(ran.err.contains("--from ADDRESS"), "{ran:?}");
}

#[test]
fn a_secret_that_is_echoed_in_escapes_is_not_shown() {
    let (grid, other) = (Sendgrid::start(), Upstream::start());
    let relay = by_both(&grid, "auto").upstream(&other, "").start();
    let escaped: String = grid.key().encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    let url: String = grid.key().bytes().map(|b| format!("%{b:02x}")).collect();
    let body = format!("{{\"errors\":[{{\"message\":\"bad key {escaped}, {url}\",\"field\":null}}]}}");
    for n in 0..2 {
        let answer = match n {
            0 => Response::text(401, "application/json", &body),
            // Octets that are no text hide nothing either.
            _ => Response { body: [b"\xff ", grid.key().as_bytes()].concat(), ..Response::empty(401) },
        };
        grid.fail(Fault::Answer(answer), 1);
        let id = relay.submit("shop@example.org", &["ok@example.com"], &mail(&format!("echo {n}"), TO));
        let told = format!("{}{}", done(&relay, &id), relay.cli(&["explain", &id]).must(0).out);
        assert!(told.contains("***"), "{told}");
        for shown in [&told, &relay.log(), &relay.cli(&["esp", "list", "--json"]).must(0).out] {
            let bare = shown.replace("\\\\", "\\");
            for spelled in [grid.key(), &escaped, &url] {
                assert!(!bare.contains(spelled), "{spelled} is in {shown}");
            }
        }
        relay.cli(&["esp", "resume", "grid"]).must(0);
    }
}

#[test]
fn what_its_api_answers_that_it_cannot_carry_goes_by_smtp_in_the_same_attempt() {
    let errors = <sendgrid::Rules as Vendor>::errors();
    let answer = |name: &str| errors.iter().find(|(known, _)| *known == name).unwrap().1.clone();
    let (mut grid, other) = (Sendgrid::start(), Upstream::start());
    let relay = by_both(&grid, "auto").upstream(&other, "").start();
    for (n, name) in ["too-large", "too-many-recipients"].into_iter().enumerate() {
        grid.fail(Fault::Answer(answer(name)), 1);
        let id = relay.submit("shop@example.org", &["ok@example.com"], &mail(name, TO));
        let life = done(&relay, &id);
        assert_eq!(life["attempts"].as_array().map(Vec::len), Some(1), "{life}");
        assert_eq!((grid.count(), other.count(), grid.accepted()[n].door), (n + 1, 0, Door::Smtp), "{life}");
        let told = relay.cli(&["explain", &id]).must(0).out;
        assert!(told.contains("by its API: HTTP 4") && told.contains("; by SMTP: 250"), "{told}");
    }
    // Neither: then another ESP carries it, and each door's words are told.
    grid.fail(Fault::Answer(answer("too-large")), 1);
    grid.fail_smtp("too-large", 1);
    let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("neither", TO));
    other.wait_for(1);
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(told.contains("by its API: HTTP 413") && told.contains("; by SMTP: 552"), "{told}");
    // An endpoint that is not reached is no fault of the API's.
    grid.smtp_mut().shut();
    for n in 2..=6 {
        grid.fail(Fault::Answer(answer("too-large")), 1);
        relay.submit("shop@example.org", &["ok@example.com"], &mail("unreached", TO));
        other.wait_for(n);
    }
    assert_eq!(grid.count(), 2);
    let listed = relay.cli(&["esp", "list", "--json"]).must(0).json();
    assert_eq!(listed[0]["gate"], "open", "{listed:?}");
    // The mail was lost after its hand-over by the second door: held, as ever.
    grid.smtp_mut().reopen_if_down();
    grid.fail(Fault::Answer(answer("too-large")), 1);
    grid.smtp().fail(Point::Dot, upstream::Fault::Close, 1);
    let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("held", TO));
    let life = done(&relay, &id);
    assert_eq!((life["attempts"][0]["outcome"].as_str(), other.count()), (Some("unsure"), 6), "{life}");
}

#[test]
fn an_invitation_keeps_its_method() {
    let grid = Sendgrid::start();
    let relay = by_both(&grid, "auto").start();
    let raw = "From: shop@example.org\r\nTo: ok@example.com\r\nSubject: come\r\nMIME-Version: 1.0\r\n\
               Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\ncome\r\n--b\r\n\
               Content-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\n--b--\r\n";
    relay.submit("shop@example.org", &["ok@example.com"], raw.as_bytes());
    let taken = grid.wait_for(1).remove(0);
    assert_eq!(taken.door, Door::Smtp);
    assert!(taken.text().contains("text/calendar; method=REQUEST"), "{}", taken.text());
    // Without an SMTP endpoint another ESP carries it, and explain says what would be lost.
    let other = Upstream::start();
    let relay = by_api(&grid).upstream(&other, "").start();
    let id = relay.submit("shop@example.org", &["ok@example.com"], raw.as_bytes());
    other.wait_for(1);
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(told.contains("would lose method=REQUEST"), "{told}");
}

#[test]
fn its_key_is_tried_and_never_shown() {
    let grid = Sendgrid::start();
    let relay = by_both(&grid, "auto").start();
    let told = relay.cli(&["esp", "test", "grid"]).must(0);
    assert!(told.out.contains("mail.send"), "{}", told.out);
    grid.fail_reads(Fault::Answer(sendgrid::revoked()), usize::MAX);
    let failed = relay.cli(&["esp", "test", "grid"]).must(1);
    for text in [&told.out, &told.err, &failed.out, &failed.err, &relay.log()] {
        assert!(!text.contains(grid.key()), "{text}");
    }
}
