//! Amazon SES's `POST /v2/email/outbound-emails` with raw content, and `GET /v2/email/account`.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{MessageParser, MimeHeaders as _};
use postroad::clock::{Clock as _, System};
use serde_json::{Value, json};

use super::address;
use super::http::{Answered, Desk, Request, Response};
use super::ses_destinations::Destinations;
use super::sigv4::{self, Bad, Credential};
use super::taken::{Books, Door, Taken, header_of};
use super::{Standin, Start, Vendor};
use crate::support::mailgen;

pub type Ses = Standin<Rules>;

pub const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
pub const REGION: &str = "eu-west-1";

pub(super) const RECIPIENTS_MAX: usize = 50;
/// Of the message in base64.
pub(super) const DATA_MAX: usize = 40 * 1024 * 1024;
/// Of a line with its CRLF.
const LINE_MAX: usize = 1000;
const TAGS_MAX: usize = 50;
const TAG_CHARS_MAX: usize = 256;

/// Header fields that may occur only once.
pub const SINGLE_HEADERS: [&str; 60] = [
    "Accept-Language",
    "acceptLanguage",
    "Archived-At",
    "Auto-Submitted",
    "Bounces-to",
    "Comments",
    "Content-Alternative",
    "Content-Base",
    "Content-Class",
    "Content-Description",
    "Content-Disposition",
    "Content-Duration",
    "Content-ID",
    "Content-Language",
    "Content-Length",
    "Content-Location",
    "Content-MD5",
    "Content-Transfer-Encoding",
    "Content-Type",
    "Date",
    "Delivered-To",
    "Disposition-Notification-Options",
    "Disposition-Notification-To",
    "DKIM-Signature",
    "DomainKey-Signature",
    "Errors-To",
    "From",
    "Importance",
    "In-Reply-To",
    "Keywords",
    "List-Archive",
    "List-Help",
    "List-Id",
    "List-Owner",
    "List-Post",
    "List-Subscribe",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Message-Context",
    "Message-ID",
    "MIME-Version",
    "Organization",
    "Original-From",
    "Original-Message-ID",
    "Original-Recipient",
    "Original-Subject",
    "Precedence",
    "Priority",
    "References",
    "Reply-To",
    "Return-Path",
    "Return-Receipt-To",
    "Sender",
    "Solicitation",
    "Sensitivity",
    "Subject",
    "Thread-Index",
    "Thread-Topic",
    "User-Agent",
    "VBR-Info",
];

/// Extensions of attachments that it does not take; a part of its list.
const FORBIDDEN_EXTENSIONS: [&str; 48] = [
    "ade", "adp", "app", "asp", "bas", "bat", "cer", "chm", "cmd", "com", "cpl", "crt", "csh", "der", "exe",
    "fxp", "gadget", "hlp", "hta", "inf", "ins", "isp", "its", "js", "jse", "ksh", "lib", "lnk", "mdb",
    "mde", "msc", "msi", "msp", "mst", "pcd", "pif", "prg", "reg", "scr", "sct", "shs", "sys", "vb", "vbe",
    "vbs", "wsc", "wsf", "wsh",
];

/// Fields of a request that are texts.
const TEXTS: [&str; 7] = [
    "FromEmailAddress",
    "FromEmailAddressIdentityArn",
    "FeedbackForwardingEmailAddress",
    "FeedbackForwardingEmailAddressIdentityArn",
    "ConfigurationSetName",
    "EndpointId",
    "TenantName",
];

/// What the account may send.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Recipients in 24 hours; -1: no end.
    pub max_24_hours: f64,
    pub max_rate: f64,
    pub sent_24_hours: f64,
    pub sending_enabled: bool,
    /// Out of the sandbox.
    pub production: bool,
}

impl Default for Quota {
    fn default() -> Self {
        Quota {
            max_24_hours: 50_000.0,
            max_rate: 14.0,
            sent_24_hours: 0.0,
            sending_enabled: true,
            production: true,
        }
    }
}

/// SES's desk.
pub struct Rules {
    pub(super) credential: Credential,
    pub(super) books: Arc<Books>,
    quota: Mutex<Quota>,
    /// `None`: every one exists.
    configuration_sets: Mutex<Option<Vec<String>>>,
    destinations: Destinations,
}

impl Ses {
    pub fn start() -> Self {
        Self::start_with(ACCESS_KEY_ID, SECRET, REGION, &Start::default()).unwrap()
    }

    pub fn start_tls() -> Self {
        Self::start_with(ACCESS_KEY_ID, SECRET, REGION, &Start { tls: true, ..Start::default() }).unwrap()
    }

