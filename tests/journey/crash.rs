//! `kill -9` at random moments under load: everything that got its 250 arrives, and nothing arrives twice but what was
//! seen as unsure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::mailgen::{assert_unchanged, sized};
use crate::support::random::Random;
use crate::support::wait::holds_within;
use crate::support::{Client, Fault, Point, Relay, Upstream};

/// Clients that submit at a time.
const CLIENTS: u64 = 6;

/// What the clients share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    next: AtomicU64,
    /// Subject and id of what got its 250.
    acknowledged: Mutex<Vec<(String, String)>>,
}

impl Load {
    /// Submits until told to stop, through every loss of the line.
    fn run(&self, at: SocketAddr) {
        while !self.stop.load(Ordering::SeqCst) {
            // Nobody listens between a kill and the start after it.
            let mut client = None;
            holds_within(Duration::from_secs(60), || {
                client = Client::try_connect(at, None).ok();
                client.is_some() || self.stop.load(Ordering::SeqCst)
            });
            if let Some(client) = client {
                self.session(client);
            }
        }
    }

    fn session(&self, mut client: Client) {
        let bound = Duration::from_secs(20);
        if client.reply_within(bound).is_err() || client.say("EHLO load").reply_within(bound).is_err() {
            return;
        }
        while !self.stop.load(Ordering::SeqCst) {
            let n = self.next.fetch_add(1, Ordering::SeqCst);
            let subject = format!("n{n}");
            match client.try_submit("a@example.org", &["ok@example.com"], &message(&subject, n), bound) {
                Ok(id) => self.acknowledged.lock().unwrap().push((subject, id)),
                Err(_) => return,
            }
            client.transcript.clear();
        }
    }
}

/// Every fortieth is large enough to go to disk as it comes.
fn message(subject: &str, n: u64) -> Vec<u8> {
    sized(subject, if n % 40 == 39 { 400_000 } else { 2_000 })
}

fn rounds(usually: u32) -> u32 {
    std::env::var("POSTROAD_CRASH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(usually)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_doubles_unseen() {
    let rounds = rounds(20);
    let mut random = Random::seeded("crash");
    let upstream = Upstream::start();
    let fast = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"1s\"\n";
    let mut relay = Relay::setup().upstream(&upstream, "max_connections = 4").tables(fast).start();
    let at = relay.smtp();
    let load = Load::default();

    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(at));
        }
        for round in 0..rounds {
            // Some rounds meet the start, some the full flow, some an upstream that takes its time.
            if round % 4 == 3 {
                upstream.fail(Point::Dot, Fault::Slow(random.millis(20, 200)), 20);
            }
            let answered = load.acknowledged.lock().unwrap().len();
            let started = holds_within(Duration::from_secs(60), || {
                round % 5 == 4 || load.acknowledged.lock().unwrap().len() > answered
            });
            assert!(
                started,
                "round {round}: nothing is accepted; the log ends:\n{}",
                relay.log().lines().rev().take(20).collect::<Vec<_>>().join("\n")
            );
            std::thread::sleep(random.millis(5, 400));
            relay.kill();
            relay.spawn();
        }
        load.stop.store(true, Ordering::SeqCst);
    });
    upstream.heal();
    let ready = holds_within(Duration::from_secs(60), || relay.is_ready());
    assert!(ready, "not ready after the last kill");
    verify(&relay, &[&upstream], &load, rounds);
}

