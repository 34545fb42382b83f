//! `postroad resolve FROM TO`: a dry run.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::text::{Table, json_line, relative, shown};
use super::{Common, Failure, reach};
use crate::clock::{Clock, System, Timestamp};
use crate::http::esp_shape::{Resolved, Standing};
use crate::http::esps::{read_from, read_to};
use crate::http::shape::Moment;
use crate::router::choose::BROADCAST_WAIT_MAX;

/// As the relay tells the kind of a stream.
const BROADCAST: &str = "broadcast";

/// A mail that there is not.
#[derive(Debug, Clone, Args)]
pub(super) struct Question {
    /// Whose mail: the address in From, its domain, or "<>"
    #[arg(value_parser = whose)]
    from: String,
    /// To whom
    #[arg(value_parser = to_whom)]
    to: String,
    /// In which stream [default: transactional]
    #[arg(long)]
    stream: Option<String>,
}

/// What the relay would refuse is refused before it is asked.
fn whose(text: &str) -> Result<String, String> {
    read_from(text).map(|_| text.to_owned())
}

fn to_whom(text: &str) -> Result<String, String> {
    read_to(text).map(|_| text.to_owned())
}

/// `resolve FROM TO`
pub(super) async fn resolve(
    common: &Common,
    question: &Question,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut query = vec![("from", question.from.clone()), ("to", question.to.clone())];
    query.extend(question.stream.clone().map(|stream| ("stream", stream)));
    let resolved: Resolved = reach::relay(common).await?.get_json("/v1/resolve", &query).await?;
    if common.json {
        for esp in &resolved.esps {
            let mut line = json!(esp);
            line["stream"] = json!(resolved.stream);
            if let Some(suppressed) = &resolved.suppressed {
                line["suppressed"] = json!(suppressed);
            }
            json_line(out, &line)?;
        }
        return Ok(());
    }
    table(&resolved.esps).write(out)?;
    Ok(writeln!(out, "{}", in_a_sentence(&resolved, System.now()))?)
}

fn table(esps: &[Standing]) -> Table {
    let mut table = Table::new(&["RANK", "ESP", "PRIORITY", "WEIGHT", "WHY NOT"]);
    for esp in esps {
        table.row([
            esp.rank.map_or_else(|| "-".into(), |rank| rank.to_string()),
            esp.name.clone(),
            esp.priority.to_string(),
            esp.weight.to_string(),
            why_not(esp),
        ]);
    }
    table
}

fn why_not(esp: &Standing) -> String {
    match (&esp.why, esp.rate_opens_at) {
        (Some(why), _) => why.clone(),
        (None, Some(at)) => format!("its rate is used up until {at}"),
        (None, None) => String::new(),
    }
}

/// What would become of it, in plain words.
fn in_a_sentence(resolved: &Resolved, now: Timestamp) -> String {
    let stream = format!("stream {}", shown(&resolved.stream));
    if let Some(suppressed) = &resolved.suppressed {
        return format!("it would be refused at RCPT: {}; {stream}", shown(suppressed));
    }
    let ranked: Vec<&Standing> = resolved.esps.iter().filter(|esp| esp.rank.is_some()).collect();
    let Some(first) = ranked.first() else { return format!("{}; {stream}", nobody(&resolved.esps, now)) };
    // A campaign rather waits for its ESP, up to a minute.
    let waits = resolved.kind == BROADCAST
        && first.rate_opens_at.is_some_and(|at| at.0.since(now) < BROADCAST_WAIT_MAX);
    let carrier = ranked.iter().find(|esp| esp.rate_opens_at.is_none()).filter(|_| !waits);
    let Some(carrier) = carrier else {
        let opens = |esp: &&&Standing| esp.rate_opens_at.map(|at| at.0);
        let soonest =
            ranked.iter().take(if waits { 1 } else { usize::MAX }).min_by_key(opens).unwrap_or(first);
        let at = soonest.rate_opens_at.map_or_else(String::new, |at| format!(" {}", until(at, now)));
        return format!("it would wait{at} for {}, whose rate is used up; {stream}", shown(&soonest.name));
    };
    let peers = ranked.iter().filter(|esp| esp.priority == carrier.priority && esp.rate_opens_at.is_none());
    let names: Vec<String> = peers.map(|esp| shown(&esp.name)).collect();
    let shared = if names.len() > 1 { ", shared by weight" } else { "" };
    format!("{} would carry it{shared}; {stream}", names.join(" or "))
}

