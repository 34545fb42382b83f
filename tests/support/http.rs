//! A few lines of HTTP/1.1, enough for the relay's own routes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take.
const BOUND: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {:?}", self.body))
    }
}

pub fn get(at: SocketAddr, path: &str, token: Option<&str>) -> Option<Answer> {
    exchange(at, &format!("GET {path} HTTP/1.1\r\n{}\r\n", fields(at, token)))
}

/// The same under TLS.
pub fn get_secure(
    at: SocketAddr,
    path: &str,
    token: Option<&str>,
    trusted: Arc<rustls::ClientConfig>,
) -> Option<Answer> {
    let tcp = TcpStream::connect(at).ok()?;
    tcp.set_read_timeout(Some(BOUND)).ok()?;
    let tls = rustls::ClientConnection::new(trusted, "localhost".try_into().unwrap()).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\n{}\r\n", fields(at, token));
    exchange_on(rustls::StreamOwned::new(tls, tcp), &request)
}

pub fn post(at: SocketAddr, path: &str, token: Option<&str>, json: &str) -> Option<Answer> {
    post_as(at, path, token, "application/json", json)
}

pub fn post_as(at: SocketAddr, path: &str, token: Option<&str>, kind: &str, body: &str) -> Option<Answer> {
    post_with(at, path, token, &[("Content-Type", kind)], body)
}

/// With header fields besides its own.
pub fn post_with(
    at: SocketAddr,
    path: &str,
    token: Option<&str>,
    more: &[(&str, &str)],
    body: &str,
) -> Option<Answer> {
    let more: String = more.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let (fields, length) = (fields(at, token), body.len());
    let head = format!("POST {path} HTTP/1.1\r\n{fields}{more}Content-Length: {length}\r\n\r\n");
    exchange(at, &format!("{head}{body}"))
}

fn fields(at: SocketAddr, token: Option<&str>) -> String {
    let token = token.map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
    format!("Host: {at}\r\nConnection: close\r\n{token}")
}

fn exchange(at: SocketAddr, request: &str) -> Option<Answer> {
    let stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(BOUND)).ok()?;
    exchange_on(stream, request)
}

fn exchange_on(mut stream: impl Read + Write, request: &str) -> Option<Answer> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all).into_owned();
    if text.is_empty() {
        read.ok()?;
    }
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { dechunk(body) } else { body.to_owned() };
    Some(Answer { status, body })
}

fn dechunk(mut rest: &str) -> String {
    let mut out = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let n = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if n == 0 || after.len() < n {
            break;
        }
        out.push_str(&after[..n]);
        rest = after[n..].trim_start_matches("\r\n");
    }
    out
}
