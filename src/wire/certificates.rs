//! Certificates that sign what arrives, fetched by URL: over TLS, without redirects, bounded, kept, and verified up to a
//! CA that this machine trusts. Which URLs may be asked, and which names a certificate may bear, is the caller's to know.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Url;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use tokio::sync::Semaphore;
use webpki::{EndEntityCert, KeyUsage};

use super::http::{Client, read, told};
use crate::clock::Timestamp;
use crate::mail::HttpReply;

/// Connect, TLS and the answer.
const FETCH_MAX: Duration = Duration::from_secs(10);
/// Octets of a certificate with its chain: as many as are read of an answer.
const PEM_OCTETS_MAX: usize = HttpReply::BODY_OCTETS_MAX;
/// Certificates in a chain.
const CHAIN_MAX: usize = 8;
/// Names of a certificate that are told.
const NAMES_TOLD_MAX: usize = 3;
/// URLs that are remembered; an ESP has a handful at a time.
const KEPT_MAX: usize = 32;
/// One that was verified is verified again after so long: it may have expired.
const VERIFIED_FOR: Duration = Duration::from_secs(3600);
/// One that could not be had is asked for again after so long.
const FAILED_FOR: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Certificates {
    /// `https://host:port` in place of the host that a URL names.
    endpoint: Option<String>,
    ca_file: Option<PathBuf>,
    /// Whether a certificate may bear that name.
    is_name: fn(&str) -> bool,
    client: Client,
    kept: Mutex<HashMap<String, Kept>>,
    /// One fetch at a time: who comes meanwhile finds it kept.
    turn: Semaphore,
}

/// Why there is no key, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoKey {
    /// The certificate cannot be had now; it may be later.
    NotNow(String),
    /// It is there, and not good.
    NotGood(String),
}

/// What is known of a URL's certificate: its key, or why there is none.
#[derive(Debug, Clone)]
struct Kept {
    at: Timestamp,
    /// Something that it signs was shown to be its signer's.
    proven: bool,
    chain: Arc<[CertificateDer<'static>]>,
    key: Result<Arc<[u8]>, NoKey>,
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (NoKey::NotNow(why) | NoKey::NotGood(why)) = self;
        f.write_str(why)
    }
}

impl Certificates {
    /// Fetches from `endpoint`, trusting `ca_file` alone, or from where a URL says, trusting the platform's CAs. `is_name`:
    /// whether a certificate may bear that name.
    pub fn new(endpoint: Option<String>, ca_file: Option<PathBuf>, is_name: fn(&str) -> bool) -> Self {
        let ca_file = ca_file.filter(|_| endpoint.is_some());
        Certificates {
            client: Client::new(ca_file.clone(), 1, FETCH_MAX),
            endpoint,
            ca_file,
            is_name,
            kept: Mutex::default(),
            turn: Semaphore::new(1),
        }
    }

    /// The public key (an SPKI in DER) of the certificate at that URL, which is good at `now`.
    ///
    /// Errors: it cannot be had now, or is not good.
    pub async fn key(&self, url: &str, now: Timestamp) -> Result<Arc<[u8]>, NoKey> {
        if let Some(key) = self.known(url, now) {
            return key;
        }
        let _turn = self.turn.acquire().await.map_err(|error| NoKey::NotNow(error.to_string()))?;
        if let Some(key) = self.known(url, now) {
            return key;
        }
        let kept = match self.kept_chain(url) {
            Some(chain) => Ok(chain),
            None => match self.fetch(url).await {
                Ok(pem) => chain(&pem).map_err(NoKey::NotGood),
                Err(no_key) => Err(no_key),
            },
        };
        let (chain, key) = match kept {
            Ok(chain) => {
                let verified = self.verified(&chain, now).await.map_err(NoKey::NotGood);
                (Arc::clone(&chain), verified)
            }
            Err(why) => (Arc::from([]), Err(why)),
        };
        self.keep(url, Kept { at: now, proven: false, chain, key: key.clone() });
        key
    }

    /// A signature was good by the certificate at that URL: it makes room for no other that has shown nothing. Anybody can
    /// write URLs of certificates that are there.
    pub fn has_proven(&self, url: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.get_mut(url) {
            kept.proven = true;
        }
    }

