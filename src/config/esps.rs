//! `[[esp]]`: who carries the mail on. AUTH never goes over an unverified line, except on loopback.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use super::house::own_address;
use super::kinds;
use super::logins::{self, PROVIDERS, Provider};
use super::problem::did_you_mean;
use super::reader::{Kind, Reader, TableReader};
use super::units;
use super::vendors;
use super::webhooks;
use super::written::{Table, Value};
use crate::address::{Address, Grammar};
use crate::esp::settings::{EspKind, EspSettings, LineSettings, SmtpEspSettings, SmtpTls, Transport};
use crate::esp::webhook::WebhookSettings;
use crate::mail::quota::{Limits, QuotaLimits, Rate};
use crate::policy::streams::StreamSettings;
use crate::smtp::ListenerSettings;
use crate::wire;

const TLS: &[(&str, SmtpTls)] =
    &[("starttls", SmtpTls::StartTls), ("implicit", SmtpTls::Implicit), ("off", SmtpTls::Off)];
/// What `type` may be.
const TYPES: [&str; 5] = ["smtp", "ses", "sendgrid", "postmark", "sandbox"];
const ALL_TYPES: &str = "\"smtp\", \"ses\", \"sendgrid\", \"postmark\", \"sandbox\"";
const SMTP_KEYS: [&str; 6] = ["provider", "address", "tls", "auth", "username", "password"];
/// Keys that belong to some types alone, and to which.
const OF_TYPES: [(&[&str], &str); 13] = [
    (&SMTP_KEYS, "type = \"smtp\""),
    (&logins::OAUTH2_KEYS, "type = \"smtp\""),
    (&["ca_file", "envelope_from"], "types that send"),
    (&vendors::ACCESS_KEYS, "type = \"ses\", \"sendgrid\" or \"postmark\""),
    (&["region"], "type = \"ses\" or \"sendgrid\""),
    (&vendors::SES_KEYS, "type = \"ses\""),
    (&vendors::SENDGRID_KEYS, "type = \"sendgrid\""),
    (&vendors::POSTMARK_KEYS, "type = \"postmark\""),
    (&["keep"], "type = \"sandbox\""),
    (&webhooks::ALL_KEYS, "type = \"ses\", \"sendgrid\" or \"postmark\""),
    (&webhooks::SES_KEYS, "type = \"ses\""),
    (&webhooks::SENDGRID_KEYS, "type = \"sendgrid\""),
    (&webhooks::POSTMARK_KEYS, "type = \"postmark\""),
];
/// Messages that a sandbox remembers where nothing is written.
const SANDBOX_KEEP: usize = 1_000;
const SANDBOX_KEEP_MAX: usize = 1_000_000;
const CONNECTIONS_MAX: usize = 1_000;
/// Recipients in a window.
const LIMIT_MAX: u64 = 1_000_000_000_000;
/// The ESP where none is written.
const SANDBOX: &str = "sandbox";
/// The port of implicit TLS (RFC 8314).
const SUBMISSIONS: u16 = 465;

/// Every `[[esp]]`; one sandbox where none is written.
pub(super) fn read(reader: &mut Reader<'_>, listeners: &[ListenerSettings]) -> Vec<EspSettings> {
    let tables = reader.tables("esp");
    if tables.is_empty() {
        return vec![EspSettings::new(SANDBOX, EspKind::Sandbox { keep: SANDBOX_KEEP })];
    }
    // Also of those with another mistake: whoever mends that is not to find the next one.
    let (mut esps, mut known) = (Vec::new(), HashSet::new());
    for (n, table) in tables.into_iter().enumerate() {
        let mut t = reader.nth("esp", n, Some(table));
        let name = t.required("name", kinds::name(false), "\"main\"");
        if let Some(name) = &name
            && !known.insert(name.clone())
        {
            t.problem("name", "another [[esp]] above has the same");
        }
        let priority = t.read("priority", kinds::integer(0..=1_000_000), 1);
        let weight = t.read("weight", kinds::integer(1..=1_000_000), 100);
        let limits = limits(&mut t);
        let recipients = t.read("recipients", kinds::list_of(kinds::parsed(recipient)), Vec::new());
        let domains = t.read("domains", kinds::list_of(kinds::parsed(domain)), Vec::new());
        let kind = kind(t, listeners, limits.told);
        if let (Some(name), Some((kind, webhook))) = (name, kind) {
            esps.push(EspSettings { name, priority, weight, limits, recipients, domains, kind, webhook });
        }
    }
    esps
}

