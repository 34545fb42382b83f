//! Work that takes a tenth of a second and more, run so that it holds up nobody else.

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::mail::body::SPILL_OCTETS;

/// Runs it without holding up the other tasks of this thread.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        Ok(_) | Err(_) => work(),
    }
}

/// The same for work on so many octets; few are not worth a change of threads.
pub fn aside_over<T>(octets: usize, work: impl FnOnce() -> T) -> T {
    match octets > SPILL_OCTETS {
        true => aside(work),
        false => work(),
    }
}
