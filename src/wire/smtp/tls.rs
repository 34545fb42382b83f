//! TLS towards upstreams: the platform's CAs, or the one private CA that was configured. Built at the first use.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate;
use super::line::Broken;

/// Makes TLS clients. Empty until the first connection needs it, so that a relay without TLS does not load CAs; what
/// failed to load is tried again by the next connection.
#[derive(Default)]
pub(super) struct Connector(OnceCell<TlsConnector>);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// The handshake; the certificate must bear `host`.
    pub async fn handshake(
        &self,
        tcp: TcpStream,
        host: &str,
        ca_file: Option<&PathBuf>,
    ) -> Result<TlsStream<TcpStream>, Broken> {
        let name = server_name(host)?;
        let connector = self.0.get_or_try_init(|| build(ca_file.cloned())).await?;
        connector
            .connect(name, tcp)
            .await
            .map_err(|e| Broken::Other(format!("TLS with {host}: {e}{}", hint(&e.to_string()))))
    }
}

/// What to do about it, where that is known.
fn hint(error: &str) -> &'static str {
    if error.contains("UnknownIssuer") {
        " (its CA is unknown here; a private one is named by ca_file)"
    } else if error.contains("CaUsedAsEndEntity") {
        " (its certificate is a CA's own, as openssl req -x509 makes it; make one for the server, signed by that CA or \
         with basicConstraints=CA:FALSE, and name the signer in ca_file)"
    } else if error.contains("NotValidForName") {
        " (its certificate bears another name; address must name the host as the certificate does)"
    } else if error.contains("Expired") {
        " (its certificate has expired; the server's owner has to renew it)"
    } else {
        ""
    }
}

/// Version, cipher suite and certificate of a line, for people.
pub(super) fn describe(stream: &TlsStream<TcpStream>) -> String {
    let (_, tls) = stream.get_ref();
    let version = match tls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
        other => format!("{other:?}"),
    };
    let suite =
        tls.negotiated_cipher_suite().map(|suite| format!(", {:?}", suite.suite())).unwrap_or_default();
    let leaf = tls.peer_certificates().and_then(|chain| chain.first());
    let leaf = leaf.map(|leaf| certificate::describe(leaf)).unwrap_or_default();
    format!("{version}{suite}; certificate {leaf}")
}

fn server_name(host: &str) -> Result<ServerName<'static>, Broken> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(ServerName::IpAddress(ip.into()));
    }
    let name = idna::domain_to_ascii(host.trim_end_matches('.')).unwrap_or_else(|_| host.to_owned());
    ServerName::try_from(name)
        .map_err(|_| Broken::Other(format!("{host} is no name that a certificate can bear")))
}

/// Reading CAs blocks: the files of a whole directory on some systems.
async fn build(ca_file: Option<PathBuf>) -> Result<TlsConnector, Broken> {
    let built = tokio::task::spawn_blocking(move || connector(ca_file.as_deref())).await;
    built.unwrap_or_else(|e| Err(e.to_string())).map_err(Broken::Other)
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let config = match ca_file {
        Some(path) => {
            let verifier = private(path, provider).map_err(|e| format!("ca_file {}: {e}", path.display()))?;
            config.with_webpki_verifier(verifier)
        }
        None => {
            let verifier =
                Verifier::new(provider).map_err(|e| format!("the system's CA certificates: {e}"))?;
            config.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

/// What is wrong with a `ca_file`, without its name.
pub fn check_ca_file(path: &Path) -> Result<(), String> {
    private(path, Arc::new(rustls::crypto::aws_lc_rs::default_provider())).map(drop)
}

fn private(path: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let pem = std::fs::read(path).map_err(|e| e.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() {
        return Err("holds no certificate in PEM".into());
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|e| e.to_string())
}
