//! Content on its way, from memory and from the store's chunks.

use super::*;
use crate::mail::body::Spilled;

#[derive(Debug)]
struct Store {
    chunks: Vec<Result<Bytes, String>>,
    /// All but the first wait until it is asked.
    gate: Abort,
}

impl Chunks for Store {
    fn chunk(&self, _: MessageId, n: u32) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            if n > 0 {
                self.gate.wait().await;
            }
            self.chunks[usize::try_from(n).unwrap()].clone()
        })
    }
}

fn spilled(head: &str, chunks: &[Result<Bytes, String>], octets: u64) -> SmtpRequest {
    let mut request = request(&["a@example.com"], head.to_owned());
    let message = MessageId::from_number(7);
    request.body.rest = Some(Spilled { message, chunks: u32::try_from(chunks.len()).unwrap(), octets });
    request
}

async fn stored(
    script: &str,
    chunks: Vec<Result<Bytes, String>>,
    request: SmtpRequest,
) -> (Reply, Vec<Heard>) {
    let gate = Abort::default();
    if !script.contains("\nask\n") {
        gate.ask();
    }
    let upstream = Upstream::plays_with(&[script], None, gate.clone()).await;
    let wire = SmtpWire::new(settings(&upstream), Arc::new(Store { chunks, gate }));
    let reply = send(&wire, request).await;
    wire.close().await;
    (reply, upstream.heard().await)
}

fn taken() -> String {
    format!("{GREETING}{ONE}")
}

#[tokio::test]
async fn content_arrives_octet_for_octet_whatever_its_size_and_dots() {
    let dotted = "line\r\n.\r\n..two\r\n".repeat(8_000);
    let long = "0123456789\r\n".repeat(30_000);
    for content in ["", ".", ".\r\n", "no end", "a\r\n.\r\nb\r\n", &dotted, &long] {
        let (reply, heard) = sent(&[&taken()], request(&["a@example.com"], content.to_owned())).await;
        assert!(smtp(reply).last.positive());
        let arrived = unstuffed(&heard[0].contents[0]);
        let ended = content.is_empty() || content.ends_with("\r\n");
        let expected = if ended { content.to_owned() } else { format!("{content}\r\n") };
        assert!(arrived == expected.as_bytes(), "{} octets arrived of {}", arrived.len(), expected.len());
    }
}

fn unstuffed(wire: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(wire.to_vec()).unwrap();
    text.split_inclusive("\r\n").map(|l| l.strip_prefix('.').unwrap_or(l)).collect::<String>().into_bytes()
}

#[tokio::test]
async fn chunks_follow_the_head_with_dots_across_their_borders() {
    let chunks: Vec<_> =
        ["b\r", "\n", ".c\r\n", "", ".", "\r\nlast"].map(|c| Ok(Bytes::from_static(c.as_bytes()))).into();
    let octets = chunks.iter().flatten().map(|c| c.len() as u64).sum();
    let (reply, heard) = stored(&taken(), chunks.clone(), spilled("a: b\r\n\r\n.", &chunks, octets)).await;
    assert!(smtp(reply).last.positive());
    assert_eq!(unstuffed(&heard[0].contents[0]), b"a: b\r\n\r\n.b\r\n.c\r\n.\r\nlast\r\n");
}

#[tokio::test]
async fn part_of_a_message_is_never_finished() {
    let good = |c: &'static str| Ok(Bytes::from_static(c.as_bytes()));
    for (chunks, octets, why) in [
        (vec![good("more\r\n"), Err("disk gone".to_owned())], 12, "disk gone"),
        (vec![good("more\r\n")], 12, "6 of the 12"),
        (vec![], 12, "0 of the 12"),
    ] {
        let (reply, heard) = stored(
            &taken().replace(".\nS: 250 2.0.0 queued as A1", "."),
            chunks.clone(),
            spilled("a: b\r\n\r\n", &chunks, octets),
        )
        .await;
        let (phase, handed_over, said) = lost(reply);
        assert_eq!((phase, handed_over), (Phase::Body, false));
        assert!(said.contains(why), "{said}");
        assert!(heard[0].contents.is_empty(), "the end of data was sent");
    }
}

#[tokio::test]
async fn a_server_that_refuses_in_mid_content_is_heard() {
    let chunks: Vec<_> = ["one\r\n", "two\r\n"].map(|c| Ok(Bytes::from_static(c.as_bytes()))).into();
    let script = format!(
        "{GREETING}C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: A: B\nS: 552 5.3.4 too big\nask\nhang"
    );
    let (reply, heard) = stored(&script, chunks.clone(), spilled("a: b\r\n\r\n", &chunks, 10)).await;
    assert_eq!(codes(reply), (Phase::Body, 552, vec![250]));
    assert!(heard[0].contents.is_empty());
}

#[tokio::test]
async fn what_gets_stuck_before_the_last_octets_has_not_arrived() {
    let big = "0123456789abcde\r\n".repeat(1_000_000);
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = upstream.local_addr().unwrap().port();
    let (gone, until) = tokio::sync::oneshot::channel::<()>();
    let stuck = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut tcp, _) = upstream.accept().await.unwrap();
        tcp.write_all(b"220 mx\r\n").await.unwrap();
        for reply in ["250-mx\r\n250 PIPELINING\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"] {
            let mut command = [0; 1024];
            assert!(tcp.read(&mut command).await.unwrap() > 0);
            tcp.write_all(reply.as_bytes()).await.unwrap();
        }
        until.await.unwrap();
    });
    let settings =
        Settings { tls: Tls::Off, timeout: Duration::from_millis(300), ..Settings::new("127.0.0.1", port) };
    let (phase, handed_over, _) = lost(send(&wire(settings), request(&["a@example.com"], big)).await);
    assert_eq!((phase, handed_over), (Phase::Body, false));
    gone.send(()).unwrap();
    stuck.await.unwrap();
}
