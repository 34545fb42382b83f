//! Passwords: who a client is, checked in constant time, slowed and limited where it guesses.
//!
//! An unknown user and a wrong password get the same answer at the same time: every failure is answered at a moment
//! that was fixed when the check began. A password that an argon2 hash confirmed is remembered for ten minutes under a
//! key of this boot, never as itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac, rand};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::hashes::Hashes;
use super::{Credential, Password};
use crate::clock::monotonic;
use crate::mail::{StreamName, Terms};
use crate::secret::Secret;

/// How long a check may wait for others; past it the answer is "try again".
const TURN_WAIT_MAX: Duration = Duration::from_secs(20);
/// How long a confirmed password is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many are remembered.
const REMEMBERED_MAX: usize = 4096;
/// What the first failure waits; each further one twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(250);
/// What a failure waits at most.
const LAST_DELAY: Duration = Duration::from_secs(8);
/// Failures of one address within [`FAILURE_WINDOW`] after which nothing more is checked for it.
const FAILURES_MAX: u32 = 30;
/// A failure counts for so long after the last one.
const FAILURE_WINDOW: Duration = Duration::from_secs(600);
/// Addresses whose failures are counted; past it the one that failed longest ago is forgotten.
const ADDRESSES_MAX: usize = 10_000;

/// A client that is who it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Its user name.
    pub username: String,
    /// The stream that its credential binds.
    pub stream: Option<StreamName>,
    /// The one ESP that may carry its mail.
    pub esp: Option<String>,
    /// What its credential binds it to.
    pub terms: Arc<Terms>,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Unknown user or wrong password.
    Wrong,
    /// Too many failures from this address.
    Limited,
    /// It could not be checked.
    Undecided,
}

impl Denied {
    /// The word in logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Denied::Wrong => "wrong",
            Denied::Limited => "limited",
            Denied::Undecided => "undecided",
        }
    }
}

/// Checks passwords for all listeners.
#[derive(Debug)]
pub struct Authenticator {
    credentials: Vec<Credential>,
    memory: Arc<Memory>,
}

/// What outlasts a reload.
#[derive(Debug)]
struct Memory {
    failures: Mutex<HashMap<FailureKey, Failures>>,
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    key: hmac::Key,
    hashes: Hashes,
    /// Rung when a check is over.
    over: Notify,
}

/// Whose failures are counted together: an address (of IPv6 the /64, of which one client has all). On loopback, where
/// one app must not shut out the others, address and user.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FailureKey(IpAddr, Option<String>);

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    /// Checks that may yet fail.
    under_way: u32,
    last: Instant,
}

/// A check that may yet fail: until it is over no more of them run than failures are left to its address, so that
/// guesses side by side are no more than guesses one by one.
struct UnderWay<'a> {
    memory: &'a Memory,
    key: FailureKey,
    /// Failures before it, and checks that were under way.
    before: u32,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut failures = lock(&self.memory.failures);
        if let Some(f) = failures.get_mut(&self.key) {
            f.under_way = f.under_way.saturating_sub(1);
            if f.count == 0 && f.under_way == 0 {
                failures.remove(&self.key);
            }
        }
        drop(failures);
        self.memory.over.notify_waiters();
    }
}

impl Authenticator {
    /// One for these credentials. `None` when the system gives no random key.
    pub fn new(credentials: Vec<Credential>) -> Option<Self> {
        let mut key = [0u8; 32];
        rand::fill(&mut key).ok()?;
        let memory = Memory {
            failures: Mutex::default(),
            remembered: Mutex::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            hashes: Hashes::new(),
            over: Notify::new(),
        };
        Some(Authenticator { credentials, memory: Arc::new(memory) })
    }

    /// One for other credentials, after a reload. Failures stay counted; what was remembered holds only for the hash
    /// that confirmed it.
    pub fn with(&self, credentials: Vec<Credential>) -> Self {
        Authenticator { credentials, memory: Arc::clone(&self.memory) }
    }

