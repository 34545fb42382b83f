//! The HTTP client that the SDK is given: the relay's own.

use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Url};
use tokio::time::timeout;

use crate::mail::{HttpReply, Phase, Reply, Watch};
use crate::secret::{Blot, Secret};
use crate::wire::http::{Client, HandOver, Patience, Watched, lost, read, send, told};

/// The credentials of a role are in this field of every request that they sign.
const TOKEN_FIELD: &str = "x-amz-security-token";

/// What goes with one of the SDK's requests: who watches it, and where its reply is laid down as it came.
#[derive(Clone, Debug)]
pub(super) struct Ride {
    watch: Option<Watch>,
    hand_over: HandOver,
    reply: Arc<OnceLock<Reply>>,
}

impl Ride {
    /// For one that carries mail.
    pub(super) fn watched(watch: Watch) -> Self {
        Ride { watch: Some(watch), hand_over: HandOver::default(), reply: Arc::default() }
    }

    /// For one that asks.
    pub(super) fn unwatched() -> Self {
        Ride { watch: None, hand_over: HandOver::default(), reply: Arc::default() }
    }

    /// What came back; `None`: nothing has left.
    pub(super) fn reply(&self) -> Option<Reply> {
        self.reply.get().cloned()
    }

    /// Gives it up; `None`: it may be handed over, and is listened to.
    pub(super) fn gives_up(&self) -> Option<Reply> {
        let phase = if self.hand_over.begun() { Phase::Body } else { Phase::Connect };
        self.hand_over.withdraw().then(|| lost(phase, false, "given up by the relay".to_owned()))
    }
}

/// See the module. A clone is the same client.
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    client: Arc<Client>,
    patience: Duration,
}

impl Carrier {
    /// Trusts `ca_file` alone, or the platform's CAs; waits for `patience` where nothing moves.
    pub(super) fn new(ca_file: Option<PathBuf>, connections: usize, patience: Duration) -> Self {
        Carrier { client: Arc::new(Client::new(ca_file, connections, patience)), patience }
    }
}

impl HttpClient for Carrier {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let told = settings.connect_timeout().into_iter().chain(settings.read_timeout());
        let told: Duration = told.sum();
        let within = if told.is_zero() { self.patience } else { told };
        SharedHttpConnector::new(Line { carrier: self.clone(), within })
    }
}

/// Where the SDK's requests leave.
#[derive(Clone, Debug)]
struct Line {
    carrier: Carrier,
    /// For what nobody watches, all in all.
    within: Duration,
}

impl HttpConnector for Line {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let line = self.clone();
        HttpConnectorFuture::new(async move { line.carry(request).await })
    }
}

impl Line {
    async fn carry(&self, mut request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let ride = request.extension::<Ride>().cloned();
        let token = request.headers().get(TOKEN_FIELD).map(Secret::new);
        let body = request.take_body();
        let reply = match (octets(body).await, written(&request)) {
            (Ok(body), Ok(request)) => self.exchange(request, body, ride.as_ref()).await,
            (Err(why), _) | (_, Err(why)) => lost(Phase::Connect, false, why),
        };
        let blot = Blot::of_all(token.as_ref());
        let reply = reply.with_words(|words| blot.out(words));
        let answer = answer(&reply);
        if let Some(ride) = ride {
            // One ride, one request: the SDK tries none twice.
            let _ = ride.reply.set(reply);
        }
        answer
    }

    async fn exchange(&self, mut request: reqwest::Request, body: Bytes, ride: Option<&Ride>) -> Reply {
        let client = match self.carrier.client.get().await {
            Ok(client) => client,
            Err(why) => return lost(Phase::Connect, false, why),
        };
        match ride {
            Some(Ride { watch: Some(watch), hand_over, .. }) => {
                watch.moved();
                let body = Watched::new(body, watch.clone(), hand_over.clone());
                *request.body_mut() = Some(reqwest::Body::wrap(body));
                let patience = Patience { usual: self.carrier.patience, told_by_head: None };
                send(client, request, watch, hand_over, patience).await
            }
            _ => {
                *request.body_mut() = Some(body.into());
                self.ask(client, request).await
            }
        }
    }

    /// What carries no mail, and may be dropped at any moment.
    async fn ask(&self, client: &reqwest::Client, request: reqwest::Request) -> Reply {
        let asking = async {
            match client.execute(request).await {
                Ok(answer) => Reply::Http(read(answer, pending()).await),
                Err(error) if error.is_connect() => lost(Phase::Connect, false, told(&error)),
                Err(error) => lost(Phase::Answer, false, told(&error)),
            }
        };
        let late = |_| lost(Phase::Answer, false, format!("no answer for {:.0?}", self.within));
        timeout(self.within, asking).await.unwrap_or_else(late)
    }
}

/// All of a body: the SDK has it in memory.
async fn octets(body: SdkBody) -> Result<Bytes, String> {
    let collected = body.collect().await.map_err(|error| format!("its body cannot be read: {error}"))?;
    Ok(collected.to_bytes())
}

/// The request as the SDK wrote it, without its body.
fn written(request: &HttpRequest) -> Result<reqwest::Request, String> {
    let bad = |what: &str| format!("{what} cannot be written into a request");
    let url = Url::parse(request.uri()).map_err(|_| bad(request.uri()))?;
    let method = Method::from_bytes(request.method().as_bytes()).map_err(|_| bad("its method"))?;
    let mut written = reqwest::Request::new(method, url);
    for (name, value) in request.headers() {
        let field = HeaderName::try_from(name).map_err(|_| bad(name))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| bad(name))?;
        value.set_sensitive(matches!(name, "authorization" | TOKEN_FIELD));
        written.headers_mut().append(field, value);
    }
    Ok(written)
}

/// What the SDK is told of it.
fn answer(reply: &Reply) -> Result<HttpResponse, ConnectorError> {
    match reply {
        Reply::Http(HttpReply { status, headers, body, .. }) => {
            let status = StatusCode::try_from(*status).map_err(|e| ConnectorError::other(e.into(), None))?;
            let mut answer = HttpResponse::new(status, SdkBody::from(body.clone()));
            for (name, value) in headers {
                // One that is no header is none of the SDK's.
                let _ = answer.headers_mut().try_append(name.clone(), value.clone());
            }
            Ok(answer)
        }
        Reply::Lost { said, .. } => Err(ConnectorError::io(said.clone().into())),
        Reply::Smtp(_) | Reply::Unfit { .. } | Reply::Kept => {
            Err(ConnectorError::other("this line speaks HTTP".into(), None))
        }
    }
}
