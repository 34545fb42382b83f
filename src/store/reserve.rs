//! A file that only takes room: given up when a write finds none, so that what was accepted can still be begun,
//! answered and let go, also where others filled the disk; made again when there is room.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

const NAME: &str = "reserve";
/// Written at a time where the file system cannot allocate.
const PIECE_OCTETS: usize = 64 * 1024;

/// The file, there or not.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// 0: none is made; one that is there may be given up.
    octets: u64,
    held: bool,
}

impl Reserve {
    pub(super) fn new(data_dir: &Path, octets: u64) -> Self {
        let path = data_dir.join(NAME);
        let length = fs::metadata(&path).map(|file| file.len()).ok();
        // Another size was configured, or it was made in part.
        let stale = octets > 0 && length.is_some_and(|length| length != octets);
        let held = length.is_some() && !(stale && fs::remove_file(&path).is_ok());
        Reserve { path, octets, held }
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.held && self.octets > 0
    }

    pub(super) fn make(&mut self) {
        match allocate(&self.path, self.octets) {
            Ok(()) => self.held = true,
            Err(error) => {
                let _ = fs::remove_file(&self.path);
                tracing::warn!(%error, "no room could be set aside for a full disk");
            }
        }
    }

    /// Whether that made room.
    pub(super) fn give_up(&mut self) -> bool {
        let gone = self.held && fs::remove_file(&self.path).is_ok();
        self.held &= !gone;
        if gone {
            tracing::warn!("the disk is full: the room that was set aside for this is in use now");
        }
        gone
    }
}

/// Gives the file up before there is a writer, and says whether that made room. The caller holds the data directory.
pub fn give_up(data_dir: &Path) -> bool {
    Reserve::new(data_dir, 0).give_up()
}

fn allocate(path: &Path, octets: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, octets) {
        Err(rustix::io::Errno::OPNOTSUPP) => write(&mut file, octets),
        done => Ok(done?),
    }
}

fn write(file: &mut File, octets: u64) -> io::Result<()> {
    let zeros = [0; PIECE_OCTETS];
    let mut left = octets;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(PIECE_OCTETS).min(PIECE_OCTETS);
        file.write_all(&zeros[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_real_room_and_gives_it_up_once() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(dir.path(), 1 << 20);
        assert!(reserve.is_wanted() && !reserve.give_up());
        reserve.make();
        let file = fs::metadata(dir.path().join(NAME)).unwrap();
        assert!(file.blocks() * 512 >= 1 << 20, "{} blocks", file.blocks());
        assert!(!Reserve::new(dir.path(), 1 << 20).is_wanted(), "a start finds it");
        assert!(reserve.give_up() && !reserve.give_up() && reserve.is_wanted());
    }

    #[test]
    fn another_size_is_made_anew_and_who_asks_for_none_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        Reserve::new(dir.path(), 1 << 20).make();
        assert!(!Reserve::new(dir.path(), 0).is_wanted());
        assert!(dir.path().join(NAME).exists());
        let mut other = Reserve::new(dir.path(), 2 << 20);
        assert!(other.is_wanted());
        other.make();
        assert!(give_up(dir.path()) && !give_up(dir.path()));
    }

    #[test]
    fn zeros_are_written_where_nothing_can_be_allocated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        write(&mut File::create(&path).unwrap(), 100_000).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 100_000);
    }
}
