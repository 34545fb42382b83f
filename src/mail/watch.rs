//! One exchange, watched from outside while it runs: when something last moved, since when the message is handed over,
//! what the relay itself had too little of; and the one thing that may be asked of it: to end at the next safe point.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::exchange::{Abort, Answer};
use crate::clock::monotonic;

/// See the module. A clone watches the same exchange.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    /// Asked of all exchanges alike.
    stop: Abort,
    /// Asked of this one.
    own: Abort,
    /// Its answer is wanted for so long after the hand-over, whatever the wire's own patience is.
    listens_for: Duration,
    /// Nobody waits for its answer any more.
    unheard: Abort,
    began: Instant,
    /// Microseconds after `began`.
    moved: AtomicU64,
    /// Microseconds after `began`, and one: nought stands for not yet.
    handed_over: AtomicU64,
    /// The replies to RCPT, where some were refused.
    answers: OnceLock<Vec<Answer>>,
    /// What this machine lacked.
    lack: OnceLock<String>,
}

impl Watch {
    /// Over an exchange that begins now; `stop` ends it as well as [`Watch::abort`].
    pub fn new(stop: Abort) -> Self {
        Watch::that_listens(stop, Duration::ZERO)
    }

    /// As [`Watch::new`], over one that listens for so long at least once its message is handed over.
    pub fn that_listens(stop: Abort, listens_for: Duration) -> Self {
        Watch(Arc::new(Watched {
            stop,
            own: Abort::default(),
            listens_for,
            unheard: Abort::default(),
            began: monotonic(),
            moved: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            answers: OnceLock::new(),
            lack: OnceLock::new(),
        }))
    }

    /// Something moved, either way.
    pub fn moved(&self) {
        self.0.moved.store(self.micros(), Ordering::Relaxed);
    }

    /// The write that hands the message over is next.
    pub fn hand_over(&self) {
        self.0.handed_over.store(self.micros() + 1, Ordering::Release);
        self.moved();
    }

    /// As [`Watch::hand_over`], where the recipients were answered so.
    pub fn hand_over_to(&self, recipients: &[Answer]) {
        if recipients.iter().any(|answer| !answer.positive()) {
            // An exchange hands over once.
            let _ = self.0.answers.set(recipients.to_vec());
        }
        self.hand_over();
    }

    /// The reply to each recipient, where one was refused; else empty.
    pub fn answers(&self) -> &[Answer] {
        self.0.answers.get().map_or(&[], Vec::as_slice)
    }

    /// It could not begin for want of something that this machine has too little of, open files for one: the other side
    /// was not even asked, so that it is not to blame.
    pub fn lacks(&self, what: &impl ToString) {
        // The first lack is the one that ended it.
        let _ = self.0.lack.set(what.to_string());
    }

    /// What this machine lacked for it.
    pub fn lack(&self) -> Option<&str> {
        self.0.lack.get().map(String::as_str)
    }

    /// For how long nothing has moved.
    pub fn still_for(&self) -> Duration {
        Duration::from_micros(self.micros().saturating_sub(self.0.moved.load(Ordering::Relaxed)))
    }

    /// For how long the message has been handed over; `None`: it is not.
    pub fn handed_over_for(&self) -> Option<Duration> {
        let at = self.0.handed_over.load(Ordering::Acquire).checked_sub(1)?;
        Some(Duration::from_micros(self.micros().saturating_sub(at)))
    }

    /// For how long it listens after the hand-over, by a wire that would listen for `own`.
    pub fn listens_for(&self, own: Duration) -> Duration {
        own.max(self.0.listens_for)
    }

    /// What is handed over is listened to no longer: the exchange ends as one without an answer.
    pub fn stop_listening(&self) {
        self.0.unheard.ask();
    }

    /// Waits until it is listened to no longer.
    pub async fn unheard(&self) {
        self.0.unheard.wait().await;
    }

    /// Whether both watch the same exchange.
    pub fn is(&self, other: &Watch) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Asks this exchange to end.
    pub fn abort(&self) {
        self.0.own.ask();
    }

    /// Whether this one alone was asked to.
    pub fn given_up(&self) -> bool {
        self.0.own.asked()
    }

    /// Whether it was asked to.
    pub fn aborted(&self) -> bool {
        self.0.own.asked() || self.0.stop.asked()
    }

    /// Waits until all exchanges are asked to end.
    pub async fn stopping(&self) {
        self.0.stop.wait().await;
    }

    /// Waits until it is asked to.
    pub async fn asked(&self) {
        tokio::select! {
            () = self.0.own.wait() => {}
            () = self.0.stop.wait() => {}
        }
    }

    fn micros(&self) -> u64 {
        u64::try_from(monotonic().duration_since(self.0.began).as_micros()).unwrap_or(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_tells_for_how_long_nothing_moved_and_since_when_it_is_handed_over() {
        let watch = Watch::new(Abort::default());
        tokio::time::advance(SECOND * 3).await;
        assert_eq!((watch.still_for(), watch.handed_over_for()), (SECOND * 3, None));
        watch.moved();
        tokio::time::advance(SECOND).await;
        assert_eq!(watch.still_for(), SECOND);
        watch.hand_over();
        tokio::time::advance(SECOND * 2).await;
        watch.moved();
        assert_eq!((watch.still_for(), watch.handed_over_for()), (Duration::ZERO, Some(SECOND * 2)));
    }

    #[tokio::test]
    async fn its_answer_is_wanted_for_as_long_as_the_longer_of_both_and_until_nobody_listens() {
        let watch = Watch::that_listens(Abort::default(), SECOND * 5);
        assert_eq!([SECOND, SECOND * 9].map(|own| watch.listens_for(own)), [SECOND * 5, SECOND * 9]);
        assert!(watch.is(&watch.clone()) && !watch.is(&Watch::new(Abort::default())));
        watch.stop_listening();
        watch.unheard().await;
        assert!(!watch.aborted(), "what is not handed over goes on");
    }

    #[tokio::test]
    async fn one_is_asked_alone_or_all_are_asked() {
        let stop = Abort::default();
        let (a, b) = (Watch::new(stop.clone()), Watch::new(stop.clone()));
        a.abort();
        a.asked().await;
        assert!(a.aborted() && a.given_up() && !b.aborted());
        stop.ask();
        b.asked().await;
        assert!(b.aborted() && !b.given_up());
    }
}
