//! The reload: reads the configuration again, makes all that it needs, and only then puts it in place, at one moment.
//! What fails before that moment leaves the configuration before in force.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::changes::{self, Changes};
use super::files;
use super::{
    Lines, content_rules, doors_at, esps_named, listener_names, report_settings, setup, shared, tell_of_esps,
    webhook_settings,
};
use crate::clock::Clock;
use crate::config::{Config, Loaded, Place, Problem, Problems};
use crate::esp::settings::EspSettings;
use crate::flow::Setup;
use crate::flow::bounce;
use crate::flow::courier::Courier;
use crate::flow::feedback::Feedback;
use crate::flow::intake::Intake;
use crate::flow::teller::Teller;
use crate::flow::webhooks::Webhooks;
use crate::http;
use crate::http::reload::{Change, NotReloaded, Reloaded};
use crate::journal;
use crate::mail::Budget;
use crate::smtp::{Authenticator, BindError, Doorway, Manner};
use crate::store::Store;

/// Of files that have the name they had and other content.
const AGAIN: &str = "read again";

/// Reads the configuration anew, as the start did.
pub type Source = Arc<dyn Fn() -> Result<Loaded, Problems> + Send + Sync>;

/// All that goes by the configuration.
pub(super) struct Parts {
    pub source: Source,
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub courier: Arc<Courier>,
    pub budget: Arc<Budget>,
    pub intake: Arc<Intake>,
    pub doorways: Vec<Arc<Doorway<Intake>>>,
    pub addresses: Vec<SocketAddr>,
    pub told: Arc<ArcSwap<http::Told>>,
    pub reports: Arc<ArcSwap<bounce::Settings>>,
    pub teller: Arc<Teller>,
    pub secure: Option<Arc<http::Secure>>,
    pub token: String,
}

/// What is in force.
pub(super) struct Present {
    pub config: Config,
    pub authenticator: Arc<Authenticator>,
    pub lines: Lines,
    pub feedback: Arc<Feedback>,
}

/// See the module.
pub(super) struct Reloader {
    parts: Parts,
    /// One reload after the other.
    present: Mutex<Present>,
}

/// What is made before anything is put in place.
struct Ready {
    config: Config,
    authenticator: Arc<Authenticator>,
    manners: Vec<Manner>,
    lines: Lines,
    esps: crate::flow::setup::Parts,
    admin_token: crate::secret::Secret,
}

impl Reloader {
    pub(super) fn new(parts: Parts, present: Present) -> Arc<Self> {
        Arc::new(Reloader { parts, present: Mutex::new(present) })
    }

    /// Reads, puts in place, and tells the log.
    pub(super) async fn reload(&self) -> Result<Reloaded, NotReloaded> {
        let done = self.replace().await;
        match &done {
            Ok(done) => {
                let keys: Vec<&str> = done.changed.iter().map(|change| change.key.as_str()).collect();
                journal::reloaded(&keys);
                for change in &done.restart {
                    journal::wants_restart(&change.key, &change.what);
                }
                done.warnings.iter().for_each(|w| journal::odd(&format!("{}: {}", w.field, w.message)));
            }
            Err(NotReloaded::Wrong(fields)) => {
                fields.iter().for_each(|f| journal::not_reloaded(&format!("{}: {}", f.field, f.message)));
            }
            Err(NotReloaded::Failed(why)) => journal::not_reloaded(why),
        }
        done
    }

    async fn replace(&self) -> Result<Reloaded, NotReloaded> {
        let mut present = self.present.lock().await;
        let source = Arc::clone(&self.parts.source);
        let read = tokio::task::spawn_blocking(move || source()).await;
        let loaded = read
            .map_err(|e| NotReloaded::Failed(format!("the configuration was not read to its end: {e}")))?
            .map_err(|problems| wrong(&problems))?;
        let mut read = loaded.config;
        files::keep_some_back(&mut read);
        let Changes { config, mut changed, restart } = changes::between(&present.config, read);
        let ready = self.make(&present, config)?;
        self.note_files(&ready, &present.lines, &mut changed);
        let renewed = self.parts.secure.as_ref().and_then(|secure| secure.renewed().zip(Some(secure)));
        if renewed.is_some() {
            changed.push(Change::new("http.tls_cert", AGAIN));
        }
        let mut warnings: Vec<http::FieldProblem> = loaded.warnings.iter().map(told).collect();
        let named = self.parts.store.esps_are_named(esps_named(&ready.config)).await;
        let paused = tell_of_esps(named.map_err(|error| NotReloaded::Failed(error.to_string()))?);
        warnings.extend(paused.map(|paused| http::FieldProblem::new("esp", paused)));
        warnings.extend(unheard(&present.config, &ready.config));
        let of_flow = ["esp.", "stream.", "server."];
        let touched = changed.iter().any(|change| of_flow.iter().any(|at| change.key.starts_with(at)));
        self.put_in_place(&mut present, ready, touched).await?;
        if let Some((renewed, secure)) = renewed {
            secure.takes(renewed);
        }
        Ok(Reloaded { changed, restart, warnings })
    }

    fn make(&self, present: &Present, config: Config) -> Result<Ready, NotReloaded> {
        let authenticator = Arc::new(present.authenticator.with(config.credentials.clone()));
        let shared = shared(&config, &authenticator, &self.parts.budget);
        let manner = |listener: &crate::smtp::ListenerSettings| {
            Manner::new(listener.clone(), shared.clone()).map_err(|error| unfit(&listener.name, &error))
        };
        let manners = config.listeners.iter().map(manner).collect::<Result<Vec<_>, _>>()?;
        let mut lines = Lines::default();
        let esps = setup(&config, &self.parts.store, &present.lines, &mut lines);
        let admin_token = super::admin_token(&config).map_err(|e| NotReloaded::Failed(format!("{e:#}")))?;
        Ok(Ready { config, authenticator, manners, lines, esps, admin_token })
    }

