//! A transaction up to the 354: MAIL, a RCPT for each recipient, DATA; in one write where the server takes it so
//! (RFC 2920), and one reply to each.

use std::time::Duration;

use super::connect::{Connection, Failure, lost};
use super::ehlo::Offered;
use super::line::{Broken, Line};
use crate::address::Address;
use crate::mail::notify::{Ask, Asks};
use crate::mail::{Answer, Phase, Reply, ReversePath, SmtpReply, SmtpRequest};

/// Commands in one write. Their replies must fit the sockets' buffers: two sides that both write wait for ever.
const GROUP_OCTETS_MAX: usize = 8 * 1024;
/// How long a server whose connection has failed may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why content is not handed over.
#[derive(Debug)]
pub(super) enum Halt {
    /// The connection had gone while it was idle. Nobody's fault: a new one, at once.
    Stale(String),
    /// This is the answer.
    Ended(Reply),
}

/// Goes as far as DATA's 354 and gives the replies to each RCPT, at least one of them positive.
pub(super) async fn envelope(
    connection: &mut Connection,
    request: &SmtpRequest,
    phase: &mut Phase,
) -> Result<Vec<Answer>, Halt> {
    *phase = Phase::Mail;
    let utf8 = fit(request, &connection.offered).map_err(|why| Halt::Ended(Reply::Unfit { why }))?;
    connection.in_step = false;
    connection.messages += 1;
    let mut transaction = Transaction::new(connection, request, utf8);
    match transaction.run(phase).await {
        // What had been refused by then stays refused, as long as each reply is known to answer what it was taken for.
        Err(_) if transaction.nothing_left() && !transaction.out_of_step => {
            transaction.gone = true;
            transaction.conclude(phase).await
        }
        Err(halt) => Err(halt),
        Ok(()) => transaction.conclude(phase).await,
    }
}

/// Whether this next hop can take the message, and whether SMTPUTF8 has to be asked for.
fn fit(request: &SmtpRequest, offered: &Offered) -> Result<bool, String> {
    let size_octets = request.body.size_octets();
    if let Some(max) = offered.size_octets_max.filter(|max| size_octets > *max) {
        return Err(format!("the message has {size_octets} octets, the next hop takes {max}"));
    }
    if request.body.facts.eight_bit && !offered.eight_bit {
        return Err("the message has octets above 127 and the next hop lacks 8BITMIME".into());
    }
    let named = addresses(request).find(|a| a.needs_smtputf8());
    match (request.smtputf8, named, offered.smtputf8) {
        (false, None, _) => Ok(false),
        (_, _, true) => Ok(true),
        (_, Some(address), false) => Err(format!("{address} needs SMTPUTF8, which the next hop lacks")),
        (true, None, false) => Err("the headers need SMTPUTF8, which the next hop lacks".into()),
    }
}

fn addresses(request: &SmtpRequest) -> impl Iterator<Item = &Address> {
    let sender = match &request.sender {
        ReversePath::Null => None,
        ReversePath::Mailbox(address) => Some(address),
    };
    sender.into_iter().chain(&request.recipients)
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Reset,
    Mail,
    Rcpt(usize),
    Data,
}

impl Step {
    fn phase(self) -> Phase {
        match self {
            Step::Reset | Step::Mail => Phase::Mail,
            Step::Rcpt(_) => Phase::Rcpt,
            Step::Data => Phase::Data,
        }
    }
}

struct Transaction<'a> {
    connection: &'a mut Connection,
    request: &'a SmtpRequest,
    utf8: bool,
    /// So many recipients are named; the next hop said that it takes no more (RFC 9422).
    named: usize,
    /// MAIL was refused.
    refused: Option<Answer>,
    /// Replies to RCPT so far.
    recipients: Vec<Answer>,
    /// The reply to DATA.
    data: Option<Answer>,
    /// 421, or broken after the refusal that counts: no more replies follow.
    gone: bool,
    /// Nobody can tell which reply answers what: none of them counts.
    out_of_step: bool,
}

