//! The mailboxes of an address field with their names, by the strict grammar alone: promise 2 hangs on it. A field that
//! has anything else in it is not read at all; no address is guessed, and none is left out.

use std::borrow::Cow;
use std::ops::Range;

use super::super::mailboxes as scanner;
use super::{Mailbox, words};
use crate::address::{Address, Grammar};

/// Why a field cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is not RFC 5322's grammar, or parts of it that readers take differently.
    Grammar,
    /// It is a group with members: its name has no place beside addresses.
    Group,
    /// A local part beyond ASCII (RFC 6531).
    Utf8,
    /// An encoded word that cannot be decoded.
    Word,
}

/// The mailboxes of an unfolded value, in order. A group without members (`undisclosed-recipients:;`) gives none.
pub(super) fn mailboxes(text: &str) -> Result<Vec<Mailbox>, Bad> {
    let tokens = tokens(text).ok_or(Bad::Grammar)?;
    let (mut found, mut spans) = (Vec::new(), Vec::new());
    for element in tokens.split(|token| token.kind == Kind::Special(b',')) {
        if let Some((mailbox, span)) = element_of(text, element)? {
            found.push(mailbox);
            spans.push(scanner::Mailbox::Address(span));
        }
    }
    // Two readings that share no line must find the same addresses.
    if scanner::mailboxes(text.as_bytes()) == spans { Ok(found) } else { Err(Bad::Grammar) }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Atom,
    /// Without its quotes.
    Quoted(String),
    /// Without its parentheses.
    Comment(String),
    Literal,
    Special(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    kind: Kind,
    span: Range<usize>,
}

/// `None`: a character that has no place there, or something is never closed.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let octets = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < octets.len() {
        let (kind, end) = match octets[at] {
            b' ' | b'\t' => {
                at += 1;
                continue;
            }
            b'"' => {
                let (content, end) = quoted(text, at)?;
                (Kind::Quoted(content), end)
            }
            b'(' => {
                let (content, end) = comment(text, at)?;
                (Kind::Comment(content), end)
            }
            b'[' => (Kind::Literal, at + 1 + octets[at..].iter().position(|b| *b == b']')?),
            b @ (b'<' | b'>' | b'@' | b',' | b':' | b';') => (Kind::Special(b), at + 1),
            b if is_atom(b) => {
                let octets = octets[at..].iter().take_while(|b| is_atom(**b)).count();
                (Kind::Atom, at + octets)
            }
            _ => return None,
        };
        found.push(Token { kind, span: at..end });
        at = end;
    }
    Some(found)
}

/// RFC 5322 section 3.2.3 with dots, and RFC 6532 section 3.2.
fn is_atom(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b > 127 || b"!#$%&'*+-/=?^_`{|}~.".contains(&b)
}

/// The content between quotes, and where it ends.
fn quoted(text: &str, start: usize) -> Option<(String, usize)> {
    let (mut content, mut escaped) = (String::new(), false);
    for (n, c) in text[start + 1..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => {
                escaped = true;
                continue;
            }
            '"' => return Some((content, start + n + 2)),
            _ => {}
        }
        content.push(c);
    }
    None
}

/// The content between parentheses, and where it ends. One comment in another is not read.
fn comment(text: &str, start: usize) -> Option<(String, usize)> {
    let end = start + text[start..].find(')')?;
    let content = &text[start + 1..end];
    (!content.contains(['(', '\\'])).then(|| (content.to_owned(), end + 1))
}

/// What stands between two commas: nothing, an empty group, or one mailbox.
fn element_of(text: &str, element: &[Token]) -> Result<Option<(Mailbox, Range<usize>)>, Bad> {
    let mut comments = element.iter().filter_map(|token| match &token.kind {
        Kind::Comment(content) => Some(content.as_str()),
        _ => None,
    });
    let (first_comment, more) = (comments.next(), comments.next());
    let tokens: Vec<&Token> =
        element.iter().filter(|token| !matches!(token.kind, Kind::Comment(_))).collect();
    if tokens.is_empty() {
        return Ok(None);
    }
    if let Some(colon) = tokens.iter().position(|token| token.kind == Kind::Special(b':')) {
        let is_name = tokens[..colon].iter().all(|token| matches!(token.kind, Kind::Atom | Kind::Quoted(_)));
        return match &tokens[colon + 1..] {
            [end] if end.kind == Kind::Special(b';') && is_name && colon > 0 => Ok(None),
            _ if is_name && colon > 0 => Err(Bad::Group),
            _ => Err(Bad::Grammar),
        };
    }
    let (phrase, spec) = split(&tokens).ok_or(Bad::Grammar)?;
    let (address, span) = address(text, spec)?;
    let name = name(text, phrase)?;
    // `a@x.example (Name)` is how names were once written.
    let name = match (name, first_comment, more) {
        (name, None, _) => name,
        (None, Some(comment), None) => spoken(comment)?,
        _ => return Err(Bad::Grammar),
    };
    Ok(Some((Mailbox { name, address }, span)))
}

/// What stands before `<`, and what stands within `<` and `>`.
fn split<'t, 'a>(tokens: &'t [&'a Token]) -> Option<(&'t [&'a Token], &'t [&'a Token])> {
    let Some(open) = tokens.iter().position(|token| token.kind == Kind::Special(b'<')) else {
        return Some((&[], tokens));
    };
    let (last, spec) = tokens[open + 1..].split_last()?;
    (last.kind == Kind::Special(b'>')).then_some((&tokens[..open], spec))
}

