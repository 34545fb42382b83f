//! `postroad explain ID`: a message's life, told in order.

use std::io::{self, Write};

use serde_json::json;

use super::events::kind_in_words;
use super::text::{json_line, relative, seconds, shown, size};
use super::{Common, Failure, reach};
use crate::clock::{Clock, System, Timestamp};
use crate::http::esp_shape::Standing;
use crate::http::shape::{Attempt, Delivery, Event, Life, Moment};
use crate::mail::effect::{COMPLAINT, DEACTIVATED, HARD_BOUNCE, reason_of};
use crate::mail::{Known, MessageId};

/// `explain ID`
pub(super) async fn explain(common: &Common, id: MessageId, out: &mut impl Write) -> Result<(), Failure> {
    let life = reach::source(common).await?.show(id).await?;
    if common.json {
        json_line(out, &json!(life))?;
    } else {
        tell(&life, System.now(), out)?;
    }
    Ok(())
}

fn tell(life: &Life, now: Timestamp, out: &mut impl Write) -> io::Result<()> {
    head(life, now, out)?;
    for event in life.events.iter().filter(|e| e.n.is_none()) {
        tell_event(life, event, out)?;
    }
    for delivery in &life.deliveries {
        writeln!(out)?;
        writeln!(out, "To <{}>: {}", shown(&delivery.recipient), state_in_words(life, delivery, now))?;
        for moment in moments(life, delivery.n) {
            match moment {
                Told::Attempt(number, attempt) => tell_attempt(number, attempt, out)?,
                Told::Event(event) => tell_event(life, event, out)?,
            }
        }
        if let Some(outlook) = life.now.iter().find(|outlook| outlook.n.contains(&delivery.n)) {
            writeln!(out, "  now: {}", outlook_in_words(&outlook.esps))?;
        }
    }
    Ok(())
}

/// Who is next, and each other one's place, in the words of an attempt's choice.
fn outlook_in_words(esps: &[Standing]) -> String {
    let place = |esp: &Standing| match (&esp.why, esp.rank) {
        (Some(why), _) => Some(format!("{}: {}", shown(&esp.name), shown(why))),
        (None, Some(1)) => None,
        (None, _) => {
            Some(format!("{}: comes later, priority {}{}", shown(&esp.name), esp.priority, spent(esp)))
        }
    };
    let next = esps.iter().find(|esp| esp.rank == Some(1));
    let next = next.map_or_else(
        || "no ESP takes it".into(),
        |esp| format!("{} is next{}", shown(&esp.name), spent(esp)),
    );
    [next].into_iter().chain(esps.iter().filter_map(place)).collect::<Vec<_>>().join("; ")
}

/// That its rate leaves no room at the moment.
fn spent(esp: &Standing) -> String {
    esp.rate_opens_at.map_or_else(String::new, |at| format!(", its rate is used up until {at}"))
}

fn head(life: &Life, now: Timestamp, out: &mut impl Write) -> io::Result<()> {
    let source = &life.source;
    let sender = if life.sender.is_empty() {
        "<> (it never bounces)".into()
    } else {
        format!("<{}>", shown(&life.sender))
    };
    writeln!(out, "Message {}", life.id)?;
    writeln!(out, "  from      {sender}")?;
    writeln!(
        out,
        "  accepted  {} ({}), on {}",
        life.accepted_at,
        relative(life.accepted_at.0, now),
        shown(&source.listener)
    )?;
    let credential = match &source.credential {
        Some(name) => format!("as {}", shown(name)),
        None => "without a login".into(),
    };
    writeln!(
        out,
        "  client    {} ({}), {credential}, {}",
        source.client,
        shown(&source.helo),
        source.protocol
    )?;
    writeln!(out, "  stream    {} ({})", shown(&life.stream), life.kind)?;
    writeln!(
        out,
        "  size      {}{}",
        size(life.size),
        if life.body_kept {
            ""
        } else {
            "; its content is gone ([retention] bodies, or the disk was nearly full)"
        }
    )?;
    writeln!(
        out,
        "  given up  {} ({}) where it is not taken before",
        life.expires_at,
        relative(life.expires_at.0, now)
    )?;
    if let Some(pin) = &life.pin {
        writeln!(out, "  pinned    only {} may carry it", shown(pin))?;
    }
    if !life.tags.is_empty() {
        writeln!(out, "  tags      {}", shown(&life.tags.join(", ")))?;
    }
    for (key, value) in &life.metadata {
        writeln!(out, "  metadata  {}: {}", shown(key), shown(value))?;
    }
    Ok(())
}

