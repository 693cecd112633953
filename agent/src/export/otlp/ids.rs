//! Trace and span ids that both ends of a connection compute alike.
//!
//! At ESTABLISHED both kernels know the same two numbers: where the client's bytes begin and where the server's do.
//! Neither NAT nor routing changes them, so agents on two hosts put their halves of a connection into one trace without
//! talking to each other. What changes on the way (addresses, ports) must not enter the hash. Connections whose handshake
//! was not seen or carried data (fast open) get random ids; behind a middlebox that rewrites sequence numbers each end
//! hashes numbers that no other end has. Either way the ids join nothing: docs/ARCHITECTURE.md, "Two ends, one trace".
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

impl Ids {
    /// Ids of this end of the connection: computed where both ends can know the pair, otherwise random.
    pub fn of(connection: &Connection) -> Self {
        match (connection.sequence_pair, connection.role) {
            (Some(pair), Some(role)) => Self::computed(pair, role),
            _ => Self::random(),
        }
    }

    /// Ids out of the client's and the server's first sequence numbers.
    fn computed((client, server): (u32, u32), role: Role) -> Self {
        let mut pair = [0; 8];
        pair[..4].copy_from_slice(&client.to_be_bytes());
        pair[4..].copy_from_slice(&server.to_be_bytes());
        let client = span_id(CLIENT_KEY, pair);
        let (span, parent) = match role {
            Role::Client => (client, SpanId::INVALID),
            Role::Server => (span_id(SERVER_KEY, pair), client),
        };
        Self { trace: trace_id(pair), span, parent }
    }

    /// Ids that were drawn before, of a span that joins nothing.
    pub fn unrelated(trace: [u8; 16], span: [u8; 8]) -> Self {
        Self { trace: TraceId::from_bytes(trace), span: SpanId::from_bytes(span), parent: SpanId::INVALID }
    }

    fn random() -> Self {
        let random = RandomIdGenerator::default();
        Self { trace: random.new_trace_id(), span: random.new_span_id(), parent: SpanId::INVALID }
    }
}

fn trace_id(pair: [u8; 8]) -> TraceId {
    let mut hasher = SipHasher24Wide::new_with_key(TRACE_KEY);
    hasher.write(&pair);
    // Zero is no id; nobody will ever see this happen, but an invalid id would be refused.
    TraceId::from(hasher.finish128().as_u128().max(1))
}

fn span_id(key: &[u8; 16], pair: [u8; 8]) -> SpanId {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(&pair);
    SpanId::from(hasher.finish().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_share_the_trace_and_the_client_is_the_parent() {
        let client = Ids::computed((0x0102_0304, 0xa1a2_a3a4), Role::Client);
        let server = Ids::computed((0x0102_0304, 0xa1a2_a3a4), Role::Server);
        assert_eq!(client.trace, server.trace);
        assert_eq!(client.parent, SpanId::INVALID);
        assert_eq!(server.parent, client.span);
        assert_ne!(server.span, client.span);

        let swapped = Ids::computed((0xa1a2_a3a4, 0x0102_0304), Role::Client);
        assert_ne!(swapped.trace, client.trace);
    }

    #[test]
    fn ids_are_the_same_in_every_release() {
        // Computed by an implementation of SipHash-2-4 of its own.
        let ids = Ids::computed((0x0102_0304, 0xa1a2_a3a4), Role::Server);
        let shown = format!("{} {} {}", ids.trace, ids.span, ids.parent);
        assert_eq!(shown, "49cca4b2eca8def775ca0d58f85d47b6 7fe982ffbffe5043 778e22bf34ee9b90");
    }

    #[test]
    fn random_ids_join_nothing() {
        let (one, other) = (Ids::random(), Ids::random());
        assert_ne!(one.trace, other.trace);
        assert_eq!(one.parent, SpanId::INVALID);
        assert!(one.trace != TraceId::INVALID && one.span != SpanId::INVALID);
    }
}
