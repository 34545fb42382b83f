//! Whole configurations: what they mean.

use std::time::Duration;

use super::*;
use crate::esp::settings::{EspKind, SmtpProof, SmtpTls};
use crate::mail::StreamKind;
use crate::secret::Secret;
use crate::smtp::{AuthMode, Password};

mod environment;
mod esps;
mod files;
mod properties;
mod receivers;

/// A folder with these files, and an environment in it.
struct Folder {
    dir: tempfile::TempDir,
    environment: Environment,
}

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let environment = Environment::empty(dir.path());
        Folder { dir, environment }
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.variables.insert(name.into(), value.into());
        self
    }

    /// A self-signed certificate and its key.
    fn certificate(self, chain: &str, key: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(self.dir.path().join(chain), made.cert.pem()).unwrap();
        std::fs::write(self.dir.path().join(key), made.signing_key.serialize_pem()).unwrap();
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        Config::load(None, &self.environment)
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|problems| panic!("{problems}")).config
    }

    fn problems(&self) -> String {
        self.load().expect_err("the configuration is good").to_string()
    }
}

/// The meaning of one file.
fn read(toml: &str) -> Config {
    Folder::with(&[("postroad.toml", toml)]).config()
}

/// All that is wrong with one file.
fn wrong(toml: &str) -> String {
    Folder::with(&[("postroad.toml", toml)]).problems()
}

fn plain(config: &Config, n: usize) -> &str {
    match &config.credentials[n].password {
        Password::Plain(secret) => secret.expose(),
        Password::Hash(_) => panic!("credential {n} has a hash"),
    }
}

#[test]
fn without_a_file_everything_has_a_default() {
    let folder = Folder::with(&[]);
    let loaded = folder.load().unwrap();
    let config = loaded.config;
    assert_eq!(loaded.path, None);
    assert_eq!(config, read(""));
    assert_eq!(config.server.hostname, "relay.test");
    assert_eq!(config.listeners[0].name, "127.0.0.1:2525");
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.http.address.to_string(), "127.0.0.1:8025");
    assert_eq!(config.esps[0].kind, EspKind::Sandbox { keep: 1000 });
    let streams: Vec<_> = config.streams.iter().map(|s| (s.name.as_str(), s.kind)).collect();
    assert_eq!(streams, [("transactional", StreamKind::Transactional), ("broadcast", StreamKind::Broadcast)]);
}

#[test]
fn a_host_without_a_usable_name_is_localhost_with_a_warning() {
    let mut folder = Folder::with(&[]);
    folder.environment.host_name = "no good".into();
    let loaded = folder.load().unwrap();
    assert_eq!(loaded.config.server.hostname, "localhost");
    assert_eq!(loaded.warnings[0].key, "server.hostname");
}

#[test]
fn a_host_s_name_is_ascii_from_here_on() {
    let config = read("[server]\nhostname = \"büro.example\"\n");
    assert_eq!(config.server.hostname, "xn--bro-hoa.example");
}

#[test]
fn a_host_s_name_is_told_as_smtp_has_it() {
    for (written, told) in [
        ("mx.example.com.", "mx.example.com"),
        ("127.0.0.1", "[127.0.0.1]"),
        ("[127.0.0.1]", "[127.0.0.1]"),
        ("2001:db8::1", "[IPv6:2001:db8::1]"),
        ("[::1]", "[IPv6:::1]"),
        ("[IPv6:::1]", "[IPv6:::1]"),
        ("büro.example.", "xn--bro-hoa.example"),
    ] {
        let config = read(&format!("[server]\nhostname = \"{written}\"\n"));
        assert_eq!(config.server.hostname, told, "{written}");
    }
    for host_name in ["host.example.", "192.0.2.7"] {
        let mut folder = Folder::with(&[]);
        folder.environment.host_name = host_name.into();
        let loaded = folder.load().unwrap();
        assert_eq!(loaded.warnings.len(), 0, "{host_name}");
        assert_eq!(Some(loaded.config.server.hostname), super::kinds::as_told(host_name));
    }
    for bad in [".", "mx.example.com..", "a b", "[2001:db8::g]", "127.1", "1.2.3", "25", "mx.example.25"] {
        assert_eq!(super::kinds::as_told(bad), None, "{bad}");
    }
}

