//! An app that is told events: it takes them, refuses some, hangs, is not there.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::wait_until;

/// How it answers, by the event.
pub type Answers = fn(&Value) -> Answer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// Never.
    Hang,
}

pub const TAKE: Answers = |_| Answer::Status(204);

/// One POST, as it came.
#[derive(Debug, Clone)]
pub struct Told {
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub raw: Vec<u8>,
    pub body: Value,
    pub answer: Answer,
}

impl Told {
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no {name} in {:?}", self.headers), |(_, value)| value.as_str())
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub fn event(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }

    pub fn message(&self) -> &str {
        self.body["data"]["message"].as_str().unwrap_or_default()
    }
}

pub struct App {
    at: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answers: Mutex<Answers>,
    told: Mutex<Vec<Told>>,
    down: AtomicBool,
}

impl App {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let shared =
            Shared { answers: Mutex::new(TAKE), told: Mutex::default(), down: AtomicBool::new(false) };
        let app = App { at, shared: Arc::new(shared) };
        app.listen(listener);
        app
    }

    pub fn url(&self) -> String {
        format!("http://{}/mail-events?key=in-the-query", self.at)
    }

    /// A `[[notify]]` for it.
    pub fn table(&self, secret: &str, events: &[&str], more: &str) -> String {
        format!("[[notify]]\nurl = \"{}\"\nsecret = \"{secret}\"\nevents = {events:?}\n{more}\n", self.url())
    }

    pub fn answers(&self, answers: Answers) {
        *self.shared.answers.lock().unwrap() = answers;
    }

    /// All that it was told, taken or not.
    pub fn told(&self) -> Vec<Told> {
        self.shared.told.lock().unwrap().clone()
    }

    /// What it took.
    pub fn taken(&self) -> Vec<Told> {
        self.told().into_iter().filter(|t| matches!(t.answer, Answer::Status(200..=299))).collect()
    }

    #[track_caller]
    pub fn wait_taken(&self, n: usize, bound: Duration) -> Vec<Told> {
        wait_until(&format!("{n} events that are taken"), bound, || self.taken().len() >= n);
        self.taken()
    }

    /// Nothing listens any more.
    pub fn shut(&self) {
        self.shared.down.store(true, Ordering::SeqCst);
        // Its accept returns and finds that it is to end.
        let _ = TcpStream::connect(self.at);
        wait_until("the app is down", Duration::from_secs(5), || TcpStream::connect(self.at).is_err());
    }

    pub fn reopen(&self) {
        self.shared.down.store(false, Ordering::SeqCst);
        let mut listener = None;
        wait_until("its port is free", Duration::from_secs(5), || {
            listener = TcpListener::bind(self.at).ok();
            listener.is_some()
        });
        self.listen(listener.unwrap());
    }

    fn listen(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.down.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, stream) = (Arc::clone(&shared), stream.unwrap());
                std::thread::spawn(move || shared.hear(stream));
            }
        });
    }
}

impl Shared {
    fn hear(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
        let mut raw = vec![0; length];
        reader.read_exact(&mut raw).ok()?;
        let body: Value = serde_json::from_slice(&raw).ok()?;
        let answer = (*self.answers.lock().unwrap())(&body);
        self.told.lock().unwrap().push(Told { headers, raw, body, answer });
        match answer {
            Answer::Status(status) => {
                let location = if status == 302 { "Location: /elsewhere\r\n" } else { "" };
                let text = format!(
                    "HTTP/1.1 {status} Told\r\n{location}Content-Length: 11\r\nConnection: close\r\n\r\nno database"
                );
                (&stream).write_all(text.as_bytes()).ok()?;
                let _ = stream.shutdown(Shutdown::Write);
            }
            // Until the other side has had enough.
            Answer::Hang => {
                let _ = reader.read(&mut [0]);
            }
        }
        Some(())
    }
}
