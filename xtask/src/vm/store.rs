//! Kernel packages in the user's cache: looked up in Debian's index, fetched, and held against its sums at each use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::index::{Stanza, holds_kernel};
use super::kernels::{Kernel, PACKAGE};
use crate::apt;
use crate::apt::Archive;
use crate::cache;
use crate::cmd;

/// How long a look into the index is good for. The fixed suites change every few weeks.
const FRESH: Duration = Duration::from_hours(7 * 24);

/// A package file, as the index described it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    file: String,
    sha256: String,
}

/// The files of one kernel, each with the sum that the index gave.
pub(super) fn packages(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let folder = cache::dir()?.join("kernels").join(kernel.name);
    cache::make(&folder)?;
    let list = folder.join("packages.json");
    let stored = read(&list).and_then(|stored| verify(&folder, &stored).map(|()| stored));
    let fresh =
        list.metadata().and_then(|list| list.modified()).is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH));
    let stored = match stored {
        Ok(stored) if fresh => stored,
        old => match fetch(kernel, &folder) {
            Ok(stored) => {
                write(&list, &stored)?;
                stored
            }
            Err(error) => {
                // A kernel of last week is a kernel; the mirror may be back tomorrow.
                let Ok(stored) = old else { return Err(error) };
                cmd::say("vm", format!("{}: {error:#}; going on with what was fetched before", kernel.name));
                stored
            }
        },
    };
    Ok(stored.iter().map(|stored| folder.join(&stored.file)).collect())
}

fn fetch(kernel: &Kernel, folder: &Path) -> Result<Vec<Stored>> {
    if !apt::available() {
        bail!("the kernels of the matrix are Debian's packages: apt-get and dpkg are needed to fetch them");
    }
    let _alone = cache::lock()?;
    let mut tried = Vec::new();
    for source in &apt::sources()? {
        cmd::say("vm", format!("{}: looking in Debian's suite {}", kernel.name, kernel.suite));
        match Archive::open(source, kernel.suite).and_then(|archive| fetch_from(archive, folder)) {
            Ok(stored) => return Ok(stored),
            Err(error) => tried.push(format!("{error:#}")),
        }
    }
    bail!("the kernel of Debian's suite {} cannot be had: {}", kernel.suite, tried.join("; "));
}

fn fetch_from(archive: Archive, folder: &Path) -> Result<Vec<Stored>> {
    let mut stored = Vec::new();
    for stanza in with_dependencies(|package| Stanza::parse(&archive.show(package)?))? {
        let one = Stored { file: stanza.file, sha256: stanza.sha256 };
        if verify(folder, std::slice::from_ref(&one)).is_err() {
            cmd::say("vm", format!("{} {}: fetching", stanza.package, stanza.version));
            let path = folder.join(&one.file);
            // There is nothing to complete.
            if path.metadata().is_ok_and(|file| file.len() >= stanza.size) {
                cmd::say("vm", format!("{}: is not what the index says: thrown away", one.file));
                std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
            archive.download(&stanza.package, &stanza.version, &path)?;
            verify(folder, std::slice::from_ref(&one))?;
        }
        stored.push(one);
    }
    archive.close()?;
    prune(folder, &stored)?;
    Ok(stored)
}

/// Removes the packages of earlier kernels.
fn prune(folder: &Path, stored: &[Stored]) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let known = stored.iter().any(|one| path.ends_with(&one.file));
        if !known && path.extension().is_some_and(|ending| ending == "deb") {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The packages that hold the kernel: what [`PACKAGE`] leads to.
fn with_dependencies(look: impl Fn(&str) -> Result<Stanza>) -> Result<Vec<Stanza>> {
    let mut found: Vec<Stanza> = Vec::new();
    let mut wanted = vec![PACKAGE.to_owned()];
    while let Some(package) = wanted.pop() {
        if found.iter().any(|stanza| stanza.package == package) {
            continue;
        }
        let stanza = look(&package).with_context(|| format!("looking for {package}"))?;
        wanted.extend(stanza.depends.iter().filter(|package| holds_kernel(package)).cloned());
        found.push(stanza);
    }
    // It holds nothing itself.
    found.retain(|stanza| stanza.package != PACKAGE);
    Ok(found)
}

/// Fails unless each file is there with its sum.
fn verify(folder: &Path, stored: &[Stored]) -> Result<()> {
    for Stored { file, sha256 } in stored {
        let path = folder.join(file);
        let sum = sum(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if sum != *sha256 {
            bail!(
                "{} has the SHA-256 {sum}, the package index says {sha256}: remove the file and try again",
                path.display()
            );
        }
    }
    Ok(())
}

fn sum(path: &Path) -> std::io::Result<String> {
    // Some 30 MB: less than what unpacking it takes.
    let sum = Sha256::digest(std::fs::read(path)?);
    Ok(sum.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")))
}

fn read(list: &Path) -> Result<Vec<Stored>> {
    let list: Value = serde_json::from_slice(&std::fs::read(list)?)?;
    let text =
        |row: &Value, key: &str| row[key].as_str().map(str::to_owned).with_context(|| format!("a row has no {key}"));
    let rows = list.as_array().context("the list of packages is an array")?;
    rows.iter().map(|row| Ok(Stored { file: text(row, "file")?, sha256: text(row, "sha256")? })).collect()
}

fn write(list: &Path, stored: &[Stored]) -> Result<()> {
    let rows: Vec<Value> = stored.iter().map(|one| json!({"file": one.file, "sha256": one.sha256})).collect();
    std::fs::write(list, Value::from(rows).to_string()).with_context(|| format!("cannot write {}", list.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(package: &str, depends: &[&str]) -> Stanza {
        let file = format!("{package}.deb");
        let depends = depends.iter().map(ToString::to_string).collect();
        Stanza { package: package.to_owned(), version: "1".to_owned(), sha256: String::new(), size: 0, file, depends }
    }

    #[test]
    fn the_kernel_is_followed_through_its_packages() {
        let look = |package: &str| {
            Ok(match package {
                PACKAGE => stanza(PACKAGE, &["linux-image-7.3", "linux-base"]),
                "linux-image-7.3" => stanza(package, &["linux-binary-7.3", "linux-modules-7.3", "kmod"]),
                "linux-binary-7.3" => stanza(package, &["linux-modules-7.3"]),
                "linux-modules-7.3" => stanza(package, &[]),
                other => bail!("nobody asked for {other}"),
            })
        };
        let mut names: Vec<_> = with_dependencies(look).unwrap().into_iter().map(|stanza| stanza.package).collect();
        names.sort();
        assert_eq!(names, ["linux-binary-7.3", "linux-image-7.3", "linux-modules-7.3"]);
    }

    #[test]
    fn a_file_that_is_not_what_the_index_says_is_refused() {
        let folder = std::env::temp_dir().join(format!("synfin-store-{}", std::process::id()));
        cache::make(&folder).unwrap();
        std::fs::write(folder.join("a.deb"), "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let right = [Stored { file: "a.deb".to_owned(), sha256: abc.to_owned() }];
        verify(&folder, &right).unwrap();
        write(&folder.join("list"), &right).unwrap();
        assert_eq!(read(&folder.join("list")).unwrap(), right);
        std::fs::write(folder.join("b.deb"), "of an earlier kernel").unwrap();
        prune(&folder, &right).unwrap();
        assert!(folder.join("a.deb").exists() && folder.join("list").exists() && !folder.join("b.deb").exists());
        std::fs::write(folder.join("a.deb"), "ab").unwrap();
        let error = verify(&folder, &right).unwrap_err().to_string();
        assert!(error.contains(abc) && error.contains("remove"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
