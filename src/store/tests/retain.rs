//! What finished mail leaves behind goes after its time, and nothing else does.

use super::*;

/// Accepted as begun and settled as handed over.
async fn sent(store: &Store, bench: &Bench, octets: usize) -> MessageId {
    let message = bench.message(&["a@x.example"], StreamKind::Transactional, octets);
    let (accept, beginning) = bench.begun(&message);
    accept_one(store, accept).await;
    store.settle(vec![bench.settle(first(&message), &beginning, accepted(), Step::Done)]).await.unwrap();
    message.id
}

async fn has_body(store: &Store, id: MessageId) -> bool {
    store.show(id).await.unwrap().unwrap().body_kept
}

#[tokio::test]
async fn bodies_go_first_then_all_of_a_message_but_never_what_is_not_done() {
    let bench = Bench::new();
    let store = bench.open();
    let waits = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    let entries = vec![Entry::Waiting { due: START.plus(Duration::from_secs(1 << 30)) }];
    accept_one(&store, Accept { message: waits.clone(), entries, rules: Vec::new() }).await;
    let done = sent(&store, &bench, 100).await;
    store.record_events(vec![NewEvent { message: Some(done), ..NewEvent::new("delivered", START) }]).await;
    assert_eq!(store.retain(bench.now()).await.unwrap(), Retained::default());

    bench.clock.advance(Duration::from_secs(3_600));
    let young = sent(&store, &bench, 100).await;
    assert_eq!(store.retain(bench.now()).await.unwrap(), Retained { bodies: 1, ..Retained::default() });
    assert!(!has_body(&store, done).await);
    assert!(has_body(&store, young).await && has_body(&store, waits.id).await);
    assert!(store.load(vec![done]).await.remove(0).unwrap().is_none());

    bench.clock.advance(Duration::from_secs(86_400 - 3_600));
    assert_eq!(
        store.retain(bench.now()).await.unwrap(),
        Retained { bodies: 1, messages: 1, ..Retained::default() }
    );
    assert!(store.show(done).await.unwrap().is_none());
    bench.clock.advance(Duration::from_secs(2 * 86_400));
    let last = store.retain(bench.now()).await.unwrap();
    assert_eq!((last.messages, last.events), (1, 1));
    assert!(has_body(&store, waits.id).await);
    assert_eq!(store.queue_octets(), 10);
}

#[tokio::test]
async fn attempts_may_go_before_their_message() {
    let bench = Bench::new();
    let settings = Settings { keep_attempts: Duration::from_secs(60), ..bench.settings() };
    let store = Store::open(settings, ME, bench.clock.clone()).unwrap();
    let done = sent(&store, &bench, 100).await;
    bench.clock.advance(Duration::from_secs(61));
    assert_eq!(store.retain(bench.now()).await.unwrap(), Retained { attempts: 1, ..Retained::default() });
    assert!(store.show(done).await.unwrap().unwrap().attempts.is_empty());
}

#[tokio::test]
async fn over_the_octets_the_oldest_bodies_go() {
    let bench = Bench::new();
    let settings = Settings { keep_bodies_octets: 10_000, ..bench.settings() };
    let store = Store::open(settings.clone(), ME, bench.clock.clone()).unwrap();
    let waits = bench.message(&["a@x.example"], StreamKind::Transactional, 50_000);
    accept_one(&store, bench.waiting(&waits)).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(sent(&store, &bench, 4_000).await);
    }
    assert_eq!(store.retain(bench.now()).await.unwrap().bodies, 3, "what is queued is not counted");
    let mut kept = Vec::new();
    for id in &ids {
        kept.push(has_body(&store, *id).await);
    }
    assert_eq!(kept, [false, false, false, true, true]);
    sent(&store, &bench, 4_000).await;
    assert_eq!(store.retain(bench.now()).await.unwrap().bodies, 1, "the count goes on");
    store.close().await;
    let store = Store::open(settings, ME, bench.clock.clone()).unwrap();
    assert_eq!(store.retain(bench.now()).await.unwrap().bodies, 0, "and is taken anew at a start");
}

