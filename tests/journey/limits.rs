//! Many, slow and greedy clients: each is held within its bound, and none keeps another from submitting.

use std::time::Duration;

use crate::support::mailgen::{assert_unchanged, plain, sized};
use crate::support::wait::holds_within;
use crate::support::{Client, Relay, Upstream, long_runs, skip, wait_until};

/// A normal client beside others: connect to last 250.
fn submits_within(relay: &Relay, bound: Duration) -> Duration {
    let began = postroad::clock::monotonic();
    relay.submit("a@example.org", &["ok@example.com"], &plain("normal"));
    let took = began.elapsed();
    assert!(took < bound, "a normal client took {took:?}");
    took
}

#[test]
fn the_longest_idle_client_makes_room() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").listener("max_connections = 3").start();
    let mut clients: Vec<Client> = (0..3).map(|_| relay.client()).collect();
    // The second is the longest idle one, the first has just said something.
    clients[2].say("NOOP").expect("250");
    clients[0].say("NOOP").expect("250");
    let mut fourth = relay.client();
    let told = clients[1].reply_within(Duration::from_secs(5)).expect("it is told");
    assert_eq!(told.code, 421, "{}", told.raw);
    assert_eq!(told.complaint(), None);
    assert!(clients[1].closed_within(Duration::from_secs(5)));
    fourth.submit("a@example.org", &["ok@example.com"], &plain("fourth"));
    clients[0].say("NOOP").expect("250");
    clients[2].say("NOOP").expect("250");
}

#[test]
fn the_limit_of_one_address_holds_on_loopback_where_it_is_written() {
    let upstream = Upstream::start();
    let written = "max_connections_per_address = 3";
    let relay = Relay::setup().upstream(&upstream, "").listener(written).listener("").start();
    let mut here: Vec<Client> = (0..3).map(|_| relay.client()).collect();
    let told = Client::connect(relay.smtp()).reply_within(Duration::from_secs(10)).expect("it is told");
    assert!(
        told.raw.starts_with("421 4.") && told.raw.contains("max_connections_per_address"),
        "{}",
        told.raw
    );
    assert_eq!(told.complaint(), None);
    here[0].submit("a@example.org", &["ok@example.com"], &plain("within"));
    let _free: Vec<Client> = (0..60).map(|_| Client::hello(relay.listener(1))).collect();
}

#[test]
fn a_transaction_is_never_cut_to_make_room() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").listener("max_connections = 2").start();
    let mut busy: Vec<Client> = (0..2).map(|_| relay.client()).collect();
    for client in &mut busy {
        client.begin("a@example.org", &["ok@example.com"]);
        client.raw(b"Subject: busy\r\n\r\n");
    }
    let mut third = Client::connect(relay.smtp());
    let told = third.reply_within(Duration::from_secs(10)).expect("it is told");
    assert_eq!(told.code, 421, "{}", told.raw);
    assert!(told.raw.starts_with("421 4.3.2"), "{}", told.raw);
    for client in &mut busy {
        client.raw(b"end\r\n.\r\n");
        client.expect("250");
    }
    upstream.wait_for(2);
}

