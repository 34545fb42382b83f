//! What waits for the writer: operations in two lanes, each with its bound, and the answers that they owe.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::backup::Piece;
use super::tx::Tx;
use super::types::StoreError;
use super::writer::GROUP_ROWS_MAX;
use crate::clock::monotonic;

/// Rows that may wait for the writer in each lane; past it callers wait.
const WAITING_ROWS_MAX: u32 = 8_192;
/// From 354 to the commit's begin a client on this machine takes a third of it; one that is far away is not waited for.
const WATCH_MAX: Duration = Duration::from_micros(400);

/// Which lane an operation waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Mail,
    Bulk,
}

/// One operation: it may be run twice when its group is run again, its result is told after the commit.
pub(super) trait Work: Send {
    fn lane(&self) -> Lane;
    fn rows(&self) -> u32;
    /// Kept and tried again where it cannot commit.
    fn kept(&self) -> bool;
    fn run(&mut self, tx: &mut Tx<'_, '_>) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, failed: Option<StoreError>);
}

struct Task<F, T> {
    lane: Lane,
    run: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    rows: u32,
    kept: bool,
    _room: Option<OwnedSemaphorePermit>,
}

impl<F, T> Work for Task<F, T>
where
    F: FnMut(&mut Tx<'_, '_>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn lane(&self) -> Lane {
        self.lane
    }

    fn rows(&self) -> u32 {
        self.rows
    }

    fn kept(&self) -> bool {
        self.kept
    }

    fn run(&mut self, tx: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
        self.result = Some((self.run)(tx)?);
        Ok(())
    }

    fn finish(self: Box<Self>, failed: Option<StoreError>) {
        let answer = match (failed, self.result) {
            (Some(error), _) => Err(error),
            (None, Some(result)) => Ok(result),
            (None, None) => Err(StoreError::Failed("the operation was not run".into())),
        };
        // Nobody listens any more where the caller went away; what was committed stays.
        let _ = self.reply.send(answer);
    }
}

/// Something for the connection itself, between groups.
pub(super) type Control = Box<dyn FnOnce(&Connection) + Send>;

/// What a backup asks of the writer, in this order. One backup asks at a time.
pub(super) enum Copying {
    /// Copy into this database, a piece each time that one is asked for.
    Begin(Box<Connection>),
    /// The next piece.
    Piece(oneshot::Sender<rusqlite::Result<Piece>>),
    /// No more.
    End,
}

#[derive(Default)]
pub(super) struct Waiting {
    pub mail: VecDeque<Box<dyn Work>>,
    pub bulk: VecDeque<Box<dyn Work>>,
    pub controls: VecDeque<Control>,
    pub copying: VecDeque<Copying>,
    pub closed: bool,
    /// The writer sleeps: only then has anybody to wake it.
    pub sleeps: bool,
    /// Mail is on its way in: the writer, woken for it, watches for it a moment.
    pub expected: bool,
}

impl Waiting {
    /// Whether the writer has anything to do.
    pub(super) fn has_work(&self) -> bool {
        !(self.mail.is_empty() && self.bulk.is_empty() && self.controls.is_empty() && self.copying.is_empty())
    }
}

