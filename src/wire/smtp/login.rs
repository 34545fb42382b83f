//! How one logs in to an upstream: not at all, with a password, or with an access token.

use std::sync::Arc;

use super::auth;
use super::bearer::Bearer;
use super::connect::Failure;
use super::ehlo::Offered;
use super::endpoint::Http;
use super::line::Line;
use super::settings::{Login, Proof, Settings};
use super::steps::Steps;
use super::tokens::Tokens;
use crate::mail::Phase;
use crate::secret::{Blot, Secret};

/// What AUTH is done with.
#[derive(Debug)]
pub(super) enum Way {
    None(Arc<Blot>),
    Password { username: String, password: Secret, blot: Arc<Blot> },
    Token { username: String, tokens: Arc<Tokens>, endpoint: Http },
}

impl Way {
    /// With other secrets of the account, `kin`.
    pub fn of(login: Option<&Login>, kin: &[Secret]) -> Self {
        match login.cloned() {
            None => Way::None(Arc::default()),
            Some(Login { username, proof: Proof::Password(password) }) => {
                let blot = Blot::of_logins(&username, [&password].into_iter().chain(kin));
                Way::Password { username, password, blot: Arc::new(blot) }
            }
            Some(Login { username, proof: Proof::Token(tokens) }) => {
                let endpoint = Http::of(tokens.grant());
                Way::Token { username, tokens, endpoint }
            }
        }
    }

    /// What the other side's words are cleaned with, for now: tokens change.
    pub fn blot(&self) -> Arc<Blot> {
        match self {
            Way::None(blot) | Way::Password { blot, .. } => Arc::clone(blot),
            Way::Token { tokens, .. } => tokens.blot(),
        }
    }

    /// Logs in; `phase` tells whether it was about a token.
    pub async fn log_in(
        &self,
        line: &mut Line,
        offered: &Offered,
        settings: &Settings,
        phase: &mut Phase,
        steps: &mut Steps,
    ) -> Result<(), Failure> {
        steps.begin("auth");
        if !matches!(self, Way::None(_)) {
            *phase = Phase::Auth;
        }
        let (username, (mechanism, answer)) = match self {
            Way::None(_) => {
                steps.done(|| "no login configured".to_owned());
                return Ok(());
            }
            Way::Password { username, password, .. } => {
                (username, auth::log_in(line, offered, auth::Pair { username, password }).await?)
            }
            Way::Token { username, tokens, endpoint } => {
                let Settings { host, port, timeout, .. } = settings;
                let bearer = Bearer { username, host, port: *port, tokens, endpoint, timeout: *timeout };
                (username, bearer.log_in(line, offered, phase, steps).await?)
            }
        };
        steps.done(|| format!("{mechanism} as {username}: {answer}"));
        Ok(())
    }
}
