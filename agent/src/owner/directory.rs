//! Which cgroup is whose, for all threads that want to know.
//!
//! An answer stays as it is for as long as the cgroup is known here: what belongs to an owner must not move between resources. One that is
//! gone stays known for longer than anything of it waits to be told, unless there are too many of them. Who only wants to have a cgroup
//! looked up ([`Directory::note`]) waits for nobody; a thread of its own looks.
//!
//! With each cgroup that is to be looked up comes a moment at which it had been heard of already: a walk over all cgroups that began
//! later and did not meet it proves that it is gone, so that however many are gone, one walk is enough for those heard of before it.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, Weak};
use std::time::{Duration, Instant};

use super::find::{Find, Finder};
use super::identity::Identity;
use super::names::Logs;
use crate::priority;

/// Cgroups that are known at most: half a KiB for each that has all names, 32 MiB for all. Where there is no room for another one, an
/// eighth is forgotten: first those that are gone, of them those that nobody has asked for longest, and what of their connections is not
/// told yet is the host's then; where fewer are gone, also such as are there, which are looked up again when they are asked for.
const LIMIT: usize = 65_536;

/// Cgroups that are forgotten at once, when there is no room for another one.
const SHARE: usize = LIMIT / 8;

/// Cgroups that may wait to be looked up. What finds no room is noted again by whoever meets it again.
const QUEUE: usize = 4_096;

/// A cgroup that is gone is forgotten when nobody has asked for it for so long beyond what its connections may wait to be told: requests
/// take their time too, and what closes late is still to find it.
const KEPT: Duration = Duration::from_mins(15);

/// Time between two looks at what can be forgotten.
const SWEEP: Duration = Duration::from_mins(1);

/// How long the names of a pod may take to appear.
const SETTLING: Duration = Duration::from_secs(2);

/// Pause of whoever waits for names.
const GLANCE: Duration = Duration::from_millis(50);

/// Longest sleep of the thread.
const TURN: Duration = Duration::from_millis(500);

/// What is known of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is being looked up.
    Pending,
    /// It has no owner but the host, or was gone before it could be looked up.
    Host,
    /// Whose it is.
    Of(Arc<Identity>),
}

/// The directory. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Shared>);

struct Shared {
    known: RwLock<HashMap<u64, Entry>>,
    noted: SyncSender<Noted>,
    finder: Mutex<Box<dyn Find>>,
    logs: Logs,
    /// A cgroup that is gone is forgotten when nobody has asked for it for so many seconds.
    kept: u32,
    started: Instant,
    /// Seconds since then, about: when something was asked for need not be exact.
    now: AtomicU32,
    unresolved: AtomicU64,
}

/// A cgroup that is to be looked up, and when it was heard of.
type Noted = (u64, Instant);

struct Entry {
    state: State,
    /// When somebody asked for it last.
    asked: AtomicU32,
}

enum State {
    /// Found, and waiting for names until this moment.
    Settling(Box<Identity>, Instant),
    /// None: the host's.
    Settled(Option<Arc<Identity>>),
}

impl Directory {
    /// Starts the thread. It ends with the last clone. What is noted now may be asked for again as late as after `wait`: so long things
    /// may wait to be told, and what is known of a cgroup that is gone by then is kept for them.
    pub fn start(logs: Logs, wait: Duration) -> io::Result<Self> {
        Self::start_with(Box::new(Finder::new()), logs, wait)
    }

