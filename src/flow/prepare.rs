//! A submission becomes the message that is kept and sent: what is refused for its content, and what is changed.
//!
//! Changed are only: `Received`, and a missing `Date` or `Message-ID`, on top; a mailbox line made a field; From where the
//! client's terms rewrite it, and bare names in it where the relay has an `origin`; `Bcc`,
//! `Resent-Bcc`, `Return-Path` and `X-Postroad-*`, and what speaks to an ESP past the relay, taken out; an empty line put where header and body had none between
//! them; lines over 998 octets (see [`mime`](crate::mail::mime)). Every other octet is copied.
//!
//! Pure but for the memory that it takes from the [`Budget`] where a body is written anew.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memchr;

use crate::clock::Timestamp;
use crate::mail::body::{BodyFacts, HEADER_OCTETS_MAX, SPILL_OCTETS};
use crate::mail::envelope::recipient_octets;
use crate::mail::headers::{Field, Head, LINE_OCTETS_MAX, Separator, is_vendors};
use crate::mail::mime::{LongLines, shorten};
use crate::mail::rewrite::{Edits, Wanted, edits};
use crate::mail::splice::{apply, octets_after};
use crate::mail::trace::Trace;
use crate::mail::{Body, Budget, MessageId, Permit, Submission};
use crate::smtp::Reply;

/// RFC 5321 section 6.3 asks for a large number; Postfix's is 50.
pub const RECEIVED_MAX: usize = 50;

/// What a relay writes into messages, and how it takes long lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The relay's name.
    pub hostname: String,
    /// What tells its `Received` from every other relay's: letters, digits and hyphens.
    pub token: String,
    /// The domain that completes bare names in From.
    pub origin: Option<String>,
    /// `long_lines`
    pub long_lines: LongLines,
    /// `allow_vendor_headers`: what speaks to an ESP past the relay stays.
    pub vendor_headers: bool,
}

/// A message ready to be committed.
#[derive(Debug)]
pub struct Prepared {
    /// Its content. A part that was spilled stays as it is; `facts` speak of the whole.
    pub body: Body,
    /// The names of the fields that were taken out, for the log.
    pub removed: Vec<String>,
    /// Why From stayed as it was where it should have been changed, for the log.
    pub from_left: Option<&'static str>,
}

/// Why nothing was prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPrepared {
    /// The client is told so.
    Refused(Reply),
    /// It has long lines and lies on disk in part: fetch all of it, and call [`prepare_all`].
    NeedsAll {
        /// The size of all of it.
        octets: u64,
    },
}

impl From<Reply> for NotPrepared {
    fn from(reply: Reply) -> Self {
        NotPrepared::Refused(reply)
    }
}

/// Prepares a submission that is taken at `now` as `id`. The head of a spilled one is edited, its rest untouched.
pub fn prepare(
    mail: &Submission,
    id: MessageId,
    now: Timestamp,
    settings: &Settings,
    budget: &Arc<Budget>,
) -> Result<Prepared, NotPrepared> {
    let raw = &mail.raw;
    let head = judged(&raw.head, raw.rest.is_some(), settings)?;
    if raw.facts.longest_line_octets > LINE_OCTETS_MAX as u64 {
        if raw.rest.is_some() {
            return Err(NotPrepared::NeedsAll { octets: raw.size_octets() });
        }
        return Ok(rewritten(mail, &raw.head, &head, id, now, settings, budget)?);
    }
    let on_top = on_top(mail, id, now, settings, &head);
    let mut facts = facts_after(raw, &head, &on_top);
    let Edits { splices, left } = from_edits(mail, &raw.head, &head, settings);
    let any_edits = !splices.is_empty();
    let edited = apply(&raw.head, &head.splices(&raw.head, on_top, splices));
    if any_edits {
        facts.longest_line_octets = facts.longest_line_octets.max(BodyFacts::of(&edited).longest_line_octets);
    }
    let size_octets = edited.len() as u64 + raw.rest.map_or(0, |rest| rest.octets);
    let body = Body {
        head: Bytes::from(edited),
        rest: raw.rest,
        facts: BodyFacts { size_octets, ..facts },
        permit: raw.permit.clone(),
    };
    Ok(Prepared { body, removed: names(&head), from_left: left })
}

/// Prepares a submission whose content is `all`, fetched by the caller after [`NotPrepared::NeedsAll`] and covered by
/// a permit of the caller's. What comes back is whole in memory, under a permit of its own.
pub fn prepare_all(
    mail: &Submission,
    all: &[u8],
    id: MessageId,
    now: Timestamp,
    settings: &Settings,
    budget: &Arc<Budget>,
) -> Result<Prepared, Reply> {
    let head = judged(all, false, settings)?;
    rewritten(mail, all, &head, id, now, settings, budget)
}