impl<'a> Transaction<'a> {
    fn new(connection: &'a mut Connection, request: &'a SmtpRequest, utf8: bool) -> Self {
        let named = connection.offered.recipients_max.unwrap_or(usize::MAX).min(request.recipients.len());
        let recipients = Vec::with_capacity(request.recipients.len());
        Transaction {
            connection,
            request,
            utf8,
            named,
            refused: None,
            recipients,
            data: None,
            gone: false,
            out_of_step: false,
        }
    }

    /// Writes commands in groups and reads the replies of each.
    async fn run(&mut self, phase: &mut Phase) -> Result<(), Halt> {
        let steps = self.steps();
        let (mut sent, mut read) = (0, 0);
        while read < steps.len() && !self.nothing_left() {
            while sent < steps.len() && (sent == read || self.has_room()) {
                self.write(steps[sent])?;
                sent += 1;
            }
            *phase = steps[read].phase();
            if let Err(broken) = self.connection.line.ask().await {
                // On an idle connection it was not about this transaction.
                if matches!(broken, Broken::Unasked(_)) && self.connection.reused && read == 0 {
                    return Err(Halt::Stale(broken.to_string()));
                }
                return Err(self.broken(broken, *phase).await);
            }
            while read < sent && !self.gone {
                *phase = steps[read].phase();
                match self.connection.line.reply().await {
                    Ok(answer) => self.take(steps[read], answer)?,
                    Err(broken) => return Err(self.broken(broken, *phase).await),
                }
                read += 1;
            }
        }
        Ok(())
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::with_capacity(self.named + 3);
        if self.connection.reset_due {
            steps.push(Step::Reset);
        }
        steps.push(Step::Mail);
        steps.extend((0..self.named).map(Step::Rcpt));
        steps.push(Step::Data);
        steps
    }

    fn has_room(&self) -> bool {
        self.connection.offered.pipelining && self.connection.line.out.len() < GROUP_OCTETS_MAX
    }

    /// Nothing that follows could be accepted.
    fn nothing_left(&self) -> bool {
        self.refused.is_some() || self.gone || (self.recipients.len() == self.named && self.nobody())
    }

    fn nobody(&self) -> bool {
        !self.recipients.iter().any(Answer::positive)
    }

    fn write(&mut self, step: Step) -> Result<(), Halt> {
        let offered = self.connection.offered;
        let mut written = std::mem::take(&mut self.connection.line.out);
        let out = &mut written;
        match step {
            Step::Reset => out.extend_from_slice(b"RSET"),
            Step::Mail => {
                out.extend_from_slice(b"MAIL FROM:<");
                if let ReversePath::Mailbox(sender) = &self.request.sender {
                    spell(sender, self.utf8, out)?;
                }
                out.push(b'>');
                parameters(self.request, &offered, self.utf8, out);
                if let Some(asks) = self.asks() {
                    asked(asks, out);
                }
            }
            Step::Rcpt(n) => {
                out.extend_from_slice(b"RCPT TO:<");
                spell(&self.request.recipients[n], self.utf8, out)?;
                out.push(b'>');
                if let Some(ask) = self.asks().and_then(|asks| asks.of(n)) {
                    asked_for(ask, self.utf8, out);
                }
            }
            Step::Data => out.extend_from_slice(b"DATA"),
        }
        out.extend_from_slice(b"\r\n");
        self.connection.line.out = written;
        Ok(())
    }

