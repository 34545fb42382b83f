//! A token endpoint (RFC 6749) that checks what it is shown and fails where it is told to.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postroad::clock::monotonic;

/// What it is shown by whom it gives a token.
pub const CLIENT_ID: &str = "relay one";
pub const CLIENT_SECRET: &str = "cl13nt~S3cret/+with=signs";
pub const SCOPE: &str = "https://mail.test/.default";
pub const REFRESH_TOKEN: &str = "r3fresh-first/+0123456789";

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Well,
    /// An OAuth error, with an `error_description` that repeats all that it was shown.
    Refuse(u16, &'static str),
    /// That status, with a page.
    Status(u16),
    /// 200 with something else.
    Garbage,
    /// Reads, and says nothing.
    Hang,
}

struct State {
    manner: Manner,
    /// Of each token; zero: it is not told, and an hour.
    life: Duration,
    /// Gives another refresh token each time, and takes the one before no more.
    rotates: bool,
    refresh_token: String,
    /// Every token, with its end; taken back: at once.
    tokens: Vec<(String, Instant)>,
    refresh_tokens: Vec<String>,
    requests: Vec<HashMap<String, String>>,
    /// A token is longer than a command may be.
    long: bool,
}

pub struct TokenEndpoint {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TokenEndpoint {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            manner: Manner::Well,
            life: Duration::from_secs(3600),
            rotates: false,
            refresh_token: REFRESH_TOKEN.into(),
            tokens: Vec::new(),
            refresh_tokens: vec![REFRESH_TOKEN.into()],
            requests: Vec::new(),
            long: false,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (state, stop) = (Arc::clone(&shared), Arc::clone(&stopped));
                std::thread::spawn(move || serve(stream, &state, &stop));
            }
        });
        TokenEndpoint { address, state, stop, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/oauth2/token", self.address)
    }

    pub fn manner(&self, manner: Manner) -> &Self {
        self.state.lock().unwrap().manner = manner;
        self
    }

    pub fn life(&self, life: Duration) -> &Self {
        self.state.lock().unwrap().life = life;
        self
    }

    pub fn rotates(&self) -> &Self {
        self.state.lock().unwrap().rotates = true;
        self
    }

    pub fn long_tokens(&self) -> &Self {
        self.state.lock().unwrap().long = true;
        self
    }

    /// Every token so far is good no more.
    pub fn take_back(&self) {
        for (_, end) in &mut self.state.lock().unwrap().tokens {
            *end = monotonic().into_std();
        }
    }

    /// The forms that it was sent.
    pub fn requests(&self) -> Vec<HashMap<String, String>> {
        self.state.lock().unwrap().requests.clone()
    }

    pub fn count(&self) -> usize {
        self.state.lock().unwrap().requests.len()
    }

    /// Every secret that it was shown or has given out.
    pub fn secrets(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let tokens = state.tokens.iter().map(|(token, _)| token.clone());
        tokens.chain(state.refresh_tokens.iter().cloned()).chain([CLIENT_SECRET.to_owned()]).collect()
    }

    /// Tells a mail server whether a token is good now.
    pub fn judge(&self) -> Arc<dyn Fn(&str) -> bool + Send + Sync> {
        let state = Arc::clone(&self.state);
        Arc::new(move |token| {
            let state = state.lock().unwrap();
            state.tokens.iter().any(|(known, end)| known == token && monotonic().into_std() < *end)
        })
    }
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, stop: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let Some((head, body)) = read_request(&mut stream) else { return };
    let form = unform(&body);
    let (status, kind, answer) = {
        let mut state = state.lock().unwrap();
        state.requests.push(form.clone());
        match state.manner {
            Manner::Hang => {
                drop(state);
                super::wait::holds_within(Duration::from_secs(600), || stop.load(Ordering::SeqCst));
                return;
            }
            Manner::Status(status) => (status, "text/html", format!("<html>{body}</html>")),
            Manner::Garbage => (200, "text/html", format!("<html>welcome {body}</html>")),
            Manner::Refuse(status, error) => (status, "application/json", refusal(error, &body, &form)),
            Manner::Well => match state.give(&head, &form) {
                Ok(token) => (200, "application/json", token),
                Err(error) => (400, "application/json", refusal(error, &body, &form)),
            },
        }
    };
    let length = answer.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(format!("{head}{answer}").as_bytes());
}

fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| {
                let (name, value) = l.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => all.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}

fn refusal(error: &str, body: &str, form: &HashMap<String, String>) -> String {
    let shown: Vec<&str> = form.values().map(String::as_str).collect();
    let described = format!("no:\r\n{} ({body})", shown.join(" "));
    serde_json::json!({ "error": error, "error_description": described }).to_string()
}

/// `a=b&c=d`, decoded.
fn unform(body: &str) -> HashMap<String, String> {
    let decode = |text: &str| {
        let (text, mut out, mut at) = (text.replace('+', " ").into_bytes(), Vec::new(), 0);
        while at < text.len() {
            let hex = text.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
            match (text[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
                (b'%', Some(octet)) => {
                    out.push(octet);
                    at += 3;
                }
                (octet, _) => {
                    out.push(octet);
                    at += 1;
                }
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    body.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (decode(k), decode(v))).collect()
}

impl State {
    fn give(&mut self, head: &str, form: &HashMap<String, String>) -> Result<String, &'static str> {
        let shown = |key: &str| form.get(key).map(String::as_str);
        let lower = head.to_ascii_lowercase();
        if !head.starts_with("POST /oauth2/token HTTP/1.1")
            || !lower.contains("content-type: application/x-www-form-urlencoded")
        {
            return Err("invalid_request");
        }
        if shown("client_id") != Some(CLIENT_ID) || shown("client_secret") != Some(CLIENT_SECRET) {
            return Err("invalid_client");
        }
        if shown("scope") != Some(SCOPE) {
            return Err("invalid_scope");
        }
        match shown("grant_type") {
            Some("client_credentials") => {}
            Some("refresh_token") if shown("refresh_token") == Some(&self.refresh_token) => {}
            Some("refresh_token") => return Err("invalid_grant"),
            _ => return Err("unsupported_grant_type"),
        }
        let n = self.tokens.len() + 1;
        let token = format!(
            "acc3ss-{n:04}-~TokeN._/+{}==",
            if self.long { "x".repeat(1_500) } else { "y".repeat(20) }
        );
        let life = if self.life.is_zero() { Duration::from_secs(3600) } else { self.life };
        self.tokens.push((token.clone(), monotonic().into_std() + life));
        let mut answer = serde_json::json!({ "token_type": "Bearer", "access_token": token });
        if !self.life.is_zero() {
            answer["expires_in"] = self.life.as_secs().into();
        }
        if self.rotates && shown("grant_type") == Some("refresh_token") {
            self.refresh_token = format!("r3fresh-{n:04}-~rotated._/+==");
            self.refresh_tokens.push(self.refresh_token.clone());
            answer["refresh_token"] = self.refresh_token.clone().into();
        }
        Ok(answer.to_string())
    }
}
