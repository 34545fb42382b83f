//! `postroad sendmail`, and the program under the name `sendmail`: how cron, PHP, mutt and git hand in mail. It reads no
//! configuration and needs no token: it speaks SMTP to `$POSTROAD_SUBMIT` or 127.0.0.1:2525, as the user who calls it,
//! and ends with the codes of sysexits.h.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::address::{Address, Grammar, domain_ok};
use crate::clock::{Clock, System};
use crate::journal::shown;
use crate::mail::mailboxes::{Mailbox, mailboxes};
use crate::mail::named;
use crate::mail::{Body, ReversePath, SmtpRequest};
use crate::wire::smtp::{Settings, SmtpWire, Tls};
use crate::wire::{NoChunks, Wire};
use options::{Mode, Options};

mod hand_in;
mod letter;
mod options;
mod verify;

/// Names under which the program is this command.
const NAMES: [&str; 3] = ["sendmail", "mailq", "newaliases"];
const SUBMIT_HOST: &str = "127.0.0.1";
const SUBMIT_PORT: u16 = 2525;
/// Connecting, and each reply.
const REPLY_MAX: Duration = Duration::from_secs(30);
/// The reply to the final dot: the relay waits for its disk.
const TAKEN_MAX: Duration = Duration::from_secs(600);

/// Why nothing was handed in: a code of sysexits.h and words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    code: u8,
    said: String,
}

pub(super) const EX_USAGE: u8 = 64;
pub(super) const EX_DATAERR: u8 = 65;
const EX_NOUSER: u8 = 67;
const EX_UNAVAILABLE: u8 = 69;
const EX_SOFTWARE: u8 = 70;
const EX_IOERR: u8 = 74;
pub(super) const EX_TEMPFAIL: u8 = 75;
const EX_NOPERM: u8 = 77;

impl Refusal {
    fn new(code: u8, said: impl Into<String>) -> Self {
        Refusal { code, said: said.into() }
    }
}

/// The arguments behind the name, where the program is called as this command; clap would read `-oi` its own way.
pub(super) fn called(arguments: &[String]) -> Option<(&str, &[String])> {
    let (program, rest) = arguments.split_first()?;
    let program = program.rsplit('/').next().unwrap_or_default();
    if let Some(name) = NAMES.iter().find(|name| **name == program) {
        return Some((name, rest));
    }
    match rest.split_first() {
        Some((command, rest)) if command == "sendmail" && !rest.iter().any(|a| a == "--help") => {
            Some(("sendmail", rest))
        }
        Some(_) | None => None,
    }
}

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The exit code.
    Exit(u8),
    /// A command of the queue is to be run: its words behind `postroad`.
    Queue(Vec<String>),
}

impl Done {
    fn queue(verb: &str, id: Option<&str>) -> Done {
        Done::Queue(["queue", verb].into_iter().chain(id).map(str::to_owned).collect())
    }
}

/// Runs it to its end; what went wrong is told on standard error.
pub(super) fn run(name: &str, arguments: &[String]) -> Done {
    let done = match name {
        "mailq" => return Done::queue("list", None),
        "newaliases" => Ok(()),
        _ => match Options::read(arguments) {
            Ok(Options { mode: Mode::List, .. }) => return Done::queue("list", None),
            Ok(Options { mode: Mode::Flush(id), .. }) => return Done::queue("flush", id.as_deref()),
            Ok(options) => act(&options),
            Err(said) => Err(Refusal::new(EX_USAGE, said)),
        },
    };
    match done {
        Ok(()) => Done::Exit(0),
        Err(refusal) => {
            tell(&refusal.said);
            Done::Exit(refusal.code)
        }
    }
}

fn tell(said: &str) {
    // Who has closed standard error does not want to know.
    let _ = writeln!(io::stderr(), "sendmail: {}", shown(said));
}

