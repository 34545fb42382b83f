//! A word and its parameters: the values of Content-Type and Content-Disposition (RFC 2045 section 5.1, RFC 2231).
//!
//! Strict where readers differ: a comment within a value, a parameter twice, a blank in an unquoted value.

use std::borrow::Cow;

use super::{decode, words};

/// Such a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Typed {
    /// In lower case: `text/html`, `attachment`.
    pub word: String,
    /// As they stand there, names in lower case, quotes and RFC 2231 undone.
    params: Vec<(String, String)>,
}

impl Typed {
    /// One without parameters.
    pub fn plain(word: &str) -> Typed {
        Typed { word: word.to_owned(), params: Vec::new() }
    }

    /// Reads an unfolded value. `None`: it breaks the grammar.
    pub fn read(text: &str) -> Option<Typed> {
        let mut at = Cursor { rest: text };
        let mut word = at.token()?.to_ascii_lowercase();
        if at.eat('/') {
            word = format!("{word}/{}", at.token()?.to_ascii_lowercase());
        }
        let mut written = Vec::new();
        loop {
            at.skip_blanks()?;
            if at.rest.is_empty() {
                break;
            }
            if !at.eat(';') {
                return None;
            }
            at.skip_blanks()?;
            if !at.rest.is_empty() && !at.rest.starts_with(';') {
                written.push(at.param()?);
            }
        }
        Some(Typed { word, params: assembled(written)? })
    }

    /// The value of a parameter; `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter has that value; case does not matter.
    pub fn says(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|v| v.eq_ignore_ascii_case(value))
    }

    /// Puts a parameter in the place of the one of that name, or last.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.params.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.params.push((name.to_owned(), value.to_owned())),
        }
    }

    /// As it is written in a field, without the parameters in `but`. `None`: a value has more than ASCII.
    pub fn written_without(&self, but: &[&str]) -> Option<String> {
        let mut out = self.word.clone();
        for (name, value) in self.params.iter().filter(|(name, _)| !but.contains(&name.as_str())) {
            if !value.bytes().all(|b| matches!(b, b' '..=b'~')) {
                return None;
            }
            if !value.is_empty() && value.bytes().all(|b| is_token(char::from(b))) {
                out.push_str(&format!("; {name}={value}"));
            } else {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                out.push_str(&format!("; {name}=\"{value}\""));
            }
        }
        Some(out)
    }

    /// A file's name: encoded words are decoded too, as all readers do.
    pub fn file_name(&self, name: &str) -> Result<Option<String>, BadName> {
        let Some(value) = self.get(name).map(str::trim).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let name =
            words::decoded(Cow::Borrowed(value)).filter(|name| words::is_clean(name)).ok_or(BadName)?;
        Ok(Some(name.into_owned()).filter(|name| !name.is_empty()))
    }
}

/// A file's name that cannot be read.
#[derive(Debug)]
pub(super) struct BadName;

/// What is left to read.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn eat(&mut self, c: char) -> bool {
        let after = self.rest.strip_prefix(c);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn take(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn token(&mut self) -> Option<&'a str> {
        Some(self.take(is_token)).filter(|token| !token.is_empty())
    }

    /// Blanks and comments; `None`: a comment does not end.
    fn skip_blanks(&mut self) -> Option<()> {
        loop {
            self.take(|c| c == ' ' || c == '\t');
            if !self.rest.starts_with('(') {
                return Some(());
            }
            let (mut depth, mut escaped, mut end) = (0_usize, false, None);
            for (at, c) in self.rest.char_indices() {
                match c {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    end = Some(at + 1);
                    break;
                }
            }
            self.rest = &self.rest[end?..];
        }
    }

    fn param(&mut self) -> Option<(String, String)> {
        let name = self.token()?.to_ascii_lowercase();
        self.skip_blanks()?;
        if !self.eat('=') {
            return None;
        }
        self.skip_blanks()?;
        let value = if self.eat('"') {
            self.quoted()?
        } else {
            // More than a token may have: `boundary=a=b` and `type=text/html` are common, and all readers agree.
            let fits = |c: char| !c.is_whitespace() && !matches!(c, ';' | '"' | '(' | ')' | ',' | '\\');
            Some(self.take(fits)).filter(|value| !value.is_empty())?.to_owned()
        };
        Some((name, value))
    }

    /// After the quote that opens.
    fn quoted(&mut self) -> Option<String> {
        let (mut out, mut escaped) = (String::new(), false);
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => {
                    escaped = true;
                    continue;
                }
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(out);
                }
                _ => {}
            }
            out.push(c);
        }
        None
    }
}

/// RFC 2045 section 5.1.
fn is_token(c: char) -> bool {
    c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c)
}

/// One segment of a parameter that is written in pieces or with a charset (RFC 2231 sections 3 and 4).
struct Segment {
    name: String,
    number: usize,
    encoded: bool,
    value: String,
}

impl Segment {
    /// `name*`, `name*0`, `name*0*`; `None`: the name is none of these.
    fn read(name: &str, value: &str) -> Option<Option<Segment>> {
        let Some((stem, tail)) = name.split_once('*') else { return Some(None) };
        let (number, encoded) = match tail.strip_suffix('*') {
            Some(number) => (number, true),
            None => (tail, tail.is_empty()),
        };
        let number = if number.is_empty() && encoded { 0 } else { number.parse().ok()? };
        Some(Some(Segment { name: stem.to_owned(), number, encoded, value: value.to_owned() }))
    }
}

