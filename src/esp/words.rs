//! A refusal of an SMTP server, read once: its code, its enhanced code and its words, and what of limits, sizes, mailboxes,
//! senders and the protocol they say together.

use std::net::IpAddr;

use super::phrases::About;
use crate::mail::{Answer, Status};

/// See the module.
pub(super) struct Words<'a> {
    /// The reply itself.
    pub answer: &'a Answer,
    /// In lower case.
    pub text: String,
}

/// A host's words without the addresses that it repeats: what stands there somebody else has chosen. `<a@b>` goes as a
/// whole, and so does each word with an `@`.
pub(super) fn own_words(text: &str) -> String {
    let mut rest = text;
    let mut own = String::with_capacity(text.len());
    while let Some((before, behind)) = rest.split_once('<') {
        own.push_str(before);
        own.push(' ');
        let path = behind.split_once('>').filter(|(path, _)| path.contains('@') && !path.contains('<'));
        rest = path.map_or(behind, |(_, after)| after);
    }
    own.push_str(rest);
    own.split_whitespace().filter(|word| !word.contains('@')).collect::<Vec<_>>().join(" ")
}

/// Whether a text in lower case speaks of a list of those from whom nothing is taken, whoever stands there.
pub(super) fn speaks_of_a_blocklist(text: &str) -> bool {
    const LISTS: [&str; 8] = [
        "blacklist",
        "black list",
        "blocklist",
        "block list",
        "denylist",
        "dnsbl",
        "blocked using",
        "spamhaus",
    ];
    LISTS.iter().any(|list| text.contains(list))
}

/// Whether a text in lower case says that there is no room in a mailbox.
pub(super) fn speaks_of_a_full_mailbox(text: &str) -> bool {
    const FULL: [&str; 7] = [
        "mailbox full",
        "mailbox is full",
        "mailbox has exceeded",
        "mailbox size limit exceeded",
        "over quota",
        "overquota",
        "quota exceeded",
    ];
    FULL.iter().any(|full| text.contains(full))
}

impl<'a> Words<'a> {
    pub fn of(answer: &'a Answer) -> Self {
        Words { answer, text: answer.text.to_ascii_lowercase() }
    }

    pub fn code(&self) -> u16 {
        self.answer.code
    }

    pub fn enhanced(&self) -> Option<[u16; 3]> {
        self.answer.enhanced.map(Status::parts)
    }

    pub fn lasting(&self) -> bool {
        self.answer.lasting()
    }

    pub fn is(&self, code: u16, enhanced: [u16; 3]) -> bool {
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

    /// About whom the mail is from, by word.
    pub fn sender_unknown(&self) -> bool {
        self.code() >= 500 && self.says(About::Unverified)
    }

    /// About whom the mail is from, by code: RFC 3463's 5.1.7 and 5.1.8; where SPF, DKIM or DMARC failed, RFC 7372's, and
    /// what Google (5.7.27 to 5.7.40) and Microsoft (5.7.509, 5.7.515) have beside them, who also have 5.7.502 and 5.7.503 for
    /// a banned sender and 5.7.750 for a domain that is not registered there.
    pub fn sender_by_code(&self) -> bool {
        let sender = matches!(
            self.leading(),
            Some([5, 1, 7 | 8] | [5, 7, 20..=24 | 26 | 27 | 30 | 32 | 40 | 502 | 503 | 509 | 515 | 750])
        );
        sender && self.code() >= 500
    }

    /// About who connects, by code: reverse DNS (RFC 7372's 5.7.25), Microsoft's 5.7.511 and 5.7.606 to 5.7.649 for banned
    /// addresses, 5.7.513 for one that a recipient's domain bans, 5.7.708.
    pub fn host_by_code(&self) -> bool {
        matches!(self.leading(), Some([5, 7, 25 | 511 | 513 | 606..=649 | 708]))
    }

    /// The enhanced code; or what the words begin with, as "550 5.7.515: Access denied" has it.
    fn leading(&self) -> Option<[u16; 3]> {
        let in_text = || Status::leading(&self.text).map(|(status, _)| status.parts());
        self.enhanced().or_else(in_text)
    }

    /// "554 5.7.1 [192.0.2.1] blacklisted", "550 192.0.2.1 is listed at a.test": a host's address stands on somebody's list.
    pub fn lists_an_address(&self) -> bool {
        let bare = |word: &str| word.trim_matches(|c: char| !c.is_ascii_hexdigit()).parse::<IpAddr>().is_ok();
        let list = speaks_of_a_blocklist(&own_words(&self.text)) || self.has(" listed");
        list && self.text.split_ascii_whitespace().any(bare)
    }

    /// What a message has in it: an address that is listed may stand there, and is not the client's.
    pub fn in_content(&self) -> bool {
        self.word(|word| {
            matches!(
                word,
                "url"
                    | "urls"
                    | "uri"
                    | "uris"
                    | "link"
                    | "links"
                    | "content"
                    | "contains"
                    | "body"
                    | "attachment"
                    | "surbl"
                    | "uribl"
            )
        })
    }

    /// Puts a recipient off for now: RFC 3463's x.1.y and x.2.y, and greylisting, which asks each to be tried again.
    pub fn passing_of_recipient(&self) -> bool {
        let told = match self.enhanced() {
            Some([4, 1, detail]) => !matches!(detail, 7 | 8),
            Some([4, 2, _]) => !self.quota() && !self.says(About::Limit),
            _ => false,
        };
        !self.lasting() && (told || self.has("greylist") || self.has("graylist"))
    }

    /// About the server's state and no sender, at MAIL (RFC 3463's x.3.y, RFC 7504's 521): whoever mails, it takes nothing.
    /// Some say 5.3.0 of a sender whom they refuse, and name it.
    pub fn system_at_mail(&self) -> bool {
        match (self.code(), self.enhanced()) {
            (_, Some([_, 1, _])) => false,
            (521, _) => true,
            (_, Some([_, 3, detail])) => detail != 4 && !self.has("sender") && !self.has("@"),
            _ => false,
        }
    }

    /// 4.6.x: the content, for now.
    pub fn content(&self) -> bool {
        matches!(self.enhanced(), Some([4, 6, _]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_among_a_hosts_own_words() {
        for (text, own) in [
            ("550 5.1.1 <policy@spamhaus.example>: no such user", "550 5.1.1 : no such user"),
            ("550 no such user dnsbl@x.example", "550 no such user"),
            ("550 <\"on a blocklist\"@x.example> unknown", "550 unknown"),
            ("550 rcpt=<a@b>,\r\n550 not here", "550 rcpt= , 550 not here"),
            ("550 <unknown[192.0.2.1]>: blocked", "550 unknown[192.0.2.1]>: blocked"),
            ("550 a < b", "550 a b"),
            ("<", ""),
        ] {
            assert_eq!(own_words(text), own, "{text}");
        }
    }

    #[test]
    fn an_address_with_a_blocklists_name_lists_no_host() {
        let lists = |text: &str| {
            let answer = Answer { code: 554, enhanced: None, text: text.into() };
            Words::of(&answer).lists_an_address()
        };
        assert!(lists("[192.0.2.1] is on the spamhaus list"));
        assert!(!lists("[192.0.2.1] says: no <a@spamhaus.example> here"));
    }
}
