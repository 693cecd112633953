use proptest::prelude::*;

use super::super::fixtures::{OFFSET, client, ids, server};
use super::super::sampling::{Kept, Why};
use super::super::span::Part;
use super::*;
use crate::clock::Offset;
use crate::event::{Ends, Measures, State, Task};
use crate::ledger::{Connection, End, Role, Side};

fn ended(connection: &Connection, end: End) -> Subject {
    let kept = Kept::Limited(0xfd70);
    let (part, offset) = (Part::Whole(end), Offset::from_nanos(OFFSET));
    Subject { ids: ids(connection), connection: *connection, part, offset, kept }
}

/// What of a connection is kept: not where its socket lay, nor sequence numbers after their use.
fn kept(mut ended: Subject) -> Subject {
    ended.connection.ends.sock = 0;
    if let Some(measures) = &mut ended.connection.measures {
        (measures.snd_una, measures.rcv_nxt, measures.snd_nxt) = (0, 0, 0);
    }
    ended
}

#[test]
fn ended_connections_take_less_than_128_bytes() {
    let mut packed = Packed::default();
    // The same on a host that has been up for weeks, with a process of the longest name and a gigabyte sent.
    let mut busy = client();
    let weeks = 3_000_000_000_000_000;
    busy.first_ns += weeks;
    busy.last_ns += weeks;
    busy.closed_ns += weeks;
    busy.entered_ns.iter_mut().filter(|time| **time != 0).for_each(|time| *time += weeks);
    busy.owner = Some(Task { pid: 4_000_000, comm: *b"kubelet-worker9\0" });
    if let Some(measures) = &mut busy.measures {
        (measures.bytes_acked, measures.bytes_sent, measures.segs_out) = (1 << 30, 1 << 30, 1 << 20);
    }
    let server = server();
    for number in 0..100_000 {
        let mut subject = ended(if number % 2 == 0 { &busy } else { &server }, End::TimeWait);
        if number % 4 == 0 {
            // A connection that goes on, at a checkpoint, after weeks.
            subject.connection.checkpoints = 4_000;
            subject.connection.closed_ns = 0;
            subject.connection.entered_ns[State::FinWait1.index()] = 0;
            subject.connection.entered_ns[State::FinWait2.index()] = 0;
            subject.connection.entered_ns[State::Closed.index()] = 0;
            subject.part = Part::Stretch { from_ns: 2 * weeks, to_ns: 2 * weeks + 600_000_000_000 };
        }
        packed.push(&subject);
    }
    let memory: usize = packed.chunks.iter().map(|chunk| chunk.bytes.capacity() + size_of::<Chunk>()).sum();
    assert!(memory <= 128 * 100_000, "{} bytes for each", memory / 100_000);
    assert!(packed.bytes() <= memory);
}

#[test]
fn the_longest_record_fits() {
    let mut worst = client();
    let far = u64::MAX;
    worst.ends = Ends { cookie: far, netns: u32::MAX, local: [0xfd; 16], peer: [0xfd; 16], ..worst.ends };
    worst.role = None;
    worst.entered_ns = [1 << 62; State::LIMIT];
    (worst.closed_ns, worst.first_retransmit_ns, worst.cgroup) = (far, far, far);
    (worst.retransmits_syn, worst.retransmits_data, worst.errno) = (u32::MAX, u32::MAX, u16::MAX);
    (worst.resets_sent, worst.resets_received, worst.reset_reason) = (u16::MAX, u16::MAX, Some(u32::MAX));
    worst.measures = Some(Measures {
        bytes_acked: far,
        bytes_received: far,
        bytes_sent: far / 3,
        bytes_retrans: far,
        segs_out: u32::MAX,
        segs_in: u32::MAX,
        retrans: u32::MAX,
        srtt_us: u32::MAX,
        mdev_us: u32::MAX,
        snd_cwnd: u32::MAX,
        ooo: u32::MAX,
        snd_una: 0,
        rcv_nxt: 0,
        snd_nxt: 0,
    });
    worst.owner = Some(Task { pid: u32::MAX, comm: [b'x'; 16] });
    worst.checkpoints = u32::MAX;
    let mut longest = ended(&worst, End::Folded);
    longest.part = Part::Stretch { from_ns: 1 << 63, to_ns: 0 };
    let mut packed = Packed::default();
    packed.push(&ended(&client(), End::Closed)); // another base
    packed.push(&longest);
    assert!(packed.chunks[0].records().all(|record| record.len() + 2 <= LONGEST));
    assert_eq!(packed.iter().nth(1).map(|ended| ended.connection), Some(kept(ended(&worst, End::Folded)).connection));
}

fn kept_somehow() -> impl Strategy<Value = Kept> {
    prop_oneof![
        prop::sample::select(Why::ALL.to_vec()).prop_map(Kept::Abnormal),
        Just(Kept::Ratio),
        any::<u16>().prop_map(Kept::Limited),
    ]
}

