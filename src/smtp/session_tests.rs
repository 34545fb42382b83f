//! The session as a table of dialogues: what a line is answered with, nobody but the session deciding.

use super::*;
use crate::mail::StreamName;
use crate::smtp::testing::settings;

fn session_with(change: impl FnOnce(&mut ListenerSettings), peer: &str) -> Session {
    let mut settings = settings();
    change(&mut settings);
    let rules = Rules { settings, hostname: "relay.test".into(), origin: None, dsn: true };
    Session::new(Arc::new(rules), peer.parse().unwrap(), false)
}

fn session() -> Session {
    session_with(|_| {}, "127.0.0.1")
}

/// Answers every question with yes, knows `user` / `secret`, and takes any content.
fn reply_to(session: &mut Session, line: &str) -> Reply {
    match session.line(line.as_bytes()) {
        Step::Say(reply) | Step::Eat(reply, _) | Step::StartTls(reply) => reply,
        Step::Ask => {
            assert!(session.question().is_some());
            session.answered(Reply::new(250, (2, 0, 0), "yes"))
        }
        Step::Login(login) => {
            let good = login.username == "user" && login.password.expose() == "secret";
            let granted = Granted {
                username: login.username,
                stream: Some(StreamName::new("s")),
                esp: None,
                terms: Arc::default(),
            };
            session.logged_in(if good { Ok(granted) } else { Err(Denied::Wrong) })
        }
        Step::Receive(reply) => {
            session.received(true);
            reply
        }
    }
}

/// Says each line and compares the beginning of its reply.
fn dialogue(session: &mut Session, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        let wire = reply_to(session, line).wire();
        assert!(wire.starts_with(expected), "{line}: expected {expected}, got {wire}");
    }
}

const M: (&str, &str) = ("MAIL FROM:<a@example.org>", "250 2.");
const R: (&str, &str) = ("RCPT TO:<b@example.com>", "250 2.");
const E: (&str, &str) = ("EHLO client.example.com", "250-relay.test");

#[test]
fn commands_have_an_order() {
    dialogue(
        &mut session(),
        &[
            ("MAIL FROM:<a@b.c>", "503 5.5.1"),
            ("RCPT TO:<a@b.c>", "503 5.5.1"),
            ("DATA", "503 5.5.1"),
            ("NOOP", "250 2.0.0"),
            ("RSET", "250 2.0.0"),
            E,
            ("RCPT TO:<a@b.c>", "503 5.5.1"),
            ("DATA", "503 5.5.1"),
            M,
            ("MAIL FROM:<>", "503 5.5.1"),
            ("DATA", "503 5.5.1"),
            R,
            ("DATA", "354 "),
            ("DATA", "503 5.5.1"),
            M,
            ("RSET", "250 2.0.0"),
            ("RCPT TO:<a@b.c>", "503 5.5.1"),
            M,
            E,
            ("RCPT TO:<a@b.c>", "503 5.5.1"),
            ("HELO x", "250 relay.test"),
            M,
            ("VRFY x", "252 2.5.0"),
            ("EXPN x", "502 5.5.1"),
            ("HELP", "214-2.0.0"),
            ("STARTTLS", "502 5.5.1"),
            ("AUTH PLAIN", "502 5.5.1"),
            ("QUIT", "221 2.0.0"),
        ],
    );
}

#[test]
fn the_greeting_tells_what_is_offered() {
    let mut s = session_with(|s| (s.tls, s.auth) = (TlsMode::StartTls, AuthMode::Optional), "192.0.2.1");
    let plain = reply_to(&mut s, "EHLO x").wire();
    let offered: Vec<_> = plain.lines().map(|l| &l[4..]).collect();
    assert_eq!(
        offered,
        [
            "relay.test",
            "PIPELINING",
            "SIZE 25000000",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "LIMITS MAILMAX=100000 RCPTMAX=1000",
            "DSN",
            "STARTTLS"
        ]
    );
    let help = |s: &mut Session| reply_to(s, "HELP").wire().lines().next().unwrap_or_default().to_owned();
    assert!(help(&mut s).ends_with("HELP STARTTLS"));
    s.tls_started();
    assert!(help(&mut s).ends_with("HELP AUTH"));
    let under_tls = reply_to(&mut s, "EHLO x").wire();
    assert!(!under_tls.contains("STARTTLS") && under_tls.ends_with("250 AUTH PLAIN LOGIN\r\n"));
    assert_eq!(s.client().protocol, Protocol::Esmtp { tls: true, auth: false, utf8: false });
}

