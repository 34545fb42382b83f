//! Tells events to the app's receivers, each on a line of its own, so that one that is dead holds up nobody: neither mail,
//! which it never meets, nor the other receivers.
//!
//! At least once: what was told and not yet noted when the relay went down is told again, under the same id. Of one
//! message the events go in order, each once the one before has ended.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Timestamp};
use crate::esp;
use crate::journal::{self, Alert};
use crate::mail::HttpReply;
use crate::mail::notification::{Heard, Next, Standing, next};
use crate::metrics::{NOTIFICATIONS, NOTIFICATIONS_WAITING};
use crate::store::{self, Attempted, DueNotification, Store, StoreError};
use crate::wire::notify::{self, HttpReceiver, Letter, Receiver};

/// An alert is raised for a receiver that is away for so long.
const ALERT_AFTER: Duration = Duration::from_secs(60);
/// A line with nothing to do looks at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Where the database did not answer it is asked again after so long.
const TROUBLE_WAIT: Duration = Duration::from_secs(10);
/// At a stop, what is being told has so long to be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Characters of an answer that the log keeps.
const SHOWN_CHARS_MAX: usize = 200;

const AWAY: &str = "notify_away";
const GONE: &str = "notify_gone";
const TOO_LATE: &str = "not taken within 24 h";
const WAS_GONE: &str =
    "the receiver answered 410: it is told nothing more until the configuration is reloaded";
const NOT_CONFIGURED: &str = "its receiver is configured no more";

/// One `[[notify]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Its name, in logs, metrics and the list.
    pub name: String,
    /// What it is told.
    pub events: Vec<&'static str>,
    /// How it is reached.
    pub line: notify::Settings,
}

/// Runs a line for each receiver.
#[derive(Debug)]
pub struct Teller {
    store: Store,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    lines: Mutex<Vec<Running>>,
}

#[derive(Debug)]
struct Running {
    settings: Settings,
    stop: CancellationToken,
    /// It answered 410.
    gone: Arc<AtomicBool>,
}

impl Teller {
    /// One that tells nobody yet.
    pub fn new(store: Store, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Teller { store, clock, tasks: TaskTracker::new(), lines: Mutex::default() })
    }

    /// Tells these from now on, and no others. What waits for the others ends, which the log says.
    pub fn tell(&self, receivers: &[Settings]) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // A ca_file of the same name may be another by now.
        let stays = |line: &Running| {
            let same = receivers.contains(&line.settings) && line.settings.line.ca_file.is_none();
            same && !line.gone.load(Ordering::Acquire)
        };
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut *lines).into_iter().partition(stays);
        go.iter().for_each(|line| line.stop.cancel());
        *lines = stay;
        for settings in receivers {
            if !lines.iter().any(|line| line.settings == *settings) {
                lines.push(self.start(settings));
            }
        }
        let receiver = |line: &Running| store::Receiver {
            name: line.settings.name.clone(),
            events: line.settings.events.clone(),
            gone: Arc::clone(&line.gone),
        };
        self.store.tell_receivers(lines.iter().map(receiver).collect());
        drop(lines);
        let store = self.store.clone();
        self.tasks.spawn(async move { end_of_others(&store).await });
    }

    fn start(&self, settings: &Settings) -> Running {
        let (stop, gone) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let line = Line::new(
            settings,
            Arc::new(HttpReceiver::new(settings.line.clone())),
            self.store.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&gone),
        );
        self.tasks.spawn(line.run(stop.clone()));
        Running { settings: settings.clone(), stop, gone }
    }

    /// Tells nothing more; what is being told has a moment to be answered.
    pub async fn stop(&self) {
        let lines = std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner));
        lines.iter().for_each(|line| line.stop.cancel());
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn end_of_others(store: &Store) {
    match store.end_notifications_of_others(NOT_CONFIGURED).await {
        Ok(ended) => {
            for (receiver, events) in ended {
                journal::notifications_ended(&receiver, events, NOT_CONFIGURED);
                ::metrics::gauge!(NOTIFICATIONS_WAITING, "receiver" => receiver).set(0.0);
            }
        }
        Err(StoreError::Stopping) => {}
        Err(error) => journal::trouble("ending events of receivers that are gone", &error.to_string()),
    }
}

