//! What Postmark is given: the JSON of `POST /email`, and the fields that its SMTP endpoint reads and takes away.

use std::fmt::Write as _;

use bytes::Bytes;

use super::super::json::Json;
use super::super::{Parcel, Unfit};
use crate::address::Address;
use crate::mail::parts::{Addressed, File, Lossy, Mailbox, Parts, take_apart};

/// The name of the attempt's id in the metadata.
pub(super) const ATTEMPT: &str = "postroad-attempt";
/// All of a message's tags, where it has several: Postmark takes one.
const TAGS: &str = "postroad-tags";
/// `TextBody` and `HtmlBody`, each.
const BODY_OCTETS_MAX: usize = 5 * 1024 * 1024;
/// Pairs of metadata, characters of a key and of a value (UNVERIFIED: from Postmark's support pages).
const PAIRS_MAX: usize = 10;
const KEY_CHARS_MAX: usize = 20;
const VALUE_CHARS_MAX: usize = 80;
/// Names of files that it answers 411 for.
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
pub(super) fn email(parcel: Parcel<'_>, whole: &Bytes, stream: &str) -> Result<Bytes, Unfit> {
    let lost = |Lossy(what): Lossy| Unfit(format!("its API would lose {what}"));
    let parts = take_apart(whole).map_err(lost)?;
    let addressed = parts.addressed(parcel.recipients).map_err(lost)?;
    fits(&parts, &addressed).map_err(Unfit)?;
    Ok(write(parcel, &parts, &addressed, stream, whole.len()))
}

fn fits(parts: &Parts<'_>, addressed: &Addressed) -> Result<(), String> {
    // Its description has no required field, its documents show To in every example: not relied on.
    if addressed.to.is_empty() {
        return Err("its API wants an address in To".into());
    }
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
    if let Some(file) = parts.files.iter().find(|file| is_forbidden(&file.name)) {
        return Err(format!("Postmark refuses attachments such as {:?}", file.name));
    }
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

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn is_forbidden(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, end)| FORBIDDEN_FILES.iter().any(|bad| bad.eq_ignore_ascii_case(end)))
}

fn write(parcel: Parcel<'_>, parts: &Parts<'_>, addressed: &Addressed, stream: &str, octets: usize) -> Bytes {
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
        if let Some(tag) = parcel.message.tags.first() {
            j.key("Tag").text(tag);
        }
        j.key("Metadata").object(|j| metadata(parcel).iter().for_each(|(key, value)| j.key(key).text(value)));
        headers(j, parts);
        if !parts.files.is_empty() {
            j.key("Attachments").array(|j| parts.files.iter().for_each(|file| attachment(j, file)));
        }
    });
    json.finish()
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

/// The attempt's id, the app's pairs as far as they fit, and all tags where there are several. What does not fit stays
/// with the message in the relay alone.
fn metadata(parcel: Parcel<'_>) -> Vec<(&str, String)> {
    let message = parcel.message;
    let mut pairs = vec![(ATTEMPT, parcel.attempt.to_string())];
    let fits = |key: &str, value: &str| {
        key.chars().count() <= KEY_CHARS_MAX && value.chars().count() <= VALUE_CHARS_MAX
    };
    if message.tags.len() > 1 {
        let tags = message.tags.join(", ");
        pairs.extend(Some((TAGS, tags)).filter(|(key, tags)| fits(key, tags)));
    }
    for (key, value) in &message.metadata {
        let taken = pairs.iter().any(|(known, _)| known.eq_ignore_ascii_case(key));
        if pairs.len() < PAIRS_MAX && !taken && fits(key, value) {
            pairs.push((key, value.clone()));
        }
    }
    pairs
}

/// The fields for its SMTP endpoint, whole lines. Values that are not ASCII are left out: it does not say how it reads
/// them.
pub(super) fn fields(parcel: Parcel<'_>, stream: &str) -> String {
    let mut lines = format!("X-PM-Message-Stream: {stream}\r\nX-PM-KeepID: true\r\n");
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() && value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            lines.push_str(name);
            lines.push_str(": ");
            lines.push_str(value);
            lines.push_str("\r\n");
        }
    };
    if let Some(tag) = parcel.message.tags.first() {
        line("X-PM-Tag", tag);
    }
    for (key, value) in metadata(parcel) {
        line(&format!("X-PM-Metadata-{key}"), &value);
    }
    lines
}
