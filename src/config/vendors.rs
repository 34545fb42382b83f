//! `[[esp]]` with an API of its own: `ses`, `sendgrid` and `postmark`. Keys never go over an unverified line, except on
//! loopback.

use std::net::IpAddr;

use reqwest::Url;

use super::esps::{check_ca_file, envelope_from};
use super::kinds;
use super::reader::{Item, Kind, TableReader};
use crate::esp::settings::{
    Access, LineSettings, PostmarkSettings, SendgridRegion, SendgridSettings, SesSettings, SmtpEndpoint,
    SmtpTls, Transport,
};

const TRANSPORTS: &[(&str, Transport)] =
    &[("auto", Transport::Auto), ("api", Transport::Api), ("smtp", Transport::Smtp)];
const SENDGRID_REGIONS: &[(&str, SendgridRegion)] =
    &[("global", SendgridRegion::Global), ("eu", SendgridRegion::Eu)];
/// Postmark's name for a stream, or Amazon's for a region or a configuration set.
const NAME_OCTETS_MAX: usize = 64;
/// Where Postmark's default streams lie.
const OUTBOUND: &str = "outbound";
const BROADCAST: &str = "broadcast";

/// What only these types have, all together: for errors at the others.
pub(super) const ACCESS_KEYS: [&str; 3] = ["transport", "endpoint", "smtp_endpoint"];
pub(super) const SES_KEYS: [&str; 3] = ["access_key_id", "secret_access_key", "configuration_set"];
pub(super) const SENDGRID_KEYS: [&str; 1] = ["api_key"];
pub(super) const POSTMARK_KEYS: [&str; 2] = ["server_token", "message_stream"];

/// `type = "ses"`.
pub(super) fn ses(t: &mut TableReader<'_, '_>, lines: LineSettings) -> Option<SesSettings> {
    let region = t.required("region", kinds::parsed(aws_region), "\"eu-central-1\"");
    let id = t.optional("access_key_id", kinds::text);
    let secret = t.optional("secret_access_key", kinds::header_secret);
    let configuration_set = t.optional("configuration_set", kinds::parsed(plain_name));
    let access = access(t, lines);
    match (t.is_set("access_key_id"), t.is_set("secret_access_key")) {
        (true, false) => t.problem(
            "access_key_id",
            "has no secret_access_key beside it; write secret_access_key = \"env:AWS_SECRET_ACCESS_KEY\"",
        ),
        (false, true) => t.problem("secret_access_key", "has no access_key_id beside it"),
        (false, false) if access.transport == Transport::Smtp => t.problem(
            "transport",
            "\"smtp\" needs access_key_id and secret_access_key: the password is made of them",
        ),
        _ => {}
    }
    Some(SesSettings { access, region: region?, keys: id.zip(secret), configuration_set })
}

/// `type = "sendgrid"`.
pub(super) fn sendgrid(t: &mut TableReader<'_, '_>, lines: LineSettings) -> Option<SendgridSettings> {
    let api_key = t.required("api_key", kinds::header_secret, "\"env:SENDGRID_API_KEY\"");
    let region = t.read("region", kinds::one_of(SENDGRID_REGIONS), SendgridRegion::default());
    let access = access(t, lines);
    Some(SendgridSettings { access, api_key: api_key?, region })
}

/// `type = "postmark"`.
pub(super) fn postmark(t: &mut TableReader<'_, '_>, lines: LineSettings) -> Option<PostmarkSettings> {
    let server_token = t.required("server_token", kinds::header_secret, "\"env:POSTMARK_API_KEY\"");
    let such_as = "{ transactional = \"outbound\", broadcast = \"broadcast\" }";
    let streams = t.entries("message_stream", such_as, |key: &str, item: &Item<'_>| match key {
        OUR_TRANSACTIONAL | OUR_BROADCAST => {
            Ok((key == OUR_BROADCAST, Kind::read(&kinds::parsed(plain_name), item)?))
        }
        _ => Err("is neither transactional nor broadcast".to_owned()),
    });
    let of = |broadcast: bool, default: &str| {
        let found = streams.iter().find(|(kind, _)| *kind == broadcast);
        found.map_or_else(|| default.to_owned(), |(_, name)| name.clone())
    };
    let (transactional, broadcast) = (of(false, OUTBOUND), of(true, BROADCAST));
    let access = access(t, lines);
    Some(PostmarkSettings { access, server_token: server_token?, transactional, broadcast })
}

const OUR_TRANSACTIONAL: &str = "transactional";
const OUR_BROADCAST: &str = "broadcast";

