//! One call to an ESP: composed for exactly the recipients that were begun, exchanged, read, and judged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::aside::aside;
use super::courier::Courier;
use super::gatehouse::Flying;
use super::late::{Exchange, last_phase};
use super::outlet::{Outlet, Room};
use super::pending::{Passenger, Pending};
use super::setup::Line;
use super::whole::Whole;
use crate::address::Address;
use crate::clock::{Timestamp, monotonic};
use crate::esp::{self, Esp, Parcel};
use crate::journal;
use crate::mail::body::SPILL_OCTETS;
use crate::mail::{AttemptId, Message, Outcome, Phase, QueueState, Reply, Request, Rule, Watch};

/// A stop waits so long for the answer to what is handed over: less than it has in all.
const HEARD_AT_STOP: Duration = Duration::from_secs(9);
/// An answer that has begun to come at the last moment has so long for its end.
const END_OF_ANSWER: Duration = Duration::from_secs(1);
/// After this what this machine had too little of is tried again.
const MEANS_PAUSE: Duration = Duration::from_secs(2);

/// A begun attempt on its way to a free connection.
#[derive(Debug)]
pub struct Call {
    /// The message.
    pub message: Arc<Message>,
    /// The domain rules that bear on all of them.
    pub rule: Rule,
    /// The recipients that its begin returned.
    pub passengers: Vec<Passenger>,
    /// Its id.
    pub attempt: AttemptId,
    /// When it was begun.
    pub begun_at: Timestamp,
    /// ESPs tried in this round, this one included.
    pub tried: Vec<Arc<str>>,
    /// See [`Pending::moved_for_recipient`].
    pub moved_for_recipient: bool,
    /// An open attempt binds it to this ESP.
    pub bound: bool,
    /// [`crate::store::Store::verdicts`] when it was begun.
    pub verdicts: u64,
    /// Its share of what is begun ahead.
    pub room: Room,
    /// How the ESP is spoken to: as the setup says by which it was chosen.
    pub line: Arc<Line>,
    /// That setup's number.
    pub setup: u64,
    /// Why it goes there, for `explain`.
    pub told: Option<Arc<str>>,
}

/// The times of one call, for the log's `delays`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The exchange began.
    pub(super) started: Timestamp,
    /// It was answered.
    pub(super) answered: Timestamp,
    /// How long before the answer the message was handed over.
    pub(super) handed_over: Option<Duration>,
}

/// A call on its connection, whichever door it goes by.
#[derive(Clone, Copy)]
struct Ride<'a> {
    outlet: &'a Outlet,
    connection: usize,
    call: &'a Call,
    parcel: Parcel<'a>,
}

/// What was said to a call, read for each of its recipients.
struct Said {
    outcomes: Vec<Outcome>,
    phases: Vec<Option<Phase>>,
    /// See [`Esp::blames_request`].
    blamed: bool,
    /// The last of the exchanges; none where it was not even asked.
    reply: Option<Reply>,
    watch: Option<Watch>,
}

/// An exchange that has handed over and has no answer in time.
pub(super) struct Unanswered {
    pub(super) exchange: Exchange,
    pub(super) watch: Watch,
    /// What it waits for.
    pub(super) phase: Phase,
}

impl Said {
    fn unfit(why: &str, recipients: usize) -> Self {
        let outcomes = vec![Outcome::Unfit { why: why.to_owned() }; recipients];
        Said { outcomes, phases: vec![None; recipients], blamed: false, reply: None, watch: None }
    }

    /// What came of a call that the API could not carry and that went by the other door. Where that was not even reached,
    /// the ESP is not to blame: its API is well.
    fn after(self, first: Said) -> Self {
        let unreached = matches!(self.reply, Some(Reply::Lost { handed_over: false, .. }));
        let both = |(first, second): (Outcome, Outcome)| match unreached {
            true => {
                Outcome::Unfit { why: format!("by its API: {}; by SMTP: {}", first.said(), second.said()) }
            }
            false => second.behind(&format!("by its API: {}; by SMTP: ", first.said())),
        };
        let outcomes = first.outcomes.into_iter().zip(self.outcomes).map(both).collect();
        Said { outcomes, blamed: first.blamed || self.blamed, ..self }
    }
}

/// What came of listening.
enum Heard {
    /// An answer, or the end of the line.
    Answer(Reply),
    /// Nothing in time, after the hand-over: it goes on.
    Nothing(Exchange),
}

impl Times {
    pub(super) fn delays(self, call: &Call) -> journal::Delays {
        journal::Delays {
            queued: call.begun_at.since(call.message.accepted_at),
            waited: self.started.since(call.begun_at),
            called: self.answered.since(self.started),
        }
    }
}

