//! What the relay takes out, adds, re-encodes or refuses, and that nothing else changes.

use std::time::Duration;

use crate::support::mailgen::{assert_unchanged, head, split};
use crate::support::smtp::stuffed;
use crate::support::{Client, Relay, Upstream, wait_until};

/// The reply to a message with this content.
fn offer(client: &mut Client, raw: &[u8]) -> String {
    client.say("MAIL FROM:<a@example.org> BODY=8BITMIME").expect("250");
    client.say("RCPT TO:<ok@example.com>").expect("250");
    client.say("DATA").expect("354");
    client.raw(&stuffed(raw));
    let reply = client.reply();
    assert_eq!(reply.complaint(), None, "{}", reply.raw);
    reply.raw
}

#[test]
fn fields_that_must_not_pass_are_taken_out_and_missing_ones_added() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let sent = b"Return-Path: <x@example.org>\r\nBcc: hidden@example.net,\r\n also@example.net\r\nFrom: a@example.org\r\n\
        bCC: third@example.net\r\nResent-Bcc: r@example.net\r\nX-Postroad-Unknown-Word: v\r\nTo: ok@example.com\r\n\
        Subject: kept\r\n\r\nBcc: in the body stays\r\n";
    let raw = [sent.as_slice()].concat();
    let with_unknown = offer(&mut relay.client(), &raw);
    assert!(with_unknown.starts_with("250"), "{with_unknown}");
    let received = upstream.wait_for(1);
    assert_unchanged(&raw, &received[0].data);
    for secret in ["hidden@", "also@", "third@", "r@example.net", "X-Postroad", "Return-Path"] {
        assert!(!received[0].text().contains(secret), "{secret} left: {}", received[0].text());
    }
    let told = || relay.log().matches("this version has no such fields").count() == 1;
    wait_until("the log has a line for it", Duration::from_secs(10), told);
    assert!(received[0].header("Date").is_some_and(|d| d.ends_with("+0000")));
    assert!(received[0].header("Message-ID").is_some_and(|m| m.starts_with('<') && m.ends_with('>')));
}

#[test]
fn received_is_one_field_that_nothing_of_the_client_s_breaks() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let mut client = Client::connect(relay.smtp());
    client.expect("220");
    let hello = client.say("EHLO evil\t(comment)\x1b[31m<x>;by-me").reply();
    if hello.code == 250 {
        client.submit("a@example.org", &["ok@example.com"], format!("{}\r\nhi\r\n", head("trap")).as_bytes());
        let received = upstream.wait_for(1);
        let trace = received[0].header("Received").unwrap();
        assert!(!trace.contains('\x1b') && !trace.contains("(comment)"), "{trace}");
    }
}

#[test]
fn an_mbox_line_is_no_header_and_costs_none() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let raw = b"From cron Tue Nov 24 06:25 UTC 2026\r\nFrom: root@zone.example.org\r\nTo: ok@example.com\r\n\
        Subject: Cron <root@zone> run-parts\r\nAuto-Submitted: auto-generated\r\n\r\noutput\r\n";
    let reply = offer(&mut relay.client(), raw);
    assert!(reply.starts_with("250"), "{reply}");
    let got = upstream.wait_for(1).remove(0);
    assert_eq!(got.header("Subject").as_deref(), Some("Cron <root@zone> run-parts"));
    assert_eq!(got.header("To").as_deref(), Some("ok@example.com"));
    assert_eq!(got.header("X-Mailbox-Line").as_deref(), Some("From cron Tue Nov 24 06:25 UTC 2026"));
    assert!(!got.text().lines().any(|l| l.starts_with("From ") || l.starts_with(">From ")), "{}", got.text());
    assert_eq!(split(&got.data).1, b"\r\noutput\r\n");
}

#[test]
fn raw_eight_bit_in_a_header_passes_untouched() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let mut raw = b"From: a@example.org\r\nTo: ok@example.com\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\
        Message-ID: <8@example.org>\r\nSubject: K\xe1va a \xc4\x8daj\r\n\r\nDobr\xfd den\r\n"
        .to_vec();
    raw.extend_from_slice(b"caf\xe9\r\n");
    let reply = offer(&mut relay.client(), &raw);
    assert!(reply.starts_with("250"), "{reply}");
    assert_unchanged(&raw, &upstream.wait_for(1)[0].data);
}

#[test]
fn a_long_line_is_refused_where_the_mail_is_signed() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let long = "0123456789".repeat(120);
    let signed = [
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s1;\r\n h=from; bh=AA; b=BB\r\n{}\r\n{long}\r\n",
            head("l1")
        ),
        format!(
            "{}MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b;\r\n protocol=\"application/pgp-signature\"\r\n\r\n--b\r\n\r\n{long}\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--b--\r\n",
            head("l2")
        ),
    ];
    for raw in signed {
        let reply = offer(&mut relay.client(), raw.as_bytes());
        assert!(reply.starts_with("554 5.6.0"), "{reply}");
        assert!(reply.contains("998"), "the text names the limit: {reply}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_long_line_in_an_unsigned_text_becomes_quoted_printable_and_reads_the_same() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let long = "=gr\u{fc}n 0123456789".repeat(80);
    let raw = format!(
        "{}MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nshort\r\n{long}\r\nend \r\n",
        head("long")
    );
    let reply = offer(&mut relay.client(), raw.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let got = upstream.wait_for(1).remove(0);
    let encoding = got.header("Content-Transfer-Encoding").unwrap();
    assert!(encoding.eq_ignore_ascii_case("quoted-printable"), "{encoding}");
    assert!(got.data.split(|b| *b == b'\n').all(|l| l.len() <= 999));
    let parsed = mail_parser::MessageParser::default().parse(&got.data).unwrap();
    let text = parsed.body_text(0).unwrap().replace("\r\n", "\n");
    assert_eq!(text.trim_end_matches('\n'), format!("short\n{long}\nend "));
    assert_eq!(got.header("Message-ID").as_deref(), Some("<long@example.org>"));
}

#[test]
fn long_lines_are_refused_where_the_configuration_says_so() {
    let upstream = Upstream::start();
    let relay = Relay::setup().server("long_lines = \"refuse\"").upstream(&upstream, "").start();
    let raw = format!("{}\r\n{}\r\n", head("long"), "x".repeat(1200));
    let reply = offer(&mut relay.client(), raw.as_bytes());
    assert!(reply.starts_with("554 5.6.0"), "{reply}");
}

#[test]
fn a_signed_body_with_bare_lf_is_refused_by_name_or_made_whole() {
    let upstream = Upstream::start();
    let relay =
        Relay::setup().upstream(&upstream, "").listener("").listener("bare_newline = \"normalize\"").start();
    let header = format!(
        "{}MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=\"----7A\";\r\n protocol=\"application/x-pkcs7-signature\"\r\n\r\n",
        head("lf")
    );
    let body = "signed by a library\n\n------7A\nContent-Type: text/plain\n\nhello\n\n------7A\nContent-Type: application/x-pkcs7-signature\n\nMIIB\n\n------7A--";
    let raw = format!("{header}{body}").into_bytes();
    let refused = offer(&mut relay.client(), &raw);
    assert!(refused.starts_with("550 5.6.11") && refused.contains("bare LF"), "{refused}");
    let taken = offer(&mut Client::hello(relay.listener(1)), &raw);
    assert!(taken.starts_with("250"), "{taken}");
    let got = upstream.wait_for(1).remove(0);
    assert_unchanged(format!("{header}{}", body.replace('\n', "\r\n")).as_bytes(), &got.data);
}
