//! What SendGrid's answers mean. By HTTP:
//!
//! | answer | means |
//! |---|---|
//! | 202 | accepted; its id is in `X-Message-Id` |
//! | 200 | "valid, but not queued": its sandbox mode, which nobody here asks for: the account; with an id: unsure |
//! | 400 about the number of recipients, a duplicate, or the form of a field that is ours to write | unfit |
//! | 400 that names recipients | those; the others were not sent and go again |
//! | 400 else, in SendGrid's own JSON | the message |
//! | 400 without that | unfit |
//! | 401, 403, 429 "Maximum credits exceeded" | throttled, until they are asked about again |
//! | 401, 403 "access forbidden", 404, 405, 415 | the account |
//! | 403 of a sender identity | the sender in From |
//! | 413 | unfit |
//! | 429 | throttled until `X-RateLimit-Reset` |
//! | 503 | the path |
//! | any other 5xx | unsure; the path where SendGrid's own JSON says that nothing was taken |
//!
//! By SMTP, beside the rows for all servers: credits, senders, and 552 whatever its enhanced code.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;

use super::Parcel;
use super::mail::named;
use crate::clock::Timestamp;
use crate::esp::answers::{self, by_status, refused};
use crate::esp::smtp::{Meant, spent};
use crate::mail::{Answer, Fault, HttpReply, Named, Outcome, Phase, Throttle};

/// `{"errors":[{"message":"…","field":"…"|null,"help":…}]}`
#[derive(Deserialize)]
struct Errors {
    errors: Vec<Error>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    field: Option<String>,
}

impl Error {
    fn says(&self, words: &str) -> bool {
        self.message.as_deref().is_some_and(|message| message.to_ascii_lowercase().contains(words))
    }

    /// Sometimes with, sometimes without what lies around it: `message.attachments.0.type`.
    fn field(&self) -> &str {
        let field = self.field.as_deref().unwrap_or_default();
        field.strip_prefix("message.").unwrap_or(field)
    }

    /// `personalizations.0.cc.3.email` → the list and the place in it.
    fn recipient(&self) -> Option<(&str, usize)> {
        let mut path = self.field().split('.');
        let (Some("personalizations"), Some("0"), Some(list), Some(place)) =
            (path.next(), path.next(), path.next(), path.next())
        else {
            return None;
        };
        let of_address = matches!(path.next(), None | Some("email"));
        let place = place.parse().ok().filter(|_| of_address && matches!(list, "to" | "cc" | "bcc"))?;
        Some((list, place))
    }

    /// "There is a limit of 1000 total recipients (to + cc + bcc) per request." and its kin.
    fn is_of_number(&self) -> bool {
        (self.says("1000") || self.says("1,000")) && (self.says("recipients") || self.says("personalization"))
    }

    /// "Each unique email address in the personalizations array should only be included once."
    fn is_of_duplicate(&self) -> bool {
        self.says("should be unique") || self.says("only be included once")
    }

    /// How a part of the request is written, which is the relay's doing: the message's author could not mend it.
    fn is_of_form(&self) -> bool {
        const OURS: [&str; 5] = ["attachments", "headers", "categories", "custom_args", "reply_to_list"];
        let field = self.field();
        let ours = OURS.iter().any(|name| field.starts_with(name));
        ours || field.starts_with("personalizations.0.custom_args")
            || (field.starts_with("content.") && field.ends_with(".type"))
            || (field.starts_with("personalizations.") && field.ends_with(".name"))
            || self.says("invalid type. expected")
            || self.says("additional property")
    }

    /// Words that leave no doubt about what became of the mail.
    fn says_not_taken(&self) -> bool {
        const WORDS: [&str; 6] = [
            "not accepted",
            "not been accepted",
            "not sent",
            "not been sent",
            "not queued",
            "nothing was accepted",
        ];
        WORDS.iter().any(|words| self.says(words))
    }
}

/// SendGrid's own words; `None`: somebody else's, or cut off.
fn errors(reply: &HttpReply) -> Option<Vec<Error>> {
    let read = serde_json::from_slice::<Errors>(&reply.body).ok()?.errors;
    (!read.is_empty()).then_some(read)
}

/// One outcome a recipient, in order.
pub(super) fn read(parcel: Parcel<'_>, reply: &HttpReply, now: Timestamp) -> Vec<Outcome> {
    let all = |outcome: Outcome| vec![outcome; parcel.recipients.len()];
    if reply.status != 400 {
        return all(of_all(reply, now));
    }
    match errors(reply) {
        Some(errors) => {
            bad_request(parcel, reply, &errors, now).unwrap_or_else(|| all(of_400(reply, &errors, now)))
        }
        // None, or a proxy's words: it has not liked the request, and nobody has looked at the message.
        None => all(by_status(reply, now)),
    }
}

/// Whether it says that a recipient stands in the request twice, which the relay sees to; what else is wrong with requests
/// shuts the gate with an alert of its own.
pub(super) fn blames_request(reply: &HttpReply) -> bool {
    reply.status == 400 && errors(reply).is_some_and(|errors| errors.iter().any(Error::is_of_duplicate))
}

