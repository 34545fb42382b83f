//! What must hold: in each state, in each move, and at the end. Each says which rule of a delivery's life it holds.

use std::mem::discriminant;

use super::moves::Move;
use super::world::{
    ATTEMPTS_MAX, Attempt, EVERYBODY, Fate, Kind, Next, RECIPIENTS, Stage, Word, World, event, recipients,
};
use super::{Model, Setting};
use crate::mail::delivery::{Known, Mark, Reason};

type Verdict = Result<(), String>;

fn holds(rule: &str, of: usize, it: bool) -> Verdict {
    if it { Ok(()) } else { Err(format!("{rule} (recipient {of})")) }
}

/// What holds in a state, however it was reached.
pub fn state(model: &Model, w: &World) -> Verdict {
    for r in 0..RECIPIENTS {
        let row = &w.rows[r];
        let free = row.place.kind == Kind::Waiting || row.place.kind == Kind::Paused;
        let bound = w.open_of(r).any(|a| !w.journal[usize::from(a)][r].freed);
        holds("9: bound, and not held", r, !(free && bound))?;
        if row.place.kind == Kind::Done {
            holds("done without a reason, and nobody has it", r, row.reason.is_some() || handed(row.known))?;
            holds("2: an end that is none: an ESP has it", r, !(row.reason.is_some() && handed(row.known)))?;
        }
        holds(
            "a mark without what carries it out",
            r,
            row.mark == Mark::None || row.place.kind == Kind::Out,
        )?;
        holds("15: known in another order as something else", r, row.known == expected(model, w, r))?;
        if row.place.kind == Kind::Out {
            let call = &w.calls[usize::from(row.place.attempt)];
            let carried = call.passengers & (1 << r) != 0
                && (call.stage != Stage::Free || call.hold.is_some() || call.answer.is_some());
            holds("out, and nobody carries it", r, carried)?;
        }
    }
    Ok(())
}

fn handed(known: Known) -> bool {
    known >= Known::Handed
}

/// What is known, told from the set of what was told alone.
fn expected(model: &Model, w: &World, r: usize) -> Known {
    let (mut told, mut handed) = (0, false);
    for a in 0..w.begun {
        let row = &w.journal[usize::from(a)][r];
        if !model.is_found(w, r, a) {
            continue;
        }
        handed |= row.word == Word::Accepted;
        // Within one attempt the last in this row wins…
        told |= [Known::Complained, Known::Bounced, Known::Delivered, Known::Deferred]
            .map(event)
            .into_iter()
            .find(|bit| row.told & bit != 0)
            .unwrap_or_default();
    }
    // …and among attempts a delivery beats a bounce.
    [Known::Complained, Known::Delivered, Known::Bounced, Known::Deferred]
        .into_iter()
        .find(|known| told & event(*known) != 0)
        .unwrap_or(if handed { Known::Handed } else { Known::Nothing })
}

/// What holds in a move.
pub fn step(model: &Model, before: &World, mv: Move, after: &World) -> Verdict {
    for r in 0..RECIPIENTS {
        journal(before, after, r)?;
        queue(model, before, mv, after, r)?;
        begins(before, after, r)?;
    }
    for attempt in 0..ATTEMPTS_MAX {
        if after.calls[attempt].stage == Stage::Wire && before.calls[attempt].stage != Stage::Wire {
            handed_over(before, after, attempt)?;
        }
    }
    match mv {
        Move::CommitHold(attempt) | Move::CommitAnswer(attempt) => settled(model, before, mv, after, attempt),
        Move::Answer(attempt) => answered(before, after, usize::from(attempt)),
        _ => Ok(()),
    }
}

