//! What all webhooks have in common: a POST as it came, what is wrong with one, and a payload read leniently.
//!
//! A payload's fields change their type from one event to the next (SendGrid's `category` is a string or a list), so
//! each is asked for by name and form; what is not there, or is something else, is absent. Nothing of one event spoils
//! the others of its batch.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::address::{Address, Grammar};
use crate::clock::Timestamp;
use crate::mail::{Event, What};

/// The ESP's words in one event, in octets: more is cut.
const SAID_OCTETS_MAX: usize = 1_000;
/// Arrays and objects in each other.
const DEPTH_MAX: usize = 64;
/// An event as it came, in octets: more is cut, and is no JSON then.
const RAW_OCTETS_MAX: usize = 16 * 1024;

/// An ESP's own name of an event's kind, in octets: more is cut.
const TOLD_AS_OCTETS_MAX: usize = 100;

/// What the words of an ESP's own test event begin with. It tells of no mail, and so of no address.
pub(super) const TEST_EVENT: &str = "test event of the ESP's own: ";

/// Whether an ESP made it up, to try its webhook.
pub fn is_test(event: &Event) -> bool {
    event.what == What::Other && event.said.starts_with(TEST_EVENT)
}

/// One POST to a webhook's URL, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Post<'a> {
    /// Its header fields, names in lower case.
    pub fields: &'a [(String, Vec<u8>)],
    /// Its body, untouched: that is what is signed.
    pub body: &'a [u8],
    /// When it came.
    pub at: Timestamp,
}

impl<'a> Post<'a> {
    /// The field of that name; one that is there twice is not.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        let mut found = self.fields.iter().filter(|(n, _)| n == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// The field, where it is text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.field(name)?).ok()
    }
}

/// What a POST was.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Events, in the ESP's order.
    Events(Vec<Event>),
    /// Somebody wants a topic's events to come here; it is one of ours, and this URL confirms it.
    Confirm {
        /// The topic.
        topic: String,
        /// What is fetched to confirm it.
        url: String,
    },
    /// The topic comes here no more.
    Ended {
        /// The topic.
        topic: String,
    },
}

/// Why a POST was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Nobody has shown that the ESP sent it. The sender hears 401 and no more.
    Unproven(Unproven),
    /// The ESP may have sent it, and it cannot be read. In words.
    Malformed(String),
}

/// Why nobody has shown that the ESP sent it: for the log and the metrics alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unproven {
    /// The configuration has no key to prove it by.
    NoKey,
    /// The proof is not there.
    Missing,
    /// It is there, and wrong.
    Wrong,
    /// It was made too long ago, or in the time to come.
    Stale,
    /// It comes from a topic that is none of ours.
    Topic,
    /// Its certificate is not where the ESP keeps those, or is not good.
    Certificate,
}

impl Unproven {
    /// Its word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Unproven::NoKey => "no_key",
            Unproven::Missing => "missing",
            Unproven::Wrong => "wrong",
            Unproven::Stale => "stale",
            Unproven::Topic => "topic",
            Unproven::Certificate => "certificate",
        }
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unproven::NoKey => {
                "the configuration has nothing to prove it by; see webhook_auth at this [[esp]]"
            }
            Unproven::Missing => "the proof that the ESP sends with each call is not there",
            Unproven::Wrong => "the proof is there and does not fit; is it this ESP's key?",
            Unproven::Stale => "it was signed too long ago or in the time to come; is the clock right?",
            Unproven::Topic => "its topic is not among webhook_topics",
            Unproven::Certificate => "its certificate is not one of the ESP's, or not valid now",
        })
    }
}

/// One JSON object of a payload.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The object, where it is one.
    pub fn of(value: Value) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Fields(map)),
            _ => None,
        }
    }

    /// The object that stands there, where it is one.
    pub fn read(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().and_then(Fields::of)
    }

    /// An object without members.
    pub fn none() -> Self {
        Fields(Map::new())
    }

    /// A text, empty or not.
    pub fn string(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A text that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// A text, or a number as text.
    pub fn word(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// A whole number, or a text that is one.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.0.get(name)? {
            Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// Whether there is such a member, and it is not null.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// Whether it says `true`.
    pub fn is(&self, name: &str) -> bool {
        self.says(name, true)
    }

    /// Whether it says so.
    pub fn says(&self, name: &str, yes: bool) -> bool {
        self.0.get(name) == Some(&Value::Bool(yes))
    }

    /// The object of that name.
    pub fn object(&mut self, name: &str) -> Option<Fields> {
        self.0.get_mut(name).map(Value::take).and_then(Fields::of)
    }

    /// The items of that list.
    pub fn list(&mut self, name: &str) -> Vec<Value> {
        match self.0.get_mut(name).map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        }
    }

    /// A moment in RFC 3339, with any number of digits after the second.
    pub fn moment(&self, name: &str) -> Option<Timestamp> {
        moment(self.text(name)?)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "it is whole and within the range")]
fn whole(number: f64) -> Option<i64> {
    (number.is_finite() && number.abs() < 9e15).then_some(number as i64)
}

