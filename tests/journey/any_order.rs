//! Whatever order of ESPs and doors, whatever goes wrong at them: those who get a copy are the envelope without the
//! refused, each once, or once more for each time that it was announced.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::partial_recipients::FAST;
use crate::support::esps::{Fault, Postmark, Response, Sendgrid, Ses, Standin, Vendor, ses};
use crate::support::random::Random;
use crate::support::upstream::{self, Received};
use crate::support::wait::holds_within;
use crate::support::{Point, Relay, Upstream};

/// Orders that are tried, each with a relay of its own.
const ORDERS: usize = 4;
const MESSAGES: usize = 40;
/// Faults change after so many messages.
const MOOD: usize = 8;
const BOUND: Duration = Duration::from_secs(90);

/// Everybody who can carry mail, with what each has taken.
struct World {
    ses: Ses,
    sendgrid: Sendgrid,
    postmark: Postmark,
    smarthost: Upstream,
}

/// A message as it was handed in.
struct Sent {
    id: String,
    subject: String,
    envelope: Vec<String>,
    hidden: Vec<String>,
}

impl World {
    fn start() -> World {
        let smarthost = Upstream::start();
        World { ses: Ses::start(), sendgrid: Sendgrid::start(), postmark: Postmark::start(), smarthost }
    }

    /// A relay with all four in a random order, each by a random door.
    fn relay(&self, random: &mut Random) -> Relay {
        let mut ranks: Vec<usize> = (1..=4).collect();
        (1..ranks.len()).rev().for_each(|n| ranks.swap(n, below(random, n + 1)));
        let doors: Vec<&str> = (0..3).map(|_| ["api", "smtp", "auto"][below(random, 3)]).collect();
        println!("ranks of SES, SendGrid, Postmark, the smarthost: {ranks:?}; doors: {doors:?}");
        let table = |n: usize, name: &str, url: String, smtp: &Upstream, keys: &str| {
            format!(
                "[[esp]]\nname = \"{name}\"\ntype = \"{name}\"\npriority = {}\ntransport = \"{}\"\nendpoint = \"{url}\"\n\
                 smtp_endpoint = \"smtp://{}\"\ntimeout = \"2s\"\n{keys}\n",
                ranks[n],
                doors[n],
                smtp.address()
            )
        };
        let amazon = format!(
            "region = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"",
            ses::REGION,
            ses::ACCESS_KEY_ID,
            ses::SECRET
        );
        let grid = format!("api_key = \"{}\"", self.sendgrid.key());
        let mark = format!("server_token = \"{}\"", self.postmark.key());
        Relay::setup()
            .tables(&table(0, "ses", self.ses.url(), self.ses.smtp(), &amazon))
            .tables(&table(1, "sendgrid", self.sendgrid.url(), self.sendgrid.smtp(), &grid))
            .tables(&table(2, "postmark", self.postmark.url(), self.postmark.smtp(), &mark))
            .upstream(&self.smarthost, &format!("priority = {}\ntimeout = \"2s\"", ranks[3]))
            .tables(FAST)
            .server("dsn = \"off\"")
            .start()
    }

    fn heal(&self) {
        self.ses.heal();
        self.sendgrid.heal();
        self.postmark.heal();
        self.smarthost.heal();
        self.smarthost.fail_always(Point::RcptOf("gone"), upstream::Fault::Reply("550 5.1.1 no such user"));
    }

    /// Something goes wrong at each of them, or at some.
    fn upset(&self, random: &mut Random) {
        self.heal();
        http_fault(&self.ses, random);
        http_fault(&self.sendgrid, random);
        http_fault(&self.postmark, random);
        for door in [self.ses.smtp(), self.sendgrid.smtp(), self.postmark.smtp(), &self.smarthost] {
            smtp_fault(door, random);
        }
    }

    /// How many copies each person has of each mail, also those that nobody answered for.
    fn copies(&self) -> BTreeMap<(String, String), usize> {
        let books = [self.ses.accepted(), self.sendgrid.accepted(), self.postmark.accepted()].concat();
        let mut all: Vec<(String, String)> = books
            .into_iter()
            .flat_map(|taken| taken.to.into_iter().map(move |to| (taken.subject.clone(), to)))
            .collect();
        let doors = [self.ses.smtp(), self.sendgrid.smtp(), self.postmark.smtp(), &self.smarthost];
        let open = doors.into_iter().flat_map(Upstream::unanswered).chain(self.smarthost.received());
        all.extend(open.flat_map(|received| copies_in(&received)));
        let mut copies = BTreeMap::new();
        for (subject, to) in all {
            *copies.entry((subject, to.to_ascii_lowercase())).or_default() += 1;
        }
        copies
    }

