//! What SES's answers mean: by name and status over HTTP, by phase and words over SMTP.

use std::time::Duration;

use serde_json::Value;

use crate::address::Address;
use crate::clock::Timestamp;
use crate::esp::Parcel;
use crate::esp::answers::{self, by_status};
use crate::esp::smtp::{Meant, stands_in};
use crate::mail::from::from_domain;
use crate::mail::{Answer, Fault, HttpReply, Named, Outcome, Phase, Throttle};

/// A daily quota is of the last 24 hours, and nobody says when room comes: it is asked about again so often.
const QUOTA_WAIT: Duration = Duration::from_secs(3_600);

/// What an answer by HTTP means: SES takes a message for all recipients or for none, and its refusal is alike for all of
/// them, but where it names an address that is one of theirs ("Illegal address x@y"): then it is that one's, and the others
/// go again without it. `of_set`: whose mistake a configuration set is that is not there.
pub(super) fn each(parcel: Parcel<'_>, reply: &HttpReply, now: Timestamp, of_set: Fault) -> Vec<Outcome> {
    let outcome = http(parcel, reply, now, of_set);
    let of_message = matches!(&outcome, Outcome::Refused { fault: Fault::Message, lasting: true, .. });
    let words = Told::of(reply).message.to_ascii_lowercase();
    let named =
        |to: &Address| stands_in(&to.key(), &words) || stands_in(&to.wire().to_ascii_lowercase(), &words);
    if !of_message || !words.contains("address") || !parcel.recipients.iter().any(named) {
        return vec![outcome; parcel.recipients.len()];
    }
    let said = outcome.said();
    let of = |to: &Address| match named(to) {
        true => {
            Outcome::Refused { fault: Fault::Recipient, lasting: true, wait: None, said: said.to_owned() }
        }
        false => Outcome::Refused {
            fault: Fault::Recipient,
            lasting: false,
            wait: None,
            said: format!("not sent, since another recipient of the same call was refused: {said}"),
        },
    };
    parcel.recipients.iter().map(of).collect()
}

/// The same, alike for all.
fn http(parcel: Parcel<'_>, reply: &HttpReply, now: Timestamp, of_set: Fault) -> Outcome {
    let told = Told::of(reply);
    if (200..300).contains(&reply.status) {
        return accepted(reply, &told);
    }
    let wait = answers::wait(reply, now);
    let refused = |fault, lasting| Outcome::Refused { fault, lasting, wait, said: told.said(reply) };
    match meaning(parcel, reply.status, &told, of_set) {
        Some(Meaning::Fault(fault)) => refused(fault, true),
        Some(Meaning::Passing(fault)) => refused(fault, false),
        Some(Meaning::Spent) => {
            let wait = wait.filter(|wait| !wait.is_zero()).unwrap_or(QUOTA_WAIT);
            let fault = Fault::Throttled(Throttle::Window(now.plus(wait)));
            Outcome::Refused { fault, lasting: false, wait: Some(wait), said: told.said(reply) }
        }
        Some(Meaning::Unfit) => Outcome::Unfit { why: told.said(reply) },
        Some(Meaning::Unsure) => Outcome::Unsure { said: told.said(reply) },
        None => match by_status(reply, now) {
            Outcome::Refused { fault, lasting, wait, .. } => {
                Outcome::Refused { fault, lasting, wait, said: told.said(reply) }
            }
            Outcome::Unfit { .. } => Outcome::Unfit { why: told.said(reply) },
            other => other,
        },
    }
}

/// SES took it where it told an id. A 2xx without one is cut, or of somebody between us and SES.
fn accepted(reply: &HttpReply, told: &Told) -> Outcome {
    match told.text("MessageId").filter(|_| !reply.cut) {
        Some(id) => Outcome::Accepted { said: format!("HTTP {} {id}", reply.status), remote_id: Some(id) },
        None => Outcome::Unsure { said: format!("an answer without a MessageId: {reply}") },
    }
}