/// What is alike for all recipients.
fn of_all(reply: &HttpReply, now: Timestamp) -> Outcome {
    let id = || reply.header("x-message-id").map(str::to_owned).filter(|id| !id.is_empty());
    let own = || errors(reply).unwrap_or_default();
    let says = |words: &str| own().iter().any(|error| error.says(words));
    match reply.status {
        202 => Outcome::Accepted { remote_id: id(), said: reply.to_string() },
        // An account that takes mail and sends none is worse than one that refuses it.
        200 if id().is_none() => refused(Fault::Account, true, reply, now),
        401 if says("credits") => credits_spent(reply, now),
        403 | 429 if says("credits exceeded") => credits_spent(reply, now),
        403 if of_sender(&own()) => refused(Fault::Sender(Named::From), true, reply, now),
        401 | 403 | 404 | 405 | 415 => refused(Fault::Account, true, reply, now),
        429 => throttled(reply, now),
        500..=599 if own().iter().any(Error::says_not_taken) => refused(Fault::Path, false, reply, now),
        _ => by_status(reply, now),
    }
}

/// "The from address does not match a verified Sender Identity.", field: from.
fn of_sender(errors: &[Error]) -> bool {
    errors.iter().any(|e| {
        e.field() == "from"
            || e.says("sender identity")
            || e.says("not authorized to send from that email address")
    })
}

fn credits_spent(reply: &HttpReply, now: Timestamp) -> Outcome {
    let fault = spent(now);
    let wait = match fault {
        Fault::Throttled(Throttle::Window(until)) => Some(until.since(now)),
        _ => None,
    };
    Outcome::Refused { fault, lasting: false, wait, said: reply.to_string() }
}

/// A number of seconds since 1970 that is no smaller would be after the year 5000: it is of milliseconds.
const MILLIS_MIN: i64 = 100_000_000_000;

/// `X-RateLimit-Reset` is the second since 1970 at which it is over; some that stand before it tell the millisecond.
fn throttled(reply: &HttpReply, now: Timestamp) -> Outcome {
    let told = reply.header("x-ratelimit-reset").map(str::trim);
    let reset = told.and_then(|text| text.parse::<i64>().ok());
    let millis = |reset: i64| if reset < MILLIS_MIN { reset.checked_mul(1000) } else { Some(reset) };
    let until = reset.and_then(millis).map(Timestamp::from_millis);
    let wait: Option<Duration> = until.map(|until| until.since(now).min(answers::WAIT_MAX));
    let is_beyond = until.is_none() && told.is_some_and(answers::is_number);
    let wait = if is_beyond { Some(answers::WAIT_MAX) } else { wait.or_else(|| answers::wait(reply, now)) };
    Outcome::Refused {
        fault: Fault::Throttled(Throttle::Rate),
        lasting: false,
        wait,
        said: reply.to_string(),
    }
}

fn of_400(reply: &HttpReply, errors: &[Error], now: Timestamp) -> Outcome {
    let unfit = |error: &Error| error.is_of_number() || error.is_of_duplicate() || error.is_of_form();
    match errors.iter().any(unfit) {
        true => Outcome::Unfit { why: reply.to_string() },
        false if of_sender(errors) && errors.iter().any(|e| e.says("sender identity")) => {
            refused(Fault::Sender(Named::From), true, reply, now)
        }
        false => refused(Fault::Message, true, reply, now),
    }
}

/// Where every error names a recipient: those are refused. Nobody else was mailed; they go again without them. `None`:
/// something else is wrong.
fn bad_request(
    parcel: Parcel<'_>,
    reply: &HttpReply,
    errors: &[Error],
    now: Timestamp,
) -> Option<Vec<Outcome>> {
    if errors.iter().any(|error| error.is_of_number() || error.is_of_duplicate()) {
        return None;
    }
    let places: Option<Vec<_>> = errors.iter().map(Error::recipient).collect();
    let places = places?;
    let keys: Option<HashSet<String>> = match named(parcel) {
        Some(named) => places.into_iter().map(|(list, place)| named.key(list, place)).collect(),
        // The answer came late, and the message that the places are of is at hand no more: nobody is refused for good.
        None => Some(HashSet::new()),
    };
    let keys = keys?;
    let outcome = |key: String| match keys.contains(&key) {
        true => refused(Fault::Recipient, true, reply, now),
        false => Outcome::Refused {
            fault: Fault::Recipient,
            lasting: false,
            wait: None,
            said: format!("not sent, since another recipient of the same call was refused: {reply}"),
        },
    };
    Some(parcel.recipients.iter().map(|recipient| outcome(recipient.key())).collect())
}

/// SendGrid's own rows by SMTP.
pub(super) fn smtp_row(phase: Phase, answer: &Answer, now: Timestamp) -> Option<Meant> {
    let words = answer.text.to_ascii_lowercase();
    let content = matches!(phase, Phase::Data | Phase::Body | Phase::Dot);
    // "451 Authentication failed: Maximum credits exceeded"
    if words.contains("credits exceeded") {
        return Some(Meant::Fault(spent(now)));
    }
    // "550 Unauthenticated senders not allowed"
    if words.contains("unauthenticated senders") {
        return Some(Meant::Fault(Fault::Account));
    }
    // "403 You are not authorized to send from that email address"; "550 The from address does not match a verified
    // Sender Identity."
    if words.contains("not authorized to send from")
        || (content && words.contains("verified sender identity"))
    {
        return Some(Meant::Fault(Fault::Sender(Named::From)));
    }
    (content && answer.code == 552).then_some(Meant::Unfit)
}
