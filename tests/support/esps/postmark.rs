//! Postmark's `POST /email` and `/email/batch`, and the route that tells of a server token.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postroad::clock::{Clock as _, System};
use serde_json::{Map, Value, json};

use super::address::{self, Mailbox};
use super::http::{Answered, Desk, Request, Response};
use super::postmark_hooks::Hooks;
use super::taken::{Books, Door, Taken};
use super::{Standin, Start, Vendor};

pub type Postmark = Standin<Rules>;

/// The server token of a stand-in that was given none.
pub const TOKEN: &str = "5d1c0a52-1f0e-4b5e-9c3a-0123456789ab";

/// The token that has mail judged and not sent.
pub const TEST_TOKEN: &str = "POSTMARK_API_TEST";

const RECIPIENTS_MAX: usize = 50;
pub(super) const MESSAGE_MAX: usize = 10 * 1024 * 1024;
const BODY_MAX: usize = 5 * 1024 * 1024;
pub(super) const TAG_CHARS_MAX: usize = 1000;
const BATCH_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 50 * 1024 * 1024;
const METADATA_MAX: usize = 10;
const METADATA_NAME_CHARS_MAX: usize = 20;
const METADATA_VALUE_CHARS_MAX: usize = 80;

/// Fields of a message, each with the kind of its value.
const FIELDS: [(&str, Kind); 16] = [
    ("From", Kind::Text),
    ("To", Kind::Text),
    ("Cc", Kind::Text),
    ("Bcc", Kind::Text),
    ("Subject", Kind::Text),
    ("Tag", Kind::Text),
    ("HtmlBody", Kind::Text),
    ("TextBody", Kind::Text),
    ("ReplyTo", Kind::Text),
    ("Metadata", Kind::Object),
    ("Headers", Kind::List),
    ("TrackOpens", Kind::Flag),
    ("TrackLinks", Kind::Text),
    ("MessageStream", Kind::Text),
    ("Attachments", Kind::List),
    ("InlineCss", Kind::Flag),
];

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Object,
    List,
}

/// Header fields that have a place of their own in the request.
const RESERVED_HEADERS: [&str; 8] =
    ["from", "to", "cc", "bcc", "subject", "content-type", "sender", "reply-to"];

/// Extensions of attachments that it does not take.
pub(super) const FORBIDDEN_EXTENSIONS: [&str; 32] = [
    "vbs", "exe", "bin", "bat", "chm", "com", "cpl", "crt", "hlp", "hta", "inf", "ins", "isp", "jse", "lnk",
    "mdb", "pcd", "pif", "reg", "scr", "sct", "shs", "vbe", "vba", "wsf", "wsh", "wsl", "msc", "msi", "msp",
    "mst", "cmd",
];

/// Postmark's desk.
pub struct Rules {
    pub(super) token: String,
    pub(super) books: Arc<Books>,
    streams: Mutex<Vec<String>>,
    hooks: Hooks,
}

impl Postmark {
    pub fn start() -> Self {
        Self::start_with(TOKEN, &Start::default()).unwrap()
    }

    pub fn start_tls() -> Self {
        Self::start_with(TOKEN, &Start { tls: true, ..Start::default() }).unwrap()
    }

    pub fn start_with(token: &str, start: &Start) -> std::io::Result<Self> {
        let books = Arc::new(Books::default());
        let streams = Mutex::new(vec!["outbound".to_owned(), "broadcast".to_owned()]);
        let rules = Rules { token: token.to_owned(), books: books.clone(), streams, hooks: Hooks::default() };
        Standin::open(rules, books, start)
    }

    /// Its webhooks.
    pub fn hooks(&self) -> &Hooks {
        &self.vendor.hooks
    }

    /// Its message streams; at the start `outbound` and `broadcast`.
    pub fn set_streams(&self, streams: &[&str]) {
        *self.vendor.streams.lock().unwrap() = streams.iter().map(|s| (*s).to_owned()).collect();
    }
}

impl Vendor for Rules {
    const NAME: &'static str = "postmark";

    fn key(&self) -> &str {
        &self.token
    }

