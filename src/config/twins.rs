//! Environment twins: `POSTROAD__SERVER__HOSTNAME` is `[server] hostname`, `POSTROAD__LISTENER__0__ADDRESS` the first
//! `[[listener]]`'s address, `POSTROAD__ESP__SES_MAIN__RATE` the rate of `[[esp]]` `ses-main`. A twin stands in for the
//! key in the file; it is put into the tree before anything is read, so that one reader judges both.

use std::collections::BTreeSet;

use super::problem::{Place, Problem, did_you_mean, nearest_of_many};
use super::reader::{SECTIONS, Shape};
use super::written::{Table, Value, Written};

const PREFIX: &str = "POSTROAD__";

/// One variable, taken apart.
struct Twin<'a> {
    variable: &'a str,
    section: &'static str,
    shape: Shape,
    /// `0__ADDRESS`, `SES_MAIN__RATE`, `HOSTNAME`.
    rest: &'a str,
}

/// Puts the values of all twins into the tree. `value` gives a variable's text.
pub(super) fn merge<'a>(
    root: &mut Table,
    variables: impl Iterator<Item = &'a str>,
    value: impl Fn(&str) -> Result<String, String>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut twins = Vec::new();
    for variable in variables.filter(|name| is_twin(name)) {
        match take_apart(variable) {
            Ok(twin) => twins.push(twin),
            Err(what) => problems.push(problem(variable, what)),
        }
    }
    // By index as a number, so that table 2 is there before table 10 is added.
    twins.sort_by_key(|twin| index(twin.rest).map_or(0, |(index, _)| index));
    for twin in twins {
        let place = Place::Variable(twin.variable.into());
        let put = value(twin.variable).and_then(|text| {
            let (table, key) = find_table(root, &twin)?;
            table.set(&key.to_lowercase(), Written { place, value: Value::Word(text) });
            Ok(())
        });
        problems.extend(put.err().map(|what| problem(twin.variable, what)));
    }
    problems
}

/// Whether a variable of that name stands in for a key.
pub(super) fn is_twin(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn problem(variable: &str, what: String) -> Problem {
    Problem { place: Place::Variable(variable.into()), key: String::new(), what }
}

fn take_apart(variable: &str) -> Result<Twin<'_>, String> {
    let path = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let (section, rest) = path.split_once("__").unwrap_or((path, ""));
    let lower = section.to_lowercase();
    let Some((section, shape)) = SECTIONS.iter().find(|(name, _)| *name == lower) else {
        let near = did_you_mean(&lower, SECTIONS.iter().map(|(name, _)| *name));
        return Err(format!("there is no section {lower}{near}"));
    };
    if rest.is_empty() {
        return Err(format!("names no key of {section}"));
    }
    Ok(Twin { variable, section, shape: *shape, rest })
}

/// The twin that a variable was meant to be which is none: one underscore where there are two, other case, letters of
/// the first word swapped. `known` are the keys by section.
pub(super) fn meant(variable: &str, known: &BTreeSet<(&'static str, &'static str)>) -> Option<String> {
    let upper = variable.to_uppercase();
    let words: Vec<&str> = upper.split('_').filter(|word| !word.is_empty()).collect();
    let (first, rest) = words.split_first()?;
    let (section, rest) = rest.split_first()?;
    if is_twin(variable) || nearest_of_many(first, ["POSTROAD"]).is_none() {
        return None;
    }
    let (name, shape) = SECTIONS.iter().find(|(name, _)| name.to_uppercase() == *section)?;
    let key_from = |at: usize| {
        let key = rest.get(at..).unwrap_or_default().join("_");
        known.contains(&(*name, key.to_lowercase().as_str())).then_some(key)
    };
    let (table, key) = match shape {
        Shape::One => (String::new(), key_from(0)?),
        Shape::Many if *name == "esp" => {
            // The shortest name: what follows it is the longest key.
            let (at, key) = (1..rest.len()).find_map(|at| Some((at, key_from(at)?)))?;
            (format!("{}__", rest[..at].join("_")), key)
        }
        Shape::Many => (format!("{}__", rest.first()?.parse::<usize>().ok()?), key_from(1)?),
    };
    Some(format!("{PREFIX}{section}__{table}{key}"))
}

