//! What a token may do: the five scopes, and sets of them.

use std::fmt;
use std::str::FromStr;

use utoipa::ToSchema;

/// One thing that a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Scope {
    /// Look: the queue, messages, ESPs.
    Read,
    /// Hand mail in.
    Send,
    /// Act on the queue.
    Queue,
    /// Suppressions and subscribers.
    Lists,
    /// Everything, and alone: ESPs, tokens, the relay itself.
    Admin,
}

/// In the order of the manual.
pub const SCOPES: [Scope; 5] = [Scope::Read, Scope::Send, Scope::Queue, Scope::Lists, Scope::Admin];

impl Scope {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Send => "send",
            Scope::Queue => "queue",
            Scope::Lists => "lists",
            Scope::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = SCOPES.map(Scope::word).join(", ");
        let found = SCOPES.into_iter().find(|scope| scope.word() == text);
        found.ok_or_else(|| format!("{text:?} is no scope; there are {known}"))
    }
}

/// What one token may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// These, each once and in the manual's order.
    pub fn of(scopes: &[Scope]) -> Self {
        Scopes(SCOPES.into_iter().filter(|scope| scopes.contains(scope)).collect())
    }

    /// Words with blanks between, as the database has them; words of a later version count for nothing.
    pub fn read(words: &str) -> Self {
        let scopes: Vec<Scope> = words.split(' ').filter_map(|word| word.parse().ok()).collect();
        Scopes::of(&scopes)
    }

    /// Whether they let a route be used that wants `scope`: `admin` lets all.
    pub fn allow(&self, scope: Scope) -> bool {
        self.0.contains(&scope) || self.0.contains(&Scope::Admin)
    }

    /// Their words.
    pub fn words(&self) -> Vec<&'static str> {
        self.0.iter().map(|scope| scope.word()).collect()
    }

    /// Whether they allow nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_lets_all_and_the_others_themselves_alone() {
        for scope in SCOPES {
            assert!(Scopes::of(&[Scope::Admin]).allow(scope));
            assert_eq!(scope.word().parse(), Ok(scope));
            for other in SCOPES.into_iter().filter(|s| *s != Scope::Admin) {
                assert_eq!(Scopes::of(&[other]).allow(scope), other == scope);
            }
            assert!(!Scopes::default().allow(scope));
        }
        assert!("Read".parse::<Scope>().is_err());
        assert_eq!(Scopes::read("send fly read send").words(), ["read", "send"]);
    }
}
