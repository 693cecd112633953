//! What must be undone when the bench ends, however it ends.

use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};

use crate::cmd;

/// Runs a shell script when it is dropped, and also when this process is interrupted or killed: the script waits in a
/// child for the end of a pipe, which the kernel closes for a process that can no longer do so itself.
#[derive(Debug)]
pub(super) struct Undo(Child);

impl Undo {
    /// Sets the script up; nothing of it runs yet.
    pub(super) fn at_end(script: &str) -> Result<Self> {
        let mut waiting = cmd::command("sh");
        // Ctrl-C reaches the whole group: the child must outlive it.
        waiting.args(["-c", &format!("trap '' INT TERM HUP; read -r _; {script}")]);
        Ok(Self(waiting.stdin(Stdio::piped()).spawn().context("cannot start sh, which cleans up after the bench")?))
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Fails only when the child is gone already.
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_runs_at_the_end_and_not_before() {
        let file = std::env::temp_dir().join(format!("synfin-undo-{}", std::process::id()));
        let undo = Undo::at_end(&format!("echo undone > {}", file.display())).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!file.exists());
        drop(undo);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "undone\n");
        std::fs::remove_file(file).unwrap();
    }
}
