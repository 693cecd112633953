//! Who may know whom: the directions of docs/ARCHITECTURE.md as a table, checked against what the sources name.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cmd;
use crate::uses;
use crate::uses::Target;

/// What one top-level module may know (`*`: every file). A new module needs a row, a new edge a change: both are decisions.
struct Rule {
    module: &'static str,
    /// Crates and `crate::module::item`s that it must not name; `tokio*` stands for `tokio_stream` and its like too.
    never: &'static [&'static str],
    /// Modules of the same crate that it may name.
    knows: Knows,
}

enum Knows {
    All,
    Only(&'static [&'static str]),
}
use Knows::{All, Only};

/// The sources of one crate and the rules of its modules. lib.rs and main.rs put modules together and know all.
struct Room {
    sources: &'static str,
    rules: &'static [Rule],
}

/// From decode to detect the core is synchronous and runs on a recording: no runtime, no kernel, no exporter, no terminal.
const CORE_NEVER: &[&str] =
    &["aya*", "clap*", "crossterm", "hyper*", "nix", "opentelemetry*", "prost*", "tokio*", "tonic*"];
/// The kernel's border knows the kernel and nothing of where data goes.
const BORDER_NEVER: &[&str] = &["clap*", "crossterm", "hyper*", "opentelemetry*", "prost*", "tokio*", "tonic*"];
/// What leaves the agent neither reaches back into the kernel nor into the ledger, whose results alone it knows.
const OUTPUT_NEVER: &[&str] = &["aya*", "crate::ledger::Ledger", "crate::ledger::table"];
/// Settings are data.
const SETTINGS_NEVER: &[&str] = &["aya*", "opentelemetry*", "tokio*"];
/// Shared with the kernel, where there is neither.
const WIRE_NEVER: &[&str] = &["aya*", "std"];