    /// What is asked about reports, where the next hop takes it.
    fn asks(&self) -> Option<&'a Asks> {
        passed_on(self.request, &self.connection.offered)
    }

    fn take(&mut self, step: Step, answer: Answer) -> Result<(), Halt> {
        if self.connection.reused && about_the_connection(&answer) {
            return Err(Halt::Stale(answer.to_string()));
        }
        let expected = match step {
            Step::Data => answer.code == 354 || answer.code >= 400,
            Step::Reset | Step::Mail | Step::Rcpt(_) => answer.positive() || answer.code >= 400,
        };
        if !expected {
            let said = format!("out of step: {answer} at {}", step.phase().word());
            self.out_of_step = true;
            return Err(Halt::Ended(lost(step.phase(), &said)));
        }
        self.gone = answer.code == 421;
        match step {
            Step::Reset if answer.positive() => self.connection.reset_due = false,
            Step::Reset => return Err(Halt::Stale(answer.to_string())),
            Step::Mail => self.refused = Some(answer).filter(|a| !a.positive()),
            Step::Rcpt(_) => self.recipients.push(answer),
            Step::Data => self.data = Some(answer),
        }
        Ok(())
    }

    async fn broken(&mut self, broken: Broken, phase: Phase) -> Halt {
        if self.connection.reused && broken.ended_by_peer() {
            return Halt::Stale(broken.to_string());
        }
        if broken.out_of_step() {
            self.out_of_step = true;
            return Halt::Ended(lost(phase, &broken));
        }
        Halt::Ended(match last_words(&mut self.connection.line, &broken).await {
            Some(answer) => Failure::Refused(answer).into_reply(phase),
            // Who was refused by then stays refused.
            None => Reply::Lost {
                phase,
                handed_over: false,
                recipients: self.recipients.clone(),
                said: broken.to_string(),
            },
        })
    }

    /// What all replies together mean.
    async fn conclude(mut self, phase: &mut Phase) -> Result<Vec<Answer>, Halt> {
        let go = self.data.as_ref().is_some_and(|data| data.code == 354);
        self.connection.reset_due = true;
        if let Some(last) = self.refused.take() {
            // A 354 without a sender: no telling what it waits for.
            return Err(self.ended(Phase::Mail, last, !go).await);
        }
        if self.gone && self.data.is_none() {
            let last = self.recipients.last().cloned().unwrap_or_else(|| not_named(self.named));
            // Whoever goes says so to all; a refusal is that of one recipient alone.
            let rest = if last.code == 421 { last.clone() } else { not_named(self.named) };
            self.recipients.resize(self.request.recipients.len(), rest);
            return Err(self.ended(Phase::Rcpt, last, false).await);
        }
        let nobody = self.nobody();
        let named = self.named;
        let last_rcpt = self.recipients.last().cloned().unwrap_or_else(|| not_named(named));
        self.recipients.resize_with(self.request.recipients.len(), || not_named(named));
        if nobody {
            let in_step = !go || empty_message(&mut self.connection.line).await;
            return Err(self.ended(Phase::Rcpt, last_rcpt, in_step).await);
        }
        match self.data.take() {
            Some(_) if go && self.connection.line.caught_up() => {
                *phase = Phase::Body;
                Ok(self.recipients)
            }
            Some(last) if !go => Err(self.ended(Phase::Data, last, true).await),
            _ => Err(Halt::Ended(lost(Phase::Data, &"out of step: more replies than commands"))),
        }
    }

    async fn ended(mut self, phase: Phase, last: Answer, in_step: bool) -> Halt {
        self.connection.in_step = in_step && !self.gone;
        // Who ends it knows that it is over.
        self.connection.place.let_in &= !self.gone;
        let lasting = last.lasting() || self.recipients.iter().any(Answer::lasting);
        if self.connection.in_step && lasting && !self.each_reply_was_an_answer().await {
            self.connection.in_step = false;
            return Halt::Ended(lost(phase, &"out of step: more replies than commands"));
        }
        self.connection.in_step &= self.connection.line.caught_up();
        let recipients = if phase == Phase::Mail { Vec::new() } else { self.recipients };
        Halt::Ended(Reply::Smtp(SmtpReply { phase, last, recipients, reports: false }))
    }

    /// Whether a refusal is known to be the reply to the command that it was taken for, and not a reply too many to one
    /// before it. After a group that ended with DATA the reply to RSET tells: where one was too many it is DATA's, which
    /// is never 2xx. Else QUIT's does, which alone is 221. A server that goes without another word has said no word too
    /// many.
    async fn each_reply_was_an_answer(&mut self) -> bool {
        let Connection { line, offered, reset_due, in_step, .. } = &mut *self.connection;
        if offered.pipelining {
            match answer_to(line, b"RSET\r\n").await {
                Ok(answer) if answer.positive() && line.quiet() => {
                    *reset_due = false;
                    return true;
                }
                Ok(_) => {}
                Err(broken) => {
                    *in_step = false;
                    return !broken.out_of_step();
                }
            }
        }
        *in_step = false;
        match answer_to(line, b"QUIT\r\n").await {
            Ok(answer) => matches!(answer.code, 221 | 421),
            Err(broken) => !broken.out_of_step(),
        }
    }
}

