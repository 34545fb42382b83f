//! What the commands read of the configuration: the one place that knows how it is loaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, Environment, Problems};
pub use crate::config::{Loaded, Location};
use crate::relay::Source;

/// Reads `[server] data_dir` and `[http]`.
pub fn location(file: Option<&Path>) -> Result<Location, Problems> {
    Config::load_location(file, &Environment::of_process())
}

/// Reads and checks all of it.
pub fn load(file: Option<&Path>) -> Result<Loaded, Problems> {
    Config::load(file, &Environment::of_process())
}

/// Reads it again as the start did: the file that was found then, however it was found.
pub fn source(file: Option<&Path>, found: Option<PathBuf>) -> Source {
    let named = file.map(Path::to_path_buf);
    Arc::new(move || match (&named, &found) {
        (None, Some(found)) => Config::load_again(found, &Environment::of_process()),
        (named, _) => load(named.as_deref()),
    })
}
