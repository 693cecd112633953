//! What the service's census takes while nothing happens in many namespaces.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::start;
use crate::bench::Tools;
use crate::bench::process;
use crate::bench::spread::percent;
use crate::cmd;

/// Shortest time between two censuses of the service.
pub(super) const PERIOD: Duration = Duration::from_secs(5);
/// The first census walks every namespace: it is over after that, unless the machine is very busy.
const FIRST: Duration = Duration::from_secs(8);
/// How long is measured: eight censuses.
const WINDOW: Duration = Duration::from_secs(40);
/// After so long the service walks namespaces in which nothing has happened all the same, and lists all sockets: too long to
/// wait for, so that what the first census and the first listing took is spread over it.
const REPEAT: Duration = Duration::from_mins(5);

/// The thread that walks and lists.
const THREAD: &str = "synfin-census";

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::bench) struct Quiet {
    pub(super) namespaces: u64,
    /// CPU of the thread of the census until the first census was over: that and a listing of all sockets.
    pub(super) first: Duration,
    /// How long was measured then.
    pub(super) window: Duration,
    /// CPU of that thread meanwhile.
    pub(super) census: Duration,
    /// CPU of the whole service meanwhile.
    pub(super) process: Duration,
}

impl Quiet {
    /// Of one core, while nothing is repeated.
    pub(super) fn steady(&self) -> f64 {
        self.census.as_secs_f64() / self.window.as_secs_f64()
    }

    /// Of one core, for what is repeated.
    pub(super) fn repeated(&self) -> f64 {
        self.first.as_secs_f64() / REPEAT.as_secs_f64()
    }

    /// Of one core, on average.
    pub(super) fn share(&self) -> f64 {
        self.steady() + self.repeated()
    }

    /// The whole service's of one core, while nothing is repeated.
    pub(super) fn of_process(&self) -> f64 {
        self.process.as_secs_f64() / self.window.as_secs_f64()
    }

    pub(super) fn json(&self) -> Value {
        let Self { namespaces, first, window, census, process } = self;
        json!({ "namespaces": namespaces, "first_cpu_seconds": first.as_secs_f64(), "seconds": window.as_secs_f64(),
                "census_cpu_seconds": census.as_secs_f64(), "process_cpu_seconds": process.as_secs_f64() })
    }
}

/// Once, in these namespaces with at least so many sockets. Others are left out: what happens there would be walked and listed.
pub(super) fn measure(tools: &Tools, netns: &[String], sockets: u64) -> Result<Quiet> {
    let (running, started) = start::serve(tools, 0, netns, sockets)?;
    let cpu = || anyhow::Ok((process::cpu_of_thread(running.pid(), THREAD)?, process::cpu(running.pid())?));
    thread::sleep(FIRST);
    let (first, before) = cpu()?;
    let start = Instant::now();
    thread::sleep(WINDOW);
    let (census, process) = cpu()?;
    let window = start.elapsed();
    running.finish()?;
    let quiet = Quiet {
        namespaces: started.namespaces,
        first,
        window,
        census: census.saturating_sub(first),
        process: process.saturating_sub(before),
    };
    let (steady, first) = (percent(quiet.steady()), super::ms(first));
    cmd::say("bench", format!("{} quiet namespaces: {steady} of a core, {first:.0} ms at first", quiet.namespaces));
    Ok(quiet)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn quiet() -> Quiet {
        Quiet {
            namespaces: 101,
            first: Duration::from_millis(1500),
            window: Duration::from_secs(40),
            census: Duration::from_millis(80),
            process: Duration::from_millis(120),
        }
    }

    #[test]
    fn what_is_repeated_counts() {
        let quiet = quiet();
        assert_eq!([quiet.steady(), quiet.repeated(), quiet.share()].map(percent), ["0.2 %", "0.5 %", "0.7 %"]);
        assert_eq!(percent(quiet.of_process()), "0.3 %");
    }
}
