//! Amazon's `SendEmail`, by its SDK: that finds credentials, signs, and knows the API's shape. What it has made leaves by
//! the [`super::http`] line as everything else does, so that handed over, lost and given up mean the same here; what comes
//! back is told as it came, and [`crate::esp::ses`] reads it.
//!
//! The SDK tries nothing twice and has no time-outs of its own.

mod carrier;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::config::retry::RetryConfig;
use aws_sdk_sesv2::config::timeout::TimeoutConfig;
use aws_sdk_sesv2::config::{
    BehaviorVersion, Config, Credentials, IdentityCache, Region, SharedCredentialsProvider,
    StalledStreamProtectionConfig,
};
use aws_sdk_sesv2::error::BuildError;
use aws_sdk_sesv2::primitives::Blob;
use aws_sdk_sesv2::types::{
    Destination, EmailContent, EventDestinationDefinition, EventType, MessageTag, RawMessage, SnsDestination,
};
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::http::{causes, check, lost};
use super::{CHECK, CHECK_FOR_PEOPLE, Checked, Wire};
use crate::mail::{Errand, HttpReply, Phase, Reply, Request, SesDestination, SesErrand, SesRequest, Watch};
use crate::secret::{Blot, Secret};
use carrier::{Carrier, Ride};

/// Where the credentials of the default chain have not come after so long, there are none for this call.
const CREDENTIALS_WITHIN: Duration = Duration::from_secs(10);
/// What is said beside the SDK's words where nothing could be signed.
const ADVICE: &str = "set access_key_id and secret_access_key at this [[esp]], or give this machine a role, or set \
                      AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the relay's environment";

/// How SES is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `eu-central-1`.
    pub region: String,
    /// Access key id and secret access key; without: AWS's default chain.
    pub keys: Option<(String, Secret)>,
    /// The password of its SMTP endpoint, which it may name.
    pub smtp_password: Option<Secret>,
    /// In place of the region's own.
    pub endpoint: Option<String>,
    /// PEM of the CA that signed the endpoint's certificate.
    pub ca_file: Option<PathBuf>,
    /// Connections that are kept.
    pub max_connections: usize,
    /// Connect and TLS, each stretch of a body that does not move, and the whole answer.
    pub timeout: Duration,
    /// What the answer to `GetAccount` means: what works, or what does not.
    pub judge_account: fn(&HttpReply) -> Result<String, String>,
}

/// SES by its API.
pub struct SesWire {
    settings: Settings,
    client: OnceCell<Client>,
    blot: Blot,
}

impl SesWire {
    /// A wire to that API. Nothing is opened or loaded before the first exchange.
    pub fn new(settings: Settings) -> Self {
        let blot = settings
            .keys
            .as_ref()
            .map(|(id, secret)| Blot::of_logins(id, [secret].into_iter().chain(&settings.smtp_password)));
        let blot = blot.unwrap_or_default();
        SesWire { settings, client: OnceCell::new(), blot }
    }

    async fn client(&self) -> &Client {
        self.client.get_or_init(|| async { Client::from_conf(self.config().await) }).await
    }

    async fn config(&self) -> Config {
        let Settings { region, keys, endpoint, ca_file, max_connections, timeout, .. } = &self.settings;
        let region = Region::new(region.clone());
        let credentials = match keys {
            Some((id, secret)) => {
                SharedCredentialsProvider::new(Credentials::new(id, secret.expose(), None, None, "postroad"))
            }
            None => SharedCredentialsProvider::new(chain(region.clone(), *timeout).await),
        };
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region)
            .credentials_provider(credentials)
            .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_WITHIN).build())
            .http_client(Carrier::new(ca_file.clone(), *max_connections, *timeout))
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config.set_endpoint_url(endpoint.clone());
        config.build()
    }

    async fn send(&self, request: SesRequest, watch: &Watch) -> Reply {
        let ride = Ride::watched(watch.clone());
        let SesRequest { recipients, data, tags, configuration_set } = request;
        let to = recipients.iter().map(|to| to.ascii_wire().unwrap_or_else(|| to.wire().to_owned()));
        let destination = Destination::builder().set_to_addresses(Some(to.collect())).build();
        let (content, tags) = match (content(data.into()), shaped(tags)) {
            (Ok(content), Ok(tags)) => (content, tags),
            (Err(error), _) | (_, Err(error)) => {
                return lost(Phase::Connect, false, format!("the request cannot be written: {error}"));
            }
        };
        let rides = ride.clone();
        let sending = self
            .client()
            .await
            .send_email()
            .destination(destination)
            .content(content)
            .set_email_tags((!tags.is_empty()).then_some(tags))
            .set_configuration_set_name(configuration_set)
            .customize()
            .mutate_request(move |request| request.add_extension(rides.clone()))
            .send();
        tokio::pin!(sending);
        let sent = tokio::select! {
            biased;
            sent = &mut sending => sent,
            // Before it is signed nobody else listens to this.
            () = watch.asked() => match ride.gives_up() {
                Some(reply) => return reply,
                None => sending.await,
            }
        };
        match (ride.reply(), sent) {
            (Some(reply), _) => reply,
            (None, Err(error)) => lost(Phase::Auth, false, unsigned(&error)),
            (None, Ok(_)) => lost(Phase::Answer, true, "the answer did not come by this line".to_owned()),
        }
    }

    /// What `GetAccount` says, or the step that failed and why.
    async fn get_account(&self) -> Result<HttpReply, (&'static str, String)> {
        let ride = Ride::unwatched();
        let rides = ride.clone();
        let asking = self.client().await.get_account().customize();
        let asked = asking.mutate_request(move |request| request.add_extension(rides.clone())).send().await;
        match (ride.reply(), asked) {
            (Some(Reply::Http(reply)), _) => Ok(reply),
            (Some(Reply::Lost { phase, said, .. }), _) => Err((phase.word(), said)),
            (_, Err(error)) => Err(("key", unsigned(&error))),
            (_, Ok(_)) => Err((Phase::Answer.word(), "the answer did not come by this line".to_owned())),
        }
    }

    async fn run(&self, errand: SesErrand) -> Result<HttpReply, String> {
        let ride = Ride::unwatched();
        let rides = ride.clone();
        let client = self.client().await;
        let ran = match errand {
            SesErrand::Destinations { set } => {
                let asked = client.get_configuration_set_event_destinations().configuration_set_name(set);
                let asked = asked.customize().mutate_request(move |r| r.add_extension(rides.clone()));
                asked.send().await.map(drop).map_err(|error| unsigned(&error))
            }
            SesErrand::Publish { set, destination, new: true } => {
                let asked = client.create_configuration_set_event_destination().configuration_set_name(set);
                let asked = asked
                    .event_destination_name(&destination.name)
                    .event_destination(published(destination)?);
                let asked = asked.customize().mutate_request(move |r| r.add_extension(rides.clone()));
                asked.send().await.map(drop).map_err(|error| unsigned(&error))
            }
            SesErrand::Publish { set, destination, new: false } => {
                let asked = client.update_configuration_set_event_destination().configuration_set_name(set);
                let asked = asked
                    .event_destination_name(&destination.name)
                    .event_destination(published(destination)?);
                let asked = asked.customize().mutate_request(move |r| r.add_extension(rides.clone()));
                asked.send().await.map(drop).map_err(|error| unsigned(&error))
            }
        };
        match (ride.reply(), ran) {
            (Some(Reply::Http(reply)), _) => Ok(reply),
            (Some(Reply::Lost { said, .. }), _) => Err(said),
            (_, Err(why)) => Err(why),
            (_, Ok(())) => Err("the answer did not come by this line".to_owned()),
        }
    }

    async fn checked(&self, most: Duration) -> Checked {
        let within = most.min(self.settings.timeout);
        check(&self.base(), self.settings.judge_account, &self.blot, self.get_account(), within).await
    }

    fn base(&self) -> String {
        let region_s = || format!("https://email.{}.amazonaws.com", self.settings.region);
        self.settings.endpoint.clone().unwrap_or_else(region_s)
    }
}

