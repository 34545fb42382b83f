//! Amazon SES: its API v2 with raw MIME (`SendEmail`), and its SMTP endpoint.
//!
//! The API takes the message byte for byte and the true envelope's recipients; it sets Date and Message-ID itself and
//! chooses the envelope's sender. Only names that SES would not take are written anew (`names`). What lies where, in this
//! order: settings and the two doors (here), what fits (`fits`), the request (here and `tags`), what the answers mean
//! (`read`), the key's check and the allowance (`account`), events and their confirmation (`hook`, `sns`), and where they
//! are published (`setup`). What is to come has its place after these: suppressions, DNS.

mod account;
mod control;
mod fits;
pub(super) mod hook;
mod names;
mod password;
mod read;
mod setup;
pub(super) mod sns;
mod tags;

use futures_util::future::BoxFuture;

use self::control::{SET_FIELD, TAGS_FIELD};
use super::fields::without;
use super::settings::{SesSettings, SmtpEndpoint, SmtpEspSettings, SmtpTls, Transport};
use super::setup::{Api, Arranged, Trial, Wanted};
use super::smtp::{self, Smtp};
use super::{Content, Esp, Parcel, Unfit};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::quota::Told;
use crate::mail::{Fault, HttpReply, Message, Outcome, Reply, Request, ReversePath, SesRequest};
use crate::secret::Secret;

pub use account::judge as judge_account;

/// Submission with STARTTLS.
const SMTP_PORT: u16 = 587;

/// The ESP of `type = "ses"`.
#[derive(Debug)]
pub struct Ses {
    /// By the API, or by SMTP, or whichever fits.
    doors: Doors,
    /// Where the account lives.
    region: String,
    /// Sent with each message.
    configuration_set: Option<String>,
    /// What goes by SMTP; it has the terms of both doors.
    smtp: Smtp,
}

/// Which doors are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doors {
    Api,
    Smtp,
    Both,
}

impl Ses {
    /// It, as configured; `reports`: reports to senders come from an address of the operator's own.
    pub fn new(settings: &SesSettings, reports: bool) -> Self {
        let doors = match (settings.access.transport, &settings.keys) {
            (Transport::Smtp, Some(_)) => Doors::Smtp,
            (Transport::Auto, Some(_)) => Doors::Both,
            (Transport::Api, _) | (_, None) => Doors::Api,
        };
        let envelope_from = settings.access.envelope_from.clone().map(ReversePath::Mailbox);
        Ses {
            doors,
            region: settings.region.clone(),
            configuration_set: settings.configuration_set.clone(),
            smtp: Smtp { envelope_from, reports },
        }
    }

    /// Its SMTP endpoint; `None` without keys of its own: the password is made of them.
    pub fn smtp(settings: &SesSettings) -> Option<SmtpEspSettings> {
        let (id, _) = settings.keys.clone()?;
        let vendors = SmtpEndpoint { host: Self::host(settings), port: SMTP_PORT, tls: SmtpTls::StartTls };
        Some(settings.access.smtp(vendors, id, Self::smtp_password(settings)?))
    }

    /// The password that is made of its keys.
    pub fn smtp_password(settings: &SesSettings) -> Option<Secret> {
        settings.keys.as_ref().map(|(_, secret)| password::of(secret, &settings.region))
    }

    /// Its host, for people.
    pub fn host(settings: &SesSettings) -> String {
        format!("email-smtp.{}.amazonaws.com", settings.region)
    }

    /// Whose mistake it is that there is no such configuration set.
    fn whose_set(&self, message: &Message) -> Fault {
        let of_the_app = self.configuration_set.is_none() && matches!(control::set(message), Ok(Some(_)));
        if of_the_app { Fault::Message } else { Fault::Account }
    }

    /// `SendEmail`. The From field stays the message's own: `FromEmailAddress` would replace it.
    fn by_api(&self, parcel: Parcel<'_>) -> Result<Request, Unfit> {
        fits::api(parcel.message)?;
        let Some(whole) = parcel.whole else {
            return Err(Unfit(fits::too_large_for_memory(parcel.message)));
        };
        Ok(Request::Ses(SesRequest {
            recipients: parcel.recipients.to_vec(),
            data: control::without(parcel.message, whole),
            tags: tags::of(parcel),
            configuration_set: match &self.configuration_set {
                Some(set) => Some(set.clone()),
                None => control::set(parcel.message)?,
            },
        }))
    }

