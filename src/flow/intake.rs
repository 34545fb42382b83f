//! Intake: a submission prepared, judged once more, and the one moment at which mail becomes ours.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use metrics::{Counter, counter};

use super::aside::aside;
use super::courier::Courier;
use super::no_esp;
use super::prepare::{self, NotPrepared, Prepared};
use super::rates::Rates;
use super::setup::Setup;
use super::whole::at_hand;
use crate::address::Address;
use crate::clock::{Clock, Timestamp};
use crate::journal::{self, Alert};
use crate::mail::asks::asks_for_nothing;
use crate::mail::body::{CHUNK_OCTETS, SPILL_OCTETS, Spilled};
use crate::mail::{
    Body, Budget, IdMint, Message, MessageId, OnceKey, Reason, Source, StreamName, Submission,
};
use crate::metrics as names;
use crate::policy::streams::StreamSettings;
use crate::policy::{Verdict, judge, senders};
use crate::smtp::{Client, Gatekeeper, Reply};
use crate::store::{Accept, Entry, NewEvent, NotAccepted, Once, Store, StoreError, Suppression};

/// The door's keeper: judges each recipient, prepares the message, commits it, hands it to the courier. It goes by one
/// configuration; after a reload another one keeps the door for those who come.
#[derive(Debug)]
pub struct Intake {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) mint: Arc<IdMint>,
    budget: Arc<Budget>,
    courier: Arc<Courier>,
    rules: prepare::Settings,
    pub(super) setup: Arc<Setup>,
    accepted: HashMap<(String, StreamName), Counter>,
    pub(super) rates: Arc<Rates>,
    no_room: Arc<Alert>,
    not_stored: Arc<Alert>,
}

/// What an intake is made of.
#[derive(Debug)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The ids.
    pub mint: Arc<IdMint>,
    /// Memory for messages.
    pub budget: Arc<Budget>,
    /// Who takes accepted mail on.
    pub courier: Arc<Courier>,
    /// What is done to a message.
    pub rules: prepare::Settings,
    /// The listeners' names, for metrics.
    pub listeners: Vec<String>,
}

impl Intake {
    /// An intake ready to answer.
    pub fn new(parts: Parts) -> Self {
        let setup = parts.courier.setup();
        Intake {
            accepted: counters(&parts.listeners, &setup),
            setup,
            store: parts.store,
            clock: parts.clock,
            mint: parts.mint,
            budget: parts.budget,
            courier: parts.courier,
            rules: parts.rules,
            rates: Arc::default(),
            no_room: Arc::new(Alert::new("no_room")),
            not_stored: Arc::new(Alert::new("not_stored")),
        }
    }

    /// The same, by another configuration.
    pub fn renewed(&self, rules: prepare::Settings, listeners: &[String], setup: Arc<Setup>) -> Self {
        Intake {
            store: self.store.clone(),
            clock: Arc::clone(&self.clock),
            mint: Arc::clone(&self.mint),
            budget: Arc::clone(&self.budget),
            courier: Arc::clone(&self.courier),
            rules,
            accepted: counters(listeners, &setup),
            setup,
            rates: Arc::clone(&self.rates),
            no_room: Arc::clone(&self.no_room),
            not_stored: Arc::clone(&self.not_stored),
        }
    }

    /// Takes a submission in. `Ok` means: committed.
    pub async fn submit(&self, submission: Submission) -> Result<MessageId, Reply> {
        self.take(submission, true).await.map(|taken| taken.id)
    }

