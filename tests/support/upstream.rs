//! An SMTP server that keeps what it is sent and fails where it is told to: the next hop in the tests.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postroad::clock::monotonic;
use socket2::{Domain, SockRef, Socket, Type};

use super::line::Line;
use super::port::free_port;
use super::tls;
use super::wait::wait_until;

/// Where in a session something goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// Before the greeting.
    Banner,
    Ehlo,
    StartTls,
    /// After the 220 to STARTTLS, where the handshake is due.
    Handshake,
    Auth,
    Mail,
    /// A MAIL that names this address.
    MailOf(&'static str),
    /// The nth RCPT of a transaction, from 1.
    Rcpt(usize),
    /// A RCPT that names this address.
    RcptOf(&'static str),
    Data,
    /// In the body, after so many octets.
    Body(usize),
    /// The whole body is here, the reply is due.
    Dot,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Reset,
    Close,
    /// This reply instead (421 also closes).
    Reply(&'static str),
    Garbage,
    /// A reply whose lines have different codes.
    Mixed,
    /// Two digits of the reply, then an end.
    Half,
    /// Two digits of the reply, then nothing, and nothing is read either.
    HalfStall,
    /// The right reply, so much later.
    Slow(Duration),
    /// Reads on and says nothing.
    Hang,
    /// Neither reads nor says anything.
    Stall,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tls {
    #[default]
    Off,
    Starting,
    Implicit,
}

/// Log-ins with access tokens.
#[derive(Clone)]
pub struct Bearer {
    pub mechanisms: &'static str,
    pub user: &'static str,
    /// Whether a token is good.
    pub judge: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Says what it holds against a token before it refuses it.
    pub challenges: bool,
}

/// What it is like before anything goes wrong.
#[derive(Clone)]
pub struct Manner {
    pub greeting: String,
    pub extensions: Vec<String>,
    pub tls: Tls,
    /// Mechanisms, user, password.
    pub auth: Option<(&'static str, &'static str, &'static str)>,
    pub bearer: Option<Bearer>,
    /// Says 354 also where it took no recipient, as some servers do.
    pub lax_data: bool,
    /// Takes so many recipients a transaction, 452 for the rest.
    pub recipients_max: usize,
    /// Takes so many connections at a time; to more it says this, where it is something, and closes.
    pub full: Option<(usize, &'static str)>,
    /// To those it says so at MAIL; only 421 closes.
    pub full_at_mail: bool,
    /// Of each connection: a small one fills up where it is not read.
    pub receive_buffer: Option<usize>,
    /// Its own port; a free one without.
    pub port: Option<u16>,
    /// What it says to a wrong password.
    pub auth_refused: &'static str,
    /// What it says to a whole message; one that begins with 2 takes it.
    pub judge: Option<Judge>,
}

/// Judges a message and gives the reply to its final dot.
pub type Judge = Arc<dyn Fn(&Received) -> String + Send + Sync>;

impl Default for Manner {
    fn default() -> Self {
        let words = ["PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"];
        Manner {
            greeting: "220 upstream.test ESMTP".into(),
            extensions: words.iter().map(|w| (*w).to_owned()).collect(),
            tls: Tls::Off,
            auth: None,
            bearer: None,
            lax_data: false,
            recipients_max: usize::MAX,
            full: None,
            full_at_mail: false,
            receive_buffer: None,
            port: None,
            auth_refused: "535 5.7.8 no",
            judge: None,
        }
    }
}

/// One message that it took.
#[derive(Clone, Debug)]
pub struct Received {
    /// The argument of MAIL, parameters included: `<a@b> SIZE=12`.
    pub mail: String,
    /// The paths of the recipients that it took, with their brackets.
    pub to: Vec<String>,
    /// The content, dots undone.
    pub data: Vec<u8>,
    pub tls: bool,
    pub user: Option<String>,
    pub connection: u64,
    /// When its MAIL was read.
    pub began: tokio::time::Instant,
    /// When the whole body was here and, where it was, about to be answered.
    pub at: Instant,
}

impl Received {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).into_owned()
    }

    /// A header field's value, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        super::mailgen::fields(&self.data).into_iter().find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| {
            String::from_utf8_lossy(&f.value).replace("\r\n", "").replace('\t', " ").trim().to_owned()
        })
    }
}

