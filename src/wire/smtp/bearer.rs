//! AUTH with an access token: OAUTHBEARER (RFC 7628), else XOAUTH2, which Google and Microsoft had before it.

use std::sync::Arc;
use std::time::Duration;

use super::auth::{ask, base64, private};
use super::connect::Failure;
use super::ehlo::Offered;
use super::line::{Broken, Line};
use super::steps::Steps;
use super::tokens::{Denied, Endpoint, Held, Tokens};
use crate::clock::monotonic;
use crate::mail::{Answer, Phase};

/// A command with its CRLF (RFC 5321 section 4.5.3.1.4): a longer first response waits for the server's 334 (RFC 4954
/// section 4).
const COMMAND_OCTETS_MAX: usize = 512;
/// So much of what a server holds against a token is shown.
const CHALLENGE_CHARS_MAX: usize = 300;

/// Who logs in, where, and what gives the tokens.
#[derive(Debug)]
pub(super) struct Bearer<'a> {
    pub username: &'a str,
    pub host: &'a str,
    pub port: u16,
    pub tokens: &'a Arc<Tokens>,
    pub endpoint: &'a dyn Endpoint,
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Mechanism {
    OAuthBearer,
    XOAuth2,
}

/// What a server made of a token.
struct Told {
    answer: Answer,
    /// What it held against it before its answer.
    challenge: Option<String>,
}

impl Mechanism {
    /// The standard where a server has it: its errors have a form, and the token is bound to host and port.
    fn choose(offered: &Offered) -> Result<Self, Broken> {
        match offered {
            Offered { oauthbearer: true, .. } => Ok(Mechanism::OAuthBearer),
            Offered { xoauth2: true, .. } => Ok(Mechanism::XOAuth2),
            Offered { auth: true, .. } => Err(Broken::Other(
                "auth is \"oauth2\", but the server offers neither AUTH XOAUTH2 nor OAUTHBEARER".into(),
            )),
            _ => Err(Broken::Other(
                "auth is \"oauth2\", but the server offers no AUTH here; is this its submission port?".into(),
            )),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Mechanism::OAuthBearer => "OAUTHBEARER",
            Mechanism::XOAuth2 => "XOAUTH2",
        }
    }

    fn response(self, bearer: &Bearer<'_>, token: &str) -> String {
        let Bearer { username, host, port, .. } = bearer;
        base64(&match self {
            Mechanism::OAuthBearer => {
                let name = username.replace('=', "=3D").replace(',', "=2C");
                format!("n,a={name},\x01host={host}\x01port={port}\x01auth=Bearer {token}\x01\x01")
            }
            Mechanism::XOAuth2 => format!("user={username}\x01auth=Bearer {token}\x01\x01"),
        })
    }

    /// Ends the exchange after what a server held against a token; its reply is the refusal.
    fn acknowledgement(self) -> &'static str {
        match self {
            // One octet 0x01 (RFC 7628 section 3.2.3).
            Mechanism::OAuthBearer => "AQ==",
            Mechanism::XOAuth2 => "",
        }
    }

    async fn prove(self, line: &mut Line, response: &str) -> Result<Told, Broken> {
        let command = ["AUTH ", self.word(), " ", response];
        let octets: usize = command.iter().map(|part| part.len()).sum();
        let at_once = octets + 2 <= COMMAND_OCTETS_MAX;
        let mut answer = ask(line, if at_once { &command } else { &command[..2] }).await?;
        // Some servers do not look at what stands on the line and ask for it.
        if answer.code == 334 && (!at_once || answer.text.trim().is_empty()) {
            answer = ask(line, &[response]).await?;
        }
        if answer.code != 334 {
            return Ok(Told { answer, challenge: None });
        }
        let challenge = Some(readable(&answer.text));
        let answer = ask(line, &[self.acknowledgement()]).await?;
        Ok(Told { answer, challenge })
    }
}

impl Told {
    /// Another token may be taken: this one has ended, or was taken back.
    fn refuses_token(&self) -> bool {
        self.answer.code == 535 || (self.challenge.is_some() && self.answer.code >= 400)
    }

    /// The answer, with what was told before it.
    fn whole(self) -> Answer {
        match self.challenge {
            Some(challenge) if self.answer.code != 235 => {
                let text = format!("{} (about the token: {challenge})", self.answer.text);
                Answer { text, ..self.answer }
            }
            _ => self.answer,
        }
    }
}

impl Bearer<'_> {
    /// Logs in; by which mechanism, and what was answered. A token that is refused is renewed once.
    pub async fn log_in(
        &self,
        line: &mut Line,
        offered: &Offered,
        phase: &mut Phase,
        steps: &mut Steps,
    ) -> Result<(&'static str, Answer), Failure> {
        steps.begin("auth");
        private(&line.stream)?;
        let mechanism = Mechanism::choose(offered)?;
        let mut told = self.try_once(mechanism, line, phase, steps).await?;
        if told.refuses_token() {
            told = self.try_once(mechanism, line, phase, steps).await?;
        }
        let answer = told.whole();
        match answer.code {
            235 => Ok((mechanism.word(), answer)),
            400.. => Err(Failure::Refused(answer)),
            _ => Err(Broken::Garbage(format!("{answer} to AUTH")).into()),
        }
    }

    async fn try_once(
        &self,
        mechanism: Mechanism,
        line: &mut Line,
        phase: &mut Phase,
        steps: &mut Steps,
    ) -> Result<Told, Failure> {
        *phase = Phase::Token;
        steps.begin("token");
        let held = self.token().await?;
        line.watch.moved();
        steps.done(|| {
            let left = held.ends.saturating_duration_since(monotonic());
            format!("an access token, good for {} s", left.as_secs())
        });
        *phase = Phase::Auth;
        steps.begin("auth");
        let told = mechanism.prove(line, &mechanism.response(self, held.token.expose())).await?;
        if told.refuses_token() {
            self.tokens.refused(&held);
        }
        Ok(told)
    }

    async fn token(&self) -> Result<Held, Failure> {
        self.tokens.token(self.endpoint, self.timeout).await.map_err(|denied| match denied {
            Denied::Said(answer) => Failure::Refused(answer),
            Denied::Lost(what) => Broken::Other(what).into(),
        })
    }
}

/// A challenge is JSON in base64.
fn readable(text: &str) -> String {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(text.trim());
    let octets = decoded.unwrap_or_else(|_| text.as_bytes().to_vec());
    let shown = String::from_utf8_lossy(&octets).into_owned();
    shown.chars().take(CHALLENGE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
