//! A real EHLO to one of our own listeners, as `/readyz` wants it.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

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
    let connector = TlsConnector::from(Arc::new(tls()?));
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

fn tls() -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let anyone = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    Ok(config.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth())
}

/// The probe speaks to its own process over loopback and says nothing secret: whose name the certificate bears is
/// for clients to judge.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
