//! `postroad suppress …`: the list of those who are mailed no more, of a relay or of its database alone.

use std::io::Write;

use clap::Subcommand;
use serde_json::json;

use super::reach::{self, Client, Source, broken};
use super::text::{Table, json_line, relative, shown};
use super::{Common, Failure};
use crate::address::Address;
use crate::clock::{Clock, System, Timestamp};
use crate::http::Queue;
use crate::http::suppressions::{
    Changed, NewlySuppressed, Suppressed, SuppressedPage, read_address, read_reason,
};
use crate::mail::effect::MANUAL;
use crate::store::NewSuppression;

/// Of the database, a page.
const PAGE: usize = 1000;

/// What is asked of the list.
#[derive(Debug, Subcommand)]
pub(super) enum SuppressCommand {
    /// Who is on it
    #[command(after_help = "Example: postroad suppress list --address gone@example.net --json")]
    List {
        /// Only this one
        #[arg(long, value_name = "ADDRESS", value_parser = read_address)]
        address: Option<Address>,
    },
    /// Mail these no more
    #[command(after_help = "Example: postroad suppress add gone@example.net --evidence \"asked by phone\"")]
    Add {
        /// The addresses
        #[arg(required = true, value_name = "ADDRESS", value_parser = read_address)]
        addresses: Vec<Address>,
        /// hard_bounce, complaint, unsubscribe, soft_bounces, manual or deactivated
        #[arg(long, default_value = MANUAL, value_parser = read_reason)]
        reason: String,
        /// Only broadcast or transactional mail; otherwise none at all
        #[arg(long, value_name = "KIND", value_parser = ["broadcast", "transactional"])]
        scope: Option<String>,
        /// Why, in words
        #[arg(long, value_name = "TEXT")]
        evidence: Option<String>,
    },
    /// Let these be mailed again; a provider that has them on a list of its own may still not
    #[command(after_help = "Example: postroad suppress rm gone@example.net")]
    Rm {
        /// The addresses
        #[arg(required = true, value_name = "ADDRESS", value_parser = read_address)]
        addresses: Vec<Address>,
        /// This reason alone, otherwise all
        #[arg(long, value_parser = read_reason)]
        reason: Option<String>,
    },
}

/// `suppress …`
pub(super) async fn run(
    common: &Common,
    command: SuppressCommand,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let source = reach::source(common).await?;
    match command {
        SuppressCommand::List { address } => list(common, &source, address.as_ref(), out).await,
        SuppressCommand::Add { addresses, reason, scope, evidence } => {
            for address in &addresses {
                let wanted = NewlySuppressed {
                    address: address.wire().to_owned(),
                    reason: Some(reason.clone()),
                    scope: scope.clone(),
                    evidence: evidence.clone(),
                };
                let changed = add(&source, address, &wanted).await?;
                tell(common, address, changed, ["suppressed", "was suppressed before"], out)?;
            }
            Ok(())
        }
        SuppressCommand::Rm { addresses, reason } => {
            let mut missing = Vec::new();
            for address in &addresses {
                match remove(&source, address, reason.as_deref()).await? {
                    0 => missing.push(address.wire()),
                    changed => {
                        let left = left_of(&source, address).await?;
                        tell(common, address, changed, [&left, ""], out)?;
                    }
                }
            }
            match missing.is_empty() {
                true => Ok(()),
                false => Err(Failure::NotFound(format!("not on the list: {}", missing.join(", ")))),
            }
        }
    }
}

/// What is said of an address once something of it is gone.
async fn left_of(source: &Source, address: &Address) -> Result<String, Failure> {
    let (left, _) = match source {
        Source::Relay(client) => page_of(client, Some(address), None).await?,
        Source::Database { queue, .. } => read(&**queue, Some(address), None).await?,
    };
    let of = |suppressed: &Suppressed| match suppressed.scope.as_str() {
        "" => suppressed.reason.clone(),
        scope => format!("{} ({scope})", suppressed.reason),
    };
    Ok(match left.is_empty() {
        true => "may be mailed again".to_owned(),
        false => format!("is still suppressed: {}", left.iter().map(of).collect::<Vec<_>>().join(", ")),
    })
}

