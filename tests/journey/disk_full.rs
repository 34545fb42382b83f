//! The disk fills: 452, nothing lost; room comes back: mail is taken again, without a restart.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::mailgen::{attached, plain};
use crate::support::wait::holds_within;
use crate::support::{Fault, Point, Relay, Upstream, skip, wait_until};

/// A small file system of its own, unmounted at the end.
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    pub fn mount(megabytes: u32) -> Option<SmallDisk> {
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "postroad-test"])
            .arg(folder.path())
            .status();
        status.is_ok_and(|s| s.success()).then_some(SmallDisk { folder })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.folder.path()).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Writes until nothing more goes, but `leave` octets.
    fn fill(&self, leave: usize) -> PathBuf {
        let path = self.folder.path().join("filler");
        let mut written = 0;
        let chunk = vec![0u8; 64 * 1024];
        let mut file = std::fs::File::create(&path).unwrap();
        while let Ok(n @ 1..) = std::io::Write::write(&mut file, &chunk) {
            written += n;
        }
        file.set_len(written.saturating_sub(leave) as u64).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

#[test]
fn at_min_free_mail_is_told_452_and_taken_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(32) else {
        return skip("a full disk", "no tmpfs can be mounted here (not root?)");
    };
    let mut upstream = Upstream::start();
    let relay = Relay::setup()
        .upstream(&upstream, "")
        .tables(FAST)
        .limits("min_free = \"4MB\"")
        .data_dir(&disk.data())
        .start();
    upstream.shut();
    relay.submit("a@example.org", &["ok@example.com"], &plain("before"));
    let filler = disk.fill(3_000_000);
    // The disk is asked once a second: what comes in between must not use the reserve up.
    wait_until("it is seen", Duration::from_secs(20), || !relay.is_ready());
    let said = relay.client().try_submit(
        "a@example.org",
        &["ok@example.com"],
        &plain("full"),
        Duration::from_secs(20),
    );
    let refused = said.err().unwrap_or_default();
    assert!(refused.starts_with("452 4.3.1"), "{refused}");
    let dir = disk.data().display().to_string();
    assert!(!refused.contains(&dir), "a client need not know where: {refused}");
    wait_until("it is told loudly, and where", Duration::from_secs(5), || {
        relay.log().lines().any(|l| l.contains("\"level\":\"error\"") && l.contains(&dir))
    });
    // Not ready while it takes nothing, and what it has still leaves.
    upstream.reopen();
    relay.cli(&["queue", "flush"]).must(0);
    upstream.wait_for_within(1, Duration::from_secs(20));

    std::fs::remove_file(filler).unwrap();
    wait_until("room again", Duration::from_secs(30), || {
        relay
            .client()
            .try_submit("a@example.org", &["ok@example.com"], &plain("after"), Duration::from_secs(20))
            .is_ok()
    });
    wait_until("the one after", Duration::from_secs(20), || {
        upstream.received().iter().any(|r| r.header("Subject").as_deref() == Some("after"))
    });
}

/// Submits large mail until it is told 452 three times, `free` octets of the disk left alone all the time.
fn submit_until_refused(relay: &Relay, disk: &SmallDisk, free: u64) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for n in 0..200 {
        let subject = format!("f{n}");
        let mail = attached(&subject, 500_000);
        match relay.client().try_submit("a@example.org", &["ok@example.com"], &mail, Duration::from_secs(20))
        {
            Ok(_) => acknowledged.push(subject),
            Err(said) => {
                assert!(said.starts_with("452 4.3.1"), "{said}");
                refused += 1;
            }
        }
        assert!(disk.free() >= free, "{} octets free after {n} messages", disk.free());
        if refused == 3 {
            return acknowledged;
        }
    }
    panic!("it never filled");
}

#[track_caller]
fn wait_for_all(upstream: &Upstream, acknowledged: &[String]) {
    wait_until("all that was acknowledged", Duration::from_secs(60), || {
        let subjects: HashSet<String> =
            upstream.received().iter().filter_map(|r| r.header("Subject")).collect();
        acknowledged.iter().all(|s| subjects.contains(s))
    });
}

