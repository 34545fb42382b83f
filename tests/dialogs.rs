//! Runs `dialogs/*.smtp` against the real listener; `dialogs/README.md` tells what their lines mean.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::mailgen;
use crate::support::relay::Setup;
use crate::support::upstream::Received;
use crate::support::wait::holds_within;
use crate::support::{Client, Relay, Upstream};

mod smuggling;

/// Dialogs that run at a time.
const AT_A_TIME: usize = 8;
/// How long one reply may take; a failed AUTH is slowed on purpose.
const REPLY_BOUND: Duration = Duration::from_secs(20);

struct Dialog {
    name: String,
    /// What its listener is given.
    listener: String,
    /// Number and text of each line that does something.
    lines: Vec<(usize, String)>,
    /// What must have arrived.
    after: Vec<String>,
}

fn read_all() -> Vec<Dialog> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "smtp"));
    paths.sort();
    paths.iter().map(|p| read(p)).collect()
}

fn read(path: &Path) -> Dialog {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let text = fs::read_to_string(path).unwrap().replace("@NAME@", &name);
    let mut dialog = Dialog { name, listener: String::new(), lines: Vec::new(), after: Vec::new() };
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(after) = line.strip_prefix("@@ ") {
            dialog.after.push(after.to_owned());
        } else if let Some(mode) = line.strip_prefix("@tls ") {
            dialog.listener +=
                &format!("tls = \"{mode}\"\ncert = \"@DIR@/cert.pem\"\nkey = \"@DIR@/key.pem\"\n");
        } else if let Some(setting) = line.strip_prefix("@ ") {
            dialog.listener += &format!("{setting}\n");
        } else if !line.starts_with('#') && !line.trim().is_empty() {
            dialog.lines.push((number, line.to_owned()));
        }
    }
    dialog
}

/// The users that the dialogs know: `user`, and one whose password has what generated passwords have.
fn with_users(setup: Setup) -> Setup {
    setup.credential("user", "secret").credential("odd", "5Pk.#Kz%41W;}r2$Bf_IE/+")
}

#[test]
fn every_dialog_goes_as_written() {
    let dialogs = read_all();
    assert!(dialogs.len() >= 60, "{} dialogs", dialogs.len());
    let upstream = Upstream::start();
    let mut listeners: BTreeMap<&str, usize> = BTreeMap::new();
    let mut setup = with_users(Relay::setup().upstream(&upstream, ""));
    for dialog in &dialogs {
        if !listeners.contains_key(dialog.listener.as_str()) {
            listeners.insert(&dialog.listener, listeners.len());
            setup = setup.listener(&dialog.listener);
        }
    }
    let relay = setup.start();

    let wrong = in_parallel(dialogs.len(), |i| {
        let dialog = &dialogs[i];
        let at = relay.listener(listeners[dialog.listener.as_str()]);
        Run::new(dialog, at, source(i)).run()
    });
    let mut wrong: Vec<String> = wrong.into_iter().flatten().collect();
    settle(&relay, &upstream, "dialogs");
    let received = upstream.received();
    for dialog in &dialogs {
        let arrived: Vec<&Received> =
            received.iter().filter(|r| r.header("X-Dialog").as_deref() == Some(&dialog.name)).collect();
        wrong.extend(arrived_wrong(dialog, &arrived));
    }
    wrong.extend(received.iter().filter_map(bare).map(|w| format!("something bare left: {w}")));
    assert!(wrong.is_empty(), "{} things went otherwise:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Each dialog comes from an address of its own, so that what is limited per address does not mix.
fn source(n: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 3, (n / 200) as u8, (n % 200 + 1) as u8))
}

/// Runs `work(0..n)`, a few at a time.
fn in_parallel<T: Send>(n: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let out = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::SeqCst);
                    if i >= n {
                        return;
                    }
                    let result = work(i);
                    out.lock().unwrap().push(result);
                }
            });
        }
    });
    out.into_inner().unwrap()
}

/// Everything accepted so far has left: a last message went through and nothing waits.
fn settle(relay: &Relay, upstream: &Upstream, mark: &str) {
    let subject = format!("barrier-{mark}");
    relay.submit("barrier@example.org", &["barrier@example.com"], &mailgen::plain(&subject));
    let through = holds_within(Duration::from_secs(30), || {
        upstream.received().iter().any(|r| r.header("Subject").as_deref() == Some(&subject))
    });
    assert!(through, "the last message did not arrive");
    let left = || relay.get("/v1/messages?limit=1").map(|a| a.json()["deliveries"].clone());
    let empty = holds_within(Duration::from_secs(30), || {
        left().is_some_and(|deliveries| deliveries.as_array().is_some_and(Vec::is_empty))
    });
    assert!(empty, "something still waits: {:?}", left());
}

