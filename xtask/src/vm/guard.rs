//! A child that does not outlive xtask, however xtask ends.
#![expect(unsafe_code, reason = "the kernel is told between fork and exec, which has no safe wrapper")]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// Lets the kernel kill the child as soon as the thread that starts it is gone: that thread must wait for it.
pub(super) fn tie(command: &mut Command) {
    let parent = getpid();
    let tie = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // Gone in between: the signal will never come.
        if getppid() == parent { Ok(()) } else { Err(io::Error::from(Errno::ESRCH)) }
    };
    // SAFETY: `tie` makes two system calls and allocates nothing.
    unsafe { command.pre_exec(tie) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_child_lives_as_long_as_its_thread() {
        let (say, told) = std::sync::mpsc::channel::<()>();
        let (give, given) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut sleep = Command::new("sleep");
            sleep.arg("60");
            tie(&mut sleep);
            give.send(sleep.spawn().unwrap()).unwrap();
            told.recv().unwrap();
        });
        let mut child = given.recv().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(child.try_wait().unwrap(), None);
        let started = Instant::now();
        say.send(()).unwrap();
        thread.join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
