//! The certificate of a listener: read at start, read again when its files change; a broken new one never replaces a
//! good old one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::CertificateFiles;
use crate::clock::monotonic;

/// The files are looked at this often at most, when a client begins TLS.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file is not there or not PEM.
    #[error("{file}: {problem}; give a PEM file that the relay may read")]
    File {
        /// Which.
        file: PathBuf,
        /// In the reader's words.
        problem: String,
    },
    /// Certificate and key do not fit, or are of a kind that is not supported.
    #[error("{chain} with {key}: {problem}; give the key that the certificate was made for")]
    Unfit {
        /// The chain's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// In rustls' words.
        problem: String,
    },
}

/// Modification time and length of both files, by which a change is seen.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// A certificate that follows its files.
#[derive(Debug)]
pub struct Certificates {
    files: CertificateFiles,
    config: ArcSwap<ServerConfig>,
    seen: Mutex<(Instant, Stamp)>,
}

impl Certificates {
    /// Reads them for the first time.
    pub fn load(files: CertificateFiles) -> Result<Self, CertificateError> {
        let stamp = stamp(&files);
        let config = ArcSwap::new(read(&files)?);
        Ok(Certificates { files, config, seen: Mutex::new((monotonic(), stamp)) })
    }

    /// Reads them again, whether they changed or not. The old ones stay where the new are broken.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let stamp = stamp(&self.files);
        let config = read(&self.files);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (monotonic(), stamp);
        self.config.store(config?);
        Ok(())
    }

    /// What begins TLS with a client, with the present certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        if self.changed() {
            match self.reload() {
                Ok(()) => {
                    tracing::info!(chain = %self.files.chain.display(), "certificate changed and read again");
                }
                Err(error) => {
                    tracing::error!(%error, "the changed certificate is unusable; the old one stays in use");
                }
            }
        }
        TlsAcceptor::from(self.config.load_full())
    }

    fn changed(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = monotonic();
        if now < seen.0 + LOOK_EVERY {
            return false;
        }
        seen.0 = now;
        seen.1 != stamp(&self.files)
    }
}

fn stamp(files: &CertificateFiles) -> Stamp {
    [&files.chain, &files.key]
        .map(|file| std::fs::metadata(file).ok().and_then(|m| Some((m.modified().ok()?, m.len()))))
}

fn read(files: &CertificateFiles) -> Result<Arc<ServerConfig>, CertificateError> {
    let bad = |file: &PathBuf, e: rustls::pki_types::pem::Error| CertificateError::File {
        file: file.clone(),
        problem: e.to_string(),
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.chain)
        .and_then(Iterator::collect)
        .map_err(|e| bad(&files.chain, e))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| bad(&files.key, e))?;
    let unfit = |e: rustls::Error| CertificateError::Unfit {
        chain: files.chain.clone(),
        key: files.key.clone(),
        problem: e.to_string(),
    };
    // TLS 1.2 and 1.3 (RFC 8996).
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unfit)?;
    Ok(Arc::new(config))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A self-signed certificate for localhost in `directory`; gives its files and its PEM.
    pub fn write_certificate(directory: &std::path::Path) -> (CertificateFiles, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = CertificateFiles { chain: directory.join("cert.pem"), key: directory.join("key.pem") };
        std::fs::write(&files.chain, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        (files, made.cert.pem())
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_certificate_is_taken_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (files, _) = write_certificate(directory.path());
        let certificates = Certificates::load(files.clone()).unwrap();
        let first = certificates.config.load_full();

        std::fs::write(&files.chain, "no certificate").unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        certificates.acceptor();
        assert!(Arc::ptr_eq(&first, &certificates.config.load_full()));
        assert!(certificates.reload().is_err());

        write_certificate(directory.path());
        certificates.acceptor();
        assert!(Arc::ptr_eq(&first, &certificates.config.load_full()), "looked too soon");
        tokio::time::advance(LOOK_EVERY).await;
        certificates.acceptor();
        assert!(!Arc::ptr_eq(&first, &certificates.config.load_full()));
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (mut files, _) = write_certificate(directory.path());
        files.key = directory.path().join("none.pem");
        let error = Certificates::load(files).unwrap_err().to_string();
        assert!(error.contains("none.pem"), "{error}");
    }
}
