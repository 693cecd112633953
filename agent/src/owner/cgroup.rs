//! cgroup v2 ids: their paths, and the containers and pods that paths name.
//!
//! The id of a cgroup is the inode number of its directory. What a path says is a convention of container runtimes; what follows none of
//! them names nothing.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::mounts;

/// Directories that are looked at most, over all mounts.
const LIMIT: usize = 65_536;

/// Inode number of the one root of the hierarchy: that of any other mount is of a part of it.
const ROOT: u64 = 1;

/// The cgroups of this host, as they were when it was looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    paths: BTreeMap<u64, String>,
    /// Why that may not be all.
    pub lack: Vec<Lack>,
}

/// Why a path may be unknown, or name no container though there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// There is no cgroup2 mount.
    NoMount,
    /// The mount shows a part of the hierarchy: what is outside is unknown, and paths begin at that part.
    Part(PathBuf),
    /// cgroup v1 hierarchies are in use, so that containers need not have a cgroup v2 of their own.
    Version1,
    /// More directories than are looked at.
    Limit,
    /// A mount could not be read.
    Unreadable(PathBuf, String),
}

impl Lack {
    /// In words, for people.
    pub fn text(&self) -> String {
        match self {
            Self::NoMount => {
                "no cgroup2 file system is mounted here: paths, containers and pods are unknown".to_owned()
            }
            Self::Part(mount) => {
                format!("{} shows a part of the cgroups: paths begin there, and others are unknown", mount.display())
            }
            Self::Version1 => {
                "this host has cgroup v1 hierarchies: a container may go without a cgroup v2, which alone sockets tell"
                    .to_owned()
            }
            Self::Limit => format!("more than {LIMIT} cgroups: the paths of the others are unknown"),
            Self::Unreadable(mount, why) => format!("{} cannot be read: {why}", mount.display()),
        }
    }
}

impl Cgroups {
    #[cfg(test)]
    pub(super) const fn for_test(paths: BTreeMap<u64, String>, lack: Vec<Lack>) -> Self {
        Self { paths, lack }
    }

    /// Looks at all cgroups once.
    pub fn read() -> Self {
        let mounts = mounts::of_type("cgroup2");
        let mut cgroups = Self::default();
        if mounts.is_empty() {
            cgroups.lack.push(Lack::NoMount);
            return cgroups;
        }
        // A mount of the whole says more than any number of parts.
        let is_whole = |mount: &PathBuf| fs::metadata(mount).is_ok_and(|root| root.ino() == ROOT);
        let whole = mounts.iter().find(|mount| is_whole(mount));
        for mount in whole.map_or(mounts.as_slice(), std::slice::from_ref) {
            if whole.is_none() {
                cgroups.lack.push(Lack::Part(mount.clone()));
            }
            if let Err(error) = cgroups.walk(mount, LIMIT) {
                cgroups.lack.push(Lack::Unreadable(mount.clone(), error.to_string()));
            }
        }
        // `name=systemd` alone keeps processes together and has no controllers; runtimes follow the controllers.
        if mounts::of_type("cgroup").iter().any(|mount| !mount.ends_with("systemd")) {
            cgroups.lack.push(Lack::Version1);
        }
        cgroups
    }

    /// Takes in the directories below a mount, the upper ones first.
    fn walk(&mut self, mount: &Path, limit: usize) -> io::Result<()> {
        let root = fs::metadata(mount)?.ino();
        self.paths.entry(root).or_insert_with(|| "/".to_owned());
        let mut queue = VecDeque::from([(mount.to_owned(), String::new())]);
        while let Some((directory, path)) = queue.pop_front() {
            // One that is gone meanwhile has no sockets to tell of.
            for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
                // No link is followed: there are none among cgroups.
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if self.paths.len() >= limit {
                    self.lack.push(Lack::Limit);
                    return Ok(());
                }
                let Ok(metadata) = entry.metadata() else { continue };
                let path = format!("{path}/{}", entry.file_name().to_string_lossy());
                self.paths.entry(metadata.ino()).or_insert_with(|| path.clone());
                queue.push_back((entry.path(), path));
            }
        }
        Ok(())
    }

    /// Path of a cgroup below its mount, `/` for the root. None where it is unknown: the cgroup is gone, or cannot be seen.
    pub fn path(&self, id: u64) -> Option<&str> {
        self.paths.get(&id).map(String::as_str)
    }

    /// Whether a path that names no container says that there is none.
    pub fn tells_all(&self) -> bool {
        self.lack.iter().all(|lack| matches!(lack, Lack::Limit))
    }
}

