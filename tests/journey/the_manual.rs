//! What README and `--help` show is true: each command in README's blocks and each `Example:` is run as it stands, on a
//! relay that runs and on one that is stopped, and each configuration in README is good. A new example is tried without
//! a change here; one that cannot run in a test is named in [`NOT_RUN`].

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::esps::Postmark;
use crate::support::mailgen::plain;
use crate::support::relay::{Ran, address_in, binary, free_port};
use crate::support::{Fault, Point, Relay, Upstream, http, wait_until};

/// Commands of README that no test runs, by how they begin, and why.
const NOT_RUN: [(&str, &str); 3] = [
    ("cargo run --release -- serve", "builds the program anew; serve itself is run by its example"),
    ("cargo test", "this is it"),
    ("swaks ", "another's program, on the default port; tests/clients runs it where there is one"),
];

/// What works without a relay; every other command then says that there is none (exit code 4).
const OFFLINE: [&str; 9] = [
    "check",
    "new-config",
    "completions",
    "queue list",
    "queue show",
    "explain",
    "events",
    "suppress",
    "backup",
];

/// What a command that reads standard input finds there.
const INPUT: &[u8] = b"To: you@example.net\nSubject: From the manual\n\nHello\n";

/// README's blocks of that language.
fn blocks(language: &str) -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (mut found, mut inside) = (Vec::new(), None::<(String, String)>);
    for line in readme.lines() {
        match (line.strip_prefix("```"), inside.take()) {
            (Some(_), Some((of, text))) if of == language => found.push(text),
            (Some(_), Some(_)) => {}
            (Some(of), None) => inside = Some((of.to_owned(), String::new())),
            (None, Some((of, text))) => inside = Some((of, format!("{text}{line}\n"))),
            (None, None) => {}
        }
    }
    found
}

/// The commands in README's blocks: all lines of `sh`, those behind `$ ` of `console`.
fn commands_of_readme() -> Vec<String> {
    let scripts = blocks("sh").join("");
    let sessions = blocks("console").join("");
    let typed = sessions.lines().filter_map(|line| line.strip_prefix("$ "));
    let lines = scripts.lines().chain(typed).map(|line| line.split(" # ").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Every command that `--help` names, with the examples that its help shows.
fn helps() -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let output = Command::new(binary()).args(&path).arg("--help").output().unwrap();
        let text = Ran::new(output).must(0).out;
        let listed = text.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
        for name in listed.filter_map(|l| l.split_whitespace().next()).filter(|name| *name != "help") {
            open.push(path.iter().cloned().chain([name.to_owned()]).collect());
        }
        let examples = text.lines().filter_map(|l| l.strip_prefix("Example: ")).map(str::to_owned).collect();
        found.push((path.join(" "), examples));
    }
    found.sort();
    found
}

/// A relay with the ESPs that the manual speaks of, which take no mail for now, so that there is a queue to act on.
struct Scene {
    relay: Relay,
    _upstream: Upstream,
    _postmark: Postmark,
}

impl Scene {
    fn new() -> Scene {
        let upstream = Upstream::start();
        upstream.fail_always(Point::Mail, Fault::Reply("451 4.3.0 later"));
        let esp = |name| {
            format!(
                "[[esp]]\nname = \"{name}\"\ntype = \"smtp\"\naddress = \"{}\"\ntls = \"off\"\n",
                upstream.address()
            )
        };
        let (postmark, public) = (Postmark::start(), SocketAddr::from(([127, 0, 0, 1], free_port())));
        // It tells by webhook what becomes of mail, and carries none of the manual's.
        let tells = format!(
            "[[esp]]\nname = \"postmark\"\ntype = \"postmark\"\ntransport = \"api\"\nserver_token = \"{}\"\n\
             endpoint = \"{}\"\nrecipients = [\"@postmark.example\"]\nwebhook_user = \"hook\"\n\
             webhook_password = \"s3cret\"\n",
            postmark.key(),
            postmark.url()
        );
        let relay = Relay::setup()
            .http(&format!("public_address = \"{public}\"\npublic_url = \"http://{public}\""))
            .tables(&["main", "second", "ses-main"].map(esp).concat())
            .tables(&tells)
            .start();
        // Three tokens, of which the manual revokes the third.
        for _ in 0..3 {
            relay.cli(&["token", "create", "--scope", "read"]).must(0);
        }
        Scene { relay, _upstream: upstream, _postmark: postmark }
    }

    /// Runs a line of a shell in which `postroad` is the program.
    fn run(&self, line: &str) -> Ran {
        let folder = self.relay.folder();
        let programs = folder.join("bin");
        if !programs.exists() {
            fs::create_dir(&programs).unwrap();
            std::os::unix::fs::symlink(binary(), programs.join("postroad")).unwrap();
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("sh")
            .args(["-c", line])
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("POSTROAD_SUBMIT", self.relay.smtp().to_string())
            .env("SENDGRID_API_KEY", "SG.k3y")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(INPUT));
        Ran::new(child.wait_with_output().unwrap())
    }
}

