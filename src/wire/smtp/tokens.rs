//! Access tokens for one grant: one is at hand for all connections, renewed a little before it ends, by one request
//! at a time. The request goes on when nobody waits for it any more: what is in its answer may come only once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::{Instant, timeout};

use crate::clock::monotonic;
use crate::mail::{Answer, Grant, GrantKind};
use crate::secret::{Blot, Secret, form_encoded};

/// A token that ends in less is renewed first: opening the line to log in on takes its time. Of a short life: a fifth.
const MARGIN: Duration = Duration::from_secs(60);
/// Of a token that comes without its life. Too short costs a request, too long a refused log-in, which renews it.
const LIFE_DEFAULT: Duration = Duration::from_secs(300);
/// A longer life is not relied on.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Token endpoints answer within a second. One that was lost must not keep those waiting who come after it recovered.
const ANSWER: Duration = Duration::from_secs(10);
/// Secrets that were given out, and are still known for what they are in somebody's words. A connection is older than
/// its token seldom, and never by so much.
const KNOWN: usize = 6;

/// Where tokens are asked for.
pub(super) trait Endpoint: Send + Sync + std::fmt::Debug {
    /// Sends this form, and brings what came of it, within that time.
    fn ask(&self, form: Secret, within: Duration) -> BoxFuture<'static, Result<Granted, Denied>>;
}

/// A token endpoint's yes.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub access_token: Secret,
    /// Its life, where that was told.
    pub life: Option<Duration>,
    /// Instead of the one that was shown.
    pub refresh_token: Option<Secret>,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denied {
    /// The endpoint said no; the code is an HTTP status.
    Said(Answer),
    /// No answer, or none that can be understood.
    Lost(String),
}

/// A token to log in with.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub token: Secret,
    /// When it ends.
    pub ends: Instant,
    /// From then on another one is asked for.
    renew_at: Instant,
    number: u64,
}

type Renewal = Shared<BoxFuture<'static, Result<Held, Denied>>>;

/// The tokens of one grant. All who have the grant share them: a refresh token that is exchanged for the next one cannot
/// be shown twice.
#[derive(Debug)]
pub struct Tokens {
    grant: Grant,
    state: Mutex<State>,
}

struct State {
    held: Option<Held>,
    /// Tokens so far.
    given: u64,
    /// The one that came last, instead of the grant's.
    refresh_token: Option<Secret>,
    renewal: Option<Renewal>,
    known: VecDeque<Secret>,
    blot: Arc<Blot>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("held", &self.held).field("given", &self.given).finish_non_exhaustive()
    }
}

impl PartialEq for Tokens {
    fn eq(&self, other: &Self) -> bool {
        self.grant == other.grant
    }
}

impl Tokens {
    /// None yet: the first who needs one asks for it.
    pub fn new(grant: Grant) -> Self {
        let blot = Arc::new(Blot::of_all(grant.secrets()));
        let state = State {
            held: None,
            given: 0,
            refresh_token: None,
            renewal: None,
            known: VecDeque::with_capacity(KNOWN),
            blot,
        };
        Tokens { grant, state: Mutex::new(state) }
    }

    /// For `grant`, with what `known` have heard: where only a secret or the scope was changed in the configuration, the
    /// refresh token that came last is still the one that is good.
    pub fn after(grant: Grant, known: &[Arc<Tokens>]) -> Self {
        let tokens = Tokens::new(grant);
        let same = |other: &Grant| {
            other.token_url == tokens.grant.token_url
                && other.client_id == tokens.grant.client_id
                && other.kind.refresh_token() == tokens.grant.kind.refresh_token()
        };
        let latest = known
            .iter()
            .rev()
            .filter(|known| same(&known.grant))
            .find_map(|known| known.state().refresh_token.clone());
        if let Some(latest) = latest {
            let mut state = tokens.state();
            state.blot = Arc::new(Blot::of_all(tokens.grant.secrets().chain([&latest])));
            state.known.push_back(latest.clone());
            state.refresh_token = Some(latest);
        }
        tokens
    }