/// `local@domain` without blanks or comments in it; its domain as A-labels.
fn address(text: &str, spec: &[&Token]) -> Result<(Address, Range<usize>), Bad> {
    let [local, at, domain] = spec else { return Err(Bad::Grammar) };
    let fits = matches!(local.kind, Kind::Atom | Kind::Quoted(_))
        && at.kind == Kind::Special(b'@')
        && matches!(domain.kind, Kind::Atom | Kind::Literal)
        && local.span.end == at.span.start
        && at.span.end == domain.span.start;
    if !fits {
        return Err(Bad::Grammar);
    }
    let span = local.span.start..domain.span.end;
    let address = Address::parse(&text[span.clone()], Grammar::Strict).map_err(|_| Bad::Grammar)?;
    let ascii = super::ascii(&address).ok_or(Bad::Utf8)?;
    Ok((ascii, span))
}

/// The words before `<`.
fn name(text: &str, phrase: &[&Token]) -> Result<Option<String>, Bad> {
    let mut words = Vec::new();
    for run in phrase.chunk_by(|a, b| a.kind == Kind::Atom && b.kind == Kind::Atom) {
        match &run[0].kind {
            Kind::Atom => {
                let atoms: Vec<&str> = run.iter().map(|token| &text[token.span.clone()]).collect();
                let decoded = words::decoded(Cow::Owned(atoms.join(" "))).ok_or(Bad::Word)?;
                words.push(decoded.into_owned());
            }
            Kind::Quoted(content) => words.push(content.clone()),
            _ => return Err(Bad::Grammar),
        }
    }
    Ok(Some(words.join(" ").trim().to_owned()).filter(|name| !name.is_empty()))
}

fn spoken(comment: &str) -> Result<Option<String>, Bad> {
    let decoded = words::decoded(Cow::Borrowed(comment.trim())).ok_or(Bad::Word)?;
    Ok(Some(decoded.into_owned()).filter(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// In words: `name <address>`, parted by `|`.
    fn told(text: &str) -> Result<String, Bad> {
        let one = |mailbox: Mailbox| match mailbox.name {
            Some(name) => format!("{name} <{}>", mailbox.address),
            None => mailbox.address.to_string(),
        };
        Ok(mailboxes(text)?.into_iter().map(one).collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn mailboxes_come_with_their_names() {
        for (text, wanted) in [
            ("a@x.example", "a@x.example"),
            ("<a@x.example>", "a@x.example"),
            ("Shop <a@x.example>", "Shop <a@x.example>"),
            ("J. R.  Doe <a@x.example>", "J. R. Doe <a@x.example>"),
            ("\"Doe, J; \\\"x\\\"\" <a@x.example>", "Doe, J; \"x\" <a@x.example>"),
            ("\"Doe\" Grün 🐦 <a@x.example>", "Doe Grün 🐦 <a@x.example>"),
            ("=?utf-8?Q?Gr=C3=BCn?= =?utf-8?Q?_&?= Co <a@x.example>", "Grün & Co <a@x.example>"),
            ("\"=?utf-8?Q?a?=\" <a@x.example>", "=?utf-8?Q?a?= <a@x.example>"),
            ("\"b@y.example\" <a@x.example>", "b@y.example <a@x.example>"),
            ("a@x.example (Shop)", "Shop <a@x.example>"),
            ("a@x.example, \"\" <b@y.example>,, (none)", "a@x.example|b@y.example"),
            ("\"q u\"@x.example", "\"q u\"@x.example"),
            ("a@[127.0.0.1]", "a@[127.0.0.1]"),
            ("a@bücher.example", "a@xn--bcher-kva.example"),
            ("undisclosed-recipients:;, a@x.example", "a@x.example"),
            ("\"no one\" : ;", ""),
            ("", ""),
        ] {
            assert_eq!(told(text), Ok(wanted.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_makes_the_whole_field_unreadable() {
        for (text, why) in [
            ("root", Bad::Grammar),
            ("a@x.example, root", Bad::Grammar),
            ("a@x.example b@y.example", Bad::Grammar),
            ("a@x.example; b@y.example", Bad::Grammar),
            ("Doe, J <a@x.example>", Bad::Grammar),
            ("b@y.example <a@x.example>", Bad::Grammar),
            ("Shop @ Home <a@x.example>", Bad::Grammar),
            ("Shop (Home) <a@x.example>", Bad::Grammar),
            ("<a@x.example> Shop", Bad::Grammar),
            ("<a@x.example", Bad::Grammar),
            ("<<a@x.example>>", Bad::Grammar),
            ("<>", Bad::Grammar),
            ("<@r.example:a@x.example>", Bad::Grammar),
            ("a @x.example", Bad::Grammar),
            ("a@x..example", Bad::Grammar),
            ("a..b@x.example", Bad::Grammar),
            ("a@b@c.example", Bad::Grammar),
            ("\"Shop <a@x.example>", Bad::Grammar),
            ("Shop\\ <a@x.example>", Bad::Grammar),
            ("Team: a@x.example, b@y.example;", Bad::Group),
            ("Team: a@x.example;", Bad::Group),
            (":;", Bad::Grammar),
            ("grün@x.example", Bad::Utf8),
            ("=?utf-7?Q?a?= <a@x.example>", Bad::Word),
            ("=?utf-8?Q?a=0D=0ABcc=3A_b?= <a@x.example>", Bad::Word),
        ] {
            assert_eq!(told(text), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_address_stands_in_the_field(text in "([a-c@<>(),:;\"\\\\.\\[\\] ]|@x\\.example|\\PC){0,30}") {
            if let Ok(found) = mailboxes(&text) {
                for mailbox in found {
                    prop_assert!(Address::parse(mailbox.address.wire(), Grammar::Strict).is_ok());
                    prop_assert!(!text.is_ascii() || text.contains(mailbox.address.wire()));
                }
            }
        }
    }
}