    /// Whether there is anybody who could authenticate.
    pub fn is_empty(&self) -> bool {
        self.credentials.is_empty()
    }

    /// Checks a password. A failure is answered late, the later the more there were.
    pub async fn check(&self, peer: IpAddr, username: &str, password: &Secret) -> Result<Granted, Denied> {
        let began = monotonic();
        let key = FailureKey::of(peer, username);
        let under_way = match timeout(TURN_WAIT_MAX, self.enter(key)).await {
            Ok(Some(under_way)) => under_way,
            Ok(None) => {
                tokio::time::sleep_until(began + LAST_DELAY).await;
                return Err(Denied::Limited);
            }
            Err(_) => return Err(Denied::Undecided),
        };
        match timeout(TURN_WAIT_MAX, self.verify(username, password)).await {
            Ok(Ok(Some(granted))) => {
                self.forgive(&under_way.key);
                Ok(granted)
            }
            Ok(Ok(None)) => {
                self.count_failure(&under_way.key, began);
                let before = under_way.before;
                drop(under_way);
                tokio::time::sleep_until(began + delay(before)).await;
                Err(Denied::Wrong)
            }
            Ok(Err(denied)) => Err(denied),
            Err(_) => Err(Denied::Undecided),
        }
    }

    /// Waits until one more check may run for that address; `None`: it has failed too often.
    async fn enter(&self, key: FailureKey) -> Option<UnderWay<'_>> {
        loop {
            let mut over = pin!(self.memory.over.notified());
            over.as_mut().enable();
            match self.try_enter(&key, monotonic()) {
                Entrance::Open(before) => return Some(UnderWay { memory: &self.memory, key, before }),
                Entrance::Shut => return None,
                Entrance::Busy => over.await,
            }
        }
    }

    fn try_enter(&self, key: &FailureKey, now: Instant) -> Entrance {
        let mut failures = lock(&self.memory.failures);
        let entry = entry_of(&mut failures, key, now);
        let before = entry.count.saturating_add(entry.under_way);
        if entry.count >= FAILURES_MAX {
            return Entrance::Shut;
        }
        if before >= FAILURES_MAX {
            return Entrance::Busy;
        }
        entry.under_way += 1;
        Entrance::Open(before)
    }

    async fn verify(&self, username: &str, password: &Secret) -> Result<Option<Granted>, Denied> {
        let credentials = &self.credentials;
        let credential = credentials.iter().find(|c| c.username == username);
        let confirmed = match credential.map(|c| &c.password) {
            Some(Password::Plain(secret)) => secret.matches(password.expose().as_bytes()),
            Some(Password::Hash(hash)) => self.verify_hash(username, hash, password).await?,
            None => {
                // An unknown user costs what a known one costs, where hashes are in use.
                let any = credentials.iter().find_map(|c| match &c.password {
                    Password::Hash(hash) => Some(hash),
                    Password::Plain(_) => None,
                });
                if let Some(hash) = any {
                    let _ = self.argon2(hash.clone(), password.clone()).await?;
                }
                false
            }
        };
        let granted = |c: &Credential| Granted {
            username: c.username.clone(),
            stream: c.stream.clone(),
            esp: c.esp.clone(),
            terms: Arc::clone(&c.terms),
        };
        Ok(credential.filter(|_| confirmed).map(granted))
    }

    async fn verify_hash(&self, username: &str, hash: &Secret, password: &Secret) -> Result<bool, Denied> {
        let tag = self.tag(&[username, hash.expose(), password.expose()]);
        if self.is_remembered(&tag) {
            return Ok(true);
        }
        let confirmed = self.argon2(hash.clone(), password.clone()).await?;
        if confirmed {
            self.remember(tag);
        }
        Ok(confirmed)
    }

    async fn argon2(&self, hash: Secret, password: Secret) -> Result<bool, Denied> {
        self.memory.hashes.verify(hash, password).await.ok_or(Denied::Undecided)
    }

    fn tag(&self, parts: &[&str]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.memory.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn is_remembered(&self, tag: &[u8; 32]) -> bool {
        let now = monotonic();
        lock(&self.memory.remembered).get_key_value(tag).is_some_and(|(known, until)| {
            constant_time::verify_slices_are_equal(known, tag).is_ok() && now < *until
        })
    }

    fn remember(&self, tag: [u8; 32]) {
        let now = monotonic();
        let mut remembered = lock(&self.memory.remembered);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, until| now < *until);
        }
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(tag, now + REMEMBERED);
    }

    fn forgive(&self, key: &FailureKey) {
        if let Some(failures) = lock(&self.memory.failures).get_mut(key) {
            failures.count = 0;
        }
    }

    fn count_failure(&self, key: &FailureKey, now: Instant) {
        let mut failures = lock(&self.memory.failures);
        let entry = entry_of(&mut failures, key, now);
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
    }
}