    pub fn start_with(
        access_key_id: &str,
        secret: &str,
        region: &str,
        start: &Start,
    ) -> std::io::Result<Self> {
        let books = Arc::new(Books::default());
        let credential = Credential {
            access_key_id: access_key_id.to_owned(),
            secret: secret.to_owned(),
            region: region.to_owned(),
        };
        let rules = Rules {
            credential,
            books: books.clone(),
            quota: Mutex::default(),
            configuration_sets: Mutex::new(None),
            destinations: Destinations::default(),
        };
        Standin::open(rules, books, start)
    }

    pub fn credential(&self) -> &Credential {
        &self.vendor.credential
    }

    pub fn set_quota(&self, quota: Quota) {
        *self.vendor.quota.lock().unwrap() = quota;
    }

    pub fn quota(&self) -> Quota {
        *self.vendor.quota.lock().unwrap()
    }

    /// Where it publishes.
    pub fn destinations(&self) -> &Destinations {
        &self.vendor.destinations
    }

    /// From now on these configuration sets alone exist.
    pub fn only_configuration_sets(&self, names: &[&str]) {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        *self.vendor.configuration_sets.lock().unwrap() = Some(names);
    }
}

impl Vendor for Rules {
    const NAME: &'static str = "ses";

    fn key(&self) -> &str {
        &self.credential.secret
    }

    fn errors() -> Vec<(&'static str, Response)> {
        vec![
            ("throttled", throttled()),
            ("throttled-common", error(400, "ThrottlingException", "Rate exceeded")),
            ("daily-quota", daily_quota()),
            ("limit-exceeded", error(400, "LimitExceededException", "Daily message quota exceeded.")),
            ("sender-not-verified", sender_not_verified("nobody@example.org", REGION)),
            ("duplicate-header", duplicate_header("DKIM-Signature")),
            ("rejected", rejected("Transaction failed: the message contains a virus.")),
            ("mail-from-not-verified", mail_from_not_verified()),
            ("suspended", suspended()),
            ("sending-paused", sending_paused()),
            ("sending-paused-v1", error(400, "AccountSendingPausedException", "Email sending is disabled.")),
            (
                "set-paused",
                error(400, "ConfigurationSetSendingPausedException", "The configuration set is paused."),
            ),
            ("not-found", configuration_set_not_found("nowhere")),
            ("bad-request", error(400, "BadRequestException", "Invalid request.")),
            ("too-large", too_large(DATA_MAX + 1)),
            ("internal-error", internal_error()),
            ("internal-failure", error(500, "InternalFailure", "Internal failure.")),
            ("bad-gateway", Response::text(502, "text/html", "<html><body>Bad gateway</body></html>")),
            ("unavailable", unavailable()),
            ("gateway-timeout", Response::text(504, "text/html", "<html><body>Timeout</body></html>")),
            ("access-denied", access_denied()),
            ("unknown-key", refusal(Bad::UnknownKey)),
            (
                "invalid-token",
                error(403, "InvalidClientTokenId", "The security token included in the request is invalid."),
            ),
            ("bad-signature", refusal(Bad::Mismatch)),
            ("invalid-signature", error(403, "InvalidSignatureException", "The signature is invalid.")),
            (
                "expired-token",
                error(403, "ExpiredTokenException", "The security token included in the request is expired"),
            ),
            ("clock-skew", refusal(Bad::Expired)),
        ]
    }
}

/// One of AWS's errors: the name in a header, the text in the body.
pub fn error(status: u16, name: &str, message: &str) -> Response {
    Response::json(status, &json!({ "message": message }))
        .with("x-amzn-ErrorType", name)
        .with("x-amzn-RequestId", "00000000-0000-4000-8000-000000000000")
}

/// The same where the name has the namespace behind it and stands in the body as well.
pub fn verbose_error(status: u16, name: &str, message: &str) -> Response {
    Response::json(status, &json!({ "__type": name, "Message": message }))
        .with("x-amzn-ErrorType", &format!("{name}:http://internal.amazon.com/coral/com.amazonaws.sesv2/"))
}

pub fn throttled() -> Response {
    error(429, "TooManyRequestsException", "Maximum sending rate exceeded.")
}

pub fn daily_quota() -> Response {
    error(429, "TooManyRequestsException", "Daily message quota exceeded.")
}

pub fn rejected(text: &str) -> Response {
    error(400, "MessageRejected", text)
}

