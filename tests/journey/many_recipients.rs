//! A next hop that takes few recipients a transaction gets the others in the next ones, at once: nobody waits for the
//! retry schedule, and nobody is told of a fault.

use std::time::Duration;

use crate::support::mailgen::plain;
use crate::support::upstream::Manner;
use crate::support::{Relay, Upstream, wait_until};

/// One retry is an hour away.
const SLOW: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1h\"\n";

fn all_arrive(manner: Manner, most: usize) {
    let upstream = Upstream::with(manner);
    let relay = Relay::setup().upstream(&upstream, "").tables(SLOW).start();
    let people: Vec<String> = (0..45).map(|n| format!("p{n:02}@example.com")).collect();
    let to: Vec<&str> = people.iter().map(String::as_str).collect();
    let id = relay.submit("a@example.org", &to, &plain("to many"));
    wait_until("all are served", Duration::from_secs(30), || {
        let got: usize = upstream.received().iter().map(|one| one.to.len()).sum();
        got >= people.len()
    });
    let received = upstream.received();
    let mut got: Vec<String> = received.iter().flat_map(|one| one.to.clone()).collect();
    got.sort();
    let wanted: Vec<String> = people.iter().map(|p| format!("<{p}>")).collect();
    assert_eq!(got, wanted, "each once");
    assert!(received.iter().all(|one| one.to.len() <= most));
    assert_eq!(received.len(), people.len().div_ceil(most), "as many as fit go together");
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(!told.contains("this address"), "no fault of an address: {told}");
    // Who learnt the limit asks for no more than it the next time.
    let commands = upstream.commands().len();
    relay.submit("a@example.org", &to[..most + 1], &plain("to some"));
    wait_until("they are served", Duration::from_secs(30), || upstream.count() == received.len() + 2);
    let asked = upstream.commands()[commands..].iter().filter(|(_, line)| line.starts_with("RCPT")).count();
    assert_eq!(asked, most + 1, "nobody is asked for twice");
}

#[test]
fn where_its_greeting_names_the_limit() {
    let mut manner = Manner { recipients_max: 10, ..Manner::default() };
    manner.extensions.push("LIMITS RCPTMAX=10".into());
    all_arrive(manner, 10);
}

#[test]
fn where_it_says_452_to_those_past_it() {
    all_arrive(Manner { recipients_max: 7, ..Manner::default() }, 7);
}
