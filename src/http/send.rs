//! `POST /v1/send`: mail handed in by HTTP. It enters by the same door as SMTP: each recipient is judged by the same
//! keeper, and the answer comes after the commit.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::body::{Pairs, pairs};
use super::error::{ErrorBody, FieldProblem, Problem};
use super::guard::Caller;
use super::letters::{Mail, Wanted, read_json, read_message};
use super::pace::Pace;
use crate::address::Address;
use crate::flow::aside::aside_over;
use crate::journal;
use crate::mail::asks::VALUE_OCTETS_MAX;
use crate::mail::body::BodyFacts;
use crate::mail::{
    Body, BodyKind, Envelope, MessageId, OnceKey, Permit, Protocol, ReversePath, Source, StreamName,
    Submission,
};
use crate::smtp::{Client, Granted, Reply};

/// The whole request: as an SMTP listener's SIZE.
pub const SEND_OCTETS_MAX: usize = 25_000_000;
/// The route.
pub(super) const SEND_PATH: &str = "/v1/send";
/// Under what it is done once.
const KEY_HEADER: &str = "idempotency-key";
/// JSON as text, as values, as files and as the message written from them lie in memory together.
const TIMES_IN_MEMORY: usize = 4;
/// What is told of a recipient whom a key's first mail did not have.
const OTHERS: &str = "not among the recipients when its key came first";
/// What the listener's label and field say of mail that came this way.
pub const LISTENER: &str = "http";

/// What the route asks of the relay's intake.
pub trait Post: Send + Sync {
    /// Whether this client may mail that recipient.
    fn judge<'a>(&'a self, client: &'a Client, recipient: &'a Address) -> BoxFuture<'a, Reply>;

    /// The stream and the ESP that are named and are not there: the field, and what there is.
    fn unknown(&self, stream: Option<&StreamName>, esp: Option<&str>) -> Vec<(&'static str, String)>;

    /// The message that had this key first.
    fn known(&self, key: &OnceKey) -> Result<Option<MessageId>, Reply>;

    /// Takes the mail; `Ok`: it is committed.
    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<MessageId, Reply>>;
}

/// Where a request comes from, put into it by the port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// What became of a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sent {
    /// Its id.
    pub id: String,
    /// Each recipient once, in the order To, Cc, Bcc.
    pub recipients: Vec<SentTo>,
}

/// What became of it for one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SentTo {
    /// The address.
    pub address: String,
    /// Whether the mail goes there.
    pub taken: bool,
    /// As SMTP would have said it: 250, or 550 and why.
    pub code: u16,
    /// In words.
    pub said: String,
}

/// mail as JSON, or as message/rfc822 with ?from= &to= &to= …
#[utoipa::path(
    post,
    path = "/v1/send",
    security(("bearer" = ["send"])),
    params(
        ("from" = Option<String>, Query, description = "Of message/rfc822 alone: the envelope's sender; absent: the message's From"),
        ("to" = Option<Vec<String>>, Query, description = "Of message/rfc822 alone: the envelope's recipients; absent: the message's To, Cc and Bcc"),
        ("stream" = Option<String>, Query, description = "Of message/rfc822 alone: as [[stream]] names it"),
        ("esp" = Option<String>, Query, description = "Of message/rfc822 alone: the one ESP that may carry it"),
        ("Idempotency-Key" = Option<String>, Header, description = "Taken once: the same key of the same token gets the first one's id for 24 h; 422 where none of the recipients had that one"),
    ),
    request_body(content((Mail = "application/json"), (String = "message/rfc822"))),
    responses(
        (status = 202, description = "Committed: for those recipients that are taken", body = Sent),
        (status = 408, description = "The body came too slowly; nothing was taken", body = ErrorBody),
        (status = 413, description = "Over 25 MB, or more than `[limits] memory` could ever hold", body = ErrorBody),
        (status = 503, description = "Nothing was taken; try again", body = ErrorBody),
        (status = 422, description = "No recipient may be mailed, the content is refused, or the key is that of a mail that none of the recipients had", body = ErrorBody),
    )
)]
pub(super) async fn send(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<(StatusCode, Json<Sent>), Problem> {
    let (mut parts, body) = request.into_parts();
    let query: Result<Query<Pairs>, QueryRejection> = Query::from_request_parts(&mut parts, &()).await;
    let caller = parts.extensions.get::<Caller>().cloned();
    let peer = parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0);
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let raw = kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("message/rfc822");
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let permit = room(&app, length.and_then(|text| text.parse().ok()))?;
    let body = to_bytes(body, SEND_OCTETS_MAX).await.map_err(|error| unread(&error))?;
    let key = idempotency_key(&parts.headers)?;
    let (query, now) = (pairs(query)?, app.relay.clock.now());
    let mut wanted = aside_over(body.len(), || match raw {
        true => read_message(&body, query, now),
        false => match query.into_iter().next() {
            Some((key, _)) => {
                let advice = "parameters go with message/rfc822; with JSON they are fields of the body";
                Err(Problem::fields(vec![FieldProblem::new(key, advice)]))
            }
            None => read_json(&body, now),
        },
    })?;
    drop(body);
    let key = key.or(wanted.key.take()).map(|key| OnceKey::chosen(scope(caller.as_ref()), key));
    if let Some(key) = &key
        && let Some(first) = app.relay.told.load().post.known(key).map_err(|reply| problem_of(&reply))?
    {
        return Ok((StatusCode::ACCEPTED, Json(repeated(&app, first, &wanted).await?)));
    }
    let name = caller.map_or_else(String::new, |caller| caller.name);
    let pace = parts.extensions.get::<Arc<Pace>>().cloned();
    let sent = enter(&app, wanted, key, client_of(name, peer), (permit, pace)).await?;
    Ok((StatusCode::ACCEPTED, Json(sent)))
}

