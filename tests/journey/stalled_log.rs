//! A log that nobody reads drops lines and counts them; it never stops mail. Whoever reads it again is told.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::mailgen::plain;
use crate::support::relay::{address_in, binary, free_port};
use crate::support::wait::holds_within;
use crate::support::{Client, Upstream, http, long_runs, wait_until};

/// More lines than the pipe and the relay's own buffer hold.
const MESSAGES: usize = 4_000;
/// How long nobody reads, with POSTROAD_LONG=1; else until lines are lost.
const STALL: Duration = Duration::from_secs(60);

/// Lines that were dropped so far, by the metric.
fn dropped(side: SocketAddr) -> Option<u64> {
    let metrics = http::get(side, "/metrics", None)?.body;
    let line = metrics.lines().find(|l| l.starts_with("postroad_log_lines_dropped_total"))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Reads the log to its end and sends on how many lines each report of a loss tells.
fn reports(stderr: ChildStderr, out: &mpsc::Sender<u64>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        if line["message"].as_str().is_some_and(|said| said.contains("log lines were dropped")) {
            let _ = out.send(line["lines"].as_u64().unwrap());
        }
    }
}

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
    let lost = || side().and_then(dropped).unwrap_or(0);
    wait_until("the loss is counted", Duration::from_secs(10), || lost() > 0);
    let mut client = Client::hello(([127, 0, 0, 1], port).into());
    let mut sent = MESSAGES;
    let mut one_more = || {
        client.submit("a@example.org", &["ok@example.com"], &plain("still stalled"));
        client.transcript.clear();
        sent += 1;
        upstream.wait_for_within(sent, Duration::from_secs(10));
    };
    one_more();
    if long_runs() {
        assert!(!holds_within(STALL, || {
            one_more();
            false
        }));
    }
    println!("stalled log: {} lines dropped", lost());

    // Somebody reads again.
    let stderr = relay.stderr.take().unwrap();
    let (told, reported) = mpsc::channel();
    let reader = std::thread::spawn(move || reports(stderr, &told));
    let mut sum = 0;
    wait_until("the log tells of each line that was lost", Duration::from_secs(30), || {
        sum += reported.try_iter().sum::<u64>();
        sum > 0 && sum == lost()
    });
    one_more();
    relay.kill().unwrap();
    relay.wait().unwrap();
    reader.join().unwrap();
}
