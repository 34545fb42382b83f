//! A queue and two ESPs in memory, for tests of the routes and the commands.

mod desk;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::reload::{Change, NotReloaded, Reloaded};
use super::{
    Desk, Door, FieldProblem, HookPost, HookRoom, Hooks, Post, Queue, Relay, Reload, Tokens, Told, Webhooks,
};
use crate::address::{Address, Grammar};
use crate::clock::{Manual, Timestamp};
use crate::esp::setup::{Arranged, ByHand, State, Thing};
use crate::flow::Standing;
use crate::flow::desk::{DeskError, EspStatus, Outlook, Resolved, Tried};
use crate::flow::feedback::{Counted, NotHeard};
use crate::flow::webhooks::{Followed, SetUp, Tested};
use crate::mail::delivery::Mark;
use crate::mail::from::Whose;
use crate::mail::{
    AttemptId, Body, BodyFacts, BodyKind, Budget, DeliveryId, Envelope, Known, Message, MessageId, OnceKey,
    Owner, Protocol, QueueState, Reason, ReversePath, Source, StreamKind, StreamName, Submission,
};
use crate::router::PassedOver;
use crate::secret::Secret;
use crate::smtp::{Client, Reply};
use crate::store::{
    Act, AttemptView, BackedUp, BackupError, DeliveryView, EventView, Filter, Listed, MessageView,
    NewSuppression, NewToken, Progress, QueueCount, Requeued, StoreError, Suspension, Token,
};
use crate::wire::Step;

/// 2026-11-25T10:20:34.005Z
pub const ACCEPTED: Timestamp = Timestamp::from_millis(1_795_602_034_005);
/// Four minutes later.
pub const DUE: Timestamp = Timestamp::from_millis(1_795_602_034_005 + 240_000);

/// What the port may take for mail.
pub const BUDGET_OCTETS: usize = 1_000_000;

/// What opens a port on it.
pub const TOKEN: &str = "tok-en";

/// What it was told, and what it has.
#[derive(Default)]
pub struct Fake {
    pub messages: Mutex<BTreeMap<MessageId, MessageView>>,
    pub bodies: Mutex<BTreeMap<MessageId, Bytes>>,
    pub acts: Mutex<Vec<(Act, Option<Vec<MessageId>>)>>,
    pub counts: Mutex<Vec<QueueCount>>,
    /// Every verb fails.
    pub broken: AtomicBool,
    pub probes: AtomicUsize,
    /// The ESPs; the first has a limit, the second has failed.
    pub esps: Mutex<Vec<String>>,
    /// The mail that was taken in.
    pub submitted: Mutex<Vec<Submission>>,
    /// The tokens that were made, with their hashes.
    pub tokens: Mutex<Vec<([u8; 32], Token)>>,
    /// Who of them is suspended.
    pub suspended: Mutex<BTreeMap<String, Suspension>>,
    /// Why all of them are paused.
    pub paused: Mutex<Option<Suspension>>,
    /// The suppression list, in its order.
    pub suppressed: Mutex<Vec<Listed>>,
    /// Events beyond the first five.
    pub more_events: AtomicI64,
    /// Changes where they came.
    pub event_news: tokio::sync::watch::Sender<()>,
    /// Ends a backup into slow.db.
    pub slow_backup: tokio::sync::Notify,
}

pub fn id(n: i64) -> MessageId {
    MessageId::from_number(n)
}

pub fn attempt(n: i64) -> AttemptId {
    AttemptId::from_number(n)
}

impl Fake {
    /// Three messages: 1 waits after a refusal, 2 was handed to the sandbox, 3 is held. Two ESPs: a and b.
    pub fn with_three() -> Self {
        let fake = Fake { esps: Mutex::new(vec!["a".into(), "b".into()]), ..Fake::default() };
        let waiting = QueueState::Waiting { due: DUE };
        fake.add(message(1, waiting, "451 4.7.1 try later\u{1b}[2J"), b"Subject: one\r\n\r\nhello\r\n");
        fake.add(message(2, QueueState::Done, "kept"), b"two");
        fake.add(message(3, QueueState::Unsure { attempt: attempt(31), until: DUE }, "line lost"), b"three");
        fake
    }

