//! Loads and attaches the programs, and holds what belongs to them: maps, links, verdicts.

mod filter;
mod iterators;
mod ladder;
mod memlock;
mod perf;
mod refusal;
mod verifier;

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf};
use aya::programs::BtfTracePoint;
use aya::util::{nr_cpus, online_cpus};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use synfin_common::knobs::{ABSENT, FIELDS, Knobs, Offsets};
use synfin_common::layout::{Layout, Layouts, TRACEPOINTS};
use synfin_common::tally::{TallyKey, tallied};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use self::filter::FilterMaps;
pub use self::filter::{Filter, Network};
pub use self::iterators::{IteratorError, Iterators};
use self::ladder::{Attached, Ground, Ladder, Outcome};
use crate::arch;
use crate::btf::{BtfError, Types, VMLINUX};
use crate::health::{Cost, Probe, Verdict};
use crate::lanes::{self, Lanes};
use crate::place::{PlaceError, place};
use crate::probes::{PROBES, ProbeSpec};
use crate::rung::Rung;
use crate::tracefs::{TraceEvent, Tracefs};

/// The programs, as build.rs left them. Empty in a build that skipped them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/synfin-ebpf"));

/// Why nothing could be loaded. A single program that the kernel refuses is a [`Verdict`], not an error.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A build for lint, without programs.
    #[error("this binary was built without its eBPF programs (AYA_BUILD_SKIP); build it with `cargo xtask build`")]
    NoObject,
    /// The BTF file that the user named is not usable.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// Maps or globals.
    #[error("cannot set up the eBPF maps: {0}")]
    Object(String),
    /// Nothing tells a socket's namespace.
    #[error(
        "a filter of network namespaces needs the kernel's types, which are not known ({0}); leave the filter out, or \
         give the kernel's BTF by --btf PATH"
    )]
    Namespaces(String),
    /// The programs.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A map is not what the agent expects.
    #[error("eBPF map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// A filter has more entries than its map.
    #[error("too many entries in filter {name}: {len}, at most {limit}")]
    Filter {
        /// Its name in the configuration.
        name: &'static str,
        /// Entries given.
        len: usize,
        /// Entries possible.
        limit: usize,
    },
}

impl From<EbpfError> for LoadError {
    fn from(error: EbpfError) -> Self {
        Self::Object(refusal::explain(&error))
    }
}

/// How the probes are to be attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The kernel's BTF file; None for the usual place, which need not exist.
    pub btf: Option<PathBuf>,
    /// The best rung that is tried.
    pub max_rung: Rung,
    /// Names of probes that are left out.
    pub disabled: Vec<String>,
}

/// The programs in the kernel. Dropping it detaches them.
pub struct Kernel {
    ebpf: Ebpf,
    attached: Vec<Attached>,
    probes: Vec<Probe>,
    reset_reasons: Arc<[String]>,
    filter: FilterMaps,
    lost: PerCpuArray<MapData, u64>,
    tally: PerCpuHashMap<MapData, [u8; size_of::<TallyKey>()], u64>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("probes", &self.probes).finish_non_exhaustive()
    }
}

/// Where the programs write.
#[expect(missing_debug_implementations, reason = "aya's ring has none")]
pub struct Outlets {
    /// None where the machine cannot have lanes.
    pub lanes: Option<Lanes>,
    /// The ring that all CPUs share.
    pub shared: RingBuf<MapData>,
}

