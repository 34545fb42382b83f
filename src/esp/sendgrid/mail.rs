//! A message as the JSON of `POST /v3/mail/send`: one personalization, for exactly the recipients of one call.
//!
//! What the API would refuse, lose or show to others does not fit, and is told with its name.

use std::collections::HashSet;

use super::labels::{Control, FIELD, Labels};
use super::{Content, Losses, Parcel, REQUEST_OCTETS_MAX, Unfit};
use crate::esp::in_one_call;
use crate::esp::json::Json;
use crate::mail::parts::{
    Addressed, Alternative, File, Header, Lossy, Mailbox, Parts, take_apart, take_head_apart,
};
use crate::mail::{AttemptId, HttpRequest, Message};

/// "The total number of recipients must be no more than 1000."
pub(super) const RECIPIENTS_MAX: u32 = 1000;
/// Nothing tells that longer values are folded, and a line has 998 octets at most.
const HEADER_VALUE_OCTETS_MAX: usize = 900;
/// Of the JSON beside texts, files and recipients.
const FRAME_OCTETS: usize = 2048;
/// Of one recipient beside its name and address.
const RECIPIENT_OCTETS: usize = 32;

/// The request for a parcel whose content is `whole`.
pub(super) fn compose(
    parcel: Parcel<'_>,
    whole: &[u8],
    control: Option<&Control>,
    losses: Losses,
) -> Result<HttpRequest, Unfit> {
    let parts = take_apart(whole).map_err(lost)?;
    if losses == Losses::None {
        small_loss(&parts).map_or(Ok(()), |small| Err(lost(small)))?;
    }
    let addressed = addressed(&parts, parcel)?;
    head_fits(&parts)?;
    body_fits(&parts)?;
    let labels = Labels::of(parcel, control)?;
    let sheet = Sheet {
        custom_args: custom_args(&labels, control)?,
        contents: contents(&parts)?,
        headers: headers(&parts)?,
        parts: &parts,
        addressed: &addressed,
        labels: &labels,
    };
    let body = sheet.written();
    if body.len() > REQUEST_OCTETS_MAX {
        return Err(unfit(format_args!("the request has {} octets of {REQUEST_OCTETS_MAX}", body.len())));
    }
    // "202 Accepted", with an empty body: its id is in a field.
    Ok(HttpRequest { path: "/v3/mail/send", headers: Vec::new(), body, told_by_head: Some(202) })
}

/// Whether a request could say such a message at all, whichever of its recipients it is for.
pub(super) fn could_be_said(
    message: &Message,
    content: Content<'_>,
    control: Option<&Control>,
) -> Result<(), Unfit> {
    let parts = match content {
        Content::Whole(whole) => take_apart(whole),
        Content::Beginning | Content::TooLarge => take_head_apart(&message.body.head),
    };
    let parts = parts.map_err(lost)?;
    parts.names_others_than(&message.envelope.recipients).map_err(lost)?;
    in_one_call(message, RECIPIENTS_MAX).map_err(unfit)?;
    parts.to.iter().chain(&parts.cc).try_for_each(person_fits)?;
    head_fits(&parts)?;
    headers(&parts)?;
    let of_none = Parcel { message, whole: None, recipients: &[], attempt: AttemptId::from_number(0) };
    custom_args(&Labels::of(of_none, control)?, control)?;
    match content {
        Content::Whole(_) => body_fits(&parts).and_then(|()| contents(&parts).map(drop)),
        Content::Beginning | Content::TooLarge => Ok(()),
    }
}

/// Whom the request for a parcel names, for answers that speak of places in it; `None`: it cannot be told any more.
pub(super) fn named(parcel: Parcel<'_>) -> Option<Named> {
    let whole = parcel.whole.or(parcel.message.body.rest.is_none().then_some(&parcel.message.body.head))?;
    let parts = take_apart(whole).ok()?;
    addressed(&parts, parcel).ok().map(Named)
}

/// See [`named`].
pub(super) struct Named(Addressed);

impl Named {
    /// The key of the address at that place of `to`, `cc` or `bcc`.
    pub fn key(&self, list: &str, place: usize) -> Option<String> {
        let list = match list {
            "to" => &self.0.to,
            "cc" => &self.0.cc,
            "bcc" => &self.0.bcc,
            _ => return None,
        };
        list.get(place).map(|mailbox| mailbox.address.key())
    }
}