#[tokio::test]
async fn a_sandbox_keeps_so_many_bodies_and_other_esps_theirs() {
    let bench = Bench::new();
    let keeping = |esp: &str| {
        let sandboxes = vec![Sandboxed { esp: esp.to_owned(), messages_max: 2 }];
        Store::open(Settings { sandboxes, ..bench.settings() }, ME, bench.clock.clone()).unwrap()
    };
    let store = keeping("another");
    let waits = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    accept_one(&store, bench.waiting(&waits)).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(sent(&store, &bench, 100).await);
    }
    assert_eq!(store.retain(bench.now()).await.unwrap().bodies, 0, "they are not its own");
    let esp = store.show(ids[0]).await.unwrap().unwrap().attempts[0].esp.clone();
    store.close().await;
    let store = keeping(&esp);
    ids.push(sent(&store, &bench, 100).await);
    assert_eq!(store.retain(bench.now()).await.unwrap().bodies, 3);
    assert_eq!(store.retain(bench.now()).await.unwrap(), Retained::default());
    let mut kept = Vec::new();
    for id in &ids {
        kept.push(has_body(&store, *id).await);
    }
    assert_eq!(kept, [false, false, false, true, true]);
    assert!(has_body(&store, waits.id).await);
}

#[tokio::test]
async fn where_room_is_short_bodies_of_what_is_done_go_at_once_and_no_other() {
    let bench = Bench::new();
    // There is never so much.
    let settings = Settings { min_free_octets: 1 << 60, ..bench.settings() };
    let full = || Store::open(settings.clone(), ME, bench.clock.clone()).unwrap();
    let store = bench.open();
    let waits = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    accept_one(&store, bench.waiting(&waits)).await;
    let half = bench.message(&["a@x.example", "b@x.example"], StreamKind::Transactional, 10);
    let (accept, beginning) = bench.begun(&half);
    accept_one(&store, accept).await;
    store.settle(vec![bench.settle(first(&half), &beginning, accepted(), Step::Done)]).await.unwrap();
    let done = [sent(&store, &bench, 4_000).await, sent(&store, &bench, 300).await];
    let mut gone = LetGo::default();
    store.make_room(&mut gone).await.unwrap();
    assert_eq!(gone, LetGo::default(), "there is room");
    store.close().await;

    let store = full();
    tokio::time::timeout(Duration::from_secs(20), store.room_is_short()).await.unwrap();
    store.make_room(&mut gone).await.unwrap();
    assert_eq!(gone, LetGo { bodies: 2, octets: 4_300 });
    store.make_room(&mut gone).await.unwrap();
    assert_eq!(gone.bodies, 2, "each goes once");
    assert!(!has_body(&store, done[0]).await && !has_body(&store, done[1]).await);
    assert!(has_body(&store, waits.id).await && has_body(&store, half.id).await, "no other");
}

#[tokio::test]
async fn the_file_shrinks() {
    let bench = Bench::new();
    let store = bench.open();
    for _ in 0..30 {
        sent(&store, &bench, 1_000_000).await;
    }
    bench.clock.advance(Duration::from_secs(86_400));
    let gone = store.retain(bench.now()).await.unwrap();
    assert_eq!(gone.bodies, 30);
    assert!(gone.pages > 4_000, "{gone:?}");
    store.close().await;
    let octets = std::fs::metadata(bench.settings().data_dir.join("postroad.db")).unwrap().len();
    assert!(octets < 10_000_000, "{octets}");
}

/// On a machine that has much else to do.
const BUSY: Duration = Duration::from_secs(120);

/// How large the database is, wherever its pages lie.
async fn pages(store: &Store) -> u64 {
    let count = store.read(|conn| conn.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0)));
    count.await.unwrap().unsigned_abs()
}

