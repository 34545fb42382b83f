//! Every reply the server gives: code, enhanced code (RFC 3463) and a text that tells the app's owner what to do.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::mail::quota::Rate;

/// RFC 5321 section 4.5.3.1.5: a reply line is at most 512 octets with its CRLF.
const LINE_OCTETS_MAX: usize = 510;

/// One reply. Its texts are ours, or cleaned of control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// RFC 3463; its class digit equals the code's (RFC 2034 section 4).
    pub enhanced: Option<(u8, u16, u16)>,
    /// Without codes; one or more lines.
    pub text: Cow<'static, str>,
    /// The connection ends after it.
    pub close: bool,
}

impl Reply {
    /// A reply with an enhanced code.
    pub const fn new(code: u16, enhanced: (u8, u16, u16), text: &'static str) -> Self {
        Reply { code, enhanced: Some(enhanced), text: Cow::Borrowed(text), close: false }
    }

    /// A reply whose text names something of the client's; control characters in it become `?`.
    pub fn told(code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        if text.chars().any(|c| c.is_control() && c != '\n') {
            text = text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect();
        }
        Reply { code, enhanced: Some(enhanced), text: Cow::Owned(text), close: false }
    }

    /// The same, and the connection ends after it.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// 2xx or 3xx.
    pub fn positive(&self) -> bool {
        self.code < 400
    }

    /// As it goes over the wire.
    pub fn wire(&self) -> String {
        let mut out = String::with_capacity(self.text.len() + 16);
        self.write(&mut out);
        out
    }

    /// Appends it as it goes over the wire.
    pub fn write(&self, out: &mut String) {
        let mut lines = self.text.lines().peekable();
        if lines.peek().is_none() {
            self.line(out, "", true);
        }
        while let Some(line) = lines.next() {
            self.line(out, line, lines.peek().is_none());
        }
    }

    fn line(&self, out: &mut String, text: &str, last: bool) {
        let start = out.len();
        let _ = write!(out, "{}{}", self.code, if last { ' ' } else { '-' });
        if let Some((a, b, c)) = self.enhanced {
            let _ = write!(out, "{a}.{b}.{c} ");
        }
        let mut end = text.len().min((start + LINE_OCTETS_MAX).saturating_sub(out.len()));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        out.push_str(&text[..end]);
        out.push_str("\r\n");
    }
}

/// A reply without an enhanced code: 220, 250 to a greeting, 334, 354 (RFC 2034 section 4).
pub(super) const fn plain(code: u16, text: Cow<'static, str>) -> Reply {
    Reply { code, enhanced: None, text, close: false }
}

/// The same as [`Reply::new`], closing.
const fn last(code: u16, enhanced: (u8, u16, u16), text: &'static str) -> Reply {
    Reply { code, enhanced: Some(enhanced), text: Cow::Borrowed(text), close: true }
}

// What goes well.

/// QUIT.
pub const BYE: Reply = last(221, (2, 0, 0), "closing the connection");
/// STARTTLS.
pub const TLS_READY: Reply = Reply::new(220, (2, 0, 0), "ready to start TLS");
/// RSET.
pub const FLUSHED: Reply = Reply::new(250, (2, 0, 0), "forgotten; send MAIL FROM for a new message");
/// NOOP.
pub const FINE: Reply = Reply::new(250, (2, 0, 0), "ok");
/// MAIL, where nobody else decided.
pub const SENDER_OK: Reply = Reply::new(250, (2, 1, 0), "sender ok");
/// RCPT of a recipient that is in the envelope already.
pub const RECIPIENT_KNOWN: Reply = Reply::new(250, (2, 1, 5), "recipient ok: named before, gets one copy");
/// DATA.
pub const GO_AHEAD: Reply = plain(354, Cow::Borrowed("end the message with a dot on a line of its own"));
/// AUTH.
pub const LOGGED_IN: Reply = Reply::new(235, (2, 7, 0), "authenticated");
/// VRFY.
pub const CANNOT_VERIFY: Reply =
    Reply::new(252, (2, 5, 0), "not verified; send RCPT TO and its reply tells whether mail is taken");
/// What HELP lists everywhere.
pub const VERBS: &str = "EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP";

