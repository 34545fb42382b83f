//! `postroad esp setup` and `postroad webhook test`: an ESP's webhook, set up and tried.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::esp::{path_of, tell_each};
use super::reach;
use super::text::{Table, json_line, shown};
use super::{Common, Failure};
use crate::http::webhooks::{Arranged, EspSetUp, ThingState, WebhookTest, WebhookTested, read_timeout};

/// Each of the ESP's answers has its own limit; there are a handful.
const SET_UP_MAX: Duration = Duration::from_secs(150);
/// Beside the wait for the event: the calls before it.
const BEFORE_MAX: Duration = Duration::from_secs(60);

/// What is done about webhooks.
#[derive(Debug, Subcommand)]
pub(super) enum WebhookCommand {
    /// Have a provider send an event, and follow it from the public URL to the database; done where it is there
    #[command(
        after_help = "SendGrid is asked for its test call, SES is given a mail to its simulator (--from), and for Postmark \
            the relay posts an event to its own public URL, with the proof. Nobody is suppressed by a trial.\n\n\
            Example: postroad webhook test postmark --timeout 30s"
    )]
    Test {
        /// The ESP, as [[esp]] names it
        name: String,
        /// How long the event is waited for
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = timeout)]
        timeout: String,
        /// Whom a mail to the simulator comes from: an address that the ESP lets you send from [default: [server] dsn_from,
        /// else the ESP's envelope_from]
        #[arg(long, value_name = "ADDRESS", env = "POSTROAD_FROM")]
        from: Option<String>,
    },
}

/// What the relay would refuse is refused before it is asked.
fn timeout(text: &str) -> Result<String, String> {
    read_timeout(text).map(|_| text.to_owned())
}

/// `webhook …`
pub(super) async fn run(
    common: &Common,
    command: WebhookCommand,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let WebhookCommand::Test { name, timeout, from } = command;
    let within = read_timeout(&timeout).map_err(Failure::Usage)?;
    let client = reach::relay(common).await?;
    let asked = WebhookTest { from, timeout: Some(timeout) };
    let path = path_of(&name, "webhook-test")?;
    let tested: WebhookTested = client.post_within(&path, &asked, within + BEFORE_MAX).await?;
    match common.json {
        true => json_line(out, &json!(tested))?,
        false => {
            tell_each(&tested.steps, out)?;
            match &tested.said {
                None => writeln!(out, "{}: its events come here and are taken", shown(&name))?,
                Some(said) => writeln!(out, "{}: {}", shown(&name), shown(said))?,
            }
        }
    }
    match tested.ok {
        true => Ok(()),
        false => Err(Failure::Failed(format!("no event of {name} has come"))),
    }
}

/// `esp setup NAME`
pub(super) async fn set_up(
    common: &Common,
    name: &str,
    apply: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let client = reach::relay(common).await?;
    let path = path_of(name, "setup")?;
    let arranged: Arranged = client.post_within(&path, &EspSetUp { apply }, SET_UP_MAX).await?;
    match common.json {
        true => json_line(out, &json!(arranged))?,
        false => tell(&arranged, out)?,
    }
    match (arranged.ok, apply) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::Failed(format!("{name} is not set up"))),
        (false, false) => Err(Failure::Failed(format!("it could not be seen how {name} stands"))),
    }
}

fn tell(arranged: &Arranged, out: &mut impl Write) -> Result<(), Failure> {
    let name = shown(&arranged.esp);
    let Some(url) = &arranged.url else {
        let why = "an ESP of this type tells nothing by webhook";
        return Ok(writeln!(out, "{name}: nothing to set up, {why}")?);
    };
    writeln!(out, "The webhook of {name} is {}", shown(url))?;
    let mut table = Table::new(&["WHAT", "STATE", "SAID"]);
    for thing in &arranged.things {
        table.row([thing.what.clone(), word(thing.state).to_owned(), thing.said.clone()]);
    }
    table.write(out)?;
    if !arranged.keys.is_empty() {
        writeln!(out, "\nTo be written at [[esp]] name = \"{name}\", and then: postroad reload")?;
    }
    for line in &arranged.keys {
        writeln!(out, "{} = {}", line.key, shown(&line.value))?;
    }
    for by_hand in &arranged.by_hand {
        writeln!(out, "\nBy hand: {}", shown(&by_hand.what))?;
        for command in &by_hand.commands {
            writeln!(out, "  {}", shown(command))?;
        }
    }
    let any = |states: &[ThingState]| arranged.things.iter().any(|thing| states.contains(&thing.state));
    let done = match arranged.applied {
        true if any(&[ThingState::Made, ThingState::Changed]) => "the provider was changed as said above",
        true => "nothing was changed at the provider",
        false if any(&[ThingState::Missing, ThingState::Differs]) => {
            "nothing was changed; --apply does what the provider's API allows"
        }
        false => "nothing was changed",
    };
    Ok(writeln!(out, "\n{name}: {done}")?)
}

fn word(state: ThingState) -> &'static str {
    match state {
        ThingState::There => "there",
        ThingState::Missing => "missing",
        ThingState::Differs => "differs",
        ThingState::Made => "made",
        ThingState::Changed => "changed",
        ThingState::Failed => "failed",
    }
}
