//! Where facts, judgement and I/O meet: intake, courier, and the keeper's rounds.

pub mod call;
pub mod chunks;
pub mod courier;
pub mod intake;
pub mod keeper;
pub mod meter;
pub mod outlet;
pub mod pending;
pub mod prepare;
mod unfit;
