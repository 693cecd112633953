//! `cargo xtask vm`: the end-to-end scenarios on real kernels, booted under emulation.

mod deb;
mod document;
mod features;
mod index;
mod initramfs;
mod kernels;
mod plan;
mod programs;
mod qemu;
mod reports;
mod store;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::cache;
use crate::cmd;
use crate::results::Results;
use crate::setup;
use deb::Files;
use initramfs::Initramfs;
use kernels::{KERNELS, Kernel};
use plan::RUNGS;
use programs::{Programs, TESTS};
use qemu::Machine;
use reports::Reports;

/// Run the scenarios on real kernels under QEMU (without KVM and without root); with --all, write docs/KERNELS.md
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this kernel of the matrix (repeatable): 5.10, 6.1, 6.12, newest
    #[arg(long, value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    kernel: Vec<String>,
    /// Every kernel of the matrix, and write what was found to docs/KERNELS.md
    #[arg(long)]
    all: bool,
    /// Try this statically linked synfin instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// As many machines run at a time: each takes one core.
const AT_A_TIME: usize = 2;

/// What became of one kernel.
#[derive(Debug)]
struct Outcome {
    kernel: &'static Kernel,
    found: Found,
}

#[derive(Debug)]
enum Found {
    /// It was booted and this is what it said.
    Booted { reports: Reports, failures: Vec<String> },
    /// It was not, for this reason: neither passed nor failed.
    NotTested(String),
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen: Vec<&Kernel> = if args.all {
        KERNELS.iter().collect()
    } else {
        args.kernel.iter().map(|name| kernels::named(name)).collect::<Result<_>>()?
    };
    if let Some(why) = missing() {
        bail!("{why}");
    }
    setup::for_build()?;
    let outcomes = matrix(&chosen, args.binary.as_deref())?;
    let sum = add_up(&outcomes);
    if args.all {
        let path = cmd::root().join("docs/KERNELS.md");
        std::fs::write(&path, document::write(&outcomes))
            .with_context(|| format!("cannot write {}", path.display()))?;
        cmd::say("vm", format!("wrote {}", path.display()));
    }
    if outcomes.iter().any(|outcome| matches!(outcome.found, Found::NotTested(_))) {
        bail!("a kernel was not tested; the reasons are above");
    }
    if sum.failed > 0 {
        bail!("the matrix failed; the reasons are above");
    }
    Ok(())
}

/// What is missing here for booting a kernel, with the remedy.
pub(crate) fn missing() -> Option<String> {
    let needed = [(qemu::PROGRAM, qemu::PACKAGE), ("ip", "iproute2"), ("ldd", "libc-bin")];
    let (program, package) = needed.into_iter().find(|(program, _)| !cmd::on_path(program))?;
    Some(format!("the kernel matrix needs {program} (Debian package {package})"))
}

/// The whole matrix as a part of `cargo xtask test`: a kernel that cannot be had is said and does not count.
pub(crate) fn test() -> Result<Results> {
    Ok(add_up(&matrix(&KERNELS.iter().collect::<Vec<_>>(), None)?))
}

/// Tests by their verdicts; a kernel with a failure that is no test's is one failed test more.
fn add_up(outcomes: &[Outcome]) -> Results {
    let mut sum = Results::default();
    for Outcome { kernel, found } in outcomes {
        match found {
            Found::NotTested(why) => cmd::say("vm", format!("{}: NOT tested: {why}", kernel.name)),
            Found::Booted { reports, failures } => {
                let (passed, failed) = reports.sum();
                sum.passed += passed;
                sum.failed += if failures.is_empty() { failed } else { failed.max(1) };
                let release = reports.release.as_deref().unwrap_or("no release");
                cmd::say("vm", format!("{} ({release}): {passed} passed, {} failures", kernel.name, failures.len()));
                for failure in failures {
                    cmd::say("vm", format!("{}: {failure}", kernel.name));
                }
            }
        }
    }
    sum
}

fn matrix(chosen: &[&'static Kernel], binary: Option<&Path>) -> Result<Vec<Outcome>> {
    let programs = Programs::build(binary)?;
    let folder = build::target_dir()?.join("vm");
    // One after the other: they come over one line, and apt locks.
    let fetched: Vec<_> = chosen.iter().map(|kernel| (*kernel, store::packages(kernel))).collect();
    let waiting = Mutex::new(fetched.into_iter());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().ok().and_then(|mut waiting| waiting.next());
                    let Some((kernel, packages)) = next else { break };
                    let found = packages.and_then(|packages| boot(kernel, &packages, &programs, &folder));
                    let found = found.unwrap_or_else(|error| Found::NotTested(format!("{error:#}")));
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(Outcome { kernel, found });
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().ok().context("a machine's thread panicked")?;
    outcomes.sort_by_key(|outcome| chosen.iter().position(|kernel| *kernel == outcome.kernel));
    Ok(outcomes)
}

/// Boots one kernel with its own folder of files, which stays for whoever wants to look.
fn boot(kernel: &'static Kernel, packages: &[PathBuf], programs: &Programs, folder: &Path) -> Result<Found> {
    let folder = folder.join(kernel.name);
    cache::make(&folder)?;
    let files = Files::read(kernel, packages)?;
    let [image, initramfs, console] = ["vmlinuz", "initramfs.cpio", "console.log"].map(|name| folder.join(name));
    std::fs::write(&image, &files.image).with_context(|| format!("cannot write {}", image.display()))?;
    pack(&initramfs, &files, programs)?;

    let started = Instant::now();
    cmd::say("vm", format!("{}: booting {}", kernel.name, files.release));
    let machine = Machine { image: &image, initramfs: &initramfs, console: &console };
    let reports = machine.run(&|line| cmd::say(&format!("vm {}", kernel.name), line))?;
    let seconds = started.elapsed().as_secs();
    cmd::say("vm", format!("{}: {} after {seconds} s; its console: {}", kernel.name, files.release, console.display()));
    let rungs = RUNGS.map(|rung| rung.name);
    let failures = reports.failures(&rungs, &TESTS);
    Ok(Found::Booted { reports, failures })
}

fn pack(path: &Path, files: &Files, programs: &Programs) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut initramfs = Initramfs::new(BufWriter::new(file));
    initramfs.copy("/init", &programs.init)?;
    initramfs.copy("/bin/synfin", &programs.synfin)?;
    initramfs.copy("/test/synfin-peer", &programs.peer)?;
    for (name, program) in &programs.tests {
        initramfs.copy(&plan::test_path(name), program)?;
    }
    // The harness makes its namespaces with it. There is no static one to be had.
    initramfs.program("/bin/ip", &cmd::find("ip").context("`ip` (Debian package iproute2) is not on the PATH")?)?;
    for (place, (name, module)) in files.modules.iter().enumerate() {
        initramfs.file(&format!("/modules/{place:02}-{name}.ko"), module)?;
    }
    initramfs.file("/plan.json", plan::plan().to_string().as_bytes())?;
    initramfs.finish()?.flush().with_context(|| format!("cannot write {}", path.display()))
}
