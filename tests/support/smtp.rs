//! A client that says exactly what it is told to, byte by byte, and reads exactly what it is answered.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::line::Line;
use super::tls;

/// How long one reply may take.
const REPLY_BOUND: Duration = Duration::from_secs(20);

/// One reply, all its lines.
#[derive(Debug, Clone)]
pub struct Reply {
    pub code: u16,
    /// As it came, with every CRLF.
    pub raw: String,
}

impl Reply {
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.raw.split_terminator("\r\n")
    }

    /// The texts behind the codes, in one line.
    pub fn text(&self) -> String {
        self.lines().filter_map(|l| l.get(4..)).collect::<Vec<_>>().join(" ")
    }

    /// What is wrong with a refusal: each needs an enhanced code of its class (RFC 2034) and advice.
    pub fn complaint(&self) -> Option<String> {
        if self.code < 400 {
            return None;
        }
        let class = char::from(b'0' + (self.code / 100) as u8);
        for line in self.lines() {
            let rest = line.get(4..).unwrap_or_default();
            let (code, advice) = rest.split_once(' ').unwrap_or((rest, ""));
            let digits: Vec<&str> = code.split('.').collect();
            let formed = digits.len() == 3
                && digits
                    .iter()
                    .all(|d| !d.is_empty() && d.len() <= 3 && d.bytes().all(|b| b.is_ascii_digit()));
            if !formed || !code.starts_with(class) {
                return Some(format!("no enhanced code of class {class} in {line:?}"));
            }
            if advice.chars().count() < 15 {
                return Some(format!("no advice in {line:?}"));
            }
            if line.len() > 510 {
                return Some(format!("{} octets in a reply line", line.len()));
            }
        }
        None
    }
}

pub struct Client {
    line: Line,
    /// Everything that was said and heard, for a failed test.
    pub transcript: String,
}

impl Client {
    /// Connects and reads nothing yet.
    #[track_caller]
    pub fn connect(at: SocketAddr) -> Client {
        Client::try_connect(at, None).unwrap_or_else(|e| panic!("connect to {at}: {e}"))
    }

