//! OpenTelemetry's Collector, which most agents send to: built out of Debian's packages of Go and Go sources, none of which is installed.

mod go;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::apt;
use crate::apt::Archive;
use crate::cache;
use crate::cmd;

/// Its name, for people.
pub(crate) const WHAT: &str = "OpenTelemetry Collector";

/// What the names of its tests begin with, so that they can be left out where it cannot be had.
pub(crate) const TESTS: &str = "through_a_collector";

const PROGRAM: &str = "otelcol";

/// Which suites have its sources, the most settled first.
const SUITES: [&str; 2] = ["forky", "sid"];
const SOURCES: &str = "golang-opentelemetry-collector-dev";
/// Leads to the Go that the suite's sources are built with.
const GO: &str = "golang-go";

/// The program around the library: which components it has.
const MAIN: &str = include_str!("collector/main.go");

/// Where the tests look beside the PATH, below the work tree. tests/src/collector.rs knows this path too.
const LINK: &str = "target/tools/otelcol";

/// Builds it once for all clones of synfin. One that is on the PATH is left alone and taken by the tests.
pub(crate) fn setup() -> Result<()> {
    if cmd::on_path(PROGRAM) {
        cmd::say("setup", format!("{PROGRAM}: present"));
        return Ok(());
    }
    let _alone = cache::lock()?;
    let (cache, recipe) = (cache::dir()?, go::recipe(MAIN));
    // The suites move on; what was built from what they had stays good.
    let home = match present(&cache, &recipe) {
        Some(home) => {
            cmd::say("setup", format!("{}: present", shown(&home)));
            home
        }
        None => from_debian(&cache, &recipe)
            .with_context(|| format!("put the program {PROGRAM} on the PATH, or let this machine build it"))?,
    };
    cache::link(&home.join(PROGRAM), &cmd::root().join(LINK))
}

/// One that was built by this recipe and runs.
fn present(cache: &Path, recipe: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(cache).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("{PROGRAM}-")) && name.ends_with(&format!("-{recipe}"))
    };
    entries.filter(ours).filter(|home| runs(&home.join(PROGRAM))).max()
}

/// Whether the program starts.
fn runs(program: &Path) -> bool {
    cmd::capture(cmd::command(program).arg("--version")).is_ok()
}

fn shown(home: &Path) -> String {
    home.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Out of the first suite from which it can be built.
fn from_debian(cache: &Path, recipe: &str) -> Result<PathBuf> {
    if !apt::available() {
        bail!("apt-get and dpkg, which would fetch its sources, are missing");
    }
    let workshop = cache.join(format!("{PROGRAM}.part"));
    let mut tried = Vec::new();
    for suite in SUITES {
        for source in &apt::sources()? {
            cache::remove(&workshop)?;
            let built = Archive::open(source, suite).and_then(|archive| {
                let built = build(&archive, suite, &workshop, recipe);
                archive.close()?;
                built
            });
            // Gigabytes, done or not.
            let cleared = cache::remove(&workshop);
            match built {
                Ok(home) => return cleared.map(|()| home),
                Err(error) => {
                    cmd::say("setup", format!("{PROGRAM}: not out of {suite}: {error:#}"));
                    tried.push(format!("{suite}: {error:#}"));
                }
            }
        }
    }
    bail!("no suite has what it takes:\n  {}", tried.join("\n  "));
}

/// Fetches, unpacks and builds in the workshop; only the program and the list of what it was built from leave it.
fn build(archive: &Archive, suite: &str, workshop: &Path, recipe: &str) -> Result<PathBuf> {
    let version = archive.version(SOURCES)?;
    let packages: Vec<String> = archive.closure(&[SOURCES, GO])?.into_iter().filter(|name| go::wanted(name)).collect();
    let go = go::newest(&packages).with_context(|| format!("{GO} of {suite} leads to no compiler"))?;
    cmd::say("setup", format!("{PROGRAM} {version}: fetching {} packages (250 MB) of {suite}", packages.len()));
    let fetched = workshop.join("packages");
    archive.download_all(&packages, &fetched)?;
    let built_from = unpack(&fetched, &workshop.join(go::ROOT))?;

    cmd::say("setup", format!("{PROGRAM} {version}: building with Go {go} on at most two CPUs (some two minutes)"));
    let result = workshop.join("result");
    let program = result.join(PROGRAM);
    cache::make(&result)?;
    go::build(workshop, go, MAIN, &version, &program)?;
    if !runs(&program) {
        bail!("it was built, yet `{} --version` fails", program.display());
    }
    let list = result.join("built-from");
    std::fs::write(&list, built_from).with_context(|| format!("cannot write {}", list.display()))?;

    let compiler = archive.version(&format!("golang-{go}-go"))?;
    let home = workshop.with_file_name(folder(&version, &compiler, recipe));
    // One that is there does not run, or it would have been taken.
    cache::remove(&home)?;
    std::fs::rename(&result, &home).with_context(|| format!("cannot put {PROGRAM} at {}", home.display()))?;
    cmd::say("setup", format!("{}: built", shown(&home)));
    Ok(home)
}

/// The name of its folder says what it was built from.
fn folder(version: &str, compiler: &str, recipe: &str) -> String {
    let name = format!("{PROGRAM}-{version}-go-{compiler}-{recipe}");
    name.replace(|letter: char| !(letter.is_ascii_alphanumeric() || ".+-~".contains(letter)), "_")
}

/// Unpacks every package and throws it away; gives their names, a line each.
fn unpack(packages: &Path, root: &Path) -> Result<String> {
    let entries = std::fs::read_dir(packages).with_context(|| format!("cannot list {}", packages.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    let mut names = String::new();
    for file in files {
        cmd::capture(cmd::command("dpkg").arg("-x").arg(&file).arg(root))?;
        writeln!(names, "{}", file.file_name().unwrap_or_default().to_string_lossy())?;
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_look_where_the_link_is() {
        assert!(include_str!("../../tests/src/collector.rs").contains(&format!("\"../{LINK}\"")));
    }

    #[test]
    fn its_tests_can_be_left_out_by_name() {
        let text = include_str!("../../tests/tests/collector.rs");
        let names: Vec<_> = text.split("#[test]\nfn ").skip(1).collect();
        assert!(!names.is_empty() && names.len() == text.matches("#[test]").count());
        assert!(names.iter().all(|name| name.starts_with(TESTS)), "each test's name begins with {TESTS}");
    }

    #[test]
    fn what_was_built_by_this_recipe_is_found() {
        let cache = std::env::temp_dir().join(format!("synfin-otelcol-{}", std::process::id()));
        let made = |name: &str, program: &str| {
            let home = cache.join(name);
            std::fs::create_dir_all(&home).unwrap();
            std::os::unix::fs::symlink(program, home.join(PROGRAM)).unwrap();
            home
        };
        let name = |version: &str, recipe: &str| folder(version, "1.27.1-1", recipe);
        assert_eq!(present(&cache, "cafe"), None);
        made(&name("0.9", "beef"), "/bin/true");
        made(&name("0.152", "cafe"), "/bin/false"); // does not run
        assert_eq!(present(&cache, "cafe"), None);
        let right = made(&name("0.141", "cafe"), "/bin/true");
        assert_eq!(present(&cache, "cafe"), Some(right));
        std::fs::remove_dir_all(cache).unwrap();
    }

    #[test]
    fn a_version_makes_a_name_of_a_folder() {
        assert_eq!(folder("2:0.141.0~rc1-2", "1.27.1-1", "cafe"), "otelcol-2_0.141.0~rc1-2-go-1.27.1-1-cafe");
    }
}
