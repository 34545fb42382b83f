//! `postroad check`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::failure::problem_json;
use super::text::{json_line, shown};
use super::{Common, Failure, settings};
use crate::config::{Config, Loaded, Problem};
use crate::esp::settings::{EspKind, EspSettings};
use crate::mail::Grant;
use crate::relay::doors::{self, House};
use crate::wire::NoChunks;
use crate::wire::smtp::Tokens;

/// Reads the configuration and says what it came from, or all that is wrong with it.
pub(super) fn check(common: &Common, out: &mut impl Write) -> Result<Loaded, Failure> {
    match settings::load(common.config.as_deref()) {
        Ok(good) => {
            tell(common, &good, out)?;
            Ok(good)
        }
        Err(problems) if common.json => {
            let (errors, warnings) = (all_json(problems.iter()), all_json(problems.warnings()));
            json_line(out, &json!({ "ok": false, "errors": errors, "warnings": warnings }))?;
            Err(Failure::Told)
        }
        Err(problems) => {
            tell_warnings(problems.warnings(), out)?;
            Err(Failure::Configuration(problems))
        }
    }
}

/// Connects and logs in to each ESP, all at once, and says what each met.
pub(super) async fn connect(common: &Common, config: &Config, out: &mut impl Write) -> Result<(), Failure> {
    let met = join_all(config.esps.iter().map(|esp| met(esp, &config.server.hostname))).await;
    for (esp, met) in config.esps.iter().zip(&met) {
        let name = &esp.name;
        match (common.json, met) {
            (true, Ok(_)) => json_line(out, &json!({ "esp": name, "ok": true }))?,
            (true, Err(said)) => json_line(out, &json!({ "esp": name, "ok": false, "said": said }))?,
            (false, Ok(said)) => writeln!(out, "{name}: {said}")?,
            (false, Err(said)) => writeln!(out, "{name}: {}", shown(said))?,
        }
    }
    let failed = met.iter().filter(|met| met.is_err()).count();
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Failed(format!(
            "{failed} of {} ESPs cannot be used now as they are configured",
            met.len()
        ))),
    }
}

async fn met(esp: &EspSettings, hostname: &str) -> Result<&'static str, String> {
    let tokens = |grant: &Grant| Arc::new(Tokens::new(grant.clone()));
    let house = House { hostname, own_reports: false, chunks: Arc::new(NoChunks), tokens: &tokens };
    let (_, wire) = doors::open(&esp.kind, &house);
    wire.check_all().await.met?;
    Ok(match &esp.kind {
        EspKind::Sandbox { .. } => "keeps mail on this machine",
        EspKind::Smtp(smtp) if smtp.login.is_none() => "connected",
        _ => "connected and logged in",
    })
}

fn tell(common: &Common, good: &Loaded, out: &mut impl Write) -> std::io::Result<()> {
    let file = good.path.as_deref().map(absolute);
    let paths = good.config.paths();
    if common.json {
        let paths: serde_json::Map<_, _> =
            paths.into_iter().map(|(key, path)| (key, json!(absolute(&path)))).collect();
        let warnings = all_json(&good.warnings);
        let sandbox = only_sandbox(&good.config);
        let told = json!({ "ok": true, "file": file, "paths": paths, "only_sandbox": sandbox, "warnings": warnings });
        return json_line(out, &told);
    }
    match file {
        Some(file) => writeln!(out, "{} is good", file.display())?,
        None => writeln!(out, "no configuration file was found; the defaults are good")?,
    }
    for (key, path) in paths {
        writeln!(out, "{key} = {}", absolute(&path).display())?;
    }
    if only_sandbox(&good.config) {
        let none =
            if good.config.esps_written { "every [[esp]] is a sandbox" } else { "no [[esp]] is written" };
        writeln!(out, "{none}: mail is kept in the sandbox, not sent")?;
    }
    tell_warnings(&good.warnings, out)
}

fn only_sandbox(config: &Config) -> bool {
    config.esps.iter().all(|esp| matches!(esp.kind, EspKind::Sandbox { .. }))
}

fn tell_warnings<'a>(
    warnings: impl IntoIterator<Item = &'a Problem>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    warnings.into_iter().try_for_each(|warning| writeln!(out, "warning: {}", shown(&warning.to_string())))
}

fn all_json<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Vec<Value> {
    problems.into_iter().map(problem_json).collect()
}

/// As it is where there is no working directory to start from.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
