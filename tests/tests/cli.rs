//! The command line: exit codes, messages, filters, where output goes.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::pty::Winsize;
use serde_json::Value;
use synfin_tests::{
    deadline, load, need,
    netns::Netns,
    recording::Recording,
    scenario::close,
    sock,
    stage::{Family, Link, Stage},
    synfin::{Ended, Synfin, command, run},
};
use tempfile::TempDir;

/// Each line is wrong in its own way.
const BAD_CONFIGURATION: &str = "
filter: {ports: [70000], peers: [nonsense]}
ring: {size: 12345, poll: soon}
ledger: {max_connections: 0}
otlp: {endpoint: not a url, protocol: smoke, metrics_interval: 0s, trace_sample_ratio: 2.0}
no_such_section: 1
";

/// The fields, and a part of what is to be done.
const BAD_FIELDS: &[(&str, &str)] = &[
    ("filter.peers", "10.0.0.0/8"),
    ("filter.ports", "65535"),
    ("ledger.max_connections", "16"),
    ("no_such_section", "ledger"),
    ("otlp.endpoint", "http://localhost:4317"),
    ("otlp.metrics_interval", "100ms"),
    ("otlp.protocol", "http/protobuf"),
    ("otlp.trace_sample_ratio", "from 0"),
    ("ring.poll", "250ms"),
    ("ring.size", "16KiB"),
];

/// A watch of `stage` with `flags`, while `count` connections are made.
fn watched(stage: &Stage, flags: &[&str], count: u64) -> Result<Recording> {
    let synfin = Synfin::watch(stage.namespaces(), flags)?;
    load::connections(stage, count)?;
    synfin.stop()
}

fn loopback() -> Result<Stage> {
    Stage::new(Family::V4, Link::Loopback)
}

#[test]
fn help_and_version() -> Result<()> {
    need::root()?;
    let help = run(&["--help"])?;
    help.expect(0)?;
    for word in ["run", "watch", "doctor", "--config"] {
        assert!(help.stdout.join("\n").contains(word), "--help does not speak of {word}");
    }
    assert!(help.stderr.is_empty(), "{:?}", help.stderr);
    for sub in ["run", "watch", "doctor"] {
        run(&[sub, "--help"])?.expect(0)?;
    }
    let version = run(&["--version"])?;
    version.expect(0)?;
    assert!(version.stdout.join("").starts_with("synfin "), "{:?}", version.stdout);
    Ok(())
}

#[test]
fn wrong_usage_is_2() -> Result<()> {
    need::root()?;
    for wrong in [
        &["no-such-command"][..],
        &["watch", "--no-such-flag"],
        &["watch", "--state", "no_such_state"],
        &["watch", "--port", "70000"],
        &["watch", "--peer", "no/cidr"],
        &["watch", "--duration", "soon"],
        &["run", "--otlp-protocol", "smoke"],
        &["run", "--trace-sample-ratio", "2"],
    ] {
        let ended = run(wrong)?;
        assert_eq!(ended.code()?, 2, "{wrong:?}: {:?}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{wrong:?} printed {:?}", ended.stdout);
        let last = wrong.last().copied().unwrap_or_default();
        assert!(ended.stderr.join("\n").contains(last), "the message does not name {last:?}: {:?}", ended.stderr);
    }
    Ok(())
}

#[test]
fn unknown_namespaces_are_2() -> Result<()> {
    need::root()?;
    for command in ["watch", "run"] {
        for name in ["synfin-no-such-netns", "/run/netns/synfin-no-such-netns"] {
            let ended = run(&[command, "--netns", name])?;
            assert_eq!(ended.code()?, 2, "{command} {name}: {:?}", ended.stderr);
            assert!(ended.stderr.join("\n").contains(name), "the message does not name {name}: {:?}", ended.stderr);
        }
    }
    Ok(())
}

/// A namespace may be given by name, by path and by inode number.
#[test]
fn namespaces_by_name_path_and_inode() -> Result<()> {
    let stage = loopback()?;
    let netns = &stage.client.netns;
    let path = netns.path().display().to_string();
    for given in [netns.name(), &path, &netns.inode().to_string()] {
        let synfin = Synfin::watch([], &["--netns", given])?;
        let expected = close::by_client(&stage)?;
        let recording = synfin.stop()?;
        assert_eq!(Some(&recording.counts(netns)?), expected.transitions.get(&netns.inode()), "--netns {given}");
    }
    Ok(())
}

