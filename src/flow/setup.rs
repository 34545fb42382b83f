//! What the configuration says to courier and intake, as one whole: the ESPs, which mail may go to which, and the
//! streams. It never changes: a reload puts another in its place, and whoever has begun with one goes on with it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::outlet::{self, Load, Outlet};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::esp::{Content, Esp};
use crate::mail::from::{Whose, from_domain};
use crate::mail::{Lane, Message, Rule, StreamKind, StreamName};
use crate::policy::streams::StreamSettings;
use crate::router::{Candidate, PassedOver, Rules};
use crate::wire::Wire;

/// What a setup is made of.
#[derive(Debug)]
pub struct Parts {
    /// The ESPs, in the configuration's order.
    pub esps: Vec<outlet::Parts>,
    /// The streams' rules.
    pub streams: Vec<StreamSettings>,
    /// Which ESPs the configuration lets mail go to, in the same order.
    pub routes: Rules,
}

/// How an ESP is spoken to: what composes and reads, and what carries. One call keeps to one line.
#[derive(Debug)]
pub struct Line {
    /// What it needs and what its answers mean.
    pub esp: Box<dyn Esp>,
    /// How bytes get there.
    pub wire: Arc<dyn Wire>,
}

/// One `[[esp]]`: what this configuration says of it, and the outlet that its name keeps over reloads.
#[derive(Debug, Clone)]
pub struct Carrier {
    /// Gate, allowance, connections.
    pub outlet: Arc<Outlet>,
    /// How it is spoken to.
    pub line: Arc<Line>,
    /// Lower first.
    pub priority: u32,
    /// Share among equal priorities.
    pub weight: u32,
}

