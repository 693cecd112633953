//! Process 1 of a virtual machine that boots one kernel of the matrix: prepares it as a small distribution would, runs
//! what `/plan.json` asks for, reports on a serial line, and switches the machine off.
//!
//! `cargo xtask vm` builds the initramfs around it and reads the reports: one JSON object a line, of which `record` says
//! what it is. What the kernel and the tests say on stderr goes to the console, the machine's other serial line.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        utsname::uname,
    },
};
use serde_json::{Value, json};
use synfin_tests::{need, note::NOTES_VARIABLE};

/// The serial line for reports.
const REPORTS: &str = "/dev/ttyS1";
const PLAN: &str = "/plan.json";
/// Kernel modules, loaded in the order of their names.
const MODULES: &str = "/modules";
/// The binary under test.
const SYNFIN: &str = "/bin/synfin";

/// Kind and folder of each file system, in the order in which they are mounted.
const MOUNTS: [(&str, &str); 9] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("securityfs", "/sys/kernel/security"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];
const TRACEFS: (&str, &str) = ("tracefs", "/sys/kernel/tracing");
/// The state of the kernel's lockdown, in brackets among the others.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

fn main() -> Result<Infallible> {
    let outcome = MOUNTS.into_iter().try_for_each(put).and_then(|()| work());
    if let Err(error) = &outcome {
        // No reports without a mounted /dev; the console is always there.
        drop(writeln!(std::io::stderr(), "synfin-vm-init: {error:#}"));
        drop(
            Reports::open()
                .and_then(|mut reports| reports.say(&json!({"record": "trouble", "why": format!("{error:#}")}))),
        );
    }
    // Returning would be a kernel panic.
    Ok(reboot(RebootMode::RB_POWER_OFF)?)
}

fn put((kind, folder): (&str, &str)) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {folder}"))?;
    mount(Some(kind), folder, Some(kind), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting {kind} at {folder}"))
}

fn work() -> Result<()> {
    let mut reports = Reports::open()?;
    let lockdown = lockdown()?;
    reports.say(&json!({"record": "boot", "release": uname()?.release().to_string_lossy(), "lockdown": lockdown}))?;
    load_modules()?;
    // Where the tests' receiver of OTLP listens.
    need::run(Command::new("/bin/ip").args(["link", "set", "lo", "up"]))?;
    let plan: Value = serde_json::from_slice(&fs::read(PLAN)?).with_context(|| format!("reading {PLAN}"))?;
    // There the kernel keeps tracefs empty, or does not have it at all.
    let traced = put(TRACEFS).and_then(|()| tracepoints());
    let tracepoints = if lockdown == "confidentiality" { traced.unwrap_or_default() } else { traced? };
    reports.say(&json!({"record": "facts", "tracepoints": tracepoints, "types": types(&plan)}))?;
    for run in runs(&plan).with_context(|| format!("reading {PLAN}"))? {
        reports.doctor(&run)?;
        for program in &run.programs {
            reports.program(&run, program)?;
        }
    }
    reports.say(&json!({"record": "done"}))
}

fn load_modules() -> Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(MODULES).with_context(|| format!("listing {MODULES}"))? {
        files.push(entry?.path());
    }
    files.sort();
    for path in files {
        finit_module(&File::open(&path)?, c"", ModuleInitFlags::empty())
            .with_context(|| format!("loading the module {}", path.display()))?;
    }
    Ok(())
}

/// What the kernel calls its lockdown: `none`, `integrity`, `confidentiality`.
fn lockdown() -> Result<String> {
    let text = fs::read_to_string(LOCKDOWN).with_context(|| format!("reading {LOCKDOWN}"))?;
    let state = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    Ok(state.with_context(|| format!("{LOCKDOWN} is not understood: {text}"))?.0.to_owned())
}

