//! One line of the log, made from a `tracing` event: text or JSON, escaped, in a buffer that is used again.

use std::cell::RefCell;
use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::writer::Writer;
use crate::clock::{Clock, System, Timestamp};

/// More than this of one value is cut off.
const VALUE_OCTETS_MAX: usize = 2048;
/// A buffer that grew past this is not kept.
const BUFFER_OCTETS_KEPT: usize = 16 * 1024;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `2026-11-25T10:20:34.005Z info attempt id=01jd3k5v9m2xq …`
    Text,
    /// One JSON object a line.
    Json,
}

/// Turns events into lines and hands them to the writer.
#[derive(Debug)]
pub(super) struct Lines {
    form: Form,
    writer: Writer,
}

#[derive(Default)]
struct Buffers {
    line: String,
    scratch: String,
    second: Second,
}

/// The text of the present second, made once.
#[derive(Default)]
struct Second {
    number: i64,
    text: String,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl Lines {
    pub(super) fn new(form: Form, writer: Writer) -> Self {
        Lines { form, writer }
    }

    fn write(&self, buffers: &mut Buffers, event: &Event<'_>, now: Timestamp) {
        let Buffers { line, scratch, second } = buffers;
        line.clear();
        let meta = event.metadata();
        let level = word(*meta.level());
        match self.form {
            Form::Text => {
                second.put(line, now);
                line.push(' ');
                line.push_str(level);
            }
            Form::Json => {
                line.push_str("{\"time\":\"");
                second.put(line, now);
                line.push_str("\",\"level\":\"");
                line.push_str(level);
                line.push('"');
            }
        }
        let mut fields = Fields { form: self.form, line, scratch };
        if !meta.target().starts_with("postroad") {
            fields.text("target", meta.target());
        }
        event.record(&mut fields);
        line.push_str(match self.form {
            Form::Text => "\n",
            Form::Json => "}\n",
        });
        self.writer.put(line.as_bytes());
        if line.capacity() > BUFFER_OCTETS_KEPT {
            *line = String::new();
        }
        if scratch.capacity() > BUFFER_OCTETS_KEPT {
            *scratch = String::new();
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = System.now();
        BUFFERS.with(|buffers| match buffers.try_borrow_mut() {
            Ok(mut buffers) => self.write(&mut buffers, event, now),
            // A value that logs while it is being written.
            Err(_) => self.write(&mut Buffers::default(), event, now),
        });
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

impl Second {
    /// RFC 3339 with milliseconds; only these change within a second.
    fn put(&mut self, line: &mut String, now: Timestamp) {
        let (number, millis) = (now.millis().div_euclid(1000), now.millis().rem_euclid(1000));
        if self.number != number || self.text.is_empty() {
            self.text.clear();
            let _ = write!(self.text, "{now}");
            self.text.truncate(self.text.len().saturating_sub(".000Z".len()));
            self.number = number;
        }
        line.push_str(&self.text);
        let _ = write!(line, ".{millis:03}Z");
    }
}

/// Appends fields. In text a string given as such is in quotes always, a displayed one only where it must be.
struct Fields<'a> {
    form: Form,
    line: &'a mut String,
    scratch: &'a mut String,
}

impl Fields<'_> {
    fn key(&mut self, name: &str) {
        match self.form {
            Form::Text if name == "message" => self.line.push(' '),
            Form::Text => {
                self.line.push(' ');
                self.line.push_str(name);
                self.line.push('=');
            }
            Form::Json => {
                self.line.push_str(",\"");
                self.line.push_str(name);
                self.line.push_str("\":");
            }
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        quote(self.line, self.form, value);
    }

    fn bare(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.key(name);
        let _ = self.line.write_fmt(value);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        // What `log` records bring along beside their target.
        if matches!(name, "log.module_path" | "log.file" | "log.line") {
            return;
        }
        self.scratch.clear();
        let _ = write!(self.scratch, "{value:?}");
        self.key(name);
        let plain = self.form == Form::Text && !self.scratch.is_empty() && self.scratch.bytes().all(is_plain);
        if plain && self.scratch.len() <= VALUE_OCTETS_MAX {
            self.line.push_str(self.scratch);
        } else if self.form == Form::Text && name == "message" {
            escape(self.line, Form::Text, self.scratch, false);
        } else {
            quote(self.line, self.form, self.scratch);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field.name(), format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field.name(), format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field.name(), format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field.name(), format_args!("{value}"));
        }
    }
}

/// Needs no quotes in text.
fn is_plain(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'"' && b != b'\\' && b != b'='
}

fn quote(line: &mut String, form: Form, value: &str) {
    line.push('"');
    escape(line, form, value, true);
    line.push('"');
}

fn escape(line: &mut String, form: Form, value: &str, quoted: bool) {
    let start = line.len();
    for c in value.chars() {
        if line.len() - start > VALUE_OCTETS_MAX {
            line.push('…');
            return;
        }
        if quoted && matches!(c, '"' | '\\') {
            line.push('\\');
        }
        put(line, form, c);
    }
}

/// A text as a terminal or a log line may show it: what could move the cursor, start a line or turn the direction is
/// written as an escape.
pub fn shown(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        put(&mut line, Form::Text, c);
    }
    line
}

fn put(line: &mut String, form: Form, c: char) {
    match c {
        '\r' => line.push_str("\\r"),
        '\n' => line.push_str("\\n"),
        '\t' => line.push_str("\\t"),
        ' '..='~' => line.push(c),
        c if is_unsafe(c) => match form {
            Form::Text => {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(c));
            }
            // Past U+FFFF in two (RFC 8259 section 7).
            Form::Json => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(line, "\\u{unit:04x}");
            }),
        },
        c => line.push(c),
    }
}

/// JSON that means the same, without raw characters that a terminal would act on. In JSON these stand in strings alone.
pub fn shown_json(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            c if is_unsafe(c) => put(&mut line, Form::Json, c),
            c => line.push(c),
        }
    }
    line
}

/// What moves a terminal's cursor, starts a line, turns the direction of what follows, or is not seen at all: two
/// addresses that look the same would not be. Unicode's control and format characters, and its blanks without a width.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_means_the_same_without_what_a_terminal_acts_on() {
        let value = serde_json::json!({ "from": "a\u{9b}31m\u{202e}\u{2028}ü\n\u{1b}\u{200b}\u{e0041}🙂" });
        let shown = shown_json(&value.to_string());
        assert!(!shown.chars().any(is_unsafe), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn the_second_is_made_anew_when_it_changes() {
        let mut second = Second::default();
        for millis in [1_795_602_034_005, 1_795_602_034_999, 1_795_602_035_000, 0, -1] {
            let now = Timestamp::from_millis(millis);
            let mut line = String::new();
            second.put(&mut line, now);
            assert_eq!(line, now.to_string());
        }
    }

    #[test]
    fn a_long_value_is_cut() {
        let mut line = String::new();
        quote(&mut line, Form::Text, &"\u{1}".repeat(10_000));
        assert!(line.len() < VALUE_OCTETS_MAX + 20, "{}", line.len());
        assert!(line.ends_with("…\""));
    }

    proptest! {
        #[test]
        fn json_text_reads_back_and_no_text_breaks_a_line(value in "\\PC{0,40}|[\\x00-\\x7f\u{80}-\u{9f}\u{2028}\u{202e}\u{2066}\u{200b}\u{e0041}]{0,40}") {
            let (mut json, mut text) = (String::new(), String::new());
            quote(&mut json, Form::Json, &value);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value.clone());
            quote(&mut text, Form::Text, &value);
            prop_assert!(!text.chars().any(is_unsafe));
        }
    }
}