fn act(options: &Options) -> Result<(), Refusal> {
    let (host, port) = submit_to(std::env::var("POSTROAD_SUBMIT").ok().as_deref())?;
    match options.mode {
        Mode::Submit => submit(options, host, port),
        Mode::Dialogue => dialogue(&host, port),
        Mode::Verify => {
            let named = recipients(options, b"")?;
            let sender = sender(options, &caller())?;
            let done = verify::verify((&host, port), &sender, &named.recipients, &mut io::stdout());
            besides(&named.odd, "the others would be taken", done)
        }
        Mode::Nothing | Mode::List | Mode::Flush(_) => Ok(()),
    }
}

/// `host`, `host:port`, `[ipv6]:port`.
fn submit_to(variable: Option<&str>) -> Result<(String, u16), Refusal> {
    let Some(text) = variable.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok((SUBMIT_HOST.to_owned(), SUBMIT_PORT));
    };
    let bad = || {
        let said =
            format!("$POSTROAD_SUBMIT is {text:?}; write HOST:PORT, such as 127.0.0.1:2525 or [::1]:2525");
        Refusal::new(EX_USAGE, said)
    };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(bad)?;
        let port = if port.is_empty() { Ok(SUBMIT_PORT) } else { port.trim_start_matches(':').parse() };
        return Ok((host.to_owned(), port.map_err(|_| bad())?));
    }
    match text.split_once(':') {
        Some((host, port)) if !host.is_empty() => Ok((host.to_owned(), port.parse().map_err(|_| bad())?)),
        Some(_) => Err(bad()),
        None => Ok((text.to_owned(), SUBMIT_PORT)),
    }
}

fn submit(options: &Options, host: String, port: u16) -> Result<(), Refusal> {
    let mut input = BufReader::new(io::stdin().lock());
    let message = letter::read(&mut input, !options.dot_is_text).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => Refusal::new(EX_DATAERR, format!("the message is too large: {error}")),
        _ => Refusal::new(EX_IOERR, format!("the message cannot be read: {error}")),
    })?;
    let caller = caller();
    let named = recipients(options, &message)?;
    let request = request(options, named.recipients, &message, &caller)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Refusal::new(EX_SOFTWARE, format!("cannot start: {error}")))?;
    let to = format!("{host}:{port}");
    let done = runtime.block_on(async {
        let wire = SmtpWire::new(settings(host, port), Arc::new(NoChunks));
        let done = hand_in::hand_in(&wire, request, &to).await;
        wire.close().await;
        done
    });
    besides(&named.odd, "it is on its way to those that are not named here", done)
}

/// What is no address costs itself alone, and the caller hears of it where all else went well.
fn besides(odd: &[String], others: &str, done: Result<(), Refusal>) -> Result<(), Refusal> {
    match done {
        done if odd.is_empty() => done,
        Ok(()) => Err(Refusal::new(EX_DATAERR, format!("{}; {others}", odd_told(odd)))),
        Err(refusal) => {
            tell(&odd_told(odd));
            Err(refusal)
        }
    }
}

fn odd_told(odd: &[String]) -> String {
    let odd: Vec<String> = odd.iter().map(|name| format!("{name:?}")).collect();
    let are = if odd.len() == 1 { "is no address; write it" } else { "are no addresses; write each" };
    format!("{} {are} as name@example.com", odd.join(", "))
}

/// What is handed in: the edited message, from the sender, to these recipients.
fn request(
    options: &Options,
    recipients: Vec<Address>,
    message: &[u8],
    caller: &Caller,
) -> Result<SmtpRequest, Refusal> {
    let sender = sender(options, caller)?;
    let from = match &sender {
        ReversePath::Mailbox(address) => address.wire(),
        ReversePath::Null => caller.name.as_str(),
    };
    let from = named::mailbox(from, options.full_name.as_deref().or(caller.full_name.as_deref()));
    // The relay may not take all in one transaction; in each it would name the message anew.
    let identity = if recipients.len() > 1 {
        let (date, id) = named_now();
        letter::identity(message, &date, &id)
    } else {
        String::new()
    };
    let body = Body::whole(letter::edited(message, options.from_headers, &from, &identity));
    let needs = |address: &Address| address.needs_smtputf8();
    let smtputf8 =
        recipients.iter().any(needs) || matches!(&sender, ReversePath::Mailbox(address) if needs(address));
    Ok(SmtpRequest { sender, recipients, body, smtputf8, reports: None })
}

