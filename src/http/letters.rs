//! The body of `POST /v1/send` read: JSON with every wrong field named, or a message as it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::parsers::MessageStream;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::body::{Pairs, object};
use super::error::{FieldProblem, Problem};
use crate::address::{Address, Grammar};
use crate::clock::Timestamp;
use crate::flow::compose::{File, Letter, Person, read_person};
use crate::mail::asks::{self, Asks};
use crate::mail::headers::fields;
use crate::mail::mailboxes::{Mailbox, mailboxes};

/// Of To, Cc and Bcc together; as an SMTP listener takes by default.
pub const RECIPIENTS_MAX: usize = 1000;
const TWICE: &str = "is given twice; a mail has one";
const EXAMPLE: &str =
    "{\"from\":\"a@example.com\",\"to\":[\"b@example.net\"],\"subject\":\"…\",\"text\":\"…\"}";

/// A mail in parts, as `POST /v1/send` takes it. Addresses are `a@b.example` or `Name <a@b.example>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mail {
    /// Who writes; failures go there too.
    pub from: String,
    /// Named in To. To, cc and bcc together name at least one and at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Named in Cc.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cc: Vec<String>,
    /// Get it and are named nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bcc: Vec<String>,
    /// Who is answered, where that is not who writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// One line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The HTML; with text both go as alternatives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// Header fields of the app's own, not those that have a field here.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub headers: std::collections::BTreeMap<String, String>,
    /// Files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<MailFile>,
    /// As `[[stream]]` names it; absent: transactional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Labels of the app's own: at most 10, each of at most 255 octets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Pairs of the app's own: at most 20; a key has 1 to 40 letters, digits, _ and -, a value at most 255 octets.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub metadata: std::collections::BTreeMap<String, String>,
    /// The one ESP that may carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub esp: Option<String>,
    /// Not before then: RFC 3339, or as in Date; at most 30 days ahead, the past is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_at: Option<String>,
}

/// A file that goes with a mail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MailFile {
    /// Its name.
    pub filename: String,
    /// Such as `application/pdf`; absent: `application/octet-stream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Its octets in base64.
    pub content: String,
    /// Where the HTML shows it as `cid:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
}

/// What a request asks to be sent, read.
#[derive(Debug)]
pub(super) struct Wanted {
    /// MAIL FROM.
    pub(super) sender: Address,
    /// Who gets it, with the name of the field that says so.
    pub(super) recipients: Vec<(String, Address)>,
    /// The message: every line ends in CRLF.
    pub(super) content: Vec<u8>,
    /// The stream that was asked for.
    pub(super) stream: Option<String>,
    /// Labels.
    pub(super) tags: Vec<String>,
    /// Pairs.
    pub(super) metadata: Vec<(String, String)>,
    /// The one ESP.
    pub(super) esp: Option<String>,
    /// Not before then.
    pub(super) send_at: Option<Timestamp>,
    /// The app's own name for it.
    pub(super) key: Option<String>,
}

/// The members of an object, taken out one after the other; what is wrong is gathered.
struct Fields {
    members: Map<String, Value>,
    wrong: Vec<FieldProblem>,
    /// Put before each name.
    within: String,
}

impl Fields {
    fn wrong(&mut self, field: &str, message: impl Into<String>) {
        self.wrong.push(FieldProblem::new(format!("{}{field}", self.within), message));
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.members.remove(key)? {
            Value::String(text) => Some(text),
            Value::Null => None,
            _ => {
                self.wrong(key, "not a text");
                None
            }
        }
    }

    fn list(&mut self, key: &str) -> Vec<Value> {
        match self.members.remove(key) {
            Some(Value::Array(list)) => list,
            None | Some(Value::Null) => Vec::new(),
            Some(_) => {
                self.wrong(key, "not a list");
                Vec::new()
            }
        }
    }

