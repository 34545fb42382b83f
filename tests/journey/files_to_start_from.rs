//! `new-config`, `completions`, `check --connect`: what needs neither a relay nor a data directory.

use std::process::Command;

use crate::support::relay::{Ran, binary, free_port};
use crate::support::upstream::Manner;
use crate::support::{Relay, Upstream};

fn run(arguments: &[&str], folder: &std::path::Path, env: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder).env_clear().envs(env.iter().copied());
    Ran::new(command.output().unwrap())
}

#[test]
fn what_new_config_prints_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let env = [("SENDGRID_API_KEY", "SG.s3cret"), ("SMTP_HOST", "mail.example.net")];
    for arguments in [&["new-config"][..], &["new-config", "--from-env"]] {
        let made = run(arguments, folder.path(), &env);
        assert_eq!(made.code, 0, "{}", made.err);
        assert!(!made.out.contains("s3cret"));
        std::fs::write(folder.path().join("postroad.toml"), &made.out).unwrap();
        let checked = run(&["check"], folder.path(), &env);
        assert_eq!(checked.code, 0, "{}\n{}", checked.err, made.out);
    }
    let none = run(&["new-config", "--from-env"], folder.path(), &[]);
    assert!(none.code == 2 && none.err.contains("SENDGRID_API_KEY"), "{}", none.err);
    let unused = run(&["new-config", "--from-env"], folder.path(), &[("AWS_ACCESS_KEY_ID", "AKIA")]);
    assert!(unused.code == 2 && unused.err.contains("set AWS_REGION") && unused.out.is_empty(), "{unused:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else was made");
}

#[test]
fn a_file_and_a_script_are_no_objects() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["new-config", "--json"][..], &["completions", "bash", "--json"]] {
        let ran = run(arguments, folder.path(), &[]);
        assert!(ran.code == 2 && ran.out.is_empty(), "{ran:?}");
        let told: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
        assert_eq!(told["error"]["code"], "usage");
    }
}

#[test]
fn every_shell_gets_its_completions() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let made = run(&["completions", shell], folder.path(), &[]);
        assert!(made.code == 0 && made.out.contains("sendmail"), "{shell}: {}", made.err);
    }
    assert_eq!(run(&["completions", "csh"], folder.path(), &[]).code, 2);
}

#[test]
fn check_connect_logs_in_to_each_esp_and_sends_nothing() {
    let manner = Manner { auth: Some(("PLAIN LOGIN", "u", "right-1")), ..Manner::default() };
    let (good, strict) = (Upstream::start(), Upstream::with(manner));
    let login = |password| format!("username = \"u\"\npassword = \"{password}\"");
    let gone = format!(
        "[[esp]]\nname = \"gone\"\ntype = \"smtp\"\naddress = \"127.0.0.1:{}\"\ntls = \"off\"\n",
        free_port()
    );
    let relay = Relay::setup()
        .upstream(&good, "")
        .upstream(&strict, &login("right-1"))
        .upstream(&strict, &login("wr0ng-pass"))
        .tables(&gone)
        .start();
    let ran = relay.cli(&["check", "--connect"]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    for told in ["up1: connected\n", "up2: connected and logged in\n", "up3: 535", "gone: "] {
        assert!(ran.out.contains(told), "{told}: {}", ran.out);
    }
    assert!(ran.err.contains("2 of 4") && !ran.out.contains("wr0ng-pass"), "{} {}", ran.err, ran.out);
    let lines = relay.cli(&["check", "--connect", "--json"]).out;
    let told: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(told.iter().any(|l| l["esp"] == "up1" && l["ok"] == true), "{lines}");
    assert!(told.iter().any(|l| l["esp"] == "gone" && l["ok"] == false && l["said"].is_string()), "{lines}");
    assert_eq!((good.count(), strict.count()), (0, 0));
}
