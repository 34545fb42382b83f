//! Bare names in From, completed: `root` becomes `root@example.com`, as `[server] origin` says. Programs that cannot be
//! told their domain (cron, scripts) write such names, and no ESP takes them.

use super::headers::{Fields, LINE_OCTETS_MAX};
use super::mailboxes::{Mailbox, mailboxes};
use super::splice::{Replacement, Splice};

/// What is to be put into the From fields of a block that begins at `fields_at`. Nothing where somebody has signed them
/// (RFC 6376 section 5.4: From is always signed).
pub fn completions(octets: &[u8], fields_at: usize, origin: &str) -> Vec<Splice> {
    let fields = || Fields::new(octets, fields_at);
    if fields().any(|field| field.is("DKIM-Signature")) {
        return Vec::new();
    }
    let mut splices = Vec::new();
    for field in fields().filter(|field| field.is("From")) {
        let start = field.span().end - field.value().len();
        let bare = |mailbox| match mailbox {
            Mailbox::Bare(span) => Some(span.end),
            Mailbox::Address(_) | Mailbox::Odd => None,
        };
        let ends: Vec<usize> = mailboxes(field.value()).into_iter().filter_map(bare).collect();
        // A field so long that it might not fit a line any more is left as it is.
        if field.raw.len() + ends.len() * (origin.len() + 1) <= LINE_OCTETS_MAX {
            splices.extend(ends.into_iter().map(|end| {
                let at = start + end;
                Splice { span: at..at, with: Replacement::from(format!("@{origin}")) }
            }));
        }
    }
    splices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::splice::apply;
    use proptest::prelude::*;

    fn completed(block: &str) -> String {
        let splices = completions(block.as_bytes(), 0, "example.com");
        String::from_utf8(apply(block.as_bytes(), &splices)).unwrap()
    }

    #[test]
    fn bare_names_are_completed_and_addresses_are_left() {
        for (from, wanted) in [
            ("root", "root@example.com"),
            ("root (Cron Daemon)", "root@example.com (Cron Daemon)"),
            ("Cron Daemon <root>", "Cron Daemon <root@example.com>"),
            ("\"Cron, Daemon\"\r\n <root>", "\"Cron, Daemon\"\r\n <root@example.com>"),
            ("< root >", "< root@example.com >"),
            ("www-data, a@x.example, <b>", "www-data@example.com, a@x.example, <b@example.com>"),
            ("Team: root, b@x.example;", "Team: root@example.com, b@x.example;"),
            ("a@x.example", "a@x.example"),
            ("A <a@x.example>", "A <a@x.example>"),
            ("\"q u\"@x.example", "\"q u\"@x.example"),
            ("two words", "two words"),
            ("\"quoted\"", "\"quoted\""),
            ("(only a comment)", "(only a comment)"),
            ("<>", "<>"),
            ("", ""),
        ] {
            let block = format!("Subject: root\r\nFrom: {from}\r\nTo: root\r\n\r\nFrom: root\r\n");
            assert_eq!(
                completed(&block),
                block.replacen(&format!("From: {from}"), &format!("From: {wanted}"), 1)
            );
        }
    }

    #[test]
    fn what_is_signed_stays_as_it_is() {
        let block = "DKIM-Signature: v=1; d=x.example\r\nFrom: root\r\n\r\n";
        assert_eq!(completed(block), block);
    }

    proptest! {
        #[test]
        fn whatever_stands_there_only_the_origin_is_put_in(value in "[ a-z@<>(),:;\"\\\\.\u{e4}]{0,40}") {
            let block = format!("From:{value}\r\n\r\n");
            prop_assert_eq!(completed(&block).replace("@example.com", ""), block);
        }
    }
}
