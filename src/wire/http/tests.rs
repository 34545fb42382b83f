//! The HTTP wire against a server that does exactly what each test says.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::mail::Abort;

const PATIENCE: Duration = Duration::from_secs(2);

fn wire(base: &str) -> HttpWire {
    HttpWire::new(Settings {
        base: base.to_owned(),
        key: Key { field: "authorization", scheme: "Bearer ", secret: Secret::new("SG.a-key-of-a-test") },
        fields: Vec::new(),
        ca_file: None,
        max_connections: 4,
        timeout: PATIENCE,
        probe: Probe {
            path: "/probe",
            judge: |reply| if reply.status == 200 { Ok("good".into()) } else { Err(reply.to_string()) },
        },
    })
}

fn request(octets: usize) -> Request {
    Request::Http(HttpRequest {
        path: "/send",
        headers: vec![("x-more", "1".into())],
        body: vec![b'x'; octets].into(),
        told_by_head: Some(299),
    })
}

async fn post(wire: &HttpWire, octets: usize) -> (Reply, Watch) {
    let watch = Watch::new(Abort::default());
    (wire.exchange(request(octets), &watch).await, watch)
}

/// A server; `serve` gets each connection.
async fn server<F, R>(serve: F) -> (String, JoinHandle<()>)
where
    F: Fn(usize, TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut n = 0;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(n, stream));
            n += 1;
        }
    });
    (base, task)
}

/// Reads one request; its head and how many octets of its body came.
async fn read_request(stream: &mut TcpStream) -> Option<(String, usize)> {
    let mut octets = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(at) = memchr::memmem::find(&octets, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&octets[..at]).to_ascii_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if octets.len() - at - 4 >= length.unwrap_or(0) {
                return Some((head, octets.len() - at - 4));
            }
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => octets.extend_from_slice(&piece[..n]),
        }
    }
}

async fn say(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes()).await;
}

const OK: &str = "HTTP/1.1 202 Accepted\r\nX-Message-Id: m-1\r\nContent-Length: 2\r\n\r\n{}";

fn reply(reply: Reply) -> HttpReply {
    match reply {
        Reply::Http(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_is_brought_back_and_the_connection_is_used_again() {
    let (base, _server) = server(|n, mut stream| async move {
        while let Some((head, octets)) = read_request(&mut stream).await {
            assert!(head.starts_with("post /send http/1.1") && head.contains("authorization: bearer sg.a-key"));
            assert!(head.contains("content-type: application/json") && head.contains("x-more: 1"), "{head}");
            say(&mut stream, &format!("HTTP/1.1 202 Accepted\r\nX-Connection: {n}\r\nX-Octets: {octets}\r\nContent-Length: 2\r\n\r\n{{}}")).await;
        }
    })
    .await;
    let wire = wire(&base);
    for octets in [1, 100, 300_000] {
        let (answer, watch) = post(&wire, octets).await;
        let answer = reply(answer);
        assert_eq!((answer.status, answer.body.as_ref(), answer.cut), (202, &b"{}"[..], false));
        assert_eq!(
            (answer.header("x-connection"), answer.header("x-octets")),
            (Some("0"), Some(&*octets.to_string()))
        );
        assert!(watch.handed_over_for().is_some());
    }
}

#[tokio::test]
async fn what_was_idle_for_longer_than_a_moment_is_not_used_again() {
    let (base, _server) = server(|n, mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            say(&mut stream, &format!("HTTP/1.1 200 OK\r\nX-Connection: {n}\r\nContent-Length: 0\r\n\r\n"))
                .await;
        }
    })
    .await;
    let wire = wire(&base);
    assert_eq!(reply(post(&wire, 1).await.0).header("x-connection"), Some("0"));
    tokio::time::sleep(REUSED_WITHIN + Duration::from_millis(200)).await;
    assert_eq!(reply(post(&wire, 1).await.0).header("x-connection"), Some("1"));
}

#[tokio::test]
async fn no_answer_after_the_body_may_have_been_taken() {
    // Says nothing; ends the line; ends it in the middle of a status line.
    for (words, hangs) in [("", true), ("", false), ("HTTP/1.1 2", false), ("garbage\r\n\r\n", false)] {
        let (base, _server) = server(move |_, mut stream| async move {
            let _ = read_request(&mut stream).await;
            say(&mut stream, words).await;
            if hangs {
                std::future::pending::<()>().await;
            }
        })
        .await;
        let (answer, watch) = post(&wire(&base), 10).await;
        let Reply::Lost { phase, handed_over, .. } = &answer else { panic!("{words:?}: {answer:?}") };
        assert_eq!((*phase, *handed_over), (Phase::Answer, true), "{words:?}");
        assert!(watch.handed_over_for().is_some());
    }
}

#[tokio::test]
async fn who_cannot_be_reached_was_given_nothing() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (answer, watch) = post(&wire(&format!("http://{closed}")), 10).await;
    assert!(matches!(answer, Reply::Lost { phase: Phase::Connect, handed_over: false, .. }), "{answer:?}");
    assert!(watch.handed_over_for().is_none());
}