/// What waits for the writer.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Something was put in since the writer last looked away: what a watching writer sees without the lock.
    news: AtomicBool,
    wake: Condvar,
    mail_room: Arc<Semaphore>,
    bulk_room: Arc<Semaphore>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        let room = || Arc::new(Semaphore::new(WAITING_ROWS_MAX as usize));
        Queue {
            waiting: Mutex::new(Waiting::default()),
            news: AtomicBool::new(false),
            wake: Condvar::new(),
            mail_room: room(),
            bulk_room: room(),
        }
    }

    /// Waits for room in the lane, then for the commit that carries the operation.
    pub(super) async fn run<T, F>(&self, lane: Lane, rows: usize, run: F) -> Result<T, StoreError>
    where
        F: FnMut(&mut Tx<'_, '_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX).clamp(1, GROUP_ROWS_MAX);
        let room = match lane {
            Lane::Mail => &self.mail_room,
            Lane::Bulk => &self.bulk_room,
        };
        let room = Arc::clone(room).acquire_many_owned(rows).await.map_err(|_| StoreError::Stopping)?;
        let (reply, answer) = oneshot::channel();
        self.push(Box::new(Task { lane, run, result: None, reply, rows, kept: false, _room: Some(room) }))?;
        answer.await.unwrap_or(Err(StoreError::Stopping))
    }

    /// Enqueues at once, whatever waits: for settles, which are bounded by what was begun.
    pub(super) fn run_kept<T, F>(&self, rows: usize, run: F) -> oneshot::Receiver<Result<T, StoreError>>
    where
        F: FnMut(&mut Tx<'_, '_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.run_at_once(rows, true, run)
    }

    /// As [`Queue::run_kept`], for what is before a begin and as rare; where it cannot commit it is not done, and neither is
    /// the begin.
    pub(super) fn run_before_begin<F>(&self, run: F)
    where
        F: FnMut(&mut Tx<'_, '_>) -> rusqlite::Result<()> + Send + 'static,
    {
        drop(self.run_at_once(1, false, run));
    }

    fn run_at_once<T, F>(&self, rows: usize, kept: bool, run: F) -> oneshot::Receiver<Result<T, StoreError>>
    where
        F: FnMut(&mut Tx<'_, '_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let rows = u32::try_from(rows).unwrap_or(u32::MAX).max(1);
        // A refused push drops the task and its reply: the receiver says so.
        let lane = Lane::Mail;
        let _ = self.push(Box::new(Task { lane, run, result: None, reply, rows, kept, _room: None }));
        answer
    }

    /// Runs something on the connection, outside any transaction.
    pub(super) async fn control<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let control: Control = Box::new(move |conn| {
            let _ = reply.send(run(conn));
        });
        self.enqueue(|waiting| waiting.controls.push_back(control))?;
        answer.await.map_err(|_| StoreError::Stopping)
    }

    /// For a backup, between groups.
    pub(super) fn ask_copy(&self, ask: Copying) -> Result<(), StoreError> {
        self.enqueue(|waiting| waiting.copying.push_back(ask))
    }

    /// Takes nothing more; what waits is still done.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.news.store(true, Ordering::Release);
        self.mail_room.close();
        self.bulk_room.close();
        self.wake.notify_one();
    }

    fn push(&self, work: Box<dyn Work>) -> Result<(), StoreError> {
        self.enqueue(|waiting| match work.lane() {
            Lane::Mail => waiting.mail.push_back(work),
            Lane::Bulk => waiting.bulk.push_back(work),
        })
    }

    fn enqueue(&self, put: impl FnOnce(&mut Waiting)) -> Result<(), StoreError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(StoreError::Stopping);
        }
        put(&mut waiting);
        self.news.store(true, Ordering::Release);
        let sleeps = waiting.sleeps;
        drop(waiting);
        if sleeps {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Wakes a sleeping writer before there is work, so that a lone message does not wait for a thread to wake up.
    pub(super) fn expect(&self) {
        let mut waiting = self.lock();
        if waiting.sleeps && !waiting.expected {
            waiting.expected = true;
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// The writer's sleep: until it is woken, or so long. Whether it slept so long.
    pub(super) fn sleep<'q>(
        &'q self,
        mut waiting: MutexGuard<'q, Waiting>,
        at_most: Option<Duration>,
    ) -> (MutexGuard<'q, Waiting>, bool) {
        waiting.sleeps = true;
        let (mut waiting, slept_long) = match at_most {
            None => (self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner), false),
            Some(long) => {
                let woken = self.wake.wait_timeout(waiting, long).unwrap_or_else(PoisonError::into_inner);
                (woken.0, woken.1.timed_out())
            }
        };
        waiting.sleeps = false;
        (waiting, slept_long)
    }

    /// Watches for what was expected, awake, for [`WATCH_MAX`] at most; others may have the core meanwhile.
    pub(super) fn watch<'q>(&'q self, mut waiting: MutexGuard<'q, Waiting>) -> MutexGuard<'q, Waiting> {
        waiting.expected = false;
        self.news.store(false, Ordering::Relaxed);
        drop(waiting);
        let began = monotonic();
        while !self.news.load(Ordering::Acquire) && began.elapsed() < WATCH_MAX {
            std::thread::yield_now();
        }
        self.lock()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_expected_and_does_not_come_is_watched_for_a_moment_only() {
        let queue = Queue::new();
        let mut waiting = queue.lock();
        (waiting.sleeps, waiting.expected) = (false, true);
        let waiting = queue.watch(waiting);
        assert!(!waiting.expected && !waiting.has_work());
    }

    #[test]
    fn a_sleeping_writer_is_woken_by_what_is_expected_by_work_and_by_the_close() {
        let queue = Arc::new(Queue::new());
        let wakers: [fn(&Queue); 3] = [
            Queue::expect,
            |queue| queue.enqueue(|waiting| waiting.controls.push_back(Box::new(|_| ()))).unwrap(),
            Queue::close,
        ];
        for wake in wakers {
            let writer = Arc::clone(&queue);
            let woken = std::thread::spawn(move || {
                let (waiting, slept_long) = writer.sleep(writer.lock(), Some(Duration::from_secs(20)));
                (waiting.expected || waiting.has_work() || waiting.closed, slept_long)
            });
            while !queue.lock().sleeps {
                std::thread::yield_now();
            }
            wake(&queue);
            assert_eq!(woken.join().unwrap(), (true, false));
        }
    }

    #[test]
    fn a_writer_that_is_awake_is_not_told_to_expect_anything() {
        let queue = Queue::new();
        queue.expect();
        assert!(!queue.lock().expected);
    }
}
