//! Sockets for the census to count: many in one namespace, a few in each of many.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bench::arena::Arena;
use crate::bench::undo::Undo;
use crate::cmd;

/// Connections that one process holds: two files each, within the 20,000 that a process may have on small hosts.
const PAIRS: u64 = 5_000;

/// The kernel takes namespaces down after their deletion, many at once.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Connections that are kept open by children until this is dropped.
#[derive(Debug)]
pub(super) struct Crowd {
    holders: Vec<Child>,
    sockets: u64,
}

impl Crowd {
    /// At least so many established sockets in one namespace.
    pub(super) fn gather(arena: &Arena, sockets: u64) -> Result<Self> {
        cmd::say("bench", format!("{sockets} established sockets"));
        let mut crowd = Self { holders: Vec::new(), sockets: 0 };
        for pairs in shares(sockets.div_ceil(2)) {
            crowd.add(pairs, &[arena.path()])?;
        }
        for holder in &mut crowd.holders {
            ready(holder)?;
        }
        Ok(crowd)
    }

    /// Sockets that it has, listeners included.
    pub(super) const fn sockets(&self) -> u64 {
        self.sockets
    }

    fn add(&mut self, pairs: u64, namespaces: &[PathBuf]) -> Result<()> {
        let mut command = cmd::command(std::env::current_exe().context("where is this program?")?);
        command.args(["bench-hold", "--pairs", &pairs.to_string()]).args(namespaces);
        // Its stdin ends with the bench, however that ends.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        self.holders.push(child.context("a child that holds connections does not start")?);
        self.sockets += (2 * pairs + 1) * namespaces.len() as u64;
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            drop(holder.stdin.take());
        }
        for holder in &mut self.holders {
            // Fails only when it is gone already.
            drop(holder.wait());
        }
    }
}

fn ready(holder: &mut Child) -> Result<()> {
    let mut line = String::new();
    BufReader::new(holder.stdout.take().context("stdout is piped")?).read_line(&mut line)?;
    ensure!(!line.is_empty(), "a child that holds connections has failed; its words are above");
    Ok(())
}

/// Connections of each process.
fn shares(pairs: u64) -> impl Iterator<Item = u64> {
    let processes = pairs.div_ceil(PAIRS);
    (0..processes).map(move |process| PAIRS.min(pairs - process * PAIRS))
}

/// Namespaces with a listener and one connection each; deleted when dropped, and when the bench is killed.
#[derive(Debug)]
pub(super) struct Villages {
    count: u64,
    crowd: Crowd,
    deleted: Option<Undo>,
}

impl Villages {
    /// Makes so many.
    pub(super) fn found(count: u64) -> Result<Self> {
        cmd::say("bench", format!("{count} more namespaces"));
        let all = names(count).collect::<Vec<_>>().join(" ");
        let deleted = Some(Undo::at_end(&format!("for name in {all}; do ip netns del $name 2>/dev/null; done"))?);
        let script = format!("for name in {all}; do ip netns add $name && ip -n $name link set lo up || exit 1; done");
        cmd::capture(cmd::command("sh").args(["-c", &script]))?;
        let mut crowd = Crowd { holders: Vec::new(), sockets: 0 };
        crowd.add(1, &names(count).map(|name| PathBuf::from(format!("/run/netns/{name}"))).collect::<Vec<_>>())?;
        ready(&mut crowd.holders[0])?;
        Ok(Self { count, crowd, deleted })
    }

    /// As `ip netns` has them.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        names(self.count)
    }

    /// Sockets in all of them.
    pub(super) const fn sockets(&self) -> u64 {
        self.crowd.sockets()
    }
}

impl Drop for Villages {
    fn drop(&mut self) {
        drop(self.deleted.take());
        // The children hold them open.
        self.crowd = Crowd { holders: Vec::new(), sockets: 0 };
        thread::sleep(AFTERMATH);
    }
}

fn names(count: u64) -> impl Iterator<Item = String> {
    let pid = std::process::id();
    (1..=count).map(move |number| format!("synfin-bench-{pid}-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_process_holds_too_many() {
        assert_eq!(shares(12_001).collect::<Vec<_>>(), [5_000, 5_000, 2_001]);
        assert_eq!(shares(5_000).collect::<Vec<_>>(), [5_000]);
        assert_eq!(shares(0).count(), 0);
    }
}