    fn pairs(&mut self, key: &str) -> Vec<(String, String)> {
        let members = match self.members.remove(key) {
            Some(Value::Object(members)) => members,
            None | Some(Value::Null) => return Vec::new(),
            Some(_) => {
                self.wrong(key, "not an object of texts");
                return Vec::new();
            }
        };
        let mut pairs = Vec::new();
        for (name, value) in members {
            match value {
                Value::String(text) => pairs.push((name, text)),
                _ => self.wrong(&format!("{key}.{name}"), "not a text"),
            }
        }
        pairs
    }

    fn person(&mut self, key: &str) -> Option<Person> {
        let text = self.text(key)?;
        read_person(&text).map_err(|what| self.wrong(key, what)).ok()
    }

    fn people(&mut self, key: &str) -> Vec<Person> {
        let mut people = Vec::new();
        for (n, value) in self.list(key).into_iter().enumerate() {
            match value.as_str().map(read_person) {
                Some(Ok(person)) => people.push(person),
                Some(Err(what)) => self.wrong(&format!("{key}[{n}]"), what),
                None => self.wrong(&format!("{key}[{n}]"), "not a text"),
            }
        }
        people
    }

    fn is_wrong(&self, field: &str) -> bool {
        self.wrong.iter().any(|wrong| wrong.field == field)
    }

    /// Everything that is left is unknown.
    fn finish(&mut self) {
        for key in std::mem::take(&mut self.members).into_iter().map(|(key, _)| key) {
            self.wrong(&key, "no such field; GET /openapi.json describes them");
        }
    }
}

/// Reads the JSON.
pub(super) fn read_json(body: &[u8], now: Timestamp) -> Result<Wanted, Problem> {
    let members = object(body, EXAMPLE)?;
    let mut fields = Fields { members, wrong: Vec::new(), within: String::new() };
    let from = fields.person("from");
    let (to, cc, bcc) = (fields.people("to"), fields.people("cc"), fields.people("bcc"));
    let reply_to = fields.person("reply_to");
    let subject = fields.text("subject").unwrap_or_default();
    let (text, html) = (fields.text("text"), fields.text("html"));
    let headers = fields.pairs("headers");
    let files = files(&mut fields);
    let (stream, esp) = (fields.text("stream"), fields.text("esp"));
    let (tags, metadata) = labels(&mut fields);
    let send_at = fields.text("send_at").and_then(|text| {
        asks::moment(&text, now).map_err(|what| fields.wrong("send_at", format!("{text:?} {what}"))).ok()
    });
    fields.finish();
    if from.is_none() && !fields.is_wrong("from") {
        fields.wrong("from", "missing: who writes?");
    }
    let Some(from) = from else { return Err(Problem::fields(fields.wrong)) };
    let letter = Letter { from, to, cc, bcc, reply_to, subject, text, html, headers, files };
    let recipients = named(&letter);
    if let Some(what) = wrong_count(recipients.len()).filter(|_| !recipients.is_empty()) {
        fields.wrong("to", what);
    }
    // A thousand names are written quickly, a million are not.
    let written = if recipients.len() > RECIPIENTS_MAX { Err(Vec::new()) } else { letter.write(now) };
    if let Err(unfit) = &written {
        // Where somebody is named and cannot be read, nobody is missing.
        let named =
            ["to", "cc", "bcc"].iter().any(|list| fields.wrong.iter().any(|w| w.field.starts_with(list)));
        let unfit = unfit.iter().filter(|u| !fields.is_wrong(&u.field) && (u.field != "to" || !named));
        let unfit: Vec<_> = unfit.map(|u| FieldProblem::new(u.field.clone(), u.message.clone())).collect();
        fields.wrong.extend(unfit);
    }
    match written {
        Ok(content) if fields.wrong.is_empty() => {
            let sender = letter.from.address;
            Ok(Wanted { sender, recipients, content, stream, tags, metadata, esp, send_at, key: None })
        }
        _ => Err(Problem::fields(fields.wrong)),
    }
}

fn wrong_count(recipients: usize) -> Option<String> {
    match recipients {
        0 => Some("name at least one recipient".into()),
        1..=RECIPIENTS_MAX => None,
        _ => Some(format!("{recipients} recipients; a mail may have {RECIPIENTS_MAX}")),
    }
}

