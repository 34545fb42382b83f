//! What a gate learns from calls, and whom it keeps out.

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
    Met {
        outcomes,
        keys: &[],
        whose: Whose::default(),
        blames_request: false,
        given_up: false,
        report: false,
        late: false,
    }
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
        (vec![Outcome::Unsure { said: String::new() }], Some(Sign::Lost)),
        (vec![refused(Fault::Path), accepted()], Some(Sign::Alive)),
        (vec![refused(Fault::Account), accepted()], Some(Sign::Alive)),
        (vec![refused(Fault::Path), refused(Fault::Account)], Some(Sign::Account)),
    ] {
        let systemic = vec![false; outcomes.len()];
        assert_eq!(sign(&outcomes, &systemic).map(|(sign, _)| sign), wanted, "{outcomes:?}");
    }
}

#[test]
fn the_first_fault_of_the_account_is_told_and_no_further_one() {
    let house = Gatehouse::new("a", 1, T0);
    let meet = |fault| house.returns(&met(&[refused(fault, None)]), Duration::ZERO, T0, true).alerts;
    assert_eq!(meet(Fault::Path), []);
    assert_eq!(meet(Fault::Account), [("esp_shut", "a: no mail goes there: no".to_owned())]);
    assert_eq!((meet(Fault::Account), house.admits(T0)), (vec![], Admits::Nothing));
}

#[test]
fn that_a_request_is_not_as_it_should_be_is_told_once_until_they_are_taken_again() {
    let house = Gatehouse::new("a", 1, T0);
    let unfit = [Outcome::Unfit { why: "HTTP 422 invalid JSON".into() }];
    let blame = |seconds| {
        let now = T0.plus(Duration::from_secs(seconds));
        let met = Met { blames_request: true, ..met(&unfit) };
        house.returns(&met, Duration::ZERO, now, true).alerts
    };
    let take = |seconds| {
        let now = T0.plus(Duration::from_secs(seconds));
        house.returns(&met(&[accepted()]), Duration::ZERO, now, true);
    };
    let first = blame(0);
    assert!(matches!(&first[..], [("request_refused", said)] if said.contains("invalid JSON")), "{first:?}");
    assert_eq!((blame(1), house.admits(T0)), (vec![], Admits::All), "other mail goes on");
    take(2);
    assert_eq!(blame(3), [], "what is taken between is other mail");
    take(1_000);
    assert!(!house.any_stop.load(Ordering::Acquire));
    assert_eq!(blame(1_001).len(), 1, "it was over");
}

