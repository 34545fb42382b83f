//! A letter becomes a message: what apps hand in as parts (From, To, text, attachments) is written as MIME.
//!
//! Nothing of a letter can become a header of its own accord: names are checked letter by letter, values may hold no
//! control character, addresses are ours by the time they are written, everything else is encoded.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::address::Envelope;
use lettre::message::header::{self, ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Body, Mailbox, Mailboxes, MultiPart, SinglePart};
use memchr::memchr2;

use crate::address::{Address, Grammar};
use crate::clock::Timestamp;
use crate::mail::body::{BodyFacts, HEADER_OCTETS_MAX};
use crate::mail::headers::{LINE_OCTETS_MAX, fields};
use crate::mail::transfer::{ENCODED_LINE_OCTETS_MAX, quoted_printable};

/// Header fields that a letter has by other means, or that are the relay's.
const NOT_BY_NAME: [&str; 15] = [
    "from",
    "sender",
    "to",
    "cc",
    "bcc",
    "subject",
    "reply-to",
    "date",
    "received",
    "return-path",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "resent-bcc",
    "content-disposition",
];
/// RFC 5322 section 2.1.1 has lines of 998; a name is never near it.
const NAME_OCTETS_MAX: usize = 76;

/// The relay writes fields of its own on top: Received, Message-ID.
const ROOM_OF_OURS: usize = 4096;

/// What is wrong with a part of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Which: `to[2]`, `headers.X-Order`.
    pub field: String,
    /// What, and what to do.
    pub message: String,
}

impl Unfit {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Unfit { field: field.into(), message: message.into() }
    }
}

/// An address with the name beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name; may be empty.
    pub name: String,
    /// The address.
    pub address: Address,
}

/// A file that goes with a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub filename: String,
    /// Such as `application/pdf`.
    pub content_type: String,
    /// Its octets.
    pub content: Vec<u8>,
    /// Where the HTML shows it as `cid:…`.
    pub content_id: Option<String>,
}

/// A message in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Who writes.
    pub from: Person,
    /// Named in To.
    pub to: Vec<Person>,
    /// Named in Cc.
    pub cc: Vec<Person>,
    /// Named nowhere.
    pub bcc: Vec<Person>,
    /// Who is answered, where that is somebody else.
    pub reply_to: Option<Person>,
    /// One line.
    pub subject: String,
    /// The plain text.
    pub text: Option<String>,
    /// The HTML.
    pub html: Option<String>,
    /// Fields of the app's own.
    pub headers: Vec<(String, String)>,
    /// Files.
    pub files: Vec<File>,
}

/// Reads `a@b.example` or `Name <a@b.example>`.
///
/// Errors: what is wrong with it.
pub fn read_person(text: &str) -> Result<Person, String> {
    if text.chars().any(char::is_control) {
        return Err("has control characters in it".into());
    }
    let text = text.trim();
    let (name, bare) = match text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((name, bare)) => (name.trim(), bare),
        None => ("", text),
    };
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    let name =
        quoted.map_or_else(|| name.to_owned(), |name| name.replace("\\\"", "\"").replace("\\\\", "\\"));
    let address = Address::parse(bare.trim(), Grammar::Lenient);
    let address =
        address.map_err(|error| format!("{text:?}: {error}; write a@b.example or Name <a@b.example>"))?;
    Ok(Person { name, address })
}

impl Letter {
    /// Everybody who gets it, each once, in the order To, Cc, Bcc.
    pub fn recipients(&self) -> Vec<Address> {
        let mut seen = std::collections::HashSet::new();
        let all = self.to.iter().chain(&self.cc).chain(&self.bcc);
        all.filter(|person| seen.insert(person.address.key())).map(|person| person.address.clone()).collect()
    }

