//! The grammar of commands: a line, framed and free of stray octets, becomes a [`Command`] or a refusal.

use super::path::{Path, PathError, take_path};
use super::reply::{self, Reply};
use crate::address::{AddressError, Grammar};
use crate::mail::BodyKind;
use crate::mail::notify::{Ask, Notify, Return, envelope_id, original};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// EHLO and the client's name.
    Ehlo(&'a [u8]),
    /// HELO and the client's name.
    Helo(&'a [u8]),
    /// MAIL
    Mail(Mail),
    /// RCPT and what is asked for it.
    Rcpt(Path, Ask),
    /// DATA
    Data,
    /// RSET
    Rset,
    /// NOOP, with or without an argument.
    Noop,
    /// QUIT
    Quit,
    /// VRFY
    Vrfy,
    /// EXPN
    Expn,
    /// HELP
    Help,
    /// STARTTLS
    StartTls,
    /// AUTH: mechanism and initial response.
    Auth(&'a str, Option<&'a str>),
    /// BDAT.
    Bdat {
        /// The octets that follow.
        octets: u64,
        /// Whether the rest of the line was well formed.
        known: bool,
    },
}

/// MAIL with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The reverse path.
    pub path: Path,
    /// SIZE=
    pub announced_octets: Option<u64>,
    /// BODY=
    pub body: BodyKind,
    /// SMTPUTF8
    pub smtputf8: bool,
    /// RET=
    pub ret: Option<Return>,
    /// ENVID=
    pub envelope_id: Option<String>,
}

/// Verbs of SMTP and its extensions that are not offered here.
const OFF: [&[u8]; 8] = [b"ETRN", b"TURN", b"ATRN", b"SEND", b"SOML", b"SAML", b"BURL", b"XCLIENT"];
/// Verbs of HTTP: something is made to speak to the wrong port (STANDARDS 1.4).
const HTTP: [&[u8]; 9] =
    [b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE"];
/// Parameters of MAIL.
const OF_MAIL: [&str; 6] = ["SIZE", "BODY", "SMTPUTF8", "AUTH", "RET", "ENVID"];
/// Parameters of RCPT.
const OF_RCPT: [&str; 2] = ["NOTIFY", "ORCPT"];
/// RFC 1870 section 4: a size has at most 20 digits.
const SIZE_DIGITS_MAX: usize = 20;

impl<'a> Command<'a> {
    /// Parses a line without its CRLF.
    pub fn parse(line: &'a [u8], grammar: Grammar) -> Result<Self, Reply> {
        let line = line.trim_ascii_end();
        let end = memchr::memchr2(b' ', b'\t', line).unwrap_or(line.len());
        let (verb, rest) = line.split_at(end);
        let argument = rest.trim_ascii();
        let is = |word: &[u8]| verb.eq_ignore_ascii_case(word);
        let alone = |command| if argument.is_empty() { Ok(command) } else { Err(reply::NO_ARGUMENT) };
        if is(b"MAIL") {
            mail(after(argument, b"FROM:").ok_or(reply::BAD_MAIL)?, grammar).map(Command::Mail)
        } else if is(b"RCPT") {
            rcpt(after(argument, b"TO:").ok_or(reply::BAD_RCPT)?, grammar)
                .map(|(path, ask)| Command::Rcpt(path, ask))
        } else if is(b"DATA") {
            alone(Command::Data)
        } else if is(b"EHLO") || is(b"HELO") {
            match argument {
                [] => Err(reply::NO_NAME),
                name if is(b"EHLO") => Ok(Command::Ehlo(name)),
                name => Ok(Command::Helo(name)),
            }
        } else if is(b"RSET") {
            alone(Command::Rset)
        } else if is(b"QUIT") {
            alone(Command::Quit)
        } else if is(b"NOOP") {
            Ok(Command::Noop)
        } else if is(b"AUTH") {
            auth(argument)
        } else if is(b"STARTTLS") {
            alone(Command::StartTls)
        } else {
            Self::rare(verb, argument)
        }
    }

    fn rare(verb: &[u8], argument: &'a [u8]) -> Result<Self, Reply> {
        let is = |word: &[u8]| verb.eq_ignore_ascii_case(word);
        if verb.is_empty() && !argument.is_empty() {
            Err(reply::LEADING_BLANK)
        } else if verb.is_empty() {
            Err(reply::EMPTY_LINE)
        } else if is(b"VRFY") {
            Ok(Command::Vrfy)
        } else if is(b"EXPN") {
            Ok(Command::Expn)
        } else if is(b"HELP") {
            Ok(Command::Help)
        } else if is(b"BDAT") {
            bdat(argument)
        } else if OFF.iter().any(|word| is(word)) {
            Err(reply::NOT_OFFERED)
        } else if HTTP.iter().any(|word| is(word)) {
            Err(reply::HTTP)
        } else {
            Err(reply::UNKNOWN_VERB)
        }
    }
}

fn after<'a>(argument: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (front, rest) = argument.split_at_checked(word.len())?;
    front.eq_ignore_ascii_case(word).then_some(rest)
}

