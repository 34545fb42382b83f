//! Idle connections: the one used last goes first, and what is unused for a while is closed with QUIT.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until, timeout};

use super::connect::Connection;
use super::settings::Settings;
use crate::clock::monotonic;

/// QUIT and its reply.
const GOODBYE: Duration = Duration::from_secs(1);

/// The idle connections to one upstream, at most `max_connections`.
#[derive(Debug)]
pub(super) struct Pool {
    shelf: Mutex<Shelf>,
    idle_max: usize,
    messages_max: u32,
    idle_timeout: Duration,
}

#[derive(Debug, Default)]
struct Shelf {
    /// In the order in which they became idle.
    idle: Vec<Connection>,
    /// A task waits for the first one's end.
    reaped: bool,
    closed: bool,
}

impl Pool {
    pub fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Pool {
            shelf: Mutex::default(),
            idle_max: settings.max_connections,
            messages_max: settings.messages_per_connection,
            idle_timeout: settings.idle_timeout,
        })
    }

    /// A connection on which nothing was said while it lay here. A goodbye that came unasked would be taken for the
    /// reply to the next MAIL.
    pub fn take(&self) -> Option<Connection> {
        loop {
            let mut connection = self.shelf().idle.pop()?;
            if connection.line.quiet() {
                connection.reused = true;
                return Some(connection);
            }
        }
    }

    /// Keeps a connection that is in step, and ends one that has carried its share.
    pub fn put(self: &Arc<Self>, mut connection: Connection) {
        if !connection.in_step {
            return;
        }
        let told = connection.offered.messages_max.unwrap_or(u32::MAX);
        if connection.messages >= self.messages_max.min(told) {
            tokio::spawn(goodbye(connection));
            return;
        }
        connection.idle_since = monotonic();
        let mut shelf = self.shelf();
        if shelf.closed || shelf.idle.len() >= self.idle_max {
            drop(shelf);
            tokio::spawn(goodbye(connection));
            return;
        }
        shelf.idle.push(connection);
        if !std::mem::replace(&mut shelf.reaped, true) {
            tokio::spawn(reap(Arc::downgrade(self)));
        }
    }

    /// Ends what is idle, and what becomes idle later.
    pub async fn close(&self) {
        let idle = {
            let mut shelf = self.shelf();
            shelf.closed = true;
            std::mem::take(&mut shelf.idle)
        };
        join_all(idle.into_iter().map(goodbye)).await;
    }

    /// When the next one has been idle for too long; `None` ends the reaper.
    fn next_end(&self) -> Option<Instant> {
        let mut shelf = self.shelf();
        let end = shelf.idle.first().map(|c| c.idle_since + self.idle_timeout);
        shelf.reaped = end.is_some();
        end
    }

    fn expired(&self) -> Vec<Connection> {
        let now = monotonic();
        let mut shelf = self.shelf();
        let old = shelf.idle.partition_point(|c| c.idle_since + self.idle_timeout <= now);
        shelf.idle.drain(..old).collect()
    }

    /// How many lie idle.
    #[cfg(test)]
    pub fn idle(&self) -> usize {
        self.shelf().idle.len()
    }

    /// Some lie idle, and nothing has come in on any of them.
    #[cfg(test)]
    pub fn idle_and_quiet(&self) -> bool {
        let mut shelf = self.shelf();
        !shelf.idle.is_empty() && shelf.idle.iter_mut().all(|c| c.line.quiet())
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs while there is anything idle.
async fn reap(pool: Weak<Pool>) {
    while let Some(end) = pool.upgrade().and_then(|pool| pool.next_end()) {
        sleep_until(end).await;
        let expired = pool.upgrade().map(|pool| pool.expired()).unwrap_or_default();
        join_all(expired.into_iter().map(goodbye)).await;
    }
}

pub(super) async fn goodbye(mut connection: Connection) {
    connection.line.out.extend_from_slice(b"QUIT\r\n");
    let said = async {
        if connection.line.send().await.is_ok() {
            // Its reply changes nothing, but who hangs up before it leaves an error in the server's log.
            let _ = connection.line.reply().await;
        }
    };
    let _ = timeout(GOODBYE, said).await;
}
