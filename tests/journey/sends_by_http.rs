//! Mail handed in by HTTP goes the same way as by SMTP, and tokens open what their scopes say.

use std::time::Duration;

use crate::support::{Relay, Upstream, http};

#[test]
fn what_a_token_sends_arrives_and_survives_a_restart_with_its_token() {
    let upstream = Upstream::start();
    let mut relay = Relay::to(&upstream);
    let made = relay.cli(&["token", "create", "--scope", "send", "--name", "shop", "--json"]).must(0).json();
    let token = made[0]["token"].as_str().unwrap().to_owned();
    relay.kill();
    relay.restart();
    let at = relay.http().unwrap();
    let mail = r#"{"from":"Shop <shop@example.org>","to":["a@example.com"],"bcc":["b@example.com"],"subject":"Grüße","text":"hello"}"#;
    assert_eq!(http::post(at, "/v1/send", None, mail).unwrap().status, 401);
    assert_eq!(http::get(at, "/v1/messages", Some(&token)).unwrap().status, 403);
    let answer = http::post(at, "/v1/send", Some(&token), mail).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    upstream.wait_for(1);
    let told = relay.cli(&["explain", &id]).must(0).out;
    assert!(told.contains("HTTP") && told.contains("shop"), "{told}");

    let listed = relay.cli(&["token", "list", "--json"]).must(0).json();
    assert!(listed[0]["used_at"].is_string(), "{listed:?}");
    relay.cli(&["token", "revoke", &listed[0]["id"].to_string()]).must(0);
    assert_eq!(http::post(at, "/v1/send", Some(&token), mail).unwrap().status, 401);
    assert_eq!(http::get(at, "/openapi.json", None).unwrap().json()["openapi"], "3.1.0");
}

#[test]
fn the_command_sends_what_it_is_told_also_a_large_file() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let file = relay.folder().join("large.bin");
    std::fs::write(&file, vec![7; 3_000_000]).unwrap();
    let ran = relay.cli(&[
        "send",
        "--from",
        "shop@example.org",
        "--to",
        "a@example.com",
        "--cc",
        "c@example.com",
        "--subject",
        "Report",
        "--text",
        "see the file",
        "--attach",
        file.to_str().unwrap(),
        "--header",
        "X-Order: 7",
    ]);
    assert!(ran.must(0).out.starts_with("queued as "));
    let got = upstream.wait_for_within(1, Duration::from_secs(60));
    assert_eq!(got[0].header("X-Order").as_deref(), Some("7"));
    assert!(got[0].text().contains("large.bin") && got[0].data.len() > 4_000_000, "{}", got[0].data.len());
    let wrong =
        relay.cli(&["send", "--from", "shop@example.org", "--to", "nobody", "--subject", "x", "--text", "y"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("to[0]"), "{}", wrong.err);
}
