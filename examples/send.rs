//! Hands one mail to a relay by SMTP, with nothing but the standard library: what an app's mail library does.
//!
//! ```text
//! cargo run --example send -- [FROM] [TO] [HOST:PORT]
//! ```

#![allow(clippy::print_stdout, reason = "a program that shows a dialogue")]

use std::io::{BufRead, BufReader, Error, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The longest that one reply may take.
const REPLY_MAX: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let (from, to) = (next("app@example.com"), next("somebody@example.com"));
    let mut relay = Relay::connect(&next("127.0.0.1:2525"))?;

    relay.say("EHLO localhost", 250)?;
    relay.say(&format!("MAIL FROM:<{from}>"), 250)?;
    relay.say(&format!("RCPT TO:<{to}>"), 250)?;
    relay.say("DATA", 354)?;
    // The relay adds Date and Message-ID. A line that begins with a dot would need another one before it.
    let mail = format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: Hello\r\n\r\nSent by examples/send.rs\r\n.");
    // From this 250 on the mail is the relay's: it is on its disk.
    relay.say(&mail, 250)?;
    relay.say("QUIT", 221)
}

struct Relay(BufReader<TcpStream>);

impl Relay {
    fn connect(address: &str) -> Result<Relay> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(REPLY_MAX))?;
        let mut relay = Relay(BufReader::new(stream));
        relay.hear(220)?;
        Ok(relay)
    }

    fn say(&mut self, line: &str, wanted: u16) -> Result<()> {
        println!("C: {}", line.replace("\r\n", "\nC: "));
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.hear(wanted)
    }

    /// Reads one reply; a hyphen behind the code means that more of it follows.
    fn hear(&mut self, wanted: u16) -> Result<()> {
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(Error::other("the relay closed the connection"));
            }
            println!("S: {}", line.trim_end());
            if line.as_bytes().get(3) == Some(&b'-') {
                continue;
            }
            let got = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            return if got == Some(wanted) { Ok(()) } else { Err(Error::other(format!("refused: {line}"))) };
        }
    }
}
