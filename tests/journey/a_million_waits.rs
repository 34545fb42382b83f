//! A campaign of a million that cannot move costs nothing: mail pinned to an ESP whose quota is spent is not read, the
//! relay idles, and transactional mail passes as if the queue were empty.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postroad::address::{Address, Grammar};
use postroad::clock::{Clock, System, monotonic};
use postroad::mail::{
    Body, BodyKind, Envelope, IdMint, Message, Protocol, ReversePath, Source, StreamKind, StreamName,
};
use postroad::store::{Accept, Entry, Settings, Store};

use crate::support::mailgen::plain;
use crate::support::{Relay, Upstream, long_runs, wait_until};

const BATCH: usize = 250;
/// Messages whose way is measured.
const MEASURED: usize = 500;
const IDLE: Duration = Duration::from_secs(5);

/// The first upstream carries what is sent now; the second, `up2`, may be given 40 a day.
fn relay(main: &Upstream, spent: &Upstream, data_dir: &Path) -> Relay {
    let limits = "queue_bytes = \"10GB\"";
    let setup = Relay::setup().upstream(main, "").upstream(spent, "daily_limit = 40");
    setup.limits(limits).data_dir(data_dir).start()
}

fn campaign(mint: &IdMint, to: usize) -> Accept {
    let now = System.now();
    let text = format!("From: news@example.org\r\nTo: <n{to}@example.com>\r\nSubject: news\r\n\r\nhello\r\n");
    let message = Message {
        id: mint.message(&System),
        envelope: Envelope {
            sender: ReversePath::Mailbox(Address::parse("news@example.org", Grammar::Strict).unwrap()),
            recipients: vec![Address::parse(&format!("n{to}@example.com"), Grammar::Strict).unwrap()],
            body: BodyKind::SevenBit,
            smtputf8: false,
            reports: None,
        },
        stream: StreamName::new(StreamName::BROADCAST),
        kind: StreamKind::Broadcast,
        body: Body::whole(text),
        accepted_at: now,
        expires_at: now.plus(Duration::from_secs(5 * 86_400)),
        tags: Vec::new(),
        metadata: Vec::new(),
        pin: Some("up2".into()),
        source: Source {
            listener: "127.0.0.1:2525".into(),
            peer: Ipv4Addr::LOCALHOST.into(),
            helo: "app".into(),
            credential: None,
            protocol: Protocol::Smtp,
        },
    };
    Accept { message: Arc::new(message), entries: vec![Entry::Waiting { due: now }], rules: Vec::new() }
}

/// Fills the database through the store's own verbs, as a start before this one would have.
async fn load(data_dir: &Path, messages: usize) {
    let settings = Settings { min_free_octets: 1_000_000, ..Settings::to_read(data_dir.to_owned()) };
    let mint = IdMint::new(11);
    let store = Store::open(settings, mint.owner(&System), Arc::new(System)).unwrap();
    for from in (0..messages).step_by(4 * BATCH) {
        let batch = |n: usize| {
            let to = from + n * BATCH..(from + (n + 1) * BATCH).min(messages);
            store.accept(to.map(|to| campaign(&mint, to)).collect())
        };
        let (a, b, c, d) = tokio::join!(batch(0), batch(1), batch(2), batch(3));
        for taken in [a, b, c, d].into_iter().flatten() {
            taken.unwrap();
        }
    }
    store.close().await;
}

/// From the client's MAIL to the upstream's final dot, one message after the other: the 99th of 100, and the median.
fn ways(relay: &Relay, main: &Upstream) -> (Duration, Duration) {
    let mut client = relay.client();
    let before = main.count();
    let mut sent = Vec::new();
    for n in 0..MEASURED {
        sent.push(monotonic());
        client.submit("app@example.org", &["ok@example.com"], &plain(&format!("receipt {n}")));
    }
    let received = main.wait_for(before + MEASURED);
    let number = |subject: String| subject.strip_prefix("receipt ").and_then(|n| n.parse::<usize>().ok());
    let mut ways: Vec<Duration> = received[before..]
        .iter()
        .filter_map(|r| Some(r.at.duration_since(sent[number(r.header("Subject")?)?].into_std())))
        .collect();
    ways.sort();
    assert_eq!(ways.len(), MEASURED);
    (ways[MEASURED * 99 / 100], ways[MEASURED / 2])
}

#[test]
fn a_campaign_that_cannot_move_costs_nothing_and_delays_nothing() {
    let messages = if long_runs() { 1_000_000 } else { 20_000 };
    let folder = tempfile::tempdir().unwrap();
    let (main, spent) = (Upstream::start(), Upstream::start());

    let empty = relay(&main, &spent, &folder.path().join("empty"));
    let alone = ways(&empty, &main);
    drop(empty);

    let full = folder.path().join("full");
    let began = monotonic();
    tokio::runtime::Runtime::new().unwrap().block_on(load(&full, messages));
    let loaded = began.elapsed();
    let began = monotonic();
    let relay = relay(&main, &spent, &full);
    let started = began.elapsed();
    // A twentieth of each window is kept for transactional mail.
    wait_until("the quota is spent", Duration::from_secs(60), || spent.count() >= 38);

    let (began, before) = (monotonic(), relay.cpu());
    std::thread::sleep(IDLE);
    let (took, cpu) = (began.elapsed(), relay.cpu() - before);
    let beside = ways(&relay, &main);
    println!(
        "{messages} wait: loaded in {loaded:.1?}, ready after {started:.1?}; {cpu:?} of CPU in {took:.1?}; \
         99th and median way {beside:?}, with an empty queue {alone:?}"
    );
    assert!(cpu < took / 20, "{cpu:?} of CPU in {took:?} for a queue that cannot move");
    assert_eq!(spent.count(), 38, "what its day gives, and no more");
}
