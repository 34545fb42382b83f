//! The configuration read again while the relay runs: whole or not at all, and told what changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::mailgen::plain;
use crate::support::relay::free_port;
use crate::support::tls::{Pki, client_of_all};
use crate::support::upstream::Manner;
use crate::support::{Client, Fault, Point, Relay, Upstream, long_runs, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// The file with some of it replaced.
fn rewrite(relay: &Relay, from: &str, to: &str) {
    let file = relay.folder().join("postroad.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from:?} in {text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

fn reload(relay: &Relay) -> Value {
    relay.cli(&["reload", "--json"]).must(0).json().remove(0)
}

/// How often the log has this.
fn told(relay: &Relay, words: &str) -> usize {
    relay.log().matches(words).count()
}

#[test]
fn it_says_what_changed_and_what_wants_a_restart() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let relay = Relay::setup().upstream(&first, "rate = \"50/s\"").start();
    assert_eq!(reload(&relay), json!({ "changed": [], "restart": [], "warnings": [] }));
    let port = free_port();
    rewrite(&relay, "50/s", "60/s");
    rewrite(&relay, "[limits]", "[limits]\nmemory = \"99MB\"");
    rewrite(&relay, "address = \"127.0.0.1:0\"", &format!("address = \"127.0.0.1:{port}\""));
    rewrite(
        &relay,
        "[[esp]]",
        &format!(
            "[[listener]]\naddress = \"127.0.0.1:{}\"\n[[esp]]\nname = \"new\"\ntype = \"smtp\"\ntls = \"off\"\n\
             priority = 0\naddress = \"{}\"\n[[esp]]",
            free_port(),
            second.address()
        ),
    );
    let told_by_command = relay.cli(&["reload"]).must(0).out;
    for line in [
        "esp.up1.rate: changed",
        "esp.new: added",
        "limits.memory: changed",
        "http.address: changed, and stays as it was until a restart",
    ] {
        assert!(told_by_command.lines().any(|l| l == line), "{line} in {told_by_command}");
    }
    let again = reload(&relay);
    assert_eq!(again["changed"], json!([]));
    let restart: Vec<&str> =
        again["restart"].as_array().unwrap().iter().filter_map(|c| c["key"].as_str()).collect();
    assert_eq!((restart[0], restart.len()), ("http.address", 2));
    assert!(restart[1].starts_with("listener.127.0.0.1:"), "{restart:?}");
    relay.submit("a@example.org", &["b@example.com"], &plain("to the new one"));
    assert_eq!(second.wait_for(1).len(), 1);
    let names: Vec<Value> =
        relay.cli(&["esp", "list", "--json"]).must(0).json().iter().map(|e| e["name"].clone()).collect();
    assert_eq!(names, ["new", "up1"]);
    assert!(told(&relay, "configuration reloaded") >= 3 && told(&relay, "until a restart") >= 2);
}

#[test]
fn mail_for_esps_that_are_named_no_more_waits_and_does_not_end_in_the_sandbox() {
    let upstream = Upstream::start();
    upstream.fail_always(Point::Mail, Fault::Reply("451 4.3.0 later"));
    let mut relay = Relay::setup().upstream(&upstream, "").start();
    let id = relay.submit("a@example.org", &["b@example.com"], &plain("accepted for a real one"));
    wait_until("its first try", SOON, || upstream.commands().iter().any(|(_, c)| c.starts_with("MAIL")));
    let file = relay.folder().join("postroad.toml");
    let with = fs::read_to_string(&file).unwrap();
    let without = with.split("[[esp]]").next().unwrap().to_owned();
    fs::write(&file, &without).unwrap();
    let checked = relay.cli(&["check"]).must(0).out;
    assert!(checked.contains("no [[esp]] is written: mail is kept in the sandbox, not sent"), "{checked}");
    let warned = relay.cli(&["reload"]).must(0).out;
    assert!(
        warned.contains("warning: esp: all sending is paused: the configuration names no [[esp]]"),
        "{warned}"
    );
    let later = relay.submit("a@example.org", &["b@example.com"], &plain("taken meanwhile"));
    let waits = |relay: &Relay| {
        relay.cli(&["queue", "flush"]).must(0);
        let list = relay.cli(&["queue", "list"]).must(0).out;
        let told = list.contains("all sending is paused") && list.contains("postroad unpause");
        assert!(told && list.contains(&id) && list.contains(&later), "{list}");
    };
    waits(&relay);
    // So it is after a restart, and no unpause is needed when an ESP is there again.
    relay.stop();
    relay.restart();
    assert!(told(&relay, "\"no_esp\"") == 2, "{}", relay.log());
    waits(&relay);
    upstream.heal();
    fs::write(&file, &with).unwrap();
    assert_eq!(reload(&relay)["warnings"], json!([]));
    relay.cli(&["queue", "flush"]).must(0);
    upstream.wait_for(2);
    // Whoever wants the sandbox says so, once.
    fs::write(&file, &without).unwrap();
    reload(&relay);
    let kept = relay.submit("a@example.org", &["b@example.com"], &plain("for the sandbox"));
    relay.cli(&["unpause"]).must(0);
    let done = || relay.cli(&["queue", "list", "--state", "done"]).out.contains(&kept);
    wait_until("the sandbox has it", SOON, done);
    relay.stop();
    relay.restart();
    relay.submit("a@example.org", &["b@example.com"], &plain("as well"));
    assert_eq!(reload(&relay)["warnings"], json!([]));
    assert_eq!(told(&relay, "\"no_esp\""), 3);
}

#[test]
fn a_bad_file_changes_nothing_and_each_fault_has_its_line() {
    let upstream = Upstream::start();
    let relay = Relay::setup().upstream(&upstream, "rate = \"500/s\"").start();
    let good = fs::read_to_string(relay.folder().join("postroad.toml")).unwrap();
    rewrite(&relay, "500/s", "fast");
    rewrite(&relay, "[limits]", "[limits]\nmemroy = \"1MB\"");
    let line = |of: &str| {
        let text = fs::read_to_string(relay.folder().join("postroad.toml")).unwrap();
        let at = text.lines().position(|l| l.contains(of)).unwrap() + 1;
        format!("postroad.toml:{at}: ")
    };
    let failed = relay.cli(&["reload"]).must(2);
    assert!(failed.err.contains(&line("fast")) && failed.err.contains("did you mean memory?"), "{failed:?}");
    let failed: Value = serde_json::from_str(&relay.cli(&["reload", "--json"]).must(2).err).unwrap();
    assert_eq!(failed["error"]["code"], "configuration");
    let problems = failed["error"]["problems"].as_array().unwrap();
    let typo = problems.iter().find(|p| p["key"] == "limits.memroy").unwrap();
    assert!(typo["file"].as_str().unwrap().ends_with("postroad.toml") && typo["hint"] == "memory", "{typo}");
    let message = typo["message"].as_str().unwrap();
    assert!(
        line("memroy").contains(&format!(":{}:", typo["line"])) && !message.contains("postroad.toml"),
        "{typo}"
    );
    let answer = relay.post("/v1/reload", "{}").unwrap();
    assert_eq!(answer.status, 422, "{}", answer.body);
    let fields = answer.json()["error"]["fields"].as_array().unwrap().clone();
    let of = |key: &str| fields.iter().find(|f| f["field"] == key).unwrap()["message"].as_str().unwrap();
    assert!(of("esp[0].rate").contains(&line("fast")), "{fields:?}");
    assert!(of("limits.memroy").contains(&line("memroy")), "{fields:?}");
    // Two faults, three times.
    wait_until("the log of these", SOON, || told(&relay, "not reloaded") == 6);
    relay.signal(Signal::HUP);
    wait_until("the log of it", SOON, || told(&relay, "not reloaded") == 8);
    relay.submit("a@example.org", &["b@example.com"], &plain("as before"));
    upstream.wait_for(1);

    fs::write(relay.folder().join("postroad.toml"), "[server\n").unwrap();
    assert!(relay.cli(&["reload"]).must(2).err.contains("postroad.toml:1: not TOML"));
    assert_eq!(relay.post("/v1/reload", "").unwrap().status, 422);
    fs::remove_file(relay.folder().join("postroad.toml")).unwrap();
    let missing = relay.post("/v1/reload", "").unwrap();
    assert_eq!(missing.status, 422, "no file is not an empty one");
    fs::write(relay.folder().join("postroad.toml"), good).unwrap();
    assert_eq!(reload(&relay)["changed"], json!([]));
}

#[test]
fn secrets_are_read_again_and_sighup_does_it_as_well() {
    let upstream = Upstream::start();
    let relay = Relay::setup()
        .upstream(&upstream, "")
        .listener("auth = \"required\"")
        .tables(
            "[[credential]]\nusername = \"env\"\npassword = \"env:T_PASSWORD\"\n\
             [[credential]]\nusername = \"file\"\npassword = \"file:secret\"\n",
        )
        .file(".env", "T_PASSWORD=one\n")
        .file("secret", "one\n")
        .start();
    let opens = |user: &str, password: &str| relay.client().auth_plain(user, password).code;
    assert_eq!((opens("env", "one"), opens("file", "one")), (235, 235));
    let mut session = relay.client();
    fs::write(relay.folder().join(".env"), "T_PASSWORD=two\n").unwrap();
    fs::write(relay.folder().join("secret"), "two\n").unwrap();
    let before = told(&relay, "configuration reloaded");
    relay.signal(Signal::HUP);
    wait_until("the log of it", SOON, || told(&relay, "configuration reloaded") > before);
    assert_eq!((opens("env", "two"), opens("file", "two")), (235, 235));
    assert_eq!((opens("env", "one"), opens("file", "one")), (535, 535));
    assert_eq!(
        session.auth_plain("env", "one").code,
        235,
        "a session keeps the configuration that it began with"
    );
    fs::write(relay.folder().join(".env"), "").unwrap();
    assert!(relay.cli(&["reload"]).must(2).err.contains("T_PASSWORD is not set"));
    assert_eq!(opens("env", "two"), 235);
    assert!(!relay.log().contains("T_PASSWORD=") && !relay.log().contains("\"two\""), "no secret in the log");
}

#[test]
fn a_suspension_stays_and_a_removed_stream_s_mail_moves_to_the_default_of_its_kind() {
    let (dead, live) = (Upstream::start(), Upstream::start());
    dead.fail_always(Point::Mail, Fault::Reply("451 4.3.0 later"));
    let relay = Relay::setup()
        .upstream(&dead, "")
        .upstream(&live, "")
        .listener("stream = \"news\"")
        .tables("[[stream]]\nname = \"news\"\nkind = \"transactional\"\nesps = [\"up1\"]\nretry = \"1s\"\n")
        .start();
    relay.cli(&["esp", "suspend", "up1", "--reason", "invoice"]).must(0);
    let id = relay.submit("a@example.org", &["b@example.com"], &plain("news"));
    rewrite(&relay, "priority = 1\n", "priority = 1\nmessages_per_connection = 7\n");
    assert_eq!(reload(&relay)["changed"][0]["key"], "esp.up1.messages_per_connection");
    let esps = relay.cli(&["esp", "list", "--json"]).must(0).json();
    assert_eq!((&esps[0]["gate"], live.count()), (&json!("suspended"), 0));
    rewrite(&relay, "stream = \"news\"", "");
    rewrite(
        &relay,
        "[[stream]]\nname = \"news\"\nkind = \"transactional\"\nesps = [\"up1\"]\nretry = \"1s\"\n",
        "",
    );
    reload(&relay);
    assert!(live.wait_for(1)[0].text().contains("Subject: news"));
    wait_until("it is done", SOON, || relay.cli(&["explain", &id]).out.contains("up2"));
    assert_eq!(dead.count(), 0);
}

#[test]
fn mail_bound_to_a_removed_esp_goes_elsewhere_after_its_holds() {
    let (silent, other) = (Upstream::start(), Upstream::start());
    silent.fail_always(Point::Dot, Fault::Hang);
    let relay = Relay::setup()
        .upstream(&silent, "")
        .tables("[[stream]]\nname = \"transactional\"\nunsure_hold = \"1s\"\n")
        .start();
    relay.submit("a@example.org", &["b@example.com"], &plain("bound"));
    wait_until("a message without an answer", SOON, || !silent.unanswered().is_empty());
    rewrite(&relay, "\"up1\"", "\"up2\"");
    rewrite(&relay, &silent.address().to_string(), &other.address().to_string());
    let changed = reload(&relay)["changed"].clone();
    assert_eq!(
        changed,
        json!([{ "key": "esp.up2", "what": "added" }, { "key": "esp.up1", "what": "removed" }])
    );
    assert!(other.wait_for(1)[0].text().contains("Subject: bound"));
}

/// What each client did: by subject, the relay's name in the greeting that its session began with.
#[derive(Default)]
struct Load {
    next: AtomicUsize,
    sent: Mutex<BTreeMap<String, String>>,
}

/// Sessions of so many messages.
const SESSION_MESSAGES: usize = 12;
const CLIENTS: usize = 6;
const RELOADS: usize = 20;

/// The whole file of one generation: the relay's name, the credential and the stream that it binds, the certificate,
/// and who `main` is with his login all belong together; one more ESP comes and goes.
fn generation(relay: &Relay, k: usize, [even, odd, third]: [&Upstream; 3]) -> String {
    let (main, parity) = if k.is_multiple_of(2) { (even, "even") } else { (odd, "odd") };
    let at = |path: &Path| path.to_string_lossy().into_owned();
    let listener =
        |n: usize| format!("[[listener]]\naddress = \"{}\"\nauth = \"required\"\n", relay.listener(n));
    format!(
        "[server]\nhostname = \"relay-g{k}.test\"\ndata_dir = \"{}\"\n[http]\naddress = \"127.0.0.1:0\"\n\
         [limits]\nmin_free = \"1MB\"\n{}{}tls = \"implicit\"\ncert = \"{}\"\nkey = \"{}\"\n\
         [[credential]]\nusername = \"user-g{k}\"\npassword = \"pw-g{k}\"\nstream = \"stream-g{k}\"\n\
         [[stream]]\nname = \"stream-g{k}\"\nkind = \"transactional\"\nretry = \"1s\"\nesps = [\"main\", \"extra-g{k}\"]\n\
         [[esp]]\nname = \"main\"\ntype = \"smtp\"\ntls = \"off\"\naddress = \"{}\"\nusername = \"{parity}\"\n\
         password = \"pw-{parity}\"\nmax_connections = {}\n\
         [[esp]]\nname = \"extra-g{k}\"\ntype = \"smtp\"\ntls = \"off\"\naddress = \"{}\"\nmax_connections = 2\n",
        at(&relay.data_dir()),
        listener(0),
        listener(1),
        at(&relay.folder().join(format!("tls-g{k}/cert.pem"))),
        at(&relay.folder().join(format!("tls-g{k}/key.pem"))),
        main.address(),
        2 + k % 3,
        third.address(),
    )
}

impl Load {
    /// Sessions, each with the login that goes with its greeting, until all is sent.
    fn run(&self, relay: &Relay, total: usize, trust: &std::sync::Arc<rustls::ClientConfig>, tls: bool) {
        while self.next.load(Ordering::SeqCst) < total {
            let mut client = Client::connect(relay.listener(usize::from(tls)));
            if tls {
                client.handshake_with(trust.clone()).unwrap();
            }
            let greeting = client.expect("220").raw;
            let name = greeting.split_whitespace().nth(1).unwrap().to_owned();
            let k: usize = name["relay-g".len()..].split('.').next().unwrap().parse().unwrap();
            client.say("EHLO load.example.com").expect("250");
            let login = client.auth_plain(&format!("user-g{k}"), &format!("pw-g{k}"));
            assert_eq!(login.code, 235, "{name}: {}", login.raw);
            for _ in 0..SESSION_MESSAGES {
                let n = self.next.fetch_add(1, Ordering::SeqCst);
                if n >= total {
                    break;
                }
                let subject = format!("load-{n}");
                client.submit("a@example.org", &["b@example.com"], &plain(&subject));
                client.transcript.clear();
                self.sent.lock().unwrap().insert(subject, name.clone());
            }
            client.say("QUIT").expect("221");
        }
    }

    /// Puts one generation after the other in place, by each way in turn, spread over the messages.
    fn change(&self, relay: &Relay, total: usize, hops: [&Upstream; 3]) {
        for k in 2..=RELOADS {
            let due = total * (k - 1) / RELOADS;
            wait_until("the load", Duration::from_secs(300), || self.next.load(Ordering::SeqCst) >= due);
            put(relay, k, hops);
        }
    }
}

fn put(relay: &Relay, k: usize, hops: [&Upstream; 3]) {
    fs::write(relay.folder().join("postroad.toml"), generation(relay, k, hops)).unwrap();
    let before = told(relay, "configuration reloaded");
    match k % 3 {
        0 => relay.signal(Signal::HUP),
        1 => drop(relay.cli(&["reload"]).must(0)),
        _ => assert_eq!(relay.post("/v1/reload", "").unwrap().status, 200),
    }
    wait_until("the log of it", SOON, || told(relay, "configuration reloaded") > before);
}

/// A hop that wants the login of its parity.
fn hop(login: Option<(&'static str, &'static str)>) -> Upstream {
    let auth = login.map(|(user, password)| ("PLAIN", user, password));
    Upstream::with(Manner { auth, ..Manner::default() })
}

#[test]
fn under_load_nothing_is_lost_nothing_refused_and_each_sees_one_whole_configuration() {
    let total = if long_runs() { 10_000 } else { 1_500 };
    let (even, odd, third) = (hop(Some(("even", "pw-even"))), hop(Some(("odd", "pw-odd"))), hop(None));
    let hops = [&even, &odd, &third];
    let relay = Relay::setup().upstream(&third, "").listener("").tls_listener("implicit", "").start();
    let certificates: Vec<Pki> = (0..=RELOADS).map(|_| Pki::new("localhost")).collect();
    for (k, pki) in certificates.iter().enumerate() {
        let folder = relay.folder().join(format!("tls-g{k}"));
        fs::create_dir(&folder).unwrap();
        pki.write(&folder);
    }
    let trust = client_of_all(&certificates);
    put(&relay, 1, hops);
    let load = Load::default();
    std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (load, relay, trust) = (&load, &relay, &trust);
            scope.spawn(move || load.run(relay, total, trust, n.is_multiple_of(2)));
        }
        load.change(&relay, total, hops);
    });

    let sent = load.sent.lock().unwrap();
    assert_eq!(sent.len(), total, "each was taken");
    let arrived = || hops.map(Upstream::count).iter().sum::<usize>();
    wait_until("all of it", Duration::from_secs(120), || arrived() >= total);
    let mut seen = BTreeMap::new();
    for mail in hops.iter().flat_map(|hop| hop.received()) {
        let subject = mail.header("Subject").unwrap();
        let by = mail.header("Received").unwrap();
        let name = &sent[&subject];
        assert!(by.contains(&format!("by {name}")), "{subject} entered by {name}: {by}");
        *seen.entry(subject).or_insert(0) += 1;
    }
    assert_eq!((seen.len(), arrived()), (total, total), "none lost, none twice");
    let queue = relay.cli(&["queue", "list", "--json"]).must(0).json();
    assert!(queue.is_empty(), "{queue:?}");
    for (hop, wanted) in [(&even, 0), (&odd, 1)] {
        for (_, line) in hop.commands().iter().filter(|(_, line)| line.starts_with("EHLO relay-g")) {
            let k: usize = line["EHLO relay-g".len()..].split('.').next().unwrap().parse().unwrap();
            assert_eq!(k % 2, wanted, "{line}: another configuration's address or login");
        }
    }
    assert_eq!(relay.metric("postroad_alerts_total"), 0.0, "no ESP was ever shut");
    assert!(relay.metric("postroad_attempts_total") >= total as f64);
}
