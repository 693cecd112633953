//! bpftrace on the same tracepoints: what the kernel announced, counted by namespace.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::{Place, Places, Retransmits, Seen};
use crate::{deadline, lines::Lines, need, state::State, tracefs};

/// `rawtracepoint` would do, but version 0.17 aborts on it; the plain tracepoints exist everywhere.
///
/// A reset without a socket belongs to the namespace of the device that the refused segment came by.
const PROGRAM: &str = "
tracepoint:sock:inet_sock_set_state {
    $sk = (struct sock *)args->skaddr;
    if (args->protocol == 6) {
        @state[$sk->__sk_common.skc_net.net->ns.inum, args->oldstate, args->newstate] = count();
    }
}
tracepoint:tcp:tcp_retransmit_skb {
    $sk = (struct sock *)args->skaddr;
    $control = (struct tcp_skb_cb *)((struct sk_buff *)args->skbaddr)->cb;
    @retransmit[$sk->__sk_common.skc_net.net->ns.inum] = sum($control->tcp_gso_segs);
}
tracepoint:tcp:tcp_retransmit_synack {
    $sk = (struct sock *)args->skaddr;
    @synack[$sk->__sk_common.skc_net.net->ns.inum] = count();
}
tracepoint:tcp:tcp_send_reset {
    $sk = (struct sock *)args->skaddr;
    if ($sk != 0) {
        @send_reset[$sk->__sk_common.skc_net.net->ns.inum] = count();
    } else {
        $skb = (struct sk_buff *)args->skbaddr;
        @send_reset[$skb->dev->nd_net.net->ns.inum] = count();
    }
}
tracepoint:tcp:tcp_receive_reset {
    $sk = (struct sock *)args->skaddr;
    @receive_reset[$sk->__sk_common.skc_net.net->ns.inum] = count();
}
tracepoint:tcp:tcp_destroy_sock {
    $sk = (struct sock *)args->skaddr;
    @destroy[$sk->__sk_common.skc_net.net->ns.inum] = count();
}
interval:ms:100 { printf(\"ready\\n\"); }
";

/// A running bpftrace.
#[derive(Debug)]
pub struct Bpftrace {
    child: Child,
    output: Lines,
}

impl Bpftrace {
    /// Starts it and waits until every probe is attached.
    pub fn start() -> Result<Self> {
        need::root()?;
        need::tool("bpftrace", "bpftrace")?;
        tracefs::mount()?;
        let mut child = Command::new("bpftrace")
            .args(["-f", "json", "-e", PROGRAM])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting bpftrace")?;
        let output = Lines::read(child.stdout.take().context("stdout was piped")?);
        let complaints = Lines::read(child.stderr.take().context("stderr was piped")?);
        let mut witness = Self { child, output };
        // The interval starts before the last probe is attached, but what it prints comes out of a loop that starts after.
        deadline::until("bpftrace to attach", || {
            if let Some(status) = witness.child.try_wait()? {
                bail!("bpftrace ended with {status}: {}", complaints.all().join("\n"));
            }
            Ok(witness.output.find(|line| line.contains("ready")).map(drop))
        })
        .with_context(|| format!("it said {:?}", complaints.all()))?;
        Ok(witness)
    }

    /// Ends it and reads its counts.
    pub fn stop(mut self) -> Result<Seen> {
        let missed = recursion_misses(self.child.id())?;
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        let status = deadline::until("bpftrace to end", || Ok(self.child.try_wait()?))?;
        ensure!(status.success(), "bpftrace ended with {status}");
        self.output.finish()?;
        let places = parse(&self.output.all())?;
        Ok(Seen { witness: "bpftrace", missed, retransmits: Retransmits::Segments, places })
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How a descriptor of such a program shows in /proc/PID/fdinfo: by BPF_PROG_TYPE_TRACEPOINT.
const TRACEPOINT: &str = "prog_type:\t5\n";

fn recursion_misses(pid: u32) -> Result<u64> {
    let mut misses = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may close while we look.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        if !text.contains(TRACEPOINT) {
            continue;
        }
        for line in text.lines() {
            if let Some(number) = line.strip_prefix("recursion_misses:") {
                misses += number.trim().parse::<u64>()?;
            }
        }
    }
    Ok(misses)
}

/// One JSON object a line: `{"type": "map", "data": {"@state": {"4026532200,7,2": 1}}}`.
fn parse(lines: &[String]) -> Result<Places> {
    let mut places = Places::new();
    for line in lines.iter().filter(|line| !line.trim().is_empty()) {
        let value: Value = serde_json::from_str(line).with_context(|| format!("line of bpftrace: {line:?}"))?;
        if value["type"] != "map" {
            continue;
        }
        let maps = value["data"].as_object().context("data of a map")?;
        for (map, entries) in maps {
            let Some(entries) = entries.as_object() else { continue };
            for (key, count) in entries {
                let count = count.as_u64().with_context(|| format!("{map}[{key}]"))?;
                take(&mut places, map, key, count).with_context(|| format!("{map}[{key}]"))?;
            }
        }
    }
    Ok(places)
}

fn take(places: &mut Places, map: &str, key: &str, count: u64) -> Result<()> {
    let numbers = key.split(',').map(|part| Ok(part.trim().parse()?)).collect::<Result<Vec<u64>>>()?;
    let netns = *numbers.first().context("a key")?;
    let sums = places.entry(Place::Netns(netns)).or_default();
    let plain = match map {
        "@state" => {
            let [_, old, new] = numbers[..] else { bail!("three numbers expected") };
            sums.transitions.add(State::from_kernel(old)?, State::from_kernel(new)?, count);
            return Ok(());
        }
        "@retransmit" => &mut sums.retransmits,
        "@synack" => &mut sums.syn_acks,
        "@send_reset" => &mut sums.resets_sent,
        "@receive_reset" => &mut sums.resets_received,
        "@destroy" => &mut sums.destroyed,
        _ => bail!("no such map"),
    };
    *plain += count;
    Ok(())
}
