//! What one span is about, as bytes: numbers as long as they are large (LEB128), times as differences.
//!
//! For the memory of this process alone: nothing of it is a contract.

use prost::encoding::{decode_varint, encode_varint};

use super::super::ids::Ids;
use super::super::sampling::{Kept, Why};
use super::super::span::{Part, Subject};
use crate::clock::Offset;
use crate::event::{Ends, Measures, State, Task};
use crate::ledger::{Connection, End, Role, Side};

/// What the records of a chunk differ from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    time_ns: u64,
    offset_ns: i64,
}

impl Base {
    pub(super) fn of(subject: &Subject) -> Self {
        Self { time_ns: subject.connection.first_ns, offset_ns: subject.offset.nanos() }
    }
}

/// Bits of the first number of a record.
mod flag {
    pub(super) const CLIENT: u64 = 1 << 0;
    pub(super) const SERVER: u64 = 1 << 1;
    pub(super) const BIRTH_SEEN: u64 = 1 << 2;
    pub(super) const LOCAL_FIRST: u64 = 1 << 3;
    pub(super) const PEER_FIRST: u64 = 1 << 4;
    pub(super) const SIMULTANEOUS: u64 = 1 << 5;
    pub(super) const FIN_RECEIVED: u64 = 1 << 6;
    pub(super) const ORPHAN: u64 = 1 << 7;
    pub(super) const BLIND: u64 = 1 << 8;
    /// Both addresses are v4-mapped.
    pub(super) const V4: u64 = 1 << 9;
    pub(super) const CLOSED: u64 = 1 << 10;
    /// Retransmits, resets, errno.
    pub(super) const TROUBLE: u64 = 1 << 11;
    pub(super) const REASON: u64 = 1 << 12;
    pub(super) const PAIR: u64 = 1 << 13;
    /// The ids are no function of the pair.
    pub(super) const IDS: u64 = 1 << 14;
    pub(super) const MEASURES: u64 = 1 << 15;
    pub(super) const OWNER: u64 = 1 << 16;
    /// Kept for what it is: this is told.
    pub(super) const ABNORMAL: u64 = 1 << 17;
    /// Kept by the rate limit, with this threshold.
    pub(super) const LIMITED: u64 = 1 << 18;
    /// It has had checkpoints.
    pub(super) const CHECKPOINTS: u64 = 1 << 19;
    /// It lives: this is about a stretch of its life.
    pub(super) const STRETCH: u64 = 1 << 20;
}

const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// A difference, the sign in the lowest bit.
const fn zigzag(from: u64, to: u64) -> u64 {
    let difference = to.wrapping_sub(from) as i64;
    (difference << 1 ^ difference >> 63).cast_unsigned()
}

const fn unzigzag(from: u64, difference: u64) -> u64 {
    from.wrapping_add(difference >> 1 ^ (difference & 1).wrapping_neg())
}

/// Whether the ids follow from the pair.
const fn is_computed(connection: &Connection) -> bool {
    connection.sequence_pair.is_some() && connection.role.is_some()
}

