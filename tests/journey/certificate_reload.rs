//! A renewed certificate is used by the next connection, without a restart; a broken one leaves the old in use.

use std::time::Duration;

use crate::support::tls::Pki;
use crate::support::wait::holds_within;
use crate::support::{Client, Relay, Upstream, wait_until};

/// Whether a client that trusts `pki` alone can greet under implicit TLS.
fn greets(relay: &Relay, pki: &Pki) -> bool {
    let Ok(mut client) = Client::try_connect(relay.smtp(), None) else { return false };
    client.handshake_with(pki.client()).is_ok() && client.reply_within(Duration::from_secs(5)).is_ok()
}

#[test]
fn a_renewed_certificate_is_taken_without_a_restart() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").tls_listener("implicit", "").start();
    assert!(greets(&relay, crate::support::tls::pki()));
    let renewed = Pki::new("localhost");
    assert!(!greets(&relay, &renewed));
    renewed.write(relay.folder());
    wait_until("the renewed certificate", Duration::from_secs(90), || greets(&relay, &renewed));
    std::fs::write(relay.folder().join("cert.pem"), "not a certificate\n").unwrap();
    let lost = holds_within(Duration::from_secs(3), || !greets(&relay, &renewed));
    assert!(!lost, "a broken file took the good certificate away");
}
