//! `[http]`, checked.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::secret::Secret;
use crate::smtp::CertificateFiles;

/// Where the side port listens and who may ask it.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSettings {
    /// Where it listens; port 0: any free one, named in the lock file.
    pub address: SocketAddr,
    /// Where webhooks alone are taken, for whoever may reach it; `None`: nowhere else.
    pub public_address: Option<SocketAddr>,
    /// Where others reach it: a URL without a slash at its end.
    pub public_url: Option<String>,
    /// Whose `X-Forwarded-For` counts; empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// The bearer token; `None` (on loopback only): one is made in the data directory.
    pub admin_token: Option<Secret>,
    /// `tls_cert` and `tls_key`: then it speaks HTTPS alone.
    pub certificate: Option<CertificateFiles>,
}
