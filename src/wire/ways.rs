//! An ESP with two doors: its API, and its SMTP endpoint. Each request goes by the door that it was made for, and where
//! mail goes by SMTP alone the API is there for errands.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join};

use super::{Checked, Wire};
use crate::mail::{Errand, HttpReply, Reply, Request, Watch};

/// See the module.
#[derive(Debug)]
pub struct Ways {
    /// What stands for the ESP where one way has to: the gate asks it alone.
    pub api: Arc<dyn Wire>,
    /// For what the API cannot carry.
    pub smtp: Arc<dyn Wire>,
}

impl Wire for Ways {
    fn exchange<'a>(&'a self, request: Request, watch: &'a Watch) -> BoxFuture<'a, Reply> {
        match request {
            Request::Smtp(_) => self.smtp.exchange(request, watch),
            Request::Http(_) | Request::Ses(_) | Request::Keep => self.api.exchange(request, watch),
        }
    }

    fn answers_within(&self, request: &Request) -> Duration {
        match request {
            Request::Smtp(_) => self.smtp.answers_within(request),
            Request::Http(_) | Request::Ses(_) | Request::Keep => self.api.answers_within(request),
        }
    }

    fn check(&self) -> BoxFuture<'_, Checked> {
        self.api.check()
    }

    fn check_all(&self) -> BoxFuture<'_, Checked> {
        Box::pin(async move {
            let (api, smtp) = join(self.api.check_all(), self.smtp.check_all()).await;
            let in_part = api.met.is_ok() != smtp.met.is_ok();
            let met = match (api.met, smtp.met) {
                (Ok(()), Ok(())) => Ok(()),
                (Err(why), Ok(())) => Err(format!("its SMTP endpoint works, its API does not: {why}")),
                (Ok(()), Err(why)) => Err(format!(
                    "its API works, its SMTP endpoint, for mail that the API cannot carry, does not: {why}; transport = \
                     \"api\" goes without it"
                )),
                (Err(api), Err(smtp)) => Err(format!("its API: {api}; its SMTP endpoint: {smtp}")),
            };
            let steps = api.steps.into_iter().chain(smtp.steps).collect();
            Checked { steps, met, in_part }
        })
    }

    fn account(&self) -> BoxFuture<'_, Result<HttpReply, String>> {
        self.api.account()
    }

    fn errand(&self, errand: Errand) -> BoxFuture<'_, Result<HttpReply, String>> {
        self.api.errand(errand)
    }

    fn standing(&self) -> usize {
        self.smtp.standing()
    }

    fn let_one_go(&self) -> BoxFuture<'_, ()> {
        self.smtp.let_one_go()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            join(self.api.close(), self.smtp.close()).await;
        })
    }
}

/// `transport = "smtp"`: no mail goes by the API, and it is not asked how it is.
#[derive(Debug)]
pub struct SmtpAlone {
    /// For all mail.
    pub smtp: Arc<dyn Wire>,
    /// For errands.
    pub api: Arc<dyn Wire>,
}

impl Wire for SmtpAlone {
    fn exchange<'a>(&'a self, request: Request, watch: &'a Watch) -> BoxFuture<'a, Reply> {
        self.smtp.exchange(request, watch)
    }

    fn answers_within(&self, request: &Request) -> Duration {
        self.smtp.answers_within(request)
    }

    fn check(&self) -> BoxFuture<'_, Checked> {
        self.smtp.check()
    }

    fn check_all(&self) -> BoxFuture<'_, Checked> {
        self.smtp.check_all()
    }

    fn account(&self) -> BoxFuture<'_, Result<HttpReply, String>> {
        self.smtp.account()
    }

    fn errand(&self, errand: Errand) -> BoxFuture<'_, Result<HttpReply, String>> {
        self.api.errand(errand)
    }

    fn standing(&self) -> usize {
        self.smtp.standing()
    }

    fn let_one_go(&self) -> BoxFuture<'_, ()> {
        self.smtp.let_one_go()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.smtp.close()
    }
}
