//! The disk refuses writes while the relay runs: it answers, says so, loses nothing, and goes on when it can.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::mailgen::{attached, plain};
use crate::support::{Relay, Upstream, skip, wait_until};

const BOUND: Duration = Duration::from_secs(20);

/// A file system in a file. Its octets are taken from a tmpfs only when they are written.
struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    fn mount(options: &[&str], below_megabytes: u32) -> Option<Image> {
        let image = Image { folder: tempfile::tempdir().unwrap() };
        let (below, at) = (image.folder.path().join("below"), image.folder.path().join("at"));
        for folder in [&below, &at] {
            std::fs::create_dir(folder).unwrap();
        }
        let size = format!("size={below_megabytes}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "postroad-test"]).arg(&below))?;
        let file = below.join("image");
        std::fs::File::create(&file).unwrap().set_len(64 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).args(options).arg(&file))?;
        run(Command::new("mount").args(["-o", "loop,errors=continue"]).arg(&file).arg(&at))?;
        Some(image)
    }

    fn at(&self) -> PathBuf {
        self.folder.path().join("at")
    }

    /// What the kernel does to a file system with an error: nothing more is written.
    fn turn_read_only(&self) {
        let done = run(Command::new("mount").args(["-o", "remount,abort"]).arg(self.at()));
        done.expect("a file system can be turned read-only");
    }

    /// Unmounts it and mounts it again, as an operator does after the repair. Nobody may use it.
    fn mount_again(&self) {
        run(Command::new("umount").arg(self.at())).expect("nobody uses it");
        let file = self.folder.path().join("below/image");
        run(Command::new("mount").args(["-o", "loop,errors=continue"]).arg(file).arg(self.at()))
            .expect("it can be mounted again");
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        for folder in ["at", "below"] {
            let _ = Command::new("umount").arg("-l").arg(self.folder.path().join(folder)).output();
        }
    }
}

/// `None`: it is not to be had, or may not be done here.
fn run(command: &mut Command) -> Option<()> {
    command.output().is_ok_and(|o| o.status.success()).then_some(())
}

fn refusal(relay: &Relay) -> Option<String> {
    relay.client().try_submit("a@example.org", &["ok@example.com"], &plain("refused"), BOUND).err()
}

#[test]
fn on_a_file_system_that_turned_read_only_mail_is_told_452_and_what_was_taken_stays() {
    let Some(image) = Image::mount(&[], 80) else {
        return skip("a read-only file system", "no image can be mounted here (not root?)");
    };
    let mut upstream = Upstream::start();
    let setup = Relay::setup().upstream(&upstream, "").tables(FAST).limits("min_free = \"1MB\"");
    let mut relay = setup.data_dir(&image.at().join("data")).start();
    upstream.shut();
    relay.submit("a@example.org", &["ok@example.com"], &plain("before"));
    image.turn_read_only();
    for _ in 0..3 {
        let refused = refusal(&relay).expect("nothing can be stored");
        assert!(refused.starts_with("452 4.3.1"), "{refused}");
    }
    wait_until("it is not ready", BOUND, || !relay.is_ready());
    wait_until("it is told loudly", BOUND, || {
        let is_loud = |l: &str| l.contains("\"level\":\"error\"") && l.contains("can only be read");
        relay.log().lines().any(is_loud)
    });
    // A next hop that is back moves nothing that could not be noted.
    upstream.reopen();
    relay.cli(&["queue", "list"]).must(0);
    assert!(relay.ended_within(Duration::ZERO).is_none(), "it runs on");
    relay.kill();
    image.mount_again();
    relay.restart();
    upstream.wait_for_within(1, BOUND);
    assert_eq!(upstream.received()[0].header("Subject").as_deref(), Some("before"));
}

#[test]
fn a_disk_whose_syncs_fail_for_a_while_loses_nothing_and_needs_no_restart() {
    let Some(image) = Image::mount(&["-O", "^has_journal"], 24) else {
        return skip("a disk whose syncs fail", "no image can be mounted here (not root?)");
    };
    let mut upstream = Upstream::start();
    let setup = Relay::setup().upstream(&upstream, "").tables(FAST).limits("min_free = \"1MB\"");
    let relay = setup.data_dir(&image.at().join("data")).start();
    upstream.shut();
    let filler = image.folder.path().join("below/filler");
    let mut acknowledged = vec!["before".to_owned()];
    relay.submit("a@example.org", &["ok@example.com"], &plain("before"));
    // The image finds no octets below it any more: a sync tells of it, not a write.
    let mut octets = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut octets, &[1; 64 * 1024]).is_ok() {}
    drop(octets);
    let mut refused = 0;
    for n in 0..60 {
        let subject = format!("s{n}");
        let mail = attached(&subject, 100_000);
        match relay.client().try_submit("a@example.org", &["ok@example.com"], &mail, BOUND) {
            Ok(_) => acknowledged.push(subject),
            Err(said) => {
                assert!(said.starts_with("45"), "{said}");
                refused += 1;
            }
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3, "{} were acknowledged on a disk without room", acknowledged.len());
    assert!(relay.log().lines().any(|l| l.contains("\"level\":\"error\"")), "it is told loudly");
    std::fs::remove_file(&filler).unwrap();
    wait_until("mail is taken again", BOUND, || refusal(&relay).is_none());
    wait_until("it is ready again", BOUND, || relay.is_ready());
    upstream.reopen();
    relay.cli(&["queue", "flush"]).must(0);
    wait_until("all that was acknowledged", Duration::from_secs(60), || {
        let received = upstream.received();
        let has = |s: &String| received.iter().any(|r| r.header("Subject").as_deref() == Some(s));
        acknowledged.iter().all(has)
    });
}
