//! What an ESP has to be told so that what it tells comes here: its webhook, how that stands there, what is left to do by
//! hand, and how one is tried.
//!
//! Each ESP's knowledge is in its own folder (`setup`). It asks through an [`Api`] that it is handed: what leaves, and how,
//! is not known here.

use futures_util::future::BoxFuture;
use serde_json::{Map, Value};

use super::webhook::WebhookSettings;
use crate::mail::{Errand, HttpReply};
use crate::secret::Secret;

/// An ESP's API, for what is no mail.
pub trait Api: Send + Sync {
    /// Runs an errand; the answer, whatever its status.
    fn run(&self, errand: Errand) -> BoxFuture<'_, Result<HttpReply, String>>;
}

/// The webhook that an ESP is to have.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The ESP, as `[[esp]]` names it.
    pub esp: &'a str,
    /// Where its events are to come.
    pub url: &'a str,
    /// What proves them.
    pub webhook: &'a WebhookSettings,
}

/// How the webhook stands, and what was done about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arranged {
    /// What the ESP's API tells and changes.
    pub things: Vec<Thing>,
    /// What belongs into the configuration at this `[[esp]]`: key and value as TOML. No secrets.
    pub keys: Vec<(&'static str, String)>,
    /// What somebody else has to do.
    pub by_hand: Vec<ByHand>,
}

/// One thing that the ESP needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// In words.
    pub what: String,
    /// How it stands.
    pub state: State,
    /// What is there, what is missing, or what went wrong.
    pub said: String,
}

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be; nothing was done.
    There,
    /// It is not there.
    Missing,
    /// It is there, and not as it should be.
    Differs,
    /// It was not there, and is now.
    Made,
    /// It was not as it should be, and is now.
    Changed,
    /// It could not be seen, or not be done.
    Failed,
}

impl State {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            State::There => "there",
            State::Missing => "missing",
            State::Differs => "differs",
            State::Made => "made",
            State::Changed => "changed",
            State::Failed => "failed",
        }
    }
}

/// What the relay has no way to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByHand {
    /// What, and why.
    pub what: String,
    /// For a shell, each in one line.
    pub commands: Vec<String>,
}

/// How an ESP is brought to send an event.
#[derive(Debug)]
pub enum Trial {
    /// It is asked for one by [`super::Esp::ask_for_trial`].
    Asked,
    /// By mail to this address of its own.
    Mail(&'static str),
    /// It has nothing of the kind: the relay posts what it would post, with its proof. Fields and body.
    Post(Vec<(String, Secret)>, String),
}

impl Arranged {
    /// One more thing.
    pub(super) fn thing(&mut self, what: impl Into<String>, state: State, said: impl Into<String>) {
        self.things.push(Thing { what: what.into(), state, said: said.into() });
    }

    /// One more to be done by hand.
    pub(super) fn by_hand(&mut self, what: impl Into<String>, commands: Vec<String>) {
        self.by_hand.push(ByHand { what: what.into(), commands });
    }
}

/// Two spellings of one URL: scheme and host in whatever case, with a slash at the end or without.
pub(super) fn same_url(one: &str, other: &str) -> bool {
    let plain = |url: &str| {
        let url = url.trim().trim_end_matches('/');
        let path = url.find("://").and_then(|at| url[at + 3..].find('/').map(|path| at + 3 + path));
        let (host, path) = url.split_at(path.unwrap_or(url.len()));
        format!("{}{path}", host.to_ascii_lowercase())
    };
    plain(one) == plain(other)
}

/// The object in an answer.
pub(super) fn object(reply: &HttpReply) -> Option<Map<String, Value>> {
    serde_json::from_slice(&reply.body).ok().filter(|_| !reply.cut)
}

/// What may stand in the path of a request as an id that an ESP gave.
pub(super) fn is_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 100
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// As one word of a shell.
pub(super) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
pub(super) mod testing {
    //! An API that says what it was told to say.

    use std::sync::Mutex;

    use super::*;

    /// Answers in order, and what was asked.
    pub struct Script {
        answers: Mutex<Vec<(u16, Value)>>,
        pub asked: Mutex<Vec<Errand>>,
    }

    impl Script {
        pub fn new(answers: &[(u16, Value)]) -> Self {
            let answers = answers.iter().rev().cloned().collect();
            Script { answers: Mutex::new(answers), asked: Mutex::default() }
        }

        /// What was asked, each by method and path.
        pub fn lines(&self) -> Vec<String> {
            let line = |errand: &Errand| match errand {
                Errand::Http(errand) => format!("{:?} {}", errand.verb, errand.path),
                Errand::Ses(errand) => format!("{errand:?}"),
            };
            self.asked.lock().unwrap().iter().map(line).collect()
        }

        /// The JSON that went with request `n`.
        pub fn body(&self, n: usize) -> Value {
            match &self.asked.lock().unwrap()[n] {
                Errand::Http(errand) => serde_json::from_slice(errand.body.as_ref().unwrap()).unwrap(),
                Errand::Ses(errand) => panic!("{errand:?}"),
            }
        }
    }

    impl Api for Script {
        fn run(&self, errand: Errand) -> BoxFuture<'_, Result<HttpReply, String>> {
            self.asked.lock().unwrap().push(errand);
            let answer = self.answers.lock().unwrap().pop();
            let reply = answer.map(|(status, body)| HttpReply {
                status,
                body: body.to_string().into(),
                ..HttpReply::default()
            });
            Box::pin(std::future::ready(reply.ok_or_else(|| "the line died".to_owned())))
        }
    }

    pub fn states(arranged: &Arranged) -> Vec<&'static str> {
        arranged.things.iter().map(|thing| thing.state.word()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_url_are_one_and_others_are_not() {
        let url = "https://mail.example.com/webhooks/grid";
        for same in [url, "HTTPS://Mail.Example.com/webhooks/grid", "https://mail.example.com/webhooks/grid/"]
        {
            assert!(same_url(url, same), "{same}");
        }
        for other in [
            "http://mail.example.com/webhooks/grid",
            "https://mail.example.com/webhooks/Grid",
            "https://x",
            "",
        ] {
            assert!(!same_url(url, other), "{other}");
        }
    }

    #[test]
    fn a_word_of_a_shell_stays_one_word() {
        assert_eq!(quoted("a'b $(c)"), "'a'\\''b $(c)'");
        assert!(is_id("77d4a5da-7015-11ed-a1eb-0242ac120002"));
        assert!(["", "../all", "a/b", "a?b", "ä"].iter().all(|id| !is_id(id)));
    }
}