impl Courier {
    /// Carries one call through and settles it. The connection is free when this returns; the settle's commit is not
    /// waited for.
    pub(super) async fn carry(self: &Arc<Self>, outlet: &Arc<Outlet>, connection: usize, call: Call) {
        let Some((call, whole)) = self.readied(call).await else { return };
        let recipients = call.recipients();
        let parcel = call.parcel(&recipients, whole.octets());
        let (started, began) = (self.clock.now(), monotonic());
        let said = match compose(&*call.line.esp, parcel, started) {
            Err(unfit) => Said::unfit(&unfit.0, recipients.len()),
            Ok(request) => match self
                .by_its_doors(Ride { outlet, connection, call: &call, parcel }, request)
                .await
            {
                Ok(said) => said,
                Err(unanswered) => return self.go_on(outlet, connection, call, unanswered, started).await,
            },
        };
        if let (Some(reply), Some(watch)) = (&said.reply, &said.watch) {
            let lost = matches!(reply, Reply::Lost { handed_over: false, .. });
            if lost && self.abort.asked() {
                // The stop ended it: nobody's fault, and nothing that the next start should wait for.
                return self.take_back(&[call]).await;
            }
            if lost && let Some(lack) = watch.lack() {
                return self.wait_for_means(outlet, call, lack).await;
            }
            let met = (reply, &said.outcomes[..]);
            if !(lost && watch.given_up())
                && let Some(no) = self.lacks_place(outlet, &call, met, began).await
            {
                return self.wait_for_seat(outlet, call, no).await;
            }
        }
        if said.outcomes.iter().all(|o| matches!(o, Outcome::Unfit { .. })) && call.can_part() {
            return self.part(call).await;
        }
        self.conclude(outlet, call, said, started);
    }

    /// All that stands before a call: its moment, its content, and whom it still is for. `None`: it was taken back.
    async fn readied(self: &Arc<Self>, call: Call) -> Option<(Call, Whole)> {
        if !self.reaches_its_moment(&call).await {
            self.take_back(&[call]).await;
            return None;
        }
        // Before the last judgement: to wait for memory takes time, in which somebody may be suppressed.
        let whole = self.whole(&call).await;
        if matches!(whole, Whole::NotNow) {
            self.take_back(&[call]).await;
            return None;
        }
        let call = self.judged_again(call).await?;
        // DELIVERY rule 21: whoever has not committed for long may be taken for dead, and its answer might not be kept.
        if self.store.is_stale() {
            self.take_back(&[call]).await;
            return None;
        }
        Some((call, whole))
    }

    /// Asks, and where the API says that it cannot carry it, by the ESP's other door as well.
    async fn by_its_doors(&self, ride: Ride<'_>, request: Request) -> Result<Said, Unanswered> {
        let first = self.by_one_door(ride, request).await?;
        match self.other_door(ride.call, ride.parcel, &first) {
            Some(request) => {
                let second = self.by_one_door(ride, request).await?;
                Ok(second.after(first))
            }
            None => Ok(first),
        }
    }

    /// One exchange, seen by the gate, and what was said in it; one without an answer is still in flight.
    async fn by_one_door(&self, ride: Ride<'_>, request: Request) -> Result<Said, Unanswered> {
        let Ride { outlet, connection, call, parcel } = ride;
        let hold = self.rules(&call.message.stream, call.message.kind).unsure_hold;
        let watch = Watch::that_listens(self.abort.clone(), hold);
        let (message, rule) = (Arc::clone(&call.message), call.rule.clone());
        let (tried, bound) = (call.tried.clone(), call.bound);
        outlet.gate.departs(connection, Flying { watch: watch.clone(), message, rule, tried, bound });
        let phase = last_phase(&request);
        let reply = match listen(call, request, &watch, hold).await {
            Heard::Answer(reply) => reply,
            Heard::Nothing(exchange) => return Err(Unanswered { exchange, watch, phase }),
        };
        outlet.gate.lands(connection);
        let outcomes = call.line.esp.read(parcel, &reply, self.clock.now());
        let phases = (0..outcomes.len()).map(|n| phase_of(&reply, n)).collect();
        let blamed = call.line.esp.blames_request(&reply);
        Ok(Said { outcomes, phases, blamed, reply: Some(reply), watch: Some(watch) })
    }

