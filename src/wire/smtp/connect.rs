//! From nothing to a connection that takes mail: look-up, TCP, banner, EHLO, TLS, AUTH.

use std::net::SocketAddr;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::auth;
use super::ehlo::Offered;
use super::line::{Broken, Line, Stream};
use super::settings::{Settings, Tls};
use super::tls::Connector;
use crate::clock::monotonic;
use crate::mail::{Answer, Phase, Reply, SmtpReply, Watch};

/// A connection between two messages, or in one.
#[derive(Debug)]
pub(super) struct Connection {
    pub line: Line,
    pub offered: Offered,
    /// It has carried a transaction before.
    pub reused: bool,
    /// A transaction was left open; RSET goes before the next one.
    pub reset_due: bool,
    /// Both sides know where they are: it may be used again.
    pub in_step: bool,
    /// Transactions that it has carried.
    pub messages: u32,
    /// Since when it has been idle.
    pub idle_since: Instant,
}

/// Why there is no connection, or no transaction.
#[derive(Debug)]
pub(super) enum Failure {
    /// The other side said no.
    Refused(Answer),
    /// The line broke.
    Broken(Broken),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Failure::Broken(broken)
    }
}

impl Failure {
    /// What the courier is told.
    pub fn into_reply(self, phase: Phase) -> Reply {
        match self {
            Failure::Refused(last) => {
                Reply::Smtp(SmtpReply { phase, last, recipients: Vec::new(), reports: false })
            }
            Failure::Broken(broken) => lost(phase, &broken),
        }
    }
}

/// Lost before the last octets were written.
pub(super) fn lost(phase: Phase, said: &impl ToString) -> Reply {
    Reply::Lost { phase, handed_over: false, said: said.to_string() }
}

/// Opens a connection; `phase` tells how far it came.
pub(super) async fn open(
    settings: &Settings,
    tls: &Connector,
    watch: &Watch,
    phase: &mut Phase,
) -> Result<Connection, Failure> {
    *phase = Phase::Connect;
    let tcp = dial(settings).await?;
    watch.moved();
    let mut line = match settings.tls {
        Tls::Implicit => {
            *phase = Phase::Tls;
            Line::new(secure(settings, tls, tcp).await?, settings.timeout, watch.clone())
        }
        Tls::StartTls | Tls::Off => Line::new(Stream::Plain(tcp), settings.timeout, watch.clone()),
    };
    *phase = Phase::Banner;
    expect(line.reply().await?, 220)?;
    *phase = Phase::Ehlo;
    let mut offered = greet(&mut line, settings).await?;
    if settings.tls == Tls::StartTls {
        *phase = Phase::Tls;
        line = start_tls(line, offered, settings, tls).await?;
        *phase = Phase::Ehlo;
        offered = greet(&mut line, settings).await?;
    }
    if let Some(login) = &settings.login {
        *phase = Phase::Auth;
        auth::log_in(&mut line, &offered, login).await?;
    }
    Ok(Connection {
        line,
        offered,
        reused: false,
        reset_due: false,
        in_step: true,
        messages: 0,
        idle_since: monotonic(),
    })
}

/// The reply must be this code: else a refusal, or nonsense.
fn expect(answer: Answer, code: u16) -> Result<(), Failure> {
    match answer.code {
        c if c == code => Ok(()),
        400.. => Err(Failure::Refused(answer)),
        _ => Err(Broken::Garbage(format!("{answer}, not {code}")).into()),
    }
}

/// Tries every address of the host; the time left is shared by those that are left.
async fn dial(settings: &Settings) -> Result<TcpStream, Broken> {
    let Settings { host, port, timeout: within, .. } = settings;
    let end = monotonic() + *within;
    let found: Vec<SocketAddr> = match timeout_at(end, lookup_host((host.as_str(), *port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(e)) => return Err(Broken::Other(format!("looking up {host}: {e}"))),
        Err(_) => return Err(Broken::Other(format!("looking up {host}: no answer for {within:?}"))),
    };
    let mut said = format!("looking up {host}: no address");
    for (n, address) in found.iter().enumerate() {
        let left = end.saturating_duration_since(monotonic());
        let share = left / u32::try_from(found.len() - n).unwrap_or(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Nagle's algorithm against delayed ACK costs 40 ms a message.
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Err(e)) => said = format!("connecting to {address}: {e}"),
            Err(_) => said = format!("connecting to {address}: no answer for {share:?}"),
        }
    }
    Err(Broken::Other(said))
}

/// EHLO, or HELO where the server knows no other.
async fn greet(line: &mut Line, settings: &Settings) -> Result<Offered, Failure> {
    hail(line, "EHLO ", &settings.helo).await?;
    let read = |code: u16, lines: &[u8]| (super::reply::answer(code, lines), Offered::read(lines));
    let (answer, offered) = line.read_reply(settings.timeout, read).await?;
    if !matches!(answer.code, 500 | 502 | 504) {
        return expect(answer, 250).map(|()| offered);
    }
    hail(line, "HELO ", &settings.helo).await?;
    expect(line.reply().await?, 250).map(|()| Offered::default())
}

async fn hail(line: &mut Line, verb: &str, name: &str) -> Result<(), Broken> {
    line.out.extend_from_slice(verb.as_bytes());
    line.out.extend_from_slice(name.as_bytes());
    line.out.extend_from_slice(b"\r\n");
    line.send().await
}

/// STARTTLS, required. What was said before it counts no more, and what stands behind its reply is an attack: it was
/// put there by someone who can write to the plain line.
async fn start_tls(
    mut line: Line,
    offered: Offered,
    settings: &Settings,
    tls: &Connector,
) -> Result<Line, Failure> {
    if !offered.starttls {
        return Err(Broken::Other(
            "the server offers no STARTTLS and nothing is sent without; for a server without TLS set tls = \"off\"".into(),
        )
        .into());
    }
    line.out.extend_from_slice(b"STARTTLS\r\n");
    line.send().await?;
    expect(line.reply().await?, 220)?;
    if !line.caught_up() {
        return Err(
            Broken::Other("plain text behind the reply to STARTTLS: somebody is on the line".into()).into()
        );
    }
    match line.stream {
        Stream::Plain(tcp) => Ok(Line::new(secure(settings, tls, tcp).await?, settings.timeout, line.watch)),
        Stream::Tls(_) => Ok(line),
    }
}

async fn secure(settings: &Settings, tls: &Connector, tcp: TcpStream) -> Result<Stream, Broken> {
    let handshake = tls.handshake(tcp, &settings.host, settings.ca_file.as_ref());
    let done = timeout(settings.timeout, handshake).await.map_err(|_| Broken::Hung(settings.timeout))?;
    Ok(Stream::Tls(Box::new(done?)))
}
