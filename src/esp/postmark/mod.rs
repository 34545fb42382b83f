//! Postmark, by its API (`POST /email`) and by SMTP. Order of an ESP's slots: settings, fits, compose, read, probe,
//! limits, hook, setup, tests.
//!
//! One message a call, never its batch: one lost answer would leave 500 deliveries unsure. The API addresses by header
//! and builds the message anew, so it carries only what [`crate::mail::parts`] finds nothing lost of; the SMTP endpoint takes
//! what the API cannot, but re-assembles it too: what is signed or encrypted as MIME goes by neither.

mod compose;
pub(super) mod hook;
mod read;
mod setup;

use futures_util::future::BoxFuture;

use super::fields::{said_in, without};
use super::setup::{Api, Arranged, Trial, Wanted};
use super::smtp::Smtp;
use super::{ApiDoor, Content, Esp, Losses, Parcel, Unfit};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::esp::settings::{PostmarkSettings, SmtpEndpoint, SmtpEspSettings, SmtpTls, Transport};
use crate::mail::sealed::sealed;
use crate::mail::{HttpRequest, Message, Outcome, Protocol, Reply, Request, ReversePath, StreamKind};

/// Where its API is.
const BASE: &str = "https://api.postmarkapp.com";
/// To, Cc and Bcc together.
const RECIPIENTS_MAX: u32 = 50;

/// The ESP of `type = "postmark"`.
#[derive(Debug)]
pub struct Postmark {
    transport: Transport,
    transactional: String,
    broadcast: String,
    smtp: Smtp,
}

impl Postmark {
    /// The whole message.
    pub const MESSAGE_OCTETS_MAX: u64 = 10 * 1024 * 1024;

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

    fn by_api(&self, parcel: Parcel<'_>, losses: Losses) -> Result<Request, Unfit> {
        let whole = parcel.whole.ok_or_else(too_large_for_memory)?;
        let body = compose::email(parcel, whole, self.stream(parcel.message.kind), losses)?;
        Ok(Request::Http(HttpRequest { path: "/email", headers: Vec::new(), body, told_by_head: None }))
    }

    fn by_smtp(&self, parcel: Parcel<'_>) -> Result<Request, Unfit> {
        let content = parcel.whole.unwrap_or(&parcel.message.body.head);
        not_sealed(content)?;
        compose::files_fit(content)?;
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
            Transport::Api => self.by_api(parcel, Losses::Small),
            Transport::Smtp => self.by_smtp(parcel),
            Transport::Auto => {
                let by_smtp = |_| self.by_smtp(parcel);
                self.by_api(parcel, Losses::None).or_else(by_smtp).or_else(|Unfit(smtp)| {
                    self.by_api(parcel, Losses::Small).map_err(|Unfit(api)| by_neither(&api, &smtp))
                })
            }
        }
    }

    fn could_carry(&self, message: &Message, content: Content<'_>) -> Result<(), Unfit> {
        message_fits(message, self.smtp.reports)?;
        let by_api = || match content {
            Content::TooLarge => Err(too_large_for_memory()),
            Content::Whole(_) | Content::Beginning => compose::could_be_said(message, content),
        };
        let by_smtp = || {
            let content = match content {
                Content::Whole(whole) => whole,
                Content::Beginning | Content::TooLarge => &message.body.head,
            };
            not_sealed(content)?;
            compose::files_fit(content)?;
            compose::labels_fit_lines(message)
        };
        match self.transport {
            Transport::Api => by_api(),
            Transport::Smtp => by_smtp(),
            // The cheaper of the two first.
            Transport::Auto => {
                by_smtp().or_else(|Unfit(smtp)| by_api().map_err(|Unfit(api)| by_neither(&api, &smtp)))
            }
        }
    }

    fn takes(&self, to: &Address) -> Result<(), Unfit> {
        takes(to)
    }

    fn by_other_door(&self, parcel: Parcel<'_>) -> Option<Request> {
        (self.transport == Transport::Auto).then(|| self.by_smtp(parcel).ok()).flatten()
    }

    fn recipients_max(&self) -> u32 {
        RECIPIENTS_MAX
    }

    /// By SMTP too: a file that Postmark refuses, or a part that is sealed, may lie at its end.
    fn wants_whole(&self, message: &Message) -> bool {
        message.body.size_octets() <= Postmark::MESSAGE_OCTETS_MAX
    }

    fn tells_events(&self) -> bool {
        true
    }

    fn set_up<'a>(
        &'a self,
        wanted: Wanted<'a>,
        apply: bool,
        api: &'a dyn Api,
    ) -> Option<BoxFuture<'a, Arranged>> {
        let all = [self.transactional.as_str(), self.broadcast.as_str()];
        let streams = if all[0] == all[1] { 1 } else { 2 };
        Some(Box::pin(async move { setup::set_up(wanted, &all[..streams], apply, api).await }))
    }

    fn trial(&self, wanted: Wanted<'_>, chance: &str, now: Timestamp) -> Option<Trial> {
        let (fields, body) = setup::trial(wanted, chance, now);
        Some(Trial::Post(fields, body))
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

fn by_neither(api: &str, smtp: &str) -> Unfit {
    Unfit(format!("by its API: {api}; by SMTP: {smtp}"))
}

fn too_large_for_memory() -> Unfit {
    Unfit("it is too large for [limits] memory to compose a request of it; raise that".into())
}

/// `content`: all of it, or as much of its beginning as is there.
fn not_sealed(content: &[u8]) -> Result<(), Unfit> {
    match sealed(content) {
        Some(what) => Err(Unfit(format!("Postmark re-assembles mail, which breaks {what}"))),
        None => Ok(()),
    }
}

/// What neither of its doors takes, whoever gets it.
fn message_fits(message: &Message, reports: bool) -> Result<(), Unfit> {
    let octets = message.body.size_octets();
    let most = Postmark::MESSAGE_OCTETS_MAX;
    if octets > most {
        return Err(Unfit(format!("it has {octets} octets; Postmark takes {most}")));
    }
    if message.source.protocol == Protocol::Report && !reports {
        return Err(Unfit(
            "reports to senders need [server] dsn_from: Postmark takes no empty sender".into(),
        ));
    }
    compose::labels_fit(message)
}

/// What neither of its doors takes.
fn fits(parcel: Parcel<'_>, reports: bool) -> Result<(), Unfit> {
    if parcel.recipients.len() > RECIPIENTS_MAX as usize {
        return Err(Unfit(format!(
            "{} recipients; Postmark takes {RECIPIENTS_MAX}",
            parcel.recipients.len()
        )));
    }
    message_fits(parcel.message, reports)?;
    parcel.recipients.iter().try_for_each(takes)
}

fn takes(to: &Address) -> Result<(), Unfit> {
    match compose::takes(to) {
        true => Ok(()),
        false => Err(Unfit(format!("Postmark does not take such an address as {to}"))),
    }
}

#[cfg(test)]
mod tests;
