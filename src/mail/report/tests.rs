//! Reports as two readers see them: ours by hand, and mail-parser.

use mail_parser::{MessageParser, MimeHeaders};
use proptest::prelude::*;

use super::*;
use crate::address::Grammar;
use crate::mail::{
    Body, BodyKind, Envelope, MessageId, Protocol, ReversePath, Source, StreamKind, StreamName,
};

const AT: Timestamp = Timestamp::from_millis(1_795_602_034_005);

fn address(text: &str) -> Address {
    Address::parse(text, Grammar::Lenient).unwrap()
}

fn message(content: impl Into<Vec<u8>>, asks: Option<Asks>) -> Message {
    Message {
        id: MessageId::from_number(1 << 60),
        envelope: Envelope {
            sender: ReversePath::Mailbox(address("app@example.org")),
            recipients: vec![address("a@example.com")],
            body: BodyKind::EightBit,
            smtputf8: false,
            reports: asks.map(Box::new),
        },
        stream: StreamName::new("transactional"),
        kind: StreamKind::Transactional,
        body: Body::whole(content.into()),
        accepted_at: AT,
        expires_at: AT.plus(std::time::Duration::from_secs(86_400)),
        tags: Vec::new(),
        metadata: Vec::new(),
        pin: None,
        source: Source {
            listener: "in".into(),
            peer: "127.0.0.1".parse().unwrap(),
            helo: "app".into(),
            credential: None,
            protocol: Protocol::Smtp,
        },
    }
}

fn fate<'a>(to: &'a Address, cause: Cause, said: &'a str) -> Fate<'a> {
    Fate {
        to,
        ask: None,
        cause,
        status: None,
        said,
        remote: Some("mx.example.net"),
        last_attempt_at: Some(AT),
        open: false,
    }
}

fn written(message: &Message, fates: Vec<Fate<'_>>) -> Vec<u8> {
    let to = address("app@example.org");
    let (from, hostname, id) = ("mailer-daemon@example.org", "relay.example.org", "1000000000001");
    Report { message, fates, to: &to, from, hostname, id, at: AT }.write()
}

fn lossy(report: &[u8]) -> String {
    String::from_utf8_lossy(report).replace("\r\n ", " ")
}

