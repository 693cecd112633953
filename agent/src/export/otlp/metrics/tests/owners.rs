//! Several owners over several exports: whose resource, since when, what finds no room, what takes several requests.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;

/// A status in which each cgroup has opened so many connections as a client.
fn opened(accounts: &[(u64, u64, u64)]) -> Status {
    let shared = accounts.iter().map(|&(cgroup, row, opened)| {
        let counts = Counts { opened: [opened, 0], ..Counts::default() };
        Shared { cgroup, row, value: Arc::new(counts) }
    });
    Status { accounts: shared.collect(), ..Status::default() }
}

/// Subjects over several exports; cgroups from 10 on belong to the pod of that number, 99 is not looked up yet.
struct Stage {
    subjects: Subjects,
    now: u64,
    /// What 99 turns out to be.
    found: Option<u64>,
}

/// The pod of this number.
fn pod(number: u64) -> Known {
    Known::Of(Arc::new(Identity::of(&format!("/kubepods/pod{number:032x}")).expect("a pod")))
}

impl Stage {
    fn new() -> Self {
        Self { subjects: Subjects::new(BEGAN, true), now: BEGAN, found: None }
    }

    fn take(&mut self, status: Status) -> Snapshot {
        self.now += 10 * SECOND;
        let found = self.found;
        let known = |cgroup: u64| match (cgroup, found) {
            (99, None) => Known::Pending,
            (99, Some(number)) => pod(number),
            (cgroup @ 10.., _) => pod(cgroup / 10),
            _ => Known::Host,
        };
        let (unix_ns, subjects) = self.subjects.collect(&status, self.now, &known);
        Snapshot { status: Arc::new(status), subjects, unix_ns, ..Snapshot::default() }
    }
}

fn of_pod<'a>(read: &'a Read, number: u64, metric: &str) -> Vec<&'a Told> {
    let own = format!("k8s.pod.uid={number:032x}");
    let mine =
        read.iter().filter(|((resource, told, _), _)| resource.split(',').any(|pair| pair == own) && told == metric);
    mine.map(|(_, told)| told).collect()
}

#[test]
fn each_owner_has_its_resource_and_sums_are_exact() {
    let (mut stage, mut reader) = (Stage::new(), Reader::new(20_000, Temporality::Cumulative));
    let mut told = |stage: &mut Stage, accounts: &[(u64, u64, u64)]| reader.read(&stage.take(opened(accounts)));
    // Cgroups 11 and 12 are one pod; 99 is not known yet.
    let read = told(&mut stage, &[(0, 1, 5), (3, 2, 2), (11, 3, 10), (12, 4, 20), (25, 5, 1), (99, 6, 7)]);
    assert_eq!(host(&read, OPENED, "network.tcp.handshake.role=client").map(|told| told.value), Some(7.0));
    assert_eq!(of_pod(&read, 1, OPENED)[0].value, 30.0);
    assert_eq!(of_pod(&read, 1, OPENED).len(), 1, "nothing is told of what an owner never did");
    assert_eq!(of_pod(&read, 2, OPENED)[0].value, 1.0);
    assert_eq!(sum(&read, OPENED), 38.0, "all but what is not known yet");
    let resources: BTreeSet<&str> = read.keys().map(|(resource, _, _)| resource.as_str()).collect();
    assert_eq!(resources.len(), 3);

    stage.found = Some(777);
    // 12 has gone, and what it did has not.
    let read = told(&mut stage, &[(0, 1, 5), (3, 2, 2), (11, 3, 11), (25, 5, 1), (99, 6, 9)]);
    assert_eq!(of_pod(&read, 1, OPENED)[0].value, 31.0);
    let late = of_pod(&read, 777, OPENED)[0];
    assert_eq!((late.value, late.since), (9.0, BEGAN), "it may have counted since before the last export");

    // 25 has gone, and with it all of its owner; the row that comes back counts from zero.
    let read = told(&mut stage, &[(0, 1, 5), (3, 2, 2), (11, 3, 11), (99, 6, 9)]);
    assert!(of_pod(&read, 2, OPENED).is_empty());
    let read = told(&mut stage, &[(0, 1, 5), (3, 2, 2), (11, 3, 11), (25, 7, 4), (99, 6, 9)]);
    let back = of_pod(&read, 2, OPENED)[0];
    assert_eq!((back.value, back.since), (4.0, BEGAN + 30 * SECOND));
}

#[test]
fn differences_add_up_to_totals_whatever_is_lost_on_the_way() {
    let (mut stage, mut reader) = (Stage::new(), Reader::new(20_000, Temporality::Delta));
    let mut arrived: BTreeMap<String, f64> = BTreeMap::new();
    let mut last_end = BTreeMap::new();
    let rounds = [(true, 3, 1), (false, 10, 1), (false, 11, 5), (true, 20, 5), (true, 20, 6)];
    for (arrives, of_host, of_owner) in rounds {
        let read = reader.read(&stage.take(opened(&[(0, 1, of_host), (11, 2, of_owner)])));
        reader.series.delivered(|_| arrives);
        for ((resource, name, _), told) in &read {
            if name == OPENED && arrives {
                *arrived.entry(resource.clone()).or_default() += told.value;
                let before = last_end.insert(resource.clone(), told.at).unwrap_or(BEGAN);
                assert_eq!(told.since, before, "no gap, and nothing twice");
                assert!(told.value > 0.0, "what has not changed is not told");
            }
        }
    }
    let host = arrived.iter().find(|(resource, _)| !resource.contains("pod")).map(|(_, sum)| *sum);
    let owner = arrived.iter().find(|(resource, _)| resource.contains("pod")).map(|(_, sum)| *sum);
    assert_eq!((host, owner), (Some(20.0), Some(6.0)));
}

