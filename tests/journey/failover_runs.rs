//! Failover under load: a next hop that dies in mid-run and comes back, or does not, or hangs. Nothing is lost, nothing
//! doubles but what nobody could know of, and new mail is not held up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::mailgen::{plain, sized};
use crate::support::upstream::{Manner, Received};
use crate::support::wait::holds_within;
use crate::support::{Client, Fault, Point, Relay, Upstream, wait_until};

/// Clients that submit at a time.
const CLIENTS: usize = 6;

fn streams(hold: &str) -> String {
    format!("[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"{hold}\"\n")
}

fn now() -> Instant {
    postroad::clock::monotonic().into_std()
}

/// Mail that clients submit, evenly spread over a time.
struct Load {
    total: usize,
    over: Duration,
    /// Every so manyth is this large.
    large: Option<(usize, usize)>,
    next: AtomicUsize,
    /// By subject: its id, and when it got its 250.
    accepted: Mutex<BTreeMap<String, (String, Instant)>>,
}

impl Load {
    fn new(total: usize, over: Duration) -> Load {
        Load { total, over, large: None, next: AtomicUsize::new(0), accepted: Mutex::default() }
    }

    /// Submits all of it; `meanwhile` runs beside.
    fn run(&self, at: SocketAddr, meanwhile: impl FnOnce()) {
        let began = now();
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| self.client(at, began));
            }
            meanwhile();
        });
    }

    fn client(&self, at: SocketAddr, began: Instant) {
        let mut client = Client::hello(at);
        loop {
            let n = self.next.fetch_add(1, Ordering::SeqCst);
            if n >= self.total {
                return;
            }
            let due = began + self.over.mul_f64(n as f64 / self.total as f64);
            // The load's own pace.
            std::thread::sleep(due.saturating_duration_since(now()));
            let subject = format!("n{n}");
            let raw = match self.large {
                Some((every, octets)) if n % every == every - 1 => sized(&subject, octets),
                _ => plain(&subject),
            };
            let id = client.submit("a@example.org", &["ok@example.com"], &raw);
            client.transcript.clear();
            self.accepted.lock().unwrap().insert(subject, (id, now()));
        }
    }

    fn id(&self, subject: &str) -> String {
        self.accepted.lock().unwrap()[subject].0.clone()
    }

    /// From the 250 to the first arrival, of those that arrived there.
    fn delays(&self, arrived: &BTreeMap<String, Vec<Instant>>) -> Vec<(Instant, Duration)> {
        let accepted = self.accepted.lock().unwrap();
        let delay = |(subject, (_, at)): (&String, &(String, Instant))| {
            let first = arrived.get(subject)?.iter().min()?;
            Some((*at, first.saturating_duration_since(*at)))
        };
        accepted.iter().filter_map(delay).collect()
    }
}

/// When each subject arrived, copy by copy.
fn arrivals(all: impl IntoIterator<Item = Received>) -> BTreeMap<String, Vec<Instant>> {
    let mut arrived: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
    for received in all {
        arrived.entry(received.header("Subject").unwrap()).or_default().push(received.at);
    }
    arrived
}

/// The ids of deliveries that the log says were held.
fn held(relay: &Relay) -> BTreeSet<String> {
    let lines = relay.log();
    let lines = lines.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let held = lines.filter(|l| l["message"] == "attempt" && l["status"] == "held");
    held.filter_map(|l| l["id"].as_str().map(str::to_owned)).collect()
}

fn life(relay: &Relay, id: &str) -> serde_json::Value {
    relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default()
}

/// All of the load has arrived, whether here or there, and nothing twice but what was held and is announced by an event
/// of that kind; gives how many were held and how many came twice.
#[track_caller]
fn all_arrived(relay: &Relay, load: &Load, upstreams: [&Upstream; 2], event: &str) -> (usize, usize) {
    let mut missing = Vec::new();
    let all = || arrivals(upstreams.into_iter().flat_map(|u| u.received().into_iter().chain(u.unanswered())));
    let mut counted = None;
    holds_within(Duration::from_secs(60), || {
        let count: usize = upstreams.iter().map(|u| u.count() + u.unanswered().len()).sum();
        if count >= load.total && counted.replace(count) != Some(count) {
            let arrived = all();
            missing = (0..load.total).map(|n| format!("n{n}")).filter(|s| !arrived.contains_key(s)).collect();
            return missing.is_empty();
        }
        false
    });
    let lost = missing.first().map(|subject| life(relay, &load.id(subject)));
    let count: usize = upstreams.iter().map(|u| u.count()).sum();
    assert!(
        missing.is_empty() && counted.is_some(),
        "{count} arrived, {} are missing: {lost:?}",
        missing.len()
    );
    let held = held(relay);
    // What is held is repeated a little later.
    wait_until("all of it is done", Duration::from_secs(30), || {
        relay
            .get("/v1/messages?limit=10")
            .is_some_and(|a| a.json()["deliveries"].as_array().is_some_and(Vec::is_empty))
    });
    let mut doubled = 0;
    for (subject, copies) in all().iter().filter(|(_, copies)| copies.len() > 1) {
        let id = load.id(subject);
        assert!(held.contains(&id), "{subject} came {} times: {}", copies.len(), life(relay, &id));
        doubled += copies.len() - 1;
    }
    for id in &held {
        let life = life(relay, id);
        let events = life["events"].to_string();
        assert!(events.contains(event) && events.contains("may_arrive_twice"), "{event} for each: {life}");
    }
    (held.len(), doubled)
}

