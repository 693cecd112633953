//! `ss`: every TCP socket of a namespace, as inet_diag tells it. An independent witness of what exists right now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    census::{Form, Key, Sum},
    need,
    netns::Netns,
    state::State,
};

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// State; a half-open request is in SYN_RECEIVED.
    pub state: State,
    /// Which struct of the kernel it is.
    pub form: Form,
    /// Bytes to be read; of a listener, connections to be accepted.
    pub receive_queue: u64,
    /// Bytes to be acknowledged; of a listener, the most connections that may wait.
    pub send_queue: u64,
    /// Local address; the wildcard of both families reads as IPv6's.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
    /// Address of the other end, unspecified for none.
    pub peer: IpAddr,
    /// Port of the other end, 0 for none.
    pub peer_port: u16,
    /// Processes that hold it.
    pub pids: BTreeSet<u64>,
    /// The kernel's cookie.
    pub cookie: u64,
}

impl Row {
    /// `network.type`: a v4-mapped connection speaks IPv4.
    pub fn network(&self) -> &'static str {
        if self.address.to_canonical().is_ipv4() { "ipv4" } else { "ipv6" }
    }
}

/// All sockets of the namespace.
pub fn all(netns: &Netns) -> Result<Vec<Row>> {
    read(netns, "-tanoeH")
}

/// All sockets of the namespace, with the processes that hold them.
pub fn held(netns: &Netns) -> Result<Vec<Row>> {
    read(netns, "-tanoepH")
}

/// Its listeners, with the processes that hold them.
pub fn listeners(netns: &Netns) -> Result<Vec<Row>> {
    read(netns, "-tlnoepH")
}

fn read(netns: &Netns, flags: &str) -> Result<Vec<Row>> {
    need::tool("ss", "iproute2")?;
    let text = netns.run(|| need::run(Command::new("ss").arg(flags)))?;
    text.lines().map(|line| row(line).with_context(|| format!("line of ss: {line:?}"))).collect()
}

/// The same sums as a census gives: listeners have no queues.
pub fn sums(rows: &[Row]) -> BTreeMap<Key, Sum> {
    let listened: BTreeSet<u16> = rows.iter().filter(|row| row.state == State::Listen).map(|row| row.port).collect();
    let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
    for row in rows {
        let port = listened.contains(&row.port).then_some(row.port);
        let key = Key { state: row.state, form: row.form, network: row.network().to_owned(), port };
        let is_listener = row.state == State::Listen;
        *sums.entry(key).or_default() += Sum {
            sockets: 1,
            receive_queue: if is_listener { 0 } else { row.receive_queue },
            send_queue: if is_listener { 0 } else { row.send_queue },
        };
    }
    sums
}

/// `STATE Recv-Q Send-Q local:port peer:port [users:(…)] [timer:(…)] [ino:… sk:… …]`.
fn row(line: &str) -> Result<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let field = |at: usize| fields.get(at).copied().context("field missing");
    let state = match field(0)? {
        "ESTAB" => State::Established,
        "SYN-SENT" => State::SynSent,
        "SYN-RECV" => State::SynReceived,
        "FIN-WAIT-1" => State::FinWait1,
        "FIN-WAIT-2" => State::FinWait2,
        "TIME-WAIT" => State::TimeWait,
        "UNCONN" => State::Closed,
        "CLOSE-WAIT" => State::CloseWait,
        "LAST-ACK" => State::LastAck,
        "LISTEN" => State::Listen,
        "CLOSING" => State::Closing,
        other => anyhow::bail!("{other:?} is no state of ss"),
    };
    let form = match state {
        State::SynReceived => Form::Request,
        State::TimeWait | State::FinWait2 if line.contains("timer:(timewait,") => Form::Timewait,
        _ => Form::Full,
    };
    let (address, port) = end(field(3)?)?;
    let (peer, peer_port) = end(field(4)?)?;
    // users:(("name",pid=1,fd=3),…)
    let pids = line.split("pid=").skip(1).map(|rest| Ok(rest.split(',').next().unwrap_or_default().parse()?));
    let cookie = fields.iter().find_map(|field| field.strip_prefix("sk:")).context("no cookie")?;
    Ok(Row {
        state,
        form,
        receive_queue: field(1)?.parse()?,
        send_queue: field(2)?.parse()?,
        address,
        port,
        peer,
        peer_port,
        pids: pids.collect::<Result<_>>()?,
        cookie: u64::from_str_radix(cookie, 16)?,
    })
}

/// `10.9.0.1:80`, `[::ffff:10.9.0.1]:80`, `*:80`, `0.0.0.0:*`.
fn end(text: &str) -> Result<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':').context("no port")?;
    let address = match address {
        "*" => Ipv6Addr::UNSPECIFIED.into(),
        _ => address.trim_matches(['[', ']']).parse()?,
    };
    Ok((address, if port == "*" { 0 } else { port.parse()? }))
}
