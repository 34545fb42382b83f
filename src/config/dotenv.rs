//! `.env` beside the configuration: one `NAME=value` a line.
//!
//! Passwords that machines make hold `#`, `$`, `%` and quotes, so little is special here. Without quotes a value is
//! taken as it stands: `#` is a comment only after a blank, nothing is expanded or decoded, outer blanks go. In
//! single quotes everything is literal; in double quotes `\\`, `\"` and `\n` are escapes.

use std::collections::BTreeMap;

/// The variables of a `.env`, and the lines that were passed over.
#[derive(Default)]
pub(super) struct Dotenv {
    entries: BTreeMap<String, Entry>,
    /// The words that lines without `=` begin with, and their lines. Such a word may be part of a secret.
    words: BTreeMap<String, usize>,
    /// Line and what is odd about it; nothing of the line's text.
    pub(super) oddities: Vec<(usize, String)>,
    /// Why none of it was read.
    pub(super) unread: Option<String>,
}

struct Entry {
    line: usize,
    value: Result<String, &'static str>,
}

impl Dotenv {
    /// One that is there and cannot be read.
    pub(super) fn unreadable(why: String) -> Self {
        Dotenv { unread: Some(why), ..Dotenv::default() }
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut dotenv = Dotenv::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (n, line) in text.split('\n').enumerate() {
            dotenv.take_line(n + 1, line.strip_suffix('\r').unwrap_or(line));
        }
        dotenv
    }

    /// The value of a variable; `Err` names the line whose value cannot be read, and why.
    pub(super) fn get(&self, name: &str) -> Option<Result<&str, (usize, &'static str)>> {
        let entry = self.entries.get(name)?;
        Some(entry.value.as_deref().map_err(|why| (entry.line, *why)))
    }

    /// The variables whose values cannot be read, with their lines and why.
    pub(super) fn faults(&self) -> impl Iterator<Item = (&str, usize, &'static str)> {
        let fault = |(name, entry): (_, &Entry)| Some((name, entry.line, *entry.value.as_ref().err()?));
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry)).filter_map(fault)
    }

    /// The line that begins with this name and gives it no value.
    pub(super) fn without_value(&self, name: &str) -> Option<usize> {
        self.words.get(name).copied()
    }

    /// The names of all variables.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    fn take_line(&mut self, line: usize, text: &str) {
        let text = text.trim_start_matches([' ', '\t']);
        if text.trim_end().is_empty() || text.starts_with('#') {
            return;
        }
        let text = text.strip_prefix("export ").map_or(text, |rest| rest.trim_start_matches([' ', '\t']));
        let parts = text.split_once('=').map(|(name, value)| (name.trim_end_matches([' ', '\t']), value));
        let Some((name, value)) = parts.filter(|(name, _)| is_name(name)) else {
            let word = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            self.words.extend(word.map(|word| (word.to_string(), line)));
            return self.oddities.push((line, PASSED_OVER.into()));
        };
        let value = read_value(value);
        if let Ok(Value { doubtful_comment: true, .. }) = value {
            let what = format!(
                "what follows the blank and # was read as a comment; is it part of {name}? Then put the value in single quotes"
            );
            self.oddities.push((line, what));
        }
        self.entries.insert(name.to_string(), Entry { line, value: value.map(|v| v.text) });
    }
}

const PASSED_OVER: &str = "is no NAME=value and was passed over; a comment begins with #";

/// Letters, digits and underscores, no digit first.
fn is_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(word)
}

struct Value {
    text: String,
    /// A comment that may have been meant as part of the value: ` #x`, where people write ` # x`.
    doubtful_comment: bool,
}

