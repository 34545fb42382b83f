//! A session, and the content of a message, over plain octets without a socket or a runtime: what fuzzing calls.
//!
//! Octets come in pieces, as segments cut them. Where the cuts are may change nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;

use super::ListenerSettings;
use super::auth::{Denied, Granted};
use super::content::Content;
use super::data::Fed;
use super::line::{Frame, Framer, LineFault};
use super::reply::{self, Reply};
use super::sasl::Login;
use super::session::{Question, Rules, Session, Step};
use crate::mail::{BodyFacts, Budget, MessageId};

/// Memory for one message: more than any takes, since where it is spent depends on the cuts.
const BUDGET_OCTETS: u64 = 4_000_000;
/// The local part of a recipient that is refused, and a password that is wrong.
const REFUSED: &str = "no";

/// What came of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replayed {
    /// All that the client was told, but for the 220 at the start.
    pub said: String,
    /// The content of each message that was accepted.
    pub accepted: Vec<Vec<u8>>,
}

/// Content that came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// So many octets are the content and its end; what is behind them is the next command.
    pub taken: usize,
    /// The content and what was seen of it, or the reply that refuses it.
    pub result: Result<(Vec<u8>, BodyFacts), Reply>,
}

/// What comes of a client on loopback that sends these pieces and then waits. A recipient `no@…` is refused, and the
/// password `no`; else every login is right and every message taken. TLS begins at once and is not spoken.
pub fn session<'a>(settings: &ListenerSettings, pieces: impl IntoIterator<Item = &'a [u8]>) -> Replayed {
    let mut replay = Replay::new(settings);
    for piece in pieces {
        replay.buffer.extend_from_slice(piece);
        while !replay.over && replay.turn() {}
        if replay.over {
            return replay.out;
        }
    }
    replay.wait();
    replay.out
}

/// Reads one message's content from these pieces; `None` where its end is not among them.
pub fn content<'a>(
    settings: &ListenerSettings,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Option<Received> {
    let (mut receiving, mut taken) = (Receiving::new(settings), 0);
    for mut piece in pieces {
        while !piece.is_empty() {
            let fed = receiving.feed(piece);
            taken += fed.taken;
            piece = &piece[fed.taken..];
            if fed.ended {
                return Some(Received { taken, result: receiving.finish() });
            }
        }
    }
    None
}

/// A connection without its stream.
struct Replay<'a> {
    settings: &'a ListenerSettings,
    session: Session,
    framer: Framer,
    /// What arrived and is not used up.
    buffer: Vec<u8>,
    /// The message that is being received.
    receiving: Option<Receiving>,
    /// Octets that belong to no command.
    skip: u64,
    out: Replayed,
    /// The last reply closed the connection.
    over: bool,
}

impl<'a> Replay<'a> {
    fn new(settings: &'a ListenerSettings) -> Self {
        let rules =
            Rules { settings: settings.clone(), hostname: "relay.test".into(), origin: None, dsn: true };
        Replay {
            settings,
            session: Session::new(Arc::new(rules), IpAddr::V4(Ipv4Addr::LOCALHOST), false),
            framer: Framer::default(),
            buffer: Vec::new(),
            receiving: None,
            skip: 0,
            out: Replayed::default(),
            over: false,
        }
    }

    /// Uses up a command or a part of one; `false`: more has to arrive first.
    fn turn(&mut self) -> bool {
        if let Some(receiving) = self.receiving.take() {
            self.receive(receiving)
        } else if self.skip > 0 {
            self.eat()
        } else {
            self.command()
        }
    }

    fn command(&mut self) -> bool {
        let limit = self.session.line_limit(&self.buffer);
        match self.framer.next(&self.buffer, limit) {
            Frame::More { taken } => {
                self.buffer.drain(..taken);
                return false;
            }
            Frame::Refused { taken, fault } => {
                self.buffer.drain(..taken);
                self.refuse(fault);
            }
            Frame::Line(octets) => {
                let step = self.session.line(&self.buffer[..octets]);
                self.buffer.drain(..octets + 2);
                self.step(step);
            }
        }
        true
    }

    fn step(&mut self, step: Step) {
        let reply = match step {
            Step::Say(reply) => reply,
            Step::StartTls(reply) => {
                self.session.tls_started();
                reply
            }
            Step::Ask => self.session.answered(answer(&self.session)),
            Step::Login(login) => self.session.logged_in(check(login)),
            Step::Receive(reply) => {
                self.receiving = Some(Receiving::new(self.settings));
                return self.say(&reply);
            }
            Step::Eat(reply, octets) if octets > 0 => {
                self.skip = octets;
                return self.say(&reply);
            }
            Step::Eat(reply, _) => reply,
        };
        self.say(&reply);
        self.overrun();
    }

