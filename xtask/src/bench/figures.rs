//! The figures that the project holds itself to, and whether this run reached them.

use super::load::Cargo;
use super::raw::Raw;
use super::spread::{percent, short};
use super::subject::Subject;

/// A bound of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn text(self, number: fn(f64) -> String) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {}", number(most)),
            Self::AtLeast(least) => format!("≥ {}", number(least)),
        }
    }
}

/// One figure.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) what: String,
    value: f64,
    /// Without it the work is not done.
    must: Option<Bound>,
    /// Where it is to go.
    aim: Option<Bound>,
    number: fn(f64) -> String,
}

impl Figure {
    /// PASS or MISS; where nothing is demanded, whether the aim is reached.
    pub(super) fn verdict(&self) -> &'static str {
        match (self.must, self.aim) {
            (Some(must), _) if must.holds(self.value) => "PASS",
            (Some(_), _) => "MISS",
            (None, Some(aim)) if aim.holds(self.value) => "at its aim",
            (None, _) => "short of its aim",
        }
    }

    /// Measured, demanded, aimed at.
    pub(super) fn cells(&self) -> [String; 3] {
        let bound = |bound: Option<Bound>| bound.map_or_else(String::new, |bound| bound.text(self.number));
        [(self.number)(self.value), bound(self.must), bound(self.aim)]
    }

    /// For the terminal.
    pub(super) fn line(&self) -> String {
        let [measured, must, aim] = self.cells();
        let bounds = [("must be", must), ("aim", aim)].into_iter().filter(|(_, bound)| !bound.is_empty());
        let bounds: Vec<_> = bounds.map(|(word, bound)| format!("{word} {bound}")).collect();
        format!("{}: {}: {measured} ({})", self.verdict(), self.what, bounds.join(", "))
    }
}

/// All figures that were measured.
pub(super) fn judge(raw: &Raw) -> Vec<Figure> {
    use Bound::{AtLeast, AtMost};
    let mut figures = Vec::new();
    let mut add = |what: String, value: Option<f64>, must, aim, number: fn(f64) -> String| {
        figures.extend(value.map(|value| Figure { what, value, must, aim, number }));
    };
    let state = (Subject::Synfin, Some("state"));
    for threads in raw.plan.threads() {
        let from = from(threads);
        let ratio = raw.cost_ratio(state, (Subject::Empty, None), threads).map(|ratio| ratio.median);
        add(format!("state program ÷ empty program, {from}"), ratio, Some(AtMost(6.0)), Some(AtMost(3.5)), short);
        let ratio = raw.cost_ratio((Subject::Tcpstates, None), state, threads).map(|ratio| ratio.median);
        add(format!("tcpstates ÷ state program, {from}"), ratio, Some(AtLeast(25.0)), Some(AtLeast(40.0)), short);
    }
    for traffic in raw.plan.traffic() {
        let name = traffic.name();
        // Demanded of connections that carry what connections are made for, with a CPU left for the agent; the others show
        // the worst case.
        let must = (traffic.cargo == Cargo::Request).then_some(AtLeast(0.95));
        for (subject, with) in [(Subject::SynfinOtlp, "exporting by OTLP"), (Subject::SynfinFiltered, "without OTLP")] {
            let kept = raw.kept(subject, traffic).map(|kept| kept.median);
            add(format!("connections/s kept {with}, {name}"), kept, must, Some(AtLeast(0.98)), percent);
            let kept = raw.kept_by_cpu(subject, traffic).map(|kept| kept.median);
            let what = format!("the same for each second of CPU that the traffic got, {name}");
            add(what, kept, None, Some(AtLeast(0.98)), percent);
        }
    }
    let none = Some(AtMost(0.0));
    let (lost, missing, invented, spans) = tally(raw);
    let turns = raw.ours().count();
    let made: u64 = raw.ours().map(|(pace, _)| pace.made.events()).sum();
    let of = format!("of {} in {turns} turns", short(made as f64));
    let counted = |count: u64| (turns > 0).then_some(count as f64);
    add(format!("events lost, {of}"), counted(lost), none, None, whole);
    add(format!("events neither seen nor counted as lost, {of}"), counted(missing), none, None, whole);
    add(format!("events seen that nobody made, {of}"), counted(invented), none, None, whole);
    add("spans missing at the receiver, of two for each connection".to_owned(), counted(spans), None, none, whole);
    for traffic in raw.plan.traffic() {
        let cpu = raw.cpu_each(Subject::SynfinFiltered, traffic).map(|cpu| cpu.median);
        let what = format!("ns of user space for a transition without OTLP, {}", traffic.name());
        add(what, cpu, None, Some(AtMost(300.0)), short);
    }
    let idle = raw.user(Subject::SynfinOtlp, |_, user| Some(user.idle_memory as f64)).map(|idle| idle.max);
    add("MiB of memory when idle, exporting, worst turn".to_owned(), idle, None, Some(AtMost(25.0 * MIB)), mib);
    let census = &raw.census;
    let ratio = census.of_ss().map(|ratio| ratio.median);
    add("synfin's walk ÷ `ss -tan`, 80,000 sockets".to_owned(), ratio, Some(AtMost(1.0 / 3.0)), None, percent);
    // The kernel makes each walk scan the table that all namespaces share: what the service does about it is demanded.
    let ratio = census.everywhere().map(|ratio| ratio.median);
    let what = "one walk of 100 small namespaces and a big one ÷ one of the big one".to_owned();
    add(what, ratio, None, Some(AtMost(3.0)), short);
    let what = "a census of the service there, on average ÷ one walk of the big one".to_owned();
    add(what, census.each(), Some(AtMost(3.0)), None, short);
    let what = "share of a core that the census takes there, nothing happening".to_owned();
    add(what, census.share(), Some(AtMost(0.01)), None, percent);
    let known = census.known().map(|known| known.median);
    let what = "ms from the start of the service to 50,000 older sockets known".to_owned();
    add(what, known, Some(AtMost(1000.0)), None, short);
    let exports = &raw.exports;
    for (how, cpu) in ["gRPC", "HTTP/protobuf"].into_iter().zip(exports.span()) {
        let what = format!("µs of CPU for an exported span of 15 attributes and 2 events, {how}");
        add(what, cpu.map(|cpu| cpu.median), Some(AtMost(2.5)), None, hundredths);
    }
    let what = "CPU of OpenTelemetry's SDK for that span ÷ ours, gRPC".to_owned();
    add(what, exports.sdk_span().map(|ratio| ratio.median), None, Some(AtLeast(4.0)), short);
    let what = "bytes for a connection that waits to be exported".to_owned();
    add(what, exports.waiting().map(|bytes| bytes.max), Some(AtMost(128.0)), None, short);
    let what = "MiB of memory for 100,000 connections that wait, worst turn".to_owned();
    add(what, exports.growth().map(|growth| growth.max), Some(AtMost(20.0 * MIB)), None, mib);
    let what = "µs of CPU for a data point, gRPC".to_owned();
    add(what, exports.point().map(|point| point.median), Some(AtMost(1.0)), None, hundredths);
    figures
}

