//! Who has the data directory: `postroad.lock`, and the token that commands show to the relay that holds it.
//!
//! The lock is the kernel's (`flock`): it ends with the process, whatever its end, so a file that is left behind
//! says nothing. The file is never unlinked: two processes could then each lock a file of that name; should somebody
//! else remove it, the lock on the directory itself still holds, and [`read`] sees that. It has two lines, `pid 4711`
//! and, once the relay listens, `http 127.0.0.1:8025`. Under TLS the second is `https 127.0.0.1:8025`, and a line
//! `certificate sha256:…` follows for each certificate that the port shows: only the relay can write here, so commands
//! that find it there need no CA to know whom they speak to.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::FlockOperation;

use crate::secret::Secret;

const LOCK_FILE: &str = "postroad.lock";
const TOKEN_FILE: &str = "admin.token";
const TOKEN_OCTETS: usize = 32;
/// A shorter one could be guessed through the HTTP port.
const TOKEN_CHARS_MIN: usize = 20;
/// More than this is not read of a lock or token file.
const FILE_OCTETS_MAX: u64 = 4096;
/// [`read`] holds the lock for an instant to see whether it is free, and commands hold it for a look at the database:
/// so a take tries so often, with [`TAKE_PAUSE`] between.
const TAKE_TRIES: u32 = 20;
const TAKE_PAUSE: Duration = Duration::from_millis(25);

/// The data directory is this process's until the lock is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// The directory's own lock. It is taken before the file's and goes after it (fields are dropped in this order):
    /// whoever finds it locked and the file not, finds that for an instant at most, or the file is another by now.
    _dir: File,
}

/// The process that has the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Its process id; `None` in the instant before it has written it.
    pub pid: Option<u32>,
    /// Where its HTTP port really is (also when port 0 was asked for); `None` before it listens, and for a command
    /// that works on the database.
    pub http_address: Option<SocketAddr>,
    /// That port speaks HTTPS.
    pub https: bool,
}

/// A certificate, by the SHA-256 of its DER form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// That of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        let mut pin = [0; 32];
        pin.copy_from_slice(digest(&SHA256, der).as_ref());
        Pin(pin)
    }
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// What [`read`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The data directory is free.
    Nobody,
    /// This process has it.
    Process(Running),
    /// Some process has it, but the lock file that says which was removed.
    WithoutFile,
}

/// Why the data directory was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{path} is locked by another process{}", held_by(.holder))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who.
        holder: Holder,
    },
    /// The directory or file cannot be made or read.
    #[error("{path}: {error}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

fn held_by(holder: &Holder) -> String {
    match holder {
        Holder::Process(Running { pid: Some(pid), .. }) => format!(": pid {pid}"),
        Holder::WithoutFile => ", and this file was removed since: stop that process first".into(),
        Holder::Process(_) | Holder::Nobody => String::new(),
    }
}

impl Lock {
    /// Takes the data directory, made (0700) where it is absent. Blocks for up to half a second.
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        Lock::take_with_room(data_dir, |_| false)
    }

    /// As [`Lock::take`]. Where the disk has no room for the lock file `make_room` is asked for some, with the
    /// directory locked; it says whether there is any now.
    pub fn take_with_room(data_dir: &Path, make_room: impl FnOnce(&Path) -> bool) -> Result<Self, LockError> {
        make_dir(data_dir).map_err(LockError::at(data_dir))?;
        let path = data_dir.join(LOCK_FILE);
        let dir = File::open(data_dir).map_err(LockError::at(data_dir))?;
        if !flock(&dir).map_err(LockError::at(data_dir))? {
            return Err(LockError::held(path));
        }
        let file = match open_locked(&path) {
            Err(error) if error.is_no_room() && make_room(data_dir) => open_locked(&path)?,
            file => file?,
        };
        Ok(Lock { file, _dir: dir })
    }

    /// Says where the relay's HTTP port really is; with `pins` that it speaks HTTPS, and which certificates it shows.
    pub fn write(&self, http_address: SocketAddr, pins: &[Pin]) -> io::Result<()> {
        let scheme = if pins.is_empty() { "http" } else { "https" };
        let pins: String = pins.iter().map(|pin| format!("certificate {pin}\n")).collect();
        put(&self.file, &format!("pid {}\n{scheme} {http_address}\n{pins}", std::process::id()))
    }
}