    /// The message, with Bcc left out. Every line ends in CRLF, all of it is ASCII.
    ///
    /// Errors: each part that is wrong.
    pub fn write(&self, now: Timestamp) -> Result<Vec<u8>, Vec<Unfit>> {
        let mut wrong = Vec::new();
        let headers = self.checked_headers(&mut wrong);
        if self.subject.chars().any(char::is_control) {
            wrong.push(Unfit::new("subject", "has control characters in it; write one line"));
        }
        if self.to.is_empty() && self.cc.is_empty() && self.bcc.is_empty() {
            wrong.push(Unfit::new("to", "name at least one recipient"));
        }
        let at = u64::try_from(now.millis()).unwrap_or(0);
        let mut builder = lettre::Message::builder()
            .date(SystemTime::UNIX_EPOCH + Duration::from_millis(at))
            .from(nobody())
            .envelope(Envelope::new(None, vec![nobody().email]).map_err(|error| odd(&error))?)
            .subject(self.subject.clone());
        let mut mailbox = |field: String, person: &Person| match mailbox(person) {
            Ok(mailbox) => Some(mailbox),
            Err(what) => {
                wrong.push(Unfit::new(field, what));
                None
            }
        };
        let from = mailbox("from".into(), &self.from);
        let mut list = |field: &str, people: &[Person]| -> Vec<Mailbox> {
            let named = people.iter().enumerate();
            named.filter_map(|(n, person)| mailbox(format!("{field}[{n}]"), person)).collect()
        };
        for (name, people) in [("To", list("to", &self.to)), ("Cc", list("cc", &self.cc))] {
            if !people.is_empty() {
                builder = builder.raw_header(addresses(HeaderName::new_from_ascii_str(name), people));
            }
        }
        list("bcc", &self.bcc);
        if let Some(reply_to) = self.reply_to.as_ref().and_then(|p| mailbox("reply_to".into(), p)) {
            builder = builder.reply_to(reply_to);
        }
        for header in headers {
            builder = builder.raw_header(header);
        }
        let content = self.content(&mut wrong);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let built = match content {
            Content::One(part) => builder.singlepart(part),
            Content::Many(parts) => builder.multipart(parts),
        };
        let mut message = built.map_err(|error| odd(&error))?;
        message.headers_mut().set(header::From::from(from.map_or_else(Mailboxes::new, Mailboxes::from)));
        let written = message.formatted();
        let long = self.too_long(&written);
        if long.is_empty() { Ok(written) } else { Err(long) }
    }

    /// The fields with a line that no next hop takes; where the whole block is too large, its largest.
    fn too_long(&self, written: &[u8]) -> Vec<Unfit> {
        let sizes = fields(written).map(|field| {
            let longest = field.raw.split(|b| *b == b'\n').map(|line| line.trim_ascii_end().len()).max();
            (self.name_of(field.name), field.raw.len(), longest.unwrap_or(0))
        });
        let sizes: Vec<_> = sizes.collect();
        let over = sizes.iter().filter(|(_, _, longest)| *longest > LINE_OCTETS_MAX);
        let mut long: Vec<_> = over
            .map(|(name, _, longest)| {
                let what = "has a word so long that its line cannot be folded";
                Unfit::new(name.clone(), format!("{what}: {longest} octets, {LINE_OCTETS_MAX} are allowed"))
            })
            .collect();
        let all: usize = sizes.iter().map(|(_, octets, _)| octets).sum();
        if let Some((name, octets, _)) = sizes.iter().max_by_key(|(_, octets, _)| *octets)
            && all + ROOM_OF_OURS > HEADER_OCTETS_MAX
            && long.is_empty()
        {
            let what = format!("has {octets} octets; all header fields together may have 256 KiB");
            long.push(Unfit::new(name.clone(), what));
        }
        long
    }

    /// What a field of the written message is called in the letter.
    fn name_of(&self, name: &[u8]) -> String {
        let own = self.headers.iter().find(|(own, _)| own.as_bytes().eq_ignore_ascii_case(name));
        match own {
            Some((own, _)) => format!("headers.{own}"),
            None => String::from_utf8_lossy(name).to_ascii_lowercase().replace('-', "_"),
        }
    }

    fn checked_headers(&self, wrong: &mut Vec<Unfit>) -> Vec<HeaderValue> {
        let mut checked = Vec::new();
        for (name, value) in &self.headers {
            let field = format!("headers.{name}");
            match header(name, value) {
                Ok(header) => checked.push(header),
                Err(what) => wrong.push(Unfit::new(field, what)),
            }
        }
        checked
    }