#[rustfmt::skip] // a table, in flow order: data goes from the upper rows to the lower ones
const ROOMS: &[Room] = &[
    Room { sources: "agent-common/src", rules: &[
        Rule { module: "event",      never: WIRE_NEVER,     knows: Only(&[]) },
        Rule { module: "lane",       never: WIRE_NEVER,     knows: Only(&["event"]) },
        Rule { module: "tally",      never: WIRE_NEVER,     knows: Only(&["event"]) },
        Rule { module: "knobs",      never: WIRE_NEVER,     knows: Only(&["event"]) },
        Rule { module: "layout",     never: WIRE_NEVER,     knows: Only(&["knobs"]) },
        Rule { module: "census",     never: WIRE_NEVER,     knows: Only(&["event"]) },
    ] },
    Room { sources: "agent-ebpf/src", rules: &[
        Rule { module: "maps",       never: &[],            knows: Only(&[]) },
        Rule { module: "field",      never: &[],            knows: Only(&["maps"]) },
        Rule { module: "read",       never: &[],            knows: Only(&["field"]) },
        Rule { module: "record",     never: &[],            knows: Only(&["maps", "read"]) },
        Rule { module: "rung",       never: &[],            knows: Only(&["field", "read", "record"]) },
        Rule { module: "sock",       never: &[],            knows: Only(&["field", "maps", "read", "record", "rung"]) },
        Rule { module: "admit",      never: &[],            knows: Only(&["maps", "rung", "sock"]) },
        Rule { module: "atomic",     never: &[],            knows: Only(&[]) },
        Rule { module: "lane",       never: &[],            knows: Only(&["atomic", "maps"]) },
        Rule { module: "emit",       never: &[],            knows: Only(&["atomic", "lane", "maps"]) },
        Rule { module: "probes",     never: &[],            knows: Only(&["admit", "emit", "maps", "record", "rung", "sock"]) },
        Rule { module: "iter",       never: &[],            knows: Only(&["admit", "field", "maps", "read", "rung", "sock"]) },
    ] },
    Room { sources: "agent/src", rules: &[
        // What everybody may know.
        Rule { module: "clock",      never: CORE_NEVER,     knows: Only(&[]) },
        Rule { module: "event",      never: CORE_NEVER,     knows: Only(&[]) },
        Rule { module: "accounts",   never: CORE_NEVER,     knows: Only(&[]) },
        Rule { module: "netns",      never: SETTINGS_NEVER, knows: Only(&[]) },
        Rule { module: "privileges", never: SETTINGS_NEVER, knows: Only(&[]) },
        Rule { module: "logging",    never: SETTINGS_NEVER, knows: Only(&[]) },
        Rule { module: "rung",       never: CORE_NEVER,     knows: Only(&[]) },
        Rule { module: "source",     never: CORE_NEVER,     knows: Only(&[]) },
        Rule { module: "by",         never: CORE_NEVER,     knows: Only(&[]) },
        Rule { module: "mounts",     never: CORE_NEVER,     knows: Only(&[]) },
        Rule { module: "lockdown",   never: CORE_NEVER,     knows: Only(&[]) },
        Rule { module: "priority",   never: CORE_NEVER,     knows: Only(&[]) },
        Rule { module: "config",     never: SETTINGS_NEVER, knows: Only(&["by", "event", "netns", "probes", "rung", "source"]) },
        Rule { module: "cli",        never: SETTINGS_NEVER, knows: Only(&["by", "config", "event", "logging"]) },
        Rule { module: "exit",       never: SETTINGS_NEVER, knows: Only(&["config", "privileges"]) },
        // The kernel's border.
        Rule { module: "arch",       never: CORE_NEVER,     knows: Only(&[]) },
        Rule { module: "btf",        never: BORDER_NEVER,   knows: Only(&[]) },
        Rule { module: "tracefs",    never: BORDER_NEVER,   knows: Only(&["lockdown", "mounts"]) },
        Rule { module: "health",     never: CORE_NEVER,     knows: Only(&["rung"]) },
        Rule { module: "probes",     never: CORE_NEVER,     knows: Only(&["event", "rung"]) },
        Rule { module: "place",      never: BORDER_NEVER,   knows: Only(&[]) },
        Rule { module: "lanes",      never: BORDER_NEVER,   knows: Only(&[]) },
        Rule { module: "census",     never: CORE_NEVER,     knows: Only(&["event", "mounts", "netns"]) },
        Rule { module: "loader",     never: BORDER_NEVER,   knows: Only(&["arch", "btf", "census", "health", "lanes", "lockdown", "place", "probes", "rung", "tracefs"]) },
        Rule { module: "decode",     never: CORE_NEVER,     knows: Only(&["event"]) },
        Rule { module: "ring",       never: BORDER_NEVER,   knows: Only(&["decode", "event"]) },
        Rule { module: "merge",      never: BORDER_NEVER,   knows: Only(&["lanes", "ring"]) },
        Rule { module: "owner",      never: CORE_NEVER,     knows: Only(&["by", "census", "event", "mounts", "priority"]) },
        // The core.
        Rule { module: "ledger",     never: CORE_NEVER,     knows: Only(&["accounts", "census", "clock", "event"]) },
        Rule { module: "tally",      never: CORE_NEVER,     knows: Only(&["event"]) },
        Rule { module: "distribution", never: CORE_NEVER,   knows: Only(&["accounts", "clock", "event", "ledger"]) },
        Rule { module: "peers",      never: CORE_NEVER,     knows: Only(&["distribution", "event", "ledger"]) },
        Rule { module: "status",     never: CORE_NEVER,     knows: Only(&["accounts", "census", "distribution", "event", "health", "ledger", "peers"]) },
        Rule { module: "loss",       never: CORE_NEVER,     knows: Only(&["event", "health", "probes", "ring", "status"]) },
        // What goes out.
        Rule { module: "export",     never: OUTPUT_NEVER,   knows: Only(&["accounts", "by", "census", "clock", "config", "distribution", "event", "health", "ledger", "owner", "peers", "priority", "source", "status", "tally"]) },
        Rule { module: "http",       never: OUTPUT_NEVER,   knows: Only(&["clock", "export", "health", "priority", "status"]) },
        Rule { module: "view",       never: OUTPUT_NEVER,   knows: Only(&["by", "census", "clock", "event", "health", "ledger", "owner", "source", "status", "tally"]) },
        Rule { module: "doctor",     never: OUTPUT_NEVER,   knows: Only(&["btf", "exit", "health", "loader", "lockdown", "mounts", "netns", "privileges", "source"]) },
        Rule { module: "pipeline",   never: &[],            knows: All },
    ] },
    Room { sources: "tests", rules: &[
        // The suite knows the binary, the kernel and docs/EVENTS.md: an error in our own types must not hide itself.
        Rule { module: "*",          never: &["synfin", "synfin_common"], knows: All },
    ] },
];

/// A name that is against a rule.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Checks the whole work tree.
pub(crate) fn check() -> Result<()> {
    let mut breaches = Vec::new();
    let mut files = 0;
    for room in ROOMS {
        for file in rust_files(&cmd::root().join(room.sources))? {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let inside = file.strip_prefix(cmd::root().join(room.sources)).unwrap_or(&file);
            breaches.extend(check_file(room, inside, &text));
            files += 1;
        }
    }
    for breach in &breaches {
        cmd::say("lint", breach.to_string());
    }
    if !breaches.is_empty() {
        bail!(
            "{} names against the direction of the data: turn the dependency round or move the type to the left; \
             the rules are in xtask/src/deps.rs, their reasons in docs/ARCHITECTURE.md",
            breaches.len()
        );
    }
    cmd::say("lint", format!("dependency direction: {files} files in order"));
    Ok(())
}

