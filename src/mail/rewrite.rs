//! From as its app should have written it: first what `from_rewrite` puts in the place of an address or a bare name, then
//! `[server] origin` behind the names that are bare still. Programs that cannot be told their domain (cron, scripts)
//! write such senders, and no ESP takes them.

use super::headers::{Field, Fields, LINE_OCTETS_MAX};
use super::mailboxes::{Mailbox, mailboxes};
use super::splice::{Replacement, Splice, octets_after};
use super::terms::Rewrites;
use crate::address::{Address, Grammar};

/// What is to be put in the place of what.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `from_rewrite`
    pub rewrites: &'a Rewrites,
    /// The domain behind bare names.
    pub origin: Option<&'a str>,
}

/// What is done to the From fields of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits {
    /// The changes.
    pub splices: Vec<Splice>,
    /// Why From stays as it is where it should have been changed.
    pub left: Option<&'static str>,
}

/// What is to be done to the From fields of a block that begins at `fields_at`. Nothing where somebody has signed them
/// (RFC 6376 section 5.4: From is always signed): the signature would break.
pub fn edits(octets: &[u8], fields_at: usize, wanted: Wanted<'_>) -> Edits {
    let mut edits = Edits::default();
    if wanted.rewrites.is_empty() && wanted.origin.is_none() {
        return edits;
    }
    let fields = || Fields::new(octets, fields_at);
    for field in fields().filter(|field| field.is("From")) {
        let changes = changes(&field, wanted);
        if changes.is_empty() {
            continue;
        }
        if fields().any(|field| field.is("DKIM-Signature")) {
            edits.left = Some("it is signed by DKIM, and the signature would break");
        } else if octets_after(octets, &changes) + field.raw.len() > octets.len() + LINE_OCTETS_MAX {
            edits.left = Some("it might not fit a line any more");
        } else {
            edits.splices.extend(changes);
        }
    }
    edits
}

fn changes(field: &Field<'_>, wanted: Wanted<'_>) -> Vec<Splice> {
    let start = field.span().end - field.value().len();
    let change = |mailbox| {
        let (span, is_bare) = match mailbox {
            Mailbox::Bare(span) => (span, true),
            Mailbox::Address(span) => (span, false),
            Mailbox::Odd => return None,
        };
        let text = std::str::from_utf8(&field.value()[span.clone()]).ok();
        let parse = if is_bare { Address::bare } else { Address::parse };
        let named = text.and_then(|text| parse(text, Grammar::Lenient).ok());
        let span = start + span.start..start + span.end;
        match (named.and_then(|address| wanted.rewrites.instead_of(&address)), wanted.origin) {
            (Some(other), _) => Some(Splice { span, with: Replacement::from(other.wire().to_owned()) }),
            (None, Some(origin)) if is_bare => {
                Some(Splice { span: span.end..span.end, with: Replacement::from(format!("@{origin}")) })
            }
            (None, _) => None,
        }
    };
    mailboxes(field.value()).into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::splice::apply;
    use proptest::prelude::*;

    fn edited(block: &str, rewrites: &Rewrites) -> (String, Option<&'static str>) {
        let edits = edits(block.as_bytes(), 0, Wanted { rewrites, origin: Some("example.com") });
        (String::from_utf8(apply(block.as_bytes(), &edits.splices)).unwrap(), edits.left)
    }

    fn completed(block: &str) -> String {
        edited(block, &Rewrites::default()).0
    }

    fn rewrites() -> Rewrites {
        let address = |text| Address::parse(text, Grammar::Strict).unwrap();
        Rewrites::of([
            ("@web1.local".into(), address("app@example.com")),
            ("boss@web1.local".into(), address("ceo@example.com")),
            ("root".into(), address("ops@example.net")),
        ])
    }

    #[test]
    fn what_is_shorter_fits() {
        let short = Address::parse("a@b.example", Grammar::Strict).unwrap();
        let rewrites = Rewrites::of([("@a-long-name.of-a-host.local".into(), short)]);
        let (text, left) = edited("From: somebody@a-long-name.of-a-host.local\r\n\r\n", &rewrites);
        assert_eq!((text.as_str(), left), ("From: a@b.example\r\n\r\n", None));
    }

    #[test]
    fn what_a_rule_names_is_replaced_and_what_is_bare_then_is_completed() {
        for (from, wanted) in [
            ("root@Web1.Local", "app@example.com"),
            ("Boss <boss@web1.local>", "Boss <ceo@example.com>"),
            ("Root (Cron) <root>", "Root (Cron) <ops@example.net>"),
            ("\"root\"", "ops@example.net"),
            ("\"root\" <\"root\">", "\"root\" <ops@example.net>"),
            ("a@web1.local <a@web1.local>", "app@example.com <app@example.com>"),
            (
                "www-data, a@sub.web1.local, \"q u\"@web1.local",
                "www-data@example.com, a@sub.web1.local, app@example.com",
            ),
            ("root@web2.local", "root@web2.local"),
            ("root @ web1.local", "root @ web1.local"),
        ] {
            let block = format!("From: {from}\r\nSender: root\r\n\r\nFrom: root\r\n");
            let after = block.replacen(from, wanted, 1);
            assert_eq!(edited(&block, &rewrites()), (after, None));
        }
    }

    #[test]
    fn what_cannot_be_changed_is_left_and_told() {
        let signed = "From: root\r\nDKIM-Signature: v=1; d=x.example\r\n\r\n";
        let (after, left) = edited(signed, &rewrites());
        assert!(after == signed && left.is_some_and(|why| why.contains("DKIM")));
        let fine = "DKIM-Signature: v=1; d=x.example\r\nFrom: a@x.example\r\n\r\n";
        assert_eq!(edited(fine, &rewrites()), (fine.to_owned(), None));
        let long = format!("From: {} <root>\r\n", "x".repeat(LINE_OCTETS_MAX));
        let (after, left) = edited(&long, &rewrites());
        assert!(after == long && left.is_some_and(|why| why.contains("line")));
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
            ("\"root\"", "\"root\"@example.com"),
            ("\"two words\"", "\"two words\""),
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
