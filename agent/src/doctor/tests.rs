use std::time::Duration;

use super::*;
use crate::health::{Cost, Health, Verdict};
use crate::privileges::Privileges;
use crate::rung::Rung;

fn system() -> System {
    System {
        kernel_release: Some("6.12.1".into()),
        btf: Some(("/sys/kernel/btf/vmlinux".into(), 6_000_000)),
        privileges: Privileges { effective: Some(u64::MAX), initial_user_namespace: true },
        lockdown: Some("none".into()),
        unprivileged_bpf_disabled: Some(2),
        bpf_stats_enabled: Some(false),
        cgroup2: Some("/sys/fs/cgroup".into()),
        tracefs: None,
        netns: Some(4_026_531_840),
    }
}

fn probe(name: &'static str, required: bool, verdict: Verdict) -> Probe {
    let cost = Some(Cost { runs: 1, time: Duration::from_micros(1), recursion_misses: 0 });
    Probe { name, tracepoint: "sock:inet_sock_set_state", required, verdict, refused: Vec::new(), cost }
}

fn good() -> Vec<Probe> {
    vec![probe("state", true, Verdict::Active { rung: Rung::TpBtf, partial: false })]
}

fn report(system: System, probes: anyhow::Result<Vec<Probe>>) -> Report {
    Report::new(system, probes, Timestamp::UNIX_EPOCH)
}

fn text(report: &Report) -> String {
    let mut out = Vec::new();
    text::write(report, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_healthy_machine_has_nothing_to_remedy() {
    let report = report(system(), Ok(good()));
    assert_eq!((report.health, report.exit()), (Health::Healthy, Exit::Done));
    let text = text(&report);
    assert!(!text.contains("->") && !text.contains("fail") && !text.contains("warn"), "{text}");
    assert!(text.contains("  ok    kernel             6.12.1\n"), "{text}");
    assert!(text.contains("  ok    state              sock:inet_sock_set_state: active (tp_btf)\n"), "{text}");
    assert!(text.ends_with("\nhealthy: every probe works\n"), "{text}");
}

#[test]
fn a_missing_optional_probe_degrades_and_a_required_one_fails() {
    let broken = || Verdict::Broken { error: "EPERM".into() };
    let mut probes = good();
    probes.push(probe("reset", false, broken()));
    let degraded = report(system(), Ok(probes));
    assert_eq!((degraded.health, degraded.exit()), (Health::Degraded, Exit::Done));
    assert!(text(&degraded).contains("  warn  reset              sock:inet_sock_set_state: broken: EPERM\n"));
    let failed = report(system(), Ok(vec![probe("state", true, broken())]));
    assert_eq!((failed.health, failed.exit()), (Health::Failed, Exit::Failed));
    assert!(text(&failed).contains("-> run `synfin doctor -vv`"));
}

#[test]
fn without_privileges_nothing_is_tried_and_the_remedy_is_named() {
    let mut system = system();
    system.privileges.effective = Some(0);
    let missing = system.privileges.suffice().unwrap_err();
    let report = report(system, Err(missing.into()));
    assert_eq!(report.exit(), Exit::Privileges);
    let text = text(&report);
    assert!(text.contains("  fail  privileges         CAP_BPF and CAP_PERFMON not in effect\n"), "{text}");
    assert!(text.contains("-> run it with sudo") && !text.contains("loading"), "{text}");
    assert!(text.ends_with("failed: the probes could not be tried, see above\n"), "{text}");
    let object = json::object(&report);
    assert_eq!(object["linux.capabilities.missing"], serde_json::json!(["CAP_BPF", "CAP_PERFMON"]));
}

#[test]
fn a_bare_machine_is_told_what_to_do() {
    let mut system = system();
    (system.btf, system.cgroup2, system.kernel_release) = (None, None, Some("5.4.0-generic".into()));
    system.lockdown = Some("confidentiality".into());
    let text = text(&report(system, Err(anyhow::anyhow!("no BTF").context("loading the programs"))));
    for part in [
        "warn  kernel             5.4.0-generic is older",
        "warn  btf                missing: only what the tracepoints' own records say",
        "CONFIG_DEBUG_INFO_BTF=y",
        "fail  lockdown           confidentiality",
        "-> boot with lockdown=integrity",
        "warn  cgroup v2          not mounted",
        "fail  loading            loading the programs: no BTF",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn lockdown_is_as_bad_as_what_it_takes() {
    let locked = |required| {
        let mut probes = good();
        probes.push(probe("reset", required, Verdict::Broken { error: "EINVAL".into() }));
        let system = System { lockdown: Some("confidentiality".into()), ..system() };
        text(&report(system, Ok(probes)))
    };
    let (optional, required) = (locked(false), locked(true));
    assert!(optional.contains("warn  lockdown  ") && required.contains("fail  lockdown  "), "{optional}{required}");
    for text in [optional, required] {
        assert_eq!(text.matches("-> boot with lockdown=integrity").count(), 2, "{text}");
        assert!(!text.contains("report it"), "{text}");
    }
}

#[test]
fn json_has_the_documented_keys_and_no_nulls() {
    let object = json::object(&report(system(), Ok(good())));
    assert_eq!((&object["type"], &object["version"]), (&"doctor".into(), &1.into()));
    assert_eq!(object["time"], "1970-01-01T00:00:00.000000000Z");
    assert_eq!(object["synfin.health"], "healthy");
    assert_eq!(object["linux.btf.size"], 6_000_000);
    assert_eq!(object["probes"][0]["verdict"], "active");
    let object = object.as_object().unwrap();
    assert!(object.values().all(|value| !value.is_null()) && !object.contains_key("linux.tracefs.path"));
    // The contract is the help text.
    let help = <crate::cli::Cli as clap::CommandFactory>::command()
        .find_subcommand_mut("doctor")
        .unwrap()
        .render_long_help()
        .to_string();
    for key in object.keys() {
        assert!(help.contains(key.as_str()), "{key} is not documented");
    }
}

#[test]
fn a_census_that_knows_less_says_so() {
    assert_eq!(report::census(Ok(Chosen::Iterator)).status, CheckStatus::Ok);
    let fallback = report::census(Ok(Chosen::InetDiag("no BTF".into())));
    assert_eq!((fallback.name, fallback.status), ("census", CheckStatus::Warn));
    assert!(fallback.detail.contains("no BTF") && fallback.detail.contains("half-open"), "{}", fallback.detail);
    assert_eq!(report::census(Err(anyhow::anyhow!("refused"))).status, CheckStatus::Fail);
}

#[test]
fn the_whole_command_runs_on_this_machine() {
    let mut out = Vec::new();
    let exit = run(true, None, Timestamp::UNIX_EPOCH, || Ok(good()), || Ok(Chosen::Iterator), &mut out).unwrap();
    let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let allowed = Privileges::current().suffice().is_ok();
    assert_eq!(exit, if allowed { Exit::Done } else { Exit::Privileges });
    assert_eq!(object["probes"].as_array().unwrap().len(), usize::from(allowed));
    let refused = Privileges { effective: Some(0), initial_user_namespace: true }.suffice();
    let refusal = || refused.map(|()| Vec::new()).map_err(anyhow::Error::from);
    assert_eq!(
        run(false, None, Timestamp::UNIX_EPOCH, refusal, || Ok(Chosen::Iterator), &mut Vec::new()).unwrap(),
        Exit::Privileges
    );
}
