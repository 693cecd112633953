//! Reads what a package index says of a package.

use anyhow::{Context as _, Result};

/// One stanza of an index, reduced to what fetching needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stanza {
    pub(super) package: String,
    pub(super) version: String,
    /// In hex, lower case.
    pub(super) sha256: String,
    /// Of the file, in bytes.
    pub(super) size: u64,
    /// The file's name, without folders.
    pub(super) file: String,
    /// Packages that it depends on, by name; of alternatives the first.
    pub(super) depends: Vec<String>,
}

impl Stanza {
    /// Reads the first stanza of `text`: `Field: value`, continued by indented lines.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let stanza = text.split("\n\n").next().unwrap_or_default();
        let line = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let field = |name: &str| {
            let value = line(name).map(str::trim).filter(|value| !value.is_empty());
            value.with_context(|| format!("the package index has no {name}"))
        };
        let file = field("Filename")?;
        Ok(Self {
            package: field("Package")?.to_owned(),
            version: field("Version")?.to_owned(),
            sha256: field("SHA256")?.to_ascii_lowercase(),
            size: field("Size")?.parse().context("the package index has a Size that is no number")?,
            file: file.rsplit('/').next().unwrap_or(file).to_owned(),
            depends: line("Depends").unwrap_or_default().split(',').filter_map(name_of).collect(),
        })
    }
}

/// The name out of `linux-base (>= 4.3~) | other`.
fn name_of(dependency: &str) -> Option<String> {
    let name = dependency.trim().split([' ', '(', '|', ':']).next()?;
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

/// Whether a package holds a kernel or its modules. What else a kernel depends on (tools that make an initramfs) stays away.
pub(super) fn holds_kernel(package: &str) -> bool {
    ["linux-image-", "linux-binary-", "linux-modules-"].iter().any(|prefix| package.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "Package: linux-image-6.1.0-50-cloud-amd64\nVersion: 6.1.176-1\nDepends: kmod, linux-base (>= 4.3~), \
        initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool\nFilename: pool/main/l/linux/linux-image-6.1_6.1.176-1_amd64.deb\n\
        Size: 26\nSHA256: ABCDEF\nDescription: Linux\n more of it\n\nPackage: other\nVersion: 1\n";

    #[test]
    fn a_stanza_is_read_and_the_next_is_not() {
        let stanza = Stanza::parse(SHOWN).unwrap();
        assert_eq!(
            (stanza.package.as_str(), stanza.version.as_str()),
            ("linux-image-6.1.0-50-cloud-amd64", "6.1.176-1")
        );
        assert_eq!((stanza.sha256.as_str(), stanza.file.as_str()), ("abcdef", "linux-image-6.1_6.1.176-1_amd64.deb"));
        assert_eq!(stanza.size, 26);
        assert_eq!(stanza.depends, ["kmod", "linux-base", "initramfs-tools"]);
    }

    #[test]
    fn a_missing_field_is_named() {
        let without = SHOWN.replace("SHA256: ABCDEF\n", "");
        assert!(Stanza::parse(&without).unwrap_err().to_string().contains("SHA256"));
        assert!(Stanza::parse("").is_err());
    }

    #[test]
    fn only_kernels_and_modules_are_wanted() {
        assert!(
            holds_kernel("linux-binary-7.3.4+deb13-cloud-amd64")
                && holds_kernel("linux-modules-7.3.4+deb13-cloud-amd64")
        );
        assert!(!holds_kernel("linux-base") && !holds_kernel("initramfs-tools"));
    }
}