/// All names of one file, given by its path below the room's sources, that are against the rules.
fn check_file(room: &Room, inside: &Path, text: &str) -> Vec<Breach> {
    let path = inside.with_extension("");
    let own: Vec<&str> = path.iter().filter_map(|part| part.to_str()).filter(|part| *part != "mod").collect();
    let Some(module) = own.first().copied() else { return Vec::new() };
    let rule = room.rules.iter().find(|rule| rule.module == module || rule.module == "*");
    // A crate's root joins everything; test modules in files of their own may know what they like.
    let exempt = matches!(module, "lib" | "main") || own.contains(&"tests");
    if exempt && rule.is_none_or(|rule| rule.module != "*") {
        return Vec::new();
    }
    let breach = |line: usize, what: String| Breach { file: Path::new(room.sources).join(inside), line, what };
    let Some(rule) = rule else {
        return vec![breach(1, format!("module `{module}` has no row in the table of xtask/src/deps.rs"))];
    };
    let refused = uses::find(text, &own).into_iter().filter_map(|found| {
        let what = refusal(module, rule, &found.target)?;
        Some(breach(found.line, what))
    });
    let mut breaches: Vec<Breach> = refused.collect();
    breaches.dedup();
    breaches
}

/// Why a module must not name this, `None` if it may.
fn refusal(module: &str, rule: &Rule, target: &Target) -> Option<String> {
    let banned = |name: &str| rule.never.iter().any(|pattern| fits(name, pattern));
    match target {
        Target::Module(name, _) if matches!(rule.knows, Only(known) if !known.contains(&name.as_str())) => {
            Some(format!("`{module}` must not know `{name}`"))
        }
        Target::Module(name, Some(item)) if banned(&format!("crate::{name}::{item}")) => {
            Some(format!("`{module}` must not know `{name}::{item}`"))
        }
        Target::Crate(name) if banned(name) => Some(format!("`{module}` must not know the crate `{name}`")),
        Target::Module(..) | Target::Crate(_) => None,
    }
}

/// Whether a crate's name is `pattern`, or begins like it when it ends with `*`.
fn fits(name: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(name == pattern, |family| name.starts_with(family))
}

pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut rust_files(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(sources: &str, file: &str, text: &str) -> Vec<String> {
        let room = ROOMS.iter().find(|room| room.sources == sources).unwrap();
        check_file(room, Path::new(file), text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_design_allows_passes() {
        for (file, text) in [
            ("decode.rs", "use crate::event::Event;\nuse synfin_common::event::Header;\n"),
            (
                "ledger/table.rs",
                "use crate::clock::Instant;\nuse crate::ledger::conn::Conn;\nuse std::time::Duration;\n",
            ),
            ("pipeline.rs", "use tokio::sync::mpsc;\nuse crate::ledger::Ledger;\nuse crate::export;\n"),
            ("main.rs", "use synfin::cli;\nuse tokio::runtime;\n"),
            ("ledger/tests.rs", "use crate::export::X;\n"),
        ] {
            assert_eq!(breaches("agent/src", file, text), Vec::<String>::new(), "{file}");
        }
    }

    #[test]
    fn what_the_design_forbids_is_named_with_its_line() {
        for (file, text, what) in [
            ("ledger.rs", "\nuse crate::export::Exporter;\n", "agent/src/ledger.rs:2: `ledger` must not know `export`"),
            (
                "ledger/mod.rs",
                "use tokio::time;\n",
                "agent/src/ledger/mod.rs:1: `ledger` must not know the crate `tokio`",
            ),
            (
                "decode.rs",
                "fn f() -> aya_log::X {}\n",
                "agent/src/decode.rs:1: `decode` must not know the crate `aya_log`",
            ),
            (
                "export/otlp.rs",
                "use crate::{ledger::{Ended, Ledger}};\n",
                "agent/src/export/otlp.rs:1: `export` must not know `ledger::Ledger`",
            ),
            ("export/mod.rs", "use aya::Ebpf;\n", "agent/src/export/mod.rs:1: `export` must not know the crate `aya`"),
            (
                "loader.rs",
                "use opentelemetry_sdk::X;\n",
                "agent/src/loader.rs:1: `loader` must not know the crate `opentelemetry_sdk`",
            ),
        ] {
            assert_eq!(breaches("agent/src", file, text), [what], "{file}");
        }
    }

    #[test]
    fn the_other_rooms_have_rules_too() {
        assert!(
            breaches("agent-ebpf/src", "probes/state.rs", "use crate::{emit, sock};\nuse synfin_common::event;\n")
                .is_empty()
        );
        assert_eq!(breaches("agent-ebpf/src", "emit.rs", "use crate::probes::state;\n").len(), 1);
        assert_eq!(breaches("tests", "src/bin/peer.rs", "use synfin_common::event::X;\n").len(), 1);
        assert!(breaches("tests", "tests/open.rs", "use synfin_tests::netns;\nuse nix::sched;\n").is_empty());
        assert_eq!(breaches("agent-common/src", "event.rs", "use crate::tally::Key;\nuse std::fmt;\n").len(), 2);
    }

    #[test]
    fn a_module_without_a_row_is_a_breach() {
        assert!(breaches("agent/src", "novelty.rs", "")[0].contains("has no row"));
    }

    #[test]
    fn only_a_star_stands_for_a_family() {
        assert!(fits("opentelemetry_sdk", "opentelemetry*") && fits("aya", "aya*") && fits("std", "std"));
        assert!(!fits("synfin_tests", "synfin"));
    }
}
