//! Each move of a delivery, one at a time; `router::search` takes them in every order.

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000);
const LATER: Timestamp = Timestamp::from_millis(9_000);
const ME: Owner = Owner::from_number(1);
const A1: AttemptId = AttemptId::from_number(11);
const A2: AttemptId = AttemptId::from_number(12);

fn out(attempt: AttemptId) -> Delivery {
    let mut d = Delivery::waiting(NOW);
    assert_eq!(d.begin(d.state, ME, attempt, false), Begin::Begun { twice: false });
    d
}

#[test]
fn a_begin_names_the_state_it_was_chosen_from() {
    let mut d = Delivery::waiting(NOW);
    let chosen = d.state;
    d.flush(NOW);
    d.state = QueueState::Waiting { due: LATER };
    assert_eq!(d.begin(chosen, ME, A1, false), Begin::Not(NotBegun::Moved));
    assert_eq!(d.begin(d.state, ME, A1, false), Begin::Begun { twice: false });
    assert_eq!(d.begin(chosen, ME, A1, false), Begin::Begun { twice: false }, "a repeat succeeds");
    assert_eq!(d.begin(chosen, ME, A2, false), Begin::Not(NotBegun::Moved));
}

#[test]
fn what_is_known_and_what_is_suppressed_is_never_begun() {
    let mut d = Delivery { known: Known::Delivered, ..Delivery::waiting(NOW) };
    assert_eq!(d.begin(d.state, ME, A1, false), Begin::Not(NotBegun::Known));
    assert_eq!(d.state, QueueState::Done);
    let mut d = Delivery::waiting(NOW);
    assert_eq!(d.begin(d.state, ME, A1, true), Begin::Not(NotBegun::Suppressed));
    assert_eq!((d.state, d.reason), (QueueState::Done, Some(Reason::Suppressed)));
}

#[test]
fn a_late_answer_moves_the_queue_only_where_it_still_stands_at_that_attempt() {
    let mut d = out(A1);
    assert!(d.settle(A1, Step::Later(LATER), NOW, HOLD));
    assert!(!d.settle(A1, Step::Bounce, NOW, HOLD));
    assert_eq!(d.state, QueueState::Waiting { due: LATER });
    assert!(!d.settle(A1, Step::Done, NOW, HOLD), "a late yes ends what waits");
    assert_eq!((d.state, d.known), (QueueState::Done, Known::Handed));
}

#[test]
fn a_crash_leaves_what_was_begun_unsure_and_its_end_is_assumed() {
    let mut d = out(A1);
    assert!(d.crashed(LATER));
    assert_eq!(d.state, QueueState::Unsure { attempt: A1, until: LATER });
    assert_eq!(d.begin(d.state, ME, A2, false), Begin::Begun { twice: true });
    d.settle(A2, Step::Later(LATER), NOW, HOLD);
    assert_eq!(d.state, QueueState::Unsure { attempt: A1, until: LATER }, "the open one is waited for");
    assert_eq!(d.expire(), Some(Reason::Assumed));
}

#[test]
fn what_nobody_can_carry_is_put_off_and_stays_bound() {
    let mut d = Delivery::waiting(NOW);
    assert!(!d.put_off(QueueState::Waiting { due: LATER }, LATER), "it has moved");
    assert!(d.put_off(d.state, LATER));
    assert_eq!(d.state, QueueState::Waiting { due: LATER });
    d.state = QueueState::Unsure { attempt: A1, until: NOW };
    assert!(d.put_off(d.state, LATER));
    assert_eq!(d.state, QueueState::Unsure { attempt: A1, until: LATER });
    let mut d = out(A1);
    assert!(!d.put_off(d.state, LATER));
}