    fn errors() -> Vec<(&'static str, Response)> {
        vec![
            ("unauthorized", unauthorized()),
            (
                "multiple",
                multiple(&[(300, "Invalid 'To' address: 'x'."), (300, "Invalid 'Cc' address: 'y'.")]),
            ),
            ("maintenance", error(100, "Maintenance: the API is offline, try again later.")),
            ("invalid-request", error(300, "Invalid email request.")),
            ("invalid-to", error(300, "Invalid 'To' address: 'nobody@@example.com'.")),
            ("invalid-from", error(300, "Invalid 'From' address: 'nobody'.")),
            ("too-many-recipients", too_many_recipients(RECIPIENTS_MAX + 1)),
            ("sender-not-found", sender_not_found("nobody@example.org")),
            ("sender-not-confirmed", sender_not_confirmed("nobody@example.org")),
            ("invalid-json", error(402, "Received invalid JSON input.")),
            ("invalid-field", error(403, "Incompatible JSON: a field is not known or of the wrong type.")),
            ("credits-spent", credits_spent()),
            ("inactive", all_inactive(&["nobody@example.com"])),
            ("json-required", error(409, "JSON required: set Accept and Content-Type to application/json.")),
            ("too-many-in-batch", error(410, "Too many batch messages: at most 500.")),
            ("forbidden-attachment", forbidden_attachment("setup.exe")),
            ("account-pending", account_pending()),
            ("account-may-not-send", account_may_not_send()),
            ("stream-not-found", stream_not_found("nowhere")),
            ("stream-may-not-send", error(1236, "Sending is not supported on this message stream.")),
            ("not-found", Response::empty(404)),
            ("too-large", too_large()),
            ("wrong-type", wrong_type()),
            ("throttled", throttled()),
            ("internal-error", internal_error()),
            ("bad-gateway", Response::text(502, "text/html", "<html><body>Bad gateway</body></html>")),
            ("unavailable", unavailable()),
            ("gateway-timeout", Response::text(504, "text/html", "<html><body>Timeout</body></html>")),
        ]
    }
}

fn body(code: u32, message: &str) -> Value {
    json!({ "ErrorCode": code, "Message": message })
}

/// 422 with one of Postmark's own codes.
pub fn error(code: u32, message: &str) -> Response {
    Response::json(422, &body(code, message))
}

pub fn unauthorized() -> Response {
    Response::json(401, &body(10, "Request does not contain a valid Server token."))
}

fn token_missing() -> Response {
    let text = "No Account or Server API tokens were supplied in the HTTP headers. Please add a header for either \
                X-Postmark-Server-Token or X-Postmark-Account-Token.";
    Response::json(401, &body(10, text))
}

/// Code 11: several errors at once, in `Errors`.
pub fn multiple(errors: &[(u32, &str)]) -> Response {
    let all: Vec<Value> = errors.iter().map(|(code, message)| body(*code, message)).collect();
    let mut answer = body(11, "Multiple errors occurred.");
    answer["Errors"] = all.into();
    Response::json(422, &answer)
}

pub fn too_many_recipients(given: usize) -> Response {
    error(300, &format!("Too many recipients: {given} in To, Cc and Bcc, the maximum is 50."))
}

pub fn sender_not_found(from: &str) -> Response {
    let text = format!(
        "The 'From' address you supplied ({from}) is not a Sender Signature on your account. Please add and confirm this \
         address in order to be able to use it in the 'From' field of your messages."
    );
    error(400, &text)
}

pub fn sender_not_confirmed(from: &str) -> Response {
    error(401, &format!("The Sender Signature '{from}' is not confirmed."))
}

pub fn credits_spent() -> Response {
    error(405, "Not allowed to send: you have run out of credits.")
}

/// Code 406: every recipient is inactive, nothing is sent.
pub fn all_inactive(addresses: &[&str]) -> Response {
    let text = format!(
        "You tried to send to recipient(s) that have been marked as inactive. Found inactive addresses: {}.\nInactive \
         recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression.",
        addresses.join(", ").to_lowercase()
    );
    error(406, &text)
}

pub fn forbidden_attachment(name: &str) -> Response {
    error(411, &format!("Forbidden attachment type: '{name}'."))
}

pub fn account_pending() -> Response {
    let text = "While your account is pending approval, all recipient addresses must share the same domain as the \
                'From' address.";
    error(412, text)
}

pub fn account_may_not_send() -> Response {
    error(413, "This account may not send.")
}

pub fn stream_not_found(stream: &str) -> Response {
    error(1235, &format!("The message stream '{stream}' was not found on this server."))
}

pub fn too_large() -> Response {
    Response::empty(413)
}

fn wrong_type() -> Response {
    Response::json(415, &body(409, "JSON required: the Content-Type must be application/json."))
}