/// Sums over all turns of synfin: events that it lost by its own account, that are missing beyond that, that are too many; and
/// missing spans.
fn tally(raw: &Raw) -> (u64, u64, u64, u64) {
    let mut sums = (0, 0, 0, 0);
    for (pace, user) in raw.ours() {
        let made = pace.made.events();
        let lost = user.account.lost.unwrap_or(0);
        let seen = user.account.events.unwrap_or(0);
        sums.0 += lost;
        sums.1 += made.saturating_sub(seen + lost);
        sums.2 += seen.saturating_sub(made);
        sums.3 += user.exported.map_or(0, |exported| pace.made.spans().saturating_sub(exported.spans));
    }
    sums
}

/// Where traffic came from.
pub(super) fn from(threads: usize) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}

const MIB: f64 = 1_048_576.0;

/// Bytes as MiB.
pub(super) fn mib(bytes: f64) -> String {
    format!("{:.1}", bytes / MIB)
}

/// Where tenths are too coarse.
pub(super) fn hundredths(value: f64) -> String {
    format!("{value:.2}")
}

/// A count.
pub(super) fn whole(value: f64) -> String {
    if value < 10.0 { format!("{value:.0}") } else { short(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let figure = |value, must, aim| Figure { what: "cost".to_owned(), value, must, aim, number: short };
        let must = Some(Bound::AtMost(6.0));
        let aim = Some(Bound::AtMost(3.5));
        assert_eq!(figure(4.0, must, aim).line(), "PASS: cost: 4.0 (must be ≤ 6.0, aim ≤ 3.5)");
        assert_eq!(figure(7.0, must, None).line(), "MISS: cost: 7.0 (must be ≤ 6.0)");
        assert_eq!(figure(3.0, None, aim).verdict(), "at its aim");
        assert_eq!(figure(4.0, None, aim).verdict(), "short of its aim");
        assert!(Bound::AtLeast(0.95).holds(0.95) && !Bound::AtLeast(0.95).holds(0.94));
    }

    #[test]
    fn what_is_missing_is_told_from_what_is_lost() {
        let mut raw = super::super::raw::tests::raw();
        let turn = |lost, missing| {
            let mut pace = raw.paces[1].clone();
            let events = pace.made.events() - lost - missing;
            pace.user = Some(super::super::pace::tests::user(events, lost));
            pace
        };
        raw.paces = vec![turn(2, 0), turn(0, 3)];
        assert_eq!(tally(&raw), (2, 3, 0, 0));
    }

    #[test]
    fn units() {
        assert_eq!((mib(20.0 * MIB), whole(0.0), whole(12_345.0)), ("20.0".into(), "0".into(), "12,345".into()));
    }
}