// What the line or the grammar is wrong about.

/// LF without CR before it, in a command.
pub const COMMAND_BARE_LF: Reply = Reply::new(
    500,
    (5, 5, 2),
    "bare LF in a command: not executed. End each line with CR LF (RFC 5321 section 2.3.8)",
);
/// CR without LF after it, or NUL, in a command.
pub const COMMAND_STRAY: Reply = Reply::new(
    500,
    (5, 5, 2),
    "bare CR or NUL in a command: not executed. End each line with CR LF and send no NUL",
);
/// RFC 4954 section 4, and RFC 5321 section 4.5.3.1.4.
pub const LINE_TOO_LONG: Reply = Reply::new(
    500,
    (5, 5, 6),
    "line too long: not executed. Keep commands under 4096 octets, AUTH under 12288",
);
/// A line that would not end.
pub const LINE_ENDLESS: Reply = last(500, (5, 5, 6), "line too long to skip; is this client speaking SMTP?");
/// An empty line.
pub const EMPTY_LINE: Reply = Reply::new(500, (5, 5, 2), "empty line; send a command such as EHLO");
/// A blank where the verb should be.
pub const LEADING_BLANK: Reply =
    Reply::new(500, (5, 5, 2), "the line begins with a blank; a command begins with its first letter");
/// No verb of ours.
pub const UNKNOWN_VERB: Reply = Reply::new(500, (5, 5, 1), "command unknown; HELP lists the commands");
/// A verb of SMTP that is not offered here.
pub const NOT_OFFERED: Reply =
    Reply::new(502, (5, 5, 1), "command not offered here; use the extensions that EHLO lists");
/// EXPN.
pub const NO_EXPN: Reply = Reply::new(502, (5, 5, 1), "EXPN is not offered: there are no mailing lists here");
/// BDAT: RFC 3030; its octets are eaten.
pub const NO_BDAT: Reply =
    Reply::new(502, (5, 5, 1), "BDAT is not offered, its octets were skipped; use DATA");
/// AUTH where it is off.
pub const NO_AUTH: Reply =
    Reply::new(502, (5, 5, 1), "AUTH is off on this listener; send without it, or set auth = \"optional\"");
/// STARTTLS where it is off.
pub const NO_TLS: Reply = Reply::new(
    502,
    (5, 5, 1),
    "STARTTLS is off on this listener; send without it, or set tls and a certificate",
);
/// A browser, or something made to speak through one.
pub const HTTP: Reply = last(502, (5, 5, 1), "this is SMTP, not HTTP; the HTTP port is another");
/// A TLS handshake where plain text is spoken.
pub const TLS_ON_PLAIN: Reply = last(
    554,
    (5, 5, 0),
    "TLS from the first octet is not spoken here; connect in plain (with STARTTLS if offered) or set tls = \"implicit\"",
);
/// A command with an argument too many.
pub const NO_ARGUMENT: Reply = Reply::new(501, (5, 5, 4), "this command takes no argument");
/// EHLO, HELO without a name.
pub const NO_NAME: Reply = Reply::new(501, (5, 5, 4), "name missing; send EHLO and the client's host name");
/// BDAT 0x10.
pub const BAD_BDAT: Reply =
    Reply::new(501, (5, 5, 4), "BDAT needs a number of octets and is not offered; use DATA");
/// `MAIL` without `FROM:`.
pub const BAD_MAIL: Reply = Reply::new(501, (5, 5, 4), "write MAIL FROM:<name@domain>");
/// `RCPT` without `TO:`.
pub const BAD_RCPT: Reply = Reply::new(501, (5, 5, 4), "write RCPT TO:<name@domain>");
/// An argument that is not UTF-8.
pub const NOT_UTF8: Reply =
    Reply::new(501, (5, 5, 2), "octets that are not UTF-8 in an address; send ASCII, or UTF-8 with SMTPUTF8");
