//! How each ESP is spoken to, kept from one configuration to the next where nothing of it has changed: its connections
//! stay open over a reload.

use std::collections::HashMap;
use std::sync::Arc;

use super::doors::{self, House};
use crate::config::ServerSettings;
use crate::esp::settings::{EspKind, EspSettings};
use crate::flow::chunks::StoreChunks;
use crate::flow::setup::Line;
use crate::store::Store;

/// Lines by the names of their ESPs.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<String, Known>);

#[derive(Debug)]
struct Known {
    made_of: MadeOf,
    line: Arc<Line>,
}

/// All that a line depends on.
#[derive(Debug, PartialEq)]
struct MadeOf {
    kind: EspKind,
    hostname: String,
    /// Reports come from an address of the relay's own.
    dsn_from: bool,
    /// What is in `ca_file`; it is read once a line.
    ca: Option<Vec<u8>>,
}

impl Lines {
    /// The line of that ESP: the one of `before` where it would be the same.
    pub(super) fn line(
        &mut self,
        before: &Lines,
        settings: &EspSettings,
        server: &ServerSettings,
        store: &Store,
    ) -> Arc<Line> {
        let made_of = MadeOf {
            kind: settings.kind.clone(),
            hostname: server.hostname.clone(),
            dsn_from: server.dsn_from.is_some(),
            ca: ca_of(&settings.kind),
        };
        let same = before.0.get(&settings.name).filter(|known| known.made_of == made_of);
        let line = same.map_or_else(|| line(&made_of, store), |known| Arc::clone(&known.line));
        self.0.insert(settings.name.clone(), Known { made_of, line: Arc::clone(&line) });
        line
    }

    /// The names of their ESPs.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Whether that ESP's `ca_file` has the name that it had and other content.
    pub(super) fn ca_differs(&self, later: &Lines, esp: &str) -> bool {
        let (Some(before), Some(after)) = (self.0.get(esp), later.0.get(esp)) else { return false };
        before.made_of.kind == after.made_of.kind && before.made_of.ca != after.made_of.ca
    }
}

/// The configuration has checked that it can be read.
fn ca_of(kind: &EspKind) -> Option<Vec<u8>> {
    kind.ca_file().and_then(|file| std::fs::read(file).ok())
}

fn line(made_of: &MadeOf, store: &Store) -> Arc<Line> {
    let house = House {
        hostname: &made_of.hostname,
        own_reports: made_of.dsn_from,
        chunks: Arc::new(StoreChunks(store.clone())),
    };
    let (esp, wire) = doors::open(&made_of.kind, &house);
    Arc::new(Line { esp, wire })
}
