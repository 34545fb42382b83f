//! A module imports from lower floors only; siblings on a floor do not import each other. The table is the one in
//! `src/lib.rs`: it is read from there and held here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The table of `src/lib.rs`: module → floor. `a ← b ← c` on a floor is a stair of floors of its own.
fn table() -> BTreeMap<String, u32> {
    let map = fs::read_to_string(root().join("lib.rs")).unwrap();
    let mut floors = BTreeMap::new();
    for row in map.lines().filter_map(|l| l.strip_prefix("//! | ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let Some(first) = cells[0].split('–').next().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let stair = cells[1].contains('←');
        let names = cells[1].split(['[', ']', '`', ' ', '←', '/']).filter(|w| !w.is_empty());
        for (step, name) in (0u32..).zip(names) {
            floors.insert(name.to_owned(), first + if stair { step } else { 0 });
        }
    }
    floors
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The modules that a line names after `crate::` (in `main.rs` after `postroad::`), one or a list in braces.
fn named(line: &str, key: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (at, _) in line.match_indices(key) {
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + key.len()..];
        let word =
            |s: &str| s.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            None => out.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let top = list.split(|c: char| {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    depth == 0 && c == ','
                });
                out.extend(top.map(word));
            }
        }
    }
    out.retain(|w| !w.is_empty());
    out
}

/// The lines of a file, those of a `use` that spans several joined under the number of its first.
fn statements(text: &str) -> Vec<(usize, String)> {
    let mut out: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.trim();
        if code.starts_with("//") {
            continue;
        }
        if open && let Some(last) = out.last_mut() {
            last.1.push_str(code);
        } else {
            out.push((number, code.to_owned()));
        }
        let starts = code.starts_with("use ") || code.starts_with("pub use ");
        open = (open || starts) && !code.contains(';');
    }
    out
}

#[test]
fn a_module_imports_from_lower_floors_only() {
    let floors = table();
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let within = file.strip_prefix(root()).unwrap();
        let from = within.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if from == "lib" {
            continue;
        }
        let key = if from == "main" { "postroad::" } else { "crate::" };
        let Some(here) = floors.get(&from) else {
            wrong.push(format!("src/{}: `{from}` has no floor in src/lib.rs", within.display()));
            continue;
        };
        for (number, line) in statements(&fs::read_to_string(&file).unwrap()) {
            for to in named(&line, key).into_iter().filter(|to| *to != from) {
                match floors.get(&to) {
                    Some(there) if there < here => {}
                    // Macros and constants of the crate's root.
                    None if to.chars().next().is_some_and(char::is_uppercase) => {}
                    Some(_) | None => wrong.push(format!("src/{}:{number} {from} -> {to}", within.display())),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the floors of src/lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn the_table_names_each_module_and_the_reader_sees_each_import() {
    let floors = table();
    let declared = fs::read_to_string(root().join("lib.rs")).unwrap();
    for module in declared.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')) {
        assert!(floors.contains_key(module), "`{module}` has no floor");
    }
    assert!(
        floors["config"] < floors["relay"]
            && floors["relay"] < floors["cli"]
            && floors["cli"] < floors["main"]
    );
    assert_eq!(floors["smtp"], floors["store"]);
    assert_eq!(named("use crate::mail::Body;", "crate::"), ["mail"]);
    assert_eq!(named("use crate::{mail::{Body, Id}, store};", "crate::"), ["mail", "store"]);
    assert_eq!(named("let x = crate::flow::run(crate::esp::all());", "crate::"), ["flow", "esp"]);
    assert_eq!(statements("use crate::{\n    mail::Body,\n};\nfn f() {}")[0].1, "use crate::{mail::Body,};");
}
