//! What an SMTP server's reply says in words and enhanced codes where its code alone does not tell: of limits, sizes,
//! mailboxes, senders, the protocol.

use crate::mail::Answer;

/// A reply's text, looked at for what codes do not tell.
pub(super) struct Words {
    /// The reply's code.
    pub code: u16,
    enhanced: Option<[u8; 3]>,
    text: String,
}

impl Words {
    pub fn of(answer: &Answer) -> Self {
        Words { code: answer.code, enhanced: answer.enhanced, text: answer.text.to_ascii_lowercase() }
    }

    pub fn is(&self, code: u16, enhanced: [u8; 3]) -> bool {
        self.code == code && self.enhanced == Some(enhanced)
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

    /// How fast or how much we may send, also where it is said with a lasting code: "554 Throttling failure: Maximum sending
    /// rate exceeded" (SES), "550 5.7.1 rate limit exceeded". Not a mailbox's: "552 5.2.2 over quota", "450 4.2.1 The user
    /// you are trying to contact is receiving mail at a rate".
    pub fn limit_of_ours(&self) -> bool {
        const LIMITS: [&str; 15] = [
            "submission quota",
            "throttling failure",
            "sending rate",
            "sending limit",
            "sending quota",
            "rate limit",
            "rate-limit",
            "limit exceeded for your account",
            "exceeded your quota",
            "exceeded your limit",
            "exceeded the quota for your account",
            "too many messages",
            "too many emails",
            "too many connections",
            "too many concurrent",
        ];
        self.code >= 500 && LIMITS.iter().any(|phrase| self.has(phrase)) && !self.has("receiv")
    }

    /// About the server's own state (RFC 3463's x.3.y, but 5.3.4, the message's size; RFC 7504's 521), or about the protocol
    /// (x.5.y, but 5.5.3, too many recipients): not a word about a mail.
    pub fn system(&self) -> bool {
        match self.enhanced {
            Some([5, 3, detail]) => detail != 4,
            // 501 is about what a command named.
            Some([5, 5, detail]) => detail != 3 && self.code != 501,
            Some(_) => false,
            None => self.code == 521,
        }
    }

    /// RFC 3463: 5.3.4 too big for the system, 5.2.3 for the mailbox, 5.6.7 needs SMTPUTF8, 5.6.3 needs conversion.
    /// A bare 552 is about size; 552 5.7.0 (Google, for content) is not.
    pub fn does_not_fit(&self) -> bool {
        let told = matches!(self.enhanced, Some([5, 3, 4] | [5, 2, 3] | [5, 6, 7] | [5, 6, 3]));
        told || (self.code == 552 && self.enhanced.is_none())
    }

    /// About the message at a RCPT, where nothing of it is known but what MAIL told: its size, 8BITMIME, SMTPUTF8. 5.2.3
    /// is one mailbox's limit, and so is a size that the words say is a mailbox's.
    pub fn does_not_fit_at_rcpt(&self) -> bool {
        let size = ["size", "too big", "too large", "too long"].iter().any(|p| self.has(p));
        match self.enhanced {
            Some(told) => matches!(told, [5, 3, 4] | [5, 6, _]),
            None => self.code == 552 && size && !self.of_mailbox(),
        }
    }

    /// About the recipient: RFC 3463's class of it, x.2.y (its mailbox) and x.1.y (its address), or the word.
    pub fn of_mailbox(&self) -> bool {
        matches!(self.enhanced, Some([_, 1 | 2, _]))
            || ["mailbox", "recipient address", "receiv"].iter().any(|p| self.has(p))
    }

    /// About a command and not about what it named: unknown, not implemented, out of order (RFC 5321 section 4.2.2).
    pub fn protocol(&self) -> bool {
        matches!(self.code, 500 | 502..=504)
    }

    /// About the command and not about its sender (RFC 5321 section 4.2.2): unknown, not implemented, out of order, a
    /// parameter. A 501 is about either: 501 5.1.7 and the words tell.
    pub fn protocol_at_mail(&self) -> bool {
        let of_address = matches!(self.enhanced, Some([_, 1, _]));
        match self.code {
            _ if self.protocol() => !of_address,
            555 => !of_address,
            501 => !of_address && !self.has("sender") && !self.has("address"),
            _ => false,
        }
    }

    /// SES: "554 Message rejected: Email address is not verified. The following identities failed the check"; SendGrid:
    /// "550 The from address does not match a verified Sender Identity".
    pub fn sender_unknown(&self) -> bool {
        const UNKNOWN: [&str; 6] = [
            "is not verified",
            "domain not verified",
            "sender not verified",
            "verified sender identity",
            "sender not allowed",
            "not allowed to send",
        ];
        let told = matches!(self.enhanced, Some([5, 1, 7 | 8] | [5, 7, 26]));
        self.code >= 500 && (told || UNKNOWN.iter().any(|phrase| self.has(phrase)))
    }

    /// 4.6.x: the content, for now.
    pub fn content(&self) -> bool {
        matches!(self.enhanced, Some([4, 6, _]))
    }
}