#[test]
fn every_key_says_what_it_means() {
    let folder = Folder::with(&[
        (
            "postroad.toml",
            r#"
        [server]
        hostname = "mx.example.com"
        data_dir = "/var/lib/postroad"
        long_lines = "refuse"
        allow_vendor_headers = true
        [[listener]]
        address = "0.0.0.0:0"
        tls = "implicit"
        cert = "tls.crt"
        key = "tls.key"
        auth = "required"
        auth_plaintext = true
        allow = ["10.0.0.0/8", "2001:db8::1"]
        stream = "newsletter"
        bare_newline = "normalize"
        strict_envelope = true
        max_connections = 7
        max_connections_per_address = 6
        max_message_size = "5MiB"
        max_recipients = 4
        max_errors = 3
        idle_timeout = "2m"
        [[credential]]
        username = "shop"
        password = "env:SHOP"
        stream = "broadcast"
        [[stream]]
        name = "newsletter"
        kind = "broadcast"
        retry = "2m*2, 1h"
        [[stream]]
        name = "transactional"
        max_age = "10m"
        unsure_hold = "1s"
        [[esp]]
        name = "main"
        type = "smtp"
        priority = 2
        weight = 50
        address = "[2001:db8::25]:465"
        tls = "implicit"
        username = "u"
        password = "literal:env:x"
        ca_file = "ca.pem"
        max_connections = 4
        messages_per_connection = 20
        idle_timeout = "1s"
        timeout = "2s"
        data_timeout = "3s"
        [[esp]]
        name = "trap"
        type = "sandbox"
        keep = 5
        [http]
        address = "0.0.0.0:80"
        admin_token = "file:token"
        [limits]
        memory = "64MB"
        queue_bytes = "1GB"
        min_free = "0B"
        [retention]
        bodies = "0s"
        bodies_bytes = "1KB"
        messages = "1d"
        attempts = "2d"
        events = "3d"
        "#,
        ),
        (".env", "SHOP=pa#ss$w%rd"),
        ("token", "t0ken-of-16-signs\r\n"),
    ])
    .certificate("tls.crt", "tls.key")
    .certificate("ca.pem", "ca.key");
    let c = folder.config();
    assert_eq!((c.server.hostname.as_str(), c.server.long_lines), ("mx.example.com", LongLines::Refuse));
    assert!(c.server.allow_vendor_headers);
    let l = &c.listeners[0];
    assert_eq!(l.name, "0.0.0.0:0");
    assert_eq!(l.certificate.as_ref().unwrap().key, Path::new("tls.key"));
    assert_eq!((l.auth, l.auth_plaintext, l.strict_envelope), (AuthMode::Required, true, true));
    assert_eq!(
        l.allow.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.0/8", "2001:db8::1/128"]
    );
    assert_eq!(l.stream.as_ref().unwrap().as_str(), "newsletter");
    assert_eq!(
        (l.max_connections, l.max_connections_per_address, l.max_recipients, l.max_errors),
        (7, 6, 4, 3)
    );
    assert!(l.loopback_per_address, "what is written out holds everywhere");
    assert_eq!((l.max_message_size_octets, l.idle_timeout.as_secs()), (5 << 20, 120));
    assert_eq!(
        (plain(&c, 0), c.credentials[0].stream.as_ref().unwrap().as_str()),
        ("pa#ss$w%rd", "broadcast")
    );
    assert_eq!(
        c.streams.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["transactional", "broadcast", "newsletter"]
    );
    assert_eq!((c.streams[0].max_age.as_secs(), c.streams[0].unsure_hold.as_secs()), (600, 1));
    assert_eq!(c.streams[2].retry.nth(3), Duration::from_secs(3600));
    assert_eq!(c.streams[2].max_age, Duration::from_secs(5 * 86_400), "the default of its kind");
    let EspKind::Smtp(smtp) = &c.esps[0].kind else { panic!("{:?}", c.esps[0]) };
    assert_eq!((smtp.host.as_str(), smtp.port, smtp.tls), ("2001:db8::25", 465, SmtpTls::Implicit));
    let password = SmtpProof::Password(Secret::new("env:x"));
    assert_eq!(smtp.login.as_ref().map(|login| &login.proof), Some(&password));
    assert_eq!((smtp.lines.max_connections, smtp.lines.messages_per_connection), (4, 20));
    assert_eq!(
        [smtp.lines.idle_timeout, smtp.lines.timeout, smtp.lines.data_timeout].map(|d| d.as_secs()),
        [1, 2, 3]
    );
    assert_eq!((c.esps[0].priority, c.esps[0].weight), (2, 50));
    assert_eq!(c.esps[1].kind, EspKind::Sandbox { keep: 5 });
    assert_eq!(c.http.admin_token, Some(Secret::new("t0ken-of-16-signs")));
    assert_eq!(
        (c.memory_octets, c.store.queue_octets_max, c.store.min_free_octets),
        (64_000_000, 1_000_000_000, 0)
    );
    assert_eq!((c.store.keep_bodies, c.store.keep_bodies_octets), (Duration::ZERO, 1000));
    let days =
        [c.store.keep_messages, c.store.keep_attempts, c.store.keep_events].map(|d| d.as_secs() / 86_400);
    assert_eq!(days, [1, 2, 3]);
    assert_eq!(c.store.data_dir, Path::new("/var/lib/postroad"));
    let paths = c.paths();
    assert!(paths.iter().all(|(_, path)| path.is_absolute()));
    assert_eq!(
        paths.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["server.data_dir", "listener[0].cert", "listener[0].key", "esp[0].ca_file"]
    );
}

