//! The configuration as written: TOML values that remember where they stand.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::problem::{Place, Problem};

/// Syntax errors shown; after the first few they are echoes of each other.
const SYNTAX_PROBLEMS_MAX: usize = 10;

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value as typed.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Written>),
    Table(Table),
    /// From an environment variable: it becomes what its key wants.
    Word(String),
    /// A kind that no key takes: a float, a date, an integer over 64 bits.
    Other(&'static str),
}

/// A table and its place.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) place: Place,
    pub(super) entries: Vec<(String, Written)>,
}

impl Table {
    pub(super) fn empty(place: Place) -> Self {
        Table { place, entries: Vec::new() }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Written> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, written)| written)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Written> {
        self.entries.iter_mut().find(|(k, _)| k == key).map(|(_, written)| written)
    }

    /// Adds a key, or puts another value in its place.
    pub(super) fn set(&mut self, key: &str, written: Written) {
        match self.get_mut(key) {
            Some(there) => *there = written,
            None => self.entries.push((key.to_string(), written)),
        }
    }
}

impl Value {
    /// What it is, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) | Value::Word(_) => "a string",
            Value::Integer(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }

    /// Whether this says the same as a TOML value.
    pub(super) fn says(&self, toml: &str) -> bool {
        let Ok(other) = DeValue::parse(toml) else { return false };
        let nowhere = Lines { file: "".into(), starts: Vec::new() };
        let other = nowhere.written(other);
        match (self, &other.value) {
            (Value::Word(word), Value::Text(text)) => word == text,
            (Value::Word(word), _) => word == toml || (word.is_empty() && matches!(toml, "[]" | "{}")),
            _ => self.equals(&other.value),
        }
    }

    fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Integer(a), Value::Integer(b)) => a == b,
            (Value::Boolean(a), Value::Boolean(b)) => a == b,
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.value.equals(&b.value))
            }
            (Value::Table(a), Value::Table(b)) => a.entries.is_empty() && b.entries.is_empty(),
            _ => false,
        }
    }
}

/// Reads a TOML document; what is wrong with its syntax is told all at once.
pub(super) fn parse(file: &str, octets: &[u8]) -> Result<Table, Vec<Problem>> {
    let problem = |place, what| vec![Problem { place, key: String::new(), what }];
    let text = std::str::from_utf8(octets).map_err(|error| {
        let lines = Lines::of(file, &octets[..error.valid_up_to()]);
        problem(lines.at(error.valid_up_to()), "this line is not UTF-8".into())
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::of(file, text.as_bytes());
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let place = Place::File(lines.file.clone());
        return Ok(Table { place, ..lines.table(root) });
    }
    // The message alone: the error's own text would quote the line, and with it a secret.
    let mut problems: Vec<Problem> = Vec::new();
    for error in errors {
        let place = lines.at(error.span().map_or(text.len(), |span| span.start));
        if problems.len() < SYNTAX_PROBLEMS_MAX && problems.last().is_none_or(|last| last.place != place) {
            problems.extend(problem(place, format!("not TOML: {}", error.message())));
        }
    }
    Err(problems)
}

/// Turns byte offsets into lines.
struct Lines {
    file: Arc<str>,
    /// The offset at which each line after the first starts.
    starts: Vec<usize>,
}

impl Lines {
    fn of(file: &str, text: &[u8]) -> Self {
        Lines { file: file.into(), starts: memchr::memchr_iter(b'\n', text).map(|at| at + 1).collect() }
    }

    fn at(&self, offset: usize) -> Place {
        let line = 1 + self.starts.partition_point(|start| *start <= offset);
        Place::Line { file: self.file.clone(), line }
    }

    fn written(&self, value: Spanned<DeValue<'_>>) -> Written {
        let span = value.span();
        let place = self.at(span.start);
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("a number over 64 bits"), Value::Integer),
            DeValue::Boolean(yes) => Value::Boolean(yes),
            DeValue::Array(list) => Value::List(self.list(list)),
            DeValue::Table(table) => Value::Table(self.table(Spanned::new(span, table))),
            DeValue::Float(_) => Value::Other("a number with a fraction"),
            DeValue::Datetime(_) => Value::Other("a date"),
        };
        Written { place, value }
    }

    fn list(&self, list: DeArray<'_>) -> Vec<Written> {
        list.into_iter().map(|value| self.written(value)).collect()
    }

    fn table(&self, table: Spanned<DeTable<'_>>) -> Table {
        let place = self.at(table.span().start);
        let entry = |(key, value): (Spanned<_>, _)| {
            let mut written = self.written(value);
            // A key's line is where the reader looks, also where its value begins a line later.
            if !matches!(written.value, Value::List(_) | Value::Table(_)) {
                written.place = self.at(key.span().start);
            }
            (std::borrow::Cow::into_owned(key.into_inner()), written)
        };
        Table { place, entries: table.into_inner().into_iter().map(entry).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(place: &Place) -> usize {
        match place {
            Place::Line { line, .. } => *line,
            other => panic!("{other:?} is no line"),
        }
    }

    #[test]
    fn every_value_knows_its_line() {
        let table =
            parse("f", b"\xef\xbb\xbfa = 1\n\n[s]\nb = \"x\"\n[[l]]\n[[l]]\nc = [\n  1_000,\n 0x10]\n")
                .unwrap();
        assert_eq!(line(&table.get("a").unwrap().place), 1);
        let Some(Written { value: Value::Table(s), .. }) = table.get("s") else { panic!() };
        assert_eq!((line(&s.place), line(&s.get("b").unwrap().place)), (3, 4));
        let Some(Written { value: Value::List(l), .. }) = table.get("l") else { panic!() };
        assert_eq!(l.iter().map(|t| line(&t.place)).collect::<Vec<_>>(), [5, 6]);
        let Value::Table(second) = &l[1].value else { panic!() };
        let Some(Written { value: Value::List(c), .. }) = second.get("c") else { panic!() };
        assert!(matches!(c[0].value, Value::Integer(1000)) && matches!(c[1].value, Value::Integer(16)));
        assert_eq!(line(&c[1].place), 9);
    }

    #[test]
    fn syntax_errors_name_lines_and_quote_nothing() {
        let problems = parse("f", b"a = 1\npassword = hunter2\n[x\nb = 'hunter2'\n").unwrap_err();
        let lines: Vec<usize> = problems.iter().map(|p| line(&p.place)).collect();
        assert!(lines.contains(&2) && lines.contains(&3), "{problems:?}");
        assert!(!format!("{problems:?}").contains("hunter2"));
        assert_eq!(line(&parse("f", b"a = 1\nb = '\xff'").unwrap_err()[0].place), 2);
        assert_eq!(line(&parse("f", b"a = 1\na = 2").unwrap_err()[0].place), 2);
    }

    #[test]
    fn nesting_without_end_is_an_error_and_no_crash() {
        assert!(parse("f", format!("a = {}", "[".repeat(100_000)).as_bytes()).is_err());
        assert!(parse("f", format!("a = {}", "{a=".repeat(100_000)).as_bytes()).is_err());
        assert!(parse("f", format!("{} = 1", vec!["a"; 20_000].join(".")).as_bytes()).is_err());
    }
}