/// 429: neither Retry-After nor any other header that tells when.
pub fn throttled() -> Response {
    Response::json(429, &body(429, "Rate limit exceeded."))
}

pub fn internal_error() -> Response {
    Response::json(500, &json!({ "Message": "Internal Server Error" }))
}

pub fn unavailable() -> Response {
    Response::text(503, "text/plain", "Service Unavailable")
}

/// 200 for a mail of which these recipients get nothing.
pub fn partly_inactive(to: &str, addresses: &[&str]) -> Response {
    Response::json(
        200,
        &accepted_body(
            &json!({ "To": to }),
            "00000000-0000-4000-8000-000000000000",
            &inactive_text(addresses),
        ),
    )
}

fn inactive_text(addresses: &[&str]) -> String {
    format!(
        "Message OK, but will not deliver to these inactive addresses: {}. Inactive recipients are ones that have \
         generated a hard bounce, a spam complaint, or a manual suppression.",
        addresses.join(", ").to_lowercase()
    )
}

/// 200 without `ErrorCode`, as it comes when Postmark is behind with its work.
pub fn delayed(to: &str) -> Response {
    let mut body = accepted_body(&json!({ "To": to }), "00000000-0000-4000-8000-000000000001", "");
    body["Message"] = json!("Message accepted, but delivery may be delayed.");
    if let Some(fields) = body.as_object_mut() {
        fields.remove("ErrorCode");
    }
    Response::json(200, &body)
}

fn accepted_body(mail: &Value, id: &str, message: &str) -> Value {
    let mut answer = Map::new();
    for list in ["To", "Cc", "Bcc"] {
        if let Some(given) = mail[list].as_str().filter(|g| !g.is_empty()) {
            answer.insert(list.into(), given.into());
        }
    }
    answer.insert("SubmittedAt".into(), System.now().to_string().into());
    answer.insert("MessageID".into(), id.into());
    answer.insert("ErrorCode".into(), 0.into());
    answer.insert("Message".into(), message.into());
    Value::Object(answer)
}

impl Desk for Rules {
    fn is_send(&self, head: &Request) -> bool {
        head.method == "POST" && (head.path == "/email" || head.path == "/email/batch")
    }

    fn answer(&self, request: &Request) -> Answered {
        let testing = match request.header("X-Postmark-Server-Token") {
            None => return token_missing().into(),
            Some(TEST_TOKEN) => true,
            Some(given) if given == self.token => false,
            Some(_) => return unauthorized().into(),
        };
        if let Some(answer) = self.hooks.answer(request, &self.streams.lock().unwrap()) {
            return answer.into();
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/email" | "/email/batch") => self.send(request, testing),
            ("GET", "/server") => self.tell_server().into(),
            (_, "/email" | "/email/batch" | "/server") => Response::empty(405).into(),
            _ => Response::empty(404).into(),
        }
    }
}

impl Rules {
    fn tell_server(&self) -> Response {
        let body = json!({ "ID": 1, "Name": "Stand-in", "ApiTokens": [self.token], "Color": "blue",
            "SmtpApiActivated": true, "RawEmailEnabled": false, "DeliveryType": "Live", "TrackOpens": false,
            "TrackLinks": "None", "EnableSmtpApiErrorHooks": false });
        Response::json(200, &body)
    }

    fn send(&self, request: &Request, testing: bool) -> Answered {
        if !request.says("Content-Type", "application/json") {
            return wrong_type().into();
        }
        if !request.says("Accept", "application/json") {
            return error(409, "JSON required: set the Accept header to application/json.").into();
        }
        let batch = request.path == "/email/batch";
        if request.body.len() > if batch { BATCH_BYTES_MAX } else { MESSAGE_MAX } {
            return too_large().into();
        }
        let Ok(json) = serde_json::from_slice::<Value>(&request.body) else {
            return error(402, "Received invalid JSON input.").into();
        };
        if batch { self.batch(&json, request, testing) } else { self.one(&json, request, testing) }
    }

    fn batch(&self, json: &Value, request: &Request, testing: bool) -> Answered {
        let Some(all) = json.as_array() else { return error(402, "Received invalid JSON input.").into() };
        if all.len() > BATCH_MAX {
            return error(410, "Too many batch messages: at most 500.").into();
        }
        let (mut results, mut taken) = (Vec::new(), Vec::new());
        for one in all {
            let answered = self.one(one, request, testing);
            results.push(serde_json::from_slice::<Value>(&answered.response.body).unwrap_or_default());
            taken.extend(answered.taken);
        }
        Answered { response: Response::json(200, &Value::Array(results)), taken }
    }

