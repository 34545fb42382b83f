//! What ESPs tell by webhook: each POST is proven, read, and its events are taken with all that follows, before it is
//! answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::courier::Courier;
use super::last_calls::LastCalls;
use crate::clock::{Clock, Timestamp};
use crate::esp::hook::{self, Post, Refused, Unproven};
use crate::esp::webhook::{ProvenBy, WebhookSettings, is_certificate_name};
use crate::journal;
use crate::mail::effect::SoftRule;
use crate::mail::{Event, What};
use crate::metrics::{WEBHOOK_EVENTS, WEBHOOK_REJECTED};
use crate::store::{Store, StoreError, Taken, ToldEvent};
use crate::wire::{Certificates, NoKey};

/// Events of one POST; the largest batch of any ESP is far smaller.
pub const EVENTS_MAX: usize = 20_000;
/// The same trouble of the same ESP is told to the log so often.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// In metrics: what cannot be read.
const MALFORMED: &str = "malformed";

/// One ESP's webhook.
#[derive(Debug)]
pub struct Hook {
    /// The ESP's name.
    pub esp: String,
    settings: WebhookSettings,
    certificates: Option<Certificates>,
}

impl Hook {
    /// It, as configured. `ca_file`: of its `sns_endpoint`.
    pub fn new(esp: &str, settings: WebhookSettings, ca_file: Option<std::path::PathBuf>) -> Self {
        let certificates = match &settings.by {
            ProvenBy::Sns { endpoint, .. } => {
                Some(Certificates::new(endpoint.clone(), ca_file, is_certificate_name))
            }
            ProvenBy::Sendgrid(_) | ProvenBy::Postmark { .. } => None,
        };
        Hook { esp: esp.to_owned(), settings, certificates }
    }

    async fn hear(&self, post: Post<'_>) -> Result<hook::Heard, Unheard> {
        let url = self.settings.certificate_url(post).map_err(before_proof)?;
        let (Some(url), Some(certificates)) = (url, &self.certificates) else {
            return Ok(self.settings.hear(post, None)?);
        };
        let key = certificates.key(&url, post.at).await;
        let key = key.map_err(|no_key| without_key(&url, no_key))?;
        let heard = self.settings.hear(post, Some(&key))?;
        certificates.has_proven(&url);
        Ok(heard)
    }
}

/// What cannot be proven now is worth repeating: SNS repeats nothing that it hears a 4xx for.
fn without_key(url: &str, no_key: NoKey) -> Unheard {
    match no_key {
        NoKey::NotNow(why) => Unheard::Later {
            told: "the certificate that signs it cannot be had now".to_owned(),
            why: format!("the certificate {url} cannot be had now: {why}"),
        },
        NoKey::NotGood(why) => {
            let words = format!("the certificate {url} is not good: {why}");
            Unheard::Unproven { reason: Unproven::Certificate.word(), words }
        }
    }
}

/// What has to be read to be proven, and cannot be, nobody has shown to come from the ESP: its form is for the log alone, and
/// it counts as a stranger's.
fn before_proof(refused: Refused) -> Unheard {
    match Unheard::from(refused) {
        Unheard::Malformed(words) => Unheard::Unproven { reason: MALFORMED, words },
        unheard => unheard,
    }
}

/// Why a POST was not heard.
enum Unheard {
    /// It is not proven.
    Unproven {
        /// Why, as in metrics.
        reason: &'static str,
        /// That, in words for the log.
        words: String,
    },
    /// It is proven, or needs no proof, and cannot be read; in words.
    Malformed(String),
    /// It could not be proven now.
    Later {
        /// What the caller hears.
        told: String,
        /// What the log says.
        why: String,
    },
}

impl From<Refused> for Unheard {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unproven(why) => Unheard::Unproven { reason: why.word(), words: why.to_string() },
            Refused::Malformed(why) => Unheard::Malformed(why),
        }
    }
}

