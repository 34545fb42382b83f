//! HTTPS on the side port: the commands of this machine need nothing for it, others name a CA or the certificate.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::relay::Ran;
use crate::support::tls::{Pki, pki};
use crate::support::wait::holds_within;
use crate::support::{Relay, Upstream, http, wait_until};

/// As many as the port lets in, and some more.
const CROWD: usize = 300;

fn start() -> (Upstream, Relay) {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").https().start();
    (upstream, relay)
}

fn at(relay: &Relay) -> SocketAddr {
    relay.http().expect("the lock file names it")
}

fn trusts(relay: &Relay, pki: &Pki) -> bool {
    http::get_secure(at(relay), "/healthz", None, pki.client()).is_some_and(|a| a.status == 200)
}

/// Asks a relay as from elsewhere.
fn from_elsewhere(relay: &Relay, url: &str, more: &[&str]) -> Ran {
    let token = std::fs::read_to_string(relay.data_dir().join("admin.token")).unwrap();
    let common = ["esp", "list", "--url", url, "--token", token.trim()];
    relay.cli(&[&common[..], more].concat())
}

#[test]
fn the_commands_of_this_machine_need_nothing_for_it() {
    let (_upstream, relay) = start();
    let lock = std::fs::read_to_string(relay.data_dir().join("postroad.lock")).unwrap();
    assert!(lock.contains("https 127.0.0.1:") && lock.contains("certificate sha256:"), "{lock}");
    assert!(relay.log().contains("serving HTTPS"));
    relay.submit("a@example.org", &["b@example.com"], b"Subject: s\r\n\r\nx\r\n");
    assert!(
        relay.cli(&["queue", "list", "--state", "waiting,out,done"]).must(0).out.contains("b@example.com")
    );
    assert!(relay.cli(&["esp", "list"]).must(0).out.contains("up1"));
    relay.cli(&["check"]).must(0);
}

#[test]
fn others_name_a_ca_or_the_certificate_itself() {
    let (_upstream, relay) = start();
    let folder = relay.folder().display();
    let by_name = format!("https://localhost:{}", at(&relay).port());
    let by_address = format!("https://{}", at(&relay));
    let unknown = from_elsewhere(&relay, &by_name, &[]).must(4);
    assert!(unknown.err.contains("--ca-file"), "{}", unknown.err);
    for url in [&by_name, &by_address] {
        for file in ["ca.pem", "cert.pem"] {
            from_elsewhere(&relay, url, &["--ca-file", &format!("{folder}/{file}")]).must(0);
        }
    }
    let other = Pki::new("localhost");
    std::fs::write(relay.folder().join("other.pem"), &other.ca_pem).unwrap();
    from_elsewhere(&relay, &by_name, &["--ca-file", &format!("{folder}/other.pem")]).must(4);
    let none = from_elsewhere(&relay, &by_name, &["--ca-file", &format!("{folder}/key.pem")]).must(2);
    assert!(none.err.contains("no certificate"), "{}", none.err);
}

#[test]
fn who_speaks_the_other_protocol_is_told_so() {
    let (upstream, relay) = start();
    let plain = http::get(at(&relay), "/healthz", None).unwrap();
    assert_eq!((plain.status, plain.json()["error"]["code"].as_str()), (400, Some("https_only")));
    let told = from_elsewhere(&relay, &format!("http://{}", at(&relay)), &[]).must(2);
    assert!(told.err.contains("https://"), "{}", told.err);
    let without = Relay::to(&upstream);
    let told = from_elsewhere(&without, &format!("https://{}", at(&without)), &[]).must(4);
    assert!(told.err.contains("does not speak HTTPS"), "{}", told.err);
}

#[test]
fn a_renewed_certificate_is_taken_and_the_commands_follow() {
    let (_upstream, relay) = start();
    assert!(trusts(&relay, pki()));
    let renewed = Pki::new("localhost");
    renewed.write(relay.folder());
    wait_until("the renewed certificate", Duration::from_secs(90), || {
        relay.cli(&["esp", "list"]).must(0);
        trusts(&relay, &renewed)
    });
    relay.cli(&["esp", "list"]).must(0);
    std::fs::write(relay.folder().join("cert.pem"), "not a certificate\n").unwrap();
    assert!(
        !holds_within(Duration::from_secs(3), || !trusts(&relay, &renewed)),
        "the good one was taken away"
    );
    relay.cli(&["esp", "list"]).must(0);
}

#[test]
fn a_reload_tells_of_a_renewed_certificate() {
    let (_upstream, relay) = start();
    let reload = || relay.cli(&["reload"]).must(0).out;
    let renewed = Pki::new("localhost");
    renewed.write(relay.folder());
    assert_eq!(reload(), "http.tls_cert: read again\n");
    assert!(trusts(&relay, &renewed), "it is in use at once");
    assert_eq!(reload(), "nothing has changed\n");
    // One that a client had read before is news to who reloads all the same.
    pki().write(relay.folder());
    wait_until("the next", Duration::from_secs(90), || trusts(&relay, pki()));
    assert_eq!(reload(), "http.tls_cert: read again\n");
}

#[test]
fn handshakes_that_do_not_end_are_cut_and_keep_nobody_out() {
    let (_upstream, relay) = start();
    // A handshake record of which the rest never comes.
    let half = |_| {
        let mut stream = TcpStream::connect(at(&relay)).unwrap();
        let _ = stream.write_all(&[22, 3, 1, 2, 0]);
        stream
    };
    let crowd: Vec<TcpStream> = (0..CROWD).map(half).collect();
    assert!(trusts(&relay, pki()), "a crowd that never ends its handshakes keeps nobody out");
    relay.cli(&["esp", "list"]).must(0);
    let mut last = crowd.into_iter().next_back().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let ended = last.read(&mut [0; 64]);
    assert!(matches!(ended, Ok(0)) || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
}

#[test]
fn half_a_setting_and_files_that_cannot_be_used_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (lines, told) in [
        ("tls_cert = \"cert.pem\"", "http.tls_key: is missing"),
        ("tls_key = \"key.pem\"", "http.tls_cert: is missing"),
        ("tls_cert = \"none.pem\"\ntls_key = \"none.pem\"", "postroad.toml:2: http.tls_cert: none.pem"),
    ] {
        std::fs::write(folder.path().join("postroad.toml"), format!("[http]\n{lines}\n")).unwrap();
        let mut check = std::process::Command::new(crate::support::relay::binary());
        let ran = Ran::new(check.arg("check").current_dir(folder.path()).output().unwrap()).must(2);
        assert!(ran.err.contains(told), "{}", ran.err);
    }
}
