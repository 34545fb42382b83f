//! A backup under load, its restore, and what never happens to an older file or on a full disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use postroad::clock::monotonic;

use super::disk_full::SmallDisk;
use crate::support::mailgen::{attached, plain};
use crate::support::wait::holds_within;
use crate::support::{Client, Relay, Upstream, skip, wait_until};

const BOUND: Duration = Duration::from_secs(30);

fn copy_of(relay: &Relay) -> PathBuf {
    relay.folder().join("copy.db")
}

#[track_caller]
pub(super) fn back_up(relay: &Relay) -> PathBuf {
    let copy = copy_of(relay);
    let told = relay.cli(&["backup", "copy.db"]).must(0).out;
    assert!(told.contains("copy.db: "), "{told}");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    copy
}

/// Puts a copy into the place of the database of a relay that does not run.
pub(super) fn restore(relay: &Relay, copy: &Path) {
    let database = relay.data_dir().join("postroad.db");
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{beside}", database.display()));
    }
    fs::copy(copy, &database).unwrap();
}

fn life(relay: &Relay, id: &str) -> serde_json::Value {
    relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default()
}

/// Moments of a message's events of that kind.
fn events(relay: &Relay, id: &str, kind: &str) -> Vec<String> {
    let life = life(relay, id);
    let events = life["events"].as_array().cloned().unwrap_or_default();
    let of_kind = events.iter().filter(|e| e["kind"] == kind);
    of_kind.filter_map(|e| e["at"].as_str().map(str::to_owned)).collect()
}

fn alerts(relay: &Relay) -> usize {
    let lines = relay.log();
    lines.lines().filter(|l| l.contains("\"alert\"") && l.contains("\"restored\"")).count()
}

/// Clients that submit without a pause; gives how many messages were taken and the longest wait for one.
fn submit_until(relay: &Relay, stop: &AtomicBool, clients: usize) -> (usize, Duration) {
    let taken = AtomicUsize::new(0);
    let at = relay.smtp();
    let longest = std::thread::scope(|s| {
        let client = || {
            let mut client = Client::hello(at);
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::SeqCst) {
                let began = monotonic();
                client.submit("a@example.org", &["ok@example.com"], &plain("load"));
                longest = longest.max(began.elapsed());
                taken.fetch_add(1, Ordering::SeqCst);
            }
            longest
        };
        let clients: Vec<_> = (0..clients).map(|_| s.spawn(client)).collect();
        clients.into_iter().filter_map(|c| c.join().ok()).max().unwrap_or_default()
    });
    (taken.into_inner(), longest)
}

#[test]
fn a_backup_under_load_ends_and_its_restore_starts_paused_and_tells_before_anything_goes() {
    let mut upstream = Upstream::start();
    upstream.shut();
    let mut relay = Relay::to(&upstream);
    // Something to copy, in the queue all the time.
    let kept: Vec<String> = (0..40)
        .map(|n| relay.submit("a@example.org", &["ok@example.com"], &attached(&format!("kept {n}"), 200_000)))
        .collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let load = s.spawn(|| (monotonic(), submit_until(&relay, &stop, 8), monotonic()));
        assert!(!holds_within(Duration::from_millis(500), || false));
        back_up(&relay);
        stop.store(true, Ordering::SeqCst);
        let (began, (taken, longest), ended) = load.join().unwrap();
        let rate = taken as f64 / ended.duration_since(began).as_secs_f64();
        println!("{taken} messages beside the backup, {rate:.0} a second, the longest wait {longest:?}");
        assert!(taken > 100, "{taken} messages beside the backup");
        assert!(longest < Duration::from_secs(2), "a message waited for {longest:?}");
    });
    // What is sent from here on is not known in the copy.
    upstream.reopen();
    relay.cli(&["queue", "flush"]).must(0);
    upstream.wait_for_within(kept.len(), BOUND);
    relay.stop();
    let sent = upstream.count();

    restore(&relay, &copy_of(&relay));
    relay.restart();
    assert_eq!(alerts(&relay), 1, "said once, loudly");
    let ready = relay.get("/readyz").unwrap();
    assert_eq!(ready.status, 200, "mail is taken");
    let reason = ready.json()["paused"]["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("was restored") && reason.contains("postroad unpause"), "{reason}");
    assert_eq!(relay.metric("postroad_sending_paused"), 1.0);
    let list = relay.cli(&["queue", "list", "--limit", "1"]).must(0).out;
    assert!(list.contains(&reason), "{list}");
    let esps = relay.cli(&["esp", "list"]).must(0).out;
    assert!(esps.contains("paused"), "{esps}");
    let new = relay.submit("a@example.org", &["ok@example.com"], &plain("after the restore"));
    relay.cli(&["queue", "flush"]).must(0);
    assert!(!holds_within(Duration::from_millis(700), || upstream.count() > sent), "it is paused");

    relay.cli(&["unpause"]).must(0);
    for id in &kept {
        let told = events(&relay, id, "may_have_been_sent");
        assert_eq!(told.len(), 1, "{:?}", life(&relay, id));
        let begun = || life(&relay, id)["attempts"].as_array().and_then(|a| a.last().cloned());
        wait_until("it goes", BOUND, || begun().is_some_and(|a| a["begun_at"].as_str() >= Some(&told[0])));
    }
    wait_until("the new one goes", BOUND, || life(&relay, &new)["deliveries"][0]["state"] == "done");
    assert_eq!(events(&relay, &new, "may_have_been_sent"), Vec::<String>::new());
    relay.stop();
    relay.restart();
    assert_eq!(alerts(&relay), 1, "it was told, and is over");
    assert_eq!(relay.get("/readyz").unwrap().json().get("paused"), None);
}

