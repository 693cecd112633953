//! Classic tracepoints in tracefs: the number by which one is opened, and the layout of its record.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use synfin_common::knobs::ABSENT;
use synfin_common::layout::{Layout, RECORD_FIELDS};
use zerocopy::FromBytes as _;

use crate::lockdown;
use crate::mounts;

/// A tracefs, by its root folder.
#[derive(Debug)]
pub struct Tracefs {
    root: OwnedFd,
}

/// A tracepoint of tracefs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// Its number in this boot, for `perf_event_open`.
    pub id: u64,
    /// Where its fields lie.
    pub layout: Layout,
}

/// Why a tracepoint is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    /// It is not mounted, and this process may not mount it for itself.
    #[error(
        "tracefs is not mounted and cannot be mounted ({0}); `mount -t tracefs tracefs /sys/kernel/tracing`, or in a \
         container mount the host's /sys/kernel/tracing"
    )]
    NotMounted(io::Error),
    /// The kernel keeps it empty.
    #[error("tracefs is closed because the kernel is locked down (confidentiality): {}", lockdown::REMEDY)]
    Locked,
    /// The kernel has no such tracepoint.
    #[error("this kernel has no tracepoint {0}")]
    NoEvent(String),
    /// A file of it cannot be read.
    #[error("cannot read {file} in tracefs: {source}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file of it is not as expected.
    #[error("tracefs: {0} is not understood")]
    Malformed(String),
}

impl Tracefs {
    /// The tracefs of this kernel: mounted wherever, in debugfs, or mounted for this process alone, attached to no folder.
    ///
    /// # Errors
    /// When there is none and it cannot be mounted either.
    pub fn open() -> Result<Self, TracefsError> {
        let inside_debugfs = mounts::of_type("debugfs").into_iter().map(|point| point.join("tracing"));
        let mut folders = mounts::of_type("tracefs").into_iter().chain(inside_debugfs);
        if let Some(root) = folders.find_map(|folder| usable(&folder)) {
            return Ok(Self { root });
        }
        let root = mount().map_err(|error| TracefsError::NotMounted(error.into()))?;
        Ok(Self { root })
    }

    /// A tracepoint.
    ///
    /// # Errors
    /// When the kernel does not have it, or its files cannot be read.
    pub fn event(&self, category: &str, name: &str) -> Result<TraceEvent, TracefsError> {
        let id = self.read(category, name, "id")?;
        let id =
            id.trim().parse().map_err(|_number| TracefsError::Malformed(format!("{category}/{name}/id: {id:?}")))?;
        Ok(TraceEvent { id, layout: layout(&self.read(category, name, "format")?) })
    }

    fn read(&self, category: &str, name: &str, file: &str) -> Result<String, TracefsError> {
        let path = format!("events/{category}/{name}/{file}");
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied if lockdown::is_confidential() => {
                TracefsError::Locked
            }
            io::ErrorKind::NotFound => TracefsError::NoEvent(format!("{category}:{name}")),
            _ => TracefsError::Unreadable { file: path.clone(), source },
        };
        let open = openat(&self.root, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut text = String::new();
        File::from(open.map_err(|error| unreadable(error.into()))?).read_to_string(&mut text).map_err(unreadable)?;
        Ok(text)
    }
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::PATH).union(OFlags::CLOEXEC);

/// The folder, if it holds events that this process may read. A mount may be hidden below another, or be a stub.
fn usable(folder: &Path) -> Option<OwnedFd> {
    let root = openat(CWD, folder, FOLDER, Mode::empty()).ok()?;
    openat(&root, "events", OFlags::RDONLY | FOLDER, Mode::empty()).ok()?;
    Some(root)
}

/// A mount that no path leads to; it is gone when the descriptor is closed.
fn mount() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The layout out of a format file, whose lines are `field:TYPE NAME; offset:N; size:N; signed:N;`.
fn layout(format: &str) -> Layout {
    let mut offsets = [ABSENT; RECORD_FIELDS.len()];
    for (name, offset, size) in format.lines().filter_map(field) {
        if let Some(at) = RECORD_FIELDS.iter().position(|field| field.name == name && field.size == size) {
            offsets[at] = offset;
        }
    }
    let bytes: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_ne_bytes()).collect();
    // The lengths agree: both come from the same table, see the assertion in `layout`.
    Layout::read_from_bytes(&bytes).unwrap_or(Layout::NONE)
}

fn field(line: &str) -> Option<(&str, u32, u32)> {
    let mut parts = line.trim().split(';').map(str::trim);
    let declaration = parts.next()?.strip_prefix("field:")?;
    // `const void * skaddr`, `__u8 saddr[sizeof(struct sockaddr_in6)]`
    let name = declaration.split('[').next()?.rsplit([' ', '*']).next()?;
    let offset = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
    let size = parts.next()?.strip_prefix("size:")?.parse().ok()?;
    Some((name, offset, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.12 prints it.
    const SEND_RESET: &str = "\
name: tcp_send_reset
ID: 1234
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:const void * skbaddr;	offset:8;	size:8;	signed:0;
	field:const void * skaddr;	offset:16;	size:8;	signed:0;
	field:int state;	offset:24;	size:4;	signed:1;
	field:const enum sk_rst_reason reason;	offset:28;	size:4;	signed:0;
	field:__u8 saddr[sizeof(struct sockaddr_in6)];	offset:32;	size:28;	signed:0;
	field:__u8 daddr[sizeof(struct sockaddr_in6)];	offset:60;	size:28;	signed:0;

print fmt: \"skbaddr=%p\", REC->skbaddr; offset:1; size:2;
";

    /// As Linux 5.10 prints it: no family, other addresses.
    const SEND_RESET_5_10: &str = "\
	field:const void * skbaddr;	offset:8;	size:8;	signed:0;
	field:const void * skaddr;	offset:16;	size:8;	signed:0;
	field:int state;	offset:24;	size:4;	signed:1;
	field:__u16 sport;	offset:28;	size:2;	signed:0;
	field:__u16 dport;	offset:30;	size:2;	signed:0;
	field:__u8 saddr[4];	offset:32;	size:4;	signed:0;
	field:__u8 daddr[4];	offset:36;	size:4;	signed:0;
	field:__u8 saddr_v6[16];	offset:40;	size:16;	signed:0;
	field:__u8 daddr_v6[16];	offset:56;	size:16;	signed:0;
";

    #[test]
    fn layouts_of_several_kernels_are_read() {
        let new = layout(SEND_RESET);
        let wanted = Layout { skbaddr: 8, skaddr: 16, state: 24, reason: 28, saddr: 32, daddr: 60, ..Layout::NONE };
        assert_eq!(new, wanted);
        let old = layout(SEND_RESET_5_10);
        let wanted = Layout {
            skbaddr: 8,
            skaddr: 16,
            state: 24,
            sport: 28,
            dport: 30,
            saddr_v6: 40,
            daddr_v6: 56,
            ..Layout::NONE
        };
        assert_eq!(old, wanted);
    }

    #[test]
    fn what_is_no_format_has_no_fields() {
        for text in ["", "field:", "field:x;offset:1", "field:int state; offset:-1; size:4;", "\0\u{fffd};;;"] {
            assert_eq!(layout(text), Layout::NONE, "{text:?}");
        }
    }
}