/// Without privileges: 77, and the message says what is missing.
#[test]
fn no_privileges_is_77() -> Result<()> {
    need::root()?;
    need::tool("setpriv", "util-linux")?;
    // The tests' build may be below a folder that only root enters.
    let scratch = TempDir::new()?;
    let copy = scratch.path().join("synfin");
    fs::copy(need::binary()?, &copy)?;
    need::run(Command::new("chmod").arg("755").arg(scratch.path()).arg(&copy))?;
    for arguments in [&["watch", "--duration", "1s"][..], &["run"]] {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy).args(arguments);
        let ended = Synfin::spawn(nobody)?.wait()?;
        let message = ended.stderr.join("\n");
        assert_eq!(ended.code()?, 77, "{arguments:?}: {message}");
        assert!(message.contains("CAP_BPF") || message.contains("root"), "no word of what is missing: {message}");
        assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
        assert!(!message.contains("panicked"), "{message}");
    }
    Ok(())
}

/// One missing capability is named; the two that are needed are enough.
#[test]
fn capabilities() -> Result<()> {
    need::root()?;
    need::tool("setpriv", "util-linux")?;
    let with = |bounding: &str, arguments: &[&str]| -> Result<Ended> {
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set={bounding}")).arg(need::binary()?).args(arguments);
        Synfin::spawn(command)?.wait()
    };
    for arguments in [&["watch", "--duration", "1s"][..], &["doctor"]] {
        let ended = with("-perfmon,-sys_admin", arguments)?;
        ended.expect(77)?;
        let said = ended.stdout.join("\n") + &ended.stderr.join("\n");
        assert!(said.contains("CAP_PERFMON not"), "{said}");
    }
    with("-all,+bpf,+perfmon", &["watch", "--duration", "100ms"])?.expect(0)
}

/// A kernel without BTF: 1, and a word on what the kernel needs.
#[test]
fn no_btf_is_1() -> Result<()> {
    need::root()?;
    let binary = need::binary()?.display().to_string();
    for arguments in ["watch", "doctor"] {
        // In a mount namespace of its own, so that nobody else sees the empty folder.
        let mut command = Command::new("unshare");
        let script = format!("mount -t tmpfs none /sys/kernel/btf && exec {binary} {arguments}");
        command.args(["--mount", "sh", "-c", &script]);
        let ended = Synfin::spawn(command)?.wait()?;
        ended.expect(1)?;
        let said = ended.stdout.join("\n") + &ended.stderr.join("\n");
        assert!(said.contains("CONFIG_DEBUG_INFO_BTF"), "{said}");
    }
    Ok(())
}

/// All that is wrong with a configuration is said at once: field and fix.
#[test]
fn configuration_errors_come_all_at_once() -> Result<()> {
    need::root()?;
    let scratch = TempDir::new()?;
    let file = scratch.path().join("synfin.yaml");
    fs::write(&file, BAD_CONFIGURATION)?;
    let path = file.display().to_string();
    let ended = run(&["run", "--config", &path])?;
    ended.expect(2)?;
    let message = ended.stderr.join("\n");
    for (field, fix) in BAD_FIELDS {
        let said = ended.stderr.iter().find(|line| line.contains(field));
        let said = said.with_context(|| format!("{field} is wrong and not named in: {message}"))?;
        assert!(said.contains(fix) && said.contains(&path), "no fix ({fix}) or no place ({path}) in: {said}");
    }
    assert!(message.contains(&format!("{} errors", BAD_FIELDS.len())), "{message}");

    let mut by_environment = command(["watch"])?;
    by_environment.env("SYNFIN_RING_SIZE", "banana");
    let ended = Synfin::spawn(by_environment)?.wait()?;
    ended.expect(2)?;
    let message = ended.stderr.join("\n");
    assert!(message.contains("SYNFIN_RING_SIZE") && message.contains("banana"), "{message}");

    let missing = scratch.path().join("missing.yaml").display().to_string();
    let ended = run(&["run", "--config", &missing])?;
    ended.expect(2)?;
    assert!(ended.stderr.join("\n").contains(&missing), "{:?}", ended.stderr);
    Ok(())
}

