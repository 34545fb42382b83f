//! An ESP has the mail, and its answer does not say so: it is a 5xx, of the ESP or of what stands in front of it, or it
//! comes drop by drop, or its end comes late or never. Nobody knows whether the mail was taken, so no second copy goes
//! through another ESP.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::esps::{Fault, Postmark, Response, Sendgrid, Ses, Standin, Vendor, ses};
use crate::support::{Relay, Upstream, wait_until};

const BOUND: Duration = Duration::from_secs(60);
/// What is usual, what HTTP has besides, and what gateways make up.
const STATUSES: [u16; 10] = [500, 501, 502, 504, 505, 520, 522, 524, 529, 599];
const TIMEOUT_SECONDS: f64 = 2.0;
const SHORT_HOLD: &str = "2s";

/// A stand-in of each ESP for each fault, which it meets once. Mail for `NAME.example` goes to the one of that name.
struct Standins {
    grids: Vec<(String, Sendgrid)>,
    marks: Vec<(String, Postmark)>,
    amazons: Vec<(String, Ses)>,
    other: Upstream,
    relay: Relay,
}

fn each<V: Vendor>(
    word: &str,
    faults: &[(String, Fault)],
    start: impl Fn() -> Standin<V>,
) -> Vec<(String, Standin<V>)> {
    let one = |(name, fault): &(String, Fault)| {
        let standin = start();
        standin.fail(fault.clone(), 1);
        (format!("{word}-{name}"), standin)
    };
    faults.iter().map(one).collect()
}

fn table(name: &str, url: &str, own: &str) -> String {
    format!(
        "[[esp]]\nname = \"{name}\"\npriority = 1\ntransport = \"api\"\nendpoint = \"{url}\"\ntimeout = \"{TIMEOUT_SECONDS}s\"\n\
         recipients = [\"@{name}.example\"]\n{own}\n"
    )
}

