//! Twilio SendGrid: `POST /v3/mail/send`, and its SMTP endpoint.
//!
//! In this folder, in this order: how it is reached, what fits and is composed (`mail` as JSON, `smtpapi` for SMTP,
//! `labels` and `others` for both), what its answers mean (`read`), the check of its key; then what it tells of itself: its
//! allowance, events (hook), suppressions, set-up, DNS and limits.
//!
//! Its API builds a message of its own and addresses by header: To and Cc are made of whom it mails. What it cannot say
//! goes by SMTP where `transport` is `auto`. Either way SendGrid wraps the parts of a message anew, so what is signed or
//! encrypted in parts goes by neither.
//!
//! Facts: <https://www.twilio.com/docs/sendgrid/api-reference/mail-send> with its pages on limitations and errors, and
//! <https://www.twilio.com/docs/sendgrid/for-developers/sending-email/building-an-x-smtpapi-header>, seen in 2026-11.

pub(super) mod hook;
mod labels;
mod mail;
mod others;
mod read;
mod setup;
mod smtpapi;
#[cfg(test)]
mod tests;

use futures_util::future::BoxFuture;
use serde::Deserialize;

use self::labels::Control;
use super::settings::{SendgridRegion, SendgridSettings, SmtpEndpoint, SmtpEspSettings, SmtpTls, Transport};
use super::setup::{Api, Arranged, Trial, Wanted};
use super::smtp::{self, Smtp};
use super::{ApiDoor, Content, Esp, Losses, Parcel, Unfit};
use crate::clock::Timestamp;
use crate::mail::sealed::sealed;
use crate::mail::{
    AttemptId, HttpReply, HttpRequest, Message, Outcome, Protocol, Reply, Request, ReversePath,
};

/// "The total size of your email, including attachments, must be less than 30MB."
const REQUEST_OCTETS_MAX: usize = 30_000_000;
/// The user of every account: its password is the key.
const SMTP_USER: &str = "apikey";
/// What a key must be allowed to do.
const SCOPE: &str = "mail.send";

/// The ESP of `type = "sendgrid"`.
#[derive(Debug)]
pub struct Sendgrid {
    transport: Transport,
    smtp: Smtp,
}

impl Sendgrid {
    /// It, as configured. `reports`: those to senders come from an address of the relay's own, else it takes none: it
    /// puts a sender of its own in the place of `<>`.
    pub fn new(settings: &SendgridSettings, reports: bool) -> Self {
        let envelope_from = settings.access.envelope_from.clone().map(ReversePath::Mailbox);
        Sendgrid { transport: settings.access.transport, smtp: Smtp { envelope_from, reports } }
    }

    /// Its API.
    pub fn api(settings: &SendgridSettings) -> ApiDoor {
        let base = match settings.region {
            SendgridRegion::Global => "https://api.sendgrid.com",
            SendgridRegion::Eu => "https://api.eu.sendgrid.com",
        };
        ApiDoor {
            base: base.to_owned(),
            key: ("authorization", "Bearer ", settings.api_key.clone()),
            fields: &[],
            probe_path: "/v3/scopes",
            judge_probe,
        }
    }

    /// Its SMTP endpoint.
    pub fn smtp(settings: &SendgridSettings) -> SmtpEspSettings {
        let host = match settings.region {
            SendgridRegion::Global => "smtp.sendgrid.net",
            SendgridRegion::Eu => "smtp.eu.sendgrid.net",
        };
        let vendors = SmtpEndpoint { host: host.to_owned(), port: 587, tls: SmtpTls::StartTls };
        settings.access.smtp(vendors, SMTP_USER.to_owned(), settings.api_key.clone())
    }

    fn takes_reports(&self, message: &Message) -> Result<(), Unfit> {
        match message.source.protocol == Protocol::Report && !self.smtp.reports {
            true => Err(Unfit("reports to senders need [server] dsn_from at SendGrid".into())),
            false => Ok(()),
        }
    }

    fn by_api(
        &self,
        parcel: Parcel<'_>,
        control: Option<&Control>,
        losses: Losses,
    ) -> Result<HttpRequest, Unfit> {
        let whole = parcel.whole.ok_or_else(|| too_large(parcel.message))?;
        mail::compose(parcel, whole, control, losses)
    }

    fn by_smtp(&self, parcel: Parcel<'_>, control: Option<&Control>) -> Result<Request, Unfit> {
        let field = smtpapi::field(parcel, control)?;
        Ok(Request::Smtp(match control {
            None => self.smtp.with_fields(parcel, &field),
            Some(own) => self.smtp.with_fields_instead(parcel, &field, own.span.clone()),
        }))
    }
}

