//! What an SMTP server's replies mean, by phase, code and words; for each recipient of a call.
//!
//! Codes: RFC 5321 section 4.2, RFC 3463, RFC 4954 section 6. Phrases stand in one table, see `phrases`.

use std::time::Duration;

use super::super::answers::{retry_after, without_words};
use super::super::phrases::About;
use super::super::words::Words;
use super::super::{Parcel, full_house, stopped};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::{Answer, Fault, Named, Outcome, Phase, Reply, SmtpReply, Throttle};

/// When a spent quota is asked about again: no server tells when its window ends.
pub(super) const QUOTA_WAIT: Duration = Duration::from_secs(3600);

/// One outcome a recipient, in order. `own` has the rows of one ESP alone, looked at before those for all.
pub(in super::super) fn read(
    parcel: Parcel<'_>,
    reply: &Reply,
    now: Timestamp,
    own: impl Fn(Phase, &Answer) -> Option<Meant>,
) -> Vec<Outcome> {
    let last = match reply {
        Reply::Smtp(smtp) => Some(Words::of(&smtp.last)),
        _ => None,
    };
    let table = Table { own: &own, now, recipients: parcel.recipients, last };
    (0..parcel.recipients.len()).map(|n| table.outcome(reply, n)).collect()
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Meant {
    /// It is somebody's fault.
    Fault(Fault),
    /// It is nobody's: the message does not fit.
    Unfit,
}

/// What replies mean: one ESP's own rows, then those for all.
struct Table<'a, Own> {
    own: &'a Own,
    now: Timestamp,
    recipients: &'a [Address],
    /// The last answer, which is read once for all of them.
    last: Option<Words<'a>>,
}

impl<Own: Fn(Phase, &Answer) -> Option<Meant>> Table<'_, Own> {
    /// What a reply means for the recipient at `n`.
    fn outcome(&self, reply: &Reply, n: usize) -> Outcome {
        if let Reply::Lost { recipients, .. } = reply
            && let Some(own) = recipients.get(n).filter(|own| !own.positive())
        {
            return self.not_taken(own, recipients);
        }
        match (reply, &self.last) {
            (Reply::Smtp(smtp), Some(last)) => self.answered(smtp, last, n),
            (other, _) => without_words(other),
        }
    }

    /// A recipient's own refusal counts for it, whatever became of the rest.
    fn answered(&self, smtp: &SmtpReply, last: &Words<'_>, n: usize) -> Outcome {
        match smtp.recipients.get(n) {
            Some(own) if !own.positive() => self.not_taken(own, &smtp.recipients),
            _ if smtp.phase == Phase::Dot && smtp.last.positive() => {
                Outcome::Accepted { remote_id: remote_id(&smtp.last.text), said: smtp.last.to_string() }
            }
            // Taken, but the transaction ended at another one's RCPT: no word about this recipient.
            Some(_) if smtp.phase == Phase::Rcpt => self.refused(Phase::Ehlo, last, false),
            _ if smtp.phase >= Phase::Data && (names_recipient(last) || last.passing_of_recipient()) => {
                self.named(last, n)
            }
            _ => self.refused(smtp.phase, last, false),
        }
    }

    /// A refusal of one recipient after all were taken: it is that one's alone, and the others may be taken elsewhere
    /// (DELIVERY rule 6).
    fn named(&self, words: &Words<'_>, n: usize) -> Outcome {
        let named = |to: &Address| {
            stands_in(&to.key(), &words.text) || stands_in(&to.wire().to_ascii_lowercase(), &words.text)
        };
        let its_own = match self.recipients {
            [_] => true,
            all => all.get(n).is_some_and(named),
        };
        match its_own {
            true => self.refused(Phase::Rcpt, words, false),
            false if self.recipients.iter().any(named) => {
                let said = words.answer.to_string();
                Outcome::Refused { fault: Fault::Path, lasting: false, wait: None, said }
            }
            // Nobody knows of whom it speaks.
            false => self.refused(Phase::Dot, words, false),
        }
    }

    /// A refusal at RCPT. Beside one that was taken, "too many" speaks of this transaction alone.
    fn not_taken(&self, own: &Answer, all: &[Answer]) -> Outcome {
        let (words, taken_beside) = (Words::of(own), all.iter().any(Answer::positive));
        if too_many_recipients(&words) && taken_beside {
            let fault = Fault::Throttled(Throttle::Transaction);
            return Outcome::Refused { fault, lasting: false, wait: None, said: own.to_string() };
        }
        self.refused(Phase::Rcpt, &words, taken_beside)
    }

    fn refused(&self, phase: Phase, words: &Words<'_>, taken_beside: bool) -> Outcome {
        let said = words.answer.to_string();
        let own = (self.own)(phase, words.answer);
        let meant = own.or_else(|| fault(phase, words, taken_beside, self.now).map(Meant::Fault));
        let Some(Meant::Fault(fault)) = meant else { return Outcome::Unfit { why: said } };
        let wait = match fault {
            Fault::Throttled(Throttle::Window(_)) => Some(QUOTA_WAIT),
            _ if phase == Phase::Token => {
                words.answer.retry_after().and_then(|text| retry_after(text, self.now))
            }
            _ => None,
        };
        let lasting = match phase {
            Phase::Token => fault == Fault::Account,
            _ => words.lasting() && !matches!(fault, Fault::Throttled(_)) && !too_many_recipients(words),
        };
        Outcome::Refused { fault, lasting, wait, said }
    }
}

