//! The binary: command line, configuration, log, then the command. Everything else is in the library.

use std::env;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use synfin::cli::{self, Cli, Command};
use synfin::config::Config;
use synfin::exit::Exit;
use synfin::logging::{self, LogFormat};
use synfin::privileges::Privileges;
use synfin::{doctor, pipeline};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.global.log_format;
    let exit = execute(cli).unwrap_or_else(|error| {
        let exit = Exit::of(&error);
        match format {
            _ if exit == Exit::Done => {}
            LogFormat::Json => tracing::error!("{error:#}"),
            // For people, and several lines long for a configuration. A closed stderr is no reason to fail otherwise.
            LogFormat::Text => drop(writeln!(io::stderr(), "synfin: {error:#}")),
        }
        exit
    });
    exit.into()
}

fn execute(Cli { global, command }: Cli) -> anyhow::Result<Exit> {
    let recent = logging::init(&global.log(&variable))?;
    let names = || env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    let config = |flags| global.config(flags, &variable, names());
    let out = &mut io::stdout(); // not locked: views write from other threads
    match command {
        Command::Run(args) if args.print_config => write!(out, "{}", config(args.settings())?.to_yaml())?,
        Command::Run(args) => pipeline::run(&privileged(config(args.settings())?)?, &args.options(), &recent)?,
        Command::Watch(args) => pipeline::watch(&privileged(config(args.settings())?)?, &args.options())?,
        Command::Census(args) => {
            pipeline::census(&privileged(config(args.settings())?)?, args.options(), out)?;
        }
        Command::Doctor(args) => {
            let config = config(args.settings())?;
            let verdicts = || pipeline::probe_verdicts(&config);
            let source = || pipeline::census_source(&config);
            return doctor::run(args.json, config.probes.btf.as_deref(), jiff::Timestamp::now(), verdicts, source, out);
        }
        Command::Completions { shell } => cli::completions(shell, out)?,
        Command::Man { dir } => cli::man(dir.as_deref(), out)?,
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// After the configuration, because a wrong one is worth telling without privileges too.
fn privileged(config: Config) -> anyhow::Result<Config> {
    Ok(Privileges::current().suffice().map(|()| config)?)
}