/// Loads the object and attaches every probe that the kernel takes. `ring_size` is a power of two of at least a page.
pub fn load(attachment: &Attachment, ring_size: u32, filter: &Filter) -> Result<(Kernel, Outlets), LoadError> {
    filter.check()?;
    let Survey { ladder, grounds, offsets, mut knobs, layouts, reset_reasons } = survey(attachment)?;
    if filter.netns.as_ref().is_some_and(|netns| !netns.is_empty())
        && (offsets.skc_net == ABSENT || offsets.net_inum == ABSENT)
    {
        return Err(LoadError::Namespaces(ladder.fields.err().unwrap_or_else(|| "no field skc_net".to_owned())));
    }
    knobs.filters = filter.bits();
    let cpus = cpus();
    if arch::STORES_IN_ORDER {
        knobs.lane_slots = lanes::slots(ring_size, cpus);
    }
    if OBJECT.is_empty() {
        return Err(LoadError::NoObject);
    }
    let object = placed(&offsets)?;
    let mut ebpf = memlock::retry(|| {
        EbpfLoader::new()
            .btf(ladder.btf.as_ref().ok())
            .override_global("OFFSETS", offsets.as_bytes(), true)
            .override_global("KNOBS", knobs.as_bytes(), true)
            .override_global("LAYOUTS", layouts.as_bytes(), true)
            .map_max_entries("LANES", cpus)
            // An array has at least one element.
            .map_max_entries("SLOTS", (cpus * knobs.lane_slots).max(1))
            .map_max_entries("EVENTS", ring_size)
            .load(object.as_bytes())
    })?;
    drop(object);

    let filter = FilterMaps::fill(&mut ebpf, filter)?;
    let mut tally: PerCpuHashMap<MapData, _, u64> = map(&mut ebpf, "TALLY")?;
    make_overflow_rows(&mut tally).map_err(|source| LoadError::Map { name: "TALLY", source })?;
    let lost = map(&mut ebpf, "LOST")?;
    let (heads, slots) = (array(&mut ebpf, "LANES")?, array(&mut ebpf, "SLOTS")?);
    let lanes = if knobs.lane_slots == 0 {
        None
    } else {
        let lanes = Lanes::new(heads.fd().as_fd(), slots.fd().as_fd(), cpus, knobs.lane_slots);
        Some(lanes.map_err(|error| LoadError::Map { name: "SLOTS", source: error.into() })?)
    };
    let outlets = Outlets { lanes, shared: map(&mut ebpf, "EVENTS")? };
    // Its absence takes nothing from the data.
    let logger = EbpfLogger::init(&mut ebpf)
        .inspect_err(|error| tracing::warn!(%error, "log messages of the eBPF programs will not be shown"))
        .ok();

    let mut kernel =
        Kernel { ebpf, attached: Vec::new(), probes: Vec::new(), reset_reasons, filter, lost, tally, logger };
    for (spec, ground) in PROBES.iter().zip(&grounds) {
        let disabled = attachment.disabled.iter().any(|name| name == spec.name);
        kernel.probe(&ladder, spec, ground, disabled);
    }
    // Programs hold their maps from load on; until then these must stay open.
    drop((heads, slots));
    drop(ladder);
    give_memory_back();
    Ok((kernel, outlets))
}

/// The object with this kernel's offsets in it, aligned as ELF readers want it.
fn placed(offsets: &Offsets) -> Result<Vec<u64>, LoadError> {
    let mut object = vec![0_u64; OBJECT.len().div_ceil(size_of::<u64>())];
    object.as_mut_bytes()[..OBJECT.len()].copy_from_slice(OBJECT);
    let offsets: [u32; FIELDS.len()] = zerocopy::transmute!(*offsets);
    place(object.as_mut_bytes(), &offsets)?;
    Ok(object)
}

/// What this kernel offers, read before anything is loaded.
struct Survey {
    ladder: Ladder,
    /// In the order of [`PROBES`].
    grounds: Vec<Ground>,
    offsets: Offsets,
    knobs: Knobs,
    layouts: Layouts,
    reset_reasons: Arc<[String]>,
}

