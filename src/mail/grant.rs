//! What an access token is given for (OAuth 2.0, RFC 6749): from the configuration to the wire.

use std::path::PathBuf;

use crate::secret::Secret;

/// What a token endpoint is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The endpoint: https, or http on this machine.
    pub token_url: String,
    /// PEM of the CA that signed its certificate; then no public CA counts.
    pub ca_file: Option<PathBuf>,
    /// The program, as the endpoint knows it.
    pub client_id: String,
    /// What the token is to be good for; `None`: what the endpoint gives unasked.
    pub scope: Option<String>,
    /// The proof.
    pub kind: GrantKind,
}

/// The two grants that need nobody at a browser.
#[derive(Debug, Clone, PartialEq)]
pub enum GrantKind {
    /// The program is let in by itself (section 4.4).
    ClientCredentials {
        /// Its secret.
        client_secret: Secret,
    },
    /// In the name of somebody who agreed once (section 6).
    RefreshToken {
        /// What came of that.
        refresh_token: Secret,
        /// A public client has none.
        client_secret: Option<Secret>,
    },
}

impl GrantKind {
    /// The program's own secret.
    pub fn client_secret(&self) -> Option<&Secret> {
        match self {
            GrantKind::ClientCredentials { client_secret } => Some(client_secret),
            GrantKind::RefreshToken { client_secret, .. } => client_secret.as_ref(),
        }
    }

    /// As it was given out first.
    pub fn refresh_token(&self) -> Option<&Secret> {
        match self {
            GrantKind::ClientCredentials { .. } => None,
            GrantKind::RefreshToken { refresh_token, .. } => Some(refresh_token),
        }
    }
}

impl Grant {
    /// Every secret that it holds.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.kind.client_secret().into_iter().chain(self.kind.refresh_token())
    }
}