    /// The same call by the ESP's other door, where the API has answered that it cannot carry it: nothing was taken, so it
    /// goes on at once. Not where somebody may have fallen out since it was judged: then it is begun anew elsewhere.
    fn other_door(&self, call: &Call, parcel: Parcel<'_>, said: &Said) -> Option<Request> {
        let answered = matches!(said.reply, Some(Reply::Http(_)));
        let unfit = said.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Unfit { .. }));
        let goes_on = !self.abort.asked() && self.store.verdicts() == call.verdicts;
        (answered && unfit && goes_on).then(|| call.line.esp.by_other_door(parcel)).flatten()
    }

    /// Tells the gate what was said, judges it for each recipient, and writes that down.
    fn conclude(self: &Arc<Self>, outlet: &Arc<Outlet>, call: Call, said: Said, started: Timestamp) {
        let answered = self.clock.now();
        let watch = said.watch.unwrap_or_else(|| Watch::new(self.abort.clone()));
        let times = Times { started, answered, handed_over: watch.handed_over_for() };
        let took = Some(answered.since(started));
        let systemic = self.learn(outlet, &call, &said.outcomes, said.blamed, &watch, took);
        let answers = said.outcomes.into_iter().zip(said.phases);
        let mut judgement = self.judge(outlet, &call, answers, &systemic, times);
        call.note_relayed(&mut judgement.settles, said.reply.as_ref());
        self.settle(outlet, call, judgement);
    }

    /// The ESP was not even asked, for want of something that this machine has too little of: no attempt, and no word
    /// about the ESP. It is begun again soon; until then its connection rests, so that what waits does not come to the
    /// same end one by one as fast as it can be begun.
    async fn wait_for_means(self: &Arc<Self>, outlet: &Outlet, call: Call, lack: &str) {
        const ADVICE: &str = "this machine has too little of it; where it is files, raise the limit on open files \
                              (ulimit -Hn, LimitNOFILE). The mail waits";
        journal::trouble(&format!("sending to {}", outlet.name), &format!("{lack}; {ADVICE}"));
        let due = self.clock.now().plus(MEANS_PAUSE);
        self.take_back_until(&[call], due).await;
        self.look_at(due);
        tokio::select! {
            () = self.abort.wait() => {}
            () = tokio::time::sleep(MEANS_PAUSE) => {}
        }
    }

    /// Waits until the ESP's rate lets it leave; `false`: the relay stops before.
    async fn reaches_its_moment(&self, call: &Call) -> bool {
        let Some(leaves_at) = call.room.share.leaves_at else { return true };
        let wait = leaves_at.since(self.clock.now());
        if wait.is_zero() {
            return true;
        }
        tokio::select! {
            () = self.abort.wait() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    /// Takes out whoever was suppressed or taken out by an operator since the begin (DELIVERY rule 3); `None`: nobody
    /// is left. To take somebody out is a commit, and others may fall out meanwhile: then it judges once more.
    async fn judged_again(self: &Arc<Self>, mut call: Call) -> Option<Call> {
        loop {
            let epoch = self.store.verdicts();
            if epoch == call.verdicts {
                return Some(call);
            }
            let items = call.passengers.iter().map(|p| (call.delivery(p), call.attempt)).collect();
            let Ok(wanted) = self.store.wanted(items).await else {
                // Nobody is mailed who should not be: it is begun, and judged, anew.
                self.take_back(&[call]).await;
                return None;
            };
            let (stay, go): (Vec<_>, Vec<_>) =
                call.passengers.iter().zip(wanted).partition(|(_, wanted)| *wanted);
            if go.is_empty() {
                return Some(call);
            }
            let gone: Vec<_> = go.iter().map(|(p, _)| (call.delivery(p), call.attempt)).collect();
            let stay: Vec<Passenger> = stay.into_iter().map(|(p, _)| *p).collect();
            let fewer = u32::try_from(gone.len()).unwrap_or(0);
            self.store.unbegin(gone, self.clock.now()).await;
            self.look_now();
            self.unused(&call.room, fewer).await;
            if stay.is_empty() {
                return None;
            }
            (call.passengers, call.verdicts) = (stay, epoch);
        }
    }

    /// A next hop that cannot take a message for those who need SMTPUTF8 may take it for the others: nothing was sent,
    /// so both go again, apart. Their times differ as well, lest they be read as one from the database.
    async fn part(&self, call: Call) {
        let now = self.clock.now();
        let needs = |p: &Passenger| call.address(p).is_some_and(Address::needs_smtputf8);
        let (with, without): (Vec<_>, Vec<_>) = call.passengers.iter().copied().partition(needs);
        let tried = &call.tried[..call.tried.len().saturating_sub(1)];
        for (group, due) in [(without, now), (with, now.plus(Duration::from_millis(1)))] {
            let deliveries = group.iter().map(|p| (call.delivery(p), call.attempt)).collect();
            let taken_back = self.store.unbegin(deliveries, due).await;
            let free = group.into_iter().zip(taken_back).filter(|(_, taken)| matches!(taken, Ok(true)));
            let passengers: Vec<_> = free.map(|(passenger, _)| passenger).collect();
            if passengers.is_empty() {
                continue;
            }
            self.submit(Pending {
                message: Arc::clone(&call.message),
                rule: call.rule.clone(),
                passengers,
                from: QueueState::Waiting { due },
                bound_to: None,
                tried: tried.to_vec(),
                moved_for_recipient: call.moved_for_recipient,
                setup: call.setup,
            });
        }
        // Who was not begun, or has fallen out since, has been given back already.
        let recipients = u32::try_from(call.passengers.len()).unwrap_or(0);
        self.unused(&call.room, recipients).await;
    }
}

impl Call {
    /// The addresses of its passengers, in their order.
    pub(super) fn recipients(&self) -> Vec<Address> {
        self.passengers.iter().filter_map(|p| self.address(p).cloned()).collect()
    }

    pub(super) fn parcel<'a>(&'a self, recipients: &'a [Address], whole: Option<&'a Bytes>) -> Parcel<'a> {
        Parcel { message: &self.message, whole, recipients, attempt: self.attempt }
    }

    /// Whether some of its addresses need SMTPUTF8 and others do not, and none is bound to stay here.
    fn can_part(&self) -> bool {
        let mut needs = self.passengers.iter().filter_map(|p| self.address(p)).map(Address::needs_smtputf8);
        let first = needs.next();
        needs.any(|other| Some(other) != first) && self.passengers.iter().all(|p| p.open_attempts == 0)
    }

    pub(super) fn address(&self, passenger: &Passenger) -> Option<&Address> {
        self.message.envelope.recipients.get(passenger.recipient as usize)
    }
}

