//! An upstream that takes access tokens only: one token for all mail, renewed in time; what becomes of mail where there
//! is none; and that no secret is ever seen.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::partial_recipients::FAST;
use crate::support::mailgen::plain;
use crate::support::relay::Setup;
use crate::support::token::{
    CLIENT_ID, CLIENT_SECRET, Manner as Endpoint, REFRESH_TOKEN, SCOPE, TokenEndpoint,
};
use crate::support::upstream::{Bearer, Manner};
use crate::support::wait::side_by_side;
use crate::support::{Fault, Point, Relay, Upstream, wait_until};

const MAILBOX: &str = "printer@example.org";
const SECOND: Duration = Duration::from_secs(1);

fn upstream(endpoint: &TokenEndpoint, mechanisms: &'static str, challenges: bool) -> Upstream {
    let bearer = Bearer { mechanisms, user: MAILBOX, judge: endpoint.judge(), challenges };
    Upstream::with(Manner { bearer: Some(bearer), ..Manner::default() })
}

/// The keys of an `[[esp]]` that gets its tokens there.
fn login(endpoint: &TokenEndpoint) -> String {
    format!(
        "auth = \"oauth2\"\nusername = \"{MAILBOX}\"\ntoken_url = \"{}\"\nclient_id = \"{CLIENT_ID}\"\n\
         client_secret = \"env:CLIENT_SECRET\"\nscope = \"{SCOPE}\"\n",
        endpoint.url()
    )
}

fn setup() -> Setup {
    Relay::setup().tables(FAST).env("CLIENT_SECRET", CLIENT_SECRET).env("REFRESH_TOKEN", REFRESH_TOKEN)
}

fn submit(relay: &Relay, subject: &str) -> String {
    relay.submit("a@example.org", &["ok@example.com"], &plain(subject))
}

/// The client's words in AUTH, in their order.
fn auths(upstream: &Upstream) -> Vec<String> {
    let lines = upstream.commands().into_iter().map(|(_, line)| line);
    lines.filter(|line| line.starts_with("AUTH")).collect()
}

fn esp(relay: &Relay, name: &str) -> serde_json::Value {
    let listed = relay.get("/esp-status").unwrap().json();
    listed["esps"].as_array().unwrap().iter().find(|esp| esp["name"] == name).unwrap().clone()
}

/// Some more mail meets the fault, then an alert says that the gate is shut.
#[track_caller]
fn is_told(relay: &Relay) {
    wait_until("it is told", SECOND * 10, || {
        submit(relay, "more");
        relay.log().contains("esp_shut")
    });
}

/// No text holds a secret, plain or in base64, alone or as AUTH sends it.
#[track_caller]
fn assert_blotted(endpoint: &TokenEndpoint, texts: &[String]) {
    for secret in endpoint.secrets() {
        let encoded = STANDARD.encode(&secret);
        let sent = STANDARD.encode(format!("user={MAILBOX}\x01auth=Bearer {secret}\x01\x01"));
        // The middle of it, wherever it begins in a group of three octets.
        let parts = [&secret[..], &encoded[..encoded.len() - 4], &sent[sent.len() / 2..sent.len() - 8]];
        for text in texts {
            let seen = parts.iter().find(|part| text.contains(**part));
            assert!(seen.is_none(), "{secret} is seen as {seen:?} in {text}");
        }
    }
}

/// All that can be read of a message and of the relay.
fn all_words(relay: &Relay, id: &str) -> Vec<String> {
    let explained = relay.cli(&["explain", id]);
    let json = relay.cli(&["explain", id, "--json"]);
    let tested = relay.cli(&["esp", "test", "up1"]);
    let listed = relay.cli(&["esp", "list", "--json"]);
    let checked = relay.cli_with(&["check", "--connect"], &[("CLIENT_SECRET", CLIENT_SECRET)]);
    let life = relay.get(&format!("/v1/messages/{id}")).unwrap().body;
    let status = relay.get("/esp-status").unwrap().body;
    let ran = [explained, json, tested, listed, checked].map(|ran| format!("{}{}", ran.out, ran.err));
    ran.into_iter().chain([life, status, relay.log()]).collect()
}

