//! Export in the report for people.

use super::Exports;
use super::turn::{WAYS, Way};
use crate::bench::figures::{hundredths, mib};
use crate::bench::spread::{Spread, short};
use crate::bench::table;

/// Tables of all that was measured.
pub(in crate::bench) fn page(exports: &Exports) -> String {
    let mut parts = Vec::new();
    if !exports.costs.is_empty() {
        parts.push(costs(exports));
    }
    if !exports.waits.is_empty() {
        parts.push(waits(exports));
    }
    parts.join("\n")
}

fn costs(exports: &Exports) -> String {
    let head = ["exported", "series", "CPU µs each", "SDK ÷ this", "CPU µs each, to hand it over", "allocations each"];
    let rows = WAYS.into_iter().filter_map(|way| {
        let each = exports.each(way)?;
        let cell = |spread: Option<Spread>| spread.map_or_else(String::new, |spread| spread.text(hundredths));
        let series = exports.costs(way, |cost| Some(cost.series? as f64));
        Some(vec![
            way.name().to_owned(),
            series.map_or_else(String::new, |series| short(series.median)),
            each.text(hundredths),
            cell(way.sdk().filter(|sdk| *sdk != way).and_then(|sdk: Way| exports.ratio(sdk, way))),
            cell(exports.costs(way, |cost| Some(cost.each(cost.handing_over_ns?)))),
            cell(exports.costs(way, |cost| Some(cost.allocations? as f64 / cost.items as f64))),
        ])
    });
    table::render(&head, &rows.collect::<Vec<_>>())
}

fn waits(exports: &Exports) -> String {
    let row = exports.waiting().zip(exports.growth()).map(|(bytes, growth)| {
        let connections = exports.waits.first().map_or(0, |wait| wait.connections);
        vec![short(connections as f64), bytes.text(hundredths), growth.text(mib)]
    });
    let head = ["connections that wait", "bytes each", "MiB by which the process has grown"];
    table::render(&head, &row.into_iter().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_measured_is_shown() {
        let page = page(&super::super::tests::exports());
        for cell in
            ["3.00 (2.00–4.00)", "5.50 (5.00–6.00)", "0.06 (0.06–0.06)", "| 100,000", "120.00", "15.0 (15.0–15.0)"]
        {
            assert!(page.contains(cell), "{cell} is not in\n{page}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_shown() {
        assert_eq!(page(&Exports::default()), "");
    }
}