fn journal(before: &World, after: &World, r: usize) -> Verdict {
    for a in 0..ATTEMPTS_MAX {
        let (b, a) = (&before.journal[a][r], &after.journal[a][r]);
        let gone = *a == Attempt::default() && matches!(b.word, Word::None | Word::Unfit);
        let stays = b.word == a.word || b.word == Word::None || b.word.is_open() && !a.word.is_open();
        holds("5: an answer changed", r, stays || gone)?;
        holds("what is known of an attempt fell", r, a.known >= b.known)?;
    }
    Ok(())
}

fn queue(model: &Model, before: &World, mv: Move, after: &World, r: usize) -> Verdict {
    let (b, a) = (&before.rows[r], &after.rows[r]);
    let left = b.place.kind != a.place.kind;
    holds("done, and moved again", r, !(left && b.place.kind == Kind::Done))?;
    let by_itself = !matches!(mv, Move::Act(_)) && a.place.kind != Kind::Done && !a.place.is_paused();
    holds("17: paused, and moved by itself", r, !(b.place.is_paused() && by_itself))?;
    if b.place.is_paused() && a.place.kind == Kind::Paused && before.open_of(r).count() > 0 {
        holds("17: it forgot its hold", r, after.open_of(r).all(|n| after.journal[usize::from(n)][r].freed))?;
    }
    if mv == Move::Crash && matches!(a.place.kind, Kind::Unsure | Kind::PausedUnsure) {
        holds("12: a hold ends before it had its time again", r, a.place.at >= model.setting.hold)?;
    }
    if matches!(mv, Move::Act(super::store::Act::Flush)) {
        holds("17: flush touched a hold", r, b.place.kind != Kind::Unsure || a.place == b.place)?;
    }
    freed(model, before, after, r)?;
    if a.reason != b.reason {
        ended(before, mv, after, r)?;
    }
    Ok(())
}

fn freed(model: &Model, before: &World, after: &World, r: usize) -> Verdict {
    let free = |w: &World| w.journal.iter().filter(|a| a[r].freed).count();
    if free(after) > free(before) {
        let long_enough = before.rows[r].unable_for.is_some_and(|n| n >= model.setting.hold);
        holds("10: retry_any before another hold", r, long_enough)?;
    }
    Ok(())
}

fn ended(before: &World, mv: Move, after: &World, r: usize) -> Verdict {
    let open = after.open_of(r).count();
    match after.rows[r].reason {
        None | Some(Reason::Removed | Reason::Suppressed) => Ok(()),
        Some(Reason::Expired) => holds("13: given up, though an answer is open", r, open == 0),
        Some(Reason::Refused) => {
            let Move::CommitAnswer(attempt) = mv else { return holds("bounced without an answer", r, false) };
            let refused = before.calls[usize::from(attempt)].fate[r] == Fate::Gone;
            holds("6: it bounced, and was not refused itself", r, refused)
        }
        Some(Reason::Assumed) if mv == Move::Sweep => holds("13: nothing is open", r, open > 0),
        Some(Reason::Assumed) => match mv {
            Move::Begin { .. } => holds("12: assumed, and nobody saw it lost", r, before.seen_of(r) > 0),
            _ => holds("11: assumed, and no second one was seen lost", r, after.seen_of(r) > 1),
        },
    }
}

fn begins(before: &World, after: &World, r: usize) -> Verdict {
    let (b, a) = (&before.rows[r], &after.rows[r]);
    if a.place.kind != Kind::Out || b.place == a.place {
        return Ok(());
    }
    let attempt = usize::from(a.place.attempt);
    holds("1: begun from a state that is none to begin from", r, b.place.kind != Kind::Out)?;
    holds("17: begun while it is paused", r, !b.place.is_paused())?;
    holds("2: begun, though an ESP has it", r, !handed(b.known))?;
    holds("3: begun after it was suppressed", r, !(before.suppressed && r == 0))?;
    holds("10: begun before its hold ended", r, b.place.at == 0)?;
    holds("11: begun with two lost ones", r, before.seen_of(r) < 2)?;
    let announced = after.journal[attempt][r].announced;
    holds("4: begun beside an open one without an event", r, announced || before.open_of(r).count() == 0)?;
    for open in before.open_of(r).map(usize::from) {
        let same = after.esp_of[open] == after.esp_of[attempt];
        holds("9: begun elsewhere while it is bound", r, same || before.journal[open][r].freed)?;
    }
    Ok(())
}

