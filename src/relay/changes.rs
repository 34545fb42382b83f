//! What differs between the configuration in force and the one that was read: key by key, and which of it only a
//! restart brings into force. Pure.
//!
//! A listener is the same as long as its address is as it was written; all else of it changes while it listens.

use crate::config::{Config, ServerSettings};
use crate::esp::settings::{
    Access, EspKind, EspSettings, LineSettings, PostmarkSettings, SendgridSettings, SesSettings,
    SmtpEspSettings, SmtpLogin, SmtpProof,
};
use crate::flow::teller::Settings as ReceiverSettings;
use crate::http::HttpSettings;
use crate::http::reload::Change;
use crate::mail::effect::SoftRule;
use crate::mail::{Grant, StreamName, Terms};
use crate::policy::streams::StreamSettings;
use crate::smtp::{Credential, ListenerSettings};
use crate::store;
use crate::wire::notify::Settings as NotifySettings;

const CHANGED: &str = "changed";
const ADDED: &str = "added";
const REMOVED: &str = "removed";

/// What a reload does.
#[derive(Debug, PartialEq)]
pub(super) struct Changes {
    /// In force from then on: the new one, with what only a restart changes as it was.
    pub config: Config,
    /// In the order of the manual.
    pub changed: Vec<Change>,
    /// What stays as it was.
    pub restart: Vec<Change>,
}

/// Names every field of a struct, so that one that is added has to be told here too, and notes those that differ. What
/// stands `apart` is told otherwise.
macro_rules! compare {
    (
        $type:ident { $($field:ident => $key:expr),* $(,)? } $(apart { $($apart:ident),* })?,
        $at:expr, $old:expr, $new:expr, $out:expr
    ) => {{
        let $type { $($field),* $(, $($apart: _),*)? } = $new;
        $(if $old.$field != *$field { $out.push(Change::new(format!("{}.{}", $at, $key), CHANGED)); })*
    }};
}

/// What puts `new` in the place of `old`.
pub(super) fn between(old: &Config, new: Config) -> Changes {
    let mut restart = Vec::new();
    let config = as_far_as_it_goes(old, new, &mut restart);
    let mut changed = Vec::new();
    let out = &mut changed;
    let Config {
        server,
        listeners,
        credentials,
        streams,
        esps,
        esps_written: _,
        http,
        memory_octets,
        store,
        soft,
        receivers,
    } = &config;
    compare!(
        ServerSettings { hostname => "hostname", origin => "origin", data_dir => "data_dir", dsn => "dsn", dsn_from => "dsn_from", long_lines => "long_lines", allow_vendor_headers => "allow_vendor_headers" },
        "server", old.server, server, out
    );
    tables("listener", &old.listeners, listeners, |l| l.name.clone(), listener, out);
    tables("credential", &old.credentials, credentials, |c| c.username.clone(), credential, out);
    tables("stream", &old.streams, streams, |s| s.name.to_string(), stream, out);
    tables("esp", &old.esps, esps, |e| e.name.clone(), esp, out);
    compare!(HttpSettings { address => "address", public_address => "public_address", public_url => "public_url", trusted_proxies => "trusted_proxies", admin_token => "admin_token", certificate => "tls_cert" }, "http", old.http, http, out);
    if old.memory_octets != *memory_octets {
        out.push(Change::new("limits.memory", CHANGED));
    }
    compare!(SoftRule { bounces => "soft_bounces", window => "soft_window" }, "suppression", old.soft, soft, out);
    limits(&old.store, store, out);
    tables("notify", &old.receivers, receivers, |r| r.name.clone(), receiver, out);
    changed.dedup();
    Changes { config, changed, restart }
}

