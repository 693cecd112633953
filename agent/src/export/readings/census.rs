//! Values of the metrics that come from the kernel's own tables.

use std::collections::{BTreeMap, BTreeSet};

use super::{Points, View};
use crate::census::{Census, Ephemeral, Group, Listener, Network};
use crate::event::{Direction, State};
use crate::export::attribute::{Attribute, integer, text};
use crate::export::subject::Subject;

/// Namespaces with their cgroups that have rows of their own; the rest is added up in rows without namespace and cgroup, so that sums stay
/// exact. Each has twenty series of one metric.
pub(in crate::export) const PLACES: usize = 80;

/// Listeners (ports of a namespace) that have rows of their own.
pub(in crate::export) const LISTENERS: usize = 500;

/// Namespaces whose ephemeral ports have rows of their own.
pub(in crate::export) const NAMESPACES: usize = 500;

type Place = (u32, u64);

fn place((netns, cgroup): Place) -> Vec<Attribute<'static>> {
    let mut attributes = Vec::with_capacity(5);
    if netns != 0 {
        attributes.push(integer("linux.netns.inode", netns.into()));
    }
    if cgroup != 0 {
        attributes.push(integer("linux.cgroup.id", cgroup as i64));
    }
    attributes
}

/// The places with the most sockets, then those that had some of late.
fn largest(subject: &Subject) -> BTreeSet<Place> {
    let mut sums: BTreeMap<Place, u64> = subject.places.iter().map(|place| (*place, 0)).collect();
    for group in &subject.groups {
        *sums.entry((group.netns, group.cgroup)).or_default() += group.sockets;
    }
    let mut places: Vec<(u64, Place)> = sums.into_iter().map(|(place, sockets)| (sockets, place)).collect();
    places.sort_unstable_by_key(|&(sockets, place)| (u64::MAX - sockets, place));
    places.into_iter().take(PLACES).map(|(_, place)| place).collect()
}

/// Adds groups up by their place and something else.
fn by_place<K: Ord>(
    subject: &Subject,
    places: &BTreeSet<Place>,
    key: impl Fn(&Group) -> K,
    value: impl Fn(&Group) -> u64,
) -> BTreeMap<(Place, K), u64> {
    let mut sums = BTreeMap::new();
    for group in &subject.groups {
        let own = (group.netns, group.cgroup);
        let place = if places.contains(&own) { own } else { (0, 0) };
        *sums.entry((place, key(group))).or_default() += value(group);
    }
    sums
}

pub(in crate::export) fn connections(view: &View<'_>, point: &mut Points<'_, i64>) {
    let places = largest(view.subject);
    let sums = by_place(view.subject, &places, |group| (group.state.index(), group.network), |group| group.sockets);
    let told: BTreeSet<Place> = sums.keys().map(|(place, _)| *place).chain(places).collect();
    for own in told {
        let mut attributes = place(own);
        attributes.push(text("network.transport", "tcp"));
        let common = attributes.len();
        // Every state, so that one that has emptied is told as 0; in CLOSED the tables hold nothing.
        for state in State::ALL.into_iter().filter(|state| *state != State::Closed) {
            for network in [Network::Ipv4, Network::Ipv6] {
                let sockets = sums.get(&(own, (state.index(), network))).copied().unwrap_or(0);
                attributes.truncate(common);
                attributes.push(text("network.connection.state", state.name()));
                attributes.push(text("network.type", network.name()));
                point(sockets as i64, &attributes);
            }
        }
    }
}

pub(in crate::export) fn queues(view: &View<'_>, point: &mut Points<'_, i64>) {
    let places = largest(view.subject);
    for direction in [Direction::Receive, Direction::Transmit] {
        let bytes = |group: &Group| match direction {
            Direction::Receive => group.receive_queue,
            Direction::Transmit => group.send_queue,
        };
        let mut sums = by_place(view.subject, &places, |_| (), bytes);
        for own in &places {
            sums.entry((*own, ())).or_default();
        }
        for ((own, ()), bytes) in sums {
            let mut attributes = place(own);
            attributes.push(text("network.io.direction", direction.name()));
            point(bytes as i64, &attributes);
        }
    }
}

