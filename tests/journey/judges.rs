//! Independent judges accept what we send. The whole corpus goes in by SMTP, and each request that leaves is judged by a
//! program that nobody here wrote, or read again beside the original by a reader that shares nothing with us.

mod seen;
mod ses;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use postroad::address::{Address, Grammar};
use serde_json::Value;

use crate::support::corpus::{HIDDEN, Letter, letters};
use crate::support::esps::{Postmark, Sendgrid, postmark};
use crate::support::judges::{Judge, Passed, Tap};
use crate::support::{Client, Relay, http, skip, wait_until};
use seen::Seen;

/// Until all of the corpus has been tried.
const BOUND: Duration = Duration::from_secs(120);
/// What is unfit stays so: it is not tried again within a test.
const ONCE: &str = "[[stream]]\nname = \"transactional\"\nretry = \"1h\"\n";

/// An ESP whose API is judged.
struct Vendor {
    /// `type = …`
    name: &'static str,
    /// Its keys in the configuration.
    keys: &'static str,
    /// Of the requests that hand over mail.
    path: &'static str,
    /// The header field with a key that is right.
    key: (&'static str, &'static str),
    /// What a request of its API says.
    read: fn(&Value) -> Seen,
    /// How many messages of the corpus its API takes at the least.
    fit_min: usize,
}

const POSTMARK: Vendor = Vendor {
    name: "postmark",
    keys: "server_token = \"5d1c0a52-1f0e-4b5e-9c3a-0123456789ab\"",
    path: "/email",
    key: ("X-Postmark-Server-Token", postmark::TOKEN),
    read: seen::of_postmark,
    fit_min: 60,
};

const SENDGRID: Vendor = Vendor {
    name: "sendgrid",
    keys: "api_key = \"SG.standin.0123456789abcdefghijklmnopqrstuv\"",
    path: "/v3/mail/send",
    key: ("Authorization", "Bearer SG.standin.0123456789abcdefghijklmnopqrstuv"),
    read: seen::of_sendgrid,
    fit_min: 60,
};

/// A message that the relay took, and what became of it.
struct Sent<'a> {
    letter: &'a Letter,
    /// Whom the relay let into its envelope.
    envelope: Vec<String>,
    id: String,
    /// One a recipient and try.
    attempts: Vec<Value>,
}

impl Sent<'_> {
    fn is(&self, outcome: &str) -> bool {
        self.attempts.iter().all(|attempt| attempt["outcome"] == outcome)
    }
}

/// What was handed over in this call: the request that has its id in it.
fn request_of<'p>(call: &str, passed: &'p [Passed]) -> &'p Passed {
    let has = |p: &&Passed| memchr::memmem::find(&p.body, call.as_bytes()).is_some();
    passed.iter().find(has).unwrap_or_else(|| panic!("no request of {call}"))
}

fn relay(esp: &str, keys: &str, url: &str) -> Relay {
    let table = format!(
        "[[esp]]\nname = \"judged\"\ntype = \"{esp}\"\ntransport = \"api\"\nendpoint = \"{url}\"\n{keys}\n"
    );
    Relay::setup().server("dsn = \"off\"").tables(&table).tables(ONCE).start()
}

