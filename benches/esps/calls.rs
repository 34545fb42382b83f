//! What a call costs: a message is composed, handed over and its answer read, without a queue.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postroad::address::{Address, Grammar};
use postroad::clock::Timestamp;
use postroad::esp::settings::{
    Access, EspKind, LineSettings, PostmarkSettings, SendgridRegion, SendgridSettings, SesSettings,
    SmtpEndpoint, SmtpEspSettings, SmtpTls, Transport,
};
use postroad::esp::{Esp, Parcel};
use postroad::mail::{
    Abort, AttemptId, Body, Envelope, Grant, Message, MessageId, Outcome, Protocol, ReversePath, Source,
    StreamKind, StreamName, Watch,
};
use postroad::relay::doors::{House, open};
use postroad::secret::Secret;
use postroad::wire::smtp::Tokens;
use postroad::wire::{NoChunks, Wire};

use super::{CALLS, Failure, content};

/// How an ESP is spoken to.
pub type Line = (Box<dyn Esp>, Arc<dyn Wire>);

/// A line of that kind.
pub fn line(kind: &EspKind) -> Arc<Line> {
    let tokens = |grant: &Grant| Arc::new(Tokens::new(grant.clone()));
    let house =
        House { hostname: "bench.example", own_reports: false, chunks: Arc::new(NoChunks), tokens: &tokens };
    Arc::new(open(kind, &house))
}

/// So many calls, [`CALLS`] at a time.
pub async fn run(line: &Arc<Line>, message: &Arc<Message>, count: usize) -> Result<(), Failure> {
    let left = Arc::new(AtomicUsize::new(count));
    let calls = (0..CALLS).map(|_| {
        let (line, message, left) = (Arc::clone(line), Arc::clone(message), Arc::clone(&left));
        tokio::spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                call(&line, &message, left.load(Ordering::Relaxed)).await?;
            }
            Ok::<(), Failure>(())
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await??;
    }
    Ok(())
}

async fn call((esp, wire): &Line, message: &Message, n: usize) -> Result<(), Failure> {
    let parcel = Parcel {
        message,
        whole: Some(&message.body.head),
        recipients: &message.envelope.recipients,
        attempt: AttemptId::from_number(i64::try_from(n)?),
    };
    let request = esp.compose(parcel, Timestamp::from_millis(0)).map_err(|unfit| unfit.0)?;
    let watch = Watch::new(Abort::default());
    let reply = wire.exchange(request, &watch).await;
    let outcomes = esp.read(parcel, &reply, Timestamp::from_millis(0));
    match &outcomes[..] {
        [Outcome::Accepted { .. }] => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

/// The ESPs, each by its API at that sink, after the plain upstream.
pub fn kinds(smtp: SocketAddr, http: SocketAddr) -> Vec<(&'static str, EspKind)> {
    let lines = LineSettings {
        max_connections: CALLS,
        messages_per_connection: 1_000_000,
        ..LineSettings::default()
    };
    let access = Access {
        transport: Transport::Api,
        endpoint: Some(format!("http://{http}")),
        smtp_endpoint: None,
        ca_file: None,
        envelope_from: None,
        lines,
    };
    let endpoint = SmtpEndpoint { host: smtp.ip().to_string(), port: smtp.port(), tls: SmtpTls::Off };
    let by_smtp = SmtpEspSettings {
        login: None,
        ..Access { smtp_endpoint: Some(endpoint.clone()), ..access.clone() }.smtp(
            endpoint,
            String::new(),
            Secret::new(""),
        )
    };
    let secret = || Secret::new("a-key-of-a-benchmark");
    vec![
        ("smtp", EspKind::Smtp(by_smtp)),
        (
            "sendgrid",
            EspKind::Sendgrid(SendgridSettings {
                access: access.clone(),
                api_key: secret(),
                region: SendgridRegion::Global,
            }),
        ),
        (
            "postmark",
            EspKind::Postmark(PostmarkSettings {
                access: access.clone(),
                server_token: secret(),
                transactional: "outbound".into(),
                broadcast: "broadcast".into(),
            }),
        ),
        (
            "ses",
            EspKind::Ses(SesSettings {
                access,
                region: "eu-central-1".into(),
                keys: Some(("AKIDEXAMPLE".into(), secret())),
                configuration_set: None,
            }),
        ),
    ]
}

/// The message as the relay has it.
pub fn message() -> Result<Arc<Message>, Failure> {
    let recipient = Address::parse("jane@example.org", Grammar::Strict)?;
    let sender = Address::parse("shop@example.com", Grammar::Strict)?;
    Ok(Arc::new(Message {
        id: MessageId::from_number(1),
        envelope: Envelope {
            sender: ReversePath::Mailbox(sender),
            recipients: vec![recipient],
            body: Default::default(),
            smtputf8: false,
            reports: None,
        },
        stream: StreamName::new(StreamName::TRANSACTIONAL),
        kind: StreamKind::Transactional,
        body: Body::whole(content()),
        accepted_at: Timestamp::from_millis(0),
        expires_at: Timestamp::from_millis(0),
        tags: vec!["receipt".into()],
        metadata: vec![("order".into(), "7".into())],
        pin: None,
        source: Source {
            listener: "bench".into(),
            peer: std::net::Ipv4Addr::LOCALHOST.into(),
            helo: "bench".into(),
            credential: None,
            protocol: Protocol::Smtp,
        },
    }))
}