/// What hangs on one port of a namespace.
#[derive(Default)]
struct Port {
    queued: u64,
    limit: u64,
    half_open: u64,
    oldest_ns: Option<u64>,
}

impl Port {
    fn add(&mut self, row: &Listener) {
        self.queued += u64::from(row.accept_queue);
        self.limit += u64::from(row.accept_limit);
        self.half_open += u64::from(row.half_open);
        self.oldest_ns = [self.oldest_ns, row.oldest_ns].into_iter().flatten().min();
    }
}

/// The ports with the most waiting connections, then the others together, without attributes.
fn ports(subject: &Subject) -> Vec<(Vec<Attribute<'static>>, Port)> {
    let mut ports: BTreeMap<(u32, u16), Port> = subject.ports.iter().map(|port| (*port, Port::default())).collect();
    for row in &subject.listeners {
        ports.entry((row.netns, row.port)).or_default().add(row);
    }
    let mut ports: Vec<((u32, u16), Port)> = ports.into_iter().collect();
    ports.sort_by_key(|(_, port)| u64::MAX - port.queued - port.half_open);
    let others = ports.split_off(ports.len().min(LISTENERS));
    let attributes = |(netns, port): (u32, u16)| {
        vec![integer("linux.netns.inode", netns.into()), integer("network.local.port", port.into())]
    };
    let mut rows: Vec<_> = ports.into_iter().map(|(key, port)| (attributes(key), port)).collect();
    if !others.is_empty() {
        let sum = others.into_iter().fold(Port::default(), |sum, (_, port)| Port {
            queued: sum.queued + port.queued,
            limit: sum.limit + port.limit,
            half_open: sum.half_open + port.half_open,
            oldest_ns: [sum.oldest_ns, port.oldest_ns].into_iter().flatten().min(),
        });
        rows.push((Vec::new(), sum));
    }
    rows
}

fn each_port(view: &View<'_>, mut point: impl FnMut(&Port, &[Attribute<'_>])) {
    for (attributes, port) in ports(view.subject) {
        point(&port, &attributes);
    }
}

pub(in crate::export) fn accept_queue(view: &View<'_>, point: &mut Points<'_, i64>) {
    each_port(view, |port, attributes| point(port.queued as i64, attributes));
}

pub(in crate::export) fn accept_limit(view: &View<'_>, point: &mut Points<'_, i64>) {
    each_port(view, |port, attributes| point(port.limit as i64, attributes));
}

pub(in crate::export) fn half_open(view: &View<'_>, point: &mut Points<'_, i64>) {
    each_port(view, |port, attributes| point(port.half_open as i64, attributes));
}

pub(in crate::export) fn oldest(view: &View<'_>, point: &mut Points<'_, f64>) {
    let now = view.status().census.as_ref().map_or(0, |census| census.ended_ns);
    each_port(view, |port, attributes| {
        if let Some(since) = port.oldest_ns {
            point(now.saturating_sub(since) as f64 / 1e9, attributes);
        }
    });
}

/// The fullest namespaces, those that are gone with nothing, then the others together.
fn ephemeral(census: &Census) -> (Vec<(u32, Ephemeral)>, Option<Ephemeral>) {
    let gone = census.memory.namespaces.iter().map(|netns| (netns, Ephemeral::default()));
    let mut all: BTreeMap<u32, Ephemeral> = gone.collect();
    all.extend(census.places.iter().filter_map(|place| Some((place.inode, place.ephemeral?))));
    let mut rows: Vec<(u32, Ephemeral)> = all.into_iter().collect();
    rows.sort_by(|(_, one), (_, other)| {
        other.utilization().unwrap_or(0.0).total_cmp(&one.utilization().unwrap_or(0.0))
    });
    let others = rows.split_off(rows.len().min(NAMESPACES));
    let sum =
        |sum: Ephemeral, ports: Ephemeral| Ephemeral { taken: sum.taken + ports.taken, limit: sum.limit + ports.limit };
    (rows, others.into_iter().map(|(_, ports)| ports).reduce(sum))
}

