//! SMTP towards an upstream: one exchange is one transaction, on a connection from the pool or a new one.
//!
//! Promise: `Lost { handed_over: false }` means that the last octets of the content were never written, so the message
//! cannot have arrived. The flag is set before the write that holds them, and that write holds no command.

mod auth;
mod bearer;
mod certificate;
mod connect;
mod content;
mod dialogue;
mod ehlo;
mod endpoint;
mod line;
mod login;
mod pool;
mod reply;
mod settings;
mod standing;
mod steps;
mod stuffing;
#[cfg(test)]
mod tests;
mod tls;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

pub use settings::{Login, Proof, Settings, Tls};
pub use tokens::Tokens;

use super::{CHECK, CHECK_FOR_PEOPLE, Checked, Chunks, Step, Wire};
use crate::mail::{Abort, Answer, Phase, Reply, Request, SmtpRequest, Watch};
use connect::{Connection, Failure, Means, lost};
use dialogue::Halt;
use line::Broken;
use login::Way;
use pool::Pool;
use standing::Standing;
use steps::Steps;

/// One SMTP upstream.
#[derive(Debug)]
pub struct SmtpWire {
    settings: Settings,
    chunks: Arc<dyn Chunks>,
    means: Means,
    pool: Arc<Pool>,
}

impl SmtpWire {
    /// A wire to that upstream. Nothing is opened or loaded before the first exchange.
    pub fn new(mut settings: Settings, chunks: Arc<dyn Chunks>) -> Self {
        // The configuration has checked it; a command is never made of more than was meant.
        settings.helo.retain(|c| c.is_ascii_graphic());
        let pool = Pool::new(&settings);
        let (login, standing) = (Way::of(settings.login.as_ref(), &settings.kin), Standing::default());
        let means = Means { tls: tls::Connector::default(), login, standing };
        SmtpWire { settings, chunks, means, pool }
    }

    async fn transact(&self, request: SmtpRequest, watch: &Watch) -> Reply {
        let mut pooled = self.pool.take();
        loop {
            let reused = pooled.is_some();
            let mut phase = Phase::Connect;
            let ready = tokio::select! {
                biased;
                () = watch.asked() => {
                    let said = format!("given up by the relay, nothing moved for {:.1?}", watch.still_for());
                    Err(Halt::Ended(lost(phase, &said)))
                }
                ready = self.until_hand_over(pooled.take(), &request, watch, &mut phase) => ready,
            };
            match ready {
                Ok((connection, recipients)) => {
                    let reports = dialogue::passed_on(&request, &connection.offered).is_some();
                    // The answer may be long in coming, and needs none of it.
                    drop(request);
                    return self.hand_over(connection, recipients, reports, watch).await;
                }
                Err(Halt::Ended(reply)) => return reply,
                // A new connection is not stale; should it say so, that is its answer.
                Err(Halt::Stale(said)) if !reused => return lost(phase, &said),
                Err(Halt::Stale(_)) => {}
            }
        }
    }

    /// All that an abort may cut short: afterwards only the last octets are left to write.
    async fn until_hand_over(
        &self,
        pooled: Option<Connection>,
        request: &SmtpRequest,
        watch: &Watch,
        phase: &mut Phase,
    ) -> Result<(Connection, Vec<Answer>), Halt> {
        let mut connection = match pooled {
            Some(mut connection) => {
                connection.line.watch = watch.clone();
                connection
            }
            None => {
                match connect::open(&self.settings, &self.means, watch, phase, &mut Steps::silent()).await {
                    Ok(connection) => connection,
                    Err(failure) => {
                        if let Failure::Broken(Broken::Lack(what)) = &failure {
                            watch.lacks(what);
                        }
                        return Err(Halt::Ended(failure.into_reply(*phase)));
                    }
                }
            }
        };
        match dialogue::envelope(&mut connection, request, phase).await {
            Ok(recipients) => {
                let chunks = &*self.chunks;
                content::all_but_last(&mut connection, &request.body, chunks, &recipients).await?;
                Ok((connection, recipients))
            }
            Err(halt) => {
                self.pool.put(connection);
                Err(halt)
            }
        }
    }

    async fn checked(&self, within: Duration) -> Checked {
        let (mut phase, mut steps) = (Phase::Connect, Steps::kept());
        let met = self.check_within(within, &mut phase, &mut steps).await;
        let blot = self.means.login.blot();
        let met = met.map_err(|met| blot.out(&met).into_owned());
        let blotted = |step: Step| Step { told: blot.out(&step.told).into_owned(), ..step };
        let steps = steps.end(met.as_ref().err().map(String::as_str)).into_iter().map(blotted).collect();
        Checked { steps, met, in_part: false }
    }

    async fn check_within(
        &self,
        within: Duration,
        phase: &mut Phase,
        steps: &mut Steps,
    ) -> Result<(), String> {
        let watch = Watch::new(Abort::default());
        match timeout(within, connect::open(&self.settings, &self.means, &watch, phase, steps)).await {
            Ok(Ok(connection)) => {
                pool::goodbye(connection).await;
                Ok(())
            }
            // As a call would tell it: it stands where the words of a call stood.
            Ok(Err(Failure::Refused(answer))) => Err(answer.to_string()),
            Ok(Err(Failure::Broken(broken))) => Err(format!("lost at {}: {broken}", phase.word())),
            Err(_) => Err(format!("no answer at {} for {} s", phase.word(), within.as_secs())),
        }
    }

    async fn hand_over(
        &self,
        mut connection: Connection,
        recipients: Vec<Answer>,
        reports: bool,
        watch: &Watch,
    ) -> Reply {
        watch.hand_over_to(&recipients);
        let within = watch.listens_for(self.settings.data_timeout);
        let reply = content::hand_over(&mut connection, recipients, reports, within).await;
        self.pool.put(connection);
        reply
    }
}

impl Wire for SmtpWire {
    fn exchange<'a>(&'a self, request: Request, watch: &'a Watch) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            match request {
                Request::Smtp(request) => {
                    let reply = self.transact(request, watch).await;
                    // The server's words are kept and shown; the secrets in them are not.
                    let blot = self.means.login.blot();
                    reply.with_words(|said| blot.out(said))
                }
                Request::Http(_) | Request::Ses(_) | Request::Keep => {
                    lost(Phase::Connect, &"this is an SMTP line")
                }
            }
        })
    }

    fn answers_within(&self, _: &Request) -> Duration {
        self.settings.data_timeout
    }

    fn check(&self) -> BoxFuture<'_, Checked> {
        Box::pin(self.checked(CHECK))
    }

    fn check_all(&self) -> BoxFuture<'_, Checked> {
        Box::pin(self.checked(self.settings.timeout.clamp(CHECK, CHECK_FOR_PEOPLE)))
    }

    fn standing(&self) -> usize {
        self.means.standing.number()
    }

    fn let_one_go(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(mut connection) = self.pool.take() {
                // It never had the place of one.
                connection.place.let_in = false;
                pool::goodbye(connection).await;
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.pool.close())
    }
}
