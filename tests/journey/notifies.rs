//! Events out to the app: signed, in order, told again until they are taken, listed and told once more; and mail goes on
//! whatever the app does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{Answer, App, TAKE, Told};
use crate::support::esps::Sendgrid;
use crate::support::hooks::{Grid, now_secs};
use crate::support::mailgen::plain;
use crate::support::{Fault, Point, Relay, Upstream, skip, wait_until};

const BOUND: Duration = Duration::from_secs(30);
const SECRET: &str = "whsec_cG9zdHJvYWQncyBvd24gdGVzdCBrZXksIHRoaXJ0eSBvY3RldHM=";
/// Another, as text.
const PLAIN: &str = "as it stands, and long enough";

fn relay_to(upstream: &Upstream, notify: &str) -> Relay {
    Relay::setup().upstream(upstream, "").tables(notify).start()
}

fn listed(relay: &Relay, more: &[&str]) -> Vec<Value> {
    relay.cli(&[&["notify", "list", "--json"], more].concat()).must(0).json()
}

/// README's Python says of each whether it is proven by that secret.
fn verified_by_readme(told: &[Told], secret: &str) -> Option<Vec<bool>> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let code = readme.split_once("```python\n").unwrap().1.split_once("```").unwrap().0;
    let run = "import json, sys\nfor secret, headers, body in json.load(sys.stdin):\n    print(verified(secret, headers, \
               body.encode()))\n";
    let mut python = Command::new("python3")
        .args(["-c", &format!("{code}\n{run}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let one = |t: &Told| {
        let headers: BTreeMap<_, _> = t.headers.iter().cloned().collect();
        json!([secret, headers, String::from_utf8(t.raw.clone()).unwrap()])
    };
    let all: Vec<Value> = told.iter().map(one).collect();
    python.stdin.take().unwrap().write_all(json!(all).to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap().lines().map(|line| line == "True").collect())
}

#[test]
fn a_bounce_is_told_signed_and_verified_as_the_manual_says() {
    let (app, upstream) = (App::start(), Upstream::start());
    let (one, both) = (format!("\"{SECRET}\""), format!("[\"{PLAIN}\", \"{SECRET}\"]"));
    let table = app.table(SECRET, &["handed", "bounced"], "name = \"app\"").replace(&one, &both);
    let relay = Relay::setup().server("dsn = \"off\"").upstream(&upstream, "").tables(&table).start();
    upstream.fail(Point::RcptOf("gone@example.com"), Fault::Reply("550 5.1.1 no such user"), 1);
    let mail =
        b"X-Postroad-Metadata-Order: 17\r\nFrom: a@example.com\r\nSubject: quite secret\r\n\r\nhello\r\n";
    let bounced = relay.submit("shop@example.org", &["gone@example.com"], mail);
    app.wait_taken(1, BOUND);
    let handed = relay.submit("shop@example.org", &["there@example.com"], &plain("quite secret"));
    let told = app.wait_taken(2, BOUND);
    let events: Vec<_> = told.iter().map(|t| (t.event(), t.message())).collect();
    assert_eq!(events, [("bounced", bounced.as_str()), ("handed", handed.as_str())]);
    let first = &told[0];
    assert_eq!(
        (first.header("content-type"), first.id()),
        ("application/json", first.body["id"].as_str().unwrap())
    );
    let data = &first.body["data"];
    assert_eq!(
        (&data["recipient"], &data["metadata"], &data["esp"], &data["stream"]),
        (&json!("gone@example.com"), &json!({"order": "17"}), &json!("up1"), &json!("transactional"))
    );
    assert!(data["said"].as_str().unwrap().contains("550 5.1.1 no such user"), "{data}");
    let text = String::from_utf8_lossy(&first.raw);
    assert!(!text.contains("quite secret") && !text.contains("hello"), "{text}");

    let mut forged = told.clone();
    forged[0].raw.push(b' ');
    let headers = &mut forged[1].headers;
    headers.retain(|(name, _)| name != "webhook-timestamp");
    headers.push(("webhook-timestamp".into(), (now_secs() - 301).to_string()));
    for (secret, good) in [(SECRET, true), (PLAIN, true), ("another secret", false)] {
        let Some(verified) = verified_by_readme(&told, secret) else {
            return skip("verifying signatures with Python", "python3 is not installed");
        };
        assert_eq!(verified, [good; 2], "{secret}");
        assert_eq!(verified_by_readme(&forged, secret).unwrap(), [false; 2]);
    }
    assert_eq!(relay.metric("postroad_notifications_total{receiver=\"app\",outcome=\"taken\"}"), 2.0);
    assert!(!relay.log().contains("in-the-query") && !relay.log().contains(SECRET), "{}", relay.log());
}

#[test]
fn a_receiver_that_is_down_over_a_kill_gets_every_event_when_it_is_back() {
    const MAILS: usize = 20;
    let (app, upstream) = (App::start(), Upstream::start());
    let mut relay = relay_to(&upstream, &app.table(SECRET, &["handed"], "name = \"app\""));
    app.shut();
    let mut ids = BTreeSet::new();
    for n in 0..MAILS {
        ids.insert(relay.submit("shop@example.org", &["you@example.com"], &plain("down")));
        if n == MAILS / 2 {
            upstream.wait_for(n + 1);
            wait_until("it is entered", BOUND, || !listed(&relay, &["--state", "waiting"]).is_empty());
            relay.kill();
            relay.restart();
        }
    }
    // What was out when it was killed is held, and may be told later; the rest was handed over.
    let handed = || upstream.received().len();
    wait_until("mail goes on", BOUND, || handed() >= MAILS - 1);
    wait_until("events wait", BOUND, || listed(&relay, &[]).len() >= MAILS - 1);
    let waiting = listed(&relay, &[]);
    assert!(waiting.iter().all(|n| n["state"] == "waiting"), "{waiting:?}");
    app.reopen();
    let told = app.wait_taken(waiting.len(), Duration::from_secs(100));
    let (of, known): (BTreeSet<_>, BTreeSet<_>) = told.iter().map(|t| (t.message(), t.id())).unzip();
    assert!(of.iter().all(|id| ids.contains(*id)) && known.len() >= waiting.len(), "{of:?}");
    wait_until("all are noted", BOUND, || listed(&relay, &["--state", "waiting"]).is_empty());
}

#[test]
fn a_receiver_that_hangs_slows_no_mail_and_hears_all_of_it_later() {
    const MAILS: usize = 100;
    let (app, upstream) = (App::start(), Upstream::start());
    app.answers(|_| Answer::Hang);
    let mut relay = relay_to(&upstream, &app.table(PLAIN, &["handed"], "name = \"app\"\ntimeout = \"1s\""));
    let began = postroad::clock::monotonic();
    for _ in 0..MAILS {
        relay.submit("shop@example.org", &["you@example.com"], &plain("hang"));
    }
    upstream.wait_for_within(MAILS, BOUND);
    // Each waits for two commits, none for a second.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    wait_until("it is asked", BOUND, || !app.told().is_empty());
    wait_until("the wait is over", BOUND, || {
        listed(&relay, &[])
            .iter()
            .any(|n| n["answer"].as_str().is_some_and(|a| a.contains("no answer for 1s")))
    });
    assert!(app.told().len() < 10, "one question at a time");
    app.answers(TAKE);
    let told = app.wait_taken(MAILS, Duration::from_secs(60));
    assert_eq!(told.iter().map(Told::message).collect::<BTreeSet<_>>().len(), MAILS);
    app.answers(|_| Answer::Hang);
    relay.submit("shop@example.org", &["you@example.com"], &plain("hang"));
    let began = postroad::clock::monotonic();
    relay.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "nor does it hold up a stop: {:?}", began.elapsed());
}

