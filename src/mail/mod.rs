//! The nouns that every floor speaks: pure data, no I/O, no serde.

pub mod asks;
pub mod body;
pub mod delivery;
pub mod effect;
pub mod envelope;
pub mod errand;
pub mod event;
pub mod exchange;
pub mod from;
pub mod grant;
pub mod headers;
pub mod id;
pub mod lane;
pub mod mailboxes;
pub mod message;
pub mod mime;
pub mod named;
pub mod nested;
pub mod notification;
pub mod notify;
pub mod outcome;
pub mod parts;
pub mod quota;
pub mod report;
pub mod rewrite;
pub mod sealed;
pub mod signed;
pub mod splice;
pub mod status;
pub mod stream;
pub mod terms;
pub mod trace;
pub mod transfer;
pub mod watch;

pub use body::{Body, BodyFacts, Budget, Permit};
pub use delivery::{Known, QueueState, Reason, Step};
pub use envelope::{BodyKind, Envelope, ReversePath};
pub use errand::{Errand, HttpErrand, SesDestination, SesErrand, Verb};
pub use event::{Bounce, Event, Listed, What};
pub use exchange::{
    Abort, Answer, HttpReply, HttpRequest, Phase, Reply, Request, SesRequest, SmtpReply, SmtpRequest,
};
pub use grant::{Grant, GrantKind};
pub use id::{AttemptId, DeliveryId, IdMint, MessageId, Owner, Planted};
pub use lane::{Lane, Rule};
pub use message::{Message, OnceKey, Protocol, Source, Submission};
pub use outcome::{Fault, Named, Outcome, Throttle};
pub use status::Status;
pub use stream::{StreamKind, StreamName};
pub use terms::Terms;
pub use watch::Watch;