#[test]
fn of_three_recipients_each_goes_where_it_is_taken() {
    let (a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::RcptOf("refused@"), Fault::Reply("550 5.1.1 no such user"));
    a.fail_always(Point::RcptOf("deferred@"), Fault::Reply("450 4.2.1 mailbox busy"));
    let relay = Relay::setup().upstream(&a, "").upstream(&b, "").tables(&streams("1h")).start();
    let to = ["taken@example.com", "refused@example.com", "deferred@example.com"];
    let id = relay.submit("a@example.org", &to, &plain("parted"));
    wait_until("all three are done", Duration::from_secs(15), || {
        let life = life(&relay, &id);
        (0..3).all(|n| life["deliveries"][n]["state"] == "done")
    });
    let to = |u: &Upstream| u.received().into_iter().map(|r| r.to).collect::<Vec<_>>();
    assert_eq!(
        (to(&a), to(&b)),
        (vec![vec!["<taken@example.com>".to_owned()]], vec![vec!["<deferred@example.com>".to_owned()]])
    );
    let life = life(&relay, &id);
    let of = |n: usize| {
        let attempts = life["attempts"].as_array().unwrap().iter().filter(|a| a["n"] == n);
        let attempts =
            attempts.map(|a| format!("{} {}", a["esp"].as_str().unwrap(), a["outcome"].as_str().unwrap()));
        attempts.collect::<Vec<_>>()
    };
    assert_eq!(
        [of(0), of(1), of(2)],
        [vec!["up1 accepted"], vec!["up1 refused"], vec!["up1 refused", "up2 accepted"]],
        "{life}"
    );
    let end = |n: usize| (life["deliveries"][n]["known"].clone(), life["deliveries"][n]["reason"].clone());
    assert_eq!([end(0).0, end(2).0], ["handed", "handed"]);
    assert_eq!(end(1).1, "refused");
    let kinds: Vec<&str> =
        life["events"].as_array().unwrap().iter().filter_map(|e| e["kind"].as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "bounced").count(), 1, "{kinds:?}");
    assert!(!kinds.contains(&"may_arrive_twice"), "{kinds:?}");
    let told = || relay.log().matches("\"bounced\"").count();
    wait_until("the log tells it", Duration::from_secs(5), || told() > 0);
    assert_eq!(told(), 1, "told once");
}

#[test]
fn one_that_dies_in_mid_run_loses_nothing_and_comes_back_step_by_step() {
    const CONNECTIONS: usize = 10;
    let (mut a, b) = (Upstream::start(), Upstream::start());
    // So that how much it may have at a time is seen in what it gets.
    let slow = Fault::Slow(Duration::from_millis(25));
    a.fail_always(Point::Dot, slow);
    let relay = Relay::setup()
        .upstream(&a, &format!("max_connections = {CONNECTIONS}"))
        .upstream(&b, "")
        .tables(&streams("1s"))
        .start();
    let load = Load::new(5_000, Duration::from_secs(20));
    let mut back = now();
    load.run(relay.smtp(), || {
        a.wait_for(500);
        a.kill();
        // Down until the other one has carried a good part.
        b.wait_for(500);
        back = now();
        a.reopen();
    });
    let (held, doubled) = all_arrived(&relay, &load, [&a, &b], "may_arrive_twice");
    assert!(held <= CONNECTIONS, "{held} held, {CONNECTIONS} were under way at most");
    let returned: Vec<Instant> = a.received().iter().map(|r| r.at).filter(|at| *at > back).collect();
    let first = *returned.iter().min().expect("it takes mail again without a restart");
    let mut seconds = [0; 30];
    for at in &returned {
        let second = at.duration_since(first).as_secs() as usize;
        seconds[second.min(29)] += 1;
    }
    println!(
        "{} through the first, {} through the second; {held} held, {doubled} doubled; back after {:.1?}, then in each second {seconds:?}; {} connections at most",
        a.count(),
        b.count(),
        first.duration_since(back),
        a.most_connections(),
    );
    assert!(first.duration_since(back) < Duration::from_secs(7), "{:?}", first.duration_since(back));
    let most = *seconds.iter().max().unwrap();
    assert!(seconds[0] * 2 < most, "a stampede: {seconds:?}");
    assert!(a.most_connections() <= CONNECTIONS, "{}", a.most_connections());
}