/// One receiver's line.
struct Line {
    name: String,
    most: usize,
    receiver: Arc<dyn Receiver>,
    store: Store,
    clock: Arc<dyn Clock>,
    news: watch::Receiver<()>,
    standing: Standing,
    flying: HashSet<i64>,
    answers: JoinSet<(DueNotification, Result<HttpReply, String>)>,
    away: Alert,
    gone: Arc<AtomicBool>,
    /// That it is gone was told.
    told_gone: bool,
}

impl Line {
    fn new(
        settings: &Settings,
        receiver: Arc<dyn Receiver>,
        store: Store,
        clock: Arc<dyn Clock>,
        gone: Arc<AtomicBool>,
    ) -> Self {
        Line {
            name: settings.name.clone(),
            most: settings.line.max_connections,
            receiver,
            news: store.notification_news(),
            store,
            clock,
            standing: Standing::default(),
            flying: HashSet::new(),
            answers: JoinSet::new(),
            away: Alert::new(AWAY),
            gone,
            told_gone: false,
        }
    }

    async fn run(mut self, stop: CancellationToken) {
        loop {
            let wait = match self.turn(&stop).await {
                Ok(at) => at.since(self.clock.now()).min(LOOK_EVERY),
                Err(StoreError::Stopping) => return,
                Err(error) => {
                    journal::trouble("telling events to the app", &error.to_string());
                    TROUBLE_WAIT
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                // News of one that is away are told when it is asked next.
                _ = self.news.changed(), if self.standing.away_since().is_none() => {}
            }
        }
    }

    /// Tells what is due, until nothing is or the receiver is away; when to look again.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<Timestamp, StoreError> {
        loop {
            self.news.mark_unchanged();
            if self.is_gone() && self.flying.is_empty() {
                let ended = self.store.end_notifications(&self.name, None, WAS_GONE).await?;
                self.count("failed", ended);
            }
            let next = if stop.is_cancelled() { self.clock.now() } else { self.refill().await? };
            if self.flying.is_empty() {
                return Ok(next);
            }
            let has_room = self.standing.room(self.clock.now(), self.flying.len(), self.most) > 0;
            let answer = tokio::select! {
                biased;
                answer = self.answers.join_next() => answer,
                () = last_answers(stop) => return Err(StoreError::Stopping),
                _ = self.news.changed(), if has_room && !stop.is_cancelled() => None,
            };
            if let Some(first) = answer {
                self.take_in(first).await?;
            }
        }
    }

    /// Sends what there is room for; when there is more.
    async fn refill(&mut self) -> Result<Timestamp, StoreError> {
        let now = self.clock.now();
        let most = if self.is_gone() { 0 } else { self.most };
        let room = self.standing.room(now, self.flying.len(), most).min(most);
        let limit = room + self.flying.len();
        let found = self.store.notifications_for(&self.name, now, limit).await?;
        ::metrics::gauge!(NOTIFICATIONS_WAITING, "receiver" => self.name.clone()).set(found.waiting as f64);
        let new: Vec<_> =
            found.due.into_iter().filter(|due| !self.flying.contains(&due.n)).take(room).collect();
        for due in new {
            self.flying.insert(due.n);
            let receiver = Arc::clone(&self.receiver);
            let letter = Letter { id: due.id.clone(), at: now, body: Bytes::from(due.body.clone()) };
            self.answers.spawn(async move { (due, receiver.tell(letter).await) });
        }
        let later = found.next.unwrap_or_else(|| now.plus(LOOK_EVERY));
        Ok(self.standing.asked_next().map_or(later, |asked| asked.max(now)))
    }

