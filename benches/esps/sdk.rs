//! Amazon's SDK as an app would use it: `SendEmail` in a loop, with the SDK's own settings, on a reqwest client as the relay
//! has one. Nothing is parsed, judged or written down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_sesv2::primitives::Blob;
use aws_sdk_sesv2::types::{Destination, EmailContent, MessageTag, RawMessage};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt as _;

use super::{CALLS, Failure, content};

/// A client of that sink.
pub fn client(at: SocketAddr) -> Result<Client, Failure> {
    let http = reqwest::Client::builder()
        .http1_only()
        .no_proxy()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(CALLS)
        .build()?;
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "a-key-of-a-benchmark", None, None, "bench"))
        .endpoint_url(format!("http://{at}"))
        .http_client(Http(http))
        .build();
    Ok(Client::from_conf(config))
}

/// So many calls, [`CALLS`] at a time.
pub async fn run(client: &Arc<Client>, count: usize) -> Result<(), Failure> {
    let left = Arc::new(AtomicUsize::new(count));
    let content: Arc<[u8]> = content().into_bytes().into();
    let calls = (0..CALLS).map(|_| {
        let (client, content, left) = (Arc::clone(client), Arc::clone(&content), Arc::clone(&left));
        tokio::spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                call(&client, &content, left.load(Ordering::Relaxed)).await?;
            }
            Ok::<(), Failure>(())
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await??;
    }
    Ok(())
}

async fn call(client: &Client, content: &[u8], n: usize) -> Result<(), Failure> {
    let raw = RawMessage::builder().data(Blob::new(content)).build()?;
    let sent = client
        .send_email()
        .destination(Destination::builder().to_addresses("jane@example.org").build())
        .content(EmailContent::builder().raw(raw).build())
        .email_tags(MessageTag::builder().name("order").value(n.to_string()).build()?)
        .send()
        .await?;
    sent.message_id().map(drop).ok_or_else(|| "no MessageId came back".into())
}

/// What carries its requests.
#[derive(Clone, Debug)]
struct Http(reqwest::Client);

impl HttpClient for Http {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            carry(&client, request).await.map_err(|error| ConnectorError::other(error, None))
        })
    }
}

async fn carry(client: &reqwest::Client, mut request: HttpRequest) -> Result<HttpResponse, Failure> {
    let body = request.take_body().collect().await?.to_bytes();
    let mut asked = client.request(request.method().parse()?, request.uri()).body(body);
    for (name, value) in request.headers() {
        asked = asked.header(name, value);
    }
    let answer = asked.send().await?;
    let status = StatusCode::try_from(answer.status().as_u16())?;
    Ok(HttpResponse::new(status, SdkBody::from(answer.bytes().await?)))
}
