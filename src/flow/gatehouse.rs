//! What keeps mail from an ESP, at work: its gate, told of each answer and asked before each begin; an operator's
//! suspension; the pause it asked for; the envelope senders and From domains that it refused. And what is in flight, watched for a hang.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Timestamp, monotonic};
use crate::journal::{self, Alert};
use crate::mail::from::Whose;
use crate::mail::{Fault, Message, Named, Outcome, ReversePath, Rule, Throttle, Watch};
use crate::router::{Admits, Gate, Guard, PassedOver, Sign};
use crate::store::Suspension;

/// What has not moved for so long, while nothing else was answered, hangs…
const HANG_AFTER_MIN: Duration = Duration::from_secs(3);
/// …but not before so many times what an answer usually takes.
const HANG_TIMES_USUAL: f64 = 4.0;
/// A pause that an ESP asked for without saying how long.
const PAUSE: Duration = Duration::from_secs(1);
/// A sender that an ESP refused is tried there again after so long: somebody may have set it up meanwhile.
const SENDER_CLOSED_FOR: Duration = Duration::from_secs(600);
/// Refused senders of either sort that are remembered of one ESP. One more is asked about each time.
const SENDERS_MAX: usize = 1_000;

/// See the module.
#[derive(Debug)]
pub struct Gatehouse {
    esp: String,
    gate: Mutex<Gate>,
    flight: Mutex<Flight>,
    stops: Mutex<Stops>,
    /// Some of `stops` is there: most look-ups need no lock.
    any_stop: AtomicBool,
    shut: Alert,
    systemic: Alert,
}

/// What else keeps mail from it.
#[derive(Debug, Default)]
struct Stops {
    suspension: Option<Suspension>,
    /// All sending is paused.
    all: Option<Suspension>,
    /// Until when, and its words.
    pause: Option<(Timestamp, String)>,
    /// Envelope senders as they stand between the angle brackets, and until when.
    envelopes: HashMap<String, Timestamp>,
    /// From domains, and until when.
    from_domains: HashMap<String, Timestamp>,
    guard: Guard,
}

/// What one call met, as far as it bears on the ESP.
#[derive(Debug)]
pub struct Met<'a> {
    /// One for each recipient.
    pub outcomes: &'a [Outcome],
    /// The recipients' keys, where one was refused for good.
    pub keys: &'a [String],
    /// Whom the message comes from, where that was refused.
    pub whose: Whose<'a>,
    /// It hung, and was ended before its hand-over.
    pub given_up: bool,
}

/// What follows from it.
#[derive(Debug, Default, PartialEq)]
pub struct Judged {
    /// Which recipients' refusals are the ESP's fault.
    pub systemic: Vec<bool>,
    /// States that changed for the worse: kind and words, for an event each.
    pub alerts: Vec<(&'static str, String)>,
}

/// One call on the wire.
#[derive(Clone, Debug)]
pub struct Flying {
    /// The exchange.
    pub watch: Watch,
    /// What it carries.
    pub message: Arc<Message>,
    /// The domain rules that bear on it.
    pub rule: Rule,
    /// ESPs that its round has tried, this one included.
    pub tried: Vec<Arc<str>>,
    /// An open attempt binds it to this one.
    pub bound: bool,
}

/// What is on the wire.
#[derive(Debug)]
struct Flight {
    /// One place a connection.
    calls: Vec<Option<Flying>>,
    answered_at: Instant,
    /// Seconds that an answer takes; the last eight weigh most.
    usual_seconds: f64,
    last_error: Option<(Timestamp, String)>,
}

impl Gatehouse {
    /// An open gate with that many connections behind it.
    pub fn new(esp: &str, connections: usize, now: Timestamp) -> Self {
        let calls = vec![None; connections];
        Gatehouse {
            esp: esp.to_owned(),
            gate: Mutex::new(Gate::new(now)),
            flight: Mutex::new(Flight {
                calls,
                answered_at: monotonic(),
                usual_seconds: 0.0,
                last_error: None,
            }),
            stops: Mutex::default(),
            any_stop: AtomicBool::new(false),
            shut: Alert::new("esp_shut"),
            systemic: Alert::new("esp_refuses_everybody"),
        }
    }

