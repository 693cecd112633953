//! The report for programs: one object, keys as in the help text of `synfin doctor`. No key is null.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::report::{Check, Report};
use super::system::System;
use crate::health::{Probe, Refused, Verdict};

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &object(report))?;
    writeln!(out)
}

pub(super) fn object(report: &Report) -> Value {
    let System {
        kernel_release,
        btf,
        privileges,
        lockdown,
        unprivileged_bpf_disabled,
        bpf_stats_enabled,
        cgroup2,
        tracefs,
        netns,
    } = &report.system;
    let mut object = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(key.to_owned(), value);
        }
    };
    put("type", Some("doctor".into()));
    put("version", Some(1.into()));
    put("time", Some(format!("{:.9}", report.time).into()));
    put("synfin.version", Some(env!("CARGO_PKG_VERSION").into()));
    put("synfin.health", Some(report.health.name().into()));
    put("linux.kernel.release", kernel_release.clone().map(Value::from));
    put("linux.btf.path", btf.as_ref().map(|(path, _)| path.to_string_lossy().into()));
    put("linux.btf.size", btf.as_ref().map(|&(_, size)| size.into()));
    put("linux.lockdown", lockdown.clone().map(Value::from));
    put("linux.bpf.unprivileged_disabled", unprivileged_bpf_disabled.map(Value::from));
    put("linux.bpf.stats_enabled", bpf_stats_enabled.map(Value::from));
    put("linux.cgroup2.path", cgroup2.as_ref().map(|path| path.to_string_lossy().into()));
    put("linux.tracefs.path", tracefs.as_ref().map(|path| path.to_string_lossy().into()));
    put("linux.netns.inode", netns.map(Value::from));
    let missing = privileges.suffice().err().map(|missing| missing.missing).unwrap_or_default();
    put("linux.capabilities.missing", Some(missing.iter().map(|capability| capability.name()).collect()));
    put("checks", Some(report.checks.iter().map(check).collect()));
    put("probes", Some(report.probes.iter().map(probe).collect()));
    Value::Object(object)
}

fn check(check: &Check) -> Value {
    let Check { name, status, detail, remedy } = check;
    let mut value = json!({ "name": name, "status": status.name(), "detail": detail });
    if let Some(remedy) = remedy {
        value["remedy"] = remedy.as_str().into();
    }
    value
}

fn probe(probe: &Probe) -> Value {
    let Probe { name, tracepoint, required, verdict, refused, cost: _ } = probe;
    let detail = match verdict {
        Verdict::Active { .. } | Verdict::Disabled => verdict.to_string(),
        Verdict::Unsupported { why } => why.clone(),
        Verdict::Broken { error } => error.clone(),
    };
    let mut value = json!({
        "name": name, "tracepoint": tracepoint, "required": required, "verdict": verdict.name(), "detail": detail,
    });
    if let Some(rung) = verdict.rung() {
        value["rung"] = rung.name().into();
    }
    if !refused.is_empty() {
        let refused = refused.iter().map(|Refused { rung, why }| json!({ "rung": rung.name(), "why": why }));
        value["refused"] = refused.collect();
    }
    value
}