impl Esp for Sendgrid {
    fn compose(&self, parcel: Parcel<'_>, _now: Timestamp) -> Result<Request, Unfit> {
        self.takes_reports(parcel.message)?;
        let control = Control::read(&parcel.message.body.head)?;
        let control = control.as_ref();
        let by_api = |losses| self.by_api(parcel, control, losses).map(Request::Http);
        // What is sealed is never taken apart for the API, so that what fits it need not be looked through once more.
        let not_sealed = || not_sealed(parcel.whole.unwrap_or(&parcel.message.body.head));
        match self.transport {
            Transport::Smtp => not_sealed().and_then(|()| self.by_smtp(parcel, control)),
            Transport::Api => by_api(Losses::Small).or_else(|api| not_sealed().and(Err(api))),
            Transport::Auto => by_api(Losses::None).or_else(|_| {
                not_sealed()?;
                self.by_smtp(parcel, control)
                    .or_else(|smtp| by_api(Losses::Small).map_err(|api| by_neither(api, smtp)))
            }),
        }
    }

    fn could_carry(&self, message: &Message, content: Content<'_>) -> Result<(), Unfit> {
        self.takes_reports(message)?;
        not_sealed(match content {
            Content::Whole(whole) => whole,
            Content::Beginning | Content::TooLarge => &message.body.head,
        })?;
        let control = Control::read(&message.body.head)?;
        let control = control.as_ref();
        let by_api = || match content {
            Content::Beginning if message.body.size_octets() > REQUEST_OCTETS_MAX as u64 => {
                Err(too_large(message))
            }
            Content::TooLarge => Err(too_large(message)),
            Content::Whole(_) | Content::Beginning => mail::could_be_said(message, content, control),
        };
        let of_none = Parcel { message, whole: None, recipients: &[], attempt: AttemptId::from_number(0) };
        let by_smtp = || smtpapi::field(of_none, control).map(drop);
        match self.transport {
            Transport::Api => by_api(),
            Transport::Smtp => by_smtp(),
            // The cheaper of the two first.
            Transport::Auto => by_smtp().or_else(|smtp| by_api().map_err(|api| by_neither(api, smtp))),
        }
    }

    fn by_other_door(&self, parcel: Parcel<'_>) -> Option<Request> {
        let control = Control::read(&parcel.message.body.head).ok()?;
        (self.transport == Transport::Auto).then(|| self.by_smtp(parcel, control.as_ref()).ok()).flatten()
    }

    fn recipients_max(&self) -> u32 {
        mail::RECIPIENTS_MAX
    }

    fn wants_whole(&self, message: &Message) -> bool {
        self.transport != Transport::Smtp && message.body.size_octets() <= REQUEST_OCTETS_MAX as u64
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
        Some(Box::pin(setup::set_up(wanted, apply, api)))
    }

    fn trial(&self, _: Wanted<'_>, _: &str, _: Timestamp) -> Option<Trial> {
        Some(Trial::Asked)
    }

    fn ask_for_trial<'a>(
        &'a self,
        wanted: Wanted<'a>,
        api: &'a dyn Api,
    ) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(setup::ask_for_trial(wanted, api))
    }

    fn sender<'a>(&'a self, own: &'a ReversePath) -> &'a ReversePath {
        self.smtp.sender(own)
    }

    fn blames_request(&self, reply: &Reply) -> bool {
        matches!(reply, Reply::Http(http) if read::blames_request(http))
    }

    fn read(&self, parcel: Parcel<'_>, reply: &Reply, now: Timestamp) -> Vec<Outcome> {
        match reply {
            Reply::Http(reply) => read::read(parcel, reply, now),
            _ => smtp::read(parcel, reply, now, |phase, answer| read::smtp_row(phase, answer, now)),
        }
    }
}

fn by_neither(Unfit(api): Unfit, Unfit(smtp): Unfit) -> Unfit {
    Unfit(if api == smtp { api } else { format!("{api}; {smtp}") })
}

fn too_large(message: &Message) -> Unfit {
    let octets = message.body.size_octets();
    Unfit(format!(
        "SendGrid's API: this message has {octets} octets, and one request may have {REQUEST_OCTETS_MAX} and an \
         eighth of [limits] memory"
    ))
}

/// A signature over parts, or parts encrypted together, do not survive that SendGrid wraps them anew. `content`: all of
/// it, or as much of its beginning as is there.
fn not_sealed(content: &[u8]) -> Result<(), Unfit> {
    match sealed(content) {
        Some(what) => Err(Unfit(format!("SendGrid wraps the parts of a message anew, which breaks {what}"))),
        None => Ok(()),
    }
}

/// `GET /v3/scopes`: what the key may do.
fn judge_probe(reply: &HttpReply) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Scopes {
        scopes: Vec<String>,
    }
    match reply.status {
        200 => match serde_json::from_slice::<Scopes>(&reply.body) {
            Ok(Scopes { scopes }) if scopes.iter().any(|scope| scope == SCOPE) => {
                Ok(format!("the key may send mail ({SCOPE} is among its {} scopes)", scopes.len()))
            }
            Ok(Scopes { scopes }) => Err(format!(
                "the key may not send mail: {SCOPE} is not among its {} scopes; give it \"Mail Send\" under Settings, \
                 API Keys",
                scopes.len()
            )),
            Err(_) => Err(format!("no list of scopes, but {reply}")),
        },
        401 => Err(format!("SendGrid does not know this key, or it was revoked: {reply}")),
        403 => Err(format!("SendGrid lets this key or address ask nothing: {reply}")),
        _ => Err(reply.to_string()),
    }
}
