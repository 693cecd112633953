//! A private apt configuration: fetches packages of other Debian suites without touching the machine's own apt.
//!
//! The mirror is the one that the machine already uses, with the keys that it already trusts.

mod part;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cache;
use crate::cmd;
use part::Remote;

/// One of the machine's own package sources, reduced to what a private copy needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    /// The field as it stands, continuation lines included: a path, fingerprints or a whole key.
    signed_by: Option<String>,
}

/// Whether this machine has Debian's tools.
pub(crate) fn available() -> bool {
    cmd::on_path("apt-get") && cmd::on_path("dpkg")
}

/// The sources of the machine's distribution (not its security updates, not third parties).
fn machine_sources() -> Vec<Source> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let parts = std::fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten();
    let mut parts: Vec<PathBuf> = parts.filter_map(|entry| Some(entry.ok()?.path())).collect();
    parts.sort();
    files.append(&mut parts);

    let mut found = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("sources") => found.extend(parse_deb822(&text)),
            Some("list") => found.extend(text.lines().filter_map(parse_one_line)),
            _ => {}
        }
    }
    found.retain(Source::is_main_archive);
    found.dedup_by(|one, other| one.uri == other.uri);
    found
}

impl Source {
    /// Third parties name their suites by a path or have no component `main`; security archives hold no backports.
    fn is_main_archive(&self) -> bool {
        let usual = |suite: &String| !suite.contains('/') && !suite.ends_with("-security");
        self.components.iter().any(|component| component == "main") && self.suites.iter().any(usual)
    }

    /// The same mirror and keys for another suite, as a deb822 stanza.
    fn stanza(&self, suite: &str) -> String {
        let mut text = format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n", self.uri);
        if let Some(keys) = &self.signed_by {
            text.extend(["Signed-By: ", keys, "\n"]);
        }
        text
    }
}

/// Reads a `*.sources` file: stanzas of `Field: value`, continued by indented lines.
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for stanza in text.split("\n\n") {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza.lines().filter(|line| !line.starts_with('#')) {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        let words =
            |name: &str| field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if field("enabled") == Some("no") || !words("types").iter().any(|kind| kind == "deb") {
            continue;
        }
        found.extend(words("uris").into_iter().map(|uri| Source {
            uri,
            suites: words("suites"),
            components: words("components"),
            signed_by: field("signed-by").map(str::to_owned),
        }));
    }
    found
}

/// Reads a line of a `*.list` file: `deb [signed-by=… arch=…] URI SUITE COMPONENT…`.
fn parse_one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uri: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: signed_by.map(|keys| keys.replace(',', " ")),
    })
}

/// Fetches the package whose version begins with `version` followed by `+` or `-`, from the first of `suites` that has it.
pub(crate) fn fetch(package: &str, version: &str, suites: &[&str]) -> Result<PathBuf> {
    let mut tried = Vec::new();
    for suite in suites {
        for source in &sources()? {
            match fetch_from(source, suite, package, version) {
                Ok(Some(file)) => return Ok(file),
                Ok(None) => tried.push(format!("{suite}: has another version")),
                Err(error) => tried.push(format!("{suite}: {error:#}")),
            }
        }
    }
    bail!("no suite has {package} {version}:\n  {}", tried.join("\n  "));
}

fn fetch_from(source: &Source, suite: &str, package: &str, version: &str) -> Result<Option<PathBuf>> {
    cmd::say("setup", format!("{package} {version}: looking in Debian's suite {suite}"));
    let archive = Archive::open(source, suite)?;
    let offers = cmd::capture(private("apt-cache", &archive.home).args(["madison", package]))?;
    let Some(exact) = choose_version(&offers, version) else { return Ok(None) };
    cmd::say("setup", format!("{package} {exact}: fetching"));
    let file = archive.home.join(format!("{package}.deb"));
    archive.download(package, &exact, &file)?;
    Ok(Some(file))
}

/// The machine's sources, of which there must be one.
pub(crate) fn sources() -> Result<Vec<Source>> {
    let sources = machine_sources();
    if sources.is_empty() {
        bail!(
            "no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d: add one with the component `main`"
        );
    }
    Ok(sources)
}

/// The package index of one suite, freshly fetched into a folder of its own.
pub(crate) struct Archive {
    home: PathBuf,
}

impl Archive {
    /// Fetches the index; apt checks its signature.
    pub(crate) fn open(source: &Source, suite: &str) -> Result<Self> {
        let home = cache::dir()?.join("apt").join(suite);
        cache::remove(&home)?;
        for folder in ["lists/partial", "cache/archives/partial"] {
            cache::make(&home.join(folder))?;
        }
        let list = home.join("suite.sources");
        std::fs::write(&list, source.stanza(suite)).with_context(|| format!("cannot write {}", list.display()))?;
        cmd::capture(private("apt-get", &home).args(["update", "-o", "APT::Update::Error-Mode=any"]))?;
        Ok(Self { home })
    }

    /// What the index says of the newest version of a package.
    pub(crate) fn show(&self, package: &str) -> Result<String> {
        cmd::capture(private("apt-cache", &self.home).args(["show", "--no-all-versions", package]))
    }

    /// The newest version of a package.
    pub(crate) fn version(&self, package: &str) -> Result<String> {
        let shown = self.show(package)?;
        let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
        Ok(version.with_context(|| format!("the package index has no version of {package}"))?.trim().to_owned())
    }

