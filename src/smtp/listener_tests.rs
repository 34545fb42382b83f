//! A listener over real sockets on loopback: room, TLS, stop.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::*;
use crate::smtp::testing::{Script, settings, shared};
use crate::smtp::tls::tests::write_certificate;

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    done: JoinHandle<()>,
    script: Arc<Script>,
}

fn start(change: impl FnOnce(&mut ListenerSettings)) -> Running {
    let mut settings = settings();
    change(&mut settings);
    let listener = Listener::bind(settings, shared()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, script) = (CancellationToken::new(), Arc::new(Script::default()));
    let doorway = listener.doorway(Arc::clone(&script));
    let done = tokio::spawn(listener.run(doorway, stop.clone()));
    Running { address, stop, done, script }
}

async fn connect(running: &Running) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(running.address).await.unwrap())
}

/// One reply, all its lines; empty at the end.
async fn reply(stream: &mut BufReader<impl AsyncRead + Unpin>) -> String {
    let mut reply = String::new();
    loop {
        let mut line = String::new();
        let read = timeout(Duration::from_secs(10), stream.read_line(&mut line)).await.expect("no reply");
        if read.unwrap_or(0) == 0 {
            return reply;
        }
        reply += &line;
        if line.as_bytes().get(3) == Some(&b' ') {
            return reply;
        }
    }
}

async fn expect(stream: &mut BufReader<impl AsyncRead + Unpin>, beginning: &str) {
    let reply = reply(stream).await;
    assert!(reply.starts_with(beginning) && !reply.is_empty(), "expected {beginning}, got {reply:?}");
}

async fn ask(stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>, line: &str, beginning: &str) {
    stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    expect(stream, beginning).await;
}

async fn submit(stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>) {
    for (line, beginning) in [
        ("EHLO x", "250"),
        ("MAIL FROM:<a@example.org>", "250"),
        ("RCPT TO:<b@example.com>", "250"),
        ("DATA", "354"),
        ("Subject: x\r\n\r\nhi\r\n.", "250 2.0.0"),
    ] {
        ask(stream, line, beginning).await;
    }
}

fn connector(pem: &str) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

#[tokio::test]
async fn a_message_comes_in_and_the_stop_is_in_order() {
    let running = start(|_| {});
    let mut busy = connect(&running).await;
    let mut idle = connect(&running).await;
    expect(&mut busy, "220 relay.test").await;
    expect(&mut idle, "220").await;
    submit(&mut busy).await;
    running.stop.cancel();
    expect(&mut idle, "421 4.3.2").await;
    expect(&mut busy, "421 4.3.2").await;
    drop((busy, idle));
    timeout(Duration::from_secs(5), running.done).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
    assert_eq!(running.script.messages.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn starttls_and_implicit_tls() {
    let directory = tempfile::tempdir().unwrap();
    let (files, pem) = write_certificate(directory.path());
    let running = start(|s| (s.tls, s.certificate) = (TlsMode::StartTls, Some(files.clone())));
    let mut plain = connect(&running).await;
    expect(&mut plain, "220").await;
    ask(&mut plain, "EHLO x", "250-").await;
    ask(&mut plain, "STARTTLS", "220 2.0.0").await;
    let tls = connector(&pem).connect(localhost(), plain.into_inner()).await.unwrap();
    let mut tls = BufReader::new(tls);
    ask(&mut tls, "MAIL FROM:<a@b.c>", "503").await;
    submit(&mut tls).await;
    ask(&mut tls, "QUIT", "221").await;

    let running = start(|s| (s.tls, s.certificate) = (TlsMode::Implicit, Some(files)));
    let stream = TcpStream::connect(running.address).await.unwrap();
    let mut tls = BufReader::new(connector(&pem).connect(localhost(), stream).await.unwrap());
    expect(&mut tls, "220").await;
    submit(&mut tls).await;
    ask(&mut tls, "QUIT", "221").await;
    let mut rest = Vec::new();
    tls.read_to_end(&mut rest).await.expect("TLS was not closed in order");
}

#[tokio::test]
async fn one_client_too_many_gets_the_room_of_the_longest_idle() {
    let running = start(|s| s.max_connections = 2);
    let mut first = connect(&running).await;
    expect(&mut first, "220").await;
    let mut second = connect(&running).await;
    expect(&mut second, "220").await;
    let mut third = connect(&running).await;
    expect(&mut third, "220").await;
    expect(&mut first, "421 4.3.2").await;
    assert_eq!(reply(&mut first).await, "");
    for stream in [&mut second, &mut third] {
        ask(stream, "EHLO x", "250").await;
        ask(stream, "MAIL FROM:<>", "250").await;
        ask(stream, "RCPT TO:<b@example.com>", "250").await;
    }
    let mut fourth = connect(&running).await;
    expect(&mut fourth, "421 4.3.2 too many").await;
    ask(&mut second, "RSET", "250").await;
    let mut fifth = connect(&running).await;
    expect(&mut fifth, "220").await;
    expect(&mut second, "421").await;
}

#[tokio::test]
async fn a_handshake_is_no_longer_than_a_silence() {
    let directory = tempfile::tempdir().unwrap();
    let (files, _) = write_certificate(directory.path());
    for tls in [TlsMode::Implicit, TlsMode::StartTls] {
        let running = start(|s| {
            (s.tls, s.certificate) = (tls, Some(files.clone()));
            s.idle_timeout = Duration::from_millis(300);
        });
        let mut stream = connect(&running).await;
        if tls == TlsMode::StartTls {
            expect(&mut stream, "220").await;
            ask(&mut stream, "EHLO x", "250").await;
            ask(&mut stream, "STARTTLS", "220").await;
        }
        // The first octets of a handshake that does not go on; `reply` waits 10 s for the end.
        stream.write_all(b"\x16\x03\x01").await.unwrap();
        assert_eq!(reply(&mut stream).await, "");
    }
}

#[tokio::test]
async fn a_fault_in_one_session_ends_that_one() {
    let running = start(|_| {});
    let mut stream = connect(&running).await;
    expect(&mut stream, "220").await;
    ask(&mut stream, "EHLO x", "250").await;
    ask(&mut stream, "MAIL FROM:<>", "250").await;
    stream.write_all(b"RCPT TO:<panic@x.org>\r\n").await.unwrap();
    assert_eq!(reply(&mut stream).await, "");
    let mut next = connect(&running).await;
    expect(&mut next, "220").await;
    submit(&mut next).await;
}

#[tokio::test]
async fn errors_at_the_start_say_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = |change: &dyn Fn(&mut ListenerSettings)| {
        let mut settings = settings();
        change(&mut settings);
        Listener::bind(settings, shared()).unwrap_err().to_string()
    };
    let address = taken.local_addr().unwrap();
    let error = bind(&|s| s.address = address);
    assert!(error.contains(&address.to_string()) && error.contains("another program"), "{error}");
    let error = bind(&|s| s.tls = TlsMode::Implicit);
    assert!(error.contains("cert and key"), "{error}");
}
