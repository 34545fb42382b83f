//! Any octets as a session: each command has its one reply, in order, and only what is mail is accepted.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use postroad::smtp::line::{AUTH_OCTETS_MAX, COMMAND_OCTETS_MAX};
use postroad::smtp::replay::{Replayed, session};
use postroad::smtp::reply::{self, Reply};
use postroad::smtp::{AuthMode, BareNewline, ListenerSettings, TlsMode};
use postroad_fuzz::{PLANTED, commands, cut, grown, lines, reference, settings};

/// Input of so many octets is cut into single ones too.
const CUT_SMALL_MAX: usize = 8192;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    commands::mutate(data, size, max_size, seed)
});

fuzz_target!(|data: &[u8]| {
    let input = grown(data);
    let open = ListenerSettings {
        auth: AuthMode::Optional,
        tls: TlsMode::StartTls,
        max_message_size_octets: 100_000,
        ..settings(BareNewline::Reject)
    };
    let closed = ListenerSettings {
        allow: Vec::new(),
        strict_envelope: true,
        bare_newline: BareNewline::Normalize,
        ..open.clone()
    };
    for settings in [&open, &closed] {
        let whole = session(settings, [&input[..]]);
        assert_eq!(whole, session(settings, cut(&input, data)));
        if input.len() <= CUT_SMALL_MAX {
            assert_eq!(whole, session(settings, input.chunks(1)));
        }
        follow(&input, settings, &whole);
    }
});

/// A client's side of the session: what was sent and what was said to it have to fit, command by command.
struct Follower<'a> {
    settings: &'a ListenerSettings,
    rest: &'a [u8],
    replies: std::vec::IntoIter<&'a str>,
    accepted: std::slice::Iter<'a, Vec<u8>>,
    greeted: bool,
    tls: bool,
    authenticated: bool,
    /// The next line answers a 334.
    asked: bool,
    mail: bool,
    recipient: bool,
}

fn follow(input: &[u8], settings: &ListenerSettings, whole: &Replayed) {
    let replies = replies(&whole.said);
    let go_aheads = replies.iter().filter(|r| r.starts_with("354")).count();
    assert!(whole.accepted.len() <= go_aheads);
    let last = *replies.last().expect("a client that waits is told at last");
    assert!(["221", "421", "502", "535"].contains(&&last[..3]), "the last reply closes: {last}");

    let mut follower = Follower {
        settings,
        rest: input,
        replies: replies.into_iter(),
        accepted: whole.accepted.iter(),
        greeted: false,
        tls: false,
        authenticated: false,
        asked: false,
        mail: false,
        recipient: false,
    };
    while let Some(said) = follower.replies.next() {
        follower.step(said);
    }
    assert_eq!(follower.accepted.next(), None, "accepted without a 354 and a 250");
}

/// Cuts what was said into replies, and looks at each line.
fn replies(said: &str) -> Vec<&str> {
    let (mut replies, mut begin, mut end) = (Vec::new(), 0, 0);
    for line in said.split_inclusive('\n') {
        end += line.len();
        assert!(line.len() <= 512 && line.ends_with("\r\n"), "{line:?}");
        let text = &line[..line.len() - 2];
        assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line:?}");
        let code = &text[..3];
        assert!(code.bytes().all(|b| b.is_ascii_digit()) && code == &said[begin..begin + 3], "{line:?}");
        if matches!(code.as_bytes()[0], b'4' | b'5') {
            assert!(has_enhanced_code(text), "{line:?}");
        }
        match text.as_bytes()[3] {
            b' ' => {
                replies.push(&said[begin..end]);
                begin = end;
            }
            mark => assert_eq!(mark, b'-', "{line:?}"),
        }
    }
    assert_eq!(begin, said.len(), "the last reply ends");
    replies
}

/// `550 5.1.1 why`
fn has_enhanced_code(line: &str) -> bool {
    let (code, text) = line[4..].split_once(' ').unwrap_or_default();
    let parts: Vec<&str> = code.split('.').collect();
    let digits = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    parts.len() == 3 && parts.iter().all(digits) && parts[0] == &line[..1] && !text.is_empty()
}

fn is(said: &str, reply: &Reply) -> bool {
    said == reply.wire()
}

impl<'a> Follower<'a> {
    /// `said` answers what comes next.
    fn step(&mut self, said: &str) {
        if is(said, &reply::TOO_MANY_ERRORS) {
            return self.end();
        }
        let Some(line) = self.line() else {
            if is(said, &reply::IDLE) {
                return self.end();
            }
            assert!(is(said, &reply::COMMAND_BARE_LF) && self.rest.ends_with(b"\n"), "{said}");
            self.rest = &[];
            return;
        };
        let asked = std::mem::take(&mut self.asked);
        if let Some(refusal) = stray(line, asked) {
            assert!(is(said, &refusal), "{said}");
        } else if asked {
            self.login(said);
        } else {
            self.command(line, said);
        }
    }

