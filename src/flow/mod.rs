//! Where facts, judgement and I/O meet: intake, courier, reports to senders, events out to the app, and the keeper's rounds.

mod aftermath;
pub mod allowance;
pub mod aside;
pub mod bounce;
pub mod call;
mod choice;
pub mod chunks;
pub mod compose;
pub mod courier;
pub mod desk;
mod door;
pub mod feedback;
mod full;
pub mod gatehouse;
pub mod intake;
pub mod keeper;
pub mod last_calls;
mod late;
pub mod meter;
mod no_esp;
pub mod outlet;
pub mod pending;
pub mod prepare;
mod rates;
mod reload;
mod resend;
mod rounds;
pub mod seats;
pub mod setup;
mod staging;
pub mod teller;
mod told;

pub use choice::Standing;
pub use setup::Setup;
#[cfg(test)]
mod tests;
mod unfit;
mod waiters;
pub mod webhooks;
pub mod whole;
