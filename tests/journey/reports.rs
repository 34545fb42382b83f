//! Reports to senders: who hears of what, through real next hops, read by mail-parser and by Python's email.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use mail_parser::{MessageParser, MimeHeaders};

use crate::support::upstream::{Manner, Received};
use crate::support::{Client, Fault, Point, Relay, Upstream, mailgen, skip, wait_until};

const BOUND: Duration = Duration::from_secs(60);
/// Half of its time is over after eight seconds, and what is late is looked for every five.
const SHORT: &str =
    "[[stream]]\nname = \"transactional\"\nkind = \"transactional\"\nretry = \"1s\"\nmax_age = \"16s\"\n";

/// What Python's reader makes of a report: a line for each recipient.
const PYTHON: &str = r#"
import email, email.policy, sys
m = email.message_from_binary_file(sys.stdin.buffer, policy=email.policy.default)
assert m.get_content_type() == "multipart/report", m.get_content_type()
assert m.get_param("report-type") == "delivery-status"
assert not any(part.defects for part in m.walk()), [part.defects for part in m.walk()]
parts = list(m.iter_parts())
assert parts[0].get_content_type() == "text/plain" and parts[0].get_content().strip()
status = parts[1].get_payload()
assert status[0]["Reporting-MTA"], status[0]
for one in status[1:]:
    print("|".join(" ".join(str(one.get(n, "")).split()) for n in ("Final-Recipient", "Action", "Status", "Diagnostic-Code")))
"#;

/// A report's recipients: final recipient, action, status, diagnostic code.
fn fates(report: &Received) -> Vec<[String; 4]> {
    let seen = by_mail_parser(&report.data);
    match by_python(&report.data) {
        Some(python) => assert_eq!(python, seen, "two readers see the same"),
        None => skip("reading reports with Python", "python3 is not installed"),
    }
    seen
}

fn by_mail_parser(data: &[u8]) -> Vec<[String; 4]> {
    let read = MessageParser::default().parse(data).unwrap();
    assert_eq!(read.content_type().unwrap().subtype(), Some("report"), "{}", String::from_utf8_lossy(data));
    let is_status = |part: &&mail_parser::MessagePart<'_>| {
        part.content_type().is_some_and(|t| t.subtype() == Some("delivery-status"))
    };
    let status = read.parts.iter().find(is_status).unwrap();
    let text = String::from_utf8_lossy(status.contents()).replace("\r\n ", " ");
    let field = |block: &str, name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    let names = ["Final-Recipient", "Action", "Status", "Diagnostic-Code"];
    let blocks = text.split("\r\n\r\n").filter(|block| block.contains("Final-Recipient:"));
    blocks.map(|block| names.map(|name| field(block, name))).collect()
}

fn by_python(data: &[u8]) -> Option<Vec<[String; 4]>> {
    let python = Command::new("python3")
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut python = python.ok()?;
    python.stdin.take().unwrap().write_all(data).unwrap();
    let ran = python.wait_with_output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let line = |line: &str| {
        let fields: Vec<String> = line.split('|').map(str::to_owned).collect();
        <[String; 4]>::try_from(fields).unwrap()
    };
    Some(String::from_utf8(ran.stdout).unwrap().lines().map(line).collect())
}

/// Those that are no reports, and the reports.
fn sorted(upstream: &Upstream) -> (Vec<Received>, Vec<Received>) {
    upstream.received().into_iter().partition(|r| !r.mail.starts_with("<>"))
}

fn reports(upstream: &Upstream, count: usize) -> Vec<Received> {
    wait_until(&format!("{count} reports"), BOUND, || sorted(upstream).1.len() >= count);
    sorted(upstream).1
}

fn events(relay: &Relay, id: &str) -> String {
    relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()["events"].to_string()).unwrap_or_default()
}

