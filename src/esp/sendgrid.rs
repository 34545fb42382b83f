//! Sendgrid.

use super::{ApiDoor, Esp, Parcel, Unfit};
use crate::clock::Timestamp;
use crate::esp::settings::{SendgridSettings, SmtpEndpoint, SmtpEspSettings, SmtpTls};
use crate::mail::{HttpReply, Outcome, Reply, Request};

/// The ESP of `type = "sendgrid"`.
#[derive(Debug)]
pub struct Sendgrid {
    /// It takes reports to senders.
    pub reports: bool,
}

impl Sendgrid {
    /// It, as configured.
    pub fn new(_settings: &SendgridSettings, reports: bool) -> Self {
        Sendgrid { reports }
    }

    /// Its API.
    pub fn api(_settings: &SendgridSettings) -> ApiDoor {
        ApiDoor {
            base: String::new(),
            key: ("authorization", "", crate::secret::Secret::new(String::new())),
            fields: &[],
            probe_path: "/",
            judge_probe,
        }
    }

    /// Its SMTP endpoint.
    pub fn smtp(settings: &SendgridSettings) -> SmtpEspSettings {
        let vendors = SmtpEndpoint { host: "smtp.invalid".into(), port: 587, tls: SmtpTls::StartTls };
        settings.access.smtp(vendors, String::new(), crate::secret::Secret::new(String::new()))
    }
}

fn judge_probe(reply: &HttpReply) -> Result<String, String> {
    Err(reply.to_string())
}

impl Esp for Sendgrid {
    fn compose(&self, _parcel: Parcel<'_>, _now: Timestamp) -> Result<Request, Unfit> {
        Err(Unfit("not here yet".into()))
    }

    fn read(&self, parcel: Parcel<'_>, reply: &Reply, _now: Timestamp) -> Vec<Outcome> {
        parcel.recipients.iter().map(|_| super::answers::without_words(reply)).collect()
    }
}
