//! Hours in seconds: all ESPs are down for an hour of the runtime's paused clock, and back. Nothing is lost or sent
//! twice, nobody is stormed meanwhile, and what waited goes out within each ESP's rate.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address::{Address, Grammar};
use crate::clock::{Clock, Manual, Timestamp, monotonic};
use crate::flow::courier::{self, Courier};
use crate::flow::intake::{self, Intake};
use crate::flow::outlet::{self, Full, Load};
use crate::flow::setup::{self, Line};
use crate::flow::{keeper, prepare};
use crate::mail::from::Whose;
use crate::mail::mime::LongLines;
use crate::mail::quota::{Limits, QuotaLimits, Rate};
use crate::mail::{
    Answer, Body, BodyKind, Budget, Envelope, IdMint, Owner, Phase, Protocol, Reply, Request, ReversePath,
    SmtpReply, Source, StreamKind, StreamName, Submission, Watch,
};
use crate::policy::streams::StreamSettings;
use crate::router::{Carries, Rules};
use crate::store::{Settings, Store};
use crate::wire::{Checked, Wire};

const HOUR: Duration = Duration::from_secs(3_600);
/// While all are down the clock moves by so much: mail that has gates and minutes to wait for misses nothing.
const COARSE: Duration = Duration::from_secs(1);
/// While mail goes out.
const FINE: Duration = Duration::from_millis(20);
const MAILS: usize = 600;
/// Recipients a second.
const RATES: [u32; 2] = [20, 10];

/// A next hop that refuses connections while it is down, and else takes everything in 5 ms.
#[derive(Debug, Default)]
struct Hop {
    up: AtomicBool,
    checks: Mutex<Vec<Instant>>,
    tried: Mutex<Vec<Instant>>,
    taken: Mutex<Vec<(Instant, String)>>,
}

impl Hop {
    fn meets(&self) -> Result<(), String> {
        self.up.load(Ordering::SeqCst).then_some(()).ok_or_else(|| "connection refused".to_owned())
    }
}

#[derive(Debug)]
struct HopWire(Arc<Hop>);

impl Wire for HopWire {
    fn exchange<'a>(&'a self, request: Request, watch: &'a Watch) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            self.0.tried.lock().unwrap().push(monotonic());
            if let Err(said) = self.0.meets() {
                return Reply::Lost {
                    phase: Phase::Connect,
                    handed_over: false,
                    recipients: Vec::new(),
                    said,
                };
            }
            let Request::Smtp(request) = request else { panic!("{request:?}") };
            watch.hand_over();
            tokio::time::sleep(Duration::from_millis(5)).await;
            let ok = Answer { code: 250, enhanced: None, text: "ok".into() };
            let mut taken = self.0.taken.lock().unwrap();
            taken.extend(request.recipients.iter().map(|to| (monotonic(), to.wire().to_owned())));
            let recipients = vec![ok.clone(); request.recipients.len()];
            Reply::Smtp(SmtpReply { phase: Phase::Dot, last: ok, recipients, reports: false })
        })
    }

    fn answers_within(&self, _: &Request) -> Duration {
        Duration::from_secs(60)
    }

    fn check(&self) -> BoxFuture<'_, Checked> {
        Box::pin(async move {
            self.0.checks.lock().unwrap().push(monotonic());
            Checked { steps: Vec::new(), met: self.0.meets(), in_part: false }
        })
    }
}

struct World {
    /// The wall clock, also for the writer's thread, which does not know the runtime's.
    clock: Arc<Manual>,
    store: Store,
    intake: Intake,
    courier: Arc<Courier>,
    hops: [Arc<Hop>; 2],
    /// Work that tokio waits for: without it a paused clock jumps ahead whenever only the database is at work.
    brake: std::sync::mpsc::Sender<()>,
    stop: CancellationToken,
}

