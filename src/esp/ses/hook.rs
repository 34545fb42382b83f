//! SES's events, as SNS brings them: what each means for each of its recipients.
//!
//! Two feeds look nearly alike: an identity's notifications (`notificationType`) and a configuration set's events
//! (`eventType`). Where both are on, the same bounce comes twice with two ids of SNS, so an event is known by what it
//! says and not by its envelope.
//!
//! Facts: <https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html> and
//! <https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html>, seen in 2026-11. The sub-types
//! `OnTenantSuppressionList` and `EmailValidationSuppressed`: UNVERIFIED.

use serde_json::Value;

use super::sns::{Envelope, Kind, is_subscribe_url};
use super::tags::ATTEMPT;
use crate::address::Address;
use crate::clock::Timestamp;
use crate::esp::class::{class_of, status_of};
use crate::esp::hook::{self, Fields, Heard, Post, Refused, Unproven};
use crate::mail::event::Unlabelled;
use crate::mail::headers::bare_id;
use crate::mail::mailboxes::{Mailbox, mailboxes};
use crate::mail::{Bounce, Event, Listed, Planted, What};

/// What SES posts once an event destination is made: no JSON.
const VALIDATED: &str = "Successfully validated SNS topic";

/// Where the certificate of a call is, for a topic of ours: for others nothing is fetched.
pub(in crate::esp) fn certificate_url(post: Post<'_>, topics: &[String]) -> Result<String, Refused> {
    let envelope = Envelope::read(post.body)?;
    let unproven = |why| Err(Refused::Unproven(why));
    if topics.is_empty() {
        return unproven(Unproven::NoKey);
    }
    if !envelope.is_of(topics) {
        return unproven(Unproven::Topic);
    }
    envelope.certificate_url().map(str::to_owned).map_err(Refused::Unproven)
}

/// Whether the holder of that key signed it, lately, for a topic of ours.
pub(in crate::esp) fn prove(
    post: Post<'_>,
    key: &[u8],
    topics: &[String],
    require_v2: bool,
) -> Result<(), Refused> {
    Envelope::read(post.body)?.prove(key, topics, require_v2, post.at).map_err(Refused::Unproven)
}

/// What a call says, once it is proven. A topic that is none of ours is not confirmed, whoever asks.
pub(in crate::esp) fn read(post: Post<'_>, topics: &[String]) -> Result<Heard, Refused> {
    let envelope = Envelope::read(post.body)?;
    let topic = envelope.text("TopicArn").to_owned();
    match envelope.kind {
        Kind::Notification => Ok(Heard::Events(events(envelope.text("Message"), post.at)?)),
        Kind::UnsubscribeConfirmation => Ok(Heard::Ended { topic }),
        Kind::SubscriptionConfirmation => {
            let url = envelope.text("SubscribeURL");
            match is_subscribe_url(url) {
                _ if !envelope.is_of(topics) => Err(Refused::Unproven(Unproven::Topic)),
                true => Ok(Heard::Confirm { topic, url: url.to_owned() }),
                false => Err(Refused::Unproven(Unproven::Certificate)),
            }
        }
    }
}

/// What all events of one message have in common.
struct About<'a> {
    kind: String,
    message: Option<String>,
    planted: Option<Planted>,
    /// It has no tags, where ours would be: so are all notifications of an identity.
    unlabelled: Option<Unlabelled>,
    raw: &'a str,
    now: Timestamp,
}

