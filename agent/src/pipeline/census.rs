//! `synfin census`: one walk over all sockets, without the service.

use std::collections::BTreeSet;
use std::io::Write;
use std::thread;

use anyhow::{Context as _, anyhow};
use bytes::BytesMut;

use super::engine;
use crate::census::{Census, Walk, Walker, holders};
use crate::clock::Clock;
use crate::config::{CensusOptions, Config};
use crate::export;
use crate::loader::Iterators;
use crate::view;

/// Walks once and prints.
pub(super) fn census(config: &Config, options: CensusOptions, out: &mut dyn Write) -> anyhow::Result<()> {
    let clock = Clock::default();
    let filter = engine::filter(config)?;
    let walk = walk(config, &filter)?;
    let census = once(Walker::new(walk, filter.netns), &clock)?;
    let inodes: BTreeSet<u64> = census.sums.listeners.iter().map(|row| row.inode).filter(|inode| *inode != 0).collect();
    let holders = holders::of(&inodes);
    if options.json {
        let mut lines = BytesMut::new();
        export::census::lines(&mut lines, &census, &holders, clock.offset())?;
        out.write_all(&lines)?;
    } else {
        out.write_all(view::census::text(&census, &holders, clock.offset()).as_bytes())?;
    }
    anyhow::ensure!(
        census.failures.is_empty(),
        "{} network namespaces could not be walked, the output names them",
        census.failures.len()
    );
    Ok(())
}

/// The best way to walk that this kernel takes.
pub(super) fn walk(config: &Config, filter: &crate::loader::Filter) -> anyhow::Result<Box<dyn Walk>> {
    let iterators =
        Iterators::load(&engine::attachment(config), filter).context("cannot load the iterators of sockets")?;
    Ok(Box::new(iterators))
}

/// One census on a thread of its own, because it moves through the namespaces.
fn once(mut walker: Walker, clock: &Clock) -> anyhow::Result<Census> {
    thread::scope(|scope| {
        let work = || {
            walker.discover();
            let wanted = walker.wanted();
            walker.count(&wanted, &|| clock.monotonic_ns())
        };
        let thread = thread::Builder::new().name("census".to_owned()).spawn_scoped(scope, work)?;
        let census = thread.join().map_err(|_panic| anyhow!("the thread of the census failed"))?;
        census.context("cannot read what the walk has counted")
    })
}
