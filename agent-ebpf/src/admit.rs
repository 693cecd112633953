//! Filters, applied before anything is paid for. Each is a knob: one that is off is dead code to the verifier.

use aya_ebpf::maps::lpm_trie::Key;
use synfin_common::event::Endpoints;
use synfin_common::knobs::filter;

use crate::maps::{FILTER_EXCLUDED, FILTER_NETNS, FILTER_PEERS, FILTER_PORTS, knob};

/// Whether the user wants to see this namespace.
#[inline(always)]
pub(crate) fn netns(netns: u32) -> bool {
    knob!(filters) & filter::NETNS == 0 || FILTER_NETNS.get_ptr(netns).is_some()
}

/// Whether the user wants to see this port.
#[inline(always)]
fn port(port: u16) -> bool {
    FILTER_PORTS.get_ptr(port).is_some()
}

/// Whether the user wants to see a listener's port.
#[inline(always)]
pub(crate) fn listener(listener: u16) -> bool {
    knob!(filters) & filter::PORTS == 0 || port(listener)
}

#[inline(always)]
fn is_loopback(addr: &[u8; 16]) -> bool {
    let mapped = addr[10] == 0xff && addr[11] == 0xff && addr[12] == 127;
    // ::1 has fifteen zero bytes; two halves are enough to tell it apart.
    let high = u64::from_ne_bytes([addr[0], addr[1], addr[2], addr[3], addr[4], addr[5], addr[6], addr[7]]);
    let low = u64::from_be_bytes([addr[8], addr[9], addr[10], addr[11], addr[12], addr[13], addr[14], addr[15]]);
    high == 0 && (mapped || low == 1)
}

/// Whether the user wants to see this connection. A connection whose peer is not known yet passes: later transitions
/// of it are filtered by the agent's ledger when the peer turns out to be another.
#[inline(always)]
pub(crate) fn connection(ends: &Endpoints) -> bool {
    let filters = knob!(filters);
    if !netns(ends.netns) {
        return false;
    }
    if filters & filter::PORTS != 0 && !port(ends.local_port) && !port(ends.peer_port) {
        return false;
    }
    if filters & filter::NO_LOOPBACK != 0 && is_loopback(&ends.peer) {
        return false;
    }
    let key = Key::new(128, ends.peer);
    if filters & filter::PEERS != 0 && FILTER_PEERS.get(&key).is_none() {
        return false;
    }
    filters & filter::EXCLUDED == 0 || FILTER_EXCLUDED.get(&key).is_none()
}