/// A parameter given twice.
pub const PARAMETER_TWICE: Reply = Reply::new(501, (5, 5, 4), "a parameter is given twice; give it once");
/// `SIZE=x`
pub const BAD_SIZE: Reply = Reply::new(501, (5, 5, 4), "SIZE takes a number of octets, such as SIZE=2048");
/// `BODY=x`
pub const BAD_BODY: Reply = Reply::new(501, (5, 5, 4), "BODY takes 7BIT or 8BITMIME");
/// RET, ENVID, NOTIFY or ORCPT where DSN is not offered.
pub const NO_DSN: Reply =
    Reply::new(555, (5, 5, 4), "reports (DSN) are not offered here; leave out RET, ENVID, NOTIFY and ORCPT");
/// `RET=x`
pub const BAD_RET: Reply = Reply::new(501, (5, 5, 4), "RET takes FULL or HDRS");
/// `ENVID=`
pub const BAD_ENVID: Reply = Reply::new(
    501,
    (5, 5, 4),
    "ENVID takes at most 100 characters of xtext (RFC 3461) for printable ASCII, such as ENVID=QQ314159",
);
/// `NOTIFY=x`
pub const BAD_NOTIFY: Reply =
    Reply::new(501, (5, 5, 4), "NOTIFY takes NEVER alone, or any of SUCCESS,FAILURE,DELAY");
/// `ORCPT=x`
pub const BAD_ORCPT: Reply = Reply::new(
    501,
    (5, 5, 4),
    "ORCPT takes a type, a semicolon and xtext (RFC 3461) without control characters, such as ORCPT=rfc822;name@domain",
);
/// `SMTPUTF8=x`
pub const BAD_UTF8: Reply = Reply::new(501, (5, 5, 4), "SMTPUTF8 takes no value");
/// `AUTH` or `AUTH=` of MAIL.
pub const BAD_AUTH_PARAMETER: Reply = Reply::new(
    501,
    (5, 5, 4),
    "AUTH of MAIL takes a value, AUTH=<> or AUTH=name@domain; to log in send the command AUTH before MAIL",
);

// What comes at the wrong time.

/// A command before the greeting.
pub const HELLO_FIRST: Reply = Reply::new(503, (5, 5, 1), "send EHLO first");
/// MAIL twice.
pub const MAIL_TWICE: Reply =
    Reply::new(503, (5, 5, 1), "a message is already begun; go on with RCPT TO, or send RSET");
/// RCPT or DATA without MAIL.
pub const MAIL_FIRST: Reply = Reply::new(503, (5, 5, 1), "send MAIL FROM first");
/// DATA without an accepted recipient.
pub const NO_RECIPIENT: Reply =
    Reply::new(503, (5, 5, 1), "no recipient was accepted; see the replies to RCPT TO");
/// A second AUTH.
pub const AUTH_TWICE: Reply = Reply::new(503, (5, 5, 1), "already authenticated; go on with MAIL FROM");
/// AUTH between MAIL and the end of DATA.
pub const AUTH_IN_MAIL: Reply =
    Reply::new(503, (5, 5, 1), "AUTH comes before MAIL FROM; send RSET, then AUTH");
/// A second STARTTLS.
pub const TLS_TWICE: Reply = Reply::new(503, (5, 5, 1), "TLS is already on");
/// CVE-2011-0411: something was sent behind STARTTLS without waiting for the reply.
pub const TLS_INJECTION: Reply =
    last(554, (5, 5, 0), "data after STARTTLS before TLS began: refused. Wait for the 220, then start TLS");

// Who may, and what.

/// No AUTH, not in `allow`.
pub const RELAY_DENIED: Reply = Reply::new(
    550,
    (5, 7, 1),
    "relay access denied: authenticate, or have this client's address put into the listener's allow",
);
/// `auth = "required"`
pub const AUTH_REQUIRED: Reply =
    Reply::new(530, (5, 7, 0), "authentication required: send AUTH before MAIL FROM");
/// `auth = "required"`, and AUTH only under TLS.
pub const TLS_THEN_AUTH: Reply =
    Reply::new(530, (5, 7, 0), "authentication required: send STARTTLS, then AUTH, before MAIL FROM");
/// AUTH without TLS.
pub const AUTH_NEEDS_TLS: Reply = Reply::new(
    538,
    (5, 7, 11),
    "AUTH needs TLS here; send STARTTLS first, or use the listener with implicit TLS",
);
/// Unknown user and wrong password alike.
pub const LOGIN_FOR_ANOTHER: Reply =
    Reply::new(535, (5, 7, 8), "nobody logs in for another here; leave the authorization identity empty");