fn connection() -> impl Strategy<Value = Subject> {
    let optional = |range: std::ops::Range<u64>| prop_oneof![Just(0), range];
    let times = prop::array::uniform12(optional(1..1 << 50));
    let numbers =
        (any::<u64>(), any::<u32>(), any::<u16>(), any::<u16>(), any::<u64>(), 0..1_u64 << 50, 0..1_u64 << 50);
    let choices = (any::<[bool; 6]>(), 0..3_u8, 0..3_u8, 0..State::ALL.len(), 0..State::ALL.len(), 0..End::ALL.len());
    let trouble = (optional(1..1 << 16), optional(1..1 << 32), optional(1..1 << 50), any::<Option<u32>>());
    let more = (
        any::<Option<(u32, u32)>>(),
        any::<Option<([u64; 4], [u32; 7])>>(),
        any::<Option<(u32, [u8; 16])>>(),
        any::<([u8; 16], [u8; 16])>(),
        (-1_000_000_000_000..1_000_000_000_000_i64, kept_somehow(), any::<Option<(u64, u64)>>()),
    );
    (times, numbers, choices, trouble, more).prop_map(|(entered_ns, numbers, choices, trouble, more)| {
        let (cookie, netns, local_port, peer_port, cgroup, first_ns, last_ns) = numbers;
        let (flags, role, first, state, left, end) = choices;
        let (small, large, time, reset_reason) = trouble;
        let (sequence_pair, measures, owner, (mut local, mut peer), (jump, kept, stretch)) = more;
        if flags[5] {
            local[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
            peer[..12].copy_from_slice(&local[..12]);
        }
        let ends = Ends { cookie, sock: 0, netns, local_port, peer_port, local, peer };
        let connection = Connection {
            role: [None, Some(Role::Client), Some(Role::Server)][usize::from(role)],
            birth_seen: flags[0],
            entered_ns,
            last_ns,
            closed_ns: time,
            closed_first: [None, Some(Side::Local), Some(Side::Peer)][usize::from(first)],
            simultaneous: flags[1],
            fin_received: flags[2],
            orphan: flags[3],
            blind: flags[4],
            left: State::ALL[left],
            errno: small as u16,
            retransmits_syn: small as u32,
            retransmits_data: large as u32,
            first_retransmit_ns: time,
            resets_sent: small as u16,
            resets_received: large as u16,
            reset_reason,
            sequence_pair,
            measures: measures.map(|(bytes, counts)| Measures {
                bytes_acked: bytes[0],
                bytes_received: bytes[1],
                bytes_sent: bytes[2],
                bytes_retrans: bytes[3],
                segs_out: counts[0],
                segs_in: counts[1],
                retrans: counts[2],
                srtt_us: counts[3],
                mdev_us: counts[4],
                snd_cwnd: counts[5],
                ooo: counts[6],
                snd_una: 0,
                rcv_nxt: 0,
                snd_nxt: 0,
            }),
            owner: owner.map(|(pid, comm)| Task { pid, comm }),
            cgroup,
            ..Connection::new(ends, State::ALL[state], first_ns)
        };
        let part = match stretch {
            Some((from_ns, to_ns)) => Part::Stretch { from_ns, to_ns },
            None => Part::Whole(End::ALL[end]),
        };
        let connection = Connection { checkpoints: small as u32, ..connection };
        Subject { ids: ids(&connection), connection, part, offset: Offset::from_nanos(OFFSET + jump), kept }
    })
}

proptest! {
    /// Whatever a connection was, what a span tells of it comes out as it went in.
    #[test]
    fn nothing_is_lost_on_the_way(all in prop::collection::vec(connection(), 1..20)) {
        let mut packed = Packed::default();
        for ended in &all {
            packed.push(ended);
        }
        let read: Vec<Subject> = packed.iter().collect();
        prop_assert_eq!(read.len(), all.len());
        for (read, ended) in read.iter().zip(&all) {
            prop_assert_eq!(read.connection, ended.connection);
            prop_assert_eq!((read.part, read.offset, read.ids), (ended.part, ended.offset, ended.ids));
            prop_assert_eq!(read.kept, ended.kept);
        }
    }

    /// As a line it does what a line of single things does.
    #[test]
    fn it_is_a_line(steps in prop::collection::vec((0..4_u8, 0..1200_usize), 1..12)) {
        let (mut packed, mut batch) = (Packed::default(), Packed::default());
        let (mut line, mut sent): (VecDeque<u64>, VecDeque<u64>) = Default::default();
        let cookies = |packed: &Packed| packed.iter().map(|ended| ended.connection.ends.cookie).collect::<VecDeque<_>>();
        let mut next = 0;
        for (what, many) in steps {
            match what {
                0 => for _ in 0..many {
                    next += 1;
                    let mut connection = client();
                    connection.ends.cookie = next;
                    packed.push(&ended(&connection, End::Closed));
                    line.push_back(next);
                },
                1 => {
                    packed.drop_first(many);
                    line.drain(..many.min(line.len()));
                }
                2 => {
                    packed.take(many, &mut batch);
                    let taken = batch.len() - sent.len();
                    prop_assert_eq!(taken == 0, line.is_empty());
                    sent.extend(line.drain(..taken));
                }
                _ => {
                    packed.put_back(&mut batch);
                    sent.extend(line.drain(..));
                    std::mem::swap(&mut sent, &mut line);
                }
            }
            prop_assert_eq!((packed.len(), batch.len()), (line.len(), sent.len()));
            prop_assert_eq!(cookies(&packed), line.clone());
            prop_assert_eq!(cookies(&batch), sent.clone());
            let unread: usize = packed.chunks.iter().map(|chunk| chunk.bytes.len() - chunk.head).sum();
            prop_assert_eq!(packed.bytes(), unread);
        }
    }
}