struct Rule {
    point: Point,
    fault: Fault,
    left: usize,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    unanswered: Mutex<Vec<Received>>,
    commands: Mutex<Vec<(u64, String)>>,
    rules: Mutex<Vec<Rule>>,
    manner: Mutex<Manner>,
    stop: AtomicBool,
    /// What ends from now on ends with a reset.
    killed: AtomicBool,
    connections: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
    open_most: AtomicUsize,
}

pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    clog: Option<Clog>,
}

/// A listener that accepts nobody, and those that fill its queue.
struct Clog {
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl Upstream {
    /// One that offers what servers offer and takes everything.
    pub fn start() -> Upstream {
        Upstream::with(Manner::default())
    }

    pub fn with(manner: Manner) -> Upstream {
        let listener = match manner.port {
            Some(port) => TcpListener::bind(("127.0.0.1", port)).unwrap(),
            // A port that no other is given while this one refuses connections.
            None => std::iter::repeat_with(|| TcpListener::bind(("127.0.0.1", free_port())))
                .find_map(Result::ok)
                .unwrap(),
        };
        if let Some(octets) = manner.receive_buffer {
            SockRef::from(&listener).set_recv_buffer_size(octets).unwrap();
        }
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { manner: Mutex::new(manner), ..Shared::default() });
        let thread = Some(listen(listener, shared.clone()));
        Upstream { address, shared, thread, clog: None }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, `times` times.
    pub fn fail(&self, point: Point, fault: Fault, times: usize) -> &Self {
        self.shared.rules.lock().unwrap().push(Rule { point, fault, left: times });
        self
    }

    /// From now on, each time.
    pub fn fail_always(&self, point: Point, fault: Fault) -> &Self {
        self.fail(point, fault, usize::MAX)
    }

    /// All is well again.
    pub fn heal(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// What it answered 250 for, in order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.received.lock().unwrap().len()
    }

    /// What it has whole, and gave no answer for.
    pub fn unanswered(&self) -> Vec<Received> {
        self.shared.unanswered.lock().unwrap().clone()
    }

    /// Every command line, with the number of its connection.
    pub fn commands(&self) -> Vec<(u64, String)> {
        self.shared.commands.lock().unwrap().clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections at this moment.
    pub fn open_connections(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }

    /// The most connections that stood at one moment since the start, or the last `reopen`.
    pub fn most_connections(&self) -> usize {
        self.shared.open_most.load(Ordering::SeqCst)
    }

    /// Ends every connection that stands.
    pub fn drop_connections(&self) {
        for stream in self.shared.open.lock().unwrap().values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Waits for `n` messages in all.
    #[track_caller]
    pub fn wait_for(&self, n: usize) -> Vec<Received> {
        self.wait_for_within(n, Duration::from_secs(30))
    }

    #[track_caller]
    pub fn wait_for_within(&self, n: usize, bound: Duration) -> Vec<Received> {
        wait_until(&format!("{n} messages at the upstream"), bound, || self.count() >= n);
        self.received()
    }

    /// Refuses connections until `reopen`.
    pub fn shut(&mut self) {
        self.stop_listening();
        self.drop_connections();
    }

    /// Dies as a process does under `kill -9`, or a host without power: every connection is reset, the port refuses.
    /// Until `reopen`.
    pub fn kill(&mut self) {
        self.shared.killed.store(true, Ordering::SeqCst);
        self.stop_listening();
        let open: Vec<TcpStream> = self.shared.open.lock().unwrap().drain().map(|(_, s)| s).collect();
        for stream in &open {
            // Wakes the session, which has the other end of the descriptor and resets.
            let _ = stream.shutdown(std::net::Shutdown::Read);
        }
        drop(open);
    }

    /// Lets connections neither come about nor fail, as a host that drops packets does. Until `reopen`.
    pub fn clog(&mut self) {
        self.shut();
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&self.address.into()).unwrap();
        listener.listen(0).unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&self.address, Duration::from_millis(200)) {
            queue.push(stream);
        }
        self.clog = Some(Clog { _listener: listener, _queue: queue });
    }

    fn stop_listening(&mut self) {
        self.clog = None;
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    pub fn reopen_if_down(&mut self) {
        if self.thread.is_none() {
            self.reopen();
        }
    }

    pub fn reopen(&mut self) {
        self.clog = None;
        self.shared.stop.store(false, Ordering::SeqCst);
        self.shared.killed.store(false, Ordering::SeqCst);
        self.shared.open_most.store(0, Ordering::SeqCst);
        let mut listener = None;
        wait_until("the upstream's port", Duration::from_secs(10), || {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        });
        self.thread = listener.map(|l| listen(l, self.shared.clone()));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shut();
    }
}

fn listen(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if shared.stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
            if let Ok(copy) = stream.try_clone() {
                let mut open = shared.open.lock().unwrap();
                open.insert(number, copy);
                shared.open_most.fetch_max(open.len(), Ordering::SeqCst);
            }
            let shared = shared.clone();
            std::thread::spawn(move || {
                let manner = shared.manner.lock().unwrap().clone();
                let mut session = Session {
                    line: Line::new(stream),
                    shared: shared.clone(),
                    manner,
                    number,
                    tls: false,
                    user: None,
                    transaction: None,
                };
                let _ = session.run();
                // Before the end: who sees the end may count what stands.
                let copy = shared.open.lock().unwrap().remove(&number);
                drop(copy);
                match shared.killed.load(Ordering::SeqCst) {
                    true => session.line.reset(),
                    false => session.line.close(),
                }
            });
        }
    })
}

