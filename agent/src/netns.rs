//! Network namespaces as people name them, and their inode numbers, by which the kernel side tells them apart.
#![expect(unsafe_code, reason = "two ioctls ask the kernel about namespaces; std has no calls for them")]

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where `ip netns` keeps names; the second is the same folder on most systems.
const FOLDERS: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A network namespace as a user names it. Resolve it again after a while: a name can vanish and come back as another
/// namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NetnsSpec {
    /// A name of `ip netns`.
    Name(String),
    /// A namespace file, e.g. `/proc/123/ns/net`.
    Path(PathBuf),
    /// The inode number itself.
    Inode(u32),
}

/// Why a text or a namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The text is none of the three forms.
    #[error("not a network namespace; give a name of `ip netns`, a path like /proc/PID/ns/net, or an inode number")]
    Syntax,
    /// No such name.
    #[error("no network namespace has the name `{name}`; {}", known_names(.known))]
    NotFound {
        /// The name that was looked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// The file cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is no network namespace; name one like /proc/PID/ns/net or create it with `ip netns add`", path.display())]
    NotANamespace {
        /// The file.
        path: PathBuf,
    },
}

fn known_names(names: &[String]) -> String {
    if names.is_empty() { format!("{} holds none", FOLDERS[0]) } else { format!("known: {}", names.join(", ")) }
}

impl FromStr for NetnsSpec {
    type Err = NetnsError;

    /// `net:[4026531840]` or a decimal number is an inode, what holds a `/` a path, everything else a name.
    fn from_str(text: &str) -> Result<Self, NetnsError> {
        let number = text.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            return number.parse().ok().filter(|&inode| inode != 0).map(Self::Inode).ok_or(NetnsError::Syntax);
        }
        match text {
            "" | "." | ".." => Err(NetnsError::Syntax),
            path if path.contains('/') => Ok(Self::Path(path.into())),
            name if name.starts_with("net:[") => Err(NetnsError::Syntax),
            name => Ok(Self::Name(name.to_owned())),
        }
    }
}

impl fmt::Display for NetnsSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Path(path) => path.display().fmt(f),
            Self::Inode(inode) => write!(f, "net:[{inode}]"),
        }
    }
}

impl NetnsSpec {
    /// Inode number of the namespace as of now.
    ///
    /// # Errors
    /// When there is no such namespace. An inode number is taken as it is: the kernel has no cheap way to look it up.
    pub fn resolve(&self) -> Result<u32, NetnsError> {
        match self {
            Self::Inode(inode) => Ok(*inode),
            Self::Path(path) => inode_of(path),
            Self::Name(name) => resolve_name(name, &FOLDERS.map(Path::new)),
        }
    }
}

/// Inode number of this process's own network namespace.
pub fn own() -> Result<u32, NetnsError> {
    inode_of(Path::new("/proc/self/ns/net"))
}

fn resolve_name(name: &str, folders: &[&Path]) -> Result<u32, NetnsError> {
    if let Some(path) = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists()) {
        return inode_of(&path);
    }
    let mut known: Vec<String> = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    known.sort();
    known.dedup();
    Err(NetnsError::NotFound { name: name.to_owned(), known })
}

fn inode_of(path: &Path) -> Result<u32, NetnsError> {
    let open = |source| NetnsError::Open { path: path.to_owned(), source };
    let other = || NetnsError::NotANamespace { path: path.to_owned() };
    // Looked at before it is opened: opening a pipe or a device can block or act.
    let metadata = fs::metadata(path).map_err(open)?;
    let own = fs::metadata("/proc/self/ns/net").map_err(open)?;
    if metadata.dev() != own.dev() {
        return Err(other()); // all namespaces live in one file system, nsfs, and nothing else does
    }
    let file = File::open(path).map_err(open)?;
    if !is_one(&file) {
        return Err(other()); // a mount or pid namespace has an inode in nsfs too, and would match nothing
    }
    let inode = file.metadata().map_err(open)?.ino();
    u32::try_from(inode).map_err(|_too_large| other())
}

/// Whether an open file is one of a network namespace.
pub fn is_one(file: &File) -> bool {
    namespace_type(file) == libc::CLONE_NEWNET
}

/// The network namespace that a socket is in.
///
/// # Errors
/// Without CAP_NET_ADMIN there, and for what is no socket.
pub fn of_socket(socket: &impl AsFd) -> io::Result<File> {
    /// linux/sockios.h; answers since Linux 4.10.
    const SIOCGSKNS: libc::Ioctl = 0x894c;
    // SAFETY: the descriptor is open for the whole call, and this request neither reads nor writes memory of ours.
    let file = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for this caller.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(file) }))
}

/// `CLONE_NEW…` of a namespace file, -1 for another file.
fn namespace_type(file: &File) -> libc::c_int {
    /// `_IO(0xb7, 3)` of linux/nsfs.h; answers since Linux 4.11.
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the descriptor is open for the whole call, and this request neither reads nor writes memory of ours.
    unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> NetnsSpec {
        text.parse().unwrap()
    }

    #[test]
    fn three_forms() {
        assert_eq!(spec("blue"), NetnsSpec::Name("blue".into()));
        assert_eq!(spec("/proc/1/ns/net"), NetnsSpec::Path("/proc/1/ns/net".into()));
        assert_eq!(spec("4026531840"), NetnsSpec::Inode(4_026_531_840));
        assert_eq!(spec("net:[4026531840]"), NetnsSpec::Inode(4_026_531_840));
        for text in ["", ".", "..", "0", "4294967296", "net:[]", "net:[x]", "net:[0]"] {
            assert!(matches!(text.parse::<NetnsSpec>(), Err(NetnsError::Syntax)), "{text}");
        }
        for text in ["blue", "/proc/1/ns/net", "net:[7]"] {
            assert_eq!(spec(text).to_string(), text);
        }
    }

    #[test]
    fn resolves_the_own_namespace_by_path() {
        let inode = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(u64::from(spec("/proc/self/ns/net").resolve().unwrap()), inode);
        assert_eq!(u64::from(own().unwrap()), inode);
    }

    #[test]
    fn refuses_what_is_no_network_namespace() {
        for path in ["/proc/self/ns/mnt", "/proc/self/ns/user", "/dev/null", "/proc/self/status", "/proc"] {
            assert!(matches!(spec(path).resolve(), Err(NetnsError::NotANamespace { .. })), "{path}");
        }
        let error = spec("/nowhere/net").resolve().unwrap_err().to_string();
        assert!(error.starts_with("cannot open /nowhere/net: "), "{error}");
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let folder = tempfile::tempdir().unwrap();
        let resolve = |name| resolve_name(name, &[folder.path(), Path::new("/nowhere")]).unwrap_err();
        assert!(resolve("blue").to_string().ends_with("holds none"));
        for name in ["red", "green"] {
            File::create(folder.path().join(name)).unwrap();
        }
        assert_eq!(resolve("blue").to_string(), "no network namespace has the name `blue`; known: green, red");
        // What `ip netns del` leaves behind when it cannot remove the file is a plain file.
        assert!(matches!(resolve("red"), NetnsError::NotANamespace { .. }));
    }
}