/// Each address once, by the field that named it first.
fn named(letter: &Letter) -> Vec<(String, Address)> {
    let mut seen = std::collections::HashSet::new();
    let lists = [("to", &letter.to), ("cc", &letter.cc), ("bcc", &letter.bcc)];
    let all = lists.into_iter().flat_map(|(key, people)| {
        people.iter().enumerate().map(move |(n, person)| (format!("{key}[{n}]"), person.address.clone()))
    });
    all.filter(|(_, address)| seen.insert(address.key())).collect()
}

fn files(fields: &mut Fields) -> Vec<File> {
    let mut files = Vec::new();
    for (n, value) in fields.list("attachments").into_iter().enumerate() {
        let Value::Object(members) = value else {
            fields.wrong(&format!("attachments[{n}]"), "not an object");
            continue;
        };
        let mut of = Fields { members, wrong: Vec::new(), within: format!("attachments[{n}].") };
        let filename = of.text("filename").unwrap_or_default();
        let content_type = of.text("content_type").unwrap_or_else(|| "application/octet-stream".into());
        let content_id = of.text("content_id");
        let content = match of.text("content").map(|text| STANDARD.decode(text.as_bytes())) {
            Some(Ok(content)) => content,
            Some(Err(error)) => {
                of.wrong("content", format!("not base64: {error}"));
                Vec::new()
            }
            None => {
                of.wrong("content", "missing: the octets in base64");
                Vec::new()
            }
        };
        of.finish();
        fields.wrong.append(&mut of.wrong);
        files.push(File { filename, content_type, content, content_id });
    }
    files
}

fn labels(fields: &mut Fields) -> (Vec<String>, Vec<(String, String)>) {
    let mut tags = Vec::new();
    for (n, value) in fields.list("tags").into_iter().enumerate() {
        let tag = match value {
            Value::String(tag) => asks::value_fits(&tag).map(|()| tag),
            _ => Err("not a text".to_owned()),
        };
        match tag {
            Ok(tag) => tags.push(tag),
            Err(what) => fields.wrong(&format!("tags[{n}]"), what),
        }
    }
    let metadata = fields.pairs("metadata");
    let mut keys = std::collections::HashSet::new();
    for (key, value) in &metadata {
        if !keys.insert(key.to_ascii_lowercase()) {
            fields.wrong(&format!("metadata.{key}"), "stands there twice: A and a are one key");
        }
        if let Err(what) = asks::key_fits(key).and_then(|()| asks::value_fits(value)) {
            fields.wrong(&format!("metadata.{key}"), what);
        }
    }
    for (key, count, most) in
        [("tags", tags.len(), asks::TAGS_MAX), ("metadata", metadata.len(), asks::METADATA_MAX)]
    {
        if count > most {
            fields.wrong(key, format!("at most {most} in a message"));
        }
    }
    (tags, metadata)
}

