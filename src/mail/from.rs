//! Whose mail it is, as ESPs see it: the domain of the From field.

use mail_parser::parsers::MessageStream;

use super::envelope::ReversePath;
use super::headers::{Fields, fields};
use super::message::Message;
use crate::address::{Address, Grammar};

/// Whom a message comes from, as one ESP is told it; as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Whose<'a> {
    /// See [`from_domain`].
    pub from_domain: Option<&'a str>,
    /// The envelope's.
    pub sender: Option<&'a ReversePath>,
}

/// The domain of the first From address in the form of [`Address::key`]; where there is none, the envelope sender's.
pub fn from_domain(message: &Message) -> Option<String> {
    in_header(&message.body.head).or_else(|| match &message.envelope.sender {
        ReversePath::Mailbox(sender) => key_domain(sender),
        ReversePath::Null => None,
    })
}

/// Whom the From field names, each in the form of [`Address::key`]; what is no address is left out.
pub fn from_keys(head: &[u8]) -> Vec<String> {
    let Some(field) = fields(head).find(|field| field.is("From")) else { return Vec::new() };
    let parsed = MessageStream::new(field.value()).parse_address();
    let Some(all) = parsed.as_address() else { return Vec::new() };
    let key = |text: &str| Address::parse(text, Grammar::Lenient).ok().map(|address| address.key());
    all.iter().filter_map(|one| key(one.address()?)).collect()
}

fn in_header(head: &[u8]) -> Option<String> {
    let field = Fields::new(head, 0).find(|field| field.is("From"))?;
    let parsed = MessageStream::new(field.value()).parse_address();
    let address = parsed.as_address()?.first()?.address()?.to_owned();
    key_domain(&Address::parse(&address, Grammar::Lenient).ok()?)
}

fn key_domain(address: &Address) -> Option<String> {
    address.key().rsplit_once('@').map(|(_, domain)| domain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_found_whatever_is_written_around_it() {
        for (head, domain) in [
            ("To: x\r\nFrom: Shop <a@Shop.Example>\r\n\r\n", Some("shop.example")),
            ("From: a@shop.example, b@other.example\r\n\r\n", Some("shop.example")),
            ("From:\r\n \"x, y\" (c) <a@shop.example>\r\n\r\n", Some("shop.example")),
            ("Subject: From: a@b.example\r\n\r\nFrom: a@c.example\r\n", None),
            ("From: nobody\r\n\r\n", None),
        ] {
            assert_eq!(in_header(head.as_bytes()).as_deref(), domain, "{head}");
        }
    }
}