    /// What keeps such mail from it now.
    pub fn hindrance(&self, whose: Whose<'_>, now: Timestamp) -> Option<PassedOver> {
        if self.any_stop.load(Ordering::Acquire)
            && let Some(stop) = self.stops().hindrance(whose, now)
        {
            return Some(stop);
        }
        self.gate().why_passed_over().map(|why| PassedOver::Shut(why.to_owned()))
    }

    /// Whether it refused some From domain: then a message's own is to be looked at.
    pub fn minds_senders(&self) -> bool {
        self.any_stop.load(Ordering::Acquire) && !self.stops().from_domains.is_empty()
    }

    /// Suspends it, or with `None` resumes it.
    pub fn suspend(&self, suspension: Option<Suspension>) {
        let mut stops = self.stops();
        stops.suspension = suspension;
        self.any_stop.store(stops.any(), Ordering::Release);
    }

    /// Pauses it with all the others, or with `None` lets it go on.
    pub fn pause_with_all(&self, pause: Option<Suspension>) {
        let mut stops = self.stops();
        stops.all = pause;
        self.any_stop.store(stops.any(), Ordering::Release);
    }

    /// Whether all sending is paused.
    pub fn is_paused(&self) -> bool {
        self.any_stop.load(Ordering::Acquire) && self.stops().all.is_some()
    }

    /// The suspension that is in force.
    pub fn suspension(&self, now: Timestamp) -> Option<Suspension> {
        if !self.any_stop.load(Ordering::Acquire) {
            return None;
        }
        self.stops().suspension.clone().filter(|s| s.until.is_none_or(|until| until > now))
    }

    /// An operator says that it is well: whatever had shut it is forgotten, and so is what it asked for.
    pub fn reopen(&self, now: Timestamp) {
        {
            let mut stops = self.stops();
            *stops = Stops { all: stops.all.take(), ..Stops::default() };
            self.any_stop.store(stops.any(), Ordering::Release);
        }
        *self.gate() = Gate::new(now);
        self.shut.clear(format_args!("{}: opened by an operator", self.esp));
        self.systemic.clear(format_args!("{}: opened by an operator", self.esp));
    }

    /// Seconds that an answer takes of late.
    pub fn usual_seconds(&self) -> f64 {
        self.flight().usual_seconds
    }

    /// Its words when it last failed, and when.
    pub fn last_error(&self) -> Option<(Timestamp, String)> {
        self.flight().last_error.clone()
    }

    /// Its gate's state in a word.
    pub fn word(&self) -> &'static str {
        self.gate().word()
    }

    /// What may be begun.
    pub fn admits(&self, now: Timestamp) -> Admits {
        self.gate().admits(now)
    }

    /// Takes the one message of a gate that probes.
    pub fn take_probe(&self) -> bool {
        self.gate().take_probe()
    }

    /// The one message was not sent.
    pub fn give_probe_back(&self) {
        self.gate().give_probe_back();
    }

    /// Why it is shut.
    pub fn why_shut(&self) -> Option<String> {
        self.gate().why_shut().map(str::to_owned)
    }

    /// Whether what is begun must not start any more: it was shut since, or suspended. `probe`: it is the one message of
    /// a gate that probes.
    pub fn turns_away(&self, probe: bool, now: Timestamp) -> bool {
        self.gate().turns_away(probe) || self.suspension(now).is_some() || self.is_paused()
    }

    /// It has so many connections now.
    pub fn has_connections(&self, connections: usize) {
        let mut flight = self.flight();
        if flight.calls.len() < connections {
            flight.calls.resize(connections, None);
        }
    }

    /// Its settings have changed: what shut it may be mended, and its free check is due at once.
    pub fn check_now(&self, now: Timestamp) {
        self.gate().check_now(now);
    }

    /// A call begins on that connection.
    pub fn departs(&self, connection: usize, call: Flying) {
        if let Some(place) = self.flight().calls.get_mut(connection) {
            *place = Some(call);
        }
    }

    /// Nothing is on that connection any more.
    pub fn lands(&self, connection: usize) {
        if let Some(place) = self.flight().calls.get_mut(connection) {
            *place = None;
        }
    }

