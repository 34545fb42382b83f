//! Strangers that begin a webhook's body and do not end it keep out neither mail nor the providers.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use postroad::clock::monotonic;
use serde_json::json;

use crate::support::hooks::Grid;
use crate::support::mailgen::plain;
use crate::support::relay::free_port;
use crate::support::{Relay, Upstream, wait_until};

const BOUND: Duration = Duration::from_secs(20);
/// Places of strangers are given away within a fraction of a second; it takes half a minute until they are late. The rest
/// is for a slow machine.
const SOON: Duration = Duration::from_secs(3);
/// A webhook's largest body.
const LARGEST: usize = 8_000_000;

fn public_relay(upstream: &Upstream, hook: &Grid) -> (Relay, SocketAddr) {
    let public = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let esp = format!(
        "[[esp]]\nname = \"grid\"\ntype = \"sendgrid\"\napi_key = \"SG.key\"\nendpoint = \"http://127.0.0.1:9\"\n\
         priority = 9\nwebhook_public_key = \"{}\"\n",
        hook.public_key()
    );
    let setup = Relay::setup().upstream(upstream, "").tables(&esp);
    let relay =
        setup.http(&format!("public_address = \"{public}\"\ntrusted_proxies = [\"127.0.0.1\"]")).start();
    wait_until("it listens", BOUND, || TcpStream::connect(public).is_ok());
    (relay, public)
}

/// A POST that tells of `length` octets and has sent `begun` of them.
fn half(at: SocketAddr, length: usize, begun: usize) -> TcpStream {
    half_by("192.0.2.1", at, length, begun)
}

/// That, by a stranger at this address.
fn half_by(who: &str, at: SocketAddr, length: usize, begun: usize) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    let fields = format!("Host: x\r\nX-Forwarded-For: {who}\r\nContent-Length: {length}");
    let head = format!("POST /webhooks/grid HTTP/1.1\r\n{fields}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // Where it is sent away meanwhile it cannot send all.
    let _ = stream.write_all(&vec![b'['; begun]);
    stream
}

fn heard_soon(hook: &Grid, at: SocketAddr) {
    for n in 0..5 {
        let began = monotonic();
        let answer = hook.try_post(at, "/webhooks/grid", &json!([{"event": "open", "sg_event_id": n}]));
        let took = began.elapsed();
        let status = answer.map(|answer| answer.status);
        assert!(status == Some(200) && took < SOON, "a webhook got {status:?} after {took:?}");
        println!("half bodies: a webhook took {took:?}");
    }
}

fn mail_is_taken(relay: &Relay) {
    relay.submit("a@example.org", &["ok@example.com"], &plain("meanwhile"));
    let mail =
        json!({"from": "a@example.org", "to": ["ok@example.com"], "subject": "meanwhile", "text": "x"});
    let answer = relay.post("/v1/send", &mail.to_string()).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
}

fn memory_held(relay: &Relay) -> f64 {
    relay.metric("postroad_memory_octets")
}

#[test]
fn a_length_that_is_only_told_takes_no_memory() {
    let (upstream, hook) = (Upstream::start(), Grid::new());
    let (relay, public) = public_relay(&upstream, &hook);
    let halves: Vec<_> = (0..40).map(|_| half(public, LARGEST, 1)).collect();
    wait_until("their octets came", BOUND, || memory_held(&relay) >= 40.0);
    assert!(memory_held(&relay) < 1_000_000.0, "{}", memory_held(&relay));
    mail_is_taken(&relay);
    heard_soon(&hook, public);
    drop(halves);
}

#[test]
fn octets_that_did_come_leave_most_of_the_memory_to_mail_and_some_to_other_addresses() {
    let (upstream, hook) = (Upstream::start(), Grid::new());
    let (relay, public) = public_relay(&upstream, &hook);
    let halves: Vec<_> = (0..8).map(|_| half(public, LARGEST, 2_000_000)).collect();
    wait_until("an address has what it may have", BOUND, || memory_held(&relay) > 20_000_000.0);
    assert!(memory_held(&relay) <= 32_000_000.0, "{}", memory_held(&relay));
    mail_is_taken(&relay);
    // The stranger is behind the proxy as well; who comes without its field is another address.
    heard_soon(&hook, public);
    drop(halves);
    wait_until("it is given back", BOUND, || memory_held(&relay) < 1_000_000.0);
}

#[test]
fn strangers_that_send_most_of_a_body_and_then_trickle_give_its_memory_to_a_provider() {
    let (upstream, hook) = (Upstream::start(), Grid::new());
    let (relay, public) = public_relay(&upstream, &hook);
    let mut halves: Vec<_> = ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
        .iter()
        .map(|who| half_by(who, public, LARGEST, 5_200_000))
        .collect();
    // Of 64 MB they have 62.4: for a body of a megabyte that is not enough.
    wait_until("all of it came", BOUND, || memory_held(&relay) >= 62_400_000.0);
    let trickle = |halves: &mut Vec<TcpStream>| {
        for half in halves {
            let _ = half.write_all(b"[");
        }
    };
    for n in 0..5 {
        trickle(&mut halves);
        let began = monotonic();
        let events = json!([{"event": "open", "sg_event_id": n, "useragent": "x".repeat(1_000_000)}]);
        let answer = hook.try_post(public, "/webhooks/grid", &events);
        let took = began.elapsed();
        let told = answer.as_ref().map(|answer| (answer.status, &answer.body));
        assert!(told.is_some_and(|(status, _)| status == 200) && took < SOON, "{told:?} after {took:?}");
        println!("half bodies: a webhook of a megabyte took {took:?}");
    }
    assert!(memory_held(&relay) >= 41_600_000.0, "one made room, and no more: {}", memory_held(&relay));
    mail_is_taken(&relay);
    drop(halves);
    wait_until("it is given back", BOUND, || memory_held(&relay) < 1_000_000.0);
}

#[test]
fn six_hundred_half_bodies_keep_no_webhook_out() {
    let (upstream, hook) = (Upstream::start(), Grid::new());
    let (relay, public) = public_relay(&upstream, &hook);
    for at in [public, relay.http().unwrap()] {
        let halves: Vec<_> = (0..600).map(|_| half(at, 1000, 1)).collect();
        heard_soon(&hook, at);
        drop(halves);
    }
    mail_is_taken(&relay);
}
