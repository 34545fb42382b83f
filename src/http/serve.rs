//! The HTTP port's connections: how many, how long, and how they end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::forwarded::client;
use super::secure::Secure;
use super::send::Peer;
use super::unread::Worded;
use super::visitors::{Asked, Visitor, Visitors};
use super::{Relay, Told, public_router, router};

/// Connections at a time; at the limit the one that has asked nothing for longest, or has been behind with an unproven
/// body for longest, makes room.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// A request's head, all of it however it trickles in, and the wait for the next one.
const HEAD_MAX: Duration = Duration::from_secs(10);
const HEAD_OCTETS_MAX: usize = 64 * 1024;
/// Then a connection ends after its present request, so that slow readers do not hold places for ever.
const CONNECTION_MAX: Duration = Duration::from_secs(300);
/// What that last request may take: the largest body at the slowest pace, and the work on it.
const LAST_REQUEST_MAX: Duration = Duration::from_secs(460);
/// What requests under way may take when the relay stops.
const STOP_MAX: Duration = Duration::from_secs(5);
/// After an accept that failed (no descriptors left): it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often histograms are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// Where it listens.
#[derive(Debug)]
pub struct SidePort {
    /// The socket.
    pub listener: TcpListener,
    /// HTTPS alone; `None`: HTTP alone.
    pub secure: Option<Arc<Secure>>,
}

/// What a port serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Every route.
    All,
    /// The webhooks alone.
    Webhooks,
}

/// Serves until `stop`, then lets requests under way end, for a bounded time.
pub async fn serve(
    relay: Relay,
    what: What,
    SidePort { listener, secure }: SidePort,
    stop: CancellationToken,
) {
    let metrics = relay.metrics.clone();
    let told = Arc::clone(&relay.told);
    let app = match what {
        What::All => router(relay, stop.clone()),
        What::Webhooks => public_router(relay, stop.clone()),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let visitors = Visitors::default();
    let connections = TaskTracker::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = upkeep.tick() => metrics.upkeep(),
            accepted = accept(&listener, &places, &visitors) => match accepted {
                Ok((stream, peer, place)) => {
                    let visitor = visitors.enter(peer.ip().to_canonical(), place);
                    let _ = stream.set_nodelay(true);
                    let serving = Serving { peer, app: app.clone(), told: Arc::clone(&told), visitor, stop: stop.clone() };
                    match secure.clone() {
                        None => connections.spawn(serving.run(stream)),
                        Some(secure) => connections.spawn(serving.run_secure(secure, stream)),
                    };
                }
                Err(error) => {
                    tracing::warn!(target: "postroad", %error, "the HTTP port cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.close();
    let _ = tokio::time::timeout(STOP_MAX, connections.wait()).await;
}

/// A place first, then the connection: both waits can be dropped without losing either.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    visitors: &Visitors,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = place(places, visitors).await?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// Where all are taken somebody is asked to leave; where nobody can be yet, or who was asked does not, somebody else is
/// a moment later.
async fn place(places: &Arc<Semaphore>, visitors: &Visitors) -> std::io::Result<OwnedSemaphorePermit> {
    loop {
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Ok(place);
        }
        let again = visitors.make_room();
        if let Ok(place) = tokio::time::timeout_at(again, Arc::clone(places).acquire_owned()).await {
            return place.map_err(std::io::Error::other);
        }
    }
}

/// One connection, and what it needs.
struct Serving {
    peer: SocketAddr,
    app: Router,
    told: Arc<ArcSwap<Told>>,
    visitor: Arc<Visitor>,
    stop: CancellationToken,
}

impl Serving {
    /// The handshake has the time of a request's head. Who is in it has asked nothing, and makes room as such.
    async fn run_secure(self, secure: Arc<Secure>, stream: TcpStream) {
        let secured = tokio::select! {
            secured = secure.handshake(stream) => secured,
            () = self.visitor.leave.cancelled() => return,
            () = self.stop.cancelled() => return,
            () = tokio::time::sleep(HEAD_MAX) => return,
        };
        match secured {
            Ok(stream) => self.run(stream).await,
            Err(error) => {
                tracing::debug!(target: "postroad", client = %self.peer.ip(), %error, "no TLS with a client of the HTTP port");
            }
        }
    }

    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Serving { peer, app, told, visitor, stop } = self;
        let inner = TowerToHyperService::new(app);
        let asking = Arc::clone(&visitor);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let who = client(peer.ip().to_canonical(), request.headers(), &told.load().proxies);
            asking.is(who);
            request.extensions_mut().insert(Peer(who));
            request.extensions_mut().insert(Arc::clone(&asking));
            let (asked, answer) = (Asked::new(&asking), inner.call(request));
            async move {
                let answer = answer.await;
                drop(asked);
                answer
            }
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .max_buf_size(HEAD_OCTETS_MAX)
            .serve_connection(TokioIo::new(Worded::new(stream)), service);
        tokio::pin!(serving);
        let last = tokio::select! {
            _ = serving.as_mut() => return,
            () = visitor.leave.cancelled() => visitor.leaves_within(),
            () = stop.cancelled() => STOP_MAX,
            () = tokio::time::sleep(CONNECTION_MAX) => LAST_REQUEST_MAX,
        };
        if last.is_zero() {
            // Not even the timer's millisecond: a crowd leaves one after the other.
            return;
        }
        serving.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(last, serving).await;
    }
}
