//! What each ESP needs and what its answers mean. Touches no socket, no clock and no database.

mod answers;
mod class;
#[cfg(test)]
mod could_carry_tests;
mod fields;
mod full_house;
pub mod hook;
mod json;
mod phrases;
pub mod postmark;
pub mod sandbox;
pub mod sendgrid;
pub mod ses;
pub mod settings;
pub mod setup;
pub mod smtp;
mod stopped;
#[cfg(test)]
mod testing;
pub mod webhook;
mod words;

pub use answers::retry_after;

use std::fmt::Debug;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use self::setup::{Api, Arranged, Trial, Wanted};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::quota::Told;
use crate::mail::{AttemptId, HttpReply, Message, Outcome, Planted, Reply, Request, ReversePath};
use crate::secret::Secret;

/// A message and exactly those of its recipients that one call carries.
#[derive(Debug, Clone, Copy)]
pub struct Parcel<'a> {
    /// The message.
    pub message: &'a Message,
    /// Its whole content, where [`Esp::wants_whole`] asked for it and there was memory for it.
    pub whole: Option<&'a Bytes>,
    /// Whom this call is for.
    pub recipients: &'a [Address],
    /// The call's id, planted in the ESP's own metadata where it has any.
    pub attempt: AttemptId,
}

/// What there is of a message's content to judge by, before it is accepted.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// All of it.
    Whole(&'a Bytes),
    /// Its beginning, with the header block; the rest lies on disk.
    Beginning,
    /// The same, of one that is too large for a request to be composed of it in this relay's memory.
    TooLarge,
}

/// What a way may lose of a message. Where there is another way it is to lose nothing; else small things go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Losses {
    /// None.
    None,
    /// What few would miss, see [`crate::mail::parts::Parts::small_loss`].
    Small,
}

impl Parcel<'_> {
    /// What goes with the call and comes back with its events.
    pub fn planted(&self) -> Planted {
        Planted { message: self.message.id, attempt: self.attempt }
    }
}

/// Why an ESP cannot carry a parcel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(pub String);

/// Whether one call takes all of a message's recipients. An API that makes To and Cc of whom it mails needs that: a call
/// for some of them would show an address that it must not mail, or nobody.
fn in_one_call(message: &Message, most: u32) -> Result<(), String> {
    let recipients = message.envelope.recipients.len();
    match recipients <= most as usize {
        true => Ok(()),
        false => Err(format!(
            "it shows whom it mails, so that one call has to be for all {recipients} recipients, and a call takes {most}"
        )),
    }
}

/// How an ESP's HTTP API is spoken to, for the wire.
#[derive(Debug, Clone)]
pub struct ApiDoor {
    /// `https://api.example.net`, without a `/` at its end.
    pub base: String,
    /// The field that proves who asks: its name in lower case, what stands before the secret, and the secret.
    pub key: (&'static str, &'static str, Secret),
    /// Fields of every request, beside `content-type: application/json`.
    pub fields: &'static [(&'static str, &'static str)],
    /// A GET that shows whether the key is good.
    pub probe_path: &'static str,
    /// What its answer means: what works, or what does not.
    pub judge_probe: fn(&HttpReply) -> Result<String, String>,
}

/// One ESP: how a parcel becomes a request, and what its reply means for each recipient.
pub trait Esp: Send + Sync + Debug {
    /// The request for exactly these recipients, or why there is none.
    fn compose(&self, parcel: Parcel<'_>, now: Timestamp) -> Result<Request, Unfit>;

    /// The request for its SMTP endpoint, where the API answered that it cannot carry this parcel after all. `None`: there is
    /// no other door, or it cannot either.
    fn by_other_door(&self, _parcel: Parcel<'_>) -> Option<Request> {
        None
    }

    /// Whether it composes from the whole content, not from its beginning alone.
    fn wants_whole(&self, _message: &Message) -> bool {
        false
    }

    /// So many recipients fit into one call; a message for more goes in several.
    fn recipients_max(&self) -> u32 {
        u32::MAX
    }

    /// Whether it could ever carry such a message, whichever of its recipients a call is for, by its content, its labels
    /// and these settings alone: what [`Esp::compose`] would find unfit each time is told here, before the message is
    /// accepted, and costs no composing. So is one for more recipients than a call takes that cannot be parted, see
    /// `in_one_call`: some of them could never be served. What lies on disk is not judged. One that has no place for
    /// labels leaves them to the relay, which keeps them.
    fn could_carry(&self, _message: &Message, _content: Content<'_>) -> Result<(), Unfit> {
        Ok(())
    }

    /// Whether it takes such an address as a recipient, whatever the message.
    fn takes(&self, _to: &Address) -> Result<(), Unfit> {
        Ok(())
    }

    /// What the ESP says that it may be given, out of what it told of the account; or what is wrong with that.
    fn told(&self, _account: &HttpReply) -> Result<Told, String> {
        Err("this type of ESP tells no limits".to_owned())
    }

    /// The envelope sender that it is told for a message of that one.
    fn sender<'a>(&'a self, own: &'a ReversePath) -> &'a ReversePath {
        own
    }

    /// Whether it says that the request itself is not as it should be: a mistake of the relay's or in its settings, which
    /// no sender of mail could mend.
    fn blames_request(&self, _reply: &Reply) -> bool {
        false
    }

    /// Whether it tells later, by a webhook, what became of a message.
    fn tells_events(&self) -> bool {
        false
    }

    /// Looks whether its webhook is as it should be and, where `apply` says so, makes it so; nothing of others is touched,
    /// and nothing is taken away. `None`: it has none.
    fn set_up<'a>(
        &'a self,
        _wanted: Wanted<'a>,
        _apply: bool,
        _api: &'a dyn Api,
    ) -> Option<BoxFuture<'a, Arranged>> {
        None
    }

    /// How it is brought to send an event to its webhook; `chance`: what makes this trial another than all before.
    /// `None`: it has no webhook.
    fn trial(&self, _wanted: Wanted<'_>, _chance: &str, _now: Timestamp) -> Option<Trial> {
        None
    }

    /// Asks it for a [`Trial::Asked`]; what it said.
    fn ask_for_trial<'a>(
        &'a self,
        _wanted: Wanted<'a>,
        _api: &'a dyn Api,
    ) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(std::future::ready(Err("it sends no test when it is asked".to_owned())))
    }

    /// Its words, where it takes no further connection beside those that stand: no answer about the parcel.
    fn full_house(&self, reply: &Reply) -> Option<String> {
        full_house::ends(reply)
    }

    /// One outcome a recipient, in the parcel's order.
    fn read(&self, parcel: Parcel<'_>, reply: &Reply, now: Timestamp) -> Vec<Outcome>;
}
