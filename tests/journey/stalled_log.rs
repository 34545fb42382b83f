//! A log that nobody reads drops lines and counts them; it never stops mail.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::mailgen::plain;
use crate::support::relay::{address_in, binary, free_port};
use crate::support::{Client, Upstream, http, wait_until};

/// More lines than the pipe and the relay's own buffer hold.
const MESSAGES: usize = 4_000;

#[test]
fn a_log_that_nobody_reads_does_not_stop_mail() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = format!(
        "[server]\nhostname = \"relay.test\"\ndata_dir = \"{0}/data\"\n[http]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nmin_free = \"1MB\"\n[[listener]]\naddress = \"127.0.0.1:{port}\"\n\
         [[esp]]\nname = \"up\"\ntype = \"smtp\"\naddress = \"{1}\"\ntls = \"off\"\n",
        folder.path().display(),
        upstream.address()
    );
    fs::write(folder.path().join("postroad.toml"), config).unwrap();
    // The other end of this pipe stays open and is never read.
    let mut relay = Command::new(binary())
        .args(["serve", "--config"])
        .arg(folder.path().join("postroad.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let side = || address_in(&fs::read_to_string(folder.path().join("data/postroad.lock")).ok()?);
    wait_until("it is ready", Duration::from_secs(60), || {
        side().and_then(|at| http::get(at, "/readyz", None)).is_some_and(|a| a.status == 200)
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::hello(([127, 0, 0, 1], port).into());
                for _ in 0..MESSAGES / 4 {
                    client.submit("a@example.org", &["ok@example.com"], &plain("stalled"));
                    client.transcript.clear();
                }
            });
        }
    });
    upstream.wait_for_within(MESSAGES, Duration::from_secs(60));
    let metrics = side().and_then(|at| http::get(at, "/metrics", None)).map(|a| a.body).unwrap_or_default();
    let dropped = metrics.lines().find(|l| l.starts_with("postroad_log_lines_dropped_total"));
    println!("stalled log: {dropped:?}");
    let _ = relay.kill();
    let _ = relay.wait();
    assert!(dropped.is_some_and(|l| !l.ends_with(" 0")), "the loss is not counted:\n{metrics}");
}
