//! The message as `sendmail` gets it on standard input: its end, its line ends, its recipients, and what is added to it
//! and taken out before the relay sees it.

use std::io::{self, BufRead, Read as _};

use mail_parser::{Addr, HeaderValue, MessageParser};

use crate::mail::headers::{Fields, Head, Separator};
use crate::mail::mailboxes::{Mailbox, mailboxes};

/// More is not read: no relay takes it.
pub(super) const OCTETS_MAX: usize = 256 * 1024 * 1024;

/// Fields that name recipients, and their counterparts in a message that is sent on (RFC 5322 section 3.6.6).
const NAMED: [&str; 3] = ["To", "Cc", "Bcc"];
const RESENT: [&str; 3] = ["Resent-To", "Resent-Cc", "Resent-Bcc"];

/// Reads to the end of input or, where it `ends_at_dot`, to a line that holds a dot alone. Every line ends in CRLF then,
/// whatever it ended in. Of input that has more than [`OCTETS_MAX`] no more is read, however long its lines are.
pub(super) fn read(input: &mut impl BufRead, ends_at_dot: bool) -> io::Result<Vec<u8>> {
    read_up_to(OCTETS_MAX, input, ends_at_dot)
}

fn read_up_to(octets_max: usize, input: &mut impl BufRead, ends_at_dot: bool) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let start = text.len();
        // One more than may be: else a message of just so many would seem too large.
        let room = (octets_max - start) as u64 + 1;
        if input.take(room).read_until(b'\n', &mut text)? == 0 {
            return Ok(text);
        }
        for end in [b'\n', b'\r'] {
            if text.len() > start && text.ends_with(&[end]) {
                text.pop();
            }
        }
        if ends_at_dot && &text[start..] == b"." {
            text.truncate(start);
            return Ok(text);
        }
        text.extend_from_slice(b"\r\n");
        if text.len() > octets_max {
            let said = format!("it has over {octets_max} octets");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, said));
        }
    }
}

/// The addresses in To, Cc and Bcc; in those of the latest sending on, where it was sent on.
pub(super) fn recipients(message: &[u8]) -> Vec<String> {
    let resent = fields(message).any(|field| RESENT.iter().any(|name| field.is(name)));
    let names = if resent { RESENT } else { NAMED };
    let mut found = Vec::new();
    for field in fields(message).filter(|field| names.iter().any(|name| field.is(name))) {
        // Under a name that the parser reads as a list of addresses.
        let block = [b"To:", field.value(), b"\r\n"].concat();
        let Some(parsed) = MessageParser::new().parse_headers(&block) else { continue };
        let Some(HeaderValue::Address(list)) = parsed.header("To") else { continue };
        let written = written(field.value(), list.iter().count());
        let named = |(n, one)| Some(quoted(of(one)?, written.get(n).copied()));
        found.extend(list.iter().enumerate().filter_map(named).map(str::to_owned));
    }
    found
}

/// The addresses as they are written, where there are as many as the parser found.
fn written(value: &[u8], count: usize) -> Vec<&str> {
    let text = |mailbox| match mailbox {
        Mailbox::Address(span) | Mailbox::Bare(span) => std::str::from_utf8(&value[span]).ok(),
        Mailbox::Odd => None,
    };
    let written: Option<Vec<&str>> = mailboxes(value).into_iter().map(text).collect();
    written.filter(|written| written.len() == count).unwrap_or_default()
}

/// The parser takes the local part of `"a b"@x.example` for a name, and `@x.example` for the address.
fn quoted<'a>(parsed: &'a str, written: Option<&'a str>) -> &'a str {
    let whole = written.filter(|written| written.starts_with('"') && written.ends_with(parsed));
    whole.filter(|_| parsed.starts_with('@')).unwrap_or(parsed)
}

/// The parser takes a bare name (`root`) for a name without an address.
fn of<'a>(one: &'a Addr<'_>) -> Option<&'a str> {
    one.address().or_else(|| one.name().filter(|name| !name.contains(char::is_whitespace)))
}

/// `Date` and `Message-ID` where they are missing, whole lines; not where a signature says that there are none.
pub(super) fn identity(message: &[u8], date: &str, id: &str) -> String {
    let head = Head::read(message, "");
    let date = if head.date_settled { String::new() } else { format!("Date: {date}\r\n") };
    let id = if head.message_id_settled { String::new() } else { format!("Message-ID: <{id}>\r\n") };
    date + &id
}

/// Without the fields that name blind recipients, and with a From on top where there is none. `also` stands there too.
pub(super) fn edited(message: &[u8], without_bcc: bool, from: &str, also: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + from.len() + also.len() + 16);
    out.extend_from_slice(&message[..mailbox_line(message)]);
    out.extend_from_slice(also.as_bytes());
    if !fields(message).any(|field| field.is("From") || field.is("Resent-From")) {
        out.extend_from_slice(format!("From: {from}\r\n").as_bytes());
    }
    let mut all = fields(message);
    for field in all.by_ref() {
        if !(without_bcc && (field.is("Bcc") || field.is("Resent-Bcc"))) {
            out.extend_from_slice(field.raw);
        }
    }
    let end = all.end();
    if end.separator == Separator::Missing {
        // A text without a header block: what stands on top now needs an end.
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(&message[end.fields_end..]);
    out
}