    pub fn add(&self, view: MessageView, body: &'static [u8]) {
        self.bodies.lock().unwrap().insert(view.message.id, Bytes::from_static(body));
        self.messages.lock().unwrap().insert(view.message.id, view);
    }

    /// Five events, and those that came since.
    fn happened(&self) -> i64 {
        5 + self.more_events.load(Ordering::SeqCst)
    }

    fn ok<T>(&self, value: T) -> Result<T, StoreError> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err(StoreError::Full("the disk has 0 B left".into())),
            false => Ok(value),
        }
    }
}

/// A message to one recipient, after one attempt.
pub fn message(n: i64, state: QueueState, said: &str) -> MessageView {
    let delivery = DeliveryId { message: id(n), recipient: 0 };
    let sender = Address::parse("app@example.com", Grammar::Strict).unwrap();
    let recipient = Address::parse("a@example.org", Grammar::Strict).unwrap();
    let done = state == QueueState::Done;
    let outcome = match state {
        QueueState::Done => "accepted",
        QueueState::Unsure { .. } => "unsure",
        QueueState::Waiting { .. } | QueueState::Out { .. } | QueueState::Paused { .. } => "refused",
    };
    MessageView {
        message: Message {
            id: id(n),
            envelope: Envelope {
                sender: ReversePath::Mailbox(sender),
                recipients: vec![recipient],
                body: BodyKind::SevenBit,
                smtputf8: false,
                reports: None,
            },
            stream: StreamName::new("transactional"),
            kind: StreamKind::Transactional,
            body: Body {
                head: Bytes::new(),
                rest: None,
                facts: BodyFacts { size_octets: 4096, ..BodyFacts::default() },
                permit: None,
            },
            accepted_at: ACCEPTED,
            expires_at: ACCEPTED.plus(std::time::Duration::from_secs(86_400)),
            tags: vec!["receipt".into()],
            metadata: vec![("order".into(), "7".into())],
            pin: None,
            source: Source {
                listener: "127.0.0.1:2525".into(),
                peer: "127.0.0.1".parse().unwrap(),
                helo: "laptop\u{1b}]0;x".into(),
                credential: Some("shop".into()),
                protocol: Protocol::Esmtp { tls: true, auth: true, utf8: false },
            },
        },
        body_kept: true,
        deliveries: vec![DeliveryView {
            id: delivery,
            recipient: "a@example.org".into(),
            state,
            known: if done { Known::Handed } else { Known::Nothing },
            reason: None,
            mark: Mark::None,
            esp: Some("sandbox".into()),
            tries: 1,
            said: Some(said.into()),
            stream: "transactional".into(),
            sender: "app@example.com".into(),
            size_octets: 4096,
            accepted_at: ACCEPTED,
            expires_at: ACCEPTED,
        }],
        attempts: vec![AttemptView {
            delivery,
            attempt: attempt(n * 10 + 1),
            esp: "sandbox".into(),
            begun_at: ACCEPTED,
            answered_at: Some(ACCEPTED.plus(std::time::Duration::from_millis(20))),
            outcome: outcome.into(),
            fault: (outcome == "refused").then(|| "path".into()),
            phase: (outcome == "refused").then(|| "connect".into()),
            remote_id: done.then(|| "sandbox-2".into()),
            said: said.into(),
            choice: (outcome == "refused").then(|| "sandbox; a: takes no mail now: \u{1b}reset".into()),
        }],
        events: vec![EventView {
            at: ACCEPTED,
            kind: "accepted".into(),
            recipient: None,
            detail: String::new(),
            attempt: None,
            told: None,
        }],
    }
}

/// Event of that number; those with an even one are of message 1.
fn event(number: i64) -> crate::store::Told {
    crate::store::Told {
        number,
        at: ACCEPTED,
        kind: "delivered".into(),
        esp: Some("a".into()),
        message: (number % 2 == 0).then(|| id(1)),
        recipient: None,
        attempt: None,
        address: Some("a@b.example".into()),
        class: None,
        detail: "250 ok".into(),
        joined: None,
        told_as: None,
        remote_id: None,
    }
}

