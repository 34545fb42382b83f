//! `postroad esp …`

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::reach::{self, Client};
use super::text::{Table, cut, json_line, relative, seconds, shown};
use super::{Common, Failure, webhook};
use crate::clock::{Clock, System, Timestamp};
use crate::http::esp_shape::{Esp, Esps, Step, Tried};
use crate::http::esps::{read_for, read_reason};
use crate::http::letters::Mail;
use crate::http::send::Sent;

/// Why it gets no mail, and its last error, are cut to this in the table; `--json` has them whole.
const SAID_SHOWN_CHARACTERS: usize = 60;

/// What is asked of the ESPs.
#[derive(Debug, Subcommand)]
pub(super) enum EspCommand {
    /// How each stands, in the configuration's order
    #[command(after_help = "Example: postroad esp list --json")]
    List,
    /// Give one no more mail, until it is resumed or a time is over; that survives a restart
    #[command(after_help = "What is on its way to it goes on.\n\n\
            Example: postroad esp suspend ses-main --reason \"invoice dispute\" --for 2h")]
    Suspend {
        /// The ESP, as [[esp]] names it
        name: String,
        /// Why: whoever asks later why mail did not go there is told so
        #[arg(long, value_name = "TEXT", value_parser = read_reason)]
        reason: String,
        /// For how long, such as 30s, 5m, 2h or 1d [default: until it is resumed]
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        time: Option<String>,
    },
    /// Connect and log in to one, without a mail, and tell each step; with --send one mail goes there
    #[command(
        after_help = "Example: postroad esp test ses-main --send you@example.net --from app@example.com"
    )]
    Test {
        /// The ESP, as [[esp]] names it
        name: String,
        /// Also send one mail there
        #[arg(long, value_name = "ADDRESS")]
        send: Option<String>,
        /// Who writes it: an address that the ESP lets you send from [default: [server] dsn_from, else the ESP's
        /// envelope_from]
        #[arg(long, value_name = "ADDRESS", env = "POSTROAD_FROM", requires = "send")]
        from: Option<String>,
    },
    /// What one needs to tell what becomes of mail: its webhook's URL, events and keys, and how they stand there
    #[command(
        after_help = "Without --apply the provider is only asked how it stands. With it what its API allows is done: a webhook \
            to this URL is made or completed, others are left alone, nothing is taken away; a second time nothing changes. \
            What the relay has no way to do is printed as commands. The URL is [http] public_url with /webhooks/NAME.\n\n\
            Example: postroad esp setup postmark --apply"
    )]
    Setup {
        /// The ESP, as [[esp]] names it
        name: String,
        /// Do it
        #[arg(long)]
        apply: bool,
    },
    /// Let one have mail again; also opens a gate that faults have shut
    #[command(after_help = "Example: postroad esp resume ses-main")]
    Resume {
        /// The ESP, as [[esp]] names it
        name: String,
    },
}

/// What the relay would refuse is refused before it is asked.
fn time(text: &str) -> Result<String, String> {
    read_for(text).map(|_| text.to_owned())
}

/// `esp …`
pub(super) async fn run(common: &Common, command: EspCommand, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        EspCommand::List => list(common, out).await,
        EspCommand::Suspend { name, reason, time } => {
            suspend(common, &name, &reason, time.as_deref(), out).await
        }
        EspCommand::Test { name, send, from } => test(common, &name, send.map(|to| (to, from)), out).await,
        EspCommand::Setup { name, apply } => webhook::set_up(common, &name, apply, out).await,
        EspCommand::Resume { name } => resume(common, &name, out).await,
    }
}

/// `esp list`
async fn list(common: &Common, out: &mut impl Write) -> Result<(), Failure> {
    let found: Esps = reach::relay(common).await?.get_json("/esp-status", &[]).await?;
    if !common.json {
        return Ok(table(&found.esps, System.now()).write(out)?);
    }
    for esp in &found.esps {
        json_line(out, &json!(esp))?;
    }
    Ok(())
}