fn events(message: &str, now: Timestamp) -> Result<Vec<Event>, Refused> {
    if message.starts_with(VALIDATED) {
        return Ok(Vec::new());
    }
    let mut fields = Fields::read(message)
        .ok_or_else(|| Refused::Malformed("its Message is no JSON object of SES".to_owned()))?;
    let kind =
        fields.text("eventType").or_else(|| fields.text("notificationType")).unwrap_or_default().to_owned();
    let mut mail = fields.object("mail");
    let mut list = |name| mail.as_mut().map(|mail| mail.list(name)).unwrap_or_default();
    let (destination, headers) = (list("destination"), list("headers"));
    let headers: Vec<Fields> = headers.into_iter().filter_map(Fields::of).collect();
    let about = About {
        message: mail.as_ref().and_then(|mail| mail.text("messageId")).map(str::to_owned),
        unlabelled: unlabelled(mail.as_mut(), &destination, &headers),
        planted: mail.as_mut().and_then(|mail| planted(mail, &headers)),
        kind,
        raw: message,
        now,
    };
    let all = addresses(&destination);
    let events = match about.kind.as_str() {
        "Bounce" => with(&mut fields, "bounce", |bounce| about.bounces(bounce)),
        "Complaint" => with(&mut fields, "complaint", |complaint| about.complaints(complaint)),
        "Delivery" => with(&mut fields, "delivery", |delivery| {
            let recipients = addresses(&delivery.list("recipients"));
            about.each(&recipients, What::Delivered, delivery, "smtpResponse")
        }),
        "DeliveryDelay" => with(&mut fields, "deliveryDelay", |delay| about.delays(delay)),
        "Send" => about.each(&all, What::Sent, &mut Fields::none(), ""),
        // Nothing of that message goes: whom it was for is told by name, each of them.
        "Reject" => with(&mut fields, "reject", |reject| {
            about.each(&all, What::Bounced(Bounce::Refused), reject, "reason")
        }),
        "Rendering Failure" => with(&mut fields, "failure", |failure| {
            about.each(&all, What::Bounced(Bounce::Refused), failure, "errorMessage")
        }),
        "Open" => with(&mut fields, "open", |open| {
            let machine = open.text("userAgent") == Some("Mozilla/5.0");
            about.one(&all, What::Opened { machine }, open, "userAgent")
        }),
        "Click" => with(&mut fields, "click", |click| {
            about.one(&all, What::Clicked { machine: false }, click, "link")
        }),
        "Subscription" => with(&mut fields, "subscription", |change| {
            let what = subscription(change);
            about.one(&all, what, change, "contactList")
        }),
        _ => about.one(&all, What::Other, &mut Fields::none(), ""),
    };
    // Of whom it speaks cannot be read: it is kept as it came.
    Ok(if events.is_empty() { about.one(&[], What::Other, &mut Fields::none(), "") } else { events })
}

/// The ids that went with the call: a tag, which a configuration set's events bring back; an identity's notifications
/// have the header fields at most.
fn planted(mail: &mut Fields, headers: &[Fields]) -> Option<Planted> {
    let tagged = mail.object("tags").and_then(|mut tags| tags.list(ATTEMPT).into_iter().next());
    let tagged = tagged.as_ref().and_then(Value::as_str).and_then(|id| id.parse().ok());
    tagged.or_else(|| {
        let pairs = values(headers, "X-SES-MESSAGE-TAGS").flat_map(|value| value.split(','));
        let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(name, id)| (name.trim() == ATTEMPT).then(|| id.trim().parse().ok())?)
    })
}

/// What the header fields of that name hold.
fn values<'f>(headers: &'f [Fields], name: &str) -> impl Iterator<Item = &'f str> {
    let named = move |f: &&Fields| f.text("name").is_some_and(|n| n.eq_ignore_ascii_case(name));
    headers.iter().filter(named).filter_map(|f| f.text("value"))
}

/// What an identity's notification says of the mail that it is about, in place of our ids.
fn unlabelled(mail: Option<&mut Fields>, destination: &[Value], headers: &[Fields]) -> Option<Unlabelled> {
    let Some(mail) = mail else { return Some(Unlabelled::default()) };
    if mail.has("tags") {
        return None;
    }
    Some(Unlabelled {
        sender: mail.text("source").and_then(sender),
        taken_at: mail.moment("timestamp"),
        recipients: addresses(destination).iter().map(Address::key).collect(),
        message_id: message_id(mail, headers),
    })
}

