//! The answer to what is no request. The library that reads HTTP says 400, 414 and 431 by itself and without a word;
//! here such an answer gets the body that every error has.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::Problem;

/// Every answer of the routes has this field.
const OURS: &[u8] = b"x-request-id: ";
const EMPTY: &[u8] = b"content-length: 0\r\n";

/// A connection whose bare answers get words.
#[derive(Debug)]
pub(super) struct Worded<S> {
    stream: S,
    /// What goes out before anything else.
    due: Vec<u8>,
}

impl<S> Worded<S> {
    pub(super) fn new(stream: S) -> Self {
        Worded { stream, due: Vec::new() }
    }
}

impl<S: AsyncWrite + Unpin> Worded<S> {
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.due.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.due))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.due.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Worded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Worded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(octets)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_due(cx))?;
        match slices.iter().find(|slice| !slice.is_empty()) {
            Some(bare) if let Some(worded) = worded(bare) => {
                self.due = worded;
                Poll::Ready(Ok(bare.len()))
            }
            Some(_) | None => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_due(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_due(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The same answer with a body, where these octets are one that the library gives by itself.
fn worded(octets: &[u8]) -> Option<Vec<u8>> {
    let head = octets.strip_suffix(b"\r\n\r\n")?;
    let (line, fields) = head.split_at(memchr::memmem::find(head, b"\r\n")? + 2);
    let fields = [fields, b"\r\n"].concat();
    let status = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.1 4")?.get(..2)?;
    let (status, code, message) = match status {
        "00" => (StatusCode::BAD_REQUEST, "bad_request", "this is no HTTP request; see GET /openapi.json"),
        "14" => {
            (StatusCode::URI_TOO_LONG, "uri_too_long", "the address of a request has its limit: shorten it")
        }
        "31" => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "header_too_large",
            "the head of a request has at most 100 fields and 64 KiB: send less in it",
        ),
        _ => return None,
    };
    let empty = memchr::memmem::find(&fields, EMPTY)?;
    if memchr::memmem::find(&fields, OURS).is_some() {
        return None;
    }
    let error = Problem::new(status, code, message).error;
    let body = json!({ "error": error }).to_string();
    let mut out = line.to_vec();
    out.extend_from_slice(&fields[..empty]);
    out.extend_from_slice(&fields[empty + EMPTY.len()..]);
    let more = "content-type: application/json\r\nx-content-type-options: nosniff\r\n";
    out.extend_from_slice(format!("{more}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_answer_gets_words_and_no_other_does() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let told = String::from_utf8(worded(bare.as_bytes()).unwrap()).unwrap();
        let (head, body) = told.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with(
                "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ndate: now\r\n"
            ),
            "{head}"
        );
        assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&body["error"]["code"], &body["error"]["fields"]),
            (&json!("header_too_large"), &json!([]))
        );
        for other in [
            "HTTP/1.1 400 Bad Request\r\nx-request-id: 1\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 7\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nmore",
            "",
        ] {
            assert_eq!(worded(other.as_bytes()), None, "{other}");
        }
    }
}