/// More recipients than a transaction may have. What is 452 by today's rules was 552 by older ones (RFC 5321 section
/// 4.5.3.1.10); SendGrid's "452 Too many recipients received this hour" speaks of a time's sending.
fn too_many_recipients(words: &Words<'_>) -> bool {
    let told = matches!(words.enhanced(), Some([4 | 5, 5, 3]));
    let of_a_time = ["hour", "day", "minute", "second"].iter().any(|time| words.has(time));
    match words.code() {
        _ if !words.answer.was_asked_for() => true,
        452 | 552 => (told || words.has("too many recipients")) && !of_a_time,
        _ => false,
    }
}

/// Whether that address stands in the text, and not as the end or the beginning of another.
pub(in super::super) fn stands_in(address: &str, text: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '+' | '=' | '@');
    text.match_indices(address).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + address.len()..]);
        let mut after = after.chars();
        // A dot after it may end a sentence.
        let ends = match after.next() {
            Some('.') => !after.next().is_some_and(char::is_alphanumeric),
            next => !next.is_some_and(goes_on),
        };
        ends && !before.chars().next_back().is_some_and(|c| goes_on(c) || c == '.')
    })
}

/// "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients" (Microsoft 365).
const RECIPIENTS_A_DAY: u16 = 90;

/// A lasting word on a recipient by RFC 3463's classes of it: its address (x.1.y, but a sender's 5.1.7 and 5.1.8), or its
/// mailbox (x.2.y, but a limit of ours).
fn names_recipient(words: &Words<'_>) -> bool {
    match words.enhanced() {
        Some([5, 1, 7 | 8 | RECIPIENTS_A_DAY]) => false,
        Some([5, 1, _]) => true,
        Some([5, 2, detail]) => !matches!(detail, 3 | 252) && !words.quota() && !words.limit_of_ours(),
        _ => false,
    }
}

