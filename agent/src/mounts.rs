//! Where file systems are mounted: they need not be at their usual place.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// Mount points of a file system type, as this process sees them.
pub fn of_type(kind: &str) -> Vec<PathBuf> {
    of_type_in("/proc/self/mounts", kind)
}

/// Mount points of a file system type, as the process sees them whose table of mounts this is.
pub fn of_type_in(table: &str, kind: &str) -> Vec<PathBuf> {
    parse(&fs::read_to_string(table).unwrap_or_default(), kind)
}

/// The same out of the text of /proc/mounts.
fn parse(mounts: &str, kind: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        (fields.next()? == kind).then(|| unescape(point))
    };
    mounts.lines().filter_map(point).collect()
}

/// The kernel writes a space, tab, newline or backslash of a path as `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            digits.iter().try_fold(0_u8, |byte, digit| {
                let digit = digit.wrapping_sub(b'0');
                (digit < 8).then(|| byte.wrapping_mul(8).wrapping_add(digit))
            })
        });
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_found_by_type_wherever_they_are() {
        let mounts =
            "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cg\\040two cgroup2 rw 0 0\nx /y cgroup2 rw 0 0\nbroken\n\n";
        assert_eq!(parse(mounts, "cgroup2"), [PathBuf::from("/sys/fs/cg two"), "/y".into()]);
        assert!(parse(mounts, "tracefs").is_empty());
        assert_eq!(of_type("proc").first(), Some(&"/proc".into()));
    }

    #[test]
    fn what_looks_like_an_escape_and_is_none_stays() {
        assert_eq!(unescape("/a\\134b\\9\\04"), PathBuf::from("/a\\b\\9\\04"));
    }
}
