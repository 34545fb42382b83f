//! What takes the mail: a server of SMTP and one that answers as all the APIs do. They judge nothing, each in a process of
//! its own, so that its CPU is not counted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Failure;

/// Says which sink this process is.
pub const SINK: &str = "POSTROAD_BENCH_SINK";

/// One of them.
pub struct Sink {
    pub at: SocketAddr,
    process: Child,
}

impl Sink {
    pub fn start(kind: &str) -> Result<Sink, Failure> {
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

/// Runs that sink until whoever started it is gone.
pub async fn sink(kind: &str) -> Result<(), Failure> {
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