/// Reads the head and refuses what must not pass.
fn judged(octets: &[u8], more_follows: bool, settings: &Settings) -> Result<Head, Reply> {
    let goes: fn(&Field<'_>) -> bool = if settings.vendor_headers { |_| false } else { is_vendors };
    let head = Head::read_less(octets, &settings.token, goes);
    let end = head.end;
    // Where only the first part is here, a block that seems to end at its last line was cut there.
    let cut = more_follows
        && end.separator != Separator::EmptyLine
        && memchr(b'\n', octets.get(end.body_at..).unwrap_or_default()).is_none();
    if cut || end.fields_end > HEADER_OCTETS_MAX {
        return Err(Reply::new(552, (5, 3, 4), "the header block is over 256 KiB: shorten its fields"));
    }
    if head.passed_here {
        return Err(Reply::new(
            554,
            (5, 4, 6),
            "mail loop: this message has passed this relay before (its Received says so); \
             check that the next hop does not send mail back here",
        ));
    }
    if head.received > RECEIVED_MAX {
        return Err(Reply::told(
            554,
            (5, 4, 6),
            format!(
                "mail loop: {} Received fields, {RECEIVED_MAX} are allowed; check where mail for this recipient is sent",
                head.received
            ),
        ));
    }
    if head.bcc_in_body {
        let line = 1 + octets[..end.body_at].iter().filter(|b| **b == b'\n').count();
        return Err(Reply::told(
            554,
            (5, 6, 0),
            format!(
                "line {line} is in the header block but is no header field, and a Bcc field after it would be shown \
                 to everybody; fold long fields with a blank at the start of the next line"
            ),
        ));
    }
    Ok(head)
}

fn on_top(mail: &Submission, id: MessageId, now: Timestamp, settings: &Settings, head: &Head) -> String {
    let trace = Trace {
        source: &mail.source,
        envelope: &mail.envelope,
        hostname: &settings.hostname,
        token: &settings.token,
        id,
        at: now,
    };
    trace.fields(head) + &mail.on_top
}

/// From as the relay would have it.
fn from_edits(mail: &Submission, octets: &[u8], head: &Head, settings: &Settings) -> Edits {
    let wanted = Wanted { rewrites: &mail.terms.from_rewrite, origin: settings.origin.as_deref() };
    edits(octets, head.fields_at(), wanted)
}

fn names(head: &Head) -> Vec<String> {
    head.removals.iter().map(|r| r.name.clone()).collect()
}

/// The whole content written anew, without long lines.
fn rewritten(
    mail: &Submission,
    all: &[u8],
    head: &Head,
    id: MessageId,
    now: Timestamp,
    settings: &Settings,
    budget: &Arc<Budget>,
) -> Result<Prepared, Reply> {
    let dropped: Vec<Range<usize>> = head.dropped_spans().collect();
    let mut mended = shorten(all, head.fields_at(), &dropped, settings.long_lines)
        .map_err(|long| Reply::told(554, (5, 6, 0), long.to_string()))?;
    let Edits { splices, left } = from_edits(mail, all, head, settings);
    mended.extend(splices);
    let on_top = on_top(mail, id, now, settings, head);
    let splices = head.splices(all, on_top, mended);
    let octets = octets_after(all, &splices);
    let fetched = if mail.raw.rest.is_some() { all.len() + SPILL_OCTETS } else { 0 };
    fits_at_all(mail, octets.saturating_add(fetched), budget)?;
    let permit = share(budget, octets)?;
    let bytes = apply(all, &splices);
    let body =
        Body { facts: BodyFacts::of(&bytes), head: Bytes::from(bytes), rest: None, permit: Some(permit) };
    Ok(Prepared { body, removed: names(head), from_left: left })
}

/// Whether there would be so much memory for that message if there were no other: else it is not asked to come back.
pub fn fits_at_all(mail: &Submission, octets: usize, budget: &Budget) -> Result<(), Reply> {
    let recipients: usize = mail.envelope.recipients.iter().map(recipient_octets).sum();
    let held = mail.raw.permit.as_ref().map_or(0, |permit| permit.octets());
    let needed = held.saturating_add((recipients as u64).saturating_add(octets as u64));
    if needed <= budget.limit_octets() {
        return Ok(());
    }
    let text = format!(
        "lines over 998 octets are mended in memory, and this message needs {needed} octets of it: shorten its lines, \
         or raise [limits] memory over that (it is {} now)",
        budget.limit_octets()
    );
    Err(Reply::told(552, (5, 3, 4), text))
}

fn share(budget: &Arc<Budget>, octets: usize) -> Result<Arc<Permit>, Reply> {
    let busy = "not enough memory now to re-encode the lines over 998 octets; try again later";
    budget.take(octets).map(Arc::new).ok_or(Reply::new(452, (4, 3, 1), busy))
}

/// The facts after the head was edited, without another look at the body: what was taken out counts as if it were
/// there, unless it alone may be what has octets above 127.
fn facts_after(raw: &Body, head: &Head, on_top: &str) -> BodyFacts {
    let removed_eight_bit = head.removals.iter().any(|r| !raw.head[r.span.clone()].is_ascii());
    let eight_bit = if raw.rest.is_none() && removed_eight_bit {
        !without(&raw.head, head).all(<[u8]>::is_ascii)
    } else {
        raw.facts.eight_bit
    };
    let longest_on_top = BodyFacts::of(on_top.as_bytes()).longest_line_octets;
    BodyFacts {
        size_octets: raw.facts.size_octets,
        longest_line_octets: raw.facts.longest_line_octets.max(longest_on_top),
        eight_bit: eight_bit || !on_top.is_ascii(),
    }
}

/// The pieces of `octets` between the fields that are taken out.
fn without<'a>(octets: &'a [u8], head: &'a Head) -> impl Iterator<Item = &'a [u8]> {
    let ends = head.removals.iter().map(|r| r.span.start).chain([octets.len()]);
    let starts = std::iter::once(0).chain(head.removals.iter().map(|r| r.span.end));
    starts.zip(ends).map(|(start, end)| &octets[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, Grammar};
    use crate::mail::body::Spilled;
    use crate::mail::{BodyKind, Envelope, Protocol, ReversePath, Source};
    use proptest::prelude::*;

    const TOKEN: &str = "postroad-00c0ffee";
    const COMPLETE: &str =
        "From: a@example.org\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n";

    fn submission(content: &[u8]) -> Submission {
        let to = Address::parse("ok@example.com", Grammar::Lenient).unwrap();
        Submission {
            envelope: Envelope {
                sender: ReversePath::Null,
                recipients: vec![to],
                body: BodyKind::EightBit,
                smtputf8: false,
                reports: None,
            },
            raw: Body::whole(content.to_vec()),
            stream: None,
            tags: Vec::new(),
            metadata: Vec::new(),
            key: None,
            send_at: None,
            pin: None,
            source: Source {
                listener: "127.0.0.1:2525".to_owned(),
                peer: "127.0.0.1".parse().unwrap(),
                helo: "app".to_owned(),
                credential: None,
                protocol: Protocol::Esmtp { tls: false, auth: false, utf8: false },
            },
            terms: Arc::default(),
            on_top: String::new(),
        }
    }

    fn settings(long_lines: LongLines) -> Settings {
        Settings {
            hostname: "relay.example.org".to_owned(),
            token: TOKEN.to_owned(),
            origin: None,
            long_lines,
            vendor_headers: false,
        }
    }

    fn prepared_of(mail: &Submission, budget_octets: u64) -> Result<Prepared, NotPrepared> {
        let id = MessageId::from_number(1 << 60);
        let now = Timestamp::from_millis(1_795_602_034_005);
        prepare(mail, id, now, &settings(LongLines::Reencode), &Budget::new(budget_octets))
    }

    fn prepared(content: &[u8]) -> Result<Prepared, NotPrepared> {
        prepared_of(&submission(content), 1 << 20)
    }

    /// What follows our `Received`.
    fn below_received(prepared: &Prepared) -> String {
        let all = String::from_utf8_lossy(&prepared.body.head).into_owned();
        let (received, rest) = all.split_once("2026 10:20:34 +0000\r\n").expect("Received is on top");
        assert!(received.starts_with("Received: from app ([127.0.0.1])\r\n"));
        rest.to_owned()
    }

    fn refusal(content: &str) -> Reply {
        match prepared(content.as_bytes()) {
            Err(NotPrepared::Refused(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_complete_message_gets_received_and_nothing_else() {
        let content = format!("{COMPLETE}Subject: s\r\n\r\n.dot\r\n\r\n");
        let p = prepared(content.as_bytes()).unwrap();
        assert_eq!(below_received(&p), content);
        assert_eq!(p.body.facts, BodyFacts::of(&p.body.head));
        assert!(p.removed.is_empty());
    }

    #[test]
    fn what_was_taken_out_is_named_and_the_facts_follow() {
        let p = prepared(format!("{COMPLETE}Bcc: gr\u{fc}n@x\r\nX-Postroad-Tag: t\r\n\r\nhi\r\n").as_bytes())
            .unwrap();
        assert_eq!(below_received(&p), format!("{COMPLETE}\r\nhi\r\n"));
        assert_eq!(p.removed, ["Bcc", "X-Postroad-Tag"]);
        assert!(!p.body.facts.eight_bit, "only the removed field was 8-bit");
        assert_eq!(p.body.facts.size_octets, p.body.head.len() as u64);
    }

    #[test]
    fn a_missing_date_and_message_id_come_after_received() {
        let p = prepared(b"hello\r\n").unwrap();
        let text = below_received(&p);
        assert!(text.starts_with(
            "Date: Wed, 25 Nov 2026 10:20:34 +0000\r\nMessage-ID: <1000000000000@relay.example.org>\r\n"
        ));
        assert!(text.ends_with(">\r\n\r\nhello\r\n"));
    }

    #[test]
    fn loops_are_refused_with_5_4_6() {
        let hops = |n: usize| format!("{}\r\nhi\r\n", "Received: by x\r\n".repeat(n));
        assert!(prepared(hops(50).as_bytes()).is_ok());
        let reply = refusal(&hops(51));
        assert_eq!((reply.code, reply.enhanced), (554, Some((5, 4, 6))));
        let first = prepared(b"Subject: s\r\n\r\n").unwrap();
        let reply = refusal(std::str::from_utf8(&first.body.head).unwrap());
        assert_eq!((reply.code, reply.enhanced), (554, Some((5, 4, 6))));
    }

    #[test]
    fn a_header_block_over_its_limit_is_refused() {
        let reply = refusal(&format!("{}\r\nhi\r\n", "X-Pad: 123456789\r\n".repeat(15_000)));
        assert_eq!((reply.code, reply.enhanced), (552, Some((5, 3, 4))));
    }

    #[test]
    fn a_bcc_that_would_show_in_the_body_is_refused() {
        let reply = refusal("Subject: two\r\nlines of it\r\nBcc: secret@x\r\n\r\nhi\r\n");
        assert_eq!((reply.code, reply.enhanced), (554, Some((5, 6, 0))));
        assert!(reply.text.starts_with("line 2 "));
    }

    #[test]
    fn long_lines_of_an_unsigned_text_are_mended() {
        let line = "x".repeat(1500);
        let p = prepared(format!("{COMPLETE}Bcc: {line}\r\n\r\n{line}\r\n").as_bytes()).unwrap();
        let text = below_received(&p);
        let fields = "Content-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n";
        assert!(text.starts_with(&format!("{COMPLETE}{fields}\r\nxxx")));
        assert_eq!(p.body.facts, BodyFacts::of(&p.body.head));
        assert!(p.body.facts.longest_line_octets <= 78);
        assert_eq!(p.removed, ["Bcc"]);
        assert_eq!(p.body.permit.as_ref().unwrap().octets(), p.body.head.len() as u64);
        // Without a header block, and behind a mailbox line.
        for (content, start) in [("", "Date"), ("From x y\r\n", "Date"), ("From x y\r\nA: b\r\n", "Date")] {
            let p = prepared(format!("{content}{line}\r\n").as_bytes()).unwrap();
            let text = below_received(&p);
            assert!(text.starts_with(start));
            assert_eq!(text.matches(&format!("{fields}\r\nxxx")).count(), 1, "{text}");
            assert_eq!(text.contains("\r\nX-Mailbox-Line: From x y\r\n"), content.starts_with("From"));
        }
    }

    #[test]
    fn a_long_line_that_is_taken_out_leaves_the_rest_as_it_was() {
        let content = format!("Bcc: {}\r\n{COMPLETE}\r\nhi\r\n", "x".repeat(1500));
        assert_eq!(below_received(&prepared(content.as_bytes()).unwrap()), format!("{COMPLETE}\r\nhi\r\n"));
    }

    #[test]
    fn a_signed_message_with_a_long_line_is_refused_by_its_length() {
        let reply = refusal(&format!("DKIM-Signature: v=1\r\n{COMPLETE}\r\n{}\r\n", "x".repeat(1500)));
        assert_eq!((reply.code, reply.enhanced), (554, Some((5, 6, 0))));
        assert!(reply.text.starts_with("line 6 has 1500 octets"), "{}", reply.text);
        assert!(reply.wire().ends_with("before it is signed\r\n"), "{}", reply.wire());
    }

    #[test]
    fn without_memory_the_client_is_asked_to_come_back() {
        let mail = submission(format!("{COMPLETE}\r\n{}\r\n", "x".repeat(1500)).as_bytes());
        let budget = Budget::new(1 << 20);
        let prepare = |budget: &Arc<Budget>| {
            let s = settings(LongLines::Reencode);
            prepare(&mail, MessageId::from_number(7), Timestamp::default(), &s, budget)
        };
        let others = budget.take((1 << 20) - 1000).unwrap();
        let Err(NotPrepared::Refused(reply)) = prepare(&budget) else { panic!("taken") };
        assert_eq!((reply.code, reply.enhanced), (452, Some((4, 3, 1))));
        drop(others);
        prepare(&budget).unwrap();
    }

    #[test]
    fn what_no_idle_relay_has_memory_for_is_refused_for_good() {
        let mail = submission(format!("{COMPLETE}\r\n{}\r\n", "x".repeat(1500)).as_bytes());
        let Err(NotPrepared::Refused(reply)) = prepared_of(&mail, 1000) else { panic!("taken") };
        assert_eq!((reply.code, reply.enhanced), (552, Some((5, 3, 4))));
        assert!(reply.text.contains("[limits] memory"), "{}", reply.text);
        let mail = spilled(&format!("{COMPLETE}\r\n"), 1200);
        let all = format!("{COMPLETE}\r\n{}\r\n", "x".repeat(1200));
        let (id, s) = (MessageId::from_number(7), settings(LongLines::Reencode));
        let budget = Budget::new(200_000);
        let reply = prepare_all(&mail, all.as_bytes(), id, Timestamp::default(), &s, &budget).unwrap_err();
        assert_eq!(reply.code, 552, "its head goes back into memory too");
    }

    fn spilled(head: &str, longest_line_octets: u64) -> Submission {
        let mut mail = submission(head.as_bytes());
        let rest = Spilled { message: MessageId::from_number(7), chunks: 2, octets: 300_000 };
        mail.raw.rest = Some(rest);
        mail.raw.facts =
            BodyFacts { size_octets: head.len() as u64 + 300_000, longest_line_octets, eight_bit: true };
        mail
    }

    #[test]
    fn of_a_spilled_message_the_head_is_edited_and_the_rest_stays() {
        let mail = spilled(&format!("{COMPLETE}Bcc: a\r\n\r\nhi th"), 80);
        let p = prepared_of(&mail, 1 << 20).unwrap();
        assert_eq!(below_received(&p), format!("{COMPLETE}\r\nhi th"));
        assert_eq!(p.body.rest, mail.raw.rest);
        assert_eq!(p.body.facts.size_octets, p.body.size_octets());
        assert!(p.body.facts.eight_bit);
    }

    #[test]
    fn a_spilled_message_with_long_lines_is_asked_for_whole() {
        let mail = spilled(&format!("{COMPLETE}\r\n"), 1200);
        let octets = mail.raw.size_octets();
        assert_eq!(prepared_of(&mail, 1 << 20).unwrap_err(), NotPrepared::NeedsAll { octets });
        let all = format!("{COMPLETE}\r\n{}\r\n", "x".repeat(1200));
        let budget = Budget::new(1 << 20);
        let id = MessageId::from_number(7);
        let s = settings(LongLines::Reencode);
        let p = prepare_all(&mail, all.as_bytes(), id, Timestamp::default(), &s, &budget).unwrap();
        assert!(p.body.rest.is_none() && p.body.facts.longest_line_octets <= 78);
        let refused = prepare_all(
            &mail,
            all.as_bytes(),
            id,
            Timestamp::default(),
            &settings(LongLines::Refuse),
            &budget,
        );
        assert_eq!(refused.unwrap_err().code, 554);
    }

    #[test]
    fn a_header_block_that_the_spill_cut_is_refused_and_a_body_without_one_is_not() {
        for (head, taken) in [("A: b\r\nSubj", false), ("A: b\r\n", false), ("hello\r\nworld", true)] {
            assert_eq!(prepared_of(&spilled(head, 80), 1 << 20).is_ok(), taken, "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn the_facts_are_never_below_the_truth(content in "([ -~é]{0,30}\r\n){0,6}(Bcc: é?[a-z]{0,20}\r\n)?(\r\n)?([ -~é]{0,30}\r\n){0,4}") {
            if let Ok(p) = prepared(content.as_bytes()) {
                let truth = BodyFacts::of(&p.body.head);
                prop_assert_eq!(p.body.facts.size_octets, truth.size_octets);
                prop_assert!(p.body.facts.longest_line_octets >= truth.longest_line_octets);
                prop_assert_eq!(p.body.facts.eight_bit, truth.eight_bit);
            }
        }
    }
}
