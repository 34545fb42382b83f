//! The phrases by which SMTP servers say what a code alone does not, and what each is about: one table, in the order in
//! which it counts. The first row that a refusal's words are in says whose fault it is, where `smtp::read` has found no
//! code that says more. In lower case; `'` and `"` as servers write them.

use super::words::Words;

/// What a phrase is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// Our right to send in this name: the sender's.
    SendAs,
    /// The sender's address or domain itself, as the envelope has it.
    Sender,
    /// What is asked of a client and not of a mail: the account's.
    Login,
    /// What the account has paid for.
    Credits,
    /// The account, which somebody has to activate or prove first.
    Activation,
    /// Our right to relay there: we are nobody to it. Not the whole account's fault, which may carry other domains.
    Relay,
    /// A command, and not what it named.
    Command,
    /// Our host, or its address.
    Host,
    /// The sending of the account, which is stopped.
    Sending,
    /// A transaction that is suspended, without a word of whose.
    Suspension,
    /// Connections at a time: the house is full.
    Place,
    /// How fast or how much we may send, also where it is said with a lasting code.
    Limit,
    /// Whom the mail is from, which is not set up there.
    Unverified,
    /// A recipient whom the host does not know.
    NoMailbox,
    /// What a message has in it, how large it is, or a rule of the host's: nothing of the recipient.
    Message,
}

