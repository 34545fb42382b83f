//! What each ESP needs and what its answers mean. Touches no socket, no clock and no database.

pub mod sandbox;
pub mod settings;
pub mod smtp;

use std::fmt::Debug;

use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::{AttemptId, Message, Outcome, Reply, Request, ReversePath};

/// A message and exactly those of its recipients that one call carries.
#[derive(Debug, Clone, Copy)]
pub struct Parcel<'a> {
    /// The message.
    pub message: &'a Message,
    /// Whom this call is for.
    pub recipients: &'a [Address],
    /// The call's id, planted in the ESP's own metadata where it has any.
    pub attempt: AttemptId,
}

/// Why an ESP cannot carry a parcel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(pub String);

/// One ESP: how a parcel becomes a request, and what its reply means for each recipient.
pub trait Esp: Send + Sync + Debug {
    /// The request for exactly these recipients, or why there is none.
    fn compose(&self, parcel: Parcel<'_>, now: Timestamp) -> Result<Request, Unfit>;

    /// The envelope sender that it is told for a message of that one.
    fn sender<'a>(&'a self, own: &'a ReversePath) -> &'a ReversePath {
        own
    }

    /// One outcome a recipient, in the parcel's order.
    fn read(&self, parcel: Parcel<'_>, reply: &Reply, now: Timestamp) -> Vec<Outcome>;
}
