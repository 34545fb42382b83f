//! AUTH with an access token, octet for octet, and what is made of refusals.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::mail::{Grant, GrantKind};
use crate::secret::Secret;
use crate::wire::smtp::{Login, Proof, Tokens};

/// Plays these answers, one a connection, as a token endpoint; then it takes no more. `None` hangs up.
fn endpoint(answers: Vec<Option<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut heard, mut chunk) = (Vec::new(), [0; 4096]);
            while !String::from_utf8_lossy(&heard).contains("client_secret=cl13nt-s3cret") {
                match stream.read(&mut chunk) {
                    Ok(n) if n > 0 => heard.extend_from_slice(&chunk[..n]),
                    _ => break,
                }
            }
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    url
}

fn answer(status: u16, json: &str) -> Option<String> {
    let length = json.len();
    Some(format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
    ))
}

fn token(token: &str) -> Option<String> {
    answer(200, &format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\",\"expires_in\":3600}}"))
}

fn with_tokens(upstream: &Upstream, token_url: String, username: &str) -> SmtpWire {
    let grant = Grant {
        token_url,
        ca_file: None,
        client_id: "id".into(),
        scope: None,
        kind: GrantKind::ClientCredentials { client_secret: Secret::new("cl13nt-s3cret") },
    };
    let proof = Proof::Token(Arc::new(Tokens::new(grant)));
    wire(Settings { login: Some(Login { username: username.into(), proof }), ..settings(upstream) })
}

/// Sends one message to a script that begins at EHLO's keywords.
async fn sent_with(answers: Vec<Option<String>>, username: &str, script: &str) -> (Reply, Vec<String>, u16) {
    let upstream = Upstream::plays(&[&format!("S: 220 mx\nC: EHLO\nS: 250-mx\n{script}")]).await;
    let port = upstream.address.port();
    let wire = with_tokens(&upstream, endpoint(answers), username);
    let reply = send(&wire, simple()).await;
    wire.close().await;
    let lines = upstream.heard().await.remove(0).lines;
    (reply, lines, port)
}

const STEPWISE: &str = "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nS: 354 go\n.\nS: 250 ok\n";

#[tokio::test]
async fn xoauth2_is_as_google_and_microsoft_wrote_it() {
    let script = format!("S: 250 AUTH LOGIN XOAUTH2\nC: AUTH XOAUTH2 \nS: 235 2.7.0 ok\n{STEPWISE}");
    let (reply, lines, _) =
        sent_with(vec![token("vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGE")], "someuser@example.com", &script).await;
    assert!(smtp(reply).last.positive());
    // "user=someuser@example.com^Aauth=Bearer vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGE^A^A"
    let expected = "AUTH XOAUTH2 dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB2RjlkZnQ0cW1UYzJOdmIzUmxja0JoZEhSaGRtbHpkR0UBAQ==";
    assert_eq!(lines[1], expected);
}

#[tokio::test]
async fn oauthbearer_is_as_rfc_7628_has_it_and_goes_first() {
    let script = format!("S: 250 AUTH XOAUTH2 OAUTHBEARER\nC: AUTH OAUTHBEARER \nS: 235 ok\n{STEPWISE}");
    let (reply, lines, port) = sent_with(vec![token("t0ken")], "a=b,c@example.com", &script).await;
    assert!(smtp(reply).last.positive());
    let response = STANDARD.decode(lines[1].rsplit(' ').next().unwrap()).unwrap();
    let expected =
        format!("n,a=a=3Db=2Cc@example.com,\x01host=127.0.0.1\x01port={port}\x01auth=Bearer t0ken\x01\x01");
    assert_eq!(String::from_utf8(response).unwrap(), expected);
}