    /// The text, or text and HTML as alternatives; pictures of the HTML beside it; files around all.
    fn content(&self, wrong: &mut Vec<Unfit>) -> Content {
        let mut content = match (&self.text, &self.html) {
            (Some(text), Some(html)) => {
                Content::Many(MultiPart::alternative_plain_html(body_of(text), body_of(html)))
            }
            (None, Some(html)) => Content::One(SinglePart::html(body_of(html))),
            (text, None) => Content::One(SinglePart::plain(body_of(text.as_deref().unwrap_or_default()))),
        };
        let (mut shown, mut beside) = (Vec::new(), Vec::new());
        for (n, file) in self.files.iter().enumerate() {
            match part(file) {
                Ok(part) if file.content_id.is_some() => shown.push(part),
                Ok(part) => beside.push(part),
                Err((key, what)) => wrong.push(Unfit::new(format!("attachments[{n}].{key}"), what)),
            }
        }
        if !shown.is_empty() {
            content = content.with(MultiPart::related(), shown);
        }
        if !beside.is_empty() {
            content = content.with(MultiPart::mixed(), beside);
        }
        content
    }
}

/// In place of addresses that are written in afterwards: `lettre` would read them back by its own grammar.
fn nobody() -> Mailbox {
    Mailbox::new(None, lettre::Address::new_dangerous("nobody", "postroad.invalid"))
}

/// Not the fault of any one part.
fn odd(error: &dyn std::error::Error) -> Vec<Unfit> {
    vec![Unfit::new("", format!("cannot be written as a message: {error}"))]
}

/// What is below the header block.
enum Content {
    One(SinglePart),
    Many(MultiPart),
}

impl Content {
    fn with(self, around: lettre::message::MultiPartBuilder, parts: Vec<SinglePart>) -> Content {
        let whole = match self {
            Content::One(part) => around.singlepart(part),
            Content::Many(parts) => around.multipart(parts),
        };
        Content::Many(parts.into_iter().fold(whole, MultiPart::singlepart))
    }
}

/// The address was read by our own grammar, which knows more than `lettre`'s: quoted names, address literals.
fn mailbox(person: &Person) -> Result<Mailbox, String> {
    if person.name.chars().any(char::is_control) {
        return Err("the name has control characters in it".into());
    }
    let address = &person.address;
    let email = lettre::Address::new_dangerous(address.local(), address.domain().unwrap_or_default());
    let name = Some(person.name.clone()).filter(|name| !name.is_empty());
    Ok(Mailbox::new(name, email))
}

/// An address field, folded between mailboxes: `lettre` folds within names alone, and a thousand recipients on one line
/// are too many octets.
fn addresses(name: HeaderName, people: Vec<Mailbox>) -> HeaderValue {
    let (mut value, mut line_octets) = (String::new(), name.len() + 2);
    let raw = people.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    for (n, mailbox) in people.into_iter().enumerate() {
        let written = one(mailbox);
        if n > 0 {
            let fits = line_octets + 2 + written.len() <= ENCODED_LINE_OCTETS_MAX;
            value.push_str(if fits { ", " } else { ",\r\n " });
            line_octets = if fits { line_octets + 2 } else { 1 };
        }
        value.push_str(&written);
        let last_line = written.rsplit('\n').next().unwrap_or_default().len();
        line_octets = if last_line == written.len() { line_octets + last_line } else { last_line };
    }
    HeaderValue::dangerous_new_pre_encoded(name, raw, value)
}

/// A mailbox as `lettre` writes it.
fn one(mailbox: Mailbox) -> String {
    let mut headers = header::Headers::new();
    headers.set(header::Sender::from(mailbox));
    let line = headers.to_string();
    let value = line.strip_prefix("Sender: ").unwrap_or(&line);
    value.strip_suffix("\r\n").unwrap_or(value).to_owned()
}

fn header(name: &str, value: &str) -> Result<HeaderValue, String> {
    let lower = name.to_ascii_lowercase();
    let letters = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !letters || name.len() > NAME_OCTETS_MAX {
        return Err(format!("not a header name: letters, digits and hyphens, at most {NAME_OCTETS_MAX}"));
    }
    if NOT_BY_NAME.contains(&lower.as_str()) || lower.starts_with("x-postroad-") {
        return Err("cannot be set here: it has a field of its own, or is the relay's".into());
    }
    if value.chars().any(char::is_control) {
        return Err("the value has control characters in it; write one line".into());
    }
    let name = HeaderName::new_from_ascii(name.to_owned()).map_err(|error| error.to_string())?;
    Ok(HeaderValue::new(name, value.to_owned()))
}

