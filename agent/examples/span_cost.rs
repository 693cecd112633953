//! What an exported span costs: CPU time and allocations of the whole process, from the ended connection to the
//! endpoint's answer.
//!
//! `synfin-receiver` of the tests is an endpoint that takes nearly no CPU; it prints its URL.
//!
//! ```text
//! cargo run --release -p synfin --example span_cost -- URL [grpc|http/protobuf] [none|gzip]
//! ```

#![expect(clippy::print_stdout, reason = "its result is its output")]
#![expect(unsafe_code, reason = "an allocator that counts is still an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use synfin::config::{Compression, Otlp as Settings, Owners as Places, Protocol, Signal, Tls};
use synfin::event::{Ends, Measures, State, Task};
use synfin::export::otlp::{Otlp, Source};
use synfin::export::resource::{Owners, resource};
use synfin::ledger::{Connection, End, Role, Side};
use synfin::owner::{Directory, Logs};

const SPANS: usize = 100_000;
/// As the drain thread hands them over.
const PASS: usize = 256;

/// The system's allocator, counted.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to `System` unchanged, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the same contract as `GlobalAlloc::alloc`: the size of `layout` is not zero.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` needs.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the same contract as `GlobalAlloc::dealloc`: `pointer` came from `alloc` with this `layout`, and goes now.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; what `alloc` gave came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().context("the URL of an OTLP endpoint is missing")?;
    let protocol = match arguments.next().as_deref() {
        Some("http/protobuf") => Protocol::HttpProtobuf,
        Some("http/json") => Protocol::HttpJson,
        _ => Protocol::Grpc,
    };
    let compression = match arguments.next().as_deref() {
        Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        _ => Compression::None,
    };
    let timeout = Signal::TIMEOUT;
    let traces =
        Some(Signal { endpoint, protocol, headers: BTreeMap::new(), timeout, compression, tls: Tls::default() });
    let settings = Settings {
        traces,
        queue: 2 * SPANS,
        trace_rate_limit: None,
        shutdown_timeout: Duration::from_mins(1),
        ..Settings::default()
    };
    let credentials = settings.credentials()?;
    // As `synfin run` has it; what the cgroup of the connections is here makes no difference that can be measured.
    let Places { pod_logs, container_logs } = Places::default();
    let resource = resource(&settings);
    let owners = Owners::new(Directory::start(Logs { pods: pod_logs, containers: container_logs })?, &resource);
    let source = Source::new(Arc::default(), Arc::default(), Some(owners));
    let otlp = Otlp::start(&settings, &credentials, resource, source, 20_000)?;
    let connections: Vec<_> = (0..SPANS as u32).map(connection).collect();

    let before = (cpu_ns(ClockId::ProcessCPUTime), ALLOCATIONS.load(Ordering::Relaxed));
    let handing_over = cpu_ns(ClockId::ThreadCPUTime);
    for pass in connections.chunks(PASS) {
        otlp.ended(pass.iter().map(|connection| (connection, End::TimeWait)));
    }
    let handing_over = cpu_ns(ClockId::ThreadCPUTime) - handing_over;
    let report = otlp.shutdown();
    let spent = cpu_ns(ClockId::ProcessCPUTime) - before.0;
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before.1;

    let counts = report.spans.context("spans are exported")?;
    ensure!(counts.exported == SPANS as u64, "not all spans arrived: {counts:?}");
    println!(
        "{} ns of CPU ({} of them to hand it over) and {:.2} allocations for each of {SPANS} spans: {}, compression {}",
        spent / SPANS as i64,
        handing_over / SPANS as i64,
        allocations as f64 / SPANS as f64,
        protocol.name(),
        compression.name()
    );
    Ok(())
}

fn cpu_ns(of: ClockId) -> i64 {
    let time = clock_gettime(of);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// A client's connection with all that can be known of one: 33 attributes, 5 events.
fn connection(number: u32) -> Connection {
    let birth = 1_000_000_000 + u64::from(number) * 1_000;
    let mut entered_ns = [0; State::LIMIT];
    for (state, after) in [
        (State::SynSent, 0),
        (State::Established, 200_000),
        (State::FinWait1, 1_900_000),
        (State::FinWait2, 1_950_000),
        (State::Closed, 2_000_000),
    ] {
        entered_ns[state.index()] = birth + after;
    }
    let ends = Ends {
        cookie: u64::from(number) + 1,
        sock: 0xffff_8880_0000_0000,
        netns: 4_026_531_840,
        local_port: 32_768 + (number % 28_000) as u16,
        peer_port: 443,
        local: Ipv4Addr::new(10, 12, 34, 56).to_ipv6_mapped().octets(),
        peer: Ipv4Addr::new(192, 168, 101, 202).to_ipv6_mapped().octets(),
    };
    Connection {
        role: Some(Role::Client),
        birth_seen: true,
        entered_ns,
        last_ns: birth + 2_000_000,
        closed_ns: birth + 2_000_000,
        closed_first: Some(Side::Local),
        fin_received: true,
        left: State::FinWait2,
        sequence_pair: Some((number, !number)),
        measures: Some(Measures {
            bytes_acked: 1_234,
            bytes_received: 56_789,
            bytes_sent: 1_233,
            bytes_retrans: 0,
            segs_out: 23,
            segs_in: 45,
            retrans: 0,
            srtt_us: 1_500,
            mdev_us: 250,
            snd_cwnd: 10,
            snd_una: 0,
            rcv_nxt: 0,
            snd_nxt: 0,
            ooo: 0,
        }),
        owner: Some(Task { pid: 4_242, comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0" }),
        cgroup: 101,
        ..Connection::new(ends, State::Closed, birth)
    }
}