/// `Idempotency-Key`, as most APIs of the kind take it.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(KEY_HEADER).iter();
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        let twice = FieldProblem::new("Idempotency-Key", "is given twice; a request has one key");
        return Err(Problem::fields(vec![twice]));
    }
    match value.to_str().map(str::trim) {
        Ok(key) if (1..=VALUE_OCTETS_MAX).contains(&key.len()) => Ok(Some(key.to_owned())),
        Ok(_) | Err(_) => {
            let message = format!("has 1 to {VALUE_OCTETS_MAX} printable characters of ASCII");
            Err(Problem::fields(vec![FieldProblem::new("Idempotency-Key", message)]))
        }
    }
}

/// Memory first: what is not known to be less is taken for the most.
fn room(app: &App, length: Option<usize>) -> Result<Permit, Problem> {
    let octets = length.unwrap_or(SEND_OCTETS_MAX);
    if octets > SEND_OCTETS_MAX {
        return Err(too_large());
    }
    let (needed, most) = (octets * TIMES_IN_MEMORY, app.relay.budget.limit_octets());
    if needed as u64 > most {
        let message = format!(
            "this mail may need {needed} octets of the relay's memory and [limits] memory is {most}: send less (and \
             tell its Content-Length), or raise it"
        );
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
    }
    app.relay.budget.take(needed).ok_or_else(|| {
        let message = "too many messages in flight for the relay's memory; try again in a minute";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_memory", message)
    })
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "a mail may have 25 MB")
}

fn unread(error: &axum::Error) -> Problem {
    use std::error::Error;
    match error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>()) {
        true => too_large(),
        false => Problem::new(StatusCode::BAD_REQUEST, "bad_body", error.to_string()),
    }
}

fn client_of(name: String, peer: IpAddr) -> Client {
    Client {
        listener: LISTENER.into(),
        peer,
        helo: String::new(),
        protocol: Protocol::Http,
        credential: Some(Granted { username: name, stream: None, esp: None, terms: Arc::default() }),
        listener_stream: None,
        terms: Arc::default(),
        named: None,
        trusted: true,
    }
}

/// Whose a key is: a token's, by its number, since names may be given twice.
fn scope(caller: Option<&Caller>) -> String {
    match caller.and_then(|caller| caller.token) {
        Some(token) => format!("http/token/{token}"),
        None => "http/admin".into(),
    }
}

/// What is told to who sends it again: nobody is judged anew. Who was refused at the first time is so again; where all
/// are others, it is another mail under the same key.
async fn repeated(app: &App, first: MessageId, wanted: &Wanted) -> Result<Sent, Problem> {
    journal::repeated(first, LISTENER);
    let kept = app.relay.queue.show(first).await?;
    let had = |address: &Address| {
        // After its retention nothing is known of it but that it was taken.
        kept.as_ref()
            .is_none_or(|view| view.message.envelope.recipients.iter().any(|r| r.key() == address.key()))
    };
    if !wanted.recipients.iter().any(|(_, address)| had(address)) {
        return Err(other_mail(first, wanted));
    }
    let recipients = wanted.recipients.iter().map(|(_, address)| {
        let taken = had(address);
        let (code, said) = match taken {
            true => (250, "taken when its key came first"),
            false => (550, OTHERS),
        };
        SentTo { address: address.wire().into(), taken, code, said: said.into() }
    });
    Ok(Sent { id: first.to_string(), recipients: recipients.collect() })
}

