//! A message for more recipients than an ESP takes in one call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::hours::submission;
use super::reload::{parts, start, until};
use crate::address::{Address, Grammar};
use crate::clock::Timestamp;
use crate::esp::smtp::Smtp;
use crate::esp::{Esp, Parcel, Unfit};
use crate::flow::setup::Line;
use crate::mail::{Answer, Outcome, Phase, Reply, Request, SmtpReply, Watch};
use crate::wire::{Checked, Wire};

/// Takes so many at a time.
#[derive(Debug)]
struct Narrow(u32);

impl Esp for Narrow {
    fn compose(&self, parcel: Parcel<'_>, now: Timestamp) -> Result<Request, Unfit> {
        Smtp::default().compose(parcel, now)
    }

    fn recipients_max(&self) -> u32 {
        self.0
    }

    fn read(&self, parcel: Parcel<'_>, reply: &Reply, now: Timestamp) -> Vec<Outcome> {
        Smtp::default().read(parcel, reply, now)
    }
}

/// Takes all, and remembers each call's recipients.
#[derive(Debug, Default)]
pub(super) struct Counting(Mutex<Vec<Vec<String>>>);

impl Counting {
    pub(super) fn calls(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Wire for Counting {
    fn exchange<'a>(&'a self, request: Request, watch: &'a Watch) -> BoxFuture<'a, Reply> {
        let Request::Smtp(request) = request else { panic!("{request:?}") };
        self.0.lock().unwrap().push(request.recipients.iter().map(|to| to.wire().to_owned()).collect());
        watch.hand_over();
        let ok = Answer { code: 250, enhanced: None, text: "ok".into() };
        let recipients = vec![ok.clone(); request.recipients.len()];
        let reply = SmtpReply { phase: Phase::Dot, last: ok, recipients, reports: false };
        Box::pin(std::future::ready(Reply::Smtp(reply)))
    }

    fn answers_within(&self, _: &Request) -> Duration {
        Duration::from_secs(60)
    }

    fn check(&self) -> BoxFuture<'_, Checked> {
        Box::pin(std::future::ready(Checked { steps: Vec::new(), met: Ok(()), in_part: false }))
    }
}

#[tokio::test]
async fn it_goes_in_several_calls_each_recipient_once() {
    let dir = tempfile::tempdir().unwrap();
    let wire = Arc::new(Counting::default());
    let line = Arc::new(Line { esp: Box::new(Narrow(50)), wire: Arc::clone(&wire) as Arc<dyn Wire> });
    let (courier, intake) = start(dir.path(), parts(&[("a", &line, 2)]));
    let mut crowd = submission("r0@example.com", "transactional");
    let address = |n| Address::parse(&format!("r{n}@example.com"), Grammar::Strict).unwrap();
    crowd.envelope.recipients = (0..120).map(address).collect();
    intake.submit(crowd).await.unwrap();
    let sent = || wire.0.lock().unwrap().concat().len();
    until("all of them", || sent() >= 120).await;
    courier.stop(Duration::from_secs(1)).await;
    let calls = wire.0.lock().unwrap().clone();
    let mut sizes: Vec<usize> = calls.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [20, 50, 50]);
    let mut all = calls.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 120, "none twice");
}