/// The body leaves.
fn handed_over(before: &World, after: &World, attempt: usize) -> Verdict {
    let number = u8::try_from(attempt).unwrap();
    let call = &after.calls[attempt];
    for r in recipients(EVERYBODY) {
        let took = after.journal[attempt][r].got && !before.journal[attempt][r].got;
        let named = call.passengers & (1 << r) != 0;
        holds("3: a copy for one whom the call is not for", r, !took || named)?;
        if !named {
            continue;
        }
        let row = &before.rows[r];
        holds("3: sent, and not begun", r, row.place.is_out_with(number))?;
        holds("2: sent, though an ESP has it", r, !handed(row.known))?;
        holds("3: sent after it was suppressed", r, !(before.suppressed && r == 0))?;
        holds("3: sent after an operator's word", r, row.mark == Mark::None)?;
        let copies = before.journal.iter().filter(|a| a[r].got).count();
        let announced = after.journal[attempt][r].announced;
        holds("4: a second copy without an event", r, !took || copies == 0 || announced)?;
    }
    Ok(())
}

/// However late it came, and whatever was written meanwhile.
fn answered(before: &World, after: &World, attempt: usize) -> Verdict {
    let told = after.calls[attempt].answer.map_or([Word::None; RECIPIENTS], |settle| settle.word);
    for r in recipients(before.calls[attempt].passengers) {
        holds("5: an answer came, and is not written down", r, told[r] != Word::None)?;
    }
    Ok(())
}

fn settled(model: &Model, before: &World, mv: Move, after: &World, attempt: u8) -> Verdict {
    let call = &before.calls[usize::from(attempt)];
    let settle = if matches!(mv, Move::CommitHold(_)) { call.hold } else { call.answer };
    let Some(settle) = settle else { return Ok(()) };
    for r in recipients(call.passengers) {
        let (b, a) = (&before.rows[r], &after.rows[r]);
        let named = b.place.attempt == attempt
            && matches!(b.place.kind, Kind::Out | Kind::Unsure | Kind::PausedUnsure);
        let ends = a.place.kind == Kind::Done && handed(a.known);
        holds("5: moved by an answer to another attempt", r, named || ends || a.place == b.place)?;
        let put_off = matches!(settle.step[r], Next::Later(_) | Next::Elsewhere) && a.place != b.place;
        if put_off && matches!(a.place.kind, Kind::Unsure | Kind::PausedUnsure) {
            let over = a.unable_for.is_some_and(|n| n + a.place.at <= model.setting.hold);
            holds("10: not looked at when another hold is over", r, over)?;
        }
        if settle.word[r] == Word::Accepted {
            holds("5: accepted, and nobody knows", r, handed(a.known))?;
        }
    }
    let [first, second] = before.rows;
    let history = |r: usize| before.journal.iter().map(move |a| a[r].word);
    let alike = first == second
        && settle.word[0] == settle.word[1]
        && discriminant(&settle.step[0]) == discriminant(&settle.step[1])
        && call.passengers == EVERYBODY
        && history(0).eq(history(1));
    holds(
        "7: those that left a call alike are parted",
        1,
        !alike || after.rows[0].place == after.rows[1].place,
    )
}

/// Where a state has to be able to come to without `max_age`, an operator or an event: done, paused, or out of the
/// model's attempts.
pub fn is_end(setting: &Setting, w: &World) -> bool {
    let ended = |r: &super::world::Row| r.place.kind == Kind::Done || r.place.is_paused() && !handed(r.known);
    w.rows.iter().all(ended) || (!w.aged && w.begun >= setting.attempts)
}