    /// Files that have the name they had and other content.
    fn note_files(&self, ready: &Ready, lines: &Lines, changed: &mut Vec<Change>) {
        for (manner, doorway) in ready.manners.iter().zip(&self.parts.doorways) {
            let (before, settings) = (doorway.certificates(), doorway.settings());
            let now = ready.config.listeners.iter().find(|l| l.name == settings.name);
            if let (Some(before), Some(certificates), Some(now)) = (before, manner.certificates(), now)
                && now.certificate == settings.certificate
                && !before.same_as(certificates)
            {
                changed.push(Change::new(format!("listener.{}.cert", settings.name), AGAIN));
            }
        }
        let other_ca = |name: &&String| lines.ca_differs(&ready.lines, name);
        let names: Vec<&String> = lines.names().filter(other_ca).collect();
        changed.extend(names.iter().map(|name| Change::new(format!("esp.{name}.ca_file"), AGAIN)));
    }

    /// Nothing fails here but before anything has changed. Where courier and intake would go by the same, what is begun
    /// stays begun.
    async fn put_in_place(
        &self,
        present: &mut Present,
        ready: Ready,
        flow_is_touched: bool,
    ) -> Result<(), NotReloaded> {
        let Ready { config, authenticator, manners, lines, esps, admin_token } = ready;
        let parts = &self.parts;
        let rules = content_rules(&config, &parts.token);
        let names = listener_names(&config);
        let feedback = Arc::new(present.feedback.renewed(config.soft, super::hooks(&config)));
        let hooks = Arc::clone(&feedback) as Arc<dyn http::Hooks>;
        let last_calls = feedback.last_calls();
        let told = |intake: Arc<Intake>| http::Told {
            doors: doors_at(&config, &parts.addresses),
            post: Arc::new(http::LivePost(Arc::clone(&intake))),
            proxies: config.http.trusted_proxies.clone(),
            admin_token,
            hooks,
            webhooks: Arc::new(Webhooks {
                courier: Arc::clone(&parts.courier),
                store: parts.store.clone(),
                clock: Arc::clone(&parts.clock),
                intake,
                last_calls,
                settings: webhook_settings(&config),
            }),
        };
        let at_once = |setup: Arc<Setup>| {
            let intake = Arc::new(parts.intake.renewed(rules, &names, setup));
            for (doorway, manner) in parts.doorways.iter().zip(manners) {
                doorway.change(manner, Arc::clone(&intake));
            }
            parts.told.store(Arc::new(told(intake)));
            parts.reports.store(Arc::new(report_settings(&config)));
            parts.budget.change(config.memory_octets);
            parts.store.change_limits(&config.store);
            parts.teller.tell(&config.receivers);
        };
        match flow_is_touched {
            true => {
                let replaced = parts.courier.replace(esps, at_once).await;
                replaced.map_err(|error| NotReloaded::Failed(error.to_string()))?;
            }
            false => at_once(parts.courier.setup()),
        }
        *present = Present { config, authenticator, lines, feedback };
        Ok(())
    }
}

/// What ESPs that were taken out may have had to tell, and tell no more.
fn unheard(before: &Config, now: &Config) -> Vec<http::FieldProblem> {
    let has_one = |esp: &&EspSettings| esp.webhook.is_some();
    let has_gone = |old: &&EspSettings| !now.esps.iter().filter(has_one).any(|esp| esp.name == old.name);
    let warning = |esp: &EspSettings| {
        let what = "its webhook is answered 401 from now on, so what it has yet to tell of mail that it took is not heard; to \
                    hear that, leave its [[esp]] in the file and give it no more mail (postroad esp suspend)";
        http::FieldProblem::new(format!("esp.{}", esp.name), what)
    };
    before.esps.iter().filter(has_one).filter(has_gone).map(warning).collect()
}

/// Every problem of a configuration, as the HTTP side tells it.
fn wrong(problems: &Problems) -> NotReloaded {
    NotReloaded::Wrong(problems.iter().map(told).collect())
}

/// A problem or a warning as the route has it.
fn told(problem: &Problem) -> http::FieldProblem {
    let message = format!("{}: {}", problem.place, problem.what);
    let key = if problem.key.is_empty() { "configuration" } else { &problem.key };
    let (file, line, variable) = match &problem.place {
        Place::File(file) => (Some(file.to_string()), None, None),
        Place::Line { file, line } => (Some(file.to_string()), u64::try_from(*line).ok(), None),
        Place::Variable(name) => (None, None, Some(name.to_string())),
        Place::BuiltIn => (None, None, None),
    };
    let hint = problem.hint().map(str::to_owned);
    http::FieldProblem { file, line, variable, hint, ..http::FieldProblem::new(key, message) }
}

/// A certificate that was good when the file was checked.
fn unfit(listener: &str, error: &BindError) -> NotReloaded {
    NotReloaded::Wrong(vec![http::FieldProblem::new(format!("listener.{listener}.cert"), error.to_string())])
}

/// The route's way in. Apart from the request: a client that hangs up does not stop half-way what is being put in place.
pub(super) struct ByHttp(pub(super) Arc<Reloader>);

impl http::Reload for ByHttp {
    fn reload(&self) -> BoxFuture<'_, Result<Reloaded, NotReloaded>> {
        let reloader = Arc::clone(&self.0);
        let task = tokio::spawn(async move { reloader.reload().await });
        let ended = |_| NotReloaded::Failed("a fault in Postroad; its log says more".into());
        async move { task.await.unwrap_or_else(|error| Err(ended(error))) }.boxed()
    }
}
