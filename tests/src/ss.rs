//! `ss`: every TCP socket of a namespace, as inet_diag tells it. An independent witness of what exists right now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    ops::Range,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

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
    /// Address of the other end, the wildcard for none.
    pub peer: IpAddr,
    /// Port of the other end, 0 for none.
    pub peer_port: u16,
    /// The timer that runs.
    pub timer: Option<Timer>,
    /// User; 0 also where there is none.
    pub uid: u64,
    /// Inode of the socket file, 0 where no process holds it.
    pub inode: u64,
    /// Processes that hold it.
    pub pids: BTreeSet<u64>,
    /// The kernel's cookie.
    pub cookie: u64,
}

/// A timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// `on`, `keepalive`, `timewait` or `persist`.
    pub kind: String,
    /// Time until it expires. `ss` cuts off more the more there is.
    pub remaining: Range<Duration>,
    /// Retransmissions or probes that nobody has answered.
    pub unanswered: u64,
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

/// Waits until nobody who has a socket locked now does so any longer: the kernel tells `tcp_info` only with the lock.
pub fn await_unlocked(netns: &Netns) -> Result<()> {
    need::tool("ss", "iproute2")?;
    netns.run(|| need::run(Command::new("ss").arg("-taniH"))).map(drop)
}

/// Bytes that the sockets of the namespace have received, and sent without those that were sent again.
pub fn carried(netns: &Netns) -> Result<[u64; 2]> {
    need::tool("ss", "iproute2")?;
    let text = netns.run(|| need::run(Command::new("ss").arg("-tniH")))?;
    let sum = |name: &str| -> Result<u64> {
        let numbers = text.split_whitespace().filter_map(|field| field.strip_prefix(name)?.strip_prefix(':'));
        numbers.map(|number| Ok(number.parse::<u64>()?)).sum()
    };
    Ok([sum("bytes_received")?, sum("bytes_sent")? - sum("bytes_retrans")?])
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
    let named = |name: &str| fields.iter().find_map(|field| field.strip_prefix(name));
    let number = |name: &str| Ok::<u64, std::num::ParseIntError>(named(name).map(str::parse).transpose()?.unwrap_or(0));
    let cookie = named("sk:").context("no cookie")?;
    Ok(Row {
        state,
        form,
        receive_queue: field(1)?.parse()?,
        send_queue: field(2)?.parse()?,
        address,
        port,
        peer,
        peer_port,
        timer: named("timer:").map(timer).transpose()?,
        uid: number("uid:")?,
        inode: number("ino:")?,
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

/// `(keepalive,1min59sec,0)`
fn timer(text: &str) -> Result<Timer> {
    let parts: Vec<&str> = text.trim_matches(['(', ')']).split(',').collect();
    let [kind, left, unanswered] = parts[..] else { anyhow::bail!("{text:?} is no timer") };
    let remaining = remaining(left).with_context(|| format!("{left:?} is no time"))?;
    Ok(Timer { kind: kind.to_owned(), remaining, unanswered: unanswered.parse()? })
}

/// `119min`, `1min59sec`, `59sec`, `9.040ms` (which is 9 s and 40 ms), `200ms`, or nothing at all; see `print_ms_timer` of iproute2.
fn remaining(text: &str) -> Result<Range<Duration>> {
    let (mut milliseconds, mut rest) = (0, text);
    for (unit, each) in [("min", 60_000), ("sec", 1000), (".", 1000), ("ms", 1)] {
        if let Some((count, after)) = rest.split_once(unit) {
            milliseconds += count.parse::<u64>()? * each;
            rest = after;
        }
    }
    ensure!(rest.is_empty(), "{rest:?} is left");
    let resolution = match milliseconds {
        600_000.. => 60_000, // ten minutes
        10_000.. => 1000,
        _ => 1,
    };
    Ok(Duration::from_millis(milliseconds)..Duration::from_millis(milliseconds + resolution))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let range = |text: &str| {
            let range = remaining(text).unwrap();
            (range.start.as_millis(), range.end.as_millis())
        };
        assert_eq!(range("119min"), (7_140_000, 7_200_000));
        assert_eq!(range("1min59sec"), (119_000, 120_000));
        assert_eq!(range("2min"), (120_000, 121_000));
        assert_eq!(range("59sec"), (59_000, 60_000));
        assert_eq!(range("9.040ms"), (9_040, 9_041));
        assert_eq!(range("3sec"), (3_000, 3_001));
        assert_eq!(range("200ms"), (200, 201));
        assert_eq!(range(""), (0, 1));
        assert!(remaining("soon").is_err());
    }
}
