//! How each ESP is spoken to, kept from one configuration to the next where nothing of it has changed: its connections
//! stay open over a reload. Access tokens stay with their grant, whatever else changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::doors::{self, House};
use crate::config::ServerSettings;
use crate::esp::settings::{EspKind, EspSettings};
use crate::flow::chunks::StoreChunks;
use crate::flow::setup::Line;
use crate::mail::Grant;
use crate::store::Store;
use crate::wire::smtp::Tokens;

/// Grants whose tokens are kept although no ESP has them now: the relay alone may hold a refresh token that is good.
const OLD_GRANTS_MAX: usize = 1_000;

/// Lines by the names of their ESPs.
#[derive(Debug, Default)]
pub(super) struct Lines {
    by_name: HashMap<String, Known>,
    /// One for each grant: who has the same shares its tokens.
    tokens: Vec<Arc<Tokens>>,
}

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
        self.remember(&before.tokens);
        let same = before.by_name.get(&settings.name).filter(|known| known.made_of == made_of);
        let line = match same {
            Some(known) => Arc::clone(&known.line),
            None => {
                let lines = std::cell::RefCell::new(&mut *self);
                line(&made_of, store, &|grant| lines.borrow_mut().tokens(grant))
            }
        };
        self.by_name.insert(settings.name.clone(), Known { made_of, line: Arc::clone(&line) });
        line
    }

    /// The tokens of that grant, with what is known of them.
    fn tokens(&mut self, grant: &Grant) -> Arc<Tokens> {
        if let Some(known) = self.tokens.iter().find(|tokens| tokens.grant() == grant) {
            return Arc::clone(known);
        }
        let new = Arc::new(Tokens::after(grant.clone(), &self.tokens));
        self.tokens.push(Arc::clone(&new));
        new
    }

    /// Takes over what was known, once.
    fn remember(&mut self, before: &[Arc<Tokens>]) {
        if !self.by_name.is_empty() {
            return;
        }
        // A line holds it, or it holds what no file does.
        let kept = before.iter().filter(|tokens| tokens.is_rotated() || Arc::strong_count(tokens) > 1);
        let kept: Vec<_> = kept.cloned().collect();
        self.tokens = kept[kept.len().saturating_sub(OLD_GRANTS_MAX)..].to_vec();
    }

    /// The names of their ESPs.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.by_name.keys()
    }

    /// Whether that ESP's `ca_file` has the name that it had and other content.
    pub(super) fn ca_differs(&self, later: &Lines, esp: &str) -> bool {
        let (Some(before), Some(after)) = (self.by_name.get(esp), later.by_name.get(esp)) else {
            return false;
        };
        before.made_of.kind == after.made_of.kind && before.made_of.ca != after.made_of.ca
    }
}

/// The configuration has checked that it can be read.
fn ca_of(kind: &EspKind) -> Option<Vec<u8>> {
    kind.ca_file().and_then(|file| std::fs::read(file).ok())
}

fn line(made_of: &MadeOf, store: &Store, tokens: &dyn Fn(&Grant) -> Arc<Tokens>) -> Arc<Line> {
    let house = House {
        hostname: &made_of.hostname,
        own_reports: made_of.dsn_from,
        chunks: Arc::new(StoreChunks(store.clone())),
        tokens,
    };
    let (esp, wire) = doors::open(&made_of.kind, &house);
    Arc::new(Line { esp, wire })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::GrantKind;
    use crate::secret::Secret;

    fn grant(client_secret: &str) -> Grant {
        Grant {
            token_url: "https://login.example/token".into(),
            ca_file: None,
            client_id: "id".into(),
            scope: None,
            kind: GrantKind::ClientCredentials { client_secret: Secret::new(client_secret) },
        }
    }

    #[test]
    fn who_has_the_same_grant_shares_its_tokens_also_after_a_reload() {
        let mut lines = Lines::default();
        let shared = lines.tokens(&grant("one"));
        assert!(Arc::ptr_eq(&shared, &lines.tokens(&grant("one"))));
        assert!(!Arc::ptr_eq(&shared, &lines.tokens(&grant("two"))));
        let mut later = Lines::default();
        later.remember(&lines.tokens);
        assert_eq!(later.tokens.len(), 1, "no line has the other, and nothing was heard");
        assert!(Arc::ptr_eq(&shared, &later.tokens(&grant("one"))));
    }
}
