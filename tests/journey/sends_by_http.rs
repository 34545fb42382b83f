//! Mail handed in by HTTP goes the same way as by SMTP, and tokens open what their scopes say.

use std::time::Duration;

use postroad::clock::{Clock, System};

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

#[test]
fn a_key_that_comes_with_others_alone_is_no_repeat_and_a_stream_that_is_not_there_is_named() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let send = |key: &str, to: &str, more: &[&str]| {
        let words =
            ["send", "--from", "shop@example.org", "--subject", "x", "--text", "y", "--key", key, "--to", to];
        relay.cli(&[&words[..], more].concat())
    };
    let first = send("k", "\"a b\"@example.com", &[]).must(0).out;
    assert_eq!(
        send("k", "\"a b\"@example.com", &["--to", "new@example.com"]).must(0).out.lines().next(),
        first.lines().next()
    );
    let told = send("k", "new@example.com", &[]).must(1).err;
    assert!(told.contains("nothing was sent now") && told.contains("to[0]"), "{told}");
    let told = send("other", "new@example.com", &["--stream", "nowhere"]);
    assert!(
        told.err.contains("stream: there is no stream named nowhere") && !told.err.contains("to[0]"),
        "{}",
        told.err
    );
    assert_eq!(upstream.wait_for(1)[0].to, ["<\"a b\"@example.com>"]);
}

#[test]
fn mail_for_later_and_what_a_raw_message_asks_for_are_as_by_smtp() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let token = std::fs::read_to_string(relay.data_dir().join("admin.token")).unwrap();
    let (at, token) = (relay.http().unwrap(), Some(token.trim()));
    let later = jiff::Timestamp::from_second(System.now().millis() / 1_000 + 86_400).unwrap();
    let mail = |send_at: &str| {
        format!(r#"{{"from":"a@example.org","to":["b@example.com"],"text":"x","send_at":"{send_at}"}}"#)
    };
    let raw = format!(
        "From: a@example.org\r\nTo: b@example.com\r\nX-Postroad-Tag: spring\r\nX-Postroad-Send-At: {later}\r\n\r\nx\r\n"
    );
    let by_json = http::post(at, "/v1/send", token, &mail(&later.to_string())).unwrap();
    let by_message = http::post_as(at, "/v1/send", token, "message/rfc822", &raw).unwrap();
    for answer in [&by_json, &by_message] {
        assert_eq!(answer.status, 202, "{}", answer.body);
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
        let due = life["deliveries"][0]["due"].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
        assert_eq!((due, &life["deliveries"][0]["state"]), (Some(later), &"waiting".into()), "{life}");
    }
    let id = by_message.json()["id"].as_str().unwrap().to_owned();
    let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
    assert_eq!(life["tags"], serde_json::json!(["spring"]));
    let wrong = http::post(at, "/v1/send", token, &mail("soon")).unwrap();
    assert!(wrong.status == 400 && wrong.body.contains("send_at"), "{}", wrong.body);
    assert_eq!(upstream.count(), 0);
}
