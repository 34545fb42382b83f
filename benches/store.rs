//! What a message costs in the store: accept (4 KB, begun) and settle in groups, and accept alone at one connection.
//!
//! `cargo bench --bench store [-- MESSAGES [OCTETS]]`. CPU is the whole process's: writer, callers and runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postroad::address::{Address, Grammar};
use postroad::clock::{Clock, System, monotonic};
use postroad::mail::{
    AttemptId, Body, BodyKind, DeliveryId, Envelope, IdMint, Message, Outcome, Owner, Protocol, ReversePath,
    Source, Step, StreamKind, StreamName,
};
use postroad::store::{Accept, Beginning, Entry, Settings, Settle, Store};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let messages = numbers.next().unwrap_or(40_000);
    let octets = numbers.next().unwrap_or(4_096);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        for connections in [100, 10] {
            grouped(connections, messages, octets).await?;
        }
        alone(messages / 40, octets).await?;
        suppressions(messages).await
    })
}

/// So many connections: each accepts a message as begun, and settles it without waiting.
async fn grouped(connections: usize, messages: usize, octets: usize) -> Result<(), Failure> {
    let bench = Bench::open()?;
    let made = Arc::new(bench.messages(messages, octets)?);
    let next = Arc::new(AtomicUsize::new(0));
    let (cpu, started) = (cpu(), monotonic());
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (store, made, next) = (bench.store.clone(), Arc::clone(&made), Arc::clone(&next));
        tasks.push(tokio::spawn(async move {
            let mut last = None;
            while let Some(message) = made.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (accept, settle) = begun(message);
                store.accept(vec![accept]).await.remove(0)?;
                last = Some(store.settle(vec![settle]));
            }
            if let Some(settling) = last {
                settling.await?;
            }
            Ok::<(), Failure>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    report(
        &format!("{connections} connections, accept begun + settle, {octets} octets"),
        messages,
        started.elapsed(),
        cpu,
    );
    bench.close().await;
    Ok(())
}

/// One connection: each accept waits for a sync of its own.
async fn alone(messages: usize, octets: usize) -> Result<(), Failure> {
    let bench = Bench::open()?;
    let made = bench.messages(messages, octets)?;
    let (cpu, started) = (cpu(), monotonic());
    let mut waits = Vec::with_capacity(messages);
    for message in &made {
        let at = monotonic();
        bench.store.accept(vec![begun(message).0]).await.remove(0)?;
        waits.push(at.elapsed());
    }
    report(&format!("1 connection, accept begun, {octets} octets"), messages, started.elapsed(), cpu);
    waits.sort_unstable();
    let at = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or_default();
    say(&format!("    p50 {:?}, p99 {:?}", at(50), at(99)));
    bench.close().await;
    Ok(())
}

/// The look-up at RCPT.
async fn suppressions(lookups: usize) -> Result<(), Failure> {
    let bench = Bench::open()?;
    let (cpu, started) = (cpu(), monotonic());
    let (keys, stream) = (["somebody@example.com".to_owned()], StreamName::new(StreamName::TRANSACTIONAL));
    for _ in 0..lookups {
        bench.store.blocked(&keys, &stream, StreamKind::Transactional)?;
    }
    report("suppression look-ups", lookups, started.elapsed(), cpu);
    bench.close().await;
    Ok(())
}

struct Bench {
    store: Store,
    dir: tempfile::TempDir,
}

impl Bench {
    fn open() -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("postroad-bench").tempdir_in(
            std::env::var_os("BENCH_DIR").unwrap_or_else(|| std::env::temp_dir().into_os_string()),
        )?;
        let settings = Settings {
            data_dir: dir.path().to_owned(),
            queue_octets_max: 1 << 40,
            min_free_octets: 0,
            spread_log: true,
            keep_bodies: Duration::MAX,
            keep_bodies_octets: 1 << 40,
            sandboxes: Vec::new(),
            kin: Default::default(),
            keep_messages: Duration::MAX,
            keep_attempts: Duration::MAX,
            keep_events: Duration::MAX,
        };
        let store = Store::open(settings, Owner::from_number(1), Arc::new(System))?;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        say(status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or_default());
        Ok(Bench { store, dir })
    }

    fn messages(&self, count: usize, octets: usize) -> Result<Vec<Arc<Message>>, Failure> {
        let mint = IdMint::new(1);
        let sender = Address::parse("bounces@app.example.com", Grammar::Strict)?;
        let body = Body::whole(vec![b'x'; octets]);
        let mut made = Vec::with_capacity(count);
        for n in 0..count {
            made.push(Arc::new(Message {
                id: mint.message(&System),
                envelope: Envelope {
                    sender: ReversePath::Mailbox(sender.clone()),
                    recipients: vec![Address::parse(
                        &format!("user{n}@example{}.org", n % 50),
                        Grammar::Strict,
                    )?],
                    body: BodyKind::EightBit,
                    smtputf8: false,
                    reports: None,
                },
                stream: StreamName::new("transactional"),
                kind: StreamKind::Transactional,
                body: body.clone(),
                accepted_at: System.now(),
                expires_at: System.now().plus(Duration::from_secs(86_400)),
                tags: Vec::new(),
                metadata: Vec::new(),
                pin: None,
                source: Source {
                    listener: "smtp".into(),
                    peer: [127, 0, 0, 1].into(),
                    helo: "app1.internal".into(),
                    credential: None,
                    protocol: Protocol::Esmtp { tls: false, auth: false, utf8: false },
                },
            }));
        }
        Ok(made)
    }

    async fn close(self) {
        let octets = |name: &str| std::fs::metadata(self.dir.path().join(name)).map_or(0, |m| m.len());
        let (db, wal) = (octets("postroad.db"), octets("postroad.db-wal"));
        say(&format!("    database {} KiB, log {} KiB", db / 1024, wal / 1024));
        self.store.close().await;
    }
}

fn begun(message: &Arc<Message>) -> (Accept, Settle) {
    let attempt = AttemptId::from_number(message.id.number());
    let beginning = Beginning { attempt, esp: "upstream".into() };
    let settle = Settle {
        delivery: DeliveryId { message: message.id, recipient: 0 },
        attempt,
        esp: beginning.esp.clone(),
        begun_at: System.now(),
        answered_at: System.now(),
        outcome: Outcome::Accepted { remote_id: None, said: "250 2.0.0 Ok: queued as 4FzXyZ1234".into() },
        phase: None,
        step: Step::Done,
        hold: Duration::ZERO,
        spent: None,
        choice: None,
        relayed: false,
        heard: false,
    };
    (
        Accept { message: Arc::clone(message), entries: vec![Entry::Begun(beginning)], rules: Vec::new() },
        settle,
    )
}

/// User and system time of this process in clock ticks of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn report(what: &str, count: usize, wall: Duration, cpu_before: Duration) {
    let each = |d: Duration| d.as_secs_f64() * 1e6 / count as f64;
    say(&format!(
        "{what}: {:.0}/s, {:.1} us wall, {:.1} us CPU each",
        count as f64 / wall.as_secs_f64(),
        each(wall),
        each(cpu() - cpu_before)
    ));
}

#[allow(clippy::print_stdout, reason = "a bench prints")]
fn say(line: &str) {
    println!("{line}");
}
