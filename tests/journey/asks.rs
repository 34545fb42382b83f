//! What an app asks for in `X-Postroad-*` fields: stream, ESP, moment, labels. They are read, taken out, and refused
//! where they are wrong or not this client's to choose.

use std::sync::Arc;
use std::time::Duration;

use postroad::clock::{Clock, System, monotonic};
use postroad::mail::Owner;
use postroad::store::{NewSuppression, Settings, Store};

use crate::support::{Client, Relay, Upstream, http, wait_until};

const NEWS: &str = "[[stream]]\nname = \"news\"\nkind = \"broadcast\"\nesps = [\"up2\"]\n";

fn mail(fields: &str) -> Vec<u8> {
    format!("From: app@example.org\r\nTo: ok@example.com\r\nSubject: asks\r\n{fields}\r\nhello\r\n")
        .into_bytes()
}

fn two(more: &str) -> (Upstream, Upstream, Relay) {
    let (a, b) = (Upstream::start(), Upstream::start());
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(&format!("{NEWS}{more}")).start();
    (a, b, relay)
}

fn life(relay: &Relay, id: &str) -> serde_json::Value {
    relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default()
}

fn refused(client: &mut Client, fields: &str) -> String {
    client.begin("app@example.org", &["ok@example.com"]);
    client.raw(&[&mail(fields)[..], b".\r\n"].concat());
    client.expect("550").text()
}

#[test]
fn the_header_chooses_stream_and_esp_and_is_taken_out() {
    let (a, b, relay) = two("");
    for (fields, at_a, at_b) in [
        ("", 1, 0),
        ("X-Postroad-Stream: news\r\n", 1, 1),
        ("x-postroad-esp:\r\n up2\r\n", 1, 2),
        ("X-Postroad-Stream: transactional\r\nX-Postroad-Unsubscribe: off\r\n", 2, 2),
    ] {
        let id = relay.submit("app@example.org", &["ok@example.com"], &mail(fields));
        wait_until(&format!("{fields:?} arrives"), Duration::from_secs(10), || {
            (a.count(), b.count()) == (at_a, at_b)
        });
        let stream = if fields.contains("news") { "news" } else { "transactional" };
        assert_eq!(life(&relay, &id)["stream"], stream);
    }
    for received in a.received().iter().chain(&b.received()) {
        assert!(!received.text().to_ascii_lowercase().contains("x-postroad"), "{}", received.text());
    }
}

#[test]
fn labels_are_kept_and_shown() {
    let (_a, _b, relay) = two("");
    let fields = "X-Postroad-Tag: spring\r\nX-Postroad-Tag: sale\r\nX-Postroad-Metadata-Order: 12\r\n";
    let id = relay.submit("app@example.org", &["ok@example.com"], &mail(fields));
    let life = life(&relay, &id);
    assert_eq!(life["tags"], serde_json::json!(["spring", "sale"]), "{life}");
    assert!(
        life["metadata"].to_string().contains("order") && life["metadata"].to_string().contains("12"),
        "{life}"
    );
}

#[test]
fn what_is_wrong_or_not_theirs_is_refused_by_name() {
    let (a, b, relay) =
        two("[[credential]]\nusername = \"shop\"\npassword = \"p4ss-word_1\"\nstream = \"news\"\n");
    let mut client = relay.client();
    for (fields, told) in [
        ("X-Postroad-Stream: nwes\r\n", "there are: broadcast, news, transactional"),
        ("X-Postroad-Esp: nobody\r\n", "there are: up1, up2"),
        ("X-Postroad-Send-At: soon\r\n", "X-Postroad-Send-At: is no time"),
        ("X-Postroad-Tag:\r\n", "X-Postroad-Tag: is empty"),
        ("X-Postroad-Stram: news\r\n", "did you mean X-Postroad-Stream?"),
    ] {
        let said = refused(&mut client, fields);
        assert!(said.contains(told), "{fields}: {said}");
    }
    let setup = Relay::setup().listener("auth = \"required\"").upstream(&a, "").upstream(&b, "").tables(NEWS);
    let credential = "[[credential]]\nusername = \"shop\"\npassword = \"p4ss-word_1\"\nstream = \"news\"\n";
    let relay = setup.tables(credential).start();
    let mut client = relay.client();
    client.auth_plain("shop", "p4ss-word_1");
    let said = refused(&mut client, "X-Postroad-Stream: transactional\r\n");
    assert!(said.contains("X-Postroad-Stream") && said.contains("news"), "{said}");
    client.submit("app@example.org", &["ok@example.com"], &mail("X-Postroad-Stream: news\r\n"));
    b.wait_for(1);
    assert_eq!((a.count(), b.count()), (0, 1));
}