fn each_range(view: &View<'_>, value: fn(&Ephemeral) -> u64, point: &mut Points<'_, i64>) {
    let Some(census) = &view.status().census else { return };
    let (rows, others) = ephemeral(census);
    for (netns, ports) in &rows {
        point(value(ports) as i64, &place((*netns, 0)));
    }
    if let Some(ports) = &others {
        point(value(ports) as i64, &[]);
    }
}

pub(in crate::export) fn ephemeral_usage(view: &View<'_>, point: &mut Points<'_, i64>) {
    each_range(view, |ports| ports.taken, point);
}

pub(in crate::export) fn ephemeral_limit(view: &View<'_>, point: &mut Points<'_, i64>) {
    each_range(view, |ports| ports.limit, point);
}

pub(in crate::export) fn ephemeral_utilization(view: &View<'_>, point: &mut Points<'_, f64>) {
    let rows = view.status().census.iter().flat_map(|census| ephemeral(census).0);
    rows.for_each(|(netns, ports)| point(ports.utilization().unwrap_or(0.0), &place((netns, 0))));
}

pub(in crate::export) fn time_wait_reused(view: &View<'_>, point: &mut Points<'_, u64>) {
    if let Some(census) = &view.status().census {
        point(census.churn.reused, &[]);
    }
}

pub(in crate::export) fn time_wait_ended(view: &View<'_>, point: &mut Points<'_, u64>) {
    if let Some(ended) = view.status().census.as_ref().and_then(|census| census.churn.ended) {
        point(ended, &[]);
    }
}

pub(in crate::export) fn age(view: &View<'_>, point: &mut Points<'_, f64>) {
    if let Some(census) = &view.status().census {
        point(view.status().time_ns.saturating_sub(census.began_ns) as f64 / 1e9, &[]);
    }
}

pub(in crate::export) fn namespaces(view: &View<'_>, point: &mut Points<'_, i64>) {
    if let Some(census) = &view.status().census {
        point(census.places.len() as i64, &[]);
    }
}

pub(in crate::export) fn cpu(view: &View<'_>, point: &mut Points<'_, f64>) {
    point(view.status().drift.census_cpu.as_secs_f64(), &[]);
}

pub(in crate::export) fn uncounted(view: &View<'_>, point: &mut Points<'_, i64>) {
    let Some(census) = &view.status().census else { return };
    let strays = census.sums.strays;
    for (reason, count) in [
        ("group", strays.groups),
        ("listener", strays.listeners),
        ("unreadable", strays.unreadable),
        ("namespace", census.failures.len() as u64),
        ("process", census.hidden as u64),
    ] {
        point(count as i64, &[text("synfin.uncounted.reason", reason)]);
    }
}

