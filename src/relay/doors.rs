//! How each type of ESP is spoken to: what composes and reads, and the wires that lead there.

use std::sync::Arc;

use super::wire_settings;
use crate::esp::postmark::Postmark;
use crate::esp::sandbox::Sandbox;
use crate::esp::sendgrid::Sendgrid;
use crate::esp::ses::{self, Ses};
use crate::esp::settings::{Access, EspKind, SmtpEspSettings, Transport};
use crate::esp::smtp::Smtp;
use crate::esp::{ApiDoor, Esp};
use crate::mail::{Grant, ReversePath};
use crate::secret::Secret;
use crate::wire::http::{Key, Probe};
use crate::wire::smtp::Tokens;
use crate::wire::ways::SmtpAlone;
use crate::wire::{self, Chunks, HttpWire, SandboxWire, SesWire, SmtpWire, Ways, Wire};

/// What all doors have in common.
pub struct House<'a> {
    /// The name in EHLO.
    pub hostname: &'a str,
    /// Reports to senders come from an address of the relay's own.
    pub own_reports: bool,
    /// Where the parts of large bodies lie.
    pub chunks: Arc<dyn Chunks>,
    /// The access tokens of a grant: who has the same grant shares them.
    pub tokens: &'a dyn Fn(&Grant) -> Arc<Tokens>,
}

/// What composes for an ESP and reads its answers, and what carries.
pub fn open(kind: &EspKind, house: &House<'_>) -> (Box<dyn Esp>, Arc<dyn Wire>) {
    match kind {
        EspKind::Smtp(smtp) => {
            let envelope_from = smtp.envelope_from.clone().map(ReversePath::Mailbox);
            let reports = house.own_reports || envelope_from.is_none();
            (Box::new(Smtp { envelope_from, reports }), house.by_smtp(smtp, Vec::new()))
        }
        EspKind::Ses(settings) => {
            let ses = Ses::new(settings, house.own_reports);
            let api = Arc::new(SesWire::new(wire::ses::Settings {
                region: settings.region.clone(),
                keys: settings.keys.clone(),
                smtp_password: Ses::smtp_password(settings),
                endpoint: settings.access.endpoint.clone(),
                ca_file: settings.access.api_ca_file(),
                max_connections: settings.access.lines.max_connections,
                timeout: settings.access.lines.timeout,
                judge_account: ses::judge_account,
            }));
            let kin = settings.keys.iter().map(|(_, secret)| secret.clone()).collect();
            let smtp = Ses::smtp(settings).map(|smtp| house.by_smtp(&smtp, kin));
            let wire = ways(settings.access.transport, api, smtp);
            (Box::new(ses), wire)
        }
        EspKind::Sendgrid(settings) => {
            let api = by_http(Sendgrid::api(settings), &settings.access);
            let smtp = house.by_smtp(&Sendgrid::smtp(settings), Vec::new());
            let wire = ways(settings.access.transport, api, Some(smtp));
            (Box::new(Sendgrid::new(settings, house.own_reports)), wire)
        }
        EspKind::Postmark(settings) => {
            let api = by_http(Postmark::api(settings), &settings.access);
            let smtp = house.by_smtp(&Postmark::smtp(settings), Vec::new());
            let wire = ways(settings.access.transport, api, Some(smtp));
            (Box::new(Postmark::new(settings, house.own_reports)), wire)
        }
        EspKind::Sandbox { .. } => (Box::new(Sandbox), Arc::new(SandboxWire)),
    }
}

/// The host that a type of ESP stands for, in reports to senders (RFC 3464 section 2.3.5).
pub fn host(kind: &EspKind) -> Option<String> {
    match kind {
        EspKind::Smtp(smtp) if smtp.host.contains(':') => Some(format!("[{}]", smtp.host)),
        EspKind::Smtp(smtp) => Some(smtp.host.clone()),
        EspKind::Ses(settings) => Some(Ses::host(settings)),
        EspKind::Sendgrid(settings) => Some(Sendgrid::smtp(settings).host),
        EspKind::Postmark(settings) => Some(Postmark::smtp(settings).host),
        EspKind::Sandbox { .. } => None,
    }
}

impl House<'_> {
    /// `kin`: what else may not be shown of what it says.
    fn by_smtp(&self, smtp: &SmtpEspSettings, kin: Vec<Secret>) -> Arc<dyn Wire> {
        let settings = wire::smtp::Settings { kin, ..wire_settings(smtp, self.hostname, self.tokens) };
        Arc::new(SmtpWire::new(settings, Arc::clone(&self.chunks)))
    }
}

fn ways(transport: Transport, api: Arc<dyn Wire>, smtp: Option<Arc<dyn Wire>>) -> Arc<dyn Wire> {
    match (transport, smtp) {
        (Transport::Api, _) | (_, None) => api,
        (Transport::Smtp, Some(smtp)) => Arc::new(SmtpAlone { smtp, api }),
        (Transport::Auto, Some(smtp)) => Arc::new(Ways { api, smtp }),
    }
}

fn by_http(door: ApiDoor, access: &Access) -> Arc<dyn Wire> {
    let (field, scheme, secret) = door.key;
    Arc::new(HttpWire::new(wire::http::Settings {
        base: access.endpoint.clone().unwrap_or(door.base),
        key: Key { field, scheme, secret },
        fields: door.fields.to_vec(),
        ca_file: access.api_ca_file(),
        max_connections: access.lines.max_connections,
        timeout: access.lines.timeout,
        probe: Probe { path: door.probe_path, judge: door.judge_probe },
    }))
}