/// Exchanges, and listens for an answer that comes in time: within what the wire gives it after the hand-over, and within
/// the hold. A stop leaves it a moment: what is handed over is held then, and not left to the next start as a crash.
async fn listen(call: &Call, request: Request, watch: &Watch, hold: Duration) -> Heard {
    let mut late_after = call.line.wire.answers_within(&request).min(hold);
    let (line, watched) = (Arc::clone(&call.line), watch.clone());
    let mut exchange: Exchange = Box::pin(async move { line.wire.exchange(request, &watched).await });
    let (mut nap, mut stopping) = (late_after, false);
    loop {
        tokio::select! {
            biased;
            reply = &mut exchange => return Heard::Answer(reply),
            () = watch.stopping(), if !stopping => {
                stopping = true;
                let since = watch.handed_over_for().unwrap_or_default();
                late_after = late_after.min(since + HEARD_AT_STOP);
            }
            () = tokio::time::sleep(nap) => {}
        }
        nap = match watch.handed_over_for() {
            None => late_after,
            Some(since) => {
                let end =
                    if stopping { Duration::ZERO } else { END_OF_ANSWER.saturating_sub(watch.still_for()) };
                let end = end.min((late_after + END_OF_ANSWER).saturating_sub(since));
                match late_after.saturating_sub(since).max(end) {
                    Duration::ZERO => return Heard::Nothing(exchange),
                    left => left,
                }
            }
        };
    }
}

/// Rewriting a large message takes a while: the other calls of this thread go on meanwhile.
fn compose(esp: &dyn Esp, parcel: Parcel<'_>, now: Timestamp) -> Result<Request, esp::Unfit> {
    match parcel.whole {
        Some(whole) if whole.len() > SPILL_OCTETS => aside(|| esp.compose(parcel, now)),
        _ => esp.compose(parcel, now),
    }
}

/// How far the recipient at `n` came: one that was refused at RCPT came no further, whatever became of the others.
pub(super) fn phase_of(reply: &Reply, n: usize) -> Option<Phase> {
    match reply {
        Reply::Smtp(r) if r.recipients.get(n).is_some_and(|own| !own.positive()) => Some(Phase::Rcpt),
        Reply::Smtp(r) => Some(r.phase),
        Reply::Lost { recipients, .. } if recipients.get(n).is_some_and(|own| !own.positive()) => {
            Some(Phase::Rcpt)
        }
        Reply::Http(_) => Some(Phase::Answer),
        Reply::Lost { phase, .. } => Some(*phase),
        Reply::Unfit { .. } | Reply::Kept => None,
    }
}