    /// Every whole message that somebody was given.
    fn messages(&self) -> Vec<Vec<u8>> {
        let books = [self.ses.accepted(), self.sendgrid.accepted(), self.postmark.accepted()].concat();
        let taken = books.into_iter().filter_map(|taken| taken.mime);
        taken.chain(self.smarthost.received().into_iter().map(|r| r.data)).collect()
    }
}

fn below(random: &mut Random, n: usize) -> usize {
    usize::try_from(random.between(0, n as u64)).unwrap()
}

fn copies_in(received: &Received) -> Vec<(String, String)> {
    let subject = received.header("Subject").unwrap_or_default().trim().to_owned();
    let bare = |path: &String| path.trim_start_matches('<').trim_end_matches('>').to_owned();
    received.to.iter().map(|to| (subject.clone(), bare(to))).collect()
}

fn http_fault<V: Vendor>(esp: &Standin<V>, random: &mut Random) {
    let faults = [
        Fault::Answer(Response::empty(503)),
        Fault::RefuseBeforeBody(Response::empty(503)),
        Fault::CutBeforeBody,
        Fault::CutInBody(150),
        Fault::CutAfterBody,
        Fault::ResetAfterBody,
        Fault::TakeThenCut,
        Fault::TakeThenReset,
        Fault::TakeThenHang,
        Fault::TakeThenAnswer(Response::empty(500)),
        Fault::TakeThenAnswer(Response::empty(502)),
        Fault::CutInAnswer(30),
        Fault::HangInAnswer(60),
        Fault::HangBeforeBody,
        Fault::CloseBehind,
        Fault::Slow(Duration::from_millis(300)),
        Fault::Garbage,
    ];
    // As often as not nothing is wrong.
    if random.between(0, 2) == 0 {
        esp.fail(faults[below(random, faults.len())].clone(), 1 + below(random, 4));
    }
}

fn smtp_fault(door: &Upstream, random: &mut Random) {
    use upstream::Fault::{Close, Garbage, Half, Mixed, Reply, Reset, Slow};
    let points = [
        Point::Banner,
        Point::Ehlo,
        Point::Mail,
        Point::Rcpt(1),
        Point::Rcpt(2),
        Point::Data,
        Point::Body(20),
        Point::Dot,
    ];
    let faults =
        [Close, Reset, Reply("451 4.3.0 later"), Garbage, Half, Mixed, Slow(Duration::from_millis(300))];
    if random.between(0, 2) == 0 {
        door.fail(
            points[below(random, points.len())],
            faults[below(random, faults.len())],
            1 + below(random, 4),
        );
    }
}

/// A mail of a random shape, for random people of whom some are shown in its header, some not, and of whom some are gone.
fn submit(relay: &Relay, random: &mut Random, n: usize) -> Sent {
    let subject = format!("any {n}");
    let name = |k: usize, random: &mut Random| match random.between(0, 6) {
        0 => format!("gone{n}-{k}@example.com"),
        _ => format!("p{n}-{k}@example.com"),
    };
    let envelope: Vec<String> = (0..1 + below(random, 5)).map(|k| name(k, random)).collect();
    let mut fields = [Vec::new(), Vec::new(), Vec::new()];
    for person in &envelope {
        if let Some(field) = fields.get_mut(below(random, 4)) {
            field.push(match random.between(0, 4) {
                0 => format!("\"Person, of {n}\" <{person}>"),
                _ => format!("Person <{person}>"),
            });
        }
    }
    let shown = fields[..2].concat().join(" ");
    // Of one alone, the relay's `Received` names whom it was for.
    let of_many = envelope.len() > 1;
    let hidden = envelope.iter().filter(|p| of_many && !shown.contains(p.as_str())).cloned().collect();
    if random.between(0, 4) == 0 {
        // Somebody who has it already, and is to get no other.
        fields[below(random, 2)].push(format!("outsider{n}@example.net"));
    }
    let mut head = format!("From: The shop <shop@example.org>\r\nSubject: {subject}\r\nX-Order: {n}\r\n");
    for (field, people) in ["To", "Cc", "Bcc"].iter().zip(&fields) {
        if !people.is_empty() {
            head.push_str(&format!("{field}: {}\r\n", people.join(",\r\n ")));
        }
    }
    let body = match random.between(0, 3) {
        0 => "\r\nhello\r\n".to_owned(),
        1 => "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
              <p>gr\u{fc}n</p>\r\n"
            .to_owned(),
        _ => "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\n\
              Content-Type: text/csv; name=a.csv\r\nContent-Disposition: attachment; filename=a.csv\r\n\r\n1,2\r\n--b--\r\n"
            .to_owned(),
    };
    let to: Vec<&str> = envelope.iter().map(String::as_str).collect();
    let id = relay.submit("shop@example.org", &to, format!("{head}{body}").as_bytes());
    Sent { id, subject, envelope, hidden }
}

