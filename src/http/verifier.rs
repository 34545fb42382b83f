//! A judge of certificates that is handed in, where neither the system's CAs nor a CA's file decide. Signatures are
//! checked as ever: whoever shows a certificate has its key.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// A server's certificate, as it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its own.
    pub leaf: &'a CertificateDer<'a>,
    /// What it sent beside that.
    pub intermediates: &'a [CertificateDer<'a>],
    /// Whom the client wants to speak to.
    pub name: &'a ServerName<'a>,
    /// The time.
    pub now: UnixTime,
}

/// A TLS client that takes what `judge` takes.
pub fn client_config(
    judge: impl Fn(Shown<'_>) -> Result<(), Error> + Send + Sync + 'static,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Verifier { judge, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

struct Verifier<J> {
    judge: J,
    provider: Arc<CryptoProvider>,
}

impl<J> std::fmt::Debug for Verifier<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

impl<J: Fn(Shown<'_>) -> Result<(), Error> + Send + Sync> ServerCertVerifier for Verifier<J> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        (self.judge)(Shown { leaf, intermediates, name, now }).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
