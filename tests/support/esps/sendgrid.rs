//! SendGrid's `POST /v3/mail/send` and the two routes that tell of a key and its credits.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postroad::clock::{Clock as _, System};
use serde_json::{Map, Value, json};

use super::address::{domain, is_mailbox};
use super::http::{Answered, Desk, Request, Response};
use super::sendgrid_hooks::Hooks;
use super::taken::{Books, Door, Taken};
use super::{Standin, Start, Vendor};

pub type Sendgrid = Standin<Rules>;

/// The key of a stand-in that was given none.
pub const KEY: &str = "SG.standin.0123456789abcdefghijklmnopqrstuv";

/// The whole request.
const REQUEST_MAX: usize = 30 * 1024 * 1024;
const RECIPIENTS_MAX: usize = 1000;
const PERSONALIZATIONS_MAX: usize = 1000;
pub(super) const CATEGORIES_MAX: usize = 10;
pub(super) const CATEGORY_CHARS_MAX: usize = 255;
/// What both doors say to a sender that is not set up.
pub(super) const SENDER_NOT_VERIFIED: &str = "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved.";
/// Custom arguments have fewer octets than this.
pub(super) const CUSTOM_ARGS_BYTES: usize = 10_000;
const SUBSTITUTIONS_BYTES: usize = 10_000;
const GROUPS_TO_DISPLAY_MAX: usize = 25;
/// How far ahead a mail may be scheduled.
const SEND_AT_MAX_SECONDS: i64 = 72 * 3600;

/// Header fields that a request may not set.
const RESERVED_HEADERS: [&str; 12] = [
    "x-sg-id",
    "x-sg-eid",
    "received",
    "dkim-signature",
    "content-type",
    "content-transfer-encoding",
    "to",
    "from",
    "subject",
    "reply-to",
    "cc",
    "bcc",
];

const FIELDS: [&str; 17] = [
    "personalizations",
    "from",
    "reply_to",
    "reply_to_list",
    "subject",
    "content",
    "attachments",
    "template_id",
    "headers",
    "categories",
    "custom_args",
    "send_at",
    "batch_id",
    "asm",
    "ip_pool_name",
    "mail_settings",
    "tracking_settings",
];

const PERSONALIZATION_FIELDS: [&str; 10] = [
    "to",
    "cc",
    "bcc",
    "from",
    "subject",
    "headers",
    "custom_args",
    "substitutions",
    "dynamic_template_data",
    "send_at",
];

/// One error of an answer: what is wrong, and in which field.
type Wrong = (String, String);

/// SendGrid's desk.
pub struct Rules {
    pub(super) key: String,
    pub(super) books: Arc<Books>,
    /// Recipients that are paid for and not used up; `None`: no end.
    credits: Mutex<Option<usize>>,
    hooks: Hooks,
}

impl Sendgrid {
    pub fn start() -> Self {
        Self::start_with(KEY, &Start::default()).unwrap()
    }

    pub fn start_tls() -> Self {
        Self::start_with(KEY, &Start { tls: true, ..Start::default() }).unwrap()
    }

    pub fn start_with(key: &str, start: &Start) -> std::io::Result<Self> {
        let books = Arc::new(Books::default());
        let (key, credits) = (key.to_owned(), Mutex::new(None));
        let rules = Rules { key, books: books.clone(), credits, hooks: Hooks::default() };
        Standin::open(rules, books, start)
    }

    /// Its event webhooks.
    pub fn hooks(&self) -> &Hooks {
        &self.vendor.hooks
    }

    /// So many recipients more, then `Maximum credits exceeded`.
    pub fn set_credits(&self, recipients: Option<usize>) {
        *self.vendor.credits.lock().unwrap() = recipients;
    }
}

impl Vendor for Rules {
    const NAME: &'static str = "sendgrid";

    fn key(&self) -> &str {
        &self.key
    }

