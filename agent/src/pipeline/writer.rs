//! Stdout, by a thread of its own: whoever reads it may be slow, and the drain must not wait for him.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Bytes that wait at most. Beyond that the drain waits, the ring fills, and what it has no room for is counted as lost.
const LIMIT: usize = 64 << 20;

/// The end that takes text.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something waits, or nothing more will come.
    work: Condvar,
    /// What waited has been taken, or never will be.
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    closed: bool,
    error: Option<io::Error>,
    /// The thread has ended.
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Bytes and flags: right whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes to `out` from now on.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("synfin-write".to_owned()).spawn(move || write(&theirs, out))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes `text` in. Fails with what an earlier write failed with.
    pub(super) fn push(&self, text: &[u8]) -> io::Result<()> {
        let mut state = self.shared.lock();
        while state.waiting.len() >= LIMIT && !state.ended {
            state = self.shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.ended {
            return Err(state.error.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
        }
        if !text.is_empty() {
            state.waiting.extend_from_slice(text);
            self.shared.work.notify_one();
        }
        Ok(())
    }

    /// Waits until everything is written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.close();
        match self.shared.lock().error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn close(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by its hook.
            let _ended = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Says that the thread has ended, however it ends.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.room.notify_all();
    }
}

fn write(shared: &Shared, mut out: impl Write) {
    let _end = End(shared);
    let mut text = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.waiting.is_empty() && !state.closed {
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.waiting.is_empty() {
            return;
        }
        // The other buffer comes back empty, with its room.
        mem::swap(&mut state.waiting, &mut text);
        shared.room.notify_all();
        drop(state);
        if let Err(error) = out.write_all(&text).and_then(|()| out.flush()) {
            shared.lock().error = Some(error);
            return;
        }
        text.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Passes on what is written, each piece when the other end wants it.
    struct Slow(mpsc::SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_gone| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_reader_holds_nobody_up_and_misses_nothing() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let writer = Writer::start(Slow(sender)).unwrap();
        for line in 0..1000 {
            // Nobody reads yet: this would hang if it waited for the reader.
            writer.push(format!("{line}\n").as_bytes()).unwrap();
        }
        let reader = thread::spawn(move || receiver.iter().flatten().collect::<Vec<u8>>());
        writer.finish().unwrap();
        let written = String::from_utf8(reader.join().unwrap()).unwrap();
        assert!(written.lines().eq((0..1000).map(|line| line.to_string())), "{written}");
    }

    #[test]
    fn a_reader_that_went_away_is_told_of() {
        let (sender, receiver) = mpsc::sync_channel(0);
        drop(receiver);
        let writer = Writer::start(Slow(sender)).unwrap();
        let error = loop {
            if let Err(error) = writer.push(b"line\n") {
                break error;
            }
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_full_buffer_makes_the_writer_wait_for_room() {
        let (sender, receiver) = mpsc::sync_channel(0);
        let writer = Writer::start(Slow(sender)).unwrap();
        let chunk = vec![b'x'; LIMIT];
        writer.push(&chunk).unwrap();
        let reader = thread::spawn(move || receiver.iter().map(|piece| piece.len()).sum::<usize>());
        writer.push(&chunk).unwrap();
        writer.push(b"!").unwrap();
        writer.finish().unwrap();
        assert_eq!(reader.join().unwrap(), 2 * LIMIT + 1);
    }
}