/// The new configuration, with the old one's part where only a restart changes it.
fn as_far_as_it_goes(old: &Config, mut new: Config, restart: &mut Vec<Change>) -> Config {
    if new.server.data_dir != old.server.data_dir {
        restart.push(Change::new("server.data_dir", CHANGED));
    }
    new.server.data_dir.clone_from(&old.server.data_dir);
    new.store.data_dir.clone_from(&old.store.data_dir);
    if new.http.address != old.http.address {
        restart.push(Change::new("http.address", CHANGED));
    }
    new.http.address = old.http.address;
    if new.http.public_address != old.http.public_address {
        restart.push(Change::new("http.public_address", CHANGED));
    }
    new.http.public_address = old.http.public_address;
    let files = |http: &HttpSettings| {
        let files = http.certificate.clone();
        files.map_or((None, None), |files| (Some(files.chain), Some(files.key)))
    };
    let ((old_chain, old_key), (chain, key)) = (files(&old.http), files(&new.http));
    for (name, differs) in [("http.tls_cert", old_chain != chain), ("http.tls_key", old_key != key)] {
        if differs {
            restart.push(Change::new(name, CHANGED));
        }
    }
    new.http.certificate.clone_from(&old.http.certificate);
    let written = std::mem::take(&mut new.listeners);
    for listener in &old.listeners {
        let again = written.iter().find(|other| other.name == listener.name).cloned();
        if again.is_none() {
            restart.push(Change::new(format!("listener.{}", listener.name), REMOVED));
        }
        new.listeners.push(again.unwrap_or_else(|| stays(listener, old, &new.streams)));
    }
    let is_new = |l: &&ListenerSettings| !old.listeners.iter().any(|other| other.name == l.name);
    let added = written.iter().filter(is_new);
    restart.extend(added.map(|l| Change::new(format!("listener.{}", l.name), ADDED)));
    new
}

/// A listener that is not in the file any more listens as it did; a stream that has gone is the default of its kind.
fn stays(listener: &ListenerSettings, old: &Config, streams: &[StreamSettings]) -> ListenerSettings {
    let bound = listener.stream.as_ref().map(|name| {
        let known = |streams: &[StreamSettings]| streams.iter().find(|s| s.name == *name).map(|s| s.kind);
        match (known(streams), known(&old.streams)) {
            (None, Some(kind)) => StreamName::default_of(kind),
            (_, _) => name.clone(),
        }
    });
    ListenerSettings { stream: bound, ..listener.clone() }
}

/// Tables that have a name, and each one's keys.
fn tables<T>(
    section: &str,
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> String,
    keys: impl Fn(&str, &T, &T, &mut Vec<Change>),
    out: &mut Vec<Change>,
) {
    let of = |tables: &[T], wanted: &str| tables.iter().position(|table| name(table) == wanted);
    for table in new {
        let (name, at) = (name(table), format!("{section}.{}", name(table)));
        match of(old, &name) {
            Some(n) => keys(&at, &old[n], table, out),
            None => out.push(Change::new(at, ADDED)),
        }
    }
    let gone = old.iter().map(&name).filter(|name| of(new, name).is_none());
    out.extend(gone.map(|name| Change::new(format!("{section}.{name}"), REMOVED)));
}

fn listener(at: &str, old: &ListenerSettings, new: &ListenerSettings, out: &mut Vec<Change>) {
    compare!(
        ListenerSettings {
            name => "address",
            address => "address",
            tls => "tls",
            certificate => "cert",
            auth => "auth",
            auth_plaintext => "auth_plaintext",
            allow => "allow",
            stream => "stream",
            bare_newline => "bare_newline",
            strict_envelope => "strict_envelope",
            max_connections => "max_connections",
            max_connections_per_address => "max_connections_per_address",
            loopback_per_address => "max_connections_per_address",
            max_message_size_octets => "max_message_size",
            max_recipients => "max_recipients",
            max_errors => "max_errors",
            idle_timeout => "idle_timeout",
        } apart { terms },
        at, old, new, out
    );
    note_terms(at, &old.terms, &new.terms, out);
}

fn credential(at: &str, old: &Credential, new: &Credential, out: &mut Vec<Change>) {
    let Credential { username: _, password, stream, esp, terms } = new;
    for (differs, key) in
        [(old.password != *password, "password"), (old.stream != *stream, "stream"), (old.esp != *esp, "esp")]
    {
        if differs {
            out.push(Change::new(format!("{at}.{key}"), CHANGED));
        }
    }
    note_terms(at, &old.terms, terms, out);
}

fn note_terms(at: &str, old: &Terms, new: &Terms, out: &mut Vec<Change>) {
    compare!(
        Terms {
            senders => "senders",
            rate => "rate",
            from_rewrite => "from_rewrite",
            only_to => "only_to",
            redirect_to => "redirect_to",
            dedupe => "dedupe",
        } apart { lifts },
        at, old, new, out
    );
    let (was, is) = (old.lifts, new.lifts);
    for (key, was, is, told) in [
        ("from_rewrite", was.from_rewrite, is.from_rewrite, old.from_rewrite != new.from_rewrite),
        ("only_to", was.only_to, is.only_to, old.only_to != new.only_to),
        ("redirect_to", was.redirect_to, is.redirect_to, old.redirect_to != new.redirect_to),
        ("dedupe", was.dedupe, is.dedupe, old.dedupe != new.dedupe),
    ] {
        if was != is && !told {
            out.push(Change::new(format!("{at}.{key}"), CHANGED));
        }
    }
}

