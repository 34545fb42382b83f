//! The mix works: Amazon SES by API first, SendGrid by SMTP second, Postmark by API third. Faults come and go; everybody
//! gets each mail once, and nobody else gets one.

use std::collections::BTreeMap;
use std::time::Duration;

use super::partial_recipients::FAST;
use crate::support::esps::{Fault, Postmark, Response, Sendgrid, Ses, ses};
use crate::support::random::Random;
use crate::support::{Point, Relay, upstream, wait_until};

const MESSAGES: usize = 500;
const BOUND: Duration = Duration::from_secs(90);

struct Three {
    ses: Ses,
    sendgrid: Sendgrid,
    postmark: Postmark,
}

impl Three {
    fn start() -> Three {
        Three { ses: Ses::start(), sendgrid: Sendgrid::start(), postmark: Postmark::start() }
    }

    fn relay(&self) -> Relay {
        let tables = format!(
            "[[esp]]\nname = \"amazon\"\ntype = \"ses\"\ntransport = \"api\"\npriority = 1\nregion = \"{}\"\n\
             access_key_id = \"{}\"\nsecret_access_key = \"{}\"\nendpoint = \"{}\"\ntimeout = \"5s\"\n\
             [[esp]]\nname = \"grid\"\ntype = \"sendgrid\"\ntransport = \"smtp\"\npriority = 2\napi_key = \"{}\"\n\
             smtp_endpoint = \"smtp://{}\"\n\
             [[esp]]\nname = \"mark\"\ntype = \"postmark\"\ntransport = \"api\"\npriority = 3\nserver_token = \"{}\"\n\
             endpoint = \"{}\"\ntimeout = \"5s\"\n",
            ses::REGION,
            ses::ACCESS_KEY_ID,
            ses::SECRET,
            self.ses.url(),
            self.sendgrid.key(),
            self.sendgrid.smtp().address(),
            self.postmark.key(),
            self.postmark.url(),
        );
        Relay::setup().tables(&tables).tables(FAST).start()
    }

    /// How many copies of each mail each person has, over all three.
    fn copies(&self) -> BTreeMap<(String, String), usize> {
        let mut copies = BTreeMap::new();
        let all = [self.ses.accepted(), self.sendgrid.accepted(), self.postmark.accepted()].concat();
        for taken in all {
            for to in taken.to {
                *copies.entry((taken.subject.clone(), to.to_ascii_lowercase())).or_default() += 1;
            }
        }
        copies
    }
}

/// A mail for these people: who is `shown` stands in To or Cc, the others in no field.
fn mail(subject: &str, shown: &[String]) -> Vec<u8> {
    let (to, cc) = shown.split_at(shown.len().div_ceil(2));
    let field = |name: &str, list: &[String]| match list {
        [] => String::new(),
        list => format!("{name}: {}\r\n", list.join(", ")),
    };
    format!(
        "From: shop@example.org\r\n{}{}Subject: {subject}\r\n\r\nhello\r\n",
        field("To", to),
        field("Cc", cc)
    )
    .into_bytes()
}

#[test]
fn all_arrive_once_through_whichever_esp_works() {
    let three = Three::start();
    let relay = three.relay();
    let mut random = Random::seeded("all_arrive_once");
    let mut wanted: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut client = relay.client();
    for n in 0..MESSAGES {
        switch_faults(&three, n);
        let subject = format!("mix {n}");
        let people: Vec<String> =
            (0..1 + random.between(0, 4)).map(|k| format!("p{n}-{k}@example.com")).collect();
        // At least one is shown; the rest may be hidden.
        let shown = usize::try_from(random.between(1, people.len() as u64 + 1)).unwrap();
        let to: Vec<&str> = people.iter().map(String::as_str).collect();
        client.submit("shop@example.org", &to, &mail(&subject, &people[..shown]));
        wanted.extend(people.iter().map(|p| ((subject.clone(), p.clone()), 1)));
    }
    heal(&three);
    wait_until("all have theirs", BOUND, || three.copies().len() >= wanted.len());
    let copies = three.copies();
    let odd: Vec<_> = copies.iter().filter(|(who, n)| wanted.get(who) != Some(n)).collect();
    assert!(odd.is_empty() && copies.len() == wanted.len(), "{odd:?}");
    for (name, count) in [
        ("SES", three.ses.count()),
        ("SendGrid", three.sendgrid.count()),
        ("Postmark", three.postmark.count()),
    ] {
        assert!(count > 0, "{name} carried some of it");
    }
    let told = relay.log();
    for secret in [ses::SECRET, three.sendgrid.key(), three.postmark.key()] {
        assert!(!told.contains(secret), "a key is in the log");
    }
}

/// Every fifty mails something else is wrong. None of it leaves anybody in doubt: what may have been taken is another
/// test's.
fn switch_faults(three: &Three, n: usize) {
    if !n.is_multiple_of(50) {
        return;
    }
    heal(three);
    let answer = |status| Fault::Answer(Response::empty(status));
    match n / 50 {
        1 => drop(three.ses.fail_always(answer(503))),
        2 => drop(three.ses.fail_always(Fault::Answer(ses::throttled()))),
        3 => {
            three.ses.fail_always(answer(503));
            three.sendgrid.smtp().fail_always(Point::Mail, upstream::Fault::Reply("451 4.3.0 try later"));
        }
        4 => drop(three.ses.fail(Fault::CutBeforeBody, 20)),
        5 => {
            three.ses.fail_always(Fault::Answer(ses::suspended()));
            three.sendgrid.smtp().fail_always(Point::Banner, upstream::Fault::Close);
        }
        7 => drop(three.ses.fail_always(Fault::RefuseBeforeBody(Response::empty(503)))),
        8 => {
            three.ses.fail_always(answer(503));
            three.sendgrid.smtp().fail_always(Point::Ehlo, upstream::Fault::Close);
            three.postmark.fail(answer(503), 5);
        }
        _ => {}
    }
}

fn heal(three: &Three) {
    three.ses.heal();
    three.sendgrid.heal();
    three.sendgrid.smtp().heal();
    three.postmark.heal();
}