    /// What they are given for.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether it has a refresh token that no configuration holds.
    pub fn is_rotated(&self) -> bool {
        self.state().refresh_token.is_some()
    }

    /// Blots out every secret of this grant.
    pub(super) fn blot(&self) -> Arc<Blot> {
        Arc::clone(&self.state().blot)
    }

    /// A token that is good for a while; at most `within` is waited for it.
    pub(super) async fn token(
        self: &Arc<Self>,
        endpoint: &dyn Endpoint,
        within: Duration,
    ) -> Result<Held, Denied> {
        let renewal = match self.at_hand(endpoint, within) {
            Ok(held) => return Ok(held),
            Err(renewal) => renewal,
        };
        match timeout(within, renewal).await {
            Ok(renewed) => renewed,
            Err(_) => Err(Denied::Lost(format!("no answer from the token endpoint for {within:?}"))),
        }
    }

    /// The server refused it: it is not at hand any more.
    pub(super) fn refused(&self, token: &Held) {
        self.state().held.take_if(|held| held.number == token.number);
    }

    /// The token at hand, or the renewal that is under way.
    fn at_hand(self: &Arc<Self>, endpoint: &dyn Endpoint, within: Duration) -> Result<Held, Renewal> {
        let mut state = self.state();
        if let Some(held) = state.held.as_ref().filter(|held| monotonic() < held.renew_at) {
            return Ok(held.clone());
        }
        if let Some(under_way) = state.renewal.as_ref().filter(|renewal| renewal.peek().is_none()) {
            return Err(under_way.clone());
        }
        let asked = endpoint.ask(self.form(&state), within.min(ANSWER));
        let renewal = Arc::clone(self).renew(asked);
        state.renewal = Some(renewal.clone());
        Err(renewal)
    }

    fn renew(self: Arc<Self>, asked: BoxFuture<'static, Result<Granted, Denied>>) -> Renewal {
        let asked_at = monotonic();
        let task = tokio::spawn(async move {
            let met = asked.await.map(|granted| self.take_in(granted, asked_at));
            // Whoever comes now is not told what those before waited for.
            self.state().renewal = None;
            met
        });
        let ended = || Err(Denied::Lost("the request for a token was ended".into()));
        task.map(move |done| done.unwrap_or_else(|_| ended())).boxed().shared()
    }

    fn take_in(&self, granted: Granted, asked_at: Instant) -> Held {
        let life = granted.life.unwrap_or(LIFE_DEFAULT).min(LIFE_MAX);
        let mut state = self.state();
        state.given += 1;
        let held = Held {
            token: granted.access_token,
            ends: asked_at + life,
            renew_at: asked_at + (life - MARGIN.min(life / 5)),
            number: state.given,
        };
        let rotates = matches!(self.grant.kind, GrantKind::RefreshToken { .. });
        let rotated = granted.refresh_token.filter(|_| rotates);
        for secret in rotated.iter().chain([&held.token]).cloned().collect::<Vec<_>>() {
            state.known.retain(|known| *known != secret);
            state.known.push_back(secret);
        }
        while state.known.len() > KNOWN {
            state.known.pop_front();
        }
        state.blot = Arc::new(Blot::of_all(self.grant.secrets().chain(&state.known)));
        if rotated.is_some() {
            state.refresh_token = rotated;
        }
        state.held = Some(held.clone());
        held
    }