/// The length of a mailbox line (`From x date`) on top.
fn mailbox_line(message: &[u8]) -> usize {
    let is_one = message.starts_with(b"From ") || message.starts_with(b">From ");
    if !is_one {
        return 0;
    }
    memchr::memchr(b'\n', message).map_or(message.len(), |at| at + 1)
}

fn fields(message: &[u8]) -> Fields<'_> {
    Fields::new(message, mailbox_line(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str, ends_at_dot: bool) -> String {
        String::from_utf8(read(&mut text.as_bytes(), ends_at_dot).unwrap()).unwrap()
    }

    #[test]
    fn lines_end_in_crlf_and_a_lone_dot_ends_it_where_it_may() {
        assert_eq!(read_all("a\nb\r\n\n.\nc", false), "a\r\nb\r\n\r\n.\r\nc\r\n");
        assert_eq!(read_all("a\n.\nc\n", true), "a\r\n");
        assert_eq!(read_all("a\n..\n. \n", true), "a\r\n..\r\n. \r\n");
        assert_eq!(read_all("", true), "");
    }

    #[test]
    fn no_more_is_read_than_may_be_however_long_a_line_is() {
        let read_ten = |text: &str| {
            let mut input = text.as_bytes();
            let read = read_up_to(10, &mut input, true).map_err(|error| error.kind());
            (read, input.len())
        };
        assert_eq!(read_ten("1234567\n."), (Ok(b"1234567\r\n".to_vec()), 0));
        assert_eq!(read_ten("12345678"), (Ok(b"12345678\r\n".to_vec()), 0));
        assert_eq!(read_ten("123456789"), (Err(io::ErrorKind::FileTooLarge), 0));
        assert_eq!(read_ten("1\n2\n3\n4\n5\n6\n"), (Err(io::ErrorKind::FileTooLarge), 4));
        assert_eq!(read_ten(&"x".repeat(1000)), (Err(io::ErrorKind::FileTooLarge), 989));
    }

    #[test]
    fn recipients_come_from_to_cc_and_bcc() {
        let message = b"To: Anna <a@x.example>, \"B, b\" <b@x.example>\r\nCC: root,\r\n c@x.example\r\nSubject: To: no@x\r\n\
                        Bcc: Team: d@x.example, e@x.example;\r\nTo: undisclosed-recipients:;\r\n\r\nTo: body@x.example\r\n";
        let all = ["a@x.example", "b@x.example", "root", "c@x.example", "d@x.example", "e@x.example"];
        assert_eq!(recipients(message), all);
        let quoted = b"To: \"a b\"@x.example, C <\"c,d\"@x.example>, \"E, f\" <e@x.example>\r\nCc: \"g\\\"h\"@x.example\r\n\r\n";
        let all = ["\"a b\"@x.example", "\"c,d\"@x.example", "e@x.example", "\"g\\\"h\"@x.example"];
        assert_eq!(recipients(quoted), all);
        let resent = b"Resent-To: new@x.example\r\nTo: old@x.example\r\n\r\n";
        assert_eq!(recipients(resent), ["new@x.example"]);
    }

    #[test]
    fn blind_recipients_are_taken_out_and_a_missing_from_is_added() {
        let text = |message: &[u8], without| String::from_utf8(edited(message, without, "w@h", "")).unwrap();
        assert_eq!(
            text(b"To: a@x\r\nBcc: b@x,\r\n c@x\r\nSubject: s\r\n\r\nBcc: text\r\n", true),
            "From: w@h\r\nTo: a@x\r\nSubject: s\r\n\r\nBcc: text\r\n"
        );
        let whole = b"From: me@x\r\nBcc: b@x\r\n\r\nx\r\n";
        assert_eq!(text(whole, false).as_bytes(), whole);
        assert_eq!(text(b"only text\r\n", true), "From: w@h\r\n\r\nonly text\r\n");
        assert_eq!(text(b"", true), "From: w@h\r\n");
        assert_eq!(
            text(b"From x Mon\r\nTo: a@x\r\n\r\n", true),
            "From x Mon\r\nFrom: w@h\r\nTo: a@x\r\n\r\n"
        );
    }

    #[test]
    fn what_names_a_message_is_added_where_it_is_missing_and_no_signature_minds() {
        let both = "Date: today\r\nMessage-ID: <1@h>\r\n";
        for (message, wanted) in [
            ("Subject: s\r\n\r\n", both),
            ("From x Mon\r\n\r\nDate: text\r\n", both),
            ("date: y\r\n\r\n", "Message-ID: <1@h>\r\n"),
            ("Message-Id: <x@y>\r\nDate: y\r\n\r\n", ""),
            ("DKIM-Signature: v=1; h=from:date:message-id; b=x\r\n\r\n", ""),
        ] {
            assert_eq!(identity(message.as_bytes(), "today", "1@h"), wanted, "{message}");
        }
        let named = edited(b"From x Mon\r\nFrom: a@x\r\n\r\n", true, "w@h", both);
        assert_eq!(String::from_utf8(named).unwrap(), format!("From x Mon\r\n{both}From: a@x\r\n\r\n"));
    }
}
