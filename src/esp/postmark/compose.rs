//! What Postmark is given: the JSON of `POST /email`, and the fields that its SMTP endpoint reads and takes away.

use std::fmt::Write as _;

use bytes::Bytes;

use super::super::json::Json;
use super::super::{Content, Losses, Parcel, Unfit, in_one_call};
use super::RECIPIENTS_MAX;
use crate::address::Address;
use crate::mail::Message;
use crate::mail::nested::file_named;
use crate::mail::parts::{Addressed, File, Lossy, Mailbox, Parts, take_apart, take_head_apart};

/// The name of the attempt's id in the metadata.
pub(super) const ATTEMPT: &str = "postroad-attempt";
/// All of a message's tags, where it has several: Postmark takes one.
const TAGS: &str = "postroad-tags";
const TAGS_PARTED_BY: &str = ", ";
/// `TextBody` and `HtmlBody`, each.
const BODY_OCTETS_MAX: usize = 5 * 1024 * 1024;
/// Pairs of metadata, characters of a key and of a value (UNVERIFIED: from Postmark's support pages).
const PAIRS_MAX: usize = 10;
const KEY_CHARS_MAX: usize = 20;
const VALUE_CHARS_MAX: usize = 80;
/// Names of files that it answers 411 for, and that its SMTP endpoint sends no further.
const FORBIDDEN_FILES: [&str; 32] = [
    "vbs", "exe", "bin", "bat", "chm", "com", "cpl", "crt", "hlp", "hta", "inf", "ins", "isp", "jse", "lnk",
    "mdb", "pcd", "pif", "reg", "scr", "sct", "shs", "vbe", "vba", "wsf", "wsh", "wsl", "msc", "msi", "msp",
    "mst", "cmd",
];
/// What is about JSON around its strings.
const FRAME_OCTETS: usize = 1_024;

/// Whether it takes such an address at all (its support article 1180).
pub(super) fn takes(address: &Address) -> bool {
    let Some(ascii) = address.ascii_wire() else { return false };
    let Some((local, domain)) = ascii.rsplit_once('@') else { return false };
    let in_local = |b: u8| b.is_ascii_alphanumeric() || b".!#$%&'`*+-/=^_{}|~".contains(&b);
    let in_domain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    local.bytes().all(in_local) && domain.bytes().all(in_domain)
}

/// The JSON of `POST /email`.
pub(super) fn email(parcel: Parcel<'_>, whole: &Bytes, stream: &str, losses: Losses) -> Result<Bytes, Unfit> {
    let metadata = metadata(parcel)?;
    let mut parts = take_apart(whole).map_err(lost)?;
    if let (Losses::None, Some(small)) = (losses, parts.small_loss.take()) {
        return Err(lost(small));
    }
    let addressed = parts.addressed(parcel.recipients).map_err(lost)?;
    // Its description has no required field, its documents show To in every example: not relied on.
    if addressed.to.is_empty() {
        return Err(nobody_in_to());
    }
    head_fits(&parts).and_then(|()| body_fits(&parts)).map_err(Unfit)?;
    let sheet = Sheet { parts: &parts, addressed: &addressed, tag: tag(parcel.message), metadata, stream };
    Ok(sheet.written(whole.len()))
}

/// Whether it could say such a message at all, whichever of its recipients it is for.
pub(super) fn could_be_said(message: &Message, content: Content<'_>) -> Result<(), Unfit> {
    let parts = match content {
        Content::Whole(whole) => take_apart(whole),
        Content::Beginning | Content::TooLarge => take_head_apart(&message.body.head),
    };
    let parts = parts.map_err(lost)?;
    parts.names_others_than(&message.envelope.recipients).map_err(lost)?;
    if parts.to.is_empty() {
        return Err(nobody_in_to());
    }
    in_one_call(message, RECIPIENTS_MAX).map_err(|why| Unfit(format!("its API: {why}")))?;
    head_fits(&parts).map_err(Unfit)?;
    match content {
        Content::Whole(_) => body_fits(&parts).map_err(Unfit),
        Content::Beginning | Content::TooLarge => Ok(()),
    }
}

fn lost(Lossy(what): Lossy) -> Unfit {
    Unfit(format!("its API would lose {what}"))
}

fn nobody_in_to() -> Unfit {
    Unfit("its API wants an address in To".into())
}