    fn fits_smtp(&self, message: &Message) -> Result<(), Unfit> {
        match self.smtp.sender(&message.envelope.sender) {
            ReversePath::Null => Err(Unfit(
                "SES takes no mail without an envelope sender by SMTP; set envelope_from, or let it go by the API"
                    .into(),
            )),
            ReversePath::Mailbox(_) => Ok(()),
        }
    }

    /// The same by SMTP: what the API has parameters for is in fields on top.
    fn by_smtp(&self, parcel: Parcel<'_>) -> Result<Request, Unfit> {
        self.fits_smtp(parcel.message)?;
        let mut fields = tags::field(TAGS_FIELD, &tags::of(parcel));
        if let Some(set) = &self.configuration_set {
            fields.push_str(&format!("{SET_FIELD}: {set}\r\n"));
        }
        // SES takes each once. The app's tags are among ours.
        let message = without(parcel.message, |field| {
            field.is(TAGS_FIELD) || (field.is(SET_FIELD) && self.configuration_set.is_some())
        });
        Ok(Request::Smtp(self.smtp.with_fields(Parcel { message: &message, ..parcel }, &fields)))
    }
}

impl Esp for Ses {
    fn compose(&self, parcel: Parcel<'_>, _now: Timestamp) -> Result<Request, Unfit> {
        fits::both(parcel, self.smtp.reports)?;
        let (message, whole) = names::changed(parcel);
        let parcel = Parcel { message: &message, whole: whole.as_deref(), ..parcel };
        match self.doors {
            Doors::Api => self.by_api(parcel),
            Doors::Smtp => self.by_smtp(parcel),
            Doors::Both => self
                .by_api(parcel)
                .or_else(|api| self.by_smtp(parcel).map_err(|smtp| by_neither(&api, &smtp))),
        }
    }

    fn could_carry(&self, message: &Message, content: Content<'_>) -> Result<(), Unfit> {
        fits::message(message, self.smtp.reports)?;
        let by_api = || {
            fits::api(message)?;
            match content {
                Content::TooLarge => Err(Unfit(fits::too_large_for_memory(message))),
                Content::Whole(_) | Content::Beginning => Ok(()),
            }
        };
        match self.doors {
            Doors::Api => by_api(),
            Doors::Smtp => self.fits_smtp(message),
            Doors::Both => {
                self.fits_smtp(message).or_else(|smtp| by_api().map_err(|api| by_neither(&api, &smtp)))
            }
        }
    }

    fn by_other_door(&self, parcel: Parcel<'_>) -> Option<Request> {
        let (message, whole) = names::changed(parcel);
        let parcel = Parcel { message: &message, whole: whole.as_deref(), ..parcel };
        (self.doors == Doors::Both).then(|| self.by_smtp(parcel).ok()).flatten()
    }

    fn wants_whole(&self, message: &Message) -> bool {
        self.doors != Doors::Smtp && fits::api(message).is_ok()
    }

    fn takes(&self, to: &Address) -> Result<(), Unfit> {
        fits::recipient(to)
    }

    fn recipients_max(&self) -> u32 {
        fits::RECIPIENTS_MAX
    }

    fn told(&self, account: &HttpReply) -> Result<Told, String> {
        account::told(account)
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
        let place = (self.region.as_str(), self.configuration_set.as_deref());
        Some(Box::pin(setup::set_up(wanted, place, apply, api)))
    }

    fn trial(&self, _: Wanted<'_>, _: &str, _: Timestamp) -> Option<Trial> {
        Some(Trial::Mail(setup::SIMULATOR))
    }

    fn sender<'a>(&'a self, own: &'a ReversePath) -> &'a ReversePath {
        self.smtp.sender(own)
    }

    fn read(&self, parcel: Parcel<'_>, reply: &Reply, now: Timestamp) -> Vec<Outcome> {
        match reply {
            Reply::Http(http) => read::each(parcel, http, now, self.whose_set(parcel.message)),
            _ => smtp::read(parcel, reply, now, |phase, answer| {
                read::smtp(parcel, phase, answer, self.whose_set(parcel.message))
            }),
        }
    }
}

fn by_neither(api: &Unfit, smtp: &Unfit) -> Unfit {
    Unfit(format!("by its API: {}; {}", api.0, smtp.0))
}

#[cfg(test)]
mod tests;
