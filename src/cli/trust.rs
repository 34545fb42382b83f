//! Whom the commands take for the relay under HTTPS: whoever shows the certificate that the relay wrote into its lock
//! file, or one that the system or `--ca-file` vouches for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use crate::http::verifier::{Shown, client_config};
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
        let known = match self {
            Trust::System => return Ok(None),
            Trust::File(path) => {
                Known::of_file(path).map_err(|e| format!("--ca-file {}: {e}", path.display()))?
            }
            Trust::Lock(data_dir) => Known::Lock(data_dir.clone()),
        };
        client_config(move |shown| known.judge(shown)).map(Some).map_err(|e| e.to_string())
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
    fn of_file(path: &Path) -> Result<Known, String> {
        let pem = std::fs::read(path).map_err(|e| e.to_string())?;
        let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|e| e.to_string())?;
        if certificates.is_empty() {
            return Err("holds no certificate in PEM".into());
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        // Without any that can sign, the certificates themselves still count.
        let authorities = built.ok();
        Ok(Known::File { certificates, authorities })
    }

    fn judge(&self, shown: Shown<'_>) -> Result<(), Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let Shown { leaf, intermediates, name, now } = shown;
        match self {
            // Read now: a certificate that was renewed a moment ago is there before it is shown.
            Known::Lock(data_dir) => match lock::shows(data_dir, Pin::of(leaf)) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
                Err(error) => Err(Error::General(format!("postroad.lock cannot be read: {error}"))),
            },
            Known::File { certificates, .. } if certificates.iter().any(|known| known == leaf) => Ok(()),
            Known::File { authorities, .. } => {
                let authorities = authorities.as_ref().ok_or_else(unknown)?;
                authorities.verify_server_cert(leaf, intermediates, name, &[], now).map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::lock::Lock;

    /// Whether that certificate, alone, is taken for `name`.
    fn takes(trust: &Trust, der: &[u8], name: &str) -> Result<(), String> {
        let known = match trust {
            Trust::Lock(dir) => Known::Lock(dir.clone()),
            Trust::File(path) => Known::of_file(path).unwrap(),
            Trust::System => panic!("no judge of ours"),
        };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let leaf = der.to_vec().into();
        let taken = known.judge(Shown { leaf: &leaf, intermediates: &[], name: &name, now });
        taken.map_err(|e| format!("{e}{}", hint(&e.to_string())))
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
