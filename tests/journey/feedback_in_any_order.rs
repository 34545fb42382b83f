//! Events by the thousand, in batches, each sent up to three times and in any order, through kills: in the end everything is
//! as if each had been sent once.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::support::hooks::{Grid, now_secs};
use crate::support::random::Random;
use crate::support::relay::free_port;
use crate::support::wait::holds_within;
use crate::support::{Relay, long_runs, wait_until};

const BOUND: Duration = Duration::from_secs(60);
/// That post at a time.
const CALLERS: usize = 4;
/// Batches of one ESP may hold a thousand events; mostly they are small.
const BATCH_MAX: u64 = 200;
const DAY_SECS: u64 = 86_400;

/// What the ESP has taken: its recipient, and what went with the call.
struct Carried {
    to: String,
    planted: String,
    remote_id: String,
}

#[test]
fn events_in_any_order_repeated_and_through_kills_end_as_each_sent_once() {
    let (messages, count, kills) = if long_runs() { (8_000, 100_000, 30) } else { (150, 3_000, 4) };
    let mut random = Random::seeded("events in any order");
    let folder = tempfile::tempdir().unwrap();
    let carried = sent(&folder.path().join("sent"), messages);
    let events: Vec<Value> = (0..count).map(|n| event(n, &carried, &mut random)).collect();
    let hook = Grid::new();

    let once = heard(&hook, folder.path(), "once", |relay, at| {
        let began = postroad::clock::monotonic();
        for batch in events.chunks(100) {
            assert_eq!(hook.post(at, "/webhooks/grid", &json!(batch)).status, 200);
        }
        println!("{count} events once: {:?}", began.elapsed());
        relay.stop();
    });
    let batches = batches(&events, &mut random);
    let killed = heard(&hook, folder.path(), "killed", |relay, at| {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| deliver(&hook, at, &batches, &next));
            }
            for round in 1..=kills {
                let due = batches.len() * round / (kills + 1);
                let under_way = holds_within(BOUND, || next.load(Ordering::SeqCst) >= due);
                assert!(under_way, "no batch is taken any more");
                std::thread::sleep(random.millis(0, 40));
                relay.kill();
                relay.restart();
            }
        });
        relay.stop();
    });
    assert_eq!(once.len(), killed.len());
    let differ = once.iter().zip(&killed).find(|(a, b)| a != b);
    assert_eq!(differ, None, "of {} facts", once.len());
}

/// Hands in that many messages; the ESP of that name has taken all of them.
fn sent(data: &Path, messages: usize) -> Vec<Carried> {
    let esp = "[[esp]]\nname = \"grid\"\ntype = \"sandbox\"\n";
    let mut relay = Relay::setup().tables(esp).data_dir(data).start();
    let mut client = relay.client();
    for n in 0..messages {
        let to = format!("r{}@d{}.example", n % (messages / 2), n % 7);
        let to: &[&str] = &[&to, "both@d0.example"][..1 + usize::from(n % 10 == 0)];
        client.submit("shop@example.org", to, b"From: shop@example.org\r\nSubject: x\r\n\r\nx\r\n");
        client.transcript.clear();
    }
    wait_until("all are sent", BOUND, || relay.metric("postroad_queue_deliveries") == 0.0);
    relay.stop();
    let db = open(data);
    let mut rows = db
        .prepare(
            "SELECT d.address, a.message, a.attempt, coalesce(a.remote_id, '') FROM attempts AS a
             JOIN email_sends AS d USING (message, recipient) WHERE a.outcome = 'accepted'",
        )
        .unwrap();
    let read = rows.query_map([], |row| {
        let (message, attempt): (i64, i64) = (row.get(1)?, row.get(2)?);
        let message = postroad::mail::MessageId::from_number(message);
        let attempt = postroad::mail::AttemptId::from_number(attempt);
        Ok(Carried { to: row.get(0)?, planted: format!("{message}-{attempt}"), remote_id: row.get(3)? })
    });
    let carried: Vec<Carried> = read.unwrap().map(Result::unwrap).collect();
    assert!(carried.len() >= messages);
    carried
}

