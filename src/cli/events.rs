//! `postroad events`: what happened, newest first, or as it happens.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use tokio::time::Instant;

use super::reach::{self, Client, Source, broken};
use super::text::{Table, json_line, relative, shown};
use super::{Common, Failure};
use crate::clock::{Clock, System, monotonic};
use crate::http::events::{Happened, HappenedPage};
use crate::http::follow::{NOTICE, Notice};

/// A page of what is asked for, at most.
const PAGE: usize = 1000;
/// Between two connections.
const AGAIN: Duration = Duration::from_millis(500);
/// A relay that restarts is back by then.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// One event as JSON is far shorter.
const LINE_OCTETS_MAX: usize = 1_000_000;

/// `events`
pub(super) async fn list(
    common: &Common,
    unmatched: bool,
    limit: usize,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let source = reach::source(common).await?;
    let mut table = Table::new(&["WHEN", "EVENT", "PROVIDER", "MESSAGE", "JOINED BY", "ADDRESS", "DETAIL"]);
    let (mut left, mut cursor, now) = (limit, None::<i64>, System.now());
    while left > 0 {
        let page = page(&source, unmatched, left.min(PAGE), cursor).await?;
        let Some(last) = page.last() else { break };
        (left, cursor) = (left.saturating_sub(page.len()), Some(last.number));
        for event in &page {
            match common.json {
                true => json_line(out, &json!(event))?,
                false => table.row(cells(event, relative(event.at.0, now))),
            }
        }
    }
    if common.json { Ok(()) } else { Ok(table.write(out)?) }
}

async fn page(
    source: &Source,
    unmatched: bool,
    limit: usize,
    before: Option<i64>,
) -> Result<Vec<Happened>, Failure> {
    match source {
        Source::Relay(client) => {
            let mut query = vec![("limit", limit.to_string()), ("unmatched", unmatched.to_string())];
            query.extend(before.map(|before| ("cursor", before.to_string())));
            Ok(client.get_json::<HappenedPage>("/v1/events", &query).await?.events)
        }
        Source::Database { queue, .. } => {
            let told = queue.events(unmatched, before.unwrap_or(i64::MAX), limit).await.map_err(broken)?;
            Ok(told.into_iter().map(Into::into).collect())
        }
    }
}

/// An event's word, with what an ESP said beyond it: a bounce's class, its own name of what is `other` here.
pub(super) fn kind_in_words(kind: &str, class: Option<&str>, told_as: Option<&str>) -> String {
    let more = match kind {
        "other" => told_as,
        _ => class,
    };
    let more = more.map_or_else(String::new, |more| format!(" ({})", shown(more)));
    format!("{}{more}", shown(kind))
}

fn cells(event: &Happened, when: String) -> [String; 7] {
    let or_none = |text: Option<&str>| text.map_or_else(|| "-".into(), shown);
    [
        when,
        kind_in_words(&event.kind, event.class.as_deref(), event.told_as.as_deref()),
        or_none(event.esp.as_deref()),
        event.message.clone().unwrap_or_else(|| "-".into()),
        or_none(event.joined_by.as_deref()),
        or_none(event.address.as_deref()),
        shown(&event.detail),
    ]
}

/// `events --follow`: until nobody reads, or the relay is gone for good.
pub(super) async fn follow(common: &Common, unmatched: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (mut last, mut lost) = (String::new(), None::<Instant>);
    loop {
        let heard = match reach::relay(common).await {
            Ok(client) => listen(common, &client, unmatched, &mut last, &mut lost, out).await,
            Err(failure) => Err(failure),
        };
        match heard {
            // A stream ends when the relay restarts, and its connection has a time: what it told stays told.
            Ok(()) => {}
            // It was there before: it may be again.
            Err(Failure::NoRelay(why)) if !last.is_empty() => {
                if lost.get_or_insert_with(monotonic).elapsed() > GONE_AFTER {
                    return Err(Failure::NoRelay(why));
                }
            }
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What is between two empty lines of a stream, as far as it is told.
#[derive(Debug, Default)]
struct Block {
    id: String,
    is_notice: bool,
    data: Vec<u8>,
}

impl Block {
    /// One more line, without its end.
    fn take(&mut self, line: &[u8]) {
        let value = |name: &[u8]| line.strip_prefix(name).map(<[u8]>::trim_ascii);
        if let Some(id) = value(b"id:") {
            self.id = String::from_utf8_lossy(id).into_owned();
        } else if let Some(kind) = value(b"event:") {
            self.is_notice = kind == NOTICE.as_bytes();
        } else if let Some(data) = value(b"data:") {
            self.data = data.to_vec();
        }
    }

    /// Events to `out`; what is about the stream itself is for whoever looks on.
    fn tell(&self, common: &Common, out: &mut impl Write) -> Result<(), Failure> {
        if self.is_notice {
            if let Ok(Notice { notice }) = serde_json::from_slice(&self.data) {
                let _ = writeln!(std::io::stderr(), "events: {}", shown(&notice));
            }
            return Ok(());
        }
        let Ok(event) = serde_json::from_slice::<Happened>(&self.data) else { return Ok(()) };
        match common.json {
            true => json_line(out, &json!(event))?,
            false => writeln!(out, "{}", cells(&event, event.at.to_string()).join("  "))?,
        }
        Ok(out.flush()?)
    }
}

/// Prints what one connection tells; `last`: the id of the last event, or of where it began; empty: it has not begun.
async fn listen(
    common: &Common,
    client: &Client,
    unmatched: bool,
    last: &mut String,
    lost: &mut Option<Instant>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut response = client.stream(&format!("/v1/events?unmatched={unmatched}"), last).await?;
    *lost = None;
    let (mut heard, mut block) = (Vec::new(), Block::default());
    // A line that breaks is no failure: what follows is asked for anew.
    while let Ok(Some(piece)) = response.chunk().await {
        heard.extend_from_slice(&piece);
        while let Some(end) = memchr::memchr(b'\n', &heard) {
            let line: Vec<u8> = heard.drain(..=end).collect();
            block.take(line.trim_ascii_end());
            if line.trim_ascii_end().is_empty() {
                let whole = std::mem::take(&mut block);
                whole.tell(common, out)?;
                if !whole.id.is_empty() {
                    *last = whole.id;
                }
            }
        }
        if heard.len() > LINE_OCTETS_MAX {
            return Err(Failure::Failed("the relay sends what is no stream of events".into()));
        }
    }
    Ok(())
}
