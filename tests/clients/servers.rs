//! SMTP servers that nobody here wrote, as sinks: aiosmtpd, Postfix's smtp-sink, mailin-embedded.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::relay::free_port;
use crate::support::wait::holds_within;
use crate::support::wait_until;

/// Keeps each message as a file: PORT FOLDER.
const AIOSMTPD: &str = r#"
import sys, time, os
from aiosmtpd.controller import Controller
port, folder = sys.argv[1:]
class Keep:
    n = 0
    async def handle_DATA(self, server, session, envelope):
        Keep.n += 1
        part = os.path.join(folder, "part")
        open(part, "wb").write(envelope.original_content)
        os.rename(part, os.path.join(folder, "%d.eml" % Keep.n))
        return "250 2.0.0 kept"
controller = Controller(Keep(), hostname="127.0.0.1", port=int(port), enable_SMTPUTF8=True)
controller.start()
while True:
    time.sleep(1)
"#;

enum Kind {
    /// A process that writes files.
    Process { child: Child, folder: tempfile::TempDir, sink: bool },
    /// In this process, for as long as it runs: it cannot be stopped.
    Mailin(Arc<Mutex<Vec<Vec<u8>>>>),
}

pub struct Server {
    kind: Kind,
    address: SocketAddr,
}

impl Server {
    pub fn aiosmtpd() -> Option<Server> {
        let there = Command::new("python3")
            .args(["-c", "import aiosmtpd"])
            .output()
            .is_ok_and(|o| o.status.success());
        there.then(|| {
            Server::process(false, |port, folder| {
                let mut command = Command::new("python3");
                command.arg("-c").arg(AIOSMTPD).arg(port.to_string()).arg(folder);
                command
            })
        })
    }

    pub fn smtp_sink() -> Option<Server> {
        let program =
            ["/usr/sbin/smtp-sink", "/usr/bin/smtp-sink"].into_iter().find(|p| Path::new(p).exists())?;
        Some(Server::process(true, |port, folder| {
            let mut command = Command::new(program);
            // As root it wants to be somebody else.
            if rustix::process::geteuid().is_root() {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
                fs::set_permissions(folder, mode).unwrap();
                command.args(["-u", "nobody"]);
            }
            command.arg("-d").arg(format!("{}/%M.", folder.display()));
            command.arg(format!("inet:127.0.0.1:{port}")).arg("64");
            command
        }))
    }

    fn process(sink: bool, command: impl Fn(u16, &Path) -> Command) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let child = command(address.port(), folder.path())
            .current_dir("/tmp")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { kind: Kind::Process { child, folder, sink }, address };
        wait_until("the server", Duration::from_secs(20), || TcpStream::connect(address).is_ok());
        server
    }

    pub fn mailin() -> Option<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let mut server = mailin_embedded::Server::new(Keep { kept: kept.clone(), open: Vec::new() });
        server.with_name("mailin.test").with_num_threads(16).with_tcp_listener(listener);
        server.with_ssl(mailin_embedded::SslConfig::None).unwrap();
        std::thread::spawn(move || drop(server.serve()));
        Some(Server { kind: Kind::Mailin(kept), address })
    }

    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Mailin(_) => "mailin-embedded",
            Kind::Process { sink: true, .. } => "smtp-sink",
            Kind::Process { sink: false, .. } => "aiosmtpd",
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The messages so far, with CRLF, from our own `Received` on.
    fn messages(&self) -> Vec<Vec<u8>> {
        match &self.kind {
            Kind::Mailin(kept) => kept.lock().unwrap().clone(),
            Kind::Process { folder, sink, .. } => {
                let files = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path());
                let whole = files.filter(|p| *sink || p.extension().is_some_and(|e| e == "eml"));
                whole
                    .filter_map(|p| fs::read(p).ok())
                    .map(|m| if *sink { from_sink(&m) } else { m })
                    .collect()
            }
        }
    }

    #[track_caller]
    pub fn wait_for(&self, n: usize, bound: Duration) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let there = holds_within(bound, || {
            all = self.messages();
            all.len() >= n && all.iter().all(|m| !m.is_empty())
        });
        assert!(there, "{} of {n} messages arrived at {}", all.len(), self.name());
        all
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Kind::Process { child, .. } = &mut self.kind {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// smtp-sink writes lines of its own on top and LF at each line end.
fn from_sink(kept: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(kept);
    let Some(at) = text.find("by relay.test").and_then(|at| text[..at].rfind("Received:")) else {
        return Vec::new();
    };
    // It ends each message with an empty line, for mailboxes.
    let ours = text[at..].strip_suffix("\n\n").map_or_else(|| text[at..].to_owned(), |t| format!("{t}\n"));
    ours.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()
}

#[derive(Clone)]
struct Keep {
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    open: Vec<u8>,
}

impl mailin_embedded::Handler for Keep {
    fn data_start(&mut self, _: &str, _: &str, _: bool, _: &[String]) -> mailin_embedded::Response {
        self.open.clear();
        mailin_embedded::response::OK
    }

    fn data(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.open.extend_from_slice(octets);
        Ok(())
    }

    fn data_end(&mut self) -> mailin_embedded::Response {
        self.kept.lock().unwrap().push(std::mem::take(&mut self.open));
        mailin_embedded::response::OK
    }
}
