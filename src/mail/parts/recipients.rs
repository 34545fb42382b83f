//! Whom an API call names: the recipients of the call, each where the header names it, and nobody else (promise 2).

use std::collections::{HashMap, HashSet};

use super::{Lossy, Mailbox, Parts, ascii};
use crate::address::Address;

/// The recipients of one call, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addressed {
    /// Named in To.
    pub to: Vec<Mailbox>,
    /// Named in Cc, and not in To.
    pub cc: Vec<Mailbox>,
    /// Named in neither.
    pub bcc: Vec<Mailbox>,
}

impl Addressed {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Mailbox> {
        self.to.iter().chain(&self.cc).chain(&self.bcc)
    }
}

impl Parts<'_> {
    /// Parts the recipients of a call by the field that names them. Every address in To and Cc must be one of them: the
    /// API makes the header of those it mails, and mails those it makes the header of. Addresses are spelled as in
    /// `recipients`, but for A-labels; names are the header's.
    pub fn addressed(&self, recipients: &[Address]) -> Result<Addressed, Lossy> {
        let mut left = by_key(recipients)?;
        let mut seen = HashSet::new();
        let mut named = |mailboxes: &[Mailbox]| {
            let mut found = Vec::new();
            for mailbox in mailboxes {
                let key = mailbox.address.key();
                if let Some((_, address)) = left.remove(&key) {
                    found.push(Mailbox { name: mailbox.name.clone(), address });
                } else if !seen.contains(&key) {
                    return Err(others(mailbox));
                }
                seen.insert(key);
            }
            Ok(found)
        };
        let (to, cc) = (named(&self.to)?, named(&self.cc)?);
        let mut bcc: Vec<(usize, Address)> = left.into_values().collect();
        bcc.sort_by_key(|(n, _)| *n);
        let bcc = bcc.into_iter().map(|(_, address)| Mailbox { name: None, address }).collect();
        Ok(Addressed { to, cc, bcc })
    }
}

impl Parts<'_> {
    /// Whether To and Cc name one who is none of these: no call for any of them can be [`Parts::addressed`] then.
    pub fn names_others_than(&self, recipients: &[Address]) -> Result<(), Lossy> {
        let known: HashSet<String> = recipients.iter().map(Address::key).collect();
        let mut named = self.to.iter().chain(&self.cc);
        named
            .find(|mailbox| !known.contains(&mailbox.address.key()))
            .map_or(Ok(()), |other| Err(others(other)))
    }
}

fn others(mailbox: &Mailbox) -> Lossy {
    Lossy(format!(
        "the address {} in To or Cc: it is no recipient of this call, and the API would mail it",
        mailbox.address
    ))
}

