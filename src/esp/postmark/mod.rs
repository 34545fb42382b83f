//! Postmark, by its API (`POST /email`) and by SMTP. Order of an ESP's slots: settings, fits, compose, read, probe,
//! limits, tests.
//!
//! One message a call, never its batch: one lost answer would leave 500 deliveries unsure. The API addresses by header
//! and builds the message anew, so it carries only what [`crate::mail::parts`] finds nothing lost of; the SMTP endpoint takes
//! what the API cannot, but re-assembles it too: what is signed or encrypted as MIME goes by neither.

mod compose;
mod read;

use bytes::Bytes;

use super::fields::{said_in, without};
use super::smtp::Smtp;
use super::{ApiDoor, Esp, Parcel, Unfit};
use crate::clock::Timestamp;
use crate::esp::settings::{PostmarkSettings, SmtpEndpoint, SmtpEspSettings, SmtpTls, Transport};
use crate::mail::sealed::sealed;
use crate::mail::{HttpRequest, Message, Outcome, Protocol, Reply, Request, ReversePath, StreamKind};

/// Where its API is.
const BASE: &str = "https://api.postmarkapp.com";
/// To, Cc and Bcc together.
const RECIPIENTS_MAX: u32 = 50;
/// The whole message.
const MESSAGE_OCTETS_MAX: u64 = 10 * 1024 * 1024;

/// The ESP of `type = "postmark"`.
#[derive(Debug)]
pub struct Postmark {
    transport: Transport,
    transactional: String,
    broadcast: String,
    smtp: Smtp,
}

impl Postmark {
    /// It, as configured; `reports`: those to senders come from an address of the relay's own.
    pub fn new(settings: &PostmarkSettings, reports: bool) -> Self {
        let envelope_from = settings.access.envelope_from.clone().map(ReversePath::Mailbox);
        Postmark {
            transport: settings.access.transport,
            transactional: settings.transactional.clone(),
            broadcast: settings.broadcast.clone(),
            smtp: Smtp { envelope_from, reports },
        }
    }

    /// Its API. Without `accept` it answers 415.
    pub fn api(settings: &PostmarkSettings) -> ApiDoor {
        ApiDoor {
            base: BASE.to_owned(),
            key: ("x-postmark-server-token", "", settings.server_token.clone()),
            fields: &[("accept", "application/json")],
            probe_path: "/server",
            judge_probe: read::judge_probe,
        }
    }

    /// Its SMTP endpoint: the server's token is both user name and password. The header names the message stream, so
    /// one host does for all streams.
    pub fn smtp(settings: &PostmarkSettings) -> SmtpEspSettings {
        let vendors = SmtpEndpoint { host: "smtp.postmarkapp.com".into(), port: 587, tls: SmtpTls::StartTls };
        let token = &settings.server_token;
        settings.access.smtp(vendors, token.expose().to_owned(), token.clone())
    }

    fn stream(&self, kind: StreamKind) -> &str {
        match kind {
            StreamKind::Transactional => &self.transactional,
            StreamKind::Broadcast => &self.broadcast,
        }
    }

    fn by_api(&self, parcel: Parcel<'_>, whole: Option<&Bytes>) -> Result<Request, Unfit> {
        let whole =
            whole.ok_or_else(|| Unfit("too large to be written as JSON in this relay's memory".into()))?;
        let body = compose::email(parcel, whole, self.stream(parcel.message.kind))?;
        Ok(Request::Http(HttpRequest { path: "/email", headers: Vec::new(), body, told_by_head: None }))
    }

    fn by_smtp(&self, parcel: Parcel<'_>) -> Result<Request, Unfit> {
        if let Some(why) = sealed(parcel.whole.unwrap_or(&parcel.message.body.head)) {
            return Err(Unfit(format!("Postmark re-assembles mail, which breaks {why}")));
        }
        let fields = compose::fields(parcel, self.stream(parcel.message.kind))?;
        // What the relay says it says alone: with two of one name nobody knows which counts.
        let message = without(parcel.message, |field| said_in(&fields, field));
        Ok(Request::Smtp(self.smtp.with_fields(Parcel { message: &message, ..parcel }, &fields)))
    }
}

impl Esp for Postmark {
    fn compose(&self, parcel: Parcel<'_>, _now: Timestamp) -> Result<Request, Unfit> {
        fits(parcel, self.smtp.reports)?;
        match self.transport {
            Transport::Api => self.by_api(parcel, parcel.whole),
            Transport::Smtp => self.by_smtp(parcel),
            Transport::Auto => self.by_api(parcel, parcel.whole).or_else(|Unfit(api)| {
                self.by_smtp(parcel)
                    .map_err(|Unfit(smtp)| Unfit(format!("by its API: {api}; by SMTP: {smtp}")))
            }),
        }
    }

    fn by_other_door(&self, parcel: Parcel<'_>) -> Option<Request> {
        (self.transport == Transport::Auto).then(|| self.by_smtp(parcel).ok()).flatten()
    }

    fn recipients_max(&self) -> u32 {
        RECIPIENTS_MAX
    }

    fn wants_whole(&self, message: &Message) -> bool {
        self.transport != Transport::Smtp && message.body.size_octets() <= MESSAGE_OCTETS_MAX
    }

    fn carries_labels(&self, message: &Message) -> Result<(), Unfit> {
        compose::labels_fit(message)?;
        match self.transport {
            Transport::Smtp => compose::labels_fit_lines(message),
            Transport::Api | Transport::Auto => Ok(()),
        }
    }

    fn sender<'a>(&'a self, own: &'a ReversePath) -> &'a ReversePath {
        self.smtp.sender(own)
    }

    fn blames_request(&self, reply: &Reply) -> bool {
        matches!(reply, Reply::Http(http) if read::blames_request(http))
    }

    fn read(&self, parcel: Parcel<'_>, reply: &Reply, now: Timestamp) -> Vec<Outcome> {
        match reply {
            Reply::Http(http) => read::email(parcel.recipients, http, now),
            other => super::smtp::read(parcel, other, now, read::own_row),
        }
    }
}

/// What neither of its doors takes.
fn fits(parcel: Parcel<'_>, reports: bool) -> Result<(), Unfit> {
    let octets = parcel.message.body.size_octets();
    if octets > MESSAGE_OCTETS_MAX {
        return Err(Unfit(format!("it has {octets} octets; Postmark takes {MESSAGE_OCTETS_MAX}")));
    }
    if parcel.recipients.len() > RECIPIENTS_MAX as usize {
        return Err(Unfit(format!(
            "{} recipients; Postmark takes {RECIPIENTS_MAX}",
            parcel.recipients.len()
        )));
    }
    if parcel.message.source.protocol == Protocol::Report && !reports {
        return Err(Unfit(
            "reports to senders need [server] dsn_from: Postmark takes no empty sender".into(),
        ));
    }
    compose::labels_fit(parcel.message)?;
    if let Some(odd) = parcel.recipients.iter().find(|to| !compose::takes(to)) {
        return Err(Unfit(format!("Postmark does not take such an address as {odd}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