impl Queue for Fake {
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<DeliveryView>, StoreError>> {
        let messages = self.messages.lock().unwrap();
        let wanted = |d: &&DeliveryView| {
            let done = d.state == QueueState::Done;
            filter.before.is_none_or(|before| d.id < before)
                && (if filter.states.is_empty() {
                    !done
                } else {
                    filter.states.contains(&"done".into()) == done
                })
        };
        let deliveries = messages.values().rev().flat_map(|m| &m.deliveries).filter(wanted);
        let found = deliveries.take(filter.limit).cloned().collect();
        std::future::ready(self.ok(found)).boxed()
    }

    fn show(&self, id: MessageId) -> BoxFuture<'_, Result<Option<MessageView>, StoreError>> {
        let found = self.messages.lock().unwrap().get(&id).cloned();
        std::future::ready(self.ok(found)).boxed()
    }

    fn body(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        let found = self.bodies.lock().unwrap().get(&id).cloned();
        std::future::ready(self.ok(found)).boxed()
    }

    fn act(
        &self,
        act: Act,
        ids: Vec<MessageId>,
    ) -> BoxFuture<'_, Result<Vec<(MessageId, crate::store::Acted)>, StoreError>> {
        self.acts.lock().unwrap().push((act, Some(ids.clone())));
        let mut messages = self.messages.lock().unwrap();
        let mut done = Vec::new();
        for id in ids {
            let open = messages.get_mut(&id).and_then(|m| m.deliveries.first_mut());
            let Some(delivery) = open.filter(|d| d.state != QueueState::Done) else { continue };
            let out = u32::from(matches!(delivery.state, QueueState::Out { .. }));
            if act == Act::Remove && out == 0 {
                (delivery.state, delivery.reason) = (QueueState::Done, Some(Reason::Removed));
            }
            done.push((id, crate::store::Acted { found: true, changed: 1, out, due: None }));
        }
        std::future::ready(self.ok(done)).boxed()
    }

    fn requeue(&self, ids: Vec<MessageId>) -> BoxFuture<'_, Result<Vec<Requeued>, StoreError>> {
        let messages = self.messages.lock().unwrap();
        let bodies = self.bodies.lock().unwrap();
        let requeued = |id: &MessageId| match messages.get(id).and_then(|m| m.deliveries.first()) {
            None => Requeued::NoSuchMessage,
            Some(d) if d.state != QueueState::Done || d.known >= Known::Handed => Requeued::Nothing,
            Some(_) if !bodies.contains_key(id) => Requeued::BodyGone,
            Some(d) => Requeued::Again {
                deliveries: 1,
                twice: u32::from(d.reason == Some(Reason::Assumed)),
                due: None,
            },
        };
        let requeued = ids.iter().map(requeued).collect();
        std::future::ready(self.ok(requeued)).boxed()
    }

    fn flush_all(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.acts.lock().unwrap().push((Act::Flush, None));
        let waits = |m: &&MessageView| m.deliveries.first().is_some_and(|d| d.state != QueueState::Done);
        let deliveries = self.messages.lock().unwrap().values().filter(waits).count();
        std::future::ready(self.ok(deliveries as u64)).boxed()
    }

    fn counts(&self) -> BoxFuture<'_, Result<Vec<QueueCount>, StoreError>> {
        std::future::ready(self.ok(self.counts.lock().unwrap().clone())).boxed()
    }

    fn paused(&self) -> BoxFuture<'_, Result<Option<Suspension>, StoreError>> {
        std::future::ready(self.ok(self.paused.lock().unwrap().clone())).boxed()
    }

    fn back_up<'a>(
        &'a self,
        file: &'a Path,
        _: &'a Progress,
    ) -> BoxFuture<'a, Result<BackedUp, BackupError>> {
        let made = match file.file_name().and_then(|name| name.to_str()) {
            Some("there.db") => Err(BackupError::Exists(file.to_owned())),
            Some("full.db") => {
                Err(BackupError::NoRoom { path: file.to_owned(), free: 1, needed: 2, min_free: 3 })
            }
            _ => Ok(BackedUp { octets: 4096, took: Duration::from_millis(12) }),
        };
        let slow = file.ends_with("slow.db");
        async move {
            if slow {
                self.slow_backup.notified().await;
            }
            made
        }
        .boxed()
    }

    fn events(
        &self,
        unmatched: bool,
        before: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<crate::store::Told>, StoreError>> {
        let all = (1..=self.happened()).rev().map(event).filter(|e| !unmatched || e.message.is_none());
        std::future::ready(Ok(all.filter(|e| e.number < before).take(limit).collect())).boxed()
    }

    fn notifications(
        &self,
        filter: crate::store::NotificationFilter,
    ) -> BoxFuture<'_, Result<Vec<crate::store::Notification>, StoreError>> {
        let one = |n: i64| crate::store::Notification {
            n,
            id: format!("evt_{n}"),
            receiver: "app".into(),
            event: "bounced".into(),
            message: Some(id(1)),
            address: Some("a@b.example".into()),
            state: crate::store::NotificationState::Failed,
            told_at: ACCEPTED,
            due: None,
            tries: 3,
            tried_at: Some(DUE),
            answer: Some("500 no".into()),
            body: "{\"type\":\"bounced\"}".into(),
        };
        let all = (1..=5).rev().filter(|n| filter.before.is_none_or(|before| *n < before));
        let fits = |n: &crate::store::Notification| {
            filter.state.is_none_or(|state| state == n.state)
                && filter.receiver.as_ref().is_none_or(|receiver| *receiver == n.receiver)
        };
        std::future::ready(self.ok(all.map(one).filter(fits).take(filter.limit).collect())).boxed()
    }

    fn replay_notifications(
        &self,
        replay: crate::store::Replay,
    ) -> BoxFuture<'_, Result<crate::store::Replayed, StoreError>> {
        let done = match replay {
            crate::store::Replay::Ids(ids) => crate::store::Replayed {
                replayed: ids.iter().filter(|id| id.starts_with("evt_")).count() as u64,
                unknown: ids.into_iter().filter(|id| !id.starts_with("evt_")).collect(),
                ..Default::default()
            },
            crate::store::Replay::Those { .. } => {
                crate::store::Replayed { replayed: 5, ..Default::default() }
            }
        };
        std::future::ready(self.ok(done)).boxed()
    }

    fn event_news(&self) -> tokio::sync::watch::Receiver<()> {
        self.event_news.subscribe()
    }

    fn timeline(&self) -> BoxFuture<'_, Result<crate::store::Timeline, StoreError>> {
        std::future::ready(self.ok(crate::store::Timeline::default())).boxed()
    }

    fn events_after(
        &self,
        unmatched: bool,
        after: i64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<crate::store::Told>, StoreError>> {
        let all = (1..=self.happened()).map(event).filter(|e| !unmatched || e.message.is_none());
        std::future::ready(self.ok(all.filter(|e| e.number > after).take(limit).collect())).boxed()
    }

    fn suppressions(
        &self,
        key: Option<String>,
        after: [String; 3],
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Listed>, StoreError>> {
        let all = self.suppressed.lock().unwrap();
        let [key_after, scope, reason] = after;
        let behind = |l: &&Listed| (&l.key, &l.scope, &l.reason) > (&key_after, &scope, &reason);
        let wanted = |l: &&Listed| key.as_ref().is_none_or(|key| *key == l.key);
        let found = all.iter().filter(behind).filter(wanted).take(limit).cloned().collect();
        std::future::ready(Ok(found)).boxed()
    }

    fn suppress(&self, new: NewSuppression) -> BoxFuture<'_, Result<bool, StoreError>> {
        let mut all = self.suppressed.lock().unwrap();
        let there = all.iter().any(|l| (&l.key, &l.scope, &l.reason) == (&new.key, &new.scope, &new.reason));
        if !there {
            all.push(Listed {
                key: new.key,
                address: new.address,
                reason: new.reason,
                scope: new.scope,
                source: new.source,
                evidence: new.evidence,
                since: new.created_at,
                until: new.expires_at,
            });
            all.sort_by(|a, b| (&a.key, &a.scope, &a.reason).cmp(&(&b.key, &b.scope, &b.reason)));
        }
        std::future::ready(Ok(!there)).boxed()
    }

    fn unsuppress(&self, key: String, reason: Option<String>) -> BoxFuture<'_, Result<u64, StoreError>> {
        let mut all = self.suppressed.lock().unwrap();
        let before = all.len();
        all.retain(|l| l.key != key || reason.as_ref().is_some_and(|reason| *reason != l.reason));
        std::future::ready(Ok((before - all.len()) as u64)).boxed()
    }

    fn probe_write(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        std::future::ready(self.ok(())).boxed()
    }
}