/// The recipients by key, with their places.
fn by_key(recipients: &[Address]) -> Result<HashMap<String, (usize, Address)>, Lossy> {
    let mut known: HashMap<String, (usize, Address)> = HashMap::with_capacity(recipients.len());
    for (n, recipient) in recipients.iter().enumerate() {
        let address = match recipient.domain() {
            Some(_) => ascii(recipient),
            None => None,
        };
        let Some(address) = address else {
            return Err(Lossy(format!(
                "the recipient {recipient}: it can be written only as SMTP writes it"
            )));
        };
        match known.get(&recipient.key()) {
            Some((_, other)) if other.mailbox() != address.mailbox() => {
                return Err(Lossy(format!(
                    "one of the recipients {other} and {address}: APIs take them for one"
                )));
            }
            Some(_) => {}
            None => {
                known.insert(recipient.key(), (n, address));
            }
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Grammar;
    use crate::mail::parts::take_apart;
    use proptest::prelude::*;

    fn address(text: &str) -> Address {
        Address::parse(text, Grammar::Lenient).unwrap()
    }

    fn told(head: &str, recipients: &[&str]) -> Result<String, String> {
        let content = format!("From: a@shop.example\r\n{head}\r\nhi\r\n");
        let recipients: Vec<Address> = recipients.iter().map(|text| address(text)).collect();
        let parts = take_apart(content.as_bytes()).unwrap();
        let addressed = parts.addressed(&recipients).map_err(|lossy| lossy.to_string())?;
        let list = |mailboxes: &[Mailbox]| {
            let one =
                |m: &Mailbox| format!("{}{}", m.name.clone().map_or(String::new(), |n| n + "="), m.address);
            mailboxes.iter().map(one).collect::<Vec<_>>().join(",")
        };
        Ok(format!("{}|{}|{}", list(&addressed.to), list(&addressed.cc), list(&addressed.bcc)))
    }

    #[test]
    fn each_recipient_stands_once_where_the_header_names_it_first() {
        for (head, recipients, wanted) in [
            (
                "To: A <a@x.example>, b@x.example\r\n",
                &["a@x.example", "b@x.example"][..],
                "A=a@x.example,b@x.example||",
            ),
            ("To: A <A@X.example>\r\nCc: B <a@x.EXAMPLE>\r\n", &["a@x.example"], "A=a@x.example||"),
            (
                "Cc: a@x.example\r\n",
                &["c@x.example", "a@x.example", "b@x.example"],
                "|a@x.example|c@x.example,b@x.example",
            ),
            ("To: undisclosed-recipients:;\r\n", &["A@x.example", "A@X.example"], "||A@x.example"),
            ("To: a@b\u{fc}cher.example\r\n", &["a@b\u{fc}cher.example"], "a@xn--bcher-kva.example||"),
            ("To: a@x.example, A=?= <a@x.example>\r\n", &["a@x.example"], "a@x.example||"),
        ] {
            assert_eq!(told(head, recipients).as_deref(), Ok(wanted), "{head}");
        }
    }

    #[test]
    fn nobody_else_is_named() {
        for (head, recipients, why) in [
            ("To: a@x.example, c@x.example\r\n", &["a@x.example"][..], "c@x.example"),
            ("To: a@x.example\r\nCc: c@x.example\r\n", &["a@x.example"], "c@x.example"),
            ("To: a@x.example\r\n", &[], "a@x.example"),
            ("To: a@x.example\r\n", &["a@x.example", "gr\u{fc}n@x.example"], "gr\u{fc}n"),
            ("", &["a@x.example", "A@x.example"], "for one"),
        ] {
            let lossy = told(head, recipients).unwrap_err();
            assert!(lossy.contains(why), "{lossy}");
        }
        let parts = take_apart(b"From: a@shop.example\r\n\r\n").unwrap();
        let bare = Address::bare("postmaster", Grammar::Strict).unwrap();
        assert!(parts.addressed(&[bare]).is_err());
    }

    proptest! {
        #[test]
        fn the_recipients_come_out_whoever_is_named(
            to in prop::collection::vec("[a-dA-D]", 0..4),
            cc in prop::collection::vec("[a-d]", 0..4),
            recipients in prop::collection::vec("[a-d]", 0..5),
        ) {
            let list = |names: &[String]| names.iter().map(|n| format!("{n}@x.example")).collect::<Vec<_>>();
            let content = format!(
                "From: s@shop.example\r\nTo: {}\r\nCc: {}\r\n\r\n", list(&to).join(", "), list(&cc).join(", ")
            );
            let parts = take_apart(content.as_bytes()).unwrap();
            let recipients: Vec<Address> = list(&recipients).iter().map(|text| address(text)).collect();
            let mut wanted: Vec<String> = recipients.iter().map(Address::key).collect();
            wanted.sort();
            wanted.dedup();
            let all_known = to.iter().chain(&cc)
                .all(|n| wanted.contains(&format!("{}@x.example", n.to_lowercase())));
            match parts.addressed(&recipients) {
                Err(_) => prop_assert!(!all_known),
                Ok(addressed) => {
                    prop_assert!(all_known);
                    let mut named: Vec<String> = addressed.iter().map(|m| m.address.key()).collect();
                    named.sort();
                    prop_assert_eq!(named, wanted);
                }
            }
        }
    }
}