    /// Notes this answer and those that have come with it.
    async fn take_in(&mut self, first: Answered) -> Result<(), StoreError> {
        let mut answered = vec![first];
        while let Some(more) = self.answers.try_join_next() {
            answered.push(more);
        }
        let (now, was_away) = (self.clock.now(), self.standing.away_since().is_some());
        let mut noted = Vec::with_capacity(answered.len());
        let mut numbers = Vec::with_capacity(answered.len());
        for (due, answer) in answered.into_iter().flatten() {
            numbers.push(due.n);
            noted.push(self.hear(&due, answer, now));
        }
        let done = self.store.note_notifications(noted).await;
        // What could not be noted is told once more.
        numbers.iter().for_each(|n| {
            self.flying.remove(n);
        });
        done?;
        if was_away && self.standing.away_since().is_some() {
            let ended = self.store.end_notifications(&self.name, Some(now), TOO_LATE).await?;
            self.count("failed", ended);
            if ended > 0 {
                journal::notifications_ended(&self.name, ended, TOO_LATE);
            }
        }
        self.tell_how_it_stands(now).await
    }

    fn hear(
        &mut self,
        due: &DueNotification,
        answer: Result<HttpReply, String>,
        now: Timestamp,
    ) -> Attempted {
        let (heard, words) = judged(answer, now);
        self.standing.hear(heard, due.refusals, now, chance());
        let next = next(heard, due.refusals, due.ends_at, now, self.standing.asked_next(), chance());
        match next {
            Next::Taken => self.count("taken", 1),
            Next::Again { .. } => self.count("again", 1),
            Next::Failed => {
                self.count("failed", 1);
                journal::not_notified(&self.name, &due.id, &due.event, due.tries + 1, &words);
            }
        }
        if heard == Heard::Gone {
            self.gone.store(true, Ordering::Release);
        }
        Attempted { n: due.n, next, at: now, answer: words }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn count(&self, outcome: &'static str, events: u64) {
        ::metrics::counter!(NOTIFICATIONS, "receiver" => self.name.clone(), "outcome" => outcome)
            .increment(events);
    }

    /// Each change is told once.
    async fn tell_how_it_stands(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let name = &self.name;
        if self.is_gone() && !std::mem::replace(&mut self.told_gone, true) {
            let words = format!("{name}: {WAS_GONE}");
            journal::alert(GONE, &words);
            self.store.record_receiver_alert(name, format!("{GONE}: {words}")).await?;
        }
        match self.standing.away_since() {
            Some(since) if now.since(since) >= ALERT_AFTER => {
                let words = format!(
                    "{name} takes no events since {since}; they wait, and each is told until it is 24 h old"
                );
                if self.away.raise(&words) {
                    self.store.record_receiver_alert(name, format!("{AWAY}: {words}")).await?;
                }
            }
            Some(_) => {}
            None => {
                self.away.clear(format_args!("{name} takes events"));
            }
        }
        Ok(())
    }
}

type Answered = Result<(DueNotification, Result<HttpReply, String>), tokio::task::JoinError>;

/// What an answer means, and its words for the log.
fn judged(answer: Result<HttpReply, String>, now: Timestamp) -> (Heard, String) {
    match answer {
        Ok(reply) => {
            let wait = reply.header("retry-after").and_then(|wait| esp::retry_after(wait, now));
            let body = String::from_utf8_lossy(&reply.body);
            let text: String = body.split_whitespace().collect::<Vec<_>>().join(" ");
            let text: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            (Heard::of_status(reply.status, wait), format!("{} {text}", reply.status).trim_end().to_owned())
        }
        Err(why) => (Heard::Away(None), why),
    }
}

/// A stop, and what is being told has had its moment.
async fn last_answers(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(LAST_ANSWERS).await;
}

/// From 0 to 1; without chance in the middle.
fn chance() -> f64 {
    let mut octets = [0; 2];
    match aws_lc_rs::rand::fill(&mut octets) {
        Ok(()) => f64::from(u16::from_le_bytes(octets)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    }
}

impl Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
