//! Stand-ins for the ESPs: they judge requests as the ESP does, keep what they take, and fail where they are told to.
//!
//! Each has two doors, HTTP and SMTP, and one set of books for both. They are built from what the vendors publish. Words
//! that the vendors' pages quote are theirs; where no page tells the words, the stand-in's own say what is wrong. Where
//! the pages leave a limit open, the stand-in takes the stricter reading.
//!
//! ```text
//! let sendgrid = Sendgrid::start();                       // sendgrid.url(), sendgrid.key()
//! sendgrid.fail(Fault::Answer(sendgrid::credits_spent()), 1);
//! let taken = sendgrid.wait_for(1);                       // taken[0].to, .json, .attempt
//! ```

#![allow(dead_code, unused_imports, reason = "what one test does not use, another does")]

pub mod address;
pub mod faults;
pub mod http;
pub mod postmark;
pub mod postmark_hooks;
pub mod sendgrid;
pub mod sendgrid_hooks;
pub mod ses;
pub mod ses_destinations;
pub mod sigv4;
pub mod smtp;
pub mod taken;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use faults::{Fault, Where};
pub use http::{Request, Response, Seen};
pub use postmark::Postmark;
pub use sendgrid::Sendgrid;
pub use ses::Ses;
pub use taken::{Books, Door, Taken};

use http::{Desk, Server};
use smtp::SmtpDesk;

use crate::support::upstream::{self, Upstream};

/// How long `wait_for` waits.
const WAIT: Duration = Duration::from_secs(30);

/// What one ESP knows: the desks behind both of its doors.
pub trait Vendor: Desk + SmtpDesk + Sized {
    /// As a person says it.
    const NAME: &'static str;

    /// The secret that opens its doors.
    fn key(&self) -> &str;

    /// The ESP's own refusals, one a row of its error table, by a name to type.
    fn errors() -> Vec<(&'static str, Response)>;
}

/// How a stand-in starts.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The port of the HTTP door; a free one without.
    pub port: Option<u16>,
    /// Whether the HTTP door speaks TLS, with the certificate of the test run.
    pub tls: bool,
    /// The port of the SMTP door; a free one without.
    pub smtp_port: Option<u16>,
    pub smtp_tls: upstream::Tls,
}

/// A running stand-in of one ESP.
pub struct Standin<V: Vendor> {
    server: Server,
    smtp: Upstream,
    books: Arc<Books>,
    pub vendor: Arc<V>,
}

impl<V: Vendor> Standin<V> {
    /// One with this desk, which has the same books.
    pub fn open(vendor: V, books: Arc<Books>, start: &Start) -> std::io::Result<Self> {
        let vendor = Arc::new(vendor);
        let server = Server::start(vendor.clone(), books.clone(), start.port, start.tls)?;
        let smtp = smtp::open(&vendor, start);
        Ok(Standin { server, smtp, books, vendor })
    }

    /// The SMTP door. What it takes is in the books as well; faults are told to it.
    pub fn smtp(&self) -> &Upstream {
        &self.smtp
    }

    pub fn smtp_mut(&mut self) -> &mut Upstream {
        &mut self.smtp
    }

    /// Who may submit at the SMTP door: user and password.
    pub fn smtp_login(&self) -> (String, String) {
        self.vendor.login()
    }

    /// The next `times` sessions or mails go wrong with one of the vendor's own replies, by its name.
    #[track_caller]
    pub fn fail_smtp(&self, name: &str, times: usize) {
        let row = V::replies().into_iter().find(|(known, ..)| *known == name);
        let Some((_, point, reply)) = row else { panic!("{} has no reply {name}", V::NAME) };
        self.smtp.fail(point, upstream::Fault::Reply(reply), times);
    }

    /// Of the HTTP door, without a slash at its end.
    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn key(&self) -> &str {
        self.vendor.key()
    }

    /// Connections, idle time, requests seen, shut and reopen.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// What it has taken, in order, also what it never answered for.
    pub fn accepted(&self) -> Vec<Taken> {
        self.books.accepted()
    }

    pub fn count(&self) -> usize {
        self.books.count()
    }

    /// Everybody who got a copy, one entry a copy, sorted.
    pub fn copies(&self) -> Vec<String> {
        let mut all: Vec<String> = self.accepted().into_iter().flat_map(|t| t.to).collect();
        all.sort();
        all
    }

    /// Waits for `n` messages in all.
    #[track_caller]
    pub fn wait_for(&self, n: usize) -> Vec<Taken> {
        self.wait_for_within(n, WAIT)
    }

    #[track_caller]
    pub fn wait_for_within(&self, n: usize, bound: Duration) -> Vec<Taken> {
        self.books.wait_for(V::NAME, n, bound)
    }

    /// Waits for `n` send requests in all, taken or not, also those that a fault ended in their body.
    #[track_caller]
    pub fn wait_for_sends(&self, n: usize) {
        let what = format!("{n} send requests at {}", V::NAME);
        crate::support::wait_until(&what, WAIT, || self.server.sends_begun() >= n);
    }

    /// Every request that was read whole.
    pub fn requests(&self) -> Vec<Seen> {
        self.server.seen()
    }

    /// The next `times` send requests go wrong.
    pub fn fail(&self, fault: Fault, times: usize) -> &Self {
        self.server.rules().add(Where::Sends, fault, times);
        self
    }

    /// Each send request goes wrong, until `heal`.
    pub fn fail_always(&self, fault: Fault) -> &Self {
        self.fail(fault, usize::MAX)
    }

    /// The next `times` requests that hand over no mail go wrong.
    pub fn fail_reads(&self, fault: Fault, times: usize) -> &Self {
        self.server.rules().add(Where::Reads, fault, times);
        self
    }

    /// All is well again, at both doors.
    pub fn heal(&self) {
        self.server.rules().clear();
        self.smtp.heal();
    }

    /// The ESP mails this address no more.
    pub fn suppress(&self, address: &str) {
        self.books.suppress(address);
    }

    pub fn unsuppress(&self, address: &str) {
        self.books.unsuppress(address);
    }

    /// From now on these domains and addresses alone may send.
    pub fn only_senders(&self, domains_and_addresses: &[&str]) {
        self.books.only_senders(domains_and_addresses);
    }

    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Both doors refuse connections until `reopen`.
    pub fn shut(&mut self) {
        self.server.shut();
        self.smtp.shut();
    }

    pub fn reopen(&mut self) {
        self.server.reopen();
        self.smtp.reopen_if_down();
    }
}