impl Post for Fake {
    fn judge<'a>(&'a self, client: &'a Client, recipient: &'a Address) -> BoxFuture<'a, Reply> {
        let stream = client.credential.as_ref().and_then(|granted| granted.stream.as_ref());
        let reply = match recipient.local() {
            local if local == "blocked" || stream.is_some_and(|stream| stream.as_str() == local) => {
                Reply::new(550, (5, 7, 1), "suppressed")
            }
            "busy" => Reply::new(451, (4, 3, 0), "try again"),
            _ => Reply::new(250, (2, 1, 5), "recipient ok"),
        };
        let wait = Duration::from_secs(if recipient.local() == "slow-judge" { 100 } else { 0 });
        async move {
            tokio::time::sleep(wait).await;
            reply
        }
        .boxed()
    }

    fn unknown(&self, stream: Option<&StreamName>, esp: Option<&str>) -> Vec<(&'static str, String)> {
        let named = [("stream", stream.map(StreamName::as_str)), ("esp", esp)];
        named
            .into_iter()
            .filter(|(_, name)| *name == Some("nowhere"))
            .map(|(field, _)| (field, "there is none named nowhere".into()))
            .collect()
    }

    fn known(&self, key: &OnceKey) -> Result<Option<MessageId>, Reply> {
        let submitted = self.submitted.lock().unwrap();
        Ok(submitted.iter().any(|taken| taken.key.as_ref() == Some(key)).then(|| id(9)))
    }

    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<MessageId, Reply>> {
        let slow = submission.envelope.recipients.iter().any(|to| to.local() == "slow-disk");
        self.submitted.lock().unwrap().push(submission);
        async move {
            tokio::time::sleep(Duration::from_secs(if slow { 1000 } else { 0 })).await;
            Ok(id(9))
        }
        .boxed()
    }
}