fn mail(argument: &[u8], grammar: Grammar) -> Result<Mail, Reply> {
    let text = std::str::from_utf8(argument).map_err(|_| reply::NOT_UTF8)?;
    let (path, parameters) = take_path(text, grammar).map_err(|e| refused(e, 7))?;
    let mut mail = Mail {
        path,
        announced_octets: None,
        body: BodyKind::default(),
        smtputf8: false,
        ret: None,
        envelope_id: None,
    };
    let mut seen = [false; 6];
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (parameter, None),
        };
        let which = mail_parameter(&mut mail, name, value)?;
        if std::mem::replace(&mut seen[which], true) {
            return Err(reply::PARAMETER_TWICE);
        }
    }
    Ok(mail)
}

/// Puts one parameter into `mail`; gives its place in the list of known ones.
fn mail_parameter(mail: &mut Mail, name: &str, value: Option<&str>) -> Result<usize, Reply> {
    if name.eq_ignore_ascii_case("SIZE") {
        mail.announced_octets = Some(size(value)?);
        Ok(0)
    } else if name.eq_ignore_ascii_case("BODY") {
        mail.body = match value {
            Some(v) if v.eq_ignore_ascii_case("7BIT") => BodyKind::SevenBit,
            Some(v) if v.eq_ignore_ascii_case("8BITMIME") => BodyKind::EightBit,
            _ => return Err(reply::BAD_BODY),
        };
        Ok(1)
    } else if name.eq_ignore_ascii_case("SMTPUTF8") {
        mail.smtputf8 = true;
        if value.is_some() { Err(reply::BAD_UTF8) } else { Ok(2) }
    } else if name.eq_ignore_ascii_case("AUTH") {
        // RFC 4954 section 5: another server's word for who sent it; taken and not trusted.
        if value.is_some_and(|v| !v.is_empty()) { Ok(3) } else { Err(reply::BAD_AUTH_PARAMETER) }
    } else if name.eq_ignore_ascii_case("RET") {
        mail.ret = Some(value.and_then(Return::parse).ok_or(reply::BAD_RET)?);
        Ok(4)
    } else if name.eq_ignore_ascii_case("ENVID") {
        mail.envelope_id = Some(value.and_then(envelope_id).ok_or(reply::BAD_ENVID)?);
        Ok(5)
    } else {
        Err(unknown_parameter(name, &OF_RCPT, "RCPT TO"))
    }
}

fn size(value: Option<&str>) -> Result<u64, Reply> {
    let digits = value
        .filter(|v| !v.is_empty() && v.len() <= SIZE_DIGITS_MAX && v.bytes().all(|b| b.is_ascii_digit()))
        .ok_or(reply::BAD_SIZE)?;
    // Twenty digits may exceed what can be counted: then it is too large in any case.
    Ok(digits.parse().unwrap_or(u64::MAX))
}

fn rcpt(argument: &[u8], grammar: Grammar) -> Result<(Path, Ask), Reply> {
    let text = std::str::from_utf8(argument).map_err(|_| reply::NOT_UTF8)?;
    let (path, parameters) = take_path(text, grammar).map_err(|e| refused(e, 3))?;
    let mut ask = Ask::default();
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (parameter, None),
        };
        let twice = if name.eq_ignore_ascii_case("NOTIFY") {
            ask.notify.replace(value.and_then(Notify::parse).ok_or(reply::BAD_NOTIFY)?).is_some()
        } else if name.eq_ignore_ascii_case("ORCPT") {
            ask.original.replace(value.and_then(original).ok_or(reply::BAD_ORCPT)?).is_some()
        } else {
            return Err(unknown_parameter(name, &OF_MAIL, "MAIL FROM"));
        };
        if twice {
            return Err(reply::PARAMETER_TWICE);
        }
    }
    Ok((path, ask))
}

/// RFC 5321 section 4.1.1.11. A reply is ASCII (section 4.2), whatever the name was. `others` are those that the other
/// command takes.
fn unknown_parameter(name: &str, others: &[&str], other: &str) -> Reply {
    if let Some(known) = others.iter().find(|known| name.eq_ignore_ascii_case(known)) {
        return Reply::told(555, (5, 5, 4), format!("{known} belongs to {other}; write it there"));
    }
    let name: String = name.chars().take(40).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    Reply::told(555, (5, 5, 4), format!("parameter {name} is not offered here; use only what EHLO lists"))
}

