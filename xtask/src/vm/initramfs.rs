//! The whole file system of a virtual machine, as the archive that a kernel unpacks into memory.

use std::collections::BTreeSet;
use std::io::{Seek, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use cpio::newc::{self, ModeFileType};

use crate::cmd;

/// An initramfs that is being written.
pub(super) struct Initramfs<W> {
    out: W,
    folders: BTreeSet<String>,
    inode: u32,
}

impl<W: Write + Seek> Initramfs<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, folders: BTreeSet::new(), inode: 0 }
    }

    /// Adds a file and the folders above it; everything may be executed.
    pub(super) fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            let folder = &path[..end];
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, ModeFileType::Directory, &[])?;
            }
        }
        self.entry(path, ModeFileType::Regular, bytes)
    }

    /// Adds a file of this machine.
    pub(super) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let bytes = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(path, &bytes)
    }

    /// Adds a program of this machine with the shared libraries that it starts with, each at its own path.
    pub(super) fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        self.copy(path, from)?;
        for library in libraries(&cmd::capture(cmd::command("ldd").arg(from))?) {
            if self.folders.insert(library.clone()) {
                self.copy(&library, Path::new(&library))?;
            }
        }
        Ok(())
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> Result<W> {
        newc::trailer(self.out).context("cannot end the initramfs")
    }

    fn entry(&mut self, path: &str, kind: ModeFileType, bytes: &[u8]) -> Result<()> {
        // The kernel takes files of one inode for hard links.
        self.inode += 1;
        let entry = newc::Builder::new(path).ino(self.inode).mode(0o755).nlink(1).set_mode_file_type(kind);
        let size = u32::try_from(bytes.len()).with_context(|| format!("{path} is too large for an initramfs"))?;
        let mut entry = entry.write(&mut self.out, size);
        entry.write_all(bytes).and_then(|()| entry.finish()).with_context(|| format!("cannot add {path}"))?;
        Ok(())
    }
}

/// The paths out of ldd's lines: `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries(ldd: &str) -> Vec<String> {
    let path = |line: &str| {
        let path = line.rsplit("=> ").next()?.trim().split(" (").next()?;
        path.starts_with('/').then(|| path.to_owned())
    };
    ldd.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read as _};

    use super::*;

    #[test]
    fn files_come_back_after_their_folders() {
        let mut initramfs = Initramfs::new(Cursor::new(Vec::new()));
        initramfs.file("/init", b"first").unwrap();
        initramfs.file("/test/deps/transitions", b"second, longer").unwrap();
        initramfs.file("/test/peer", b"third").unwrap();
        let mut archive = Cursor::new(initramfs.finish().unwrap().into_inner());

        let mut found = Vec::new();
        let mut inodes = BTreeSet::new();
        loop {
            let mut reader = newc::Reader::new(archive).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert!(inodes.insert(reader.entry().ino()), "two files with one inode are links");
            found.push((reader.entry().name().to_owned(), reader.entry().mode(), text));
            archive = reader.finish().unwrap();
        }
        let (folder, file) = (0o040_755, 0o100_755);
        let expected = [
            ("init", file, "first"),
            ("test", folder, ""),
            ("test/deps", folder, ""),
            ("test/deps/transitions", file, "second, longer"),
            ("test/peer", file, "third"),
        ];
        assert_eq!(found, expected.map(|(name, mode, text)| (name.to_owned(), mode, text.to_owned())));
    }

    #[test]
    fn libraries_are_those_with_a_path() {
        let ldd = "\tlinux-vdso.so.1 (0x00007)\n\tlibmnl.so.0 => /lib/x/libmnl.so.0 (0x01)\n\t/lib64/ld-linux-x86-64.so.2 (0x02)\n";
        assert_eq!(libraries(ldd), ["/lib/x/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(libraries("\tstatically linked\n"), Vec::<String>::new());
    }
}