impl Wire for SesWire {
    fn exchange<'a>(&'a self, request: Request, watch: &'a Watch) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let reply = match request {
                Request::Ses(request) => self.send(request, watch).await,
                Request::Smtp(_) | Request::Http(_) | Request::Keep => {
                    lost(Phase::Connect, false, "this is a line to SES".to_owned())
                }
            };
            reply.with_words(|words| self.blot.out(words))
        })
    }

    fn answers_within(&self, _: &Request) -> Duration {
        self.settings.timeout
    }

    fn check(&self) -> BoxFuture<'_, Checked> {
        Box::pin(self.checked(CHECK))
    }

    fn check_all(&self) -> BoxFuture<'_, Checked> {
        Box::pin(self.checked(CHECK_FOR_PEOPLE))
    }

    fn errand(&self, errand: Errand) -> BoxFuture<'_, Result<HttpReply, String>> {
        Box::pin(async move {
            let Errand::Ses(errand) = errand else { return Err("this is a line to SES".to_owned()) };
            let within = CHECK_FOR_PEOPLE.min(self.settings.timeout);
            let late = |_| Err(format!("no answer for {within:.0?}"));
            let done = timeout(within, self.run(errand)).await.unwrap_or_else(late);
            done.map(|reply| reply.with_words(|words| self.blot.out(words)))
                .map_err(|why| self.blot.out(&why).into_owned())
        })
    }

    fn account(&self) -> BoxFuture<'_, Result<HttpReply, String>> {
        Box::pin(async move {
            let asked = self.get_account().await;
            let told = asked.map(|reply| reply.with_words(|words| self.blot.out(words)));
            told.map_err(|(_, why)| self.blot.out(&why).into_owned())
        })
    }
}

impl std::fmt::Debug for SesWire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SesWire").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The default chain: environment, the files in `~/.aws`, web identity, container, machine. Its servers have public
/// certificates, whatever the endpoint has.
async fn chain(region: Region, timeout: Duration) -> DefaultCredentialsChain {
    let config = ProviderConfig::without_region().with_http_client(Carrier::new(None, 1, timeout));
    DefaultCredentialsChain::builder().region(region).configure(config).build().await
}

fn content(data: Vec<u8>) -> Result<EmailContent, BuildError> {
    let raw = RawMessage::builder().data(Blob::new(data)).build()?;
    Ok(EmailContent::builder().raw(raw).build())
}

fn shaped(tags: Vec<(String, String)>) -> Result<Vec<MessageTag>, BuildError> {
    tags.into_iter().map(|(name, value)| MessageTag::builder().name(name).value(value).build()).collect()
}

fn published(destination: SesDestination) -> Result<EventDestinationDefinition, String> {
    let SesDestination { topic, kinds, .. } = destination;
    let topic = SnsDestination::builder().topic_arn(topic).build().map_err(|error| error.to_string())?;
    let kinds = kinds.iter().map(|kind| EventType::from(kind.as_str())).collect();
    Ok(EventDestinationDefinition::builder()
        .enabled(true)
        .set_matching_event_types(Some(kinds))
        .sns_destination(topic)
        .build())
}

/// Nothing has left: there are no credentials, or they are unusable.
fn unsigned(error: &(dyn std::error::Error + 'static)) -> String {
    format!("the request could not be signed: {}; {ADVICE}", causes(error.source()))
}
