//! A listener: binds, accepts, lets clients in or makes room, and stops in order.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::Gauge;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::auth::Authenticator;
use super::connection::{Context, serve};
use super::refusals::Refusals;
use super::reply::Reply;
use super::room::{Guest, Room};
use super::session::Rules;
use super::tls::{CertificateError, Certificates};
use super::{Gatekeeper, ListenerSettings, TlsMode};
use crate::mail::Budget;

/// Connections at a time, label `listener`: near `max_connections`, clients are about to be sent away.
pub const CONNECTIONS: &str = "postroad_smtp_connections";
/// Connections that the kernel holds ready; its own limit (`net.core.somaxconn`) may be lower.
const BACKLOG: i32 = 4096;
/// The pause after an accept that failed for want of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After `stop_grace`, for last replies to be read and for commits under way; then what is left is cut.
pub const STOP_LEAVE: Duration = Duration::from_secs(2);

/// What all listeners share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The relay's name in greetings.
    pub hostname: String,
    /// `[server] origin`: completes bare names in the envelope; `None`: bare senders stay, bare recipients are refused.
    pub origin: Option<String>,
    /// Reports are asked for here (RFC 3461): not where `[server] dsn` is off.
    pub dsn: bool,
    /// Checks passwords.
    pub authenticator: Arc<Authenticator>,
    /// Memory for messages in flight.
    pub budget: Arc<Budget>,
    /// Time limits.
    pub limits: Limits,
}

/// Time limits that no configuration key sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For the Gatekeeper's answer to MAIL and RCPT; then 451.
    pub ask_timeout: Duration,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// What a message may take before it must keep the pace of `data_octets_per_second_min`.
    pub data_grace: Duration,
    /// The slowest pace of content (Postfix: smtpd_min_data_rate).
    pub data_octets_per_second_min: u64,
    /// For the rest of a command behind a bare LF: then its client seems to wait, and is told.
    pub bare_lf_grace: Duration,
    /// For a whole connection.
    pub session_max: Duration,
    /// For content that keeps coming after a stop; then its client is told 421.
    pub stop_grace: Duration,
    /// For silence in content after a stop; then the same.
    pub stop_silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            ask_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(30),
            data_grace: Duration::from_secs(60),
            data_octets_per_second_min: 500,
            bare_lf_grace: Duration::from_secs(1),
            session_max: Duration::from_secs(24 * 3600),
            stop_grace: Duration::from_secs(23),
            stop_silence: Duration::from_secs(10),
        }
    }
}

