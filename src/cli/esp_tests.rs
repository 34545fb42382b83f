//! The ESPs' commands against a port with two ESPs in memory.

use serde_json::Value;

use super::queue_tests::{Relay, relay};
use super::*;

impl Relay {
    /// Runs a whole line.
    async fn line(&self, line: &[&str]) -> (Result<(), Failure>, String) {
        let words = ["postroad"].iter().chain(line);
        let mut out = Vec::new();
        let done = match Arguments::try_parse_from(words).unwrap().command {
            Command::Esp(command) => esp::run(&self.common, command, &mut out).await,
            Command::Resolve(question) => resolve::resolve(&self.common, &question, &mut out).await,
            other => panic!("{other:?}"),
        };
        (done, String::from_utf8(out).unwrap())
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn list_is_a_table_for_people_and_lines_for_programs() {
    let mut relay = relay().await;
    relay.line(&["esp", "suspend", "a", "--reason", "invoice\u{7}"]).await.0.unwrap();
    let (_, text) = relay.line(&["esp", "list"]).await;
    let rows: Vec<_> = text.lines().collect();
    assert!(rows[0].starts_with("NAME  PRIORITY  WEIGHT  GATE       BEGUN"), "{text}");
    assert!(rows[1].starts_with("a     1         100     suspended  0"), "{text}");
    assert!(rows[1].contains("42    0.012 s  suspended: invoice\\u{7}"), "{text}");
    assert!(rows[2].contains("  refuses one message after the other; refused mail From shop"), "{text}");
    assert!(rows[2].contains("connection refused\\u{1b}[2J"), "{text}");
    relay.common.json = true;
    let (_, text) = relay.line(&["esp", "list"]).await;
    let names: Vec<_> = lines(&text).iter().map(|line| line["name"].clone()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn suspend_and_resume_say_what_they_did() {
    let mut relay = relay().await;
    let (_, text) = relay.line(&["esp", "suspend", "a", "--reason", " invoice "]).await;
    assert_eq!(text, "a: suspended until it is resumed: invoice\n");
    let (_, text) = relay.line(&["esp", "suspend", "a", "--reason", "invoice", "--for", "2h"]).await;
    assert!(text.starts_with("a: suspended until 2026-11-25T12:24:34.005Z ("), "{text}");
    let (_, text) = relay.line(&["esp", "resume", "a"]).await;
    assert_eq!(text, "a: resumed\n");
    relay.common.json = true;
    let (_, text) = relay.line(&["esp", "suspend", "a", "--reason", "invoice"]).await;
    assert_eq!(lines(&text)[0]["suspension"]["reason"], "invoice");
}

#[tokio::test]
async fn an_unknown_name_is_exit_code_3_whatever_stands_in_it() {
    let relay = relay().await;
    for name in ["c", "a/../b", "..", "", "a?b", "A"] {
        for line in [vec!["esp", "resume", name], vec!["esp", "suspend", name, "--reason", "x"]] {
            let failure = relay.line(&line).await.0.unwrap_err();
            assert_eq!(failure.exit_code(), 3, "{name:?}");
            assert!(failure.message().unwrap().contains("there is no ESP named"), "{failure:?}");
        }
    }
    let failure = relay.line(&["resolve", "<>", "a@b.example", "--stream", "x"]).await.0.unwrap_err();
    assert_eq!(failure.exit_code(), 3);
}

#[tokio::test]
async fn resolve_names_every_esp_with_its_reason() {
    let mut relay = relay().await;
    let question = ["resolve", "app@example.com", "you@example.net"];
    let (_, text) = relay.line(&question).await;
    assert!(text.ends_with("a would carry it; stream example.com to you@example.net\n"), "{text}");
    relay.line(&["esp", "suspend", "a", "--reason", "invoice"]).await.0.unwrap();
    let (_, text) = relay.line(&question).await;
    assert!(text.contains("its rate is used up until 2026-"), "{text}");
    assert!(text.contains("-     a    1         100     suspended: invoice\n"), "{text}");
    relay.common.json = true;
    let (_, text) = relay.line(&question).await;
    assert_eq!(lines(&text)[0]["why"], "suspended: invoice");
    assert_eq!(lines(&text)[1]["rank"], 2);
    assert!(lines(&text)[1]["rate_opens_at"].is_string(), "{text}");
}