/// Reads a message as it is: the envelope is `?from=` and `?to=`, as often as there are recipients; where one of them is
/// absent, it comes from the message's own From, or To, Cc and Bcc. What it asks for in `X-Postroad-*` fields is read as
/// from an app that speaks SMTP.
pub(super) fn read_message(body: &[u8], pairs: Pairs, now: Timestamp) -> Result<Wanted, Problem> {
    let (mut from, mut to, mut stream, mut esp, mut wrong) = (None, Vec::new(), None, None, Vec::new());
    for (key, value) in pairs {
        match key.as_str() {
            "from" if from.is_some() => wrong.push(FieldProblem::new(key, TWICE)),
            "stream" if stream.is_some() => wrong.push(FieldProblem::new(key, TWICE)),
            "esp" if esp.is_some() => wrong.push(FieldProblem::new(key, TWICE)),
            "from" => from = Some(("from".to_owned(), value)),
            "to" => to.push((format!("to[{}]", to.len()), value)),
            "stream" => stream = Some(value),
            "esp" => esp = Some(value),
            _ => wrong.push(FieldProblem::new(key, "no such parameter; there are from, to, stream and esp")),
        }
    }
    let content = lines(body).map_err(|what| Problem::fields(vec![FieldProblem::new("body", what)]))?;
    if fields(&content).next().is_none() {
        return Err(Problem::fields(vec![FieldProblem::new("body", "has no header block")]));
    }
    let asks = Asks::read(&content, now).unwrap_or_else(|bad| {
        wrong.push(FieldProblem::new("body", bad.to_string()));
        Asks::default()
    });
    for (given, asked, field, name) in [
        (&mut stream, asks.stream.clone(), "stream", "X-Postroad-Stream"),
        (&mut esp, asks.esp.clone(), "esp", "X-Postroad-Esp"),
    ] {
        match (given.as_deref(), asked) {
            (Some(given), Some(asked)) if given != asked => {
                wrong.push(FieldProblem::new(field, format!("the message's {name} says {asked}")));
            }
            (None, asked) => *given = asked,
            (Some(_), _) => {}
        }
    }
    let in_header = |word: &str| -> Vec<(String, String)> {
        let addresses =
            fields(&content).filter(|field| field.is(word)).flat_map(|field| addresses(field.value()));
        addresses.enumerate().map(|(n, address)| (format!("{word}[{n}]"), address)).collect()
    };
    let from_header = || Some(("From".to_owned(), in_header("From").into_iter().next()?.1));
    let from = from.or_else(from_header);
    if to.is_empty() {
        to.extend(["To", "Cc", "Bcc"].into_iter().flat_map(in_header));
    }
    let mut address = |(field, text): (String, String)| match Address::parse(&text, Grammar::Lenient) {
        Ok(address) => Some((field, address)),
        Err(error) => {
            wrong.push(FieldProblem::new(field, format!("{text:?}: {error}")));
            None
        }
    };
    let sender = from.and_then(&mut address);
    let mut seen = std::collections::HashSet::new();
    let recipients: Vec<_> =
        to.into_iter().filter_map(&mut address).filter(|(_, a)| seen.insert(a.key())).collect();
    if sender.is_none() && wrong.is_empty() {
        wrong.push(FieldProblem::new("from", "missing, and the message has no From"));
    }
    if let Some(what) = wrong_count(recipients.len()).filter(|_| wrong.is_empty()) {
        wrong.push(FieldProblem::new("to", what));
    }
    match sender {
        Some((_, sender)) if wrong.is_empty() => {
            let Asks { tags, metadata, send_at, key, .. } = asks;
            Ok(Wanted { sender, recipients, content, stream, tags, metadata, esp, send_at, key })
        }
        _ => Err(Problem::fields(wrong)),
    }
}

/// The addresses of a field's value. The parser loses quoted local parts: where it does, our own grammar is asked.
fn addresses(value: &[u8]) -> Vec<String> {
    let parsed = MessageStream::new(value).parse_address();
    let list = parsed.as_address().into_iter().flat_map(|list| list.iter());
    let read: Vec<_> = list.filter_map(|address| address.address()).map(str::to_owned).collect();
    if read.iter().all(|text| Address::parse(text, Grammar::Lenient).is_ok()) {
        return read;
    }
    let ours = mailboxes(value).into_iter().map(|mailbox| match mailbox {
        Mailbox::Address(span) => Some(String::from_utf8_lossy(value.get(span)?).into_owned()),
        Mailbox::Bare(_) | Mailbox::Odd => None,
    });
    ours.collect::<Option<Vec<_>>>().filter(|ours| ours.len() == read.len()).unwrap_or(read)
}

/// Every line ends in CRLF: LF alone becomes it, as files have it. CR alone and NUL have no place in mail.
fn lines(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(body.len() + body.len() / 32);
    for (n, line) in body.split_inclusive(|b| *b == b'\n').enumerate() {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.iter().any(|b| matches!(b, b'\r' | 0)) {
            return Err(format!("line {} has a CR that ends no line, or a NUL", n + 1));
        }
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}
