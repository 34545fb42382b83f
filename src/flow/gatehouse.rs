//! What keeps mail from an ESP, at work: its gate, told of each answer and asked before each begin; an operator's
//! suspension; the pause it asked for; the envelope senders and From domains that it refused. And what is in flight, watched for a hang.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Timestamp, monotonic};
use crate::journal::{self, Alert};
use crate::mail::from::Whose;
use crate::mail::{Fault, Message, Named, Outcome, ReversePath, Rule, Throttle, Watch};
use crate::router::{Admits, Gate, Guard, PassedOver, Sign, Steadiness};
use crate::store::Suspension;

/// What has not moved for so long, while nothing else was answered, hangs…
const HANG_AFTER_MIN: Duration = Duration::from_secs(3);
/// …but not before so many times what an answer usually takes.
const HANG_TIMES_USUAL: f64 = 4.0;
/// The pause after an ESP asked for one without saying how long, or said less than this. It doubles with each that
/// follows before the ESP took anything: a header that names the present must not have it asked again at once.
const PAUSE: Duration = Duration::from_secs(1);
/// How often that pause doubles at most: to 64 s.
const PAUSE_DOUBLED_MAX: u32 = 6;
/// A sender that an ESP refused is tried there again after so long: somebody may have set it up meanwhile.
const SENDER_CLOSED_FOR: Duration = Duration::from_secs(600);
/// After so long without a further word against the relay's requests, one that is taken ends the alert.
const BLAMED_FOR: Duration = Duration::from_secs(600);
/// And so long after mail was taken as sent without its answer, an answer ends that alert.
const ASSUMED_FOR: Duration = Duration::from_secs(600);
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
    /// The most recipients that it took in one transaction of those that had more than it takes: what has more is asked
    /// for in parts from then on. A limit that is raised later costs no more than a few transactions.
    recipients_max: AtomicU32,
    shut: Alert,
    steadiness: Mutex<Steadiness>,
    systemic: Alert,
    contents: Alert,
    blamed: Alert,
    assumed: Alert,
}

/// What else keeps mail from it.
#[derive(Debug, Default)]
struct Stops {
    suspension: Option<Suspension>,
    /// All sending is paused.
    all: Option<Suspension>,
    /// Until when, and its words.
    pause: Option<(Timestamp, String)>,
    /// Pauses without a length since it last took anything.
    pauses: u32,
    /// Envelope senders as they stand between the angle brackets, and until when.
    envelopes: HashMap<String, Timestamp>,
    /// From domains, and until when.
    from_domains: HashMap<String, Timestamp>,
    guard: Guard,
    /// The same of messages, by the first recipient of each.
    contents: Guard,
    /// When it last said that a request is not as it should be.
    blamed_at: Option<Timestamp>,
    /// When mail was last taken as sent since a second answer was lost.
    assumed_at: Option<Timestamp>,
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
    /// See [`crate::esp::Esp::blames_request`].
    pub blames_request: bool,
    /// It hung, and was ended before its hand-over.
    pub given_up: bool,
    /// It is a report of ours to a sender: an ESP that takes those may refuse everybody else, and one that refuses those
    /// may take all others.
    pub report: bool,
    /// It was told of before, as a call without an answer: of the answer that came later only a word on the account bears
    /// on the gate.
    pub late: bool,
}