/// A hold runs from hand-over, and waits for no `data_timeout` that is longer.
pub(super) fn warn_of_holds(reader: &mut Reader<'_>, esps: &[EspSettings], streams: &[StreamSettings]) {
    let tables = reader.tables("esp");
    if tables.len() != esps.len() {
        return;
    }
    for (n, (table, esp)) in tables.into_iter().zip(esps).enumerate() {
        let mut t = reader.nth("esp", n, Some(table));
        let Some(lines) = esp.kind.lines().filter(|_| t.is_set("data_timeout")) else { continue };
        let carries = |s: &&StreamSettings| s.esps.is_empty() || s.esps.contains(&esp.name);
        let sooner = |s: &&StreamSettings| s.unsure_hold < lines.data_timeout;
        if let Some(stream) = streams.iter().filter(carries).find(sooner) {
            let what = format!(
                "{} is longer than the unsure_hold of the stream {}: after that the mail is sent again, though the first \
                 may still be answered, and may arrive twice",
                t.typed("data_timeout"),
                stream.name
            );
            t.warning("data_timeout", what);
        }
    }
}

/// The names that are written, for keys that refer to one. One that comes from the environment is not known here: then
/// nothing is.
pub(super) fn names(reader: &Reader<'_>) -> Option<Vec<String>> {
    let tables = reader.tables("esp");
    if tables.is_empty() {
        return Some(vec![SANDBOX.into()]);
    }
    let plain = |text: &String| !text.starts_with("env:") && !text.starts_with("file:");
    let name = |table: &Table| match table.get("name").map(|written| &written.value) {
        Some(Value::Text(name)) if plain(name) => Some(name.clone()),
        _ => None,
    };
    tables.into_iter().map(name).collect()
}

/// The name of one of these ESPs.
pub(super) fn named(names: Option<Vec<String>>) -> impl Kind<String> {
    kinds::parsed(move |text| match &names {
        Some(names) if !names.iter().any(|name| name == text) => {
            Err(format!("is no [[esp]]{}", did_you_mean(text, names.iter().map(String::as_str))))
        }
        _ => Ok(text.to_owned()),
    })
}

fn limits(t: &mut TableReader<'_, '_>) -> Limits {
    let (rate, told) = match t.optional("rate", kinds::parsed(pace)) {
        Some(Pace::Written(rate)) => (Some(rate), false),
        Some(Pace::Told) => (None, true),
        None => (None, false),
    };
    let mut limit = |key| Some(t.read(key, kinds::integer(0..=LIMIT_MAX), 0)).filter(|limit| *limit > 0);
    let windows = QuotaLimits {
        hourly: limit("hourly_limit"),
        daily: limit("daily_limit"),
        monthly: limit("monthly_limit"),
    };
    Limits { windows, rate, told }
}

/// `rate = …`
enum Pace {
    Written(Rate),
    /// `"auto"`: the ESP tells it.
    Told,
}

fn pace(text: &str) -> Result<Pace, String> {
    match text {
        "auto" => Ok(Pace::Told),
        text => units::rate(text).map(Pace::Written),
    }
}