/// Hands in each letter that has an envelope; gives those that the relay took, when each was tried, and how many it
/// refused since the ESP could never carry them.
fn sent<'a>(
    relay: &Relay,
    letters: impl Iterator<Item = (&'a Letter, Vec<String>)>,
) -> (Vec<Sent<'a>>, usize) {
    let mut client = relay.client();
    let (mut all, mut unfit): (Vec<Sent<'a>>, usize) = (Vec::new(), 0);
    for (letter, envelope) in letters {
        match submit(&mut client, letter, &envelope) {
            Ok((id, envelope)) => all.push(Sent { letter, envelope, id, attempts: Vec::new() }),
            Err(refusal) => {
                println!("{}: not taken: {refusal}", letter.name);
                unfit += usize::from(refusal.contains("judged: "));
                client.say("RSET").expect("250");
            }
        }
    }
    for sent in &mut all {
        wait_until(&format!("{} was tried", sent.letter.name), BOUND, || {
            let life = relay.get(&format!("/v1/messages/{}", sent.id)).unwrap().json();
            sent.attempts = life["attempts"].as_array().cloned().unwrap_or_default();
            let tried: BTreeSet<_> = sent
                .attempts
                .iter()
                .filter(|a| a["outcome"] != "begun")
                .filter_map(|a| a["n"].as_u64())
                .collect();
            tried.len() == sent.envelope.len()
        });
    }
    (all, unfit)
}

/// One transaction; those recipients that the relay does not let in are left out.
fn submit(
    client: &mut Client,
    letter: &Letter,
    envelope: &[String],
) -> Result<(String, Vec<String>), String> {
    let ascii = envelope.iter().chain([&letter.from]).all(|address| address.is_ascii());
    let smtputf8 = if ascii { "" } else { " SMTPUTF8" };
    let reply = client.say(&format!("MAIL FROM:<{}> BODY=8BITMIME{smtputf8}", letter.from)).reply();
    if reply.code != 250 {
        return Err(reply.raw);
    }
    let let_in = |to: &&String| client.say(&format!("RCPT TO:<{to}>")).reply().code == 250;
    let envelope: Vec<String> = envelope.iter().filter(let_in).cloned().collect();
    client.say("DATA").expect("354");
    client.raw(&crate::support::smtp::stuffed(&letter.raw));
    let reply = client.reply();
    let id = crate::support::smtp::queued_as(&reply).ok_or(reply.raw)?;
    Ok((id, envelope))
}

/// Addresses as one compares them.
fn keys<'a>(addresses: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    addresses.into_iter().map(|a| key(a)).collect()
}

fn key(address: &str) -> String {
    Address::parse(address, Grammar::Lenient).map_or_else(|_| address.to_lowercase(), |a| a.key())
}

/// The whole corpus to everybody it names: taken, unfit, or refused at the dot as such, never refused by the ESP. And
/// where one that To names is not in the envelope, it is not taken. Gives what was taken, with its request.
fn taken_or_unfit<'a>(vendor: &Vendor, judge: SocketAddr, letters: &'a [Letter]) -> Vec<(Sent<'a>, Passed)> {
    let tap = Tap::before(judge);
    let relay = relay(vendor.name, vendor.keys, &tap.url());
    let (sent_all, never) = sent(&relay, letters.iter().map(|letter| (letter, letter.envelope())));
    let (taken, unfit): (Vec<Sent>, Vec<Sent>) = sent_all.into_iter().partition(|s| s.is("accepted"));
    for sent in &unfit {
        assert!(sent.is("unfit"), "{} at {}: {:#?}", sent.letter.name, vendor.name, sent.attempts);
        println!("{} is unfit for {}: {}", sent.letter.name, vendor.name, sent.attempts[0]["said"]);
    }
    let passed = tap.passed();
    for one in &passed {
        assert!((200..300).contains(&one.status), "{}: {} {}", one.line, one.status, one.answer);
        assert!(one.line.starts_with(&format!("POST {} ", vendor.path)), "{}", one.line);
    }
    assert_eq!(passed.len(), taken.len(), "one request a message");
    println!("{} took {} of the corpus, {} are unfit", vendor.name, taken.len(), unfit.len() + never);
    assert!(taken.len() >= vendor.fit_min, "{} alone were taken", taken.len());

    let split = taken.iter().filter_map(|s| Some((s.letter, s.letter.envelope_of_the_others()?)));
    let (split, never) = sent(&relay, split);
    assert!(never >= vendor.fit_min / 2, "{never} name somebody");
    assert!(split.is_empty(), "taken without one whom To names: {:?}", split.first().map(|s| &s.letter.name));
    assert_eq!(tap.passed().len(), passed.len(), "what is unfit was handed over");
    let with_request = |sent: Sent<'a>| {
        let request = request_of(sent.attempts[0]["attempt"].as_str().unwrap(), &passed).clone();
        (sent, request)
    };
    taken.into_iter().map(with_request).collect()
}

/// The status that a request with this body gets.
fn status(at: SocketAddr, vendor: &Vendor, keys: &[(&str, &str)], body: &str) -> u16 {
    let headers = [keys, &[("Accept", "application/json"), ("Content-Type", "application/json")]].concat();
    http::post_with(at, vendor.path, None, &headers, body).unwrap().status
}

