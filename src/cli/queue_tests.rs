//! The queue's commands against a port with a queue in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use super::*;
use crate::http::fake::{self, Fake, TOKEN, id};

pub(super) struct Relay {
    pub(super) queue: Arc<Fake>,
    pub(super) common: Common,
    _stop: DropGuard,
}

pub(super) async fn relay() -> Relay {
    let queue = Arc::new(Fake::with_three());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    tokio::spawn(crate::http::serve(
        fake::relay(Arc::clone(&queue), Vec::new()),
        crate::http::What::All,
        crate::http::SidePort { listener, secure: None },
        stop.clone(),
    ));
    let common = Common { url: Some(url), token: Some(Secret::new(TOKEN)), ..Common::default() };
    Relay { queue, common, _stop: stop.drop_guard() }
}

impl Relay {
    async fn run(&self, command: QueueCommand) -> (Result<(), Failure>, String) {
        let mut out = Vec::new();
        let done = queue_command(&self.common, command, &mut out).await;
        (done, String::from_utf8(out).unwrap())
    }

    async fn explain(&self, n: i64) -> String {
        let mut out = Vec::new();
        explain::explain(&self.common, id(n), &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    }
}

#[tokio::test]
async fn list_is_a_table_for_people_and_lines_for_programs() {
    let mut relay = relay().await;
    let (_, text) = relay.run(QueueCommand::List(ListArguments { limit: 100, ..Default::default() })).await;
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("ID             STATE    NEXT"), "{text}");
    assert!(lines[1].starts_with("0000000000003  unsure"), "{text}");
    assert!(lines[2].contains("<app@example.com>  <a@example.org>  451 4.7.1 try later\\u{1b}[2J"), "{text}");
    assert_eq!(lines.len(), 3);
    let (_, text) = relay.run(QueueCommand::List(ListArguments { limit: 1, ..Default::default() })).await;
    assert!(text.ends_with("the newest 1; --limit 0 lists all\n"), "{text}");
    relay.common.json = true;
    let (_, text) = relay.run(QueueCommand::List(ListArguments { limit: 0, ..Default::default() })).await;
    let states: Vec<_> =
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["state"].clone()).collect();
    assert_eq!(states, ["unsure", "waiting"]);
}

#[tokio::test]
async fn show_raw_is_the_content_octet_for_octet() {
    let relay = relay().await;
    let (done, text) = relay.run(QueueCommand::Show { id: id(1), raw: true }).await;
    assert_eq!((done, text.as_str()), (Ok(()), "Subject: one\r\n\r\nhello\r\n"));
    let (done, _) = relay.run(QueueCommand::Show { id: id(9), raw: true }).await;
    assert_eq!(done.unwrap_err().exit_code(), 3);
    let (_, text) = relay.run(QueueCommand::Show { id: id(2), raw: false }).await;
    assert!(text.contains("<a@example.org>  done: handed to sandbox as sandbox-2"), "{text}");
}

#[tokio::test]
async fn acts_say_what_they_did_and_what_is_not_there() {
    let relay = relay().await;
    let (done, text) = relay.run(QueueCommand::Pause { ids: vec![id(1), id(2), id(9)] }).await;
    assert_eq!(done, Err(Failure::NotFound("no message 0000000000009".into())));
    let expected = "0000000000001: 1 delivery paused\n\
                    0000000000002: nothing to change; its deliveries stand elsewhere\n\
                    0000000000009: not found\n";
    assert_eq!(text, expected);
    let (done, text) = relay.run(QueueCommand::Rm { ids: vec![id(9), id(8)] }).await;
    assert_eq!(done.unwrap_err().exit_code(), 3);
    assert_eq!(text, "0000000000009: not found\n0000000000008: not found\n");
    let (_, text) = relay.run(QueueCommand::Flush { ids: vec![] }).await;
    assert_eq!(text, "2 deliveries due now\n");
    assert_eq!(relay.queue.acts.lock().unwrap().last(), Some(&(Act::Flush, None)));
}

#[tokio::test]
async fn failures_have_their_exit_codes() {
    let mut relay = relay().await;
    relay.queue.broken.store(true, Ordering::SeqCst);
    let (done, _) = relay.run(QueueCommand::Flush { ids: vec![] }).await;
    assert_eq!(done, Err(Failure::Failed("no room: the disk has 0 B left".into())));
    relay.common.token = Some(Secret::new("wrong"));
    let (done, _) = relay.run(QueueCommand::Flush { ids: vec![] }).await;
    assert_eq!(done.unwrap_err().exit_code(), 1);
}

#[tokio::test]
async fn explain_tells_a_life_in_order_and_nothing_reaches_the_terminal_unescaped() {
    let relay = relay().await;
    let text = relay.explain(1).await;
    assert!(!text.contains('\u{1b}'), "{text}");
    for line in [
        "Message 0000000000001",
        "  from      <app@example.com>",
        "  client    127.0.0.1 (laptop\\u{1b}]0;x), as shop, ESMTPSA",
        "  stream    transactional (transactional)",
        "  2026-11-25T10:20:34.005Z  accepted",
        "  2026-11-25T10:20:34.005Z  attempt 1 by sandbox: refused (the way there), while connecting, after 0.020 s",
        "      chosen: sandbox; a: takes no mail now: \\u{1b}reset",
        "      sandbox said: 451 4.7.1 try later\\u{1b}[2J",
        "  now: a is next; b: comes later, priority 2, its rate is used up until 2026-11-25T10:24:34.005Z",
    ] {
        assert!(text.lines().any(|l| l == line), "{line:?} is not in\n{text}");
    }
}
