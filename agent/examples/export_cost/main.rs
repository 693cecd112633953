//! What export costs: CPU time and allocations of the whole process, from what the agent knows to the endpoint's answer, and the memory
//! of what waits. `cargo xtask bench --only export` runs it and compares; each run prints one line of JSON.
//!
//! `synfin-receiver` of the tests is an endpoint that takes nearly no CPU; it prints its URL.
//!
//! ```text
//! cargo run --release -p synfin --example export_cost -- spans URL [grpc|http/protobuf|http/json] [none|gzip|zstd] [lean|full]
//! cargo run --release -p synfin --example export_cost -- sdk-spans URL
//! cargo run --release -p synfin --example export_cost -- queue
//! cargo run --release -p synfin --example export_cost -- points URL [grpc|http/protobuf|http/json] FOLDER
//! cargo run --release -p synfin --example export_cost -- sdk-points URL SERIES
//! ```

#![expect(clippy::print_stdout, reason = "its result is its output")]

mod connections;
mod counting;
mod own;
mod points;
mod queue;
mod sdk;
mod spans;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use synfin::config::{Compression, Protocol};

use crate::connections::Kind;

/// Spans of one run.
const SPANS: usize = 100_000;
/// Handed over at once: what the drain thread finds in one pass, with this many spans in a second.
const PASS: usize = 1_000;
/// Time between two of its passes.
const POLL: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let said = match *arguments {
        ["spans", endpoint, ref how @ ..] => {
            let word = |at: usize, default| how.get(at).copied().unwrap_or(default);
            let kind = Kind::of(word(2, "lean"))?;
            spans::measure(endpoint, protocol(word(0, "grpc"))?, compression(word(1, "none"))?, kind)?
        }
        ["sdk-spans", endpoint] => sdk::spans(endpoint)?,
        ["queue"] => queue::measure()?,
        ["points", endpoint, how, folder] => points::measure(endpoint, protocol(how)?, Path::new(folder))?,
        ["sdk-points", endpoint, series] => sdk::points(endpoint, series.parse().context("how many series?")?)?,
        _ => bail!("what is to be measured? spans, sdk-spans, queue, points or sdk-points, with an endpoint"),
    };
    println!("{said}");
    Ok(())
}

fn protocol(name: &str) -> Result<Protocol> {
    let all = [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson];
    all.into_iter().find(|protocol| protocol.name() == name).with_context(|| format!("{name} is no protocol of OTLP"))
}

fn compression(name: &str) -> Result<Compression> {
    let all = [Compression::None, Compression::Gzip, Compression::Zstd];
    all.into_iter().find(|one| one.name() == name).with_context(|| format!("{name} is no compression"))
}

/// CPU time so far, nanoseconds.
fn cpu_ns(of: ClockId) -> i64 {
    let time = clock_gettime(of);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Hands over at the drain thread's pace, as fast as a busy node makes spans: nothing piles up.
fn paced<T>(items: &[T], mut hand_over: impl FnMut(&[T])) {
    let mut due = Instant::now();
    for pass in items.chunks(PASS) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        hand_over(pass);
        due += POLL;
    }
}
