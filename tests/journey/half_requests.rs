//! Clients that begin a request and do not end it keep no monitor out of the HTTP port.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use postroad::clock::monotonic;

use crate::support::wait::holds_within;
use crate::support::{Relay, Upstream, http, wait_until};

/// A connection that has sent this and nothing more.
fn sent(at: SocketAddr, octets: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(octets).unwrap();
    stream
}

/// A connection that was answered once and then sent half a request.
fn answered_then_half(at: SocketAddr) -> TcpStream {
    let mut stream = sent(at, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHo");
    stream
}

/// Whether the other side has neither said anything nor closed.
fn is_open(stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    matches!(stream.peek(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock)
}

/// Sets it when dropped, so that a test that fails does not wait for its threads for ever.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn healthz_within(at: SocketAddr, bound: Duration) {
    for _ in 0..5 {
        let began = monotonic();
        let answer = http::get(at, "/healthz", None);
        let took = began.elapsed();
        assert!(answer.is_some_and(|a| a.status == 200) && took < bound, "/healthz took {took:?}");
        println!("half requests: /healthz took {took:?}");
    }
}

#[test]
fn five_hundred_half_requests_keep_nobody_out() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let at = relay.http().unwrap();
    let halves: Vec<_> = (0..500).map(|_| sent(at, b"GET /healthz HTTP/1.1\r\nHost:")).collect();
    healthz_within(at, Duration::from_secs(1));
    drop(halves);
    let halves: Vec<_> = (0..500).map(|_| answered_then_half(at)).collect();
    healthz_within(at, Duration::from_secs(1));
    drop(halves);
}

#[test]
fn nor_do_those_who_come_again_whenever_they_are_sent_away() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let at = relay.http().unwrap();
    let (over, came) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // A few threads with many connections each: as many clients, without as many stacks.
        for _ in 0..10 {
            scope.spawn(|| {
                let mut halves: Vec<TcpStream> = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    halves.retain(is_open);
                    let gone = 50 - halves.len();
                    came.fetch_add(gone, Ordering::SeqCst);
                    halves.extend((0..gone).map(|_| sent(at, b"GET /healthz HTTP/1.1\r\nHost: x\r\n")));
                    std::thread::yield_now();
                }
            });
        }
        let _ends = Ends(&over);
        wait_until("they have come again", Duration::from_secs(20), || came.load(Ordering::SeqCst) >= 1000);
        healthz_within(at, Duration::from_secs(1));
    });
}

#[test]
fn a_head_has_its_time_however_it_trickles_in() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let mut stream = sent(relay.http().unwrap(), b"GET /healthz HTTP/1.1\r\nX: ");
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let began = monotonic();
    let ended = holds_within(Duration::from_secs(20), || {
        stream.write_all(b"x").is_err() || matches!(stream.read(&mut [0; 1024]), Ok(0))
    });
    assert!(
        ended && began.elapsed() < Duration::from_secs(13),
        "it is still there after {:?}",
        began.elapsed()
    );
}