/// `detail`: 7 for a sender's address, 3 for a recipient's (RFC 3463 section 3.2).
fn refused(error: PathError, detail: u16) -> Reply {
    let code = match error {
        PathError::Shape
        | PathError::Route
        | PathError::Address(AddressError::Empty | AddressError::LooseDomain) => 501,
        PathError::Address(
            AddressError::TooLong
            | AddressError::NoDomain
            | AddressError::BadLocalPart
            | AddressError::BadDomain,
        ) => 553,
    };
    let whose = if detail == 7 { "sender" } else { "recipient" };
    Reply::told(code, (5, 1, detail), format!("bad {whose} address: {error}"))
}

fn auth(argument: &[u8]) -> Result<Command<'_>, Reply> {
    let text = std::str::from_utf8(argument).map_err(|_| reply::BAD_BASE64)?;
    let mut words = text.split_ascii_whitespace();
    let mechanism = words.next().ok_or(reply::AUTH_HOW)?;
    let initial = words.next();
    if words.next().is_some() { Err(reply::BAD_BASE64) } else { Ok(Command::Auth(mechanism, initial)) }
}

/// Octets that can be told are eaten, whatever else is wrong with the line: what follows them is the next command.
fn bdat(argument: &[u8]) -> Result<Command<'_>, Reply> {
    let mut words = argument.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    let octets = words
        .next()
        .filter(|w| w.iter().all(u8::is_ascii_digit))
        .and_then(|w| std::str::from_utf8(w).ok())
        // More than can be counted is more than will ever come.
        .map(|w| w.parse().unwrap_or(u64::MAX))
        .ok_or(reply::BAD_BDAT)?;
    let known = match (words.next(), words.next()) {
        (None, _) => true,
        (Some(last), None) => last.eq_ignore_ascii_case(b"LAST"),
        (Some(_), Some(_)) => false,
    };
    Ok(Command::Bdat { octets, known })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(line: &str) -> u16 {
        Command::parse(line.as_bytes(), Grammar::Lenient).map_or_else(|r| r.code, |_| 250)
    }

    fn parsed_mail(line: &str) -> Mail {
        match Command::parse(line.as_bytes(), Grammar::Lenient) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn mail_takes_its_parameters_in_any_case_and_order() {
        let m = parsed_mail("mail from:<a@b.c> body=8bitmime Smtputf8 size=12 AUTH=<>");
        assert_eq!(m.announced_octets, Some(12));
        assert_eq!(m.body, BodyKind::EightBit);
        assert!(m.smtputf8);
        assert_eq!(parsed_mail("MAIL FROM:<> SIZE=99999999999999999999").announced_octets, Some(u64::MAX));
    }

    #[test]
    fn each_line_has_its_code() {
        for (line, expected) in [
            ("MAIL FROM:<a@b.c> SIZE=", 501),
            ("MAIL FROM:<a@b.c> SIZE=-1", 501),
            ("MAIL FROM:<a@b.c> SIZE=1 SIZE=2", 501),
            ("MAIL FROM:<a@b.c> BODY=BINARYMIME", 501),
            ("MAIL FROM:<a@b.c> SMTPUTF8=1", 501),
            ("MAIL FROM:<a@b.c> RET=FULL", 250),
            ("MAIL FROM:<a@b.c> ret=hdrs ENVID=QQ+2B314159", 250),
            ("MAIL FROM:<a@b.c> RET=ALL", 501),
            ("MAIL FROM:<a@b.c> RET", 501),
            ("MAIL FROM:<a@b.c> RET=FULL RET=FULL", 501),
            ("MAIL FROM:<a@b.c> ENVID=", 501),
            ("MAIL FROM:<a@b.c> ENVID=a+2", 501),
            ("MAIL FROM:<a@b.c> ENVID=a+0D+0Ab", 501),
            ("MAIL FROM:<a@b.c> FOO", 555),
            ("MAIL FROM:<a@b.c> AUTH", 501),
            ("MAIL FROM:<a@b.c> auth=", 501),
            ("MAIL FROM:<a@b.c> NOTIFY=NEVER", 555),
            ("RCPT TO:<a@b.c> SIZE=1", 555),
            ("MAIL FROM:<a@b.c>SIZE=1", 501),
            ("MAIL FROM", 501),
            ("MAIL <a@b.c>", 501),
            ("MAIL FROM:", 501),
            ("MAIL FROM:<a@b..c>", 553),
            ("RCPT TO:<a@b.c> NOTIFY=NEVER", 250),
            ("RCPT TO:<a@b.c> notify=success,FAILURE ORCPT=rfc822;a@b.c", 250),
            ("RCPT TO:<a@b.c> NOTIFY=NEVER,FAILURE", 501),
            ("RCPT TO:<a@b.c> NOTIFY", 501),
            ("RCPT TO:<a@b.c> NOTIFY=NEVER NOTIFY=NEVER", 501),
            ("RCPT TO:<a@b.c> ORCPT=a@b.c", 501),
            ("RCPT TO:<a@b.c> ORCPT=rfc822;j\u{f6}rg@b.c", 250),
            ("RCPT TO:<a@b.c> ORCPT=rfc822;a+0d+0ab@b.c", 501),
            ("RCPT TO:<a@b.c> BY=120;R", 555),
            ("RCPT TO:<no-domain-here@>", 553),
            ("RCPT TO:", 501),
            ("RCPT a@b.c", 501),
            ("DATA now", 501),
            ("DATA ", 250),
            ("RSET x", 501),
            ("NOOP anything at all", 250),
            ("noop", 250),
            ("EHLO", 501),
            ("EHLO _odd name_", 250),
            ("STARTTLS x", 501),
            ("AUTH", 501),
            ("AUTH PLAIN a b", 501),
            ("BDAT", 501),
            ("BDAT x", 501),
            ("BDAT -1", 501),
            ("BDAT 9 FIRST", 250),
            ("BDAT 99999999999999999999999", 250),
            ("BDAT 9 last", 250),
            ("ETRN x", 502),
            ("GET / HTTP/1.1", 502),
            ("POST", 502),
            ("FOO", 500),
            ("MAILFROM:<a@b.c>", 500),
            ("", 500),
        ] {
            assert_eq!(code(line), expected, "{line}");
        }
    }

    #[test]
    fn a_bdat_whose_size_can_be_read_has_octets_to_skip() {
        for line in ["BDAT 9\tLAST", "BDAT 9 LAST\tFOO", "BDAT \t9"] {
            let command = Command::parse(line.as_bytes(), Grammar::Lenient);
            assert!(matches!(command, Ok(Command::Bdat { octets: 9, .. })), "{line}: {command:?}");
        }
    }

    #[test]
    fn octets_that_are_not_utf8_are_refused() {
        let r = Command::parse(b"RCPT TO:<gr\xfc\xdfe@b.c>", Grammar::Lenient);
        assert_eq!(r, Err(reply::NOT_UTF8));
    }

    #[test]
    fn an_unknown_parameter_is_named_in_ascii() {
        for line in ["MAIL FROM:<a@b.c> größe=1", "RCPT TO:<a@b.c> größe"] {
            let reply = Command::parse(line.as_bytes(), Grammar::Lenient).unwrap_err();
            assert_eq!(reply.text, "parameter gr??e is not offered here; use only what EHLO lists");
        }
    }

    #[test]
    fn a_parameter_of_the_other_command_is_sent_there() {
        for (line, told) in [
            ("MAIL FROM:<a@b.c> notify=NEVER", "NOTIFY belongs to RCPT TO; write it there"),
            ("MAIL FROM:<a@b.c> ORCPT=rfc822;a@b.c", "ORCPT belongs to RCPT TO; write it there"),
            ("RCPT TO:<a@b.c> RET=FULL", "RET belongs to MAIL FROM; write it there"),
            ("RCPT TO:<a@b.c> smtputf8", "SMTPUTF8 belongs to MAIL FROM; write it there"),
        ] {
            let reply = Command::parse(line.as_bytes(), Grammar::Lenient).unwrap_err();
            assert_eq!((reply.code, reply.text.as_ref()), (555, told), "{line}");
        }
    }

    #[test]
    fn auth_at_mail_without_its_value_is_told_what_it_takes() {
        for line in ["MAIL FROM:<a@b.c> AUTH", "MAIL FROM:<a@b.c> AUTH="] {
            let reply = Command::parse(line.as_bytes(), Grammar::Lenient).unwrap_err();
            assert!(reply.text.contains("AUTH=<>"), "{}", reply.text);
        }
    }

    proptest! {
        #[test]
        fn every_refusal_has_an_enhanced_code_of_its_class(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Err(r) = Command::parse(&line, Grammar::Lenient) {
                prop_assert_eq!(r.enhanced.map(|e| u16::from(e.0)), Some(r.code / 100));
            }
        }
    }
}
