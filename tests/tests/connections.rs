//! `--connections`: one line for each connection that ended, saying how.

use anyhow::{Context as _, Result};
use serde_json::Value;
use synfin_tests::{
    proof::Played,
    recording::Recording,
    scenario,
    stage::{Family, Stage},
    synfin::Synfin,
};

macro_rules! ends {
    ($($name:ident)*) => {
        const PROVED: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() -> Result<()> {
                watch(stringify!($name), &[Family::V4, Family::V6]).map(drop)
            }
        )*
    };
}

ends! {
    abandoned
    closed_across_a_wire
    closed_by_client
    closed_by_server
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
}

#[test]
fn v4_mapped() -> Result<()> {
    watch("closed_by_client", &[Family::Mapped]).map(drop)
}

/// The time lost waiting for an answer is the time in SYN_SENT.
#[test]
fn timed_out() -> Result<()> {
    let recording = watch("timed_out", &[Family::V4, Family::V6])?;
    for line in recording.of_type("connection") {
        // One retransmission after 1 s, given up 2 s later.
        let waited = line["network.tcp.state.durations"]["syn_sent"].as_f64().context("durations")?;
        assert!((2.9..4.5).contains(&waited), "{waited} s in SYN_SENT: {line}");
        assert_eq!(line["error.type"], "timed_out", "{line}");
        assert_eq!(line["network.tcp.retransmits"], 1, "{line}");
    }
    Ok(())
}

/// The bytes are those that were sent.
#[test]
fn data_lost() -> Result<()> {
    let recording = watch("data_lost", &[Family::V4, Family::V6])?;
    for line in recording.of_type("connection") {
        let client = line["network.tcp.handshake.role"] == "client";
        let key = if client { "network.tcp.bytes_acked" } else { "network.tcp.bytes_received" };
        let bytes = line[key].as_u64().with_context(|| format!("{key} in {line}"))?;
        // The kernel counts SYN and FIN as a byte each in some of its sums.
        assert!((40_000..=40_002).contains(&bytes), "{bytes} {key}: {line}");
    }
    Ok(())
}

#[test]
fn every_scenario_is_proved() {
    let elsewhere = ["timed_out", "data_lost"];
    let names = scenario::ALL.iter().map(|scenario| scenario.name);
    let missing: Vec<&str> = names.filter(|name| !PROVED.contains(name) && !elsewhere.contains(name)).collect();
    assert!(missing.is_empty(), "no test for {missing:?}");
}

/// The kernel skips a program that interrupts itself, and counts that. Then a line may be missing, and the play is repeated: one without it must
/// agree in everything.
fn watch(name: &str, families: &[Family]) -> Result<Recording> {
    let mut skipped = 0;
    for _ in 0..5 {
        let (recording, wrong) = play(name, families)?;
        skipped = recording.skipped()?;
        if wrong.is_empty() {
            return Ok(recording);
        }
        assert!(skipped > 0, "{}", wrong.join("\n"));
    }
    anyhow::bail!("the kernel skipped synfin's programs in each of five plays, {skipped} times in the last one")
}

fn play(name: &str, families: &[Family]) -> Result<(Recording, Vec<String>)> {
    let scenario = scenario::named(name);
    let stages = Played::stages(scenario, families)?;
    let synfin = Synfin::watch(stages.iter().flat_map(Stage::namespaces), &["--connections"])?;
    let played = stages.into_iter().map(|stage| Played::new(scenario, stage)).collect::<Result<Vec<_>>>()?;
    let recording = synfin.stop()?;
    let mut wrong: Vec<String> = played.iter().flat_map(|played| played.connections(&recording)).collect();
    for line in recording.of_type("connection") {
        wrong.extend(durations(line).err().map(|error| format!("{error:#}: {line}")));
    }
    Ok((recording, wrong))
}

/// The whole is the sum of its parts.
fn durations(line: &Value) -> Result<()> {
    let whole = line["network.connection.duration"].as_f64().context("network.connection.duration")?;
    let parts = line["network.tcp.state.durations"].as_object().context("network.tcp.state.durations")?;
    let sum: f64 = parts.values().filter_map(Value::as_f64).sum();
    anyhow::ensure!(whole > 0.0 && whole < 30.0, "a duration of {whole} s");
    anyhow::ensure!((whole - sum).abs() < 1e-6, "{whole} s, but {sum} s in its states");
    if let Some(handshake) = line.get("network.tcp.handshake.duration") {
        let handshake = handshake.as_f64().context("a number")?;
        anyhow::ensure!(handshake > 0.0 && handshake <= whole, "a handshake of {handshake} s");
    }
    Ok(())
}