#[tokio::test]
async fn a_token_too_long_for_a_command_waits_for_the_334() {
    let long = "x".repeat(2_000);
    for mechanism in ["XOAUTH2", "OAUTHBEARER"] {
        let script =
            format!("S: 250 AUTH {mechanism}\nC: AUTH {mechanism}\nS: 334 \nC: \nS: 235 ok\n{STEPWISE}");
        let (reply, lines, _) = sent_with(vec![token(&long)], "u", &script).await;
        assert!(smtp(reply).last.positive());
        assert_eq!(lines[1], format!("AUTH {mechanism}"));
        assert!(STANDARD.decode(&lines[2]).is_ok_and(|octets| octets.len() > 2_000));
    }
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_on_the_same_line() {
    let challenge = STANDARD.encode("{\"status\":\"401\",\"schemes\":\"bearer\"}");
    for (mechanism, refusal) in [
        ("XOAUTH2", "S: 535 5.7.3 no\n".to_owned()),
        ("XOAUTH2", format!("S: 334 {challenge}\nC: \nS: 535 5.7.8 no\n")),
        ("OAUTHBEARER", format!("S: 334 {challenge}\nC: AQ==\nS: 535 5.7.8 no\n")),
    ] {
        let script = format!("S: 250 AUTH {mechanism}\nC: AUTH\n{refusal}C: AUTH\nS: 235 ok\n{STEPWISE}");
        let (reply, lines, _) = sent_with(vec![token("one-t0ken"), token("two-t0ken")], "u", &script).await;
        assert!(smtp(reply).last.positive(), "{mechanism}");
        let shown = |line: &str| {
            let octets = STANDARD.decode(line.rsplit(' ').next().unwrap()).unwrap();
            String::from_utf8(octets).unwrap()
        };
        let auths: Vec<String> =
            lines.iter().filter(|line| line.starts_with("AUTH")).map(|line| shown(line)).collect();
        assert!(auths[0].contains("one-t0ken") && auths[1].contains("two-t0ken"), "{auths:?}");

        let script = format!("S: 250 AUTH {mechanism}\nC: AUTH\n{refusal}C: AUTH\n{refusal}hang");
        let (reply, ..) = sent_with(vec![token("one-t0ken"), token("two-t0ken")], "u", &script).await;
        let reply = smtp(reply);
        assert_eq!((reply.phase, reply.last.code), (Phase::Auth, 535));
        assert_eq!(
            reply.last.text.contains("about the token: {\"status\":\"401\""),
            refusal.contains("334"),
            "{reply:?}"
        );
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_shown_and_the_endpoint_is_quoted() {
    let refused = "{\"error\":\"invalid_client\",\"error_description\":\"cl13nt-s3cret is wrong\"}";
    let script = "S: 250 AUTH XOAUTH2\nhang";
    let (reply, lines, _) = sent_with(vec![answer(401, refused)], "u", script).await;
    let reply = smtp(reply);
    assert_eq!((reply.phase, reply.last.code), (Phase::Token, 401));
    assert_eq!(reply.last.text, "from the token endpoint: invalid_client: *** is wrong");
    assert!(lines.iter().all(|line| !line.starts_with("AUTH")));

    let long = "x".repeat(100_000);
    for bad in [
        None,
        answer(200, "cl13nt-s3cret"),
        answer(200, &long),
        Some("SMTP? 220\r\n\r\n".into()),
        answer(302, ""),
    ] {
        let (reply, ..) = sent_with(vec![bad], "u", script).await;
        let (phase, handed_over, said) = lost(reply);
        assert_eq!((phase, handed_over), (Phase::Token, false), "{said}");
        assert!(
            said.starts_with("the token endpoint: ") && !said.contains("s3cret") && !said.contains("xxx"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_server_without_either_mechanism_is_told_of_and_no_token_asked_for() {
    for (keywords, told) in
        [("AUTH LOGIN PLAIN", "neither AUTH XOAUTH2 nor OAUTHBEARER"), ("HELP", "no AUTH here")]
    {
        let (reply, lines, _) = sent_with(Vec::new(), "u", &format!("S: 250 {keywords}\nhang")).await;
        let (phase, _, said) = lost(reply);
        assert!(phase == Phase::Auth && said.contains(told), "{said}");
        assert_eq!(lines.len(), 1);
    }
}

#[tokio::test]
async fn an_abort_ends_the_wait_for_a_token() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = Upstream::plays(&["S: 220 mx\nC: EHLO\nS: 250-mx\nS: 250 AUTH XOAUTH2\nhang"]).await;
    let wire = with_tokens(&upstream, format!("http://{}/t", listener.local_addr().unwrap()), "u");
    let abort = Abort::default();
    let watch = Watch::new(abort.clone());
    let exchange = wire.exchange(Request::Smtp(simple()), &watch);
    let (reply, ()) = tokio::join!(exchange, async {
        // The request is there: it waits for an answer.
        let accepted = tokio::task::spawn_blocking(move || listener.accept().map(|(stream, _)| stream));
        let stream = accepted.await.unwrap();
        abort.ask();
        drop(stream);
    });
    let (phase, handed_over, said) = lost(reply);
    assert_eq!((phase, handed_over), (Phase::Token, false));
    assert!(said.contains("given up by the relay"), "{said}");
    wire.close().await;
    upstream.heard().await;
}

#[tokio::test]
async fn what_a_server_repeats_of_a_token_is_blotted_out() {
    let token_text = "t0ken-0123456789-abcdefghij";
    let response = STANDARD.encode(format!("user=u\x01auth=Bearer {token_text}\x01\x01"));
    let script = format!(
        "S: 250 AUTH XOAUTH2\nC: AUTH\nS: 454 4.7.0 {response} {token_text} {}\nhang",
        STANDARD.encode(token_text)
    );
    let (reply, ..) = sent_with(vec![token(token_text)], "u", &script).await;
    let text = smtp(reply).last.text;
    let middle = &response[response.len() / 2..response.len() - 8];
    assert!(!text.contains("0123456789") && !text.contains(middle) && text.contains("***"), "{text}");
}
