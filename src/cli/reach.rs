//! How a command reaches the queue: the relay that holds the lock, by HTTP; where none runs, the database itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::trust::{Trust, hint};
use super::{Common, Failure, open_offline, settings};
use crate::clock::monotonic;
use crate::http::error::ErrorBody;
use crate::http::shape::{Life, Page};
use crate::http::{Queue, messages, reachable};
use crate::lock::{self, Holder, Lock, LockError, Running};
use crate::mail::MessageId;
use crate::secret::Secret;
use crate::store::Filter;

/// To connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longer than the relay's own limit, whose answer says more.
const ANSWER_MAX: Duration = Duration::from_secs(40);
/// What the answer to a mail may take: the relay waits for its disk, and the mail has to get there.
const MAIL_MAX: Duration = Duration::from_secs(600);
/// A relay that starts has the lock before it has its HTTP port.
const START_MAX: Duration = Duration::from_secs(5);
/// A process that takes the lock has all of it by then.
const TAKE_MAX: Duration = Duration::from_millis(200);
const START_PAUSE: Duration = Duration::from_millis(50);

/// A relay that is reached by HTTP.
#[derive(Debug)]
pub(super) struct Client {
    base: String,
    token: Secret,
    http: reqwest::Client,
}

/// What a reading command reads from.
pub(super) enum Source {
    /// A relay.
    Relay(Client),
    /// The database, with no relay running.
    Database {
        /// It.
        queue: Box<dyn Queue>,
        /// Keeps a relay from starting meanwhile.
        _lock: Lock,
    },
}

/// Where the database is.
pub(super) enum Place {
    /// A relay has it.
    Relay(Client),
    /// None does: it lies here.
    DataDir {
        /// The data directory.
        data_dir: PathBuf,
        /// Keeps a relay from starting meanwhile.
        _lock: Lock,
    },
}

/// The relay, for a command that needs one.
pub(super) async fn relay(common: &Common) -> Result<Client, Failure> {
    if let Some(url) = &common.url {
        let Some(token) = &common.token else {
            return Err(Failure::Usage(
                "--url wants --token (or $POSTROAD_TOKEN): the token of that relay".into(),
            ));
        };
        let trust = common.ca_file.clone().map_or(Trust::System, Trust::File);
        return Client::new(url, token.clone(), &trust);
    }
    relay_of(common, &location(common)?).await
}

async fn relay_of(common: &Common, location: &settings::Location) -> Result<Client, Failure> {
    match running(&location.data_dir).await? {
        Some(address) => local(common, location, address),
        None => Err(Failure::NoRelay(format!(
            "no relay runs on {}; start one with: postroad serve",
            shown(&location.data_dir)
        ))),
    }
}

/// The relay or, where none runs, its database.
pub(super) async fn source(common: &Common) -> Result<Source, Failure> {
    opened(place(common).await?)
}

fn opened(place: Place) -> Result<Source, Failure> {
    match place {
        Place::Relay(client) => Ok(Source::Relay(client)),
        Place::DataDir { data_dir, _lock } => {
            let queue = open_offline(&data_dir).map_err(|e| Failure::Failed(format!("{e:#}")))?;
            Ok(Source::Database { queue, _lock })
        }
    }
}

/// The relay or, where none runs, its data directory.
pub(super) async fn place(common: &Common) -> Result<Place, Failure> {
    if common.url.is_some() {
        return relay(common).await.map(Place::Relay);
    }
    place_of(common, &location(common)?).await
}

async fn place_of(common: &Common, location: &settings::Location) -> Result<Place, Failure> {
    if let Some(address) = running(&location.data_dir).await? {
        return local(common, location, address).map(Place::Relay);
    }
    if !location.data_dir.join("postroad.db").exists() {
        return Err(Failure::NoRelay(format!(
            "no relay runs on {0}, and there is no database in {0}",
            shown(&location.data_dir)
        )));
    }
    let lock = match Lock::take_with_room(&location.data_dir, crate::store::give_up_reserve) {
        Ok(lock) => lock,
        // A relay started at this very moment.
        Err(LockError::Held { .. }) => return relay_of(common, location).await.map(Place::Relay),
        Err(error @ LockError::Io { .. }) => return Err(Failure::Failed(error.to_string())),
    };
    Ok(Place::DataDir { data_dir: location.data_dir.clone(), _lock: lock })
}

