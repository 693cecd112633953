//! Plays scenarios before synfin and before the witnesses, and lists every disagreement.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{
    netns::Netns,
    recording::{Recording, step},
    scenario::{Ended, Expected, First, Owned, Scenario},
    stage::{Family, Stage},
    state::{
        Counts,
        State::{CloseWait, Closed, Established, Listen, SynReceived, SynSent},
    },
    witness::{bpftrace, nstat::Counters},
};

/// A scenario that was played.
#[derive(Debug)]
pub struct Played {
    name: String,
    stage: Stage,
    expected: Expected,
    growth: Vec<Counters>,
}

impl Played {
    /// Plays `scenario` on a stage that was set up (and put under watch) before.
    pub fn new(scenario: &Scenario, stage: Stage) -> Result<Self> {
        let name = format!("{} {:?}", scenario.name, stage.family);
        let counters = || stage.namespaces().into_iter().map(Counters::of).collect::<Result<Vec<_>>>();
        let before = counters()?;
        let expected = (scenario.play)(&stage).with_context(|| name.clone())?;
        let growth = counters()?.iter().zip(&before).map(|(after, before)| after.since(before)).collect();
        Ok(Self { name, stage, expected, growth })
    }

    /// The stages that a scenario is proved on: one for each of these families.
    pub fn stages(scenario: &Scenario, families: &[Family]) -> Result<Vec<Stage>> {
        families.iter().map(|family| Stage::new(*family, scenario.link)).collect()
    }

    fn sides(&self) -> impl Iterator<Item = (&Netns, &Counters)> {
        self.stage.namespaces().into_iter().zip(&self.growth)
    }

    /// bpftrace and the kernel's counters against what the scenario expects.
    pub fn witnesses(&self, seen: &bpftrace::Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        if seen.missed > 0 {
            wrong.push(format!("bpftrace missed {} events by its own account", seen.missed));
        }
        for (netns, growth) in self.sides() {
            let (wanted, counts) = (self.wanted(netns), seen.of(netns));
            if counts != wanted {
                wrong.push(format!("{}: expected\n{wanted:?}but bpftrace saw\n{counts:?}", self.name));
            }
            let times = |map: &bpftrace::ByInode| map.get(&netns.inode()).copied().unwrap_or_default();
            let again = times(&seen.retransmits) + times(&seen.syn_acks);
            let rows = [("TcpOutRsts", times(&seen.resets_sent)), ("TcpRetransSegs", again)];
            wrong.extend(self.compare("bpftrace", growth, rows.into_iter().chain(by_transitions(&counts))));
        }
        wrong
    }

    /// synfin against bpftrace, the kernel's counters and what the scenario expects.
    pub fn synfin(&self, recording: &Recording, seen: &bpftrace::Seen) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (netns, growth) in self.sides() {
            let (counts, witnessed) = (recording.counts(netns)?, seen.of(netns));
            if counts != witnessed {
                wrong.push(format!("{}: bpftrace saw\n{witnessed:?}but synfin\n{counts:?}", self.name));
            }
            let rows = [
                ("TcpAttemptFails", recording.attempt_fails(netns)?),
                ("TcpOutRsts", recording.resets(netns, "transmit")),
                ("TcpRetransSegs", recording.segments(netns)),
            ];
            wrong.extend(self.compare("synfin", growth, rows.into_iter().chain(by_transitions(&counts))));
            let received = seen.resets_received.get(&netns.inode()).copied().unwrap_or_default();
            let reported = recording.resets(netns, "receive");
            if reported != received {
                wrong.push(format!("{}: bpftrace saw {received} RSTs received, synfin {reported}", self.name));
            }
            let other_type = recording
                .about("transition", netns)
                .find(|line| line.get("network.type").is_some_and(|kind| kind != self.stage.family.network_type()));
            wrong.extend(other_type.map(|line| format!("{}: wrong network.type in {line}", self.name)));
        }
        for owned in &self.expected.owned {
            wrong.extend(self.owner(owned, recording));
        }
        Ok(wrong)
    }

    /// Connection lines against the ends that the scenario made: each end once and nothing else.
    pub fn connections(&self, recording: &Recording) -> Vec<String> {
        let mut wrong = Vec::new();
        for (netns, _) in self.sides() {
            let mut lines: Vec<&Value> = recording.about("connection", netns).collect();
            for ended in self.expected.ended.iter().filter(|ended| ended.netns == netns.inode()) {
                match lines.iter().position(|line| fits(ended, line)) {
                    Some(place) => drop(lines.swap_remove(place)),
                    None => wrong.push(format!("{}: no connection line for {ended:?}", self.name)),
                }
            }
            wrong.extend(lines.into_iter().map(|line| format!("{}: left over: {line}", self.name)));
        }
        wrong
    }

    /// Sockets of the stage that bpftrace saw destroyed.
    pub fn destroyed(&self, seen: &bpftrace::Seen) -> u64 {
        self.sides().filter_map(|(netns, _)| seen.destroyed.get(&netns.inode())).sum()
    }

    fn wanted(&self, netns: &Netns) -> Counts {
        self.expected.transitions.get(&netns.inode()).cloned().unwrap_or_default()
    }

    fn compare(
        &self,
        who: &str,
        growth: &Counters,
        rows: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> Vec<String> {
        let differs = |(counter, said): &(&str, u64)| growth.get(counter) != *said;
        let tell = |(counter, said): (&str, u64)| {
            format!("{}: {counter} grew by {}, {who} says {said}", self.name, growth.get(counter))
        };
        rows.into_iter().filter(differs).map(tell).collect()
    }

    fn owner(&self, owned: &Owned, recording: &Recording) -> Option<String> {
        let mut lines = recording.of_type("transition").filter(|line| {
            line["linux.netns.inode"] == owned.netns && step(line).is_ok_and(|step| step == (owned.old, owned.new))
        });
        let good = |line: &Value| {
            let name = &line["process.executable.name"];
            line["process.pid"] == owned.pid && owned.name.map_or(name.is_string(), |wanted| name == wanted)
        };
        let bad = lines.find(|line| !good(line))?;
        Some(format!("{}: {owned:?} is not the owner in {bad}", self.name))
    }
}

/// The kernel counters that follow from transitions alone.
fn by_transitions(counts: &Counts) -> [(&'static str, u64); 3] {
    [
        ("TcpActiveOpens", counts.get(Closed, SynSent)),
        ("TcpPassiveOpens", counts.get(Listen, SynReceived)),
        ("TcpEstabResets", counts.get(Established, Closed) + counts.get(CloseWait, Closed)),
    ]
}

fn fits(ended: &Ended, line: &Value) -> bool {
    let first = line.get("network.tcp.close.first").and_then(Value::as_str);
    let simultaneous = line.get("network.tcp.close.simultaneous").and_then(Value::as_bool).unwrap_or_default();
    let closed_as_expected = match ended.first {
        First::Nobody => first.is_none() && !simultaneous,
        First::Local => first == Some("local") && !simultaneous,
        First::Peer => first == Some("peer") && !simultaneous,
        First::Both => simultaneous,
    };
    let again = line.get("network.tcp.retransmits").and_then(Value::as_u64).unwrap_or_default();
    line["network.tcp.handshake.role"] == ended.role
        && ended.end.iter().any(|end| line["network.connection.end"] == *end)
        && closed_as_expected
        && (again > 0) == ended.retransmits
}
