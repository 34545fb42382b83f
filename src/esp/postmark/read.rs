//! What Postmark's answers mean: its own numbers, `ErrorCode`, stand in the body and are no HTTP status.

use serde_json::Value;

use super::super::answers::{self, by_status, refused};
use super::super::smtp::Meant;
use crate::address::{Address, Grammar};
use crate::clock::Timestamp;
use crate::mail::{Answer, Fault, HttpReply, Named, Outcome, Phase, Throttle};

/// One outcome a recipient, in order.
pub(super) fn email(recipients: &[Address], reply: &HttpReply, now: Timestamp) -> Vec<Outcome> {
    let told = Told::of(reply);
    let all = |outcome: Outcome| vec![outcome; recipients.len()];
    match (reply.status, &told) {
        // Taken, but whom it left out stands in what is missing.
        (200, None) => all(Outcome::Unsure { said: format!("{reply} ({})", what_is_missing(reply)) }),
        (200, Some(told)) if told.code == 0 => accepted(recipients, reply, told),
        (_, Some(told)) if told.code != 0 && matches!(reply.status, 200 | 422) => {
            let table = Table { reply, told, recipients, now };
            recipients.iter().map(|to| table.outcome(to)).collect()
        }
        _ => all(by_status(reply, now)),
    }
}

/// Why an answer of 200 tells nothing.
fn what_is_missing(reply: &HttpReply) -> &'static str {
    match (reply.cut, serde_json::from_slice::<Value>(&reply.body)) {
        (true, _) => "its end is missing",
        (false, Ok(_)) => "it has neither an ErrorCode nor a MessageID",
        (false, Err(_)) => "it is no JSON",
    }
}

/// 402 invalid JSON, 403 a field that it does not know, 409 not marked as JSON, 410 too many in one batch: the request is
/// not as it should be, whoever's mail it carries.
const OF_REQUEST: [i64; 4] = [402, 403, 409, 410];

/// Whether that is what it says.
pub(super) fn blames_request(reply: &HttpReply) -> bool {
    let told = Told::of(reply).filter(|_| matches!(reply.status, 200 | 422));
    let codes = told.iter().flat_map(|told| told.errors.iter().map(|(code, _)| *code).chain([told.code]));
    answers::blames_request(reply) || codes.into_iter().any(|code| OF_REQUEST.contains(&code))
}

/// What its body says.
#[derive(Debug, Default)]
struct Told {
    /// 0: all is well.
    code: i64,
    message: String,
    id: Option<String>,
    /// `Errors[]` of code 11: what is wrong, each by itself.
    errors: Vec<(i64, String)>,
}

impl Told {
    fn of(reply: &HttpReply) -> Option<Told> {
        if reply.cut {
            return None;
        }
        let body: Value = serde_json::from_slice(&reply.body).ok()?;
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let code = |value: &Value| value.get("ErrorCode").and_then(Value::as_i64);
        let message = text(&body, "Message").unwrap_or_default();
        let id = text(&body, "MessageID");
        // It is missing where the message waits in a queue of theirs.
        let own = match code(&body) {
            Some(own) => own,
            None if id.is_some() || message.contains("delivery may be delayed") => 0,
            None => return None,
        };
        let errors = body.get("Errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let errors = errors
            .iter()
            .map(|error| (code(error).unwrap_or(300), text(error, "Message").unwrap_or_default()))
            .collect();
        Some(Told { code: own, message, id, errors })
    }
}

/// It took the message, for all but those it names.
fn accepted(recipients: &[Address], reply: &HttpReply, told: &Told) -> Vec<Outcome> {
    let inactive = inactive(&told.message);
    let outcome = |to: &Address| match inactive.contains(&to.key()) {
        true => no_more(reply),
        false => Outcome::Accepted { remote_id: told.id.clone(), said: words(reply, told) },
    };
    recipients.iter().map(outcome).collect()
}

fn words(reply: &HttpReply, told: &Told) -> String {
    format!("HTTP {} {}", reply.status, told.message)
}

fn no_more(reply: &HttpReply) -> Outcome {
    Outcome::Refused { fault: Fault::Recipient, lasting: true, wait: None, said: reply.to_string() }
}

/// The addresses, as keys, in `…inactive addresses: a@x, b@y. Inactive recipients are ones that…`.
fn inactive(message: &str) -> Vec<String> {
    let lower = message.to_ascii_lowercase();
    let Some(at) = lower.find("inactive addresses:") else { return Vec::new() };
    let list = &lower[at + "inactive addresses:".len()..];
    let list = list.split("inactive recipients").next().unwrap_or_default();
    let one = |word: &str| {
        let word = word.trim().trim_end_matches('.').trim_matches(|c| c == '<' || c == '>');
        Address::parse(word, Grammar::Lenient).ok().map(|address| address.key())
    };
    list.split(|c: char| c == ',' || c == ';' || c.is_whitespace()).filter_map(one).collect()
}

/// The rows of one refusal.
struct Table<'a> {
    reply: &'a HttpReply,
    told: &'a Told,
    recipients: &'a [Address],
    now: Timestamp,
}