fn location(common: &Common) -> Result<settings::Location, Failure> {
    Ok(settings::location(common.config.as_deref())?)
}

/// The base URL of the relay that holds the lock; `None` when it is free.
async fn running(data_dir: &Path) -> Result<Option<String>, Failure> {
    let started = monotonic();
    loop {
        let holder = lock::read(data_dir)
            .map_err(|e| Failure::Failed(format!("the lock in {} cannot be read: {e}", shown(data_dir))))?;
        match holder {
            Holder::Nobody => return Ok(None),
            Holder::Process(Running { http_address: Some(address), https, .. }) => {
                let scheme = if https { "https" } else { "http" };
                return Ok(Some(format!("{scheme}://{}", reachable(address))));
            }
            Holder::Process(Running { pid, .. }) if started.elapsed() > START_MAX => {
                let pid = pid.map_or_else(|| "a process".into(), |pid| format!("pid {pid}"));
                return Err(Failure::NoRelay(format!(
                    "{pid} holds {} and has no HTTP port",
                    shown(data_dir)
                )));
            }
            Holder::WithoutFile if started.elapsed() > TAKE_MAX => {
                return Err(Failure::NoRelay(format!(
                    "a relay runs on {}, but its postroad.lock was removed, which says where it is reached: restart \
                     it, or name its HTTP address with --url and --token",
                    shown(data_dir)
                )));
            }
            Holder::Process(_) | Holder::WithoutFile => tokio::time::sleep(START_PAUSE).await,
        }
    }
}

/// The relay that runs has the token that it read; a command reads the file as it is now.
const ADMIN_TOKEN_GONE: &str = "Where [http] admin_token has changed since the relay read it, name the one before with \
                                --token, or send the relay SIGHUP to have it read the file again";

fn local(common: &Common, location: &settings::Location, base: String) -> Result<Client, Failure> {
    let given = common.token.clone().or_else(|| location.http.admin_token.clone());
    let token = match given {
        Some(token) => token,
        None => lock::read_admin_token(&location.data_dir)
            .map_err(|e| {
                Failure::Failed(format!("admin.token cannot be read: {e}; run this as the relay's user"))
            })?
            .ok_or_else(|| {
                Failure::Failed(format!(
                    "no admin.token in {}. {ADMIN_TOKEN_GONE}",
                    shown(&location.data_dir)
                ))
            })?,
    };
    Client::new(&base, token, &Trust::Lock(location.data_dir.clone()))
}

