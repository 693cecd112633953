//! Which processes hold a socket: by the inode of its file, as `ss -p` finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its command name.
    pub name: String,
}

/// The processes that hold the socket files with these inode numbers, by inode, each process once. Reads the open files of every process,
/// so that it is nothing to do often.
pub fn of(inodes: &BTreeSet<u64>) -> BTreeMap<u64, Vec<Holder>> {
    let mut holders: BTreeMap<u64, Vec<Holder>> = BTreeMap::new();
    if inodes.is_empty() {
        return holders;
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let held: BTreeSet<u64> =
            files.filter_map(|file| socket(&file.ok()?.path())).filter(|inode| inodes.contains(inode)).collect();
        if held.is_empty() {
            continue;
        }
        // It may be gone by now: then it holds nothing.
        let Ok(name) = fs::read_to_string(process.path().join("comm")) else { continue };
        let holder = Holder { pid, name: name.trim_end().to_owned() };
        for inode in held {
            holders.entry(inode).or_default().push(holder.clone());
        }
    }
    for row in holders.values_mut() {
        row.sort_by_key(|holder| holder.pid);
    }
    holders
}

/// One process for each socket file that any holds, by inode number: the first that is met. Of processes that share a socket any one is a holder.
pub fn all() -> Vec<(u64, Holder)> {
    let mut held = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut inodes = files.filter_map(|file| socket(&file.ok()?.path())).peekable();
        if inodes.peek().is_none() {
            continue;
        }
        let Ok(name) = fs::read_to_string(process.path().join("comm")) else { continue };
        held.extend(inodes.map(|inode| (inode, Holder { pid, name: name.trim_end().to_owned() })));
    }
    held
}

/// Inode number of an open file that is a socket: its link reads `socket:[INODE]`.
fn socket(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn this_process_holds_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = socket(Path::new(&format!("/proc/self/fd/{}", listener.as_raw_fd()))).unwrap();
        let holders = of(&BTreeSet::from([inode, u64::MAX]));
        assert_eq!(holders.len(), 1);
        assert!(holders[&inode].iter().any(|holder| holder.pid == std::process::id()), "{holders:?}");
        assert!(of(&BTreeSet::new()).is_empty());
    }
}
