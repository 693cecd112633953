//! Bytes of the ring to events. Trusts nothing: a record of another version, an unknown kind, a short record or an
//! impossible state is an error to count, never a guess.

use synfin_common::event::{
    Destroy, Endpoints, Header, NO_REASON, Reset, Retransmit, Transition, TransitionDetail, WIRE_VERSION, flag, kind,
};
use zerocopy::FromBytes as _;

use crate::event::{self, Direction, Ends, Event, State, Task, UnknownState};

/// Why a record was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than its kind has.
    #[error("a record of {0} bytes is too short for its kind")]
    Short(usize),
    /// Written by programs of another version.
    #[error("a record of wire version {0}, this agent reads {WIRE_VERSION}")]
    Version(u8),
    /// A kind of another version.
    #[error("a record of unknown kind {0}")]
    Kind(u16),
    /// A state that does not exist.
    #[error(transparent)]
    State(#[from] UnknownState),
}

/// The event in a record.
pub fn decode(record: &[u8]) -> Result<Event, DecodeError> {
    let (header, _) = Header::ref_from_prefix(record).map_err(|_err| DecodeError::Short(record.len()))?;
    if header.version != WIRE_VERSION {
        return Err(DecodeError::Version(header.version));
    }
    match header.kind {
        kind::TRANSITION => transition(view::<Transition>(record)?, None),
        kind::TRANSITION_DETAIL => {
            let detail = view::<TransitionDetail>(record)?;
            transition(&detail.transition, Some(detail.measures))
        }
        kind::RETRANSMIT => retransmit(view::<Retransmit>(record)?),
        kind::RESET_SENT => reset(view::<Reset>(record)?, Direction::Transmit),
        kind::RESET_RECEIVED => reset(view::<Reset>(record)?, Direction::Receive),
        kind::DESTROY => Ok(destroy(view::<Destroy>(record)?)),
        other => Err(DecodeError::Kind(other)),
    }
}

/// A record as its struct, in place. The ring aligns records to 8 bytes.
fn view<T: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(
    record: &[u8],
) -> Result<&T, DecodeError> {
    T::ref_from_prefix(record).map(|(view, _)| view).map_err(|_err| DecodeError::Short(record.len()))
}

fn transition(record: &Transition, measures: Option<event::Measures>) -> Result<Event, DecodeError> {
    let flags = record.header.flags;
    Ok(Event::Transition(event::Transition {
        time_ns: record.header.time_ns,
        ends: ends(&record.ends),
        old: State::try_from(record.old)?,
        new: State::try_from(record.new)?,
        errno: record.err,
        fin_received: flags & flag::FIN_RECEIVED != 0,
        orphan: flags & flag::ORPHAN != 0,
        blind: flags & flag::BLIND != 0,
        owner_context: flags & flag::OWNER_CONTEXT != 0,
        task: Task { pid: record.pid, comm: record.comm },
        cgroup: record.cgroup,
        measures,
    }))
}

fn retransmit(record: &Retransmit) -> Result<Event, DecodeError> {
    Ok(Event::Retransmit(event::Retransmit {
        time_ns: record.header.time_ns,
        ends: ends(&record.ends),
        segments: record.segments,
        total: record.total,
        state: State::try_from(record.state)?,
        syn: record.header.flags & flag::SYN != 0,
        ca_state: record.ca_state,
    }))
}

fn reset(record: &Reset, direction: Direction) -> Result<Event, DecodeError> {
    Ok(Event::Reset(event::Reset {
        time_ns: record.header.time_ns,
        ends: ends(&record.ends),
        direction,
        reason: (record.reason != NO_REASON).then_some(record.reason),
        state: State::try_from(record.state)?,
    }))
}

fn destroy(record: &Destroy) -> Event {
    Event::Destroy(event::Destroy {
        time_ns: record.header.time_ns,
        cookie: record.id,
        sock: record.sock,
        netns: record.netns,
    })
}

fn ends(record: &Endpoints) -> Ends {
    Ends {
        cookie: record.id,
        sock: record.sock,
        netns: record.netns,
        local_port: record.local_port,
        peer_port: record.peer_port,
        local: record.local,
        peer: record.peer,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    fn record() -> TransitionDetail {
        let mut record = TransitionDetail::new_zeroed();
        record.transition.header.kind = kind::TRANSITION_DETAIL;
        record.transition.header.version = WIRE_VERSION;
        record.transition.header.time_ns = 7;
        record.transition.header.flags = flag::COOKIE | flag::OWNER_CONTEXT;
        record.transition.ends.id = 42;
        record.transition.ends.peer_port = 443;
        record.transition.old = 2;
        record.transition.new = 1;
        record.measures.snd_una = 11;
        record
    }

    #[test]
    fn a_record_comes_through() {
        let record = record();
        let Ok(Event::Transition(event)) = decode(record.as_bytes()) else { panic!("a transition") };
        assert_eq!((event.time_ns, event.ends.cookie, event.ends.peer_port), (7, 42, 443));
        assert_eq!((event.old, event.new, event.owner_context), (State::SynSent, State::Established, true));
        assert_eq!(event.measures.map(|measures| measures.snd_una), Some(11));
    }

    #[test]
    fn what_is_not_understood_says_so() {
        let good = record();
        let bytes = good.as_bytes();
        assert_eq!(decode(&bytes[..15]), Err(DecodeError::Short(15)));
        assert_eq!(decode(&bytes[..176]), Err(DecodeError::Short(176)));
        let mut bad = good;
        bad.transition.header.version = WIRE_VERSION + 1;
        assert_eq!(decode(bad.as_bytes()), Err(DecodeError::Version(WIRE_VERSION + 1)));
        let mut bad = good;
        bad.transition.header.kind = 63;
        assert_eq!(decode(bad.as_bytes()), Err(DecodeError::Kind(63)));
        let mut bad = good;
        bad.transition.new = 13;
        assert_eq!(decode(bad.as_bytes()), Err(DecodeError::State(UnknownState(13))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_an_error(words in proptest::collection::vec(any::<u64>(), 0..32), kind in 0u16..64) {
            // Aligned like the ring, and a plausible header now and then.
            let mut words = words;
            if words.len() > 1 {
                words[1] = u64::from(kind) | u64::from(WIRE_VERSION) << 32;
            }
            let _event_or_error = decode(words.as_bytes());
        }
    }
}