/// Appends a connection.
pub(super) fn write(subject: &Subject, base: Base, to: &mut Vec<u8>) {
    let Subject { connection, part, offset, ids, kept } = subject;
    let c = connection;
    let v4 = c.ends.local.starts_with(&MAPPED) && c.ends.peer.starts_with(&MAPPED);
    let trouble = [
        u64::from(c.errno),
        u64::from(c.retransmits_syn),
        u64::from(c.retransmits_data),
        c.first_retransmit_ns,
        u64::from(c.resets_sent),
        u64::from(c.resets_received),
    ];
    let flags = [
        (flag::CLIENT, c.role == Some(Role::Client)),
        (flag::SERVER, c.role == Some(Role::Server)),
        (flag::BIRTH_SEEN, c.birth_seen),
        (flag::LOCAL_FIRST, c.closed_first == Some(Side::Local)),
        (flag::PEER_FIRST, c.closed_first == Some(Side::Peer)),
        (flag::SIMULTANEOUS, c.simultaneous),
        (flag::FIN_RECEIVED, c.fin_received),
        (flag::ORPHAN, c.orphan),
        (flag::BLIND, c.blind),
        (flag::V4, v4),
        (flag::CLOSED, c.closed_ns != 0),
        (flag::TROUBLE, trouble != [0; 6]),
        (flag::REASON, c.reset_reason.is_some()),
        (flag::PAIR, c.sequence_pair.is_some()),
        (flag::IDS, !is_computed(c)),
        (flag::MEASURES, c.measures.is_some()),
        (flag::OWNER, c.owner.is_some()),
        (flag::ABNORMAL, kept.is_abnormal()),
        (flag::LIMITED, matches!(kept, Kept::Limited(_))),
        (flag::CHECKPOINTS, c.checkpoints != 0),
        (flag::STRETCH, part.end().is_none()),
    ];
    let flags = flags.iter().filter(|(_, is_set)| *is_set).fold(0, |flags, (flag, _)| flags | flag);
    // Each fits four bits; checked below.
    let end = part.end().map_or(0, End::index);
    let kinds = (end << 8 | c.state.index() << 4 | c.left.index()) as u64;
    let entered: u64 = (0..State::LIMIT).filter(|at| c.entered_ns[*at] != 0).fold(0, |set, at| set | 1 << at);
    for number in [
        flags,
        kinds,
        entered,
        zigzag(base.offset_ns.cast_unsigned(), offset.nanos().cast_unsigned()),
        zigzag(base.time_ns, c.first_ns),
        zigzag(c.first_ns, c.last_ns),
        c.ends.cookie,
        u64::from(c.ends.netns),
        c.cgroup,
    ] {
        encode_varint(number, to);
    }
    for time in c.entered_ns.iter().filter(|time| **time != 0) {
        encode_varint(zigzag(c.first_ns, *time), to);
    }
    if c.closed_ns != 0 {
        encode_varint(zigzag(c.last_ns, c.closed_ns), to);
    }
    to.extend_from_slice(&c.ends.local_port.to_ne_bytes());
    to.extend_from_slice(&c.ends.peer_port.to_ne_bytes());
    for address in [&c.ends.local, &c.ends.peer] {
        to.extend_from_slice(if v4 { &address[12..] } else { address });
    }
    if trouble != [0; 6] {
        for number in trouble {
            encode_varint(number, to);
        }
    }
    if let Some(reason) = c.reset_reason {
        encode_varint(reason.into(), to);
    }
    if let Some((client, server)) = c.sequence_pair {
        to.extend_from_slice(&client.to_ne_bytes());
        to.extend_from_slice(&server.to_ne_bytes());
    }
    if !is_computed(c) {
        to.extend_from_slice(&ids.trace.to_bytes());
        to.extend_from_slice(&ids.span.to_bytes());
    }
    if let Some(measures) = &c.measures {
        write_measures(measures, to);
    }
    if let Some(owner) = &c.owner {
        let length = owner.comm.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        encode_varint(owner.pid.into(), to);
        to.push(length as u8);
        to.extend_from_slice(&owner.comm[..length]);
    }
    if c.checkpoints != 0 {
        encode_varint(c.checkpoints.into(), to);
    }
    if let Part::Stretch { from_ns, to_ns } = part {
        encode_varint(zigzag(c.first_ns, *from_ns), to);
        encode_varint(zigzag(*from_ns, *to_ns), to);
    }
    match kept {
        Kept::Abnormal(why) => to.push(why.index() as u8),
        Kept::Limited(digits) => to.extend_from_slice(&digits.to_ne_bytes()),
        Kept::Ratio => {}
    }
}

/// Sequence numbers are of no use after the end.
fn write_measures(measures: &Measures, to: &mut Vec<u8>) {
    let Measures { bytes_acked, bytes_received, bytes_sent, bytes_retrans, segs_out, segs_in, .. } = *measures;
    let Measures { retrans, srtt_us, mdev_us, snd_cwnd, ooo, .. } = *measures;
    // Mostly what was acknowledged is what was sent, and the FIN.
    for number in [zigzag(bytes_acked, bytes_sent), bytes_acked, bytes_received, bytes_retrans] {
        encode_varint(number, to);
    }
    for number in [segs_out, segs_in, retrans, srtt_us, mdev_us, snd_cwnd, ooo] {
        encode_varint(number.into(), to);
    }
}

