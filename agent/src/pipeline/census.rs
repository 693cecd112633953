//! `synfin census`: one walk over all sockets, without the service.

use std::collections::BTreeSet;
use std::io::Write;
use std::thread;

use anyhow::{Context as _, anyhow};
use bytes::BytesMut;
use rustix::system::uname;

use super::engine;
use crate::by::By;
use crate::census::diag::{Admitted, Diag};
use crate::census::{Listing, Walk, Walker, holders};
use crate::clock::Clock;
use crate::config::{CensusOptions, CensusView, Config};
use crate::export;
use crate::loader::{Filter, IteratorError, Iterators, LoadError};
use crate::owner::{self, Counts, Owners};
use crate::source::{Chosen, Source};
use crate::view;

/// Walks once and prints.
pub(super) fn census(config: &Config, options: CensusOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    let clock = Clock::default();
    let filter = engine::filter(config)?;
    match options.view {
        CensusView::Sums => sums(config, &filter, &clock, options.json, out),
        CensusView::Sockets => sockets(config, &filter, &clock, options.json, out),
        CensusView::By(by) => counts(config, &filter, &clock, by, options.json, out),
    }
}

/// How many sockets are in which state, and the listeners.
fn sums(config: &Config, filter: &Filter, clock: &Clock, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let (walk, chosen) = walk(config, filter)?;
    let mut walker = Walker::new(walk, filter.netns.clone());
    let (census, held) = apart(|| {
        walker.discover_all();
        let wanted = walker.wanted();
        (walker.count(&wanted, &|| clock.monotonic_ns()), walker.holders())
    })?;
    let census = census.context("cannot read what the walk has counted")?;
    let inodes: BTreeSet<u64> = census.sums.listeners.iter().map(|row| row.inode).filter(|inode| *inode != 0).collect();
    let holders = holders::of(&inodes, &held);
    if json {
        let mut lines = BytesMut::new();
        export::census::lines(&mut lines, &census, &holders, &chosen, clock.offset())?;
        out.write_all(&lines)?;
    } else {
        out.write_all(view::census::text(&census, &holders, &chosen, clock.offset()).as_bytes())?;
    }
    complete(&census.failures)
}

/// Each socket.
fn sockets(config: &Config, filter: &Filter, clock: &Clock, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let (listing, chosen) = list(config, filter, clock)?;
    let holders = owner::holders_of(&listing);
    let write = if json { export::sockets::lines } else { view::sockets::write };
    write(out, &listing, &holders, &chosen, clock.offset())?;
    complete(&listing.failures)
}

/// How many sockets there are by a key.
fn counts(
    config: &Config,
    filter: &Filter,
    clock: &Clock,
    by: By,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let (listing, chosen) = list(config, filter, clock)?;
    let counts = Counts::of(by, &listing, Owners::of(by, &listing));
    if json {
        let mut lines = BytesMut::new();
        export::counts::lines(&mut lines, &counts, &listing, &chosen, clock.offset())?;
        out.write_all(&lines)?;
    } else {
        out.write_all(view::counts::text(&counts, &listing, &chosen, clock.offset()).as_bytes())?;
    }
    complete(&listing.failures)
}

/// Lists what the filter lets through. The walk leaves out namespaces alone: what remains to be left out may be a listener that says to whom a
/// socket belongs.
fn list(config: &Config, filter: &Filter, clock: &Clock) -> anyhow::Result<(Listing, Chosen)> {
    let (walk, chosen) = walk(config, &Filter { netns: filter.netns.clone(), ..Filter::default() })?;
    let mut walker = Walker::new(walk, filter.netns.clone());
    let listing = apart(|| Listing::take(&mut walker, &admitted(filter), &|| clock.monotonic_ns()))?;
    Ok((listing, chosen))
}

/// Fails if a namespace is missing in what was printed.
fn complete(failures: &[(u32, String)]) -> anyhow::Result<()> {
    anyhow::ensure!(
        failures.is_empty(),
        "{} network namespaces could not be walked, the output names them",
        failures.len()
    );
    Ok(())
}

/// Which source a census will have, for `synfin doctor`.
pub(super) fn source(config: &Config) -> anyhow::Result<Chosen> {
    Ok(walk(config, &Filter::default())?.1)
}

/// The best way to walk that this kernel takes, or the one that the configuration asks for; what it lacks is for the caller to say.
pub(super) fn walk(config: &Config, filter: &Filter) -> anyhow::Result<(Box<dyn Walk>, Chosen)> {
    // Which namespaces to enter is the walker's affair; a name of the filter may come to mean another one meanwhile.
    let filter = &Filter { netns: None, ..filter.clone() };
    let iterators = || Iterators::load(&engine::attachment(config), filter);
    let diag =
        |why: String| -> (Box<dyn Walk>, Chosen) { (Box::new(Diag::new(admitted(filter))), Chosen::InetDiag(why)) };
    match config.census.source {
        Source::InetDiag => Ok(diag("asked for".to_owned())),
        Source::Iterator => {
            let iterators = iterators().context("cannot load the iterators of sockets")?;
            Ok((Box::new(iterators), Chosen::Iterator))
        }
        Source::Auto => {
            let release = uname().release().to_string_lossy().into_owned();
            if !is_trusted(&release) {
                return Ok(diag(format!("the iterators of Linux {release} take locks in a way that 6.4 mended")));
            }
            match iterators() {
                Ok(iterators) => Ok((Box::new(iterators), Chosen::Iterator)),
                // Too long a filter is the user's affair; inet_diag would hide it.
                Err(IteratorError::Load(error @ LoadError::Filter { .. })) => Err(error.into()),
                Err(error) => Ok(diag(format!("the iterators cannot be loaded: {error}"))),
            }
        }
    }
}

/// The filter, for a walk that applies it outside the kernel.
fn admitted(filter: &Filter) -> Admitted {
    let Filter { ports, peers, excluded_peers, exclude_loopback, .. } = filter.clone();
    Admitted { ports, peers, excluded_peers, exclude_loopback }
}

/// Whether the iterators of this kernel may be used unasked. Before Linux 6.4 (commit 9378096e8a65) a walk takes the lock of each socket the
/// fast way, with softirqs off under the program: a circle of locks with those of the hash table's buckets.
fn is_trusted(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (6, 4))
}

/// Works on a thread of its own, because a walker moves through the namespaces.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("census".to_owned()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_panic| anyhow!("the thread of the census failed"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterators_are_trusted_from_6_4_on() {
        for (release, trusted) in [
            ("5.10.0-30-amd64", false),
            ("6.1.0-28-cloud-amd64", false),
            ("6.3.13", false),
            ("6.4.0", true),
            ("6.18.44", true),
            ("7.0-rc1", true),
            ("strange", false),
        ] {
            assert_eq!(is_trusted(release), trusted, "{release}");
        }
    }
}