fn access(t: &mut TableReader<'_, '_>, lines: LineSettings) -> Access {
    let access = Access {
        transport: t.read("transport", kinds::one_of(TRANSPORTS), Transport::default()),
        endpoint: t.optional("endpoint", kinds::parsed(endpoint)),
        smtp_endpoint: t.optional("smtp_endpoint", kinds::parsed(smtp_endpoint)),
        ca_file: t.optional("ca_file", kinds::path),
        envelope_from: t.read("envelope_from", kinds::parsed(envelope_from), None),
        lines,
    };
    match &access.ca_file {
        Some(_) if ["endpoint", "smtp_endpoint", "sns_endpoint"].iter().all(|key| !t.is_set(key)) => {
            t.problem(
                "ca_file",
                "is for endpoint, smtp_endpoint and sns_endpoint; the ESP's own have public certificates",
            );
        }
        Some(path) => check_ca_file(t, path),
        None => {}
    }
    match access.transport {
        Transport::Api if t.is_set("smtp_endpoint") => {
            t.warning("smtp_endpoint", "is not used: transport is \"api\"");
        }
        Transport::Smtp if t.is_set("endpoint") => {
            t.warning("endpoint", "is not used: transport is \"smtp\"")
        }
        _ => {}
    }
    access
}

/// `https://host`, or `http://` on loopback.
pub(super) fn endpoint(text: &str) -> Result<String, String> {
    let (url, secure) = plain_url(text, "https://api.example.net or http://127.0.0.1:8100")?;
    if secure { Ok(url) } else { Err("would send the key over an unverified line; write https://".into()) }
}

/// A URL of host and path alone, without a `/` at its end; and whether nobody reads on the way there: https, or http on
/// loopback.
pub(super) fn plain_url(text: &str, example: &str) -> Result<(String, bool), String> {
    let bad = || format!("is not a URL such as {example}");
    let url = Url::parse(text).map_err(|_| bad())?;
    let host = url.host_str().ok_or_else(bad)?;
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err("has more than scheme, host, port and path; keys have fields of their own".into());
    }
    let secure = match url.scheme() {
        "https" => true,
        "http" => is_loopback(host),
        _ => return Err(bad()),
    };
    Ok((text.trim_end_matches('/').to_owned(), secure))
}

/// `smtp://host:port`: plain on loopback, STARTTLS elsewhere; `smtps://host:port`: TLS from the first octet.
fn smtp_endpoint(text: &str) -> Result<SmtpEndpoint, String> {
    let bad = "is not a URL such as smtp://127.0.0.1:2600 or smtps://mail.example.net:465";
    let url = Url::parse(text).map_err(|_| bad.to_owned())?;
    let host = url.host_str().ok_or(bad)?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port().ok_or("has no port")?;
    if !url.username().is_empty() || url.password().is_some() || !matches!(url.path(), "" | "/") {
        return Err("has more than scheme, host and port; keys have fields of their own".into());
    }
    let tls = match url.scheme() {
        "smtp" if is_loopback(&host) => SmtpTls::Off,
        "smtp" => SmtpTls::StartTls,
        "smtps" => SmtpTls::Implicit,
        _ => return Err(bad.into()),
    };
    Ok(SmtpEndpoint { host, port, tls })
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

fn aws_region(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match text.bytes().all(fits) && text.contains('-') && text.len() <= NAME_OCTETS_MAX {
        true => Ok(text.to_owned()),
        false => Err("is not a region such as eu-central-1".into()),
    }
}

fn plain_name(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    match !text.is_empty() && text.bytes().all(fits) && text.len() <= NAME_OCTETS_MAX {
        true => Ok(text.to_owned()),
        false => Err(format!("is not a name: 1 to {NAME_OCTETS_MAX} letters, digits, _ and -")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_https_or_stays_on_this_machine() {
        for (text, good) in [
            ("https://api.example.net/", Some("https://api.example.net")),
            ("https://api.example.net:8443/base", Some("https://api.example.net:8443/base")),
            ("http://127.0.0.1:8100", Some("http://127.0.0.1:8100")),
            ("http://[::1]:8100", Some("http://[::1]:8100")),
            ("http://localhost:8100", Some("http://localhost:8100")),
            ("http://api.example.net", None),
            ("https://u:p@api.example.net", None),
            ("https://api.example.net?x=1", None),
            ("ftp://127.0.0.1", None),
            ("api.example.net", None),
        ] {
            assert_eq!(endpoint(text).ok().as_deref(), good, "{text}");
        }
    }

    #[test]
    fn an_smtp_endpoint_is_plain_on_this_machine_alone() {
        for (text, good) in [
            ("smtp://127.0.0.1:2600", Some(("127.0.0.1", 2600, SmtpTls::Off))),
            ("smtp://[::1]:2600", Some(("::1", 2600, SmtpTls::Off))),
            ("smtp://mail.example.net:587", Some(("mail.example.net", 587, SmtpTls::StartTls))),
            ("smtps://127.0.0.1:465", Some(("127.0.0.1", 465, SmtpTls::Implicit))),
            ("smtp://127.0.0.1", None),
            ("smtp://u@127.0.0.1:25", None),
            ("http://127.0.0.1:25", None),
        ] {
            let good = good.map(|(host, port, tls)| SmtpEndpoint { host: host.into(), port, tls });
            assert_eq!(smtp_endpoint(text).ok(), good, "{text}");
        }
    }
}
