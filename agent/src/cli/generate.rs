//! Manual pages and shell completions, out of the same definitions as the parser.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Generator as _;

use super::Cli;

/// Writes a completion script.
pub fn completions(shell: clap_complete::Shell, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.set_bin_name("synfin");
    command.build();
    shell.try_generate(&command, out).context("writing the completion script")
}

/// Writes the manual page, or one for each command into a directory.
pub fn man(dir: Option<&Path>, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = dir else {
        return render(&page(&command), out).context("writing the manual page");
    };
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let name = command.get_name().to_owned();
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    let mut pages = vec![command.clone()];
    pages.extend(commands.map(|command| {
        let full: &'static str = format!("{name}-{}", command.get_name()).leak(); // clap keeps names for ever
        command.clone().name(full)
    }));
    for command in pages {
        let page = page(&command);
        let path = dir.join(page.get_filename());
        let mut text = Vec::new();
        render(&page, &mut text)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn page(command: &clap::Command) -> clap_mangen::Man {
    clap_mangen::Man::new(command.clone()).manual("synfin").source(concat!("synfin ", env!("CARGO_PKG_VERSION")))
}

/// The generator leaves the last line open.
fn render(page: &clap_mangen::Man, out: &mut dyn Write) -> io::Result<()> {
    page.render(out)?;
    writeln!(out)
}
