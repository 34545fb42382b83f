//! One line to an upstream: a socket, plain or under TLS, that writes what was gathered and reads one bounded reply.

use std::future::poll_fn;
use std::io::{self, BufRead as _};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::client::TlsStream;

use super::reply::{self, Garbage, REPLY_OCTETS_MAX, Whole};
use crate::clock::monotonic;
use crate::mail::{Answer, Watch};

/// One read.
const READ_OCTETS: usize = 4096;
/// So much of what nobody asked for is looked at.
const UNASKED_OCTETS: usize = 512;
/// How long the runtime may take to see what the kernel has.
const UNASKED_READ: Duration = Duration::from_secs(1);
/// A larger buffer is not kept between messages.
const KEPT_OCTETS_MAX: usize = 32 * 1024;

/// Why a line can be used no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// EOF where a reply should begin.
    #[error("the connection was closed")]
    Closed,
    /// EOF inside a reply.
    #[error("the connection was closed in the middle of a reply: {0}")]
    Half(String),
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nothing moved for so long.
    #[error("nothing moved for {0:?}")]
    Hung(Duration),
    /// No whole reply in so long: what there is of it.
    #[error("no whole reply within {0:?}, only: {1}")]
    Slow(Duration, String),
    /// Not SMTP.
    #[error("not an SMTP reply: {0}")]
    Garbage(String),
    /// Said before it could have seen the command.
    #[error("out of step, it spoke unasked: {0}")]
    Unasked(String),
    /// This machine has too little of something to begin: no word about the other side.
    #[error("{0}")]
    Lack(String),
    /// Anything else that ends the dialogue.
    #[error("{0}")]
    Other(String),
}

impl From<Garbage> for Broken {
    fn from(garbage: Garbage) -> Self {
        Broken::Garbage(garbage.0)
    }
}

impl Broken {
    /// Whether the other side ended the connection: on a reused one this is no news about the ESP.
    pub fn ended_by_peer(&self) -> bool {
        matches!(self, Broken::Closed | Broken::Half(_) | Broken::Io(_))
    }

    /// Whether nobody can tell which reply answers what, those before it included.
    pub fn out_of_step(&self) -> bool {
        matches!(self, Broken::Garbage(_) | Broken::Unasked(_))
    }
}