/// The table. Rows up to [`About::Suspension`] are whole answers, see `stopped`; the others are asked for where
/// `smtp::read` says.
pub(super) const TABLE: [(About, &[&str]); 15] = [
    // "550 5.7.60 SMTP; Client does not have permissions to send as this sender" (Exchange), "554 5.2.252 SendAsDenied;
    // a@b not allowed to send as c@d" (Microsoft 365).
    (
        About::SendAs,
        &[
            "permissions to send as",
            "permission to send as",
            "allowed to send as",
            "authorized to send as",
            "permitted to send as",
            "sendasdenied",
        ],
    ),
    // Postfix says only at RCPT, or later, what it holds against MAIL (smtpd_delay_reject): "553 5.7.1 <a@b>: Sender
    // address rejected: not owned by user app". So do "550 Sender verify failed" (Exim), "554 5.1.0 Sender denied"
    // (Exchange), "553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)" (qmail).
    (
        About::Sender,
        &[
            "sender address rejected",
            "sender verify failed",
            "sender verification failed",
            "sender denied",
            "sender rejected",
            "sender refused",
            "sender is not allowed",
            "sender not authorized",
            "sender not authorised",
            "sender unknown",
            "sender invalid",
            "sender domain",
            "sender's domain",
            "unknown sender",
            "invalid sender",
            "bad sender",
            "unauthorized sender",
            "unauthorised sender",
            "badmailfrom",
            "spf check failed",
            "spf mail from check",
            "spf validation failed",
            "failed spf",
            "fails spf",
        ],
    ),
    // "550 5.7.1 Client was not authenticated" (Exchange), "550 Please turn on SMTP Authentication in your mail client"
    // (Exim), "550 Unauthenticated senders not allowed" (SendGrid), "554 Access denied: User is not authorized to perform
    // ses:SendRawEmail" (SES).
    (
        About::Login,
        &[
            "unauthenticated senders",
            "is not authorized to perform",
            "client was not authenticated",
            "authentication required",
            "authentication is required",
            "turn on smtp authentication",
            "must authenticate",
            "please authenticate",
        ],
    ),
    // "550 5.7.1 Maximum credits exceeded" (SendGrid), "451 not enough credits".
    (
        About::Credits,
        &[
            "credits exceeded",
            "credits are used up",
            "credits used up",
            "no credits",
            "out of credits",
            "not enough credits",
            "insufficient credits",
            "account quota",
            "quota for your account",
            "quota of your account",
            "your account has exceeded its quota",
            "your account is over quota",
        ],
    ),
    // "554 5.7.1 Please activate your account".
    (
        About::Activation,
        &[
            "activate your account",
            "activate your smtp account",
            "activation of your account",
            "free accounts",
            "trial account",
            "for test purposes only",
            "verify your account",
            "confirm your account",
        ],
    ),
    // "550 5.7.54 Unable to relay recipient in non-accepted domain" (Exchange), "554 5.7.1 <a@b>: Relay access denied"
    // (Postfix), "550 relay not permitted" (Exim), "553 sorry, that domain isn't in my list of allowed rcpthosts" (qmail).
    (
        About::Relay,
        &[
            "relay access denied",
            "relaying denied",
            "relaying is denied",
            "relay denied",
            "unable to relay",
            "cannot relay",
            "do not relay",
            "relay not permitted",
            "relaying not permitted",
            "relaying not allowed",
            "relaying is not allowed",
            "not permitted to relay",
            "relaying prohibited",
            "relaying disallowed",
            "invalid credentials for relay",
            "allowed rcpthosts",
        ],
    ),
    // RFC 5321 section 4.2.3 and how servers word it; what comes with other codes too.
    (
        About::Command,
        &[
            "command unrecognized",
            "unrecognized command",
            "command unrecognised",
            "unrecognised command",
            "unknown command",
            "command unknown",
            "command not recognized",
            "command not recognised",
            "command not implemented",
            "bad sequence of commands",
            "bad command sequence",
        ],
    ),
    // Postfix says at RCPT what it holds against who connects: "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected: Access
    // denied", "550 5.7.1 <c>: Helo command rejected: Host not found". Others: "550 5.7.1 Mail from your IP is blocked".
    // And see [`Words::lists_an_address`].
    (
        About::Host,
        &[
            "client host rejected",
            "client host [",
            "client [",
            "helo command rejected",
            "invalid helo",
            "bad helo",
            "helo name",
            "invalid ehlo",
            "tls required",
            "tls is required",
            "must issue a starttls",
            "starttls required",
            "starttls is required",
            "encryption required",
            "your ip",
            "unauthorized ip address",
            "unauthorised ip address",
            "the ip you're using",
            "banned sending ip",
            "banned sender[",
            "banned sender [",
            "network is on our block list",
            "(s3140)",
            "(s3150)",
        ],
    ),
    // "Sending suspended for this account", and other words that leave out whose it is.
    (
        About::Sending,
        &[
            "sending paused",
            "sending is paused",
            "sending has been paused",
            "sending suspended",
            "sending is suspended",
            "sending has been suspended",
            "sending disabled",
            "sending is disabled",
            "sending has been disabled",
            "unusual sending activity",
            "outboundspamexception",
            "your plan has been",
            "non-payment",
            "unpaid invoice",
        ],
    ),
    // "554 Transaction failed : suspended".
    (
        About::Suspension,
        &["transaction failed : suspended", "transaction failed: suspended", "transaction suspended"],
    ),
    // "421 4.7.0 Too many concurrent connections", "421 Too many concurrent SMTP connections" (SES), "421 4.3.2 The maximum
    // number of concurrent server connections has exceeded a limit" (Exchange), "421 Too many connections from your IP".
    (
        About::Place,
        &[
            "too many connections",
            "too many concurrent",
            "too many simultaneous",
            "too many open connections",
            "too many sessions",
            "concurrent connections",
            "concurrent server connections",
            "simultaneous connections",
            "number of connections",
            "connection limit",
            "connections limit",
            "max connections",
        ],
    ),
    // "554 Throttling failure: Maximum sending rate exceeded" (SES), "550 5.7.1 rate limit exceeded".
    (
        About::Limit,
        &[
            "submission quota",
            "submissionquotaexceeded",
            "emails per hour",
            "messages per hour",
            "emails per day",
            "messages per day",
            "defers and failures per hour",
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
        ],
    ),
    // SES: "554 Message rejected: Email address is not verified. The following identities failed the check"; SendGrid: "550
    // The from address does not match a verified Sender Identity".
    (
        About::Unverified,
        &[
            "is not verified",
            "domain not verified",
            "sender not verified",
            "verified sender identity",
            "sender not allowed",
            "not allowed to send",
            "unconfigured sending domain",
            "dmarc policy",
            "dmarc check",
            "dmarc evaluation",
            "dmarc verification",
            "failed dmarc",
            "fails dmarc",
        ],
    ),
    // "550 5.1.1 User unknown" (sendmail, Postfix), "550 No Such User Here" (cPanel), "sorry, no mailbox here by that name
    // (#5.1.1)" (vpopmail), "550 5.1.10 Recipient not found by SMTP address lookup" (Exchange).
    (
        About::NoMailbox,
        &[
            "no such user",
            "user unknown",
            "unknown user",
            "user is unknown",
            "user not known",
            "not a known user",
            "user not found",
            "user does not exist",
            "user doesn't exist",
            "user doesn't have a",
            "no such recipient",
            "recipient unknown",
            "unknown recipient",
            "recipient not found",
            "recipient does not exist",
            "recipient doesn't exist",
            "invalid recipient",
            "no such mailbox",
            "no mailbox here",
            "mailbox unknown",
            "unknown mailbox",
            "mailbox not found",
            "mailbox does not exist",
            "mailbox doesn't exist",
            "invalid mailbox",
            "no such address",
            "address unknown",
            "address does not exist",
            "address doesn't exist",
            "tried to reach does not exist",
            "no such account",
            "no such person",
            "unknown or illegal alias",
        ],
    ),
    // "552 Message size exceeds fixed limit" (sendmail), "550 5.3.0 Message rejected as spam by Content Filtering"
    // (Exchange), "554 Denied by policy".
    (
        About::Message,
        &[
            "spam",
            "policy",
            "policies",
            "reputation",
            "virus",
            "malware",
            "phishing",
            "unsolicited",
            "content",
            "attachment",
            "dmarc",
            "dkim",
            "mail blocked",
            "message blocked",
            "message has been blocked",
            "banned",
            "message size",
            "message too",
            "too large",
            "too big",
            "line too long",
            "syntax",
        ],
    ),
];

/// Whether one of the phrases about it stands in a text in lower case.
pub(super) fn says(text: &str, about: About) -> bool {
    let rows = TABLE.iter().filter(|(of, _)| *of == about);
    rows.flat_map(|(_, phrases)| *phrases).any(|phrase| text.contains(phrase))
}

impl Words<'_> {
    /// Whether one of the phrases about it stands there.
    pub fn says(&self, about: About) -> bool {
        says(&self.text, about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_row_once_and_its_phrases_as_they_are_looked_for() {
        for (n, (about, phrases)) in TABLE.iter().enumerate() {
            assert!(TABLE[..n].iter().all(|(other, _)| other != about), "{about:?} twice");
            for phrase in *phrases {
                assert_eq!(**phrase, phrase.to_ascii_lowercase(), "{about:?}");
            }
        }
    }
}