    /// Who is `trusted` is told why somebody may not be mailed.
    pub(super) async fn take(&self, mut submission: Submission, trusted: bool) -> Result<Taken, Reply> {
        let key = submission.key.take();
        if let Some(first) = self.taken_before(key.as_ref(), &submission).await? {
            if let Some(rest) = submission.raw.rest {
                Gatekeeper::discard(self, rest.message).await;
            }
            return Ok(Taken { id: first, again: true });
        }
        let stream = self.stream(submission.stream.as_ref())?;
        let now = self.clock.now();
        let due = submission.send_at.unwrap_or(now).max(now);
        let id = submission.raw.rest.map_or_else(|| self.mint.message(&*self.clock), |rest| rest.message);
        let prepared = self.prepare(id, &submission).await?;
        senders::header_from(&submission.terms.senders, &prepared.head).map_err(not_theirs)?;
        let message = Arc::new(Message {
            id,
            envelope: submission.envelope,
            stream: stream.name.clone(),
            kind: stream.kind,
            body: prepared,
            accepted_at: now,
            expires_at: due.plus(stream.max_age),
            tags: submission.tags,
            metadata: submission.metadata,
            pin: submission.pin,
            source: submission.source,
        });
        let (spilled, taken) = (message.body.rest.is_some(), self.accept(message, due, key, trusted).await?);
        if spilled && taken != id {
            Gatekeeper::discard(self, id).await;
        }
        Ok(Taken { id: taken, again: taken != id })
    }

    /// [`Intake::submit`] for content that is whole in memory: what is too large to stay there goes to disk first, and
    /// is discarded where the mail is refused.
    pub async fn submit_whole(&self, mut submission: Submission) -> Result<MessageId, Reply> {
        if submission.raw.head.len() <= SPILL_OCTETS {
            return self.submit(submission).await;
        }
        let id = self.mint.message(&*self.clock);
        let taken = match self.spill_again(id, submission.raw).await {
            Ok(raw) => {
                submission.raw = raw;
                self.submit(submission).await
            }
            Err(reply) => Err(reply),
        };
        if taken.is_err() {
            Gatekeeper::discard(self, id).await;
        }
        taken
    }

    /// The message that had this key first. Looked for before anything is judged: who only did not hear the first 250
    /// is not told that there is no room, or that the content is refused.
    async fn taken_before(
        &self,
        key: Option<&OnceKey>,
        submission: &Submission,
    ) -> Result<Option<MessageId>, Reply> {
        let Some(key) = key else { return Ok(None) };
        let Some(first) = self.known(key)? else { return Ok(None) };
        self.repeated(first, &submission.envelope.recipients, &submission.source).await?;
        Ok(Some(first))
    }

    /// A repeat is answered as the first was; not for somebody who did not get that one, and would get nothing.
    async fn repeated(&self, first: MessageId, to: &[Address], source: &Source) -> Result<(), Reply> {
        // After its retention nothing is known of it but that it was taken.
        if let Some(view) = self.store.show(first).await.map_err(|error| self.not_taken(&error))? {
            let had: HashSet<String> = view.message.envelope.recipients.iter().map(Address::key).collect();
            let mut others = to.iter().filter(|to| !had.contains(&to.key()));
            if let Some(other) = others.next() {
                let more = match others.count() {
                    0 => String::new(),
                    1 => ", nor is another".into(),
                    n => format!(", nor are {n} others"),
                };
                let text = format!(
                    "<{other}> is not among the recipients when its key came first{more}: nothing was sent now; give \
                     other mail another key"
                );
                return Err(Reply::told(550, (5, 7, 1), text));
            }
        }
        journal::repeated(first, &source.listener);
        self.note_repeat(first, source).await;
        Ok(())
    }

    /// The event of it: one a minute, however often an app repeats itself. The client is not told where that fails.
    async fn note_repeat(&self, first: MessageId, source: &Source) {
        const MINUTE_MILLIS: i64 = 60_000;
        let now = self.clock.now();
        let by = source.credential.as_deref().map_or_else(String::new, |name| format!(" by {name}"));
        let event = NewEvent {
            message: Some(first),
            event_key: Some(format!("repeated {first} {}", now.millis() / MINUTE_MILLIS)),
            detail: format!(
                "handed in again at {}{by}: it was taken once, and is sent once",
                source.listener
            ),
            ..NewEvent::new("repeated", now)
        };
        if let Some(Err(error)) = self.store.record_events(vec![event]).await.pop() {
            journal::trouble("noting that a mail came again", &error.to_string());
        }
    }

