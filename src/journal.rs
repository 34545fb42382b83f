//! The log's verbs: what the relay says about mail, one line a fact, in Postfix's words where it has them.
//!
//! Lines go through `tracing` at target `postroad` to standard error: text on a terminal, JSON elsewhere. Whatever a
//! client or an ESP said is escaped. Never a body, a secret or a subject. Nothing here waits: a standard error that
//! does not take lines loses them, and the loss is counted.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::Duration;

use tracing::field::display;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::mail::{Message, MessageId, Outcome, Reason, Step};

mod alert;
mod feedback;
mod house;
mod line;
mod notify;
mod writer;

pub use alert::{Alert, alert};
pub use feedback::{list_changed, told, webhook_confirmed, webhook_rejected};
pub use house::{
    asked_for_nothing, backed_up, esp_full, esp_gone, esp_resumed, esp_suspended, fewer_seats, from_left,
    let_go, listening, may_have_been_sent, not_reloaded, odd, only_sandbox, recovered, reloaded, removed,
    repeated, sending_paused, sending_unpaused, serving, serving_webhooks, stopped, stopping, trouble,
    turned, wants_restart,
};
pub use line::{Form, shown, shown_json};
pub use notify::{not_notified, notifications_ended, replayed};
pub use writer::Writer;

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Alerts.
    Error,
    /// And what is probably wrong.
    Warn,
    /// And a line a recipient an attempt.
    #[default]
    Info,
    /// And each connection.
    Debug,
    /// Everything.
    Trace,
}

/// The log as the process has it; dropped last, it waits a bounded time for what is not yet written.
#[derive(Debug)]
pub struct Log(Writer);

impl Log {
    /// Writes what is pending, for at most [`Writer::FLUSH_MAX`]; `false` when it was not all taken.
    pub fn flush(&self) -> bool {
        self.0.flush(Writer::FLUSH_MAX)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Sends the process's log to standard error. Once a process.
pub fn install(format: Format, level: Level) -> io::Result<Log> {
    let form = match format {
        Format::Text => Form::Text,
        Format::Json => Form::Json,
        Format::Auto if io::stderr().is_terminal() => Form::Text,
        Format::Auto => Form::Json,
    };
    // A descriptor of its own: a stalled write must not hold the lock of `std::io::stderr` against other threads.
    let stderr = std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let writer = Writer::start(stderr)?;
    let layer = line::Lines::new(form, writer.clone()).with_filter(targets(level));
    tracing_subscriber::registry().with(layer).try_init().map_err(io::Error::other)?;
    std::panic::set_hook(Box::new(panicked));
    Ok(Log(writer))
}

/// Amazon's SDK: it calls each answer of 5xx an error, of which the attempt's own line tells already.
const SDK: &str = "aws_smithy_runtime";

/// The level is for our own lines. Libraries speak at `warn` alone: below that they print what they read and write.
fn targets(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let foreign = level.min(LevelFilter::WARN);
    let sdk = if level >= LevelFilter::DEBUG { foreign } else { LevelFilter::OFF };
    Targets::new().with_default(foreign).with_target(SDK, sdk).with_target("postroad", level)
}

/// Only where, not what: the text of a panic may quote a message.
fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let at = panic.location().map(display);
    let thread = std::thread::current();
    tracing::error!(target: "postroad", at, thread = thread.name(), "panic: a fault in Postroad, please report it");
}

/// A message got its 250.
pub fn accepted(message: &Message) {
    let source = &message.source;
    tracing::info!(
        target: "postroad",
        id = %message.id,
        from = message.envelope.sender.wire(),
        size = message.body.facts.size_octets,
        nrcpt = message.envelope.recipients.len(),
        stream = %message.stream,
        listener = %source.listener,
        client = %source.peer,
        helo = source.helo,
        user = source.credential,
        proto = source.protocol.with(),
        "accepted"
    );
}

/// What was refused at the door, as far as it was known by then.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refusal<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The client's address, in text.
    pub client: &'a str,
    /// What it called itself.
    pub helo: &'a str,
    /// MAIL FROM, where it was given.
    pub from: Option<&'a str>,
    /// RCPT TO, where it is about one.
    pub to: Option<&'a str>,
    /// The stream, where it is known.
    pub stream: Option<&'a str>,
    /// One word: `suppressed`, `relay_denied`, `full`, …; the metric's label.
    pub reason: &'static str,
    /// What the client was told.
    pub reply: &'a str,
}