/// An address, or the From field as it stood; of several the first.
fn sender(source: &str) -> Option<String> {
    let first = |mailbox| match mailbox {
        Mailbox::Address(span) => hook::recipient(source.get(span)?),
        Mailbox::Bare(_) | Mailbox::Odd => None,
    };
    mailboxes(source.as_bytes()).into_iter().find_map(first).map(|address| address.key())
}

/// The message's own Message-ID, which SES replaces on the way out and tells where the headers are told; never its own.
fn message_id(mail: &mut Fields, headers: &[Fields]) -> Option<String> {
    let common = |mail: &mut Fields| bare_id(mail.object("commonHeaders")?.text("messageId")?);
    let id = values(headers, "Message-ID").find_map(bare_id).or_else(|| common(mail))?;
    let local = id.split('@').next().unwrap_or_default();
    (mail.text("messageId") != Some(local)).then_some(id)
}

/// The part that says more; without it the event is taken all the same, as its kind alone.
fn with(fields: &mut Fields, name: &str, read: impl FnOnce(&mut Fields) -> Vec<Event>) -> Vec<Event> {
    read(&mut fields.object(name).unwrap_or_else(Fields::none))
}

impl About<'_> {
    fn event(
        &self,
        recipient: Option<Address>,
        what: What,
        at: Option<Timestamp>,
        mark: &str,
        said: &str,
    ) -> Event {
        let whom = recipient.as_ref().map(Address::wire).unwrap_or_default();
        let key = match (&self.message, mark) {
            (None, "") => hook::key_of(&[self.raw]),
            (message, mark) => {
                hook::key_of(&[&self.kind, message.as_deref().unwrap_or_default(), whom, mark])
            }
        };
        Event {
            key,
            what,
            told_as: hook::told_as(&self.kind),
            at: at.unwrap_or(self.now),
            recipient,
            planted: self.planted,
            remote_id: self.message.clone(),
            scope: None,
            unlabelled: self.unlabelled.clone(),
            said: hook::said(said),
            raw: hook::cut_raw(self.raw),
        }
    }

    /// One event a recipient, alike for all.
    fn each(&self, recipients: &[Address], what: What, part: &mut Fields, said: &str) -> Vec<Event> {
        let at = part.moment("timestamp");
        let mark = part.text("timestamp").unwrap_or_default();
        let said = part.text(said).unwrap_or_default();
        let recipients = recipients.iter().cloned();
        recipients.map(|whom| self.event(Some(whom), what, at, mark, said)).collect()
    }

    /// One event: about the recipient, where there is but one.
    fn one(&self, recipients: &[Address], what: What, part: &mut Fields, said: &str) -> Vec<Event> {
        let whom = match recipients {
            [only] => Some(only.clone()),
            _ => None,
        };
        let said = part.text(said).unwrap_or_default();
        let mark = [part.text("timestamp").unwrap_or_default(), said].join(" ");
        vec![self.event(whom, what, part.moment("timestamp"), mark.trim(), said)]
    }

    fn bounces(&self, part: &mut Fields) -> Vec<Event> {
        let recipients = part.list("bouncedRecipients");
        let (at, id) = (part.moment("timestamp"), part.text("feedbackId").unwrap_or_default());
        let kind = part.text("bounceType").unwrap_or_default();
        let sub = part.text("bounceSubType").unwrap_or_default();
        let each = recipients.into_iter().filter_map(Fields::of).filter_map(|bounced| {
            let whom = hook::recipient(bounced.text("emailAddress")?)?;
            let (status, words) = (bounced.text("status"), bounced.text("diagnosticCode"));
            let what = bounce(kind, sub, status, words);
            let said = words.map_or_else(|| format!("{kind}, {sub}"), str::to_owned);
            Some(self.event(Some(whom), what, at, id, &said))
        });
        each.collect()
    }

    fn complaints(&self, part: &mut Fields) -> Vec<Event> {
        let recipients = part.list("complainedRecipients");
        let (at, id) = (part.moment("timestamp"), part.text("feedbackId").unwrap_or_default());
        let kind = part.text("complaintFeedbackType").unwrap_or_default();
        let what = match part.text("complaintSubType") {
            Some("OnAccountSuppressionList") => What::Bounced(Bounce::Listed(Listed::Complained)),
            _ if kind.eq_ignore_ascii_case("not-spam") => What::NotSpam,
            _ => What::Complained,
        };
        addresses(&recipients).into_iter().map(|whom| self.event(Some(whom), what, at, id, kind)).collect()
    }

    fn delays(&self, part: &mut Fields) -> Vec<Event> {
        let recipients = part.list("delayedRecipients");
        let at = part.moment("timestamp");
        let mark = part.text("timestamp").unwrap_or_default();
        let kind = part.text("delayType").unwrap_or_default();
        let each = recipients.into_iter().filter_map(Fields::of).filter_map(|delayed| {
            let whom = hook::recipient(delayed.text("emailAddress")?)?;
            let said = delayed.text("diagnosticCode").unwrap_or(kind);
            Some(self.event(Some(whom), What::Deferred, at, mark, said))
        });
        each.collect()
    }
}