struct Transaction {
    mail: String,
    to: Vec<String>,
    asked: usize,
    began: tokio::time::Instant,
}

impl Transaction {
    fn new(mail: String) -> Self {
        Transaction { mail, to: Vec::new(), asked: 0, began: monotonic() }
    }
}

struct Session {
    line: Line,
    shared: Arc<Shared>,
    manner: Manner,
    number: u64,
    tls: bool,
    user: Option<String>,
    transaction: Option<Transaction>,
}

/// Whether the session goes on.
type Next = io::Result<bool>;

impl Session {
    fn run(&mut self) -> io::Result<()> {
        self.line.timeout(Duration::from_secs(120));
        if self.manner.tls == Tls::Implicit {
            self.line.tls_as_server(tls::pki().server())?;
            self.tls = true;
        }
        if let Some(said) = self.has_no_place().filter(|_| !self.manner.full_at_mail) {
            // It has had no place.
            self.shared.open.lock().unwrap().remove(&self.number);
            return match said {
                "" => Ok(()),
                said => self.line.write(format!("{said}\r\n").as_bytes()),
            };
        }
        let greeting = self.manner.greeting.clone();
        if !self.answer(&[Point::Banner], &greeting)? {
            return Ok(());
        }
        while let Some(line) = self.line.read_line()? {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.shared.commands.lock().unwrap().push((self.number, line.clone()));
            if !self.command(&line)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What is said to a connection that is one too many.
    fn has_no_place(&self) -> Option<&'static str> {
        let (most, said) = self.manner.full?;
        let open = self.shared.open.lock().unwrap();
        (open.keys().filter(|number| **number <= self.number).count() > most).then_some(said)
    }

    fn command(&mut self, line: &str) -> Next {
        let upper = line.to_ascii_uppercase();
        let verb = upper.split([' ', ':']).next().unwrap_or_default();
        match verb {
            "EHLO" => {
                self.transaction = None;
                let reply = self.ehlo();
                self.answer(&[Point::Ehlo], &reply)
            }
            "HELO" => self.answer(&[], "250 upstream.test"),
            "STARTTLS" => self.starttls(),
            "AUTH" => self.auth(line),
            "MAIL" => self.mail(line),
            "RCPT" => self.rcpt(line),
            "DATA" => self.data(),
            "RSET" => {
                self.transaction = None;
                self.answer(&[], "250 2.0.0 ok")
            }
            "NOOP" => self.answer(&[], "250 2.0.0 ok"),
            "QUIT" => {
                // Before the reply: whoever reads it may open the next one.
                self.shared.open.lock().unwrap().remove(&self.number);
                self.line.write(b"221 2.0.0 bye\r\n")?;
                Ok(false)
            }
            _ => self.answer(&[], "500 5.5.1 what"),
        }
    }

    fn ehlo(&self) -> String {
        let mut words = vec!["upstream.test".to_owned()];
        words.extend(self.manner.extensions.iter().cloned());
        if self.manner.tls == Tls::Starting && !self.tls {
            words.push("STARTTLS".into());
        }
        let auth = self.manner.auth.map(|(mechanisms, _, _)| mechanisms);
        let bearer = self.manner.bearer.as_ref().map(|bearer| bearer.mechanisms);
        if (auth.is_some() || bearer.is_some()) && (self.tls || self.manner.tls == Tls::Off) {
            words.push(
                auth.into_iter().chain(bearer).fold("AUTH".into(), |all, more| format!("{all} {more}")),
            );
        }
        let last = words.len() - 1;
        let lines =
            words.iter().enumerate().map(|(i, w)| format!("250{}{w}", if i == last { ' ' } else { '-' }));
        lines.collect::<Vec<_>>().join("\r\n")
    }

    fn starttls(&mut self) -> Next {
        if self.manner.tls != Tls::Starting || self.tls {
            return self.answer(&[], "502 5.5.1 no");
        }
        match self.rule(&[Point::StartTls]) {
            Some(Fault::Slow(d)) => self.sleep(d),
            Some(fault) => return self.go_wrong(fault, "220 2.0.0 go"),
            None => {}
        }
        self.line.write(b"220 2.0.0 go\r\n")?;
        match self.rule(&[Point::Handshake]) {
            Some(Fault::Slow(d)) => self.sleep(d),
            // Two octets of a record, where half of it is asked for.
            Some(fault) => return self.go_wrong(fault, "\u{16}\u{3}").map(|_| false),
            None => {}
        }
        self.line.tls_as_server(tls::pki().server())?;
        self.tls = true;
        Ok(true)
    }

    fn auth(&mut self, line: &str) -> Next {
        if let Some(bearer) = self.manner.bearer.clone()
            && line.split(' ').nth(1).is_some_and(|word| bearer.mechanisms.split(' ').any(|m| m == word))
        {
            return self.auth_by_token(line, &bearer);
        }
        let Some((mechanisms, user, password)) = self.manner.auth else {
            return self.answer(&[], "502 5.5.1 no");
        };
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        if !mechanisms.split(' ').any(|m| m == mechanism) {
            return self.answer(&[], "504 5.5.4 no such mechanism");
        }
        let inline = words.next().map(str::to_owned);
        let decode = |t: String| STANDARD.decode(t.trim()).unwrap_or_default();
        let given = if mechanism == "PLAIN" {
            let text = match inline {
                Some(text) => text,
                None => self.prompt("334 ")?,
            };
            decode(text)
        } else {
            if inline.is_some() {
                return self.answer(&[], "501 5.5.4 the name comes later");
            }
            let name = decode(self.prompt("334 VXNlcm5hbWU6")?);
            let secret = decode(self.prompt("334 UGFzc3dvcmQ6")?);
            [b"\0".as_slice(), &name, b"\0", &secret].concat()
        };
        if given != format!("\0{user}\0{password}").into_bytes() {
            return self.answer(&[Point::Auth], self.manner.auth_refused);
        }
        self.user = Some(user.to_owned());
        self.answer(&[Point::Auth], "235 2.7.0 ok")
    }

    /// What it was given comes back with a no, in each form.
    fn auth_by_token(&mut self, line: &str, bearer: &Bearer) -> Next {
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default();
        let response = match words.next() {
            Some(response) => response.to_owned(),
            None => self.prompt("334 ")?,
        };
        let given = STANDARD.decode(&response).unwrap_or_default();
        let given = String::from_utf8_lossy(&given).into_owned();
        let before = match mechanism {
            "XOAUTH2" => format!("user={}\x01auth=Bearer ", bearer.user),
            _ => {
                let local =
                    self.line.socket().and_then(|socket| socket.local_addr().ok()).map_or(0, |at| at.port());
                format!("n,a={},\x01host=127.0.0.1\x01port={local}\x01auth=Bearer ", bearer.user)
            }
        };
        let token = given.strip_prefix(&before).and_then(|rest| rest.strip_suffix("\x01\x01"));
        let Some(token) = token else { return self.answer(&[], "501 5.5.2 what is that") };
        if (bearer.judge)(token) {
            self.user = Some(bearer.user.to_owned());
            return self.answer(&[Point::Auth], "235 2.7.0 ok");
        }
        if bearer.challenges {
            let challenge = STANDARD.encode(format!("{{\"status\":\"401\",\"token\":\"{token}\"}}"));
            let end = self.prompt(&format!("334 {challenge}"))?;
            if end != if mechanism == "XOAUTH2" { "" } else { "AQ==" } {
                return self.answer(&[], "501 5.5.2 no end of the exchange");
            }
        }
        let token = STANDARD.encode(token);
        self.answer(
            &[],
            &format!(
                "535 5.7.3 Authentication unsuccessful: {response} {token} {}",
                given.replace('\u{1}', " ")
            ),
        )
    }

    fn prompt(&mut self, text: &str) -> io::Result<String> {
        self.line.write(format!("{text}\r\n").as_bytes())?;
        let line = self.line.read_line()?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn mail(&mut self, line: &str) -> Next {
        if (self.manner.auth.is_some() || self.manner.bearer.is_some()) && self.user.is_none() {
            return self.answer(&[], "530 5.7.0 authenticate first");
        }
        let mail = line.split_once(':').map(|(_, a)| a.trim().to_owned()).unwrap_or_default();
        let named = self.named(|point| matches!(point, Point::MailOf(who) if mail.contains(who)));
        let points: Vec<Point> = named.into_iter().chain([Point::Mail]).collect();
        if let Some(said) = self.has_no_place().filter(|_| self.manner.full_at_mail) {
            return self.go_wrong(Fault::Reply(said), "");
        }
        self.transaction = Some(Transaction::new(mail));
        self.answer(&points, "250 2.1.0 ok")
    }

    fn rcpt(&mut self, line: &str) -> Next {
        let path = line.split_once(':').map(|(_, a)| a.trim().to_owned()).unwrap_or_default();
        let path =
            path.split("> ").next().map(|p| format!("{}>", p.trim_end_matches('>'))).unwrap_or_default();
        let Some(transaction) = &mut self.transaction else {
            return self.answer(&[], "503 5.5.1 MAIL first");
        };
        transaction.asked += 1;
        if transaction.to.len() >= self.manner.recipients_max {
            return self.answer(&[], "452 4.5.3 too many recipients in one go");
        }
        let points = [Point::Rcpt(transaction.asked)];
        let named = self.named(|point| matches!(point, Point::RcptOf(who) if path.contains(who)));
        let points: Vec<Point> = named.into_iter().chain(points).collect();
        match self.rule(&points) {
            Some(Fault::Slow(d)) => self.sleep(d),
            Some(fault) => return self.go_wrong(fault, "250 2.1.5 ok"),
            None => {}
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.to.push(path);
        }
        self.line.write(b"250 2.1.5 ok\r\n")?;
        Ok(true)
    }

    fn data(&mut self) -> Next {
        let nobody = self.transaction.as_ref().is_none_or(|t| t.to.is_empty());
        if nobody && !self.manner.lax_data {
            return self.answer(&[], "554 5.5.1 no valid recipients");
        }
        match self.rule(&[Point::Data]) {
            Some(Fault::Slow(d)) => self.sleep(d),
            Some(fault) => return self.go_wrong(fault, "354 go"),
            None => {}
        }
        self.line.write(b"354 go\r\n")?;
        let in_body = self.rule_in_body();
        let Some(data) = self.read_body(in_body)? else { return Ok(false) };
        let transaction = self.transaction.take().unwrap_or_else(|| Transaction::new(String::new()));
        let (tls, user, connection) = (self.tls, self.user.clone(), self.number);
        if nobody {
            return self.answer(&[], "554 5.5.1 no valid recipients");
        }
        let Transaction { mail, to, began, .. } = transaction;
        let at = monotonic().into_std();
        let mut received = Received { mail, to, data, tls, user, connection, began, at };
        match self.rule(&[Point::Dot]) {
            None => {}
            Some(Fault::Slow(d)) => {
                self.sleep(d);
                if self.shared.killed.load(Ordering::SeqCst) {
                    // The dead do not answer.
                    self.shared.unanswered.lock().unwrap().push(received);
                    return Ok(false);
                }
            }
            Some(Fault::Reply(text)) => {
                if text.starts_with('2') {
                    self.shared.received.lock().unwrap().push(received);
                }
                return self.go_wrong(Fault::Reply(text), "");
            }
            Some(fault) => {
                self.shared.unanswered.lock().unwrap().push(received);
                return self.go_wrong(fault, "250 2.0.0 ok");
            }
        }
        received.at = postroad::clock::monotonic().into_std();
        let judge = self.manner.judge.clone();
        let reply =
            judge.map_or_else(|| "250 2.0.0 ok: queued at upstream".to_owned(), |judge| judge(&received));
        if reply.starts_with('2') {
            // As a real server does: what is answered 250 is kept first.
            self.shared.received.lock().unwrap().push(received);
        }
        self.line.write(format!("{reply}\r\n").as_bytes())?;
        Ok(true)
    }

    /// The content with its dots undone; `None` when the connection ends in it.
    fn read_body(&mut self, mut fails: Option<(usize, Fault)>) -> io::Result<Option<Vec<u8>>> {
        let mut data = Vec::new();
        loop {
            let Some(line) = self.line.read_line()? else { return Ok(None) };
            if line == b"." {
                return Ok(Some(data));
            }
            data.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            data.extend_from_slice(b"\r\n");
            if let Some((_, fault)) = fails.take_if(|(after, _)| data.len() >= *after) {
                match fault {
                    Fault::Slow(d) => self.sleep(d),
                    fault => {
                        self.go_wrong(fault, "25")?;
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn rule_in_body(&self) -> Option<(usize, Fault)> {
        let mut rules = self.shared.rules.lock().unwrap();
        let rule = rules.iter_mut().find(|r| matches!(r.point, Point::Body(_)) && r.left > 0)?;
        rule.left -= 1;
        let Point::Body(after) = rule.point else { return None };
        Some((after, rule.fault))
    }

    /// The point of the first rule that is about what is named.
    fn named(&self, test: impl Fn(Point) -> bool) -> Option<Point> {
        self.shared.rules.lock().unwrap().iter().map(|r| r.point).find(|point| test(*point))
    }

    fn rule(&self, points: &[Point]) -> Option<Fault> {
        let mut rules = self.shared.rules.lock().unwrap();
        let rule = rules.iter_mut().find(|r| points.contains(&r.point) && r.left > 0)?;
        rule.left -= 1;
        Some(rule.fault)
    }

    fn answer(&mut self, points: &[Point], right: &str) -> Next {
        match self.rule(points) {
            Some(fault) => self.go_wrong(fault, right),
            None => {
                self.line.write(format!("{right}\r\n").as_bytes())?;
                Ok(true)
            }
        }
    }

    fn go_wrong(&mut self, fault: Fault, right: &str) -> Next {
        match fault {
            Fault::Reset => {
                self.shared.open.lock().unwrap().remove(&self.number);
                self.line.reset();
                Ok(false)
            }
            Fault::Close => Ok(false),
            Fault::Reply(text) => {
                self.line.write(format!("{text}\r\n").as_bytes())?;
                Ok(!text.starts_with("421"))
            }
            Fault::Garbage => {
                self.line.write(b"\xff\xfe\0 no reply at all\r\n")?;
                Ok(true)
            }
            Fault::Mixed => {
                self.line.write(b"250-fine\r\n550 5.1.1 no\r\n")?;
                Ok(true)
            }
            Fault::Half => {
                self.line.write(&right.as_bytes()[..2.min(right.len())])?;
                Ok(false)
            }
            Fault::HalfStall => {
                self.line.write(&right.as_bytes()[..2.min(right.len())])?;
                self.go_wrong(Fault::Stall, right)
            }
            Fault::Slow(d) => {
                self.sleep(d);
                self.line.write(format!("{right}\r\n").as_bytes())?;
                Ok(true)
            }
            Fault::Stall => {
                self.sleep(Duration::from_secs(600));
                Ok(false)
            }
            Fault::Hang => {
                while !self.shared.stop.load(Ordering::SeqCst) {
                    self.line.timeout(Duration::from_millis(50));
                    match self.line.fill() {
                        Ok(0) => break,
                        Err(e)
                            if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                        {
                            break;
                        }
                        _ => self.line.buffered().clear(),
                    }
                }
                Ok(false)
            }
        }
    }

    /// Waits as an upstream that takes its time; the end of the test ends it.
    fn sleep(&self, time: Duration) {
        super::wait::holds_within(time, || self.shared.stop.load(Ordering::SeqCst));
    }
}
