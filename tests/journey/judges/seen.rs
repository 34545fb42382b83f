//! What people see of a message: as the request of an API says it, and as `mail-parser` reads the original.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mail_parser::{Address, MessageParser, MessagePart, MimeHeaders as _, PartType};
use serde_json::Value;

use super::key;
use crate::support::esps::address;

/// Where `mail-parser` shows something else than what was written: the message, what of it, and what stands there.
///
/// It reads no charset with characters of several octets, nor one character over two encoded words, nor a comment behind
/// an encoding, nor the last part of what is not closed; it decodes what only resembles encoded words, and prefers the
/// plain file name to the one with a charset. A header without its empty line gets one from the relay.
#[rustfmt::skip]
const STANDS_THERE: &[(&str, &str, &str)] = &[
    ("alternative-unclosed", "html", "<b>Hello Ann</b>"),
    ("alternative-unclosed", "files", ""),
    ("charset-big5", "text", "訂單"),
    ("charset-euc-jp", "text", "ご注文"),
    ("charset-euc-kr", "text", "주문 확인"),
    ("charset-gb18030", "text", "订单确认 𠀀"),
    ("charset-gb2312", "text", "你好"),
    ("charset-iso-2022-jp", "text", "こんにちは世界"),
    ("charset-shift-jis", "html", "注文の確認"),
    ("mixed-boundary-in-text", "text", "--bb\r\n --b\r\ntext --b\r\n--b x\r\n--"),
    ("mixed-name-rfc2231", "files",
     "\"Rechnung für Ann 1.pdf\" application/pdf <> %PDF-1.4\\n\\x00\\xff\\n\n\
      \"€.pdf\" application/pdf <> %PDF-1.4\\n\\x00\\xff\\n"),
    ("no-empty-line", "text", "no field"),
    ("subject-encoded", "subject", "Grüße and  你好 Köln"),
    ("subject-iso-2022-jp", "subject", "注文の確認"),
    ("subject-looks-encoded", "subject", "=?utf-8?Q?not one?= x=?utf-8?Q?a?="),
    ("subject-split-character", "subject", "café!"),
    ("text-base64", "text", "Grüße 🐦\nGrüße 🐦\nGrüße 🐦\nGrüße 🐦\nGrüße 🐦"),
];

#[derive(Debug, Default)]
pub struct Seen {
    subject: String,
    from: Vec<Person>,
    reply_to: Vec<Person>,
    to: Vec<Person>,
    cc: Vec<Person>,
    pub bcc: Vec<Person>,
    text: String,
    html: String,
    files: Vec<File>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Person {
    name: String,
    /// The address as one compares it.
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    /// Empty where the original has none: an API wants one.
    name: String,
    /// Without parameters.
    kind: String,
    id: String,
    /// Text in UTF-8.
    octets: Vec<u8>,
}

impl Seen {
    /// Everybody who gets a copy.
    pub fn recipients(&self) -> impl Iterator<Item = &Person> {
        self.to.iter().chain(&self.cc).chain(&self.bcc)
    }

    pub fn of_original(raw: &[u8]) -> Seen {
        let message = MessageParser::default().parse(raw).unwrap();
        let text = message.text_bodies().find_map(|part| match &part.body {
            PartType::Text(text) => Some(text.as_ref()),
            _ => None,
        });
        let html = message.html_bodies().find_map(|part| match &part.body {
            PartType::Html(html) => Some(html.as_ref()),
            _ => None,
        });
        Seen {
            subject: message.subject().unwrap_or_default().to_owned(),
            from: people(message.from()),
            reply_to: people(message.reply_to()),
            to: message.all_to().flat_map(|to| people(Some(to))).collect(),
            cc: message.all_cc().flat_map(|cc| people(Some(cc))).collect(),
            bcc: Vec::new(),
            text: text.unwrap_or_default().to_owned(),
            html: html.unwrap_or_default().to_owned(),
            files: message.attachments().map(file).collect(),
        }
    }

    /// What differs from the original.
    pub fn against(&self, original: &Seen, name: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str, ours: String, theirs: String| {
            let written = STANDS_THERE.iter().find(|row| row.0 == name && row.1 == what);
            let wanted = written.map_or(theirs, |row| row.2.to_owned());
            if ours != wanted {
                wrong.push(format!("{name}: {what}\n  handed over: {ours:?}\n  original:    {wanted:?}"));
            }
        };
        compare("subject", self.subject.trim().to_owned(), original.subject.trim().to_owned());
        compare("from", shown(&self.from), shown(&original.from));
        compare("reply-to", shown(&self.reply_to), shown(&original.reply_to));
        compare("to", shown(&self.to), shown(&original.to));
        compare("cc", shown(&self.cc), shown(&original.cc));
        compare("text", lines(&self.text), lines(&original.text));
        compare("html", lines(&self.html), lines(&original.html));
        compare("files", self.files_beside(original), original.files_beside(original));
        wrong
    }

    /// One alone whom the message does not name may be shown his own address, where an API insists on a To.
    pub fn hide_the_only_one(&mut self) {
        if self.to.len() == 1 && self.to[0].name.is_empty() && self.cc.is_empty() && self.bcc.is_empty() {
            std::mem::swap(&mut self.to, &mut self.bcc);
        }
    }

