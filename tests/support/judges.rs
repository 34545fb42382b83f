//! Judges that nobody here wrote: Prism with the vendors' own descriptions of their APIs, and ministack as Amazon SES.
//! Between them and the relay stands a tap, which passes everything on and keeps what passed.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::port::free_port;
use super::wait::wait_until;

/// Node reads a large description before it listens, and Python many services.
const START_BOUND: Duration = Duration::from_secs(90);
/// How long one answer may take.
const ANSWER_BOUND: Duration = Duration::from_secs(30);
const HEAD_MAX: usize = 64 * 1024;
const BODY_MAX: usize = 64 * 1024 * 1024;

/// A judge that runs, until it is dropped.
pub struct Judge {
    child: Child,
    address: SocketAddr,
}

impl Judge {
    /// Prism with the description of that file; `Err` says why there is none.
    pub fn prism(description: &str) -> Result<Judge, String> {
        let program = named("POSTROAD_PRISM").ok_or("Prism is not installed (POSTROAD_PRISM=its program)")?;
        let folder = named("POSTROAD_OPENAPI")
            .ok_or("POSTROAD_OPENAPI names no folder with the vendors' descriptions")?;
        let file = folder.join(description);
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["mock", "-h", "127.0.0.1", "-p", &port.to_string()]).arg(file);
        Ok(Judge::start(command, port))
    }

    /// ministack as SES.
    pub fn ministack() -> Result<Judge, String> {
        let program = named("POSTROAD_MINISTACK")
            .ok_or("ministack is not installed (POSTROAD_MINISTACK=its program)")?;
        let port = free_port();
        let mut command = Command::new(program);
        command
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("SERVICES", "ses")
            .env("DOCKER_HOST", "unix:///nonexistent");
        Ok(Judge::start(command, port))
    }

    fn start(mut command: Command, port: u16) -> Judge {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let judge = Judge { child, address };
        wait_until("the judge listens", START_BOUND, || TcpStream::connect(address).is_ok());
        judge
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a variable names, where it is there.
fn named(variable: impl AsRef<OsStr>) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from).filter(|path| path.exists())
}

/// One request and what was answered.
#[derive(Clone, Debug)]
pub struct Passed {
    /// `POST /email HTTP/1.1`
    pub line: String,
    pub body: Vec<u8>,
    pub status: u16,
    pub answer: String,
}

/// Passes requests on, and keeps them.
pub struct Tap {
    address: SocketAddr,
    passed: Arc<Mutex<Vec<Passed>>>,
}

impl Tap {
    /// Before a server, for as long as the test runs.
    pub fn before(server: SocketAddr) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tap = Tap { address: listener.local_addr().unwrap(), passed: Arc::default() };
        let passed = tap.passed.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let passed = passed.clone();
                std::thread::spawn(move || serve(client, server, &passed));
            }
        });
        tap
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was handed over in POST requests, in the order of the answers.
    pub fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap().iter().filter(|p| p.line.starts_with("POST ")).cloned().collect()
    }
}

/// Each request of a connection by one of its own to the server, which so never closes an idle one under it.
fn serve(client: TcpStream, server: SocketAddr, passed: &Mutex<Vec<Passed>>) {
    let mut requests = BufReader::new(client);
    while let Ok(request) = Spoken::read(&mut requests) {
        let Ok(answer) = asked(server, &request) else { return };
        let status = answer.line().split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_default();
        passed.lock().unwrap().push(Passed {
            line: request.line().to_owned(),
            body: request.body.clone(),
            status,
            answer: String::from_utf8_lossy(&answer.body).into_owned(),
        });
        if requests.get_mut().write_all(&answer.raw).is_err() {
            return;
        }
    }
}

fn asked(server: SocketAddr, request: &Spoken) -> io::Result<Spoken> {
    let mut line = TcpStream::connect(server)?;
    line.set_read_timeout(Some(ANSWER_BOUND))?;
    line.write_all(&request.raw)?;
    Spoken::read(&mut BufReader::new(line))
}

/// A request or an answer of HTTP/1.1.
#[derive(Default)]
struct Spoken {
    head: String,
    body: Vec<u8>,
    /// As it came.
    raw: Vec<u8>,
}

impl Spoken {
    fn read(from: &mut impl BufRead) -> io::Result<Spoken> {
        let mut spoken = Spoken::default();
        while !spoken.raw.ends_with(b"\r\n\r\n") {
            spoken.line_of(from)?;
        }
        spoken.head = String::from_utf8_lossy(&spoken.raw).into_owned();
        if spoken.header("transfer-encoding").is_some_and(|how| how.eq_ignore_ascii_case("chunked")) {
            spoken.chunks(from)?;
        } else if let Some(length) = spoken.header("content-length").and_then(|n| n.parse().ok()) {
            spoken.take(from, length, true)?;
        }
        Ok(spoken)
    }

    fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let pair = |line: &'_ str| line.split_once(':').is_some_and(|(n, _)| n.eq_ignore_ascii_case(name));
        self.head
            .lines()
            .skip(1)
            .find(|line| pair(line))
            .and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim())
    }

    /// One more line; gives it without its end.
    fn line_of(&mut self, from: &mut impl BufRead) -> io::Result<String> {
        let start = self.raw.len();
        let read = from.take(HEAD_MAX as u64).read_until(b'\n', &mut self.raw)?;
        if read == 0 || self.head.is_empty() && self.raw.len() > HEAD_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&self.raw[start..]).trim_end().to_owned())
    }

    fn take(&mut self, from: &mut impl BufRead, octets: usize, content: bool) -> io::Result<()> {
        if octets > BODY_MAX || self.raw.len() > BODY_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let start = self.raw.len();
        self.raw.resize(start + octets, 0);
        from.read_exact(&mut self.raw[start..])?;
        if content {
            self.body.extend_from_slice(&self.raw[start..]);
        }
        Ok(())
    }

    fn chunks(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        loop {
            let line = self.line_of(from)?;
            let size = line.split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.line_of(from)?.is_empty() {}
                return Ok(());
            }
            self.take(from, size, true)?;
            self.take(from, 2, false)?;
        }
    }
}