impl World {
    fn new(dir: &Path) -> Self {
        let wall = Arc::new(Manual::at(Timestamp::from_millis(1_796_000_000_000)));
        let clock: Arc<dyn Clock> = Arc::clone(&wall) as Arc<dyn Clock>;
        let (mint, budget) = (Arc::new(IdMint::new(7)), Budget::new(64 << 20));
        let store = Store::open(settings(dir), Owner::from_number(1), Arc::clone(&clock)).unwrap();
        let (wake, hops) = (Arc::new(Notify::new()), [Arc::new(Hop::default()), Arc::new(Hop::default())]);
        let esps = (0..2).map(|n| hop(n, &hops[n])).collect();
        let streams = [StreamKind::Transactional, StreamKind::Broadcast].map(StreamSettings::built_in);
        let courier = Courier::new(courier::Parts {
            store: store.clone(),
            clock: Arc::clone(&clock),
            mint: Arc::clone(&mint),
            budget: Arc::clone(&budget),
            setup: setup::Parts {
                esps,
                streams: streams.to_vec(),
                routes: Rules::new(vec![Carries::default(), Carries::default()], Vec::new()),
            },
            wake,
        });
        let intake = Intake::new(intake::Parts {
            store: store.clone(),
            clock,
            mint,
            budget,
            courier: Arc::clone(&courier),
            rules: prepare::Settings {
                hostname: "relay.example.org".into(),
                token: "t".into(),
                origin: None,
                long_lines: LongLines::Reencode,
                vendor_headers: false,
            },
            listeners: vec!["l".into()],
        });
        let (brake, held) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv());
        let stop = CancellationToken::new();
        courier.start();
        tokio::spawn(keeper::keep(Arc::clone(&courier), stop.clone()));
        World { clock: wall, store, intake, courier, hops, brake, stop }
    }

    /// Moves the clock, then lets everybody act on it: tasks, the writer's and the readers' threads, and tasks again. The
    /// clock does not know theirs: on a busy machine it would run ahead of who reads the queue.
    async fn pass(&self, step: Duration) {
        self.clock.advance(step);
        tokio::time::advance(step).await;
        for _ in 0..4 {
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
            self.store.note_alive().await.unwrap();
            self.store.reads_done().await;
        }
    }

    async fn submit(&self, n: usize) {
        let stream = if n.is_multiple_of(3) { StreamName::BROADCAST } else { StreamName::TRANSACTIONAL };
        self.intake.submit(submission(&format!("r{n}@example.com"), stream)).await.unwrap();
    }

    fn taken(&self) -> usize {
        self.hops.iter().map(|hop| hop.taken.lock().unwrap().len()).sum()
    }

    async fn close(self) {
        self.stop.cancel();
        self.courier.stop(Duration::from_secs(1)).await;
        drop(self.brake);
    }
}

pub(super) fn settings(dir: &Path) -> Settings {
    let day = Duration::from_secs(86_400);
    Settings {
        data_dir: dir.to_owned(),
        queue_octets_max: 1 << 30,
        min_free_octets: 0,
        spread_log: false,
        keep_bodies: day,
        keep_bodies_octets: 1 << 30,
        sandboxes: Vec::new(),
        kin: Default::default(),
        keep_messages: day,
        keep_attempts: day,
        keep_events: day,
    }
}

fn hop(n: usize, hop: &Arc<Hop>) -> outlet::Parts {
    let rate = Rate { recipients: RATES[n], per: Duration::from_secs(1) };
    limited(n, hop, Limits { rate: Some(rate), ..Limits::default() })
}

fn limited(n: usize, hop: &Arc<Hop>, limits: Limits) -> outlet::Parts {
    outlet::Parts {
        name: format!("hop{n}"),
        priority: n as u32,
        weight: 100,
        line: Arc::new(Line {
            esp: Box::new(crate::esp::smtp::Smtp::default()),
            wire: Arc::new(HopWire(Arc::clone(hop))),
        }),
        connections: 10,
        limits,
    }
}

pub(super) fn submission(to: &str, stream: &str) -> Submission {
    Submission {
        envelope: Envelope {
            sender: ReversePath::Mailbox(Address::parse("app@example.org", Grammar::Strict).unwrap()),
            recipients: vec![Address::parse(to, Grammar::Strict).unwrap()],
            body: BodyKind::SevenBit,
            smtputf8: false,
            reports: None,
        },
        raw: Body::whole("From: app@example.org\r\nSubject: s\r\n\r\nhello\r\n"),
        stream: Some(StreamName::new(stream)),
        tags: Vec::new(),
        metadata: Vec::new(),
        key: None,
        send_at: None,
        pin: None,
        source: Source {
            listener: "l".into(),
            peer: std::net::Ipv4Addr::LOCALHOST.into(),
            helo: "app".into(),
            credential: None,
            protocol: Protocol::Smtp,
        },
        terms: Arc::default(),
        on_top: String::new(),
    }
}