/// Unknown user or wrong password.
pub const LOGIN_WRONG: Reply = Reply::new(
    535,
    (5, 7, 8),
    "user name or password wrong; compare them with the [[credential]] of the relay",
);
/// The third wrong one.
pub const LOGIN_WRONG_LAST: Reply = last(
    535,
    (5, 7, 8),
    "user name or password wrong, too often; compare them with the [[credential]] and connect again",
);
/// Too many from this address.
pub const LOGIN_LIMITED: Reply = last(
    454,
    (4, 7, 0),
    "too many failed logins from this address; correct the password and try again in ten minutes",
);
/// The verifier failed.
pub const LOGIN_UNDECIDED: Reply =
    Reply::new(454, (4, 7, 0), "the password cannot be checked now; try again, and see the relay's log");
/// `*`
pub const LOGIN_CANCELLED: Reply = Reply::new(501, (5, 7, 0), "authentication cancelled");
/// Not base64.
pub const BAD_BASE64: Reply =
    Reply::new(501, (5, 5, 2), "not base64; send the response in base64, or * to cancel");
/// PLAIN without its two NULs.
pub const BAD_PLAIN: Reply =
    Reply::new(501, (5, 5, 2), "PLAIN takes base64 of NUL, user name, NUL, password");
/// CRAM-MD5 and others.
pub const NO_MECHANISM: Reply =
    Reply::new(504, (5, 5, 4), "mechanism not offered; use AUTH PLAIN or AUTH LOGIN");
/// AUTH alone.
pub const AUTH_HOW: Reply = Reply::new(501, (5, 5, 4), "write AUTH PLAIN or AUTH LOGIN");

// Addresses.

/// `RCPT TO:<>`
pub const NULL_RECIPIENT: Reply =
    Reply::new(501, (5, 1, 3), "a recipient is missing; write RCPT TO:<name@domain>");
/// `RCPT TO:<root>`
pub const BARE_RECIPIENT: Reply =
    Reply::new(553, (5, 1, 3), "the recipient has no domain; write name@domain");
/// RFC 6531 section 3.5.
pub const NEEDS_SMTPUTF8: Reply = Reply::new(
    553,
    (5, 6, 7),
    "a non-ASCII address needs the SMTPUTF8 parameter on MAIL FROM; a domain alone may be written as its A-label (xn--)",
);
/// RFC 6533 section 3: as it is under SMTPUTF8 only.
pub const ORCPT_NEEDS_SMTPUTF8: Reply = Reply::new(
    501,
    (5, 5, 4),
    "ORCPT beyond ASCII needs the SMTPUTF8 parameter on MAIL FROM; without it write xtext, such as utf-8;j\\x{F6}rg@domain",
);

// Limits.

/// RFC 1870, at MAIL and at the end of DATA.
pub const TOO_LARGE: Reply = Reply::new(
    552,
    (5, 3, 4),
    "message larger than the SIZE that EHLO tells; send less, or raise the listener's max_message_size",
);
/// STANDARDS 1.6: more octets behind the limit than are eaten, or for longer.
pub const ENDLESS: Reply = last(
    552,
    (5, 3, 4),
    "message far larger than the SIZE that EHLO tells, and no end of it: cut off; send less",
);
/// STANDARDS 1.6.
pub const HEADERS_TOO_LARGE: Reply = Reply::new(
    552,
    (5, 3, 4),
    "the header block is larger than 256 KiB; is the blank line after it missing?",
);
/// RFC 5321 section 4.5.3.1.10.
pub const TOO_MANY_RECIPIENTS: Reply =
    Reply::new(452, (4, 5, 3), "too many recipients; send the rest with another message");
