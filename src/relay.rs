//! The wiring: builds every part from the checked configuration, runs them, and stops them in order.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{self, Clock};
use crate::config::Config;
use crate::esp::settings::{EspKind, EspSettings, SmtpEspSettings, SmtpProof, SmtpTls};
use crate::flow::courier::{self, Courier};
use crate::flow::feedback::{Feedback, Hook};
use crate::flow::intake::{self, Intake};
use crate::flow::setup::{self, Carrier};
use crate::flow::teller::Teller;
use crate::flow::webhooks::{self, Webhooks};
use crate::flow::{bounce, keeper, outlet, prepare};
use crate::http;
use crate::journal;
use crate::lock::Lock;
use crate::mail::{Budget, Grant, IdMint, StreamKind, StreamName};
use crate::policy::streams::StreamSettings;
use crate::router::{Carries, Rules};
use crate::secret::Secret;
use crate::smtp::{self, Doorway, Listener, ListenerSettings, TlsMode};
use crate::store::{self, EspsNamed, Store, WithoutEsps};
use crate::wire;
use crate::wire::smtp::{Login, Proof, Tokens};

mod changes;
pub mod doors;
mod files;
mod lines;
mod reload;

use lines::Lines;
use reload::Reloader;
pub use reload::Source;

/// Sessions in DATA get so long to finish at a stop. With [`smtp::STOP_LEAVE`] and [`REST_GRACE`] it is 28 s; a
/// supervisor kills after 30, and the store writes its log back in between.
const SESSIONS_GRACE: Duration = Duration::from_secs(23);
/// So long calls are still begun for what the sessions finish. Then they end beside the sessions, so that neither waits
/// for the other.
const CALLS_GO_ON: Duration = Duration::from_secs(11);
/// What was handed over has so long to be answered.
const CALLS_GRACE: Duration = Duration::from_secs(12);
/// The side port's open requests and the keeper's round.
const REST_GRACE: Duration = Duration::from_secs(3);
/// The sandbox keeps at once; more calls at a time would gain nothing.
const SANDBOX_CONNECTIONS: usize = 2;
/// HTTP connections that the kernel holds ready. With the usual 128 a crowd has it drop a monitor's, whose system tries
/// again after a second.
const SIDE_BACKLOG: u32 = 1024;
/// Octets of the instance's secret.
const SECRET_OCTETS: usize = 32;

