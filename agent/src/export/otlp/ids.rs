//! Trace and span ids that both ends of a connection compute alike.
//!
//! At ESTABLISHED both kernels know the same two numbers: where the client's bytes begin and where the server's do.
//! Neither NAT nor routing changes them, so agents on two hosts put their halves of a connection into one trace without
//! talking to each other. What changes on the way (addresses, ports) must not enter the hash. Connections whose handshake
//! was not seen or carried data (fast open) get ids of this agent's own; behind a middlebox that rewrites sequence numbers each
//! end hashes numbers that no other end has. Either way the ids join nothing: docs/ARCHITECTURE.md, "Two ends, one trace".
//!
//! All ids are fixed when the handshake is done (or was missed), so that whatever is told of a connection while it lives and at
//! its end is told under the same ones.
//!
//! **The ids are a contract between versions**: agents of different releases watch the same connection. The hash is
//! SipHash-2-4 with the keys below over the client's and the server's number as big-endian 32-bit integers, in this
//! order; of the 128 bits of a trace id, the first word of the hash is the low half. A change needs new keys and a note
//! in docs/ARCHITECTURE.md.
//!
//! Two connections share an id by chance only if both numbers are the same: with a thousand million connections within
//! the retention of a backend, one such pair is to be expected in about forty such backends.

use std::hash::Hasher as _;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use siphasher::sip::SipHasher24;
use siphasher::sip128::{Hasher128 as _, SipHasher24 as SipHasher24Wide};

use crate::ledger::{Connection, Role};

const TRACE_KEY: &[u8; 16] = b"synfin trace v1\0";
const CLIENT_KEY: &[u8; 16] = b"synfin client v1";
const SERVER_KEY: &[u8; 16] = b"synfin server v1";
const CHECKPOINT_KEY: &[u8; 16] = b"synfin checks v1";

/// Where a span belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The trace of the connection.
    pub trace: TraceId,
    /// The span of this end.
    pub span: SpanId,
    /// The span of the client for a server, which may be in another agent; otherwise invalid.
    pub parent: SpanId,
}

/// What gives connections their ids.
#[derive(Clone, Copy)]
pub struct Names {
    /// Keys that no other agent has.
    trace: [u8; 16],
    span: [u8; 16],
}

// By hand: who has the keys can tell ids from addresses.
impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// With keys that are drawn.
    pub fn draw() -> Self {
        let random = RandomIdGenerator::default();
        let key = || random.new_trace_id().to_bytes();
        Self { trace: key(), span: key() }
    }

    /// Ids of this end of the connection: those that both ends can compute, else of this agent's own, which follow from what is
    /// known of the connection from its first event on and never changes.
    pub fn of(&self, connection: &Connection) -> Ids {
        Ids::computed(connection).unwrap_or_else(|| {
            let ends = &connection.ends;
            // What was found by inet_diag has no address, and a cookie instead.
            let socket = if ends.sock == 0 { ends.cookie } else { ends.sock };
            let mut birth = [0; 20];
            birth[..8].copy_from_slice(&socket.to_be_bytes());
            birth[8..16].copy_from_slice(&connection.first_ns.to_be_bytes());
            birth[16..].copy_from_slice(&ends.netns.to_be_bytes());
            Ids { trace: trace_id(&self.trace, &birth), span: span_id(&self.span, &birth), parent: SpanId::INVALID }
        })
    }
}

impl Ids {
    /// Ids that both ends compute alike; None where they cannot.
    pub fn computed(connection: &Connection) -> Option<Self> {
        Some(Self::of_pair(connection.sequence_pair?, connection.role?))
    }

    /// Ids out of the client's and the server's first sequence numbers.
    fn of_pair((client, server): (u32, u32), role: Role) -> Self {
        let mut pair = [0; 8];
        pair[..4].copy_from_slice(&client.to_be_bytes());
        pair[4..].copy_from_slice(&server.to_be_bytes());
        let client = span_id(CLIENT_KEY, &pair);
        let (span, parent) = match role {
            Role::Client => (client, SpanId::INVALID),
            Role::Server => (span_id(SERVER_KEY, &pair), client),
        };
        Self { trace: trace_id(TRACE_KEY, &pair), span, parent }
    }