impl LockError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| LockError::Io { path, error }
    }

    /// The directory is locked: by whom, as far as its file says.
    fn held(path: PathBuf) -> Self {
        let file = File::open(&path);
        let holder = match file.as_ref().map(held) {
            Ok(Ok(true)) => {
                let text = file.and_then(|file| read_text(&file));
                Holder::Process(parse(&text.unwrap_or_default()))
            }
            _ => Holder::WithoutFile,
        };
        LockError::Held { holder, path }
    }

    fn is_no_room(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, LockError::Io { error, .. } if matches!(error.kind(), StorageFull | QuotaExceeded))
    }
}

/// The lock file, made where it is absent, locked and with our pid.
fn open_locked(path: &Path) -> Result<File, LockError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(LockError::at(path))?;
    if !flock(&file).map_err(LockError::at(path))? {
        return Err(LockError::held(path.to_owned()));
    }
    put(&file, &format!("pid {}\n", std::process::id())).map_err(LockError::at(path))?;
    Ok(file)
}

/// Overwrites, then cuts: a reader in between sees the new lines first, and the first of a kind counts.
fn put(file: &File, text: &str) -> io::Result<()> {
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// `false`: another process has it, and keeps it.
fn flock(file: &File) -> io::Result<bool> {
    for attempt in 1.. {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < TAKE_TRIES => std::thread::sleep(TAKE_PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Blanks in place of a cut: on a full disk the next start finds room to write its own lines.
        let length = self.file.metadata().map_or(0, |file| file.len().min(FILE_OCTETS_MAX));
        let blanks: String = std::iter::repeat_n('\n', usize::try_from(length).unwrap_or(0)).collect();
        let _ = self.file.write_all_at(blanks.as_bytes(), 0);
    }
}

/// Who really holds the lock of this data directory. [`Holder::WithoutFile`] may also be seen for an instant while a
/// process takes it.
pub fn read(data_dir: &Path) -> io::Result<Holder> {
    if let Some(file) = open(&data_dir.join(LOCK_FILE))?
        && held(&file)?
    {
        return Ok(Holder::Process(parse(&read_text(&file)?)));
    }
    match open(data_dir)? {
        Some(dir) if held(&dir)? => Ok(Holder::WithoutFile),
        Some(_) | None => Ok(Holder::Nobody),
    }
}

/// `None`: there is none.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether a process has it for itself. Locks it until the file is closed where none has.
fn held(file: &File) -> io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

fn parse(text: &str) -> Running {
    let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '));
    let https = value("https").and_then(|v| v.parse().ok());
    Running {
        pid: value("pid").and_then(|v| v.parse().ok()),
        http_address: https.or_else(|| value("http").and_then(|v| v.parse().ok())),
        https: https.is_some(),
    }
}

/// Whether the relay that has this data directory says that its HTTP port shows that certificate.
pub fn shows(data_dir: &Path, certificate: Pin) -> io::Result<bool> {
    let Some(file) = open(&data_dir.join(LOCK_FILE))?.filter(|file| held(file).unwrap_or(false)) else {
        return Ok(false);
    };
    let wanted = format!("certificate {certificate}");
    Ok(read_text(&file)?.lines().any(|line| line == wanted))
}

/// The token in `admin.token`, made (0600) where it is absent. For the relay, with the lock held.
pub fn admin_token(data_dir: &Path) -> io::Result<Secret> {
    if let Some(token) = read_admin_token(data_dir)? {
        return Ok(token);
    }
    make_dir(data_dir)?;
    let mut octets = [0; TOKEN_OCTETS];
    SystemRandom::new().fill(&mut octets).map_err(|_| io::Error::other("no random numbers"))?;
    let token = URL_SAFE_NO_PAD.encode(octets);
    // Written beside and renamed: a command never reads half a token, and a crash leaves none.
    let beside = data_dir.join(format!("{TOKEN_FILE}.new"));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all_at(format!("{token}\n").as_bytes(), 0)?;
    file.sync_all()?;
    std::fs::rename(&beside, data_dir.join(TOKEN_FILE))?;
    Ok(Secret::new(token))
}

/// The token in `admin.token`; `None` where there is none. One that others may read is closed to them first.
pub fn read_admin_token(data_dir: &Path) -> io::Result<Option<Secret>> {
    let path = data_dir.join(TOKEN_FILE);
    let Some(file) = open(&path)? else { return Ok(None) };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    let text = read_text(&file)?;
    let token = text.trim();
    if token.len() < TOKEN_CHARS_MIN {
        let says = format!(
            "{} is no token, of at least {TOKEN_CHARS_MIN} characters; delete it and start the relay again",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, says));
    }
    Ok(Some(Secret::new(token)))
}

fn make_dir(data_dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir)
}