/// Whether one more check may run.
enum Entrance {
    /// After so many failures and beside so many checks.
    Open(u32),
    /// Others must be over first.
    Busy,
    /// There were too many failures.
    Shut,
}

/// What is counted under that key; the table stays bounded.
fn entry_of<'f>(
    failures: &'f mut HashMap<FailureKey, Failures>,
    key: &FailureKey,
    now: Instant,
) -> &'f mut Failures {
    if failures.len() >= ADDRESSES_MAX && !failures.contains_key(key) {
        failures.retain(|_, f| f.under_way > 0 || now < f.last + FAILURE_WINDOW);
    }
    if failures.len() >= ADDRESSES_MAX && !failures.contains_key(key) {
        let oldest = failures.iter().min_by_key(|(_, f)| f.last).map(|(k, _)| k.clone());
        oldest.map(|k| failures.remove(&k));
    }
    let entry = failures.entry(key.clone()).or_insert(Failures { count: 0, under_way: 0, last: now });
    if now >= entry.last + FAILURE_WINDOW {
        entry.count = 0;
    }
    entry
}

impl FailureKey {
    fn of(peer: IpAddr, username: &str) -> Self {
        if peer.is_loopback() {
            return FailureKey(peer, Some(username.chars().take(64).collect()));
        }
        let address = match peer {
            IpAddr::V4(_) => peer,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        };
        FailureKey(address, None)
    }
}

