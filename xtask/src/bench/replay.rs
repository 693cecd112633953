//! What a transition costs between the ring and the exporters, without the kernel and without traffic beside it: the steadiest figure of
//! all, by which a change of the ledger is judged. `ledger_cost` of the agent's examples is measured.

use anyhow::{Context as _, Result};

use super::spread::{Spread, short};
use super::{Plan, Tools};
use crate::cmd;

/// Nanoseconds of CPU for a transition, a run for each round.
pub(super) fn measure(tools: &Tools, plan: Plan) -> Result<Vec<f64>> {
    let run = |_round| {
        let said = cmd::capture(&mut cmd::command(&tools.ledger_cost)).context("ledger_cost")?;
        said.trim().parse().with_context(|| format!("ledger_cost said {said:?}"))
    };
    (0..plan.rounds).map(run).collect()
}

/// For the page, below what processes take.
pub(super) fn page(each: &[f64]) -> String {
    let Some(spread) = Spread::of(each.iter().copied()) else { return String::new() };
    format!(
        "\nOf this, decoder, ledger and distributions take {} ns when the same records are replayed.\n",
        spread.text(short)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_median() {
        assert_eq!(page(&[]), "");
        assert!(page(&[90.0, 70.0, 71.0]).contains(" 71 (70–90) ns "), "{}", page(&[90.0, 70.0, 71.0]));
    }
}