#[test]
fn an_esp_that_refuses_one_recipient_after_the_other_is_at_fault_itself() {
    let house = Gatehouse::new("a", 1, T0);
    let refuse = |n: usize| {
        let (outcomes, keys) = ([refused(Fault::Recipient, None)], [format!("r{n}@x.example")]);
        let met = Met {
            outcomes: &outcomes,
            keys: &keys,
            whose: Whose::default(),
            blames_request: false,
            given_up: false,
            report: false,
            late: false,
        };
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
fn who_is_refused_beside_one_that_it_takes_is_refused_for_their_own_sake() {
    let house = Gatehouse::new("a", 1, T0);
    let keys: Vec<String> = (0..20).map(|n| format!("r{n}@x.example")).collect();
    let mut outcomes: Vec<Outcome> = (0..20).map(|_| refused(Fault::Recipient, None)).collect();
    for place in [0, 10, 19] {
        let instead = std::mem::replace(&mut outcomes[place], accepted());
        let met = Met { keys: &keys, ..met(&outcomes) };
        assert_eq!(
            house.returns(&met, Duration::ZERO, T0, true),
            Judged { systemic: vec![false; 20], alerts: vec![] }
        );
        outcomes[place] = instead;
    }
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

#[test]
fn a_pause_of_no_length_grows_until_it_takes_something() {
    let house = Gatehouse::new("a", 1, T0);
    let mut now = T0;
    for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
        for wait in [Some(Duration::ZERO), None] {
            // The second is answered beside the first, and asks for no more.
            house.returns(
                &met(&[refused(Fault::Throttled(Throttle::Rate), wait)]),
                Duration::ZERO,
                now,
                true,
            );
        }
        let pause = Duration::from_secs(seconds);
        assert!(house.hindrance(Whose::default(), now.plus(pause - Duration::from_millis(1))).is_some());
        now = now.plus(pause);
        assert_eq!(house.hindrance(Whose::default(), now), None, "{seconds} s");
    }
    house.returns(&met(&[accepted()]), Duration::ZERO, now, true);
    house.returns(&met(&[refused(Fault::Throttled(Throttle::Rate), None)]), Duration::ZERO, now, true);
    assert_eq!(house.hindrance(Whose::default(), now.plus(PAUSE)), None, "from the beginning");
}

#[test]
fn it_learns_how_many_recipients_a_transaction_takes() {
    let house = Gatehouse::new("a", 1, T0);
    let full = || refused(Fault::Throttled(Throttle::Transaction), None);
    house.returns(&met(&[accepted(), accepted(), full(), full(), full()]), Duration::ZERO, T0, true);
    assert_eq!(house.recipients_max(), 2);
    assert_eq!(house.hindrance(Whose::default(), T0), None, "that is no pause");
}

fn sender(text: &str) -> ReversePath {
    ReversePath::Mailbox(Address::parse(text, Grammar::Strict).unwrap())
}

fn refuse_sender(house: &Gatehouse, named: Named, whose: Whose<'_>) -> Vec<String> {
    let outcomes = [refused(Fault::Sender(named), None)];
    let judged = house.returns(
        &Met {
            outcomes: &outcomes,
            keys: &[],
            whose,
            blames_request: false,
            given_up: false,
            report: false,
            late: false,
        },
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
    assert!(hindrance(&same, T0).is_some_and(|h| h.starts_with("refused MAIL FROM:<b@evil.test>; asked")));
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
    assert!(refuse(true));
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

#[tokio::test]
async fn the_fifth_message_in_a_row_refused_for_its_content_is_told_and_still_bounced() {
    let house = Gatehouse::new("a", 2, T0);
    let refuse = |n: usize| {
        let keys: Vec<String> = ["x", "y"].iter().map(|who| format!("{who}{n}@example.com")).collect();
        let outcomes = vec![refused(Fault::Message, None); 2];
        house.returns(&Met { keys: &keys, ..met(&outcomes) }, Duration::ZERO, T0, true)
    };
    let quiet = Judged { systemic: vec![false; 2], alerts: vec![] };
    for n in [0, 1, 2, 3, 3] {
        assert_eq!(refuse(n), quiet, "one message is one, whomever it is for");
    }
    let fifth = refuse(4);
    assert_eq!((fifth.systemic, fifth.alerts[0].0), (vec![false; 2], "esp_refuses_every_message"));
    assert_eq!((refuse(5), house.why_shut()), (quiet.clone(), None), "once");
    let standing = house.alerts();
    assert!(
        matches!(&standing[..], [("esp_refuses_every_message", said)] if said.contains(": no.")),
        "{standing:?}"
    );
    house.returns(&met(&[accepted()]), Duration::ZERO, T0, true);
    assert!(house.alerts().is_empty());
    for n in 0..4 {
        assert_eq!(refuse(n), quiet, "one was taken between");
    }
    assert_eq!(refuse(4).alerts.len(), 1, "it is told anew");
}

#[tokio::test]
async fn mail_that_was_taken_as_sent_is_told_once_until_answers_have_come_for_a_while() {
    let house = Gatehouse::new("a", 1, T0);
    let at = |seconds| T0.plus(Duration::from_secs(seconds));
    assert_eq!(house.note_assumed("a: no answer", T0), [("assumed", "a: no answer".to_owned())]);
    assert_eq!(house.note_assumed("a: no answer again", at(60)), []);
    assert_eq!(house.hindrance(Whose::default(), at(60)), None, "it keeps no mail from it");
    house.returns(&met(&[accepted()]), Duration::ZERO, at(659), true);
    assert!(matches!(&house.alerts()[..], [("assumed", _)]));
    house.returns(&met(&[accepted()]), Duration::ZERO, at(660), true);
    assert!(house.alerts().is_empty());
    assert_eq!(house.note_assumed("a: no answer", at(700)).len(), 1, "it is told anew");
    house.reopen(at(701));
    assert!(house.alerts().is_empty());
}

#[tokio::test]
async fn a_gate_that_is_shut_again_and_again_is_one_trouble_and_told_as_one() {
    let house = Gatehouse::new("a", 1, T0);
    let at = |seconds| T0.plus(Duration::from_secs(seconds));
    let mut told = 0;
    for cycle in 0..20 {
        let (shuts, opens) = (at(cycle * 15), at(cycle * 15 + 6));
        for _ in 0..3 {
            let closed = refused(Fault::Path, None);
            told += house.returns(&met(&[closed]), Duration::ZERO, shuts, true).alerts.len();
        }
        assert!(house.why_shut().is_some() && house.takes_check(opens), "{cycle}");
        house.checked(Ok(()), opens);
        assert!(house.take_probe());
        house.returns(&met(&[accepted()]), Duration::ZERO, opens, true);
        assert_eq!(house.why_shut(), None);
        house.look_at_alert(opens);
        assert_eq!(house.shut.raised(), cycle > 0, "the first time it was over at once");
    }
    assert_eq!(told, 2, "and once more when it came back");
    house.look_at_alert(at(291 + 599));
    assert!(house.shut.raised());
    house.look_at_alert(at(291 + 600));
    assert!(!house.shut.raised(), "it has been well for a while");
}

#[tokio::test]
async fn reports_of_ours_neither_raise_the_guard_nor_lower_it() {
    let house = Gatehouse::new("a", 2, T0);
    let returns = |key: &str, outcome: Outcome, report| {
        let (outcomes, keys) = ([outcome], [key.to_owned()]);
        let met = Met { keys: &keys, report, ..met(&outcomes) };
        house.returns(&met, Duration::ZERO, T0, true).systemic[0]
    };
    let no = || refused(Fault::Recipient, None);
    for key in ["a", "b", "c", "d"] {
        assert!(!returns(key, no(), false));
        assert!(!returns("app", accepted(), true));
        assert!(!returns(&format!("sender of {key}"), no(), true));
    }
    assert!(returns("e", no(), false), "the fifth in a row");
    assert!(returns("app", no(), true), "its word counts no more for a report");
    assert!(!returns("app", accepted(), true));
    assert!(returns("f", no(), false));
    assert!(!returns("g", accepted(), false) && !returns("h", no(), false));
}