#[test]
fn a_backup_of_a_stopped_relay_is_the_same_and_nothing_is_overwritten() {
    let upstream = Upstream::start();
    let mut relay = Relay::to(&upstream);
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("one"));
    upstream.wait_for_within(1, BOUND);
    let running = back_up(&relay);
    let octets = fs::read(&running).unwrap();
    let again = relay.cli(&["backup", "copy.db"]).must(1);
    assert!(again.err.contains("is there already"), "{again:?}");
    assert_eq!(fs::read(&running).unwrap(), octets, "it is as it was");
    relay.stop();
    relay.cli(&["backup", "copy.db"]).must(1);
    let told = relay.cli(&["backup", "stopped.db", "--json"]).must(0).json();
    assert_eq!(told[0]["octets"], fs::metadata(relay.folder().join("stopped.db")).unwrap().len());
    relay.restart();
    assert_eq!(relay.get("/readyz").unwrap().json().get("paused"), None, "the relay itself bears no mark");
    relay.stop();

    // The command on a folder of its own: another relay's data directory.
    restore(&relay, &relay.folder().join("stopped.db"));
    relay.restart();
    assert_eq!(alerts(&relay), 1);
    assert_eq!(life(&relay, &id)["deliveries"][0]["state"], "done");
}

#[test]
fn an_older_copy_of_the_file_is_seen_as_well() {
    let upstream = Upstream::start();
    let mut relay = Relay::to(&upstream);
    relay.stop();
    fs::copy(relay.data_dir().join("postroad.db"), copy_of(&relay)).unwrap();
    relay.restart();
    relay.stop();
    restore(&relay, &copy_of(&relay));
    relay.restart();
    let paused = relay.get("/readyz").unwrap().json()["paused"]["reason"].to_string();
    assert!(paused.contains("an older database was restored"), "{paused}");
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left_there() {
    let Some(disk) = SmallDisk::mount(4) else {
        return skip("a backup to a full disk", "no tmpfs can be mounted here (not root?)");
    };
    let mut upstream = Upstream::start();
    upstream.shut();
    let relay = Relay::to(&upstream);
    for n in 0..20 {
        relay.submit("a@example.org", &["ok@example.com"], &attached(&format!("{n}"), 200_000));
    }
    let target = disk.folder().join("copy.db");
    let told = relay.cli(&["backup", target.to_str().unwrap()]).must(1);
    assert!(told.err.contains("octets are free there, the copy needs"), "{told:?}");
    assert_eq!(fs::read_dir(disk.folder()).unwrap().count(), 0);
    let answer = relay.post("/v1/backup", &format!("{{\"file\":\"{}\"}}", target.display())).unwrap();
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (507, Some("no_room")));
}

#[test]
fn after_a_restore_limits_count_as_spent_until_the_esp_is_resumed() {
    let upstream = Upstream::start();
    let mut relay = Relay::setup().upstream(&upstream, "daily_limit = 100").start();
    relay.submit("a@example.org", &["ok@example.com"], &plain("before"));
    upstream.wait_for_within(1, BOUND);
    let copy = back_up(&relay);
    relay.stop();
    restore(&relay, &copy);
    relay.restart();
    relay.submit("a@example.org", &["ok@example.com"], &plain("after"));
    relay.cli(&["unpause"]).must(0);
    wait_until("it is told", BOUND, || {
        relay
            .cli(&["esp", "list", "--json"])
            .must(0)
            .out
            .contains("counts as spent since a backup was restored")
    });
    assert_eq!(upstream.count(), 1);
    relay.cli(&["esp", "resume", "up1"]).must(0);
    upstream.wait_for_within(2, BOUND);
}
