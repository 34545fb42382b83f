//! Reads tables key by key: each key is named once, with its kind and its default, and whatever is wrong is noted
//! while the reading goes on. What nobody asked for is unknown, or not available yet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::environment::{Resolved, Sources};
use super::problem::{Place, Problem, ask, did_you_mean};
use super::written::{Table, Value, Written};
use super::{later, twins};

/// How a section is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `[section]`
    One,
    /// `[[section]]`
    Many,
}

/// Every section.
pub(super) const SECTIONS: &[(&str, Shape)] = &[
    ("server", Shape::One),
    ("listener", Shape::Many),
    ("credential", Shape::Many),
    ("stream", Shape::Many),
    ("esp", Shape::Many),
    ("http", Shape::One),
    ("limits", Shape::One),
    ("retention", Shape::One),
    ("suppression", Shape::One),
    ("dns", Shape::One),
    ("domain", Shape::Many),
    ("notify", Shape::Many),
];

/// Reads one configuration and gathers what is wrong with it.
pub(super) struct Reader<'a> {
    root: &'a Table,
    sources: &'a Sources<'a>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    /// Section and name of every key that was asked for.
    pub(super) known: BTreeSet<(&'static str, &'static str)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(root: &'a Table, sources: &'a Sources<'a>) -> Self {
        Reader { root, sources, problems: Vec::new(), warnings: Vec::new(), known: BTreeSet::new() }
    }

    /// Notes sections that do not exist or do not have their shape.
    pub(super) fn check_sections(&mut self) {
        for (name, written) in &self.root.entries {
            let shape = SECTIONS.iter().find(|(section, _)| section == name).map(|(_, shape)| *shape);
            let what = match (shape, &written.value) {
                (None, _) => {
                    let near = did_you_mean(name, SECTIONS.iter().map(|(section, _)| *section));
                    format!("there is no such section{near}")
                }
                (Some(Shape::One), Value::Table(_)) => continue,
                (Some(Shape::One), _) => format!("there is one of it: write [{name}]"),
                (Some(Shape::Many), Value::List(tables)) => match tables.iter().find(|t| !is_table(t)) {
                    None => continue,
                    Some(_) => format!("is a list of tables: write [[{name}]]"),
                },
                (Some(Shape::Many), _) => format!("there may be several of it: write [[{name}]]"),
            };
            self.problems.push(Problem { place: written.place.clone(), key: name.clone(), what });
        }
    }

    /// Notes variables that are no twins and look as if they were meant to be. For the end: what was asked for by
    /// `env:` has its name on purpose, and a key that nothing has read is none.
    pub(super) fn note_near_twins(&mut self) {
        for name in self.sources.names().into_iter().filter(|name| !self.sources.asked_for(name)) {
            if let Some(meant) = twins::meant(name, &self.known) {
                let what = format!("has no effect{}", ask(Some(&meant)));
                let place = Place::Variable(name.into());
                self.warnings.push(Problem { place, key: String::new(), what });
            }
        }
    }

    /// `[section]`, empty where it is not written.
    pub(super) fn one(&mut self, section: &'static str) -> TableReader<'_, 'a> {
        let root = self.root;
        let table = root.get(section).and_then(|written| match &written.value {
            Value::Table(table) => Some(table),
            _ => None,
        });
        self.open(section, section.to_string(), table)
    }

    /// Each `[[section]]` that is written.
    pub(super) fn tables(&self, section: &str) -> Vec<&'a Table> {
        let root = self.root;
        match root.get(section).map(|written| &written.value) {
            Some(Value::List(list)) => list.iter().filter_map(as_table).collect(),
            _ => Vec::new(),
        }
    }

    /// The nth `[[section]]`; `None` reads the defaults.
    pub(super) fn nth(
        &mut self,
        section: &'static str,
        n: usize,
        table: Option<&'a Table>,
    ) -> TableReader<'_, 'a> {
        self.open(section, format!("{section}[{n}]"), table)
    }

    fn open(
        &mut self,
        section: &'static str,
        label: String,
        table: Option<&'a Table>,
    ) -> TableReader<'_, 'a> {
        TableReader { section, label, table, names: Vec::new(), reader: self }
    }
}

