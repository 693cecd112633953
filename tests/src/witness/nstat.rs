//! The kernel's TCP counters of a namespace, as `nstat` names them.

use std::{collections::BTreeMap, fs, io, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{need, netns::Netns};

/// Counters at one moment, or their growth between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads /proc/net/snmp and /proc/net/netstat of the namespace.
    pub fn of(netns: &Netns) -> Result<Self> {
        let text = netns.run(|| -> io::Result<String> {
            Ok(fs::read_to_string("/proc/thread-self/net/snmp")?
                + &fs::read_to_string("/proc/thread-self/net/netstat")?)
        })?;
        parse(&text)
    }

    /// Lets the program `nstat` read them.
    pub fn by_nstat(netns: &Netns) -> Result<Self> {
        need::tool("nstat", "iproute2")?;
        // -a: as they are; -z: zeroes too; -s: leave the user's history file alone.
        let mut command = Command::new("nstat");
        command.args(["-a", "-z", "-s"]);
        let text = netns.run(|| need::run(&mut command))?;
        let mut counters = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let (name, value) = (words.next().context("name")?, words.next().context("value")?);
            counters.insert(name.to_owned(), value.parse().with_context(|| format!("nstat line {line:?}"))?);
        }
        Ok(Self(counters))
    }

    /// How much each grew since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let growth = |(name, value): (&String, &u64)| (name.clone(), value.wrapping_sub(before.get(name)));
        Self(self.0.iter().map(growth).collect())
    }

    /// One counter, by nstat's name (`TcpActiveOpens`, `TcpExtTCPTimeouts`); 0 if the kernel does not have it.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// The names, for comparing readers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Pairs of lines: `Tcp: Name Name …`, then `Tcp: 1 2 …`.
fn parse(text: &str) -> Result<Counters> {
    let mut counters = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        let [names, values] = pair else { break };
        let (group, names) = names.split_once(':').context("a line of names")?;
        let (again, values) = values.split_once(':').context("a line of values")?;
        ensure!(group == again, "names of {group} beside values of {again}");
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // MaxConn is -1 for "no limit"; nobody asks for it.
            if let Ok(value) = value.parse() {
                counters.insert(format!("{group}{name}"), value);
            }
        }
    }
    Ok(Counters(counters))
}
