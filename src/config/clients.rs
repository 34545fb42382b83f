//! `[[listener]]` and `[[credential]]`: who may hand in mail, where and how. No open relay by accident.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::reader::{Reader, TableReader};
use super::streams;
use super::written::Table;
use super::{esps, kinds, terms};
use crate::esp::settings::{EspKind, EspSettings};
use crate::policy::streams::StreamSettings;
use crate::smtp::{
    self, AuthMode, BareNewline, CertificateError, CertificateFiles, Credential, ListenerSettings, Password,
    TlsMode,
};

const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2525);
const TLS: &[(&str, TlsMode)] =
    &[("off", TlsMode::Off), ("starttls", TlsMode::StartTls), ("implicit", TlsMode::Implicit)];
const AUTH: &[(&str, AuthMode)] =
    &[("off", AuthMode::Off), ("optional", AuthMode::Optional), ("required", AuthMode::Required)];
const BARE_NEWLINE: &[(&str, BareNewline)] =
    &[("reject", BareNewline::Reject), ("normalize", BareNewline::Normalize)];
/// Linux gives a process at most so many files (`fs.nr_open`).
const CONNECTIONS_MAX: usize = 1_048_576;
const RECIPIENTS_MAX: usize = 100_000;
/// RFC 4954 gives no limit; a name that is longer was pasted into the wrong key.
const USERNAME_OCTETS_MAX: usize = 255;

/// Every `[[credential]]`.
pub(super) fn credentials(reader: &mut Reader<'_>, streams: &[StreamSettings]) -> Vec<Credential> {
    let mut credentials: Vec<Credential> = Vec::new();
    // Also of those with another mistake: whoever mends that is not to find the next one.
    let mut known = HashSet::new();
    let names = esps::names(reader);
    for (n, table) in reader.tables("credential").into_iter().enumerate() {
        let mut t = reader.nth("credential", n, Some(table));
        let username = t.required("username", kinds::text, "\"shop\"");
        if let Some(username) = &username {
            if username.len() > USERNAME_OCTETS_MAX {
                t.problem("username", format!("is longer than {USERNAME_OCTETS_MAX} octets"));
            }
            if !known.insert(username.clone()) {
                t.problem("username", "another [[credential]] above has the same");
            }
        }
        let password = password(&mut t);
        let stream = t.optional("stream", streams::named(streams));
        let esp = t.optional("esp", esps::named(names.clone()));
        let terms = Arc::new(terms::of_credential(&mut t));
        t.finish(&[]);
        if let (Some(username), Some(password)) = (username, password) {
            credentials.push(Credential { username, password, stream, esp, terms });
        }
    }
    credentials
}

fn password(t: &mut TableReader<'_, '_>) -> Option<Password> {
    match (t.is_written("password"), t.is_written("password_hash")) {
        (true, true) => t.problem("password_hash", "stands beside password; write one of the two"),
        (false, false) => t.problem(
            "",
            "has neither password nor password_hash; write password = \"env:NAME\" and set NAME in .env",
        ),
        _ => {}
    }
    let hash = t.optional("password_hash", kinds::password_hash).map(Password::Hash);
    let plain = if t.is_written("password") {
        t.required("password", kinds::secret, "\"env:NAME\"").map(Password::Plain)
    } else {
        t.optional("password", kinds::secret).map(Password::Plain)
    };
    plain.or(hash)
}

/// Every `[[listener]]`; the default one where none is written.
pub(super) fn listeners(reader: &mut Reader<'_>, streams: &[StreamSettings]) -> Vec<ListenerSettings> {
    let mut tables: Vec<Option<&Table>> = reader.tables("listener").into_iter().map(Some).collect();
    if tables.is_empty() {
        tables.push(None);
    }
    let anyone_logs_in = !reader.tables("credential").is_empty();
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for (n, table) in tables.into_iter().enumerate() {
        let mut t = reader.nth("listener", n, table);
        let listener = listener(&mut t, streams);
        // One that could not be read has the default's place, which may well be another's.
        let address = (!t.is_wrong("address")).then_some(listener.address);
        check_access(&mut t, &listener, anyone_logs_in);
        let in_its_way = address.and_then(|at| addresses.iter().find(|other| meet(**other, at)));
        match (in_its_way, address) {
            (Some(other), Some(address)) if *other == address => {
                t.problem("address", "another [[listener]] above has the same");
            }
            (Some(other), _) => t.problem("address", format!("the [[listener]] {other} above is in its way")),
            (None, _) => {}
        }
        addresses.extend(address);
        t.finish(&[("senders", "[[credential]]"), ("rate", "[[credential]]")]);
        listeners.push(listener);
    }
    listeners
}

