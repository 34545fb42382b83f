//! The webhooks that the ESPs are to have: whether each stands as it should, what is done about it, and a trial of one,
//! followed from the public URL to the store.
//!
//! The only URLs that are asked are those of the configuration: the ESP's API, and `public_url`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::courier::Courier;
use super::desk::DeskError;
use super::intake::Intake;
use super::last_calls::{LastCalls, Why};
use super::setup::Carrier;
use crate::address::{Address, Grammar};
use crate::clock::{Clock, monotonic};
use crate::esp::setup::{Api, Arranged, State, Trial, Wanted};
use crate::esp::webhook::{ProvenBy, WebhookSettings};
use crate::mail::{
    Body, BodyFacts, BodyKind, Envelope, Errand, HttpReply, Known, MessageId, Protocol, QueueState,
    ReversePath, Source, Submission,
};
use crate::secret::Secret;
use crate::store::Store;
use crate::wire::Wire;
use crate::wire::knock::knock;

/// How often it is looked whether something has come.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A call that was refused may be a stranger's: so long another is waited for.
const AFTER_REFUSAL: Duration = Duration::from_secs(5);
/// Where mail that the relay writes itself comes from, in `Received` and the log.
const LISTENER: &str = "webhook-test";

/// What the configuration says of the webhooks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[http] public_url`, without a slash at its end.
    pub public_url: Option<String>,
    /// The webhook of every ESP that has one, by its name.
    pub hooks: Vec<(String, WebhookSettings)>,
    /// `[server] dsn_from`: whom mail of the relay's own comes from.
    pub own: Option<Address>,
}

/// See the module. A reload makes another.
pub struct Webhooks {
    /// Who has the ESPs.
    pub courier: Arc<Courier>,
    /// Where events end.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who takes the mail of a trial.
    pub intake: Arc<Intake>,
    /// What came of late.
    pub last_calls: Arc<LastCalls>,
    /// What is configured.
    pub settings: Settings,
}

/// How an ESP's webhook stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetUp {
    /// Where its events are to come; `None`: it has no webhook.
    pub url: Option<String>,
    /// Nothing is wrong; where it was to be applied, nothing is missing either.
    pub ok: bool,
    /// What there is, what was done and what is left.
    pub arranged: Arranged,
}

/// How a trial went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tested {
    /// What was done, in order.
    pub steps: Vec<Followed>,
    /// The event is in the store; or why it is not.
    pub met: Result<(), String>,
    /// How long it took.
    pub took: Duration,
}

/// One step of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// `public_url`, `trial` or `event`.
    pub name: &'static str,
    /// It went well.
    pub ok: bool,
    /// What came of it.
    pub told: String,
    /// How long it took.
    pub took: Duration,
}

/// An ESP's API, over its wire.
struct OverWire<'a>(&'a dyn Wire);

impl Api for OverWire<'_> {
    fn run(&self, errand: Errand) -> BoxFuture<'_, Result<HttpReply, String>> {
        self.0.errand(errand)
    }
}

/// By what it is seen that the event has come.
#[derive(Debug, Clone, Copy)]
enum Sign {
    /// Events that the ESP made up.
    Tests,
    /// One of this mail.
    EventOf(MessageId),
}

/// One trial under way.
struct Following<'a> {
    all: &'a Webhooks,
    carrier: &'a Carrier,
    wanted: Wanted<'a>,
    steps: Vec<Followed>,
    until: Instant,
}

impl Webhooks {
    /// Looks how the webhook of that ESP stands, and where `apply` says so makes it so.
    pub async fn set_up(&self, esp: &str, apply: bool) -> Result<SetUp, DeskError> {
        let carrier = self.courier.named(esp)?;
        let Some(webhook) = self.hook(esp) else {
            return Ok(SetUp { url: None, ok: true, arranged: Arranged::default() });
        };
        let url = self.url(esp)?;
        let api = OverWire(&*carrier.line.wire);
        let wanted = Wanted { esp, url: &url, webhook };
        let arranged = match carrier.line.esp.set_up(wanted, apply, &api) {
            Some(set_up) => set_up.await,
            None => Arranged::default(),
        };
        let well = |state: State| match state {
            State::There | State::Made | State::Changed => true,
            State::Missing | State::Differs => !apply,
            State::Failed => false,
        };
        let ok = arranged.things.iter().all(|thing| well(thing.state));
        Ok(SetUp { url: Some(url), ok, arranged })
    }

    /// Has that ESP send an event, and follows it for so long; `from`: whom a mail of the trial comes from.
    pub async fn test(
        &self,
        esp: &str,
        from: Option<Address>,
        within: Duration,
    ) -> Result<Tested, DeskError> {
        let (carrier, began) = (self.courier.named(esp)?, monotonic());
        let Some(webhook) = self.hook(esp) else {
            let why = "an ESP of this type tells nothing by webhook".to_owned();
            return Ok(Tested { steps: Vec::new(), met: Err(why), took: began.elapsed() });
        };
        let url = self.url(esp)?;
        let wanted = Wanted { esp, url: &url, webhook };
        let mut following =
            Following { all: self, carrier: &carrier, wanted, steps: Vec::new(), until: began + within };
        let met = following.follow(from).await;
        Ok(Tested { steps: following.steps, met, took: began.elapsed() })
    }

