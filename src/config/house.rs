//! `[server]`, `[http]`, `[limits]` and `[retention]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Reader, TableReader};
use super::{LongLines, ServerSettings};
use super::{clients, kinds, vendors};
use crate::address::{Address, Grammar};
use crate::esp::postmark::Postmark;
use crate::esp::settings::{EspKind, EspSettings, Transport};
use crate::flow::whole::largest_octets;
use crate::http::settings::HttpSettings;
use crate::mail::effect::SoftRule;
use crate::smtp::content::MESSAGE_OCTETS_MAX;
use crate::smtp::{CertificateFiles, ListenerSettings};
use crate::store;

const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8025);
const LONG_LINES: &[(&str, LongLines)] = &[("reencode", LongLines::Reencode), ("refuse", LongLines::Refuse)];
const DSN: &[(&str, bool)] = &[("auto", true), ("off", false)];
/// Less would take small messages and tell 452 to every larger one. A third may be its recipients.
const MEMORY_OCTETS_MIN: u64 = 1_000_000;
const _: () = assert!(MEMORY_OCTETS_MIN / 3 * 2 >= MESSAGE_OCTETS_MAX);
/// A message with lines over 998 octets is mended in memory: as it came, and as it leaves.
const TIMES_TO_MEND: u64 = 3;
const DAY: Duration = Duration::from_secs(86_400);

/// `[server]`.
pub(super) fn server(reader: &mut Reader<'_>, host_name: &str) -> ServerSettings {
    let mut t = reader.one("server");
    let hostname = t.optional("hostname", kinds::own_name());
    let of_host = kinds::as_told(host_name);
    if hostname.is_none() && !t.is_set("hostname") && of_host.is_none() {
        t.warning(
            "hostname",
            "this host has no usable name; \"localhost\" is taken, which other servers may refuse",
        );
    }
    let server = ServerSettings {
        hostname: a_labels(hostname.or(of_host).unwrap_or_else(|| "localhost".into())),
        data_dir: data_dir(&mut t),
        origin: t.optional("origin", kinds::host_name()).map(a_labels),
        dsn: t.read("dsn", kinds::one_of(DSN), true),
        dsn_from: t.optional("dsn_from", kinds::parsed(own_address)),
        long_lines: t.read("long_lines", kinds::one_of(LONG_LINES), LongLines::Reencode),
        allow_vendor_headers: t.read("allow_vendor_headers", kinds::boolean, false),
    };
    t.finish(&[]);
    server
}

/// An address of the operator's own, for MAIL FROM and From at ESPs: ASCII with a domain.
pub(super) fn own_address(text: &str) -> Result<Address, String> {
    let bad = "is no address such as mailer-daemon@example.com";
    let address = Address::parse(text, Grammar::Strict).map_err(|_| bad.to_string())?;
    if address.wire().is_ascii() { Ok(address) } else { Err(format!("{bad} (in ASCII)")) }
}

/// The name goes into EHLO, replies and `Received`, which are ASCII (RFC 5891).
fn a_labels(name: String) -> String {
    if name.is_ascii() { name } else { idna::domain_to_ascii(&name).unwrap_or_else(|_| "localhost".into()) }
}

/// `[server] data_dir`.
pub(super) fn data_dir(t: &mut TableReader<'_, '_>) -> PathBuf {
    t.read("data_dir", kinds::path, PathBuf::from("data"))
}

/// Off loopback anybody may try tokens.
const TOKEN_OCTETS_MIN: usize = 16;

