//! The files under `config/`: good as they are, complete, and true about the defaults.

use std::collections::BTreeSet;

use super::*;

const CONFIG_FILE: &str = include_str!("../../../config/postroad.toml");

/// The keys of `config/postroad.toml`, also those in comments (`#key = value`, without a blank), by section.
pub(super) fn keys_of_config_file() -> BTreeSet<(String, String)> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in CONFIG_FILE.lines() {
        let line = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).to_string();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.insert((section.clone(), key.to_string()));
        }
    }
    keys
}

#[test]
fn the_file_to_start_from_says_the_defaults() {
    // But that it names the sandbox.
    assert_eq!(read(CONFIG_FILE), Config { esps_written: true, ..read("") });
}

#[test]
fn the_file_to_start_from_has_every_key_and_no_other() {
    let folder = Folder::with(&[("postroad.toml", &here(&uncommented(CONFIG_FILE)))])
        .certificate("tls.crt", "tls.key")
        .certificate("ca.pem", "ca.key")
        .set("SHOP_PASSWORD", "x")
        .set("ESP_PASSWORD", "x")
        .set("SENDGRID_API_KEY", "x")
        .set("AWS_ACCESS_KEY_ID", "x")
        .set("AWS_SECRET_ACCESS_KEY", "x")
        .set("POSTMARK_API_KEY", "x")
        .set("POSTMARK_WEBHOOK_PASSWORD", "x")
        .set("POSTMARK_WEBHOOK_PROOF", "x")
        .set("ESP_CLIENT_SECRET", "x")
        .set("ESP_REFRESH_TOKEN", "x")
        .set("NOTIFY_SECRET", "x")
        .set("POSTROAD_ADMIN_TOKEN", "x");
    let document = Document::find(None, &folder.environment).unwrap();
    let mut reader = Reader::new(&document.root, &document.sources);
    Config::read(&mut reader, "host.test");
    assert_eq!(reader.problems, [], "an example in a comment is wrong");
    let owned = |(section, key): &(&str, &str)| ((*section).to_string(), (*key).to_string());
    assert_eq!(keys_of_config_file(), reader.known.iter().map(owned).collect());
}

/// The file with its paths leading into the folder.
fn here(toml: &str) -> String {
    toml.replace("/etc/postroad/", "")
}

/// A file with its commented examples made real.
fn uncommented(file: &str) -> String {
    let real = |line: &str| match line.strip_prefix('#') {
        Some(example) if !example.starts_with([' ', '#']) => format!("{example}\n"),
        _ => format!("{line}\n"),
    };
    file.lines().map(real).collect()
}

#[test]
fn the_files_for_production_and_for_apps_you_cannot_change_are_good() {
    let production = include_str!("../../../config/production.toml");
    is_good(production);
    is_good(&uncommented(production));
    is_good(include_str!("../../../examples/apps_you_cannot_change.toml"));
}

#[track_caller]
fn is_good(toml: &str) {
    let toml = &here(toml);
    let names = toml.split("\"env:").skip(1).filter_map(|rest| rest.split('"').next());
    let mut folder = Folder::with(&[("postroad.toml", toml)]).certificate("tls.crt", "tls.key");
    for name in names {
        folder = folder.set(name, "secret");
    }
    let loaded = folder.load().unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.warnings, []);
}