fn shown(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

impl Client {
    /// No redirects (the token goes to nobody else) and no proxy from the environment.
    fn new(base: &str, token: Secret, trust: &Trust) -> Result<Self, Failure> {
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(Failure::Usage(format!("{base:?} is no URL such as http://127.0.0.1:8025")));
        }
        let mut http = reqwest::Client::builder();
        if let Some(tls) = trust.client().map_err(Failure::Usage)? {
            http = http.tls_backend_preconfigured(tls);
        }
        let http = http
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .read_timeout(MAIL_MAX)
            .build()
            .map_err(|e| Failure::Failed(reasons(&e)))?;
        Ok(Client { base: base.trim_end_matches('/').to_owned(), token, http })
    }

    async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<reqwest::Response, Failure> {
        self.send(self.http.request(Method::GET, format!("{}{path}", self.base)).query(query)).await
    }

    /// A stream of events, from behind the one of that id on; empty: from now on.
    pub(super) async fn stream(&self, path: &str, last: &str) -> Result<reqwest::Response, Failure> {
        let request = self.http.request(Method::GET, format!("{}{path}", self.base));
        self.send(request.header("accept", "text/event-stream").header("last-event-id", last)).await
    }

    /// Asks and reads JSON.
    pub(super) async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Failure> {
        self.read(self.get(path, query).await?).await
    }

    /// Posts JSON and reads JSON.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let request = self.http.request(Method::POST, format!("{}{path}", self.base)).json(body);
        self.read(self.send(request).await?).await
    }

    /// The same of what may take so long.
    pub(super) async fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, Failure> {
        let request = self.http.request(Method::POST, format!("{}{path}", self.base)).json(body);
        self.read(self.send_within(request, within).await?).await
    }

    /// Deletes; the answer has no content.
    pub(super) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.send(self.http.request(Method::DELETE, format!("{}{path}", self.base))).await.map(|_| ())
    }

    /// Deletes what the query names, and reads JSON.
    pub(super) async fn delete_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        let request = self.http.request(Method::DELETE, format!("{}{path}", self.base)).query(query);
        self.read(self.send(request).await?).await
    }

    /// Posts JSON under a key under which it is done once. Where it is not known what became of it, the key is told.
    pub(super) async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        key: &str,
    ) -> Result<T, Failure> {
        let request = self.http.request(Method::POST, format!("{}{path}", self.base)).json(body);
        let request = request.bearer_auth(self.token.expose()).header("Idempotency-Key", key);
        let unsure = |said: String| {
            Failure::Failed(format!(
                "{said}; it may have been taken: the same command with --key {key} sends it only where it was not"
            ))
        };
        let lost = |error: reqwest::Error| match error.is_connect() || error.is_builder() {
            true => self.silent(&error),
            false => unsure(format!("no answer from {}: {}", self.base, reasons(&error))),
        };
        let response = request.send().await.map_err(lost)?;
        match response.status() {
            status if status.is_success() => {
                let body = response.bytes().await.map_err(lost)?;
                serde_json::from_slice(&body)
                    .map_err(|e| unsure(format!("{} answered what this version cannot read: {e}", self.base)))
            }
            status => match self.refused(response).await {
                Failure::Failed(said) if status.is_server_error() => Err(unsure(said)),
                Failure::NoRelay(said) => Err(unsure(said)),
                failure => Err(failure),
            },
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, Failure> {
        self.send_within(request, ANSWER_MAX).await
    }

    async fn send_within(
        &self,
        request: reqwest::RequestBuilder,
        within: Duration,
    ) -> Result<reqwest::Response, Failure> {
        let answer = request.bearer_auth(self.token.expose()).send();
        let response = match tokio::time::timeout(within, answer).await {
            Ok(response) => response.map_err(|e| self.silent(&e))?,
            Err(_) => {
                let said = format!("no answer from {} within {} s", self.base, within.as_secs());
                return Err(Failure::NoRelay(said));
            }
        };
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refused(response).await),
        }
    }

    /// What an answer that is none of success says.
    async fn refused(&self, response: reqwest::Response) -> Failure {
        let status = response.status();
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return self.silent(&error),
        };
        let Ok(ErrorBody { error }) = serde_json::from_slice(&body) else {
            return Failure::Failed(format!("{} answered {status}, and not as Postroad does", self.base));
        };
        let message = error.whole();
        match status {
            StatusCode::UNPROCESSABLE_ENTITY if error.code == "configuration" => Failure::Refused(error),
            StatusCode::NOT_FOUND | StatusCode::GONE => Failure::NotFound(message),
            StatusCode::BAD_REQUEST => Failure::Usage(message),
            StatusCode::UNAUTHORIZED => Failure::Failed(format!("{message}. {ADMIN_TOKEN_GONE}")),
            _ => Failure::Failed(message),
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: reqwest::Response) -> Result<T, Failure> {
        let body = response.bytes().await.map_err(|e| self.silent(&e))?;
        serde_json::from_slice(&body).map_err(|e| {
            Failure::Failed(format!("{} answered what this version cannot read: {e}", self.base))
        })
    }

    fn silent(&self, error: &reqwest::Error) -> Failure {
        let reasons = reasons(error);
        Failure::NoRelay(format!("no answer from {}: {reasons}{}", self.base, hint(&reasons)))
    }
}

/// An error with its causes, without the URL that the caller names.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

impl Source {
    /// One page of the queue.
    pub(super) async fn list(&self, filter: &Filter) -> Result<Page, Failure> {
        match self {
            Source::Relay(client) => {
                let mut query = vec![("limit", filter.limit.to_string())];
                if !filter.states.is_empty() {
                    query.push(("state", filter.states.join(",")));
                }
                query.extend(filter.stream.clone().map(|stream| ("stream", stream)));
                query.extend(filter.recipient.clone().map(|recipient| ("recipient", recipient)));
                query.extend(filter.before.map(|id| ("cursor", format!("{}.{}", id.message, id.recipient))));
                client.get_json("/v1/messages", &query).await
            }
            Source::Database { queue, .. } => messages::page(&**queue, filter.clone()).await.map_err(broken),
        }
    }

    /// A message's life.
    pub(super) async fn show(&self, id: MessageId) -> Result<Life, Failure> {
        match self {
            Source::Relay(client) => client.get_json(&format!("/v1/messages/{id}"), &[]).await,
            Source::Database { queue, .. } => {
                queue.show(id).await.map_err(broken)?.map(Into::into).ok_or_else(|| no_such(id))
            }
        }
    }

