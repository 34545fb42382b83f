//! HTTP towards an ESP's API: one exchange is one POST, over HTTP/1.1.
//!
//! Promise: `Lost { handed_over: false }` means that the last octets of the body were never given to the connection
//! (see `hand_over`). A kept connection is used again only if it was idle for less than [`REUSED_WITHIN`]: a server
//! that closes it at that instant cannot be told from a lost answer. Nothing is sent twice, no redirect is followed and
//! no proxy is asked.

mod hand_over;
#[cfg(test)]
mod tests;

use std::future::pending;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{sleep, sleep_until, timeout};

pub use hand_over::{HandOver, Watched};

use super::trust::{client_config, hint};
use super::{CHECK, CHECK_FOR_PEOPLE, Checked, Step, Wire};
use crate::clock::monotonic;
use crate::mail::{Errand, HttpErrand, HttpReply, HttpRequest, Phase, Reply, Request, Verb, Watch};
use crate::secret::{Blot, Secret};

/// See the module.
pub const REUSED_WITHIN: Duration = Duration::from_secs(3);
/// Whether an API that gave no answer takes connections is seen in so long.
const CONNECT: Duration = Duration::from_secs(1);
/// The end of an answer whose head came at the last moment has so long.
const END_OF_ANSWER: Duration = Duration::from_secs(1);
/// The body of an answer that is told by its head has so long, for the connection's sake: it can be used again behind it.
const UNWANTED_BODY: Duration = Duration::from_millis(100);
/// More fields of an answer than these are left unread.
const FIELDS_MAX: usize = 100;
/// More causes of an error than these are not told.
const CAUSES_MAX: usize = 6;

/// How one ESP's API is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `https://api.example.net`, without a `/` at its end.
    pub base: String,
    /// The field that proves who asks.
    pub key: Key,
    /// Fields of every request that are no secret.
    pub fields: Vec<(&'static str, &'static str)>,
    /// PEM of the CA that signed its certificate; then no public CA counts.
    pub ca_file: Option<PathBuf>,
    /// Connections that are kept. The caller runs no more exchanges than this at a time.
    pub max_connections: usize,
    /// Connect and TLS, each stretch of a body that does not move, and the whole answer.
    pub timeout: Duration,
    /// How the key is tried without mail.
    pub probe: Probe,
}

/// `Authorization: Bearer KEY`, or whatever the ESP calls it.
#[derive(Debug, Clone)]
pub struct Key {
    /// The field's name, in lower case.
    pub field: &'static str,
    /// What stands before the secret.
    pub scheme: &'static str,
    /// The secret.
    pub secret: Secret,
}

/// A GET that shows whether the key is good.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// After the base.
    pub path: &'static str,
    /// What its answer means: what works, or what does not.
    pub judge: fn(&HttpReply) -> Result<String, String>,
}

/// One ESP's API.
#[derive(Debug)]
pub struct HttpWire {
    settings: Settings,
    client: Client,
    blot: Blot,
    /// A path, its URL, and the fields of every request.
    alike: OnceLock<(&'static str, Url, HeaderMap)>,
}

impl HttpWire {
    /// A wire to that API. Nothing is opened or loaded before the first exchange.
    pub fn new(settings: Settings) -> Self {
        let blot = Blot::of_all([&settings.key.secret]);
        let client = Client::new(settings.ca_file.clone(), settings.max_connections, settings.timeout);
        HttpWire { settings, client, blot, alike: OnceLock::new() }
    }

    async fn post(&self, request: HttpRequest, watch: &Watch) -> Reply {
        let hand_over = HandOver::default();
        let body = Watched::new(request.body, watch.clone(), hand_over.clone());
        let client = match self.client.get().await {
            Ok(client) => client,
            Err(why) => return lost(Phase::Connect, false, why),
        };
        let mut asked = match self.asked(request.path) {
            Ok(asked) => asked,
            Err(why) => return lost(Phase::Connect, false, why),
        };
        for (name, value) in &request.headers {
            let Ok(value) = HeaderValue::try_from(value) else {
                return lost(Phase::Connect, false, format!("{name} cannot be written into a request"));
            };
            asked.headers_mut().insert(HeaderName::from_static(name), value);
        }
        *asked.body_mut() = Some(reqwest::Body::wrap(body));
        let patience = Patience { usual: self.settings.timeout, told_by_head: request.told_by_head };
        send(client, asked, watch, &hand_over, patience).await
    }