/// A bare CR or LF, or a NUL, in what left.
fn bare(received: &Received) -> Option<String> {
    let data = &received.data;
    for (i, &b) in data.iter().enumerate() {
        let lone = match b {
            b'\n' => i == 0 || data[i - 1] != b'\r',
            b'\r' => data.get(i + 1) != Some(&b'\n'),
            b => b == 0,
        };
        if lone {
            return Some(data[i.saturating_sub(40)..(i + 40).min(data.len())].escape_ascii().to_string());
        }
    }
    None
}

fn arrived_wrong(dialog: &Dialog, arrived: &[&Received]) -> Vec<String> {
    let mut wrong = Vec::new();
    let wanted =
        dialog.after.iter().find_map(|a| a.strip_prefix("delivered ")).map_or(0, |n| n.parse().unwrap());
    if arrived.len() != wanted {
        wrong.push(format!("{} delivered, {wanted} wanted", arrived.len()));
    }
    if let Some(last) = arrived.last() {
        wrong.extend(
            dialog.after.iter().filter(|a| !holds(last, a)).map(|a| {
                format!("`{a}` does not hold: MAIL {} RCPT {:?}\n{}", last.mail, last.to, last.text())
            }),
        );
    }
    wrong.into_iter().map(|w| format!("{}.smtp: {w}", dialog.name)).collect()
}

fn holds(received: &Received, claim: &str) -> bool {
    let (word, rest) = claim.split_once(' ').unwrap_or((claim, ""));
    let bytes = unescape(rest);
    let contains = |data: &[u8]| data.windows(bytes.len().max(1)).any(|w| w == bytes);
    match word {
        "delivered" => true,
        "rcpt" => rest.split('|').any(|r| received.to.iter().any(|t| t == r)),
        "rcpts" => received.to.len().to_string() == rest,
        "mail" => received.mail.starts_with(rest),
        "body" => mailgen::split(&received.data).1.get(2..) == Some(&bytes),
        "body-contains" => contains(mailgen::split(&received.data).1),
        "data-lacks" => !contains(&received.data),
        "received-with" => received.header("Received").is_some_and(|r| r.contains(&format!(" with {rest} "))),
        "received-has" => received.header("Received").is_some_and(|r| r.contains(rest)),
        other => panic!("no such claim: {other}"),
    }
}

/// One dialog under way.
struct Run<'a> {
    dialog: &'a Dialog,
    at: SocketAddr,
    from: IpAddr,
    client: Client,
    last: String,
    pending: Vec<u8>,
}

impl<'a> Run<'a> {
    fn new(dialog: &'a Dialog, at: SocketAddr, from: IpAddr) -> Self {
        let client = Client::try_connect(at, Some(from)).unwrap();
        Run { dialog, at, from, client, last: String::new(), pending: Vec::new() }
    }

    /// What went otherwise.
    fn run(mut self) -> Option<String> {
        if let Err(e) = self.greeting() {
            return Some(format!("{}.smtp: greeting: {e}", self.dialog.name));
        }
        let mut same_reply = false;
        for (number, line) in &self.dialog.lines {
            let word = line.split(' ').next().unwrap_or_default();
            let rest = line.get(word.len() + 1..).unwrap_or_default();
            let done = self.step(word, rest, same_reply);
            same_reply = word == "S!";
            if let Err(e) = done {
                let name = &self.dialog.name;
                return Some(format!("{name}.smtp:{number}: `{line}`: {e}\n{}", self.client.transcript));
            }
        }
        self.send();
        None
    }

    /// Read before the first line, except where TLS comes first.
    fn greeting(&mut self) -> Result<(), String> {
        if self.dialog.listener.contains("implicit") {
            return Ok(());
        }
        let reply = self.client.reply_within(REPLY_BOUND)?;
        if reply.code == 220 { Ok(()) } else { Err(reply.raw) }
    }

    fn send(&mut self) {
        if !self.pending.is_empty() {
            let bytes = std::mem::take(&mut self.pending);
            self.client.raw(&bytes);
        }
    }