#[test]
fn sendgrids_own_description_finds_nothing_wrong() {
    let prism = match Judge::prism("sendgrid-mail.json") {
        Ok(prism) => prism,
        Err(why) => return skip("SendGrid's description as judge", &why),
    };
    let at = prism.address();
    assert_eq!(status(at, &SENDGRID, &[SENDGRID.key], "{}"), 400, "it judges bodies");
    let whole = r#"{"personalizations":[{"to":[{"email":"a@example.com"}]}],"from":{"email":"b@example.org"},
        "subject":"s","content":[{"type":"text/plain","value":"x"}]}"#;
    assert_eq!(status(at, &SENDGRID, &[SENDGRID.key], whole), 202);
    assert_eq!(status(at, &SENDGRID, &[], whole), 401, "it judges keys");
    assert_eq!(status(at, &SENDGRID, &[("Authorization", "Basic eDp5")], whole), 401);
    let letters = letters();
    taken_or_unfit(&SENDGRID, at, &letters);
}

#[test]
fn postmarks_own_description_finds_nothing_wrong() {
    let prism = match Judge::prism("postmark-server.yml") {
        Ok(prism) => prism,
        Err(why) => return skip("Postmark's description as judge", &why),
    };
    let at = prism.address();
    assert_eq!(status(at, &POSTMARK, &[], "{}"), 422, "it judges that there is a key");
    assert_eq!(status(at, &POSTMARK, &[POSTMARK.key], r#"{"From":7}"#), 422, "it judges types");
    let letters = letters();
    taken_or_unfit(&POSTMARK, at, &letters);
}

#[test]
fn postmark_is_handed_what_was_sent() {
    let mark = Postmark::start();
    // Its description lets this pass: that the stand-in is stricter is what it is for.
    assert_eq!(status(mark.address(), &POSTMARK, &[POSTMARK.key], "{}"), 422);
    assert_eq!(status(mark.address(), &POSTMARK, &[(POSTMARK.key.0, "wrong")], "{}"), 401);
    handed_what_was_sent(&POSTMARK, mark.address());
    nobody_is_shown_to_another(&POSTMARK, mark.address());
}

#[test]
fn sendgrid_is_handed_what_was_sent() {
    let grid = Sendgrid::start();
    assert_eq!(status(grid.address(), &SENDGRID, &[SENDGRID.key], "{}"), 400);
    assert_eq!(status(grid.address(), &SENDGRID, &[("Authorization", "Bearer wrong")], "{}"), 401);
    handed_what_was_sent(&SENDGRID, grid.address());
    nobody_is_shown_to_another(&SENDGRID, grid.address());
}

/// Each request of the API, read again, says what another reader sees in the original, and names the envelope alone.
fn handed_what_was_sent(vendor: &Vendor, stand_in: SocketAddr) {
    let letters = letters();
    let mut wrong = Vec::new();
    for (sent, request) in taken_or_unfit(vendor, stand_in, &letters) {
        let name = &sent.letter.name;
        let json: Value = serde_json::from_slice(&request.body).unwrap();
        let mut arrives = (vendor.read)(&json);
        let named: BTreeSet<String> = arrives.recipients().map(|person| person.key.clone()).collect();
        if named != keys(&sent.envelope) || arrives.recipients().count() != named.len() {
            wrong.push(format!("{name}: names {named:?}, the envelope has {:?}", sent.envelope));
        }
        if sent.envelope.len() == 1 {
            arrives.hide_the_only_one();
        }
        if arrives.bcc.iter().map(|person| person.key.as_str()).ne([HIDDEN]) {
            wrong.push(format!("{name}: hides {:?}", arrives.bcc));
        }
        wrong.extend(arrives.against(&Seen::of_original(&sent.letter.raw), name));
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

/// Two whom the message does not name: neither learns of the other.
fn nobody_is_shown_to_another(vendor: &Vendor, stand_in: SocketAddr) {
    let tap = Tap::before(stand_in);
    let relay = relay(vendor.name, vendor.keys, &tap.url());
    let letters = letters();
    let nobody = letters.iter().filter(|letter| letter.to.is_empty() && letter.cc.is_empty());
    let two = || vec![HIDDEN.to_owned(), "another@elsewhere.example".to_owned()];
    // Postmark wants somebody in To.
    let (sent, never) = sent(&relay, nobody.map(|letter| (letter, two())));
    assert!(sent.len() + never >= 3, "{} name nobody", sent.len() + never);
    for one in tap.passed() {
        let json: Value = serde_json::from_slice(&one.body).unwrap();
        assert!(!(vendor.read)(&json).shows_somebody_to_another(), "{json:#}");
    }
}
