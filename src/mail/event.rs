//! What an ESP tells of a message after it took it: one event, whoever told it, in the field's common words.
//!
//! An ESP's file turns its payload into these; what an event does is decided elsewhere ([`super::effect`]). The bounce
//! classes follow RFC 3463's codes and what the ESPs themselves suppress for.

use std::collections::BTreeSet;

use super::delivery::Known;
use super::id::Planted;
use super::stream::StreamKind;
use crate::address::Address;
use crate::clock::Timestamp;

/// One event, as its ESP told it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What makes it one at this ESP: told twice it is still the same event.
    pub key: String,
    /// What happened.
    pub what: What,
    /// Its kind as the ESP names it, where it does: what has no name here is known by that alone.
    pub told_as: String,
    /// When it happened, by the ESP's clock.
    pub at: Timestamp,
    /// Whom it is about, where it names somebody.
    pub recipient: Option<Address>,
    /// The ids that went with the call, where they came back.
    pub planted: Option<Planted>,
    /// The ESP's own id of the message.
    pub remote_id: Option<String>,
    /// Its ESP gives back nothing of what went with a call in events of this form: without our ids it may be ours all the
    /// same, where it is about such mail.
    pub unlabelled: Option<Unlabelled>,
    /// The kind of stream that a wish is about, where its ESP says it; else it is about broadcast mail.
    pub scope: Option<StreamKind>,
    /// The ESP's words, or those of the recipient's host.
    pub said: String,
    /// The event as it came: JSON.
    pub raw: String,
}

/// The mail that an event without our ids is about, as far as it says so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unlabelled {
    /// Who sent it, as [`Address::key`](crate::address::Address::key): in its envelope, or in From.
    pub sender: Option<String>,
    /// When the ESP took it, by its clock.
    pub taken_at: Option<Timestamp>,
    /// The keys of those whom its call was for; none: it does not say.
    pub recipients: BTreeSet<String>,
    /// Its Message-ID, as it was handed over; in the form of [`message_id`](super::headers::message_id).
    pub message_id: Option<String>,
}

impl Event {
    /// What a bounce says of the address, or which streams a wish is about where that is not broadcast; in a word.
    pub fn class(&self) -> Option<&'static str> {
        let transactional = self.what.wish().is_some() && self.scope == Some(StreamKind::Transactional);
        self.what.class().or(transactional.then_some(StreamKind::Transactional.word()))
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// The ESP took it and is about to send it.
    Sent,
    /// The recipient's host put it off; the ESP tries again.
    Deferred,
    /// The recipient's host took it.
    Delivered,
    /// It did not arrive, and the ESP tries no more.
    Bounced(Bounce),
    /// The recipient called it spam.
    Complained,
    /// The recipient took it out of the spam folder (RFC 6430): the reverse of a complaint.
    NotSpam,
    /// It was opened.
    Opened {
        /// By a machine: a mail client's prefetch, a scanner.
        machine: bool,
    },
    /// A link in it was followed.
    Clicked {
        /// By a machine.
        machine: bool,
    },
    /// The recipient wants no more.
    Unsubscribed,
    /// The recipient wants more after all.
    Resubscribed,
    /// A machine answered for the recipient: out of office, a challenge. Nothing is wrong with the address.
    AutoReplied,
    /// Something that has no name here; kept as it came.
    Other,
}

/// Why it did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bounce {
    /// There is no such mailbox or domain: the address is dead.
    Hard,
    /// The mailbox is full, the host was not to be reached in time: it may work again.
    Soft,
    /// The host refused this sender or this content: it says nothing of the address.
    Policy,
    /// The ESP did not try: its own list has the address, for that reason.
    Listed(Listed),
    /// The ESP did not send it: its content, its form, its template.
    Refused,
    /// The ESP took it for sending, and then let it be for this recipient: its content, a limit of the account.
    LetBe,
}

/// Why an ESP's own list has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listed {
    /// It bounced for good, or is no address.
    Bounced,
    /// Its owner complained.
    Complained,
    /// Its owner unsubscribed.
    Unsubscribed,
    /// Somebody of the account, or the ESP for another reason, mails it no more: the mailbox may well be there.
    Deactivated,
}

impl What {
    /// What is known of the attempt then; `None`: it says nothing of that.
    pub fn known(self) -> Option<Known> {
        known_of(self.word())
    }

    /// Its word in events, tables and metrics.
    pub fn word(self) -> &'static str {
        match self {
            What::Sent => "sent",
            What::Deferred => "deferred",
            What::Delivered => "delivered",
            What::Bounced(Bounce::Refused) => "rejected",
            What::Bounced(Bounce::Listed(_) | Bounce::LetBe) => "dropped",
            What::Bounced(_) => "bounced",
            What::Complained => "complained",
            What::NotSpam => "not_spam",
            What::Opened { .. } => "opened",
            What::Clicked { .. } => "clicked",
            What::Unsubscribed => "unsubscribed",
            What::Resubscribed => "resubscribed",
            What::AutoReplied => "auto_replied",
            What::Other => "other",
        }
    }
}

/// What an event of that word says of its attempt; `None`: nothing. The words are what is stored: whatever was told keeps
/// its meaning.
pub fn known_of(word: &str) -> Option<Known> {
    match word {
        "sent" => Some(Known::Handed),
        "deferred" => Some(Known::Deferred),
        // Who opens a message, or is answered for by a machine, has it.
        "delivered" | "opened" | "clicked" | "unsubscribed" | "not_spam" | "auto_replied" => {
            Some(Known::Delivered)
        }
        "bounced" | "dropped" | "rejected" => Some(Known::Bounced),
        "complained" => Some(Known::Complained),
        _ => None,
    }
}

/// Whether an event of that word, about one recipient of a call, shows that the ESP took the call for the others too. A
/// refusal by the ESP itself may be that of all of it: each other recipient is heard of in an event of its own, or in none.
pub fn shows_call_taken(word: &str) -> bool {
    word != "rejected" && known_of(word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_says_of_its_attempt_and_of_its_call() {
        let bounces = [
            Bounce::Hard,
            Bounce::Soft,
            Bounce::Policy,
            Bounce::LetBe,
            Bounce::Listed(Listed::Bounced),
            Bounce::Listed(Listed::Complained),
            Bounce::Listed(Listed::Unsubscribed),
            Bounce::Listed(Listed::Deactivated),
        ];
        for bounce in bounces {
            let what = What::Bounced(bounce);
            assert_eq!(
                (what.known(), shows_call_taken(what.word())),
                (Some(Known::Bounced), true),
                "{what:?}"
            );
        }
        for (what, known, taken) in [
            (What::Sent, Some(Known::Handed), true),
            (What::Deferred, Some(Known::Deferred), true),
            (What::Delivered, Some(Known::Delivered), true),
            (What::Bounced(Bounce::Refused), Some(Known::Bounced), false),
            (What::Complained, Some(Known::Complained), true),
            (What::NotSpam, Some(Known::Delivered), true),
            (What::Opened { machine: true }, Some(Known::Delivered), true),
            (What::Clicked { machine: false }, Some(Known::Delivered), true),
            (What::Unsubscribed, Some(Known::Delivered), true),
            (What::Resubscribed, None, false),
            (What::AutoReplied, Some(Known::Delivered), true),
            (What::Other, None, false),
        ] {
            assert_eq!((what.known(), shows_call_taken(what.word())), (known, taken), "{what:?}");
        }
    }
}
