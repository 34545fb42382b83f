//! The server's side of SMTP: framing, grammar, session, TLS and AUTH. Not policy: it asks a [`Gatekeeper`].

use std::future::Future;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::IpNet;

use crate::address::Address;
use crate::mail::{Body, Envelope, MessageId, Protocol, ReversePath, StreamName, Terms};
use crate::secret::Secret;

pub mod auth;
pub mod command;
mod connection;
pub mod content;
pub mod data;
mod hashes;
mod io;
pub mod line;
pub mod listener;
pub mod path;
mod refusals;
pub mod replay;
pub mod reply;
pub mod room;
pub mod sasl;
pub mod session;
pub mod tls;

#[cfg(test)]
pub(crate) mod testing;

pub use auth::{Authenticator, Granted};
pub use listener::{BindError, Doorway, Limits, Listener, Manner, STOP_LEAVE, Shared};
pub use reply::Reply;
pub use tls::CertificateError;

/// One `[[listener]]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerSettings {
    /// Its name in logs and metrics: the address as it is written.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// TLS on this listener.
    pub tls: TlsMode,
    /// PEM files: certificate chain and key. Set where `tls` is not off.
    pub certificate: Option<CertificateFiles>,
    /// Whether clients authenticate.
    pub auth: AuthMode,
    /// Offer AUTH without TLS also off loopback.
    pub auth_plaintext: bool,
    /// Who may relay without AUTH.
    pub allow: Vec<IpNet>,
    /// The stream of all mail that comes in here.
    pub stream: Option<StreamName>,
    /// What a bare CR or LF in content does.
    pub bare_newline: BareNewline,
    /// RFC 5321 grammar only.
    pub strict_envelope: bool,
    /// Connections at a time; past it the longest-idle client without an accepted recipient makes room.
    pub max_connections: usize,
    /// Of these from one address.
    pub max_connections_per_address: usize,
    /// Whether that holds on loopback too: only where it was asked for, since all local apps share that address.
    pub loopback_per_address: bool,
    /// SIZE.
    pub max_message_size_octets: u64,
    /// Recipients a message.
    pub max_recipients: usize,
    /// Errors a connection.
    pub max_errors: u32,
    /// Silence a connection may keep.
    pub idle_timeout: Duration,
    /// What it binds its clients to.
    pub terms: Arc<Terms>,
}

impl ListenerSettings {
    /// The defaults that the manual names, at `address`.
    pub fn at(address: SocketAddr) -> Self {
        let net = |ip: IpAddr, prefix| IpNet::new(ip, prefix).ok();
        ListenerSettings {
            name: address.to_string(),
            address,
            tls: TlsMode::Off,
            certificate: None,
            auth: AuthMode::Off,
            auth_plaintext: false,
            allow: net(IpAddr::from([127, 0, 0, 0]), 8)
                .into_iter()
                .chain(net(Ipv6Addr::LOCALHOST.into(), 128))
                .collect(),
            stream: None,
            bare_newline: BareNewline::Reject,
            strict_envelope: false,
            max_connections: 1000,
            max_connections_per_address: 50,
            loopback_per_address: false,
            max_message_size_octets: 25_000_000,
            max_recipients: 1000,
            max_errors: 20,
            idle_timeout: Duration::from_secs(300),
            terms: Arc::default(),
        }
    }
}

/// `tls = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// None.
    Off,
    /// After STARTTLS.
    StartTls,
    /// From the first octet (RFC 8314).
    Implicit,
}

/// `auth = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Not offered.
    Off,
    /// Offered; `allow` still holds for who does not.
    Optional,
    /// Nothing without it.
    Required,
}

/// `bare_newline = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareNewline {
    /// 550 5.6.11.
    Reject,
    /// Taken as CRLF.
    Normalize,
}

/// Where a listener's certificate lies; read again when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM chain, leaf first.
    pub chain: PathBuf,
    /// PEM key.
    pub key: PathBuf,
}

/// One `[[credential]]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Credential {
    /// The user name.
    pub username: String,
    /// How its password is checked.
    pub password: Password,
    /// The stream that it binds.
    pub stream: Option<StreamName>,
    /// The one ESP that may carry its mail.
    pub esp: Option<String>,
    /// What it binds its clients to.
    pub terms: Arc<Terms>,
}

/// A password to compare with.
#[derive(Debug, Clone, PartialEq)]
pub enum Password {
    /// The text itself.
    Plain(Secret),
    /// An argon2 hash in PHC form.
    Hash(Secret),
}

/// The client of a session, as far as it has shown itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The listener's name.
    pub listener: String,
    /// Where it comes from.
    pub peer: IpAddr,
    /// What it called itself.
    pub helo: String,
    /// How it speaks.
    pub protocol: Protocol,
    /// Its user name, and what its credential binds.
    pub credential: Option<Granted>,
    /// The stream of its listener.
    pub listener_stream: Option<StreamName>,
    /// What it is bound to.
    pub terms: Arc<Terms>,
    /// The sender as it named him, where another stands in his place.
    pub named: Option<Address>,
    /// On loopback, in `allow`, or authenticated: it is told reasons (STANDARDS §1.7).
    pub trusted: bool,
}

/// Who decides what the session may not: one question at a time, each answered by a reply.
pub trait Gatekeeper: Send + Sync + 'static {
    /// `MAIL FROM`, with the size that was announced.
    fn sender(
        &self,
        client: &Client,
        sender: &ReversePath,
        announced_octets: Option<u64>,
    ) -> impl Future<Output = Reply> + Send;

    /// `RCPT TO`; asked once for each distinct recipient.
    fn recipient(&self, client: &Client, recipient: &Address) -> impl Future<Output = Reply> + Send;

    /// A client was told to send its content: a message is some hundred microseconds away, or never comes.
    fn expect(&self) {}

    /// A piece of a body that outgrew memory: written down before more is read. The first piece of a message comes
    /// without an id and gets one; pieces are numbered from 0.
    fn spill(
        &self,
        message: Option<MessageId>,
        piece: u32,
        octets: Bytes,
    ) -> impl Future<Output = Result<MessageId, Reply>> + Send;

    /// The whole message; the pieces that were spilled for it are the Gatekeeper's from here on, also when it refuses.
    /// The reply is 250 only after it is committed. Never given up half-way, however long it takes.
    fn message(&self, client: &Client, envelope: Envelope, body: Body) -> impl Future<Output = Reply> + Send;

    /// A spilled message that was given up: its pieces may go.
    fn discard(&self, message: MessageId) -> impl Future<Output = ()> + Send;
}