/// The guide's table of types and sub-types; the host's own code and words say more where they are there.
fn bounce(kind: &str, sub: &str, status: Option<&str>, words: Option<&str>) -> What {
    let told = (status.unwrap_or_default(), words.unwrap_or_default());
    let class = class_of(told.0, told.1);
    // A domain that does not exist is told as 5.4.4 (UNVERIFIED): there SES's own word counts.
    let no_way = matches!(status_of(told.0, told.1), Some([5, 4, _]));
    What::Bounced(match (kind, sub) {
        (
            _,
            "Suppressed"
            | "OnAccountSuppressionList"
            | "OnTenantSuppressionList"
            | "EmailValidationSuppressed",
        ) => Bounce::Listed(Listed::Bounced),
        (_, "UnsubscribedRecipient") => Bounce::Listed(Listed::Unsubscribed),
        ("Permanent", "NoEmail") => Bounce::Hard,
        ("Permanent", _) => match class {
            Some(Bounce::Policy) => Bounce::Policy,
            Some(Bounce::Soft) if !no_way => Bounce::Soft,
            _ => Bounce::Hard,
        },
        // An answer of a machine, out of office: it comes without a code of the host's.
        ("Transient", "General") if status.is_none() && words.is_none() => return What::AutoReplied,
        ("Transient", "ContentRejected" | "AttachmentRejected" | "MessageTooLarge") => Bounce::Policy,
        _ if class == Some(Bounce::Policy) => Bounce::Policy,
        _ => Bounce::Soft,
    })
}

/// A contact's wishes at one of SES's own lists.
fn subscription(change: &mut Fields) -> What {
    let Some(mut wishes) = change.object("newTopicPreferences") else { return What::Other };
    let topics = wishes.list("topicSubscriptionStatus").into_iter().filter_map(Fields::of);
    let out = topics.filter(|topic| topic.text("subscriptionStatus") == Some("OptOut")).count();
    let before = change.object("oldTopicPreferences");
    let was_out = before.is_some_and(|before| before.is("unsubscribeAll"));
    match () {
        () if wishes.is("unsubscribeAll") || out > 0 => What::Unsubscribed,
        // Of a topic alone: no other wish is taken away.
        () if was_out => What::Resubscribed,
        () => What::Other,
    }
}

/// The addresses of a list of texts, or of objects with an `emailAddress`.
fn addresses(items: &[Value]) -> Vec<Address> {
    let text = |item: &Value| item.as_str().or_else(|| item.get("emailAddress")?.as_str()).map(str::to_owned);
    items.iter().filter_map(text).filter_map(|address| hook::recipient(&address)).collect()
}