/// Why a listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is not to be had.
    #[error("cannot listen on {address}: {error}; {advice}")]
    Address {
        /// Where.
        address: SocketAddr,
        /// In the system's words.
        error: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The certificate cannot be used.
    #[error("cannot listen on {address}: {error}")]
    Certificate {
        /// Where.
        address: SocketAddr,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// `tls` is on and there is no certificate.
    #[error("cannot listen on {address} with TLS: no certificate; set cert and key of this listener")]
    NoCertificate {
        /// Where.
        address: SocketAddr,
    },
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    manner: Manner,
    room: Arc<Room>,
}

/// What a listener goes by: its settings, its certificate, and what it shares with the others. A session keeps to the
/// one that it began with.
#[derive(Debug, Clone)]
pub struct Manner {
    rules: Arc<Rules>,
    shared: Shared,
    certificates: Option<Arc<Certificates>>,
}

/// A listener at work, as far as a reload changes it: what those go by who come from now on.
#[derive(Debug)]
pub struct Doorway<G> {
    context: ArcSwap<Context<G>>,
    room: Arc<Room>,
}

impl Manner {
    /// Reads the certificate. Errors: [`BindError::Certificate`], [`BindError::NoCertificate`].
    pub fn new(settings: ListenerSettings, shared: Shared) -> Result<Self, BindError> {
        let address = settings.address;
        let certificates = match (settings.tls, &settings.certificate) {
            (TlsMode::Off, _) => None,
            (TlsMode::StartTls | TlsMode::Implicit, None) => {
                return Err(BindError::NoCertificate { address });
            }
            (TlsMode::StartTls | TlsMode::Implicit, Some(files)) => Some(Arc::new(
                Certificates::load(files.clone())
                    .map_err(|error| BindError::Certificate { address, error })?,
            )),
        };
        let rules = Arc::new(Rules {
            settings,
            hostname: shared.hostname.clone(),
            origin: shared.origin.clone(),
            dsn: shared.dsn,
        });
        Ok(Manner { rules, shared, certificates })
    }

    /// Its certificate.
    pub fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    fn context<G>(self, gatekeeper: Arc<G>, refusals: Arc<Refusals>) -> Context<G> {
        let Manner { rules, shared, certificates } = self;
        Context { gatekeeper, shared, rules, certificates, refusals }
    }
}

impl<G> Doorway<G> {
    /// Whoever comes from now on goes by this, and is asked about at that keeper; who is in goes on as he began.
    pub fn change(&self, manner: Manner, gatekeeper: Arc<G>) {
        self.room.change(&manner.rules.settings);
        let refusals = Arc::clone(&self.context.load().refusals);
        self.context.store(Arc::new(manner.context(gatekeeper, refusals)));
    }

    /// Its certificate now.
    pub fn certificates(&self) -> Option<Arc<Certificates>> {
        self.context.load().certificates.clone()
    }

    /// Its settings now.
    pub fn settings(&self) -> ListenerSettings {
        self.context.load().rules.settings.clone()
    }
}

impl Listener {
    /// Binds the address and reads the certificate.
    pub fn bind(settings: ListenerSettings, shared: Shared) -> Result<Self, BindError> {
        let address = settings.address;
        let manner = Manner::new(settings, shared)?;
        let socket = listen(address).map_err(|error| BindError::Address {
            address,
            advice: advice(error.kind()),
            error,
        })?;
        let room = Room::of(&manner.rules.settings);
        Ok(Listener { socket, manner, room })
    }

    /// Where it really listens: port 0 was filled in.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// What a reload changes it by.
    pub fn doorway<G>(&self, gatekeeper: Arc<G>) -> Arc<Doorway<G>> {
        let context = self.manner.clone().context(gatekeeper, Arc::default());
        Arc::new(Doorway { context: ArcSwap::from_pointee(context), room: Arc::clone(&self.room) })
    }

    /// Serves until `stop`: then nobody is let in, who is between commands gets 421, a message half-way is taken to its
    /// reply while it moves. Returns when all sessions have ended, at the latest `stop_grace` and [`STOP_LEAVE`] later.
    pub async fn run<G: Gatekeeper>(self, doorway: Arc<Doorway<G>>, stop: CancellationToken) {
        let Listener { socket, manner: Manner { rules, shared, .. }, room } = self;
        let (name, stop_grace) = (rules.settings.name.clone(), shared.limits.stop_grace);
        let connections = metrics::gauge!(CONNECTIONS, "listener" => name.clone());
        let mut sessions = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = sessions.join_next() => note(ended),
                accepted = socket.accept(), if room.has_space(sessions.len()) => match accepted {
                    Ok((stream, peer)) => {
                        let context = doorway.context.load_full();
                        if let Some(guest) = admit(&room, &context, &stream, peer, &connections) {
                            sessions.spawn(serve(stream, context, guest));
                        }
                    }
                    Err(error) => accept_failed(&error, &room).await,
                },
            }
        }
        drop(socket);
        room.stop();
        let all = async {
            while let Some(ended) = sessions.join_next().await {
                note(ended)
            }
        };
        if tokio::time::timeout(stop_grace + STOP_LEAVE, all).await.is_err() {
            tracing::warn!(listener = %name, left = room.count(), "sessions cut at the stop");
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "another program listens there: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: give it, or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address: choose another",
        _ => "choose another address",
    }
}

/// Lets a client in, or tells it why not. Never waits.
fn admit<G>(
    room: &Arc<Room>,
    context: &Context<G>,
    stream: &TcpStream,
    peer: SocketAddr,
    connections: &Gauge,
) -> Option<Guest> {
    // Replies are written whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    match room.enter(canonical(peer.ip())) {
        Ok(guest) => Some(guest.counted(connections.clone())),
        Err(reply) => {
            context.refusals.newcomer(&context.rules.settings.name, canonical(peer.ip()), &reply);
            turn_away(context, stream, &reply);
            None
        }
    }
}

/// Under implicit TLS nothing can be said before the handshake, which would cost more than the client gets.
fn turn_away<G>(context: &Context<G>, stream: &TcpStream, reply: &Reply) {
    if context.rules.settings.tls != TlsMode::Implicit {
        let _ = stream.try_write(reply.wire().as_bytes());
    }
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn canonical(peer: IpAddr) -> IpAddr {
    peer.to_canonical()
}

/// A client that is gone again is nothing; no files or memory left is a reason to make room and wait a moment.
async fn accept_failed(error: &io::Error, room: &Room) {
    let gone = matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
    if gone || error.kind() == io::ErrorKind::Interrupted {
        return;
    }
    let made_room = room.make_room();
    tracing::error!(%error, made_room, "cannot accept a connection; raise the limit on open files");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// A session that panicked ends alone.
fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a session ended by a fault in the relay; please report it");
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
