//! The systemic guard: an ESP that refuses many different recipients in a row, and takes none between, is itself the
//! fault. From then on such a refusal is no bounce, until one is accepted. Pure.

use std::collections::HashSet;

/// From the refusal of so many different recipients on…
const RECIPIENTS: usize = 5;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// The keys of those refused since one was accepted; no more than [`RECIPIENTS`].
    refused: HashSet<String>,
}

impl Guard {
    /// One was accepted. `true`: the guard was up until now.
    pub fn accepted(&mut self) -> bool {
        let was_up = self.is_up();
        self.refused.clear();
        was_up
    }

    /// One was refused for good. `true`: this raised it.
    pub fn refused(&mut self, recipient_key: &str) -> bool {
        if self.is_up() || self.refused.contains(recipient_key) {
            return false;
        }
        self.refused.insert(recipient_key.to_owned());
        self.is_up()
    }

    /// Whether none was refused since one was accepted.
    pub fn is_clear(&self) -> bool {
        self.refused.is_empty()
    }

    /// Whether a refusal of a recipient is the ESP's fault now.
    pub fn is_up(&self) -> bool {
        self.refused.len() >= RECIPIENTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fifth_different_recipient_in_a_row_raises_it_and_one_accepted_lowers_it() {
        let mut guard = Guard::default();
        for key in ["a", "b", "a", "c", "d", "d"] {
            assert!(!guard.refused(key));
        }
        assert!(guard.refused("e") && guard.is_up());
        assert!(!guard.refused("f"), "once");
        assert!(guard.accepted() && !guard.is_up());
        for key in ["a", "b", "c", "d"] {
            guard.refused(key);
        }
        assert!(!guard.accepted());
        assert!(!guard.refused("e"), "one was accepted between");
    }
}
