use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn error(line: &str) -> clap::Error {
    parse(line).expect_err(line)
}

#[test]
fn definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn run_takes_the_flags_of_the_contract() {
    let line = "synfin run --netns blue --netns 7 --port 80 --port 443,8080 --peer 10.0.0.0/8 --exclude-loopback \
                --otlp-endpoint http://h:4318 --otlp-protocol http/protobuf --trace-sample-ratio 0.5 --ring-size 1MiB \
                --http 127.0.0.1:9464 --duration 10s --no-summary --config a.yaml -vv --log-format json";
    let cli = parse(line).unwrap();
    assert_eq!(cli.global.config, Some("a.yaml".into()));
    assert_eq!((cli.global.verbose, cli.global.log_format), (2, LogFormat::Json));
    let Command::Run(run) = cli.command else { panic!("not run") };
    assert_eq!(run.options(), RunOptions { summary: false, duration: Some(Duration::from_secs(10)) });
    assert_eq!(run.filter.netns, ["blue", "7"]);
    assert_eq!(run.filter.ports, ["80", "443", "8080"]);
    assert_eq!(run.settings().len(), 9);
}

#[test]
fn watch_takes_the_flags_of_the_contract() {
    let line = "synfin -v watch --json --connections --netns blue --port 80 --peer ::1 --state CLOSE-WAIT,syn_recv \
                --state established --duration 5m --count 3 --exclude-loopback --ring-size 1MiB";
    let Command::Watch(watch) = parse(line).unwrap().command else { panic!("not watch") };
    let options = watch.options();
    assert_eq!(options.states, [State::CloseWait, State::SynReceived, State::Established]);
    assert_eq!((options.json, options.connections, options.count), (true, true, Some(3)));
    assert_eq!(options.duration, Some(Duration::from_mins(5)));
    assert_eq!(watch.settings().len(), 5);
}

#[test]
fn census_takes_one_view() {
    let options = |line: &str| {
        let Command::Census(census) = parse(line).unwrap().command else { panic!("not census") };
        census.options()
    };
    assert_eq!(options("synfin census"), CensusOptions { json: false, view: CensusView::Sums });
    assert_eq!(options("synfin census --sockets --json"), CensusOptions { json: true, view: CensusView::Sockets });
    for by in By::ALL {
        assert_eq!(options(&format!("synfin census --by {by}")).view, CensusView::By(by));
    }
}

#[test]
fn usage_errors_say_what_is_right_and_exit_with_2() {
    for (line, part) in [
        ("synfin watch --state half_open", "known: listen, syn_sent"),
        ("synfin watch --state time_wait", "--connections"),
        ("synfin watch --count 0", "1.."),
        ("synfin watch --duration 10", "e.g. 250ms"),
        ("synfin watch --duration 0s", "leave it out"),
        ("synfin run --duration soon", "e.g. 250ms"),
        ("synfin census --by user", "process, cgroup, container, pod, listener, peer"),
        ("synfin census --by", "process, cgroup, container, pod, listener, peer"),
        ("synfin census --by process --sockets", "cannot be used with"),
        ("synfin --log-format xml doctor", "text, json"),
        ("synfin fly", "unrecognized subcommand"),
        ("synfin completions tcsh", "bash"),
    ] {
        let error = error(line);
        let text = error.to_string();
        assert!(text.contains(part), "{line}: {text}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    assert_eq!(error("synfin").kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    assert_eq!(error("synfin").exit_code(), 2);
    assert_eq!(error("synfin --version").exit_code(), 0);
}

#[test]
fn every_command_has_examples_or_a_contract_in_its_help() {
    for name in ["run", "watch", "doctor", "completions", "man"] {
        let text = error(&format!("synfin {name} --help")).to_string();
        assert!(text.contains("Examples:") || text.contains("Exit codes:"), "{name}: {text}");
        assert!(text.contains("--config") && text.contains("--log-format"), "{name}");
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{name} is wrapped by the terminal: {text}");
    }
}

#[test]
fn completions_and_manual_name_every_command() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let mut script = Vec::new();
        completions(shell, &mut script).unwrap();
        let script = String::from_utf8(script).unwrap();
        assert!(["watch", "doctor", "trace-sample-ratio"].iter().all(|word| script.contains(word)), "{shell}");
    }
    let mut page = Vec::new();
    man(None, &mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains(".TH synfin 1") && page.contains("synfin\\-watch"), "{page}");
}

#[test]
fn manual_pages_go_into_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    man(Some(&dir.path().join("man1")), &mut Vec::new()).unwrap();
    let mut names: Vec<String> = std::fs::read_dir(dir.path().join("man1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "synfin-census.1",
        "synfin-completions.1",
        "synfin-doctor.1",
        "synfin-man.1",
        "synfin-run.1",
        "synfin-watch.1",
        "synfin.1",
    ];
    assert_eq!(names, expected);
    let watch = std::fs::read_to_string(dir.path().join("man1/synfin-watch.1")).unwrap();
    let part = |head: &str| watch.split_once(head).map(|(_, rest)| rest).unwrap_or_default();
    assert!(part("\n.SH SYNOPSIS\n").contains("[\\-\\-peer <CIDR>]..."), "{watch}");
    assert!(part("\n.SH SYNOPSIS\n").starts_with("\\fBsynfin watch\\fR [\\-\\-json]"), "{watch}");
    // Line by line, and with the quotes that a shell takes.
    let examples = part("\n.SH EXAMPLES\n");
    assert!(examples.contains("\n.nf\n  sudo synfin watch\n") && examples.contains("| jq \\*(Aqselect("), "{watch}");
    assert!(part("\n.SH NOTES\n").contains("States: listen"), "{watch}");
    let top = std::fs::read_to_string(dir.path().join("man1/synfin.1")).unwrap();
    let (_, codes) = top.split_once("\n.SH \"EXIT STATUS\"\n").unwrap();
    assert!(codes.contains("\n.nf\n  0   done\n"), "{top}");
    assert!(!top.contains("help(1)") && !top.contains("EXTRA") && top.contains("<COMMAND>"), "{top}");
    assert!(!top.lines().any(|line| line.ends_with(' ')), "{top}");
}