#[test]
fn passwords_reach_their_credential_byte_for_byte() {
    // Cut at #, expanded at $, decoded at % or unquoted by one layer too many, each would fail with a bare 535.
    let passwords = [
        ("A", "9mW.#Qr%57T;}k2$Lp_NA/+", "9mW.#Qr%57T;}k2$Lp_NA/+"),
        ("B", "'<7Vc~:R m$j#z\"F'", "<7Vc~:R m$j#z\"F"),
        ("C", r#""a'b\"c\\d""#, r#"a'b"c\d"#),
        ("D", "${HOME}`id`!*", "${HOME}`id`!*"),
        ("E", "literal:#", "literal:#"),
    ];
    let dotenv: String = passwords.iter().map(|(name, typed, _)| format!("{name}={typed}\n")).collect();
    let table = |(name, ..): &(&str, &str, &str)| {
        format!("[[credential]]\nusername = \"{name}\"\npassword = \"env:{name}\"\n")
    };
    let toml: String = passwords.iter().map(table).collect();
    let config = Folder::with(&[("config/postroad.toml", &toml), ("config/.env", &dotenv)]).config();
    for (n, (name, _, password)) in passwords.iter().enumerate() {
        assert_eq!(plain(&config, n), *password, "{name}");
    }
}

#[test]
fn no_listener_stands_in_the_way_of_another_or_of_the_side_port() {
    let at = |listener: &str, http: &str| {
        format!(
            "[[listener]]\nallow = []\naddress = \"{listener}\"\n[http]\nadmin_token = \"a-token-that-is-long\"\n{http}"
        )
    };
    read(&at("127.0.0.1:0", "address = \"127.0.0.1:0\""));
    read(&at("127.0.0.2:99", "address = \"127.0.0.1:99\""));
    let everywhere = wrong(&at("0.0.0.0:99", "address = \"127.0.0.1:99\""));
    let expected = "postroad.toml:3: listener[0].address: [http] listens on 127.0.0.1:99 already; give one of the two another port\n\
                    postroad.toml:6: http.address: listener[0] listens on 0.0.0.0:99 already; give one of the two another port";
    assert_eq!(everywhere, expected);
    let by_default = wrong(&at("127.0.0.1:8025", ""));
    assert!(by_default.contains("postroad.toml:4: http.address: listener[0] listens on"), "{by_default}");
    let two = wrong(
        "[[listener]]\nallow = []\naddress = \"0.0.0.0:99\"\n[[listener]]\naddress = \"127.0.0.1:99\"\n",
    );
    assert_eq!(two, "postroad.toml:5: listener[1].address: the [[listener]] 0.0.0.0:99 above is in its way");
}

#[test]
fn a_secret_where_a_file_should_be_named_is_not_repeated() {
    let toml = "[[listener]]\ntls = \"starttls\"\ncert = \"env:SECRET\"\nkey = \"env:SECRET\"\n[[esp]]\nname = \"a\"\ntype = \"smtp\"\naddress = \"mx.example.com:25\"\n";
    let folder = Folder::with(&[("postroad.toml", toml)])
        .set("SECRET", "hunter2")
        .set("POSTROAD__ESP__A__CA_FILE", "hunter2");
    let problems = folder.problems();
    assert!(!problems.contains("hunter2"), "{problems}");
    assert!(problems.contains("listener[0].cert: env:SECRET: No such file"), "{problems}");
    let twin = "esp[0].ca_file: the value of $POSTROAD__ESP__A__CA_FILE: No such file";
    assert!(problems.contains(twin), "{problems}");
}

#[test]
fn memory_that_cannot_mend_the_largest_message_is_warned_of() {
    let warnings = |limits: &str| {
        let toml = format!("[server]\nhostname = \"a.example\"\n{limits}");
        let loaded = Folder::with(&[("postroad.toml", &toml)]).load().unwrap();
        loaded.warnings.iter().map(|w| w.key.clone()).collect::<Vec<_>>()
    };
    assert_eq!(warnings("[limits]\nmemory = \"30MB\"\n"), ["limits.memory"]);
    let smaller = "[limits]\nmemory = \"30MB\"\n[[listener]]\nmax_message_size = \"10MB\"\n";
    assert!(warnings(smaller).is_empty() && warnings("").is_empty());
    assert!(warnings("long_lines = \"refuse\"\n[limits]\nmemory = \"1MB\"\n").is_empty());
}

#[test]
fn what_is_odd_but_lawful_is_a_warning() {
    let toml = "[[listener]]\nallow = []\naddress = \"0.0.0.0:25\"\nauth = \"required\"\ncert = \"x\"\n[[credential]]\nusername = \"u\"\npassword = \"p\"\n[[esp]]\nname = \"a\"\ntype = \"smtp\"\naddress = \"localhost:25\"\ntls = \"off\"\nca_file = \"x\"\n[[esp]]\nname = \"b\"\ntype = \"smtp\"\naddress = \"mx.example.com:465\"\n[[esp]]\nname = \"c\"\ntype = \"smtp\"\naddress = \"mx.example.com:25\"\ntls = \"off\"\n";
    let loaded = Folder::with(&[("postroad.toml", toml), (".env", "what\n")]).load().unwrap();
    let keys: Vec<&str> = loaded.warnings.iter().map(|w| w.key.as_str()).collect();
    let expected = [
        "",
        "listener[0].cert",
        "listener[0].auth",
        "esp[0].ca_file",
        "esp[0].address",
        "esp[1].tls",
        "esp[2].tls",
    ];
    assert_eq!(keys, expected, "{:?}", loaded.warnings);
    let passed_over = ".env:1: is no NAME=value and was passed over; a comment begins with #";
    assert_eq!(loaded.warnings[0].to_string(), passed_over);
}

#[test]
fn later_keys_are_taken_with_their_default_only() {
    let toml = "[server]\norigin = \"\"\ndsn = \"auto\"\nallow_vendor_headers = false\n[dns]\nresolvers = []\n[[stream]]\nname = \"broadcast\"\nsuppressed = \"reject\"\nunsubscribe = true\n[[esp]]\nname = \"a\"\ntype = \"sandbox\"\npull = \"\"\nwarmup = {}\n";
    read(toml);
    let problems = wrong(&toml.replace("\"reject\"", "\"drop\"").replace("pull = \"\"", "pull = \"1h\""));
    assert!(
        problems.contains("postroad.toml:9: stream[0].suppressed: is not available in this version"),
        "{problems}"
    );
    assert!(problems.contains("postroad.toml:14: esp[0].pull: is not available"), "{problems}");
}

#[test]
fn a_public_url_is_https_or_on_loopback_and_nothing_but_a_url() {
    let url = |text: &str| format!("[http]\npublic_url = \"{text}\"\n");
    for (text, read_as) in [
        ("https://mail.example.com", Some("https://mail.example.com")),
        ("https://mail.example.com:8443/relay/", Some("https://mail.example.com:8443/relay")),
        ("http://127.0.0.1:8080/", Some("http://127.0.0.1:8080")),
        ("http://[::1]:8080", Some("http://[::1]:8080")),
        ("", None),
    ] {
        assert_eq!(read(&url(text)).http.public_url.as_deref(), read_as, "{text}");
    }
    for (text, what) in [
        ("http://mail.example.com", "is http, which others can read on its way; write https://"),
        ("http://127.0.0.1.example.com", "is http, which others can read on its way; write https://"),
        ("https://mail.example.com/?a=b", "has more than scheme, host, port and path"),
        ("https://u:p@mail.example.com", "has more than scheme, host, port and path"),
        ("https://mail.example.com/#x", "has more than scheme, host, port and path"),
        ("mail.example.com", "is not a URL such as https://mail.example.com"),
        ("ftp://mail.example.com", "is not a URL such as https://mail.example.com"),
    ] {
        let problems = wrong(&url(text));
        assert!(
            problems.contains("postroad.toml:2: http.public_url: ") && problems.contains(what),
            "{text}: {problems}"
        );
    }
}

#[test]
fn what_a_login_has_written_empty_lifts_what_the_listener_says() {
    let general = "from_rewrite = { \"root\" = \"a@b.example\" }\nonly_to = [\"@b.example\"]\nredirect_to = \"q@b.example\"\n\
                   dedupe = \"10m\"\n";
    let login = "[[credential]]\nusername = \"u\"\npassword = \"p4ss-word_1\"\n";
    let empty = "from_rewrite = {}\nonly_to = []\nredirect_to = \"\"\ndedupe = \"\"\n";
    for (own, lifted) in [("", false), (empty, true)] {
        let c = read(&format!("[[listener]]\nauth = \"optional\"\n{general}{login}{own}"));
        let terms = c.credentials[0].terms.over(&c.listeners[0].terms);
        let left = (terms.from_rewrite.is_empty(), terms.is_unguarded(), terms.dedupe.is_none());
        assert_eq!(left, (lifted, lifted, lifted), "{own}");
    }
}

#[test]
fn an_admin_token_is_one_that_a_header_can_carry_and_nobody_guesses() {
    for (token, told) in [("   ", "cannot carry"), ("a\\tb", "cannot carry"), ("tök", "cannot carry")] {
        let said = wrong(&format!("[http]\nadmin_token = \"{token}\"\n"));
        assert!(said.contains("http.admin_token") && said.contains(told), "{token:?}: {said}");
    }
    let short = wrong("[http]\naddress = \"0.0.0.0:8025\"\nadmin_token = \"short\"\n");
    assert!(short.contains("guessed"), "{short}");
    read("[http]\nadmin_token = \"short\"\n");
}