#[test]
fn of_one_message_nothing_overtakes_and_another_s_goes_on() {
    let (app, grid, hook) = (App::start(), Sendgrid::start(), Grid::new());
    // The first of the message with that recipient is not digested.
    app.answers(|body| {
        let poison = body["data"]["recipient"] == "poison@example.com" && body["type"] == "sent";
        Answer::Status(if poison { 500 } else { 200 })
    });
    let esp = format!(
        "[[esp]]\nname = \"grid\"\ntype = \"sendgrid\"\ntransport = \"api\"\napi_key = \"{}\"\nendpoint = \"{}\"\n\
         webhook_public_key = \"{}\"\n",
        grid.key(),
        grid.url(),
        hook.public_key()
    );
    let events = ["sent", "delivered", "opened"];
    let relay = Relay::setup().tables(&esp).tables(&app.table(SECRET, &events, "name = \"app\"")).start();
    for to in ["poison@example.com", "other@example.com"] {
        let mail = format!("From: Shop <shop@example.org>\r\nTo: {to}\r\nSubject: x\r\n\r\nhello\r\n");
        relay.submit("shop@example.org", &[to], mail.as_bytes());
    }
    let told: Vec<Value> = grid
        .wait_for(2)
        .iter()
        .flat_map(|mail| {
            let to = mail.to[0].clone();
            ["processed", "delivered", "open"].map(|event| {
                json!({
                    "event": event, "email": to, "timestamp": now_secs(), "sg_event_id": format!("{}-{event}", mail.id),
                    "sg_message_id": format!("{}.filter", mail.id), "postroad_attempt": mail.attempt,
                })
            })
        })
        .collect();
    assert_eq!(hook.post(relay.http().unwrap(), "/webhooks/grid", &json!(told)).status, 200);
    let of = |to: &str, told: Vec<Told>| -> Vec<String> {
        let mine = told.into_iter().filter(|t| t.body["data"]["recipient"] == to);
        mine.map(|t| t.event().to_owned()).collect()
    };
    app.wait_taken(3, BOUND);
    assert_eq!(of("other@example.com", app.taken()), events);
    let refused = listed(&relay, &["--state", "waiting"]);
    assert_eq!(refused.len(), 3, "{refused:?}");
    let first = refused.last().unwrap();
    assert_eq!((&first["answer"], &first["attempts"]), (&json!("500 no database"), &json!(1)));
    assert_eq!(of("poison@example.com", app.told()), ["sent"], "what follows it waits");
    app.answers(TAKE);
    app.wait_taken(6, BOUND);
    assert_eq!(of("poison@example.com", app.taken()), events);
}