#[test]
fn one_token_carries_many_messages_over_many_connections() {
    let endpoint = TokenEndpoint::start();
    let upstream = upstream(&endpoint, "LOGIN XOAUTH2", false);
    let lines = login(&endpoint) + "messages_per_connection = 2\n";
    let relay = setup().upstream(&upstream, &lines).start();
    let ids: Vec<String> = (0..20).map(|n| submit(&relay, &format!("shared {n}"))).collect();
    let received = upstream.wait_for(20);
    assert!(received.iter().all(|mail| mail.user.as_deref() == Some(MAILBOX)));
    assert!(upstream.connections() >= 10, "{} connections", upstream.connections());
    let asked = endpoint.requests();
    assert_eq!((asked.len(), asked[0]["grant_type"].as_str()), (1, "client_credentials"), "{asked:?}");
    let token = &endpoint.secrets()[0];
    let sent = STANDARD.encode(format!("user={MAILBOX}\x01auth=Bearer {token}\x01\x01"));
    assert!(
        auths(&upstream).iter().all(|line| *line == format!("AUTH XOAUTH2 {sent}")),
        "{:?}",
        auths(&upstream)
    );
    assert_blotted(&endpoint, &all_words(&relay, &ids[0]));
}

#[test]
fn the_standard_s_mechanism_goes_first_and_a_long_token_on_a_line_of_its_own() {
    let endpoint = TokenEndpoint::start();
    endpoint.long_tokens();
    for (mechanisms, chosen) in
        [("PLAIN XOAUTH2 OAUTHBEARER", "AUTH OAUTHBEARER"), ("XOAUTH2", "AUTH XOAUTH2")]
    {
        let upstream = upstream(&endpoint, mechanisms, false);
        let relay = setup().upstream(&upstream, &login(&endpoint)).start();
        submit(&relay, "long");
        upstream.wait_for(1);
        assert_eq!(auths(&upstream), [chosen], "the token waits for the 334");
    }
}

#[test]
fn a_token_is_renewed_before_it_ends() {
    let endpoint = TokenEndpoint::start();
    endpoint.life(SECOND * 4);
    let upstream = upstream(&endpoint, "XOAUTH2", false);
    let lines = login(&endpoint) + "messages_per_connection = 1\n";
    let relay = setup().upstream(&upstream, &lines).start();
    let mut sent = 0;
    wait_until("a third token", SECOND * 20, || {
        sent += 1;
        submit(&relay, &format!("life {sent}"));
        upstream.wait_for(sent);
        endpoint.count() >= 3
    });
    assert_eq!(
        auths(&upstream).len(),
        upstream.connections() as usize,
        "none was refused, each logged in once"
    );
    assert!(upstream.connections() > 6);
}

#[test]
fn a_token_that_was_taken_back_is_renewed_once_and_the_mail_goes() {
    side_by_side(
        [("XOAUTH2", false), ("XOAUTH2", true), ("OAUTHBEARER", true)],
        |(mechanism, challenges)| {
            let endpoint = TokenEndpoint::start();
            let (upstream, other) = (upstream(&endpoint, mechanism, challenges), Upstream::start());
            let lines = login(&endpoint) + "messages_per_connection = 1\n";
            let relay = setup().upstream(&upstream, &lines).upstream(&other, "").start();
            submit(&relay, "before");
            upstream.wait_for(1);
            endpoint.take_back();
            let id = submit(&relay, "after");
            upstream.wait_for(2);
            assert_eq!(
                (endpoint.count(), other.count(), auths(&upstream).len()),
                (2, 0, 3),
                "{mechanism} {challenges}"
            );
            assert!(!relay.log().contains("esp_shut"));
            assert_blotted(&endpoint, &all_words(&relay, &id));
        },
    );
}