/// Not `restart`: it is not ready while it refuses mail.
fn restart_full(relay: &mut Relay) {
    relay.kill();
    relay.spawn();
    wait_until("it runs again", Duration::from_secs(60), || relay.get("/readyz").is_some());
}

#[test]
fn a_start_finds_room_for_its_lock_file_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount(24) else {
        return skip("a lock file on a full disk", "no tmpfs can be mounted here (not root?)");
    };
    let upstream = Upstream::start();
    let setup = Relay::setup().upstream(&upstream, "").tables(FAST).limits("min_free = \"4MB\"");
    let mut relay = setup.data_dir(&disk.data()).start();
    let id = relay.submit("a@example.org", &["ok@example.com"], &plain("before"));
    upstream.wait_for_within(1, Duration::from_secs(20));
    relay.kill();
    let lock = disk.data().join("postroad.lock");
    std::fs::remove_file(&lock).unwrap();
    let filler = disk.fill(0);
    relay.spawn();
    wait_until("it runs", Duration::from_secs(60), || relay.get("/readyz").is_some());
    std::fs::remove_file(filler).unwrap();
    wait_until("it is ready", Duration::from_secs(30), || relay.is_ready());

    relay.kill();
    std::fs::remove_file(&lock).unwrap();
    let _filler = disk.fill(0);
    relay.cli(&["queue", "show", &id]).must(0);
}

/// A kept message can be looked at and removed.
fn commands_work(relay: &Relay, id: &str) {
    for arguments in [&["queue", "list"][..], &["queue", "show", id], &["explain", id], &["queue", "rm", id]]
    {
        relay.cli(arguments).must(0);
    }
}

#[test]
fn a_queue_that_fills_its_disk_leaves_when_the_next_hop_is_back() {
    let Some(disk) = SmallDisk::mount(20) else {
        return skip("a queue that fills its disk", "no tmpfs can be mounted here (not root?)");
    };
    let mut upstream = Upstream::start();
    let setup = Relay::setup().upstream(&upstream, "").tables(FAST).limits("min_free = \"1MB\"");
    let mut relay = setup.data_dir(&disk.data()).start();
    upstream.shut();
    let removed = relay.submit("a@example.org", &["ok@example.com"], &plain("removed"));
    let acknowledged = submit_until_refused(&relay, &disk, 1_000_000);
    assert!(acknowledged.len() > 20, "only {} were taken", acknowledged.len());
    commands_work(&relay, &removed);
    restart_full(&mut relay);
    upstream.reopen();
    relay.cli(&["queue", "flush"]).must(0);
    wait_for_all(&upstream, &acknowledged);
}

#[test]
fn on_a_disk_that_others_filled_mail_still_leaves_and_a_start_still_works() {
    let Some(disk) = SmallDisk::mount(32) else {
        return skip("a disk that others filled", "no tmpfs can be mounted here (not root?)");
    };
    let mut upstream = Upstream::start();
    let setup = Relay::setup().upstream(&upstream, "").tables(FAST).limits("min_free = \"4MB\"");
    let mut relay = setup.data_dir(&disk.data()).start();
    upstream.shut();
    let mut acknowledged = Vec::new();
    for n in 0..10 {
        let subject = format!("o{n}");
        relay.submit("a@example.org", &["ok@example.com"], &attached(&subject, 100_000));
        acknowledged.push(subject);
    }
    let removed = relay.submit("a@example.org", &["ok@example.com"], &plain("removed"));
    let filler = disk.fill(0);
    wait_until("452", Duration::from_secs(20), || {
        let bound = Duration::from_secs(20);
        let said = relay.client().try_submit("a@example.org", &["ok@example.com"], &plain("full"), bound);
        said.is_err_and(|said| said.starts_with("452 4.3.1"))
    });
    commands_work(&relay, &removed);
    restart_full(&mut relay);
    upstream.reopen();
    relay.cli(&["queue", "flush"]).must(0);
    wait_for_all(&upstream, &acknowledged);
    std::fs::remove_file(filler).unwrap();
    wait_until("mail is taken again", Duration::from_secs(30), || {
        relay
            .client()
            .try_submit("a@example.org", &["ok@example.com"], &plain("after"), Duration::from_secs(20))
            .is_ok()
    });
}

