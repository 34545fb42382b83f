//! What was spilled, as a wire reads it back.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::mail::MessageId;
use crate::store::Store;
use crate::wire::Chunks;

/// The store's chunks.
#[derive(Debug, Clone)]
pub struct StoreChunks(pub Store);

impl Chunks for StoreChunks {
    fn chunk(&self, message: MessageId, n: u32) -> BoxFuture<'_, Result<Bytes, String>> {
        async move { self.0.chunk(message, n).await.map_err(|error| error.to_string()) }.boxed()
    }
}