/// What follows from it.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// When it last answered, or began.
    answered_at: Instant,
    answered: bool,
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
                answered: false,
                usual_seconds: 0.0,
                last_error: None,
            }),
            stops: Mutex::default(),
            any_stop: AtomicBool::new(false),
            recipients_max: AtomicU32::new(u32::MAX),
            shut: Alert::new("esp_shut"),
            steadiness: Mutex::default(),
            systemic: Alert::new("esp_refuses_everybody"),
            contents: Alert::new("esp_refuses_every_message"),
            blamed: Alert::new("request_refused"),
            assumed: Alert::new("assumed"),
        }
    }

    /// So many recipients it takes in one transaction, as far as it has told.
    pub fn recipients_max(&self) -> u32 {
        self.recipients_max.load(Ordering::Relaxed)
    }

    /// Learns from those for whom a transaction had no place any more.
    fn note_recipients(&self, outcomes: &[Outcome]) {
        let full = |outcome: &&Outcome| {
            matches!(outcome, Outcome::Refused { fault: Fault::Throttled(Throttle::Transaction), .. })
        };
        let left_out = outcomes.iter().filter(full).count();
        let taken = u32::try_from(outcomes.len() - left_out).unwrap_or(u32::MAX);
        if left_out > 0 && taken > 0 {
            self.recipients_max.store(taken, Ordering::Relaxed);
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

    /// Whose mail it is not given, in words, and when it is asked again; the first to come back first.
    pub fn closed_senders(&self, now: Timestamp) -> Vec<(String, Timestamp)> {
        if !self.any_stop.load(Ordering::Acquire) {
            return Vec::new();
        }
        let stops = self.stops();
        let envelopes = stops.envelopes.iter().map(|(sender, until)| (envelope(sender), *until));
        let domains = stops.from_domains.iter().map(|(domain, until)| (from(domain), *until));
        let mut closed: Vec<_> = envelopes.chain(domains).filter(|(_, until)| *until > now).collect();
        drop(stops);
        closed.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        closed
    }

    /// An operator says that it is well: whatever had shut it is forgotten, and so is what it asked for.
    pub fn reopen(&self, now: Timestamp) {
        {
            let mut stops = self.stops();
            *stops = Stops { all: stops.all.take(), ..Stops::default() };
            self.any_stop.store(stops.any(), Ordering::Release);
        }
        *self.gate() = Gate::new(now);
        *self.steadiness.lock().unwrap_or_else(PoisonError::into_inner) = Steadiness::default();
        self.shut.clear(format_args!("{}: opened by an operator", self.esp));
        self.systemic.clear(format_args!("{}: opened by an operator", self.esp));
        self.contents.clear(format_args!("{}: opened by an operator", self.esp));
        self.blamed.clear(format_args!("{}: opened by an operator", self.esp));
        self.assumed.clear(format_args!("{}: opened by an operator", self.esp));
    }

    /// Mail was taken as sent since a second answer was lost, in words; an alert where that is news.
    pub fn note_assumed(&self, words: &str, now: Timestamp) -> Vec<(&'static str, String)> {
        let mut stops = self.stops();
        stops.assumed_at = Some(now);
        self.any_stop.store(stops.any(), Ordering::Release);
        let news = self.assumed.raise(words).then(|| ("assumed", words.to_owned()));
        news.into_iter().collect()
    }

    /// What is wrong with it and keeps no mail from it: kind and words.
    pub fn alerts(&self) -> Vec<(&'static str, String)> {
        [&self.contents, &self.systemic, &self.blamed, &self.assumed]
            .into_iter()
            .filter_map(Alert::standing)
            .collect()
    }

    /// Seconds that an answer takes of late.
    pub fn usual_seconds(&self) -> f64 {
        self.flight().usual_seconds
    }

    /// When it last answered a call, whatever the answer was.
    pub fn answered_at(&self) -> Option<Instant> {
        let flight = self.flight();
        flight.answered.then_some(flight.answered_at)
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
        self.note_recipients(met.outcomes);
        let mut judged = self.note_stops(met, now);
        let sign = sign(met.outcomes, &judged.systemic).map(|(sign, said)| match sign {
            Sign::Fault if met.given_up => (Sign::Stray, said),
            sign => (sign, said),
        });
        let sign = sign.filter(|(sign, _)| current || *sign == Sign::Alive);
        let sign = sign.filter(|(sign, _)| !met.late || *sign == Sign::Account);
        {
            let mut flight = self.flight();
            if let Some((sign, said)) = sign
                && sign != Sign::Alive
            {
                flight.last_error = Some((now, said.to_owned()));
            }
            if let Some((Sign::Alive, _)) = sign {
                (flight.answered_at, flight.answered) = (monotonic(), true);
                flight.usual_seconds += (took.as_secs_f64() - flight.usual_seconds) / 8.0;
            }
        }
        if let Some((sign, said)) = sign {
            let changed = self.gate().note(sign, said, now);
            judged.alerts.extend(self.tell(changed, now));
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
        (hung, self.tell(changed, now))
    }

    /// Whether its free check is due; the caller makes it.
    pub fn takes_check(&self, now: Timestamp) -> bool {
        self.gate().takes_check(now)
    }

    /// How the free check went.
    pub fn checked(&self, result: Result<(), String>, now: Timestamp) {
        self.gate().checked(result, now);
    }

    fn tell(&self, changed: bool, now: Timestamp) -> Option<(&'static str, String)> {
        if !changed {
            return None;
        }
        let why = self.why_shut();
        let is_over = {
            let mut steadiness = self.steadiness.lock().unwrap_or_else(PoisonError::into_inner);
            match why {
                Some(_) => steadiness.shuts(now),
                None => steadiness.opens(now),
            }
            steadiness.is_steady(now)
        };
        match why {
            Some(why) => {
                let words = format!("{}: no mail goes there: {why}", self.esp);
                self.shut.raise(&words).then_some(("esp_shut", words))
            }
            None => {
                if is_over {
                    self.shut.clear(format_args!("{}: takes mail again", self.esp));
                }
                None
            }
        }
    }

    /// Ends the alert of a gate that was shut again and again, once it has stayed open.
    pub fn look_at_alert(&self, now: Timestamp) {
        if !self.shut.raised() || self.why_shut().is_some() {
            return;
        }
        let steady = self.steadiness.lock().unwrap_or_else(PoisonError::into_inner).is_steady(now);
        if steady {
            self.shut.clear(format_args!("{}: takes mail again, and has for a while", self.esp));
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
        let takes = met.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Accepted { .. }));
        if takes {
            stops.pauses = 0;
            if stops.blamed_at.take_if(|at| now.since(*at) >= BLAMED_FOR).is_some() {
                self.blamed.clear(format_args!("{}: takes the relay's requests again", self.esp));
            }
            if stops.assumed_at.take_if(|at| now.since(*at) >= ASSUMED_FOR).is_some() {
                self.assumed.clear(format_args!("{}: answers again", self.esp));
            }
        }
        if met.blames_request {
            stops.blamed_at = Some(now);
            judged.alerts.extend(self.tell_blamed(met.outcomes));
        }
        for (n, outcome) in met.outcomes.iter().enumerate() {
            match outcome {
                Outcome::Accepted { .. } if met.report => {}
                Outcome::Refused { fault: Fault::Recipient | Fault::Message, .. } if met.report => {
                    judged.systemic[n] = stops.guard.is_up();
                }
                Outcome::Accepted { .. } => {
                    if stops.guard.accepted() {
                        self.systemic.clear(format_args!("{}: takes recipients again", self.esp));
                    }
                    if stops.contents.accepted() {
                        self.contents.clear(format_args!("{}: takes messages again", self.esp));
                    }
                }
                // Beside one that it takes those whom it refuses are refused for their own sake.
                Outcome::Refused { fault: Fault::Recipient, lasting: true, said, .. } if !takes => {
                    let key = met.keys.get(n).map(String::as_str).unwrap_or_default();
                    if stops.guard.refused(key) {
                        let words = format!("{}: refuses one recipient after the other: {said}", self.esp);
                        self.systemic.raise(&words);
                        judged.alerts.push(("esp_refuses_everybody", words));
                    }
                    judged.systemic[n] = stops.guard.is_up();
                }
                // What is said of content goes nowhere else (DELIVERY): somebody is told, and no more.
                Outcome::Refused { fault: Fault::Message, lasting: true, said, .. } if n == 0 && !takes => {
                    let key = met.keys.first().map(String::as_str).unwrap_or_default();
                    if stops.contents.refused(key) {
                        judged.alerts.extend(self.tell_contents(said));
                    }
                }
                Outcome::Refused { fault: Fault::Throttled(Throttle::Transaction), .. } => {}
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
                Outcome::Refused { .. } | Outcome::Unfit { .. } | Outcome::Unsure { .. } => {}
            }
        }
        self.any_stop.store(stops.any(), Ordering::Release);
        judged
    }

    fn tell_contents(&self, said: &str) -> Option<(&'static str, String)> {
        let words = format!(
            "{0}: refuses one message after the other for its content, and takes none between: {said}. Each is bounced. \
             Where it is not the mail that is wrong: postroad esp suspend {0}",
            self.esp
        );
        self.contents.raise(&words).then_some(("esp_refuses_every_message", words))
    }

    fn tell_blamed(&self, outcomes: &[Outcome]) -> Option<(&'static str, String)> {
        let said = outcomes.first().map_or("", Outcome::said);
        let words = format!(
            "{}: says that a request is not as it should be: {said}. No sender can mend that: compare this [[esp]] with \
             the provider's settings, else it is a fault in Postroad, please report it. Such mail goes elsewhere, or waits",
            self.esp
        );
        self.blamed.raise(&words).then_some(("request_refused", words))
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
            || self.pauses > 0
            || !self.envelopes.is_empty()
            || !self.from_domains.is_empty()
            || !self.guard.is_clear()
            || !self.contents.is_clear()
            || self.blamed_at.is_some()
            || self.assumed_at.is_some()
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
        let wait = wait.filter(|wait| *wait >= PAUSE).unwrap_or_else(|| self.own_pause());
        let asked = now.plus(wait);
        let until = match throttle {
            Throttle::Rate | Throttle::Transaction => asked,
            Throttle::Window(until) => asked.max(until),
        };
        if self.pause.as_ref().is_none_or(|(known, _)| *known < until) {
            self.pause = Some((until, said.to_owned()));
        }
    }

    /// What is under way side by side is answered alike: while one pause lasts, that is no further one.
    fn own_pause(&mut self) -> Duration {
        if self.pause.is_none() {
            self.pauses = self.pauses.saturating_add(1);
        }
        PAUSE * 2_u32.pow(self.pauses.saturating_sub(1).min(PAUSE_DOUBLED_MAX))
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
        Outcome::Refused { fault: Fault::Recipient, lasting: true, .. } if systemic => Some(Sign::Refusing),
        Outcome::Unfit { .. } => None,
        Outcome::Accepted { .. } => Some(Sign::Alive),
        Outcome::Unsure { .. } => Some(Sign::Lost),
        Outcome::Refused { fault: Fault::Account, .. } => Some(Sign::Account),
        Outcome::Refused { fault: Fault::Path, .. } => Some(Sign::Fault),
        // Perhaps not even asked for.
        Outcome::Refused { fault: Fault::Throttled(Throttle::Transaction), .. } => None,
        Outcome::Refused {
            fault: Fault::Recipient | Fault::Message | Fault::Sender(_) | Fault::Throttled(_),
            ..
        } => Some(Sign::Alive),
    };
    let of = |(o, systemic): (&'o Outcome, &bool)| of(o, *systemic).map(|sign| (sign, o.said()));
    let mut worst = None;
    for (sign, said) in outcomes.iter().zip(systemic).filter_map(of) {
        match sign {
            // One of them taken, or refused for its own sake: the way is open.
            Sign::Alive => return Some((sign, said)),
            Sign::Account => worst = Some((sign, said)),
            Sign::Fault | Sign::Lost | Sign::Refusing | Sign::Hang | Sign::Stray => {
                worst = worst.or(Some((sign, said)));
            }
        }
    }
    worst
}

#[cfg(test)]
mod tests;
