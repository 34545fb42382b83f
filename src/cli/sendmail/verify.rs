//! `sendmail -bv`: asks the relay whether it would take these recipients, and leaves before any content.

use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::TcpStream;

use super::{EX_NOUSER, EX_TEMPFAIL, REPLY_MAX, Refusal, tell};
use crate::address::Address;
use crate::journal::shown;
use crate::mail::ReversePath;

/// One line of a reply (RFC 5321 section 4.5.3.1.5 says 512), and the lines of one reply.
const LINE_OCTETS_MAX: u64 = 4096;
const LINES_MAX: usize = 100;
/// Another transaction has room for it (RFC 5321 section 4.5.3.1.10).
const TOO_MANY: &[u8] = b"452 4.5.3";

/// Says on `out` of each recipient whether it would be taken. `Err` where one would not, or nobody answers.
pub(super) fn verify(
    (host, port): (&str, u16),
    sender: &ReversePath,
    recipients: &[Address],
    out: &mut impl Write,
) -> Result<(), Refusal> {
    let lost = |error: io::Error| Refusal::new(EX_TEMPFAIL, format!("no relay at {host}:{port}: {error}"));
    let replies = ask(host, port, sender, recipients).map_err(lost)?;
    let (mut temporary, mut lasting) = (0_usize, 0_usize);
    for (address, reply) in recipients.iter().zip(&replies) {
        match reply.first() {
            Some(b'2') => {}
            Some(b'5') => lasting += 1,
            Some(_) | None => temporary += 1,
        }
        let reply = String::from_utf8_lossy(reply);
        if let Err(error) = writeln!(out, "<{}>: {}", shown(address.wire()), shown(&reply)) {
            tell(&format!("the answer cannot be written: {error}"));
        }
    }
    match (lasting, temporary) {
        (0, 0) => Ok(()),
        (0, n) => {
            Err(Refusal::new(EX_TEMPFAIL, format!("{n} of {} {} not taken now", recipients.len(), are(n))))
        }
        (n, _) => Err(Refusal::new(EX_NOUSER, format!("{n} of {} {} refused", recipients.len(), are(n)))),
    }
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// The last line of the reply to each RCPT; the reply to what went before it, where that is a refusal.
fn ask(host: &str, port: u16, sender: &ReversePath, recipients: &[Address]) -> io::Result<Vec<Vec<u8>>> {
    let stream = TcpStream::connect((host, port))?;
    stream.set_read_timeout(Some(REPLY_MAX))?;
    stream.set_write_timeout(Some(REPLY_MAX))?;
    let mut line = BufReader::new(stream);
    let utf8 = recipients.iter().any(Address::needs_smtputf8)
        || matches!(sender, ReversePath::Mailbox(address) if address.needs_smtputf8());
    let utf8 = if utf8 { " SMTPUTF8" } else { "" };
    let mail = format!("MAIL FROM:<{}>{utf8}", sender.wire());
    for command in [None, Some("EHLO localhost"), Some(&*mail)] {
        let told = exchange(&mut line, command)?;
        if !told.starts_with(b"2") {
            return Ok(vec![told; recipients.len()]);
        }
    }
    let told = recipients.iter().map(|to| {
        let rcpt = format!("RCPT TO:<{}>", to.wire());
        let told = exchange(&mut line, Some(&rcpt))?;
        if !told.starts_with(TOO_MANY) {
            return Ok(told);
        }
        exchange(&mut line, Some("RSET"))?;
        exchange(&mut line, Some(&mail))?;
        exchange(&mut line, Some(&rcpt))
    });
    let told = told.collect::<io::Result<Vec<_>>>()?;
    // All is said; how it takes leave changes nothing.
    let _ = exchange(&mut line, Some("QUIT"));
    Ok(told)
}

/// Sends a command, where there is one, and reads the last line of the reply.
fn exchange(line: &mut BufReader<TcpStream>, command: Option<&str>) -> io::Result<Vec<u8>> {
    if let Some(command) = command {
        line.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
    }
    for _ in 0..LINES_MAX {
        let mut text = Vec::new();
        line.by_ref().take(LINE_OCTETS_MAX).read_until(b'\n', &mut text)?;
        if !text.ends_with(b"\n") {
            return Err(io::Error::other("the connection was closed, or it does not speak SMTP"));
        }
        if text.get(3) != Some(&b'-') {
            return Ok(text.trim_ascii_end().to_vec());
        }
    }
    Err(io::Error::other("its reply does not end"))
}