    fn hook(&self, esp: &str) -> Option<&WebhookSettings> {
        self.settings.hooks.iter().find(|(name, _)| name == esp).map(|(_, webhook)| webhook)
    }

    fn url(&self, esp: &str) -> Result<String, DeskError> {
        let base = self.settings.public_url.as_ref().ok_or(DeskError::NoPublicUrl)?;
        Ok(format!("{base}/webhooks/{esp}"))
    }
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhooks").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Following<'_> {
    async fn follow(&mut self, from: Option<Address>) -> Result<(), String> {
        // The ESP may come that far where this machine does not, for one behind a router that does not turn back.
        let _ = self.public_url().await;
        let chance = format!("postroad-webhook-test-{}", self.all.courier.mint.message(&*self.all.clock));
        let Some(trial) = self.carrier.line.esp.trial(self.wanted, &chance, self.all.clock.now()) else {
            return Err("an ESP of this type tells nothing by webhook".to_owned());
        };
        match trial {
            Trial::Asked => self.asked().await,
            Trial::Mail(to) => self.mailed(to, from).await,
            Trial::Post(fields, body) => self.posted(&fields, body).await,
        }
    }

    /// A call without proof gets as far as this relay, and no farther.
    async fn public_url(&mut self) -> Result<(), String> {
        let began = monotonic();
        let answer = knock(self.wanted.url, &[], "{}".to_owned()).await;
        let came = self.all.last_calls.since(self.wanted.esp, began).refused.is_some();
        let told = match (answer, self.wanted.webhook.proven) {
            (Ok(reply), true) if reply.status == 401 && came => {
                Ok("answers, and a call without proof is refused (401)".to_owned())
            }
            (Ok(reply), false) if matches!(reply.status, 200 | 400) => {
                Ok("answers; whoever reaches it is believed (webhook_auth = \"none\")".to_owned())
            }
            (Ok(reply), _) if reply.status == 401 || reply.status == 429 => Err(format!(
                "answers {}, but the call did not come to this relay: is it another server, or a proxy, that answers?",
                reply.status
            )),
            (Ok(reply), _) => Err(format!(
                "answers {} where this relay would say 401: does the proxy before it pass /webhooks/ on, with POST?",
                reply.status
            )),
            (Err(why), _) => Err(format!("cannot be reached from this machine: {why}")),
        };
        self.step("public_url", began, told.map(|told| format!("{} {told}", self.wanted.url)))
    }

    async fn asked(&mut self) -> Result<(), String> {
        let began = monotonic();
        let api = OverWire(&*self.carrier.line.wire);
        let asked = self.carrier.line.esp.ask_for_trial(self.wanted, &api).await;
        self.step("trial", began, asked)?;
        self.event(began, Sign::Tests).await
    }

    async fn mailed(&mut self, to: &'static str, from: Option<Address>) -> Result<(), String> {
        let began = monotonic();
        let id = self.submit(to, from).await;
        let sent =
            id.clone().map(|id| format!("{id} was taken for {to}; postroad explain {id} tells its life"));
        self.step("trial", began, sent)?;
        self.event(began, Sign::EventOf(id?)).await
    }

    async fn posted(&mut self, fields: &[(String, Secret)], body: String) -> Result<(), String> {
        let began = monotonic();
        let answer = knock(self.wanted.url, fields, body).await;
        let taken = match answer {
            Ok(reply) if reply.status == 200 && has_taken(&reply) => {
                Ok("posted as the ESP would, with its proof; the event is in the store".to_owned())
            }
            Ok(reply) => Err(match self.refused_since(began) {
                Some(why) => self.explained(&why),
                None => format!("it was posted as the ESP would, and did not come to this relay: {reply}"),
            }),
            Err(why) => Err(format!("it could not be posted: {why}")),
        };
        self.step("event", began, taken)
    }

    /// Waits for that sign, and no longer than it is worth.
    async fn event(&mut self, began: Instant, sign: Sign) -> Result<(), String> {
        let found = loop {
            if let Some(found) = self.seen(sign, began).await {
                break found;
            }
            let (now, refused) = (monotonic(), self.all.last_calls.since(self.wanted.esp, began).refused);
            match refused {
                Some((at, why)) if why.reason != "later" && now >= at + AFTER_REFUSAL => {
                    break Err(self.explained(&why));
                }
                Some((_, why)) if now >= self.until => break Err(self.explained(&why)),
                None if now >= self.until => {
                    break Err(format!(
                        "nothing came within {} s: is {} the URL at the ESP (postroad esp setup {}), and do firewall and \
                         proxy let POSTs through to it?",
                        now.duration_since(began).as_secs(),
                        self.wanted.url,
                        self.wanted.esp
                    ));
                }
                Some(_) | None => sleep(LOOK_EVERY).await,
            }
        };
        self.step("event", began, found)
    }

