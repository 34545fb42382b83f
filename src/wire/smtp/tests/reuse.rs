//! Connections in the pool: used again, replaced when stale, ended when old.

use super::*;

async fn twice(scripts: &[&str], change: impl Fn(&mut Settings)) -> (Reply, Reply, Vec<Heard>) {
    let upstream = Upstream::plays(scripts).await;
    let mut settings = settings(&upstream);
    change(&mut settings);
    let wire = wire(settings);
    let first = send(&wire, simple()).await;
    let second = send(&wire, simple()).await;
    wire.close().await;
    (first, second, upstream.heard().await)
}

async fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come about");
}

fn accepted(reply: Reply) {
    let (phase, code, _) = codes(reply);
    assert_eq!((phase, code), (Phase::Dot, 250));
}

#[tokio::test]
async fn one_connection_carries_many_messages() {
    let (first, second, heard) = twice(&[&format!("{GREETING}{ONE}{ONE}C: QUIT\nS: 221 bye")], |_| {}).await;
    accepted(first);
    accepted(second);
    assert_eq!(heard[0].lines.iter().filter(|l| l.starts_with("EHLO")).count(), 1);
}

#[tokio::test]
async fn a_connection_is_replaced_when_it_has_carried_its_share() {
    let script = format!("{GREETING}{ONE}C: QUIT\nS: 221 bye");
    let (first, second, _) = twice(&[&script, &script], |s| s.messages_per_connection = 1).await;
    accepted(first);
    accepted(second);
}

#[tokio::test]
async fn a_connection_carries_no_more_than_its_server_says() {
    let script = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250-PIPELINING\nS: 250 LIMITS MAILMAX=1\n";
    let script = format!("{script}{ONE}C: QUIT\nS: 221 bye");
    let (first, second, _) = twice(&[&script, &script], |_| {}).await;
    accepted(first);
    accepted(second);
}

#[tokio::test]
async fn a_transaction_that_was_refused_is_reset_before_the_next() {
    for refusal in [
        "C: MAIL\nC: RCPT\nC: DATA\nS: 550 no\nS: 503 no\nS: 503 no\none: RSET\nS: 250 reset\none: MAIL RCPT DATA\n",
        "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 550 no\nS: 503 no\none: RSET\nS: 250 reset\none: MAIL RCPT DATA\n",
        "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 451 no\none: RSET MAIL RCPT DATA\nS: 250 reset\n",
    ] {
        let script = format!("{GREETING}{refusal}S: 250 ok\nS: 250 ok\nS: 354 go\n.\nS: 250 ok");
        let (first, second, _) = twice(&[&script], |_| {}).await;
        assert!(!smtp(first).last.positive());
        accepted(second);
    }
}

#[tokio::test]
async fn a_message_refused_at_its_end_leaves_the_connection_usable() {
    let script = format!("{GREETING}{}{ONE}", ONE.replace("S: 250 2.0.0 queued as A1", "S: 554 5.7.1 spam"));
    let (first, second, heard) = twice(&[&script], |_| {}).await;
    assert_eq!(codes(first).1, 554);
    accepted(second);
    assert!(!heard[0].has("RSET"));
}

#[tokio::test]
async fn a_stale_connection_is_replaced_at_once_and_nobody_is_blamed() {
    let fresh = format!("{GREETING}{ONE}");
    for stale in [
        "close",
        "reset",
        "S: 421 4.4.2 idle\nclose",
        "C: MAIL\nclose",
        "C: MAIL\nreset",
        "C: MAIL\nC: RCPT\nC: DATA\nS: 421 4.4.2 idle\nclose",
        "C: MAIL\nC: RCPT\nC: DATA\nS: 451 4.4.2 Timeout waiting for data from client.\nclose",
        "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nclose",
        "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 421 bye\nclose",
    ] {
        let first_connection = format!("{GREETING}{ONE}{stale}");
        let (first, second, heard) = twice(&[&first_connection, &fresh], |_| {}).await;
        accepted(first);
        assert!(smtp(second).last.positive(), "{stale}");
        assert_eq!(heard[0].contents.len() + heard[1].contents.len(), 2, "{stale}: no message twice");
    }
}