/// The most of these moments in any span of that length.
fn most_within(moments: &[Instant], span: Duration) -> usize {
    let within = |from: &Instant| moments.iter().filter(|at| (*from..*from + span).contains(*at)).count();
    moments.iter().map(within).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn after_an_hour_without_any_esp_everything_goes_out_within_its_rate() {
    // In memory where there is some: tens of thousands of commits.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let world = World::new(dir.path());
    let (began, seconds) = (monotonic(), HOUR.as_secs() as usize);
    for second in 0..seconds {
        if second.is_multiple_of(seconds / MAILS) {
            world.submit(second / (seconds / MAILS)).await;
        }
        world.pass(COARSE).await;
    }
    assert_eq!(world.taken(), 0);
    for hop in &world.hops {
        let (tried, checks) = (hop.tried.lock().unwrap().clone(), hop.checks.lock().unwrap().clone());
        assert!(tried.len() <= 20, "{} mails were tried at an ESP that was down", tried.len());
        assert!((600..=900).contains(&checks.len()), "{} free checks in an hour", checks.len());
        assert!(most_within(&checks, Duration::from_secs(60)) <= 20, "a storm of checks");
    }

    let back = monotonic();
    world.hops.iter().for_each(|hop| hop.up.store(true, Ordering::SeqCst));
    while world.taken() < MAILS && back.elapsed() < Duration::from_secs(300) {
        world.pass(FINE).await;
    }
    let took = back.elapsed();
    for (hop, rate) in world.hops.iter().zip(RATES) {
        let taken: Vec<Instant> = hop.taken.lock().unwrap().iter().map(|(at, _)| *at).collect();
        let most = most_within(&taken, Duration::from_secs(1));
        assert!(most <= rate as usize + 1, "{most} in a second, {rate} are allowed");
    }
    let mut arrived: Vec<String> = Vec::new();
    for hop in &world.hops {
        arrived.extend(hop.taken.lock().unwrap().iter().map(|(_, to)| to.clone()));
    }
    assert_eq!(arrived.len(), MAILS, "after {took:?}, {:?} in all", began.elapsed());
    // What the first alone could carry in half a minute, and half a minute for gates that open by and by.
    assert!(took <= Duration::from_secs(60), "{took:?} for what they can carry in twenty seconds");
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived.len(), MAILS, "each once");
    let tried: usize = world.hops.iter().map(|hop| hop.tried.lock().unwrap().len()).sum();
    assert!(tried <= MAILS + 40, "{tried} attempts for {MAILS} mails");
    world.close().await;
}

#[tokio::test]
async fn the_first_mail_finds_its_allowance_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::open(settings(dir.path()), Owner::from_number(1), Arc::new(crate::clock::System)).unwrap();
    let (clock, wake): (Arc<dyn Clock>, _) = (Arc::new(crate::clock::System), Arc::new(Notify::new()));
    let windows = QuotaLimits { daily: Some(100), ..QuotaLimits::default() };
    let esp = limited(0, &Arc::new(Hop::default()), Limits { windows, ..Limits::default() });
    let courier = Courier::new(courier::Parts {
        store: store.clone(),
        clock: Arc::clone(&clock),
        mint: Arc::new(IdMint::new(7)),
        budget: Budget::new(1 << 20),
        setup: setup::Parts {
            esps: vec![esp],
            streams: Vec::new(),
            routes: Rules::new(vec![Carries::default()], Vec::new()),
        },
        wake,
    });
    let outlet = Arc::clone(&courier.setup().carriers[0].outlet);
    let load = Load { kind: StreamKind::Transactional, recipients: 1, whole: false, whose: Whose::default() };
    assert_eq!(outlet.room(load, clock.now()).err(), Some(Full::Soon));
    courier.ask_allowances().await;
    assert!(outlet.room(load, clock.now()).is_ok());
}
