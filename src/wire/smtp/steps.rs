//! The way to an upstream, step by step, with what each met: kept where somebody asks for it, else nothing is.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::monotonic;
use crate::wire::Step;

/// More of what an upstream said in one step is cut off.
const TOLD_CHARS_MAX: usize = 500;

/// Steps so far.
#[derive(Debug)]
pub(super) struct Steps {
    kept: Option<Vec<Step>>,
    /// The one under way, and since when.
    now: &'static str,
    since: Instant,
}

impl Steps {
    /// Nobody asks.
    pub fn silent() -> Self {
        Steps { kept: None, now: "", since: monotonic() }
    }

    /// Somebody asks.
    pub fn kept() -> Self {
        Steps { kept: Some(Vec::new()), ..Steps::silent() }
    }

    /// Whether somebody asks.
    pub fn are_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// The next step begins.
    pub fn begin(&mut self, name: &'static str) {
        self.now = name;
        self.since = monotonic();
    }

    /// The step under way is done.
    pub fn done(&mut self, told: impl FnOnce() -> String) {
        let (name, took) = (self.now, self.since.elapsed());
        self.put(name, true, took, told);
    }

    /// All of them; the one under way has met this, where it failed.
    pub fn end(mut self, met: Option<&str>) -> Vec<Step> {
        if let Some(met) = met {
            let (name, took) = (self.now, self.since.elapsed());
            self.put(name, false, took, || met.to_owned());
        }
        self.kept.unwrap_or_default()
    }

    fn put(&mut self, name: &'static str, ok: bool, took: Duration, told: impl FnOnce() -> String) {
        if let Some(kept) = &mut self.kept {
            let told = told().chars().take(TOLD_CHARS_MAX).collect();
            kept.push(Step { name, ok, told, took });
        }
    }
}
