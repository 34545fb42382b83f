//! With `--json` a program reads all that it is told: what was done, and what was not.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::relay::{Ran, binary};

/// Runs a command in a folder with this configuration.
fn run(folder: &Path, toml: &str, arguments: &[&str]) -> Ran {
    std::fs::write(folder.join("postroad.toml"), toml).unwrap();
    let output = Command::new(binary()).args(arguments).current_dir(folder).env_clear().output().unwrap();
    Ran::new(output)
}

fn error(ran: &Ran) -> Value {
    let whole: Value = serde_json::from_str(&ran.err).unwrap_or_else(|e| panic!("{e} in {:?}", ran.err));
    whole["error"].clone()
}

#[test]
fn check_tells_errors_and_warnings_as_it_tells_that_all_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let bad = "[server]\nhostnam = \"x\"\n[[listener]]\ncert = \"x\"\n";
    let ran = run(folder.path(), bad, &["check", "--json"]).must(2);
    let errors = json!([{
        "file": "postroad.toml", "line": 2, "key": "server.hostnam", "hint": "hostname",
        "message": "unknown key; did you mean hostname?",
    }]);
    let warnings = json!([{
        "file": "postroad.toml", "line": 4, "key": "listener[0].cert", "message": "is not used: tls is off",
    }]);
    assert_eq!(ran.json(), [json!({ "ok": false, "errors": errors, "warnings": warnings })]);
    assert_eq!(ran.err, "");
    let good = run(folder.path(), "[[listener]]\ncert = \"x\"\n", &["check", "--json"]).must(0).json();
    assert_eq!((&good[0]["ok"], &good[0]["warnings"][0]["line"]), (&json!(true), &json!(2)));
}

#[test]
fn each_failure_is_an_object_with_its_code() {
    let folder = tempfile::tempdir().unwrap();
    let good = &format!("[server]\ndata_dir = \"{}\"\n", folder.path().join("data").display());
    for (toml, arguments, rc, code) in [
        (good.as_str(), &["queue", "list", "--json"][..], 4, "no_relay"),
        (good, &["queue", "rm", "0000000000009", "--json"], 4, "no_relay"),
        (good, &["queue", "list", "--json", "--state", "lost"], 2, "usage"),
        (good, &["queue", "list", "--json", "--url", "http://127.0.0.1:1"], 2, "usage"),
        ("[server]\ndata_dir = 1\n", &["queue", "list", "--json"], 2, "configuration"),
        ("[server]\ndata_dir = 1\n", &["serve", "--json"], 2, "configuration"),
    ] {
        let ran = run(folder.path(), toml, arguments).must(rc);
        let error = error(&ran);
        assert_eq!(error["code"], code, "{arguments:?}: {error}");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{arguments:?}: {error}");
        assert_eq!(ran.out, "");
        if code == "configuration" {
            assert_eq!(
                (&error["problems"][0]["line"], &error["problems"][0]["key"]),
                (&json!(2), &json!("server.data_dir"))
            );
        }
    }
}
