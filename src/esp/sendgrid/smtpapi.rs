//! The field `X-SMTPAPI`, by which SendGrid's SMTP endpoint is told what its API takes as fields: one JSON object, in
//! ASCII, folded between its members.

use serde_json::{Map, Value};

use super::labels::{Control, FIELD, Labels};
use super::{Parcel, Unfit};
use crate::mail::headers::LINE_OCTETS_MAX;

/// RFC 5322 section 2.1.1: what a line should not exceed.
const LINE_OCTETS: usize = 76;

/// The whole field, with its line end. What the app's own says stays in it: SendGrid reads one field alone.
pub(super) fn field(parcel: Parcel<'_>, control: Option<&Control>) -> Result<String, Unfit> {
    let labels = Labels::of(parcel, control)?;
    let mut said = control.map(|control| control.said.clone()).unwrap_or_default();
    let mut arguments: Map<String, Value> = control
        .into_iter()
        .flat_map(Control::arguments)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, value) in labels.arguments {
        arguments.insert(name.into_owned(), Value::String(value.into_owned()));
    }
    said.insert("unique_args".to_owned(), Value::Object(arguments));
    if !labels.categories.is_empty() {
        said.insert("category".to_owned(), labels.categories.into());
    }
    let mut pieces = Pieces::default();
    pieces.value(&Value::Object(said));
    pieces.folded()
}

/// The JSON cut at the blanks between its tokens: there a line may end.
#[derive(Default)]
struct Pieces {
    done: Vec<String>,
    open: String,
}

impl Pieces {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                self.open.push('{');
                for (n, (name, value)) in members.iter().enumerate() {
                    self.next(n);
                    self.text(name);
                    self.open.push(':');
                    self.cut();
                    self.value(value);
                }
                self.open.push('}');
            }
            Value::Array(items) => {
                self.open.push('[');
                for (n, value) in items.iter().enumerate() {
                    self.next(n);
                    self.value(value);
                }
                self.open.push(']');
            }
            Value::String(text) => self.text(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => self.open.push_str(&value.to_string()),
        }
    }

    fn next(&mut self, n: usize) {
        if n > 0 {
            self.open.push(',');
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.done.push(std::mem::take(&mut self.open));
    }

    /// Everything beyond printable ASCII as `\uXXXX`, in pairs where UTF-16 has them.
    fn text(&mut self, text: &str) {
        self.open.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => self.open.extend(['\\', c]),
                ' '..='~' => self.open.push(c),
                _ => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        self.open.push_str(&format!("\\u{unit:04x}"));
                    }
                }
            }
        }
        self.open.push('"');
    }

    fn folded(mut self) -> Result<String, Unfit> {
        self.cut();
        let mut out = format!("{FIELD}:");
        let mut line = out.len();
        for piece in &self.done {
            if piece.len() >= LINE_OCTETS_MAX {
                return Err(Unfit(format!("the app's {FIELD} has a value that no line takes")));
            }
            if line + 1 + piece.len() > LINE_OCTETS {
                out.push_str("\r\n");
                line = 0;
            }
            out.push(' ');
            out.push_str(piece);
            line += 1 + piece.len();
        }
        out.push_str("\r\n");
        Ok(out)
    }
}