    /// Which of a stream and an ESP that are named is not there, with the names that are.
    pub fn unknown(&self, stream: Option<&StreamName>, esp: Option<&str>) -> Vec<(&'static str, String)> {
        let stream = stream.filter(|name| self.setup.stream_named(name).is_none());
        let esp = esp.filter(|name| self.setup.carrier(name).is_none());
        let told = |what, name: &str, names: &[&str]| {
            format!("there is no {what} named {name}; there are: {}", names.join(", "))
        };
        let stream = stream.map(|name| ("stream", told("stream", name.as_str(), &self.setup.stream_names())));
        let esp = esp.map(|name| ("esp", told("ESP", name, &self.setup.names())));
        stream.into_iter().chain(esp).collect()
    }

    /// The message that had this key first, while it is remembered.
    pub fn known(&self, key: &OnceKey) -> Result<Option<MessageId>, Reply> {
        self.store.taken_once(key).map_err(|error| self.not_taken(&error))
    }

    /// Commits the message with every recipient. At the instant the commit returns the mail is ours.
    async fn accept(
        &self,
        message: Arc<Message>,
        due: Timestamp,
        key: Option<OnceKey>,
        trusted: bool,
    ) -> Result<MessageId, Reply> {
        let mut rules = self.setup.rules_of(&message);
        let content = at_hand(&message.body, &self.budget);
        let never = self.setup.never(&message, content, &rules);
        let recipients = &message.envelope.recipients;
        if never.len() == recipients.len() {
            return Err(no_esp::refusal(&no_esp::of_all(recipients, &never)));
        }
        // Who carries it is asked of today's configuration: a session may have begun with an older one.
        let today = self.courier.setup();
        if today.number != self.setup.number {
            rules = today.rules_of(&message);
        }
        let for_later = due > message.accepted_at;
        let planned = match for_later || !never.is_empty() {
            true => None,
            false => self.courier.plan(&today, &message, &rules),
        };
        let entry = match &planned {
            Some(planned) => Entry::Begun(self.courier.beginning(planned)),
            None => Entry::Waiting { due },
        };
        let mut entries = vec![entry; recipients.len()];
        for (n, reasons) in &never {
            entries[*n] = Entry::Never(no_esp::told_to_sender(reasons));
        }
        let accept = Accept { message: Arc::clone(&message), entries, rules: rules.clone() };
        let entered = match self.stored(accept, key).await {
            Ok(Once::Entered(entered)) => entered,
            not_this => {
                if let Some(planned) = planned {
                    self.courier.give_up(planned);
                }
                return self.not_entered(not_this, &message, trusted).await;
            }
        };
        self.no_room.clear("mail is accepted again");
        self.not_stored.clear("mail is accepted again");
        // Its call waits for nothing; the log's line is written while the next hop answers.
        match for_later {
            true => self.courier.look_at(due),
            false => self.courier.hand_over(Arc::clone(&message), planned, (&today, rules), &entered),
        }
        self.count(&message);
        journal::accepted(&message);
        for (n, _) in &never {
            let to = message.envelope.recipients[*n].wire();
            journal::settled(message.id, to, message.stream.as_str(), Reason::Refused);
        }
        let id = message.id;
        // Connections to ESPs go first: the 250 wakes the client, which would take the core from the mail just begun.
        for _ in 0..self.courier.turns_to_give() {
            tokio::task::yield_now().await;
        }
        Ok(id)
    }

    async fn stored(&self, accept: Accept, key: Option<OnceKey>) -> Result<Once, NotAccepted> {
        match key {
            Some(key) => self.store.accept_once(accept, key).await,
            None => {
                let stored = self.store.accept(vec![accept]).await.pop();
                stored.unwrap_or(Err(StoreError::Stopping.into())).map(Once::Entered)
            }
        }
    }

    /// What its client is told: another was taken for it, or it was not.
    async fn not_entered(
        &self,
        stored: Result<Once, NotAccepted>,
        message: &Message,
        trusted: bool,
    ) -> Result<MessageId, Reply> {
        match stored {
            Ok(Once::Entered(_)) => Ok(message.id),
            Ok(Once::Known(first)) => {
                self.repeated(first, &message.envelope.recipients, &message.source).await?;
                Ok(first)
            }
            Err(NotAccepted::Suppressed { first }) => Err(nobody_left(message, &first, trusted)),
            Err(NotAccepted::Store(error)) => Err(self.not_taken(&error)),
        }
    }

