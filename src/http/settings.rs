//! `[http]`, checked.

use std::net::SocketAddr;

use crate::secret::Secret;

/// Where the side port listens and who may ask it.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpSettings {
    /// Where it listens; port 0: any free one, named in the lock file.
    pub address: SocketAddr,
    /// The bearer token; `None` (on loopback only): one is made in the data directory.
    pub admin_token: Option<Secret>,
}
