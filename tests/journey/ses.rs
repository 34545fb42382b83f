//! Amazon SES, from SMTP in to its doors and back to `explain`.

use std::time::Duration;

use serde_json::Value;

use crate::support::esps::{Door, Fault, Ses, Vendor, ses};
use crate::support::mailgen::{assert_unchanged, plain, sized};
use crate::support::relay::Setup;
use crate::support::wait::side_by_side;
use crate::support::{Relay, Upstream, wait_until};

const BOUND: Duration = Duration::from_secs(20);
/// Once a second, and a hold of two.
const FAST: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"2s\"\n";

fn esp(amazon: &Ses, lines: &str) -> String {
    let (url, smtp, region) = (amazon.url(), amazon.smtp().address(), ses::REGION);
    let keys = format!("access_key_id = \"{}\"\nsecret_access_key = \"{}\"", ses::ACCESS_KEY_ID, ses::SECRET);
    format!(
        "[[esp]]\nname = \"amazon\"\ntype = \"ses\"\npriority = 0\nregion = \"{region}\"\n{keys}\nendpoint = \"{url}\"\n\
         smtp_endpoint = \"smtp://{smtp}\"\ntimeout = \"2s\"\n{lines}\n"
    )
}

fn to(amazon: &Ses, lines: &str) -> Setup {
    Relay::setup().tables(&esp(amazon, lines)).tables(FAST)
}

fn mail(subject: &str, head: &str) -> Vec<u8> {
    format!("{head}From: shop@example.org\r\nTo: ok@example.com\r\nSubject: {subject}\r\n\r\nhello\r\n")
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

fn assert_secret_stays(relay: &Relay, told: &str) {
    let login = ses::SECRET;
    assert!(!relay.log().contains(login) && !told.contains(login), "the key is told: {told}");
}

#[test]
fn a_message_arrives_as_it_was_with_its_own_envelope_and_the_attempt_in_its_tags() {
    let amazon = Ses::start();
    let relay = to(&amazon, "configuration_set = \"events\"").start();
    let asks = "X-Postroad-Tag: spring\r\nX-Postroad-Metadata-Order: 7\r\n";
    let sent = mail("hello", "");
    let raw = [asks.as_bytes(), &sent].concat();
    let id = relay.submit("bounces@example.org", &["ok@example.com", "hidden@example.net"], &raw);
    let taken = amazon.wait_for(1).remove(0);
    assert_eq!((taken.door, taken.from.as_str()), (Door::Http, "shop@example.org"));
    assert_eq!(amazon.copies(), ["hidden@example.net", "ok@example.com"]);
    assert_unchanged(&sent, taken.mime.as_deref().unwrap());
    let json = taken.json.clone().unwrap();
    assert_eq!(json["ConfigurationSetName"], "events");
    assert!(json.get("FromEmailAddress").is_none(), "{json}");
    let life = done(&relay, &id);
    let attempt = life["attempts"][0]["attempt"].as_str().unwrap();
    let mut tags = taken.tags.clone();
    tags.sort();
    assert_eq!(
        tags,
        ["order=7".to_owned(), format!("postroad-attempt={id}-{attempt}"), "postroad-tag=spring".into()]
    );
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(told.contains("amazon") && told.contains(&taken.id), "{told}");
    assert_secret_stays(&relay, &told);
}

#[test]
fn by_smtp_it_arrives_with_the_same_tags_in_its_header() {
    let amazon = Ses::start();
    let lines = "transport = \"smtp\"\nconfiguration_set = \"events\"";
    let relay = to(&amazon, lines).server("allow_vendor_headers = true").start();
    let raw = mail("by smtp", "X-Postroad-Tag: spring\r\nX-SES-MESSAGE-TAGS: kind=receipt\r\n");
    let id = relay.submit("bounces@example.org", &["ok@example.com", "hidden@example.net"], &raw);
    let taken = amazon.wait_for(1).remove(0);
    assert_eq!(
        (taken.door, amazon.copies()),
        (Door::Smtp, vec!["hidden@example.net".into(), "ok@example.com".into()])
    );
    let life = done(&relay, &id);
    let attempt = life["attempts"][0]["attempt"].as_str().unwrap();
    let mut tags = taken.tags.clone();
    tags.sort();
    let expected =
        ["kind=receipt".to_owned(), format!("postroad-attempt={id}-{attempt}"), "postroad-tag=spring".into()];
    assert_eq!(tags, expected);
    assert_secret_stays(&relay, &relay.cli(&["esp", "test", "amazon"]).must(0).out);
}

#[test]
fn what_there_is_no_memory_for_goes_by_smtp() {
    let amazon = Ses::start();
    let relay = to(&amazon, "").limits("memory = \"32MB\"").start();
    relay.submit("shop@example.org", &["ok@example.com"], &sized("large", 6_000_000));
    relay.submit("shop@example.org", &["ok@example.com"], &plain("small"));
    let mut doors: Vec<_> = amazon.wait_for(2).into_iter().map(|t| (t.subject, t.door)).collect();
    doors.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(doors, [("large".to_owned(), Door::Smtp), ("small".to_owned(), Door::Http)]);
}

#[test]
fn each_refusal_of_its_api_goes_where_it_should() {
    // The name of the stand-in's answer, and what becomes of the mail: to the other ESP, back to the sender, or held.
    let rows: &[(&str, &str)] = &[
        ("throttled", "elsewhere"),
        ("throttled-common", "elsewhere"),
        ("daily-quota", "elsewhere"),
        ("limit-exceeded", "elsewhere"),
        ("sender-not-verified", "elsewhere"),
        ("duplicate-header", "elsewhere"),
        ("rejected", "bounced"),
        ("mail-from-not-verified", "elsewhere"),
        ("suspended", "elsewhere"),
        ("sending-paused", "elsewhere"),
        ("sending-paused-v1", "elsewhere"),
        ("set-paused", "elsewhere"),
        ("not-found", "elsewhere"),
        ("bad-request", "bounced"),
        ("too-large", "elsewhere"),
        ("internal-error", "held"),
        ("internal-failure", "held"),
        ("bad-gateway", "held"),
        ("gateway-timeout", "held"),
        ("unavailable", "elsewhere"),
        ("access-denied", "elsewhere"),
        ("unknown-key", "elsewhere"),
        ("invalid-token", "elsewhere"),
        ("bad-signature", "elsewhere"),
        ("invalid-signature", "elsewhere"),
        ("expired-token", "elsewhere"),
        ("clock-skew", "elsewhere"),
    ];
    let errors = <ses::Rules as Vendor>::errors();
    assert_eq!(rows.len(), errors.len(), "each answer has its row");
    side_by_side(rows, |(name, wanted)| {
        let (amazon, other) = (Ses::start(), Upstream::start());
        let relay = to(&amazon, "transport = \"api\"").upstream(&other, "").start();
        let (_, answer) = errors.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}"));
        amazon.fail(Fault::Answer(answer.clone()), 1);
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
        assert_eq!(amazon.count(), usize::from(*wanted == "held"), "{name}: {life}");
        assert_secret_stays(&relay, &life.to_string());
    });
}