enum Told<'a> {
    /// Which attempt for this recipient, from 1.
    Attempt(usize, &'a Attempt),
    Event(&'a Event),
}

/// What happened to one recipient, in the order in which it can have happened; where an attempt and an event are of one
/// instant, the attempt first.
fn moments(life: &Life, n: u32) -> Vec<Told<'_>> {
    let attempts =
        attempts_for(life, n).enumerate().map(|(i, a)| ((a.begun_at, None), Told::Attempt(i + 1, a)));
    let events = life.events.iter().filter(|e| e.n == Some(n));
    let events = events.map(|e| (e.place(&life.attempts), Told::Event(e)));
    let mut all: Vec<((Moment, Option<Known>), Told<'_>)> = attempts.chain(events).collect();
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, told)| told).collect()
}

fn attempts_for(life: &Life, n: u32) -> impl Iterator<Item = &Attempt> {
    life.attempts.iter().filter(move |a| a.n == n)
}

fn tell_attempt(number: usize, attempt: &Attempt, out: &mut impl Write) -> io::Result<()> {
    let esp = shown(&attempt.esp);
    write!(out, "  {}  attempt {number} by {esp}: {}", attempt.begun_at, outcome_in_words(attempt))?;
    if let Some(phase) = &attempt.phase {
        write!(out, ", {}", phase_in_words(phase))?;
    }
    if let Some(answered) = attempt.answered_at {
        write!(out, ", after {}", seconds(answered.0.since(attempt.begun_at.0)))?;
    }
    writeln!(out)?;
    if let Some(choice) = &attempt.choice {
        writeln!(out, "      chosen: {}", shown(choice))?;
    }
    if !attempt.said.is_empty() {
        writeln!(out, "      {esp} said: {}", shown(&attempt.said))?;
    }
    if let Some(remote_id) = &attempt.remote_id {
        writeln!(out, "      its id there: {}", shown(remote_id))?;
    }
    Ok(())
}

/// What it was, how it was joined, and what it did.
fn tell_event(life: &Life, event: &Event, out: &mut impl Write) -> io::Result<()> {
    let detail = if event.detail.is_empty() { String::new() } else { format!(": {}", shown(&event.detail)) };
    let kind = event.kind.replace('_', " ");
    let kind = kind_in_words(&kind, event.class.as_deref(), event.told_as.as_deref());
    writeln!(out, "  {}  {kind}{detail}", event.at)?;
    if let Some(esp) = &event.esp {
        writeln!(out, "      told by {}, {}", shown(esp), joined_in_words(life, event))?;
    }
    match consequence(event) {
        Some(words) => writeln!(out, "      {words}"),
        None => Ok(()),
    }
}

/// By what an ESP's event was found to be of this message.
fn joined_in_words(life: &Life, event: &Event) -> String {
    let of_it = |a: &&Attempt| Some(&a.attempt) == event.attempt.as_ref();
    let number = event.n.and_then(|n| attempts_for(life, n).position(|a| of_it(&a)));
    let attempt = number.map_or_else(|| "the attempt".into(), |i| format!("attempt {}", i + 1));
    let sure = event.confidence.map_or_else(String::new, |sure| format!(" (confidence {sure})"));
    match event.joined_by.as_deref() {
        Some("attempt_id") => format!("with the id that went with {attempt}"),
        Some("provider_id") => format!("with its own id of {attempt}{sure}"),
        Some("recipient_and_time") => {
            format!("without an id: {attempt} alone fits by recipient and time{sure}")
        }
        other => shown(other.unwrap_or("of this message")),
    }
}

/// What an ESP's event did to its address, where such events do something.
fn consequence(event: &Event) -> Option<String> {
    event.esp.as_ref()?;
    let Some(on_list) = &event.suppressed else {
        let always = reason_of(&event.kind, event.class.as_deref());
        let reason = always.filter(|reason| [HARD_BOUNCE, COMPLAINT, DEACTIVATED].contains(reason))?;
        return Some(format!("the address was suppressed for it ({reason}), and is off the list by now"));
    };
    let scope =
        on_list.scope.as_ref().map_or_else(String::new, |scope| format!(" for {} mail", shown(scope)));
    let until = on_list.until.map_or_else(String::new, |until| format!(", until {until}"));
    let reason = shown(&on_list.reason);
    Some(match on_list.by_this_event {
        true => format!("so the address was suppressed{scope} ({reason}){until}"),
        false => {
            let (since, source) = (on_list.since, shown(&on_list.source));
            format!("the address is suppressed{scope} ({reason}) since {since}, by {source}{until}")
        }
    })
}

fn outcome_in_words(attempt: &Attempt) -> String {
    match (attempt.outcome.as_str(), attempt.fault.as_deref()) {
        ("begun", _) => "under way".into(),
        ("refused", Some(fault)) => format!("refused ({})", fault_in_words(fault)),
        ("unfit", _) => "it cannot carry this message".into(),
        ("unsure", _) => "the answer was lost, so it is not known whether it was taken".into(),
        (outcome, _) => shown(outcome),
    }
}

