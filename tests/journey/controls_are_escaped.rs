//! What turns the direction of a text, moves a cursor or is not seen at all never reaches a terminal as it is: an
//! address may hold it, and an ESP may say it.

use std::time::Duration;

use crate::support::relay::Ran;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

/// A local part that reads backwards, one between isolates, one with a blank that nobody sees.
const SENDER: &str = "gpj\u{202e}exe.a@example.org";
const RECIPIENT: &str = "\u{2066}b\u{2069}\u{200b}@example.com";

fn is_raw(c: char) -> bool {
    let bidi = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}');
    bidi || (c.is_control() && c != '\n')
}

#[track_caller]
fn clean(what: &str, text: &str) {
    assert!(!text.chars().any(is_raw), "{what}: {text:?}");
}

#[test]
fn addresses_and_answers_show_their_controls_as_escapes() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Rcpt(1), Fault::Reply("451 4.2.1 not \u{202e}won"));
    let relay = Relay::setup().upstream(&upstream, "").start();
    let mut client = relay.client();
    for command in [
        format!("MAIL FROM:<{SENDER}> SMTPUTF8"),
        format!("RCPT TO:<{RECIPIENT}>"),
        "DATA".to_owned(),
        "Subject: s\r\n\r\nx\r\n.".to_owned(),
    ] {
        let reply = client.say(&command).reply();
        assert!(matches!(reply.code, 250 | 354), "{command:?}: {}", reply.text());
    }
    wait_until("the first attempt", Duration::from_secs(15), || {
        relay.cli(&["queue", "list", "--json"]).json().iter().any(|line| line["tries"] == 1)
    });
    let listed = relay.cli(&["queue", "list", "--json"]).must(0);
    let id = listed.json()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed.json()[0]["recipient"], RECIPIENT, "programs get it as it is");
    for command in [
        &["queue", "list"][..],
        &["queue", "list", "--json"],
        &["queue", "show", &id],
        &["explain", &id],
        &["explain", &id, "--json"],
        &["queue", "list", "--to", RECIPIENT],
        &["resolve", SENDER, RECIPIENT],
        &["esp", "list"],
    ] {
        let Ran { out, err, .. } = relay.cli(command).must(0);
        clean(&format!("{command:?}"), &format!("{out}{err}"));
    }
    let table = relay.cli(&["queue", "list"]).must(0).out;
    for shown in
        ["gpj\\u{202e}exe.a@example.org", "\\u{2066}b\\u{2069}\\u{200b}@example.com", "not \\u{202e}won"]
    {
        assert!(table.contains(shown), "{shown}: {table}");
    }
    let wrong = relay.cli(&["resolve", "a@example.org", "b@example.com", "--stream", "x\u{202e}y"]);
    assert!(wrong.code != 0 && !wrong.err.is_empty(), "{wrong:?}");
    clean("a refusal", &wrong.err);
    let log = relay.log();
    assert!(log.contains("\\u202e"), "{log}");
    clean("the log", &log);
}
