//! Go out of Debian's packages: which of them it takes, and a build that knows nothing else of this machine.

use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::cache;
use crate::cmd;

/// Where the packages are to be unpacked, below the workshop.
pub(super) const ROOT: &str = "root";

/// For any machine of this architecture, at most two compilers at once.
const FLAGS: [&str; 3] = ["-p=2", "-trimpath", "-buildvcs=false"];

#[rustfmt::skip] // one row, one reason
const SETTINGS: [(&str, &str); 8] = [
    ("GO111MODULE", "off"),    // Debian's sources are a GOPATH
    ("CGO_ENABLED", "0"),      // no C compiler, and no libc of another suite
    ("GOENV", "off"),          // the user's own settings
    ("GOTOOLCHAIN", "local"),
    ("GOPROXY", "off"),
    ("GOTELEMETRY", "off"),
    ("GOMAXPROCS", "2"),
    ("GOMEMLIMIT", "1GiB"),    // of each compiler, and of the linker; half of it was seen
];

/// How a program is built, in short: with another source or other settings it is another one.
pub(super) fn recipe(main: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(main);
    hash.update(FLAGS.join(" "));
    for (name, value) in SETTINGS {
        hash.update(format!("\n{name}={value}"));
    }
    hash.finalize().iter().take(4).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Go's sources and compilers; what else is in a closure is for installed systems.
pub(super) fn wanted(package: &str) -> bool {
    let sources = package.starts_with("golang-") && package.ends_with("-dev");
    let compiler = |name: &str| go_of(name, "-go").or_else(|| go_of(name, "-src")).is_some();
    sources || compiler(package)
}

/// The version in `golang-1.27-go`.
fn go_of<'a>(package: &'a str, ending: &str) -> Option<&'a str> {
    let version = package.strip_prefix("golang-")?.strip_suffix(ending)?;
    version.split('.').all(|part| part.parse::<u32>().is_ok()).then_some(version)
}

/// Of these packages.
pub(super) fn newest(packages: &[String]) -> Option<&str> {
    let numbers =
        |version: &&str| version.split('.').map(|part| part.parse().unwrap_or_default()).collect::<Vec<u32>>();
    packages.iter().filter_map(|package| go_of(package, "-go")).max_by_key(numbers)
}

/// Builds `main` with what was unpacked in the workshop, and leaves nothing outside of it but the program.
pub(super) fn build(workshop: &Path, go: &str, main: &str, version: &str, program: &Path) -> Result<()> {
    let root = workshop.join(ROOT);
    let [gopath, home, cache, scratch] = ["gopath", "home", "go-cache", "go-tmp"].map(|name| workshop.join(name));
    for folder in [&gopath, &home, &cache, &scratch] {
        cache::make(folder)?;
    }
    cache::link(&root.join("usr/share/gocode/src"), &gopath.join("src"))?;
    let source = home.join("main.go");
    std::fs::write(&source, main).with_context(|| format!("cannot write {}", source.display()))?;

    let goroot = root.join(format!("usr/lib/go-{go}"));
    let mut build = cmd::command("nice");
    build.args(["-n", "10"]).arg(goroot.join("bin/go")).arg("build").args(FLAGS);
    build.args(["-ldflags", &format!("-s -w -X main.version={version}")]).arg("-o").arg(program).arg(&source);
    build.current_dir(&home).env_clear().envs(SETTINGS);
    build.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let folders =
        [("GOROOT", &goroot), ("GOPATH", &gopath), ("HOME", &home), ("GOCACHE", &cache), ("GOTMPDIR", &scratch)];
    build.envs(folders);
    cmd::capture(&mut build).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_compilers_are_wanted() {
        for package in ["golang-opentelemetry-collector-dev", "golang-1.27-go", "golang-1.27-src"] {
            assert!(wanted(package), "{package}");
        }
        for package in ["golang-go", "golang-src", "golang-golang-x-tools", "libc6-dev", "golang-1.27-doc"] {
            assert!(!wanted(package), "{package}");
        }
    }

    #[test]
    fn the_newest_compiler_is_taken() {
        let packages = ["golang-1.9-go", "golang-1.27-go", "golang-1.26-go", "golang-go"].map(str::to_owned);
        assert_eq!(newest(&packages), Some("1.27"));
        assert_eq!(newest(&[]), None);
    }

    #[test]
    fn another_source_is_another_recipe() {
        assert_eq!((recipe("one").len(), recipe("one")), (8, recipe("one")));
        assert_ne!(recipe("one"), recipe("another"));
    }
}
