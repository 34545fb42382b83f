//! Mail that comes round again is stopped: by the count of its trace lines, and by our own mark at the second pass.

use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::mailgen::{head, plain};
use crate::support::wait::holds_within;
use crate::support::{Relay, Upstream, wait_until};

#[test]
fn its_own_trace_is_known_again() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    relay.submit("a@example.org", &["ok@example.com"], &plain("round"));
    let once_through = upstream.wait_for(1).remove(0).data;
    let mut client = relay.client();
    client.begin("a@example.org", &["ok@example.com"]);
    client.raw(&crate::support::smtp::stuffed(&once_through));
    client.expect("554 5.4.6".split(' ').next().unwrap());
    assert!(client.transcript.contains("554 5.4.6"), "{}", client.transcript);
    // Another relay of the same name is no loop.
    let other = Relay::to(&upstream);
    other.submit("a@example.org", &["ok@example.com"], &once_through);
    upstream.wait_for(2);
}

#[test]
fn a_relay_pointed_at_itself_stops_at_the_second_pass() {
    // The upstream only tells the port: the ESP below is the relay's own listener.
    let upstream = Upstream::start();
    let port = crate::support::relay::free_port();
    let own = format!(
        "[[listener]]\naddress = \"127.0.0.1:{port}\"\n[[esp]]\nname = \"self\"\ntype = \"smtp\"\naddress = \"127.0.0.1:{port}\"\ntls = \"off\"\n{FAST}"
    );
    // The report of the loop would be a message of its own.
    let relay = Relay::setup().server("dsn = \"off\"\n").tables(&own).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("mirror"));
    let life = || relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
    wait_until("the loop is seen", Duration::from_secs(20), || {
        life()["attempts"].to_string().contains("5.4.6")
    });
    // One message in the database: it was not accepted again.
    let more =
        holds_within(Duration::from_secs(1), || relay.metric("postroad_messages_accepted_total") > 1.0);
    assert!(!more, "accepted again");
    drop(upstream);
}

#[test]
fn fifty_hops_pass_and_one_more_does_not() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let hops = |n: usize| {
        let trace = "Received: from a by b; Mon, 23 Nov 2026 10:00:00 +0000\r\n".repeat(n);
        format!("{trace}{}\r\nhi\r\n", head("hops")).into_bytes()
    };
    let mut client = relay.client();
    client.submit("a@example.org", &["ok@example.com"], &hops(50));
    client.begin("a@example.org", &["ok@example.com"]);
    client.raw(&crate::support::smtp::stuffed(&hops(51)));
    let reply = client.expect("554");
    assert!(reply.raw.starts_with("554 5.4.6"), "{}", reply.raw);
    upstream.wait_for(1);
}
