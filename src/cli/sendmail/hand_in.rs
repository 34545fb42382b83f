//! Handing a message in to all its recipients, in as many SMTP transactions as that takes; what is told of each of them,
//! and the exit code that all of it comes to.

use super::{EX_DATAERR, EX_NOPERM, EX_NOUSER, EX_TEMPFAIL, EX_UNAVAILABLE, Refusal, tell};
use crate::address::Address;
use crate::mail::{Abort, Answer, Phase, Reply, Request, SmtpReply, SmtpRequest, Status, Watch};
use crate::wire::Wire;

/// Calls whose end was lost, after which nobody else is offered: each may have taken minutes.
const LOST_MAX: usize = 2;

/// What one transaction came to for one recipient.
#[derive(Debug)]
enum Fate {
    Taken,
    /// The answer to the dot was lost.
    Unsure(Refusal),
    Refused(Refusal),
    /// The relay takes more of them in another transaction (RFC 5321 section 4.5.3.1.10).
    More(Answer),
}

/// What all transactions so far came to.
#[derive(Debug, Default)]
struct Tally {
    taken: usize,
    /// Who has not got it, or not for certain: what is told of them, and why.
    missed: Vec<(Address, &'static str, Refusal)>,
}

/// Hands it in. What became of one transaction is not the next one's matter: all recipients are offered.
pub(super) async fn hand_in(wire: &impl Wire, mut request: SmtpRequest, to: &str) -> Result<(), Refusal> {
    let (mut tally, mut lost) = (Tally::default(), 0);
    loop {
        let reply = wire.exchange(Request::Smtp(request.clone()), &Watch::new(Abort::default())).await;
        lost += usize::from(matches!(reply, Reply::Lost { .. }));
        let fates = fates(reply, request.recipients.len(), to);
        let more = tally.take(std::mem::take(&mut request.recipients), fates, to);
        if lost >= LOST_MAX {
            tally.not_tried(more);
            return tally.ended();
        }
        if more.is_empty() {
            return tally.ended();
        }
        request.recipients = more;
    }
}

impl Tally {
    /// Gives those for another transaction: fewer than these.
    fn take(&mut self, recipients: Vec<Address>, fates: Vec<Fate>, to: &str) -> Vec<Address> {
        let all = recipients.len();
        let mut more = Vec::new();
        for (address, fate) in recipients.into_iter().zip(fates) {
            match fate {
                Fate::Taken => self.taken += 1,
                Fate::Unsure(refusal) => self.missed.push((address, "may have it", refusal)),
                Fate::Refused(refusal) => self.miss(address, refusal),
                Fate::More(answer) => more.push((address, answer)),
            }
        }
        if more.len() == all {
            // Even alone there is no room for these.
            let asked = more.iter().any(|(_, answer)| answer.was_asked_for());
            for (address, answer) in more.extract_if(.., |(_, answer)| answer.was_asked_for() || !asked) {
                self.miss(address, refused(&answer, to));
            }
        }
        more.into_iter().map(|(address, _)| address).collect()
    }

    fn miss(&mut self, address: Address, refusal: Refusal) {
        let told = if refusal.code == EX_TEMPFAIL { "was not taken" } else { "was refused" };
        self.missed.push((address, told, refusal));
    }

    fn not_tried(&mut self, rest: Vec<Address>) {
        let why = || Refusal::new(EX_TEMPFAIL, format!("the line to the relay was lost {LOST_MAX} times"));
        self.missed.extend(rest.into_iter().map(|address| (address, "was not tried", why())));
    }