#[test]
fn one_that_dies_in_mid_run_and_stays_away_holds_only_what_it_had() {
    const CONNECTIONS: usize = 10;
    let (mut a, b) = (Upstream::start(), Upstream::start());
    a.fail_always(Point::Dot, Fault::Slow(Duration::from_millis(10)));
    let relay = Relay::setup()
        .upstream(&a, &format!("max_connections = {CONNECTIONS}"))
        .upstream(&b, "")
        .tables(&streams("1s"))
        .start();
    let load = Load::new(5_000, Duration::from_secs(8));
    load.run(relay.smtp(), || {
        a.wait_for(1_000);
        // However slowly mail comes now, somebody waits for an answer when it dies.
        a.heal();
        a.fail_always(Point::Dot, Fault::Hang);
        wait_until("somebody waits for an answer", Duration::from_secs(20), || !a.unanswered().is_empty());
        a.kill();
    });
    let (held, doubled) = all_arrived(&relay, &load, [&a, &b], "retry_any");
    println!(
        "{} through the first, {} through the second; {held} held, {doubled} doubled",
        a.count(),
        b.count()
    );
    assert!((1..=CONNECTIONS).contains(&held), "{held} held, {CONNECTIONS} were under way at most");
}

/// A stream of new mail while the preferred next hop begins to hang at that point.
fn hangs_at(point: Point, fault: Fault) {
    const CONNECTIONS: usize = 4;
    let small = matches!(point, Point::Body(_)).then_some(8_192);
    let a = Upstream::with(Manner { receive_buffer: small, ..Manner::default() });
    let b = Upstream::start();
    // New connections come about all the time.
    let lines = format!("max_connections = {CONNECTIONS}\nmessages_per_connection = 10");
    let relay = Relay::setup().upstream(&a, &lines).upstream(&b, "").tables(&streams("1h")).start();
    let mut load = Load::new(2_000, Duration::from_secs(10));
    // Only what is larger than all buffers hangs in its body.
    load.large = small.map(|_| (100, 6_000_000));
    let mut hung = now();
    load.run(relay.smtp(), || {
        a.wait_for(200);
        hung = now();
        a.fail_always(point, fault);
    });
    let mut arrived = BTreeMap::new();
    let mut with_a = BTreeSet::new();
    let mut counted = None;
    let there = holds_within(Duration::from_secs(20), || {
        let count = a.count() + b.count() + a.unanswered().len();
        if counted.replace(count) != Some(count) {
            arrived = arrivals(a.received().into_iter().chain(b.received()));
            with_a = a.unanswered().iter().filter_map(|r| r.header("Subject")).collect();
        }
        (0..load.total).map(|n| format!("n{n}")).all(|s| arrived.contains_key(&s) || with_a.contains(&s))
    });
    if !there {
        let missing = |s: &String| !arrived.contains_key(s) && !with_a.contains(s);
        let missing: Vec<String> = (0..load.total).map(|n| format!("n{n}")).filter(missing).collect();
        panic!("{point:?}: {} wait: {}", missing.len(), life(&relay, &load.id(&missing[0])));
    }
    assert!(arrived.values().all(|copies| copies.len() == 1), "nothing twice");
    assert!(arrived.keys().all(|subject| !with_a.contains(subject)), "nor what it may have");
    let mut delays = load.delays(&arrived);
    let later: Duration =
        delays.iter().filter(|(at, _)| *at > hung + Duration::from_secs(5)).map(|(_, d)| *d).max().unwrap();
    delays.sort_by_key(|(_, delay)| *delay);
    let (p99, longest) = (delays[delays.len() * 99 / 100].1, delays[delays.len() - 1].1);
    println!(
        "{point:?}: {} through the first, {} through the second, {} it may have; delays: p99 {p99:.2?}, longest {longest:.2?}, of mail 5 s later {later:.2?}",
        a.count(),
        b.count(),
        with_a.len(),
    );
    assert!(longest < Duration::from_secs(8), "{point:?}: {longest:?}");
    // One of those may be a probe, which hangs until it is found out. Where only large bodies hang, it answers all others,
    // and each of those is found out by itself.
    assert!(
        later < Duration::from_secs(5) || small.is_some(),
        "{point:?}: {later:?} for mail that came 5 s after the hang began"
    );
}

#[test]
fn new_mail_goes_on_where_connections_hang() {
    hangs_at(Point::Banner, Fault::Hang);
}

#[test]
fn new_mail_goes_on_where_a_command_hangs() {
    hangs_at(Point::Mail, Fault::Hang);
}

#[test]
fn new_mail_goes_on_where_a_body_hangs() {
    hangs_at(Point::Body(100_000), Fault::Stall);
}

#[test]
fn new_mail_goes_on_where_the_dot_is_not_answered() {
    hangs_at(Point::Dot, Fault::Hang);
}