#[test]
fn where_the_new_token_is_refused_too_the_other_takes_the_mail() {
    let endpoint = TokenEndpoint::start();
    let (upstream, other) = (upstream(&endpoint, "XOAUTH2", true), Upstream::start());
    upstream.fail_always(
        Point::Auth,
        Fault::Reply(
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox",
        ),
    );
    let relay = setup().upstream(&upstream, &login(&endpoint)).upstream(&other, "").start();
    let id = submit(&relay, "disabled");
    other.wait_for_within(1, SECOND * 5);
    let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
    assert_eq!(
        (&life["attempts"][0]["fault"], &life["attempts"][0]["phase"]),
        (&"account".into(), &"auth".into()),
        "{life}"
    );
    assert_eq!(endpoint.count(), 2, "renewed once");
    is_told(&relay);
    assert_ne!(esp(&relay, "up1")["gate"], "open");
    assert!(relay.cli(&["explain", &id]).must(0).out.contains("SmtpClientAuthentication is disabled"));
    assert_blotted(&endpoint, &all_words(&relay, &id));
}

#[test]
fn a_refused_grant_shuts_the_esp_and_bounces_nothing() {
    side_by_side(
        [(401, "invalid_client"), (400, "invalid_grant"), (400, "unauthorized_client")],
        |(status, error)| {
            let endpoint = TokenEndpoint::start();
            endpoint.manner(Endpoint::Refuse(status, error));
            let (upstream, other) = (upstream(&endpoint, "XOAUTH2", false), Upstream::start());
            let relay = setup().upstream(&upstream, &login(&endpoint)).upstream(&other, "").start();
            let id = submit(&relay, "refused");
            other.wait_for_within(1, SECOND * 5);
            let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
            assert_eq!(
                (&life["attempts"][0]["fault"], &life["attempts"][0]["phase"]),
                (&"account".into(), &"token".into()),
                "{life}"
            );
            is_told(&relay);
            assert_ne!(esp(&relay, "up1")["gate"], "open");
            let explained = relay.cli(&["explain", &id]).must(0).out;
            assert!(
                explained.contains(&format!("{status} from the token endpoint: {error}: no: ")),
                "{explained}"
            );
            assert_blotted(&endpoint, &all_words(&relay, &id));
            assert!(auths(&upstream).is_empty());
        },
    );
}

#[test]
fn with_no_other_the_mail_waits_until_the_grant_works_again() {
    let endpoint = TokenEndpoint::start();
    endpoint.manner(Endpoint::Refuse(400, "invalid_grant"));
    let upstream = upstream(&endpoint, "XOAUTH2", false);
    let relay = setup().upstream(&upstream, &login(&endpoint)).start();
    let ids: Vec<String> = (0..5).map(|n| submit(&relay, &format!("waits {n}"))).collect();
    wait_until("it is told", SECOND * 5, || relay.log().contains("esp_shut"));
    endpoint.manner(Endpoint::Well);
    upstream.wait_for_within(5, SECOND * 30);
    for id in &ids {
        wait_until("it is done", SECOND * 5, || {
            let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
            life["deliveries"][0]["state"] == "done"
        });
    }
    assert!(
        !relay.log().contains("status=bounced") && !relay.log().contains("\"bounced\""),
        "{}",
        relay.log()
    );
}