/// `rate = "auto"` is for an ESP that can be asked.
fn check_told(t: &mut TableReader<'_, '_>, kind: &EspKind) {
    match kind {
        EspKind::Ses(ses) if ses.access.transport == Transport::Smtp => {
            t.problem("rate", "\"auto\" asks the API, and transport is \"smtp\"; write a rate such as 14/s");
        }
        EspKind::Ses(_) => {}
        EspKind::Smtp(_) | EspKind::Sendgrid(_) | EspKind::Postmark(_) | EspKind::Sandbox { .. } => {
            t.problem("rate", "\"auto\" is for type = \"ses\", which tells its rate; write one such as 14/s");
        }
    }
}

/// `keep`, or an address.
pub(super) fn envelope_from(text: &str) -> Result<Option<Address>, String> {
    match text {
        "keep" => Ok(None),
        address => own_address(address).map(Some).map_err(|bad| format!("is not \"keep\", and {bad}")),
    }
}

/// `@corp.example.com`, or a whole address, as a key.
pub(super) fn recipient(text: &str) -> Result<String, String> {
    let bad = || "is neither a domain such as @corp.example.com nor an address".to_string();
    let address = match text.strip_prefix('@') {
        Some(domain) => format!("x@{domain}"),
        None => text.to_owned(),
    };
    let key = Address::parse(&address, Grammar::Strict).map_err(|_| bad())?.key();
    match (text.starts_with('@'), key.rsplit_once('@')) {
        (true, Some((_, domain))) => Ok(format!("@{domain}")),
        (false, Some(_)) => Ok(key),
        (_, None) => Err(bad()),
    }
}

/// A From domain, as a key has it.
fn domain(text: &str) -> Result<String, String> {
    if text == "auto" {
        return Err("is not available in this version; name the domains".into());
    }
    let key = recipient(&format!("@{text}"));
    key.map(|key| key[1..].to_owned()).map_err(|_| "is not a domain such as example.com".to_string())
}

/// Reads what belongs to the type, and ends the reading of the table.
fn kind(
    mut t: TableReader<'_, '_>,
    listeners: &[ListenerSettings],
    told: bool,
) -> Option<(EspKind, Option<WebhookSettings>)> {
    let parse = |text: &str| match TYPES.iter().find(|known| **known == text) {
        Some(known) => Ok(*known),
        None => Err(format!("is not one of {ALL_TYPES}{}", did_you_mean(text, TYPES))),
    };
    let lines = lines(&mut t);
    let written = t.required("type", kinds::parsed(parse), "\"smtp\" or \"ses\"");
    let kind = match written {
        Some("smtp") => smtp(&mut t, lines, listeners).map(EspKind::Smtp),
        Some("ses") => vendors::ses(&mut t, lines).map(EspKind::Ses),
        Some("sendgrid") => vendors::sendgrid(&mut t, lines).map(EspKind::Sendgrid),
        Some("postmark") => vendors::postmark(&mut t, lines).map(EspKind::Postmark),
        Some("sandbox") => Some(EspKind::Sandbox {
            keep: t.read("keep", kinds::integer(1..=SANDBOX_KEEP_MAX), SANDBOX_KEEP),
        }),
        _ => {
            OF_TYPES.iter().for_each(|(keys, _)| t.pass_over(keys));
            None
        }
    };
    if let Some(kind) = kind.as_ref().filter(|_| told) {
        check_told(&mut t, kind);
    }
    let webhook = kind.as_ref().and_then(|kind| webhooks::read(&mut t, kind));
    if kind.is_none() {
        // Something else is wrong there; its own are not read, and no strangers.
        t.pass_over(&webhooks::ALL_KEYS);
        match written {
            Some("ses") => t.pass_over(&webhooks::SES_KEYS),
            Some("sendgrid") => t.pass_over(&webhooks::SENDGRID_KEYS),
            Some("postmark") => t.pass_over(&webhooks::POSTMARK_KEYS),
            _ => {}
        }
    }
    let strangers = OF_TYPES.iter().flat_map(|(keys, case)| keys.iter().map(move |key| (*key, *case)));
    t.finish(&strangers.collect::<Vec<_>>());
    kind.map(|kind| (kind, webhook))
}