#[test]
fn a_report_has_words_a_status_and_the_header_block() {
    let message = message("Message-ID: <1@example.org>\r\nSubject: s\r\n\r\nbody\r\n", None);
    let to = address("gone@example.com");
    let report = written(&message, vec![fate(&to, Cause::Refused, "550 5.1.1 no such user")]);
    let read = MessageParser::default().parse(&report).unwrap();
    assert_eq!(read.subject(), Some("Your message could not be delivered"));
    assert_eq!(read.content_type().unwrap().attribute("report-type"), Some("delivery-status"));
    let types: Vec<_> = read
        .parts
        .iter()
        .filter_map(|part| part.content_type().map(|t| format!("{}/{}", t.ctype(), t.subtype().unwrap())))
        .collect();
    assert_eq!(types, ["multipart/report", "text/plain", "message/delivery-status", "text/rfc822-headers"]);
    let text = lossy(&report);
    for line in [
        "References: <1@example.org>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Reporting-MTA: dns; relay.example.org\r\n",
        "Final-Recipient: rfc822; gone@example.com\r\n",
        "Action: failed\r\n",
        "Status: 5.1.1\r\n",
        "Remote-MTA: dns; mx.example.net\r\n",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
        "Subject: s\r\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(!text.contains("body\r\n"), "the content does not come back unasked");
}

#[test]
fn a_report_says_that_an_attempt_without_an_answer_may_have_arrived() {
    let to = address("a@example.com");
    for open in [true, false] {
        let fate = Fate { open, ..fate(&to, Cause::Refused, "550 5.1.1 no such user") };
        let text = lossy(&written(&message("A: b\r\n\r\n", None), vec![fate]));
        assert!(text.contains("Action: failed\r\n"), "{text}");
        assert_eq!(text.contains("another attempt was lost: it may have arrived"), open, "{text}");
    }
}

#[test]
fn each_cause_has_its_action_and_its_status() {
    let to = address("a@example.com");
    for (cause, said, action, status) in [
        (Cause::Refused, "550 no", "failed", "5.0.0"),
        (Cause::Refused, "554 5.7.1 no", "failed", "5.7.1"),
        (Cause::Refused, "550 4.2.2 odd", "failed", "5.0.0"),
        (Cause::Expired, "451 4.3.0 later", "failed", "4.4.7"),
        (Cause::Expired, "", "failed", "4.4.7"),
        (Cause::Late, "451 4.3.0 later", "delayed", "4.3.0"),
        (Cause::Late, "", "delayed", "4.0.0"),
        (Cause::Relayed, "250 2.1.5 ok", "relayed", "2.1.5"),
        (Cause::Relayed, "250 ok", "relayed", "2.0.0"),
        (Cause::Suppressed, "complaint", "failed", "5.7.1"),
    ] {
        let status_known = Status::new(5, 7, 1).filter(|_| cause == Cause::Suppressed);
        let fate = Fate { status: status_known, ..fate(&to, cause, said) };
        let text = lossy(&written(&message("A: b\r\n\r\n", None), vec![fate]));
        assert!(text.contains(&format!("Action: {action}\r\nStatus: {status}\r\n")), "{said}: {text}");
        assert_eq!(text.contains("Will-Retry-Until:"), cause == Cause::Late);
    }
}

#[test]
fn what_was_never_tried_has_no_date_of_a_last_attempt() {
    let to = address("a@example.com");
    for last_attempt_at in [Some(AT), None] {
        let fate = Fate { last_attempt_at, ..fate(&to, Cause::Expired, "") };
        let text = lossy(&written(&message("A: b\r\n\r\n", None), vec![fate]));
        assert_eq!(text.contains("Last-Attempt-Date:"), last_attempt_at.is_some(), "{text}");
    }
}

#[test]
fn who_hears_of_what() {
    let only = |word: &str| Some(Notify::parse(word).unwrap());
    for (cause, unasked, word) in [
        (Cause::Refused, true, "FAILURE"),
        (Cause::Expired, true, "FAILURE"),
        (Cause::Suppressed, false, "FAILURE"),
        (Cause::Late, false, "DELAY"),
        (Cause::Relayed, false, "SUCCESS"),
    ] {
        assert_eq!(cause.wanted(None), unasked, "{cause:?}");
        for asked in ["NEVER", "FAILURE", "DELAY", "SUCCESS"] {
            assert_eq!(cause.wanted(only(asked)), asked == word, "{cause:?} {asked}");
        }
    }
}

#[test]
fn what_the_sender_called_them_comes_back() {
    let ask = Ask { notify: None, original: Some("rfc822;Old+2BName@example.com".into()) };
    let asks = Asks {
        ret: None,
        envelope_id: Some("QQ+20314159".into()),
        each: vec![ask.clone()],
        ..Asks::default()
    };
    let message = message("A: b\r\n\r\n", Some(asks));
    let to = address("a@example.com");
    let text =
        lossy(&written(&message, vec![Fate { ask: Some(&ask), ..fate(&to, Cause::Refused, "550 no") }]));
    assert!(text.contains("Original-Envelope-Id: QQ 314159\r\n"), "{text}");
    assert!(text.contains("Original-Recipient: rfc822; Old+Name@example.com\r\n"), "{text}");
}

#[test]
fn an_address_beyond_ascii_is_told_in_ascii() {
    assert_eq!(final_recipient(&address("gr\u{fc}n@example.com")), "utf-8; gr\\x{FC}n@example.com");
    assert_eq!(final_recipient(&address("a@b\u{fc}cher.example")), "rfc822; a@xn--bcher-kva.example");
    let to = address("gr\u{fc}n@example.com");
    let message = message("Subject: gr\u{fc}n\r\n\r\n".as_bytes(), None);
    let report = written(&message, vec![fate(&to, Cause::Refused, "550 nein, gr\u{fc}n")]);
    assert!(report.is_ascii());
    let read = MessageParser::default().parse(&report).unwrap();
    assert!(read.body_text(0).unwrap().contains("<gr\u{fc}n@example.com>"));
    let text = lossy(&report);
    assert!(text.contains("Diagnostic-Code: smtp; 550 nein, gr\\x{FC}n\r\n"), "{text}");
}

#[test]
fn the_whole_message_comes_back_where_that_was_asked_for() {
    let full = Asks { ret: Some(Return::Full), ..Asks::default() };
    let to = address("a@example.com");
    let whole = |cause, asks: &Asks, content: &str| {
        let message = message(content, Some(asks.clone()));
        lossy(&written(&message, vec![fate(&to, cause, "550 no")])).contains("the content")
    };
    assert!(whole(Cause::Refused, &full, "A: b\r\n\r\nthe content\r\n"));
    assert!(!whole(Cause::Late, &full, "A: b\r\n\r\nthe content\r\n"));
    assert!(!whole(Cause::Refused, &Asks::default(), "A: b\r\n\r\nthe content\r\n"));
}

proptest! {
    #[test]
    fn whatever_is_told_lines_are_short_and_plain(
        said in "\\PC{0,30}|[!-~]{0,3000}|([ -~]{0,40}\r\n){0,4}",
        head in "([A-Za-z-]{1,9}: [ -~\u{e9}]{0,60}\r\n){0,5}",
        pad in 0_usize..3000,
        original in "[!-*,-<>-~]{1,500}",
    ) {
        let to = address("gr\u{fc}n@example.com");
        let ask = Ask { notify: None, original: Some(format!("rfc822;{original}")) };
        let content = format!("{head}X-Pad: {}\r\n\r\nx\r\n", "p".repeat(pad));
        let message = message(content.into_bytes(), None);
        let fates = vec![Fate { ask: Some(&ask), ..fate(&to, Cause::Refused, &said) }];
        let report = written(&message, fates);
        prop_assert!(report.is_ascii());
        prop_assert!(report.split(|b| *b == b'\n').all(|line| line.len() <= LINE_OCTETS_MAX + 1));
        let stray = |pair: &[u8]| (pair[1] == b'\n') != (pair[0] == b'\r');
        prop_assert!(!report.windows(2).any(stray), "line ends are CRLF and nothing else");
        let read = MessageParser::default().parse(&report).unwrap();
        prop_assert_eq!(read.attachment_count(), 2);
    }
}