pub fn sender_not_verified(identity: &str, region: &str) -> Response {
    rejected(&not_verified_text(identity, region))
}

pub(super) fn not_verified_text(identity: &str, region: &str) -> String {
    format!(
        "Email address is not verified. The following identities failed the check in region {}: {identity}",
        region.to_uppercase()
    )
}

pub fn duplicate_header(name: &str) -> Response {
    rejected(&format!("Duplicate header '{name}'."))
}

pub fn mail_from_not_verified() -> Response {
    error(400, "MailFromDomainNotVerifiedException", "The MAIL FROM domain is not verified.")
}

pub fn suspended() -> Response {
    error(400, "AccountSuspendedException", "The account is suspended.")
}

pub fn sending_paused() -> Response {
    error(400, "SendingPausedException", "Email sending is disabled for your account.")
}

pub fn configuration_set_not_found(name: &str) -> Response {
    error(404, "NotFoundException", &format!("Configuration set <{name}> does not exist."))
}

fn bad_request(text: &str) -> Response {
    error(400, "BadRequestException", text)
}

pub fn too_large(octets: usize) -> Response {
    bad_request(&format!("Message length is more than {DATA_MAX} bytes long: '{octets}'."))
}

pub fn internal_error() -> Response {
    error(500, "InternalServerErrorException", "Internal server error.")
}

pub fn unavailable() -> Response {
    error(503, "ServiceUnavailable", "Service is unavailable. Try again later.")
}

pub fn access_denied() -> Response {
    let text = "User: arn:aws:iam::111122223333:user/mailer is not authorized to perform: ses:SendEmail";
    error(403, "AccessDeniedException", text)
}

/// What SES says to a signature that does not do.
pub fn refusal(bad: Bad) -> Response {
    let (name, text) = match bad {
        Bad::Missing => ("MissingAuthenticationTokenException", "Missing Authentication Token"),
        Bad::Incomplete => {
            ("IncompleteSignatureException", "The request signature does not conform to AWS standards.")
        }
        Bad::UnknownKey => {
            ("UnrecognizedClientException", "The security token included in the request is invalid.")
        }
        Bad::Scope => {
            ("SignatureDoesNotMatch", "Credential should be scoped to a valid region, service and day.")
        }
        Bad::Expired => {
            ("RequestExpired", "Signature expired: the request's time is too far from the service's.")
        }
        Bad::Mismatch => (
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
             Key and signing method.",
        ),
    };
    error(403, name, text)
}

impl Desk for Rules {
    fn is_send(&self, head: &Request) -> bool {
        head.method == "POST" && head.path == "/v2/email/outbound-emails"
    }

    fn answer(&self, request: &Request) -> Answered {
        if let Err(bad) = sigv4::verify(request, &self.credential, "ses", System.now()) {
            return refusal(bad).into();
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/v2/email/outbound-emails") => self.send(request).unwrap_or_else(Answered::from),
            ("GET", "/v2/email/account") => self.tell_account().into(),
            (_, path) => match path.strip_prefix("/v2/email/configuration-sets/") {
                Some(rest) => self.of_a_set(rest, request).into(),
                None => error(404, "UnknownOperationException", "No such operation.").into(),
            },
        }
    }
}