    fn start_with(finder: Box<dyn Find>, logs: Logs, wait: Duration) -> io::Result<Self> {
        let (noted, queue) = sync_channel(QUEUE);
        // Whoever waits knows how long he has to a part of that only, an export queue to a 32nd.
        let kept = KEPT.saturating_add(wait).saturating_add(wait / 16);
        let shared = Arc::new(Shared {
            known: RwLock::default(),
            noted,
            finder: Mutex::new(finder),
            logs,
            kept: u32::try_from(kept.as_secs()).unwrap_or(u32::MAX),
            started: Instant::now(),
            now: AtomicU32::new(0),
            unresolved: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new().name("synfin-owners".to_owned()).spawn(move || {
            priority::lower();
            work(&weak, &queue);
        })?;
        Ok(Self(shared))
    }

    /// What is known now. Asks for a look-up where nothing is. Zero is how the kernel says that it does not know.
    pub fn identity(&self, cgroup: u64) -> Known {
        let known = self.0.known(cgroup);
        if known.is_none() {
            _ = self.0.noted.try_send((cgroup, Instant::now())); // without room for it, whoever asks next asks again
        }
        known.unwrap_or(Known::Pending)
    }

    /// Whose it is, looked up at once where that is not known. May wait a little. None: the host's. `heard` as in [`Directory::settle`].
    pub fn resolve(&self, cgroup: u64, heard: Instant) -> Option<Arc<Identity>> {
        match self.0.known(cgroup) {
            Some(Known::Host) => None,
            Some(Known::Of(identity)) => Some(identity),
            Some(Known::Pending) | None => self.0.look_up(&mut **self.0.finder(), cgroup, heard, true),
        }
    }

    /// Whose it is, with its names, for which it waits as long as they may take to appear. None: the host's. `heard` is a moment at which
    /// the cgroup had been heard of: whoever asks for many has one for all of them, so that one look is enough for those that are gone.
    pub fn settle(&self, cgroup: u64, heard: Instant) -> Option<Arc<Identity>> {
        let until = Instant::now() + SETTLING;
        loop {
            match self.0.known(cgroup) {
                Some(Known::Host) => return None,
                Some(Known::Of(identity)) => return Some(identity),
                Some(Known::Pending) | None if Instant::now() >= until => {
                    return self.0.look_up(&mut **self.0.finder(), cgroup, heard, true);
                }
                Some(Known::Pending) => std::thread::sleep(GLANCE),
                None => drop(self.0.look_up(&mut **self.0.finder(), cgroup, heard, false)),
            }
        }
    }

    /// Has a cgroup looked up soon. Never waits; false if that was not possible without, so that it must be noted again.
    pub fn note(&self, cgroup: u64) -> bool {
        let Shared { known, noted, .. } = &*self.0;
        let known = match known.try_read() {
            Ok(known) => known,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if let Some(entry) = known.get(&cgroup) {
            entry.asked.store(self.0.now.load(Ordering::Relaxed), Ordering::Relaxed);
            return true;
        }
        cgroup == 0 || noted.try_send((cgroup, Instant::now())).is_ok()
    }

    /// Cgroups that were gone, or out of sight, before they could be looked up: their connections are told as the host's.
    pub fn unresolved(&self) -> u64 {
        self.0.unresolved.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<u64, Entry>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u64, Entry>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn finder(&self) -> MutexGuard<'_, Box<dyn Find>> {
        self.finder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, cgroup: u64) -> Option<Known> {
        if cgroup == 0 {
            return Some(Known::Host);
        }
        let known = self.read();
        let entry = known.get(&cgroup)?;
        entry.asked.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(match &entry.state {
            State::Settling(..) => Known::Pending,
            State::Settled(None) => Known::Host,
            State::Settled(Some(identity)) => Known::Of(Arc::clone(identity)),
        })
    }

    /// Looks a cgroup up that had been heard of at `heard`, and settles what it is: `at_once`, or when its names are known. Whoever holds
    /// the finder is the only one who changes what is known.
    fn look_up(&self, finder: &mut dyn Find, cgroup: u64, heard: Instant, at_once: bool) -> Option<Arc<Identity>> {
        let begun = match self.read().get(&cgroup).map(|entry| &entry.state) {
            Some(State::Settled(identity)) => return identity.clone(),
            Some(State::Settling(identity, due)) => Some((identity.clone(), *due)),
            None => None,
        };
        let begun = begun.or_else(|| {
            let path = finder.path(cgroup, heard);
            if path.is_none() {
                self.unresolved.fetch_add(1, Ordering::Relaxed);
            }
            Some((Box::new(Identity::of(&path?)?), Instant::now() + SETTLING))
        });
        let state = match begun {
            Some((mut identity, due)) => {
                let may_come = identity.name(&self.logs);
                if may_come && !at_once && Instant::now() < due {
                    State::Settling(identity, due)
                } else {
                    State::Settled(Some(Arc::new(*identity)))
                }
            }
            None => State::Settled(None),
        };
        let settled = match &state {
            State::Settled(identity) => identity.clone(),
            State::Settling(..) => None,
        };
        self.make_room(finder);
        let asked = AtomicU32::new(self.now.load(Ordering::Relaxed));
        self.write().insert(cgroup, Entry { state, asked });
        settled
    }

    /// Cgroups that wait for their names.
    fn settling(&self) -> Vec<u64> {
        let known = self.read();
        known.iter().filter(|(_, entry)| matches!(entry.state, State::Settling(..))).map(|(id, _)| *id).collect()
    }

    /// Forgets a share of a full directory. What is gone goes first: what is there can be looked up again. Of either, what nobody has asked
    /// for longest.
    fn make_room(&self, finder: &mut dyn Find) {
        if self.read().len() < LIMIT {
            return;
        }
        let age = |(id, entry): (&u64, &Entry)| (entry.asked.load(Ordering::Relaxed), *id);
        let mut by_age: Vec<(u32, u64)> = self.read().iter().map(age).collect();
        by_age.sort_unstable();
        let heard = Instant::now();
        let (mut gone, mut there) = (Vec::new(), Vec::new());
        for (_, id) in by_age {
            if gone.len() == SHARE {
                break;
            }
            let list = if finder.path(id, heard).is_none() { &mut gone } else { &mut there };
            list.push(id);
        }
        let mut known = self.write();
        for id in gone.iter().chain(&there).take(SHARE) {
            known.remove(id);
        }
    }

    /// Forgets what nobody has asked for in a long time, so many seconds after the start, if it is gone.
    fn sweep(&self, finder: &mut dyn Find, now: u32) {
        let Some(before) = now.checked_sub(self.kept) else { return };
        let is_old = |entry: &Entry| entry.asked.load(Ordering::Relaxed) < before;
        let old: Vec<u64> = self.read().iter().filter(|(_, entry)| is_old(entry)).map(|(id, _)| *id).collect();
        let heard = Instant::now();
        let gone: Vec<u64> = old.into_iter().filter(|id| finder.path(*id, heard).is_none()).collect();
        let mut known = self.write();
        for id in gone {
            // Unless somebody has asked meanwhile.
            if known.get(&id).is_some_and(is_old) {
                known.remove(&id);
            }
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("known", &self.read().len()).finish_non_exhaustive()
    }
}

fn work(shared: &Weak<Shared>, queue: &Receiver<Noted>) {
    let mut swept = Instant::now();
    loop {
        let first = match queue.recv_timeout(TURN) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(shared) = shared.upgrade() else { return };
        let now = shared.started.elapsed().as_secs() as u32;
        shared.now.store(now, Ordering::Relaxed);
        // Only what is there already, so that a turn has an end: what comes meanwhile is for the next one.
        let noted: Vec<Noted> = first.into_iter().chain(queue.try_iter().take(QUEUE)).collect();
        for (cgroup, heard) in noted {
            // One by one: whoever cannot wait gets the finder in between.
            shared.look_up(&mut **shared.finder(), cgroup, heard, false);
        }
        for cgroup in shared.settling() {
            shared.look_up(&mut **shared.finder(), cgroup, Instant::now(), false);
        }
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            shared.sweep(&mut **shared.finder(), now);
        }
    }
}

#[cfg(test)]
mod tests;