/// Waits until each delivery of each message has its end.
#[track_caller]
fn ends(relay: &Relay, all: &[Sent]) -> Vec<Value> {
    let life =
        |sent: &Sent| relay.get(&format!("/v1/messages/{}", sent.id)).map(|a| a.json()).unwrap_or_default();
    let mut open = Value::Null;
    let ended = holds_within(BOUND, || {
        let still = all.iter().map(life).find(|life| {
            !life["deliveries"].as_array().is_some_and(|all| all.iter().all(|d| d["state"] == "done"))
        });
        open = still.unwrap_or_default();
        open.is_null()
    });
    assert!(ended, "one has no end: {open:#}");
    all.iter().map(life).collect()
}

/// Judges one message by who has copies of it and what its life says.
#[track_caller]
fn judge(sent: &Sent, life: &Value, copies: &BTreeMap<(String, String), usize>) {
    for person in &sent.envelope {
        let has = copies.get(&(sent.subject.clone(), person.clone())).copied().unwrap_or_default();
        let delivery =
            life["deliveries"].as_array().into_iter().flatten().find(|d| d["recipient"] == *person);
        let delivery = delivery.unwrap_or_else(|| panic!("{person} has no delivery: {life:#}"));
        let events = life["events"].as_array().into_iter().flatten();
        let told =
            |kind: &str| events.clone().filter(|e| e["kind"] == kind && e["n"] == delivery["n"]).count();
        let refused = delivery["reason"] == "refused";
        assert!(!refused || person.starts_with("gone"), "{person} is refused by nobody: {life:#}");
        let most = told("may_arrive_twice") + usize::from(!refused);
        assert!(has <= most, "{person} has {has} copies, at most {most} by what was told: {life:#}");
        // An ESP may take mail for somebody whom it has suppressed, and keep it.
        let may_have_none = person.starts_with("gone") || told("assumed") > 0;
        assert!(has > 0 || may_have_none, "{person} has none: {life:#}");
    }
}

#[test]
fn each_of_the_envelope_who_is_not_refused_has_it_once_and_nobody_else() {
    let mut random = Random::seeded("any_order");
    for order in 0..ORDERS {
        let world = World::start();
        let relay = world.relay(&mut random);
        let mut all = Vec::new();
        for n in order * MESSAGES..(order + 1) * MESSAGES {
            if n.is_multiple_of(MOOD) {
                world.upset(&mut random);
            }
            all.push(submit(&relay, &mut random, n));
            for gone in all.last().into_iter().flat_map(|s| &s.envelope).filter(|p| p.starts_with("gone")) {
                world.postmark.suppress(gone);
            }
        }
        world.heal();
        let lives = ends(&relay, &all);
        let copies = world.copies();
        all.iter().zip(&lives).for_each(|(sent, life)| judge(sent, life, &copies));
        let asked =
            |who: &(String, String)| all.iter().any(|s| s.subject == who.0 && s.envelope.contains(&who.1));
        let others: Vec<_> = copies.keys().filter(|who| !asked(who)).collect();
        assert!(others.is_empty(), "nobody asked for these: {others:?}");
        for message in world.messages() {
            let text = String::from_utf8_lossy(&message);
            let told = all.iter().flat_map(|s| &s.hidden).find(|hidden| text.contains(hidden.as_str()));
            assert!(told.is_none(), "{told:?} was to be hidden: {text}");
        }
    }
}
