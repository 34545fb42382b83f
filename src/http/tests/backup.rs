//! `/v1/backup`, what `/readyz` says of a pause, and what a page of the queue says of it.

use super::*;

#[tokio::test]
async fn a_backup_is_made_or_refused_with_the_reason() {
    let port = Port::open().await;
    let (status, made) = port.post("/v1/backup", r#"{"file":"/b/x.db"}"#).await;
    assert_eq!(status, StatusCode::OK, "{made}");
    let wanted =
        json!({ "file": "/b/x.db", "done": true, "percent": 100, "octets": 4096, "took_seconds": 0.012 });
    assert_eq!(made, wanted);
    for (body, status, code) in [
        (r#"{"file":"/b/there.db"}"#, StatusCode::CONFLICT, "exists"),
        (r#"{"file":"/b/full.db"}"#, StatusCode::INSUFFICIENT_STORAGE, "no_room"),
        (r#"{"file":"x.db"}"#, StatusCode::BAD_REQUEST, "invalid"),
        (r#"{"file":7}"#, StatusCode::BAD_REQUEST, "invalid"),
        (r#"{}"#, StatusCode::BAD_REQUEST, "invalid"),
        (r#"{"file":"/x","to":"y"}"#, StatusCode::BAD_REQUEST, "invalid"),
    ] {
        let (is, answer) = port.post("/v1/backup", body).await;
        assert_eq!((is, &answer["error"]["code"]), (status, &json!(code)), "{body}: {answer}");
    }
}

#[tokio::test]
async fn one_that_takes_long_is_asked_after_again_and_no_other_begins_meanwhile() {
    let port = Port::open().await;
    let (status, answer) = port.post("/v1/backup", r#"{"file":"/b/slow.db"}"#).await;
    assert_eq!((status, &answer["done"]), (StatusCode::ACCEPTED, &json!(false)));
    let (status, answer) = port.post("/v1/backup", r#"{"file":"/b/other.db"}"#).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::CONFLICT, &json!("running")));
    port.queue.slow_backup.notify_one();
    let (status, answer) = port.post("/v1/backup", r#"{"file":"/b/slow.db"}"#).await;
    assert_eq!((status, &answer["octets"]), (StatusCode::OK, &json!(4096)));
}

#[tokio::test]
async fn a_pause_of_all_is_told_where_people_look_and_is_no_fault() {
    let port = Port::open().await;
    let pause = Suspension { reason: "moving".into(), since: DUE, until: None };
    *port.queue.paused.lock().unwrap() = Some(pause);
    let wanted = json!({ "reason": "moving", "since": DUE.to_string() });
    let (status, ready) = port.get("/readyz").await;
    assert_eq!((status, &ready["paused"]), (StatusCode::OK, &wanted));
    let (_, page) = port.get("/v1/messages").await;
    assert_eq!(page["paused"], wanted);
    let metrics =
        port.client.get(format!("{}/metrics", port.base)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("postroad_sending_paused 1"), "{metrics}");
}
