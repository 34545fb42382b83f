//! Loopback ports for servers that come and go during a test.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the ports of the tests' relays lie.
const PORTS: Range<u16> = 12_000..32_000;

/// A loopback port that nobody listens on and that no other test of this run is given. It lies below the ports that
/// systems hand out by themselves (Linux: from 32768), so that no client's own end takes it while a relay restarts.
pub fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id();
    for _ in 0..PORTS.len() {
        let turn = first.wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (turn % PORTS.len() as u32) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}
