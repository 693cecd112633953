//! Walks over the kernel's socket tables by its own iterators (`iter/tcp`).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;

use aya::maps::{Array, HashMap, MapData, MapError};
use aya::programs::{Iter, ProgramError};
use aya::{Ebpf, EbpfLoader};
use synfin_common::census as wire;
use zerocopy::{FromBytes, IntoBytes as _};

use super::filter::FilterMaps;
use super::{
    Attachment, Filter, LoadError, OBJECT, Survey, give_memory_back, map, memlock, placed, refusal, survey, verifier,
};
use crate::census::{Group, Held, Listener, PortSet, Socket, States, Strays, Sums, Walk};

/// The programs and their maps.
pub struct Iterators {
    ebpf: Ebpf,
    groups: HashMap<MapData, [u8; size_of::<wire::GroupKey>()], [u8; size_of::<wire::Group>()]>,
    listeners: HashMap<MapData, u64, [u8; size_of::<wire::Listener>()]>,
    ports: HashMap<MapData, [u8; size_of::<wire::PortKey>()], u32>,
    taken: Array<MapData, wire::PortBits>,
    stray: Array<MapData, u64>,
    wanted: Array<MapData, u32>,
    _filter: FilterMaps,
    /// The program that lists.
    listing: &'static str,
    /// Whether the kernel has taken the program that tells holders.
    tells_holders: bool,
    buffer: Vec<u64>,
}

impl std::fmt::Debug for Iterators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iterators").finish_non_exhaustive()
    }
}

/// Why the kernel's iterators cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IteratorError {
    /// Maps, globals, types.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused a program.
    #[error("{0}")]
    Refused(String),
}

/// What the programs walk over.
const TCP: &str = "tcp";
const TASK_FILE: &str = "task_file";

/// The program that counts.
const CENSUS: &str = "census";

/// The programs that list, best first: the second asks no helper that 5.10 does not have.
const SOCKETS: [&str; 2] = ["sockets", "sockets_lean"];

/// The program that tells who holds sockets.
const HOLDERS: &str = "holders";

/// What one read may bring: the kernel fills at most 32 KiB.
const READ: usize = 32 << 10;

impl Iterators {
    /// Loads the programs. They look at what `filter` admits.
    pub fn load(attachment: &Attachment, filter: &Filter) -> Result<Self, IteratorError> {
        let iterators = Self::load_all(attachment, filter);
        give_memory_back();
        iterators
    }

    fn load_all(attachment: &Attachment, filter: &Filter) -> Result<Self, IteratorError> {
        filter.check()?;
        let Survey { ladder, offsets, mut knobs, layouts, .. } = survey(attachment)?;
        knobs.filters = filter.bits();
        if OBJECT.is_empty() {
            return Err(LoadError::NoObject.into());
        }
        ladder.fields.map_err(IteratorError::Refused)?;
        let btf = ladder.btf.map_err(IteratorError::Refused)?;
        let object = placed(&offsets)?;
        let mut ebpf = memlock::retry(|| {
            EbpfLoader::new()
                .btf(Some(&btf))
                .override_global("OFFSETS", offsets.as_bytes(), true)
                .override_global("KNOBS", knobs.as_bytes(), true)
                .override_global("LAYOUTS", layouts.as_bytes(), true)
                // These programs write nothing there.
                .map_max_entries("EVENTS", 4096)
                .map_max_entries("TALLY", 1)
                .load(object.as_bytes())
        })
        .map_err(LoadError::from)?;
        let mut load = |name, target| {
            iterator(&mut ebpf, name)
                .and_then(|program| verifier::load(|| program.load(target, &btf)))
                .map_err(|error| IteratorError::Refused(refusal::of_program(name, &error)))
        };
        load(CENSUS, TCP)?;
        // What the better one lacks is told.
        let listing = match load(SOCKETS[0], TCP) {
            Ok(()) => SOCKETS[0],
            Err(error) => load(SOCKETS[1], TCP).map(|()| SOCKETS[1]).map_err(|_lean| error)?,
        };
        // /proc tells the same, and by the numbers that processes have where the agent is.
        let tells_holders = is_first_pid_namespace()
            && load(HOLDERS, TASK_FILE)
                .inspect_err(|error| tracing::debug!(%error, "who holds sockets is looked up in /proc"))
                .is_ok();
        Ok(Self {
            groups: map(&mut ebpf, "GROUPS")?,
            listeners: map(&mut ebpf, "LISTENERS")?,
            ports: map(&mut ebpf, "PORTS")?,
            taken: map(&mut ebpf, "TAKEN")?,
            stray: map(&mut ebpf, "STRAY")?,
            wanted: map(&mut ebpf, "WANTED")?,
            _filter: FilterMaps::fill(&mut ebpf, filter)?,
            ebpf,
            listing,
            tells_holders,
            buffer: vec![0; READ / size_of::<u64>()],
        })
    }