#[test]
fn a_token_endpoint_that_is_down_loses_its_mail_to_the_other_and_gets_it_back() {
    side_by_side(
        [Endpoint::Hang, Endpoint::Status(500), Endpoint::Status(429), Endpoint::Garbage],
        |manner| {
            let endpoint = TokenEndpoint::start();
            endpoint.manner(manner);
            let (upstream, other) = (upstream(&endpoint, "XOAUTH2", false), Upstream::start());
            let relay = setup().upstream(&upstream, &login(&endpoint)).upstream(&other, "").start();
            let id = submit(&relay, "down");
            other.wait_for_within(1, SECOND * 5);
            let life = relay.get(&format!("/v1/messages/{id}")).unwrap().json();
            let fault = if manner == Endpoint::Status(429) { "throttled" } else { "path" };
            assert_eq!(
                (&life["attempts"][0]["fault"], &life["attempts"][0]["phase"]),
                (&fault.into(), &"token".into()),
                "{manner:?} {life}"
            );
            endpoint.manner(Endpoint::Well);
            let mut sent = 0;
            wait_until("it takes mail again", SECOND * 30, || {
                sent += 1;
                submit(&relay, &format!("again {sent}"));
                upstream.count() > 0
            });
            assert_blotted(&endpoint, &all_words(&relay, &id));
        },
    );
}

#[test]
fn a_refresh_token_that_was_exchanged_stays_exchanged_over_a_reload() {
    let endpoint = TokenEndpoint::start();
    endpoint.rotates();
    let upstream = upstream(&endpoint, "XOAUTH2", false);
    let lines = login(&endpoint) + "refresh_token = \"env:REFRESH_TOKEN\"\nmessages_per_connection = 1\n";
    let relay = setup().upstream(&upstream, &lines).start();
    submit(&relay, "first");
    upstream.wait_for(1);
    endpoint.take_back();
    submit(&relay, "second");
    upstream.wait_for(2);
    let file = relay.folder().join("postroad.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("messages_per_connection = 1", "messages_per_connection = 1\nidle_timeout = \"1s\""),
    )
    .unwrap();
    let told = relay.cli(&["reload"]).must(0).out;
    assert!(told.contains("idle_timeout"), "{told}");
    endpoint.take_back();
    let id = submit(&relay, "third");
    upstream.wait_for(3);
    let shown: Vec<String> = endpoint.requests().iter().map(|form| form["refresh_token"].clone()).collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(
        shown[0] == REFRESH_TOKEN
            && shown[1].starts_with("r3fresh-0001")
            && shown[2].starts_with("r3fresh-0002"),
        "{shown:?}"
    );
    assert_blotted(&endpoint, &all_words(&relay, &id));
}

#[test]
fn a_test_and_a_check_ask_for_a_token_before_they_log_in() {
    let endpoint = TokenEndpoint::start();
    let upstream = upstream(&endpoint, "XOAUTH2", false);
    let relay = setup().upstream(&upstream, &login(&endpoint)).start();
    let told = relay.cli(&["esp", "test", "up1", "--json"]).must(0).json();
    let steps = told[0]["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(names, ["resolve", "connect", "banner", "ehlo", "token", "auth"], "{told:?}");
    let token = steps[4]["said"].as_str().unwrap();
    assert!(token.starts_with("an access token, good for 35"), "{token}");
    assert_eq!(steps[5]["said"], format!("XOAUTH2 as {MAILBOX}: 235 2.7.0 ok"));

    endpoint.manner(Endpoint::Refuse(401, "invalid_client"));
    let env = [("CLIENT_SECRET", CLIENT_SECRET)];
    let checked = relay.cli_with(&["check", "--connect"], &env);
    let text = format!("{}{}", checked.out, checked.err);
    assert!(
        checked.code == 1 && text.contains("up1: 401 from the token endpoint: invalid_client: no:"),
        "{text}"
    );
    endpoint.take_back();
    let tested = relay.cli(&["esp", "test", "up1"]).must(1);
    assert!(
        tested.out.contains("token") && tested.out.contains("failed: 401 from the token endpoint"),
        "{tested:?}"
    );
    assert_blotted(&endpoint, &[text, tested.out, tested.err, relay.log()]);
    endpoint.manner(Endpoint::Well);
    let checked = relay.cli_with(&["check", "--connect"], &env).must(0);
    assert!(checked.out.contains("up1: connected and logged in"), "{checked:?}");
}
