//! What an app asks for in `X-Postroad-*` fields: read at the door, before they are taken out.
//!
//! | field | means |
//! |---|---|
//! | `X-Postroad-Stream` | the stream |
//! | `X-Postroad-Tag` | a label, as often as wanted |
//! | `X-Postroad-Metadata-KEY` | a pair |
//! | `X-Postroad-Esp` | the one ESP that may carry it |
//! | `X-Postroad-Send-At` | not before then |
//! | `X-Postroad-Idempotency-Key` | taken once: who repeats it within 24 h gets the first one's id |
//! | `X-Postroad-Unsubscribe` | `off`: no List-Unsubscribe is added |
//!
//! Of a label and a pair's value encoded words (RFC 2047) are read. A name that is nearly one of these is a slip of
//! somebody who asks for something, and is refused. Fields of other names are taken out and logged, and ask for nothing.

use std::fmt;
use std::time::Duration;

use mail_parser::parsers::MessageStream;

use super::headers::{Field, OURS, Separator, fields};
use crate::clock::Timestamp;

/// Labels of one message.
pub const TAGS_MAX: usize = 10;
/// Pairs of one message.
pub const METADATA_MAX: usize = 20;
/// A label, and a pair's value.
pub const VALUE_OCTETS_MAX: usize = 255;
/// A pair's key.
pub const KEY_OCTETS_MAX: usize = 40;
/// Of what is no field's name, in an error.
const SHOWN_CHARS: usize = 60;
/// No message waits longer for its moment.
pub const SEND_AT_MAX: Duration = Duration::from_secs(30 * 86_400);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asks {
    /// The stream's name.
    pub stream: Option<String>,
    /// Labels, in order.
    pub tags: Vec<String>,
    /// Pairs, in order; keys in lower case, as field names have no case.
    pub metadata: Vec<(String, String)>,
    /// The ESP's name.
    pub esp: Option<String>,
    /// The moment.
    pub send_at: Option<Timestamp>,
    /// The app's own name for this message.
    pub key: Option<String>,
    /// Whether List-Unsubscribe is not to be added.
    pub unsubscribe_off: bool,
}

/// A field that cannot be taken as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadAsk {
    /// Its name as it was spelled.
    pub field: String,
    /// What is wrong, and what to write.
    pub why: String,
}

impl fmt::Display for BadAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

impl Asks {
    /// Reads the header block at the beginning of `octets`.
    pub fn read(octets: &[u8], now: Timestamp) -> Result<Asks, BadAsk> {
        let mut asks = Asks::default();
        let mut all = fields(octets);
        for field in all.by_ref() {
            let Some(name) = ours(&field) else { continue };
            let bad = |why: String| BadAsk { field: spelled(&field), why };
            asks.take(&name, field.value(), now).map_err(bad)?;
        }
        let end = all.end();
        match end.separator {
            Separator::Missing => nothing_lost(octets, end.body_at).map(|()| asks),
            Separator::EmptyLine | Separator::End => Ok(asks),
        }
    }

    fn take(&mut self, name: &str, value: &[u8], now: Timestamp) -> Result<(), String> {
        match name {
            "stream" => once(&mut self.stream, text(value)?),
            "esp" => once(&mut self.esp, text(value)?),
            "idempotency-key" => once(&mut self.key, text(value)?),
            "tag" if self.tags.len() >= TAGS_MAX => Err(format!("at most {TAGS_MAX} of them in a message")),
            "tag" => {
                self.tags.push(words(value)?);
                Ok(())
            }
            "send-at" => once(&mut self.send_at, moment(&text(value)?, now)?),
            "unsubscribe" => match text(value)?.to_ascii_lowercase().as_str() {
                "off" => {
                    self.unsubscribe_off = true;
                    Ok(())
                }
                _ => Err("only off can be asked for".into()),
            },
            _ => match name.strip_prefix("metadata-") {
                Some(key) => self.pair(key, value),
                None => match meant(name) {
                    Some(meant) => Err(format!("there is no such field; did you mean X-Postroad-{meant}?")),
                    None => Ok(()),
                },
            },
        }
    }

    fn pair(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        key_fits(key)?;
        if self.metadata.iter().any(|(known, _)| known == key) {
            return Err("stands there twice".into());
        }
        if self.metadata.len() >= METADATA_MAX {
            return Err(format!("at most {METADATA_MAX} pairs in a message"));
        }
        self.metadata.push((key.to_owned(), words(value)?));
        Ok(())
    }
}