/// The lines of the log that have all these words, when there is one.
fn lines_with(relay: &Relay, words: &[&str]) -> Vec<String> {
    let all = || {
        let log = relay.log();
        log.lines().filter(|l| words.iter().all(|w| l.contains(w))).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(
        holds_within(Duration::from_secs(5), || !all().is_empty()),
        "no line has {words:?}:\n{}",
        relay.log()
    );
    all()
}

#[test]
fn a_refused_login_is_told_with_its_mechanism_and_never_a_password() {
    let upstream = Upstream::start();
    let relay = Relay::setup()
        .upstream(&upstream, "")
        .listener("auth = \"optional\"")
        .credential("shop", "right-one")
        .start();
    let mut client = relay.client();
    // other, shop, right-one: for another. Then shop and no base64; then another mechanism.
    client.say("AUTH PLAIN b3RoZXIAc2hvcAByaWdodC1vbmU=").expect("535");
    lines_with(&relay, &["login refused", "PLAIN", "\"username\":\"shop\"", "for_another", "127.0.0.1"]);
    client.say("AUTH LOGIN c2hvcA==").expect("334");
    client.say("secret!!!").expect("501");
    lines_with(&relay, &["login refused", "LOGIN", "\"username\":\"shop\"", "malformed"]);
    client.say("AUTH CRAM-MD5").expect("504");
    lines_with(&relay, &["login refused", "CRAM-MD5", "\"reason\":\"mechanism\""]);
    for secret in ["right-one", "cmlnaHQtb25l", "secret!!!"] {
        assert!(!relay.log().contains(secret), "{}", relay.log());
    }
    assert_eq!(relay.metric("postroad_logins_refused_total"), 3.0);
}

#[test]
fn refused_mail_and_cut_connections_are_told() {
    let upstream = Upstream::start();
    let relay = Relay::setup()
        .upstream(&upstream, "")
        .listener("allow = []\nmax_message_size = \"64KB\"\nmax_errors = 3\nmax_connections = 1")
        .start();
    let mut client = relay.client();
    client.say("MAIL FROM:<a@example.org> SIZE=99999").expect("552");
    lines_with(&relay, &["refused", "too_large", "\"from\":\"a@example.org\""]);
    client.say("MAIL FROM:<a@example.org>").expect("250");
    client.say("RCPT TO:<b@example.com>").expect("550");
    let words = ["refused", "relay_denied", "\"from\":\"a@example.org\"", "\"to\":\"b@example.com\""];
    lines_with(&relay, &words);
    client.say("FOO").expect("500");
    client.expect("421");
    lines_with(&relay, &["refused", "too_many_errors"]);
    assert!(client.closed_within(Duration::from_secs(5)));
    let first = relay.client();
    let _second = relay.client();
    lines_with(&relay, &["refused", "made_room"]);
    drop(first);
    // Nothing of a slip of grammar.
    assert!(!relay.log().contains("500 5.5.1"), "{}", relay.log());
}

#[test]
fn clients_that_only_named_a_sender_keep_nobody_out() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").listener("max_connections = 3").start();
    let mut idle: Vec<Client> = (0..3).map(|_| relay.client()).collect();
    for client in &mut idle {
        client.say("MAIL FROM:<a@example.org>").expect("250");
    }
    submits_within(&relay, Duration::from_secs(1));
    upstream.wait_for(1);
}

#[test]
fn silent_visitors_of_the_http_port_keep_nobody_out() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let silent: Vec<_> =
        (0..300).map(|_| std::net::TcpStream::connect(relay.http().unwrap()).unwrap()).collect();
    let began = postroad::clock::monotonic();
    assert_eq!(relay.get("/healthz").map(|a| a.status), Some(200));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "a supervisor waited {took:?}");
    drop(silent);
}

#[test]
fn a_wrong_password_is_seen_by_the_operator_and_not_shown() {
    let upstream = Upstream::start();
    let credential = "[[credential]]\nusername = \"shop\"\npassword = \"literal:right-one\"\n";
    let relay =
        Relay::setup().upstream(&upstream, "").listener("auth = \"optional\"").tables(credential).start();
    let mut client = relay.client();
    // shop, wrong-one
    client.say("AUTH PLAIN AHNob3AAd3Jvbmctb25l").expect("535");
    wait_until("it is logged", Duration::from_secs(5), || relay.log().contains("login refused"));
    let log = relay.log();
    assert!(log.contains("\"username\":\"shop\"") && !log.contains("wrong-one"), "{log}");
    assert_eq!(relay.metric("postroad_logins_refused_total"), 1.0);
}

#[test]
fn silence_ends_a_connection() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").listener("idle_timeout = \"1s\"").start();
    let mut client = relay.client();
    let told = client.reply_within(Duration::from_secs(10)).expect("it is told");
    assert_eq!((told.code, told.complaint()), (421, None), "{}", told.raw);
    assert!(client.closed_within(Duration::from_secs(5)));
}

