//! The thread that looks at the kernel's socket tables: by itself at the pace of the census, and when the ledger wants a listing.
//! It moves through the namespaces, so that nothing else runs there.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use anyhow::Context as _;

use crate::census::cadence::{Cadence, PERIOD, Pace};
use crate::census::{Census, Only, Socket, States, Walk, Walker};
use crate::clock::Clock;
use crate::ledger::Owners;

/// Sockets handed over at once.
const CHUNK: usize = 1024;

/// Messages that may wait: a slow ledger holds the listing up, not the memory.
const WAITING: usize = 8;

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// List every full socket.
    List,
    /// These are the namespaces to look at from now on.
    Only(Only),
}

/// What it tells.
#[derive(Debug)]
pub(super) enum Tell {
    /// Who holds sockets, before the first of a listing.
    Owners(Owners),
    /// Sockets of a listing.
    Sockets(Vec<Socket>),
    /// The listing is complete for these namespaces.
    Listed(Listed),
    /// A census.
    Census(Box<Census>),
}

/// The end of a listing.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Namespaces all of whose sockets were told.
    pub(super) walked: Vec<u32>,
    /// Others, and why.
    pub(super) failures: Vec<(u32, String)>,
    /// When it ended, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) ended_ns: u64,
}

/// Both ends of the thread's channels. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Surveyor {
    pub(super) asks: SyncSender<Ask>,
    pub(super) tells: Receiver<Tell>,
}

impl Surveyor {
    /// Starts the thread.
    pub(super) fn start(walk: Box<dyn Walk>, only: Only, pace: Pace, clock: Arc<Clock>) -> anyhow::Result<Self> {
        let (asks, asked) = sync_channel(WAITING);
        let (told, tells) = sync_channel(WAITING);
        let work = move || {
            let cadence = Cadence::new(pace, clock.monotonic_ns());
            let mut desk = Desk { walker: Walker::new(walk, only), cadence, told, clock };
            // The engine is gone.
            let Err(SendError(())) = desk.work(&asked);
        };
        thread::Builder::new().name("synfin-census".to_owned()).spawn(work).context("cannot start the census")?;
        Ok(Self { asks, tells })
    }
}

struct Desk {
    walker: Walker,
    cadence: Cadence,
    told: SyncSender<Tell>,
    clock: Arc<Clock>,
}

/// There is no end but that of the engine.
enum Never {}

impl Desk {
    fn work(&mut self, asked: &Receiver<Ask>) -> Result<Never, SendError<()>> {
        let mut due = Instant::now();
        loop {
            match asked.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Ask::List) => self.list()?,
                Ok(Ask::Only(only)) => self.walker.set_only(only),
                Err(RecvTimeoutError::Timeout) => {
                    due = Instant::now() + PERIOD;
                    self.survey()?;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(SendError(())),
            }
        }
    }

    fn tell(&self, tell: Tell) -> Result<(), SendError<()>> {
        self.told.send(tell).map_err(|_gone| SendError(()))
    }

    fn survey(&mut self) -> Result<(), SendError<()>> {
        let clock = Arc::clone(&self.clock);
        match self.walker.survey(&mut self.cadence, &|| clock.monotonic_ns()) {
            Ok(census) => self.tell(Tell::Census(Box::new(census))),
            Err(error) => {
                tracing::warn!(%error, "the census could not be read");
                Ok(())
            }
        }
    }

    fn list(&mut self) -> Result<(), SendError<()>> {
        let mut owners = Owners::new();
        for held in self.walker.holders() {
            owners.entry(held.inode).or_insert(held.task); // of several that share it any one is a holder
        }
        self.tell(Tell::Owners(owners))?;
        self.walker.discover();
        let mut listed = Listed::default();
        for inode in self.walker.wanted() {
            match self.list_one(inode)? {
                Ok(true) => listed.walked.push(inode),
                Ok(false) => {} // vanished meanwhile
                Err(error) => listed.failures.push((inode, error.to_string())),
            }
        }
        listed.ended_ns = self.clock.monotonic_ns();
        self.tell(Tell::Listed(listed))
    }

    /// The sockets of one namespace. The outer error: the engine is gone.
    fn list_one(&mut self, inode: u32) -> Result<io::Result<bool>, SendError<()>> {
        let Self { walker, told, .. } = self;
        let mut chunk = Vec::new();
        let mut gone = false;
        let outcome = walker.list(inode, States::FULL, &mut |socket| {
            chunk.push(*socket);
            if chunk.len() >= CHUNK && !gone {
                gone = told.send(Tell::Sockets(std::mem::take(&mut chunk))).is_err();
            }
        });
        if gone || told.send(Tell::Sockets(chunk)).is_err() {
            return Err(SendError(()));
        }
        Ok(outcome)
    }
}