#[tokio::test]
async fn a_line_that_dies_after_the_hand_over_is_not_tried_again() {
    let dies = format!("{GREETING}{ONE}{}", ONE.replace("S: 250 2.0.0 queued as A1", "close"));
    let (first, second, _) = twice(&[&dies], |_| {}).await;
    accepted(first);
    assert!(lost(second).1);
}

#[tokio::test]
async fn a_new_connection_that_fails_too_is_the_answer() {
    let stale = format!("{GREETING}{ONE}C: MAIL\nclose");
    let (_, second, _) = twice(&[&stale, "S: 421 4.3.2 down for today\nclose"], |_| {}).await;
    assert_eq!(codes(second), (Phase::Banner, 421, vec![]));
}

#[tokio::test]
async fn what_is_said_unasked_on_an_idle_connection_is_no_reply_to_the_next_mail() {
    let idle_for_too_long = format!("{GREETING}{ONE}asked\nS: 421 4.4.2 idle for too long\nhang");
    let next = format!("{GREETING}{ONE}");
    let gate = Abort::default();
    let upstream = Upstream::plays_with(&[&idle_for_too_long, &next], None, gate.clone()).await;
    let wire = wire(settings(&upstream));
    accepted(send(&wire, simple()).await);
    assert!(wire.pool.idle_and_quiet());
    gate.ask();
    eventually(|| !wire.pool.idle_and_quiet()).await;
    accepted(send(&wire, simple()).await);
    wire.close().await;
    let heard = upstream.heard().await;
    assert_eq!(
        heard[0].lines.iter().filter(|l| l.starts_with("MAIL")).count(),
        1,
        "nothing more was said to it"
    );
}

#[tokio::test]
async fn a_reply_too_many_after_the_message_ends_the_connection() {
    let extra =
        format!("{GREETING}{}", ONE.replace("S: 250 2.0.0 queued as A1", "R: 250 ok\\r\\n421 idle\\r\\n"));
    let (first, second, _) = twice(&[&extra, &format!("{GREETING}{ONE}")], |_| {}).await;
    accepted(first);
    accepted(second);
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_quit_and_the_next_message_gets_a_new_one() {
    let script = format!("{GREETING}{ONE}C: QUIT\nS: 221 bye");
    let upstream = Upstream::plays(&[&script, &script]).await;
    let wire = wire(Settings { idle_timeout: Duration::from_millis(20), ..settings(&upstream) });
    for _ in 0..2 {
        accepted(send(&wire, simple()).await);
        eventually(|| wire.pool.idle() == 0).await;
    }
    let heard = upstream.heard().await;
    assert!(heard.iter().all(|h| h.has("QUIT")));
}

#[tokio::test]
async fn no_more_connections_lie_idle_than_are_allowed_and_the_last_used_goes_first() {
    let script = format!("{GREETING}{ONE}");
    let upstream = Upstream::plays(&[&*script; 4]).await;
    let wire = wire(Settings { max_connections: 2, ..settings(&upstream) });
    let all = futures_util::future::join_all((0..4).map(|_| send(&wire, simple()))).await;
    all.into_iter().for_each(accepted);
    assert_eq!(wire.pool.idle(), 2);
    wire.close().await;
    assert_eq!(wire.pool.idle(), 0);
    upstream.heard().await;
}

#[tokio::test]
async fn a_refusal_stands_when_the_replies_after_it_stay_away_and_the_connection_goes() {
    for refusal in ["S: 550 5.1.8 no\nhang", "S: 250 ok\nS: 550 5.1.1 no\nhang"] {
        let script = format!("{GREETING}C: MAIL\nC: RCPT\nC: DATA\n{refusal}");
        let upstream = Upstream::plays(&[&script]).await;
        let wire = wire(Settings { timeout: Duration::from_millis(100), ..settings(&upstream) });
        assert_eq!(codes(send(&wire, simple()).await).1, 550);
        assert_eq!(wire.pool.idle(), 0, "its late replies would answer the next message");
    }
}