fn other_mail(first: MessageId, wanted: &Wanted) -> Problem {
    let message = format!(
        "this Idempotency-Key is that of {first}, which none of these recipients had: nothing was sent now; give other \
         mail another key"
    );
    let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key_of_another", message);
    let named = wanted.recipients.iter().map(|(field, _)| FieldProblem::new(field.clone(), OTHERS));
    problem.error.fields = named.collect();
    problem
}

/// Each recipient is judged, then those that remain are committed.
async fn enter(
    app: &App,
    wanted: Wanted,
    key: Option<OnceKey>,
    mut client: Client,
    (permit, pace): (Permit, Option<Arc<Pace>>),
) -> Result<Sent, Problem> {
    let asked = wanted.stream.as_deref().map(StreamName::new);
    let post = Arc::clone(&app.relay.told.load().post);
    let unknown = post.unknown(asked.as_ref(), wanted.esp.as_deref());
    if !unknown.is_empty() {
        let fields = unknown.into_iter().map(|(field, what)| FieldProblem::new(field, what));
        return Err(Problem::fields(fields.collect()));
    }
    // No header names another one later: what blocks this stream alone is told at once.
    let stream = asked.unwrap_or_else(|| StreamName::new(StreamName::TRANSACTIONAL));
    if let Some(granted) = &mut client.credential {
        (granted.stream, granted.esp) = (Some(stream.clone()), wanted.esp.clone());
    }
    let (mut recipients, mut taken, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for (field, address) in wanted.recipients {
        let reply = post.judge(&client, &address).await;
        // Of the relay, not of this address: that may be held for a time as well (x.7.y).
        if (400..500).contains(&reply.code) && !matches!(reply.enhanced, Some((4, 7, _))) {
            return Err(problem_of(&reply));
        }
        let said = reply.text.clone().into_owned();
        recipients.push(SentTo {
            address: address.wire().into(),
            taken: reply.positive(),
            code: reply.code,
            said: said.clone(),
        });
        match reply.positive() {
            true => taken.push(address),
            false => refused.push(FieldProblem::new(field, said)),
        }
    }
    if taken.is_empty() {
        let message = "none of the recipients may be mailed";
        let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no_recipient", message);
        problem.error.fields = refused;
        return Err(problem);
    }
    let utf8 = taken.iter().chain([&wanted.sender]).any(Address::needs_smtputf8);
    let facts = aside_over(wanted.content.len(), || BodyFacts::of(&wanted.content));
    let submission = Submission {
        envelope: Envelope {
            sender: ReversePath::Mailbox(wanted.sender),
            recipients: taken,
            body: if facts.eight_bit { BodyKind::EightBit } else { BodyKind::SevenBit },
            smtputf8: utf8,
            reports: None,
        },
        raw: Body { head: Bytes::from(wanted.content), rest: None, facts, permit: Some(Arc::new(permit)) },
        stream: Some(stream),
        tags: wanted.tags,
        metadata: wanted.metadata,
        key,
        send_at: wanted.send_at,
        pin: wanted.esp,
        source: Source {
            listener: client.listener,
            peer: client.peer,
            helo: client.helo,
            credential: client.credential.map(|granted| granted.username),
            protocol: Protocol::Http,
        },
        terms: client.terms,
        on_top: String::new(),
    };
    // Whoever is told that it was not taken sends it again: from here on nobody is told so but by the store.
    if let Some(pace) = pace {
        pace.given();
    }
    let id = post.submit(submission).await.map_err(|reply| problem_of(&reply))?;
    Ok(Sent { id: id.to_string(), recipients })
}

/// What SMTP would have answered, in HTTP's words.
fn problem_of(reply: &Reply) -> Problem {
    let (status, code) = match reply.code {
        400..500 => (StatusCode::SERVICE_UNAVAILABLE, "try_again"),
        552 => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        _ => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
    };
    // A reply may have a line for each reason.
    Problem::new(status, code, reply.text.lines().collect::<Vec<_>>().join("; "))
}