impl Tokens for Fake {
    fn find(&self, hash: &[u8; 32]) -> Result<Option<Token>, StoreError> {
        let found = self.tokens.lock().unwrap().iter().find(|(kept, _)| kept == hash).map(|(_, t)| t.clone());
        self.ok(found)
    }

    fn note_use(&self, id: i64, at: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        for (_, token) in self.tokens.lock().unwrap().iter_mut().filter(|(_, token)| token.id == id) {
            token.used_at = Some(at);
        }
        std::future::ready(self.ok(())).boxed()
    }

    fn list(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<Token>, StoreError>> {
        let tokens = self.tokens.lock().unwrap();
        let found = tokens.iter().map(|(_, t)| t).filter(|t| t.id > after).take(limit).cloned().collect();
        std::future::ready(self.ok(found)).boxed()
    }

    fn add(&self, new: NewToken) -> BoxFuture<'_, Result<Token, StoreError>> {
        let mut tokens = self.tokens.lock().unwrap();
        let id = tokens.last().map_or(1, |(_, t)| t.id + 1);
        let token = Token { id, name: new.name, scopes: new.scopes, created_at: DUE, used_at: None };
        tokens.push((new.hash, token.clone()));
        std::future::ready(self.ok(token)).boxed()
    }

    fn revoke(&self, id: i64) -> BoxFuture<'_, Result<bool, StoreError>> {
        let mut tokens = self.tokens.lock().unwrap();
        let before = tokens.len();
        tokens.retain(|(_, token)| token.id != id);
        std::future::ready(self.ok(tokens.len() < before)).boxed()
    }
}

