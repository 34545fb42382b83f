//! Writes the log back into the file from a thread and a connection of its own: mail does not wait while megabytes are
//! written and synced.
//!
//! The writer asks, goes on, and looks at each turn whether it is done. What it wrote meanwhile is little; that it
//! writes back itself, for only between two groups is the log's end reached and the log begun anew.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use crate::store::schema::open_for_the_log;

/// How many of its pages were written back.
pub(super) type WrittenBack = rusqlite::Result<u32>;

/// What the thread does.
#[derive(Debug, Default)]
enum State {
    /// Nothing; nobody asked.
    #[default]
    Idle,
    /// Is asked, or at it.
    AtWork,
    /// Done, and not looked at.
    Done(WrittenBack),
    /// It could not begin, or has ended.
    Gone,
}

/// What the writer finds when it looks.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing is under way: it may be asked.
    Idle,
    /// It is at work.
    AtWork,
    /// It has written back so many pages, or failed; told once.
    Done(WrittenBack),
    /// There is no such thread: the writer does it itself.
    Gone,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.lock() = state;
        self.news.notify_all();
    }

    /// Waits until it is asked. Whether it was; else it is to end.
    fn asked(&self) -> bool {
        let waits = |state: &mut State| !matches!(state, State::AtWork | State::Gone);
        let state = self.news.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        matches!(*state, State::AtWork)
    }
}

/// The thread, as the writer has it.
#[derive(Debug)]
pub(super) struct Beside {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    /// Where it cannot be had the writer does without.
    pub(super) fn start(database: PathBuf) -> Beside {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let begun = std::thread::Builder::new().name("store-log".into()).spawn(move || run(database, &its));
        if let Err(error) = &begun {
            tracing::warn!(%error, "no thread to write the log back: mail waits a moment each time that it is");
            shared.set(State::Gone);
        }
        Beside { shared, thread: begun.ok() }
    }

    /// Has it written back what is in the log by now.
    pub(super) fn ask(&self) {
        let mut state = self.shared.lock();
        if matches!(*state, State::Idle) {
            *state = State::AtWork;
            drop(state);
            self.shared.news.notify_all();
        }
    }

    pub(super) fn look(&self) -> Found {
        let mut state = self.shared.lock();
        match &mut *state {
            State::Idle => Found::Idle,
            State::AtWork => Found::AtWork,
            State::Gone => Found::Gone,
            done @ State::Done(_) => match std::mem::take(done) {
                State::Done(done) => Found::Done(done),
                _ => Found::Idle,
            },
        }
    }

    /// Waits until it is not at work, and forgets how far it came: who cuts the log needs it alone.
    pub(super) fn rest(&self) {
        let at_work = |state: &mut State| matches!(state, State::AtWork);
        let waited = self.shared.news.wait_while(self.shared.lock(), at_work);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Done(_)) {
            *state = State::Idle;
        }
    }

    /// Ends it once it is not at work; its connection is closed then.
    pub(super) fn end(&mut self) {
        self.rest();
        self.shared.set(State::Gone);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the log back ended early; nothing is lost");
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.end();
    }
}

/// A thread that ends early keeps nobody waiting.
struct Gone<'s>(&'s Shared);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.set(State::Gone);
    }
}

fn run(database: PathBuf, shared: &Shared) {
    let _gone = Gone(shared);
    let conn = match open_for_the_log(&database) {
        Ok(conn) => conn,
        Err(error) => {
            tracing::warn!(%error, "no connection to write the log back: mail waits a moment each time that it is");
            return;
        }
    };
    while shared.asked() {
        let done = write_back(&conn);
        shared.set(State::Done(done));
    }
}

fn write_back(conn: &Connection) -> WrittenBack {
    conn.wal_checkpoint_v2(rusqlite::MAIN_DB.into(), CheckpointMode::PASSIVE)
        .map(|(_, done)| u32::try_from(done).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(rows: u32) -> (tempfile::TempDir, PathBuf, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.db");
        let conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "journal_mode", "WAL").unwrap();
        conn.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        conn.execute_batch("CREATE TABLE t (x)").unwrap();
        for _ in 0..rows {
            conn.execute("INSERT INTO t VALUES (zeroblob(4000))", []).unwrap();
        }
        (dir, path, conn)
    }

    fn found(beside: &Beside) -> Found {
        loop {
            match beside.look() {
                Found::AtWork => std::thread::yield_now(),
                found => return found,
            }
        }
    }

    #[test]
    fn who_is_asked_writes_the_log_back_and_tells_it_once() {
        let (_dir, path, conn) = database(50);
        let before = std::fs::metadata(&path).unwrap().len();
        let mut beside = Beside::start(path.clone());
        assert!(matches!(beside.look(), Found::Idle), "nothing was asked");
        beside.ask();
        assert!(matches!(found(&beside), Found::Done(Ok(50..))));
        assert!(std::fs::metadata(&path).unwrap().len() >= before + 50 * 4000);
        assert!(matches!(beside.look(), Found::Idle));
        conn.execute("INSERT INTO t VALUES (1)", []).unwrap();
        beside.ask();
        beside.rest();
        assert!(matches!(beside.look(), Found::Idle), "how far it came is forgotten");
        beside.end();
        beside.ask();
        assert!(matches!(beside.look(), Found::Gone));
    }

    #[test]
    fn without_its_database_it_is_gone_and_nobody_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let beside = Beside::start(dir.path().join("absent.db"));
        beside.ask();
        beside.rest();
        assert!(matches!(found(&beside), Found::Gone));
    }
}
