//! What became of a call, per recipient: in the relay's words, whatever the ESP said.

use std::time::Duration;

use crate::clock::Timestamp;

/// The result of one call for one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The ESP took it and is answerable for it.
    Accepted {
        /// The ESP's own id for it, where it told one.
        remote_id: Option<String>,
        /// Its words.
        said: String,
    },
    /// The ESP said no.
    Refused {
        /// Whose fault it is.
        fault: Fault,
        /// Whether it will say no again (a 5xx).
        lasting: bool,
        /// How long it asked to wait.
        wait: Option<Duration>,
        /// Its words.
        said: String,
    },
    /// This ESP cannot carry this message; another may. Nobody's fault.
    Unfit {
        /// What would be lost or is not offered.
        why: String,
    },
    /// The body was handed over and no answer came: neither yes nor no.
    Unsure {
        /// What was seen.
        said: String,
    },
}

/// Whose fault a refusal is. Only `Account` and `Path` touch an ESP's health; only `Recipient` may suppress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// This address.
    Recipient,
    /// This content.
    Message,
    /// Whom it comes from: not set up at this ESP.
    Sender(Named),
    /// Our account there: key, suspension, balance.
    Account,
    /// The way there: DNS, connection, TLS, their server.
    Path,
    /// Too much for now.
    Throttled(Throttle),
}

/// Which of a message's two senders an ESP refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named {
    /// The address in MAIL FROM.
    Envelope,
    /// The domain in the From field.
    From,
}

/// How a throttle is lifted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Throttle {
    /// Too fast: slow down.
    Rate,
    /// A quota is spent until then.
    Window(Timestamp),
    /// This transaction has as many recipients as it may have: the next one has room (RFC 5321 section 4.5.3.1.10).
    Transaction,
}

impl Fault {
    /// The word in logs and in the database.
    pub fn word(self) -> &'static str {
        match self {
            Fault::Recipient => "recipient",
            Fault::Message => "message",
            Fault::Sender(_) => "sender",
            Fault::Account => "account",
            Fault::Path => "path",
            Fault::Throttled(_) => "throttled",
        }
    }
}

impl Outcome {
    /// The word in logs, metrics and the database.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Accepted { .. } => "accepted",
            Outcome::Refused { .. } => "refused",
            Outcome::Unfit { .. } => "unfit",
            Outcome::Unsure { .. } => "unsure",
        }
    }

    /// The same, with these words before its own.
    #[must_use]
    pub fn behind(mut self, words: &str) -> Self {
        let said = match &mut self {
            Outcome::Accepted { said, .. } | Outcome::Refused { said, .. } | Outcome::Unsure { said } => said,
            Outcome::Unfit { why } => why,
        };
        said.insert_str(0, words);
        self
    }

    /// The other side's words, or ours where it had none.
    pub fn said(&self) -> &str {
        match self {
            Outcome::Accepted { said, .. } | Outcome::Refused { said, .. } | Outcome::Unsure { said } => said,
            Outcome::Unfit { why } => why,
        }
    }
}