fn stream(at: &str, old: &StreamSettings, new: &StreamSettings, out: &mut Vec<Change>) {
    compare!(
        StreamSettings {
            name => "name",
            kind => "kind",
            retry => "retry",
            max_age => "max_age",
            unsure_hold => "unsure_hold",
            unsure_then => "unsure_then",
            esps => "esps",
        },
        at, old, new, out
    );
}

fn esp(at: &str, old: &EspSettings, new: &EspSettings, out: &mut Vec<Change>) {
    let EspSettings { name: _, priority, weight, limits, recipients, domains, kind, webhook } = new;
    let mut note = |differs: bool, key: &str| {
        if differs {
            out.push(Change::new(format!("{at}.{key}"), CHANGED));
        }
    };
    note(old.priority != *priority, "priority");
    note(old.weight != *weight, "weight");
    note((old.limits.rate, old.limits.told) != (limits.rate, limits.told), "rate");
    note(old.limits.windows.hourly != limits.windows.hourly, "hourly_limit");
    note(old.limits.windows.daily != limits.windows.daily, "daily_limit");
    note(old.limits.windows.monthly != limits.windows.monthly, "monthly_limit");
    note(old.recipients != *recipients, "recipients");
    note(old.domains != *domains, "domains");
    note(old.webhook != *webhook, "webhook");
    match (&old.kind, kind) {
        (EspKind::Smtp(old), EspKind::Smtp(new)) => smtp(at, old, new, out),
        (EspKind::Ses(old), EspKind::Ses(new)) => ses(at, old, new, out),
        (EspKind::Sendgrid(old), EspKind::Sendgrid(new)) => sendgrid(at, old, new, out),
        (EspKind::Postmark(old), EspKind::Postmark(new)) => postmark(at, old, new, out),
        (EspKind::Sandbox { keep: old }, EspKind::Sandbox { keep }) => note(old != keep, "keep"),
        _ => note(true, "type"),
    }
}

fn receiver(at: &str, old: &ReceiverSettings, new: &ReceiverSettings, out: &mut Vec<Change>) {
    compare!(
        ReceiverSettings { events => "events" } apart { name, line },
        at, old, new, out
    );
    compare!(
        NotifySettings {
            url => "url",
            secrets => "secret",
            ca_file => "ca_file",
            timeout => "timeout",
            max_connections => "max_connections",
        },
        at, old.line, &new.line, out
    );
}

fn smtp(at: &str, old: &SmtpEspSettings, new: &SmtpEspSettings, out: &mut Vec<Change>) {
    compare!(
        SmtpEspSettings {
            host => "address",
            port => "address",
            tls => "tls",
            ca_file => "ca_file",
            envelope_from => "envelope_from",
        } apart { lines, login },
        at, old, new, out
    );
    lines(at, &old.lines, &new.lines, out);
    login(at, old.login.as_ref(), new.login.as_ref(), out);
}

fn lines(at: &str, old: &LineSettings, new: &LineSettings, out: &mut Vec<Change>) {
    compare!(
        LineSettings {
            max_connections => "max_connections",
            messages_per_connection => "messages_per_connection",
            idle_timeout => "idle_timeout",
            timeout => "timeout",
            data_timeout => "data_timeout",
        },
        at, old, new, out
    );
}

/// By the keys that the two ways of logging in are written with.
fn login(at: &str, old: Option<&SmtpLogin>, new: Option<&SmtpLogin>, out: &mut Vec<Change>) {
    let mut note = |differs: bool, key: &str| {
        if differs {
            out.push(Change::new(format!("{at}.{key}"), CHANGED));
        }
    };
    note(old.map(|login| &login.username) != new.map(|login| &login.username), "username");
    match (old.map(|login| &login.proof), new.map(|login| &login.proof)) {
        (Some(SmtpProof::OAuth2(old)), Some(SmtpProof::OAuth2(new))) => {
            let Grant { token_url, client_id, scope, kind, ca_file: _ } = &**new;
            note(old.token_url != *token_url, "token_url");
            note(old.client_id != *client_id, "client_id");
            note(old.kind.client_secret() != kind.client_secret(), "client_secret");
            note(old.kind.refresh_token() != kind.refresh_token(), "refresh_token");
            note(old.scope != *scope, "scope");
        }
        (Some(SmtpProof::OAuth2(_)), _) | (_, Some(SmtpProof::OAuth2(_))) => note(true, "auth"),
        (old, new) => note(old != new, "password"),
    }
}

