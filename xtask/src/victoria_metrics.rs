//! VictoriaMetrics, a backend that the tests send to and then ask: Debian's package, unpacked and not installed.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::apt;
use crate::cache;
use crate::cmd;

const PROGRAM: &str = "victoria-metrics";

/// What Debian's stable release has. It runs on older ones too; newer suites change theirs every few weeks.
const VERSION: &str = "1.112.0";
const SUITES: [&str; 1] = ["trixie"];

/// Where the tests look beside the PATH, below the work tree. tests/src/victoria_metrics.rs knows this path too.
const LINK: &str = "target/tools/victoria-metrics";

/// Fetches it once for all clones of synfin. One that is on the PATH is left alone and taken by the tests.
pub(crate) fn setup() -> Result<()> {
    if cmd::on_path(PROGRAM) {
        cmd::say("setup", format!("{PROGRAM}: present"));
        return Ok(());
    }
    let _alone = cache::lock()?;
    let home = cache::dir()?.join(format!("{PROGRAM}-{VERSION}"));
    let program = home.join("usr/bin").join(PROGRAM);
    if runs(&program) {
        cmd::say("setup", format!("{PROGRAM} {VERSION}: present"));
    } else {
        fetch(&home)?;
        if !runs(&program) {
            bail!(
                "{} was unpacked but does not run: remove {} and put {PROGRAM} on the PATH",
                program.display(),
                home.display()
            );
        }
    }
    cache::link(&program, &cmd::root().join(LINK))
}

/// Whether the program starts.
fn runs(program: &Path) -> bool {
    cmd::capture(cmd::command(program).arg("-version")).is_ok()
}

fn fetch(home: &Path) -> Result<()> {
    let fix = format!("the tests ask VictoriaMetrics what arrived: put the program {PROGRAM} on the PATH");
    if !apt::available() {
        bail!("{fix} (apt-get and dpkg, which would fetch it, are missing)");
    }
    let package = apt::fetch(PROGRAM, VERSION, &SUITES).context(fix)?;
    // Beside its place first: an interrupted unpacking must not look like a finished one.
    let part = home.with_added_extension("part");
    cache::remove(&part)?;
    cmd::capture(cmd::command("dpkg").arg("-x").arg(&package).arg(&part))?;
    cache::remove(home)?;
    std::fs::rename(&part, home).with_context(|| format!("cannot put {PROGRAM} at {}", home.display()))?;
    // The index and the package are not needed again.
    cache::remove(package.parent().context("a package is in a folder")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_look_where_the_link_is() {
        assert!(include_str!("../../tests/src/victoria_metrics.rs").contains(&format!("\"../{LINK}\"")));
    }
}