fn fault_in_words(fault: &str) -> String {
    match fault {
        "recipient" => "this address".into(),
        "message" => "this content".into(),
        "sender" => "the sender's domain is not set up there".into(),
        "account" => "our account there".into(),
        "path" => "the way there".into(),
        "throttled" => "too much for now".into(),
        other => shown(other),
    }
}

fn phase_in_words(phase: &str) -> String {
    let reached = match phase {
        "connect" => "while connecting",
        "banner" => "waiting for its greeting",
        "ehlo" => "at EHLO",
        "tls" => "at TLS",
        "token" => "asking for an access token",
        "auth" => "at AUTH",
        "mail" => "at MAIL FROM",
        "rcpt" => "at RCPT TO",
        "data" => "at DATA",
        "body" => "while the content was written",
        "dot" => "at the final dot",
        "answer" => "waiting for the answer",
        other => return shown(other),
    };
    reached.into()
}

/// Where a delivery stands, in words.
pub(super) fn state_in_words(life: &Life, delivery: &Delivery, now: Timestamp) -> String {
    let esp = shown(delivery.esp.as_deref().unwrap_or("an ESP"));
    let words = match delivery.state.as_str() {
        "waiting" => waiting(delivery, now),
        "out" => format!("attempt {} is with {esp} now", delivery.tries.max(1)),
        "unsure" => format!("held until {}", held(life, delivery, now)),
        "paused" if delivery.paused_from.as_deref() == Some("unsure") => {
            format!("paused by an operator; before that held until {}", held(life, delivery, now))
        }
        "paused" => "paused by an operator; queue release lets it go on".into(),
        "done" => format!("done: {}", end(life, delivery, &esp)),
        other => shown(other),
    };
    match delivery.mark.as_deref() {
        Some("pause") => format!("{words}; it is paused when that is answered"),
        Some("remove") => format!("{words}; it is removed when that is answered, unless it was taken"),
        _ => words,
    }
}

fn waiting(delivery: &Delivery, now: Timestamp) -> String {
    let next = delivery.tries + 1;
    match delivery.due {
        Some(due) if due.0 > now => format!("waiting until {due} ({}, attempt {next})", relative(due.0, now)),
        _ => format!("waiting, due now (attempt {next})"),
    }
}

fn held(life: &Life, delivery: &Delivery, now: Timestamp) -> String {
    let until = delivery.until.map_or_else(String::new, |at| format!("{at} ({}) ", relative(at.0, now)));
    let number = attempts_for(life, delivery.n).position(|a| Some(&a.attempt) == delivery.attempt.as_ref());
    let attempt = number.map_or_else(|| "an attempt".into(), |i| format!("attempt {}", i + 1));
    format!("{until}because the answer to {attempt} was lost")
}

fn end(life: &Life, delivery: &Delivery, esp: &str) -> String {
    match (delivery.known.as_str(), delivery.reason.as_deref()) {
        ("handed", _) => handed(life, delivery, esp),
        ("deferred", _) => format!("{esp} has it and meets a delay"),
        ("delivered", _) => format!("{esp} delivered it"),
        ("bounced", _) => format!("it came back to {esp}"),
        ("complained", _) => "it arrived and the recipient complained".into(),
        (_, Some("suppressed")) => match may_have_arrived(life, delivery.n) {
            open if open.is_empty() => "not mailed, because the recipient is suppressed".into(),
            open => format!("not sent again, because the recipient is suppressed{open}"),
        },
        (_, Some("expired")) => given_up(life, delivery),
        (_, Some("removed")) => format!("removed by an operator{}", may_have_arrived(life, delivery.n)),
        (_, Some("assumed")) => "taken as sent: its answer never came".into(),
        (_, Some("refused")) => {
            let said = delivery.said.as_deref().map_or_else(String::new, |said| format!(": {}", shown(said)));
            format!("refused for good by {esp}{said}{}", may_have_arrived(life, delivery.n))
        }
        (known, reason) => shown(reason.unwrap_or(known)),
    }
}

/// Which attempts have no answer, as the end of a sentence; empty: each has one.
fn may_have_arrived(life: &Life, n: u32) -> String {
    let open = attempts_for(life, n).enumerate().filter(|(_, attempt)| attempt.outcome == "unsure");
    let open: Vec<String> = open.map(|(i, _)| (i + 1).to_string()).collect();
    match open.is_empty() {
        true => String::new(),
        false => format!("; whether attempt {} arrived is not known", open.join(" or ")),
    }
}

