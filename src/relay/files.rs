//! The files that this process may have open: clients get those that going out, the database and HTTP can spare.
//!
//! Without that a crowd of clients takes the last one: then nobody can come in, and no mail leaves, until somebody goes.
//! A listener that is full at its `max_connections` makes room instead.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::config::Config;
use crate::journal;
use crate::smtp::room::LEAVING_MAX;

/// The database and its readers, the log, the listeners, the runtime, a body on its way in or out.
const FOR_ITSELF: usize = 64;
/// Monitors, webhooks, commands: as many as the side port lets in at a time.
const FOR_HTTP: usize = 256;
/// For each connection to an ESP: itself, and one being looked up or closed.
const FOR_EACH_ESP_CONNECTION: usize = 2;
/// Where the limit is below all that, clients get one file of so many.
const CLIENTS_PART: usize = 4;

/// Each connection is an open file; the soft limit is often 1,024 while the hard one has room.
pub(super) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        journal::trouble("raising the limit on open files", &error.to_string());
    }
}

/// Lowers `max_connections` of the listeners to what the limit leaves them, and says so.
pub(super) fn keep_some_back(config: &mut Config) {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let outgoing = config.esps.iter().map(|esp| esp.kind.lines().map_or(0, |lines| lines.max_connections));
    let leaving = LEAVING_MAX * config.listeners.len();
    let reserve = FOR_ITSELF + FOR_HTTP + leaving + outgoing.sum::<usize>() * FOR_EACH_ESP_CONNECTION;
    let wanted: Vec<usize> = config.listeners.iter().map(|listener| listener.max_connections).collect();
    let Some(seats) = seats(limit, reserve, &wanted) else { return };
    for (listener, seats) in config.listeners.iter_mut().zip(&seats) {
        listener.max_connections = *seats;
    }
    let sum: usize = wanted.iter().sum();
    journal::fewer_seats(seats.iter().sum(), sum, limit, sum + reserve);
}

/// How many clients each listener may have, where they may not all have what they want; in the same proportion.
fn seats(limit: usize, reserve: usize, wanted: &[usize]) -> Option<Vec<usize>> {
    let left = limit.saturating_sub(reserve).max(limit / CLIENTS_PART);
    let sum: usize = wanted.iter().sum();
    (sum > left).then(|| wanted.iter().map(|wanted| (wanted.saturating_mul(left) / sum).max(1)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_what_the_reserve_leaves_and_each_keeps_a_seat() {
        assert_eq!(seats(65_536, 400, &[1000, 1000]), None);
        assert_eq!(seats(1400, 400, &[1000]), None, "exactly enough");
        assert_eq!(seats(1024, 400, &[1000]), Some(vec![624]));
        assert_eq!(seats(1024, 400, &[1000, 500]), Some(vec![416, 208]));
        assert_eq!(seats(110, 400, &[1000]), Some(vec![27]), "a limit below the reserve");
        assert_eq!(seats(110, 400, &[10_000, 1]), Some(vec![26, 1]));
        assert_eq!(seats(1024, 400, &[]), None);
    }
}
