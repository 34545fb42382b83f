//! From nothing to a connection that takes mail: look-up, TCP, banner, EHLO, TLS, AUTH.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::io::Errno;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::ehlo::Offered;
use super::line::{Broken, Line, Stream};
use super::login::Way;
use super::reply;
use super::settings::{Settings, Tls};
use super::standing::{Place, Standing};
use super::steps::Steps;
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
    /// Counted as long as it stands.
    pub place: Place,
}

/// What opening one takes besides the settings; made at the first use.
#[derive(Debug)]
pub(super) struct Means {
    pub tls: Connector,
    pub login: Way,
    pub standing: Standing,
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
    Reply::Lost { phase, handed_over: false, recipients: Vec::new(), said: said.to_string() }
}

/// Opens a connection; `phase` tells how far it came, `steps` what each step met.
pub(super) async fn open(
    settings: &Settings,
    means: &Means,
    watch: &Watch,
    phase: &mut Phase,
    steps: &mut Steps,
) -> Result<Connection, Failure> {
    *phase = Phase::Connect;
    let mut place = means.standing.enter();
    let tcp = dial(settings, steps).await?;
    watch.moved();
    let stream = match settings.tls {
        Tls::Implicit => {
            *phase = Phase::Tls;
            secure(settings, &means.tls, tcp, steps).await?
        }
        Tls::StartTls | Tls::Off => Stream::Plain(tcp),
    };
    let mut line = Line::new(stream, settings.timeout, watch.clone());
    *phase = Phase::Banner;
    steps.begin("banner");
    let banner = expect(line.reply().await?, 220)?;
    steps.done(|| banner.to_string());
    *phase = Phase::Ehlo;
    let mut offered = greet(&mut line, settings, steps).await?;
    if settings.tls == Tls::StartTls {
        *phase = Phase::Tls;
        line = start_tls(line, offered, (settings, &means.tls), steps).await?;
        *phase = Phase::Ehlo;
        offered = greet(&mut line, settings, steps).await?;
    }
    means.login.log_in(&mut line, &offered, settings, phase, steps).await?;
    place.let_in = true;
    Ok(Connection {
        line,
        offered,
        reused: false,
        reset_due: false,
        in_step: true,
        messages: 0,
        idle_since: monotonic(),
        place,
    })
}

/// The reply must be this code: else a refusal, or nonsense.
fn expect(answer: Answer, code: u16) -> Result<Answer, Failure> {
    match answer.code {
        c if c == code => Ok(answer),
        400.. => Err(Failure::Refused(answer)),
        _ => Err(Broken::Garbage(format!("{answer}, not {code}")).into()),
    }
}

/// Tries every address of the host; the time left is shared by those that are left.
async fn dial(settings: &Settings, steps: &mut Steps) -> Result<TcpStream, Broken> {
    let Settings { host, port, timeout: within, .. } = settings;
    let end = monotonic() + *within;
    steps.begin("resolve");
    let found: Vec<SocketAddr> = match timeout_at(end, lookup_host((host.as_str(), *port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(e)) if is_lack(&e) || no_file_left() => {
            return Err(Broken::Lack(format!("looking up {host}: {e}")));
        }
        Ok(Err(e)) => return Err(Broken::Other(format!("looking up {host}: {e}"))),
        Err(_) => return Err(Broken::Other(format!("looking up {host}: no answer for {within:?}"))),
    };
    let mut said = format!("looking up {host}: no address");
    if !found.is_empty() {
        steps.done(|| {
            let found: Vec<String> = found.iter().map(|address| address.ip().to_string()).collect();
            format!("{host}: {}", found.join(", "))
        });
        steps.begin("connect");
    }
    for (n, address) in found.iter().enumerate() {
        let left = end.saturating_duration_since(monotonic());
        let share = left / u32::try_from(found.len() - n).unwrap_or(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Nagle's algorithm against delayed ACK costs 40 ms a message.
                tcp.set_nodelay(true)?;
                steps.done(|| address.to_string());
                return Ok(tcp);
            }
            // The next address would meet the same.
            Ok(Err(e)) if is_lack(&e) => {
                return Err(Broken::Lack(format!("connecting to {address}: {e}")));
            }
            Ok(Err(e)) => said = format!("connecting to {address}: {e}"),
            Err(_) => said = format!("connecting to {address}: no answer for {share:?}"),
        }
    }
    Err(Broken::Other(said))
}

