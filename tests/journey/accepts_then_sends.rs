//! A message goes in by every door and comes out by every door, byte for byte.

use std::time::Duration;

use lettre::address::Envelope;
use lettre::transport::smtp::SmtpTransport;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Address, Transport};

use crate::support::mailgen::{assert_unchanged, plain, shapes, sized};
use crate::support::upstream::{Manner, Received, Tls as UpstreamTls};
use crate::support::{Relay, Upstream, tls};

fn with_subject<'a>(received: &'a [Received], subject: &str) -> &'a Received {
    received
        .iter()
        .find(|r| r.header("Subject").as_deref() == Some(subject))
        .unwrap_or_else(|| panic!("no {subject}"))
}

#[test]
fn every_shape_of_mail_arrives_byte_for_byte() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let mut client = relay.client();
    for (name, raw) in shapes() {
        client.say("MAIL FROM:<shop@example.org> BODY=8BITMIME").expect("250");
        client.say("RCPT TO:<ok@example.com>").expect("250");
        client.say("DATA").expect("354");
        client.raw(&crate::support::smtp::stuffed(&raw));
        let reply = client.reply();
        assert_eq!(reply.code, 250, "{name}: {}", reply.raw);
    }
    let received = upstream.wait_for(shapes().len());
    for (name, raw) in shapes() {
        let got = with_subject(&received, name);
        if let Some(what) = crate::support::mailgen::difference(&raw, &got.data) {
            panic!("{name}: {what}");
        }
        assert!(got.mail.starts_with("<shop@example.org>"), "{}", got.mail);
        assert_eq!(got.to, ["<ok@example.com>"]);
    }
}

#[test]
fn large_mail_arrives_byte_for_byte() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    // Around the size from which bodies go to disk as they come, and well past it.
    let sizes = [255_000, 256_000, 262_144, 263_000, 1_000_000, 10_000_000];
    for (n, octets) in sizes.into_iter().enumerate() {
        relay.submit("a@example.org", &["ok@example.com"], &sized(&format!("large-{n}"), octets));
    }
    let received = upstream.wait_for_within(sizes.len(), Duration::from_secs(60));
    for (n, octets) in sizes.into_iter().enumerate() {
        let subject = format!("large-{n}");
        assert_unchanged(&sized(&subject, octets), &with_subject(&received, &subject).data);
    }
}

