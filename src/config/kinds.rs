//! The kinds of value that keys take: each reads a value, or says what it must be. What did not stand in the file
//! itself is never repeated in an error, since it may be a secret in the wrong place.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use ipnet::IpNet;

use super::environment::Resolved;
use super::problem::did_you_mean;
use super::reader::{Item, Kind};
use super::units;
use super::written::Value;
use crate::address::domain_ok;
use crate::policy::streams::RetrySchedule;
use crate::secret::Secret;

/// Characters of a wrong value that an error repeats.
const SHOWN_CHARS_MAX: usize = 60;
/// A password: an AUTH line holds no more (RFC 4954 section 4.5) after base64.
const PASSWORD_OCTETS_MAX: usize = 4_096;
/// Memory that one verification of a password may take; two run at a time.
const ARGON2_MEMORY_KIB_MAX: u32 = 256 * 1024;

impl Resolved {
    /// The value as an error may name it.
    fn shown(&self) -> String {
        let text = without_login(&self.text);
        match &self.from {
            Some(from) if text.is_empty() => format!("the empty value of {from}"),
            Some(from) => format!("the value of {from}"),
            None if text.chars().count() <= SHOWN_CHARS_MAX => format!("{text:?}"),
            None => format!("{:?}…", text.chars().take(SHOWN_CHARS_MAX).collect::<String>()),
        }
    }
}

/// A URL may bear a login, `smtp://user:password@host`, also where none belongs.
fn without_login(text: &str) -> Cow<'_, str> {
    let before_host = text.find("://").map_or(0, |at| at + 3);
    match text.rfind('@') {
        Some(at) if at > before_host && text[before_host..at].contains(':') => {
            Cow::Owned(format!("{}***{}", &text[..before_host], &text[at..]))
        }
        _ => Cow::Borrowed(text),
    }
}

/// Any text that is not empty.
pub(super) fn text(item: &Item<'_>) -> Result<String, String> {
    let Resolved { text, from } = item.text()?;
    match from {
        Some(from) if text.is_empty() => Err(format!("the value of {from} is empty")),
        None if text.is_empty() => Err("is empty".into()),
        _ if text.contains(|c: char| c.is_control()) => Err("must be text without control characters".into()),
        _ => Ok(text),
    }
}

/// A path; relative ones start from the working directory.
pub(super) fn path(item: &Item<'_>) -> Result<PathBuf, String> {
    text(item).map(PathBuf::from)
}

/// A password or a token.
pub(super) fn secret(item: &Item<'_>) -> Result<Secret, String> {
    let Resolved { text, from } = item.text()?;
    match from {
        _ if text.contains('\0') => Err("holds a NUL, which no login can carry".into()),
        _ if text.len() > PASSWORD_OCTETS_MAX => Err(format!("is longer than {PASSWORD_OCTETS_MAX} octets")),
        Some(from) if text.is_empty() => Err(format!("the value of {from} is empty")),
        None if text.is_empty() => Err("is empty".into()),
        _ => Ok(Secret::new(text)),
    }
}

/// A key that goes into a header field of HTTP, or signs what does.
pub(super) fn header_secret(item: &Item<'_>) -> Result<Secret, String> {
    let key = secret(item)?;
    if key.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(key);
    }
    let whose = item.text()?.from.map_or_else(String::new, |from| format!("the value of {from} "));
    Err(format!("{whose}holds a blank, a line end or another character that is in no key; copy it anew"))
}

/// An argon2 hash in PHC form that can be verified with bounded memory.
pub(super) fn password_hash(item: &Item<'_>) -> Result<Secret, String> {
    let hash = secret(item)?;
    let bad = "is not an argon2 hash such as $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH";
    let parsed = PasswordHash::new(hash.expose()).map_err(|_| bad.to_string())?;
    let known = argon2::Algorithm::try_from(parsed.algorithm.as_str()).is_ok();
    let params = argon2::Params::try_from(&parsed).map_err(|_| bad.to_string())?;
    if !known || parsed.salt.is_none() || parsed.hash.is_none() {
        return Err(bad.into());
    }
    if params.m_cost() > ARGON2_MEMORY_KIB_MAX {
        return Err(format!("wants more than m={ARGON2_MEMORY_KIB_MAX} (KiB) of memory for each login"));
    }
    Ok(hash)
}

