//! Many connections from several threads at once. Where the kernel skips a program because the CPU is inside it already,
//! synfin must say so: under emulation programs run long and that happens, on a real machine hardly ever.

use std::thread;

use anyhow::{Result, ensure};
use synfin_tests::{
    load, note,
    stage::{Family, Link, Stage},
    synfin::Synfin,
    witness::attentive,
};

const THREADS: u64 = 4;
const CONNECTIONS: u64 = 60;
/// Of one connection with both ends in the namespace, and of a listener.
const TRANSITIONS: (u64, u64) = (10, 2);

/// What synfin told and what it says was skipped are together what happened.
#[test]
fn nothing_is_lost_unsaid() -> Result<()> {
    let happened = THREADS * (CONNECTIONS * TRANSITIONS.0 + TRANSITIONS.1);
    let set_up = || Stage::new(Family::V4, Link::Loopback);
    let (stage, seen, recording) = attentive(set_up, |stage, witness| {
        let synfin = Synfin::watch(stage.namespaces(), &[])?;
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..THREADS).map(|_| scope.spawn(|| load::connections(&stage, CONNECTIONS).map(drop))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("the load does not panic"))
        })?;
        let (seen, recording) = (witness.stop()?, synfin.stop()?);
        let total = seen.of(&stage.client).transitions.total();
        let wrong = format!("{} saw {total} of {happened} transitions, and says {} missed", seen.witness, seen.missed);
        Ok(if total == happened { Ok((stage, seen, recording)) } else { Err(wrong) })
    })?;

    let (witnessed, told) = (seen.of(&stage.client).transitions, recording.counts(&stage.client.netns)?);
    for ((old, new), times) in told.iter() {
        ensure!(times <= witnessed.get(old, new), "invented: {told:?}beside\n{witnessed:?}");
    }
    let destroyed = recording.events()?.get("destroy").copied().unwrap_or_default();
    let missing = happened - told.total() + (seen.destroyed([&stage.client]) - destroyed);
    let skipped = recording.skipped()?;
    note::write("a storm", &format!("{missing} of {happened} events missing, {skipped} reported as skipped"))?;
    assert!(missing <= skipped, "{missing} events are missing, synfin says that {skipped} were skipped");
    assert!(recording.lost()?.is_empty(), "{:?}", recording.lost()?);
    Ok(())
}
