//! Amazon SES.

use super::{Esp, Parcel, Unfit};
use crate::clock::Timestamp;
use crate::esp::settings::{SesSettings, SmtpEspSettings};
use crate::mail::{Outcome, Reply, Request};

/// The ESP of `type = "ses"`.
#[derive(Debug)]
pub struct Ses {
    /// It takes reports to senders.
    pub reports: bool,
}

impl Ses {
    /// It, as configured.
    pub fn new(_settings: &SesSettings, reports: bool) -> Self {
        Ses { reports }
    }

    /// Its SMTP endpoint; `None` without keys of its own.
    pub fn smtp(_settings: &SesSettings) -> Option<SmtpEspSettings> {
        None
    }

    /// Its host, for people.
    pub fn host(settings: &SesSettings) -> String {
        format!("email-smtp.{}.amazonaws.com", settings.region)
    }
}

impl Esp for Ses {
    fn compose(&self, _parcel: Parcel<'_>, _now: Timestamp) -> Result<Request, Unfit> {
        Err(Unfit("not here yet".into()))
    }

    fn read(&self, parcel: Parcel<'_>, reply: &Reply, _now: Timestamp) -> Vec<Outcome> {
        parcel.recipients.iter().map(|_| super::answers::without_words(reply)).collect()
    }
}