/// A recipient or a message was refused at the door.
pub fn refused(refusal: &Refusal<'_>) {
    tracing::info!(
        target: "postroad",
        listener = %refusal.listener,
        client = %refusal.client,
        helo = refusal.helo,
        from = refusal.from,
        to = refusal.to,
        stream = refusal.stream.map(display),
        reason = %refusal.reason,
        reply = refusal.reply,
        "refused"
    );
}

/// A recipient of an accepted message is not mailed.
pub fn suppressed(id: MessageId, to: &str, stream: &str, why: &str) {
    tracing::info!(
        target: "postroad",
        id = %id, to, stream = %stream, status = %"suppressed", why = %why, "suppressed"
    );
}

/// Where the time went until an attempt had its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delays {
    /// a: accepted until begun, earlier attempts included.
    pub queued: Duration,
    /// b: begun until the call started: waiting for a connection.
    pub waited: Duration,
    /// c: the call.
    pub called: Duration,
}

/// One attempt for one recipient.
#[derive(Debug, Clone, Copy)]
pub struct Attempted<'a> {
    /// The message.
    pub id: MessageId,
    /// The recipient's wire form.
    pub to: &'a str,
    /// The stream.
    pub stream: &'a str,
    /// The ESP's name.
    pub esp: &'a str,
    /// Which dispatch of this delivery, from 1.
    pub attempt: u32,
    /// Where the time went.
    pub delays: Delays,
    /// What it came to.
    pub outcome: &'a Outcome,
    /// What follows.
    pub step: Step,
}

/// The line an attempt: one for each recipient.
pub fn attempted(attempted: &Attempted<'_>) {
    let Attempted { delays, outcome, .. } = attempted;
    let [a, b, c] = [delays.queued, delays.waited, delays.called].map(seconds);
    let said = outcome.said();
    tracing::info!(
        target: "postroad",
        id = %attempted.id,
        to = attempted.to,
        stream = %attempted.stream,
        esp = %attempted.esp,
        attempt = attempted.attempt,
        delay = seconds(delays.queued + delays.waited + delays.called),
        delays = %format_args!("{a}/{b}/{c}"),
        code = code(said).map(display),
        status = %status(attempted.step),
        why = why(outcome).map(display),
        reply = said,
        "attempt"
    );
}

/// A delivery ended without an attempt that ended it.
pub fn settled(id: MessageId, to: &str, stream: &str, reason: Reason) {
    let status = match reason {
        Reason::Suppressed => "suppressed",
        Reason::Expired => "expired",
        Reason::Removed => "removed",
        Reason::Assumed => "assumed",
        Reason::Refused => "bounced",
    };
    tracing::info!(target: "postroad", id = %id, to, stream = %stream, status = %status, "settled");
}

/// Something else in a message's life: `may_arrive_twice`, `crashed`, …
pub fn event(id: MessageId, to: Option<&str>, kind: &str, detail: &str) {
    tracing::info!(target: "postroad", id = %id, to, kind = %kind, detail, "event");
}

/// An operator did something to a message's deliveries.
pub fn acted(act: &'static str, id: Option<MessageId>, deliveries: u64) {
    tracing::info!(target: "postroad", act = %act, id = id.map(display), deliveries, "operator");
}

/// A token of the HTTP API was made.
pub fn token_made(token: i64, name: &str, scopes: &str) {
    tracing::info!(target: "postroad", token, name, scopes, "token_made");
}

/// A token of the HTTP API was taken back.
pub fn token_revoked(token: i64) {
    tracing::info!(target: "postroad", token, "token_revoked");
}

/// Postfix's words for what became of it.
fn status(step: Step) -> &'static str {
    match step {
        Step::Done => "sent",
        Step::Bounce => "bounced",
        Step::Elsewhere | Step::Later(_) => "deferred",
        Step::Hold(_) => "held",
        Step::Assume(_) => "assumed",
    }
}

fn why(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Accepted { .. } => None,
        Outcome::Refused { fault, .. } => Some(fault.word()),
        Outcome::Unfit { .. } | Outcome::Unsure { .. } => Some(outcome.word()),
    }
}