/// What the next failure waits after so many.
fn delay(failures_before: u32) -> Duration {
    FIRST_DELAY.saturating_mul(1 << failures_before.min(10)).min(LAST_DELAY)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::{Argon2, PasswordHasher};

    fn hashed(password: &str) -> Password {
        let params = argon2::Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        Password::Hash(Secret::new(argon2.hash_password(password.as_bytes()).unwrap().to_string()))
    }

    fn credential(username: &str, password: Password) -> Credential {
        Credential {
            username: username.into(),
            password,
            stream: Some(StreamName::new("newsletter")),
            esp: None,
            terms: Arc::default(),
        }
    }

    fn authenticator() -> Authenticator {
        Authenticator::new(vec![
            credential("shop", Password::Plain(Secret::new("pw"))),
            credential("hash", hashed("pw2")),
        ])
        .unwrap()
    }

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn plain_and_hashed_passwords_are_checked() {
        let a = authenticator();
        let peer = ip("192.0.2.1");
        for (user, password, good) in [
            ("shop", "pw", true),
            ("hash", "pw2", true),
            ("shop", "pw2", false),
            ("hash", "pw", false),
            ("", "", false),
        ] {
            assert_eq!(a.check(peer, user, &Secret::new(password)).await.is_ok(), good, "{user} {password}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_confirmed_hash_is_remembered_for_that_hash_alone() {
        let a = authenticator();
        a.check(ip("::1"), "hash", &Secret::new("pw2")).await.unwrap();
        assert_eq!(lock(&a.memory.remembered).len(), 1);
        a.check(ip("::1"), "hash", &Secret::new("pw2")).await.unwrap();
        let a = a.with(vec![credential("hash", hashed("other"))]);
        assert_eq!(a.check(ip("::1"), "hash", &Secret::new("pw2")).await, Err(Denied::Wrong));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer_alike_for_known_and_unknown_users() {
        for user in ["shop", "nobody"] {
            let a = authenticator();
            let mut waits = Vec::new();
            for _ in 0..6 {
                let began = monotonic();
                assert_eq!(a.check(ip("192.0.2.1"), user, &Secret::new("no")).await, Err(Denied::Wrong));
                waits.push((monotonic() - began).as_millis());
            }
            // tokio's timers are exact to the millisecond.
            for (wait, expected) in waits.iter().zip([250, 500, 1000, 2000, 4000, 8000]) {
                assert!((expected..expected + 5).contains(wait), "{waits:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_is_shut_out_for_a_while() {
        let a = authenticator();
        let peer = ip("2001:db8::1");
        for _ in 0..FAILURES_MAX {
            let _ = a.check(peer, "shop", &Secret::new("no")).await;
        }
        let neighbour = ip("2001:db8::2");
        assert_eq!(a.check(neighbour, "shop", &Secret::new("pw")).await, Err(Denied::Limited));
        assert!(a.check(ip("2001:db8:0:1::2"), "shop", &Secret::new("pw")).await.is_ok());
        tokio::time::advance(FAILURE_WINDOW).await;
        assert!(a.check(peer, "shop", &Secret::new("pw")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_side_by_side_are_no_more_than_one_by_one() {
        for user in ["hash", "shop", "nobody"] {
            let a = authenticator();
            let guess = Secret::new("no");
            let guesses = (0..200).map(|_| a.check(ip("192.0.2.1"), user, &guess));
            let answers = futures_util::future::join_all(guesses).await;
            let checked = answers.iter().filter(|r| **r == Err(Denied::Wrong)).count();
            assert_eq!(checked, usize::try_from(FAILURES_MAX).unwrap(), "{user}");
            assert!(answers.iter().all(|r| matches!(r, Err(Denied::Wrong | Denied::Limited))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn right_passwords_side_by_side_are_all_let_in() {
        let a = authenticator();
        let right = Secret::new("pw2");
        let logins = (0..200).map(|_| a.check(ip("192.0.2.1"), "hash", &right));
        let answers = futures_util::future::join_all(logins).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert!(lock(&a.memory.failures).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn on_loopback_guesses_shut_out_their_user_name_alone() {
        let a = authenticator();
        for _ in 0..FAILURES_MAX {
            let _ = a.check(ip("127.0.0.1"), "shop", &Secret::new("no")).await;
        }
        assert_eq!(a.check(ip("127.0.0.1"), "shop", &Secret::new("pw")).await, Err(Denied::Limited));
        assert!(a.check(ip("127.0.0.1"), "hash", &Secret::new("pw2")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_tables_are_bounded() {
        let a = authenticator();
        for i in 0..u32::try_from(ADDRESSES_MAX).unwrap() + 10 {
            a.count_failure(&FailureKey::of(IpAddr::V4(i.into()), ""), monotonic());
        }
        assert_eq!(lock(&a.memory.failures).len(), ADDRESSES_MAX);
        for i in 0..=REMEMBERED_MAX {
            let mut tag = [0; 32];
            tag[..8].copy_from_slice(&i.to_be_bytes());
            a.remember(tag);
        }
        assert!(lock(&a.memory.remembered).len() <= REMEMBERED_MAX);
    }

    #[test]
    fn debug_shows_no_password() {
        let shown = format!("{:?}", authenticator());
        assert!(!shown.contains("pw") && !shown.contains("argon2id"), "{shown}");
    }
}
