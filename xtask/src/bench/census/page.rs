//! The census in the report for people.

use super::walk::{WAYS, Way};
use super::{Censuses, ms};
use crate::bench::spread::{Spread, percent, short};
use crate::bench::table;

/// Tables of all that was measured.
pub(in crate::bench) fn page(censuses: &Censuses) -> String {
    let mut parts = Vec::new();
    if !censuses.walks.is_empty() {
        parts.push(walks(censuses));
    }
    if !censuses.starts.is_empty() {
        parts.push(starts(censuses));
    }
    if censuses.quiet.is_some() {
        parts.push(quiet(censuses));
    }
    parts.join("\n")
}

fn walks(censuses: &Censuses) -> String {
    let head = ["all sockets by", "sockets", "namespaces", "ms", "× ss", "ms of the command", "CPU ms of the command"];
    let rows = WAYS.into_iter().filter_map(|way| {
        let took = censuses.walks(way, |walk| ms(walk.took))?;
        let (mut sockets, mut namespaces) = (String::new(), String::new());
        if let Some(walk) = censuses.walks.iter().find(|walk| walk.way == way) {
            sockets = walk.sockets.map_or_else(String::new, |sockets| short(sockets as f64));
            namespaces = walk.namespaces.map_or_else(String::new, |count| count.to_string());
        }
        // The other walks have other sockets.
        let beside = matches!(way, Way::Ss | Way::ProcNet | Way::Iterator | Way::InetDiag);
        let ratio = censuses.ratio(way, Way::Ss).filter(|_| beside);
        Some(vec![
            format!("`{}`", way.name()),
            sockets,
            namespaces,
            took.text(short),
            ratio.map_or_else(String::new, |ratio| ratio.text(|ratio| format!("{ratio:.2}"))),
            censuses.walks(way, |walk| ms(walk.command))?.text(short),
            censuses.walks(way, |walk| ms(walk.cpu))?.text(short),
        ])
    });
    table::render(&head, &rows.collect::<Vec<_>>())
}

fn starts(censuses: &Censuses) -> String {
    let spread = |what: fn(&super::Start) -> f64| {
        Spread::of(censuses.starts.iter().map(what)).map_or_else(String::new, |spread| spread.text(short))
    };
    let row = vec![
        "`synfin run`".to_owned(),
        spread(|start| start.sockets as f64),
        spread(|start| ms(start.attached)),
        spread(|start| ms(start.known)),
        spread(|start| ms(start.listing)),
    ];
    let head = ["start of the service", "older sockets", "ms to attached", "ms to known", "ms of the listing in it"];
    table::render(&head, &[row])
}

fn quiet(censuses: &Censuses) -> String {
    let rows = censuses.quiet.iter().map(|quiet| {
        vec![
            format!("`synfin run`, {} namespaces", quiet.namespaces),
            percent(quiet.steady()),
            percent(quiet.repeated()),
            percent(quiet.of_process()),
            short(ms(quiet.first)),
        ]
    });
    let head = [
        "nothing happens",
        "census, of a core",
        "what it repeats every 5 min",
        "whole service, of a core",
        "CPU ms of first census and listing",
    ];
    table::render(&head, &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_measured_is_shown() {
        let page = page(&super::super::tests::censuses());
        for cell in ["| `ss -tan`", "0.25 (0.25–0.25)", "600 (500–700)", "`synfin run`, 101 namespaces"] {
            assert!(page.contains(cell), "{cell} is not in\n{page}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_shown() {
        assert_eq!(page(&Censuses::default()), "");
    }
}