/// Whether a socket failed for want of something that this machine has too little of: files of the process or of the
/// system, or memory.
fn is_lack(error: &io::Error) -> bool {
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    error.raw_os_error().is_some_and(|number| lacks.iter().any(|lack| lack.raw_os_error() == number))
}

/// A look-up that had no file says no more than "try again": so it is tried whether one is left.
fn no_file_left() -> bool {
    std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_err_and(|error| is_lack(&error))
}

/// EHLO, or HELO where the server knows no other.
async fn greet(line: &mut Line, settings: &Settings, steps: &mut Steps) -> Result<Offered, Failure> {
    steps.begin("ehlo");
    hail(line, "EHLO ", &settings.helo).await?;
    let kept = steps.are_kept();
    let read = |code: u16, lines: &[u8]| {
        let keywords = if kept { keywords(lines) } else { String::new() };
        (reply::answer(code, lines), Offered::read(lines), keywords)
    };
    let (answer, offered, keywords) = line.read_reply(settings.timeout, read).await?;
    if !matches!(answer.code, 500 | 502 | 504) {
        expect(answer, 250)?;
        steps.done(|| {
            let keywords = if keywords.is_empty() { "no keywords".to_owned() } else { keywords };
            keywords + without_tls(settings.tls, offered.starttls)
        });
        return Ok(offered);
    }
    hail(line, "HELO ", &settings.helo).await?;
    expect(line.reply().await?, 250)?;
    steps.done(|| "it knows HELO alone, so no keywords".to_owned());
    Ok(Offered::default())
}

/// What is to be said of a line that stays plain.
fn without_tls(tls: Tls, offered: bool) -> &'static str {
    match (tls, offered) {
        (Tls::Off, true) => "; STARTTLS is offered and not used, this line is without TLS",
        (Tls::Off, false) => "; STARTTLS is not offered, this line is without TLS",
        (Tls::StartTls | Tls::Implicit, _) => "",
    }
}

/// What a reply to EHLO offers, in its own words.
fn keywords(lines: &[u8]) -> String {
    let texts = reply::texts(lines).skip(1).map(|text| String::from_utf8_lossy(text).trim().to_owned());
    texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
}

async fn hail(line: &mut Line, verb: &str, name: &str) -> Result<(), Broken> {
    line.out.extend_from_slice(verb.as_bytes());
    line.out.extend_from_slice(name.as_bytes());
    line.out.extend_from_slice(b"\r\n");
    line.ask().await
}

/// STARTTLS, required. What was said before it counts no more, and what stands behind its reply is an attack: it was
/// put there by someone who can write to the plain line.
async fn start_tls(
    mut line: Line,
    offered: Offered,
    (settings, tls): (&Settings, &Connector),
    steps: &mut Steps,
) -> Result<Line, Failure> {
    steps.begin("starttls");
    if !offered.starttls {
        return Err(Broken::Other(
            "the server offers no STARTTLS and nothing is sent without; for a server without TLS set tls = \"off\"".into(),
        )
        .into());
    }
    line.out.extend_from_slice(b"STARTTLS\r\n");
    line.ask().await?;
    let answer = expect(line.reply().await?, 220)?;
    if !line.caught_up() {
        return Err(
            Broken::Other("plain text behind the reply to STARTTLS: somebody is on the line".into()).into()
        );
    }
    steps.done(|| answer.to_string());
    match line.stream {
        Stream::Plain(tcp) => {
            Ok(Line::new(secure(settings, tls, tcp, steps).await?, settings.timeout, line.watch))
        }
        Stream::Tls(_) => Ok(line),
    }
}

async fn secure(
    settings: &Settings,
    tls: &Connector,
    tcp: TcpStream,
    steps: &mut Steps,
) -> Result<Stream, Broken> {
    steps.begin("tls");
    let handshake = tls.handshake(tcp, &settings.host, settings.ca_file.as_ref());
    let done = timeout(settings.timeout, handshake).await.map_err(|_| Broken::Hung(settings.timeout))??;
    steps.done(|| super::tls::describe(&done));
    Ok(Stream::Tls(Box::new(done)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_told_from_what_the_other_side_does() {
        for lack in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS] {
            assert!(is_lack(&lack.into()), "{lack}");
        }
        for other in [Errno::CONNREFUSED, Errno::NETUNREACH, Errno::TIMEDOUT, Errno::ADDRNOTAVAIL] {
            assert!(!is_lack(&other.into()), "{other}");
        }
        assert!(!is_lack(&io::ErrorKind::ConnectionReset.into()));
        assert!(!no_file_left());
    }
}
