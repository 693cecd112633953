//! Every transition, exactly: synfin against a witness of the same tracepoint and against the kernel's counters.
//!
//! One test for each scenario, so that a failure names what happened. Each plays once for each address family, in
//! namespaces of its own, under one synfin and one witness.

use anyhow::{Result, ensure};
use synfin_tests::{
    proof::Played,
    recording::Recording,
    scenario,
    stage::{Family, Stage},
    synfin::Synfin,
    witness::{Seen, attentive},
};

macro_rules! prove {
    ($($name:ident)*) => {
        const PROVED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() -> Result<()> {
                prove(stringify!($name), &[Family::V4, Family::V6])
            }
        )*
    };
}

prove! {
    abandoned
    closed_across_a_wire
    closed_by_client
    closed_by_server
    data_lost
    disconnect_reconnect
    fast_open
    fin_lost
    fork_child_closes_last
    half_close
    half_close_then_close
    kill_nine_of_a_client
    kill_nine_of_a_server
    linger_zero
    listener_with_pending_children
    refused
    reset_by_client
    reset_by_server
    segment_lost
    self_connect
    simultaneous_close
    simultaneous_open
    syn_cookies
    tail_lost
    third_ack_lost
    timed_out
}

/// AF_INET6 sockets that talk IPv4.
#[test]
fn v4_mapped() -> Result<()> {
    for name in ["closed_by_client", "reset_by_server"] {
        prove(name, &[Family::Mapped])?;
    }
    Ok(())
}

/// A scenario without a test above would prove nothing.
#[test]
fn every_scenario_is_proved() {
    let missing: Vec<&str> =
        scenario::ALL.iter().map(|scenario| scenario.name).filter(|name| !PROVED.contains(name)).collect();
    assert!(missing.is_empty(), "no test for {missing:?}");
}

fn prove(name: &str, families: &[Family]) -> Result<()> {
    let scenario = scenario::named(name);
    let set_up = || Played::stages(scenario, families);
    let (played, seen, recording) = attentive(set_up, |stages, witness| {
        let synfin = Synfin::watch(stages.iter().flat_map(Stage::namespaces), &[])?;
        let played = stages.into_iter().map(|stage| Played::new(scenario, stage)).collect::<Result<Vec<_>>>()?;
        let seen = witness.stop()?;
        let recording = synfin.stop()?;
        let mut doubts = Vec::new();
        for played in &played {
            doubts.extend(played.witnesses(&seen)?);
        }
        if doubts.is_empty() {
            doubts.extend(skipped(&played, &recording, &seen)?);
        }
        Ok(if doubts.is_empty() { Ok((played, seen, recording)) } else { Err(doubts.join("\n")) })
    })?;

    let mut wrong = Vec::new();
    for played in &played {
        wrong.extend(played.synfin(&recording, &seen)?);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let events = recording.events()?;
    let total = |kind: &str| events.get(kind).copied().unwrap_or_default();
    assert_eq!(total("transition"), recording.of_type("transition").count() as u64, "{events:?}");
    assert_eq!(total("destroy"), seen.destroyed(played.iter().flat_map(Played::sides)), "{events:?}");
    assert!(recording.lost()?.is_empty(), "lost: {:?}", recording.lost()?);
    Ok(())
}

/// The kernel skips a program that interrupts itself, and counts that. What is missing then must be within what synfin
/// reports as skipped, which is final; and the play is repeated, because a play without it must agree in everything.
fn skipped(played: &[Played], recording: &Recording, seen: &Seen) -> Result<Option<String>> {
    let mut missing = 0;
    for played in played {
        missing += played.missing(recording, seen)?;
    }
    let skipped = recording.skipped()?;
    ensure!(
        missing <= skipped,
        "{missing} transitions are missing, the kernel skipped {skipped} programs by synfin's account"
    );
    Ok((missing > 0)
        .then(|| format!("the kernel skipped synfin's programs {skipped} times, {missing} transitions are missing")))
}
