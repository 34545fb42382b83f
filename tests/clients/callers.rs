//! Programs that hand in mail by calling `sendmail`: PHP's `mail()`, mutt, git send-email.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::runs;
use crate::support::relay::binary;
use crate::support::{Relay, Upstream, skip};

/// The relay, its upstream, and a folder with `sendmail` in it.
fn scene() -> (Upstream, Relay, tempfile::TempDir) {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").server("origin = \"example.com\"").start();
    let folder = tempfile::tempdir().unwrap();
    symlink(binary(), folder.path().join("sendmail")).unwrap();
    (upstream, relay, folder)
}

fn succeeds(command: &mut Command, relay: &Relay, folder: &Path) {
    command.env("POSTROAD_SUBMIT", relay.smtp().to_string()).env("HOME", folder).current_dir(folder);
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn php_mail_goes_out() {
    if let Err(why) = runs("php", "--version") {
        return skip("php", &why);
    }
    let (upstream, relay, folder) = scene();
    let script = r#"exit(mail("a@example.com, b@example.com", "From PHP", "line one\n.\nline two",
        "From: Shop <shop@example.org>\r\nCc: c@example.com\r\nBcc: d@example.com", "-fbounce@example.org") ? 0 : 1);"#;
    let sendmail = format!("sendmail_path={} -t -i", folder.path().join("sendmail").display());
    succeeds(Command::new("php").args(["-d", &sendmail, "-r", script]), &relay, folder.path());
    let received = upstream.wait_for(1);
    let to = ["<a@example.com>", "<b@example.com>", "<c@example.com>", "<d@example.com>"];
    assert_eq!(received[0].to, to);
    assert!(received[0].mail.starts_with("<bounce@example.org>"), "{}", received[0].mail);
    let text = received[0].text();
    assert!(text.contains("\r\nSubject: From PHP\r\n") && !text.contains("d@example.com"), "{text}");
    assert!(text.contains("\r\n\r\nline one\r\n.\r\nline two"), "{text}");
}

#[test]
fn mutt_goes_out() {
    if let Err(why) = runs("mutt", "-v") {
        return skip("mutt", &why);
    }
    let (upstream, relay, folder) = scene();
    let sendmail = folder.path().join("sendmail");
    let settings = format!(
        "set sendmail=\"{} -oem -oi\"\nset use_from=yes\nset from=\"me@example.org\"\nset use_envelope_from=yes\nset copy=no\n",
        sendmail.display()
    );
    fs::write(folder.path().join("muttrc"), settings).unwrap();
    fs::write(folder.path().join("text"), "gr\u{fc}\u{df}e\n.\nend\n").unwrap();
    let line = "mutt -F muttrc -s 'From mutt' -c cc@example.com -b bcc@example.com to@example.com < text";
    let mut shell = Command::new("sh");
    succeeds(shell.args(["-c", line]).env("LC_ALL", "C.UTF-8"), &relay, folder.path());
    let received = upstream.wait_for(1);
    let mut to = received[0].to.clone();
    to.sort();
    assert_eq!(to, ["<bcc@example.com>", "<cc@example.com>", "<to@example.com>"]);
    assert!(received[0].mail.starts_with("<me@example.org>"), "{}", received[0].mail);
    let text = received[0].text();
    assert!(text.contains("\r\nSubject: From mutt\r\n") && !text.contains("bcc@example.com"), "{text}");
    assert!(text.ends_with("\r\n.\r\nend\r\n"), "{text}");
}

#[test]
fn git_send_email_goes_out() {
    if let Err(why) = git_sends_email() {
        return skip("git send-email", &why);
    }
    let (upstream, relay, folder) = scene();
    let patch = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\nFrom: Me <me@example.org>\n\
                 Date: Mon, 23 Nov 2026 10:00:00 +0000\nSubject: [PATCH] one line\n\nWhy.\n---\n f | 1 +\n\ndiff --git a/f b/f\n";
    fs::write(folder.path().join("0001.patch"), patch).unwrap();
    let sendmail = format!("--smtp-server={}", folder.path().join("sendmail").display());
    let mut git = Command::new("git");
    // Debian's own, wherever another git is first on the path.
    git.args([
        "--exec-path=/usr/lib/git-core",
        "send-email",
        "--quiet",
        "--confirm=never",
        "--no-thread",
        "--suppress-cc=all",
    ]);
    git.args([
        &sendmail,
        "--from=me@example.org",
        "--to=list@example.com",
        "--cc=cc@example.com",
        "0001.patch",
    ]);
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    git.env("GIT_COMMITTER_NAME", "Me").env("GIT_COMMITTER_EMAIL", "me@example.org");
    git.env("GIT_AUTHOR_NAME", "Me").env("GIT_AUTHOR_EMAIL", "me@example.org");
    succeeds(&mut git, &relay, folder.path());
    let received = upstream.wait_for(1);
    assert_eq!(received[0].to, ["<list@example.com>", "<cc@example.com>"]);
    assert!(received[0].text().contains("\r\nSubject: [PATCH] one line\r\n"), "{}", received[0].text());
}

fn git_sends_email() -> Result<(), String> {
    match Path::new("/usr/lib/git-core/git-send-email").exists() {
        true => runs("git", "--version"),
        false => Err("git send-email is not installed".into()),
    }
}
