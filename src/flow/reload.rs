//! Another setup in place of the present one, while mail flows. An ESP keeps its gate, its pace and its allowance by its
//! name. What was begun and has not started is taken back and chosen for anew, by the new setup; what is on its way goes
//! on, as it was begun.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};

use super::courier::Courier;
use super::outlet::{self, Outlet};
use super::setup::{Carrier, Line, Parts, Setup};
use crate::journal;
use crate::store::{EVERY_ESP, StoreError, Suspension};

/// Why no other setup was put in place.
#[derive(Debug, thiserror::Error)]
pub enum NotReplaced {
    /// The relay stops.
    #[error("the relay is stopping")]
    Stopping,
    /// Who is suspended could not be read.
    #[error("cannot read which ESPs are suspended: {0}")]
    Store(#[from] StoreError),
}

impl Courier {
    /// The setup that holds now. Who decides something takes it once, and goes by it to the end.
    pub fn setup(&self) -> Arc<Setup> {
        self.setup.load_full()
    }

    /// Whether the ESP of that outlet is spoken to by that line now.
    pub(super) fn is_spoken_to_by(&self, outlet: &Outlet, line: &Arc<Line>) -> bool {
        self.setup.load().carrier(&outlet.name).is_some_and(|c| Arc::ptr_eq(&c.line, line))
    }

    /// Puts a setup in place of the present one. `at_once` is run at that very moment: afterwards everybody who comes
    /// goes by the new one. On `Err` nothing has changed.
    pub async fn replace<T>(
        self: &Arc<Self>,
        parts: Parts,
        at_once: impl FnOnce(Arc<Setup>) -> T,
    ) -> Result<T, NotReplaced> {
        let _order = self.order.lock().await;
        // So that a pause or a suspension of this very moment holds for those that are new as well.
        let suspensions = self.store.suspensions().await?;
        let before = self.setup();
        let (setup, back, done) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if self.stop.is_cancelled() {
                return Err(NotReplaced::Stopping);
            }
            let esps: Vec<_> = parts.esps.iter().map(|esp| (esp.connections, esp.limits)).collect();
            let outlet = |esp: &outlet::Parts| self.outlet_of(&mut known, esp, &suspensions);
            let setup = Setup::new(before.number + 1, parts, outlet);
            let mut back = Vec::new();
            for (Carrier { outlet, .. }, (connections, limits)) in setup.carriers.iter().zip(esps) {
                back.push(outlet.allowance.change(limits, self.clock.now()));
                self.put_to_work(outlet, connections);
            }
            self.setup.store(Arc::clone(&setup));
            let done = at_once(Arc::clone(&setup));
            (setup, back, done)
        };
        for (carrier, back) in setup.carriers.iter().zip(back) {
            carrier.outlet.allowance.give_back(back, &self.store).await;
        }
        for carrier in &before.carriers {
            self.retire(carrier, &setup).await;
        }
        self.ask_allowances().await;
        self.ask_accounts();
        if setup.carriers.iter().any(|c| before.carrier(c.name()).is_none()) {
            self.stranded.clear("the ESPs have changed");
        }
        self.note_missing_pins().await;
        self.look_now();
        Ok(done)
    }

    /// The outlet that has that name already, also one that is only at work still; else a new one.
    fn outlet_of(
        &self,
        known: &mut Vec<Weak<Outlet>>,
        esp: &outlet::Parts,
        suspensions: &HashMap<String, Suspension>,
    ) -> Arc<Outlet> {
        known.retain(|outlet| outlet.strong_count() > 0);
        let of_that_name = |outlet: &Arc<Outlet>| *outlet.name == *esp.name;
        let outlet = if let Some(there) = known.iter().filter_map(Weak::upgrade).find(of_that_name) {
            there
        } else {
            let new = Outlet::new(esp, Arc::clone(&self.clock), Arc::clone(&self.wake));
            known.push(Arc::downgrade(&new));
            new
        };
        // Also one that was away while all was paused, or let go on.
        outlet.gate.suspend(suspensions.get(&*outlet.name).cloned());
        outlet.gate.pause_with_all(suspensions.get(EVERY_ESP).cloned());
        outlet
    }

    /// Somebody at each of its connections that has nobody.
    pub(super) fn put_to_work(self: &Arc<Self>, outlet: &Arc<Outlet>, connections: usize) {
        for connection in outlet.staff(connections) {
            let (courier, outlet) = (Arc::clone(self), Arc::clone(outlet));
            self.tasks.spawn(async move {
                while let Some(call) = outlet.next(connection).await {
                    if outlet.turns_away(&call) {
                        courier.send_back(&outlet, call).await;
                    } else if call.setup != courier.setup.load().number {
                        courier.take_back(&[call]).await;
                        courier.look_now();
                    } else {
                        courier.carry(&outlet, connection, call).await;
                    }
                }
            });
        }
    }

    /// What the setup before has begun and not started goes back; and its lines close where they are used no more.
    async fn retire(self: &Arc<Self>, before: &Carrier, setup: &Setup) {
        let (outlet, now) = (&before.outlet, setup.carrier(before.name()));
        if now.is_none() {
            // Those at work there end after their call; what comes too late is given back at the door.
            let _nobody = outlet.staff(0);
        }
        let number = setup.number;
        self.take_back(&outlet.unstarted_if(|call| call.setup != number)).await;
        if now.is_none() {
            outlet.allowance.close(&self.store).await;
            journal::esp_gone(&outlet.name);
        }
        if now.is_none_or(|now| !Arc::ptr_eq(&now.line, &before.line)) {
            outlet.gate.check_now(self.clock.now());
            outlet.seats.forget();
            let line = Arc::clone(&before.line);
            self.tasks.spawn(async move { line.wire.close().await });
        }
    }
}