#[test]
fn one_octet_at_a_time_is_not_enough() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").listener("idle_timeout = \"2s\"").start();
    // In a command, which never ends, and in the body, which never ends.
    let mut in_command = relay.client();
    let mut in_body = relay.client();
    in_body.begin("a@example.org", &["ok@example.com"]);
    let cut = holds_within(Duration::from_secs(90), || {
        std::thread::sleep(Duration::from_millis(250));
        let command = in_command.try_raw(b"x").is_err();
        let body = in_body.try_raw(b"x").is_err();
        command && body
    });
    assert!(cut, "a client of a few octets a second is still there");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn many_idle_clients_do_not_stop_a_normal_one() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let before = relay.memory_kilobytes("VmRSS").unwrap();
    let idle: Vec<Client> = (0..900).map(|_| Client::connect(relay.smtp())).collect();
    submits_within(&relay, Duration::from_secs(3));
    wait_until("they are counted", Duration::from_secs(30), || {
        relay.metric("postroad_smtp_connections") >= 900.0
    });
    let grown = relay.memory_kilobytes("VmRSS").unwrap().saturating_sub(before);
    println!("limits: 900 idle connections took {grown} kB");
    assert!(grown < 60_000, "{grown} kB for 900 idle connections");
    drop(idle);
}

#[test]
fn ten_thousand_idle_or_trickling_clients() {
    if !long_runs() {
        return skip("ten thousand connections", "it is a long run (POSTROAD_LONG=1)");
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.maximum.is_some_and(|m| m < 12_500) {
        return skip("ten thousand connections", "the hard limit on open files is too low here");
    }
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").listener("max_connections = 12000").start();
    let mut clients: Vec<Client> = Vec::new();
    for n in 0..10_000u32 {
        // One source address has some 28,000 ports; a few of them keep clear of what others use.
        let from = std::net::Ipv4Addr::new(127, 9, 0, (n % 8 + 1) as u8);
        let connected = Client::try_connect(relay.smtp(), Some(from.into()));
        clients.push(connected.unwrap_or_else(|e| panic!("connection {n}: {e}")));
    }
    wait_until("they are counted", Duration::from_secs(120), || {
        relay.metric("postroad_smtp_connections") >= 10_000.0
    });
    submits_within(&relay, Duration::from_secs(1));
    // Half of them begin to trickle.
    for client in clients.iter_mut().take(5_000) {
        let _ = client.try_raw(b"E");
    }
    submits_within(&relay, Duration::from_secs(1));
    println!("limits: 10,000 connections, VmRSS {:?} kB", relay.memory_kilobytes("VmRSS"));
}

#[test]
fn eleven_trickling_giants_do_not_stop_a_normal_client() {
    let upstream = Upstream::start();
    let (memory, each) = if long_runs() { ("256MB", 24_000_000) } else { ("16MB", 4_000_000) };
    let relay = Relay::setup().upstream(&upstream, "").limits(&format!("memory = \"{memory}\"")).start();
    let raw = sized("giant", each);
    let mut giants: Vec<Client> = (0..11).map(|_| relay.client()).collect();
    std::thread::scope(|scope| {
        for giant in &mut giants {
            scope.spawn(|| {
                giant.begin("a@example.org", &["ok@example.com"]);
                let _ = giant.try_raw(&raw);
            });
        }
    });
    for _ in 0..5 {
        giants.iter_mut().for_each(|g| drop(g.try_raw(b"trickle ")));
        submits_within(&relay, Duration::from_secs(2));
    }
    let peak = relay.memory_kilobytes("VmHWM").unwrap();
    println!("limits: eleven giants of {each} octets, VmHWM {peak} kB");
    assert!(peak < if long_runs() { 400_000 } else { 150_000 }, "{peak} kB");
    for giant in &mut giants {
        giant.raw(b"\r\n.\r\n");
        let reply = giant.reply();
        assert!(matches!(reply.code, 250 | 452), "{}", reply.raw);
    }
}

#[test]
fn the_least_memory_takes_a_large_message() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").limits("memory = \"1MB\"").start();
    let raw = sized("large", 5_000_000);
    relay.submit("a@example.org", &["ok@example.com"], &raw);
    assert_unchanged(&raw, &upstream.wait_for(1)[0].data);
}

