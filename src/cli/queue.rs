//! `postroad queue …`

use std::io::Write;

use serde_json::json;

use super::explain::state_in_words;
use super::text::{Table, cut, json_line, relative, shown, size};
use super::{Common, Failure, ListArguments, reach};
use crate::clock::{Clock, System, Timestamp};
use crate::http::esp_shape::Suspension;
use crate::http::messages::{IDS_MAX, PAGE_MAX};
use crate::http::shape::{Acted, ActedOn, Delivery, Life, Moment, read_cursor};
use crate::mail::MessageId;
use crate::store::{Act, Filter};

/// A last answer is cut to this in the table; `explain` has it whole.
const SAID_SHOWN_CHARACTERS: usize = 60;

/// `queue list`
pub(super) async fn list(
    common: &Common,
    options: &ListArguments,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let source = reach::source(common).await?;
    let mut filter = Filter {
        states: options.state.clone(),
        stream: options.stream.clone(),
        recipient: options.to.clone(),
        before: None,
        limit: 0,
    };
    let mut left = if options.limit == 0 { usize::MAX } else { options.limit };
    let now = System.now();
    let (mut listed, mut paused) = (0, None);
    while left > 0 {
        filter.limit = left.min(PAGE_MAX);
        let page = source.list(&filter).await?;
        left = left.saturating_sub(page.deliveries.len());
        if common.json {
            for delivery in &page.deliveries {
                json_line(out, &json!(delivery))?;
            }
        } else if !page.deliveries.is_empty() {
            table(&page.deliveries, now).write(out)?;
        }
        listed += page.deliveries.len();
        paused = page.paused;
        filter.before = page.next.as_deref().and_then(read_cursor);
        if filter.before.is_none() || (left == 0 && is_last(&source, &filter).await?) {
            left = usize::MAX;
            break;
        }
    }
    if !common.json {
        summary(out, listed, left == 0, options.state.is_empty())?;
        if let Some(Suspension { reason, since, .. }) = paused {
            writeln!(out, "all sending is paused since {since}: {}", shown(&reason))?;
        }
    }
    Ok(())
}

/// Whether nothing comes behind that place.
async fn is_last(source: &reach::Source, filter: &Filter) -> Result<bool, Failure> {
    let next = Filter { limit: 1, ..filter.clone() };
    Ok(source.list(&next).await?.deliveries.is_empty())
}

fn summary(out: &mut impl Write, listed: usize, more: bool, unfinished: bool) -> std::io::Result<()> {
    match (listed, more) {
        (0, _) if unfinished => writeln!(out, "nothing in the queue; --state done lists what has left it"),
        (0, _) => writeln!(out, "nothing in that state"),
        (n, true) => writeln!(out, "the newest {n}; --limit 0 lists all"),
        (_, false) => Ok(()),
    }
}

fn table(deliveries: &[Delivery], now: Timestamp) -> Table {
    let mut table =
        Table::new(&["ID", "STATE", "NEXT", "TRIES", "AGE", "SIZE", "STREAM", "FROM", "TO", "LAST ANSWER"]);
    for delivery in deliveries {
        // What is paused stays, also where its hold ends meanwhile; what was due before is due now.
        let at = delivery.due.or(delivery.until).filter(|_| delivery.state != "paused");
        let next = at.map_or_else(|| "-".into(), |at| relative(at.0.max(now), now));
        let age = super::text::duration(now.since(delivery.accepted_at.0));
        table.row([
            delivery.id.clone(),
            delivery.state.clone(),
            next,
            delivery.tries.to_string(),
            age,
            size(delivery.size),
            delivery.stream.clone(),
            format!("<{}>", delivery.sender),
            format!("<{}>", delivery.recipient),
            cut(delivery.said.as_deref().unwrap_or(""), SAID_SHOWN_CHARACTERS),
        ]);
    }
    table
}