enum Meaning {
    /// Lasting.
    Fault(Fault),
    /// For now.
    Passing(Fault),
    /// The quota of a time.
    Spent,
    Unfit,
    /// It may have been taken.
    Unsure,
}

/// The table. Names are those of the API v2, of the older one, and of the signature's gate before both. All of them that
/// say that nothing was taken come with a 4xx or 503: under another 5xx no name is believed.
fn meaning(parcel: Parcel<'_>, status: u16, told: &Told, of_set: Fault) -> Option<Meaning> {
    use Meaning::{Fault as Lasting, Passing, Spent, Unsure};
    if status >= 500 && status != 503 {
        return Some(Unsure);
    }
    let said = told.message.to_ascii_lowercase();
    Some(match told.name.as_str() {
        // "Daily message quota exceeded": the same name as too fast, and another matter.
        "TooManyRequestsException" | "ThrottlingException" | "Throttling" | "ThrottledException"
            if said.contains("quota") =>
        {
            Spent
        }
        // "Maximum sending rate exceeded."
        "TooManyRequestsException" | "ThrottlingException" | "Throttling" | "ThrottledException" => {
            Passing(Fault::Throttled(Throttle::Rate))
        }
        "LimitExceededException" | "LimitExceeded" => Spent,
        // Its words did not come, and only they say whose fault it is.
        "MessageRejected" | "BadRequestException" | "InvalidParameterValue" if said.trim().is_empty() => {
            Passing(Fault::Path)
        }
        "MessageRejected" => rejected(parcel, &told.message),
        "MailFromDomainNotVerifiedException" | "MailFromDomainNotVerified" => {
            Lasting(Fault::Sender(Named::From))
        }
        "AccountSuspendedException"
        | "SendingPausedException"
        | "AccountSendingPausedException"
        | "AccountSendingPaused"
        | "ConfigurationSetSendingPausedException"
        | "ConfigurationSetSendingPaused" => Lasting(Fault::Account),
        // The configuration set, which is the operator's to mend, but where an app has named one of its own.
        "NotFoundException" | "ConfigurationSetDoesNotExist" | "ConfigurationSetDoesNotExistException" => {
            Lasting(of_set)
        }
        "BadRequestException" | "InvalidParameterValue" if too_long(&said) => Meaning::Unfit,
        "BadRequestException" | "InvalidParameterValue" => Lasting(Fault::Message),
        "AccessDeniedException"
        | "AccessDenied"
        | "NotAuthorized"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "OptInRequired" => Lasting(Fault::Account),
        "ServiceUnavailable" | "ServiceUnavailableException" => Passing(Fault::Path),
        _ if status == 503 => Passing(Fault::Path),
        // With a status that is none of its own.
        "InternalServerErrorException"
        | "InternalServerError"
        | "InternalFailure"
        | "InternalServiceError" => Unsure,
        _ => return None,
    })
}

/// `MessageRejected` has many reasons, and only its words tell them apart.
fn rejected(parcel: Parcel<'_>, message: &str) -> Meaning {
    let said = message.to_ascii_lowercase();
    match () {
        // "Email address is not verified. The following identities failed the check in region EU-CENTRAL-1: …"
        () if said.contains("not verified") => Meaning::Fault(unverified(parcel, &said)),
        // "Duplicate header 'DKIM-Signature'."
        () if said.contains("duplicate") && said.contains("header") => Meaning::Unfit,
        () if too_long(&said) => Meaning::Unfit,
        () => Meaning::Fault(Fault::Message),
    }
}