impl Standins {
    fn start(faults: &[(String, Fault)], hold: &str) -> Standins {
        let grids = each("grid", faults, Sendgrid::start);
        let marks = each("mark", faults, Postmark::start);
        let amazons = each("amazon", faults, Ses::start);
        let other = Upstream::start();
        let (mut tables, mut names) = (String::new(), Vec::new());
        let mut add = |name: &str, url: &str, own: &str| {
            let _ = writeln!(tables, "{}", table(name, url, own));
            names.push(format!("\"@{name}.example\""));
        };
        for (name, grid) in &grids {
            add(name, &grid.url(), &format!("type = \"sendgrid\"\napi_key = \"{}\"", grid.key()));
        }
        for (name, mark) in &marks {
            add(name, &mark.url(), &format!("type = \"postmark\"\nserver_token = \"{}\"", mark.key()));
        }
        let (region, id, secret) = (ses::REGION, ses::ACCESS_KEY_ID, ses::SECRET);
        let keys = format!("access_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"");
        for (name, amazon) in &amazons {
            add(name, &amazon.url(), &format!("type = \"ses\"\nregion = \"{region}\"\n{keys}"));
        }
        let second = format!("priority = 9\nrecipients = [{}]", names.join(", "));
        let fast =
            format!("[[stream]]\nname = \"transactional\"\nretry = \"1s\"\nunsure_hold = \"{hold}\"\n");
        let relay = Relay::setup().tables(&tables).upstream(&other, &second).tables(&fast).start();
        Standins { grids, marks, amazons, other, relay }
    }

    fn names(&self) -> Vec<String> {
        let all = self.grids.iter().map(|(name, _)| name);
        let all = all.chain(self.marks.iter().map(|(name, _)| name));
        all.chain(self.amazons.iter().map(|(name, _)| name)).cloned().collect()
    }

    /// What each has taken.
    fn counts(&self) -> Vec<usize> {
        let all = self.grids.iter().map(|(_, grid)| grid.count());
        let all = all.chain(self.marks.iter().map(|(_, mark)| mark.count()));
        all.chain(self.amazons.iter().map(|(_, amazon)| amazon.count())).collect()
    }

    /// One mail to each; the life of each, once it has an end.
    fn mail(&self) -> Vec<(String, Value)> {
        let submit = |name: String| {
            let to = format!("ok@{name}.example");
            let raw = format!("From: shop@example.org\r\nTo: {to}\r\nSubject: {name}\r\n\r\nhello\r\n");
            let id = self.relay.submit("shop@example.org", &[&to], raw.as_bytes());
            (name, id)
        };
        let ids: Vec<(String, String)> = self.names().into_iter().map(submit).collect();
        let ended = |(name, id): (String, String)| {
            let life = || self.relay.get(&format!("/v1/messages/{id}")).unwrap().json();
            wait_until(&format!("{name} has an end"), BOUND, || life()["deliveries"][0]["state"] == "done");
            (name, life())
        };
        ids.into_iter().map(ended).collect()
    }
}

/// The ESP and the outcome of each attempt.
fn attempts(life: &Value) -> Vec<(&str, &str)> {
    let all = life["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(|a| Some((a["esp"].as_str()?, a["outcome"].as_str()?))).collect()
}

/// How long an attempt was.
fn took(attempt: &Value) -> jiff::SignedDuration {
    let at = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    at(&attempt["answered_at"]).duration_since(at(&attempt["begun_at"]))
}

#[test]
fn whatever_5xx_comes_after_the_mail_it_is_held_and_goes_through_no_other() {
    let fault = |status: u16| {
        let answer = Response::text(status, "text/html", "<html><body>error</body></html>");
        (status.to_string(), Fault::TakeThenAnswer(answer))
    };
    let all = Standins::start(&STATUSES.map(fault), SHORT_HOLD);
    for (name, life) in all.mail() {
        assert_eq!(attempts(&life), [(&*name, "unsure"), (&*name, "accepted")], "{life}");
        let said = life["attempts"][0]["said"].as_str().unwrap();
        assert!(said.starts_with(&format!("HTTP {}", name.rsplit_once('-').unwrap().1)), "{said}");
    }
    assert_eq!(all.counts(), vec![2; all.counts().len()], "each once more by the same");
    assert_eq!(all.other.count(), 0, "no second copy");
}

#[test]
fn an_answer_that_comes_drop_by_drop_is_not_waited_for() {
    let second = Duration::from_secs(1);
    let faults = [("head".to_owned(), Fault::Drip(second)), ("body".to_owned(), Fault::DripBody(second))];
    let all = Standins::start(&faults, SHORT_HOLD);
    for (name, life) in all.mail() {
        let took = took(&life["attempts"][0]);
        assert!(took.as_secs_f64() < 3.0 * TIMEOUT_SECONDS, "{name}: {took}: {life}");
        match name.as_str() {
            // All of SendGrid's answer is its header.
            "grid-body" => assert_eq!(attempts(&life), [(&*name, "accepted")], "{life}"),
            _ => assert_eq!(attempts(&life), [(&*name, "unsure"), (&*name, "accepted")], "{life}"),
        }
    }
    assert_eq!(all.counts(), [2, 1, 2, 2, 2, 2], "each once more by the same");
    assert_eq!(all.other.count(), 0, "no second copy");
}

#[test]
fn the_end_of_an_answer_is_listened_for_as_long_as_its_beginning() {
    let (late, never) = (Duration::from_secs(4), Duration::from_secs(600));
    let faults = [("late".to_owned(), Fault::LateBody(late)), ("never".to_owned(), Fault::LateBody(never))];
    let all = Standins::start(&faults, "9s");
    for (name, life) in all.mail() {
        match name.as_str() {
            // The end tells whether it was taken; SendGrid's beginning does.
            "mark-never" | "amazon-never" => {
                assert_eq!(attempts(&life), [(&*name, "unsure"), (&*name, "accepted")], "{life}");
                let said = life["attempts"][0]["said"].as_str().unwrap();
                assert!(said.contains("no answer for 2 s"), "{said}");
            }
            _ => assert_eq!(attempts(&life), [(&*name, "accepted")], "{life}"),
        }
        if let Some(grid) = name.strip_prefix("grid") {
            let took = took(&life["attempts"][0]);
            assert!(took.as_secs_f64() < TIMEOUT_SECONDS, "{grid}: {took}: {life}");
        }
    }
    assert_eq!(all.counts(), [1, 1, 1, 2, 1, 2], "the open ones once more by the same");
    assert_eq!(all.other.count(), 0, "no second copy");
}
