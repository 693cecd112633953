//! Our bytes against those of OpenTelemetry's SDK, for any connection.

use std::sync::Arc;

use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message as _;

use super::super::fixtures::ids;
use super::super::protobuf::Writer;
use super::super::sampling::{Sampler, Why};
use super::*;
use crate::config::Otlp as Settings;
use crate::event::{Ends, Measures, Task};

/// Whole numbers of all sizes, zero among them more often than by chance.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..100u64, any::<u32>().prop_map(u64::from), any::<u64>()]
}

/// Small ones, so that some are equal and some are out of order; and such as real clocks give.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, 1_000_000_000..1_000_001_000u64]
}

fn address() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![
        Just([0; 16]),
        any::<[u8; 16]>(),
        any::<[u8; 4]>().prop_map(|octets| std::net::Ipv4Addr::from(octets).to_ipv6_mapped().octets()),
    ]
}

fn ends() -> impl Strategy<Value = Ends> {
    let ports = (prop_oneof![Just(0), any::<u16>()], prop_oneof![Just(0), any::<u16>()]);
    (number(), any::<u32>(), ports, address(), address()).prop_map(
        |(cookie, netns, (local_port, peer_port), local, peer)| Ends {
            cookie,
            sock: 1,
            netns,
            local_port,
            peer_port,
            local,
            peer,
        },
    )
}

fn measures() -> impl Strategy<Value = Measures> {
    let bytes = (number(), number(), number(), number());
    (bytes, any::<[u32; 4]>(), prop_oneof![Just(0), any::<u32>()], any::<[u32; 2]>()).prop_map(
        |((bytes_acked, bytes_received, bytes_sent, bytes_retrans), counts, srtt_us, [mdev_us, ooo])| Measures {
            bytes_acked,
            bytes_received,
            bytes_sent,
            bytes_retrans,
            segs_out: counts[0],
            segs_in: counts[1],
            retrans: counts[2],
            srtt_us,
            mdev_us,
            snd_cwnd: counts[3],
            snd_una: 0,
            rcv_nxt: 0,
            snd_nxt: 0,
            ooo,
        },
    )
}

/// Names of any bytes, as the kernel has them.
fn owner() -> impl Strategy<Value = Task> {
    (any::<u32>(), prop_oneof![any::<[u8; 16]>(), Just(*b"curl\0\0\0\0\0\0\0\0\0\0\0\0")])
        .prop_map(|(pid, comm)| Task { pid, comm })
}

prop_compose! {
    fn connection()(
        ends in ends().boxed(),
        role in prop::option::of(prop_oneof![Just(Role::Client), Just(Role::Server)]),
        times in (time(), time(), prop_oneof![Just(0), time()], prop_oneof![Just(0), time()]),
        entered in prop::collection::vec(prop_oneof![Just(0), time()], State::LIMIT),
        closed_first in prop::option::of(prop_oneof![Just(Side::Local), Just(Side::Peer)]),
        flags in any::<[bool; 2]>(),
        errno in prop_oneof![Just(0), any::<u16>()],
        retransmits in any::<[u32; 2]>(),
        resets in any::<[u16; 2]>(),
        reset_reason in prop::option::of(0..4u32),
        sequence_pair in prop::option::of(any::<(u32, u32)>()),
        measures in prop::option::of(measures().boxed()),
        owner in prop::option::of(owner().boxed()),
        cgroup in number(),
        checkpoints in prop_oneof![Just(0), 0..3u32, any::<u32>()],
    ) -> Connection {
        let (first_ns, last_ns, closed_ns, first_retransmit_ns) = times;
        let mut entered_ns = [0; State::LIMIT];
        for state in State::ALL {
            entered_ns[state.index()] = entered[state.index()];
        }
        Connection {
            ends,
            role,
            state: State::Closed,
            first_ns,
            birth_seen: flags[0],
            entered_ns,
            last_ns,
            closed_ns,
            closed_first,
            simultaneous: flags[1],
            fin_received: false,
            fin_measured: false,
            orphan: false,
            blind: false,
            left: State::Established,
            errno,
            retransmits_syn: retransmits[0],
            retransmits_data: retransmits[1],
            checkpoints,
            first_retransmit_ns,
            resets_sent: resets[0],
            resets_received: resets[1],
            reset_reason,
            sequence_pair,
            measures,
            owner,
            cgroup,
        }
    }
}

fn status() -> Status {
    // Longer than any of the kernel's, so that lengths of more than one byte occur.
    let reasons = ["not_specified".to_owned(), "long_".repeat(60), String::new()];
    Status { reset_reasons: Arc::new(reasons), ..Status::default() }
}

proptest! {
    #[test]
    fn the_bytes_say_what_opentelemetrys_would(
        connection in connection().boxed(),
        part in prop_oneof![
            prop::sample::select(End::ALL.to_vec()).prop_map(Part::Whole),
            (time(), time()).prop_map(|(from_ns, to_ns)| Part::Stretch { from_ns, to_ns }),
        ],
        offset in 1_600_000_000_000_000_000..1_900_000_000_000_000_000i64,
        trace_sample_ratio in prop_oneof![Just(1.0), 0.0..1.0],
        trace_rate_limit in prop::option::of(Just(1)),
        kept in prop_oneof![
            prop::sample::select(Why::ALL.to_vec()).prop_map(Kept::Abnormal),
            Just(Kept::Ratio),
            any::<u16>().prop_map(Kept::Limited),
        ],
    ) {
        let subject = Subject { ids: ids(&connection), connection, part, offset: Offset::from_nanos(offset), kept };
        let settings = Settings { trace_sample_ratio, trace_rate_limit, ..Settings::default() };
        let (terms, status) = (Sampler::new(&settings).terms(), status());
        let mut writer = Writer::default();
        describe(&subject, terms, &status, &mut SpanFields(&mut writer));
        let ours = Span::decode(&writer.buffer[..]).unwrap();
        prop_assert_eq!(&ours, &Span::from(sdk::span(&subject, terms, &status)));
        prop_assert!(ours.events.is_sorted_by_key(|event| event.time_unix_nano));
    }
}
