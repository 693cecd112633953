//! What the agent tells comes after the traffic that is watched.

use rustix::process::{getpriority_process, setpriority_process};

/// Added to the niceness of the agent. At 10 a thread gets a tenth of what a busy program gets beside it, which is enough
/// for export and never more than the traffic can spare; what has to wait is in a bounded queue. Not 19: the last spans
/// must go out within the time that the end of the agent allows, however busy the machine is.
const BEHIND: i32 = 10;
const LOWEST: i32 = 19;

/// Makes this thread wait for others, and the threads that it starts. On Linux niceness belongs to the thread, whatever
/// POSIX says, so that the thread that drains the ring is not affected.
pub fn lower() {
    let niceness = getpriority_process(None).unwrap_or(0);
    if let Err(error) = setpriority_process(None, (niceness + BEHIND).min(LOWEST)) {
        // Everything works without.
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_thread_and_those_it_starts_are_lowered() {
        let before = getpriority_process(None).unwrap();
        let inherited = std::thread::spawn(|| {
            lower();
            std::thread::spawn(|| getpriority_process(None).unwrap()).join().unwrap()
        });
        assert_eq!(inherited.join().unwrap(), (before + BEHIND).min(LOWEST));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