/// Whether only one of them can be listened on: `0.0.0.0:25` takes 127.0.0.1:25 as well.
pub(super) fn meet(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere = a.ip().is_unspecified() || b.ip().is_unspecified();
    let of_one_family = a.is_ipv4() == b.is_ipv4();
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || (everywhere && of_one_family))
}

/// No listener stands where the side port listens.
pub(super) fn check_side_port(reader: &mut Reader<'_>, listeners: &[ListenerSettings], side: SocketAddr) {
    let Some(n) = listeners.iter().position(|listener| meet(listener.address, side)) else { return };
    let what = |other: &str, at| format!("{other} listens on {at} already; give one of the two another port");
    reader.one("http").problem("address", what(&format!("listener[{n}]"), listeners[n].address));
    let table = reader.tables("listener").get(n).copied();
    reader.nth("listener", n, table).problem("address", what("[http]", side));
}

/// A guard keeps an app's mail and the relay's own reports from strangers. What a next hop took and cannot deliver it
/// reports itself, to whom MAIL FROM names.
pub(super) fn warn_of_bounces(
    reader: &mut Reader<'_>,
    listeners: &[ListenerSettings],
    credentials: &[Credential],
    esps: &[EspSettings],
) {
    let keeps = |esp: &&EspSettings| match &esp.kind {
        EspKind::Smtp(smtp) => smtp.envelope_from.is_none(),
        EspKind::Ses(ses) => ses.access.envelope_from.is_none(),
        EspKind::Sendgrid(_) | EspKind::Postmark(_) | EspKind::Sandbox { .. } => false,
    };
    let keeping: Vec<&str> = esps.iter().filter(keeps).map(|esp| esp.name.as_str()).collect();
    if keeping.is_empty() {
        return;
    }
    let what = format!(
        "does not reach the bounces that an ESP itself sends later: they go to the sender in MAIL FROM, whoever the app \
         named. Give envelope_from, an address of yours, to: {}",
        keeping.join(", ")
    );
    let of_listeners = listeners.iter().map(|listener| ("listener", &listener.terms));
    let of_credentials = credentials.iter().map(|credential| ("credential", &credential.terms));
    let (of_listeners, of_credentials) = (of_listeners.enumerate(), of_credentials.enumerate());
    for (n, (section, terms)) in of_listeners.chain(of_credentials) {
        if terms.is_unguarded() {
            continue;
        }
        let table = reader.tables(section).get(n).copied();
        let key = if terms.only_to.is_empty() { "redirect_to" } else { "only_to" };
        reader.nth(section, n, table).warning(key, what.as_str());
    }
}