/// `[http]`.
pub(super) fn http(reader: &mut Reader<'_>) -> HttpSettings {
    let mut t = reader.one("http");
    let address = t.read("address", kinds::socket_address(), DEFAULT_ADDRESS);
    let public_address = t.optional("public_address", kinds::socket_address());
    if public_address.is_some_and(|public| public.port() != 0 && clients::meet(public, address)) {
        t.problem("public_address", "is where address listens already; give one of the two another port");
    }
    let public_url = t.optional("public_url", kinds::parsed(public_url));
    let trusted_proxies = t.read("trusted_proxies", kinds::list_of(kinds::network()), Vec::new());
    let admin_token = t.optional("admin_token", kinds::secret);
    if !address.ip().is_loopback() && !t.is_set("admin_token") {
        t.problem(
            "address",
            "others than this host can reach it: set admin_token, such as \"env:POSTROAD_ADMIN_TOKEN\"",
        );
    }
    if let Some(token) = &admin_token {
        if !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
            t.problem(
                "admin_token",
                "an HTTP header cannot carry it: take letters, digits and signs of ASCII, no blank",
            );
        } else if !address.ip().is_loopback() && token.expose().len() < TOKEN_OCTETS_MIN {
            let what = format!(
                "others than this host can reach the port, and it is short enough to be guessed: take at least \
                 {TOKEN_OCTETS_MIN} characters at random"
            );
            t.problem("admin_token", what);
        }
    }
    let certificate = certificate(&mut t);
    t.finish(&[]);
    HttpSettings { address, public_address, public_url, trusted_proxies, admin_token, certificate }
}

/// `https://host`, or `http://` on loopback: what goes there proves itself by a password, or tells of people.
fn public_url(text: &str) -> Result<String, String> {
    let (url, secure) = vendors::plain_url(text, "https://mail.example.com")?;
    if secure { Ok(url) } else { Err("is http, which others can read on its way; write https://".into()) }
}

/// `tls_cert` and `tls_key`; both or neither.
fn certificate(t: &mut TableReader<'_, '_>) -> Option<CertificateFiles> {
    let (chain, key) = (t.optional("tls_cert", kinds::path), t.optional("tls_key", kinds::path));
    for (name, missing, other) in
        [("tls_cert", chain.is_none(), key.is_some()), ("tls_key", key.is_none(), chain.is_some())]
    {
        // One that is there and cannot be read is told already.
        if missing && other && !t.is_wrong(name) {
            t.problem(
                name,
                "is missing: HTTPS needs both tls_cert and tls_key (PEM); leave out both for HTTP",
            );
        }
    }
    chain.zip(key).map(|(chain, key)| CertificateFiles { chain, key })
}

/// What only the relay has to read of `[http]`: a command may not be able to.
pub(super) fn check_http(reader: &mut Reader<'_>, http: &HttpSettings) {
    let mut t = reader.one("http");
    match &http.certificate {
        Some(files) => clients::check_certificate(&mut t, ["tls_cert", "tls_key"], files),
        None if !http.address.ip().is_loopback() && !t.is_wrong("address") => t.warning(
            "address",
            "tokens and mail cross the network in the clear: set tls_cert and tls_key, unless a proxy with TLS stands before it",
        ),
        None => {}
    }
}

/// `[suppression]`.
pub(super) fn suppression(reader: &mut Reader<'_>) -> SoftRule {
    let mut t = reader.one("suppression");
    let default = SoftRule::default();
    let rule = SoftRule {
        bounces: t.read("soft_bounces", kinds::integer(0..=1_000), default.bounces),
        window: t.read("soft_window", kinds::duration_or_zero(), default.window),
    };
    t.finish(&[]);
    rule
}

/// `[limits]` and `[retention]`: the memory for messages in flight in octets, and what the store keeps.
pub(super) fn limits(
    reader: &mut Reader<'_>,
    server: &ServerSettings,
    listeners: &[ListenerSettings],
    esps: &[EspSettings],
) -> (u64, store::Settings) {
    let mut t = reader.one("limits");
    let memory_octets = t.read("memory", kinds::size_from(MEMORY_OCTETS_MIN, "1MB"), 256_000_000);
    if server.long_lines == LongLines::Reencode {
        warn_of_lines(&mut t, memory_octets, listeners);
    }
    warn_of_apis(&mut t, memory_octets, listeners, esps);
    let queue_octets_max = t.read("queue_bytes", kinds::size(), 10_000_000_000);
    let min_free_octets = t.read("min_free", kinds::size_or_zero(), 200_000_000);
    t.finish(&[]);
    let mut t = reader.one("retention");
    let settings = store::Settings {
        data_dir: server.data_dir.clone(),
        queue_octets_max,
        min_free_octets,
        spread_log: true,
        keep_bodies: t.read("bodies", kinds::duration_or_zero(), DAY),
        keep_bodies_octets: t.read("bodies_bytes", kinds::size_or_zero(), 1_000_000_000),
        keep_messages: t.read("messages", kinds::duration(), 30 * DAY),
        keep_attempts: t.read("attempts", kinds::duration(), 30 * DAY),
        keep_events: t.read("events", kinds::duration(), 90 * DAY),
        sandboxes: sandboxes(esps),
        kin: kin(esps),
    };
    t.finish(&[]);
    (memory_octets, settings)
}

