//! An empty directory, no file, no key: `serve` starts, keeps the mail where the commands can read it, and says that
//! nothing leaves the machine.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::mailgen::plain;
use crate::support::relay::{Ran, address_in, all_of, binary, free_port};
use crate::support::{Client, http, wait_until};

/// `serve` in an empty directory, told its ports by the environment alone.
struct Bare {
    folder: tempfile::TempDir,
    child: Child,
    smtp: SocketAddr,
}

impl Bare {
    fn start() -> Bare {
        let folder = tempfile::tempdir().unwrap();
        let smtp = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = File::create(folder.path().join("log")).unwrap();
        let child = command(folder.path())
            .arg("serve")
            .env("POSTROAD__LISTENER__0__ADDRESS", smtp.to_string())
            .env("POSTROAD__HTTP__ADDRESS", "127.0.0.1:0")
            .env("POSTROAD__LIMITS__MIN_FREE", "1MB")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let bare = Bare { folder, child, smtp };
        wait_until("serve in an empty directory", Duration::from_secs(60), || {
            bare.http().and_then(|at| http::get(at, "/readyz", None)).is_some_and(|a| a.status == 200)
        });
        bare
    }

    fn http(&self) -> Option<SocketAddr> {
        address_in(&fs::read_to_string(self.folder.path().join("data/postroad.lock")).ok()?)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::new(command(self.folder.path()).args(arguments).output().unwrap())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(folder).env_remove("POSTROAD_CONFIG");
    command
}

#[test]
fn an_empty_directory_is_enough() {
    let bare = Bare::start();
    // The log has a thread of its own: a line may come after what it tells of.
    wait_until("the word that nothing leaves this machine", Duration::from_secs(15), || {
        fs::read_to_string(bare.folder.path().join("log")).unwrap().contains("nothing leaves this machine")
    });
    let id = Client::hello(bare.smtp).submit("shop@example.org", &["ok@example.com"], &plain("sandboxed"));

    wait_until("the sandbox has it", Duration::from_secs(15), || {
        bare.run(&["explain", &id]).out.contains("sandbox")
    });
    let told = bare.run(&["explain", &id]).must(0).out;
    assert!(told.contains("ok@example.com") && told.contains("shop@example.org"), "{told}");
    let shown = bare.run(&["queue", "show", &id]).must(0).out;
    assert!(shown.contains(&id) && shown.contains("ok@example.com"), "{shown}");
    let content = bare.run(&["queue", "show", &id, "--raw"]).must(0).out;
    assert!(content.contains("Subject: sandboxed") && content.contains("hello"), "{content}");

    let token = fs::read_to_string(bare.folder.path().join("data/admin.token")).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(bare.folder.path().join("data/admin.token")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let life = http::get(bare.http().unwrap(), &format!("/v1/messages/{id}"), Some(token.trim())).unwrap();
    assert_eq!((life.status, life.json()["id"].as_str()), (200, Some(id.as_str())));
}

#[test]
fn commands_end_with_the_code_that_fits() {
    let mut bare = Bare::start();
    let id = Client::hello(bare.smtp).submit("a@example.org", &["ok@example.com"], &plain("codes"));
    bare.run(&["queue", "show", &id]).must(0);
    bare.run(&["explain", "0000000000001"]).must(3);
    bare.run(&["queue", "list", "--no-such-flag"]).must(2);
    assert!(bare.run(&["queue", "show", &id, "--raw", "--json"]).must(2).err.contains("octet for octet"));
    bare.run(&["no-such-command"]).must(2);
    for line in bare.run(&["queue", "list", "--json"]).must(0).out.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|v| v.is_object()), "{line}");
    }
    // A second relay on the same directory names the first.
    let second = bare.run(&["serve"]);
    second.must(1).err.contains(&bare.child.id().to_string()).then_some(()).expect("the pid of the first");

    let _ = bare.child.kill();
    let _ = bare.child.wait();
    bare.run(&["queue", "flush"]).must(4);
    let life = bare.run(&["queue", "show", &id, "--json"]).must(0).json();
    let mut ids = Vec::new();
    life.iter().for_each(|l| all_of(l, "id", &mut ids));
    assert!(ids.iter().any(|i| i.as_str() == Some(&id)), "{life:?}");
    bare.run(&["explain", &id]).must(0);
}

#[test]
fn a_broken_configuration_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("postroad.toml"),
        "[server]\nhostnam = \"x\"\n[limits]\nmemory = \"lots\"\n",
    )
    .unwrap();
    let ran = Ran::new(command(folder.path()).arg("serve").output().unwrap()).must(2);
    assert!(ran.err.contains("postroad.toml:2") && ran.err.contains("hostname"), "{}", ran.err);
    assert!(ran.err.contains("postroad.toml:4"), "all problems at once: {}", ran.err);
    assert!(!folder.path().join("data").exists(), "nothing is made before the configuration holds");
}