    fn receive(&mut self, mut receiving: Receiving) -> bool {
        let fed = receiving.feed(&self.buffer);
        self.buffer.drain(..fed.taken);
        if !fed.ended {
            self.receiving = Some(receiving);
            return !self.buffer.is_empty();
        }
        let reply = match receiving.finish() {
            Ok((content, _)) => {
                self.out.accepted.push(content);
                reply::FINE
            }
            Err(reply) => reply,
        };
        self.session.received(reply.positive());
        self.say(&reply);
        self.overrun();
        true
    }

    fn eat(&mut self) -> bool {
        let here = self.buffer.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.buffer.drain(..here);
        self.skip -= here as u64;
        if self.skip == 0 {
            self.overrun();
        }
        self.skip == 0
    }

    /// Nothing comes any more, and the time is up.
    fn wait(&mut self) {
        if self.receiving.is_some() || self.skip > 0 {
            return self.say(&reply::SLOW);
        }
        if self.framer.waits_after_lf(&self.buffer) {
            self.refuse(LineFault::BareLf);
        }
        self.say(&reply::IDLE);
    }

    fn refuse(&mut self, fault: LineFault) {
        let reply = self.session.refused_line(fault);
        self.say(&reply);
        self.overrun();
    }

    fn overrun(&mut self) {
        if let Some(reply) = self.session.overrun() {
            self.say(&reply);
        }
    }

    fn say(&mut self, reply: &Reply) {
        if !self.over {
            reply.write(&mut self.out.said);
            self.over = reply.close;
        }
    }
}

/// In place of the Gatekeeper's.
fn answer(session: &Session) -> Reply {
    match session.question() {
        Some(Question::Recipient(address)) if address.local() == REFUSED => {
            Reply::new(550, (5, 1, 1), "no such recipient")
        }
        Some(_) => reply::FINE,
        None => reply::UNDECIDED,
    }
}

/// In place of the Authenticator's.
fn check(login: Login) -> Result<Granted, Denied> {
    if login.password.matches(REFUSED.as_bytes()) {
        return Err(Denied::Wrong);
    }
    Ok(Granted { username: login.username, stream: None, esp: None, terms: Default::default() })
}

/// Content while it arrives, and what of it would be on disk.
struct Receiving {
    content: Content,
    written: Vec<u8>,
}

impl Receiving {
    fn new(settings: &ListenerSettings) -> Self {
        Receiving { content: Content::new(settings, Budget::new(BUDGET_OCTETS)), written: Vec::new() }
    }

    fn feed(&mut self, input: &[u8]) -> Fed {
        let fed = self.content.feed(input);
        while let Some((_, _, piece)) = self.content.piece() {
            self.write(&piece);
        }
        if fed.ended
            && let Some((_, _, piece)) = self.content.last_piece()
        {
            self.write(&piece);
        }
        fed
    }

    fn write(&mut self, piece: &Bytes) {
        self.written.extend_from_slice(piece);
        self.content.written(piece.len(), Ok(MessageId::from_number(1)));
    }

    fn finish(self) -> Result<(Vec<u8>, BodyFacts), Reply> {
        let body = self.content.finish().map_err(|refusal| refusal.reply)?;
        Ok(([&body.head[..], &self.written].concat(), body.facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::testing::{pieces, settings};
    use crate::smtp::{AuthMode, BareNewline, TlsMode};
    use proptest::prelude::*;

    fn codes(said: &str) -> Vec<&str> {
        said.lines().filter(|l| &l[3..4] == " ").map(|l| &l[..3]).collect()
    }

    #[test]
    fn a_session_is_replayed() {
        let input =
            b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<no@e.f>\r\nRCPT TO:<d@e.f>\r\nDATA\r\n..hi\r\n.\r\n\
            BDAT 4\r\nABCDNOOP\r\nQUIT\r\nNOOP\r\n";
        let replayed = session(&settings(), [&input[..]]);
        assert_eq!(codes(&replayed.said), ["250", "250", "550", "250", "354", "250", "502", "250", "221"]);
        assert_eq!(replayed.accepted, [b".hi\r\n"]);
    }

    #[test]
    fn logins_and_tls_are_replayed() {
        let settings = ListenerSettings { auth: AuthMode::Optional, tls: TlsMode::StartTls, ..settings() };
        // user, no; then user, yes.
        let input =
            b"EHLO x\r\nAUTH PLAIN AHVzZXIAbm8=\r\nAUTH PLAIN\r\nAHVzZXIAeWVz\r\nSTARTTLS\r\nDATA\r\nx\n";
        let replayed = session(&settings, [&input[..]]);
        assert_eq!(codes(&replayed.said), ["250", "535", "334", "235", "220", "503", "500", "421"]);
    }

    proptest! {
        #[test]
        fn any_octets_are_answered_wherever_they_are_cut(
            input in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(1usize..9, 1..20),
        ) {
            let settings = ListenerSettings { bare_newline: BareNewline::Normalize, ..settings() };
            prop_assert_eq!(session(&settings, [&input[..]]), session(&settings, pieces(&input, &cuts)));
            prop_assert_eq!(content(&settings, [&input[..]]), content(&settings, pieces(&input, &cuts)));
        }
    }
}