/// Runs the relay until SIGTERM or SIGINT; SIGHUP has it read `source` again. `Err` says why it did not start.
pub async fn run(mut config: Config, source: Source) -> anyhow::Result<()> {
    files::raise_limit();
    files::keep_some_back(&mut config);
    outlive_file_limit()?;
    let metrics = crate::metrics::install()?;
    let data_dir = config.server.data_dir.clone();
    make_data_dir(&data_dir)?;
    let lock = Lock::take_with_room(&data_dir, store::give_up_reserve)?;
    let clock: Arc<dyn Clock> = Arc::new(clock::System);
    let mint = Arc::new(IdMint::new(chance()?));
    let owner = mint.owner(&*clock);
    let store = Store::open(config.store.clone(), owner, Arc::clone(&clock))?;
    close_to_others(&data_dir.join("postroad.db"))?;
    // Before anything happens that the app may want to hear.
    let teller = Teller::new(store.clone(), Arc::clone(&clock));
    teller.tell(&config.receivers);
    enter_generation(&store, &config).await?;
    let named = store.starts_with_esps(esps_named(&config)).await;
    tell_of_esps(named.context("cannot judge whether mail may go on")?);
    recover(&store, &config).await?;
    let budget = Budget::new(config.memory_octets);
    let wake = Arc::new(Notify::new());
    let mut lines = Lines::default();
    let courier = Courier::new(courier::Parts {
        store: store.clone(),
        clock: Arc::clone(&clock),
        mint: Arc::clone(&mint),
        budget: Arc::clone(&budget),
        setup: setup(&config, &store, &Lines::default(), &mut lines),
        wake,
    });
    restore_suspensions(&store, &courier).await?;
    courier.ask_allowances().await;
    let reports = bounce::Parts {
        store: store.clone(),
        clock: Arc::clone(&clock),
        mint: Arc::clone(&mint),
        courier: Arc::clone(&courier),
        settings: Arc::new(ArcSwap::from_pointee(report_settings(&config))),
    };
    let token = token(&instance_secret(&data_dir)?);
    let intake = Arc::new(Intake::new(intake::Parts {
        store: store.clone(),
        clock: Arc::clone(&clock),
        mint,
        budget: Arc::clone(&budget),
        courier: Arc::clone(&courier),
        rules: content_rules(&config, &token),
        listeners: listener_names(&config),
    }));
    let authenticator = smtp::Authenticator::new(config.credentials.clone());
    let authenticator = Arc::new(authenticator.context("the system gives no random numbers")?);
    let listeners = bind_listeners(&config, &shared(&config, &authenticator, &budget))?;
    let side = bind_side_port(config.http.address, "address")?;
    let public = config.http.public_address.map(|at| bind_side_port(at, "public_address")).transpose()?;
    let side_address = side.local_addr()?;
    let addresses = listeners.iter().map(Listener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
    let feedback = Arc::new(Feedback::new(
        store.clone(),
        Arc::clone(&clock),
        Arc::clone(&courier),
        config.soft,
        hooks(&config),
    ));
    let told = Arc::new(ArcSwap::from_pointee(http::Told {
        doors: doors_at(&config, &addresses),
        post: Arc::new(http::LivePost(Arc::clone(&intake))),
        proxies: config.http.trusted_proxies.clone(),
        admin_token: admin_token(&config)?,
        hooks: Arc::clone(&feedback) as Arc<dyn http::Hooks>,
        webhooks: Arc::new(Webhooks {
            courier: Arc::clone(&courier),
            store: store.clone(),
            clock: Arc::clone(&clock),
            intake: Arc::clone(&intake),
            last_calls: feedback.last_calls(),
            settings: webhook_settings(&config),
        }),
    }));
    let doorways: Vec<_> = listeners.iter().map(|l| l.doorway(Arc::clone(&intake))).collect();
    let live = http::Live { store: store.clone(), courier: Some(Arc::clone(&courier)) };
    let queue = Arc::new(live);
    let tokens = Arc::clone(&queue) as Arc<dyn http::Tokens>;
    let lock = Arc::new(lock);
    lock.write(side_address, &[]).context("cannot write the lock file")?;
    let secure = secure(&config, &lock, side_address)?;
    announce(&config, &addresses, (side_address, secure.is_some()));
    if let Some(public) = &public {
        journal::serving_webhooks(public.local_addr()?, secure.is_some());
    }
    let desk =
        Arc::new(http::LiveDesk { courier: Arc::clone(&courier), reports: Arc::clone(&reports.settings) });
    let parts = reload::Parts {
        source,
        store: store.clone(),
        clock: Arc::clone(&clock),
        courier: Arc::clone(&courier),
        budget: Arc::clone(&budget),
        intake,
        doorways: doorways.clone(),
        addresses,
        told: Arc::clone(&told),
        reports: Arc::clone(&reports.settings),
        teller: Arc::clone(&teller),
        secure: secure.clone(),
        token,
    };
    let reloader = Reloader::new(parts, reload::Present { config, authenticator, lines, feedback });
    let reload = Arc::new(reload::ByHttp(Arc::clone(&reloader)));
    let room = http::HookRoom::new(Arc::clone(&budget));
    let routes = http::Relay { told, reload, queue, desk, clock, metrics, budget, room, tokens };
    let mut sides = vec![(http::What::All, http::SidePort { listener: side, secure: secure.clone() })];
    sides.extend(public.map(|listener| (http::What::Webhooks, http::SidePort { listener, secure })));
    let listeners = listeners.into_iter().zip(doorways).collect();
    let mut running = Running::start(listeners, courier, (routes, sides), reports, teller);
    let signal = wait_for_signal(&reloader).await?;
    journal::stopping(signal);
    running.stop().await;
    // Where it cannot be noted the next start holds longer.
    let _ = store.note_alive().await;
    store.close().await;
    journal::stopped();
    drop(lock);
    Ok(())
}

/// What runs, and in which order it is stopped.
#[derive(Debug)]
struct Running {
    courier: Arc<Courier>,
    teller: Arc<Teller>,
    doors: TaskTracker,
    doors_stop: CancellationToken,
    rest: TaskTracker,
    rest_stop: CancellationToken,
}

impl Running {
    fn start(
        listeners: Vec<(Listener, Arc<Doorway<Intake>>)>,
        courier: Arc<Courier>,
        (routes, sides): (http::Relay, Vec<(http::What, http::SidePort)>),
        reports: bounce::Parts,
        teller: Arc<Teller>,
    ) -> Self {
        let (doors, rest) = (TaskTracker::new(), TaskTracker::new());
        let (doors_stop, rest_stop) = (CancellationToken::new(), CancellationToken::new());
        courier.start();
        for (listener, doorway) in listeners {
            doors.spawn(listener.run(doorway, doors_stop.clone()));
        }
        rest.spawn(keeper::keep(Arc::clone(&courier), rest_stop.clone()));
        rest.spawn(keeper::make_room(Arc::clone(&courier), rest_stop.clone()));
        rest.spawn(bounce::report(reports, rest_stop.clone()));
        for (what, side) in sides {
            rest.spawn(http::serve(routes.clone(), what, side, rest_stop.clone()));
        }
        Running { courier, teller, doors, doors_stop, rest, rest_stop }
    }

    /// First no new mail; no new calls once the sessions have ended, or have taken long; then the rest. The listeners
    /// bound the sessions themselves.
    async fn stop(&mut self) {
        self.doors_stop.cancel();
        self.doors.close();
        let calls = async {
            let _ = tokio::time::timeout(CALLS_GO_ON, self.doors.wait()).await;
            self.courier.stop(CALLS_GRACE).await;
        };
        tokio::join!(self.doors.wait(), calls);
        self.rest_stop.cancel();
        self.rest.close();
        let rest =
            async { tokio::join!(self.rest.wait(), self.courier.all_taken_back(), self.teller.stop()) };
        let _ = tokio::time::timeout(REST_GRACE, rest).await;
    }
}

fn make_data_dir(data_dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    let shown = data_dir.display();
    made.with_context(|| {
        format!("cannot make the folder {shown}; set [server] data_dir to one that can be written")
    })
}

/// Counts this start, and says loudly where the database was restored since the last one.
async fn enter_generation(store: &Store, config: &Config) -> anyhow::Result<()> {
    let esps = config.esps.iter().map(|esp| esp.name.clone()).collect();
    let entered = store.enter_generation(esps).await.context("this start cannot be counted")?;
    if let Some(restored) = entered {
        let told = format!("all sending is paused: {} ({} unfinished)", restored.reason, restored.unfinished);
        journal::alert("restored", told);
    }
    Ok(())
}

fn esps_named(config: &Config) -> EspsNamed {
    match config.esps.iter().all(|esp| matches!(esp.kind, EspKind::Sandbox { .. })) {
        false => EspsNamed::Real,
        true if config.esps_written => EspsNamed::Sandboxes,
        true => EspsNamed::None,
    }
}

/// Where ESPs were named and are no more, mail waits, and an alert says so. Gives why.
fn tell_of_esps(found: WithoutEsps) -> Option<String> {
    match found {
        WithoutEsps::No => None,
        WithoutEsps::Over => {
            journal::sending_unpaused();
            None
        }
        WithoutEsps::Paused(reason) => {
            let told = format!("all sending is paused: {reason}");
            journal::alert("no_esp", &told);
            Some(told)
        }
    }
}

/// Judges what an earlier start left.
async fn recover(store: &Store, config: &Config) -> anyhow::Result<()> {
    let hold = |name: &StreamName, kind: StreamKind| {
        let named = |name: &StreamName| config.streams.iter().find(|s| s.name == *name);
        let settings = named(name).or_else(|| named(&StreamName::default_of(kind)));
        settings.map_or_else(|| StreamSettings::built_in(kind).unsure_hold, |s| s.unsure_hold)
    };
    let recovered = store.recover(hold).await.context("cannot judge what an earlier start left")?;
    if recovered.crashed > 0 {
        journal::recovered(recovered.crashed);
    }
    Ok(())
}

fn announce(config: &Config, addresses: &[SocketAddr], (side, https): (SocketAddr, bool)) {
    for (settings, address) in config.listeners.iter().zip(addresses) {
        journal::listening(&settings.name, *address);
    }
    journal::serving(side, https);
    if config.esps.iter().all(|esp| matches!(esp.kind, EspKind::Sandbox { .. })) {
        journal::only_sandbox();
    }
}

/// What every listener goes by.
fn shared(config: &Config, authenticator: &Arc<smtp::Authenticator>, budget: &Arc<Budget>) -> smtp::Shared {
    smtp::Shared {
        hostname: config.server.hostname.clone(),
        origin: config.server.origin.clone(),
        dsn: config.server.dsn,
        authenticator: Arc::clone(authenticator),
        budget: Arc::clone(budget),
        limits: smtp::Limits { stop_grace: SESSIONS_GRACE, ..smtp::Limits::default() },
    }
}

/// What is done to a message that comes in.
fn content_rules(config: &Config, token: &str) -> prepare::Settings {
    prepare::Settings {
        hostname: config.server.hostname.clone(),
        token: token.to_owned(),
        origin: config.server.origin.clone(),
        long_lines: config.server.long_lines,
        vendor_headers: config.server.allow_vendor_headers,
    }
}

/// The webhook of every ESP that has one.
fn hooks(config: &Config) -> Vec<Hook> {
    let hook = |esp: &EspSettings| {
        let ca_file = esp.kind.ca_file().cloned();
        Some(Hook::new(&esp.name, esp.webhook.clone()?, ca_file))
    };
    config.esps.iter().filter_map(hook).collect()
}

/// What is known of the webhooks that the ESPs are to have.
fn webhook_settings(config: &Config) -> webhooks::Settings {
    let hook = |esp: &EspSettings| Some((esp.name.clone(), esp.webhook.clone()?));
    webhooks::Settings {
        public_url: config.http.public_url.clone(),
        hooks: config.esps.iter().filter_map(hook).collect(),
        own: config.server.dsn_from.clone(),
    }
}

/// Every door's name in metrics.
fn listener_names(config: &Config) -> Vec<String> {
    config.listeners.iter().map(|l| l.name.clone()).chain([http::send::LISTENER.into()]).collect()
}

/// What opens every route.
fn admin_token(config: &Config) -> anyhow::Result<Secret> {
    match &config.http.admin_token {
        Some(token) => Ok(token.clone()),
        None => crate::lock::admin_token(&config.server.data_dir).context("cannot make the admin token"),
    }
}

fn bind_listeners(config: &Config, shared: &smtp::Shared) -> anyhow::Result<Vec<Listener>> {
    let bind = |settings: &ListenerSettings| Ok(Listener::bind(settings.clone(), shared.clone())?);
    config.listeners.iter().map(bind).collect()
}

/// How senders hear of what became of their mail.
fn report_settings(config: &Config) -> bounce::Settings {
    let hosts = config.esps.iter().filter_map(|esp| Some((esp.name.clone(), doors::host(&esp.kind)?)));
    bounce::Settings {
        on: config.server.dsn,
        from: config.server.dsn_from.clone(),
        hostname: config.server.hostname.clone(),
        hosts: hosts.collect(),
    }
}

fn bind_side_port(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let advice = format!("set [http] {key} to one that is free");
    listen(address).with_context(|| format!("cannot listen on {address} for HTTP; {advice}"))
}

/// The certificate of the side port; the lock file says which it shows, for as long as there is the lock.
fn secure(config: &Config, lock: &Arc<Lock>, side: SocketAddr) -> anyhow::Result<Option<Arc<http::Secure>>> {
    let Some(files) = &config.http.certificate else { return Ok(None) };
    let certificates =
        smtp::tls::Certificates::load(files.clone()).context("the HTTP port has no certificate")?;
    let lock = Arc::downgrade(lock);
    let tell = move |pins: &[crate::lock::Pin]| {
        if let Some(Err(error)) = lock.upgrade().map(|lock| lock.write(side, pins)) {
            journal::trouble("telling the commands of a new certificate", &error.to_string());
        }
    };
    Ok(Some(Arc::new(http::Secure::new(Arc::new(certificates), tell))))
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(SIDE_BACKLOG)
}

/// The listeners as they are tried, where they really are: port 0 became a free one.
fn doors_at(config: &Config, addresses: &[SocketAddr]) -> Vec<http::Door> {
    let door = |(settings, address): (&ListenerSettings, &SocketAddr)| http::Door {
        address: *address,
        implicit_tls: settings.tls == TlsMode::Implicit,
    };
    config.listeners.iter().zip(addresses).map(door).collect()
}

/// Which ESPs the configuration lets mail go to.
fn routes(config: &Config) -> Rules {
    let list = |entries: &[String]| entries.iter().map(|entry| Arc::from(entry.as_str())).collect();
    let carries =
        |esp: &EspSettings| Carries { recipients: list(&esp.recipients), domains: list(&esp.domains) };
    Rules::new(
        config.esps.iter().map(carries).collect(),
        config.streams.iter().map(|s| (s.name.clone(), s.esps.clone())).collect(),
    )
}

/// What an operator suspended stays so.
async fn restore_suspensions(store: &Store, courier: &Courier) -> anyhow::Result<()> {
    let suspensions = store.suspensions().await.context("cannot read which ESPs are suspended")?;
    for Carrier { outlet, .. } in &courier.setup().carriers {
        outlet.gate.suspend(suspensions.get(&*outlet.name).cloned());
        outlet.gate.pause_with_all(suspensions.get(store::EVERY_ESP).cloned());
    }
    if let Some(pause) = suspensions.get(store::EVERY_ESP) {
        journal::sending_paused(&pause.reason);
    }
    Ok(())
}

/// What the configuration says to the courier. The lines of `before` that are as they were are used on; all that it
/// uses is noted in `lines`.
fn setup(config: &Config, store: &Store, before: &Lines, lines: &mut Lines) -> setup::Parts {
    let mut esp = |esp: &EspSettings| outlet::Parts {
        name: esp.name.clone(),
        priority: esp.priority,
        weight: esp.weight,
        line: lines.line(before, esp, &config.server, store),
        connections: esp.kind.lines().map_or(SANDBOX_CONNECTIONS, |lines| lines.max_connections),
        limits: esp.limits,
    };
    setup::Parts {
        esps: config.esps.iter().map(&mut esp).collect(),
        streams: config.streams.clone(),
        routes: routes(config),
    }
}

/// What the wire to an SMTP upstream needs to know; `tokens` has those of a grant.
pub fn wire_settings(
    smtp: &SmtpEspSettings,
    hostname: &str,
    tokens: &dyn Fn(&Grant) -> Arc<Tokens>,
) -> wire::smtp::Settings {
    let proof = |proof: &SmtpProof| match proof {
        SmtpProof::Password(password) => Proof::Password(password.clone()),
        SmtpProof::OAuth2(grant) => Proof::Token(tokens(grant)),
    };
    wire::smtp::Settings {
        host: smtp.host.clone(),
        port: smtp.port,
        tls: match smtp.tls {
            SmtpTls::StartTls => wire::smtp::Tls::StartTls,
            SmtpTls::Implicit => wire::smtp::Tls::Implicit,
            SmtpTls::Off => wire::smtp::Tls::Off,
        },
        login: smtp
            .login
            .as_ref()
            .map(|login| Login { username: login.username.clone(), proof: proof(&login.proof) }),
        kin: Vec::new(),
        ca_file: smtp.ca_file.clone(),
        max_connections: smtp.lines.max_connections,
        messages_per_connection: smtp.lines.messages_per_connection,
        idle_timeout: smtp.lines.idle_timeout,
        timeout: smtp.lines.timeout,
        data_timeout: smtp.lines.data_timeout,
        helo: hostname.to_owned(),
    }
}

async fn wait_for_signal(reloader: &Arc<Reloader>) -> anyhow::Result<&'static str> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    // By itself it would end the process, at the end of the terminal's session for one.
    let mut hup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok("SIGTERM"),
            _ = int.recv() => return Ok("SIGINT"),
            _ = hup.recv() => {
                // Beside: a signal to stop does not wait for it. The log has how it went.
                let reloader = Arc::clone(reloader);
                tokio::spawn(async move { reloader.reload().await });
            }
        }
    }
}