/// A transaction with parameters of its own, written out.
fn submit(client: &mut Client, mail: &str, rcpt: &[&str]) -> String {
    client.say(mail).expect("250");
    for to in rcpt {
        client.say(to).expect("250");
    }
    client.say("DATA").expect("354");
    client.raw(&[&mailgen::plain("reported")[..], b".\r\n"].concat());
    let reply = client.expect("250");
    reply.text().rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn of_three_recipients_the_one_that_is_refused_is_reported() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::RcptOf("gone@example.com"), Fault::Reply("550 5.1.1 no such user here"));
    let relay = Relay::to(&upstream);
    let to = ["ok@example.com", "gone@example.com", "too@example.com"];
    let id = relay.submit("app@example.org", &to, &mailgen::plain("three"));
    let report = reports(&upstream, 1).remove(0);
    assert_eq!(report.to, ["<app@example.org>"]);
    let diagnostic = "smtp; 550 5.1.1 no such user here";
    let expected = ["rfc822; gone@example.com", "failed", "5.1.1", diagnostic].map(str::to_owned);
    assert_eq!(fates(&report), [expected]);
    assert!(report.text().contains("Subject: three"), "the header block comes back");
    assert!(report.header("Auto-Submitted").is_some_and(|v| v == "auto-replied"));
    assert!(events(&relay, &id).contains("reported"), "{}", events(&relay, &id));
    let explained = relay.cli(&["explain", &id]).must(0);
    assert!(explained.out.contains("app@example.org"), "{}", explained.out);
}

#[test]
fn who_said_never_and_who_has_no_sender_hear_nothing() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::RcptOf("gone@example.com"), Fault::Reply("550 5.1.1 no such user here"));
    let relay = Relay::to(&upstream);
    let mut client = relay.client();
    submit(&mut client, "MAIL FROM:<app@example.org>", &["RCPT TO:<gone@example.com> NOTIFY=NEVER"]);
    submit(&mut client, "MAIL FROM:<>", &["RCPT TO:<gone@example.com>"]);
    submit(&mut client, "MAIL FROM:<app@example.org>", &["RCPT TO:<gone@example.com> NOTIFY=SUCCESS,DELAY"]);
    // The last of all is told of; by then the others would have been.
    submit(
        &mut client,
        "MAIL FROM:<last@example.org> ENVID=here+2band+2Bnow",
        &["RCPT TO:<gone@example.com> NOTIFY=FAILURE ORCPT=rfc822;old@example.com"],
    );
    let all = reports(&upstream, 1);
    assert_eq!(all.iter().map(|r| r.to.concat()).collect::<Vec<_>>(), ["<last@example.org>"]);
    assert!(all[0].text().contains("Original-Envelope-Id: here+and+now\r\n"), "{}", all[0].text());
    assert!(all[0].text().contains("Original-Recipient: rfc822; old@example.com\r\n"), "{}", all[0].text());
}

#[test]
fn what_is_late_is_told_to_who_asked_and_what_expires_to_all() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::RcptOf("busy@example.com"), Fault::Reply("450 4.2.1 mailbox busy"));
    let relay = Relay::setup().upstream(&upstream, "").tables(SHORT).start();
    let mut client = relay.client();
    let never = "RCPT TO:<ok@example.com>";
    submit(
        &mut client,
        "MAIL FROM:<app@example.org>",
        &["RCPT TO:<busy@example.com> NOTIFY=DELAY,FAILURE", never],
    );
    let all = reports(&upstream, 2);
    let told: Vec<_> = all.iter().map(|report| fates(report).remove(0)).collect();
    assert_eq!(told[0][..3], ["rfc822; busy@example.com", "delayed", "4.2.1"]);
    assert_eq!(told[1][..3], ["rfc822; busy@example.com", "failed", "4.4.7"]);
    assert!(told.iter().all(|fate| fate[3].contains("450 4.2.1 mailbox busy")), "{told:?}");
    assert!(all[0].text().contains("Will-Retry-Until:"));
}

#[test]
fn an_address_beyond_ascii_is_reported() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Rcpt(1), Fault::Reply("550 5.1.1 niemand"));
    let relay = Relay::to(&upstream);
    let mut client = relay.client();
    let rcpt = "RCPT TO:<gr\u{fc}n@example.com> ORCPT=rfc822;j\u{f6}rg@example.com";
    submit(&mut client, "MAIL FROM:<app@example.org> SMTPUTF8", &[rcpt]);
    wait_until("the refusal", BOUND, || upstream.commands().iter().any(|(_, c)| c.contains("gr\u{fc}n")));
    upstream.heal();
    let report = reports(&upstream, 1).remove(0);
    assert!(report.data.is_ascii());
    let expected = ["utf-8; gr\\x{FC}n@example.com", "failed", "5.1.1", "smtp; 550 5.1.1 niemand"];
    assert_eq!(fates(&report), [expected.map(str::to_owned)]);
    assert!(
        report.text().contains("Original-Recipient: utf-8; j\\x{F6}rg@example.com\r\n"),
        "{}",
        report.text()
    );
    let read = MessageParser::default().parse(&report.data).unwrap();
    assert!(read.body_text(0).unwrap().contains("gr\u{fc}n@example.com"));
}