    /// Whether somebody sees the address of another who is not named in the original.
    pub fn shows_somebody_to_another(&self) -> bool {
        self.to.len() + self.cc.len() > 0 && self.recipients().count() > 1
    }

    /// The files, a line each. What has no name in the original has one that was made up, and an id tells something
    /// only where the HTML refers to it.
    fn files_beside(&self, original: &Seen) -> String {
        let line = |(n, file): (usize, &File)| {
            let named = original.files.get(n).is_none_or(|f| !f.name.is_empty());
            let shown = !file.id.is_empty() && original.html.contains(&format!("cid:{}", file.id));
            let (name, id) = (if named { &*file.name } else { "" }, if shown { &*file.id } else { "" });
            format!("{name:?} {} <{id}> {}", file.kind, file.octets.escape_ascii())
        };
        self.files.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// The end of the last line is the boundary's, and blanks alone are no text.
fn lines(text: &str) -> String {
    if text.trim().is_empty() { String::new() } else { text.trim_end_matches(['\r', '\n']).to_owned() }
}

fn shown(people: &[Person]) -> String {
    people.iter().map(|p| format!("{:?} <{}>", p.name, p.key)).collect::<Vec<_>>().join(", ")
}

fn people(list: Option<&Address<'_>>) -> Vec<Person> {
    let all = list.into_iter().flat_map(|list| list.iter());
    all.filter_map(|one| Some(person(one.name().unwrap_or_default(), one.address()?))).collect()
}

fn person(name: &str, address: &str) -> Person {
    Person { name: name.trim().to_owned(), key: key(address) }
}

fn file(part: &MessagePart<'_>) -> File {
    let kind = part.content_type().map(|t| format!("{}/{}", t.ctype(), t.subtype().unwrap_or_default()));
    File {
        name: part.attachment_name().unwrap_or_default().to_owned(),
        kind: kind.unwrap_or_else(|| "text/plain".to_owned()).to_lowercase(),
        id: part.content_id().unwrap_or_default().to_owned(),
        octets: part.contents().to_vec(),
    }
}

/// A file as an API is handed it.
fn handed_file(name: &Value, kind: &Value, id: &Value, content: &Value) -> File {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(kind).to_lowercase();
    let octets = STANDARD.decode(content.as_str().unwrap()).unwrap();
    let charset = kind
        .split(';')
        .find_map(|p| p.trim().strip_prefix("charset="))
        .map(|c| c.trim_matches('"').to_owned());
    let decoder = charset.and_then(|c| encoding_rs::Encoding::for_label(c.as_bytes()));
    File {
        name: text(name),
        id: text(id).trim_start_matches("cid:").to_owned(),
        octets: decoder.map_or(octets.clone(), |d| d.decode(&octets).0.into_owned().into_bytes()),
        kind: kind.split(';').next().unwrap_or_default().trim().to_owned(),
    }
}

/// `POST /email` of Postmark.
pub fn of_postmark(json: &Value) -> Seen {
    let text = |key: &str| json[key].as_str().unwrap_or_default();
    let people = |key: &str| -> Vec<Person> {
        address::list(text(key)).unwrap().iter().map(|m| person(&m.name, &m.address)).collect()
    };
    let files = json["Attachments"].as_array().into_iter().flatten();
    Seen {
        subject: text("Subject").to_owned(),
        from: people("From"),
        reply_to: people("ReplyTo"),
        to: people("To"),
        cc: people("Cc"),
        bcc: people("Bcc"),
        text: text("TextBody").to_owned(),
        html: text("HtmlBody").to_owned(),
        files: files
            .map(|f| handed_file(&f["Name"], &f["ContentType"], &f["ContentID"], &f["Content"]))
            .collect(),
    }
}

/// `POST /v3/mail/send` of SendGrid.
pub fn of_sendgrid(json: &Value) -> Seen {
    let one = |value: &Value| {
        person(value["name"].as_str().unwrap_or_default(), value["email"].as_str().unwrap_or_default())
    };
    let people = |value: &Value| -> Vec<Person> { value.as_array().into_iter().flatten().map(one).collect() };
    let all = json["personalizations"].as_array().unwrap();
    assert_eq!(all.len(), 1, "one message, one personalization");
    let content = |kind: &str| {
        let all = json["content"].as_array().into_iter().flatten();
        let of_kind = |c: &&Value| c["type"].as_str().is_some_and(|t| t.split(';').next() == Some(kind));
        all.filter(of_kind).filter_map(|c| c["value"].as_str()).collect::<String>()
    };
    let files = json["attachments"].as_array().into_iter().flatten();
    let mut reply_to = people(&json["reply_to_list"]);
    reply_to.extend(json["reply_to"].is_object().then(|| one(&json["reply_to"])));
    Seen {
        subject: json["subject"].as_str().unwrap_or_default().to_owned(),
        from: vec![one(&json["from"])],
        reply_to,
        to: people(&all[0]["to"]),
        cc: people(&all[0]["cc"]),
        bcc: people(&all[0]["bcc"]),
        text: content("text/plain"),
        html: content("text/html"),
        files: files
            .map(|f| handed_file(&f["filename"], &f["type"], &f["content_id"], &f["content"]))
            .collect(),
    }
}
