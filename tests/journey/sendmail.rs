//! `postroad sendmail`: what cron, PHP and old scripts call. It needs neither configuration nor token, only the relay's
//! SMTP port, and tells by sysexits what became of the mail.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::relay::{binary, free_port};
use crate::support::upstream::Manner;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

/// Runs it in an empty environment and folder, as cron would, with that text on standard input.
fn call(program: &str, arguments: &[&str], submit: &str, input: &[u8]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join(program);
    std::os::unix::fs::symlink(binary(), &link).unwrap();
    let mut child = Command::new(&link)
        .args(arguments)
        .env_clear()
        .env("POSTROAD_SUBMIT", submit)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who ends before it has read all of it has said why.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    child.wait_with_output().unwrap()
}

fn ended(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_report_of_cron_goes_out_with_its_names_completed() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").server("origin = \"example.com\"").start();
    let report = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> backup\nContent-Type: text/plain\n\nall is well\n.\nand on\n";
    let cron = ["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t"];
    let output = call("sendmail", &cron, &relay.smtp().to_string(), report);
    assert_eq!(ended(&output), (Some(0), String::new()));
    let received = upstream.wait_for(1);
    assert_eq!(received[0].to, ["<root@example.com>"]);
    assert!(received[0].mail.ends_with("@example.com>") || received[0].mail.contains("@example.com> "));
    let text = received[0].text();
    assert!(text.contains("\r\nFrom: root@example.com (Cron Daemon)\r\nTo: root\r\n"), "{text}");
    assert!(text.ends_with("all is well\r\n.\r\nand on\r\n"), "{text}");
}

#[test]
fn recipients_senders_and_ends_are_as_the_options_say() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let submit = relay.smtp().to_string();
    let message = b"To: a@example.com\r\nBcc: b@example.com\r\nSubject: s\r\n\r\nend\r\n.\r\nnot sent\r\n";
    let output = call("sendmail", &["-t", "-fapp@example.org", "c@example.com"], &submit, message);
    assert_eq!(ended(&output), (Some(0), String::new()));
    let received = upstream.wait_for(1);
    assert_eq!(received[0].to, ["<c@example.com>", "<a@example.com>", "<b@example.com>"]);
    assert!(received[0].mail.starts_with("<app@example.org>"), "{}", received[0].mail);
    let text = received[0].text();
    assert!(text.contains("From: app@example.org\r\n") || text.contains(" <app@example.org>\r\n"), "{text}");
    assert!(!text.contains("b@example.com") && text.ends_with("end\r\n"), "{text}");

    let output = call("sendmail", &["-i", "-f", "<>", "--", "d@example.com"], &submit, message);
    assert_eq!(ended(&output), (Some(0), String::new()));
    let received = upstream.wait_for(2);
    assert_eq!((received[1].to.len(), received[1].mail.split(' ').next()), (1, Some("<>")));

    let quoted = b"To: \"a b\"@example.com\n\nx\n";
    let output = call("sendmail", &["-t", "-f", "Shop <shop@example.org>"], &submit, quoted);
    assert_eq!(ended(&output), (Some(0), String::new()));
    let received = upstream.wait_for(3);
    assert_eq!(received[2].to, ["<\"a b\"@example.com>"]);
    assert!(received[2].mail.starts_with("<shop@example.org>"), "{}", received[2].mail);
}