    /// A call has ended after so long. Where its settings are `current` no more, its failure says nothing of the gate:
    /// a password that was changed is no fault of the ESP.
    pub fn returns(&self, met: &Met<'_>, took: Duration, now: Timestamp, current: bool) -> Judged {
        let mut judged = self.note_stops(met, now);
        let sign = sign(met.outcomes, &judged.systemic).map(|(sign, said)| match sign {
            Sign::Fault if met.given_up => (Sign::Stray, said),
            sign => (sign, said),
        });
        let sign = sign.filter(|(sign, _)| current || *sign == Sign::Alive);
        {
            let mut flight = self.flight();
            if let Some((Sign::Fault | Sign::Account | Sign::Hang | Sign::Stray, said)) = sign {
                flight.last_error = Some((now, said.to_owned()));
            }
            if let Some((Sign::Alive, _)) = sign {
                flight.answered_at = monotonic();
                flight.usual_seconds += (took.as_secs_f64() - flight.usual_seconds) / 8.0;
            }
        }
        if let Some((sign, said)) = sign {
            let changed = self.gate().note(sign, said, now);
            judged.alerts.extend(self.tell(changed));
        }
        judged
    }

    /// Calls of which nothing has moved for too long. Where nothing else was answered meanwhile the gate is shut, and what
    /// is told of it is given as well; where others are answered, only what is not handed over counts. What may go nowhere
    /// else is waited for as long as the wire does, and says nothing of the gate.
    pub fn find_hang(
        &self,
        now: Timestamp,
        goes_elsewhere: impl Fn(&Flying) -> bool,
    ) -> (Vec<Watch>, Option<(&'static str, String)>) {
        let (hung, others_flow) = self.flight().hung();
        let hung: Vec<Watch> = hung.into_iter().filter(goes_elsewhere).map(|call| call.watch).collect();
        if others_flow {
            return (hung, None);
        }
        let Some(still_for) = hung.iter().map(Watch::still_for).max() else { return (hung, None) };
        let changed = self.gate().note(Sign::Hang, &format!("nothing has moved for {still_for:.1?}"), now);
        (hung, self.tell(changed))
    }

    /// Whether its free check is due; the caller makes it.
    pub fn takes_check(&self, now: Timestamp) -> bool {
        self.gate().takes_check(now)
    }

    /// How the free check went.
    pub fn checked(&self, result: Result<(), String>, now: Timestamp) {
        self.gate().checked(result, now);
    }

    fn tell(&self, changed: bool) -> Option<(&'static str, String)> {
        if !changed {
            return None;
        }
        match self.why_shut() {
            Some(why) => {
                let words = format!("{}: no mail goes there: {why}", self.esp);
                self.shut.raise(&words).then_some(("esp_shut", words))
            }
            None => {
                self.shut.clear(format_args!("{}: takes mail again", self.esp));
                None
            }
        }
    }

    /// Takes what bears on the guard, on the pause and on senders.
    fn note_stops(&self, met: &Met<'_>, now: Timestamp) -> Judged {
        let mut judged = Judged { systemic: vec![false; met.outcomes.len()], alerts: Vec::new() };
        if met.outcomes.iter().all(|o| matches!(o, Outcome::Accepted { .. }))
            && !self.any_stop.load(Ordering::Acquire)
        {
            return judged;
        }
        let mut stops = self.stops();
        stops.forget(now);
        for (n, outcome) in met.outcomes.iter().enumerate() {
            match outcome {
                Outcome::Accepted { .. } if stops.guard.accepted() => {
                    self.systemic.clear(format_args!("{}: takes recipients again", self.esp));
                }
                Outcome::Refused { fault: Fault::Recipient, lasting: true, said, .. } => {
                    let key = met.keys.get(n).map(String::as_str).unwrap_or_default();
                    if stops.guard.refused(key) {
                        let words = format!("{}: refuses one recipient after the other: {said}", self.esp);
                        self.systemic.raise(&words);
                        judged.alerts.push(("esp_refuses_everybody", words));
                    }
                    judged.systemic[n] = stops.guard.is_up();
                }
                Outcome::Refused { fault: Fault::Throttled(throttle), wait, said, .. } => {
                    stops.pause(*throttle, *wait, said, now);
                }
                Outcome::Refused { fault: Fault::Sender(named), said, .. } => {
                    if let Some(what) = stops.close_sender(*named, met.whose, now) {
                        let words = format!("{}: refuses {what}: {said}", self.esp);
                        journal::alert("sender_refused", &words);
                        judged.alerts.push(("sender_refused", words));
                    }
                }
                Outcome::Accepted { .. }
                | Outcome::Refused { .. }
                | Outcome::Unfit { .. }
                | Outcome::Unsure { .. } => {}
            }
        }
        self.any_stop.store(stops.any(), Ordering::Release);
        judged
    }

    fn stops(&self) -> MutexGuard<'_, Stops> {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stops {
    fn any(&self) -> bool {
        self.suspension.is_some()
            || self.all.is_some()
            || self.pause.is_some()
            || !self.envelopes.is_empty()
            || !self.from_domains.is_empty()
            || !self.guard.is_clear()
    }

    /// Drops what is over.
    fn forget(&mut self, now: Timestamp) {
        let over = |until: Option<Timestamp>| until.is_some_and(|until| until <= now);
        self.suspension.take_if(|s| over(s.until));
        self.pause.take_if(|(until, _)| *until <= now);
        self.envelopes.retain(|_, until| *until > now);
        self.from_domains.retain(|_, until| *until > now);
    }

    fn hindrance(&self, whose: Whose<'_>, now: Timestamp) -> Option<PassedOver> {
        if let Some(all) = &self.all {
            return Some(PassedOver::AllPaused(all.reason.clone()));
        }
        if let Some(s) = self.suspension.as_ref().filter(|s| s.until.is_none_or(|until| until > now)) {
            return Some(PassedOver::Suspended { reason: s.reason.clone(), until: s.until });
        }
        if let Some((until, said)) = self.pause.as_ref().filter(|(until, _)| *until > now) {
            return Some(PassedOver::Paused { said: said.clone(), until: *until });
        }
        self.closed_sender(whose, now)
    }

    fn closed_sender(&self, whose: Whose<'_>, now: Timestamp) -> Option<PassedOver> {
        let until = |known: &HashMap<String, Timestamp>, who: &str| {
            known.get(who).copied().filter(|until| *until > now)
        };
        if let Some(sender) = whose.sender.filter(|_| !self.envelopes.is_empty()).map(mailbox)
            && let Some(until) = until(&self.envelopes, &sender)
        {
            return Some(PassedOver::Sender { what: envelope(&sender), until });
        }
        let domain = whose.from_domain?;
        Some(PassedOver::Sender { what: from(domain), until: until(&self.from_domains, domain)? })
    }

    fn pause(&mut self, throttle: Throttle, wait: Option<Duration>, said: &str, now: Timestamp) {
        let asked = now.plus(wait.unwrap_or(PAUSE));
        let until = match throttle {
            Throttle::Rate => asked,
            Throttle::Window(until) => asked.max(until),
        };
        if self.pause.as_ref().is_none_or(|(known, _)| *known < until) {
            self.pause = Some((until, said.to_owned()));
        }
    }

    /// Keeps mail of exactly that sender away. What it refuses, in words, where that is news.
    fn close_sender(&mut self, named: Named, whose: Whose<'_>, now: Timestamp) -> Option<String> {
        let (closed, who, what) = match named {
            Named::Envelope => {
                let sender = mailbox(whose.sender?);
                let what = envelope(&sender);
                (&mut self.envelopes, sender, what)
            }
            Named::From => {
                let domain = whose.from_domain?;
                (&mut self.from_domains, domain.to_owned(), from(domain))
            }
        };
        if closed.len() >= SENDERS_MAX {
            return None;
        }
        closed.insert(who, now.plus(SENDER_CLOSED_FOR)).is_none().then_some(what)
    }
}

/// One form for all spellings of one envelope sender; empty for `<>`.
fn mailbox(sender: &ReversePath) -> String {
    match sender {
        ReversePath::Null => String::new(),
        ReversePath::Mailbox(address) => address.mailbox(),
    }
}

fn envelope(sender: &str) -> String {
    format!("MAIL FROM:<{sender}>")
}

fn from(domain: &str) -> String {
    format!("mail From {domain}")
}

impl Flight {
    /// And whether others were answered meanwhile.
    fn hung(&self) -> (Vec<Flying>, bool) {
        let usual = Duration::from_secs_f64(self.usual_seconds * HANG_TIMES_USUAL);
        let limit = HANG_AFTER_MIN.max(usual);
        let others_flow = self.answered_at.elapsed() < limit;
        let hangs = |call: &&Flying| {
            let leaves = !call.bound && call.watch.handed_over_for().is_none();
            call.watch.still_for() >= limit && (leaves || !others_flow)
        };
        (self.calls.iter().flatten().filter(hangs).cloned().collect(), others_flow)
    }
}

/// What a call's outcomes say of the ESP; nothing where it was not asked.
fn sign<'o>(outcomes: &'o [Outcome], systemic: &[bool]) -> Option<(Sign, &'o str)> {
    let of = |outcome: &'_ Outcome, systemic: bool| match outcome {
        Outcome::Refused { fault: Fault::Recipient, lasting: true, .. } if systemic => Some(Sign::Fault),
        Outcome::Unfit { .. } => None,
        Outcome::Accepted { .. } => Some(Sign::Alive),
        Outcome::Unsure { .. } => Some(Sign::Fault),
        Outcome::Refused { fault: Fault::Account, .. } => Some(Sign::Account),
        Outcome::Refused { fault: Fault::Path, .. } => Some(Sign::Fault),
        Outcome::Refused {
            fault: Fault::Recipient | Fault::Message | Fault::Sender(_) | Fault::Throttled(_),
            ..
        } => Some(Sign::Alive),
    };
    let of = |(o, systemic): (&'o Outcome, &bool)| of(o, *systemic).map(|sign| (sign, o.said()));
    let mut signs = outcomes.iter().zip(systemic).filter_map(of);
    let first = signs.next()?;
    // One of them taken, or refused for its own sake: the way is open.
    Some(signs.find(|(sign, _)| *sign == Sign::Alive).unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, Grammar};
    use crate::flow::tests::message;
    use crate::mail::{Abort, StreamKind};

    const T0: Timestamp = Timestamp::from_millis(0);

    fn flying() -> Flying {
        let watch = Watch::new(Abort::default());
        Flying {
            watch,
            message: message(StreamKind::Transactional, 1),
            rule: Rule::default(),
            tried: vec!["a".into()],
            bound: false,
        }
    }

    fn met(outcomes: &[Outcome]) -> Met<'_> {
        Met { outcomes, keys: &[], whose: Whose::default(), given_up: false }
    }

    fn refused(fault: Fault, wait: Option<Duration>) -> Outcome {
        Outcome::Refused { fault, lasting: true, wait, said: "no".into() }
    }

    fn accepted() -> Outcome {
        Outcome::Accepted { remote_id: None, said: "ok".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_still_hangs_unless_others_are_answered() {
        let house = Gatehouse::new("a", 2, T0);
        house.departs(0, flying());
        house.departs(1, flying());
        tokio::time::advance(Duration::from_secs(2)).await;
        house.lands(1);
        house.returns(&met(&[accepted()]), Duration::from_secs(2), T0, true);
        tokio::time::advance(Duration::from_secs(2)).await;
        let (stray, told) = house.find_hang(T0, |_| true);
        assert_eq!((stray.len(), told), (1, None), "the other was answered two seconds ago");
        assert_eq!((house.admits(T0), house.find_hang(T0, |_| false).0.len()), (Admits::All, 0));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(house.find_hang(T0, |_| false).0.is_empty(), "it may go nowhere else");
        let (hung, told) = house.find_hang(T0, |_| true);
        assert_eq!((hung.len(), told.map(|(kind, _)| kind)), (1, Some("esp_shut")));
        assert_eq!(house.admits(T0), Admits::Nothing);
        house.lands(0);
        house.returns(&met(&[accepted()]), Duration::from_secs(6), T0, true);
        assert_eq!(house.why_shut(), None, "it was slow, no more");
    }

    #[tokio::test(start_paused = true)]
    async fn three_that_were_given_up_while_others_are_answered_shut_nothing() {
        let house = Gatehouse::new("a", 4, T0);
        (0..3).for_each(|n| house.departs(n, flying()));
        tokio::time::advance(Duration::from_secs(3)).await;
        house.returns(&met(&[accepted()]), Duration::from_millis(10), T0, true);
        let (strays, told) = house.find_hang(T0, |_| true);
        assert_eq!((strays.len(), told), (3, None));
        for n in 0..3 {
            house.lands(n);
            let lost = [refused(Fault::Path, None)];
            let met = Met { given_up: true, ..met(&lost) };
            assert_eq!(house.returns(&met, Duration::from_secs(3), T0, true).alerts, []);
        }
        assert_eq!(house.admits(T0), Admits::All);
        assert!(house.last_error().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_outpace_after_its_hand_over_is_waited_for() {
        let house = Gatehouse::new("a", 2, T0);
        let call = flying();
        call.watch.hand_over();
        house.departs(0, call);
        tokio::time::advance(Duration::from_secs(9)).await;
        house.returns(&met(&[accepted()]), Duration::from_millis(10), T0, true);
        assert!(house.find_hang(T0, |_| true).0.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_esp_that_is_always_slow_does_not_hang() {
        let house = Gatehouse::new("a", 1, T0);
        for _ in 0..30 {
            house.returns(&met(&[accepted()]), Duration::from_secs(5), T0, true);
        }
        house.departs(0, flying());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(house.find_hang(T0, |_| true).0.is_empty());
    }

    #[test]
    fn only_the_path_and_the_account_count_against_it() {
        let refused = |fault| refused(fault, None);
        for (outcomes, wanted) in [
            (vec![Outcome::Unfit { why: "size".into() }], None),
            (vec![refused(Fault::Recipient)], Some(Sign::Alive)),
            (vec![refused(Fault::Message)], Some(Sign::Alive)),
            (vec![refused(Fault::Path)], Some(Sign::Fault)),
            (vec![refused(Fault::Account)], Some(Sign::Account)),
            (vec![Outcome::Unsure { said: String::new() }], Some(Sign::Fault)),
            (vec![refused(Fault::Path), accepted()], Some(Sign::Alive)),
        ] {
            let systemic = vec![false; outcomes.len()];
            assert_eq!(sign(&outcomes, &systemic).map(|(sign, _)| sign), wanted, "{outcomes:?}");
        }
    }

    #[test]
    fn an_esp_that_refuses_one_recipient_after_the_other_is_at_fault_itself() {
        let house = Gatehouse::new("a", 1, T0);
        let refuse = |n: usize| {
            let (outcomes, keys) = ([refused(Fault::Recipient, None)], [format!("r{n}@x.example")]);
            let met = Met { outcomes: &outcomes, keys: &keys, whose: Whose::default(), given_up: false };
            house.returns(&met, Duration::ZERO, T0, true)
        };
        for n in 0..4 {
            assert_eq!(refuse(n), Judged { systemic: vec![false], alerts: vec![] });
        }
        let fifth = refuse(4);
        assert_eq!((fifth.systemic, fifth.alerts.len()), (vec![true], 1));
        refuse(5);
        assert!(refuse(6).alerts.iter().any(|(kind, _)| *kind == "esp_shut"), "three more: its gate shuts");
    }

    #[test]
    fn a_pause_it_asked_for_keeps_mail_from_it_for_a_time() {
        let house = Gatehouse::new("a", 1, T0);
        let wait = Some(Duration::from_secs(9));
        house.returns(&met(&[refused(Fault::Throttled(Throttle::Rate), wait)]), Duration::ZERO, T0, true);
        assert!(matches!(house.hindrance(Whose::default(), T0), Some(PassedOver::Paused { .. })));
        assert!(house.any_stop.load(Ordering::Acquire));
        let later = T0.plus(Duration::from_secs(9));
        assert_eq!(house.hindrance(Whose::default(), later), None);
        house.returns(&met(&[accepted()]), Duration::ZERO, later, true);
        assert!(!house.any_stop.load(Ordering::Acquire), "what is over costs no look-up");
    }

    fn sender(text: &str) -> ReversePath {
        ReversePath::Mailbox(Address::parse(text, Grammar::Strict).unwrap())
    }

    fn refuse_sender(house: &Gatehouse, named: Named, whose: Whose<'_>) -> Vec<String> {
        let outcomes = [refused(Fault::Sender(named), None)];
        let judged = house.returns(
            &Met { outcomes: &outcomes, keys: &[], whose, given_up: false },
            Duration::ZERO,
            T0,
            true,
        );
        judged.alerts.into_iter().map(|(kind, words)| format!("{kind}: {words}")).collect()
    }

    #[test]
    fn a_from_domain_that_it_refused_is_closed_for_a_time_and_no_envelope_with_it() {
        let house = Gatehouse::new("a", 1, T0);
        let shop = sender("a@shop.example");
        let whose = Whose { from_domain: Some("shop.example"), sender: Some(&shop) };
        let told = refuse_sender(&house, Named::From, whose);
        assert_eq!(told, ["sender_refused: a: refuses mail From shop.example: no"]);
        assert_eq!(refuse_sender(&house, Named::From, whose), [] as [String; 0], "once");
        assert!(house.minds_senders());
        let hindrance = |whose, now| house.hindrance(whose, now).map(|h| h.to_string());
        assert!(hindrance(whose, T0).is_some_and(|h| h.starts_with("refused mail From shop.example; asked")));
        let other = Whose { from_domain: Some("other.example"), ..whose };
        assert_eq!(hindrance(other, T0), None, "of the same envelope sender");
        assert_eq!(hindrance(whose, T0.plus(SENDER_CLOSED_FOR)), None);
    }

    #[test]
    fn an_envelope_sender_that_it_refused_is_closed_alone_and_no_domain_with_it() {
        let house = Gatehouse::new("a", 1, T0);
        let (bad, same, other) = (sender("b@evil.test"), sender("\"b\"@EVIL.test"), sender("ok@evil.test"));
        let whose = |sender| Whose { from_domain: Some("shop.example"), sender: Some(sender) };
        let told = refuse_sender(&house, Named::Envelope, whose(&bad));
        assert_eq!(told, ["sender_refused: a: refuses MAIL FROM:<b@evil.test>: no"]);
        assert_eq!(refuse_sender(&house, Named::Envelope, whose(&same)), [] as [String; 0], "once");
        assert!(!house.minds_senders(), "no header is looked at for it");
        let hindrance = |sender, now| house.hindrance(whose(sender), now).map(|h| h.to_string());
        assert!(
            hindrance(&same, T0).is_some_and(|h| h.starts_with("refused MAIL FROM:<b@evil.test>; asked"))
        );
        assert_eq!((hindrance(&other, T0), hindrance(&ReversePath::Null, T0)), (None, None));
        assert_eq!(hindrance(&bad, T0.plus(SENDER_CLOSED_FOR)), None);

        let told = refuse_sender(&house, Named::Envelope, whose(&ReversePath::Null));
        assert_eq!(told, ["sender_refused: a: refuses MAIL FROM:<>: no"]);
        assert_eq!(hindrance(&other, T0), None);
    }

    #[test]
    fn refused_senders_are_kept_up_to_a_number_and_domains_have_their_own() {
        let house = Gatehouse::new("a", 1, T0);
        let refuse = |n: usize| {
            let sender = sender(&format!("u{n}@evil.test"));
            refuse_sender(&house, Named::Envelope, Whose { from_domain: None, sender: Some(&sender) }).len()
        };
        assert_eq!((0..SENDERS_MAX + 50).map(refuse).sum::<usize>(), SENDERS_MAX);
        let shop = Whose { from_domain: Some("shop.example"), sender: None };
        assert_eq!(refuse_sender(&house, Named::From, shop).len(), 1);
    }

    #[test]
    fn what_fails_by_settings_that_have_changed_says_nothing_of_the_gate() {
        let house = Gatehouse::new("a", 1, T0);
        let refuse = |current| {
            house.returns(&met(&[refused(Fault::Account, None)]), Duration::ZERO, T0, current);
            house.why_shut().is_some()
        };
        assert!((0..9).all(|_| !refuse(false)));
        assert!((0..3).any(|_| refuse(true)));
        assert!(!house.takes_check(T0), "a login that failed is tried again later");
        house.check_now(T0);
        assert!(house.takes_check(T0) && !house.takes_check(T0), "at once, and once, where it has changed");
    }

    #[test]
    fn a_pause_of_all_outlasts_what_is_said_of_one() {
        let house = Gatehouse::new("a", 1, T0);
        let pause = Suspension { reason: "moving".into(), since: T0, until: None };
        house.pause_with_all(Some(pause));
        assert_eq!(house.hindrance(Whose::default(), T0), Some(PassedOver::AllPaused("moving".into())));
        house.reopen(T0);
        assert!(house.is_paused() && house.turns_away(false, T0), "one that is resumed waits for the others");
        house.pause_with_all(None);
        assert_eq!(
            (house.hindrance(Whose::default(), T0), house.any_stop.load(Ordering::Acquire)),
            (None, false)
        );
    }

    #[test]
    fn a_suspension_keeps_mail_away_until_it_is_over_or_resumed() {
        let house = Gatehouse::new("a", 1, T0);
        let until = Some(T0.plus(Duration::from_secs(60)));
        house.suspend(Some(Suspension { reason: "invoice".into(), since: T0, until }));
        assert!(matches!(house.hindrance(Whose::default(), T0), Some(PassedOver::Suspended { .. })));
        assert_eq!(house.hindrance(Whose::default(), T0.plus(Duration::from_secs(60))), None);
        house.reopen(T0);
        assert_eq!((house.hindrance(Whose::default(), T0), house.suspension(T0)), (None, None));
    }
}