/// A Date and a Message-ID of now, in this place.
fn named_now() -> (String, String) {
    let mut chance = [0; 8];
    // Where the system gives none, the moment and the process tell two mails apart.
    let _ = aws_lc_rs::rand::fill(&mut chance);
    let (now, chance) = (System.now(), u64::from_le_bytes(chance));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host = Some(host).filter(|host| host.is_ascii() && domain_ok(host)).unwrap_or("localhost".into());
    (now.rfc5322(), format!("{}.{}.{chance:016x}@{host}", now.millis(), std::process::id()))
}

/// Who is named.
#[derive(Debug)]
struct Named {
    /// Each once, and at least one.
    recipients: Vec<Address>,
    /// What is no address.
    odd: Vec<String>,
}

/// Those of the command line and, with `-t`, of the message.
fn recipients(options: &Options, message: &[u8]) -> Result<Named, Refusal> {
    let mut named = Named { recipients: Vec::new(), odd: Vec::new() };
    let (arguments, odd): (Vec<&String>, Vec<&String>) =
        options.recipients.iter().partition(|argument| is_one_line(argument));
    named.odd.extend(odd.into_iter().cloned());
    let mut names: Vec<String> = arguments.into_iter().flat_map(|argument| listed(argument)).collect();
    if options.from_headers {
        names.extend(letter::recipients(message));
    }
    for name in names {
        match mailbox(&name) {
            None => named.odd.push(name),
            Some(address) if named.recipients.contains(&address) => {}
            Some(address) => named.recipients.push(address),
        }
    }
    if !named.recipients.is_empty() {
        return Ok(named);
    }
    if !named.odd.is_empty() {
        return Err(Refusal::new(EX_DATAERR, odd_told(&named.odd)));
    }
    Err(Refusal::new(
        EX_USAGE,
        match options.from_headers {
            true => "nobody to send to: To, Cc and Bcc name no address",
            false => "nobody to send to: name recipients, or give -t to take those of To, Cc and Bcc",
        },
    ))
}

/// An argument may name several, as a To field does: `a@x.example,b@x.example`.
fn listed(argument: &str) -> Vec<String> {
    if !argument.contains(',') {
        return vec![argument.to_owned()];
    }
    let (mut listed, mut name, mut quoted) = (Vec::new(), String::new(), false);
    for c in argument.chars() {
        quoted ^= c == '"' && !name.ends_with('\\');
        match c {
            ',' if !quoted => listed.push(std::mem::take(&mut name)),
            c => name.push(c),
        }
    }
    listed.push(name);
    listed.retain(|name| !name.trim().is_empty());
    listed
}

/// `-f`, else the caller.
fn sender(options: &Options, caller: &Caller) -> Result<ReversePath, Refusal> {
    match options.sender.as_deref().map(str::trim) {
        Some("" | "<>") => Ok(ReversePath::Null),
        given => {
            let text = given.unwrap_or(&caller.name);
            let bad =
                || Refusal::new(EX_USAGE, format!("-f {text:?} is no address; write it as name@example.com"));
            let address = mailbox(text).filter(|_| is_one_line(text));
            Ok(ReversePath::Mailbox(address.ok_or_else(bad)?))
        }
    }
}

/// Whoever lets others write a part of an argument is not to pass on their lines.
fn is_one_line(argument: &str) -> bool {
    !argument.contains(char::is_control)
}

/// `a@b`, `<a@b>`, `Joe <a@b>`, or a bare name, which the relay completes.
fn mailbox(text: &str) -> Option<Address> {
    let inner = text.trim().trim_start_matches('<').trim_end_matches('>');
    address(inner).or_else(|| match mailboxes(text.as_bytes()).as_slice() {
        [Mailbox::Address(span) | Mailbox::Bare(span)] => address(text.get(span.clone())?),
        _ => None,
    })
}

fn address(text: &str) -> Option<Address> {
    let parsed = match text.contains('@') {
        true => Address::parse(text, Grammar::Lenient),
        false => Address::bare(text, Grammar::Lenient),
    };
    parsed.ok()
}

