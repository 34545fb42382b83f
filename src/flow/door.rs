//! The door: what SMTP clients ask of the intake. Each recipient is judged, and what a message asks for in its header is
//! read, before it is taken in.

use std::sync::Arc;

use bytes::Bytes;

use super::intake::{Intake, Taken, not_theirs, refused};
use super::no_esp;
use super::resend;
use super::staging::{self, Turned};
use crate::address::Address;
use crate::clock::Timestamp;
use crate::journal;
use crate::mail::asks::{Asks, BadAsk};
use crate::mail::{Body, Envelope, MessageId, OnceKey, ReversePath, Source, StreamName, Submission};
use crate::policy::{Verdict, judge, senders};
use crate::smtp::{Client, Gatekeeper, Reply};

/// What a client may have of what its message asks for.
struct Asked {
    stream: Option<StreamName>,
    tags: Vec<String>,
    metadata: Vec<(String, String)>,
    esp: Option<String>,
    send_at: Option<Timestamp>,
    key: Option<String>,
}

impl Intake {
    /// Reads what the message asks for in its header, and refuses what is wrong or not this client's to choose. The
    /// stream: what the credential binds, else what the listener does, else the header's.
    fn asked(&self, client: &Client, body: &Body) -> Result<Asked, Reply> {
        let wrong = |bad: BadAsk| Reply::told(550, (5, 6, 0), bad.to_string());
        let asks = Asks::read(&body.head, self.clock.now()).map_err(wrong)?;
        let bound = client.credential.as_ref();
        let bound_stream = asked_stream(client).map(StreamName::as_str);
        let stream = chosen("X-Postroad-Stream", "stream", bound_stream, asks.stream)?;
        let esp = chosen("X-Postroad-Esp", "ESP", bound.and_then(|c| c.esp.as_deref()), asks.esp.clone())?;
        let named = stream.as_deref().map(StreamName::new);
        if let Some((field, what)) = self.unknown(named.as_ref(), asks.esp.as_deref()).first() {
            let field = if *field == "esp" { "X-Postroad-Esp" } else { "X-Postroad-Stream" };
            return Err(Reply::told(550, (5, 7, 1), format!("{field}: {what}")));
        }
        Ok(Asked {
            stream: stream.map(|name| StreamName::new(&name)),
            tags: asks.tags,
            metadata: asks.metadata,
            esp,
            send_at: asks.send_at,
            key: asks.key,
        })
    }
}

impl Intake {
    /// Takes in what came by SMTP, as the client's terms have it.
    async fn hand_in(&self, client: &Client, mut envelope: Envelope, body: Body) -> Result<MessageId, Reply> {
        let asked = self.asked(client, &body)?;
        let key = self.key_of(client, asked.key, &envelope, &body).await?;
        let Turned { others, field } = staging::turn(&mut envelope, &client.terms, &body.head);
        let (again, count) = (self.is_repeat(key.as_ref())?, envelope.recipients.len());
        let submission = Submission {
            envelope,
            raw: body,
            stream: asked.stream,
            tags: asked.tags,
            metadata: asked.metadata,
            key,
            send_at: asked.send_at,
            pin: asked.esp,
            source: Source {
                listener: client.listener.clone(),
                peer: client.peer,
                helo: client.helo.clone(),
                credential: client.credential.as_ref().map(|c| c.username.clone()),
                protocol: client.protocol,
            },
            terms: Arc::clone(&client.terms),
            on_top: field,
        };
        let Taken { id, .. } = if again {
            self.take(submission, client.trusted).await?
        } else {
            self.rates.enter(client, count)?;
            let taken = self.take(submission, client.trusted).await;
            if !matches!(taken, Ok(Taken { again: false, .. })) {
                self.rates.give_back(client, count);
            }
            taken?
        };
        if let Some(to) = client.terms.redirect_to.as_ref().filter(|_| !others.is_empty()) {
            journal::turned(id, to, &others);
        }
        Ok(id)
    }

    fn is_repeat(&self, key: Option<&OnceKey>) -> Result<bool, Reply> {
        key.map_or(Ok(false), |key| self.known(key).map(|first| first.is_some()))
    }

    /// The key under which a message is taken once: the app's own, else one that the message gives, where its client's
    /// terms have the same mail taken for the first.
    async fn key_of(
        &self,
        client: &Client,
        asked: Option<String>,
        envelope: &Envelope,
        body: &Body,
    ) -> Result<Option<OnceKey>, Reply> {
        if let Some(key) = asked {
            return Ok(Some(OnceKey::chosen(scope(client), key)));
        }
        let Some(kept) = client.terms.dedupe else { return Ok(None) };
        let name = resend::name(&self.store, client.named.as_ref(), envelope, body).await;
        let name = name.map_err(|error| self.not_taken(&error))?;
        Ok(name.map(|key| OnceKey::of_the_same(format!("dedupe/{}", scope(client)), key, kept)))
    }
}

