//! AWS's signatures, version 4: checked as the service does, and made where a test has no SDK.

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use postroad::clock::Timestamp;

use super::http::Request;

/// How far a request's clock may be off.
const SKEW_MAX_MS: i64 = 5 * 60 * 1000;

/// A credential and what it is for.
#[derive(Clone, Debug)]
pub struct Credential {
    pub access_key_id: String,
    pub secret: String,
    pub region: String,
}

/// Why a signature does not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// There is none.
    Missing,
    /// Its form is not that of a signature, or it leaves out what has to be signed.
    Incomplete,
    UnknownKey,
    /// Another region, service or day.
    Scope,
    /// Its time is not about now.
    Expired,
    Mismatch,
}

/// What the `Authorization` field of a signed request says.
struct Signed<'r> {
    access_key_id: &'r str,
    /// Day, region, service, terminator.
    scope: [&'r str; 4],
    names: Vec<&'r str>,
    signature: &'r str,
}

fn authorization(request: &Request) -> Result<Signed<'_>, Bad> {
    let value = request.header("Authorization").ok_or(Bad::Missing)?;
    let rest = value.strip_prefix("AWS4-HMAC-SHA256 ").ok_or(Bad::Incomplete)?;
    let item = |name: &str| rest.split(',').find_map(|i| i.trim().strip_prefix(name)?.strip_prefix('='));
    let (credential, names, signature) = (item("Credential"), item("SignedHeaders"), item("Signature"));
    let parts: Vec<&str> = credential.ok_or(Bad::Incomplete)?.split('/').collect();
    let [access_key_id, day, region, service, end] = parts[..] else { return Err(Bad::Incomplete) };
    Ok(Signed {
        access_key_id,
        scope: [day, region, service, end],
        names: names.ok_or(Bad::Incomplete)?.split(';').collect(),
        signature: signature.ok_or(Bad::Incomplete)?,
    })
}

/// Whether the request is signed by this credential, for this service, about now.
pub fn verify(request: &Request, credential: &Credential, service: &str, now: Timestamp) -> Result<(), Bad> {
    let signed = authorization(request)?;
    let date = request.header("X-Amz-Date").ok_or(Bad::Incomplete)?;
    let covers = |name: &str| signed.names.contains(&name);
    let unsigned_amz = request.headers.iter().any(|(name, _)| {
        let name = name.to_ascii_lowercase();
        name.starts_with("x-amz-") && !covers(&name) && name != "x-amz-user-agent"
    });
    if !covers("host") || !covers("x-amz-date") || unsigned_amz || !signed.names.is_sorted() {
        return Err(Bad::Incomplete);
    }
    if signed.access_key_id != credential.access_key_id {
        return Err(Bad::UnknownKey);
    }
    let at = moment(date).ok_or(Bad::Incomplete)?;
    let day = date.get(..8).unwrap_or_default();
    if signed.scope != [day, &credential.region, service, "aws4_request"] {
        return Err(Bad::Scope);
    }
    if (now.millis() - at.millis()).abs() > SKEW_MAX_MS {
        return Err(Bad::Expired);
    }
    let right = signature(request, &signed.names, date, credential, service);
    if right == signed.signature { Ok(()) } else { Err(Bad::Mismatch) }
}

/// `20150830T123600Z` as a moment.
fn moment(date: &str) -> Option<Timestamp> {
    let parsed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).ok()?;
    let at = jiff::tz::Offset::UTC.to_timestamp(parsed).ok()?;
    Some(Timestamp::from_millis(at.as_millisecond()))
}

/// A moment as it stands in `X-Amz-Date`.
pub fn amz_date(at: Timestamp) -> String {
    at.to_string().chars().filter(|c| !"-:".contains(*c)).take(15).chain(['Z']).collect()
}

/// The value of `Authorization` for a request that has all its other fields.
pub fn sign(request: &Request, credential: &Credential, service: &str) -> String {
    let mut names: Vec<String> = request.headers.iter().map(|(n, _)| n.to_ascii_lowercase()).collect();
    names.retain(|n| n == "host" || n == "content-type" || n.starts_with("x-amz-"));
    names.sort();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let date = request.header("X-Amz-Date").unwrap_or_default();
    let signature = signature(request, &names, date, credential, service);
    let (id, region) = (&credential.access_key_id, &credential.region);
    format!(
        "AWS4-HMAC-SHA256 Credential={id}/{}/{region}/{service}/aws4_request, SignedHeaders={}, Signature={signature}",
        &date[..8.min(date.len())],
        names.join(";")
    )
}

fn signature(
    request: &Request,
    names: &[&str],
    date: &str,
    credential: &Credential,
    service: &str,
) -> String {
    let day = date.get(..8).unwrap_or_default();
    let scope = format!("{day}/{}/{service}/aws4_request", credential.region);
    let canonical = hex(digest::digest(&digest::SHA256, canonical(request, names).as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{canonical}");
    let key = chain(&credential.secret, &[day, &credential.region, service, "aws4_request"]);
    hex(&mac(&key, text.as_bytes()))
}

/// The request in the one form that is signed.
fn canonical(request: &Request, names: &[&str]) -> String {
    let path: Vec<String> = request.path.split('/').map(encode).collect();
    let mut query: Vec<String> =
        request.query.split('&').filter(|p| !p.is_empty()).map(str::to_owned).collect();
    query.iter_mut().filter(|p| !p.contains('=')).for_each(|p| p.push('='));
    query.sort();
    let mut out = format!("{}\n{}\n{}\n", request.method, path.join("/"), query.join("&"));
    for name in names {
        let values = request.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let values: Vec<String> =
            values.map(|(_, v)| v.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        out += &format!("{name}:{}\n", values.join(","));
    }
    let body = hex(digest::digest(&digest::SHA256, &request.body).as_ref());
    out + "\n" + &names.join(";") + "\n" + &body
}

/// A segment of a path, encoded once more, as every service but one wants it.
fn encode(segment: &str) -> String {
    let one = |b: u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    segment.bytes().map(one).collect()
}

/// Keys made one out of the other, from `AWS4` and the secret.
fn chain(secret: &str, words: &[&str]) -> Vec<u8> {
    words.iter().fold(format!("AWS4{secret}").into_bytes(), |key, word| mac(&key, word.as_bytes()))
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The password of SES's SMTP door for a secret access key.
pub fn smtp_password(secret: &str, region: &str) -> String {
    let key = chain(secret, &["11111111", region, "ses", "aws4_request", "SendRawEmail"]);
    base64::engine::general_purpose::STANDARD.encode([&[4], key.as_slice()].concat())
}