/// What became of a POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Events that are new.
    pub taken: usize,
    /// Events that were there already.
    pub repeated: usize,
    /// Of the new ones, those whose delivery was not found.
    pub unmatched: usize,
}

/// Why a POST was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotHeard {
    /// Nobody has shown that the ESP sent it, or there is no such ESP.
    Unproven,
    /// It was believed, and cannot be read; in words.
    Malformed(String),
    /// It has more events than one POST may have.
    TooMany,
    /// The store could not take it: it is worth repeating.
    Store(StoreError),
    /// What it asks for could not be done now; in words.
    Later(String),
}

/// See the module.
#[derive(Debug)]
pub struct Feedback {
    store: Store,
    clock: Arc<dyn Clock>,
    courier: Arc<Courier>,
    rule: SoftRule,
    hooks: Vec<Arc<Hook>>,
    told: Mutex<HashMap<(String, &'static str), Timestamp>>,
    last_calls: Arc<LastCalls>,
}

impl Feedback {
    /// For these webhooks.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        courier: Arc<Courier>,
        rule: SoftRule,
        hooks: Vec<Hook>,
    ) -> Self {
        let hooks = hooks.into_iter().map(Arc::new).collect();
        Feedback { store, clock, courier, rule, hooks, told: Mutex::default(), last_calls: Arc::default() }
    }

    /// After a reload. An ESP that is configured no more is a stranger from then on, as after a restart: its key may be why it
    /// was taken out.
    pub fn renewed(&self, rule: SoftRule, hooks: Vec<Hook>) -> Self {
        let hooks = hooks.into_iter().map(Arc::new).collect();
        let (store, clock, courier) =
            (self.store.clone(), Arc::clone(&self.clock), Arc::clone(&self.courier));
        Feedback {
            store,
            clock,
            courier,
            rule,
            hooks,
            told: Mutex::default(),
            last_calls: Arc::clone(&self.last_calls),
        }
    }

    /// What came of late.
    pub fn last_calls(&self) -> Arc<LastCalls> {
        Arc::clone(&self.last_calls)
    }

    /// The ESP that a POST without a name is for, where only one can be meant.
    pub fn whose(&self, post_fields: &[(String, Vec<u8>)], body: &[u8]) -> Option<&str> {
        let kind = kind_of(post_fields, body)?;
        let mut of_kind = self.hooks.iter().filter(|hook| kind(&hook.settings.by));
        match (of_kind.next(), of_kind.next()) {
            (Some(hook), None) => Some(&hook.esp),
            _ => None,
        }
    }

    /// Takes a POST to the webhook of that ESP. `Ok`: all of it is committed.
    pub async fn hear(
        &self,
        esp: &str,
        fields: &[(String, Vec<u8>)],
        body: &[u8],
    ) -> Result<Counted, NotHeard> {
        let Some(hook) = self.hooks.iter().find(|hook| hook.esp == esp).cloned() else {
            return Err(NotHeard::Unproven);
        };
        let post = Post { fields, body, at: self.clock.now() };
        match hook.hear(post).await {
            Ok(hook::Heard::Events(events)) if events.len() > EVENTS_MAX => Err(NotHeard::TooMany),
            Ok(hook::Heard::Events(events)) => self.take(&hook, events).await,
            Ok(hook::Heard::Confirm { topic, url }) => confirm(&hook, &topic, &url).await,
            Ok(hook::Heard::Ended { topic }) => {
                let words = format!(
                    "{topic} sends its events here no more; subscribe it again, or bounces and complaints go unheard"
                );
                journal::alert("webhook_ended", &words);
                self.courier.record_alert(Some(hook.esp.clone()), "webhook_ended", &words);
                Ok(Counted::default())
            }
            Err(Unheard::Later { told, why }) => {
                self.rejected(&hook.esp, "no_certificate", &why);
                Err(NotHeard::Later(told))
            }
            Err(Unheard::Unproven { reason, words }) => {
                self.rejected(&hook.esp, reason, &words);
                Err(NotHeard::Unproven)
            }
            Err(Unheard::Malformed(why)) => {
                self.rejected(&hook.esp, MALFORMED, &why);
                Err(NotHeard::Malformed(why))
            }
        }
    }