    /// Nothing was kept; the client still has the message and tries again. The operator hears of it once.
    pub(super) fn not_taken(&self, error: &StoreError) -> Reply {
        match error {
            StoreError::Full(why) => {
                self.no_room.raise(format_args!("mail is refused with 452: {why}"));
                // Which disk, and how much of it is free, is not the client's to know.
                Reply::new(
                    452,
                    (4, 3, 1),
                    "the relay has no room for mail now; try again later, its log says why",
                )
            }
            StoreError::Failed(why) => {
                self.not_stored.raise(format_args!("mail is refused with 451: {why}"));
                Reply::new(
                    451,
                    (4, 3, 0),
                    "the relay could not store the message; try again, its log says why",
                )
            }
            StoreError::Stopping => {
                Reply::new(421, (4, 3, 2), "the relay is stopping; try again in a minute")
            }
        }
    }

    fn count(&self, message: &Message) {
        let key = (message.source.listener.clone(), message.stream.clone());
        if let Some(counter) = self.accepted.get(&key) {
            counter.increment(1);
        }
    }

    /// Headers edited, long lines mended, loops refused. Content that was spilled is read back only when a line of it
    /// has to be mended.
    async fn prepare(&self, id: MessageId, submission: &Submission) -> Result<Body, Reply> {
        let now = self.clock.now();
        match prepare::prepare(submission, id, now, &self.rules, &self.budget) {
            Ok(prepared) => Ok(told(id, prepared)),
            Err(NotPrepared::Refused(reply)) => Err(reply),
            Err(NotPrepared::NeedsAll { octets }) => {
                let octets = usize::try_from(octets).unwrap_or(usize::MAX);
                // Mended it is as large at least.
                prepare::fits_at_all(submission, octets.saturating_mul(2), &self.budget)?;
                let _share = self.budget.take(octets).ok_or_else(no_memory)?;
                let whole = self.read_back(&submission.raw, octets).await?;
                let prepared =
                    aside(|| prepare::prepare_all(submission, &whole, id, now, &self.rules, &self.budget))?;
                self.spill_again(id, told(id, prepared)).await
            }
        }
    }

    /// All of a spilled body in memory.
    async fn read_back(&self, raw: &Body, octets: usize) -> Result<Vec<u8>, Reply> {
        let mut whole = Vec::with_capacity(octets);
        whole.extend_from_slice(&raw.head);
        if let Some(rest) = raw.rest {
            for n in 0..rest.chunks {
                let chunk = self.store.chunk(rest.message, n).await.map_err(|e| self.not_taken(&e))?;
                whole.extend_from_slice(&chunk);
            }
        }
        Ok(whole)
    }

    /// What is too large for memory goes back to disk in pieces, in place of those that were read.
    async fn spill_again(&self, id: MessageId, body: Body) -> Result<Body, Reply> {
        self.store.discard(id).await.map_err(|e| self.not_taken(&e))?;
        let mut rest = Spilled { message: id, chunks: 0, octets: 0 };
        let (head, mut tail) = split(body.head);
        while !tail.is_empty() {
            let piece = tail.split_to(tail.len().min(CHUNK_OCTETS));
            rest.octets += piece.len() as u64;
            self.store.spill(id, rest.chunks, piece).await.map_err(|e| self.not_taken(&e))?;
            rest.chunks += 1;
        }
        let permit = self.budget.take(head.len()).map(Arc::new).ok_or_else(no_memory)?;
        let head = Bytes::copy_from_slice(&head);
        Ok(Body { head, rest: (rest.chunks > 0).then_some(rest), facts: body.facts, permit: Some(permit) })
    }

    pub(super) fn stream(&self, asked: Option<&StreamName>) -> Result<&StreamSettings, Reply> {
        let name = asked.cloned().unwrap_or_else(|| StreamName::new(StreamName::TRANSACTIONAL));
        self.setup.stream_named(&name).map(|stream| &**stream).ok_or_else(|| {
            let text =
                format!("there is no stream named {name}; see [[stream]] in the relay's configuration");
            Reply::told(550, (5, 7, 1), text)
        })
    }
}

