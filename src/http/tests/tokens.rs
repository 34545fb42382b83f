//! Tokens with scopes: made, used, refused where they are too small, taken back.

use super::*;
use crate::http::scope::{SCOPES, Scope};

impl Port {
    async fn made(&self, scope: Scope) -> (String, i64) {
        let (status, made) = self.post("/v1/tokens", &json!({ "scopes": [scope.word()] }).to_string()).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        (made["token"].as_str().unwrap().to_owned(), made["id"].as_i64().unwrap())
    }

    async fn status_with(&self, method: &str, path: &str, token: &str) -> (StatusCode, String) {
        let method: Method = method.parse().unwrap();
        let request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(token);
        let response = request.send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }
}

#[tokio::test]
async fn each_route_takes_a_token_with_its_scope_and_names_it_to_the_others() {
    let port = Port::open().await;
    let contract = Contract::of(&routes().split_for_parts().1);
    for scope in SCOPES {
        let (token, _) = port.made(scope).await;
        for line in contract.lines() {
            let Some(wanted) = line.scope else { continue };
            let path = line.path.replace("{id}", "7").replace("{name}", "nobody");
            let (status, body) = port.status_with(&line.method, &path, &token).await;
            if scope == wanted || scope == Scope::Admin {
                assert!(
                    status != StatusCode::FORBIDDEN && status != StatusCode::UNAUTHORIZED,
                    "{line:?} {body}"
                );
            } else {
                assert_eq!(status, StatusCode::FORBIDDEN, "{line:?} with {scope}");
                assert!(
                    body.contains("scope_missing") && body.contains(&format!("scope {wanted}")),
                    "{body}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_shown_once_kept_as_a_hash_and_revoked_at_once() {
    let port = Port::open().await;
    let body = r#"{"scopes":["send","read","send"],"name":" shop "}"#;
    let (status, made) = port.post("/v1/tokens", body).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!((&made["scopes"], &made["name"]), (&json!(["read", "send"]), &json!("shop")));
    let text = made["token"].as_str().unwrap();
    let kept = port.queue.tokens.lock().unwrap().clone();
    assert_eq!(
        kept[0].0[..],
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes()).as_ref()[..]
    );
    let (_, listed) = port.get("/v1/tokens").await;
    assert!(!listed.to_string().contains(text) && listed["tokens"][0].get("used_at").is_none(), "{listed}");

    assert_eq!(port.status_with("GET", "/v1/messages", text).await.0, StatusCode::OK);
    let (_, listed) = port.get("/v1/tokens").await;
    assert_eq!(listed["tokens"][0]["used_at"], DUE.to_string());
    assert_eq!(
        port.status_with("GET", "/v1/messages", &format!("{text}x")).await.0,
        StatusCode::UNAUTHORIZED
    );

    let path = format!("/v1/tokens/{}", made["id"]);
    assert_eq!(port.status_with("DELETE", &path, TOKEN).await.0, StatusCode::NO_CONTENT);
    assert_eq!(port.status_with("GET", "/v1/messages", text).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(port.status_with("DELETE", &path, TOKEN).await.0, StatusCode::NOT_FOUND);
    assert_eq!(port.status_with("DELETE", "/v1/tokens/x", TOKEN).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn who_guesses_tokens_is_told_to_wait_and_the_admin_is_not_shut_out() {
    let port = Port::open().await;
    let ask =
        |token: &'static str| port.client.get(format!("{}/v1/messages", port.base)).bearer_auth(token).send();
    let mut answers = Vec::new();
    for _ in 0..200 {
        let answer = ask("guess").await.unwrap();
        answers.push(answer.status());
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(answer.headers()["retry-after"], "1");
            break;
        }
    }
    assert_eq!(answers.last(), Some(&StatusCode::TOO_MANY_REQUESTS));
    assert!(answers.len() > 50, "{}", answers.len());
    assert_eq!(ask(TOKEN).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn tokens_come_in_pages() {
    let port = Port::open().await;
    for _ in 0..5 {
        port.made(Scope::Read).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = port.get(&format!("/v1/tokens?limit=2{cursor}")).await;
        assert_eq!(status, StatusCode::OK);
        seen.extend(page["tokens"].as_array().unwrap().iter().map(|t| t["id"].as_i64().unwrap()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    let (status, body) = port.get("/v1/tokens?limit=0&cursor=x&colour=red").await;
    assert_eq!((status, fields(&body)), (StatusCode::BAD_REQUEST, vec!["limit", "cursor", "colour"]));
}

#[tokio::test]
async fn a_token_that_makes_no_sense_is_refused_by_field() {
    let port = Port::open().await;
    let long = json!({ "scopes": ["read"], "name": "x".repeat(101) }).to_string();
    for (body, wrong) in [
        ("{}", vec!["scopes"]),
        (r#"{"scopes":[]}"#, vec!["scopes"]),
        (r#"{"scopes":"read"}"#, vec!["scopes"]),
        (
            r#"{"scopes":["write",7,"read"],"name":7,"colour":1}"#,
            vec!["scopes[0]", "scopes[1]", "name", "colour"],
        ),
        (r#"{"scopes":["read"],"name":"a\nb"}"#, vec!["name"]),
        (&long, vec!["name"]),
    ] {
        let (status, answer) = port.post("/v1/tokens", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        let mut found = fields(&answer);
        found.sort_unstable();
        let mut wrong = wrong;
        wrong.sort_unstable();
        assert_eq!(found, wrong, "{body}");
    }
    assert!(port.queue.tokens.lock().unwrap().is_empty());
}