fn event(n: usize, carried: &[Carried], random: &mut Random) -> Value {
    let mail = &carried[random.between(0, carried.len() as u64) as usize];
    let mut event = json!({
        "email": mail.to,
        "timestamp": now_secs() - random.between(0, 30 * DAY_SECS),
        "sg_event_id": format!("e-{n}"),
        "sg_message_id": format!("{}.recvd-0", mail.remote_id),
        "postroad_attempt": mail.planted,
    });
    let more = match random.between(0, 20) {
        0..=4 => json!({"event": "processed"}),
        5..=9 => json!({"event": "delivered", "response": "250 ok"}),
        10 | 11 => json!({"event": "deferred", "response": "451 4.7.1 later"}),
        12 | 13 => json!({"event": "open", "useragent": "x"}),
        14 => json!({"event": "click", "url": "https://example.org/"}),
        15 => json!({"event": "bounce", "type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 nobody"}),
        16 => json!({"event": "bounce", "type": "bounce", "status": "4.2.2", "reason": "452 4.2.2 full"}),
        17 => json!({"event": "bounce", "type": "blocked", "status": "5.7.1", "reason": "550 5.7.1 spam"}),
        18 => json!({"event": "spamreport"}),
        _ => json!({"event": "unsubscribe"}),
    };
    let more = more.as_object().unwrap().clone();
    event.as_object_mut().unwrap().extend(more);
    event
}

/// Each event in one, two or three batches, in any order.
fn batches(events: &[Value], random: &mut Random) -> Vec<Value> {
    let mut all: Vec<&Value> =
        events.iter().flat_map(|e| std::iter::repeat_n(e, random.between(1, 4) as usize)).collect();
    for n in (1..all.len()).rev() {
        all.swap(n, random.between(0, n as u64 + 1) as usize);
    }
    let (mut batches, mut rest) = (Vec::new(), &all[..]);
    while !rest.is_empty() {
        let size = (random.between(1, BATCH_MAX) as usize).min(rest.len());
        batches.push(json!(rest[..size]));
        rest = &rest[size..];
    }
    batches
}

/// Posts what is next until all is answered by 200; what is not is posted again, as the ESP does.
fn deliver(hook: &Grid, at: SocketAddr, batches: &[Value], next: &AtomicUsize) {
    while let Some(batch) = batches.get(next.fetch_add(1, Ordering::SeqCst)) {
        let taken = holds_within(BOUND, || match hook.try_post(at, "/webhooks/grid", batch) {
            Some(answer) => {
                assert!(matches!(answer.status, 200 | 503), "{} {}", answer.status, answer.body);
                answer.status == 200
            }
            None => false,
        });
        assert!(taken, "a batch is not taken");
    }
}

/// Runs a relay on a copy of what was sent, and tells what it knows in the end.
fn heard(hook: &Grid, folder: &Path, name: &str, run: impl FnOnce(&mut Relay, SocketAddr)) -> Vec<String> {
    let data = folder.join(name);
    std::fs::create_dir(&data).unwrap();
    for entry in std::fs::read_dir(folder.join("sent")).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), data.join(entry.file_name())).unwrap();
    }
    let esp = format!(
        "[[esp]]\nname = \"grid\"\ntype = \"sendgrid\"\napi_key = \"SG.x\"\nendpoint = \"http://127.0.0.1:9\"\n\
         webhook_public_key = \"{}\"\n",
        hook.public_key()
    );
    let port = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let setup = Relay::setup().tables(&esp).http(&format!("public_address = \"{port}\""));
    let mut relay = setup.data_dir(&data).start();
    run(&mut relay, port);
    facts(&data)
}

fn open(data: &Path) -> Connection {
    Connection::open_with_flags(data.join("postroad.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// Everything that events have left, but the order in which they came.
fn facts(data: &Path) -> Vec<String> {
    let db = open(data);
    let mut facts = Vec::new();
    for table in [
        "SELECT event_key, kind, at, key, class, message, recipient, attempt FROM events WHERE event_key IS NOT NULL",
        "SELECT key, scope, reason, source, evidence, created_at, expires_at FROM suppressions",
        "SELECT key, class, said, at, message, recipient FROM bounces",
        "SELECT key, said, at, message, recipient FROM complaints",
        "SELECT * FROM esp_performance",
        "SELECT message, recipient, state, known, reason FROM email_sends",
        "SELECT message, recipient, attempt, outcome FROM attempts",
    ] {
        let mut statement = db.prepare(table).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let value = |n| row.get::<_, rusqlite::types::Value>(n).map(|value| format!("{value:?}"));
            (0..columns).map(value).collect::<Result<Vec<_>, _>>()
        });
        let rows = rows.unwrap().map(|row| format!("{table}: {:?}", row.unwrap()));
        facts.extend(rows);
    }
    facts.sort_unstable();
    facts
}