#[test]
fn the_next_hop_is_asked_where_it_takes_that_and_else_success_is_told_here() {
    let (plain, dsn) = (Upstream::start(), Manner::default());
    let extensions = [dsn.extensions.clone(), vec!["DSN".into()]].concat();
    let knows = Upstream::with(Manner { extensions, ..dsn });
    let rcpt = ["RCPT TO:<ok@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2bb@example.com"];
    for upstream in [&plain, &knows] {
        let relay = Relay::to(upstream);
        submit(&mut relay.client(), "MAIL FROM:<app@example.org> RET=HDRS ENVID=x1", &rcpt);
        wait_until("it arrives", BOUND, || !sorted(upstream).0.is_empty());
        if std::ptr::eq(upstream, &plain) {
            let report = reports(upstream, 1).remove(0);
            assert_eq!(fates(&report)[0][..2], ["rfc822; ok@example.com", "relayed"]);
        }
    }
    let (mail, told) = sorted(&knows);
    assert!(mail[0].mail.ends_with(" RET=HDRS ENVID=x1"), "{}", mail[0].mail);
    let asked =
        |c: &str| c == "RCPT TO:<ok@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@example.com";
    assert!(knows.commands().iter().any(|(_, c)| asked(c)), "{:?}", knows.commands());
    assert!(told.is_empty(), "the next hop tells");
    assert!(plain.commands().iter().all(|(_, c)| !c.contains("NOTIFY")), "it would not understand");
}

#[test]
fn reports_can_be_off_and_need_an_address_where_the_sender_is_replaced() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::RcptOf("gone@example.com"), Fault::Reply("550 5.1.1 no such user here"));
    let off = Relay::setup().server("dsn = \"off\"\n").upstream(&upstream, "").start();
    let mut client = off.client();
    client.say("MAIL FROM:<app@example.org> RET=FULL").expect("555");
    client.say("MAIL FROM:<app@example.org>").expect("250");
    client.say("RCPT TO:<gone@example.com> NOTIFY=FAILURE").expect("555");
    client.say("QUIT").expect("221");
    let replaced = Relay::setup().upstream(&upstream, "envelope_from = \"relay@example.net\"\n").start();
    for (relay, why) in [(&off, "dsn is off"), (&replaced, "dsn_from")] {
        let id = relay.submit("app@example.org", &["gone@example.com"], &mailgen::plain("off"));
        wait_until("it is given up", BOUND, || events(relay, &id).contains("not_reported"));
        assert!(events(relay, &id).contains(why), "{}", events(relay, &id));
    }
    let from = "dsn_from = \"mailer@example.net\"\n";
    let both =
        Relay::setup().server(from).upstream(&upstream, "envelope_from = \"relay@example.net\"\n").start();
    both.submit("app@example.org", &["ok@example.com", "gone@example.com"], &mailgen::plain("both"));
    wait_until("mail and report", BOUND, || upstream.count() == 2);
    let received = upstream.received();
    assert!(received.iter().all(|r| r.mail.starts_with("<relay@example.net>")), "{received:?}");
    let report = received.iter().find(|r| r.to == ["<app@example.org>"]).unwrap();
    assert!(report.header("From").unwrap().contains("<mailer@example.net>"));
}

#[test]
fn a_report_that_is_owed_at_a_kill_is_written_after_it() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::RcptOf("gone@example.com"), Fault::Reply("550 5.1.1 no such user here"));
    let mut relay = Relay::to(&upstream);
    let id = relay.submit("app@example.org", &["gone@example.com"], &mailgen::plain("killed"));
    wait_until("it bounces", BOUND, || events(&relay, &id).contains("bounced"));
    relay.kill();
    relay.restart();
    let all = reports(&upstream, 1);
    assert_eq!(all.len(), 1);
    assert_eq!(fates(&all[0])[0][0], "rfc822; gone@example.com");
}