async fn answer_to(line: &mut Line, command: &[u8]) -> Result<Answer, Broken> {
    line.out.extend_from_slice(command);
    line.ask().await?;
    line.reply().await
}

/// The address as it was given where SMTPUTF8 is asked for, else with its domain as A-labels.
fn spell(address: &Address, utf8: bool, out: &mut Vec<u8>) -> Result<(), Halt> {
    if utf8 || address.wire().is_ascii() {
        out.extend_from_slice(address.wire().as_bytes());
        return Ok(());
    }
    match address.ascii_wire() {
        Some(ascii) => out.extend_from_slice(ascii.as_bytes()),
        None => {
            return Err(Halt::Ended(Reply::Unfit {
                why: format!("the domain of {address} has no ASCII form"),
            }));
        }
    }
    Ok(())
}

fn parameters(request: &SmtpRequest, offered: &Offered, utf8: bool, out: &mut Vec<u8>) {
    use std::io::Write as _;
    if offered.size {
        // Writing to memory does not fail.
        let _ = write!(out, " SIZE={}", request.body.size_octets());
    }
    if request.body.facts.eight_bit {
        out.extend_from_slice(b" BODY=8BITMIME");
    }
    if utf8 {
        out.extend_from_slice(b" SMTPUTF8");
    }
}

/// What is asked about reports, where this next hop takes it (RFC 3461 section 5.2.1).
pub(super) fn passed_on<'a>(request: &'a SmtpRequest, offered: &Offered) -> Option<&'a Asks> {
    request.reports.as_deref().filter(|_| offered.dsn)
}

fn asked(asks: &Asks, out: &mut Vec<u8>) {
    if let Some(ret) = asks.ret {
        out.extend_from_slice(b" RET=");
        out.extend_from_slice(ret.word().as_bytes());
    }
    if let Some(id) = &asks.envelope_id {
        out.extend_from_slice(b" ENVID=");
        out.extend_from_slice(id.as_bytes());
    }
}

fn asked_for(ask: &Ask, utf8: bool, out: &mut Vec<u8>) {
    use std::io::Write as _;
    if let Some(notify) = ask.notify {
        // Writing to memory does not fail.
        let _ = write!(out, " NOTIFY={notify}");
    }
    if let Some(original) = ask.original.as_ref().filter(|text| utf8 || text.is_ascii()) {
        out.extend_from_slice(b" ORCPT=");
        out.extend_from_slice(original.as_bytes());
    }
}

/// 421, or a time-out that ran while the connection was idle (SES says it so): no answer to what was just sent.
fn about_the_connection(answer: &Answer) -> bool {
    answer.code == 421 || (answer.code == 451 && answer.text.to_ascii_lowercase().contains("timeout waiting"))
}

/// For a recipient that the next hop, by its own limit, would not take in this transaction.
fn not_named(max: usize) -> Answer {
    Answer::own(format!("not named yet: the server takes {max} recipients at a time (LIMITS RCPTMAX)"))
}

/// DATA was taken although no recipient was: content of nothing ends it (RFC 2920 section 3.1).
async fn empty_message(line: &mut Line) -> bool {
    line.out.extend_from_slice(b".\r\n");
    line.send().await.is_ok() && line.reply().await.is_ok()
}

/// A server that hangs up often says why first; the reason is in the socket when the write after it fails.
pub(super) async fn last_words(line: &mut Line, broken: &Broken) -> Option<Answer> {
    match broken {
        Broken::Io(_) => line.reply_within(LAST_WORDS).await.ok().filter(|answer| answer.code >= 400),
        Broken::Closed
        | Broken::Half(_)
        | Broken::Hung(_)
        | Broken::Slow(..)
        | Broken::Garbage(_)
        | Broken::Unasked(_)
        | Broken::Lack(_)
        | Broken::Other(_) => None,
    }
}