#[test]
fn a_disk_without_one_octet_left_loses_nothing() {
    let Some(disk) = SmallDisk::mount(24) else {
        return skip("a disk without one octet left", "no tmpfs can be mounted here (not root?)");
    };
    let upstream = Upstream::start();
    let setup = Relay::setup()
        .upstream(&upstream, "")
        .tables(FAST)
        .limits("min_free = \"0MB\"")
        .data_dir(&disk.data());
    fills_and_recovers(setup.start(), upstream, || {
        let filler = disk.fill(300_000);
        Box::new(move || std::fs::remove_file(&filler).unwrap())
    });
}

/// Submits past the end of the room that `fill` leaves, makes room again, and sees that all acknowledged arrive.
fn fills_and_recovers(mut relay: Relay, upstream: Upstream, fill: impl Fn() -> Box<dyn FnOnce()>) {
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    let mut make_room = Some(fill());
    for n in 0..400 {
        let subject = format!("e{n}");
        let Ok(mut client) = crate::support::Client::try_connect(relay.smtp(), None) else { break };
        if client.reply_within(Duration::from_secs(20)).is_err() {
            continue;
        }
        let _ = client.say("EHLO c").reply_within(Duration::from_secs(20));
        match client.try_submit(
            "a@example.org",
            &["ok@example.com"],
            &attached(&subject, 20_000),
            Duration::from_secs(20),
        ) {
            Ok(_) => acknowledged.push(subject),
            Err(said) => {
                assert!(said.starts_with("452"), "{said}");
                refused += 1;
            }
        }
        if refused >= 10
            && let Some(make_room) = make_room.take()
        {
            make_room();
            wait_until("mail is taken again", Duration::from_secs(20), || {
                let bound = Duration::from_secs(20);
                relay.client().try_submit("a@example.org", &["ok@example.com"], &plain("room"), bound).is_ok()
            });
        }
        if refused >= 10 && acknowledged.len() > 20 {
            break;
        }
    }
    if let Some(make_room) = make_room.take() {
        make_room();
    }
    assert!(refused > 0, "it never filled: {} accepted", acknowledged.len());
    assert!(relay.ended_within(Duration::ZERO).is_none(), "it ended");
    let all_there = holds_within(Duration::from_secs(60), || {
        let received = upstream.received();
        acknowledged.iter().all(|s| received.iter().any(|r| r.header("Subject").as_deref() == Some(s)))
    });
    assert!(all_there, "{} acknowledged, {} arrived", acknowledged.len(), upstream.count());
    assert!(acknowledged.len() > 3, "{} acknowledged, {refused} refused", acknowledged.len());
    let went_on = relay.client().try_submit(
        "a@example.org",
        &["ok@example.com"],
        &plain("end"),
        Duration::from_secs(20),
    );
    assert!(went_on.is_ok(), "{went_on:?}");
}

#[test]
fn a_file_that_may_not_grow_loses_nothing() {
    // A limit of the process on the size of its files: without root, and it never grows again.
    let limit = ["sh", "-c", "ulimit -f 6000; exec \"$@\"", "sh"];
    let upstream = Upstream::start();
    let mut relay = Relay::setup().upstream(&upstream, "").tables(FAST).under(&limit).start();
    let mut acknowledged = Vec::new();
    let mut refused = Vec::new();
    for n in 0..200 {
        let subject = format!("g{n}");
        let bound = Duration::from_secs(20);
        let mail = attached(&subject, 200_000);
        match relay.client().try_submit("a@example.org", &["ok@example.com"], &mail, bound) {
            Ok(_) => acknowledged.push(subject),
            Err(said) => refused.push(said),
        }
        if refused.len() >= 3 {
            break;
        }
    }
    if refused.is_empty() {
        return skip("a file that may not grow", "its free pages were enough for all of it");
    }
    assert!(refused.iter().all(|r| r.starts_with("452 4.3.1")), "{refused:?}");
    assert!(relay.log().contains("LimitFSIZE"), "the log says what to raise");
    assert!(relay.ended_within(Duration::ZERO).is_none(), "it ended");
    relay.kill();
    let config = relay.folder().join("postroad.toml");
    assert!(Path::new(&config).exists());
    relay.unlimited();
    relay.restart();
    let all_there = holds_within(Duration::from_secs(60), || {
        let received = upstream.received();
        acknowledged.iter().all(|s| received.iter().any(|r| r.header("Subject").as_deref() == Some(s)))
    });
    assert!(all_there, "{} acknowledged, {} arrived", acknowledged.len(), upstream.count());
}

