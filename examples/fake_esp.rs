//! An ESP on a laptop, to see failover without an account: takes mail as SendGrid, SES or Postmark does, shows it, fails
//! on demand, and sends nothing.
//!
//! ```text
//! cargo run --example fake_esp -- sendgrid --port 8100 --key SG.x
//! ```

#![allow(clippy::print_stdout, reason = "a program that shows what it takes")]

use std::io::BufRead;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use support::esps::{Postmark, Sendgrid, Ses, Standin, Start, Vendor, faults};

#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "the tests' own stand-ins, of which this program uses a part"
)]
#[path = "../tests/support"]
mod support {
    pub mod esps;
    pub mod line;
    pub mod mailgen;
    pub mod port;
    pub mod tls;
    pub mod upstream;
    pub mod wait;

    pub use wait::wait_until;
}

/// How often what came is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

const COMMANDS: &str = "Commands, typed while it runs:
  fail FAULT [OCTETS|SECONDS] [xTIMES]   the next request, or the next TIMES, go wrong: fail throttled x3
  smtp FAULT                             the next SMTP session or mail is refused in the vendor's words
  heal                                   all is well again
  suppress ADDRESS                       it is mailed no more; `unsuppress ADDRESS` takes it back
  list                                   every FAULT there is
Ctrl-C ends it.";

/// Plays an ESP: takes mail over its HTTP API and by SMTP, shows it, and sends nothing.
#[derive(Parser)]
#[command(name = "fake_esp", after_help = COMMANDS)]
struct Arguments {
    /// Which ESP to play.
    #[arg(value_enum)]
    esp: Kind,
    /// The port of the HTTP API, on 127.0.0.1; a free one without it.
    #[arg(long)]
    port: Option<u16>,
    /// The port of the SMTP door, on 127.0.0.1; a free one without it.
    #[arg(long)]
    smtp_port: Option<u16>,
    /// The API key, server token or secret access key that it wants.
    #[arg(long)]
    key: Option<String>,
    /// SES only.
    #[arg(long, default_value = support::esps::ses::ACCESS_KEY_ID)]
    access_key_id: String,
    /// SES only.
    #[arg(long, default_value = support::esps::ses::REGION)]
    region: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Sendgrid,
    Ses,
    Postmark,
}

fn main() -> std::io::Result<()> {
    let given = Arguments::parse();
    let start = Start { port: given.port, smtp_port: given.smtp_port, ..Start::default() };
    let key = |default: &str| given.key.clone().unwrap_or_else(|| default.to_owned());
    match given.esp {
        Kind::Sendgrid => run(&Sendgrid::start_with(&key(support::esps::sendgrid::KEY), &start)?),
        Kind::Postmark => run(&Postmark::start_with(&key(support::esps::postmark::TOKEN), &start)?),
        Kind::Ses => {
            let secret = key(support::esps::ses::SECRET);
            run(&Ses::start_with(&given.access_key_id, &secret, &given.region, &start)?)
        }
    }
    Ok(())
}

fn run<V: Vendor>(esp: &Standin<V>) {
    let (user, password) = esp.smtp_login();
    println!("{} at {} with key {}", V::NAME, esp.url(), esp.key());
    println!("and by SMTP at {}: user {user}, password {password}", esp.smtp().address());
    println!("Type `list` for what can go wrong; Ctrl-C ends it.");
    std::thread::scope(|threads| {
        threads.spawn(|| show(esp));
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            println!("{}", command(esp, line.trim()));
        }
    });
}

/// Prints what came, for ever.
fn show<V: Vendor>(esp: &Standin<V>) {
    let (mut seen, mut taken) = (0, 0);
    loop {
        // A request is noted after its mail: what was seen is in the books by now.
        let requests = esp.server().seen_since(seen);
        for one in &requests {
            let status = one.status.map_or("no answer".to_owned(), |s| s.to_string());
            let lost = if one.status.is_some() && !one.answered { ", not told" } else { "" };
            let (request, octets) = (&one.request, one.request.body.len());
            println!("{} {} {octets} octets: {status}{lost}", request.method, request.path);
        }
        seen += requests.len();
        let mails = esp.books().since(taken);
        mails.iter().for_each(|mail| println!("  {:?} mail {}", mail.door, mail.line()));
        taken += mails.len();
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Does what was typed; gives what to say to it.
fn command<V: Vendor>(esp: &Standin<V>, line: &str) -> String {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    match verb {
        "" => String::new(),
        "fail" => fail(esp, rest),
        "smtp" if V::replies().iter().any(|(name, ..)| *name == rest) => {
            esp.fail_smtp(rest, 1);
            format!("the next SMTP session or mail: {rest}")
        }
        "heal" => {
            esp.heal();
            "all is well".into()
        }
        "suppress" => {
            esp.suppress(rest);
            format!("{rest} is mailed no more")
        }
        "unsuppress" => {
            esp.unsuppress(rest);
            format!("{rest} is mailed again")
        }
        "list" => list::<V>(),
        _ => COMMANDS.into(),
    }
}

fn fail<V: Vendor>(esp: &Standin<V>, text: &str) -> String {
    let times = text.split(' ').find_map(|w| w.strip_prefix('x')?.parse().ok()).unwrap_or(1);
    let words: Vec<&str> = text.split(' ').filter(|w| !is_times(w)).collect();
    match faults::parse(&words.join(" "), &V::errors()) {
        Some(fault) => {
            esp.fail(fault, times);
            format!("the next {times} of the HTTP requests with mail: {}", words.join(" "))
        }
        None => format!("no such fault: {text}. `list` shows them"),
    }
}

fn is_times(word: &str) -> bool {
    word.strip_prefix('x').is_some_and(|n| n.parse::<usize>().is_ok())
}

fn list<V: Vendor>() -> String {
    let mut out = format!("fail, {}'s own answers:\n ", V::NAME);
    V::errors().iter().for_each(|(name, response)| out += &format!(" {name} ({})", response.status));
    out += "\nfail, of the line:\n";
    faults::WORDS.iter().for_each(|(word, what)| out += &format!("  {word:<24} {what}\n"));
    out += "smtp:\n";
    V::replies().iter().for_each(|(name, _, reply)| out += &format!("  {name:<24} {reply}\n"));
    out
}
