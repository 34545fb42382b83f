//! A receiver that is away, one that refuses, one that is gone: hours by a clock that the test moves, each turn of the line
//! run to its end.

use std::sync::atomic::AtomicUsize;

use futures_util::future::BoxFuture;

use super::*;
use crate::clock::Manual;
use crate::mail::{MessageId, Owner};
use crate::secret::Secret;
use crate::store::{NewEvent, NotificationFilter, NotificationState, Replay};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const MOST: usize = 4;

/// An app: what it answers, and what it was told.
#[derive(Debug)]
struct App {
    clock: Arc<Manual>,
    /// By the event's word; `None`: nobody is there.
    answers: Mutex<fn(&str) -> Option<u16>>,
    asked: Mutex<Vec<(Timestamp, String)>>,
    taken: Mutex<Vec<(String, serde_json::Value)>>,
    inside: AtomicUsize,
    most_inside: AtomicUsize,
}

impl App {
    fn answers(&self, answers: fn(&str) -> Option<u16>) {
        *self.answers.lock().unwrap() = answers;
    }

    fn ids(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(|(id, _)| id.clone()).collect()
    }
}

impl Receiver for App {
    fn tell(&self, letter: Letter) -> BoxFuture<'_, Result<HttpReply, String>> {
        Box::pin(async move {
            let body: serde_json::Value = serde_json::from_slice(&letter.body).unwrap();
            let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_inside.fetch_max(inside, Ordering::SeqCst);
            // Not all at one moment.
            for _ in 0..inside * 50 {
                tokio::task::yield_now().await;
            }
            self.asked.lock().unwrap().push((self.clock.now(), letter.id.clone()));
            let answers = *self.answers.lock().unwrap();
            let answer = answers(body["type"].as_str().unwrap());
            if answer.is_some_and(|status| status < 300) {
                self.taken.lock().unwrap().push((letter.id, body));
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
            let reply = |status| HttpReply { status, headers: Vec::new(), body: Bytes::new(), cut: false };
            answer.map(reply).ok_or_else(|| "connection refused".to_owned())
        })
    }
}

struct World {
    _dir: tempfile::TempDir,
    clock: Arc<Manual>,
    store: Store,
    app: Arc<App>,
    line: Line,
    next: Timestamp,
}

impl World {
    fn new(answers: fn(&str) -> Option<u16>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Manual::at(START));
        let settings = crate::store::Settings::to_read(dir.path().join("data"));
        let owner = Owner::from_number(1);
        let store = Store::open(settings, owner, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let events = vec!["deferred", "delivered", "opened", "alert"];
        let receiver =
            |name: &str| store::Receiver { name: name.into(), events: events.clone(), gone: Arc::default() };
        store.tell_receivers(vec![receiver("app"), receiver("other")]);
        let app = Arc::new(App {
            clock: Arc::clone(&clock),
            answers: Mutex::new(answers),
            asked: Mutex::default(),
            taken: Mutex::default(),
            inside: AtomicUsize::new(0),
            most_inside: AtomicUsize::new(0),
        });
        let line = line(&app, &store, &clock);
        World { _dir: dir, clock, store, app, line, next: START }
    }

    async fn happens(&self, kind: &str, message: i64) {
        let message = Some(MessageId::from_number(message));
        let event = NewEvent { message, recipient: Some(0), ..NewEvent::new(kind, self.clock.now()) };
        assert_eq!(self.store.record_events(vec![event]).await, [Ok(true)]);
    }

    /// As [`Line::run`], with the clock for the sleep.
    async fn turn(&mut self) {
        if self.clock.now() >= self.next || self.line.standing.away_since().is_none() {
            self.next = self.line.turn(&CancellationToken::new()).await.unwrap();
        }
    }

    async fn pass(&mut self, time: Duration) {
        let end = self.clock.now().plus(time);
        while self.clock.now() < end {
            self.clock.advance(SECOND);
            self.turn().await;
        }
    }

    async fn states(&self) -> Vec<(i64, &'static str)> {
        let filter = NotificationFilter { receiver: Some("app".into()), limit: 10_000, ..Default::default() };
        let found = self.store.notifications(filter).await.unwrap();
        found.iter().rev().map(|n| (n.n, n.state.word())).collect()
    }

    async fn alerts(&self) -> Vec<String> {
        let events = self.store.events(false, i64::MAX, 1_000).await.unwrap();
        events.into_iter().filter(|e| e.kind == "alert").map(|e| e.detail).collect()
    }
}

fn line(app: &Arc<App>, store: &Store, clock: &Arc<Manual>) -> Line {
    let line = notify::Settings {
        url: Secret::new("http://127.0.0.1:9"),
        secrets: vec![Secret::new("s")],
        ca_file: None,
        timeout: SECOND,
        max_connections: MOST,
    };
    let settings = Settings { name: "app".into(), events: Vec::new(), line };
    let (receiver, clock) = (Arc::clone(app) as Arc<dyn Receiver>, Arc::clone(clock) as Arc<dyn Clock>);
    Line::new(&settings, receiver, store.clone(), clock, Arc::default())
}

