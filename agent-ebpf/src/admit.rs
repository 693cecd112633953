//! Filters, applied before anything is paid for. Each is a knob: one that is off is dead code to the verifier.

use aya_ebpf::maps::lpm_trie::Key;
use synfin_common::knobs::filter;

use crate::maps::{FILTER_EXCLUDED, FILTER_NETNS, FILTER_ONE_NETNS, FILTER_PEERS, FILTER_PORTS, knob};
use crate::rung::Rung;
use crate::sock::Sock;

/// Whether the user wants to see this namespace.
#[inline(always)]
pub(crate) fn netns(netns: u32) -> bool {
    let filters = knob!(filters);
    if filters & filter::ONE_NETNS != 0 {
        return FILTER_ONE_NETNS.get(0).is_some_and(|wanted| *wanted == netns);
    }
    filters & filter::NETNS == 0 || FILTER_NETNS.get_ptr(netns).is_some()
}

/// Whether the user wants to see this listener's port.
#[inline(always)]
pub(crate) fn listener(port: u16) -> bool {
    knob!(filters) & filter::PORTS == 0 || FILTER_PORTS.get_ptr(port).is_some()
}

#[inline(always)]
fn is_loopback(addr: &[u8; 16]) -> bool {
    let mapped = addr[10] == 0xff && addr[11] == 0xff && addr[12] == 127;
    let high = u64::from_ne_bytes([addr[0], addr[1], addr[2], addr[3], addr[4], addr[5], addr[6], addr[7]]);
    let low = u64::from_be_bytes([addr[8], addr[9], addr[10], addr[11], addr[12], addr[13], addr[14], addr[15]]);
    high == 0 && (mapped || low == 1)
}

/// Whether the user wants to see this connection. Judges by what the kernel knows at that moment: a child's peer is not
/// known at LISTEN → SYN_RECV before 6.17, so that a filter on peers drops that one transition there; the ledger takes
/// the next one for its birth.
#[inline(always)]
pub(crate) fn connection<R: Rung>(sock: Sock<R>, local_port: u16) -> bool {
    let filters = knob!(filters);
    if filters & (filter::NETNS | filter::ONE_NETNS) != 0 && !netns(sock.netns()) {
        return false;
    }
    if filters & filter::PORTS != 0
        && FILTER_PORTS.get_ptr(local_port).is_none()
        && FILTER_PORTS.get_ptr(sock.peer_port()).is_none()
    {
        return false;
    }
    if filters & (filter::NO_LOOPBACK | filter::PEERS | filter::EXCLUDED) == 0 {
        return true;
    }
    let peer = sock.peer();
    if filters & filter::NO_LOOPBACK != 0 && is_loopback(&peer) {
        return false;
    }
    let key = Key::new(128, peer);
    if filters & filter::PEERS != 0 && FILTER_PEERS.get(&key).is_none() {
        return false;
    }
    filters & filter::EXCLUDED == 0 || FILTER_EXCLUDED.get(&key).is_none()
}
