//! One connection: bytes in and out around a [`Session`]. All waiting is here, and all time-outs.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use super::content::Content;
use super::io::{End, Io};
use super::line::{Frame, Framer, LineFault};
use super::listener::{Limits, Shared};
use super::refusals::Refusals;
use super::reply::{self, Reply};
use super::room::{Guest, Stake};
use super::session::{Question, Rules, Session, Step};
use super::{Client, Gatekeeper, tls::Certificates};
use crate::clock::monotonic;
use crate::mail::Permit;
use crate::mail::envelope::recipient_octets;

/// Behind the limit on a message so much again is eaten, or this where it is more…
const EATEN_OCTETS_MIN: u64 = 64_000_000;
/// …and for so long; then the client is told and cut off.
const EATEN_TIME_MAX: Duration = Duration::from_secs(300);
/// The recipients of one message may take such a part of the memory, so that its content finds room beside them.
const RECIPIENTS_PART: u64 = 3;

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Context<G> {
    pub gatekeeper: Arc<G>,
    pub shared: Shared,
    pub rules: Arc<Rules>,
    pub certificates: Option<Arc<Certificates>>,
    pub refusals: Arc<Refusals>,
}

/// Lets `future` answer at once; where it does not, what was said so far is sent before it is waited for.
async fn answer_of<S, F>(io: &mut Io<'_, S>, mut future: Pin<&mut F>) -> Result<Option<F::Output>, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future,
{
    let first = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(answer) => Ok(Some(answer)),
        Poll::Pending => io.flush().await.map(|()| None),
    }
}

/// The deadline of content or of skipped octets: it moves with what arrived, so that a trickle is cut off; and the end
/// of patience with octets that nobody wants.
struct Pace {
    began: Instant,
    received_octets: u64,
    /// Since when there are more octets than anybody wants.
    unwanted_since: Option<Instant>,
}

impl Pace {
    fn new() -> Self {
        Pace { began: monotonic(), received_octets: 0, unwanted_since: None }
    }

    /// Whether too much came behind the `wanted` octets, or for too long. Until then all is eaten: most clients read no
    /// reply before they have sent everything.
    fn is_overrun(&mut self, wanted_octets: u64) -> bool {
        if self.received_octets <= wanted_octets {
            return false;
        }
        let since = *self.unwanted_since.get_or_insert_with(monotonic);
        let unwanted_octets = self.received_octets - wanted_octets;
        unwanted_octets > wanted_octets.max(EATEN_OCTETS_MIN) || monotonic() >= since + EATEN_TIME_MAX
    }

    fn deadline(&self, limits: &Limits) -> Instant {
        let earned = self.received_octets / limits.data_octets_per_second_min.max(1);
        self.began + limits.data_grace + Duration::from_secs(earned)
    }
}

/// A session with its stream and all that it needs.
pub(super) struct Conversation<'a, S, G> {
    io: Io<'a, S>,
    session: Session,
    framer: Framer,
    context: &'a Context<G>,
    guest: &'a Guest,
    /// When the line that is waited for must be there.
    line_due: Option<Instant>,
    session_due: Instant,
    /// Covers the recipients of the message that is begun.
    recipients: Option<Permit>,
}

impl<'a, S, G> Conversation<'a, S, G>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    G: Gatekeeper,
{
    /// A session on a stream.
    pub fn new(
        stream: S,
        session: Session,
        context: &'a Context<G>,
        guest: &'a Guest,
        session_due: Instant,
    ) -> Self {
        Conversation {
            io: Io::new(stream, guest, context.rules.settings.idle_timeout),
            session,
            framer: Framer::default(),
            context,
            guest,
            line_due: None,
            session_due,
            recipients: None,
        }
    }

    /// Says 220.
    pub async fn greet(&mut self) -> Result<(), End> {
        let banner = self.session.banner();
        self.io.say(&banner).await
    }