/// `true` or `false`.
pub(super) fn boolean(item: &Item<'_>) -> Result<bool, String> {
    let bad = || "must be true or false".to_string();
    match item.value() {
        Value::Boolean(yes) => Ok(*yes),
        value if is_indirect(value) => item.text()?.text.parse().map_err(|_| bad()),
        _ => Err(bad()),
    }
}

/// A whole number in these bounds.
pub(super) fn integer<T>(bounds: RangeInclusive<T>) -> impl Kind<T>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    move |item: &Item<'_>| {
        let bad = || format!("must be a whole number from {} to {}", bounds.start(), bounds.end());
        let number = match item.value() {
            Value::Integer(number) => *number,
            value if is_indirect(value) => item.text()?.text.parse::<i64>().map_err(|_| bad())?,
            _ => return Err(bad()),
        };
        T::try_from(number).ok().filter(|number| bounds.contains(number)).ok_or_else(bad)
    }
}

/// Whether a string may stand for a number or a boolean.
fn is_indirect(value: &Value) -> bool {
    match value {
        Value::Word(_) => true,
        Value::Text(text) => text.starts_with("env:") || text.starts_with("file:"),
        _ => false,
    }
}

/// One of these words.
pub(super) fn one_of<T: Clone>(words: &'static [(&'static str, T)]) -> impl Kind<T> {
    move |item: &Item<'_>| {
        let given = item.text()?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == given.text) {
            return Ok(meaning.clone());
        }
        let all: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let near = did_you_mean(&given.text, words.iter().map(|(word, _)| *word));
        Err(format!("{} is not one of {}{near}", given.shown(), all.join(", ")))
    }
}

/// A string that `parse` understands; its errors begin with a verb.
pub(super) fn parsed<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Kind<T> {
    move |item: &Item<'_>| {
        let given = item.text()?;
        parse(&given.text).map_err(|what| format!("{} {what}", given.shown()))
    }
}

/// A duration above zero.
pub(super) fn duration() -> impl Kind<Duration> {
    parsed(|text| match units::duration(text)? {
        Duration::ZERO => Err("is zero".into()),
        duration => Ok(duration),
    })
}

/// A duration, also `"0s"`.
pub(super) fn duration_or_zero() -> impl Kind<Duration> {
    parsed(units::duration)
}

/// A size above zero, in octets.
pub(super) fn size() -> impl Kind<u64> {
    parsed(|text| match units::size(text)? {
        0 => Err("is zero".into()),
        octets => Ok(octets),
    })
}

/// A size of at least so much, in octets; `least` is how that is written.
pub(super) fn size_from(octets_min: u64, least: &'static str) -> impl Kind<u64> {
    parsed(move |text| match units::size(text)? {
        octets if octets < octets_min => {
            Err(format!("is less than one message may need: write at least {least}"))
        }
        octets => Ok(octets),
    })
}

/// A size, also `"0B"`, in octets.
pub(super) fn size_or_zero() -> impl Kind<u64> {
    parsed(units::size)
}

/// A retry schedule.
pub(super) fn retry_schedule() -> impl Kind<RetrySchedule> {
    parsed(units::retry_schedule)
}

/// A host name or an address literal.
pub(super) fn host_name() -> impl Kind<String> {
    parsed(|text| match domain_ok(text) {
        true => Ok(text.to_string()),
        false => Err("is not a host name".into()),
    })
}

/// This host's own name, as it is told in EHLO: without the dot at its end, an IP address as a literal (RFC 5321 section
/// 4.1.3).
pub(super) fn own_name() -> impl Kind<String> {
    parsed(|text| match as_told(text) {
        None => Err("is neither a host name nor an IP address".into()),
        // Some servers look at what EHLO names (RFC 5321 section 2.3.5); DNS knows such names, hosts do not have them.
        Some(name) if name.contains('_') => {
            Err("is no host name: it has letters, digits and hyphens between its dots, and no underscore"
                .into())
        }
        Some(name) => Ok(name),
    })
}

/// A host's name, or its address, as EHLO has it; `None`: it is neither.
pub(super) fn as_told(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => return Some(format!("[{ip}]")),
        Ok(IpAddr::V6(ip)) => return Some(format!("[IPv6:{ip}]")),
        Err(_) => {}
    }
    (domain_ok(name) && !name.ends_with('.') && !ends_in_number(name)).then(|| name.to_owned())
}

