//! What finished mail leaves behind goes after its time.

use super::Store;
use super::types::{Retained, StoreError};
use crate::clock::Timestamp;

impl Store {
    /// x
    pub async fn retain(&self, now: Timestamp) -> Result<Retained, StoreError> {
        let _ = now;
        Ok(Retained::default())
    }
}
