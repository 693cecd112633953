//! Passes a child's output on while it runs, and reads it line by line on the way.

use std::io::{Read as _, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cmd;

/// How long an unfinished line is held back. Whole lines never mix with what cargo writes on stderr meanwhile; after this
/// time the name of a test that hangs is worth more.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs the child, copies its stdout to `out`, shows each line to `read`; tells whether the child succeeded.
pub(crate) fn lines(command: &mut Command, out: &mut dyn Write, read: &mut dyn FnMut(&str)) -> Result<bool> {
    let shown = cmd::show(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("`{shown}` does not start"))?;
    let mut stdout = child.stdout.take().context("stdout is piped")?;
    let (sender, chunks) = channel();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    pass_on(&chunks, out, read);
    // The reader has dropped its end, so it is done or never will be.
    drop(reader.join());
    Ok(child.wait()?.success())
}

fn pass_on(chunks: &Receiver<Vec<u8>>, out: &mut dyn Write, read: &mut dyn FnMut(&str)) {
    // A closed stdout must not stop the tests: their verdict is the exit code too.
    let mut show = |bytes: &[u8]| drop(out.write_all(bytes).and_then(|()| out.flush()));
    let mut line = Vec::new();
    let mut shown = 0;
    loop {
        match chunks.recv_timeout(PATIENCE) {
            Ok(chunk) => {
                for byte in chunk {
                    line.push(byte);
                    if byte == b'\n' {
                        show(&line[shown..]);
                        read(String::from_utf8_lossy(&line).trim_end());
                        line.clear();
                        shown = 0;
                    }
                }
            }
            Err(end) => {
                show(&line[shown..]);
                shown = line.len();
                if end == RecvTimeoutError::Disconnected {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> (bool, String, Vec<String>) {
        let (mut out, mut seen) = (Vec::new(), Vec::new());
        let success = lines(cmd::command("sh").args(["-c", script]), &mut out, &mut |line| seen.push(line.to_owned()));
        (success.unwrap(), String::from_utf8(out).unwrap(), seen)
    }

    #[test]
    fn everything_is_passed_on_and_whole_lines_are_read() {
        let (success, out, seen) = sh("echo one; printf 'tw'; printf 'o\\n\\nunfinished'; exit 3");
        assert!(!success);
        assert_eq!(out, "one\ntwo\n\nunfinished");
        assert_eq!(seen, ["one", "two", ""]);
    }

    #[test]
    fn an_unfinished_line_is_shown_after_a_while_and_only_once() {
        let (sender, chunks) = channel();
        let sending = std::thread::spawn(move || {
            sender.send(b"test x ... ".to_vec()).unwrap();
            std::thread::sleep(PATIENCE * 2);
            sender.send(b"ok\n".to_vec()).unwrap();
        });
        let (mut out, mut seen) = (Pieces::default(), Vec::new());
        pass_on(&chunks, &mut out, &mut |line| seen.push(line.to_owned()));
        sending.join().unwrap();
        assert_eq!(out.0, ["test x ... ", "ok\n"]);
        assert_eq!(seen, ["test x ... ok"]);
    }

    /// Remembers what was written at once.
    #[derive(Default)]
    struct Pieces(Vec<String>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if !bytes.is_empty() {
                self.0.push(String::from_utf8_lossy(bytes).into_owned());
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