/// What was written as what was meant. `None`: something stands there twice, or a piece is missing or broken.
fn assembled(written: Vec<(String, String)>) -> Option<Vec<(String, String)>> {
    let (mut plain, mut segments): (Vec<(String, String)>, Vec<Segment>) = (Vec::new(), Vec::new());
    for (name, value) in written {
        match Segment::read(&name, &value)? {
            Some(segment) => segments.push(segment),
            None if plain.iter().any(|(known, _)| *known == name) => return None,
            None => plain.push((name, value)),
        }
    }
    segments.sort_by(|a, b| (&a.name, a.number).cmp(&(&b.name, b.number)));
    for pieces in segments.chunk_by(|a, b| a.name == b.name) {
        if !pieces.iter().enumerate().all(|(n, piece)| piece.number == n) {
            return None;
        }
        let value = joined(pieces)?;
        // Beside a plain one, which is there for old readers, this one counts.
        match plain.iter_mut().find(|(name, _)| *name == pieces[0].name) {
            Some((_, old)) => *old = value,
            None => plain.push((pieces[0].name.clone(), value)),
        }
    }
    plain.iter().all(|(_, value)| words::is_clean(value)).then_some(plain)
}

fn joined(pieces: &[Segment]) -> Option<String> {
    let (mut charset, mut octets) = ("utf-8", Vec::new());
    for (n, piece) in pieces.iter().enumerate() {
        let mut value = piece.value.as_str();
        if !piece.encoded {
            octets.extend_from_slice(value.as_bytes());
            continue;
        }
        if n == 0 {
            let mut fields = value.splitn(3, '\'');
            let (named, _language) = (fields.next()?, fields.next()?);
            value = fields.next()?;
            charset = if named.is_empty() { "us-ascii" } else { named };
        }
        octets.extend(percent_decoded(value)?);
    }
    decode::text(Cow::Owned(octets), charset).map(Cow::into_owned)
}

/// Without the escapes of a URL; `None`: a percent sign begins none.
pub(super) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (pair, after) = after.split_at_checked(2)?;
            out.push(decode::hex(pair)?);
            rest = after;
        } else {
            out.push(*first);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Option<String> {
        Typed::read(text)?.file_name("name").ok()?
    }

    #[test]
    fn parameters_are_read_however_they_are_written() {
        let typed = Typed::read("Text/HTML; Charset=\"UTF-8\" ; (why) boundary=a=b; format=\"x\\\"y\" (c);;")
            .unwrap();
        assert_eq!(typed.word, "text/html");
        assert_eq!(typed.get("charset"), Some("UTF-8"));
        assert!(typed.says("charset", "utf-8") && !typed.says("charset", "utf"));
        assert_eq!((typed.get("boundary"), typed.get("format")), (Some("a=b"), Some("x\"y")));
        assert_eq!(
            typed.written_without(&["boundary"]).unwrap(),
            "text/html; charset=UTF-8; format=\"x\\\"y\""
        );
    }

    #[test]
    fn file_names_are_read_however_they_are_encoded() {
        for (text, wanted) in [
            ("a/b; name=plain.txt", Some("plain.txt")),
            ("a/b; name=\"two words; and.txt\"", Some("two words; and.txt")),
            ("a/b; name=\"grün.txt\"", Some("grün.txt")),
            ("a/b; name=\"=?utf-8?Q?gr=C3=BCn.txt?=\"", Some("grün.txt")),
            ("a/b; name*=utf-8'de'gr%C3%BCn.txt", Some("grün.txt")),
            ("a/b; name*=iso-8859-1''gr%fcn.txt; name=grun.txt", Some("grün.txt")),
            ("a/b; name*1=\"b c\"; name*0=\"a \"; name*2=.txt", Some("a b c.txt")),
            ("a/b; name*0*=utf-8''gr%C3; name*1*=%BCn; name*2=\"%.txt\"", Some("grün%.txt")),
            ("a/b; name=\"\"", None),
        ] {
            assert_eq!(name(text).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn what_readers_differ_about_is_not_read() {
        for odd in [
            "",
            "text/",
            "text plain",
            "a/b; name",
            "a/b; name=",
            "a/b; name=a b",
            "a/b; name=\"a",
            "a/b; name=a(b)c",
            "a/b; name=a; NAME=b",
            "a/b; name*0=a; name*0=b",
            "a/b; name*1=a",
            "a/b; name*x=a",
            "a/b; name*=a",
            "a/b; name*=utf-8''%zz",
            "a/b; name*=utf-8''%0d%0a",
            "a/b; name*=utf-7''a",
            "a/b (c; name=a",
        ] {
            assert_eq!(Typed::read(odd), None, "{odd}");
        }
        assert!(Typed::read("a/b; name=\"=?utf-8?Q?=FF?=\"").unwrap().file_name("name").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in "[ -~]{0,30}") {
            let mut typed = Typed::plain("a/b");
            typed.set("p", &value);
            let again = Typed::read(&typed.written_without(&[]).unwrap());
            prop_assert_eq!(again, Some(typed));
        }

        #[test]
        fn no_value_is_too_odd(text in "\\PC{0,20}|[a-z*0-9=;\"'%() /\\\\]{0,40}") {
            let _ = Typed::read(&text);
        }
    }
}