impl Rules {
    fn of_a_set(&self, path: &str, request: &Request) -> Response {
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            [set, "event-destinations", ..] if !self.has_configuration_set(set) => {
                configuration_set_not_found(set)
            }
            [set, "event-destinations"] => self.destinations.answer(set, None, request),
            [set, "event-destinations", name] => self.destinations.answer(set, Some(name), request),
            _ => error(404, "UnknownOperationException", "No such operation."),
        }
    }

    fn tell_account(&self) -> Response {
        let quota = *self.quota.lock().unwrap();
        let body = json!({
            "DedicatedIpAutoWarmupEnabled": false,
            "EnforcementStatus": "HEALTHY",
            "ProductionAccessEnabled": quota.production,
            "SendQuota": { "Max24HourSend": quota.max_24_hours, "MaxSendRate": quota.max_rate,
                "SentLast24Hours": quota.sent_24_hours },
            "SendingEnabled": quota.sending_enabled,
            "SuppressionAttributes": { "SuppressedReasons": ["BOUNCE", "COMPLAINT"] },
        });
        Response::json(200, &body)
    }

    fn send(&self, request: &Request) -> Result<Answered, Response> {
        let mail: Value = serde_json::from_slice(&request.body).map_err(|e| {
            error(400, "SerializationException", &format!("Could not parse request body: {e}"))
        })?;
        let mime = judge_request(&mail)?;
        let to = recipients(&mail, &mime)?;
        judge_mime(&mime).map_err(|text| rejected(&text))?;
        let tags = tags(&mail, &mime)?;
        self.judge_configuration_set(&mail)?;
        let from = sender(&mail, &mime)?;
        if !self.books.may_send(&from) {
            return Err(sender_not_verified(&from, &self.credential.region));
        }
        self.pay(to.len())?;
        let id = self.next_id();
        let taken = Taken {
            to,
            from,
            subject: header_of(&mime, "Subject").unwrap_or_default(),
            json: Some(mail),
            mime: Some(mime),
            tags: tags.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            id: id.clone(),
            ..Taken::new(Door::Http, request.connection)
        };
        let taken = vec![self.books.take(taken.with_metadata(tags))];
        Ok(Answered { response: Response::json(200, &json!({ "MessageId": id })), taken })
    }

    pub(super) fn next_id(&self) -> String {
        format!("0102{:012x}-00000000-0000-4000-8000-000000000000-000000", self.books.next_number())
    }

    fn judge_configuration_set(&self, mail: &Value) -> Result<(), Response> {
        match mail["ConfigurationSetName"].as_str() {
            Some(name) if !self.has_configuration_set(name) => Err(configuration_set_not_found(name)),
            _ => Ok(()),
        }
    }

    pub(super) fn has_configuration_set(&self, name: &str) -> bool {
        self.configuration_sets.lock().unwrap().as_ref().is_none_or(|all| all.iter().any(|s| s == name))
    }

    /// Counts so many recipients, where the account may send them.
    pub(super) fn pay(&self, recipients: usize) -> Result<(), Response> {
        let mut quota = self.quota.lock().unwrap();
        if !quota.sending_enabled {
            return Err(sending_paused());
        }
        let sent = quota.sent_24_hours + recipients as f64;
        if quota.max_24_hours >= 0.0 && sent > quota.max_24_hours {
            return Err(daily_quota());
        }
        quota.sent_24_hours = sent;
        Ok(())
    }
}

/// The message out of the request, or what is wrong with its fields.
fn judge_request(mail: &Value) -> Result<Vec<u8>, Response> {
    let fields = mail.as_object().ok_or_else(|| error(400, "SerializationException", "Unexpected token."))?;
    for (name, value) in fields {
        let fits = match name.as_str() {
            "Destination" | "Content" => value.is_object(),
            "EmailTags" | "ReplyToAddresses" => value.is_array(),
            "ListManagementOptions" | "ConfigurationOverrides" => value.is_object(),
            other => TEXTS.contains(&other) && value.is_string(),
        };
        if !fits {
            return Err(error(
                400,
                "SerializationException",
                &format!("{name} is not known or of the wrong type."),
            ));
        }
    }
    let content = mail["Content"].as_object().filter(|c| c.len() == 1);
    let Some(content) = content else {
        let text = "1 validation error detected: Value at 'content' failed to satisfy constraint: Member must not be null";
        return Err(bad_request(text));
    };
    let Some(data) = content.get("Raw").and_then(|raw| raw["Data"].as_str()) else {
        return Err(bad_request("This stand-in takes raw content alone: Content.Raw.Data is missing."));
    };
    if data.len() > DATA_MAX {
        return Err(too_large(data.len()));
    }
    let mime =
        STANDARD.decode(data).map_err(|_| error(400, "SerializationException", "Data is not base64."))?;
    if mime.is_empty() { Err(bad_request("The raw message is empty.")) } else { Ok(mime) }
}

/// Who gets a copy: those of the destination, or without one those whom the header names.
fn recipients(mail: &Value, mime: &[u8]) -> Result<Vec<String>, Response> {
    let lists = ["ToAddresses", "CcAddresses", "BccAddresses"];
    let given =
        mail.get("Destination").map(|d| lists.iter().flat_map(|l| d[*l].as_array().into_iter().flatten()));
    let to: Vec<String> = match given {
        Some(given) => given.map(|a| a.as_str().unwrap_or_default().to_owned()).collect(),
        None => {
            let fields = ["To", "Cc", "Bcc"].into_iter().filter_map(|name| header_of(mime, name));
            let all =
                fields.map(|f| address::list(&f).map_err(|e| bad_request(&format!("Illegal address: {e}"))));
            all.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().map(|m| m.address).collect()
        }
    };
    let to: Vec<String> = to.iter().map(|a| acceptable(a)).collect::<Result<_, _>>()?;
    match to.len() {
        0 => Err(bad_request("1 validation error detected: the destination has no address.")),
        1..=RECIPIENTS_MAX => Ok(to),
        _ => Err(rejected("Recipient count exceeds 50.")),
    }
}