fn table(esps: &[Esp], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "PRIORITY",
        "WEIGHT",
        "GATE",
        "BEGUN",
        "CONNECTIONS",
        "LEFT",
        "USUAL",
        "WHY",
        "LAST ERROR",
    ]);
    for esp in esps {
        let last_error = esp.last_error.as_ref().map(|e| format!("{}: {}", relative(e.at.0, now), e.said));
        let said = |text: Option<&str>| cut(text.unwrap_or("-"), SAID_SHOWN_CHARACTERS);
        table.row([
            esp.name.clone(),
            esp.priority.to_string(),
            esp.weight.to_string(),
            esp.gate.clone(),
            esp.begun.to_string(),
            connections(esp),
            esp.allowance_remaining.map_or_else(|| "-".into(), |left| left.to_string()),
            usual(esp.usual_seconds),
            said(why(esp, now).as_deref()),
            said(last_error.as_deref()),
        ]);
    }
    table
}

/// How many at a time, where it allows fewer than it is to have: `2 of 10`.
fn connections(esp: &Esp) -> String {
    let most = esp.max_connections;
    esp.learnt_connections.map_or_else(|| most.to_string(), |learnt| format!("{learnt} of {most}"))
}

/// Why it gets no mail now; else what is wrong all the same, what waits for its rate, and whose mail it is not given.
fn why(esp: &Esp, now: Timestamp) -> Option<String> {
    if esp.why.is_some() {
        return esp.why.clone();
    }
    let rate = esp.rate_opens_at.map(|at| format!("its rate is used up, again {}", relative(at.0, now)));
    let closed = esp.closed_senders.first().map(|first| {
        let more = match esp.closed_senders.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        format!("refused {}{more}, asked again {}", first.what, relative(first.until.0, now))
    });
    let own = format!("{}: ", esp.name);
    let alerts = esp.alerts.iter().map(|a| a.detail.strip_prefix(&own).unwrap_or(&a.detail).to_owned());
    let all: Vec<String> = alerts.chain(closed).chain(rate).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// What an answer takes of late; nothing was answered yet where it is nought.
fn usual(answer_seconds: f64) -> String {
    match Duration::try_from_secs_f64(answer_seconds) {
        Ok(time) if !time.is_zero() => seconds(time),
        Ok(_) | Err(_) => "-".into(),
    }
}

/// `esp suspend NAME`
async fn suspend(
    common: &Common,
    name: &str,
    reason: &str,
    time: Option<&str>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut body = json!({ "reason": reason });
    if let Some(time) = time {
        body["for"] = json!(time);
    }
    let esp: Esp = act(&reach::relay(common).await?, name, "suspend", &body).await?;
    if common.json {
        return Ok(json_line(out, &json!(esp))?);
    }
    let until = esp.suspension.as_ref().and_then(|suspension| suspension.until);
    let until = match until {
        Some(until) => format!("until {until} ({})", relative(until.0, System.now())),
        None => "until it is resumed".into(),
    };
    Ok(writeln!(out, "{}: suspended {until}: {}", shown(&esp.name), shown(reason))?)
}

/// `esp resume NAME`
async fn resume(common: &Common, name: &str, out: &mut impl Write) -> Result<(), Failure> {
    let esp: Esp = act(&reach::relay(common).await?, name, "resume", &json!({})).await?;
    if common.json {
        return Ok(json_line(out, &json!(esp))?);
    }
    let still = esp.why.as_deref().map_or_else(String::new, |why| format!(", but {}", shown(why)));
    Ok(writeln!(out, "{}: resumed{still}", shown(&esp.name))?)
}

/// `esp test NAME`
async fn test(
    common: &Common,
    name: &str,
    send: Option<(String, Option<String>)>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let client = reach::relay(common).await?;
    let tried: Tried = act(&client, name, "test", &json!({})).await?;
    match common.json {
        true => json_line(out, &json!(tried))?,
        false => tell_steps(&tried, send.is_some(), out)?,
    }
    if !tried.ok {
        let how = if tried.in_part { "can be used in part alone now" } else { "cannot be used now" };
        return Err(Failure::Failed(format!("{name} {how}")));
    }
    let Some((to, from)) = send else { return Ok(()) };
    let from = from.or(tried.from).ok_or_else(|| {
        let why =
            "neither [server] dsn_from nor an envelope_from of that ESP tells whom a test mail comes from";
        Failure::Usage(format!(
            "nothing was sent: {why}; name an address that it lets you send from: --from ADDRESS"
        ))
    })?;
    let mail = test_mail(name, to, from);
    let sent: Sent = client.post("/v1/send", &mail).await?;
    match common.json {
        true => Ok(json_line(out, &json!(sent))?),
        false => Ok(writeln!(out, "queued as {0}; see postroad explain {0}", sent.id)?),
    }
}

/// Each step with its time, then what comes of them; where a mail follows, what becomes of that says whether it is ready.
fn tell_steps(tried: &Tried, sends: bool, out: &mut impl Write) -> Result<(), Failure> {
    let name = shown(&tried.esp);
    match (tried.steps.is_empty(), &tried.said) {
        (true, None) => {
            return Ok(writeln!(out, "{name}: keeps mail on this machine, there is nowhere to go")?);
        }
        (false, _) => tell_each(&tried.steps, out)?,
        (true, Some(_)) => {}
    }
    match &tried.said {
        None => {
            let standing = if sends { "can be logged in to" } else { "ready for mail" };
            Ok(writeln!(out, "{name}: {standing}, after {}", took(tried.took_seconds))?)
        }
        Some(said) => Ok(writeln!(out, "{name}: {}", shown(said))?),
    }
}

/// A line for each step.
pub(super) fn tell_each(steps: &[Step], out: &mut impl Write) -> Result<(), Failure> {
    let mut table = Table::new(&["STEP", "TOOK", "SAID"]);
    for step in steps {
        let failed = if step.ok { "" } else { "failed: " };
        table.row([step.step.clone(), took(step.took_seconds), format!("{failed}{}", step.said)]);
    }
    Ok(table.write(out)?)
}

fn took(time_seconds: f64) -> String {
    seconds(Duration::try_from_secs_f64(time_seconds).unwrap_or_default())
}

fn test_mail(esp: &str, to: String, from: String) -> Mail {
    Mail {
        from,
        to: vec![to],
        subject: Some(format!("Test of {esp}")),
        text: Some(format!("Sent by Postroad through {esp}, to see that it arrives.\n")),
        esp: Some(esp.to_owned()),
        ..Mail::default()
    }
}

/// `pause`
pub(super) async fn pause_all(common: &Common, reason: &str, out: &mut impl Write) -> Result<(), Failure> {
    let esps: Esps = reach::relay(common).await?.post("/v1/pause", &json!({ "reason": reason })).await?;
    let begun: usize = esps.esps.iter().map(|esp| esp.begun).sum();
    let on_its_way = if begun > 0 { format!("; {begun} on their way go on") } else { String::new() };
    let told = format!("all sending is paused: {}; mail is taken and waits{on_its_way}", shown(reason));
    told_of_all(common, &esps, &told, out)
}

/// `unpause`
pub(super) async fn unpause_all(common: &Common, out: &mut impl Write) -> Result<(), Failure> {
    let esps: Esps = reach::relay(common).await?.post("/v1/unpause", &json!({})).await?;
    if let Some(paused) = esps.esps.iter().find(|esp| esp.gate == "paused") {
        let why = shown(paused.why.as_deref().unwrap_or_default());
        return told_of_all(
            common,
            &esps,
            &format!("that pause is over; sending is still paused: {why}"),
            out,
        );
    }
    let still: Vec<String> =
        esps.esps.iter().filter_map(|esp| Some(format!("{}: {}", esp.name, esp.why.as_ref()?))).collect();
    let still = if still.is_empty() { String::new() } else { format!("; {}", shown(&still.join("; "))) };
    told_of_all(common, &esps, &format!("sending goes on{still}"), out)
}

fn told_of_all(common: &Common, esps: &Esps, told: &str, out: &mut impl Write) -> Result<(), Failure> {
    if !common.json {
        return Ok(writeln!(out, "{told}")?);
    }
    for esp in &esps.esps {
        json_line(out, &json!(esp))?;
    }
    Ok(())
}

async fn act<T: DeserializeOwned>(
    client: &Client,
    name: &str,
    verb: &str,
    body: &Value,
) -> Result<T, Failure> {
    client.post(&path_of(name, verb)?, body).await
}

/// Where something is done to one.
pub(super) fn path_of(name: &str, verb: &str) -> Result<String, Failure> {
    // What no name has would make another path of it.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        let advice = "postroad esp list names them";
        return Err(Failure::NotFound(format!("there is no ESP named {name:?}; {advice}")));
    }
    Ok(format!("/v1/esps/{name}/{verb}"))
}
