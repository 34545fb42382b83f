//! What happens is told as it happens, to whoever listens, and a listener that comes back has missed nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use postroad::clock::monotonic;
use serde_json::{Value, json};

use super::backups::{back_up, restore};
use crate::support::esps::Sendgrid;
use crate::support::hooks::{Grid, now_secs};
use crate::support::relay::binary;
use crate::support::{Relay, wait_until};

const BOUND: Duration = Duration::from_secs(20);
/// How many may listen.
const FOLLOWERS_MAX: usize = 32;

struct Listener(BufReader<TcpStream>);

impl Listener {
    /// One that was let in; else the status.
    fn new(relay: &Relay, query: &str, last: &str) -> Result<Self, u16> {
        let at = relay.http().unwrap();
        let token = std::fs::read_to_string(relay.data_dir().join("admin.token")).unwrap();
        let mut line = TcpStream::connect(at).unwrap();
        line.set_read_timeout(Some(BOUND)).unwrap();
        write!(
            line,
            "GET /v1/events{query} HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\n\
             Last-Event-ID: {last}\r\n\r\n",
            token.trim()
        )
        .unwrap();
        let mut listener = Listener(BufReader::new(line));
        let status = listener.line().split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &listener.line();
        }
        assert_eq!(
            status == 200,
            head.to_ascii_lowercase().contains("content-type: text/event-stream"),
            "{head}"
        );
        if status == 200 { Ok(listener) } else { Err(status) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the line has ended");
        line
    }

    /// The next event with its id.
    fn next(&mut self) -> (String, Value) {
        let mut id = String::new();
        // Comments go over it as well: the line alone is no bound.
        let begun = monotonic();
        while begun.elapsed() < BOUND {
            let line = self.line();
            if let Some(told) = line.strip_prefix("id: ") {
                id = told.trim().to_owned();
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return (id, serde_json::from_str(data).unwrap());
            }
        }
        panic!("no event came");
    }

    /// What it is told of the stream itself, and the id that came with it.
    fn notice(&mut self) -> (String, String) {
        let begun = monotonic();
        let mut last = String::new();
        while begun.elapsed() < BOUND {
            let line = self.line();
            if line.trim_end() == "event: notice" {
                let (id, told) = self.next();
                let id = if id.is_empty() { last } else { id };
                return (id, told["notice"].as_str().unwrap().to_owned());
            }
            assert!(!line.starts_with("data:"), "{line} before any notice");
            if let Some(id) = line.strip_prefix("id: ") {
                last = id.trim().to_owned();
            }
        }
        panic!("no notice came");
    }

    fn next_address(&mut self) -> (String, String) {
        let (id, event) = self.next();
        let number = id.split_once('-').map_or(id.as_str(), |(number, _)| number);
        assert_eq!(number, event["number"].to_string());
        (id, event["address"].as_str().unwrap_or_default().to_owned())
    }
}

fn start(grid: &Sendgrid, hook: &Grid) -> Relay {
    let esp = format!(
        "[[esp]]\nname = \"grid\"\ntype = \"sendgrid\"\ntransport = \"api\"\napi_key = \"{}\"\nendpoint = \"{}\"\n\
         webhook_public_key = \"{}\"\n",
        grid.key(),
        grid.url(),
        hook.public_key()
    );
    Relay::setup().tables(&esp).start()
}

/// An event about that address, of nobody's mail here.
fn tell(at: SocketAddr, hook: &Grid, address: &str) {
    let event =
        json!([{ "event": "delivered", "email": address, "sg_event_id": address, "timestamp": now_secs() }]);
    assert_eq!(hook.post(at, "/webhooks/grid", &event).status, 200);
}

#[test]
fn a_listener_hears_what_happens_and_comes_back_where_it_was() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let mut relay = start(&grid, &hook);
    let at = relay.http().unwrap();
    tell(at, &hook, "before@example.net");
    let (mut all, mut alone) =
        (Listener::new(&relay, "", "").unwrap(), Listener::new(&relay, "?unmatched", "").unwrap());
    let mail = b"From: shop@example.org\r\nTo: you@example.com\r\nSubject: hi\r\n\r\nhi\r\n";
    let id = relay.submit("shop@example.org", &["you@example.com"], mail);
    let taken = grid.wait_for(1).remove(0);
    let ours = json!([{
        "event": "delivered", "email": "you@example.com", "sg_event_id": "ours", "timestamp": now_secs(),
        "postroad_attempt": taken.attempt,
    }]);
    assert_eq!(hook.post(at, "/webhooks/grid", &ours).status, 200);
    assert_eq!(all.next().1["message"], id, "what was before it came is not told");
    tell(at, &hook, "one@example.net");
    let (first, address) = alone.next_address();
    assert_eq!(address, "one@example.net", "mail of ours is not among what is unmatched");
    drop(alone);
    for address in ["two@example.net", "three@example.net"] {
        tell(at, &hook, address);
    }
    let mut again = Listener::new(&relay, "?unmatched=true", &first).unwrap();
    assert_eq!([again.next_address().1, again.next_address().1], ["two@example.net", "three@example.net"]);
    assert_eq!(Listener::new(&relay, "?limit=1", "").err(), Some(400));
    assert_eq!(Listener::new(&relay, "", "yesterday").err(), Some(400));

    relay.terminate();
    let mut rest = String::new();
    again.0.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the stream is ended, not cut: {rest:?}");
    assert!(relay.ended_within(BOUND).is_some_and(|status| status.success()));
}