fn head_fits(parts: &Parts<'_>) -> Result<(), String> {
    if let Some(control) = parts.headers.iter().find(|h| starts_with(h.name, "x-pm-")) {
        return Err(format!("its {} is for Postmark's SMTP endpoint", control.name));
    }
    for mailbox in std::iter::once(&parts.from).chain(&parts.reply_to) {
        if !takes(&mailbox.address) {
            return Err(format!("Postmark does not take such an address as {}", mailbox.address));
        }
    }
    Ok(())
}

fn body_fits(parts: &Parts<'_>) -> Result<(), String> {
    if parts.text.is_none() && parts.html.is_none() {
        return Err("its API wants a text or HTML body that is not empty".into());
    }
    let too_long = |body: &Option<_>| {
        body.as_ref().is_some_and(|body: &std::borrow::Cow<str>| body.len() > BODY_OCTETS_MAX)
    };
    if too_long(&parts.text) || too_long(&parts.html) {
        return Err(format!("its API takes bodies of {BODY_OCTETS_MAX} octets each"));
    }
    if let Some(other) = parts.alternatives.first() {
        return Err(format!("its API has no place for a body of type {}", other.content_type));
    }
    // Its Content would be the empty string, and no page says that this is one.
    if let Some(file) = parts.files.iter().find(|file| file.octets.is_empty()) {
        return Err(format!("its API takes the content of a file, and {:?} is empty", file.name));
    }
    match parts.files.iter().find(|file| is_forbidden(&file.name)) {
        Some(file) => Err(refused_file(&file.name)),
        None => Ok(()),
    }
}

/// Its SMTP endpoint takes the parts of a message for the same attachments, and would refuse them after it took the message.
/// `content`: all of it, or as much of its beginning as is there.
pub(super) fn files_fit(content: &[u8]) -> Result<(), Unfit> {
    file_named(content, is_forbidden).map_or(Ok(()), |name| Err(Unfit(refused_file(&name))))
}

fn refused_file(name: &str) -> String {
    format!("Postmark refuses attachments such as {name:?}")
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn is_forbidden(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, end)| FORBIDDEN_FILES.iter().any(|bad| bad.eq_ignore_ascii_case(end)))
}

/// All that one request says.
struct Sheet<'a> {
    parts: &'a Parts<'a>,
    addressed: &'a Addressed,
    tag: Option<&'a str>,
    metadata: Vec<(&'a str, String)>,
    stream: &'a str,
}

impl Sheet<'_> {
    fn written(&self, octets: usize) -> Bytes {
        let Sheet { parts, addressed, tag, metadata, stream } = self;
        let mut json = Json::with_capacity(octets + octets / 2 + FRAME_OCTETS);
        json.object(|j| {
            j.key("From").text(&people(std::slice::from_ref(&parts.from)));
            for (name, list) in [("To", &addressed.to), ("Cc", &addressed.cc), ("Bcc", &addressed.bcc)] {
                if !list.is_empty() {
                    j.key(name).text(&people(list));
                }
            }
            if !parts.reply_to.is_empty() {
                j.key("ReplyTo").text(&people(&parts.reply_to));
            }
            j.key("Subject").text(parts.subject.as_deref().unwrap_or_default());
            if let Some(text) = &parts.text {
                j.key("TextBody").text(text);
            }
            if let Some(html) = &parts.html {
                j.key("HtmlBody").text(html);
            }
            j.key("MessageStream").text(stream);
            if let Some(tag) = tag {
                j.key("Tag").text(tag);
            }
            j.key("Metadata").object(|j| metadata.iter().for_each(|(key, value)| j.key(key).text(value)));
            headers(j, parts);
            if !parts.files.is_empty() {
                j.key("Attachments").array(|j| parts.files.iter().for_each(|file| attachment(j, file)));
            }
        });
        json.finish()
    }
}

/// The message keeps its Message-ID, which its answers and threads refer to: `X-PM-KeepID`.
fn headers(json: &mut Json, parts: &Parts<'_>) {
    let kept = parts.message_id.as_deref().map(|id| [("Message-ID", id), ("X-PM-KeepID", "true")]);
    let others = parts.headers.iter().map(|header| (header.name, &*header.written));
    let all: Vec<(&str, &str)> = kept.into_iter().flatten().chain(others).collect();
    if all.is_empty() {
        return;
    }
    json.key("Headers").array(|j| {
        for (name, value) in all {
            j.object(|j| {
                j.key("Name").text(name);
                j.key("Value").text(value);
            });
        }
    });
}

fn attachment(json: &mut Json, file: &File<'_>) {
    json.object(|j| {
        j.key("Name").text(&file.name);
        j.key("ContentType").text(&file.content_type);
        if let Some(id) = file.content_id.as_ref().filter(|_| file.inline) {
            j.key("ContentID").text(&format!("cid:{id}"));
        }
        j.key("Content").base64(&file.octets);
    });
}