fn lines(t: &mut TableReader<'_, '_>) -> LineSettings {
    let default = LineSettings::default();
    LineSettings {
        max_connections: t.read(
            "max_connections",
            kinds::integer(1..=CONNECTIONS_MAX),
            default.max_connections,
        ),
        messages_per_connection: t.read(
            "messages_per_connection",
            kinds::integer(1..=1_000_000),
            default.messages_per_connection,
        ),
        idle_timeout: t.read("idle_timeout", kinds::duration(), default.idle_timeout),
        timeout: t.read("timeout", kinds::duration(), default.timeout),
        data_timeout: t.read("data_timeout", kinds::duration(), default.data_timeout),
    }
}

fn smtp(
    t: &mut TableReader<'_, '_>,
    lines: LineSettings,
    listeners: &[ListenerSettings],
) -> Option<SmtpEspSettings> {
    let provider = t.optional("provider", kinds::one_of(PROVIDERS));
    let address = address(t, provider);
    let tls = t.read("tls", kinds::one_of(TLS), SmtpTls::StartTls);
    let ca_file = t.optional("ca_file", kinds::path);
    let envelope_from = t.read("envelope_from", kinds::parsed(envelope_from), None);
    let login = logins::read(t, provider, ca_file.as_ref());
    if let Some(provider) = provider {
        logins::check_provider(t, provider, tls == SmtpTls::StartTls, address.as_ref());
    }
    if let Some(path) = ca_file.as_ref().filter(|_| tls != SmtpTls::Off) {
        check_ca_file(t, path);
    }
    let (host, port) = address?;
    check_line(t, &host, port, tls, listeners);
    Some(SmtpEspSettings { host, port, tls, login, ca_file, envelope_from, lines })
}

/// Where it is; a provider's is known.
fn address(t: &mut TableReader<'_, '_>, provider: Option<Provider>) -> Option<(String, u16)> {
    let known = provider.map(Provider::address).filter(|_| !t.is_set("address"));
    match known {
        Some((host, port)) => {
            t.pass_over(&["address"]);
            Some((host.to_owned(), port))
        }
        // A misspelt provider may know it.
        None if t.is_wrong("provider") => t.optional("address", kinds::host_and_port()),
        None => t.required("address", kinds::host_and_port(), "\"smtp.example.net:587\""),
    }
}

/// Reads it as the first connection will.
pub(super) fn check_ca_file(t: &mut TableReader<'_, '_>, path: &Path) {
    if let Err(problem) = wire::trust::check_ca_file(&t.in_working_dir(path)) {
        let advice = "give a PEM file of CA certificates that the relay may read";
        t.problem("ca_file", format!("{}: {problem}; {advice}", t.typed("ca_file")));
    }
}

/// What would put a password or mail where it should not go.
fn check_line(
    t: &mut TableReader<'_, '_>,
    host: &str,
    port: u16,
    tls: SmtpTls,
    listeners: &[ListenerSettings],
) {
    let ip = host.parse::<IpAddr>().ok();
    let on_loopback = host.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| ip.is_loopback());
    if tls == SmtpTls::Off && !on_loopback {
        if t.is_set("username") {
            let what =
                if t.is_set("auth") && !t.is_set("password") { "access tokens" } else { "the password" };
            let advice = "write \"starttls\" or \"implicit\"";
            t.problem("tls", format!("\"off\" would send {what} over an unverified line; {advice}"));
        } else {
            t.warning("tls", "\"off\" sends mail in the clear to another host");
        }
    }
    if tls == SmtpTls::Off && t.is_set("ca_file") {
        t.warning("ca_file", "is not used: tls is off");
    }
    if tls == SmtpTls::StartTls && port == SUBMISSIONS {
        t.warning("tls", "port 465 usually wants tls = \"implicit\"");
    }
    let own = |listener: &ListenerSettings| listener.address.port() == port && on_loopback;
    if listeners.iter().any(own) {
        t.warning("address", "is this relay's own [[listener]]: mail would go in a circle");
    }
}
