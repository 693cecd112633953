//! The command line: usage, exit codes, and where output goes.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    process::Stdio,
    thread,
};

use anyhow::{Context as _, Result};
use nix::pty::Winsize;
use serde_json::Value;
use synfin_tests::{
    deadline, load, need,
    stage::{Family, Link, Stage},
    synfin::{Synfin, command, run},
};

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
    let synfin = Synfin::watch(stage.namespaces(), &["-vvv"])?;
    load::connections(&stage, 3)?;
    let recording = synfin.stop()?;
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

/// What is wrong with export is on the screen, from its first frame on and on a terminal that does not tell its size; the
/// log comes when the screen is gone.
#[test]
fn summary_tells_of_an_endpoint_that_is_away() -> Result<()> {
    const LEFT: &str = "\u{1b}[?1049l";
    let stage = loopback()?;
    let name = stage.client.netns.name();
    let gone = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let endpoint = format!("http://{gone}");
    let terminal = nix::pty::openpty(None, None)?;
    let mut run = command(["run", "--netns", name, "--duration", "5s", "--otlp-endpoint", &endpoint])?;
    let both = terminal.slave.try_clone()?;
    let mut child = run.env("TERM", "xterm").stdout(terminal.slave).stderr(both).spawn()?;
    drop(run); // it holds the slave, and the master reads to the last close of it
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        // Ends with EIO once nobody has the slave open.
        drop(File::from(terminal.master).read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    load::connections(&stage, 5)?;
    let status = deadline::until("synfin run --duration 5s to end", || Ok(child.try_wait()?))?;
    assert!(status.success(), "{status}");
    let text = reader.join().ok().context("the reader panicked")?;
    let (screen, log) = text.split_once(LEFT).with_context(|| format!("no end of the picture: {text:?}"))?;
    let frames: Vec<&str> = screen.split("\u{1b}[2J").skip(1).collect();
    let (first, last) = (frames.first().context("no frame")?, frames.last().context("no frame")?);
    assert!(first.contains("EXPORT") && first.contains(&endpoint) && first.contains("up 0s"), "{first:?}");
    for part in ["healthy, export fails", "fails since", "nobody listens there", "! ", "OTLP export fails"] {
        assert!(last.contains(part), "no {part:?} in {last:?}");
    }
    let lines = |part: &str| log.lines().filter(|line| line.contains(part)).count();
    assert!(lines("OTLP export fails") > 0, "{log}");
    // At the end one line tells of the metrics, and none promises another export.
    assert_eq!((lines("the last totals of the metrics did not arrive"), lines("opentelemetry")), (1, 0), "{log}");
    assert_eq!(lines("the next one has the same totals"), 0, "{log}");
    Ok(())
}
