//! `synfin census --json`, read as docs/EVENTS.md describes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::AddAssign,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    netns::Netns,
    state::State,
    synfin::{self, Ended},
};

/// `linux.socket.form`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A socket.
    Full,
    /// A minisock that the kernel keeps without a holder.
    Timewait,
    /// Half open.
    Request,
}

/// What sockets of a namespace are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// State.
    pub state: State,
    /// Which struct of the kernel.
    pub form: Form,
    /// `network.type`.
    pub network: String,
    /// Local port where something listens on it.
    pub port: Option<u16>,
}

/// Sums of such sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub sockets: u64,
    /// Bytes to be read.
    pub receive_queue: u64,
    /// Bytes to be acknowledged.
    pub send_queue: u64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.sockets += other.sockets;
        self.receive_queue += other.receive_queue;
        self.send_queue += other.send_queue;
    }
}

/// A line about a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// What it is bound to.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Socket cookie.
    pub cookie: Option<u64>,
    /// Connections that wait for accept, and the most of them.
    pub accept_queue: (u64, u64),
    /// Half-open connections.
    pub half_open: u64,
    /// Age of the oldest of them in seconds.
    pub oldest: Option<f64>,
    /// Processes that hold it.
    pub pids: BTreeSet<u64>,
}

/// All lines of one census.
#[derive(Clone, Debug)]
pub struct Census {
    lines: Vec<Value>,
}

impl Census {
    /// Runs `synfin census --json` with these flags and reads it; fails unless it succeeds.
    pub fn take(flags: &[&str]) -> Result<Self> {
        let ended = run(flags)?;
        ended.expect(0)?;
        Self::parse(&ended.stdout)
    }

    /// Reads lines. A census without its last line was cut.
    pub fn parse(lines: &[String]) -> Result<Self> {
        let parsed = lines.iter().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")));
        let census = Self { lines: parsed.collect::<Result<_>>()? };
        let end = census.end()?;
        let stray = end["synfin.census.stray"].as_object().context("strays are told")?;
        anyhow::ensure!(stray.values().all(|count| count == 0), "sockets that could not be told: {end}");
        Ok(census)
    }

    /// The line `census_end`.
    pub fn end(&self) -> Result<&Value> {
        self.lines.last().filter(|line| line["type"] == "census_end").context("the last line is census_end")
    }

    /// Lines of a type about a namespace.
    pub fn of(&self, kind: &str, netns: &Netns) -> impl Iterator<Item = &Value> {
        let inode = netns.inode();
        self.lines.iter().filter(move |line| line["type"] == kind && line["linux.netns.inode"] == inode)
    }

    /// Lines of a type.
    pub fn lines(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.lines.iter().filter(move |line| line["type"] == kind)
    }

    /// Namespaces that any line is about.
    pub fn namespaces(&self) -> BTreeSet<u64> {
        self.lines.iter().filter_map(|line| line["linux.netns.inode"].as_u64()).collect()
    }

    /// Sums of a namespace, over all cgroups.
    pub fn sums(&self, netns: &Netns) -> Result<BTreeMap<Key, Sum>> {
        let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
        for line in self.of("census", netns) {
            let (key, sum) = group(line).with_context(|| format!("line of a census: {line}"))?;
            *sums.entry(key).or_default() += sum;
        }
        Ok(sums)
    }

    /// Sockets of a namespace by cgroup, state and form, as words.
    pub fn by_cgroup(&self, netns: &Netns) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for line in self.of("census", netns) {
            let words =
                ["linux.cgroup.id", "network.connection.state", "linux.socket.form"].map(|key| line[key].to_string());
            *sums.entry(words.join(" ")).or_default() += line["count"].as_u64().unwrap_or_default();
        }
        sums
    }

    /// Ephemeral ports of a namespace, if it tells them: how many are taken, and how many there are.
    pub fn ephemeral_ports(&self, netns: &Netns) -> Result<Option<(u64, u64)>> {
        let mut lines = self.of("ephemeral_ports", netns);
        let Some(line) = lines.next() else { return Ok(None) };
        anyhow::ensure!(lines.next().is_none(), "two lines about the ports of {}", netns.name());
        let key = |name: &str| number(line, &format!("network.tcp.ephemeral_port.{name}"));
        Ok(Some((key("usage")?, key("limit")?)))
    }

    /// Listeners of a namespace.
    pub fn listeners(&self, netns: &Netns) -> Result<Vec<Listener>> {
        let read = |line: &Value| listener(line).with_context(|| format!("line of a listener: {line}"));
        self.of("listener", netns).map(read).collect()
    }
}

/// Runs `synfin census --json` with these flags.
pub fn run(flags: &[&str]) -> Result<Ended> {
    let mut arguments = vec!["census", "--json"];
    arguments.extend(flags);
    synfin::run(&arguments)
}

fn number(line: &Value, key: &str) -> Result<u64> {
    line[key].as_u64().with_context(|| format!("no number {key}"))
}

fn text<'a>(line: &'a Value, key: &str) -> Result<&'a str> {
    line[key].as_str().with_context(|| format!("no text {key}"))
}

fn port(line: &Value) -> Result<Option<u16>> {
    line["network.local.port"].as_u64().map(|port| Ok(port.try_into()?)).transpose()
}

fn group(line: &Value) -> Result<(Key, Sum)> {
    let form = match text(line, "linux.socket.form")? {
        "full" => Form::Full,
        "timewait" => Form::Timewait,
        "request" => Form::Request,
        other => anyhow::bail!("{other:?} is no form"),
    };
    let key = Key {
        state: State::from_name(text(line, "network.connection.state")?)?,
        form,
        network: text(line, "network.type")?.to_owned(),
        port: port(line)?,
    };
    let sum = Sum {
        sockets: number(line, "count")?,
        receive_queue: number(line, "network.tcp.receive_queue")?,
        send_queue: number(line, "network.tcp.send_queue")?,
    };
    Ok((key, sum))
}

fn listener(line: &Value) -> Result<Listener> {
    let holders = line["holders"].as_array().context("no holders")?;
    Ok(Listener {
        address: text(line, "network.local.address")?.parse()?,
        port: port(line)?.context("no port")?,
        cookie: line["linux.socket.cookie"].as_u64(),
        accept_queue: (
            number(line, "network.tcp.accept_queue.length")?,
            number(line, "network.tcp.accept_queue.limit")?,
        ),
        half_open: number(line, "network.tcp.half_open")?,
        oldest: line["network.tcp.half_open.oldest"].as_f64(),
        pids: holders.iter().map(|holder| number(holder, "process.pid")).collect::<Result<_>>()?,
    })
}
