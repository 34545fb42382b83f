//! The certificate of a listener: read at start, read again when its files change; a broken new one never replaces a
//! good old one.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
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
    /// The file of the chain is not there, or does not hold what it should.
    #[error("{file}: {problem}; give a PEM file that the relay may read")]
    Chain {
        /// Its name.
        file: PathBuf,
        /// In the system's words or ours.
        problem: String,
    },
    /// The same of the key's file.
    #[error("{file}: {problem}; give a PEM file that the relay may read")]
    Key {
        /// Its name.
        file: PathBuf,
        /// In the system's words or ours.
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

/// What is in use.
#[derive(Debug)]
struct Present {
    config: Arc<ServerConfig>,
    leaf: CertificateDer<'static>,
}

/// A certificate that follows its files.
#[derive(Debug)]
pub struct Certificates {
    files: CertificateFiles,
    present: ArcSwap<Present>,
    /// The server's own certificate as it was read for the first time.
    first: CertificateDer<'static>,
    seen: Mutex<(Instant, Stamp)>,
}

impl Certificates {
    /// Reads them for the first time.
    pub fn load(files: CertificateFiles) -> Result<Self, CertificateError> {
        let stamp = stamp(&files);
        let present = read(&files)?;
        let first = present.leaf.clone();
        let present = ArcSwap::from_pointee(present);
        Ok(Certificates { files, present, first, seen: Mutex::new((monotonic(), stamp)) })
    }

    /// Reads them again, whether they changed or not. The old ones stay where the new are broken.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let stamp = stamp(&self.files);
        let present = read(&self.files);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (monotonic(), stamp);
        self.present.store(Arc::new(present?));
        Ok(())
    }

    /// The same files, read for the first time once more.
    pub fn read_anew(&self) -> Result<Self, CertificateError> {
        Certificates::load(self.files.clone())
    }

    /// Whether these were read with the certificate that those were read with: a client that came between may have had
    /// them read again.
    pub fn same_as(&self, other: &Certificates) -> bool {
        self.first == other.first
    }

    /// What begins TLS with a client, with the present certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_and_leaf().0
    }

    /// The same, and the server's own certificate that it shows.
    pub fn acceptor_and_leaf(&self) -> (TlsAcceptor, CertificateDer<'static>) {
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
        let present = self.present.load();
        (TlsAcceptor::from(Arc::clone(&present.config)), present.leaf.clone())
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

/// All that is wrong with these files, for whoever wants to know before they are used.
pub fn faults(files: &CertificateFiles) -> Vec<CertificateError> {
    match (read_chain(&files.chain), read_key(&files.key)) {
        (Ok(chain), Ok(key)) => server_config(files, chain, key).err().into_iter().collect(),
        (chain, key) => chain.err().into_iter().chain(key.err()).collect(),
    }
}

fn read(files: &CertificateFiles) -> Result<Present, CertificateError> {
    let chain = read_chain(&files.chain)?;
    let leaf = chain.first().cloned().unwrap_or_else(|| Vec::new().into());
    Ok(Present { config: server_config(files, chain, read_key(&files.key)?)?, leaf })
}

fn server_config(
    files: &CertificateFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, CertificateError> {
    let unfit = |e: rustls::Error| match e {
        rustls::Error::InvalidCertificate(why) => CertificateError::Chain {
            file: files.chain.clone(),
            problem: format!("holds a broken certificate: {why}"),
        },
        e => CertificateError::Unfit {
            chain: files.chain.clone(),
            key: files.key.clone(),
            problem: e.to_string(),
        },
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

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let bad = |problem: String| CertificateError::Chain { file: file.to_owned(), problem };
    let pem = std::fs::read(file).map_err(|e| bad(e.to_string()))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(bad("holds no certificate in PEM".into())),
        chain => chain.map_err(|e| bad(e.to_string())),
    }
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let bad = |problem: String| CertificateError::Key { file: file.to_owned(), problem };
    let pem = std::fs::read(file).map_err(|e| bad(e.to_string()))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|e| match e {
        pem::Error::NoItemsFound => bad("holds no private key in PEM, or one with a passphrase".into()),
        e => bad(e.to_string()),
    })
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
        let first = certificates.present.load_full();

        std::fs::write(&files.chain, "no certificate").unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        certificates.acceptor();
        assert!(Arc::ptr_eq(&first, &certificates.present.load_full()));
        assert!(certificates.reload().is_err());

        write_certificate(directory.path());
        certificates.acceptor();
        assert!(Arc::ptr_eq(&first, &certificates.present.load_full()), "looked too soon");
        tokio::time::advance(LOOK_EVERY).await;
        certificates.acceptor();
        assert!(!Arc::ptr_eq(&first, &certificates.present.load_full()));
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
