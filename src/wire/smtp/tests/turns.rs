//! Replies that nobody asked for, and more replies than commands: none of them is taken for an answer.

use super::*;

const PLAIN: &str = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250 8BITMIME\n";
const TWO: [&str; 2] = ["one@example.com", "two@example.com"];

/// Lost before the hand-over, at that phase, with no word about anybody.
async fn nobody_is_refused(script: &str, at: Phase) {
    let (reply, heard) = sent(&[script], request(&TWO, "x: y\r\n\r\nhello\r\n")).await;
    match reply {
        Reply::Lost { phase, handed_over, recipients, said } => {
            assert_eq!((phase, handed_over, recipients.len()), (at, false, 0), "{said}: {script}");
            assert!(said.contains("out of step"), "{said}: {script}");
        }
        other => panic!("{other:?}: {script}"),
    }
    assert!(heard[0].contents.is_empty(), "{script}");
}

#[tokio::test]
async fn what_is_said_before_the_command_is_no_answer_to_it() {
    for (script, at) in [
        ("R: 220 mx\\r\\n550 5.7.1 go away\\r\\n".to_owned(), Phase::Ehlo),
        ("S: 220 mx\nC: EHLO\nR: 250 mx\\r\\n550 5.1.8 no\\r\\n".to_owned(), Phase::Mail),
        (format!("{PLAIN}C: MAIL\nR: 250 ok\\r\\n550 5.1.1 no\\r\\n"), Phase::Rcpt),
        (format!("{PLAIN}C: MAIL\nS: 250 ok\nC: RCPT\nR: 550 5.1.1 no\\r\\n550 5.1.1 no\\r\\n"), Phase::Rcpt),
    ] {
        nobody_is_refused(&script, at).await;
    }
}

#[tokio::test]
async fn two_replies_to_one_recipient_are_not_taken_for_the_next_ones() {
    for (second, data) in
        [("450 4.2.0 later", "503 5.5.1 no"), ("550 5.1.1 no", "503 5.5.1 no"), ("250 2.1.5 ok", "354 go")]
    {
        let replies = format!("S: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1 no\nS: {second}\nS: {data}\n");
        let at = if second.starts_with('2') { Phase::Data } else { Phase::Rcpt };
        nobody_is_refused(&format!("{GREETING}C: MAIL\nC: RCPT\nC: RCPT\nC: DATA\n{replies}"), at).await;
        // The last of them only when RSET has been said.
        if at == Phase::Rcpt {
            let late = replies.replace("S: 503", "C: RSET\nS: 503");
            let script = format!("{GREETING}C: MAIL\nC: RCPT\nC: RCPT\nC: DATA\n{late}S: 250 reset\n");
            nobody_is_refused(&script, at).await;
        }
    }
}

#[tokio::test]
async fn where_one_was_taken_two_replies_to_another_refuse_nobody_either() {
    let replies = "S: 250 ok\nS: 250 ok\nS: 250 ok too many\nS: 550 5.1.1 no\nS: 354 go\n";
    nobody_is_refused(&format!("{GREETING}C: MAIL\nC: RCPT\nC: RCPT\nC: DATA\n{replies}"), Phase::Data).await;
}

#[tokio::test]
async fn without_pipelining_a_late_reply_too_many_shows_at_quit() {
    for second in ["250 2.1.5 ok", "450 4.2.0 later"] {
        let script = format!(
            "{PLAIN}C: MAIL\nS: 250 ok\nC: RCPT\nS: 550 5.1.1 no\nC: RCPT\nS: 550 5.1.1 no\nC: QUIT\nS: {second}\nS: 221 bye"
        );
        nobody_is_refused(&script, Phase::Rcpt).await;
    }
}

#[tokio::test]
async fn a_refusal_counts_where_each_reply_was_an_answer() {
    let rcpts =
        "C: MAIL\nC: RCPT\nC: RCPT\nC: DATA\nS: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1 no\nS: 503 no\n";
    for script in [
        format!("{GREETING}{rcpts}C: RSET\nS: 250 reset\nC: QUIT\nS: 221 bye"),
        format!("{GREETING}{rcpts}C: RSET\nS: 502 what\nC: QUIT\nS: 221 bye"),
        format!("{GREETING}{rcpts}C: RSET\nclose"),
        format!("{GREETING}{rcpts}close"),
        format!("{GREETING}{rcpts}C: RSET\nS: 421 bye\nclose"),
        format!("{PLAIN}C: MAIL\nS: 250 ok\nC: RCPT\nS: 550 no\nC: RCPT\nS: 550 no\nC: QUIT\nS: 221 bye"),
        format!("{PLAIN}C: MAIL\nS: 250 ok\nC: RCPT\nS: 550 no\nC: RCPT\nS: 550 no\nclose"),
    ] {
        let (reply, _) = sent(&[&script], request(&TWO, "x: y\r\n\r\nhello\r\n")).await;
        assert_eq!(codes(reply), (Phase::Rcpt, 550, vec![550, 550]), "{script}");
    }
}

#[tokio::test]
async fn a_goodbye_said_unasked_is_heard_as_one() {
    let script = "S: 220 mx\nC: EHLO\nR: 250 mx\\r\\n421 4.3.2 going down\\r\\n\nclose";
    let (reply, _) = sent(&[script], simple()).await;
    assert_eq!(codes(reply).1, 421);
}

#[tokio::test]
async fn a_verdict_before_the_final_dot_accepts_nothing() {
    let abort = Abort::default();
    let script = format!(
        "{GREETING}C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nR: 354 go\\r\\n250 2.0.0 taken\\r\\n\nhang"
    );
    let upstream = Upstream::plays_with(&[&script], None, abort).await;
    let wire = wire(settings(&upstream));
    let (_, handed_over, said) = lost(send(&wire, simple()).await);
    assert!(!handed_over && said.contains("out of step"), "{said}");
    upstream.heard().await;
}