#[test]
fn content_of_what_is_done_goes_before_its_time_and_of_nothing_else() {
    let Some(disk) = SmallDisk::mount(60) else {
        return skip("room from kept content", "no tmpfs can be mounted here (not root?)");
    };
    let upstream = Upstream::start();
    let later = "[[stream]]\nname = \"transactional\"\nretry = \"1h\"\n";
    let setup = Relay::setup().upstream(&upstream, "").tables(later).limits("min_free = \"10MB\"");
    let relay = setup.data_dir(&disk.data()).start();
    upstream.fail(Point::Rcpt(1), Fault::Reply("451 4.3.0 later"), 1);
    let waits = relay.submit("a@example.org", &["ok@example.com"], &attached("waits", 500_000));
    wait_until("it is refused for now", Duration::from_secs(20), || {
        relay.cli(&["explain", &waits]).must(0).out.contains("refused")
    });
    // Three times what the disk holds, at three quarters of their octets.
    let mut ids = Vec::new();
    let mut refused = 0;
    while ids.len() < 320 {
        let mail = attached(&format!("n{}", ids.len()), 500_000);
        let bound = Duration::from_secs(20);
        match relay.client().try_submit("a@example.org", &["ok@example.com"], &mail, bound) {
            Ok(id) => {
                ids.push(id);
                // What settles besides may take a little of the reserve, never much.
                assert!(disk.free() >= 9_000_000, "{} octets free after {} messages", disk.free(), ids.len());
            }
            Err(said) => {
                assert!(said.starts_with("452 4.3.1"), "{said}");
                refused += 1;
                wait_until("room again", Duration::from_secs(15), || {
                    let small = plain("again");
                    relay.client().try_submit("a@example.org", &["ok@example.com"], &small, bound).is_ok()
                });
            }
        }
    }
    assert!(refused < 20, "{refused} refused");
    let shown = |id: &str| relay.cli(&["queue", "show", id]).must(0).out;
    assert!(shown(&ids[0]).contains("its content is gone"), "{}", shown(&ids[0]));
    assert!(relay.cli(&["explain", &ids[0]]).must(0).out.contains("its content is gone"));
    assert!(shown(&ids[319]).contains("--raw"), "the latest is kept: {}", shown(&ids[319]));
    let told = relay.log().lines().filter(|l| l.contains("went before the time")).count();
    assert!((1..=5).contains(&told), "told {told} times");

    assert!(shown(&waits).contains("--raw"));
    relay.cli(&["queue", "flush"]).must(0);
    wait_until("what waited leaves whole", Duration::from_secs(20), || {
        upstream.received().iter().any(|r| r.header("Subject").as_deref() == Some("waits"))
    });
}

#[test]
fn content_of_what_is_done_gives_its_room_back_to_a_disk_that_others_filled() {
    let Some(disk) = SmallDisk::mount(60) else {
        return skip("room given back", "no tmpfs can be mounted here (not root?)");
    };
    let upstream = Upstream::start();
    let setup = Relay::setup().upstream(&upstream, "").tables(FAST).limits("min_free = \"4MB\"");
    let relay = setup.data_dir(&disk.data()).start();
    for n in 0..50 {
        relay.submit("a@example.org", &["ok@example.com"], &attached(&format!("k{n}"), 500_000));
    }
    upstream.wait_for_within(50, Duration::from_secs(20));
    let _filler = disk.fill(0);
    wait_until("mail is refused", Duration::from_secs(20), || !relay.is_ready());
    wait_until("kept content made room", Duration::from_secs(60), || {
        let mail = attached("again", 500_000);
        let bound = Duration::from_secs(20);
        relay.client().try_submit("a@example.org", &["ok@example.com"], &mail, bound).is_ok()
    });
}