/// Whose fault a refusal is; `None`: nobody's, the message does not fit. The first row that applies counts.
fn fault(phase: Phase, words: &Words<'_>, taken_beside: bool, now: Timestamp) -> Option<Fault> {
    let throttled = Fault::Throttled(Throttle::Rate);
    // Whose sending has its limit, or goes too fast, is told so also where the words speak of its account.
    let too_fast = !words.lasting() && words.throttle() && !words.says(About::Credits);
    let is_limit = words.quota() || words.limit_of_ours() || too_fast;
    let stopped = if is_limit { None } else { stopped::whose(phase, words, taken_beside) };
    Some(match phase {
        Phase::Token => token_fault(words),
        // 530 authentication required, 535 credentials invalid, at whatever command they come (RFC 4954 section 6).
        _ if matches!(words.code(), 530 | 535) => Fault::Account,
        Phase::Auth if words.lasting() => Fault::Account,
        _ if words.enhanced() == Some([5, 1, RECIPIENTS_A_DAY]) => spent(now),
        Phase::Rcpt if words.does_not_fit_at_rcpt() => return None,
        _ if let Some(fault) = stopped => fault,
        // Not one of ours stands: others have its places.
        _ if full_house::says(phase, words) => throttled,
        Phase::Rcpt => recipient_fault(words, now),
        // Google: "550 5.4.5 Daily user sending limit exceeded"; SES: "454 Throttling failure: Daily message quota
        // exceeded".
        _ if words.quota() => spent(now),
        _ if words.limit_of_ours() => throttled,
        _ if !words.lasting() && (words.throttle() || words.is(421, [4, 7, 0])) => throttled,
        // Phase::Answer is of HTTP.
        Phase::Connect | Phase::Banner | Phase::Ehlo | Phase::Tls | Phase::Auth | Phase::Answer => {
            Fault::Path
        }
        _ if words.does_not_fit() => return None,
        Phase::Mail if words.protocol_at_mail() || words.system_at_mail() => Fault::Path,
        // At MAIL a server has seen nothing but the envelope's sender, so a lasting no is about it: 550 5.1.8, 553 5.7.1
        // and whatever text. Another ESP may know it.
        Phase::Mail if words.lasting() => Fault::Sender(Named::Envelope),
        Phase::Mail => Fault::Path,
        // SES and SendGrid look at the From field.
        Phase::Data | Phase::Body | Phase::Dot if words.sender_unknown() => Fault::Sender(Named::From),
        // "503 5.5.1 need RCPT command": not a word about the content, which it has not seen.
        Phase::Data if words.protocol() => Fault::Path,
        // 500 is for a line that is too long, too.
        Phase::Data | Phase::Body | Phase::Dot if words.protocol() && !words.has("line") => Fault::Path,
        Phase::Data | Phase::Body | Phase::Dot if words.system() => Fault::Path,
        Phase::Data | Phase::Body | Phase::Dot if words.lasting() || words.content() => Fault::Message,
        Phase::Data | Phase::Body | Phase::Dot => Fault::Path,
    })
}

/// A token endpoint's HTTP status (RFC 6749 section 5.2: 400 and 401). Whoever refuses the grant or the program refuses our
/// account there; who is busy, or times out, says nothing about it.
fn token_fault(words: &Words<'_>) -> Fault {
    let busy = ["temporarily_unavailable", "server_error"].iter().any(|error| words.has(error));
    match words.code() {
        429 => Fault::Throttled(Throttle::Rate),
        408 | 500.. => Fault::Path,
        _ if busy => Fault::Path,
        _ => Fault::Account,
    }
}

/// A quota that is spent: nobody tells when its window ends.
pub(in super::super) fn spent(now: Timestamp) -> Fault {
    Fault::Throttled(Throttle::Window(now.plus(QUOTA_WAIT)))
}

/// A full mailbox is "over quota" too, and a busy one has a limit: at RCPT only words about a time's sending count.
fn recipient_fault(words: &Words<'_>, now: Timestamp) -> Fault {
    match words.code() {
        _ if words.quota() && !words.of_mailbox() => spent(now),
        421 if words.throttle() || words.is(421, [4, 7, 0]) => Fault::Throttled(Throttle::Rate),
        // The connection's end, not the recipient's.
        421 => Fault::Path,
        _ if words.limit_of_ours() => Fault::Throttled(Throttle::Rate),
        _ if (words.protocol() || words.system()) && !words.of_mailbox() => Fault::Path,
        _ => Fault::Recipient,
    }
}

/// The ESP's own id out of its words after the final dot, as well as can be told.
pub(super) fn remote_id(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let after = |mark: &str| lower.find(mark).map(|at| &text[at + mark.len()..]);
    let candidate = match after("queued as ").or_else(|| after("id=")) {
        Some(rest) => rest.split_ascii_whitespace().next(),
        // Amazon SES: "Ok 0100018c…-000000"; Google: "OK  1699999999 af79cd13-…123 - gsmtp".
        None => lower.starts_with("ok").then(|| longest_id(&text[2..])).flatten(),
    };
    let id = candidate?.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    (!id.is_empty()).then(|| id.to_owned())
}

/// Of several words that look like an id the longest one: others are times and counts.
fn longest_id(words: &str) -> Option<&str> {
    let id_like = |w: &&str| w.len() >= 6 && w.bytes().any(|b| b.is_ascii_digit());
    words.split_ascii_whitespace().filter(id_like).max_by_key(|w| w.len())
}