    /// Talks until there is an end.
    pub async fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
        }
    }

    /// The stream and the session, for TLS to go on with.
    pub fn into_parts(self) -> (S, Session) {
        (self.io.stream, self.session)
    }

    /// Closes the stream after `end`.
    pub async fn close(self, end: End) {
        drop(self.recipients);
        // Whoever makes room for another goes at once where many do: the reply has been written.
        let lingering = self.guest.may_linger();
        if lingering.is_some() || self.guest.seat().dismissed().is_none() {
            self.io.close(end).await;
        }
    }

    /// One line, or one wait for more of it.
    async fn turn(&mut self) -> Result<(), End> {
        if let Some(reply) = self.guest.seat().dismissed() {
            return self.refused(&reply).await;
        }
        let limit = self.session.line_limit(self.io.buffered());
        match self.framer.next(self.io.buffered(), limit) {
            Frame::More { taken } => {
                self.io.consume(taken);
                return self.more().await;
            }
            Frame::Line(octets) => {
                let step = self.session.line(&self.io.buffered()[..octets]);
                self.told_line(octets, &step);
                self.io.consume(octets + 2);
                self.step(step).await?;
            }
            Frame::Refused { taken, fault } => {
                self.io.consume(taken);
                self.refuse(fault).await?;
            }
        }
        self.line_due = None;
        let stake = self.session.stake();
        if stake != Stake::Message {
            self.recipients = None;
        }
        self.guest.stakes(stake);
        // Before the reply is sent: who has it is known to have been heard.
        self.guest.commanded();
        self.overrun().await
    }

    async fn refuse(&mut self, fault: LineFault) -> Result<(), End> {
        let reply = self.session.refused_line(fault);
        self.io.say(&reply).await
    }

    async fn overrun(&mut self) -> Result<(), End> {
        match self.session.overrun() {
            Some(reply) => self.refused(&reply).await,
            None => Ok(()),
        }
    }

    /// Waits for more of a command. The deadline is the whole line's: trickling does not move it.
    async fn more(&mut self) -> Result<(), End> {
        if self.session.is_fresh() && self.io.buffered().first() == Some(&TLS_HANDSHAKE) {
            return self.refused(&reply::TLS_ON_PLAIN).await;
        }
        self.io.flush().await?;
        self.io.shrink();
        let now = monotonic();
        let idle_timeout = self.context.rules.settings.idle_timeout;
        let line_due = *self.line_due.get_or_insert_with(|| now + idle_timeout);
        let after_lf = self.framer.waits_after_lf(self.io.buffered());
        let lf_due = if after_lf { now + self.context.shared.limits.bare_lf_grace } else { line_due };
        let due = line_due.min(self.session_due).min(lf_due);
        tokio::select! {
            biased;
            read = self.io.fill() => match read? {
                0 => Err(End::Gone),
                _ => Ok(()),
            },
            () = self.guest.seat().called() => Ok(()),
            () = sleep_until(due) => self.overdue(after_lf && due == lf_due).await,
        }
    }

    async fn overdue(&mut self, after_lf: bool) -> Result<(), End> {
        if monotonic() >= self.session_due {
            return self.io.say(&reply::SESSION_OVER).await;
        }
        if !after_lf {
            return self.io.say(&reply::IDLE).await;
        }
        // The client ended its line with LF and waits: it is told, and what it sends next is another line.
        self.framer.give_up();
        self.io.consume(self.io.buffered().len());
        self.line_due = None;
        self.refuse(LineFault::BareLf).await?;
        self.overrun().await
    }

    async fn step(&mut self, step: Step) -> Result<(), End> {
        match step {
            Step::Say(reply) => self.io.say(&reply).await,
            Step::Ask => {
                let mut answer = self.ask().await?;
                if answer.positive() && !self.cover_recipient() {
                    answer = reply::NO_MEMORY_FOR_RECIPIENT;
                }
                self.told_sender(&answer);
                let reply = self.session.answered(answer);
                self.io.say(&reply).await
            }
            Step::Login(login) => {
                self.io.flush().await?;
                let peer = self.session.client().peer;
                let authenticator = &self.context.shared.authenticator;
                let result = authenticator.check(peer, &login.username, &login.password).await;
                if let Err(denied) = &result {
                    self.context.refusals.login(self.session.client(), &login.attempt(), denied.word());
                }
                let reply = self.session.logged_in(result);
                self.io.say(&reply).await
            }
            Step::Receive(reply) => {
                self.io.say(&reply).await?;
                self.io.flush().await?;
                self.context.gatekeeper.expect();
                self.receive().await
            }
            Step::Eat(reply, octets) => {
                self.io.say(&reply).await?;
                self.eat(octets).await
            }
            Step::StartTls(reply) => {
                if !self.io.buffered().is_empty() {
                    return self.refused(&reply::TLS_INJECTION).await;
                }
                self.io.say(&reply).await?;
                self.io.flush().await?;
                Err(End::Tls)
            }
        }
    }

    /// Says a reply that ends the connection, and tells the operator.
    async fn refused(&mut self, reply: &Reply) -> Result<(), End> {
        self.context.refusals.mail(self.session.client(), self.session.begun_sender(), b"", reply);
        self.io.say(reply).await
    }

    /// Tells the operator what a line was refused for.
    fn told_line(&mut self, octets: usize, step: &Step) {
        if let Some((attempt, reason)) = self.session.take_refused_login() {
            self.context.refusals.login(self.session.client(), &attempt, reason);
        } else if let Step::Say(reply) = step {
            let line = &self.io.buffered()[..octets];
            self.context.refusals.mail(self.session.client(), self.session.begun_sender(), line, reply);
        }
    }

    /// Takes the memory of a recipient who is about to enter the envelope; `false`: it is not there.
    fn cover_recipient(&mut self) -> bool {
        let Some(Question::Recipient(address)) = self.session.question() else { return true };
        let octets = recipient_octets(address);
        let budget = &self.context.shared.budget;
        let covered = self.recipients.as_ref().map_or(0, Permit::octets);
        if covered + octets as u64 > budget.limit_octets() / RECIPIENTS_PART {
            return false;
        }
        match &mut self.recipients {
            Some(permit) => permit.grow(octets),
            None => {
                self.recipients = budget.take(octets);
                self.recipients.is_some()
            }
        }
    }

    /// Tells the operator of a sender who was turned away.
    fn told_sender(&mut self, answer: &Reply) {
        if let Some(Question::Sender(sender, _)) = self.session.question()
            && !answer.positive()
        {
            self.context.refusals.mail(self.session.client(), Some(sender), b"", answer);
        }
    }

    /// Puts the session's question to the Gatekeeper. Nothing is read meanwhile.
    async fn ask(&mut self) -> Result<Reply, End> {
        let Conversation { io, session, context, .. } = self;
        let patience = context.shared.limits.ask_timeout;
        let client = session.client();
        match session.question() {
            None => Ok(reply::UNDECIDED),
            Some(Question::Sender(sender, octets)) => {
                patient(io, patience, context.gatekeeper.sender(client, sender, octets)).await
            }
            Some(Question::Recipient(recipient)) => {
                patient(io, patience, context.gatekeeper.recipient(client, recipient)).await
            }
        }
    }

    /// Skips octets that belong to no command.
    async fn eat(&mut self, octets: u64) -> Result<(), End> {
        let mut pace = Pace::new();
        let mut left = octets;
        while left > 0 {
            let here = self.io.buffered().len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.io.consume(here);
            left -= here as u64;
            if pace.is_overrun(0) {
                return self.refused(&reply::ENDLESS).await;
            }
            if left > 0 {
                self.read_on(&mut pace, true).await?;
            }
        }
        Ok(())
    }

    /// Content to its end, and the reply to it.
    async fn receive(&mut self) -> Result<(), End> {
        self.io.widen();
        let settings = &self.context.rules.settings;
        let mut content = Content::new(settings, Arc::clone(&self.context.shared.budget));
        if let Err(end) = self.read_to_end(&mut content).await {
            if let Some(message) = content.written_id() {
                self.context.gatekeeper.discard(message).await;
            }
            return Err(end);
        }
        let sender = self.session.begun_sender().cloned();
        let reply = match (content.finish(), self.session.take_envelope()) {
            (Ok(body), Some(envelope)) => {
                let Conversation { io, session, context, .. } = self;
                let mut accepting = pin!(context.gatekeeper.message(session.client(), envelope, body));
                // Whatever becomes of the connection: what was begun is carried to its end, never dropped half-way.
                match answer_of(io, accepting.as_mut()).await {
                    Ok(Some(reply)) => reply,
                    Ok(None) => accepting.await,
                    Err(end) => {
                        accepting.await;
                        return Err(end);
                    }
                }
            }
            (Err(refusal), _) => {
                if let Some(message) = refusal.spilled {
                    self.context.gatekeeper.discard(message).await;
                }
                refusal.reply
            }
            (Ok(_), None) => reply::MAIL_FIRST,
        };
        self.context.refusals.mail(self.session.client(), sender.as_ref(), b"", &reply);
        self.session.received(reply.code / 100 == 2);
        self.io.say(&reply).await
    }

    async fn read_to_end(&mut self, content: &mut Content) -> Result<(), End> {
        let mut pace = Pace::new();
        loop {
            while !self.io.buffered().is_empty() {
                let fed = content.feed(self.io.buffered());
                self.io.consume(fed.taken);
                while let Some(piece) = content.piece() {
                    pace.began += self.spill(content, piece).await?;
                }
                if fed.ended {
                    if let Some(piece) = content.last_piece() {
                        self.spill(content, piece).await?;
                    }
                    return Ok(());
                }
            }
            if pace.is_overrun(self.context.rules.settings.max_message_size_octets) {
                return self.refused(&reply::ENDLESS).await;
            }
            self.read_on(&mut pace, false).await?;
        }
    }

    /// Has a piece written before more is read; gives how long that took, which is no fault of the client's.
    async fn spill(
        &mut self,
        content: &mut Content,
        (message, number, octets): (Option<crate::mail::MessageId>, u32, bytes::Bytes),
    ) -> Result<Duration, End> {
        let began = monotonic();
        let length = octets.len();
        let result = self.context.gatekeeper.spill(message, number, octets).await;
        content.written(length, result);
        Ok(monotonic() - began)
    }

    /// Reads more of content, or of what is skipped: only this is given up at once when the client has to leave. Content
    /// has until the end of the stop, as long as it moves.
    async fn read_on(&mut self, pace: &mut Pace, may_leave: bool) -> Result<(), End> {
        self.io.flush().await?;
        let idle_due = monotonic() + self.context.rules.settings.idle_timeout;
        let due = pace.deadline(&self.context.shared.limits).min(idle_due).min(self.session_due);
        let seat = self.guest.seat();
        if let Some(reply) = seat.dismissed().filter(|_| may_leave) {
            return self.refused(&reply).await;
        }
        let stop = self.stop_due();
        if stop.is_some_and(|(over, _)| monotonic() >= over) {
            return self.cut_by_stop().await;
        }
        let stop_due = stop.map(|(over, silent)| over.min(silent)).filter(|at| *at < due);
        tokio::select! {
            biased;
            read = self.io.fill() => match read? {
                0 => Err(End::Gone),
                octets => {
                    pace.received_octets += octets as u64;
                    Ok(())
                }
            },
            // Called for a stop: the next wait is bounded by its end.
            () = seat.called(), if may_leave || stop.is_none() => Ok(()),
            () = sleep_until(stop_due.unwrap_or(due)) => match stop_due {
                Some(_) => self.cut_by_stop().await,
                None => self.refused(&reply::SLOW).await,
            },
        }
    }

    /// While the relay stops: when content is over however fast it comes, and when its silence from now on is.
    fn stop_due(&self) -> Option<(Instant, Instant)> {
        let limits = &self.context.shared.limits;
        self.guest.stopped().map(|at| (at + limits.stop_grace, monotonic() + limits.stop_silence))
    }

    /// The client still has the message, and is told to send it again.
    async fn cut_by_stop(&mut self) -> Result<(), End> {
        let Client { listener, peer, .. } = self.session.client();
        tracing::warn!(%listener, %peer, "a message was still coming at the end of the stop; its client was told 421");
        self.io.say(&reply::STOPPING).await
    }
}