/// The reply code that an answer's words begin with.
fn code(said: &str) -> Option<&str> {
    let (code, after) = (said.get(..3)?, said.as_bytes().get(3));
    let digits = code.bytes().all(|b| b.is_ascii_digit());
    (digits && matches!(after, None | Some(b' ' | b'-'))).then_some(code)
}

/// Seconds, to the millisecond.
fn seconds(d: Duration) -> f64 {
    (d.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::mail::Fault;

    /// What the verbs in `say` write.
    fn said(form: Form, say: impl FnOnce()) -> String {
        let (sink, lines) = writer::tests::sink();
        let writer = Writer::start(sink).unwrap();
        let layer = line::Lines::new(form, writer.clone()).with_filter(targets(Level::Info));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say);
        assert!(writer.flush(Writer::FLUSH_MAX));
        String::from_utf8(lines.lock().unwrap().clone()).unwrap()
    }

    fn attempt(outcome: &Outcome, step: Step) {
        attempted(&Attempted {
            id: MessageId::from_number(5),
            to: "a@example.org",
            stream: "transactional",
            esp: "ses-main",
            attempt: 2,
            delays: Delays {
                queued: Duration::from_millis(1500),
                waited: Duration::ZERO,
                called: Duration::from_micros(20_400),
            },
            outcome,
            step,
        });
    }

    fn refusal() -> Outcome {
        let said = "451 4.7.1 try\r\n\u{1b}[31mlater \"you\"".to_owned();
        Outcome::Refused { fault: Fault::Path, lasting: false, wait: None, said }
    }

    #[test]
    fn what_the_sdk_says_of_each_5xx_is_no_line_and_other_libraries_warnings_are() {
        let text = said(Form::Text, || {
            tracing::error!(target: "aws_smithy_runtime::client::http::connection_poisoning", "poisoned");
            tracing::warn!(target: "aws_config::profile", "no such profile");
            tracing::info!(target: "hyper", "read 7 octets");
        });
        assert!(text.contains("no such profile") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn an_attempt_is_one_line_in_postfix_s_words() {
        let text =
            said(Form::Text, || attempt(&refusal(), Step::Later(Timestamp::from_millis(9_000_000_000_000))));
        let (_, line) = text.split_once(" info ").unwrap();
        assert_eq!(
            line,
            "attempt id=0000000000005 to=\"a@example.org\" stream=transactional esp=ses-main attempt=2 delay=1.52 \
             delays=1.5/0/0.02 code=451 status=deferred why=path \
             reply=\"451 4.7.1 try\\r\\n\\u{1b}[31mlater \\\"you\\\"\"\n"
        );
    }

    #[test]
    fn json_holds_the_same_and_parses() {
        let accepted = Outcome::Accepted { remote_id: None, said: "kept".into() };
        let text = said(Form::Json, || {
            attempt(&refusal(), Step::Bounce);
            attempt(&accepted, Step::Done);
        });
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "attempt");
        assert_eq!(lines[0]["level"], "info");
        assert_eq!(lines[0]["delay"], 1.52);
        assert_eq!(lines[0]["attempt"], 2);
        assert_eq!(lines[0]["status"], "bounced");
        assert_eq!(lines[0]["reply"], "451 4.7.1 try\r\n\u{1b}[31mlater \"you\"");
        assert_eq!(lines[1]["status"], "sent");
        assert_eq!(lines[1].get("why"), None);
        assert_eq!(lines[1].get("code"), None, "the sandbox's words begin with no code");
        assert!(!text.contains('\u{1b}'), "no control character leaves");
    }

    #[test]
    fn libraries_are_quiet_and_nobody_can_forge_a_line() {
        let text = said(Form::Text, || {
            tracing::info!(target: "hyper::proto", "parsed 5 headers");
            tracing::debug!(target: "postroad::smtp", "too much");
            event(
                MessageId::from_number(1),
                Some("x\n2026 info accepted\u{202e}\u{85}"),
                "odd kind",
                "a\u{2028}b",
            );
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains(r#"to="x\n2026 info accepted\u{202e}\u{85}" kind="odd kind" detail="a\u{2028}b""#)
        );
    }

    #[test]
    fn a_code_is_three_digits_at_the_start() {
        assert_eq!(code("250 2.0.0 ok"), Some("250"));
        assert_eq!(code("250"), Some("250"));
        assert_eq!(code("2500"), None);
        assert_eq!(code("kept"), None);
        assert_eq!(code("é50"), None);
    }
}
