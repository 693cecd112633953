//! The verifier gives a program up with EAGAIN when anything wants the thread meanwhile: a signal, a stop, a control group that
//! is frozen for a moment (`do_check()`, `signal_pending()`). Nothing is wrong with the program then.

use std::error::Error;

use super::refusal::has_cause;

/// libbpf asks five times (`PROG_LOAD_ATTEMPTS`); where signals come each few milliseconds, by a profiler's timer say, that is
/// not enough for programs of ten milliseconds.
const ATTEMPTS: u32 = 100;

/// Loads a program, again when the verifier was interrupted.
pub(super) fn load<E: Error + 'static>(mut attempt: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if has_cause(&error, libc::EAGAIN) => {}
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
