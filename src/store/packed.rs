//! Octets of bodies as they lie on disk: packed (zstd), where that saves a useful part of them.
//!
//! Every octet of a body is written twice, into the log and from there into the database: what is packed spares both.
//! It is done before an operation waits for the writer, never by the writer. What was kept before there was packing, and
//! what does not shrink, lies there as it came.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::Row;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zstd::bulk::{Compressor, Decompressor};

/// What is smaller lies there as it came: small mail is bound by syncs and by CPU, of which packing takes more than its
/// few pages are worth.
const PACKED_FROM_OCTETS: usize = 16 * 1024;
/// So is what is larger: a head or a piece is half of it, and nothing is unpacked to more.
const PACKED_TO_OCTETS: usize = 512 * 1024;
/// Up to so many octets are packed on the thread that asks for it, in half a millisecond at most.
const AT_ONCE_OCTETS: usize = 128 * 1024;
/// Packed is only what so becomes smaller by this part.
const SAVED_PART: usize = 8;
/// What packed bodies that wait for the writer may take of memory, beside the bodies themselves; past it they are
/// written as they came.
const WAITING_OCTETS_MAX: usize = 32 * 1024 * 1024;
/// Packers kept for the next body, some 0.6 MB each.
const IDLE_MAX: usize = 4;
/// The fastest level that codes entropy: without it base64 does not shrink at all, with more nothing shrinks by much.
const LEVEL: i32 = 1;

/// Octets as they are written.
#[derive(Debug)]
pub(super) struct Kept {
    /// What goes into the row.
    pub octets: Bytes,
    /// How many they are once unpacked; `None`: they are not packed.
    pub unpacked: Option<u32>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Kept {
    fn as_it_came(octets: Bytes) -> Self {
        Kept { octets, unpacked: None, _room: None }
    }
}

/// What packs bodies.
pub(super) struct Packers {
    room: Arc<Semaphore>,
    idle: Mutex<Vec<Compressor<'static>>>,
}

impl fmt::Debug for Packers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packers").field("room", &self.room.available_permits()).finish_non_exhaustive()
    }
}

impl Packers {
    pub(super) fn new() -> Arc<Self> {
        let room = Arc::new(Semaphore::new(WAITING_OCTETS_MAX));
        Arc::new(Packers { room, idle: Mutex::default() })
    }

    /// The octets as they are to be written. What takes long is done on a thread that may take long.
    pub(super) async fn pack(self: &Arc<Self>, octets: &Bytes) -> Kept {
        match octets.len() {
            few if few < PACKED_FROM_OCTETS => Kept::as_it_came(octets.clone()),
            some if some <= AT_ONCE_OCTETS => self.pack_here(octets),
            many if many > PACKED_TO_OCTETS => Kept::as_it_came(octets.clone()),
            _ => {
                let (packers, given) = (Arc::clone(self), octets.clone());
                let packed = tokio::task::spawn_blocking(move || packers.pack_here(&given)).await;
                packed.unwrap_or_else(|_| Kept::as_it_came(octets.clone()))
            }
        }
    }

    fn pack_here(&self, octets: &Bytes) -> Kept {
        self.packed(octets).unwrap_or_else(|| Kept::as_it_came(octets.clone()))
    }

    /// `None`: it does not pay, or there is no memory for it.
    fn packed(&self, octets: &Bytes) -> Option<Kept> {
        let most = octets.len() - octets.len().div_ceil(SAVED_PART);
        let unpacked = u32::try_from(octets.len()).ok()?;
        let mut room = Arc::clone(&self.room).try_acquire_many_owned(u32::try_from(most).ok()?).ok()?;
        let mut packer = self.packer()?;
        let mut packed = Vec::with_capacity(most);
        // It stops where the room for what pays is full.
        let done = packer.compress_to_buffer(&octets[..], &mut packed);
        self.give_back(packer);
        done.ok()?;
        packed.shrink_to_fit();
        drop(room.split(most - packed.len()));
        Some(Kept { octets: packed.into(), unpacked: Some(unpacked), _room: Some(room) })
    }

    fn packer(&self) -> Option<Compressor<'static>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.or_else(|| {
            let mut packer = Compressor::new(LEVEL).ok()?;
            packer.include_checksum(true).ok()?;
            Some(packer)
        })
    }

    fn give_back(&self, packer: Compressor<'static>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(packer);
        }
    }
}

/// What a row holds, whose columns from `column` on are the octets and what they become unpacked. `None`: they do not
/// become that. No more memory is taken than `most` octets, and none where the row asks for more.
pub(super) fn read_kept(row: &Row<'_>, column: usize, most: u64) -> rusqlite::Result<Option<Bytes>> {
    let octets = row.get_ref(column)?.as_blob()?;
    let Some(unpacked) = row.get::<_, Option<i64>>(column + 1)? else {
        return Ok(Some(Bytes::copy_from_slice(octets)));
    };
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(PACKED_TO_OCTETS);
    Ok(usize::try_from(unpacked).ok().filter(|unpacked| *unpacked <= most).and_then(|n| unpack(octets, n)))
}

