//! `postroad serve`

use super::{Common, Failure, ServeArguments, settings};
use crate::{journal, relay};

/// Runs the relay until it is told to stop.
pub(super) fn serve(common: &Common, options: &ServeArguments) -> Result<(), Failure> {
    let loaded = settings::load(common.config.as_deref())?;
    let log = journal::install(options.log_format, options.log_level)
        .map_err(|e| Failure::Failed(format!("the log cannot be started: {e}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Failed(format!("cannot start: {e}")))?;
    loaded.warnings.iter().for_each(|warning| journal::odd(&warning.to_string()));
    let source = settings::source(common.config.as_deref(), loaded.path);
    let ended = runtime.block_on(relay::run(loaded.config, source));
    // Look-ups that hang must not hold up the end: what matters has been committed by now.
    runtime.shutdown_background();
    log.flush();
    ended.map_err(|e| Failure::Failed(format!("{e:#}")))
}