/// The container that a path is in, the innermost where one is inside another: 64 hexadecimal digits.
pub fn container(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|segment| {
        // `crio-conmon-ID.scope` and its like are of the container's monitor.
        let name = segment.strip_suffix(".scope").unwrap_or(segment);
        let id = ["docker-", "cri-containerd-", "crio-", "libpod-", "libpod-payload-", "nerdctl-"]
            .into_iter()
            .filter_map(|runtime| name.strip_prefix(runtime))
            // A path that was meant for the systemd driver, `SLICE:RUNTIME:ID`, and came to the cgroupfs driver.
            .chain(name.rsplit_once(":cri-containerd:").map(|(_, id)| id))
            .chain([segment])
            .find(|id| is_hex(id, 64))?;
        Some(id)
    })
}

/// UID of the Kubernetes pod that a path is in, as the API server spells it.
pub fn pod(path: &str) -> Option<String> {
    let segments: Vec<&str> = path.split('/').collect();
    (0..segments.len()).rev().find_map(|at| {
        let segment = segments[at];
        let slice = segment.split_once(".slice:").map(|(slice, _)| slice).or(segment.strip_suffix(".slice"));
        if let Some(slice) = slice {
            // The systemd driver: `kubepods[-burstable|-besteffort]-pod<UID>.slice`, where `-` means a level and so becomes `_`.
            let (level, uid) = slice.rsplit_once("-pod")?;
            let level = level.strip_suffix("-burstable").or(level.strip_suffix("-besteffort")).unwrap_or(level);
            return (level.rsplit('-').next() == Some("kubepods")).then(|| uid_of(&uid.replace('_', "-"))).flatten();
        }
        // The cgroupfs driver: `kubepods/[burstable/|besteffort/]pod<UID>`.
        let uid = segment.strip_prefix("pod")?;
        let mut above = segments.get(..at)?.iter().rev().copied().peekable();
        above.next_if(|level| matches!(*level, "burstable" | "besteffort"));
        (above.next() == Some("kubepods")).then(|| uid_of(uid)).flatten()
    })
}

/// The unit of systemd that a path is in, the innermost where one is inside another: what comes up to it, and its name without
/// `.service`.
///
/// None for what merely hangs below a unit and is no part of it: a user's service manager (`user@UID.service`) has services of its own,
/// and sessions and programs that are none. A unit that nobody has named (`systemd-run`) names none either.
pub fn service(path: &str) -> Option<(&str, &str)> {
    let mut end = path.len();
    for segment in path.rsplit('/') {
        if let Some(unit) = segment.strip_suffix(".service").filter(|unit| !unit.is_empty()) {
            return (!unit.starts_with("user@") && !is_transient(unit)).then(|| (&path[..end], unit));
        }
        end = end.saturating_sub(segment.len() + 1);
    }
    None
}

/// What systemd calls a unit that was started without a name: `run-u12`, `run-p12-i34`, `run-r` and 32 digits.
fn is_transient(unit: &str) -> bool {
    let Some(rest) = unit.strip_prefix("run-") else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    rest.strip_prefix('u').is_some_and(is_number)
        || rest.strip_prefix('r').is_some_and(|id| is_hex(id, 32))
        || rest
            .strip_prefix('p')
            .and_then(|ids| ids.split_once("-i"))
            .is_some_and(|(process, id)| is_number(process) && is_number(id))
}