    /// Ids of this agent's own, as they were given.
    pub fn unrelated(trace: [u8; 16], span: [u8; 8]) -> Self {
        Self { trace: TraceId::from_bytes(trace), span: SpanId::from_bytes(span), parent: SpanId::INVALID }
    }

    /// The span of checkpoint `number` of the connection whose ids these are.
    pub(super) fn checkpoint(self, number: u32) -> SpanId {
        let mut which = [0; 12];
        which[..8].copy_from_slice(&self.span.to_bytes());
        which[8..].copy_from_slice(&number.to_be_bytes());
        span_id(CHECKPOINT_KEY, &which)
    }
}

fn trace_id(key: &[u8; 16], of: &[u8]) -> TraceId {
    let mut hasher = SipHasher24Wide::new_with_key(key);
    hasher.write(of);
    // Zero is no id; nobody will ever see this happen, but an invalid id would be refused.
    TraceId::from(hasher.finish128().as_u128().max(1))
}

fn span_id(key: &[u8; 16], of: &[u8]) -> SpanId {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(of);
    SpanId::from(hasher.finish().max(1))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::client;
    use super::*;

    #[test]
    fn both_ends_share_the_trace_and_the_client_is_the_parent() {
        let client = Ids::of_pair((0x0102_0304, 0xa1a2_a3a4), Role::Client);
        let server = Ids::of_pair((0x0102_0304, 0xa1a2_a3a4), Role::Server);
        assert_eq!(client.trace, server.trace);
        assert_eq!(client.parent, SpanId::INVALID);
        assert_eq!(server.parent, client.span);
        assert_ne!(server.span, client.span);

        let swapped = Ids::of_pair((0xa1a2_a3a4, 0x0102_0304), Role::Client);
        assert_ne!(swapped.trace, client.trace);
    }

    #[test]
    fn ids_are_the_same_in_every_release() {
        // Computed by an implementation of SipHash-2-4 of its own.
        let ids = Ids::of_pair((0x0102_0304, 0xa1a2_a3a4), Role::Server);
        let shown = format!("{} {} {}", ids.trace, ids.span, ids.parent);
        assert_eq!(shown, "49cca4b2eca8def775ca0d58f85d47b6 7fe982ffbffe5043 778e22bf34ee9b90");
    }

    #[test]
    fn ids_of_an_agents_own_join_nothing_and_last_a_life() {
        let (here, there) = (Names::draw(), Names::draw());
        let unseen = Connection { sequence_pair: None, ..client() };
        let ids = here.of(&unseen);
        assert_eq!(ids.parent, SpanId::INVALID);
        assert!(ids.trace != TraceId::INVALID && ids.span != SpanId::INVALID);
        assert_ne!(there.of(&unseen).trace, ids.trace, "of another agent");

        // What a connection learns does not change them: its cookie, addresses, states.
        let mut learnt = unseen;
        (learnt.ends.cookie, learnt.ends.local_port, learnt.ends.peer) = (0, 9, [9; 16]);
        (learnt.state, learnt.last_ns, learnt.checkpoints) = (crate::event::State::Closed, u64::MAX, 7);
        assert_eq!(here.of(&learnt), ids);

        // Another one on the same socket, or at the same address in another namespace, has others.
        let mut later = unseen;
        later.first_ns += 1;
        let mut elsewhere = unseen;
        elsewhere.ends.netns += 1;
        let listed = Connection { ends: crate::event::Ends { sock: 0, ..unseen.ends }, ..unseen };
        for other in [later, elsewhere, listed] {
            assert_ne!(here.of(&other).trace, ids.trace);
            assert_ne!(here.of(&other).span, ids.span);
        }
    }

    #[test]
    fn checkpoints_have_ids_of_their_own() {
        let ids = Ids::of_pair((0x0102_0304, 0xa1a2_a3a4), Role::Server);
        let all: std::collections::HashSet<_> = (1..1_000).map(|number| ids.checkpoint(number)).collect();
        assert!(all.len() == 999 && !all.contains(&ids.span) && !all.contains(&ids.parent));
        // Computed by an implementation of SipHash-2-4 of its own.
        assert_eq!(ids.checkpoint(1).to_string(), "48d0066cbab64edf");
    }
}