/// More recipients than a login's rate lets through at once: one message would use up hours of it.
pub fn too_many_for_rate(rate: Rate) -> Reply {
    let most = rate.most_at_once();
    let text = format!(
        "too many recipients for one message of this user: the rate of {} in {} s allows {most}; send the rest with \
         another message",
        rate.recipients,
        rate.per.as_secs()
    );
    Reply::told(452, (4, 5, 3), text)
}
/// RCPT without end in one transaction.
pub const TOO_MANY_RCPT_COMMANDS: Reply =
    Reply::new(452, (4, 5, 3), "too many RCPT commands for one message; go on with DATA or RSET");
/// No memory for messages in flight.
pub const NO_MEMORY: Reply =
    Reply::new(452, (4, 3, 1), "no memory for this message now; try again later, or raise [limits] memory");
/// No memory for one more recipient.
pub const NO_MEMORY_FOR_RECIPIENT: Reply =
    Reply::new(452, (4, 3, 1), "no memory for this recipient now; try again later, or raise [limits] memory");
/// RFC 5321 section 6.3.
pub const LOOP: Reply = Reply::new(
    554,
    (5, 4, 6),
    "more than 50 Received fields: a mail loop. See whether an ESP or server routes this mail back here",
);
/// STANDARDS 1.4.
pub const CONTENT_BARE_LF: Reply = Reply::new(
    550,
    (5, 6, 11),
    "bare LF in the message: end each line with CR LF, or set the listener's bare_newline = \"normalize\"",
);
/// STANDARDS 1.4.
pub const CONTENT_BARE_CR: Reply = Reply::new(
    550,
    (5, 6, 11),
    "bare CR in the message: end each line with CR LF, or set the listener's bare_newline = \"normalize\"",
);
/// RFC 5321 section 4.5.2, RFC 5322 section 4.
pub const CONTENT_NUL: Reply =
    Reply::new(554, (5, 6, 0), "NUL in the message; encode binary parts in base64 (RFC 2045)");
/// The answer of the relay's other parts did not come.
pub const UNDECIDED: Reply = Reply::new(451, (4, 3, 0), "cannot decide now; try again later");

// The end of a connection.

/// `max_errors`
pub const TOO_MANY_ERRORS: Reply =
    last(421, (4, 7, 0), "too many errors on this connection; see the replies before this one");
/// Commands that lead to no message.
pub const TOO_MUCH_JUNK: Reply = last(
    421,
    (4, 7, 0),
    "too many commands without a message; close a connection that has nothing to send, and connect again for mail",
);
/// Transactions of one connection.
pub const TOO_MANY_MESSAGES: Reply = last(421, (4, 7, 0), "enough messages on one connection; connect again");
/// `idle_timeout`
pub const IDLE: Reply = last(421, (4, 4, 2), "time-out waiting for a command; connect again to send");
/// A sender under the lowest data rate.
pub const SLOW: Reply = last(421, (4, 4, 2), "time-out: the message comes too slowly; send it again");
/// The cap of a whole session.
pub const SESSION_OVER: Reply = last(421, (4, 4, 2), "the session lasted too long; connect again");
/// Room for another client.
pub const MADE_ROOM: Reply =
    last(421, (4, 3, 2), "idle, and the room is needed by another client; connect again");
/// No room, and nobody idle.
pub const FULL: Reply =
    last(421, (4, 3, 2), "too many connections; try again later, or raise the listener's max_connections");
/// `max_connections_per_address`
pub const FULL_FOR_ADDRESS: Reply = last(
    421,
    (4, 7, 0),
    "too many connections from this address; reuse them, or raise the listener's max_connections_per_address",
);
/// A graceful stop.
pub const STOPPING: Reply = last(421, (4, 3, 2), "the relay is stopping; try again in a moment");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_bounded() {
        let r = Reply::told(550, (5, 1, 1), format!("one\ntwo {}", "é".repeat(400)));
        let wire = r.wire();
        let lines: Vec<_> = wire.split_inclusive("\r\n").collect();
        assert_eq!(lines[0], "550-5.1.1 one\r\n");
        assert!(lines[1].starts_with("550 5.1.1 two é"));
        assert!(lines.iter().all(|l| l.len() <= 512));
    }

    #[test]
    fn nothing_of_the_client_s_ends_a_line() {
        assert_eq!(Reply::told(501, (5, 5, 4), "a\r250 ok\0").wire(), "501 5.5.4 a?250 ok?\r\n");
    }
}