#[test]
fn nor_where_two_next_hops_fail_now_and_then() {
    let rounds = rounds(8);
    let mut random = Random::seeded("crash with two");
    let mut upstreams = [Upstream::start(), Upstream::start()];
    let fast = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"1s\"\n";
    let mut relay = Relay::setup()
        .upstream(&upstreams[0], "max_connections = 4")
        .upstream(&upstreams[1], "max_connections = 4")
        .tables(fast)
        .start();
    let at = relay.smtp();
    let load = Load::default();

    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(at));
        }
        for round in 0..rounds {
            for upstream in &mut upstreams {
                fail_somehow(upstream, &mut random);
            }
            let answered = load.acknowledged.lock().unwrap().len();
            let started = holds_within(Duration::from_secs(60), || {
                round % 5 == 4 || load.acknowledged.lock().unwrap().len() > answered
            });
            assert!(started, "round {round}: nothing is accepted");
            std::thread::sleep(random.millis(5, 900));
            relay.kill();
            for upstream in &mut upstreams {
                upstream.heal();
                upstream.reopen_if_down();
            }
            relay.spawn();
        }
        load.stop.store(true, Ordering::SeqCst);
    });
    let ready = holds_within(Duration::from_secs(60), || relay.is_ready());
    assert!(ready, "not ready after the last kill");
    verify(&relay, &[&upstreams[0], &upstreams[1]], &load, rounds);
}

/// What goes wrong there in one round: it refuses, resets, loses its answers or hangs for a while, or is well.
fn fail_somehow(upstream: &mut Upstream, random: &mut Random) {
    let times = random.between(1, 6) as usize;
    match random.between(0, 8) {
        0 => upstream.shut(),
        1 => upstream.kill(),
        2 => drop(upstream.fail(Point::Mail, Fault::Reset, times)),
        3 => drop(upstream.fail(Point::Dot, Fault::Close, times)),
        4 => drop(upstream.fail(Point::Dot, Fault::Slow(random.millis(20, 400)), times * 4)),
        5 => drop(upstream.fail(Point::Banner, Fault::Hang, times)),
        6 => drop(upstream.fail(Point::Rcpt(1), Fault::Reply("421 4.3.2 going down"), times)),
        _ => {}
    }
}

fn verify(relay: &Relay, upstreams: &[&Upstream], load: &Load, rounds: u32) {
    // Where the answer was lost the message is there all the same.
    let all = || upstreams.iter().flat_map(|u| u.received().into_iter().chain(u.unanswered()));
    let acknowledged = load.acknowledged.lock().unwrap();
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    let missing = |copies: &mut BTreeMap<String, usize>| {
        copies.clear();
        for subject in all().filter_map(|r| r.header("Subject")) {
            *copies.entry(subject).or_default() += 1;
        }
        acknowledged.iter().filter(|(s, _)| !copies.contains_key(s)).count()
    };
    // Counting parses everything that arrived: look when the count has moved.
    let mut counted = None;
    let arrived = holds_within(Duration::from_secs(90), || {
        let count: usize = upstreams.iter().map(|u| u.count() + u.unanswered().len()).sum();
        let moved = counted.replace(count) != Some(count);
        moved && count >= acknowledged.len() && missing(&mut copies) == 0
    });
    if !arrived {
        let lost: Vec<_> = acknowledged.iter().filter(|(s, _)| !copies.contains_key(s)).take(5).collect();
        let first = lost.first().map(|(_, id)| relay.get(&format!("/v1/messages/{id}")).map(|a| a.body));
        panic!(
            "{} of {} acknowledged are missing: {lost:?}; the first: {first:?}",
            missing(&mut copies),
            acknowledged.len()
        );
    }
    let mut doubled = 0;
    for (subject, id) in acknowledged.iter().filter(|(s, _)| copies[s] > 1) {
        doubled += copies[subject] - 1;
        let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
        let attempts = life["attempts"].as_array().unwrap();
        let open = attempts.iter().filter(|a| a["outcome"] == "unsure" || a["outcome"] == "begun").count();
        assert!(
            open >= copies[subject] - 1,
            "{subject} arrived {} times and only {open} attempts were unsure: {life}",
            copies[subject]
        );
    }
    for received in all() {
        let subject = received.header("Subject").unwrap();
        let n = subject[1..].parse().unwrap();
        assert_unchanged(&message(&subject, n), &received.data);
    }
    println!(
        "crash: {rounds} rounds, {} acknowledged, {} arrived, {doubled} doubled and seen as unsure before",
        acknowledged.len(),
        upstreams.iter().map(|u| u.count()).sum::<usize>()
    );
    assert!(acknowledged.len() > rounds as usize, "hardly any load: {}", acknowledged.len());
}
