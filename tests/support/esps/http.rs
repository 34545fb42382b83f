//! A small HTTP/1.1 server of threads: an ESP's front door, and every way in which it can fail to answer.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::faults::{Fault, Rules, Where};
use super::taken::Books;
use crate::support::line::Line;
use crate::support::{port::free_port, tls, wait};

/// The longest header of a request.
const HEAD_MAX: usize = 64 * 1024;

/// The longest body of a request; above what any ESP takes.
const BODY_MAX: usize = 64 * 1024 * 1024;

/// How long a connection may say nothing between two requests, until told otherwise.
const IDLE: Duration = Duration::from_secs(60);

/// How long one read or write of a request may take.
const READ_MAX: Duration = Duration::from_secs(60);

/// How long a hanging connection is kept.
const HANG_MAX: Duration = Duration::from_secs(600);

/// A request, whole or (before its body is read) its head alone.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Behind the question mark, as it stood.
    pub query: String,
    /// In order, as they were spelled.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The number of its connection.
    pub connection: u64,
}

impl Request {
    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Whether a field's value says `wanted`, parameters aside.
    pub fn says(&self, name: &str, wanted: &str) -> bool {
        let values = self.header(name).unwrap_or_default().split(',');
        let mut kinds = values.map(|v| v.split(';').next().unwrap_or_default().trim());
        kinds.any(|kind| kind.eq_ignore_ascii_case(wanted))
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn empty(status: u16) -> Self {
        Response { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Response::text(status, "application/json", &body.to_string())
    }

    pub fn text(status: u16, kind: &str, body: &str) -> Self {
        Response { body: body.into(), ..Response::empty(status) }.with("Content-Type", kind)
    }

    /// With one more header field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As it goes over the line.
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", self.body.len());
        [head.as_bytes(), &self.body].concat()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

/// One request that was read whole, and what was said to it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub request: Arc<Request>,
    /// The status that was written, or would have been; `None` where a fault came before that.
    pub status: Option<u16>,
    /// Whether the whole answer was written.
    pub answered: bool,
    /// Whether mail was taken with it.
    pub took: bool,
}

/// What is behind the door: judges a request, and keeps what it takes in the books.
pub trait Desk: Send + Sync + 'static {
    /// Whether a request hands over mail, judged by its head.
    fn is_send(&self, head: &Request) -> bool;

    /// The right answer. What it takes it writes into the books, with the number of the request's connection.
    fn answer(&self, request: &Request) -> Answered;
}

/// What a desk says, and the numbers in the books of what it took.
pub struct Answered {
    pub response: Response,
    pub taken: Vec<u64>,
}

impl From<Response> for Answered {
    fn from(response: Response) -> Self {
        Answered { response, taken: Vec::new() }
    }
}

struct Shared {
    desk: Arc<dyn Desk>,
    books: Arc<Books>,
    rules: Rules,
    tls: bool,
    idle: Mutex<Duration>,
    seen: Mutex<Vec<Seen>>,
    /// Heads that were read, the send ones: also those whose body never came.
    heads: AtomicUsize,
    stop: AtomicBool,
    connections: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
    open_most: AtomicUsize,
}

/// The door itself: a listener with a thread a connection.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// On this port of the loopback, or a free one.
    pub fn start(desk: Arc<dyn Desk>, books: Arc<Books>, port: Option<u16>, tls: bool) -> io::Result<Server> {
        let listener = match port {
            Some(port) => TcpListener::bind(("127.0.0.1", port))?,
            None => std::iter::repeat_with(|| TcpListener::bind(("127.0.0.1", free_port())))
                .find_map(Result::ok)
                .ok_or(io::ErrorKind::AddrInUse)?,
        };
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            desk,
            books,
            rules: Rules::default(),
            tls,
            idle: Mutex::new(IDLE),
            seen: Mutex::default(),
            heads: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            open: Mutex::default(),
            open_most: AtomicUsize::new(0),
        });
        let thread = Some(listen(listener, shared.clone()));
        Ok(Server { address, shared, thread })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Without a slash at its end.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.shared.tls { "https" } else { "http" }, self.address)
    }

    pub fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// Every request that was read whole, in the order of their answers.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Those from the `from`th on.
    pub fn seen_since(&self, from: usize) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().get(from..).unwrap_or_default().to_vec()
    }

    /// Send requests whose head was read, also those that a fault ended before their body.
    pub fn sends_begun(&self) -> usize {
        self.shared.heads.load(Ordering::SeqCst)
    }

    /// How long a connection may be idle; zero closes it at once behind each answer, unannounced.
    /// A connection that is idle now may go once more by what was told before.
    pub fn set_idle(&self, idle: Duration) {
        *self.shared.idle.lock().unwrap() = idle;
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections at this moment.
    pub fn open_connections(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }

    /// The most connections that stood at one moment.
    pub fn most_connections(&self) -> usize {
        self.shared.open_most.load(Ordering::SeqCst)
    }

    /// Ends every connection that stands.
    pub fn drop_connections(&self) {
        for stream in self.shared.open.lock().unwrap().values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Refuses connections until `reopen`.
    pub fn shut(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.drop_connections();
    }

    pub fn reopen(&mut self) {
        if self.thread.is_some() {
            return;
        }
        self.shared.stop.store(false, Ordering::SeqCst);
        let mut listener = None;
        wait::wait_until("the stand-in's port", Duration::from_secs(10), || {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        });
        self.thread = listener.map(|l| listen(l, self.shared.clone()));
    }
}

impl Drop for Server {
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
                let mut connection =
                    Connection { line: Line::new(stream), shared: shared.clone(), number, served: 0 };
                let _ = connection.run();
                let copy = shared.open.lock().unwrap().remove(&number);
                drop(copy);
                connection.line.close();
            });
        }
    })
}