#[test]
fn a_hold_is_longer_by_what_the_relay_was_down() {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    let at = |millis| Timestamp::from_millis(millis);
    let now = at(1_000_000);
    let after = |until, down| {
        let mut d = Delivery { state: QueueState::Unsure { attempt: A1, until }, ..Delivery::waiting(NOW) };
        let changed = d.outage(now, down, minute);
        let QueueState::Unsure { until: longer, .. } = d.state else { panic!("{:?}", d.state) };
        assert_eq!(changed, longer != until);
        longer
    };
    // Ten seconds were left when it went down two seconds ago; so many restarts still come to an end.
    assert_eq!(after(now.plus(second * 8), second * 2), now.plus(second * 10));
    assert_eq!(after(now.plus(second * 8), Duration::ZERO), now.plus(second * 8));
    // It ended while the relay was down, or long before: what came in vain has as long once more.
    assert_eq!(after(at(999_000), second * 5), now.plus(second * 5));
    assert_eq!(after(at(0), second * 5), now.plus(second * 5));
    // Never past a whole hold from now on, and none is shortened.
    assert_eq!(after(now.plus(second * 58), second * 5), now.plus(minute));
    assert_eq!(after(at(999_000), minute * 60), now.plus(minute));
    assert_eq!(after(now.plus(minute * 5), second), now.plus(minute * 5));

    let from = PausedFrom::Unsure { attempt: A1, until: now };
    let mut paused = Delivery { state: QueueState::Paused { from }, ..Delivery::waiting(NOW) };
    assert!(paused.outage(now, second, minute), "a paused one returns to its hold");
    assert!(!Delivery::waiting(NOW).outage(now, second, minute) && !out(A1).outage(now, second, minute));
}

#[test]
fn what_an_esp_has_is_done_whatever_an_operator_wished() {
    let mut d = out(A1);
    assert!(d.remove());
    d.learn(Known::Delivered);
    assert!(d.crashed(LATER));
    assert_eq!((d.state, d.reason), (QueueState::Done, None), "told before the relay went down");
    let mut d = Delivery { known: Known::Delivered, ..Delivery::waiting(NOW) };
    assert!(d.remove());
    assert_eq!((d.state, d.reason), (QueueState::Done, None));
}

#[test]
fn an_operator_s_wish_for_what_is_out_is_carried_out_by_its_settle() {
    let mut d = out(A1);
    assert!(d.pause());
    d.settle(A1, Step::Hold(LATER), NOW, HOLD);
    assert_eq!(d.state, QueueState::Paused { from: PausedFrom::Unsure { attempt: A1, until: LATER } });
    assert!(d.release(NOW));
    assert_eq!(d.state, QueueState::Unsure { attempt: A1, until: LATER });
    assert!(d.remove());
    assert_eq!(d.reason, Some(Reason::Removed));

    let mut d = out(A1);
    assert!(d.remove());
    d.settle(A1, Step::Done, NOW, HOLD);
    assert_eq!((d.reason, d.known), (None, Known::Handed), "it had left already");
}

#[test]
fn what_was_paused_stays_paused_when_its_late_answer_comes() {
    let mut d = bound();
    assert!(d.pause());
    d.open = Open::default();
    assert!(d.settle(A1, Step::Elsewhere, NOW, HOLD));
    assert_eq!(d.state, QueueState::Paused { from: PausedFrom::Waiting }, "nothing is open any more");
    let mut d = bound();
    assert!(d.pause());
    d.settle(A1, Step::Hold(LATER), NOW, HOLD);
    assert_eq!(d.state, QueueState::Paused { from: PausedFrom::Unsure { attempt: A1, until: LATER } });
    d.settle(A1, Step::Bounce, NOW, HOLD);
    assert_eq!(d.reason, Some(Reason::Refused));
}

#[test]
fn an_unbegun_delivery_waits_again_or_returns_to_its_hold() {
    let mut d = out(A1);
    assert!(d.unbegin(A1, NOW));
    assert_eq!(d.state, QueueState::Waiting { due: NOW });
    let mut d = bound();
    d.begin(d.state, ME, A2, false);
    assert!(d.unbegin(A2, LATER));
    assert_eq!(d.state, QueueState::Unsure { attempt: A1, until: LATER });
    d.begin(d.state, ME, A2, false);
    d.settle(A1, Step::Done, NOW, HOLD);
    assert!(d.remove() && d.unbegin(A2, LATER));
    assert_eq!((d.state, d.reason), (QueueState::Done, None), "the first was taken meanwhile");
}