fn settings(host: String, port: u16) -> Settings {
    Settings {
        host,
        port,
        tls: Tls::Off,
        login: None,
        kin: Vec::new(),
        ca_file: None,
        helo: "localhost".to_owned(),
        max_connections: 1,
        messages_per_connection: 1,
        idle_timeout: REPLY_MAX,
        timeout: REPLY_MAX,
        data_timeout: TAKEN_MAX,
    }
}

/// Standard input to the relay and its replies to standard output, until either ends. An end within a message, or one
/// that the relay made, is no good one.
fn dialogue(host: &str, port: u16) -> Result<(), Refusal> {
    let lost = |error: io::Error| Refusal::new(EX_TEMPFAIL, format!("no relay at {host}:{port}: {error}"));
    let stream = TcpStream::connect((host, port)).map_err(lost)?;
    let mut replies = stream.try_clone().map_err(lost)?;
    let mut commands = stream;
    // It ends with the process: a relay that has closed does not wait for more input.
    std::thread::spawn(move || {
        let _ = copy_lines(&mut io::stdin().lock(), &mut commands);
        let _ = commands.shutdown(std::net::Shutdown::Write);
    });
    let (mut out, mut piece, mut last) = (io::stdout(), [0; 4096], LastReply::default());
    loop {
        let octets = replies.read(&mut piece).map_err(lost)?;
        if octets == 0 {
            return last.ended();
        }
        last.note(&piece[..octets]);
        let told = out.write_all(&piece[..octets]).and_then(|()| out.flush());
        told.map_err(|error| Refusal::new(EX_IOERR, format!("the reply cannot be written: {error}")))?;
    }
}

/// The last reply of a dialogue.
#[derive(Debug, Default)]
struct LastReply {
    /// The beginning of the line that comes in.
    line: Vec<u8>,
    code: Option<u16>,
}

impl LastReply {
    fn note(&mut self, octets: &[u8]) {
        const CODE_OCTETS: usize = 3;
        for octet in octets {
            match octet {
                b'\n' => {
                    let code = self.line.get(..CODE_OCTETS).and_then(|code| std::str::from_utf8(code).ok());
                    self.code = code.and_then(|code| code.parse().ok()).or(self.code);
                    self.line.clear();
                }
                octet if self.line.len() < CODE_OCTETS => self.line.push(*octet),
                _ => {}
            }
        }
    }

    fn ended(&self) -> Result<(), Refusal> {
        match self.code {
            Some(354) => {
                Err(Refusal::new(EX_TEMPFAIL, "the dialogue ended within a message, which was not taken"))
            }
            Some(421) => Err(Refusal::new(EX_TEMPFAIL, "the relay ended the dialogue; try again later")),
            Some(_) => Ok(()),
            None => Err(Refusal::new(EX_TEMPFAIL, "the relay closed the line without a word")),
        }
    }
}

