//! The user's cache folder: tools and downloads that every clone of synfin shares.

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cmd;

/// The cache folder: `$XDG_CACHE_HOME/synfin`, else `~/.cache/synfin`.
pub(crate) fn dir() -> Result<PathBuf> {
    let base = base(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"));
    let Some(base) = base else {
        bail!("neither XDG_CACHE_HOME nor HOME is an absolute path: set one, the build tools are kept below it");
    };
    Ok(base.join("synfin"))
}

/// The XDG rule: an empty or relative `XDG_CACHE_HOME` counts as unset.
fn base(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    xdg.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".cache")))
}

/// The folder whose programs the builds find first. agent/build.rs knows this path too.
pub(crate) fn bin() -> Result<PathBuf> {
    Ok(dir()?.join("bin"))
}

/// Makes the folder with its parents.
pub(crate) fn make(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))
}

/// Removes the folder with all that is in it; one that does not exist is removed already.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Points `link` at `target`, whatever was there, without a moment in which it is missing.
pub(crate) fn link(target: &Path, link: &Path) -> Result<()> {
    if std::fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    make(link.parent().context("a link needs a folder")?)?;
    let fresh = link.with_added_extension(format!("new-{}", std::process::id()));
    let done = std::os::unix::fs::symlink(target, &fresh).and_then(|()| std::fs::rename(&fresh, link));
    done.with_context(|| format!("cannot link {} to {}", link.display(), target.display()))
}

/// Waits until no other set-up works in the cache; the lock ends when the value is dropped.
pub(crate) fn lock() -> Result<File> {
    let dir = dir()?;
    make(&dir)?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        cmd::say("setup", format!("another set-up is at work in {}: waiting for it", dir.display()));
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xdg_wins_unless_empty_or_relative() {
        let home = || Some(OsString::from("/home/x"));
        assert_eq!(base(Some("/c".into()), home()), Some("/c".into()));
        assert_eq!(base(Some("".into()), home()), Some("/home/x/.cache".into()));
        assert_eq!(base(Some("rel".into()), home()), Some("/home/x/.cache".into()));
        assert_eq!(base(None, None), None);
    }

    #[test]
    fn a_link_is_made_changed_and_kept() {
        let dir = std::env::temp_dir().join(format!("synfin-link-{}", std::process::id()));
        let at = dir.join("bin/tool");
        for target in ["/a", "/b", "/b"] {
            link(Path::new(target), &at).unwrap();
            assert_eq!(std::fs::read_link(&at).unwrap(), Path::new(target));
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
