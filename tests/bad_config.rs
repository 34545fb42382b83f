//! What a faulty configuration is told: each folder under `bad_config/` has a file and the whole of what is said.

use std::path::{Path, PathBuf};

use postroad::config::{Config, Environment};

#[test]
fn every_fault_is_told_with_its_line_and_what_to_do() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_config");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 20, "only {} cases were found", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let expected = std::fs::read_to_string(case.join("expected-error")).unwrap();
        let said = match Config::load(None, &Environment::empty(&case)) {
            Ok(_) => "nothing is wrong".to_string(),
            Err(problems) => problems.to_string(),
        };
        if said != expected.trim_end() {
            wrong += &format!("{}\n  expected\n{expected}  said\n{said}\n\n", case.display());
        }
        assert!(!said.contains("hunter2"), "{} shows a secret", case.display());
    }
    assert!(wrong.is_empty(), "{wrong}");
}