/// The socket.
#[derive(Debug)]
pub(super) enum Stream {
    /// Without TLS.
    Plain(TcpStream),
    /// Under TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Nothing waits to be read, neither data nor an end. Asks the kernel, not the runtime: what came since the
    /// runtime last looked counts. Under TLS any octet counts, also one that is no data: a needless new connection is
    /// cheaper than a wrong answer.
    fn quiet(&mut self) -> bool {
        let mut octet = [MaybeUninit::uninit()];
        let peeked = SockRef::from(self.tcp()).peek(&mut octet);
        let nothing = |e: io::Error| e.kind() == io::ErrorKind::WouldBlock;
        let decrypted_none = match self {
            Stream::Plain(_) => true,
            Stream::Tls(tls) => tls.get_mut().1.reader().fill_buf().is_err_and(nothing),
        };
        peeked.is_err_and(nothing) && decrypted_none
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Stream::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_flush(cx),
            Stream::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// The socket with its buffers.
#[derive(Debug)]
pub(super) struct Line {
    pub stream: Stream,
    /// What is gathered for the next [`Line::send`].
    pub out: Vec<u8>,
    input: Vec<u8>,
    /// How much of `input` is used up.
    used: usize,
    timeout: Duration,
    /// Told of every octet; of the exchange that the line is used for now.
    pub watch: Watch,
}

impl Line {
    pub fn new(stream: Stream, timeout: Duration, watch: Watch) -> Self {
        Line {
            stream,
            out: Vec::with_capacity(1024),
            input: Vec::with_capacity(READ_OCTETS),
            used: 0,
            timeout,
            watch,
        }
    }

    /// Nothing was said that is not read yet.
    pub fn quiet(&mut self) -> bool {
        self.quiet_since(0)
    }

    /// Nothing was said since so many octets lay unread.
    pub fn quiet_since(&mut self, unread: usize) -> bool {
        self.unread() == unread && self.stream.quiet()
    }

    /// Octets behind the last reply that was read.
    pub fn unread(&self) -> usize {
        self.input.len() - self.used
    }

    /// No octet lies behind the last reply that was read.
    pub fn caught_up(&self) -> bool {
        self.unread() == 0
    }

    /// Writes what is gathered.
    pub async fn send(&mut self) -> Result<(), Broken> {
        let mut out = std::mem::take(&mut self.out);
        let sent = self.write(&out).await;
        out.clear();
        out.shrink_to(KEPT_OCTETS_MAX);
        self.out = out;
        sent
    }

    /// Writes what is gathered, to a server that has been silent since the last reply to it: what it says before it can
    /// have seen a command is no answer to that.
    pub async fn ask(&mut self) -> Result<(), Broken> {
        if self.caught_up() && !self.stream.quiet() {
            self.listen().await?;
        }
        let said = &self.input[self.used..];
        // Who goes says so unasked (RFC 5321 section 3.8), and that answers whatever is said next.
        let goes = matches!(reply::whole(said), Ok(Some(whole)) if whole.code == 421);
        if said.is_empty() || goes {
            return self.send().await;
        }
        Err(Broken::Unasked(reply::excerpt(said)))
    }

    /// Reads what is there already, if it is more than octets of TLS's own. An end is left to the next reply.
    async fn listen(&mut self) -> Result<(), Broken> {
        let mut octets = [0; UNASKED_OCTETS];
        let mut heard = ReadBuf::new(&mut octets);
        let stream = &mut self.stream;
        let read = poll_fn(|cx| match Pin::new(&mut *stream).poll_read(cx, &mut heard) {
            Poll::Pending if stream.quiet() => Poll::Ready(Ok(())),
            other => other,
        });
        if let Ok(read) = timeout(UNASKED_READ, read).await {
            read?;
        }
        self.input.extend_from_slice(heard.filled());
        Ok(())
    }

    /// Writes `rest`. The time-out is for a stretch in which nothing moves, so that a slow line is not a dead one.
    pub async fn write(&mut self, mut rest: &[u8]) -> Result<(), Broken> {
        let within = self.timeout;
        while !rest.is_empty() {
            let moved =
                timeout(within, self.stream.write(rest)).await.map_err(|_| Broken::Hung(within))??;
            if moved == 0 {
                return Err(Broken::Closed);
            }
            self.watch.moved();
            rest = &rest[moved..];
        }
        Ok(timeout(within, self.stream.flush()).await.map_err(|_| Broken::Hung(within))??)
    }

    /// One reply, within the time-out for commands.
    pub async fn reply(&mut self) -> Result<Answer, Broken> {
        self.reply_within(self.timeout).await
    }

    /// One reply, within `within` from now: many small pieces do not prolong it.
    pub async fn reply_within(&mut self, within: Duration) -> Result<Answer, Broken> {
        self.read_reply(within, reply::answer).await
    }

    /// One reply, made into something by `read`, which gets its code and all its lines.
    pub async fn read_reply<T>(
        &mut self,
        within: Duration,
        read: impl Fn(u16, &[u8]) -> T,
    ) -> Result<T, Broken> {
        let whole = self.await_reply(within).await?;
        let end = self.used + whole.octets;
        let made = read(whole.code, &self.input[self.used..end]);
        self.used = end;
        if self.caught_up() {
            self.input.clear();
            self.input.shrink_to(KEPT_OCTETS_MAX);
            self.used = 0;
        }
        Ok(made)
    }

    async fn await_reply(&mut self, within: Duration) -> Result<Whole, Broken> {
        if let Some(whole) = reply::whole(&self.input[self.used..])? {
            return Ok(whole);
        }
        self.input.drain(..self.used);
        self.used = 0;
        let end = monotonic() + within;
        loop {
            let before = self.input.len();
            self.input.reserve(READ_OCTETS);
            let read = timeout_at(end, self.stream.read_buf(&mut self.input)).await;
            let Ok(read) = read else { return Err(self.at_timeout(within)) };
            if read? == 0 {
                return Err(self.at_end());
            }
            self.watch.moved();
            let complete_line = memchr::memchr(b'\n', &self.input[before..]).is_some();
            if (complete_line || self.input.len() > REPLY_OCTETS_MAX)
                && let Some(whole) = reply::whole(&self.input)?
            {
                return Ok(whole);
            }
        }
    }

    fn at_timeout(&self, within: Duration) -> Broken {
        match self.input.is_empty() {
            true => Broken::Hung(within),
            false => Broken::Slow(within, reply::excerpt(&self.input)),
        }
    }

    fn at_end(&self) -> Broken {
        if self.input.is_empty() { Broken::Closed } else { Broken::Half(reply::excerpt(&self.input)) }
    }
}
