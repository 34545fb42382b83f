//! One `[[esp]]`, checked: its place in the choice, and how it is reached.

use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;
use crate::mail::quota::Limits;
use crate::secret::Secret;

/// One ESP as the configuration has it.
#[derive(Debug, Clone, PartialEq)]
pub struct EspSettings {
    /// Its identity: history, health and metrics belong to the name.
    pub name: String,
    /// Lower is asked first.
    pub priority: u32,
    /// Its share among those of equal priority.
    pub weight: u32,
    /// How much it may be given.
    pub limits: Limits,
    /// Who goes only there: keys of addresses, or `@domain`; empty: everybody that no other ESP names.
    pub recipients: Vec<String>,
    /// From domains that it carries, as A-labels in lower case; empty: any.
    pub domains: Vec<String>,
    /// What it is.
    pub kind: EspKind,
}

impl EspSettings {
    /// One without limits, for everybody.
    pub fn new(name: &str, kind: EspKind) -> Self {
        EspSettings {
            name: name.to_owned(),
            priority: 1,
            weight: 100,
            limits: Limits::default(),
            recipients: Vec::new(),
            domains: Vec::new(),
            kind,
        }
    }
}

/// `type = …`, with what belongs to that type alone.
#[derive(Debug, Clone, PartialEq)]
pub enum EspKind {
    /// Any SMTP server that takes mail for others.
    Smtp(SmtpEspSettings),
    /// Takes all mail and delivers nowhere.
    Sandbox {
        /// How many messages it remembers.
        keep: usize,
    },
}

/// How an SMTP upstream is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct SmtpEspSettings {
    /// Host name or IP address (IPv6 without brackets); the name that its certificate must bear.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS on the line.
    pub tls: SmtpTls,
    /// AUTH, with `password`.
    pub username: Option<String>,
    /// AUTH, with `username`.
    pub password: Option<Secret>,
    /// PEM of the CA that signed its certificate, where that is no public one.
    pub ca_file: Option<PathBuf>,
    /// MAIL FROM instead of the senders' own.
    pub envelope_from: Option<Address>,
    /// Connections at a time.
    pub max_connections: usize,
    /// Messages a connection carries before it is replaced.
    pub messages_per_connection: u32,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Connect, TLS and each command's reply.
    pub timeout: Duration,
    /// The reply to the final dot.
    pub data_timeout: Duration,
}

/// `tls = …` of an SMTP upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// STARTTLS, required.
    StartTls,
    /// From the first octet (RFC 8314).
    Implicit,
    /// None.
    Off,
}
