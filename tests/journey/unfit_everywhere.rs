//! Mail that no ESP can carry is told once, waits for one that can, and ends with what each of them lacks.

use std::time::Duration;

use crate::support::mailgen::{plain, sized};
use crate::support::upstream::Manner;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

const WARNING: &str = "no ESP can carry this message";
const RETRY: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1s\"\n";

fn offering(words: &[&str]) -> Upstream {
    Upstream::with(Manner {
        extensions: words.iter().map(|w| (*w).to_owned()).collect(),
        ..Manner::default()
    })
}

fn attempts(relay: &Relay, id: &str) -> usize {
    let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
    life["attempts"].as_array().map_or(0, Vec::len)
}

/// The warnings about this message.
fn warnings(relay: &Relay, id: &str) -> Vec<String> {
    relay.log().lines().filter(|l| l.contains(WARNING) && l.contains(id)).map(str::to_owned).collect()
}

#[test]
fn it_is_told_once_and_ends_with_every_reason() {
    let (small, smaller) = (offering(&["SIZE 9000"]), offering(&["SIZE 8000"]));
    let short = format!("{RETRY}max_age = \"6s\"\n");
    let relay = Relay::setup().upstream(&small, "").upstream(&smaller, "").tables(&short).start();
    let id = relay.submit("a@example.org", &["b@example.com", "c@example.com"], &sized("large", 50_000));
    wait_until("it is told", Duration::from_secs(15), || !warnings(&relay, &id).is_empty());
    let told = warnings(&relay, &id);
    for word in ["\"warn\"", "b@example.com", "up1 cannot carry it", "9000", "up2 cannot carry it", "8000"] {
        assert!(told[0].contains(word), "{word} is not in {}", told[0]);
    }
    wait_until("it has expired", Duration::from_secs(30), || {
        let life = relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default();
        life["deliveries"][1]["reason"] == "expired"
    });
    assert!(attempts(&relay, &id) > 4, "it was tried once more: {}", attempts(&relay, &id));
    assert_eq!(warnings(&relay, &id).len(), 1, "{}", relay.log());
    assert_eq!(relay.metric("postroad_alerts_total"), 1.0);
    let told = relay.cli(&["explain", &id]).must(0).out;
    let end = told.lines().find(|l| l.starts_with("To <c@example.com>")).unwrap_or_else(|| panic!("{told}"));
    for word in ["given up", "up1 cannot carry it", "takes 9000", "up2 cannot carry it", "takes 8000"] {
        assert!(end.contains(word), "{word} is not in {end}");
    }
}

#[test]
fn one_that_may_yet_carry_it_is_no_alert_and_a_restart_tells_nothing_twice() {
    let (small, away) = (offering(&["SIZE 9000"]), Upstream::start());
    away.fail_always(Point::Banner, Fault::Close);
    let mut relay = Relay::setup().upstream(&small, "").upstream(&away, "").tables(RETRY).start();
    let id = relay.submit("a@example.org", &["b@example.com"], &sized("large", 50_000));
    let small_one = relay.submit("a@example.org", &["b@example.com"], &plain("small"));
    small.wait_for(1);
    wait_until("both were tried twice", Duration::from_secs(20), || attempts(&relay, &id) >= 4);
    assert_eq!(warnings(&relay, &id), [] as [String; 0]);
    relay.stop();

    let mut relay = Relay::setup().upstream(&small, "").tables(RETRY).start();
    let id = relay.submit("a@example.org", &["b@example.com"], &sized("large", 50_000));
    wait_until("it is told", Duration::from_secs(15), || !warnings(&relay, &id).is_empty());
    relay.stop();
    let before = {
        relay.restart();
        attempts(&relay, &id)
    };
    wait_until("it is tried again", Duration::from_secs(15), || attempts(&relay, &id) > before);
    relay.stop();
    assert_eq!(warnings(&relay, &id).len(), 1, "{}", relay.log());
    assert_eq!(warnings(&relay, &small_one), [] as [String; 0]);
}
