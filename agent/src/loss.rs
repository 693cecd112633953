//! The account of what could not be told: gathered from where it is counted, shown as totals and as differences.

use synfin_common::event::kind;
use synfin_common::tally::lost;

use crate::event::EventKind;
use crate::health::Probe;
use crate::probes::PROBES;
use crate::ring::Rejected;
use crate::status::{Loss, LossReason};

/// Record kinds with the events that they make.
const KINDS: [(u16, EventKind); 6] = [
    (kind::TRANSITION, EventKind::Transition),
    (kind::TRANSITION_DETAIL, EventKind::Transition),
    (kind::RETRANSMIT, EventKind::Retransmit),
    (kind::RESET_SENT, EventKind::Reset),
    (kind::RESET_RECEIVED, EventKind::Reset),
    (kind::DESTROY, EventKind::Destroy),
];

/// Everything lost so far, one row for each cause and kind that ever happened. `slot` reads the kernel's LOST array;
/// `folded` connections left a full ledger.
pub fn gather(slot: impl Fn(u32) -> u64, probes: &[Probe], rejected: Rejected, folded: u64) -> Vec<Loss> {
    let mut losses: Vec<Loss> = Vec::new();
    let mut add = |reason, kind, count| {
        if count == 0 {
            return;
        }
        match losses.iter_mut().find(|loss| loss.reason == reason && loss.kind == kind) {
            Some(loss) => loss.count += count,
            None => losses.push(Loss { reason, kind, count }),
        }
    };
    for (number, kind) in KINDS {
        add(LossReason::RingFull, Some(kind), slot(u32::from(number)));
    }
    for probe in probes {
        let kind = PROBES.iter().find(|spec| spec.name == probe.name).and_then(|spec| spec.kind);
        add(LossReason::Recursion, kind, probe.cost.map_or(0, |cost| cost.recursion_misses));
    }
    add(LossReason::Decode, None, rejected.decode);
    add(LossReason::UnknownKind, None, rejected.unknown_kind);
    add(LossReason::Version, None, rejected.version);
    add(LossReason::Unreadable, Some(EventKind::Transition), slot(lost::UNREADABLE));
    add(LossReason::TallyOverflow, None, slot(lost::TALLY_OVERFLOW));
    add(LossReason::LedgerFull, None, folded);
    losses
}

/// What `now` has more than `before`.
pub fn growth(before: &[Loss], now: &[Loss]) -> Vec<Loss> {
    now.iter()
        .map(|loss| {
            let had = before.iter().find(|had| had.reason == loss.reason && had.kind == loss.kind);
            Loss { count: loss.count.saturating_sub(had.map_or(0, |had| had.count)), ..*loss }
        })
        .filter(|loss| loss.count > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Cost, Verdict};
    use crate::rung::Rung;

    #[test]
    fn every_cause_has_a_row_of_its_own() {
        let slot = |slot| match slot {
            10 => 1,
            11 => 2,
            lost::UNREADABLE => 4,
            _ => 0,
        };
        let probe = Probe {
            name: "destroy",
            tracepoint: "tcp_destroy_sock",
            required: true,
            verdict: Verdict::Active { rung: Rung::TpBtf, partial: false },
            refused: Vec::new(),
            cost: Some(Cost { recursion_misses: 8, ..Cost::default() }),
        };
        let rejected = Rejected { decode: 16, ..Rejected::default() };
        let losses = gather(slot, &[probe], rejected, 32);
        let row = |reason, kind, count| Loss { reason, kind, count };
        assert_eq!(
            losses,
            [
                row(LossReason::RingFull, Some(EventKind::Transition), 3),
                row(LossReason::Recursion, Some(EventKind::Destroy), 8),
                row(LossReason::Decode, None, 16),
                row(LossReason::Unreadable, Some(EventKind::Transition), 4),
                row(LossReason::LedgerFull, None, 32),
            ]
        );
        let before = [row(LossReason::RingFull, Some(EventKind::Transition), 1), losses[1], losses[2]];
        assert_eq!(
            growth(&before, &losses),
            [row(LossReason::RingFull, Some(EventKind::Transition), 2), losses[3], losses[4]]
        );
    }
}