/// Errors name the key of the attachment that is wrong.
fn part(file: &File) -> Result<SinglePart, (&'static str, String)> {
    let content_type = ContentType::parse(&file.content_type)
        .map_err(|_| ("content_type", "not a type such as application/pdf".to_owned()))?;
    if file.content_type.chars().any(char::is_control) {
        return Err(("content_type", "has control characters in it".into()));
    }
    if file.filename.is_empty() || file.filename.chars().any(char::is_control) {
        return Err(("filename", "empty, or has control characters in it".into()));
    }
    let Some(id) = &file.content_id else {
        return Ok(Attachment::new(file.filename.clone()).body(base64(&file.content), content_type));
    };
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b'\\');
    if id.is_empty() || !id.bytes().all(plain) {
        return Err(("content_id", "write it as the HTML has it behind cid:, without <>".into()));
    }
    let inline = Attachment::new_inline_with_name(id.clone(), file.filename.clone());
    Ok(inline.body(base64(&file.content), content_type))
}

/// A text, written as it is where that is short lines of ASCII, else in the shorter of the two encodings. Ours and not
/// lettre's, whose time grows with the square of the lines.
fn body_of(text: &str) -> Body {
    let lines = with_crlf(text.as_bytes());
    let plain = |b: &u8| matches!(b, b'\t' | b'\r' | b'\n' | b' '..=b'~');
    let odd = lines.len() - lines.iter().filter(|b| plain(b)).count();
    let short = BodyFacts::of(&lines).longest_line_octets <= ENCODED_LINE_OCTETS_MAX as u64;
    match odd {
        0 if short => Body::dangerous_pre_encoded(lines, ContentTransferEncoding::SevenBit),
        _ if odd <= lines.len() / 3 => {
            let mut encoded = Vec::with_capacity(lines.len() + lines.len() / 16 + 2 * odd);
            quoted_printable(&lines, &mut encoded);
            Body::dangerous_pre_encoded(encoded, ContentTransferEncoding::QuotedPrintable)
        }
        _ => base64(&lines),
    }
}

/// LF, CR and CRLF all end a line of a text.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let ends = text.iter().filter(|b| matches!(b, b'\r' | b'\n')).count();
    let (mut out, mut rest) = (Vec::with_capacity(text.len() + ends), text);
    while let Some(at) = memchr2(b'\r', b'\n', rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(b"\r\n");
        let octets = if rest[at..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[at + octets..];
    }
    out.extend_from_slice(rest);
    out
}

