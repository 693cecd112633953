//! Takes single files out of Debian's kernel packages.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use liblzma::read::XzDecoder;

use super::kernels::{Kernel, MODULES};

/// What booting a kernel takes.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) release: String,
    pub(super) image: Vec<u8>,
    /// Name and bytes, in the order of [`MODULES`].
    pub(super) modules: Vec<(&'static str, Vec<u8>)>,
}

impl Files {
    /// Reads the packages of a kernel.
    pub(super) fn read(kernel: &Kernel, packages: &[impl AsRef<Path>]) -> Result<Self> {
        let mut files = Self::default();
        for package in packages {
            let package = package.as_ref();
            let file = File::open(package).with_context(|| format!("cannot open {}", package.display()))?;
            files.take(BufReader::new(file)).with_context(|| format!("cannot unpack {}", package.display()))?;
        }
        if files.image.is_empty() {
            bail!("the packages of kernel {} hold no kernel image", kernel.name);
        }
        if !kernel.fits(&files.release) {
            bail!(
                "Debian's suite {} now has kernel {}, not {}: change the row",
                kernel.suite,
                files.release,
                kernel.name
            );
        }
        if let Some(missing) = MODULES.iter().find(|name| !files.modules.iter().any(|(found, _)| found == *name)) {
            bail!("the packages of kernel {} hold no module {missing}", files.release);
        }
        files.modules.sort_by_key(|(name, _)| MODULES.iter().position(|module| module == name));
        Ok(files)
    }

    fn take(&mut self, package: impl Read) -> Result<()> {
        let mut outer = ar::Archive::new(package);
        while let Some(member) = outer.next_entry() {
            let member = member?;
            let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
            match name.trim_end_matches('/') {
                "data.tar.xz" => return self.take_tar(XzDecoder::new(member)),
                other if other.starts_with("data.tar") => bail!("{other}: only xz, which Debian uses, is understood"),
                _ => {}
            }
        }
        bail!("no data.tar.xz in it");
    }

    fn take_tar(&mut self, tar: impl Read) -> Result<()> {
        for entry in tar::Archive::new(tar).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let Some(wanted) = path.to_str().and_then(Wanted::recognise) else { continue };
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            match wanted {
                Wanted::Image(release) => {
                    release.clone_into(&mut self.release);
                    self.image = bytes;
                }
                Wanted::Module(name) => self.modules.push((name, bytes)),
                Wanted::PackedModule(name) => {
                    let mut module = Vec::new();
                    XzDecoder::new(&*bytes)
                        .read_to_end(&mut module)
                        .with_context(|| format!("unpacking module {name}"))?;
                    self.modules.push((name, module));
                }
            }
        }
        Ok(())
    }
}

/// A file that is worth taking.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    /// The kernel of this release.
    Image(&'a str),
    Module(&'static str),
    /// The same, compressed by xz.
    PackedModule(&'static str),
}

impl<'a> Wanted<'a> {
    fn recognise(path: &'a str) -> Option<Self> {
        let path = path.trim_start_matches("./");
        if let Some(release) = path.strip_prefix("boot/vmlinuz-") {
            return Some(Self::Image(release));
        }
        let (release, inside) = path.trim_start_matches("usr/").strip_prefix("lib/modules/")?.split_once('/')?;
        if inside == "vmlinuz" {
            return Some(Self::Image(release)); // since 6.19
        }
        let file = inside.rsplit('/').next()?;
        let name = |ending: &str| {
            let name = file.strip_suffix(ending)?;
            MODULES.into_iter().find(|module| *module == name)
        };
        name(".ko").map(Self::Module).or_else(|| name(".ko.xz").map(Self::PackedModule))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::super::kernels;
    use super::*;

    #[test]
    fn files_are_found_where_old_and_new_packages_have_them() {
        let wanted = Wanted::recognise;
        assert_eq!(wanted("./boot/vmlinuz-5.10.0-32-cloud-amd64"), Some(Wanted::Image("5.10.0-32-cloud-amd64")));
        assert_eq!(
            wanted("./usr/lib/modules/7.3.4+deb13-cloud-amd64/vmlinuz"),
            Some(Wanted::Image("7.3.4+deb13-cloud-amd64"))
        );
        assert_eq!(wanted("./lib/modules/5.10.0/kernel/drivers/net/tun.ko"), Some(Wanted::Module("tun")));
        assert_eq!(wanted("./usr/lib/modules/7.3/kernel/drivers/net/tun.ko.xz"), Some(Wanted::PackedModule("tun")));
        assert_eq!(wanted("./lib/modules/5.10.0/kernel/net/ipv4/ip_tunnel.ko"), None);
        assert_eq!(wanted("./usr/share/doc/vmlinuz"), None);
    }

    /// A package as dpkg-deb makes it, with these files.
    fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, *bytes).unwrap();
        }
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(&tar.into_inner().unwrap()).unwrap();
        let data = xz.finish().unwrap();
        let mut ar = ar::Builder::new(Vec::new());
        for (name, bytes) in [("debian-binary", b"2.0\n".as_slice()), ("data.tar.xz", &data)] {
            ar.append(&ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64), bytes).unwrap();
        }
        ar.into_inner().unwrap()
    }

    #[test]
    fn a_kernel_is_put_together_from_its_packages() {
        let folder = std::env::temp_dir().join(format!("synfin-deb-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, bytes: Vec<u8>| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let binary =
            write("binary.deb", package(&[("usr/lib/modules/6.12.1/vmlinuz", b"kernel"), ("usr/share/doc/x", b"-")]));
        let module = |name: &str| (format!("lib/modules/6.12.1/kernel/net/{name}.ko"), name.as_bytes().to_vec());
        let held: Vec<_> = MODULES.into_iter().rev().map(module).collect();
        let held: Vec<(&str, &[u8])> = held.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        let modules = write("modules.deb", package(&held));
        let kernel = kernels::named("6.12").unwrap();
        let files = Files::read(kernel, &[&binary, &modules]).unwrap();
        assert_eq!((files.release.as_str(), files.image.as_slice()), ("6.12.1", b"kernel".as_slice()));
        assert_eq!(
            files.modules,
            MODULES.map(|name| (name, name.as_bytes().to_vec())),
            "in the order in which they load"
        );

        let error = |kernel, packages: &[&PathBuf]| format!("{:#}", Files::read(kernel, packages).unwrap_err());
        assert!(error(kernel, &[&binary]).contains("no module tun"));
        assert!(error(kernel, &[&modules]).contains("no kernel image"));
        assert!(error(kernels::named("6.1").unwrap(), &[&binary, &modules]).contains("6.12.1"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
