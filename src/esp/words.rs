//! A refusal of an SMTP server, read once: its code, its enhanced code and its words, and what of limits, sizes, mailboxes,
//! senders and the protocol they say together.

use std::net::IpAddr;

use super::phrases::About;
use crate::mail::Answer;

/// See the module.
pub(super) struct Words<'a> {
    /// The reply itself.
    pub answer: &'a Answer,
    /// In lower case.
    pub text: String,
}

impl<'a> Words<'a> {
    pub fn of(answer: &'a Answer) -> Self {
        Words { answer, text: answer.text.to_ascii_lowercase() }
    }

    pub fn code(&self) -> u16 {
        self.answer.code
    }

    pub fn enhanced(&self) -> Option<[u8; 3]> {
        self.answer.enhanced
    }

    pub fn lasting(&self) -> bool {
        self.answer.lasting()
    }

    pub fn is(&self, code: u16, enhanced: [u8; 3]) -> bool {
        self.code() == code && self.enhanced() == Some(enhanced)
    }

    pub fn has(&self, phrase: &str) -> bool {
        self.text.contains(phrase)
    }

    /// Whole words, so that "operate" and "generated" are not about a rate.
    pub fn word(&self, test: impl Fn(&str) -> bool) -> bool {
        self.text.split(|c: char| !c.is_ascii_alphanumeric()).any(test)
    }

    /// "Too many concurrent connections", "Maximum sending rate exceeded", "rate-limited", "slow down".
    pub fn throttle(&self) -> bool {
        self.word(|w| w == "rate" || w.starts_with("throttl") || w.starts_with("ratelimit"))
            || self.word(|w| matches!(w, "limit" | "limits" | "limited" | "quota"))
            || ["too many", "too fast", "slow down"].iter().any(|p| self.has(p))
    }

    pub fn quota(&self) -> bool {
        let window = self.word(|w| matches!(w, "daily" | "hourly" | "monthly"));
        window && self.word(|w| matches!(w, "quota" | "limit" | "limits" | "sending"))
    }

    /// How fast or how much we may send, where it is said with a lasting code. Not a mailbox's: "552 5.2.2 over quota", "450 4.2.1 The user
    /// you are trying to contact is receiving mail at a rate".
    pub fn limit_of_ours(&self) -> bool {
        self.code() >= 500 && self.says(About::Limit) && !self.has("receiv")
    }

    /// About the server's own state (RFC 3463's x.3.y, but 5.3.4, the message's size; RFC 7504's 521), or about the protocol
    /// (x.5.y, but 5.5.3, too many recipients): not a word about a mail.
    pub fn system(&self) -> bool {
        match self.enhanced() {
            Some([5, 3, detail]) => detail != 4,
            // 501 is about what a command named.
            Some([5, 5, detail]) => detail != 3 && self.code() != 501,
            Some(_) => false,
            None => self.code() == 521,
        }
    }

    /// RFC 3463: 5.3.4 too big for the system, 5.2.3 for the mailbox, 5.6.7 needs SMTPUTF8, 5.6.3 needs conversion.
    /// A bare 552 is about size; 552 5.7.0 (Google, for content) is not.
    pub fn does_not_fit(&self) -> bool {
        let told = matches!(self.enhanced(), Some([5, 3, 4] | [5, 2, 3] | [5, 6, 7] | [5, 6, 3]));
        told || (self.code() == 552 && self.enhanced().is_none())
    }

    /// About the message at a RCPT, where nothing of it is known but what MAIL told: its size, 8BITMIME, SMTPUTF8. 5.2.3
    /// is one mailbox's limit, and so is a size that the words say is a mailbox's.
    pub fn does_not_fit_at_rcpt(&self) -> bool {
        let size = ["size", "too big", "too large", "too long"].iter().any(|p| self.has(p));
        match self.enhanced() {
            Some(told) => matches!(told, [5, 3, 4] | [5, 6, _]),
            None => self.code() == 552 && size && !self.of_mailbox(),
        }
    }

    /// About the recipient: RFC 3463's class of it, x.2.y (its mailbox) and x.1.y (its address), or the word.
    pub fn of_mailbox(&self) -> bool {
        matches!(self.enhanced(), Some([_, 1 | 2, _]))
            || ["mailbox", "recipient address", "receiv"].iter().any(|p| self.has(p))
    }

    /// About a command and not about what it named: unknown, not implemented, out of order (RFC 5321 section 4.2.2).
    pub fn protocol(&self) -> bool {
        matches!(self.code(), 500 | 502..=504)
    }

    /// About the command and not about its sender (RFC 5321 section 4.2.2): unknown, not implemented, out of order, a
    /// parameter. A 501 is about either: 501 5.1.7 and the words tell.
    pub fn protocol_at_mail(&self) -> bool {
        let of_address = matches!(self.enhanced(), Some([_, 1, _]));
        match self.code() {
            _ if self.protocol() => !of_address,
            555 => !of_address,
            501 => !of_address && !self.has("sender") && !self.has("address"),
            _ => false,
        }
    }

    /// About whom the mail is from, by code or by word.
    pub fn sender_unknown(&self) -> bool {
        let told = matches!(self.enhanced(), Some([5, 1, 7 | 8] | [5, 7, 26]));
        self.code() >= 500 && (told || self.says(About::Unverified))
    }

    /// "554 5.7.1 [192.0.2.1] blacklisted", "550 192.0.2.1 is listed at a.test": a host's address stands on somebody's list.
    pub fn lists_an_address(&self) -> bool {
        const LISTS: [&str; 7] =
            ["blacklist", "black list", "blocklist", "block list", "denylist", " listed", "dnsbl"];
        let bare = |word: &str| word.trim_matches(|c: char| !c.is_ascii_hexdigit()).parse::<IpAddr>().is_ok();
        LISTS.iter().any(|list| self.has(list)) && self.text.split_ascii_whitespace().any(bare)
    }

    /// 4.6.x: the content, for now.
    pub fn content(&self) -> bool {
        matches!(self.enhanced(), Some([4, 6, _]))
    }
}