    fn errors() -> Vec<(&'static str, Response)> {
        vec![
            ("bad-request", bad_request()),
            ("too-many-recipients", too_many_recipients()),
            ("bad-address", bad_address()),
            ("unauthorized", unauthorized()),
            ("revoked", revoked()),
            ("credits-spent", credits_spent()),
            ("sender-not-verified", sender_not_verified()),
            ("forbidden", forbidden()),
            ("not-found", error(404, "not found", None)),
            ("method-not-allowed", error(405, "method not allowed", None)),
            ("too-large", too_large()),
            ("wrong-type", error(415, "Content-Type should be application/json.", None)),
            ("throttled", throttled()),
            ("internal-error", error(500, "internal server error", None)),
            ("bad-gateway", gateway(502)),
            ("unavailable", unavailable()),
            ("gateway-timeout", gateway(504)),
        ]
    }
}

/// SendGrid's error body with one error.
pub fn error(status: u16, message: &str, field: Option<&str>) -> Response {
    let error = json!({ "message": message, "field": field, "help": null });
    Response::json(status, &json!({ "errors": [error] }))
}

pub fn bad_request() -> Response {
    error(400, "Bad Request", None)
}

pub fn too_many_recipients() -> Response {
    let text = "The total number of recipients must be no more than 1000. This includes all recipients defined within \
                the to, cc, and bcc parameters, across each object that you include in the personalizations array.";
    error(400, text, Some("personalizations"))
}

pub fn bad_address() -> Response {
    error(400, "Does not contain a valid address.", Some("personalizations.0.to.0.email"))
}

pub fn unauthorized() -> Response {
    error(401, "authorization required", None)
}

pub fn revoked() -> Response {
    error(401, "The provided authorization grant is invalid, expired, or revoked", None)
}

pub fn credits_spent() -> Response {
    error(401, "Maximum credits exceeded", None)
}

pub fn sender_not_verified() -> Response {
    error(403, SENDER_NOT_VERIFIED, Some("from"))
}

pub fn forbidden() -> Response {
    error(403, "access forbidden", None)
}

pub fn too_large() -> Response {
    error(413, "content too large", None)
}

/// 429 with the three headers; the window ends in a minute.
pub fn throttled() -> Response {
    throttled_until(System.now().millis() / 1000 + 60)
}

/// 429 whose window ends at this second since 1970.
pub fn throttled_until(reset: i64) -> Response {
    error(429, "too many requests", None)
        .with("X-RateLimit-Limit", "600")
        .with("X-RateLimit-Remaining", "0")
        .with("X-RateLimit-Reset", &reset.to_string())
}

pub fn unavailable() -> Response {
    error(503, "service unavailable", None)
}

/// What a proxy in front of SendGrid says by itself: no JSON of SendGrid's.
pub fn gateway(status: u16) -> Response {
    Response::text(status, "text/html", "<html><body><h1>Bad gateway</h1></body></html>")
}

fn refused(wrongs: Vec<Wrong>) -> Response {
    let of = |(message, field): Wrong| json!({ "message": message, "field": field, "help": null });
    Response::json(400, &json!({ "errors": wrongs.into_iter().map(of).collect::<Vec<_>>() }))
}

impl Desk for Rules {
    fn is_send(&self, head: &Request) -> bool {
        head.method == "POST" && head.path == "/v3/mail/send"
    }

    fn answer(&self, request: &Request) -> Answered {
        match request.header("Authorization") {
            None => return unauthorized().into(),
            Some(given) if given != format!("Bearer {}", self.key) => return revoked().into(),
            Some(_) => {}
        }
        if let Some(answer) = self.hooks.answer(request) {
            return answer.into();
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/v3/mail/send") => self.send(request),
            ("GET", "/v3/scopes") => {
                Response::json(200, &json!({ "scopes": ["mail.send", "user.credits.read"] })).into()
            }
            ("GET", "/v3/user/credits") => self.tell_credits().into(),
            (_, "/v3/mail/send" | "/v3/scopes" | "/v3/user/credits") => {
                error(405, "method not allowed", None).into()
            }
            _ => error(404, "not found", None).into(),
        }
    }
}

impl Rules {
    fn tell_credits(&self) -> Response {
        let remain = self.credits.lock().unwrap().unwrap_or(1_000_000);
        let body = json!({ "remain": remain, "total": 1_000_000, "overage": 0, "used": 1_000_000_usize.saturating_sub(remain),
            "last_reset": "2026-11-01", "next_reset": "2026-12-01", "reset_frequency": "monthly" });
        Response::json(200, &body)
    }

