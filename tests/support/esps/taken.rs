//! What the stand-ins took: one record a message, the same for every ESP and both of its doors.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postroad::clock::monotonic;
use serde_json::Value;

use crate::support::mailgen;
use crate::support::wait::wait_until;

/// Through which door a mail came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    Http,
    Smtp,
}

/// One message that an ESP took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its number among all, from 1.
    pub number: u64,
    pub door: Door,
    /// The number of its connection.
    pub connection: u64,
    /// Who gets a copy, one entry a person, as the request spelled them.
    pub to: Vec<String>,
    /// Who gets none because the ESP has suppressed them.
    pub dropped: Vec<String>,
    /// The author's address.
    pub from: String,
    pub subject: String,
    /// The request, where it was JSON.
    pub json: Option<Value>,
    /// The whole message, where it came as one (SES, SMTP).
    pub mime: Option<Vec<u8>>,
    /// The sender's own id of the attempt, found in custom arguments, tags or metadata.
    pub attempt: Option<String>,
    /// Categories, the tag; for SES `name=value`.
    pub tags: Vec<String>,
    /// Custom arguments, metadata, or SES's tags by name.
    pub metadata: Vec<(String, String)>,
    /// The id that the ESP gave it.
    pub id: String,
    /// Whether the sender was told.
    pub answered: bool,
    pub at: std::time::Instant,
}

impl Taken {
    pub fn new(door: Door, connection: u64) -> Self {
        Taken {
            number: 0,
            door,
            connection,
            to: Vec::new(),
            dropped: Vec::new(),
            from: String::new(),
            subject: String::new(),
            json: None,
            mime: None,
            attempt: None,
            tags: Vec::new(),
            metadata: Vec::new(),
            id: String::new(),
            answered: true,
            at: monotonic().into_std(),
        }
    }

    /// With these names and values, one of which may name the attempt.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Vec<(String, String)>) -> Self {
        self.attempt = metadata.iter().find(|(name, _)| names_attempt(name)).map(|(_, v)| v.clone());
        self.metadata = metadata;
        self
    }

    /// A header field of the whole message, unfolded.
    pub fn header(&self, name: &str) -> Option<String> {
        header_of(self.mime.as_deref()?, name)
    }

    /// The whole message as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.mime.as_deref().unwrap_or_default()).into_owned()
    }

    /// In one line, for a person.
    pub fn line(&self) -> String {
        let attempt = self.attempt.as_deref().map(|a| format!(" attempt={a}")).unwrap_or_default();
        let tags =
            if self.tags.is_empty() { String::new() } else { format!(" tags={}", self.tags.join(",")) };
        let dropped = match self.dropped.is_empty() {
            true => String::new(),
            false => format!(" suppressed={}", self.dropped.join(",")),
        };
        let (to, from) = (self.to.join(","), &self.from);
        format!("id={} from={from} to={to}{dropped}{attempt}{tags} subject={:?}", self.id, self.subject)
    }
}

/// Whether a name in metadata is that of the attempt's id.
fn names_attempt(name: &str) -> bool {
    name.to_ascii_lowercase().contains("attempt")
}

/// A header field's value, unfolded.
pub fn header_of(mime: &[u8], name: &str) -> Option<String> {
    let mut fields = mailgen::fields(mime).into_iter();
    fields.find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| unfolded(&f.value))
}

pub fn unfolded(value: &[u8]) -> String {
    String::from_utf8_lossy(value).replace("\r\n", "").replace('\t', " ").trim().to_owned()
}

/// What one ESP's account knows and has: shared by its doors.
#[derive(Default)]
pub struct Books {
    taken: Mutex<Vec<Taken>>,
    numbers: AtomicU64,
    suppressed: Mutex<BTreeSet<String>>,
    /// Domains and addresses that may send; `None`: all.
    senders: Mutex<Option<Vec<String>>>,
}

impl Books {
    /// The number that an id is made of, never twice.
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Writes a message down; gives its number. The suppressed among its recipients get no copy.
    pub fn take(&self, mut taken: Taken) -> u64 {
        let to = std::mem::take(&mut taken.to);
        let (dropped, to): (Vec<_>, Vec<_>) = to.into_iter().partition(|a| self.is_suppressed(a));
        taken.to = to;
        taken.dropped.extend(dropped);
        let mut all = self.taken.lock().unwrap();
        taken.number = all.len() as u64 + 1;
        let number = taken.number;
        all.push(taken);
        number
    }

    /// Whether those who sent these were told.
    pub fn mark(&self, numbers: &[u64], answered: bool) {
        let mut all = self.taken.lock().unwrap();
        for number in numbers {
            if let Some(taken) = all.iter_mut().rev().find(|t| t.number == *number) {
                taken.answered = answered;
            }
        }
    }

    pub fn accepted(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    /// Those from the `from`th on.
    pub fn since(&self, from: usize) -> Vec<Taken> {
        self.taken.lock().unwrap().get(from..).unwrap_or_default().to_vec()
    }

    #[track_caller]
    pub fn wait_for(&self, esp: &str, n: usize, bound: Duration) -> Vec<Taken> {
        wait_until(&format!("{n} messages at {esp}"), bound, || self.count() >= n);
        self.accepted()
    }

    pub fn suppress(&self, address: &str) {
        self.suppressed.lock().unwrap().insert(address.to_lowercase());
    }

    pub fn unsuppress(&self, address: &str) {
        self.suppressed.lock().unwrap().remove(&address.to_lowercase());
    }

    pub fn is_suppressed(&self, address: &str) -> bool {
        self.suppressed.lock().unwrap().contains(&address.to_lowercase())
    }

    pub fn only_senders(&self, domains_and_addresses: &[&str]) {
        let all = domains_and_addresses.iter().map(|s| s.to_lowercase()).collect();
        *self.senders.lock().unwrap() = Some(all);
    }

    pub fn may_send(&self, address: &str) -> bool {
        let address = address.to_lowercase();
        let domain = address.rsplit('@').next().unwrap_or_default();
        let senders = self.senders.lock().unwrap();
        senders.as_ref().is_none_or(|all| all.iter().any(|s| *s == address || *s == domain))
    }
}