/// Where a line that is no field ended the header block: whether one of ours stands from there to the next empty line.
/// It was meant as a field, and would be text.
fn nothing_lost(octets: &[u8], body_at: usize) -> Result<(), BadAsk> {
    let lines = octets[body_at..].split_inclusive(|b| *b == b'\n').take_while(|line| *line != b"\r\n");
    for (n, line) in lines.enumerate() {
        // Further down a line without a colon is text.
        let blank = || line.iter().position(u8::is_ascii_whitespace).filter(|_| n == 0);
        let end = line.iter().position(|b| *b == b':').or_else(blank);
        let Some(name) = end.map(|at| &line[..at]).filter(|name| is_ours(name)) else { continue };
        let why = match n {
            0 => "is no field's name: it has no colon behind it, or blanks, or what is no letter, digit, _ or -".into(),
            _ => {
                let ended_at = 1 + octets[..body_at].iter().filter(|b| **b == b'\n').count();
                format!(
                    "stands behind line {ended_at}, which is no header field and so ended the header block; fold long \
                     fields with a blank at the start of the next line"
                )
            }
        };
        return Err(BadAsk { field: cleaned(name).chars().take(SHOWN_CHARS).collect(), why });
    }
    Ok(())
}

fn is_ours(name: &[u8]) -> bool {
    name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS))
}

/// The names behind `X-Postroad-`; a pair's has its key behind it.
const NAMES: [&str; 6] = ["Stream", "Tag", "Esp", "Send-At", "Idempotency-Key", "Unsubscribe"];
const PAIR: &str = "Metadata";

/// The name that was probably meant: it is a slip or two away, a shorter one a slip, or that name's beginning.
fn meant(name: &str) -> Option<String> {
    const SLIPS_MAX: usize = 2;
    const BEGINNING_MIN: usize = 4;
    let near = |name: &str, known: &str| {
        let known = known.to_ascii_lowercase();
        let slips = strsim::damerau_levenshtein(name, &known);
        slips <= SLIPS_MAX.min(name.chars().count() / 4)
            || (name.len() >= BEGINNING_MIN && known.starts_with(name))
    };
    let pair = name.split(['-', '_']).next().filter(|first| near(first, PAIR)).map(|_| format!("{PAIR}-KEY"));
    pair.or_else(|| NAMES.iter().find(|known| near(name, known)).map(|known| (*known).to_owned()))
}

/// Whether a field, by its whole name, is one of ours that nothing here reads.
pub fn asks_for_nothing(name: &str) -> bool {
    let Some(name) = is_ours(name.as_bytes()).then(|| name[OURS.len()..].to_ascii_lowercase()) else {
        return false;
    };
    let known = NAMES.iter().any(|known| known.eq_ignore_ascii_case(&name));
    // What another relay's staging guard has written asks for nothing either, and is not meant for us.
    !known && !name.starts_with("metadata-") && name != "original-to"
}

/// The name behind `X-Postroad-`, in lower case.
fn ours(field: &Field<'_>) -> Option<String> {
    is_ours(field.name).then(|| String::from_utf8_lossy(&field.name[OURS.len()..]).to_ascii_lowercase())
}

fn spelled(field: &Field<'_>) -> String {
    cleaned(field.name)
}

fn cleaned(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).collect()
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err("stands there twice".into()),
    }
}

/// Unfolded, without outer blanks.
fn text(value: &[u8]) -> Result<String, String> {
    let text = unfolded(value)?;
    value_fits(&text)?;
    Ok(text)
}

/// As [`text`], with encoded words (RFC 2047) read: mail libraries write what is not ASCII as such.
fn words(value: &[u8]) -> Result<String, String> {
    let text = unfolded(value)?;
    if !text.contains("=?") {
        return value_fits(&text).map(|()| text);
    }
    let line = format!(" {text}\r\n");
    let read = MessageStream::new(line.as_bytes()).parse_unstructured();
    let text = read.as_text().unwrap_or(&text).trim();
    value_fits(text).map(|()| text.to_owned())
}

fn unfolded(value: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(value).map_err(|_| "is not UTF-8".to_owned())?;
    Ok(text.replace("\r\n", "").trim().to_owned())
}

/// Whether the key of a pair is one, by whatever way it came.
///
/// Errors: what is wrong.
pub fn key_fits(key: &str) -> Result<(), String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match (1..=KEY_OCTETS_MAX).contains(&key.len()) && key.bytes().all(fits) {
        true => Ok(()),
        false => Err(format!("a key has 1 to {KEY_OCTETS_MAX} letters, digits, _ and -")),
    }
}

/// Whether a value, a tag or that of a pair, is one.
///
/// Errors: what is wrong.
pub fn value_fits(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.len() > VALUE_OCTETS_MAX {
        return Err(format!("has {} octets, {VALUE_OCTETS_MAX} are allowed", text.len()));
    }
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err("has control characters".into());
    }
    Ok(())
}

