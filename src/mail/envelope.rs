//! The envelope: who sent it and who gets it. It alone says who receives a message, never the headers.

use super::notify::Asks;
use crate::address::Address;

/// `MAIL FROM`: a mailbox, or `<>` for what must never bounce (RFC 5321 section 4.5.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReversePath {
    /// `<>`
    Null,
    /// `<a@b>`
    Mailbox(Address),
}

impl ReversePath {
    /// Between the angle brackets, as given.
    pub fn wire(&self) -> &str {
        match self {
            ReversePath::Null => "",
            ReversePath::Mailbox(a) => a.wire(),
        }
    }
}

/// `BODY=` of RFC 6152.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BodyKind {
    /// Only ASCII was announced.
    #[default]
    SevenBit,
    /// Octets above 127 may occur.
    EightBit,
}

/// What a client said before `DATA`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Where failures go.
    pub sender: ReversePath,
    /// Who gets it, each once, in the order given.
    pub recipients: Vec<Address>,
    /// What was announced about the body.
    pub body: BodyKind,
    /// Whether the client asked for SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// What was asked about reports (RFC 3461); `None`: nothing, as with nearly all mail.
    pub reports: Option<Box<Asks>>,
}

/// What a recipient takes of memory besides its octets: its places in the envelope and in the table of those known.
const RECIPIENT_OCTETS: usize = 96;

/// The memory that a recipient takes while its message is begun.
pub fn recipient_octets(recipient: &Address) -> usize {
    recipient.wire().len() + RECIPIENT_OCTETS
}