fn read_value(raw: &str) -> Result<Value, &'static str> {
    let value = raw.trim_start_matches([' ', '\t']);
    let plain = |text: String| Value { text, doubtful_comment: false };
    if let Some(quoted) = value.strip_prefix('\'') {
        let (text, rest) = quoted.split_once('\'').ok_or(UNCLOSED)?;
        return nothing_after(rest).map(|()| plain(text.to_string()));
    }
    if let Some(quoted) = value.strip_prefix('"') {
        let (text, rest) = unescape(quoted)?;
        return nothing_after(rest).map(|()| plain(text));
    }
    // `raw`, so that in `NAME= # comment` the blank before the # is seen.
    let comment = raw.match_indices('#').find(|(at, _)| raw[..*at].ends_with([' ', '\t']));
    let end = comment.map_or(raw.len(), |(at, _)| at);
    let said = &raw[(end + 1).min(raw.len())..];
    let doubtful_comment = !said.is_empty() && !said.starts_with([' ', '\t', '#']);
    Ok(Value { text: raw[..end].trim_matches([' ', '\t']).to_string(), doubtful_comment })
}

const UNCLOSED: &str = "begins with a quote that is not closed; put the value in single quotes (or double quotes, with \\\" for a quote)";

/// Only blanks or a comment may follow a closing quote: whatever else was meant, half a password is worse than none.
fn nothing_after(rest: &str) -> Result<(), &'static str> {
    let after = rest.trim_start_matches([' ', '\t']);
    if after.is_empty() || (after.starts_with('#') && after.len() < rest.len()) {
        return Ok(());
    }
    Err("goes on after the closing quote; use the other kind of quotes around it")
}

/// The text up to the closing double quote, and what follows that.
fn unescape(quoted: &str) -> Result<(String, &str), &'static str> {
    let mut text = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((text, &quoted[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => text.push(escaped),
                Some((_, other)) => text.extend(['\\', other]),
                None => return Err(UNCLOSED),
            },
            _ => text.push(c),
        }
    }
    Err(UNCLOSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(line: &str) -> String {
        let dotenv = Dotenv::parse(line);
        dotenv.get("X").unwrap_or_else(|| panic!("{line}: no X")).unwrap().to_string()
    }

    #[test]
    fn passwords_that_machines_make_arrive_byte_for_byte() {
        for password in
            ["7tR.#Vw%2BQ;}m9$Xc_PO/+", "$HOME%41", "a#b#c", "#start", "sl\\ash\\n", "a'b\"c", "ü#€", "a=b=="]
        {
            assert_eq!(value(&format!("X={password}")), password);
            if !password.starts_with('#') {
                assert_eq!(value(&format!("X = \t{password} \t\r\n")), password);
            }
        }
        for password in [">8Qx~:Z j$m#q\"R", " # ", "", "\\n\\\\", "$(x)"] {
            assert_eq!(value(&format!("X='{password}'")), password);
        }
        assert_eq!(value(r#"X="a\\b\"c\nd\te # $f""#), "a\\b\"c\nd\\te # $f");
    }

    #[test]
    fn comments_exports_and_other_lines_are_told_apart() {
        assert_eq!(value("X=abc # the shop's"), "abc");
        assert_eq!(value("X= # nothing yet"), "");
        assert_eq!(value("X='a' # b"), "a");
        assert_eq!(value("\u{feff}# first\n\n  # more\nexport X=1\nY=2"), "1");
        assert_eq!(value("X=1\nX=2"), "2");
        let odd = Dotenv::parse("no assignment\n1X=2\nX=a #b\nY=a # b");
        assert_eq!(odd.oddities.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn half_a_quoted_value_is_never_taken() {
        for bad in ["X='abc", "X=\"abc", "X=\"abc\\", "X='a'b'", "X=\"a\"b", "X='a'#b"] {
            let line = format!("\n{bad}");
            assert!(matches!(Dotenv::parse(&line).get("X"), Some(Err((2, _)))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,60}|(X *=[ #'\"\\\\a\\n\\t]{0,12}){0,3}") {
            let _ = Dotenv::parse(&text);
        }

        #[test]
        fn a_word_needs_no_quotes(word in "[!-&(-~][!-~]{0,40}") {
            prop_assume!(!word.starts_with('"'));
            prop_assert_eq!(value(&format!("X={word}")), word);
        }

        #[test]
        fn double_quotes_carry_everything(text in "[ -~\\n]{0,40}") {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            prop_assert_eq!(value(&format!("X=\"{escaped}\"")), text);
        }
    }
}
