//! `cargo xtask`: set-up, build, run, test, lint, bench and kernel matrix of synfin. One file for each command.

mod apt;
mod bench;
mod build;
mod cache;
mod cmd;
mod collector;
mod core_src;
mod deny;
mod deps;
mod lex;
mod linker;
mod lint;
mod portable;
mod results;
mod run;
mod setup;
mod stream;
mod test;
mod testbed;
mod toolchain;
mod uses;
mod victoria_metrics;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, build, run, test, lint, bench and kernel matrix of synfin
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::Args),
    Build(build::Args),
    Run(run::Args),
    Test(test::Args),
    Lint(lint::Args),
    Bench(bench::Args),
    #[command(hide = true)]
    BenchHold(bench::census::hold::Args),
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Setup(args) => setup::run(&args),
        Task::Build(args) => build::run(&args),
        Task::Run(args) => run::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Lint(args) => lint::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::BenchHold(args) => bench::census::hold::run(&args),
        Task::Vm(args) => vm::run(&args),
    };
    if let Err(error) = done {
        cmd::say("xtask", format!("error: {error:#}"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