    /// The answer to a GET there, shorter than 64 KiB.
    ///
    /// Errors: there was none now, or there is nothing of the kind there.
    pub async fn fetch(&self, url: &str) -> Result<Bytes, NoKey> {
        let url = self.asked(url).map_err(NoKey::NotGood)?;
        let answer = async {
            let client = self.client.get().await?;
            let answer = client.get(url).send().await.map_err(|error| told(&error))?;
            Ok(read(answer, std::future::pending()).await)
        };
        let answer: Result<_, String> = tokio::time::timeout(FETCH_MAX, answer)
            .await
            .unwrap_or_else(|_| Err(format!("no answer for {} s", FETCH_MAX.as_secs())));
        let answer = answer.map_err(NoKey::NotNow)?;
        match answer.status {
            // What is as long as what is read may go on.
            200 if !answer.cut && answer.body.len() < PEM_OCTETS_MAX => Ok(answer.body),
            200 if answer.cut => Err(NoKey::NotNow("the answer was cut off".to_owned())),
            200 => Err(NoKey::NotGood("the answer is too long".to_owned())),
            // Anybody can write a URL at which there is nothing.
            status @ (400..=407 | 409..=428) => Err(NoKey::NotGood(format!("the answer is {status}"))),
            status => Err(NoKey::NotNow(format!("the answer is {status}"))),
        }
    }

    fn asked(&self, url: &str) -> Result<Url, String> {
        let bad = |_| "it is no URL".to_owned();
        let url = Url::parse(url).map_err(bad)?;
        let Some(endpoint) = &self.endpoint else { return Ok(url) };
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        Url::parse(&format!("{endpoint}{}{query}", url.path())).map_err(bad)
    }

    fn known(&self, url: &str, now: Timestamp) -> Option<Result<Arc<[u8]>, NoKey>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get(url)?;
        let good_for = if kept.key.is_ok() { VERIFIED_FOR } else { FAILED_FOR };
        (kept.at <= now && now < kept.at.plus(good_for)).then(|| kept.key.clone())
    }

    fn kept_chain(&self, url: &str) -> Option<Arc<[CertificateDer<'static>]>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(url)
            .filter(|kept| !kept.chain.is_empty() && kept.key.is_ok())
            .map(|kept| Arc::clone(&kept.chain))
    }

    fn keep(&self, url: &str, mut new: Kept) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        new.proven = new.key.is_ok() && kept.get(url).is_some_and(|before| before.proven);
        if kept.len() >= KEPT_MAX && !kept.contains_key(url) {
            let oldest = kept.iter().min_by_key(|(_, k)| (k.proven, k.at)).map(|(url, _)| url.clone());
            oldest.and_then(|url| kept.remove(&url));
        }
        kept.insert(url.to_owned(), new);
    }

    async fn verified(
        &self,
        chain: &Arc<[CertificateDer<'static>]>,
        now: Timestamp,
    ) -> Result<Arc<[u8]>, String> {
        let (chain, ca_file, is_name) = (Arc::clone(chain), self.ca_file.clone(), self.is_name);
        let verified = tokio::task::spawn_blocking(move || {
            let anchors = anchors(ca_file.as_deref())?;
            verify(&chain, &anchors, ca_file.is_some(), is_name, now)
        });
        verified.await.map_err(|error| error.to_string())?
    }
}

fn chain(pem: &[u8]) -> Result<Arc<[CertificateDer<'static>]>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CHAIN_MAX).collect();
    match chain.map_err(|error| format!("it is no certificate in PEM: {error}"))? {
        chain if chain.is_empty() => Err("it holds no certificate in PEM".to_owned()),
        chain => Ok(chain.into()),
    }
}

/// The CAs that count: the private one's, or the platform's.
fn anchors(ca_file: Option<&Path>) -> Result<Vec<TrustAnchor<'static>>, String> {
    let roots: Vec<CertificateDer<'static>> = match ca_file {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            chain(&pem)?.to_vec()
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    Ok(roots
        .iter()
        .filter_map(|root| webpki::anchor_from_trusted_cert(root).ok().map(|a| a.to_owned()))
        .collect())
}

