//! Whole conversations over an in-memory stream, tokio's clock standing still.

use std::net::IpAddr;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

use super::*;
use crate::mail::Budget;
use crate::smtp::room::Room;
use crate::smtp::testing::{Script, pieces, settings, shared};
use crate::smtp::{AuthMode, BareNewline, ListenerSettings, TlsMode};

/// A client's end of a conversation.
struct Client {
    stream: DuplexStream,
    script: Arc<Script>,
    shared: Shared,
    room: Arc<Room>,
    served: JoinHandle<()>,
}

impl Client {
    fn connect(change: impl FnOnce(&mut ListenerSettings, &mut Shared)) -> Client {
        let (mut settings, mut shared) = (settings(), shared());
        change(&mut settings, &mut shared);
        let room = Room::of(&settings);
        let rules = Rules { settings, hostname: shared.hostname.clone(), origin: None, dsn: true };
        let script = Arc::new(Script::default());
        let context = Context {
            gatekeeper: Arc::clone(&script),
            shared: shared.clone(),
            rules: Arc::new(rules),
            certificates: None,
            refusals: Arc::default(),
        };
        let guest = room.enter(IpAddr::from([127, 0, 0, 1])).unwrap();
        let (stream, theirs) = tokio::io::duplex(1 << 20);
        let served = tokio::spawn(serve(theirs, Arc::new(context), guest));
        Client { stream, script, shared, room, served }
    }

    async fn greeted() -> Client {
        let mut client = Client::connect(|_, _| {});
        client.expect("220 ").await;
        client
    }