fn access(at: &str, old: &Access, new: &Access, out: &mut Vec<Change>) {
    compare!(
        Access {
            transport => "transport",
            endpoint => "endpoint",
            smtp_endpoint => "smtp_endpoint",
            ca_file => "ca_file",
            envelope_from => "envelope_from",
        } apart { lines },
        at, old, new, out
    );
    lines(at, &old.lines, &new.lines, out);
}

fn ses(at: &str, old: &SesSettings, new: &SesSettings, out: &mut Vec<Change>) {
    compare!(
        SesSettings {
            region => "region",
            keys => "access_key_id",
            configuration_set => "configuration_set",
        } apart { access },
        at, old, new, out
    );
    access(at, &old.access, &new.access, out);
}

fn sendgrid(at: &str, old: &SendgridSettings, new: &SendgridSettings, out: &mut Vec<Change>) {
    compare!(
        SendgridSettings {
            api_key => "api_key",
            region => "region",
        } apart { access },
        at, old, new, out
    );
    access(at, &old.access, &new.access, out);
}

fn postmark(at: &str, old: &PostmarkSettings, new: &PostmarkSettings, out: &mut Vec<Change>) {
    compare!(
        PostmarkSettings {
            server_token => "server_token",
            transactional => "message_stream",
            broadcast => "message_stream",
        } apart { access },
        at, old, new, out
    );
    access(at, &old.access, &new.access, out);
}