#[test]
fn any_name_is_taken_and_cleaned() {
    let mut s = session();
    for (name, kept) in [
        ("NPIF65E56", "NPIF65E56"),
        ("_my_host", "_my_host"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("front desk (2nd) <x>", "front?desk??2nd???x?"),
        ("büro", "büro"),
    ] {
        dialogue(&mut s, &[(&format!("HELO {name}"), "250 ")]);
        assert_eq!(s.client().helo, kept);
    }
    reply_to(&mut s, &format!("EHLO {}", "é".repeat(1000)));
    assert!(s.client().helo.len() <= HELO_OCTETS_MAX);
}

#[test]
fn paths_that_clients_send_are_taken() {
    let mut s = session();
    dialogue(&mut s, &[E]);
    for path in [
        "<>",
        "<\"a b\"@x.org>",
        "<@a.b,@c.d:u@x.org>",
        "<u@[IPv6:::1]>",
        "<u@[127.0.0.1]>",
        " <a@b.c>",
        "a@b.c",
        "<root>",
        "root",
    ] {
        dialogue(&mut s, &[(&format!("MAIL FROM:{path}"), "250 2."), ("RSET", "250 ")]);
    }
    dialogue(&mut s, &[M]);
    for path in
        ["<user..name@example.com>", "<user.@example.com>", "<POSTMASTER>", "<\"\\\"\"@x.org>", " u@x.org"]
    {
        dialogue(&mut s, &[(&format!("RCPT TO:{path}"), "250 2.")]);
    }
    dialogue(
        &mut s,
        &[
            ("RCPT TO:<>", "501 5.1.3"),
            ("RCPT TO:<root>", "553 5.1.3"),
            ("RCPT TO:<no-domain-here@>", "553 5.1.3"),
            ("RCPT TO:<grüße@example.com>", "553 5.6.7"),
            ("RCPT TO:<a@bücher.example>", "553 5.6.7"),
            ("RCPT TO:<ok@example.com> ORCPT=rfc822;jörg@example.com", "501 5.5.4"),
            ("RSET", "250 "),
            ("MAIL FROM:<grüße@example.com>", "553 5.6.7"),
            ("MAIL FROM:<grüße@example.com> SMTPUTF8", "250 2."),
            ("RCPT TO:<ok@bücher.example.com> ORCPT=rfc822;jörg@example.com", "250 2."),
        ],
    );
    assert_eq!(s.client().protocol, Protocol::Esmtp { tls: false, auth: false, utf8: true });
}

#[test]
fn the_strict_grammar_is_the_standard_s() {
    let mut s = session_with(|s| s.strict_envelope = true, "127.0.0.1");
    dialogue(
        &mut s,
        &[
            E,
            ("MAIL FROM: <a@b.c>", "501 5.1.7"),
            ("MAIL FROM:a@b.c", "501 5.1.7"),
            ("MAIL FROM:<root>", "501 5.5.4"),
            M,
            ("RCPT TO:<user..name@example.com>", "553 5.1.3"),
            ("RCPT TO:<a@b_c.example>", "501 5.1.3"),
            ("RCPT TO:<a@b.example.>", "501 5.1.3"),
            ("RCPT TO:<Postmaster>", "250 2."),
        ],
    );
}

#[test]
fn there_is_something_to_lose_from_the_first_recipient_that_is_accepted() {
    let mut s = session();
    dialogue(&mut s, &[E]);
    assert_eq!(s.stake(), Stake::Nothing);
    dialogue(&mut s, &[M, ("RCPT TO:<>", "501")]);
    assert_eq!(s.stake(), Stake::Mail);
    dialogue(&mut s, &[R]);
    assert_eq!(s.stake(), Stake::Message);
    dialogue(&mut s, &[("RSET", "250")]);
    assert_eq!(s.stake(), Stake::Nothing);
}

#[test]
fn an_origin_completes_bare_names() {
    let rules = Rules {
        settings: settings(),
        hostname: "relay.test".into(),
        origin: Some("example.com".into()),
        dsn: true,
    };
    let mut s = Session::new(Arc::new(rules), "127.0.0.1".parse().unwrap(), false);
    dialogue(
        &mut s,
        &[E, ("MAIL FROM:<www-data>", "250"), ("RCPT TO:<root>", "250"), ("RCPT TO:<postmaster>", "250")],
    );
    let envelope = s.take_envelope().unwrap();
    assert_eq!(envelope.sender.wire(), "www-data@example.com");
    let recipients: Vec<_> = envelope.recipients.iter().map(Address::wire).collect();
    assert_eq!(recipients, ["root@example.com", "postmaster@example.com"]);
}

#[test]
fn a_recipient_named_twice_is_one_and_the_limit_keeps_the_earlier() {
    let mut s = session_with(|s| s.max_recipients = 2, "127.0.0.1");
    dialogue(
        &mut s,
        &[
            E,
            M,
            ("RCPT TO:<a@Example.com>", "250"),
            ("RCPT TO:<a@example.COM>", "250"),
            ("RCPT TO:<A@example.com>", "250"),
            ("RCPT TO:<c@example.com>", "452 4.5.3"),
            ("RCPT TO:<a@example.com>", "250"),
        ],
    );
    let recipients = s.take_envelope().unwrap().recipients;
    assert_eq!(recipients.iter().map(Address::wire).collect::<Vec<_>>(), ["a@Example.com", "A@example.com"]);
}

#[test]
fn one_message_has_no_more_recipients_than_the_rate_lets_through_at_once() {
    use crate::mail::{Terms, quota::Rate};
    let limited = |recipients, seconds, redirect_to: Option<&str>| {
        let rate = Some(Rate { recipients, per: std::time::Duration::from_secs(seconds) });
        let redirect_to = redirect_to.map(|to| Address::parse(to, Grammar::Strict).unwrap());
        let terms = Arc::new(Terms { rate, redirect_to, ..Terms::default() });
        let mut s = session_with(|s| s.terms = terms, "127.0.0.1");
        dialogue(&mut s, &[E, M]);
        let takes = |n: &usize| reply_to(&mut s, &format!("RCPT TO:<r{n}@example.com>")).code == 250;
        (0..200).take_while(takes).count()
    };
    assert_eq!((limited(3, 60, None), limited(3, 3_600, None)), (3, 3));
    assert_eq!(limited(2, 1, None), 120, "what a minute gives");
    assert_eq!(limited(3, 60, Some("qa@example.com")), 200, "they are one");
}

#[test]
fn size_is_refused_at_mail() {
    let mut s = session_with(|s| s.max_message_size_octets = 1000, "127.0.0.1");
    dialogue(
        &mut s,
        &[E, ("MAIL FROM:<a@b.c> SIZE=1001", "552 5.3.4"), ("MAIL FROM:<a@b.c> SIZE=1000", "250")],
    );
}

#[test]
fn who_may_not_relay_is_told_at_rcpt() {
    let mut s = session_with(|_| {}, "192.0.2.1");
    dialogue(&mut s, &[E, M, ("RCPT TO:<b@example.com>", "550 5.7.1"), ("DATA", "503 5.5.1")]);
    assert!(!s.client().trusted);
}

#[test]
fn auth_has_its_codes() {
    let auth = |s: &mut ListenerSettings| (s.auth, s.tls) = (AuthMode::Required, TlsMode::StartTls);
    dialogue(
        &mut session_with(auth, "192.0.2.1"),
        &[E, ("AUTH PLAIN AHVzZXIAc2VjcmV0", "538 5.7.11"), ("MAIL FROM:<a@b.c>", "530 5.7.0")],
    );
    let mut s = session_with(auth, "127.0.0.1");
    dialogue(
        &mut s,
        &[
            ("AUTH PLAIN AHVzZXIAc2VjcmV0", "503 5.5.1"),
            E,
            ("MAIL FROM:<a@b.c>", "530 5.7.0"),
            ("AUTH CRAM-MD5", "504 5.5.4"),
            ("AUTH PLAIN", "334 \r\n"),
            ("*", "501 5.7.0"),
            ("AUTH PLAIN", "334 \r\n"),
            ("!", "501 5.5.2"),
            ("AUTH PLAIN =", "501 5.5.2"),
            ("AUTH LOGIN", "334 VXNlcm5hbWU6\r\n"),
            ("dXNlcg==", "334 UGFzc3dvcmQ6\r\n"),
            ("d3Jvbmc=", "535 5.7.8"),
            ("AUTH login dXNlcg==", "334 UGFzc3dvcmQ6\r\n"),
            ("c2VjcmV0", "235 2.7.0"),
            ("AUTH PLAIN", "503 5.5.1"),
            M,
            R,
        ],
    );
    let granted = s.client().credential.clone().unwrap();
    assert_eq!((granted.username.as_str(), granted.stream), ("user", Some(StreamName::new("s"))));
    assert_eq!(s.client().protocol.with(), "ESMTPA");
}

#[test]
fn auth_in_a_transaction_is_out_of_order_and_three_failures_end_it() {
    let mut s = session_with(|s| s.auth = AuthMode::Optional, "127.0.0.1");
    dialogue(&mut s, &[E, M, ("AUTH PLAIN", "503 5.5.1"), ("RSET", "250")]);
    let wrong = ("AUTH PLAIN AHVzZXIAd3Jvbmc=", "535 5.7.8");
    dialogue(&mut s, &[wrong, wrong]);
    let last = reply_to(&mut s, wrong.0);
    assert!(last.close && last.code == 535);
}

#[test]
fn tls_forgets_everything_but_errors() {
    let mut s = session_with(|s| (s.tls, s.max_errors) = (TlsMode::StartTls, 2), "127.0.0.1");
    dialogue(&mut s, &[E, M, ("FOO", "500"), ("STARTTLS", "220 2.0.0")]);
    s.tls_started();
    assert!(s.stake() == Stake::Nothing && s.client().helo.is_empty());
    dialogue(&mut s, &[("MAIL FROM:<a@b.c>", "503 5.5.1")]);
    assert!(s.overrun().is_some());
}

#[test]
fn errors_and_junk_are_counted() {
    let mut s = session_with(|s| s.max_errors = 3, "127.0.0.1");
    for _ in 0..JUNK_COMMANDS_MAX {
        reply_to(&mut s, "NOOP");
    }
    assert!(s.overrun().is_none());
    for _ in 0..2 {
        reply_to(&mut s, "RSET");
    }
    assert!(s.overrun().is_none());
    reply_to(&mut s, "NOOP");
    assert_eq!(s.overrun(), Some(reply::TOO_MUCH_JUNK));
    let mut s = session_with(|s| s.max_errors = 3, "127.0.0.1");
    for _ in 0..3 {
        reply_to(&mut s, "WHAT");
    }
    assert_eq!(s.overrun(), Some(reply::TOO_MANY_ERRORS));
}

#[test]
fn a_refusal_by_the_gatekeeper_is_no_error() {
    let mut s = session_with(|s| s.max_errors = 1, "127.0.0.1");
    dialogue(&mut s, &[E, M]);
    for _ in 0..50 {
        assert!(matches!(s.line(b"RCPT TO:<b@example.com>"), Step::Ask));
        let refusal = Reply::new(550, (5, 1, 1), "suppressed");
        assert_eq!(s.answered(refusal.clone()), refusal);
    }
    assert!(s.overrun().is_none());
    dialogue(&mut s, &[("DATA", "503 5.5.1")]);
}

#[test]
fn http_is_told_where_it_is() {
    let r = reply_to(&mut session(), "GET / HTTP/1.1");
    assert!(r.close && r.code == 502);
}

#[test]
fn lines_have_their_limits() {
    let mut s = session_with(|s| s.auth = AuthMode::Optional, "127.0.0.1");
    assert_eq!(s.line_limit(b"MAIL FROM"), COMMAND_OCTETS_MAX);
    assert_eq!(s.line_limit(b"auth PLAIN"), AUTH_OCTETS_MAX);
    dialogue(&mut s, &[E, ("AUTH PLAIN", "334")]);
    assert_eq!(s.line_limit(b"AAAA"), AUTH_OCTETS_MAX);
    assert_eq!(s.refused_line(LineFault::TooLong).wire().get(..9), Some("500 5.5.6"));
    assert_eq!(s.line_limit(b"AAAA"), COMMAND_OCTETS_MAX);
}

#[test]
fn one_transaction_takes_so_many_rcpt_commands_and_then_they_are_errors() {
    let mut s = session_with(|settings| (settings.max_recipients, settings.max_errors) = (2, 3), "127.0.0.1");
    dialogue(&mut s, &[E, M]);
    for _ in 0..2 * 2 + RCPT_OVERSHOOT_MAX {
        dialogue(&mut s, &[R]);
    }
    assert_eq!(s.overrun(), None);
    let over = ("RCPT TO:<b@example.com>", "452 4.5.3");
    dialogue(&mut s, &[over, over, ("RSET", "250"), M, R]);
    assert_eq!(s.overrun(), None, "another transaction counts anew");
    dialogue(&mut s, &[("RCPT TO:<>", "5")]);
    assert_eq!(s.overrun(), Some(reply::TOO_MANY_ERRORS), "what was refused counts");
}
