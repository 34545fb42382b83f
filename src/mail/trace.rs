//! What the relay writes on top of a message: `Received`, and `Date` and `Message-ID` where they are missing.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::envelope::Envelope;
use super::headers::Head;
use super::id::MessageId;
use super::message::{Protocol, Source};
use crate::address::Address;
use crate::clock::Timestamp;

/// RFC 5322 section 2.1.1: a line should not be longer, without its CRLF.
const LINE_OCTETS_AIM: usize = 78;
/// RFC 5321 section 4.5.3.1.2: a HELO name is a domain.
const HELO_OCTETS_MAX: usize = 255;

/// What `Received` tells (RFC 5321 section 4.4).
#[derive(Debug, Clone, Copy)]
pub struct Trace<'a> {
    /// Who handed it in.
    pub source: &'a Source,
    /// Who gets it; named where it is one alone (RFC 5321 section 7.2).
    pub envelope: &'a Envelope,
    /// This relay's name.
    pub hostname: &'a str,
    /// What tells this relay from every other; a message that comes back with it goes round in a loop.
    pub token: &'a str,
    /// The message's name here.
    pub id: MessageId,
    /// When it was taken.
    pub at: Timestamp,
}

impl Trace<'_> {
    /// The fields to put on top of a message with such a head.
    pub fn fields(&self, head: &Head) -> String {
        let date = self.at.rfc5322();
        let mut out = String::with_capacity(512);
        self.received(&date, &mut out);
        if !head.date_settled {
            let _ = write!(out, "Date: {date}\r\n");
        }
        if !head.message_id_settled {
            let _ = write!(out, "Message-ID: <{}@{}>\r\n", self.id, self.hostname);
        }
        out
    }

    fn received(&self, date: &str, out: &mut String) {
        let _ = write!(out, "Received: from {} (", helo(&self.source.helo));
        let _ = match self.source.peer.to_canonical() {
            IpAddr::V4(peer) => write!(out, "[{peer}]"),
            IpAddr::V6(peer) => write!(out, "[IPv6:{peer}]"),
        };
        let _ = write!(out, ")\r\n\tby {} (Postroad/{})", self.hostname, self.token);
        let _ = write!(out, "\r\n\twith {} id {}", self.source.protocol.with(), self.id);
        // With several recipients the date has a line of its own, as it has where it would not fit.
        let mut date_on_line = false;
        if let Some(recipient) = self.recipient() {
            let clause = format!("for <{recipient}>");
            date_on_line = "\t".len() + clause.len() + "; ".len() + date.len() <= LINE_OCTETS_AIM;
            let _ = write!(out, "\r\n\t{clause}");
        }
        let _ = write!(out, ";{}{date}\r\n", if date_on_line { " " } else { "\r\n\t" });
    }

    /// The one recipient; its domain as A-labels, and 8-bit only where the client spoke SMTPUTF8.
    fn recipient(&self) -> Option<String> {
        let [only] = self.envelope.recipients.as_slice() else { return None };
        let utf8 =
            self.envelope.smtputf8 || matches!(self.source.protocol, Protocol::Esmtp { utf8: true, .. });
        Address::ascii_wire(only).or_else(|| utf8.then(|| only.wire().to_owned()))
    }
}

