//! What a listener or a credential binds its clients to, for apps that nobody can change.

use std::collections::BTreeMap;
use std::time::Duration;

use super::quota::Rate;
use crate::address::Address;

/// See the module. What says nothing binds nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// As whom they may send, in the envelope and in From; empty: as anybody.
    pub senders: Names,
    /// How much they may send.
    pub rate: Option<Rate>,
    /// Who stands in the place of senders that they name, in the envelope and in From.
    pub from_rewrite: Rewrites,
    /// Whom they may mail; empty: anybody.
    pub only_to: Names,
    /// Where mail for anybody else goes; with an empty `only_to`: all of it.
    pub redirect_to: Option<Address>,
    /// For how long the same mail again is taken for the first.
    pub dedupe: Option<Duration>,
    /// What is written empty here: a listener's does not hold.
    pub lifts: Lifts,
}

/// Which of a listener's terms a login is free of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lifts {
    /// `from_rewrite = {}`
    pub from_rewrite: bool,
    /// `only_to = []`
    pub only_to: bool,
    /// `redirect_to = ""`
    pub redirect_to: bool,
    /// `dedupe = ""`
    pub dedupe: bool,
}

impl Terms {
    /// These where they say something, else what `general` says.
    pub fn over(&self, general: &Terms) -> Terms {
        let Lifts { from_rewrite, only_to, redirect_to, dedupe } = self.lifts;
        let redirected = if redirect_to { None } else { general.redirect_to.clone() };
        Terms {
            senders: self.senders.or(&general.senders),
            rate: self.rate.or(general.rate),
            from_rewrite: if from_rewrite {
                Rewrites::default()
            } else {
                self.from_rewrite.or(&general.from_rewrite)
            },
            only_to: if only_to { Names::default() } else { self.only_to.or(&general.only_to) },
            redirect_to: self.redirect_to.clone().or(redirected),
            dedupe: self.dedupe.or(if dedupe { None } else { general.dedupe }),
            lifts: Lifts::default(),
        }
    }

    /// Whether they may mail anybody.
    pub fn is_unguarded(&self) -> bool {
        self.only_to.is_empty() && self.redirect_to.is_none()
    }

    /// Where mail for this recipient goes; `None`: nowhere.
    pub fn goes_to<'a>(&'a self, recipient: &'a Address) -> Option<&'a Address> {
        if self.is_unguarded() || self.only_to.name(recipient) {
            return Some(recipient);
        }
        self.redirect_to.as_ref()
    }
}

/// Addresses and whole domains.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names(Vec<String>);

impl Names {
    /// These, each `@example.com` or an address, in the form of [`Address::key`].
    pub fn of(names: Vec<String>) -> Self {
        Names(names)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this address is one of them, or of one of their domains; subdomains are others.
    pub fn name(&self, address: &Address) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let key = address.key();
        let at = address.domain().and(key.rfind('@'));
        self.0.iter().any(|name| *name == key || at.is_some_and(|at| *name == key[at..]))
    }

    /// Them, for people: the first few.
    pub fn told(&self) -> String {
        const TOLD_MAX: usize = 5;
        let mut told = self.0.iter().take(TOLD_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        if self.0.len() > TOLD_MAX {
            told += ", …";
        }
        told
    }

    fn or(&self, general: &Names) -> Names {
        if self.is_empty() { general.clone() } else { self.clone() }
    }
}

/// Addresses that stand in the place of others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrites(BTreeMap<String, Address>);

impl Rewrites {
    /// For each `@example.com`, address or bare name, in the form of [`Address::key`], what stands in its place.
    pub fn of(rules: impl IntoIterator<Item = (String, Address)>) -> Self {
        Rewrites(rules.into_iter().collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands in the place of this address or bare name: by a rule for itself, else by one for its domain.
    pub fn instead_of(&self, address: &Address) -> Option<&Address> {
        if self.0.is_empty() {
            return None;
        }
        let key = address.key();
        let at = address.domain().and(key.rfind('@'));
        self.0.get(&key).or_else(|| self.0.get(&key[at?..]))
    }

    fn or(&self, general: &Rewrites) -> Rewrites {
        if self.is_empty() { general.clone() } else { self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Grammar;

    #[test]
    fn a_name_is_an_address_or_its_domain_and_no_subdomain() {
        let names = Names::of(vec!["@shop.example".into(), "boss@corp.example".into()]);
        for (address, named) in [
            ("A@Shop.Example", true),
            ("\"x@y\"@shop.example", true),
            ("boss@corp.example", true),
            ("clerk@corp.example", false),
            ("a@sub.shop.example", false),
            ("\"x@shop.example\"@evil.example", false),
        ] {
            let address = Address::parse(address, Grammar::Lenient).unwrap();
            assert_eq!(names.name(&address), named, "{address}");
        }
        let bare = Address::bare("\"x@shop.example\"", Grammar::Lenient).unwrap();
        assert!(!names.name(&bare));
        assert!(!Names::default().name(&bare));
    }

    #[test]
    fn a_credential_s_terms_stand_before_its_listener_s() {
        let rate = |recipients| Some(Rate { recipients, per: Duration::from_secs(60) });
        let address = Address::parse("a@b.example", Grammar::Strict).unwrap();
        let general = Terms {
            senders: Names::of(vec!["@a.example".into()]),
            rate: rate(5),
            from_rewrite: Rewrites::of([("root".into(), address.clone())]),
            only_to: Names::of(vec!["@b.example".into()]),
            redirect_to: Some(address),
            dedupe: Some(Duration::from_secs(600)),
            lifts: Lifts::default(),
        };
        let own = Terms { rate: rate(7), ..Terms::default() };
        assert_eq!(own.over(&general), Terms { rate: rate(7), ..general.clone() });
    }

    #[test]
    fn a_recipient_goes_where_the_guard_lets_it() {
        let address = |text| Address::parse(text, Grammar::Strict).unwrap();
        let (inside, outside, qa) =
            (address("a@corp.example"), address("a@x.example"), address("qa@y.example"));
        let corp = || Names::of(vec!["@corp.example".into()]);
        let none = Terms::default();
        assert_eq!(none.goes_to(&outside), Some(&outside));
        let only = Terms { only_to: corp(), ..Terms::default() };
        assert_eq!((only.goes_to(&inside), only.goes_to(&outside)), (Some(&inside), None));
        let both = Terms { only_to: corp(), redirect_to: Some(qa.clone()), ..Terms::default() };
        assert_eq!((both.goes_to(&inside), both.goes_to(&outside)), (Some(&inside), Some(&qa)));
        let all = Terms { redirect_to: Some(qa.clone()), ..Terms::default() };
        assert_eq!((all.goes_to(&inside), all.goes_to(&qa)), (Some(&qa), Some(&qa)));
    }
}