    /// A POST to that path with the fields of every request; what is alike for all of them is read once.
    fn asked(&self, path: &'static str) -> Result<reqwest::Request, String> {
        let (url, fields) = match self.alike.get() {
            Some((known, url, fields)) if *known == path => (url.clone(), fields.clone()),
            _ => {
                let url = Url::parse(&format!("{}{path}", self.settings.base))
                    .map_err(|_| format!("{} is no URL", self.settings.base))?;
                let fields = self.fields()?;
                // Another call may have come first, with the same.
                let _ = self.alike.set((path, url.clone(), fields.clone()));
                (url, fields)
            }
        };
        let mut asked = reqwest::Request::new(Method::POST, url);
        *asked.headers_mut() = fields;
        Ok(asked)
    }

    fn fields(&self) -> Result<HeaderMap, String> {
        let mut fields = HeaderMap::new();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in &self.settings.fields {
            fields.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let Key { field, scheme, secret } = &self.settings.key;
        let bad = |_| "the key has characters that no key has; write it anew".to_owned();
        let mut value = HeaderValue::try_from(format!("{scheme}{}", secret.expose())).map_err(bad)?;
        value.set_sensitive(true);
        fields.insert(HeaderName::from_static(field), value);
        Ok(fields)
    }

    async fn run(&self, errand: HttpErrand) -> Result<HttpReply, String> {
        let client = self.client.get().await?;
        let method = match errand.verb {
            Verb::Get => Method::GET,
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
            Verb::Patch => Method::PATCH,
        };
        let url = format!("{}{}", self.settings.base, errand.path);
        let mut request = client.request(method, url).headers(self.fields()?);
        if let Some(body) = errand.body {
            request = request.body(body);
        }
        let answer = request.send().await.map_err(|error| told(&error))?;
        Ok(read(answer, pending()).await)
    }

    async fn probed(&self) -> Result<HttpReply, (&'static str, String)> {
        let client = self.client.get().await.map_err(|why| ("connect", why))?;
        let fields = self.fields().map_err(|why| ("key", why))?;
        let url = format!("{}{}", self.settings.base, self.settings.probe.path);
        let answer = client.get(url).headers(fields).send().await;
        let answer =
            answer.map_err(|error| (if error.is_connect() { "connect" } else { "answer" }, told(&error)))?;
        Ok(read(answer, pending()).await)
    }
}

impl Wire for HttpWire {
    fn exchange<'a>(&'a self, request: Request, watch: &'a Watch) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let reply = match request {
                Request::Http(request) => self.post(request, watch).await,
                Request::Smtp(_) | Request::Ses(_) | Request::Keep => {
                    lost(Phase::Connect, false, "this is an HTTP line".to_owned())
                }
            };
            reply.with_words(|words| self.blot.out(words))
        })
    }

    fn answers_within(&self, _: &Request) -> Duration {
        self.settings.timeout
    }

    fn errand(&self, errand: Errand) -> BoxFuture<'_, Result<HttpReply, String>> {
        Box::pin(async move {
            let Errand::Http(errand) = errand else { return Err("this is an HTTP line".to_owned()) };
            let within = CHECK_FOR_PEOPLE.min(self.settings.timeout);
            let late = |_| Err(format!("no answer for {within:.0?}"));
            let done = timeout(within, self.run(errand)).await.unwrap_or_else(late);
            done.map(|reply| reply.with_words(|words| self.blot.out(words)))
                .map_err(|why| self.blot.out(&why).into_owned())
        })
    }

    fn check(&self) -> BoxFuture<'_, Checked> {
        Box::pin(self.checked(CHECK))
    }

    fn check_all(&self) -> BoxFuture<'_, Checked> {
        Box::pin(self.checked(CHECK_FOR_PEOPLE))
    }
}

impl HttpWire {
    async fn checked(&self, most: Duration) -> Checked {
        let Settings { base, probe, timeout, .. } = &self.settings;
        check(base, probe.judge, &self.blot, self.probed(), most.min(*timeout)).await
    }
}

