//! SES by its SDK, over the relay's own line, against a server of a few lines.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::address::{Address, Grammar};
use crate::mail::Abort;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SMTP_PASSWORD: &str = "BMW5RDrXmmVs0lV7GpI4oLkHXpZ4stDsk6q91z1g38Pk";
const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 34\r\n\r\n\
                     {\"MessageId\":\"0102-000000-000000\"}";

/// What it does with each request, once it is read.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// Says this and closes.
    Say(&'static str),
    /// Closes.
    Close,
    /// Says nothing.
    Hang,
    /// Says the first at once and the second so much later.
    SayLate(&'static str, Duration, &'static str),
}

/// A request as it came.
#[derive(Debug, Clone)]
struct Seen {
    head: String,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let book = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((mut line, _)) = listener.accept().await {
                let book = Arc::clone(&book);
                tokio::spawn(async move {
                    let Some(request) = read(&mut line).await else { return };
                    book.lock().unwrap().push(request);
                    match then {
                        Then::Say(words) => line.write_all(words.as_bytes()).await.unwrap(),
                        Then::Close => {}
                        Then::Hang => std::future::pending().await,
                        Then::SayLate(first, after, second) => {
                            line.write_all(first.as_bytes()).await.unwrap();
                            tokio::time::sleep(after).await;
                            line.write_all(second.as_bytes()).await.unwrap();
                        }
                    }
                });
            }
        });
        Server { url, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn read(line: &mut TcpStream) -> Option<Seen> {
    let mut octets = Vec::new();
    loop {
        let end = octets.windows(4).position(|w| w == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&octets[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |l| l.parse().unwrap());
            if octets.len() >= end + 4 + length {
                return Some(Seen { head, body: octets[end + 4..].to_vec() });
            }
        }
        if line.read_buf(&mut octets).await.ok()? == 0 {
            return None;
        }
    }
}

fn wire(server: &Server, timeout: Duration) -> SesWire {
    SesWire::new(Settings {
        region: "eu-west-1".into(),
        keys: Some(("AKIAEXAMPLE".into(), Secret::new(SECRET))),
        smtp_password: Some(Secret::new(SMTP_PASSWORD)),
        endpoint: Some(server.url.clone()),
        ca_file: None,
        max_connections: 2,
        timeout,
        judge_account: |reply| Ok(format!("{} {}", reply.status, reply.text())),
    })
}

fn request(data: Vec<u8>) -> Request {
    Request::Ses(SesRequest {
        recipients: ["ok@example.com", "b@b\u{fc}cher.example"]
            .map(|to| Address::parse(to, Grammar::Strict).unwrap())
            .to_vec(),
        data: data.into(),
        tags: vec![("postroad-attempt".into(), "0000000000007".into())],
        configuration_set: Some("events".into()),
    })
}

const PATIENT: Duration = Duration::from_secs(20);

async fn exchange(wire: &SesWire, request: Request) -> (Reply, Watch) {
    let watch = Watch::new(Abort::default());
    let reply = wire.exchange(request, &watch).await;
    let shown = format!("{reply:?} {wire:?}");
    assert!(!shown.contains(SECRET), "{shown}");
    (reply, watch)
}

#[tokio::test]
async fn the_request_is_signed_and_whole_and_the_answer_comes_as_it_was_said() {
    let server = Server::start(Then::Say(TAKEN)).await;
    let wire = wire(&server, PATIENT);
    let mime = b"From: a@example.org\r\n\r\nh\xe9llo\r\n".to_vec();
    let (reply, watch) = exchange(&wire, request(mime.clone())).await;
    let Reply::Http(answer) = reply else { panic!("{reply:?}") };
    assert_eq!((answer.status, answer.cut), (200, false));
    assert_eq!(answer.text(), "{\"MessageId\":\"0102-000000-000000\"}");
    assert!(watch.handed_over_for().is_some());
    let seen = server.seen().remove(0);
    assert!(seen.head.starts_with("post /v2/email/outbound-emails http/1.1\r\n"), "{}", seen.head);
    let credential = "authorization: aws4-hmac-sha256 credential=akiaexample/";
    assert!(
        seen.head.contains(credential) && seen.head.contains("/eu-west-1/ses/aws4_request"),
        "{}",
        seen.head
    );
    assert!(seen.head.contains("user-agent: aws-sdk-rust/"), "{}", seen.head);
    let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    use base64::Engine as _;
    let expected = serde_json::json!({
        "Destination": { "ToAddresses": ["ok@example.com", "b@xn--bcher-kva.example"] },
        "Content": { "Raw": { "Data": base64::engine::general_purpose::STANDARD.encode(&mime) } },
        "EmailTags": [{ "Name": "postroad-attempt", "Value": "0000000000007" }],
        "ConfigurationSetName": "events",
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_refusal_comes_raw_and_nothing_is_tried_twice() {
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nx-amzn-ErrorType: ServiceUnavailable:http://x/\r\n\
                        Content-Length: 18\r\n\r\n{\"message\":\"busy\"}";
    let server = Server::start(Then::Say(BUSY)).await;
    let (reply, _) = exchange(&wire(&server, PATIENT), request(b"a: b\r\n\r\n".to_vec())).await;
    let Reply::Http(answer) = reply else { panic!("{reply:?}") };
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-amzn-errortype"), Some("ServiceUnavailable:http://x/"));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn what_it_says_of_any_secret_of_the_account_is_blotted_out() {
    use base64::Engine as _;
    let plain =
        |password| base64::engine::general_purpose::STANDARD.encode(format!("\0AKIAEXAMPLE\0{password}"));
    for said in [SECRET.to_owned(), SMTP_PASSWORD.to_owned(), plain(SECRET), plain(SMTP_PASSWORD)] {
        let body = format!("{{\"message\":\"no {said}.\"}}");
        let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let server = Server::start(Then::Say(answer.leak())).await;
        let (reply, _) = exchange(&wire(&server, PATIENT), request(b"a: b\r\n\r\n".to_vec())).await;
        let Reply::Http(answer) = reply else { panic!("{reply:?}") };
        assert_eq!(answer.text(), r#"{"message":"no ***."}"#);
    }
}

#[tokio::test]
async fn an_answer_of_an_odd_status_comes_raw_too() {
    for (status, answer) in [
        (501, "HTTP/1.1 501 Not Implemented\r\nContent-Length: 4\r\n\r\nwhat"),
        (520, "HTTP/1.1 520 Unknown\r\nContent-Length: 4\r\n\r\nwhat"),
        (599, "HTTP/1.1 599 \r\nContent-Length: 4\r\n\r\nwhat"),
        (700, "HTTP/1.1 700 odd\r\nContent-Length: 4\r\n\r\nwhat"),
    ] {
        let server = Server::start(Then::Say(answer)).await;
        let (reply, _) = exchange(&wire(&server, PATIENT), request(b"a: b\r\n\r\n".to_vec())).await;
        let Reply::Http(answer) = reply else { panic!("{status}: {reply:?}") };
        assert_eq!((answer.status, &*answer.body), (status, &b"what"[..]));
        assert_eq!(server.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn what_is_lost_after_the_hand_over_is_unsure_and_before_it_is_not() {
    let mail = || request(b"a: b\r\n\r\n".to_vec());
    let server = Server::start(Then::Close).await;
    let (reply, _) = exchange(&wire(&server, PATIENT), mail()).await;
    assert!(matches!(reply, Reply::Lost { handed_over: true, phase: Phase::Answer, .. }), "{reply:?}");
    let cut = Server::start(Then::Say("HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n{\"Mess")).await;
    let (reply, _) = exchange(&wire(&cut, PATIENT), mail()).await;
    assert!(matches!(&reply, Reply::Http(answer) if answer.cut && answer.status == 200), "{reply:?}");
    let hung = Server::start(Then::Hang).await;
    let (reply, _) = exchange(&wire(&hung, Duration::from_millis(300)), mail()).await;
    assert!(matches!(reply, Reply::Lost { handed_over: true, .. }), "{reply:?}");
    let nobody = Server { url: "http://127.0.0.1:1".into(), seen: Arc::default() };
    let (reply, watch) = exchange(&wire(&nobody, PATIENT), mail()).await;
    assert!(matches!(reply, Reply::Lost { handed_over: false, phase: Phase::Connect, .. }), "{reply:?}");
    assert!(watch.handed_over_for().is_none());
    assert_eq!((server.seen().len(), cut.seen().len(), hung.seen().len()), (1, 1, 1), "none twice");
}

#[tokio::test]
async fn the_body_of_a_success_is_listened_for_as_long_as_the_watch_does() {
    let (head, body) = TAKEN.split_at(TAKEN.find("\r\n\r\n").unwrap() + 4);
    let short = Duration::from_millis(300);
    let late = Server::start(Then::SayLate(head, Duration::from_millis(1700), body)).await;
    let watch = Watch::that_listens(Abort::default(), PATIENT);
    let reply = wire(&late, short).exchange(request(b"a: b\r\n\r\n".to_vec()), &watch).await;
    assert!(matches!(&reply, Reply::Http(answer) if !answer.cut && answer.body == body), "{reply:?}");
    let never = Server::start(Then::SayLate(head, PATIENT * 10, body)).await;
    let (reply, _) = exchange(&wire(&never, short), request(b"a: b\r\n\r\n".to_vec())).await;
    assert!(matches!(&reply, Reply::Http(answer) if answer.cut), "{reply:?}");
}

#[tokio::test]
async fn what_was_given_up_before_the_hand_over_is_never_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = Server { url, seen: Arc::default() };
    let wire = wire(&server, PATIENT);
    let watch = Watch::new(Abort::default());
    // Nobody reads: more than the buffers of both sides hold.
    let sending = wire.exchange(request(vec![b'x'; 24 << 20]), &watch);
    tokio::pin!(sending);
    let stands_still = async {
        while watch.still_for() < Duration::from_millis(300) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        reply = &mut sending => panic!("{reply:?}"),
        () = stands_still => watch.abort(),
    }
    let reply = sending.await;
    assert!(matches!(reply, Reply::Lost { handed_over: false, .. }), "{reply:?}");
    assert!(watch.handed_over_for().is_none());
    drop(listener);
}

#[tokio::test]
async fn a_check_asks_for_the_account() {
    let server = Server::start(Then::Say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")).await;
    let checked = wire(&server, PATIENT).check().await;
    assert_eq!(checked.met, Ok(()));
    let steps: Vec<(&str, bool, &str)> =
        checked.steps.iter().map(|s| (s.name, s.ok, s.told.as_str())).collect();
    assert_eq!(steps, [("connect", true, &*format!("{} answers", server.url)), ("key", true, "200 {}")]);
    assert!(server.seen()[0].head.starts_with("get /v2/email/account http/1.1\r\n"));
    let nobody = Server { url: "http://127.0.0.1:1".into(), seen: Arc::default() };
    let checked = wire(&nobody, PATIENT).check().await;
    assert_eq!((checked.steps.len(), checked.steps[0].name, checked.steps[0].ok), (1, "connect", false));
}
