//! Whom the commands take for the relay under HTTPS: whoever shows the certificate that the relay wrote into its lock
//! file, or one that the system or `--ca-file` vouches for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::lock::{self, Pin};

/// Who is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// The system's CAs.
    System,
    /// The CAs in this file, and the very certificates in it.
    File(PathBuf),
    /// The relay that has this data directory, which none but it can write to.
    Lock(PathBuf),
}

impl Trust {
    /// What makes TLS; `None`: the usual one.
    pub(super) fn client(&self) -> Result<Option<ClientConfig>, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let known = match self {
            Trust::System => return Ok(None),
            Trust::File(path) => {
                Known::of_file(path, &provider).map_err(|e| format!("--ca-file {}: {e}", path.display()))?
            }
            Trust::Lock(data_dir) => Known::Lock(data_dir.clone()),
        };
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let verifier = Arc::new(Verifier { known, provider });
        Ok(Some(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
    }
}

/// What to do about an error of TLS, where that is known.
pub(super) fn hint(error: &str) -> &'static str {
    if error.contains("ApplicationVerificationFailure") {
        " (it shows another certificate than the relay's postroad.lock names: another program answers there)"
    } else if ["UnknownIssuer", "CaUsedAsEndEntity", "BadSignature"].iter().any(|word| error.contains(word)) {
        " (nobody here vouches for its certificate: name its CA, or the certificate, with --ca-file)"
    } else if error.contains("NotValidForName") {
        " (its certificate bears another name: write the URL with that name, or name the certificate with --ca-file)"
    } else if error.contains("InvalidContentType") {
        " (it does not speak HTTPS there; write http:// where that is meant)"
    } else {
        ""
    }
}

#[derive(Debug)]
enum Known {
    Lock(PathBuf),
    File { certificates: Vec<CertificateDer<'static>>, authorities: Option<Arc<WebPkiServerVerifier>> },
}

impl Known {
    fn of_file(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Known, String> {
        let pem = std::fs::read(path).map_err(|e| e.to_string())?;
        let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|e| e.to_string())?;
        if certificates.is_empty() {
            return Err("holds no certificate in PEM".into());
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let authorities = match roots.is_empty() {
            true => None,
            false => {
                let built =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
                Some(built.build().map_err(|e| e.to_string())?)
            }
        };
        Ok(Known::File { certificates, authorities })
    }
}

#[derive(Debug)]
struct Verifier {
    known: Known,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        match &self.known {
            // Read now: a certificate that was renewed a moment ago is there before it is shown.
            Known::Lock(data_dir) => match lock::shows(data_dir, Pin::of(end_entity)) {
                Ok(true) => Ok(ServerCertVerified::assertion()),
                Ok(false) => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
                Err(error) => Err(Error::General(format!("postroad.lock cannot be read: {error}"))),
            },
            Known::File { certificates, .. } if certificates.iter().any(|known| known == end_entity) => {
                Ok(ServerCertVerified::assertion())
            }
            Known::File { authorities, .. } => authorities.as_ref().ok_or_else(unknown)?.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Lock;

    /// Whether that certificate, alone, is taken for `name`.
    fn takes(trust: &Trust, der: &[u8], name: &str) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let known = match trust {
            Trust::Lock(dir) => Known::Lock(dir.clone()),
            Trust::File(path) => Known::of_file(path, &provider).unwrap(),
            Trust::System => panic!("no verifier of ours"),
        };
        let verifier = Verifier { known, provider };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let taken = verifier.verify_server_cert(&der.to_vec().into(), &[], &name, &[], now);
        taken.map(drop).map_err(|e| format!("{e}{}", hint(&e.to_string())))
    }

    /// A certificate that signs itself; as a CA's own, as `openssl req -x509` makes it.
    fn own(as_ca: bool) -> rcgen::Certificate {
        let mut made = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        if as_ca {
            made.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn only_what_the_relay_wrote_into_its_lock_is_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (relay, other) = (own(false), own(false));
        let lock = Lock::take(dir.path()).unwrap();
        lock.write("127.0.0.1:8025".parse().unwrap(), &[Pin::of(relay.der())]).unwrap();
        let trust = Trust::Lock(dir.path().to_owned());
        assert_eq!(takes(&trust, relay.der(), "any.example"), Ok(()));
        let refused = takes(&trust, other.der(), "relay.example").unwrap_err();
        assert!(refused.contains("another program answers there"), "{refused}");
        drop(lock);
        assert!(takes(&trust, relay.der(), "any.example").is_err(), "a lock that nobody holds says nothing");
    }

    #[test]
    fn a_file_vouches_for_its_certificates_and_for_those_that_they_signed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("relay.pem");
        for as_ca in [false, true] {
            let (relay, other) = (own(as_ca), own(as_ca));
            std::fs::write(&file, relay.pem()).unwrap();
            let trust = Trust::File(file.clone());
            assert_eq!(takes(&trust, relay.der(), "any.example"), Ok(()), "as a CA: {as_ca}");
            let refused = takes(&trust, other.der(), "relay.example").unwrap_err();
            assert!(refused.contains("--ca-file"), "{refused}");
        }
    }
}