/// How far `probing` came `within` that time, a request that shows whether the key is good: its answer, or the step that
/// failed and why.
pub(super) async fn check(
    base: &str,
    judge: fn(&HttpReply) -> Result<String, String>,
    blot: &Blot,
    probing: impl Future<Output = Result<HttpReply, (&'static str, String)>>,
    within: Duration,
) -> Checked {
    let began = monotonic();
    let probed = timeout(within, probing).await;
    let took = monotonic().duration_since(began);
    let blotted = |words: String| blot.out(&words).into_owned();
    let step = |name, ok, told: &str| Step { name, ok, told: told.to_owned(), took };
    let failed = |name: &'static str, why: String| {
        let reached = (name == "answer").then(|| step("connect", true, &format!("{base} takes connections")));
        let steps = reached.into_iter().chain([step(name, false, &why)]).collect();
        Checked { steps, met: Err(why), in_part: false }
    };
    match probed {
        Err(_) => {
            let name = if takes_connections(base).await { "answer" } else { "connect" };
            failed(name, format!("no answer for {within:.0?}"))
        }
        Ok(Err((name, why))) => failed(name, blotted(why)),
        Ok(Ok(reply)) => {
            let judged = judge(&reply).map(blotted).map_err(blotted);
            let told = judged.as_ref().unwrap_or_else(|why| why);
            let reached = step("connect", true, &format!("{base} answers"));
            let key = step("key", judged.is_ok(), told);
            Checked { steps: vec![reached, key], met: judged.map(drop), in_part: false }
        }
    }
}

/// Whether it is there at all: what else it lacked was said, or left unsaid, on a line that stood.
async fn takes_connections(base: &str) -> bool {
    let Ok(url) = Url::parse(base) else { return false };
    let Some((host, port)) = url.host_str().zip(url.port_or_known_default()) else { return false };
    let host = host.trim_matches(['[', ']']);
    matches!(timeout(CONNECT, TcpStream::connect((host, port))).await, Ok(Ok(_)))
}

/// How long an exchange waits.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For each stretch in which nothing moves, and for the whole answer.
    pub usual: Duration,
    /// See [`HttpRequest::told_by_head`].
    pub told_by_head: Option<u16>,
}

/// Sends one request and listens, until its answer is there, nothing moved for as long as usual, or it is asked to end
/// before the hand-over; after that it listens for as long as its watch does. The answer has that time for all of it,
/// however it comes: pieces of it do not count as movement, so that one that trickles is seen to hang.
pub async fn send(
    client: &reqwest::Client,
    request: reqwest::Request,
    watch: &Watch,
    hand_over: &HandOver,
    patience: Patience,
) -> Reply {
    let executing = client.execute(request);
    tokio::pin!(executing);
    let limit = || if hand_over.done() { watch.listens_for(patience.usual) } else { patience.usual };
    loop {
        let left = limit().saturating_sub(watch.still_for());
        let mut unheard = false;
        let why = tokio::select! {
            biased;
            answer = &mut executing => return answered(answer, watch, hand_over, patience).await,
            () = watch.asked(), if !hand_over.done() => {
                format!("given up by the relay, nothing moved for {:.1?}", watch.still_for())
            }
            () = watch.unheard() => {
                unheard = true;
                "listened to no longer".to_owned()
            }
            () = sleep(left) => {
                if watch.still_for() < limit() {
                    continue;
                }
                format!("nothing moved for {} s", limit().as_secs())
            }
        };
        if hand_over.withdraw() {
            let phase = if hand_over.begun() { Phase::Body } else { Phase::Connect };
            return lost(phase, false, why);
        }
        if unheard || watch.still_for() >= limit() {
            return lost(Phase::Answer, true, why);
        }
    }
}

async fn answered(
    answer: reqwest::Result<reqwest::Response>,
    watch: &Watch,
    hand_over: &HandOver,
    patience: Patience,
) -> Reply {
    let silent_for = watch.still_for();
    watch.moved();
    match answer {
        Ok(answer) => {
            let end = monotonic() + body_time(answer.status(), silent_for, watch, patience);
            let until = async {
                tokio::select! {
                    () = sleep_until(end) => {}
                    () = watch.unheard() => {}
                }
            };
            let reply = read(answer, until).await;
            // An answer that came before the end of the request: whatever is left of it stays unwritten.
            hand_over.withdraw();
            Reply::Http(reply)
        }
        Err(error) if error.is_connect() => lost(Phase::Connect, false, told(&error)),
        Err(error) if hand_over.withdraw() => lost(Phase::Body, false, told(&error)),
        Err(error) => lost(Phase::Answer, true, told(&error)),
    }
}