/// The table that a twin's key belongs to, and the key.
fn find_table<'r, 'a>(root: &'r mut Table, twin: &Twin<'a>) -> Result<(&'r mut Table, &'a str), String> {
    let place = Place::Variable(twin.variable.into());
    if root.get(twin.section).is_none() {
        let value = match twin.shape {
            Shape::One => Value::Table(Table::empty(place.clone())),
            Shape::Many => Value::List(Vec::new()),
        };
        root.set(twin.section, Written { place, value });
    }
    let there = root.get_mut(twin.section).map(|written| &mut written.value);
    match (there, twin.shape) {
        (Some(Value::Table(table)), Shape::One) => Ok((table, twin.rest)),
        (Some(Value::List(tables)), Shape::Many) => match twin.section {
            "esp" => by_name(tables, twin),
            _ => by_index(tables, twin),
        },
        _ => Err(format!("{} in the file is not of that shape", twin.section)),
    }
}

fn index(rest: &str) -> Option<(usize, &str)> {
    let (index, key) = rest.split_once("__")?;
    Some((index.parse().ok()?, key))
}

fn by_index<'r, 'a>(
    tables: &'r mut Vec<Written>,
    twin: &Twin<'a>,
) -> Result<(&'r mut Table, &'a str), String> {
    let (section, count) = (twin.section, tables.len());
    let Some((index, key)) = index(twin.rest) else {
        let such_as = format!("{PREFIX}{}__0__KEY", section.to_uppercase());
        return Err(format!("wants the number of a [[{section}]], from 0, and a key, such as {such_as}"));
    };
    if index == count {
        let place = Place::Variable(twin.variable.into());
        tables.push(Written { place: place.clone(), value: Value::Table(Table::empty(place)) });
    }
    match tables.get_mut(index).map(|written| &mut written.value) {
        Some(Value::Table(table)) => Ok((table, key)),
        Some(_) => Err(format!("{section} in the file is not of that shape")),
        None => Err(format!("there are {count} [[{section}]] tables; the next one's number is {count}")),
    }
}

fn by_name<'r, 'a>(tables: &'r mut [Written], twin: &Twin<'a>) -> Result<(&'r mut Table, &'a str), String> {
    let names: Vec<Option<String>> = tables.iter().map(twin_name).collect();
    // The longest that fits: `A--B` is `A__B` here and may stand beside `A`.
    let key_of = |name: &Option<String>| twin.rest.strip_prefix(name.as_deref()?)?.strip_prefix("__");
    let found =
        names.iter().enumerate().filter_map(|(n, name)| Some((name.as_ref()?.len(), n, key_of(name)?)));
    let found = found.max_by_key(|(length, ..)| *length);
    if let Some((_, n, key)) = found
        && let Some(Written { value: Value::Table(table), .. }) = tables.get_mut(n)
    {
        return Ok((table, key));
    }
    let as_typed = |name: &str| name.to_lowercase().replace('_', "-");
    let asked = as_typed(twin.rest.split("__").next().unwrap_or_default());
    let names: Vec<String> = names.iter().flatten().map(|name| as_typed(name)).collect();
    let near = did_you_mean(&asked, names.iter().map(String::as_str));
    Err(format!("no [[esp]] in the file has the name {asked}{near}"))
}

/// An ESP's name as twins spell it.
fn twin_name(written: &Written) -> Option<String> {
    let Value::Table(table) = &written.value else { return None };
    match &table.get("name")?.value {
        Value::Text(name) if !name.is_empty() => Some(name.to_uppercase().replace('-', "_")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_was_meant_to_be_a_twin_is_seen_and_others_are_not() {
        let known = BTreeSet::from([
            ("http", "address"),
            ("server", "data_dir"),
            ("listener", "max_errors"),
            ("esp", "max_connections"),
        ]);
        for (variable, twin) in [
            ("POSTROAD_HTTP_ADDRESS", Some("POSTROAD__HTTP__ADDRESS")),
            ("POSTROAD_SERVER__DATA_DIR", Some("POSTROAD__SERVER__DATA_DIR")),
            ("POSTRAOD__SERVER__DATA_DIR", Some("POSTROAD__SERVER__DATA_DIR")),
            ("postroad__server__data_dir", Some("POSTROAD__SERVER__DATA_DIR")),
            ("POSTROAD_LISTENER_0_MAX_ERRORS", Some("POSTROAD__LISTENER__0__MAX_ERRORS")),
            ("POSTROAD_ESP_SES_MAIN_MAX_CONNECTIONS", Some("POSTROAD__ESP__SES_MAIN__MAX_CONNECTIONS")),
            ("POSTROAD__HTTP__ADDRESS", None),
            ("POSTROAD_CONFIG", None),
            ("POSTROAD_HTTP_PORT_8025_TCP_ADDR", None),
            ("POSTROAD_LISTENER_MAX_ERRORS", None),
            ("POSTGRES_HTTP_ADDRESS", None),
            ("POSTROAD_ESP_MAX_CONNECTIONS", None),
            ("_", None),
        ] {
            assert_eq!(meant(variable, &known).as_deref(), twin, "{variable}");
        }
    }
}
