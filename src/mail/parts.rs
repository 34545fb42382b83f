//! A message taken apart for an API that wants fields instead of MIME: made only where nothing is lost.
//!
//! The API builds a message of its own from what is handed to it. So everything that people and their programs see has
//! to have a place in [`Parts`]; what has none is told by [`Lossy`], and then another way carries the message: SMTP, or
//! an ESP that takes it whole. All is read strictly, by readers of our own: where readers of mail would differ, the
//! message goes as it is, and each may go on reading it in its own way. `mail-parser` guesses, which serves who reads; a
//! guess here would be sent.

mod decode;
mod people;
mod recipients;
mod shown;
mod tree;
mod typed;
mod words;

use std::borrow::Cow;

use super::headers::{Field, OURS, Separator, fields};
use crate::address::{Address, Grammar};
use people::Bad;
pub use recipients::Addressed;

/// A message as the fields of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The one that From names.
    pub from: Mailbox,
    /// All that To names, in order.
    pub to: Vec<Mailbox>,
    /// All that Cc names, in order.
    pub cc: Vec<Mailbox>,
    /// All that Reply-To names, in order.
    pub reply_to: Vec<Mailbox>,
    /// Decoded; `None`: absent or blank.
    pub subject: Option<Cow<'a, str>>,
    /// Date, as it was written.
    pub date: Option<Cow<'a, str>>,
    /// Message-ID, as it was written: with its angle brackets.
    pub message_id: Option<Cow<'a, str>>,
    /// The plain text; `None`: absent or blank.
    pub text: Option<Cow<'a, str>>,
    /// The HTML; `None`: absent or blank.
    pub html: Option<Cow<'a, str>>,
    /// Further forms of the body, in order; an API that has no place for them loses something.
    pub alternatives: Vec<Alternative<'a>>,
    /// Attachments and what the HTML shows, in order.
    pub files: Vec<File<'a>>,
    /// Every other field, in order; duplicates are kept. Not those that any sender makes anew (MIME-Version, Content-*),
    /// nor those that tell of the way here (Received, Return-Path), nor Bcc.
    pub headers: Vec<Header<'a>>,
    /// What has no place here and few would miss: the language of a part. A way that loses nothing is to be preferred.
    pub small_loss: Option<Lossy>,
}

/// An address and the name it goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Decoded, without its quotes.
    pub name: Option<String>,
    /// In ASCII: its domain as A-labels.
    pub address: Address,
}

/// A form of the body that is neither plain text nor HTML, such as an invitation (`text/calendar`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative<'a> {
    /// Its type with all parameters (`method=REQUEST`); its charset is utf-8, as `content` is.
    pub content_type: String,
    /// Decoded.
    pub content: Cow<'a, str>,
    /// It stood before the HTML: readers that take the last form they know prefer the HTML.
    pub before_html: bool,
}

/// An attachment, or what the HTML shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File<'a> {
    /// Decoded; made up by its type where it has none.
    pub name: String,
    /// Its type with all parameters but the name.
    pub content_type: String,
    /// Without their transfer encoding.
    pub octets: Cow<'a, [u8]>,
    /// Meant to be shown with the body, or named by the HTML.
    pub inline: bool,
    /// Without angle brackets; `cid:` in the HTML refers to it.
    pub content_id: Option<String>,
}

/// A header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// As it was spelled.
    pub name: &'a str,
    /// Unfolded, encoded words decoded.
    pub value: Cow<'a, str>,
    /// Unfolded only.
    pub written: Cow<'a, str>,
}

impl Header<'_> {
    /// Whether it has that name; case does not matter.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// What would be lost, in words for people: `its signature: it is multipart/signed`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lossy(pub String);

impl Lossy {
    fn new(text: &str) -> Lossy {
        Lossy(text.to_owned())
    }
}

/// Takes `content`, a whole message with CRLF line ends, apart.
pub fn take_apart(content: &[u8]) -> Result<Parts<'_>, Lossy> {
    let head = Head::read(content)?;
    let body = tree::content(content, fields(content))?;
    head.with(body)
}