#[test]
fn what_exceeds_the_budget_is_added_up_and_counted() {
    let (mut stage, mut all) = (Stage::new(), Reader::new(20_000, Temporality::Cumulative));
    let accounts: Vec<(u64, u64, u64)> = (1..=100).map(|n| (n * 10, n, n)).collect();
    let status = || opened(&accounts);
    let of_host = all.read(&stage.take(opened(&[]))).len();
    // Owners get three quarters of it, of which some ten are left when the host is there.
    let budget = (of_host + 10).div_ceil(3) * 4;
    let room = budget / 4 * 3 - of_host;
    let mut reader = Reader::new(budget, Temporality::Cumulative);
    _ = reader.read(&stage.take(opened(&[]))); // the host is there first
    let read = reader.read(&stage.take(status()));
    assert_eq!(sum(&read, OPENED), 5050.0, "nothing is missing in the sum");
    let overflow = |read: &Read| host(read, OPENED, "otel.metric.overflow=true").map(|told| told.value);
    let own: f64 = read
        .iter()
        .filter(|((resource, name, _), _)| resource.contains("pod") && name == OPENED)
        .map(|(_, told)| told.value)
        .sum();
    assert_eq!(overflow(&read), Some(5050.0 - own));
    let usage = reader.series.usage();
    assert_eq!((usage.refused, usage.budget), (100 - room as u64, budget as u64));
    assert_eq!(read.len(), of_host + room + 1, "one series for all that found no room");

    // What was refused and has gone stays in the sum; it never falls.
    let read = reader.read(&stage.take(opened(&accounts[..50])));
    let gone: f64 = (51..=100).map(f64::from).sum();
    assert!(overflow(&read).unwrap_or_default() >= gone, "{:?}", overflow(&read));
    assert_eq!(reader.series.usage().refused, 100 - room as u64, "each once");
}

/// A moment that takes several requests.
pub(in super::super) fn of_many_owners() -> Snapshot {
    let accounts: Vec<(u64, u64, u64)> = (1..=900).map(|n| (n * 10, n, n)).collect();
    let mut status = opened(&accounts);
    let full = full().totals.counts;
    status.accounts =
        status.accounts.iter().map(|shared| Shared { value: Arc::new(full.clone()), ..shared.clone() }).collect();
    Stage::new().take(status)
}

#[test]
fn many_points_take_several_requests_and_each_comes_once() {
    let mut reader = Reader::new(200_000, Temporality::Delta);
    let snapshot = of_many_owners();
    let requests = reader.requests(&snapshot);
    assert!(requests.len() > 5, "{}", requests.len());
    // One of them does not arrive: its points, and no others, come again.
    reader.series.delivered(|delivery| delivery != 1);
    let count = |requests: &[ExportMetricsServiceRequest]| -> usize {
        let metrics =
            requests.iter().flat_map(|request| &request.resource_metrics).flat_map(|group| &group.scope_metrics);
        let deltas = metrics
            .flat_map(|group| &group.metrics)
            .filter(|metric| matches!(&metric.data, Some(Data::Sum(sum)) if sum.is_monotonic));
        deltas.map(|metric| points(metric).len()).sum()
    };
    let lost = count(&requests[1..2]);
    assert!(lost > 100);
    assert_eq!(count(&reader.requests(&snapshot)), lost);
}

#[test]
fn one_export_shows_one_moment_and_the_next_a_new_one() {
    let board = Arc::new(Board::default());
    let source = Source::new(Arc::clone(&board), Arc::new(Clock::default()), None);
    let mut reader = Reader::new(20_000, Temporality::Cumulative);
    for count in [1, 2] {
        board.publish(opened(&[(0, 1, count)]));
        let snapshot = source.take();
        board.publish(opened(&[(0, 1, 99)]));
        let read = reader.read(&snapshot);
        assert_eq!(host(&read, OPENED, "network.tcp.handshake.role=client").map(|told| told.value), Some(count as f64));
    }
}

#[test]
fn what_is_looked_up_late_counts_since_it_was_first_heard_of() {
    let (mut stage, mut reader) = (Stage::new(), Reader::new(20_000, Temporality::Cumulative));
    reader.read(&stage.take(opened(&[(0, 1, 1)])));
    let before = stage.now;
    for count in 1..4 {
        let read = reader.read(&stage.take(opened(&[(0, 1, 1), (99, 2, count)])));
        assert!(of_pod(&read, 7, OPENED).is_empty());
    }
    stage.found = Some(7);
    let read = reader.read(&stage.take(opened(&[(0, 1, 1), (99, 2, 4)])));
    let told = of_pod(&read, 7, OPENED);
    assert_eq!(told.iter().map(|told| (told.value, told.since)).collect::<Vec<_>>(), [(4.0, before)]);
}

#[test]
fn a_clock_that_was_set_back_moves_a_start_once() {
    for temporality in [Temporality::Cumulative, Temporality::Delta] {
        let (mut stage, mut reader) = (Stage::new(), Reader::new(20_000, temporality));
        let mut next = |stage: &mut Stage, count| {
            let told = reader.read(&stage.take(opened(&[(10, 1, count)])));
            reader.series.delivered(|_| true);
            let told = of_pod(&told, 1, OPENED)[0].clone();
            (told.since, told.at)
        };
        next(&mut stage, 1);
        stage.now -= 1_000 * SECOND;
        let (since, set_back) = next(&mut stage, 2);
        assert_eq!(since, set_back, "it counts from then on");
        for count in 3..6 {
            let before = stage.now;
            let (since, at) = next(&mut stage, count);
            assert_eq!(since, if temporality == Temporality::Delta { before } else { set_back });
            assert!(at > since);
        }
    }
}
