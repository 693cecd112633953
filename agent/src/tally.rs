//! What the kernel sums up for itself, as differences since the last look. Packet-rate facts come this way.

use std::collections::HashMap;

use synfin_common::tally::{TallyKey, tallied};

/// A row of the tally that has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tallied {
    /// Network namespace (inode number); 0 where unknown.
    pub netns: u32,
    /// What was counted.
    pub what: What,
    /// How many since the last look.
    pub count: u64,
}

/// What a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// SYN-ACKs that a listener sent again.
    SynAckRetransmit {
        /// The listener's port, 0 where unknown.
        port: u16,
        /// The listener is an IPv6 socket.
        ipv6: bool,
    },
    /// RSTs sent in answer to a segment without a socket.
    ResetWithoutSocket {
        /// `enum sk_rst_reason` of this kernel, [`synfin_common::event::NO_REASON`] where it gives none.
        reason: u32,
    },
}

/// Remembers the sums of the last look.
#[derive(Debug, Default)]
pub struct Tally {
    last: HashMap<TallyKey, u64>,
}

const AF_INET6: u16 = 10;

impl Tally {
    /// What has grown since the last look.
    pub fn differences(&mut self, rows: impl Iterator<Item = (TallyKey, u64)>) -> Vec<Tallied> {
        let mut grown = Vec::new();
        for (key, sum) in rows {
            let last = self.last.entry(key).or_default();
            let count = sum.saturating_sub(*last);
            *last = sum;
            let what = match key.what {
                tallied::SYNACK_RETRANSMIT => What::SynAckRetransmit { port: key.port, ipv6: key.family == AF_INET6 },
                tallied::RESET_WITHOUT_SOCKET => What::ResetWithoutSocket { reason: key.reason },
                _ => continue,
            };
            if count > 0 {
                grown.push(Tallied { netns: key.netns, what, count });
            }
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use synfin_common::event::NO_REASON;

    use super::*;

    #[test]
    fn only_what_has_grown_is_told_and_nothing_twice() {
        let key =
            TallyKey { netns: 7, reason: NO_REASON, what: tallied::SYNACK_RETRANSMIT, port: 80, family: 10, pad: 0 };
        let other = TallyKey { what: tallied::RESET_WITHOUT_SOCKET, reason: 1, ..key };
        let mut tally = Tally::default();
        let what = What::SynAckRetransmit { port: 80, ipv6: true };
        let row = |count| Tallied { netns: 7, what, count };
        assert_eq!(tally.differences([(key, 3), (other, 0)].into_iter()), [row(3)]);
        assert_eq!(tally.differences([(key, 3)].into_iter()), []);
        let grown = tally.differences([(key, 5), (other, 1)].into_iter());
        assert_eq!(grown[0], row(2));
        assert_eq!(grown[1].what, What::ResetWithoutSocket { reason: 1 });
    }
}
