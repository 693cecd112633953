//! The path of one cgroup by its id: by a handle where this process may, else by a walk over all of them.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cgroup::Cgroups;
use super::handle;
use crate::mounts;

/// Time between two walks at least: with thousands of cgroups one takes milliseconds.
const PAUSE: Duration = Duration::from_secs(1);

/// What finds paths.
pub(super) trait Find: Send {
    /// The path of a cgroup below its mount. None where it is gone, or cannot be seen. `heard` is a moment at which it had been heard of:
    /// what was looked at before proves nothing, for it may be younger; what was looked at since and did not show it proves that it is
    /// gone. May wait a little if nothing was looked at since.
    fn path(&mut self, cgroup: u64, heard: Instant) -> Option<String>;
}

/// Asks the kernel.
#[derive(Debug)]
pub(super) struct Finder {
    handles: Option<Handles>,
    walk: Option<Walk>,
}

/// A mount of cgroup2 on which handles work.
#[derive(Debug)]
struct Handles {
    mount: PathBuf,
    root: File,
}

/// All cgroups at one moment.
#[derive(Debug)]
struct Walk {
    begun: Instant,
    cgroups: Cgroups,
}

/// What a handle leads to.
enum Found {
    Path(String),
    Gone,
    /// It says nothing: another way may.
    Nothing,
}

impl Finder {
    /// Finds out which way works here.
    pub(super) fn new() -> Self {
        Self { handles: mounts::of_type("cgroup2").into_iter().find_map(Handles::try_on), walk: None }
    }

    fn walked(&mut self, cgroup: u64, heard: Instant) -> Option<String> {
        if let Some(walk) = &self.walk {
            if let Some(path) = walk.cgroups.path(cgroup) {
                return Some(path.to_owned());
            }
            if walk.begun >= heard {
                return None;
            }
            std::thread::sleep((walk.begun + PAUSE).saturating_duration_since(Instant::now()));
        }
        let walk = self.walk.insert(Walk { begun: Instant::now(), cgroups: Cgroups::read() });
        walk.cgroups.path(cgroup).map(str::to_owned)
    }
}

impl Find for Finder {
    fn path(&mut self, cgroup: u64, heard: Instant) -> Option<String> {
        match self.handles.as_ref().map_or(Found::Nothing, |handles| handles.find(cgroup)) {
            Found::Path(path) => Some(path),
            Found::Gone => None,
            Found::Nothing => self.walked(cgroup, heard),
        }
    }
}

impl Handles {
    /// A mount on which the handle of its own root works.
    fn try_on(mount: PathBuf) -> Option<Self> {
        let root = File::open(&mount).ok()?;
        let id = root.metadata().ok()?.ino();
        match handle::open(root.as_fd(), id) {
            Ok(_) => Some(Self { mount, root }),
            Err(error) => {
                tracing::debug!(%error, mount = %mount.display(), "cgroups are found by walking over all of them");
                None
            }
        }
    }

    fn find(&self, cgroup: u64) -> Found {
        let directory = match handle::open(self.root.as_fd(), cgroup) {
            Ok(directory) => directory,
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return Found::Gone,
            Err(_) => return Found::Nothing,
        };
        let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
        fs::read_link(link).ok().and_then(|path| below(&self.mount, &path)).map_or(Found::Nothing, Found::Path)
    }
}

/// The path of a cgroup below its mount, `/` for the root. None for what is not below it: the mount is of another part.
fn below(mount: &Path, path: &Path) -> Option<String> {
    let text = path.strip_prefix(mount).ok()?.to_string_lossy();
    // What the kernel appends to the path of a directory that was removed after it was opened.
    Some(format!("/{}", text.strip_suffix(" (deleted)").unwrap_or(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_begin_at_the_mount() {
        let below = |path: &str| below(Path::new("/sys/fs/cgroup"), Path::new(path));
        assert_eq!(below("/sys/fs/cgroup").as_deref(), Some("/"));
        assert_eq!(below("/sys/fs/cgroup/a.slice/b.service").as_deref(), Some("/a.slice/b.service"));
        assert_eq!(below("/sys/fs/cgroup/b.service (deleted)").as_deref(), Some("/b.service"));
        assert_eq!(below("/elsewhere/b.service"), None);
        assert_eq!(below(""), None);
    }

    #[test]
    fn a_walk_is_good_for_what_was_there_when_it_began() {
        let known = Cgroups::for_test([(5, "/a.slice".to_owned())].into(), Vec::new());
        let mut finder = Finder { handles: None, walk: Some(Walk { begun: Instant::now(), cgroups: known }) };
        assert_eq!(finder.path(5, Instant::now()).as_deref(), Some("/a.slice"));
        let before = finder.walk.as_ref().unwrap().begun;
        assert_eq!(finder.path(u64::MAX, before), None);
        assert_eq!(finder.walk.as_ref().unwrap().begun, before, "nothing new can be learnt");
        assert_eq!(finder.path(u64::MAX, Instant::now()), None);
        assert!(finder.walk.unwrap().begun >= before + PAUSE, "the next one waits, and then looks");
    }
}
