//! ESPs that tell their limits themselves (`rate = "auto"`): each is asked at the start and once a minute. Where one does
//! not answer, what it told last holds; before that, one recipient a second.

use std::sync::Arc;
use std::time::Duration;

use super::courier::Courier;
use super::outlet::Outlet;
use super::setup::{Carrier, Line};
use crate::mail::quota::{QuotaLimits, Told, Window};

/// SES answers one such question a second for all who ask.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(60);
/// More than any limit, so that what is left of it tells what is taken.
const ALL: u64 = 1 << 60;

impl Courier {
    /// Asks them all.
    pub(super) fn ask_accounts(self: &Arc<Self>) {
        for Carrier { outlet, line, .. } in &self.setup().carriers {
            if outlet.allowance.is_told() {
                let (courier, outlet, line) = (Arc::clone(self), Arc::clone(outlet), Arc::clone(line));
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = courier.stop.cancelled() => {}
                        () = courier.ask_account(&outlet, &line) => {}
                    }
                });
            }
        }
    }

    async fn ask_account(self: &Arc<Self>, outlet: &Arc<Outlet>, line: &Arc<Line>) {
        let told = line.wire.account().await.and_then(|account| line.esp.told(&account));
        if !self.is_spoken_to_by(outlet, line) {
            return;
        }
        match told {
            Ok(told) => self.heed(outlet, told).await,
            Err(why) => {
                let words = format!(
                    "{} does not tell its limits: {why}. What it told last holds, or 1/s where it never did; see \
                     `postroad esp test {}`, or write its rate",
                    outlet.name, outlet.name
                );
                if outlet.untold.raise(&words) {
                    self.record_alert(Some(outlet.name.to_string()), "limits_untold", &words);
                }
            }
        }
    }

    async fn heed(self: &Arc<Self>, outlet: &Arc<Outlet>, told: Told) {
        let Some(ours) = self.counted_today(outlet).await else { return };
        let back = outlet.allowance.tell(told.for_us(ours), self.clock.now());
        outlet.allowance.give_back(back, &self.store).await;
        outlet.untold.clear(format_args!("{} tells its limits", outlet.name));
        self.refill(outlet);
        self.look_now();
    }

    /// What the ledger counts of ours in the last 24 hours; `None`: it does not answer now.
    async fn counted_today(&self, outlet: &Outlet) -> Option<u64> {
        let all = QuotaLimits { daily: Some(ALL), ..QuotaLimits::default() };
        let block = self.store.take(&outlet.name, 0, all).await.ok()?;
        block.left[Window::Day as usize].map(|left| ALL.saturating_sub(left))
    }
}
