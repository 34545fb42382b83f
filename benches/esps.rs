//! What a call costs at each ESP: a message of 4 KB is composed, handed over and its answer read, 100 calls at a time,
//! against sinks in a process of their own that judge nothing. `cargo bench --bench esps` prints calls a second and this
//! process's CPU a message, each beside the plain SMTP upstream of the same run.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use postroad::address::{Address, Grammar};
use postroad::clock::{Timestamp, monotonic};
use postroad::esp::settings::{
    Access, EspKind, LineSettings, PostmarkSettings, SendgridRegion, SendgridSettings, SesSettings,
    SmtpEndpoint, SmtpEspSettings, SmtpTls, Transport,
};
use postroad::esp::{Esp, Parcel};
use postroad::mail::{
    Abort, AttemptId, Body, Envelope, Grant, Message, MessageId, Outcome, Protocol, ReversePath, Source,
    StreamKind, StreamName, Watch,
};
use postroad::relay::doors::{House, open};
use postroad::secret::Secret;
use postroad::wire::smtp::Tokens;
use postroad::wire::{NoChunks, Wire};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Calls at a time.
const CALLS: usize = 100;
/// Messages of one measurement.
const MESSAGES: usize = 20_000;
/// Says which sink this process is.
const SINK: &str = "POSTROAD_BENCH_SINK";

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Line = (Box<dyn Esp>, Arc<dyn Wire>);

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Ok(kind) = std::env::var(SINK) {
        return runtime.block_on(sink(&kind));
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let (smtp, http) = (Sink::start("smtp")?, Sink::start("http")?);
    let message = message()?;
    let mut out = std::io::stdout();
    writeln!(out, "{:<10} {:>12} {:>14} {:>10}", "esp", "calls/s", "CPU us/call", "of the 1st")?;
    let mut base = None;
    for (name, kind) in kinds(smtp.at, http.at) {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            continue;
        }
        let tokens = |grant: &Grant| Arc::new(Tokens::new(grant.clone()));
        let house = House {
            hostname: "bench.example",
            own_reports: false,
            chunks: Arc::new(NoChunks),
            tokens: &tokens,
        };
        let (esp, wire) = open(&kind, &house);
        let line = Arc::new((esp, wire));
        runtime.block_on(run(&line, &message, MESSAGES / 10))?;
        let (began, before) = (monotonic(), cpu_seconds()?);
        runtime.block_on(run(&line, &message, MESSAGES))?;
        let took = monotonic().duration_since(began).as_secs_f64();
        let used = cpu_seconds()? - before;
        let rate = MESSAGES as f64 / took;
        let base = *base.get_or_insert(rate);
        writeln!(
            out,
            "{name:<10} {rate:>12.0} {:>14.0} {:>9.2}x",
            used * 1e6 / MESSAGES as f64,
            rate / base
        )?;
    }
    Ok(())
}

async fn run(line: &Arc<Line>, message: &Arc<Message>, count: usize) -> Result<(), Failure> {
    let left = Arc::new(AtomicUsize::new(count));
    let calls = (0..CALLS).map(|_| {
        let (line, message, left) = (Arc::clone(line), Arc::clone(message), Arc::clone(&left));
        tokio::spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                call(&line, &message, left.load(Ordering::Relaxed)).await?;
            }
            Ok::<(), Failure>(())
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await??;
    }
    Ok(())
}

