//! A database of the first version opens with this one, and its mail goes; one of a later version is left alone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use postroad::clock::{Clock, System};
use postroad::mail::IdMint;
use rusqlite::Connection;

use super::failover::subjects;
use crate::support::{Relay, Upstream, wait_until};

const BOUND: Duration = Duration::from_secs(30);
/// What its rows were written by.
const FIRST: &str = include_str!("../upgrade/first.sql");

/// The ids of its messages follow the one that is given back.
fn first_database(data_dir: &Path) -> i64 {
    let id = IdMint::new(1).message(&System).number();
    let sql = FIRST.replace("@NOW@", &System.now().millis().to_string()).replace("@ID@", &id.to_string());
    fs::create_dir_all(data_dir).unwrap();
    Connection::open(data_dir.join("postroad.db")).unwrap().execute_batch(&sql).unwrap();
    id
}

fn delivery(relay: &Relay, id: i64, n: usize) -> serde_json::Value {
    let id = postroad::mail::MessageId::from_number(id);
    relay.get(&format!("/v1/messages/{id}")).map(|a| a.json()).unwrap_or_default()["deliveries"][n].clone()
}

#[test]
fn mail_of_the_first_version_is_delivered_by_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let id = first_database(&data_dir);
    let upstream = Upstream::start();
    let soon = "[[stream]]\nname = \"transactional\"\nunsure_hold = \"1s\"\n";
    let relay = Relay::setup().upstream(&upstream, "").tables(soon).data_dir(&data_dir).start();
    for n in [4, 5] {
        assert_eq!(delivery(&relay, id + n, 0)["state"], "paused", "{n}");
        let id = postroad::mail::MessageId::from_number(id + n).to_string();
        relay.cli(&["queue", "release", &id]).must(0);
    }
    upstream.wait_for_within(7, BOUND);
    wait_until("all are done", BOUND, || (1..=9).all(|n| delivery(&relay, id + n, 0)["state"] == "done"));
    let mut went = subjects(&upstream);
    went.sort();
    assert_eq!(went, [1, 2, 3, 4, 5, 8, 9].map(|n| format!("first {n}")), "6 and 7 were done");
    let pieces = upstream.received().into_iter().find(|r| r.header("Subject").as_deref() == Some("first 8"));
    assert!(pieces.unwrap().data.ends_with(b"What was written then.\r\nin two pieces, yes\r\n"));

    assert_eq!(delivery(&relay, id + 1, 1)["reason"], "suppressed");
    assert_eq!(delivery(&relay, id + 7, 0)["reason"], "refused");
    let sixth = delivery(&relay, id + 6, 0);
    assert_eq!((&sixth["known"], &sixth["said"]), (&"handed".into(), &"250 2.0.0 ok".into()));
    let first = postroad::mail::MessageId::from_number(id + 1).to_string();
    let explained = relay.cli(&["explain", &first]).must(0).out;
    assert!(explained.contains("421 4.3.2 down"), "{explained}");
    assert_eq!(relay.get("/readyz").unwrap().json().get("paused"), None, "it is no restore");
}

#[test]
fn a_database_of_a_later_version_is_refused_with_the_reason_and_left_as_it_is() {
    let upstream = Upstream::start();
    let mut relay = Relay::to(&upstream);
    relay.stop();
    let database = relay.data_dir().join("postroad.db");
    Connection::open(&database).unwrap().pragma_update(None, "user_version", 999).unwrap();
    let before = fs::read(&database).unwrap();
    relay.spawn();
    assert_eq!(relay.ended_within(BOUND).and_then(|status| status.code()), Some(1));
    let log = relay.log();
    assert!(log.contains("its schema is version 999") && log.contains("left as it is"), "{log}");
    for command in [&["queue", "list"][..], &["backup", "copy.db"]] {
        let told = relay.cli(command).must(1);
        assert!(told.err.contains("its schema is version 999"), "{told:?}");
    }
    assert!(!relay.folder().join("copy.db").exists());
    assert_eq!(fs::read(&database).unwrap(), before, "untouched");
}