/// The line with that id for the one in it.
fn with_id(line: &str, id: &str) -> String {
    let is_id = |word: &str| {
        word.len() == 13
            && word.starts_with("06")
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    line.split(' ').map(|word| if is_id(word) { id } else { word }).collect::<Vec<_>>().join(" ")
}

/// Whether a line runs that command.
fn runs(line: &str, command: &str) -> bool {
    line.strip_prefix("postroad ")
        .and_then(|rest| rest.strip_prefix(command))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

fn is_run(line: &str) -> bool {
    !NOT_RUN.iter().any(|(begin, _)| line.starts_with(begin))
}

/// All commands of the manual but `serve`, README's first, as they stand.
fn manual() -> Vec<String> {
    let examples = helps().into_iter().flat_map(|(_, examples)| examples);
    let all = commands_of_readme().into_iter().filter(|line| is_run(line)).chain(examples);
    all.filter(|line| !runs(line, "serve")).collect()
}

#[test]
fn every_command_of_the_manual_runs() {
    let scene = Scene::new();
    let lines = manual();
    assert!(lines.len() > 20, "{lines:?}");
    for line in lines {
        let id = scene.relay.submit("app@example.com", &["you@example.net"], &plain("manual"));
        let ran = scene.run(&with_id(&line, &id));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{line}\n{}", ran.out);
        let silent = ["sendmail", "queue show"].iter().any(|command| runs(&line, command));
        assert!(silent || !ran.out.is_empty(), "{line} says nothing");
    }
}

#[test]
fn every_command_of_the_manual_does_what_it_may_without_a_relay() {
    let mut scene = Scene::new();
    let id = scene.relay.submit("app@example.com", &["you@example.net"], &plain("manual"));
    scene.relay.stop();
    for line in manual() {
        let ran = scene.run(&with_id(&line, &id));
        let code = match () {
            // What a pipe ends with is told of its last command.
            () if line.contains('|') => ran.code,
            () if runs(&line, "sendmail") => 75,
            () if OFFLINE.iter().any(|command| runs(&line, command)) => 0,
            () => 4,
        };
        assert_eq!(ran.code, code, "{line}\n{}\n{}", ran.out, ran.err);
        assert_eq!(ran.err.is_empty(), code == 0, "{line}: {}", ran.err);
    }
}

#[test]
fn every_example_of_serve_serves_until_it_is_stopped() {
    let lines: Vec<_> = helps().into_iter().flat_map(|(_, e)| e).filter(|line| runs(line, "serve")).collect();
    assert!(!lines.is_empty());
    for line in lines {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "[http]\naddress = \"127.0.0.1:0\"\n[limits]\nmin_free = \"1MB\"\n[[listener]]\naddress = \"127.0.0.1:{}\"\n",
            free_port()
        );
        fs::write(folder.path().join("postroad.toml"), config).unwrap();
        let words = line.split(' ').skip(1);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut child =
            Command::new(binary()).args(words).current_dir(folder.path()).stderr(log).spawn().unwrap();
        let side = || address_in(&fs::read_to_string(folder.path().join("data/postroad.lock")).ok()?);
        wait_until(&line, Duration::from_secs(60), || {
            side().and_then(|at| http::get(at, "/readyz", None)).is_some_and(|a| a.status == 200)
        });
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success(), "{line}");
    }
}

#[test]
fn every_command_has_an_example_and_a_row_in_readme() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `postroad "));
    let rows: Vec<BTreeSet<&str>> = rows.map(|row| row.split([' ', '`', ',', ';']).collect()).collect();
    let helps = helps();
    let paths: BTreeSet<&str> = helps.iter().map(|(path, _)| path.as_str()).collect();
    for (path, examples) in &helps {
        assert!(!examples.is_empty(), "postroad {path} --help shows no example");
        let is_group = paths.iter().any(|other| other.starts_with(&format!("{path} ")));
        let named = rows.iter().any(|row| path.split(' ').all(|word| row.contains(word)));
        assert!(path.is_empty() || is_group || named, "README's table has no row for postroad {path}");
    }
    for line in manual().iter().filter(|line| line.starts_with("postroad ")) {
        let known = paths.iter().any(|path| !path.is_empty() && runs(line, path));
        assert!(known, "{line}: no --help names this command");
    }
}

#[test]
fn every_configuration_in_readme_is_good() {
    let all = blocks("toml");
    assert!(!all.is_empty());
    for text in all {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("postroad.toml"), &text).unwrap();
        let mut check = Command::new(binary());
        check.arg("check").current_dir(folder.path());
        for variable in text.split("\"env:").skip(1).filter_map(|rest| rest.split('"').next()) {
            check.env(variable, "s3cret-of-some-length");
        }
        let ran = Ran::new(check.output().unwrap());
        // What proves a webhook is not in every example, and `check` says what is missed without.
        let odd = ran
            .out
            .lines()
            .find(|l| l.starts_with("warning") && !l.contains(".webhook_auth: has nothing to prove"));
        assert!(ran.code == 0 && odd.is_none(), "{text}\n{}{}", ran.out, ran.err);
    }
}

#[test]
fn what_is_not_run_is_still_in_the_manual() {
    let lines = commands_of_readme();
    for (begin, why) in NOT_RUN {
        assert!(
            lines.iter().any(|line| line.starts_with(begin)),
            "{begin} ({why}) is gone: take its row out"
        );
    }
}
