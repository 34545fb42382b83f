//! The store against a real file: what each verb does, full and read-only disks, crashes, and a model beside it.

mod backup;
mod by_recipient;
mod faults;
mod feedback;
mod ledger;
mod life;
mod model;
mod notifications;
mod once;
mod packed;
mod reports;
mod requeue;
mod retain;
mod tokens;
mod without_esps;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::*;
use crate::address::{Address, Grammar};
use crate::clock::{Manual, Timestamp};
use crate::mail::body::Body;
use crate::mail::{
    AttemptId, BodyKind, Envelope, Message, Outcome, Protocol, QueueState, ReversePath, Source, Step,
    StreamKind,
};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HOLD: Duration = Duration::from_secs(600);
const ME: Owner = Owner::from_number(7);
const NEXT: Owner = Owner::from_number(8);

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<Manual>,
    ids: crate::mail::IdMint,
    attempts: AtomicI64,
}

impl Bench {
    fn new() -> Self {
        Bench {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(Manual::at(START)),
            ids: crate::mail::IdMint::new(3),
            attempts: AtomicI64::new(100),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            data_dir: self.dir.path().join("data"),
            queue_octets_max: 1 << 30,
            min_free_octets: 0,
            spread_log: false,
            keep_bodies: Duration::from_secs(3_600),
            keep_bodies_octets: 1 << 30,
            sandboxes: Vec::new(),
            kin: Default::default(),
            keep_messages: Duration::from_secs(86_400),
            keep_attempts: Duration::from_secs(86_400),
            keep_events: Duration::from_secs(2 * 86_400),
        }
    }

    fn open(&self) -> Store {
        self.open_as(ME)
    }

    fn open_as(&self, owner: Owner) -> Store {
        Store::open(self.settings(), owner, self.clock.clone()).unwrap()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn attempt(&self) -> AttemptId {
        AttemptId::from_number(self.attempts.fetch_add(1, Ordering::SeqCst))
    }

    fn message(&self, recipients: &[&str], kind: StreamKind, octets: usize) -> Arc<Message> {
        let name = super::row::kind_word(kind);
        let address = |a: &&str| Address::parse(a, Grammar::Lenient).unwrap();
        Arc::new(Message {
            id: self.ids.message(&*self.clock),
            envelope: Envelope {
                sender: ReversePath::Mailbox(Address::parse("app@example.com", Grammar::Strict).unwrap()),
                recipients: recipients.iter().map(address).collect(),
                body: BodyKind::EightBit,
                smtputf8: false,
                reports: None,
            },
            stream: StreamName::new(name),
            kind,
            body: Body::whole(vec![b'x'; octets]),
            accepted_at: self.now(),
            expires_at: self.now().plus(Duration::from_secs(5 * 86_400)),
            tags: vec!["welcome".into()],
            metadata: vec![("order".into(), "17 \"a\"".into())],
            pin: None,
            source: Source {
                listener: "in".into(),
                peer: "127.0.0.1".parse().unwrap(),
                helo: "app".into(),
                credential: None,
                protocol: Protocol::Esmtp { tls: true, auth: false, utf8: false },
            },
        })
    }

    /// To one recipient, with this content.
    fn with_body(&self, octets: Vec<u8>) -> Arc<Message> {
        let mut message = Message::clone(&self.message(&["a@x.example"], StreamKind::Transactional, 0));
        message.body = Body::whole(octets);
        Arc::new(message)
    }

    fn waiting(&self, message: &Arc<Message>) -> Accept {
        let entry = Entry::Waiting { due: self.now() };
        Accept {
            message: message.clone(),
            entries: vec![entry; message.envelope.recipients.len()],
            rules: Vec::new(),
        }
    }

    fn begun(&self, message: &Arc<Message>) -> (Accept, Beginning) {
        let beginning = Beginning { attempt: self.attempt(), esp: "one".into() };
        let entries = vec![Entry::Begun(beginning.clone()); message.envelope.recipients.len()];
        (Accept { message: message.clone(), entries, rules: Vec::new() }, beginning)
    }

    fn settle(&self, delivery: DeliveryId, b: &Beginning, outcome: Outcome, step: Step) -> Settle {
        Settle {
            delivery,
            attempt: b.attempt,
            esp: b.esp.clone(),
            begun_at: self.now(),
            answered_at: self.now(),
            outcome,
            phase: None,
            step,
            hold: HOLD,
            spent: None,
            choice: None,
            relayed: false,
            heard: false,
        }
    }
}

fn accepted() -> Outcome {
    Outcome::Accepted { remote_id: Some("r-1".into()), said: "250 2.0.0 ok".into() }
}

fn refused() -> Outcome {
    let fault = crate::mail::Fault::Path;
    Outcome::Refused { fault, lasting: false, wait: None, said: "451 4.3.0 later".into() }
}

fn unsure() -> Outcome {
    Outcome::Unsure { said: "the line died".into() }
}

/// Octets that no packing makes fewer; the same ones each time.
pub(super) fn noise(octets: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..octets).map(|_| next()).collect()
}

fn first(message: &Message) -> DeliveryId {
    DeliveryId { message: message.id, recipient: 0 }
}

/// One delivery as it stands.
async fn state_of(store: &Store, id: DeliveryId) -> DeliveryView {
    let view = store.show(id.message).await.unwrap().unwrap();
    view.deliveries.into_iter().find(|d| d.id == id).unwrap()
}

async fn accept_one(store: &Store, accept: Accept) -> Vec<Entered> {
    store.accept(vec![accept]).await.remove(0).unwrap()
}

fn suppression(key: &str, scope: &str) -> NewSuppression {
    NewSuppression {
        key: key.into(),
        address: key.into(),
        reason: "manual".into(),
        scope: scope.into(),
        source: "operator".into(),
        evidence: None,
        created_at: START,
        expires_at: None,
    }
}

fn kinds(view: &MessageView) -> Vec<&str> {
    view.events.iter().map(|e| e.kind.as_str()).collect()
}

async fn recover(store: &Store) -> Recovered {
    store.recover(|_, _| HOLD).await.unwrap()
}