#[tokio::test]
async fn the_file_shrinks_though_no_mail_comes_any_more() {
    let bench = Bench::new();
    let store = bench.open();
    for _ in 0..12 {
        sent(&store, &bench, 1_000_000).await;
    }
    let octets = || std::fs::metadata(bench.settings().data_dir.join("postroad.db")).unwrap().len();
    // The file as it will be: a look while it grows would find it too small to shrink.
    let until = crate::clock::monotonic() + BUSY;
    while octets() != pages(&store).await * 4096 {
        assert!(crate::clock::monotonic() < until, "{} octets, {} pages", octets(), pages(&store).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = octets();
    assert!(before > 12_000_000, "{before}");
    bench.clock.advance(Duration::from_secs(86_400));
    // Few pages go, as in most rounds of a quiet relay: too few for a checkpoint of their own.
    let gone = store.retain(bench.now()).await.unwrap();
    assert!(gone.pages > 0, "{gone:?}");
    let until = crate::clock::monotonic() + BUSY;
    while octets() + gone.pages * 4096 > before {
        assert!(crate::clock::monotonic() < until, "{before} before, {} now, {gone:?}", octets());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await;
}

#[tokio::test]
async fn the_log_begins_anew_while_mail_keeps_coming() {
    let bench = Bench::new();
    let store = bench.open();
    // 100 MB in a row: three times what the log is to hold, and less than what makes the writer wait for readers.
    for _ in 0..100 {
        let message = bench.message(&["a@x.example"], StreamKind::Transactional, 1_000_000);
        accept_one(&store, bench.waiting(&message)).await;
    }
    let log = std::fs::metadata(store.shared.space.log_path()).unwrap().len();
    assert!(log < 80_000_000, "the log holds {log} octets");
    store.close().await;
    assert!(!bench.settings().data_dir.join("postroad.db-wal").exists(), "whoever closes last takes it away");
}

#[tokio::test]
async fn a_start_finds_what_is_out_also_below_the_mark() {
    let bench = Bench::new();
    let store = bench.open();
    let old = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    accept_one(&store, bench.waiting(&old)).await;
    let late = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
    bench.clock.advance(Duration::from_secs(10_000));
    store.retain(bench.now()).await.unwrap();
    assert!(store.shared.out_from() > late.id, "the mark has passed both");
    accept_one(&store, bench.begun(&late).0).await;
    let from = state_of(&store, first(&old)).await.state;
    let beginning = Beginning { attempt: bench.attempt(), esp: "one".into() };
    store.begin(vec![BeginRequest { delivery: first(&old), from, beginning }]).await.remove(0).unwrap();
    store.close().await;
    let store = bench.open_as(NEXT);
    store.retain(bench.now()).await.unwrap();
    store.close().await;
    let store = bench.open_as(NEXT);
    assert_eq!(recover(&store).await.crashed, 2);
    store.retain(bench.now()).await.unwrap();
    assert!(store.shared.out_from() > late.id, "nothing is out: the mark rises again");
}

#[tokio::test]
async fn a_backlog_goes_in_one_round_however_long_it_is() {
    const MANY: usize = 1_200;
    let bench = Bench::new();
    let store = bench.open();
    let (mut accepts, mut settles) = (Vec::new(), Vec::new());
    for _ in 0..MANY {
        let message = bench.message(&["a@x.example"], StreamKind::Transactional, 10);
        let (accept, beginning) = bench.begun(&message);
        settles.push(bench.settle(first(&message), &beginning, accepted(), Step::Done));
        accepts.push(accept);
    }
    assert!(store.accept(accepts).await.iter().all(Result::is_ok));
    store.settle(settles).await.unwrap();
    let events = (0..MANY).map(|_| NewEvent::new("opened", bench.now())).collect();
    assert!(store.record_events(events).await.iter().all(Result::is_ok));
    bench.clock.advance(Duration::from_secs(86_400));
    let gone = store.retain(bench.now()).await.unwrap();
    assert_eq!((gone.bodies, gone.messages, gone.events), (MANY as u64, MANY as u64, 0));
    bench.clock.advance(Duration::from_secs(86_401));
    assert_eq!(store.retain(bench.now()).await.unwrap().events, MANY as u64);
}
