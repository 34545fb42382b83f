//! Every way to fail, in every phase.

use super::*;
use crate::secret::Secret;
use crate::wire::smtp::{Login, Proof};

/// Phase, what is heard before the reply, the good reply.
const STAGES: [(Phase, &str, &str); 7] = [
    (Phase::Banner, "", "S: 220 mx"),
    (Phase::Ehlo, "C: EHLO", "S: 250-mx\nS: 250-AUTH PLAIN LOGIN\nS: 250 8BITMIME"),
    (Phase::Auth, "C: AUTH PLAIN", "S: 235 ok"),
    (Phase::Mail, "C: MAIL", "S: 250 ok"),
    (Phase::Rcpt, "C: RCPT", "S: 250 ok"),
    (Phase::Data, "C: DATA", "S: 354 go"),
    (Phase::Dot, ".", "S: 250 ok"),
];

/// The dialogue up to `at`, which then goes wrong; with PIPELINING or without.
fn script(at: Phase, pipelining: bool, fault: &str) -> String {
    let mut script = String::new();
    for (phase, hear, say) in STAGES {
        script.push_str(hear);
        script.push('\n');
        if phase == at {
            script.push_str(fault);
            return script;
        }
        let say =
            if pipelining { say.replace("250-AUTH", "250-PIPELINING\nS: 250-AUTH") } else { say.into() };
        script.push_str(&say);
        script.push('\n');
    }
    script
}

async fn outcome(at: Phase, pipelining: bool, fault: &str, timeout: Duration) -> Reply {
    let upstream = Upstream::plays(&[&script(at, pipelining, fault)]).await;
    let login = Login { username: "u".into(), proof: Proof::Password(Secret::new("p")) };
    let settings = Settings { timeout, data_timeout: timeout, login: Some(login), ..settings(&upstream) };
    let wire = wire(settings);
    let reply = send(&wire, simple()).await;
    wire.close().await;
    let heard = upstream.heard().await;
    if at < Phase::Dot {
        assert!(
            heard[0].contents.is_empty() && heard[0].unfinished.is_empty(),
            "{at:?} {fault}: content had left"
        );
    }
    reply
}

#[tokio::test]
async fn a_refusal_is_told_with_its_phase_and_words() {
    for (at, _, _) in STAGES {
        for pipelining in [false, true] {
            for code in [450, 554] {
                let class = code / 100;
                let fault = format!("S: {code}-{class}.7.1 not\nS: {code} {class}.7.1 you\n5xx");
                let reply = smtp(outcome(at, pipelining, &fault, Duration::from_secs(10)).await);
                assert_eq!((reply.phase, reply.last.code), (at, code), "{at:?} pipelining {pipelining}");
                assert_eq!(reply.last.enhanced.map(|status| status.parts()[1]), Some(7));
                assert_eq!(reply.last.text, "not you");
            }
        }
    }
}

#[tokio::test]
async fn what_it_says_of_any_secret_of_the_account_is_blotted_out() {
    use base64::Engine as _;
    const KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const PASSWORD: &str = "BMW5RDrXmmVs0lV7GpI4oLkHXpZ4stDsk6q91z1g38Pk";
    let plain = |password| base64::engine::general_purpose::STANDARD.encode(format!("\0u\0{password}"));
    for said in [KEY.to_owned(), PASSWORD.to_owned(), plain(KEY), plain(PASSWORD)] {
        let upstream = Upstream::plays(&[&script(Phase::Mail, false, &format!("S: 550 no {said}."))]).await;
        let login = Login { username: "u".into(), proof: Proof::Password(Secret::new(PASSWORD)) };
        let kin = vec![Secret::new(KEY)];
        let wire = wire(Settings { login: Some(login), kin, ..settings(&upstream) });
        let reply = smtp(send(&wire, simple()).await);
        assert_eq!((reply.phase, reply.last.text.as_str()), (Phase::Mail, "no ***."));
        wire.close().await;
    }
}

