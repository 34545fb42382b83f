//! `[[notify]]`: who is told of events, and of which.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;

use super::esps::check_ca_file;
use super::kinds;
use super::problem::did_you_mean;
use super::reader::{Item, Kind as _, Reader, TableReader};
use super::written::Value;
use crate::flow::teller::Settings;
use crate::mail::notification::{EVENTS, USUAL};
use crate::secret::Secret;
use crate::wire::notify;

/// Each has a line of its own.
const RECEIVERS_MAX: usize = 16;
/// One in use, one that takes its place, and some that were forgotten.
const SECRETS_MAX: usize = 4;
/// A shorter one can be tried out by whoever has seen one event with its signature.
const SECRET_OCTETS_MIN: usize = 16;
/// What a key of that length looks like in base64.
const KEY_OCTETS: usize = 24;
const TIMEOUT: Duration = Duration::from_secs(15);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 4;
const CONNECTIONS_MAX: usize = 100;

/// Every `[[notify]]`.
pub(super) fn read(reader: &mut Reader<'_>) -> Vec<Settings> {
    let (mut receivers, mut known) = (Vec::new(), HashSet::new());
    for (n, table) in reader.tables("notify").into_iter().enumerate() {
        let mut t = reader.nth("notify", n, Some(table));
        if n == RECEIVERS_MAX {
            t.problem("", format!("there may be {RECEIVERS_MAX} of them"));
        }
        let url = t.required("url", kinds::parsed(url), "\"https://app.example.com/mail-events\"");
        let name = name(&mut t, url.as_ref(), &mut known);
        let secrets = t.required("secret", secrets, "\"env:NOTIFY_SECRET\"");
        warn_of_secrets(&mut t, secrets.as_deref().unwrap_or_default());
        let events = t.read("events", kinds::list_of(kinds::parsed(event)), USUAL.to_vec());
        if events.is_empty() && !t.is_wrong("events") {
            t.problem("events", "names none; leave it out for those that an app has to act on");
        }
        let ca_file = t.optional("ca_file", kinds::path);
        if let Some(path) = &ca_file {
            check_ca_file(&mut t, path);
        }
        let timeout = t.read("timeout", kinds::duration(), TIMEOUT);
        if timeout > TIMEOUT_MAX {
            t.problem("timeout", format!("is longer than {} s", TIMEOUT_MAX.as_secs()));
        }
        let max_connections = t.read("max_connections", kinds::integer(1..=CONNECTIONS_MAX), CONNECTIONS);
        t.finish(&[]);
        if let (Some(name), Some(url), Some(secrets)) = (name, url, secrets) {
            let url = Secret::new(url.as_str());
            let line = notify::Settings { url, secrets, ca_file, timeout, max_connections };
            receivers.push(Settings { name, events, line });
        }
    }
    receivers
}

/// The host where none is written.
fn name(t: &mut TableReader<'_, '_>, url: Option<&Url>, known: &mut HashSet<String>) -> Option<String> {
    let written = t.optional("name", kinds::name(false));
    if t.is_wrong("name") {
        return None;
    }
    let name = written.or_else(|| url.and_then(Url::host_str).map(str::to_owned))?;
    if !known.insert(name.clone()) {
        t.problem(
            "name",
            format!("another [[notify]] above is {name:?} too; give this one a name of its own"),
        );
    }
    Some(name)
}

/// Where events are told: https, or http on this machine.
fn url(text: &str) -> Result<Url, String> {
    let bad = || "is not a URL such as https://app.example.com/mail-events".to_string();
    let url = Url::parse(text).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || url.fragment().is_some() {
        return Err(bad());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a login; what proves an event is its signature".into());
    }
    if url.scheme() == "http" && !kinds::on_loopback(text) {
        return Err("would tell in the clear whom you mail; write https://".into());
    }
    Ok(url)
}

fn event(text: &str) -> Result<&'static str, String> {
    match EVENTS.iter().find(|event| **event == text) {
        Some(event) => Ok(event),
        None => Err(format!("is no event that can be told{}", did_you_mean(text, EVENTS))),
    }
}

/// One, or a list while one takes another's place.
fn secrets(item: &Item<'_>) -> Result<Vec<Secret>, String> {
    let all = match item.value() {
        Value::List(_) => kinds::list_of(secret).read(item)?,
        _ => vec![secret(item)?],
    };
    match all.len() {
        0 => Err("names none".into()),
        1..=SECRETS_MAX => Ok(all),
        _ => Err(format!("has more than {SECRETS_MAX}")),
    }
}

fn secret(item: &Item<'_>) -> Result<Secret, String> {
    let secret = kinds::secret(item)?;
    notify::key_octets(secret.expose()).map(|_| secret).map_err(str::to_owned)
}

fn warn_of_secrets(t: &mut TableReader<'_, '_>, secrets: &[Secret]) {
    let octets = |secret: &Secret| notify::key_octets(secret.expose()).unwrap_or_default().len();
    if secrets.iter().any(|secret| octets(secret) < SECRET_OCTETS_MIN) {
        let what = format!(
            "is short enough to be guessed by whoever sees an event: take at least {SECRET_OCTETS_MIN} octets, such as \
             whsec_ and what openssl rand -base64 32 prints"
        );
        t.warning("secret", what);
    }
    let in_base64 =
        |secret: &Secret| STANDARD.decode(secret.expose()).is_ok_and(|key| key.len() >= KEY_OCTETS);
    if secrets.iter().any(in_base64) {
        let what = "looks like base64, and its text is taken as it stands; write whsec_ before it for what it stands for, \
                    as the libraries of Standard Webhooks read it";
        t.warning("secret", what);
    }
}
