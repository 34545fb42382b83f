//! `postroad check`

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::failure::problem_json;
use super::text::json_line;
use super::{Common, Failure, settings};
use crate::config::{Loaded, Problem};

/// Reads the configuration and says what it came from, or all that is wrong with it.
pub(super) fn check(common: &Common, out: &mut impl Write) -> Result<(), Failure> {
    match settings::load(common.config.as_deref()) {
        Ok(good) => Ok(tell(common, &good, out)?),
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

fn tell(common: &Common, good: &Loaded, out: &mut impl Write) -> std::io::Result<()> {
    let file = good.path.as_deref().map(absolute);
    let paths = good.config.paths();
    if common.json {
        let paths: serde_json::Map<_, _> =
            paths.into_iter().map(|(key, path)| (key, json!(absolute(&path)))).collect();
        let warnings = all_json(&good.warnings);
        return json_line(out, &json!({ "ok": true, "file": file, "paths": paths, "warnings": warnings }));
    }
    match file {
        Some(file) => writeln!(out, "{} is good", file.display())?,
        None => writeln!(out, "no configuration file was found; the defaults are good")?,
    }
    for (key, path) in paths {
        writeln!(out, "{key} = {}", absolute(&path).display())?;
    }
    tell_warnings(&good.warnings, out)
}

fn tell_warnings<'a>(
    warnings: impl IntoIterator<Item = &'a Problem>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    warnings.into_iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}

fn all_json<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Vec<Value> {
    problems.into_iter().map(problem_json).collect()
}

/// As it is where there is no working directory to start from.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