#[tokio::test]
async fn a_line_that_breaks_tells_whether_the_message_can_have_arrived() {
    let faults = ["close", "reset", "R: HTTP/1.1 400 no\\r\\n", "R: 250-half\nclose", "R: 25", "S: 399 what"];
    for (at, _, _) in STAGES {
        for pipelining in [false, true] {
            for fault in faults {
                let patience = if fault == "R: 25" { 200 } else { 10_000 };
                let reply = outcome(at, pipelining, fault, Duration::from_millis(patience)).await;
                let (phase, handed_over, said) = lost(reply);
                assert_eq!(
                    (phase, handed_over),
                    (at, at == Phase::Dot),
                    "{fault} pipelining {pipelining}: {said}"
                );
                if fault == "R: 25" {
                    assert!(said.contains("no whole reply within 200ms, only: 25"), "{said}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_left_when_the_time_is_over() {
    for (at, _, _) in STAGES {
        let (phase, handed_over, said) = lost(outcome(at, true, "hang", Duration::from_millis(100)).await);
        assert_eq!((phase, handed_over), (at, at == Phase::Dot));
        assert!(said.contains("nothing moved for 100ms"), "{said}");
    }
}

#[tokio::test]
async fn a_reply_without_end_is_garbage() {
    let endless = format!("R: {}", "250-x\\r\\n".repeat(10_000));
    for at in [Phase::Ehlo, Phase::Dot] {
        let (phase, handed_over, said) = lost(outcome(at, false, &endless, Duration::from_secs(10)).await);
        assert_eq!((phase, handed_over), (at, at == Phase::Dot));
        assert!(said.contains("64 KiB"), "{said}");
    }
}

#[tokio::test]
async fn a_reply_of_many_lines_counts() {
    for (end, code) in [("250 2.0.0 queued as A1", 250), ("554 5.7.1 no", 554)] {
        let line = format!("{code}-more\\r\\n");
        let reply = format!("R: {}\nS: {end}", line.repeat(2_000));
        let last = smtp(outcome(Phase::Dot, true, &reply, Duration::from_secs(10)).await).last;
        assert_eq!(last.code, code);
    }
}

#[tokio::test]
async fn a_trickle_does_not_prolong_the_time_for_a_reply() {
    let started = crate::clock::monotonic();
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = upstream.local_addr().unwrap().port();
    let trickle = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut tcp, _) = upstream.accept().await.unwrap();
        while tcp.write_all(b"2").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let settings =
        Settings { tls: Tls::Off, timeout: Duration::from_millis(200), ..Settings::new("127.0.0.1", port) };
    let (phase, ..) = lost(send(&wire(settings), simple()).await);
    assert_eq!(phase, Phase::Banner);
    assert!(started.elapsed() < Duration::from_secs(5));
    trickle.await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_lost_at_connect() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let settings = Settings { tls: Tls::Off, ..Settings::new("127.0.0.1", port) };
    let (phase, handed_over, said) = lost(send(&wire(settings), simple()).await);
    assert_eq!((phase, handed_over), (Phase::Connect, false));
    assert!(said.contains(&port.to_string()), "{said}");
}

#[tokio::test]
async fn last_words_are_heard_when_the_write_fails() {
    // The reason, then RST: the write of the content fails, the reason is in the socket.
    let big = format!("Subject: big\r\n\r\n{}", "0123456789abcdef\r\n".repeat(400_000));
    let script = format!(
        "{GREETING}C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nC: SUBJECT\nS: 552 5.3.4 too big\nclose"
    );
    let (reply, _) = sent(&[&script], request(&["a@example.com"], big)).await;
    assert_eq!(codes(reply), (Phase::Body, 552, vec![250]));
}

#[tokio::test]
async fn an_abort_ends_it_before_the_hand_over_and_never_after() {
    let abort = Abort::default();
    abort.ask();
    let upstream = Upstream::plays(&[]).await;
    let reply = wire(settings(&upstream)).exchange(Request::Smtp(simple()), &Watch::new(abort.clone())).await;
    assert!(!lost(reply).1);

    let before = format!("{GREETING}C: MAIL\nC: RCPT\nC: DATA\nask\nhang");
    let after = format!("{GREETING}{}", ONE.replace("\n.\n", "\n.\nask\n"));
    for (script, handed_over) in [(before, false), (after, true)] {
        let abort = Abort::default();
        let upstream = Upstream::plays_with(&[&script], None, abort.clone()).await;
        let wire = wire(settings(&upstream));
        let watch = Watch::new(abort.clone());
        let reply = wire.exchange(Request::Smtp(simple()), &watch).await;
        wire.close().await;
        assert!(abort.asked());
        assert_eq!(watch.handed_over_for().is_some(), handed_over);
        if handed_over {
            assert_eq!(codes(reply), (Phase::Dot, 250, vec![250]));
        } else {
            let (phase, told, said) = lost(reply);
            assert_eq!((phase, told), (Phase::Mail, false));
            assert!(said.contains("given up"), "{said}");
        }
        upstream.heard().await;
    }
}

#[tokio::test]
async fn the_verdict_is_listened_for_as_long_as_the_watch_does_or_until_it_is_told_not_to() {
    let late = format!("{GREETING}{}", ONE.replace("\n.\n", "\n.\nlate\n"));
    let silent = format!("{GREETING}{}", ONE.replace("\n.\n", "\n.\nhang\n"));
    for (script, answers) in [(late, true), (silent, false)] {
        let upstream = Upstream::plays(&[&script]).await;
        let wire = wire(Settings { data_timeout: Duration::from_millis(100), ..settings(&upstream) });
        let watch = Watch::that_listens(Abort::default(), Duration::from_secs(60));
        let exchange = wire.exchange(Request::Smtp(simple()), &watch);
        let told = async {
            while watch.handed_over_for().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if !answers {
                watch.stop_listening();
            }
        };
        let (reply, ()) = tokio::join!(exchange, told);
        wire.close().await;
        if answers {
            assert_eq!(codes(reply), (Phase::Dot, 250, vec![250]));
        } else {
            let (phase, handed_over, said) = lost(reply);
            assert_eq!((phase, handed_over), (Phase::Dot, true), "{said}");
        }
        upstream.heard().await;
    }
}