#[test]
fn out_of_memory_for_mail_is_452_and_passes() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "").limits("memory = \"2MB\"").start();
    let raw = sized("piece", 200_000);
    let mut clients: Vec<Client> = (0..60).map(|_| relay.client()).collect();
    let mut refused = 0;
    for client in &mut clients {
        client.say("MAIL FROM:<a@example.org>").expect("2");
        client.say("RCPT TO:<ok@example.com>").expect("250");
        client.say("DATA");
        let reply = client.reply();
        assert_eq!(reply.complaint(), None);
        if reply.code != 354 {
            assert_eq!(reply.code, 452, "{}", reply.raw);
            refused += 1;
            continue;
        }
        let _ = client.try_raw(&raw);
    }
    // Those that were let in are answered one way or the other.
    for client in &mut clients {
        client.raw(b".\r\n");
        if let Ok(reply) = client.reply_within(Duration::from_secs(20)) {
            refused += usize::from(reply.code == 452);
            assert_eq!(reply.complaint(), None);
        }
    }
    assert!(refused > 0, "60 clients with 200 kB each fitted into 2 MB");
    drop(clients);
    wait_until("memory is given back", Duration::from_secs(20), || {
        relay.client().try_submit("a@example.org", &["ok@example.com"], &raw, Duration::from_secs(20)).is_ok()
    });
}

#[test]
fn a_client_that_does_not_read_its_replies_holds_only_itself() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let mut deaf = relay.client();
    deaf.small_buffers();
    let noops = "HELP\r\n".repeat(20_000);
    let thread = std::thread::spawn(move || {
        let _ = deaf.try_raw(noops.as_bytes());
        deaf
    });
    submits_within(&relay, Duration::from_secs(3));
    assert!(relay.memory_kilobytes("VmRSS").unwrap() < 200_000);
    drop(relay);
    let _ = thread.join();
}

#[test]
fn guesses_at_a_password_are_slowed_and_cut() {
    let upstream = Upstream::start();
    let relay = Relay::setup()
        .upstream(&upstream, "")
        .listener("auth = \"required\"")
        .credential("user", "secret")
        .start();
    let mut client = relay.client();
    let began = postroad::clock::monotonic();
    let mut answers = Vec::new();
    for _ in 0..10 {
        match client.say("AUTH PLAIN AHVzZXIAd3Jvbmc=").reply_within(Duration::from_secs(20)) {
            Ok(reply) => answers.push(reply.code),
            Err(_) => break,
        }
    }
    assert!(answers.len() < 10, "ten guesses on one connection: {answers:?}");
    assert!(answers.iter().all(|c| matches!(c, 535 | 421 | 454)), "{answers:?}");
    assert!(began.elapsed() > Duration::from_millis(500), "guessing is not slowed: {:?}", began.elapsed());
}

#[test]
fn a_full_queue_is_452_until_it_has_emptied() {
    let mut upstream = Upstream::start();
    let relay = Relay::setup()
        .upstream(&upstream, "")
        .tables(super::partial_recipients::FAST)
        .limits("queue_bytes = \"1MB\"")
        .start();
    upstream.shut();
    let raw = sized("queued", 100_000);
    let mut client = relay.client();
    let mut taken = 0;
    let refused = loop {
        match client.try_submit("a@example.org", &["ok@example.com"], &raw, Duration::from_secs(20)) {
            Ok(_) => taken += 1,
            Err(said) => break said,
        }
        assert!(taken < 30, "no end of a queue of 1 MB");
    };
    assert!(refused.starts_with("452 4.3.1") && taken >= 5, "{taken} taken, then {refused}");
    // What was refused ends that transaction alone.
    client.say("NOOP").expect("250");
    upstream.reopen();
    upstream.wait_for(taken);
    wait_until("room again", Duration::from_secs(20), || {
        relay.client().try_submit("a@example.org", &["ok@example.com"], &raw, Duration::from_secs(20)).is_ok()
    });
}

#[test]
fn a_slow_next_hop_keeps_memory_flat() {
    let upstream = Upstream::start();
    upstream.fail_always(crate::support::Point::Dot, crate::support::Fault::Slow(Duration::from_secs(1)));
    let relay = Relay::to(&upstream);
    let mut client = relay.client();
    let raw = sized("flat", 20_000);
    let mut after_first_half = 0;
    for n in 0..3_000 {
        client.submit("a@example.org", &["ok@example.com"], &raw);
        client.transcript.clear();
        if n == 1_500 {
            after_first_half = relay.memory_kilobytes("VmRSS").unwrap();
        }
    }
    let at_end = relay.memory_kilobytes("VmRSS").unwrap();
    println!("limits: 3,000 waiting messages of 20 kB, VmRSS {after_first_half} then {at_end} kB");
    // The second half, thirty megabytes of mail, is on the disk.
    assert!(at_end < after_first_half + 15_000, "{after_first_half} kB, then {at_end} kB");
}