/// 127.1, 1.2.3, 256.1.1.1 and foo.0x1f are addresses to some and names to nobody (RFC 3696 section 2; the URL standard's
/// "ends in a number").
fn ends_in_number(name: &str) -> bool {
    let last = name.strip_suffix('.').unwrap_or(name).rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => last.bytes().all(|b| b.is_ascii_digit()),
    }
}

/// Where to listen: an IP address and a port.
pub(super) fn socket_address() -> impl Kind<SocketAddr> {
    parsed(|text| {
        text.parse().map_err(|_| {
            "is not an IP address and a port, such as 127.0.0.1:2525, 0.0.0.0:587 or [::1]:2525".to_string()
        })
    })
}

/// Where to connect to: host name or IP address, and a port.
pub(super) fn host_and_port() -> impl Kind<(String, u16)> {
    parsed(|text| {
        let bad = || "is not a host and a port, such as smtp.example.net:587 or [2001:db8::1]:25".to_string();
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good = match bracketed {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            None if host.parse::<std::net::Ipv4Addr>().is_ok() => true,
            None => domain_ok(host) && !host.starts_with('[') && !ends_in_number(host),
        };
        if good { Ok((bracketed.unwrap_or(host).to_string(), port)) } else { Err(bad()) }
    })
}

/// Where secrets are sent by HTTP: https, or http on this machine.
pub(super) fn token_url() -> impl Kind<String> {
    parsed(|text| {
        let bad = || "is not a URL such as https://login.example.com/oauth2/token".to_string();
        let url = reqwest::Url::parse(text).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || url.fragment().is_some() {
            return Err(bad());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a login; the keys for that are client_id and client_secret".into());
        }
        if url.scheme() == "http" && !on_loopback(text) {
            return Err("would send secrets in the clear; write https://".into());
        }
        Ok(url.into())
    })
}

/// Whether that URL leads to this machine.
pub(super) fn on_loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A network, `10.0.0.0/8`, or one address.
pub(super) fn network() -> impl Kind<IpNet> {
    parsed(|text| {
        let one = text.parse::<IpAddr>().map(IpNet::from);
        one.or_else(|_| text.parse())
            .map_err(|_| "is not a network such as 10.0.0.0/8 or 2001:db8::/32".into())
    })
}

/// A name of an ESP or a stream: `[a-z0-9-]{1,40}`, and `_` where `underscores`.
pub(super) fn name(underscores: bool) -> impl Kind<String> {
    const NAME_CHARS_MAX: usize = 40;
    parsed(move |text| {
        let fits =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (underscores && b == b'_');
        if (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(fits) {
            return Ok(text.to_string());
        }
        let also = if underscores { ", underscores" } else { "" };
        Err(format!("is not a name: 1 to {NAME_CHARS_MAX} lower-case letters, digits{also} and hyphens"))
    })
}

/// A list of one kind; from an environment variable: parted by commas.
pub(super) fn list_of<T>(kind: impl Kind<T>) -> impl Kind<Vec<T>> {
    move |item: &Item<'_>| {
        if let Value::Word(words) = item.value() {
            let words = item.resolve(words)?;
            let parts = words.split(',').map(str::trim).filter(|word| !word.is_empty());
            return parts.map(|word| kind.read(&item.with(&item.word(word)))).collect();
        }
        let Value::List(values) = item.value() else {
            return Err(format!("must be a list, such as [\"…\", \"…\"], not {}", item.value().kind()));
        };
        let read = |(n, value)| {
            let meaning = kind.read(&item.with(value));
            meaning.map_err(|what| format!("item {}: {what}", n + 1))
        };
        values.iter().enumerate().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_does_not_repeat_the_login_of_a_url() {
        for (text, shown) in [
            ("smtp://u:hunter2@host:25", "smtp://***@host:25"),
            ("u:hunter2@host", "***@host"),
            ("u:p@ss:w@host", "***@host"),
            ("bounces@example.net", "bounces@example.net"),
            ("host:25", "host:25"),
        ] {
            assert_eq!(without_login(text), shown);
        }
    }
}