fn survey(attachment: &Attachment) -> Result<Survey, LoadError> {
    let path = attachment.btf.as_deref().unwrap_or(Path::new(VMLINUX));
    let types = match Types::from_file(path) {
        // A file that the user has named is wanted.
        Err(error) if attachment.btf.is_some() => return Err(error.into()),
        types => types.map_err(|error| error.to_string()),
    };
    let tracefs = Tracefs::open().map_err(|error| error.to_string());
    let event = |spec: &ProbeSpec| -> Result<TraceEvent, String> {
        tracefs
            .as_ref()
            .map_err(Clone::clone)?
            .event(spec.category(), spec.tracepoint)
            .map_err(|error| error.to_string())
    };
    let grounds: Vec<Ground> = PROBES
        .iter()
        .map(|spec| Ground {
            in_types: types.as_ref().map_or(true, |types| types.tracepoint_arguments(spec.tracepoint).is_some()),
            event: event(spec),
        })
        .collect();
    let layout_of = |tracepoint: &str| {
        let at = PROBES.iter().position(|spec| spec.tracepoint == tracepoint);
        at.and_then(|at| grounds[at].event.as_ref().ok()).map_or(Layout::NONE, |event| event.layout)
    };
    let layouts: Vec<u8> = TRACEPOINTS.iter().flat_map(|(_, name)| layout_of(name).as_bytes().to_vec()).collect();
    // The lengths agree: both come from the same table, see the assertion in `layout`.
    let layouts = Layouts::read_from_bytes(&layouts).unwrap_or(Layouts::NONE);
    let (offsets, knobs, reset_reasons, fields) = match &types {
        Ok(types) => {
            let reset_reasons = types.enum_names("sk_rst_reason", "SK_RST_REASON_");
            (types.offsets(), types.knobs(), reset_reasons, types.lacking().map_or(Ok(()), Err))
        }
        Err(why) => (Offsets::NONE, Knobs::NONE, Vec::new(), Err(why.clone())),
    };
    drop(types);
    let btf = Btf::parse_file(path, aya::Endianness::default()).map_err(|error| error.to_string());
    let ladder = Ladder { max_rung: attachment.max_rung, btf, fields };
    Ok(Survey { ladder, grounds, offsets, knobs, layouts, reset_reasons: reset_reasons.into() })
}

/// Parsing the kernel's types takes some 20 MB for a moment, which glibc would keep for ever.
#[cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "glibc's call has no safe wrapper"))]
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and glibc's allocator locks itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Loads and attaches one program alone, e.g. [`crate::probes::YARDSTICK`] for a bench. It stays until the value is dropped.
pub fn load_alone(spec: &ProbeSpec) -> anyhow::Result<Ebpf> {
    use anyhow::Context as _;

    let btf = Btf::from_sys_fs().context("reading the kernel's BTF")?;
    let mut ebpf = EbpfLoader::new().btf(Some(&btf)).load(OBJECT).context("loading the eBPF object")?;
    let program: &mut BtfTracePoint =
        ebpf.program_mut(spec.name).with_context(|| format!("no program {}", spec.name))?.try_into()?;
    verifier::load(|| program.load(spec.tracepoint, &btf)).with_context(|| format!("loading {}", spec.name))?;
    program.attach().with_context(|| format!("attaching {}", spec.name))?;
    Ok(ebpf)
}

fn map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, LoadError> {
    let found = ebpf.take_map(name).ok_or_else(|| EbpfError::from(MapError::InvalidName { name: name.to_owned() }))?;
    T::try_from(found).map_err(|source| LoadError::Map { name, source })
}

/// Lanes that the machine needs: one for each CPU that runs now. A CPU that comes later with a higher number uses the shared ring.
fn cpus() -> u32 {
    online_cpus().ok().and_then(|cpus| cpus.into_iter().max()).map_or(1, |last| last + 1)
}

fn array(ebpf: &mut Ebpf, name: &str) -> Result<MapData, LoadError> {
    match ebpf.take_map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(EbpfError::from(MapError::InvalidName { name: name.to_owned() }).into()),
    }
}

/// The rows that take what finds no room: they must be there before the map is full.
fn make_overflow_rows(tally: &mut PerCpuHashMap<MapData, [u8; size_of::<TallyKey>()], u64>) -> Result<(), MapError> {
    let cpus = nr_cpus().map_err(|(_, io_error)| io_error).unwrap_or(1);
    for what in [tallied::SYNACK_RETRANSMIT, tallied::RESET_WITHOUT_SOCKET] {
        let mut key = TallyKey::new_zeroed();
        key.what = what;
        let zeros = PerCpuValues::try_from(vec![0_u64; cpus]).map_err(MapError::IoError)?;
        let key: [u8; size_of::<TallyKey>()] = zerocopy::transmute!(key);
        tally.insert(key, zeros, 0)?;
    }
    Ok(())
}

