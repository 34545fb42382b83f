//! Mail handed in by HTTP: what reaches the intake, and what is refused before.

use super::*;
use crate::mail::{BodyKind, Protocol, QueueState, ReversePath};

impl Port {
    async fn send(&self, mail: &Value) -> (StatusCode, Value) {
        self.post("/v1/send", &mail.to_string()).await
    }

    async fn send_raw(&self, query: &str, message: &str) -> (StatusCode, Value) {
        let request = self.client.post(format!("{}/v1/send{query}", self.base)).bearer_auth(TOKEN);
        let request = request.header(header::CONTENT_TYPE, "message/rfc822").body(message.to_owned());
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }
}

fn mail() -> Value {
    json!({
        "from": "Shop <shop@example.com>", "to": ["a@example.org"], "subject": "Hello", "text": "hi\n",
    })
}

#[tokio::test]
async fn mail_in_parts_enters_with_everything_that_was_said_of_it() {
    let port = Port::open().await;
    let mut mail = mail();
    mail["cc"] = json!(["blocked@example.org"]);
    mail["bcc"] = json!(["hidden@example.net", "A@example.org"]);
    mail["tags"] = json!(["receipt"]);
    mail["metadata"] = json!({"order": "7"});
    mail["stream"] = json!("transactional");
    mail["esp"] = json!("a");
    mail["attachments"] = json!([{"filename": "a.txt", "content": "aGVsbG8="}]);
    let (status, sent) = port.send(&mail).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{sent}");
    assert_eq!(sent["id"], id(9).to_string());
    let told: Vec<_> = sent["recipients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["address"].as_str().unwrap(), r["taken"].as_bool().unwrap(), r["code"].as_u64().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("a@example.org", true, 250),
            ("blocked@example.org", false, 550),
            ("hidden@example.net", true, 250)
        ]
    );

    let got = port.queue.submitted.lock().unwrap().pop().unwrap();
    assert_eq!(got.envelope.sender.wire(), "shop@example.com");
    assert!(matches!(got.envelope.sender, ReversePath::Mailbox(_)));
    assert_eq!(
        got.envelope.recipients.iter().map(|a| a.wire()).collect::<Vec<_>>(),
        ["a@example.org", "hidden@example.net"]
    );
    assert_eq!((got.envelope.body, got.envelope.smtputf8), (BodyKind::SevenBit, false));
    assert_eq!(
        (got.tags, got.metadata),
        (vec!["receipt".to_owned()], vec![("order".to_owned(), "7".to_owned())])
    );
    assert_eq!((got.pin.as_deref(), got.stream.unwrap().as_str()), (Some("a"), "transactional"));
    assert_eq!((got.source.protocol, got.source.credential.as_deref()), (Protocol::Http, Some("admin")));
    assert_eq!(got.source.peer.to_string(), "127.0.0.1");
    let content = String::from_utf8(got.raw.head.to_vec()).unwrap();
    assert!(content.contains("Subject: Hello\r\n") && content.contains("a.txt"), "{content}");
    assert!(!content.contains("hidden"), "{content}");
}

#[tokio::test]
async fn mail_that_names_no_stream_is_judged_by_the_one_that_it_goes_on() {
    let port = Port::open().await;
    let mut mail = mail();
    mail["to"] = json!(["transactional@example.org"]);
    let (status, body) = port.send(&mail).await;
    assert_eq!((status, fields(&body)), (StatusCode::UNPROCESSABLE_ENTITY, vec!["to[0]"]), "{body}");
    mail["to"] = json!(["a@example.org"]);
    port.send(&mail).await;
    let got = port.queue.submitted.lock().unwrap().pop().unwrap();
    assert_eq!(got.stream.unwrap().as_str(), "transactional");
}

