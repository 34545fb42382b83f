//! `/v1/notifications`: pages of the log, and what is told once more.

use super::*;

#[tokio::test]
async fn the_log_is_read_page_by_page_and_by_what_is_asked_for() {
    let port = Port::open().await;
    let numbers = |page: &Value| -> Vec<i64> {
        let all = page["notifications"].as_array().unwrap();
        all.iter().map(|one| one["number"].as_i64().unwrap()).collect()
    };
    let (_, page) = port.get("/v1/notifications?limit=3&state=failed&receiver=app").await;
    assert_eq!((numbers(&page), &page["next"]), (vec![5, 4, 3], &json!("3")));
    let (_, page) = port.get("/v1/notifications?limit=3&cursor=3").await;
    assert_eq!((numbers(&page), page.get("next")), (vec![2, 1], None));
    let wanted = json!({
        "number": 1, "id": "evt_1", "receiver": "app", "event": "bounced", "message": id(1).to_string(),
        "address": "a@b.example", "state": "failed", "at": ACCEPTED.to_string(), "attempts": 3,
        "attempted_at": DUE.to_string(), "answer": "500 no", "body": { "type": "bounced" },
    });
    assert_eq!(page["notifications"][1], wanted);
    let (_, page) = port.get("/v1/notifications?state=taken").await;
    assert_eq!(numbers(&page), Vec::<i64>::new());
    for query in ["state=lost", "message=x", "limit=0", "limit=1001", "cursor=x", "to=x"] {
        let (status, answer) = port.get(&format!("/v1/notifications?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {answer}");
        assert_eq!(answer["error"]["fields"][0]["field"], query.split('=').next().unwrap());
    }
}

#[tokio::test]
async fn a_replay_names_events_or_says_which_and_never_all_by_accident() {
    let port = Port::open().await;
    let ask = |body: &'static str| port.post("/v1/notifications/replay", body);
    let (_, done) = ask(r#"{"ids":["evt_1","evt_2","x"]}"#).await;
    assert_eq!(done, json!({ "replayed": 2, "without_receiver": 0, "receiver_gone": 0, "unknown": ["x"] }));
    for body in [
        r#"{"failed":true}"#,
        r#"{"since":"2026-12-01T08:00:00Z","receiver":"app"}"#,
        r#"{"failed":true,"since":null,"ids":null}"#,
    ] {
        let (status, done) = ask(body).await;
        assert_eq!((status, &done["replayed"]), (StatusCode::OK, &json!(5)), "{body}");
    }
    for (body, field) in [
        ("{}", "ids"),
        (r#"{"receiver":"app"}"#, "ids"),
        (r#"{"failed":false}"#, "ids"),
        (r#"{"ids":["evt_1"],"failed":true}"#, "ids"),
        (r#"{"ids":"evt_1"}"#, "ids"),
        (r#"{"ids":[1]}"#, "ids"),
        (r#"{"failed":"yes"}"#, "failed"),
        (r#"{"since":"yesterday"}"#, "since"),
        (r#"{"failed":true,"receiver":1}"#, "receiver"),
        (r#"{"failed":true,"to":"app"}"#, "to"),
    ] {
        let (status, answer) = ask(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer["error"]["fields"][0]["field"], field, "{body}: {answer}");
    }
    let many = json!({ "ids": vec!["evt_1"; 1001] }).to_string();
    assert_eq!(port.post("/v1/notifications/replay", &many).await.0, StatusCode::BAD_REQUEST);
    port.queue.broken.store(true, Ordering::SeqCst);
    assert_eq!(
        port.post("/v1/notifications/replay", r#"{"failed":true}"#).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
}