impl Kernel {
    /// Attaches a probe as well as this kernel allows, and keeps its verdict.
    fn probe(&mut self, ladder: &Ladder, spec: &ProbeSpec, ground: &Ground, disabled: bool) {
        let Outcome { verdict, refused, attached } = if disabled {
            Outcome { verdict: Verdict::Disabled, refused: Vec::new(), attached: None }
        } else {
            ladder.climb(&mut self.ebpf, spec, ground)
        };
        let ProbeSpec { name, tracepoint, required, helpers: _, kind: _ } = *spec;
        if let Some(attached) = &attached {
            tracing::debug!(probe = name, program = attached.program, %verdict, "probe attached");
        }
        self.attached.extend(attached);
        self.probes.push(Probe { name, tracepoint, required, verdict, refused, cost: None });
    }

    /// Verdicts with the costs so far.
    pub fn probes(&self) -> Vec<Probe> {
        self.probes.iter().map(|probe| Probe { cost: self.cost(probe.name), ..probe.clone() }).collect()
    }

    /// Kernel names of reset reasons by number.
    pub fn reset_reasons(&self) -> Arc<[String]> {
        Arc::clone(&self.reset_reasons)
    }

    /// A slot of LOST, all CPUs together.
    pub fn lost(&self, slot: u32) -> u64 {
        self.lost.get(&slot, 0).map_or(0, |values| values.iter().sum())
    }

    /// Every row of TALLY, all CPUs together.
    pub fn tallies(&self) -> impl Iterator<Item = (TallyKey, u64)> + '_ {
        // A row that cannot be read now is read the next time: rows only grow.
        self.tally.iter().filter_map(Result::ok).map(|(key, values)| {
            let key: TallyKey = zerocopy::transmute!(key);
            (key, values.iter().sum())
        })
    }

    /// Replaces the namespaces of the filter: for names that now mean another namespace.
    pub fn set_netns(&mut self, netns: Vec<u32>) -> Result<(), MapError> {
        self.filter.set_netns(netns)
    }

    /// Passes on what the programs logged.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Detaches every program and waits until none of them runs any more: what they wrote is then all there is.
    pub fn detach(&mut self) {
        for attached in &mut self.attached {
            attached.detach();
        }
        // The kernel frees a tracepoint's link after an RCU grace period; a program that was running is long done.
        std::thread::sleep(Duration::from_millis(20));
    }

    /// What the kernel tells of a program, out of its file descriptor's fdinfo (`bpf_prog_show_fdinfo`).
    fn cost(&self, probe: &str) -> Option<Cost> {
        let attached = self.attached.iter().find(|attached| attached.probe == probe)?;
        let fd = self.ebpf.program(&attached.program)?.fd().ok()?.as_fd().as_raw_fd();
        // Where no file can be opened for a moment it is what it was: a total that is gone would be told anew when it is back.
        if let Ok(text) = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) {
            attached.cost.set(Some(parse_cost(&text)));
        }
        attached.cost.get()
    }
}

fn parse_cost(fdinfo: &str) -> Cost {
    let field = |name: &str| {
        fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()).unwrap_or(0)
    };
    Cost {
        runs: field("run_cnt"),
        time: Duration::from_nanos(field("run_time_ns")),
        recursion_misses: field("recursion_misses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_read_from_fdinfo() {
        let text =
            "pos:\t0\nprog_type:\t26\nrun_time_ns:\t1500\nrun_cnt:\t3\nrecursion_misses:\t2\nverified_insns:\t9\n";
        assert_eq!(parse_cost(text), Cost { runs: 3, time: Duration::from_nanos(1500), recursion_misses: 2 });
        assert_eq!(parse_cost(""), Cost::default());
    }
}
