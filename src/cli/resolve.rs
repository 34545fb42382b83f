//! `postroad resolve FROM TO`: a dry run.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::text::{Table, json_line, shown};
use super::{Common, Failure, reach};
use crate::http::esp_shape::{Resolved, Standing};
use crate::http::esps::{read_from, read_to};

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
            json_line(out, &line)?;
        }
        return Ok(());
    }
    table(&resolved.esps).write(out)?;
    Ok(writeln!(out, "{}", in_a_sentence(&resolved))?)
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

fn in_a_sentence(resolved: &Resolved) -> String {
    let first = resolved.esps.iter().find(|esp| esp.rank == Some(1));
    let Some(first) = first else {
        return "no ESP takes it now: it would wait, or be refused where none ever could".into();
    };
    let peers: Vec<_> =
        resolved.esps.iter().filter(|esp| esp.rank.is_some() && esp.priority == first.priority).collect();
    match peers.len() {
        1 => format!("{} would carry it; stream {}", shown(&first.name), shown(&resolved.stream)),
        _ => {
            let names: Vec<String> = peers.iter().map(|esp| shown(&esp.name)).collect();
            let names = names.join(" or ");
            format!("{names} would carry it, shared by weight; stream {}", shown(&resolved.stream))
        }
    }
}
