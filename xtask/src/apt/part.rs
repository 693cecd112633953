//! A download that was interrupted goes on where it stopped, if the mirror can do that.
//!
//! `apt-get download` begins anew each time; apt's own helper asks for the rest.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::private;
use crate::cmd;

/// A file of a mirror, as the index describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote {
    uri: String,
    /// In hex.
    sha256: String,
}

impl Remote {
    /// Out of what `apt-get download --print-uris` says: `'URI' name size SHA256:hex`.
    pub(super) fn parse(line: &str) -> Result<Self> {
        let parsed = line.trim().strip_prefix('\'').and_then(|rest| {
            let (uri, rest) = rest.split_once('\'')?;
            let sha256 = rest.split_whitespace().find_map(|word| word.strip_prefix("SHA256:"))?;
            Some(Self { uri: uri.to_owned(), sha256: sha256.to_owned() })
        });
        parsed.with_context(|| format!("apt-get names no address with a SHA-256: {line:?}"))
    }

    /// Completes the file at `path`, or fetches it whole. What was there of it and does not fit is thrown away.
    pub(super) fn complete(&self, path: &Path, home: &Path) -> Result<()> {
        let had = path.metadata().map_or(0, |file| file.len());
        match self.get(path, home) {
            // Put aside by `get`: a part that stays is one that a later try can complete.
            Err(error) if had > 0 && !path.exists() => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                cmd::say("fetch", format!("{name}: what was there of it ({had} bytes) does not fit: fetching it anew"));
                self.get(path, home).with_context(|| format!("after {error:#}"))
            }
            done => done,
        }
    }

    fn get(&self, path: &Path, home: &Path) -> Result<()> {
        const HELPER: &str = "/usr/lib/apt/apt-helper";
        if !Path::new(HELPER).exists() {
            bail!("{HELPER} is missing: apt 1.1 or later has it");
        }
        let mut helper = private(HELPER, home);
        helper.args(["download-file", &self.uri]).arg(path).arg(format!("SHA256:{}", self.sha256));
        let done = cmd::capture(&mut helper).map(drop);
        // apt renames a file with a wrong sum.
        let mut failed = OsString::from(path);
        failed.push(".FAILED");
        match std::fs::remove_file(&failed) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", Path::new(&failed).display()))
            }
            _ => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};

    use sha2::{Digest as _, Sha256};

    use super::*;

    /// What a mirror does with a request.
    #[derive(Clone, Copy)]
    enum Mirror {
        /// Gives the rest that is asked for.
        Ranges,
        /// Gives the whole file whatever is asked for.
        Whole,
        /// Gives ranges, but of the first answer no more than this many bytes.
        Drops(usize),
    }

    fn body() -> Vec<u8> {
        (0..400_000_u32).map(|at| (at % 251) as u8).collect()
    }

    /// Where the requests of a mirror began; None asks for the whole file.
    type Asked = Arc<Mutex<Vec<Option<usize>>>>;

    /// A mirror on the loopback.
    fn serve(mirror: Mirror) -> (Remote, Asked) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}/demo.deb", listener.local_addr().unwrap());
        let sha256 = Sha256::digest(body()).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // apt closes connections as it likes.
                drop(answer(&mut stream.unwrap(), mirror, &log));
            }
        });
        (Remote { uri, sha256 }, asked)
    }

    fn answer(stream: &mut TcpStream, mirror: Mirror, log: &Asked) -> std::io::Result<()> {
        let mut from = None;
        for line in BufReader::new(stream.try_clone()?).lines() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            from = from.or_else(|| line.strip_prefix("Range: bytes=")?.trim_end_matches('-').parse::<usize>().ok());
        }
        let first = {
            let mut log = log.lock().unwrap();
            log.push(from);
            log.len() == 1
        };
        let body = body();
        let mut head = String::from("HTTP/1.1 ");
        let from = from.filter(|_| !matches!(mirror, Mirror::Whole));
        if let Some(from) = from {
            let (last, all) = (body.len() - 1, body.len());
            write!(head, "206 Partial Content\r\nContent-Range: bytes {from}-{last}/{all}\r\n").unwrap();
        } else {
            head.push_str("200 OK\r\n");
        }
        let rest = &body[from.unwrap_or_default()..];
        write!(head, "Content-Length: {}\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n", rest.len()).unwrap();
        head.push_str("Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(match mirror {
            Mirror::Drops(after) if first => &rest[..after],
            _ => rest,
        })
    }

    fn home(name: &str) -> PathBuf {
        let home = std::env::temp_dir().join(format!("synfin-part-{name}-{}", std::process::id()));
        for folder in ["lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(home.join(folder)).unwrap();
        }
        home
    }

    /// Fetches on top of `part` and sees that the file is there; what was asked for.
    fn fetch(mirror: Mirror, part: &[u8], name: &str) -> Vec<Option<usize>> {
        let home = home(name);
        let path = home.join("demo.deb");
        if !part.is_empty() {
            std::fs::write(&path, part).unwrap();
        }
        let (remote, asked) = serve(mirror);
        remote.complete(&path, &home).unwrap();
        assert!(std::fs::read(&path).unwrap() == body(), "{name}: another file");
        assert!(!home.join("demo.deb.FAILED").exists());
        std::fs::remove_dir_all(home).unwrap();
        let asked = asked.lock().unwrap();
        asked.clone()
    }

    #[test]
    fn only_the_rest_is_asked_for() {
        assert_eq!(fetch(Mirror::Ranges, &[], "fresh"), [None]);
        assert_eq!(fetch(Mirror::Ranges, &body()[..150_000], "part"), [Some(150_000)]);
    }

    #[test]
    fn a_mirror_that_knows_no_ranges_gives_the_whole_file() {
        assert_eq!(fetch(Mirror::Whole, &body()[..150_000], "whole"), [Some(150_000)]);
    }

    #[test]
    fn a_connection_that_breaks_is_taken_up_again() {
        assert_eq!(fetch(Mirror::Drops(100_000), &[], "cut"), [None, Some(100_000)]);
    }

    #[test]
    fn a_part_of_something_else_is_thrown_away() {
        assert_eq!(fetch(Mirror::Ranges, &vec![7; 150_000], "other"), [Some(150_000), None]);
    }

    #[test]
    fn a_file_that_is_not_what_the_index_says_is_an_error() {
        let home = home("wrong");
        let (remote, _asked) = serve(Mirror::Ranges);
        let wrong = Remote { sha256: "00".repeat(32), ..remote };
        let error = wrong.complete(&home.join("demo.deb"), &home).unwrap_err().to_string();
        assert!(error.contains("Hash Sum mismatch"), "{error}");
        assert!(!home.join("demo.deb").exists() && !home.join("demo.deb.FAILED").exists());
        std::fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn the_address_is_read() {
        let line = "'http://m.example/pool/l/linux_6.1%2bx.deb' linux_6.1%2bx_amd64.deb 26 SHA256:abcd\n";
        let remote = Remote::parse(line).unwrap();
        assert_eq!((&*remote.uri, &*remote.sha256), ("http://m.example/pool/l/linux_6.1%2bx.deb", "abcd"));
        assert!(Remote::parse("'http://m.example/x.deb' x.deb 26 MD5Sum:1").is_err());
        assert!(Remote::parse("").is_err());
    }
}