fn tell(
    common: &Common,
    address: &Address,
    changed: u64,
    [did, did_not]: [&str; 2],
    out: &mut impl Write,
) -> Result<(), Failure> {
    if common.json {
        return Ok(json_line(out, &json!({ "address": address.wire(), "changed": changed }))?);
    }
    let what = if changed > 0 { did } else { did_not };
    Ok(writeln!(out, "{}: {what}", shown(address.wire()))?)
}

/// `suppress list`, page by page as they come.
async fn list(
    common: &Common,
    source: &Source,
    address: Option<&Address>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (mut table, now) =
        (Table::new(&["ADDRESS", "REASON", "SCOPE", "SINCE", "SOURCE", "EVIDENCE"]), System.now());
    let mut cursor = None;
    loop {
        let (page, next) = match source {
            Source::Relay(client) => page_of(client, address, cursor).await?,
            Source::Database { queue, .. } => read(&**queue, address, cursor).await?,
        };
        for suppressed in page {
            match common.json {
                true => json_line(out, &json!(suppressed))?,
                false => table.row(row(&suppressed, now)),
            }
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    if common.json { Ok(()) } else { Ok(table.write(out)?) }
}

fn row(suppressed: &Suppressed, now: Timestamp) -> [String; 6] {
    let scope = if suppressed.scope.is_empty() { "all" } else { &suppressed.scope };
    [
        shown(&suppressed.address),
        shown(&suppressed.reason),
        shown(scope),
        relative(suppressed.since.0, now),
        shown(&suppressed.source),
        shown(suppressed.evidence.as_deref().unwrap_or("-")),
    ]
}

type PageAndNext = (Vec<Suppressed>, Option<String>);

async fn page_of(
    client: &Client,
    address: Option<&Address>,
    cursor: Option<String>,
) -> Result<PageAndNext, Failure> {
    let address = address.map(|address| ("address", address.wire().to_owned()));
    let query: Vec<_> = address.into_iter().chain(cursor.map(|cursor| ("cursor", cursor))).collect();
    let page: SuppressedPage = client.get_json("/v1/suppressions", &query).await?;
    Ok((page.suppressions, page.next))
}

/// The cursor of the database is the last one's place, one part a line.
async fn read(
    queue: &dyn Queue,
    address: Option<&Address>,
    cursor: Option<String>,
) -> Result<PageAndNext, Failure> {
    let after = cursor.unwrap_or_else(|| "\n\n".to_owned());
    let mut parts = after.splitn(3, '\n').map(str::to_owned);
    let after = [(); 3].map(|()| parts.next().unwrap_or_default());
    let listed = queue.suppressions(address.map(Address::key), after, PAGE).await.map_err(broken)?;
    let next = listed.last().filter(|_| listed.len() >= PAGE);
    let next = next.map(|last| format!("{}\n{}\n{}", last.key, last.scope, last.reason));
    Ok((listed.into_iter().map(Into::into).collect(), next))
}

async fn add(source: &Source, address: &Address, wanted: &NewlySuppressed) -> Result<u64, Failure> {
    match source {
        Source::Relay(client) => Ok(client.post::<Changed>("/v1/suppressions", wanted).await?.changed),
        Source::Database { queue, .. } => {
            let new = NewSuppression {
                key: address.key(),
                address: address.wire().to_owned(),
                reason: wanted.reason.clone().unwrap_or_else(|| MANUAL.to_owned()),
                scope: wanted.scope.clone().unwrap_or_default(),
                source: "operator".to_owned(),
                evidence: wanted.evidence.clone(),
                created_at: System.now(),
                expires_at: None,
            };
            Ok(u64::from(queue.suppress(new).await.map_err(broken)?))
        }
    }
}

async fn remove(source: &Source, address: &Address, reason: Option<&str>) -> Result<u64, Failure> {
    match source {
        Source::Relay(client) => {
            let query: Vec<_> = std::iter::once(("address", address.wire()))
                .chain(reason.map(|reason| ("reason", reason)))
                .collect();
            match client.delete_json::<Changed>("/v1/suppressions", &query).await {
                Err(Failure::NotFound(_)) => Ok(0),
                changed => changed.map(|changed| changed.changed),
            }
        }
        Source::Database { queue, .. } => {
            queue.unsuppress(address.key(), reason.map(str::to_owned)).await.map_err(broken)
        }
    }
}
