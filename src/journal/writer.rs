//! The log's way out: a bounded buffer and a thread that empties it, so that a stalled standard error costs lines and
//! never time.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lines that are not yet written; past it new ones are dropped and counted.
const PENDING_OCTETS_MAX: usize = 1024 * 1024;
/// A buffer that grew past this is given back.
const BUFFER_OCTETS_KEPT: usize = 64 * 1024;
/// After the first line it waits so long for more: one write and one wake-up for all of them.
const GATHER: Duration = Duration::from_millis(5);
/// After lines more are likely: it looks again so often…
const NAP: Duration = GATHER;
/// …and so many times, before somebody has to wake it. A wake-up costs whoever writes a line, and takes a core from the
/// mail that the line is about.
const NAPS: u32 = 200;
/// Between tries where the other side is non-blocking and full.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// The bounded, non-blocking writer. Clones share it.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The thread waits here for lines.
    work: Condvar,
    /// [`Writer::flush`] waits here until all are written.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    /// Dropped since the thread last said so.
    dropped: u64,
    asleep: bool,
    writing: bool,
}

impl Writer {
    /// How long the process waits at its end for what is pending.
    pub const FLUSH_MAX: Duration = Duration::from_secs(1);

    /// Starts the thread that writes to `out`.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = Arc::clone(&shared);
        std::thread::Builder::new().name("log".into()).spawn(move || thread.run(out))?;
        Ok(Writer(shared))
    }

    /// Takes one whole line, or drops it when the buffer is full. Never waits for the other side.
    pub fn put(&self, line: &[u8]) {
        let mut state = self.0.lock();
        if state.pending.len() + line.len() > PENDING_OCTETS_MAX {
            state.dropped += 1;
            drop(state);
            ::metrics::counter!(crate::metrics::LOG_LINES_DROPPED).increment(1);
            return;
        }
        state.pending.extend_from_slice(line);
        if std::mem::take(&mut state.asleep) {
            self.0.work.notify_one();
        }
    }

    /// Waits at most so long until all is written; `false` when it is not.
    pub fn flush(&self, at_most: Duration) -> bool {
        let unwritten = |state: &mut State| state.writing || !state.pending.is_empty();
        let waited = self.0.written.wait_timeout_while(self.0.lock(), at_most, unwritten);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            if !self.nap_for_lines() {
                self.wait_for_lines();
                std::thread::sleep(GATHER);
            }
            let dropped = {
                let mut state = self.lock();
                std::mem::swap(&mut state.pending, &mut lines);
                state.writing = true;
                std::mem::take(&mut state.dropped)
            };
            write_all(&mut out, &lines);
            lines.clear();
            lines.shrink_to(BUFFER_OCTETS_KEPT);
            if dropped > 0 {
                tracing::warn!(target: "postroad", lines = dropped, "log lines were dropped: standard error was full");
            }
            let mut state = self.lock();
            state.writing = false;
            if state.pending.is_empty() {
                self.written.notify_all();
            }
        }
    }

    /// `false`: none came, and nobody knows when one will.
    fn nap_for_lines(&self) -> bool {
        (0..NAPS).any(|_| {
            std::thread::sleep(NAP);
            !self.lock().pending.is_empty()
        })
    }

    fn wait_for_lines(&self) {
        let mut state = self.lock();
        while state.pending.is_empty() {
            state.asleep = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes on until it is taken. A side that is gone for good (a closed pipe) loses it: there is nobody to tell.
fn write_all(out: &mut impl Write, mut lines: &[u8]) {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => return,
            Ok(n) => lines = lines.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
            Err(_) => return,
        }
    }
    let _ = out.flush();
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::mpsc;

    pub type Lines = Arc<Mutex<Vec<u8>>>;

    struct Sink(Lines);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A sink, and what it has taken.
    pub fn sink() -> (impl Write + Send, Lines) {
        let lines = Lines::default();
        (Sink(Arc::clone(&lines)), lines)
    }

    /// Blocks until the test lets it go.
    struct Stalled {
        entered: mpsc::Sender<()>,
        go: mpsc::Receiver<()>,
        sink: Sink,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            let _ = self.go.recv();
            self.sink.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_writer_drops_and_counts_and_never_blocks() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let (entered, stalled) = mpsc::channel();
        let (go_on, go) = mpsc::channel();
        let lines = Lines::default();
        let writer = Writer::start(Stalled { entered, go, sink: Sink(Arc::clone(&lines)) }).unwrap();
        writer.put(b"first\n");
        stalled.recv_timeout(Duration::from_secs(10)).unwrap();
        let line = [b'x'; 1024];
        ::metrics::with_local_recorder(&recorder, || (0..1030).for_each(|_| writer.put(&line)));
        assert_eq!(writer.0.lock().dropped, 6, "1,024 fit while the thread stands in its write");
        assert!(recorder.handle().render().contains("postroad_log_lines_dropped_total 6"));
        assert!(!writer.flush(Duration::from_millis(10)), "the flush is bounded too");
        drop(go_on);
        assert!(writer.flush(Duration::from_secs(10)));
        assert_eq!(lines.lock().unwrap().len(), 6 + 1024 * 1024, "what was taken is written");
    }

    #[test]
    fn a_full_or_interrupted_side_is_tried_again_and_a_closed_one_is_left() {
        struct Script(Vec<io::Result<usize>>, Lines);
        impl Write for Script {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let n = self.0.pop().unwrap_or(Ok(0))?.min(bytes.len());
                self.1.lock().unwrap().extend_from_slice(&bytes[..n]);
                Ok(n)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let taken = Lines::default();
        let error = |kind: io::ErrorKind| Err(kind.into());
        let script =
            vec![Ok(99), error(io::ErrorKind::WouldBlock), Ok(2), error(io::ErrorKind::Interrupted), Ok(1)];
        write_all(&mut Script(script, Arc::clone(&taken)), b"abcdef");
        assert_eq!(*taken.lock().unwrap(), b"abcdef");
        write_all(&mut Script(vec![error(io::ErrorKind::BrokenPipe)], Arc::clone(&taken)), b"gone");
        assert_eq!(taken.lock().unwrap().len(), 6);
    }
}