/// `queue show ID`
pub(super) async fn show(common: &Common, id: MessageId, out: &mut impl Write) -> Result<(), Failure> {
    let life = reach::source(common).await?.show(id).await?;
    if common.json {
        json_line(out, &json!(life))?;
    } else {
        write_show(&life, System.now(), out)?;
    }
    Ok(())
}

fn write_show(life: &Life, now: Timestamp, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{} from <{}>, {}, stream {}",
        life.id,
        shown(&life.sender),
        size(life.size),
        shown(&life.stream)
    )?;
    for delivery in &life.deliveries {
        let state = state_in_words(life, delivery, now);
        writeln!(out, "  <{}>  {state}", shown(&delivery.recipient))?;
    }
    let content = match life.body_kept {
        true => "queue show --raw prints the content",
        false => "its content is gone ([retention] bodies, or the disk was nearly full)",
    };
    writeln!(out, "explain {} tells its whole life; {content}", life.id)
}

/// A mail's octets are no text of any one encoding.
pub(super) const RAW_IS_NO_JSON: &str = "--raw prints the mail octet for octet and goes without --json; \
                                         --json alone prints its life";

/// `queue show ID --raw`
pub(super) async fn raw(common: &Common, id: MessageId, out: &mut impl Write) -> Result<(), Failure> {
    reach::source(common).await?.raw(id, out).await
}

/// `queue requeue`
pub(super) async fn requeue(common: &Common, ids: &[MessageId], out: &mut impl Write) -> Result<(), Failure> {
    let client = reach::relay(common).await?;
    let mut missing = Vec::new();
    for some in ids.chunks(IDS_MAX) {
        let ids: Vec<String> = some.iter().map(ToString::to_string).collect();
        let acted: Acted = client.post("/v1/queue/requeue", &json!({ "ids": ids })).await?;
        write_acted(common, &acted, "in the queue again", out)?;
        missing.extend(acted.results.into_iter().filter(|result| !result.found).map(|result| result.id));
    }
    none_missing(&missing)
}

/// `queue flush`, `pause`, `release`, `rm`
pub(super) async fn act(
    common: &Common,
    act: Act,
    ids: &[MessageId],
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (path, done) = match act {
        Act::Flush => ("/v1/queue/flush", "due now"),
        Act::Pause => ("/v1/queue/pause", "paused"),
        Act::Release => ("/v1/queue/release", "released"),
        Act::Remove => ("/v1/queue/remove", "removed"),
    };
    let client = reach::relay(common).await?;
    if ids.is_empty() {
        let acted: Acted = client.post(path, &json!({ "all": true })).await?;
        return Ok(write_all_acted(common, &acted, done, out)?);
    }
    let mut missing = Vec::new();
    for some in ids.chunks(IDS_MAX) {
        let ids: Vec<String> = some.iter().map(ToString::to_string).collect();
        let acted = match client.post::<Acted>(path, &json!({ "ids": ids })).await {
            Ok(acted) => acted,
            // What it says where it has none of them.
            Err(Failure::NotFound(_)) => none_of(ids),
            Err(failure) => return Err(failure),
        };
        write_acted(common, &acted, done, out)?;
        let not_found = acted.results.into_iter().filter(|result| !result.found);
        missing.extend(not_found.map(|result| result.id));
    }
    none_missing(&missing)
}

fn none_missing(missing: &[String]) -> Result<(), Failure> {
    match missing {
        [] => Ok(()),
        missing => Err(Failure::NotFound(format!("no message {}", missing.join(", ")))),
    }
}

fn none_of(ids: Vec<String>) -> Acted {
    let results =
        ids.into_iter().map(|id| ActedOn { id, deliveries: 0, out: 0, found: false, due: None, why: None });
    Acted { deliveries: 0, results: results.collect(), warnings: Vec::new() }
}