    /// Writes a message's content to `out`.
    pub(super) async fn raw(&self, id: MessageId, out: &mut impl Write) -> Result<(), Failure> {
        match self {
            Source::Relay(client) => {
                let mut response = client.get(&format!("/v1/messages/{id}/raw"), &[]).await?;
                while let Some(piece) = response.chunk().await.map_err(|e| client.silent(&e))? {
                    out.write_all(&piece)?;
                }
                Ok(())
            }
            Source::Database { queue, .. } => {
                let Some(content) = queue.body(id).await.map_err(broken)? else {
                    let known = queue.show(id).await.map_err(broken)?.is_some();
                    return Err(if known { content_gone(id) } else { no_such(id) });
                };
                Ok(out.write_all(&content)?)
            }
        }
    }
}

fn no_such(id: MessageId) -> Failure {
    Failure::NotFound(format!("no message {id}: it never was, or retention let it go"))
}

fn content_gone(id: MessageId) -> Failure {
    Failure::NotFound(format!("{id}: its content is no longer kept; explain {id} tells its life"))
}

pub(super) fn broken(error: crate::store::StoreError) -> Failure {
    Failure::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HttpSettings;

    fn location(data_dir: &Path) -> settings::Location {
        let http = HttpSettings {
            address: ([127, 0, 0, 1], 0).into(),
            public_address: None,
            public_url: None,
            trusted_proxies: Vec::new(),
            admin_token: None,
            certificate: None,
        };
        settings::Location { data_dir: data_dir.to_owned(), http, path: None }
    }

    #[tokio::test]
    async fn the_lock_says_where_the_relay_is_and_the_token_is_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (common, location) = (Common::default(), location(dir.path()));
        assert!(matches!(relay_of(&common, &location).await.unwrap_err(), Failure::NoRelay(_)));
        let lock = Lock::take(dir.path()).unwrap();
        lock.write("0.0.0.0:8025".parse().unwrap(), &[]).unwrap();
        let failure = relay_of(&common, &location).await.unwrap_err();
        assert!(failure.message().unwrap().contains("no admin.token"), "{failure:?}");
        let token = lock::admin_token(dir.path()).unwrap();
        let client = relay_of(&common, &location).await.unwrap();
        assert_eq!((client.base.as_str(), &client.token), ("http://127.0.0.1:8025", &token));
        assert!(matches!(place_of(&common, &location).await, Ok(Place::Relay(_))));
    }

    #[tokio::test]
    async fn a_relay_whose_lock_file_was_removed_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let (common, location) = (Common::default(), location(dir.path()));
        let _lock = Lock::take(dir.path()).unwrap();
        std::fs::write(dir.path().join("postroad.db"), "").unwrap();
        std::fs::remove_file(dir.path().join("postroad.lock")).unwrap();
        let failure = relay_of(&common, &location).await.unwrap_err();
        assert_eq!(failure.exit_code(), 4);
        assert!(failure.message().unwrap().contains("restart it"), "{failure:?}");
        let Err(failure) = place_of(&common, &location).await else { panic!("the database is the relay's") };
        assert!(failure.message().unwrap().contains("a relay runs on"), "{failure:?}");
    }

    #[tokio::test]
    async fn without_a_relay_or_a_database_there_is_nothing_to_read_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("data");
        let found = place_of(&Common::default(), &location(&nowhere)).await;
        assert!(matches!(found, Err(Failure::NoRelay(_))));
        assert!(!nowhere.exists());
    }

    #[tokio::test]
    async fn a_url_wants_a_token_of_its_own_and_silence_is_exit_code_4() {
        let mut common = Common { url: Some("http://127.0.0.1:1".into()), ..Common::default() };
        assert!(
            matches!(relay(&common).await.unwrap_err(), Failure::Usage(_)),
            "the local token goes nowhere else"
        );
        common.token = Some(Secret::new("t"));
        let client = relay(&common).await.unwrap();
        let failure = client.get("/v1/messages", &[]).await.unwrap_err();
        assert_eq!(failure.exit_code(), 4);
        assert!(failure.message().unwrap().starts_with("no answer from http://127.0.0.1:1: "), "{failure:?}");
        common.url = Some("ftp://x".into());
        assert!(matches!(relay(&common).await.unwrap_err(), Failure::Usage(_)));
    }
}