/// One whose loss was seen; its hold is over.
fn bound() -> Delivery {
    let mut d = out(A1);
    d.settle(A1, Step::Hold(NOW), NOW, HOLD);
    d.open = Open { count: 1, seen: 1, latest: Some(A1) };
    d
}

const SECOND: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_secs(10);

#[test]
fn an_esp_that_stays_unable_loses_what_is_bound_to_it_after_another_hold() {
    let mut d = bound();
    assert_eq!(d.unable(NOW, HOLD, SECOND, UnsureThen::RetryAny), Unable::Waits(NOW.plus(SECOND)));
    assert_eq!(d.unable(NOW, HOLD, SECOND, UnsureThen::RetryAny), Unable::Moved, "its hold is not over");
    let over = NOW.plus(HOLD);
    assert_eq!(d.unable(over, HOLD, SECOND, UnsureThen::RetryAny), Unable::RetriesAny);
    assert!(!d.is_bound());
    assert_eq!(d.begin(d.state, ME, A2, false), Begin::Begun { twice: true });
    d.settle(A2, Step::Later(LATER), over, HOLD);
    assert_eq!(d.state, QueueState::Waiting { due: LATER }, "it is bound no more");

    let mut d = bound();
    d.unable(NOW, HOLD, SECOND, UnsureThen::AssumeSent);
    assert_eq!(d.unable(over, HOLD, SECOND, UnsureThen::AssumeSent), Unable::Assumed);
    assert_eq!(d.reason, Some(Reason::Assumed));
}

#[test]
fn a_second_one_is_taken_as_sent_only_while_the_first_is_open() {
    let repeated = || {
        let mut d = bound();
        d.begin(d.state, ME, A2, false);
        d
    };
    let mut d = Delivery { open: Open { count: 2, seen: 2, latest: Some(A2) }, ..repeated() };
    d.settle(A2, Step::Assume(LATER), NOW, HOLD);
    assert_eq!(d.reason, Some(Reason::Assumed));
    let mut d = Delivery { open: Open { count: 1, seen: 1, latest: Some(A2) }, ..repeated() };
    d.settle(A2, Step::Assume(LATER), NOW, HOLD);
    assert_eq!(d.state, QueueState::Unsure { attempt: A2, until: LATER }, "the first was refused meanwhile");
}

#[test]
fn what_only_a_crash_left_open_is_not_taken_as_sent() {
    let mut d = out(A1);
    d.crashed(NOW);
    d.unable(NOW, HOLD, SECOND, UnsureThen::AssumeSent);
    assert_eq!(d.unable(NOW.plus(HOLD), HOLD, SECOND, UnsureThen::AssumeSent), Unable::RetriesAny);
}

#[test]
fn a_repeat_that_is_refused_is_held_for_the_open_answer_and_counts_as_unable() {
    let mut d = bound();
    d.begin(d.state, ME, A2, false);
    d.settle(A2, Step::Elsewhere, NOW, HOLD);
    assert!(matches!(d.state, QueueState::Unsure { attempt: A1, .. }), "{d:?}");
    assert_eq!(d.unable(NOW.plus(HOLD), HOLD, SECOND, UnsureThen::RetryAny), Unable::RetriesAny);
}

#[test]
fn no_step_of_the_retry_schedule_goes_past_the_second_hold() {
    let far = Step::Later(NOW.plus(HOLD * 50));
    let over = NOW.plus(HOLD);
    let mut d = bound();
    d.begin(d.state, ME, A2, false);
    d.settle(A2, far, NOW, HOLD);
    assert_eq!(d.state, QueueState::Unsure { attempt: A1, until: over });
    // A second try within it does not put it off.
    let mut again = d;
    again.begin(again.state, ME, A2, false);
    again.settle(A2, far, NOW.plus(SECOND * 4), HOLD);
    assert_eq!(again.state, QueueState::Unsure { attempt: A1, until: over });
    assert_eq!(d.unable(over, HOLD, SECOND, UnsureThen::RetryAny), Unable::RetriesAny);

    let mut free = out(A1);
    free.settle(A1, far, NOW, HOLD);
    assert_eq!(free.state, QueueState::Waiting { due: NOW.plus(HOLD * 50) }, "nothing binds it");
}

