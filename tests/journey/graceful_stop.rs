//! SIGTERM: no new mail, what is in DATA is finished, what was not handed over waits as if it had not been begun.

use std::time::Duration;

use postroad::clock::monotonic;

use crate::support::mailgen::{assert_unchanged, head, plain};
use crate::support::smtp::Reply;
use crate::support::wait::holds_within;
use crate::support::{Client, Fault, Point, Relay, Upstream, wait_until};

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

/// Sends a line a second for `bound`, or until something is said: what and when.
fn moves_until_told(client: &mut Client, bound: Duration) -> Option<(Reply, Duration)> {
    let began = monotonic();
    while began.elapsed() < bound {
        client.raw(b"one more line\r\n");
        if let Ok(reply) = client.reply_within(Duration::from_secs(1)) {
            return Some((reply, began.elapsed()));
        }
    }
    None
}

#[test]
fn data_that_moves_has_most_of_the_stop_and_who_is_cut_is_told() {
    let upstream = Upstream::start();
    let mut relay = Relay::to(&upstream);
    let mut clients: Vec<Client> = (0..3).map(|_| relay.client()).collect();
    for client in &mut clients {
        client.begin("a@example.org", &["ok@example.com"]);
        client.raw(b"Subject: long\r\n\r\n");
    }
    let [silent, ending, endless] = &mut clients[..] else { unreachable!() };
    relay.terminate();
    let began = monotonic();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let told = silent.reply_within(Duration::from_secs(15)).expect("the silent one is told");
            assert!(told.raw.starts_with("421 4.3.2") && told.complaint().is_none(), "{}", told.raw);
        });
        scope.spawn(|| {
            assert!(moves_until_told(ending, Duration::from_secs(20)).is_none(), "cut while it moves");
            ending.raw(b".\r\n").expect("250");
        });
        scope.spawn(|| {
            let told = moves_until_told(endless, Duration::from_secs(30));
            let (told, after) = told.expect("the endless one is told");
            assert!(told.raw.starts_with("421 4.3.2") && told.complaint().is_none(), "{}", told.raw);
            assert!(after >= Duration::from_secs(20), "it had {after:?} only");
        });
    });
    let status = relay.ended_within(Duration::from_secs(30).saturating_sub(began.elapsed()));
    assert!(status.is_some_and(|s| s.success()), "no end within 30 s: {status:?}");
    println!("the stop took {:?}", began.elapsed());
    relay.restart();
    upstream.wait_for(1);
}

#[test]
fn a_stop_with_data_that_moves_and_an_upstream_that_hangs_ends_within_30_s() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Dot, Fault::Hang);
    let mut relay = Relay::to(&upstream);
    relay.submit("a@example.org", &["ok@example.com"], &plain("hangs"));
    let mut endless = relay.client();
    endless.begin("a@example.org", &["ok@example.com"]);
    wait_until("it is handed over", Duration::from_secs(10), || upstream.open_connections() > 0);
    relay.terminate();
    let began = monotonic();
    let (told, after) = moves_until_told(&mut endless, Duration::from_secs(30)).expect("it is told");
    assert!(told.raw.starts_with("421 4.3.2"), "{}", told.raw);
    assert!(after >= Duration::from_secs(20), "it had {after:?} only");
    let status = relay.ended_within(Duration::from_secs(30).saturating_sub(began.elapsed()));
    assert!(status.is_some_and(|s| s.success()), "no end within 30 s: {status:?}");
    println!("the stop took {:?}", began.elapsed());
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
