//! What SES can carry, by either door.

use super::{control, names, tags};
use crate::address::Address;
use crate::esp::{Parcel, Unfit};
use crate::mail::headers::{LINE_OCTETS_MAX, fields};
use crate::mail::{Message, Protocol};

/// In one call, or one SMTP transaction.
pub(super) const RECIPIENTS_MAX: u32 = 50;
/// A message in base64: 40 MB.
const ENCODED_OCTETS_MAX: u64 = 40_000_000;

/// Fields that a message may have once.
#[rustfmt::skip]
const ONCE: [&str; 60] = [
    "Accept-Language", "acceptLanguage", "Archived-At", "Auto-Submitted", "Bounces-to", "Comments",
    "Content-Alternative", "Content-Base", "Content-Class", "Content-Description", "Content-Disposition",
    "Content-Duration", "Content-ID", "Content-Language", "Content-Length", "Content-Location", "Content-MD5",
    "Content-Transfer-Encoding", "Content-Type", "Date", "Delivered-To", "Disposition-Notification-Options",
    "Disposition-Notification-To", "DKIM-Signature", "DomainKey-Signature", "Errors-To", "From", "Importance",
    "In-Reply-To", "Keywords", "List-Archive", "List-Help", "List-Id", "List-Owner", "List-Post", "List-Subscribe",
    "List-Unsubscribe", "List-Unsubscribe-Post", "Message-Context", "Message-ID", "MIME-Version", "Organization", "Original-From",
    "Original-Message-ID", "Original-Recipient", "Original-Subject", "Precedence", "Priority", "References",
    "Reply-To", "Return-Path", "Return-Receipt-To", "Sender", "Solicitation", "Sensitivity", "Subject",
    "Thread-Index", "Thread-Topic", "User-Agent", "VBR-Info",
];
/// Whether both doors can carry it.
pub(super) fn both(parcel: Parcel<'_>, reports: bool) -> Result<(), Unfit> {
    let no = |why: String| Err(Unfit(why));
    if parcel.recipients.len() > RECIPIENTS_MAX as usize {
        return no(format!("SES takes at most {RECIPIENTS_MAX} recipients at a time"));
    }
    parcel.recipients.iter().try_for_each(recipient)?;
    message(parcel.message, reports)
}

/// Whether both doors can carry something to that address.
pub(super) fn recipient(to: &Address) -> Result<(), Unfit> {
    match to.ascii_wire() {
        Some(_) => Ok(()),
        None => Err(Unfit(format!(
            "SES knows no address such as <{}>: what stands before its @ is not ASCII",
            to.wire()
        ))),
    }
}

/// Whether both doors can carry a message, whoever gets it. All of it can be told by its beginning and its facts.
pub(super) fn message(message: &Message, reports: bool) -> Result<(), Unfit> {
    let no = |why: String| Err(Unfit(why));
    if message.source.protocol == Protocol::Report && !reports {
        return no(
            "SES gives every message a sender of its own: reports to senders need [server] dsn_from".into()
        );
    }
    tags::all_fit(message)?;
    control::set(message)?;
    let longest = message.body.facts.longest_line_octets;
    if longest > LINE_OCTETS_MAX as u64 {
        return no(format!("a line has {longest} octets, SES takes {LINE_OCTETS_MAX}"));
    }
    if let Some(name) = twice(&message.body.head) {
        return no(format!("SES takes a message with one {name} field, and this one has several"));
    }
    if !fields(&message.body.head).any(|field| field.is("From")) {
        return no("SES takes no message without a From field".into());
    }
    if let Some(field) = fields(&message.body.head).find(|field| !field.name.iter().all(u8::is_ascii_graphic))
    {
        let name = String::from_utf8_lossy(field.name).escape_debug().to_string();
        return no(format!("SES takes field names in ASCII alone, and {name} is none"));
    }
    if let Err(name) = names::changes(&message.body.head) {
        return no(format!("SES takes addresses in ASCII alone, and {name} has other octets"));
    }
    Ok(())
}

/// Whether the API can carry a message of its size.
pub(super) fn api(message: &Message) -> Result<(), Unfit> {
    let octets = message.body.size_octets();
    let encoded = octets.div_ceil(3).saturating_mul(4);
    match encoded <= ENCODED_OCTETS_MAX {
        true => Ok(()),
        false => Err(Unfit(format!(
            "it has {octets} octets, {encoded} in base64, and SES takes {ENCODED_OCTETS_MAX}"
        ))),
    }
}

/// Where the content was not there to compose from.
pub(super) fn too_large_for_memory(message: &Message) -> String {
    let octets = message.body.size_octets();
    format!("its {octets} octets are too many for [limits] memory to compose a request of them; raise it")
}

/// A field that stands there more than once and may not.
fn twice(head: &[u8]) -> Option<&'static str> {
    let mut seen = [false; ONCE.len()];
    fields(head).find_map(|field| {
        let n = ONCE.iter().position(|name| field.is(name))?;
        std::mem::replace(&mut seen[n], true).then_some(ONCE[n])
    })
}