/// A submission that was taken.
pub(super) struct Taken {
    pub(super) id: MessageId,
    /// As another one was before: that one's id it is.
    pub(super) again: bool,
}

/// A counter for each listener and stream: a look-up by label costs more than the count.
fn counters(listeners: &[String], setup: &Setup) -> HashMap<(String, StreamName), Counter> {
    let mut counters = HashMap::new();
    for listener in listeners {
        for stream in setup.stream_names() {
            let labels = [("listener", listener.clone()), ("stream", stream.to_owned())];
            counters.insert(
                (listener.clone(), StreamName::new(stream)),
                counter!(names::MESSAGES_ACCEPTED, &labels),
            );
        }
    }
    counters
}

/// The first part, which stays in memory and holds the header block, and what is kept in chunks.
fn split(mut whole: Bytes) -> (Bytes, Bytes) {
    let head = whole.split_to(whole.len().min(SPILL_OCTETS));
    (head, whole)
}

/// Logs what was taken out of the header block, and what was not changed in it.
fn told(id: MessageId, prepared: Prepared) -> Body {
    if !prepared.removed.is_empty() {
        journal::removed(id, &prepared.removed);
        let odd: Vec<&str> =
            prepared.removed.iter().map(String::as_str).filter(|name| asks_for_nothing(name)).collect();
        if !odd.is_empty() {
            journal::asked_for_nothing(id, &odd);
        }
    }
    if let Some(why) = prepared.from_left {
        journal::from_left(id, why);
    }
    prepared.body
}

/// The client names a sender that is not its own.
pub(super) fn not_theirs(why: String) -> Reply {
    Reply::told(550, (5, 7, 1), why)
}

fn no_memory() -> Reply {
    Reply::new(452, (4, 3, 1), "too many messages in flight for the relay's memory; try again in a minute")
}

/// Where some remain, the others are dropped with an event each; where none does, its client is told.
fn nobody_left(message: &Message, first: &Suppression, trusted: bool) -> Reply {
    let recipients = &message.envelope.recipients;
    let reason = match judge(Some(first)) {
        Verdict::Suppressed { why, .. } if trusted => format!(" ({why})"),
        Verdict::Suppressed { .. } | Verdict::Send => String::new(),
    };
    let named = recipients.first().map_or_else(String::new, Address::to_string);
    let more = match recipients.len() {
        0 | 1 => String::new(),
        2 => ", and so is the other".into(),
        n => format!(", and so are the other {}", n - 1),
    };
    let text = format!(
        "nobody of this message may be mailed on the stream {}: <{named}> is suppressed{reason}{more} \
         [postroad:suppressed]",
        message.stream
    );
    for recipient in recipients {
        refused((&message.source).into(), recipient, &message.stream, "suppressed", &text);
    }
    Reply::told(550, (5, 7, 1), text)
}

/// Who named a recipient, as the log has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct By<'a> {
    listener: &'a str,
    peer: IpAddr,
    helo: &'a str,
}

impl<'a> From<&'a Client> for By<'a> {
    fn from(client: &'a Client) -> Self {
        By { listener: &client.listener, peer: client.peer, helo: &client.helo }
    }
}

impl<'a> From<&'a Source> for By<'a> {
    fn from(source: &'a Source) -> Self {
        By { listener: &source.listener, peer: source.peer, helo: &source.helo }
    }
}

/// Counts and logs a recipient that is not taken.
pub(super) fn refused(
    by: By<'_>,
    recipient: &Address,
    stream: &StreamName,
    reason: &'static str,
    reply: &str,
) {
    counter!(names::RECIPIENTS_REFUSED, "stream" => stream.to_string(), "reason" => reason).increment(1);
    journal::refused(&journal::Refusal {
        listener: by.listener,
        client: &by.peer.to_string(),
        helo: by.helo,
        to: Some(recipient.wire()),
        stream: Some(stream.as_str()),
        reason,
        reply,
        ..journal::Refusal::default()
    });
}
