//! A session: lines in, replies and questions out. Pure: no socket, no clock, no policy.
//!
//! ```text
//!                line()                what the connection does, and what it tells the session after it
//! Step::Say      a reply               writes it
//! Step::Ask      question()            puts it to the Gatekeeper: answered(its reply) gives what to write
//! Step::Login    name, password        has them checked: logged_in(result) gives what to write
//! Step::Receive  a reply (354)         reads content to its end: received() forgets the transaction
//! Step::Eat      a reply and octets    writes it and skips so many octets
//! Step::StartTls a reply (220)         TLS: tls_started() forgets all that was said in plain text
//! ```

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use super::auth::{Denied, Granted};
use super::command::{Command, Mail};
use super::line::{AUTH_OCTETS_MAX, COMMAND_OCTETS_MAX, LineFault};
use super::path::Path;
use super::reply::{self, Reply};
use super::room::Stake;
use super::sasl::{Attempt, Dialogue, Login, Next};
use super::{AuthMode, Client, ListenerSettings, TlsMode};
use crate::address::{Address, Grammar};
use crate::mail::notify::{Ask, Asks};
use crate::mail::quota::Rate;
use crate::mail::{Envelope, Protocol, ReversePath};

/// Commands that move nothing (NOOP, RSET, VRFY, EHLO …) since the last message; each further one is an error.
pub const JUNK_COMMANDS_MAX: u32 = 100;
/// RCPT commands in one transaction past twice `max_recipients`, whether they name recipients again, too many, or some
/// that are refused; each after it is an error.
pub const RCPT_OVERSHOOT_MAX: usize = 1_000;
/// Messages of one connection.
pub const TRANSACTIONS_MAX: u32 = 100_000;
/// Failed logins of one connection.
pub const LOGIN_FAILURES_MAX: u32 = 3;
/// What is kept of the name in EHLO.
const HELO_OCTETS_MAX: usize = 255;

/// What all sessions of a listener go by.
#[derive(Debug)]
pub struct Rules {
    /// The listener.
    pub settings: ListenerSettings,
    /// The relay's name in the greeting.
    pub hostname: String,
    /// Completes bare names.
    pub origin: Option<String>,
    /// Reports are asked for here (RFC 3461).
    pub dsn: bool,
}

/// What the connection does next.
#[derive(Debug)]
pub enum Step {
    /// Write this.
    Say(Reply),
    /// Put [`Session::question`] to the Gatekeeper.
    Ask,
    /// Check a password.
    Login(Login),
    /// Write this and read content.
    Receive(Reply),
    /// Write this and skip so many octets.
    Eat(Reply, u64),
    /// Write this and begin TLS.
    StartTls(Reply),
}

