//! Plays scenarios before synfin and before the witnesses, and lists every disagreement.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    kernel,
    netns::Netns,
    recording::{Recording, step},
    scenario::{Ended, Expected, First, Owned, Scenario},
    stage::{Family, Side, Stage},
    state::{
        Counts,
        State::{CloseWait, Closed, Established, Listen, SynReceived, SynSent},
    },
    witness::{Retransmits, Seen, nstat::Counters},
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

    /// The sides of its stage, one for each namespace.
    pub fn sides(&self) -> Vec<&Side> {
        let mut sides = vec![&self.stage.client, &self.stage.server];
        sides.dedup_by_key(|side| side.netns.inode());
        sides
    }

    fn counted(&self) -> impl Iterator<Item = (&Side, &Counters)> {
        self.sides().into_iter().zip(&self.growth)
    }

    /// The witness and the kernel's counters against what the scenario expects.
    pub fn witnesses(&self, seen: &Seen) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        if seen.missed > 0 {
            wrong.push(format!("{} missed {} events by its own account", seen.witness, seen.missed));
        }
        for (side, growth) in self.counted() {
            let (wanted, sums) = (self.wanted(&side.netns), seen.of(side));
            let counts = &sums.transitions;
            if *counts != wanted {
                wrong.push(format!("{}: expected\n{wanted:?}but {} saw\n{counts:?}", self.name, seen.witness));
            }
            let mut rows = by_transitions(counts).to_vec();
            if kernel::announces_every_reset()? {
                rows.push(("TcpOutRsts", sums.resets_sent));
            }
            if seen.retransmits == Retransmits::Segments {
                rows.push(("TcpRetransSegs", sums.retransmits + sums.syn_acks));
            }
            wrong.extend(self.compare(seen.witness, growth, rows));
        }
        Ok(wrong)
    }

    /// synfin against the witness, the kernel's counters and what the scenario expects.
    pub fn synfin(&self, recording: &Recording, seen: &Seen) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (side, growth) in self.counted() {
            let netns = &side.netns;
            let (counts, sums) = (recording.counts(netns)?, seen.of(side));
            if counts != sums.transitions {
                let witnessed = &sums.transitions;
                wrong.push(format!("{}: {} saw\n{witnessed:?}but synfin\n{counts:?}", self.name, seen.witness));
            }
            let mut rows = by_transitions(&counts).to_vec();
            rows.push(("TcpAttemptFails", recording.attempt_fails(netns)?));
            rows.push(("TcpRetransSegs", recording.segments(netns)));
            rows.push(("TcpExtTCPFastRetrans", recording.segments_sent_again(netns, "fast")));
            if !self.expected.probes_send_new_data {
                // So what is left of TcpRetransSegs was sent again because a timer ran out.
                rows.push(("TcpExtTCPLossProbes", recording.segments_sent_again(netns, "tail_loss_probe")));
            }
            let (sent, received) = (recording.resets(netns, "transmit"), recording.resets(netns, "receive"));
            if kernel::announces_every_reset()? {
                rows.push(("TcpOutRsts", sent));
            }
            wrong.extend(self.compare("synfin", growth, rows));
            for (what, reported, witnessed) in
                [("sent", sent, sums.resets_sent), ("received", received, sums.resets_received)]
            {
                if reported != witnessed {
                    let witness = seen.witness;
                    wrong.push(format!("{}: {witness} saw {witnessed} RSTs {what}, synfin {reported}", self.name));
                }
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
        for side in self.sides() {
            let netns = &side.netns;
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

    /// Transitions that the witness saw and synfin did not; an error where synfin saw what was not there.
    pub fn missing(&self, recording: &Recording, seen: &Seen) -> Result<u64> {
        let mut missing = 0;
        for side in self.sides() {
            let (told, witnessed) = (recording.counts(&side.netns)?, seen.of(side).transitions);
            for ((old, new), times) in told.iter() {
                ensure!(
                    times <= witnessed.get(old, new),
                    "{}: synfin saw {times} times {} -> {}, {} saw\n{witnessed:?}",
                    self.name,
                    old.name(),
                    new.name(),
                    seen.witness
                );
            }
            missing += witnessed.total() - told.total();
        }
        Ok(missing)
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
