//! Why the kernel refuses, in words: its errno names no cause.
#![expect(unsafe_code, reason = "bpf() has no safe wrapper")]

use std::error::Error;
use std::fs;
use std::io;

use aya::programs::ProgramError;
use rustix::process::{Resource, getrlimit};

use super::memlock::is_not_permitted;
use crate::lockdown;

/// Lines of a verifier's log that a message shows: the reason stands at the end.
const VERIFIER_LINES: usize = 12;

/// What this machine says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    /// The kernel refuses even a call of bpf() that asks for nothing.
    bpf_denied: Option<i32>,
    /// This process runs under a seccomp filter.
    seccomp: bool,
    /// The kernel is locked down so far that no program may read its memory.
    confidential: bool,
    /// RLIMIT_MEMLOCK in bytes, where it is finite.
    memlock: Option<u64>,
}

impl Facts {
    fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            bpf_denied: ask_for_nothing(),
            seccomp: status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2")),
            confidential: lockdown::is_confidential(),
            memlock: getrlimit(Resource::Memlock).current,
        }
    }

    /// Cause and remedy of a refusal, where they are known.
    fn cause(&self, not_permitted: bool) -> Option<String> {
        let cause = match *self {
            Self { bpf_denied: Some(_), seccomp: true, .. } => {
                "a seccomp filter denies bpf(): allow bpf and perf_event_open in the profile (docker run --security-opt \
                 seccomp=PROFILE, Kubernetes securityContext.seccompProfile, systemd SystemCallFilter=)"
            }
            Self { bpf_denied: Some(libc::ENOSYS), .. } => {
                "this kernel has no bpf(): use one with CONFIG_BPF_SYSCALL=y"
            }
            Self { bpf_denied: Some(_), .. } => {
                "bpf() is denied although the capabilities are there: a security module (SELinux, AppArmor) or the \
                 container runtime does it; its log names the rule"
            }
            Self { confidential: true, .. } => {
                return Some(format!(
                    "the kernel is locked down (confidentiality), so that no program may read its memory: {}",
                    lockdown::REMEDY
                ));
            }
            Self { memlock: Some(bytes), .. } if not_permitted => {
                return Some(format!(
                    "RLIMIT_MEMLOCK is {} KiB, and before Linux 5.11 maps and programs count against it: raise it \
                     (ulimit -l unlimited, systemd LimitMEMLOCK=infinity) or give CAP_SYS_RESOURCE",
                    bytes / 1024
                ));
            }
            _ => return None,
        };
        Some(cause.to_owned())
    }
}

/// The errno of a call of bpf() that no kernel understands, other than EINVAL, by which an open kernel answers.
fn ask_for_nothing() -> Option<i32> {
    const NO_COMMAND: libc::c_int = 0xffff;
    // SAFETY: no command reads or writes through a null pointer of length 0.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, NO_COMMAND, std::ptr::null::<u8>(), 0) };
    let errno = io::Error::last_os_error().raw_os_error();
    (answer < 0).then_some(errno).flatten().filter(|errno| matches!(*errno, libc::EPERM | libc::EACCES | libc::ENOSYS))
}

/// The chain of an error in one line, and what this machine says about the cause.
pub(super) fn explain(error: &(dyn Error + 'static)) -> String {
    with_cause(chain(error), error)
}

fn with_cause(mut text: String, error: &(dyn Error + 'static)) -> String {
    if let Some(cause) = Facts::read().cause(is_not_permitted(error)) {
        text.push_str("; ");
        text.push_str(&cause);
    }
    text
}

/// Whether an error comes from this one of the kernel's.
pub(super) fn has_cause(error: &(dyn Error + 'static), errno: i32) -> bool {
    std::iter::successors(Some(error), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.raw_os_error() == Some(errno))
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for source in std::iter::successors(error.source(), |&error| error.source()) {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
    }
    text
}

/// What the kernel said about a program, with the end of the verifier's log where there is one.
pub(super) fn of_program(name: &str, error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return format!("program {name}: {}", explain(error));
    };
    let text = with_cause(format!("the kernel refused program {name}: {io_error}"), error);
    with_log(text, &verifier_log.to_string())
}

fn with_log(mut text: String, log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    for line in &lines[lines.len().saturating_sub(VERIFIER_LINES)..] {
        text.push_str("\n    ");
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_remedy() {
        let open = Facts::default();
        assert_eq!(open.cause(true), None);
        let cause = |facts: Facts| facts.cause(true).unwrap_or_default();
        let denied = Facts { bpf_denied: Some(libc::EPERM), ..Facts::default() };
        assert!(cause(denied.clone()).contains("security module"));
        assert!(cause(Facts { seccomp: true, ..denied }).contains("seccompProfile"));
        let missing = Facts { bpf_denied: Some(libc::ENOSYS), ..Facts::default() };
        assert!(cause(missing).contains("CONFIG_BPF_SYSCALL"));
        assert!(cause(Facts { confidential: true, ..open.clone() }).contains("lockdown=integrity"));
        assert!(cause(Facts { memlock: Some(65536), ..open.clone() }).contains("RLIMIT_MEMLOCK is 64 KiB"));
        // Neither a filter that lets bpf() through nor a limit is a cause of everything.
        assert_eq!(Facts { seccomp: true, memlock: Some(65536), ..open }.cause(false), None);
    }

    #[test]
    fn the_end_of_the_verifiers_log_is_shown() {
        let log: Vec<String> = (0..40).map(|line| format!("{line}: (85) call helper\n")).collect();
        let text = with_log("the kernel refused program state: EINVAL".to_owned(), &log.join("\n"));
        assert_eq!(text.lines().count(), 1 + VERIFIER_LINES);
        assert!(text.ends_with("\n    39: (85) call helper"), "{text}");
    }

    #[test]
    fn a_chain_is_told_once() {
        let inner = io::Error::from_raw_os_error(libc::EPERM);
        let outer = aya::maps::MapError::CreateError { name: "LOST".to_owned(), io_error: inner };
        let text = chain(&outer);
        assert_eq!(text.matches("os error 1").count(), 1, "{text}");
    }
}