/// The key of the first certificate, once it is shown to be good at `now`. `strict`: its CA must be known. Amazon's files
/// have one certificate and not those between it and its CA (UNVERIFIED for every region): then what counts is that it
/// came over TLS from the host that the caller pinned, its name and its dates. With a CA of the operator's own names are free.
fn verify(
    chain: &[CertificateDer<'static>],
    anchors: &[TrustAnchor<'static>],
    strict: bool,
    is_name: fn(&str) -> bool,
    now: Timestamp,
) -> Result<Arc<[u8]>, String> {
    let (first, between) = chain.split_first().ok_or("there is none")?;
    let certificate =
        EndEntityCert::try_from(first).map_err(|error| format!("it cannot be read: {error}"))?;
    let at = UnixTime::since_unix_epoch(Duration::from_millis(now.millis().unsigned_abs()));
    let verified = certificate.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        anchors,
        between,
        at,
        KeyUsage::server_auth(),
        None,
        None,
    );
    match verified {
        Ok(_) => {}
        Err(webpki::Error::UnknownIssuer) if !strict => {}
        Err(error) => return Err(format!("it is not good: {error}")),
    }
    // What a CA of the operator's own signs is called as they like.
    if !strict && !certificate.valid_dns_names().any(is_name) {
        let names: Vec<&str> = certificate.valid_dns_names().take(NAMES_TOLD_MAX).collect();
        return Err(format!("it is somebody else's: {}", names.join(", ")));
    }
    Ok(certificate.subject_public_key_info().to_vec().into())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::*;

    /// 2026-01-01.
    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

    fn authority(name: &str) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, name);
        (ca.self_signed(&key).unwrap().der().clone(), Issuer::new(ca, key))
    }

    /// Good for the years from the one up to the other.
    fn signed(issuer: &Issuer<'_, KeyPair>, years: (i32, i32)) -> CertificateDer<'static> {
        named(issuer, years, &["sns.amazonaws.com"])
    }

    fn named(issuer: &Issuer<'_, KeyPair>, years: (i32, i32), names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.not_before = date_time_ymd(years.0, 1, 1);
        leaf.not_after = date_time_ymd(years.1, 1, 1);
        leaf.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
    }

    fn judged(leaf: &CertificateDer<'static>, root: &CertificateDer<'_>, strict: bool) -> bool {
        let anchor = webpki::anchor_from_trusted_cert(root).unwrap().to_owned();
        let is_name = |name: &str| name == "sns.amazonaws.com";
        verify(std::slice::from_ref(leaf), &[anchor], strict, is_name, NOW).is_ok()
    }

    #[test]
    fn each_flipped_bit_of_a_certificate_is_refused() {
        let (root, issuer) = authority("ours");
        let leaf = signed(&issuer, (2025, 2027));
        assert!(judged(&leaf, &root, true));
        for at in 0..leaf.len() * 8 {
            let mut other = leaf.to_vec();
            other[at / 8] ^= 1 << (at % 8);
            assert!(!judged(&CertificateDer::from(other), &root, true), "bit {at}");
        }
    }

    #[test]
    fn what_is_not_good_today_or_is_anothers_is_refused() {
        let ((root, issuer), (other_root, _)) = (authority("ours"), authority("another's"));
        for (years, good) in [((2025, 2027), true), ((2024, 2025), false), ((2027, 2028), false)] {
            let leaf = signed(&issuer, years);
            assert_eq!(judged(&leaf, &root, true), good, "{years:?}");
            assert!(!judged(&leaf, &other_root, true), "{years:?}: of another CA");
            // Without a chain its dates count all the same.
            assert_eq!(judged(&leaf, &other_root, false), good, "{years:?}: without its chain");
        }
    }

    #[test]
    fn one_of_its_names_has_to_be_the_signers() {
        let (root, issuer) = authority("ours");
        for (names, good) in [
            (&["sns.amazonaws.com"][..], true),
            (&["sns-signing.example", "sns.amazonaws.com"], true),
            (&["s3.amazonaws.com"], false),
            (&["*.amazonaws.com"], false),
            (&[], false),
        ] {
            let leaf = named(&issuer, (2025, 2027), names);
            assert_eq!(judged(&leaf, &root, false), good, "{names:?}");
            assert!(judged(&leaf, &root, true), "{names:?}: by a CA of one's own");
        }
    }

    #[test]
    fn what_has_proven_a_call_stays_before_what_never_has() {
        let certificates = Certificates::new(None, None, |_| true);
        let at = |seconds: u64| NOW.plus(Duration::from_secs(seconds));
        let good = |at| Kept { at, proven: false, chain: Arc::from([]), key: Ok(Arc::from([1])) };
        let bad = |at| Kept { key: Err(NoKey::NotGood("no".into())), ..good(at) };
        let is_kept = |url: &str| certificates.kept.lock().unwrap().contains_key(url);
        for url in ["ours", "never"] {
            certificates.keep(url, good(at(0)));
        }
        certificates.has_proven("ours");
        certificates.has_proven("not there");
        for n in 1..=200 {
            certificates.keep(&n.to_string(), good(at(n)));
        }
        assert!(is_kept("ours") && !is_kept("never"));
        assert_eq!(certificates.kept.lock().unwrap().len(), KEPT_MAX);
        certificates.keep("ours", good(at(300)));
        assert!(certificates.kept.lock().unwrap()["ours"].proven, "it was only verified again");
        certificates.keep("ours", bad(at(301)));
        for n in 400..=600 {
            certificates.keep(&n.to_string(), good(at(n)));
        }
        assert!(!is_kept("ours"), "it is not good any more");
    }
}
