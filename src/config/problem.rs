//! What is wrong with a configuration, and where: all of it at once, never the value of a secret.

use std::fmt;
use std::sync::Arc;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File(Arc<str>),
    /// A line of a file, from 1.
    Line {
        /// The file's path, as it was named.
        file: Arc<str>,
        /// The line.
        line: usize,
    },
    /// An environment variable.
    Variable(Arc<str>),
    /// Nowhere: a default.
    BuiltIn,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(file) => f.write_str(file),
            Place::Line { file, line } => write!(f, "{file}:{line}"),
            Place::Variable(name) => write!(f, "${name}"),
            Place::BuiltIn => f.write_str("built-in defaults"),
        }
    }
}

/// One thing that is wrong, or worth a warning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it is written.
    pub place: Place,
    /// The key, such as `listener[0].address`; empty where no key is to blame.
    pub key: String,
    /// What is wrong and what to do.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.what),
            key => write!(f, "{}: {key}: {}", self.place, self.what),
        }
    }
}

impl Problem {
    /// The name that was probably meant.
    pub fn hint(&self) -> Option<&str> {
        self.what.rsplit_once(DID_YOU_MEAN)?.1.strip_suffix('?')
    }
}

/// Everything that is wrong with a configuration, in the file's order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    wrong: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    /// These problems, sorted; `None` where nothing is wrong.
    pub(super) fn of(mut wrong: Vec<Problem>, warnings: Vec<Problem>) -> Option<Self> {
        wrong.sort();
        wrong.dedup();
        (!wrong.is_empty()).then_some(Problems { wrong, warnings })
    }

    /// A file that cannot be used at all.
    pub(super) fn of_file(file: &str, what: impl Into<String>) -> Self {
        let place = Place::File(file.into());
        let wrong = vec![Problem { place, key: String::new(), what: what.into() }];
        Problems { wrong, warnings: Vec::new() }
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.wrong.iter()
    }

    /// What is lawful but odd beside them: it may be the cause.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

/// One a line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.wrong.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The candidate that was most likely meant, where one is near enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR_ENOUGH: f64 = 0.5;
    let word = folded(word);
    candidates
        .into_iter()
        .map(|c| (strsim::normalized_damerau_levenshtein(&word, &folded(c)), c))
        .filter(|(likeness, _)| *likeness >= NEAR_ENOUGH)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// The same among names that are not ours, of which most have nothing to do with it: only a slip or two.
pub(super) fn nearest_of_many<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    const SLIPS_MAX: usize = 2;
    let word = folded(word);
    let slips_max = SLIPS_MAX.min(word.chars().count() / 4);
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&word, &folded(c)), c))
        .filter(|(slips, _)| *slips <= slips_max)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, c)| c)
}

fn folded(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

const DID_YOU_MEAN: &str = "; did you mean ";

/// `; did you mean …?`, or nothing.
pub(super) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    ask(nearest(word, candidates))
}

/// [`did_you_mean`] for what was found otherwise.
pub(super) fn ask(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("{DID_YOU_MEAN}{near}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not_offered() {
        let keys = ["address", "tls", "max_message_size", "max_connections"];
        assert_eq!(nearest("adress", keys), Some("address"));
        assert_eq!(nearest("Max-Connection", keys), Some("max_connections"));
        assert_eq!(nearest("max_size", keys), Some("max_message_size"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest_of_many("SHOP_PASWORD", ["PATH", "SHOP_PASSWORD"]), Some("SHOP_PASSWORD"));
        assert_eq!(nearest_of_many("SHOP_PASSWORD", ["NEWS_PASSWORD"]), None);
        assert_eq!(nearest_of_many("X", ["Y"]), None);
    }

    #[test]
    fn a_hint_can_be_had_apart() {
        let problem = |what: String| Problem { place: Place::BuiltIn, key: "server".into(), what };
        let told = problem(format!("unknown key{}", did_you_mean("adress", ["address"])));
        assert_eq!(told.to_string(), "built-in defaults: server: unknown key; did you mean address?");
        assert_eq!(told.hint(), Some("address"));
        assert_eq!(problem(format!("unknown key{}", did_you_mean("colour", ["address"]))).hint(), None);
    }
}