/// How long the body of an answer is waited for, whose head came after `silent_for`. That of a success tells whether, and
/// for whom, the mail was taken: it is listened to for as long as an answer is of which nothing has come yet.
fn body_time(status: StatusCode, silent_for: Duration, watch: &Watch, patience: Patience) -> Duration {
    if patience.told_by_head == Some(status.as_u16()) {
        return UNWANTED_BODY;
    }
    let usual = match patience.usual.checked_sub(silent_for) {
        Some(left) => left.max(END_OF_ANSWER),
        // It was late, and held meanwhile: nothing hurries any more.
        None => patience.usual,
    };
    match watch.handed_over_for().filter(|_| status.is_success()) {
        Some(since) => watch.listens_for(patience.usual).saturating_sub(since).max(usual),
        None => usual,
    }
}

/// Reads an answer to its end, at most [`HttpReply::BODY_OCTETS_MAX`], and no longer than `until`.
pub(super) async fn read(mut answer: reqwest::Response, until: impl Future<Output = ()>) -> HttpReply {
    let status = answer.status().as_u16();
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let headers = answer.headers().iter().take(FIELDS_MAX).map(field).collect();
    let mut body = BytesMut::new();
    let mut cut = false;
    tokio::pin!(until);
    while body.len() < HttpReply::BODY_OCTETS_MAX {
        let piece = tokio::select! {
            biased;
            piece = answer.chunk() => piece.ok(),
            () = &mut until => None,
        };
        match piece {
            Some(Some(piece)) => {
                body.extend_from_slice(&piece[..piece.len().min(HttpReply::BODY_OCTETS_MAX - body.len())]);
            }
            Some(None) => break,
            None => {
                cut = true;
                break;
            }
        }
    }
    HttpReply { status, headers, body: Bytes::from(body), cut }
}

pub(super) fn lost(phase: Phase, handed_over: bool, said: String) -> Reply {
    Reply::Lost { phase, handed_over, recipients: Vec::new(), said }
}

/// What caused the error, without the URL, and what to do where that is known.
pub(super) fn told(error: &reqwest::Error) -> String {
    let words = causes(std::error::Error::source(error));
    let hint = hint(&words);
    if words.is_empty() { "the request failed".to_owned() } else { words + hint }
}

/// An error and what caused it, each once, in a few words.
pub(super) fn causes(mut cause: Option<&dyn std::error::Error>) -> String {
    let mut words: Vec<String> = Vec::new();
    while let Some(error) = cause.filter(|_| words.len() < CAUSES_MAX) {
        let text = error.to_string();
        if words.last() != Some(&text) {
            words.push(text);
        }
        cause = error.source();
    }
    words.join(": ")
}

/// The HTTP client of one ESP, made at its first use: loading CAs takes time, and not every relay needs them.
pub struct Client {
    made: OnceCell<reqwest::Client>,
    ca_file: Option<PathBuf>,
    idle_max: usize,
    timeout: Duration,
}

impl Client {
    /// Trusts `ca_file` alone, or the platform's CAs; keeps at most `idle_max` connections.
    pub fn new(ca_file: Option<PathBuf>, idle_max: usize, timeout: Duration) -> Self {
        Client { made: OnceCell::new(), ca_file, idle_max, timeout }
    }

    /// The client; what failed to load is tried again by the next exchange.
    pub async fn get(&self) -> Result<&reqwest::Client, String> {
        self.made.get_or_try_init(|| self.make()).await
    }

    async fn make(&self) -> Result<reqwest::Client, String> {
        let tls = client_config(self.ca_file.clone()).await?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .tcp_nodelay(true)
            .connect_timeout(self.timeout)
            .pool_idle_timeout(REUSED_WITHIN)
            .pool_max_idle_per_host(self.idle_max)
            .user_agent(concat!("postroad/", env!("CARGO_PKG_VERSION")))
            .build();
        client.map_err(|error| told(&error))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}
