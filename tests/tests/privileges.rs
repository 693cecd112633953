//! What the kernel and the privileges at hand allow: `doctor`, and clear words where something is missing.

use anyhow::{Context as _, Result};
use serde_json::Value;
use synfin_tests::{
    need,
    synfin::{run, run_as_nobody},
};

/// Without privileges: 77, and the message says what is missing.
#[test]
fn no_privileges_is_77() -> Result<()> {
    for arguments in [&["watch", "--duration", "1s"][..], &["run"], &["census", "--json"]] {
        let ended = run_as_nobody(arguments)?;
        let message = ended.stderr.join("\n");
        assert_eq!(ended.code()?, 77, "{arguments:?}: {message}");
        assert!(message.contains("CAP_BPF") || message.contains("root"), "no word of what is missing: {message}");
        assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
        assert!(!message.contains("panicked"), "{message}");
    }
    Ok(())
}

#[test]
fn doctor() -> Result<()> {
    need::root()?;
    let ended = run(&["doctor", "--json"])?;
    ended.expect(0)?;
    let report: Value = serde_json::from_str(&ended.stdout.join("\n")).context("doctor --json prints JSON")?;
    let text = report.to_string();
    for probe in ["inet_sock_set_state", "tcp_retransmit_skb", "tcp_retransmit_synack", "tcp_send_reset"] {
        assert!(text.contains(probe), "no word of {probe}: {text}");
    }
    let plain = run(&["doctor"])?;
    plain.expect(0)?;
    assert!(!plain.stdout.is_empty());
    Ok(())
}
