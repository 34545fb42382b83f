//! HTTPS on the side port: the handshake, and who is told which certificate it shows.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::error::{ErrorBody, Problem};
use crate::lock::Pin;
use crate::smtp::tls::Certificates;

/// A handshake begins with a record of this type (RFC 8446 section 5.1); a request in plain text begins with a letter.
const HANDSHAKE: u8 = 22;
/// So much of a request in plain text is read before its client is left: it may lose the answer otherwise.
const REQUEST_OCTETS_MAX: u64 = 64 * 1024;

/// Who is told of the certificates: the newest, and the one before it, which a connection may still show.
type Tell = Box<dyn Fn(&[Pin]) + Send + Sync>;

/// The certificate of the side port.
pub struct Secure {
    certificates: Arc<Certificates>,
    /// As they were at the start, or at the latest reload.
    known: ArcSwap<Certificates>,
    shown: Mutex<Vec<CertificateDer<'static>>>,
    tell: Tell,
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

impl Secure {
    /// Tells at once of the present certificate, and of each new one before a client sees it.
    pub fn new(certificates: Arc<Certificates>, tell: impl Fn(&[Pin]) + Send + Sync + 'static) -> Self {
        let known = ArcSwap::new(Arc::clone(&certificates));
        let secure = Secure { certificates, known, shown: Mutex::default(), tell: Box::new(tell) };
        let (_, leaf) = secure.certificates.acceptor_and_leaf();
        secure.shows(leaf);
        secure
    }

    /// The certificate where it is another than at the latest reload; one that cannot be used is none.
    pub fn renewed(&self) -> Option<Certificates> {
        self.certificates.read_anew().ok().filter(|anew| !self.known.load().same_as(anew))
    }

    /// The reload that found it is done: nobody sees the one before any more.
    pub fn takes(&self, renewed: Certificates) {
        if self.certificates.reload().is_ok() {
            self.known.store(Arc::new(renewed));
        }
    }

    fn shows(&self, leaf: CertificateDer<'static>) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.first() == Some(&leaf) {
            return;
        }
        shown.insert(0, leaf);
        shown.truncate(2);
        let pins: Vec<Pin> = shown.iter().map(|leaf| Pin::of(leaf)).collect();
        (self.tell)(&pins);
    }

    /// TLS with a client. One that asks in plain text is told so; it, too, is an error. The caller bounds the time.
    pub(super) async fn handshake(&self, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
            refuse(&mut stream).await?;
            return Err(io::Error::other("plain text where TLS is spoken"));
        }
        let (acceptor, leaf) = self.certificates.acceptor_and_leaf();
        self.shows(leaf);
        acceptor.accept(stream).await
    }
}

async fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    let message = "this port speaks HTTPS: write https:// in place of http://";
    let error = Problem::new(StatusCode::BAD_REQUEST, "https_only", message).error;
    let body = serde_json::to_string(&ErrorBody { error })?;
    let head =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ";
    stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(REQUEST_OCTETS_MAX), &mut tokio::io::sink()).await.map(drop)
}