/// Reads what [`write`] has written.
pub(super) fn read(record: &[u8], base: Base) -> Option<Subject> {
    let mut from = Reader(record);
    let (flags, kinds, entered) = (from.number()?, from.number()?, from.number()?);
    let is = |flag| flags & flag != 0;
    let kind = |shift: u32| (kinds >> shift & 0xf) as usize;
    let offset = unzigzag(base.offset_ns.cast_unsigned(), from.number()?).cast_signed();
    let first_ns = unzigzag(base.time_ns, from.number()?);
    let last_ns = unzigzag(first_ns, from.number()?);
    let (cookie, netns, cgroup) = (from.number()?, from.small()?, from.number()?);
    let mut entered_ns = [0; State::LIMIT];
    for (at, time) in entered_ns.iter_mut().enumerate() {
        if entered & 1 << at != 0 {
            *time = unzigzag(first_ns, from.number()?);
        }
    }
    let closed_ns = if is(flag::CLOSED) { unzigzag(last_ns, from.number()?) } else { 0 };
    let (local_port, peer_port) = (u16::from_ne_bytes(from.array()?), u16::from_ne_bytes(from.array()?));
    let (local, peer) = (from.address(is(flag::V4))?, from.address(is(flag::V4))?);
    let ends = Ends { cookie, sock: 0, netns, local_port, peer_port, local, peer };
    let mut connection = Connection {
        role: if is(flag::CLIENT) { Some(Role::Client) } else { is(flag::SERVER).then_some(Role::Server) },
        birth_seen: is(flag::BIRTH_SEEN),
        entered_ns,
        last_ns,
        closed_ns,
        closed_first: if is(flag::LOCAL_FIRST) {
            Some(Side::Local)
        } else {
            is(flag::PEER_FIRST).then_some(Side::Peer)
        },
        simultaneous: is(flag::SIMULTANEOUS),
        fin_received: is(flag::FIN_RECEIVED),
        orphan: is(flag::ORPHAN),
        blind: is(flag::BLIND),
        left: state(kind(0))?,
        cgroup,
        ..Connection::new(ends, state(kind(4))?, first_ns)
    };
    if is(flag::TROUBLE) {
        connection.errno = from.small()?;
        connection.retransmits_syn = from.small()?;
        connection.retransmits_data = from.small()?;
        connection.first_retransmit_ns = from.number()?;
        connection.resets_sent = from.small()?;
        connection.resets_received = from.small()?;
    }
    if is(flag::REASON) {
        connection.reset_reason = Some(from.small()?);
    }
    if is(flag::PAIR) {
        connection.sequence_pair = Some((u32::from_ne_bytes(from.array()?), u32::from_ne_bytes(from.array()?)));
    }
    let ids = if is(flag::IDS) { Ids::unrelated(from.array()?, from.array()?) } else { Ids::computed(&connection)? };
    if is(flag::MEASURES) {
        connection.measures = Some(from.measures()?);
    }
    if is(flag::OWNER) {
        let (pid, length) = (from.small()?, usize::from(from.array::<1>()?[0]));
        let mut comm = [0; 16];
        comm.get_mut(..length)?.copy_from_slice(from.bytes(length)?);
        connection.owner = Some(Task { pid, comm });
    }
    if is(flag::CHECKPOINTS) {
        connection.checkpoints = from.small()?;
    }
    let part = if is(flag::STRETCH) {
        let from_ns = unzigzag(first_ns, from.number()?);
        Part::Stretch { from_ns, to_ns: unzigzag(from_ns, from.number()?) }
    } else {
        Part::Whole(*End::ALL.get(kind(8))?)
    };
    let kept = if is(flag::ABNORMAL) {
        Kept::Abnormal(*Why::ALL.get(usize::from(from.array::<1>()?[0]))?)
    } else if is(flag::LIMITED) {
        Kept::Limited(u16::from_ne_bytes(from.array()?))
    } else {
        Kept::Ratio
    };
    Some(Subject { connection, part, offset: Offset::from_nanos(offset), ids, kept })
}

fn state(index: usize) -> Option<State> {
    State::ALL.into_iter().find(|state| state.index() == index)
}

/// Takes a record apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        decode_varint(&mut self.0).ok()
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        self.number()?.try_into().ok()
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        self.bytes(LENGTH)?.try_into().ok()
    }

    fn address(&mut self, v4: bool) -> Option<[u8; 16]> {
        if !v4 {
            return self.array();
        }
        let mut address = [0; 16];
        address[..12].copy_from_slice(&MAPPED);
        address[12..].copy_from_slice(self.bytes(4)?);
        Some(address)
    }

    fn measures(&mut self) -> Option<Measures> {
        let (beyond, bytes_acked) = (self.number()?, self.number()?);
        Some(Measures {
            bytes_acked,
            bytes_sent: unzigzag(bytes_acked, beyond),
            bytes_received: self.number()?,
            bytes_retrans: self.number()?,
            segs_out: self.small()?,
            segs_in: self.small()?,
            retrans: self.small()?,
            srtt_us: self.small()?,
            mdev_us: self.small()?,
            snd_cwnd: self.small()?,
            ooo: self.small()?,
            snd_una: 0,
            rcv_nxt: 0,
            snd_nxt: 0,
        })
    }
}

const _: () = {
    // Four bits each.
    assert!(State::LIMIT <= 16 && End::ALL.len() <= 16);
};