/// The fields of this kernel's TCP tracepoints.
fn tracepoints() -> Result<BTreeMap<String, Vec<String>>> {
    let mut tracepoints = BTreeMap::new();
    for group in ["sock", "tcp"] {
        for event in fs::read_dir(Path::new(TRACEFS.1).join("events").join(group))? {
            let event = event?;
            // `enable` and `filter` of the group are files.
            let Ok(format) = fs::read_to_string(event.path().join("format")) else { continue };
            tracepoints.insert(format!("{group}/{}", event.file_name().to_string_lossy()), fields(&format));
        }
    }
    Ok(tracepoints)
}

/// Those of the plan's `types` that this kernel's BTF has a name for.
fn types(plan: &Value) -> Vec<&str> {
    let btf = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let named = |name: &&str| {
        let entry = [b"\0", name.as_bytes(), b"\0"].concat();
        btf.windows(entry.len()).any(|window| window == entry)
    };
    let wanted = plan["types"].as_array().into_iter().flatten().filter_map(Value::as_str);
    wanted.filter(named).collect()
}

/// The names out of lines like `field:int newstate; offset:20; size:4; signed:1;`.
fn fields(format: &str) -> Vec<String> {
    let declared = format.lines().filter_map(|line| line.trim().strip_prefix("field:")?.split(';').next());
    declared.filter_map(|field| Some(field.rsplit(' ').next()?.split('[').next()?.to_owned())).collect()
}

/// One pass over test programs, with the environment that they get.
struct Run {
    name: String,
    doctor: Vec<String>,
    programs: Vec<Vec<String>>,
    environment: BTreeMap<String, String>,
}

fn runs(plan: &Value) -> Result<Vec<Run>> {
    plan["runs"].as_array().context("no `runs`")?.iter().map(Run::read).collect()
}

impl Run {
    /// What the tests noted since the last look.
    fn notes(&self) -> Result<Vec<Value>> {
        let Some(path) = self.environment.get(NOTES_VARIABLE).filter(|path| Path::new(path).exists()) else {
            return Ok(Vec::new());
        };
        let text = fs::read_to_string(path)?;
        fs::remove_file(path)?;
        let notes = text.lines().filter_map(|line| line.split_once('\t'));
        let report = |(about, found)| json!({"record": "note", "run": self.name, "about": about, "found": found});
        Ok(notes.map(report).collect())
    }

    fn read(value: &Value) -> Result<Self> {
        let field = |key: &str| value[key].clone();
        Ok(Self {
            name: serde_json::from_value(field("name")).context("name")?,
            doctor: serde_json::from_value(field("doctor")).context("doctor")?,
            programs: serde_json::from_value(field("programs")).context("programs")?,
            environment: serde_json::from_value(field("environment")).context("environment")?,
        })
    }
}

/// The way out of the machine.
struct Reports(File);

impl Reports {
    fn open() -> Result<Self> {
        let line = File::options().write(true).open(REPORTS).with_context(|| format!("opening {REPORTS}"))?;
        Ok(Self(line))
    }

    fn say(&mut self, report: &Value) -> Result<()> {
        // In one piece: a line that was begun is a line that ends.
        Ok(self.0.write_all(format!("{report}\n").as_bytes())?)
    }

    /// `synfin doctor --json`: what each probe stands on.
    fn doctor(&mut self, run: &Run) -> Result<()> {
        let output =
            Command::new(SYNFIN).args(["doctor", "--json"]).args(&run.doctor).stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| text.into());
        self.say(&json!({"record": "doctor", "run": run.name, "exit": output.status.code(), "report": report}))
    }

    /// A test program, each line of its output as soon as it is whole.
    fn program(&mut self, run: &Run, words: &[String]) -> Result<()> {
        let [program, arguments @ ..] = words else { return Ok(()) };
        let name = Path::new(program).file_name().map(|name| name.to_string_lossy().into_owned());
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .envs(&run.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let stdout = child.stdout.take().context("stdout was piped")?;
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            self.say(&json!({"record": "output", "run": run.name, "program": name, "line": line}))?;
        }
        let status = child.wait()?;
        for note in run.notes()? {
            self.say(&note)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        self.say(
            &json!({"record": "program", "run": run.name, "program": name, "exit": status.code(), "seconds": seconds}),
        )
    }
}