/// Where it goes nowhere: for what it would wait, or that it would not be taken.
fn nobody(esps: &[Standing], now: Timestamp) -> String {
    let waits = |esp: &Standing| {
        let name = shown(&esp.name);
        match (esp.ends.as_deref(), esp.until) {
            (Some("never"), _) => None,
            (_, Some(at)) => Some(format!("{} for {name}", until(at, now))),
            (Some("operator"), _) => Some(format!("for {name} until an operator resumes it")),
            (_, None) => Some(format!("for {name}, which is tried again by itself")),
        }
    };
    let waits: Vec<String> = esps.iter().filter_map(waits).collect();
    match waits.is_empty() {
        true => "no ESP may carry it: it would be refused, until the configuration says otherwise".into(),
        false => format!("no ESP takes it now: it would wait {}", waits.join(", or ")),
    }
}

fn until(at: Moment, now: Timestamp) -> String {
    format!("until {at} ({})", relative(at.0, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_millis(1_796_000_000_000);

    fn after(seconds: u64) -> Option<Moment> {
        Some(Moment(NOW.plus(Duration::from_secs(seconds))))
    }

    fn ranked(rank: usize, priority: u32, rate_opens_at: Option<Moment>) -> Standing {
        let name = ["main", "second", "third"][rank - 1].to_owned();
        let (rank, why, ends, until) = (Some(rank), None, None, None);
        Standing { name, priority, weight: 100, rank, why, ends, until, rate_opens_at }
    }

    fn passed(name: &str, ends: &str, until: Option<Moment>) -> Standing {
        let (why, ends) = (Some("why".to_owned()), Some(ends.to_owned()));
        Standing { name: name.into(), rank: None, why, ends, until, ..ranked(1, 1, None) }
    }

    #[test]
    fn the_last_line_says_what_would_become_of_it() {
        let minute = "2026-11-30T00:54:20.000Z (in 1 min)";
        assert_eq!(after(60).unwrap().to_string(), "2026-11-30T00:54:20.000Z");
        for (kind, esps, expected) in [
            ("transactional", vec![ranked(1, 1, None)], "main would carry it".to_owned()),
            (
                "transactional",
                vec![ranked(1, 1, None), ranked(2, 1, None), ranked(3, 2, None)],
                "main or second would carry it, shared by weight".into(),
            ),
            (
                "transactional",
                vec![ranked(1, 1, after(20)), ranked(2, 2, None)],
                "second would carry it".into(),
            ),
            ("broadcast", vec![ranked(1, 1, after(60)), ranked(2, 2, None)], "second would carry it".into()),
            (
                "transactional",
                vec![ranked(1, 1, after(90)), ranked(2, 2, after(60))],
                format!("it would wait until {minute} for second, whose rate is used up"),
            ),
            (
                "transactional",
                vec![passed("main", "at", after(60)), passed("second", "by_itself", None)],
                format!(
                    "no ESP takes it now: it would wait until {minute} for main, or for second, which is tried \
                     again by itself"
                ),
            ),
            (
                "transactional",
                vec![passed("main", "operator", None), passed("second", "never", None)],
                "no ESP takes it now: it would wait for main until an operator resumes it".into(),
            ),
            (
                "transactional",
                vec![passed("main", "never", None)],
                "no ESP may carry it: it would be refused, until the configuration says otherwise".into(),
            ),
        ] {
            let resolved = Resolved { stream: "s".into(), kind: kind.into(), suppressed: None, esps };
            assert_eq!(in_a_sentence(&resolved, NOW), format!("{expected}; stream s"));
        }
        let esps = vec![ranked(1, 1, after(20)), ranked(2, 2, None)];
        let campaign = Resolved { stream: "s".into(), kind: "broadcast".into(), suppressed: None, esps };
        let told = in_a_sentence(&campaign, NOW);
        assert!(told.starts_with("it would wait until ") && told.contains(" for main, "), "{told}");
        let refused = Resolved { suppressed: Some("550 5.1.1 suppressed (hard bounce)".into()), ..campaign };
        let told = in_a_sentence(&refused, NOW);
        assert_eq!(told, "it would be refused at RCPT: 550 5.1.1 suppressed (hard bounce); stream s");
    }
}