fn sandboxes(esps: &[EspSettings]) -> Vec<store::Sandboxed> {
    let kept = |esp: &EspSettings| match esp.kind {
        EspKind::Sandbox { keep } => Some(store::Sandboxed { esp: esp.name.clone(), messages_max: keep }),
        _ => None,
    };
    esps.iter().filter_map(kept).collect()
}

/// An identity of Amazon SES hears of all mail of its account, by SES's SMTP endpoint as a plain smarthost too.
fn kin(esps: &[EspSettings]) -> store::Kin {
    let mut kin = store::Kin::default();
    for esp in esps {
        let envelope_from = match &esp.kind {
            EspKind::Ses(ses) => &ses.access.envelope_from,
            EspKind::Smtp(smtp) => &smtp.envelope_from,
            EspKind::Sendgrid(_) | EspKind::Postmark(_) | EspKind::Sandbox { .. } => {
                kin.apart.push(esp.name.clone());
                continue;
            }
        };
        kin.senders.push((esp.name.clone(), envelope_from.as_ref().map(Address::key)));
    }
    kin
}

/// What a listener takes and an API alone would carry, with more memory.
fn warn_of_apis(
    t: &mut TableReader<'_, '_>,
    memory_octets: u64,
    listeners: &[ListenerSettings],
    esps: &[EspSettings],
) {
    let largest = largest_octets(memory_octets);
    let taken = listeners.iter().map(|listener| listener.max_message_size_octets).max().unwrap_or(0);
    let by_api_alone = esps.iter().find(|esp| largest < taken.min(api_octets(&esp.kind)));
    if let Some(esp) = by_api_alone {
        let what = format!(
            "[[esp]] {} is given mail by its API alone, which takes eight times its size of memory: it gets none over \
             {largest} octets, and a [[listener]] takes larger ones (max_message_size)",
            esp.name
        );
        t.warning("memory", what);
    }
}

/// The largest message that such an ESP takes by its API, where it has no other door; else nought.
fn api_octets(kind: &EspKind) -> u64 {
    // 40 MB in base64, and 30 MB as JSON.
    const AMAZON_AND_SENDGRID: u64 = 30_000_000;
    match kind {
        EspKind::Ses(ses) if ses.access.transport == Transport::Api || ses.keys.is_none() => {
            AMAZON_AND_SENDGRID
        }
        EspKind::Sendgrid(sendgrid) if sendgrid.access.transport == Transport::Api => AMAZON_AND_SENDGRID,
        EspKind::Postmark(postmark) if postmark.access.transport == Transport::Api => {
            Postmark::MESSAGE_OCTETS_MAX
        }
        _ => 0,
    }
}

/// What a listener takes and the memory cannot mend is refused: better told here than to the first client.
fn warn_of_lines(t: &mut TableReader<'_, '_>, memory_octets: u64, listeners: &[ListenerSettings]) {
    let mendable_octets = memory_octets / TIMES_TO_MEND;
    if listeners.iter().any(|listener| listener.max_message_size_octets > mendable_octets) {
        let what = format!(
            "a message with lines over 998 octets is mended in memory: over {mendable_octets} octets it may be refused \
             with 552, and a [[listener]] takes larger ones (max_message_size)"
        );
        t.warning("memory", what);
    }
}
