//! A scripted upstream on a real socket. Each connection plays the next script, one step a line:
//!
//! `S: text` says a line · `R: text` says octets as they are (`\r`, `\n`) · `C: VERB` hears a line that starts so ·
//! `.` hears content up to its end · `one: VERB VERB …` hears these lines, all in one read · `5xx: text` refuses whatever comes ·
//! `close` · `reset` · `hang` waits for the client to go · `tls` shakes hands · `ask`
//! asks the abort · `asked` waits until somebody has.
//!
//! After its last step it hears until the client goes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::mail::Abort;

/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    /// The socket itself, before TLS.
    fn tcp(self: Box<Self>) -> TcpStream;
}

impl Socket for TcpStream {
    fn tcp(self: Box<Self>) -> TcpStream {
        *self
    }
}

impl Socket for TlsStream<TcpStream> {
    fn tcp(self: Box<Self>) -> TcpStream {
        self.into_inner().0
    }
}

/// What one connection heard.
#[derive(Debug, Default, Clone)]
pub struct Heard {
    /// Commands.
    pub lines: Vec<String>,
    /// Contents as they were on the wire, without the end of data.
    pub contents: Vec<Vec<u8>>,
    /// Octets of content that never ended.
    pub unfinished: Vec<u8>,
}

impl Heard {
    pub fn has(&self, start: &str) -> bool {
        self.lines.iter().any(|l| l.to_ascii_uppercase().starts_with(start))
    }

    pub fn line(&self, start: &str) -> &str {
        self.lines.iter().find(|l| l.to_ascii_uppercase().starts_with(start)).map_or("", |l| l)
    }
}

pub struct Upstream {
    pub address: SocketAddr,
    connections: JoinHandle<Vec<JoinHandle<Heard>>>,
}

impl Upstream {
    pub async fn plays(scripts: &[&str]) -> Self {
        Self::plays_with(scripts, None, Abort::default()).await
    }

    pub async fn plays_over(scripts: &[&str], tls: TlsAcceptor) -> Self {
        Self::plays_with(scripts, Some(tls), Abort::default()).await
    }

    pub async fn plays_with(scripts: &[&str], tls: Option<TlsAcceptor>, abort: Abort) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scripts: Vec<String> = scripts.iter().map(|s| (*s).to_owned()).collect();
        let connections = tokio::spawn(async move {
            let mut playing = Vec::new();
            for script in scripts {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                playing.push(tokio::spawn(play(tcp, script, tls.clone(), abort.clone())));
            }
            playing
        });
        Upstream { address, connections }
    }

    /// What each connection heard, once all are gone.
    pub async fn heard(self) -> Vec<Heard> {
        let all = async {
            let mut heard = Vec::new();
            for connection in self.connections.await.unwrap() {
                heard.push(connection.await.unwrap());
            }
            heard
        };
        tokio::time::timeout(PATIENCE, all)
            .await
            .expect("a connection that was expected did not come or did not end")
    }
}

struct Actor {
    socket: Box<dyn Socket>,
    input: Vec<u8>,
    heard: Heard,
}

async fn play(tcp: TcpStream, script: String, tls: Option<TlsAcceptor>, abort: Abort) -> Heard {
    let mut actor = Actor { socket: Box::new(tcp), input: Vec::new(), heard: Heard::default() };
    for step in script.lines() {
        match step.trim() {
            "" => {}
            "ask" => abort.ask(),
            "asked" => abort.wait().await,
            "close" => return actor.heard,
            "reset" => {
                actor.socket.tcp().set_zero_linger().unwrap();
                return actor.heard;
            }
            "tls" => match tls.as_ref().unwrap().accept(actor.socket.tcp()).await {
                Ok(stream) => actor.socket = Box::new(stream),
                Err(_) => return actor.heard,
            },
            step => actor.step(step).await,
        }
    }
    actor.hear_all().await;
    actor.heard
}

impl Actor {
    async fn step(&mut self, step: &str) {
        let (verb, rest) = step.split_once(": ").unwrap_or((step.trim_end_matches(':'), ""));
        match verb {
            "S" => self.say(format!("{rest}\r\n").as_bytes()).await,
            "R" => {
                let octets = rest.replace("\\r", "\r").replace("\\n", "\n");
                self.say(octets.as_bytes()).await;
            }
            "C" => {
                let line = self.line().await.unwrap_or_else(|| panic!("the client went before {rest}"));
                assert!(line.to_ascii_uppercase().starts_with(rest), "heard {line:?}, not {rest}");
            }
            "." => self.content().await,
            "one" => self.one(rest).await,
            "5xx" => {
                while let Some(line) = self.line().await {
                    let reply = if line == "QUIT" { "221 bye\r\n" } else { "503 5.5.1 no\r\n" };
                    self.say(reply.as_bytes()).await;
                }
            }
            "hang" => {
                self.hear_all().await;
            }
            "late" => tokio::time::sleep(Duration::from_millis(300)).await,
            other => panic!("no such step: {other}"),
        }
    }

    async fn say(&mut self, octets: &[u8]) {
        let _ = self.socket.write_all(octets).await;
        let _ = self.socket.flush().await;
    }

    async fn more(&mut self) -> bool {
        self.input.reserve(64 * 1024);
        let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.input)).await;
        matches!(read.expect("the client said nothing"), Ok(n) if n > 0)
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.input, b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).take(end).collect();
                let line = String::from_utf8_lossy(&line).into_owned();
                self.heard.lines.push(line.clone());
                return Some(line);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn one(&mut self, verbs: &str) {
        assert!(self.input.is_empty() && self.more().await);
        for verb in verbs.split(' ') {
            let end = memchr::memmem::find(&self.input, b"\r\n").expect("not in the same segment");
            let line: Vec<u8> = self.input.drain(..end + 2).take(end).collect();
            let line = String::from_utf8_lossy(&line).into_owned();
            assert!(line.starts_with(verb), "{line}, not {verb}");
            self.heard.lines.push(line);
        }
        assert!(
            self.input.is_empty(),
            "more in the same segment: {:?}",
            String::from_utf8_lossy(&self.input)
        );
    }

    async fn content(&mut self) {
        loop {
            let end = match self.input.starts_with(b".\r\n") {
                true => Some(0),
                false => memchr::memmem::find(&self.input, b"\r\n.\r\n").map(|at| at + 2),
            };
            if let Some(end) = end {
                self.heard.contents.push(self.input.drain(..end).collect());
                self.input.drain(..3);
                return;
            }
            if !self.more().await {
                self.heard.unfinished = std::mem::take(&mut self.input);
                return;
            }
        }
    }

    async fn hear_all(&mut self) {
        while let Some(line) = self.line().await {
            if line == "QUIT" {
                self.say(b"221 bye\r\n").await;
            }
        }
        self.heard.unfinished = std::mem::take(&mut self.input);
    }
}