impl Table<'_> {
    fn outcome(&self, to: &Address) -> Outcome {
        match self.told.code {
            // Several things are wrong: the one that is hardest to get around counts.
            11 if !self.told.errors.is_empty() => {
                let rows = self.told.errors.iter().map(|(code, message)| self.row(*code, message, to));
                rows.max_by_key(weight).unwrap_or_else(|| self.unfit())
            }
            code => self.row(code, &self.told.message, to),
        }
    }

    fn row(&self, code: i64, message: &str, to: &Address) -> Outcome {
        match code {
            10 | 405 | 412 | 413 | 1226 | 1235 | 1236 => self.lasting(Fault::Account),
            100 => self.for_now(Fault::Path),
            300 => self.invalid(message, to),
            400 | 401 => self.lasting(Fault::Sender(Named::From)),
            406 => self.inactive(message, to),
            429 => self.for_now(Fault::Throttled(Throttle::Rate)),
            // `OF_REQUEST`; 411: a kind of attachment.
            _ => self.unfit(),
        }
    }

    /// `Invalid 'To' address: 'x@y'.`, `Error parsing 'To': …`, `Invalid 'From' address: …`
    fn invalid(&self, message: &str, to: &Address) -> Outcome {
        let lower = message.to_ascii_lowercase();
        let names = |field: &str| {
            lower.contains(&format!("invalid '{field}'"))
                || lower.contains(&format!("error parsing '{field}'"))
        };
        if names("from") {
            return self.lasting(Fault::Sender(Named::From));
        }
        if ["to", "cc", "bcc"].into_iter().any(names) {
            return self.of_one(lower.contains(&to.wire().to_ascii_lowercase()));
        }
        if lower.contains("recipient") && lower.contains("50") {
            return self.unfit();
        }
        self.lasting(Fault::Message)
    }

    /// Words that name none of several may be about any of them: nobody is refused for good for them.
    fn inactive(&self, message: &str, to: &Address) -> Outcome {
        let listed = inactive(message);
        let named = |to: &Address| listed.contains(&to.key());
        match self.recipients {
            [only] if listed.is_empty() || named(only) => self.of_one(true),
            all if all.iter().any(named) => self.of_one(named(to)),
            _ => self.unfit(),
        }
    }

    /// One recipient is at fault. Nothing was sent: the others go on without it.
    fn of_one(&self, this: bool) -> Outcome {
        match this {
            true => no_more(self.reply),
            false => Outcome::Refused {
                fault: Fault::Recipient,
                lasting: false,
                wait: None,
                said: format!("refused together with another recipient: {}", self.reply),
            },
        }
    }

    fn lasting(&self, fault: Fault) -> Outcome {
        refused(fault, true, self.reply, self.now)
    }

    fn for_now(&self, fault: Fault) -> Outcome {
        refused(fault, false, self.reply, self.now)
    }

    fn unfit(&self) -> Outcome {
        Outcome::Unfit { why: self.reply.to_string() }
    }
}

/// Of several reasons that counts which holds for the most mail.
fn weight(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Refused { fault: Fault::Account, .. } => 5,
        Outcome::Refused { fault: Fault::Sender(_), .. } => 4,
        Outcome::Refused { fault: Fault::Message, .. } => 3,
        Outcome::Refused { fault: Fault::Recipient, .. } => 2,
        Outcome::Refused { .. } | Outcome::Unsure { .. } => 1,
        Outcome::Unfit { .. } | Outcome::Accepted { .. } => 0,
    }
}

/// `GET /server` with the server's token.
pub(super) fn judge_probe(reply: &HttpReply) -> Result<String, String> {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    match reply.status {
        200 => match body.get("Name").and_then(Value::as_str) {
            Some(name) => Ok(format!("the token is good for the server {name:?}")),
            None => Err(format!("this is no answer of Postmark's to GET /server: {reply}")),
        },
        401 => Err(format!(
            "the server token is not good: {reply}; see server_token, it is the server's, not the account's"
        )),
        _ => Err(reply.to_string()),
    }
}

/// By SMTP nothing official is written down: what the words tell beside the rows for all.
pub(super) fn own_row(phase: Phase, answer: &Answer) -> Option<Meant> {
    let text = answer.text.to_ascii_lowercase();
    let sender = text.contains("sender signature") || text.contains("not confirmed");
    match phase {
        Phase::Mail | Phase::Data | Phase::Body | Phase::Dot if answer.lasting() && sender => {
            Some(Meant::Fault(Fault::Sender(Named::From)))
        }
        Phase::Mail | Phase::Dot if answer.lasting() && text.contains("not allowed to send") => {
            Some(Meant::Fault(Fault::Account))
        }
        _ => None,
    }
}