/// The sender, unless all that failed are recipients: an account in the sandbox may mail those alone that it has
/// verified, which is no word about the From domain and none about these addresses.
fn unverified(parcel: Parcel<'_>, said: &str) -> Fault {
    let named = said.rsplit_once(": ").map_or("", |(_, named)| named);
    let named: Vec<&str> = named.split(',').map(|name| name.trim().trim_end_matches('.')).collect();
    let from = from_domain(parcel.message);
    let is_from =
        |name: &str| from.as_deref() == Some(name.rsplit_once('@').map_or(name, |(_, domain)| domain));
    let is_recipient = |name: &str| {
        parcel
            .recipients
            .iter()
            .map(|to| to.key())
            .any(|key| key == name || key.rsplit_once('@').is_some_and(|(_, domain)| domain == name))
    };
    match named.iter().any(|name| is_recipient(name)) && !named.iter().any(|name| is_from(name)) {
        true => Fault::Account,
        false => Fault::Sender(Named::From),
    }
}

/// "Message length is more than 10485760 bytes long", "Message is too long".
fn too_long(said: &str) -> bool {
    said.contains("message length") || said.contains("too long") || said.contains("too large")
}

/// SES's own rows; the others are those of every SMTP server.
pub(super) fn smtp(parcel: Parcel<'_>, phase: Phase, answer: &Answer, of_set: Fault) -> Option<Meant> {
    let said = answer.text.to_ascii_lowercase();
    let of_content = matches!(phase, Phase::Data | Phase::Body | Phase::Dot);
    Some(match answer.code {
        // "454 Throttling failure: Maximum sending rate exceeded." and "421 Too many concurrent SMTP connections" are
        // known to the rows for all; so is the daily quota.
        451 if said.contains("timeout waiting for data") => Meant::Fault(Fault::Path),
        // "553 <addr> Invalid email address" at MAIL: a mistake in the message's own sender.
        553 if phase == Phase::Mail && said.contains("invalid email address") => Meant::Fault(Fault::Message),
        // "554 Access denied: User `arn:…` is not authorized to perform `ses:SendRawEmail' on resource …"
        554 if said.starts_with("access denied") => Meant::Fault(Fault::Account),
        554 if of_content && said.contains("not verified") => Meant::Fault(unverified(parcel, &said)),
        // "554 Transaction failed: Duplicate header 'DKIM-Signature'."
        554 if of_content && said.contains("duplicate header") => Meant::Unfit,
        554 if of_content && (said.contains("paused") || said.contains("suspended")) => {
            Meant::Fault(Fault::Account)
        }
        // "554 Transaction failed: Configuration set does not exist: …"
        554 if of_content && said.contains("configuration set") => Meant::Fault(of_set),
        _ => return None,
    })
}

/// An answer's name and words, wherever they stand in it.
pub(super) struct Told {
    /// `MessageRejected`.
    pub(super) name: String,
    /// Its words.
    message: String,
    body: Value,
}

impl Told {
    /// Reads them. The name is in a field or in `__type`, behind a namespace and `#`, before `:` and an address.
    pub(super) fn of(reply: &HttpReply) -> Self {
        let body: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        let text = |key: &str| body.get(key).and_then(Value::as_str);
        let name = reply.header("x-amzn-errortype").or_else(|| text("__type")).or_else(|| text("code"));
        let name = name.unwrap_or_default();
        let name = name.split(':').next().unwrap_or_default();
        let name = name.rsplit('#').next().unwrap_or_default().trim().to_owned();
        let message = text("message").or_else(|| text("Message")).unwrap_or_default().to_owned();
        Told { name, message, body }
    }

    /// A text in its body.
    fn text(&self, key: &str) -> Option<String> {
        let text = self.body.get(key).and_then(Value::as_str)?;
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// All of its body.
    pub(super) fn body(&self) -> &Value {
        &self.body
    }

    /// In one line.
    pub(super) fn said(&self, reply: &HttpReply) -> String {
        match (self.name.is_empty(), self.message.is_empty()) {
            (true, _) => reply.to_string(),
            (false, true) => format!("HTTP {} {}", reply.status, self.name),
            (false, false) => {
                let words: String = self.message.chars().take(Answer::TEXT_OCTETS_MAX).collect();
                format!("HTTP {} {}: {words}", reply.status, self.name)
            }
        }
    }
}