#[test]
fn lettre_submits_by_every_door() {
    let upstream = Upstream::start();
    let relay = Relay::setup()
        .upstream(&upstream, "")
        .listener("")
        .listener("auth = \"required\"")
        .tls_listener("starttls", "auth = \"optional\"")
        .tls_listener("implicit", "auth = \"required\"")
        .credential("shop", "pass word #1")
        .start();
    let authority = Certificate::from_pem(tls::pki().ca_pem.as_bytes()).unwrap();
    let parameters =
        TlsParameters::builder("localhost".into()).add_root_certificate(authority).build_rustls().unwrap();
    let secured = |kind: fn(TlsParameters) -> Tls| kind(parameters.clone());
    let doors = [
        ("plain", 0, Tls::None, None, "ESMTP"),
        ("plain-auth-plain", 1, Tls::None, Some(Mechanism::Plain), "ESMTPA"),
        ("plain-auth-login", 1, Tls::None, Some(Mechanism::Login), "ESMTPA"),
        ("starttls", 2, secured(Tls::Required), None, "ESMTPS"),
        ("starttls-auth-plain", 2, secured(Tls::Required), Some(Mechanism::Plain), "ESMTPSA"),
        ("starttls-auth-login", 2, secured(Tls::Required), Some(Mechanism::Login), "ESMTPSA"),
        ("implicit-auth-plain", 3, secured(Tls::Wrapper), Some(Mechanism::Plain), "ESMTPSA"),
        ("implicit-auth-login", 3, secured(Tls::Wrapper), Some(Mechanism::Login), "ESMTPSA"),
    ];
    let address = |a: &str| a.parse::<Address>().unwrap();
    for (name, listener, tls, mechanism, _) in &doors {
        let mut builder =
            SmtpTransport::builder_dangerous("localhost").port(relay.listener(*listener).port());
        builder = builder.tls(tls.clone()).timeout(Some(Duration::from_secs(20)));
        if let Some(mechanism) = mechanism {
            let credentials = Credentials::new("shop".into(), "pass word #1".into());
            builder = builder.credentials(credentials).authentication(vec![*mechanism]);
        }
        let envelope =
            Envelope::new(Some(address("shop@example.org")), vec![address("ok@example.com")]).unwrap();
        // lettre ends the last line itself, also where the mail has.
        let raw = plain(name);
        builder
            .build()
            .send_raw(&envelope, raw.strip_suffix(b"\r\n").unwrap())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let received = upstream.wait_for(doors.len());
    for (name, _, _, _, with) in &doors {
        let got = with_subject(&received, name);
        assert_unchanged(&plain(name), &got.data);
        let trace = got.header("Received").unwrap();
        assert!(trace.contains(&format!(" with {with} ")), "{name}: {trace}");
    }
}

#[test]
fn mail_leaves_by_every_door() {
    let doors = [
        ("plain", UpstreamTls::Off, None, "tls = \"off\""),
        ("starttls", UpstreamTls::Starting, None, "tls = \"starttls\""),
        ("implicit", UpstreamTls::Implicit, None, "tls = \"implicit\""),
        ("plain-auth", UpstreamTls::Off, Some("PLAIN LOGIN"), "tls = \"off\""),
        ("starttls-auth-plain", UpstreamTls::Starting, Some("PLAIN"), "tls = \"starttls\""),
        ("starttls-auth-login", UpstreamTls::Starting, Some("LOGIN"), "tls = \"starttls\""),
        ("implicit-auth", UpstreamTls::Implicit, Some("PLAIN LOGIN"), "tls = \"implicit\""),
    ];
    for (name, tls, auth, lines) in doors {
        let auth = auth.map(|mechanisms| (mechanisms, "relay", "s3cr#t \"%+"));
        let upstream = Upstream::with(Manner { tls, auth, ..Manner::default() });
        let login = auth.map(|_| "username = \"relay\"\npassword = 's3cr#t \"%+'").unwrap_or_default();
        let ca = if tls == UpstreamTls::Off { "" } else { "ca_file = \"@DIR@/ca.pem\"" };
        let relay = Relay::setup().upstream(&upstream, &format!("{lines}\n{login}\n{ca}")).start();
        relay.submit("shop@example.org", &["ok@example.com"], &plain(name));
        let received = upstream.wait_for(1);
        assert_unchanged(&plain(name), &received[0].data);
        assert_eq!(received[0].tls, tls != UpstreamTls::Off, "{name}");
        assert_eq!(received[0].user.is_some(), auth.is_some(), "{name}");
        // LOGIN is asked for alone: a name on its line is what some servers do not take.
        let inline =
            upstream.commands().iter().any(|(_, c)| c.to_ascii_uppercase().starts_with("AUTH LOGIN "));
        assert!(!inline, "{name}");
    }
}

#[test]
fn one_line_carries_many_messages() {
    let upstream = Upstream::start();
    let relay =
        Relay::setup().upstream(&upstream, "max_connections = 1\nmessages_per_connection = 10").start();
    let mut client = relay.client();
    for n in 0..25 {
        client.submit("a@example.org", &["ok@example.com"], &plain(&format!("m{n}")));
    }
    let received = upstream.wait_for(25);
    let mut lines: Vec<u64> = received.iter().map(|r| r.connection).collect();
    lines.dedup();
    assert!(lines.len() <= 25, "{lines:?}");
    for line in lines.iter().collect::<std::collections::BTreeSet<_>>() {
        let on_it = received.iter().filter(|r| r.connection == *line).count();
        assert!(on_it <= 10, "{on_it} messages on one connection of ten");
    }
    assert!(upstream.connections() <= 8, "{} connections for 25 messages", upstream.connections());
}

#[test]
fn dots_survive_every_boundary() {
    // Lines of dots of every small length, so that one lies across each boundary of a buffer or piece on the way.
    let mut random = crate::support::random::Random::seeded("dots");
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let mut sent = Vec::new();
    for n in 0..6 {
        let mut raw = format!("{}\r\n", crate::support::mailgen::head(&format!("dots{n}"))).into_bytes();
        let octets = random.between(200_000, 900_000) as usize;
        while raw.len() < octets {
            let line = [&b"."[..], b"..", b"", b"...", b".x", b"x."][random.between(0, 6) as usize];
            raw.extend_from_slice(line);
            raw.extend_from_slice(b"\r\n");
        }
        relay.submit("a@example.org", &["ok@example.com"], &raw);
        sent.push(raw);
    }
    let received = upstream.wait_for(sent.len());
    for (n, raw) in sent.iter().enumerate() {
        assert_unchanged(raw, &with_subject(&received, &format!("dots{n}")).data);
    }
}

#[test]
fn large_mail_loses_the_same_fields_as_small() {
    let upstream = Upstream::start();
    let relay = Relay::to(&upstream);
    let filler: String = (0..1000).map(|n| format!("X-Filler-{n}: {}\r\n", "f".repeat(60))).collect();
    let raw =
        format!("{filler}Bcc: hidden@example.net\r\n{}", String::from_utf8(sized("big", 700_000)).unwrap());
    relay.submit("a@example.org", &["ok@example.com"], raw.as_bytes());
    let received = upstream.wait_for(1);
    assert_unchanged(raw.as_bytes(), &received[0].data);
    assert!(!received[0].text().contains("hidden@"));
}
