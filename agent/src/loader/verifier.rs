//! The verifier gives a program up with EAGAIN when anything wants the thread meanwhile: a signal, a stop, a control group that
//! is frozen for a moment (`do_check()`, `signal_pending()`). Nothing is wrong with the program then.

use std::error::Error;

use super::refusal::has_cause;

/// libbpf asks five times (`PROG_LOAD_ATTEMPTS`). The longest programs take it ten milliseconds: where something comes each few of them,
/// irregularly, five are not enough. Where it comes more regularly than that, no number is, and this one ends within seconds.
const ATTEMPTS: u32 = 100;

/// Loads a program, again when the verifier was interrupted.
pub(super) fn load<E: Error + 'static>(mut attempt: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    for attempts in 1..ATTEMPTS {
        match attempt() {
            Err(error) if has_cause(&error, libc::EAGAIN) => {
                tracing::debug!(attempts, "the verifier was interrupted, the program is loaded again");
            }
            done => return done,
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    struct Refused(#[source] io::Error);

    #[test]
    fn only_an_interruption_is_tried_again() {
        let times = |errnos: &[i32]| {
            let mut calls = 0;
            let done = load(|| {
                calls += 1;
                errnos.get(calls - 1).map_or(Ok(()), |errno| Err(Refused(io::Error::from_raw_os_error(*errno))))
            });
            (calls, done.is_ok())
        };
        assert_eq!(times(&[]), (1, true));
        assert_eq!(times(&[libc::EAGAIN, libc::EAGAIN]), (3, true));
        assert_eq!(times(&[libc::EAGAIN, libc::EACCES]), (2, false));
        assert_eq!(times(&[libc::EAGAIN; 1_000]), (ATTEMPTS as usize, false));
    }
}
