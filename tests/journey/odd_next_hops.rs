//! Next hops that do what real ones do and no book says.

use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::mailgen::{assert_unchanged, plain};
use crate::support::upstream::Manner;
use crate::support::wait::holds_within;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

#[test]
fn a_354_where_nobody_was_taken_is_no_delivery() {
    let upstream = Upstream::with(Manner { lax_data: true, ..Manner::default() });
    upstream.fail_always(Point::RcptOf("nobody@"), Fault::Reply("550 5.1.1 no such user"));
    let relay = Relay::to(&upstream);
    let id = relay.submit("a@example.org", &["nobody@example.com"], &plain("lax"));
    wait_until("it is refused", Duration::from_secs(15), || {
        let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
        life["deliveries"][0]["reason"] == "refused"
    });
    relay.submit("a@example.org", &["ok@example.com"], &plain("next"));
    let received = upstream.wait_for(1);
    assert_unchanged(&plain("next"), &received[0].data);
    assert_eq!(received[0].to, ["<ok@example.com>"]);
}

#[test]
fn a_server_without_ehlo_is_greeted_with_helo() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Ehlo, Fault::Reply("502 5.5.1 command not implemented"));
    let relay = Relay::to(&upstream);
    relay.submit("a@example.org", &["ok@example.com"], &plain("helo"));
    let received = upstream.wait_for_within(1, Duration::from_secs(15));
    assert_eq!(received[0].mail, "<a@example.org>", "no parameters where nothing was offered");
    assert_unchanged(&plain("helo"), &received[0].data);
}

#[test]
fn a_greeting_of_many_lines_and_answers_of_many_lines() {
    let greeting = "220-upstream.test ESMTP\r\n220-We do not authorise the use of this system\r\n220 go";
    let upstream = Upstream::with(Manner { greeting: greeting.into(), ..Manner::default() });
    upstream
        .fail_always(Point::Dot, Fault::Reply("250-2.0.0 taken\r\n250-2.0.0 and kept\r\n250 2.0.0 as 4711"));
    let relay = Relay::to(&upstream);
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("lines"));
    upstream.wait_for(1);
    wait_until("it is done", Duration::from_secs(10), || {
        relay.get(&format!("/v1/messages/{id}")).is_some_and(|a| a.body.contains("as 4711"))
    });
    assert!(!holds_within(Duration::from_millis(500), || upstream.count() > 1));
}

#[test]
fn codes_without_words_count() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Mail, Fault::Reply("250"));
    upstream.fail_always(Point::Dot, Fault::Reply("250"));
    let relay = Relay::to(&upstream);
    relay.submit("a@example.org", &["ok@example.com"], &plain("wordless"));
    upstream.wait_for(1);
    assert!(!holds_within(Duration::from_millis(500), || upstream.count() > 1));
}

#[test]
fn a_server_that_takes_ten_at_a_time_gets_all_of_them() {
    let upstream = Upstream::with(Manner { recipients_max: 10, ..Manner::default() });
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
    let to: Vec<String> = (0..35).map(|n| format!("r{n}@example.com")).collect();
    relay.submit("a@example.org", &to.iter().map(String::as_str).collect::<Vec<_>>(), &plain("tens"));
    let mut all = Vec::new();
    let there = holds_within(Duration::from_secs(40), || {
        all = upstream.received().into_iter().flat_map(|r| r.to).collect::<Vec<_>>();
        all.len() >= 35
    });
    assert!(there, "{} of 35", all.len());
    all.sort();
    all.dedup();
    assert_eq!((all.len(), upstream.received().iter().map(|r| r.to.len()).sum::<usize>()), (35, 35));
}

#[test]
fn a_reply_without_end_is_no_memory_and_no_delivery() {
    let upstream = Upstream::start();
    let endless: &'static str =
        Box::leak(format!("250-{}\r\n", "x".repeat(500)).repeat(20_000).into_boxed_str());
    upstream.fail(Point::Ehlo, Fault::Reply(endless), 1);
    let relay = Relay::setup().upstream(&upstream, "timeout = \"5s\"").tables(FAST).start();
    relay.submit("a@example.org", &["ok@example.com"], &plain("endless"));
    upstream.wait_for_within(1, Duration::from_secs(40));
    assert!(relay.memory_kilobytes("VmHWM").unwrap() < 150_000);
}

#[test]
fn a_server_that_speaks_first_and_out_of_turn_is_not_believed() {
    // Two replies for one command: the second would be taken for the next one's.
    let upstream = Upstream::start();
    upstream.fail(Point::Mail, Fault::Reply("250 2.1.0 ok\r\n550 5.1.1 out of turn"), 1);
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
    let id = relay.submit("a@example.org", &["one@example.com", "two@example.com"], &plain("turn"));
    // Whatever it makes of it, both are told apart from sent in the end: nothing hangs.
    wait_until("it comes to an end", Duration::from_secs(40), || {
        let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
        (0..2).all(|n| life["deliveries"][n]["state"] == "done")
    });
}

#[test]
fn two_replies_for_one_recipient_bounce_neither_it_nor_the_next() {
    let upstream = Upstream::start();
    upstream.fail(Point::RcptOf("one@"), Fault::Reply("550 5.1.1 no\r\n550 5.1.1 no such user"), 1);
    let relay = Relay::setup().upstream(&upstream, "").tables(FAST).start();
    relay.submit("a@example.org", &["one@example.com", "two@example.com"], &plain("twice"));
    let received = upstream.wait_for_within(1, Duration::from_secs(40));
    assert_eq!(received[0].to, ["<one@example.com>", "<two@example.com>"]);
}
