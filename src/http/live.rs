//! The queue and the ESPs as the routes and commands see them, over the real store and courier.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Desk, Post, Queue, Tokens};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::flow::bounce;
use crate::flow::courier::Courier;
use crate::flow::desk::{DeskError, EspStatus, Outlook, Resolved, Tried};
use crate::flow::intake::Intake;
use crate::journal;
use crate::mail::from::Whose;
use crate::mail::{MessageId, OnceKey, StreamName, Submission};
use crate::policy::streams::StreamSettings;
use crate::smtp::{Client, Gatekeeper, Reply};
use crate::store::{
    Act, BackedUp, BackupError, DeliveryView, EVERY_ESP, Filter, Listed, MaxAge, MessageView, NewSuppression,
    NewToken, Progress, QueueCount, Requeued, Store, StoreError, Suspension, Token,
};

/// A store, and the courier that has to know when an operator changes something; offline there is none.
#[derive(Debug, Clone)]
pub struct Live {
    /// The database.
    pub store: Store,
    /// Who looks at the queue.
    pub courier: Option<Arc<Courier>>,
}

impl Live {
    async fn whole(&self, id: MessageId) -> Result<Option<Bytes>, StoreError> {
        let Some(loaded) = self.store.load(vec![id]).await.pop() else { return Ok(None) };
        let Some(message) = loaded? else { return Ok(None) };
        let Some(rest) = message.body.rest else { return Ok(Some(message.body.head)) };
        let mut whole = BytesMut::from(&message.body.head[..]);
        for n in 0..rest.chunks {
            whole.extend_from_slice(&self.store.chunk(rest.message, n).await?);
        }
        Ok(Some(whole.freeze()))
    }

    fn look_now(&self) {
        if let Some(courier) = &self.courier {
            courier.look_now();
        }
    }

    async fn acted(
        &self,
        act: Act,
        ids: Vec<MessageId>,
    ) -> Result<Vec<(MessageId, crate::store::Acted)>, StoreError> {
        let mut changed = Vec::new();
        for (id, acted) in ids.iter().zip(self.store.act(act, ids.clone()).await) {
            let acted = acted?;
            if acted.found {
                changed.push((*id, acted));
                journal::acted(word(act), Some(*id), u64::from(acted.changed));
            }
        }
        self.look_now();
        Ok(changed)
    }
}

fn word(act: Act) -> &'static str {
    match act {
        Act::Flush => "flush",
        Act::Pause => "pause",
        Act::Release => "release",
        Act::Remove => "remove",
    }
}

impl Queue for Live {
    fn flush_all(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let flush = async {
            let deliveries = self.store.flush_all().await?;
            journal::acted(word(Act::Flush), None, deliveries);
            self.look_now();
            Ok(deliveries)
        };
        flush.boxed()
    }

    fn requeue(&self, ids: Vec<MessageId>) -> BoxFuture<'_, Result<Vec<Requeued>, StoreError>> {
        let courier = self.courier.clone();
        let max_age = MaxAge::new(move |lane| match &courier {
            Some(courier) => courier.max_age(lane),
            None => StreamSettings::built_in(lane.kind).max_age,
        });
        let requeue = async move {
            let requeued = self.store.requeue(ids.clone(), max_age).await?;
            for (id, requeued) in ids.iter().zip(&requeued) {
                if let Requeued::Again { deliveries, .. } = requeued {
                    journal::acted("requeue", Some(*id), u64::from(*deliveries));
                }
            }
            self.look_now();
            Ok(requeued)
        };
        requeue.boxed()
    }

    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<DeliveryView>, StoreError>> {
        self.store.list(filter).boxed()
    }

    fn show(&self, id: MessageId) -> BoxFuture<'_, Result<Option<MessageView>, StoreError>> {
        self.store.show(id).boxed()
    }

    fn body(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.whole(id).boxed()
    }

    fn act(
        &self,
        act: Act,
        ids: Vec<MessageId>,
    ) -> BoxFuture<'_, Result<Vec<(MessageId, crate::store::Acted)>, StoreError>> {
        self.acted(act, ids).boxed()
    }

    fn counts(&self) -> BoxFuture<'_, Result<Vec<QueueCount>, StoreError>> {
        self.store.counts().boxed()
    }

    fn paused(&self) -> BoxFuture<'_, Result<Option<Suspension>, StoreError>> {
        async { Ok(self.store.suspensions().await?.remove(EVERY_ESP)) }.boxed()
    }

    fn back_up<'a>(
        &'a self,
        file: &'a Path,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<BackedUp, BackupError>> {
        let back_up = async {
            let made = self.store.back_up(file, progress).await?;
            journal::backed_up(file, made.octets, made.took);
            Ok(made)
        };
        back_up.boxed()
    }

    fn events(
        &self,
        unmatched: bool,
        before: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<crate::store::Told>, StoreError>> {
        self.store.events(unmatched, before, limit).boxed()
    }

    fn notifications(
        &self,
        filter: crate::store::NotificationFilter,
    ) -> BoxFuture<'_, Result<Vec<crate::store::Notification>, StoreError>> {
        self.store.notifications(filter).boxed()
    }

    fn replay_notifications(
        &self,
        replay: crate::store::Replay,
    ) -> BoxFuture<'_, Result<crate::store::Replayed, StoreError>> {
        self.store.replay_notifications(replay).boxed()
    }

    fn event_news(&self) -> tokio::sync::watch::Receiver<()> {
        self.store.event_news()
    }

    fn timeline(&self) -> BoxFuture<'_, Result<crate::store::Timeline, StoreError>> {
        self.store.timeline().boxed()
    }

    fn events_after(
        &self,
        unmatched: bool,
        after: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<crate::store::Told>, StoreError>> {
        self.store.events_after(unmatched, after, limit).boxed()
    }

    fn suppressions(
        &self,
        key: Option<String>,
        after: [String; 3],
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Listed>, StoreError>> {
        self.store.suppressions(key, after, limit).boxed()
    }

    fn suppress(&self, new: NewSuppression) -> BoxFuture<'_, Result<bool, StoreError>> {
        let suppress = async {
            let written = self.store.suppress(vec![new]).await.pop();
            written.unwrap_or(Err(StoreError::Stopping))
        };
        suppress.boxed()
    }

    fn unsuppress(&self, key: String, reason: Option<String>) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.store.unsuppress(key, reason).boxed()
    }

    fn probe_write(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.probe_write().boxed()
    }
}

