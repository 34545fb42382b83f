//! Other setups put in place while mail flows: what is on its way ends as it was begun, all else goes by the new one,
//! and what an ESP's name keeps stays.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, Semaphore};

use super::hours::{settings, submission};
use crate::clock::{Clock, System};
use crate::flow::courier::{self, Courier};
use crate::flow::intake::{self, Intake};
use crate::flow::outlet;
use crate::flow::prepare;
use crate::flow::setup::{self, Line};
use crate::mail::mime::LongLines;
use crate::mail::quota::Limits;
use crate::mail::{Answer, Budget, IdMint, Owner, Phase, Reply, Request, SmtpReply, StreamKind, Watch};
use crate::policy::streams::StreamSettings;
use crate::router::{Carries, Rules};
use crate::store::Store;
use crate::wire::{Checked, Wire};

/// A next hop that answers once for each permit.
#[derive(Debug)]
struct Hop {
    permits: Semaphore,
    asked: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct HopWire(Arc<Hop>);

impl Hop {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Hop { permits: Semaphore::new(permits), asked: Mutex::default() })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Wire for HopWire {
    fn exchange<'a>(&'a self, request: Request, watch: &'a Watch) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let Request::Smtp(request) = request else { panic!("{request:?}") };
            self.0.asked.lock().unwrap().extend(request.recipients.iter().map(|to| to.wire().to_owned()));
            watch.hand_over();
            self.0.permits.acquire().await.unwrap().forget();
            let ok = Answer { code: 250, enhanced: None, text: "ok".into() };
            let recipients = vec![ok.clone(); request.recipients.len()];
            Reply::Smtp(SmtpReply { phase: Phase::Dot, last: ok, recipients, reports: false })
        })
    }

    fn answers_within(&self, _: &Request) -> Duration {
        Duration::from_secs(60)
    }

    fn check(&self) -> BoxFuture<'_, Checked> {
        Box::pin(std::future::ready(Checked { steps: Vec::new(), met: Ok(()), in_part: false }))
    }
}

fn line(hop: &Arc<Hop>) -> Arc<Line> {
    let esp = Box::new(crate::esp::smtp::Smtp::default());
    Arc::new(Line { esp, wire: Arc::new(HopWire(Arc::clone(hop))) })
}

pub(in crate::flow) fn parts(esps: &[(&str, &Arc<Line>, usize)]) -> setup::Parts {
    let esp = |(name, line, connections): &(&str, &Arc<Line>, usize)| outlet::Parts {
        name: (*name).to_owned(),
        priority: 1,
        weight: 100,
        line: Arc::clone(line),
        connections: *connections,
        limits: Limits::default(),
    };
    setup::Parts {
        esps: esps.iter().map(esp).collect(),
        streams: [StreamKind::Transactional, StreamKind::Broadcast].map(StreamSettings::built_in).to_vec(),
        routes: Rules::new(vec![Carries::default(); esps.len()], Vec::new()),
    }
}

pub(super) fn start(dir: &Path, first: setup::Parts) -> (Arc<Courier>, Intake) {
    start_by(dir, first, Arc::new(System))
}

pub(super) fn start_by(dir: &Path, first: setup::Parts, clock: Arc<dyn Clock>) -> (Arc<Courier>, Intake) {
    let (mint, budget) = (Arc::new(IdMint::new(7)), Budget::new(64 << 20));
    let store = Store::open(settings(dir), Owner::from_number(1), Arc::clone(&clock)).unwrap();
    let courier = Courier::new(courier::Parts {
        store: store.clone(),
        clock: Arc::clone(&clock),
        mint: Arc::clone(&mint),
        budget: Arc::clone(&budget),
        setup: first,
        wake: Arc::new(Notify::new()),
    });
    let rules = prepare::Settings {
        hostname: "relay.example.org".into(),
        token: "t".into(),
        origin: None,
        long_lines: LongLines::Reencode,
        vendor_headers: false,
    };
    let (listeners, keeper) = (vec!["l".into()], Arc::clone(&courier));
    courier.start();
    (courier, Intake::new(intake::Parts { store, clock, mint, budget, courier: keeper, rules, listeners }))
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waits = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waits).await.is_ok(), "in vain: {what}");
}

async fn submit(intake: &Intake, count: usize) {
    for n in 0..count {
        intake.submit(submission(&format!("r{n}@example.com"), "transactional")).await.unwrap();
    }
}

fn begun(courier: &Courier) -> usize {
    courier.esp_statuses().iter().map(|esp| esp.begun).sum()
}

#[tokio::test]
async fn what_is_on_its_way_ends_as_it_was_begun_and_all_else_goes_by_the_new_settings() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Hop::new(0), Hop::new(100));
    let (courier, intake) = start(dir.path(), parts(&[("a", &line(&old), 1)]));
    submit(&intake, 5).await;
    until("one on its way, one that waits for the connection", || old.asked() == 1 && begun(&courier) == 2)
        .await;
    let new_line = line(&new);
    courier.replace(parts(&[("a", &new_line, 2)]), |_| ()).await.unwrap();
    until("the other four by the new settings", || new.asked() == 4).await;
    assert_eq!(old.asked(), 1, "its own call goes on");
    old.permits.add_permits(1);
    until("all answered", || begun(&courier) == 0).await;
    assert_eq!((old.asked(), new.asked()), (1, 4), "none lost, none twice");

    courier.replace(parts(&[("a", &new_line, 1)]), |_| ()).await.unwrap();
    submit(&intake, 3).await;
    until("fewer connections carry as well", || new.asked() == 7).await;
    courier.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_removed_esp_gets_no_new_calls_and_its_mail_goes_to_the_one_that_came() {
    let dir = tempfile::tempdir().unwrap();
    let (gone, came) = (Hop::new(0), Hop::new(100));
    let (gone_line, came_line) = (line(&gone), line(&came));
    let (courier, intake) = start(dir.path(), parts(&[("gone", &gone_line, 1)]));
    submit(&intake, 4).await;
    until("one on its way", || gone.asked() == 1 && begun(&courier) == 2).await;
    courier.pause_all("moving").await.unwrap();
    courier.replace(parts(&[("came", &came_line, 3)]), |_| ()).await.unwrap();
    let statuses = courier.esp_statuses();
    assert_eq!(statuses.iter().map(|esp| (&*esp.name, esp.gate)).collect::<Vec<_>>(), [("came", "paused")]);
    assert!(courier.suspend("gone", "x", None).await.is_err());
    courier.unpause_all().await.unwrap();
    // The session that began before still knows the old configuration.
    submit(&intake, 1).await;
    until("all that was not on its way", || came.asked() == 4).await;

    // It is back before its call has ended: with that call, and with all that its name keeps.
    courier.replace(parts(&[("gone", &gone_line, 1)]), |_| ()).await.unwrap();
    assert_eq!(begun(&courier), 1);
    courier.suspend("gone", "invoice", None).await.unwrap();
    courier.replace(parts(&[("gone", &line(&gone), 4)]), |_| ()).await.unwrap();
    assert_eq!(courier.esp_statuses()[0].gate, "suspended");
    gone.permits.add_permits(100);
    until("its own call ends", || begun(&courier) == 0).await;
    courier.resume("gone").await.unwrap();
    submit(&intake, 2).await;
    until("and it carries again", || gone.asked() == 3).await;
    courier.stop(Duration::from_secs(1)).await;
    let after = courier.replace(parts(&[("gone", &gone_line, 1)]), |_| ()).await;
    assert!(after.is_err(), "nobody is put to work after a stop");
}