/// As base64, in lines.
fn base64(octets: &[u8]) -> Body {
    let mut encoded = String::with_capacity(octets.len() / 3 * 4 + octets.len() / 28 + 4);
    for (n, line) in octets.chunks(ENCODED_LINE_OCTETS_MAX / 4 * 3).enumerate() {
        encoded.push_str(if n == 0 { "" } else { "\r\n" });
        STANDARD.encode_string(line, &mut encoded);
    }
    Body::dangerous_pre_encoded(encoded.into_bytes(), ContentTransferEncoding::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders};

    fn letter() -> Letter {
        Letter {
            from: read_person("Shöp <shop@example.com>").unwrap(),
            to: vec![read_person("\"Doe, Jane\" <jane@example.org>").unwrap()],
            cc: vec![read_person("c@example.org").unwrap()],
            bcc: vec![read_person("hidden@example.net").unwrap(), read_person("JANE@example.org").unwrap()],
            reply_to: Some(read_person("help@example.com").unwrap()),
            subject: "Ordér 7".into(),
            text: Some("hello\n.\nwörld\n".into()),
            html: Some("<img src=cid:logo>".into()),
            headers: vec![("X-Order".into(), "sieben ✓".into())],
            files: vec![
                File {
                    filename: "räch.pdf".into(),
                    content_type: "application/pdf".into(),
                    content: vec![0, 13, 10, 255],
                    content_id: None,
                },
                File {
                    filename: "logo.png".into(),
                    content_type: "image/png".into(),
                    content: vec![1; 2000],
                    content_id: Some("logo".into()),
                },
            ],
        }
    }

    #[test]
    fn what_is_written_reads_back_and_bcc_is_in_none_of_it() {
        let letter = letter();
        let written = letter.write(Timestamp::from_millis(1_795_602_034_005)).unwrap();
        let text = String::from_utf8(written.clone()).unwrap();
        assert!(text.is_ascii() && !text.contains("hidden"), "{text}");
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "only CRLF ends a line");
        let read = MessageParser::default().parse(&written).unwrap();
        let from = read.from().and_then(|a| a.first()).unwrap();
        assert_eq!((from.name(), from.address()), (Some("Shöp"), Some("shop@example.com")));
        assert_eq!(read.to().and_then(|a| a.first()).and_then(|a| a.name()), Some("Doe, Jane"));
        assert_eq!(read.subject(), Some("Ordér 7"));
        assert!(text.contains("X-Order: sieben =?utf-8?b?4pyT?=\r\n"), "{text}");
        assert_eq!(read.body_text(0).unwrap().replace("\r\n", "\n").trim_end(), "hello\n.\nwörld");
        assert_eq!(read.body_html(0).unwrap().trim_end(), "<img src=cid:logo>");
        let files: Vec<_> = read.attachments().map(|a| (a.attachment_name(), a.contents().len())).collect();
        assert!(
            files.contains(&(Some("räch.pdf"), 4)) && files.contains(&(Some("logo.png"), 2000)),
            "{files:?}"
        );
        let keys: Vec<String> = letter.recipients().iter().map(Address::key).collect();
        assert_eq!(keys, ["jane@example.org", "c@example.org", "hidden@example.net"]);
    }

    #[test]
    fn nothing_becomes_a_header_of_its_own() {
        for bad in [
            "a@b.example\r\nBcc: x@y.example",
            "A\r\nBcc: x <a@b.example>",
            "a@b.example, c@d.example",
            "a b@c.example",
            "",
        ] {
            assert!(read_person(bad).is_err(), "{bad:?}");
        }
        let write = |change: &dyn Fn(&mut Letter)| {
            let mut letter = letter();
            change(&mut letter);
            let wrong = letter.write(Timestamp::from_millis(0)).unwrap_err();
            wrong.into_iter().map(|unfit| unfit.field).collect::<Vec<_>>()
        };
        assert_eq!(write(&|l| l.subject = "a\r\nBcc: x@y.example".into()), ["subject"]);
        for name in ["Bcc", "bcc", "From", "X Y", "X:Y", "X\r\nBcc", "", "X-Postroad-Esp", "Content-Type"] {
            assert_eq!(write(&|l| l.headers = vec![(name.into(), "1".into())]), [format!("headers.{name}")]);
        }
        assert_eq!(write(&|l| l.headers[0].1 = "1\nBcc: x@y.example".into()), ["headers.X-Order"]);
        assert_eq!(write(&|l| l.from.name = "a\rb".into()), ["from"]);
        assert_eq!(write(&|l| l.files[0].filename = "a\r\nX: y".into()), ["attachments[0].filename"]);
        assert_eq!(write(&|l| l.files[0].content_type = "pdf".into()), ["attachments[0].content_type"]);
        assert_eq!(
            write(&|l| l.files[1].content_id = Some("a>\r\nX: y".into())),
            ["attachments[1].content_id"]
        );
    }

    fn plain(text: &str) -> Letter {
        let to = vec![read_person("jane@example.org").unwrap()];
        let (cc, bcc, headers, files) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let from = read_person("shop@example.com").unwrap();
        let text = Some(text.to_owned());
        Letter { from, to, cc, bcc, reply_to: None, subject: "s".into(), text, html: None, headers, files }
    }

    #[test]
    fn a_text_reads_back_whatever_ends_its_lines_and_is_encoded_where_it_must_be() {
        for (text, encoding) in [
            ("a\nb\r\nc\rd\n\n.\n", "7bit"),
            (&*"x".repeat(1200), "quoted-printable"),
            ("w\u{f6}rld and so on\r\nblank \n", "quoted-printable"),
            ("nul\0 and more of it", "quoted-printable"),
            ("\u{4f60}\u{597d}\n\u{4f60}\u{597d}", "base64"),
        ] {
            let written = plain(text).write(Timestamp::from_millis(0)).unwrap();
            let shown = String::from_utf8(written.clone()).unwrap();
            assert!(shown.is_ascii() && !shown.replace("\r\n", "").contains(['\r', '\n']), "{shown}");
            assert!(
                shown.contains(&format!("Content-Transfer-Encoding: {encoding}\r\n")),
                "{text:?}: {shown}"
            );
            assert!(shown.lines().all(|line| line.len() <= 78), "{shown}");
            let read = MessageParser::default().parse(&written).unwrap();
            let wanted = text.replace("\r\n", "\n").replace('\r', "\n");
            let got = read.body_text(0).unwrap().replace("\r\n", "\n");
            assert_eq!(got.trim_end_matches('\n'), wanted.trim_end_matches('\n'));
        }
    }

    #[test]
    fn the_lines_of_a_file_are_its_own_and_end_none_of_the_message() {
        let mut letter = plain("see the file\n");
        let content = b"a\nb\r\n\rc\n".to_vec();
        letter.files = vec![File {
            filename: "a.txt".into(),
            content_type: "text/plain".into(),
            content: content.clone(),
            content_id: None,
        }];
        let written = letter.write(Timestamp::from_millis(0)).unwrap();
        let shown = String::from_utf8(written.clone()).unwrap();
        assert!(!shown.replace("\r\n", "").contains(['\r', '\n']), "{shown}");
        let read = MessageParser::default().parse(&written).unwrap();
        assert_eq!(read.attachment(0).unwrap().contents(), content);
    }

    /// Ten times the size takes about ten times as long, not a hundred times.
    fn grows_with_its_size(of: impl Fn(usize) -> Letter, octets: usize) {
        let spent = |octets| {
            let letter = of(octets);
            let tries = (0..3).map(|_| {
                let began = crate::clock::monotonic();
                letter.write(Timestamp::from_millis(0)).unwrap();
                began.elapsed()
            });
            tries.min().unwrap()
        };
        let (small, large) = (spent(octets), spent(10 * octets));
        assert!(large < small * 40, "{small:?}, and for ten times as much {large:?}");
    }

    #[test]
    fn a_thousand_recipients_are_folded_into_short_lines() {
        let people = |n| read_person(&format!("Nämé \"q\" {n} <a{n}@example.org>")).unwrap();
        let bare = |n| read_person(&format!("a{n}@example.org")).unwrap();
        let to: Vec<_> = (0..300).map(people).chain((300..1000).map(bare)).collect();
        let written = Letter { to: to.clone(), ..letter() }.write(Timestamp::from_millis(0)).unwrap();
        let longest = written.split(|b| *b == b'\n').map(<[u8]>::len).max().unwrap();
        assert!(longest <= ENCODED_LINE_OCTETS_MAX + 2, "{longest}");
        let read = MessageParser::default().parse(&written).unwrap();
        let read = read.to().unwrap().iter().map(|a| (a.name().unwrap_or_default(), a.address().unwrap()));
        assert!(read.eq(to.iter().map(|p| (p.name.as_str(), p.address.wire()))));
    }

    #[test]
    fn a_field_that_no_next_hop_takes_is_named() {
        let with = |value: String| Letter { headers: vec![("X-Order".into(), value)], ..letter() };
        let told = |letter: Letter| letter.write(Timestamp::from_millis(0)).unwrap_err();
        assert!(letter().write(Timestamp::from_millis(0)).is_ok());
        let long = told(with("x".repeat(1200)));
        assert!(
            long[0].field == "headers.X-Order" && long[0].message.contains("998 are allowed"),
            "{long:?}"
        );
        let large = told(with("words and ".repeat(30_000)));
        assert!(large[0].field == "headers.X-Order" && large[0].message.contains("256 KiB"), "{large:?}");
        assert_eq!(told(Letter { subject: "x".repeat(1200), ..letter() })[0].field, "subject");
    }

    #[test]
    fn the_time_to_write_a_letter_grows_with_its_size_and_not_with_its_square() {
        grows_with_its_size(|octets| plain(&"\n".repeat(octets)), 40_000);
        grows_with_its_size(|octets| plain(&"seventy\n".repeat(octets / 8)), 80_000);
        let many = |count| {
            let to = (0..count).map(|n| read_person(&format!("a{n}@example.org")).unwrap()).collect();
            Letter { to, ..plain("t") }
        };
        grows_with_its_size(many, 60);
    }
}
