//! Behind proxies who asks is whom the trusted ones name, and nobody else can say who he is.

use std::net::SocketAddr;

use crate::support::Relay;
use crate::support::http::post_with;

/// More than an address may be refused at once.
const MANY: usize = 80;

fn refused(at: SocketAddr, forwarded: &str) -> u16 {
    post_with(at, "/webhooks/nobody", None, &[("X-Forwarded-For", forwarded)], "{}").unwrap().status
}

#[test]
fn a_trusted_proxy_names_who_is_limited() {
    let relay = Relay::setup().http("trusted_proxies = [\"127.0.0.1\"]").start();
    let at = relay.http().unwrap();
    let all: Vec<u16> = (0..MANY).map(|_| refused(at, "203.0.113.5, 198.51.100.1")).collect();
    assert_eq!((all[0], all[MANY - 1]), (401, 429), "one who is refused too often");
    assert_eq!(refused(at, "203.0.113.5, 198.51.100.2"), 401, "and another who is not");
    assert_eq!(refused(at, "198.51.100.2, 198.51.100.1"), 429, "what he writes before it is his own");
}

#[test]
fn who_is_no_trusted_proxy_stays_who_he_is() {
    for http in ["", "trusted_proxies = [\"10.0.0.0/8\"]"] {
        let relay = Relay::setup().http(http).start();
        let at = relay.http().unwrap();
        let all: Vec<u16> = (0..MANY).map(|n| refused(at, &format!("198.51.100.{n}"))).collect();
        assert_eq!((all[0], all[MANY - 1]), (401, 429), "{http}");
    }
}