    async fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.stream.write_all(octets.as_ref()).await.unwrap();
    }

    /// One reply, all its lines.
    async fn reply(&mut self) -> String {
        let mut reply = Vec::new();
        loop {
            let start = reply.len();
            while !reply[start..].ends_with(b"\r\n") {
                match self.stream.read_u8().await {
                    Ok(octet) => reply.push(octet),
                    Err(_) => return String::from_utf8(reply).unwrap() + "(end)",
                }
            }
            if reply.get(start + 3) != Some(&b'-') {
                return String::from_utf8(reply).unwrap();
            }
        }
    }

    async fn expect(&mut self, beginning: &str) {
        let reply = self.reply().await;
        assert!(reply.starts_with(beginning), "expected {beginning}, got {reply}");
    }

    async fn ask(&mut self, line: &str, beginning: &str) {
        self.send(format!("{line}\r\n")).await;
        self.expect(beginning).await;
    }

    /// Up to the prompt for content.
    async fn begin(&mut self) {
        self.send("EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n").await;
        for code in ["250", "250", "250", "354"] {
            self.expect(code).await;
        }
    }

    /// What is still said, to the end.
    async fn rest(mut self) -> String {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).await.unwrap();
        self.served.await.unwrap();
        rest
    }

    fn log(&self) -> Vec<String> {
        self.script.log.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipelined_client_gets_each_reply_in_order() {
    let mut c = Client::greeted().await;
    c.begin().await;
    c.send("Subject: x\r\n\r\n..hi\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<no@example.com>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n").await;
    for code in ["250 2.0.0 queued", "250", "550 5.1.1", "250", "354"] {
        c.expect(code).await;
    }
    c.send("x\r\n.\r\nQUIT\r\n").await;
    let script = Arc::clone(&c.script);
    assert!(c.rest().await.starts_with("250 2.0.0 queued\r\n221 2.0.0"));
    let messages = script.messages.lock().unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].1, b"Subject: x\r\n\r\n.hi\r\n");
    assert_eq!(messages[1].0.recipients.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn earlier_replies_are_sent_before_a_wait() {
    let mut c = Client::greeted().await;
    let began = monotonic();
    c.send("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<slow@example.com>\r\nNOOP\r\n").await;
    c.expect("250").await;
    c.expect("250").await;
    assert!(monotonic() - began < Duration::from_millis(500));
    c.expect("250 2.1.5").await;
    assert!(monotonic() - began >= Duration::from_secs(1));
    c.expect("250").await;
}

#[tokio::test(start_paused = true)]
async fn a_question_without_answer_is_451_after_five_seconds() {
    let mut c = Client::greeted().await;
    let began = monotonic();
    c.send(
        "EHLO x\r\nMAIL FROM:<hang@x.org>\r\nMAIL FROM:<>\r\nRCPT TO:<hang@x.org>\r\nRCPT TO:<b@x.org>\r\n",
    )
    .await;
    for code in ["250", "451 4.3.0", "250", "451 4.3.0", "250"] {
        c.expect(code).await;
    }
    assert_eq!((monotonic() - began).as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn bdat_is_refused_and_its_octets_are_eaten() {
    let mut c = Client::greeted().await;
    c.send("EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<no-domain-here@>\r\nBDAT 9 LAST\r\nMAIL FROMNOOP\r\n").await;
    for code in ["250", "250", "553", "502 5.5.1", "250 2.0.0"] {
        c.expect(code).await;
    }
    c.send("BDAT 300000\r\n").await;
    c.expect("502").await;
    for _ in 0..300 {
        c.send([b'\n'; 1000]).await;
    }
    c.ask("BDAT x", "501").await;
    c.ask("NOOP", "250").await;
}

#[tokio::test(start_paused = true)]
async fn what_follows_starttls_in_plain_text_is_an_error() {
    let mut c = Client::connect(|s, _| s.tls = TlsMode::StartTls);
    c.expect("220").await;
    c.send("EHLO x\r\nSTARTTLS\r\nMAIL FROM:<evil@x.org>\r\n").await;
    c.expect("250").await;
    c.expect("554 5.5.0").await;
    let script = Arc::clone(&c.script);
    assert_eq!(c.rest().await, "");
    assert!(script.log.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn auth_is_a_dialogue_and_three_failures_end_the_connection() {
    let mut c = Client::connect(|s, _| s.auth = AuthMode::Required);
    c.expect("220").await;
    c.ask("EHLO x", "250").await;
    c.ask("MAIL FROM:<a@b.c>", "530 5.7.0").await;
    c.ask("AUTH PLAIN", "334 \r\n").await;
    c.ask("AHVzZXIAc2VjcmV0", "235").await;
    c.ask("MAIL FROM:<a@b.c>", "250").await;

    let mut c = Client::connect(|s, _| s.auth = AuthMode::Required);
    c.expect("220").await;
    c.ask("EHLO x", "250").await;
    let began = monotonic();
    for _ in 0..3 {
        c.ask("AUTH PLAIN AHVzZXIAd3Jvbmc=", "535 5.7.8").await;
    }
    assert!(monotonic() - began >= Duration::from_millis(250 + 500 + 1000));
    assert_eq!(c.rest().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_and_a_trickling_command_are_ended() {
    let mut c = Client::greeted().await;
    let began = monotonic();
    c.expect("421 4.4.2").await;
    assert_eq!((monotonic() - began).as_secs(), 300);

    let mut c = Client::greeted().await;
    let began = monotonic();
    for _ in 0..299 {
        c.send("x").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    c.expect("421 4.4.2").await;
    assert!((monotonic() - began).as_secs() <= 300);
}

#[tokio::test(start_paused = true)]
async fn one_octet_a_second_of_content_is_cut_off() {
    let mut c = Client::greeted().await;
    c.begin().await;
    let began = monotonic();
    let script = Arc::clone(&c.script);
    let (mut reader, mut writer) = tokio::io::split(c.stream);
    let trickle = async {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let mut said = String::new();
    tokio::select! {
        () = trickle => {}
        _ = reader.read_to_string(&mut said) => {}
    }
    assert!(said.starts_with("421 4.4.2"), "{said}");
    assert!((monotonic() - began).as_secs() <= 65);
    assert!(script.messages.lock().unwrap().is_empty());
    assert_eq!(c.shared.budget.taken_octets(), 0);
}

#[tokio::test(start_paused = true)]
async fn steady_content_outlasts_the_grace() {
    let mut c = Client::greeted().await;
    c.begin().await;
    for _ in 0..200 {
        c.send("0123456789".repeat(60) + "\r\n").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    c.ask(".", "250").await;
}

#[tokio::test(start_paused = true)]
async fn a_session_has_an_end() {
    let mut c = Client::connect(|_, s| s.limits.session_max = Duration::from_secs(600));
    c.expect("220").await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(119)).await;
        c.ask("NOOP", "250").await;
    }
    c.expect("421 4.4.2").await;
}

#[tokio::test(start_paused = true)]
async fn a_bare_lf_executes_nothing_and_is_told() {
    let mut c = Client::greeted().await;
    c.send("EHLO x\nMAIL FROM:<a@b.c>\r\nNOOP\r\n").await;
    c.expect("500 5.5.2 bare LF").await;
    c.expect("250 2.0.0").await;
    let began = monotonic();
    c.send("EHLO x\n").await;
    c.expect("500 5.5.2 bare LF").await;
    assert!(monotonic() - began <= Duration::from_secs(1));
    c.ask("NO\rOP", "500 5.5.2 bare CR").await;
    c.ask("NOOP\0", "500 5.5.2").await;
    c.ask("EHLO x", "250").await;
    assert!(c.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn long_lines_are_refused_once() {
    let mut c = Client::greeted().await;
    c.ask(&format!("NOOP {}", "x".repeat(100_000)), "500 5.5.6").await;
    c.ask("NOOP", "250").await;
    for _ in 0..8 {
        c.send("x".repeat(128 * 1024)).await;
    }
    c.send("x").await;
    c.expect("500 5.5.6").await;
    assert_eq!(c.rest().await, "");
}

#[tokio::test(start_paused = true)]
async fn errors_are_answered_up_to_a_limit() {
    let mut c = Client::greeted().await;
    for _ in 0..20 {
        c.ask("FOO", "500 5.5.1").await;
    }
    c.expect("421 4.7.0").await;
    assert_eq!(c.rest().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_is_452_and_the_session_goes_on() {
    let mut c = Client::connect(|_, s| s.budget = Budget::new(10_000));
    c.expect("220").await;
    c.begin().await;
    c.send("0123456789".repeat(2000) + "\r\n.\r\n").await;
    c.expect("452 4.3.1").await;
    c.begin().await;
    c.ask("hi\r\n.", "250 2.0.0").await;
    assert_eq!(c.shared.budget.taken_octets(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_oversize_message_ends_strictly_and_the_session_goes_on() {
    let mut c = Client::connect(|s, _| s.max_message_size_octets = 1000);
    c.expect("220").await;
    c.begin().await;
    c.send("x".repeat(2000) + "\n.\nMAIL FROM:<evil@x.org>\r\n.\r\r\nNOOP\r\n\r\n.\r\n").await;
    c.expect("552 5.3.4").await;
    c.ask("MAIL FROM:<>", "250").await;
    assert_eq!(c.log().iter().filter(|l| l.starts_with("sender")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn bare_line_ends_are_refused_or_made_whole() {
    let mut c = Client::greeted().await;
    c.begin().await;
    c.ask("a\nb\r\n.", "550 5.6.11 bare LF").await;
    let mut c = Client::connect(|s, _| s.bare_newline = BareNewline::Normalize);
    c.expect("220").await;
    c.begin().await;
    c.ask("a\n.\r\nb\r\n.", "250").await;
    assert_eq!(c.script.messages.lock().unwrap()[0].1, b"a\r\n.\r\nb\r\n");
}

fn large(octets: usize) -> String {
    "Subject: x\r\n\r\n".to_owned() + &"0123456789012345678901234567890123456789\r\n".repeat(octets / 42)
}

#[tokio::test(start_paused = true)]
async fn a_large_message_is_spilled_whole() {
    let mut c = Client::greeted().await;
    c.begin().await;
    let message = large(1_500_000);
    let (sending, done) =
        (message.clone(), async { c.stream.write_all((message + ".\r\n").as_bytes()).await });
    done.await.unwrap();
    c.expect("250 2.0.0").await;
    assert!(c.script.messages.lock().unwrap()[0].1 == sending.as_bytes());
    assert_eq!(c.log().iter().filter(|l| l.starts_with("piece")).count(), 5);
    assert_eq!(c.shared.budget.taken_octets(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_given_up_is_discarded() {
    // The client goes in the middle.
    let mut c = Client::greeted().await;
    c.begin().await;
    c.send(large(900_000)).await;
    let script = Arc::clone(&c.script);
    drop(c.stream);
    c.served.await.unwrap();
    assert_eq!(script.log.lock().unwrap().last().unwrap(), "discard");
    // Its end is refused.
    let mut c = Client::greeted().await;
    c.begin().await;
    c.send(large(900_000) + "\0\r\n.\r\n").await;
    c.expect("554 5.6.0").await;
    assert_eq!(c.log().last().unwrap(), "discard");
    // A piece cannot be written.
    let mut c = Client::greeted().await;
    *c.script.refuse_piece.lock().unwrap() = Some(Reply::new(452, (4, 3, 1), "disk full"));
    c.begin().await;
    c.send(large(900_000) + ".\r\n").await;
    c.expect("452 4.3.1 disk full").await;
    c.ask("NOOP", "250").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_after_its_250_is_no_trouble() {
    let mut c = Client::greeted().await;
    c.begin().await;
    c.ask("hi\r\n.", "250").await;
    drop(c.stream);
    c.served.await.unwrap();
    assert_eq!(c.script.messages.lock().unwrap().len(), 1);
    assert_eq!(c.room.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_content_end_and_nothing_begin() {
    let mut c = Client::greeted().await;
    c.begin().await;
    c.send("hi\r\n").await;
    c.room.stop();
    c.send("there\r\n.\r\nMAIL FROM:<>\r\n").await;
    c.expect("250 2.0.0 queued").await;
    c.expect("421 4.3.2").await;
    assert_eq!(c.rest().await, "");
    let mut c = Client::greeted().await;
    c.room.stop();
    c.expect("421 4.3.2").await;
}

/// After a stop, sends `octets` whenever `pause` has passed; gives what it is told and after how long.
async fn told_at_the_stop(octets: &[u8], pause: Duration) -> (String, Duration) {
    let mut c = Client::greeted().await;
    c.begin().await;
    c.send("Subject: x\r\n\r\n").await;
    c.room.stop();
    let began = monotonic();
    let (mut reader, mut writer) = tokio::io::split(c.stream);
    let sending = async {
        loop {
            tokio::time::sleep(pause).await;
            if writer.write_all(octets).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut said = String::new();
    let took = tokio::select! {
        () = sending => unreachable!(),
        _ = reader.read_to_string(&mut said) => monotonic() - began,
    };
    assert!(c.script.messages.lock().unwrap().is_empty());
    c.served.await.unwrap();
    (said, took)
}

#[tokio::test(start_paused = true)]
async fn content_without_end_is_told_of_the_stop() {
    let limits = Limits::default();
    for (octets, pause, wanted) in [
        (&b"never sent"[..], Duration::from_secs(3600), limits.stop_silence),
        (b"x", Duration::from_secs(9), limits.stop_grace),
        (&[b'x'; 100_000], Duration::from_millis(100), limits.stop_grace),
    ] {
        let (said, took) = told_at_the_stop(octets, pause).await;
        assert_eq!(said, reply::STOPPING.wire(), "{pause:?}");
        assert!(took >= wanted && took <= wanted + Duration::from_secs(2), "{pause:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_moves_outlasts_most_of_the_stop() {
    let mut c = Client::greeted().await;
    c.begin().await;
    c.room.stop();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        c.send("one more line\r\n").await;
    }
    c.ask(".", "250").await;
    c.expect("421 4.3.2").await;
    assert_eq!(c.rest().await, "");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_or_sends_without_end_still_makes_room() {
    // Both are in the midst of something when they are called.
    for (hold, times) in [("NOOP\r\n".repeat(60_000), 100), ("BDAT 1000000000\r\nx".into(), 1)] {
        let c = Client::connect(|s, _| s.max_errors = 1_000_000);
        let (reader, mut writer) = tokio::io::split(c.stream);
        let flood = async {
            for _ in 0..times {
                writer.write_all(hold.as_bytes()).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let _ = timeout(Duration::from_secs(20), flood).await;
        assert!(!c.served.is_finished());
        let began = monotonic();
        assert!(c.room.make_room());
        c.served.await.unwrap();
        assert!(monotonic() - began <= Duration::from_secs(5));
        drop((reader, writer));
    }
}

/// Sends pieces, one in a while, until the connection is cut; what was said, and how many octets went.
async fn feed_until_cut(c: Client, pause: Duration) -> (String, u64) {
    let (mut reader, mut writer) = tokio::io::split(c.stream);
    let feeding = async move {
        let (piece, mut sent) = ("x".repeat(1 << 20), 0);
        while writer.write_all(piece.as_bytes()).await.is_ok() {
            sent += piece.len() as u64;
            tokio::time::sleep(pause).await;
        }
        sent
    };
    let mut said = String::new();
    let (sent, read) = tokio::join!(feeding, reader.read_to_string(&mut said));
    read.unwrap();
    (said, sent)
}

#[tokio::test(start_paused = true)]
async fn content_without_end_is_eaten_for_a_while_and_then_cut() {
    for (pause, octets_max) in [(Duration::ZERO, 68_000_000), (Duration::from_secs(5), 65 << 20)] {
        let mut c = Client::connect(|s, _| s.max_message_size_octets = 1_000_000);
        for (line, code) in [("", "220"), ("EHLO x", "250"), ("MAIL FROM:<a@x.example>", "250")] {
            if line.is_empty() { c.expect(code).await } else { c.ask(line, code).await }
        }
        c.ask("RCPT TO:<b@example.com>", "250").await;
        c.ask("DATA", "354").await;
        let began = monotonic();
        let (said, sent) = feed_until_cut(c, pause).await;
        assert!(said.starts_with("552 5.3.4") && said.lines().count() == 1, "{said}");
        assert!(sent < octets_max, "{sent} octets were eaten");
        assert!(monotonic() - began < EATEN_TIME_MAX + Duration::from_secs(20));
    }
}

#[tokio::test(start_paused = true)]
async fn octets_of_bdat_are_eaten_for_a_while_and_then_the_client_is_cut() {
    let mut c = Client::greeted().await;
    c.ask("EHLO x", "250").await;
    c.ask("BDAT 99999999999", "502").await;
    let (said, sent) = feed_until_cut(c, Duration::ZERO).await;
    assert!(said.starts_with("552 5.3.4"), "{said}");
    assert!(sent < 68_000_000, "{sent} octets were eaten");
}

#[tokio::test(start_paused = true)]
async fn recipients_are_in_the_memory_of_messages_in_flight() {
    let mut c = Client::connect(|_, shared| shared.budget = Budget::new(3000));
    c.expect("220").await;
    c.ask("EHLO x", "250").await;
    for _ in 0..2 {
        c.ask("MAIL FROM:<a@x.example>", "250").await;
        let name = "n".repeat(60);
        for n in 0..5 {
            c.ask(&format!("RCPT TO:<{name}{n}@example.com>"), "250").await;
        }
        assert_eq!(c.shared.budget.taken_octets(), 5 * (73 + 96));
        c.ask(&format!("RCPT TO:<{name}@example.com>"), "452 4.3.1").await;
        c.ask("RSET", "250").await;
        assert_eq!(c.shared.budget.taken_octets(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn tls_on_a_plain_port_is_told_so() {
    let mut c = Client::greeted().await;
    c.send(b"\x16\x03\x01\x02\x00\x01\x00").await;
    c.expect("554 5.5.0").await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_keeps_little() {
    let context: Context<Script> = Context {
        gatekeeper: Arc::default(),
        shared: shared(),
        rules: Arc::new(Rules { settings: settings(), hostname: String::new(), origin: None, dsn: true }),
        certificates: None,
        refusals: Arc::default(),
    };
    let guest = Room::of(&settings()).enter(IpAddr::from([127, 0, 0, 1])).unwrap();
    let (_, stream) = tokio::io::duplex(1);
    let octets = size_of_val(&serve(stream, Arc::new(context), guest));
    assert!(octets < 8 * 1024, "the task of a connection has {octets} octets");
}

/// Commands, content and noise, as a client might send them in one go.
fn script() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        2 => Just("EHLO x\r\n"), 1 => Just("HELO x\r\n"), 6 => Just("MAIL FROM:<a@example.org>\r\n"),
        6 => Just("RCPT TO:<b@example.com>\r\n"), 2 => Just("RCPT TO:<no@example.com>\r\n"),
        6 => Just("DATA\r\n"), 3 => Just("Subject: x\r\n\r\nbody\r\n"), 6 => Just("\r\n.\r\n"), 2 => Just(".\r\n"),
        2 => Just("RSET\r\n"), 2 => Just("NOOP\r\n"), 1 => Just("BDAT 7 LAST\r\n"), 1 => Just("VRFY a\r\n"),
        1 => Just("\n"), 1 => Just("\r"), 1 => Just("\n.\n"), 1 => Just("\r\n.\r"), 1 => Just("\0"), 1 => Just(".."),
        1 => Just("AUTH PLAIN\r\n"), 1 => Just("AUTH LOGIN dXNlcg==\r\n"), 1 => Just("c2VjcmV0\r\n"),
        1 => Just("STARTTLS\r\n"), 1 => Just("FOO\r\n"), 1 => Just("QUIT\r\n"), 1 => "[ -~]{0,20}".prop_map(|s| &*s.leak()),
    ];
    proptest::collection::vec(piece, 0..30).prop_map(|v| v.concat().into_bytes())
}

/// Sends `input` in pieces and gives all that is said.
fn conversation(input: &[u8], cuts: &[usize]) -> String {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let c = Client::connect(|s, _| s.auth = AuthMode::Optional);
        let (mut reader, mut writer) = tokio::io::split(c.stream);
        let sending = async move {
            for piece in pieces(input, cuts) {
                if writer.write_all(piece).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // A LF at the very end is waited behind; nothing else is.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let _ = writer.shutdown().await;
        };
        let mut said = String::new();
        let (_, read) = tokio::join!(sending, reader.read_to_string(&mut said));
        read.unwrap();
        said
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn packets_change_no_reply(input in script(), cuts in proptest::collection::vec(1usize..40, 1..8)) {
        // STARTTLS is the exception by design: what follows it in its packet is an error, later it is a handshake.
        let input = String::from_utf8_lossy(&input).replace("STARTTLS\r\n", "STARTTLS x\r\n").into_bytes();
        prop_assert_eq!(conversation(&input, &[usize::MAX]), conversation(&input, &cuts));
    }
}
