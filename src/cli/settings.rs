//! What the commands read of the configuration: the one place that knows how it is loaded.

use std::path::{Path, PathBuf};

use crate::config::{Config, Environment};
pub use crate::config::{Loaded, Location};

/// A checked configuration, as `check` tells of it.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The file; `None`: none was found and the defaults hold.
    pub file: Option<PathBuf>,
    /// Each path in it by its key.
    pub paths: Vec<(String, PathBuf)>,
    /// What works and was probably not meant.
    pub warnings: Vec<String>,
}

/// Reads `[server] data_dir` and `[http]`. The error has all problems, one a line.
pub fn location(file: Option<&Path>) -> Result<Location, String> {
    Config::load_location(file, &Environment::of_process()).map_err(|problems| problems.to_string())
}

/// Reads and checks all of it. The error has all problems, one a line.
pub fn load(file: Option<&Path>) -> Result<Loaded, String> {
    Config::load(file, &Environment::of_process()).map_err(|problems| problems.to_string())
}

/// All of it, as `check` tells of it.
pub fn check(file: Option<&Path>) -> Result<Checked, String> {
    let loaded = load(file)?;
    let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
    Ok(Checked { file: loaded.path, paths: loaded.config.paths(), warnings })
}