pub(in crate::export) fn found_at_start(view: &View<'_>, point: &mut Points<'_, u64>) {
    point(view.status().drift.found_at_start, &[]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::census::{Form, Memory, Sums};
    use crate::export::attribute::Value;
    use crate::export::tests::snapshot;
    use crate::status::Status;

    fn host(places: u32) -> Subject {
        let group = |netns| Group {
            netns,
            state: State::Established,
            form: Form::Full,
            network: Network::Ipv4,
            port: None,
            cgroup: 5,
            sockets: u64::from(netns),
            receive_queue: 2,
            send_queue: 0,
        };
        Subject { groups: (1..=places).map(group).collect(), ..Subject::host(0) }
    }

    /// Values with the keys and texts of their attributes.
    fn points(read: fn(&View<'_>, &mut Points<'_, i64>), subject: &Subject) -> Vec<(i64, Vec<(&'static str, String)>)> {
        of_view(read, &View { snapshot: &snapshot(Status::default()), subject })
    }

    fn of_view(read: fn(&View<'_>, &mut Points<'_, i64>), view: &View<'_>) -> Vec<(i64, Vec<(&'static str, String)>)> {
        let mut points = Vec::new();
        read(view, &mut |value, attributes| {
            let attributes = attributes.iter().map(|(key, value)| match value {
                Value::Text(text) => (*key, (*text).to_owned()),
                other => (*key, format!("{other:?}")),
            });
            points.push((value, attributes.collect()));
        });
        points
    }

    #[test]
    fn rows_are_bounded_and_sums_exact() {
        let points = points(connections, &host(1000));
        assert_eq!(points.len(), (PLACES + 1) * 20);
        assert_eq!(points.iter().map(|(value, _)| value).sum::<i64>(), (1..=1000).sum::<i64>());
        let others =
            points.iter().filter(|(_, attributes)| attributes.iter().all(|(key, _)| !key.starts_with("linux.")));
        let others: i64 = others.map(|(value, _)| value).sum();
        assert_eq!(others, (1..=1000 - PLACES as i64).sum::<i64>(), "the largest keep their rows");
    }

    /// A census of namespaces with so many of ten ports taken.
    fn with_ports(taken: impl IntoIterator<Item = (u32, u64)>, before: &[u32]) -> Status {
        let place = |(inode, taken)| crate::census::Place {
            inode,
            name: None,
            took: std::time::Duration::ZERO,
            ephemeral: Some(Ephemeral { taken, limit: 10 }),
        };
        let mut memory = Memory::default();
        let gone: Vec<_> = before.iter().map(|inode| place((*inode, 10))).collect();
        memory.meet(0, &Sums::default(), &gone);
        let places = taken.into_iter().map(place).collect();
        Status {
            census: Some(std::sync::Arc::new(Census { places, memory, ..Census::default() })),
            ..Status::default()
        }
    }

    #[test]
    fn the_fullest_namespaces_have_rows_of_their_own() {
        let snapshot = snapshot(with_ports((1..=1000).map(|inode| (inode, u64::from(inode % 10))), &[]));
        let view = View { snapshot: &snapshot, subject: &Subject::host(0) };
        let (usage, limit) = (of_view(ephemeral_usage, &view), of_view(ephemeral_limit, &view));
        assert_eq!((usage.len(), limit.len()), (NAMESPACES + 1, NAMESPACES + 1));
        assert_eq!(usage.iter().map(|(value, _)| value).sum::<i64>(), 4500);
        assert_eq!(limit.iter().map(|(value, _)| value).sum::<i64>(), 10_000);
        let mut parts = Vec::new();
        ephemeral_utilization(&view, &mut |value, attributes| parts.push((value, attributes.len())));
        assert_eq!(parts.len(), NAMESPACES);
        assert!(parts.iter().all(|(part, attributes)| (0.5..=0.9).contains(part) && *attributes == 1), "{parts:?}");
        assert!(usage[NAMESPACES].1.is_empty());
    }

    #[test]
    fn ports_of_a_namespace_that_is_gone_are_told_as_none() {
        let snapshot = snapshot(with_ports([(7, 10)], &[7, 8]));
        let view = View { snapshot: &snapshot, subject: &Subject::host(0) };
        let values = |read| of_view(read, &view).iter().map(|(value, _)| *value).collect::<Vec<_>>();
        assert_eq!(values(ephemeral_usage), [10, 0]);
        assert_eq!(values(ephemeral_limit), [10, 0]);
        let mut parts = Vec::new();
        ephemeral_utilization(&view, &mut |value, _| parts.push(value.to_string()));
        assert_eq!(parts, ["1", "0"]);
    }

    #[test]
    fn queues_by_direction() {
        let points = points(queues, &host(2));
        let receive =
            points.iter().filter(|(_, attributes)| attributes.last().is_some_and(|(_, way)| way == "receive"));
        assert_eq!(receive.map(|(value, _)| value).sum::<i64>(), 4);
    }
}