/// Whose an app's keys are: a login's; without one, those of one address at one listener.
fn scope(client: &Client) -> String {
    match &client.credential {
        Some(granted) => format!("smtp/user/{}", granted.username),
        None => format!("smtp/at/{}/{}", client.listener, client.peer.to_canonical()),
    }
}

/// What the credential or the listener binds; else what the message asks for.
fn chosen(
    field: &str,
    what: &str,
    bound: Option<&str>,
    asked: Option<String>,
) -> Result<Option<String>, Reply> {
    match (bound, asked) {
        (Some(bound), Some(asked)) if asked != bound => {
            let text = format!("{field}: {asked} is not this client's to choose; its {what} is {bound}");
            Err(Reply::told(550, (5, 7, 1), text))
        }
        (Some(bound), _) => Ok(Some(bound.to_owned())),
        (None, asked) => Ok(asked),
    }
}

impl Gatekeeper for Intake {
    async fn sender(&self, client: &Client, sender: &ReversePath, announced_octets: Option<u64>) -> Reply {
        if let Err(why) = senders::envelope_sender(&client.terms.senders, sender) {
            return not_theirs(why);
        }
        if let Err(error) = self.store.has_room(announced_octets.unwrap_or(0)) {
            return self.not_taken(&error);
        }
        // Where it may be the same mail again its rate is judged when that is known: who only did not hear the first 250
        // would come back when it is remembered no more.
        let judged = if client.terms.dedupe.is_some() { Ok(()) } else { self.rates.look(client) };
        judged.err().unwrap_or(Reply::new(250, (2, 1, 0), "sender ok"))
    }

    async fn recipient(&self, client: &Client, recipient: &Address) -> Reply {
        let stream = match self.stream(asked_stream(client)) {
            Ok(stream) => stream,
            Err(reply) => return reply,
        };
        let named = recipient;
        let Some(recipient) = client.terms.goes_to(named) else {
            let only = client.terms.only_to.told();
            let text =
                format!("<{named}>: this relay lets you mail {only} only; see only_to in its configuration");
            refused(client.into(), named, &stream.name, "only_to", &text);
            return Reply::told(550, (5, 7, 1), text);
        };
        let pin = client.credential.as_ref().and_then(|c| c.esp.as_deref());
        if let Some(reasons) = self.setup.never_to(recipient, &stream.name, pin) {
            let why = no_esp::in_a_line(&reasons);
            let text = format!(
                "<{recipient}>: no ESP of the relay carries mail there; see its configuration ({why})"
            );
            refused(client.into(), recipient, &stream.name, "no_esp", &text);
            return Reply::told(550, (5, 7, 1), text);
        }
        let key = recipient.key();
        let found = match self.store.blocked(&[key], &stream.name, stream.kind) {
            Ok(found) => found,
            Err(error) => return self.not_taken(&error),
        };
        // A header may name another stream than the default: what blocks that one alone is judged as the message is stored.
        let bound = asked_stream(client).is_some();
        let blocked = found.first().and_then(Option::as_ref).filter(|by| bound || by.scope.is_empty());
        match judge(blocked) {
            Verdict::Send if recipient != named => {
                Reply::told(250, (2, 1, 5), format!("recipient ok: <{recipient}> gets it instead"))
            }
            Verdict::Send => Reply::new(250, (2, 1, 5), "recipient ok"),
            Verdict::Suppressed { code, enhanced, why } => {
                let reason = if client.trusted { format!(" ({why})") } else { String::new() };
                let text = format!("<{recipient}>: suppressed{reason} [postroad:suppressed]");
                refused(client.into(), recipient, &stream.name, "suppressed", &text);
                Reply::told(code, enhanced, text)
            }
        }
    }

    fn expect(&self) {
        self.store.expect();
    }

    async fn spill(&self, message: Option<MessageId>, piece: u32, octets: Bytes) -> Result<MessageId, Reply> {
        let id = message.unwrap_or_else(|| self.mint.message(&*self.clock));
        self.store.spill(id, piece, octets).await.map(|()| id).map_err(|e| self.not_taken(&e))
    }

    async fn message(&self, client: &Client, envelope: Envelope, body: Body) -> Reply {
        let spilled = body.rest.map(|r| r.message);
        match self.hand_in(client, envelope, body).await {
            Ok(id) => Reply::told(250, (2, 0, 0), format!("queued as {id}")),
            Err(reply) => {
                if let Some(id) = spilled {
                    Gatekeeper::discard(self, id).await;
                }
                reply
            }
        }
    }

    async fn discard(&self, message: MessageId) {
        // What stays behind is swept at the next start.
        if let Err(error) = self.store.discard(message).await {
            journal::trouble("discarding a message that was given up", &error.to_string());
        }
    }
}

/// The stream that the credential binds, else the listener's.
fn asked_stream(client: &Client) -> Option<&StreamName> {
    client.credential.as_ref().and_then(|c| c.stream.as_ref()).or(client.listener_stream.as_ref())
}
