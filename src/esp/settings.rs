//! One `[[esp]]`, checked: its place in the choice, and how it is reached.

use std::path::PathBuf;
use std::time::Duration;

use super::webhook::WebhookSettings;
use crate::address::Address;
use crate::mail::Grant;
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
    /// Its webhook, where its type has one.
    pub webhook: Option<WebhookSettings>,
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
            webhook: None,
        }
    }
}

/// `type = …`, with what belongs to that type alone.
#[derive(Debug, Clone, PartialEq)]
pub enum EspKind {
    /// Any SMTP server that takes mail for others.
    Smtp(SmtpEspSettings),
    /// Amazon SES.
    Ses(SesSettings),
    /// Twilio SendGrid.
    Sendgrid(SendgridSettings),
    /// Postmark.
    Postmark(PostmarkSettings),
    /// Takes all mail and delivers nowhere.
    Sandbox {
        /// How many messages it remembers.
        keep: usize,
    },
}

impl EspKind {
    /// What is alike for ESPs with an API of their own.
    pub fn access(&self) -> Option<&Access> {
        match self {
            EspKind::Ses(ses) => Some(&ses.access),
            EspKind::Sendgrid(sendgrid) => Some(&sendgrid.access),
            EspKind::Postmark(postmark) => Some(&postmark.access),
            EspKind::Smtp(_) | EspKind::Sandbox { .. } => None,
        }
    }

    /// How its lines are used, where it has any.
    pub fn lines(&self) -> Option<&LineSettings> {
        match self {
            EspKind::Smtp(smtp) => Some(&smtp.lines),
            _ => self.access().map(|access| &access.lines),
        }
    }

    /// PEM of a private CA.
    pub fn ca_file(&self) -> Option<&PathBuf> {
        match self {
            EspKind::Smtp(smtp) => smtp.ca_file.as_ref(),
            _ => self.access()?.ca_file.as_ref(),
        }
    }
}

/// `transport = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// The API where the message fits, else the SMTP endpoint.
    #[default]
    Auto,
    /// The API alone.
    Api,
    /// The SMTP endpoint alone.
    Smtp,
}

/// How an ESP with an API of its own is reached: what is alike for all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// By which door.
    pub transport: Transport,
    /// `https://host:port` in place of the API's own, without a `/` at its end.
    pub endpoint: Option<String>,
    /// In place of its own SMTP endpoint.
    pub smtp_endpoint: Option<SmtpEndpoint>,
    /// PEM of the CA that signed the certificates of these two, where that is no public one.
    pub ca_file: Option<PathBuf>,
    /// MAIL FROM by SMTP instead of the senders' own.
    pub envelope_from: Option<Address>,
    /// Connections, and how long is waited.
    pub lines: LineSettings,
}

impl Access {
    /// Its SMTP endpoint as an upstream: the vendor's own, or what is configured in its place.
    pub fn smtp(&self, vendors: SmtpEndpoint, username: String, password: Secret) -> SmtpEspSettings {
        let SmtpEndpoint { host, port, tls } = self.smtp_endpoint.clone().unwrap_or(vendors);
        SmtpEspSettings {
            host,
            port,
            tls,
            login: Some(SmtpLogin { username, proof: SmtpProof::Password(password) }),
            ca_file: self.ca_file.clone().filter(|_| self.smtp_endpoint.is_some()),
            envelope_from: self.envelope_from.clone(),
            lines: self.lines,
        }
    }

    /// The CA of its API.
    pub fn api_ca_file(&self) -> Option<PathBuf> {
        self.ca_file.clone().filter(|_| self.endpoint.is_some())
    }
}

/// `smtp_endpoint = "smtp://host:port"`, or a vendor's own.
#[derive(Debug, Clone, PartialEq)]
pub struct SmtpEndpoint {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS on the line.
    pub tls: SmtpTls,
}

/// Amazon SES.
#[derive(Debug, Clone, PartialEq)]
pub struct SesSettings {
    /// As for all.
    pub access: Access,
    /// `eu-central-1`.
    pub region: String,
    /// Access key id and secret access key; without: AWS's default chain, by the API alone.
    pub keys: Option<(String, Secret)>,
    /// Sent with each message.
    pub configuration_set: Option<String>,
}

/// Twilio SendGrid.
#[derive(Debug, Clone, PartialEq)]
pub struct SendgridSettings {
    /// As for all.
    pub access: Access,
    /// `SG.…`
    pub api_key: Secret,
    /// Where the account lives.
    pub region: SendgridRegion,
}

/// `region = …` of SendGrid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SendgridRegion {
    /// Everywhere else.
    #[default]
    Global,
    /// Its EU subusers.
    Eu,
}

/// Postmark.
#[derive(Debug, Clone, PartialEq)]
pub struct PostmarkSettings {
    /// As for all.
    pub access: Access,
    /// Of the server that sends.
    pub server_token: Secret,
    /// Its message stream for transactional mail.
    pub transactional: String,
    /// And for broadcast.
    pub broadcast: String,
}

/// How lines are used: the same for every type that has lines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LineSettings {
    /// Connections at a time.
    pub max_connections: usize,
    /// Messages an SMTP connection carries before it is replaced.
    pub messages_per_connection: u32,
    /// How long an unused SMTP connection is kept.
    pub idle_timeout: Duration,
    /// Connect, TLS, each command's reply, an HTTP answer.
    pub timeout: Duration,
    /// The reply to the final dot.
    pub data_timeout: Duration,
}

impl Default for LineSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        LineSettings {
            max_connections: 10,
            messages_per_connection: 100,
            idle_timeout: seconds(5),
            timeout: seconds(30),
            data_timeout: seconds(600),
        }
    }
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
    /// AUTH, where the server wants it.
    pub login: Option<SmtpLogin>,
    /// PEM of the CA that signed its certificate, where that is no public one.
    pub ca_file: Option<PathBuf>,
    /// MAIL FROM instead of the senders' own.
    pub envelope_from: Option<Address>,
    /// Connections, and how long is waited.
    pub lines: LineSettings,
}

/// Who logs in to an SMTP upstream, and by what proof.
#[derive(Debug, Clone, PartialEq)]
pub struct SmtpLogin {
    /// The account, or the mailbox.
    pub username: String,
    /// The proof.
    pub proof: SmtpProof,
}

/// `auth = …` of an SMTP upstream.
#[derive(Debug, Clone, PartialEq)]
pub enum SmtpProof {
    /// A password.
    Password(Secret),
    /// An access token, got by this grant.
    OAuth2(Box<Grant>),
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