/// Copies with CRLF at the end of each line: programs write to a pipe as they write to a file.
fn copy_lines(input: &mut impl BufRead, out: &mut impl Write) -> io::Result<()> {
    let (mut last, mut piece) = (0, Vec::new());
    loop {
        let octets = input.fill_buf()?;
        let count = octets.len();
        if count == 0 {
            return Ok(());
        }
        piece.clear();
        for octet in octets {
            if *octet == b'\n' && last != b'\r' {
                piece.push(b'\r');
            }
            piece.push(*octet);
            last = *octet;
        }
        out.write_all(&piece)?;
        input.consume(count);
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Caller {
    name: String,
    full_name: Option<String>,
}

/// As the list of users has it; `nobody` where that does not name the user.
fn caller() -> Caller {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    named_in(&users, rustix::process::getuid().as_raw())
        .unwrap_or_else(|| Caller { name: "nobody".to_owned(), full_name: None })
}

/// The user of that number in passwd(5) form; its full name ends at the first comma, and `&` in it is the name.
fn named_in(users: &str, number: u32) -> Option<Caller> {
    let line = users.lines().find(|line| line.split(':').nth(2) == Some(&number.to_string()))?;
    let mut columns = line.split(':');
    let name = columns.next().filter(|name| !name.is_empty())?.to_owned();
    let full_name = columns.nth(3).and_then(|gecos| gecos.split(',').next()).unwrap_or_default();
    let full_name = full_name.replace('&', &name);
    Some(Caller { name, full_name: Some(full_name).filter(|n| !n.is_empty()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn of(line: &str, message: &str) -> Result<SmtpRequest, Refusal> {
        let caller = Caller { name: "www-data".into(), full_name: Some("Web".into()) };
        let (options, message) = (Options::read(&words(line)).unwrap(), message.as_bytes());
        request(&options, recipients(&options, message)?.recipients, message, &caller)
    }

    fn to(request: &SmtpRequest) -> Vec<&str> {
        request.recipients.iter().map(Address::wire).collect()
    }

    #[test]
    fn it_is_called_by_its_names_and_as_a_command() {
        for (line, name, rest) in [
            ("/usr/sbin/sendmail -t -i", "sendmail", 2),
            ("mailq", "mailq", 0),
            ("postroad sendmail -oi -- a@b", "sendmail", 3),
        ] {
            let arguments = words(line);
            let called = called(&arguments).map(|(name, rest)| (name, rest.len()));
            assert_eq!(called, Some((name, rest)), "{line}");
        }
        for line in ["postroad serve", "postroad sendmail --help", "postroad", ""] {
            assert_eq!(called(&words(line)), None, "{line}");
        }
    }

    #[test]
    fn recipients_of_the_line_and_of_the_headers_come_together_each_once() {
        let message = "To: a@x.example\r\nBcc: b@x.example\r\n\r\nhi\r\n";
        let request = of("-t c@x.example a@x.example", message).unwrap();
        assert_eq!(to(&request), ["c@x.example", "a@x.example", "b@x.example"]);
        assert_eq!(request.sender.wire(), "www-data");
        let head = String::from_utf8_lossy(&request.body.head).into_owned();
        assert!(head.starts_with("Date: ") && head.contains("\r\nMessage-ID: <"), "{head}");
        assert!(head.ends_with("\r\nFrom: \"Web\" <www-data>\r\nTo: a@x.example\r\n\r\nhi\r\n"), "{head}");
        let head = of("-t", "To: a@x.example\r\n\r\nhi\r\n").unwrap().body.head;
        assert_eq!(
            &head[..],
            b"From: \"Web\" <www-data>\r\nTo: a@x.example\r\n\r\nhi\r\n",
            "the relay names it"
        );
        let request = of("a@x.example,b@x.example, root \"c,d\"@x.example,<e@x.example>,", message).unwrap();
        let named = ["a@x.example", "b@x.example", "root", "\"c,d\"@x.example", "e@x.example"];
        assert_eq!(to(&request), named);
        let request = of("-f <> d@x.example", message).unwrap();
        assert_eq!((to(&request), &request.sender), (vec!["d@x.example"], &ReversePath::Null));
        assert!(
            String::from_utf8_lossy(&request.body.head).contains("Bcc:"),
            "without -t nothing is taken out"
        );
    }

    #[test]
    fn what_cannot_be_sent_is_told_with_its_code() {
        for (line, message, code) in [
            ("-i", "To: a@x.example\r\n\r\n", EX_USAGE),
            ("-t", "Subject: s\r\n\r\n", EX_USAGE),
            ("a@@x..example", "\r\n", EX_DATAERR),
            ("-f a@b@c d@x.example", "\r\n", EX_USAGE),
        ] {
            assert_eq!(of(line, message).map_err(|r| r.code).unwrap_err(), code, "{line}");
        }
    }

    #[test]
    fn what_is_no_address_costs_itself_alone() {
        let options = Options::read(&words("a@x.example,b@@x c@x.example d@")).unwrap();
        let named = recipients(&options, b"").unwrap();
        let taken: Vec<&str> = named.recipients.iter().map(Address::wire).collect();
        assert_eq!((taken, &named.odd[..]), (vec!["a@x.example", "c@x.example"], &words("b@@x d@")[..]));
        let options =
            Options { recipients: vec!["x\n<a@x.example>".into(), "b@x.example".into()], ..options };
        let named = recipients(&options, b"").unwrap();
        assert_eq!((named.recipients.len(), &named.odd[..]), (1, &options.recipients[..1]));
        for (done, code) in [
            (Ok(()), EX_DATAERR),
            (Err(Refusal::new(EX_TEMPFAIL, "later")), EX_TEMPFAIL),
            (Err(Refusal::new(EX_NOPERM, "who are you")), EX_NOPERM),
        ] {
            assert_eq!(besides(&named.odd, "", done).map_err(|r| r.code), Err(code));
        }
        assert_eq!(besides(&[], "", Ok(())), Ok(()));
    }

    #[test]
    fn a_sender_may_have_its_name_before_it() {
        let sender = |text: &str| {
            let options = Options::read(&["-f".into(), text.into()]).unwrap();
            sender(&options, &Caller { name: "me".into(), full_name: None })
                .map(|path| path.wire().to_owned())
        };
        for (text, wanted) in [
            ("Foo <a@b.example>", "a@b.example"),
            (" \"Foo, x\" <a@b.example> ", "a@b.example"),
            ("<a@b.example>", "a@b.example"),
            ("root (Cron)", "root"),
            ("\"a b\"@b.example", "\"a b\"@b.example"),
            ("<>", ""),
            ("", ""),
        ] {
            assert_eq!(sender(text).as_deref(), Ok(wanted), "{text}");
        }
        for text in [
            "Foo\r\n <a@b.example>",
            "a@b.example\nRCPT TO:<c@d.example>",
            "Foo <>",
            "a@b.example, c@d.example",
            "boss@z.example <a@b.example>",
            "two words",
        ] {
            assert_eq!(sender(text).map_err(|r| r.code), Err(EX_USAGE), "{text}");
        }
    }

    #[test]
    fn a_dialogue_is_judged_by_its_last_reply() {
        for (replies, code) in [
            ("220 hi\r\n250-a\r\n250 b\r\n354 go\r\n250 2.0.0 queued\r\n221 bye\r\n", None),
            ("220 hi\r\n354 go\r\n", Some(EX_TEMPFAIL)),
            ("220 hi\r\n421 4.3.2 going down\r\n", Some(EX_TEMPFAIL)),
            ("", Some(EX_TEMPFAIL)),
        ] {
            let mut last = LastReply::default();
            replies.as_bytes().chunks(2).for_each(|piece| last.note(piece));
            assert_eq!(last.ended().err().map(|refusal| refusal.code), code, "{replies}");
        }
    }

    #[test]
    fn lines_of_a_dialogue_end_in_crlf_whatever_the_pieces() {
        let text = b"EHLO a\nMAIL FROM:<>\r\n\n.\r\nx\ry\n";
        for size in 1..=text.len() {
            let mut out = Vec::new();
            copy_lines(&mut BufReader::with_capacity(size, &text[..]), &mut out).unwrap();
            assert_eq!(out, b"EHLO a\r\nMAIL FROM:<>\r\n\r\n.\r\nx\ry\r\n", "{size}");
        }
    }

    #[test]
    fn the_relay_is_where_the_variable_says() {
        for (text, wanted) in [
            (None, Some(("127.0.0.1", 2525))),
            (Some(""), Some(("127.0.0.1", 2525))),
            (Some("mail.example:25"), Some(("mail.example", 25))),
            (Some("mail.example"), Some(("mail.example", 2525))),
            (Some("[::1]:26"), Some(("::1", 26))),
            (Some("[::1]"), Some(("::1", 2525))),
            (Some("h:x"), None),
            (Some(":25"), None),
        ] {
            let got = submit_to(text).ok();
            assert_eq!(got.as_ref().map(|(host, port)| (host.as_str(), *port)), wanted, "{text:?}");
        }
    }

    #[test]
    fn the_caller_is_the_user_of_its_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:& Server,,,:/:/bin/false\nplain:x:7:7::/:\n";
        let name = |n| named_in(users, n).map(|c| (c.name, c.full_name));
        assert_eq!(name(33), Some(("web".into(), Some("web Server".into()))));
        assert_eq!(name(7), Some(("plain".into(), None)));
        assert_eq!(name(8), None);
    }
}