    /// These packages and all that they depend on, by name, each once; of alternatives all.
    pub(crate) fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut depends = private("apt-cache", &self.home);
        depends.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
        depends.args(["--no-replaces", "--no-enhances"]).args(packages);
        Ok(names_of_closure(&cmd::capture(&mut depends)?))
    }

    /// Fetches package files in their newest versions into `folder`; apt compares them with the index.
    pub(crate) fn download_all(&self, packages: &[String], folder: &Path) -> Result<()> {
        cache::make(folder)?;
        let mut download = private("apt-get", &self.home);
        download.args(["download", "--quiet", "-o", "Acquire::Retries=3"]).args(packages).current_dir(folder);
        cmd::capture(&mut download).map(drop)
    }

    /// Puts a package file at `path`; one that is there in part is completed.
    pub(crate) fn download(&self, package: &str, version: &str, path: &Path) -> Result<()> {
        let exact = format!("{package}={version}");
        let uris = cmd::capture(private("apt-get", &self.home).args(["download", "--print-uris", &exact]))?;
        Remote::parse(&uris)?.complete(path, &self.home)
    }

    /// Forgets the index, which is large and soon old.
    pub(crate) fn close(self) -> Result<()> {
        cache::remove(&self.home)
    }
}

/// An apt program that reads and writes only below `home`.
fn private(program: &str, home: &Path) -> Command {
    let mut command = cmd::command(program);
    let mut option = |key: &str, value: &Path| {
        command.arg("-o").arg(format!("{key}={}", value.display()));
    };
    option("Dir::Etc::SourceList", &home.join("suite.sources"));
    option("Dir::Etc::SourceParts", Path::new("/dev/null"));
    option("Dir::State::Lists", &home.join("lists"));
    option("Dir::Cache", &home.join("cache"));
    // apt's own unprivileged user could not enter a private cache folder.
    option("APT::Sandbox::User", Path::new("root"));
    // A mirror on this machine is not behind a proxy.
    option("Acquire::http::Proxy::127.0.0.1", Path::new("DIRECT"));
    option("Acquire::Languages", Path::new("none"));
    command
}

/// The version out of `apt-cache madison` (`package | version | source`) that is upstream's `version`.
fn choose_version(madison: &str, version: &str) -> Option<String> {
    let offers = madison.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    let same = |offer: &&str| offer.strip_prefix(version).is_some_and(|rest| rest.starts_with(['+', '-']));
    offers.into_iter().find(same).map(str::to_owned)
}

/// The names out of `apt-cache depends --recurse`: packages stand at the beginning of a line, virtual ones in angle brackets.
fn names_of_closure(depends: &str) -> Vec<String> {
    let packages = depends.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_alphanumeric()));
    // `name:architecture` is a package of another architecture.
    let mut names: Vec<_> = packages.map(str::trim_end).filter(|name| !name.contains(':')).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
        Components: main\nSigned-By: /usr/share/keyrings/k.gpg\n\nTypes: deb\nURIs: http://mirror.example/sec\n\
        Suites: bookworm-security\nComponents: main\n\nEnabled: no\nTypes: deb\nURIs: http://off.example\nSuites: x\nComponents: main\n\n\
        Types: deb-src\nURIs: http://src.example\nSuites: x\nComponents: main\n";

    #[test]
    fn deb822_sources_are_read_and_chosen() {
        let mut found = parse_deb822(DEB822);
        assert_eq!(found.len(), 2);
        found.retain(Source::is_main_archive);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].stanza("sid"),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: sid\nComponents: main\nSigned-By: /usr/share/keyrings/k.gpg\n"
        );
    }

    #[test]
    fn an_embedded_key_is_carried_over_whole() {
        let text = "Types: deb\nURIs: http://m.example\nSuites: s\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n -----END\n";
        let stanza = parse_deb822(text)[0].stanza("sid");
        assert!(stanza.ends_with("Signed-By: \n -----BEGIN\n .\n abc\n -----END\n"), "{stanza}");
    }

    #[test]
    fn one_line_sources_are_read() {
        let source = parse_one_line(
            "deb [arch=amd64 signed-by=/k.gpg,/l.gpg] http://m.example/debian bookworm main contrib # x",
        )
        .unwrap();
        assert!(source.is_main_archive());
        assert_eq!(source.uri, "http://m.example/debian");
        assert_eq!(source.signed_by.as_deref(), Some("/k.gpg /l.gpg"));
        assert_eq!(parse_one_line("# deb http://m.example bookworm main"), None);
        assert_eq!(parse_one_line("deb-src http://m.example bookworm main"), None);
        assert!(!parse_one_line("deb http://third.example ./").unwrap().is_main_archive());
    }

    #[test]
    fn only_the_same_upstream_version_fits() {
        let madison =
            " rust-src | 1.95.01-1 | http://x\n rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://x trixie-backports/main\n";
        assert_eq!(choose_version(madison, "1.95.0").as_deref(), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(choose_version(madison, "1.94.0"), None);
    }

    #[test]
    fn a_closure_has_each_real_package_once() {
        let depends = "golang-b-dev\n  Depends: golang-a-dev\n |Depends: <golang-yaml.v2-dev>\n    golang-gopkg-yaml.v2-dev\n\
            golang-a-dev\n<golang-yaml.v2-dev>\nlibc6\nlibc6:i386\ngolang-gopkg-yaml.v2-dev\ngolang-a-dev\n";
        assert_eq!(names_of_closure(depends), ["golang-a-dev", "golang-b-dev", "golang-gopkg-yaml.v2-dev", "libc6"]);
    }
}
