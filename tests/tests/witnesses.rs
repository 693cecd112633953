//! The scenarios and the witnesses against each other, without synfin.
//!
//! When this fails, the harness or the kernel is not as the other tests assume, and their verdicts mean nothing.

use anyhow::Result;
use synfin_tests::{
    netns::Netns,
    proof::Played,
    scenario::{self, Scenario},
    sock,
    stage::{Family, Link, Stage},
    witness::{attentive, nstat::Counters},
};

/// Every scenario does what it says, in each family, and the kernel's counters agree with its tracepoints.
#[test]
fn scenarios_are_seen_as_expected() -> Result<()> {
    let set_up = || -> Result<Vec<(&Scenario, Stage)>> {
        let mut all = Vec::new();
        for scenario in scenario::ALL {
            let stages = Played::stages(scenario, &[Family::V4, Family::V6, Family::Mapped])?;
            all.extend(stages.into_iter().map(|stage| (scenario, stage)));
        }
        Ok(all)
    };
    attentive(set_up, |stages, witness| {
        let play = |(scenario, stage): (&Scenario, Stage)| Played::new(scenario, stage);
        let played = stages.into_iter().map(play).collect::<Result<Vec<_>>>()?;
        let seen = witness.stop()?;
        let mut wrong = Vec::new();
        for played in &played {
            wrong.extend(played.witnesses(&seen)?);
        }
        Ok(if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) })
    })
}

/// Our reading of /proc/net is the program nstat's.
#[test]
fn nstat_reads_the_same_counters() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Loopback)?;
    scenario::close::by_client(&stage)?;
    let netns: &Netns = &stage.client.netns;
    let (ours, theirs) = (Counters::of(netns)?, Counters::by_nstat(netns)?);
    assert_eq!(ours.get("TcpActiveOpens"), 1);
    for name in theirs.names().filter(|name| name.starts_with("Tcp")) {
        assert_eq!(ours.get(name), theirs.get(name), "{name}");
    }
    Ok(())
}

/// Each namespace counts for itself: traffic elsewhere moves nothing here.
#[test]
fn namespaces_do_not_mix() -> Result<()> {
    let (here, there) = (Stage::new(Family::V6, Link::Loopback)?, Stage::new(Family::V6, Link::Loopback)?);
    let before = Counters::of(&here.client.netns)?;
    let (listener, address) = sock::listen(&there.server, 1)?;
    let client = sock::connect(&there.client, address)?;
    drop((client, listener));
    there.await_quiet()?;
    assert_eq!(Counters::of(&here.client.netns)?.since(&before).get("TcpActiveOpens"), 0);
    Ok(())
}