fn write_all_acted(common: &Common, acted: &Acted, done: &str, out: &mut impl Write) -> std::io::Result<()> {
    if common.json {
        return json_line(out, &json!({ "deliveries": acted.deliveries }));
    }
    writeln!(out, "{} {done}", deliveries(acted.deliveries))
}

fn write_acted(common: &Common, acted: &Acted, done: &str, out: &mut impl Write) -> std::io::Result<()> {
    for result in &acted.results {
        if common.json {
            json_line(out, &json!(result))?;
        } else if result.deliveries > 0 {
            write_done(result, done, out)?;
        } else if result.found {
            let why = result.why.as_deref().unwrap_or("its deliveries stand elsewhere");
            writeln!(out, "{}: nothing to change; {why}", result.id)?;
        } else {
            writeln!(out, "{}: not found", result.id)?;
        }
    }
    for warning in &acted.warnings {
        let mut err = std::io::stderr();
        let _ = match common.json {
            true => json_line(&mut err, &json!({ "warning": warning })),
            false => writeln!(err, "postroad: {}", shown(warning)),
        };
    }
    Ok(())
}

fn write_done(result: &ActedOn, done: &str, out: &mut impl Write) -> std::io::Result<()> {
    let at_once = result.deliveries.saturating_sub(result.out);
    if at_once > 0 {
        writeln!(out, "{}: {} {done}", result.id, deliveries(at_once))?;
    }
    if let Some(Moment(due)) = result.due {
        writeln!(
            out,
            "{}: not before {due} ({}), as its app asked; queue flush {} sends it now",
            result.id,
            relative(due, System.now()),
            result.id
        )?;
    }
    if result.out > 0 {
        let many = deliveries(result.out);
        writeln!(
            out,
            "{}: {many} on the way to an ESP now: {done} when the call ends, unless the ESP has taken the mail, which \
             cannot be called back",
            result.id
        )?;
    }
    Ok(())
}

fn deliveries(n: u64) -> String {
    if n == 1 { "1 delivery".into() } else { format!("{n} deliveries") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fake::{ACCEPTED, DUE, attempt, message, out};
    use crate::http::shape::Life;
    use crate::mail::QueueState;
    use crate::mail::delivery::PausedFrom;

    #[test]
    fn next_is_never_in_the_past_and_what_is_paused_has_none() {
        let unsure = |until| QueueState::Unsure { attempt: attempt(11), until };
        let paused_at = |until| PausedFrom::Unsure { attempt: attempt(11), until };
        let (past, next) = (ACCEPTED, DUE.plus(std::time::Duration::from_secs(120)));
        for (state, told) in [
            (QueueState::Waiting { due: next }, "in 2 min"),
            (QueueState::Waiting { due: past }, "now"),
            (unsure(next), "in 2 min"),
            (unsure(past), "now"),
            (QueueState::Paused { from: paused_at(next) }, "-"),
            (QueueState::Paused { from: paused_at(past) }, "-"),
            (QueueState::Paused { from: PausedFrom::Waiting }, "-"),
            (out(11), "-"),
        ] {
            let mut text = Vec::new();
            table(&Life::from(message(1, state, "")).deliveries, DUE).write(&mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            let (head, row) = text.split_once('\n').unwrap();
            let at = head.find("NEXT").unwrap()..head.find("TRIES").unwrap();
            assert_eq!(row[at].trim(), told, "{state:?}: {text}");
        }
    }

    #[test]
    fn what_is_out_is_not_said_to_be_removed() {
        let told = |deliveries, out| {
            let result = ActedOn { id: "x".into(), deliveries, out, found: true, due: None, why: None };
            let mut text = Vec::new();
            write_done(&result, "removed", &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(told(2, 0), "x: 2 deliveries removed\n");
        let out = "x: 1 delivery on the way to an ESP now: removed when the call ends, unless the ESP has taken the mail, \
                   which cannot be called back\n";
        assert_eq!(told(1, 1), out);
        assert_eq!(told(2, 1), format!("x: 1 delivery removed\n{out}"));
    }
}
