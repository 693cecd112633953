//! `cargo xtask vm`: the end-to-end scenarios on real kernels, booted under emulation.

mod boots;
mod deb;
mod document;
mod features;
mod guard;
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
use boots::{BOOTS, Boot};
use deb::Files;
use initramfs::Initramfs;
use kernels::{KERNELS, Kernel};
use programs::Programs;
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
    /// Boot only in this way (repeatable): plain, refusals, confidentiality, integrity
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    boot: Vec<String>,
    /// Try this statically linked synfin instead of building one
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// As many machines run at a time: each takes one core.
const AT_A_TIME: usize = 2;

/// What became of one kernel, booted in one way.
#[derive(Debug)]
struct Outcome {
    kernel: &'static Kernel,
    boot: &'static Boot,
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
    let boots: Vec<&Boot> = if args.boot.is_empty() {
        BOOTS.iter().collect()
    } else {
        args.boot.iter().map(|name| boots::named(name)).collect::<Result<_>>()?
    };
    if let Some(why) = missing() {
        bail!("{why}");
    }
    setup::for_build()?;
    let outcomes = matrix(&chosen, &boots, args.binary.as_deref())?;
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
    Ok(add_up(&matrix(&KERNELS.iter().collect::<Vec<_>>(), &BOOTS.iter().collect::<Vec<_>>(), None)?))
}

/// Tests by their verdicts; a machine with a failure that is no test's is one failed test more.
fn add_up(outcomes: &[Outcome]) -> Results {
    let mut sum = Results::default();
    for outcome in outcomes {
        let name = outcome.name();
        match &outcome.found {
            Found::NotTested(why) => cmd::say("vm", format!("{name}: NOT tested: {why}")),
            Found::Booted { reports, failures } => {
                let (passed, failed) = reports.sum();
                sum.passed += passed;
                sum.failed += if failures.is_empty() { failed } else { failed.max(1) };
                let release = reports.release.as_deref().unwrap_or("no release");
                cmd::say("vm", format!("{name} ({release}): {passed} passed, {} failures", failures.len()));
                for failure in failures {
                    cmd::say("vm", format!("{name}: {failure}"));
                }
            }
        }
    }
    sum
}

impl Outcome {
    fn name(&self) -> String {
        machine_name(self.kernel, self.boot)
    }
}

/// `6.1`, and `6.1-integrity` for a boot that is not the plain one.
fn machine_name(kernel: &Kernel, boot: &Boot) -> String {
    if boot.is_plain() { kernel.name.to_owned() } else { format!("{}-{}", kernel.name, boot.name) }
}

fn matrix(kernels: &[&'static Kernel], boots: &[&'static Boot], binary: Option<&Path>) -> Result<Vec<Outcome>> {
    let programs = Programs::build(binary)?;
    let folder = build::target_dir()?.join("vm");
    // One after the other: they come over one line, and apt locks.
    let fetched: Vec<_> = kernels.iter().map(|kernel| (*kernel, store::packages(kernel))).collect();
    // The long ones first, so that no core idles at the end.
    let machines = boots.iter().flat_map(|boot| fetched.iter().map(|(kernel, packages)| (*kernel, *boot, packages)));
    let waiting = Mutex::new(machines);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().ok().and_then(|mut waiting| waiting.next());
                    let Some((kernel, boot, packages)) = next else { break };
                    let found = match packages {
                        Ok(packages) => play(kernel, boot, packages, &programs, &folder)
                            .unwrap_or_else(|error| Found::NotTested(format!("{error:#}"))),
                        Err(error) => Found::NotTested(format!("{error:#}")),
                    };
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(Outcome { kernel, boot, found });
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().ok().context("a machine's thread panicked")?;
    outcomes.sort_by_key(|outcome| {
        let kernel = kernels.iter().position(|kernel| *kernel == outcome.kernel);
        (boots.iter().position(|boot| *boot == outcome.boot), kernel)
    });
    Ok(outcomes)
}

/// Boots one kernel with its own folder of files, which stays for whoever wants to look.
fn play(
    kernel: &'static Kernel,
    boot: &'static Boot,
    packages: &[PathBuf],
    programs: &Programs,
    folder: &Path,
) -> Result<Found> {
    let name = machine_name(kernel, boot);
    let folder = folder.join(&name);
    cache::make(&folder)?;
    let files = Files::read(kernel, packages)?;
    let [image, initramfs, console] = ["vmlinuz", "initramfs.cpio", "console.log"].map(|name| folder.join(name));
    std::fs::write(&image, &files.image).with_context(|| format!("cannot write {}", image.display()))?;
    pack(&initramfs, &files, programs, boot)?;

    let started = Instant::now();
    cmd::say("vm", format!("{name}: booting {} {}", files.release, boot.parameters));
    let machine = Machine { image: &image, initramfs: &initramfs, parameters: boot.parameters, console: &console };
    let reports = machine.run(&|line| cmd::say(&format!("vm {name}"), line))?;
    let seconds = started.elapsed().as_secs();
    cmd::say("vm", format!("{name}: {} after {seconds} s; its console: {}", files.release, console.display()));
    let failures = reports.failures(boot);
    Ok(Found::Booted { reports, failures })
}

fn pack(path: &Path, files: &Files, programs: &Programs, boot: &Boot) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut initramfs = Initramfs::new(BufWriter::new(file));
    initramfs.copy("/init", &programs.init)?;
    initramfs.copy("/bin/synfin", &programs.synfin)?;
    initramfs.copy("/test/synfin-peer", &programs.peer)?;
    for (name, program) in &programs.tests {
        initramfs.copy(&plan::test_path(name), program)?;
    }
    // The harness makes its namespaces with it. There is no static one to be had.
    initramfs.program("/bin/ss", &cmd::find("ss").context("`ss` (Debian package iproute2) is not on the PATH")?)?;
    initramfs.program("/bin/ip", &cmd::find("ip").context("`ip` (Debian package iproute2) is not on the PATH")?)?;
    for (place, (name, module)) in files.modules.iter().enumerate() {
        initramfs.file(&format!("/modules/{place:02}-{name}.ko"), module)?;
    }
    initramfs.file("/plan.json", plan::plan(boot).to_string().as_bytes())?;
    initramfs.finish()?.flush().with_context(|| format!("cannot write {}", path.display()))
}
