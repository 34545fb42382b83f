//! A result that is used again for a moment: however many ask at once, the work behind it runs once.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::clock::monotonic;

/// How long a result is as good as new.
const FRESH: Duration = Duration::from_secs(1);

/// The last result, where it is fresh.
pub(super) struct Fresh<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Fresh(Mutex::new(None))
    }
}

impl<T: Clone> Fresh<T> {
    /// The last result, or a new one by `make`. Who comes meanwhile waits for it.
    pub(super) async fn get<F: Future<Output = T>>(&self, make: impl FnOnce() -> F) -> T {
        let mut last = self.0.lock().await;
        if let Some((at, value)) = &*last
            && at.elapsed() < FRESH
        {
            return value.clone();
        }
        let value = make().await;
        *last = Some((monotonic(), value.clone()));
        value
    }
}
