//! Content on its way: all of it but the last octets, which hand it over; and the answer to that.

use std::time::Duration;

use bytes::Bytes;

use super::connect::Connection;
use super::dialogue::{Halt, last_words};
use super::line::{Broken, Line};
use super::stuffing::Stuffer;
use crate::mail::body::Spilled;
use crate::mail::{Answer, Body, Phase, Reply, SmtpReply};
use crate::wire::Chunks;

/// The write that hands a message over holds at most so much of it, so that what got stuck before is known not to
/// have arrived.
const LAST_OCTETS_MAX: usize = 16 * 1024;
/// One write before that.
const BLOCK_OCTETS: usize = 64 * 1024;
/// How long an octet that came in mid-content is given to become a reply.
const INTERRUPTION: Duration = Duration::from_secs(1);

/// Writes all but the last octets, and gathers these with the end of data in `line.out`.
pub(super) async fn all_but_last(
    connection: &mut Connection,
    body: &Body,
    chunks: &dyn Chunks,
    recipients: &[Answer],
) -> Result<(), Halt> {
    let line = &mut connection.line;
    match write_all_but_last(line, body, chunks).await {
        Ok(()) => Ok(()),
        Err(Stopped::Refused(last)) => {
            let recipients = recipients.to_vec();
            Err(Halt::Ended(Reply::Smtp(SmtpReply { phase: Phase::Body, last, recipients, reports: false })))
        }
        Err(Stopped::Broken(broken)) => Err(Halt::Ended(Reply::Lost {
            phase: Phase::Body,
            handed_over: false,
            recipients: recipients.to_vec(),
            said: broken.to_string(),
        })),
    }
}

enum Stopped {
    /// The server did not wait for the end.
    Refused(Answer),
    Broken(Broken),
}

impl From<Broken> for Stopped {
    fn from(broken: Broken) -> Self {
        Stopped::Broken(broken)
    }
}

async fn write_all_but_last(line: &mut Line, body: &Body, chunks: &dyn Chunks) -> Result<(), Stopped> {
    let mut stuffer = Stuffer::default();
    let mut rest = body.rest.map(|spilled| Rest { spilled, chunks, read: 0, octets: 0 });
    let mut piece = body.head.clone();
    let mut heard = 0;
    while let Some(next) = next_piece(&mut rest).await? {
        write(line, &mut stuffer, &piece).await?;
        heard = interrupted(line, heard).await?;
        piece = next;
    }
    let (before, last) = piece.split_at(piece.len().saturating_sub(LAST_OCTETS_MAX));
    write(line, &mut stuffer, before).await?;
    // A verdict on what has not left yet is none.
    interrupted(line, heard).await?;
    stuffer.push(last, &mut line.out);
    stuffer.finish(&mut line.out);
    Ok(())
}

async fn write(line: &mut Line, stuffer: &mut Stuffer, piece: &[u8]) -> Result<(), Stopped> {
    for block in piece.chunks(BLOCK_OCTETS) {
        let written = if stuffer.passes(block) {
            line.write(block).await
        } else {
            stuffer.push(block, &mut line.out);
            line.send().await
        };
        if let Err(broken) = written {
            return Err(match last_words(line, &broken).await {
                Some(answer) => Stopped::Refused(answer),
                None => Stopped::Broken(broken),
            });
        }
    }
    Ok(())
}

/// A server that speaks in mid-content refuses it; a large message need not be sent to its end for nothing. Half a reply
/// is waited for once, and not at every piece: `heard` octets of it are known. Gives how many are now.
async fn interrupted(line: &mut Line, heard: usize) -> Result<usize, Stopped> {
    if line.quiet_since(heard) {
        return Ok(heard);
    }
    match line.reply_within(INTERRUPTION).await {
        Ok(answer) if answer.code >= 400 => Err(Stopped::Refused(answer)),
        Ok(answer) => Err(Broken::Garbage(format!("out of step: {answer} in mid-content")).into()),
        // Octets of TLS's own, or half a reply.
        Err(Broken::Hung(_) | Broken::Slow(..)) => Ok(line.unread()),
        Err(broken) => Err(broken.into()),
    }
}

struct Rest<'a> {
    spilled: Spilled,
    chunks: &'a dyn Chunks,
    read: u32,
    octets: u64,
}

/// The next chunk that is not empty. All of them together must be what was accepted: part of a message is never
/// finished.
async fn next_piece(rest: &mut Option<Rest<'_>>) -> Result<Option<Bytes>, Broken> {
    let Some(rest) = rest else { return Ok(None) };
    while rest.read < rest.spilled.chunks {
        let chunk = rest.chunks.chunk(rest.spilled.message, rest.read).await;
        let chunk = chunk
            .map_err(|e| Broken::Other(format!("reading chunk {} of the message back: {e}", rest.read)))?;
        rest.read += 1;
        rest.octets += chunk.len() as u64;
        if !chunk.is_empty() {
            return Ok(Some(chunk));
        }
    }
    if rest.octets != rest.spilled.octets {
        let Spilled { message, octets, .. } = rest.spilled;
        let got = rest.octets;
        return Err(Broken::Other(format!("the store gave {got} of the {octets} octets of {message}")));
    }
    Ok(None)
}

/// Writes the last octets and waits for the verdict. From here on the message may have arrived, whatever happens.
pub(super) async fn hand_over(
    connection: &mut Connection,
    recipients: Vec<Answer>,
    reports: bool,
    within: Duration,
) -> Reply {
    let line = &mut connection.line;
    let watch = line.watch.clone();
    let verdict = async {
        match line.send().await {
            Ok(()) => line.reply_within(within).await,
            Err(broken) => last_words(line, &broken).await.ok_or(broken),
        }
    };
    let answer = tokio::select! {
        biased;
        answer = verdict => answer,
        () = watch.unheard() => Err(Broken::Other("listened to no longer".to_owned())),
    };
    let lost = |recipients, said| Reply::Lost { phase: Phase::Dot, handed_over: true, recipients, said };
    match answer {
        Ok(last) if last.positive() || last.code >= 400 => {
            connection.in_step = last.code != 421 && connection.line.caught_up();
            connection.reset_due = false;
            Reply::Smtp(SmtpReply { phase: Phase::Dot, last, recipients, reports })
        }
        Ok(answer) => lost(recipients, format!("out of step: {answer} to the final dot")),
        Err(broken) => lost(recipients, broken.to_string()),
    }
}
