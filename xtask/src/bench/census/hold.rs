//! A child of the bench that keeps connections open: one process may not have as many files as the bench wants sockets.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::bench::load::ADDRESSES;

/// Keep connections open until stdin ends (a part of the bench)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections over the loopback of each namespace; this process has both ends
    #[arg(long)]
    pairs: u64,
    /// Files of network namespaces
    #[arg(required = true)]
    namespaces: Vec<PathBuf>,
}

/// One namespace's connections, and what accepted them.
type Held = (TcpListener, Vec<(TcpStream, TcpStream)>);

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot raise the limit of open files to its hard limit")?;
    let mut held = Vec::new();
    for path in &args.namespaces {
        enter(path)?;
        held.push(hold(args.pairs).with_context(|| format!("connections in {}", path.display()))?);
    }
    writeln!(std::io::stdout(), "{}", held.len())?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))
}

fn hold(pairs: u64) -> Result<Held> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot listen")?;
    let port = listener.local_addr()?.port();
    let pair = |number: u64| {
        let address = Ipv4Addr::new(127, 0, 1, (1 + number % ADDRESSES) as u8);
        let client = TcpStream::connect((address, port)).with_context(|| format!("connection {number}"))?;
        let (server, _) = listener.accept()?;
        Ok((client, server))
    };
    let pairs = (0..pairs).map(pair).collect::<Result<_>>()?;
    Ok((listener, pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_held() {
        let (listener, pairs) = hold(3).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = pairs.iter().map(|(client, server)| {
            assert_eq!(client.local_addr().unwrap(), server.peer_addr().unwrap());
            client.peer_addr().unwrap().port()
        });
        assert_eq!(ports.collect::<Vec<_>>(), [port; 3]);
    }
}