    /// Takes the next line, without its CRLF.
    fn line(&mut self) -> Option<&'a [u8]> {
        let (line, end) = lines(self.rest).next()?;
        self.rest = &self.rest[end..];
        Some(line)
    }

    /// Nothing is said any more.
    fn end(&mut self) {
        assert_eq!(self.replies.next(), None);
    }

    fn command(&mut self, line: &[u8], said: &str) {
        let line = line.trim_ascii();
        let verb: String = line.iter().take_while(|b| !b" \t".contains(b)).map(|b| char::from(*b)).collect();
        let verb = verb.to_ascii_uppercase();
        let code = &said[..3];
        match code {
            "354" => assert_eq!(verb, "DATA"),
            "334" | "235" => assert_eq!(verb, "AUTH"),
            "221" => assert_eq!(verb, "QUIT"),
            "220" => assert_eq!(verb, "STARTTLS"),
            "214" => assert_eq!(verb, "HELP"),
            "252" => assert_eq!(verb, "VRFY"),
            "250" => assert!(["EHLO", "HELO", "MAIL", "RCPT", "RSET", "NOOP"].contains(&&verb[..])),
            // 421 answers no command: it would be one that was not looked at.
            _ => assert!(matches!(code.as_bytes()[0], b'4' | b'5') && code != "421", "{said}"),
        }
        self.assert_order(said);
        match (&verb[..], code) {
            ("EHLO" | "HELO", "250") => {
                self.greeted = true;
                (self.mail, self.recipient) = (false, false);
            }
            ("RSET", "250") => (self.mail, self.recipient) = (false, false),
            ("MAIL", "250") => {
                assert!(self.greeted && !self.mail);
                self.mail = true;
            }
            ("RCPT", "250") => {
                assert!(self.mail);
                assert!(self.authenticated || !self.settings.allow.is_empty(), "relayed for anybody");
                self.recipient = true;
            }
            ("STARTTLS", "220") => {
                assert!(!self.tls);
                // RFC 3207 section 4.2: all from before is forgotten.
                self.tls = true;
                (self.greeted, self.authenticated) = (false, false);
                (self.mail, self.recipient) = (false, false);
            }
            ("AUTH", _) => self.login(said),
            ("QUIT", "221") => self.end(),
            ("DATA", "354") => self.data(),
            ("BDAT", _) if is(said, &reply::NO_BDAT) || tells_size(&line[4..]) => self.eat(&line[4..]),
            _ => {}
        }
        if is(said, &reply::HTTP) {
            self.end();
        }
    }

    /// What is refused for its place is out of place.
    fn assert_order(&self, said: &str) {
        for (refusal, so) in [
            (reply::HELLO_FIRST, !self.greeted),
            (reply::TLS_TWICE, self.tls),
            (reply::AUTH_TWICE, self.authenticated),
            (reply::AUTH_IN_MAIL, self.mail),
            (reply::MAIL_TWICE, self.mail),
            (reply::MAIL_FIRST, !self.mail),
            (reply::NO_RECIPIENT, self.mail && !self.recipient),
            (reply::RELAY_DENIED, !self.authenticated && self.settings.allow.is_empty()),
        ] {
            assert!(so || !is(said, &refusal), "{said}");
        }
    }

    fn login(&mut self, said: &str) {
        match &said[..3] {
            "334" => self.asked = true,
            "235" => {
                assert!(self.greeted && !self.authenticated && !self.mail);
                self.authenticated = true;
            }
            code => assert!(code.starts_with('5'), "{said}"),
        }
        if is(said, &reply::LOGIN_WRONG_LAST) {
            self.end();
        }
    }

    fn data(&mut self) {
        assert!(self.mail && self.recipient);
        (self.mail, self.recipient) = (false, false);
        let said = self.replies.next().expect("content is answered");
        let Some(read) = reference::read(self.rest, self.settings) else {
            assert!(is(said, &reply::SLOW), "{said}");
            return self.end();
        };
        self.rest = &self.rest[read.taken..];
        match read.result {
            Ok(content) => {
                assert!(is(said, &reply::FINE), "{said}");
                assert_eq!(self.accepted.next(), Some(&content));
                assert!(!PLANTED || !self.tls, "planted");
            }
            Err(refusal) => assert!(is(said, &refusal), "{said}"),
        }
    }

    /// BDAT is refused, and what it announced is no command.
    fn eat(&mut self, argument: &[u8]) {
        let digits: Vec<u8> =
            argument.trim_ascii_start().iter().copied().take_while(u8::is_ascii_digit).collect();
        let octets = String::from_utf8_lossy(&digits).parse().unwrap_or(usize::MAX);
        if octets > self.rest.len() {
            let said = self.replies.next();
            assert!(said.is_some_and(|said| is(said, &reply::SLOW)), "{said:?}");
            return self.end();
        }
        self.rest = &self.rest[octets..];
    }
}

/// Whether the octets behind a BDAT can be told, be the rest of its line right or wrong.
fn tells_size(argument: &[u8]) -> bool {
    let size = argument.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    !size.is_empty() && size.iter().all(u8::is_ascii_digit)
}

/// How a line is refused that is no command, whatever it says.
fn stray(line: &[u8], asked: bool) -> Option<Reply> {
    let auth = asked || line.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "));
    if line.len() + 2 > if auth { AUTH_OCTETS_MAX } else { COMMAND_OCTETS_MAX } {
        Some(reply::LINE_TOO_LONG)
    } else if line.contains(&b'\n') {
        Some(reply::COMMAND_BARE_LF)
    } else if line.contains(&b'\r') || line.contains(&0) {
        Some(reply::COMMAND_STRAY)
    } else {
        None
    }
}