fn unfit(why: impl std::fmt::Display) -> Unfit {
    Unfit(format!("SendGrid's API: {why}"))
}

/// What few would miss: also the charset of a file that is no text, which its program mostly finds out by itself.
fn small_loss(parts: &Parts<'_>) -> Option<Lossy> {
    let of_file = |file: &File<'_>| {
        let (kind, parameters) = typed(&file.content_type);
        let (_, charset) = parameters.iter().find(|(name, _)| *name == "charset")?;
        let is_told = kind.starts_with("text/") || (file.octets.is_ascii() && is_like_ascii(charset));
        (!is_told).then(|| Lossy(format!("charset={charset} of the type of the file {:?}", file.name)))
    };
    parts.small_loss.clone().or_else(|| parts.files.iter().find_map(of_file))
}

fn lost(lossy: Lossy) -> Unfit {
    unfit(format_args!("it would lose {lossy}"))
}

/// The recipients by the field that names them.
fn addressed(parts: &Parts<'_>, parcel: Parcel<'_>) -> Result<Addressed, Unfit> {
    if parcel.recipients.len() > RECIPIENTS_MAX as usize {
        return Err(unfit(format_args!(
            "{} recipients; a call takes {RECIPIENTS_MAX}",
            parcel.recipients.len()
        )));
    }
    let mut addressed = parts.addressed(parcel.recipients).map_err(lost)?;
    // It insists on a To. One alone who is named nowhere is shown his own address and nobody else's.
    if addressed.to.is_empty() && addressed.cc.is_empty() && addressed.bcc.len() == 1 {
        std::mem::swap(&mut addressed.to, &mut addressed.bcc);
    }
    if addressed.to.is_empty() {
        return Err(unfit("To names nobody, and it insists on one who is shown there"));
    }
    addressed.iter().try_for_each(person_fits)?;
    Ok(addressed)
}

/// A recipient, as the header shows him.
fn person_fits(mailbox: &Mailbox) -> Result<(), Unfit> {
    plain(mailbox)?;
    match mailbox.name.as_deref().filter(|name| name.contains([';', ','])) {
        Some(name) => Err(unfit(format_args!("the name {name:?} has a semicolon or a comma"))),
        None => Ok(()),
    }
}

/// An address that needs no quotes and has a domain by name.
fn plain(mailbox: &Mailbox) -> Result<(), Unfit> {
    match mailbox.address.wire().contains(['"', '[']) {
        true => Err(unfit(format_args!("the address {} is of a form that it refuses", mailbox.address))),
        false => Ok(()),
    }
}

/// What holds for the header whoever gets it.
fn head_fits(parts: &Parts<'_>) -> Result<(), Unfit> {
    plain(&parts.from)?;
    parts.reply_to.iter().try_for_each(plain)?;
    // "The from field cannot hold Unicode."
    if parts.from.name.as_deref().is_some_and(|name| !name.is_ascii()) {
        return Err(unfit("the name in From has letters beyond ASCII"));
    }
    match parts.subject {
        None => Err(unfit("it insists on a Subject")),
        Some(_) => Ok(()),
    }
}

/// And for what stands below it.
fn body_fits(parts: &Parts<'_>) -> Result<(), Unfit> {
    if parts.text.is_none() && parts.html.is_none() {
        return Err(unfit("it insists on a text or HTML that is not empty"));
    }
    parts.files.iter().try_for_each(file_fits)
}

fn file_fits(file: &File<'_>) -> Result<(), Unfit> {
    let bad = |why: &str| Err(unfit(format_args!("the file {:?} {why}", file.name)));
    if file.octets.is_empty() {
        return bad("is empty");
    }
    // It garbles other letters, and refuses these.
    if !file.name.is_ascii() || file.name.contains([';', ',']) {
        return bad("has a name with letters beyond ASCII, a semicolon or a comma");
    }
    if file.content_id.as_deref().is_some_and(|id| id.contains([';', ',', '\\'])) {
        return bad("has a Content-ID with a semicolon, a comma or a backslash");
    }
    let (kind, parameters) = typed(&file.content_type);
    let is_text = kind.starts_with("text/");
    if is_text && !file.octets.is_ascii() {
        return bad("is a text with letters beyond ASCII, and its charset would get lost");
    }
    // "The type cannot contain ';'": what says nothing about the octets may go.
    let means = |(name, value): &(&str, &str)| match *name {
        "charset" => is_text && !is_like_ascii(value),
        name => !name.starts_with("x-"),
    };
    match parameters.iter().find(|parameter| means(parameter)) {
        Some((name, value)) => bad(&format!("would lose {name}={value} of its type")),
        None => Ok(()),
    }
}