impl Tokens for Live {
    fn find(&self, hash: &[u8; 32]) -> Result<Option<Token>, StoreError> {
        self.store.token(hash)
    }

    fn note_use(&self, id: i64, at: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.note_token_use(id, at).boxed()
    }

    fn list(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<Token>, StoreError>> {
        self.store.tokens(after, limit).boxed()
    }

    fn add(&self, token: NewToken) -> BoxFuture<'_, Result<Token, StoreError>> {
        self.store.add_token(token).boxed()
    }

    fn revoke(&self, id: i64) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.store.revoke_token(id).boxed()
    }
}

/// The relay's intake, for mail that comes by HTTP.
#[derive(Debug, Clone)]
pub struct LivePost(pub Arc<Intake>);

impl Post for LivePost {
    fn judge<'a>(&'a self, client: &'a Client, recipient: &'a Address) -> BoxFuture<'a, Reply> {
        Gatekeeper::recipient(&*self.0, client, recipient).boxed()
    }

    fn unknown(&self, stream: Option<&StreamName>, esp: Option<&str>) -> Vec<(&'static str, String)> {
        self.0.unknown(stream, esp)
    }

    fn known(&self, key: &OnceKey) -> Result<Option<MessageId>, Reply> {
        self.0.known(key)
    }

    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<MessageId, Reply>> {
        // On a task of its own: a client that hangs up does not stop half-way what is being committed.
        let intake = Arc::clone(&self.0);
        let task = tokio::spawn(async move { intake.submit_whole(submission).await });
        let said = "a fault in Postroad, its log says why; whether the mail was taken is not known, so look for it before \
             trying again, or give the Idempotency-Key that it had";
        let ended = |_| Reply::new(451, (4, 3, 0), said);
        async move { task.await.unwrap_or_else(|error| Err(ended(error))) }.boxed()
    }
}

/// A courier, asked about its ESPs.
#[derive(Debug, Clone)]
pub struct LiveDesk {
    /// It.
    pub courier: Arc<Courier>,
    /// Whom the relay's own mail comes from.
    pub reports: Arc<ArcSwap<bounce::Settings>>,
}

impl Desk for LiveDesk {
    fn statuses(&self) -> Vec<EspStatus> {
        self.courier.esp_statuses()
    }

    fn suspend<'a>(
        &'a self,
        esp: &'a str,
        reason: &'a str,
        for_how_long: Option<Duration>,
    ) -> BoxFuture<'a, Result<EspStatus, DeskError>> {
        self.courier.suspend(esp, reason, for_how_long).boxed()
    }

    fn resume<'a>(&'a self, esp: &'a str) -> BoxFuture<'a, Result<EspStatus, DeskError>> {
        self.courier.resume(esp).boxed()
    }

    fn try_esp<'a>(&'a self, esp: &'a str) -> BoxFuture<'a, Result<Tried, DeskError>> {
        let own = self.reports.load().from.as_ref().map(|from| from.wire().to_owned());
        let tried = async move {
            let tried = self.courier.try_esp(esp).await?;
            Ok(Tried { from: own.or(tried.from), ..tried })
        };
        tried.boxed()
    }

    fn pause_all<'a>(&'a self, reason: &'a str) -> BoxFuture<'a, Result<Vec<EspStatus>, DeskError>> {
        self.courier.pause_all(reason).boxed()
    }

    fn unpause_all(&self) -> BoxFuture<'_, Result<Vec<EspStatus>, DeskError>> {
        self.courier.unpause_all().boxed()
    }

    fn resolve(&self, whose: Whose<'_>, to: &Address, stream: Option<&str>) -> Result<Resolved, DeskError> {
        self.courier.resolve(whose, to, stream)
    }

    fn outlook<'a>(&'a self, view: &'a MessageView) -> BoxFuture<'a, Result<Vec<Outlook>, StoreError>> {
        self.courier.outlook(view).boxed()
    }
}