fn limits(old: &store::Settings, new: &store::Settings, out: &mut Vec<Change>) {
    use store::Settings;
    let mut keys = Vec::new();
    compare!(
        Settings {
            queue_octets_max => "limits.queue_bytes",
            min_free_octets => "limits.min_free",
            keep_bodies => "retention.bodies",
            keep_bodies_octets => "retention.bodies_bytes",
            keep_messages => "retention.messages",
            keep_attempts => "retention.attempts",
            keep_events => "retention.events",
        } apart { data_dir, spread_log, sandboxes, kin },
        "", old, new, keys
    );
    out.extend(
        keys.into_iter().map(|change: Change| Change::new(change.key.trim_start_matches('.'), CHANGED)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn read(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("postroad.toml"), text).unwrap();
        Config::load(None, &Environment::empty(dir.path())).unwrap().config
    }

    fn keys(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|change| format!("{} {}", change.key, change.what)).collect()
    }

    const BEFORE: &str = r#"
[server]
hostname = "a.example"
[[listener]]
address = "127.0.0.1:2525"
[[listener]]
address = "127.0.0.1:2526"
stream = "news"
[[credential]]
username = "shop"
password = "one"
[[credential]]
username = "old"
password = "x"
[[stream]]
name = "news"
kind = "broadcast"
[[esp]]
name = "a"
type = "smtp"
address = "127.0.0.1:2600"
tls = "off"
rate = "5/s"
[[esp]]
name = "b"
type = "sandbox"
"#;

    #[test]
    fn each_key_that_differs_is_named_once_and_without_its_value() {
        let after = BEFORE
            .replace("a.example", "b.example")
            .replace("\"one\"", "\"two\"")
            .replace("\"old\"", "\"new\"\nsenders = [\"@shop.example\"]")
            .replace("127.0.0.1:2600", "127.0.0.2:2601")
            .replace("5/s", "6/s")
            .replace("name = \"b\"", "name = \"c\"")
            .replace("kind = \"broadcast\"", "kind = \"broadcast\"\nmax_age = \"2d\"")
            .replace("2526\"", "2526\"\nmax_errors = 5\nonly_to = [\"@x.example\"]");
        let after = format!(
            "{after}\n[limits]\nmemory = \"100MB\"\nmin_free = \"1MB\"\n[http]\nadmin_token = \"t\"\n"
        );
        let changes = between(&read(BEFORE), read(&after));
        assert_eq!(
            keys(&changes.changed),
            [
                "server.hostname changed",
                "listener.127.0.0.1:2526.max_errors changed",
                "listener.127.0.0.1:2526.only_to changed",
                "credential.shop.password changed",
                "credential.new added",
                "credential.old removed",
                "stream.news.max_age changed",
                "esp.a.rate changed",
                "esp.a.address changed",
                "esp.c added",
                "esp.b removed",
                "http.admin_token changed",
                "limits.memory changed",
                "limits.min_free changed",
            ]
        );
        assert_eq!(changes.restart, []);
        let again = between(&changes.config, read(&after));
        assert_eq!((again.changed, again.restart), (vec![], vec![]));
    }

    #[test]
    fn a_receiver_is_told_by_its_keys() {
        let before = "[[notify]]\nname = \"app\"\nurl = \"https://a.example/\"\nsecret = \"as long as it has to be\"\n\
                      [[notify]]\nurl = \"https://b.example/\"\nsecret = \"as long as it has to be\"\n";
        let after = before.replace("a.example/", "a.example/x?key=1").replace("b.example", "c.example");
        let after =
            after.replacen("\nurl", "\nevents = [\"alert\"]\nmax_connections = 2\ntimeout = \"1s\"\nurl", 1);
        let after = after.replacen("as long as", "at least as long as", 1);
        let changes = between(&read(before), read(&after));
        assert_eq!(
            keys(&changes.changed),
            [
                "notify.app.events changed",
                "notify.app.url changed",
                "notify.app.secret changed",
                "notify.app.timeout changed",
                "notify.app.max_connections changed",
                "notify.c.example added",
                "notify.b.example removed",
            ]
        );
        assert_eq!((changes.restart, changes.config), (vec![], read(&after)));
    }

    #[test]
    fn a_login_is_told_by_the_keys_that_it_is_written_with() {
        let esp = |keys: &str| {
            let common =
                "name = \"a\"\ntype = \"smtp\"\naddress = \"smtp.example.net:587\"\nusername = \"u\"\n";
            read(&format!("[[esp]]\n{common}{keys}"))
        };
        let oauth2 = "auth = \"oauth2\"\ntoken_url = \"https://a.example/t\"\nclient_id = \"c\"\nclient_secret = \"one\"\n";
        for (old, new, told) in [
            ("password = \"one\"", "password = \"two\"", &["esp.a.password changed"][..]),
            ("password = \"one\"", oauth2, &["esp.a.auth changed"]),
            (oauth2, &oauth2.replace("\"one\"", "\"two\""), &["esp.a.client_secret changed"]),
            (oauth2, &format!("{oauth2}refresh_token = \"r\"\n"), &["esp.a.refresh_token changed"]),
            (
                oauth2,
                &format!(
                    "{}scope = \"s\"",
                    oauth2.replace("a.example", "b.example").replace("\"c\"", "\"d\"")
                ),
                &["esp.a.token_url changed", "esp.a.client_id changed", "esp.a.scope changed"],
            ),
            (oauth2, oauth2, &[]),
        ] {
            assert_eq!(keys(&between(&esp(old), esp(new)).changed), told, "{old} {new}");
        }
    }

    #[test]
    fn what_only_a_restart_changes_stays_and_is_named() {
        let after = BEFORE
            .replace("hostname", "data_dir = \"elsewhere\"\nhostname")
            .replace("127.0.0.1:2526\"\nstream = \"news\"", "127.0.0.1:2527\"\nmax_errors = 1")
            .replace("[[stream]]\nname = \"news\"", "[[stream]]\nname = \"letters\"");
        let before = read(BEFORE);
        let changes = between(&before, read(&format!("{after}\n[http]\naddress = \"127.0.0.1:8026\"\n")));
        assert_eq!(
            keys(&changes.restart),
            [
                "server.data_dir changed",
                "http.address changed",
                "listener.127.0.0.1:2526 removed",
                "listener.127.0.0.1:2527 added",
            ]
        );
        let config = changes.config;
        assert_eq!(config.store.data_dir, before.store.data_dir);
        assert_eq!(config.http.address, before.http.address);
        let stays = &config.listeners[1];
        assert_eq!((stays.name.as_str(), stays.max_errors), ("127.0.0.1:2526", 20));
        assert_eq!(stays.stream, Some(StreamName::new("broadcast")), "its own has gone");
    }
}
