//! `postroad check`

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::text::json_line;
use super::{Common, Failure, settings};

/// Reads the configuration and says what it came from, or all that is wrong with it.
pub(super) fn check(common: &Common, out: &mut impl Write) -> Result<(), Failure> {
    let checked = settings::check(common.config.as_deref()).map_err(Failure::Usage)?;
    let file = checked.file.as_deref().map(absolute);
    if common.json {
        let paths: serde_json::Map<_, _> =
            checked.paths.iter().map(|(key, path)| (key.clone(), json!(absolute(path)))).collect();
        let line = json!({ "ok": true, "file": file, "paths": paths, "warnings": checked.warnings });
        json_line(out, &line)?;
        return Ok(());
    }
    match file {
        Some(file) => writeln!(out, "{} is good", file.display())?,
        None => writeln!(out, "no configuration file was found; the defaults are good")?,
    }
    for (key, path) in &checked.paths {
        writeln!(out, "{key} = {}", absolute(path).display())?;
    }
    for warning in &checked.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

/// As it is where there is no working directory to start from.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