/// RFC 3339 or RFC 5322; what is past means now. `Err` says what is wrong and what to write.
pub fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let parsed = text.parse::<jiff::Timestamp>().ok();
    let parsed = parsed.or_else(|| jiff::fmt::rfc2822::parse(text).ok().map(|z| z.timestamp()));
    let too_far = |at: &str| format!("{at} is more than {} days away", SEND_AT_MAX.as_secs() / 86_400);
    let Some(at) = parsed.map(|at| Timestamp::from_millis(at.as_millisecond())) else {
        if is_beyond(text) {
            return Err(too_far(text));
        }
        return Err("is no time such as 2026-12-01T09:00:00Z or Tue, 1 Dec 2026 09:00:00 +0000".into());
    };
    if at > now.plus(SEND_AT_MAX) {
        return Err(too_far(&at.to_string()));
    }
    Ok(at.max(now))
}

/// The last day that a calendar has is no instant in every zone, but a time all the same.
fn is_beyond(text: &str) -> bool {
    let day = |date: jiff::civil::Date| date.year() >= 9999;
    let date = text.get(..10).and_then(|date| date.parse().ok());
    date.is_some_and(day) || text.split_whitespace().any(|word| word == "9999") && text.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_602_034_005);

    fn read(fields: &str) -> Result<Asks, String> {
        let block = format!("Subject: s\r\n{fields}\r\nX-Postroad-Stream: body\r\n");
        Asks::read(block.as_bytes(), NOW).map_err(|bad| bad.to_string())
    }

    #[test]
    fn each_field_is_read_whatever_its_case_and_folds() {
        let asks = read(
            "x-postroad-stream: newsletter\r\nX-POSTROAD-TAG: spring \r\nX-Postroad-Tag: gr\u{fc}n\r\n\
             X-Postroad-Metadata-Order_ID:\r\n 12\r\n 34\r\nX-Postroad-Esp : main\r\nX-Postroad-Idempotency-Key: order-12\r\nX-Postroad-Unsubscribe: OFF\r\n\
             X-Postroad-Send-At: 2026-11-25T12:20:34+01:00\r\nX-Postroad-Whatever: y\r\n",
        )
        .unwrap();
        assert_eq!(asks.stream.as_deref(), Some("newsletter"));
        assert_eq!(asks.tags, ["spring", "gr\u{fc}n"]);
        assert_eq!(asks.metadata, [("order_id".to_owned(), "12 34".to_owned())]);
        assert_eq!((asks.esp.as_deref(), asks.unsubscribe_off), (Some("main"), true));
        assert_eq!(asks.key.as_deref(), Some("order-12"));
        assert_eq!(asks.send_at.map(|at| at.to_string()).as_deref(), Some("2026-11-25T11:20:34.000Z"));
    }

    #[test]
    fn encoded_words_are_read_and_then_held_to_the_same_rules() {
        let asks = read(
            "X-Postroad-Tag: =?utf-8?q?gr=C3=BCn?=\r\nX-Postroad-Tag: a =?utf-8?b?w7w=?=\r\n =?iso-8859-1?Q?=FC_b?=\r\n\
             X-Postroad-Tag: =?no?\r\nX-Postroad-Metadata-City: =?UTF-8?Q?K=C3=B6ln?=\r\n",
        )
        .unwrap();
        assert_eq!(asks.tags, ["gr\u{fc}n", "a \u{fc}\u{fc} b", "=?no?"]);
        assert_eq!(asks.metadata, [("city".to_owned(), "K\u{f6}ln".to_owned())]);
        let long = format!("X-Postroad-Tag: =?utf-8?b?{}?=\r\n", "YWFh".repeat(90));
        assert!(read(&long).unwrap_err().contains("has 270 octets, 255 are allowed"));
        let short = format!("X-Postroad-Tag: =?utf-8?b?{}?=\r\n", "YWFh".repeat(80));
        assert_eq!(read(&short).unwrap().tags[0].len(), 240, "the limit is the decoded text's");
        for (word, told) in
            [("=?utf-8?q?a=01b?=", "control"), ("=?utf-8?q?a=0D=0Ab?=", "control"), ("=?utf-8?q??=", "empty")]
        {
            let said = read(&format!("X-Postroad-Tag: {word}\r\n"));
            assert!(said.as_ref().is_err_and(|said| said.contains(told)), "{word}: {said:?}");
        }
    }

    #[test]
    fn both_forms_of_a_time_are_read_and_the_past_is_now() {
        let at =
            |text: &str| read(&format!("X-Postroad-Send-At: {text}\r\n")).map(|asks| asks.send_at.unwrap());
        assert_eq!(at("Wed, 25 Nov 2026 12:00:00 +0100").unwrap().to_string(), "2026-11-25T11:00:00.000Z");
        assert_eq!(at("2020-01-01T00:00:00Z").unwrap(), NOW);
        assert!(at("2026-12-30T00:00:00Z").unwrap_err().contains("30 days"));
        for far in ["9999-12-31T23:59:59Z", "9999-12-30T00:00:00+01:00", "Fri, 31 Dec 9999 23:59:59 +0000"] {
            assert!(at(far).unwrap_err().contains("is more than 30 days away"), "{far}");
        }
        assert!(at("tomorrow").unwrap_err().contains("2026-12-01T09:00:00Z"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_name() {
        let tags = "X-Postroad-Tag: t\r\n".repeat(11);
        let pairs: String = (0..21).map(|n| format!("X-Postroad-Metadata-k{n}: v\r\n")).collect();
        let long = format!("X-Postroad-Tag: {}\r\n", "t".repeat(256));
        for (fields, told) in [
            ("X-Postroad-Stream: a\r\nx-postroad-stream: a\r\n", "x-postroad-stream: stands there twice"),
            ("X-Postroad-Esp:\r\n", "X-Postroad-Esp: is empty"),
            (&tags, "at most 10"),
            (&pairs, "at most 20"),
            (&long, "255 are allowed"),
            ("X-Postroad-Metadata-: v\r\n", "a key has"),
            ("X-Postroad-Metadata-a.b: v\r\n", "a key has"),
            ("X-Postroad-Metadata-A: 1\r\nX-Postroad-Metadata-a: 2\r\n", "twice"),
            ("X-Postroad-Unsubscribe: on\r\n", "only off"),
            ("X-Postroad-Tag: a\u{1}b\r\n", "control"),
            (
                "X-Postroad-Stram: news\r\n",
                "X-Postroad-Stram: there is no such field; did you mean X-Postroad-Stream?",
            ),
            ("X-Postroad-Tags: t\r\n", "did you mean X-Postroad-Tag?"),
            ("X-Postroad-SendAt: 2026-12-01T09:00:00Z\r\n", "did you mean X-Postroad-Send-At?"),
            ("X-Postroad-Metdata-Order: 1\r\n", "did you mean X-Postroad-Metadata-KEY?"),
            ("X-Postroad-Metadata: 1\r\n", "did you mean X-Postroad-Metadata-KEY?"),
            ("X-Postroad-Meta-Order: 1\r\n", "did you mean X-Postroad-Metadata-KEY?"),
            ("X-Postroad-Idempotency: 1\r\n", "did you mean X-Postroad-Idempotency-Key?"),
        ] {
            let said = read(fields).unwrap_err();
            assert!(said.contains(told), "{fields}: {said}");
        }
    }

    #[test]
    fn fields_of_other_names_ask_for_nothing_and_are_known_by_it() {
        for name in ["X-Postroad-Whatever", "x-postroad-Trace-Id", "X-Postroad-Id"] {
            assert_eq!(read(&format!("{name}: v\r\n")), Ok(Asks::default()));
            assert!(asks_for_nothing(name), "{name}");
        }
        for name in ["X-Postroad-Tag", "x-postroad-metadata-K", "X-Postroad-Original-To", "X-Post", "Bcc"] {
            assert!(!asks_for_nothing(name), "{name}");
        }
    }

    #[test]
    fn what_was_meant_as_a_field_and_is_none_is_told() {
        let read = |text: &str| Asks::read(text.as_bytes(), NOW).map_err(|bad| bad.to_string());
        for (text, told) in [
            ("X-Postroad-Stream broadcast\r\n\r\n", "X-Postroad-Stream: is no field's name"),
            ("X-Postroad-Metadata-k k: v\r\n\r\n", "X-Postroad-Metadata-k k: is no field's name"),
            ("A: b\r\nx-postroad-t\u{1}ag: v\r\nB: c\r\n\r\n", "x-postroad-tag: is no field's name"),
            (
                "A: b\r\nno field\r\nX-Postroad-Stream: x\r\n\r\nhi\r\n",
                "X-Postroad-Stream: stands behind line 2,",
            ),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.starts_with(told), "{text:?}: {said}");
        }
        for text in [
            "A: b\r\nno field\r\n\r\nX-Postroad-Stream: x\r\n",
            "text alone\r\nof X-Postroad-Stream: x\r\nX-Postroad-Stream, a field\r\n",
            "A: b\r\n\r\nX-Postroad-Metadata-k k: v\r\n",
        ] {
            assert_eq!(read(text), Ok(Asks::default()), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_block_is_too_odd(block in prop::collection::vec(any::<u8>(), 0..200), name in "[A-Za-z-]{0,12}") {
            let text = [b"X-Postroad-", name.as_bytes(), b":", &block[..]].concat();
            let _ = Asks::read(&text, NOW);
        }
    }
}
