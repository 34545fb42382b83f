//! The relay as an operator has it: a configuration file, a process, its log, its commands.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

pub use super::port::free_port;
use super::upstream::Upstream;
use super::wait::holds_within;
use super::{Client, http, secrets, tls};

/// How long a start may take on a busy machine, recovery included.
const READY_BOUND: Duration = Duration::from_secs(60);
/// Starts that are tried when another process took the port meanwhile.
const PORT_TRIES: usize = 5;
/// How much of the relay's log a failed test shows.
const LOG_TAIL_LINES: usize = 60;

/// The binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os("POSTROAD_TEST_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_postroad")), PathBuf::from)
}

/// A configuration in the making. Each text holds TOML lines of its table.
#[derive(Default, Clone)]
pub struct Setup {
    server: String,
    http: String,
    listeners: Vec<String>,
    rest: String,
    limits: String,
    env: Vec<(String, String)>,
    files: Vec<(String, String)>,
    limit_command: Vec<String>,
    data_dir: Option<PathBuf>,
    upstreams: u32,
}

impl Setup {
    /// Lines of `[server]`.
    pub fn server(mut self, lines: &str) -> Self {
        let _ = writeln!(self.server, "{lines}");
        self
    }

    /// Lines of `[http]`.
    pub fn http(mut self, lines: &str) -> Self {
        let _ = writeln!(self.http, "{lines}");
        self
    }

    /// HTTPS with the test run's certificate.
    pub fn https(self) -> Self {
        self.http("tls_cert = \"@DIR@/cert.pem\"\ntls_key = \"@DIR@/key.pem\"")
    }

    /// One more `[[listener]]`, with these lines besides its address. Without any there is one plain listener.
    pub fn listener(mut self, lines: &str) -> Self {
        self.listeners.push(lines.to_owned());
        self
    }

    /// A listener with the test run's certificate.
    pub fn tls_listener(self, mode: &str, lines: &str) -> Self {
        self.listener(&format!(
            "tls = \"{mode}\"\ncert = \"@DIR@/cert.pem\"\nkey = \"@DIR@/key.pem\"\n{lines}"
        ))
    }

    /// A `[[credential]]`.
    pub fn credential(mut self, username: &str, password: &str) -> Self {
        let _ = writeln!(
            self.rest,
            "[[credential]]\nusername = {}\npassword = {}\n",
            quoted(username),
            quoted(password)
        );
        self
    }

    /// An `[[esp]]` of type smtp at this upstream, plain, with these lines besides.
    pub fn upstream(mut self, upstream: &Upstream, lines: &str) -> Self {
        self.upstreams += 1;
        let (n, at) = (self.upstreams, upstream.address());
        let _ = writeln!(
            self.rest,
            "[[esp]]\nname = \"up{n}\"\ntype = \"smtp\"\naddress = \"{at}\"\n{}\n{}\n{lines}\n",
            if lines.contains("priority =") { String::new() } else { format!("priority = {n}") },
            if lines.contains("tls =") { "" } else { "tls = \"off\"" }
        );
        self
    }

    /// The name of the ESP that was added last.
    pub fn last_esp(&self) -> String {
        format!("up{}", self.upstreams)
    }

    /// Whole tables.
    pub fn tables(mut self, text: &str) -> Self {
        let _ = writeln!(self.rest, "{text}");
        self
    }

    /// Lines of `[limits]`.
    pub fn limits(mut self, lines: &str) -> Self {
        let _ = writeln!(self.limits, "{lines}");
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file beside the configuration.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Runs the relay under another program, such as `prlimit --fsize=… --`.
    pub fn under(mut self, command: &[&str]) -> Self {
        self.limit_command = command.iter().map(|s| (*s).to_owned()).collect();
        self
    }

    /// The folder of the database, when it is to lie on a disk of its own.
    pub fn data_dir(mut self, folder: &Path) -> Self {
        self.data_dir = Some(folder.to_owned());
        self
    }

    /// Writes the configuration, starts the relay and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Relay {
        let folder = Arc::new(tempfile::Builder::new().prefix("postroad-test-").tempdir().unwrap());
        tls::pki().write(folder.path());
        for (name, text) in &self.files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        for _ in 0..PORT_TRIES {
            let ports: Vec<u16> = (0..self.listeners.len().max(1)).map(|_| free_port()).collect();
            fs::write(folder.path().join("postroad.toml"), self.toml(folder.path(), &ports)).unwrap();
            let mut relay = Relay { folder: folder.clone(), ports, child: None, setup: self.clone() };
            relay.spawn();
            if relay.ready_or_gone() {
                return relay;
            }
            if !relay.log().to_ascii_lowercase().contains("in use") {
                break;
            }
        }
        let log = fs::read_to_string(folder.path().join("relay.log")).unwrap_or_default();
        panic!("the relay did not start; its log:\n{}", tail(&log));
    }