    fn one(&self, mail: &Value, request: &Request, testing: bool) -> Answered {
        let people = match self.judge(mail) {
            Ok(people) => people,
            Err(refusal) => return refusal.into(),
        };
        let from = address::one(text(&mail["From"])).map(|m| m.address).unwrap_or_default();
        if !self.books.may_send(&from) {
            return sender_not_found(&from).into();
        }
        let id = format!("b7bc2f4a-e38e-4336-af7d-{:012x}", self.books.next_number());
        if testing {
            return Response::json(200, &accepted_body(mail, &id, "Test job accepted")).into();
        }
        let inactive: Vec<&str> =
            people.iter().map(|p| p.address.as_str()).filter(|a| self.books.is_suppressed(a)).collect();
        if inactive.len() == people.len() {
            return all_inactive(&inactive).into();
        }
        let said = if inactive.is_empty() { "OK".to_owned() } else { inactive_text(&inactive) };
        let response = Response::json(200, &accepted_body(mail, &id, &said));
        let taken = Taken {
            to: people.iter().map(|p| p.address.clone()).collect(),
            from,
            subject: text(&mail["Subject"]).to_owned(),
            json: Some(mail.clone()),
            tags: mail["Tag"].as_str().filter(|t| !t.is_empty()).map(str::to_owned).into_iter().collect(),
            id,
            ..Taken::new(Door::Http, request.connection)
        };
        let metadata = mail["Metadata"].as_object().into_iter().flatten();
        let metadata = metadata.map(|(name, value)| (name.clone(), text(value).to_owned())).collect();
        Answered { response, taken: vec![self.books.take(taken.with_metadata(metadata))] }
    }

    pub(super) fn has_stream(&self, stream: &str) -> bool {
        self.streams.lock().unwrap().iter().any(|s| s == stream)
    }