#[tokio::test]
async fn a_receiver_that_is_down_for_an_hour_gets_every_event_once_when_it_is_back() {
    const MESSAGES: i64 = 300;
    let mut world = World::new(|_| None);
    for message in 1..=MESSAGES {
        world.happens("deferred", message).await;
        world.pass(6 * SECOND).await;
        world.happens("delivered", message).await;
        world.pass(6 * SECOND).await;
    }
    assert!(world.clock.now().since(START) >= Duration::from_secs(3_600));
    let asked = world.app.asked.lock().unwrap().len();
    assert!((60..=90).contains(&asked), "{asked} questions in an hour of nobody there");
    assert_eq!(world.app.most_inside.load(Ordering::SeqCst), 1, "one at a time");
    assert_eq!(world.alerts().await.len(), 1, "{:?}", world.alerts().await);

    world.app.answers(|_| Some(200));
    world.pass(Duration::from_secs(150)).await;
    let ids = world.app.ids();
    let all: HashSet<&String> = ids.iter().collect();
    assert_eq!((ids.len(), all.len()), (2 * MESSAGES as usize, 2 * MESSAGES as usize), "each once by its id");
    assert!(world.app.most_inside.load(Ordering::SeqCst) <= MOST, "no storm");
    let mut deferred = HashSet::new();
    for (_, body) in &*world.app.taken.lock().unwrap() {
        let message = body["data"]["message"].to_string();
        match body["type"].as_str() {
            Some("deferred") => assert!(deferred.insert(message)),
            _ => assert!(deferred.contains(&message), "{message}: out of order"),
        }
    }
    assert!(world.states().await.iter().all(|(_, state)| *state == "taken"));
    assert!(!world.line.away.raised(), "and it is said that it is back");
}

#[tokio::test]
async fn a_line_that_died_before_it_noted_an_answer_tells_it_again_under_the_same_id() {
    let mut world = World::new(|_| Some(200));
    world.happens("delivered", 1).await;
    world.line.refill().await.unwrap();
    assert!(world.line.answers.join_next().await.unwrap().unwrap().1.is_ok());
    world.line = line(&world.app, &world.store, &world.clock);
    world.pass(SECOND).await;
    let ids = world.app.ids();
    assert_eq!((ids.len(), &ids[0]), (2, &ids[1]));
    world.pass(60 * SECOND).await;
    assert_eq!(world.app.ids().len(), 2);
}

#[tokio::test]
async fn an_event_that_is_refused_holds_up_its_message_and_no_other_and_ends_after_a_day() {
    let mut world = World::new(|event| Some(if event == "opened" { 422 } else { 204 }));
    for (event, message) in [("opened", 1), ("delivered", 1), ("delivered", 2)] {
        world.happens(event, message).await;
    }
    world.pass(2 * SECOND).await;
    let states = world.states().await;
    assert_eq!(states.iter().map(|(_, s)| *s).collect::<Vec<_>>(), ["waiting", "waiting", "taken"]);
    // In steps of a minute: nothing of it waits for less by then.
    while world.clock.now().since(START) < Duration::from_secs(24 * 3_600 + 60) {
        world.clock.advance(60 * SECOND);
        world.turn().await;
    }
    let states = world.states().await;
    assert_eq!(states.iter().map(|(_, s)| *s).collect::<Vec<_>>(), ["failed", "taken", "taken"]);
    let tries = world.app.asked.lock().unwrap().len();
    assert!((14..=24).contains(&tries), "{tries}");
    assert_eq!(world.alerts().await, Vec::<String>::new(), "one event is no receiver");

    world.app.answers(|_| Some(200));
    let all = Replay::Those { failed: true, since: None, receiver: None };
    assert_eq!(world.store.replay_notifications(all).await.unwrap().replayed, 1);
    world.pass(2 * SECOND).await;
    assert!(world.states().await.iter().all(|(_, state)| *state == "taken"));
}

#[tokio::test]
async fn what_nobody_took_within_a_day_ends_and_an_outage_of_ours_ends_nothing() {
    let mut world = World::new(|_| None);
    for message in 1..=20 {
        world.happens("delivered", message).await;
    }
    world.turn().await;
    // The relay was down itself for two days.
    world.clock.advance(Duration::from_secs(2 * 86_400));
    world.line = line(&world.app, &world.store, &world.clock);
    world.app.answers(|_| Some(200));
    world.turn().await;
    world.pass(2 * SECOND).await;
    assert_eq!(world.app.ids().len(), 20);

    world.app.answers(|_| None);
    for message in 21..=80 {
        world.happens("delivered", message).await;
    }
    // It is asked less often than there are events: most were never told.
    for _ in 0..25 {
        world.clock.advance(Duration::from_secs(3_600));
        world.turn().await;
    }
    let failed = world.states().await.iter().filter(|(_, state)| *state == "failed").count();
    assert_eq!(failed, 60);
    let found = world.store.notifications_for("app", world.clock.now(), 1).await.unwrap();
    assert_eq!(found.waiting, 0);
}

#[tokio::test]
async fn one_that_is_gone_is_told_nothing_more_and_that_is_said_once() {
    let mut world = World::new(|_| Some(200));
    for message in 1..=9 {
        world.happens("delivered", message).await;
    }
    world.pass(2 * SECOND).await;
    // Several are being told when the first of them hears it.
    world.app.answers(|_| Some(410));
    for message in 10..=18 {
        world.happens("delivered", message).await;
    }
    world.pass(2 * SECOND).await;
    world.happens("delivered", 19).await;
    world.pass(90 * SECOND).await;
    assert_eq!(world.app.asked.lock().unwrap().len(), 9 + MOST);
    assert_eq!(world.states().await.iter().filter(|(_, state)| *state == "failed").count(), 10);
    let alerts = world.alerts().await;
    assert!(alerts.len() == 1 && alerts[0].starts_with("notify_gone: app"), "{alerts:?}");
    let filter = NotificationFilter { receiver: Some("other".into()), limit: 99, ..Default::default() };
    let others = world.store.notifications(filter).await.unwrap();
    assert_eq!(others.iter().filter(|n| n.event == "alert").count(), 1);
    assert!(others.iter().all(|n| n.state == NotificationState::Waiting));
}
