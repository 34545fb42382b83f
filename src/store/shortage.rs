//! Where room is short, what is kept only to be looked at goes before its time: the content of messages that are done,
//! the oldest first. Then free pages go back to a disk that others filled.
//!
//! Bulk work in small pieces, as retention is; what is not done is never touched.

use super::Store;
use super::retention::{
    BODIES_CHUNK, EVENTS_CHUNK, Finished, VACUUM_PAGES_LOW, VACUUM_PIECES, WITH_BODY, delete_bodies,
    finished, give_back,
};
use super::space::Room;
use super::types::{LetGo, StoreError};
use crate::mail::MessageId;

/// Octets of bodies that go in one piece of work; more where one message alone has more.
const PIECE_OCTETS: i64 = 4 * 1024 * 1024;
/// What one free page gives back to the disk.
const PAGE_OCTETS: i64 = 4096;

impl Store {
    /// Waits until there is little room for new mail, or some was refused for want of it.
    pub async fn room_is_short(&self) {
        self.shared.space.short().await;
    }

    /// Makes room for new mail, as far as what is done can give it. What went is added to `gone`, also where an error
    /// ends it.
    ///
    /// Errors: [`StoreError::Full`], [`StoreError::Failed`], [`StoreError::Stopping`]; what went until then is gone.
    /// May be run again.
    pub async fn make_room(&self, gone: &mut LetGo) -> Result<(), StoreError> {
        let wanted = self.shared.space.wanted();
        self.let_go(wanted, gone).await?;
        self.shrink(wanted).await
    }

    async fn let_go(&self, wanted: i64, gone: &mut LetGo) -> Result<(), StoreError> {
        let mut after = MessageId::from_number(0);
        loop {
            let seen = self.read(move |conn| finished(conn, WITH_BODY, after)).await?;
            let Some(last) = seen.last().map(|f| f.message) else { return Ok(()) };
            let done: Vec<_> = seen.into_iter().filter(|f| f.done_at.is_some()).collect();
            for piece in pieces(&done) {
                if self.room().await?.is_none_or(|room| room.in_all >= wanted) {
                    return Ok(());
                }
                let ids: Vec<_> = piece.iter().map(|f| f.message).collect();
                gone.bodies += self.bulk(ids.len(), move |tx| delete_bodies(tx, &ids)).await?;
                gone.octets += piece.iter().map(|f| f.size.unsigned_abs()).sum::<u64>();
            }
            after = last;
        }
    }

    /// Free pages inside the file are no room for the log: where the disk itself is short of it, they go back.
    async fn shrink(&self, wanted: i64) -> Result<(), StoreError> {
        let Some(room) = self.room().await? else { return Ok(()) };
        let mut pages = wanted.saturating_sub(room.on_disk).max(0) / PAGE_OCTETS;
        for _ in 0..VACUUM_PIECES {
            let piece = pages.min(i64::from(VACUUM_PAGES_LOW));
            let given = self.bulk(EVENTS_CHUNK, move |tx| give_back(tx, piece)).await?;
            if given == 0 {
                break;
            }
            pages -= piece;
        }
        Ok(())
    }

    /// A look at the disk, between two groups of the writer.
    async fn room(&self) -> Result<Option<Room>, StoreError> {
        let shared = std::sync::Arc::clone(&self.shared);
        let look = move |conn: &rusqlite::Connection| {
            let room = shared.space.look(conn);
            shared.space.judge();
            room
        };
        self.shared.queue.control(look).await
    }
}

/// In their order, each of a bounded size.
fn pieces(done: &[Finished]) -> Vec<&[Finished]> {
    let (mut pieces, mut rest) = (Vec::new(), done);
    while !rest.is_empty() {
        let mut octets = 0;
        let fit = rest.iter().take(BODIES_CHUNK).take_while(|f| {
            octets += f.size;
            octets <= PIECE_OCTETS
        });
        let (piece, others) = rest.split_at(fit.count().max(1));
        pieces.push(piece);
        rest = others;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_bounded_in_octets_and_messages_but_never_empty() {
        let of = |sizes: &[i64]| {
            let done: Vec<_> = sizes
                .iter()
                .map(|size| Finished { message: MessageId::from_number(1), size: *size, done_at: None })
                .collect();
            pieces(&done).iter().map(|p| p.len()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[PIECE_OCTETS * 3, 1, PIECE_OCTETS - 1, 1]), [1, 2, 1]);
        assert_eq!(of(&[1; BODIES_CHUNK + 1]), [BODIES_CHUNK, 1]);
        assert!(of(&[]).is_empty());
    }
}
