//! How each ESP is spoken to, kept from one configuration to the next where nothing of it has changed: its connections
//! stay open over a reload.

use std::collections::HashMap;
use std::sync::Arc;

use super::wire_settings;
use crate::config::ServerSettings;
use crate::esp;
use crate::esp::settings::{EspKind, EspSettings};
use crate::flow::chunks::StoreChunks;
use crate::flow::setup::Line;
use crate::store::Store;
use crate::wire::{self, Wire};

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
    match kind {
        EspKind::Smtp(smtp) => smtp.ca_file.as_ref().and_then(|file| std::fs::read(file).ok()),
        EspKind::Sandbox { .. } => None,
    }
}

fn line(made_of: &MadeOf, store: &Store) -> Arc<Line> {
    let (esp, wire): (Box<dyn esp::Esp>, Arc<dyn Wire>) = match &made_of.kind {
        EspKind::Smtp(smtp) => {
            let chunks = Arc::new(StoreChunks(store.clone()));
            let wire = wire::smtp::SmtpWire::new(wire_settings(smtp, &made_of.hostname), chunks);
            let envelope_from = smtp.envelope_from.clone().map(crate::mail::ReversePath::Mailbox);
            let reports = made_of.dsn_from || envelope_from.is_none();
            (Box::new(esp::smtp::Smtp { envelope_from, reports }), Arc::new(wire))
        }
        EspKind::Sandbox { .. } => (Box::new(esp::sandbox::Sandbox), Arc::new(wire::sandbox::SandboxWire)),
    };
    Arc::new(Line { esp, wire })
}