impl Carrier {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.outlet.name
    }

    /// What keeps such a load from it, for longer than a moment. The sender is the one that it would be told.
    fn hindrance(&self, load: Load<'_>, now: Timestamp) -> Option<PassedOver> {
        let whose = Whose { sender: load.whose.sender.map(|own| self.line.esp.sender(own)), ..load.whose };
        self.outlet.hindrance(Load { whose, ..load }, now)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Setup {
    /// Counts reloads: who holds the number of an older one knows that it is over.
    pub number: u64,
    /// Every ESP, in the configuration's order.
    pub carriers: Vec<Carrier>,
    routes: Rules,
    streams: HashMap<StreamName, Arc<StreamSettings>>,
}

impl Setup {
    /// The setup of that number, with an outlet for each ESP.
    pub fn new(
        number: u64,
        parts: Parts,
        mut outlet: impl FnMut(&outlet::Parts) -> Arc<Outlet>,
    ) -> Arc<Self> {
        let carrier = |esp: outlet::Parts| Carrier {
            outlet: outlet(&esp),
            line: esp.line,
            priority: esp.priority,
            weight: esp.weight,
        };
        Arc::new(Setup {
            number,
            carriers: parts.esps.into_iter().map(carrier).collect(),
            routes: parts.routes,
            streams: parts.streams.into_iter().map(|s| (s.name.clone(), Arc::new(s))).collect(),
        })
    }

    /// The ESP of that name.
    pub fn carrier(&self, name: &str) -> Option<&Carrier> {
        self.carriers.iter().find(|carrier| carrier.name() == name)
    }

    /// The ESPs' names, in order.
    pub fn names(&self) -> Vec<&str> {
        self.carriers.iter().map(Carrier::name).collect()
    }

    /// The rules of a stream; mail of a stream that is gone follows the default of its kind.
    pub fn stream(&self, stream: &StreamName, kind: StreamKind) -> Arc<StreamSettings> {
        let found = self.streams.get(stream).or_else(|| self.streams.get(&StreamName::default_of(kind)));
        found.cloned().unwrap_or_else(|| Arc::new(StreamSettings::built_in(kind)))
    }

    /// The rules of a stream that is there.
    pub fn stream_named(&self, name: &StreamName) -> Option<&Arc<StreamSettings>> {
        self.streams.get(name)
    }

    /// Those that are there, in order.
    pub fn stream_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.streams.keys().map(StreamName::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Whether some ESP names its From domains.
    pub fn any_domains(&self) -> bool {
        self.routes.any_domains()
    }

    /// Whether some ESP refused some From domain.
    pub fn minds_senders(&self) -> bool {
        self.carriers.iter().any(|c| c.outlet.gate.minds_senders())
    }

    /// The entries that name this recipient and this From domain.
    pub fn bearing_on(&self, recipient: &Address, from_domain: Option<&str>) -> Rule {
        self.routes.bearing_on(recipient, from_domain)
    }

    /// The rules that bear on each recipient; empty where there are none.
    pub fn rules_of(&self, message: &Message) -> Vec<Rule> {
        if !self.routes.any() {
            return Vec::new();
        }
        let from = if self.routes.any_domains() { from_domain(message) } else { None };
        let rule = |address| self.routes.bearing_on(address, from.as_deref());
        message.envelope.recipients.iter().map(rule).collect()
    }

    /// Every ESP as the choice sees it now.
    pub fn candidates(
        &self,
        (stream, kind): (&StreamName, StreamKind),
        rule: &Rule,
        load: Load<'_>,
        now: Timestamp,
    ) -> Vec<Candidate<'_>> {
        let stream = self.stream(stream, kind);
        let mut candidates = Vec::with_capacity(self.carriers.len());
        for (i, c) in self.carriers.iter().enumerate() {
            let kept_out = self.routes.keep_out(i, c.name(), &stream.name, rule);
            let hindrance = kept_out.or_else(|| c.hindrance(load, now));
            candidates.push(Candidate { name: c.name(), priority: c.priority, weight: c.weight, hindrance });
        }
        candidates
    }

    /// Whether mail of that lane can move now, at an ESP with room.
    pub fn moves(&self, lane: &Lane, now: Timestamp) -> bool {
        let load = Load { kind: lane.kind, recipients: 1, whole: false, whose: Whose::default() };
        let stream = self.stream(&lane.stream, lane.kind);
        self.carriers.iter().enumerate().any(|(i, Carrier { outlet, .. })| {
            lane.pin.as_deref().is_none_or(|pin| pin == &*outlet.name)
                && outlet.free() > 0
                && self.routes.keep_out(i, &outlet.name, &stream.name, &lane.rule).is_none()
                && outlet.hindrance(load, now).is_none()
        })
    }

    /// To which of its recipients, by their places, no ESP could ever carry it, with each ESP's reason. For all others there
    /// is one that this configuration lets it go to, and that could carry such content to such an address.
    pub fn never(
        &self,
        message: &Message,
        content: Content<'_>,
        rules: &[Rule],
    ) -> Vec<(usize, Vec<String>)> {
        let none = Rule::default();
        // Asked of an ESP once at most, and of none behind the first that could.
        let unfit: Vec<OnceCell<Option<String>>> = vec![OnceCell::new(); self.carriers.len()];
        let unfit = |i: usize| {
            let ask = || {
                let theirs = self.theirs(i, message, rules);
                self.carriers[i].line.esp.could_carry(&theirs, content).err().map(|unfit| unfit.0)
            };
            unfit[i].get_or_init(ask).clone()
        };
        let keep_out = |i, name: &str, n, to| {
            let rule = rules.get(n).unwrap_or(&none);
            let kept_out = self.routes.keep_out(i, name, &message.stream, rule).map(|why| why.to_string());
            kept_out.or_else(|| unfit(i)).or_else(|| self.takes_not(i, to))
        };
        let of = |(n, to)| {
            Some((n, self.each_reason(message.pin.as_deref(), |i, name| keep_out(i, name, n, to))?))
        };
        message.envelope.recipients.iter().enumerate().filter_map(of).collect()
    }

    /// The message as that ESP would have it: whom the rules send elsewhere is in none of its calls.
    fn theirs<'m>(&self, i: usize, message: &'m Message, rules: &[Rule]) -> Cow<'m, Message> {
        let name = self.carriers[i].name();
        let goes = |rule: &Rule| self.routes.keep_out(i, name, &message.stream, rule).is_none();
        if rules.iter().all(goes) {
            return Cow::Borrowed(message);
        }
        let mut theirs = message.clone();
        let mut goes = rules.iter().map(goes);
        theirs.envelope.recipients.retain(|_| goes.next().unwrap_or(true));
        Cow::Owned(theirs)
    }

    /// Why that ESP does not take such an address.
    fn takes_not(&self, i: usize, to: &Address) -> Option<String> {
        self.carriers[i].line.esp.takes(to).err().map(|unfit| unfit.0)
    }

    /// Why no ESP could ever carry mail of that stream and pin to this recipient, as far as that is known before the
    /// message: each ESP's reason. `None`: one could.
    pub fn never_to(&self, to: &Address, stream: &StreamName, pin: Option<&str>) -> Option<Vec<String>> {
        let rule = if self.routes.any() { self.routes.bearing_on(to, None) } else { Rule::default() };
        let keep_out = |i, name: &str| self.routes.keep_out_to(i, name, stream, &rule);
        self.each_reason(pin, |i, name| {
            keep_out(i, name).map(|why| why.to_string()).or_else(|| self.takes_not(i, to))
        })
    }

    /// Every ESP's reason, where every one has one.
    fn each_reason(
        &self,
        pin: Option<&str>,
        why: impl Fn(usize, &str) -> Option<String>,
    ) -> Option<Vec<String>> {
        let mut reasons = Vec::with_capacity(self.carriers.len());
        for (i, name) in self.names().into_iter().enumerate() {
            let why = match pin.filter(|pin| *pin != name) {
                Some(pin) => PassedOver::Pinned(pin.to_owned()).to_string(),
                None => why(i, name)?,
            };
            reasons.push(format!("{name}: {why}"));
        }
        Some(reasons)
    }
}
