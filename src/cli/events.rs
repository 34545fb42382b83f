//! `postroad events`: what happened, newest first.

use std::io::Write;

use serde_json::json;

use super::reach::{self, Source, broken};
use super::text::{Table, json_line, relative, shown};
use super::{Common, Failure};
use crate::clock::{Clock, System};
use crate::http::events::{Happened, HappenedPage};

/// A page of what is asked for, at most.
const PAGE: usize = 1000;

/// `events`
pub(super) async fn list(
    common: &Common,
    unmatched: bool,
    limit: usize,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let source = reach::source(common).await?;
    let mut table = Table::new(&["WHEN", "EVENT", "PROVIDER", "MESSAGE", "ADDRESS", "DETAIL"]);
    let (mut left, mut cursor, now) = (limit, None::<i64>, System.now());
    while left > 0 {
        let page = page(&source, unmatched, left.min(PAGE), cursor).await?;
        let Some(last) = page.last() else { break };
        (left, cursor) = (left.saturating_sub(page.len()), Some(last.number));
        for event in &page {
            match common.json {
                true => json_line(out, &json!(event))?,
                false => table.row([
                    relative(event.at.0, now),
                    event.kind.clone(),
                    event.esp.as_deref().map_or_else(|| "-".into(), shown),
                    event.message.clone().unwrap_or_else(|| "-".into()),
                    event.address.as_deref().map_or_else(|| "-".into(), shown),
                    shown(&event.detail),
                ]),
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