#[test]
fn what_was_taken_without_an_answer_is_held_and_not_sent_elsewhere() {
    side_by_side(
        [Fault::TakeThenCut, Fault::TakeThenReset, Fault::TakeThenHang, Fault::CutInAnswer(20)],
        |fault| {
            let (amazon, other) = (Ses::start(), Upstream::start());
            let relay = to(&amazon, "").upstream(&other, "").start();
            amazon.fail(fault.clone(), 1);
            let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("held", ""));
            wait_until("it is seen", BOUND, || life(&relay, &id)["attempts"][0]["outcome"] == "unsure");
            let life = done(&relay, &id);
            assert_eq!((amazon.count(), other.count()), (2, 0), "{fault:?}: once more to the same: {life}");
            let told = relay.cli(&["explain", &id]).must(0).out;
            assert!(told.contains("may arrive twice"), "{fault:?}: {told}");
        },
    );
}

#[test]
fn what_never_reached_it_goes_elsewhere_at_once() {
    side_by_side([Fault::CutBeforeBody, Fault::CutInBody(200_000), Fault::HangBeforeBody], |fault| {
        let (amazon, other) = (Ses::start(), Upstream::start());
        let relay = to(&amazon, "").upstream(&other, "").start();
        amazon.fail_always(fault.clone());
        // More than the buffers of both sides hold, so that its end is never given to the connection.
        relay.submit("shop@example.org", &["ok@example.com"], &sized("elsewhere", 12_000_000));
        other.wait_for_within(1, BOUND);
        assert_eq!((amazon.count(), other.count()), (0, 1), "{fault:?}");
    });
}

#[test]
fn more_recipients_than_it_takes_at_a_time_go_in_several_calls() {
    let amazon = Ses::start();
    let relay = to(&amazon, "transport = \"api\"").start();
    let all: Vec<String> = (0..60).map(|n| format!("r{n:02}@example.com")).collect();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let id = relay.submit("shop@example.org", &names, &mail("many", ""));
    let taken = amazon.wait_for(2);
    assert_eq!(amazon.copies(), all);
    assert!(taken[0].attempt.is_some() && taken[0].attempt != taken[1].attempt);
    done(&relay, &id);
    assert_eq!(amazon.count(), 2);
}