/// A write past the bound on the size of files (`ulimit -f`) then fails, as on a full disk; by itself its signal ends the
/// process. The handler stays when what it returns is gone.
fn outlive_file_limit() -> anyhow::Result<()> {
    let number = rustix::process::Signal::XFSZ.as_raw();
    signal(SignalKind::from_raw(number)).map(drop).context("cannot listen for SIGXFSZ")
}

fn chance() -> anyhow::Result<u64> {
    let mut octets = [0; 8];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(u64::from_le_bytes(octets))
}

/// What keys this instance's tokens; made once, 0600, in the data folder.
fn instance_secret(data_dir: &Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = data_dir.join("secret");
    match std::fs::read(&path) {
        Ok(secret) if secret.len() >= SECRET_OCTETS => {
            close_to_others(&path)?;
            return Ok(secret);
        }
        Ok(_) => {
            anyhow::bail!("{} is damaged: it should hold {SECRET_OCTETS} octets; remove it", path.display())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    let mut secret = vec![0; SECRET_OCTETS];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(&secret)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(secret)
}

/// A restored file may be readable to all.
fn close_to_others(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0);
    if open {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot close {} to other users", path.display()))?;
        tracing::warn!(file = %path.display(), "was open to other users; it is closed to them now (0600)");
    }
    Ok(())
}

/// The word in our own `Received` lines by which a loop is seen at its second pass. It survives restarts and says
/// nothing of the secret.
fn token(secret: &[u8]) -> String {
    use std::fmt::Write;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    let tag = aws_lc_rs::hmac::sign(&key, b"received token");
    tag.as_ref().iter().take(8).fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}