/// What `--print-config` prints is a configuration, and means the same.
#[test]
fn printed_configuration_round_trips() -> Result<()> {
    need::root()?;
    let first = run(&["run", "--print-config"])?;
    first.expect(0)?;
    let scratch = TempDir::new()?;
    let file = scratch.path().join("synfin.yaml");
    fs::write(&file, first.stdout.join("\n") + "\n")?;
    let again = run(&["run", "--config", &file.display().to_string(), "--print-config"])?;
    again.expect(0)?;
    assert_eq!(first.stdout, again.stdout);

    let flag = run(&["run", "--exclude-loopback", "--print-config"])?;
    assert_ne!(first.stdout, flag.stdout, "a flag must show in what is printed");
    Ok(())
}

/// The reader of a pipe may leave: that is no error and worth no word.
#[test]
fn closed_pipe() -> Result<()> {
    let stage = loopback()?;
    let mut child = command(["watch", "--json", "--netns", stage.client.netns.name()])?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("stdout was piped")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    assert!(line.contains("start"), "{line}");
    drop(output);
    load::connections(&stage, 5)?;
    let status = deadline::until("synfin to notice the closed pipe", || Ok(child.try_wait()?));
    let status = status.inspect_err(|_| drop(child.kill()))?;
    let said = std::io::read_to_string(child.stderr.take().context("stderr was piped")?)?;
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(said, "");
    Ok(())
}

/// stdout is for output: with the loudest logs each of its lines is still an event.
#[test]
fn logs_go_to_stderr() -> Result<()> {
    let stage = loopback()?;
    let recording = watched(&stage, &["-vvv"], 3)?;
    assert_eq!(recording.counts(&stage.client.netns)?.total(), 3 * 10 + 2);

    let synfin = Synfin::serve(stage.namespaces(), &[])?;
    load::connections(&stage, 3)?;
    let ended = synfin.terminate()?;
    for line in &ended.stderr {
        serde_json::from_str::<Value>(line).with_context(|| format!("no JSON log line: {line}"))?;
    }
    Ok(())
}

/// The columns for people: something for each transition, no JSON.
#[test]
fn columns() -> Result<()> {
    let stage = loopback()?;
    let synfin = command(["watch", "--netns", stage.client.netns.name(), "--count", "12"])?;
    let mut synfin = Synfin::spawn(synfin)?;
    deadline::until("the heading", || Ok((!synfin.stdout().is_empty() || !synfin.alive()?).then_some(())))?;
    load::connections(&stage, 1)?;
    let ended = synfin.wait()?;
    ended.expect(0)?;
    let text = ended.stdout.join("\n").to_lowercase();
    for word in ["syn_sent", "established", "127.0.0.1"] {
        assert!(text.contains(word), "no {word} in\n{text}");
    }
    Ok(())
}

/// On a terminal `run` shows a summary that refreshes; without one, or without being asked, it prints nothing.
#[test]
fn summary_on_a_terminal_only() -> Result<()> {
    let stage = loopback()?;
    let name = stage.client.netns.name();
    for (flags, shown) in [(&[][..], true), (&["--no-summary"], false)] {
        let terminal = nix::pty::openpty(Some(&Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }), None)?;
        let mut run = command(["run", "--netns", name, "--duration", "4s"])?;
        let mut child = run.args(flags).env("TERM", "xterm").stdout(terminal.slave).stderr(Stdio::null()).spawn()?;
        drop(run); // it holds the slave, and the master reads to the last close of it
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            // Ends with EIO once nobody has the slave open.
            drop(File::from(terminal.master).read_to_end(&mut text));
            String::from_utf8_lossy(&text).to_lowercase()
        });
        load::connections(&stage, 200)?;
        let status = deadline::until("synfin run --duration 4s to end", || Ok(child.try_wait()?))?;
        assert!(status.success(), "{status}");
        let text = reader.join().ok().context("the reader panicked")?;
        assert_eq!(text.contains("established"), shown, "{flags:?}: {text:?}");
        assert_eq!(text.is_empty(), !shown, "{flags:?}: {text:?}");
    }
    Ok(())
}

