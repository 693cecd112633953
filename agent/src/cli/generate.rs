//! Manual pages and shell completions, out of the same definitions as the parser.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use clap::builder::Resettable;
use clap::{ArgAction, Command, CommandFactory as _};
use clap_complete::Generator as _;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

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
    // `synfin help` has no page of its own, and `--help` says the same.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = dir else {
        return Page::of(command).write(out).context("writing the manual page");
    };
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let name = command.get_name().to_owned();
    let mut pages = vec![command.clone()];
    pages.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).map(|command| {
        let full: &'static str = format!("{name}-{}", command.get_name()).leak(); // clap keeps names for ever
        command.clone().name(full)
    }));
    for command in pages {
        let page = Page::of(command);
        let path = dir.join(page.man.get_filename());
        let mut text = Vec::new();
        page.write(&mut text)
            .and_then(|()| fs::write(&path, text))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// A manual page: the generator's, but for the synopsis, which it gives without the names of values, and the long help,
/// which it takes for running text.
struct Page {
    man: Man,
    more: String,
}

impl Page {
    fn of(command: Command) -> Self {
        let more = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let usage = synopsis(&command);
        let command = command.after_long_help(Resettable::Reset).override_usage(usage);
        let man = Man::new(command).manual("synfin").source(concat!("synfin ", env!("CARGO_PKG_VERSION")));
        Self { man, more }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        self.man.render(out)?;
        writeln!(out)?; // the generator leaves the last line open
        let mut sections = [("EXIT STATUS", Roff::new()), ("NOTES", Roff::new()), ("EXAMPLES", Roff::new())];
        for paragraph in self.more.split("\n\n") {
            let (section, text) = match (paragraph.strip_prefix("Exit codes:"), paragraph.strip_prefix("Examples:")) {
                (Some(text), _) => (0, text),
                (None, Some(text)) => (2, text),
                (None, None) => (1, paragraph),
            };
            typeset(&mut sections[section].1, text);
        }
        for (title, text) in &sections {
            if *text != Roff::new() {
                Roff::new().control("SH", [*title]).to_writer(out)?;
                text.to_writer(out)?;
            }
        }
        Ok(())
    }
}

/// A paragraph: what is indented stays as it is, line by line.
fn typeset(roff: &mut Roff, paragraph: &str) {
    roff.control("PP", []);
    let mut fixed = false;
    for line in paragraph.lines().filter(|line| !line.trim().is_empty()) {
        if fixed != line.starts_with(' ') {
            fixed = !fixed;
            roff.control(if fixed { "nf" } else { "fi" }, []);
        }
        roff.text([roman(if fixed { line } else { line.trim_start() })]);
    }
    if fixed {
        roff.control("fi", []);
    }
}

/// The command line in short, with the names of values.
fn synopsis(command: &Command) -> String {
    // The generator looks for the name in front.
    let mut words = vec![command.get_bin_name().unwrap_or(command.get_name()).to_owned()];
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let names = argument.get_value_names().unwrap_or_default();
        let takes = argument.get_action().takes_values();
        let value = if takes && !names.is_empty() { format!(" <{}>", names.join("> <")) } else { String::new() };
        let flag = match (argument.get_short(), argument.get_long()) {
            (Some(short), Some(long)) => format!("-{short}|--{long}"),
            (Some(short), None) => format!("-{short}"),
            (None, Some(long)) => format!("--{long}"),
            (None, None) => {
                words.push(value.trim_start().to_owned());
                continue;
            }
        };
        let more = if matches!(argument.get_action(), ArgAction::Append | ArgAction::Count) { "..." } else { "" };
        words.push(format!("[{flag}{value}]{more}"));
    }
    if command.has_subcommands() {
        words.push("<COMMAND>".to_owned());
    }
    words.join(" ")
}
