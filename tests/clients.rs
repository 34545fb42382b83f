//! The programs that people submit mail with, each by every door that it knows, and what arrives at SMTP servers that
//! nobody here wrote.

mod callers;
mod programs;
mod servers;

use std::fs;
use std::process::Command;
use std::time::Duration;

use programs::{Door, Mechanism, Program};
use servers::Server;

use crate::support::mailgen::difference;
use crate::support::relay::Setup;
use crate::support::{Relay, skip, tls};

const USER: &str = "shop";
const PASSWORD: &str = "p4ss-word_1";

/// The message that every program is given. No line end of its own form, no trailing blanks: those are the program's.
fn message(subject: &str) -> String {
    format!(
        "From: Shop <shop@example.org>\r\nTo: ok@example.com\r\nSubject: {subject}\r\n\
         Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{subject}@example.org>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\nX-Folded: one\r\n two\r\n\r\n\
         hello\r\n.dot at the start\r\n..two\r\n\r\nFrom here on\r\nlast line\r\n"
    )
}

fn relay(server: &Server) -> Relay {
    let esp = format!(
        "[[esp]]\nname = \"sink\"\ntype = \"smtp\"\naddress = \"{}\"\ntls = \"off\"\n",
        server.address()
    );
    let doors = |setup: Setup| {
        setup
            .listener("")
            .listener("auth = \"required\"")
            .tls_listener("starttls", "auth = \"optional\"")
            .tls_listener("implicit", "auth = \"optional\"")
    };
    doors(Relay::setup().tables(&esp)).credential(USER, PASSWORD).start()
}

const DOORS: [(&str, usize, Door, Mechanism); 8] = [
    ("plain", 0, Door::Plain, Mechanism::None),
    ("plain-auth-plain", 1, Door::Plain, Mechanism::Plain),
    ("plain-auth-login", 1, Door::Plain, Mechanism::Login),
    ("starttls", 2, Door::StartTls, Mechanism::None),
    ("starttls-auth-plain", 2, Door::StartTls, Mechanism::Plain),
    ("starttls-auth-login", 2, Door::StartTls, Mechanism::Login),
    ("implicit-auth-plain", 3, Door::Implicit, Mechanism::Plain),
    ("implicit-auth-login", 3, Door::Implicit, Mechanism::Login),
];

/// Each door once through `program`, all of it arriving unchanged at `server`.
fn each_door(name: &str, program: &Program, server: Option<Server>) {
    if let Err(why) = program.is_there() {
        return skip(name, &why);
    }
    let Some(server) = server else {
        return skip(name, "its server is not installed");
    };
    let relay = relay(&server);
    let folder = tempfile::tempdir().unwrap();
    let (ca, _, _) = tls::pki().write(folder.path());
    let mut sent = Vec::new();
    for (door_name, listener, door, login) in DOORS {
        let subject = format!("{name}-{door_name}");
        let text = message(&subject);
        let file = folder.path().join(&subject);
        fs::write(&file, program.file(&text)).unwrap();
        let port = relay.listener(listener).port();
        let Some(mut command) = program.command(port, door, login, &file, &ca, folder.path()) else {
            println!("{name} has no {door_name}");
            continue;
        };
        let output = command.output().unwrap_or_else(|e| panic!("{subject}: {e}"));
        assert!(
            output.status.success(),
            "{subject}: {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        sent.push((subject, text));
    }
    assert!(sent.len() >= 5, "{name} went by {} doors only", sent.len());
    let arrived = server.wait_for(sent.len(), Duration::from_secs(30));
    for (subject, text) in sent {
        let got = arrived
            .iter()
            .find(|m| String::from_utf8_lossy(m).contains(&format!("Subject: {subject}\r\n")))
            .unwrap_or_else(|| panic!("{subject} did not arrive"));
        if let Some(what) = difference(text.as_bytes(), got) {
            panic!("{subject} at {}: {what}", server.name());
        }
    }
}

/// Whether a program can be run at all.
fn runs(program: &str, argument: &str) -> Result<(), String> {
    match Command::new(program).arg(argument).output() {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("{program} is not installed ({e})")),
    }
}

#[test]
fn swaks_submits_and_aiosmtpd_takes() {
    each_door("swaks", &Program::Swaks, Server::aiosmtpd());
}

#[test]
fn smtplib_submits_and_smtp_sink_takes() {
    each_door("smtplib", &Program::Smtplib, Server::smtp_sink());
}

#[test]
fn nodemailer_submits_and_mailin_takes() {
    each_door("nodemailer", &Program::Nodemailer, Server::mailin());
}

#[test]
fn curl_submits_and_aiosmtpd_takes() {
    each_door("curl", &Program::Curl, Server::aiosmtpd());
}

#[test]
fn msmtp_submits_and_smtp_sink_takes() {
    each_door("msmtp", &Program::Msmtp, Server::smtp_sink());
}
