//! Events out to an app: one POST each, signed as Standard Webhooks has it.
//!
//! What is signed is `ID.TIMESTAMP.BODY`, by HMAC-SHA256 with each secret. No redirect is followed and no proxy asked; of an
//! answer no more is read than people are shown.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use super::http::{Client, read, told};
use crate::clock::Timestamp;
use crate::mail::HttpReply;
use crate::secret::{Blot, Secret};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// What stands before a secret that is written in base64.
const IN_BASE64: &str = "whsec_";
/// The end of an answer has so long behind its head.
const END_OF_ANSWER: Duration = Duration::from_secs(1);

/// How one receiver is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where it listens; its path and query may hold a secret.
    pub url: Secret,
    /// What its events are signed with, each with all of them: while one takes another's place there are two.
    pub secrets: Vec<Secret>,
    /// PEM of the CA that signed its certificate; then no public CA counts.
    pub ca_file: Option<PathBuf>,
    /// The whole exchange.
    pub timeout: Duration,
    /// Events that it is told at a time.
    pub max_connections: usize,
}

/// One event on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its id, the same over every repeat.
    pub id: String,
    /// Now.
    pub at: Timestamp,
    /// JSON.
    pub body: Bytes,
}

/// Whoever is told.
pub trait Receiver: Send + Sync + Debug {
    /// Tells it one event; why there is no answer.
    fn tell(&self, letter: Letter) -> BoxFuture<'_, Result<HttpReply, String>>;
}

/// A receiver at a URL.
#[derive(Debug)]
pub struct HttpReceiver {
    settings: Settings,
    keys: Vec<hmac::Key>,
    client: Client,
    blot: Blot,
}

impl HttpReceiver {
    /// The one that these settings speak of. Nothing is opened or loaded before the first event.
    pub fn new(settings: Settings) -> Self {
        let octets = settings.secrets.iter().filter_map(|secret| key_octets(secret.expose()).ok());
        let keys = octets.map(|octets| hmac::Key::new(hmac::HMAC_SHA256, &octets)).collect();
        let client = Client::new(settings.ca_file.clone(), settings.max_connections, settings.timeout);
        let blot = Blot::of_all(&settings.secrets).and(Blot::of_url(&settings.url));
        HttpReceiver { settings, keys, client, blot }
    }

    async fn post(&self, letter: Letter) -> Result<HttpReply, String> {
        let client = self.client.get().await?;
        let seconds = letter.at.millis() / 1000;
        let field =
            |text: &str| HeaderValue::from_str(text).map_err(|_| "a field cannot be written".to_owned());
        let signature = signature(&self.keys, &letter.id, seconds, &letter.body);
        let request = client
            .post(self.settings.url.expose())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ID, field(&letter.id)?)
            .header(TIMESTAMP, HeaderValue::from(seconds))
            .header(SIGNATURE, field(&signature)?)
            .body(letter.body);
        let answer = request.send().await.map_err(|error| told(&error))?;
        Ok(read(answer, tokio::time::sleep(END_OF_ANSWER)).await)
    }
}

impl Receiver for HttpReceiver {
    fn tell(&self, letter: Letter) -> BoxFuture<'_, Result<HttpReply, String>> {
        Box::pin(async move {
            let patience = self.settings.timeout;
            let answer = match tokio::time::timeout(patience, self.post(letter)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer for {patience:.0?}")),
            };
            let blotted = |words: &str| self.blot.out(words).into_owned();
            answer.map(|reply| reply.with_words(|words| self.blot.out(words))).map_err(|why| blotted(&why))
        })
    }
}

/// The octets of a secret: those behind `whsec_` are base64, any other text is taken as it stands.
pub fn key_octets(secret: &str) -> Result<Vec<u8>, &'static str> {
    match secret.strip_prefix(IN_BASE64) {
        Some(base64) => match STANDARD.decode(base64) {
            Ok(octets) if !octets.is_empty() => Ok(octets),
            Ok(_) | Err(_) => Err("has no base64 behind whsec_"),
        },
        None => Ok(secret.as_bytes().to_vec()),
    }
}

/// `v1,BASE64` for each key, parted by blanks.
fn signature(keys: &[hmac::Key], id: &str, seconds: i64, body: &[u8]) -> String {
    let one = |key: &hmac::Key| {
        let mut signing = hmac::Context::with_key(key);
        signing.update(format!("{id}.{seconds}.").as_bytes());
        signing.update(body);
        format!("v1,{}", STANDARD.encode(signing.sign()))
    };
    keys.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the libraries of Standard Webhooks.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn key(secret: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &key_octets(secret).unwrap())
    }

    #[test]
    fn an_event_is_signed_as_the_published_example_is() {
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        assert_eq!(signature(&[key(SECRET)], id, 1_614_265_330, body), SIGNED);
        let both = signature(&[key(SECRET), key("another secret")], id, 1_614_265_330, body);
        let parts: Vec<&str> = both.split(' ').collect();
        assert_eq!((parts.len(), parts[0]), (2, SIGNED));
        assert_ne!(parts[1], SIGNED);
    }

    #[test]
    fn a_secret_is_base64_behind_its_prefix_and_text_without() {
        assert_eq!(key_octets("whsec_AAEC").unwrap(), [0, 1, 2]);
        assert_eq!(key_octets("AAEC").unwrap(), b"AAEC");
        assert!(key_octets("whsec_").is_err() && key_octets("whsec_not base64").is_err());
    }
}