#[test]
fn an_id_that_is_not_here_begins_with_all_that_is_kept_and_the_stream_says_so() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let relay = start(&grid, &hook);
    tell(relay.http().unwrap(), &hook, "kept@example.net");
    let mut listener = Listener::new(&relay, "?unmatched", "999999999").unwrap();
    let (id, told) = listener.notice();
    assert_eq!(id, "0");
    assert!(told.contains("is of another database"), "{told}");
    let (first, address) = listener.next_address();
    assert_eq!(address, "kept@example.net");
    let mut again = Listener::new(&relay, "?unmatched", &first).unwrap();
    tell(relay.http().unwrap(), &hook, "new@example.net");
    assert_eq!(again.next_address().1, "new@example.net", "an id of this database is gone on with");
}

#[test]
fn a_restored_backup_is_gone_on_with_behind_its_last_event() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let mut relay = start(&grid, &hook);
    tell(relay.http().unwrap(), &hook, "before@example.net");
    let copy = back_up(&relay);
    let mut command = Command::new(binary());
    command.args(["events", "--follow", "--unmatched", "--json"]).current_dir(relay.folder());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Ended(command.spawn().unwrap());
    let (out, err) = (child.0.stdout.take().unwrap(), child.0.stderr.take().unwrap());
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = said.send(serde_json::from_str::<Value>(&line).unwrap()["address"].clone());
        }
    });
    let mut n = 0;
    wait_until("it listens", BOUND, || {
        n += 1;
        tell(relay.http().unwrap(), &hook, &format!("lost-{n}@example.net"));
        heard.recv_timeout(Duration::from_secs(2)).is_ok()
    });
    let mut listener = Listener::new(&relay, "?unmatched", "").unwrap();
    for n in 100..110 {
        tell(relay.http().unwrap(), &hook, &format!("lost-{n}@example.net"));
    }
    let mut lost = listener.next_address();
    while lost.1 != "lost-109@example.net" {
        lost = listener.next_address();
    }
    relay.stop();
    restore(&relay, &copy);
    relay.restart();
    tell(relay.http().unwrap(), &hook, "after@example.net");

    let next = || heard.recv_timeout(BOUND).unwrap();
    let mut told = next();
    while told.as_str().is_some_and(|address| address.starts_with("lost-")) {
        told = next();
    }
    assert_eq!(told, "after@example.net", "neither silent nor told again what the backup has");
    let mut words = String::new();
    BufReader::new(err).read_line(&mut words).unwrap();
    assert!(words.starts_with("events: a backup was restored: "), "{words}");

    let mut last = String::new();
    for id in [lost.0.as_str(), "999999999"] {
        let mut listener = Listener::new(&relay, "?unmatched", id).unwrap();
        assert!(listener.notice().1.starts_with("a backup was restored: "));
        let (id, address) = listener.next_address();
        assert_eq!(address, "after@example.net");
        last = id;
    }
    let mut again = Listener::new(&relay, "?unmatched", &last).unwrap();
    tell(relay.http().unwrap(), &hook, "more@example.net");
    assert_eq!(again.next_address().1, "more@example.net", "what was told after it is told once");
    assert_eq!(next(), "more@example.net");
}

#[test]
fn so_many_listen_and_no_more() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let relay = start(&grid, &hook);
    let mut listeners: Vec<Listener> =
        (0..FOLLOWERS_MAX).map(|_| Listener::new(&relay, "", "").unwrap()).collect();
    assert_eq!(Listener::new(&relay, "", "").err(), Some(503));
    tell(relay.http().unwrap(), &hook, "all@example.net");
    for listener in &mut listeners {
        assert_eq!(listener.next_address().1, "all@example.net");
    }
    listeners.pop();
    // That it hung up is seen when something is written to it.
    tell(relay.http().unwrap(), &hook, "more@example.net");
    wait_until("its place is free", BOUND, || Listener::new(&relay, "", "").is_ok());
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_command_follows_over_a_restart() {
    let (grid, hook) = (Sendgrid::start(), Grid::new());
    let mut relay = start(&grid, &hook);
    tell(relay.http().unwrap(), &hook, "before@example.net");
    let mut command = Command::new(binary());
    command.args(["events", "--follow", "--unmatched", "--json"]).current_dir(relay.folder());
    let mut child = Ended(command.stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = said.send(serde_json::from_str::<Value>(&line).unwrap());
        }
    });
    let next = || heard.recv_timeout(BOUND).unwrap()["address"].clone();
    let mut n = 0;
    // It is there once it tells of what happens: the first events may be before it.
    wait_until("it listens", BOUND, || {
        n += 1;
        tell(relay.http().unwrap(), &hook, &format!("hello-{n}@example.net"));
        heard.recv_timeout(Duration::from_secs(2)).is_ok()
    });
    relay.stop();
    relay.restart();
    tell(relay.http().unwrap(), &hook, "after@example.net");
    let mut told = next();
    while told.as_str().is_some_and(|address| address.starts_with("hello-")) {
        told = next();
    }
    assert_eq!(told, "after@example.net");
}
