//! What moves together: deliveries that the same ESPs may carry, whatever else sets them apart.

use std::sync::Arc;

use super::message::Message;
use super::stream::{StreamKind, StreamName};

/// The domain rules of the configuration that bear on a delivery: which entry of `[[esp]] recipients` names its
/// recipient, and which of `[[esp]] domains` its From.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rule {
    /// `@corp.example.com`, or an address.
    pub to: Option<Arc<str>>,
    /// `shop.example.com`.
    pub from: Option<Arc<str>>,
}

/// A stream, a pin and a rule. There are few lanes: all three come from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    /// The stream.
    pub stream: StreamName,
    /// That stream's kind.
    pub kind: StreamKind,
    /// The one ESP that may carry it.
    pub pin: Option<String>,
    /// See [`Rule`].
    pub rule: Rule,
}

impl Lane {
    /// The lane of a message's deliveries under that rule.
    pub fn of(message: &Message, rule: Rule) -> Self {
        Lane { stream: message.stream.clone(), kind: message.kind, pin: message.pin.clone(), rule }
    }

    /// Whether a message's deliveries under that rule move in it.
    pub fn holds(&self, message: &Message, rule: &Rule) -> bool {
        self.kind == message.kind
            && self.stream == message.stream
            && self.pin == message.pin
            && self.rule == *rule
    }
}
