//! The network namespaces of this host, and how to look into one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Held;
use crate::{mounts, netns};

/// A network namespace that is kept open: it stays as long as this value does.
#[derive(Debug)]
pub struct Namespace {
    /// Inode number, by which the kernel side tells namespaces apart.
    pub inode: u32,
    /// Name of `ip netns` or another place where it is mounted.
    pub name: Option<String>,
    file: File,
}

impl Namespace {
    /// Moves the calling thread into it. Give this work a thread of its own: other code must not find itself there.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, unless the thread is there already.
    pub fn enter(&self) -> io::Result<()> {
        // The kernel asks for the privilege even then; without it the own namespace at least can be walked.
        if inode(Path::new("/proc/thread-self/ns/net")).is_ok_and(|own| own == self.inode) {
            return Ok(());
        }
        Ok(move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

/// What a discovery found.
#[derive(Debug, Default)]
pub struct Namespaces {
    all: BTreeMap<u32, Namespace>,
    hidden: usize,
    /// Namespaces that were seen to have open sockets and were found in no other way, with such a socket: process and file descriptor.
    held: BTreeMap<u32, (u32, u32)>,
}

impl Namespaces {
    /// Looks for namespaces again: through processes, and through the places where namespaces are mounted. Those that are gone are closed, so
    /// that this agent keeps none alive for longer than the time between two discoveries.
    pub fn discover(&mut self) {
        let mut found = BTreeMap::new();
        let mut take = |path: &Path, inode: u32, name: Option<String>| {
            let known = found.entry(inode).or_insert_with(|| self.all.remove(&inode));
            match known {
                Some(known) => known.name = known.name.take().or(name),
                None => *known = open(path, inode, name),
            }
        };
        for (path, name) in mounted() {
            if let Ok(inode) = inode(&path) {
                take(&path, inode, Some(name));
            }
        }
        self.hidden = 0;
        for pid in processes() {
            let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
            match inode(&path) {
                Ok(inode) => take(&path, inode, None),
                Err(error) => self.hidden += usize::from(error.kind() == io::ErrorKind::PermissionDenied),
            }
        }
        // Opened anew each time, so that the socket alone decides how long the namespace stays.
        self.held.retain(|inode, (pid, fd)| {
            !found.contains_key(inode)
                && match of_socket(*inode, *pid, *fd) {
                    Ok(namespace) => {
                        found.insert(*inode, Some(namespace));
                        true
                    }
                    Err(error) => {
                        let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
                        self.hidden += usize::from(forbidden);
                        forbidden
                    }
                }
        });
        self.all = found.into_iter().filter_map(|(inode, namespace)| Some((inode, namespace?))).collect();
    }

    /// Takes in open sockets: a namespace that nothing else shows may be among theirs. The next discovery opens it.
    pub fn meet_held(&mut self, held: &[Held]) {
        let unknown = held.iter().filter_map(|held| Some((held.netns?, (held.task.pid, held.fd))));
        self.held =
            unknown.filter(|(inode, _)| !self.all.contains_key(inode) || self.held.contains_key(inode)).collect();
    }

    /// All that are known, by inode number.
    pub fn iter(&self) -> impl Iterator<Item = &Namespace> {
        self.all.values()
    }

    /// The namespace with this inode number.
    pub fn get(&self, inode: u32) -> Option<&Namespace> {
        self.all.get(&inode)
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Processes whose namespace this agent may not ask for (without CAP_SYS_PTRACE those of other users): they may be in namespaces
    /// that are not known.
    pub const fn hidden(&self) -> usize {
        self.hidden
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

fn inode(path: &Path) -> io::Result<u32> {
    u32::try_from(fs::metadata(path)?.ino()).map_err(io::Error::other)
}

/// Asked again once it is open: between the two calls the path may have come to mean another namespace, or the empty file that one was
/// mounted on.
fn open(path: &Path, inode: u32, name: Option<String>) -> Option<Namespace> {
    let file = File::open(path).ok()?;
    let opened = file.metadata().ok()?.ino();
    (opened == u64::from(inode) && netns::is_one(&file)).then_some(Namespace { inode, name, file })
}

/// The namespace of a socket of another process.
fn of_socket(inode: u32, pid: u32, fd: u32) -> io::Result<Namespace> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let socket = pidfd_getfd(process, fd.cast_signed(), PidfdGetfdFlags::empty())?;
    let file = netns::of_socket(&socket)?;
    // The process may have opened something else by that number.
    if file.metadata()?.ino() != u64::from(inode) {
        return Err(gone());
    }
    Ok(Namespace { inode, name: None, file })
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Files of network namespaces that are mounted somewhere (`ip netns add`, container runtimes), with their names: here, and where
/// the first process of the host sees them.
fn mounted() -> Vec<(PathBuf, String)> {
    let mut places = Vec::new();
    let roots = [("/proc/self/mounts", Path::new("/")), ("/proc/1/mounts", Path::new("/proc/1/root"))];
    for (table, root) in roots {
        for point in mounts::of_type_in(table, "nsfs") {
            let name = point.file_name().map(|name| name.to_string_lossy().into_owned());
            let path = root.join(point.strip_prefix("/").unwrap_or(&point));
            places.extend(name.map(|name| (path, name)));
        }
    }
    places.retain(|(path, _)| is_network(path));
    places
}

/// Whether a namespace file is one of a network namespace.
fn is_network(path: &Path) -> bool {
    netns::NetnsSpec::Path(path.to_owned()).resolve().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_a_namespace_was_mounted_on_is_none() {
        let path = std::env::temp_dir().join(format!("synfin-unmounted-{}", std::process::id()));
        File::create(&path).unwrap();
        let inode = inode(&path).unwrap();
        let opened = open(&path, inode, None);
        fs::remove_file(&path).unwrap();
        assert!(opened.is_none());
        let own = Path::new("/proc/self/ns/net");
        assert!(open(own, netns::own().unwrap(), None).is_some());
    }

    #[test]
    fn the_own_namespace_is_found() {
        let own = netns::own().unwrap();
        let mut namespaces = Namespaces::default();
        namespaces.discover();
        assert_eq!(namespaces.get(own).map(|namespace| namespace.inode), Some(own));
        let before = namespaces.len();
        assert!(before > 0 && !namespaces.is_empty());
        namespaces.discover();
        assert!(namespaces.get(own).is_some(), "a second discovery keeps what is still there");
    }
}