/// A moment in RFC 3339; also with a space before its offset, and the offset without a colon, as Amazon once wrote it.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim().replacen(" +", "+", 1);
    let at = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let found = at(&text).or_else(|| {
        let (rest, zone) = text.split_at_checked(text.len().checked_sub(4)?)?;
        at(&format!("{rest}{}:{}", zone.get(..2)?, zone.get(2..)?))
    })?;
    Some(Timestamp::from_millis(found.as_millisecond()))
}

/// Whom an event is about: as lenient as what is accepted from clients, with or without a name before it.
pub(super) fn recipient(text: &str) -> Option<Address> {
    let text = text.trim();
    let bare = text.strip_suffix('>').and_then(|text| text.rsplit_once('<')).map_or(text, |(_, bare)| bare);
    Address::parse(bare, Grammar::Lenient).ok()
}

/// Words of an ESP, cut at their limit.
pub(super) fn said(text: &str) -> String {
    cut(text, SAID_OCTETS_MAX)
}

/// An ESP's own name of an event's kind, cut at its limit.
pub(super) fn told_as(name: &str) -> String {
    cut(name, TOLD_AS_OCTETS_MAX)
}

/// An event as it came, cut at its limit.
pub(super) fn raw(json: &RawValue) -> String {
    cut_raw(json.get())
}

/// A text that holds an event, cut at its limit.
pub(super) fn cut_raw(json: &str) -> String {
    cut(json, RAW_OCTETS_MAX)
}

fn cut(text: &str, octets_max: usize) -> String {
    text[..text.floor_char_boundary(octets_max)].to_owned()
}

/// A key made of what makes an event one, where the ESP gives none.
pub(super) fn key_of(parts: &[&str]) -> String {
    let whole = parts.iter().fold(Vec::new(), |mut whole, part| {
        whole.extend_from_slice(&(part.len() as u64).to_be_bytes());
        whole.extend_from_slice(part.as_bytes());
        whole
    });
    digest(&SHA256, &whole).as_ref().iter().take(16).map(|octet| format!("{octet:02x}")).collect()
}

/// Whether arrays and objects stand in each other deeper than any ESP has them.
fn is_too_deep(body: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for octet in body {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

/// The JSON of a body: one value, each part of which can be kept as it stands.
pub(super) fn json<'b, T: serde::Deserialize<'b>>(body: &'b [u8], wanted: &str) -> Result<T, Refused> {
    if is_too_deep(body) {
        return Err(Refused::Malformed(format!("the body is nested deeper than {DEPTH_MAX}")));
    }
    serde_json::from_slice(body)
        .map_err(|error| Refused::Malformed(format!("the body is not {wanted}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_with_any_fraction_and_in_amazons_old_spelling() {
        for (text, millis) in [
            ("2026-01-02T03:04:06.000Z", Some(1_767_323_046_000)),
            ("2026-01-02T03:04:06Z", Some(1_767_323_046_000)),
            ("2026-01-02T03:04:06.1234567Z", Some(1_767_323_046_123)),
            ("2026-01-02T03:04:06.1234567-05:00", Some(1_767_341_046_123)),
            ("2018-10-08T14:05:45 +0000", Some(1_539_007_545_000)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(moment(text).map(Timestamp::millis), millis, "{text}");
        }
    }

    #[test]
    fn a_body_is_only_so_deep_and_brackets_in_texts_do_not_count() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        let read = |text: &str| json::<&RawValue>(text.as_bytes(), "JSON").is_ok();
        assert!(read(&nested(DEPTH_MAX)) && !read(&nested(DEPTH_MAX + 1)) && !read(&nested(400_000)));
        assert!(read(&format!("[{}]", vec!["[{}]"; 1000].join(","))), "beside each other");
        assert!(read(&format!(r#"["\"{}"]"#, "[".repeat(500))));
        assert!(!read(&format!(r#"{{"a":{}1{}}}"#, "[{\"b\":".repeat(40), "}]".repeat(40))));
    }

    #[test]
    fn an_address_may_have_a_name_before_it() {
        for text in
            ["joe@x.example", " <joe@x.example> ", "Joe <joe@x.example>", "\"J, <x>\" <joe@x.example>"]
        {
            assert_eq!(
                recipient(text).map(|to| to.wire().to_owned()).as_deref(),
                Some("joe@x.example"),
                "{text}"
            );
        }
        assert_eq!(recipient("nobody"), None);
    }

    #[test]
    fn a_field_that_is_there_twice_proves_nothing() {
        let fields = [
            ("a".to_owned(), b"1".to_vec()),
            ("b".to_owned(), b"2".to_vec()),
            ("a".to_owned(), b"3".to_vec()),
        ];
        let post = Post { fields: &fields, body: b"", at: Timestamp::from_millis(0) };
        assert_eq!((post.field("a"), post.field("b"), post.field("c")), (None, Some(&b"2"[..]), None));
    }

    #[test]
    fn keys_differ_where_parts_do() {
        assert_ne!(key_of(&["ab", "c"]), key_of(&["a", "bc"]));
        assert_eq!(key_of(&["ab", "c"]), key_of(&["ab", "c"]));
    }
}