/// What is no text in it is of no use either: it reads as if it were not there.
fn read_text(file: &File) -> io::Result<String> {
    let mut octets = Vec::new();
    file.take(FILE_OCTETS_MAX).read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_lock_is_one_process_s_and_says_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("not/yet");
        assert_eq!(read(&data).unwrap(), Holder::Nobody);
        let lock = Lock::take(&data).unwrap();
        let me = Some(std::process::id());
        let running = |http_address, https| Holder::Process(Running { pid: me, http_address, https });
        assert_eq!(read(&data).unwrap(), running(None, false));
        let http = "[::1]:8025".parse().unwrap();
        lock.write(http, &[]).unwrap();
        assert_eq!(read(&data).unwrap(), running(Some(http), false));
        let [old, new, other] = [b"old", b"new", b"not"].map(|der| Pin::of(der));
        lock.write(http, &[new, old]).unwrap();
        assert_eq!(read(&data).unwrap(), running(Some(http), true));
        assert_eq!([old, new, other].map(|pin| shows(&data, pin).unwrap()), [true, true, false]);
        let refused = Lock::take(&data).unwrap_err();
        assert!(refused.to_string().contains(&format!("pid {}", std::process::id())), "{refused}");
        assert_eq!(mode(&data.join(LOCK_FILE)), 0o600);
        assert_eq!(mode(&data), 0o700);
        drop(lock);
        assert_eq!(read(&data).unwrap(), Holder::Nobody);
        assert!(!shows(&data, new).unwrap(), "nobody is there to show it");
        let left = std::fs::read_to_string(data.join(LOCK_FILE)).unwrap();
        assert!(left.len() > 20 && left.trim().is_empty(), "its room stays: {left:?}");
        Lock::take(&data).unwrap();
    }

    #[test]
    fn a_file_that_was_left_behind_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LOCK_FILE), "pid 1\nhttp 127.0.0.1:1\n").unwrap();
        assert_eq!(read(dir.path()).unwrap(), Holder::Nobody);
    }

    #[test]
    fn a_lock_file_that_was_removed_lets_nobody_in_and_one_of_garbage_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join(LOCK_FILE)).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Holder::WithoutFile);
        let refused = Lock::take(dir.path()).unwrap_err();
        assert!(refused.to_string().contains("was removed since"), "{refused}");
        assert_eq!(read(dir.path()).unwrap(), Holder::WithoutFile, "the new file is nobody's");
        drop(lock);
        std::fs::write(dir.path().join(LOCK_FILE), b"\xff\xfe").unwrap();
        assert_eq!(read(dir.path()).unwrap(), Holder::Nobody);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_look_at_the_lock_does_not_keep_a_relay_from_starting() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lock::take(dir.path()).unwrap());
        let looked = File::open(dir.path().join(LOCK_FILE)).unwrap();
        rustix::fs::flock(&looked, FlockOperation::NonBlockingLockShared).unwrap();
        std::thread::scope(|s| {
            let taken = s.spawn(|| Lock::take(dir.path()).map(drop));
            std::thread::sleep(TAKE_PAUSE * 2);
            drop(looked);
            taken.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_shorter_text_leaves_nothing_of_a_longer_one() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        lock.write("[2001:db8:0:0:0:0:0:1]:65535".parse().unwrap(), &[]).unwrap();
        put(&lock.file, "pid 1\n").unwrap();
        assert_eq!(parse(&read_text(&lock.file).unwrap_or_default()), parse("pid 1\n"));
        assert_eq!(parse("pid 1\np 127.0.0.1:80\n").http_address, None, "the tail in between");
    }

    #[test]
    fn the_token_is_made_once_and_is_nobody_else_s() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_admin_token(dir.path()).unwrap(), None);
        let token = admin_token(dir.path()).unwrap();
        assert_eq!(token.expose().len(), 43);
        assert_eq!(admin_token(dir.path()).unwrap(), token);
        let path = dir.path().join(TOKEN_FILE);
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_admin_token(dir.path()).unwrap(), Some(token));
        assert_eq!(mode(&path), 0o600);
        for bad in ["\n", "x\n"] {
            std::fs::write(&path, bad).unwrap();
            assert!(admin_token(dir.path()).is_err());
        }
    }
}