    fn step(&mut self, word: &str, rest: &str, same_reply: bool) -> Result<(), String> {
        match word {
            "C:" => {
                self.pending.extend(expand(rest).bytes());
                self.pending.extend(b"\r\n");
                return Ok(());
            }
            "R:" => {
                self.pending.extend(unescape(&expand(rest)));
                return Ok(());
            }
            _ => self.send(),
        }
        match word {
            "X:" => self.act(rest),
            "S:" => {
                self.read()?;
                let hit = rest.split('|').any(|p| self.last.starts_with(p));
                if hit { Ok(()) } else { Err(format!("got {:?}", self.last)) }
            }
            "S!" => {
                if !same_reply {
                    self.read()?;
                }
                let hit = matches(&String::from_utf8_lossy(&unescape(rest)), &self.last);
                if hit { Ok(()) } else { Err(format!("got {:?}", self.last)) }
            }
            "S!!" => {
                if self.last.contains(rest) {
                    Err(format!("got {:?}", self.last))
                } else {
                    Ok(())
                }
            }
            "S-" => self.client.silent_for(Duration::from_secs_f64(rest.parse().unwrap())),
            "N:" => self.nothing_like(rest),
            other => Err(format!("no such line: {other}")),
        }
    }

    fn read(&mut self) -> Result<(), String> {
        let reply = self.client.reply_within(REPLY_BOUND)?;
        self.last = reply.raw.clone();
        reply.complaint().map_or(Ok(()), Err)
    }

    fn nothing_like(&mut self, prefix: &str) -> Result<(), String> {
        while let Ok(reply) = self.client.reply_within(Duration::from_millis(500)) {
            if reply.raw.starts_with(prefix) {
                return Err(format!("got {:?}", reply.raw));
            }
        }
        Ok(())
    }

    fn act(&mut self, what: &str) -> Result<(), String> {
        match what {
            // Long enough for the bytes before to be read apart from those after.
            "segment" => std::thread::sleep(Duration::from_millis(30)),
            "close" => self.client.close(),
            "reset" => self.client.reset(),
            "connect" => {
                self.client = Client::try_connect(self.at, Some(self.from)).map_err(|e| e.to_string())?;
                self.greeting()?;
            }
            "tls" => self.client.handshake().map_err(|e| format!("handshake: {e}"))?,
            "closed" => {
                if !self.client.closed_within(Duration::from_secs(10)) {
                    return Err("the connection still stands".into());
                }
            }
            other => return Err(format!("no such act: {other}")),
        }
        Ok(())
    }
}

/// Writes out `{3*text}`.
fn expand(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut at = 0;
    while at < text.len() {
        let repeated = (bytes[at] == b'{').then(|| repetition(&text[at..])).flatten();
        if let Some((times, inner, length)) = repeated {
            out.push_str(&expand(inner).repeat(times));
            at += length;
        } else {
            let c = text[at..].chars().next().unwrap();
            out.push(c);
            at += c.len_utf8();
        }
    }
    out
}

/// `{3*text}` at the start of `text`: how often, what, and how long it is as written.
fn repetition(text: &str) -> Option<(usize, &str, usize)> {
    let star = text.find('*')?;
    let times = text[1..star].parse().ok()?;
    let mut depth = 0;
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((times, &text[star + 1..i], i + 1));
        }
    }
    None
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'\\' {
            out.push(b);
            continue;
        }
        match bytes.next() {
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'0') => out.push(0),
            Some(b'x') => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            Some(other) => out.push(other),
            None => out.push(b'\\'),
        }
    }
    out
}

/// `^` and `$` anchor, `*` is anything, `?` one character.
fn matches(pattern: &str, text: &str) -> bool {
    fn glob(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|i| glob(rest, &text[i..])),
            Some((b'?', rest)) => !text.is_empty() && glob(rest, &text[1..]),
            Some((b, rest)) => text.first() == Some(b) && glob(rest, &text[1..]),
        }
    }
    let (pattern, start) = pattern.strip_prefix('^').map_or((pattern, "*"), |p| (p, ""));
    let (pattern, end) = pattern.strip_suffix('$').map_or((pattern, "*"), |p| (p, ""));
    glob(format!("{start}{pattern}{end}").as_bytes(), text.as_bytes())
}

#[test]
fn the_runner_reads_its_own_notation() {
    assert_eq!(expand("a{2*b{2*c}}d{x}"), "abccbccd{x}");
    assert_eq!(unescape(r"a\r\n\0\xff\\"), b"a\r\n\0\xff\\");
    assert!(matches("^250?SIZE *\r\n$", "250-SIZE 10\r\n"));
    assert!(matches("SIZE", "250-SIZE 10\r\n") && !matches("^SIZE", "250-SIZE 10\r\n"));
}