#[test]
fn a_field_that_it_takes_once_is_another_esps_matter() {
    let twice = "DKIM-Signature: v=1; b=a\r\nDKIM-Signature: v=1; b=b\r\n";
    let (amazon, other) = (Ses::start(), Upstream::start());
    let relay = to(&amazon, "").upstream(&other, "").start();
    let sent = mail("twice signed", twice);
    let id = relay.submit("shop@example.org", &["ok@example.com"], &sent);
    let received = other.wait_for(1).remove(0);
    assert_eq!(received.data.windows(15).filter(|w| w == b"DKIM-Signature:").count(), 2);
    assert_eq!(amazon.requests().len(), 0, "nothing was asked of it");
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(told.contains("SES takes a message with one DKIM-Signature field"), "{told}");
}

#[test]
fn a_test_shows_the_account_and_says_what_is_wrong_with_a_key() {
    let amazon = Ses::start();
    let relay = to(&amazon, "transport = \"api\"").start();
    let told = relay.cli(&["esp", "test", "amazon"]).must(0).out;
    assert!(told.contains("production") && told.contains("of 50000 in 24 hours, 14/s"), "{told}");
    amazon.set_quota(ses::Quota { production: false, ..ses::Quota::default() });
    assert!(relay.cli(&["esp", "test", "amazon"]).must(0).out.contains("sandbox"));
    amazon.fail_reads(Fault::Answer(ses::access_denied()), 1);
    assert!(relay.cli(&["esp", "test", "amazon"]).must(0).out.contains("allow ses:GetAccount"));

    let wrong = esp(&amazon, "transport = \"api\"").replace(ses::SECRET, "wr0ng-s3cret-that-is-long-enough");
    let relay = Relay::setup().tables(&wrong).tables(FAST).start();
    let ran = relay.cli(&["esp", "test", "amazon"]).must(1);
    assert!(ran.out.contains("secret_access_key is not that of access_key_id"), "{ran:?}");
    assert!(!format!("{ran:?}{}", relay.log()).contains("wr0ng"), "{ran:?}");
}

#[test]
fn without_any_credentials_nothing_is_asked_of_it_and_the_words_say_what_to_do() {
    let (amazon, other) = (Ses::start(), Upstream::start());
    let table = format!(
        "[[esp]]\nname = \"amazon\"\ntype = \"ses\"\npriority = 0\nregion = \"eu-west-1\"\nendpoint = \"{}\"\n",
        amazon.url()
    );
    let setup = Relay::setup().tables(&table).tables(FAST).upstream(&other, "");
    let setup = setup.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", "/nonexistent");
    let relay = setup.env("AWS_ACCESS_KEY_ID", "").env("AWS_SECRET_ACCESS_KEY", "").start();
    let id = relay.submit("shop@example.org", &["ok@example.com"], &mail("unsigned", ""));
    other.wait_for_within(1, BOUND);
    let life = done(&relay, &id);
    assert_eq!(life["attempts"][0]["phase"], "auth", "{life}");
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(told.contains("set access_key_id and secret_access_key"), "{told}");
    assert_eq!(amazon.requests().len(), 0);
}

#[test]
fn it_tells_its_own_rate_and_quota_where_it_is_asked_to() {
    let amazon = Ses::start();
    let quota =
        ses::Quota { max_rate: 200.0, max_24_hours: 100.0, sent_24_hours: 97.0, ..ses::Quota::default() };
    amazon.set_quota(quota);
    let relay = to(&amazon, "transport = \"api\"\nrate = \"auto\"").start();
    let left = || {
        let lines = relay.cli(&["esp", "list", "--json"]).must(0).json();
        let amazon = lines.into_iter().find(|line| line["name"] == "amazon").unwrap_or_default();
        amazon["allowance_remaining"].as_u64()
    };
    wait_until("its quota is known", BOUND, || left() == Some(3));
    let submit = |n| relay.submit("shop@example.org", &["ok@example.com"], &mail(&format!("told {n}"), ""));
    let ids: Vec<String> = (0..4).map(submit).collect();
    amazon.wait_for(3);
    wait_until("what others have sent is not there for us", BOUND, || left() == Some(0));
    let told = relay.cli(&["explain", &ids[3]]).must(0).out;
    assert!(told.contains("daily"), "{told}");
    assert_eq!(amazon.count(), 3);
}

#[test]
fn one_that_does_not_tell_is_told_once_and_gets_one_a_second() {
    let amazon = Ses::start();
    amazon.fail_reads(Fault::Answer(ses::access_denied()), usize::MAX);
    let relay = to(&amazon, "transport = \"api\"\nrate = \"auto\"").start();
    for n in 0..3 {
        relay.submit("shop@example.org", &["ok@example.com"], &mail(&format!("slow {n}"), ""));
    }
    let taken = amazon.wait_for(3);
    let took = taken[2].at.duration_since(taken[0].at);
    assert!(took > Duration::from_millis(1_700), "{took:?}");
    assert!(relay.log().contains("amazon does not tell its limits"), "{}", relay.log());
}
