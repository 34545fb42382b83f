//! The paths of MAIL and RCPT: what stands between the angle brackets, kept as it was written.

use crate::address::{Address, AddressError, Grammar, domain_ok};

/// A path, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// `<>`
    Null,
    /// `<a@b>`
    Mailbox(Address),
    /// `<root>`: a local part alone.
    Bare(Address),
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing there, or not in angle brackets where the grammar insists.
    #[error("write the address as <name@domain>")]
    Shape,
    /// `<@a,@b:c@d>` that is not that.
    #[error("the source route is malformed; leave it out")]
    Route,
    /// The address itself.
    #[error("{0}")]
    Address(#[from] AddressError),
}

/// Takes a path off the front of `text`, which begins behind `FROM:` or `TO:`; gives it and what follows it.
pub fn take_path(text: &str, grammar: Grammar) -> Result<(Path, &str), PathError> {
    let lenient = grammar == Grammar::Lenient;
    let text = if lenient { text.trim_start_matches([' ', '\t']) } else { text };
    let (inner, rest) = match text.strip_prefix('<') {
        Some(open) => {
            let end = closing(open).ok_or(PathError::Shape)?;
            (&open[..end], &open[end + 1..])
        }
        None if lenient => text.split_at(unbracketed_end(text)),
        None => return Err(PathError::Shape),
    };
    // `Joe <a@b>` is a header's form, not a path.
    if (!rest.is_empty() && !rest.starts_with(' ')) || rest.trim_start().starts_with('<') {
        return Err(PathError::Shape);
    }
    let null = text.starts_with("<>");
    let inner = if lenient { inner.trim_matches([' ', '\t']) } else { inner };
    if inner.is_empty() {
        return if null { Ok((Path::Null, rest)) } else { Err(PathError::Shape) };
    }
    Ok((mailbox(without_route(inner)?, grammar)?, rest))
}

fn mailbox(text: &str, grammar: Grammar) -> Result<Path, AddressError> {
    match Address::parse(text, grammar) {
        Err(AddressError::NoDomain) if !text.ends_with('@') => {
            // Also `@domain` comes here; a bare name with an @ in it breaks the grammar of the local part.
            Address::bare(text, grammar).map(Path::Bare).map_err(|_| AddressError::NoDomain)
        }
        other => other.map(Path::Mailbox),
    }
}

/// The index of the first octet in `text` that `hit` picks outside quotes.
fn outside_quotes(text: &str, hit: impl Fn(u8) -> bool) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|b| {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if !quoted && hit(b) => return true,
            _ => {}
        }
        false
    })
}

fn closing(text: &str) -> Option<usize> {
    outside_quotes(text, |b| b == b'>')
}

fn unbracketed_end(text: &str) -> usize {
    outside_quotes(text, |b| b == b' ').unwrap_or(text.len())
}

/// RFC 5321 section 4.1.1.3 and appendix C: a source route is taken and not used.
fn without_route(text: &str) -> Result<&str, PathError> {
    let mut rest = text;
    while let Some(hop) = rest.strip_prefix('@') {
        let from = if hop.starts_with('[') { hop.find(']').ok_or(PathError::Route)? } else { 0 };
        // Without a colon or comma it is no route but an address without a local part.
        let end = from + hop[from..].find([',', ':']).ok_or(AddressError::NoDomain)?;
        if !domain_ok(&hop[..end]) {
            return Err(PathError::Route);
        }
        rest = &hop[end + 1..];
        if hop.as_bytes()[end] == b':' {
            return Ok(rest);
        }
        if !rest.starts_with('@') {
            return Err(PathError::Route);
        }
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(text: &str) -> Result<(String, &str), PathError> {
        take_path(text, Grammar::Lenient).map(|(path, rest)| {
            let shown = match path {
                Path::Null => "null".into(),
                Path::Mailbox(a) => a.wire().to_owned(),
                Path::Bare(a) => format!("bare {a}"),
            };
            (shown, rest)
        })
    }

    #[test]
    fn paths_are_kept_as_written() {
        for (text, path, rest) in [
            ("<>", "null", ""),
            ("<> SIZE=1", "null", " SIZE=1"),
            (" <a@b.c> X", "a@b.c", " X"),
            ("a@b.c X=<y>", "a@b.c", " X=<y>"),
            ("< a@b.c >", "a@b.c", ""),
            ("<\"a>b\"@x.org>", "\"a>b\"@x.org", ""),
            ("<\"a \\\"b\"@x.org>", "\"a \\\"b\"@x.org", ""),
            ("\"a b\"@x.org SIZE=1", "\"a b\"@x.org", " SIZE=1"),
            ("<@a.b,@[IPv6:::1]:u@d.e>", "u@d.e", ""),
            ("<@a.b:u@d.e>", "u@d.e", ""),
            ("<u@[IPv6:2001:db8::1]>", "u@[IPv6:2001:db8::1]", ""),
            ("<u@[127.0.0.1]>", "u@[127.0.0.1]", ""),
            ("<Postmaster>", "bare Postmaster", ""),
            ("root", "bare root", ""),
            ("<user..name@example.com>", "user..name@example.com", ""),
        ] {
            assert_eq!(taken(text), Ok((path.into(), rest)), "{text}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "",
            " ",
            "<",
            "<a@b",
            "a@b>",
            "<a@b>X",
            "<no-domain-here@>",
            "<@b>",
            "<@a:>",
            "<@a,b:c@d>",
            "<@a>",
            "Joe <a@b>",
            "<a@b><c@d>",
            "< >",
            "<<a@b>>",
            "<a@b c@d>",
        ] {
            assert!(taken(text).is_err(), "{text:?} gave {:?}", taken(text));
        }
    }

    #[test]
    fn the_strict_grammar_wants_brackets_at_once() {
        for text in [" <a@b>", "a@b", "< a@b>", "<a..b@c>"] {
            assert!(take_path(text, Grammar::Strict).is_err(), "{text}");
        }
        assert!(take_path("<@x:\"a b\"@c> SIZE=1", Grammar::Strict).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused_and_never_splits(text in "\\PC{0,60}|[<>@a:,\" \\\\.\\[\\]]{0,20}") {
            if let Ok((Path::Mailbox(a) | Path::Bare(a), rest)) = take_path(&text, Grammar::Lenient) {
                prop_assert!(text.contains(a.wire()));
                prop_assert!(rest.is_empty() || rest.starts_with(' '));
            }
        }
    }
}
