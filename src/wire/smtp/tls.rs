//! TLS towards SMTP upstreams, built at the first use.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate;
use super::line::Broken;
use crate::wire::trust::{client_config, hint};

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
        let connector = self.0.get_or_try_init(|| connector(ca_file.cloned())).await?;
        connector
            .connect(name, tcp)
            .await
            .map_err(|e| Broken::Other(format!("TLS with {host}: {e}{}", hint(&e.to_string()))))
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

async fn connector(ca_file: Option<PathBuf>) -> Result<TlsConnector, Broken> {
    let config = client_config(ca_file).await.map_err(Broken::Other)?;
    Ok(TlsConnector::from(Arc::new(config)))
}