/// `"Doe, Jane" <jane@example.org>, b@example.org`: the name is quoted, so that nothing in it parts a list.
fn people(list: &[Mailbox]) -> String {
    let mut text = String::new();
    for (n, Mailbox { name, address }) in list.iter().enumerate() {
        text.push_str(if n == 0 { "" } else { ", " });
        match name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => {
                let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
                // A String takes everything.
                let _ = write!(text, "\"{quoted}\" <{}>", address.wire());
            }
            None => text.push_str(address.wire()),
        }
    }
    text
}

/// The one that it takes.
fn tag(message: &Message) -> Option<&str> {
    message.tags.first().map(String::as_str)
}

/// All of them, each once.
fn tags(message: &Message) -> Vec<&str> {
    let mut tags: Vec<&str> = Vec::with_capacity(message.tags.len());
    for tag in &message.tags {
        if !tags.contains(&tag.as_str()) {
            tags.push(tag);
        }
    }
    tags
}

/// The attempt's id, all tags where there are several, and the app's pairs.
fn metadata(parcel: Parcel<'_>) -> Result<Vec<(&str, String)>, Unfit> {
    labels_fit(parcel.message)?;
    let message = parcel.message;
    let attempt = (ATTEMPT, parcel.planted().to_string());
    let all = tags(message);
    let tags = (all.len() > 1).then(|| (TAGS, all.join(TAGS_PARTED_BY)));
    let own = message.metadata.iter().map(|(key, value)| (key.as_str(), value.clone()));
    Ok(std::iter::once(attempt).chain(tags).chain(own).collect())
}

/// Whether Postmark can carry all of its tags and pairs.
pub(super) fn labels_fit(message: &Message) -> Result<(), Unfit> {
    let no = |why: String| Err(Unfit(why));
    let tags = tags(message);
    let several = tags.len() > 1;
    if several {
        let parted = tags.iter().all(|tag| !tag.contains(','));
        let characters = tags.join(TAGS_PARTED_BY).chars().count();
        if !parted || characters > VALUE_CHARS_MAX {
            return no(format!(
                "Postmark takes one tag; several go as one value of its metadata, of {VALUE_CHARS_MAX} characters with \
                 commas between, and its {} tags do not",
                tags.len()
            ));
        }
    }
    for (key, value) in &message.metadata {
        if [ATTEMPT, TAGS].iter().any(|own| own.eq_ignore_ascii_case(key)) {
            return no(format!("its metadata {key} has a name that is the relay's own at Postmark"));
        }
        if key.chars().count() > KEY_CHARS_MAX || value.chars().count() > VALUE_CHARS_MAX {
            return no(format!(
                "Postmark takes metadata with names of {KEY_CHARS_MAX} and values of {VALUE_CHARS_MAX} characters, and \
                 its {key} has more"
            ));
        }
    }
    match 1 + usize::from(several) + message.metadata.len() <= PAIRS_MAX {
        true => Ok(()),
        false => no(format!(
            "Postmark takes {PAIRS_MAX} values of metadata, the relay's own among them, and it has {}",
            message.metadata.len()
        )),
    }
}

/// Whether its SMTP endpoint can be told them: it does not say how it reads what is not ASCII.
pub(super) fn labels_fit_lines(message: &Message) -> Result<(), Unfit> {
    let fits = |value: &str| value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    let tag =
        message.tags.iter().find(|tag| !fits(tag)).map(|tag| format!("tag \"{}\"", tag.escape_default()));
    let pair =
        message.metadata.iter().find(|(_, value)| !fits(value)).map(|(key, _)| format!("metadata {key}"));
    match tag.or(pair) {
        None => Ok(()),
        Some(what) => {
            Err(Unfit(format!("its {what} has letters beyond ASCII, which no field of Postmark's takes")))
        }
    }
}

/// The fields for its SMTP endpoint, whole lines.
pub(super) fn fields(parcel: Parcel<'_>, stream: &str) -> Result<String, Unfit> {
    labels_fit_lines(parcel.message)?;
    let mut lines = format!("X-PM-Message-Stream: {stream}\r\nX-PM-KeepID: true\r\n");
    let mut line = |name: &str, value: &str| lines.extend([name, ": ", value, "\r\n"]);
    if let Some(tag) = tag(parcel.message) {
        line("X-PM-Tag", tag);
    }
    for (key, value) in metadata(parcel)? {
        line(&format!("X-PM-Metadata-{key}"), &value);
    }
    Ok(lines)
}
