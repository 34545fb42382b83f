//! An alert: said once when a state turns bad, once when it is over, however often it is looked at between.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// An alert of something that has no end of its own to be told: an error line and a count. The caller sees to it that
/// it is told once, and records the event.
pub fn alert(kind: &'static str, detail: impl Display) {
    ::metrics::counter!(crate::metrics::ALERTS, "kind" => kind).increment(1);
    tracing::error!(target: "postroad", kind = %kind, detail = display(detail), "alert");
}

/// One thing that can be wrong, and whether it is.
#[derive(Debug)]
pub struct Alert {
    kind: &'static str,
    raised: AtomicBool,
    /// What was said when it was raised last.
    detail: Mutex<String>,
}

impl Alert {
    /// One that is not raised. `kind` is its word in `postroad_alerts_total`: `disk_full`, `unfit_everywhere`, …
    pub const fn new(kind: &'static str) -> Self {
        Alert { kind, raised: AtomicBool::new(false), detail: Mutex::new(String::new()) }
    }

    /// It is wrong. `true` when it was not before: then there is an error line and a count, and the caller records
    /// the event.
    pub fn raise(&self, detail: impl Display) -> bool {
        let changed = !self.raised.swap(true, Ordering::AcqRel);
        if changed {
            let detail = detail.to_string();
            alert(self.kind, &detail);
            *self.detail.lock().unwrap_or_else(PoisonError::into_inner) = detail;
        }
        changed
    }

    /// It is well again. `true` when it was not before.
    pub fn clear(&self, detail: impl Display) -> bool {
        let changed = self.raised.swap(false, Ordering::AcqRel);
        if changed {
            tracing::info!(target: "postroad", kind = %self.kind, detail = display(detail), "alert over");
        }
        changed
    }

    /// Its kind and what was said, where it is wrong now.
    pub fn standing(&self) -> Option<(&'static str, String)> {
        let detail = || self.detail.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.raised().then(|| (self.kind, detail()))
    }

    /// Whether it is wrong now.
    pub fn raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn an_alert_counts_once_a_change() {
        let recorder = PrometheusBuilder::new().build_recorder();
        ::metrics::with_local_recorder(&recorder, || {
            let alert = Alert::new("disk_full");
            assert!(!alert.clear("never was"));
            assert!(alert.raise("no room"));
            assert!(!alert.raise("still no room"));
            assert_eq!(alert.standing(), Some(("disk_full", "no room".into())));
            assert!(alert.clear("room again") && alert.standing().is_none());
            assert!(alert.raise("no room"));
        });
        let text = recorder.handle().render();
        assert!(text.contains(r#"postroad_alerts_total{kind="disk_full"} 2"#), "{text}");
    }
}