    fn send(&self, request: &Request) -> Answered {
        if !request.says("Content-Type", "application/json") {
            return error(415, "Content-Type should be application/json.", None).into();
        }
        if request.body.len() > REQUEST_MAX {
            return too_large().into();
        }
        let Ok(mail) = serde_json::from_slice::<Value>(&request.body) else { return bad_request().into() };
        let Some(fields) = mail.as_object() else { return bad_request().into() };
        let wrongs = Judge::judge(fields);
        if !wrongs.is_empty() {
            return refused(wrongs).into();
        }
        let from = text(&mail["from"]["email"]);
        if !self.books.may_send(from) {
            return sender_not_verified().into();
        }
        if mail["mail_settings"]["sandbox_mode"]["enable"] == json!(true) {
            return Response::empty(200).into();
        }
        let messages = messages(&mail, request.connection);
        if !self.pay(messages.iter().map(|m| m.to.len()).sum()) {
            return credits_spent().into();
        }
        let id = format!("sg{:020}", self.books.next_number());
        let take = |message: Taken| self.books.take(Taken { id: id.clone(), ..message });
        let taken = messages.into_iter().map(take).collect();
        Answered { response: Response::empty(202).with("X-Message-Id", &id), taken }
    }

    /// Whether there were credits for so many, which are used up then.
    pub(super) fn pay(&self, recipients: usize) -> bool {
        match &mut *self.credits.lock().unwrap() {
            None => true,
            Some(left) if *left >= recipients => {
                *left -= recipients;
                true
            }
            Some(_) => false,
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// One message a personalization.
fn messages(mail: &Value, connection: u64) -> Vec<Taken> {
    let of = |personalization: &Value| {
        let person = |list: &str| personalization[list].as_array().cloned().unwrap_or_default();
        let people = ["to", "cc", "bcc"].iter().flat_map(|list| person(list));
        let to = people.map(|p| text(&p["email"]).to_owned()).collect();
        let subject = match text(&personalization["subject"]) {
            "" => text(&mail["subject"]),
            own => own,
        };
        let tags = mail["categories"].as_array().into_iter().flatten().map(|c| text(c).to_owned()).collect();
        let metadata = arguments(&mail["custom_args"], &personalization["custom_args"]);
        Taken {
            to,
            from: text(&mail["from"]["email"]).to_owned(),
            subject: subject.to_owned(),
            json: Some(mail.clone()),
            tags,
            ..Taken::new(Door::Http, connection)
        }
        .with_metadata(metadata)
    };
    mail["personalizations"].as_array().into_iter().flatten().map(of).collect()
}

/// Custom arguments, those of the personalization before those of the request.
fn arguments(root: &Value, own: &Value) -> Vec<(String, String)> {
    let mut all = own.as_object().cloned().unwrap_or_default();
    let parsed = root.as_str().and_then(|t| serde_json::from_str::<Value>(t).ok());
    for (name, value) in parsed.as_ref().unwrap_or(root).as_object().cloned().unwrap_or_default() {
        all.entry(name).or_insert(value);
    }
    let plain = |v: Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    all.into_iter().map(|(name, value)| (name, plain(value))).collect()
}

/// Collects what is wrong with a request.
#[derive(Default)]
struct Judge {
    wrongs: Vec<Wrong>,
    /// Addresses seen so far, folded.
    seen: HashSet<String>,
    recipients: usize,
}

impl Judge {
    fn judge(mail: &Map<String, Value>) -> Vec<Wrong> {
        let mut judge = Judge::default();
        judge.known_fields(mail, &FIELDS, "");
        judge.people(mail);
        judge.sender(mail);
        judge.subject(mail);
        judge.content(mail);
        judge.attachments(mail);
        judge.headers(mail.get("headers"), "headers");
        judge.labels(mail);
        judge.settings(mail);
        judge.wrongs
    }

    fn wrong(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.wrongs.push((message.into(), field.into()));
    }

    fn known_fields(&mut self, object: &Map<String, Value>, known: &[&str], at: &str) {
        for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
            self.wrong(format!("{at}{name}"), format!("Additional property {name} is not allowed"));
        }
    }

    fn people(&mut self, mail: &Map<String, Value>) {
        let all = mail.get("personalizations").and_then(Value::as_array);
        let Some(all) = all.filter(|a| !a.is_empty()) else {
            let text = "The personalizations field is required and must have at least one personalization.";
            return self.wrong("personalizations", text);
        };
        if all.len() > PERSONALIZATIONS_MAX {
            self.wrong("personalizations", "There may be no more than 1000 personalizations.");
        }
        let root = mail.get("from").map(|f| domain(text(&f["email"]))).unwrap_or_default();
        for (n, one) in all.iter().enumerate() {
            let at = format!("personalizations.{n}");
            match one.as_object() {
                Some(one) => self.personalization(one, &at, mail.get("custom_args"), &root),
                None => self.wrong(at, "A personalization must be an object."),
            }
        }
        if self.recipients > RECIPIENTS_MAX {
            let text = format!("{} recipients: the total number must be no more than 1000.", self.recipients);
            self.wrong("personalizations", text);
        }
    }

    fn personalization(&mut self, one: &Map<String, Value>, at: &str, root_args: Option<&Value>, root: &str) {
        self.known_fields(one, &PERSONALIZATION_FIELDS, &format!("{at}."));
        if one.get("to").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            let text = "The to array is required for all personalization objects, and must have at least one email \
                        object with a valid email address.";
            self.wrong(format!("{at}.to"), text);
        }
        for list in ["to", "cc", "bcc"] {
            let Some(value) = one.get(list) else { continue };
            let Some(people) = value.as_array().filter(|p| !p.is_empty()) else {
                self.wrong(
                    format!("{at}.{list}"),
                    format!("The {list} parameter must be an array with entries."),
                );
                continue;
            };
            for (n, person) in people.iter().enumerate() {
                self.recipients += 1;
                self.person(person, &format!("{at}.{list}.{n}"), &format!("{at}.{list}"));
            }
        }
        if let Some(from) = one.get("from")
            && domain(text(&from["email"])) != root
        {
            self.wrong(format!("{at}.from"), "The from object must have the domain of the request's from.");
        }
        if one.get("subject").is_some_and(|s| s.as_str().is_none_or(str::is_empty)) {
            self.wrong(format!("{at}.subject"), "The subject must be a string with at least one character.");
        }
        self.headers(one.get("headers"), &format!("{at}.headers"));
        self.arguments(root_args, one.get("custom_args"), &format!("{at}.custom_args"));
        if one
            .get("substitutions")
            .is_some_and(|s| !s.is_object() || s.to_string().len() > SUBSTITUTIONS_BYTES)
        {
            self.wrong(format!("{at}.substitutions"), "Substitutions are an object of at most 10000 bytes.");
        }
        self.send_at(one.get("send_at"), &format!("{at}.send_at"));
    }

    fn person(&mut self, person: &Value, at: &str, list: &str) {
        self.mailbox(person, at);
        let name = text(&person["name"]);
        if name.contains([';', ',']) {
            self.wrong(format!("{at}.name"), "The name must not contain ; or ,");
        }
        let folded = text(&person["email"]).to_lowercase();
        if !folded.is_empty() && !self.seen.insert(folded.clone()) {
            let text = format!(
                "Each email address in the personalization block should be unique between to, cc, and bcc. We found the \
                 first duplicate instance of [{folded}] in the {list} field."
            );
            let personalization = at.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
            self.wrong(personalization, text);
        }
    }

    fn mailbox(&mut self, person: &Value, at: &str) {
        let email = text(&person["email"]);
        if !email.is_ascii() || !is_mailbox(email) {
            self.wrong(format!("{at}.email"), "Does not contain a valid address.");
        }
        if person.get("name").is_some_and(|n| !n.is_string()) {
            self.wrong(format!("{at}.name"), "The name must be a string.");
        }
        if text(&person["name"]).contains(['\r', '\n']) {
            self.wrong(format!("{at}.name"), "The name must not contain CRLF.");
        }
    }

    fn sender(&mut self, mail: &Map<String, Value>) {
        match mail.get("from").filter(|f| f["email"].is_string()) {
            None => self.wrong("from.email", "The from object must be provided for every email send."),
            Some(from) => {
                self.mailbox(from, "from");
                if !text(&from["name"]).is_ascii() {
                    self.wrong("from.name", "The from object must not hold Unicode.");
                }
            }
        }
        match (mail.get("reply_to"), mail.get("reply_to_list")) {
            (Some(_), Some(_)) => self.wrong("reply_to_list", "Use reply_to or reply_to_list, not both."),
            (Some(one), None) => self.mailbox(one, "reply_to"),
            (None, Some(list)) => {
                let list = list.as_array().cloned().unwrap_or_default();
                if list.is_empty() || list.len() > 1000 {
                    self.wrong("reply_to_list", "reply_to_list is an array of 1 to 1000 objects.");
                }
                for (n, one) in list.iter().enumerate() {
                    self.mailbox(one, &format!("reply_to_list.{n}"));
                }
            }
            (None, None) => {}
        }
    }

    fn subject(&mut self, mail: &Map<String, Value>) {
        let has = |v: Option<&Value>| v.and_then(Value::as_str).is_some_and(|s| !s.is_empty());
        let people = mail.get("personalizations").and_then(Value::as_array);
        let everywhere = people.is_some_and(|p| !p.is_empty() && p.iter().all(|one| has(one.get("subject"))));
        let given = mail.get("subject");
        if (given.is_some() && !has(given)) || !(has(given) || everywhere || mail.contains_key("template_id"))
        {
            let text = "The subject is required. You can get around this requirement if you use a template with a subject \
                        defined or if every personalization has a subject defined.";
            self.wrong("subject", text);
        }
        if given.and_then(Value::as_str).is_some_and(|s| s.contains(['\r', '\n'])) {
            self.wrong("subject", "The subject must not contain CRLF.");
        }
    }

    fn content(&mut self, mail: &Map<String, Value>) {
        let parts = mail.get("content").and_then(Value::as_array).cloned().unwrap_or_default();
        if parts.is_empty() {
            if !mail.contains_key("template_id") {
                let text = "Unless a valid template_id is provided, the content parameter is required. There must be at \
                            least one defined content block.";
                self.wrong("content", text);
            }
            return;
        }
        let mut kinds = Vec::new();
        for (n, part) in parts.iter().enumerate() {
            let kind = text(&part["type"]);
            if kind.is_empty() || kind.contains([';', '\r', '\n']) {
                let text = "The content type must be a string, not empty, and cannot contain ';' or CRLF.";
                self.wrong(format!("content.{n}.type"), text);
            }
            if part["value"].as_str().is_none_or(str::is_empty) {
                let text = "The content value must be a string at least one character in length.";
                self.wrong(format!("content.{n}.value"), text);
            }
            kinds.push(kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        }
        let rank = |kind: &String| match kind.as_str() {
            "text/plain" => 0,
            "text/html" => 1,
            _ => 2,
        };
        if !kinds.is_sorted_by_key(rank) {
            let text =
                "If present, text/plain must be first, followed by text/html, followed by any other content.";
            self.wrong("content", text);
        }
        for kind in ["text/plain", "text/html"] {
            if kinds.iter().filter(|k| *k == kind).count() > 1 {
                self.wrong("content", format!("If present, {kind} may only be provided once."));
            }
        }
    }

    fn attachments(&mut self, mail: &Map<String, Value>) {
        let Some(all) = mail.get("attachments") else { return };
        let Some(all) = all.as_array() else {
            return self.wrong("attachments", "The attachments parameter must be an array.");
        };
        for (n, one) in all.iter().enumerate() {
            let at = format!("attachments.{n}");
            let content = text(&one["content"]);
            if content.is_empty() || STANDARD.decode(content).is_err() {
                self.wrong(format!("{at}.content"), "The attachment content must be base64 encoded.");
            }
            if text(&one["filename"]).is_empty() || text(&one["filename"]).contains(['\r', '\n']) {
                self.wrong(
                    format!("{at}.filename"),
                    "The attachment filename must be a string, without CRLF.",
                );
            }
            let kind = one.get("type");
            if kind.is_some_and(|k| k.as_str().is_none_or(|k| k.is_empty() || k.contains(['\r', '\n']))) {
                self.wrong(
                    format!("{at}.type"),
                    "The attachment type must be a string, not empty, without CRLF.",
                );
            }
            let disposition = one.get("disposition");
            if disposition.is_some_and(|d| d != "inline" && d != "attachment") {
                self.wrong(format!("{at}.disposition"), "The disposition must be inline or attachment.");
            }
            if one.get("content_id").is_some_and(|c| c.as_str().is_none_or(|c| c.contains(['\r', '\n']))) {
                self.wrong(format!("{at}.content_id"), "The content_id must be a string, without CRLF.");
            }
        }
    }

    fn headers(&mut self, headers: Option<&Value>, at: &str) {
        let Some(headers) = headers else { return };
        let Some(headers) = headers.as_object() else {
            return self.wrong(at, "The headers must be an object.");
        };
        for (name, value) in headers {
            if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                self.wrong(
                    format!("{at}.{name}"),
                    format!("The header {name} is reserved and cannot be set."),
                );
            }
            let visible = |b: u8| b.is_ascii_graphic() && b != b':';
            if name.is_empty() || !name.bytes().all(visible) {
                self.wrong(format!("{at}.{name}"), "A header's name must be visible ASCII.");
            }
            if value.as_str().is_none_or(|v| v.contains(['\r', '\n'])) {
                self.wrong(format!("{at}.{name}"), "The header values must be strings, without CRLF.");
            }
        }
    }

    fn labels(&mut self, mail: &Map<String, Value>) {
        let Some(all) = mail.get("categories") else { return };
        let all = all.as_array().cloned().unwrap_or_default();
        if all.is_empty() || all.len() > CATEGORIES_MAX {
            self.wrong("categories", "Categories are an array of 1 to 10 strings.");
        }
        let mut seen = HashSet::new();
        for (n, one) in all.iter().enumerate() {
            let name = text(one);
            if name.is_empty() || name.chars().count() > CATEGORY_CHARS_MAX {
                self.wrong(format!("categories.{n}"), "A category is a string of 1 to 255 characters.");
            }
            if !seen.insert(name.to_owned()) {
                self.wrong(format!("categories.{n}"), "Categories must be unique.");
            }
        }
    }

    fn arguments(&mut self, root: Option<&Value>, own: Option<&Value>, at: &str) {
        if own.is_some_and(|o| !o.is_object()) || root.is_some_and(|r| !r.is_object() && !r.is_string()) {
            self.wrong(at, "Custom arguments are an object.");
        }
        let all = arguments(root.unwrap_or(&Value::Null), own.unwrap_or(&Value::Null));
        let values = own.and_then(Value::as_object).into_iter().flat_map(Map::values);
        if values.into_iter().any(|v| !v.is_string()) {
            self.wrong(at, "The values of custom arguments must be strings.");
        }
        let object: Map<String, Value> =
            all.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        if Value::Object(object).to_string().len() >= CUSTOM_ARGS_BYTES {
            self.wrong(at, "Custom arguments must be less than 10000 bytes.");
        }
    }

    fn send_at(&mut self, at_second: Option<&Value>, at: &str) {
        let Some(value) = at_second else { return };
        let latest = System.now().millis() / 1000 + SEND_AT_MAX_SECONDS;
        if value.as_i64().is_none_or(|second| second > latest) {
            self.wrong(at, "send_at is a Unix time of at most 72 hours from now.");
        }
    }

    fn settings(&mut self, mail: &Map<String, Value>) {
        self.send_at(mail.get("send_at"), "send_at");
        for name in ["batch_id", "template_id"] {
            if mail.get(name).is_some_and(|v| v.as_str().is_none_or(str::is_empty)) {
                self.wrong(name, format!("{name} must be a string."));
            }
        }
        for name in ["mail_settings", "tracking_settings", "asm"] {
            if mail.get(name).is_some_and(|v| !v.is_object()) {
                self.wrong(name, format!("{name} must be an object."));
            }
        }
        if let Some(asm) = mail.get("asm") {
            let groups = asm.get("groups_to_display").and_then(Value::as_array);
            if !asm["group_id"].is_i64() || groups.is_some_and(|g| g.len() > GROUPS_TO_DISPLAY_MAX) {
                self.wrong("asm", "asm has a group_id and at most 25 groups_to_display.");
            }
        }
        let pool = mail.get("ip_pool_name");
        if pool.is_some_and(|p| p.as_str().is_none_or(|p| !(2..=64).contains(&p.chars().count()))) {
            self.wrong("ip_pool_name", "ip_pool_name has 2 to 64 characters.");
        }
    }
}