/// Charsets, by how they begin, in which ASCII octets are ASCII.
const ASCII_ALIKE: [&str; 5] = ["us-ascii", "ascii", "utf-8", "iso-8859-", "windows-125"];

fn is_like_ascii(charset: &str) -> bool {
    let begins =
        |start: &str| charset.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    ASCII_ALIKE.into_iter().any(begins)
}

/// A type and its parameters, as [`Parts`] writes them.
fn typed(written: &str) -> (&str, Vec<(&str, &str)>) {
    let (mut pieces, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in written.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => {
                pieces.push(&written[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    pieces.push(&written[from..]);
    let parameters = pieces[1..].iter().filter_map(|piece| piece.split_once('='));
    let parameters = parameters.map(|(name, value)| (name.trim(), value.trim_matches('"'))).collect();
    (pieces[0].trim(), parameters)
}

/// Type and value of each form of the body: "text/plain must be first, followed by text/html, followed by any other".
fn contents<'a>(parts: &'a Parts<'_>) -> Result<Vec<(String, &'a str)>, Unfit> {
    let mut all = Vec::new();
    for (kind, value) in [("text/plain", &parts.text), ("text/html", &parts.html)] {
        all.extend(value.as_deref().map(|value| (kind.to_owned(), value)));
    }
    for form in &parts.alternatives {
        all.push((form_type(form)?, &*form.content));
    }
    Ok(all)
}

/// Charset and encoding are its own to write. Every other parameter it refuses, and it says something: without its
/// `method` an invitation is shown as a file.
fn form_type(form: &Alternative<'_>) -> Result<String, Unfit> {
    let (kind, mut parameters) = typed(&form.content_type);
    let bad = |why: &str| Err(unfit(format_args!("the form {kind} of the body {why}")));
    if form.before_html {
        return bad("stands before the HTML, and would stand behind it");
    }
    if form.content.trim().is_empty() {
        return bad("is empty");
    }
    parameters.retain(|(name, _)| *name != "charset");
    match parameters.as_slice() {
        [] => Ok(kind.to_owned()),
        [(name, value), ..] => bad(&format!("would lose {name}={value} of its type")),
    }
}

/// Names and values of the fields that pass: it takes each name once, and values in ASCII.
fn headers<'a>(parts: &'a Parts<'_>) -> Result<Vec<(&'a str, &'a str)>, Unfit> {
    // They come from a mail that it has carried before, and it writes its own.
    const ITS_OWN: [&str; 2] = ["X-SG-ID", "X-SG-EID"];
    let own = [("Message-ID", &parts.message_id), ("Date", &parts.date)];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let passes = |header: &&Header<'_>| !header.is(FIELD) && !ITS_OWN.iter().any(|name| header.is(name));
    let others = parts.headers.iter().filter(passes).map(|header| (header.name, &*header.written));
    let (mut all, mut names) = (Vec::with_capacity(parts.headers.len() + 2), HashSet::new());
    for (name, value) in own.chain(others) {
        if !names.insert(name.to_ascii_lowercase()) {
            return Err(unfit(format_args!("the field {name} stands there more than once")));
        }
        if !value.is_ascii() || value.len() > HEADER_VALUE_OCTETS_MAX {
            return Err(unfit(format_args!(
                "the field {name} has letters beyond ASCII, or is too long for a line"
            )));
        }
        all.push((name, value));
    }
    Ok(all)
}

/// Those of the app's own `X-SMTPAPI` before the relay's. What else it asks for is for the SMTP endpoint.
fn custom_args<'a>(
    labels: &'a Labels<'_>,
    control: Option<&'a Control>,
) -> Result<Vec<(&'a str, &'a str)>, Unfit> {
    if let Some(key) =
        control.and_then(|c| c.said.keys().find(|key| !matches!(key.as_str(), "unique_args" | "category")))
    {
        return Err(unfit(format_args!("{key} in the app's {FIELD} is for the SMTP endpoint")));
    }
    let mut all = Vec::new();
    for (name, value) in control.into_iter().flat_map(Control::arguments) {
        let Some(value) = value.as_str() else {
            return Err(unfit(format_args!("{name} in the app's {FIELD} is no text")));
        };
        if labels.arguments.iter().all(|(ours, _)| ours != name) {
            all.push((name.as_str(), value));
        }
    }
    all.extend(labels.arguments.iter().map(|(name, value)| (&**name, &**value)));
    Ok(all)
}

/// All that is written.
struct Sheet<'a> {
    parts: &'a Parts<'a>,
    addressed: &'a Addressed,
    labels: &'a Labels<'a>,
    custom_args: Vec<(&'a str, &'a str)>,
    contents: Vec<(String, &'a str)>,
    headers: Vec<(&'a str, &'a str)>,
}

impl Sheet<'_> {
    fn written(&self) -> bytes::Bytes {
        let mut json = Json::with_capacity(self.octets());
        json.object(|j| {
            j.key("personalizations").array(|j| j.object(|j| self.personalization(j)));
            j.key("from");
            person(j, &self.parts.from);
            match self.parts.reply_to.as_slice() {
                [] => {}
                [one] => {
                    j.key("reply_to");
                    person(j, one);
                }
                many => people(j, "reply_to_list", many),
            }
            j.key("subject").text(self.parts.subject.as_deref().unwrap_or_default());
            j.key("content")
                .array(|j| self.contents.iter().for_each(|(kind, value)| content(j, kind, value)));
            if !self.parts.files.is_empty() {
                j.key("attachments").array(|j| self.parts.files.iter().for_each(|file| attachment(j, file)));
            }
            if !self.headers.is_empty() {
                j.key("headers").object(|j| members(j, &self.headers));
            }
            if !self.labels.categories.is_empty() {
                j.key("categories").array(|j| self.labels.categories.iter().for_each(|name| j.text(name)));
            }
        });
        json.finish()
    }

    /// About how many octets it takes: escapes are few.
    fn octets(&self) -> usize {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| a.len() + b.len() + 8).sum::<usize>();
        let texts: usize = self.contents.iter().map(|(_, value)| value.len() + value.len() / 12).sum();
        let files: usize = self.parts.files.iter().map(|file| file.octets.len().div_ceil(3) * 4 + 256).sum();
        let named =
            |m: &Mailbox| m.address.wire().len() + m.name.as_deref().map_or(0, str::len) + RECIPIENT_OCTETS;
        let people: usize = self.addressed.iter().chain(&self.parts.reply_to).map(named).sum();
        FRAME_OCTETS + texts + files + people + pairs(&self.headers) + pairs(&self.custom_args)
    }

    fn personalization(&self, j: &mut Json) {
        let Addressed { to, cc, bcc } = self.addressed;
        for (key, list) in [("to", to), ("cc", cc), ("bcc", bcc)] {
            people(j, key, list);
        }
        j.key("custom_args").object(|j| members(j, &self.custom_args));
    }
}

fn people(j: &mut Json, key: &str, list: &[Mailbox]) {
    if !list.is_empty() {
        j.key(key).array(|j| list.iter().for_each(|mailbox| person(j, mailbox)));
    }
}

fn person(j: &mut Json, mailbox: &Mailbox) {
    j.object(|j| {
        j.key("email").text(mailbox.address.wire());
        if let Some(name) = mailbox.name.as_deref().filter(|name| !name.is_empty()) {
            j.key("name").text(name);
        }
    });
}

fn content(j: &mut Json, kind: &str, value: &str) {
    j.object(|j| {
        j.key("type").text(kind);
        j.key("value").text(value);
    });
}

fn attachment(j: &mut Json, file: &File<'_>) {
    j.object(|j| {
        j.key("content").base64(&file.octets);
        j.key("filename").text(&file.name);
        j.key("type").text(typed(&file.content_type).0);
        j.key("disposition").text(if file.inline { "inline" } else { "attachment" });
        if let Some(id) = &file.content_id {
            j.key("content_id").text(id);
        }
    });
}

fn members(j: &mut Json, pairs: &[(&str, &str)]) {
    for (name, value) in pairs {
        j.key(name).text(value);
    }
}
