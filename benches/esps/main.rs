//! What mail costs at each ESP, against sinks in processes of their own that judge nothing; a message has 4 KB, 100 calls
//! are in flight. `cargo bench --bench esps [-- NAME… [MESSAGES]]` prints two tables, each beside the first row of the
//! same run:
//!
//! - calls: compose, hand over, read the answer; no queue. `sdk` is Amazon's SDK alone in a loop, on the same kind of HTTP
//!   client;
//! - deliveries: the relay itself, from a full queue (claim, begin, call, settle) to an empty one.
//!
//! CPU is that of the process that sends: this one, or the relay.

mod calls;
mod queue;
mod sdk;
mod sinks;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use postroad::clock::monotonic;
use sinks::{SINK, Sink, sink};

/// Calls at a time.
const CALLS: usize = 100;
/// Messages of one measurement.
const MESSAGES: usize = 20_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Ok(kind) = std::env::var(SINK) {
        return runtime.block_on(sink(&kind));
    }
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let messages = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(MESSAGES);
    let names: Vec<&String> = arguments.iter().filter(|a| a.parse::<usize>().is_err()).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| *wanted == name);
    let (smtp, http) = (Sink::start("smtp")?, Sink::start("http")?);

    let mut table = Table::new("calls")?;
    let message = calls::message()?;
    for (name, kind) in calls::kinds(smtp.at, http.at).into_iter().filter(|(name, _)| wanted(name)) {
        let line = calls::line(&kind);
        runtime.block_on(calls::run(&line, &message, messages / 10))?;
        let (began, before) = (monotonic(), cpu_seconds("self")?);
        runtime.block_on(calls::run(&line, &message, messages))?;
        let took = monotonic().duration_since(began);
        table.row(name, messages, took, cpu_seconds("self")? - before)?;
    }
    let mut bare = None;
    if wanted("ses") || wanted("sdk") {
        let client = Arc::new(sdk::client(http.at)?);
        runtime.block_on(sdk::run(&client, messages / 10))?;
        let (began, before) = (monotonic(), cpu_seconds("self")?);
        runtime.block_on(sdk::run(&client, messages))?;
        let took = monotonic().duration_since(began);
        bare = Some(table.row("sdk", messages, took, cpu_seconds("self")? - before)?);
    }

    let mut table = Table::new("deliveries")?;
    for (name, esp) in queue::esps(smtp.at, http.at).into_iter().filter(|(name, _)| wanted(name)) {
        let (took, cpu) = runtime.block_on(queue::drained(&esp, messages))?;
        let rate = table.row(name, messages, took, cpu)?;
        if let Some(bare) = bare.filter(|_| name == "ses") {
            writeln!(std::io::stdout(), "{:>49.2}x of the calls of a bare SDK loop", rate / bare)?;
        }
    }
    Ok(())
}

/// Rows beside the first of them.
struct Table {
    first: Option<f64>,
}

impl Table {
    fn new(what: &str) -> Result<Self, Failure> {
        let rate = format!("{what}/s");
        writeln!(std::io::stdout(), "{:<10} {rate:>14} {:>12} {:>10}", "esp", "CPU us each", "of the 1st")?;
        Ok(Table { first: None })
    }

    /// Prints one, and returns its rate.
    fn row(&mut self, name: &str, count: usize, took: Duration, cpu_seconds: f64) -> Result<f64, Failure> {
        let rate = count as f64 / took.as_secs_f64();
        let first = *self.first.get_or_insert(rate);
        let each = cpu_seconds * 1e6 / count as f64;
        writeln!(std::io::stdout(), "{name:<10} {rate:>14.0} {each:>12.0} {:>9.2}x", rate / first)?;
        Ok(rate)
    }
}

/// 4 KB, text and HTML.
fn content() -> String {
    let line = "Your order is on its way; it will be with you in a few days. ";
    format!(
        "From: Shop <shop@example.com>\r\nTo: Jane Doe <jane@example.org>\r\nSubject: Your order\r\n\
         Message-ID: <1@example.com>\r\nDate: Sat, 28 Nov 2026 12:00:00 +0000\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{}\
         \r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{}\r\n--b--\r\n",
        format!("{line}\r\n").repeat(26),
        format!("<p>{line}</p>\r\n").repeat(26),
    )
}

/// Seconds of CPU that a process has used.
fn cpu_seconds(process: &str) -> Result<f64, Failure> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, after_name) = stat.rsplit_once(") ").ok_or("/proc/…/stat has no name in it")?;
    let ticks = after_name.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}
