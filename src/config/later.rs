//! Keys that have their place but do nothing yet. Each is taken only with its default: a key that is silently without
//! effect would be worse than an error. Whoever makes one work deletes its row.

use super::reader::Reader;

/// Section, key, its default as TOML.
const LATER: &[(&str, &str, &str)] = &[
    ("server", "secret", "\"\""),
    ("stream", "suppressed", "\"reject\""),
    ("stream", "subscribers_only", "false"),
    ("stream", "unsubscribe", "true"),
    ("esp", "warmup", "{}"),
    ("esp", "pull", "\"\""),
    ("dns", "resolvers", "[]"),
    ("dns", "timeout", "\"2s\""),
    ("dns", "recheck", "\"6h\""),
];

/// Sections of which not even an empty table is available.
const LATER_SECTIONS: &[&str] = &["domain"];

/// The default of a key that is not available yet.
pub(super) fn default_of(section: &str, key: &str) -> Option<&'static str> {
    LATER.iter().find(|(s, k, _)| *s == section && *k == key).map(|(.., default)| *default)
}

/// The keys of a section that are not available yet.
pub(super) fn keys_of(section: &str) -> impl Iterator<Item = &'static str> {
    LATER.iter().filter(move |(s, ..)| *s == section).map(|(_, key, _)| *key)
}

/// Reads the sections of which nothing is available yet.
pub(super) fn check(reader: &mut Reader<'_>) {
    reader.one("dns").finish(&[]);
    for section in LATER_SECTIONS {
        for (n, table) in reader.tables(section).into_iter().enumerate() {
            let mut t = reader.nth(section, n, Some(table));
            t.problem("", format!("[[{section}]] is not available in this version; leave it out"));
        }
    }
}