/// What the client called itself; `unknown` where it is no host name, as it could end the field or its comment.
fn helo(said: &str) -> &str {
    let harmless = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b':' | b'_' | b'-' | b'[' | b']');
    let is_name = !said.is_empty() && said.len() <= HELO_OCTETS_MAX && said.bytes().all(harmless);
    if is_name { said } else { "unknown" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Grammar;
    use crate::mail::{BodyKind, ReversePath};
    use proptest::prelude::*;

    fn traced(helo: &str, peer: &str, recipients: &[&str], utf8: bool, message: &[u8]) -> String {
        let source = Source {
            listener: "127.0.0.1:2525".to_owned(),
            peer: peer.parse().unwrap(),
            helo: helo.to_owned(),
            credential: None,
            protocol: Protocol::Esmtp { tls: true, auth: true, utf8 },
        };
        let recipients = recipients.iter().map(|r| Address::parse(r, Grammar::Lenient).unwrap()).collect();
        let envelope = Envelope {
            sender: ReversePath::Null,
            recipients,
            body: BodyKind::SevenBit,
            smtputf8: utf8,
            reports: None,
        };
        let trace = Trace {
            source: &source,
            envelope: &envelope,
            hostname: "relay.example.org",
            token: "postroad-00c0ffee",
            id: MessageId::from_number(1 << 60),
            at: Timestamp::from_millis(1_795_602_034_005),
        };
        trace.fields(&Head::read(message, trace.token))
    }

    #[test]
    fn received_names_who_where_how_and_for_whom() {
        let complete = b"Date: x\r\nMessage-Id: <a@b>\r\n\r\n";
        assert_eq!(
            traced("app.local", "::ffff:10.0.0.7", &["ok@example.com"], false, complete),
            "Received: from app.local ([10.0.0.7])\r\n\
             \tby relay.example.org (Postroad/postroad-00c0ffee)\r\n\
             \twith ESMTPSA id 1000000000000\r\n\
             \tfor <ok@example.com>; Wed, 25 Nov 2026 10:20:34 +0000\r\n"
        );
        let several = traced("[IPv6:::1]", "::1", &["a@x.org", "b@x.org"], false, complete);
        assert!(several.starts_with("Received: from [IPv6:::1] ([IPv6:::1])\r\n"));
        assert!(several.ends_with("1000000000000;\r\n\tWed, 25 Nov 2026 10:20:34 +0000\r\n"));
        let long =
            traced("a", "::1", &["a-name-of-some-length-for-one-mailbox@example.com"], false, complete);
        assert!(long.ends_with("@example.com>;\r\n\tWed, 25 Nov 2026 10:20:34 +0000\r\n"));
    }

    #[test]
    fn date_and_message_id_are_written_only_where_missing() {
        let both = traced("a", "::1", &["a@x.org"], false, b"Subject: s\r\n\r\nDate: body\r\n");
        assert!(both.ends_with(
            "Date: Wed, 25 Nov 2026 10:20:34 +0000\r\nMessage-ID: <1000000000000@relay.example.org>\r\n"
        ));
        let date = traced("a", "::1", &["a@x.org"], false, b"MESSAGE-ID : \r\n\r\n");
        assert!(date.contains("\r\nDate:") && !date.contains("Message-ID"));
    }

    #[test]
    fn what_a_signature_covers_as_missing_stays_missing() {
        let signed = |names: &str| format!("DKIM-Signature: v=1; h=from:\r\n\t{names}; b=x\r\n");
        let added = |head: &str| {
            let out = traced("a", "::1", &["a@x.org"], false, head.as_bytes());
            (out.contains("\r\nDate:"), out.contains("\r\nMessage-ID:"))
        };
        assert_eq!(added(&signed("to")), (true, true));
        assert_eq!(added(&signed("Date:date")), (false, true));
        assert_eq!(added(&signed("to : message-id")), (true, false));
        assert_eq!(added(&[signed("to"), signed("date"), signed("message-id")].concat()), (false, false));
    }

    #[test]
    fn the_recipient_is_eight_bit_only_where_nothing_else_can_name_it() {
        for (recipient, utf8, shown) in [
            ("ok@bücher.example", true, Some("for <ok@xn--bcher-kva.example>")),
            ("grüße@example.com", true, Some("for <grüße@example.com>")),
            ("grüße@example.com", false, None),
        ] {
            let out = traced("a", "::1", &[recipient], utf8, b"");
            assert_eq!(out.contains("for <"), shown.is_some());
            assert!(out.contains(shown.unwrap_or_default()));
        }
    }

    proptest! {
        #[test]
        fn nothing_a_client_says_ends_the_field(helo in "\\PC{0,40}|[ -~\\r\\n\\x00()]{0,300}", local in "[a-z]{1,100}") {
            let out = traced(&helo, "192.0.2.1", &[&format!("{local}@example.com")], false, b"");
            prop_assert!(out.is_ascii());
            for line in out.split_terminator("\r\n") {
                prop_assert!(line.len() <= 300 && !line.contains(['\r', '\n', '\0']));
                prop_assert!(line.starts_with('\t') || ["Received: ", "Date: ", "Message-ID: "].iter().any(|n| line.starts_with(n)));
            }
            prop_assert_eq!(out.matches('(').count(), 2);
            prop_assert_eq!(out.matches(')').count(), 2);
        }
    }
}
