//! The staging guard at the dot: recipients that `only_to` does not name are turned to `redirect_to`, and named to whom
//! reads them there.
//!
//! One message goes to all its recipients, so whoever of them is mailed as asked reads the same header. Where there are
//! such, only those are named whom To and Cc name anyway: a Bcc is never told.

use std::collections::HashSet;

use crate::address::{Address, Grammar};
use crate::mail::Terms;
use crate::mail::headers::fields;
use crate::mail::mailboxes::{Mailbox, mailboxes};

/// How many of those who were turned are named.
const NAMED_MAX: usize = 20;
const FIELD: &str = "X-Postroad-Original-To";

/// What became of the recipients of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Turned {
    /// Who gets it, each once.
    pub(super) recipients: Vec<Address>,
    /// Who would have got it, but for the guard.
    pub(super) others: Vec<Address>,
    /// The field that says so, or nothing.
    pub(super) field: String,
}

/// Turns recipients as the terms have it. `head` is the beginning of the message, with its header block.
pub(super) fn turn(recipients: Vec<Address>, terms: &Terms, head: &[u8]) -> Turned {
    let (mut turned, mut known, mut as_asked) = (Turned::default(), HashSet::new(), false);
    for recipient in recipients {
        // Who goes nowhere was refused at RCPT.
        let Some(to) = terms.goes_to(&recipient) else { continue };
        if known.insert(to.mailbox()) {
            turned.recipients.push(to.clone());
        }
        let is_to = |address: &Address| address.key() == to.key();
        as_asked |= !terms.redirect_to.as_ref().is_some_and(is_to);
        if !is_to(&recipient) {
            turned.others.push(recipient);
        }
    }
    let seen = if as_asked { Some(seen(head)) } else { None };
    let named: Vec<&Address> = turned
        .others
        .iter()
        .filter(|other| seen.as_ref().is_none_or(|seen| seen.contains(&other.key())))
        .collect();
    turned.field = field(&named);
    turned
}

/// Whom To and Cc name.
fn seen(head: &[u8]) -> HashSet<String> {
    let mut seen = HashSet::new();
    for field in fields(head).filter(|field| field.is("To") || field.is("Cc")) {
        for mailbox in mailboxes(field.value()) {
            let Mailbox::Address(span) = mailbox else { continue };
            let text = std::str::from_utf8(&field.value()[span]).unwrap_or_default();
            seen.extend(Address::parse(text, Grammar::Lenient).map(|address| address.key()));
        }
    }
    seen
}

fn field(named: &[&Address]) -> String {
    if named.is_empty() {
        return String::new();
    }
    let shown =
        |address: &&Address| address.ascii_wire().unwrap_or_else(|| "(an address beyond ASCII)".into());
    let mut words: Vec<String> = named.iter().take(NAMED_MAX).map(shown).collect();
    if named.len() > NAMED_MAX {
        words.push(format!("(and {} more)", named.len() - NAMED_MAX));
    }
    format!("{FIELD}: {}\r\n", words.join(",\r\n\t"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::terms::Names;

    const HEAD: &[u8] =
        b"To: A <a@x.example>, dev@corp.example\r\nCc: c@x.example\r\n\r\nTo: b@x.example\r\n";

    fn address(text: &str) -> Address {
        Address::parse(text, Grammar::Lenient).unwrap()
    }

    fn turned(recipients: &[&str]) -> (Vec<String>, String) {
        let terms = Terms {
            only_to: Names::of(vec!["@corp.example".into()]),
            redirect_to: Some(address("qa@staging.example")),
            ..Terms::default()
        };
        let turned = turn(recipients.iter().map(|to| address(to)).collect(), &terms, HEAD);
        (turned.recipients.iter().map(|to| to.wire().to_owned()).collect(), turned.field)
    }

    #[test]
    fn all_others_become_one_and_are_named_to_it() {
        let (to, field) = turned(&["a@x.example", "b@x.example", "QA@staging.example"]);
        assert_eq!(to, ["qa@staging.example"]);
        assert_eq!(field, "X-Postroad-Original-To: a@x.example,\r\n\tb@x.example\r\n");
        assert_eq!(turned(&["dev@corp.example"]), (vec!["dev@corp.example".into()], String::new()));
    }

    #[test]
    fn who_is_mailed_as_asked_learns_of_nobody_that_the_header_does_not_name() {
        let (to, field) = turned(&["dev@corp.example", "C@x.example", "b@x.example"]);
        assert_eq!(to, ["dev@corp.example", "qa@staging.example"]);
        assert_eq!(field, "X-Postroad-Original-To: C@x.example\r\n");
        assert_eq!(turned(&["dev@corp.example", "b@x.example"]).1, "");
    }

    #[test]
    fn of_many_the_first_are_named_and_none_breaks_the_field() {
        let many: Vec<String> = (0..25).map(|n| format!("u{n}@x.example")).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        many[1] = "gr\u{fc}n@x.example";
        let (_, field) = turned(&many);
        assert!(
            field.is_ascii() && field.contains("\r\n\t(an address beyond ASCII),\r\n\tu2@x.example"),
            "{field}"
        );
        assert!(field.ends_with("\r\n\tu19@x.example,\r\n\t(and 5 more)\r\n"), "{field}");
    }
}
