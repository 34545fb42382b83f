//! TLS and AUTH.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::secret::Secret;
use crate::wire::smtp::{Login, Proof};

struct Authority {
    acceptor: TlsAcceptor,
    ca_file: PathBuf,
    _directory: tempfile::TempDir,
}

static CAS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// A CA of our own, and a server with a certificate for `name`.
fn authority(name: &str) -> Authority {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    // Two CAs of one name would be told apart by their signatures only.
    let unique = std::sync::atomic::AtomicU32::fetch_add(&CAS, 1, std::sync::atomic::Ordering::Relaxed);
    ca.distinguished_name.push(rcgen::DnType::CommonName, format!("test CA {unique}"));
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, ca_certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    Authority { acceptor: TlsAcceptor::from(Arc::new(config)), ca_file, _directory: directory }
}

const STARTTLS: &str = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250 starttls\nC: STARTTLS\nS: 220 go\ntls\nC: EHLO\nS: 250-mx\nS: 250-PIPELINING\nS: 250 AUTH PLAIN\n";

async fn over_tls(script: &str, host: &str, change: impl Fn(&mut Settings)) -> (Reply, Vec<Heard>) {
    let authority = authority("localhost");
    let upstream = Upstream::plays_over(&[script], authority.acceptor).await;
    let mut settings = Settings {
        host: host.into(),
        tls: Tls::StartTls,
        ca_file: Some(authority.ca_file.clone()),
        ..settings(&upstream)
    };
    change(&mut settings);
    let wire = wire(settings);
    let reply = send(&wire, simple()).await;
    wire.close().await;
    (reply, upstream.heard().await)
}

fn login() -> Option<Login> {
    Some(Login { username: "user".into(), proof: Proof::Password(Secret::new("pass")) })
}

#[tokio::test]
async fn mail_goes_under_starttls_after_a_second_ehlo() {
    let script = format!("{STARTTLS}C: AUTH PLAIN AHVZZXIACGFZCW==\nS: 235 ok\n{ONE}");
    let (reply, heard) = over_tls(&script, "localhost", |s| s.login = login()).await;
    assert!(smtp(reply).last.positive());
    assert_eq!(heard[0].line("AUTH"), "AUTH PLAIN AHVzZXIAcGFzcw==");
    assert!(heard[0].has("QUIT"));
}

#[tokio::test]
async fn mail_goes_under_tls_from_the_first_octet_and_the_line_is_used_again() {
    let authority = authority("localhost");
    let script = format!("tls\n{GREETING}{ONE}{ONE}");
    let upstream = Upstream::plays_over(&[&script], authority.acceptor).await;
    let wire = wire(Settings {
        host: "localhost".into(),
        tls: Tls::Implicit,
        ca_file: Some(authority.ca_file.clone()),
        ..settings(&upstream)
    });
    for _ in 0..2 {
        assert!(smtp(send(&wire, simple()).await).last.positive());
    }
    wire.close().await;
    assert_eq!(upstream.heard().await[0].contents.len(), 2);
}

#[tokio::test]
async fn a_certificate_for_another_host_or_of_an_unknown_ca_is_refused() {
    let other = authority("localhost");
    let rows: [(&str, PathBuf, &str); 3] = [
        ("127.0.0.1", PathBuf::new(), "not valid for name"),
        ("localhost", other.ca_file.clone(), "ca_file"),
        ("localhost", "/nonexistent/ca.pem".into(), "/nonexistent/ca.pem"),
    ];
    for (host, ca_file, why) in rows {
        let change = |s: &mut Settings| {
            if ca_file != PathBuf::new() {
                s.ca_file = Some(ca_file.clone());
            }
            s.login = login();
        };
        let (reply, heard) = over_tls(STARTTLS, host, change).await;
        let (phase, handed_over, said) = lost(reply);
        assert_eq!((phase, handed_over), (Phase::Tls, false));
        assert!(said.contains(why), "{said}");
        assert!(!heard[0].has("AUTH") && !heard[0].has("MAIL"));
    }
}

