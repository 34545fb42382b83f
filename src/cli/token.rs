//! `postroad token …`

use std::io::Write;

use clap::Subcommand;
use serde_json::json;

use super::reach;
use super::text::{Table, json_line, relative, shown};
use super::{Common, Failure};
use crate::clock::{Clock, System, Timestamp};
use crate::http::scope::Scope;
use crate::http::tokens::{MadeToken, Token, TokenPage, WantedToken, read_name};

/// What is asked of the tokens.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make one; its text is shown this once
    #[command(
        after_help = "Scopes: read (look), send (hand mail in), queue (act on it), lists (suppressions and \
            subscribers), admin (everything).\n\nExample: postroad token create --scope send --name shop"
    )]
    Create {
        /// What it may do; may be given several times
        #[arg(long = "scope", required = true, value_name = "SCOPE")]
        scopes: Vec<Scope>,
        /// What to call it in the list
        #[arg(long, value_name = "TEXT", value_parser = read_name)]
        name: Option<String>,
    },
    /// Those that were made, without their text
    #[command(after_help = "Example: postroad token list --json")]
    List,
    /// Take one back, at once
    #[command(after_help = "Example: postroad token revoke 3")]
    Revoke {
        /// Its number, as the list has it
        id: i64,
    },
}

/// `token …`
pub(super) async fn run(common: &Common, command: TokenCommand, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { scopes, name } => create(common, &scopes, name, out).await,
        TokenCommand::List => list(common, out).await,
        TokenCommand::Revoke { id } => revoke(common, id, out).await,
    }
}

/// `token create`
async fn create(
    common: &Common,
    scopes: &[Scope],
    name: Option<String>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let wanted = WantedToken { scopes: scopes.iter().map(ToString::to_string).collect(), name };
    let made: MadeToken = reach::relay(common).await?.post("/v1/tokens", &wanted).await?;
    if common.json {
        return Ok(json_line(out, &json!(made))?);
    }
    writeln!(out, "{}", made.token)?;
    let scopes = made.scopes.join(", ");
    Ok(writeln!(out, "Token {} with the scopes {scopes}. Keep its text: it is not shown again.", made.id)?)
}

/// `token list`
async fn list(common: &Common, out: &mut impl Write) -> Result<(), Failure> {
    let relay = reach::relay(common).await?;
    let (mut tokens, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let query: Vec<_> = cursor.iter().map(|cursor| ("cursor", cursor.clone())).collect();
        let page: TokenPage = relay.get_json("/v1/tokens", &query).await?;
        tokens.extend(page.tokens);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if !common.json {
        return Ok(table(&tokens, System.now()).write(out)?);
    }
    for token in &tokens {
        json_line(out, &json!(token))?;
    }
    Ok(())
}

fn table(tokens: &[Token], now: Timestamp) -> Table {
    let mut table = Table::new(&["ID", "NAME", "SCOPES", "MADE", "USED"]);
    for token in tokens {
        table.row([
            token.id.to_string(),
            if token.name.is_empty() { "-".into() } else { shown(&token.name) },
            token.scopes.join(","),
            relative(token.created_at.0, now),
            token.used_at.map_or_else(|| "never".into(), |at| relative(at.0, now)),
        ]);
    }
    table
}

/// `token revoke ID`
async fn revoke(common: &Common, id: i64, out: &mut impl Write) -> Result<(), Failure> {
    reach::relay(common).await?.delete(&format!("/v1/tokens/{id}")).await?;
    if common.json {
        return Ok(json_line(out, &json!({ "id": id, "revoked": true }))?);
    }
    Ok(writeln!(out, "Token {id}: revoked")?)
}