/// What the Gatekeeper is asked.
#[derive(Debug)]
pub enum Question<'a> {
    /// May this one send, so much?
    Sender(&'a ReversePath, Option<u64>),
    /// May this one be mailed?
    Recipient(&'a Address),
}

#[derive(Debug)]
struct Transaction {
    envelope: Envelope,
    announced_octets: Option<u64>,
    known: HashSet<u64>,
    /// RCPT commands, whatever they were answered.
    rcpt_commands: usize,
}

impl Transaction {
    /// Keeps what is asked for the recipient that came last.
    fn asked(&mut self, ask: Ask) {
        if ask == Ask::default() {
            return;
        }
        let asks = self.envelope.reports.get_or_insert_default();
        asks.each.resize(self.envelope.recipients.len() - 1, Ask::default());
        asks.each.push(ask);
    }
}

#[derive(Debug)]
enum Pending {
    Sender(Transaction),
    Recipient(Address, u64, Ask),
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    rules: Arc<Rules>,
    client: Client,
    greeted: bool,
    tls: bool,
    dialogue: Option<Dialogue>,
    transaction: Option<Transaction>,
    pending: Option<Pending>,
    refused_login: Option<(Attempt, &'static str)>,
    hasher: RandomState,
    errors: u32,
    junk: u32,
    transactions: u32,
    login_failures: u32,
}

impl Session {
    /// A client that just connected, under implicit TLS or in plain text.
    pub fn new(rules: Arc<Rules>, peer: IpAddr, tls: bool) -> Self {
        let settings = &rules.settings;
        let client = Client {
            listener: settings.name.clone(),
            peer,
            helo: String::new(),
            protocol: Protocol::Smtp,
            credential: None,
            listener_stream: settings.stream.clone(),
            terms: Arc::clone(&settings.terms),
            named: None,
            trusted: peer.is_loopback() || settings.allow.iter().any(|net| net.contains(&peer)),
        };
        Session {
            client,
            greeted: false,
            tls,
            dialogue: None,
            transaction: None,
            pending: None,
            refused_login: None,
            hasher: RandomState::new(),
            errors: 0,
            junk: 0,
            transactions: 0,
            login_failures: 0,
            rules,
        }
    }

    /// The 220 at the start.
    pub fn banner(&self) -> Reply {
        reply::plain(220, format!("{} ESMTP Postroad", self.rules.hostname).into())
    }

    /// Who it is by now.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The octets that the next line may have with its CRLF. `front` is what is there of it.
    pub fn line_limit(&self, front: &[u8]) -> usize {
        let auth = front.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "));
        if auth || self.dialogue.is_some() { AUTH_OCTETS_MAX } else { COMMAND_OCTETS_MAX }
    }

    /// What a cut would lose. MAIL alone begins nothing that could be lost, and whoever says no more than that must not
    /// keep others out.
    pub fn stake(&self) -> Stake {
        match &self.transaction {
            None => Stake::Nothing,
            Some(t) if t.envelope.recipients.is_empty() => Stake::Mail,
            Some(_) => Stake::Message,
        }
    }

    /// Whether nothing was understood yet.
    pub fn is_fresh(&self) -> bool {
        !self.greeted && self.errors == 0
    }

    /// One line without its CRLF.
    pub fn line(&mut self, line: &[u8]) -> Step {
        if let Some(dialogue) = self.dialogue.take() {
            return self.dialogue_step(dialogue.response(line));
        }
        let command = match Command::parse(line, self.grammar()) {
            Ok(command) => command,
            Err(reply) => return self.refuse(reply),
        };
        match command {
            Command::Ehlo(name) => self.greet(name, true),
            Command::Helo(name) => self.greet(name, false),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(path, ask) => self.rcpt(path, ask, line.is_ascii()),
            Command::Data => self.data(),
            Command::Auth(mechanism, initial) => self.auth(mechanism, initial),
            Command::StartTls => self.start_tls(),
            Command::Bdat { octets, known } => {
                self.errors += 1;
                Step::Eat(if known { reply::NO_BDAT } else { reply::BAD_BDAT }, octets)
            }
            Command::Rset => {
                self.transaction = None;
                self.junk(reply::FLUSHED)
            }
            Command::Noop => self.junk(reply::FINE),
            Command::Vrfy => self.junk(reply::CANNOT_VERIFY),
            Command::Help => self.junk(self.help()),
            Command::Expn => self.refuse(reply::NO_EXPN),
            Command::Quit => Step::Say(reply::BYE),
        }
    }

    /// A line that the framing refused.
    pub fn refused_line(&mut self, fault: LineFault) -> Reply {
        self.dialogue = None;
        self.errors += 1;
        match fault {
            LineFault::BareLf => reply::COMMAND_BARE_LF,
            LineFault::Stray => reply::COMMAND_STRAY,
            LineFault::TooLong => reply::LINE_TOO_LONG,
            LineFault::Endless => reply::LINE_ENDLESS,
        }
    }

    /// What ends the connection after the present reply, if anything does.
    pub fn overrun(&self) -> Option<Reply> {
        let errors = self.errors >= self.rules.settings.max_errors.max(1);
        match errors {
            false => None,
            true if self.junk > JUNK_COMMANDS_MAX => Some(reply::TOO_MUCH_JUNK),
            true => Some(reply::TOO_MANY_ERRORS),
        }
    }

    /// What [`Step::Ask`] asks.
    pub fn question(&self) -> Option<Question<'_>> {
        Some(match self.pending.as_ref()? {
            Pending::Sender(t) => Question::Sender(&t.envelope.sender, t.announced_octets),
            Pending::Recipient(address, ..) => Question::Recipient(address),
        })
    }

    /// The Gatekeeper's answer; it goes to the client as it is. A refusal is no error of the client's: a list may
    /// have many recipients that are not mailed.
    pub fn answered(&mut self, answer: Reply) -> Reply {
        let pending = self.pending.take();
        if answer.code / 100 != 2 {
            return answer;
        }
        match (pending, &mut self.transaction) {
            (Some(Pending::Sender(transaction)), _) => self.begin(transaction),
            (Some(Pending::Recipient(address, hash, ask)), Some(transaction)) => {
                transaction.known.insert(hash);
                transaction.envelope.recipients.push(address);
                transaction.asked(ask);
            }
            (Some(Pending::Recipient(..)) | None, _) => {}
        }
        answer
    }

    /// The result of [`Step::Login`].
    pub fn logged_in(&mut self, result: Result<Granted, Denied>) -> Reply {
        match result {
            Ok(granted) => {
                self.client.terms = Arc::new(granted.terms.over(&self.settings().terms));
                self.client.credential = Some(granted);
                self.client.trusted = true;
                self.client.protocol = self.protocol(self.is_esmtp(), false);
                reply::LOGGED_IN
            }
            Err(Denied::Undecided) => reply::LOGIN_UNDECIDED,
            Err(Denied::Limited) => reply::LOGIN_LIMITED,
            Err(Denied::Wrong) => {
                self.errors += 1;
                self.login_failures += 1;
                let last = self.login_failures >= LOGIN_FAILURES_MAX;
                if last { reply::LOGIN_WRONG_LAST } else { reply::LOGIN_WRONG }
            }
        }
    }

    /// MAIL FROM, where a message is begun.
    pub fn begun_sender(&self) -> Option<&ReversePath> {
        self.transaction.as_ref().map(|t| &t.envelope.sender)
    }

    /// Takes the envelope when the content is whole.
    pub fn take_envelope(&mut self) -> Option<Envelope> {
        self.transaction.take().map(|t| t.envelope)
    }

    /// The content came to its end and was answered: `taken` when the message is ours.
    pub fn received(&mut self, taken: bool) {
        self.transaction = None;
        if taken {
            self.junk = 0;
        }
        let smtp = self.is_esmtp();
        self.client.protocol = self.protocol(smtp, false);
    }

    /// TLS is on: everything from before is forgotten (RFC 3207 section 4.2), but not the errors.
    pub fn tls_started(&mut self) {
        let fresh = Session::new(Arc::clone(&self.rules), self.client.peer, true);
        let (errors, junk) = (self.errors, self.junk);
        *self = Session { errors, junk, ..fresh };
    }

    fn settings(&self) -> &ListenerSettings {
        &self.rules.settings
    }

    fn grammar(&self) -> Grammar {
        if self.settings().strict_envelope { Grammar::Strict } else { Grammar::Lenient }
    }

    /// The login that the last line was refused for, and the word for why: for the log.
    pub fn take_refused_login(&mut self) -> Option<(Attempt, &'static str)> {
        self.refused_login.take()
    }

    fn refuse_login(&mut self, reply: Reply, attempt: Attempt) -> Step {
        let word = match reply.code {
            _ if reply == reply::LOGIN_CANCELLED => "cancelled",
            502 => "off",
            503 => "order",
            504 => "mechanism",
            535 => "for_another",
            538 => "no_tls",
            _ => "malformed",
        };
        self.refused_login = Some((attempt, word));
        self.refuse(reply)
    }

    fn refuse(&mut self, reply: Reply) -> Step {
        self.errors += 1;
        Step::Say(reply)
    }

    fn junk(&mut self, reply: Reply) -> Step {
        self.junk += 1;
        if self.junk > JUNK_COMMANDS_MAX {
            self.errors += 1;
        }
        Step::Say(reply)
    }

    fn is_esmtp(&self) -> bool {
        matches!(self.client.protocol, Protocol::Esmtp { .. })
    }

    fn protocol(&self, esmtp: bool, utf8: bool) -> Protocol {
        if esmtp {
            Protocol::Esmtp { tls: self.tls, auth: self.client.credential.is_some(), utf8 }
        } else {
            Protocol::Smtp
        }
    }

    /// EHLO or HELO: any name will do (RFC 5321 section 4.1.4).
    fn greet(&mut self, name: &[u8], esmtp: bool) -> Step {
        self.transaction = None;
        self.greeted = true;
        self.client.helo = clean_name(name);
        self.client.protocol = self.protocol(esmtp, false);
        let text = if esmtp { self.extensions() } else { self.rules.hostname.clone() };
        self.junk(reply::plain(250, text.into()))
    }

    fn extensions(&self) -> String {
        let settings = self.settings();
        let mut text = format!(
            "{}\nPIPELINING\nSIZE {}\n8BITMIME\nSMTPUTF8\nENHANCEDSTATUSCODES\nLIMITS MAILMAX={TRANSACTIONS_MAX} RCPTMAX={}",
            self.rules.hostname, settings.max_message_size_octets, settings.max_recipients
        );
        if self.rules.dsn {
            text.push_str("\nDSN");
        }
        if self.offers_tls() {
            text.push_str("\nSTARTTLS");
        }
        if self.offers_auth() {
            text.push_str("\nAUTH PLAIN LOGIN");
        }
        text
    }

    fn offers_tls(&self) -> bool {
        self.settings().tls == TlsMode::StartTls && !self.tls
    }

    fn offers_auth(&self) -> bool {
        self.settings().auth != AuthMode::Off && self.auth_is_safe()
    }

    /// What can be said here and now.
    fn help(&self) -> Reply {
        let mut verbs = String::from(reply::VERBS);
        verbs.push_str(if self.offers_tls() { " STARTTLS" } else { "" });
        verbs.push_str(if self.offers_auth() { " AUTH" } else { "" });
        Reply::told(214, (2, 0, 0), format!("{verbs}\nthe manual tells what each setting of a listener does"))
    }

    fn auth_is_safe(&self) -> bool {
        self.tls || self.client.peer.is_loopback() || self.settings().auth_plaintext
    }

    fn may_relay(&self) -> bool {
        self.client.credential.is_some()
            || (self.settings().auth != AuthMode::Required
                && self.settings().allow.iter().any(|net| net.contains(&self.client.peer)))
    }

    fn mail(&mut self, mail: Mail) -> Step {
        if !self.greeted {
            return self.refuse(reply::HELLO_FIRST);
        }
        if self.settings().auth == AuthMode::Required && self.client.credential.is_none() {
            let safe = self.auth_is_safe();
            return self.refuse(if safe { reply::AUTH_REQUIRED } else { reply::TLS_THEN_AUTH });
        }
        if self.transaction.is_some() {
            return self.refuse(reply::MAIL_TWICE);
        }
        if self.transactions >= TRANSACTIONS_MAX {
            return Step::Say(reply::TOO_MANY_MESSAGES);
        }
        if mail.announced_octets.is_some_and(|n| n > self.settings().max_message_size_octets) {
            return self.refuse(reply::TOO_LARGE);
        }
        let named = match &mail.path {
            Path::Mailbox(named) | Path::Bare(named) => Some(named.clone()),
            Path::Null => None,
        };
        let sender = match self.sender(mail.path) {
            Ok(sender) => sender,
            Err(reply) => return self.refuse(reply),
        };
        self.client.named = named.filter(|named| named.wire() != sender.wire());
        if !mail.smtputf8 && !sender.wire().is_ascii() {
            return self.refuse(reply::NEEDS_SMTPUTF8);
        }
        if !self.rules.dsn && (mail.ret.is_some() || mail.envelope_id.is_some()) {
            return self.refuse(reply::NO_DSN);
        }
        let asks = Asks { ret: mail.ret, envelope_id: mail.envelope_id, ..Asks::default() };
        let envelope = Envelope {
            sender,
            recipients: Vec::new(),
            body: mail.body,
            smtputf8: mail.smtputf8,
            reports: (!asks.is_empty()).then(|| Box::new(asks)),
        };
        self.ask_sender(Transaction {
            envelope,
            announced_octets: mail.announced_octets,
            known: HashSet::new(),
            rcpt_commands: 0,
        })
    }

    fn ask_sender(&mut self, transaction: Transaction) -> Step {
        self.client.protocol = self.protocol(self.is_esmtp(), transaction.envelope.smtputf8);
        if self.may_relay() {
            self.pending = Some(Pending::Sender(transaction));
            return Step::Ask;
        }
        // Who may not relay learns it at RCPT, and nothing about senders before.
        self.begin(transaction);
        Step::Say(reply::SENDER_OK)
    }

    fn begin(&mut self, transaction: Transaction) {
        self.transactions += 1;
        self.transaction = Some(transaction);
    }

    /// Rewritten as the client's terms have it, or else completed.
    fn sender(&self, path: Path) -> Result<ReversePath, Reply> {
        if let Path::Mailbox(named) | Path::Bare(named) = &path
            && let Some(other) = self.client.terms.from_rewrite.instead_of(named)
        {
            return Ok(ReversePath::Mailbox(other.clone()));
        }
        match path {
            Path::Null => Ok(ReversePath::Null),
            Path::Mailbox(address) => Ok(ReversePath::Mailbox(address)),
            Path::Bare(name) => match self.completed(&name) {
                Some(address) => Ok(ReversePath::Mailbox(address)),
                None if self.settings().strict_envelope => Err(reply::BAD_MAIL),
                None => Ok(ReversePath::Mailbox(name)),
            },
        }
    }

    /// A bare name with `origin` as its domain.
    fn completed(&self, name: &Address) -> Option<Address> {
        let origin = self.rules.origin.as_deref().filter(|o| !o.is_empty())?;
        Address::parse(&format!("{name}@{origin}"), self.grammar()).ok()
    }

    fn rcpt_commands_max(&self) -> usize {
        self.settings().max_recipients.saturating_mul(2).saturating_add(RCPT_OVERSHOOT_MAX)
    }

    fn rcpt(&mut self, path: Path, ask: Ask, ascii: bool) -> Step {
        if let Some(transaction) = &mut self.transaction {
            transaction.rcpt_commands = transaction.rcpt_commands.saturating_add(1);
        }
        let Some(transaction) = &self.transaction else {
            return self.refuse(if self.greeted { reply::MAIL_FIRST } else { reply::HELLO_FIRST });
        };
        if transaction.rcpt_commands > self.rcpt_commands_max() {
            return self.refuse(reply::TOO_MANY_RCPT_COMMANDS);
        }
        let address = match path {
            Path::Null => return self.refuse(reply::NULL_RECIPIENT),
            Path::Mailbox(address) => address,
            Path::Bare(name) => match self.completed(&name) {
                Some(address) => address,
                // RFC 5321 section 4.5.1.
                None if name.wire().eq_ignore_ascii_case("postmaster") => name,
                None => return self.refuse(reply::BARE_RECIPIENT),
            },
        };
        if !transaction.envelope.smtputf8 && !address.wire().is_ascii() {
            return self.refuse(reply::NEEDS_SMTPUTF8);
        }
        if !transaction.envelope.smtputf8 && !ascii {
            return self.refuse(reply::ORCPT_NEEDS_SMTPUTF8);
        }
        if !self.may_relay() {
            return self.refuse(reply::RELAY_DENIED);
        }
        if !self.rules.dsn && ask != Ask::default() {
            return self.refuse(reply::NO_DSN);
        }
        let hash = self.hash(&address);
        if transaction.known.contains(&hash)
            && transaction.envelope.recipients.iter().any(|r| r.mailbox() == address.mailbox())
        {
            return Step::Say(reply::RECIPIENT_KNOWN);
        }
        let named = transaction.envelope.recipients.len();
        if named >= self.settings().max_recipients {
            return Step::Say(reply::TOO_MANY_RECIPIENTS);
        }
        if let Some(rate) = self.rate_of_recipients().filter(|rate| named >= rate.most_at_once()) {
            return Step::Say(reply::too_many_for_rate(rate));
        }
        self.pending = Some(Pending::Recipient(address, hash, ask));
        Step::Ask
    }

    /// The client's rate, where each recipient that it names counts: those that are turned to one other are that one.
    fn rate_of_recipients(&self) -> Option<Rate> {
        let terms = &self.client.terms;
        terms.rate.filter(|_| terms.redirect_to.is_none())
    }

    fn hash(&self, address: &Address) -> u64 {
        self.hasher.hash_one(address.mailbox())
    }

    fn data(&mut self) -> Step {
        match &self.transaction {
            None if !self.greeted => self.refuse(reply::HELLO_FIRST),
            None => self.refuse(reply::MAIL_FIRST),
            Some(t) if t.envelope.recipients.is_empty() => self.refuse(reply::NO_RECIPIENT),
            Some(_) => Step::Receive(reply::GO_AHEAD),
        }
    }

    fn start_tls(&mut self) -> Step {
        if self.tls {
            return self.refuse(reply::TLS_TWICE);
        }
        if self.settings().tls != TlsMode::StartTls {
            return self.refuse(reply::NO_TLS);
        }
        // It was not offered yet (RFC 5321 section 2.2.1).
        if !self.greeted {
            return self.refuse(reply::HELLO_FIRST);
        }
        Step::StartTls(reply::TLS_READY)
    }

    fn auth(&mut self, mechanism: &str, initial: Option<&str>) -> Step {
        let attempt = || Attempt { mechanism: mechanism.to_owned(), username: None };
        if self.settings().auth == AuthMode::Off {
            return self.refuse_login(reply::NO_AUTH, attempt());
        }
        if !self.auth_is_safe() {
            return self.refuse_login(reply::AUTH_NEEDS_TLS, attempt());
        }
        if !self.greeted {
            return self.refuse_login(reply::HELLO_FIRST, attempt());
        }
        if self.client.credential.is_some() {
            return self.refuse_login(reply::AUTH_TWICE, attempt());
        }
        if self.transaction.is_some() {
            return self.refuse_login(reply::AUTH_IN_MAIL, attempt());
        }
        match Dialogue::begin(mechanism, initial) {
            Ok(next) => self.dialogue_step(next),
            Err(reply) => self.refuse_login(reply, attempt()),
        }
    }

    fn dialogue_step(&mut self, next: Next) -> Step {
        match next {
            Next::Challenge(challenge, dialogue) => {
                self.dialogue = Some(dialogue);
                Step::Say(reply::plain(334, challenge.into()))
            }
            Next::Login(login) => Step::Login(login),
            Next::Refuse(reply, attempt) => self.refuse_login(reply, attempt),
        }
    }
}

/// The name of a client as it may stand in `Received` and in a log: what could end a line, a comment or a word there
/// becomes `?`.
fn clean_name(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut clean: String = text
        .chars()
        .map(
            |c| if c.is_control() || c.is_whitespace() || "()<>\"\\;,\u{fffd}".contains(c) { '?' } else { c },
        )
        .collect();
    while clean.len() > HELO_OCTETS_MAX {
        clean.pop();
    }
    clean
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