#[tokio::test]
async fn without_starttls_nothing_is_sent() {
    let none = "S: 220 mx\nC: EHLO\nS: 250 AUTH PLAIN\nhang";
    let (reply, heard) = over_tls(none, "127.0.0.1", |s| s.login = login()).await;
    assert_eq!(lost(reply).0, Phase::Tls);
    assert_eq!(heard[0].lines.len(), 1, "{:?}", heard[0].lines);

    let later = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not now\nhang";
    let (reply, _) = over_tls(later, "127.0.0.1", |_| {}).await;
    assert_eq!(codes(reply), (Phase::Tls, 454, vec![]));
}

#[tokio::test]
async fn plain_text_behind_starttls_s_reply_is_an_attack() {
    let script = "S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nR: 220 go\\r\\n250-mx\\r\\n250 AUTH PLAIN\\r\\n\nhang";
    let (reply, heard) = over_tls(script, "localhost", |s| s.login = login()).await;
    let (phase, _, said) = lost(reply);
    assert_eq!(phase, Phase::Tls);
    assert!(said.contains("STARTTLS"), "{said}");
    assert!(!heard[0].has("AUTH"));
}

async fn authenticating(script: &str) -> (Reply, Vec<Heard>) {
    let upstream = Upstream::plays(&[&format!("S: 220 mx\nC: EHLO\nS: 250-mx\n{script}")]).await;
    let wire = wire(Settings { login: login(), ..settings(&upstream) });
    let reply = send(&wire, simple()).await;
    wire.close().await;
    (reply, upstream.heard().await)
}

const STEPWISE: &str = "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\n.\nS: 250 ok\n";

#[tokio::test]
async fn login_goes_in_two_steps_whatever_the_prompts_say() {
    for (first, second) in [("334 VXNlciBOYW1lAA==", "334 UGFzc3dvcmQA"), ("334", "334 ???")] {
        let script = format!(
            "S: 250 auth login\nC: AUTH\nS: {first}\nC: DXNLCG==\nS: {second}\nC: CGFZCW==\nS: 235 2.7.0 ok\n{STEPWISE}"
        );
        let (reply, heard) = authenticating(&script).await;
        assert!(smtp(reply).last.positive());
        assert_eq!(heard[0].line("AUTH"), "AUTH LOGIN");
    }
}

#[tokio::test]
async fn plain_goes_first_and_its_response_again_where_it_is_asked_for() {
    let script = format!(
        "S: 250 AUTH CRAM-MD5 LOGIN PLAIN\nC: AUTH PLAIN AHVZZXIACGFZCW==\nS: 334\nC: AHVZZXIACGFZCW==\nS: 235 ok\n{STEPWISE}"
    );
    assert!(smtp(authenticating(&script).await.0).last.positive());
}

#[tokio::test]
async fn cram_md5_answers_the_challenge_of_rfc_2195() {
    // Its example has another secret; this digest is of HMAC-MD5(pass, challenge).
    let challenge = "PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+";
    let script = format!(
        "S: 250 AUTH CRAM-MD5\nC: AUTH CRAM-MD5\nS: 334 {challenge}\nC: DXNLCI\nS: 235 ok\n{STEPWISE}"
    );
    assert!(smtp(authenticating(&script).await.0).last.positive());
}

#[tokio::test]
async fn where_no_auth_is_offered_or_it_is_refused_the_phase_says_so() {
    let (reply, heard) = authenticating("S: 250 HELP\nhang").await;
    let (phase, _, said) = lost(reply);
    assert_eq!(phase, Phase::Auth);
    assert!(said.contains("no AUTH"), "{said}");
    assert!(!heard[0].has("MAIL"));

    let (reply, _) = authenticating("S: 250 AUTH PLAIN\nC: AUTH\nS: 535 5.7.8 wrong\nhang").await;
    assert_eq!(codes(reply), (Phase::Auth, 535, vec![]));
}

#[test]
fn no_debug_shows_the_password() {
    let settings = Settings { login: login(), ..Settings::new("mx", 25) };
    let shown = format!("{:?}", wire(settings));
    assert!(!shown.contains("pass\"") && shown.contains("***"), "{shown}");
}
