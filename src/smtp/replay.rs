//! A session and the data decoder over plain octets, without a socket or a runtime: what fuzzing calls.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::auth::Granted;
use super::content::Content;
use super::data::{Decoder, Fed};
use super::line::{Frame, Framer, LineFault};
use super::reply::{self, Reply};
use super::session::{Rules, Session, Step};
use super::{AuthMode, BareNewline, ListenerSettings, TlsMode};
use crate::mail::{Budget, MessageId};

/// Memory for the content of a replayed session.
const BUDGET_OCTETS: u64 = 1_000_000;

/// What a client is told that sends `input` and closes: everybody may log in, send and receive, and TLS begins at once
/// and is not spoken.
pub fn session(input: &[u8]) -> String {
    let mut settings = ListenerSettings::at(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 25));
    (settings.auth, settings.tls) = (AuthMode::Optional, TlsMode::StartTls);
    settings.max_message_size_octets = 100_000;
    let rules = Arc::new(Rules { settings, hostname: "relay.test".into(), origin: None });
    let mut said = String::new();
    let mut session = Session::new(rules, IpAddr::V4(Ipv4Addr::LOCALHOST), false);
    let (mut framer, mut rest) = (Framer::default(), input);
    loop {
        let (reply, taken) = match framer.next(rest, session.line_limit(rest)) {
            Frame::More { taken: 0 } => break,
            Frame::More { taken } => {
                rest = &rest[taken..];
                continue;
            }
            Frame::Refused { taken, fault } => (session.refused_line(fault), taken),
            Frame::Line(octets) => {
                let step = session.line(&rest[..octets]);
                let (reply, more) = act(&mut session, step, &rest[octets + 2..], &mut said);
                (reply, octets + 2 + more)
            }
        };
        rest = &rest[taken..];
        let overrun = session.overrun();
        reply.write(&mut said);
        if reply.close {
            return said;
        }
        if let Some(reply) = overrun {
            reply.write(&mut said);
            return said;
        }
    }
    if framer.waits_after_lf(rest) {
        session.refused_line(LineFault::BareLf).write(&mut said);
    }
    said
}

/// Does what a step asks for; gives the reply and how much of `behind` it took.
fn act(session: &mut Session, step: Step, behind: &[u8], said: &mut String) -> (Reply, usize) {
    match step {
        Step::Say(reply) => (reply, 0),
        Step::StartTls(reply) => {
            session.tls_started();
            (reply, 0)
        }
        Step::Eat(reply, octets) => (reply, behind.len().min(usize::try_from(octets).unwrap_or(usize::MAX))),
        Step::Ask => (session.answered(reply::FINE), 0),
        Step::Login(login) => (session.logged_in(Ok(Granted { username: login.username, stream: None })), 0),
        Step::Receive(reply) => {
            reply.write(said);
            receive(session, behind)
        }
    }
}

fn receive(session: &mut Session, input: &[u8]) -> (Reply, usize) {
    let settings = ListenerSettings::at(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 25));
    let mut content = Content::new(&settings, Budget::new(BUDGET_OCTETS));
    let mut taken = 0;
    while taken < input.len() {
        let Fed { taken: more, ended } = content.feed(&input[taken..]);
        taken += more;
        while let Some((_, _, octets)) = content.piece() {
            content.written(octets.len(), Ok(MessageId::from_number(1)));
        }
        if ended {
            let answer = content.finish().map_or_else(|refusal| refusal.reply, |_| reply::FINE);
            session.received(answer.code == 250);
            return (answer, taken);
        }
    }
    (reply::SLOW, taken)
}

/// Decodes `input` in pieces of so many octets; the content and how much was taken when it came to its end.
pub fn content(input: &[u8], piece_octets: usize, bare_newline: BareNewline) -> Option<(Vec<u8>, usize)> {
    let (mut decoder, mut out, mut taken) = (Decoder::new(bare_newline), Vec::new(), 0);
    for piece in input.chunks(piece_octets.max(1)) {
        let fed = decoder.feed(piece, &mut out);
        taken += fed.taken;
        if fed.ended {
            return Some((out, taken));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_session_is_replayed() {
        let said = session(
            b"EHLO x\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\nDATA\r\nhi\r\n.\r\nBDAT 4\r\nABCDNOOP\r\nQUIT\r\nNOOP\r\n",
        );
        let codes: Vec<_> = said.lines().filter(|l| &l[3..4] == " ").map(|l| &l[..3]).collect();
        assert_eq!(codes, ["250", "250", "250", "354", "250", "502", "250", "221"]);
    }

    proptest! {
        #[test]
        fn any_octets_are_answered(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            session(&input);
            prop_assert_eq!(
                content(&input, 1, BareNewline::Normalize),
                content(&input, usize::MAX, BareNewline::Normalize)
            );
        }
    }
}
