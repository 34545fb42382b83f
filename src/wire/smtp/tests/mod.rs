//! The wire against scripted upstreams on real sockets.

mod content;
mod dialogue;
mod faults;
mod oauth;
mod reuse;
mod secure;
mod turns;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{Settings, SmtpWire, Tls};
use crate::address::{Address, Grammar};
use crate::mail::{
    Abort, Body, MessageId, Phase, Reply, Request, ReversePath, SmtpReply, SmtpRequest, Watch,
};
use crate::wire::{Chunks, Wire as _};
pub use upstream::{Heard, Upstream};

/// Everything up to MAIL, with PIPELINING.
const GREETING: &str = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250-PIPELINING\nS: 250 8BITMIME\n";
/// One message for one recipient.
const ONE: &str =
    "C: MAIL\nC: RCPT\nC: DATA\nS: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 354 go\n.\nS: 250 2.0.0 queued as A1\n";

/// A store without chunks.
#[derive(Debug)]
pub struct NoChunks;

impl Chunks for NoChunks {
    fn chunk(&self, _: MessageId, _: u32) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async { Err("no chunks here".into()) })
    }
}

fn settings(upstream: &Upstream) -> Settings {
    Settings {
        tls: Tls::Off,
        timeout: Duration::from_secs(10),
        data_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
        helo: "relay.example".into(),
        ..Settings::new("127.0.0.1", upstream.address.port())
    }
}

fn wire(settings: Settings) -> SmtpWire {
    SmtpWire::new(settings, Arc::new(NoChunks))
}

fn address(text: &str) -> Address {
    Address::parse(text, Grammar::Strict).unwrap()
}

fn request(recipients: &[&str], body: impl Into<Bytes>) -> SmtpRequest {
    SmtpRequest {
        sender: ReversePath::Mailbox(address("shop@example.org")),
        recipients: recipients.iter().map(|r| address(r)).collect(),
        body: Body::whole(body),
        smtputf8: false,
        reports: None,
    }
}

fn simple() -> SmtpRequest {
    request(&["a@example.com"], "Subject: hi\r\n\r\nhello\r\n")
}

async fn send(wire: &SmtpWire, request: SmtpRequest) -> Reply {
    wire.exchange(Request::Smtp(request), &Watch::new(Abort::default())).await
}

/// Sends over a new wire to scripts, and says goodbye.
async fn sent(scripts: &[&str], request: SmtpRequest) -> (Reply, Vec<Heard>) {
    let upstream = Upstream::plays(scripts).await;
    let wire = wire(settings(&upstream));
    let reply = send(&wire, request).await;
    wire.close().await;
    (reply, upstream.heard().await)
}

fn smtp(reply: Reply) -> SmtpReply {
    match reply {
        Reply::Smtp(smtp) => smtp,
        other => panic!("{other:?}"),
    }
}

/// Phase and code of the reply that ended it, and the recipients' codes.
fn codes(reply: Reply) -> (Phase, u16, Vec<u16>) {
    let smtp = smtp(reply);
    (smtp.phase, smtp.last.code, smtp.recipients.iter().map(|r| r.code).collect())
}

fn lost(reply: Reply) -> (Phase, bool, String) {
    match reply {
        Reply::Lost { phase, handed_over, said, .. } => (phase, handed_over, said),
        other => panic!("{other:?}"),
    }
}
