//! `postroad notify …`: events out to the app, and telling them once more.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::reach::{self, Client};
use super::text::{Table, cut, json_line, relative, shown};
use super::{Common, Failure};
use crate::clock::{Clock, System, Timestamp};
use crate::config::units;
use crate::http::notifications::{Notification, NotificationPage, Replayed, WantedReplay, read_state};
use crate::http::shape::Moment;
use crate::mail::MessageId;
use crate::store::NotificationState;

/// A page of what is asked for, at most.
const PAGE: usize = 1000;
/// Of an answer, in the table.
const ANSWER_CHARS: usize = 60;

/// What is asked of the log.
#[derive(Debug, Subcommand)]
pub(super) enum NotifyCommand {
    /// What each receiver of [[notify]] was told or waits for, newest first, and what it answered
    #[command(after_help = "Example: postroad notify list --failed")]
    List(Which),
    /// Tell events once more, under the ids that they have: these, or all that fit
    #[command(
        after_help = "A receiver that has an event already knows it by its id.\n\nExample: postroad notify replay --failed"
    )]
    Replay {
        /// The events
        #[arg(required_unless_present_any = ["failed", "since"], conflicts_with_all = ["failed", "since", "receiver"])]
        ids: Vec<String>,
        /// All that were not taken within their time
        #[arg(long)]
        failed: bool,
        /// All that happened in so long, or since then: 2h, 2026-12-01T08:00:00Z
        #[arg(long, value_name = "TIME", value_parser = since)]
        since: Option<Timestamp>,
        /// Only those of this receiver
        #[arg(long, value_name = "NAME")]
        receiver: Option<String>,
    },
}

/// Which of the log.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Which {
    /// Only waiting, taken or failed
    #[arg(long, value_parser = read_state, conflicts_with = "failed")]
    state: Option<NotificationState>,
    /// As --state failed
    #[arg(long)]
    failed: bool,
    /// Only those of this receiver
    #[arg(long, value_name = "NAME")]
    receiver: Option<String>,
    /// Only those of this message
    #[arg(long, value_name = "ID")]
    message: Option<MessageId>,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = units::duration(text) {
        return Ok(System.now().earlier(ago.max(Duration::from_secs(1))));
    }
    let at: jiff::Timestamp =
        text.parse().map_err(|_| "neither a time such as 2026-12-01T08:00:00Z nor a duration such as 2h")?;
    Ok(Timestamp::from_millis(at.as_millisecond()))
}

/// `notify …`
pub(super) async fn run(
    common: &Common,
    command: NotifyCommand,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let relay = reach::relay(common).await?;
    match command {
        NotifyCommand::List(which) => list(common, &relay, &which, out).await,
        NotifyCommand::Replay { ids, failed, since, receiver } => {
            let ids = Some(ids).filter(|ids| !ids.is_empty());
            let wanted = WantedReplay { ids, failed, since: since.map(Moment), receiver };
            replay(common, &relay, &wanted, out).await
        }
    }
}

/// `notify list`
async fn list(common: &Common, relay: &Client, which: &Which, out: &mut impl Write) -> Result<(), Failure> {
    let head = ["WHEN", "ID", "EVENT", "RECEIVER", "MESSAGE", "ADDRESS", "STATE", "TRIES", "ANSWER"];
    let (mut table, now) = (Table::new(&head), System.now());
    let (mut left, mut cursor) = (which.limit, None::<String>);
    let state = which.state.or(which.failed.then_some(NotificationState::Failed));
    while left > 0 {
        let mut query = vec![("limit", left.min(PAGE).to_string())];
        query.extend(state.map(|state| ("state", state.word().to_owned())));
        query.extend(which.receiver.clone().map(|receiver| ("receiver", receiver)));
        query.extend(which.message.map(|message| ("message", message.to_string())));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page: NotificationPage = relay.get_json("/v1/notifications", &query).await?;
        left = left.saturating_sub(page.notifications.len());
        for one in &page.notifications {
            match common.json {
                true => json_line(out, &json!(one))?,
                false => table.row(row(one, now)),
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if common.json { Ok(()) } else { Ok(table.write(out)?) }
}

fn row(one: &Notification, now: Timestamp) -> [String; 9] {
    let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), shown);
    let state = match one.due {
        Some(due) if due.0 > now => format!("{}, {}", one.state, relative(due.0, now)),
        _ => one.state.clone(),
    };
    [
        relative(one.at.0, now),
        one.id.clone(),
        one.event.clone(),
        shown(&one.receiver),
        or_none(&one.message),
        or_none(&one.address),
        state,
        one.attempts.to_string(),
        cut(&or_none(&one.answer), ANSWER_CHARS),
    ]
}

/// `notify replay`
async fn replay(
    common: &Common,
    relay: &Client,
    wanted: &WantedReplay,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let done: Replayed = relay.post("/v1/notifications/replay", wanted).await?;
    match common.json {
        true => json_line(out, &json!(done))?,
        false => {
            let events = if done.replayed == 1 { "event is" } else { "events are" };
            writeln!(out, "{} {events} told once more", done.replayed)?;
            if done.without_receiver > 0 {
                writeln!(
                    out,
                    "{} stay as they are: their receiver is configured no more",
                    done.without_receiver
                )?;
            }
            if done.receiver_gone > 0 {
                writeln!(
                    out,
                    "{} stay as they are: their receiver answered 410 and is told nothing more; postroad reload asks it \
                     again, then replay them",
                    done.receiver_gone
                )?;
            }
        }
    }
    match done.unknown.as_slice() {
        [] => Ok(()),
        unknown => Err(Failure::NotFound(format!(
            "no such event: {}; it never was, or retention let it go",
            unknown.join(", ")
        ))),
    }
}