    /// Connects from an address of its own, such as 127.1.2.3.
    pub fn try_connect(at: SocketAddr, from: Option<IpAddr>) -> io::Result<Client> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&at.into(), Duration::from_secs(10))?;
        let line = Line::new(TcpStream::from(socket));
        line.timeout(REPLY_BOUND);
        Ok(Client { line, transcript: String::new() })
    }

    /// Connects, reads the greeting and says EHLO.
    #[track_caller]
    pub fn hello(at: SocketAddr) -> Client {
        let mut client = Client::connect(at);
        client.expect("220");
        client.say("EHLO client.example.com").expect("250");
        client
    }

    pub fn handshake(&mut self) -> io::Result<()> {
        self.handshake_with(tls::pki().client())
    }

    pub fn handshake_with(&mut self, config: std::sync::Arc<rustls::ClientConfig>) -> io::Result<()> {
        self.line.tls_as_client(config, "localhost")
    }

    /// Sends bytes; a server that hung up meanwhile shows in the next reply.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        let shown = bytes.len().min(300);
        self.transcript.push_str(&format!("> {}\n", bytes[..shown].escape_ascii()));
        let _ = self.line.write(bytes);
        self
    }

    /// Sends a line.
    pub fn say(&mut self, line: &str) -> &mut Self {
        self.raw(format!("{line}\r\n").as_bytes())
    }

    /// Sends bytes and says whether the connection took them.
    pub fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.line.write(bytes)
    }

    /// The next reply, or why there is none.
    pub fn reply_within(&mut self, bound: Duration) -> Result<Reply, String> {
        self.line.timeout(bound);
        let mut raw = String::new();
        loop {
            let line = match self.line.read_line() {
                Ok(Some(line)) => String::from_utf8_lossy(&line).into_owned(),
                Ok(None) => return Err("the connection was closed".into()),
                Err(e) => return Err(format!("no reply: {e}")),
            };
            self.transcript.push_str(&format!("< {line}\n"));
            raw.push_str(&line);
            raw.push_str("\r\n");
            let code =
                line.get(..3).and_then(|c| c.parse().ok()).ok_or(format!("no reply line: {line:?}"))?;
            match line.as_bytes().get(3) {
                Some(b'-') => {}
                None | Some(b' ') => return Ok(Reply { code, raw }),
                Some(_) => return Err(format!("no reply line: {line:?}")),
            }
        }
    }

    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        match self.reply_within(REPLY_BOUND) {
            Ok(reply) => reply,
            Err(e) => panic!("{e}\n{}", self.transcript),
        }
    }

    /// The next reply, whose code must start with `prefix`.
    #[track_caller]
    pub fn expect(&mut self, prefix: &str) -> Reply {
        let reply = self.reply();
        assert!(
            reply.code.to_string().starts_with(prefix),
            "wanted {prefix}, got {:?}\n{}",
            reply.raw,
            self.transcript
        );
        if let Some(complaint) = reply.complaint() {
            panic!("{complaint}\n{}", self.transcript);
        }
        reply
    }

    /// Whether nothing is said for so long (an end counts as something).
    pub fn silent_for(&mut self, bound: Duration) -> Result<(), String> {
        match self.reply_within(bound) {
            Ok(reply) => Err(format!("wanted silence, got {:?}", reply.raw)),
            Err(e) if e.starts_with("no reply:") => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Whether the other side has closed within `bound`; what it says before is read.
    pub fn closed_within(&mut self, bound: Duration) -> bool {
        self.line.timeout(bound);
        loop {
            match self.line.fill() {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) => return e.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// The whole transaction; gives the id that the relay told.
    #[track_caller]
    pub fn submit(&mut self, from: &str, to: &[&str], raw: &[u8]) -> String {
        self.begin(from, to);
        self.raw(&stuffed(raw));
        let reply = self.expect("250");
        queued_as(&reply).unwrap_or_else(|| panic!("no id in {:?}", reply.raw))
    }

    /// MAIL, RCPT and DATA, all taken.
    #[track_caller]
    pub fn begin(&mut self, from: &str, to: &[&str]) {
        self.say(&format!("MAIL FROM:<{from}>")).expect("250");
        for to in to {
            self.say(&format!("RCPT TO:<{to}>")).expect("250");
        }
        self.say("DATA").expect("354");
    }

    /// The same without a demand; `Err` has the first reply that was not as hoped.
    pub fn try_submit(
        &mut self,
        from: &str,
        to: &[&str],
        raw: &[u8],
        bound: Duration,
    ) -> Result<String, String> {
        let mut commands = vec![(format!("MAIL FROM:<{from}>"), 250)];
        commands.extend(to.iter().map(|t| (format!("RCPT TO:<{t}>"), 250)));
        commands.push(("DATA".to_owned(), 354));
        for (command, wanted) in commands {
            self.say(&command);
            let reply = self.reply_within(bound)?;
            if reply.code != wanted {
                return Err(reply.raw);
            }
        }
        self.raw(&stuffed(raw));
        let reply = self.reply_within(bound)?;
        if reply.code == 250 { queued_as(&reply).ok_or(reply.raw) } else { Err(reply.raw) }
    }

    pub fn auth_plain(&mut self, user: &str, password: &str) -> Reply {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
        self.say(&format!("AUTH PLAIN {text}")).reply()
    }

    pub fn reset(&mut self) {
        self.line.reset();
    }

    pub fn close(&mut self) {
        self.line.close();
    }

    /// A small receive window and send buffer, for clients that are slow on purpose.
    pub fn small_buffers(&self) {
        if let Some(socket) = self.line.socket() {
            let _ = SockRef::from(socket).set_recv_buffer_size(4096);
            let _ = SockRef::from(socket).set_send_buffer_size(4096);
        }
    }
}

/// The id in `250 2.0.0 queued as ID`.
pub fn queued_as(reply: &Reply) -> Option<String> {
    let text = reply.text();
    let at = text.find("queued as ")? + "queued as ".len();
    let id: String = text[at..].chars().take_while(char::is_ascii_alphanumeric).collect();
    (!id.is_empty()).then_some(id)
}

/// As it goes over the wire after 354: dots doubled, a last CRLF, the final dot.
pub fn stuffed(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 16);
    let mut at_start = true;
    for (i, &b) in raw.iter().enumerate() {
        if at_start && b == b'.' {
            out.push(b'.');
        }
        out.push(b);
        at_start = b == b'\n' && i > 0 && raw[i - 1] == b'\r';
    }
    if !raw.is_empty() && !at_start {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
