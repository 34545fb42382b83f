//! What is said to which server: extensions, recipients, order.

use super::*;

/// MAIL's parameters and how the recipient is named; or what is lacking.
type Fitting = Result<(&'static str, &'static str), &'static str>;

/// A server with these EHLO lines that takes a message for one recipient command by command.
fn offering(lines: &[&str]) -> String {
    let mut script = String::from("S: 220 mx\nC: EHLO\n");
    for line in std::iter::once(&"mx").chain(&lines[..lines.len().saturating_sub(1)]) {
        script.push_str(&format!("S: 250-{line}\n"));
    }
    let last = lines.last().unwrap_or(&"HELP");
    script.push_str(&format!(
        "S: 250 {last}\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\n.\nS: 250 ok\n"
    ));
    script
}

#[tokio::test]
async fn with_pipelining_the_envelope_is_one_write_and_the_content_another() {
    let script = format!(
        "{GREETING}one: MAIL RCPT RCPT DATA\nS: 250 ok\nS: 550 5.1.1 unknown\nS: 250 ok\nS: 354 go\n.\nS: 250 2.0.0 queued\n"
    );
    let (reply, heard) = sent(&[&script], request(&["a@example.com", "b@example.com"], "x\r\n")).await;
    assert_eq!(codes(reply), (Phase::Dot, 250, vec![550, 250]), "one refusal never fails the others");
    assert_eq!(heard[0].contents, [b"x\r\n"]);
    assert!(heard[0].has("QUIT"));
}

#[tokio::test]
async fn without_pipelining_each_command_waits_for_its_reply() {
    let script = "S: 220 mx\nC: EHLO\nS: 250 mx\none: MAIL\nS: 250 ok\none: RCPT\nS: 550 5.1.1 no\none: RCPT\nS: 251 ok\none: DATA\nS: 354 go\n.\nS: 250 ok\n";
    let (reply, heard) = sent(&[script], request(&["a@example.com", "b@example.com"], "x\r\n")).await;
    assert_eq!(codes(reply), (Phase::Dot, 250, vec![550, 251]));
    assert_eq!(heard[0].line("MAIL"), "MAIL FROM:<shop@example.org>", "no parameter that was not offered");
}

#[tokio::test]
async fn where_nobody_is_left_no_content_goes_out() {
    let rcpts = "C: MAIL\nC: RCPT\nC: RCPT\nC: DATA\nS: 250 ok\nS: 550 no\nS: 450 later\n";
    let refused = format!("{GREETING}{rcpts}S: 554 no valid recipients\n");
    // RFC 2920 section 3.1: the client must then end the content at once.
    let taken = format!("{GREETING}{rcpts}S: 354 go\n.\nS: 554 no valid recipients\n");
    let plain =
        "S: 220 mx\nC: EHLO\nS: 250 mx\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 550 no\nC: RCPT\nS: 450 later\n";
    let gone = format!("{GREETING}{rcpts}close");
    for script in [&*refused, &*taken, plain, &*gone] {
        let (reply, heard) = sent(&[script], request(&["a@example.com", "b@example.com"], "x\r\n")).await;
        assert_eq!(codes(reply), (Phase::Rcpt, 450, vec![550, 450]), "{script}");
        assert!(heard[0].contents.iter().all(Vec::is_empty));
        assert_eq!(heard[0].has("DATA"), script != plain);
    }
}

#[tokio::test]
async fn a_421_at_a_recipient_ends_it_for_those_that_follow() {
    let script = format!(
        "{GREETING}C: MAIL\nC: RCPT\nC: RCPT\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 421 4.3.2 going\nclose"
    );
    let (reply, _) = sent(&[&script], request(&["a@x.com", "b@x.com", "c@x.com"], "x\r\n")).await;
    assert_eq!(codes(reply), (Phase::Rcpt, 421, vec![250, 421, 421]));
}

#[tokio::test]
async fn recipients_past_the_server_s_limit_wait_for_a_later_call() {
    let lowered = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250 Limits RcptMax=1\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\n.\nS: 250 ok\n";
    let (reply, _) = sent(&[lowered], request(&["a@x.com", "b@x.com"], "x\r\n")).await;
    let reply = smtp(reply);
    let own = "not named yet: the server takes 1 recipients at a time (LIMITS RCPTMAX)";
    assert_eq!(reply.recipients[1].to_string(), own);
    assert!(reply.recipients[0].positive() && reply.last.positive());
}

#[tokio::test]
async fn a_server_that_goes_after_its_refusals_has_refused_nobody_else() {
    let limited = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250-PIPELINING\nS: 250 LIMITS RCPTMAX=1\n";
    let script = format!("{limited}C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 550 5.1.1 unknown\nclose");
    let (reply, _) = sent(&[&script], request(&["a@x.com", "b@x.com"], "x\r\n")).await;
    assert_eq!(codes(reply), (Phase::Rcpt, 550, vec![550, 0]));
}

#[tokio::test]
async fn many_recipients_go_in_groups_that_neither_side_chokes_on() {
    let names: Vec<String> = (0..1000).map(|n| format!("recipient-number-{n}@example.com")).collect();
    let names: Vec<&str> = names.iter().map(|n| &**n).collect();
    let mut script = format!("{GREETING}C: MAIL\nS: 250 ok\n");
    script.push_str(&format!("C: RCPT\nS: 250 {}\n", "ok ".repeat(100)).repeat(1000));
    script.push_str("C: DATA\nS: 354 go\n.\nS: 250 ok\n");
    let (reply, _) = sent(&[&script], request(&names, "x\r\n")).await;
    let (phase, code, recipients) = codes(reply);
    assert_eq!((phase, code, recipients.len()), (Phase::Dot, 250, 1000));
}