fn as_table(written: &Written) -> Option<&Table> {
    match &written.value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

fn is_table(written: &Written) -> bool {
    as_table(written).is_some()
}

/// Reads one table.
pub(super) struct TableReader<'r, 'a> {
    section: &'static str,
    label: String,
    table: Option<&'a Table>,
    /// The keys asked for so far.
    names: Vec<&'static str>,
    reader: &'r mut Reader<'a>,
}

impl TableReader<'_, '_> {
    /// A key's value, its default where it is not written; where it is wrong, that is noted.
    pub(super) fn read<T>(&mut self, name: &'static str, kind: impl Kind<T>, default: T) -> T {
        self.written(name, kind).unwrap_or(default)
    }

    /// A key whose default, the empty string, means none.
    pub(super) fn optional<T>(&mut self, name: &'static str, kind: impl Kind<T>) -> Option<T> {
        self.note(name);
        if self.is_set(name) { self.written(name, kind) } else { None }
    }

    /// A key without which the table says nothing.
    pub(super) fn required<T>(&mut self, name: &'static str, kind: impl Kind<T>, such_as: &str) -> Option<T> {
        if !self.is_written(name) {
            self.note(name);
            self.problem(name, format!("is missing; write {name} = {such_as}"));
            return None;
        }
        self.written(name, kind)
    }

    /// Each entry of a key that holds a table, in its order; what is wrong is noted at its own line. From an environment
    /// variable: `a = b` parted by commas.
    pub(super) fn entries<T>(
        &mut self,
        name: &'static str,
        such_as: &str,
        mut kind: impl FnMut(&str, &Item<'_>) -> Result<T, String>,
    ) -> Vec<T> {
        self.note(name);
        let sources = self.reader.sources;
        let Some(written) = self.table.and_then(|table| table.get(name)) else { return Vec::new() };
        let entries = match pairs(&Item { written, sources }) {
            Ok(entries) => entries,
            Err(what) => {
                self.problem(name, format!("{what}, such as {name} = {such_as}"));
                return Vec::new();
            }
        };
        let mut read = Vec::new();
        for (key, written) in &entries {
            match kind(key, &Item { written, sources }) {
                Ok(entry) => read.push(entry),
                Err(what) => {
                    let key = format!("{}.{name}.{key:?}", self.label);
                    self.reader.problems.push(Problem { place: written.place.clone(), key, what });
                }
            }
        }
        read
    }

    /// Whether the key stands there at all.
    pub(super) fn is_written(&self, name: &str) -> bool {
        self.table.is_some_and(|table| table.get(name).is_some())
    }

    /// Whether the key stands there with more than the empty string.
    pub(super) fn is_set(&self, name: &str) -> bool {
        let empty = |w: &Written| matches!(&w.value, Value::Text(t) | Value::Word(t) if t.is_empty());
        self.table.and_then(|table| table.get(name)).is_some_and(|written| !empty(written))
    }

    /// Whether something was found wrong with a key so far.
    pub(super) fn is_wrong(&self, name: &str) -> bool {
        let key = format!("{}.{name}", self.label);
        self.reader.problems.iter().any(|problem| problem.key == key)
    }

    /// Takes these keys as known, unread.
    pub(super) fn pass_over(&mut self, names: &[&'static str]) {
        self.names.extend(names);
    }

    /// What stands at a key, as an error may name it: the value of a variable may be a secret in the wrong place.
    pub(super) fn typed(&self, name: &str) -> String {
        match self.table.and_then(|table| table.get(name)) {
            Some(Written { value: Value::Text(typed), .. }) => typed.clone(),
            Some(Written { place, .. }) => format!("the value of {place}"),
            None => String::new(),
        }
    }

    /// A path of this configuration as the process would open it.
    pub(super) fn in_working_dir(&self, path: &Path) -> PathBuf {
        self.reader.sources.environment.working_dir.join(path)
    }

    /// Notes what is wrong with a key.
    pub(super) fn problem(&mut self, name: &str, what: impl Into<String>) {
        let problem = self.at(name, what.into());
        self.reader.problems.push(problem);
    }

    /// Notes what is odd about a key.
    pub(super) fn warning(&mut self, name: &str, what: impl Into<String>) {
        let warning = self.at(name, what.into());
        self.reader.warnings.push(warning);
    }

    /// Ends the reading: what was not asked for is unknown, or not available yet. `strangers` are keys that belong
    /// here in another case, and that case.
    pub(super) fn finish(self, strangers: &[(&str, &str)]) {
        let Some(table) = self.table else { return };
        for (key, written) in &table.entries {
            if self.names.contains(&key.as_str()) {
                continue;
            }
            let what = if let Some(default) = later::default_of(self.section, key) {
                if written.value.says(default) {
                    continue;
                }
                format!("is not available in this version; leave it out (its default is {default})")
            } else if let Some((_, case)) = strangers.iter().find(|(name, _)| name == key) {
                format!("is a key for {case} only")
            } else {
                let all = self.names.iter().copied().chain(later::keys_of(self.section));
                format!("unknown key{}", did_you_mean(key, all))
            };
            let key = format!("{}.{key}", self.label);
            self.reader.problems.push(Problem { place: written.place.clone(), key, what });
        }
    }

    fn written<T>(&mut self, name: &'static str, kind: impl Kind<T>) -> Option<T> {
        self.note(name);
        let written = self.table?.get(name)?;
        let read = kind.read(&Item { written, sources: self.reader.sources });
        read.map_err(|what| self.problem(name, what)).ok()
    }

    fn note(&mut self, name: &'static str) {
        self.names.push(name);
        self.reader.known.insert((self.section, name));
    }

    fn at(&self, name: &str, what: String) -> Problem {
        let written = self.table.and_then(|table| table.get(name));
        let place = written.map(|written| &written.place).or(self.table.map(|table| &table.place));
        let key = if name.is_empty() { self.label.clone() } else { format!("{}.{name}", self.label) };
        Problem { place: place.cloned().unwrap_or(Place::BuiltIn), key, what }
    }
}

/// The entries of a table, or of a variable that stands for one.
fn pairs(item: &Item<'_>) -> Result<Vec<(String, Written)>, String> {
    match item.value() {
        Value::Table(table) => Ok(table.entries.clone()),
        Value::Word(words) => {
            let words = item.resolve(words)?;
            let parts = words.split(',').map(str::trim).filter(|part| !part.is_empty());
            let pair = |part: &str| {
                let (key, value) =
                    part.split_once('=').ok_or("must be pairs parted by commas, each a = b")?;
                Ok((key.trim().to_owned(), item.word(value.trim())))
            };
            parts.map(pair).collect()
        }
        other => Err(format!("must be a table, not {}", other.kind())),
    }
}

/// A written value on its way to what it means.
pub(super) struct Item<'a> {
    written: &'a Written,
    sources: &'a Sources<'a>,
}

impl<'a> Item<'a> {
    pub(super) fn value(&self) -> &'a Value {
        &self.written.value
    }

    /// The string that it is or stands for; `Err` where it is none.
    pub(super) fn text(&self) -> Result<Resolved, String> {
        match &self.written.value {
            Value::Text(typed) => self.sources.resolve(typed),
            Value::Word(typed) => {
                let resolved = self.sources.resolve(typed)?;
                let from = resolved.from.or_else(|| Some(self.written.place.to_string()));
                Ok(Resolved { from, ..resolved })
            }
            other => Err(format!("must be a string in quotes, not {}", other.kind())),
        }
    }

    /// Another value, found inside this one.
    pub(super) fn with<'b>(&'b self, written: &'b Written) -> Item<'b> {
        Item { written, sources: self.sources }
    }

    /// A word of this value as a value of its own.
    pub(super) fn word(&self, word: &str) -> Written {
        Written { place: self.written.place.clone(), value: Value::Word(word.to_string()) }
    }

    /// What a string stands for.
    pub(super) fn resolve(&self, typed: &str) -> Result<String, String> {
        Ok(self.sources.resolve(typed)?.text)
    }
}

/// What a key's value must be, and how it is read.
pub(super) trait Kind<T> {
    /// The meaning, or what is wrong: never with a secret in it.
    fn read(&self, item: &Item<'_>) -> Result<T, String>;
}

impl<T, F: Fn(&Item<'_>) -> Result<T, String>> Kind<T> for F {
    fn read(&self, item: &Item<'_>) -> Result<T, String> {
        self(item)
    }
}
