//! One look at all sockets: by `ss`, by /proc, by synfin's one-shot census.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::bench::Tools;
use crate::bench::arena::Arena;
use crate::bench::spread::short;
use crate::cmd;

/// Ways to look. The first four look at one namespace with open and closed connections, the others at open ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Ss,
    ProcNet,
    Iterator,
    InetDiag,
    /// At the big namespace, while there are many.
    Alone,
    /// At all of them.
    Everywhere,
}

/// In the order in which tables have them.
pub(super) const WAYS: [Way; 6] = [Way::Ss, Way::ProcNet, Way::Iterator, Way::InetDiag, Way::Alone, Way::Everywhere];

impl Way {
    /// In tables and raw data.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ss => "ss -tan",
            Self::ProcNet => "cat /proc/net/tcp",
            Self::Iterator => "synfin census, iterators",
            Self::InetDiag => "synfin census, inet_diag",
            Self::Alone => "synfin census of the big namespace",
            Self::Everywhere => "synfin census of all namespaces",
        }
    }
}

/// One turn.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::bench) struct Walk {
    pub(super) round: u32,
    pub(super) way: Way,
    /// The look itself: for synfin without the start of the process and the loading of programs.
    pub(super) took: Duration,
    /// From the start of the process to its end.
    pub(super) command: Duration,
    /// CPU of the whole process.
    pub(super) cpu: Duration,
    /// Sockets and namespaces that synfin told.
    pub(super) sockets: Option<u64>,
    pub(super) namespaces: Option<u64>,
}

impl Walk {
    pub(super) fn json(&self) -> Value {
        let Self { round, way, took, command, cpu, sockets, namespaces } = self;
        json!({ "round": round, "way": way.name(), "seconds": took.as_secs_f64(),
                "command_seconds": command.as_secs_f64(), "command_cpu_seconds": cpu.as_secs_f64(),
                "sockets": sockets, "namespaces": namespaces })
    }

    fn told(self) -> Self {
        let (round, name, each) = (self.round + 1, self.way.name(), short(super::ms(self.took)));
        let of = self.sockets.map_or_else(String::new, |sockets| format!(" for {} sockets", short(sockets as f64)));
        cmd::say("bench", format!("round {round}: {name}: {each} ms{of}"));
        self
    }
}

/// Each of the first four ways, in a rotating order. `sockets` are those that there are at least.
pub(super) fn beside_others(tools: &Tools, round: u32, arena: &Arena, sockets: u64) -> Result<Vec<Walk>> {
    let netns = [arena.inode()?.to_string()];
    let ways = [Way::Ss, Way::ProcNet, Way::Iterator, Way::InetDiag];
    let turn = |turn: usize| match ways[(turn + round as usize) % ways.len()] {
        way @ Way::Ss => of_other(round, way, arena, "ss", "-tan"),
        way @ Way::ProcNet => of_other(round, way, arena, "cat", "/proc/net/tcp"),
        way => of_synfin(tools, round, way, &netns, sockets),
    };
    (0..ways.len()).map(turn).collect()
}

fn of_other(round: u32, way: Way, arena: &Arena, program: &str, word: &str) -> Result<Walk> {
    let (command, cpu) = arena.inside(|| {
        let mut command = cmd::command(program);
        let (status, wall, cpu) = timed(command.arg(word), |command| {
            command.stdout(Stdio::null()).status().with_context(|| format!("{program} does not start"))
        })?;
        ensure!(status.success(), "`{program} {word}` ended with {status}");
        anyhow::Ok((wall, cpu))
    })??;
    Ok(Walk { round, way, took: command, command, cpu, sockets: None, namespaces: None }.told())
}

/// `synfin census` of these namespaces.
pub(super) fn of_synfin(tools: &Tools, round: u32, way: Way, netns: &[String], sockets: u64) -> Result<Walk> {
    let mut command = cmd::command(&tools.synfin);
    command.args(["census", "--json", "--source", if way == Way::InetDiag { "inet_diag" } else { "iterator" }]);
    command.args(netns.iter().flat_map(|netns| ["--netns", netns.as_str()]));
    let (said, command, cpu) = timed(&mut command, cmd::capture)?;
    let Said { took, sockets: counted, namespaces } = read(&said)?;
    ensure!(namespaces == netns.len() as u64, "{} counted {namespaces} of {} namespaces", way.name(), netns.len());
    // TIME_WAIT sockets may take each other's place; but those that went by themselves would flatter the walk.
    ensure!(
        counted * 100 >= sockets * 99,
        "{} counted {counted} of {sockets} sockets: were the walks too slow for TIME_WAIT? Use fewer rounds",
        way.name()
    );
    Ok(Walk { round, way, took, command, cpu, sockets: Some(counted), namespaces: Some(namespaces) }.told())
}

/// What a child gives, with the wall and CPU time that it takes. No other child may end meanwhile.
fn timed<T>(command: &mut Command, work: impl FnOnce(&mut Command) -> Result<T>) -> Result<(T, Duration, Duration)> {
    let before = of_children()?;
    let start = Instant::now();
    let given = work(command)?;
    let wall = start.elapsed();
    Ok((given, wall, of_children()?.saturating_sub(before)))
}

/// CPU time of all children that have ended.
fn of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = [usage.user_time(), usage.system_time()].map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Ok(Duration::from_micros(micros.iter().sum::<i64>().unsigned_abs()))
}

/// What a census said.
#[derive(Debug, PartialEq)]
struct Said {
    took: Duration,
    sockets: u64,
    namespaces: u64,
}

fn read(said: &str) -> Result<Said> {
    let mut sockets = 0;
    let mut end = None;
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("the census says {line:?}"))?;
        match line["type"].as_str() {
            Some("census") => sockets += line["count"].as_u64().context("a census line without a count")?,
            Some("census_end") => end = Some(line),
            _ => {}
        }
    }
    let end = end.context("the census has no end")?;
    let took = end["synfin.census.duration"].as_f64().context("the census does not say how long it took")?;
    let namespaces = end["synfin.census.namespaces"].as_u64().context("the census does not say how many namespaces")?;
    Ok(Said { took: Duration::try_from_secs_f64(took)?, sockets, namespaces })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_census_is_read() {
        let said = r#"{"type":"census","count":7}
{"type":"listener"}
{"type":"census","count":3}
{"type":"census_end","synfin.census.namespaces":2,"synfin.census.duration":0.25}
"#;
        assert_eq!(read(said).unwrap(), Said { took: Duration::from_millis(250), sockets: 10, namespaces: 2 });
        assert!(read(r#"{"type":"census","count":7}"#).is_err());
        assert!(read("text").is_err());
    }

    #[test]
    fn a_child_is_timed() {
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]);
        let (status, wall, cpu) = timed(&mut command, |command| Ok(command.status()?)).unwrap();
        assert!(status.success() && wall > Duration::ZERO && cpu > Duration::ZERO);
    }
}