#[test]
fn count_and_duration() -> Result<()> {
    let stage = loopback()?;
    let name = stage.client.netns.name();
    let mut counted = Synfin::spawn(command(["watch", "--json", "--netns", name, "--count", "5"])?)?;
    counted.await_stdout("the start line", |line| line.contains("\"start\""))?;
    load::connections(&stage, 1)?;
    let ended = counted.wait()?;
    ended.expect(0)?;
    let recording = Recording::parse(&ended.stdout)?;
    assert_eq!(recording.of_type("transition").count(), 5);

    let ended = run(&["watch", "--json", "--netns", name, "--duration", "1s"])?;
    ended.expect(0)?;
    let recording = Recording::parse(&ended.stdout)?;
    let time = |kind| recording.of_type(kind).next().and_then(|line| line["linux.time.monotonic"].as_u64());
    let watched = time("end").zip(time("start")).map(|(end, start)| Duration::from_nanos(end - start));
    let watched = watched.context("a start and an end")?;
    // A second of events, not a second less what attaching took.
    assert!((Duration::from_millis(990)..Duration::from_secs(3)).contains(&watched), "watched for {watched:?}");
    Ok(())
}

/// A state filter keeps what enters or leaves the state.
#[test]
fn state_filter() -> Result<()> {
    let stage = loopback()?;
    let recording = watched(&stage, &["--state", "established"], 4)?;
    let about = |line: &Value| {
        ["network.connection.state", "network.tcp.state.previous"].iter().any(|key| line[*key] == "established")
    };
    let lines: Vec<&Value> = recording.of_type("transition").collect();
    assert!(lines.iter().all(|line| about(line)), "{lines:?}");
    // Two sockets of each of four connections, each in and out.
    assert_eq!(lines.len(), 16);

    let recording = watched(&stage, &["--state", "listen,SYN-SENT"], 1)?;
    // The listener's two, the child's birth, the client's SYN_SENT and what followed it.
    assert_eq!(recording.of_type("transition").count(), 5);
    Ok(())
}

/// A port filter keeps both ends of the connections of that port, and nothing else.
#[test]
fn port_filter() -> Result<()> {
    let stage = loopback()?;
    let (listener, address) = sock::listen(&stage.server, 8)?;
    let (other, elsewhere) = sock::listen(&stage.server, 8)?;
    let port = address.port().to_string();
    let synfin = Synfin::watch(stage.namespaces(), &["--port", &port])?;
    let client = sock::connect(&stage.client, elsewhere)?;
    let server = sock::accept(&other)?;
    close::one_after_the_other(&stage.client, client, server)?;
    drop(other);
    let client = sock::connect(&stage.client, address)?;
    let server = sock::accept(&listener)?;
    close::one_after_the_other(&stage.client, client, server)?;
    drop(listener);
    stage.await_quiet()?;
    let recording = synfin.stop()?;
    let on_port =
        |line: &Value| ["network.local.port", "network.peer.port"].iter().any(|key| line[*key] == address.port());
    assert!(recording.of_type("transition").all(on_port), "another port came through");
    // The connection's ten steps and the listener's close.
    assert_eq!(recording.of_type("transition").count(), 11);
    Ok(())
}

#[test]
fn peer_filter() -> Result<()> {
    let stage = Stage::new(Family::V4, Link::Wire)?;
    let server = format!("{}/32", stage.server.ip);
    let synfin = Synfin::watch(stage.namespaces(), &["--peer", &server])?;
    let other = Synfin::watch(stage.namespaces(), &["--peer", "192.0.2.0/24"])?;
    close::by_client(&stage)?;
    let recording = synfin.stop()?;
    assert_eq!(recording.counts(&stage.client.netns)?.total(), 5, "the client's steps all have the server as peer");
    assert_eq!(recording.counts(&stage.server.netns)?.total(), 0, "the server's peer is the client");
    assert_eq!(other.stop()?.of_type("transition").count(), 0);
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

/// Two agents at once do not disturb each other.
#[test]
fn two_at_once() -> Result<()> {
    let stage = loopback()?;
    let netns: &Netns = &stage.client.netns;
    let (first, second) = (Synfin::watch([netns], &[])?, Synfin::watch([netns], &[])?);
    load::connections(&stage, 20)?;
    let (first, second) = (first.stop()?, second.stop()?);
    assert_eq!(first.counts(netns)?, second.counts(netns)?);
    assert_eq!(first.counts(netns)?.total(), 20 * 10 + 2);
    Ok(())
}