/// More than the socket buffers of both sides and hyper's own hold.
const LARGE: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn a_body_that_stalls_is_withdrawn_and_never_whole() {
    for aborted in [false, true] {
        let (base, _server) = server(|_, mut stream| async move {
            let mut some = [0; 1024];
            let _ = stream.read(&mut some).await;
            std::future::pending::<()>().await;
        })
        .await;
        let wire = wire(&base);
        let watch = Watch::new(Abort::default());
        let exchange = wire.exchange(request(LARGE), &watch);
        let answer = match aborted {
            false => exchange.await,
            true => {
                watch.abort();
                exchange.await
            }
        };
        let Reply::Lost { handed_over, said, .. } = &answer else { panic!("{answer:?}") };
        assert!(!handed_over && watch.handed_over_for().is_none(), "{said}");
    }
}

#[tokio::test]
async fn a_refusal_that_comes_before_the_end_of_the_body_counts() {
    let (base, _server) = server(|_, mut stream| async move {
        let mut some = [0; 1024];
        let _ = stream.read(&mut some).await;
        say(&mut stream, "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let (answer, watch) = post(&wire(&base), LARGE).await;
    assert_eq!(reply(answer).status, 413);
    assert!(watch.handed_over_for().is_none());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_told_as_cut_and_a_long_one_is_bounded() {
    for (length, said, cut) in
        [(10, 3, true), (HttpReply::BODY_OCTETS_MAX * 3, HttpReply::BODY_OCTETS_MAX * 3, false)]
    {
        let (base, _server) = server(move |_, mut stream| async move {
            let _ = read_request(&mut stream).await;
            say(
                &mut stream,
                &format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "y".repeat(said)),
            )
            .await;
        })
        .await;
        let answer = reply(post(&wire(&base), 10).await.0);
        assert_eq!((answer.status, answer.cut), (200, cut));
        assert_eq!(answer.body.len(), said.min(HttpReply::BODY_OCTETS_MAX));
    }
}

#[tokio::test]
async fn an_answer_that_trickles_has_the_time_of_one_that_does_not_and_is_seen_to_hang() {
    // The octets of the first part come at once, those of the second one by one.
    let head = "HTTP/1.1 202 Accepted\r\nX-Message-Id: m-1\r\nContent-Length: 1000\r\n\r\n";
    for (at_once, then) in [(head, "y"), ("HTTP/1.1 202 Accepted\r\nX-Long: ", "x")] {
        let (base, _server) = server(move |_, mut stream| async move {
            let _ = read_request(&mut stream).await;
            say(&mut stream, at_once).await;
            while stream.write_all(then.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let wire = wire(&base);
        let (answer, watch) = timeout(PATIENCE * 3, post(&wire, 10)).await.expect("bounded");
        assert!(watch.still_for() > PATIENCE / 2, "still for {:?}", watch.still_for());
        if at_once == head {
            let answer = reply(answer);
            assert_eq!((answer.status, answer.header("x-message-id")), (202, Some("m-1")));
            assert!(answer.cut && answer.body.starts_with(b"yy"));
        } else {
            assert!(matches!(answer, Reply::Lost { handed_over: true, .. }), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn no_redirect_is_followed_and_the_key_is_in_no_word() {
    let (base, _server) = server(|_, mut stream| async move {
        while read_request(&mut stream).await.is_some() {
            say(&mut stream, "HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nX-Echo: SG.a-key-of-a-test\r\nContent-Length: 18\r\n\r\nSG.a-key-of-a-test").await;
        }
    })
    .await;
    let wire = wire(&base);
    let answer = reply(post(&wire, 10).await.0);
    assert_eq!((answer.status, answer.body.as_ref()), (307, &b"***"[..]));
    assert!(!format!("{answer:?} {wire:?}").contains("a-key-of"));
    let checked = wire.check().await;
    assert!(checked.met.is_err() && !format!("{checked:?}").contains("a-key-of"), "{checked:?}");
}

#[tokio::test]
async fn the_check_asks_the_probe_alone() {
    let (base, _server) = server(|_, mut stream| async move {
        let (head, _) = read_request(&mut stream).await.unwrap();
        assert!(head.starts_with("get /probe http/1.1"), "{head}");
        say(&mut stream, OK.replace("202 Accepted", "200 OK").as_str()).await;
    })
    .await;
    let checked = wire(&base).check().await;
    assert_eq!(checked.met, Ok(()));
    assert_eq!(
        checked.steps.iter().map(|s| (s.name, s.ok)).collect::<Vec<_>>(),
        [("connect", true), ("key", true)]
    );
}

#[tokio::test]
async fn a_check_that_gets_no_answer_tells_that_it_was_connected() {
    let (hangs, _server) = server(|_, mut stream| async move {
        let _ = read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let (closes, _server) = server(|_, mut stream| async move {
        let _ = read_request(&mut stream).await;
    })
    .await;
    for (base, steps) in [
        (hangs.as_str(), &[("connect", true), ("answer", false)][..]),
        (&closes, &[("connect", true), ("answer", false)]),
        ("http://127.0.0.1:1", &[("connect", false)]),
    ] {
        let checked = wire(base).check_all().await;
        let found: Vec<_> = checked.steps.iter().map(|step| (step.name, step.ok)).collect();
        assert_eq!(found, steps, "{checked:?}");
        if base == hangs {
            assert_eq!(checked.met, Err("no answer for 2s".to_owned()), "as long as its timeout");
        }
    }
}

#[tokio::test]
async fn who_says_it_has_nothing_never_gets_told_that_it_has_nothing_when_it_has_it() {
    // The server cuts after so many octets of the body: only where it was given all of them may it have the mail.
    for octets in [1, 65_536, 65_537, 400_000] {
        for part in [0, octets / 2, octets] {
            let (base, _server) = server(move |_, mut stream| async move {
                let mut seen = 0;
                let mut piece = [0; 4096];
                while seen <= part {
                    match stream.read(&mut piece).await {
                        Ok(0) | Err(_) => break,
                        Ok(n) => seen += n,
                    }
                }
            })
            .await;
            let (answer, _) = post(&wire(&base), octets).await;
            let Reply::Lost { handed_over, .. } = answer else { panic!("{answer:?}") };
            assert!(handed_over || part < octets, "{part} of {octets}");
        }
    }
}

#[tokio::test]
async fn an_answer_is_listened_for_as_long_as_the_watch_does() {
    let (base, _server) = server(|_, mut stream| async move {
        let _ = read_request(&mut stream).await;
        tokio::time::sleep(PATIENCE + PATIENCE / 4).await;
        say(&mut stream, "HTTP/1.1 202 Accepted\r\nX-Message-Id: late\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let wire = wire(&base);
    let watch = Watch::that_listens(Abort::default(), PATIENCE * 5);
    let answer = reply(wire.exchange(request(10), &watch).await);
    assert_eq!((answer.status, answer.header("x-message-id")), (202, Some("late")));
}

/// A server that says the head of an answer at once, and its body so much later.
async fn late_body(head: &'static str, body: &'static str, after: Duration) -> (String, JoinHandle<()>) {
    server(move |_, mut stream| async move {
        let _ = read_request(&mut stream).await;
        say(&mut stream, head).await;
        tokio::time::sleep(after).await;
        say(&mut stream, body).await;
        let _ = stream.read(&mut [0]).await;
    })
    .await
}

#[tokio::test]
async fn the_body_of_a_success_is_listened_for_as_long_as_the_watch_does() {
    const LATE: Duration = PATIENCE.saturating_add(END_OF_ANSWER);
    const HEADS: [&str; 2] =
        ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 422 No\r\nContent-Length: 2\r\n\r\n"];
    for (head, whole) in [(HEADS[0], true), (HEADS[1], false)] {
        let (base, _server) = late_body(head, "{}", LATE).await;
        let watch = Watch::that_listens(Abort::default(), PATIENCE * 5);
        let wire = wire(&base);
        let answer = reply(wire.exchange(request(10), &watch).await);
        let (said, cut) = if whole { (&b"{}"[..], false) } else { (&b""[..], true) };
        assert_eq!((answer.body.as_ref(), answer.cut), (said, cut), "{head}");
    }
}

#[tokio::test]
async fn a_body_that_never_comes_is_given_up_with_the_watch() {
    let head = "HTTP/1.1 200 OK\r\nX-Message-Id: m-1\r\nContent-Length: 2\r\n\r\n";
    let (base, _server) = late_body(head, "", PATIENCE * 50).await;
    let watch = Watch::that_listens(Abort::default(), PATIENCE * 50);
    let wire = wire(&base);
    let exchange = wire.exchange(request(10), &watch);
    let told = async {
        tokio::time::sleep(PATIENCE / 4).await;
        watch.stop_listening();
    };
    let (answer, ()) =
        timeout(PATIENCE, async { tokio::join!(exchange, told) }).await.expect("it ends at once");
    let answer = reply(answer);
    assert_eq!((answer.status, answer.header("x-message-id"), answer.cut), (200, Some("m-1"), true));
}

#[tokio::test]
async fn an_answer_that_is_told_by_its_head_waits_for_no_body() {
    let head = "HTTP/1.1 299 Fine\r\nX-Message-Id: m-1\r\nContent-Length: 2\r\n\r\n";
    let (base, _server) = late_body(head, "{}", PATIENCE * 50).await;
    let (answer, _) = timeout(PATIENCE / 2, post(&wire(&base), 10)).await.expect("at once");
    assert_eq!((reply(answer).header("x-message-id")), Some("m-1"));
}

#[tokio::test]
async fn who_is_told_to_listen_no_longer_ends_and_had_handed_over() {
    let (base, _server) = server(|_, mut stream| async move {
        let _ = read_request(&mut stream).await;
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let wire = wire(&base);
    let watch = Watch::that_listens(Abort::default(), PATIENCE * 50);
    let exchange = wire.exchange(request(10), &watch);
    let told = async {
        while watch.handed_over_for().is_none() {
            tokio::task::yield_now().await;
        }
        watch.stop_listening();
    };
    let (answer, ()) =
        timeout(PATIENCE, async { tokio::join!(exchange, told) }).await.expect("it ends at once");
    assert!(matches!(answer, Reply::Lost { handed_over: true, .. }), "{answer:?}");
}
