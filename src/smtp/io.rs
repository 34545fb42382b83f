//! A stream with its buffers: reads that grow with what comes, replies sent in one write, an orderly close.

use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep_until, timeout};

use super::reply::Reply;
use super::room::Guest;
use crate::clock::monotonic;

/// What an idle connection has for input.
const READ_OCTETS_MIN: usize = 1024;
/// What content is read into at first; kept for the next message.
const READ_OCTETS_DATA: usize = 8 * 1024;
/// What content is read into where it comes fast.
const READ_OCTETS_MAX: usize = 64 * 1024;
/// Replies are held back for one write, up to so much.
const REPLIES_OCTETS_MAX: usize = 16 * 1024;
/// What is read and thrown away behind a last reply, so that it is not lost in a reset.
const LINGER_OCTETS_MAX: usize = 256 * 1024;
/// For how long.
const LINGER: Duration = Duration::from_secs(1);

/// How a conversation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The other side is gone, or does not read.
    Gone,
    /// QUIT.
    Quit,
    /// We ended it; the last reply is on its way.
    Cut,
    /// TLS comes next.
    Tls,
}

/// A stream with its buffers.
pub(super) struct Io<'a, S> {
    pub stream: S,
    guest: &'a Guest,
    input: Vec<u8>,
    /// The front of `input` that is used up.
    used: usize,
    /// The size of the next read.
    read_octets: usize,
    output: String,
    write_timeout: Duration,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin + Send> Io<'a, S> {
    /// A stream that nothing was read from.
    pub fn new(stream: S, guest: &'a Guest, write_timeout: Duration) -> Self {
        Io {
            stream,
            guest,
            input: Vec::new(),
            used: 0,
            read_octets: READ_OCTETS_MIN,
            output: String::new(),
            write_timeout,
        }
    }

    /// What was read and not yet consumed.
    pub fn buffered(&self) -> &[u8] {
        &self.input[self.used..]
    }

    /// Drops so much from the front.
    pub fn consume(&mut self, octets: usize) {
        self.used += octets;
        if self.used >= self.input.len() {
            self.input.clear();
            self.used = 0;
        }
    }

    /// Content comes: it is read in larger pieces.
    pub fn widen(&mut self) {
        self.read_octets = self.read_octets.max(READ_OCTETS_DATA);
    }

    /// Gives back what a fast message took, when nothing is buffered.
    pub fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > READ_OCTETS_DATA {
            self.input = Vec::new();
            self.read_octets = READ_OCTETS_DATA;
        }
    }

    /// Reads more; 0 at the end. May be dropped and begun again.
    pub async fn fill(&mut self) -> Result<usize, End> {
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        let spare = self.input.capacity() - self.input.len();
        if spare < READ_OCTETS_MIN / 2 || spare < self.read_octets / 2 {
            self.input.reserve_exact(self.read_octets);
        }
        let spare = self.input.capacity() - self.input.len();
        let read = self.stream.read_buf(&mut self.input).await.map_err(|_| End::Gone)?;
        if read == spare {
            self.read_octets = (self.read_octets * 2).min(READ_OCTETS_MAX);
        }
        Ok(read)
    }

    /// Sends all replies that are held back, in one write. A client that does not read them is not waited for long
    /// when its room is needed.
    pub async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let seat = self.guest.seat();
        let patience = if seat.dismissed().is_some() { LINGER } else { self.write_timeout };
        let mut due = monotonic() + patience;
        let sent = {
            let mut sending = pin!(async {
                self.stream.write_all(self.output.as_bytes()).await?;
                self.stream.flush().await
            });
            loop {
                tokio::select! {
                    biased;
                    sent = &mut sending => break sent.map_err(|_| End::Gone),
                    () = seat.called() => due = due.min(monotonic() + LINGER),
                    () = sleep_until(due) => break Err(End::Gone),
                }
            }
        };
        if self.output.capacity() > READ_OCTETS_MIN {
            self.output = String::new();
        }
        self.output.clear();
        sent
    }

    /// Holds a reply back for the next write, or sends it when it is the last.
    pub async fn say(&mut self, reply: &Reply) -> Result<(), End> {
        reply.write(&mut self.output);
        if reply.close {
            self.flush().await?;
            return Err(if reply.code == 221 { End::Quit } else { End::Cut });
        }
        if self.output.len() >= REPLIES_OCTETS_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// Closes in order. After a reply of ours that the client did not ask for, what it still sends is read for a
    /// moment: else the kernel answers it with a reset, and the reply is lost with that.
    pub async fn close(mut self, end: End) {
        if end == End::Gone {
            return;
        }
        let closing = async {
            let _ = self.stream.shutdown().await;
            let (mut left, mut scrap) = (if end == End::Cut { LINGER_OCTETS_MAX } else { 0 }, [0; 512]);
            while left > 0 {
                match self.stream.read(&mut scrap).await {
                    Ok(n) if n > 0 => left = left.saturating_sub(n),
                    Ok(_) | Err(_) => break,
                }
            }
        };
        let _ = timeout(LINGER, closing).await;
    }
}