/// The first octet of a TLS record that begins a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// The answer to a question, or 451 when it does not come in time.
async fn patient<S, F>(io: &mut Io<'_, S>, patience: Duration, question: F) -> Result<Reply, End>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future<Output = Reply>,
{
    let mut question = pin!(question);
    if let Some(answer) = answer_of(io, question.as_mut()).await? {
        return Ok(answer);
    }
    Ok(timeout(patience, question).await.unwrap_or(reply::UNDECIDED))
}

/// Serves one client from its first octet to its last.
pub(super) async fn serve<S, G>(stream: S, context: Arc<Context<G>>, guest: Guest)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    G: Gatekeeper,
{
    let session_due = monotonic() + context.shared.limits.session_max;
    let implicit = context.rules.settings.tls == super::TlsMode::Implicit;
    let session = Session::new(Arc::clone(&context.rules), guest.peer(), implicit);
    if implicit {
        return Box::pin(under_tls(stream, session, &context, &guest, session_due)).await;
    }
    let mut plain = Conversation::new(stream, session, &*context, &guest, session_due);
    let end = match plain.greet().await {
        Ok(()) => plain.run().await,
        Err(end) => end,
    };
    if end != End::Tls {
        return plain.close(end).await;
    }
    let (stream, mut session) = plain.into_parts();
    session.tls_started();
    guest.stakes(Stake::Nothing);
    Box::pin(under_tls(stream, session, &context, &guest, session_due)).await;
}

/// The handshake, and the conversation under it. After STARTTLS there is no second 220 (RFC 3207 section 4.2).
async fn under_tls<S, G>(
    stream: S,
    session: Session,
    context: &Context<G>,
    guest: &Guest,
    session_due: Instant,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    G: Gatekeeper,
{
    let Some(certificates) = &context.certificates else { return };
    let handshake = certificates.acceptor().accept(stream);
    let limit = context.shared.limits.handshake_timeout.min(context.rules.settings.idle_timeout);
    let stream = tokio::select! {
        done = timeout(limit, handshake) => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::info!(peer = %guest.peer(), %error, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        },
        () = guest.seat().called() => return,
    };
    let implicit = context.rules.settings.tls == super::TlsMode::Implicit;
    let mut conversation = Conversation::new(stream, session, context, guest, session_due);
    let end = match if implicit { conversation.greet().await } else { Ok(()) } {
        Ok(()) => conversation.run().await,
        Err(end) => end,
    };
    conversation.close(end).await;
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
