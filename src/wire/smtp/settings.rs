//! How one SMTP upstream is reached.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::tokens::Tokens;
use crate::secret::Secret;

/// One SMTP upstream, checked by the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Host name or IP address (IPv6 without brackets); the name that its certificate must bear.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS on the line.
    pub tls: Tls,
    /// AUTH, where the upstream wants it.
    pub login: Option<Login>,
    /// Other secrets of the same account, which it may name: what the password was made of.
    pub kin: Vec<Secret>,
    /// PEM of the CA that signed its certificate; then no public CA counts.
    pub ca_file: Option<PathBuf>,
    /// The name in EHLO.
    pub helo: String,
    /// Idle connections that are kept. The caller runs no more exchanges than this at a time.
    pub max_connections: usize,
    /// Messages a connection carries before it is replaced.
    pub messages_per_connection: u32,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Connect, TLS, each command's reply, and each stretch of content that does not move.
    pub timeout: Duration,
    /// The reply to the final dot.
    pub data_timeout: Duration,
}

/// Who logs in, and by what proof.
#[derive(Debug, Clone, PartialEq)]
pub struct Login {
    /// Who.
    pub username: String,
    /// And the proof.
    pub proof: Proof,
}

/// What shows that it is they.
#[derive(Debug, Clone, PartialEq)]
pub enum Proof {
    /// A password.
    Password(Secret),
    /// An access token, from elsewhere and for a while.
    Token(Arc<Tokens>),
}

/// TLS on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS, required: without it nothing is sent.
    StartTls,
    /// From the first octet (RFC 8314).
    Implicit,
    /// None.
    Off,
}

impl Settings {
    /// An upstream at `host` with the defaults of the configuration: STARTTLS, no AUTH.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Settings {
            host: host.into(),
            port,
            tls: Tls::StartTls,
            login: None,
            kin: Vec::new(),
            ca_file: None,
            helo: "localhost".into(),
            max_connections: 10,
            messages_per_connection: 100,
            idle_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            data_timeout: Duration::from_secs(600),
        }
    }
}