    /// What there is of it; an error: there will be none.
    async fn seen(&self, sign: Sign, began: Instant) -> Option<Result<String, String>> {
        match sign {
            Sign::Tests => {
                let came = self.all.last_calls.since(self.wanted.esp, began).test;
                came.then(|| Ok("its test events are in the store".to_owned()))
            }
            Sign::EventOf(id) => told_of(&self.all.store, id).await,
        }
    }

    fn refused_since(&self, began: Instant) -> Option<Why> {
        self.all.last_calls.since(self.wanted.esp, began).refused.map(|(_, why)| why)
    }

    /// Why a call was refused, and what to do.
    fn explained(&self, why: &Why) -> String {
        let name = self.wanted.esp;
        let advice = match (&self.wanted.webhook.by, why.reason) {
            (ProvenBy::Sendgrid(_), "wrong" | "no_key") => {
                format!("; postroad esp setup {name} tells the key of this webhook")
            }
            (ProvenBy::Sendgrid(_), "missing") => {
                format!(
                    "; SendGrid does not sign it, or a proxy takes its fields away: postroad esp setup {name} --apply"
                )
            }
            (ProvenBy::Postmark { .. }, "missing") => "; a proxy may have taken its fields away".to_owned(),
            _ => String::new(),
        };
        format!("a call came and was refused ({}): {}{advice}", why.reason, why.words)
    }

    /// A mail of the relay's own, that this ESP alone may carry.
    async fn submit(&self, to: &str, from: Option<Address>) -> Result<MessageId, String> {
        let configured = || match self.carrier.line.esp.sender(&ReversePath::Null) {
            ReversePath::Mailbox(own) => Some(own.clone()),
            ReversePath::Null => None,
        };
        let from = from.or_else(|| self.all.settings.own.clone()).or_else(configured).ok_or(
            "nothing tells whom a test mail comes from: name an address that the ESP lets you send from (--from ADDRESS), \
             or set [server] dsn_from",
        )?;
        let to = Address::parse(to, Grammar::Strict).map_err(|error| error.to_string())?;
        let content = format!(
            "From: <{}>\r\nTo: <{}>\r\nSubject: Test of the webhook of {}\r\n\r\nSent by Postroad to see that what becomes \
             of it is told.\r\n",
            from.wire(),
            to.wire(),
            self.wanted.esp
        );
        let submission = Submission {
            envelope: Envelope {
                sender: ReversePath::Mailbox(from.clone()),
                recipients: vec![to],
                body: if content.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBit },
                smtputf8: from.needs_smtputf8(),
                reports: None,
            },
            raw: Body {
                facts: BodyFacts::of(content.as_bytes()),
                head: content.into(),
                rest: None,
                permit: None,
            },
            stream: None,
            tags: Vec::new(),
            metadata: Vec::new(),
            key: None,
            send_at: None,
            pin: Some(self.wanted.esp.to_owned()),
            source: Source {
                listener: LISTENER.into(),
                peer: std::net::Ipv4Addr::LOCALHOST.into(),
                helo: String::new(),
                credential: None,
                protocol: Protocol::Http,
            },
            terms: Arc::default(),
            on_top: String::new(),
        };
        self.all.intake.submit_whole(submission).await.map_err(|reply| reply.text.into_owned())
    }

    fn step(
        &mut self,
        name: &'static str,
        began: Instant,
        told: Result<String, String>,
    ) -> Result<(), String> {
        let (ok, words) = (told.is_ok(), told.clone().unwrap_or_else(|why| why));
        self.steps.push(Followed { name, ok, told: words, took: began.elapsed() });
        told.map(drop)
    }
}

/// What the webhook has told of that mail. That a call failed is an event too, and not of the webhook.
async fn told_of(store: &Store, id: MessageId) -> Option<Result<String, String>> {
    let view = store.show(id).await.ok()??;
    let told =
        view.events.iter().find(|event| matches!(event.kind.as_str(), "sent" | "delivered" | "deferred"));
    if let Some(event) = told {
        return Some(Ok(format!("its event {} is in the store", event.kind)));
    }
    let ended = view.deliveries.iter().find(|d| d.state == QueueState::Done && d.known == Known::Nothing);
    ended.map(|d| {
        Err(format!("the mail was not sent: {}", d.said.as_deref().unwrap_or("postroad explain says why")))
    })
}

/// Whether an answer is that of a webhook that has the event now.
fn has_taken(reply: &HttpReply) -> bool {
    let told: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    told["taken"] == 1
}