    fn toml(&self, folder: &Path, ports: &[u16]) -> String {
        let data = self.data_dir.clone().unwrap_or_else(|| folder.join("data"));
        let mut out = String::new();
        let _ = writeln!(
            out,
            "[server]\nhostname = \"relay.test\"\ndata_dir = {}",
            quoted(&data.to_string_lossy())
        );
        let _ = writeln!(out, "{}", self.server);
        let _ = writeln!(out, "[http]\naddress = \"127.0.0.1:0\"\n{}", self.http);
        let min_free = if self.limits.contains("min_free") { "" } else { "min_free = \"1MB\"" };
        let _ = writeln!(out, "[limits]\n{min_free}\n{}", self.limits);
        let none = [String::new()];
        let listeners = if self.listeners.is_empty() { &none[..] } else { &self.listeners };
        for (lines, port) in listeners.iter().zip(ports) {
            let _ = writeln!(out, "[[listener]]\naddress = \"127.0.0.1:{port}\"\n{lines}\n");
        }
        out.push_str(&self.rest);
        out.replace("@DIR@", &folder.to_string_lossy())
    }
}

/// A relay that runs, or ran and may be started again on the same state.
pub struct Relay {
    folder: Arc<tempfile::TempDir>,
    ports: Vec<u16>,
    child: Option<Child>,
    setup: Setup,
}

impl Relay {
    /// A configuration to add to.
    pub fn setup() -> Setup {
        Setup::default()
    }

    /// One plain listener, one upstream.
    #[track_caller]
    pub fn to(upstream: &Upstream) -> Relay {
        Relay::setup().upstream(upstream, "").start()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.setup.data_dir.clone().unwrap_or_else(|| self.folder().join("data"))
    }

    /// The first listener.
    pub fn smtp(&self) -> SocketAddr {
        self.listener(0)
    }

