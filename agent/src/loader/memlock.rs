//! RLIMIT_MEMLOCK: before 5.11 the kernel counts maps and programs against it, and 64 KiB of it are customary. It is
//! raised only where the kernel has refused something.

use std::error::Error;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::refusal::has_cause;

/// Does it, and once more with a higher limit when the kernel does not permit it.
pub(super) fn retry<T, E: Error + 'static>(mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    match attempt() {
        Err(error) if is_not_permitted(&error) => {
            let before = getrlimit(Resource::Memlock);
            if !raise(before) {
                return Err(error);
            }
            attempt().inspect_err(|_other_cause| restore(before))
        }
        done => done,
    }
}

/// EPERM stands for the limit among other things; the kernel does not say which.
pub(super) fn is_not_permitted(error: &(dyn Error + 'static)) -> bool {
    has_cause(error, libc::EPERM)
}

/// As high as this process may. Answers whether it is higher now.
fn raise(before: Rlimit) -> bool {
    let Rlimit { current, maximum } = before;
    if current.is_none() {
        return false;
    }
    let none = Rlimit { current: None, maximum: None };
    // Beyond its maximum needs CAP_SYS_RESOURCE.
    let raised = setrlimit(Resource::Memlock, none).is_ok()
        || (current != maximum && setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum }).is_ok());
    if raised {
        tracing::debug!(?before, "raised RLIMIT_MEMLOCK");
    } else {
        tracing::debug!(?before, "RLIMIT_MEMLOCK cannot be raised");
    }
    raised
}

fn restore(before: Rlimit) {
    // Lowering is always allowed; if it were not, a limit would be higher than it needs to be.
    _ = setrlimit(Resource::Memlock, before);
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("wrapped")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn only_a_lack_of_permission_is_tried_again() {
        let fails = |errno: i32| {
            let mut times = 0;
            let done: Result<(), Wrapped> = retry(|| {
                times += 1;
                Err(Wrapped(io::Error::from_raw_os_error(errno)))
            });
            assert!(done.is_err());
            times
        };
        assert_eq!(fails(libc::EINVAL), 1);
        let before = getrlimit(Resource::Memlock);
        // Where the limit cannot be raised, a second attempt would fail as the first one did.
        assert!(fails(libc::EPERM) <= 2);
        assert_eq!(getrlimit(Resource::Memlock), before);
        assert_eq!(retry(|| Ok::<_, Wrapped>(7)).ok(), Some(7));
    }
}
