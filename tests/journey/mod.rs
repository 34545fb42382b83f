//! What the relay promises, one file a behaviour.

mod accepts_then_sends;
mod certificate_reload;
mod changes_only_what_it_may;
mod crash;
mod disk_full;
mod env_file;
mod esps;
mod explains;
mod failover;
mod graceful_stop;
mod half_requests;
mod limits;
mod loops;
mod next_hop;
mod odd_next_hops;
mod operators_hand;
mod partial_recipients;
mod readyz;
mod sandbox_keeps_mail;
mod speaks_json;
mod splits;
mod stalled_log;
mod syncs_before_250;
mod unfit_everywhere;
mod unsure;
mod waits_and_retries;
