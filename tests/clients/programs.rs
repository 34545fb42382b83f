//! How each program is told to submit one message by one door.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PASSWORD, USER, runs};

#[derive(Clone, Copy, PartialEq)]
pub enum Door {
    Plain,
    StartTls,
    Implicit,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Mechanism {
    None,
    Plain,
    Login,
}

impl Mechanism {
    fn word(self) -> &'static str {
        match self {
            Mechanism::None => "",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
        }
    }
}

pub enum Program {
    Swaks,
    Smtplib,
    Nodemailer,
    Curl,
    Msmtp,
}

/// One message by smtplib: PORT DOOR LOGIN FILE CA USER PASSWORD.
const SMTPLIB: &str = r#"
import smtplib, ssl, sys
port, door, login, path, ca, user, password = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if door == "implicit":
    client = smtplib.SMTP_SSL("localhost", int(port), context=context, timeout=20)
else:
    client = smtplib.SMTP("localhost", int(port), timeout=20)
client.ehlo()
if door == "starttls":
    client.starttls(context=context)
    client.ehlo()
if login:
    client.user, client.password = user, password
    client.auth(login, getattr(client, "auth_" + login.lower()))
refused = client.sendmail("shop@example.org", ["ok@example.com"], open(path, "rb").read())
assert not refused, refused
client.quit()
"#;

/// One message by nodemailer, as it is: PORT DOOR LOGIN FILE CA USER PASSWORD.
const NODEMAILER: &str = r#"
const fs = require("fs");
const nodemailer = require("nodemailer");
const [port, door, login, path, ca, user, pass] = process.argv.slice(2);
const options = { host: "localhost", port: Number(port), secure: door === "implicit", tls: { ca: fs.readFileSync(ca) } };
if (door === "starttls") options.requireTLS = true;
if (door === "plain") options.ignoreTLS = true;
if (login) { options.auth = { user, pass }; options.authMethod = login; }
nodemailer.createTransport(options).sendMail({
  envelope: { from: "shop@example.org", to: ["ok@example.com"] },
  raw: fs.readFileSync(path),
}).then(info => {
  if (info.rejected.length) throw new Error("rejected " + info.rejected);
  if (!/queued as/.test(info.response)) throw new Error(info.response);
}).catch(e => { console.error(e); process.exit(1); });
"#;

fn node_modules() -> Option<PathBuf> {
    std::env::var_os("POSTROAD_NODEMAILER").map(PathBuf::from).filter(|p| p.join("nodemailer").exists())
}

impl Program {
    /// Why it cannot be run, if it cannot.
    pub fn is_there(&self) -> Result<(), String> {
        match self {
            Program::Swaks => runs("swaks", "--version"),
            Program::Smtplib => runs("python3", "--version"),
            Program::Curl => runs("curl", "--version"),
            Program::Msmtp => runs("msmtp", "--version"),
            Program::Nodemailer => runs("node", "--version").and_then(|()| {
                node_modules()
                    .map(drop)
                    .ok_or("nodemailer is not installed (POSTROAD_NODEMAILER=node_modules)".into())
            }),
        }
    }

    /// The message as it takes it from a file.
    pub fn file(&self, text: &str) -> String {
        match self {
            Program::Smtplib | Program::Nodemailer | Program::Curl => text.to_owned(),
            Program::Msmtp => text.replace("\r\n", "\n"),
            // It ends the last line itself, also where the file has.
            Program::Swaks => text.replace("\r\n", "\n").trim_end_matches('\n').to_owned(),
        }
    }

    /// The command for one message by one door; `None` where the program has no such door.
    pub fn command(
        &self,
        port: u16,
        door: Door,
        login: Mechanism,
        file: &Path,
        ca: &Path,
        folder: &Path,
    ) -> Option<Command> {
        match self {
            Program::Swaks => Some(swaks(port, door, login, file, ca)),
            Program::Curl => Some(curl(port, door, login, file, ca)),
            Program::Msmtp => Some(msmtp(port, door, login, file, ca, folder)),
            Program::Smtplib => {
                let mut command = Command::new("python3");
                command.arg("-c").arg(SMTPLIB);
                Some(with_words(command, port, door, login, file, ca))
            }
            Program::Nodemailer => {
                let script = folder.join("submit.js");
                fs::write(&script, NODEMAILER).unwrap();
                let mut command = Command::new("node");
                command.env("NODE_PATH", node_modules()?).arg(script);
                Some(with_words(command, port, door, login, file, ca))
            }
        }
    }
}

fn with_words(
    mut command: Command,
    port: u16,
    door: Door,
    login: Mechanism,
    file: &Path,
    ca: &Path,
) -> Command {
    let door = match door {
        Door::Plain => "plain",
        Door::StartTls => "starttls",
        Door::Implicit => "implicit",
    };
    command.arg(port.to_string()).arg(door).arg(login.word()).arg(file).arg(ca).arg(USER).arg(PASSWORD);
    command
}

fn swaks(port: u16, door: Door, login: Mechanism, file: &Path, ca: &Path) -> Command {
    let mut command = Command::new("swaks");
    command.args([
        "--server",
        "localhost",
        "--port",
        &port.to_string(),
        "--timeout",
        "20",
        "--helo",
        "swaks.test",
    ]);
    command.args(["--from", "shop@example.org", "--to", "ok@example.com"]);
    command.arg("--data").arg(format!("@{}", file.display()));
    match door {
        Door::Plain => {}
        Door::StartTls => drop(command.arg("--tls").arg("--tls-ca-path").arg(ca)),
        Door::Implicit => drop(command.arg("--tlsc").arg("--tls-ca-path").arg(ca)),
    }
    if login != Mechanism::None {
        command.args(["--auth", login.word(), "--auth-user", USER, "--auth-password", PASSWORD]);
    }
    command
}

fn curl(port: u16, door: Door, login: Mechanism, file: &Path, ca: &Path) -> Command {
    let mut command = Command::new("curl");
    let scheme = if door == Door::Implicit { "smtps" } else { "smtp" };
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--url",
        &format!("{scheme}://localhost:{port}"),
    ]);
    command
        .args(["--mail-from", "shop@example.org", "--mail-rcpt", "ok@example.com", "--upload-file"])
        .arg(file);
    command.arg("--cacert").arg(ca);
    if door == Door::StartTls {
        command.arg("--ssl-reqd");
    }
    if login != Mechanism::None {
        command.args([
            "--user",
            &format!("{USER}:{PASSWORD}"),
            "--login-options",
            &format!("AUTH={}", login.word()),
        ]);
    }
    command
}

fn msmtp(port: u16, door: Door, login: Mechanism, file: &Path, ca: &Path, folder: &Path) -> Command {
    let rc = folder.join("msmtprc");
    let (tls, starttls) = match door {
        Door::Plain => ("off", "off"),
        Door::StartTls => ("on", "on"),
        Door::Implicit => ("on", "off"),
    };
    let auth = if login == Mechanism::None { "off".to_owned() } else { login.word().to_ascii_lowercase() };
    let account = format!(
        "account default\nhost localhost\nport {port}\nfrom shop@example.org\ntls {tls}\ntls_starttls {starttls}\n\
         tls_trust_file {}\nauth {auth}\nuser {USER}\npassword {PASSWORD}\ntimeout 20\n",
        ca.display()
    );
    fs::write(&rc, account).unwrap();
    fs::set_permissions(&rc, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = Command::new("msmtp");
    command
        .arg(format!("--file={}", rc.display()))
        .arg("ok@example.com")
        .stdin(fs::File::open(file).unwrap());
    command
}
