//! Which processes hold a socket, by the inode of its file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use synfin_common::census as wire;
use zerocopy::IntoBytes as _;

use crate::event::Task;

/// A process that holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its command name.
    pub name: String,
}

/// An open file that is a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Inode of the file.
    pub inode: u64,
    /// Network namespace of the socket, where known.
    pub netns: Option<u32>,
    /// The process.
    pub task: Task,
    /// File descriptor there.
    pub fd: u32,
}

impl Held {
    /// From a row of the kernel's iterator.
    pub fn from_wire(row: &wire::Holder) -> Self {
        let mut comm = [0; 16];
        comm.copy_from_slice(row.comm.as_bytes());
        let netns = (row.netns != 0).then_some(row.netns);
        Self { inode: row.inode, netns, task: Task { pid: row.pid, comm }, fd: row.fd }
    }
}

/// Tells every open file that is a socket, as `ss -p` finds them: through the links in /proc. A process that this agent may not look
/// into tells nothing.
pub fn in_proc(each: &mut dyn FnMut(Held)) {
    for process in fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut files = files
            .filter_map(|file| {
                let file = file.ok()?;
                Some((socket(&file.path())?, file.file_name().to_str()?.parse().ok()?))
            })
            .peekable();
        if files.peek().is_none() {
            continue;
        }
        // It may be gone by now: then it holds nothing.
        let Ok(name) = fs::read_to_string(process.path().join("comm")) else { continue };
        let mut comm = [0; 16];
        // The last byte stays NUL.
        for (to, from) in comm[..15].iter_mut().zip(name.trim_end().bytes()) {
            *to = from;
        }
        let task = Task { pid, comm };
        files.for_each(|(inode, fd)| each(Held { inode, netns: None, task, fd }));
    }
}

/// The processes that hold the files with these inode numbers, by inode, each process once, the lowest pid first.
pub fn of(inodes: &BTreeSet<u64>, held: &[Held]) -> BTreeMap<u64, Vec<Holder>> {
    let mut holders: BTreeMap<u64, BTreeMap<u32, Holder>> = BTreeMap::new();
    for Held { inode, task, .. } in held.iter().filter(|held| inodes.contains(&held.inode)) {
        let holder = || Holder { pid: task.pid, name: task.name().into_owned() };
        holders.entry(*inode).or_default().entry(task.pid).or_insert_with(holder);
    }
    holders.into_iter().map(|(inode, holders)| (inode, holders.into_values().collect())).collect()
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
        let again = listener.try_clone().unwrap();
        let inode = socket(Path::new(&format!("/proc/self/fd/{}", listener.as_raw_fd()))).unwrap();
        let mut all = Vec::new();
        in_proc(&mut |held| all.push(held));
        let fds: BTreeSet<u32> = all.iter().filter(|held| held.inode == inode).map(|held| held.fd).collect();
        assert_eq!(fds, [&listener, &again].map(|file| file.as_raw_fd().cast_unsigned()).into());
        let holders = of(&BTreeSet::from([inode, u64::MAX]), &all);
        assert_eq!(holders.len(), 1);
        assert_eq!(holders[&inode].len(), 1, "a process counts once");
        assert_eq!(holders[&inode][0].pid, std::process::id());
        assert!(of(&BTreeSet::new(), &all).is_empty());
    }
}
