//! What the tests stand on: the relay as a process, its clients, its upstreams, the ESPs, mail to send, time to wait.

pub mod app;
pub mod corpus;
pub mod esps;
pub mod hooks;
pub mod http;
pub mod judges;
pub mod line;
pub mod mailgen;
pub mod port;
pub mod random;
pub mod relay;
pub mod secrets;
pub mod smtp;
pub mod tls;
pub mod token;
pub mod upstream;
pub mod wait;

pub use relay::Relay;
pub use smtp::Client;
pub use upstream::{Fault, Point, Upstream};
pub use wait::{skip, wait_until};

/// Whether the runs that take minutes were asked for.
pub fn long_runs() -> bool {
    std::env::var_os("POSTROAD_LONG").is_some_and(|v| v == "1")
}