    async fn take(&self, hook: &Hook, events: Vec<Event>) -> Result<Counted, NotHeard> {
        let told: Vec<_> = events.iter().map(|event| (event.what, notable(event))).collect();
        let tests = events.iter().any(hook::is_test);
        let events = events.into_iter().map(|event| ToldEvent { esp: hook.esp.clone(), event }).collect();
        let taken = self.store.take_told(self.rule, events).await.map_err(NotHeard::Store)?;
        if tests {
            self.last_calls.test(&hook.esp);
        }
        let mut counted = Counted::default();
        let mut settled = false;
        for (taken, (what, notable)) in taken.iter().zip(told) {
            let id = match taken {
                Taken::Repeat => {
                    counted.repeated += 1;
                    continue;
                }
                Taken::Unmatched => {
                    counted.unmatched += 1;
                    None
                }
                Taken::Joined(joined) => {
                    settled |= joined.settled;
                    Some(joined.message)
                }
            };
            counted.taken += 1;
            ::metrics::counter!(WEBHOOK_EVENTS, "esp" => hook.esp.clone(), "kind" => what.word())
                .increment(1);
            if let Some((to, said)) = notable {
                journal::told(&hook.esp, what.word(), &to, id, &said);
            }
        }
        if settled {
            self.courier.look_now();
        }
        Ok(counted)
    }

    /// Counted always, told to the log now and then: a stranger could fill it.
    fn rejected(&self, esp: &str, reason: &'static str, words: &str) {
        ::metrics::counter!(WEBHOOK_REJECTED, "esp" => esp.to_owned(), "reason" => reason).increment(1);
        self.last_calls.refused(esp, reason, words);
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let last = told.insert((esp.to_owned(), reason), now);
        if last.is_none_or(|last| now.since(last) >= TOLD_EVERY) {
            journal::webhook_rejected(esp, reason, words);
        } else if let Some(last) = last {
            told.insert((esp.to_owned(), reason), last);
        }
    }
}

/// What an operator would look for in the log: whom, and the words.
fn notable(event: &Event) -> Option<(String, String)> {
    let told =
        matches!(event.what, What::Bounced(_) | What::Complained | What::Unsubscribed | What::Resubscribed);
    let to = event.recipient.as_ref().map_or(String::new(), |to| to.wire().to_owned());
    told.then(|| (to, event.said.clone()))
}

async fn confirm(hook: &Hook, topic: &str, url: &str) -> Result<Counted, NotHeard> {
    let Some(certificates) = &hook.certificates else { return Ok(Counted::default()) };
    match certificates.fetch(url).await {
        Ok(_) => {
            journal::webhook_confirmed(&hook.esp, topic);
            Ok(Counted::default())
        }
        Err(why) => {
            journal::trouble(&format!("confirming that {topic} may send its events here"), &why.to_string());
            Err(NotHeard::Later(format!("the subscription could not be confirmed: {why}")))
        }
    }
}

/// By what an ESP's POST is known from the others'.
fn kind_of(fields: &[(String, Vec<u8>)], body: &[u8]) -> Option<fn(&ProvenBy) -> bool> {
    let has = |name: &str| fields.iter().any(|(n, _)| n == name);
    let start = body.trim_ascii_start();
    if has("x-amz-sns-message-type") || contains(start, b"\"TopicArn\"") {
        Some(|by| matches!(by, ProvenBy::Sns { .. }))
    } else if has("x-twilio-email-event-webhook-signature") || start.starts_with(b"[") {
        Some(|by| matches!(by, ProvenBy::Sendgrid(_)))
    } else if contains(start, b"\"RecordType\"") {
        Some(|by| matches!(by, ProvenBy::Postmark { .. }))
    } else {
        None
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(body, text).is_some()
}
