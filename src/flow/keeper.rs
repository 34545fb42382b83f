//! The keeper's rounds: how much to begin ahead, ends that nobody else looks at, and retention; and room for new mail
//! where the disk is short of it.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::choice::Wish;
use super::courier::Courier;
use super::gatehouse::Flying;
use super::seats::Learnt;
use super::setup::Carrier;
use super::told;
use crate::clock::{Timestamp, monotonic};
use crate::journal;
use crate::mail::{Reason, Watch};
use crate::router::Ties;
use crate::store::{LetGo, Store, StoreError};

/// How much is begun ahead shrinks so often: a burst lasts for seconds.
const EASE_EVERY: Duration = Duration::from_secs(1);
/// Gates are looked at so often: for what hangs, and for checks that are due.
const GATES_EVERY: Duration = Duration::from_millis(250);
/// `max_age` and the ends of holds are swept so often.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Retention runs so often.
const RETAIN_EVERY: Duration = Duration::from_secs(60);
/// That the relay is up is noted so often at first, else one that crashes again and again would find each time that no hold
/// had come nearer to its end…
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// …for so many times, and then with each of so many: after a crash each hold is longer by at most so much more.
const ALIVE_YOUNG: u64 = 12;
const ALIVE_EACH: u64 = 10;
/// Deliveries swept at a time.
const SWEEP_BATCH: usize = 500;

/// Between two times that room is made, for mail that comes fast; where that takes long, so many times as long.
const ROOM_REST: Duration = Duration::from_millis(100);
const ROOM_REST_TIMES: u32 = 4;
/// Where nothing was there to go…
const ROOM_PAUSE: Duration = Duration::from_secs(1);
/// …and where it failed.
const ROOM_PAUSE_FAILED: Duration = Duration::from_secs(10);
/// What went for it is told so often, summed up.
const ROOM_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Makes the rounds until it is told to stop.
pub async fn keep(courier: Arc<Courier>, stop: CancellationToken) {
    let mut ease = every(EASE_EVERY);
    let mut gates = every(GATES_EVERY);
    let mut sweep = every(SWEEP_EVERY);
    let mut retain = every(RETAIN_EVERY);
    let mut alive = every(ALIVE_EVERY);
    let mut accounts = every(told::ASK_EVERY);
    let mut up: u64 = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ease.tick() => courier.ease(),
            _ = gates.tick() => courier.look_at_gates(),
            _ = accounts.tick() => courier.ask_accounts(),
            _ = sweep.tick() => { courier.sweep().await; courier.look_at_unfit().await; }
            _ = retain.tick() => courier.retain().await,
            _ = alive.tick() => {
                up += 1;
                if is_noted(up) {
                    // Where it cannot be noted the next start holds longer.
                    let _ = courier.store.note_alive().await;
                }
            }
        }
    }
}

/// Whether it is noted that the relay is up, after so many times of [`ALIVE_EVERY`].
fn is_noted(up: u64) -> bool {
    up <= ALIVE_YOUNG || up.is_multiple_of(ALIVE_EACH)
}

/// Makes room for new mail where it is short, until it is told to stop. Apart from the rounds, of which one may be long.
pub async fn make_room(courier: Arc<Courier>, stop: CancellationToken) {
    let mut gone = LetGo::default();
    let mut told_next = monotonic();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = courier.store.room_is_short() => {}
            () = tokio::time::sleep_until(told_next), if gone.bodies > 0 => {}
        }
        let rest = tokio::select! {
            () = stop.cancelled() => break,
            rest = make_some_room(&courier.store, &mut gone) => rest,
        };
        if gone.bodies > 0 && monotonic() >= told_next {
            tell(std::mem::take(&mut gone));
            told_next = monotonic() + ROOM_TOLD_EVERY;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(rest) => {}
        }
    }
    if gone.bodies > 0 {
        tell(gone);
    }
}

fn tell(gone: LetGo) {
    journal::let_go(gone.bodies, gone.octets);
}