#[test]
fn what_became_of_it_is_told_by_sysexits() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").listener("").listener("auth = \"required\"");
    let relay = relay.credential("shop", "p4ss-word_1").start();
    let (open, closed) = (relay.smtp().to_string(), relay.listener(1).to_string());
    let nobody = format!("127.0.0.1:{}", free_port());
    let plain = &b"Subject: s\n\nx\n"[..];
    for (arguments, submit, input, code, told) in [
        (&["-t"][..], &open, plain, 64, "name no address"),
        (&[][..], &open, plain, 64, "-t"),
        (&["-bd"][..], &open, plain, 64, "postroad serve"),
        (&["not an address@"][..], &open, plain, 65, "not an address@"),
        (&["a@example.com"][..], &open, &b"Subject: s\n\na\0b\n"[..], 65, "NUL"),
        (&["a@example.com"][..], &nobody, plain, 75, "POSTROAD_SUBMIT"),
        (&["a@example.com"][..], &closed, plain, 77, "530"),
    ] {
        let (got, said) = ended(&call("sendmail", arguments, submit, input));
        assert_eq!(got, Some(code), "{arguments:?}: {said}");
        assert!(said.starts_with("sendmail: ") && said.contains(told), "{arguments:?}: {said}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_dialogue_goes_through_and_other_names_do_what_they_did() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let submit = relay.smtp().to_string();
    let said = b"EHLO app\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nSubject: s\r\n\r\nx\r\n.\r\nQUIT\r\n";
    let output = call("sendmail", &["-bs"], &submit, said);
    let replies = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{replies}");
    assert!(replies.starts_with("220 ") && replies.contains("\r\n250 2.0.0 queued as "), "{replies}");
    upstream.wait_for(1);
    let said = String::from_utf8_lossy(said).replace('\r', "");
    let output = call("sendmail", &["-bs"], &submit, said.as_bytes());
    let replies = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(replies.contains("\r\n250 2.0.0 queued as "), "lines that end in LF: {replies}");
    assert!(upstream.wait_for(2)[1].text().ends_with("Subject: s\r\n\r\nx\r\n"));
    let cut = said.split("\n.\n").next().unwrap();
    let (code, told) = ended(&call("sendmail", &["-bs"], &submit, cut.as_bytes()));
    assert!(code == Some(75) && told.contains("ended within a message"), "{code:?} {told}");

    assert_eq!(ended(&call("newaliases", &[], &submit, b"")), (Some(0), String::new()));
    let (code, told) = ended(&call("mailq", &[], &submit, b""));
    assert!(
        code == Some(75) && told.contains("no relay runs"),
        "in a folder without a relay: {code:?} {told}"
    );
    let ran = relay.cli(&["sendmail", "--help"]);
    assert!(ran.out.contains("POSTROAD_SUBMIT") && ran.out.contains("Example: "), "{}", ran.out);
}

#[test]
fn an_esp_that_is_down_is_no_matter_of_the_callers() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Banner, Fault::Close);
    let relay = Relay::to(&upstream);
    let submit = relay.smtp().to_string();
    let output = call("sendmail", &["a@example.com"], &submit, b"Subject: waits\n\nx\n");
    assert_eq!(ended(&output), (Some(0), String::new()), "it is the relay's from here on");
    wait_until("it waits", Duration::from_secs(10), || {
        relay.cli(&["queue", "list"]).out.contains("a@example.com")
    });
}

#[test]
fn a_relay_that_takes_it_later_is_asked_again_by_the_caller() {
    for (point, reply, code) in [
        (Point::Banner, "421 4.3.2 too many connections", 75),
        (Point::Mail, "452 4.3.1 no memory", 75),
        (Point::Rcpt(1), "451 4.7.1 greylisted", 75),
        (Point::Data, "451 4.3.0 not now", 75),
        (Point::Dot, "452 4.3.1 the disk is full", 75),
        (Point::Rcpt(1), "550 5.7.1 may not be mailed", 67),
        (Point::Rcpt(1), "530 5.7.0 authentication required", 77),
        (Point::Dot, "552 5.3.4 too large", 65),
    ] {
        let relay = Upstream::start();
        relay.fail_always(point, Fault::Reply(reply));
        let output = call("sendmail", &["a@example.com"], &relay.address().to_string(), b"Subject: s\n\nx\n");
        let (got, said) = ended(&output);
        assert_eq!(got, Some(code), "{point:?} {reply}: {said}");
        assert!(said.contains(reply), "{said}");
    }
}

/// Gives input without an end until nobody takes any, at most so much; how much was taken.
fn pour(mut input: impl Write, octets_max: usize) -> usize {
    let piece = [b'x'; 65_536];
    let mut poured = 0;
    while poured < octets_max && input.write_all(&piece).is_ok() {
        poured += piece.len();
    }
    poured
}

