//! What the tests of this folder share: settings to start from, and a Gatekeeper that does as it is told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::{
    Authenticator, Client, Credential, Gatekeeper, Limits, ListenerSettings, Password, Reply, Shared,
};
use crate::address::Address;
use crate::mail::{Body, Budget, Envelope, MessageId, ReversePath};
use crate::secret::Secret;

/// The defaults on loopback, port 0.
pub fn settings() -> ListenerSettings {
    ListenerSettings::at("127.0.0.1:0".parse().unwrap())
}

/// What all listeners share, with one credential `user` / `secret`.
pub fn shared() -> Shared {
    let credential = Credential {
        username: "user".into(),
        password: Password::Plain(Secret::new("secret")),
        stream: None,
        esp: None,
        terms: Arc::default(),
    };
    Shared {
        hostname: "relay.test".into(),
        origin: None,
        dsn: true,
        authenticator: Arc::new(Authenticator::new(vec![credential]).unwrap()),
        budget: Budget::new(64_000_000),
        limits: Limits::default(),
    }
}

/// `input` cut into pieces of these sizes, over and over.
pub fn pieces<'a>(input: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let (mut pieces, mut rest) = (Vec::new(), input);
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, tail) = rest.split_at((*size).min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

/// A Gatekeeper that notes what it is asked. It refuses recipients whose local part is `no`, never answers for `hang`,
/// and answers for `slow` after a second.
#[derive(Debug, Default)]
pub struct Script {
    /// What came in, in words.
    pub log: Mutex<Vec<String>>,
    /// Messages with their spilled pieces.
    pub messages: Mutex<Vec<(Envelope, Vec<u8>)>>,
    /// Pieces not yet part of a message.
    pub pieces: Mutex<Vec<u8>>,
    /// The answer to the next piece that is spilled, where it is a refusal.
    pub refuse_piece: Mutex<Option<Reply>>,
}

impl Script {
    fn note(&self, what: String) {
        self.log.lock().unwrap().push(what);
    }
}

impl Gatekeeper for Script {
    async fn sender(&self, client: &Client, sender: &ReversePath, octets: Option<u64>) -> Reply {
        self.note(format!("sender {} {octets:?} {}", sender.wire(), client.protocol.with()));
        if sender.wire().starts_with("hang") {
            std::future::pending::<()>().await;
        }
        Reply::new(250, (2, 1, 0), "ok")
    }

    async fn recipient(&self, _: &Client, recipient: &Address) -> Reply {
        self.note(format!("recipient {recipient}"));
        match recipient.local() {
            "hang" => std::future::pending().await,
            "slow" => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Reply::new(250, (2, 1, 5), "ok")
            }
            "panic" => panic!("as told"),
            "no" => Reply::new(550, (5, 1, 1), "suppressed"),
            _ => Reply::new(250, (2, 1, 5), "ok"),
        }
    }

    async fn spill(&self, message: Option<MessageId>, piece: u32, octets: Bytes) -> Result<MessageId, Reply> {
        self.note(format!("piece {piece} {}", octets.len()));
        assert_eq!(message.is_none(), piece == 0);
        if let Some(reply) = self.refuse_piece.lock().unwrap().take() {
            return Err(reply);
        }
        self.pieces.lock().unwrap().extend_from_slice(&octets);
        Ok(MessageId::from_number(1))
    }

    async fn message(&self, _: &Client, envelope: Envelope, body: Body) -> Reply {
        let mut content = body.head.to_vec();
        if body.rest.is_some() {
            content.append(&mut self.pieces.lock().unwrap());
        }
        assert_eq!(content.len() as u64, body.facts.size_octets);
        tokio::task::yield_now().await;
        self.messages.lock().unwrap().push((envelope, content));
        Reply::new(250, (2, 0, 0), "queued")
    }

    async fn discard(&self, _: MessageId) {
        self.note("discard".into());
        self.pieces.lock().unwrap().clear();
    }
}
