//! A real EHLO to one of our own listeners, as `/readyz` wants it.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::verifier::client_config;
use super::{Door, reachable};

/// What the probe calls itself in EHLO, so that the SMTP side can keep it out of its log.
pub const PROBE_NAME: &str = "readyz.postroad.invalid";
/// A listener that says more than this to a greeting and an EHLO is not one of ours.
const REPLIES_OCTETS_MAX: u64 = 16 * 1024;

/// Says EHLO and QUIT. The error says what was answered instead.
pub(super) async fn ehlo(door: &Door) -> io::Result<()> {
    let address = reachable(door.address);
    let stream = TcpStream::connect(address).await?;
    if !door.implicit_tls {
        return dialogue(stream).await;
    }
    // It speaks to its own process over loopback and says nothing secret: whose name the certificate bears is for
    // clients to judge.
    let anyone = client_config(|_| Ok(())).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(anyone));
    dialogue(connector.connect(ServerName::from(address.ip()), stream).await?).await
}

async fn dialogue(stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    expect(&mut stream, "220").await?;
    stream.write_all(format!("EHLO {PROBE_NAME}\r\n").as_bytes()).await?;
    stream.flush().await?;
    expect(&mut stream, "250").await?;
    stream.write_all(b"QUIT\r\n").await?;
    stream.flush().await?;
    // The listener hangs up after its 221; waited for, so that it does not see a broken line.
    expect(&mut stream, "221").await
}

/// Reads one reply, all its lines, and compares its code.
async fn expect(stream: &mut (impl AsyncBufReadExt + Unpin), code: &str) -> io::Result<()> {
    let mut replies = stream.take(REPLIES_OCTETS_MAX);
    loop {
        let mut line = Vec::new();
        if replies.read_until(b'\n', &mut line).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("hung up before its {code}")));
        }
        let line = String::from_utf8_lossy(&line);
        if !line.starts_with(code) {
            return Err(io::Error::other(format!("answered {:?}, not {code}", line.trim_end())));
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}
