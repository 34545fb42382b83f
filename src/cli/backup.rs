//! `postroad backup FILE`

use std::io::{IsTerminal, Write};
use std::path::Path;

use serde_json::json;

use super::reach::{self, Place};
use super::text::{json_line, seconds, shown, size};
use super::{Common, Failure};
use crate::clock::System;
use crate::http::backup::{BackUp, Backup};
use crate::store;

/// Copies the database: by the relay that runs, or from the data directory of one that does not.
pub(super) async fn back_up(common: &Common, file: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let made = match reach::place(common).await? {
        Place::Relay(client) => by_relay(&client, target(common, file)?).await?,
        Place::DataDir { data_dir, _lock } => {
            let file = target(common, file)?;
            let made = store::back_up_stopped(&data_dir, Path::new(&file), &System);
            Backup::done(file, made.map_err(|error| Failure::Failed(error.to_string()))?)
        }
    };
    if common.json {
        return Ok(json_line(out, &json!(made))?);
    }
    let took = seconds(std::time::Duration::from_secs_f64(made.took_seconds.unwrap_or(0.0).max(0.0)));
    let octets = size(made.octets.unwrap_or(0));
    Ok(writeln!(out, "{}: {octets}, in {took}", shown(&made.file))?)
}

/// The relay has another working directory; on another machine, other files.
fn target(common: &Common, file: &Path) -> Result<String, Failure> {
    let bad = |what: &str| Failure::Usage(format!("{}: {what}", file.display()));
    if common.url.is_some() && !file.is_absolute() {
        return Err(bad("with --url name the whole path, from / on, on the relay's machine"));
    }
    let file = std::path::absolute(file).map_err(|_| bad("is no file name"))?;
    // It goes to the relay as JSON.
    file.to_str().map(str::to_owned).ok_or_else(|| bad("a file name in UTF-8 is needed"))
}

async fn by_relay(client: &reach::Client, file: String) -> Result<Backup, Failure> {
    let mut bar = Bar::default();
    let wanted = BackUp { file };
    loop {
        let backup: Backup = client.post("/v1/backup", &wanted).await?;
        if backup.done {
            return Ok(backup);
        }
        bar.show(backup.percent);
    }
}

/// How far it is, on a terminal; wiped at the end.
#[derive(Default)]
struct Bar {
    shown: bool,
}

impl Bar {
    fn show(&mut self, percent: u64) {
        let mut err = std::io::stderr();
        if err.is_terminal() {
            self.shown = true;
            let done = "#".repeat(usize::try_from(percent / 4).unwrap_or(0));
            let _ = write!(err, "\r[{done:25}] {percent:3} %");
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r{:34}\r", "");
        }
    }
}
