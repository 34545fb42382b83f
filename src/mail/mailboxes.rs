//! The mailboxes of an address field, where they lie in it (RFC 5322 section 3.4): past quoted texts, comments, groups
//! and the names before `<`. What is no address by our own grammar is told as such, never guessed at.

use std::ops::Range;

/// One mailbox of a field; spans are within its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mailbox {
    /// A name without a domain, such as `root`, or `"root"` with its quotes; quoted words that no name has are none.
    Bare(Range<usize>),
    /// `local@domain`, without blanks or comments in it.
    Address(Range<usize>),
    /// Anything else.
    Odd,
}

/// The mailboxes of a field's value, in order.
pub fn mailboxes(value: &[u8]) -> Vec<Mailbox> {
    let mut found = Vec::new();
    let mut reading = Reading::default();
    let mut at = 0;
    while at < value.len() {
        let mut end = at + 1;
        match value[at] {
            b'"' => {
                end = reading.closed_at(after_quoted(value, at), value);
                let inner = value.get(at + 1..end - 1).unwrap_or_default();
                let is_name = !inner.is_empty() && inner.iter().all(|b| is_atom(*b));
                reading.put(if is_name { Token::QuotedName(at..end) } else { Token::Quoted(at..end) });
            }
            b'(' => end = reading.closed_at(after_comment(value, at), value),
            b'[' => {
                let close = value[at..].iter().position(|b| *b == b']');
                end = reading.closed_at(close.map(|n| at + n + 1), value);
                reading.put(Token::Literal(at..end));
            }
            b'@' => reading.put(Token::At(at)),
            b'<' => reading.open(),
            b'>' => reading.closed = true,
            b',' | b';' => std::mem::take(&mut reading).end(&mut found),
            // What stood before it was the name of a group.
            b':' => reading = Reading::default(),
            b if is_atom(b) => {
                end = value[at..].iter().position(|b| !is_atom(*b)).map_or(value.len(), |n| at + n);
                reading.put(Token::Atom(at..end));
            }
            b if b.is_ascii_whitespace() => {}
            _ => reading.put(Token::Unknown),
        }
        at = end;
    }
    reading.end(&mut found);
    found
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Atom(Range<usize>),
    Quoted(Range<usize>),
    /// One that needs no quotes.
    QuotedName(Range<usize>),
    Literal(Range<usize>),
    At(usize),
    Unknown,
}

/// One mailbox, as far as it was read.
#[derive(Default)]
struct Reading {
    outside: Vec<Token>,
    angle: Option<Vec<Token>>,
    closed: bool,
    odd: bool,
}

impl Reading {
    fn put(&mut self, token: Token) {
        match &mut self.angle {
            Some(_) if self.closed => self.odd = true,
            Some(tokens) => tokens.push(token),
            None => self.outside.push(token),
        }
    }

    /// What is never closed hides all that follows from us, but not from every reader.
    fn closed_at(&mut self, end: Option<usize>, value: &[u8]) -> usize {
        self.odd |= end.is_none();
        end.unwrap_or(value.len())
    }

    fn open(&mut self) {
        self.odd |= self.angle.is_some();
        self.angle.get_or_insert_default();
    }

    fn end(self, found: &mut Vec<Mailbox>) {
        if self.odd {
            found.push(Mailbox::Odd);
            return;
        }
        // Before `<` stands a name; where apps write an address there without quotes, readers may take it for one.
        let names_another = self.outside.iter().any(|token| matches!(token, Token::At(_)));
        if (self.angle.is_none() || names_another) && !self.outside.is_empty() {
            found.push(read(&self.outside));
        }
        if let Some(tokens) = self.angle.filter(|tokens| !tokens.is_empty()) {
            found.push(read(&tokens));
        }
    }
}

fn read(tokens: &[Token]) -> Mailbox {
    match tokens {
        [Token::Atom(name) | Token::QuotedName(name)] => Mailbox::Bare(name.clone()),
        [
            Token::Atom(local) | Token::Quoted(local) | Token::QuotedName(local),
            Token::At(at),
            Token::Atom(domain) | Token::Literal(domain),
        ] if local.end == *at && domain.start == at + 1 => Mailbox::Address(local.start..domain.end),
        _ => Mailbox::Odd,
    }
}

/// RFC 5322 section 3.2.3, dots included, and octets above 127.
fn is_atom(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b > 127 || b"!#$%&'*+-/=?^_`{|}~.".contains(&b)
}

/// After the quote that closes; `None`: there is none.
fn after_quoted(value: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    while at < value.len() && value[at] != b'"' {
        at += if value[at] == b'\\' { 2 } else { 1 };
    }
    (at < value.len()).then_some(at + 1)
}

/// After the parenthesis that closes; `None`: there is none.
fn after_comment(value: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0_usize);
    while at < value.len() {
        match value[at] {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// In words: `=name`, `a@b`, or `?` for what is odd.
    fn told(value: &str) -> Vec<String> {
        let text = |span: Range<usize>| value[span].to_owned();
        let word = |mailbox| match mailbox {
            Mailbox::Bare(span) => format!("={}", text(span)),
            Mailbox::Address(span) => text(span),
            Mailbox::Odd => "?".to_owned(),
        };
        mailboxes(value.as_bytes()).into_iter().map(word).collect()
    }

    #[test]
    fn each_mailbox_is_found_whatever_stands_around_it() {
        for (value, wanted) in [
            ("a@x.example", &["a@x.example"][..]),
            (" Shop <a@x.example>\r\n", &["a@x.example"]),
            ("\"x, <y@z>\"\r\n <a@x.example>", &["a@x.example"]),
            ("a@x.example (b@y.example), root", &["a@x.example", "=root"]),
            ("Team: a@x.example, <b@y.example>;", &["a@x.example", "b@y.example"]),
            ("\"q, u\"@x.example", &["\"q, u\"@x.example"]),
            ("<a@[127.0.0.1]>", &["a@[127.0.0.1]"]),
            ("boss@z.example <a@x.example>", &["boss@z.example", "a@x.example"]),
            ("a@x.example b@y.example", &["?"]),
            ("<a@x.example> b@y.example", &["?"]),
            ("a@x.example <root> <b@y.example>", &["?"]),
            ("<@r.example:a@x.example>", &["a@x.example"]),
            ("a @ x.example", &["?"]),
            ("a@b@c", &["?"]),
            ("a@x.example (b, <c@y.example>", &["?"]),
            ("a@x.example, \"b <c@y.example>", &["a@x.example", "?"]),
            ("a@[127.0.0.1", &["?"]),
            ("two words", &["?"]),
            ("\"root\" (Cron)", &["=\"root\""]),
            ("\"root\" <a@x.example>, \"b\"@x.example", &["a@x.example", "\"b\"@x.example"]),
            ("\"two words\", \"\", \"ro\\ot\"", &["?", "?", "?"]),
            ("<>", &[]),
            ("(none)", &[]),
        ] {
            assert_eq!(told(value), wanted, "{value}");
        }
    }

    proptest! {
        #[test]
        fn spans_lie_in_the_value_and_hold_one_address(value in "[ a-z@<>(),:;\"\\\\.\\[\\]]{0,40}") {
            for mailbox in mailboxes(value.as_bytes()) {
                if let Mailbox::Address(span) = mailbox {
                    prop_assert!(value[span].contains('@'));
                }
            }
        }
    }
}