/// A UUID, or the 32 digits of a static pod's hash.
fn uid_of(text: &str) -> Option<String> {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let is_uid = text.split('-').all(|part| is_hex(part, part.len())) && matches!(*lengths, [32] | [8, 4, 4, 4, 12]);
    is_uid.then(|| text.to_owned())
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OTHER: &str = "ffff456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "0a1b2c3d-0001-4fff-8abc-0123456789ab";
    const STATIC: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn containers_of_each_spelling() {
        for path in [
            "/system.slice/docker-ID.scope",
            "/docker/ID",
            "/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope",
            "/kubepods/burstable/pod1/ID",
            "/kubepods.slice/crio-ID.scope",
            "/kubepods/besteffort/pod1/crio-ID",
            "/machine.slice/libpod-ID.scope",
            "/libpod_parent/libpod-ID",
            "/system.slice/nerdctl-ID.scope",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container",
            "/docker/ID/system.slice/cron.service",
            "/docker/OTHER/kubelet/kubepods/pod1/ID",
            "/system.slice/web.service/libpod-payload-ID",
            "/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:ID",
        ] {
            let path = path.replace("ID", ID).replace("OTHER", OTHER);
            assert_eq!(container(&path), Some(ID), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_names_none() {
        for path in [
            "/",
            "",
            "/system.slice/sshd.service",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/crio-conmon-ID.scope",
            "/system.slice/docker-IDa.scope",
            "/system.slice/unknown-ID.scope",
            "/system.slice/ID.service",
            "/docker/0123456789abcdef",
            "/system.slice/other:ID",
        ] {
            let path = path.replace("ID", ID);
            assert_eq!(container(&path), None, "{path}");
        }
        assert_eq!(container(&format!("/docker/{}", ID.to_uppercase())), None);
    }

    #[test]
    fn pods_of_each_spelling() {
        let systemd = UID.replace('-', "_");
        for path in [
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/crio-{ID}.scope"),
            format!("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{systemd}.slice"),
            format!("/kubepods.slice/kubepods-pod{systemd}.slice/cri-containerd-{ID}.scope"),
            format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{systemd}.slice/x"),
            format!("/kubepods/burstable/pod{UID}/{ID}"),
            format!("/kubepods/besteffort/pod{UID}"),
            format!("/kubepods/pod{UID}/{ID}"),
            format!("/docker/{ID}/kubelet/kubepods/pod{UID}/{OTHER}"),
            format!("/system.slice/containerd.service/kubepods-burstable-pod{systemd}.slice:cri-containerd:{ID}"),
        ] {
            assert_eq!(pod(&path).as_deref(), Some(UID), "{path}");
        }
        for path in [
            format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice"),
            format!("/kubepods/pod{STATIC}/{ID}"),
        ] {
            assert_eq!(pod(&path).as_deref(), Some(STATIC), "{path}");
        }
    }

    #[test]
    fn what_is_no_pod_names_none() {
        for path in [
            "/".to_owned(),
            "/kubepods.slice/kubepods-burstable.slice".to_owned(),
            format!("/machine.slice/my-pod{STATIC}.slice"),
            format!("/other/pod{UID}/{ID}"),
            format!("/kubepods/pod{UID}x"),
            format!("/kubepods/pod{}", &UID[1..]),
            format!("/docker/{ID}"),
            format!("/libpod_parent/pod{UID}"),
        ] {
            assert_eq!(pod(&path), None, "{path}");
        }
    }

    #[test]
    fn services_of_each_spelling() {
        for (path, wanted) in [
            ("/system.slice/nginx.service", Some(("/system.slice/nginx.service", "nginx"))),
            ("/system.slice/nginx.service/workers/a", Some(("/system.slice/nginx.service", "nginx"))),
            (
                "/system.slice/system-postgresql.slice/postgresql@15-main.service",
                Some(("/system.slice/system-postgresql.slice/postgresql@15-main.service", "postgresql@15-main")),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service",
                Some(("/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service", "syncthing")),
            ),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", None),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-12.scope", None),
            ("/user.slice/user-1000.slice/session-3.scope", None),
            ("/system.slice/run-u12.service", None),
            ("/system.slice/run-p12-i34.service", None),
            ("/system.slice/run-r0123456789abcdef0123456789abcdef.service", None),
            ("/system.slice/run-update.service", Some(("/system.slice/run-update.service", "run-update"))),
            ("/system.slice", None),
            ("/system.slice/.service", None),
            ("/init.scope", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(service(path), wanted, "{path}");
        }
    }

    #[test]
    fn directories_are_known_by_their_inode_numbers_within_bounds() {
        let mount = tempfile::tempdir().unwrap();
        let deep = mount.path().join("kubepods/pod1/x");
        fs::create_dir_all(&deep).unwrap();
        fs::write(mount.path().join("cgroup.procs"), "").unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let mut cgroups = Cgroups::default();
        cgroups.walk(mount.path(), LIMIT).unwrap();
        assert_eq!(cgroups.path(inode(&deep)), Some("/kubepods/pod1/x"));
        assert_eq!(cgroups.path(inode(mount.path())), Some("/"));
        assert_eq!(cgroups.path(inode(&mount.path().join("cgroup.procs"))), None);
        assert!(cgroups.tells_all() && cgroups.lack.is_empty());

        let mut bounded = Cgroups::default();
        bounded.walk(mount.path(), 2).unwrap();
        assert_eq!((bounded.paths.len(), bounded.lack), (2, vec![Lack::Limit]));
        assert!(Cgroups::default().walk(&mount.path().join("none"), LIMIT).is_err());
    }
}