#[test]
fn what_failed_is_listed_and_told_once_more_and_one_that_is_gone_stays_so_until_a_reload() {
    let (app, upstream) = (App::start(), Upstream::start());
    app.answers(|_| Answer::Status(410));
    let other = App::start();
    let tables = [
        app.table(SECRET, &["handed"], "name = \"app\""),
        other.table(PLAIN, &["alert"], "name = \"pager\""),
    ];
    let mut relay = relay_to(&upstream, &tables.concat());
    let id = relay.submit("shop@example.org", &["you@example.com"], &plain("gone"));
    let failed = || listed(&relay, &["--failed"]);
    wait_until("it has failed", BOUND, || failed().len() == 1);
    let one = failed().remove(0);
    assert_eq!((&one["message"], &one["receiver"], &one["attempts"]), (&json!(id), &json!("app"), &json!(1)));
    assert_eq!(one["body"]["data"]["recipient"], "you@example.com");
    let alert = other.wait_taken(1, BOUND).remove(0);
    assert!(alert.body["data"]["said"].as_str().unwrap().starts_with("notify_gone: app"), "{}", alert.body);
    let table = relay.cli(&["notify", "list", "--message", &id]).must(0).out;
    assert!(
        table.contains("handed") && table.contains("410 no database") && table.contains("failed"),
        "{table}"
    );

    app.answers(TAKE);
    relay.submit("shop@example.org", &["you@example.com"], &plain("gone"));
    wait_until("the next ends untold", BOUND, || failed().len() == 2);
    assert_eq!(app.told().len(), 1);
    let event = one["id"].as_str().unwrap();
    for which in [&["--failed"][..], &[event]] {
        let ran = relay.cli(&[&["notify", "replay"], which].concat()).must(0);
        assert!(ran.out.starts_with("0 events are told once more\n"), "{}", ran.out);
        assert!(ran.out.contains("answered 410") && ran.out.contains("postroad reload"), "{}", ran.out);
    }
    assert_eq!(failed().len(), 2, "nothing was begun");
    relay.cli(&["reload"]).must(0);
    let ran = relay.cli(&["notify", "replay", event]).must(0);
    assert_eq!(ran.out, "1 event is told once more\n");
    let told = app.wait_taken(1, BOUND).remove(0);
    assert_eq!((told.id(), told.body["id"].as_str().unwrap()), (event, event));
    let done = relay.cli(&["notify", "replay", "--failed", "--since", "1h", "--json"]).must(0).json();
    assert_eq!(done, [json!({"replayed": 1, "without_receiver": 0, "receiver_gone": 0, "unknown": []})]);
    app.wait_taken(2, BOUND);
    assert!(relay.cli(&["notify", "replay", "evt_none"]).must(3).err.contains("evt_none"));
    wait_until("nothing has failed", BOUND, || failed().is_empty());
    relay.stop();
    relay.cli(&["notify", "list"]).must(4);
    relay.cli(&["notify", "replay", "--failed"]).must(4);
}

#[test]
fn a_reload_tells_another_receiver_and_ends_what_waits_for_the_one_that_is_gone() {
    let (app, next, upstream) = (App::start(), App::start(), Upstream::start());
    app.answers(|_| Answer::Status(302));
    let old = app.table(SECRET, &["handed"], "name = \"old\"");
    let relay = relay_to(&upstream, &old);
    relay.submit("shop@example.org", &["you@example.com"], &plain("one"));
    wait_until("a redirect is no yes", BOUND, || {
        listed(&relay, &["--receiver", "old"]).iter().any(|n| n["answer"] == "302 no database")
    });
    let file = relay.folder().join("postroad.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&old, &next.table(PLAIN, &["handed"], "name = \"new\""))).unwrap();
    let told = relay.cli(&["reload"]).must(0).out;
    assert!(told.contains("notify.new") && told.contains("notify.old"), "{told}");
    wait_until("what waited has ended", BOUND, || {
        let failed = listed(&relay, &["--failed"]);
        failed.len() == 1 && failed[0]["answer"].as_str().unwrap().contains("configured no more")
    });
    wait_until("and that is told", BOUND, || relay.log().contains("events end untold"));
    relay.submit("shop@example.org", &["you@example.com"], &plain("two"));
    next.wait_taken(1, BOUND);
    let done = relay.cli(&["notify", "replay", "--failed", "--json"]).must(0).json();
    assert_eq!((&done[0]["replayed"], &done[0]["without_receiver"]), (&json!(0), &json!(1)));
    assert_eq!(app.told().iter().filter(|t| t.answer == Answer::Status(204)).count(), 0);
}