#[tokio::test]
async fn keywords_in_lower_case_count_and_so_does_the_last_line() {
    let (reply, heard) = sent(
        &[&offering(&["size 10000000", "8bitmime"])],
        request(&["a@x.com"], "x: y\r\n\r\ngr\u{fc}\u{df}e\r\n"),
    )
    .await;
    assert!(smtp(reply).last.positive());
    assert_eq!(heard[0].line("MAIL"), "MAIL FROM:<shop@example.org> SIZE=17 BODY=8BITMIME");
    assert!(!heard[0].has("HELO"));
    assert_eq!(heard[0].contents[0], "x: y\r\n\r\ngr\u{fc}\u{df}e\r\n".as_bytes());
}

#[tokio::test]
async fn a_server_without_ehlo_is_greeted_with_helo() {
    for code in [500, 502, 504] {
        let script = format!(
            "S: 220 mx\nC: EHLO RELAY.EXAMPLE\nS: {code} what\nC: HELO RELAY.EXAMPLE\nS: 250 mx\nC: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\n.\nS: 250 ok\n"
        );
        let (reply, _) = sent(&[&script], simple()).await;
        assert!(smtp(reply).last.positive());
    }
}

#[tokio::test]
async fn what_the_next_hop_lacks_makes_a_message_unfit_or_is_not_needed() {
    let utf8_local = || request(&["gr\u{fc}\u{df}e@example.com"], "x\r\n");
    let idn = || request(&["ok@b\u{fc}cher.example.com"], "x\r\n");
    let eight_bit = || request(&["a@x.com"], "x: y\r\n\r\n\u{fc}\r\n");
    let utf8_headers = || SmtpRequest { smtputf8: true, ..request(&["a@x.com"], "x: \u{fc}\r\n\r\n") };
    let all: &[&str] = &["SIZE 100", "8BITMIME", "SMTPUTF8"];
    let ascii = "<ok@xn--bcher-kva.example.com>";
    let rows: Vec<(&[&str], SmtpRequest, Fitting)> = vec![
        (&[], simple(), Ok(("", "<a@example.com>"))),
        (&["SIZE"], simple(), Ok((" SIZE=22", "<a@example.com>"))),
        (&["SIZE 22"], simple(), Ok((" SIZE=22", "<a@example.com>"))),
        (&["SIZE 21"], simple(), Err("22 octets")),
        (&["8BITMIME"], eight_bit(), Ok((" BODY=8BITMIME", "<a@x.com>"))),
        (&["SIZE 1000"], eight_bit(), Err("8BITMIME")),
        (&[], idn(), Ok(("", ascii))),
        (all, idn(), Ok((" SIZE=3", ascii))),
        (all, utf8_local(), Ok((" SIZE=3 SMTPUTF8", "<gr\u{fc}\u{df}e@example.com>"))),
        (&["8BITMIME"], utf8_local(), Err("SMTPUTF8")),
        (all, utf8_headers(), Ok((" SIZE=9 BODY=8BITMIME SMTPUTF8", "<a@x.com>"))),
        (&["8BITMIME"], utf8_headers(), Err("SMTPUTF8")),
    ];
    for (offer, request, expected) in rows {
        let upstream = Upstream::plays(&[&match expected {
            Ok(_) => offering(offer),
            Err(_) => offering(offer).split("C: MAIL").next().unwrap().to_owned(),
        }])
        .await;
        let wire = wire(settings(&upstream));
        let reply = send(&wire, request).await;
        wire.close().await;
        let heard = upstream.heard().await;
        match expected {
            Ok((parameters, recipient)) => {
                assert!(smtp(reply).last.positive());
                assert_eq!(
                    heard[0].line("MAIL"),
                    format!("MAIL FROM:<shop@example.org>{parameters}"),
                    "{offer:?}"
                );
                assert_eq!(heard[0].line("RCPT"), format!("RCPT TO:{recipient}"), "{offer:?}");
            }
            Err(lacking) => {
                assert!(
                    matches!(&reply, Reply::Unfit { why } if why.contains(lacking)),
                    "{offer:?}: {reply:?}"
                );
                assert!(
                    !heard[0].has("MAIL") && heard[0].has("QUIT"),
                    "the connection is none the worse for it"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_null_sender_and_quotes_stay_as_they_are() {
    let quoted = Address::parse("\"a b\"@example.com", Grammar::Strict).unwrap();
    let request =
        SmtpRequest { sender: ReversePath::Null, recipients: vec![quoted], ..request(&["a@x.com"], "x\r\n") };
    let (_, heard) = sent(&[&offering(&["8BITMIME"])], request).await;
    assert_eq!(heard[0].line("MAIL"), "MAIL FROM:<>");
    assert_eq!(heard[0].line("RCPT"), "RCPT TO:<\"a b\"@example.com>");
}

#[tokio::test]
async fn a_reply_too_many_stops_it_before_the_content() {
    let script =
        format!("{GREETING}C: MAIL\nC: RCPT\nC: DATA\nR: 250 a\\r\\n250 b\\r\\n354 go\\r\\n250 extra\\r\\n");
    let (reply, heard) = sent(&[&script], simple()).await;
    let (phase, handed_over, _) = lost(reply);
    assert_eq!((phase, handed_over), (Phase::Data, false));
    assert!(heard[0].unfinished.is_empty());
}
