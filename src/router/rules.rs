//! Which ESPs the configuration lets a delivery go to: the stream's `esps`, the ESP's `recipients` and `domains`.
//!
//! A recipient named in some ESP's `recipients` goes only there, and such an ESP carries nobody else. A From domain
//! goes to the ESPs that list it in `domains`, and to those without a list.

use std::sync::Arc;

use super::choose::PassedOver;
use crate::address::Address;
use crate::mail::{Rule, StreamName};

/// What one `[[esp]]` says of whom it carries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carries {
    /// `@corp.example.com` or whole addresses, as keys; empty: everybody that no other ESP names.
    pub recipients: Vec<Arc<str>>,
    /// From domains, as A-labels in lower case; empty: any.
    pub domains: Vec<Arc<str>>,
}

/// All of them, in the order of the ESPs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    esps: Vec<Carries>,
    /// `esps` of each stream that has one.
    streams: Vec<(StreamName, Vec<String>)>,
}

impl Rules {
    /// The rules of these ESPs, and the streams that name their ESPs.
    pub fn new(esps: Vec<Carries>, streams: Vec<(StreamName, Vec<String>)>) -> Self {
        Rules { esps, streams }
    }

    /// Whether some ESP names its recipients or From domains.
    pub fn any(&self) -> bool {
        self.esps.iter().any(|e| !e.recipients.is_empty() || !e.domains.is_empty())
    }

    /// Whether some ESP names its From domains.
    pub fn any_domains(&self) -> bool {
        self.esps.iter().any(|e| !e.domains.is_empty())
    }

    /// The entries that name this recipient and this From domain.
    pub fn bearing_on(&self, recipient: &Address, from_domain: Option<&str>) -> Rule {
        let named = |entries: fn(&Carries) -> &Vec<Arc<str>>, wanted: &str| {
            self.esps.iter().flat_map(entries).find(|entry| ***entry == *wanted).cloned()
        };
        let key = recipient.key();
        let domain = key.rsplit_once('@').map(|(_, domain)| format!("@{domain}"));
        Rule {
            to: named(|e| &e.recipients, &key)
                .or_else(|| domain.and_then(|domain| named(|e| &e.recipients, &domain))),
            from: from_domain.and_then(|domain| named(|e| &e.domains, domain)),
        }
    }

    /// Why the ESP at `esp` does not carry mail of that stream under that rule; `None`: it does.
    pub fn keep_out(&self, esp: usize, name: &str, stream: &StreamName, rule: &Rule) -> Option<PassedOver> {
        self.keep_out_to(esp, name, stream, rule).or_else(|| self.keep_out_from(self.esps.get(esp)?, rule))
    }

    /// The same as far as it is known before the From: by stream and recipient.
    pub fn keep_out_to(
        &self,
        esp: usize,
        name: &str,
        stream: &StreamName,
        rule: &Rule,
    ) -> Option<PassedOver> {
        if let Some((_, esps)) = self.streams.iter().find(|(s, esps)| s == stream && !esps.is_empty())
            && !esps.iter().any(|listed| listed == name)
        {
            return Some(PassedOver::Stream(esps.join(", ")));
        }
        let carries = self.esps.get(esp)?;
        let why = match &rule.to {
            Some(entry) if self.is_named(entry) && !carries.recipients.contains(entry) => {
                Some(format!("{entry} goes only to the ESP that names it in recipients"))
            }
            Some(entry) if self.is_named(entry) => None,
            Some(_) | None if !carries.recipients.is_empty() => {
                Some(format!("carries only {}", carries.recipients.join(", ")))
            }
            Some(_) | None => None,
        };
        why.map(PassedOver::Rule)
    }

    fn keep_out_from(&self, carries: &Carries, rule: &Rule) -> Option<PassedOver> {
        let fits = carries.domains.is_empty()
            || rule.from.as_ref().is_some_and(|domain| carries.domains.contains(domain));
        (!fits).then(|| PassedOver::Rule(format!("carries only mail From {}", carries.domains.join(", "))))
    }

    /// An entry may have gone from the configuration since mail was accepted under it.
    fn is_named(&self, entry: &Arc<str>) -> bool {
        self.esps.iter().any(|e| e.recipients.contains(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Grammar;

    fn address(text: &str) -> Address {
        Address::parse(text, Grammar::Lenient).unwrap()
    }

    fn rules() -> Rules {
        let list = |entries: &[&str]| entries.iter().map(|e| Arc::from(*e)).collect();
        Rules::new(
            vec![
                Carries::default(),
                Carries { recipients: list(&["@corp.example", "boss@other.example"]), domains: vec![] },
                Carries { recipients: vec![], domains: list(&["shop.example"]) },
            ],
            vec![(StreamName::new("news"), vec!["b".into()])],
        )
    }

    /// Which of the three carry it.
    fn open(stream: &str, to: &str, from: Option<&str>) -> Vec<usize> {
        let rules = rules();
        let rule = rules.bearing_on(&address(to), from);
        let stream = StreamName::new(stream);
        let names = ["a", "b", "c"];
        (0..3).filter(|i| rules.keep_out(*i, names[*i], &stream, &rule).is_none()).collect()
    }

    #[test]
    fn named_recipients_go_only_there_and_nobody_else_does() {
        assert_eq!(open("transactional", "x@corp.example", None), [1]);
        assert_eq!(open("transactional", "X@Corp.Example", None), [1]);
        assert_eq!(open("transactional", "boss@other.example", None), [1]);
        assert_eq!(open("transactional", "clerk@other.example", None), [0]);
    }

    #[test]
    fn a_from_domain_goes_where_it_is_listed_and_where_no_list_is() {
        assert_eq!(open("transactional", "x@y.example", Some("shop.example")), [0, 2]);
        assert_eq!(open("transactional", "x@y.example", Some("other.example")), [0]);
        assert_eq!(open("transactional", "x@y.example", None), [0]);
    }

    #[test]
    fn a_stream_goes_through_the_esps_that_it_names() {
        assert_eq!(open("news", "x@corp.example", None), [1]);
        assert_eq!(open("news", "x@y.example", None), [] as [usize; 0]);
        let why = rules().keep_out(0, "a", &StreamName::new("news"), &Rule::default()).unwrap();
        assert_eq!(why.to_string(), "the stream goes through b only");
    }
}