/// One key changes, one wants a restart; where all is broken the file is wrong.
impl Reload for Fake {
    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, NotReloaded>> {
        let done = match self.broken.load(Ordering::SeqCst) {
            true => {
                Err(NotReloaded::Wrong(vec![FieldProblem::new("esp[0].rate", "postroad.toml:12: no rate")]))
            }
            false => Ok(Reloaded {
                changed: vec![Change::new("esp.a.rate", "changed")],
                restart: vec![Change::new("http.address", "changed")],
                warnings: vec![FieldProblem {
                    file: Some("postroad.toml".into()),
                    line: Some(3),
                    ..FieldProblem::new("esp.a.rate", "postroad.toml:3: is odd")
                }],
            }),
        };
        std::future::ready(done).boxed()
    }
}

/// Takes every POST to `main` that says `proof`, and counts its lines.
impl Hooks for Fake {
    fn whose(&self, post: &HookPost) -> Option<String> {
        (!post.body.is_empty()).then(|| "main".to_owned())
    }

    fn hear(self: Arc<Self>, esp: String, post: HookPost) -> BoxFuture<'static, Result<Counted, NotHeard>> {
        let proven =
            esp == "main" && post.fields.iter().any(|(name, value)| name == "proof" && value == b"yes");
        let heard = match &post.body[..] {
            _ if !proven => Err(NotHeard::Unproven),
            b"{" => Err(NotHeard::Malformed("the body is not an event".into())),
            b"full" => Err(NotHeard::Store(StoreError::Full("the disk is full".into()))),
            _ => Ok(Counted { taken: 1, ..Counted::default() }),
        };
        std::future::ready(heard).boxed()
    }
}

/// The webhook of `a` lacks its key, `b` has none; a trial of `a` comes as far as its first step.
impl Webhooks for Fake {
    fn set_up<'a>(&'a self, esp: &'a str, apply: bool) -> BoxFuture<'a, Result<SetUp, DeskError>> {
        let thing = Thing { what: "webhook".into(), state: State::There, said: "as it should be".into() };
        let by_hand = ByHand { what: "more".into(), commands: vec!["aws sns".into()] };
        let arranged =
            Arranged { things: vec![thing], keys: vec![("key", "\"k\"".into())], by_hand: vec![by_hand] };
        let url = |status: EspStatus| match status.name.as_str() {
            "a" => SetUp { url: Some("https://x.example/webhooks/a".into()), ok: apply, arranged },
            _ => SetUp { url: None, ok: true, arranged: Arranged::default() },
        };
        std::future::ready(self.status(esp).map(url)).boxed()
    }

    fn test<'a>(
        &'a self,
        esp: &'a str,
        from: Option<Address>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Tested, DeskError>> {
        let told = format!("{within:?} {}", from.map_or("-".into(), |from| from.wire().to_owned()));
        let step = Followed { name: "public_url", ok: false, told, took: Duration::from_millis(3) };
        let tested = |_| Tested {
            steps: vec![step],
            met: Err("nothing came".into()),
            took: Duration::from_millis(12),
        };
        let known = match esp {
            "b" => Err(DeskError::NoPublicUrl),
            esp => self.status(esp),
        };
        std::future::ready(known.map(tested)).boxed()
    }
}

/// An `Out` state, for tests of words.
pub fn out(n: i64) -> QueueState {
    QueueState::Out { owner: Owner::from_number(1), attempt: attempt(n) }
}

/// What a port on this queue works with.
pub fn relay(queue: Arc<Fake>, doors: Vec<Door>) -> Relay {
    let budget = Budget::new(BUDGET_OCTETS as u64);
    Relay {
        desk: Arc::clone(&queue) as Arc<dyn Desk>,
        told: Arc::new(ArcSwap::from_pointee(Told {
            doors,
            post: Arc::clone(&queue) as Arc<dyn Post>,
            proxies: Vec::new(),
            admin_token: Secret::new(TOKEN),
            hooks: Arc::clone(&queue) as Arc<dyn Hooks>,
            webhooks: Arc::clone(&queue) as Arc<dyn Webhooks>,
        })),
        reload: Arc::clone(&queue) as Arc<dyn Reload>,
        tokens: Arc::clone(&queue) as Arc<dyn Tokens>,
        queue,
        clock: Arc::new(Manual::at(DUE)),
        metrics: crate::metrics::for_tests(),
        room: HookRoom::new(Arc::clone(&budget)),
        budget,
    }
}