    pub fn listener(&self, n: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[n]))
    }

    /// A client at the first listener that has read the greeting and said EHLO.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::hello(self.smtp())
    }

    /// Submits one message on a connection of its own; gives the id that the relay told.
    #[track_caller]
    pub fn submit(&self, from: &str, to: &[&str], raw: &[u8]) -> String {
        self.client().submit(from, to, raw)
    }

    /// Where its HTTP side listens, as the lock file tells.
    pub fn http(&self) -> Option<SocketAddr> {
        address_in(&fs::read_to_string(self.data_dir().join("postroad.lock")).ok()?)
    }

    pub fn get(&self, path: &str) -> Option<http::Answer> {
        let token = fs::read_to_string(self.data_dir().join("admin.token")).ok();
        let (at, token) = (self.http()?, token.as_deref().map(str::trim));
        let answer = match self.setup.http.contains("tls_cert") {
            true => http::get_secure(at, path, token, tls::pki().client()),
            false => http::get(at, path, token),
        }?;
        secrets::assert_none_in(&self.secrets(), path, &answer.body);
        Some(answer)
    }

    pub fn post(&self, path: &str, json: &str) -> Option<http::Answer> {
        let token = fs::read_to_string(self.data_dir().join("admin.token")).ok();
        http::post(self.http()?, path, token.as_deref().map(str::trim), json)
    }

    /// The value of a metric: all series whose line starts with `name` summed.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").map(|a| a.body).unwrap_or_default();
        text.lines()
            .filter(|l| l.strip_prefix(name).is_some_and(|r| r.starts_with([' ', '{'])))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Starts it again on the same state and waits until it is ready.
    #[track_caller]
    pub fn restart(&mut self) {
        self.spawn();
        assert!(self.ready_or_gone(), "the relay did not start again; its log:\n{}", tail(&self.log()));
    }

    /// From the next start on it runs by itself.
    pub fn unlimited(&mut self) {
        self.setup.limit_command.clear();
    }

    /// Starts it again without waiting.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = OpenOptions::new().create(true).append(true).open(self.folder().join("relay.log")).unwrap();
        let mut command = match self.setup.limit_command.split_first() {
            None => Command::new(binary()),
            Some((program, arguments)) => {
                let mut c = Command::new(program);
                c.args(arguments).arg(binary());
                c
            }
        };
        command
            .arg("serve")
            .arg("--config")
            .arg(self.folder().join("postroad.toml"))
            .current_dir(self.folder())
            .envs(self.setup.env.iter().map(|(a, b)| (a, b)))
            .stdin(Stdio::null())
            .stdout(File::from(log.try_clone().map(std::os::fd::OwnedFd::from).unwrap()))
            .stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Whether it came up; `false` when it ended or stayed silent.
    fn ready_or_gone(&mut self) -> bool {
        let mut gone = false;
        let ready = holds_within(READY_BOUND, || {
            gone = self.child.as_mut().is_none_or(|c| c.try_wait().ok().flatten().is_some());
            gone || self.is_ready()
        });
        if gone {
            self.child = None;
        }
        ready && !gone
    }

    /// `/readyz` of the process that runs now says 200.
    pub fn is_ready(&self) -> bool {
        let ours = fs::read_to_string(self.data_dir().join("postroad.lock")).unwrap_or_default();
        let pid = self.pid();
        // The lock file of the process before this one may still lie there.
        let named =
            pid.is_some_and(|p| ours.split(|c: char| !c.is_ascii_digit()).any(|w| w == p.to_string()));
        let under_another = !self.setup.limit_command.is_empty();
        (named || under_another) && self.get("/readyz").is_some_and(|a| a.status == 200)
    }

    /// CPU time that its process has taken so far.
    pub fn cpu(&self) -> Duration {
        let stat = self.pid().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        let stat = stat.expect("the relay runs");
        // Behind the name, which may hold blanks: utime and stime are the 12th and 13th field, in hundredths.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).expect("a name");
        let ticks: u64 = fields.skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.pid().and_then(|p| rustix::process::Pid::from_raw(p as i32)).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// How it ended, when it does within `bound`.
    pub fn ended_within(&mut self, bound: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut().unwrap();
        let mut status = None;
        holds_within(bound, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        if status.is_some() {
            self.child = None;
        }
        status
    }

    /// Stops it in order; the state stays.
    #[track_caller]
    pub fn stop(&mut self) {
        self.terminate();
        let status = self.ended_within(Duration::from_secs(30));
        assert!(status.is_some_and(|s| s.success()), "no orderly end within 30 s: {status:?}");
    }

    /// Runs a command of the product against this relay's state.
    pub fn cli(&self, arguments: &[&str]) -> Ran {
        self.cli_with(arguments, &[])
    }

    /// The same with variables, which a command that reads the whole configuration may need.
    pub fn cli_with(&self, arguments: &[&str], env: &[(&str, &str)]) -> Ran {
        let output = Command::new(binary())
            .args(arguments)
            .envs(env.iter().copied())
            .env("POSTROAD_CONFIG", self.folder().join("postroad.toml"))
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let ran = Ran::new(output);
        let secrets = self.secrets();
        secrets::assert_none_in(&secrets, &format!("{arguments:?}"), &format!("{}\n{}", ran.out, ran.err));
        ran
    }

    /// What its configuration has of secrets, as it stands now.
    fn secrets(&self) -> Vec<String> {
        let toml = fs::read_to_string(self.folder().join("postroad.toml")).unwrap_or_default();
        secrets::of(&toml, &self.setup.env)
    }

    /// What `queue show ID --raw` prints: the message as it is sent, octet for octet.
    #[track_caller]
    pub fn show_raw(&self, id: &str) -> Vec<u8> {
        let output = Command::new(binary())
            .args(["queue", "show", id, "--raw"])
            .env("POSTROAD_CONFIG", self.folder().join("postroad.toml"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("relay.log")).unwrap_or_default()
    }

    /// A number from `/proc/PID/status`, in kilobytes: `VmRSS`, `VmHWM`.
    pub fn memory_kilobytes(&self, key: &str) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = text.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- the end of the relay's log\n{}\n---", tail(&self.log()));
            return self.kill();
        }
        self.kill();
        secrets::assert_none_in(&self.secrets(), "the relay's log", &self.log());
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn new(output: Output) -> Self {
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails unless it ended with `code`.
    #[track_caller]
    pub fn must(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code; out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// One JSON object a line.
    #[track_caller]
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.out
            .lines()
            .filter(|l| !l.trim().is_empty())
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e} in {l:?}")))
            .collect()
    }
}

/// All strings and numbers under `key`, wherever it stands in `value`.
pub fn all_of<'a>(value: &'a serde_json::Value, key: &str, out: &mut Vec<&'a serde_json::Value>) {
    match value {
        serde_json::Value::Object(map) => {
            for (k, v) in map {
                if k == key {
                    out.push(v);
                }
                all_of(v, key, out);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|v| all_of(v, key, out)),
        _ => {}
    }
}

/// The first `IP:PORT` in a text.
pub fn address_in(text: &str) -> Option<SocketAddr> {
    text.split(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | '/' | '=' | '\'' | '{' | '}'))
        .find_map(|w| w.parse().ok())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