    /// Tells of each who has not got it. Where some have it, a caller that tried again would send it to them twice: 0
    /// where nobody else can be tried, 75 where somebody could be later.
    fn ended(self) -> Result<(), Refusal> {
        let Tally { taken, missed } = self;
        let Some((_, _, first)) = missed.first() else { return Ok(()) };
        if taken == 0 && missed.iter().all(|(_, _, refusal)| refusal == first) {
            return Err(first.clone());
        }
        for (address, told, refusal) in &missed {
            tell(&format!("<{address}> {told}: {}", refusal.said));
        }
        let codes = || missed.iter().map(|(_, _, refusal)| refusal.code);
        let later = codes().filter(|code| *code == EX_TEMPFAIL).count();
        let all = taken + missed.len();
        match (later, taken) {
            (0, 0) => {
                let code = codes().find(|code| *code != EX_NOUSER).unwrap_or(EX_NOUSER);
                Err(Refusal::new(code, format!("all {all} recipients were refused")))
            }
            (0, _) => Ok(()),
            _ => {
                let said = format!(
                    "it was taken for {taken} of {all} recipients: send it again to the {later} that were not refused, and to those alone"
                );
                Err(Refusal::new(EX_TEMPFAIL, said))
            }
        }
    }
}

/// What a transaction for so many recipients came to for each of them.
fn fates(reply: Reply, count: usize, to: &str) -> Vec<Fate> {
    let unsure = matches!(reply, Reply::Lost { handed_over: true, .. });
    let answers = match &reply {
        Reply::Smtp(SmtpReply { recipients, .. }) | Reply::Lost { recipients, .. } => recipients.clone(),
        Reply::Http(_) | Reply::Unfit { .. } | Reply::Kept => Vec::new(),
    };
    let whole = judge(reply, to);
    let fate = |answer: Option<&Answer>| match (answer, &whole) {
        (Some(answer), _) if is_too_many(answer) => Fate::More(answer.clone()),
        (Some(answer), _) if !answer.positive() => Fate::Refused(refused(answer, to)),
        (_, Ok(())) => Fate::Taken,
        (_, Err(refusal)) if unsure => Fate::Unsure(refusal.clone()),
        (_, Err(refusal)) => Fate::Refused(refusal.clone()),
    };
    (0..count).map(|n| fate(answers.get(n))).collect()
}

fn is_too_many(answer: &Answer) -> bool {
    !answer.was_asked_for() || (answer.code == 452 && is(answer, [4, 5, 3]))
}

/// A recipient's own refusal.
fn refused(answer: &Answer, to: &str) -> Refusal {
    let code = match answer {
        answer if !answer.lasting() => EX_TEMPFAIL,
        // Who may send is judged before: a recipient is refused as such, whatever for (RFC 3463 X.7.1 too).
        answer if answer.code != 530 => EX_NOUSER,
        _ => EX_NOPERM,
    };
    Refusal::new(code, said(answer, to))
}

fn said(answer: &Answer, to: &str) -> String {
    match answer.was_asked_for() {
        true => format!("the relay at {to} said: {answer}"),
        false => answer.to_string(),
    }
}

/// What the reply means for those who were not refused one by one.
fn judge(reply: Reply, to: &str) -> Result<(), Refusal> {
    match reply {
        Reply::Smtp(SmtpReply { phase: Phase::Dot, last, .. }) if last.positive() => Ok(()),
        Reply::Smtp(SmtpReply { phase: Phase::Rcpt, last, .. }) => Err(refused(&last, to)),
        Reply::Smtp(SmtpReply { phase, last, .. }) => {
            let code = match phase {
                _ if !last.lasting() => EX_TEMPFAIL,
                _ if is_denied(&last) => EX_NOPERM,
                Phase::Dot | Phase::Body => EX_DATAERR,
                _ => EX_UNAVAILABLE,
            };
            Err(Refusal::new(code, said(&last, to)))
        }
        Reply::Lost { handed_over: true, said, .. } => {
            let said = format!("the relay at {to} may have taken it, its answer was lost: {said}");
            Err(Refusal::new(EX_TEMPFAIL, said))
        }
        Reply::Lost { phase, said, .. } => {
            let hint = "see that it runs (postroad serve), or name another in $POSTROAD_SUBMIT";
            Err(Refusal::new(EX_TEMPFAIL, format!("no relay at {to} ({}: {said}); {hint}", phase.word())))
        }
        Reply::Unfit { why } => {
            Err(Refusal::new(EX_DATAERR, format!("the relay at {to} cannot take it: {why}")))
        }
        Reply::Http(_) | Reply::Kept => Err(Refusal::new(EX_TEMPFAIL, format!("no SMTP relay at {to}"))),
    }
}

/// It wants a login, or does not take mail of this client (RFC 4954 section 6, RFC 3463 X.7.1).
fn is_denied(answer: &Answer) -> bool {
    answer.code == 530 || is(answer, [5, 7, 1]) || is(answer, [5, 7, 0])
}

fn is(answer: &Answer, status: [u16; 3]) -> bool {
    answer.enhanced.map(Status::parts) == Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Grammar;

    fn answer(code: u16, enhanced: Option<[u16; 3]>) -> Answer {
        let enhanced = enhanced.and_then(|[class, subject, detail]| Status::new(class, subject, detail));
        Answer { code, enhanced, text: "x".into() }
    }

    fn smtp(phase: Phase, last: Answer, recipients: Vec<Answer>) -> Reply {
        Reply::Smtp(SmtpReply { phase, last, recipients, reports: false })
    }

    /// What these transactions come to for so many recipients, and who has missed it.
    fn told(replies: Vec<Reply>, count: usize) -> (Tally, Vec<Address>) {
        let name = |n| Address::parse(&format!("r{n}@x.example"), Grammar::Lenient).unwrap();
        let (mut tally, mut left) = (Tally::default(), (0..count).map(name).collect::<Vec<_>>());
        for reply in replies {
            let fates = fates(reply, left.len(), "h:25");
            left = tally.take(left, fates, "h:25");
        }
        (tally, left)
    }

    fn ended(replies: Vec<Reply>, count: usize) -> Result<(), Refusal> {
        let (tally, left) = told(replies, count);
        assert!(left.is_empty(), "{left:?}");
        tally.ended()
    }

    #[test]
    fn replies_become_codes() {
        let ok = answer(250, None);
        let no = answer(550, Some([5, 1, 1]));
        let denied = answer(550, Some([5, 7, 1]));
        let lost = |handed_over| Reply::Lost {
            phase: Phase::Connect,
            handed_over,
            recipients: Vec::new(),
            said: "refused".into(),
        };
        for (reply, code) in [
            (smtp(Phase::Dot, ok.clone(), vec![ok.clone()]), None),
            (smtp(Phase::Rcpt, no.clone(), vec![no]), Some(EX_NOUSER)),
            (smtp(Phase::Rcpt, denied.clone(), vec![denied.clone()]), Some(EX_NOUSER)),
            (smtp(Phase::Mail, denied, vec![]), Some(EX_NOPERM)),
            (smtp(Phase::Rcpt, answer(451, None), vec![answer(451, None)]), Some(EX_TEMPFAIL)),
            (smtp(Phase::Dot, answer(554, Some([5, 6, 0])), vec![ok.clone()]), Some(EX_DATAERR)),
            (smtp(Phase::Dot, answer(452, None), vec![ok]), Some(EX_TEMPFAIL)),
            (smtp(Phase::Mail, answer(530, Some([5, 7, 0])), vec![]), Some(EX_NOPERM)),
            (smtp(Phase::Banner, answer(554, None), vec![]), Some(EX_UNAVAILABLE)),
            (lost(false), Some(EX_TEMPFAIL)),
            (lost(true), Some(EX_TEMPFAIL)),
            (Reply::Unfit { why: "too large".into() }, Some(EX_DATAERR)),
        ] {
            let told = format!("{reply:?}");
            assert_eq!(ended(vec![reply], 1).err().map(|r| r.code), code, "{told}");
        }
    }

    #[test]
    fn a_transaction_that_is_refused_leaves_the_next_ones_to_be_offered() {
        let (ok, no) = (|| answer(250, None), || answer(550, Some([5, 1, 1])));
        let (later, own) = (|| answer(450, None), || Answer::own("not named yet".into()));
        let none = |answers: Vec<Answer>| smtp(Phase::Rcpt, answers[0].clone(), answers);
        let some = |answers: Vec<Answer>| smtp(Phase::Dot, ok(), answers);
        for (replies, code) in [
            (vec![none(vec![no(), own(), own()]), some(vec![ok(), ok()])], None),
            (vec![some(vec![ok(), own(), own()]), none(vec![no(), own()]), some(vec![ok()])], None),
            (vec![none(vec![no(), own(), own()]), none(vec![no(), no()])], Some(EX_NOUSER)),
            (vec![none(vec![no(), own(), own()]), some(vec![later(), ok()])], Some(EX_TEMPFAIL)),
            (vec![none(vec![no(), own(), own()]), none(vec![no(), later()])], Some(EX_TEMPFAIL)),
            (
                vec![none(vec![no(), no(), own()]), smtp(Phase::Dot, answer(554, None), vec![ok()])],
                Some(EX_DATAERR),
            ),
        ] {
            let said = format!("{replies:?}");
            assert_eq!(ended(replies, 3).err().map(|r| r.code), code, "{said}");
        }
    }

    #[test]
    fn each_is_told_its_own_words_and_only_who_was_offered_may_have_it() {
        let lost = Reply::Lost {
            phase: Phase::Dot,
            handed_over: true,
            recipients: vec![answer(550, None), answer(250, None), Answer::own("not named yet".into())],
            said: "closed".into(),
        };
        let (mut tally, left) = told(vec![lost], 3);
        assert_eq!(left.iter().map(Address::wire).collect::<Vec<_>>(), ["r2@x.example"]);
        tally.not_tried(left);
        let missed: Vec<_> = tally.missed.iter().map(|(to, told, _)| (to.wire(), *told)).collect();
        let wanted = [
            ("r0@x.example", "was refused"),
            ("r1@x.example", "may have it"),
            ("r2@x.example", "was not tried"),
        ];
        assert_eq!(missed, wanted);
        assert!(tally.missed[0].2.said.ends_with("said: 550 x"), "{tally:?}");
    }

    #[test]
    fn whom_there_is_never_room_for_are_not_offered_for_ever() {
        let full = || answer(452, Some([4, 5, 3]));
        let reply = |answers: Vec<Answer>| smtp(Phase::Rcpt, full(), answers);
        assert_eq!(ended(vec![reply(vec![full(), full()])], 2).map_err(|r| r.code), Err(EX_TEMPFAIL));
        let (tally, left) = told(vec![reply(vec![full(), Answer::own("not named yet".into())])], 2);
        assert_eq!((tally.missed.len(), left.len()), (1, 1), "who was not asked still is");
    }
}
