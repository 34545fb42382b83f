//! Whom the relay trusts as a server, by SMTP and by HTTP alike: the platform's CAs, or the one private CA that was
//! configured.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

/// A TLS client. Reading CAs blocks: the files of a whole directory on some systems.
pub async fn client_config(ca_file: Option<PathBuf>) -> Result<ClientConfig, String> {
    let built = tokio::task::spawn_blocking(move || config(ca_file.as_deref())).await;
    built.unwrap_or_else(|e| Err(e.to_string()))
}

fn config(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
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
    Ok(config.with_no_client_auth())
}

/// What to do about a failed handshake, where that is known from its words.
pub fn hint(error: &str) -> &'static str {
    if error.contains("UnknownIssuer") {
        " (its CA is unknown here: ca_file names the certificate of the CA that signed it; that of the server itself is no \
         CA's)"
    } else if error.contains("CaUsedAsEndEntity") {
        " (its certificate is a CA's own, as openssl req -x509 makes it; make one for the server, signed by that CA or \
         with basicConstraints=CA:FALSE, and name the signer in ca_file)"
    } else if error.contains("NotValidForName") {
        " (its certificate bears another name; address or endpoint must name the host as the certificate does)"
    } else if error.contains("Expired") {
        " (its certificate has expired; the server's owner has to renew it)"
    } else {
        ""
    }
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