    /// What is asked, in the form of RFC 6749 sections 4.4.2 and 6; the client's secret goes with it (section 2.3.1).
    fn form(&self, state: &State) -> Secret {
        let Grant { client_id, scope, kind, .. } = &self.grant;
        let mut pairs = vec![("client_id", client_id.as_str())];
        match kind {
            GrantKind::ClientCredentials { client_secret } => {
                pairs.push(("grant_type", "client_credentials"));
                pairs.push(("client_secret", client_secret.expose()));
            }
            GrantKind::RefreshToken { refresh_token, client_secret } => {
                let latest = state.refresh_token.as_ref().unwrap_or(refresh_token);
                pairs.push(("grant_type", "refresh_token"));
                pairs.push(("refresh_token", latest.expose()));
                pairs.extend(client_secret.iter().map(|secret| ("client_secret", secret.expose())));
            }
        }
        pairs.extend(scope.iter().map(|scope| ("scope", scope.as_str())));
        let pairs: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{key}={}", form_encoded(value))).collect();
        Secret::new(pairs.join("&"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use tokio::sync::Notify;

    const WITHIN: Duration = Duration::from_secs(30);

    /// Gives what it is told to, each time.
    #[derive(Debug, Default)]
    struct Fake {
        answers: Mutex<VecDeque<Result<Granted, Denied>>>,
        asked: Mutex<Vec<String>>,
        /// Answers wait for it.
        gate: Option<Arc<Notify>>,
    }

    impl Fake {
        fn new(answers: impl IntoIterator<Item = Result<Granted, Denied>>) -> Self {
            Fake { answers: Mutex::new(answers.into_iter().collect()), ..Fake::default() }
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }
    }

    impl Endpoint for Fake {
        fn ask(&self, form: Secret, within: Duration) -> BoxFuture<'static, Result<Granted, Denied>> {
            self.asked.lock().unwrap().push(form.expose().to_owned());
            let answer = self.answers.lock().unwrap().pop_front();
            let gate = self.gate.clone();
            async move {
                if let Some(gate) = gate {
                    let hung = |_| Denied::Lost("hung".into());
                    timeout(within, gate.notified()).await.map_err(hung)?;
                }
                answer.unwrap_or_else(|| Err(Denied::Lost("asked once too often".into())))
            }
            .boxed()
        }
    }

    fn granted(
        token: &str,
        life_seconds: Option<u64>,
        refresh_token: Option<&str>,
    ) -> Result<Granted, Denied> {
        Ok(Granted {
            access_token: Secret::new(token),
            life: life_seconds.map(Duration::from_secs),
            refresh_token: refresh_token.map(Secret::new),
        })
    }

    fn tokens(kind: GrantKind) -> Arc<Tokens> {
        Arc::new(Tokens::new(Grant {
            token_url: "https://login.example/token".into(),
            ca_file: None,
            client_id: "relay one".into(),
            scope: Some("https://mail.example/.default".into()),
            kind,
        }))
    }

    fn client() -> Arc<Tokens> {
        tokens(GrantKind::ClientCredentials { client_secret: Secret::new("s3cret/1") })
    }

    fn refreshing() -> Arc<Tokens> {
        tokens(GrantKind::RefreshToken { refresh_token: Secret::new("refresh-1"), client_secret: None })
    }

    async fn token(tokens: &Arc<Tokens>, fake: &Fake) -> String {
        tokens.token(fake, WITHIN).await.unwrap().token.expose().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn ten_that_need_one_at_once_ask_once() {
        let gate = Arc::new(Notify::new());
        let fake = Fake { gate: Some(Arc::clone(&gate)), ..Fake::new([granted("one", Some(3600), None)]) };
        let tokens = client();
        let all = join_all((0..10).map(|_| token(&tokens, &fake)));
        let (all, ()) = tokio::join!(all, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            gate.notify_one();
        });
        assert_eq!((all, fake.asked().len()), (vec!["one".to_owned(); 10], 1));
        let asked = "client_id=relay+one&grant_type=client_credentials&client_secret=s3cret%2F1\
                     &scope=https%3A%2F%2Fmail.example%2F.default";
        assert_eq!(fake.asked(), [asked]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_is_used_until_shortly_before_its_end() {
        for (life, used_for) in
            [(Some(3600), 3540), (Some(100), 80), (Some(5), 4), (None, 240), (Some(u64::MAX), 86_340)]
        {
            let fake = Fake::new([granted("one", life, None), granted("two", life, None)]);
            let tokens = client();
            assert_eq!(token(&tokens, &fake).await, "one");
            tokio::time::advance(Duration::from_secs(used_for) - Duration::from_millis(1)).await;
            assert_eq!(token(&tokens, &fake).await, "one", "{life:?}");
            tokio::time::advance(Duration::from_millis(2)).await;
            assert_eq!(token(&tokens, &fake).await, "two", "{life:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_refused_is_renewed_by_the_first_who_hears_it() {
        let fake = Fake::new([granted("one", None, None), granted("two", None, None)]);
        let tokens = client();
        let (a, b) = (tokens.token(&fake, WITHIN).await.unwrap(), tokens.token(&fake, WITHIN).await.unwrap());
        tokens.refused(&a);
        assert_eq!(token(&tokens, &fake).await, "two");
        tokens.refused(&b);
        assert_eq!(token(&tokens, &fake).await, "two", "that was about the first");
        assert_eq!(fake.asked().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_token_that_was_exchanged_is_shown_no_more() {
        let answers = [
            granted("one", Some(1), Some("refresh-2")),
            granted("two", Some(1), None),
            granted("three", None, None),
        ];
        let fake = Fake::new(answers);
        let tokens = refreshing();
        assert!(!tokens.is_rotated());
        for expected in ["one", "two", "three"] {
            assert_eq!(token(&tokens, &fake).await, expected);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let shown: Vec<bool> =
            fake.asked().iter().map(|form| form.contains("refresh_token=refresh-2")).collect();
        assert_eq!(shown, [false, true, true]);
        assert!(fake.asked()[0].contains("grant_type=refresh_token&refresh_token=refresh-1&scope="));
        assert!(tokens.is_rotated());
        let said = tokens.blot().out("refresh-1 refresh-2 s h/h").into_owned();
        assert_eq!(said, "*** *** s h/h");

        let other_scope = Grant { scope: None, ..tokens.grant().clone() };
        let fake = Fake::new([granted("four", None, None)]);
        let after = Arc::new(Tokens::after(other_scope.clone(), std::slice::from_ref(&tokens)));
        assert_eq!(token(&after, &fake).await, "four");
        assert!(fake.asked()[0].contains("refresh_token=refresh-2"), "it is still the one that is good");
        let fake = Fake::new([granted("five", None, None)]);
        let other_program = Grant { client_id: "another".into(), ..other_scope };
        let after = Arc::new(Tokens::after(other_program, &[tokens]));
        assert_eq!(token(&after, &fake).await, "five");
        assert!(fake.asked()[0].contains("refresh_token=refresh-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_goes_on_when_nobody_waits_any_more() {
        let gate = Arc::new(Notify::new());
        let fake =
            Fake { gate: Some(Arc::clone(&gate)), ..Fake::new([granted("one", None, Some("refresh-2"))]) };
        let tokens = refreshing();
        let short = Duration::from_secs(1);
        assert!(timeout(short, tokens.token(&fake, WITHIN)).await.is_err(), "given up");
        gate.notify_one();
        assert_eq!(token(&tokens, &fake).await, "one");
        assert!(tokens.is_rotated() && fake.asked().len() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_told_to_all_who_waited_and_asked_again_by_the_next() {
        let no = Denied::Said(Answer { code: 400, enhanced: None, text: "invalid_grant".into() });
        let fake = Fake::new([Err(no.clone()), granted("one", None, None)]);
        let tokens = client();
        let all = join_all((0..3).map(|_| tokens.token(&fake, WITHIN))).await;
        assert!(all.into_iter().all(|met| met.is_err_and(|denied| denied == no)));
        assert_eq!(token(&tokens, &fake).await, "one");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_is_allowed_and_a_lost_request_is_given_up() {
        let fake = Fake { gate: Some(Arc::default()), ..Fake::new([granted("one", None, None)]) };
        let tokens = client();
        let began = monotonic();
        let met = tokens.token(&fake, Duration::from_secs(2)).await;
        assert!(matches!(met, Err(Denied::Lost(_))), "{met:?}");
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        // The request ends at the same instant.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let met = tokens.token(&fake, WITHIN).await;
        assert!(met.is_err_and(|denied| denied == Denied::Lost("hung".into())));
        assert_eq!((began.elapsed(), fake.asked().len()), (Duration::from_millis(12_001), 2));
    }

    #[test]
    fn no_debug_shows_a_secret() {
        let shown = format!("{:?}", client());
        assert!(!shown.contains("s3cret") && shown.contains("***"), "{shown}");
    }
}
