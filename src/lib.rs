//! Postroad: one local SMTP door to every email service provider (ESP).
//!
//! # A message's journey
//!
//! ```text
//! app ──SMTP──▶ smtp ──asks──▶ flow::intake ──▶ policy        (may this recipient be mailed?)
//!                                   │ commit, then 250
//!                                 store ◀──────────────────────────────┐
//!                                   │ in memory, or claimed when due   │ settle
//!                              flow::courier ──▶ router ──▶ esp.compose ──▶ wire ──▶ provider
//! ```
//!
//! # The floors
//!
//! A module imports from lower floors only; siblings on a floor do not import each other; inside one folder anything
//! goes. `tests/floors.rs` holds this table.
//!
//! | floor | module | knows |
//! |---|---|---|
//! | 0 | [`clock`] [`units`] [`address`] [`secret`] [`metrics`] | the ground: time, numbers with units, addresses, secrets, the names of all metrics |
//! | 1 | [`mail`] | the nouns: envelope, submission, message, body, delivery, request and reply, outcome |
//! | 1 | [`lock`] | who has the data directory, and the token that opens it |
//! | 2 | [`smtp`] | the server's side of SMTP. Not policy: it asks a `Gatekeeper` |
//! | 2 | [`esp`] | what an ESP needs and what its answers mean; no socket, no clock, no database |
//! | 2 | [`wire`] | how bytes leave. Knows no ESP's meaning |
//! | 2 | [`store`] | the database: the only SQL in the tree |
//! | 2 | [`journal`] | the log's verbs |
//! | 3 | [`policy`] [`router`] | judgement, pure over facts handed in |
//! | 4 | [`flow`] | intake and courier: the only place where facts, judgement and I/O meet |
//! | 6 | [`http`] | the side port: health, metrics, the routes of the queue and of the ESPs |
//! | 7–9 | [`config`] ← [`relay`] ← [`cli`] ← `main` | written → checked configuration; the wiring; the commands |
//!
//! # What never happens
//!
//! - `250` after the final dot is never written before message and deliveries are committed and synced.
//! - Bytes of a message never leave before the attempt that carries them is committed.
//! - An address outside the envelope never receives a message.
//! - A bare CR, LF or NUL never ends a line and never leaves.
//! - Only `store` holds SQL, only `clock` reads the time, only `secret` prints a secret: as stars.

pub mod address;
pub mod cli;
pub mod clock;
pub mod config;
pub mod esp;
pub mod flow;
pub mod http;
pub mod journal;
pub mod lock;
pub mod mail;
pub mod metrics;
pub mod policy;
pub mod relay;
pub mod router;
pub mod secret;
pub mod smtp;
pub mod store;
pub mod units;
pub mod wire;
