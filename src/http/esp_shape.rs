//! The JSON of the ESPs: how each stands, and who carries a mail.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shape::Moment;
use crate::flow::desk::{self, EspStatus};
use crate::router::{Ends, PassedOver};
use crate::{flow, store, wire};

/// `GET /esp-status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Esps {
    /// In the configuration's order.
    pub esps: Vec<Esp>,
}

/// How one ESP stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Esp {
    /// Its name.
    pub name: String,
    /// Lower first.
    pub priority: u32,
    /// Share among equal priorities.
    pub weight: u32,
    /// `open`, `shut`, `probing` (one message tries it), `recovering` (ever more mail), `suspended`, or `paused`
    /// with all others.
    pub gate: String,
    /// Why mail does not go there now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What an operator said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Suspension>,
    /// Calls begun, on their way or waiting for a connection.
    pub begun: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections that are used, since the ESP said that it takes no more; absent: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learnt_connections: Option<usize>,
    /// Recipients that it may still be given, by the tightest limit; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance_remaining: Option<u64>,
    /// Seconds that an answer takes of late, to the millisecond.
    pub usual_seconds: f64,
    /// When its `rate` leaves room again for transactional mail; absent: it does now, or it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_opens_at: Option<Moment>,
    /// Whose mail it refused and is not given now; absent: nobody's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed_senders: Vec<ClosedSender>,
    /// Alerts that stand while it gets mail; absent: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<EspAlert>,
    /// When it last failed, and its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// Something that is wrong with an ESP and does not keep mail from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EspAlert {
    /// As in `postroad_alerts_total`: `esp_refuses_every_message`, `esp_refuses_everybody`, `request_refused`
    /// or `assumed`.
    pub kind: String,
    /// In words.
    pub detail: String,
}

/// `POST /v1/esps/{name}/suspend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Suspend {
    /// Why: whoever asks later is told so.
    pub reason: String,
    /// For how long, such as `30s`, `2h` or `1d`; absent: until it is resumed.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub for_how_long: Option<String>,
}

/// How it went to log in to an ESP: the answer of `POST /v1/esps/{name}/test`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tried {
    /// The ESP.
    pub esp: String,
    /// Whether it could be logged in to.
    pub ok: bool,
    /// What it met, where it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// It is not `ok`, but one of its two doors, API and SMTP, can be used; `said` tells which.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_part: bool,
    /// An address that a test mail may come from: `[server] dsn_from`, else the ESP's `envelope_from`; absent: neither is
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How long it took, in seconds.
    pub took_seconds: f64,
    /// What was done, in order; where it is not `ok` the last one failed. None for a sandbox.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// One step of logging in to an ESP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = EspStep)]
pub struct Step {
    /// By SMTP `resolve`, `connect`, `tls`, `banner`, `ehlo`, `starttls`, `token` or `auth`; by an API `connect`, `answer` or
    /// `key`; by the trial of a webhook `public_url`, `trial` or `event`.
    pub step: String,
    /// It was done.
    pub ok: bool,
    /// What came of it: addresses, TLS version and certificate, the server's words and keywords.
    pub said: String,
    /// How long it took, in seconds.
    pub took_seconds: f64,
}

impl From<wire::Step> for Step {
    fn from(step: wire::Step) -> Self {
        let wire::Step { name, ok, told, took } = step;
        Step { step: name.to_owned(), ok, said: told, took_seconds: took.as_secs_f64() }
    }
}

/// `POST /v1/pause`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pause {
    /// Why: whoever asks later is told so.
    pub reason: String,
}

/// An operator's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Suspension {
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Moment,
    /// Until when; absent: until it is resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
}

/// The last failure of an ESP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastError {
    /// When.
    pub at: Moment,
    /// Its words.
    pub said: String,
}

/// A sender whose mail an ESP refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClosedSender {
    /// `mail From example.com`, or `MAIL FROM:<a@example.com>`.
    pub what: String,
    /// When the ESP is asked again.
    pub until: Moment,
}

/// `GET /v1/resolve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    /// The stream that the mail would have.
    pub stream: String,
    /// `transactional` or `broadcast`.
    pub kind: String,
    /// The recipient is suppressed: what a client hears at RCPT. Absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<String>,
    /// Those that may carry it in rank, then those that are passed over.
    pub esps: Vec<Standing>,
}

/// How the ESPs stand towards some recipients of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outlook {
    /// Which recipients, from 0.
    pub n: Vec<u32>,
    /// As in [`Resolved`].
    pub esps: Vec<Standing>,
}

/// One ESP's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// The ESP.
    pub name: String,
    /// Lower first.
    pub priority: u32,
    /// Share among equal priorities.
    pub weight: u32,
    /// Its place, from 1; absent: it is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Why it is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What ends that: `never` (another configuration), `by_itself` (it is tried again and again), `at` (the moment in
    /// `until`) or `operator` (a command).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
    /// When that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Its `rate` is used up until then; absent: it is not, or it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_opens_at: Option<Moment>,
}

impl From<EspStatus> for Esp {
    fn from(status: EspStatus) -> Self {
        Esp {
            name: status.name,
            priority: status.priority,
            weight: status.weight,
            gate: status.gate.into(),
            why: status.why,
            suspension: status.suspension.map(Into::into),
            begun: status.begun,
            max_connections: status.max_connections,
            learnt_connections: status.learnt_connections,
            allowance_remaining: status.allowance_remaining,
            usual_seconds: (status.usual_seconds * 1000.0).round() / 1000.0,
            rate_opens_at: status.rate_opens_at.map(Moment),
            closed_senders: status
                .closed_senders
                .into_iter()
                .map(|(what, until)| ClosedSender { what, until: Moment(until) })
                .collect(),
            alerts: status
                .alerts
                .into_iter()
                .map(|(kind, detail)| EspAlert { kind: kind.into(), detail })
                .collect(),
            last_error: status.last_error.map(|(at, said)| LastError { at: Moment(at), said }),
        }
    }
}

impl From<store::Suspension> for Suspension {
    fn from(suspension: store::Suspension) -> Self {
        Suspension {
            reason: suspension.reason,
            since: Moment(suspension.since),
            until: suspension.until.map(Moment),
        }
    }
}

impl From<desk::Resolved> for Resolved {
    fn from(resolved: desk::Resolved) -> Self {
        Resolved {
            stream: resolved.stream,
            kind: resolved.kind.word().into(),
            suppressed: resolved.suppressed,
            esps: resolved.standings.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<desk::Outlook> for Outlook {
    fn from(outlook: desk::Outlook) -> Self {
        Outlook { n: outlook.recipients, esps: outlook.standings.into_iter().map(Into::into).collect() }
    }
}

impl From<flow::Standing> for Standing {
    fn from(standing: flow::Standing) -> Self {
        let ends = standing.why.as_ref().map(PassedOver::ends);
        let word = |ends: &Ends| match ends {
            Ends::Never => "never",
            Ends::ByItself => "by_itself",
            Ends::At(_) => "at",
            Ends::Operator => "operator",
        };
        Standing {
            name: standing.name,
            priority: standing.priority,
            weight: standing.weight,
            rank: standing.rank.map(|rank| rank + 1),
            why: standing.why.map(|why| why.to_string()),
            ends: ends.as_ref().map(|ends| word(ends).to_owned()),
            until: ends.and_then(|ends| if let Ends::At(at) = ends { Some(Moment(at)) } else { None }),
            rate_opens_at: standing.rate_opens_at.map(Moment),
        }
    }
}