#[test]
fn a_pin_waits_for_its_esp() {
    let (a, b, mut relay) = two("");
    drop(b);
    let id = relay.submit("app@example.org", &["ok@example.com"], &mail("X-Postroad-Esp: up2\r\n"));
    // Killed before its answer was written down, it would be held.
    wait_until("its ESP was tried, and refused", Duration::from_secs(10), || {
        let life = life(&relay, &id);
        life["deliveries"][0]["state"] == "waiting" && life["deliveries"][0]["tries"] == 1
    });
    relay.kill();
    relay.restart();
    let told = relay.cli(&["explain", &id]).out;
    assert!(told.contains("the message is pinned to up2"), "{told}");
    assert_eq!(a.count(), 0);
}

#[test]
fn mail_for_later_leaves_then_and_not_before_also_over_a_restart() {
    let (a, _b, mut relay) = two("");
    let at = jiff::Timestamp::from_second(System.now().millis() / 1_000 + 4).unwrap();
    let id =
        relay.submit("app@example.org", &["ok@example.com"], &mail(&format!("X-Postroad-Send-At: {at}\r\n")));
    let life = life(&relay, &id);
    assert_eq!(life["deliveries"][0]["state"], "waiting", "{life}");
    assert_eq!(life["deliveries"][0]["tries"], 0, "{life}");
    let due: jiff::Timestamp =
        life["deliveries"][0]["due"].as_str().and_then(|t| t.parse().ok()).expect("a time");
    assert_eq!(due, at);
    relay.kill();
    relay.restart();
    let began = monotonic();
    a.wait_for_within(1, Duration::from_secs(20));
    let early = at.as_millisecond() - System.now().millis();
    assert!(early <= 0, "it came {early} ms too early, {:?} after the restart", began.elapsed());
}

#[test]
fn a_key_is_taken_once_also_over_a_crash_and_at_once() {
    let (a, _b, mut relay) = two("");
    let first =
        relay.submit("app@example.org", &["ok@example.com"], &mail("X-Postroad-Idempotency-Key: o-1\r\n"));
    wait_until("it is done", Duration::from_secs(10), || {
        life(&relay, &first)["deliveries"][0]["state"] == "done"
    });
    relay.kill();
    relay.restart();
    let again =
        relay.submit("app@example.org", &["ok@example.com"], &mail("x-postroad-idempotency-key: o-1\r\n"));
    assert_eq!(again, first);
    // Of a repeat that is written down in pieces, nothing stays.
    let large =
        [&mail("X-Postroad-Idempotency-Key: o-1\r\n")[..], "x\r\n".repeat(200_000).as_bytes()].concat();
    assert_eq!(relay.submit("app@example.org", &["ok@example.com"], &large), first);
    let text = mail("X-Postroad-Idempotency-Key: o-2\r\n");
    let ids: Vec<String> = std::thread::scope(|scope| {
        let submit = || relay.submit("app@example.org", &["ok@example.com"], &text);
        let all: Vec<_> = (0..8).map(|_| scope.spawn(submit)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0] && *id != first), "{ids:?}");
    let token = std::fs::read_to_string(relay.data_dir().join("admin.token")).unwrap();
    let http = |key: &str| {
        let body = r#"{"from":"a@example.org","to":["b@example.com"],"text":"x"}"#;
        let answer = http::post_with(
            relay.http()?,
            "/v1/send",
            Some(token.trim()),
            &[("Idempotency-Key", key)],
            body,
        )?;
        Some((answer.status, answer.json()["id"].as_str().unwrap_or_default().to_owned()))
    };
    let by_http = http("o-1").unwrap();
    assert!(by_http.0 == 202 && by_http.1 != first, "whoever uses the API has keys of his own: {by_http:?}");
    assert_eq!(http("o-1").unwrap(), by_http);
    assert_eq!(http("").unwrap().0, 400);
    let mut all = vec![first, ids[0].clone(), by_http.1];
    all.sort();
    let known = || relay.cli(&["queue", "list", "--state", "done", "--json"]).must(0).json();
    wait_until("all are done", Duration::from_secs(10), || known().len() == all.len());
    let mut done: Vec<String> = known().iter().filter_map(|d| d["id"].as_str().map(str::to_owned)).collect();
    done.sort();
    assert_eq!((done, a.count()), (all, 3), "two keys by SMTP and one by HTTP, each once");
}