/// `None`: they are no packed octets, or they do not become exactly so many.
fn unpack(packed: &[u8], octets: usize) -> Option<Bytes> {
    let mut unpacked = Vec::with_capacity(octets);
    Decompressor::new().and_then(|mut unpacker| unpacker.decompress_to_buffer(packed, &mut unpacked)).ok()?;
    (unpacked.len() == octets).then(|| unpacked.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::noise;
    use proptest::prelude::*;
    use rusqlite::{Connection, params};

    fn text(octets: usize) -> Vec<u8> {
        let mut out: Vec<u8> =
            (0..).take(octets / 8 + 1).flat_map(|n| format!("{n} words\r\n").into_bytes()).collect();
        out.truncate(octets);
        out
    }

    fn pack(packers: &Arc<Packers>, octets: &[u8]) -> Kept {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(packers.pack(&Bytes::copy_from_slice(octets)))
    }

    /// Written and read back.
    fn read_back(octets: &[u8], unpacked: Option<i64>, most: usize) -> Option<Bytes> {
        let conn = Connection::open_in_memory().unwrap();
        conn.query_row("SELECT ?1, ?2", params![octets, unpacked], |row| read_kept(row, 0, most as u64))
            .unwrap()
    }

    #[track_caller]
    fn assert_comes_back(packers: &Arc<Packers>, octets: &[u8]) -> bool {
        let kept = pack(packers, octets);
        assert!(kept.octets.len() <= octets.len());
        let back = read_back(&kept.octets, kept.unpacked.map(i64::from), octets.len());
        assert!(back.as_deref() == Some(octets), "{} octets came back as others", octets.len());
        kept.unpacked.is_some()
    }

    #[test]
    fn it_comes_back_as_it_was_at_every_bound() {
        let packers = Packers::new();
        let at = |bound: usize| [bound - 1, bound, bound + 1];
        let sizes = [PACKED_FROM_OCTETS, AT_ONCE_OCTETS, PACKED_TO_OCTETS].map(at).concat();
        for size in [0, 1, 2, 100, 64 * 1024].into_iter().chain(sizes) {
            let pays = (PACKED_FROM_OCTETS..=PACKED_TO_OCTETS).contains(&size);
            assert_eq!(assert_comes_back(&packers, &text(size)), pays, "{size} octets of text");
            assert_eq!(assert_comes_back(&packers, &vec![0; size]), pays, "{size} zeros");
            assert!(!assert_comes_back(&packers, &noise(size)), "{size} octets of noise");
        }
    }

    #[test]
    fn what_shrinks_by_less_than_an_eighth_lies_there_as_it_came() {
        let packers = Packers::new();
        let with_zeros = |part: usize| [noise(64_000 - 64_000 / part), vec![0; 64_000 / part]].concat();
        assert!(!assert_comes_back(&packers, &with_zeros(9)));
        assert!(assert_comes_back(&packers, &with_zeros(7)));
    }

    #[test]
    fn what_is_not_as_it_was_packed_is_told_and_takes_no_memory() {
        let given = text(100_000);
        let kept = pack(&Packers::new(), &given);
        let n = given.len();
        for unpacked in [-1, 0, 1, n as i64 - 1, n as i64 + 1, 1 << 40, i64::MIN, i64::MAX] {
            assert_eq!(read_back(&kept.octets, Some(unpacked), n), None, "{unpacked}");
            assert_eq!(read_back(&kept.octets, Some(unpacked), usize::MAX), None, "{unpacked}");
        }
        assert_eq!(read_back(&kept.octets, Some(n as i64), n - 1), None, "more than its message has");
        for cut in [0, 1, 4, kept.octets.len() / 2, kept.octets.len() - 1] {
            assert_eq!(read_back(&kept.octets[..cut], Some(n as i64), n), None, "cut to {cut}");
        }
        for at in (0..kept.octets.len()).step_by(7) {
            let mut broken = kept.octets.to_vec();
            broken[at] ^= 0x10;
            // The header of a frame has a bit that means nothing.
            let back = read_back(&broken, Some(n as i64), n);
            assert!(back.is_none_or(|back| back == given), "octet {at}");
        }
        assert_eq!(read_back(&noise(20_000), Some(20_000), 20_000), None, "never packed");
    }

    #[test]
    fn memory_for_what_is_packed_is_bounded_and_comes_back() {
        let packers = Packers::new();
        let free = || packers.room.available_permits();
        let kept = pack(&packers, &text(100_000));
        assert_eq!(free(), WAITING_OCTETS_MAX - kept.octets.len());
        drop(kept);
        drop(pack(&packers, &noise(100_000)));
        assert_eq!(free(), WAITING_OCTETS_MAX);
        let _others =
            packers.room.try_acquire_many(u32::try_from(WAITING_OCTETS_MAX).unwrap() - 80_000).unwrap();
        assert!(!assert_comes_back(&packers, &text(100_000)), "there is no memory for it");
        assert!(assert_comes_back(&packers, &text(90_000)));
    }

    #[test]
    fn packers_are_used_again_and_few_are_kept() {
        let packers = Packers::new();
        let many: Vec<_> = (0..2 * IDLE_MAX).map(|_| packers.packer().unwrap()).collect();
        many.into_iter().for_each(|packer| packers.give_back(packer));
        assert_eq!(packers.idle.lock().unwrap().len(), IDLE_MAX);
        // One that gave up packs the next as if nothing had been.
        assert!(!assert_comes_back(&packers, &noise(100_000)));
        assert!(assert_comes_back(&packers, &text(100_000)));
        assert_eq!(packers.idle.lock().unwrap().len(), IDLE_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn any_octets_come_back(pieces in prop::collection::vec((any::<u8>(), 0..6_000_usize, any::<bool>()), 0..12)) {
            let octets: Vec<u8> = pieces
                .into_iter()
                .flat_map(|(octet, n, same)| if same { vec![octet; n] } else { noise(n + usize::from(octet)) })
                .collect();
            assert_comes_back(&Packers::new(), &octets);
        }
    }
}
