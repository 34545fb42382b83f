//! What a backup leaves behind where its process is killed: a part of a copy, which the next backup into that folder
//! removes.
//!
//! Each copy is locked while it is written, and the system gives the lock back when the process ends. So a part that
//! can be locked is nobody's; and only what bears our mark is taken for one.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::schema::APPLICATION_ID;

/// Entries of a folder that are looked at.
const ENTRIES_MAX: usize = 10_000;
/// The beginning of a database, up to the id of the application (<https://sqlite.org/fileformat2.html>).
const HEADER_OCTETS: usize = 72;

/// Keeps others from taking it for a leftover. Where the file system has no locks, nobody removes anything there.
pub(super) fn claim(part: &File) {
    let _ = flock(part, FlockOperation::NonBlockingLockExclusive);
}

/// Removes the parts in that folder that nobody writes any more, and tells which.
pub(super) fn remove(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.take(ENTRIES_MAX).flatten() {
        let named = entry.file_name().to_str().is_some_and(is_a_parts_name);
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if named && is_file && is_left_over(&entry.path()) && fs::remove_file(entry.path()).is_ok() {
            tracing::warn!(
                path = %entry.path().display(),
                "removed what a backup left behind that was ended before it was whole"
            );
        }
    }
}

/// `FILE.NUMBER.part`
fn is_a_parts_name(name: &str) -> bool {
    let number = name.strip_suffix(".part").and_then(|name| name.rsplit_once('.')).map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Four octets, the highest first.
fn application_id_in_file() -> [u8; 4] {
    let [.., a, b, c, d] = APPLICATION_ID.to_be_bytes();
    [a, b, c, d]
}

fn is_left_over(path: &Path) -> bool {
    let Ok(mut part) = File::open(path) else { return false };
    let mut header = [0; HEADER_OCTETS];
    part.read_exact(&mut header).is_ok()
        && header.starts_with(b"SQLite format 3\0")
        && header.ends_with(&application_id_in_file())
        && flock(&part, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_parts_that_nobody_writes_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut ours = vec![0; 4096];
        ours[..16].copy_from_slice(b"SQLite format 3\0");
        ours[68..72].copy_from_slice(b"POST");
        let write = |name: &str, octets: &[u8]| {
            fs::write(dir.path().join(name), octets).unwrap();
            File::open(dir.path().join(name)).unwrap()
        };
        drop(write("a.db.1795602034005.part", &ours));
        let busy = write("b.db.1795602034006.part", &ours);
        claim(&busy);
        drop(write("a.db", &ours));
        drop(write("film.part", &ours));
        drop(write("film.2.part", b"another's"));
        remove(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["a.db", "b.db.1795602034006.part", "film.2.part", "film.part"]);
        drop(busy);
        remove(dir.path());
        assert!(!dir.path().join("b.db.1795602034006.part").exists());
    }
}