fn listener(t: &mut TableReader<'_, '_>, streams: &[StreamSettings]) -> ListenerSettings {
    let address = t.read("address", kinds::socket_address(), DEFAULT_ADDRESS);
    let tls = t.read("tls", kinds::one_of(TLS), TlsMode::Off);
    let loopback = || vec!["127.0.0.0/8", "::1/128"].into_iter().filter_map(|net| net.parse().ok()).collect();
    ListenerSettings {
        name: address.to_string(),
        address,
        tls,
        certificate: certificate(t, tls),
        auth: t.read("auth", kinds::one_of(AUTH), AuthMode::Off),
        auth_plaintext: t.read("auth_plaintext", kinds::boolean, false),
        allow: t.read("allow", kinds::list_of(kinds::network()), loopback()),
        stream: t.optional("stream", streams::named(streams)),
        bare_newline: t.read("bare_newline", kinds::one_of(BARE_NEWLINE), BareNewline::Reject),
        strict_envelope: t.read("strict_envelope", kinds::boolean, false),
        max_connections: t.read("max_connections", kinds::integer(1..=CONNECTIONS_MAX), 1_000),
        max_connections_per_address: t.read(
            "max_connections_per_address",
            kinds::integer(1..=CONNECTIONS_MAX),
            50,
        ),
        loopback_per_address: t.is_written("max_connections_per_address"),
        max_message_size_octets: t.read("max_message_size", kinds::size(), 25_000_000),
        max_recipients: t.read("max_recipients", kinds::integer(1..=RECIPIENTS_MAX), 1_000),
        max_errors: t.read("max_errors", kinds::integer(1..=10_000), 20),
        idle_timeout: t.read("idle_timeout", kinds::duration(), Duration::from_secs(300)),
        terms: Arc::new(terms::of_listener(t)),
    }
}

fn certificate(t: &mut TableReader<'_, '_>, tls: TlsMode) -> Option<CertificateFiles> {
    let (chain, key) = (t.optional("cert", kinds::path), t.optional("key", kinds::path));
    for (name, missing, such_as) in [
        ("cert", chain.is_none(), "\"/etc/postroad/tls.crt\""),
        ("key", key.is_none(), "\"/etc/postroad/tls.key\""),
    ] {
        if tls != TlsMode::Off && missing {
            t.problem(name, format!("is missing, and tls needs it; write {name} = {such_as} (PEM)"));
        } else if tls == TlsMode::Off && !missing && !t.is_wrong("tls") {
            t.warning(name, "is not used: tls is off");
        }
    }
    let both = chain.zip(key).filter(|_| tls != TlsMode::Off);
    let files = both.map(|(chain, key)| CertificateFiles { chain, key })?;
    check_certificate(t, ["cert", "key"], &files);
    Some(files)
}

/// Reads the files as a listener will: better told here than at the start, or to the first client. `names` are the keys
/// of chain and key.
pub(super) fn check_certificate(
    t: &mut TableReader<'_, '_>,
    names: [&'static str; 2],
    files: &CertificateFiles,
) {
    let [of_chain, of_key] = names;
    let (chain, key) = (t.typed(of_chain), t.typed(of_key));
    let opened =
        CertificateFiles { chain: t.in_working_dir(&files.chain), key: t.in_working_dir(&files.key) };
    for fault in smtp::tls::faults(&opened) {
        let readable = "give a PEM file that the relay may read";
        match fault {
            CertificateError::Chain { problem, .. } => {
                t.problem(of_chain, format!("{chain}: {problem}; {readable}"));
            }
            CertificateError::Key { problem, .. } => t.problem(of_key, format!("{key}: {problem}; {readable}")),
            CertificateError::Unfit { problem, .. } => t.problem(
                of_key,
                format!("{key} does not go with {chain}: {problem}; give the key that the certificate was made for"),
            ),
        }
    }
}

/// What an open relay, or a door that nobody can pass, would look like.
fn check_access(t: &mut TableReader<'_, '_>, listener: &ListenerSettings, anyone_logs_in: bool) {
    let exposed = !listener.address.ip().is_loopback();
    if exposed && listener.auth != AuthMode::Required && !t.is_written("allow") {
        t.problem(
            "address",
            "others than this host can reach it: write auth = \"required\", or write allow out \
             (such as allow = [\"10.0.0.0/8\"])",
        );
    }
    if listener.auth == AuthMode::Off {
        return;
    }
    if !anyone_logs_in {
        t.problem("auth", "there is no [[credential]] to log in with; write one, or auth = \"off\"");
    }
    if exposed && listener.tls == TlsMode::Off && !listener.auth_plaintext && !t.is_wrong("tls") {
        t.warning(
            "auth",
            "clients from other hosts are not offered AUTH: without TLS it is for loopback only; \
             set tls, or auth_plaintext = true on a network that nobody listens to",
        );
    }
}