struct Connection {
    line: Line,
    shared: Arc<Shared>,
    number: u64,
    /// Requests so far.
    served: u64,
}

/// Whether the connection goes on.
type Next = io::Result<bool>;

impl Connection {
    fn run(&mut self) -> io::Result<()> {
        self.line.timeout(READ_MAX);
        if self.shared.tls {
            self.line.tls_as_server(tls::pki().server())?;
        }
        while self.awaits_a_request()? {
            self.line.timeout(READ_MAX);
            let Some(head) = self.read_head()? else {
                self.line.write(&Response::empty(400).with("Connection", "close").bytes())?;
                return Ok(());
            };
            self.served += 1;
            let last = head.says("Connection", "close");
            if !self.serve(head)? || last {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the first octet of a next request came.
    fn awaits_a_request(&mut self) -> Next {
        let idle = *self.shared.idle.lock().unwrap();
        if !self.line.buffered().is_empty() {
            return Ok(true);
        }
        // The first request of a connection has its time, however short the patience with idle ones.
        let patience = if self.served == 0 { READ_MAX } else { idle };
        if patience.is_zero() {
            return Ok(false);
        }
        self.line.timeout(patience);
        Ok(self.line.fill()? > 0)
    }

    /// The request line and the header; `None` where it is none.
    fn read_head(&mut self) -> io::Result<Option<Request>> {
        let mut from = 0;
        let end = loop {
            let buffer = self.line.buffered();
            if let Some(at) = buffer[from..].windows(4).position(|w| w == b"\r\n\r\n") {
                break from + at + 4;
            }
            from = buffer.len().saturating_sub(3);
            if buffer.len() > HEAD_MAX || self.line.fill()? == 0 {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.line.buffered().drain(..end).collect();
        Ok(parse_head(&head, self.number))
    }

    fn serve(&mut self, head: Request) -> Next {
        let send = self.shared.desk.is_send(&head);
        if send {
            self.shared.heads.fetch_add(1, Ordering::SeqCst);
        }
        let fault = self.shared.rules.next(if send { Where::Sends } else { Where::Reads });
        match &fault {
            Some(Fault::HangBeforeBody) => return self.hang_unread(),
            Some(Fault::CutBeforeBody) => return self.reset(),
            Some(Fault::RefuseBeforeBody(response)) => {
                self.line.write(&response.clone().with("Connection", "close").bytes())?;
                return Ok(false);
            }
            Some(Fault::CutInBody(after)) => {
                self.fill_to(*after)?;
                return self.reset();
            }
            _ => {}
        }
        if head.says("Expect", "100-continue") {
            self.line.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let Some(body) = self.read_body(&head)? else {
            self.line.write(&Response::empty(413).with("Connection", "close").bytes())?;
            return Ok(false);
        };
        self.answer(&Arc::new(Request { body, ..head }), fault)
    }

    fn answer(&mut self, request: &Arc<Request>, fault: Option<Fault>) -> Next {
        match fault {
            None => {
                let answered = self.shared.desk.answer(request);
                self.say(request, answered)
            }
            Some(Fault::Answer(response)) => self.say(request, response.into()),
            Some(Fault::HangAfterBody) => {
                self.note(request, None, &[], false);
                self.hang_reading()
            }
            Some(Fault::CutAfterBody) => {
                self.note(request, None, &[], false);
                Ok(false)
            }
            Some(Fault::ResetAfterBody) => {
                self.note(request, None, &[], false);
                self.reset()
            }
            Some(Fault::Garbage) => {
                self.note(request, None, &[], false);
                self.line.write(b"\xff\xfe\0 this is no HTTP\r\n\r\n")?;
                Ok(false)
            }
            Some(fault) => {
                let answered = self.shared.desk.answer(request);
                self.answer_wrongly(request, fault, answered)
            }
        }
    }

    /// The faults of an ESP that has judged the request, and has the mail where there was nothing against it.
    fn answer_wrongly(&mut self, request: &Arc<Request>, fault: Fault, right: Answered) -> Next {
        match fault {
            Fault::Slow(time) => {
                let stopped = wait::holds_within(time, || self.shared.stop.load(Ordering::SeqCst));
                if stopped {
                    self.note(request, Some(right.response.status), &right.taken, false);
                    return Ok(false);
                }
                self.say(request, right)
            }
            Fault::TakeThenAnswer(response) => self.say(request, Answered { response, ..right }),
            Fault::TakeThenHang => {
                self.note(request, Some(right.response.status), &right.taken, false);
                self.hang_reading()
            }
            Fault::TakeThenReset => {
                self.note(request, Some(right.response.status), &right.taken, false);
                self.reset()
            }
            Fault::CutInAnswer(after) => {
                self.note(request, Some(right.response.status), &right.taken, false);
                let bytes = right.response.bytes();
                self.line.write(&bytes[..after.min(bytes.len().saturating_sub(1))])?;
                Ok(false)
            }
            Fault::HangInAnswer(after) => {
                self.note(request, Some(right.response.status), &right.taken, false);
                let bytes = right.response.bytes();
                self.line.write(&bytes[..after.min(bytes.len().saturating_sub(1))])?;
                self.hang_reading()
            }
            Fault::Drip(pause) => self.drip(request, &right, 0, pause),
            Fault::DripBody(pause) => {
                let head = right.response.bytes().len() - right.response.body.len();
                self.drip(request, &right, head, pause)
            }
            Fault::LateBody(after) => self.say_body_late(request, right, after),
            Fault::CloseBehind => self.say(request, right).map(|_| false),
            // `TakeThenCut`, and what `serve` and `answer` have already dealt with.
            _ => {
                self.note(request, Some(right.response.status), &right.taken, false);
                Ok(false)
            }
        }
    }

    fn say_body_late(&mut self, request: &Arc<Request>, mut right: Answered, after: Duration) -> Next {
        self.note(request, Some(right.response.status), &right.taken, false);
        if right.response.body.is_empty() {
            right.response.body = b"{}".to_vec();
        }
        let bytes = right.response.bytes();
        let (head, body) = bytes.split_at(bytes.len() - right.response.body.len());
        self.line.write(head)?;
        if wait::holds_within(after, || self.shared.stop.load(Ordering::SeqCst)) {
            return Ok(false);
        }
        self.line.write(body)?;
        Ok(true)
    }

    /// The answer: its beginning at once, then octet by octet.
    fn drip(&mut self, request: &Arc<Request>, right: &Answered, at_once: usize, pause: Duration) -> Next {
        self.note(request, Some(right.response.status), &right.taken, false);
        let bytes = right.response.bytes();
        let (begin, rest) = bytes.split_at(at_once);
        self.line.write(begin)?;
        for octet in rest {
            if wait::holds_within(pause, || self.shared.stop.load(Ordering::SeqCst)) {
                return Ok(false);
            }
            self.line.write(&[*octet])?;
        }
        Ok(true)
    }

    fn say(&mut self, request: &Arc<Request>, answered: Answered) -> Next {
        let Answered { response, taken } = answered;
        // Before it is written: whoever reads the answer may look into the books.
        let at = self.note(request, Some(response.status), &taken, true);
        if let Err(e) = self.line.write(&response.bytes()) {
            self.shared.books.mark(&taken, false);
            self.shared.seen.lock().unwrap()[at].answered = false;
            return Err(e);
        }
        Ok(true)
    }

    /// Writes down what was asked and said; gives its place.
    fn note(&self, request: &Arc<Request>, status: Option<u16>, taken: &[u64], answered: bool) -> usize {
        self.shared.books.mark(taken, answered);
        let mut seen = self.shared.seen.lock().unwrap();
        seen.push(Seen { request: request.clone(), status, answered, took: !taken.is_empty() });
        seen.len() - 1
    }

    /// The body by its length or in chunks; `None` where it is too large or not well formed.
    fn read_body(&mut self, head: &Request) -> io::Result<Option<Vec<u8>>> {
        if head.says("Transfer-Encoding", "chunked") {
            return self.read_chunks();
        }
        let length = match head.header("Content-Length").map(str::parse::<usize>) {
            None => 0,
            Some(Ok(length)) if length <= BODY_MAX => length,
            Some(_) => return Ok(None),
        };
        self.fill_to(length)?;
        Ok(Some(self.line.buffered().drain(..length).collect()))
    }

    fn read_chunks(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        loop {
            let line = self.line.read_line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = String::from_utf8_lossy(&line).split(';').next().map(|s| s.trim().to_owned());
            let Some(size) = size.and_then(|s| usize::from_str_radix(&s, 16).ok()) else { return Ok(None) };
            if size == 0 {
                // Trailers, up to the empty line.
                while !self.line.read_line()?.ok_or(io::ErrorKind::UnexpectedEof)?.is_empty() {}
                return Ok(Some(body));
            }
            if size > BODY_MAX || body.len() + size > BODY_MAX {
                return Ok(None);
            }
            self.fill_to(size + 2)?;
            body.extend(self.line.buffered().drain(..size));
            self.line.buffered().drain(..2);
        }
    }

    /// Reads until so many octets are there.
    fn fill_to(&mut self, octets: usize) -> io::Result<()> {
        while self.line.buffered().len() < octets {
            if self.line.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn reset(&mut self) -> Next {
        self.shared.open.lock().unwrap().remove(&self.number);
        self.line.reset();
        Ok(false)
    }

    /// Neither reads nor says anything.
    fn hang_unread(&mut self) -> Next {
        wait::holds_within(HANG_MAX, || self.shared.stop.load(Ordering::SeqCst));
        Ok(false)
    }

    /// Reads on and says nothing, until the other side goes.
    fn hang_reading(&mut self) -> Next {
        let end = postroad::clock::monotonic() + HANG_MAX;
        while !self.shared.stop.load(Ordering::SeqCst) && postroad::clock::monotonic() < end {
            self.line.timeout(Duration::from_millis(50));
            match self.line.fill() {
                Ok(0) => break,
                Err(e) if !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                _ => self.line.buffered().clear(),
            }
        }
        Ok(false)
    }
}

fn parse_head(head: &[u8], connection: u64) -> Option<Request> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if !version.starts_with("HTTP/1.") || words.next().is_some() || !target.starts_with('/') {
        return None;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let field = |line: &str| line.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
    let headers: Option<Vec<_>> = lines.map(field).collect();
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: headers?,
        body: Vec::new(),
        connection,
    })
}
