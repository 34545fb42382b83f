//! `250` after the dot comes after a sync: seen from outside, by the system calls.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::mailgen::plain;
use crate::support::{Fault, Point, Relay, Upstream, skip};

/// Messages that are looked at.
const MESSAGES: usize = 20;

#[test]
fn each_250_has_a_sync_between_it_and_the_one_before() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("the sync before each 250", "strace is not installed");
    }
    let trace_folder = tempfile::tempdir().unwrap();
    let trace = trace_folder.path().join("trace");
    let upstream = Upstream::start();
    // Nothing is settled meanwhile, so that every sync is one of an accept.
    upstream.fail_always(Point::Banner, Fault::Hang);
    let calls = "trace=fsync,fdatasync,write,writev,sendto,sendmsg,sync_file_range";
    let out = trace.to_string_lossy().into_owned();
    let mut relay = Relay::setup()
        .upstream(&upstream, "timeout = \"5m\"")
        .under(&["strace", "-D", "-f", "-qq", "-s", "40", "-e", calls, "-o", &out])
        .start();
    let mut client = relay.client();
    for n in 0..MESSAGES {
        client.submit("a@example.org", &["ok@example.com"], &plain(&format!("s{n}")));
    }
    relay.kill();
    assert_synced(&trace);
}

fn assert_synced(trace: &Path) {
    let mut text = String::new();
    // strace writes on after its process is gone.
    crate::support::wait_until("the whole trace", Duration::from_secs(20), || {
        text = std::fs::read_to_string(trace).unwrap_or_default();
        text.matches("queued as").count() >= MESSAGES
    });
    let mut syncs = 0;
    let mut acknowledged = 0;
    for line in text.lines() {
        let ended_well = line.trim_end().ends_with("= 0");
        if (line.contains("fsync") || line.contains("fdatasync")) && ended_well {
            syncs += 1;
        }
        if line.contains("queued as") {
            acknowledged += 1;
            assert!(syncs > 0, "the {acknowledged}. 250 had no sync before it:\n{line}");
            syncs = 0;
        }
    }
    assert_eq!(acknowledged, MESSAGES);
}