    /// Its recipients, or what is wrong with a message.
    fn judge(&self, mail: &Value) -> Result<Vec<Mailbox>, Response> {
        let fields = mail.as_object().ok_or_else(|| error(402, "Received invalid JSON input."))?;
        judge_fields(fields)?;
        judge_from(mail)?;
        let people = recipients(mail)?;
        judge_text(mail)?;
        judge_metadata(mail)?;
        judge_headers(mail)?;
        judge_attachments(mail)?;
        if let Some(stream) = mail["MessageStream"].as_str()
            && !self.has_stream(stream)
        {
            return Err(stream_not_found(stream));
        }
        Ok(people)
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn judge_fields(fields: &Map<String, Value>) -> Result<(), Response> {
    for (name, value) in fields {
        let kind = FIELDS.iter().find(|(known, _)| known == name).map(|(_, kind)| kind);
        let fits = match kind {
            None => false,
            Some(_) if value.is_null() => true,
            Some(Kind::Text) => value.is_string(),
            Some(Kind::Flag) => value.is_boolean(),
            Some(Kind::Object) => value.is_object(),
            Some(Kind::List) => value.is_array(),
        };
        if !fits {
            return Err(error(
                403,
                &format!("Incompatible JSON: '{name}' is not known or of the wrong type."),
            ));
        }
    }
    Ok(())
}

fn judge_from(mail: &Value) -> Result<(), Response> {
    let from = text(&mail["From"]);
    let one = address::list(from).ok().filter(|all| all.len() == 1);
    if one.is_none_or(|all| !is_acceptable(&all[0].address)) {
        return Err(error(300, &format!("Invalid 'From' address: '{from}'.")));
    }
    let reply_to = text(&mail["ReplyTo"]);
    match address::list(reply_to) {
        Ok(all) if all.iter().all(|m| is_acceptable(&m.address)) => Ok(()),
        _ => Err(error(300, &format!("Invalid 'ReplyTo' address: '{reply_to}'."))),
    }
}

fn recipients(mail: &Value) -> Result<Vec<Mailbox>, Response> {
    let mut people = Vec::new();
    for list in ["To", "Cc", "Bcc"] {
        let entries = address::list(text(&mail[list])).map_err(|entry| {
            error(
                300,
                &format!(
                    "Error parsing '{list}': Illegal email address '{entry}'. It must contain the '@' symbol."
                ),
            )
        })?;
        if let Some(bad) = entries.iter().find(|m| !is_acceptable(&m.address)) {
            return Err(error(300, &format!("Invalid '{list}' address: '{}'.", bad.address)));
        }
        people.extend(entries);
    }
    match people.len() {
        0 => Err(error(300, "Zero recipients specified")),
        1..=RECIPIENTS_MAX => Ok(people),
        given => Err(too_many_recipients(given)),
    }
}

/// Whether Postmark takes this address: its own patterns for the local part and for the domain.
pub(super) fn is_acceptable(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let of_local = |c: char| c.is_ascii_alphanumeric() || ".!#$%&'`*+-/=^_{}|~".contains(c);
    let of_domain = |l: &str| !l.is_empty() && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    !local.is_empty() && local.chars().all(of_local) && domain.split('.').all(of_domain)
}

fn judge_text(mail: &Value) -> Result<(), Response> {
    let bodies = [text(&mail["TextBody"]), text(&mail["HtmlBody"])];
    if bodies.iter().all(|b| b.is_empty()) {
        return Err(error(300, "Provide either email TextBody or HtmlBody or both."));
    }
    if bodies.iter().any(|b| b.len() > BODY_MAX) {
        return Err(too_large());
    }
    if text(&mail["Tag"]).chars().count() > TAG_CHARS_MAX {
        return Err(error(300, "The 'Tag' is longer than 1000 characters."));
    }
    if text(&mail["Subject"]).contains(['\r', '\n']) {
        return Err(error(300, "The 'Subject' must not contain line breaks."));
    }
    let links = mail["TrackLinks"].as_str();
    if links.is_some_and(|l| !["None", "HtmlAndText", "HtmlOnly", "TextOnly"].contains(&l)) {
        return Err(error(300, "The 'TrackLinks' value is not known."));
    }
    Ok(())
}

pub(super) fn judge_metadata(mail: &Value) -> Result<(), Response> {
    let Some(all) = mail["Metadata"].as_object() else { return Ok(()) };
    let wrong = |why: &str| Err(error(300, &format!("Invalid metadata content: {why}.")));
    if all.len() > METADATA_MAX {
        return wrong("more than 10 fields");
    }
    let mut names = std::collections::HashSet::new();
    for (name, value) in all {
        if !value.is_string() {
            return wrong("a value is not a string");
        }
        if name.is_empty() || name.chars().count() > METADATA_NAME_CHARS_MAX {
            return wrong("a name is not 1 to 20 characters long");
        }
        if text(value).chars().count() > METADATA_VALUE_CHARS_MAX {
            return wrong("a value is longer than 80 characters");
        }
        if !names.insert(name.to_lowercase()) {
            return wrong("a name occurs twice");
        }
    }
    Ok(())
}

fn judge_headers(mail: &Value) -> Result<(), Response> {
    for header in mail["Headers"].as_array().into_iter().flatten() {
        let (Some(name), Some(value)) = (header["Name"].as_str(), header["Value"].as_str()) else {
            return Err(error(403, "Incompatible JSON: a header needs Name and Value."));
        };
        let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        if !named || value.contains(['\r', '\n']) {
            return Err(error(300, &format!("Invalid header '{name}'.")));
        }
        if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(error(300, &format!("The header '{name}' is not allowed.")));
        }
    }
    Ok(())
}

fn judge_attachments(mail: &Value) -> Result<(), Response> {
    for one in mail["Attachments"].as_array().into_iter().flatten() {
        let (name, content, kind) =
            (one["Name"].as_str(), one["Content"].as_str(), one["ContentType"].as_str());
        let (Some(name), Some(content), Some(_)) = (name, content, kind.filter(|k| k.contains('/'))) else {
            return Err(error(300, "Invalid attachment: it needs Name, Content and ContentType."));
        };
        let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase()).unwrap_or_default();
        if FORBIDDEN_EXTENSIONS.contains(&extension.as_str()) {
            return Err(forbidden_attachment(name));
        }
        if name.is_empty() || STANDARD.decode(content).is_err() {
            return Err(error(300, &format!("Invalid attachment '{name}': the content is not base64.")));
        }
        let id = one.get("ContentID").filter(|i| !i.is_null());
        if id.is_some_and(|i| i.as_str().is_none_or(|i| i.contains(['\r', '\n', '<', '>']))) {
            return Err(error(300, &format!("Invalid attachment '{name}': ContentID.")));
        }
    }
    Ok(())
}
