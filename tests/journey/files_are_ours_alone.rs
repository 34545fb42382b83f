//! Whatever the umask it is started with, nobody else can read what the relay writes: the queue holds mail, the token
//! opens everything.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::mailgen::plain;
use crate::support::relay::binary;
use crate::support::{Relay, Upstream};

/// Under it every file is open to all that does not close itself.
const UNMASKED: [&str; 3] = ["sh", "-c", "umask 000; exec \"$0\" \"$@\""];

/// Everything below, with its mode.
fn modes(folder: &Path, out: &mut Vec<(PathBuf, u32)>) {
    let mode = |path: &Path| std::fs::symlink_metadata(path).map(|m| m.permissions().mode() & 0o777);
    // A file that SQLite has just taken away is nobody's.
    out.extend(mode(folder).ok().map(|mode| (folder.to_owned(), mode)));
    if folder.is_dir() {
        for entry in std::fs::read_dir(folder).unwrap() {
            modes(&entry.unwrap().path(), out);
        }
    }
}

#[track_caller]
fn closed(relay: &Relay, when: &str) -> Vec<String> {
    let mut found = Vec::new();
    modes(&relay.data_dir(), &mut found);
    for (path, mode) in &found {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode & 0o777, wanted, "{when}: {} is {mode:o}", path.display());
    }
    found.iter().filter_map(|(path, _)| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
}

/// A command, under the same umask.
fn cli(relay: &Relay, arguments: &[&str]) {
    let [shell, flag, script] = UNMASKED;
    let output = Command::new(shell)
        .args([flag, script])
        .arg(binary())
        .args(arguments)
        .env("POSTROAD_CONFIG", relay.folder().join("postroad.toml"))
        .current_dir(relay.folder())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn what_the_relay_writes_is_closed_to_others_under_any_umask() {
    let upstream = Upstream::start();
    let mut relay = Relay::setup().upstream(&upstream, "").https().under(&UNMASKED).start();
    let found = closed(&relay, "started");
    for name in ["postroad.db", "postroad.db-wal", "postroad.lock", "admin.token", "secret"] {
        assert!(found.iter().any(|file| file == name), "{name} is not there: {found:?}");
    }
    // One that is whole in memory, and one that is not.
    let mut large = plain("large");
    large.extend(b"0123456789 0123456789 0123456789 0123456789 0123456789 0123456789\r\n".repeat(40_000));
    for raw in [plain("small"), large] {
        relay.submit("a@example.org", &["ok@example.com"], &raw);
    }
    upstream.wait_for(2);
    cli(&relay, &["token", "create", "--scope", "read"]);
    closed(&relay, "with mail");
    cli(&relay, &["backup", "copy.db"]);
    let copy = std::fs::metadata(relay.folder().join("copy.db")).unwrap();
    assert_eq!(copy.permissions().mode() & 0o777, 0o600, "a backup");
    relay.kill();
    closed(&relay, "after kill -9");
    cli(&relay, &["queue", "list"]);
    closed(&relay, "after a command on the database itself");
    relay.restart();
    closed(&relay, "started again");
    relay.stop();
    closed(&relay, "stopped");
}