/// All that the value of an address field names; `None`: it has anything else in it, a group for one.
pub fn people_in(value: &[u8]) -> Option<Vec<Mailbox>> {
    let text = words::unfolded(value)?;
    people::mailboxes(&text).ok().filter(|people| !people.is_empty() && !text.contains(';'))
}

/// Takes the header block apart, of a message whose end is not there: as if it had neither text nor files.
pub fn take_head_apart(beginning: &[u8]) -> Result<Parts<'_>, Lossy> {
    Head::read(beginning)?.with(tree::Content::default())
}

/// The header block, as far as it was read.
#[derive(Default)]
struct Head<'a> {
    from: Option<Vec<Mailbox>>,
    sender: Option<Vec<Mailbox>>,
    to: Vec<Mailbox>,
    cc: Vec<Mailbox>,
    reply_to: Vec<Mailbox>,
    subject: Option<Cow<'a, str>>,
    date: Option<Cow<'a, str>>,
    message_id: Option<Cow<'a, str>>,
    headers: Vec<Header<'a>>,
}

impl<'a> Head<'a> {
    fn read(content: &'a [u8]) -> Result<Head<'a>, Lossy> {
        let mut head = Head::default();
        let mut all = fields(content);
        for field in all.by_ref() {
            head.take(&field)?;
        }
        match all.end().separator {
            Separator::Missing => {
                Err(Lossy::new("its structure: the header ends at a line that is no field"))
            }
            _ => Ok(head),
        }
    }

    fn with(mut self, body: tree::Content<'a>) -> Result<Parts<'a>, Lossy> {
        Ok(Parts {
            from: self.sender()?,
            to: self.to,
            cc: self.cc,
            reply_to: self.reply_to,
            subject: self.subject.filter(|subject| !subject.trim().is_empty()),
            date: self.date,
            message_id: self.message_id,
            text: body.text,
            html: body.html,
            alternatives: body.alternatives,
            files: body.files,
            headers: self.headers,
            small_loss: body.small_loss,
        })
    }

    fn take(&mut self, field: &Field<'a>) -> Result<(), Lossy> {
        match Meaning::of(field) {
            Meaning::MadeAnew => return Ok(()),
            Meaning::Signature => {
                return Err(Lossy(format!("its {}: a message that is built anew breaks it", spelled(field))));
            }
            Meaning::Resent => {
                return Err(Lossy(format!("its {}: it was sent on by somebody else", spelled(field))));
            }
            Meaning::Location => {
                return Err(Lossy(format!("its {}: links in it begin from there", spelled(field))));
            }
            Meaning::Content => {}
        }
        let written = words::unfolded(field.value()).ok_or_else(|| {
            Lossy(format!("the field {}: it is not UTF-8, or has control characters", spelled(field)))
        })?;
        let people = || people::mailboxes(&written).map_err(|bad| unread(field, bad));
        match Place::of(field) {
            Place::From => once(field, &mut self.from, people()?),
            Place::Sender if written.is_empty() => Ok(()),
            Place::Sender => once(field, &mut self.sender, people()?),
            Place::To => extend(&mut self.to, people()?),
            Place::Cc => extend(&mut self.cc, people()?),
            Place::ReplyTo => extend(&mut self.reply_to, people()?),
            Place::Subject => {
                let subject = words::decoded(written).ok_or_else(|| unread(field, Bad::Word))?;
                once(field, &mut self.subject, subject)
            }
            Place::Date => once(field, &mut self.date, written),
            Place::MessageId => once(field, &mut self.message_id, written),
            Place::Other => {
                self.headers.push(other(field, written)?);
                Ok(())
            }
        }
    }

    /// The one mailbox that From names, where Sender names no other.
    fn sender(&mut self) -> Result<Mailbox, Lossy> {
        let mut from = self.from.take().unwrap_or_default();
        let (Some(only), true) = (from.pop(), from.is_empty()) else {
            return Err(Lossy::new("its senders: From must name exactly one"));
        };
        match self.sender.as_deref() {
            None => Ok(only),
            Some([sender]) if sender.address.mailbox() == only.address.mailbox() => Ok(only),
            Some(_) => Err(Lossy::new("its Sender: it names another than From")),
        }
    }
}

fn other<'a>(field: &Field<'a>, written: Cow<'a, str>) -> Result<Header<'a>, Lossy> {
    let name = std::str::from_utf8(field.name).ok().filter(|name| name.is_ascii());
    let name = name.ok_or_else(|| Lossy(format!("the field {}: its name is not ASCII", spelled(field))))?;
    // What cannot be decoded arrives as it was written.
    let value = words::decoded(written.clone()).unwrap_or_else(|| written.clone());
    Ok(Header { name, value, written })
}

/// What becomes of a field that is no content of the API's.
enum Meaning {
    Content,
    MadeAnew,
    Signature,
    Resent,
    Location,
}

impl Meaning {
    fn of(field: &Field<'_>) -> Meaning {
        const MADE_ANEW: [&str; 6] =
            ["Received", "Return-Path", "Received-SPF", "Authentication-Results", "MIME-Version", "Bcc"];
        const SIGNATURES: [&str; 2] = ["DKIM-Signature", "DomainKey-Signature"];
        const LOCATIONS: [&str; 2] = ["Content-Location", "Content-Base"];
        let begins =
            |with: &[u8]| field.name.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
        let is = |names: &[&str]| names.iter().any(|name| field.is(name));
        if is(&LOCATIONS) {
            Meaning::Location
        } else if field.is("Content-Language") {
            // Of the whole message, whatever that is made of.
            Meaning::Content
        } else if is(&MADE_ANEW) || begins(b"Content-") || begins(OURS) {
            Meaning::MadeAnew
        } else if is(&SIGNATURES) || begins(b"ARC-") {
            Meaning::Signature
        } else if begins(b"Resent-") {
            Meaning::Resent
        } else {
            Meaning::Content
        }
    }
}

/// Which field of the API a field is.
enum Place {
    From,
    Sender,
    To,
    Cc,
    ReplyTo,
    Subject,
    Date,
    MessageId,
    Other,
}

impl Place {
    fn of(field: &Field<'_>) -> Place {
        match field.name.to_ascii_lowercase().as_slice() {
            b"from" => Place::From,
            b"sender" => Place::Sender,
            b"to" => Place::To,
            b"cc" => Place::Cc,
            b"reply-to" => Place::ReplyTo,
            b"subject" => Place::Subject,
            b"date" => Place::Date,
            b"message-id" => Place::MessageId,
            _ => Place::Other,
        }
    }
}

fn extend(known: &mut Vec<Mailbox>, more: Vec<Mailbox>) -> Result<(), Lossy> {
    known.extend(more);
    Ok(())
}

fn once<T>(field: &Field<'_>, place: &mut Option<T>, value: T) -> Result<(), Lossy> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Lossy(format!("one of its fields {}: there are two", spelled(field)))),
    }
}

fn unread(field: &Field<'_>, bad: Bad) -> Lossy {
    let name = spelled(field);
    Lossy(match bad {
        Bad::Grammar => format!("an address in {name}: the field cannot be read without guessing"),
        Bad::Group => format!("the name of a group in {name}"),
        Bad::Utf8 => format!("an address in {name}: it has letters beyond ASCII before the @"),
        Bad::Word => format!("the text of {name}: it has an encoded word that cannot be decoded"),
    })
}

/// A field's name, fit for a log line.
fn spelled(field: &Field<'_>) -> String {
    String::from_utf8_lossy(field.name).chars().filter(|c| !c.is_control()).take(60).collect()
}

/// An address without letters beyond ASCII; `None`: there is no such form.
fn ascii(address: &Address) -> Option<Address> {
    Address::parse(&address.ascii_wire()?, Grammar::Lenient).ok()
}

#[cfg(test)]
#[path = "parts/tests.rs"]
mod tests;