/// The bare address of an entry, in 7 bits.
fn acceptable(entry: &str) -> Result<String, Response> {
    match address::one(entry) {
        Ok(mailbox) if entry.is_ascii() => Ok(mailbox.address),
        _ => Err(bad_request(&format!("Illegal address: {entry}"))),
    }
}

/// What is wrong with a message, in SES's words.
pub(super) fn judge_mime(mime: &[u8]) -> Result<(), String> {
    let fields = mailgen::fields(mime);
    for field in &fields {
        let visible = !field.name.is_empty() && field.name.bytes().all(|b| b.is_ascii_graphic());
        if !visible || !field.raw.contains(&b':') {
            return Err(format!("Invalid header '{}'.", field.name.escape_debug()));
        }
        let alike = fields.iter().filter(|f| f.name.eq_ignore_ascii_case(&field.name)).count();
        if alike > 1 && SINGLE_HEADERS.iter().any(|s| s.eq_ignore_ascii_case(&field.name)) {
            return Err(format!("Duplicate header '{}'.", field.name));
        }
    }
    if !fields.iter().any(|f| f.name.eq_ignore_ascii_case("From")) {
        return Err("Missing required header 'From'.".into());
    }
    if let Some(line) = mime.split_inclusive(|b| *b == b'\n').find(|line| line.len() > LINE_MAX) {
        return Err(format!("Line too long: {} octets, the maximum is {LINE_MAX}.", line.len()));
    }
    let parsed = MessageParser::default().parse(mime).ok_or("The message cannot be parsed.")?;
    for part in &parsed.parts {
        let name = part.attachment_name().unwrap_or_default();
        let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase()).unwrap_or_default();
        if FORBIDDEN_EXTENSIONS.contains(&extension.as_str()) {
            return Err(format!("Illegal filename '{name}'."));
        }
    }
    Ok(())
}

/// The tags of the request; those in the header count only where the request has none.
fn tags(mail: &Value, mime: &[u8]) -> Result<Vec<(String, String)>, Response> {
    let Some(given) = mail["EmailTags"].as_array().filter(|t| !t.is_empty()) else {
        return header_tags(mime).map_err(|text| bad_request(&text));
    };
    let pair = |tag: &Value| {
        let text = |name: &str| tag[name].as_str().unwrap_or_default().to_owned();
        (text("Name"), text("Value"))
    };
    judge_tags(given.iter().map(pair).collect()).map_err(|text| bad_request(&text))
}

/// `X-SES-MESSAGE-TAGS: a=b, c=d`.
pub(super) fn header_tags(mime: &[u8]) -> Result<Vec<(String, String)>, String> {
    let Some(field) = header_of(mime, "X-SES-MESSAGE-TAGS") else { return Ok(Vec::new()) };
    let pair = |tag: &str| {
        let (name, value) = tag.split_once('=').unwrap_or((tag, ""));
        (name.trim().to_owned(), value.trim().to_owned())
    };
    judge_tags(field.split(',').map(pair).collect())
}

fn judge_tags(tags: Vec<(String, String)>) -> Result<Vec<(String, String)>, String> {
    let fits = |text: &String| {
        let charset = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        (1..=TAG_CHARS_MAX).contains(&text.len()) && text.bytes().all(charset)
    };
    if tags.len() > TAGS_MAX {
        return Err("Too many message tags.".into());
    }
    for (n, (name, value)) in tags.iter().enumerate() {
        if !fits(name) || !fits(value) {
            return Err(format!(
                "Invalid tag <{name}={value}>: only alphanumeric ASCII characters, '_' and '-' are allowed."
            ));
        }
        if tags[..n].iter().any(|(other, _)| other == name) {
            return Err(format!("Duplicate tag <{name}>."));
        }
    }
    Ok(tags)
}

/// The author: `FromEmailAddress` replaces the header's.
fn sender(mail: &Value, mime: &[u8]) -> Result<String, Response> {
    match mail["FromEmailAddress"].as_str() {
        Some(given) => acceptable(given),
        None => Ok(author(mime)),
    }
}

/// The first address of the From header.
pub(super) fn author(mime: &[u8]) -> String {
    let from = header_of(mime, "From").unwrap_or_default();
    let first = address::list(&from).ok().and_then(|all| all.into_iter().next());
    first.map_or(from, |m| m.address)
}