/// How long to rest after it.
async fn make_some_room(store: &Store, gone: &mut LetGo) -> Duration {
    let (started, before) = (monotonic(), *gone);
    match store.make_room(gone).await {
        Ok(()) if *gone == before => ROOM_PAUSE.max(started.elapsed() * ROOM_REST_TIMES),
        Ok(()) => ROOM_REST.max(started.elapsed() * ROOM_REST_TIMES),
        // That there is none is told already.
        Err(StoreError::Full(_) | StoreError::Stopping) => ROOM_PAUSE_FAILED,
        Err(error @ StoreError::Failed(_)) => {
            journal::trouble("making room on the disk", &error.to_string());
            ROOM_PAUSE_FAILED
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

impl Courier {
    /// How much is begun ahead, and how many connections each ESP allows.
    fn ease(&self) {
        let now = self.clock.now();
        for Carrier { outlet, .. } in &self.setup().carriers {
            outlet.ease();
            if let Some(Learnt { allowed, said }) = outlet.seats.look(now) {
                journal::esp_full(&outlet.name, allowed, outlet.connections(), &said);
            }
        }
    }

    /// What hangs at one ESP goes elsewhere where there is another; a shut gate gets its free check.
    fn look_at_gates(self: &Arc<Self>) {
        let (now, setup) = (self.clock.now(), self.setup());
        for Carrier { outlet, line, .. } in &setup.carriers {
            let (hung, told) = outlet.gate.find_hang(now, |call| self.goes_elsewhere(call, now));
            self.record_alerts(outlet, told.into_iter().collect());
            outlet.gate.look_at_alert(now);
            // After hand-over an abort would be of no use: that answer is waited for.
            hung.iter().for_each(Watch::abort);
            let turned_away = outlet.turned_away();
            if !turned_away.is_empty() {
                let courier = Arc::clone(self);
                self.tasks.spawn(async move {
                    courier.take_back(&turned_away).await;
                    courier.look_now();
                });
            }
            if outlet.gate.takes_check(now) {
                let (courier, outlet, line) = (Arc::clone(self), Arc::clone(outlet), Arc::clone(line));
                self.tasks.spawn(async move {
                    let met = tokio::select! {
                        () = courier.stop.cancelled() => return,
                        checked = line.wire.check() => checked.met,
                    };
                    if courier.is_spoken_to_by(&outlet, &line) {
                        outlet.gate.checked(met, courier.clock.now());
                        courier.look_now();
                    }
                });
            }
        }
    }

    /// Whether another ESP than those that were tried could carry it now.
    fn goes_elsewhere(&self, call: &Flying, now: Timestamp) -> bool {
        let Flying { message, rule, tried, .. } = call;
        let ties = Ties { pin: message.pin.as_deref(), tried, ..Ties::default() };
        self.another_left(&Wish { message, rule, recipients: 1, whole: false, ties }, now)
    }

    /// Ends what has passed its `max_age`, whether or not anything could carry it. `false`: the store did not.
    pub(super) async fn sweep(&self) -> bool {
        loop {
            match self.store.sweep(self.clock.now(), SWEEP_BATCH).await {
                Ok(ended) => {
                    for e in &ended {
                        let reason = e.reason.unwrap_or(Reason::Expired);
                        journal::settled(e.id.message, &e.recipient, &e.stream, reason);
                    }
                    if ended.len() < SWEEP_BATCH {
                        return true;
                    }
                }
                Err(error) => {
                    journal::trouble("sweeping the queue", &error.to_string());
                    return false;
                }
            }
        }
    }

    async fn retain(&self) {
        if let Err(error) = self.store.retain(self.clock.now()).await {
            journal::trouble("retention", &error.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::delivery::Delivery;
    use crate::mail::{AttemptId, QueueState};

    #[test]
    fn a_hold_ends_also_where_the_relay_is_up_for_seconds_only() {
        const HOLD: Duration = Duration::from_secs(60);
        for (up, down) in [(8, 1), (5, 2), (3, 1), (30, 10)] {
            let mut now = Timestamp::from_millis(1_000_000);
            let until = now.plus(HOLD);
            let mut held = Delivery::waiting(now);
            held.state = QueueState::Unsure { attempt: AttemptId::from_number(1), until };
            let mut lives = 0;
            while matches!(held.state, QueueState::Unsure { until, .. } if until > now.plus(Duration::from_secs(up)))
            {
                let noted = (0..up).rev().find(|seconds| is_noted(*seconds)).unwrap_or(0);
                let since = Duration::from_secs(up - noted + down);
                now = now.plus(Duration::from_secs(up + down));
                held.outage(now, since, HOLD);
                lives += 1;
                assert!(lives < 100, "up for {up} s, down for {down} s: it never ends");
            }
        }
    }
}
