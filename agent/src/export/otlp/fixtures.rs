//! Connections for the tests of this module.

use std::sync::LazyLock;

use super::ids::{Ids, Names};
use crate::event::{Ends, Measures, State, Task};
use crate::ledger::{Connection, Role, Side};

/// Wall clock minus monotonic clock in the tests.
pub(super) const OFFSET: i64 = 1_700_000_000_000_000_000;

/// The ids of a connection, as one agent has them.
pub(super) fn ids(connection: &Connection) -> Ids {
    static NAMES: LazyLock<Names> = LazyLock::new(Names::draw);
    NAMES.of(connection)
}

/// A client's connection 10.0.0.1:40000 → 10.0.0.2:443 that it closed first, one second long.
pub(super) fn client() -> Connection {
    let mut entered_ns = [0; State::LIMIT];
    for (state, at) in [
        (State::SynSent, 1_000_000_000),
        (State::Established, 1_002_000_000),
        (State::FinWait1, 1_900_000_000),
        (State::FinWait2, 1_950_000_000),
        (State::Closed, 2_000_000_000),
    ] {
        entered_ns[state.index()] = at;
    }
    let ends = Ends {
        cookie: 77,
        sock: 0xffff_8880_0000_0000,
        netns: 4_026_531_840,
        local_port: 40_000,
        peer_port: 443,
        local: std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets(),
        peer: std::net::Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped().octets(),
    };
    Connection {
        role: Some(Role::Client),
        birth_seen: true,
        entered_ns,
        last_ns: 2_000_000_000,
        closed_ns: 2_000_000_000,
        closed_first: Some(Side::Local),
        fin_received: true,
        left: State::FinWait2,
        sequence_pair: Some((0x0102_0304, 0xa1a2_a3a4)),
        measures: Some(Measures {
            bytes_acked: 101,
            bytes_received: 2_000,
            bytes_sent: 100,
            bytes_retrans: 0,
            segs_out: 6,
            segs_in: 5,
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
        ..Connection::new(ends, State::Closed, 1_000_000_000)
    }
}

/// The other end of [`client`], as the server's host sees it behind a NAT.
pub(super) fn server() -> Connection {
    let mut connection = client();
    std::mem::swap(&mut connection.ends.local, &mut connection.ends.peer);
    connection.ends.local_port = 8_443;
    connection.ends.peer_port = 61_000;
    connection.role = Some(Role::Server);
    connection.owner = None;
    connection.entered_ns = [0; State::LIMIT];
    connection.entered_ns[State::SynReceived.index()] = 1_001_000_000;
    connection.entered_ns[State::Established.index()] = 1_002_000_000;
    connection.entered_ns[State::CloseWait.index()] = 1_900_000_000;
    connection.entered_ns[State::LastAck.index()] = 1_940_000_000;
    connection.entered_ns[State::Closed.index()] = 1_950_000_000;
    connection.first_ns = 1_001_000_000;
    connection.closed_ns = 1_950_000_000;
    connection.last_ns = 1_950_000_000;
    connection.closed_first = Some(Side::Peer);
    connection
}

/// A client's connection that was refused after a SYN had to be sent twice.
pub(super) fn refused() -> Connection {
    let mut connection = client();
    connection.entered_ns = [0; State::LIMIT];
    connection.entered_ns[State::SynSent.index()] = 1_000_000_000;
    connection.entered_ns[State::Closed.index()] = 2_000_000_000;
    connection.left = State::SynSent;
    connection.errno = libc::ECONNREFUSED as u16;
    connection.closed_first = None;
    connection.fin_received = false;
    connection.retransmits_syn = 1;
    connection.first_retransmit_ns = 1_990_000_000;
    connection.resets_received = 1;
    connection.sequence_pair = None;
    connection.measures = None;
    connection
}
