//! Trace and span ids that both ends of a connection compute alike, and sampling by them.
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

/// Keeps a share of the traces, chosen by trace id: agents with the same ratio keep both halves of a connection or none
/// (OpenTelemetry's consistent probability sampling).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Traces whose 56 random bits are below are left out.
    threshold: u64,
}

/// One more than the largest number of 56 bits.
const RANDOMNESS: u64 = 1 << 56;

impl Sampler {
    /// Keeps `ratio` (0 to 1) of the traces.
    pub fn new(ratio: f64) -> Self {
        #[expect(clippy::cast_sign_loss, reason = "the ratio is at least 0")]
        let kept = (ratio.clamp(0.0, 1.0) * RANDOMNESS as f64).round() as u64;
        Self { threshold: RANDOMNESS - kept }
    }

    /// Whether it leaves anything out.
    pub const fn is_partial(self) -> bool {
        self.threshold != 0
    }

    /// Whether the trace is kept.
    pub fn keeps(self, trace: TraceId) -> bool {
        let low = u128::from_be_bytes(trace.to_bytes()) as u64;
        low % RANDOMNESS >= self.threshold
    }

    /// How probable it was to keep a span, so that backends can count properly.
    pub fn trace_states(self) -> TraceStates {
        if self.is_partial() {
            TraceStates { sampled: threshold(self.threshold), always: threshold(0) }
        } else {
            TraceStates::default() // everything is kept: nothing to correct
        }
    }
}

/// The values of `tracestate` that spans may have, made once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceStates {
    /// Of a span that the ratio kept.
    pub sampled: String,
    /// Of a span that was kept for what it is.
    pub always: String,
}

/// `tracestate` with a threshold for the 56 random bits, as OpenTelemetry's entry `ot` tells it.
fn threshold(threshold: u64) -> String {
    let digits = format!("{threshold:014x}");
    let digits = digits.trim_end_matches('0');
    format!("ot=th:{}", if digits.is_empty() { "0" } else { digits })
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

    #[test]
    fn sampling_is_by_the_low_56_bits() {
        let trace = |low: u64| TraceId::from((0xffff_u128 << 112) | u128::from(low));
        let half = Sampler::new(0.5);
        assert!(half.keeps(trace(RANDOMNESS / 2)));
        assert!(!half.keeps(trace(RANDOMNESS / 2 - 1)));
        assert!(!half.keeps(trace(0xff << 56)), "the bits above do not count");
        assert!(Sampler::new(1.0).keeps(trace(0)));
        assert!(!Sampler::new(0.0).keeps(trace(RANDOMNESS - 1)));
    }

    #[test]
    fn the_threshold_is_told_as_the_specification_says() {
        let states = |ratio| Sampler::new(ratio).trace_states();
        assert_eq!(states(1.0), TraceStates::default());
        assert_eq!(states(0.25).sampled, "ot=th:c");
        assert_eq!(states(0.5).sampled, "ot=th:8");
        assert_eq!(states(0.5).always, "ot=th:0");
        assert_eq!(states(0.01).sampled, "ot=th:fd70a3d70a3d71");
    }

    #[test]
    fn the_share_kept_is_the_ratio() {
        let sampler = Sampler::new(0.1);
        let kept = (0..20_000).filter(|n| sampler.keeps(Ids::computed((*n, n ^ 0x55), Role::Client).trace)).count();
        assert!((1_850..2_150).contains(&kept), "{kept}");
    }
}
