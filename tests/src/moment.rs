//! Censuses beside `ss` and /proc/net/sockstat of the same moment.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use crate::{
    census::{Census, Form, Key, Sum},
    netns::Netns,
    ss,
};

/// Every way to read the tables: each must tell the same.
pub const SOURCES: [&str; 2] = ["iterator", "inet_diag"];

/// Takes a census of each source until the kernel's counters of all these namespaces, and all that `ss` says, are the same before and after;
/// gives them with what `ss` said.
pub fn in_one_moment(namespaces: &[&Netns], flags: &[&str]) -> Result<([Census; 2], Vec<Vec<ss::Row>>)> {
    let counters = || namespaces.iter().map(|netns| netns.sockstat()).collect::<Result<Vec<_>>>();
    for _ in 0..5 {
        let before = counters()?;
        let rows = namespaces.iter().map(|netns| ss::all(netns)).collect::<Result<Vec<_>>>()?;
        let censuses = SOURCES.map(|source| Census::take(&[flags, &["--source", source]].concat()));
        let again = namespaces.iter().map(|netns| ss::all(netns)).collect::<Result<Vec<_>>>()?;
        let same = |(one, other): (&Vec<ss::Row>, &Vec<ss::Row>)| ss::sums(one) == ss::sums(other);
        if counters()? == before && rows.iter().zip(&again).all(same) {
            let [one, other] = censuses;
            return Ok(([one?, other?], rows));
        }
    }
    anyhow::bail!("the sockets never stood still")
}

/// Fails where a census is not what `ss` and sockstat say, or the sources do not tell the same of cgroups.
pub fn agree(censuses: &[Census; 2], netns: &Netns, rows: &[ss::Row]) -> Result<()> {
    for (census, source) in censuses.iter().zip(SOURCES) {
        let told = census.end()?["synfin.census.source"].as_str();
        ensure!(told == Some(source), "a census of {source} says that it comes from {told:?}");
        agrees(census, netns, rows).with_context(|| format!("by {source}"))?;
    }
    let [one, other] = censuses.each_ref().map(|census| census.by_cgroup(netns));
    ensure!(one == other, "{}: by iterators {one:?}, by inet_diag {other:?}", netns.name());
    Ok(())
}

fn agrees(census: &Census, netns: &Netns, rows: &[ss::Row]) -> Result<()> {
    let (told, witnessed) = (census.sums(netns)?, ss::sums(rows));
    let wrong: Vec<_> = witnessed
        .keys()
        .chain(told.keys())
        .filter(|key| told.get(key) != witnessed.get(key))
        .map(|key| format!("{key:?}: census {:?}, ss {:?}", told.get(key), witnessed.get(key)))
        .collect();
    ensure!(wrong.is_empty(), "{}:\n{}", netns.name(), wrong.join("\n"));
    let count = |form: Form| of(&told, |key| key.form == form).sockets;
    let sockstat = netns.sockstat()?;
    ensure!(count(Form::Full) == sockstat.inuse, "{} full sockets beside {sockstat:?}", count(Form::Full));
    ensure!(count(Form::Timewait) == sockstat.timewait, "{} minisocks beside {sockstat:?}", count(Form::Timewait));
    Ok(())
}

/// The sum over some keys.
pub fn of(sums: &BTreeMap<Key, Sum>, which: impl Fn(&Key) -> bool) -> Sum {
    let mut all = Sum::default();
    sums.iter().filter(|(key, _)| which(key)).for_each(|(_, sum)| all += *sum);
    all
}
