//! SIGTERM: no new mail, what is in DATA is finished, what was not handed over waits as if it had not been begun.

use std::time::Duration;

use crate::support::mailgen::{assert_unchanged, head, plain};
use crate::support::wait::holds_within;
use crate::support::{Client, Fault, Point, Relay, Upstream};

#[test]
fn a_stop_during_data_finishes_the_message() {
    let upstream = Upstream::start();
    let mut relay = Relay::to(&upstream);
    let mut idle = relay.client();
    let mut client = relay.client();
    client.begin("a@example.org", &["ok@example.com"]);
    client.raw(format!("{}\r\nfirst half\r\n", head("stop")).as_bytes());
    relay.terminate();
    // The idle client is told to go.
    let told = idle.reply_within(Duration::from_secs(10));
    assert!(told.as_ref().map_or(true, |r| r.code == 421), "{told:?}");
    let refused = holds_within(Duration::from_secs(10), || match Client::try_connect(relay.smtp(), None) {
        Err(_) => true,
        Ok(mut c) => !matches!(c.reply_within(Duration::from_secs(5)), Ok(r) if r.code == 220),
    });
    assert!(refused, "new clients are still welcome");
    client.raw(b"second half\r\n.\r\n");
    client.expect("250");
    let status = relay.ended_within(Duration::from_secs(30));
    assert!(status.is_some_and(|s| s.success()), "{status:?}\n{}", relay.log());
    relay.restart();
    let received = upstream.wait_for(1);
    assert_unchanged(
        format!("{}\r\nfirst half\r\nsecond half\r\n", head("stop")).as_bytes(),
        &received[0].data,
    );
}

#[test]
fn a_client_that_never_ends_its_data_does_not_hold_the_stop() {
    let upstream = Upstream::start();
    let mut relay = Relay::to(&upstream);
    let mut client = relay.client();
    client.begin("a@example.org", &["ok@example.com"]);
    client.raw(b"Subject: never\r\n\r\n");
    relay.terminate();
    let status = relay.ended_within(Duration::from_secs(32));
    assert!(status.is_some_and(|s| s.success()), "no end within 30 s: {status:?}");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn what_was_begun_and_not_handed_over_is_unbegun() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Banner, Fault::Hang);
    let hold = "[[stream]]\nname = \"transactional\"\nunsure_hold = \"1h\"\n";
    let mut relay = Relay::setup().upstream(&upstream, "max_connections = 2").tables(hold).start();
    let mut client = relay.client();
    let ids: Vec<String> = (0..6)
        .map(|n| client.submit("a@example.org", &["ok@example.com"], &plain(&format!("u{n}"))))
        .collect();
    holds_within(Duration::from_secs(10), || upstream.open_connections() > 0);
    relay.stop();
    upstream.heal();
    relay.restart();
    upstream.wait_for_within(6, Duration::from_secs(30));
    for id in ids {
        let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
        assert!(!life["attempts"].to_string().contains("unsure"), "held for nothing: {life}");
        assert!(!life["events"].to_string().contains("twice"), "{life}");
    }
    assert_eq!(upstream.count(), 6);
}

#[test]
fn a_hang_up_of_the_terminal_is_no_stop_and_an_interrupt_is() {
    let upstream = Upstream::start();
    let mut relay = Relay::to(&upstream);
    relay.signal(rustix::process::Signal::HUP);
    relay.submit("a@example.org", &["ok@example.com"], &plain("hup"));
    upstream.wait_for(1);
    assert!(relay.ended_within(Duration::from_millis(300)).is_none(), "SIGHUP ended it");
    relay.signal(rustix::process::Signal::INT);
    let status = relay.ended_within(Duration::from_secs(30));
    assert!(status.is_some_and(|s| s.success()), "{status:?}");
}