async fn call((esp, wire): &Line, message: &Message, n: usize) -> Result<(), Failure> {
    let parcel = Parcel {
        message,
        whole: Some(&message.body.head),
        recipients: &message.envelope.recipients,
        attempt: AttemptId::from_number(i64::try_from(n)?),
    };
    let request = esp.compose(parcel, Timestamp::from_millis(0)).map_err(|unfit| unfit.0)?;
    let watch = Watch::new(Abort::default());
    let reply = wire.exchange(request, &watch).await;
    let outcomes = esp.read(parcel, &reply, Timestamp::from_millis(0));
    match &outcomes[..] {
        [Outcome::Accepted { .. }] => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn kinds(smtp: SocketAddr, http: SocketAddr) -> Vec<(&'static str, EspKind)> {
    let lines = LineSettings {
        max_connections: CALLS,
        messages_per_connection: 1_000_000,
        ..LineSettings::default()
    };
    let access = Access {
        transport: Transport::Api,
        endpoint: Some(format!("http://{http}")),
        smtp_endpoint: None,
        ca_file: None,
        envelope_from: None,
        lines,
    };
    let endpoint = SmtpEndpoint { host: smtp.ip().to_string(), port: smtp.port(), tls: SmtpTls::Off };
    let by_smtp = SmtpEspSettings {
        login: None,
        ..Access { smtp_endpoint: Some(endpoint.clone()), ..access.clone() }.smtp(
            endpoint,
            String::new(),
            Secret::new(""),
        )
    };
    let secret = || Secret::new("a-key-of-a-benchmark");
    vec![
        ("smtp", EspKind::Smtp(by_smtp)),
        (
            "sendgrid",
            EspKind::Sendgrid(SendgridSettings {
                access: access.clone(),
                api_key: secret(),
                region: SendgridRegion::Global,
            }),
        ),
        (
            "postmark",
            EspKind::Postmark(PostmarkSettings {
                access: access.clone(),
                server_token: secret(),
                transactional: "outbound".into(),
                broadcast: "broadcast".into(),
            }),
        ),
        (
            "ses",
            EspKind::Ses(SesSettings {
                access,
                region: "eu-central-1".into(),
                keys: Some(("AKIDEXAMPLE".into(), secret())),
                configuration_set: None,
            }),
        ),
    ]
}

/// 4 KB, text and HTML.
fn message() -> Result<Arc<Message>, Failure> {
    let line = "Your order is on its way; it will be with you in a few days. ";
    let content = format!(
        "From: Shop <shop@example.com>\r\nTo: Jane Doe <jane@example.org>\r\nSubject: Your order\r\n\
         Message-ID: <1@example.com>\r\nDate: Sat, 28 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{}\
         \r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{}\r\n--b--\r\n",
        format!("{line}\r\n").repeat(26),
        format!("<p>{line}</p>\r\n").repeat(26),
    );
    let recipient = Address::parse("jane@example.org", Grammar::Strict)?;
    let sender = Address::parse("shop@example.com", Grammar::Strict)?;
    Ok(Arc::new(Message {
        id: MessageId::from_number(1),
        envelope: Envelope {
            sender: ReversePath::Mailbox(sender),
            recipients: vec![recipient],
            body: Default::default(),
            smtputf8: false,
            reports: None,
        },
        stream: StreamName::new(StreamName::TRANSACTIONAL),
        kind: StreamKind::Transactional,
        body: Body::whole(content),
        accepted_at: Timestamp::from_millis(0),
        expires_at: Timestamp::from_millis(0),
        tags: vec!["receipt".into()],
        metadata: vec![("order".into(), "7".into())],
        pin: None,
        source: Source {
            listener: "bench".into(),
            peer: std::net::Ipv4Addr::LOCALHOST.into(),
            helo: "bench".into(),
            credential: None,
            protocol: Protocol::Smtp,
        },
    }))
}

/// Seconds of CPU that this process has used.
fn cpu_seconds() -> Result<f64, Failure> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, after_name) = stat.rsplit_once(") ").ok_or("/proc/self/stat has no name in it")?;
    let ticks = after_name.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}

/// A sink in a process of its own, so that its CPU is not counted here.
struct Sink {
    at: SocketAddr,
    process: Child,
}

impl Sink {
    fn start(kind: &str) -> Result<Sink, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(SINK, kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().ok_or("no pipe")?).read_line(&mut line)?;
        Ok(Sink { at: line.trim().parse()?, process })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn sink(kind: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    // It ends with whoever started it.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let smtp = kind == "smtp";
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let served = if smtp { serve_smtp(stream).await } else { serve_http(stream).await };
            // A client that is gone ends its connection.
            drop(served);
        });
    }
}

async fn serve_smtp(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"220 sink ESMTP\r\n").await?;
    let (mut input, mut at_data) = (Vec::new(), false);
    let mut piece = vec![0; 64 * 1024];
    loop {
        let n = stream.read(&mut piece).await?;
        if n == 0 {
            return Ok(());
        }
        input.extend_from_slice(&piece[..n]);
        let mut out = Vec::new();
        loop {
            let end = if at_data { &b"\r\n.\r\n"[..] } else { &b"\r\n"[..] };
            let Some(at) = memchr::memmem::find(&input, end) else { break };
            if at_data {
                at_data = false;
                out.extend_from_slice(b"250 2.0.0 queued as 1\r\n");
            } else {
                let word = input[..at.min(4)].to_ascii_uppercase();
                at_data = word == b"DATA";
                out.extend_from_slice(match word.as_slice() {
                    b"EHLO" => b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
                    b"DATA" => b"354 go\r\n",
                    b"QUIT" => b"221 bye\r\n",
                    _ => b"250 ok\r\n",
                });
            }
            input.drain(..at + end.len());
        }
        stream.write_all(&out).await?;
    }
}

async fn serve_http(mut stream: TcpStream) -> std::io::Result<()> {
    let mut input = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        while let Some(at) = memchr::memmem::find(&input, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&input[..at]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let all = at + 4 + length.unwrap_or(0);
            if input.len() < all {
                break;
            }
            let body = r#"{"ErrorCode":0,"Message":"OK","MessageID":"m-1","MessageId":"m-1"}"#;
            let status = if head.contains(" /v3/mail/send ") { "202 Accepted" } else { "200 OK" };
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Message-Id: m-1\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await?;
            input.drain(..all);
        }
        let n = stream.read(&mut piece).await?;
        if n == 0 {
            return Ok(());
        }
        input.extend_from_slice(&piece[..n]);
    }
}
