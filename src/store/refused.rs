//! Why the disk did not take a write, beyond what SQLite says of it: "disk I/O error" is all that it tells of a file
//! system that turned read-only, of a quota, and of a bound on the size of files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::types::StoreError;

/// Written, and removed again, to hear what the system says.
const PROBE: &str = "probe";
const PROBE_OCTETS: usize = 4096;
/// A file that is so near to the bound on the size of files has reached it: what is written at once is smaller.
const NEAR_OCTETS: u64 = 64 * 1024;

/// What a caller is told.
pub(super) fn store_error(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full("the disk is full".into()),
        // The log's index could not grow.
        _ if code(error) == ffi::SQLITE_IOERR_SHMSIZE => StoreError::Full("the disk is full".into()),
        Some(ErrorCode::ReadOnly) => StoreError::Full("the database can only be read".into()),
        _ => StoreError::Failed(error.to_string()),
    }
}

/// As [`store_error`] for a write that failed: where SQLite does not say why, the disk of `files` is asked.
pub(super) fn write_error(error: &rusqlite::Error, data_dir: &Path, files: &[&Path]) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => match ask(data_dir, files) {
            Some(why) => StoreError::Full(why),
            None => store_error(error),
        },
        _ => store_error(error),
    }
}

/// SQLite's extended code; 0: none.
pub(super) fn code(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().map_or(0, |e| e.extended_code)
}

fn ask(data_dir: &Path, files: &[&Path]) -> Option<String> {
    let why = match probe(data_dir).map_err(|error| Errno::from_io_error(&error)) {
        Err(Some(Errno::ROFS)) => "the file system can only be read now",
        Err(Some(Errno::NOSPC)) => "the disk is full",
        Err(Some(Errno::DQUOT)) => "the disk quota is used up",
        Err(Some(Errno::FBIG)) => FILE_LIMIT,
        Err(_) => return None,
        Ok(()) if getrlimit(Resource::Fsize).current.is_some_and(|most| reached(most, files)) => FILE_LIMIT,
        Ok(()) => return None,
    };
    Some(why.into())
}

const FILE_LIMIT: &str =
    "a file is as large as the process may make one; raise its limit (ulimit -f, LimitFSIZE)";

fn reached(most_octets: u64, files: &[&Path]) -> bool {
    let length = |path: &&Path| fs::metadata(path).map_or(0, |file| file.len());
    files.iter().map(length).any(|length| length.saturating_add(NEAR_OCTETS) >= most_octets)
}

fn probe(data_dir: &Path) -> io::Result<()> {
    let path = data_dir.join(PROBE);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let written = file.write_all(&[0; PROBE_OCTETS]).and_then(|()| file.sync_data());
    let removed = fs::remove_file(&path);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None)
    }

    #[test]
    fn what_a_disk_that_takes_writes_does_not_explain_stays_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(write_error(&failed(), dir.path(), &[]), StoreError::Failed(_)));
        assert!(!dir.path().join(PROBE).exists());
        let gone = dir.path().join("gone");
        assert!(matches!(write_error(&failed(), &gone, &[]), StoreError::Failed(_)));
    }

    #[test]
    fn a_file_near_the_bound_has_reached_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        fs::write(&path, [0; 1000]).unwrap();
        assert!(reached(1000 + NEAR_OCTETS, &[&path]));
        assert!(!reached(1001 + NEAR_OCTETS, &[&path, &dir.path().join("absent")]));
    }
}
