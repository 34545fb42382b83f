//! The staging guard at the dot: recipients that `only_to` does not name are turned to `redirect_to`, and named to whom
//! reads them there. So is the sender, whom a report would mail.
//!
//! One message goes to all its recipients, so whoever of them is mailed as asked reads the same header. Where there are
//! such, only those are named whom To and Cc name anyway: a Bcc is never told.

use std::collections::HashSet;

use crate::address::{Address, Grammar};
use crate::mail::headers::fields;
use crate::mail::mailboxes::{Mailbox, mailboxes};
use crate::mail::notify::{Ask, ReportTo};
use crate::mail::{Envelope, Terms};
use crate::policy::reports;

/// How many of those who were turned are named.
const NAMED_MAX: usize = 20;
const FIELD: &str = "X-Postroad-Original-To";

/// Whose mail was turned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Turned {
    /// Who would have got it, but for the guard.
    pub(super) others: Vec<Address>,
    /// The field that says so, or nothing.
    pub(super) field: String,
}

/// Turns recipients as the terms have it. `head` is the beginning of the message, with its header block.
pub(super) fn turn(envelope: &mut Envelope, terms: &Terms, head: &[u8]) -> Turned {
    let (mut turned, mut known, mut as_asked) = (Turned::default(), HashSet::new(), false);
    if terms.is_unguarded() {
        return turned;
    }
    match reports::goes_to(terms, &envelope.sender) {
        ReportTo::Sender => {}
        to => envelope.reports.get_or_insert_default().to = to,
    }
    let asked = envelope.reports.as_mut().map(|reports| std::mem::take(&mut reports.each));
    let mut asked = asked.unwrap_or_default().into_iter();
    for recipient in std::mem::take(&mut envelope.recipients) {
        let asked = asked.next().unwrap_or_default();
        // Who goes nowhere was refused at RCPT.
        let Some(to) = terms.goes_to(&recipient) else { continue };
        let is_to = |address: &Address| address.key() == to.key();
        let stays = is_to(&recipient);
        if known.insert(to.mailbox()) {
            envelope.recipients.push(to.clone());
            if let Some(reports) = &mut envelope.reports {
                // What was asked for another, and ORCPT that names him, is not asked for whom it is turned to.
                reports.each.push(if stays { asked } else { Ask::default() });
            }
        }
        as_asked |= !terms.redirect_to.as_ref().is_some_and(is_to);
        if !stays {
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
    use crate::mail::notify::{Asks, Notify};
    use crate::mail::terms::Names;
    use crate::mail::{BodyKind, ReversePath};

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
        let mut envelope = envelope(recipients);
        let turned = turn(&mut envelope, &terms, HEAD);
        (envelope.recipients.iter().map(|to| to.wire().to_owned()).collect(), turned.field)
    }

    fn envelope(recipients: &[&str]) -> Envelope {
        Envelope {
            sender: ReversePath::Null,
            recipients: recipients.iter().map(|to| address(to)).collect(),
            body: BodyKind::SevenBit,
            smtputf8: false,
            reports: None,
        }
    }

    #[test]
    fn what_was_asked_for_one_is_not_asked_for_another() {
        let terms = Terms {
            only_to: Names::of(vec!["@corp.example".into()]),
            redirect_to: Some(address("qa@staging.example")),
            ..Terms::default()
        };
        let asks = |text: &str| Ask { notify: Some(Notify::NEVER), original: Some(format!("rfc822;{text}")) };
        let mut envelope =
            envelope(&["hidden@x.example", "b@x.example", "dev@corp.example", "ops@corp.example"]);
        let each = vec![asks("hidden@x.example"), asks("b@x.example"), asks("dev@corp.example")];
        envelope.reports = Some(Box::new(Asks { each, ..Asks::default() }));
        turn(&mut envelope, &terms, HEAD);
        let to: Vec<&str> = envelope.recipients.iter().map(Address::wire).collect();
        assert_eq!(to, ["qa@staging.example", "dev@corp.example", "ops@corp.example"]);
        let reports = envelope.reports.unwrap();
        assert_eq!(reports.each, [Ask::default(), asks("dev@corp.example"), Ask::default()]);
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
