//! The port as a client sees it: over a real socket, with a queue in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::routing::get;
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::fake::{ACCEPTED, DUE, Fake, TOKEN, id};
use super::*;
use crate::store::QueueCount;

mod backup;
mod esps;
mod notifications;
mod send;
mod tokens;

struct Port {
    base: String,
    address: SocketAddr,
    queue: Arc<Fake>,
    client: reqwest::Client,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Port {
    async fn open() -> Self {
        Port::with_doors(Vec::new()).await
    }

    async fn with_doors(doors: Vec<Door>) -> Self {
        let queue = Arc::new(Fake::with_three());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let relay = fake::relay(Arc::clone(&queue), doors);
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(relay, What::All, SidePort { listener, secure: None }, stop.clone()));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Port { base: format!("http://{address}"), address, queue, client, stop, served }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&str>) -> (StatusCode, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.body(body.to_owned());
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        assert_eq!(response.headers()["content-type"], "application/json", "{path}");
        (status, response.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }
}

fn fields(answer: &Value) -> Vec<&str> {
    answer["error"]["fields"].as_array().unwrap().iter().map(|f| f["field"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn everything_under_v1_and_esp_status_want_a_token_and_nothing_else_does() {
    let port = Port::open().await;
    let wrong = ["", "Bearer", "Bearer ", "Bearer tok-e", "Bearer tok-enn", "Basic tok-en", "tok-en"];
    for (method, path) in [
        (Method::GET, "/v1/messages"),
        (Method::POST, "/v1/queue/flush"),
        (Method::POST, "/v1/esps/a/suspend"),
        (Method::GET, "/v1/nowhere"),
        (Method::GET, "/esp-status"),
    ] {
        for given in wrong {
            let request = port.client.request(method.clone(), format!("{}{path}", port.base));
            let request = request.header(header::AUTHORIZATION, given);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path} {given:?}");
            assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"]["code"], "unauthorized");
        }
    }
    for (first, second) in [(TOKEN, TOKEN), (TOKEN, "wrong"), ("wrong", TOKEN)] {
        let request = port.client.get(format!("{}/v1/messages", port.base)).bearer_auth(first);
        let response =
            request.header(header::AUTHORIZATION, format!("Bearer {second}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{first} {second}");
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "bad_authorization");
    }
    assert!(port.queue.acts.lock().unwrap().is_empty() && port.queue.suspended.lock().unwrap().is_empty());
    assert_eq!(port.get("/v1/messages").await.0, StatusCode::OK);
    for path in ["/", "/healthz", "/readyz", "/metrics", "/openapi.json"] {
        let response = port.client.get(format!("{}{path}", port.base)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn every_route_that_is_named_exists_and_the_others_are_told_so() {
    let port = Port::open().await;
    let document: Value =
        port.client.get(format!("{}/openapi.json", port.base)).send().await.unwrap().json().await.unwrap();
    let page = port.client.get(&port.base).send().await.unwrap().text().await.unwrap();
    let contract = Contract::of(&routes().split_for_parts().1);
    assert!(contract.lines().len() > 15, "{:?}", contract.lines());
    let mut operations = std::collections::HashSet::new();
    for line in contract.lines() {
        assert!(page.contains(&line.path) && !line.what.is_empty(), "{page}");
        let operation = &document["paths"][&line.path][line.method.to_lowercase()];
        assert!(operations.insert(operation["operationId"].as_str().unwrap()), "{operation}");
        assert!(operation["responses"]["default"].is_object(), "{operation}");
        assert_eq!(operation["responses"]["403"].is_object(), line.scope.is_some(), "{operation}");
        let path = line
            .path
            .replace("/tokens/{id}", "/tokens/1")
            .replace("{id}", &id(1).to_string())
            .replace("{name}", "a")
            .replace("{esp}", "main");
        let (query, body) = match path.rsplit('/').next() {
            Some("resolve") => ("?from=<>&to=a@b.example", ""),
            Some("suspend") => ("", r#"{"reason":"invoice"}"#),
            Some("resume" | "unpause" | "test" | "reload" | "setup" | "webhook-test") => ("", "{}"),
            Some("pause") if path == "/v1/pause" => ("", r#"{"reason":"moving"}"#),
            Some("send") => ("", r#"{"from":"a@b.example","to":["c@d.example"]}"#),
            Some("tokens") => ("", r#"{"scopes":["read"]}"#),
            Some("suppressions") if line.method == "POST" => ("", r#"{"address":"a@b.example"}"#),
            Some("suppressions") if line.method == "DELETE" => ("?address=a@b.example", ""),
            Some("backup") => ("", r#"{"file":"/b/x.db"}"#),
            _ => ("", r#"{"ids":["0000000000001"]}"#),
        };
        let url = format!("{}{path}{query}", port.base);
        let method: Method = line.method.parse().unwrap();
        let request = port.client.request(method, &url).bearer_auth(TOKEN).header("proof", "yes").body(body);
        assert!(request.send().await.unwrap().status().is_success(), "{path}");
        let (status, body) = port.ask(Method::PATCH, &path, None).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(body["error"]["code"], "wrong_method");
    }
    for path in ["/nowhere", "/v1", "/v1/", "/v1/nowhere", "/v1/queue", "/v1/queue/again", "//"] {
        let (status, body) = port.get(path).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::NOT_FOUND, &json!("no_such_route")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn every_answer_has_a_name_and_the_headers_of_a_port_that_is_no_web_page() {
    let port = Port::open().await;
    let mut names = Vec::new();
    for path in ["/healthz", "/v1/messages", "/nowhere"] {
        let response = port.client.get(format!("{}{path}", port.base)).send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
        names.push(headers["x-request-id"].to_str().unwrap().to_owned());
    }
    names.dedup();
    assert_eq!(names.len(), 3);
}

#[tokio::test]
async fn the_list_is_filtered_and_paged_by_cursor() {
    let port = Port::open().await;
    let (_, all) = port.get("/v1/messages").await;
    let ids: Vec<_> = all["deliveries"].as_array().unwrap().iter().map(|d| d["id"].clone()).collect();
    assert_eq!(ids, [json!("0000000000003"), json!("0000000000001")], "newest first, none that is done");
    assert_eq!(all.get("next"), None);
    let (_, first) = port.get("/v1/messages?limit=1").await;
    assert_eq!(first["next"], "0000000000003.0");
    let (_, second) = port.get("/v1/messages?limit=1&cursor=0000000000003.0").await;
    assert_eq!(second["deliveries"][0]["id"], "0000000000001");
    let waiting = &second["deliveries"][0];
    assert_eq!(waiting["state"], "waiting");
    assert_eq!(waiting["due"], DUE.to_string());
    let (_, done) = port.get("/v1/messages?state=done").await;
    assert_eq!(done["deliveries"][0]["known"], "handed");
}

#[tokio::test]
async fn a_query_s_mistakes_are_told_all_at_once() {
    let port = Port::open().await;
    let (status, body) = port.get("/v1/messages?state=lost&limit=0&cursor=x&colour=red").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(fields(&body), ["state", "limit", "cursor", "colour"]);
    assert_eq!(port.get("/v1/messages?limit=1001").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_message_s_life_and_its_content() {
    let port = Port::open().await;
    let (status, life) = port.get("/v1/messages/0000000000002").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(life["size"], 4096);
    assert_eq!(life["accepted_at"], ACCEPTED.to_string());
    assert_eq!(life["source"]["protocol"], "ESMTPSA");
    assert_eq!(life["metadata"]["order"], "7");
    assert_eq!(life["deliveries"][0]["state"], "done");
    assert_eq!(life["attempts"][0]["remote_id"], "sandbox-2");
    assert_eq!(life["events"][0]["kind"], "accepted");
    let (status, body) = port.get("/v1/messages/0000000000009").await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    let (status, body) = port.get("/v1/messages/nine").await;
    assert_eq!((status, fields(&body)), (StatusCode::BAD_REQUEST, vec!["id"]));

    let raw =
        |id: &str| port.client.get(format!("{}/v1/messages/{id}/raw", port.base)).bearer_auth(TOKEN).send();
    // More often than contents may be read at a time: a place is given back when the answer is written.
    for _ in 0..5 {
        let response = raw("0000000000001").await.unwrap();
        assert_eq!(response.headers()["content-type"], "message/rfc822");
        assert_eq!(response.text().await.unwrap(), "Subject: one\r\n\r\nhello\r\n");
    }
    port.queue.bodies.lock().unwrap().clear();
    assert_eq!(raw("0000000000001").await.unwrap().status(), StatusCode::GONE);
    assert_eq!(raw("0000000000009").await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn acts_reach_the_queue_and_say_what_they_did() {
    let port = Port::open().await;
    let body = r#"{"ids":["0000000000001","0000000000001","0000000000002","0000000000009"]}"#;
    let (status, acted) = port.post("/v1/queue/remove", body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(acted["deliveries"], 1);
    assert_eq!(acted["results"][0], json!({"id": "0000000000001", "deliveries": 1, "out": 0, "found": true}));
    assert_eq!(acted["results"][1], json!({"id": "0000000000002", "deliveries": 0, "out": 0, "found": true}));
    assert_eq!(
        acted["results"][2],
        json!({"id": "0000000000009", "deliveries": 0, "out": 0, "found": false})
    );
    let (status, _) = port.post("/v1/queue/pause", r#"{"ids":["0000000000009"]}"#).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, acted) = port.post("/v1/queue/release", r#"{"ids":["0000000000003"]}"#).await;
    assert!(acted["warnings"][0].as_str().unwrap().contains("may arrive twice"), "{acted}");
    let (_, acted) = port.post("/v1/queue/flush", r#"{"all":true}"#).await;
    assert_eq!(acted["deliveries"], 1, "3 alone is left");
    let acts = port.queue.acts.lock().unwrap();
    assert_eq!(acts[0], (Act::Remove, Some(vec![id(1), id(2), id(9)])));
    assert_eq!(acts.last(), Some(&(Act::Flush, None)));
}

#[tokio::test]
async fn a_bad_body_is_refused_before_it_reaches_the_queue() {
    let port = Port::open().await;
    for (path, body, code, wrong) in [
        ("flush", "", "bad_json", vec![]),
        ("flush", "{", "bad_json", vec![]),
        ("flush", "[]", "bad_json", vec![]),
        ("flush", "{}", "invalid", vec!["ids"]),
        ("flush", r#"{"ids":[]}"#, "invalid", vec!["ids"]),
        ("flush", r#"{"all":true,"ids":["0000000000001"]}"#, "invalid", vec!["all"]),
        ("flush", r#"{"all":1}"#, "invalid", vec!["all"]),
        ("remove", r#"{"all":true}"#, "invalid", vec!["all"]),
        ("pause", r#"{"ids":"0000000000001"}"#, "invalid", vec!["ids"]),
        (
            "pause",
            r#"{"colour":1,"ids":["0000000000001",7,"x"]}"#,
            "invalid",
            vec!["colour", "ids[1]", "ids[2]"],
        ),
    ] {
        let (status, answer) = port.post(&format!("/v1/queue/{path}"), body).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(code)), "{body}");
        assert_eq!(fields(&answer), wrong, "{body}");
    }
    let many: Vec<_> = (0..501).map(|n| id(n).to_string()).collect();
    let (status, _) = port.post("/v1/queue/pause", &json!({ "ids": many }).to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, answer) = port.post("/v1/queue/pause", &" ".repeat(BODY_OCTETS_MAX + 1)).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large")));
    assert!(port.queue.acts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_database_that_fails_is_503_and_not_ready() {
    let port = Port::open().await;
    port.queue.broken.store(true, Ordering::SeqCst);
    let (status, body) = port.get("/v1/messages").await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("full")));
    let (status, body) = port.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["ready"], false);
    assert_eq!(body["checks"][0]["why"], "no room: the disk has 0 B left");
    assert_eq!(
        port.client.get(format!("{}/healthz", port.base)).send().await.unwrap().status(),
        StatusCode::OK
    );
}

/// An SMTP listener that greets with `greeting` and counts who says EHLO.
async fn smtp(greeting: &'static str) -> (Door, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let _ = stream.write_all(greeting.as_bytes()).await;
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|n| n > 0) {
                let reply = if line.starts_with("EHLO") { "250-me\r\n250 SIZE\r\n" } else { "221 bye\r\n" };
                let _ = stream.write_all(reply.as_bytes()).await;
                let _ = heard.send(std::mem::take(&mut line));
            }
        }
    });
    (Door { address, implicit_tls: false }, hears)
}

#[tokio::test]
async fn readyz_says_ehlo_to_each_listener_once_however_many_ask() {
    let (good, mut heard) = smtp("220-me\r\n220 hello\r\n").await;
    let port = Port::with_doors(vec![good]).await;
    let asked = futures_util::future::join_all((0..20).map(|_| port.get("/readyz"))).await;
    assert!(
        asked.iter().all(|(status, body)| *status == StatusCode::OK && body["ready"] == true),
        "{asked:?}"
    );
    assert_eq!(port.queue.probes.load(Ordering::SeqCst), 1);
    assert_eq!(heard.recv().await.unwrap(), format!("EHLO {PROBE_NAME}\r\n"));
    assert_eq!(heard.recv().await.unwrap(), "QUIT\r\n");
    assert!(heard.try_recv().is_err(), "no second probe");
}

#[tokio::test]
async fn readyz_says_which_listener_does_not_answer_as_it_should() {
    let (full, _heard) = smtp("421 4.7.0 too many\r\n").await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let port = Port::with_doors(vec![full, Door { address: gone, implicit_tls: false }]).await;
    let (status, body) = port.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["checks"][0]["why"], "answered \"421 4.7.0 too many\", not 220");
    assert!(body["checks"][1]["why"].as_str().unwrap().contains("refused"), "{body}");
    assert_eq!(body["checks"][2], json!({"name": "database", "ok": true}));
}

#[tokio::test]
async fn readyz_speaks_tls_where_the_listener_does_whatever_its_certificate() {
    let made = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door = Door { address: listener.local_addr().unwrap(), implicit_tls: true };
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        stream.write_all(b"220 me\r\n250 me\r\n221 bye\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let port = Port::with_doors(vec![door]).await;
    let (status, body) = port.get("/readyz").await;
    assert_eq!((status, &body["ready"]), (StatusCode::OK, &json!(true)), "{body}");
}

#[tokio::test]
async fn metrics_read_the_queue_and_what_is_gone_goes_to_zero() {
    let port = Port::open().await;
    let scrape = || async {
        port.client.get(format!("{}/metrics", port.base)).send().await.unwrap().text().await.unwrap()
    };
    *port.queue.counts.lock().unwrap() = vec![QueueCount {
        state: "waiting",
        stream: "only-here".into(),
        deliveries: 7,
        oldest: Some(ACCEPTED),
    }];
    let text = scrape().await;
    assert!(text.contains(r#"postroad_queue_deliveries{state="waiting",stream="only-here"} 7"#), "{text}");
    assert!(text.contains(r#"postroad_queue_oldest_seconds{stream="only-here"} 240"#), "{text}");
    port.queue.counts.lock().unwrap().clear();
    let until = crate::clock::monotonic() + Duration::from_secs(20);
    while !scrape().await.contains(r#"postroad_queue_deliveries{state="waiting",stream="only-here"} 0"#) {
        assert!(tokio::time::timeout_at(until, tokio::time::sleep(Duration::from_millis(100))).await.is_ok());
    }
    assert!(scrape().await.contains(r#"postroad_queue_oldest_seconds{stream="only-here"} 0"#));
}

#[tokio::test]
async fn it_stops_though_a_client_sits_on_an_open_connection() {
    let port = Port::open().await;
    let mut idle = TcpStream::connect(port.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    port.stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), port.served).await.unwrap().unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), idle.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(TcpStream::connect(port.address).await.is_err());
}

#[tokio::test]
async fn a_panic_is_500_and_the_port_goes_on() {
    let app = Router::new()
        .route("/", get(async || -> &'static str { panic!("no") }))
        .layer(from_fn(guard::every_request));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..2 {
        let response = client.get(&url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let name = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: Value = response.json().await.unwrap();
        assert!(body["error"]["message"].as_str().unwrap().contains(&name), "{body}");
    }
}

#[test]
fn an_unspecified_address_is_reached_on_loopback() {
    for (listens, reached) in
        [("0.0.0.0:25", "127.0.0.1:25"), ("[::]:25", "[::1]:25"), ("192.0.2.1:25", "192.0.2.1:25")]
    {
        assert_eq!(reachable(listens.parse().unwrap()).to_string(), reached);
    }
}

#[tokio::test]
async fn who_cannot_prove_to_be_an_esp_is_not_told_what_would_prove_it() {
    let port = Port::open().await;
    for path in ["/webhooks/main", "/webhooks/nobody", "/bounce-webhook"] {
        let response = port.client.post(format!("{}{path}", port.base)).body("{}").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE), "{path}");
    }
}

#[test]
fn the_contract_offers_what_the_routes_take() {
    let document = serde_json::to_value(routes().split_for_parts().1).unwrap();
    let schemas = &document["components"]["schemas"];
    let words = |name: &str| {
        let all = schemas[name]["enum"].as_array().unwrap_or_else(|| panic!("{name} is no enum: {schemas}"));
        all.iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(words("SuppressedFor"), crate::mail::effect::REASONS);
    assert_eq!(words("Scope"), scope::SCOPES.map(scope::Scope::word));
    let body = |path: &str| {
        document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            .clone()
    };
    assert_eq!(body("/v1/queue/flush"), "#/components/schemas/Flush");
    for verb in ["pause", "release", "remove", "requeue"] {
        assert_eq!(body(&format!("/v1/queue/{verb}")), "#/components/schemas/ActOn");
    }
    assert_eq!(schemas["ActOn"]["required"], json!(["ids"]));
    assert!(schemas["ActOn"]["properties"].get("all").is_none(), "only flush takes all");
    let answers = |path: &str| {
        let all = document["paths"][path]["post"]["responses"].as_object().unwrap();
        all.keys().cloned().collect::<Vec<_>>()
    };
    for path in ["/webhooks/{esp}", "/bounce-webhook", "/complaint-webhook", "/engagement-webhook"] {
        assert_eq!(answers(path), ["200", "400", "401", "413", "429", "503"], "{path}");
    }
    assert_eq!(document["paths"]["/bounce-webhook"]["post"]["parameters"][0]["in"], "query");
}

#[test]
fn every_reference_in_the_contract_leads_somewhere() {
    fn references<'d>(value: &'d Value, out: &mut Vec<&'d str>) {
        match value {
            Value::Object(members) => {
                out.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, out));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, out)),
            _ => {}
        }
    }
    let document = serde_json::to_value(routes().split_for_parts().1).unwrap();
    let mut all = Vec::new();
    references(&document, &mut all);
    assert!(all.len() > 50, "{all:?}");
    let nowhere =
        |reference: &&&str| reference.strip_prefix('#').and_then(|path| document.pointer(path)).is_none();
    assert_eq!(all.iter().filter(nowhere).collect::<Vec<_>>(), Vec::<&&str>::new());
}