#[test]
fn a_key_is_its_client_s_alone_and_is_looked_up_before_anything_is_judged() {
    let (a, _b, relay) = two("");
    let keyed = mail("X-Postroad-Idempotency-Key: o-1\r\n");
    let first = relay.submit("app@example.org", &["ok@example.com"], &keyed);
    // The second has content that would be refused: a Bcc that everybody would see.
    let refused = mail("X-Postroad-Idempotency-Key: o-1\r\nno field\r\nBcc: hidden@example.com\r\n");
    assert_eq!(relay.submit("app@example.org", &["ok@example.com"], &refused), first);
    let mut other = Client::try_connect(relay.smtp(), Some("127.1.2.3".parse().unwrap())).unwrap();
    other.expect("220");
    other.say("EHLO other.example.com").expect("250");
    let theirs = other.submit("app@example.org", &["ok@example.com"], &keyed);
    assert_ne!(theirs, first, "another host has keys of its own");

    let token = || {
        let made = relay.cli(&["token", "create", "--scope", "send", "--name", "shop", "--json"]).must(0);
        made.json()[0]["token"].as_str().unwrap().to_owned()
    };
    let body = r#"{"from":"a@example.org","to":["b@example.com"],"text":"x"}"#;
    let send = |token: &str| {
        let key = [("Idempotency-Key", "o-1")];
        let answer = http::post_with(relay.http().unwrap(), "/v1/send", Some(token), &key, body).unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.json()
    };
    let (one, two) = (token(), token());
    let (by_one, by_two) = (send(&one), send(&two));
    assert_ne!(by_one["id"], by_two["id"], "two tokens may bear one name");
    let again = send(&one);
    assert_eq!(again["id"], by_one["id"]);
    assert_eq!(again["recipients"][0]["taken"], true, "{again}");
    a.wait_for(4);
}

/// Suppresses these on broadcast streams; the relay is down meanwhile.
fn unsubscribe(relay: &Relay, addresses: &[&str]) {
    let suppression = |address: &&str| NewSuppression {
        key: (*address).to_owned(),
        address: (*address).to_owned(),
        reason: "unsubscribe".into(),
        scope: "broadcast".into(),
        source: "operator".into(),
        evidence: None,
        created_at: System.now(),
        expires_at: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        let settings = Settings::to_read(relay.data_dir());
        let store = Store::open(settings, Owner::from_number(1), Arc::new(System)).unwrap();
        let done = store.suppress(addresses.iter().map(suppression).collect()).await;
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        store.close().await;
    });
}

