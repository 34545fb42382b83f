//! AUTH (RFC 4954) with a password: PLAIN, else LOGIN, else CRAM-MD5, never on a line that others may read.

use std::net::IpAddr;

use mail_send::Credentials;
use smtp_proto::{AUTH_CRAM_MD5, AUTH_PLAIN};

use super::connect::Failure;
use super::ehlo::Offered;
use super::line::{Broken, Line, Stream};
use crate::mail::Answer;
use crate::secret::Secret;

/// Name and password.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair<'a> {
    pub username: &'a str,
    pub password: &'a Secret,
}

#[derive(Debug, Clone, Copy)]
enum Mechanism {
    Plain,
    Login,
    CramMd5,
}

impl Mechanism {
    fn word(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::CramMd5 => "CRAM-MD5",
        }
    }
}

/// PLAIN and LOGIN work with passwords that are stored as hashes, CRAM-MD5 does not and gains nothing under TLS. LOGIN
/// is no standard: only where PLAIN is not offered.
fn choose(offered: &Offered) -> Result<Mechanism, Broken> {
    match offered {
        Offered { plain: true, .. } => Ok(Mechanism::Plain),
        Offered { login: true, .. } => Ok(Mechanism::Login),
        Offered { cram_md5: true, .. } => Ok(Mechanism::CramMd5),
        Offered { auth: true, .. } => Err(Broken::Other(
            "a username is set, but the server offers none of AUTH PLAIN, LOGIN, CRAM-MD5".into(),
        )),
        _ => Err(Broken::Other(
            "a username is set, but the server offers no AUTH here; is this its submission port?".into(),
        )),
    }
}

/// Logs in; by which mechanism, and what was answered.
pub(super) async fn log_in(
    line: &mut Line,
    offered: &Offered,
    login: Pair<'_>,
) -> Result<(&'static str, Answer), Failure> {
    private(&line.stream)?;
    let mechanism = choose(offered)?;
    let answer = match mechanism {
        Mechanism::Plain => plain(line, login).await?,
        Mechanism::Login => two_step(line, login).await?,
        Mechanism::CramMd5 => cram_md5(line, login).await?,
    };
    match answer.code {
        235 => Ok((mechanism.word(), answer)),
        400.. => Err(Failure::Refused(answer)),
        // Whatever it waits for now, it gets no more secrets.
        _ => Err(Broken::Garbage(format!("{answer} to AUTH")).into()),
    }
}

pub(super) fn private(stream: &Stream) -> Result<(), Broken> {
    match stream {
        Stream::Tls(_) => Ok(()),
        Stream::Plain(tcp) => stays_here(tcp.peer_addr()?.ip()),
    }
}

/// Without TLS a password or a token stays on this machine.
fn stays_here(peer: IpAddr) -> Result<(), Broken> {
    if peer.to_canonical().is_loopback() {
        return Ok(());
    }
    let why = "no password or token is sent to";
    Err(Broken::Other(format!("{why} {peer} without TLS; set tls = \"starttls\" or \"implicit\"")))
}

async fn plain(line: &mut Line, login: Pair<'_>) -> Result<Answer, Broken> {
    let response = encode(login, AUTH_PLAIN, "")?;
    let answer = ask(line, &["AUTH PLAIN ", &response]).await?;
    // Some servers do not look at what stands on the line and ask for it.
    if answer.code == 334 { ask(line, &[&response]).await } else { Ok(answer) }
}

/// In two steps, whatever the prompts say: not every server knows the short form, and none agrees on the wording.
async fn two_step(line: &mut Line, login: Pair<'_>) -> Result<Answer, Broken> {
    let mut answer = ask(line, &["AUTH LOGIN"]).await?;
    for secret in [login.username, login.password.expose()] {
        if answer.code != 334 {
            return Ok(answer);
        }
        answer = ask(line, &[&base64(secret)]).await?;
    }
    Ok(answer)
}

async fn cram_md5(line: &mut Line, login: Pair<'_>) -> Result<Answer, Broken> {
    let challenge = ask(line, &["AUTH CRAM-MD5"]).await?;
    if challenge.code != 334 {
        return Ok(challenge);
    }
    ask(line, &[&encode(login, AUTH_CRAM_MD5, challenge.text.trim())?]).await
}

pub(super) fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn encode(login: Pair<'_>, mechanism: u64, challenge: &str) -> Result<String, Broken> {
    let credentials = Credentials::new(login.username, login.password.expose());
    credentials
        .encode(mechanism, challenge)
        .map_err(|_| Broken::Garbage(format!("its AUTH challenge: {challenge}")))
}

pub(super) async fn ask(line: &mut Line, words: &[&str]) -> Result<Answer, Broken> {
    for word in words {
        line.out.extend_from_slice(word.as_bytes());
    }
    line.out.extend_from_slice(b"\r\n");
    line.ask().await?;
    line.reply().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_a_password_stays_on_this_machine() {
        for (peer, stays) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.1", false),
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(stays_here(peer.parse().unwrap()).is_ok(), stays, "{peer}");
        }
    }
}