    /// Begins a walk of the namespace that this thread is in.
    fn open(&mut self, name: &str) -> io::Result<File> {
        let mut open = || {
            let program = iterator(&mut self.ebpf, name)?;
            let link = program.attach()?;
            Ok(program.take_link(link)?.into_file()?)
        };
        open().map_err(|error: OpenError| io::Error::other(error.0))
    }

    /// Walks by a program that writes records.
    fn rows<T: FromBytes>(&mut self, name: &str, each: &mut dyn FnMut(&T)) -> io::Result<()> {
        let mut file = self.open(name)?;
        // A read ends between two records, unless the buffer does not take it.
        let mut kept = 0;
        loop {
            let bytes = self.buffer.as_mut_bytes();
            let len = read(&mut file, &mut bytes[kept..])?;
            if len == 0 {
                return Ok(());
            }
            let whole = kept + len;
            let (rows, rest) = bytes[..whole].split_at(whole - whole % size_of::<T>());
            for row in rows.chunks_exact(size_of::<T>()) {
                T::read_from_bytes(row).iter().for_each(&mut *each);
            }
            kept = rest.len();
            bytes.copy_within(whole - kept..whole, 0);
        }
    }
}

/// Whether the kernel's own numbers of processes are those that this process sees.
fn is_first_pid_namespace() -> bool {
    /// `PROC_PID_INIT_INO` of the kernel.
    const FIRST: u64 = 0xefff_fffc;
    fs::metadata("/proc/self/ns/pid").is_ok_and(|metadata| metadata.ino() == FIRST)
}

/// What aya says, in words.
struct OpenError(String);

impl<T: std::error::Error> From<T> for OpenError {
    fn from(error: T) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self(text)
    }
}

fn iterator<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Iter, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()
}

/// Reads on. A walk that wrote nothing for a million sockets says EAGAIN and goes on with the next read.
fn read(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            result => return result,
        }
    }
}

fn failed(error: MapError) -> io::Error {
    io::Error::other(error)
}

impl Walk for Iterators {
    fn count(&mut self) -> io::Result<PortSet> {
        self.taken.set(0, [0; size_of::<wire::PortBits>() / size_of::<u64>()], 0).map_err(failed)?;
        let mut file = self.open(CENSUS)?;
        // The program writes nothing: the first read is the whole walk.
        while read(&mut file, self.buffer.as_mut_bytes())? > 0 {}
        Ok(self.taken.get(&0, 0).map_err(failed)?.into())
    }

    fn take(&mut self) -> io::Result<Sums> {
        let mut sums = Sums::default();
        let groups: Vec<_> = self.groups.iter().collect::<Result<_, _>>().map_err(failed)?;
        for (key, row) in groups {
            self.groups.remove(&key).map_err(failed)?;
            let (key, row): (wire::GroupKey, wire::Group) = (zerocopy::transmute!(key), zerocopy::transmute!(row));
            match Group::from_wire(&key, &row) {
                Some(group) => sums.groups.push(group),
                None => sums.strays.unreadable += row.sockets,
            }
        }
        let listeners: Vec<_> = self.listeners.iter().collect::<Result<_, _>>().map_err(failed)?;
        for (key, row) in listeners {
            self.listeners.remove(&key).map_err(failed)?;
            let row: wire::Listener = zerocopy::transmute!(row);
            sums.listeners.push(Listener::from_wire(&row));
        }
        let ports: Vec<_> = self.ports.keys().collect::<Result<_, _>>().map_err(failed)?;
        for port in ports {
            self.ports.remove(&port).map_err(failed)?;
        }
        let mut stray = |slot| {
            let count = self.stray.get(&slot, 0).map_err(failed)?;
            self.stray.set(slot, 0, 0).map_err(failed)?;
            io::Result::Ok(count)
        };
        let Strays { groups, listeners, unreadable } = &mut sums.strays;
        *groups += stray(wire::stray::GROUPS)?;
        *listeners += stray(wire::stray::LISTENERS)?;
        *unreadable += stray(wire::stray::UNREADABLE)?;
        sums.sort();
        Ok(sums)
    }

    fn list(&mut self, states: States, each: &mut dyn FnMut(&Socket)) -> io::Result<()> {
        self.wanted.set(0, states.0, 0).map_err(failed)?;
        self.rows(self.listing, &mut |row| {
            if let Some(socket) = Socket::from_wire(row) {
                each(&socket);
            }
        })
    }

    fn holders(&mut self, each: &mut dyn FnMut(Held)) -> io::Result<bool> {
        if self.tells_holders {
            self.rows(HOLDERS, &mut |row| each(Held::from_wire(row)))?;
        }
        Ok(self.tells_holders)
    }
}