#[test]
fn input_without_an_end_is_not_read_to_the_end_of_memory() {
    let mut child = Command::new(binary())
        .args(["sendmail", "a@example.com"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let poured = pour(child.stdin.take().unwrap(), 1_500_000_000);
    let (code, said) = ended(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("too large"), "{said}");
    assert!(poured < 300_000_000, "{poured} octets were read");
}

#[test]
fn recipients_are_verified_without_a_mail_and_the_queue_is_tried() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let submit = relay.smtp().to_string();
    let output = call(
        "sendmail",
        &["-bv", "-f", "me@example.org", "a@example.com", "grüße@example.com"],
        &submit,
        b"",
    );
    assert_eq!(ended(&output), (Some(0), String::new()));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines.len() == 2 && lines.iter().all(|l| l.contains(": 250 ")), "{told}");
    assert!(lines[1].starts_with("<grüße@example.com>: "), "{told}");

    let strict = Upstream::start();
    strict.fail_always(Point::RcptOf("no@example.com"), Fault::Reply("550 5.1.1 nobody"));
    strict.fail_always(Point::RcptOf("later@example.com"), Fault::Reply("451 4.3.0 later"));
    for (recipients, code) in [
        (&["-bv", "a@example.com", "no@example.com", "later@example.com"][..], 67),
        (&["-bv", "a@example.com", "later@example.com"], 75),
    ] {
        let output = call("sendmail", recipients, &strict.address().to_string(), b"");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    let nobody = format!("127.0.0.1:{}", free_port());
    assert_eq!(call("sendmail", &["-bv", "a@example.com"], &nobody, b"").status.code(), Some(75));
    assert!(!strict.commands().iter().any(|(_, command)| command.starts_with("DATA")));
    assert_eq!(relay.cli(&["queue", "list"]).out.lines().count(), 1, "only the head of the table");

    assert_eq!(relay.cli(&["sendmail", "-q"]).must(0).out, "0 deliveries due now\n");
    relay.cli(&["sendmail", "-qI0000000000009"]).must(65);
    assert_eq!(ended(&call("sendmail", &["-q1h"], &submit, b"")), (Some(0), String::new()));
    assert_eq!(ended(&call("sendmail", &["-I"], &submit, b"")), (Some(0), String::new()));
}

#[test]
fn more_recipients_than_one_transaction_may_have_all_get_it() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").listener("max_recipients = 2").start();
    let submit = relay.listener(0).to_string();
    let to: Vec<String> = (0..5).map(|n| format!("r{n}@example.com")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let output = call("sendmail", &to, &submit, b"Subject: s\n\nx\n");
    assert_eq!(ended(&output), (Some(0), String::new()));
    let got = || {
        let mut got: Vec<String> = upstream.received().into_iter().flat_map(|mail| mail.to).collect();
        got.sort_unstable();
        got
    };
    wait_until("all have it", Duration::from_secs(20), || got().len() == 5);
    let wanted: Vec<String> = to.iter().map(|to| format!("<{to}>")).collect();
    assert_eq!(got(), wanted);
    let named = |name: &str| {
        let all: HashSet<_> = upstream.received().iter().map(|mail| mail.header(name).unwrap()).collect();
        all.len()
    };
    assert_eq!((named("Message-ID"), named("Date")), (1, 1), "it is one message");
}

#[test]
fn a_transaction_that_is_all_refused_costs_nobody_else_the_mail() {
    let upstream = Upstream::start();
    let guarded = "max_recipients = 2\nonly_to = [\"@example.com\"]";
    let relay = Relay::setup().upstream(&upstream, "").listener(guarded).start();
    let submit = relay.listener(0).to_string();
    let out = ["r1@out.example", "r2@out.example", "r3@out.example", "r4@out.example"];
    let to = ["a@example.com", "b@example.com", out[0], out[1], "c@example.com"];
    let (code, said) = ended(&call("sendmail", &to, &submit, b"Subject: s\n\nx\n"));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    for name in &out[..2] {
        let own = |line: &&str| {
            line.contains(&format!("<{name}> was refused: ")) && line.matches(name).count() == 2
        };
        assert_eq!(said.lines().filter(own).count(), 1, "{name}: {said}");
    }
    let got = || upstream.received().iter().map(|mail| mail.to.len()).sum::<usize>();
    wait_until("the others have it", Duration::from_secs(20), || got() == 3);

    let (code, said) = ended(&call("sendmail", &out, &submit, b"Subject: s\n\nx\n"));
    assert_eq!(code, Some(67), "{said}");
    assert!(out.iter().all(|name| said.contains(&format!("<{name}> was refused: "))), "{said}");

    let verified =
        call("sendmail", &["-bv", "a@example.com", "b@example.com", "c@example.com"], &submit, b"");
    assert_eq!(
        ended(&verified),
        (Some(0), String::new()),
        "more than one transaction may have: {verified:?}"
    );
}

#[test]
fn an_answer_that_is_lost_is_unsure_for_those_alone_who_were_offered() {
    let manner = Manner { recipients_max: 2, ..Manner::default() };
    let relay = Upstream::with(manner);
    relay.fail(Point::Dot, Fault::Close, 1);
    let to = ["a@example.com", "b@example.com", "c@example.com"];
    let (code, said) = ended(&call("sendmail", &to, &relay.address().to_string(), b"Subject: s\n\nx\n"));
    assert_eq!(code, Some(75), "{said}");
    assert!(
        said.contains("<a@example.com> may have it") && said.contains("<b@example.com> may have it"),
        "{said}"
    );
    assert!(!said.contains("c@example.com") && said.contains("for 1 of 3 recipients"), "{said}");
    assert_eq!(relay.wait_for(1).last().unwrap().to, ["<c@example.com>"]);

    relay.fail(Point::Dot, Fault::Close, 2);
    let to = ["a@example.com", "b@example.com", "c@example.com", "d@example.com", "e@example.com"];
    let (code, said) = ended(&call("sendmail", &to, &relay.address().to_string(), b"Subject: s\n\nx\n"));
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("<d@example.com> may have it"), "{said}");
    assert!(said.contains("<e@example.com> was not tried"), "{said}");
}

#[test]
fn what_is_no_address_costs_nobody_else_the_mail() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let submit = relay.smtp().to_string();
    let message = b"To: a@example.com, b@@x\nCc: \"C, c\" <c@example.com>\nSubject: s\n\nx\n";
    let (code, said) = ended(&call("sendmail", &["-t"], &submit, message));
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("\"b@@x\" is no address"), "{said}");
    assert_eq!(upstream.wait_for(1)[0].to, ["<a@example.com>", "<c@example.com>"]);
    let (code, said) = ended(&call("sendmail", &["d@example.com", "e@"], &submit, message));
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("\"e@\" is no address"), "{said}");
    assert_eq!(upstream.wait_for(2)[1].to, ["<d@example.com>"]);
}