#[test]
fn mail_for_later_stays_for_later_when_it_is_released_or_put_into_the_queue_again() {
    let (a, _b, relay) = two("");
    let at = jiff::Timestamp::from_second(System.now().millis() / 1_000 + 3_600).unwrap();
    let id =
        relay.submit("app@example.org", &["ok@example.com"], &mail(&format!("X-Postroad-Send-At: {at}\r\n")));
    let due = || life(&relay, &id)["deliveries"][0]["due"].as_str().and_then(|t| t.parse().ok());
    for (stop, go) in [("pause", "release"), ("rm", "requeue")] {
        relay.cli(&["queue", stop, &id]).must(0);
        let told = relay.cli(&["queue", go, &id]).must(0).out;
        assert!(told.contains(&format!("{id}: not before {at:.3} (in 59 min")), "{go}: {told}");
        assert_eq!(due(), Some(at), "{go}");
    }
    relay.cli(&["queue", "pause", &id]).must(0);
    let answer = relay.post("/v1/queue/release", &format!("{{\"ids\":[\"{id}\"]}}")).unwrap();
    assert_eq!(answer.json()["results"][0]["due"].as_str().and_then(|t| t.parse().ok()), Some(at));
    assert_eq!(a.count(), 0);
    relay.cli(&["queue", "flush", &id]).must(0);
    a.wait_for(1);
}

#[test]
fn where_the_header_chooses_a_stream_on_which_nobody_may_be_mailed_the_message_is_refused() {
    let (a, b, mut relay) = two("");
    let keyed = mail("X-Postroad-Stream: news\r\nX-Postroad-Idempotency-Key: n-1\r\n");
    let first = relay.submit("app@example.org", &["one@example.com"], &keyed);
    // Before it is suppressed.
    b.wait_for(1);
    relay.stop();
    unsubscribe(&relay, &["one@example.com", "two@example.com"]);
    relay.restart();
    let news = mail("X-Postroad-Stream: news\r\n");
    let mut client = relay.client();
    client.begin("app@example.org", &["one@example.com", "two@example.com"]);
    client.raw(&[&news[..], b".\r\n"].concat());
    let told = client.expect("550").text();
    assert!(told.starts_with("5.7.1") && told.contains("news") && told.contains("unsubscribe"), "{told}");
    // What is a repeat was taken; where somebody is left, or on another stream, the mail goes.
    assert_eq!(relay.submit("app@example.org", &["one@example.com"], &keyed), first);
    relay.submit("app@example.org", &["one@example.com", "ok@example.com"], &news);
    relay.submit("app@example.org", &["one@example.com"], &mail(""));
    b.wait_for(2);
    assert_eq!(b.received()[1].to, ["<ok@example.com>"]);
    a.wait_for(1);
}

#[test]
fn a_key_that_came_with_other_recipients_sends_nothing_and_says_so() {
    let (a, _b, relay) = two("");
    let keyed = mail("X-Postroad-Idempotency-Key: order-12\r\n");
    let id = relay.submit("app@example.org", &["ok@example.com", "two@example.com"], &keyed);
    let mut client = relay.client();
    client.begin("app@example.org", &["two@example.com"]);
    client.raw(&[&keyed[..], b".\r\n"].concat());
    assert!(client.expect("250").text().contains(&id));
    client.begin("app@example.org", &["ok@example.com", "new@example.com"]);
    client.raw(&[&keyed[..], b".\r\n"].concat());
    let said = client.expect("550").text();
    assert!(said.contains("<new@example.com> is not among the recipients when its key came first"), "{said}");
    wait_until("the first goes out", Duration::from_secs(10), || a.count() >= 1);
    assert!(a.received().iter().all(|mail| mail.to.iter().all(|to| to != "<new@example.com>")));
}

#[test]
fn a_listener_with_a_stream_takes_no_other() {
    let (a, b) = (Upstream::start(), Upstream::start());
    let setup = Relay::setup().listener("stream = \"news\"").upstream(&a, "").upstream(&b, "");
    let relay = setup.tables(NEWS).start();
    let mut client = Client::hello(relay.listener(0));
    let said = refused(&mut client, "X-Postroad-Stream: transactional\r\n");
    assert!(said.contains("X-Postroad-Stream") && said.contains("its stream is news"), "{said}");
    client.begin("app@example.org", &["ok@example.com"]);
    client.raw(&[&mail("X-Postroad-Stream: news\r\n")[..], b".\r\n"].concat());
    client.expect("250");
}