#[tokio::test]
async fn who_may_not_be_mailed_is_named_and_nothing_is_sent_where_nobody_is_left() {
    let port = Port::open().await;
    let mut mail = mail();
    mail["to"] = json!(["blocked@example.org"]);
    let (status, body) = port.send(&mail).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("no_recipient")));
    assert_eq!(fields(&body), ["to[0]"]);
    mail["to"] = json!(["busy@example.org"]);
    let (status, body) = port.send(&mail).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("try_again")));
    assert!(port.queue.submitted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_field_that_is_wrong_is_named_at_once() {
    let port = Port::open().await;
    let (status, body) = port
        .send(&json!({
            "from": "shop@example.com", "to": ["a@example.org", "b", 7], "cc": "x", "subject": "a\r\nBcc: x@y.example",
            "headers": {"Bcc": "x@y.example", "X-N": 7}, "attachments": [{"filename": "a", "content": "%"}, 1],
            "tags": [""], "metadata": {"k": "a\nb"}, "colour": 1,
        }))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let mut found = fields(&body);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "attachments[0].content",
            "attachments[1]",
            "cc",
            "colour",
            "headers.Bcc",
            "headers.X-N",
            "metadata.k",
            "subject",
            "tags[0]",
            "to[1]",
            "to[2]"
        ]
    );
    for (mail, wrong) in [(json!({}), "from"), (json!({"from": "a@b.example"}), "to")] {
        assert_eq!(fields(&port.send(&mail).await.1), [wrong]);
    }
    assert_eq!(fields(&port.post("/v1/send?to=x", &mail().to_string()).await.1), ["to"]);
    assert!(port.queue.submitted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_message_as_it_is_takes_its_envelope_from_the_query_or_from_itself() {
    let port = Port::open().await;
    let message = "From: Shop <shop@example.com>\nTo: a@example.org, B <b@example.org>\nBcc: c@example.org\nSubject: x\n\nhi\n";
    let (status, body) = port.send_raw("", message).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let got = port.queue.submitted.lock().unwrap().pop().unwrap();
    assert_eq!(
        got.envelope.recipients.iter().map(|a| a.wire()).collect::<Vec<_>>(),
        ["a@example.org", "b@example.org", "c@example.org"]
    );
    assert_eq!(&got.raw.head[..], message.replace('\n', "\r\n").as_bytes());

    let (status, _) =
        port.send_raw("?from=bounce@example.com&to=z@example.org&to=y@example.org", message).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let got = port.queue.submitted.lock().unwrap().pop().unwrap();
    assert_eq!(got.envelope.sender.wire(), "bounce@example.com");
    assert_eq!(got.envelope.recipients.len(), 2);

    for (query, message, wrong) in [
        ("", "Subject: x\n\nhi\n", "from"),
        ("?to=nobody", message, "to[0]"),
        ("", "From: a@b.example\n\nhi\n", "to"),
        ("?colour=1", message, "colour"),
        ("", "From: a@b.example\rX: y\n\nhi\n", "body"),
        ("", "From: a@b.example\nTo: c@d.example\nX-Postroad-Send-At: soon\n\nhi\n", "body"),
        ("?esp=b", "From: a@b.example\nTo: c@d.example\nX-Postroad-Esp: a\n\nhi\n", "esp"),
    ] {
        let (status, body) = port.send_raw(query, message).await;
        assert_eq!((status, fields(&body)), (StatusCode::BAD_REQUEST, vec![wrong]), "{query} {message:?}");
    }
}

#[tokio::test]
async fn a_mail_over_the_limit_is_413_and_one_that_finds_no_memory_503() {
    let port = Port::open().await;
    let mut mail = mail();
    mail["text"] = json!("x".repeat(crate::http::send::SEND_OCTETS_MAX));
    let (status, body) = port.send(&mail).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large")));
    mail["text"] = json!("x".repeat(fake::BUDGET_OCTETS / 4));
    let (status, body) = port.send(&mail).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large")));
    assert!(body.to_string().contains("[limits] memory is 1000000"), "{body}");
    // Another request has most of the memory and is not done.
    let mut other = tokio::net::TcpStream::connect(port.address).await.unwrap();
    let length = fake::BUDGET_OCTETS / 5;
    let head = format!(
        "POST /v1/send HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {length}\r\n\r\n{{"
    );
    tokio::io::AsyncWriteExt::write_all(&mut other, head.as_bytes()).await.unwrap();
    mail["text"] = json!("x".repeat(length));
    let refused = async {
        loop {
            let (status, body) = port.send(&mail).await;
            if status != StatusCode::ACCEPTED {
                return (status, body);
            }
        }
    };
    let (status, body) = tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap();
    assert_eq!((status, &body["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("no_memory")));
}

#[tokio::test]
async fn who_sends_a_key_again_gets_the_first_answer_whatever_is_thought_of_it_by_now() {
    let port = Port::open().await;
    port.queue.add(fake::message(9, QueueState::Done, "kept"), b"nine");
    let keyed = |to: &str| format!("From: shop@example.com\nTo: {to}\nX-Postroad-Idempotency-Key: k\n\nhi\n");
    assert_eq!(port.send_raw("", &keyed("a@example.org")).await.0, StatusCode::ACCEPTED);
    let key = port.queue.submitted.lock().unwrap()[0].key.clone().unwrap();
    assert_eq!((key.scope.as_str(), key.key.as_str()), ("http/admin", "k"));
    let (status, again) = port.send_raw("", &keyed("A@example.org, blocked@example.org")).await;
    assert_eq!((status, &again["id"]), (StatusCode::ACCEPTED, &json!(id(9).to_string())), "{again}");
    let taken: Vec<_> = again["recipients"].as_array().unwrap().iter().map(|r| r["taken"].clone()).collect();
    assert_eq!(taken, [true, false]);
    let (status, other) = port.send_raw("", &keyed("new@example.org, busy@example.org")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "nobody of it had the first: {other}");
    assert_eq!((&other["error"]["code"], fields(&other)), (&json!("key_of_another"), vec!["To[0]", "To[1]"]));
    assert_eq!(port.queue.submitted.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn addresses_that_smtp_takes_are_taken_and_written_as_they_are() {
    let port = Port::open().await;
    let odd =
        ["\"a b\"@x.example", "a@[127.0.0.1]", "a..b@x.example", "a@in_house", "\"a\\\"<,>\"@x.example"];
    let mut mail = mail();
    mail["from"] = json!("N <\"s p\"@[127.0.0.1]>");
    mail["to"] = json!(odd);
    let (status, body) = port.send(&mail).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let got = port.queue.submitted.lock().unwrap().pop().unwrap();
    assert_eq!(got.envelope.sender.wire(), "\"s p\"@[127.0.0.1]");
    let wires = |got: &crate::mail::Submission| -> Vec<String> {
        got.envelope.recipients.iter().map(|a| a.wire().to_owned()).collect()
    };
    assert_eq!(wires(&got), odd);
    let head = String::from_utf8_lossy(&got.raw.head).replace("\r\n ", " ");
    assert!(head.contains(&format!("\r\nTo: {}\r\n", odd.join(", "))), "{head}");
    assert!(head.contains("\r\nFrom: N <\"s p\"@[127.0.0.1]>\r\n"), "{head}");

    let message = format!("From: \"s p\"@x.example\nTo: {}\n\nhi\n", odd[..4].join(", "));
    let (status, body) = port.send_raw("", &message).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    assert_eq!(wires(&port.queue.submitted.lock().unwrap().pop().unwrap()), odd[..4]);

    mail["to"] = json!(["a@example.org", "a b@x.example", "a@-x"]);
    let (status, body) = port.send(&mail).await;
    assert_eq!((status, fields(&body)), (StatusCode::BAD_REQUEST, vec!["to[1]", "to[2]"]), "{body}");
}

#[tokio::test]
async fn what_is_wrong_is_told_of_its_own_field_once() {
    let port = Port::open().await;
    let long = "x".repeat(1200);
    let blocked =
        "From: a@b.example\nTo: blocked@c.example, blocked@d.example\nBcc: blocked@e.example\n\nhi\n";
    for (change, status, wrong) in [
        (json!({"stream": "nowhere"}), 400, vec!["stream"]),
        (json!({"esp": "nowhere", "stream": "nowhere"}), 400, vec!["stream", "esp"]),
        (json!({"subject": long}), 400, vec!["subject"]),
        (json!({"headers": {"X-Order": long}}), 400, vec!["headers.X-Order"]),
        (json!({"to": "a@example.org", "cc": null, "bcc": null}), 400, vec!["to"]),
        (json!({"to": [], "cc": ["x"], "bcc": null}), 400, vec!["cc[0]"]),
    ] {
        let mut mail = mail();
        mail.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (said, body) = port.send(&mail).await;
        assert_eq!((said.as_u16(), fields(&body)), (status, wrong), "{change}: {body}");
    }
    let (_, body) = port.send_raw("?stream=nowhere", "From: a@b.example\nTo: c@d.example\n\nhi\n").await;
    assert_eq!(fields(&body), ["stream"], "{body}");
    let (_, body) = port.send_raw("", blocked).await;
    assert_eq!(fields(&body), ["To[0]", "To[1]", "Bcc[0]"], "{body}");
    assert!(port.queue.submitted.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nothing_is_taken_that_may_have_been_meant_otherwise() {
    let port = Port::open().await;
    let twice =
        r#"{"from":"a@b.example","to":["c@d.example"],"to":["e@f.example"],"metadata":{"k":"1","k":"2"}}"#;
    let (status, body) = port.post("/v1/send", twice).await;
    assert_eq!((status, fields(&body)), (StatusCode::BAD_REQUEST, vec!["to", "metadata.k"]), "{body}");
    let (status, body) = port.get("/v1/messages?limit=1&state=done&state=out&limit=2").await;
    assert_eq!((status, fields(&body)), (StatusCode::BAD_REQUEST, vec!["limit"]), "{body}");
    let request = port.client.post(format!("{}/v1/send", port.base)).bearer_auth(TOKEN);
    let packed = request.header("Content-Encoding", "gzip").body(mail().to_string()).send().await.unwrap();
    assert_eq!(packed.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(port.queue.submitted.lock().unwrap().is_empty());
}

/// Asks without a socket, so that hours pass in a moment.
async fn ask_without_waiting(queue: &Arc<Fake>, body: axum::body::Body) -> (StatusCode, Value) {
    use hyper::service::Service;
    let app = hyper_util::service::TowerToHyperService::new(router(
        fake::relay(Arc::clone(queue), Vec::new()),
        CancellationToken::new(),
    ));
    let request = axum::http::Request::post("/v1/send").header(header::HOST, "x");
    let request = request.header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
    let request = request.header(header::CONTENT_LENGTH, "200");
    let response = app.call(request.body(body).unwrap()).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_is_told_as_not_taken_is_not_taken_and_a_slow_disk_is_waited_for() {
    let queue = Arc::new(Fake::with_three());
    let mut mail = mail();
    mail["to"] = json!(["slow-judge@example.org"]);
    let (status, body) = ask_without_waiting(&queue, mail.to_string().into()).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("timeout")));
    assert!(body["error"]["message"].as_str().unwrap().contains("nothing was taken"), "{body}");
    assert!(queue.submitted.lock().unwrap().is_empty());

    mail["to"] = json!(["slow-disk@example.org"]);
    let (status, body) = ask_without_waiting(&queue, mail.to_string().into()).await;
    assert_eq!((status, &body["id"]), (StatusCode::ACCEPTED, &json!(id(9).to_string())), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_408_and_told_as_the_clients_fault() {
    let queue = Arc::new(Fake::with_three());
    let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let (status, body) = ask_without_waiting(&queue, axum::body::Body::from_stream(never)).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (StatusCode::REQUEST_TIMEOUT, &json!("slow_body")),
        "{body}"
    );
    assert!(body["error"]["message"].as_str().unwrap().contains("body"), "{body}");
}

#[tokio::test]
async fn a_key_keeps_every_post_from_being_done_twice() {
    let port = Port::open().await;
    let ask = async |path: &str, keys: &[&str], body: &str| {
        let mut request = port.client.post(format!("{}{path}", port.base)).bearer_auth(TOKEN);
        for key in keys {
            request = request.header("Idempotency-Key", *key);
        }
        let response = request.body(body.to_owned()).send().await.unwrap();
        let replayed = response.headers().contains_key("idempotency-replayed");
        (response.status(), replayed, response.json::<Value>().await.unwrap())
    };
    let token = r#"{"name":"a","scopes":["read"]}"#;
    let first = ask("/v1/tokens", &["k"], token).await;
    let (status, replayed, made) = ask("/v1/tokens", &["k"], token).await;
    assert_eq!((status, replayed, &made), (first.0, true, &first.2));
    assert!(status.is_success() && !first.1, "{made}");
    assert_eq!(port.queue.tokens.lock().unwrap().len(), 1);
    for (path, body) in [("/v1/tokens", r#"{"name":"b","scopes":["read"]}"#), ("/v1/queue/flush", "{}")] {
        let (status, _, answer) = ask(path, &["k"], body).await;
        let told = (status, answer["error"]["code"].as_str());
        assert_eq!(told, (StatusCode::UNPROCESSABLE_ENTITY, Some("key_reused")), "{path}");
    }
    let (_, replayed, answer) = ask("/v1/tokens", &["l"], "no").await;
    assert_eq!((replayed, &answer["error"]["code"]), (false, &json!("bad_json")), "{answer}");
    assert_eq!(ask("/v1/tokens", &["l"], "no").await, (StatusCode::BAD_REQUEST, true, answer));
    for (path, body) in [("/v1/send", mail().to_string()), ("/v1/queue/flush", "{}".to_owned())] {
        let (status, _, answer) = ask(path, &["m", "n"], &body).await;
        assert_eq!((status, fields(&answer)), (StatusCode::BAD_REQUEST, vec!["Idempotency-Key"]), "{path}");
    }
    let query = "?from=a@example.com&from=b@example.com&to=c@example.org&esp=a&esp=b";
    let (status, answer) = port.send_raw(query, "From: a@example.com\r\n\r\nx\r\n").await;
    assert_eq!((status, fields(&answer)), (StatusCode::BAD_REQUEST, vec!["from", "esp"]), "{answer}");
}

#[tokio::test]
async fn a_request_names_its_host_once() {
    let port = Port::open().await;
    for (head, status) in [
        ("GET /healthz HTTP/1.1\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n", "400"),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\n", "200"),
        ("GET /healthz HTTP/1.0\r\n", "200"),
    ] {
        let mut stream = TcpStream::connect(port.address).await.unwrap();
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{head}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_told_in_the_one_form_too() {
    let port = Port::open().await;
    let fields = "X-Y: z\r\n".repeat(200);
    let host = format!("Host: a\r\nAuthorization: Bearer {TOKEN}\r\n");
    for (request, status, code) in [
        ("garbage\r\n\r\n".to_owned(), "400", "bad_request"),
        (format!("POST /v1/send HTTP/1.1\r\n{host}Content-Length: x\r\n\r\n"), "400", "bad_request"),
        (format!("POST /v1/send HTTP/1.1\r\n{host}{fields}\r\n"), "431", "header_too_large"),
        (
            format!(
                "POST /v1/send HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: 2\r\n\r\n\u{1}\u{2}"
            ),
            "400",
            "bad_json",
        ),
        (format!("GET /v1/messages/%ff HTTP/1.1\r\n{host}Connection: close\r\n\r\n"), "400", "bad_path"),
    ] {
        let mut stream = TcpStream::connect(port.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.split(' ').nth(1), Some(status), "{answer}");
        let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert_eq!(
            (&body["error"]["code"], &body["error"]["fields"]),
            (&json!(code), &json!([])),
            "{answer}"
        );
        assert!(head.contains("content-type: application/json\r\n"), "{head}");
    }
}

#[tokio::test]
async fn labels_have_the_bounds_that_they_have_by_smtp() {
    let port = Port::open().await;
    let tags = |n: usize| json!((0..n).map(|n| n.to_string()).collect::<Vec<_>>());
    let pairs =
        |n: usize| json!((0..n).map(|n| (n.to_string(), "v")).collect::<std::collections::BTreeMap<_, _>>());
    for (field, value, wrong) in [
        ("tags", tags(10), None),
        ("tags", tags(11), Some("tags")),
        ("tags", json!(["t".repeat(256)]), Some("tags[0]")),
        ("metadata", pairs(20), None),
        ("metadata", pairs(21), Some("metadata")),
        ("metadata", json!({"or der": "7"}), Some("metadata.or der")),
        ("metadata", json!({"A": "1", "a": "2"}), Some("metadata.a")),
    ] {
        let mut mail = mail();
        mail[field] = value;
        let (status, body) = port.send(&mail).await;
        match wrong {
            None => assert_eq!(status, StatusCode::ACCEPTED, "{body}"),
            Some(wrong) => assert_eq!(fields(&body), [wrong]),
        }
    }
}
