//! What the commands read of the configuration: the one place that knows how it is loaded.

use std::path::Path;

use crate::config::{Config, Environment, Problems};
pub use crate::config::{Loaded, Location};

/// Reads `[server] data_dir` and `[http]`.
pub fn location(file: Option<&Path>) -> Result<Location, Problems> {
    Config::load_location(file, &Environment::of_process())
}

/// Reads and checks all of it.
pub fn load(file: Option<&Path>) -> Result<Loaded, Problems> {
    Config::load(file, &Environment::of_process())
}