#[test]
fn what_is_known_is_the_highest_but_delivered_beats_bounced() {
    use Known::*;
    for (told, overall) in [
        (vec![], Nothing),
        (vec![Bounced, Delivered], Delivered),
        (vec![Delivered, Bounced], Delivered),
        (vec![Deferred, Bounced], Bounced),
        (vec![Complained, Delivered], Complained),
    ] {
        assert_eq!(Known::overall(told.clone()), overall, "{told:?}");
    }
    let mut d = bound();
    d.learn(Delivered);
    assert!(d.follow_known() && d.state == QueueState::Done);
}

#[test]
fn flush_leaves_holds_alone() {
    let mut d = out(A1);
    d.settle(A1, Step::Hold(LATER), NOW, HOLD);
    assert!(!d.flush(NOW));
    assert!(d.release(NOW), "release ends the hold, still bound");
    assert_eq!(d.state, QueueState::Unsure { attempt: A1, until: NOW });
}

#[test]
fn only_who_is_done_and_not_served_starts_a_new_round() {
    for (known, again) in [
        (Known::Nothing, true),
        (Known::Handed, false),
        (Known::Deferred, false),
        (Known::Delivered, false),
        (Known::Bounced, true),
        (Known::Complained, false),
    ] {
        let done = Delivery { state: QueueState::Done, known, unbound: true, ..Delivery::waiting(NOW) };
        let mut d = done;
        let wanted = if again { Requeue::Again { twice: false } } else { Requeue::Not };
        assert_eq!(d.requeue(LATER), wanted, "{known:?}");
        assert_eq!(d, if again { Delivery::waiting(LATER) } else { done });
        let mut waits = Delivery { known, ..Delivery::waiting(NOW) };
        assert_eq!(waits.requeue(LATER), Requeue::Not);
    }
}

#[test]
fn a_new_round_over_an_open_attempt_may_arrive_twice_however_it_was_done() {
    let requeued = |mut d: Delivery| {
        let done = d.requeue(LATER);
        assert_eq!(d, Delivery::waiting(LATER), "it is not bound by what is open");
        done
    };
    let mut removed = out(A1);
    removed.open = Open { count: 1, seen: 1, latest: Some(A1) };
    removed.settle(A1, Step::Hold(LATER), NOW, HOLD);
    assert!(removed.remove());
    assert_eq!(requeued(removed), Requeue::Again { twice: true });
    let mut marked = out(A1);
    assert!(marked.remove());
    assert!(marked.crashed(LATER));
    assert_eq!((marked.state, marked.reason), (QueueState::Done, Some(Reason::Removed)));
    assert_eq!(requeued(marked), Requeue::Again { twice: true });
    let mut answered = out(A1);
    assert!(answered.remove());
    answered.settle(A1, Step::Later(LATER), NOW, HOLD);
    assert_eq!(requeued(answered), Requeue::Again { twice: false });
    let assumed =
        Delivery { state: QueueState::Done, reason: Some(Reason::Assumed), ..Delivery::waiting(NOW) };
    assert_eq!(requeued(assumed), Requeue::Again { twice: true });
}

#[test]
fn what_is_known_only_rises_though_what_told_it_is_kept_no_more() {
    use Known::{Bounced, Complained, Deferred, Delivered, Handed, Nothing};
    for (before, told, after) in [
        (Complained, Delivered, Complained),
        (Delivered, Handed, Delivered),
        (Bounced, Deferred, Bounced),
        (Bounced, Delivered, Delivered),
        (Delivered, Bounced, Bounced),
        (Nothing, Deferred, Deferred),
    ] {
        let mut d = Delivery { known: before, ..Delivery::waiting(Timestamp::from_millis(0)) };
        d.learn(told);
        assert_eq!(d.known, after, "{before:?}, then {told:?}");
    }
}