/// With what each ESP said, as the event has it.
fn given_up(life: &Life, delivery: &Delivery) -> String {
    let event = life.events.iter().rfind(|e| e.n == Some(delivery.n) && e.kind == "expired");
    let why = event.map_or("its time was over", |e| e.detail.as_str());
    format!("given up, because {}", shown(why))
}

fn handed(life: &Life, delivery: &Delivery, esp: &str) -> String {
    let accepted = attempts_for(life, delivery.n).find(|a| a.outcome == "accepted");
    match accepted.and_then(|a| a.remote_id.as_deref()) {
        Some(remote_id) => format!("handed to {esp} as {}", shown(remote_id)),
        None => format!("handed to {esp}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fake::{ACCEPTED, DUE, attempt, message, out};
    use crate::mail::delivery::{Mark, PausedFrom};
    use crate::mail::{QueueState, Reason};
    use crate::store::MessageView;

    fn words(view: MessageView) -> String {
        let life = Life::from(view);
        state_in_words(&life, &life.deliveries[0], ACCEPTED)
    }

    #[test]
    fn a_rate_that_is_used_up_is_told_of_whoever_is_next() {
        let esp = |name: &str, rank: usize, spent: bool| Standing {
            name: name.into(),
            priority: 1,
            weight: 100,
            rank: Some(rank),
            why: None,
            ends: None,
            until: None,
            rate_opens_at: spent.then_some(crate::http::shape::Moment(ACCEPTED)),
        };
        let told = outlook_in_words(&[esp("a", 1, true), esp("b", 2, false)]);
        assert_eq!(
            told,
            format!("a is next, its rate is used up until {ACCEPTED}; b: comes later, priority 1")
        );
    }

    #[test]
    fn every_state_reads_as_a_sentence() {
        let unsure = PausedFrom::Unsure { attempt: attempt(11), until: DUE };
        let held = "held until 2026-11-25T10:24:34.005Z (in 4 min) because the answer to attempt 1 was lost";
        for (state, expected) in [
            (
                QueueState::Waiting { due: DUE },
                "waiting until 2026-11-25T10:24:34.005Z (in 4 min, attempt 2)",
            ),
            (QueueState::Waiting { due: ACCEPTED }, "waiting, due now (attempt 2)"),
            (out(11), "attempt 1 is with sandbox now"),
            (QueueState::Unsure { attempt: attempt(11), until: DUE }, held),
            (QueueState::Paused { from: unsure }, &format!("paused by an operator; before that {held}")),
            (
                QueueState::Paused { from: PausedFrom::Waiting },
                "paused by an operator; queue release lets it go on",
            ),
        ] {
            assert_eq!(words(message(1, state, "")), expected);
        }
        let mut marked = message(1, out(11), "");
        marked.deliveries[0].mark = Mark::Pause;
        assert_eq!(words(marked), "attempt 1 is with sandbox now; it is paused when that is answered");
    }

    #[test]
    fn every_end_says_why() {
        for (reason, expected) in [
            (Reason::Suppressed, "done: not mailed, because the recipient is suppressed"),
            (Reason::Expired, "done: given up, because its time was over"),
            (Reason::Removed, "done: removed by an operator"),
            (Reason::Assumed, "done: taken as sent: its answer never came"),
            (Reason::Refused, "done: refused for good by sandbox: 550 5.1.1 no such user"),
        ] {
            let mut view = message(1, QueueState::Done, "550 5.1.1 no such user");
            view.deliveries[0].known = crate::mail::Known::Nothing;
            view.deliveries[0].reason = Some(reason);
            assert_eq!(words(view), expected);
        }
        assert_eq!(words(message(1, QueueState::Done, "")), "done: handed to sandbox as sandbox-2");
    }

    #[test]
    fn an_end_beside_an_attempt_without_an_answer_says_so() {
        for (reason, expected) in [
            (
                Reason::Suppressed,
                "done: not sent again, because the recipient is suppressed; whether attempt 1 arrived is not known",
            ),
            (Reason::Removed, "done: removed by an operator; whether attempt 1 arrived is not known"),
            (
                Reason::Refused,
                "done: refused for good by sandbox: 550 no; whether attempt 1 arrived is not known",
            ),
            (Reason::Assumed, "done: taken as sent: its answer never came"),
        ] {
            let mut view = message(1, QueueState::Done, "550 no");
            view.deliveries[0].known = crate::mail::Known::Nothing;
            view.deliveries[0].reason = Some(reason);
            let mut life = Life::from(view);
            life.attempts.truncate(1);
            life.attempts[0].outcome = "unsure".into();
            assert_eq!(state_in_words(&life, &life.deliveries[0], ACCEPTED), expected);
        }
    }
}
