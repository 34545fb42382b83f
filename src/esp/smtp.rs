//! Any SMTP server that takes mail for others: what it is asked, and in `read` what its replies mean.

mod read;

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

pub(super) use read::{Meant, read, spent, stands_in};

use super::{Esp, Parcel, Unfit};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::mail::Request;
use crate::mail::notify::{Ask, Asks, Notify, ReportTo};
use crate::mail::{Body, BodyFacts, Envelope, Message, Outcome, Protocol, Reply, ReversePath, SmtpRequest};

/// The ESP of `type = "smtp"`.
#[derive(Debug, Clone, Default)]
pub struct Smtp {
    /// MAIL FROM instead of every sender's own, `<>` too: what comes back to it is not ours to answer.
    pub envelope_from: Option<ReversePath>,
    /// It takes reports to senders: it keeps `<>`, or they come from an address of the operator's own.
    pub reports: bool,
}

impl Esp for Smtp {
    fn compose(&self, parcel: Parcel<'_>, _now: Timestamp) -> Result<Request, Unfit> {
        if parcel.message.source.protocol == Protocol::Report && !self.reports {
            return Err(Unfit("reports to senders need [server] dsn_from where envelope_from is set".into()));
        }
        Ok(Request::Smtp(self.transaction(parcel, parcel.message.body.clone())))
    }

    fn sender<'a>(&'a self, own: &'a ReversePath) -> &'a ReversePath {
        self.envelope_from.as_ref().unwrap_or(own)
    }

    fn read(&self, parcel: Parcel<'_>, reply: &Reply, now: Timestamp) -> Vec<Outcome> {
        read(parcel, reply, now, |_, _| None)
    }
}

impl Smtp {
    /// The transaction for a parcel, with this content.
    fn transaction(&self, parcel: Parcel<'_>, body: Body) -> SmtpRequest {
        let message = parcel.message;
        let sender = self.sender(&message.envelope.sender).clone();
        SmtpRequest {
            smtputf8: needs_smtputf8(message, &sender, parcel.recipients),
            sender,
            recipients: parcel.recipients.to_vec(),
            body,
            reports: self.asks(parcel),
        }
    }

    /// The transaction for a parcel with these fields, whole lines, on top of its content: what an ESP reads out of the
    /// header and takes away.
    pub(super) fn with_fields(&self, parcel: Parcel<'_>, fields: &str) -> SmtpRequest {
        self.with_fields_instead(parcel, fields, 0..0)
    }

    /// The same, in the place of a field that lies there in the header block.
    pub(super) fn with_fields_instead(
        &self,
        parcel: Parcel<'_>,
        fields: &str,
        there: Range<usize>,
    ) -> SmtpRequest {
        let own = &parcel.message.body;
        let (before, after) = (&own.head[..there.start], &own.head[there.end..]);
        let head: Bytes = [fields.as_bytes(), before, after].concat().into();
        let longest = fields.lines().map(|line| line.len() as u64).max().unwrap_or(0);
        let facts = BodyFacts {
            size_octets: own.facts.size_octets + fields.len() as u64 - there.len() as u64,
            longest_line_octets: own.facts.longest_line_octets.max(longest),
            eight_bit: own.facts.eight_bit || !fields.is_ascii(),
        };
        self.transaction(parcel, Body { head, facts, ..own.clone() })
    }

    /// What was asked about reports for these recipients. Where MAIL FROM is replaced they would not reach who asked:
    /// then the relay itself answers for them. Where its client may not mail the sender, the next hop is not to do so.
    fn asks(&self, parcel: Parcel<'_>) -> Option<Box<Asks>> {
        let envelope = &parcel.message.envelope;
        let asks = envelope.reports.as_ref().filter(|_| self.envelope_from.is_none())?;
        if asks.to != ReportTo::Sender {
            let never = Ask { notify: Some(Notify::NEVER), original: None };
            return Some(Box::new(Asks { each: vec![never; parcel.recipients.len()], ..Asks::default() }));
        }
        let place = |to: &Address| envelope.recipients.iter().position(|r| r == to);
        let of = |to| place(to).and_then(|n| asks.of(n)).cloned().unwrap_or_default();
        let each = parcel.recipients.iter().map(of).collect();
        let envelope_id = asks.envelope_id.clone();
        Some(Box::new(Asks { each, ret: asks.ret, envelope_id, to: ReportTo::Sender }))
    }
}

/// Only where the client asked for SMTPUTF8 and something is there that needs it.
fn needs_smtputf8(message: &Message, sender: &ReversePath, recipients: &[Address]) -> bool {
    let Envelope { smtputf8, .. } = message.envelope;
    let named = |a: &Address| a.needs_smtputf8();
    let sender_named = matches!(sender, ReversePath::Mailbox(a) if named(a));
    smtputf8 && (sender_named || recipients.iter().any(named) || eight_bit_headers(message))
}

fn eight_bit_headers(message: &Message) -> bool {
    let head = &message.body.head;
    let end = memmem::find(head, b"\r\n\r\n").unwrap_or(head.len());
    message.body.facts.eight_bit && !head[..end].is_ascii()
}

#[cfg(test)]
mod tests;
