//! The ESPs' routes.

use super::*;

#[tokio::test]
async fn esp_status_tells_how_each_stands() {
    let port = Port::open().await;
    port.post("/v1/esps/a/suspend", r#"{"reason":"invoice","for":"2h"}"#).await;
    let (status, answer) = port.get("/esp-status").await;
    assert_eq!(status, StatusCode::OK);
    let two_hours_later = DUE.plus(Duration::from_secs(7200)).to_string();
    let a = json!({
        "name": "a", "priority": 1, "weight": 100, "gate": "suspended", "why": "suspended: invoice",
        "suspension": { "reason": "invoice", "since": DUE.to_string(), "until": two_hours_later },
        "begun": 0, "max_connections": 10, "allowance_remaining": 42, "usual_seconds": 0.012,
    });
    let b = json!({
        "name": "b", "priority": 2, "weight": 100, "gate": "open", "begun": 1, "max_connections": 10,
        "usual_seconds": 0.012, "rate_opens_at": DUE.to_string(),
        "closed_senders": [{ "what": "mail From shop.example", "until": DUE.to_string() }],
        "alerts": [
            { "kind": "esp_refuses_every_message", "detail": "b: refuses one message after the other" },
        ],
        "last_error": { "at": ACCEPTED.to_string(), "said": "connection refused\u{1b}[2J" },
    });
    assert_eq!(answer, json!({ "esps": [a, b] }));
}

#[tokio::test]
async fn suspend_and_resume_answer_with_how_it_stands_now() {
    let port = Port::open().await;
    let (status, a) = port.post("/v1/esps/a/suspend", r#"{"reason":"  invoice ","for":null}"#).await;
    assert_eq!((status, &a["suspension"]["reason"]), (StatusCode::OK, &json!("invoice")));
    assert_eq!(a["suspension"].get("until"), None);
    for body in ["", "{}"] {
        let (status, a) = port.post("/v1/esps/a/resume", body).await;
        assert_eq!((status, &a["gate"]), (StatusCode::OK, &json!("open")));
    }
    for verb in ["suspend", "resume"] {
        let body = if verb == "suspend" { r#"{"reason":"x"}"# } else { "" };
        let (status, answer) = port.post(&format!("/v1/esps/c/{verb}"), body).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
        assert_eq!(answer["error"]["message"], "there is no ESP named \"c\"; there are: a, b");
    }
}

#[tokio::test]
async fn a_test_tells_what_it_met() {
    let port = Port::open().await;
    let (status, answer) = port.post("/v1/esps/a/test", "").await;
    let step = |step, said| json!({ "step": step, "ok": true, "said": said, "took_seconds": 0.003 });
    let steps = [step("connect", "192.0.2.1:587"), step("auth", "no login configured")];
    let told = json!({ "esp": "a", "ok": true, "took_seconds": 0.012, "steps": steps });
    assert_eq!((status, answer), (StatusCode::OK, told));
    let (_, answer) = port.post("/v1/esps/b/test", "{}").await;
    assert_eq!((&answer["ok"], &answer["said"]), (&json!(false), &json!("connection refused\u{1b}[2J")));
    assert_eq!(port.post("/v1/esps/c/test", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn all_sending_is_paused_with_a_reason_and_let_go_on() {
    let port = Port::open().await;
    let (status, answer) = port.post("/v1/pause", r#"{"reason":" moving "}"#).await;
    assert_eq!((status, answer["esps"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)));
    assert!(answer["esps"].as_array().unwrap().iter().all(|esp| esp["gate"] == "suspended"), "{answer}");
    let (status, answer) = port.post("/v1/unpause", "").await;
    assert_eq!((status, &answer["esps"][0]["gate"]), (StatusCode::OK, &json!("open")));
    for (path, body, wrong) in [
        ("/v1/pause", "{}", "reason"),
        ("/v1/pause", r#"{"reason":"x","for":"2h"}"#, "for"),
        ("/v1/unpause", r#"{"reason":"x"}"#, "reason"),
    ] {
        let (status, answer) = port.post(path, body).await;
        assert_eq!((status, fields(&answer)), (StatusCode::BAD_REQUEST, vec![wrong]), "{path} {body}");
    }
}

#[tokio::test]
async fn a_suspension_that_cannot_be_meant_names_its_fields() {
    let port = Port::open().await;
    let long = format!(r#"{{"reason":"{}"}}"#, "ü".repeat(301));
    for (body, code, wrong) in [
        ("", "bad_json", vec![]),
        ("[]", "bad_json", vec![]),
        ("{}", "invalid", vec!["reason"]),
        (r#"{"reason":" "}"#, "invalid", vec!["reason"]),
        (r#"{"reason":7}"#, "invalid", vec!["reason"]),
        (long.as_str(), "invalid", vec!["reason"]),
        (r#"{"reason":"x","for":"soon"}"#, "invalid", vec!["for"]),
        (r#"{"reason":"x","for":"0s"}"#, "invalid", vec!["for"]),
        (r#"{"reason":"x","for":"366d"}"#, "invalid", vec!["for"]),
        (r#"{"reason":"x","for":7}"#, "invalid", vec!["for"]),
        (r#"{"until":"2h","for":"x"}"#, "invalid", vec!["until", "for", "reason"]),
    ] {
        let (status, answer) = port.post("/v1/esps/a/suspend", body).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(code)), "{body}");
        let (mut told, mut wrong) = (fields(&answer), wrong);
        told.sort_unstable();
        wrong.sort_unstable();
        assert_eq!(told, wrong, "{body}");
    }
    let (status, answer) = port.post("/v1/esps/a/resume", r#"{"reason":"x"}"#).await;
    assert_eq!((status, fields(&answer)), (StatusCode::BAD_REQUEST, vec!["reason"]));
    assert!(port.queue.suspended.lock().unwrap().is_empty());
    let just = format!(r#"{{"reason":"{}","for":"365d"}}"#, "ü".repeat(300));
    assert_eq!(port.post("/v1/esps/a/suspend", &just).await.0, StatusCode::OK);
}

#[tokio::test]
async fn resolve_names_every_esp_in_rank() {
    let port = Port::open().await;
    port.post("/v1/esps/a/suspend", r#"{"reason":"invoice"}"#).await;
    for (from, domain) in [
        ("app@Example.COM", "example.com"),
        ("%3Capp@example.com%3E", "example.com"),
        ("example.com", "example.com"),
        ("b%C3%BCcher.example", "xn--bcher-kva.example"),
        ("<>", "nobody"),
    ] {
        let (status, answer) = port.get(&format!("/v1/resolve?from={from}&to=<you@example.net>")).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["stream"], format!("{domain} to you@example.net"));
        assert_eq!(
            answer["esps"],
            json!([
                { "name": "a", "priority": 1, "weight": 100, "why": "suspended: invoice", "ends": "operator" },
                { "name": "b", "priority": 2, "weight": 100, "rank": 2, "rate_opens_at": DUE.to_string() },
            ])
        );
        assert_eq!(answer.get("suppressed"), None);
    }
    let (_, answer) = port.get("/v1/resolve?from=example.com&to=gone@example.net").await;
    assert_eq!(answer["suppressed"], "550 5.1.1 suppressed");
}

#[test]
fn an_address_is_asked_about_as_both_senders_and_a_domain_as_one() {
    for (text, sender) in [("app@Example.com", Some("app@Example.com")), ("example.com", None)] {
        let from = crate::http::esps::read_from(text).unwrap();
        let whose = from.whose();
        assert_eq!(whose.from_domain, Some("example.com"));
        assert_eq!(whose.sender.map(|sender| sender.wire()), sender);
    }
    let nobody = crate::http::esps::read_from("<>").unwrap();
    assert_eq!((nobody.whose().from_domain, nobody.whose().sender.map(|s| s.wire())), (None, Some("")));
}

#[tokio::test]
async fn a_question_that_cannot_be_meant_names_its_parameters() {
    let port = Port::open().await;
    for (query, wrong) in [
        ("", vec!["from", "to"]),
        ("?from=&to=", vec!["from", "to"]),
        ("?from=a@b@c&to=you", vec!["from", "to"]),
        ("?from=two words&to=a@-x", vec!["from", "to"]),
        ("?from=<>&to=a@b.example&colour=red", vec!["colour"]),
    ] {
        let (status, answer) = port.get(&format!("/v1/resolve{query}")).await;
        assert_eq!((status, fields(&answer)), (StatusCode::BAD_REQUEST, wrong), "{query}");
    }
    let (status, answer) = port.get("/v1/resolve?from=<>&to=a@b.example&stream=x").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["error"]["message"], "there is no stream named \"x\"; there are: transactional");
}

#[tokio::test]
async fn what_waits_shows_who_is_next() {
    let port = Port::open().await;
    let (_, waiting) = port.get("/v1/messages/0000000000001").await;
    assert_eq!(waiting["now"][0]["n"], json!([0]));
    assert_eq!(waiting["now"][0]["esps"][0], json!({"name": "a", "priority": 1, "weight": 100, "rank": 1}));
    assert_eq!(waiting["attempts"][0]["choice"], "sandbox; a: takes no mail now: \u{1b}reset");
    let (_, done) = port.get("/v1/messages/0000000000002").await;
    assert_eq!((done.get("now"), done["attempts"][0].get("choice")), (None, None));
}

#[tokio::test]
async fn metrics_tell_each_gate_and_what_is_left() {
    let port = Port::open().await;
    // Names of its own: the metrics are the process's.
    *port.queue.esps.lock().unwrap() = vec!["limited".into(), "free".into()];
    port.post("/v1/esps/free/suspend", r#"{"reason":"invoice"}"#).await;
    let text = port.client.get(format!("{}/metrics", port.base)).send().await.unwrap().text().await.unwrap();
    for line in [
        r#"postroad_esp_gate{esp="limited"} 1"#,
        r#"postroad_esp_gate{esp="free"} 0"#,
        r#"postroad_esp_allowance_remaining{esp="limited"} 42"#,
        r#"# TYPE postroad_esp_gate gauge"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    assert!(!text.contains(r#"postroad_esp_allowance_remaining{esp="free"}"#), "it has no limit");
}

#[tokio::test]
async fn a_setup_tells_how_the_webhook_stands_and_what_is_left_to_do() {
    let port = Port::open().await;
    let told = |applied| {
        json!({
            "esp": "a", "applied": applied, "ok": applied, "url": "https://x.example/webhooks/a",
            "things": [{ "what": "webhook", "state": "there", "said": "as it should be" }],
            "keys": [{ "key": "key", "value": "\"k\"" }],
            "by_hand": [{ "what": "more", "commands": ["aws sns"] }],
        })
    };
    for (body, applied) in [("", false), ("{}", false), (r#"{"apply":true}"#, true)] {
        assert_eq!(port.post("/v1/esps/a/setup", body).await, (StatusCode::OK, told(applied)), "{body}");
    }
    let (_, answer) = port.post("/v1/esps/b/setup", "{}").await;
    assert_eq!((answer.get("url"), &answer["ok"]), (None, &json!(true)));
    assert_eq!(port.post("/v1/esps/c/setup", "").await.0, StatusCode::NOT_FOUND);
    let (status, answer) = port.post("/v1/esps/a/setup", r#"{"apply":"yes","url":"http://x"}"#).await;
    assert_eq!((status, fields(&answer)), (StatusCode::BAD_REQUEST, vec!["apply", "url"]));
}

#[tokio::test]
async fn a_trial_of_a_webhook_tells_how_far_it_came() {
    let port = Port::open().await;
    for (body, told) in [("", "60s -"), (r#"{"from":"a@b.example","timeout":"2m"}"#, "120s a@b.example")] {
        let (status, answer) = port.post("/v1/esps/a/webhook-test", body).await;
        let step = json!({ "step": "public_url", "ok": false, "said": told, "took_seconds": 0.003 });
        let told = json!({ "esp": "a", "ok": false, "said": "nothing came", "took_seconds": 0.012, "steps": [step] });
        assert_eq!((status, answer), (StatusCode::OK, told));
    }
    let (status, answer) = port.post("/v1/esps/b/webhook-test", "{}").await;
    assert_eq!((status, fields(&answer)), (StatusCode::UNPROCESSABLE_ENTITY, vec!["http.public_url"]));
    assert_eq!(answer["error"]["code"], "configuration");
    let body = r#"{"from":"nobody","timeout":"1h","url":"http://169.254.169.254/"}"#;
    let (status, answer) = port.post("/v1/esps/a/webhook-test", body).await;
    assert_eq!((status, fields(&answer)), (StatusCode::BAD_REQUEST, vec!["from", "timeout", "url"]));
}
