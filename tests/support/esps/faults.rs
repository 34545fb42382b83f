//! What a stand-in can be told to do wrong, and for how many requests.

use std::sync::Mutex;
use std::time::Duration;

use super::http::Response;

/// What goes wrong. Those whose name begins with `Take`, `Slow`, and those in the answer, judge the request as ever: the
/// mail is taken where there is nothing against it.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This answer instead; nothing is taken.
    Answer(Response),
    /// This answer as soon as the header is here, then an end; the body is not read.
    RefuseBeforeBody(Response),
    /// The right answer, so much later. Who goes meanwhile does not take the mail back.
    Slow(Duration),
    /// Reads the header, then neither reads nor says anything.
    HangBeforeBody,
    /// Reads the whole request, takes nothing, says nothing.
    HangAfterBody,
    /// A reset before the body is read.
    CutBeforeBody,
    /// A reset when so many octets of the body are here.
    CutInBody(usize),
    /// An orderly end behind the whole request; nothing is taken.
    CutAfterBody,
    /// A reset behind the whole request; nothing is taken.
    ResetAfterBody,
    /// Has the mail, and ends the connection without an answer.
    TakeThenCut,
    /// Has the mail, and resets the connection without an answer.
    TakeThenReset,
    /// Has the mail, and never says so.
    TakeThenHang,
    /// Has the mail, and says this instead, as a gateway in front of it may.
    TakeThenAnswer(Response),
    /// Ends behind so many octets of the right answer.
    CutInAnswer(usize),
    /// Says nothing more behind so many octets of the right answer.
    HangInAnswer(usize),
    /// The right answer, octet by octet, so much apart: it moves, and does not come to its end.
    Drip(Duration),
    /// The same, but its header comes at once.
    DripBody(Duration),
    /// The header of the right answer at once, its body so much later; one that has none is given one.
    LateBody(Duration),
    /// The right answer, then an end that no header announced.
    CloseBehind,
    /// Octets that are no HTTP; nothing is taken.
    Garbage,
}

/// Which requests a fault is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    /// Those that hand over mail.
    Sends,
    /// The others: keys, quotas.
    Reads,
}

struct Rule {
    place: Where,
    fault: Fault,
    left: usize,
}

/// The faults still to come, in order: a rule is used up before the next one's turn.
#[derive(Default)]
pub struct Rules(Mutex<Vec<Rule>>);

impl Rules {
    pub fn add(&self, place: Where, fault: Fault, times: usize) {
        self.0.lock().unwrap().push(Rule { place, fault, left: times });
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// The fault of this request, which uses it up once.
    pub fn next(&self, place: Where) -> Option<Fault> {
        let mut rules = self.0.lock().unwrap();
        let at = rules.iter().position(|r| r.place == place && r.left > 0)?;
        rules[at].left -= 1;
        let fault = rules[at].fault.clone();
        rules.retain(|r| r.left > 0);
        Some(fault)
    }
}

/// Reads a fault as a person types it: a name from `named`, a status, or one of the words of [`WORDS`].
pub fn parse(text: &str, named: &[(&'static str, Response)]) -> Option<Fault> {
    let mut words = text.split_whitespace();
    let word = words.next()?;
    let number = words.next().and_then(|w| w.parse::<u64>().ok());
    if let Some((_, response)) = named.iter().find(|(name, _)| *name == word) {
        return Some(Fault::Answer(response.clone()));
    }
    let octets = number.and_then(|n| usize::try_from(n).ok()).unwrap_or(20);
    Some(match word {
        "slow" => Fault::Slow(Duration::from_secs(number.unwrap_or(5))),
        "hang-before-body" => Fault::HangBeforeBody,
        "hang" => Fault::HangAfterBody,
        "cut-before-body" => Fault::CutBeforeBody,
        "cut-in-body" => Fault::CutInBody(octets),
        "cut" => Fault::CutAfterBody,
        "reset" => Fault::ResetAfterBody,
        "take-then-cut" => Fault::TakeThenCut,
        "take-then-reset" => Fault::TakeThenReset,
        "take-then-hang" => Fault::TakeThenHang,
        "cut-in-answer" => Fault::CutInAnswer(octets),
        "hang-in-answer" => Fault::HangInAnswer(octets),
        "drip" => Fault::Drip(Duration::from_secs(number.unwrap_or(1))),
        "drip-body" => Fault::DripBody(Duration::from_secs(number.unwrap_or(1))),
        "late-body" => Fault::LateBody(Duration::from_secs(number.unwrap_or(60))),
        "close-behind" => Fault::CloseBehind,
        "garbage" => Fault::Garbage,
        "take-then" => Fault::TakeThenAnswer(Response::empty(u16::try_from(number?).ok()?)),
        status => Fault::Answer(Response::empty(status.parse().ok().filter(|s| (200..600).contains(s))?)),
    })
}

/// The faults that [`parse`] knows besides an ESP's own answers, each with what it does.
pub const WORDS: [(&str, &str); 19] = [
    ("STATUS", "this status with an empty body, e.g. 503"),
    ("slow [SECONDS]", "the right answer, so much later"),
    ("hang", "reads the whole request, takes nothing, says nothing"),
    ("hang-before-body", "reads the header and then nothing more"),
    ("hang-in-answer [OCTETS]", "says nothing more behind so many octets of the answer; has the mail"),
    ("drip [SECONDS]", "the answer octet by octet, so much apart; has the mail"),
    ("drip-body [SECONDS]", "the same, but its header comes at once"),
    ("late-body [SECONDS]", "the header of the right answer at once, its body so much later; has the mail"),
    ("cut", "ends the connection behind the request; takes nothing"),
    ("reset", "resets the connection behind the request; takes nothing"),
    ("cut-before-body", "resets the connection before the body is read"),
    ("cut-in-body [OCTETS]", "resets the connection in the body"),
    ("cut-in-answer [OCTETS]", "ends the connection in the answer; has the mail"),
    ("take-then STATUS", "has the mail and answers this status"),
    ("take-then-cut", "has the mail and ends the connection"),
    ("take-then-reset", "has the mail and resets the connection"),
    ("take-then-hang", "has the mail and never answers"),
    ("close-behind", "the right answer, then ends the connection unannounced"),
    ("garbage", "octets that are no HTTP"),
];
