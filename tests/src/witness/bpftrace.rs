//! bpftrace on the same tracepoints: what the kernel announced, counted by namespace.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    deadline,
    lines::Lines,
    need,
    netns::Netns,
    state::{ByNamespace, Counts, State},
};

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

/// Counts by the inode number of a namespace.
pub type ByInode = BTreeMap<u64, u64>;

/// How often a play is repeated when the witness was not all there.
const ATTEMPTS: u32 = 5;

/// Plays before a witness until the witness saw all of it: `play` answers with its result, or with what the witness got
/// wrong by what is known without it (the script of a scenario, the kernel's counters).
///
/// The namespaces come from `set_up`, before the witness: the number of one that was deleted is given out again, and
/// what happened in the old one would count for the new one.
///
/// The kernel skips a tracepoint's program when the CPU is inside another one, or inside a system call on the map of any
/// process, and mostly counts that ([`Seen::missed`]). It hits events out of timers where others use BPF too: 1 to 20
/// of 60 time-outs beside two processes that did nothing but update maps. synfin is held against no such witness.
pub fn attentive<S, T>(
    set_up: impl Fn() -> Result<S>,
    play: impl Fn(S, Bpftrace) -> Result<Result<T, String>>,
) -> Result<T> {
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        let stage = set_up()?;
        match play(stage, Bpftrace::start()?)? {
            Ok(played) => return Ok(played),
            Err(wrong) => why = wrong,
        }
    }
    bail!("in {ATTEMPTS} attempts bpftrace never saw what must have happened:\n{why}")
}

/// What it saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Events that it missed, as the kernel counts them; with any, nothing can be compared.
    pub missed: u64,
    /// Transitions by namespace.
    pub transitions: ByNamespace,
    /// Segments sent again, other than SYN-ACKs; one call of the tracepoint may stand for several.
    pub retransmits: ByInode,
    /// SYN-ACKs sent again.
    pub syn_acks: ByInode,
    /// RSTs sent.
    pub resets_sent: ByInode,
    /// RSTs that ended a connection.
    pub resets_received: ByInode,
    /// Sockets destroyed.
    pub destroyed: ByInode,
}

impl Bpftrace {
    /// Starts it and waits until every probe is attached.
    pub fn start() -> Result<Self> {
        need::root()?;
        need::tool("bpftrace", "bpftrace")?;
        mount_tracefs()?;
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
        Ok(Seen { missed, ..parse(&self.output.all())? })
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Seen {
    /// Transitions of one namespace.
    pub fn of(&self, netns: &Netns) -> Counts {
        self.transitions.get(&netns.inode()).cloned().unwrap_or_default()
    }
}

/// bpftrace finds tracepoints by tracefs, which a container or a small machine may not have mounted.
fn mount_tracefs() -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    let _guard = ONE_AT_A_TIME.lock();
    if Path::new("/sys/kernel/tracing/events").exists() {
        return Ok(());
    }
    need::run(Command::new("mount").args(["-t", "tracefs", "tracefs", "/sys/kernel/tracing"]))
        .map(drop)
        .or_else(|error| if Path::new("/sys/kernel/tracing/events").exists() { Ok(()) } else { Err(error) })
        .context("bpftrace needs tracefs")
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
fn parse(lines: &[String]) -> Result<Seen> {
    let mut seen = Seen::default();
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
                seen.take(map, key, count).with_context(|| format!("{map}[{key}]"))?;
            }
        }
    }
    Ok(seen)
}

impl Seen {
    fn take(&mut self, map: &str, key: &str, count: u64) -> Result<()> {
        let numbers = key.split(',').map(|part| Ok(part.trim().parse()?)).collect::<Result<Vec<u64>>>()?;
        let netns = *numbers.first().context("a key")?;
        let plain = match map {
            "@state" => {
                let [_, old, new] = numbers[..] else { bail!("three numbers expected") };
                let counts = self.transitions.entry(netns).or_default();
                counts.add(State::from_kernel(old)?, State::from_kernel(new)?, count);
                return Ok(());
            }
            "@retransmit" => &mut self.retransmits,
            "@synack" => &mut self.syn_acks,
            "@send_reset" => &mut self.resets_sent,
            "@receive_reset" => &mut self.resets_received,
            "@destroy" => &mut self.destroyed,
            _ => bail!("no such map"),
        };
        plain.insert(netns, count);
        Ok(())
    }
}
