//! The corpus: messages of every shape, each with the envelope that its app would give it.

use std::fs;
use std::path::Path;

use mail_parser::{Address, MessageParser};

/// Somebody whom no message names.
pub const HIDDEN: &str = "hidden@elsewhere.example";

/// One message and whom it names.
pub struct Letter {
    pub name: String,
    pub raw: Vec<u8>,
    pub from: String,
    pub to: Vec<String>,
    pub cc: Vec<String>,
}

impl Letter {
    /// Everybody whom it names, and somebody whom it does not.
    pub fn envelope(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for address in self.to.iter().chain(&self.cc).map(String::as_str).chain([HIDDEN]) {
            if !all.iter().any(|known| known.eq_ignore_ascii_case(address)) {
                all.push(address.to_owned());
            }
        }
        all
    }

    /// The same without the first that To names.
    pub fn envelope_of_the_others(&self) -> Option<Vec<String>> {
        let first = self.to.first()?;
        Some(self.envelope().into_iter().filter(|to| !to.eq_ignore_ascii_case(first)).collect())
    }
}

/// All of them, by name.
pub fn letters() -> Vec<Letter> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/corpus");
    let mut letters: Vec<Letter> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "eml"))
        .map(|path| {
            letter(path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
        })
        .collect();
    letters.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(letters.len() >= 80, "{} messages in {}", letters.len(), folder.display());
    letters
}

/// As SMTP has it: the lines of each end with CR LF.
fn letter(name: String, written: Vec<u8>) -> Letter {
    let mut raw = Vec::with_capacity(written.len());
    for octet in written {
        if octet == b'\n' && raw.last() != Some(&b'\r') {
            raw.push(b'\r');
        }
        raw.push(octet);
    }
    let message = MessageParser::default().parse(&raw).unwrap();
    let from = addresses(message.from()).into_iter().next().unwrap_or_else(|| "shop@shop.example".to_owned());
    let to = message.all_to().flat_map(|to| addresses(Some(to))).collect();
    let cc = message.all_cc().flat_map(|cc| addresses(Some(cc))).collect();
    Letter { name, from, to, cc, raw }
}

/// Those that can stand in an envelope, each without the route before it.
fn addresses(list: Option<&Address<'_>>) -> Vec<String> {
    let all = list.into_iter().flat_map(|list| list.iter()).filter_map(|one| one.address());
    let bare = |a: &str| {
        a.strip_prefix('@').and_then(|a| a.split_once(':')).map_or(a.to_owned(), |(_, a)| a.to_owned())
    };
    all.map(bare).filter(|a| a.contains('@') && !a.contains([' ', '<', '>', ',', ';'])).collect()
}
